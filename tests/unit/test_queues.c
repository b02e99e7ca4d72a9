/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_queues.c: from the spool to next hops: what is delivered, put off, failed, split, and what a
 * queue does when its next hop is down, over its ladder and over restarts.
 */

#include "tests/unit/queues_fixture.h"

static const char config[] =
	"receive-connector \"in\" { bindings = \"127.0.0.1:2525\" send-connector = out }\n"
	"send-connector \"out\" { address-spaces = { \"*\" } smart-hosts = { \"127.0.0.1:@0\" }\n"
	"  ignore-starttls = yes }\n"
	"send-connector \"second\" { address-spaces = { \"second.test\" }\n"
	"  smart-hosts = { \"127.0.0.1:@1\" } ignore-starttls = yes }\n";

static void test_delivers(void **state)
{
	(void)state;
	(void)mail_send("<a@adatum.test>");
	AWAIT(rig_messages() == 0);
	assert_int_equal(rig.hops[0].count, 1);
	assert_string_equal(rig.hops[0].messages[0].sender, "<sender@contoso.test>");
	assert_string_equal(rig.hops[0].messages[0].rcpts, "a@adatum.test ");
	assert_string_equal(rig.hops[0].messages[0].body, "Subject: Hello\n\nHello\n");
	/* It is settled on disk too. */
	rig_restart();
	rig_idle(20);
	assert_int_equal(rig_messages(), 0);
	assert_int_equal(rig.hops[0].count, 1);
}

/* A message after the other goes over the session that is there. */
static void test_session_is_used_again(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 10; i++) {
		(void)mail_send("<a@adatum.test>");
		AWAIT(rig_messages() == 0);
	}
	assert_int_equal(rig.hops[0].count, 10);
	assert_int_equal(rig.hops[0].connections, 1);
}

static void test_splits_by_destination(void **state)
{
	(void)state;
	(void)mail_send("<a@adatum.test> <b@second.test> <c@adatum.test>");
	AWAIT(rig_messages() == 0);
	assert_int_equal(rig.hops[0].count, 1);
	assert_string_equal(rig.hops[0].messages[0].rcpts, "a@adatum.test c@adatum.test ");
	assert_int_equal(rig.hops[1].count, 1);
	assert_string_equal(rig.hops[1].messages[0].rcpts, "b@second.test ");
}

/* More than go in one attempt. */
static void test_many_recipients(void **state)
{
	static char rcpts[32768];
	size_t len = 0;
	unsigned total = 0;

	(void)state;
	for (unsigned i = 0; i < 250; i++)
		len += (size_t)snprintf(rcpts + len, sizeof(rcpts) - len, "<r%u@a.test> ", i);
	(void)mail_send(rcpts);
	AWAIT(rig_messages() == 0);
	assert_int_equal(rig.hops[0].count, 3);
	for (unsigned i = 0; i < 3; i++) {
		for (const char *at = rig.hops[0].messages[i].rcpts; *at != '\0'; at++)
			total += *at == ' ';
	}
	assert_int_equal(total, 250);
}

/* 5xx for one: a notice goes to the sender, and the other gets its mail. */
static void test_refused_recipient(void **state)
{
	(void)state;
	(void)mail_send("<nobody@adatum.test> <a@adatum.test>");
	AWAIT(rig_messages() == 0);
	assert_int_equal(rig.hops[0].count, 2);
	assert_string_equal(rig.hops[0].messages[0].rcpts, "a@adatum.test ");
	assert_string_equal(rig.hops[0].messages[1].sender, "<>");
	assert_string_equal(rig.hops[0].messages[1].rcpts, "sender@contoso.test ");
	assert_non_null(strstr(rig.hops[0].messages[1].body, "550 5.1.1 No such user"));
	assert_non_null(strstr(rig.hops[0].messages[1].body, "nobody@adatum.test"));
}

static void test_nobody_is_told(void **state)
{
	(void)state;
	(void)mail_send_with("<nobody@adatum.test>", (struct mail_options){.sender = "<>"});
	AWAIT(rig_messages() == 0);
	(void)mail_send_with("<nobody@adatum.test>", (struct mail_options){.notify = "NEVER"});
	AWAIT(rig_messages() == 0);
	rig_idle(20);
	assert_int_equal(rig.hops[0].count, 0);
}

/* The next hop does not know DSN, and success was asked for: it is told that it was relayed. */
static void test_relayed(void **state)
{
	(void)state;
	(void)mail_send_with("<a@adatum.test>", (struct mail_options){.notify = "SUCCESS"});
	AWAIT(rig_messages() == 0);
	assert_int_equal(rig.hops[0].count, 2);
	assert_string_equal(rig.hops[0].messages[0].rcpts, "a@adatum.test ");
	assert_non_null(strstr(rig.hops[0].messages[1].body, "Action: relayed"));
}

