/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_doorman_kernel.c: relay/doorman*.c where the kernel decides: that it has what the gate has,
 * that a change which fails anywhere has changed nothing anywhere, starts with and without pins.
 */

#include "tests/unit/doorman_fixture.h"
#include "tests/unit/kernel_door_fixture.h"

/* One call of that name fails, or all, after so many that do not. */
static const char *failing;
static unsigned failing_after;
static bool failing_on;
static int failing_error = ENOMEM;

static int fail_call(const char *call)
{
	if (failing == NULL || strcmp(failing, call) != 0)
		return 0;
	if (failing_after > 0) {
		failing_after--;
		return 0;
	}
	if (!failing_on)
		failing = NULL;
	return failing_error;
}

static void fail_from(const char *call, unsigned after)
{
	failing = call;
	failing_after = after;
}

static int folder_make(void **state)
{
	doorman_seam.fail = fail_call;
	return lab_folder_make(state);
}

static int folder_remove(void **state)
{
	failing = NULL;
	lab_folder_remove(state);
	if (kernel_door_is_pinned(lab_pins) && kernel_door_remove(lab_pins, why) < 0)
		fail_msg("%s", why);
	return 0;
}

static void start_as(const char *bpf, const char *doors)
{
	lab_configure(bpf, lab_pins, doors);
	if (lab_start() < 0)
		fail_msg("%s", complaint);
}

static void start(void)
{
	start_as("required", LAB_DOORS);
	assert_true(doorman_is_kernel(doorman));
}

/* By the kernel's maps alone. */
static bool kernel_has_at(const char *peer, const char *local)
{
	const struct address at = address_from(local, 2525);
	const struct ip ip = ip_from(peer);
	struct door_value value;
	int rc = kernel_door_ask(doorman->kernel, &at, &ip, &value);

	assert_true(rc == 0 || rc == -ENOENT);
	return rc == 0 && !(value.flags & DOOR_EXCLUDED);
}

static bool kernel_has(const char *peer)
{
	return kernel_has_at(peer, strchr(peer, ':') == NULL ? "127.0.0.1" : "::1");
}

static void test_both_have_it(void **state)
{
	(void)state;
	start();
	assert_true(kernel_has("10.1.2.3"));
	assert_false(kernel_has("192.0.2.1"));
	assert_int_equal(change(DOORMAN_ADD, "fabrikam", "192.0.2.0/24"), 0);
	assert_true(kernel_has("192.0.2.1"));
	assert_string_equal(asked("192.0.2.1"), "near/fabrikam");
	assert_int_equal(change(DOORMAN_ADD, "fabrikam", "!192.0.2.1\n2001:db8::/32"), 0);
	assert_false(kernel_has("192.0.2.1"));
	assert_true(kernel_has("2001:db8::1"));
	assert_string_equal(asked("192.0.2.1"), "!fabrikam");
	assert_string_equal(asked("2001:db8::1"), "six/fabrikam");
	assert_int_equal(change(DOORMAN_REMOVE, "fabrikam", "!192.0.2.1"), 0);
	assert_true(kernel_has("192.0.2.1"));
	/* What lies below comes back. */
	assert_int_equal(change(DOORMAN_ADD, "fabrikam", "!10.1.0.0/16"), 0);
	assert_false(kernel_has("10.1.2.3"));
	assert_int_equal(change(DOORMAN_REMOVE, "fabrikam", "!10.1.0.0/16"), 0);
	assert_true(kernel_has("10.1.2.3"));
	assert_int_equal(change(DOORMAN_REPLACE, "fabrikam", ""), 0);
	assert_false(kernel_has("192.0.2.1"));
	assert_false(kernel_has("2001:db8::1"));
	assert_true(kernel_has("10.1.2.3"));
}

