/* SPDX-License-Identifier: Apache-2.0 */

/*
 * case_hop.c: next hops that refuse, stall, close or do not prove themselves, at every
 * step. The client hears 4xx or 5xx, and never 250 unless the next hop said so.
 */

#include "tests/e2e/case.h"
#include <stdio.h>
#include <string.h>

struct hop_row {
	enum hop_step step;
	enum hop_act act;
	const char *answer;
	const char *want; /* how the first reply that is none of success begins */
	unsigned lacks;
	size_t body_bytes; /* 0: a small body */
};

static bool hop_is_silent(const struct hop_row *row)
{
	return row->act == HOP_STALL || row->act == HOP_DEAF;
}

/*
 * Timeouts of the relay. Where one is waited for it is short; elsewhere a busy machine must
 * not run into it.
 */
static const char *hop_timeouts(bool is_short)
{
	static char lines[128];

	(void)snprintf(lines, sizeof(lines),
		"\tconnect-timeout = \"%ums\"\n\tconnection-inactivity-timeout = \"%us\"\n",
		(is_short ? 600 : 20000) * suite.slow, (is_short ? 1 : 60) * suite.slow);
	return lines;
}

/* One message, step by step, up to the first reply that is no success. */
static void hop_try(struct client *client, const struct text *body, bool by_bdat)
{
	static const char *const envelope[] = {
		"MAIL FROM:<ann@treyresearch.test>", "RCPT TO:<bob@adatum.test>"};
	struct text stuffed = {0};

	for (unsigned i = 0; i < COUNT_OF(envelope); i++) {
		client_say(client, "%s", envelope[i]);
		case_check(client_hear(client), "%s: no reply (%s)", envelope[i],
			wire_end_word(client->wire.end));
		if (client->code >= 400)
			return;
	}
	if (by_bdat) {
		client_say(client, "BDAT %zu LAST", body->len);
		case_check(wire_write(&client->wire, body->data, body->len), "body not read");
	} else {
		client_say(client, "DATA");
		case_check(client_hear(client), "DATA: no reply (%s)",
			wire_end_word(client->wire.end));
		if (client->code >= 400)
			return;
		body_stuff(body, &stuffed);
		case_check(wire_write(&client->wire, stuffed.data, stuffed.len), "body not read");
		text_free(&stuffed);
	}
	case_check(client_hear(client), "no reply to the message (%s)",
		wire_end_word(client->wire.end));
}

static void run_fault(const struct test_case *test)
{
	const struct hop_row *row = test->data;
	const struct hop_plan plan = {.tls.tickets = 1,
		.lacks = row->lacks,
		.step = row->step,
		.act = row->act,
		.answer = row->answer,
		.body_bytes = row->body_bytes / 4};
	const struct relay_options options = {.send = hop_timeouts(hop_is_silent(row))};
	struct text body = {0};
	/* From DATA and from BDAT; where there is a timeout to wait for, once is enough. */
	unsigned tries = hop_is_silent(row) ? 1 : 2;
	struct client client;
	struct hop *hop = case_start(&plan, &options);

	body_make(&body, row->body_bytes == 0 ? 3000 : row->body_bytes);
	client_open_secured(&client, NULL);
	for (unsigned i = 0; i < tries; i++) {
		hop_try(&client, &body, i == 1);
		case_check(strncmp(client.last, row->want, strlen(row->want)) == 0,
			"got \"%s\", expected \"%s\"", client.last, row->want);
		case_check(hop_count(hop, &hop->accepted) == 0, "the next hop accepted a message");
		client_ask(&client, "RSET", "250 2.0.0");
	}
	case_check(hop_count(hop, &hop->acted) >= tries, "the next hop was not asked again");
	/* It recovers, and so does this very session. */
	hop_heal(hop);
	hop_try(&client, &body, false);
	case_check(client.code == 250, "after recovery a message got \"%s\"", client.last);
	client_quit(&client);
	case_finish(hop);
}

