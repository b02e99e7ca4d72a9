/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/range.h"
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#define IP_V4_BYTES 4
#define IP_V6_BYTES 16

/* ::ffff:0:0/96 */
static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
#define MAPPED_BITS 96

static unsigned ip_bytes(const struct ip *ip)
{
	return ip->is_v6 ? IP_V6_BYTES : IP_V4_BYTES;
}

static bool ip_is_mapped(const struct ip *ip)
{
	return ip->is_v6 && memcmp(ip->bytes, mapped_prefix, sizeof(mapped_prefix)) == 0;
}

/* An IPv4 address in IPv6's clothes becomes the IPv4 address. */
static void ip_unmap(struct ip *ip)
{
	struct ip plain = {0};

	if (!ip_is_mapped(ip))
		return;
	memcpy(plain.bytes, ip->bytes + sizeof(mapped_prefix), IP_V4_BYTES);
	*ip = plain;
}

/* As it is written: a mapped address stays IPv6, since a prefix length behind it counts so. */
static bool ip_parse_raw(const char *text, struct ip *out)
{
	*out = (struct ip){0};
	if (inet_pton(AF_INET, text, out->bytes) == 1)
		return true;
	out->is_v6 = true;
	return inet_pton(AF_INET6, text, out->bytes) == 1;
}

int ip_parse(const char *text, struct ip *out)
{
	struct ip ip = {0};

	if (!ip_parse_raw(text, &ip))
		return -EINVAL;
	ip_unmap(&ip);
	*out = ip;
	return 0;
}

bool ip_of_sockaddr(const struct sockaddr *address, struct ip *out)
{
	struct sockaddr_in6 in6 = {0};
	struct sockaddr_in in = {0};

	*out = (struct ip){0};
	if (address->sa_family == AF_INET) {
		memcpy(&in, address, sizeof(in));
		memcpy(out->bytes, &in.sin_addr, IP_V4_BYTES);
		return true;
	}
	if (address->sa_family != AF_INET6)
		return false;
	memcpy(&in6, address, sizeof(in6));
	memcpy(out->bytes, &in6.sin6_addr, IP_V6_BYTES);
	out->is_v6 = true;
	ip_unmap(out);
	return true;
}

bool ip_is_any(const struct ip *ip)
{
	static const struct ip zero;

	return memcmp(ip->bytes, zero.bytes, sizeof(zero.bytes)) == 0;
}

int ip_compare(const struct ip *a, const struct ip *b)
{
	if (a->is_v6 != b->is_v6)
		return a->is_v6 ? 1 : -1;
	return memcmp(a->bytes, b->bytes, ip_bytes(a));
}

/* Digits only, at most max; false: not such a number. */
static bool parse_number(const char *text, unsigned long max, unsigned long *out)
{
	char *end = NULL;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*out = strtoul(text, &end, 10);
	return errno == 0 && *end == '\0' && *out <= max;
}

/* Cuts "%zone" off; a zone is a number or the name of an interface of this machine. */
static bool parse_zone(char *text, uint32_t *out_zone)
{
	char *sign = strchr(text, '%');
	unsigned long number = 0;

	*out_zone = 0;
	if (sign == NULL)
		return true;
	*sign = '\0';
	if (!parse_number(sign + 1, UINT32_MAX, &number))
		number = if_nametoindex(sign + 1);
	*out_zone = (uint32_t)number;
	return number != 0;
}

static bool parse_address(char *text, struct ip *out, uint32_t *out_zone)
{
	return parse_zone(text, out_zone) && ip_parse_raw(text, out) &&
	       (*out_zone == 0 || (out->is_v6 && !ip_is_mapped(out)));
}

/* The first and the last address that share so many bits with ip. */
static void range_of_prefix(const struct ip *ip, unsigned bits, struct ip_range *out)
{
	out->first = *ip;
	out->last = *ip;
	for (unsigned i = 0; i < ip_bytes(ip); i++) {
		const unsigned kept = bits <= i * 8 ? 0 : (bits - i * 8 < 8 ? bits - i * 8 : 8);
		const uint8_t host = (uint8_t)(0xffu >> kept);

		out->first.bytes[i] &= (uint8_t)~host;
		out->last.bytes[i] |= host;
	}
}

static int parse_prefix(char *text, char *slash, struct ip_range *out)
{
	unsigned long bits = 0;
	struct ip ip = {0};

	*slash = '\0';
	if (!parse_address(text, &ip, &out->zone) ||
		!parse_number(slash + 1, ip_bytes(&ip) * 8UL, &bits))
		return -EINVAL;
	if (ip_is_mapped(&ip) && bits >= MAPPED_BITS) {
		ip_unmap(&ip);
		bits -= MAPPED_BITS;
	}
	range_of_prefix(&ip, (unsigned)bits, out);
	return 0;
}

static int parse_ends(char *text, char *dash, struct ip_range *out)
{
	uint32_t zone = 0;

	*dash = '\0';
	if (!parse_address(text, &out->first, &out->zone) ||
		!parse_address(dash + 1, &out->last, &zone))
		return -EINVAL;
	/* The zone of one end is that of both. */
	if (zone != 0 && out->zone != 0 && zone != out->zone)
		return -EINVAL;
	if (out->zone == 0)
		out->zone = zone;
	ip_unmap(&out->first);
	ip_unmap(&out->last);
	if (out->first.is_v6 != out->last.is_v6 || ip_compare(&out->first, &out->last) > 0)
		return -EINVAL;
	return 0;
}

