/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */

/*
 * door.bpf.c: the programs in the kernel. They know what shared.h says and nothing else; README.md
 * tells why they sit where they sit.
 *
 *   postern_door     sk_lookup: who may reach a listener of ours. It never selects a socket.
 *   postern_shield   XDP, optional: SYN packets that postern_door would refuse, dropped earlier.
 *
 * No CO-RE, no kernel types: they load on kernels that have no BTF.
 */

#include <linux/bpf.h>

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <stdbool.h>

#include "bpf/shared.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* ---- maps; the loader pins each under its name */

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

/* ---- counting */

/* Processors do not share a value, but a program may be interrupted by itself. */
static __always_inline void add_one(__u64 *counter)
{
	__sync_fetch_and_add(counter, 1);
}

static __always_inline struct door_totals *totals_here(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&totals, &zero);
}

static __always_inline void count_passed(void *map, __u32 at)
{
	struct door_counts *counts = bpf_map_lookup_elem(map, &at);

	if (counts)
		add_one(&counts->passed);
}

static __always_inline void count_refused(void *map, __u32 at, enum door_reason reason)
{
	struct door_counts *counts = bpf_map_lookup_elem(map, &at);

	if (counts)
		add_one(&counts->refused[reason]);
}

/* ---- what the tries say */

struct query {
	struct door_binding local;
	struct door_key_v6 peer; /* of IPv4 the first half: struct door_key_v4 */
};

enum verdict {
	VERDICT_OTHER,   /* not one of our bindings */
	VERDICT_NO_TRIE, /* ours, but nothing is known of it */
	VERDICT_MAPPED,
	VERDICT_STRANGER,
	VERDICT_EXCLUDED,
	VERDICT_LET_IN,
};

struct answer {
	struct door_value value;
	__u32 slot;
};

/* False: the slot has no trie. No match: *out is NULL. */
static __always_inline bool trie_look(
	__u32 slot, const struct query *query, const bool is_v6, const struct door_value **out)
{
	void *trie;

	if (is_v6) {
		slot -= DOOR_SLOTS;
		trie = bpf_map_lookup_elem(&tries_v6, &slot);
	} else {
		trie = bpf_map_lookup_elem(&tries_v4, &slot);
	}
	if (!trie)
		return false;
	*out = bpf_map_lookup_elem(trie, &query->peer);
	return true;
}

static __always_inline bool peer_is_mapped(const struct query *query)
{
	const __u32 *words = (const __u32 *)query->peer.address;

	return words[0] == 0 && words[1] == 0 && words[2] == bpf_htonl(0xffff);
}

/* The exact address first, then the wildcard address of the port. */
static __always_inline enum verdict look(
	const struct query *query, const bool is_v6, struct answer *out)
{
	struct door_binding any = {.port = query->local.port, .family = query->local.family};
	const __u32 *slot = bpf_map_lookup_elem(&bindings, &query->local);
	const struct door_value *value = 0;
	bool was_exact = true;

	if (!slot) {
		was_exact = false;
		slot = bpf_map_lookup_elem(&bindings, &any);
		if (!slot)
			return VERDICT_OTHER;
	}
	out->slot = *slot;
	if (is_v6 && peer_is_mapped(query))
		return VERDICT_MAPPED;
	if (!trie_look(*slot, query, is_v6, &value))
		return VERDICT_NO_TRIE;
	if (!value && was_exact) {
		slot = bpf_map_lookup_elem(&bindings, &any);
		if (slot && !trie_look(*slot, query, is_v6, &value))
			return VERDICT_NO_TRIE;
		if (slot && value)
			out->slot = *slot;
	}
	if (!value)
		return VERDICT_STRANGER;
	out->value = *value;
	return out->value.flags & DOOR_EXCLUDED ? VERDICT_EXCLUDED : VERDICT_LET_IN;
}

/* ---- the door */

/* connection-rate-limit. Who has a place among the sources keeps it until others need it more. */
static __always_inline bool is_within_rate(
	const struct query *query, const bool is_v6, __u32 connector)
{
	const struct door_limit *limit = bpf_map_lookup_elem(&limits, &connector);
	struct door_source source = {.connector = connector, .family = query->local.family};
	struct door_bucket fresh = {0};
	struct door_bucket *bucket;
	__u64 now;

	if (!limit || limit->interval_ns == 0)
		return true;
	__builtin_memcpy(source.address, query->peer.address, is_v6 ? 8 : 4);
	now = bpf_ktime_get_ns();
	bucket = bpf_map_lookup_elem(&sources, &source);
	if (bucket)
		return door_bucket_take(bucket, limit, now);
	door_bucket_take(&fresh, limit, now);
	bpf_map_update_elem(&sources, &source, &fresh, BPF_ANY);
	return true;
}

/* Tells the relay, unless this processor has told enough. It never changes the verdict. */
static __always_inline void tell(const struct query *query, __u16 peer_port,
	enum door_reason reason, const struct door_value *value)
{
	const struct door_limit limit = {
		.interval_ns = 1000000000ull / DOOR_EVENTS_PER_SECOND, .burst = DOOR_EVENTS_BURST};
	struct door_totals *total = totals_here();
	const __u64 now = bpf_ktime_get_ns();
	struct door_bucket *bucket;
	struct door_event *event;
	__u32 zero = 0;

