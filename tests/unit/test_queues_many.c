/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_queues_many.c: a hundred thousand messages for a next hop that is down, and the others. What
 * is counted is work, not time.
 */

#include "tests/unit/queues_fixture.h"

#define MANY 100000
#define AT_ONCE 512

static const char config[] =
	"receive-connector \"in\" { bindings = \"127.0.0.1:2525\" send-connector = out }\n"
	"send-connector \"out\" { address-spaces = { \"*\" } smart-hosts = { \"127.0.0.1:@0\" }\n"
	"  ignore-starttls = yes }\n"
	"send-connector \"second\" { address-spaces = { \"second.test\" }\n"
	"  smart-hosts = { \"127.0.0.1:@1\" } ignore-starttls = yes }\n";

static struct mail *mails;

static bool all_done(unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		if (!mails[i].is_done)
			return false;
	}
	return true;
}

static void send_many(const char *rcpts, unsigned total)
{
	mails = calloc(AT_ONCE, sizeof(*mails));
	assert_non_null(mails);
	for (unsigned sent = 0; sent < total;) {
		const unsigned count = total - sent < AT_ONCE ? total - sent : AT_ONCE;

		for (unsigned i = 0; i < count; i++)
			mail_begin(&mails[i], rcpts, (struct mail_options){0});
		AWAIT(all_done(count));
		sent += count;
	}
	free(mails);
}

static void test_dead_queue(void **state)
{
	struct queues_facts facts;
	unsigned turns;

	(void)state;
	hop_down(&rig.hops[0]);
	send_many("<a@adatum.test>", MANY);
	AWAIT(rig_queue("out")->retry_count >= 1);
	assert_int_equal(rig_queue("out")->messages, MANY);
	queues_facts(rig.queues, &facts);
	assert_int_equal(facts.messages, MANY);
	assert_in_range(facts.bytes_each, 150, 256);
	(void)printf(
		"memory of a message with one entry: %lu bytes\n", (unsigned long)facts.bytes_each);

	/* Another destination does not notice. */
	(void)mail_send("<b@second.test>");
	AWAIT(rig.hops[1].count == 1);

	/* One question looks at some thousand messages in a turn. */
	turns = rig_ask(QUEUE_ASK_MESSAGES, NULL, NULL);
	assert_int_equal(ask.matched, MANY);
	assert_int_equal(ask.rows, COUNT_OF(message_rows));
	assert_in_range(turns, MANY / SLICE_MESSAGES, MANY / SLICE_MESSAGES + 2);

	/* So do orders: all are resubmitted, and are back in the queue. */
	assert_int_equal(rig_do(QUEUE_ASK_RESUBMIT, "out", NULL), 1);
	assert_true(rig.queues->messages.used - rig.queues->queued_count <= SLICE_CHORES);
	AWAIT(list_is_empty(&rig.queues->chores) && rig_queue("out")->messages == MANY);

	/* And the end of them. */
	(void)rig_ask(QUEUE_ASK_MESSAGE_REMOVE, NULL, NULL);
	assert_int_equal(ask.matched, MANY);
	assert_int_equal(rig_messages(), 0);
}

/* All of them come back after a restart, and go when the next hop is there. */
static void test_restart_with_many(void **state)
{
	(void)state;
	hop_down(&rig.hops[0]);
	send_many("<a@adatum.test>", 2000);
	AWAIT(rig_queue("out")->retry_count >= 1);
	rig_restart();
	AWAIT(rig_queue("out")->messages == 2000);
	hop_listen(&rig.hops[0]);
	rig_wait(MINUTE_MS);
	AWAIT(rig_messages() == 0);
	assert_int_equal(rig.hops[0].count, 2000);
}

/* Two destinations with more work than there are slots: each gets its turns. */
static void test_turns(void **state)
{
	(void)state;
	assert_int_equal(rig_do(QUEUE_ASK_SUSPEND, "", NULL), 0);
	rig.hops[0].holds_end = true;
	send_many("<a@adatum.test>", 100);
	AWAIT(rig_queue("out")->active >= WINDOW_FIRST);
	send_many("<b@second.test>", 100);
	AWAIT(rig.hops[1].count == 100);
	hop_release(&rig.hops[0]);
	AWAIT(rig_messages() == 0);
	assert_int_equal(rig.hops[0].count, 100);
}

int main(void)
{
#define RIG(test) cmocka_unit_test_setup_teardown(test, rig_setup, rig_teardown)
	static const struct CMUnitTest tests[] = {
		RIG(test_dead_queue),
		RIG(test_restart_with_many),
		RIG(test_turns),
	};

	rig.config = config;
	if (loop_probe(&found) < 0) {
		(void)printf("no io_uring here\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
