/* SPDX-License-Identifier: Apache-2.0 */

/*
 * check_binding.c: receive connectors among each other (EXCHANGE 2.1), and smart hosts that
 * are ourselves.
 */

#include "bpf/shared.h"
#include "policy/check.h"
#include <ifaddrs.h>
#include <string.h>

/* An address and a port, to compare. */
struct host {
	struct ip ip;
	uint16_t port;
};

static struct host host_of(const struct address *address)
{
	struct host host = {.port = address_port(address)};

	(void)ip_of_sockaddr((const struct sockaddr *)&address->sockaddr, &host.ip);
	return host;
}

/* One of this machine's addresses, of 127.0.0.0/8, or the wildcard, which connects to itself. */
static bool ip_is_local(const struct ip *ip, const struct ifaddrs *interfaces)
{
	if (ip_is_any(ip) || (!ip->is_v6 && ip->bytes[0] == 127))
		return true;
	for (const struct ifaddrs *at = interfaces; at != NULL; at = at->ifa_next) {
		struct ip own;

		if (at->ifa_addr != NULL && ip_of_sockaddr(at->ifa_addr, &own) &&
			ip_compare(&own, ip) == 0)
			return true;
	}
	return false;
}

/* Whether a connection to host would arrive at the binding. */
static bool host_reaches(
	const struct host *host, const struct host *binding, const struct ifaddrs *interfaces)
{
	if (host->port != binding->port || host->ip.is_v6 != binding->ip.is_v6)
		return false;
	if (ip_is_any(&binding->ip))
		return ip_is_local(&host->ip, interfaces);
	return ip_compare(&host->ip, &binding->ip) == 0;
}

static bool binding_is_equal(const struct config_binding *a, const struct config_binding *b)
{
	const struct host left = host_of(&a->address), right = host_of(&b->address);

	return left.port == right.port && ip_compare(&left.ip, &right.ip) == 0;
}

/* The section of a connector. */
static unsigned section_of(const struct config *config, const struct receive_connector *connector)
{
	unsigned s = 0;

	while (config->sections[s].kind != SECTION_RECEIVE ||
		config->sections[s].index != connector->index)
		s++;
	return s;
}

/* The ranges of one keyword of a connector. */
struct ranges {
	const struct receive_connector *connector;
	const char *keyword;
	const char *what; /* one of them */
	const struct ip_range *ranges;
	unsigned count;
};

static struct ranges remote_ranges(const struct receive_connector *connector)
{
	return (struct ranges){connector, "remote-ip-ranges", "remote range",
		connector->remote_ip_ranges, connector->remote_ip_range_count};
}

static struct ranges balancer_ranges(const struct receive_connector *connector)
{
	return (struct ranges){connector, "proxy-balancers", "balancer", connector->proxy_balancers,
		connector->proxy_balancer_count};
}

static unsigned ranges_line(const struct config *config, const struct ranges *own, unsigned index)
{
	return check_element_line(config, section_of(config, own->connector), own->keyword, index);
}

static void range_mistake(struct config *config, const struct ranges *own, unsigned i,
	const struct ranges *other, unsigned j)
{
	const struct ip_range *range = &own->ranges[i], *against = &other->ranges[j];
	const unsigned line = ranges_line(config, own, i);
	const unsigned other_line = ranges_line(config, other, j);
	char text[IP_RANGE_TEXT_BYTES], taken[IP_RANGE_TEXT_BYTES];

	if (ip_range_holds(range, against) && ip_range_holds(against, range))
		config_mistake(config, line,
			"%s %s of receive-connector \"%s\" belongs to receive-connector \"%s\" "
			"already (line %u) on the same binding, expected another range",
			own->what, ip_range_print(range, text), own->connector->name,
			other->connector->name, other_line);
	else
		config_mistake(config, line,
			"%s %s of receive-connector \"%s\" overlaps %s of receive-connector \"%s\" "
			"(line %u) in part on the same binding, expected one inside of the other",
			own->what, ip_range_print(range, text), own->connector->name,
			ip_range_print(against, taken), other->connector->name, other_line);
}

/*
 * Ranges of two kinds or connectors on one binding: some of the same are a mistake, and all of the
 * same too unless may_equal.
 */
static void check_ranges(
	struct config *config, const struct ranges *own, const struct ranges *other, bool may_equal)
{
	for (unsigned i = 0; i < own->count; i++)
		for (unsigned j = 0; j < other->count; j++) {
			const struct ip_range *range = &own->ranges[i],
					      *against = &other->ranges[j];
			const bool holds = ip_range_holds(range, against);

			if (ip_range_overlaps(range, against) &&
				holds == ip_range_holds(against, range) && !(holds && may_equal))
				range_mistake(config, own, i, other, j);
		}
}

/* The same partner in two connectors: which of them would serve it? */
static void check_shared_partners(struct config *config, const struct receive_connector *connector,
	const struct receive_connector *other)
{
	static const char keyword[] = "remote-ip-partners";

	for (unsigned i = 0; i < connector->remote_ip_partner_count; i++)
		for (unsigned j = 0; j < other->remote_ip_partner_count; j++) {
			const char *own = connector->remote_ip_partners[i];
			const char *taken = other->remote_ip_partners[j];

			if (strcmp(own, taken) != 0 && strcmp(own, "*") != 0 &&
				strcmp(taken, "*") != 0)
				continue;
			config_mistake(config,
				check_element_line(
					config, section_of(config, connector), keyword, i),
				"remote-ip-partners of receive-connector \"%s\" has \"%s\", and "
				"receive-connector \"%s\" has \"%s\" (line %u) on the same "
				"binding, "
				"expected each partner in one of them",
				connector->name, own, other->name, taken,
				check_element_line(config, section_of(config, other), keyword, j));
		}
}

