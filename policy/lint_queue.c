/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/lint_private.h"
#include "policy/route.h"

/*
 * lint_queue.c: messages that are kept, and the way of the notices about them. A notice goes to the
 * sender by address space, whatever way the message took: also where the receive connector has a
 * send connector of its own.
 */

static bool is_queue(const struct receive_connector *connector)
{
	return connector->enabled && connector->deliver == DELIVER_QUEUE;
}

static bool any_queue(const struct policy *policy)
{
	for (unsigned i = 0; i < policy->receive_connector_count; i++)
		if (is_queue(&policy->receive_connectors[i]))
			return true;
	return false;
}

static bool has_way(const struct policy *policy, const char *domain)
{
	struct route route;

	route_send(policy, domain, 0, &route);
	return route.connector != NULL;
}

static bool has_way_out(const struct policy *policy)
{
	for (unsigned i = 0; i < policy->send_connector_count; i++) {
		const struct send_connector *connector = &policy->send_connectors[i];

		for (unsigned j = 0; connector->enabled && j < connector->address_space_count; j++)
			if (connector->address_spaces[j].is_any)
				return true;
	}
	return false;
}

/* A domain of senders that may send here, and that nothing can be returned to; NULL: none. */
static const char *find_unreachable_partner(const struct policy *policy)
{
	for (unsigned p = 0; p < policy->partner_count; p++) {
		const struct partner *partner = &policy->partners[p];

		for (unsigned i = 0; partner->receive_secure && i < partner->domain_count; i++)
			if (!has_way(policy, partner->domains[i]))
				return partner->domains[i];
	}
	return NULL;
}

static const char *find_unreachable_own(const struct policy *policy)
{
	for (unsigned i = 0; i < policy->accepted_domain_count; i++)
		if (policy->accepted_domains[i][0] != '*' &&
			!has_way(policy, policy->accepted_domains[i]))
			return policy->accepted_domains[i];
	return NULL;
}

static void lint_notice_way(struct lint *lint, const struct receive_connector *connector)
{
	const struct policy *policy = lint->policy;
	const unsigned groups = connector->permission_groups;
	const char *domain = NULL;

	if ((groups & PERMISSION_ANONYMOUS) != 0 && !has_way_out(policy)) {
		lint_find(lint, connector->line,
			"receive-connector \"%s\": deliver = queue, and no send-connector has the "
			"address-space \"*\": notices (NDRs) to senders outside go by address "
			"space and would wait in Unreachable; set address-spaces = {\"*\"} on a "
			"send-connector",
			connector->name);
		return;
	}
	if ((groups & PERMISSION_PARTNERS) != 0)
		domain = find_unreachable_partner(policy);
	if (domain == NULL && (groups & PERMISSION_INTERNAL) != 0)
		domain = find_unreachable_own(policy);
	if (domain != NULL)
		lint_find(lint, connector->line,
			"receive-connector \"%s\": deliver = queue, and no send-connector has an "
			"address-space for senders of %s: notices (NDRs) to them would wait in "
			"Unreachable; add address-spaces = {\"%s\"}, or {\"*\"}, to a "
			"send-connector",
			connector->name, domain, domain);
}

void lint_queue(struct lint *lint)
{
	const struct policy *policy = lint->policy;

	for (unsigned i = 0; i < policy->receive_connector_count; i++)
		if (is_queue(&policy->receive_connectors[i]))
			lint_notice_way(lint, &policy->receive_connectors[i]);
	if (policy->queue.spool_folder != NULL && !any_queue(policy))
		lint_find(lint, policy->queue.spool_line,
			"spool-folder is set, and no enabled receive-connector has deliver = "
			"queue, "
			"so no message comes to the spool; set it on one, or remove spool-folder");
}
