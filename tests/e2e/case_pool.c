/* SPDX-License-Identifier: Apache-2.0 */

/*
 * case_pool.c: sessions with the next hop that are kept and used again, and next hops
 * that stand in for each other.
 */

#include "tests/e2e/case.h"
#include <stdio.h>
#include <string.h>

/* So many messages in one client session; the next hop has them all, in order. */
static void pool_send(struct hop *hop, struct client *client, unsigned count, unsigned wait_ms)
{
	struct text body = {0};
	struct mail mail = {.body = &body};
	unsigned had = hop_count(hop, &hop->message_count);

	for (unsigned i = 0; i < count; i++) {
		pause_ms(i == 0 ? 0 : wait_ms);
		body_make(&body, (size_t)1000 * (i + 1));
		mail.by_bdat = i % 2 == 1;
		case_check(client_send(client, &mail) == 250, "message %u got \"%s\"", i + 1,
			client->last);
		hop_check_body(hop, had + i, &body, false);
	}
	case_check(hop_count(hop, &hop->message_count) == had + count,
		"%u messages at the next hop, expected %u",
		hop_count(hop, &hop->message_count) - had, count);
	text_free(&body);
}

static void run_reuse(const struct test_case *test)
{
	struct client client;
	struct client other;
	struct hop *hop = case_start(NULL, NULL);

	(void)test;
	client_open_secured(&client, NULL);
	pool_send(hop, &client, 5, 0);
	client_open_secured(&other, NULL);
	pool_send(hop, &other, 2, 0);
	client_quit(&client);
	client_quit(&other);
	case_check(hop_count(hop, &hop->sessions) == 1, "%u sessions with the next hop, expected 1",
		hop_count(hop, &hop->sessions));
	relay_stop();
	hop_await(hop, &hop->quits, 1, "QUITs");
}

static void run_limit(const struct test_case *test)
{
	const struct relay_options options = {.send = "\tmax-messages-per-connection = 2\n"};
	struct client client;
	struct hop *hop = case_start(NULL, &options);

	(void)test;
	client_open_secured(&client, NULL);
	pool_send(hop, &client, 5, 0);
	case_check(hop_count(hop, &hop->sessions) == 3, "%u sessions with the next hop, expected 3",
		hop_count(hop, &hop->sessions));
	client_quit(&client);
	case_finish(hop);
}

/* Two clients at once, each in the middle of a message: two sessions. */
static void run_two_at_once(const struct test_case *test)
{
	struct text body = {0};
	const struct mail mail = {.body = &body};
	struct client first;
	struct client second;
	struct hop *hop = case_start(NULL, NULL);

	(void)test;
	body_make(&body, 3000);
	client_open_secured(&first, NULL);
	client_open_secured(&second, NULL);
	client_begin(&first, &mail);
	client_begin(&second, &mail);
	client_give_body(&second, &mail);
	client_expect(&second, "250 2.0.0 <queued> as HOP-1");
	client_give_body(&first, &mail);
	client_expect(&first, "250 2.0.0 <queued> as HOP-2");
	hop_check_body(hop, 0, &body, false);
	hop_check_body(hop, 1, &body, false);
	case_check(hop_count(hop, &hop->sessions) == 2, "%u sessions with the next hop, expected 2",
		hop_count(hop, &hop->sessions));
	client_quit(&first);
	client_quit(&second);
	case_finish(hop);
}

/* The kept session ends; the client does not notice. */
struct idle_row {
	enum hop_step step;
	enum hop_act act;
	const char *answer;
	unsigned wait_ms; /* between messages: 0 races the next hop's end */
	bool may_fail;    /* the transaction had begun: 4xx is an honest answer too */
};

