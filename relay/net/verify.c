/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/net/verify.h"

#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <string.h>

static enum verdict verdict_of_error(long error)
{
	switch (error) {
	case X509_V_OK:
		return VERDICT_VALID;
	case X509_V_ERR_CERT_HAS_EXPIRED:
		return VERDICT_EXPIRED;
	case X509_V_ERR_CERT_NOT_YET_VALID:
		return VERDICT_NOT_YET_VALID;
	case X509_V_ERR_CERT_REVOKED:
		return VERDICT_REVOKED;
	case X509_V_ERR_UNABLE_TO_GET_CRL:
	case X509_V_ERR_CRL_HAS_EXPIRED:
	case X509_V_ERR_CRL_NOT_YET_VALID:
		return VERDICT_REVOCATION_UNKNOWN;
	case X509_V_ERR_INVALID_PURPOSE:
	case X509_V_ERR_CERT_UNTRUSTED:
	case X509_V_ERR_CERT_REJECTED:
	case X509_V_ERR_KEYUSAGE_NO_CERTSIGN:
	case X509_V_ERR_INVALID_CA:
		return VERDICT_BAD_USAGE;
	case X509_V_ERR_EE_KEY_TOO_SMALL:
	case X509_V_ERR_CA_KEY_TOO_SMALL:
	case X509_V_ERR_CA_MD_TOO_WEAK:
		return VERDICT_WEAK_KEY;
	case X509_V_ERR_CERT_SIGNATURE_FAILURE:
	case X509_V_ERR_UNABLE_TO_DECRYPT_CERT_SIGNATURE:
		return VERDICT_SIGNATURE_FAILURE;
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
		return VERDICT_UNTRUSTED_ROOT;
	default:
		return VERDICT_INVALID;
	}
}

/* The dates again, since a ticket may outlive the certificate that it stands for. */
static enum verdict verdict_of_dates(X509 *leaf)
{
	if (X509_cmp_current_time(X509_get0_notAfter(leaf)) < 0)
		return VERDICT_EXPIRED;
	if (X509_cmp_current_time(X509_get0_notBefore(leaf)) > 0)
		return VERDICT_NOT_YET_VALID;
	return VERDICT_VALID;
}

static void facts_read_subject(X509 *leaf, struct tls_facts *out)
{
	BIO *bio = BIO_new(BIO_s_mem());
	int len = 0;

	if (bio != NULL && X509_NAME_print_ex(bio, X509_get_subject_name(leaf), 0,
				   XN_FLAG_RFC2253 & ~(unsigned long)ASN1_STRFLGS_ESC_MSB) >= 0)
		len = BIO_read(bio, out->subject, sizeof(out->subject) - 1);
	out->subject[len > 0 ? len : 0] = '\0';
	BIO_free(bio);
}

static void facts_read_spki(X509 *leaf, struct tls_facts *out)
{
	static const char hex[] = "0123456789abcdef";
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned char *der = NULL;
	unsigned len = 0;
	int der_len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(leaf), &der);

	if (der_len > 0 &&
		EVP_Digest(der, (size_t)der_len, digest, &len, EVP_sha256(), NULL) == 1) {
		for (size_t i = 0; i < len && 2 * i + 2 < sizeof(out->spki_sha256); i++) {
			out->spki_sha256[2 * i] = hex[digest[i] >> 4];
			out->spki_sha256[2 * i + 1] = hex[digest[i] & 15];
		}
	}
	OPENSSL_free(der);
}

static enum verdict facts_judge(SSL *ssl, X509 *leaf, const char *name)
{
	enum verdict verdict = verdict_of_error(SSL_get_verify_result(ssl));
	const unsigned flags =
		X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS;

	if (verdict == VERDICT_VALID && SSL_session_reused(ssl))
		verdict = verdict_of_dates(leaf);
	if (verdict == VERDICT_VALID && name != NULL &&
		X509_check_host(leaf, name, strlen(name), flags, NULL) != 1)
		verdict = VERDICT_SUBJECT_MISMATCH;
	return verdict;
}

void tls_facts_read(SSL *ssl, bool is_asked, const char *name, struct tls_facts *out)
{
	const SSL_CIPHER *cipher = SSL_get_current_cipher(ssl);
	X509 *leaf = SSL_get0_peer_certificate(ssl);

	*out = (struct tls_facts){
		.version = SSL_get_version(ssl),
		.cipher = SSL_CIPHER_standard_name(cipher),
		.cipher_bits = (unsigned)SSL_CIPHER_get_bits(cipher, NULL),
		.is_resumed = SSL_session_reused(ssl) == 1,
		.verdict = is_asked ? VERDICT_EMPTY : VERDICT_NOT_ASKED,
	};
	if (leaf == NULL)
		return;
	out->verdict = facts_judge(ssl, leaf, name);
	facts_read_subject(leaf, out);
	facts_read_spki(leaf, out);
}
