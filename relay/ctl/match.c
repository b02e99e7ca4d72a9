/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/ask.h"

#include "policy/names.h"
#include "policy/route.h"
#include <inttypes.h>
#include <string.h>

/* ---- connector match */

static const char *const match_columns[] = {"Connector", "Result", "Range", "Binding", "Why"};

struct match {
	const struct policy *policy;
	struct address local;
	struct ip peer;
	uint32_t zone;
	const struct receive_connector *winner;
};

/* The snapshot as if that were its only receive connector, and enabled. */
static bool match_alone(const struct match *match, const struct receive_connector *connector)
{
	struct receive_connector only = *connector;
	struct policy policy = *match->policy;

	only.enabled = true;
	policy.receive_connectors = &only;
	policy.receive_connector_count = 1;
	return route_receive(&policy, &match->local, &match->peer, match->zone) != NULL;
}

static bool match_has_binding(const struct match *match, const struct receive_connector *connector)
{
	struct receive_connector anybody = *connector;

	anybody.remote_ip_range_count = 0;
	return match_alone(match, &anybody);
}

/* The binding that fits; an exact address before the wildcard. NULL: none. */
static const struct address *match_binding(
	const struct match *match, const struct receive_connector *connector)
{
	const struct address *found = NULL;

	for (unsigned i = 0; i < connector->binding_count; i++) {
		struct receive_connector only = *connector;
		const struct address *binding = &connector->bindings[i];

		only.bindings = &connector->bindings[i];
		only.binding_count = 1;
		if (match_has_binding(match, &only) &&
			(found == NULL || memcmp(&binding->sockaddr, &match->local.sockaddr,
						  match->local.len) == 0))
			found = binding;
	}
	return found;
}

/* The narrowest range that holds the peer; NULL: none, or there are no ranges. */
static const struct ip_range *match_range(
	const struct match *match, const struct receive_connector *connector)
{
	const struct ip_range *found = NULL;

	for (unsigned i = 0; i < connector->remote_ip_range_count; i++) {
		const struct ip_range *range = &connector->remote_ip_ranges[i];

		if (ip_range_has(range, &match->peer) &&
			(range->zone == 0 || range->zone == match->zone) &&
			(found == NULL || ip_range_is_narrower(range, found)))
			found = range;
	}
	return found;
}

static const char *match_range_text(const struct match *match,
	const struct receive_connector *connector, char out[static IP_RANGE_TEXT_BYTES])
{
	const struct ip_range *range = match_range(match, connector);

	if (range != NULL)
		return ip_range_print(range, out);
	return connector->remote_ip_range_count == 0 ? "everybody" : "-";
}

static void match_why(const struct match *match, const struct receive_connector *connector,
	char *out, size_t out_bytes)
{
	char mine[IP_RANGE_TEXT_BYTES], theirs[IP_RANGE_TEXT_BYTES], text[64];
	const struct address *binding = match_binding(match, connector);

	if (connector == match->winner) {
		(void)snprintf(
			out, out_bytes, "the best binding, and of those the narrowest range");
	} else if (!connector->enabled) {
		(void)snprintf(out, out_bytes, "it is disabled");
	} else if (binding == NULL) {
		address_print(&match->local, text, sizeof(text));
		(void)snprintf(out, out_bytes, "none of its bindings takes %s", text);
	} else if (match->winner == NULL || !match_alone(match, connector)) {
		(void)snprintf(out, out_bytes, "none of its remote-ip-ranges holds %s",
			ip_print(&match->peer, text, sizeof(text)));
	} else if (memcmp(&match_binding(match, match->winner)->sockaddr, &binding->sockaddr,
			   sizeof(binding->sockaddr)) != 0) {
		(void)snprintf(out, out_bytes, "its binding is not the address itself");
	} else if (match_range(match, connector) == NULL) {
		(void)snprintf(out, out_bytes, "it serves everybody, and %s is narrower",
			match_range_text(match, match->winner, theirs));
	} else {
		(void)snprintf(out, out_bytes, "its range %s is wider than %s",
			match_range_text(match, connector, mine),
			match_range_text(match, match->winner, theirs));
	}
}

static void match_create_row(struct ctl_table *table, const struct match *match,
	const struct receive_connector *connector)
{
	const struct address *binding = match_binding(match, connector);
	char range[IP_RANGE_TEXT_BYTES], bound[64] = "-", why[400];
	const char *cells[COUNT_OF(match_columns)] = {connector->name,
		connector == match->winner ? "serves" : "lost",
		match_range_text(match, connector, range), bound, why};

	if (binding != NULL)
		address_print(binding, bound, sizeof(bound));
	match_why(match, connector, why, sizeof(why));
	ctl_table_create_row(table, cells);
}

static int match_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	const char *from = NULL, *to = NULL;
	const struct ctl_option options[] = {{"from", CTL_OPTION_TEXT, &from, 0, 0, true},
		{"to", CTL_OPTION_TEXT, &to, 0, 0, true}, {.name = NULL}};
	struct ctl_list operands;
	struct ctl_table table;
	struct match match = {0};
	struct policy *policy;
	int status;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 0, 0) < 0 ||
		ask_peer_read(from, &match.peer, &match.zone) < 0 ||
		ask_address_read(to, &match.local) < 0)
		return CTL_USAGE;
	policy = ctl_policy_create(ctl);
	if (policy == NULL)
		return CTL_USAGE;
	match.policy = policy;
	match.winner = route_receive(policy, &match.local, &match.peer, match.zone);
	ctl_table_init(&table, match_columns, COUNT_OF(match_columns));
	if (match.winner != NULL)
		match_create_row(&table, &match, match.winner);
	for (unsigned i = 0; i < policy->receive_connector_count; i++)
		if (&policy->receive_connectors[i] != match.winner)
			match_create_row(&table, &match, &policy->receive_connectors[i]);
	status = ctl_table_finish(ctl, &table);
	if (match.winner == NULL) {
		ctl_error("no receive connector serves %s on %s: it is closed unserved", from, to);
		status = CTL_FAILED;
	}
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