/* 421 is passed on, and then the client's session ends too, as 421 says (RFC 5321 3.8). */
static void run_421(const struct test_case *test)
{
	const struct hop_row *row = test->data;
	const struct hop_plan plan = {.tls.tickets = 1,
		.lacks = row->lacks,
		.step = row->step,
		.act = HOP_ANSWER,
		.answer = "421 4.3.2 hop goes"};
	struct text body = {0};
	struct client client;
	struct hop *hop = case_start(&plan, NULL);

	body_make(&body, 3000);
	client_open_secured(&client, NULL);
	hop_try(&client, &body, false);
	case_check(strncmp(client.last, "421 4.3.2 hop goes", 18) == 0 || client.code == 451,
		"got \"%s\", expected the next hop's 421", client.last);
	if (client.code == 421)
		(void)client_expect_end(&client);
	client_close(&client);
	case_check(hop_count(hop, &hop->accepted) == 0, "the next hop accepted a message");
	hop_heal(hop);
	case_finish(hop);
}

/* Certificates of the next hop; without a good one it hears no MAIL. */

struct proof_row {
	const char *certificate;
	const char *word; /* in the log */
	unsigned lacks;
	const char *tls_domain;
};

static void run_unproved(const struct test_case *test)
{
	const struct proof_row *row = test->data;
	const struct hop_plan plan = {
		.tls = {.tickets = 1, .certificate = row->certificate, .is_weak = true},
		.lacks = row->lacks};
	const struct relay_options options = {
		.tls_domain = row->tls_domain, .send = hop_timeouts(false)};
	struct text body = {0};
	struct client client;
	char want[128];
	struct hop *hop = case_start(&plan, &options);

	body_make(&body, 100);
	client_open_secured(&client, NULL);
	hop_try(&client, &body, false);
	case_check(client.code / 100 == 4, "got \"%s\", expected 4xx", client.last);
	client_ask(&client, "DATA", "503 ");
	client_quit(&client);
	(void)snprintf(want, sizeof(want), "event=nexthop-failed why=%s", row->word);
	(void)relay_await_log(1, want);
	case_check(hop_count(hop, &hop->sessions) >= 1, "the next hop was not asked");
	case_check(hop_count(hop, &hop->mails) == 0, "the next hop heard MAIL");
	relay_stop();
}

/* Plaintext behind the next hop's 220 is nobody's. */
static void run_injected(const struct test_case *test)
{
	const struct hop_plan plan = {.tls.tickets = 1,
		.step = HOP_STARTTLS,
		.act = HOP_INJECT,
		.answer = "250-evil.example\r\n250 SIZE 1"};
	struct text body = {0};
	struct client client;
	struct hop *hop = case_start(&plan, NULL);

	(void)test;
	body_make(&body, 100);
	client_open_secured(&client, NULL);
	hop_try(&client, &body, false);
	case_check(client.code / 100 == 4, "got \"%s\", expected 4xx", client.last);
	(void)relay_await_log(1, "event=nexthop-failed why=plaintext-behind-starttls");
	case_check(hop_count(hop, &hop->mails) == 0, "the next hop heard MAIL");
	hop_heal(hop);
	client_ask(&client, "RSET", "250 ");
	client_quit(&client);
	case_finish(hop);
}

/* One recipient of three: each hears its own answer, and the message goes to that one. */
static void run_partial(const struct test_case *test)
{
	const struct hop_row *row = test->data;
	const struct hop_plan plan = {.tls.tickets = 1, .lacks = row->lacks};
	struct text body = {0};
	const struct mail mail = {.body = &body};
	struct client client;
	struct hop *hop = case_start(&plan, NULL);

	body_make(&body, 3000);
	client_open_secured(&client, NULL);
	client_ask(&client, "MAIL FROM:<ann@treyresearch.test>", "250 2.1.0 hop likes the sender");
	client_ask(&client, "RCPT TO:<refused@adatum.test>", "550 5.1.1 hop knows no such user");
	client_ask(&client, "RCPT TO:<bob@adatum.test>", "250 2.1.5 hop likes the recipient");
	client_ask(&client, "RCPT TO:<later@adatum.test>", "450 4.2.0 hop may know them later");
	client_give_body(&client, &mail);
	client_expect(&client, "250 2.0.0 <queued> as HOP-1");
	hop_check_body(hop, 0, &body, false);
	case_check(strcmp(hop->messages[0].recipients.data, "<bob@adatum.test>\n") == 0,
		"recipients at the next hop: %s", hop->messages[0].recipients.data);
	client_quit(&client);
	case_finish(hop);
}

