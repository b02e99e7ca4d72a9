/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/clock.h"
#include "relay/base/log.h"
#include "relay/doorman_private.h"
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * doorman_change.c: changes of one partner's list: in the kernel, in the gate and on disk, or
 * nowhere. What is undone after a failure is done in the opposite order.
 */

/* Entries that a message names. */
#define NAMED_MAX 5

struct change {
	struct doorman *doorman;
	const struct doorman_request *request;
	struct doorman_result *result;
	const struct partner *partner;
	struct gate *gate;
	uint64_t started_ns;
	char path[PATH_MAX];
	bool is_in_force;       /* a connector names the partner */
	const struct cidr *old; /* of the gate, or of read */
	struct ip_list read;
	struct cidr *want;
	FILE *errors;
	const char *torn; /* what could not be taken back; NULL: nothing */
};

PRINTF_LIKE(3, 4)
static int change_fail(struct change *change, int rc, const char *format, ...)
{
	struct doorman_result *result = change->result;
	va_list values;

	va_start(values, format);
	(void)vsnprintf(result->why, sizeof(result->why), format, values);
	va_end(values);
	return rc;
}

static int change_fail_memory(struct change *change)
{
	change->result->fault = DOORMAN_FAULT_MEMORY;
	return change_fail(change, -ENOMEM, "there is no memory for it; nothing has changed");
}

static int change_fail_disk(struct change *change, int rc)
{
	change->result->fault = DOORMAN_FAULT_DISK;
	return change_fail(change, rc,
		"%s cannot be written: %s; nothing has changed: make room, or let the relay's user "
		"write in that folder",
		change->path, strerror(-rc));
}

static int change_fail_kernel(struct change *change, const struct address *binding, int rc)
{
	char text[64];

	address_print(binding, text, sizeof(text));
	change->result->fault = DOORMAN_FAULT_KERNEL;
	return change_fail(change, rc,
		"the kernel did not take it for binding %s: %s; nothing has changed%s", text,
		strerror(-rc),
		rc == -ENOSPC   ? ": its map is full, use fewer prefixes"
		: rc == -ENOMEM ? ": it has no memory, try again"
				: "");
}

/* The gate's own words, if it had any. */
static int change_fail_gate(struct change *change, int rc)
{
	if (rc == -ENOMEM)
		return change_fail_memory(change);
	change->result->fault = DOORMAN_FAULT_REQUEST;
	return change_fail(change, rc, "it contradicts what is in force");
}

/*
 * The second failure on one way. From now on workers ask the gate, whose set is the old one, also
 * about those whom the kernel lets in; the next reload fills the kernel's tries anew.
 */
static void change_tear(struct change *change, const char *what, int rc)
{
	change->torn = what;
	atomic_store(&change->doorman->kernel_world, NULL);
	log_event(LOG_LEVEL_ERROR, NULL, "door",
		"result=failed why=\"a change could not be taken back %s: %s; a reload makes it "
		"good\"",
		what, strerror(-rc));
}

static uint64_t change_us(const struct change *change)
{
	return (clock_now_ns() - change->started_ns) / 1000;
}

/* ---- the file */

static int change_write(struct change *change, const struct cidr *set, uint64_t generation)
{
	/* The file only reads it. */
	const struct ip_list list = {
		.set = (struct cidr *)(uintptr_t)set, .generation = generation};
	int rc = ip_list_write(change->path, change->partner->name, &list);

	ip_list_look(change->path, &change->doorman->files[change->partner->index]);
	return rc;
}

/* ---- what is wanted */

