/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/log.h"
#include "relay/doorman_private.h"
#include "relay/quota.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * doorman_kernel.c: the kernel's copy of a gate, and how one world follows another. What may fail
 * is done while the old tries decide; then tries are exchanged, one binding after the other.
 */

static const char *kernel_remedy(int rc)
{
	switch (rc) {
	case -ENOSPC:
		return "the kernel's maps are full: fewer prefixes, or fewer bindings";
	case -ENOMEM:
		return "the kernel has no memory for it: try again, or give the machine more";
	default:
		return strerror(-rc);
	}
}

static int guard_complain(const struct doorman_guard *guard, const char *what, int rc, FILE *errors)
{
	char text[64];

	address_print(&guard->address, text, sizeof(text));
	(void)fprintf(errors, "the door in the kernel, binding %s: %s: %s\n", text, what,
		kernel_remedy(rc));
	return rc;
}

static const struct doorman_guard *guard_find(
	const struct doorman_guards *guards, const struct address *address)
{
	for (unsigned i = 0; i < guards->count; i++)
		if (address_is_equal(&guards->rows[i].address, address))
			return &guards->rows[i];
	return NULL;
}

static void guards_free(struct doorman_guards *guards)
{
	free(guards->rows);
	*guards = (struct doorman_guards){0};
}

/* Bindings that are new are not guarded any more; what was in force stays. False: one still is. */
static bool guards_undo(struct doorman *doorman)
{
	bool is_undone = true;

	for (unsigned i = 0; i < doorman->next_guards.count; i++) {
		const struct doorman_guard *guard = &doorman->next_guards.rows[i];

		if (!guard->is_new || kernel_door_unbind(doorman->kernel, guard->slot) >= 0)
			continue;
		is_undone = false;
		log_event(LOG_LEVEL_ERROR, NULL, "door",
			"result=failed why=\"a binding is guarded that is not listened on\"");
	}
	guards_free(&doorman->next_guards);
	return is_undone;
}

/* A slot with the trie that the binding will have; a new binding is guarded by it at once. */
static int guard_prepare(struct doorman *doorman, const struct gate *gate, unsigned binding,
	struct doorman_guard *guard, FILE *errors)
{
	const struct cidr *trie = gate_binding_trie(gate, binding);
	const char *what = "filling its trie";
	int rc = kernel_door_fill(doorman->kernel, guard->slot, trie);

	if (rc == 0 && guard->is_new) {
		what = "exchanging its trie";
		rc = kernel_door_swap(doorman->kernel, guard->slot);
	}
	if (rc == 0 && guard->is_new) {
		what = "guarding it";
		rc = kernel_door_bind(doorman->kernel, guard->slot);
	}
	return rc < 0 ? guard_complain(guard, what, rc, errors) : 0;
}

int doorman_create_guards(struct doorman *doorman, struct world *world, bool is_start, FILE *errors)
{
	struct doorman_guards *next = &doorman->next_guards;
	const struct gate *gate = world->gate;
	const unsigned count = gate_binding_count(gate);
	int rc = 0;

	*next = (struct doorman_guards){.rows = calloc(count + 1, sizeof(*next->rows))};
	if (next->rows == NULL)
		return -ENOMEM;
	for (unsigned i = 0; rc == 0 && i < count; i++) {
		struct doorman_guard *guard = &next->rows[i];
		const struct doorman_guard *old;

		guard->address = *gate_binding_address(gate, i);
		old = guard_find(&doorman->guards, &guard->address);
		guard->is_new = old == NULL;
		if (old != NULL)
			guard->slot = old->slot;
		else
			rc = kernel_door_take_slot(doorman->kernel, &guard->address, &guard->slot);
		if (rc < 0) {
			rc = guard_complain(guard, "it gets no slot", rc, errors);
			break;
		}
		next->count++;
		rc = guard_prepare(doorman, gate, i, guard, errors);
	}
	if (rc < 0 && is_start)
		guards_free(next);
	return rc;
}

/* What the kernel guards and the gate does not know: of the world before, or of an earlier start.
 */
static int guards_give_up(struct doorman *doorman)
{
	unsigned slots[DOORMAN_BINDINGS_MAX];
	struct address address;
	unsigned count = 0;
	unsigned slot;
	int rc = 0;

	for (unsigned i = 0; count < DOORMAN_BINDINGS_MAX &&
			     kernel_door_binding(doorman->kernel, i, &address, &slot);
		i++)
		if (guard_find(&doorman->guards, &address) == NULL)
			slots[count++] = slot;
	for (unsigned i = 0; i < count; i++) {
		int result = kernel_door_unbind(doorman->kernel, slots[i]);

		rc = result < 0 ? result : rc;
	}
	return rc;
}

