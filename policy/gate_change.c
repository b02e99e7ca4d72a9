/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/gate_private.h"
#include <errno.h>
#include <stdlib.h>

/*
 * gate_change.c: another list for a partner. Everything that may fail happens beside what is in
 * force, or, for one prefix, so that it can be undone without memory.
 */

/* What a binding will be; NULL where it does not change. */
struct stage_tries {
	struct cidr *door;
	struct cidr *rules;
};

struct gate_stage {
	struct gate *gate;
	const struct partner *partner;
	struct cidr *set;
	struct stage_tries *tries; /* by binding */
	struct gate_mistakes mistakes;
	int rc; /* while it is prepared */
};

/* A copy of what is in force, at the first prefix that differs. */
static int stage_copy(const struct cidr *from, struct cidr **to)
{
	return from == NULL || *to != NULL ? 0 : cidr_copy_create(from, to);
}

/* entry: what the prefix is in the new set; NULL: nothing. */
static int stage_prefix(struct gate_stage *stage, unsigned b, const struct prefix *prefix,
	const struct door_value *entry)
{
	const struct gate *gate = stage->gate;
	const struct gate_binding *binding = &gate->bindings[b];
	struct stage_tries *tries = &stage->tries[b];
	struct door_value value;
	int rc = 0;

	if (binding_has_family(binding, prefix))
		rc = stage_copy(binding->door, &tries->door);
	if (rc == 0)
		rc = stage_copy(binding->rules, &tries->rules);
	if (rc < 0)
		return rc;
	if (entry != NULL)
		value = gate_list_value(gate, binding, stage->partner, *entry);
	return binding_apply(
		binding, tries->door, tries->rules, prefix, entry == NULL ? NULL : &value);
}

/* What is in both sets, differently, comes twice, which does no harm. */
static void stage_on_line(
	void *owner, char sign, const struct prefix *prefix, struct door_value value)
{
	struct gate_stage *stage = owner;
	const struct gate *gate = stage->gate;
	const struct door_value *entry = sign == '+' ? &value : cidr_get(stage->set, prefix);

	for (unsigned b = 0; stage->rc == 0 && b < gate->binding_count; b++) {
		if (gate->bindings[b].lists[stage->partner->index] == NULL)
			continue;
		if (sign == '+')
			gate_check_partners(
				gate, &gate->bindings[b], stage->partner, prefix, &stage->mistakes);
		/* After a mistake others are looked for, and nothing is made any more. */
		if (stage->mistakes.count == 0)
			stage->rc = stage_prefix(stage, b, prefix, entry);
	}
}

static int stage_fill(struct gate_stage *stage)
{
	const struct gate *gate = stage->gate;
	const unsigned partner = stage->partner->index;
	struct ip_list_diff diff;

	for (unsigned b = 0; b < gate->binding_count; b++)
		if (gate->bindings[b].lists[partner] != NULL)
			gate_check_set_ranges(gate, &gate->bindings[b], stage->partner, stage->set,
				&stage->mistakes);
	ip_list_compare(gate->partners[partner].set, stage->set, &diff, stage_on_line, stage);
	return stage->mistakes.count > 0 ? -EINVAL : stage->rc;
}

int gate_stage_create(struct gate *gate, const struct partner *partner, const struct cidr *set,
	FILE *errors, struct gate_stage **out)
{
	struct gate_stage *stage = calloc(1, sizeof(*stage));
	int rc = -ENOMEM;

	ASSERT(gate->partners[partner->index].set != NULL);
	if (stage == NULL)
		return rc;
	stage->gate = gate;
	stage->partner = partner;
	stage->mistakes = (struct gate_mistakes){.errors = errors, .where = ""};
	stage->tries = calloc(gate->binding_count + 1, sizeof(*stage->tries));
	if (stage->tries != NULL)
		rc = cidr_copy_create(set, &stage->set);
	if (rc == 0)
		rc = stage_fill(stage);
	if (rc < 0)
		gate_stage_destroy(&stage);
	else
		*out = stage;
	return rc;
}

