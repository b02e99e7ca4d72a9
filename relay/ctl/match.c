/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/ask.h"

#include "policy/gate.h"
#include "policy/names.h"
#include "policy/partner.h"
#include "policy/route.h"
#include <inttypes.h>
#include <string.h>

/* ---- connector match */

static const char *const match_columns[] = {"Connector", "Result", "Range", "Binding", "Why"};

struct match {
	const struct policy *policy;
	struct gate *gate;
	struct address local;
	struct ip peer;
	uint32_t zone;
	struct gate_answer answer;
};

/* By which of its rules a connector would have the peer, if it were asked alone. */
struct claim {
	enum { CLAIM_NONE, CLAIM_EVERYBODY, CLAIM_RANGE, CLAIM_LIST, CLAIM_BALANCER } kind;
	struct ip_range range;
	const struct partner *partner; /* CLAIM_LIST */
	bool is_excluded;
};

/* The binding that fits; an exact address before the wildcard. NULL: none. */
static const struct address *match_binding(
	const struct match *match, const struct receive_connector *connector)
{
	const struct address *found = NULL;
	struct ip local, bound;

	if (!ip_of_sockaddr((const struct sockaddr *)&match->local.sockaddr, &local))
		return NULL;
	for (unsigned i = 0; i < connector->binding_count; i++) {
		const struct address *binding = &connector->bindings[i];

		if (!ip_of_sockaddr((const struct sockaddr *)&binding->sockaddr, &bound) ||
			address_port(binding) != address_port(&match->local) ||
			bound.is_v6 != local.is_v6)
			continue;
		if (ip_compare(&bound, &local) == 0)
			return binding;
		if (ip_is_any(&bound))
			found = binding;
	}
	return found;
}

/* A claim by another range, if it is narrower, or as wide and of a kind that goes first. */
static void claim_by(struct claim *claim, const struct claim *other, const struct match *match)
{
	if (!ip_range_has(&other->range, &match->peer) ||
		(other->range.zone != 0 && other->range.zone != match->zone))
		return;
	if (claim->kind <= CLAIM_EVERYBODY || ip_range_is_narrower(&other->range, &claim->range) ||
		(other->kind > claim->kind && !ip_range_is_narrower(&claim->range, &other->range)))
		*claim = *other;
}

static void claim_by_list(
	struct claim *claim, const struct partner *partner, const struct match *match)
{
	uint64_t generation;
	const struct cidr *set = gate_partner_set(match->gate, partner, &generation);
	struct prefix prefix;
	const struct door_value *value =
		set == NULL ? NULL : cidr_lookup(set, &match->peer, &prefix);

	if (value != NULL)
		claim_by(claim,
			&(const struct claim){.kind = CLAIM_LIST,
				.range = prefix_range(&prefix),
				.partner = partner,
				.is_excluded = (value->flags & DOOR_EXCLUDED) != 0},
			match);
}

static struct claim match_claim(
	const struct match *match, const struct receive_connector *connector)
{
	const struct policy *policy = match->policy;
	struct claim claim = {.kind = CLAIM_NONE};

	if (connector->remote_ip_range_count == 0 && connector->remote_ip_partner_count == 0)
		claim.kind = CLAIM_EVERYBODY;
	for (unsigned i = 0; i < connector->remote_ip_range_count; i++)
		claim_by(&claim,
			&(const struct claim){
				.kind = CLAIM_RANGE, .range = connector->remote_ip_ranges[i]},
			match);
	for (unsigned p = 0; p < policy->partner_count; p++)
		if (partner_is_asked(&policy->partners[p], connector))
			claim_by_list(&claim, &policy->partners[p], match);
	for (unsigned i = 0; i < connector->proxy_balancer_count; i++)
		claim_by(&claim,
			&(const struct claim){
				.kind = CLAIM_BALANCER, .range = connector->proxy_balancers[i]},
			match);
	return claim;
}

#define CLAIM_TEXT_BYTES (IP_RANGE_TEXT_BYTES + 200)

