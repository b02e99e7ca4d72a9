/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/ask.h"

#include "policy/admit.h"
#include "policy/names.h"
#include "policy/partner.h"
#include "policy/route.h"
#include "policy/spelling.h"
#include <inttypes.h>
#include <string.h>

/* A domain, and what stands between us and secured mail with it (EXCHANGE 4.1). */
struct partner_check {
	struct ctl *ctl;
	struct check check;
	const char *file; /* the configuration's name, for remedies */
	char domain[DOMAIN_BYTES_MAX];
	struct policy *policy;
	struct judge judge;
	const struct partner *partner;          /* who lists it; NULL: nobody */
	const struct receive_connector *in;     /* where it is proved; NULL: nowhere */
	const struct send_connector *out;       /* where mail to it goes; NULL: nowhere */
	const struct own_certificate *shown[2]; /* by in and by out; checked, NULL: none */
};

/* ---- 1. the configuration and the lists */

/* Each line of text is the remedy of a row of its own. */
static void check_mistakes(struct partner_check *ask, const char *what, const char *text)
{
	while (*text != '\0') {
		size_t len = strcspn(text, "\n");

		check_row(&ask->check, CHECK_FAIL, what, "%.*s", (int)len, text);
		text += len + (text[len] == '\n');
	}
}

/* Loads it, with the mistakes as rows. */
static bool check_configuration(struct partner_check *ask)
{
	char *text = NULL;
	size_t len = 0;
	FILE *errors = open_memstream(&text, &len);
	int rc;

	if (errors == NULL) {
		ctl_error("out of memory");
		return false;
	}
	rc = policy_load(ask->ctl->config, errors, &ask->policy);
	(void)fclose(errors);
	if (rc == 0) {
		check_row(&ask->check, CHECK_PASS, "the configuration loads", NULL);
	} else {
		check_mistakes(ask, "the configuration loads", len > 0 ? text : strerror(-rc));
		check_remedy("mend the line that is named; posternctl config check says no more "
			     "when it is right");
	}
	free(text);
	return rc == 0;
}

/* The partner that has it in its domains, whatever it is listed for. */
static const struct partner *find_partner(const struct partner_check *ask, const char *domain)
{
	for (unsigned i = 0; i < ask->policy->partner_count; i++)
		if (partner_domain(&ask->policy->partners[i], domain) != NULL)
			return &ask->policy->partners[i];
	return NULL;
}

/* A listed domain that may be what was meant; NULL: none. */
static const char *find_alike(const struct partner_check *ask)
{
	for (unsigned i = 0; i < ask->policy->partner_count; i++) {
		const struct partner *partner = &ask->policy->partners[i];

		for (unsigned j = 0; j < partner->domain_count; j++)
			if (spelling_is_near(partner->domains[j], ask->domain))
				return partner->domains[j];
	}
	return NULL;
}

static void check_unlisted(struct partner_check *ask, const char *what)
{
	const char *dot = strchr(ask->domain, '.');
	const struct partner *parent = dot == NULL ? NULL : find_partner(ask, dot + 1);
	const char *alike = find_alike(ask);

	check_row(&ask->check, CHECK_FAIL, what, "%s is in the domains of no partner", ask->domain);
	if (alike != NULL)
		check_remedy("%s is listed; is one of the two a slip of the pen?", alike);
	else if (parent != NULL)
		check_remedy("a subdomain is an entry of its own: add \"%s\" to the domains of "
			     "partner \"%s\"",
			ask->domain, parent->name);
	else
		check_remedy("add \"%s\" to the domains of a partner section of %s", ask->domain,
			ask->file);
}

static void check_listed(struct partner_check *ask, bool for_sending)
{
	const char *what = for_sending ? "the domain is listed for sending"
				       : "the domain is listed for receiving";
	const char *keyword = for_sending ? "send-secure" : "receive-secure";

	if (ask->partner == NULL) {
		check_unlisted(ask, what);
	} else if (for_sending ? ask->partner->send_secure : ask->partner->receive_secure) {
		check_row(&ask->check, CHECK_PASS, what, "partner \"%s\"", ask->partner->name);
	} else {
		check_row(&ask->check, CHECK_FAIL, what, "%s = no in partner \"%s\"", keyword,
			ask->partner->name);
		check_remedy("set %s = yes: both sides must list each other, both ways", keyword);
	}
}

