/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_kernel_door_faults.c: a process that ends at any step, a kernel that says no to any call,
 * tries that are full. What was in force stays so, and the next try succeeds.
 */

#include "tests/unit/kernel_door_fixture.h"

#include <sys/prctl.h>

/* Steps of creating, filling and attaching; of the many tries that are made the first few. */
#define STEPS_MAX 200
#define CREATES_COUNTED 3

static struct {
	unsigned at;      /* the step that it happens at */
	unsigned step;    /* so far */
	unsigned creates; /* of bpf_map_create */
	int error;        /* to fail with; 0: the process ends there */
	const char *only; /* only these calls count; NULL: all */
	bool happened;
} fault;

static int fault_fail(const char *call)
{
	if (fault.only != NULL && strcmp(fault.only, call) != 0)
		return 0;
	if (strcmp(call, "bpf_map_create") == 0 && ++fault.creates > CREATES_COUNTED)
		return 0;
	if (fault.step++ != fault.at)
		return 0;
	fault.happened = true;
	if (fault.error == 0)
		_exit(3);
	return fault.error;
}

static void fault_at(unsigned at, int error, const char *only)
{
	memset(&fault, 0, sizeof(fault));
	fault.at = at;
	fault.error = error;
	fault.only = only;
}

/* All that a relay does at its start: 0 or -errno. Used in children too, so it asserts nothing. */
static int door_start(struct kernel_door **out, const struct cidr *set, bool has_faults)
{
	struct kernel_door_options options = {
		.pin_folder = lab_pins, .fail = has_faults ? fault_fail : NULL};
	struct address address = address_from(SERVED, PORT);
	unsigned slot = 0;
	int error = kernel_door_create(&options, why, out);

	if (error == 0)
		error = kernel_door_take_slot(*out, &address, &slot);
	if (error == 0)
		error = kernel_door_fill(*out, slot, set);
	if (error == 0)
		error = kernel_door_swap(*out, slot);
	if (error == 0)
		error = kernel_door_bind(*out, slot);
	if (error == 0)
		error = kernel_door_attach(*out, why);
	return error;
}

/* A whole start without faults, and an end. */
static void assert_starts(const struct cidr *set, int listener)
{
	struct kernel_door *door = NULL;

	if (door_start(&door, set, false) < 0)
		fail_msg("step %u: %s", fault.at, why);
	assert_guarded(listener);
	kernel_door_destroy(&door);
	assert_guarded(listener);
}

/* ---- a process that ends */

/* Starts in a child that ends at that step; false: it came through. */
static bool crash_at(unsigned at, const struct cidr *set)
{
	int status = 0;
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0) {
		struct kernel_door *door = NULL;

		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		fault_at(at, 0, NULL);
		_exit(door_start(&door, set, true) == 0 ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) != 1);
	return WEXITSTATUS(status) == 3;
}

/* With nothing there before: whatever is left, the next start makes a whole of it. */
static void test_crash_at_first_start(void **state)
{
	int listener = listener_open(SERVED, PORT);
	struct cidr *set = set_of("127.0.0.2/32=1");
	unsigned steps = 0;

	(void)state;
	for (bool has_crashed = true; has_crashed; steps++) {
		has_crashed = crash_at(steps, set);
		assert_true(steps < STEPS_MAX);
		assert_starts(set, listener);
		assert_int_equal(kernel_door_remove(lab_pins, why), 0);
		assert_open(listener);
	}
	assert_true(steps > DOOR_MAP_COUNT);
	cidr_destroy(&set);
	(void)close(listener);
}

/* With an old set in force: it or the new one is, at any step; both have the friend alone. */
static void test_crash_at_restart(void **state)
{
	int listener = listener_open(SERVED, PORT);
	struct cidr *old = set_of("127.0.0.2/32=1");
	struct cidr *new = set_of("127.0.0.2/32=2 127.0.0.9/32=2");
	unsigned steps = 0;

	(void)state;
	assert_starts(old, listener);
	for (bool has_crashed = true; has_crashed; steps++) {
		has_crashed = crash_at(steps, new);
		assert_true(steps < STEPS_MAX);
		assert_guarded(listener);
		assert_starts(old, listener);
	}
	assert_true(steps > DOOR_MAP_COUNT);
	assert_int_equal(kernel_door_remove(lab_pins, why), 0);
	cidr_destroy(&old);
	cidr_destroy(&new);
	(void)close(listener);
}

