/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/ask.h"

#include "policy/admit.h"
#include "policy/gate.h"
#include "policy/names.h"
#include "policy/partner.h"
#include "policy/route.h"
#include <stdarg.h>
#include <string.h>

/* A session that never was: what was asked, and what was found out for it so far. */
struct explain {
	const char *from, *to, *certificate, *tls, *ehlo, *mail, *time;
	struct ctl_list rcpts;
	struct ip ip;
	uint32_t zone;
	struct address local;
	char sender[ASK_PATH_BYTES];
	struct policy *policy;
	struct gate *gate;
	struct judge judge;
	const struct receive_connector *connector;
	const struct own_certificate *own; /* what the connector shows; NULL: nothing */
	struct peer *shown;                /* what the client shows; held */
	struct admit_peer peer;
};

static void say(const char *what, const char *text)
{
	(void)printf("%-12s", what);
	ctl_print_safe(text);
	(void)putchar('\n');
}

PRINTF_LIKE(3, 4)
static void say_rule(const char *rule, bool passed, const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	(void)printf("  %s  %-26s", passed ? "pass" : "FAIL", rule);
	ctl_print_safe(text);
	(void)putchar('\n');
}

static void explain_on_rule(void *arg, const char *rule, bool passed, const char *text)
{
	(void)arg;
	say_rule(rule, passed, "%s", text);
}

static const struct admit_trace trace = {.rule = explain_on_rule};

/* ---- the connection */

/* Without --to: the first binding, in the order of the file, that serves the peer. */
static bool explain_ask(struct explain *explain, struct gate_answer *out)
{
	const struct policy *policy = explain->policy;
	bool is_served = false;

	if (explain->to != NULL)
		return gate_ask(explain->gate, &explain->local, &explain->ip, explain->zone, out);
	for (unsigned i = 0; !is_served && i < policy->receive_connector_count; i++) {
		const struct receive_connector *connector = &policy->receive_connectors[i];

		for (unsigned j = 0; !is_served && j < connector->binding_count; j++) {
			explain->local = connector->bindings[j];
			is_served = gate_ask(
				explain->gate, &explain->local, &explain->ip, explain->zone, out);
		}
	}
	return is_served;
}

static bool explain_connect(struct explain *explain)
{
	char text[128], local[64], prefix[PREFIX_TEXT_BYTES];
	struct gate_answer answer;
	bool is_served = explain_ask(explain, &answer);

	explain->connector = answer.connector;
	address_print(&explain->local, local, sizeof(local));
	(void)snprintf(text, sizeof(text), "from %s to %s%s", explain->from, local,
		explain->to == NULL ? " (the first that serves it)" : "");
	say("connection", text);
	if (answer.is_excluded)
		say_rule("connector", false, "the list of partner \"%s\" excludes %s: refused",
			answer.partner->name, prefix_print(&answer.prefix, prefix));
	else if (!is_served)
		say_rule("connector", false, "no receive connector serves it: closed unserved");
	if (!is_served)
		return false;
	say_rule("connector", true, "\"%s\"; see posternctl connector match",
		explain->connector->name);
	if (answer.partner != NULL)
		say_rule("list", true, "%s is in the list of partner \"%s\"",
			prefix_print(&answer.prefix, prefix), answer.partner->name);
	if (answer.is_balancer)
		say_rule("proxy-balancers", false,
			"%s is a balancer, which has to announce who connects; ask again with "
			"--from that address",
			prefix_print(&answer.prefix, prefix));
	return !answer.is_balancer;
}

/* ---- TLS, and who the client is */

/* The verdict for the connector's own anchors, pins and tls-domain. */
static enum verdict explain_connector_verdict(const struct explain *explain)
{
	const struct receive_connector *connector = explain->connector;
	const struct trust *trust = explain->judge.trusts->receive[connector->index];
	enum verdict verdict = judge_chain(&explain->judge, trust, explain->shown, PEER_IS_CLIENT);

	if (verdict == VERDICT_VALID && connector->tls_domain != NULL &&
		!names_have(&explain->shown->names, connector->tls_domain))
		return VERDICT_SUBJECT_MISMATCH;
	return verdict;
}

static enum verdict explain_judge(void *arg, const struct partner *partner)
{
	struct explain *explain = arg;

	return judge_chain(&explain->judge, explain->judge.trusts->partners[partner->index],
		explain->shown, PEER_IS_CLIENT);
}

/* Is TLS offered, and does the client take it? */
static bool explain_is_tls(const struct explain *explain)
{
	const struct receive_connector *connector = explain->connector;

	if (connector->tls == TLS_MODE_NONE) {
		say_rule("tls", true, "tls = none: it is not offered");
		return false;
	}
	if (explain->own == NULL) {
		say_rule("tls", false,
			"there is no certificate for \"%s\": TLS is not offered (event 12014)",
			connector->fqdn);
		return false;
	}
	if (explain->tls != NULL && strcmp(explain->tls, "no") == 0) {
		say_rule("tls", true, "it is offered, and not used (--tls no)");
		return false;
	}
	say_rule("tls", true, "with certificate \"%s\", %s", explain->own->certificate->name,
		explain->own->facts->subject);
	return true;
}

