/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/cert.h"

#include "relay/pki/words.h"
#include <openssl/bn.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>
#include <string.h>

/* What security level 2 of OpenSSL asks for. */
#define SECURITY_BITS_MIN 112

static void hex_print(const unsigned char *bytes, size_t count, char *out, size_t out_bytes)
{
	static const char digits[] = "0123456789abcdef";
	size_t at = 0;

	for (size_t i = 0; i < count && at + 3 <= out_bytes; i++) {
		out[at++] = digits[bytes[i] >> 4];
		out[at++] = digits[bytes[i] & 15];
	}
	out[at] = '\0';
}

/* dNSNames with ", " between; a byte that no host name has is a "?". */
static void names_print(const GENERAL_NAMES *names, char *out, size_t out_bytes)
{
	size_t at = 0;

	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
		const unsigned char *text;
		int len;

		if (name->type != GEN_DNS)
			continue;
		text = ASN1_STRING_get0_data(name->d.dNSName);
		len = ASN1_STRING_length(name->d.dNSName);
		if (at + (size_t)len + 3 > out_bytes)
			break;
		if (at > 0) {
			out[at++] = ',';
			out[at++] = ' ';
		}
		for (int j = 0; j < len; j++)
			out[at++] = (char)(text[j] > ' ' && text[j] < 0x7f ? text[j] : '?');
	}
	out[at] = '\0';
}

/* DER of the SubjectPublicKeyInfo as it stands in the certificate. */
static void facts_read_key(X509_PUBKEY *spki, struct cert_facts *out)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned char *der = NULL;
	int len = i2d_X509_PUBKEY(spki, &der);
	EVP_PKEY *key = X509_PUBKEY_get0(spki);
	char base64[2 * EVP_MAX_MD_SIZE];
	unsigned digest_len = 0;

	if (len > 0 && EVP_Digest(der, (size_t)len, digest, &digest_len, EVP_sha256(), NULL) == 1) {
		hex_print(digest, digest_len, out->pin_hex, sizeof(out->pin_hex));
		(void)EVP_EncodeBlock((unsigned char *)base64, digest, (int)digest_len);
		(void)snprintf(out->pin_base64, sizeof(out->pin_base64), "sha256//%.44s", base64);
	}
	OPENSSL_free(der);
	out->key_bits = key != NULL ? EVP_PKEY_get_bits(key) : 0;
	(void)snprintf(out->key_type, sizeof(out->key_type), "%s",
		key != NULL && EVP_PKEY_get0_type_name(key) != NULL ? EVP_PKEY_get0_type_name(key)
								    : "unknown");
}

void cert_key_thumbprint(EVP_PKEY *key, char out[static CERT_THUMBPRINT_BYTES])
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned char *der = NULL;
	unsigned len = 0;
	int der_len = i2d_PUBKEY(key, &der);

	out[0] = '\0';
	if (der_len > 0 && EVP_Digest(der, (size_t)der_len, digest, &len, EVP_sha1(), NULL) == 1)
		hex_print(digest, len, out, CERT_THUMBPRINT_BYTES);
	OPENSSL_free(der);
}

static int64_t time_of(const ASN1_TIME *time)
{
	struct tm tm = {0};

	return ASN1_TIME_to_tm(time, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

static void facts_read_serial(X509 *certificate, struct cert_facts *out)
{
	BIGNUM *number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), NULL);
	char *hex = number != NULL ? BN_bn2hex(number) : NULL;

	(void)snprintf(out->serial, sizeof(out->serial), "%s", hex != NULL ? hex : "");
	OPENSSL_free(hex);
	BN_free(number);
}

void cert_facts_read(X509 *certificate, struct cert_facts *out)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned len = 0;

	*out = (struct cert_facts){.not_before = time_of(X509_get0_notBefore(certificate)),
		.not_after = time_of(X509_get0_notAfter(certificate)),
		.is_self_signed = X509_self_signed(certificate, 1) == 1};
	if (X509_digest(certificate, EVP_sha1(), digest, &len) == 1)
		hex_print(digest, len, out->thumbprint, sizeof(out->thumbprint));
	openssl_print_name(X509_get_subject_name(certificate), out->subject, sizeof(out->subject));
	openssl_print_name(X509_get_issuer_name(certificate), out->issuer, sizeof(out->issuer));
	names_print(names, out->names, sizeof(out->names));
	facts_read_serial(certificate, out);
	facts_read_key(X509_get_X509_PUBKEY(certificate), out);
	GENERAL_NAMES_free(names);
	(void)cert_openssl_reason();
}

void cert_facts_read_request(X509_REQ *request, struct cert_facts *out)
{
	STACK_OF(X509_EXTENSION) *extensions = X509_REQ_get_extensions(request);
	GENERAL_NAMES *names = X509V3_get_d2i(extensions, NID_subject_alt_name, NULL, NULL);
	EVP_PKEY *key = X509_REQ_get0_pubkey(request);

	*out = (struct cert_facts){0};
	if (key != NULL)
		cert_key_thumbprint(key, out->thumbprint);
	openssl_print_name(X509_REQ_get_subject_name(request), out->subject, sizeof(out->subject));
	names_print(names, out->names, sizeof(out->names));
	facts_read_key(X509_REQ_get_X509_PUBKEY(request), out);
	GENERAL_NAMES_free(names);
	sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
	(void)cert_openssl_reason();
}

const char *cert_time_print(int64_t seconds, char out[static CERT_TIME_BYTES])
{
	time_t time = (time_t)seconds;
	struct tm tm;

	if (gmtime_r(&time, &tm) == NULL ||
		strftime(out, CERT_TIME_BYTES, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		(void)snprintf(out, CERT_TIME_BYTES, "unknown");
	return out;
}

const char *cert_why_weak_key(EVP_PKEY *key)
{
	static const char *const types[] = {"RSA", "RSA-PSS", "EC", "ED25519", "ED448"};

	for (unsigned i = 0; i < COUNT_OF(types); i++) {
		if (EVP_PKEY_is_a(key, types[i]))
			return EVP_PKEY_get_security_bits(key) < SECURITY_BITS_MIN
				       ? "the key is too weak, expected RSA of 2048 bits or more, "
					 "or "
					 "EC of 224 or more"
				       : NULL;
	}
	return "a key that TLS cannot use, expected RSA, EC or Ed25519";
}

const char *cert_why_weak(X509 *certificate)
{
	EVP_PKEY *key = X509_get0_pubkey(certificate);
	const char *why = key == NULL ? "its key cannot be read" : cert_why_weak_key(key);
	int digest = NID_undef;
	int bits = 0;

	if (why != NULL || X509_self_signed(certificate, 0) == 1)
		return why;
	/* Ed25519 has no digest of its own, and is strong enough. */
	if (X509_get_signature_info(certificate, &digest, NULL, &bits, NULL) == 1 &&
		bits < SECURITY_BITS_MIN)
		return "it is signed with too weak a digest, expected SHA-256 or better";
	return NULL;
}
