/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_ladder.c: the moments at which a dead next hop is tried, for the whole life of a message
 * (EXCHANGE 9.3, edge numbers).
 */

#include "relay/mail/ladder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
/* cmocka needs those above it. */
#include <cmocka.h>

#define MINUTE_MS UINT64_C(60000)

static const struct queue_policy edge = {
	.glitch_retry_count = 4,
	.glitch_retry_ms = MINUTE_MS,
	.transient_retry_count = 6,
	.transient_retry_ms = 10 * MINUTE_MS,
	.steady_retry_ms = 30 * MINUTE_MS,
	.expiration_ms = 2880 * MINUTE_MS,
};

/* In minutes after the first attempt; from the last one on, every 30 until 2880. */
static const unsigned attempts[] = {0, 1, 2, 3, 4, 14, 24, 34, 44, 54, 64, 94, 124, 154, 184};

static void test_two_days(void **state)
{
	uint64_t now_ms = 0;
	unsigned count = 0;

	(void)state;
	for (; now_ms <= edge.expiration_ms; count++) {
		const unsigned last = COUNT_OF(attempts) - 1;
		const unsigned minute =
			count <= last ? attempts[count] : attempts[last] + (count - last) * 30;

		assert_int_equal(now_ms, minute * MINUTE_MS);
		now_ms += ladder_wait_ms(&edge, count + 1);
	}
	/* 11 up to minute 64, and (2880 - 64) / 30 = 93 behind them. */
	assert_int_equal(count, 104);
}

static void test_words(void **state)
{
	static const struct {
		uint64_t failures;
		const char *word;
		unsigned minutes;
	} rows[] = {
		{1, "glitch", 1},
		{4, "glitch", 1},
		{5, "transient", 10},
		{10, "transient", 10},
		{11, "steady", 30},
		{UINT64_MAX, "steady", 30},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		assert_string_equal(ladder_word(&edge, rows[i].failures), rows[i].word);
		assert_int_equal(
			ladder_wait_ms(&edge, rows[i].failures), rows[i].minutes * MINUTE_MS);
	}
}

/* A stage with a count of 0 is passed over. */
static void test_missing_stages(void **state)
{
	struct queue_policy policy = edge;

	(void)state;
	policy.glitch_retry_count = 0;
	assert_string_equal(ladder_word(&policy, 1), "transient");
	policy.transient_retry_count = 0;
	assert_string_equal(ladder_word(&policy, 1), "steady");
	assert_int_equal(ladder_wait_ms(&policy, 1), policy.steady_retry_ms);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_two_days),
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_missing_stages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
