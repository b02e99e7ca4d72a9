/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_queues_admin.c: what an administrator asks of queues and messages, and orders
 * (EXCHANGE 9.2).
 */

#include "tests/unit/queues_fixture.h"

static const char config[] =
	"receive-connector \"in\" { bindings = \"127.0.0.1:2525\" send-connector = out }\n"
	"send-connector \"out\" { address-spaces = { \"*\" } smart-hosts = { \"127.0.0.1:@0\" }\n"
	"  ignore-starttls = yes }\n"
	"send-connector \"second\" { address-spaces = { \"second.test\" }\n"
	"  smart-hosts = { \"127.0.0.1:@1\" } ignore-starttls = yes }\n";

static void test_words(void **state)
{
	(void)state;
	assert_string_equal(queue_status_word(QUEUE_CONNECTING), "Connecting");
	assert_string_equal(queue_kind_word(QUEUE_DNS), "DnsConnectorDelivery");
	assert_string_equal(message_status_word(MESSAGE_PENDING_REMOVE), "PendingRemove");
}

static void test_suspended_queue(void **state)
{
	(void)state;
	hop_down(&rig.hops[0]);
	(void)mail_send("<a@adatum.test>");
	AWAIT(rig_queue("out")->retry_count == 1);
	assert_int_equal(rig_do(QUEUE_ASK_SUSPEND, "out", NULL), 1);
	assert_int_equal(rig_do(QUEUE_ASK_SUSPEND, "out", NULL), 0);
	hop_listen(&rig.hops[0]);
	rig_wait(MINUTE_MS);
	(void)mail_send("<b@adatum.test>"); /* arrivals are not stopped */
	rig_idle(20);
	assert_int_equal(rig.hops[0].connections, 0);
	assert_int_equal(rig_queue("out")->status, QUEUE_SUSPENDED);
	assert_int_equal(rig_queue("out")->messages, 2);
	/* Nor does a restart resume it. */
	rig_restart();
	AWAIT(rig_queue("out")->messages == 2);
	rig_idle(20);
	assert_int_equal(rig_queue("out")->status, QUEUE_SUSPENDED);
	assert_int_equal(rig.hops[0].connections, 0);
	assert_int_equal(rig_do(QUEUE_ASK_RESUME, "OUT", NULL), 1);
	AWAIT(rig_messages() == 0);
	assert_int_equal(rig.hops[0].count, 2);
	assert_int_equal(rig_do(QUEUE_ASK_RESUME, "out", NULL), 0);
}

static void test_retry(void **state)
{
	(void)state;
	assert_int_equal(rig_do(QUEUE_ASK_RETRY, "", NULL), 0);
	hop_down(&rig.hops[0]);
	(void)mail_send("<a@adatum.test>");
	AWAIT(rig_queue("out")->retry_count == 1);
	assert_int_equal(rig_do(QUEUE_ASK_RETRY, "other", NULL), 0);
	hop_listen(&rig.hops[0]);
	assert_int_equal(rig_do(QUEUE_ASK_RETRY, "out", NULL), 1);
	AWAIT(rig_messages() == 0);
	/* It is not in Retry any more. */
	assert_int_equal(rig_do(QUEUE_ASK_RETRY, "out", NULL), 0);
}

static void test_resubmit(void **state)
{
	(void)state;
	hop_down(&rig.hops[0]);
	(void)mail_send("<a@adatum.test>");
	AWAIT(rig_queue("out")->retry_count == 1);
	assert_int_equal(rig_do(QUEUE_ASK_RESUBMIT, "out", NULL), 1);
	AWAIT(rig_queue("out")->messages == 1);
	assert_int_equal(rig_queue("out")->status, QUEUE_RETRY);
}

static void test_redirect(void **state)
{
	(void)state;
	hop_down(&rig.hops[0]);
	(void)mail_send("<a@adatum.test> <c@second.test>");
	(void)mail_send("<b@adatum.test>");
	AWAIT(rig_queue("out")->retry_count == 1 && rig.hops[1].count == 1 &&
		rig_queue("second")->messages == 0);
	assert_int_equal(rig_do(QUEUE_ASK_REDIRECT, "out", "nowhere"), 0);
	assert_int_equal(rig_do(QUEUE_ASK_REDIRECT, "out", "second"), 1);
	AWAIT(rig_messages() == 0);
	assert_int_equal(rig.hops[1].count, 3);
	/* What comes later goes its own way. */
	clock_ms++;
	(void)mail_send("<d@adatum.test>");
	rig_idle(20);
	assert_int_equal(rig.hops[1].count, 3);
	assert_int_equal(rig_queue("out")->messages, 1);
}