static void explain_show_certificate(struct explain *explain)
{
	const struct peer *shown = explain->shown;

	explain->peer.has_certificate = true;
	explain->peer.names = shown->names;
	explain->peer.spki = shown->spki;
	explain->peer.connector_verdict = explain_connector_verdict(explain);
	say_rule("certificate", true, "%s, issued by %s", shown->subject, shown->issuer);
	say_rule("certificate", true, "names %s", *shown->names_text ? shown->names_text : "none");
	say_rule("certificate", true, "key sha256 %s", shown->spki_sha256);
	for (unsigned i = 0; i < explain->policy->partner_count; i++) {
		const struct partner *partner = &explain->policy->partners[i];
		enum verdict verdict = partner_is_direct(partner) ? VERDICT_NOT_ASKED
								  : explain_judge(explain, partner);

		if (partner_is_direct(partner))
			say_rule("trust",
				pins_have(partner->spki_pins, partner->spki_pin_count, shown->spki),
				"by partner \"%s\": direct trust, the key alone decides",
				partner->name);
		else
			say_rule("trust", verdict == VERDICT_VALID, "by partner \"%s\": %s",
				partner->name, verdict_word(verdict));
	}
}

static void explain_handshake(struct explain *explain)
{
	const struct receive_connector *connector = explain->connector;

	explain->peer = (struct admit_peer){.judge = explain_judge, .arg = explain};
	explain->own = judge_own(&explain->judge, &connector->tls_settings, connector->fqdn);
	explain->peer.is_tls = explain_is_tls(explain);
	if (!explain->peer.is_tls)
		return;
	if (connector->client_certificate == CLIENT_CERTIFICATE_NONE)
		say_rule("certificate", true, "the connector does not ask the client for one");
	else if (explain->shown == NULL)
		say_rule("certificate", true, "asked for, and the client has none");
	else
		explain_show_certificate(explain);
}

/* ---- the commands */

/* "mail.b.example" or "[192.0.2.1]"; what require-ehlo-domain wants. */
static bool explain_ehlo(const struct explain *explain)
{
	struct span name = span_of(explain->ehlo);
	char domain[DOMAIN_BYTES_MAX];
	bool is_name = domain_normalize(name, domain) == 0 ||
		       (name.len > 2 && name.data[0] == '[' && name.data[name.len - 1] == ']');
	bool passed = is_name || !explain->connector->require_ehlo_domain;

	say("EHLO", explain->ehlo);
	say_rule("require-ehlo-domain", passed, "it is %s, require-ehlo-domain is %s",
		is_name ? "a domain or literal" : "neither domain nor literal",
		explain->connector->require_ehlo_domain ? "on" : "off");
	if (!passed)
		say("  reply", "501 5.5.4 Invalid domain name");
	return passed;
}

static bool explain_mail(const struct explain *explain, struct admission *out)
{
	char reply[ADMIT_REPLY_BYTES];

	say("MAIL FROM:", explain->sender);
	admit_sender(explain->policy, explain->connector, &explain->peer, span_of(explain->sender),
		&trace, out);
	if (out->status != ADMIT_OK) {
		say("  reply", admit_reply(explain->connector, out, reply));
		say("  why", admit_word(out->status));
		if (admit_event_id(out->status) != NULL)
			say("  event-id", admit_event_id(out->status));
		return false;
	}
	say("  reply", "the next hop's; 250 2.1.0 Sender OK where the recipient decides the way");
	(void)printf("  role      %s", role_word(out->role));
	if (out->role == ROLE_PARTNER)
		(void)printf(" \"%s\", proved domain %s (%s)", out->partner->name, out->domain,
			name_match_word(out->match));
	(void)putchar('\n');
	return true;
}

/* Where mail for the recipient goes on, and whether it may. */
static bool explain_route(const struct explain *explain, const char *domain)
{
	const struct send_connector *fixed = explain->connector->send_connector;
	struct route route;

	if (fixed != NULL)
		route_fixed(explain->policy, fixed, domain, 0, &route);
	else
		route_send(explain->policy, domain, 0, &route);
	if (route.status != ROUTE_OK) {
		say_rule("route", false, "no send connector has an address space for %s", domain);
		say("  reply", "451 4.4.4 no route");
		return false;
	}
	say_rule("route", true, "send connector \"%s\"%s", route.connector->name,
		fixed != NULL ? " (send-connector)" : "");
	if (route.partner == NULL || route.is_secured) {
		if (route.partner == NULL)
			say_rule("s1", true, "%s is listed by no partner with send-secure", domain);
		else
			say_rule("s1", true, "domain secured, as partner \"%s\"",
				route.partner->name);
		say("  reply", "the next hop's");
		return true;
	}
	say_rule("s1", route.connector->allow_unsecured_partners,
		"listed by partner \"%s\", and the connector is not domain-secure",
		route.partner->name);
	if (!route.connector->allow_unsecured_partners)
		(void)printf("  reply     451 4.7.3 Mail to %s needs a domain-secured connector\n",
			domain);
	return route.connector->allow_unsecured_partners;
}

