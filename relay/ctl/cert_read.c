/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/cert.h"

#include "relay/base/span.h"
#include "relay/pki/words.h"
#include <errno.h>
#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/pkcs7.h>
#include <openssl/provider.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Sets of published test certificates are large; no file of ours is. */
#define FILE_BYTES_MAX (64L * 1024 * 1024)

const char *cert_openssl_reason(void)
{
	const char *reason = openssl_why("unknown reason");

	ERR_clear_error();
	return reason;
}

static int file_read_into(int fd, BIO *out)
{
	char block[16384];
	long total = 0;

	for (;;) {
		ssize_t len = read(fd, block, sizeof(block));

		if (len < 0)
			return -errno;
		if (len == 0)
			return 0;
		total += len;
		if (total > FILE_BYTES_MAX)
			return -EFBIG;
		if (BIO_write(out, block, (int)len) != len)
			return -ENOMEM;
	}
}

BIO *cert_file_read(const char *file)
{
	BIO *bio = BIO_new(BIO_s_secmem());
	int fd = open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	int rc = fd < 0 ? -errno : bio == NULL ? -ENOMEM : file_read_into(fd, bio);

	if (fd >= 0)
		(void)close(fd);
	if (rc == 0 && BIO_pending(bio) == 0) {
		ctl_error("%s: the file is empty", file);
		rc = -EINVAL;
	} else if (rc < 0) {
		ctl_error("%s: %s", file, strerror(-rc));
	}
	if (rc == 0)
		return bio;
	BIO_free(bio);
	return NULL;
}

int cert_password_read(const char *file, const char **out)
{
	static char password[1024];
	BIO *bio = cert_file_read(file);
	int len;

	if (bio == NULL)
		return -EINVAL;
	len = BIO_gets(bio, password, sizeof(password));
	BIO_free(bio);
	password[len > 0 ? len : 0] = '\0';
	password[strcspn(password, "\r\n")] = '\0';
	if (len >= (int)sizeof(password) - 1) {
		ctl_error("%s: the first line is too long for a password", file);
		return -EINVAL;
	}
	*out = password;
	return 0;
}

void cert_bundle_drop(struct cert_bundle *bundle)
{
	sk_X509_pop_free(bundle->certificates, X509_free);
	EVP_PKEY_free(bundle->key);
	*bundle = (struct cert_bundle){0};
}

/* Takes the certificate over; one that is there already is dropped. */
static int bundle_add(struct cert_bundle *bundle, X509 *certificate)
{
	if (certificate == NULL)
		return 0;
	for (int i = 0; i < sk_X509_num(bundle->certificates); i++) {
		if (X509_cmp(sk_X509_value(bundle->certificates, i), certificate) == 0) {
			X509_free(certificate);
			return 0;
		}
	}
	if (sk_X509_push(bundle->certificates, certificate) > 0)
		return 0;
	X509_free(certificate);
	return -ENOMEM;
}

static int bundle_add_key(struct cert_bundle *bundle, EVP_PKEY *key, const char *file)
{
	if (bundle->key != NULL && EVP_PKEY_eq(bundle->key, key) != 1) {
		EVP_PKEY_free(key);
		ctl_error("%s: a second, different private key, expected one", file);
		return -EINVAL;
	}
	EVP_PKEY_free(bundle->key);
	bundle->key = key;
	return 0;
}

static int bundle_add_pkcs7(struct cert_bundle *bundle, PKCS7 *pkcs7)
{
	STACK_OF(X509) *certificates = NULL;
	int rc = 0;

	if (PKCS7_type_is_signed(pkcs7) && pkcs7->d.sign != NULL)
		certificates = pkcs7->d.sign->cert;
	else if (PKCS7_type_is_signedAndEnveloped(pkcs7) && pkcs7->d.signed_and_enveloped != NULL)
		certificates = pkcs7->d.signed_and_enveloped->cert;
	for (int i = 0; rc == 0 && i < sk_X509_num(certificates); i++) {
		X509 *one = sk_X509_value(certificates, i);

		rc = X509_up_ref(one) == 1 ? bundle_add(bundle, one) : -ENOMEM;
	}
	return rc;
}

