/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/pki/provider.h"

#include "tests/unit/pki_fixture.h"
#include <openssl/dsa.h>
#include <openssl/provider.h>
#include <openssl/ssl.h>
#include <sys/wait.h>

/*
 * What is left out must be missed by nobody: all keys of certificates and all private keys can be
 * read, and TLS has the same ciphers and groups, as with the default provider alone.
 */

struct kind {
	const char *type;
	const char *curve;
	bool is_certified; /* certificates have such keys */
};

static const struct kind kinds[] = {
	{"EC", "P-256", true},
	{"EC", "P-384", true},
	{"EC", "P-521", true},
	{"EC", "secp256k1", true},
	{"EC", "brainpoolP256r1", true},
	{"RSA", NULL, true},
	{"RSA-PSS", NULL, true},
	{"ED25519", NULL, true},
	{"ED448", NULL, true},
	{"SM2", "SM2", true},
	{"X25519", NULL, false},
	{"X448", NULL, false},
};

static EVP_PKEY *kind_make(const struct kind *kind)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, kind->type, NULL);
	EVP_PKEY *key = NULL;

	assert_non_null(ctx);
	assert_int_equal(EVP_PKEY_keygen_init(ctx), 1);
	if (kind->curve != NULL)
		assert_int_equal(EVP_PKEY_CTX_set_group_name(ctx, kind->curve), 1);
	assert_int_equal(EVP_PKEY_generate(ctx, &key), 1);
	EVP_PKEY_CTX_free(ctx);
	return key;
}

static void test_public_keys(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		EVP_PKEY *key = kind_make(&kinds[i]);
		unsigned char *der = NULL;
		int len = i2d_PUBKEY(key, &der);
		const unsigned char *at = der;
		EVP_PKEY *read;

		assert_true(len > 0);
		read = d2i_PUBKEY(NULL, &at, len);
		if (kinds[i].is_certified && (read == NULL || EVP_PKEY_eq(key, read) != 1))
			fail_msg("%s %s cannot be read", kinds[i].type, kinds[i].curve);
		/* Else nothing is left out, and this test tests nothing. */
		if (!kinds[i].is_certified && provider_is_lean())
			assert_null(read);
		OPENSSL_free(der);
		EVP_PKEY_free(key);
		EVP_PKEY_free(read);
	}
	ERR_clear_error();
}

/* DSA is made in two steps; such certificates are rare, but a chain may have one. */
static void test_public_dsa(void **state)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "DSA", NULL);
	EVP_PKEY_CTX *generator;
	EVP_PKEY *parameters = NULL;
	EVP_PKEY *key = NULL;
	EVP_PKEY *read;
	unsigned char *der = NULL;
	const unsigned char *at;
	int len;

	(void)state;
	assert_int_equal(EVP_PKEY_paramgen_init(ctx), 1);
	assert_int_equal(EVP_PKEY_CTX_set_dsa_paramgen_bits(ctx, 1024), 1);
	assert_int_equal(EVP_PKEY_generate(ctx, &parameters), 1);
	generator = EVP_PKEY_CTX_new_from_pkey(NULL, parameters, NULL);
	assert_int_equal(EVP_PKEY_keygen_init(generator), 1);
	assert_int_equal(EVP_PKEY_generate(generator, &key), 1);
	len = i2d_PUBKEY(key, &der);
	assert_true(len > 0);
	at = der;
	read = d2i_PUBKEY(NULL, &at, len);
	assert_non_null(read);
	assert_int_equal(EVP_PKEY_eq(key, read), 1);
	OPENSSL_free(der);
	EVP_PKEY_free(read);
	EVP_PKEY_free(key);
	EVP_PKEY_free(parameters);
	EVP_PKEY_CTX_free(generator);
	EVP_PKEY_CTX_free(ctx);
}

static int no_password(char *out, int bytes, int is_writing, void *arg)
{
	(void)out;
	(void)bytes;
	(void)is_writing;
	(void)arg;
	return -1;
}

/* What was read signs what the key itself verifies. */
static void assert_signs(EVP_PKEY *signer, EVP_PKEY *verifier)
{
	const char *digest = EVP_PKEY_is_a(signer, "ED25519") || EVP_PKEY_is_a(signer, "ED448")
				     ? NULL
			     : EVP_PKEY_is_a(signer, "SM2") ? "SM3"
							    : "SHA256";
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	uint8_t signature[1024];
	size_t len = sizeof(signature);

	assert_int_equal(EVP_DigestSignInit_ex(ctx, NULL, digest, NULL, NULL, signer, NULL), 1);
	assert_int_equal(EVP_DigestSign(ctx, signature, &len, (const uint8_t *)"text", 4), 1);
	EVP_MD_CTX_free(ctx);
	ctx = EVP_MD_CTX_new();
	assert_int_equal(EVP_DigestVerifyInit_ex(ctx, NULL, digest, NULL, NULL, verifier, NULL), 1);
	assert_int_equal(EVP_DigestVerify(ctx, signature, len, (const uint8_t *)"text", 4), 1);
	EVP_MD_CTX_free(ctx);
}

enum form { FORM_PKCS8, FORM_TRADITIONAL, FORM_ENCRYPTED, FORM_COUNT };

static bool key_write(const char *file, EVP_PKEY *key, enum form form)
{
	BIO *out = BIO_new_file(file, "w");
	char password[] = "secret";
	int rc = 0;

	assert_non_null(out);
	if (form == FORM_PKCS8)
		rc = PEM_write_bio_PKCS8PrivateKey(out, key, NULL, NULL, 0, NULL, NULL);
	else if (form == FORM_TRADITIONAL)
		rc = PEM_write_bio_PrivateKey_traditional(out, key, NULL, NULL, 0, NULL, NULL);
	else if (form == FORM_ENCRYPTED)
		rc = PEM_write_bio_PKCS8PrivateKey(
			out, key, EVP_aes_256_cbc(), password, sizeof(password) - 1, NULL, NULL);
	BIO_free(out);
	ERR_clear_error();
	return rc == 1;
}