const struct cidr *gate_stage_trie(const struct gate_stage *stage, unsigned binding)
{
	ASSERT(binding < stage->gate->binding_count);
	return stage->tries[binding].door;
}

static void exchange(struct cidr **in_force, struct cidr **other)
{
	struct cidr *old = *in_force;

	if (*other == NULL)
		return;
	*in_force = *other;
	*other = old;
}

void gate_stage_commit(struct gate_stage **out, uint64_t generation)
{
	struct gate_stage *stage = *out;
	struct gate *gate = stage->gate;
	struct gate_partner *own = &gate->partners[stage->partner->index];

	(void)pthread_rwlock_wrlock(&gate->lock);
	exchange(&own->set, &stage->set);
	for (unsigned b = 0; b < gate->binding_count; b++) {
		exchange(&gate->bindings[b].door, &stage->tries[b].door);
		exchange(&gate->bindings[b].rules, &stage->tries[b].rules);
	}
	(void)pthread_rwlock_unlock(&gate->lock);
	own->generation = generation;
	/* With what was in force until now. */
	gate_stage_destroy(out);
}

void gate_stage_destroy(struct gate_stage **out)
{
	struct gate_stage *stage = *out;

	*out = NULL;
	if (stage == NULL)
		return;
	for (unsigned b = 0; stage->tries != NULL && b < stage->gate->binding_count; b++) {
		cidr_destroy(&stage->tries[b].door);
		cidr_destroy(&stage->tries[b].rules);
	}
	cidr_destroy(&stage->set);
	free(stage->tries);
	free(stage);
}

/* ---- one prefix */

static int one_check(const struct gate *gate, const struct partner *partner,
	const struct prefix *prefix, FILE *errors)
{
	struct gate_mistakes mistakes = {.errors = errors, .where = ""};

	for (unsigned b = 0; b < gate->binding_count; b++) {
		if (gate->bindings[b].lists[partner->index] == NULL)
			continue;
		gate_check_ranges(gate, &gate->bindings[b], partner, prefix, &mistakes);
		gate_check_partners(gate, &gate->bindings[b], partner, prefix, &mistakes);
	}
	return mistakes.count == 0 ? 0 : -EINVAL;
}

/* In all bindings; only adding a prefix that was not there can fail. */
static int one_apply(struct gate *gate, const struct partner *partner, const struct prefix *prefix,
	const struct door_value *entry)
{
	struct cidr *set = gate->partners[partner->index].set;
	int rc = 0;

	if (entry == NULL)
		(void)cidr_remove(set, prefix);
	else
		rc = cidr_put(set, prefix, *entry);
	for (unsigned b = 0; rc == 0 && b < gate->binding_count; b++) {
		struct gate_binding *binding = &gate->bindings[b];
		struct door_value value;

		if (binding->lists[partner->index] == NULL)
			continue;
		if (entry != NULL)
			value = gate_list_value(gate, binding, partner, *entry);
		rc = binding_apply(binding, binding->door, binding->rules, prefix,
			entry == NULL ? NULL : &value);
	}
	return rc;
}

int gate_change_one(struct gate *gate, const struct partner *partner, const struct prefix *prefix,
	const struct door_value *value, uint64_t generation, FILE *errors)
{
	struct gate_partner *own = &gate->partners[partner->index];
	const struct door_value *old = cidr_get(own->set, prefix);
	const bool is_new = value != NULL && old == NULL;
	int rc = 0;

	if (value == NULL && old == NULL)
		return -ENOENT;
	if (value != NULL && old != NULL && old->flags == value->flags)
		return -EEXIST;
	if (is_new)
		rc = one_check(gate, partner, prefix, errors);
	if (rc < 0)
		return rc;
	(void)pthread_rwlock_wrlock(&gate->lock);
	rc = one_apply(gate, partner, prefix, value);
	if (rc < 0) {
		ASSERT(is_new);
		ASSERT(one_apply(gate, partner, prefix, NULL) == 0);
	}
	(void)pthread_rwlock_unlock(&gate->lock);
	if (rc == 0)
		own->generation = generation;
	return rc;
}