static bool serves_everybody(const struct config *config, const struct receive_connector *connector)
{
	const unsigned s = section_of(config, connector);

	return connector->remote_ip_range_count == 0 && connector->remote_ip_partner_count == 0 &&
	       check_is_sound(config, s, "remote-ip-ranges") &&
	       check_is_sound(config, s, "remote-ip-partners");
}

/* Two bindings of one address; b comes later in the file. */
static void check_shared(
	struct config *config, const struct config_binding *a, const struct config_binding *b)
{
	const struct receive_connector *connector = b->connector, *other = a->connector;
	const struct ranges own = remote_ranges(connector), others = remote_ranges(other);
	const struct ranges balancers = balancer_ranges(connector);
	const struct ranges other_balancers = balancer_ranges(other);
	char text[56];

	if (other != connector && (!other->enabled || !connector->enabled))
		return;
	/* Who has ranges is inside of who serves everybody. */
	if (other == connector ||
		(serves_everybody(config, connector) && serves_everybody(config, other))) {
		address_print(&b->address, text, sizeof(text));
		config_mistake(config, b->line,
			"binding \"%s\" of receive-connector \"%s\" belongs to "
			"receive-connector \"%s\" already (line %u), expected each once, or "
			"different remote-ip-ranges",
			text, connector->name, other->name, a->line);
		return;
	}
	check_ranges(config, &own, &others, false);
	check_ranges(config, &balancers, &other_balancers, false);
	/* A balancer may be one that is served otherwise: it goes first. */
	check_ranges(config, &balancers, &others, true);
	check_ranges(config, &own, &other_balancers, true);
	check_shared_partners(config, connector, other);
}

/* The program in the kernel has so many places for bindings of a family. */
static void check_slots(struct config *config)
{
	const struct policy *policy = &config->owner->policy;
	unsigned counts[2] = {0};

	if (policy->bpf == BPF_OFF)
		return;
	for (unsigned b = 0; b < config->binding_count; b++) {
		const struct config_binding *binding = &config->bindings[b];
		const bool is_v6 = host_of(&binding->address).ip.is_v6;
		bool is_first = binding->connector->enabled;

		for (unsigned a = 0; is_first && a < b; a++)
			is_first = !config->bindings[a].connector->enabled ||
				   !binding_is_equal(&config->bindings[a], binding);
		counts[is_v6] += is_first;
		if (is_first && counts[is_v6] == DOOR_SLOTS + 1)
			config_mistake(config, binding->line,
				"more than %u bindings of %s, which the kernel's program has no "
				"places for, expected fewer, or bpf = off in transport",
				DOOR_SLOTS, is_v6 ? "IPv6" : "IPv4");
	}
}

void check_bindings(struct config *config)
{
	for (unsigned b = 0; b < config->binding_count; b++) {
		const struct receive_connector *connector = config->bindings[b].connector;
		const struct ranges own = remote_ranges(connector);
		const struct ranges balancers = balancer_ranges(connector);

		check_ranges(config, &balancers, &own, true);
		for (unsigned a = 0; a < b; a++)
			if (binding_is_equal(&config->bindings[a], &config->bindings[b]))
				check_shared(config, &config->bindings[a], &config->bindings[b]);
	}
	check_slots(config);
}

/* Mail to a smart host that is ourselves would run in a circle until its hop count ends it. */
static void check_loop(struct config *config, unsigned s, const struct send_connector *connector,
	const struct ifaddrs *interfaces)
{
	for (unsigned i = 0; i < connector->smart_host_count; i++) {
		const struct host host = host_of(&connector->smart_hosts[i]);
		const char *name = connector->smart_host_names[i];
		const struct config_value *value = config_next(config, s, "smart-hosts", NULL);

		while (value != NULL && strcmp(value->text, name) != 0)
			value = config_next(config, s, "smart-hosts", value);
		for (unsigned b = 0; b < config->binding_count; b++) {
			const struct config_binding *binding = &config->bindings[b];
			const struct host own = host_of(&binding->address);

			if (!binding->connector->enabled || !host_reaches(&host, &own, interfaces))
				continue;
			config_mistake(config, value == NULL ? connector->line : value->line,
				"smart host \"%s\" is our own receive-connector \"%s\" (line %u), "
				"a loop, expected another machine or port",
				name, binding->connector->name, binding->line);
		}
	}
}

void check_loops(struct config *config)
{
	const struct send_connector *connectors = config->owner->policy.send_connectors;
	struct ifaddrs *interfaces = NULL;

	if (getifaddrs(&interfaces) < 0)
		interfaces = NULL;
	for (unsigned s = 0; s < config->section_count; s++) {
		const struct send_connector *connector = NULL;

		if (config->sections[s].kind != SECTION_SEND)
			continue;
		connector = &connectors[config->sections[s].index];
		if (connector->enabled)
			check_loop(config, s, connector, interfaces);
	}
	if (interfaces != NULL)
		freeifaddrs(interfaces);
}