/* The next hop reads nothing for a while in the middle: nothing is lost. */
static void run_slow(const struct test_case *test)
{
	const struct hop_row *row = test->data;
	const struct hop_plan plan = {.tls.tickets = 1,
		.lacks = row->lacks,
		.step = HOP_BODY,
		.act = HOP_SLEEP,
		.body_bytes = 100000};
	struct text body = {0};
	struct client client;
	struct hop *hop = case_start(&plan, NULL);

	body_make(&body, row->body_bytes);
	client_open_secured(&client, NULL);
	hop_try(&client, &body, row->act == HOP_STALL);
	case_check(client.code == 250, "the message got \"%s\"", client.last);
	hop_check_body(hop, 0, &body, false);
	client_quit(&client);
	case_finish(hop);
}

#define FAULT(label, ...)                                                         \
	{                                                                         \
		label, run_fault, &(const struct hop_row){.step = __VA_ARGS__}, 0 \
	}
#define PROOF(label, ...)                                                                     \
	{                                                                                     \
		label, run_unproved, &(const struct proof_row){.certificate = __VA_ARGS__}, 0 \
	}
#define SAYS(label, step, answer, want, ...) \
	FAULT("hop/says-" label, step, HOP_ANSWER, answer, want, __VA_ARGS__)
#define UNREACHED "451 4.4.1"
#define LOST "451 4.4.2"
#define UNSECURED "451 4.7.3"
#define ENDS(label, step, want, ...)                                                  \
	FAULT("hop/stalls-" label, step, HOP_STALL, NULL, want, __VA_ARGS__),         \
		FAULT("hop/closes-" label, step, HOP_CLOSE, NULL, want, __VA_ARGS__), \
		FAULT("hop/fin-" label, step, HOP_FIN, NULL, want, __VA_ARGS__),      \
		FAULT("hop/resets-" label, step, HOP_RESET, NULL, want, __VA_ARGS__)