static int change_find(struct change *change)
{
	struct doorman *doorman = change->doorman;
	const struct doorman_request *request = change->request;
	const char *folder = doorman->world->policy->partner_lists;
	struct ip_list_file file;

	change->partner = policy_partner(doorman->world->policy, request->partner);
	if (change->partner == NULL)
		return change_fail(change, -ESRCH,
			"the configuration in force has no partner \"%s\"", request->partner);
	if (folder == NULL)
		return change_fail(change, -EINVAL,
			"the configuration in force has no partner-lists, the folder where lists "
			"are kept: name one, and reload");
	if (!ip_list_name_is_valid(request->partner) ||
		!ip_list_path(folder, request->partner, change->path, sizeof(change->path)))
		return change_fail(change, -EINVAL,
			"the partner's name cannot be that of a file: no \"/\", no \".\" in front, "
			"at most 127 bytes");
	change->gate = doorman->world->gate;
	change->old =
		gate_partner_set(change->gate, change->partner, &change->result->generation_before);
	change->is_in_force = change->old != NULL;
	ip_list_look(change->path, &file);
	if (change->is_in_force &&
		!ip_list_file_is_same(&file, &doorman->files[change->partner->index])) {
		change->result->fault = DOORMAN_FAULT_DISK;
		return change_fail(change, -ESTALE,
			"%s was changed by hand and is not in force; send the relay SIGHUP, which "
			"reads it again, and then ask again",
			change->path);
	}
	return 0;
}

/* A list that no connector names is on disk only. */
static int change_read(struct change *change)
{
	struct doorman_result *result = change->result;
	int rc;

	if (!change->is_in_force) {
		rc = ip_list_read(change->path, change->errors, &change->read);
		result->fault = rc < 0 ? DOORMAN_FAULT_DISK : DOORMAN_FAULT_REQUEST;
		if (rc < 0)
			return change_fail(change, rc, "%s cannot be read%s%s", change->path,
				rc == -EINVAL ? "" : ": ", rc == -EINVAL ? "" : strerror(-rc));
		change->old = change->read.set;
		result->generation_before = change->read.generation;
	}
	result->generation = result->generation_before;
	if (change->request->has_expected && change->request->expected != result->generation_before)
		return change_fail(change, -EBUSY,
			"the list has generation %lu, not %lu: somebody else has changed it; look "
			"at it again",
			(unsigned long)result->generation_before,
			(unsigned long)change->request->expected);
	return 0;
}

/* Is the entry, with its exclamation mark or without, in the list? */
static bool change_has(
	const struct change *change, const struct prefix *prefix, struct door_value value)
{
	const struct door_value *old = cidr_get(change->old, prefix);

	return old != NULL && old->flags == value.flags;
}

/* All entries to add have to be new, all to remove have to be there. */
static int change_check(struct change *change)
{
	const bool is_add = change->request->verb == DOORMAN_ADD;
	char text[PREFIX_TEXT_BYTES + 1];
	char names[NAMED_MAX * (PREFIX_TEXT_BYTES + 3)] = "";
	struct door_value value;
	struct cidr_walk walk;
	struct prefix prefix;
	size_t at = 0;
	unsigned count = 0;

	if (change->request->verb == DOORMAN_REPLACE)
		return 0;
	cidr_walk_start(&walk, change->request->entries);
	while (cidr_walk_next(&walk, &prefix, &value)) {
		if (change_has(change, &prefix, value) != is_add)
			continue;
		if (count++ < NAMED_MAX)
			at += (size_t)snprintf(names + at, sizeof(names) - at, "%s%s",
				at == 0 ? "" : ", ", ip_list_print(&prefix, value, text));
	}
	if (count == 0)
		return 0;
	return change_fail(change, is_add ? -EEXIST : -ENOENT,
		"%s the list: %s%s; nothing has changed", is_add ? "already in" : "not in", names,
		count > NAMED_MAX ? ", and more" : "");
}