/* ---- a kernel that says no */

static void test_every_call_fails(void **state)
{
	static const int errors[] = {ENOMEM, EPERM};
	int listener = listener_open(SERVED, PORT);
	struct cidr *old = set_of("127.0.0.2/32=1");
	struct cidr *new = set_of("127.0.0.2/32=2 127.0.0.9/32=2");

	(void)state;
	assert_starts(old, listener);
	for (unsigned i = 0; i < COUNT_OF(errors); i++) {
		bool happened = true;

		for (unsigned at = 0; happened; at++) {
			struct kernel_door *door = NULL;
			int error;

			assert_true(at < STEPS_MAX);
			fault_at(at, errors[i], NULL);
			error = door_start(&door, new, true);
			happened = fault.happened;
			assert_int_equal(error, happened ? -errors[i] : 0);
			kernel_door_destroy(&door);
			assert_guarded(listener);
		}
		assert_starts(old, listener);
	}
	assert_int_equal(kernel_door_remove(lab_pins, why), 0);
	cidr_destroy(&old);
	cidr_destroy(&new);
	(void)close(listener);
}

/* A failed first start leaves nothing that the next configuration would have to explain. */
static void test_failed_start_leaves_nothing(void **state)
{
	struct kernel_door_options options = {.pin_folder = lab_pins, .fail = fault_fail};
	struct kernel_door *door = NULL;

	(void)state;
	fault_at(0, EPERM, "bpf_object_load");
	assert_int_equal(kernel_door_create(&options, why, &door), -EPERM);
	assert_non_null(strstr(why, "CAP_BPF"));
	assert_false(kernel_door_is_pinned(lab_pins));
	assert_int_equal(access(lab_pins, F_OK), -1);
}

/* ---- filling that fails */

static struct trie *idle_of(struct kernel_door *door, unsigned slot)
{
	return &door->slots[slot].tries[atomic_load(&door->slots[slot].in_force) == 0 ? 1 : 0];
}

static const struct trie *trie_of(const struct kernel_door *door, unsigned slot)
{
	return &door->slots[slot].tries[atomic_load(&door->slots[slot].in_force)];
}

static struct kernel_door *door_with_faults(unsigned prefixes_max)
{
	struct kernel_door_options options = {
		.pin_folder = lab_pins, .fail = fault_fail, .prefixes_max = prefixes_max};
	struct kernel_door *door = NULL;

	fault_at(0, ENOMEM, "nothing");
	if (kernel_door_create(&options, why, &door) < 0)
		fail_msg("%s", why);
	return door;
}

/*
 * The idle trie has one set, another one is wanted, and the call of that name fails the first, the
 * second ... time. What is then in the trie is known, what is in force is as it was, and the
 * next filling goes on.
 */
static void assert_filling_survives(const char *call, int error, bool is_v6)
{
	const unsigned count = DOOR_BATCH * 2 + 100;
	struct cidr *first = set_of_row(is_v6, 0, count, 1);
	struct cidr *second = set_of_row(is_v6, count / 2, count, 2);
	struct cidr *small = set_of_row(is_v6, 0, 10, 3);
	bool happened = true;
	unsigned failures = 0;

	for (unsigned at = 0; happened && at < 4; at++) {
		struct kernel_door *door = door_with_faults(0);
		unsigned slot = door_serve(door, is_v6 ? "::" : "0.0.0.0", PORT, "");
		int result;

		assert_int_equal(kernel_door_fill(door, slot, small), 0);
		assert_int_equal(kernel_door_swap(door, slot), 0);
		assert_int_equal(kernel_door_fill(door, slot, first), 0);
		fault_at(at, error, call);
		result = kernel_door_fill(door, slot, second);
		happened = fault.happened;
		assert_int_equal(result, happened ? -error : 0);
		failures += happened;
		assert_trie_is_known(idle_of(door, slot), is_v6);
		assert_trie_is_known(trie_of(door, slot), is_v6);
		assert_int_equal(kernel_door_prefixes(door, slot), 10);
		fault_at(0, error, "nothing");
		assert_int_equal(kernel_door_fill(door, slot, second), 0);
		assert_trie_is_known(idle_of(door, slot), is_v6);
		assert_int_equal(cidr_count(idle_of(door, slot)->known), count);
		assert_int_equal(kernel_door_swap(door, slot), 0);
		assert_int_equal(kernel_door_prefixes(door, slot), count);
		door_down(&door);
	}
	assert_true(failures > 0);
	cidr_destroy(&first);
	cidr_destroy(&second);
	cidr_destroy(&small);
}

