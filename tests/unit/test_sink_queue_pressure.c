/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_sink_queue_pressure.c: the sink of deliver = queue while the spool fills up (EXCHANGE 11.2).
 */

#include "tests/unit/sink_queue_fixture.h"

static void test_row_43_tarpit(void **state)
{
	(void)state;
	fake_spool.level = SPOOL_MEDIUM;
	assert_int_equal(say_mail("MAIL FROM:<a@b.example>"), SINK_WAIT);
	assert_int_equal(counters.queue_tarpitted, 1);
	assert_int_equal(fake_queues.taken, 0);
	/* What is behind it waits for its answer. */
	assert_int_equal(say_rcpt("RCPT TO:<c@d.example>"), SINK_FULL);
	pass_ms(9900);
	assert_int_equal(fake_session.replies, 0);
	pass_ms(200);
	assert_int_equal(fake_session.replies, 1);
	assert_string_equal(fake_session.reply, "250 2.1.0 Sender OK\r\n");
	assert_int_equal(say_rcpt("RCPT TO:<c@d.example>"), SINK_DONE);
	own.sink.ops->abandon(&own.sink);
	/* Who is known does not wait. */
	fake_session.sender.is_proved = true;
	assert_int_equal(say_mail("MAIL FROM:<a@b.example>"), SINK_DONE);
	fake_session.sender = (struct sink_sender){.grant = {.role = ROLE_PARTNER}};
	assert_int_equal(say_mail("MAIL FROM:<a@b.example>"), SINK_DONE);
}

/* How long the answer to a MAIL of now waits, to a tick and half a second. */
static uint64_t measure_wait(void)
{
	const unsigned replies = fake_session.replies;
	uint64_t waited = 0;

	assert_int_equal(say_mail("MAIL FROM:<a@b.example>"), SINK_WAIT);
	for (; waited < 60000 && fake_session.replies == replies; waited += 500)
		pass_ms(500);
	assert_int_equal(fake_session.code, 250);
	own.sink.ops->abandon(&own.sink);
	return waited / 1000 * 1000;
}

static void test_row_43_steps(void **state)
{
	uint64_t since;

	(void)state;
	fake_spool.level = SPOOL_MEDIUM;
	since = clock_ms;
	assert_int_equal(measure_wait(), 10000);
	while (clock_ms < since + 20000)
		pass_ms(500);
	assert_int_equal(measure_wait(), 20000);
	while (clock_ms < since + 90500)
		pass_ms(500);
	assert_int_equal(measure_wait(), 55000);
	while (clock_ms < since + 500000)
		pass_ms(500);
	assert_int_equal(measure_wait(), 55000);
	while (clock_ms < since + 600500)
		pass_ms(500);
	assert_int_equal(say_mail("MAIL FROM:<a@b.example>"), SINK_FAIL);
	assert_int_equal(strncmp(own.sink.refusal, "452 4.3.1", 9), 0);
	/* It begins anew when it was over. */
	fake_spool.level = SPOOL_NORMAL;
	assert_int_equal(say_mail("MAIL FROM:<a@b.example>"), SINK_DONE);
	own.sink.ops->abandon(&own.sink);
	fake_spool.level = SPOOL_MEDIUM;
	assert_int_equal(measure_wait(), 10000);
}

static void check_after_wait(enum spool_level level, bool is_full, int begin, unsigned code)
{
	fake_spool.level = SPOOL_MEDIUM;
	assert_int_equal(say_mail("MAIL FROM:<a@b.example>"), SINK_WAIT);
	fake_spool.level = level;
	fake_queues.is_full = is_full;
	fake_spool.begin_result = begin;
	pass_ms(60000);
	assert_int_equal(fake_session.code, code);
	own.sink.ops->abandon(&own.sink);
	assert_true(intake_is_idle(intake));
	fake_queues.is_full = false;
	fake_spool.begin_result = 0;
}

/* What holds when the wait is over counts. */
static void test_row_43_after_the_wait(void **state)
{
	(void)state;
	check_after_wait(SPOOL_NORMAL, false, 0, 250);
	check_after_wait(SPOOL_MEDIUM, false, 0, 250);
	check_after_wait(SPOOL_HIGH, false, 0, 452);
	check_after_wait(SPOOL_FAILED, false, 0, 451);
	check_after_wait(SPOOL_NORMAL, true, 0, 452);
	check_after_wait(SPOOL_NORMAL, false, -EIO, 451);
	/* Who goes meanwhile hears nothing any more. */
	fake_session.replies = 0;
	fake_spool.level = SPOOL_MEDIUM;
	assert_int_equal(say_mail("MAIL FROM:<a@b.example>"), SINK_WAIT);
	own.sink.ops->abandon(&own.sink);
	pass_ms(60000);
	assert_int_equal(fake_session.replies, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SINK_TEST(test_row_43_tarpit),
		SINK_TEST(test_row_43_steps),
		SINK_TEST(test_row_43_after_the_wait),
	};

	return cmocka_run_group_tests_name("sink queue pressure", tests, NULL, NULL);
}