/* And back again, when that was no good either. */
static void test_redirect_and_back(void **state)
{
	(void)state;
	hop_down(&rig.hops[0]);
	hop_down(&rig.hops[1]);
	(void)mail_send("<a@adatum.test>");
	AWAIT(rig_queue("out")->retry_count == 1);
	assert_int_equal(rig_do(QUEUE_ASK_REDIRECT, "out", "second"), 1);
	AWAIT(rig_queue("second")->messages == 1 && rig_queue("out")->messages == 0);
	assert_int_equal(rig_do(QUEUE_ASK_REDIRECT, "second", "out"), 1);
	AWAIT(rig_queue("out")->messages == 1 && rig_queue("second")->messages == 0);
	hop_listen(&rig.hops[0]);
	rig_wait(MINUTE_MS);
	AWAIT(rig_messages() == 0);
	assert_int_equal(rig.hops[0].count, 1);
}

/* It was said, and the relay is started anew before the target can be reached. */
static void test_redirect_over_restart(void **state)
{
	(void)state;
	hop_down(&rig.hops[0]);
	hop_down(&rig.hops[1]);
	(void)mail_send("<a@adatum.test>");
	AWAIT(rig_queue("out")->retry_count == 1);
	assert_int_equal(rig_do(QUEUE_ASK_REDIRECT, "out", "second"), 1);
	AWAIT(rig_queue("second")->retry_count == 1);
	rig_restart();
	AWAIT(rig_queue("second")->messages == 1);
	hop_listen(&rig.hops[1]);
	rig_wait(MINUTE_MS);
	AWAIT(rig_messages() == 0);
	assert_int_equal(rig.hops[1].count, 1);
}

static void test_suspended_message(void **state)
{
	uint64_t id;

	(void)state;
	hop_down(&rig.hops[0]);
	id = mail_send("<a@adatum.test>");
	(void)mail_send("<b@adatum.test>");
	AWAIT(rig_queue("out")->retry_count == 1);
	assert_int_equal(rig_message(id)->status, MESSAGE_RETRY);
	assert_int_equal(rig_do_message(QUEUE_ASK_MESSAGE_RESUME, id), 0);
	assert_int_equal(rig_do_message(QUEUE_ASK_MESSAGE_SUSPEND, id), 1);
	assert_int_equal(rig_do_message(QUEUE_ASK_MESSAGE_SUSPEND, id), 0);
	assert_int_equal(rig_message(id)->status, MESSAGE_SUSPENDED);
	hop_listen(&rig.hops[0]);
	rig_wait(MINUTE_MS);
	AWAIT(rig_messages() == 1);
	assert_string_equal(rig.hops[0].messages[0].rcpts, "b@adatum.test ");
	rig_restart();
	AWAIT(rig_queue("out")->messages == 1);
	assert_int_equal(rig_message(id)->status, MESSAGE_SUSPENDED);
	/* While it is suspended it does not grow too old. */
	rig_wait(49 * HOUR_MS);
	rig_idle(10);
	assert_int_equal(rig_message(id)->status, MESSAGE_SUSPENDED);
	clock_ms -= 49 * HOUR_MS;
	assert_int_equal(rig_do_message(QUEUE_ASK_MESSAGE_RESUME, id), 1);
	AWAIT(rig_messages() == 0);
	assert_int_equal(rig.hops[0].count, 2);
}

static void test_removed(void **state)
{
	uint64_t id;

	(void)state;
	hop_down(&rig.hops[0]);
	id = mail_send("<a@adatum.test>");
	AWAIT(rig_queue("out")->retry_count == 1);
	assert_int_equal(rig_do_message(QUEUE_ASK_MESSAGE_REMOVE, id + 1), 0);
	assert_int_equal(rig_do_message(QUEUE_ASK_MESSAGE_REMOVE, id), 1);
	assert_int_equal(rig_messages(), 0);
	rig_idle(5);
	rig_restart();
	assert_int_equal(rig_messages(), 0);
}