/* The kept session ends when the transaction has begun: 4xx, and the next try works. */
static void idle_try_begun(struct hop *hop, struct client *client)
{
	struct text body = {0};
	const struct mail mail = {.body = &body};

	pool_send(hop, client, 1, 0);
	body_make(&body, 100);
	client_say(client, "MAIL FROM:<ann@treyresearch.test>\r\nRCPT TO:<bob@adatum.test>");
	client_expect(client, "");
	client_expect(client, "");
	if (client->code == 250) {
		client_give_body(client, &mail);
		client_expect(client, "250 2.0.0 <queued>");
	} else {
		case_check(client->code / 100 == 4, "RCPT got \"%s\"", client->last);
		/* 421 is the end of this session too. */
		if (client->code == 421) {
			(void)client_expect_end(client);
			client_close(client);
			client_open_secured(client, NULL);
		} else {
			client_ask(client, "RSET", "250 ");
		}
		case_check(client_send(client, &mail) == 250, "the second try got \"%s\"",
			client->last);
	}
	hop_check_body(hop, 1, &body, false);
	text_free(&body);
}

static void run_idle(const struct test_case *test)
{
	const struct idle_row *row = test->data;
	const struct hop_plan plan = {.tls.tickets = 1,
		.step = row->step,
		.act = row->act,
		.answer = row->answer,
		.after = 1};
	struct client client;
	struct hop *hop = case_start(&plan, NULL);

	client_open_secured(&client, NULL);
	if (row->may_fail)
		idle_try_begun(hop, &client);
	else
		pool_send(hop, &client, 4, row->wait_ms);
	case_check(hop_count(hop, &hop->acted) >= 1, "the next hop ended nothing");
	client_quit(&client);
	hop_heal(hop);
	case_finish(hop);
}

/* The first of two next hops does not work. */
struct fail_row {
	const char *what; /* "dead", "mute", or NULL: a next hop with this plan */
	struct hop_plan plan;
};

static void run_fail_over(const struct test_case *test)
{
	const struct fail_row *row = test->data;
	const struct hop_plan good = {.tls.tickets = 1};
	static struct hop first;
	static struct hop second;
	struct relay_options options = {0};
	struct client client;
	char hosts[128];
	char send[64];
	unsigned port;

	hop_start(&second, &good);
	if (row->what == NULL) {
		hop_start(&first, &row->plan);
		port = first.port;
	} else {
		port = strcmp(row->what, "dead") == 0 ? hop_dead_port() : hop_mute_port();
	}
	(void)snprintf(hosts, sizeof(hosts), "{\"%s:%u\", \"%s:%u\"}", suite.address, port,
		suite.address, second.port);
	(void)snprintf(send, sizeof(send), "\tconnect-timeout = \"%ums\"\n", 1000 * suite.slow);
	options.hosts = hosts;
	options.send = send;
	relay_start(&options);
	client_open_secured(&client, NULL);
	pool_send(&second, &client, 3, 0);
	case_check(hop_count(&second, &second.sessions) == 1, "%u sessions with the second hop",
		hop_count(&second, &second.sessions));
	client_quit(&client);
	(void)relay_await_log(1, "event=nexthop-failed");
	if (row->what == NULL)
		case_check(hop_count(&first, &first.mails) == 0, "the first hop heard MAIL");
	case_finish(&second);
}

/* No next hop at all: 451, and nothing worse. */
static void run_none(const struct test_case *test)
{
	struct relay_options options = {0};
	struct client client;
	char hosts[128];

	(void)test;
	(void)snprintf(hosts, sizeof(hosts), "{\"%s:%u\", \"%s:%u\"}", suite.address,
		hop_dead_port(), suite.address, hop_dead_port());
	options.hosts = hosts;
	relay_start(&options);
	client_open_secured(&client, NULL);
	for (unsigned i = 0; i < 3; i++) {
		client_ask(&client, "MAIL FROM:<ann@treyresearch.test>", "451 4.4.1");
		client_ask(&client, "DATA", "503 ");
	}
	client_ask(&client, "RSET", "250 ");
	client_close(&client);
	relay_stop();
}

