/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * pki_fixture.h: certificate authorities, leaves and revocation lists made for one test, in
 * memory or as files of a folder that goes with the test. tests/pki.sh has the fixed set.
 */

#include "relay/base/assert.h"
#include "relay/pki/peer.h"
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
/* cmocka needs those above it. */
#include <cmocka.h>

#define PKI_DAY INT64_C(86400)

struct pki {
	X509 *certificate;
	EVP_PKEY *key;
};

/* Extensions are values as openssl.cnf has them; NULL: none. */
struct pki_options {
	const struct pki *issuer; /* NULL: signed by itself */
	const char *cn;           /* NULL: "unit" */
	const char *san;          /* "DNS:a.test,DNS:b.test" */
	const char *eku;          /* "serverAuth,clientAuth" */
	const char *key_usage;    /* CAs: "critical,keyCertSign,cRLSign" */
	const char *cdp;          /* "URI:http://..." */
	const char *constraints;  /* nameConstraints */
	bool is_ca;
	int path_length;               /* of a CA: so many and one; 0: no limit */
	int rsa_bits;                  /* 0: ECDSA P-256 */
	const char *digest;            /* NULL: "SHA256" */
	int64_t not_before, not_after; /* seconds from now; both 0: yesterday, in ten years */
	long serial;                   /* 0: the next one */
	bool spoiled;                  /* the signature is wrong */
};

static char pki_temp[] = "/tmp/postern-test-pki-XXXXXX";
static long pki_serial = 1000;

/* Once for each program; and removed by pki_end(). */
static inline void pki_begin(void)
{
	assert_non_null(mkdtemp(pki_temp));
}

static inline void pki_end(void)
{
	char command[128];

	(void)snprintf(command, sizeof(command), "rm -rf '%s'", pki_temp);
	assert_int_equal(system(command), 0);
}

/* The path of a file in the folder, in one of eight buffers used in turn. */
static inline const char *pki_path(const char *name)
{
	static char paths[8][256];
	static unsigned next;
	char *path = paths[next++ % 8];

	(void)snprintf(path, sizeof(paths[0]), "%s/%s", pki_temp, name);
	return path;
}

static inline void pki_extend(X509 *certificate, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *extension;

	if (value == NULL)
		return;
	X509V3_set_ctx(&ctx, issuer, certificate, NULL, NULL, 0);
	extension = X509V3_EXT_nconf_nid(NULL, &ctx, nid, value);
	if (extension == NULL)
		fail_msg("extension %d: %s", nid, value);
	assert_int_equal(X509_add_ext(certificate, extension, -1), 1);
	X509_EXTENSION_free(extension);
}

static inline void pki_set_dates(X509 *certificate, int64_t not_before, int64_t not_after)
{
	time_t now = time(NULL);

	if (not_before == 0 && not_after == 0) {
		not_before = -PKI_DAY;
		not_after = 3650 * PKI_DAY;
	}
	assert_non_null(ASN1_TIME_set(X509_getm_notBefore(certificate), now + not_before));
	assert_non_null(ASN1_TIME_set(X509_getm_notAfter(certificate), now + not_after));
}

static inline void pki_add_extensions(
	X509 *certificate, X509 *issuer, const struct pki_options *options)
{
	char basic[64];

	(void)snprintf(basic, sizeof(basic), "critical,CA:%s", options->is_ca ? "TRUE" : "FALSE");
	if (options->is_ca && options->path_length > 0)
		(void)snprintf(basic, sizeof(basic), "critical,CA:TRUE,pathlen:%d",
			options->path_length - 1);
	pki_extend(certificate, issuer, NID_basic_constraints, basic);
	pki_extend(certificate, issuer, NID_key_usage,
		options->key_usage != NULL ? options->key_usage
		: options->is_ca           ? "critical,keyCertSign,cRLSign"
					   : "critical,digitalSignature");
	pki_extend(certificate, issuer, NID_subject_key_identifier, "hash");
	pki_extend(certificate, issuer, NID_authority_key_identifier, "keyid");
	pki_extend(certificate, issuer, NID_subject_alt_name, options->san);
	pki_extend(certificate, issuer, NID_ext_key_usage, options->eku);
	pki_extend(certificate, issuer, NID_crl_distribution_points, options->cdp);
	pki_extend(certificate, issuer, NID_name_constraints, options->constraints);
}

