/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
#pragma once

/*
 * shared.h: what the programs in the kernel and the relay have in common: keys, values, limits.
 *
 * Any change of a size, a meaning or a number below is another DOOR_VERSION. Pins lie in a folder
 * named after it, so that a new relay never takes up maps that it would misread.
 *
 * Addresses are in network order, everything else in the machine's.
 */

#include <linux/types.h>

#define DOOR_VERSION 1

/* Bindings of one family. Each has a slot with two tries: one in force, one to be filled. */
#define DOOR_SLOTS 64

/* Identifiers go from 1; 0 is none. */
#define DOOR_CONNECTORS_MAX 256
#define DOOR_PARTNERS_MAX 4096

/* A name with its NUL. */
#define DOOR_NAME_BYTES 128

/* Prefixes of one trie. */
#define DOOR_PREFIXES_MAX 2097152

/* Sources whose rate of connections is known at a time; who was seen longest ago makes room. */
#define DOOR_SOURCES_MAX 65536

/* Refusals that are told one by one, for each processor: so many a second, and a burst. */
#define DOOR_EVENTS_PER_SECOND 100
#define DOOR_EVENTS_BURST 200
#define DOOR_EVENT_RING_BYTES 262144

#define DOOR_AF_INET 2
#define DOOR_AF_INET6 10

/* An address and port that we listen on; zeros are the wildcard address. IPv4 has four bytes. */
struct door_binding {
	__u8 address[16];
	__u16 port;
	__u16 family; /* DOOR_AF_INET, DOOR_AF_INET6: a binding takes connections of one family */
};

/* Keys of the tries (BPF_MAP_TYPE_LPM_TRIE). Bits behind the prefix are zero. */
struct door_key_v4 {
	__u32 bits;
	__u8 address[4];
};

struct door_key_v6 {
	__u32 bits;
	__u8 address[16];
};

/* door_value.flags. */
#define DOOR_EXCLUDED 1 /* of a partner's list, "!": refused */
#define DOOR_BALANCER 2 /* the peer announces who connects (PROXY protocol): the relay decides */
#define DOOR_ZONED 4    /* a rule of one IPv6 zone lies below: the relay decides */

/* What a prefix leads to. */
struct door_value {
	__u16 connector;
	__u16 flags;
	__u32 partner; /* whose list it is in; 0: none */
};

/* A connector's connection-rate-limit: one connection each interval, and so many at once. */
struct door_limit {
	__u64 interval_ns; /* 0: no limit */
	__u64 burst;
};

/* Who is counted for it: an IPv4 address, or the first 64 bits of an IPv6 address. */
struct door_source {
	__u32 connector;
	__u32 family;
	__u8 address[8];
};

/* When the next connection would be due if all had come at the interval. */
struct door_bucket {
	__u64 due_ns;
};

enum door_reason {
	DOOR_REASON_STRANGER, /* no prefix has the peer */
	DOOR_REASON_EXCLUDED, /* one has, and says no */
	DOOR_REASON_RATE,     /* connection-rate-limit */
	DOOR_REASON_MAPPED,   /* an IPv4 address in an IPv6 packet */
	DOOR_REASON_COUNT,
};

/* By slot (those of IPv6 behind those of IPv4), by connector, by partner. Look-ups, not
 * connections: a SYN that is sent again is looked up again. */
struct door_counts {
	__u64 passed;
	__u64 refused[DOOR_REASON_COUNT];
};

/* Of the whole program. */
struct door_totals {
	__u64 lookups;      /* the program ran */
	__u64 others;       /* of these: not one of our bindings, passed at once */
	__u64 events_held;  /* refusals not told one by one: too many */
	__u64 events_lost;  /* nor these: the ring was full */
	__u64 shield_drops; /* SYN packets that the XDP program dropped */
};

/* One refusal. */
struct door_event {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	struct door_binding local;
	__u8 peer[16];
	__u16 peer_port;
	__u16 reason;
	struct door_value value; /* zeros for a stranger */
};

/*
 * One more at now: is it within the limit? Both sides count by this. Two at the very same moment
 * may be taken for one.
 */
static inline int door_bucket_take(
	struct door_bucket *bucket, const struct door_limit *limit, __u64 now)
{
	const __u64 due = bucket->due_ns > now ? bucket->due_ns : now;

	if (limit->interval_ns == 0)
		return 1;
	if (due - now > (limit->burst - 1) * limit->interval_ns)
		return 0;
	bucket->due_ns = due + limit->interval_ns;
	return 1;
}
