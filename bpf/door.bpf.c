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

#include "bpf/maps.h"
#include "bpf/parse.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* ---- counting */

/* Processors do not share a value, but a program may be interrupted by itself. */
static __always_inline void add_one(__u64 *counter)
{
	__sync_fetch_and_add(counter, 1);
}

static __always_inline struct door_totals *totals_here(void)
{
	return find(&totals, 0);
}

static __always_inline void count_other(void)
{
	struct door_totals *total = totals_here();

	if (total)
		add_one(&total->others);
}

static __always_inline void count_passed(void *map, __u32 at)
{
	struct door_counts *counts = find(map, at);

	if (counts)
		add_one(&counts->passed);
}

static __always_inline void count_refused(void *map, __u32 at, enum door_reason reason)
{
	struct door_counts *counts = find(map, at);

	if (counts)
		add_one(&counts->refused[reason]);
}

/* ---- what the tries say */

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

	if (is_v6)
		trie = find(&tries_v6, slot - DOOR_SLOTS);
	else
		trie = find(&tries_v4, slot);
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

static __always_inline enum verdict take_value(
	const struct door_value *value, __u32 slot, struct answer *out)
{
	out->value = *value;
	out->slot = slot;
	return out->value.flags & DOOR_EXCLUDED ? VERDICT_EXCLUDED : VERDICT_LET_IN;
}

/*
 * The exact address first, then the wildcard address of the port. No pointer is compared with NULL
 * twice: without CAP_PERFMON the verifier follows what the processor might guess the second time.
 */
static __always_inline enum verdict look(
	const struct query *query, const bool is_v6, struct answer *out)
{
	/* Its port and family, and behind them what is not looked at. */
	const __u64 any[3] = {0, 0, query->words[2]};
	const __u32 *exact = bpf_map_lookup_elem(&bindings, &query->local);
	const __u32 *wildcard;
	const struct door_value *value = 0;

	if (exact) {
		out->slot = *exact;
		if (is_v6 && peer_is_mapped(query))
			return VERDICT_MAPPED;
		if (!trie_look(out->slot, query, is_v6, &value))
			return VERDICT_NO_TRIE;
		if (value)
			return take_value(value, out->slot, out);
		wildcard = bpf_map_lookup_elem(&bindings, any);
		if (!wildcard)
			return VERDICT_STRANGER;
		if (!trie_look(*wildcard, query, is_v6, &value))
			return VERDICT_NO_TRIE;
		return value ? take_value(value, *wildcard, out) : VERDICT_STRANGER;
	}
	wildcard = bpf_map_lookup_elem(&bindings, any);
	if (!wildcard)
		return VERDICT_OTHER;
	out->slot = *wildcard;
	if (is_v6 && peer_is_mapped(query))
		return VERDICT_MAPPED;
	if (!trie_look(out->slot, query, is_v6, &value))
		return VERDICT_NO_TRIE;
	return value ? take_value(value, out->slot, out) : VERDICT_STRANGER;
}

/* ---- the door */

