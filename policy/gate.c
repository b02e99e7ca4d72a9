/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/gate_private.h"
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/*
 * gate.c: made from a policy and the lists on disk, and what is in it.
 */

/* The list of a partner, from its file; a partner without a folder has an empty one. */
static int read_list(const struct gate *gate, const struct partner *partner, FILE *errors,
	struct gate_partner *own)
{
	struct ip_list list = {0};
	char path[PATH_MAX];
	int rc = 0;

	if (gate->policy->partner_lists == NULL)
		return cidr_create(&own->set);
	if (!ip_list_path(gate->policy->partner_lists, partner->name, path, sizeof(path)))
		rc = -ENAMETOOLONG;
	if (rc == 0)
		rc = ip_list_read(path, errors, &list);
	if (rc < 0 && rc != -EINVAL && rc != -ENOMEM)
		(void)fprintf(errors,
			"%s:%u: the list of partner \"%s\", %s/%s.list, cannot be read (%s), "
			"expected a file of addresses that the relay may read\n",
			gate->policy->file, partner->line, partner->name,
			gate->policy->partner_lists, partner->name, strerror(-rc));
	if (rc < 0)
		return rc;
	own->set = list.set;
	own->generation = list.generation;
	own->file = list.file;
	return 0;
}

/* Those that a binding asks for. All are read, so that all mistakes are told. */
static int read_lists(struct gate *gate, FILE *errors)
{
	int rc = 0;

	for (unsigned p = 0; p < gate->policy->partner_count; p++) {
		bool is_named = false;
		int one = 0;

		for (unsigned b = 0; b < gate->binding_count; b++)
			is_named = is_named || gate->bindings[b].lists[p] != NULL;
		if (is_named)
			one = read_list(
				gate, &gate->policy->partners[p], errors, &gate->partners[p]);
		if (rc == 0)
			rc = one;
	}
	return rc;
}

static int add_list(
	const struct gate *gate, struct gate_binding *binding, const struct partner *partner)
{
	const struct cidr *set = gate->partners[partner->index].set;
	struct cidr_walk walk;
	struct door_value entry;
	struct prefix prefix;
	int rc = 0;

	cidr_walk_start(&walk, set);
	while (rc == 0 && cidr_walk_next(&walk, &prefix, &entry)) {
		const struct door_value value = gate_list_value(gate, binding, partner, entry);

		rc = binding_apply(binding, binding->door, binding->rules, &prefix, &value);
	}
	return rc;
}

static void check_list(const struct gate *gate, const struct gate_binding *binding,
	const struct partner *partner, struct gate_mistakes *mistakes)
{
	const struct cidr *set = gate->partners[partner->index].set;
	struct cidr_walk walk;
	struct door_value entry;
	struct prefix prefix;

	gate_check_set_ranges(gate, binding, partner, set, mistakes);
	cidr_walk_start(&walk, set);
	while (cidr_walk_next(&walk, &prefix, &entry))
		gate_check_partners(gate, binding, partner, &prefix, mistakes);
}

/* The lists of the binding's partners into its tries, one after another, each if it may. */
static int add_lists(const struct gate *gate, struct gate_binding *binding, FILE *errors)
{
	char path[PATH_MAX] = "", where[PATH_MAX + 2];
	unsigned mistakes_count = 0;
	int rc = 0;

	for (unsigned p = 0; rc == 0 && p < gate->policy->partner_count; p++) {
		const struct partner *partner = &gate->policy->partners[p];
		struct gate_mistakes mistakes = {.errors = errors, .where = where};

		if (binding->lists[p] == NULL)
			continue;
		if (gate->policy->partner_lists != NULL)
			(void)ip_list_path(
				gate->policy->partner_lists, partner->name, path, sizeof(path));
		(void)snprintf(where, sizeof(where), "%s: ", path);
		check_list(gate, binding, partner, &mistakes);
		mistakes_count += mistakes.count;
		if (mistakes_count == 0)
			rc = add_list(gate, binding, partner);
	}
	return rc == 0 && mistakes_count > 0 ? -EINVAL : rc;
}

