/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/router.h"

#include "relay/base/log.h"
#include "relay/base/stats.h"
#include <errno.h>

/* A power of two. */
#define BUCKETS 4096

/* Hosts of one destination with which a TLS session is kept for resumption. */
#define SESSIONS_KEPT 8

/* A destination by domain, with the memory that its parts point to. */
struct destination {
	struct nexthop nexthop;
	struct router *router;
	struct resolve resolve;
	uint64_t down_until_ms[RESOLVE_ADDRESSES_MAX];
	struct host_session sessions[SESSIONS_KEPT];
	struct link in_bucket;
	struct link in_unused;
};

struct router {
	const struct policy *policy;
	const struct trust_set *trusts;
	struct conn_net *net;
	struct resolver *resolver; /* NULL: no connector asks DNS */
	struct outlet *outlets;    /* by send connector */
	struct nexthop *fixed;     /* by send connector */
	struct pool destinations;  /* of struct destination */
	struct link unused;        /* of these, the longest unused first */
	struct link buckets[BUCKETS];
	unsigned next_id;
	bool is_draining;
};

/* What is made once. */

static const struct trust *router_trust(
	const struct router *router, const struct send_requirement *requirement, unsigned connector)
{
	if (router->trusts == NULL)
		return NULL;
	if (requirement->partner != NULL)
		return router->trusts->partners[requirement->partner->index];
	return router->trusts->send[connector];
}

/* Does what a session must be depend on the recipient's domain, whoever that is? */
static bool router_is_by_domain(const struct send_connector *connector)
{
	return connector->smart_host_count == 0 ||
	       (connector->tls_auth_level == TLS_AUTH_DOMAIN_VALIDATION &&
		       connector->tls_domain == NULL);
}

static int router_create_fixed(struct router *router, const struct send_connector *connector)
{
	const struct route route = {.status = ROUTE_OK, .connector = connector};
	const unsigned count = connector->smart_host_count;
	struct nexthop *nexthop = &router->fixed[connector->index];

	nexthop->outlet = &router->outlets[connector->index];
	send_requirement_of(connector, &route, nexthop->domain, &nexthop->requirement);
	nexthop->trust = router_trust(router, &nexthop->requirement, connector->index);
	nexthop->hosts = (struct hosts){.connector = connector,
		.max = count,
		.down_until_ms = calloc(count + 1, sizeof(uint64_t)),
		.session_count = count,
		.sessions = calloc(count + 1, sizeof(struct host_session))};
	nexthop_init(nexthop);
	return nexthop->hosts.down_until_ms == NULL || nexthop->hosts.sessions == NULL ? -ENOMEM
										       : 0;
}

static int router_create_outlet(struct router *router, const struct router_options *options,
	const struct send_connector *connector, FILE *errors)
{
	struct outlet *outlet = &router->outlets[connector->index];
	char error[512] = "no memory";
	int rc;

	outlet->net = options->net;
	outlet->worker_id = options->worker_id;
	outlet->made_s = (unsigned)time(NULL);
	outlet->generation = router->trusts == NULL ? 0 : (unsigned)router->trusts->generation;
	outlet->next_id = &router->next_id;
	outlet->keeps_protolog = connector->protocol_logging == PROTOCOL_LOGGING_VERBOSE &&
				 options->policy->protocol_log_folder != NULL;
	rc = outlet_create(outlet, connector,
		router->trusts == NULL ? NULL : router->trusts->send[connector->index], error,
		sizeof(error));
	if (rc < 0)
		(void)fprintf(errors, "%s:%u: send-connector \"%s\": %s\n", options->policy->file,
			connector->line, connector->name, error);
	return rc == 0 ? router_create_fixed(router, connector) : rc;
}

int router_create(const struct router_options *options, FILE *errors, struct router **out)
{
	const struct policy *policy = options->policy;
	struct router *router = calloc(1, sizeof(*router));
	int rc = 0;

	if (router == NULL)
		return -ENOMEM;
	router->policy = policy;
	router->trusts = options->trusts;
	router->net = options->net;
	link_init(&router->unused);
	for (unsigned i = 0; i < BUCKETS; i++)
		link_init(&router->buckets[i]);
	router->outlets = calloc(policy->send_connector_count + 1, sizeof(*router->outlets));
	router->fixed = calloc(policy->send_connector_count + 1, sizeof(*router->fixed));
	rc = router->outlets == NULL || router->fixed == NULL
		     ? -ENOMEM
		     : pool_create(&router->destinations, ROUTER_DESTINATIONS_MAX,
			       sizeof(struct destination), 64);
	for (unsigned i = 0; rc == 0 && i < policy->send_connector_count; i++)
		rc = router_create_outlet(router, options, &policy->send_connectors[i], errors);
	if (rc < 0) {
		router_destroy(&router);
		return rc;
	}
	*out = router;
	return 0;
}