static void check_own_domain(struct partner_check *ask)
{
	const char *what = "the domain is the partner's, not ours";

	if (ask->policy->accepted_domain_count == 0) {
		check_row(&ask->check, CHECK_SKIP, what, "there are no accepted-domains");
	} else if (policy_is_accepted_domain(ask->policy, ask->domain)) {
		check_row(&ask->check, CHECK_FAIL, what, "%s is one of accepted-domains",
			ask->domain);
		check_remedy("list the partner's domain; our own is what the partner lists");
	} else {
		check_row(&ask->check, CHECK_PASS, what, NULL);
	}
}

/* ---- 2. connectors */

static void check_receive(struct partner_check *ask)
{
	const char *what = "a receive connector proves partners";

	for (unsigned i = 0; i < ask->policy->receive_connector_count && ask->in == NULL; i++) {
		const struct receive_connector *connector = &ask->policy->receive_connectors[i];

		if (connector->enabled && connector->domain_secure)
			ask->in = connector;
	}
	if (ask->in == NULL) {
		check_row(&ask->check, CHECK_FAIL, what, "none is enabled and domain-secure");
		check_remedy("set type = partner, or domain-secure = yes with tls = starttls and "
			     "client-certificate = ask, in a receive-connector");
		return;
	}
	if ((ask->in->permission_groups & (PERMISSION_PARTNERS | PERMISSION_ANONYMOUS)) == 0) {
		check_row(&ask->check, CHECK_FAIL, what,
			"\"%s\" is domain-secure, and partners may not submit there",
			ask->in->name);
		check_remedy("add \"partners\" to permission-groups of receive-connector \"%s\"",
			ask->in->name);
		return;
	}
	check_row(&ask->check, CHECK_PASS, what, "\"%s\"", ask->in->name);
}

static void check_receive_tls(struct partner_check *ask)
{
	const char *what = "it offers TLS with a certificate of ours";

	if (ask->in == NULL) {
		check_row(&ask->check, CHECK_SKIP, what, "there is no such connector");
		return;
	}
	ask->shown[0] = judge_own(&ask->judge, &ask->in->tls_settings, ask->in->fqdn);
	if (ask->in->tls != TLS_MODE_NONE && ask->shown[0] != NULL) {
		check_row(
			&ask->check, CHECK_PASS, what, "\"%s\"", ask->shown[0]->certificate->name);
		return;
	}
	if (ask->in->tls == TLS_MODE_NONE) {
		check_row(&ask->check, CHECK_FAIL, what, "tls = none");
		check_remedy("set tls = starttls in receive-connector \"%s\"", ask->in->name);
		return;
	}
	check_row(&ask->check, CHECK_FAIL, what, "there is no usable certificate for \"%s\"",
		ask->in->fqdn);
	check_remedy("import or request one that has this name (posternctl cert), or name one with "
		     "certificate in receive-connector \"%s\"",
		ask->in->name);
}

/* Does all that comes in there go out over a domain-secure connector? */
static bool is_secure_way(const struct receive_connector *connector)
{
	return connector->enabled && connector->send_connector != NULL &&
	       connector->send_connector->domain_secure;
}

/* Who carries mail there: by address space, or because a receive connector names it. */
static void find_send(struct partner_check *ask)
{
	struct route route;

	route_send(ask->policy, ask->domain, 0, &route);
	if (route.status == ROUTE_OK)
		ask->out = route.connector;
	for (unsigned i = 0; i < ask->policy->receive_connector_count && ask->out == NULL; i++)
		if (is_secure_way(&ask->policy->receive_connectors[i]))
			ask->out = ask->policy->receive_connectors[i].send_connector;
}

