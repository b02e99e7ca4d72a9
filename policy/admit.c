/* SPDX-License-Identifier: Apache-2.0 */

/*
 * admit.c: who a session is, and what it may send. A function that checks says whether to go
 * on; one that refuses has said why in the admission and in the trace.
 */

#include "policy/admit.h"

#include "policy/partner.h"

#include <stdarg.h>

#define TRACE_BYTES 640

/* Whose certificate it turned out to be. */
struct proof {
	const struct partner *partner; /* NULL: nobody's */
	const char *domain;
	enum name_match match;
	bool is_pending; /* NULL for now: a revocation list is on its way */
	bool is_known;
};

/* One question to answer, with all that it depends on. */
struct inquiry {
	const struct policy *policy;
	const struct receive_connector *connector;
	const struct admit_peer *peer;
	const struct admit_trace *trace;
	struct admission *out;
	struct proof *proof; /* whose certificate it is, once somebody had to know */
};

PRINTF_LIKE(4, 5)
static void trace_rule(
	const struct admit_trace *trace, const char *rule, bool passed, const char *format, ...)
{
	char text[TRACE_BYTES];
	va_list list;

	if (trace == NULL || trace->rule == NULL)
		return;
	va_start(list, format);
	(void)vsnprintf(text, sizeof(text), format, list);
	va_end(list);
	trace->rule(trace->arg, rule, passed, text);
}

static bool admit_tls(const struct inquiry *ask)
{
	const bool passed = ask->peer->is_tls || !ask->connector->require_tls;

	trace_rule(ask->trace, "require-tls", passed, "require-tls is %s, the session is %s",
		ask->connector->require_tls ? "on" : "off",
		ask->peer->is_tls ? "under TLS" : "in clear text");
	if (!passed)
		ask->out->status = ADMIT_TLS_REQUIRED;
	return passed;
}

static const char *client_certificate_word(enum client_certificate mode)
{
	static const char *const words[] = {"none", "ask", "require"};

	ASSERT(mode < COUNT_OF(words));
	return words[mode];
}

static const struct internal_server *internal_find(const struct inquiry *ask)
{
	for (unsigned i = 0; ask->peer->has_certificate && i < ask->policy->internal_server_count;
		i++) {
		const struct internal_server *server = &ask->policy->internal_servers[i];

		if (pins_have(server->spki_pins, server->spki_pin_count, ask->peer->spki))
			return server;
	}
	return NULL;
}

/*
 * client-certificate = require. Our own server's key is enough, and so is the certificate of a
 * partner: on a domain-secure connector it is looked at when the sender has been
 * (admit_required()).
 */
static bool admit_client_certificate(const struct inquiry *ask)
{
	const enum client_certificate mode = ask->connector->client_certificate;
	const enum verdict verdict = ask->out->verdict;
	const bool is_internal = (ask->connector->permission_groups & PERMISSION_INTERNAL) != 0 &&
				 internal_find(ask) != NULL;
	const bool passed =
		mode != CLIENT_CERTIFICATE_REQUIRE || verdict == VERDICT_VALID || is_internal ||
		(ask->connector->domain_secure && !ask->connector->external_authoritative);

	trace_rule(ask->trace, "client-certificate", passed,
		"client-certificate is %s, for the connector the certificate is %s%s",
		client_certificate_word(mode), verdict_word(verdict),
		is_internal ? ", its key is one of our own servers'" : "");
	if (!passed)
		ask->out->status =
			verdict == VERDICT_NOT_ASKED ? ADMIT_WAIT : ADMIT_CLIENT_CERTIFICATE;
	return passed;
}

/*
 * Is it one of our own servers? Direct trust: its key is known, so issuer, dates and names do not
 * matter. Where nobody else may send, a key that is not known is a refusal of its own.
 */
static bool admit_internal(const struct inquiry *ask)
{
	const unsigned groups = ask->connector->permission_groups;
	const struct internal_server *server = NULL;

	if (ask->connector->external_authoritative) {
		ask->out->role = ROLE_INTERNAL;
		trace_rule(ask->trace, "role", true,
			"internal: external-authoritative, every session here is secured "
			"elsewhere");
		return true;
	}
	if ((groups & PERMISSION_INTERNAL) == 0)
		return true;
	server = internal_find(ask);
	if (server != NULL) {
		ask->out->role = ROLE_INTERNAL;
		trace_rule(ask->trace, "role", true,
			"internal: the key is a pin of internal-server \"%s\"", server->name);
		return true;
	}
	if (groups != PERMISSION_INTERNAL || !ask->peer->has_certificate)
		return true;
	ask->out->status = ADMIT_DIRECT_TRUST;
	ask->out->verdict = VERDICT_PIN_MISMATCH;
	trace_rule(ask->trace, "role", false,
		"only internal servers may send here, and the key is no pin of any of them");
	return false;
}