static const char *claim_print(const struct claim *claim, char out[static CLAIM_TEXT_BYTES])
{
	char range[IP_RANGE_TEXT_BYTES];

	switch (claim->kind) {
	case CLAIM_NONE:
		return "-";
	case CLAIM_EVERYBODY:
		return "everybody";
	case CLAIM_RANGE:
		(void)snprintf(out, CLAIM_TEXT_BYTES, "%s", ip_range_print(&claim->range, range));
		break;
	case CLAIM_LIST:
		(void)snprintf(out, CLAIM_TEXT_BYTES, "%s%s (partner %s)",
			claim->is_excluded ? "!" : "", ip_range_print(&claim->range, range),
			claim->partner->name);
		break;
	case CLAIM_BALANCER:
		(void)snprintf(out, CLAIM_TEXT_BYTES, "%s (balancer)",
			ip_range_print(&claim->range, range));
		break;
	}
	return out;
}

/* Whose rule decided; of an exclusion, the connector that names the partner. */
static const struct receive_connector *match_winner(const struct match *match)
{
	const struct policy *policy = match->policy;

	if (!match->answer.is_excluded)
		return match->answer.connector;
	for (unsigned i = 0; i < policy->receive_connector_count; i++) {
		const struct receive_connector *connector = &policy->receive_connectors[i];
		const struct claim claim = match_claim(match, connector);

		if (connector->enabled && claim.is_excluded &&
			claim.partner == match->answer.partner &&
			match_binding(match, connector) != NULL)
			return connector;
	}
	return NULL;
}

static void match_why_winner(const struct match *match, char *out, size_t out_bytes)
{
	if (match->answer.is_excluded)
		(void)snprintf(out, out_bytes, "the list of partner \"%s\" excludes it",
			match->answer.partner->name);
	else if (match->answer.is_balancer)
		(void)snprintf(out, out_bytes,
			"a balancer, which has to announce who connects (PROXY protocol)");
	else
		(void)snprintf(
			out, out_bytes, "the best binding, and of those the narrowest range");
}

static void match_why(const struct match *match, const struct receive_connector *connector,
	char *out, size_t out_bytes)
{
	const struct receive_connector *winner = match_winner(match);
	const struct address *binding = match_binding(match, connector);
	const struct claim claim = match_claim(match, connector);
	char mine[CLAIM_TEXT_BYTES], theirs[CLAIM_TEXT_BYTES], text[64];
	struct claim best;

	if (connector == winner) {
		match_why_winner(match, out, out_bytes);
		return;
	}
	if (!connector->enabled) {
		(void)snprintf(out, out_bytes, "it is disabled");
		return;
	}
	if (binding == NULL) {
		address_print(&match->local, text, sizeof(text));
		(void)snprintf(out, out_bytes, "none of its bindings takes %s", text);
		return;
	}
	if (winner == NULL || claim.kind == CLAIM_NONE) {
		(void)snprintf(out, out_bytes, "none of its %s holds %s",
			connector->remote_ip_partner_count == 0 ? "remote-ip-ranges"
			: connector->remote_ip_range_count == 0
				? "lists of remote-ip-partners"
				: "remote-ip-ranges and lists of remote-ip-partners",
			ip_print(&match->peer, text, sizeof(text)));
		return;
	}
	best = match_claim(match, winner);
	if (!address_is_equal(match_binding(match, winner), binding))
		(void)snprintf(out, out_bytes, "its binding is not the address itself");
	else if (claim.kind == CLAIM_EVERYBODY)
		(void)snprintf(out, out_bytes, "it serves everybody, and %s is narrower",
			claim_print(&best, theirs));
	else
		(void)snprintf(out, out_bytes, "its range %s is wider than %s",
			claim_print(&claim, mine), claim_print(&best, theirs));
}

static void match_create_row(struct ctl_table *table, const struct match *match,
	const struct receive_connector *connector)
{
	const struct address *binding = match_binding(match, connector);
	const struct claim claim = match_claim(match, connector);
	char range[CLAIM_TEXT_BYTES], bound[64] = "-", why[800];
	const char *cells[COUNT_OF(match_columns)] = {
		connector->name, "lost", claim_print(&claim, range), bound, why};

	if (connector == match_winner(match))
		cells[1] = match->answer.is_excluded ? "refuses" : "serves";
	if (binding != NULL)
		address_print(binding, bound, sizeof(bound));
	match_why(match, connector, why, sizeof(why));
	ctl_table_create_row(table, cells);
}

