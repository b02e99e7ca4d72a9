/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_doorman.c: relay/doorman*.c where userspace decides: changes of lists, what is on disk after
 * each, what they may not be, reloads, counts.
 */

#include "tests/unit/doorman_fixture.h"

#define HEAD(generation)                                                                       \
	"# Postern: addresses of partner \"fabrikam\"; change them with \"posternctl partner " \
	"fabrikam ip\".\n# generation " #generation "\n"

static void start(void)
{
	lab_configure("off", "/nonexistent/postern", LAB_DOORS);
	if (lab_start() < 0)
		fail_msg("%s", complaint);
}

static void test_add_and_remove(void **state)
{
	(void)state;
	start();
	assert_false(doorman_is_kernel(doorman));
	assert_string_equal(asked("192.0.2.7"), "nobody");
	assert_string_equal(asked("10.1.2.3"), "near");
	assert_int_equal(change(DOORMAN_ADD, "fabrikam", "192.0.2.0/24\n"), 0);
	assert_int_equal(changed.generation, 1);
	assert_int_equal(changed.diff.added, 1);
	assert_string_equal(asked("192.0.2.7"), "near/fabrikam");
	assert_string_equal(lab_read("lists/fabrikam.list"), HEAD(1) "192.0.2.0/24\n");
	assert_int_equal(change(DOORMAN_ADD, "fabrikam", "!192.0.2.7\n2001:db8::/32\n"), 0);
	assert_int_equal(changed.generation, 2);
	assert_int_equal(changed.diff.added, 2);
	assert_int_equal(changed.diff.kept, 1);
	assert_string_equal(asked("192.0.2.7"), "!fabrikam");
	assert_string_equal(asked("192.0.2.8"), "near/fabrikam");
	assert_string_equal(asked("2001:db8::7"), "six/fabrikam");
	/* From excluded to in is one that goes and one that comes. */
	assert_int_equal(change(DOORMAN_ADD, "fabrikam", "192.0.2.7"), 0);
	assert_int_equal(changed.diff.added, 1);
	assert_int_equal(changed.diff.removed, 1);
	assert_int_equal(changed.diff.kept, 2);
	assert_string_equal(asked("192.0.2.7"), "near/fabrikam");
	assert_int_equal(change(DOORMAN_REMOVE, "fabrikam", "192.0.2.0/24"), 0);
	assert_int_equal(changed.diff.removed, 1);
	assert_string_equal(asked("192.0.2.7"), "near/fabrikam");
	assert_string_equal(asked("192.0.2.8"), "nobody");
	assert_string_equal(lab_read("lists/fabrikam.list"), HEAD(4) "192.0.2.7\n2001:db8::/32\n");
}

/* What lies below a prefix of the list comes back when that goes. */
static void test_uncovers_the_range(void **state)
{
	(void)state;
	start();
	assert_int_equal(change(DOORMAN_ADD, "fabrikam", "!10.1.0.0/16"), 0);
	assert_string_equal(asked("10.1.2.3"), "!fabrikam");
	assert_int_equal(change(DOORMAN_REMOVE, "fabrikam", "!10.1.0.0/16"), 0);
	assert_string_equal(asked("10.1.2.3"), "near");
}

static void test_replace(void **state)
{
	(void)state;
	start();
	assert_int_equal(change(DOORMAN_REPLACE, "fabrikam", "10.0.0.0/8\n!10.2.0.0/16\n"), 0);
	assert_string_equal(asked("10.3.0.1"), "near/fabrikam");
	assert_string_equal(asked("10.2.0.1"), "!fabrikam");
	/* The same again is nothing. */
	assert_int_equal(change(DOORMAN_REPLACE, "fabrikam", "!10.2.0.0/16\n10.0.0.0/8\n"), 0);
	assert_int_equal(changed.generation, 1);
	assert_int_equal(changed.diff.added + changed.diff.removed, 0);
	assert_int_equal(changed.diff.kept, 2);
	assert_int_equal(change(DOORMAN_REPLACE, "fabrikam", ""), 0);
	assert_int_equal(changed.generation, 2);
	assert_string_equal(asked("10.3.0.1"), "nobody");
	assert_string_equal(asked("10.1.0.1"), "near");
	assert_string_equal(lab_read("lists/fabrikam.list"), HEAD(2));
}