/* r4, without names: is the certificate good by what the partner's section trusts? */
static enum verdict partner_judge(const struct inquiry *ask, const struct partner *partner)
{
	const struct admit_peer *peer = ask->peer;

	if (partner->spki_pin_count > 0 &&
		!pins_have(partner->spki_pins, partner->spki_pin_count, peer->spki))
		return VERDICT_PIN_MISMATCH;
	if (partner_is_direct(partner))
		return VERDICT_VALID;
	if (partner->trust_anchors == NULL)
		return VERDICT_UNTRUSTED_ROOT;
	return peer->judge(peer->arg, partner);
}

/*
 * The partner's domain that the certificate speaks for best. With direct trust it speaks for
 * all of them, so if there is none by name, it is the first.
 */
static const char *partner_best_domain(
	const struct inquiry *ask, const struct partner *partner, enum name_match *out_match)
{
	const struct name_rules rules = partner_rules(partner);
	const char *best = NULL;

	*out_match = NAME_MATCH_NONE;
	for (unsigned i = 0; i < partner->domain_count; i++) {
		const enum name_match match =
			names_match(&ask->peer->names, partner->domains[i], &rules, NULL);

		if (match == NAME_MATCH_NONE || (best != NULL && match >= *out_match))
			continue;
		best = partner->domains[i];
		*out_match = match;
	}
	if (best == NULL && partner_is_direct(partner) && partner->domain_count > 0)
		best = partner->domains[0];
	return best;
}

/*
 * A partner with receive-secure, other than except, whose certificate this is. Pins and names come
 * first, for a chain is judged at a cost, and there may be thousands of partners.
 */
static struct proof partner_prove(const struct inquiry *ask, const struct partner *except)
{
	bool is_pending = false;

	for (unsigned i = 0; ask->peer->has_certificate && i < ask->policy->partner_count; i++) {
		const struct partner *partner = &ask->policy->partners[i];
		struct proof proof = {.partner = partner};
		enum verdict verdict = VERDICT_INVALID;

		if (partner == except || !partner->receive_secure)
			continue;
		if (partner->spki_pin_count > 0 &&
			!pins_have(partner->spki_pins, partner->spki_pin_count, ask->peer->spki))
			continue;
		proof.domain = partner_best_domain(ask, partner, &proof.match);
		if (proof.domain == NULL)
			continue;
		verdict = partner_judge(ask, partner);
		if (verdict == VERDICT_VALID)
			return proof;
		is_pending |= verdict == VERDICT_NOT_ASKED;
	}
	return (struct proof){.is_pending = is_pending};
}

/* The same for any partner, found out once. */
static struct proof partner_prove_any(const struct inquiry *ask)
{
	if (!ask->proof->is_known) {
		*ask->proof = partner_prove(ask, NULL);
		ask->proof->is_known = true;
	}
	return *ask->proof;
}

static void admit_as_partner(const struct inquiry *ask, const struct partner *partner,
	const char *domain, enum name_match match)
{
	ask->out->role = ROLE_PARTNER;
	ask->out->partner = partner;
	ask->out->domain = domain;
	ask->out->match = match;
	ask->out->verdict = VERDICT_VALID;
}

static bool refuse_secure(const struct inquiry *ask, enum admit_status status, enum verdict verdict)
{
	ask->out->status = status;
	ask->out->verdict = verdict;
	return false;
}

/* r2 and r3. */
static bool admit_has_certificate(const struct inquiry *ask)
{
	const bool has = ask->peer->has_certificate;

	trace_rule(ask->trace, "r2", ask->peer->is_tls, "the session is %s",
		ask->peer->is_tls ? "under TLS" : "in clear text");
	if (!ask->peer->is_tls)
		return refuse_secure(ask, ADMIT_SECURE_NO_TLS, VERDICT_NOT_ASKED);
	trace_rule(ask->trace, "r3", has, "the client sent %s certificate", has ? "a" : "no");
	return has || refuse_secure(ask, ADMIT_SECURE_NO_CERT, VERDICT_EMPTY);
}