static int change_create_want(struct change *change)
{
	const struct doorman_request *request = change->request;
	struct door_value value;
	struct cidr_walk walk;
	struct prefix prefix;
	int rc = cidr_copy_create(
		request->verb == DOORMAN_REPLACE ? request->entries : change->old, &change->want);

	if (rc == 0 && request->verb != DOORMAN_REPLACE) {
		cidr_walk_start(&walk, request->entries);
		while (rc == 0 && cidr_walk_next(&walk, &prefix, &value)) {
			if (request->verb == DOORMAN_ADD)
				rc = cidr_put(change->want, &prefix, value);
			else
				(void)cidr_remove(change->want, &prefix);
		}
	}
	if (rc < 0)
		return change_fail_memory(change);
	ip_list_compare(change->old, change->want, &change->result->diff, NULL, NULL);
	if (cidr_count(change->want) > DOOR_PREFIXES_MAX)
		return change_fail(change, -ENOSPC, "the list would have %zu prefixes, at most %u",
			cidr_count(change->want), DOOR_PREFIXES_MAX);
	return 0;
}

/* ---- one prefix */

struct one {
	struct prefix prefix;
	const struct door_value *entry;            /* NULL: it is removed */
	struct piece before;                       /* of the list */
	struct piece pieces[DOORMAN_BINDINGS_MAX]; /* of the kernel's tries, before */
};

static unsigned change_guard_count(const struct change *change)
{
	return change->doorman->kernel == NULL ? 0 : change->doorman->guards.count;
}

static void one_note(const struct change *change, struct one *one)
{
	for (unsigned i = 0; i < change_guard_count(change); i++)
		one->pieces[i] = piece_of(gate_binding_trie(change->gate, i), &one->prefix);
}

/* The first count bindings are as they were. */
static void one_undo_kernel(struct change *change, const struct one *one, unsigned count)
{
	const struct doorman_guards *guards = &change->doorman->guards;
	int rc = 0;

	for (unsigned i = 0; i < count; i++) {
		struct piece now = piece_of(gate_binding_trie(change->gate, i), &one->prefix);
		int result = piece_is_same(&now, &one->pieces[i])
				     ? 0
				     : piece_apply(change->doorman->kernel, guards->rows[i].slot,
					       &one->prefix, &one->pieces[i]);

		rc = result < 0 ? result : rc;
	}
	if (rc < 0)
		change_tear(change, "in the kernel", rc);
}

static int one_apply_kernel(struct change *change, const struct one *one)
{
	const struct doorman_guards *guards = &change->doorman->guards;

	for (unsigned i = 0; i < change_guard_count(change); i++) {
		struct piece now = piece_of(gate_binding_trie(change->gate, i), &one->prefix);
		int rc = piece_is_same(&now, &one->pieces[i])
				 ? 0
				 : piece_apply(change->doorman->kernel, guards->rows[i].slot,
					   &one->prefix, &now);

		if (rc < 0) {
			one_undo_kernel(change, one, i);
			return change_fail_kernel(change, &guards->rows[i].address, rc);
		}
	}
	return 0;
}

static void one_undo_gate(struct change *change, const struct one *one)
{
	int rc = gate_change_one(change->gate, change->partner, &one->prefix,
		one->before.exists ? &one->before.value : NULL, change->result->generation_before,
		change->errors);

	if (rc < 0)
		change_tear(change, "in the relay", rc);
}

static int change_one(struct change *change, struct one *one)
{
	const uint64_t generation = change->result->generation_before + 1;
	uint64_t now;
	int rc;

	one->before = piece_of(change->old, &one->prefix);
	one_note(change, one);
	rc = gate_change_one(change->gate, change->partner, &one->prefix, one->entry, generation,
		change->errors);
	if (rc < 0)
		return change_fail_gate(change, rc);
	rc = one_apply_kernel(change, one);
	if (rc < 0) {
		one_undo_gate(change, one);
		return rc;
	}
	change->result->effect_us = change_us(change);
	/* The gate's set is the new one now. */
	rc = change_write(
		change, gate_partner_set(change->gate, change->partner, &now), generation);
	if (rc < 0) {
		one_undo_kernel(change, one, change_guard_count(change));
		one_undo_gate(change, one);
		return change_fail_disk(change, rc);
	}
	change->result->generation = generation;
	return 0;
}

