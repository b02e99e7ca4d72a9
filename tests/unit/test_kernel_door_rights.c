/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_kernel_door_rights.c: what it takes to make a door, and that it takes nothing to work it.
 */

#include "tests/unit/kernel_door_fixture.h"

#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define NOBODY 65534

/* In a child: says what was wrong, and ends. */
#define CHECK(condition)                                                                          \
	do {                                                                                      \
		if (!(condition)) {                                                               \
			(void)fprintf(                                                            \
				stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, why); \
			_exit(1);                                                                 \
		}                                                                                 \
	} while (0)

static void assert_child(pid_t child)
{
	int status = 0;

	assert_true(child > 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* Nobody, with these capabilities and no others. */
static void become_nobody(uint64_t capabilities)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	memset(data, 0, sizeof(data));
	for (unsigned i = 0; i < 2; i++)
		data[i].effective = data[i].permitted = (uint32_t)(capabilities >> 32 * i);
	CHECK(prctl(PR_SET_KEEPCAPS, capabilities != 0, 0, 0, 0) == 0);
	CHECK(setgroups(0, NULL) == 0);
	CHECK(setresgid(NOBODY, NOBODY, NOBODY) == 0);
	CHECK(setresuid(NOBODY, NOBODY, NOBODY) == 0);
	CHECK(syscall(SYS_capset, &header, data) == 0);
	/* Changing users takes /proc/self away from oneself, but not from a process that starts so.
	 */
	CHECK(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
}

static unsigned told;

static void count_event(void *owner, const struct door_event *event)
{
	(void)owner;
	(void)event;
	told++;
}

/* Everything that a relay does after it has given its privileges up. */
static void work_without_privileges(struct kernel_door *door, unsigned slot)
{
	struct address other = address_from("127.0.0.8", PORT);
	struct prefix prefix = prefix_from("127.0.0.3/32");
	struct door_limit limit = {.interval_ns = 1, .burst = 1};
	struct gate_ids *ids = calloc(1, sizeof(*ids));
	struct cidr *first = set_of_row(false, 0, 5000, 1);
	struct cidr *second = set_of_row(false, 2500, 5000, 1);
	struct kernel_door_info info;
	struct door_counts counts;
	struct door_totals totals;
	unsigned new_slot = 0;

	become_nobody(0);
	CHECK(bpf_map_create(BPF_MAP_TYPE_LPM_TRIE, "x", 8, 8, 1, NULL) < 0);
	for (unsigned i = 0; i < 4; i++) {
		CHECK(kernel_door_fill(door, slot, i % 2 == 0 ? first : second) == 0);
		CHECK(kernel_door_swap(door, slot) == 0);
		CHECK(connector_of(door, SERVED, PORT, "10.0.10.0") == 1);
	}
	CHECK(connector_of(door, SERVED, PORT, STRANGER) == -ENOENT);
	CHECK(knock(-1, STRANGER, SERVED, PORT) == -ECONNREFUSED);
	CHECK(kernel_door_put(door, slot, &prefix, (struct door_value){.connector = 1}) == 0);
	CHECK(connector_of(door, SERVED, PORT, STRANGER) == 1);
	CHECK(knock(-1, STRANGER, SERVED, PORT) == 0);
	CHECK(kernel_door_drop(door, slot, &prefix) == 0);
	CHECK(kernel_door_take_slot(door, &other, &new_slot) == 0);
	CHECK(kernel_door_fill(door, new_slot, first) == 0);
	CHECK(kernel_door_swap(door, new_slot) == 0);
	CHECK(kernel_door_bind(door, new_slot) == 0);
	CHECK(kernel_door_unbind(door, new_slot) == 0);
	CHECK(kernel_door_set_limit(door, 1, &limit) == 0);
	CHECK(kernel_door_write_names(door, ids) == 0 && kernel_door_read_names(door, ids) == 0);
	CHECK(kernel_door_counts(door, KERNEL_DOOR_SLOTS_V4, slot, &counts) == 0);
	CHECK(counts.refused[DOOR_REASON_STRANGER] == 1 && counts.passed == 1);
	CHECK(kernel_door_totals(door, &totals) == 0);
	CHECK(kernel_door_read_events(door, count_event, NULL) == 1 && told == 1);
	kernel_door_info(door, &info);
	CHECK(info.program_id != 0 && !info.foreign_is_known);
	_exit(0);
}

static void test_without_privileges(void **state)
{
	struct kernel_door *door = door_up_attached();
	unsigned slot = door_serve(door, SERVED, PORT, "");
	int listener = listener_open(SERVED, PORT);
	char setting[8] = "?";
	FILE *file = fopen("/proc/sys/kernel/unprivileged_bpf_disabled", "re");
	pid_t child;

	(void)state;
	if (file != NULL && fgets(setting, sizeof(setting), file) != NULL)
		printf("kernel.unprivileged_bpf_disabled = %s", setting);
	if (file != NULL)
		(void)fclose(file);
	child = fork();
	if (child == 0)
		work_without_privileges(door, slot);
	assert_child(child);
	(void)close(listener);
	door_down(&door);
}

/* A user with two capabilities and a folder of its own, twice, so that it takes up its own pins. */
static void start_with_two_capabilities(void)
{
	const char *interface = "lo";
	struct kernel_door_options options = {
		.pin_folder = lab_pins, .interfaces = &interface, .interface_count = 1};
	struct kernel_door *door = NULL;
	struct address address = address_from(SERVED, PORT);
	struct cidr *set = set_of("127.0.0.2/32=1");
	unsigned slot = 0;

	CHECK(chown(lab_pins, NOBODY, NOBODY) == 0);
	become_nobody(1ull << CAP_BPF | 1ull << CAP_NET_ADMIN);
	for (unsigned i = 0; i < 2; i++) {
		CHECK(kernel_door_create(&options, why, &door) == 0);
		CHECK(kernel_door_take_slot(door, &address, &slot) == 0);
		CHECK(kernel_door_fill(door, slot, set) == 0);
		CHECK(kernel_door_swap(door, slot) == 0);
		CHECK(kernel_door_bind(door, slot) == 0);
		CHECK(kernel_door_attach(door, why) == 0);
		CHECK(knock(-1, FRIEND, SERVED, PORT) == 0);
		kernel_door_destroy(&door);
	}
	_exit(0);
}

/* What another user has pinned is there, and cannot be used: that is told, not passed over. */
static void look_at_pins_of_others(void)
{
	struct kernel_door_options options = {.pin_folder = lab_pins};
	struct kernel_door *door = NULL;

	become_nobody(0);
	CHECK(kernel_door_is_pinned(lab_pins));
	CHECK(kernel_door_create(&options, why, &door) == -EACCES);
	CHECK(strstr(why, lab_pins) != NULL);
	CHECK(kernel_door_remove(lab_pins, why) == -EACCES);
	CHECK(kernel_door_open_pinned(lab_pins, why, &door) == -EACCES);
	_exit(0);
}

static void test_two_capabilities(void **state)
{
	int listener = listener_open(SERVED, PORT);
	pid_t child;

	(void)state;
	assert_int_equal(mkdir(lab_pins, 0755), 0);
	assert_int_equal(chmod(lab_folder, 0755), 0);
	child = fork();
	if (child == 0)
		start_with_two_capabilities();
	assert_child(child);
	/* The shield does not even answer. */
	assert_int_equal(knock(listener, FRIEND, SERVED, PORT), 0);
	assert_int_equal(knock(listener, STRANGER, SERVED, PORT), -ETIMEDOUT);
	assert_int_equal(chown(lab_pins, 0, 0), 0);
	{
		char folder[64];

		(void)snprintf(folder, sizeof(folder), "%s/v%d", lab_pins, DOOR_VERSION);
		assert_int_equal(chown(folder, 0, 0), 0);
	}
	child = fork();
	if (child == 0)
		look_at_pins_of_others();
	assert_child(child);
	assert_int_equal(kernel_door_remove(lab_pins, why), 0);
	assert_open(listener);
	(void)close(listener);
}

/* Without any capability nothing is made, and the message says which it takes. */
static void start_without_capabilities(void)
{
	struct kernel_door_options options = {.pin_folder = lab_pins};
	struct kernel_door *door = NULL;
	int error;

	CHECK(chown(lab_pins, NOBODY, NOBODY) == 0);
	become_nobody(0);
	error = kernel_door_create(&options, why, &door);
	CHECK(error == -EPERM || error == -EACCES);
	CHECK(strstr(why, "CAP_BPF and CAP_NET_ADMIN") != NULL);
	CHECK(!kernel_door_is_pinned(lab_pins));
	_exit(0);
}

static void test_no_capability(void **state)
{
	pid_t child;

	(void)state;
	assert_int_equal(mkdir(lab_pins, 0755), 0);
	child = fork();
	if (child == 0)
		start_without_capabilities();
	assert_child(child);
	(void)rmdir(lab_pins);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_without_privileges),
		cmocka_unit_test(test_two_capabilities),
		cmocka_unit_test(test_no_capability),
	};

	LAB_MAIN(tests);
}