/* Each refusal says why, and nothing has changed. */
static void test_refusals(void **state)
{
	static const struct {
		enum doorman_verb verb;
		const char *partner, *lines;
		uint64_t expected; /* 0: not said */
		int rc;
		const char *why;
	} rows[] = {
		{DOORMAN_ADD, "nobody", "192.0.2.1", 0, -ESRCH, "no partner \"nobody\""},
		{DOORMAN_ADD, "fabrikam", "192.0.2.0/24", 0, -EEXIST,
			"already in the list: 192.0.2.0/24"},
		{DOORMAN_ADD, "fabrikam", "192.0.2.0/24\n198.51.100.1", 0, -EEXIST, "already in"},
		{DOORMAN_REMOVE, "fabrikam", "192.0.2.1", 0, -ENOENT, "not in the list: 192.0.2.1"},
		{DOORMAN_REMOVE, "fabrikam", "!192.0.2.0/24", 0, -ENOENT, "not in the list: !192"},
		{DOORMAN_REPLACE, "fabrikam", "192.0.2.1", 4, -EBUSY, "generation 1, not 4"},
		/* Of two partners of one binding. */
		{DOORMAN_ADD, "contoso", "192.0.2.0/24", 0, -EINVAL, "fabrikam"},
		{DOORMAN_REPLACE, "contoso", "192.0.2.0/24\n198.51.100.9", 0, -EINVAL, "fabrikam"},
	};

	(void)state;
	start();
	assert_int_equal(change(DOORMAN_ADD, "fabrikam", "192.0.2.0/24"), 0);
	for (unsigned i = 0; i < COUNT_OF(rows); i++) {
		const struct doorman_request request = {.verb = rows[i].verb,
			.partner = rows[i].partner,
			.has_expected = rows[i].expected != 0,
			.expected = rows[i].expected};

		for (unsigned dry = 0; dry < 2; dry++) {
			struct doorman_request asked_for = request;

			asked_for.dry_run = dry == 1;
			assert_int_equal(change_with(&asked_for, rows[i].lines), rows[i].rc);
			if (strstr(changed.why, rows[i].why) == NULL)
				fail_msg("row %u: %s", i, changed.why);
		}
	}
	assert_string_equal(lab_read("lists/fabrikam.list"), HEAD(1) "192.0.2.0/24\n");
	assert_string_equal(lab_read("lists/contoso.list"), "");
	assert_string_equal(asked("198.51.100.1"), "nobody");
	assert_string_equal(asked("198.51.100.9"), "nobody");
	assert_string_equal(asked("192.0.2.1"), "near/fabrikam");
}

static void test_dry_run_and_expected(void **state)
{
	struct doorman_request request = {.verb = DOORMAN_REPLACE,
		.partner = "fabrikam",
		.has_expected = true,
		.dry_run = true};

	(void)state;
	start();
	assert_int_equal(change_with(&request, "192.0.2.0/24\n192.0.3.1"), 0);
	assert_int_equal(changed.diff.added, 2);
	assert_int_equal(changed.generation, 0);
	assert_string_equal(asked("192.0.2.7"), "nobody");
	assert_string_equal(lab_read("lists/fabrikam.list"), "");
	request.dry_run = false;
	assert_int_equal(change_with(&request, "192.0.2.0/24\n192.0.3.1"), 0);
	assert_int_equal(changed.generation, 1);
	/* Who was too late. */
	assert_int_equal(change_with(&request, "198.51.100.0/24"), -EBUSY);
	assert_int_equal(changed.generation_before, 1);
	assert_string_equal(asked("192.0.2.7"), "near/fabrikam");
}

/* A list that no connector names lies on disk only, and is in force when one does. */
static void test_unnamed(void **state)
{
	struct ip_list list;

	(void)state;
	start();
	assert_int_equal(change(DOORMAN_ADD, "wingtip", "203.0.113.0/24"), 0);
	assert_int_equal(change(DOORMAN_ADD, "wingtip", "!203.0.113.9"), 0);
	assert_int_equal(changed.generation, 2);
	assert_int_equal(change(DOORMAN_ADD, "wingtip", "!203.0.113.9"), -EEXIST);
	assert_int_equal(doorman_list(doorman, "wingtip", &list), 0);
	assert_int_equal(list.generation, 2);
	assert_int_equal(cidr_count(list.set), 2);
	ip_list_clear(&list);
	assert_string_equal(asked("203.0.113.1"), "nobody");
	lab_configure("off", "/nonexistent/postern",
		"receive-connector near { bindings = \"127.0.0.1:2525\" tls = none send-connector "
		"= out\n"
		" remote-ip-partners = \"*\" }\n");
	assert_int_equal(lab_reload(true), 0);
	assert_string_equal(asked("203.0.113.1"), "near/wingtip");
	assert_string_equal(asked("203.0.113.9"), "!wingtip");
	assert_int_equal(change(DOORMAN_REMOVE, "wingtip", "!203.0.113.9"), 0);
	assert_int_equal(changed.generation, 3);
}

