/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * cidr_key.h: bits of addresses, for cidr.c and cidr_prefix.c only. A key is the bytes of an
 * address, 4 or 16 of them; bit 0 is the first.
 */

#include "policy/range.h"
#include <arpa/inet.h>
#include <string.h>

#define KEY_BYTES_V4 4
#define KEY_BYTES_V6 16

static inline unsigned ip_bits(const struct ip *ip)
{
	return ip->is_v6 ? KEY_BYTES_V6 * 8 : KEY_BYTES_V4 * 8;
}

static inline unsigned key_bit(const uint8_t *key, unsigned bit)
{
	return (unsigned)(key[bit / 8] >> (7 - bit % 8)) & 1u;
}

/* How many bits of two keys are the same, at most max. */
static inline unsigned key_common(const uint8_t *a, const uint8_t *b, unsigned max)
{
	for (unsigned at = 0; at < max; at += 32) {
		uint32_t x = 0, y = 0;

		memcpy(&x, a + at / 8, sizeof(x));
		memcpy(&y, b + at / 8, sizeof(y));
		if (x != y) {
			const unsigned same = at + (unsigned)__builtin_clz(ntohl(x ^ y));

			return same < max ? same : max;
		}
	}
	return max;
}
