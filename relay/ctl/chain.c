/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/ask.h"

#include <errno.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>

/* The certificates of a PEM file in order; NULL: it cannot be read, or has none. */
static STACK_OF(X509) * chain_create(const char *file)
{
	STACK_OF(X509) *chain = sk_X509_new_null();
	BIO *in = BIO_new_file(file, "r");
	X509 *certificate;

	while (chain != NULL && in != NULL &&
		(certificate = PEM_read_bio_X509(in, NULL, NULL, NULL)) != NULL)
		if (sk_X509_push(chain, certificate) <= 0)
			X509_free(certificate);
	BIO_free(in);
	if (chain != NULL && sk_X509_num(chain) == 0) {
		sk_X509_free(chain);
		chain = NULL;
	}
	return chain;
}

struct peer *chain_read_peer(const char *file)
{
	STACK_OF(X509) *chain = chain_create(file);
	struct peer *peer = NULL;

	if (chain != NULL) {
		X509 *leaf = sk_X509_shift(chain);

		peer = peer_of_chain(leaf, chain);
		X509_free(leaf);
		sk_X509_pop_free(chain, X509_free);
	}
	if (peer == NULL)
		ctl_error("%s: no certificate in PEM form can be read from it", file);
	return peer;
}

static int64_t chain_seconds(const ASN1_TIME *time)
{
	struct tm utc;

	return ASN1_TIME_to_tm(time, &utc) == 1 ? (int64_t)timegm(&utc) : 0;
}

static void chain_facts_read(X509 *certificate, struct chain_facts *out)
{
	BIO *bio = BIO_new(BIO_s_mem());
	int len = 0;

	if (bio != NULL && X509_NAME_print_ex(bio, X509_get_subject_name(certificate), 0,
				   XN_FLAG_RFC2253 & ~(unsigned long)ASN1_STRFLGS_ESC_MSB) >= 0)
		len = BIO_read(bio, out->subject, sizeof(out->subject) - 1);
	out->subject[len > 0 ? len : 0] = '\0';
	BIO_free(bio);
	out->not_before = chain_seconds(X509_get0_notBefore(certificate));
	out->not_after = chain_seconds(X509_get0_notAfter(certificate));
	out->is_client = X509_check_purpose(certificate, X509_PURPOSE_SSL_CLIENT, 0) == 1;
	out->is_server = X509_check_purpose(certificate, X509_PURPOSE_SSL_SERVER, 0) == 1;
	out->is_ca = X509_check_ca(certificate) > 0;
}

int chain_walk(
	const char *file, void (*seen)(void *arg, const struct chain_facts *facts), void *arg)
{
	STACK_OF(X509) *chain = chain_create(file);
	int count;

	if (chain == NULL)
		return -EINVAL;
	count = sk_X509_num(chain);
	for (int i = 0; i < count; i++) {
		struct chain_facts facts;

		chain_facts_read(sk_X509_value(chain, i), &facts);
		seen(arg, &facts);
	}
	sk_X509_pop_free(chain, X509_free);
	return count;
}

bool chain_read_crl(const char *file, int64_t *out_next_update)
{
	BIO *in = BIO_new_file(file, "r");
	X509_CRL *list = in == NULL ? NULL : PEM_read_bio_X509_CRL(in, NULL, NULL, NULL);

	if (in != NULL && list == NULL && BIO_seek(in, 0) == 0)
		list = d2i_X509_CRL_bio(in, NULL);
	BIO_free(in);
	if (list == NULL)
		return false;
	*out_next_update = X509_CRL_get0_nextUpdate(list) == NULL
				   ? 0
				   : chain_seconds(X509_CRL_get0_nextUpdate(list));
	X509_CRL_free(list);
	return true;
}