/* A list that was changed by hand is not overwritten; a reload reads it. */
static void test_by_hand(void **state)
{
	struct ip_list list;

	(void)state;
	start();
	assert_int_equal(change(DOORMAN_ADD, "fabrikam", "192.0.2.0/24"), 0);
	lab_write("lists/fabrikam.list", HEAD(9) "198.51.100.0/24\n203.0.113.0/24\n");
	assert_int_equal(change(DOORMAN_ADD, "fabrikam", "192.0.3.0/24"), -ESTALE);
	assert_non_null(strstr(changed.why, "SIGHUP"));
	assert_string_equal(asked("192.0.2.7"), "near/fabrikam");
	assert_int_equal(doorman_list(doorman, "fabrikam", &list), 0);
	assert_int_equal(list.generation, 1);
	ip_list_clear(&list);
	assert_int_equal(lab_reload(true), 0);
	assert_string_equal(asked("192.0.2.7"), "nobody");
	assert_string_equal(asked("198.51.100.7"), "near/fabrikam");
	assert_int_equal(change(DOORMAN_ADD, "fabrikam", "192.0.3.0/24"), 0);
	assert_int_equal(changed.generation, 10);
}

/* The disk says no: nothing has changed, for one prefix, for a set, and for one on disk only. */
static void test_no_disk(void **state)
{
	static const struct {
		enum doorman_verb verb;
		const char *partner, *lines;
	} rows[] = {
		{DOORMAN_ADD, "fabrikam", "192.0.3.0/24"},
		{DOORMAN_REMOVE, "fabrikam", "192.0.2.0/24"},
		{DOORMAN_ADD, "fabrikam", "!192.0.2.0/24"},
		{DOORMAN_REPLACE, "fabrikam", "192.0.3.0/24\n192.0.4.0/24"},
		{DOORMAN_ADD, "wingtip", "192.0.3.0/24"},
	};

	(void)state;
	start();
	assert_int_equal(change(DOORMAN_ADD, "fabrikam", "192.0.2.0/24"), 0);
	for (unsigned i = 0; i < COUNT_OF(rows); i++) {
		disk_fill();
		assert_int_equal(change(rows[i].verb, rows[i].partner, rows[i].lines), -EFBIG);
		disk_empty();
		assert_int_equal(changed.fault, DOORMAN_FAULT_DISK);
		assert_string_equal(asked("192.0.2.1"), "near/fabrikam");
		assert_string_equal(asked("192.0.3.1"), "nobody");
		assert_string_equal(lab_read("lists/fabrikam.list"), HEAD(1) "192.0.2.0/24\n");
	}
	assert_int_equal(change(DOORMAN_REPLACE, "fabrikam", "192.0.3.0/24"), 0);
	assert_int_equal(changed.generation, 2);
}

/* A change that comes while the next world is being read is in it. */
static void test_change_during_reload(void **state)
{
	struct world *world = NULL;

	(void)state;
	start();
	assert_int_equal(lab_load(doorman_ids(doorman), &world), 0);
	assert_int_equal(change(DOORMAN_ADD, "fabrikam", "192.0.2.0/24"), 0);
	doorman_reload_begin(doorman);
	assert_int_equal(doorman_reload_prepare(doorman, world, stderr), 0);
	doorman_reload_finish(doorman, world);
	world_release(&doorman_world);
	doorman_world = world;
	assert_string_equal(asked("192.0.2.7"), "near/fabrikam");
	assert_int_equal(change(DOORMAN_REMOVE, "fabrikam", "192.0.2.0/24"), 0);
	assert_string_equal(asked("192.0.2.7"), "nobody");
	/* One that comes to nothing leaves all as it is. */
	assert_int_equal(lab_reload(false), 0);
	assert_int_equal(change(DOORMAN_ADD, "fabrikam", "192.0.2.0/24"), 0);
	assert_string_equal(asked("192.0.2.7"), "near/fabrikam");
}