/* A request for one prefix of a list that is in force: quick, however long the list is. */
static bool change_is_one(const struct change *change, struct one *one, struct door_value *entry)
{
	const struct doorman_request *request = change->request;
	struct cidr_walk walk;

	if (!change->is_in_force || request->dry_run || request->verb == DOORMAN_REPLACE ||
		cidr_count(request->entries) != 1)
		return false;
	cidr_walk_start(&walk, request->entries);
	if (!cidr_walk_next(&walk, &one->prefix, entry))
		return false;
	one->entry = request->verb == DOORMAN_ADD ? entry : NULL;
	return true;
}

static int change_run_one(struct change *change, struct one *one)
{
	struct ip_list_diff *diff = &change->result->diff;
	const size_t count = cidr_count(change->old);
	const bool was_there = cidr_get(change->old, &one->prefix) != NULL;
	int rc;

	if (one->entry != NULL && !was_there && count >= DOOR_PREFIXES_MAX)
		return change_fail(
			change, -ENOSPC, "the list has %zu prefixes, and may not have more", count);
	rc = change_one(change, one);
	if (rc == 0)
		*diff = (struct ip_list_diff){.added = one->entry != NULL,
			.removed = was_there,
			.kept = count - was_there};
	return rc;
}

/* ---- a whole set */

/* Before the point of no return: all that may fail but the exchange itself. */
static int set_fill(struct change *change, const struct gate_stage *stage)
{
	const struct doorman_guards *guards = &change->doorman->guards;

	for (unsigned i = 0; i < change_guard_count(change); i++) {
		const struct cidr *trie = gate_stage_trie(stage, i);
		int rc = trie == NULL ? 0
				      : kernel_door_fill(change->doorman->kernel,
						guards->rows[i].slot, trie);

		if (rc < 0)
			return change_fail_kernel(change, &guards->rows[i].address, rc);
	}
	return 0;
}

/* Exchanging twice is what was before. */
static int set_swap(struct change *change, const struct gate_stage *stage)
{
	const struct doorman_guards *guards = &change->doorman->guards;
	int rc = 0;
	unsigned i = 0;

	while (i < change_guard_count(change)) {
		if (gate_stage_trie(stage, i) != NULL)
			rc = kernel_door_swap(change->doorman->kernel, guards->rows[i].slot);
		if (rc < 0)
			break;
		i++;
	}
	if (rc == 0)
		return 0;
	(void)change_fail_kernel(change, &guards->rows[i].address, rc);
	while (i-- > 0) {
		int result =
			gate_stage_trie(stage, i) == NULL
				? 0
				: kernel_door_swap(change->doorman->kernel, guards->rows[i].slot);

		if (result < 0)
			change_tear(change, "in the kernel", result);
	}
	return rc;
}

static int change_set(struct change *change, struct gate_stage **stage)
{
	const uint64_t generation = change->result->generation_before + 1;
	int rc = set_fill(change, *stage);

	if (rc < 0)
		return rc;
	rc = change_write(change, change->want, generation);
	if (rc < 0)
		return change_fail_disk(change, rc);
	rc = set_swap(change, *stage);
	if (rc < 0) {
		int result = change_write(change, change->old, change->result->generation_before);

		if (result < 0)
			change_tear(change, "on disk", result);
		return rc;
	}
	gate_stage_commit(stage, generation);
	change->result->effect_us = change_us(change);
	change->result->generation = generation;
	return 0;
}

static int set_check_disk(struct change *change)
{
	const char *folder = change->doorman->world->policy->partner_lists;

	if (access(folder, W_OK | X_OK) == 0)
		return 0;
	return change_fail_disk(change, -errno);
}