/* The next hop knows DSN: telling of success is its own business (RFC 3461 5.2.1). */
static void test_dsn_is_left_to_the_next_hop(void **state)
{
	(void)state;
	rig.hops[0].keywords = "250-hop.test\r\n250-PIPELINING\r\n250 DSN";
	(void)mail_send_with("<a@adatum.test>", (struct mail_options){.notify = "SUCCESS"});
	AWAIT(rig_messages() == 0);
	rig_idle(20);
	assert_int_equal(rig.hops[0].count, 1);
}

/* 4xx for one: it waits alone, the queue goes on. */
static void test_put_off(void **state)
{
	uint64_t id;

	(void)state;
	id = mail_send("<later@adatum.test> <a@adatum.test>");
	AWAIT(rig.hops[0].count == 1);
	(void)mail_send("<b@adatum.test>");
	AWAIT(rig.hops[0].count == 2);
	AWAIT(rig_messages() == 1);
	(void)rig_ask(QUEUE_ASK_MESSAGES, NULL, NULL);
	assert_int_equal(ask.rows, 1);
	assert_int_equal(message_rows[0].id, id);
	assert_int_equal(message_rows[0].status, MESSAGE_RETRY);
	assert_int_equal(message_rows[0].rcpt_count, 2);
	assert_int_equal(message_rows[0].rcpt_open, 1);
	assert_int_equal(message_rows[0].attempts, 1);
	assert_int_equal(message_rows[0].next_ms, clock_ms + 15 * MINUTE_MS);
	assert_string_equal(message_rows[0].last_error, "451 4.2.0 Come back later");
	assert_int_equal(rig_queue("out")->status, QUEUE_READY);
	rig_wait(15 * MINUTE_MS - 1);
	rig_idle(10);
	assert_int_equal(rig.hops[0].mails, 2);
	rig_wait(1);
	AWAIT(rig_message(id)->attempts == 2);
	assert_int_equal(rig.hops[0].mails, 3);
}

/* That it waits, and until when, outlives a restart. */
static void test_put_off_over_restart(void **state)
{
	(void)state;
	(void)mail_send("<later@adatum.test> <a@adatum.test>");
	AWAIT(rig.hops[0].count == 1);
	rig_idle(5);
	rig_restart();
	rig_idle(20);
	assert_int_equal(rig.hops[0].mails, 1);
	(void)rig_ask(QUEUE_ASK_MESSAGES, NULL, NULL);
	assert_int_equal(ask.rows, 1);
	assert_int_equal(message_rows[0].rcpt_open, 1);
	assert_int_equal(message_rows[0].attempts, 1);
	assert_int_equal(message_rows[0].next_ms, clock_ms + 15 * MINUTE_MS);
	rig_wait(15 * MINUTE_MS);
	AWAIT(rig.hops[0].mails == 2);
	/* Nobody got it twice. */
	assert_int_equal(rig.hops[0].count, 1);
}

/* The minutes at which a dead next hop is tried, from the first failure on. */
static const unsigned ladder[] = {0, 1, 2, 3, 4, 14, 24, 34, 44, 54, 64, 94, 124};

static void test_ladder(void **state)
{
	const int64_t start_ms = clock_ms;
	const struct queue_row *row;

	(void)state;
	hop_down(&rig.hops[0]);
	(void)mail_send("<a@adatum.test>");
	for (unsigned i = 0; i < COUNT_OF(ladder) - 1; i++) {
		AWAIT(rig_queue("out")->retry_count == i + 1);
		row = rig_queue("out");
		assert_int_equal(row->status, QUEUE_RETRY);
		assert_int_equal(row->last_retry_ms, start_ms + ladder[i] * MINUTE_MS);
		assert_int_equal(row->next_retry_ms, start_ms + ladder[i + 1] * MINUTE_MS);
		/* In the middle of each stage the relay is started anew. */
		if (i == 2 || i == 7 || i == 10) {
			rig_restart();
			AWAIT(rig_queue("out")->messages == 1);
			row = rig_queue("out");
			assert_int_equal(row->retry_count, i + 1);
			assert_int_equal(row->status, QUEUE_RETRY);
			assert_int_equal(row->next_retry_ms, start_ms + ladder[i + 1] * MINUTE_MS);
			assert_non_null(strstr(row->last_error, "LED="));
		}
		rig_wait(row->next_retry_ms - clock_ms - 1);
		rig_idle(10);
		assert_int_equal(rig_queue("out")->retry_count, i + 1);
		rig_wait(1);
	}
	AWAIT(rig_queue("out")->retry_count == COUNT_OF(ladder));
	hop_listen(&rig.hops[0]);
	rig_wait(30 * MINUTE_MS);
	AWAIT(rig.hops[0].count == 1);
	AWAIT(rig_messages() == 0);
	row = rig_queue("out");
	assert_int_equal(row->retry_count, 0);
	assert_string_equal(row->last_error, "");
}