static void test_filling_fails(void **state)
{
	(void)state;
	for (unsigned is_v6 = 0; is_v6 < 2; is_v6++) {
		assert_filling_survives("bpf_map_update_batch", ENOMEM, is_v6);
		assert_filling_survives("bpf_map_delete_batch", ENOMEM, is_v6);
		assert_filling_survives("cidr_copy_create", ENOMEM, is_v6);
	}
}

/* Where batches are refused, prefixes are put and taken one by one; the same when that fails. */
static void test_batches_refused(void **state)
{
	static const int errors[] = {EINVAL, EOPNOTSUPP, 524};
	struct cidr *first = set_of_row(false, 0, 100, 1);
	struct cidr *second = set_of_row(false, 50, 100, 2);

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(errors); i++) {
		struct kernel_door *door = door_with_faults(0);
		unsigned slot = door_serve(door, "0.0.0.0", PORT, "");

		fault_at(0, errors[i], "bpf_map_update_batch");
		assert_int_equal(kernel_door_fill(door, slot, first), 0);
		assert_true(fault.happened);
		assert_trie_is_known(idle_of(door, slot), false);
		assert_int_equal(cidr_count(idle_of(door, slot)->known), 100);
		fault_at(20, ENOMEM, "bpf_map_delete_elem");
		assert_int_equal(kernel_door_fill(door, slot, second), -ENOMEM);
		assert_trie_is_known(idle_of(door, slot), false);
		assert_int_equal(cidr_count(idle_of(door, slot)->known), 80);
		fault_at(70, ENOMEM, "bpf_map_update_elem");
		assert_int_equal(kernel_door_fill(door, slot, second), -ENOMEM);
		assert_trie_is_known(idle_of(door, slot), false);
		assert_int_equal(cidr_count(idle_of(door, slot)->known), 70);
		fault_at(0, 0, "nothing");
		assert_int_equal(kernel_door_fill(door, slot, second), 0);
		assert_trie_is_known(idle_of(door, slot), false);
		door_down(&door);
	}
	cidr_destroy(&first);
	cidr_destroy(&second);
}

/* What nobody knows is emptied first. */
static void test_lost_trie(void **state)
{
	struct kernel_door *door = door_with_faults(0);
	unsigned slot = door_serve(door, "0.0.0.0", PORT, "");
	struct cidr *first = set_of_row(false, 0, 300, 1);
	struct cidr *second = set_of_row(false, 200, 300, 2);

	(void)state;
	assert_int_equal(kernel_door_fill(door, slot, first), 0);
	idle_of(door, slot)->is_lost = true;
	fault_at(100, EPERM, "bpf_map_delete_elem");
	assert_int_equal(kernel_door_fill(door, slot, second), -EPERM);
	assert_true(idle_of(door, slot)->is_lost);
	fault_at(0, 0, "nothing");
	assert_int_equal(kernel_door_fill(door, slot, second), 0);
	assert_trie_is_known(idle_of(door, slot), false);
	assert_int_equal(cidr_count(idle_of(door, slot)->known), 300);
	cidr_destroy(&first);
	cidr_destroy(&second);
	door_down(&door);
}

