/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/gate_private.h"

/*
 * gate_ask.c: who is served where. The kernel's program does the same with the door tries, but
 * for zones, which it leaves to us.
 */

/* What a prefix is to peers of no zone, where the trie has the mark of a zone. */
static const struct door_value *ask_behind_mark(const struct gate *gate,
	const struct gate_binding *binding, const struct prefix *prefix, struct door_value *out)
{
	const struct door_value *value = cidr_get(binding->balancers, prefix);

	if (value != NULL)
		return value;
	for (unsigned p = 0; p < gate->policy->partner_count; p++) {
		const struct door_value *entry =
			binding->lists[p] == NULL ? NULL : cidr_get(gate->partners[p].set, prefix);

		if (entry == NULL)
			continue;
		*out = gate_list_value(gate, binding, &gate->policy->partners[p], *entry);
		return out;
	}
	return cidr_get(binding->base, prefix);
}

static const struct door_value *find_zoned(
	const struct gate_binding *binding, const struct prefix *prefix, uint32_t zone)
{
	for (unsigned i = 0; i < binding->zoned_count; i++)
		if (binding->zoned[i].zone == zone &&
			prefix_compare(&binding->zoned[i].prefix, prefix) == 0)
			return &binding->zoned[i].value;
	return NULL;
}

/*
 * The longest prefix with the peer has the mark of a zone. From there upwards: the first rule of
 * the peer's zone or of none.
 */
static bool ask_zoned(const struct gate *gate, const struct gate_binding *binding, uint32_t zone,
	const struct door_value *marked, struct prefix *prefix, struct door_value *out)
{
	for (const struct door_value *at = marked; at != NULL;
		at = cidr_above(binding->door, prefix, prefix)) {
		const struct door_value *value = at;
		struct door_value room;

		if ((at->flags & DOOR_ZONED) != 0) {
			value = find_zoned(binding, prefix, zone);
			if (value == NULL)
				value = ask_behind_mark(gate, binding, prefix, &room);
		}
		if (value == NULL)
			continue;
		*out = *value;
		return true;
	}
	return false;
}

/* In one binding; false: no rule has the peer. */
static bool ask_binding(const struct gate *gate, const struct gate_binding *binding,
	const struct ip *peer, uint32_t zone, bool is_announced, struct prefix *prefix,
	struct door_value *out)
{
	const struct cidr *trie =
		is_announced && binding->rules != NULL ? binding->rules : binding->door;
	const struct door_value *value = cidr_lookup(trie, peer, prefix);

	if (value == NULL)
		return false;
	if ((value->flags & DOOR_ZONED) != 0)
		return ask_zoned(gate, binding, zone, value, prefix, out);
	*out = *value;
	return true;
}

/* False: it has a number that we do not know. */
static bool answer_of(const struct gate *gate, struct door_value value, struct gate_answer *out)
{
	*out = (struct gate_answer){
		.is_excluded = (value.flags & DOOR_EXCLUDED) != 0,
		.is_balancer = (value.flags & DOOR_BALANCER) != 0,
	};
	if (value.connector >= DOOR_CONNECTORS_MAX || value.partner >= DOOR_PARTNERS_MAX)
		return false;
	out->connector = out->is_excluded ? NULL : gate->connectors[value.connector];
	out->partner = gate->named[value.partner];
	return gate->connectors[value.connector] != NULL &&
	       (value.partner == 0 || out->partner != NULL);
}

bool gate_resolve(const struct gate *gate, struct door_value value, struct gate_answer *out)
{
	struct gate_answer answer;

	if ((value.flags & DOOR_ZONED) != 0 || !answer_of(gate, value, &answer))
		return false;
	*out = answer;
	return true;
}

static bool ask(struct gate *gate, const struct address *local, const struct ip *peer,
	uint32_t zone, bool is_announced, struct gate_answer *out)
{
	const struct gate_binding *exact = NULL, *wildcard = NULL;
	const uint16_t port = address_port(local);
	struct door_value value = {0};
	struct prefix prefix = {0};
	struct ip own;
	bool found = false;

	*out = (struct gate_answer){0};
	if (!ip_of_sockaddr((const struct sockaddr *)&local->sockaddr, &own))
		return false;
	for (unsigned b = 0; b < gate->binding_count; b++) {
		const struct gate_binding *binding = &gate->bindings[b];

		if (binding->port != port || binding->ip.is_v6 != own.is_v6)
			continue;
		if (ip_compare(&binding->ip, &own) == 0)
			exact = binding;
		else if (ip_is_any(&binding->ip))
			wildcard = binding;
	}
	(void)pthread_rwlock_rdlock(&gate->lock);
	if (exact != NULL)
		found = ask_binding(gate, exact, peer, zone, is_announced, &prefix, &value);
	if (!found && wildcard != NULL)
		found = ask_binding(gate, wildcard, peer, zone, is_announced, &prefix, &value);
	(void)pthread_rwlock_unlock(&gate->lock);
	if (!found)
		return false;
	ASSERT(answer_of(gate, value, out));
	out->prefix = prefix;
	return !out->is_excluded;
}

bool gate_ask(struct gate *gate, const struct address *local, const struct ip *peer, uint32_t zone,
	struct gate_answer *out)
{
	return ask(gate, local, peer, zone, false, out);
}

bool gate_ask_announced(struct gate *gate, const struct address *local, const struct ip *peer,
	struct gate_answer *out)
{
	return ask(gate, local, peer, 0, true, out);
}