/* What the next hop said, and who it was (EXCHANGE 9.3). */
static void test_last_error(void **state)
{
	char want[400];

	(void)state;
	rig.hops[0].greeting = "421 4.3.2 Too busy";
	(void)mail_send("<a@adatum.test>");
	AWAIT(rig_queue("out")->retry_count == 1);
	(void)snprintf(want, sizeof(want), "{FQDN=127.0.0.1:%u};{IP=127.0.0.1:%u}]",
		rig.hops[0].port, rig.hops[0].port);
	assert_non_null(strstr(rig_queue("out")->last_error, want));
	assert_memory_equal(rig_queue("out")->last_error, "[{LRT=20", 8);
	assert_non_null(strstr(rig_queue("out")->last_error,
		"{LED=451 4.4.0 Primary target IP address responded with: \""));
}

/* In Retry one message goes out at first, and the others when it was taken. */
static void test_one_probe(void **state)
{
	(void)state;
	hop_down(&rig.hops[0]);
	for (unsigned i = 0; i < 20; i++)
		(void)mail_send("<a@adatum.test>");
	AWAIT(rig_queue("out")->retry_count == 1);
	hop_listen(&rig.hops[0]);
	rig.hops[0].holds_end = true;
	rig_wait(MINUTE_MS);
	AWAIT(rig.hops[0].count == 1);
	rig_idle(20);
	assert_int_equal(rig.hops[0].mails, 1);
	assert_int_equal(rig_queue("out")->active, 1);
	hop_release(&rig.hops[0]);
	AWAIT(rig_messages() == 0);
	assert_int_equal(rig.hops[0].count, 20);
}

/* A session that breaks in the middle is a failure of the queue, and each message is tried. */
static void test_breaks_at_mail(void **state)
{
	(void)state;
	rig.hops[0].closes_at_mail = true;
	(void)mail_send("<a@adatum.test>");
	AWAIT(rig_queue("out")->retry_count == 1);
	assert_int_equal(rig_queue("out")->status, QUEUE_RETRY);
	rig.hops[0].closes_at_mail = false;
	rig_wait(MINUTE_MS);
	AWAIT(rig_messages() == 0);
	assert_int_equal(rig.hops[0].count, 1);
}

/* A session that was closed while it was idle says nothing of the next hop. */
static void test_stale_session(void **state)
{
	(void)state;
	(void)mail_send("<a@adatum.test>");
	AWAIT(rig_messages() == 0);
	rig.hops[0].closes_at_mail = true;
	(void)mail_send("<b@adatum.test>");
	AWAIT(rig.hops[0].mails == 2);
	rig.hops[0].closes_at_mail = false;
	AWAIT(rig_messages() == 0);
	assert_int_equal(rig.hops[0].count, 2);
	assert_int_equal(rig_queue("out")->retry_count, 0);
}

/* Nobody knows whether it was taken: it is sent again. */
static void test_lost_answer(void **state)
{
	(void)state;
	rig.hops[0].closes_at_end = true;
	(void)mail_send("<a@adatum.test>");
	AWAIT(rig_queue("out")->retry_count == 1);
	rig.hops[0].closes_at_end = false;
	rig_wait(MINUTE_MS);
	AWAIT(rig_messages() == 0);
	assert_int_equal(rig.hops[0].count, 1);
}

static void test_dead_queue_holds_up_nobody(void **state)
{
	(void)state;
	hop_down(&rig.hops[0]);
	(void)mail_send("<a@adatum.test>");
	AWAIT(rig_queue("out")->retry_count == 1);
	(void)mail_send("<b@second.test> <b@adatum.test>");
	AWAIT(rig.hops[1].count == 1);
	assert_int_equal(rig_queue("out")->messages, 2);
	assert_int_equal(rig_messages(), 2);
}

int main(void)
{
#define RIG(test) cmocka_unit_test_setup_teardown(test, rig_setup, rig_teardown)
	static const struct CMUnitTest tests[] = {
		RIG(test_delivers),
		RIG(test_session_is_used_again),
		RIG(test_splits_by_destination),
		RIG(test_many_recipients),
		RIG(test_refused_recipient),
		RIG(test_nobody_is_told),
		RIG(test_relayed),
		RIG(test_dsn_is_left_to_the_next_hop),
		RIG(test_put_off),
		RIG(test_put_off_over_restart),
		RIG(test_ladder),
		RIG(test_last_error),
		RIG(test_one_probe),
		RIG(test_breaks_at_mail),
		RIG(test_stale_session),
		RIG(test_lost_answer),
		RIG(test_dead_queue_holds_up_nobody),
	};

	rig.config = config;
	if (loop_probe(&found) < 0) {
		(void)printf("no io_uring here\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