static OSSL_PROVIDER *providers[2];

static void providers_unload(void)
{
	for (unsigned i = 0; i < COUNT_OF(providers); i++)
		if (providers[i] != NULL)
			(void)OSSL_PROVIDER_unload(providers[i]);
}

/*
 * Exports of older Windows use RC2 of 40 bits, which OpenSSL has in a provider of its own. It is
 * loaded when such a file is read, and only in this program; a failure shows when it is used.
 */
static void providers_load(void)
{
	if (providers[0] != NULL || atexit(providers_unload) != 0)
		return;
	providers[0] = OSSL_PROVIDER_load(NULL, "default");
	providers[1] = OSSL_PROVIDER_load(NULL, "legacy");
}

static bool pkcs12_open(PKCS12 *pkcs12, const char *password)
{
	providers_load();
	return !PKCS12_mac_present(pkcs12) || PKCS12_verify_mac(pkcs12, password, -1) == 1;
}

static int bundle_take_pkcs12(struct cert_bundle *bundle, const char *file, EVP_PKEY *key,
	X509 *leaf, STACK_OF(X509) * others)
{
	int rc = key != NULL ? bundle_add_key(bundle, key, file) : 0;

	if (rc == 0)
		rc = bundle_add(bundle, leaf);
	else
		X509_free(leaf);
	while (sk_X509_num(others) > 0) {
		X509 *one = sk_X509_shift(others);

		if (rc == 0)
			rc = bundle_add(bundle, one);
		else
			X509_free(one);
	}
	sk_X509_free(others);
	return rc;
}

static int bundle_add_pkcs12(
	struct cert_bundle *bundle, const char *file, PKCS12 *pkcs12, const char *password)
{
	EVP_PKEY *key = NULL;
	X509 *leaf = NULL;
	STACK_OF(X509) *others = NULL;

	/* PKCS12_parse() itself tries the empty password and none at all where it gets NULL. */
	if (!pkcs12_open(pkcs12, password) && (password != NULL || !pkcs12_open(pkcs12, ""))) {
		ctl_error("%s: %s", file,
			password != NULL ? "the password does not fit"
					 : "PKCS#12 with a password, expected --password-file");
		return -EINVAL;
	}
	ERR_clear_error();
	if (PKCS12_parse(pkcs12, password, &key, &leaf, &others) == 1)
		return bundle_take_pkcs12(bundle, file, key, leaf, others);
	ctl_error("%s: PKCS#12 that cannot be read: %s", file, cert_openssl_reason());
	return -EINVAL;
}

/* Never asks: posternctl has no terminal of its own to ask on. */
static int password_of_key(char *out, int out_bytes, int is_writing, void *password)
{
	size_t len = password != NULL ? strlen(password) : 0;

	(void)is_writing;
	if (password == NULL || len > (size_t)out_bytes)
		return -1;
	memcpy(out, password, len);
	return (int)len;
}

static int bundle_add_pem_key(struct cert_bundle *bundle, const char *file, const char *name,
	BIO *block, const char *password)
{
	char *copy = password != NULL ? OPENSSL_strdup(password) : NULL;
	EVP_PKEY *key = PEM_read_bio_PrivateKey(block, NULL, password_of_key, copy);

	OPENSSL_clear_free(copy, copy != NULL ? strlen(copy) : 0);
	if (key != NULL)
		return bundle_add_key(bundle, key, file);
	ctl_error("%s: %s that cannot be read: %s", file, name,
		password == NULL ? "is it encrypted? Expected --password-file"
				 : cert_openssl_reason());
	ERR_clear_error();
	return -EINVAL;
}

