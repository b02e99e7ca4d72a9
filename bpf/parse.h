/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
#pragma once

/*
 * parse.h: reads a packet as far as its TCP header, for door.bpf.c only. What it does not know, or
 * would have to guess, it does not read; the packet passes then.
 */

#include "bpf/maps.h"

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>

#define VLAN_TAGS_MAX 2
#define EXTENSION_HEADERS_MAX 4

struct link_header {
	__u16 to[3];
	__u16 from[3];
	__be16 next;
};

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
	const __u64 *address = find(&shields, cursor->packet->ingress_ifindex);
	struct link_header link;
	__be16 next;

	/* What goes to others behind a bridge or macvlan on this interface is not ours to judge. */
	if (!address || !take(cursor, &link, sizeof(link)))
		return 0;
	if (PAIR(HALVES(link.to[0], link.to[1]), HALVES(link.to[2], 0)) != *address)
		return 0;
	next = link.next;
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

/* To the TCP header, with the addresses and the type of service; false: a fragment, or not TCP. */
static __always_inline bool read_v4(struct cursor *cursor, struct query *query, __u8 *out_tos)
{
	struct iphdr ip;

	if (!take(cursor, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5 ||
		ip.protocol != IPPROTO_TCP)
		return false;
	/* More to come, or not the beginning. */
	if (ip.frag_off & bpf_htons(0x3fff))
		return false;
	query->words[0] = PAIR(ip.daddr, 0);
	query->words[3] = PAIR(ip.saddr, 0);
	*out_tos = ip.tos;
	cursor->at += ip.ihl * 4 - sizeof(ip); /* over its options */
	return true;
}

/*
 * The same. A routing header changes the destination, a fragment has no ports: neither is read, nor
 * is what has more headers than is sane.
 */
static __always_inline bool read_v6(struct cursor *cursor, struct query *query)
{
	struct ipv6hdr ip;
	__u8 next;

	if (!take(cursor, &ip, sizeof(ip)) || ip.version != 6)
		return false;
	query->words[0] = PAIR(ip.daddr.s6_addr32[0], ip.daddr.s6_addr32[1]);
	query->words[1] = PAIR(ip.daddr.s6_addr32[2], ip.daddr.s6_addr32[3]);
	query->words[3] = PAIR(ip.saddr.s6_addr32[0], ip.saddr.s6_addr32[1]);
	query->words[4] = PAIR(ip.saddr.s6_addr32[2], ip.saddr.s6_addr32[3]);
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
