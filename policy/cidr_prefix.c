/* SPDX-License-Identifier: Apache-2.0 */

/*
 * cidr_prefix.c: what prefixes are to each other, and which of them make up a range.
 */

#include "policy/cidr.h"
#include "policy/cidr_key.h"
#include <stdio.h>

unsigned prefix_of_range(
	const struct ip_range *range, struct prefix out[static PREFIXES_OF_RANGE_MAX])
{
	struct ip first = range->first;
	unsigned count = 0;

	ASSERT(ip_compare(&range->first, &range->last) <= 0);
	for (;;) {
		struct ip last = first;
		unsigned bits = ip_bits(&first);

		/* It grows while it is aligned and does not end behind the range. */
		while (bits > 0 && key_bit(first.bytes, bits - 1) == 0) {
			const uint8_t mask = (uint8_t)(0x80u >> (bits - 1) % 8);

			last.bytes[(bits - 1) / 8] |= mask;
			if (ip_compare(&last, &range->last) > 0) {
				last.bytes[(bits - 1) / 8] &= (uint8_t)~mask;
				break;
			}
			bits--;
		}
		ASSERT(count < PREFIXES_OF_RANGE_MAX);
		out[count++] = (struct prefix){.ip = first, .bits = (uint8_t)bits};
		if (ip_compare(&last, &range->last) == 0)
			return count;
		first = last;
		for (unsigned i = ip_bits(&first) / 8; i-- > 0 && ++first.bytes[i] == 0;)
			;
	}
}

struct prefix prefix_of_ip(const struct ip *ip)
{
	return (struct prefix){.ip = *ip, .bits = (uint8_t)ip_bits(ip)};
}

struct ip_range prefix_range(const struct prefix *prefix)
{
	struct ip_range range = {.first = prefix->ip, .last = prefix->ip};

	for (unsigned bit = prefix->bits; bit < ip_bits(&prefix->ip); bit++)
		range.last.bytes[bit / 8] |= (uint8_t)(0x80u >> bit % 8);
	return range;
}

bool prefix_has(const struct prefix *prefix, const struct ip *ip)
{
	return prefix->ip.is_v6 == ip->is_v6 &&
	       key_common(prefix->ip.bytes, ip->bytes, prefix->bits) == prefix->bits;
}

bool prefix_holds(const struct prefix *outer, const struct prefix *inner)
{
	return outer->bits <= inner->bits && prefix_has(outer, &inner->ip);
}

int prefix_compare(const struct prefix *a, const struct prefix *b)
{
	const int order = ip_compare(&a->ip, &b->ip);

	return order != 0 ? order : (int)a->bits - (int)b->bits;
}

const char *prefix_print(const struct prefix *prefix, char out[static PREFIX_TEXT_BYTES])
{
	char ip[INET6_ADDRSTRLEN];

	(void)ip_print(&prefix->ip, ip, sizeof(ip));
	if (prefix->bits == ip_bits(&prefix->ip))
		(void)snprintf(out, PREFIX_TEXT_BYTES, "%s", ip);
	else
		(void)snprintf(out, PREFIX_TEXT_BYTES, "%s/%u", ip, prefix->bits);
	return out;
}