static int change_run_set(struct change *change)
{
	struct gate_stage *stage = NULL;
	struct ip_list_diff *diff = &change->result->diff;
	int rc = change_create_want(change);

	if (rc < 0 || (diff->added == 0 && diff->removed == 0))
		return rc;
	if (change->is_in_force) {
		rc = gate_stage_create(
			change->gate, change->partner, change->want, change->errors, &stage);
		if (rc < 0)
			return change_fail_gate(change, rc);
	}
	if (change->request->dry_run) {
		rc = set_check_disk(change);
	} else if (change->is_in_force) {
		rc = change_set(change, &stage);
	} else {
		rc = change_write(change, change->want, change->result->generation_before + 1);
		if (rc < 0)
			rc = change_fail_disk(change, rc);
		else
			change->result->generation++;
	}
	gate_stage_destroy(&stage);
	return rc;
}

/* ---- */

static int change_run(struct change *change)
{
	struct door_value entry;
	struct one one;
	int rc = change_find(change);

	if (rc == 0)
		rc = change_read(change);
	if (rc == 0)
		rc = change_check(change);
	if (rc < 0)
		return rc;
	return change_is_one(change, &one, &entry) ? change_run_one(change, &one)
						   : change_run_set(change);
}

/* What gate and list file had to say goes behind the reason. */
static void change_explain(const struct change *change, const char *text)
{
	struct doorman_result *result = change->result;
	const size_t len = strlen(result->why);

	if (change->torn != NULL)
		(void)snprintf(result->why, sizeof(result->why),
			"it failed, and what had been done could not be taken back %s: the log "
			"says why; send the relay SIGHUP, which puts in force what is on disk",
			change->torn);
	else if (text != NULL && text[0] != '\0')
		(void)snprintf(result->why + len, sizeof(result->why) - len, ":\n%.*s",
			(int)(strlen(text) - 1), text);
}

int doorman_change(
	struct doorman *doorman, const struct doorman_request *request, struct doorman_result *out)
{
	struct change change = {.doorman = doorman,
		.request = request,
		.result = out,
		.started_ns = clock_now_ns()};
	char *text = NULL;
	size_t len = 0;
	int rc;

	*out = (struct doorman_result){0};
	change.errors = open_memstream(&text, &len);
	(void)pthread_mutex_lock(&doorman->lock);
	rc = change.errors == NULL ? change_fail_memory(&change) : change_run(&change);
	if (rc == 0 && out->generation != out->generation_before)
		(void)atomic_fetch_add(&doorman->changes, 1);
	(void)pthread_mutex_unlock(&doorman->lock);
	if (change.errors != NULL)
		(void)fclose(change.errors);
	if (rc < 0)
		change_explain(&change, text);
	free(text);
	cidr_destroy(&change.want);
	ip_list_clear(&change.read);
	/* Not under the lock: workers are waited for. */
	if (rc == 0 && request->end_sessions && !request->dry_run &&
		doorman->hooks.end_sessions != NULL)
		out->sessions_ended = doorman->hooks.end_sessions(doorman->hooks.owner);
	doorman_audit(request, out, rc);
	return rc;
}

int doorman_list(struct doorman *doorman, const char *partner, struct ip_list *out)
{
	const struct doorman_request request = {.partner = partner, .who = ""};
	struct doorman_result result = {0};
	struct change change = {.doorman = doorman, .request = &request, .result = &result};
	char *text = NULL;
	size_t len = 0;
	int rc;

	change.errors = open_memstream(&text, &len);
	if (change.errors == NULL)
		return -ENOMEM;
	(void)pthread_mutex_lock(&doorman->lock);
	rc = change_find(&change);
	/* Changed by hand: what is in force is told all the same. */
	if (rc == 0 || rc == -ESTALE)
		rc = change_read(&change);
	out->set = NULL;
	if (rc == 0)
		rc = cidr_copy_create(change.old, &out->set);
	out->generation = result.generation;
	(void)pthread_mutex_unlock(&doorman->lock);
	(void)fclose(change.errors);
	free(text);
	ip_list_clear(&change.read);
	return rc;
}