static void test_private_keys(void **state)
{
	const char *file = pki_path("some.key");
	unsigned traditional = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		EVP_PKEY *key = kind_make(&kinds[i]);

		for (enum form form = 0; form < FORM_COUNT; form++) {
			EVP_PKEY *read;

			/* Newer types have no form of their own. */
			if (!key_write(file, key, form)) {
				assert_int_equal(form, FORM_TRADITIONAL);
				continue;
			}
			traditional += form == FORM_TRADITIONAL;
			read = provider_read_key(file, no_password);
			if (form == FORM_ENCRYPTED) {
				assert_null(read);
				continue;
			}
			if (read == NULL || EVP_PKEY_eq(key, read) != 1)
				fail_msg("%s, form %d", kinds[i].type, (int)form);
			if (kinds[i].is_certified)
				assert_signs(read, key);
			EVP_PKEY_free(read);
		}
		EVP_PKEY_free(key);
	}
	assert_true(traditional >= 2);
	assert_null(provider_read_key(pki_path("missing.key"), no_password));
	ERR_clear_error();
}

/* A server or client shows the key that was read. */
static void test_key_in_context(void **state)
{
	const struct pki_options options = {.cn = "key.test"};
	struct pki made = pki_make(&options);
	const char *file = pki_path("context.key");
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
	EVP_PKEY *key;

	(void)state;
	assert_true(key_write(file, made.key, FORM_PKCS8));
	key = provider_read_key(file, no_password);
	assert_int_equal(X509_check_private_key(made.certificate, key), 1);
	assert_int_equal(SSL_CTX_use_certificate(ctx, made.certificate), 1);
	assert_int_equal(SSL_CTX_use_PrivateKey(ctx, key), 1);
	assert_int_equal(SSL_CTX_check_private_key(ctx), 1);
	EVP_PKEY_free(key);
	SSL_CTX_free(ctx);
	pki_drop(&made);
}

/* All that TLS can do, with this provider and with OpenSSL's own. */
static void test_ciphers_and_groups(void **state)
{
	static const char *const groups[] = {"X25519", "X448", "P-256", "P-384", "P-521",
		"ffdhe2048", "ffdhe8192", "brainpoolP256r1", "secp256k1"};
	OSSL_LIB_CTX *plain = OSSL_LIB_CTX_new();
	SSL_CTX *ours = SSL_CTX_new(TLS_method());
	SSL_CTX *theirs = SSL_CTX_new_ex(plain, NULL, TLS_method());
	const STACK_OF(SSL_CIPHER) * our_list;
	const STACK_OF(SSL_CIPHER) * their_list;

	(void)state;
	assert_int_equal(SSL_CTX_set_cipher_list(ours, "ALL:COMPLEMENTOFALL:@SECLEVEL=0"), 1);
	assert_int_equal(SSL_CTX_set_cipher_list(theirs, "ALL:COMPLEMENTOFALL:@SECLEVEL=0"), 1);
	our_list = SSL_CTX_get_ciphers(ours);
	their_list = SSL_CTX_get_ciphers(theirs);
	assert_true(sk_SSL_CIPHER_num(our_list) > 50);
	assert_int_equal(sk_SSL_CIPHER_num(our_list), sk_SSL_CIPHER_num(their_list));
	for (int i = 0; i < sk_SSL_CIPHER_num(our_list); i++)
		assert_string_equal(SSL_CIPHER_get_name(sk_SSL_CIPHER_value(our_list, i)),
			SSL_CIPHER_get_name(sk_SSL_CIPHER_value(their_list, i)));
	for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
		assert_int_equal(SSL_CTX_set1_groups_list(ours, groups[i]),
			SSL_CTX_set1_groups_list(theirs, groups[i]));
	ERR_clear_error();
	SSL_CTX_free(ours);
	SSL_CTX_free(theirs);
	OSSL_LIB_CTX_free(plain);
}

static void test_in_front(void **state)
{
	(void)state;
	assert_int_equal(
		provider_is_lean(), OPENSSL_version_major() == 3 && OPENSSL_version_minor() < 2);
}

/* A system whose openssl.cnf names its providers keeps them, and they alone. */
static void test_configured_elsewhere(void)
{
	const char *file = pki_path("openssl.cnf");
	FILE *out = fopen(file, "w");
	pid_t child;
	int status = 0;

	assert_non_null(out);
	(void)fputs("openssl_conf = init\n[init]\nproviders = providers\n"
		    "[providers]\ndefault = it\n[it]\nactivate = 1\n",
		out);
	(void)fclose(out);
	child = fork();
	if (child == 0) {
		(void)setenv("OPENSSL_CONF", file, 1);
		provider_init();
		_exit(!provider_is_lean() && OSSL_PROVIDER_available(NULL, "default") == 1 &&
					OSSL_PROVIDER_available(NULL, "postern") == 0
				? 0
				: 1);
	}
	assert_true(child > 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static int setup(void **state)
{
	(void)state;
	pki_begin();
	/* First: once OpenSSL is in use it does not read its configuration again. */
	test_configured_elsewhere();
	provider_init();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	pki_end();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_in_front),
		cmocka_unit_test(test_public_keys),
		cmocka_unit_test(test_public_dsa),
		cmocka_unit_test(test_private_keys),
		cmocka_unit_test(test_key_in_context),
		cmocka_unit_test(test_ciphers_and_groups),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