/* Sessions may hold a world for long; its lists of millions are not held with it. */
static void test_old_gate_goes(void **state)
{
	struct world *old;

	(void)state;
	start();
	old = world_hold(doorman_world);
	assert_int_equal(lab_reload(false), 0);
	assert_non_null(old->gate);
	assert_int_equal(lab_reload(true), 0);
	assert_null(old->gate);
	assert_string_equal(asked("10.1.2.3"), "near");
	world_release(&old);
}

/* A world that was read and never came into force has given nobody a number. */
static void test_numbers_of_no_world(void **state)
{
	struct world *world = NULL;

	(void)state;
	start();
	lab_configure("off", "/nonexistent/postern",
		LAB_DOORS "receive-connector ghost { bindings = \"127.0.0.1:2526\" tls = none\n"
			  " send-connector = out }\n");
	assert_int_equal(lab_load(doorman_ids(doorman), &world), 0);
	world_release(&world);
	lab_configure("off", "/nonexistent/postern",
		LAB_DOORS "receive-connector other { bindings = \"127.0.0.1:2526\" tls = none\n"
			  " send-connector = out }\n");
	assert_int_equal(lab_reload(true), 0);
	assert_int_equal(gate_connector_id(doorman_world->gate,
				 policy_receive_connector(doorman_world->policy, "other")),
		3);
}

/* A list that is changed by hand between being read and being in force is not overwritten. */
static void test_by_hand_during_reload(void **state)
{
	struct world *world = NULL;

	(void)state;
	start();
	assert_int_equal(change(DOORMAN_ADD, "fabrikam", "192.0.2.0/24"), 0);
	assert_false(doorman_is_behind(doorman));
	assert_int_equal(lab_load(doorman_ids(doorman), &world), 0);
	lab_write("lists/fabrikam.list", HEAD(7) "198.51.100.0/24\n203.0.113.0/24\n");
	doorman_reload_begin(doorman);
	assert_int_equal(doorman_reload_prepare(doorman, world, stderr), 0);
	doorman_reload_finish(doorman, world);
	world_release(&doorman_world);
	doorman_world = world;
	assert_string_equal(asked("192.0.2.7"), "near/fabrikam");
	assert_true(doorman_is_behind(doorman));
	assert_int_equal(change(DOORMAN_ADD, "fabrikam", "192.0.3.0/24"), -ESTALE);
	assert_int_equal(lab_reload(true), 0);
	assert_false(doorman_is_behind(doorman));
	assert_string_equal(asked("198.51.100.7"), "near/fabrikam");
	assert_int_equal(change(DOORMAN_ADD, "fabrikam", "192.0.3.0/24"), 0);
}

static uint64_t end_sessions(void *owner)
{
	/* Not under the lock. */
	assert_string_equal(asked("192.0.2.7"), "nobody");
	++*(unsigned *)owner;
	return 5;
}

static void test_end_sessions(void **state)
{
	unsigned calls = 0;
	struct doorman_request request = {
		.verb = DOORMAN_REMOVE, .partner = "fabrikam", .end_sessions = true};

	(void)state;
	start();
	doorman_set_hooks(doorman,
		&(const struct doorman_hooks){.end_sessions = end_sessions, .owner = &calls});
	assert_int_equal(change(DOORMAN_ADD, "fabrikam", "192.0.2.0/24"), 0);
	assert_int_equal(change_with(&request, "192.0.2.0/25"), -ENOENT);
	request.dry_run = true;
	assert_int_equal(change_with(&request, "192.0.2.0/24"), 0);
	assert_int_equal(calls, 0);
	request.dry_run = false;
	assert_int_equal(change_with(&request, "192.0.2.0/24"), 0);
	assert_int_equal(calls, 1);
	assert_int_equal(changed.sessions_ended, 5);
}

static void knock(const char *peer, bool is_rate)
{
	struct gate_answer answer = {0};
	struct address local;
	struct ip ip;
	const struct doorman_knock knock = {.local = &local, .peer = &ip, .answer = &answer};

	lab_address("127.0.0.1", 2525, &local);
	assert_int_equal(ip_parse(peer, &ip), 0);
	if (doorman_ask(doorman, doorman_world, &local, &ip, 0, &answer) && !is_rate)
		doorman_passed(doorman, doorman_world, &knock);
	else
		doorman_refused(doorman, doorman_world, &knock,
			is_rate ? DOOR_REASON_RATE : doorman_reason(&answer));
}