static void check_send(struct partner_check *ask)
{
	const char *what = "a send connector covers the domain";

	find_send(ask);
	if (ask->out == NULL) {
		check_row(&ask->check, CHECK_FAIL, what, "no address space has %s", ask->domain);
		check_remedy(
			"add \"%s\" to address-spaces of the send-connector for partners, with "
			"domain-secure = yes",
			ask->domain);
	} else {
		check_row(&ask->check, CHECK_PASS, what, "\"%s\", %s", ask->out->name,
			ask->out->smart_host_count > 0 ? "by smart hosts" : "by DNS");
	}
	what = "it is domain-secure";
	if (ask->out == NULL) {
		check_row(&ask->check, CHECK_SKIP, what, "there is no such connector");
	} else if (!ask->out->domain_secure) {
		check_row(&ask->check, CHECK_FAIL, what,
			"domain-secure = no in send-connector \"%s\"", ask->out->name);
		check_remedy("set domain-secure = yes there, or give the domain a connector of its "
			     "own");
	} else if (ask->out->frontend_proxy || ask->out->ignore_starttls || ask->out->force_helo) {
		check_row(&ask->check, CHECK_FAIL, what,
			"frontend-proxy, ignore-starttls or force-helo keeps TLS from the partner");
		check_remedy("take the keyword out of send-connector \"%s\"", ask->out->name);
	} else {
		check_row(&ask->check, CHECK_PASS, what, NULL);
	}
}

/* ---- 3. what we believe of the partner */

struct anchor_sum {
	int64_t now;
	int64_t first_end; /* of those that are not over */
	unsigned count, over;
	char over_subject[PEER_SUBJECT_BYTES];
};

static void anchor_seen(void *arg, const struct chain_facts *facts)
{
	struct anchor_sum *sum = arg;

	sum->count++;
	if (facts->not_after <= sum->now) {
		sum->over++;
		(void)snprintf(sum->over_subject, sizeof(sum->over_subject), "%s", facts->subject);
	} else if (sum->first_end == 0 || facts->not_after < sum->first_end) {
		sum->first_end = facts->not_after;
	}
}

static void check_anchors(struct partner_check *ask)
{
	const char *what = "the partner's anchors are readable and not expired";
	const struct partner *partner = ask->partner;
	struct anchor_sum sum = {.now = ask->judge.now};
	char days[24];

	if (partner == NULL || partner->trust_anchors == NULL) {
		check_row(&ask->check, CHECK_SKIP, what, "%s",
			partner == NULL ? "there is no partner" : "direct trust: only spki-pins");
		return;
	}
	if (chain_walk(partner->trust_anchors, anchor_seen, &sum) < 0) {
		check_row(&ask->check, CHECK_FAIL, what, "%s has no certificate in PEM form",
			partner->trust_anchors);
		check_remedy("put the certificate of the partner's root CA into that file");
	} else if (sum.over > 0) {
		check_row(&ask->check, CHECK_FAIL, what, "%u of %u expired: %s", sum.over,
			sum.count, sum.over_subject);
		check_remedy("ask the partner for the CA certificate that is in use now");
	} else {
		check_row(&ask->check, CHECK_PASS, what, "%u, the first ends in %s", sum.count,
			check_days(sum.first_end - sum.now, days, sizeof(days)));
	}
}

static void check_revocation(struct partner_check *ask)
{
	const char *what = "revocation lists can be had";
	const struct partner *partner = ask->partner;

	if (partner == NULL || partner->revocation == REVOCATION_OFF) {
		check_row(&ask->check, CHECK_SKIP, what, "%s",
			partner == NULL ? "there is no partner" : "revocation = off");
		return;
	}
	for (unsigned i = 0; i < partner->crl_file_count; i++) {
		int64_t next_update = 0;
		bool is_list = chain_read_crl(partner->crl_files[i], &next_update);

		if (is_list && (next_update == 0 || next_update > ask->judge.now))
			continue;
		check_row(&ask->check, CHECK_FAIL, what, "%s %s", partner->crl_files[i],
			is_list ? "is over: its nextUpdate has passed" : "holds no list");
		check_remedy("fetch the list of the partner's CA into that file");
		return;
	}
	if (partner->crl_file_count > 0)
		check_row(&ask->check, CHECK_PASS, what, "%u file%s", partner->crl_file_count,
			partner->crl_file_count == 1 ? "" : "s");
	else
		check_row(&ask->check, CHECK_SKIP, what,
			"no crl-files: fetched from where a certificate says, when one is shown");
}