/* Spoils the signature of what has been signed, its last byte. */
static inline X509 *pki_spoil(X509 *certificate)
{
	unsigned char *der = NULL;
	int len = i2d_X509(certificate, &der);
	const unsigned char *at = der;
	X509 *spoiled;

	assert_true(len > 0);
	der[len - 1] ^= 1;
	spoiled = d2i_X509(NULL, &at, len);
	assert_non_null(spoiled);
	OPENSSL_free(der);
	X509_free(certificate);
	return spoiled;
}

static inline struct pki pki_make(const struct pki_options *options)
{
	struct pki out = {.certificate = X509_new(),
		.key = options->rsa_bits > 0 ? EVP_RSA_gen((unsigned)options->rsa_bits)
					     : EVP_EC_gen("P-256")};
	const struct pki *issuer = options->issuer == NULL ? &out : options->issuer;
	const char *cn = options->cn == NULL ? "unit" : options->cn;
	X509_NAME *name;

	assert_true(out.certificate != NULL && out.key != NULL);
	name = X509_get_subject_name(out.certificate);
	assert_int_equal(X509_set_version(out.certificate, X509_VERSION_3), 1);
	assert_int_equal(ASN1_INTEGER_set(X509_get_serialNumber(out.certificate),
				 options->serial != 0 ? options->serial : pki_serial++),
		1);
	assert_int_equal(X509_NAME_add_entry_by_txt(
				 name, "CN", MBSTRING_UTF8, (const unsigned char *)cn, -1, -1, 0),
		1);
	assert_int_equal(
		X509_set_issuer_name(out.certificate, X509_get_subject_name(issuer->certificate)),
		1);
	pki_set_dates(out.certificate, options->not_before, options->not_after);
	assert_int_equal(X509_set_pubkey(out.certificate, out.key), 1);
	pki_add_extensions(out.certificate, issuer->certificate, options);
	assert_true(X509_sign(out.certificate, issuer->key,
			    EVP_get_digestbyname(
				    options->digest == NULL ? "SHA256" : options->digest)) > 0);
	if (options->spoiled)
		out.certificate = pki_spoil(out.certificate);
	return out;
}

static inline void pki_drop(struct pki *pki)
{
	X509_free(pki->certificate);
	EVP_PKEY_free(pki->key);
	*pki = (struct pki){0};
}

static inline long pki_serial_of(const struct pki *pki)
{
	return ASN1_INTEGER_get(X509_get0_serialNumber(pki->certificate));
}

/* PEM, the certificates one after the other, up to the first NULL; returns the path. */
static inline const char *pki_write_chain(const char *name, const struct pki *const *list)
{
	const char *path = pki_path(name);
	FILE *out = fopen(path, "w");

	assert_non_null(out);
	for (; *list != NULL; list++)
		assert_int_equal(PEM_write_X509(out, (*list)->certificate), 1);
	assert_int_equal(fclose(out), 0);
	return path;
}

static inline const char *pki_write_one(const char *name, const struct pki *pki)
{
	const struct pki *const list[] = {pki, NULL};

	return pki_write_chain(name, list);
}

static inline const char *pki_write_key(const char *name, const struct pki *pki)
{
	const char *path = pki_path(name);
	FILE *out = fopen(path, "w");

	assert_non_null(out);
	assert_int_equal(PEM_write_PrivateKey(out, pki->key, NULL, NULL, 0, NULL, NULL), 1);
	assert_int_equal(fclose(out), 0);
	return path;
}

struct pki_list_options {
	const struct pki *issuer;
	const struct pki *signer;         /* NULL: the issuer */
	const struct pki *revoked;        /* NULL: none */
	int64_t this_update, next_update; /* seconds from now; both 0: an hour ago, in a day */
	long number;                      /* CRL number; 0: none */
	bool is_delta;                    /* with a delta CRL indicator, critical */
	bool is_indirect;                 /* with a critical IDP that says so */
};