int router_open(struct router *router)
{
	const struct policy *policy = router->policy;
	char error[256] = "no memory";
	bool needs_dns = false;
	int rc;

	for (unsigned i = 0; i < policy->send_connector_count; i++)
		needs_dns = needs_dns || (policy->send_connectors[i].enabled &&
						 policy->send_connectors[i].smart_host_count == 0);
	if (!needs_dns)
		return 0;
	rc = resolver_create(router->net->loop, policy, &router->resolver, error, sizeof(error));
	if (rc < 0) {
		char text[300];

		log_event(LOG_LEVEL_ERROR, NULL, "stop", "why=%s",
			log_quote_text(error, text, sizeof(text)));
	}
	return rc;
}

static void router_say(char *reply, const char *front, const char *domain, const char *back)
{
	(void)snprintf(reply, ROUTER_REPLY_BYTES, "%s%.255s%s", front, domain, back);
}

/* Destinations. */

static struct destination *destination_of(struct nexthop *nexthop)
{
	return OWNER_OF(nexthop, struct destination, nexthop);
}

static void destination_resolved(struct resolve *resolve, enum resolve_status status)
{
	nexthop_resolved(&OWNER_OF(resolve, struct destination, resolve)->nexthop, status);
}

static void destination_unused(struct nexthop *nexthop)
{
	struct destination *destination = destination_of(nexthop);

	if (!link_is_queued(&destination->in_unused))
		list_append(&destination->router->unused, &destination->in_unused);
}

static void destination_end(struct destination *destination)
{
	link_remove(&destination->in_bucket);
	link_remove(&destination->in_unused);
	nexthop_fini(&destination->nexthop);
}

static struct link *router_bucket(
	struct router *router, const struct send_connector *connector, const char *domain)
{
	const uint64_t hash = text_hash(domain) ^ connector->index;

	return &router->buckets[(hash ^ hash >> 32) % BUCKETS];
}

/* Memory for one more: fresh, or that of the one longest unused. */
static struct destination *router_take(struct router *router)
{
	struct destination *destination = pool_take(&router->destinations);
	struct link *link;

	if (destination != NULL)
		return destination;
	link = list_take(&router->unused);
	if (link == NULL)
		return NULL;
	destination = OWNER_OF(link, struct destination, in_unused);
	destination_end(destination);
	return destination;
}

/* Nothing is free: idle sessions keep destinations that nobody needs now. */
static void router_make_room(struct router *router)
{
	for (unsigned i = 0; i < router->policy->send_connector_count; i++)
		outlet_end_idle(&router->outlets[i], "needed-elsewhere");
}

static struct destination *router_begin(
	struct router *router, const struct route *route, const char *domain)
{
	const struct send_connector *connector = route->connector;
	struct destination *destination = router_take(router);
	struct nexthop *nexthop;

	if (destination == NULL) {
		router_make_room(router);
		return NULL;
	}
	destination->router = router;
	memset(destination->down_until_ms, 0, sizeof(destination->down_until_ms));
	memset(destination->sessions, 0, sizeof(destination->sessions));
	link_init(&destination->in_unused);
	link_init(&destination->in_bucket);
	list_append(router_bucket(router, connector, domain), &destination->in_bucket);
	if (connector->smart_host_count == 0)
		resolve_init(&destination->resolve, router->resolver, destination_resolved);
	nexthop = &destination->nexthop;
	*nexthop = (struct nexthop){.outlet = &router->outlets[connector->index],
		.on_unused = destination_unused,
		.hosts = {.connector = connector,
			.resolve = connector->smart_host_count == 0 ? &destination->resolve : NULL,
			.max = COUNT_OF(destination->down_until_ms),
			.down_until_ms = destination->down_until_ms,
			.session_count = COUNT_OF(destination->sessions),
			.sessions = destination->sessions}};
	(void)snprintf(nexthop->domain, sizeof(nexthop->domain), "%s", domain);
	send_requirement_of(connector, route, nexthop->domain, &nexthop->requirement);
	nexthop->trust = router_trust(router, &nexthop->requirement, connector->index);
	nexthop_init(nexthop);
	return destination;
}

