/* SPDX-License-Identifier: Apache-2.0 */

/*
 * case_end.c: ends in the wrong moment, alerts, and records that are none. Whatever
 * comes, no message is taken for whole, and the relay goes on serving.
 */

#include "tests/e2e/case.h"
#include <string.h>

/*
 * Behind whatever is no record: the kernel looks at a TLS 1.2 header only when the 8
 * bytes of nonce behind it have come too, and waits for them until then.
 */
#define FILLER "0123456789abcdef"

enum end_kind {
	END_GOODBYE, /* close_notify, the socket stays open */
	END_CLOSE,   /* close_notify and FIN */
	END_FIN,     /* FIN only */
	END_RESET,   /* RST */
	END_CLEAR,   /* close_notify, then the end of the body and commands in clear */
	END_BAD_MAC, /* a record that does not decrypt */
	END_FORGED,  /* a close_notify in clear: anybody could have written it */
	END_ALERT,   /* a fatal alert */
};

struct end_row {
	enum end_kind kind;
	bool by_bdat;
	int version_max;
	unsigned lacks; /* of the next hop */
};

static void end_now(struct client *client, enum end_kind kind)
{
	static const char clear[] = "\r\n.\r\nNOOP\r\nQUIT\r\n";
	static const char forged[] = "\x15\x03\x03\x00\x02\x01\x00" FILLER;
	char record[69] = "\x17\x03\x03\x00\x40";

	switch (kind) {
	case END_GOODBYE:
		(void)wire_say_goodbye(&client->wire);
		break;
	case END_CLOSE:
		(void)wire_say_goodbye(&client->wire);
		wire_finish(&client->wire);
		break;
	case END_FIN:
		wire_finish(&client->wire);
		break;
	case END_RESET:
		wire_reset(&client->wire);
		break;
	case END_CLEAR:
		(void)wire_say_goodbye(&client->wire);
		(void)wire_write_raw(&client->wire, clear, strlen(clear));
		break;
	case END_BAD_MAC:
		memset(record + 5, 'x', sizeof(record) - 5);
		(void)wire_write_raw(&client->wire, record, sizeof(record));
		break;
	case END_FORGED:
		(void)wire_write_raw(&client->wire, forged, sizeof(forged) - 1);
		break;
	case END_ALERT:
		/* OpenSSL sends one when what it gets does not decrypt: the reply to NOOP. */
		client->wire.is_corrupting = true;
		client_say(client, "NOOP");
		(void)wire_wait(&client->wire, wire_patience_ms());
		break;
	}
}

static bool end_is_failure(enum end_kind kind)
{
	return kind == END_BAD_MAC || kind == END_FORGED || kind == END_ALERT;
}

static void end_check(struct client *client, enum end_kind kind)
{
	if (kind != END_RESET)
		(void)client_expect_end(client);
	(void)relay_await_log(1, "event=session-end");
	if (end_is_failure(kind))
		case_check(relay_counter("tls_failed") == 1, "tls_failed=%lu, expected 1",
			relay_counter("tls_failed"));
	client_close(client);
}

static void run_end_in_body(const struct test_case *test)
{
	const struct end_row *row = test->data;
	const struct hop_plan plan = {.tls.tickets = 1, .lacks = row->lacks};
	const struct tls_side side = {.version_max = row->version_max};
	struct text body = {0};
	struct client client;
	struct hop *hop = case_start(&plan, NULL);

	body_make(&body, 100000);
	client_open_secured(&client, &side);
	case_begin_body(&client, hop, &body, row->by_bdat);
	end_now(&client, row->kind);
	end_check(&client, row->kind);
	case_check_cut_off(hop);
	case_finish(hop);
}

/* The same between two commands, with a transaction open. */
static void run_end_in_command(const struct test_case *test)
{
	const struct end_row *row = test->data;
	const struct tls_side side = {.version_max = row->version_max};
	const struct mail mail = {0};
	struct client client;
	struct hop *hop = case_start(NULL, NULL);

	client_open_secured(&client, &side);
	client_begin(&client, &mail);
	end_now(&client, row->kind);
	end_check(&client, row->kind);
	case_check(hop_count(hop, &hop->message_count) == 0, "the next hop got a message");
	case_finish(hop);
}

