/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * resolve_list.h: what a lookup finds, in order: the exchangers of a domain by preference, and
 * their addresses; and which addresses are our own. But for own_learn(), pure.
 */

#include "policy/policy.h"
#include "relay/base/span.h"

/* Of an answer so many MX records are looked at, and so many exchangers are kept. */
#define RESOLVE_RECORDS_MAX 100
#define RESOLVE_HOSTS_MAX 32

/* Addresses of all exchangers together, and of one exchanger in one family. */
#define RESOLVE_ADDRESSES_MAX 64
#define RESOLVE_FAMILY_MAX 8

/* Where to connect, the best first. */
struct resolve_list {
	unsigned count;
	struct address addresses[RESOLVE_ADDRESSES_MAX];
	uint8_t host_of[RESOLVE_ADDRESSES_MAX]; /* index into hosts */
	unsigned host_count;
	uint16_t preferences[RESOLVE_HOSTS_MAX];
	char hosts[RESOLVE_HOSTS_MAX][NAME_BYTES_MAX]; /* lower case, no trailing dot */
	unsigned ttl_s;
};

/* Where we listen ourselves. More than these are not compared with; a machine has fewer. */
struct own_addresses {
	unsigned count;
	struct address addresses[256];
};

/*
 * The bindings of the receive connectors; with a wildcard address, every address that this machine
 * has now. -errno.
 */
NODISCARD int own_learn(struct own_addresses *own, const struct policy *policy);
bool own_has(const struct own_addresses *own, const struct address *address);

/*
 * A name of the wire in lower case; "" for the root. False unless it is what may stand in a
 * host name: it goes to logs, to SNI and into further questions.
 */
NODISCARD bool resolve_name(struct span wire, char out[static NAME_BYTES_MAX]);

/*
 * Puts a host in its place, among equals where random says. What does not fit is the least
 * wanted. Before the first address only.
 */
void resolve_list_add(
	struct resolve_list *list, unsigned preference, const char *name, unsigned random);

/* Addresses of better hosts first, and IPv4 first for each host. */
void resolve_list_sort(struct resolve_list *list);

/*
 * RFC 5321 5.1: with our own address all of its preference, and of higher ones, go. How many
 * went.
 */
unsigned resolve_list_drop_own(struct resolve_list *list, const struct own_addresses *own);
