/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/pki/chain.h"

#include "relay/base/stats.h"
#include "relay/pki/crl.h"
#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

/* 112 bits: RSA 2048, P-224, SHA-224; what Debian's OpenSSL asks of a handshake, too. */
#define AUTH_LEVEL 2

/* A list that could not be had is asked for again after so long, even if nothing has changed. */
#define UNKNOWN_LIFE_S 5

/* And lists in use are asked for again so often, since those nobody asks for are not refreshed. */
#define KNOWN_LIFE_S 3600

/* Longest chain that is valid, anchor and all; OpenSSL's own limit of depth is 100. */
#define CHAIN_DEPTH_MAX 32

/* Of several faults the one that tells most is the verdict: the highest here. */
static const uint8_t chain_rank[VERDICT_COUNT] = {
	[VERDICT_VALID] = 0,
	[VERDICT_INVALID] = 1,
	[VERDICT_REVOCATION_UNKNOWN] = 2,
	[VERDICT_WEAK_KEY] = 3,
	[VERDICT_BAD_USAGE] = 4,
	[VERDICT_NOT_YET_VALID] = 5,
	[VERDICT_EXPIRED] = 5,
	[VERDICT_REVOKED] = 6,
	[VERDICT_UNTRUSTED_ROOT] = 7,
	[VERDICT_SIGNATURE_FAILURE] = 8,
};

/* What is known of the lists for one certificate of the chain. */
struct chain_need {
	bool is_published; /* there is one, or should be */
	bool is_pending;   /* it is being fetched */
};

struct chain_run {
	const struct trust *trust;
	X509 *leaf;
	STACK_OF(X509) * sent;
	enum peer_purpose purpose;
	time_t now;
	STACK_OF(X509) * chain;     /* as verified, anchor last; NULL: none was built */
	STACK_OF(X509_CRL) * lists; /* NULL: revocation is not looked at */
	struct chain_need needs[CHAIN_DEPTH_MAX];
	enum verdict verdict;
	bool is_pending;
	bool is_unknown; /* a list was lacking, forgiven or not */
	unsigned forgiven;
};

