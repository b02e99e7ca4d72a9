/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * chain.h: one judgement of one chain for one trust; for peer.c and trust.c only, which
 * remember what came out.
 *
 * The chain is verified first, with X509_verify_cert() and nothing about revocation. Only one
 * that ends in an anchor is asked for lists, so a stranger cannot have us fetch a URL of
 * his. Then it is verified again with the lists that its own issuers have signed.
 */

#include "policy/policy.h"
#include "relay/pki/peer.h"

struct x509_store_st;
struct asn1_string_st;

/* What a trust is made of; read-only once it is made. */
struct trust {
	uint64_t id; /* never used again, unlike an address: the key of remembered verdicts */
	struct x509_store_st *anchors;
	unsigned anchor_count;
	int64_t *dates; /* at which an anchor begins or ends */
	unsigned date_count;
	char **crl_files;
	unsigned crl_file_count;
	enum revocation revocation;
	struct pin *pins;
	unsigned pin_count;
	int depth; /* -1: OpenSSL's */
};

struct chain_answer {
	enum verdict verdict;
	bool is_pending; /* a list that is needed is being fetched */
	int64_t until;   /* the first moment at which the answer may be another */
};

/* sent may be NULL. Counts forgiven lists. */
void chain_judge(const struct trust *trust, struct x509_st *leaf, struct stack_st_X509 *sent,
	enum peer_purpose purpose, time_t now, struct chain_answer *out);

/* Seconds since 1970, or INT64_MIN if it is no date. */
int64_t chain_date(const struct asn1_string_st *date);