/* After a reload there may be no resolver, for want of descriptors: then it is tried again. */
static bool router_can_look_up(struct router *router)
{
	if (router->resolver == NULL && (router->is_draining || router_open(router) < 0))
		return false;
	return router->resolver != NULL;
}

static struct nexthop *router_find(struct router *router, const struct router_way *way, char *reply)
{
	const struct route *route = &way->route;
	const char *domain = way->domain;
	struct link *bucket = router_bucket(router, route->connector, domain);
	struct destination *destination = NULL;
	struct link *link;
	struct link *after;

	if (!way->is_by_domain)
		return &router->fixed[route->connector->index];
	if (route->connector->smart_host_count == 0 && !router_can_look_up(router)) {
		router_say(
			reply, "451 4.4.3 The mail servers of ", domain, " could not be looked up");
		return NULL;
	}
	LIST_FOR_EACH (link, after, bucket) {
		struct destination *one = OWNER_OF(link, struct destination, in_bucket);

		if (one->nexthop.hosts.connector == route->connector &&
			strcmp(one->nexthop.domain, domain) == 0)
			destination = one;
	}
	if (destination == NULL)
		destination = router_begin(router, route, domain);
	if (destination == NULL) {
		router_say(
			reply, "451 4.3.2 Too many destinations at once, try again later", "", "");
		return NULL;
	}
	link_remove(&destination->in_unused);
	return &destination->nexthop;
}

/* Routes. */

/* A partner's domain on a connector that proves nobody. */
static void router_refuse_unsecured(
	const struct router_ask *ask, const struct route *route, const char *domain, char *reply)
{
	if (ask->is_final) {
		STAT(secure_send_refused);
		log_event(LOG_LEVEL_WARNING, ask->session, "refused",
			"why=send-connector-not-domain-secure connector=%s partner=%s domain=%s",
			route->connector->name, route->partner->name, domain);
	}
	router_say(reply, "451 4.7.3 Mail to ", domain, " needs a domain-secured connector");
}

/* "postmaster" without a domain is ours (RFC 5321 4.5.1). */
static int router_domain(
	const struct router *router, struct span path, char out[static DOMAIN_BYTES_MAX])
{
	const struct policy *policy = router->policy;
	struct span domain = path_domain(path);

	if (domain.len > 0)
		return domain_normalize(domain, out);
	for (unsigned i = 0; i < policy->accepted_domain_count; i++) {
		if (policy->accepted_domains[i][0] != '*')
			return domain_normalize(span_of(policy->accepted_domains[i]), out);
	}
	return domain_normalize(span_of(policy->fqdn), out);
}

/* What is behind the policy's answer, and whether that is allowed. */
static void router_judge(const struct router_ask *ask, struct router_way *way, char *reply)
{
	const struct route *route = &way->route;

	switch (route->status) {
	case ROUTE_OK:
		break;
	case ROUTE_TOO_LARGE:
		way->verdict = ROUTER_TOO_LARGE;
		router_say(
			reply, "552 5.3.4 Message size exceeds fixed maximum message size", "", "");
		return;
	case ROUTE_UNREACHABLE:
		way->verdict = ROUTER_UNREACHABLE;
		router_say(reply, "451 4.4.4 Unable to route: no send connector for ", way->domain,
			"");
		return;
	}
	way->is_by_domain = route->is_secured || router_is_by_domain(route->connector);
	if (route->partner == NULL || route->is_secured ||
		route->connector->allow_unsecured_partners)
		return;
	way->verdict = ROUTER_UNSECURED;
	router_refuse_unsecured(ask, route, way->domain, reply);
}

bool router_way(struct router *router, const struct router_ask *ask, struct router_way *out,
	char reply[static ROUTER_REPLY_BYTES])
{
	out->verdict = ROUTER_GOES;
	out->is_by_domain = false;
	if (router_domain(router, ask->path, out->domain) < 0) {
		out->verdict = ROUTER_BAD_DOMAIN;
		out->domain[0] = '\0';
		router_say(reply, "550 5.1.2 The recipient's domain cannot be routed", "", "");
		return false;
	}
	if (ask->connector != NULL)
		route_fixed(router->policy, ask->connector, out->domain, ask->bytes, &out->route);
	else
		route_send(router->policy, out->domain, ask->bytes, &out->route);
	router_judge(ask, out, reply);
	return out->verdict == ROUTER_GOES;
}

