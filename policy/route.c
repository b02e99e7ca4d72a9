/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/route.h"
#include "policy/admit.h"
#include <string.h>

/*
 * How exactly the space means the domain: 0 not at all, 1 for "*", more for "*.", the more the
 * longer, and the most for the domain itself.
 */
static size_t space_match(
	const struct policy *policy, const struct address_space *space, const char *domain)
{
	const size_t len = strlen(domain), suffix = strlen(space->domain);

	if (space->is_any)
		return 1;
	if (space->is_accepted)
		return policy_is_accepted_domain(policy, domain) ? SIZE_MAX : 0;
	if (!space->with_subdomains)
		return strcmp(space->domain, domain) == 0 ? SIZE_MAX : 0;
	if (len < suffix || strcmp(domain + len - suffix, space->domain) != 0 ||
		(len > suffix && domain[len - suffix - 1] != '.'))
		return 0;
	return 1 + suffix;
}

static bool connector_takes(const struct send_connector *connector, uint64_t bytes)
{
	return bytes == 0 || bytes <= connector->max_message_bytes;
}

/* As an administrator sorts names; equal but for their case by the case. */
static int name_compare(const char *a, const char *b)
{
	const int order = strcasecmp(a, b);

	return order != 0 ? order : strcmp(a, b);
}

static void route_finish(const struct policy *policy, const char *domain, struct route *out)
{
	out->partner = partner_find(policy, domain, true);
	out->is_secured =
		out->partner != NULL && out->connector != NULL && out->connector->domain_secure;
}

void route_send(const struct policy *policy, const char *domain, uint64_t bytes, struct route *out)
{
	size_t best = 0;

	*out = (struct route){.status = ROUTE_UNREACHABLE};
	for (unsigned i = 0; i < policy->send_connector_count; i++) {
		const struct send_connector *connector = &policy->send_connectors[i];

		for (unsigned j = 0; connector->enabled && j < connector->address_space_count;
			j++) {
			const struct address_space *space = &connector->address_spaces[j];
			const size_t match = space_match(policy, space, domain);

			if (match == 0)
				continue;
			if (!connector_takes(connector, bytes)) {
				if (out->connector == NULL)
					out->status = ROUTE_TOO_LARGE;
				continue;
			}
			/* Most specific, then cheapest, then first by name. */
			if (match < best)
				continue;
			if (match == best && (space->cost > out->space->cost ||
						     (space->cost == out->space->cost &&
							     name_compare(connector->name,
								     out->connector->name) >= 0)))
				continue;
			best = match;
			out->status = ROUTE_OK;
			out->connector = connector;
			out->space = space;
		}
	}
	route_finish(policy, domain, out);
}

void route_fixed(const struct policy *policy, const struct send_connector *connector,
	const char *domain, uint64_t bytes, struct route *out)
{
	*out = (struct route){
		.status = connector_takes(connector, bytes) ? ROUTE_OK : ROUTE_TOO_LARGE,
		.connector = connector,
	};
	route_finish(policy, domain, out);
}