/* r4. If the certificate is good, but another partner's, the name is what is wrong: r5. */
static bool admit_trusted(const struct inquiry *ask, const struct partner *partner)
{
	const enum verdict verdict = partner_judge(ask, partner);
	struct proof proof = {.partner = NULL};

	trace_rule(ask->trace, "r4", verdict == VERDICT_VALID,
		"for partner \"%s\" the certificate is %s%s", partner->name, verdict_word(verdict),
		partner_is_direct(partner) ? " (direct trust: its key alone decides)" : "");
	if (verdict == VERDICT_VALID)
		return true;
	if (verdict == VERDICT_NOT_ASKED) {
		ask->out->status = ADMIT_WAIT;
		return false;
	}
	proof = partner_prove(ask, partner);
	if (proof.partner == NULL)
		return refuse_secure(ask, ADMIT_SECURE_CHAIN, verdict);
	trace_rule(ask->trace, "r5", false, "it is the certificate of partner \"%s\", domain %s",
		proof.partner->name, proof.domain);
	return refuse_secure(ask, ADMIT_SECURE_NAME, VERDICT_SUBJECT_MISMATCH);
}

/* r5. */
static bool admit_named(const struct inquiry *ask, const struct partner *partner,
	const char *domain, enum name_match *out_match)
{
	const struct name_rules rules = partner_rules(partner);
	struct span name = {0};

	*out_match = names_match(&ask->peer->names, domain, &rules, &name);
	if (partner_is_direct(partner)) {
		trace_rule(ask->trace, "r5", true, "direct trust: names are not looked at");
		return true;
	}
	if (*out_match == NAME_MATCH_NONE) {
		trace_rule(ask->trace, "r5", false, "no name of the certificate proves %s", domain);
		return refuse_secure(ask, ADMIT_SECURE_NAME, VERDICT_SUBJECT_MISMATCH);
	}
	trace_rule(ask->trace, "r5", true, "the name %.*s proves %s (%s)", (int)name.len,
		(const char *)name.data, domain, name_match_word(*out_match));
	return true;
}

/* The sender's domain is listed, and this connector is where it is proved: r2 to r6. */
static void admit_listed(
	const struct inquiry *ask, const struct partner *partner, const char *domain)
{
	enum name_match match = NAME_MATCH_NONE;

	ask->out->partner = partner;
	ask->out->domain = domain;
	if (!admit_has_certificate(ask) || !admit_trusted(ask, partner) ||
		!admit_named(ask, partner, domain, &match))
		return;
	admit_as_partner(ask, partner, domain, match);
	trace_rule(
		ask->trace, "r6", true, "proved: partner \"%s\", domain %s", partner->name, domain);
}

/* A partner may not claim one of our domains (EXCHANGE 2.4). */
static void admit_unlisted(const struct inquiry *ask, const char *domain)
{
	struct proof proof = {.partner = NULL};
	const bool is_ours = policy_is_accepted_domain(ask->policy, domain);

	if (!is_ours || !ask->connector->domain_secure || !ask->peer->has_certificate)
		return;
	proof = partner_prove_any(ask);
	if (proof.is_pending) {
		trace_rule(ask->trace, "own-domain", false,
			"%s is one of accepted-domains; whose certificate it is is not known yet",
			domain);
		ask->out->status = ADMIT_WAIT;
		return;
	}
	trace_rule(ask->trace, "own-domain", proof.partner == NULL,
		"%s is one of accepted-domains, the certificate is %s%s%s", domain,
		proof.partner == NULL ? "no partner's" : "of partner \"",
		proof.partner == NULL ? "" : proof.partner->name,
		proof.partner == NULL ? "" : "\"");
	if (proof.partner != NULL) {
		ask->out->status = ADMIT_OWN_DOMAIN;
		ask->out->partner = proof.partner;
		ask->out->domain = proof.domain;
	}
}

/* There is no domain to compare with, so the certificate alone decides (EXCHANGE 4.3). */
static void admit_null_sender(const struct inquiry *ask)
{
	struct proof proof = {.partner = NULL};

	if (!ask->connector->domain_secure) {
		trace_rule(ask->trace, "null-sender", true,
			"no domain, and nobody is proved on this connector: the rules for anybody");
		return;
	}
	proof = partner_prove_any(ask);
	if (proof.partner != NULL) {
		admit_as_partner(ask, proof.partner, proof.domain, proof.match);
		trace_rule(ask->trace, "null-sender", true,
			"the certificate proves partner \"%s\", domain %s", proof.partner->name,
			proof.domain);
		return;
	}
	if (proof.is_pending)
		ask->out->status = ADMIT_WAIT;
	trace_rule(ask->trace, "null-sender", !proof.is_pending,
		proof.is_pending ? "whose certificate it is is not known yet"
				 : "no certificate of a partner: the rules for anybody");
}

