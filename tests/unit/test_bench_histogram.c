/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_bench_histogram.c: percentiles lie within 1/64 of the truth; largest and mean are exact.
 */

#include "bench/common/histogram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bench/common/random.h"

static struct histogram histogram;
static struct histogram other;

static int clear(void **state)
{
	(void)state;
	memset(&histogram, 0, sizeof(histogram));
	memset(&other, 0, sizeof(other));
	return 0;
}

static void test_empty(void **state)
{
	(void)state;
	assert_int_equal(histogram_value(&histogram, 500), 0);
	assert_int_equal(histogram.max_us, 0);
	assert_true(histogram_mean(&histogram) <= 0);
}

/* Each bucket begins where the one before it ends, and a time is in the bucket that is its own. */
static void test_buckets(void **state)
{
	(void)state;
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		uint64_t floor = histogram_floor(i);

		assert_int_equal(histogram_index(floor), i);
		if (i > 0) {
			assert_true(floor > histogram_floor(i - 1));
			assert_int_equal(histogram_index(floor - 1), i - 1);
			assert_true((floor - histogram_floor(i - 1)) * HISTOGRAM_STEPS <=
				    (floor > HISTOGRAM_STEPS ? floor : HISTOGRAM_STEPS));
		}
	}
	assert_int_equal(histogram_index(UINT32_MAX), HISTOGRAM_BUCKETS - 1);
	assert_int_equal(histogram_index(UINT64_MAX), HISTOGRAM_BUCKETS - 1);
}

/* Of 1 .. 1000 ms the percentiles are known. */
static void test_percentiles(void **state)
{
	static const unsigned permilles[] = {500, 750, 900, 950, 990, 999};

	(void)state;
	for (uint64_t i = 1; i <= 1000; i++)
		histogram_add(&histogram, (i * 7919 % 1000 + 1) * 1000);
	for (size_t i = 0; i < sizeof(permilles) / sizeof(permilles[0]); i++) {
		uint64_t want = (permilles[i] + 1) * UINT64_C(1000);
		uint64_t got = histogram_value(&histogram, permilles[i]);

		assert_true(got <= want && got >= want - want / HISTOGRAM_STEPS);
	}
	assert_int_equal(histogram.max_us, 1000000);
	assert_true(histogram_mean(&histogram) > 500499 && histogram_mean(&histogram) < 500501);
}

static void test_merge(void **state)
{
	struct random random = {.state = 5};
	static struct histogram whole;

	(void)state;
	memset(&whole, 0, sizeof(whole));
	for (unsigned i = 0; i < 10000; i++) {
		uint64_t us = random_next(&random) >> (random_next(&random) % 64);

		us = us < UINT64_C(1) << 40 ? us : UINT64_C(1) << 40;
		histogram_add(&whole, us);
		histogram_add(i % 3 == 0 ? &histogram : &other, us);
	}
	histogram_merge(&histogram, &other);
	assert_memory_equal(&histogram, &whole, sizeof(whole));
	assert_int_equal(histogram.count, 10000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_empty, clear),
		cmocka_unit_test_setup(test_buckets, clear),
		cmocka_unit_test_setup(test_percentiles, clear),
		cmocka_unit_test_setup(test_merge, clear),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