/* Each step of each kind of change fails in turn: all is as it was, and then it succeeds. */
static void test_failures(void **state)
{
	static const struct {
		enum doorman_verb verb;
		const char *lines, *call;
		unsigned steps; /* that may fail */
	} rows[] = {
		{DOORMAN_ADD, "2001:db8:1::/48", "bpf_map_update_elem", 2},
		{DOORMAN_ADD, "!192.0.2.9", "bpf_map_update_elem", 1},
		{DOORMAN_REMOVE, "192.0.2.0/24", "bpf_map_delete_elem", 1},
		{DOORMAN_REPLACE, "198.51.100.0/24\n2001:db8:7::/48\n", "bpf_map_update_elem", 4},
	};

	(void)state;
	start();
	assert_int_equal(change(DOORMAN_REPLACE, "fabrikam", "192.0.2.0/24\n2001:db8:5::/48\n"), 0);
	for (unsigned i = 0; i < COUNT_OF(rows); i++) {
		unsigned failed = 0;
		int rc = -1;

		for (unsigned after = 0; after < 20 && rc != 0; after++) {
			fail_from(rows[i].call, after);
			rc = change(rows[i].verb, "fabrikam", rows[i].lines);
			failing = NULL;
			if (rc == 0)
				break;
			failed++;
			assert_int_equal(rc, -ENOMEM);
			assert_int_equal(changed.fault, DOORMAN_FAULT_KERNEL);
			assert_non_null(strstr(changed.why, "nothing has changed"));
			assert_true(kernel_has("192.0.2.1"));
			assert_true(kernel_has("192.0.2.9"));
			assert_true(kernel_has("2001:db8:5::1"));
			assert_false(kernel_has("2001:db8:1::1"));
			assert_false(kernel_has("2001:db8:7::1"));
			assert_false(kernel_has("198.51.100.1"));
			assert_string_equal(asked("192.0.2.9"), "near/fabrikam");
			assert_string_equal(asked("198.51.100.1"), "nobody");
			assert_non_null(strstr(lab_read("lists/fabrikam.list"),
				"192.0.2.0/24\n2001:db8:5::/48\n"));
		}
		assert_int_equal(rc, 0);
		assert_true(failed > 0);
		assert_int_equal(
			change(DOORMAN_REPLACE, "fabrikam", "192.0.2.0/24\n2001:db8:5::/48\n"), 0);
	}
}

static void test_no_disk(void **state)
{
	static const struct {
		enum doorman_verb verb;
		const char *lines;
	} rows[] = {
		{DOORMAN_ADD, "198.51.100.0/24"},
		{DOORMAN_REMOVE, "192.0.2.0/24"},
		{DOORMAN_ADD, "!192.0.2.0/24"},
		{DOORMAN_REPLACE, "198.51.100.0/24\n2001:db8::/32"},
	};

	(void)state;
	start();
	assert_int_equal(change(DOORMAN_ADD, "fabrikam", "192.0.2.0/24"), 0);
	for (unsigned i = 0; i < COUNT_OF(rows); i++) {
		disk_fill();
		assert_int_equal(change(rows[i].verb, "fabrikam", rows[i].lines), -EFBIG);
		disk_empty();
		assert_true(kernel_has("192.0.2.1"));
		assert_false(kernel_has("198.51.100.1"));
		assert_false(kernel_has("2001:db8::1"));
		assert_string_equal(asked("192.0.2.1"), "near/fabrikam");
		assert_string_equal(asked("198.51.100.1"), "nobody");
	}
}

/* What cannot be taken back either: it is said, workers let in nobody but by the old set, and a
 * reload makes it good. */
static void test_torn(void **state)
{
	(void)state;
	start();
	assert_int_equal(change(DOORMAN_REPLACE, "fabrikam", "192.0.2.0/24\n2001:db8:5::/48"), 0);
	failing_on = true;
	fail_from("bpf_map_update_elem", 1);
	assert_int_equal(
		change(DOORMAN_REPLACE, "fabrikam", "198.51.100.0/24\n2001:db8:7::/48"), -ENOMEM);
	failing = NULL;
	failing_on = false;
	assert_non_null(strstr(changed.why, "SIGHUP"));
	assert_string_equal(asked("198.51.100.1"), "nobody");
	assert_string_equal(asked("192.0.2.1"), "near/fabrikam");
	assert_string_equal(asked("2001:db8:7::1"), "nobody");
	assert_int_equal(lab_reload(true), 0);
	assert_true(kernel_has("192.0.2.1"));
	assert_true(kernel_has("2001:db8:5::1"));
	assert_false(kernel_has("198.51.100.1"));
	assert_string_equal(asked("192.0.2.1"), "near/fabrikam");
	assert_int_equal(change(DOORMAN_ADD, "fabrikam", "198.51.100.0/24"), 0);
	assert_true(kernel_has("198.51.100.1"));
}