static void admit_domain(const struct inquiry *ask, struct span text)
{
	const struct receive_connector *connector = ask->connector;
	const struct partner *partner = NULL;
	char domain[DOMAIN_BYTES_MAX];

	/* An address literal is in no list, and is none of our domains. */
	if (text.len > 0 && text.data[0] == '[') {
		trace_rule(ask->trace, "r1", false, "an address literal is listed by nobody");
		return;
	}
	if (domain_normalize(text, domain) < 0) {
		trace_rule(ask->trace, "sender-domain", false, "it is no domain name");
		ask->out->status = ADMIT_BAD_DOMAIN;
		return;
	}
	partner = partner_find(ask->policy, domain, false);
	if (partner == NULL) {
		trace_rule(ask->trace, "r1", false,
			"%s is listed by no partner with receive-secure", domain);
		admit_unlisted(ask, domain);
		return;
	}
	trace_rule(ask->trace, "r1", connector->domain_secure,
		"%s is listed by partner \"%s\", domain-secure is %s", domain, partner->name,
		connector->domain_secure ? "on" : "off");
	if (connector->domain_secure) {
		admit_listed(ask, partner, partner_domain(partner, domain));
		return;
	}
	trace_rule(ask->trace, "allow-unsecured-partners", connector->allow_unsecured_partners,
		"mail of listed domains is %s here",
		connector->allow_unsecured_partners ? "taken unproved" : "not taken");
	if (connector->allow_unsecured_partners) {
		admit_unlisted(ask, domain);
		return;
	}
	ask->out->partner = partner;
	ask->out->domain = partner_domain(partner, domain);
	ask->out->status = ADMIT_SECURE_CONNECTOR;
}

/* Who is nobody's partner for this sender still has to have a good certificate, if one is required.
 */
static void admit_required(const struct inquiry *ask)
{
	const enum verdict verdict = ask->out->verdict;
	struct proof proof = {.partner = NULL};
	bool passed = verdict == VERDICT_VALID;

	if (!ask->connector->domain_secure || ask->out->role != ROLE_ANONYMOUS ||
		ask->connector->client_certificate != CLIENT_CERTIFICATE_REQUIRE)
		return;
	if (!passed)
		proof = partner_prove_any(ask);
	passed |= proof.partner != NULL;
	trace_rule(ask->trace, "client-certificate", passed,
		"for the connector it is %s, and it is %s%s", verdict_word(verdict),
		proof.partner == NULL ? "no partner's" : "that of partner ",
		proof.partner == NULL ? "" : proof.partner->name);
	if (!passed)
		ask->out->status = proof.is_pending || verdict == VERDICT_NOT_ASKED
					   ? ADMIT_WAIT
					   : ADMIT_CLIENT_CERTIFICATE;
}

/* r5b: has the role a right to submit here? Internal has, or would not be internal. */
static void admit_permission(const struct inquiry *ask)
{
	const unsigned groups = ask->connector->permission_groups;
	const unsigned enough = ask->out->role == ROLE_PARTNER
					? PERMISSION_PARTNERS | PERMISSION_ANONYMOUS
					: PERMISSION_ANONYMOUS;
	const bool passed = ask->out->role == ROLE_INTERNAL || (groups & enough) != 0;

	trace_rule(ask->trace, "r5b", passed, "%s may%s submit on this connector",
		role_word(ask->out->role), passed ? "" : " not");
	if (!passed)
		ask->out->status = ADMIT_NOT_AUTHENTICATED;
}

static bool path_is_null(struct span path)
{
	return path.len == 0 || span_equal(path, span_of("<>"));
}

/* Of a peer that has not been compared with any partner. */
static enum verdict peer_verdict(
	const struct receive_connector *connector, const struct admit_peer *peer)
{
	if (peer->has_certificate)
		return peer->connector_verdict;
	if (connector->client_certificate == CLIENT_CERTIFICATE_REQUIRE)
		return VERDICT_EMPTY;
	return peer->is_tls && connector->client_certificate == CLIENT_CERTIFICATE_ASK
		       ? VERDICT_EMPTY
		       : VERDICT_NOT_ASKED;
}