/* ---- 4. what we show */

struct own_sum {
	bool is_first_seen;
	struct chain_facts leaf;
};

static void own_seen(void *arg, const struct chain_facts *facts)
{
	struct own_sum *sum = arg;

	if (!sum->is_first_seen)
		sum->leaf = *facts;
	sum->is_first_seen = true;
}

static void check_own_dates(struct partner_check *ask, const struct own_certificate *own)
{
	int64_t left = own->facts->not_after - ask->judge.now;
	char days[24];
	char what[NAME_BYTES_MAX + 64];

	(void)snprintf(
		what, sizeof(what), "certificate \"%s\" is in its dates", own->certificate->name);
	if (left <= 0) {
		check_row(&ask->check, CHECK_FAIL, what, "it expired %s ago",
			check_days(-left, days, sizeof(days)));
		check_remedy("renew it: posternctl cert request, then import; the partner refuses "
			     "this one");
	} else if (own->facts->not_before > ask->judge.now) {
		check_row(&ask->check, CHECK_FAIL, what, "it begins in %s",
			check_days(own->facts->not_before - ask->judge.now, days, sizeof(days)));
		check_remedy("use another one until then, or set this machine's clock");
	} else {
		check_row(&ask->check, CHECK_PASS, what, "it expires in %s%s",
			check_days(left, days, sizeof(days)),
			(uint64_t)left < ask->policy->certificate_expiry_warning_s
				? ": renew it soon"
				: "");
	}
}

static void check_own_usage(struct partner_check *ask, const struct own_certificate *own)
{
	struct own_sum sum = {0};
	char what[NAME_BYTES_MAX + 64];

	(void)snprintf(what, sizeof(what), "certificate \"%s\" is for client and server",
		own->certificate->name);
	if (chain_walk(own->certificate->chain, own_seen, &sum) > 0 && sum.leaf.is_client &&
		sum.leaf.is_server) {
		check_row(&ask->check, CHECK_PASS, what, NULL);
		return;
	}
	check_row(&ask->check, CHECK_FAIL, what, "its extended key usage lacks %s",
		sum.leaf.is_server   ? "clientAuth"
		: sum.leaf.is_client ? "serverAuth"
				     : "serverAuth and clientAuth");
	check_remedy("have it issued anew with both: one certificate proves us both ways");
}

/* The partner looks for our mail domains in it (EXCHANGE 4.4). */
static void check_own_names(struct partner_check *ask, const struct own_certificate *own)
{
	const struct name_rules rules = {0};
	char what[NAME_BYTES_MAX + 64];
	unsigned missing = 0;

	(void)snprintf(what, sizeof(what), "certificate \"%s\" has our mail domains",
		own->certificate->name);
	if (ask->policy->accepted_domain_count == 0) {
		check_row(&ask->check, CHECK_SKIP, what, "there are no accepted-domains");
		return;
	}
	for (unsigned i = 0; i < ask->policy->accepted_domain_count; i++) {
		const char *domain = ask->policy->accepted_domains[i];

		domain += strncmp(domain, "*.", 2) == 0 ? 2 : 0;
		if (names_match(&own->facts->names, domain, &rules, NULL) != NAME_MATCH_NONE)
			continue;
		check_row(&ask->check, CHECK_FAIL, what, "%s is none of %s", domain,
			own->facts->names_text);
		missing++;
	}
	if (missing == 0)
		check_row(&ask->check, CHECK_PASS, what, NULL);
	else
		check_remedy(
			"have it issued anew with each mail domain as a dNSName; or the partner "
			"lists one of these names for us (certificate-names)");
}

/* A certificate that a connector names and that could not be loaded: why. */
static void check_own_load(struct partner_check *ask, const struct certificate *certificate)
{
	struct own_certificate own;
	char error[512];
	char what[NAME_BYTES_MAX + 64];

	(void)snprintf(what, sizeof(what), "certificate \"%s\" is there, and its key fits",
		certificate->name);
	if (own_certificate_load(certificate, &own, error, sizeof(error)) == 0) {
		check_row(&ask->check, CHECK_PASS, what, NULL);
		own_certificate_drop(&own);
		return;
	}
	check_row(&ask->check, CHECK_FAIL, what, "%s", error);
	check_remedy("put chain (leaf first) and key, unencrypted, into the files that are named");
}