static int doorman_set_limits(struct doorman *doorman, const struct world *world)
{
	const struct policy *policy = world->policy;
	int rc = 0;

	for (unsigned i = 0; i < policy->receive_connector_count; i++) {
		const struct receive_connector *connector = &policy->receive_connectors[i];
		const unsigned id = gate_connector_id(world->gate, connector);
		const struct door_limit limit = quota_connection_limit(connector);
		int result = id == 0 ? 0 : kernel_door_set_limit(doorman->kernel, id, &limit);

		rc = result < 0 ? result : rc;
	}
	return rc;
}

int doorman_guard_locked(struct doorman *doorman, struct world *world)
{
	int rc = 0;
	int result;

	/* Until all are exchanged, workers ask their world's gate. */
	atomic_store(&doorman->kernel_world, NULL);
	for (unsigned i = 0; i < doorman->next_guards.count; i++) {
		struct doorman_guard *guard = &doorman->next_guards.rows[i];

		result = guard->is_new ? 0 : kernel_door_swap(doorman->kernel, guard->slot);
		rc = result < 0 ? result : rc;
		guard->is_new = false;
	}
	guards_free(&doorman->guards);
	doorman->guards = doorman->next_guards;
	doorman->next_guards = (struct doorman_guards){0};
	result = guards_give_up(doorman);
	rc = result < 0 ? result : rc;
	result = doorman_set_limits(doorman, world);
	rc = result < 0 ? result : rc;
	if (rc == 0)
		atomic_store(&doorman->kernel_world, world);
	return rc;
}

int doorman_write_names(struct doorman *doorman, FILE *errors)
{
	int rc = doorman->kernel == NULL ? 0
					 : kernel_door_write_names(doorman->kernel, doorman->ids);

	if (rc < 0)
		(void)fprintf(errors, "the door in the kernel: the map \"names\": %s\n",
			kernel_remedy(rc));
	return rc;
}

/* ---- one prefix */

struct piece piece_of(const struct cidr *trie, const struct prefix *prefix)
{
	const struct door_value *value = cidr_get(trie, prefix);

	return (struct piece){
		.exists = value != NULL, .value = value == NULL ? (struct door_value){0} : *value};
}

bool piece_is_same(const struct piece *a, const struct piece *b)
{
	return a->exists == b->exists && a->value.connector == b->value.connector &&
	       a->value.flags == b->value.flags && a->value.partner == b->value.partner;
}

int piece_apply(struct kernel_door *kernel, unsigned slot, const struct prefix *prefix,
	const struct piece *piece)
{
	return piece->exists ? kernel_door_put(kernel, slot, prefix, piece->value)
			     : kernel_door_drop(kernel, slot, prefix);
}

/* ---- reloads */

void doorman_reload_begin(struct doorman *doorman)
{
	(void)pthread_mutex_lock(&doorman->lock);
}

/* A list was changed while the world was being read: its gate may have what was before. */
static int reload_refresh(struct doorman *doorman, struct world *world, FILE *errors)
{
	return atomic_load(&doorman->changes) == doorman->changes_seen
		       ? 0
		       : world_renew_gate(world, doorman->ids, errors);
}

int doorman_reload_prepare(struct doorman *doorman, struct world *world, FILE *errors)
{
	int rc = reload_refresh(doorman, world, errors);

	if (rc == 0)
		rc = doorman_create_files(world, &doorman->next_files);
	if (rc == 0)
		rc = doorman_write_names(doorman, errors);
	if (rc == 0 && doorman->kernel != NULL) {
		/*
		 * A binding that is new may lie within one that is in force, as an address does
		 * within the wildcard: the kernel then goes by both worlds, a worker by its own.
		 */
		doorman->paused_world = atomic_exchange(&doorman->kernel_world, NULL);
		rc = doorman_create_guards(doorman, world, false, errors);
	}
	if (rc == 0)
		doorman_note_slots(doorman, world);
	return rc;
}

void doorman_reload_finish(struct doorman *doorman, struct world *world)
{
	int rc = doorman->kernel == NULL ? 0 : doorman_guard_locked(doorman, world);

	if (rc < 0)
		log_event(LOG_LEVEL_ERROR, NULL, "door",
			"result=failed why=\"%s; the relay refuses after accepting whom the "
			"kernel still lets in, until the next reload\"",
			kernel_remedy(rc));
	doorman->paused_world = NULL;
	free(doorman->files);
	doorman->files = doorman->next_files;
	doorman->next_files = NULL;
	/*
	 * No worker asks it any more. Sessions hold its world, and the last of them would have to
	 * free it, on a worker.
	 */
	gate_destroy(&doorman->world->gate);
	world_release(&doorman->world);
	doorman->world = world_hold(world);
	doorman_keep_names(doorman);
	(void)pthread_mutex_unlock(&doorman->lock);
}

void doorman_reload_abandon(struct doorman *doorman)
{
	if (doorman->kernel != NULL && guards_undo(doorman) && doorman->paused_world != NULL)
		atomic_store(&doorman->kernel_world, doorman->paused_world);
	doorman->paused_world = NULL;
	free(doorman->next_files);
	doorman->next_files = NULL;
	*doorman->ids = *doorman->names;
	(void)pthread_mutex_unlock(&doorman->lock);
}