/* More than the map holds: the old set stays, for a start too. */
static void test_full(void **state)
{
	(void)state;
	doorman_seam.prefixes_max = 4;
	start();
	assert_int_equal(change(DOORMAN_REPLACE, "fabrikam", "192.0.2.1\n192.0.2.3\n"), 0);
	assert_int_equal(change(DOORMAN_REPLACE, "fabrikam",
				 "198.51.100.1\n198.51.100.3\n198.51.100.5\n198.51.100.7\n"),
		-ENOSPC);
	assert_non_null(strstr(changed.why, "full"));
	assert_true(kernel_has("192.0.2.1"));
	assert_false(kernel_has("198.51.100.1"));
	assert_int_equal(change(DOORMAN_ADD, "fabrikam", "198.51.100.1"), 0);
	assert_int_equal(change(DOORMAN_ADD, "fabrikam", "198.51.100.3"), -ENOSPC);
	assert_false(kernel_has("198.51.100.3"));
	lab_write("lists/fabrikam.list",
		"# generation 9\n192.0.2.1\n192.0.2.3\n192.0.2.5\n192.0.2.7\n");
	assert_int_equal(lab_reload(true), -ENOSPC);
	assert_true(kernel_has("198.51.100.1"));
	assert_false(kernel_has("192.0.2.5"));
	lab_stop();
	assert_int_equal(lab_start(), -ENOSPC);
	assert_non_null(strstr(complaint, "full"));
}

/* Pins and names are taken up; what was in force is, and what is on disk. */
static void test_restart(void **state)
{
	struct kernel_door_info info;
	uint32_t link;

	(void)state;
	start();
	assert_int_equal(change(DOORMAN_REPLACE, "fabrikam", "192.0.2.0/24"), 0);
	kernel_door_info(doorman->kernel, &info);
	link = info.link_id;
	assert_true(link != 0);
	lab_stop();
	assert_true(kernel_door_is_pinned(lab_pins));
	/* Other bindings, and a partner less. */
	start_as("auto", "receive-connector other { bindings = \"127.0.0.1:2526\" tls = none\n"
			 " send-connector = out }\n"
			 "receive-connector near { bindings = \"127.0.0.1:2525\" tls = none\n"
			 " send-connector = out remote-ip-partners = fabrikam }\n");
	kernel_door_info(doorman->kernel, &info);
	assert_true(info.was_taken_up);
	assert_int_equal(info.link_id, link);
	assert_true(kernel_has("192.0.2.1"));
	assert_false(kernel_has("10.1.2.3"));
	assert_string_equal(asked("192.0.2.1"), "near/fabrikam");
	assert_string_equal(asked_at("203.0.113.1", "127.0.0.1", 2526), "other");
	assert_int_equal(gate_connector_id(doorman_world->gate,
				 policy_receive_connector(doorman_world->policy, "near")),
		1);
	lab_stop();
	start_as("off", LAB_DOORS);
	assert_false(doorman_is_kernel(doorman));
	assert_false(kernel_door_is_pinned(lab_pins));
}

