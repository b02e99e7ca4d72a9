/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_sink_through_odd.c: straight through, or into the queue: time, room, text that is held back,
 * and what else does not fit into the table of test_sink_through.c.
 */

#include "tests/unit/sink_through_fixture.h"

static void test_hello_is_the_queue_s(void **state)
{
	(void)state;
	spare.sink.offer_size = 77;
	assert_int_equal(own.sink.ops->hello(&own.sink), SINK_DONE);
	assert_int_equal(own.sink.offer, EHLO_SIZE);
	assert_int_equal(own.sink.offer_size, 77);
	assert_true(own.sink.is_trusted);
}

/* The queue's refusal comes before the next hop has heard anything. */
static void test_what_cannot_be_kept_is_not_begun(void **state)
{
	(void)state;
	spare.next = SINK_FAIL;
	assert_int_equal(say_mail(), SINK_FAIL);
	assert_string_equal(own.sink.refusal, "451 4.3.0 queue refuses");
	assert_false(hop.is_open);
	spare.next = SINK_DONE;
	assert_int_equal(say_mail(), SINK_WAIT);
	hop_says("250 hop\r\n");
	spare.next = SINK_FAIL;
	assert_int_equal(say_rcpt(), SINK_FAIL);
	assert_int_equal(own.state, THROUGH_OPEN);
	assert_string_equal(own.sink.refusal, "451 4.3.0 queue refuses");
}

static void test_back_pressure_is_for_the_queue_alone(void **state)
{
	(void)state;
	spare.next = SINK_WAIT;
	assert_int_equal(say_mail(), SINK_WAIT);
	assert_false(hop.is_open);
	spare.next = SINK_FULL;
	assert_int_equal(say_rcpt(), SINK_FULL);
	spare_says("250 late\r\n");
	assert_int_equal(client.code, 250);
	spare.next = SINK_DONE;
	assert_int_equal(say_rcpt(), SINK_DONE);
	assert_int_equal(counters.queue_through_kept, 0);
}

/* What the next hop offers is not waited for, and not taken from an earlier transaction. */
static void test_offer_of_the_next_hop(void **state)
{
	(void)state;
	assert_int_equal(say_mail(), SINK_WAIT);
	assert_int_equal(hop.mail_offer, EHLO_SIZE);
	hop.hello = SINK_WAIT;
	assert_int_equal(say_mail(), SINK_WAIT);
	assert_int_equal(hop.mail_offer, 0);
}

static void test_no_session_in_time(void **state)
{
	static const char *const replies[] = {
		"250 2.1.0 Sender OK\r\n", "250 2.1.5 Recipient OK\r\n"};

	(void)state;
	for (int i = 0; i < 2; i++) {
		through_restart();
		hop.next = i == 0 ? SINK_WAIT : SINK_DONE;
		assert_int_equal(say_mail(), hop.next);
		hop.next = SINK_WAIT;
		if (i == 1)
			assert_int_equal(say_rcpt(), SINK_WAIT);
		pass_ms(THROUGH_SESSION_MS - 200);
		assert_int_equal(client.replies, 0);
		pass_ms(400);
		assert_int_equal(client.replies, 1);
		assert_string_equal(client.reply, replies[i]);
		assert_int_equal(own.state, THROUGH_SPARE);
		assert_false(hop.is_open);
		assert_true(spare.is_open);
		sink_through_fini(&own);
	}
}

/* A session that has come gets the longer time for its answer; one that was there, at once. */
static void test_no_answer_in_time(void **state)
{
	(void)state;
	assert_int_equal(say_mail(), SINK_WAIT);
	hop.sink.via = "HOP";
	pass_ms(THROUGH_SESSION_MS + 200);
	assert_int_equal(client.replies, 0);
	pass_ms(THROUGH_ANSWER_MS - 400);
	assert_int_equal(client.replies, 0);
	hop_says("250 hop\r\n");
	assert_int_equal(client.replies, 1);
	assert_int_equal(wheel.count, 0);
	assert_int_equal(say_rcpt(), SINK_WAIT);
	pass_ms(THROUGH_ANSWER_MS - 200);
	assert_int_equal(client.replies, 1);
	pass_ms(400);
	assert_int_equal(client.replies, 2);
	assert_int_equal(own.state, THROUGH_SPARE);
}

static void test_silence_at_data(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		through_restart();
		say_mail();
		hop_says("250 hop\r\n");
		say_rcpt();
		hop_says("250 hop\r\n");
		spare.next = i == 0 ? SINK_DONE : SINK_WAIT;
		assert_int_equal(say_data(), SINK_WAIT);
		pass_ms(THROUGH_ANSWER_MS + 200);
		assert_int_equal(client.replies, i == 0 ? 3 : 2);
		if (i == 1)
			spare_says("354 go on\r\n");
		assert_int_equal(client.replies, 3);
		assert_int_equal(client.code, 354);
		assert_int_equal(own.state, THROUGH_SPARE);
		sink_through_fini(&own);
	}
}