/* connection-rate-limit. Who has a place among the sources keeps it until others need it more. */
static __always_inline bool is_within_rate(const struct query *query, __u32 connector)
{
	const struct door_limit *limit = find(&limits, connector);
	/* struct door_source */
	const __u64 source[2] = {PAIR(connector, query->local.family), query->words[3]};
	struct door_bucket fresh = {0};
	struct door_bucket *bucket;
	__u64 now;

	if (!limit || limit->interval_ns == 0)
		return true;
	now = bpf_ktime_get_ns();
	bucket = bpf_map_lookup_elem(&sources, source);
	if (bucket)
		return door_bucket_take(bucket, limit, now);
	door_bucket_take(&fresh, limit, now);
	bpf_map_update_elem(&sources, source, &fresh, BPF_ANY);
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

	bucket = find(&tokens, 0);
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

	switch (look(query, is_v6, &answer)) {
	case VERDICT_OTHER:
		count_other();
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
	if (!(answer.value.flags & DOOR_BALANCER) && !is_within_rate(query, answer.value.connector))
		return refuse(query, peer_port, DOOR_REASON_RATE, &answer);
	return pass(&answer);
}

SEC("sk_lookup")
int postern_door(struct bpf_sk_lookup *ctx)
{
	struct query query = {0};
	struct door_totals *total = totals_here();
	const __u16 peer_port = bpf_ntohs(ctx->remote_port);

	if (total)
		add_one(&total->lookups);
	if (ctx->protocol != IPPROTO_TCP) {
		count_other();
		return SK_PASS;
	}
	if (ctx->family == DOOR_AF_INET) {
		query.words[0] = PAIR(ctx->local_ip4, 0);
		query.words[2] = PAIR(HALVES(ctx->local_port, DOOR_AF_INET), 32);
		query.words[3] = PAIR(ctx->remote_ip4, 0);
		return decide(&query, peer_port, false);
	}
	query.words[0] = PAIR(ctx->local_ip6[0], ctx->local_ip6[1]);
	query.words[1] = PAIR(ctx->local_ip6[2], ctx->local_ip6[3]);
	query.words[2] = PAIR(HALVES(ctx->local_port, DOOR_AF_INET6), 128);
	query.words[3] = PAIR(ctx->remote_ip6[0], ctx->remote_ip6[1]);
	query.words[4] = PAIR(ctx->remote_ip6[2], ctx->remote_ip6[3]);
	return decide(&query, peer_port, true);
}

/* ---- the shield */

/*
 * Is the packet for this machine, rather than to be forwarded? Where nothing is forwarded it is.
 * The route to its destination is asked for; there is none to an address of this machine.
 */
static __always_inline bool is_local(
	struct xdp_md *ctx, const struct query *query, const struct tcphdr *tcp, __u8 tos)
{
	/* struct bpf_fib_lookup: family, protocol, ports; interface, tos; source; destination */
	__u64 route[8] = {
		PAIR(HALVES(BYTES(query->local.family, IPPROTO_TCP), tcp->source), tcp->dest),
		PAIR(ctx->ingress_ifindex, HALVES(BYTES(tos, 0), 0)),
		query->words[3],
		query->words[4],
		query->words[0],
		query->words[1],
		0,
		0,
	};
	long found = bpf_fib_lookup(ctx, (void *)route, sizeof(route), 0);

	_Static_assert(sizeof(struct bpf_fib_lookup) == sizeof(route), "the kernel's layout");
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
	struct query query = {0};
	struct answer answer = {0};
	struct door_totals *total;
	struct tcphdr tcp;
	enum verdict verdict;
	bool is_v6 = false;
	__u8 tos = 0;

	switch (read_link(&cursor)) {
	case ETH_P_IP:
		if (!read_v4(&cursor, &query, &tos))
			return XDP_PASS;
		break;
	case ETH_P_IPV6:
		if (!read_v6(&cursor, &query))
			return XDP_PASS;
		is_v6 = true;
		break;
	default:
		return XDP_PASS;
	}
	if (!take(&cursor, &tcp, sizeof(tcp)) || !tcp.syn || tcp.ack || tcp.rst || tcp.fin)
		return XDP_PASS;
	query.words[2] = PAIR(HALVES(bpf_ntohs(tcp.dest), is_v6 ? DOOR_AF_INET6 : DOOR_AF_INET),
		is_v6 ? 128 : 32);
	verdict = is_v6 ? look(&query, true, &answer) : look(&query, false, &answer);
	if (verdict != VERDICT_STRANGER && verdict != VERDICT_EXCLUDED)
		return XDP_PASS;
	if (!is_local(ctx, &query, &tcp, tos))
		return XDP_PASS;
	total = totals_here();
	if (total)
		add_one(&total->shield_drops);
	return XDP_DROP;
}
