/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/route.h"
#include "policy/admit.h"
#include <string.h>

static uint16_t address_port(const struct address *address)
{
	struct sockaddr_in6 in6 = {0};
	struct sockaddr_in in = {0};

	if (address->sockaddr.ss_family == AF_INET6) {
		memcpy(&in6, &address->sockaddr, sizeof(in6));
		return ntohs(in6.sin6_port);
	}
	memcpy(&in, &address->sockaddr, sizeof(in));
	return ntohs(in.sin_port);
}

/* How well a binding fits; the greater wins. */
enum binding_match {
	BINDING_NONE,
	BINDING_WILDCARD,
	BINDING_EXACT,
};

static enum binding_match binding_match(const struct address *binding, const struct address *local)
{
	struct ip bound, own;

	if (!ip_of_sockaddr((const struct sockaddr *)&binding->sockaddr, &bound) ||
		!ip_of_sockaddr((const struct sockaddr *)&local->sockaddr, &own) ||
		address_port(binding) != address_port(local) || bound.is_v6 != own.is_v6)
		return BINDING_NONE;
	if (memcmp(bound.bytes, own.bytes, sizeof(own.bytes)) == 0)
		return BINDING_EXACT;
	return ip_is_any(&bound) ? BINDING_WILDCARD : BINDING_NONE;
}

static enum binding_match connector_binding(
	const struct receive_connector *connector, const struct address *local)
{
	enum binding_match best = BINDING_NONE;

	for (unsigned i = 0; i < connector->binding_count; i++) {
		const enum binding_match match = binding_match(&connector->bindings[i], local);

		if (match > best)
			best = match;
	}
	return best;
}

/* The narrowest range with the peer in it; *out is NULL for a connector that serves everybody. */
static bool connector_range(const struct receive_connector *connector, const struct ip *peer,
	uint32_t zone, const struct ip_range **out)
{
	*out = NULL;
	for (unsigned i = 0; i < connector->remote_ip_range_count; i++) {
		const struct ip_range *range = &connector->remote_ip_ranges[i];

		if (!ip_range_has(range, peer) || (range->zone != 0 && range->zone != zone))
			continue;
		if (*out == NULL || ip_range_is_narrower(range, *out))
			*out = range;
	}
	return *out != NULL || connector->remote_ip_range_count == 0;
}

const struct receive_connector *route_receive(const struct policy *policy,
	const struct address *local, const struct ip *peer, uint32_t zone)
{
	const struct receive_connector *best = NULL;
	enum binding_match best_match = BINDING_NONE;
	const struct ip_range *best_range = NULL;

	for (unsigned i = 0; i < policy->receive_connector_count; i++) {
		const struct receive_connector *connector = &policy->receive_connectors[i];
		const enum binding_match match =
			connector->enabled ? connector_binding(connector, local) : BINDING_NONE;
		const struct ip_range *range = NULL;

		if (match == BINDING_NONE || match < best_match ||
			!connector_range(connector, peer, zone, &range))
			continue;
		/* Of one binding, a range beats everybody, and the narrower range the wider. */
		if (best != NULL && match == best_match &&
			(range == NULL ||
				(best_range != NULL && !ip_range_is_narrower(range, best_range))))
			continue;
		best = connector;
		best_match = match;
		best_range = range;
	}
	return best;
}

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