static void test_removed_with_notice(void **state)
{
	uint64_t id;

	(void)state;
	hop_down(&rig.hops[0]);
	id = mail_send("<a@adatum.test> <b@adatum.test>");
	AWAIT(rig_queue("out")->retry_count == 1);
	assert_int_equal(rig_do_message(QUEUE_ASK_MESSAGE_REMOVE_NDR, id), 1);
	AWAIT(rig_message(id)->id == 0);
	assert_int_equal(rig_messages(), 1); /* the notice waits in the same queue */
	hop_listen(&rig.hops[0]);
	rig_wait(MINUTE_MS);
	AWAIT(rig_messages() == 0);
	assert_int_equal(rig.hops[0].count, 1);
	assert_string_equal(rig.hops[0].messages[0].sender, "<>");
	assert_non_null(
		strstr(rig.hops[0].messages[0].body, "message deleted by administrative action"));
	assert_non_null(strstr(rig.hops[0].messages[0].body, "Status: 4.3.2"));
}

/* While it is transferred: only if that fails. */
static void test_pending(void **state)
{
	uint64_t id;

	(void)state;
	rig.hops[0].holds_end = true;
	id = mail_send("<a@adatum.test>");
	AWAIT(rig.hops[0].count == 1);
	assert_int_equal(rig_message(id)->status, MESSAGE_ACTIVE);
	assert_int_equal(rig_queue("out")->status, QUEUE_ACTIVE);
	assert_int_equal(rig_do_message(QUEUE_ASK_MESSAGE_SUSPEND, id), 1);
	assert_int_equal(rig_message(id)->status, MESSAGE_PENDING_SUSPEND);
	assert_int_equal(rig_do_message(QUEUE_ASK_MESSAGE_RESUME, id), 1);
	assert_int_equal(rig_do_message(QUEUE_ASK_MESSAGE_REMOVE, id), 1);
	assert_int_equal(rig_message(id)->status, MESSAGE_PENDING_REMOVE);
	rig_idle(10);
	assert_int_equal(rig_messages(), 1);
	hop_hang_up(&rig.hops[0]);
	AWAIT(rig_messages() == 0);
}

static void test_pending_suspend(void **state)
{
	uint64_t id;

	(void)state;
	rig.hops[0].holds_end = true;
	id = mail_send("<a@adatum.test>");
	AWAIT(rig.hops[0].count == 1);
	assert_int_equal(rig_do_message(QUEUE_ASK_MESSAGE_SUSPEND, id), 1);
	hop_hang_up(&rig.hops[0]);
	rig.hops[0].holds_end = false;
	AWAIT(rig_message(id)->status == MESSAGE_SUSPENDED);
	rig_wait(MINUTE_MS);
	rig_idle(20);
	assert_int_equal(rig.hops[0].mails, 1);
}