/* One block of a PEM file; those that are not for us are passed over. */
static int bundle_add_block(struct cert_bundle *bundle, const char *file, const char *name,
	const unsigned char *der, long len)
{
	X509 *certificate;
	PKCS7 *pkcs7;
	int rc;

	if (strcmp(name, PEM_STRING_X509) == 0 || strcmp(name, PEM_STRING_X509_OLD) == 0 ||
		strcmp(name, PEM_STRING_X509_TRUSTED) == 0) {
		certificate = strcmp(name, PEM_STRING_X509_TRUSTED) == 0
				      ? d2i_X509_AUX(NULL, &der, len)
				      : d2i_X509(NULL, &der, len);
		if (certificate != NULL)
			return bundle_add(bundle, certificate);
	} else if (strcmp(name, PEM_STRING_PKCS7) == 0 ||
		   strcmp(name, PEM_STRING_PKCS7_SIGNED) == 0 ||
		   strcmp(name, PEM_STRING_CMS) == 0) {
		pkcs7 = d2i_PKCS7(NULL, &der, len);
		if (pkcs7 != NULL) {
			rc = bundle_add_pkcs7(bundle, pkcs7);
			PKCS7_free(pkcs7);
			return rc;
		}
	} else {
		return 0;
	}
	ctl_error("%s: a %s that cannot be decoded: %s", file, name, cert_openssl_reason());
	return -EINVAL;
}

/* A block again as PEM, since OpenSSL decrypts keys on the way from there. */
static int bundle_add_key_block(struct cert_bundle *bundle, const char *file, const char *name,
	const char *header, const unsigned char *der, long len, const char *password)
{
	BIO *block = BIO_new(BIO_s_secmem());
	int rc = -ENOMEM;

	if (block != NULL && PEM_write_bio(block, name, header, der, len) > 0)
		rc = bundle_add_pem_key(bundle, file, name, block, password);
	BIO_free(block);
	return rc;
}

static int bundle_read_pem(
	struct cert_bundle *bundle, const char *file, BIO *bio, const char *password)
{
	char *name = NULL;
	char *header = NULL;
	unsigned char *der = NULL;
	long len = 0;
	int rc = 0;
	unsigned long error;

	while (rc == 0 && PEM_read_bio(bio, &name, &header, &der, &len) == 1) {
		size_t name_len = strlen(name);
		const char *key = "PRIVATE KEY";

		if (name_len >= strlen(key) && strcmp(name + name_len - strlen(key), key) == 0)
			rc = bundle_add_key_block(bundle, file, name, header, der, len, password);
		else
			rc = bundle_add_block(bundle, file, name, der, len);
		OPENSSL_free(name);
		OPENSSL_free(header);
		OPENSSL_clear_free(der, (size_t)len);
	}
	if (rc < 0)
		return rc;
	error = ERR_peek_last_error();
	if (ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE) {
		ERR_clear_error();
		return 0;
	}
	ctl_error("%s: damaged PEM: %s", file, cert_openssl_reason());
	return -EINVAL;
}

/* The formats differ from the first tag on, so the order does not matter. */
static int bundle_read_der(
	struct cert_bundle *bundle, const char *file, struct span content, const char *password)
{
	const unsigned char *at = content.data;
	long len = (long)content.len;
	X509 *certificate = d2i_X509(NULL, &at, len);
	PKCS7 *pkcs7 = NULL;
	PKCS12 *pkcs12 = NULL;
	EVP_PKEY *key = NULL;
	int rc = -EINVAL;

	if (certificate != NULL)
		return bundle_add(bundle, certificate);
	at = content.data;
	pkcs12 = d2i_PKCS12(NULL, &at, len);
	if (pkcs12 == NULL) {
		at = content.data;
		pkcs7 = d2i_PKCS7(NULL, &at, len);
	}
	if (pkcs12 == NULL && pkcs7 == NULL) {
		at = content.data;
		key = d2i_AutoPrivateKey(NULL, &at, len);
	}
	ERR_clear_error();
	if (pkcs12 != NULL)
		rc = bundle_add_pkcs12(bundle, file, pkcs12, password);
	else if (pkcs7 != NULL)
		rc = bundle_add_pkcs7(bundle, pkcs7);
	else if (key != NULL)
		rc = bundle_add_key(bundle, key, file);
	else
		ctl_error("%s: neither PEM nor DER of a certificate, key, PKCS#7 or PKCS#12", file);
	PKCS12_free(pkcs12);
	PKCS7_free(pkcs7);
	return rc;
}

