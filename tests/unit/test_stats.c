/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/stats.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define WORKERS 4
#define ROUNDS 20000

static void *count_some(void *block)
{
	stats_mine = block;
	for (unsigned i = 0; i < ROUNDS; i++) {
		STAT(sessions);
		STAT_ADD(message_bytes, 3);
	}
	return NULL;
}

/* Each worker counts without a lock in its own block, and the sum misses nothing. */
static void test_stats_sum(void **state)
{
	static struct stats blocks[WORKERS];
	struct stats sum = {0};
	pthread_t threads[WORKERS];

	(void)state;
	for (unsigned i = 0; i < WORKERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, count_some, &blocks[i]), 0);
	for (unsigned i = 0; i < WORKERS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	blocks[0].log_dropped = 7; /* the last of the list */
	for (unsigned i = 0; i < WORKERS; i++)
		stats_add(&sum, &blocks[i]);
	assert_int_equal(sum.sessions, WORKERS * ROUNDS);
	assert_int_equal(sum.message_bytes, 3 * WORKERS * ROUNDS);
	assert_int_equal(sum.log_dropped, 7);
	assert_int_equal(sum.messages, 0);
}

/* A reader may sum while a worker counts. */
static void test_stats_read_meanwhile(void **state)
{
	static struct stats block;
	uint64_t before = 0;
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, count_some, &block), 0);
	for (unsigned i = 0; i < 100; i++) {
		struct stats sum = {0};

		stats_add(&sum, &block);
		assert_true(sum.sessions >= before && sum.sessions <= ROUNDS);
		before = sum.sessions;
	}
	assert_int_equal(pthread_join(thread, NULL), 0);
}

static void test_stats_print(void **state)
{
	struct stats stats = {0};
	char text[4096];
	char small[24];
	size_t length;

	(void)state;
	assert_int_equal(stats_print(&stats, text, sizeof(text)), 0);
	assert_string_equal(text, "");
	stats.sessions = 2;
	stats.messages = 1;
	stats.log_dropped = UINT64_MAX;
	length = stats_print(&stats, text, sizeof(text));
	assert_int_equal(length, strlen(text));
	assert_string_equal(text, "sessions=2 messages=1 log_dropped=18446744073709551615");
	/* Short of room, whole counters are left out. */
	length = stats_print(&stats, small, sizeof(small));
	assert_int_equal(length, strlen(small));
	assert_string_equal(small, "sessions=2 messages=1");
	for (size_t bytes = 1; bytes < sizeof(text) / 8; bytes++) {
		size_t len = stats_print(&stats, text, bytes);

		assert_true(len < bytes);
		assert_int_equal(text[len], '\0');
		assert_true(
			len == 0 || strncmp(text, "sessions=2 messages=1 log_", len) == 0 ||
			len == strlen("sessions=2 messages=1 log_dropped=18446744073709551615"));
	}
}

/* With every counter at its greatest the text still fits a log line. */
static void test_stats_print_all(void **state)
{
	struct stats stats;
	char text[4096];

	(void)state;
#define FILL(name) stats.name = UINT64_MAX;
	STATS_LIST(FILL)
	STATS_MAX_LIST(FILL)
#undef FILL
	(void)stats_print(&stats, text, sizeof(text));
	assert_non_null(strstr(text, "sessions=18446744073709551615 "));
	assert_non_null(strstr(text, " log_dropped=18446744073709551615"));
	assert_non_null(strstr(text, " loop_max_us=18446744073709551615"));
}

/* Of the largest the largest counts, not the sum. */
static void test_stats_max(void **state)
{
	struct stats blocks[3] = {0};
	struct stats sum = {0};

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		stats_mine = &blocks[i];
		STAT_MAX(loop_max_us, 7 + (i == 1 ? 10U : 0U));
		STAT_MAX(loop_max_us, 3);
	}
	for (unsigned i = 0; i < 3; i++)
		stats_add(&sum, &blocks[i]);
	assert_int_equal(sum.loop_max_us, 17);
	assert_int_equal(blocks[2].loop_max_us, 7);
}

/* Before a worker has set its block, counting goes nowhere and harms nothing. */
static void test_stats_without_block(void **state)
{
	(void)state;
	assert_non_null(stats_mine);
	STAT(sessions);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stats_sum),
		cmocka_unit_test(test_stats_read_meanwhile),
		cmocka_unit_test(test_stats_print),
		cmocka_unit_test(test_stats_print_all),
		cmocka_unit_test(test_stats_without_block),
		cmocka_unit_test(test_stats_max),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
