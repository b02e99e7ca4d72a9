/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
#include "bpf/loader_private.h"

#include <errno.h>
#include <string.h>
#include <time.h>

/*
 * Two sets are walked through side by side, in order. What is in the trie and not wanted is
 * removed, then what is wanted and not so in the trie is put, both in the order of the walk:
 * so two numbers tell how far it came when the kernel says no.
 */

/* The kernel's "not supported", which libc has no name for. */
#define ENOTSUPP_KERNEL 524

/*
 * Newer kernels take a trie's memory from a small store of each processor, which is filled up again
 * beside. Where it runs dry before that (in User-Mode Linux 7.2 after a few prefixes), it says that
 * there is none. So that is believed only when waiting does not help.
 */
#define MEMORY_WAITS 20
#define MEMORY_WAIT_NS 2000000

static void memory_wait(void)
{
	const struct timespec pause = {.tv_nsec = MEMORY_WAIT_NS};

	(void)nanosleep(&pause, NULL);
}

int trie_put(const struct trie *trie, const void *key, const struct door_value *value)
{
	int error = -ENOMEM;

	for (unsigned waits = 0; error == -ENOMEM && waits <= MEMORY_WAITS; waits++) {
		if (waits > 0)
			memory_wait();
		error = bpf_map_update_elem(trie->fd, key, value, BPF_ANY) < 0 ? -errno : 0;
	}
	return error;
}

struct side {
	struct cidr_walk walk;
	struct prefix prefix;
	struct door_value value;
	bool has;
};

static void side_next(struct side *side)
{
	side->has = cidr_walk_next(&side->walk, &side->prefix, &side->value);
}

struct diff {
	struct side have;
	struct side want;
};

enum step {
	STEP_END,
	STEP_KEEP,
	STEP_REMOVE,
	STEP_PUT,    /* a new one */
	STEP_CHANGE, /* another value */
};

/* One step: its prefix, the value that is there and the one that is wanted, as far as it has any.
 */
struct step_at {
	struct prefix prefix;
	struct door_value have;
	struct door_value want;
};

static void diff_start(struct diff *diff, const struct cidr *have, const struct cidr *want)
{
	cidr_walk_start(&diff->have.walk, have);
	cidr_walk_start(&diff->want.walk, want);
	side_next(&diff->have);
	side_next(&diff->want);
}

static bool value_is_equal(struct door_value a, struct door_value b)
{
	return a.connector == b.connector && a.flags == b.flags && a.partner == b.partner;
}

static enum step diff_next(struct diff *diff, struct step_at *out)
{
	int order = 0;

	if (!diff->have.has && !diff->want.has)
		return STEP_END;
	if (!diff->have.has)
		order = 1;
	else if (!diff->want.has)
		order = -1;
	else
		order = prefix_compare(&diff->have.prefix, &diff->want.prefix);
	out->prefix = order <= 0 ? diff->have.prefix : diff->want.prefix;
	out->have = diff->have.value;
	out->want = diff->want.value;
	if (order <= 0)
		side_next(&diff->have);
	if (order >= 0)
		side_next(&diff->want);
	if (order < 0)
		return STEP_REMOVE;
	if (order > 0)
		return STEP_PUT;
	return value_is_equal(out->have, out->want) ? STEP_KEEP : STEP_CHANGE;
}

/* ---- batches */

void trie_key(const struct prefix *prefix, bool is_v6, struct door_key_v6 *out)
{
	*out = (struct door_key_v6){.bits = prefix->bits};
	memcpy(out->address, prefix->ip.bytes, is_v6 ? 16 : 4);
}

/* Operations of one kind that wait. */
struct batch {
	struct kernel_door *door;
	struct trie *trie;
	bool is_v6;
	bool is_removal;
	bool is_injected; /* the last failure was a test's */
	unsigned waits;   /* for memory, since anything came of it */
	uint32_t count;
	size_t done; /* in the kernel */
};

static size_t batch_key_bytes(const struct batch *batch)
{
	return batch->is_v6 ? sizeof(struct door_key_v6) : sizeof(struct door_key_v4);
}

/* One by one. */
static int batch_carry_out_each(struct batch *batch, uint32_t from)
{
	struct kernel_door *door = batch->door;

	for (; from < batch->count; from++) {
		const void *key = door->keys + from * batch_key_bytes(batch);
		int error = door_fail(
			door, batch->is_removal ? "bpf_map_delete_elem" : "bpf_map_update_elem");

		if (error == 0 && batch->is_removal &&
			bpf_map_delete_elem(batch->trie->fd, key) < 0)
			error = errno == ENOENT ? 0 : -errno;
		if (error == 0 && !batch->is_removal)
			error = trie_put(batch->trie, key, &door->values[from]);
		if (error < 0)
			return error;
		batch->done++;
	}
	return 0;
}

/* How many of those from there on the kernel took, and -errno in *out_error if not all. */
static uint32_t batch_call(struct batch *batch, uint32_t from, int *out_error)
{
	const struct bpf_map_batch_opts options = {.sz = sizeof(options)};
	struct kernel_door *door = batch->door;
	const void *keys = door->keys + from * batch_key_bytes(batch);
	const uint32_t asked = batch->count - from;
	uint32_t count = asked;
	int error = door_fail(
		door, batch->is_removal ? "bpf_map_delete_batch" : "bpf_map_update_batch");

	*out_error = error;
	batch->is_injected = error < 0;
	if (error < 0)
		return 0;
	if (batch->is_removal)
		error = bpf_map_delete_batch(batch->trie->fd, keys, &count, &options);
	else
		error = bpf_map_update_batch(
			batch->trie->fd, keys, &door->values[from], &count, &options);
	if (error == 0)
		return asked;
	*out_error = -errno;
	/* A call that failed before its first element has left the count alone. */
	return count < asked ? count : 0;
}

