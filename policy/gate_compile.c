/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/gate_private.h"
#include "policy/partner.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * gate_compile.c: what the configuration says about a binding, as prefixes. Ranges are cut from the
 * widest to the narrowest, so that of equal pieces the narrower range's is the last.
 */

/* A range of a connector. */
struct rule {
	const struct receive_connector *connector;
	const struct ip_range *range;
};

static struct gate_binding *find_binding(
	const struct gate *gate, const struct ip *ip, uint16_t port)
{
	for (unsigned b = 0; b < gate->binding_count; b++)
		if (gate->bindings[b].port == port && ip_compare(&gate->bindings[b].ip, ip) == 0)
			return &gate->bindings[b];
	return NULL;
}

static bool connector_announces(const struct receive_connector *connector)
{
	return connector->proxy_balancer_count > 0 || connector->xclient_host_count > 0;
}

static void name_partners(const struct gate *gate, struct gate_binding *binding,
	const struct receive_connector *connector)
{
	const struct policy *policy = gate->policy;

	for (unsigned p = 0; p < policy->partner_count; p++) {
		if (!partner_is_asked(&policy->partners[p], connector))
			continue;
		binding->list_count += binding->lists[p] == NULL;
		binding->lists[p] = connector;
	}
}

static int add_connector(
	struct gate *gate, const struct receive_connector *connector, const struct address *address)
{
	const struct policy *policy = gate->policy;
	const uint16_t port = address_port(address);
	struct gate_binding *binding = NULL;
	struct ip ip;

	if (!ip_of_sockaddr((const struct sockaddr *)&address->sockaddr, &ip))
		return 0;
	binding = find_binding(gate, &ip, port);
	if (binding == NULL) {
		binding = &gate->bindings[gate->binding_count++];
		*binding = (struct gate_binding){.address = address, .ip = ip, .port = port};
		binding->connectors = calloc(
			policy->receive_connector_count, sizeof(const struct receive_connector *));
		binding->lists =
			calloc(policy->partner_count + 1, sizeof(const struct receive_connector *));
		if (binding->connectors == NULL || binding->lists == NULL)
			return -ENOMEM;
	}
	ASSERT(binding->connectors != NULL);
	/* The same address twice is a mistake, but one that policy_load() has found. */
	if (binding->connector_count > 0 &&
		binding->connectors[binding->connector_count - 1] == connector)
		return 0;
	binding->connectors[binding->connector_count++] = connector;
	binding->has_rules = binding->has_rules || connector_announces(connector);
	name_partners(gate, binding, connector);
	return 0;
}

int gate_create_bindings(struct gate *gate)
{
	const struct policy *policy = gate->policy;
	unsigned count = 0;

	for (unsigned i = 0; i < policy->receive_connector_count; i++)
		count += policy->receive_connectors[i].binding_count;
	gate->bindings = calloc(count + 1, sizeof(*gate->bindings));
	if (gate->bindings == NULL)
		return -ENOMEM;
	for (unsigned i = 0; i < policy->receive_connector_count; i++) {
		const struct receive_connector *connector = &policy->receive_connectors[i];

		for (unsigned j = 0; connector->enabled && j < connector->binding_count; j++)
			if (add_connector(gate, connector, &connector->bindings[j]) < 0)
				return -ENOMEM;
	}
	/* Who is announced to an address of its own may be served by the wildcard's rules. */
	for (unsigned b = 0; b < gate->binding_count; b++) {
		struct ip any = {.is_v6 = gate->bindings[b].ip.is_v6};
		struct gate_binding *second = find_binding(gate, &any, gate->bindings[b].port);

		if (second != NULL && gate->bindings[b].has_rules)
			second->has_rules = true;
	}
	return 0;
}

/* Widest first. */
static int rule_compare(const void *a, const void *b)
{
	const struct rule *left = a, *right = b;

	if (ip_range_is_narrower(left->range, right->range))
		return 1;
	return ip_range_is_narrower(right->range, left->range) ? -1 : 0;
}

/* The ranges of all connectors of the binding, widest first; NULL: no memory. */
static struct rule *binding_rules(
	const struct gate_binding *binding, bool of_balancers, unsigned *out_count)
{
	struct rule *rules = NULL;
	unsigned count = 0;

	for (unsigned i = 0; i < binding->connector_count; i++)
		count += of_balancers ? binding->connectors[i]->proxy_balancer_count
				      : binding->connectors[i]->remote_ip_range_count;
	rules = calloc(count + 1, sizeof(*rules));
	*out_count = 0;
	for (unsigned i = 0; rules != NULL && i < binding->connector_count; i++) {
		const struct receive_connector *connector = binding->connectors[i];
		const struct ip_range *ranges =
			of_balancers ? connector->proxy_balancers : connector->remote_ip_ranges;
		const unsigned own = of_balancers ? connector->proxy_balancer_count
						  : connector->remote_ip_range_count;

		for (unsigned j = 0; j < own; j++)
			rules[(*out_count)++] = (struct rule){connector, &ranges[j]};
	}
	if (*out_count > 1)
		qsort(rules, *out_count, sizeof(*rules), rule_compare);
	return rules;
}

/* Replaces that of an equal prefix and zone. */
static int put_zoned(struct gate_binding *binding, const struct prefix *prefix, uint32_t zone,
	struct door_value value)
{
	struct gate_zoned *grown = NULL;

