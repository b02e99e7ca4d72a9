/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/gate_private.h"
#include <stdarg.h>

/*
 * gate_conflict.c: what a partner's list may not have beside the rest of a binding. An operator
 * may not guess who wins, so each is a mistake.
 *
 * A prefix that overlaps a range in part has one of the range's two ends. So, to check a set, only
 * prefixes on the way to the ends are looked at, however many others there are.
 */

PRINTF_LIKE(2, 3)
static void complain(struct gate_mistakes *mistakes, const char *format, ...)
{
	va_list args;

	if (mistakes->count++ >= GATE_MISTAKES_MAX) {
		if (mistakes->count == GATE_MISTAKES_MAX + 1)
			(void)fprintf(
				mistakes->errors, "%sand more of the kind\n", mistakes->where);
		return;
	}
	(void)fputs(mistakes->where, mistakes->errors);
	va_start(args, format);
	(void)vfprintf(mistakes->errors, format, args);
	va_end(args);
	(void)fputc('\n', mistakes->errors);
}

static void complain_partner(const struct gate_binding *binding, const struct partner *partner,
	const struct partner *other, const struct prefix *prefix, struct gate_mistakes *mistakes)
{
	char text[PREFIX_TEXT_BYTES], at[64];

	address_print(binding->address, at, sizeof(at));
	complain(mistakes,
		"%s of partner \"%s\" is in the list of partner \"%s\" too, which is asked on the "
		"same binding %s, expected each address in one list",
		prefix_print(prefix, text), partner->name, other->name, at);
}

void gate_check_partners(const struct gate *gate, const struct gate_binding *binding,
	const struct partner *partner, const struct prefix *prefix, struct gate_mistakes *mistakes)
{
	const struct door_value *value = NULL;

	if (binding->list_count <= 1)
		return;
	if (binding->rules != NULL)
		value = cidr_get(binding->rules, prefix);
	else if (binding_has_family(binding, prefix))
		value = cidr_get(binding->door, prefix);
	if (value == NULL)
		return;
	if ((value->flags & (DOOR_BALANCER | DOOR_ZONED)) == 0) {
		if (value->partner != 0 && gate->named[value->partner] != partner)
			complain_partner(
				binding, partner, gate->named[value->partner], prefix, mistakes);
		return;
	}
	/* What the lists say is hidden behind that. */
	for (unsigned p = 0; p < gate->policy->partner_count; p++)
		if (binding->lists[p] != NULL && p != partner->index &&
			cidr_get(gate->partners[p].set, prefix) != NULL)
			complain_partner(
				binding, partner, &gate->policy->partners[p], prefix, mistakes);
}

/* Some of the range is in the prefix, and neither is inside of the other, whatever the zone. */
static bool prefix_has_part(const struct prefix *prefix, const struct ip_range *range)
{
	const struct ip_range own = prefix_range(prefix);

	return prefix_has(prefix, &range->first) != prefix_has(prefix, &range->last) &&
	       !(ip_range_has(range, &own.first) && ip_range_has(range, &own.last));
}

/* A range of one zone is narrower than the prefix, and not equal. */
static bool prefix_is_range(const struct prefix *prefix, const struct ip_range *range)
{
	const struct ip_range own = prefix_range(prefix);

	return range->zone == 0 && ip_compare(&own.first, &range->first) == 0 &&
	       ip_compare(&own.last, &range->last) == 0;
}

static void check_range(const struct gate *gate, const struct gate_binding *binding,
	const struct partner *partner, const struct receive_connector *connector,
	const struct ip_range *range, const struct prefix *prefix, struct gate_mistakes *mistakes)
{
	const bool is_equal = prefix_is_range(prefix, range);
	char text[PREFIX_TEXT_BYTES], taken[IP_RANGE_TEXT_BYTES], at[64];

	if (!is_equal && !prefix_has_part(prefix, range))
		return;
	address_print(binding->address, at, sizeof(at));
	complain(mistakes,
		"%s of partner \"%s\" %s of receive-connector \"%s\" (%s:%u) on the same binding "
		"%s%s%s, expected %s",
		prefix_print(prefix, text), partner->name,
		is_equal ? "is one of remote-ip-ranges" : "overlaps a range", connector->name,
		gate->policy->file, connector->line, at,
		is_equal ? "" : " in part: ", is_equal ? "" : ip_range_print(range, taken),
		is_equal ? "each address in one place" : "one inside of the other");
}

/* May the range be asked for here at all? */
static bool binding_uses(const struct gate_binding *binding, const struct ip_range *range)
{
	return binding->rules != NULL || range->first.is_v6 == binding->ip.is_v6;
}

void gate_check_ranges(const struct gate *gate, const struct gate_binding *binding,
	const struct partner *partner, const struct prefix *prefix, struct gate_mistakes *mistakes)
{
	for (unsigned i = 0; i < binding->connector_count; i++) {
		const struct receive_connector *connector = binding->connectors[i];

		for (unsigned j = 0; j < connector->remote_ip_range_count; j++) {
			const struct ip_range *range = &connector->remote_ip_ranges[j];

			if (connector != binding->lists[partner->index] &&
				binding_uses(binding, range))
				check_range(
					gate, binding, partner, connector, range, prefix, mistakes);
		}
	}
}

/* The prefixes of the set on the way to the ends of the range. */
static void check_ends(const struct gate *gate, const struct gate_binding *binding,
	const struct partner *partner, const struct receive_connector *connector,
	const struct ip_range *range, const struct cidr *set, struct gate_mistakes *mistakes)
{
	const struct ip *ends[] = {&range->first, &range->last};

	for (unsigned i = 0; i < COUNT_OF(ends); i++) {
		struct prefix prefix;

		for (const struct door_value *at = cidr_lookup(set, ends[i], &prefix); at != NULL;
			at = cidr_above(set, &prefix, &prefix))
			/* An equal one has both ends: told once. */
			if (i == 0 || !prefix_is_range(&prefix, range))
				check_range(gate, binding, partner, connector, range, &prefix,
					mistakes);
	}
}

void gate_check_set_ranges(const struct gate *gate, const struct gate_binding *binding,
	const struct partner *partner, const struct cidr *set, struct gate_mistakes *mistakes)
{
	for (unsigned i = 0; i < binding->connector_count; i++) {
		const struct receive_connector *connector = binding->connectors[i];

		for (unsigned j = 0; j < connector->remote_ip_range_count; j++) {
			const struct ip_range *range = &connector->remote_ip_ranges[j];

			if (connector == binding->lists[partner->index] ||
				!binding_uses(binding, range))
				continue;
			check_ends(gate, binding, partner, connector, range, set, mistakes);
		}
	}
}
