/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_gate.c: who is served where (EXCHANGE 2.1; table 14 row 1): ranges, bindings, zones,
 * partners' lists, balancers; and what of it the kernel is told.
 */

#include "tests/unit/gate_fixture.h"

static void check_text(const char *text, const struct arrival *rows, size_t count)
{
	struct policy *policy = NULL;
	struct gate *gate = NULL;

	gate_text(text, &policy, &gate);
	check_arrivals(gate, rows, count);
	gate_destroy(&gate);
	assert_null(gate);
	policy_destroy(&policy);
}

/* The example of Microsoft's page on receive connectors. */
static void test_row_1_connector_match_example(void **state)
{
	static const struct arrival rows[] = {
		{"192.168.1.75", "192.0.2.1", 25, 0, "c", false},
		{"192.168.1.100", "192.0.2.1", 25, 0, "b", false},
		{"192.168.2.75", "192.0.2.1", 25, 0, "a", false},
		{"::ffff:192.168.1.75", "192.0.2.1", 25, 0, "c", false},
		{"2001:db8::1", "2001:db8::25", 25, 0, "nobody", false},
		{"192.168.1.75", "192.0.2.1", 587, 0, "nobody", false},
	};

	(void)state;
	check_text(OUT "receive-connector a { bindings = \"0.0.0.0:25\" send-connector = out\n"
		       " remote-ip-ranges = \"0.0.0.0-255.255.255.255\" }\n"
		       "receive-connector b { bindings = \"0.0.0.0:25\" send-connector = out\n"
		       " remote-ip-ranges = \"192.168.1.0-192.168.1.255\" }\n"
		       "receive-connector c { bindings = \"0.0.0.0:25\" send-connector = out\n"
		       " remote-ip-ranges = 192.168.1.75 }\n",
		rows, COUNT_OF(rows));
}

static void test_row_1_connector_match(void **state)
{
	static const struct arrival rows[] = {
		/* Without ranges: everybody, of both families, and the widest of all. */
		{"203.0.113.1", "192.0.2.1", 25, 0, "all", false},
		{"2001:db8::1", "2001:db8::25", 25, 0, "all", false},
		{"198.51.100.1", "192.0.2.1", 25, 0, "partner", false},
		{"198.51.100.15", "192.0.2.1", 25, 0, "partner", false},
		{"198.51.100.16", "192.0.2.1", 25, 0, "all", false},
		{"2001:db8:51::9", "2001:db8::25", 25, 0, "partner", false},
		{"2001:db8:52::9", "2001:db8::25", 25, 0, "all", false},
		{"::ffff:198.51.100.1", "::ffff:192.0.2.1", 25, 0, "partner", false},
		/* An exact address goes before the wildcard, even with a wider range. */
		{"198.51.100.1", "192.0.2.7", 25, 0, "exact", false},
		{"203.0.113.1", "192.0.2.7", 25, 0, "all", false},
		/* By zone. */
		{"fe80::1", "fe80::25", 26, 2, "link", false},
		{"fe80::1", "fe80::25", 26, 3, "links", false},
		{"fe80::1", "fe80::25", 26, 0, "links", false},
		{"2001:db8::1", "fe80::25", 26, 2, "nobody", false},
		/* Of two ranges of one connector the narrower counts. */
		{"10.0.0.1", "192.0.2.1", 27, 0, "two", false},
		{"10.0.0.9", "192.0.2.1", 27, 0, "mid", false},
		{"10.9.0.1", "192.0.2.1", 27, 0, "two", false},
		/* Not enabled. */
		{"192.0.2.99", "192.0.2.1", 28, 0, "nobody", false},
		/* Everybody goes behind a range that is as wide. */
		{"192.0.2.99", "192.0.2.1", 29, 0, "whole", false},
		/* Equal pieces of ranges: the narrower range's. */
		{"10.0.0.2", "192.0.2.1", 30, 0, "inner", false},
		{"10.0.0.4", "192.0.2.1", 30, 0, "inner", false},
		{"10.0.0.7", "192.0.2.1", 30, 0, "outer", false},
		{"10.0.0.1", "192.0.2.1", 30, 0, "outer", false},
	};

	(void)state;
	check_text(OUT
		"receive-connector all { bindings = {\"[::]:25\", \"0.0.0.0:25\"}\n"
		" send-connector = out }\n"
		"receive-connector partner { bindings = {\"0.0.0.0:25\", \"[::]:25\"}\n"
		" remote-ip-ranges = {\"198.51.100.0/28\", \"2001:db8:51::/64\"}\n"
		" send-connector = out }\n"
		"receive-connector exact { bindings = \"192.0.2.7:25\" send-connector = out\n"
		" remote-ip-ranges = \"198.51.100.0/24\" }\n"
		"receive-connector links { bindings = \"[::]:26\" send-connector = out\n"
		" remote-ip-ranges = \"fe80::/10\" }\n"
		"receive-connector link { bindings = \"[::]:26\" send-connector = out\n"
		" remote-ip-ranges = \"fe80::%2/10\" }\n"
		"receive-connector two { bindings = \"0.0.0.0:27\" send-connector = out\n"
		" remote-ip-ranges = {\"10.0.0.0/8\", \"10.0.0.0/30\"} }\n"
		"receive-connector mid { bindings = \"0.0.0.0:27\" send-connector = out\n"
		" remote-ip-ranges = \"10.0.0.0/24\" }\n"
		"receive-connector off { bindings = \"0.0.0.0:28\" send-connector = out\n"
		" enabled = no }\n"
		"receive-connector everybody { bindings = \"0.0.0.0:29\" send-connector = out }\n"
		"receive-connector whole { bindings = \"0.0.0.0:29\" send-connector = out\n"
		" remote-ip-ranges = \"0.0.0.0/0\" }\n"
		"receive-connector inner { bindings = \"0.0.0.0:30\" send-connector = out\n"
		" remote-ip-ranges = \"10.0.0.2-10.0.0.6\" }\n"
		"receive-connector outer { bindings = \"0.0.0.0:30\" send-connector = out\n"
		" remote-ip-ranges = \"10.0.0.1-10.0.0.9\" }\n",
		rows, COUNT_OF(rows));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_row_1_connector_match_example),
		cmocka_unit_test(test_row_1_connector_match),
	};

	return cmocka_run_group_tests_name("gate", tests, fixture_setup, fixture_teardown);
}