/* The end right behind the last byte but the final dot, and half a CR LF. */
static void run_end_before_dot(const struct test_case *test)
{
	static const char *const tails[] = {"\r\n", "\r\n.", "\r\n.\r", ".", ""};
	const struct hop_plan plan = {.tls.tickets = 1, .lacks = HOP_NO_CHUNKING};
	const struct mail mail = {0};
	struct hop *hop = case_start(&plan, NULL);

	(void)test;
	for (unsigned i = 0; i < COUNT_OF(tails); i++) {
		struct client client;

		client_open_secured(&client, NULL);
		client_begin(&client, &mail);
		client_ask(&client, "DATA", "354 ");
		(void)wire_write(&client.wire, "Subject: x\r\n\r\ntext", 18);
		(void)wire_write(&client.wire, tails[i], strlen(tails[i]));
		(void)wire_say_goodbye(&client.wire);
		(void)client_expect_end(&client);
		client_close(&client);
		hop_await(hop, &hop->cut_off, i + 1, "bodies cut off");
	}
	case_check(hop_count(hop, &hop->message_count) == 0, "the next hop got a whole message");
	case_finish(hop);
}

/* Records that are none, after the handshake. */
static void run_garbage(const struct test_case *test)
{
	static const struct {
		const char *bytes;
		size_t len;
	} garbage[] = {
		{"\x17\x03\x03\x00\x20"
		 "0123456789abcdef0123456789abcdef",
			37},
		{"\x63\x03\x03\x00\x20"
		 "0123456789abcdef0123456789abcdef",
			37},
		{"\x17\x03\x03\xff\xff"
		 "0123456789abcdef0123456789abcdef",
			37},
		{"\x17\x03\x03\x00\x00", 5},
		{"\x17\x03\x03\x00\x01"
		 "x",
			6},
		{"\x16\x03\x03\x00\x04\x00\x00\x00\x00", 9},
		{"\x15\x03\x03\x00\x02\x02\x28", 7},
		{"NOOP\r\nQUIT\r\n", 12},
		{"\0\0\0\0\0\0\0\0\0\0\0\0", 12},
	};
	const int *version = test->data;
	const struct tls_side side = {.version_max = *version};
	struct hop *hop = case_start(NULL, NULL);

	for (unsigned i = 0; i < COUNT_OF(garbage); i++) {
		struct client client;

		client_open_secured(&client, &side);
		(void)wire_write_raw(&client.wire, garbage[i].bytes, garbage[i].len);
		(void)wire_write_raw(&client.wire, FILLER, strlen(FILLER));
		(void)client_expect_end(&client);
		client_close(&client);
		(void)relay_await_log(i + 1, "event=session-end");
	}
	case_check(relay_counter("tls_failed") == COUNT_OF(garbage), "tls_failed=%lu of %zu",
		relay_counter("tls_failed"), COUNT_OF(garbage));
	case_finish(hop);
}

/* A client that wants to negotiate anew (TLS 1.2) is refused; what it began is not lost silently.
 */
static void run_renegotiate(const struct test_case *test)
{
	const struct tls_side side = {.version_max = TLS1_2_VERSION};
	struct client client;
	struct hop *hop = case_start(NULL, NULL);

	(void)test;
	client_open_secured(&client, &side);
	case_check(SSL_renegotiate(client.wire.ssl) == 1, "OpenSSL does not renegotiate");
	(void)SSL_do_handshake(client.wire.ssl);
	(void)wire_flush(&client.wire);
	for (unsigned i = 0; i < 50 && client.wire.alert == 0 && client.wire.end == WIRE_OPEN; i++)
		(void)wire_wait(&client.wire, 100);
	case_check(client.wire.handshakes == 1, "the relay negotiated anew");
	case_check(client.wire.alert != 0, "no alert (%s)", wire_end_word(client.wire.end));
	case_check((client.wire.alert & 255) == SSL_AD_NO_RENEGOTIATION ||
			   (client.wire.alert & 255) == SSL_AD_UNEXPECTED_MESSAGE,
		"alert %d", client.wire.alert & 255);
	client_close(&client);
	case_finish(hop);
}