/* SIGTERM in the middle of a message: the message is finished, then all ends. */
static void run_drain(const struct test_case *test)
{
	struct text body = {0};
	struct text stuffed = {0};
	const struct mail mail = {.body = &body};
	struct client busy;
	struct client idle;
	struct hop *hop = case_start(NULL, NULL);

	(void)test;
	body_make(&body, 50000);
	body_stuff(&body, &stuffed);
	client_open_secured(&idle, NULL);
	client_open_secured(&busy, NULL);
	client_begin(&busy, &mail);
	client_ask(&busy, "DATA", "354 ");
	(void)wire_write(&busy.wire, stuffed.data, 20000);
	relay_terminate();
	client_expect(&idle, "421 4.3.2");
	(void)client_expect_end(&idle);
	client_close(&idle);
	(void)wire_write(&busy.wire, stuffed.data + 20000, stuffed.len - 20000);
	client_expect(&busy, "250 2.0.0 <queued> as HOP-1");
	client_expect(&busy, "421 4.3.2");
	(void)client_expect_end(&busy);
	client_close(&busy);
	hop_check_body(hop, 0, &body, false);
	relay_stop();
}

#define IDLE(label, ...)                                                          \
	{                                                                         \
		label, run_idle, &(const struct idle_row){.step = __VA_ARGS__}, 0 \
	}
#define FAIL(label, ...)                                                               \
	{                                                                              \
		label, run_fail_over, &(const struct fail_row){.what = __VA_ARGS__}, 0 \
	}

static const struct test_case rows[] = {
	{"pool/reuse", run_reuse, NULL, 0},
	{"pool/limit", run_limit, NULL, 0},
	{"pool/two-at-once", run_two_at_once, NULL, 0},
	IDLE("pool/idle-closed", HOP_IDLE, HOP_CLOSE, .wait_ms = 100),
	IDLE("pool/idle-fin", HOP_IDLE, HOP_FIN, .wait_ms = 100),
	IDLE("pool/idle-reset", HOP_IDLE, HOP_RESET, .wait_ms = 100),
	IDLE("pool/idle-421", HOP_IDLE, HOP_ANSWER, "421 4.4.2 idle for too long", .wait_ms = 100),
	IDLE("pool/race-closed", HOP_IDLE, HOP_CLOSE),
	IDLE("pool/race-fin", HOP_IDLE, HOP_FIN),
	IDLE("pool/race-reset", HOP_IDLE, HOP_RESET),
	IDLE("pool/race-421", HOP_IDLE, HOP_ANSWER, "421 4.4.2 idle for too long"),
	IDLE("pool/closed-at-mail", HOP_MAIL, HOP_CLOSE),
	IDLE("pool/reset-at-mail", HOP_MAIL, HOP_RESET),
	IDLE("pool/421-at-mail", HOP_MAIL, HOP_ANSWER, "421 4.3.2 hop goes"),
	IDLE("pool/closed-at-rcpt", HOP_RCPT, HOP_CLOSE, .may_fail = true),
	IDLE("pool/421-at-rcpt", HOP_RCPT, HOP_ANSWER, "421 4.3.2 hop goes", .may_fail = true),
	FAIL("pool/first-dead", "dead"),
	FAIL("pool/first-mute", "mute"),
	FAIL("pool/first-stalls", NULL, {.step = HOP_GREETING, .act = HOP_STALL}),
	FAIL("pool/first-closes", NULL, {.step = HOP_GREETING, .act = HOP_CLOSE}),
	FAIL("pool/first-says-554", NULL,
		{.step = HOP_GREETING, .act = HOP_ANSWER, .answer = "554 5.3.2 no"}),
	FAIL("pool/first-says-454-starttls", NULL,
		{.step = HOP_STARTTLS, .act = HOP_ANSWER, .answer = "454 4.7.0 no TLS now"}),
	FAIL("pool/first-resets-handshake", NULL, {.step = HOP_HANDSHAKE, .act = HOP_RESET}),
	FAIL("pool/first-unproved", NULL, {.tls.certificate = "adatum-expired"}),
	FAIL("pool/first-without-starttls", NULL, {.lacks = HOP_NO_STARTTLS}),
	{"pool/no-next-hop", run_none, NULL, 0},
	{"pool/drain", run_drain, NULL, 0},
};
const struct case_table case_pool = {rows, COUNT_OF(rows)};