static void test_reload(void **state)
{
	static const char doors[] =
		"receive-connector near { bindings = \"127.0.0.1:2526\" tls = none\n"
		" remote-ip-partners = fabrikam send-connector = out connection-rate-limit = 60 }\n"
		"receive-connector six { bindings = \"[::1]:2525\" tls = none\n"
		" remote-ip-ranges = \"2001:db8:9::/48\" send-connector = out }\n";
	static const char *const calls[] = {
		"bpf_map_update_elem", "bpf_map_update_batch", "cidr_copy_create"};
	struct address address;
	unsigned slot;
	unsigned count = 0;

	(void)state;
	start();
	assert_int_equal(change(DOORMAN_REPLACE, "fabrikam", "192.0.2.0/24\n2001:db8::/48"), 0);
	lab_configure("required", lab_pins, doors);
	assert_int_equal(lab_reload(false), 0);
	assert_true(kernel_has("192.0.2.1"));
	assert_true(kernel_has("2001:db8::1"));
	while (kernel_door_binding(doorman->kernel, count, &address, &slot))
		count++;
	assert_int_equal(count, 2);
	/* Whatever fails while it is prepared, nothing has changed. */
	for (unsigned i = 0; i < COUNT_OF(calls); i++) {
		fail_from(calls[i], 0);
		assert_int_equal(lab_reload(true), -ENOMEM);
		failing = NULL;
		assert_true(kernel_has("192.0.2.1"));
		assert_true(kernel_has("2001:db8::1"));
		assert_false(kernel_has("2001:db8:9::1"));
	}
	assert_int_equal(lab_reload(true), 0);
	assert_false(kernel_has("2001:db8::1"));
	assert_true(kernel_has("2001:db8:9::1"));
	assert_string_equal(asked_at("192.0.2.1", "127.0.0.1", 2526), "near/fabrikam");
	count = 0;
	while (kernel_door_binding(doorman->kernel, count, &address, &slot))
		count++;
	assert_int_equal(count, 2);
	assert_int_equal(change(DOORMAN_ADD, "fabrikam", "203.0.113.0/24"), 0);
	assert_string_equal(asked_at("203.0.113.1", "127.0.0.1", 2526), "near/fabrikam");
}

/* Where a rule of one zone lies, the kernel knows no connector whose rate it could keep to. */
static void test_zoned(void **state)
{
	struct gate_answer answer;
	struct address at;
	struct ip peer;

	(void)state;
	start_as("required", "receive-connector link { bindings = \"[::1]:2525\" tls = none "
			     "send-connector = out\n"
			     " remote-ip-ranges = { \"fe80::%2/64\", \"2001:db8::/32\" } }\n");
	lab_address("::1", 2525, &at);
	assert_int_equal(ip_parse("fe80::7", &peer), 0);
	assert_true(doorman_ask(doorman, doorman_world, &at, &peer, 2, &answer));
	assert_string_equal(answer.connector->name, "link");
	assert_true(answer.is_zoned);
	assert_false(doorman_ask(doorman, doorman_world, &at, &peer, 3, &answer));
	assert_int_equal(ip_parse("2001:db8::7", &peer), 0);
	assert_true(doorman_ask(doorman, doorman_world, &at, &peer, 0, &answer));
	assert_false(answer.is_zoned);
}

/* A start that comes to nothing takes away what it has made, and nothing else. */
static void test_abandoned_start(void **state)
{
	(void)state;
	start();
	assert_true(kernel_door_is_pinned(lab_pins));
	doorman_abandon(&doorman);
	world_release(&doorman_world);
	assert_false(kernel_door_is_pinned(lab_pins));
	start();
	lab_stop();
	start();
	doorman_abandon(&doorman);
	assert_null(doorman);
	assert_true(kernel_door_is_pinned(lab_pins));
	doorman_abandon(&doorman);
}

/*
 * A new binding within the wildcard's is guarded while workers still serve the world before: whom
 * only the new one serves is nobody to them.
 */
static void test_reload_within_wildcard(void **state)
{
	static const char wide[] =
		"receive-connector near { bindings = \"0.0.0.0:2525\" tls = none\n"
		" remote-ip-ranges = \"10.1.0.0/16\" send-connector = out }\n"
		"receive-connector tight { bindings = \"127.0.0.1:2526\" tls = none\n"
		" remote-ip-ranges = \"198.51.100.0/24\" send-connector = out }\n";
	static const char both[] =
		"receive-connector near { bindings = \"0.0.0.0:2525\" tls = none\n"
		" remote-ip-ranges = \"10.1.0.0/16\" send-connector = out }\n"
		"receive-connector tight { bindings = { \"127.0.0.1:2525\", \"127.0.0.1:2526\" }\n"
		" tls = none send-connector = out\n"
		" remote-ip-ranges = { \"198.51.100.0/24\", \"10.1.7.0/24\" } }\n";
	struct world *world = NULL;

	(void)state;
	start_as("required", wide);
	assert_string_equal(asked("10.1.7.1"), "near");
	lab_configure("required", lab_pins, both);
	assert_int_equal(lab_load(doorman_ids(doorman), &world), 0);
	doorman_reload_begin(doorman);
	assert_int_equal(doorman_reload_prepare(doorman, world, stderr), 0);
	assert_true(kernel_has("198.51.100.1"));
	assert_string_equal(asked("198.51.100.1"), "nobody");
	assert_string_equal(asked("10.1.7.1"), "near");
	doorman_reload_abandon(doorman);
	world_release(&world);
	assert_false(kernel_has("198.51.100.1"));
	assert_string_equal(asked("10.1.7.1"), "near");
	assert_ptr_equal(atomic_load(&doorman->kernel_world), doorman_world);
	assert_int_equal(lab_reload(true), 0);
	assert_string_equal(asked("198.51.100.1"), "tight");
	assert_string_equal(asked("10.1.7.1"), "tight");
	assert_ptr_equal(atomic_load(&doorman->kernel_world), doorman_world);
}