static bool explain_rcpt(
	const struct explain *explain, const struct admission *admission, const char *text)
{
	struct admission refusal = *admission;
	char path[ASK_PATH_BYTES], reply[ADMIT_REPLY_BYTES], domain[DOMAIN_BYTES_MAX] = "";

	if (ask_path_read(text, false, path) < 0)
		return false;
	say("RCPT TO:", path);
	refusal.status = admit_recipient(
		explain->policy, explain->connector, admission, span_of(path), &trace);
	if (refusal.status != ADMIT_OK) {
		say("  reply", admit_reply(explain->connector, &refusal, reply));
		say("  why", admit_word(refusal.status));
		return false;
	}
	if (domain_normalize(path_domain(span_of(path)), domain) < 0)
		domain[0] = '\0'; /* an address literal: no address space has it */
	return explain_route(explain, domain);
}

static bool explain_session(struct explain *explain)
{
	struct admission admission;
	bool is_accepted = true;

	if (!explain_connect(explain))
		return false;
	explain_handshake(explain);
	if (!explain_ehlo(explain) || !explain_mail(explain, &admission))
		return false;
	for (unsigned i = 0; i < explain->rcpts.count; i++)
		is_accepted &= explain_rcpt(explain, &admission, explain->rcpts.texts[i]);
	return is_accepted;
}

static int explain_open(struct ctl *ctl, struct explain *explain)
{
	time_t now;

	if (ask_peer_read(explain->from, &explain->ip, &explain->zone) < 0 ||
		(explain->to != NULL && ask_address_read(explain->to, &explain->local) < 0) ||
		ask_path_read(explain->mail, true, explain->sender) < 0 ||
		ask_time_read(explain->time, &now) < 0)
		return CTL_USAGE;
	if (explain->tls != NULL && strcmp(explain->tls, "yes") != 0 &&
		strcmp(explain->tls, "no") != 0) {
		ctl_error("--tls %s: expected yes or no", explain->tls);
		return CTL_USAGE;
	}
	explain->policy = ctl_policy_create(ctl);
	if (explain->policy == NULL ||
		gate_create(explain->policy, NULL, stderr, &explain->gate) < 0)
		return CTL_USAGE;
	if (judge_create(explain->policy, now, stderr, &explain->judge) < 0 ||
		explain->judge.trusts == NULL)
		return CTL_USAGE;
	if (explain->certificate != NULL &&
		(explain->shown = chain_read_peer(explain->certificate)) == NULL)
		return CTL_USAGE;
	return CTL_OK;
}

static int explain_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	struct explain explain = {0};
	const struct ctl_option options[] = {
		{"from", CTL_OPTION_TEXT, &explain.from, 0, 0, true},
		{"to", CTL_OPTION_TEXT, &explain.to, 0, 0, false},
		{"tls", CTL_OPTION_TEXT, &explain.tls, 0, 0, false},
		{"cert", CTL_OPTION_TEXT, &explain.certificate, 0, 0, false},
		{"ehlo", CTL_OPTION_TEXT, &explain.ehlo, 0, 0, true},
		{"mail-from", CTL_OPTION_TEXT, &explain.mail, 0, 0, true},
		{"rcpt", CTL_OPTION_LIST, &explain.rcpts, 0, 0, true},
		{"time", CTL_OPTION_TEXT, &explain.time, 0, 0, false},
		{.name = NULL},
	};
	struct ctl_list operands;
	int status;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 0, 0) < 0)
		return CTL_USAGE;
	status = explain_open(ctl, &explain);
	if (status == CTL_OK) {
		status = explain_session(&explain) ? CTL_OK : CTL_FAILED;
		say("verdict", status == CTL_OK ? "accepted" : "refused");
	}
	peer_release(&explain.shown);
	judge_destroy(&explain.judge);
	gate_destroy(&explain.gate);
	if (explain.policy != NULL)
		policy_destroy(&explain.policy);
	return status;
}

const struct ctl_command ctl_explain_commands[] = {
	{"explain",
		"--from IP [--to ADDRESS:PORT] [--tls yes|no] [--cert FILE]\n"
		"--ehlo NAME --mail-from ADDRESS --rcpt ADDRESS ... [--time TIME]",
		"every rule that a session would meet, and the verdict", explain_run},
	{NULL, NULL, NULL, NULL},
};