struct seen {
	struct door_counts near, fabrikam, binding;
};

static void on_facts(void *owner, const struct doorman_facts *facts)
{
	(void)owner;
	assert_false(facts->is_kernel);
	assert_string_equal(facts->why, "bpf = off");
	assert_null(facts->info);
	assert_true(facts->gate_bytes > 0);
}

static void on_row(void *owner, enum doorman_table table, const struct doorman_row *row)
{
	struct seen *seen = owner;

	if (table == DOORMAN_BINDINGS && strcmp(row->name, "127.0.0.1:2525") == 0)
		seen->binding = row->counts;
	if (table == DOORMAN_CONNECTORS && strcmp(row->name, "near") == 0)
		seen->near = row->counts;
	if (table == DOORMAN_PARTNERS && strcmp(row->name, "fabrikam") == 0) {
		seen->fabrikam = row->counts;
		assert_int_equal(row->generation, 1);
		assert_int_equal(row->prefixes, 2);
	}
}

static void test_counts(void **state)
{
	struct seen seen = {0};
	struct refusal refusals[8];

	(void)state;
	start();
	assert_int_equal(change(DOORMAN_REPLACE, "fabrikam", "192.0.2.0/24\n!192.0.2.7"), 0);
	knock("192.0.2.1", false);
	knock("192.0.2.1", true);
	knock("192.0.2.7", false);
	knock("192.0.2.7", false);
	knock("192.0.2.7", false);
	knock("198.51.100.1", false);
	knock("10.1.1.1", false);
	doorman_look(doorman, &(const struct doorman_viewer){on_facts, on_row, &seen});
	assert_int_equal(seen.near.passed, 2);
	assert_int_equal(seen.near.refused[DOOR_REASON_RATE], 1);
	assert_int_equal(seen.fabrikam.passed, 1);
	assert_int_equal(seen.fabrikam.refused[DOOR_REASON_EXCLUDED], 3);
	assert_int_equal(seen.fabrikam.refused[DOOR_REASON_RATE], 1);
	assert_int_equal(seen.binding.passed, 2);
	assert_int_equal(seen.binding.refused[DOOR_REASON_STRANGER], 1);
	assert_int_equal(doorman_refusals(doorman, refusals, COUNT_OF(refusals)), 3);
	assert_int_equal(refusals[0].count, 3);
	assert_int_equal(refusals[0].reason, DOOR_REASON_EXCLUDED);
	assert_int_equal(doorman_refusals(doorman, refusals, 1), 1);
}

/* More sources than there are places: the table stays as it is, and who is refused often stays. */
static void test_many_refused(void **state)
{
	static struct refusal out[REFUSALS_MAX];
	struct refusal refusal = {.reason = DOOR_REASON_STRANGER};
	struct refusals *refusals;

	(void)state;
	assert_int_equal(refusals_create(&refusals), 0);
	for (unsigned i = 0; i < 100000; i++) {
		refusal.last_ms = i;
		memcpy(refusal.peer.bytes, &i, sizeof(i));
		refusals_note(refusals, &refusal);
		memset(refusal.peer.bytes, 0xff, 4);
		refusals_note(refusals, &refusal);
	}
	assert_int_equal(refusals_read(refusals, out, REFUSALS_MAX), REFUSALS_MAX);
	assert_int_equal(out[0].count, 100000);
	assert_int_equal(out[1].count, 1);
	refusals_destroy(&refusals);
}

#define DOORMAN_TEST(name) cmocka_unit_test_setup_teardown(name, lab_folder_make, lab_folder_remove)

int main(void)
{
	const struct CMUnitTest tests[] = {
		DOORMAN_TEST(test_add_and_remove),
		DOORMAN_TEST(test_uncovers_the_range),
		DOORMAN_TEST(test_replace),
		DOORMAN_TEST(test_refusals),
		DOORMAN_TEST(test_dry_run_and_expected),
		DOORMAN_TEST(test_unnamed),
		DOORMAN_TEST(test_by_hand),
		DOORMAN_TEST(test_no_disk),
		DOORMAN_TEST(test_change_during_reload),
		DOORMAN_TEST(test_old_gate_goes),
		DOORMAN_TEST(test_numbers_of_no_world),
		DOORMAN_TEST(test_by_hand_during_reload),
		DOORMAN_TEST(test_end_sessions),
		DOORMAN_TEST(test_counts),
		cmocka_unit_test(test_many_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
