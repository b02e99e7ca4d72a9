/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * cidr.h: prefixes, and a trie of them in which the longest wins. It answers as the kernel's
 * BPF_MAP_TYPE_LPM_TRIE does; a property test holds the two against each other.
 *
 * A trie holds both families. It is not locked: whoever shares one between threads sees to it.
 */

#include "bpf/shared.h"
#include "policy/range.h"

/* The first bits of ip; those behind are zero. */
struct prefix {
	struct ip ip;
	uint8_t bits; /* 0 to 32, or to 128 */
};

/* A range of IPv4 needs up to 62 prefixes, one of IPv6 up to 254. */
#define PREFIXES_OF_RANGE_MAX 254

/* "2001:db8:0:0:0:0:0:1/128" and its NUL; INET6_ADDRSTRLEN + 4. */
#define PREFIX_TEXT_BYTES 50

/* The fewest prefixes that make up the range, in order; its zone is left out. Returns how many. */
unsigned prefix_of_range(
	const struct ip_range *range, struct prefix out[static PREFIXES_OF_RANGE_MAX]);

/* The prefix of one address. */
struct prefix prefix_of_ip(const struct ip *ip);

struct ip_range prefix_range(const struct prefix *prefix);
bool prefix_has(const struct prefix *prefix, const struct ip *ip);
/* Is inner within outer, or equal? */
bool prefix_holds(const struct prefix *outer, const struct prefix *inner);

/* By family (IPv4 first), address, length: what holds another stands before it. */
int prefix_compare(const struct prefix *a, const struct prefix *b);

/* "192.0.2.0/24"; an address alone has no "/". Returns out. */
const char *prefix_print(const struct prefix *prefix, char out[static PREFIX_TEXT_BYTES]);

struct cidr;

/* An empty trie; -ENOMEM. */
NODISCARD int cidr_create(struct cidr **out);
/* The same prefixes and values; -ENOMEM. */
NODISCARD int cidr_copy_create(const struct cidr *from, struct cidr **out);
void cidr_destroy(struct cidr **trie); /* clears the pointer; NULL is harmless */

/* Sets the value of a prefix, whether it has one or not. -ENOMEM: nothing has changed. */
NODISCARD int cidr_put(struct cidr *trie, const struct prefix *prefix, struct door_value value);

/* False: it was not there. */
bool cidr_remove(struct cidr *trie, const struct prefix *prefix);

/* The value of that very prefix, or NULL; valid until the next change. */
const struct door_value *cidr_get(const struct cidr *trie, const struct prefix *prefix);

/* Of the prefixes that have ip the longest: its value, and itself (out may be NULL). NULL: none. */
const struct door_value *cidr_lookup(
	const struct cidr *trie, const struct ip *ip, struct prefix *out);

/* The same for the prefixes that hold this one, but are not it. */
const struct door_value *cidr_above(
	const struct cidr *trie, const struct prefix *prefix, struct prefix *out);

size_t cidr_count(const struct cidr *trie);

/* Memory that it takes. */
size_t cidr_bytes(const struct cidr *trie);

/* Goes through all prefixes in the order of prefix_compare(). The trie may not change meanwhile. */
struct cidr_walk {
	const struct cidr *trie;
	/* For cidr.c: what is still to be done of the family; one at each length, and one more. */
	uint32_t stack[130];
	unsigned depth;
	bool is_v6;
};

void cidr_walk_start(struct cidr_walk *walk, const struct cidr *trie);
/* False: that was the last. */
bool cidr_walk_next(struct cidr_walk *walk, struct prefix *prefix, struct door_value *value);