static int fill_bindings(struct gate *gate, FILE *errors)
{
	int rc = 0;

	for (unsigned b = 0; b < gate->binding_count; b++) {
		int one = binding_create_tries(gate, &gate->bindings[b]);

		if (one == 0)
			one = add_lists(gate, &gate->bindings[b], errors);
		if (rc == 0)
			rc = one;
	}
	return rc;
}

/* Who changes a list does not wait for those who ask without a pause. */
static int create_lock(pthread_rwlock_t *lock)
{
	pthread_rwlockattr_t attributes;
	int rc = pthread_rwlockattr_init(&attributes);

	if (rc != 0)
		return -rc;
	rc = pthread_rwlockattr_setkind_np(
		&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	if (rc == 0)
		rc = pthread_rwlock_init(lock, &attributes);
	(void)pthread_rwlockattr_destroy(&attributes);
	return -rc;
}

int gate_create(const struct policy *policy, struct gate_ids *ids, FILE *errors, struct gate **out)
{
	struct gate *gate = calloc(1, sizeof(*gate));
	struct gate_ids *numbers = NULL;
	int rc = gate == NULL ? -ENOMEM : create_lock(&gate->lock);

	if (rc < 0) {
		free(gate);
		return rc;
	}
	gate->policy = policy;
	gate->partners = calloc(policy->partner_count + 1, sizeof(*gate->partners));
	gate->connector_ids =
		calloc(policy->receive_connector_count + 1, sizeof(*gate->connector_ids));
	if (gate->partners == NULL || gate->connector_ids == NULL)
		rc = -ENOMEM;
	if (rc == 0)
		rc = gate_create_bindings(gate);
	if (rc == 0)
		rc = read_lists(gate, errors);
	if (rc == 0)
		rc = gate_ids_create(&numbers);
	if (rc == 0 && ids != NULL)
		*numbers = *ids;
	if (rc == 0)
		rc = gate_assign_ids(gate, numbers, errors);
	if (rc == 0)
		rc = fill_bindings(gate, errors);
	/* A gate that comes to nothing has changed no number. */
	if (rc == 0 && ids != NULL)
		*ids = *numbers;
	gate_ids_destroy(&numbers);
	if (rc < 0)
		gate_destroy(&gate);
	else
		*out = gate;
	return rc;
}

void gate_destroy(struct gate **out)
{
	struct gate *gate = *out;

	*out = NULL;
	if (gate == NULL)
		return;
	for (unsigned b = 0; b < gate->binding_count; b++)
		binding_destroy(&gate->bindings[b]);
	for (unsigned p = 0; gate->partners != NULL && p < gate->policy->partner_count; p++)
		cidr_destroy(&gate->partners[p].set);
	free(gate->bindings);
	free(gate->partners);
	free(gate->connector_ids);
	(void)pthread_rwlock_destroy(&gate->lock);
	free(gate);
}

unsigned gate_binding_count(const struct gate *gate)
{
	return gate->binding_count;
}

const struct address *gate_binding_address(const struct gate *gate, unsigned binding)
{
	ASSERT(binding < gate->binding_count);
	return gate->bindings[binding].address;
}

bool gate_binding_asks(const struct gate *gate, unsigned binding, const struct partner *partner)
{
	ASSERT(binding < gate->binding_count);
	return gate->bindings[binding].lists[partner->index] != NULL;
}

const struct cidr *gate_binding_trie(const struct gate *gate, unsigned binding)
{
	ASSERT(binding < gate->binding_count);
	return gate->bindings[binding].door;
}

unsigned gate_connector_id(const struct gate *gate, const struct receive_connector *connector)
{
	return gate->connector_ids[connector->index];
}

unsigned gate_partner_id(const struct gate *gate, const struct partner *partner)
{
	return gate->partners[partner->index].id;
}

const struct ip_list_file *gate_partner_file(const struct gate *gate, const struct partner *partner)
{
	return &gate->partners[partner->index].file;
}

const struct cidr *gate_partner_set(
	const struct gate *gate, const struct partner *partner, uint64_t *out_generation)
{
	const struct gate_partner *own = &gate->partners[partner->index];

	if (own->set != NULL)
		*out_generation = own->generation;
	return own->set;
}
