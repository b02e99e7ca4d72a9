/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_hosts.c: how long what was looked up is good, and which host is tried.
 */

#include "tests/unit/loop_fixture.h"

#include "relay/mail/hosts.h"

static uint64_t down[RESOLVE_ADDRESSES_MAX];

/* What a lookup finds out before nobody waits for it any more. */
static void find_part(struct resolve *resolve)
{
	resolve->list.count = 1;
	resolve->is_running = false;
}

static void test_hosts_in_part_are_not_known(void **state)
{
	static struct resolve resolve;
	struct hosts hosts = {.resolve = &resolve, .max = COUNT_OF(down), .down_until_ms = down};

	(void)state;
	assert_false(hosts_are_known(&hosts, 1000));
	resolve.list.ttl_s = RESOLVE_TTL_MAX_S;
	hosts_resolved(&hosts, RESOLVE_FAILED, 1000);
	assert_false(hosts_are_known(&hosts, 1001));
	find_part(&resolve);
	assert_false(hosts_are_known(&hosts, 2000));
	hosts_resolved(&hosts, RESOLVE_OK, 3000);
	assert_true(hosts_are_known(&hosts, 3000 + RESOLVE_TTL_MAX_S * 1000 - 1));
	assert_false(hosts_are_known(&hosts, 3000 + RESOLVE_TTL_MAX_S * 1000));
	find_part(&resolve);
	assert_false(hosts_are_known(&hosts, 3000 + RESOLVE_TTL_MAX_S * 1000));
}

static void test_a_host_that_is_down_is_passed_over(void **state)
{
	static struct resolve resolve;
	struct hosts hosts = {.resolve = &resolve, .max = COUNT_OF(down), .down_until_ms = down};

	(void)state;
	assert_false(hosts_have_one_up(&hosts, 1000)); /* there is none at all */
	resolve.list.count = 2;
	resolve.list.ttl_s = RESOLVE_TTL_MAX_S;
	hosts_resolved(&hosts, RESOLVE_OK, 1000);
	assert_int_equal(hosts_pick(&hosts, 1000), 0);
	assert_true(hosts_have_one_up(&hosts, 1000));
	down[0] = 2000;
	assert_int_equal(hosts_pick(&hosts, 1000), 1);
	assert_true(hosts_have_one_up(&hosts, 1000));
	down[1] = 3000;
	assert_int_equal(hosts_pick(&hosts, 1999), 0);
	assert_false(hosts_have_one_up(&hosts, 1999));
	assert_int_equal(hosts_pick(&hosts, 2000), 0);
	assert_true(hosts_have_one_up(&hosts, 2000));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hosts_in_part_are_not_known),
		cmocka_unit_test(test_a_host_that_is_down_is_passed_over),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