/* A trie that is really full. */
static void test_full_trie(void **state)
{
	struct kernel_door *door = door_with_faults(100);
	unsigned slot = door_serve(door, "0.0.0.0", PORT, "10.0.0.0/8=1");
	struct cidr *fits = set_of_row(false, 0, 100, 1);
	struct cidr *too_many = set_of_row(false, 0, 101, 2);
	struct prefix prefix = prefix_from("192.168.0.0/16");

	(void)state;
	assert_int_equal(kernel_door_fill(door, slot, too_many), -ENOSPC);
	assert_trie_is_known(idle_of(door, slot), false);
	assert_true(passes(door, SERVED, PORT, "10.1.1.1"));
	assert_int_equal(kernel_door_prefixes(door, slot), 1);
	assert_int_equal(kernel_door_fill(door, slot, fits), 0);
	assert_int_equal(kernel_door_swap(door, slot), 0);
	assert_trie_is_known(trie_of(door, slot), false);
	assert_int_equal(
		kernel_door_put(door, slot, &prefix, (struct door_value){.connector = 1}), -ENOSPC);
	assert_trie_is_known(trie_of(door, slot), false);
	assert_false(passes(door, SERVED, PORT, "192.168.0.1"));
	assert_true(passes(door, SERVED, PORT, "10.0.0.99"));
	assert_false(passes(door, SERVED, PORT, "10.0.0.100"));
	cidr_destroy(&fits);
	cidr_destroy(&too_many);
	door_down(&door);
}

/* One prefix, an exchange, a binding: what fails has changed nothing. */
static void test_single_calls_fail(void **state)
{
	struct kernel_door *door = door_with_faults(0);
	struct prefix there = prefix_from("10.0.0.0/8");
	struct prefix new = prefix_from("11.0.0.0/8");
	struct cidr *other = set_of("12.0.0.0/8=1");
	struct door_limit limit = {.interval_ns = 1, .burst = 1};
	unsigned slot = door_serve(door, "0.0.0.0", PORT, "10.0.0.0/8=1");

	(void)state;
	fault_at(0, ENOMEM, "bpf_map_update_elem");
	assert_int_equal(
		kernel_door_put(door, slot, &new, (struct door_value){.connector = 2}), -ENOMEM);
	assert_trie_is_known(trie_of(door, slot), false);
	fault_at(0, ENOMEM, "bpf_map_update_elem");
	assert_int_equal(
		kernel_door_put(door, slot, &there, (struct door_value){.connector = 2}), -ENOMEM);
	assert_trie_is_known(trie_of(door, slot), false);
	assert_int_equal(connector_of(door, SERVED, PORT, "10.0.0.1"), 1);
	fault_at(0, ENOMEM, "bpf_map_delete_elem");
	assert_int_equal(kernel_door_drop(door, slot, &there), -ENOMEM);
	assert_trie_is_known(trie_of(door, slot), false);
	assert_int_equal(kernel_door_fill(door, slot, other), 0);
	fault_at(0, ENOMEM, "bpf_map_update_elem");
	assert_int_equal(kernel_door_swap(door, slot), -ENOMEM);
	assert_true(passes(door, SERVED, PORT, "10.0.0.1"));
	assert_false(passes(door, SERVED, PORT, "12.0.0.1"));
	assert_int_equal(connector_of(door, SERVED, PORT, "10.0.0.1"), 1);
	assert_int_equal(connector_of(door, SERVED, PORT, "12.0.0.1"), -ENOENT);
	fault_at(0, ENOMEM, "bpf_map_update_elem");
	assert_int_equal(kernel_door_set_limit(door, 1, &limit), -ENOMEM);
	fault_at(0, ENOMEM, "bpf_map_delete_elem");
	assert_int_equal(kernel_door_unbind(door, slot), -ENOMEM);
	assert_false(passes(door, SERVED, PORT, "12.0.0.1"));
	fault_at(0, 0, "nothing");
	assert_int_equal(kernel_door_swap(door, slot), 0);
	assert_int_equal(connector_of(door, SERVED, PORT, "12.0.0.1"), 1);
	cidr_destroy(&other);
	door_down(&door);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crash_at_first_start),
		cmocka_unit_test(test_crash_at_restart),
		cmocka_unit_test(test_every_call_fails),
		cmocka_unit_test(test_failed_start_leaves_nothing),
		cmocka_unit_test(test_filling_fails),
		cmocka_unit_test(test_batches_refused),
		cmocka_unit_test(test_lost_trie),
		cmocka_unit_test(test_full_trie),
		cmocka_unit_test(test_single_calls_fail),
	};

	LAB_MAIN(tests);
}