static inline void pki_list_extend(X509_CRL *list, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *extension;

	X509V3_set_ctx_nodb(&ctx);
	X509V3_set_ctx(&ctx, NULL, NULL, NULL, list, 0);
	extension = X509V3_EXT_nconf_nid(NULL, &ctx, nid, value);
	if (extension == NULL)
		fail_msg("extension %d: %s", nid, value);
	assert_int_equal(X509_CRL_add_ext(list, extension, -1), 1);
	X509_EXTENSION_free(extension);
}

static inline void pki_list_revoke(X509_CRL *list, const struct pki *revoked, const ASN1_TIME *when)
{
	X509_REVOKED *entry = X509_REVOKED_new();

	assert_non_null(entry);
	assert_int_equal(
		X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(revoked->certificate)),
		1);
	assert_int_equal(X509_REVOKED_set_revocationDate(entry, (ASN1_TIME *)(uintptr_t)when), 1);
	assert_int_equal(X509_CRL_add0_revoked(list, entry), 1);
}

static inline void pki_list_make_delta(X509_CRL *list)
{
	ASN1_INTEGER *base = ASN1_INTEGER_new();

	assert_int_equal(ASN1_INTEGER_set(base, 1), 1);
	assert_int_equal(X509_CRL_add1_ext_i2d(list, NID_delta_crl, base, 1, 0), 1);
	ASN1_INTEGER_free(base);
}

static inline X509_CRL *pki_list(const struct pki_list_options *options)
{
	const struct pki *signer = options->signer == NULL ? options->issuer : options->signer;
	bool is_default = options->this_update == 0 && options->next_update == 0;
	time_t now = time(NULL);
	ASN1_TIME *this = ASN1_TIME_set(NULL, now + (is_default ? -3600 : options->this_update));
	ASN1_TIME *next = ASN1_TIME_set(NULL, now + (is_default ? PKI_DAY : options->next_update));
	X509_CRL *list = X509_CRL_new();
	char number[32];

	assert_true(list != NULL && this != NULL && next != NULL);
	assert_int_equal(X509_CRL_set_version(list, 1), 1);
	assert_int_equal(
		X509_CRL_set_issuer_name(list, X509_get_subject_name(options->issuer->certificate)),
		1);
	assert_int_equal(X509_CRL_set1_lastUpdate(list, this), 1);
	assert_int_equal(X509_CRL_set1_nextUpdate(list, next), 1);
	(void)snprintf(number, sizeof(number), "%ld", options->number);
	if (options->number != 0)
		pki_list_extend(list, NID_crl_number, number);
	if (options->is_delta)
		pki_list_make_delta(list);
	if (options->is_indirect)
		pki_list_extend(list, NID_issuing_distribution_point, "critical,indirectCRL:TRUE");
	if (options->revoked != NULL)
		pki_list_revoke(list, options->revoked, this);
	assert_int_equal(X509_CRL_sort(list), 1);
	assert_true(X509_CRL_sign(list, signer->key, EVP_sha256()) > 0);
	ASN1_TIME_free(this);
	ASN1_TIME_free(next);
	return list;
}

/* PEM, written beside and renamed; frees the list; returns the path. */
static inline const char *pki_write_list(const char *name, X509_CRL *list)
{
	const char *path = pki_path(name);
	char beside[280];
	FILE *out;

	(void)snprintf(beside, sizeof(beside), "%s.new", path);
	out = fopen(beside, "w");
	assert_non_null(out);
	assert_int_equal(PEM_write_X509_CRL(out, list), 1);
	assert_int_equal(fclose(out), 0);
	assert_int_equal(rename(beside, path), 0);
	X509_CRL_free(list);
	return path;
}

/* The entry of a leaf that came with up to one more certificate. */
static inline struct peer *peer_with(const struct pki *leaf, const struct pki *sent)
{
	STACK_OF(X509) *chain = sk_X509_new_null();
	struct peer *peer;

	assert_non_null(chain);
	if (sent != NULL)
		assert_true(sk_X509_push(chain, sent->certificate) > 0);
	peer = peer_of_chain(leaf->certificate, chain);
	assert_non_null(peer);
	sk_X509_free(chain);
	return peer;
}