/* FIN behind QUIT, and behind a whole message: the replies still come. */
static void run_half_closed(const struct test_case *test)
{
	struct text body = {0};
	struct text all = {0};
	struct client client;
	struct hop *hop = case_start(NULL, NULL);

	(void)test;
	client_open_secured(&client, NULL);
	client_say(&client, "QUIT");
	wire_finish(&client.wire);
	client_expect(&client, "221 ");
	case_check(client_expect_end(&client) == WIRE_GOODBYE, "no close_notify");
	client_close(&client);

	client_open_secured(&client, NULL);
	body_make(&body, 5000);
	text_print(&all, "MAIL FROM:<ann@treyresearch.test>\r\nRCPT TO:<bob@adatum.test>\r\n");
	text_print(&all, "BDAT %zu LAST\r\n", body.len);
	text_add(&all, body.data, body.len);
	text_print(&all, "QUIT\r\n");
	case_check(wire_write(&client.wire, all.data, all.len), "the relay does not read");
	wire_finish(&client.wire);
	client_expect(&client, "250 2.1.0");
	client_expect(&client, "250 2.1.5");
	client_expect(&client, "250 2.0.0 <queued>");
	client_expect(&client, "221 ");
	(void)client_expect_end(&client);
	hop_check_body(hop, 0, &body, false);
	client_close(&client);
	case_finish(hop);
}

/*
 * close_notify right behind a whole message. The relay may answer or just end, but
 * it may not say 250 for a message that the next hop does not have.
 */
static void run_goodbye_behind_message(const struct test_case *test)
{
	struct text body = {0};
	struct text all = {0};
	struct client client;
	struct hop *hop = case_start(NULL, NULL);

	(void)test;
	client_open_secured(&client, NULL);
	body_make(&body, 5000);
	text_print(&all, "MAIL FROM:<ann@treyresearch.test>\r\nRCPT TO:<bob@adatum.test>\r\n");
	text_print(&all, "BDAT %zu LAST\r\n", body.len);
	text_add(&all, body.data, body.len);
	case_check(wire_write(&client.wire, all.data, all.len), "the relay does not read");
	(void)wire_say_goodbye(&client.wire);
	while (client_hear(&client)) {
		if (strstr(client.last, "queued") != NULL)
			hop_check_body(hop, 0, &body, false);
	}
	case_check(client.wire.end != WIRE_OPEN, "the session does not end");
	client_close(&client);
	case_finish(hop);
}

#define BODY(label, ...)                                                                \
	{                                                                               \
		label, run_end_in_body, &(const struct end_row){.kind = __VA_ARGS__}, 0 \
	}
#define COMMAND(label, ...)                                                                \
	{                                                                                  \
		label, run_end_in_command, &(const struct end_row){.kind = __VA_ARGS__}, 0 \
	}
#define KINDS(path, ...)                                                       \
	BODY("end/" path "-goodbye", END_GOODBYE, __VA_ARGS__),                \
		BODY("end/" path "-goodbye-and-fin", END_CLOSE, __VA_ARGS__),  \
		BODY("end/" path "-fin", END_FIN, __VA_ARGS__),                \
		BODY("end/" path "-reset", END_RESET, __VA_ARGS__),            \
		BODY("end/" path "-clear-text-after", END_CLEAR, __VA_ARGS__), \
		BODY("end/" path "-bad-mac", END_BAD_MAC, __VA_ARGS__),        \
		BODY("end/" path "-forged-goodbye", END_FORGED, __VA_ARGS__)

static const struct test_case rows[] = {
	KINDS("data-1.3", false, 0, HOP_NO_CHUNKING),
	KINDS("bdat-1.3", true, 0, 0),
	KINDS("data-1.2", false, TLS1_2_VERSION, 0),
	KINDS("bdat-1.2", true, TLS1_2_VERSION, HOP_NO_CHUNKING),
	COMMAND("end/command-goodbye", END_GOODBYE),
	COMMAND("end/command-goodbye-and-fin", END_CLOSE),
	COMMAND("end/command-fin", END_FIN),
	COMMAND("end/command-reset", END_RESET),
	COMMAND("end/command-clear-text-after", END_CLEAR),
	COMMAND("end/command-bad-mac", END_BAD_MAC),
	COMMAND("end/command-alert-1.3", END_ALERT),
	COMMAND("end/command-alert-1.2", END_ALERT, .version_max = TLS1_2_VERSION),
	{"end/before-the-dot", run_end_before_dot, NULL, 0},
	{"end/garbage-1.3", run_garbage, &(const int){TLS1_3_VERSION}, 0},
	{"end/garbage-1.2", run_garbage, &(const int){TLS1_2_VERSION}, 0},
	{"end/renegotiation", run_renegotiate, NULL, 0},
	{"end/half-closed", run_half_closed, NULL, 0},
	{"end/goodbye-behind-message", run_goodbye_behind_message, NULL, 0},
};
const struct case_table case_end = {rows, COUNT_OF(rows)};