/* All connectors, the one that decided first; does one serve the peer? */
static bool match_print(
	struct ctl *ctl, const struct match *match, const char *from, const char *to, int *status)
{
	const struct policy *policy = match->policy;
	const struct receive_connector *winner = match_winner(match);
	struct ctl_table table;

	ctl_table_init(&table, match_columns, COUNT_OF(match_columns));
	if (winner != NULL)
		match_create_row(&table, match, winner);
	for (unsigned i = 0; i < policy->receive_connector_count; i++)
		if (&policy->receive_connectors[i] != winner)
			match_create_row(&table, match, &policy->receive_connectors[i]);
	*status = ctl_table_finish(ctl, &table);
	if (match->answer.is_excluded)
		ctl_error("the list of partner \"%s\" excludes %s: it is refused on %s",
			match->answer.partner->name, from, to);
	else if (winner == NULL)
		ctl_error("no receive connector serves %s on %s: it is closed unserved", from, to);
	return match->answer.connector != NULL;
}

static int match_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	const char *from = NULL, *to = NULL;
	const struct ctl_option options[] = {{"from", CTL_OPTION_TEXT, &from, 0, 0, true},
		{"to", CTL_OPTION_TEXT, &to, 0, 0, true}, {.name = NULL}};
	struct ctl_list operands;
	struct match match = {0};
	struct policy *policy;
	int status = CTL_USAGE;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 0, 0) < 0 ||
		ask_peer_read(from, &match.peer, &match.zone) < 0 ||
		ask_address_read(to, &match.local) < 0)
		return CTL_USAGE;
	policy = ctl_policy_create(ctl);
	if (policy == NULL)
		return CTL_USAGE;
	match.policy = policy;
	if (gate_create(policy, NULL, stderr, &match.gate) == 0) {
		(void)gate_ask(match.gate, &match.local, &match.peer, match.zone, &match.answer);
		if (!match_print(ctl, &match, from, to, &status))
			status = CTL_FAILED;
	}
	gate_destroy(&match.gate);
	policy_destroy(&policy);
	return status;
}

/* ---- connector route */

static const char *const route_columns[] = {
	"Connector", "Result", "AddressSpace", "Secured", "Why"};

static const char *space_print(const struct address_space *space, char *out, size_t out_bytes)
{
	if (space == NULL)
		return "-";
	(void)snprintf(out, out_bytes, "SMTP:%s%s;%u",
		space->is_any            ? "*"
		: space->is_accepted     ? "--"
		: space->with_subdomains ? "*."
					 : "",
		space->domain, space->cost);
	return out;
}

/* How exactly a space that matches means the domain, in the order of EXCHANGE 3.1. */
static size_t space_rank(const struct address_space *space)
{
	if (space->is_any)
		return 0;
	return space->with_subdomains ? 1 + strlen(space->domain) : NAME_BYTES_MAX + 1;
}

static void route_why(const struct route *best, const struct send_connector *connector,
	const struct route *alone, const char *domain, char *out, size_t out_bytes)
{
	char space[NAME_BYTES_MAX + 16];

	if (connector == best->connector)
		(void)snprintf(out, out_bytes, "the most specific space, then cost, then name");
	else if (connector->address_space_count == 0)
		(void)snprintf(out, out_bytes,
			"no address-spaces: it is used where send-connector names it");
	else if (alone->space == NULL && alone->status != ROUTE_TOO_LARGE)
		(void)snprintf(out, out_bytes, "none of its address spaces covers %s", domain);
	else if (!connector->enabled)
		(void)snprintf(out, out_bytes, "it is disabled");
	else if (best->connector == NULL || alone->status == ROUTE_TOO_LARGE)
		(void)snprintf(out, out_bytes, "its max-message-size is %" PRIu64 " bytes",
			connector->max_message_bytes);
	else if (space_rank(alone->space) < space_rank(best->space))
		(void)snprintf(out, out_bytes, "its space is less specific than %s",
			space_print(best->space, space, sizeof(space)));
	else if (alone->space->cost > best->space->cost)
		(void)snprintf(out, out_bytes, "its cost %u is higher than %u", alone->space->cost,
			best->space->cost);
	else
		(void)snprintf(out, out_bytes, "equal, but its name is behind \"%s\"",
			best->connector->name);
}