static const struct test_case rows[] = {
	SAYS("554-greeting", HOP_GREETING, "554 5.3.2 no", UNREACHED, 0),
	SAYS("421-greeting", HOP_GREETING, "421 4.3.2 no", UNREACHED, 0),
	SAYS("nonsense-greeting", HOP_GREETING, "Hello!", UNREACHED, 0),
	SAYS("554-ehlo", HOP_EHLO, "554 5.3.2 no", UNREACHED, 0),
	SAYS("454-starttls", HOP_STARTTLS, "454 4.7.0 no TLS now", UNSECURED, 0),
	SAYS("554-starttls", HOP_STARTTLS, "554 5.7.0 no TLS", UNSECURED, 0),
	SAYS("451-ehlo-tls", HOP_EHLO_TLS, "451 4.3.2 no", UNREACHED, 0),
	SAYS("450-mail", HOP_MAIL, "450 4.1.8 hop: later", "450 4.1.8 hop: later", 0),
	SAYS("553-mail", HOP_MAIL, "553 5.1.8 hop: never", "553 5.1.8 hop: never", 0),
	SAYS("nonsense-mail", HOP_MAIL, "what?", LOST, 0),
	SAYS("450-rcpt", HOP_RCPT, "450 4.2.1 hop: later", "450 4.2.1 hop: later", 0),
	SAYS("550-rcpt", HOP_RCPT, "550 5.2.1 hop: never", "550 5.2.1 hop: never", 0),
	SAYS("451-data", HOP_DATA, "451 4.3.0 hop: later", "451 4.3.0 hop: later", HOP_NO_CHUNKING),
	SAYS("554-data", HOP_DATA, "554 5.6.0 hop: never", "554 5.6.0 hop: never", HOP_NO_CHUNKING),
	SAYS("451-bdat", HOP_DATA, "451 4.3.0 hop: later", "451 4.3.0 hop: later", 0),
	SAYS("554-bdat", HOP_DATA, "554 5.6.0 hop: never", "554 5.6.0 hop: never", 0),
	SAYS("554-bdat-large", HOP_DATA, "554 5.6.0 hop: never", "554 5.6.0 hop: never", 0,
		2000000),
	SAYS("452-mid-bdat", HOP_BODY, "452 4.2.2 hop: full", "452 4.2.2 hop: full", 0, 2000000),
	SAYS("451-end-data", HOP_END, "451 4.3.0 hop: later", "451 4.3.0 hop: later",
		HOP_NO_CHUNKING),
	SAYS("552-end-data", HOP_END, "552 5.2.2 hop: full", "552 5.2.2 hop: full",
		HOP_NO_CHUNKING),
	SAYS("451-end-bdat", HOP_END, "451 4.3.0 hop: later", "451 4.3.0 hop: later", 0),
	SAYS("552-end-bdat", HOP_END, "552 5.2.2 hop: full", "552 5.2.2 hop: full", 0),
	ENDS("greeting", HOP_GREETING, UNREACHED, 0),
	ENDS("ehlo", HOP_EHLO, UNREACHED, 0),
	ENDS("starttls", HOP_STARTTLS, UNREACHED, 0),
	ENDS("handshake", HOP_HANDSHAKE, UNSECURED, 0),
	ENDS("ehlo-tls", HOP_EHLO_TLS, UNREACHED, 0),
	ENDS("mail", HOP_MAIL, LOST, 0),
	ENDS("rcpt", HOP_RCPT, LOST, 0),
	ENDS("data", HOP_DATA, LOST, HOP_NO_CHUNKING),
	ENDS("bdat", HOP_DATA, LOST, 0),
	ENDS("body-data", HOP_BODY, LOST, HOP_NO_CHUNKING, 2000000),
	ENDS("body-bdat", HOP_BODY, LOST, 0, 2000000),
	ENDS("end-data", HOP_END, LOST, HOP_NO_CHUNKING),
	ENDS("end-bdat", HOP_END, LOST, 0),
	FAULT("hop/deaf-body-data", HOP_BODY, HOP_DEAF, NULL, LOST, HOP_NO_CHUNKING, 8000000),
	FAULT("hop/deaf-body-bdat", HOP_BODY, HOP_DEAF, NULL, LOST, 0, 8000000),
	PROOF("hop/expired", "adatum-expired", "certificate-Expired"),
	PROOF("hop/not-yet-valid", "adatum-future", "certificate-NotYetValid"),
	PROOF("hop/untrusted", "other", "certificate-UntrustedRoot"),
	PROOF("hop/self-signed", "self", "certificate-UntrustedRoot"),
	PROOF("hop/code-signing", "adatum-eku", "certificate-BadUsage"),
	PROOF("hop/weak-key", "adatum-weak", "certificate-WeakKey"),
	PROOF("hop/wrong-name", "adatum", "certificate-SubjectMismatch"),
	PROOF("hop/wrong-name-wanted", "treyresearch", "certificate-SubjectMismatch",
		.tls_domain = "mx.treyresearch.test.example"),
	PROOF("hop/parent-name-wanted", "adatum-name", "certificate-SubjectMismatch",
		.tls_domain = "northwind.test"),
	PROOF("hop/no-starttls", "treyresearch", "starttls-not-offered", HOP_NO_STARTTLS),
	{"hop/plaintext-behind-starttls", run_injected, NULL, 0},
	{"hop/says-421-mail", run_421, &(const struct hop_row){.step = HOP_MAIL}, 0},
	{"hop/says-421-rcpt", run_421, &(const struct hop_row){.step = HOP_RCPT}, 0},
	{"hop/says-421-data", run_421,
		&(const struct hop_row){.step = HOP_DATA, .lacks = HOP_NO_CHUNKING}, 0},
	{"hop/says-421-bdat", run_421, &(const struct hop_row){.step = HOP_DATA}, 0},
	{"hop/says-421-end-data", run_421,
		&(const struct hop_row){.step = HOP_END, .lacks = HOP_NO_CHUNKING}, 0},
	{"hop/says-421-end-bdat", run_421, &(const struct hop_row){.step = HOP_END}, 0},
	{"hop/partial-bdat", run_partial, &(const struct hop_row){0}, 0},
	{"hop/partial-data", run_partial, &(const struct hop_row){.lacks = HOP_NO_CHUNKING}, 0},
	{"hop/slow-data-bdat", run_slow, &(const struct hop_row){.body_bytes = 8000000}, 0},
	{"hop/slow-data-data", run_slow,
		&(const struct hop_row){.body_bytes = 8000000, .lacks = HOP_NO_CHUNKING}, 0},
	{"hop/slow-bdat-bdat", run_slow,
		&(const struct hop_row){.body_bytes = 8000000, .act = HOP_STALL}, 0},
	{"hop/slow-bdat-data", run_slow,
		&(const struct hop_row){
			.body_bytes = 8000000, .lacks = HOP_NO_CHUNKING, .act = HOP_STALL},
		0},
};
const struct case_table case_hop = {rows, COUNT_OF(rows)};
