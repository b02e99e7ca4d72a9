/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_bench_schedule.c: the times of an open loop, with a clock that the test holds, and mixes of
 * sizes.
 */

#include "bench/common/schedule.h"
#include "bench/common/sizes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define START_US UINT64_C(1000000000)

/* All threads together send number i at i / rate, each number once, and there is no drift. */
static void check_even(double rate, uint64_t thread, uint64_t threads)
{
	struct schedule schedule;

	schedule_init(&schedule, START_US, rate, thread, threads);
	for (uint64_t n = thread; n < 100000; n += threads) {
		double want = (double)START_US + 1e6 * (double)n / rate;
		double got = (double)schedule_due_us(&schedule);

		assert_int_equal(schedule.index, n);
		assert_true(got >= want - 1.001 && got <= want + 0.001);
		schedule_next(&schedule);
	}
}

static void test_even(void **state)
{
	static const double rates[] = {1, 3, 7, 1000, 30000, 333333};

	(void)state;
	for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
		for (uint64_t threads = 1; threads <= 3; threads++) {
			for (uint64_t thread = 0; thread < threads; thread++)
				check_even(rates[i], thread, threads);
		}
	}
}

static void test_poisson(void **state)
{
	const double rate = 1000;
	struct schedule one;
	struct schedule again;
	struct schedule other;
	uint64_t short_gaps = 0;
	uint64_t differ = 0;
	uint64_t last = START_US;

	(void)state;
	schedule_init_poisson(&one, START_US, rate, 0, 1, 42);
	schedule_init_poisson(&again, START_US, rate, 0, 1, 42);
	schedule_init_poisson(&other, START_US, rate, 0, 1, 43);
	for (unsigned i = 0; i < 100000; i++) {
		uint64_t due = schedule_due_us(&one);

		assert_true(due >= last);
		assert_int_equal(due, schedule_due_us(&again));
		differ += due != schedule_due_us(&other);
		/* A gap is below the mean with a chance of 1 - 1/e. */
		short_gaps += due - last < 1000;
		last = due;
		schedule_next(&one);
		schedule_next(&again);
		schedule_next(&other);
	}
	assert_true(differ > 99000);
	assert_true(short_gaps > 62500 && short_gaps < 64000);
	/* Its deviation is the root of the count: 0.3 %. */
	assert_true(last - START_US > 98000000 && last - START_US < 102000000);
}

static void test_poisson_threads(void **state)
{
	struct schedule schedules[4];
	uint64_t count = 0;

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		schedule_init_poisson(&schedules[i], START_US, 1000, i, 4, 7);
		for (unsigned j = 0; j < i; j++)
			assert_true(
				schedule_due_us(&schedules[i]) != schedule_due_us(&schedules[j]));
	}
	for (unsigned i = 0; i < 4; i++) {
		for (; schedule_due_us(&schedules[i]) < START_US + 100000000; count++)
			schedule_next(&schedules[i]);
	}
	assert_true(count > 98000 && count < 102000);
}

static void test_behind(void **state)
{
	struct schedule next;
	struct schedule arrived;

	(void)state;
	schedule_init(&next, START_US, 1000, 1, 2); /* numbers 1, 3, 5 ... at 1, 3, 5 ms */
	arrived = next;
	assert_int_equal(schedule_behind(&next, &arrived, START_US, 1000), 0);
	assert_int_equal(schedule_behind(&next, &arrived, START_US + 1000, 1000), 0);
	assert_int_equal(schedule_behind(&next, &arrived, START_US + 1001, 1000), 1);
	assert_int_equal(schedule_behind(&next, &arrived, START_US + 20000, 1000), 10);
	schedule_next(&next);
	schedule_next(&next);
	assert_int_equal(schedule_behind(&next, &arrived, START_US + 20000, 1000), 8);
	/* Only numbers below 100 exist: 50 of this thread. */
	assert_int_equal(schedule_behind(&next, &arrived, START_US + 9000000, 100), 48);
	while (next.index < 100)
		schedule_next(&next);
	assert_int_equal(schedule_behind(&next, &arrived, START_US + 9000000, 100), 0);
}

static void test_sizes_shares(void **state)
{
	struct sizes sizes;
	uint64_t seen[3] = {0};

	(void)state;
	assert_true(sizes_parse(&sizes, "4k:70,64k:25,1m:5", 512, 1 << 21));
	assert_int_equal(sizes.count, 3);
	assert_int_equal(sizes.bytes[0], 4096);
	assert_int_equal(sizes.bytes[1], 65536);
	assert_int_equal(sizes.bytes[2], 1048576);
	for (uint64_t i = 0; i < 1000000; i++) {
		if (i % 100 == 0)
			memset(seen, 0, sizeof(seen));
		seen[sizes_pick(&sizes, i)]++;
		if (i % 100 == 99)
			assert_true(seen[0] == 70 && seen[1] == 25 && seen[2] == 5);
	}
}

static void test_sizes_order(void **state)
{
	struct sizes one;
	struct sizes same;
	struct sizes other;
	unsigned differ = 0;
	unsigned hands_differ = 0;

	(void)state;
	assert_true(sizes_parse(&one, "1k:1,2k:1,3k:1", 512, 1 << 20));
	same = other = one;
	sizes_shuffle(&one, 5);
	sizes_shuffle(&same, 5);
	sizes_shuffle(&other, 6);
	for (uint64_t i = 0; i < 3000; i++) {
		assert_int_equal(sizes_pick(&one, i), sizes_pick(&same, i));
		differ += sizes_pick(&one, i) != sizes_pick(&other, i);
		hands_differ += sizes_pick(&one, i) != sizes_pick(&one, i + 3);
	}
	assert_true(differ > 1000 && hands_differ > 1000);
}

static void test_sizes_wrong(void **state)
{
	static const char *const wrong[] = {"", "4k", "4k:", "4k:0", "4k:1,", ",4k:1", "4k:1;8k:1",
		"511:1", "2m:1", "4k:-1", "4k:1x", "x:1", "4k:1001", "4k:900,8k:101", "4k :1"};
	char many[5 * (SIZES_MAX + 1) + 1] = "";
	struct sizes sizes;

	(void)state;
	for (size_t i = 0; i <= SIZES_MAX; i++)
		memcpy(many + 5 * i, "1k:1,", 6);
	many[5 * (SIZES_MAX + 1) - 1] = '\0';
	assert_false(sizes_parse(&sizes, many, 512, 1 << 20));
	many[5 * (size_t)SIZES_MAX - 1] = '\0';
	assert_true(sizes_parse(&sizes, many, 512, 1 << 20));
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_false(sizes_parse(&sizes, wrong[i], 512, 1 << 20));
	assert_true(sizes_parse(&sizes, "4k:1000", 512, 1 << 20));
	assert_true(sizes_parse(&sizes, "512:999,1m:1", 512, 1 << 20));
	sizes_init(&sizes, 777);
	for (uint64_t i = 0; i < 10000; i++)
		assert_int_equal(sizes.bytes[sizes_pick(&sizes, i)], 777);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_even),
		cmocka_unit_test(test_poisson),
		cmocka_unit_test(test_poisson_threads),
		cmocka_unit_test(test_behind),
		cmocka_unit_test(test_sizes_shares),
		cmocka_unit_test(test_sizes_order),
		cmocka_unit_test(test_sizes_wrong),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
