/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_sink_queue_through.c: what the sink of the queue does for messages that go another way
 * first: recipients that are forgotten again, and the tracking log's rows of what is not kept.
 */

#include "tests/unit/sink_queue_fixture.h"

static void test_forgotten(void **state)
{
	struct envelope envelope;

	(void)state;
	assert_int_equal(say_mail("MAIL FROM:<a@b.example>"), SINK_DONE);
	assert_int_equal(say_rcpt("RCPT TO:<no@d.example>"), SINK_DONE);
	sink_queue_forget_rcpt(&own.sink);
	assert_int_equal(say_rcpt("RCPT TO:<c@d.example>"), SINK_DONE);
	assert_int_equal(say_rcpt("RCPT TO:<no@d.example> NOTIFY=NEVER"), SINK_DONE);
	sink_queue_forget_rcpt(&own.sink);
	assert_int_equal(say_rcpt("RCPT TO:<e@d.example>"), SINK_DONE);
	assert_int_equal(own.sink.ops->data(&own.sink), SINK_DONE);
	say_body("x\r\n");
	assert_int_equal(own.sink.ops->finish(&own.sink), SINK_WAIT);
	envelope = committed();
	assert_int_equal(envelope.rcpt_count, 2);
	commit_done(0);
	assert_string_equal(fake_queues.rcpts, "<c@d.example>  |<e@d.example>  |");
}

/* Whatever has been forgotten, as many blocks are held as what is left needs. */
static void test_forgotten_blocks_go_back(void **state)
{
	char line[512];
	unsigned kept = 0;

	(void)state;
	assert_int_equal(say_mail("MAIL FROM:<a@b.example>"), SINK_DONE);
	for (unsigned i = 0; i < 200; i++) {
		const size_t before = intake->blocks.used;

		(void)snprintf(line, sizeof(line), "RCPT TO:<%0200u@d.example>", i);
		assert_int_equal(say_rcpt(line), SINK_DONE);
		if (i % 3 == 0) {
			kept++;
			continue;
		}
		sink_queue_forget_rcpt(&own.sink);
		assert_int_equal(intake->blocks.used, before);
	}
	assert_true(intake->blocks.used > 1);
	assert_int_equal(own.sink.ops->data(&own.sink), SINK_DONE);
	say_body("x\r\n");
	assert_int_equal(own.sink.ops->finish(&own.sink), SINK_WAIT);
	assert_int_equal(committed().rcpt_count, kept);
	commit_done(0);
	assert_int_equal(fake_queues.submitted, 1);
}

static void begin_passing(void)
{
	assert_int_equal(say_mail("MAIL FROM:<a@b.example>"), SINK_DONE);
	assert_int_equal(say_rcpt("RCPT TO:<c@d.example>"), SINK_DONE);
	assert_int_equal(say_rcpt("RCPT TO:<e@d.example>"), SINK_DONE);
	assert_int_equal(own.sink.ops->data(&own.sink), SINK_DONE);
	say_body("Subject: hello\r\nMessage-ID: <1@b.example>\r\n\r\ntext\r\n");
}

static void pass(void)
{
	sink_queue_passed(&own.sink, &(struct arrival_passed){.connector = "straight",
					     .context = "NEXTHOP",
					     .server_ip = span_of("192.0.2.99"),
					     .server_host = span_of("hop.example"),
					     .reply = span_of("250 2.6.0 taken")});
	own.sink.ops->abandon(&own.sink);
}

static void test_rows_of_what_is_passed_on(void **state)
{
	(void)state;
	fake_track.is_on = true;
	begin_passing();
	pass();
	assert_int_equal(fake_track.rows, 2);
	assert_int_equal(fake_track.sent, 1);
	/* Of the second: */
	assert_int_equal(fake_track.id, 0xabc);
	assert_int_equal(fake_track.bytes, 51);
	assert_string_equal(fake_track.connector, "straight");
	assert_string_equal(fake_track.context, "NEXTHOP");
	assert_string_equal(fake_track.recipients, "c@d.example;e@d.example");
	assert_string_equal(fake_track.statuses, "250 2.6.0 taken");
	assert_string_equal(fake_track.server, "192.0.2.99");
	assert_string_equal(fake_track.message_id, "<1@b.example>");
	assert_string_equal(fake_track.subject, "hello");
	/* Nothing was kept. */
	assert_int_equal(fake_spool.commits, 0);
	assert_int_equal(fake_spool.abandoned, 1);
	assert_int_equal(fake_queues.submitted, 0);
	assert_int_equal(fake_queues.put, 1);
}

static void test_no_tracking_log(void **state)
{
	(void)state;
	begin_passing();
	pass();
	assert_int_equal(fake_track.rows, 0);
	assert_int_equal(fake_spool.commits, 0);
	assert_int_equal(fake_queues.put, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, sink_fixture_setup, sink_fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_forgotten),
		TEST(test_forgotten_blocks_go_back),
		TEST(test_rows_of_what_is_passed_on),
		TEST(test_no_tracking_log),
	};

	return cmocka_run_group_tests_name("sink queue, through", tests, NULL, NULL);
}
