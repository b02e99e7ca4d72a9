/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * range.h: IP addresses and ranges, in the forms that Exchange takes (EXCHANGE 2.1).
 * Pure. An IPv4 peer on a dual-stack socket (::ffff:192.0.2.1) is an IPv4 peer.
 */

#include "relay/base/assert.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* IPv4 uses the first four bytes, network order, zeros behind them. */
struct ip {
	bool is_v6;
	uint8_t bytes[16];
};

/* Both ends belong to it, and are of one family. zone: IPv6 scope id, 0: any. */
struct ip_range {
	struct ip first;
	struct ip last;
	uint32_t zone;
};

#define IP_RANGE_TEXT_BYTES 100

/*
 * "192.0.2.1", "192.0.2.1-192.0.2.9", "192.0.2.1/24" (host bits are allowed and dropped), the
 * same for IPv6, with "%zone" behind an address. -EINVAL if it is none, or its ends are in the
 * wrong order or of two families.
 */
NODISCARD int ip_range_parse(const char *text, struct ip_range *out);

/* One address, without a zone; -EINVAL. */
NODISCARD int ip_parse(const char *text, struct ip *out);

/* The address of a socket; false if it is neither IPv4 nor IPv6. */
bool ip_of_sockaddr(const struct sockaddr *address, struct ip *out);

/* 0.0.0.0 or ::, which as a binding is every local address. */
bool ip_is_any(const struct ip *ip);

int ip_compare(const struct ip *a, const struct ip *b);
bool ip_range_has(const struct ip_range *range, const struct ip *ip);
/* Does outer hold all of inner? Equal ranges hold each other. */
bool ip_range_holds(const struct ip_range *outer, const struct ip_range *inner);
bool ip_range_overlaps(const struct ip_range *a, const struct ip_range *b);
/* Is a smaller (of fewer addresses) than b? */
bool ip_range_is_narrower(const struct ip_range *a, const struct ip_range *b);

/* "192.0.2.0-192.0.2.255", "192.0.2.1"; CIDR where it is one. Returns out. */
const char *ip_range_print(const struct ip_range *range, char out[static IP_RANGE_TEXT_BYTES]);
const char *ip_print(const struct ip *ip, char *out, size_t out_bytes);