int ip_range_parse(const char *text, struct ip_range *out)
{
	const size_t len = strlen(text);
	char copy[2 * INET6_ADDRSTRLEN + 2 * IF_NAMESIZE + 4];
	struct ip_range range = {0};
	char *sign = NULL;
	int rc = 0;

	if (len >= sizeof(copy))
		return -EINVAL;
	memcpy(copy, text, len + 1);
	/* Names of interfaces may have a dash, so the slash is looked for first. */
	sign = strchr(copy, '/');
	if (sign != NULL) {
		rc = parse_prefix(copy, sign, &range);
	} else if ((sign = strchr(copy, '-')) != NULL) {
		rc = parse_ends(copy, sign, &range);
	} else if (parse_address(copy, &range.first, &range.zone)) {
		ip_unmap(&range.first);
		range.last = range.first;
	} else {
		rc = -EINVAL;
	}
	if (rc == 0)
		*out = range;
	return rc;
}

bool ip_range_has(const struct ip_range *range, const struct ip *ip)
{
	return range->first.is_v6 == ip->is_v6 && ip_compare(&range->first, ip) <= 0 &&
	       ip_compare(ip, &range->last) <= 0;
}

bool ip_range_holds(const struct ip_range *outer, const struct ip_range *inner)
{
	return (outer->zone == 0 || outer->zone == inner->zone) &&
	       ip_range_has(outer, &inner->first) && ip_range_has(outer, &inner->last);
}

bool ip_range_overlaps(const struct ip_range *a, const struct ip_range *b)
{
	if (a->zone != 0 && b->zone != 0 && a->zone != b->zone)
		return false;
	return ip_range_has(a, &b->first) || ip_range_has(b, &a->first);
}

/* How many addresses lie behind the first, as a number of 16 bytes. */
static void range_size(const struct ip_range *range, uint8_t out[static IP_V6_BYTES])
{
	const unsigned bytes = ip_bytes(&range->first);
	unsigned borrow = 0;

	memset(out, 0, IP_V6_BYTES);
	for (unsigned i = bytes; i-- > 0;) {
		const unsigned take = range->first.bytes[i] + borrow;

		borrow = range->last.bytes[i] < take;
		out[IP_V6_BYTES - bytes + i] = (uint8_t)(range->last.bytes[i] - take);
	}
}

bool ip_range_is_narrower(const struct ip_range *a, const struct ip_range *b)
{
	uint8_t size_a[IP_V6_BYTES], size_b[IP_V6_BYTES];
	int order = 0;

	range_size(a, size_a);
	range_size(b, size_b);
	order = memcmp(size_a, size_b, sizeof(size_a));
	/* The addresses of one zone are fewer than those of all zones. */
	return order < 0 || (order == 0 && a->zone != 0 && b->zone == 0);
}

/* The prefix length if the range is one; -1. */
static int range_prefix(const struct ip_range *range)
{
	const unsigned bits = ip_bytes(&range->first) * 8;
	struct ip_range made = {0};
	unsigned same = 0;

	while (same < bits && ((range->first.bytes[same / 8] ^ range->last.bytes[same / 8]) >>
				      (7 - same % 8)) == 0)
		same++;
	range_of_prefix(&range->first, same, &made);
	if (ip_compare(&made.first, &range->first) != 0 ||
		ip_compare(&made.last, &range->last) != 0)
		return -1;
	return (int)same;
}

/* As inet_ntop() does it, which takes the way over printf: each message asks for two. */
static size_t ip_print_v4(const struct ip *ip, char *out)
{
	size_t len = 0;

	for (unsigned i = 0; i < 4; i++) {
		const uint8_t byte = ip->bytes[i];

		if (i > 0)
			out[len++] = '.';
		if (byte >= 100)
			out[len++] = (char)('0' + byte / 100);
		if (byte >= 10)
			out[len++] = (char)('0' + byte / 10 % 10);
		out[len++] = (char)('0' + byte % 10);
	}
	return len;
}

const char *ip_print(const struct ip *ip, char *out, size_t out_bytes)
{
	char text[INET6_ADDRSTRLEN] = "";
	size_t len;

	if (ip->is_v6) {
		(void)inet_ntop(AF_INET6, ip->bytes, text, sizeof(text));
		len = strlen(text);
	} else {
		len = ip_print_v4(ip, text);
	}
	if (out_bytes == 0)
		return out;
	len = len < out_bytes ? len : out_bytes - 1;
	memcpy(out, text, len);
	out[len] = '\0';
	return out;
}

const char *ip_range_print(const struct ip_range *range, char out[static IP_RANGE_TEXT_BYTES])
{
	const int prefix = range_prefix(range);
	char first[INET6_ADDRSTRLEN], last[INET6_ADDRSTRLEN];
	char zone[16] = "";

	(void)ip_print(&range->first, first, sizeof(first));
	(void)ip_print(&range->last, last, sizeof(last));
	if (range->zone != 0)
		(void)snprintf(zone, sizeof(zone), "%%%u", range->zone);
	if (ip_compare(&range->first, &range->last) == 0)
		(void)snprintf(out, IP_RANGE_TEXT_BYTES, "%s%s", first, zone);
	else if (prefix >= 0)
		(void)snprintf(out, IP_RANGE_TEXT_BYTES, "%s%s/%d", first, zone, prefix);
	else
		(void)snprintf(out, IP_RANGE_TEXT_BYTES, "%s%s-%s", first, zone, last);
	return out;
}