	bucket = bpf_map_lookup_elem(&tokens, &zero);
	if (!bucket || !total)
		return;
	if (!door_bucket_take(bucket, &limit, now)) {
		add_one(&total->events_held);
		return;
	}
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		add_one(&total->events_lost);
		return;
	}
	event->time_ns = now;
	event->local = query->local;
	__builtin_memcpy(event->peer, query->peer.address, sizeof(event->peer));
	event->peer_port = peer_port;
	event->reason = reason;
	event->value = *value;
	bpf_ringbuf_submit(event, 0);
}

static __always_inline int refuse(const struct query *query, __u16 peer_port,
	enum door_reason reason, const struct answer *answer)
{
	count_refused(&slots, answer->slot, reason);
	if (answer->value.connector != 0)
		count_refused(&connectors, answer->value.connector, reason);
	if (answer->value.partner != 0)
		count_refused(&partners, answer->value.partner, reason);
	tell(query, peer_port, reason, &answer->value);
	return SK_DROP;
}

static __always_inline int pass(const struct answer *answer)
{
	count_passed(&slots, answer->slot);
	if (answer->value.connector != 0)
		count_passed(&connectors, answer->value.connector);
	if (answer->value.partner != 0)
		count_passed(&partners, answer->value.partner);
	return SK_PASS;
}

static __always_inline int decide(const struct query *query, __u16 peer_port, const bool is_v6)
{
	struct answer answer = {0};
	struct door_totals *total;

	switch (look(query, is_v6, &answer)) {
	case VERDICT_OTHER:
		total = totals_here();
		if (total)
			add_one(&total->others);
		return SK_PASS;
	case VERDICT_NO_TRIE:
	case VERDICT_STRANGER:
		return refuse(query, peer_port, DOOR_REASON_STRANGER, &answer);
	case VERDICT_MAPPED:
		return refuse(query, peer_port, DOOR_REASON_MAPPED, &answer);
	case VERDICT_EXCLUDED:
		return refuse(query, peer_port, DOOR_REASON_EXCLUDED, &answer);
	case VERDICT_LET_IN:
		break;
	}
	/* A balancer connects for many, whom the relay counts one by one. */
	if (!(answer.value.flags & DOOR_BALANCER) &&
		!is_within_rate(query, is_v6, answer.value.connector))
		return refuse(query, peer_port, DOOR_REASON_RATE, &answer);
	return pass(&answer);
}

SEC("sk_lookup")
int postern_door(struct bpf_sk_lookup *ctx)
{
	struct query query = {0};
	struct door_totals *total = totals_here();
	const __u16 peer_port = bpf_ntohs(ctx->remote_port);
	__u32 *words;

	if (total)
		add_one(&total->lookups);
	query.local.port = ctx->local_port;
	query.local.family = ctx->family;
	if (ctx->protocol != IPPROTO_TCP) {
		if (total)
			add_one(&total->others);
		return SK_PASS;
	}
	if (ctx->family == DOOR_AF_INET) {
		words = (__u32 *)query.local.address;
		words[0] = ctx->local_ip4;
		words = (__u32 *)query.peer.address;
		words[0] = ctx->remote_ip4;
		query.peer.bits = 32;
		return decide(&query, peer_port, false);
	}
	words = (__u32 *)query.local.address;
	words[0] = ctx->local_ip6[0];
	words[1] = ctx->local_ip6[1];
	words[2] = ctx->local_ip6[2];
	words[3] = ctx->local_ip6[3];
	words = (__u32 *)query.peer.address;
	words[0] = ctx->remote_ip6[0];
	words[1] = ctx->remote_ip6[1];
	words[2] = ctx->remote_ip6[2];
	words[3] = ctx->remote_ip6[3];
	query.peer.bits = 128;
	return decide(&query, peer_port, true);
}

/* ---- the shield */

#define VLAN_TAGS_MAX 2
#define EXTENSION_HEADERS_MAX 4

struct vlan_tag {
	__be16 tci;
	__be16 next;
};

/*
 * How far a packet has been read. Headers are copied out (Linux 5.18): to go through a packet by
 * pointer, over headers of any length, takes CAP_PERFMON.
 */
struct cursor {
	struct xdp_md *packet;
	__u32 at;
};

/* The next bytes as a header; false: the packet ends before. */
static __always_inline bool take(struct cursor *cursor, void *out, __u32 bytes)
{
	if (bpf_xdp_load_bytes(cursor->packet, cursor->at, out, bytes) < 0)
		return false;
	cursor->at += bytes;
	return true;
}