static int batch_carry_out(struct batch *batch)
{
	struct kernel_door *door = batch->door;
	uint32_t from = 0;
	int error = 0;

	while (from < batch->count && !door->has_no_batch) {
		uint32_t taken = batch_call(batch, from, &error);

		from += taken;
		batch->done += taken;
		if (taken > 0)
			batch->waits = 0;
		if (error == 0)
			continue;
		if (error == -ENOMEM && !batch->is_injected && batch->waits++ < MEMORY_WAITS) {
			memory_wait();
			continue;
		}
		if (error == -ENOENT && batch->is_removal) {
			from++;
			batch->done++;
		} else if (error == -ENOTSUPP_KERNEL || error == -EOPNOTSUPP || error == -EINVAL) {
			door->has_no_batch = true;
		} else {
			return error;
		}
	}
	error = batch_carry_out_each(batch, from);
	batch->count = 0;
	return error;
}

static int batch_add(struct batch *batch, const struct step_at *at)
{
	struct kernel_door *door = batch->door;
	struct door_key_v6 key;

	trie_key(&at->prefix, batch->is_v6, &key);
	memcpy(door->keys + batch->count * batch_key_bytes(batch), &key, batch_key_bytes(batch));
	door->values[batch->count++] = at->want;
	return batch->count == DOOR_BATCH ? batch_carry_out(batch) : 0;
}

/* All removals, or all others. */
static int trie_walk(struct batch *batch, const struct cidr *want)
{
	struct step_at at;
	struct diff diff;
	int error = 0;

	diff_start(&diff, batch->trie->known, want);
	for (enum step step; error == 0 && (step = diff_next(&diff, &at)) != STEP_END;) {
		if (step != STEP_KEEP && (step == STEP_REMOVE) == batch->is_removal)
			error = batch_add(batch, &at);
	}
	return error < 0 ? error : batch_carry_out(batch);
}

/* ---- a trie */

/* What is in it when so many removals and puts were carried out. */
static int trie_note(struct trie *trie, const struct cidr *want, size_t removed, size_t put)
{
	struct cidr *now = NULL;
	struct step_at at;
	struct diff diff;
	int error = cidr_create(&now);

	diff_start(&diff, trie->known, want);
	for (enum step step; error == 0 && (step = diff_next(&diff, &at)) != STEP_END;) {
		bool is_done = step == STEP_REMOVE ? removed > 0 : put > 0;

		if (step == STEP_KEEP) {
			error = cidr_put(now, &at.prefix, at.have);
			continue;
		}
		if (step == STEP_REMOVE)
			removed -= is_done;
		else
			put -= is_done;
		if (step != STEP_REMOVE && is_done)
			error = cidr_put(now, &at.prefix, at.want);
		else if (step != STEP_PUT && !is_done)
			error = cidr_put(now, &at.prefix, at.have);
	}
	if (error < 0) {
		cidr_destroy(&now);
		trie->is_lost = true;
		return error;
	}
	cidr_destroy(&trie->known);
	trie->known = now;
	return 0;
}

/* Empties a trie of which nobody knows what is in it. */
static int trie_find_again(struct kernel_door *door, struct trie *trie)
{
	struct cidr *empty = NULL;
	struct door_key_v6 key;
	int error = cidr_create(&empty);

	for (size_t i = 0; error == 0 && i <= DOOR_PREFIXES_MAX; i++) {
		if (bpf_map_get_next_key(trie->fd, NULL, &key) < 0) {
			error = errno == ENOENT ? 0 : -errno;
			break;
		}
		error = door_fail(door, "bpf_map_delete_elem");
		if (error == 0 && bpf_map_delete_elem(trie->fd, &key) < 0)
			error = -errno;
	}
	if (error < 0) {
		cidr_destroy(&empty);
		return error;
	}
	cidr_destroy(&trie->known);
	trie->known = empty;
	trie->is_lost = false;
	return 0;
}

int trie_fill(struct kernel_door *door, struct trie *trie, bool is_v6, const struct cidr *want)
{
	struct batch removals = {.door = door, .trie = trie, .is_v6 = is_v6, .is_removal = true};
	struct batch puts = {.door = door, .trie = trie, .is_v6 = is_v6};
	struct cidr *wanted = NULL;
	int error = 0;

	if (trie->is_lost)
		error = trie_find_again(door, trie);
	/* Before the kernel is asked for anything, so that it need not be undone. */
	if (error == 0)
		error = door_fail(door, "cidr_copy_create");
	if (error == 0)
		error = cidr_copy_create(want, &wanted);
	if (error < 0)
		return error;
	error = trie_walk(&removals, wanted);
	if (error == 0)
		error = trie_walk(&puts, wanted);
	if (error < 0) {
		(void)trie_note(trie, wanted, removals.done, puts.done);
		cidr_destroy(&wanted);
		return error;
	}
	cidr_destroy(&trie->known);
	trie->known = wanted;
	return 0;
}
