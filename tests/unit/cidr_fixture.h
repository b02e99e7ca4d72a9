/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * cidr_fixture.h: addresses and prefixes for tests, random (the same each time) and from text.
 */

#include "policy/cidr.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
/* cmocka needs those above it. */
#include <cmocka.h>

static uint64_t random_state;

static inline uint32_t random_next(void)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(random_state >> 33);
}

static inline uint32_t random_below(uint32_t limit)
{
	return random_next() % limit;
}

static inline void ip_cut(struct ip *ip, unsigned bits)
{
	for (unsigned bit = bits; bit < 128; bit++)
		ip->bytes[bit / 8] &= (uint8_t) ~(0x80u >> bit % 8);
}

/* Few different bytes, so that much is within and beside something else. */
static inline struct ip random_ip(bool is_v6, unsigned spread)
{
	struct ip ip = {.is_v6 = is_v6};

	for (unsigned i = 0; i < (is_v6 ? 16u : 4u); i++)
		ip.bytes[i] = random_below(spread) == 0 ? (uint8_t)random_next()
							: (uint8_t)(0xff * random_below(2));
	return ip;
}

static inline bool ip_step(struct ip *ip, int by)
{
	const uint8_t over = by > 0 ? 0 : 0xff;

	for (unsigned i = ip->is_v6 ? 16 : 4; i-- > 0;) {
		ip->bytes[i] = (uint8_t)(ip->bytes[i] + by);
		if (ip->bytes[i] != over)
			return true;
	}
	return false;
}

static inline struct prefix prefix_from(const char *text)
{
	struct prefix out[PREFIXES_OF_RANGE_MAX];
	struct ip_range range = {0};

	assert_int_equal(ip_range_parse(text, &range), 0);
	assert_int_equal(prefix_of_range(&range, out), 1);
	return out[0];
}