void admit_sender(const struct policy *policy, const struct receive_connector *connector,
	const struct admit_peer *peer, struct span sender, const struct admit_trace *trace,
	struct admission *out)
{
	struct proof proof = {0};
	const struct inquiry ask = {policy, connector, peer, trace, out, &proof};

	ASSERT(peer->is_tls || !peer->has_certificate);
	*out = (struct admission){.verdict = peer_verdict(connector, peer)};
	if (!admit_tls(&ask) || !admit_client_certificate(&ask) || !admit_internal(&ask))
		return;
	/* One of our own servers may send as anybody. */
	if (out->role != ROLE_INTERNAL) {
		if (path_is_null(sender))
			admit_null_sender(&ask);
		else
			admit_domain(&ask, path_domain(sender));
	}
	if (out->status == ADMIT_OK)
		admit_required(&ask);
	if (out->status == ADMIT_OK)
		admit_permission(&ask);
}

static bool domain_is_one_of(const char *domain, const char *const *bases, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (domain_is_within(domain, bases[i]))
			return true;
	}
	return false;
}

/* The three switches against names that cannot be anybody's. */
static enum admit_status recipient_is_real(const struct receive_connector *connector,
	const char *domain, const struct admit_trace *trace)
{
	static const char *const top[] = {"test", "example", "invalid", "localhost"};
	static const char *const second[] = {"example.com", "example.net", "example.org"};
	bool passed = false;

	if (connector->reject_reserved_top_level_recipient_domains) {
		passed = !domain_is_one_of(domain, top, COUNT_OF(top));
		trace_rule(trace, "reserved-top-level", passed, "%s is%s under a reserved name",
			domain, passed ? " not" : "");
		if (!passed)
			return ADMIT_RESERVED_TOP;
	}
	if (connector->reject_reserved_second_level_recipient_domains) {
		passed = !domain_is_one_of(domain, second, COUNT_OF(second));
		trace_rule(trace, "reserved-second-level", passed, "%s is%s under a reserved name",
			domain, passed ? " not" : "");
		if (!passed)
			return ADMIT_RESERVED_SECOND;
	}
	if (connector->reject_single_label_recipient_domains) {
		passed = strchr(domain, '.') != NULL;
		trace_rule(trace, "single-label", passed, "%s has %s", domain,
			passed ? "a dot" : "no dot");
		if (!passed)
			return ADMIT_SINGLE_LABEL;
	}
	return ADMIT_OK;
}

/* domain "": an address literal, which is none of ours. */
static enum admit_status recipient_is_ours(const struct policy *policy,
	const struct admission *admission, const char *domain, const struct admit_trace *trace)
{
	if (admission->role == ROLE_INTERNAL) {
		trace_rule(trace, "relay", true, "internal may send to anybody");
		return ADMIT_OK;
	}
	if (policy->accepted_domain_count == 0) {
		trace_rule(trace, "relay", true,
			"there are no accepted-domains: the next hop decides whom it takes mail "
			"for");
		return ADMIT_OK;
	}
	if (policy_is_accepted_domain(policy, domain)) {
		trace_rule(trace, "relay", true, "%s is one of accepted-domains", domain);
		return ADMIT_OK;
	}
	trace_rule(trace, "relay", false, "%s is none of accepted-domains, and %s may not relay",
		domain[0] == '\0' ? "an address literal" : domain, role_word(admission->role));
	return ADMIT_RELAY;
}

enum admit_status admit_recipient(const struct policy *policy,
	const struct receive_connector *connector, const struct admission *admission,
	struct span recipient, const struct admit_trace *trace)
{
	const struct span text = path_domain(recipient);
	enum admit_status status = ADMIT_OK;
	char domain[DOMAIN_BYTES_MAX] = "";

	/* Ours by definition (RFC 5321 4.1.1.3); no other path is without an "@". */
	if (span_equal_nocase(recipient, span_of("<postmaster>")) ||
		span_equal_nocase(recipient, span_of("postmaster"))) {
		trace_rule(trace, "relay", true, "postmaster without a domain is ours");
		return ADMIT_OK;
	}
	if (text.len == 0 || text.data[0] != '[') {
		if (domain_normalize(text, domain) < 0) {
			trace_rule(trace, "recipient-domain", false, "it is no domain name");
			return ADMIT_BAD_DOMAIN;
		}
		status = recipient_is_real(connector, domain, trace);
	}
	if (status != ADMIT_OK)
		return status;
	return recipient_is_ours(policy, admission, domain, trace);
}