	for (unsigned i = 0; i < binding->zoned_count; i++) {
		struct gate_zoned *zoned = &binding->zoned[i];

		if (zoned->zone != zone || prefix_compare(&zoned->prefix, prefix) != 0)
			continue;
		zoned->value = value;
		return 0;
	}
	grown = reallocarray(binding->zoned, binding->zoned_count + 1, sizeof(*grown));
	if (grown == NULL)
		return -ENOMEM;
	binding->zoned = grown;
	grown[binding->zoned_count++] = (struct gate_zoned){*prefix, zone, value};
	return cidr_put(binding->marks, prefix, (struct door_value){.flags = DOOR_ZONED});
}

static int put_rule(struct gate_binding *binding, struct cidr *trie, const struct rule *rule,
	struct door_value value)
{
	struct prefix prefixes[PREFIXES_OF_RANGE_MAX];
	const unsigned count = prefix_of_range(rule->range, prefixes);
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < count; i++) {
		if (rule->range->zone == 0)
			rc = cidr_put(trie, &prefixes[i], value);
		else if (binding_has_family(binding, &prefixes[i]))
			rc = put_zoned(binding, &prefixes[i], rule->range->zone, value);
	}
	return rc;
}

static int put_rules(const struct gate *gate, struct gate_binding *binding, bool of_balancers)
{
	unsigned count = 0;
	struct rule *rules = binding_rules(binding, of_balancers, &count);
	int rc = rules == NULL ? -ENOMEM : 0;

	for (unsigned i = 0; rc == 0 && i < count; i++)
		rc = put_rule(binding, of_balancers ? binding->balancers : binding->base, &rules[i],
			(struct door_value){
				.connector = (uint16_t)gate_connector_id(gate, rules[i].connector),
				.flags = of_balancers ? DOOR_BALANCER : 0});
	free(rules);
	return rc;
}

/* Who has neither ranges nor partners serves everybody, unless a range is as wide. */
static int put_everybody(const struct gate *gate, struct gate_binding *binding)
{
	static const struct prefix all[] = {{.ip.is_v6 = false}, {.ip.is_v6 = true}};
	int rc = 0;

	for (unsigned i = 0; i < binding->connector_count; i++) {
		const struct receive_connector *connector = binding->connectors[i];
		const struct door_value value = {
			.connector = (uint16_t)gate_connector_id(gate, connector)};

		if (connector->remote_ip_range_count > 0 || connector->remote_ip_partner_count > 0)
			continue;
		for (unsigned f = 0; rc == 0 && f < COUNT_OF(all); f++)
			rc = cidr_put(binding->base, &all[f], value);
	}
	return rc;
}

/* All prefixes of one kind into the tries in force. */
static int apply_all(struct gate_binding *binding, const struct cidr *kind)
{
	struct cidr_walk walk;
	struct door_value value;
	struct prefix prefix;
	int rc = 0;

	cidr_walk_start(&walk, kind);
	while (rc == 0 && cidr_walk_next(&walk, &prefix, &value))
		rc = binding_apply(binding, binding->door, binding->rules, &prefix, NULL);
	return rc;
}

int binding_create_tries(const struct gate *gate, struct gate_binding *binding)
{
	int rc = cidr_create(&binding->base);

	if (rc == 0)
		rc = cidr_create(&binding->balancers);
	if (rc == 0)
		rc = cidr_create(&binding->marks);
	if (rc == 0)
		rc = cidr_create(&binding->door);
	if (rc == 0 && binding->has_rules)
		rc = cidr_create(&binding->rules);
	if (rc == 0)
		rc = put_everybody(gate, binding);
	if (rc == 0)
		rc = put_rules(gate, binding, false);
	if (rc == 0)
		rc = put_rules(gate, binding, true);
	if (rc == 0)
		rc = apply_all(binding, binding->base);
	if (rc == 0)
		rc = apply_all(binding, binding->balancers);
	if (rc == 0)
		rc = apply_all(binding, binding->marks);
	return rc;
}

void binding_destroy(struct gate_binding *binding)
{
	cidr_destroy(&binding->base);
	cidr_destroy(&binding->balancers);
	cidr_destroy(&binding->marks);
	cidr_destroy(&binding->door);
	cidr_destroy(&binding->rules);
	free(binding->zoned);
	free(binding->connectors);
	free(binding->lists);
}

bool binding_has_family(const struct gate_binding *binding, const struct prefix *prefix)
{
	return prefix->ip.is_v6 == binding->ip.is_v6;
}

static int trie_set(struct cidr *trie, const struct prefix *prefix, const struct door_value *value)
{
	if (value != NULL)
		return cidr_put(trie, prefix, *value);
	(void)cidr_remove(trie, prefix);
	return 0;
}

int binding_apply(const struct gate_binding *binding, struct cidr *door, struct cidr *rules,
	const struct prefix *prefix, const struct door_value *list)
{
	const struct door_value *value = NULL;
	int rc = 0;

	if (list == NULL)
		list = cidr_get(binding->base, prefix);
	if (rules != NULL)
		rc = trie_set(rules, prefix, list);
	if (rc < 0 || door == NULL || !binding_has_family(binding, prefix))
		return rc;
	value = cidr_get(binding->marks, prefix);
	if (value == NULL)
		value = cidr_get(binding->balancers, prefix);
	return trie_set(door, prefix, value == NULL ? list : value);
}

struct door_value gate_list_value(const struct gate *gate, const struct gate_binding *binding,
	const struct partner *partner, struct door_value entry)
{
	return (struct door_value){
		.connector = (uint16_t)gate_connector_id(gate, binding->lists[partner->index]),
		.flags = entry.flags & DOOR_EXCLUDED,
		.partner = gate_partner_id(gate, partner),
	};
}