/* Text waits for both, whichever is ready first; and both may say no. */
static void test_both_get_ready(void **state)
{
	static const struct {
		const char *first, *second;
		bool hop_first;
		unsigned code;
		enum through_state state;
	} rows[] = {
		{"354 a\r\n", "354 b\r\n", true, 354, THROUGH_BODY},
		{"354 a\r\n", "354 b\r\n", false, 354, THROUGH_BODY},
		{"354 a\r\n", "452 full\r\n", true, 452, THROUGH_DATA},
		{"450 a\r\n", "354 b\r\n", true, 354, THROUGH_SPARE},
		{"354 a\r\n", "450 b\r\n", false, 354, THROUGH_SPARE},
		{"354 a\r\n", "550 b\r\n", false, 550, THROUGH_DATA},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		through_restart();
		say_mail();
		hop_says("250 hop\r\n");
		say_rcpt();
		hop_says("250 hop\r\n");
		spare.next = SINK_WAIT;
		assert_int_equal(say_data(), SINK_WAIT);
		(rows[i].hop_first ? hop_says : spare_says)(rows[i].first);
		assert_int_equal(client.replies, 2);
		(rows[i].hop_first ? spare_says : hop_says)(rows[i].second);
		assert_int_equal(client.replies, 3);
		assert_int_equal(client.code, rows[i].code);
		assert_int_equal(own.state, rows[i].state);
		sink_through_fini(&own);
	}
}

static void test_queue_fails_at_data(void **state)
{
	(void)state;
	say_mail();
	hop_says("250 hop\r\n");
	say_rcpt();
	hop_says("250 hop\r\n");
	spare.next = SINK_FAIL;
	assert_int_equal(say_data(), SINK_FAIL);
	assert_string_equal(own.sink.refusal, "451 4.3.0 queue refuses");
}

static void test_room_is_the_smaller(void **state)
{
	static const struct {
		size_t hop, spare, want;
	} rows[] = {
		{65536, 9000, 9000},
		{4000, 65536, 4000},
		{0, 65536, 0},
		{65536, 0, 0},
		{0, 0, 0},
		{SIZE_MAX, SIZE_MAX, SIZE_MAX},
	};

	(void)state;
	begin_body();
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		hop.room = rows[i].hop;
		spare.room = rows[i].spare;
		assert_int_equal(own.sink.ops->room(&own.sink), rows[i].want);
		/* Patience is for the next hop only, and ends when it takes text. */
		assert_int_equal(wheel.count, rows[i].hop == 0);
		if (rows[i].hop == 0)
			hop.sink.events->on_ready(&hop.sink);
		assert_int_equal(wheel.count, 0);
	}
	assert_int_equal(client.ready, 2);
	spare.sink.events->on_ready(&spare.sink);
	assert_int_equal(client.ready, 3);
	/* Who waits for room is told when there is only the queue's. */
	hop.room = 0;
	assert_int_equal(own.sink.ops->room(&own.sink), 0);
	hop.is_answer = false;
	hop.sink.events->on_broken(&hop.sink, 451, span_of("451 lost\r\n"));
	assert_int_equal(client.ready, 4);
	assert_int_equal(client.broken, 0);
}

static void test_firewall_before_the_next_hop(void **state)
{
	static const char text[] = "X-MS-Exchange-Organization-AuthAs: Internal\r\n"
				   "Subject: x\r\nX-MS-Exchange-Forest-A: b\r\n c\r\n\r\ntext\r\n";

	(void)state;
	for (int trusted = 0; trusted < 2; trusted++) {
		through_restart();
		hop.sink.is_trusted = trusted;
		begin_body();
		for (size_t i = 0; text[i] != '\0'; i++)
			own.sink.ops->body(&own.sink, span_make(text + i, 1));
		assert_string_equal(spare.text, text);
		assert_string_equal(hop.text, trusted ? text : "Subject: x\r\n\r\ntext\r\n");
		sink_through_fini(&own);
	}
}

/* Held back, a line takes room from what follows; at the end of a message it goes on. */
static void test_held_text(void **state)
{
	(void)state;
	begin_body();
	say_body("X-MS-Exch");
	assert_string_equal(hop.text, "");
	assert_int_equal(own.sink.ops->room(&own.sink), 65536 - 9);
	assert_int_equal(say_end(), SINK_WAIT);
	assert_string_equal(hop.text, "X-MS-Exch");
	assert_true(hop.is_finished);
}