static void test_filters(void **state)
{
	struct queue_filter filter = {.has_status = false};
	uint64_t id;

	(void)state;
	hop_down(&rig.hops[0]);
	hop_down(&rig.hops[1]);
	id = mail_send_with("<a@adatum.test> <b@second.test>",
		(struct mail_options){.sender = "<Other@contoso.test>"});
	clock_ms += 10000;
	(void)mail_send("<c@adatum.test>");
	(void)mail_send_with("<d@adatum.test>", (struct mail_options){.says_bytes = 5000});
	AWAIT(rig_queue("out")->retry_count == 1 && rig_queue("second")->retry_count == 1);

	/* A row for each queue that it is in. */
	(void)rig_ask(QUEUE_ASK_MESSAGES, NULL, NULL);
	assert_int_equal(ask.matched, 4);
	(void)snprintf(filter.queue, sizeof(filter.queue), "second");
	(void)rig_ask(QUEUE_ASK_MESSAGES, &filter, NULL);
	assert_int_equal(ask.matched, 1);
	assert_int_equal(message_rows[0].id, id);
	assert_string_equal(message_rows[0].queue, "second");

	filter = (struct queue_filter){.older_than_ms = 10000};
	(void)rig_ask(QUEUE_ASK_MESSAGES, &filter, NULL);
	assert_int_equal(ask.matched, 2);
	filter = (struct queue_filter){.larger_than = 4999};
	(void)rig_ask(QUEUE_ASK_MESSAGES, &filter, NULL);
	assert_int_equal(ask.matched, 1);
	filter = (struct queue_filter){.has_status = true, .status = MESSAGE_SUSPENDED};
	(void)rig_ask(QUEUE_ASK_MESSAGES, &filter, NULL);
	assert_int_equal(ask.matched, 0);
	filter = (struct queue_filter){.has_status = true, .status = QUEUE_RETRY};
	(void)rig_ask(QUEUE_ASK_LIST, &filter, NULL);
	assert_int_equal(ask.matched, 2);

	/* What stands in envelopes. */
	filter = (struct queue_filter){.sender = "<other@CONTOSO.test>"};
	(void)rig_ask(QUEUE_ASK_MESSAGES, &filter, NULL);
	assert_int_equal(ask.matched, 2);
	filter = (struct queue_filter){.recipient = "<c@adatum.test>"};
	(void)rig_ask(QUEUE_ASK_MESSAGES, &filter, NULL);
	assert_int_equal(ask.matched, 1);
	(void)rig_ask(QUEUE_ASK_MESSAGE_REMOVE, &filter, NULL);
	assert_int_equal(ask.matched, 1);
	(void)rig_ask(QUEUE_ASK_MESSAGE_REMOVE, &filter, NULL);
	assert_int_equal(ask.matched, 0);
	assert_int_equal(rig_messages(), 2);
}

/* Rows are passed over, and end where there is no room, but all are counted. */
static void test_pages(void **state)
{
	(void)state;
	hop_down(&rig.hops[0]);
	for (unsigned i = 0; i < 5; i++)
		(void)mail_send("<a@adatum.test>");
	AWAIT(rig_queue("out")->retry_count == 1);
	memset(&ask, 0, sizeof(ask));
	ask.verb = QUEUE_ASK_MESSAGES;
	ask.message_rows = message_rows;
	ask.rows_max = 3;
	ask.skip = 1;
	while (!ask.is_done)
		queue_ask_run(rig.queues, &ask);
	assert_int_equal(ask.rows, 3);
	assert_int_equal(ask.matched, 5);
}

static void test_list(void **state)
{
	const struct queue_row *row;

	(void)state;
	(void)rig_ask(QUEUE_ASK_LIST, NULL, NULL);
	assert_int_equal(ask.rows, 1);
	assert_string_equal(queue_rows[0].identity, "Submission");
	hop_down(&rig.hops[0]);
	(void)mail_send("<a@adatum.test>");
	clock_ms += 1000;
	(void)mail_send("<b@adatum.test>");
	AWAIT(rig_queue("out")->retry_count == 1);
	row = rig_queue("out");
	assert_int_equal(row->kind, QUEUE_SMART_HOST);
	assert_string_equal(row->connector, "out");
	assert_string_equal(row->tls_domain, "");
	assert_int_equal(row->messages, 2);
	assert_true(row->bytes > 0);
	assert_int_equal(row->oldest_ms, clock_ms - 1000);
	clock_ms += MINUTE_MS;
	assert_int_equal(rig_queue("out")->in_minute, 2);
	assert_int_equal(rig_queue("out")->out_minute, 0);
	clock_ms += MINUTE_MS;
	assert_int_equal(rig_queue("out")->in_minute, 0);
	(void)rig_ask(QUEUE_ASK_FACTS, NULL, NULL);
	assert_int_equal(ask.facts.messages, 2);
	assert_int_equal(ask.facts.queues, 1);
	assert_int_equal(ask.facts.active, 0);
}

int main(void)
{
#define RIG(test) cmocka_unit_test_setup_teardown(test, rig_setup, rig_teardown)
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_words),
		RIG(test_suspended_queue),
		RIG(test_retry),
		RIG(test_resubmit),
		RIG(test_redirect),
		RIG(test_redirect_and_back),
		RIG(test_redirect_over_restart),
		RIG(test_suspended_message),
		RIG(test_removed),
		RIG(test_removed_with_notice),
		RIG(test_pending),
		RIG(test_pending_suspend),
		RIG(test_filters),
		RIG(test_pages),
		RIG(test_list),
	};

	rig.config = config;
	if (loop_probe(&found) < 0) {
		(void)printf("no io_uring here\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
