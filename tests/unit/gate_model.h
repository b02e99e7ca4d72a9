/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * gate_model.h: random connectors such as policy_load() would take, with a gate, and an oracle that
 * looks at every rule for every question. For test_gate_property.c.
 */

#include "tests/unit/gate_fixture.h"

#define CONNECTORS 4
#define RANGES 3
#define PARTNERS 3
#define ENTRIES 10
#define BINDINGS 4

struct entry {
	struct prefix prefix;
	uint16_t flags;
};

struct model {
	struct policy policy;
	struct receive_connector connectors[CONNECTORS];
	struct address bindings[CONNECTORS][BINDINGS];
	bool is_bound[CONNECTORS][BINDINGS];
	struct ip_range ranges[CONNECTORS][RANGES];
	struct ip_range balancers[CONNECTORS][1];
	const char *named[CONNECTORS][PARTNERS];
	struct partner partners[PARTNERS];
	struct entry lists[PARTNERS][ENTRIES];
	unsigned counts[PARTNERS];
	uint64_t generations[PARTNERS];
	struct gate *gate;
};

static struct address places[BINDINGS]; /* exact and wildcard, IPv4 and then IPv6 */

static uint32_t seed;

static inline uint32_t roll(uint32_t below)
{
	seed = seed * 1664525u + 1013904223u;
	return (uint32_t)(((uint64_t)seed * below) >> 32);
}

static inline struct ip roll_ip(bool is_v6)
{
	struct ip ip = {.is_v6 = is_v6, .bytes = {10}};

	if (is_v6)
		memcpy(ip.bytes, (const uint8_t[]){0xfe, 0x80}, 2);
	ip.bytes[is_v6 ? 15 : 3] = (uint8_t)roll(256);
	return ip;
}

static inline struct ip_range roll_range(void)
{
	const bool is_v6 = roll(2);
	struct ip_range range = {.first = roll_ip(is_v6), .last = roll_ip(is_v6)};
	const struct ip first = range.first;

	if (ip_compare(&range.first, &range.last) > 0) {
		range.first = range.last;
		range.last = first;
	}
	if (is_v6 && roll(3) == 0)
		range.zone = 1 + roll(2);
	return range;
}

static inline struct prefix roll_prefix(void)
{
	const bool is_v6 = roll(2);
	struct prefix prefix = {.ip = roll_ip(is_v6)};
	const unsigned host = roll(9);

	prefix.bits = (uint8_t)((is_v6 ? 128 : 32) - host);
	prefix.ip.bytes[is_v6 ? 15 : 3] &= (uint8_t)(0xff00u >> (8 - host));
	return prefix;
}

static inline bool place_is_v6(unsigned b)
{
	return b >= 2;
}

static inline bool names(const struct model *model, unsigned c, unsigned p)
{
	const struct receive_connector *connector = &model->connectors[c];

	for (unsigned i = 0; i < connector->remote_ip_partner_count; i++)
		if (connector->remote_ip_partners[i] == model->partners[p].name)
			return true;
	return false;
}

static inline bool share(const struct model *model, unsigned c, unsigned d)
{
	for (unsigned b = 0; b < BINDINGS; b++)
		if (model->is_bound[c][b] && model->is_bound[d][b])
			return true;
	return false;
}

/* ---- connectors that policy_load() would take */

static inline bool ranges_fit(const struct ip_range *a, const struct ip_range *b, bool may_equal)
{
	const bool holds = ip_range_holds(a, b), is_held = ip_range_holds(b, a);

	return !ip_range_overlaps(a, b) || holds != is_held || (holds && may_equal);
}

static inline bool range_fits(
	const struct model *model, unsigned c, const struct ip_range *range, bool is_balancer)
{
	for (unsigned d = 0; d <= c; d++) {
		const struct receive_connector *other = &model->connectors[d];

		if (d != c && !share(model, c, d))
			continue;
		for (unsigned i = 0; i < other->remote_ip_range_count; i++)
			if ((d != c || is_balancer) &&
				!ranges_fit(range, &other->remote_ip_ranges[i], is_balancer))
				return false;
		for (unsigned i = 0; i < other->proxy_balancer_count; i++)
			if ((d != c || !is_balancer) &&
				!ranges_fit(range, &other->proxy_balancers[i], !is_balancer))
				return false;
	}
	return true;
}

static inline void roll_connector(struct model *model, unsigned c)
{
	static const char *const texts[CONNECTORS] = {"a", "b", "c", "d"};
	struct receive_connector *connector = &model->connectors[c];
	unsigned wanted = roll(RANGES + 1);
	bool may_be_open = true;

	*connector = (struct receive_connector){.name = texts[c],
		.index = c,
		.enabled = roll(10) != 0,
		.bindings = model->bindings[c],
		.remote_ip_ranges = model->ranges[c],
		.remote_ip_partners = model->named[c],
		.proxy_balancers = model->balancers[c]};
	for (unsigned b = 0; b < BINDINGS; b++) {
		model->is_bound[c][b] = connector->enabled && roll(2);
		if (model->is_bound[c][b])
			connector->bindings[connector->binding_count++] = places[b];
	}
	for (unsigned p = 0; p < PARTNERS; p++) {
		bool is_taken = roll(2);

		for (unsigned d = 0; d < c; d++)
			is_taken = is_taken || (share(model, c, d) && names(model, d, p));
		if (!is_taken)
			model->named[c][connector->remote_ip_partner_count++] =
				model->partners[p].name;
	}
	for (unsigned d = 0; d < c; d++)
		may_be_open =
			may_be_open &&
			(!share(model, c, d) || model->connectors[d].remote_ip_range_count > 0 ||
				model->connectors[d].remote_ip_partner_count > 0);
	if (wanted == 0 && !may_be_open && connector->remote_ip_partner_count == 0)
		wanted = 1;
	for (unsigned tries = 0; connector->remote_ip_range_count < wanted && tries < 1000;
		tries++) {
		const struct ip_range range = roll_range();

		if (range_fits(model, c, &range, false))
			model->ranges[c][connector->remote_ip_range_count++] = range;
	}
	assert_true(connector->remote_ip_range_count > 0 || wanted == 0);
	for (unsigned tries = roll(3) * 3; connector->proxy_balancer_count == 0 && tries > 0;
		tries--) {
		const struct ip_range range = roll_range();

		if (range_fits(model, c, &range, true))
			model->balancers[c][connector->proxy_balancer_count++] = range;
	}
}