static void test_bytes_max_is_the_next_hop_s_while_it_is_there(void **state)
{
	(void)state;
	hop.sink.bytes_max = 1000;
	spare.sink.bytes_max = 5000;
	begin_body();
	assert_int_equal(own.sink.bytes_max, 1000);
	hop.is_answer = false;
	hop.sink.events->on_broken(&hop.sink, 451, span_of("451 lost\r\n"));
	assert_int_equal(own.sink.bytes_max, 5000);
	own.sink.ops->abandon(&own.sink);
	assert_int_equal(own.sink.bytes_max, 0);
}

/* Who is named in the log as having answered. */
static void test_via(void **state)
{
	(void)state;
	begin_body();
	assert_int_equal(say_end(), SINK_WAIT);
	hop_says("250 2.6.0 hop has it\r\n");
	assert_string_equal(client.via, "HOP");
	assert_string_equal(spare.passed_reply, "250 2.6.0 hop has it\r\n");
	through_restart();
	begin_body();
	spare.sink.via = "queue:1";
	assert_int_equal(say_end(), SINK_WAIT);
	hop_says("421 going down\r\n");
	assert_true(spare.is_finished);
	spare_says("250 queued\r\n");
	assert_string_equal(client.via, "queue:1");
	assert_string_equal(client.reply, "250 queued\r\n");
}

/* A spool that breaks in the body ends it; else it is asked again when it is needed. */
static void test_spool_breaks(void **state)
{
	(void)state;
	begin_body();
	spare.sink.events->on_broken(&spare.sink, 451, span_of("451 disk\r\n"));
	assert_int_equal(client.broken, 1);
	assert_int_equal(client.code, 451);
	assert_false(hop.is_open);
	through_restart();
	begin_body();
	assert_int_equal(say_end(), SINK_WAIT);
	spare.sink.events->on_broken(&spare.sink, 451, span_of("451 disk\r\n"));
	assert_int_equal(client.broken, 0);
	hop_says("250 hop\r\n");
	assert_int_equal(client.code, 250);
	through_restart();
	begin_body();
	say_end();
	spare.sink.events->on_broken(&spare.sink, 451, span_of("451 disk\r\n"));
	spare.next = SINK_FAIL;
	hop_says("450 hop\r\n");
	assert_string_equal(client.reply, "451 4.3.0 queue refuses\r\n");
}

/* In each state, and then another transaction. */
static void test_abandon(void **state)
{
	(void)state;
	for (int stage = 0; stage < 8; stage++) {
		through_restart();
		if (stage >= 1)
			say_mail();
		if (stage >= 2)
			hop_says("250 hop\r\n");
		if (stage >= 3)
			say_rcpt();
		if (stage >= 4)
			hop_says("250 hop\r\n");
		if (stage >= 5)
			say_data();
		if (stage >= 6)
			hop_says("354 hop\r\n");
		if (stage >= 7)
			say_end();
		own.sink.ops->abandon(&own.sink);
		assert_int_equal(own.state, THROUGH_IDLE);
		assert_false(hop.is_open || spare.is_open);
		assert_int_equal(wheel.count, 0);
		own.sink.ops->abandon(&own.sink);
		hop.is_finished = false;
		begin_body();
		own.sink.ops->abandon(&own.sink);
	}
}

static void test_push(void **state)
{
	(void)state;
	say_mail();
	own.sink.ops->push(&own.sink);
	assert_int_equal(hop.pushed, 1);
	assert_int_equal(spare.pushed, 1);
	hop_is_lost();
	own.sink.ops->push(&own.sink);
	assert_int_equal(hop.pushed, 1);
	assert_int_equal(spare.pushed, 2);
}

static void test_both_ask_the_session(void **state)
{
	struct identity identity;
	struct sink_sender sender;

	(void)state;
	hop.sink.events->identify(&hop.sink, &identity);
	spare.sink.events->identify(&spare.sink, &identity);
	spare.sink.events->admitted(&spare.sink, &sender);
	assert_int_equal(client.identified, 2);
	assert_int_equal(client.admitted, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, through_setup, through_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_hello_is_the_queue_s),
		TEST(test_what_cannot_be_kept_is_not_begun),
		TEST(test_back_pressure_is_for_the_queue_alone),
		TEST(test_offer_of_the_next_hop),
		TEST(test_no_session_in_time),
		TEST(test_no_answer_in_time),
		TEST(test_silence_at_data),
		TEST(test_both_get_ready),
		TEST(test_queue_fails_at_data),
		TEST(test_room_is_the_smaller),
		TEST(test_firewall_before_the_next_hop),
		TEST(test_held_text),
		TEST(test_bytes_max_is_the_next_hop_s_while_it_is_there),
		TEST(test_via),
		TEST(test_spool_breaks),
		TEST(test_abandon),
		TEST(test_push),
		TEST(test_both_ask_the_session),
	};

	return cmocka_run_group_tests_name("sink through, odd", tests, NULL, NULL);
}
