/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
#pragma once

/*
 * maps.h: the maps of the programs in the kernel, for door.bpf.c only. The loader pins each under
 * its name, and whatever is changed here is another DOOR_VERSION (shared.h).
 */

#include <linux/bpf.h>

#include "bpf/shared.h"
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * DOOR_SLOTS);
	__type(key, struct door_binding);
	__type(value, __u32); /* slot; those of IPv6 begin at DOOR_SLOTS */
} bindings SEC(".maps");

struct trie_v4 {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, DOOR_PREFIXES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(key_size, sizeof(struct door_key_v4));
	__uint(value_size, sizeof(struct door_value));
};

struct trie_v6 {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, DOOR_PREFIXES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(key_size, sizeof(struct door_key_v6));
	__uint(value_size, sizeof(struct door_value));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, DOOR_SLOTS);
	__type(key, __u32);
	__array(values, struct trie_v4);
} tries_v4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, DOOR_SLOTS);
	__type(key, __u32);
	__array(values, struct trie_v6);
} tries_v6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DOOR_CONNECTORS_MAX + 1);
	__type(key, __u32);
	__type(value, struct door_limit);
} limits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, DOOR_SOURCES_MAX);
	__type(key, struct door_source);
	__type(value, struct door_bucket);
} sources SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2 * DOOR_SLOTS);
	__type(key, __u32);
	__type(value, struct door_counts);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DOOR_CONNECTORS_MAX + 1);
	__type(key, __u32);
	__type(value, struct door_counts);
} connectors SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DOOR_PARTNERS_MAX + 1);
	__type(key, __u32);
	__type(value, struct door_counts);
} partners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct door_totals);
} totals SEC(".maps");

/* Names of connectors, then of partners. Only the relay reads it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DOOR_CONNECTORS_MAX + DOOR_PARTNERS_MAX);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, DOOR_NAME_BYTES);
} names SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, DOOR_EVENT_RING_BYTES);
} events SEC(".maps");

/* What is left of this processor's refusals that may be told. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct door_bucket);
} tokens SEC(".maps");

/* Hardware addresses of the interfaces that postern_shield is on, by index; six bytes count. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} shields SEC(".maps");

/* ---- the stack */

/*
 * Without CAP_PERFMON the verifier of Linux 6.1 lets eight bytes of the stack that hold a number be
 * written as a whole only. So keys are put together in words, and an index has one for itself.
 */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define BYTES(first, second) ((__u32)(second) << 8 | (__u32)(first))
#define HALVES(first, second) ((__u32)(second) << 16 | (__u32)(first))
#define PAIR(first, second) ((__u64)(second) << 32 | (__u64)(first))
#else
#define BYTES(first, second) ((__u32)(first) << 8 | (__u32)(second))
#define HALVES(first, second) ((__u32)(first) << 16 | (__u32)(second))
#define PAIR(first, second) ((__u64)(first) << 32 | (__u64)(second))
#endif

struct index {
	__u32 at;
	__u32 unused;
} __attribute__((aligned(8)));

static __always_inline void *find(void *map, __u32 at)
{
	struct index index;

	index.at = at;
	return bpf_map_lookup_elem(map, &index.at);
}

/* ---- a question */

#define QUERY_WORDS 5

struct query {
	union {
		struct {
			struct door_binding local;
			struct door_key_v6 peer; /* of IPv4 the first half: struct door_key_v4 */
		};
		__u64 words[QUERY_WORDS];
	};
};

_Static_assert(sizeof(struct query) == QUERY_WORDS * sizeof(__u64), "no padding in a query");