static inline void roll_model(struct model *model)
{
	static const char *const texts[PARTNERS] = {"p", "q", "r"};

	*model = (struct model){.policy = {.file = "x.conf",
					.receive_connectors = model->connectors,
					.receive_connector_count = 1 + roll(CONNECTORS),
					.partners = model->partners,
					.partner_count = PARTNERS}};
	for (unsigned p = 0; p < PARTNERS; p++)
		model->partners[p] = (struct partner){.name = texts[p], .index = p};
	for (unsigned c = 0; c < model->policy.receive_connector_count; c++)
		roll_connector(model, c);
	if (make_gate(&model->policy, NULL, &model->gate) != 0)
		fail_msg("%s", said);
}

/* ---- the oracle */

/* Does somebody announce peers on the binding? */
static inline bool announces(const struct model *model, unsigned b)
{
	for (unsigned c = 0; c < model->policy.receive_connector_count; c++)
		if (model->is_bound[c][b] && model->connectors[c].proxy_balancer_count > 0)
			return true;
	return false;
}

static inline bool has_other_family(const struct model *model, unsigned b)
{
	return announces(model, b) || (b % 2 == 1 && announces(model, b - 1));
}

enum kind { KIND_NONE, KIND_EVERYBODY, KIND_RANGE, KIND_LIST, KIND_BALANCER };

struct found {
	enum kind kind;
	unsigned bits; /* of the piece with the peer */
	struct ip_range range;
	unsigned connector, partner;
	uint16_t flags;
};

/* The largest aligned block with the peer that lies inside of the range. */
static inline unsigned piece_bits(const struct ip_range *range, const struct ip *peer)
{
	unsigned bits = 0;

	for (;; bits++) {
		struct prefix block = {.ip = *peer, .bits = (uint8_t)bits};
		struct ip_range all;

		for (unsigned bit = bits; bit < (peer->is_v6 ? 128u : 32u); bit++)
			block.ip.bytes[bit / 8] &= (uint8_t) ~(0x80u >> bit % 8);
		all = prefix_range(&block);
		if (ip_compare(&range->first, &all.first) <= 0 &&
			ip_compare(&all.last, &range->last) <= 0)
			return bits;
	}
}

/* Longest piece; of equal ones a zone's, then by kind, then the narrower range's. */
static inline bool is_better(const struct found *a, const struct found *b)
{
	if (b->kind == KIND_NONE)
		return true;
	if (a->bits != b->bits)
		return a->bits > b->bits;
	if ((a->range.zone != 0) != (b->range.zone != 0))
		return a->range.zone != 0;
	if (a->kind != b->kind)
		return a->kind > b->kind;
	return ip_range_is_narrower(&a->range, &b->range);
}

static inline void consider(
	struct found *best, struct found rule, const struct ip *peer, uint32_t zone)
{
	if (!ip_range_has(&rule.range, peer) || (rule.range.zone != 0 && rule.range.zone != zone))
		return;
	rule.bits = piece_bits(&rule.range, peer);
	if (is_better(&rule, best))
		*best = rule;
}

static inline struct ip_range all_of(bool is_v6)
{
	return prefix_range(&(const struct prefix){.ip.is_v6 = is_v6});
}

static inline void consider_connector(const struct model *model, unsigned c, const struct ip *peer,
	uint32_t zone, bool is_announced, struct found *best)
{
	const struct receive_connector *connector = &model->connectors[c];

	if (connector->remote_ip_range_count == 0 && connector->remote_ip_partner_count == 0)
		consider(best,
			(struct found){.kind = KIND_EVERYBODY,
				.range = all_of(peer->is_v6),
				.connector = c},
			peer, zone);
	for (unsigned i = 0; i < connector->remote_ip_range_count; i++)
		consider(best,
			(struct found){.kind = KIND_RANGE,
				.range = connector->remote_ip_ranges[i],
				.connector = c},
			peer, zone);
	for (unsigned i = 0; !is_announced && i < connector->proxy_balancer_count; i++)
		consider(best,
			(struct found){.kind = KIND_BALANCER,
				.range = connector->proxy_balancers[i],
				.connector = c},
			peer, zone);
	for (unsigned p = 0; p < PARTNERS; p++)
		for (unsigned e = 0; names(model, c, p) && e < model->counts[p]; e++)
			consider(best,
				(struct found){.kind = KIND_LIST,
					.range = prefix_range(&model->lists[p][e].prefix),
					.connector = c,
					.partner = p,
					.flags = model->lists[p][e].flags},
				peer, zone);
}

static inline struct found find(const struct model *model, unsigned b, const struct ip *peer,
	uint32_t zone, bool is_announced)
{
	struct found best = {.kind = KIND_NONE};

	for (unsigned c = 0; c < model->policy.receive_connector_count; c++)
		if (model->is_bound[c][b])
			consider_connector(model, c, peer, zone, is_announced, &best);
	return best;
}
