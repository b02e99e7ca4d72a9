/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_gate_memory.c: memory runs out at each allocation of a gate and of its changes: what was in
 * force still is, in every binding.
 */

#include "tests/unit/alloc_fixture.h"
#include "tests/unit/gate_fixture.h"

#define ALLOCATIONS_MAX 2000

#define TEXT                                                                                      \
	LISTS OUT PARTNER("p")                                                                    \
		PARTNER("q") "receive-connector a { bindings = {\"0.0.0.0:25\", \"0.0.0.0:26\", " \
			     "\"[::]:25\"}\n"                                                     \
			     " send-connector = out remote-ip-partners = {p, q}\n"                \
			     " remote-ip-ranges = {\"10.0.0.0/8\", \"fe80::%2/64\"}\n"            \
			     " proxy-balancers = 10.0.0.9 }\n"

static struct policy *policy;
static struct gate *gate;

static int begin(void **state)
{
	(void)state;
	put_list("p", "192.0.2.0/24\n!192.0.2.7\n");
	put_list("q", "2001:db8::/32\n");
	gate_text(TEXT, &policy, &gate);
	return 0;
}

static int end(void **state)
{
	(void)state;
	gate_destroy(&gate);
	policy_destroy(&policy);
	return 0;
}

/* How many prefixes the list and each binding have. */
static void check_counts(size_t list, size_t v4, size_t v6)
{
	uint64_t generation = 0;

	assert_int_equal(
		cidr_count(gate_partner_set(gate, partner_named(policy, "p"), &generation)), list);
	assert_int_equal(generation, 7);
	for (unsigned b = 0; b < gate_binding_count(gate); b++)
		assert_int_equal(cidr_count(gate_binding_trie(gate, b)),
			gate_binding_address(gate, b)->sockaddr.ss_family == AF_INET6 ? v6 : v4);
}

static void check_answers(void)
{
	static const struct arrival rows[] = {
		{"192.0.2.1", "203.0.113.1", 25, 0, "a/p", false},
		{"192.0.2.7", "203.0.113.1", 26, 0, "!p", false},
		{"198.51.100.1", "203.0.113.1", 25, 0, "nobody", false},
		{"198.51.100.1", "203.0.113.1", 26, 0, "nobody", false},
		{"198.51.100.1", "203.0.113.1", 26, 0, "nobody", true},
		{"192.0.2.1", "203.0.113.1", 26, 0, "a/p", true},
		{"10.0.0.9", "203.0.113.1", 25, 0, "balancer a", false},
	};

	check_arrivals(gate, rows, COUNT_OF(rows));
}

static void test_one_prefix(void **state)
{
	const struct partner *partner = partner_named(policy, "p");
	unsigned failures = 0;

	(void)state;
	/* Many, since only some of them need memory. */
	for (unsigned i = 0; i < 200; i++) {
		const struct prefix prefix = {
			.ip.bytes = {203, 0, (uint8_t)(i * 7), (uint8_t)(i * 5)}, .bits = 32};
		int rc = -ENOMEM;

		for (unsigned left = 0; rc == -ENOMEM && left < 20; left++) {
			alloc_limit(left);
			rc = gate_change_one(
				gate, partner, &prefix, &(struct door_value){0}, 7, stderr);
			alloc_free();
			failures += rc == -ENOMEM;
			if (rc == -ENOMEM) {
				check_counts(2 + i, 4 + i, 2);
				check_answers();
			}
		}
		assert_int_equal(rc, 0);
		check_counts(3 + i, 5 + i, 2);
	}
	assert_true(failures > 20);
	/* What frees memory needs none. */
	alloc_limit(0);
	for (unsigned i = 0; i < 200; i++) {
		const struct prefix prefix = {
			.ip.bytes = {203, 0, (uint8_t)(i * 7), (uint8_t)(i * 5)}, .bits = 32};

		assert_int_equal(gate_change_one(gate, partner, &prefix,
					 &(struct door_value){.flags = DOOR_EXCLUDED}, 7, stderr),
			0);
		assert_int_equal(gate_change_one(gate, partner, &prefix, NULL, 7, stderr), 0);
	}
	alloc_free();
	check_counts(2, 4, 2);
	check_answers();
}

static void test_whole_set(void **state)
{
	struct gate_stage *stage = NULL;
	struct cidr *set = NULL;
	unsigned left = 0;
	int rc = -ENOMEM;

	(void)state;
	assert_int_equal(cidr_create(&set), 0);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(
			cidr_put(set,
				&(struct prefix){.ip.bytes = {198, 51, (uint8_t)i, 1}, .bits = 32},
				(struct door_value){0}),
			0);
	for (; rc == -ENOMEM && left < ALLOCATIONS_MAX; left++) {
		alloc_limit(left);
		rc = gate_stage_create(gate, partner_named(policy, "p"), set, stderr, &stage);
		alloc_free();
		check_counts(2, 4, 2);
		check_answers();
		assert_true((rc == 0) == (stage != NULL));
	}
	assert_int_equal(rc, 0);
	assert_true(left > 10);
	/* Nothing can go wrong any more. */
	alloc_limit(0);
	gate_stage_commit(&stage, 7);
	alloc_free();
	check_counts(100, 102, 2);
	cidr_destroy(&set);
}

static void test_creation(void **state)
{
	struct gate_ids *ids = NULL;
	struct gate *made = NULL;
	unsigned left = 0;
	int rc = -ENOMEM;

	(void)state;
	assert_int_equal(gate_ids_create(&ids), 0);
	for (; rc == -ENOMEM && left < ALLOCATIONS_MAX; left++) {
		assert_string_equal(ids->connectors[1], "");
		alloc_limit(left);
		rc = gate_create(policy, ids, stderr, &made);
		alloc_free();
		assert_true((rc == 0) == (made != NULL));
	}
	assert_int_equal(rc, 0);
	assert_true(left > 20);
	assert_string_equal(ids->connectors[1], "a");
	gate_destroy(&made);
	gate_ids_destroy(&ids);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_one_prefix, begin, end),
		cmocka_unit_test_setup_teardown(test_whole_set, begin, end),
		cmocka_unit_test_setup_teardown(test_creation, begin, end),
	};

	return cmocka_run_group_tests_name("gate-memory", tests, fixture_setup, fixture_teardown);
}