int cert_bundle_read(const char *file, const char *password, struct cert_bundle *bundle)
{
	static const char begin[] = "-----BEGIN ";
	BIO *bio = cert_file_read(file);
	char *data = NULL;
	long len;
	int rc;

	if (bio == NULL)
		return -EINVAL;
	if (bundle->certificates == NULL)
		bundle->certificates = sk_X509_new_null();
	len = BIO_get_mem_data(bio, &data);
	if (bundle->certificates == NULL)
		rc = -ENOMEM;
	else if (memmem(data, (size_t)len, begin, strlen(begin)) != NULL)
		rc = bundle_read_pem(bundle, file, bio, password);
	else
		rc = bundle_read_der(bundle, file, span_make(data, (size_t)len), password);
	BIO_free(bio);
	return rc;
}

/* is_block: of a PEM file, so somebody meant it to be a certificate. */
static enum cert_chain_state chain_add(
	STACK_OF(X509) * out, const char *file, const unsigned char *der, long len, bool is_block)
{
	const unsigned char *at = der;
	X509 *certificate = d2i_X509(NULL, &at, len);
	const char *reason;

	if (certificate != NULL && at == der + len && sk_X509_push(out, certificate) > 0)
		return CERT_CHAIN_OK;
	X509_free(certificate);
	reason = cert_openssl_reason();
	/* It begins as DER does: a peer could send it, and would be refused. */
	if (is_block && len > 0 && der[0] == (V_ASN1_SEQUENCE | V_ASN1_CONSTRUCTED))
		return CERT_CHAIN_UNDECODABLE;
	ctl_error("%s: certificate %d is damaged: %s", file, sk_X509_num(out) + 1, reason);
	return CERT_CHAIN_DAMAGED;
}

static enum cert_chain_state chain_read_pem(const char *file, BIO *bio, STACK_OF(X509) * out)
{
	enum cert_chain_state worst = CERT_CHAIN_OK;
	char *name = NULL;
	char *header = NULL;
	unsigned char *der = NULL;
	long len = 0;
	bool is_damaged;

	while (worst != CERT_CHAIN_DAMAGED && PEM_read_bio(bio, &name, &header, &der, &len) == 1) {
		if (strcmp(name, PEM_STRING_X509) == 0 || strcmp(name, PEM_STRING_X509_OLD) == 0) {
			enum cert_chain_state state = chain_add(out, file, der, len, true);

			worst = state != CERT_CHAIN_OK ? state : worst;
		}
		OPENSSL_free(name);
		OPENSSL_free(header);
		OPENSSL_clear_free(der, (size_t)len);
	}
	is_damaged = ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE;
	if (worst != CERT_CHAIN_DAMAGED && is_damaged) {
		ctl_error("%s: damaged PEM: %s", file, cert_openssl_reason());
		worst = CERT_CHAIN_DAMAGED;
	}
	ERR_clear_error();
	return worst;
}

enum cert_chain_state cert_chain_read(const char *file, STACK_OF(X509) * out)
{
	static const char begin[] = "-----BEGIN ";
	BIO *bio = cert_file_read(file);
	enum cert_chain_state state;
	unsigned char *data = NULL;
	long len;

	if (bio == NULL)
		return CERT_CHAIN_DAMAGED;
	len = BIO_get_mem_data(bio, &data);
	if (memmem(data, (size_t)len, begin, strlen(begin)) != NULL)
		state = chain_read_pem(file, bio, out);
	else
		state = chain_add(out, file, data, len, false);
	BIO_free(bio);
	if (state == CERT_CHAIN_OK && sk_X509_num(out) == 0) {
		ctl_error("%s: no certificate in it", file);
		return CERT_CHAIN_DAMAGED;
	}
	return state;
}
