/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define COUNT 5

static void test_pool_exhaustion(void **state)
{
	struct pool pool;
	void *taken[COUNT];

	(void)state;
	assert_int_equal(pool_create(&pool, COUNT, 40, 64), 0);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < COUNT; i++) {
			taken[i] = pool_take(&pool);
			assert_non_null(taken[i]);
			assert_int_equal((uintptr_t)taken[i] % 64, 0);
			memset(taken[i], (int)i, 40);
		}
		assert_null(pool_take(&pool));
		assert_null(pool_take(&pool));
		assert_int_equal(pool.used, COUNT);
		for (unsigned i = 0; i < COUNT; i++) {
			uint8_t want[40];

			/* No two overlap. */
			memset(want, (int)i, sizeof(want));
			assert_memory_equal(taken[i], want, sizeof(want));
		}
		/* In another order than they were taken. */
		for (unsigned i = 0; i < COUNT; i++)
			pool_put(&pool, taken[(i * 2) % COUNT]);
		assert_int_equal(pool.used, 0);
	}
	assert_int_equal(pool.used_max, COUNT);
	pool_destroy(&pool);
	pool_destroy(&pool); /* harmless */
}

static void test_pool_last_in_first_out(void **state)
{
	struct pool pool;
	void *a;
	void *b;

	(void)state;
	assert_int_equal(pool_create(&pool, COUNT, sizeof(void *), 16), 0);
	a = pool_take(&pool);
	b = pool_take(&pool);
	pool_put(&pool, a);
	pool_put(&pool, b);
	assert_ptr_equal(pool_take(&pool), b);
	assert_ptr_equal(pool_take(&pool), a);
	assert_int_equal(pool.used_max, 2);
	/* Only what was needed at once has ever been touched. */
	assert_int_equal(pool.fresh, 2);
	pool_put(&pool, a);
	pool_put(&pool, b);
	pool_destroy(&pool);
}

static void test_pool_index(void **state)
{
	struct pool pool;
	void *taken[COUNT];

	(void)state;
	assert_int_equal(pool_create(&pool, COUNT, 100, 16), 0);
	for (unsigned i = 0; i < COUNT; i++) {
		taken[i] = pool_take(&pool);
		assert_true(pool_index(&pool, taken[i]) < COUNT);
		assert_ptr_equal(pool_at(&pool, pool_index(&pool, taken[i])), taken[i]);
		for (unsigned j = 0; j < i; j++)
			assert_int_not_equal(
				pool_index(&pool, taken[j]), pool_index(&pool, taken[i]));
	}
	for (unsigned i = 0; i < COUNT; i++)
		pool_put(&pool, taken[i]);
	pool_destroy(&pool);
}

/* A pool of a terabyte costs nothing until it is used. */
static void test_pool_untouched(void **state)
{
	struct pool pool;
	void *object;
	unsigned char resident;

	(void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	skip(); /* their shadow memory has no room for this */
#endif
	if (pool_create(&pool, 1 << 20, 1 << 20, 4096) != 0)
		skip();
	object = pool_take(&pool);
	assert_non_null(object);
	memset(object, 1, 16);
	assert_int_equal(mincore(object, 4096, &resident), 0);
	assert_int_equal(resident & 1, 1);
	/* Beyond a huge page. */
	assert_int_equal(mincore((uint8_t *)object + (8 << 20), 4096, &resident), 0);
	assert_int_equal(resident & 1, 0);
	pool_put(&pool, object);
	pool_destroy(&pool);
}

static void test_pool_no_memory(void **state)
{
	struct pool pool = {0};

	(void)state;
	assert_true(pool_create(&pool, 1 << 30, (size_t)1 << 30, 4096) < 0);
	assert_null(pool.memory);
	pool_destroy(&pool);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pool_exhaustion),
		cmocka_unit_test(test_pool_last_in_first_out),
		cmocka_unit_test(test_pool_index),
		cmocka_unit_test(test_pool_untouched),
		cmocka_unit_test(test_pool_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