/* To the header of the network layer; 0: nothing that we know, or not sent to this interface. */
static __always_inline __u16 read_link(struct cursor *cursor)
{
	__u32 interface = cursor->packet->ingress_ifindex;
	const __u64 *address = bpf_map_lookup_elem(&shields, &interface);
	struct ethhdr link;
	__u64 sent_to = 0;
	__be16 next;

	/* What goes to others behind a bridge or macvlan on this interface is not ours to judge. */
	if (!address || !take(cursor, &link, sizeof(link)))
		return 0;
	__builtin_memcpy(&sent_to, link.h_dest, ETH_ALEN);
	if (sent_to != *address)
		return 0;
	next = link.h_proto;
#pragma unroll
	for (int i = 0; i < VLAN_TAGS_MAX; i++) {
		struct vlan_tag tag;

		if (next != bpf_htons(ETH_P_8021Q) && next != bpf_htons(ETH_P_8021AD))
			break;
		if (!take(cursor, &tag, sizeof(tag)))
			return 0;
		next = tag.next;
	}
	return bpf_ntohs(next);
}

/* To the TCP header; false: a fragment, or not TCP. */
static __always_inline bool read_v4(
	struct cursor *cursor, struct query *query, struct bpf_fib_lookup *route)
{
	struct iphdr ip;

	if (!take(cursor, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5 ||
		ip.protocol != IPPROTO_TCP)
		return false;
	/* More to come, or not the beginning. */
	if (ip.frag_off & bpf_htons(0x3fff))
		return false;
	__builtin_memcpy(query->local.address, &ip.daddr, 4);
	__builtin_memcpy(query->peer.address, &ip.saddr, 4);
	query->local.family = DOOR_AF_INET;
	query->peer.bits = 32;
	route->family = DOOR_AF_INET;
	route->tos = ip.tos;
	route->ipv4_src = ip.saddr;
	route->ipv4_dst = ip.daddr;
	cursor->at += ip.ihl * 4 - sizeof(ip); /* over its options */
	return true;
}

/*
 * The same. A routing header changes the destination, a fragment has no ports: neither is read, nor
 * is what has more headers than is sane.
 */
static __always_inline bool read_v6(
	struct cursor *cursor, struct query *query, struct bpf_fib_lookup *route)
{
	struct ipv6hdr ip;
	__u8 next;

	if (!take(cursor, &ip, sizeof(ip)) || ip.version != 6)
		return false;
	__builtin_memcpy(query->local.address, &ip.daddr, 16);
	__builtin_memcpy(query->peer.address, &ip.saddr, 16);
	query->local.family = DOOR_AF_INET6;
	query->peer.bits = 128;
	route->family = DOOR_AF_INET6;
	__builtin_memcpy(route->ipv6_src, &ip.saddr, 16);
	__builtin_memcpy(route->ipv6_dst, &ip.daddr, 16);
	next = ip.nexthdr;
#pragma unroll
	for (int i = 0; i < EXTENSION_HEADERS_MAX; i++) {
		struct ipv6_opt_hdr extension;

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_DSTOPTS)
			break;
		if (!take(cursor, &extension, sizeof(extension)))
			return false;
		next = extension.nexthdr;
		cursor->at += (extension.hdrlen + 1) * 8 - sizeof(extension);
	}
	return next == IPPROTO_TCP;
}

/* Is the packet for this machine, rather than to be forwarded? */
static __always_inline bool is_local(struct xdp_md *ctx, struct bpf_fib_lookup *route)
{
	long found;

	route->l4_protocol = IPPROTO_TCP;
	route->ifindex = ctx->ingress_ifindex;
	found = bpf_fib_lookup(ctx, route, sizeof(*route), 0);
	return found == BPF_FIB_LKUP_RET_NOT_FWDED || found == BPF_FIB_LKUP_RET_FWD_DISABLED;
}

/*
 * Drops a SYN from whom postern_door would refuse as a stranger or as excluded. Everything else
 * passes, and postern_door decides: also who is over the rate, since a SYN costs a sender
 * nothing and may bear any source: counting here would let a flood lock out the one whose
 * address it bears, and every connection would be counted twice.
 */
SEC("xdp")
int postern_shield(struct xdp_md *ctx)
{
	struct cursor cursor = {.packet = ctx};
	struct bpf_fib_lookup route = {0};
	struct query query = {0};
	struct answer answer = {0};
	struct door_totals *total;
	struct tcphdr tcp;
	enum verdict verdict;
	bool is_v6 = false;

	switch (read_link(&cursor)) {
	case ETH_P_IP:
		if (!read_v4(&cursor, &query, &route))
			return XDP_PASS;
		break;
	case ETH_P_IPV6:
		if (!read_v6(&cursor, &query, &route))
			return XDP_PASS;
		is_v6 = true;
		break;
	default:
		return XDP_PASS;
	}
	if (!take(&cursor, &tcp, sizeof(tcp)) || !tcp.syn || tcp.ack || tcp.rst || tcp.fin)
		return XDP_PASS;
	query.local.port = bpf_ntohs(tcp.dest);
	route.sport = tcp.source;
	route.dport = tcp.dest;
	verdict = is_v6 ? look(&query, true, &answer) : look(&query, false, &answer);
	if (verdict != VERDICT_STRANGER && verdict != VERDICT_EXCLUDED)
		return XDP_PASS;
	if (!is_local(ctx, &route))
		return XDP_PASS;
	total = totals_here();
	if (total)
		add_one(&total->shield_drops);
	return XDP_DROP;
}
