/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/net/resolve_list.h"

#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <string.h>

/* Address and port; what else a sockaddr has is no part of the question. */
static bool address_equal(const struct address *a, const struct address *b)
{
	struct ip ip_a;
	struct ip ip_b;

	return ip_of_sockaddr((const struct sockaddr *)&a->sockaddr, &ip_a) &&
	       ip_of_sockaddr((const struct sockaddr *)&b->sockaddr, &ip_b) &&
	       ip_compare(&ip_a, &ip_b) == 0 && address_port(a) == address_port(b);
}

bool own_has(const struct own_addresses *own, const struct address *address)
{
	for (unsigned i = 0; i < own->count; i++) {
		if (address_equal(&own->addresses[i], address))
			return true;
	}
	return false;
}

static void own_add(struct own_addresses *own, const struct address *address)
{
	if (own->count < COUNT_OF(own->addresses) && !own_has(own, address))
		own->addresses[own->count++] = *address;
}

static bool address_is_any(const struct address *address)
{
	static const uint8_t zeros[16];
	struct ip ip;

	return ip_of_sockaddr((const struct sockaddr *)&address->sockaddr, &ip) &&
	       memcmp(ip.bytes, zeros, sizeof(zeros)) == 0;
}

/* A binding to every address of its family: "[::]" does not take IPv4 (IPV6_V6ONLY). */
static void own_add_all(
	struct own_addresses *own, const struct ifaddrs *all, const struct address *binding)
{
	for (const struct ifaddrs *one = all; one != NULL; one = one->ifa_next) {
		struct address one_own;
		struct ip ip;

		if (one->ifa_addr == NULL || !ip_of_sockaddr(one->ifa_addr, &ip) ||
			ip.is_v6 != (binding->sockaddr.ss_family == AF_INET6))
			continue;
		one_own = address_make(
			ip.is_v6 ? AF_INET6 : AF_INET, ip.bytes, address_port(binding));
		own_add(own, &one_own);
	}
}

int own_learn(struct own_addresses *own, const struct policy *policy)
{
	struct ifaddrs *all;

	own->count = 0;
	if (getifaddrs(&all) < 0)
		return -errno;
	for (unsigned i = 0; i < policy->receive_connector_count; i++) {
		const struct receive_connector *connector = &policy->receive_connectors[i];

		for (unsigned j = 0; j < connector->binding_count; j++) {
			if (address_is_any(&connector->bindings[j]))
				own_add_all(own, all, &connector->bindings[j]);
			else
				own_add(own, &connector->bindings[j]);
		}
	}
	freeifaddrs(all);
	return 0;
}

/* Is the address of a better host, or of the same and IPv4, in front? */
static bool list_is_before(const struct resolve_list *list, unsigned a, unsigned b)
{
	if (list->host_of[a] != list->host_of[b])
		return list->host_of[a] < list->host_of[b];
	return list->addresses[a].sockaddr.ss_family == AF_INET &&
	       list->addresses[b].sockaddr.ss_family != AF_INET;
}

/* Answers come in any order, hosts stand in theirs. Stable. */
void resolve_list_sort(struct resolve_list *list)
{
	for (unsigned i = 1; i < list->count; i++) {
		for (unsigned j = i; j > 0 && list_is_before(list, j, j - 1); j--) {
			struct address address = list->addresses[j];
			uint8_t host = list->host_of[j];

			list->addresses[j] = list->addresses[j - 1];
			list->host_of[j] = list->host_of[j - 1];
			list->addresses[j - 1] = address;
			list->host_of[j - 1] = host;
		}
	}
}

unsigned resolve_list_drop_own(struct resolve_list *list, const struct own_addresses *own)
{
	unsigned limit = UINT16_MAX + 1U;
	unsigned kept = 0;
	unsigned dropped;

	for (unsigned i = 0; i < list->count; i++) {
		if (own_has(own, &list->addresses[i]) &&
			list->preferences[list->host_of[i]] < limit)
			limit = list->preferences[list->host_of[i]];
	}
	for (unsigned i = 0; i < list->count; i++) {
		if (list->preferences[list->host_of[i]] >= limit)
			continue;
		list->addresses[kept] = list->addresses[i];
		list->host_of[kept++] = list->host_of[i];
	}
	dropped = list->count - kept;
	list->count = kept;
	return dropped;
}

bool resolve_name(struct span wire, char out[static NAME_BYTES_MAX])
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789-_";
	size_t at = 0;
	size_t to = 0;

	while (at < wire.len && wire.data[at] != 0) {
		size_t label = wire.data[at++];

		if (label > 63 || label > wire.len - at || to + label + 2 > NAME_BYTES_MAX)
			return false;
		if (to > 0)
			out[to++] = '.';
		for (size_t i = 0; i < label; i++) {
			char c = (char)wire.data[at++];

			if (c >= 'A' && c <= 'Z')
				c = (char)(c - 'A' + 'a');
			if (c == '\0' || strchr(allowed, c) == NULL)
				return false;
			out[to++] = c;
		}
	}
	out[to] = '\0';
	return at < wire.len;
}

void resolve_list_add(
	struct resolve_list *list, unsigned preference, const char *name, unsigned random)
{
	unsigned equals = 0;
	unsigned at = 0;
	unsigned last;

	while (at < list->host_count && list->preferences[at] < preference)
		at++;
	while (at + equals < list->host_count && list->preferences[at + equals] == preference)
		equals++;
	at += random % (equals + 1);
	if (at >= RESOLVE_HOSTS_MAX)
		return;
	if (list->host_count < RESOLVE_HOSTS_MAX)
		list->host_count++;
	last = list->host_count - 1;
	for (unsigned i = last; i > at; i--) {
		list->preferences[i] = list->preferences[i - 1];
		memcpy(list->hosts[i], list->hosts[i - 1], NAME_BYTES_MAX);
	}
	list->preferences[at] = (uint16_t)preference;
	(void)snprintf(list->hosts[at], NAME_BYTES_MAX, "%s", name);
}