/* The kernel cannot: auto goes without and says why, required does not start. */
static void test_starts_without(void **state)
{
	static const char *const calls[] = {
		"bpf_object_load", "bpf_map_create", "bpf_link_create", "bpf_map_update_elem"};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(calls); i++) {
		lab_configure("auto", lab_pins, LAB_DOORS);
		fail_from(calls[i], 0);
		assert_int_equal(lab_start(), 0);
		assert_false(doorman_is_kernel(doorman));
		assert_true(doorman->why[0] != '\0');
		assert_string_equal(asked("10.1.2.3"), "near");
		assert_false(kernel_door_is_pinned(lab_pins));
		lab_stop();
		lab_configure("required", lab_pins, LAB_DOORS);
		fail_from(calls[i], 0);
		assert_true(lab_start() < 0);
		assert_non_null(strstr(complaint, "bpf = required"));
		failing = NULL;
		assert_false(kernel_door_is_pinned(lab_pins));
	}
}

/* A kernel that lets nobody change maps without CAP_BPF: every change would fail, and is not begun.
 */
static void test_starts_without_rights(void **state)
{
	(void)state;
	failing_error = EPERM;
	lab_configure("auto", lab_pins, LAB_DOORS);
	fail_from("capset", 0);
	assert_int_equal(lab_start(), 0);
	assert_false(doorman_is_kernel(doorman));
	assert_non_null(strstr(doorman->why, "without CAP_BPF"));
	assert_int_equal(change(DOORMAN_ADD, "fabrikam", "192.0.2.0/24"), 0);
	lab_stop();
	lab_configure("required", lab_pins, LAB_DOORS);
	fail_from("capset", 0);
	assert_int_equal(lab_start(), -EPERM);
	assert_non_null(strstr(complaint, "5.19"));
	assert_false(kernel_door_is_pinned(lab_pins));
	failing_error = ENOMEM;
}

/* Pins that cannot be used go on filtering: neither auto nor off goes on beside them. */
static void test_pins_in_the_way(void **state)
{
	struct kernel_door *other;

	(void)state;
	other = door_up_attached();
	lab_configure("auto", lab_pins, LAB_DOORS);
	assert_int_equal(lab_start(), -EBUSY);
	assert_non_null(strstr(complaint, "posternctl door remove"));
	lab_configure("off", lab_pins, LAB_DOORS);
	assert_int_equal(lab_start(), -EBUSY);
	assert_non_null(strstr(complaint, "posternctl door remove"));
	kernel_door_destroy(&other);
	assert_int_equal(lab_start(), 0);
	assert_false(kernel_door_is_pinned(lab_pins));
}

#define KERNEL_TEST(name) cmocka_unit_test_setup_teardown(name, folder_make, folder_remove)

int main(void)
{
	const struct CMUnitTest tests[] = {
		KERNEL_TEST(test_both_have_it),
		KERNEL_TEST(test_failures),
		KERNEL_TEST(test_no_disk),
		KERNEL_TEST(test_torn),
		KERNEL_TEST(test_full),
		KERNEL_TEST(test_restart),
		KERNEL_TEST(test_reload),
		KERNEL_TEST(test_reload_within_wildcard),
		KERNEL_TEST(test_abandoned_start),
		KERNEL_TEST(test_zoned),
		KERNEL_TEST(test_starts_without),
		KERNEL_TEST(test_starts_without_rights),
		KERNEL_TEST(test_pins_in_the_way),
	};

	LAB_MAIN(tests);
}