static enum verdict verdict_of_error(int error)
{
	switch (error) {
	case X509_V_ERR_CERT_HAS_EXPIRED:
		return VERDICT_EXPIRED;
	case X509_V_ERR_CERT_NOT_YET_VALID:
		return VERDICT_NOT_YET_VALID;
	case X509_V_ERR_CERT_REVOKED:
		return VERDICT_REVOKED;
	case X509_V_ERR_UNABLE_TO_GET_CRL:
	case X509_V_ERR_UNABLE_TO_GET_CRL_ISSUER:
	case X509_V_ERR_UNABLE_TO_DECRYPT_CRL_SIGNATURE:
	case X509_V_ERR_CRL_SIGNATURE_FAILURE:
	case X509_V_ERR_CRL_HAS_EXPIRED:
	case X509_V_ERR_CRL_NOT_YET_VALID:
	case X509_V_ERR_ERROR_IN_CRL_LAST_UPDATE_FIELD:
	case X509_V_ERR_ERROR_IN_CRL_NEXT_UPDATE_FIELD:
	case X509_V_ERR_KEYUSAGE_NO_CRL_SIGN:
	case X509_V_ERR_UNHANDLED_CRITICAL_CRL_EXTENSION:
	case X509_V_ERR_DIFFERENT_CRL_SCOPE:
	case X509_V_ERR_CRL_PATH_VALIDATION_ERROR:
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

static void chain_blame(struct chain_run *run, enum verdict verdict)
{
	if (chain_rank[verdict] > chain_rank[run->verdict])
		run->verdict = verdict;
}

/* May what is wrong with the list of the certificate at depth be passed over? */
static bool chain_forgives(struct chain_run *run, X509 *certificate, int depth, int error)
{
	bool is_missing = error == X509_V_ERR_UNABLE_TO_GET_CRL;
	bool is_stale =
		error == X509_V_ERR_CRL_HAS_EXPIRED || error == X509_V_ERR_CRL_NOT_YET_VALID;
	const struct chain_need *need;

	if (run->lists == NULL || depth < 0 || depth >= sk_X509_num(run->chain) ||
		depth >= CHAIN_DEPTH_MAX || certificate == NULL ||
		X509_cmp(certificate, sk_X509_value(run->chain, depth)) != 0)
		return false;
	/* Nobody vouches for an anchor but the administrator. */
	if (depth == sk_X509_num(run->chain) - 1)
		return true;
	need = &run->needs[depth];
	run->is_unknown = run->is_unknown || need->is_published;
	if (need->is_pending) {
		run->is_pending = true;
		return false;
	}
	if (run->trust->revocation == REVOCATION_STRICT)
		return false;
	if (is_missing && !need->is_published)
		return true;
	if (run->trust->revocation != REVOCATION_SOFT || (!is_missing && !is_stale))
		return false;
	run->forgiven++;
	return true;
}

/*
 * Each fault is noted, and verification goes on to find the others; but not for a stranger, since
 * every signature of his chain costs us more than him. The fault that ends it is the verdict.
 */
static int chain_on_verify(int ok, X509_STORE_CTX *ctx)
{
	struct chain_run *run = X509_STORE_CTX_get_app_data(ctx);
	int error = X509_STORE_CTX_get_error(ctx);
	enum verdict verdict;

	if (ok == 1)
		return 1;
	verdict = verdict_of_error(error);
	if (verdict == VERDICT_REVOCATION_UNKNOWN &&
		chain_forgives(run, X509_STORE_CTX_get_current_cert(ctx),
			X509_STORE_CTX_get_error_depth(ctx), error)) {
		X509_STORE_CTX_set_error(ctx, X509_V_OK);
		return 1;
	}
	chain_blame(run, verdict);
	return chain_rank[verdict] < chain_rank[VERDICT_UNTRUSTED_ROOT] ? 1 : 0;
}

/* The purpose of the peer's role; set after the store's parameters were taken over. */
static bool chain_set_rules(X509_STORE_CTX *ctx, const struct chain_run *run)
{
	X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(ctx);
	unsigned long flags = X509_V_FLAG_TRUSTED_FIRST;
	int purpose =
		run->purpose == PEER_IS_CLIENT ? X509_PURPOSE_SSL_CLIENT : X509_PURPOSE_SSL_SERVER;

	if (run->lists != NULL) {
		flags |= X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL;
		X509_STORE_CTX_set0_crls(ctx, run->lists);
	}
	if (X509_STORE_CTX_set_purpose(ctx, purpose) != 1 ||
		X509_VERIFY_PARAM_set_flags(param, flags) != 1)
		return false;
	X509_VERIFY_PARAM_set_auth_level(param, AUTH_LEVEL);
	X509_VERIFY_PARAM_set_time(param, run->now);
	if (run->trust->depth >= 0)
		X509_VERIFY_PARAM_set_depth(param, run->trust->depth);
	return true;
}

/* Valid only if nothing was noted, the library says so, and no error is left. */
static void chain_verify(struct chain_run *run, STACK_OF(X509) * *out_chain)
{
	X509_STORE_CTX *ctx = X509_STORE_CTX_new();
	bool is_good = false;

	if (ctx != NULL &&
		X509_STORE_CTX_init(ctx, run->trust->anchors, run->leaf, run->sent) == 1 &&
		X509_STORE_CTX_set_app_data(ctx, run) == 1 && chain_set_rules(ctx, run)) {
		X509_STORE_CTX_set_verify_cb(ctx, chain_on_verify);
		is_good = X509_verify_cert(ctx) == 1 && X509_STORE_CTX_get_error(ctx) == X509_V_OK;
		if (out_chain != NULL)
			*out_chain = X509_STORE_CTX_get1_chain(ctx);
	}
	if (!is_good)
		chain_blame(run, VERDICT_INVALID);
	X509_STORE_CTX_free(ctx);
}

/* Lists. */

static void lists_free(STACK_OF(X509_CRL) * lists)
{
	sk_X509_CRL_pop_free(lists, X509_CRL_free);
}

/* OpenSSL takes one that only tells what has changed for a whole list, unless it is told not to. */
static bool list_is_delta(const X509_CRL *list)
{
	return X509_CRL_get_ext_by_NID(list, NID_delta_crl, -1) != -1;
}

/* Is it a list that the issuer of one of the certificates has signed? */
static bool list_is_of_chain(X509_CRL *list, STACK_OF(X509) * chain)
{
	for (int i = 1; i < sk_X509_num(chain); i++) {
		X509 *issuer = sk_X509_value(chain, i);
		EVP_PKEY *key = X509_get0_pubkey(issuer);

		if (X509_NAME_cmp(X509_CRL_get_issuer(list), X509_get_subject_name(issuer)) == 0 &&
			key != NULL && X509_CRL_verify(list, key) == 1)
			return true;
	}
	return false;
}

/*
 * What was signed by somebody else is no list: one with the right name and a
 * forged signature may not stand in the way of the true one. Nor is a delta one.
 */
static void lists_drop_foreign(STACK_OF(X509_CRL) * lists, STACK_OF(X509) * chain)
{
	for (int i = sk_X509_CRL_num(lists) - 1; i >= 0; i--) {
		X509_CRL *list = sk_X509_CRL_value(lists, i);

		if (list_is_delta(list) || !list_is_of_chain(list, chain))
			X509_CRL_free(sk_X509_CRL_delete(lists, i));
	}
}

/* Is there a list in the files of the configuration that names the issuer? */
static bool lists_name(STACK_OF(X509_CRL) * lists, const X509_NAME *issuer)
{
	for (int i = 0; i < sk_X509_CRL_num(lists); i++) {
		const X509_CRL *list = sk_X509_CRL_value(lists, i);

		if (X509_NAME_cmp(X509_CRL_get_issuer(list), issuer) == 0)
			return true;
	}
	return false;
}

/* All lists that may matter, and which certificates should have one. False: none should. */
static bool chain_gather_lists(struct chain_run *run)
{
	int last = sk_X509_num(run->chain) - 1;
	bool is_needed = run->trust->revocation == REVOCATION_STRICT;

	for (unsigned i = 0; i < run->trust->crl_file_count; i++)
		(void)crl_for_file(run->trust->crl_files[i], run->lists);
	for (int i = 0; i < last && i < CHAIN_DEPTH_MAX; i++)
		run->needs[i].is_published =
			lists_name(run->lists, X509_get_issuer_name(sk_X509_value(run->chain, i)));
	for (int i = 0; i < last && i < CHAIN_DEPTH_MAX; i++) {
		enum crl_state state =
			crl_for_certificate(sk_X509_value(run->chain, i), run->lists);

		run->needs[i].is_pending = state == CRL_PENDING;
		run->needs[i].is_published = run->needs[i].is_published || state != CRL_NONE;
		is_needed = is_needed || run->needs[i].is_published;
	}
	return is_needed;
}

/* Dates. */

int64_t chain_date(const struct asn1_string_st *date)
{
	struct tm parts;

	if (date == NULL || ASN1_TIME_to_tm(date, &parts) != 1)
		return INT64_MIN;
	return timegm(&parts);
}

static void chain_limit(struct chain_answer *out, int64_t date, time_t now)
{
	if (date > now && date < out->until)
		out->until = date;
}

static void chain_limit_certificate(struct chain_answer *out, const X509 *certificate, time_t now)
{
	chain_limit(out, chain_date(X509_get0_notBefore(certificate)), now);
	chain_limit(out, chain_date(X509_get0_notAfter(certificate)), now);
}

/* The answer holds until the first date at which anything begins or ends. */
static void chain_find_limit(struct chain_answer *out, const struct chain_run *run)
{
	out->until = INT64_MAX;
	chain_limit_certificate(out, run->leaf, run->now);
	for (int i = 0; i < sk_X509_num(run->sent); i++)
		chain_limit_certificate(out, sk_X509_value(run->sent, i), run->now);
	for (unsigned i = 0; i < run->trust->date_count; i++)
		chain_limit(out, run->trust->dates[i], run->now);
	for (int i = 0; i < sk_X509_CRL_num(run->lists); i++) {
		const X509_CRL *list = sk_X509_CRL_value(run->lists, i);

		chain_limit(out, chain_date(X509_CRL_get0_lastUpdate(list)), run->now);
		chain_limit(out, chain_date(X509_CRL_get0_nextUpdate(list)), run->now);
	}
	if (run->lists != NULL)
		chain_limit(out, run->now + (run->is_unknown ? UNKNOWN_LIFE_S : KNOWN_LIFE_S),
			run->now);
}

/* Is it worth asking for lists? Not for a stranger, nor for one who is nobody at all. */
static bool chain_wants_lists(const struct chain_run *run)
{
	return run->trust->revocation != REVOCATION_OFF && run->chain != NULL &&
	       sk_X509_num(run->chain) > 1 && run->verdict != VERDICT_INVALID &&
	       chain_rank[run->verdict] < chain_rank[VERDICT_REVOKED];
}

void chain_judge(const struct trust *trust, X509 *leaf, STACK_OF(X509) * sent,
	enum peer_purpose purpose, time_t now, struct chain_answer *out)
{
	struct chain_run run = {.trust = trust,
		.leaf = leaf,
		.sent = sent,
		.purpose = purpose,
		.now = now,
		.verdict = VERDICT_VALID};

	chain_verify(&run, &run.chain);
	if (sk_X509_num(run.chain) > CHAIN_DEPTH_MAX)
		chain_blame(&run, VERDICT_INVALID);
	if (chain_wants_lists(&run)) {
		run.lists = sk_X509_CRL_new_null();
		if (run.lists == NULL) {
			chain_blame(&run, VERDICT_REVOCATION_UNKNOWN);
		} else if (chain_gather_lists(&run)) {
			lists_drop_foreign(run.lists, run.chain);
			chain_verify(&run, NULL);
		}
	}
	chain_find_limit(out, &run);
	out->verdict = run.verdict;
	out->is_pending = run.is_pending && run.verdict == VERDICT_REVOCATION_UNKNOWN;
	if (run.forgiven > 0)
		STAT_ADD(revocation_forgiven, run.forgiven);
	lists_free(run.lists);
	sk_X509_pop_free(run.chain, X509_free);
	ERR_clear_error();
}