/* What the connector would answer if it were the only one, and enabled. */
static void route_alone(const struct policy *policy, const struct send_connector *connector,
	const char *domain, uint64_t bytes, struct route *out)
{
	struct send_connector only = *connector;
	struct policy alone = *policy;

	only.enabled = true;
	alone.send_connectors = &only;
	alone.send_connector_count = 1;
	route_send(&alone, domain, bytes, out);
	if (out->status == ROUTE_TOO_LARGE)
		return;
	out->connector = connector;
}

static void route_create_row(struct ctl_table *table, const struct policy *policy,
	const struct route *best, const struct send_connector *connector, const char *domain,
	uint64_t bytes)
{
	char space[NAME_BYTES_MAX + 16], secured[NAME_BYTES_MAX + 16] = "no", why[400];
	const char *cells[COUNT_OF(route_columns)] = {connector->name,
		connector == best->connector ? "carries" : "lost", NULL, secured, why};
	struct route alone;

	route_alone(policy, connector, domain, bytes, &alone);
	cells[2] = space_print(alone.space, space, sizeof(space));
	if (alone.is_secured)
		(void)snprintf(secured, sizeof(secured), "as %s", alone.partner->name);
	else if (alone.partner != NULL && !connector->allow_unsecured_partners)
		(void)snprintf(secured, sizeof(secured), "refused");
	route_why(best, connector, &alone, domain, why, sizeof(why));
	ctl_table_create_row(table, cells);
}

/* The answer in a sentence; is mail to the domain sent? */
static bool route_say(const struct route *best, const char *domain)
{
	if (best->status == ROUTE_TOO_LARGE) {
		ctl_error("every send connector for %s has a smaller max-message-size: 5.3.4",
			domain);
		return false;
	}
	if (best->connector == NULL) {
		ctl_error("no send connector has an address space for %s: 4.4.4", domain);
		return false;
	}
	if (best->partner != NULL && !best->is_secured &&
		!best->connector->allow_unsecured_partners) {
		ctl_error("%s is listed by partner \"%s\", and send connector \"%s\" is not "
			  "domain-secure: mail is refused with 451 4.7.3",
			domain, best->partner->name, best->connector->name);
		return false;
	}
	return true;
}

static int route_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	const char *rcpt = NULL;
	int64_t size = 0;
	const struct ctl_option options[] = {{"rcpt", CTL_OPTION_TEXT, &rcpt, 0, 0, true},
		{"size", CTL_OPTION_NUMBER, &size, 0, INT64_MAX, false}, {.name = NULL}};
	char domain[DOMAIN_BYTES_MAX];
	struct ctl_list operands;
	struct ctl_table table;
	struct policy *policy;
	struct route best;
	int status;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 0, 0) < 0 ||
		ask_domain_read(rcpt, domain) < 0)
		return CTL_USAGE;
	policy = ctl_policy_create(ctl);
	if (policy == NULL)
		return CTL_USAGE;
	route_send(policy, domain, (uint64_t)size, &best);
	ctl_table_init(&table, route_columns, COUNT_OF(route_columns));
	if (best.connector != NULL)
		route_create_row(&table, policy, &best, best.connector, domain, (uint64_t)size);
	for (unsigned i = 0; i < policy->send_connector_count; i++)
		if (&policy->send_connectors[i] != best.connector)
			route_create_row(&table, policy, &best, &policy->send_connectors[i], domain,
				(uint64_t)size);
	status = ctl_table_finish(ctl, &table);
	if (!route_say(&best, domain))
		status = CTL_FAILED;
	policy_destroy(&policy);
	return status;
}

const struct ctl_command ctl_connector_commands[] = {
	{"connector match", "--from IP --to ADDRESS:PORT",
		"which receive connector serves that peer, and why not the others", match_run},
	{"connector route", "--rcpt ADDRESS [--size BYTES]",
		"which send connector carries mail there, and why not the others", route_run},
	{NULL, NULL, NULL, NULL},
};
