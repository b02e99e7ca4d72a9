/* SPDX-License-Identifier: Apache-2.0 */

/*
 * check_binding.c: receive connectors among each other (EXCHANGE 2.1), and smart hosts that
 * are ourselves.
 */

#include "policy/check.h"
#include <ifaddrs.h>
#include <string.h>

/*
 * An address to compare. Copied out, as a sockaddr read through pointers of two types is
 * undefined: GCC 12 at -O2 then found no loop where there was one.
 */
struct host {
	sa_family_t family;
	in_port_t port;
	uint8_t bytes[16]; /* IPv4 has 4, and zeros behind them */
};

static struct host host_of(const void *sockaddr)
{
	const uint8_t *from = sockaddr;
	struct host host = {0};

	memcpy(&host.family, from + offsetof(struct sockaddr, sa_family), sizeof(host.family));
	if (host.family == AF_INET) {
		memcpy(&host.port, from + offsetof(struct sockaddr_in, sin_port), 2);
		memcpy(host.bytes, from + offsetof(struct sockaddr_in, sin_addr), 4);
	} else if (host.family == AF_INET6) {
		memcpy(&host.port, from + offsetof(struct sockaddr_in6, sin6_port), 2);
		memcpy(host.bytes, from + offsetof(struct sockaddr_in6, sin6_addr), 16);
	}
	return host;
}

static bool host_is_wildcard(const struct host *host)
{
	static const uint8_t zeros[16];

	return memcmp(host->bytes, zeros, sizeof(zeros)) == 0;
}

/* One of this machine's addresses, of 127.0.0.0/8, or the wildcard, which connects to itself. */
static bool host_is_local(const struct host *host, const struct ifaddrs *interfaces)
{
	if (host_is_wildcard(host) || (host->family == AF_INET && host->bytes[0] == 127))
		return true;
	for (const struct ifaddrs *at = interfaces; at != NULL; at = at->ifa_next) {
		const struct host own =
			at->ifa_addr == NULL ? (struct host){0} : host_of(at->ifa_addr);

		if (own.family == host->family &&
			memcmp(own.bytes, host->bytes, sizeof(own.bytes)) == 0)
			return true;
	}
	return false;
}

/* Whether a connection to host would arrive at the binding. */
static bool host_reaches(
	const struct host *host, const struct host *binding, const struct ifaddrs *interfaces)
{
	if (host->port != binding->port || host->family != binding->family)
		return false;
	if (host_is_wildcard(binding))
		return host_is_local(host, interfaces);
	return memcmp(host->bytes, binding->bytes, sizeof(host->bytes)) == 0;
}

static bool binding_is_equal(const struct config_binding *a, const struct config_binding *b)
{
	const struct host left = host_of(&a->address.sockaddr);
	const struct host right = host_of(&b->address.sockaddr);

	return left.family == right.family && left.port == right.port &&
	       memcmp(left.bytes, right.bytes, sizeof(left.bytes)) == 0;
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

/* The same remote addresses on one binding are a mistake, and so are some of the same. */
static void check_ranges(struct config *config, const struct receive_connector *connector,
	unsigned index, const struct receive_connector *other)
{
	static const char keyword[] = "remote-ip-ranges";
	const struct ip_range *range = &connector->remote_ip_ranges[index];
	const unsigned line =
		check_element_line(config, section_of(config, connector), keyword, index);
	char text[IP_RANGE_TEXT_BYTES], taken[IP_RANGE_TEXT_BYTES];

	for (unsigned i = 0; i < other->remote_ip_range_count; i++) {
		const struct ip_range *against = &other->remote_ip_ranges[i];
		const bool holds = ip_range_holds(range, against);
		const bool is_held = ip_range_holds(against, range);
		const unsigned other_line =
			check_element_line(config, section_of(config, other), keyword, i);

		if (!ip_range_overlaps(range, against) || holds != is_held)
			continue;
		if (holds)
			config_mistake(config, line,
				"remote range %s of receive-connector \"%s\" belongs to "
				"receive-connector \"%s\" already (line %u) on the same binding, "
				"expected another range",
				ip_range_print(range, text), connector->name, other->name,
				other_line);
		else
			config_mistake(config, line,
				"remote range %s of receive-connector \"%s\" overlaps %s of "
				"receive-connector \"%s\" (line %u) in part on the same binding, "
				"expected one inside of the other",
				ip_range_print(range, text), connector->name,
				ip_range_print(against, taken), other->name, other_line);
	}
}

/* Two bindings of one address; b comes later in the file. */
static void check_shared(
	struct config *config, const struct config_binding *a, const struct config_binding *b)
{
	const struct receive_connector *connector = b->connector;
	const bool is_own = a->connector == connector;
	char text[56];

	if (!is_own && (!a->connector->enabled || !connector->enabled))
		return;
	/* Without ranges a connector serves everybody, and any range is inside of that. */
	if (is_own || (check_is_sound(config, section_of(config, connector), "remote-ip-ranges") &&
			      check_is_sound(config, section_of(config, a->connector),
				      "remote-ip-ranges") &&
			      connector->remote_ip_range_count == 0 &&
			      a->connector->remote_ip_range_count == 0)) {
		address_print(&b->address, text, sizeof(text));
		config_mistake(config, b->line,
			"binding \"%s\" of receive-connector \"%s\" belongs to "
			"receive-connector \"%s\" already (line %u), expected each once, or "
			"different remote-ip-ranges",
			text, connector->name, a->connector->name, a->line);
		return;
	}
	for (unsigned i = 0; i < connector->remote_ip_range_count; i++)
		check_ranges(config, connector, i, a->connector);
}

void check_bindings(struct config *config)
{
	for (unsigned b = 0; b < config->binding_count; b++)
		for (unsigned a = 0; a < b; a++)
			if (binding_is_equal(&config->bindings[a], &config->bindings[b]))
				check_shared(config, &config->bindings[a], &config->bindings[b]);
}

/* Mail to a smart host that is ourselves would run in a circle until its hop count ends it. */
static void check_loop(struct config *config, unsigned s, const struct send_connector *connector,
	const struct ifaddrs *interfaces)
{
	for (unsigned i = 0; i < connector->smart_host_count; i++) {
		const struct host host = host_of(&connector->smart_hosts[i].sockaddr);
		const char *name = connector->smart_host_names[i];
		const struct config_value *value = config_next(config, s, "smart-hosts", NULL);

		while (value != NULL && strcmp(value->text, name) != 0)
			value = config_next(config, s, "smart-hosts", value);
		for (unsigned b = 0; b < config->binding_count; b++) {
			const struct config_binding *binding = &config->bindings[b];
			const struct host own = host_of(&binding->address.sockaddr);

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