static void check_own(struct partner_check *ask)
{
	const char *what = "we have a certificate to show to the partner";

	if (ask->out != NULL)
		ask->shown[1] = judge_own(&ask->judge, &ask->out->tls_settings, ask->out->fqdn);
	if (ask->out != NULL && ask->shown[1] == NULL &&
		ask->out->tls_settings.certificate != NULL) {
		check_own_load(ask, ask->out->tls_settings.certificate);
	} else if (ask->out != NULL && ask->shown[1] == NULL) {
		check_row(&ask->check, CHECK_FAIL, what,
			"none has the name \"%s\" of send-connector \"%s\"", ask->out->fqdn,
			ask->out->name);
		check_remedy("name one with certificate there, or import one (posternctl cert)");
	}
	for (unsigned i = 0; i < COUNT_OF(ask->shown); i++) {
		if (ask->shown[i] == NULL || (i == 1 && ask->shown[1] == ask->shown[0]))
			continue;
		check_own_load(ask, ask->shown[i]->certificate);
		check_own_dates(ask, ask->shown[i]);
		check_own_usage(ask, ask->shown[i]);
		check_own_names(ask, ask->shown[i]);
	}
}

/* ---- all of it */

static bool check_judge(struct partner_check *ask)
{
	char *text = NULL;
	size_t len = 0;
	FILE *errors = open_memstream(&text, &len);
	bool is_there;

	if (errors == NULL)
		return false;
	is_there = judge_create(ask->policy, ask->judge.now, errors, &ask->judge) == 0;
	(void)fclose(errors);
	if (is_there && ask->judge.trusts == NULL) {
		check_mistakes(ask, "anchors and revocation lists can be read", text);
		check_remedy("mend or replace the file that is named");
	}
	free(text);
	return is_there;
}

static void partner_check_all(struct partner_check *ask, const char *host, bool is_offline)
{
	struct partner_live live = {.check = &ask->check, .judge = &ask->judge, .host = host};

	if (!check_configuration(ask))
		return;
	ask->partner = find_partner(ask, ask->domain);
	if (!check_judge(ask))
		return;
	check_listed(ask, true);
	check_listed(ask, false);
	check_own_domain(ask);
	check_receive(ask);
	check_receive_tls(ask);
	check_send(ask);
	check_anchors(ask);
	check_revocation(ask);
	check_own(ask);
	live.partner = ask->partner;
	live.connector = ask->out;
	live.domain = ask->domain;
	if (is_offline)
		check_row(
			&ask->check, CHECK_SKIP, "a session with the partner's hosts", "--offline");
	else if (ask->out == NULL || ask->judge.trusts == NULL)
		check_row(&ask->check, CHECK_SKIP, "a session with the partner's hosts",
			"mend what is above first");
	else
		partner_live_run(&live);
	judge_destroy(&ask->judge);
}

int partner_check_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	struct partner_check ask = {.ctl = ctl, .file = ctl->config};
	const unsigned *counts = ask.check.counts;
	const char *host = NULL;
	bool is_offline = false;
	const struct ctl_option options[] = {{"host", CTL_OPTION_TEXT, &host, 0, 0, false},
		{"offline", CTL_OPTION_FLAG, &is_offline, 0, 0, false}, {.name = NULL}};
	struct ctl_list operands;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 1, 1) < 0 ||
		ask_domain_read(operands.texts[0], ask.domain) < 0)
		return CTL_USAGE;
	ask.file = ctl->config;
	ask.judge.now = time(NULL);
	partner_check_all(&ask, host, is_offline);
	(void)printf("%s: %u pass, %u FAIL, %u skip\n", ask.domain, counts[CHECK_PASS],
		counts[CHECK_FAIL], counts[CHECK_SKIP]);
	if (ask.policy != NULL)
		policy_destroy(&ask.policy);
	return counts[CHECK_FAIL] == 0 ? CTL_OK : CTL_FAILED;
}