bool router_way_of(const struct router *router, const struct send_connector *connector,
	const char *domain, bool is_secured, struct router_way *out)
{
	const bool by_domain = router_is_by_domain(connector);

	*out = (struct router_way){.is_by_domain = by_domain || is_secured};
	if (!connector->enabled || out->is_by_domain != (domain[0] != '\0'))
		return false;
	(void)snprintf(out->domain, sizeof(out->domain), "%s", domain);
	if (domain[0] == '\0') {
		out->route = (struct route){.status = ROUTE_OK, .connector = connector};
		return true;
	}
	route_fixed(router->policy, connector, domain, 0, &out->route);
	return out->route.status == ROUTE_OK && out->route.is_secured == is_secured &&
	       (out->route.partner == NULL || is_secured || connector->allow_unsecured_partners);
}

bool router_check(
	struct router *router, const struct router_ask *ask, char reply[static ROUTER_REPLY_BYTES])
{
	struct router_way way;

	/* An address literal is nobody's listed domain. */
	if (span_starts_nocase(path_domain(ask->path), span_of("[")))
		return true;
	return router_way(router, ask, &way, reply);
}

struct nexthop *router_enter(
	struct router *router, const struct router_way *way, char reply[static ROUTER_REPLY_BYTES])
{
	struct nexthop *nexthop = router_find(router, way, reply);

	if (nexthop != NULL)
		nexthop_hold(nexthop);
	return nexthop;
}

struct nexthop *router_route(
	struct router *router, const struct router_ask *ask, char reply[static ROUTER_REPLY_BYTES])
{
	struct router_way way;

	if (!router_way(router, ask, &way, reply))
		return NULL;
	return router_enter(router, &way, reply);
}

struct nexthop *router_fixed(
	struct router *router, const struct send_connector *connector, bool *out_checks)
{
	bool has_partners = false;

	for (unsigned i = 0; i < router->policy->partner_count; i++)
		has_partners = has_partners || router->policy->partners[i].send_secure;
	*out_checks = has_partners && !connector->allow_unsecured_partners;
	if (router_is_by_domain(connector) || (has_partners && connector->domain_secure))
		return NULL;
	return &router->fixed[connector->index];
}

struct conn_net *router_net(const struct router *router)
{
	return router->net;
}

/* The end. */

void router_drain(struct router *router)
{
	router->is_draining = true;
	for (unsigned i = 0; i < router->policy->send_connector_count; i++)
		outlet_drain(&router->outlets[i]);
}

void router_abort(struct router *router)
{
	router->is_draining = true;
	for (unsigned i = 0; i < router->policy->send_connector_count; i++)
		outlet_abort(&router->outlets[i]);
}

void router_refresh_tls(struct router *router)
{
	uint64_t generation = router->trusts == NULL ? 0 : router->trusts->generation;

	for (unsigned i = 0; i < router->policy->send_connector_count; i++)
		tls_context_refresh(&router->outlets[i].tls_context, generation);
}

void router_proof_changed(struct router *router)
{
	for (unsigned i = 0; i < router->policy->send_connector_count; i++)
		outlet_proof_changed(&router->outlets[i]);
}

bool router_is_closed(struct router *router)
{
	for (unsigned i = 0; i < router->policy->send_connector_count; i++) {
		if (!outlet_is_closed(&router->outlets[i]))
			return false;
	}
	if (router->resolver == NULL)
		return true;
	if (router->is_draining && resolver_is_idle(router->resolver))
		resolver_close(router->resolver);
	return resolver_is_closed(router->resolver);
}

void router_destroy(struct router **out)
{
	struct router *router = *out;
	struct link *link;

	if (router == NULL)
		return;
	*out = NULL;
	while ((link = list_take(&router->unused)) != NULL) {
		struct destination *destination = OWNER_OF(link, struct destination, in_unused);

		destination_end(destination);
		pool_put(&router->destinations, destination);
	}
	for (unsigned i = 0;
		router->outlets != NULL && router->fixed != NULL &&
		i < router->policy->send_connector_count && router->fixed[i].outlet != NULL;
		i++) {
		nexthop_fini(&router->fixed[i]);
		free(router->fixed[i].hosts.down_until_ms);
		free(router->fixed[i].hosts.sessions);
	}
	for (unsigned i = 0; router->outlets != NULL && i < router->policy->send_connector_count;
		i++)
		outlet_destroy(&router->outlets[i]);
	resolver_destroy(&router->resolver);
	pool_destroy(&router->destinations);
	free(router->outlets);
	free(router->fixed);
	free(router);
}
