/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/ask.h"

#include "relay/net/tls.h"
#include "relay/pki/crl.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CACHED_PEERS 64

/* How often a list that is being fetched is asked for. */
#define POLL_MS 20

int judge_create(const struct policy *policy, time_t now, FILE *errors, struct judge *out)
{
	const struct crl_options crl = {
		.cache_folder = policy->crl_cache,
		.fetch_timeout_ms = policy->crl_fetch_timeout_ms,
		.refresh_interval_ms = policy->crl_refresh_interval_ms,
	};
	char error[512];
	int rc = tls_init();

	*out = (struct judge){.policy = policy, .now = now};
	if (rc == 0)
		rc = peer_cache_create(CACHED_PEERS);
	if (rc == 0)
		rc = crl_start(&crl);
	if (rc == 0)
		out->own = calloc(policy->certificate_count + 1, sizeof(*out->own));
	if (rc < 0 || out->own == NULL) {
		rc = rc < 0 ? rc : -ENOMEM;
		ctl_error("%s", strerror(-rc));
		return rc;
	}
	if (trust_set_create(policy, errors, &out->trusts) < 0)
		out->trusts = NULL;
	for (unsigned i = 0; i < policy->certificate_count; i++)
		if (own_certificate_load(&policy->certificates[i], &out->own[out->own_count], error,
			    sizeof(error)) == 0)
			out->own_count++;
	return 0;
}

void judge_destroy(struct judge *judge)
{
	for (unsigned i = 0; i < judge->own_count; i++)
		own_certificate_drop(&judge->own[i]);
	free(judge->own);
	judge->own = NULL;
	if (judge->trusts != NULL)
		trust_set_destroy(&judge->trusts);
	crl_stop();
	peer_cache_destroy();
}

const struct own_certificate *judge_own(
	const struct judge *judge, const struct tls_settings *settings, const char *fqdn)
{
	if (settings->certificate == NULL)
		return own_certificate_select(judge->own, judge->own_count, fqdn, judge->now);
	for (unsigned i = 0; i < judge->own_count; i++)
		if (judge->own[i].certificate == settings->certificate)
			return &judge->own[i];
	return NULL;
}

enum verdict judge_chain(const struct judge *judge, const struct trust *trust, struct peer *peer,
	enum peer_purpose purpose)
{
	uint64_t rounds = (judge->policy->crl_fetch_timeout_ms + 1000) / POLL_MS;
	enum verdict verdict;
	bool is_pending = false;

	if (peer == NULL)
		return VERDICT_EMPTY;
	if (trust == NULL)
		return VERDICT_UNTRUSTED_ROOT;
	verdict = trust_judge(trust, peer, purpose, judge->now, &is_pending);
	while (is_pending && rounds-- > 0) {
		(void)usleep(POLL_MS * 1000);
		verdict = trust_judge(trust, peer, purpose, judge->now, &is_pending);
	}
	return verdict;
}
