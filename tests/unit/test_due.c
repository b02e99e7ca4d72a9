/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_due.c: what is due comes in order, however it was set, moved and cleared.
 */

#include "relay/mail/due.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* cmocka needs those above it. */
#include <cmocka.h>

#define WAITERS 500

static uint32_t places[WAITERS];
static int64_t wanted[WAITERS]; /* 0: it does not wait */
static uint32_t seed = 7;

static uint32_t chance(uint32_t below)
{
	seed = seed * 1664525 + 1013904223;
	return (seed >> 8) % below;
}

/* The earliest of all that wait, found the slow way. */
static int64_t earliest(void)
{
	int64_t best = INT64_MAX;

	for (unsigned i = 0; i < WAITERS; i++) {
		if (wanted[i] != 0 && wanted[i] < best)
			best = wanted[i];
	}
	return best;
}

static void test_model(void **state)
{
	struct due due;
	int64_t at = 0;

	(void)state;
	assert_int_equal(due_create(&due, WAITERS), 0);
	assert_null(due_first(&due, &at));
	for (unsigned step = 0; step < 20000; step++) {
		const uint32_t i = chance(WAITERS);

		if (chance(3) == 0) {
			due_clear(&due, &places[i]);
			wanted[i] = 0;
		} else {
			wanted[i] = 1 + chance(1000);
			due_set(&due, &places[i], wanted[i]);
		}
		if (due_first(&due, &at) != NULL)
			assert_int_equal(at, earliest());
		else
			assert_int_equal(earliest(), INT64_MAX);
	}
	for (int64_t before = 0; due.count > 0; before = at) {
		uint32_t *place = due_first(&due, &at);

		assert_true(at >= before);
		assert_int_equal(wanted[place - places], at);
		due_clear(&due, place);
		assert_int_equal(*place, 0);
	}
	due_destroy(&due);
}

static void test_clearing_what_does_not_wait(void **state)
{
	struct due due;
	uint32_t place = 0;

	(void)state;
	assert_int_equal(due_create(&due, 1), 0);
	due_clear(&due, &place);
	due_set(&due, &place, 5);
	due_set(&due, &place, 5);
	assert_int_equal(due.count, 1);
	due_clear(&due, &place);
	due_clear(&due, &place);
	assert_int_equal(due.count, 0);
	due_destroy(&due);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_clearing_what_does_not_wait),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
