/* SPDX-License-Identifier: Apache-2.0 */

/*
 * case_bad.c: commands and bodies that are not as they should be. Each gets its
 * reply, exactly one, and what follows is understood again.
 */

#include "tests/e2e/case.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATIENT "\tmax-protocol-errors = unlimited\n"
#define MAIL "MAIL FROM:<ann@treyresearch.test>"
#define RCPT "RCPT TO:<bob@adatum.test>"

/* A mistake with its CR LF, and the replies to it, "|" between them. */
struct mistake {
	const char *bytes;
	size_t len; /* 0: up to the NUL */
	const char *replies;
};

static void mistake_make(struct client *client, const struct mistake *mistake)
{
	char replies[512];
	char *rest = replies;
	const char *reply;

	case_check(strlen(mistake->replies) < sizeof(replies), "replies too long for the driver");
	(void)snprintf(replies, sizeof(replies), "%s", mistake->replies);
	case_check(wire_write(&client->wire, mistake->bytes,
			   mistake->len == 0 ? strlen(mistake->bytes) : mistake->len),
		"the relay does not read");
	while ((reply = strsep(&rest, "|")) != NULL)
		client_expect(client, reply);
	/* Were there a reply too many, it would come in place of this one. */
	client_ask(client, "VRFY root", "252 ");
}

static void run_mistakes(const struct test_case *test)
{
	const struct mistake *mistakes = test->data;
	const struct relay_options options = {.receive = PATIENT};
	struct client client;
	struct hop *hop = case_start(NULL, &options);

	client_open_secured(&client, NULL);
	for (unsigned i = 0; mistakes[i].replies != NULL; i++)
		mistake_make(&client, &mistakes[i]);
	client_quit(&client);
	case_check(hop_count(hop, &hop->message_count) == 0, "the next hop got a message");
	case_finish(hop);
}

static const struct mistake lines[] = {
	{"NOOP\nNOOP\r\n", 0, "500 5.5.2"},
	{"NOOP\n\r\n", 0, "500 5.5.2"},
	{"NOOP\r\rNOOP\r\n", 0, "500 5.5.2"},
	{"NO\rOP\r\n", 0, "500 5.5.2"},
	{"NO\0OP\r\n", 7, "500 5.5.2"},
	{"\0\r\n", 3, "500 5.5.2"},
	{MAIL "\n" RCPT "\r\n", 0, "500 5.5.2"},
	{"\r\n", 0, "500 5."},
	{"XYZZY\r\n", 0, "500 5.3.3"},
	{" NOOP\r\n", 0, "500 5."},
	{"\xff\xfe\x80\r\n", 0, "500 5."},
	{"AUTH PLAIN AGEAYg==\r\n", 0, "502 "},
	{"EXPN root\r\n", 0, "502 "},
	{"DATA\r\n", 0, "503 "},
	{RCPT "\r\n", 0, "503 "},
	{"MAIL\r\n", 0, "501 "},
	{"MAIL FROM:ann@treyresearch.test\r\n", 0, "501 5.1.7"},
	{"MAIL FROM:<ann@>\r\n", 0, "501 5.1.7"},
	{"MAIL FROM:<ann@treyresearch.test> FOO=BAR\r\n", 0, "555 5.5.4"},
	{"MAIL FROM:<ann@treyresearch.test> SIZE=1 SIZE=2\r\n", 0, "501 5.5.4"},
	{MAIL " SIZE=1073741824\r\n", 0, "552 5.3.4"},
	{MAIL " SIZE=18446744073709551615\r\n", 0, "552 5.3.4"},
	{MAIL " SIZE=18446744073709551617\r\n", 0, "552 5.3.4"},
	{MAIL " SIZE=-1\r\n", 0, "501 5.5.4"},
	{MAIL " SIZE=\r\n", 0, "501 5.5.4"},
	{MAIL "\r\n" MAIL "\r\nRSET\r\n", 0, "250 2.1.0|503 5.5.2|250 2.0.0"},
	{MAIL "\r\nDATA\r\nRSET\r\n", 0, "250 2.1.0|503 5.5.2|250 2.0.0"},
	{MAIL "\r\nSTARTTLS\r\nRSET\r\n", 0, "250 2.1.0|503 5.5.1|250 2.0.0"},
	{MAIL "\r\nRCPT TO:<>\r\nRCPT TO:bob\r\nRSET\r\n", 0,
		"250 2.1.0|501 5.1.3|501 5.1.3|250 2.0.0"},
	{MAIL "\r\nRCPT TO:<refused@adatum.test>\r\nDATA\r\nRSET\r\n", 0,
		"250 2.1.0|550 5.1.1|554 5.5.1|250 2.0.0"},
	{NULL, 0, NULL},
};

static void run_endless_line(const struct test_case *test)
{
	struct text line = {0};
	struct client client;
	struct hop *hop = case_start(NULL, NULL);

	(void)test;
	for (unsigned i = 0; i < 500000; i++)
		text_print(&line, "NOOP NOOP NOOP ");
	client_open_secured(&client, NULL);
	case_check(wire_write(&client.wire, line.data, line.len), "the relay does not read");
	client_expect(&client, "500 5.5.2");
	client_expect_silence(&client);
	client_ask(&client, "\r\nNOOP", "250 2.0.0");
	case_check(wire_write(&client.wire, line.data, 3000), "the relay does not read");
	client_ask(&client, "\r\nNOOP", "500 5.5.2");
	client_expect(&client, "250 2.0.0");
	text_free(&line);
	client_quit(&client);
	case_finish(hop);
}

static void run_many_recipients(const struct test_case *test)
{
	const char *limit = getenv("POSTERN_TEST_RCPTS");
	unsigned count = limit == NULL ? 100000 : (unsigned)strtoul(limit, NULL, 10);
	struct text all = {0};
	struct text body = {0};
	const struct mail mail = {.body = &body};
	struct client client;
	unsigned taken = 0;
	struct hop *hop = case_start(NULL, NULL);

	(void)test;
	body_make(&body, 2000);
	client_open_secured(&client, NULL);
	text_print(&all, MAIL "\r\n");
	for (unsigned i = 0; i < count; i++)
		text_print(&all, "RCPT TO:<bob%u@adatum.test>\r\n", i);
	case_check(wire_write(&client.wire, all.data, all.len), "the relay does not read");
	client_expect(&client, "250 2.1.0");
	for (unsigned i = 0; i < count; i++) {
		client_expect(&client, i < 200 ? "250 2.1.5" : "452 4.5.3");
		taken += client.code == 250 ? 1 : 0;
	}
	client_give_body(&client, &mail);
	client_expect(&client, "250 2.0.0 <queued>");
	hop_check_body(hop, 0, &body, false);
	case_check(hop->messages[0].recipient_count == taken, "%u recipients at the next hop",
		hop->messages[0].recipient_count);
	client_quit(&client);
	case_finish(hop);
}

static void run_five_errors(const struct test_case *test)
{
	struct client client;
	struct hop *hop = case_start(NULL, NULL);

	(void)test;
	client_open_secured(&client, NULL);
	for (unsigned i = 0; i < 5; i++)
		client_ask(&client, "XYZZY", "500 5.3.3");
	client_expect(&client, "421 4.7.0");
	(void)client_expect_end(&client);
	client_close(&client);
	/* Pipelined, the sixth and later are not answered. */
	client_open_secured(&client, NULL);
	client_say(&client, "X\r\nX\r\nX\r\nX\r\nX\r\nX\r\nNOOP\r\n" MAIL);
	for (unsigned i = 0; i < 5; i++)
		client_expect(&client, "500 5.3.3");
	client_expect(&client, "421 4.7.0");
	(void)client_expect_end(&client);
	client_close(&client);
	case_check(hop_count(hop, &hop->mails) == 0, "the next hop was asked");
	case_finish(hop);
}

static void run_silent(const struct test_case *test)
{
	const struct relay_options options = {
		.receive = "\tconnection-inactivity-timeout = \"1s\"\n"};
	struct client client;
	struct client body;
	const struct mail mail = {0};
	struct hop *hop;

	(void)test;
	hop = case_start(NULL, &options);
	client_open_secured(&client, NULL);
	client_open_secured(&body, NULL);
	client_begin(&body, &mail);
	client_ask(&body, "DATA", "354 ");
	(void)wire_write(&body.wire, "Subject: x\r\n", 12);
	client_expect(&client, "451 4.7.0");
	(void)client_expect_end(&client);
	client_expect(&body, "451 4.7.0");
	(void)client_expect_end(&body);
	client_close(&client);
	client_close(&body);
	case_check(hop_count(hop, &hop->message_count) == 0, "the next hop got a message");
	case_finish(hop);
}

/* Bodies. */

struct flaw_row {
	unsigned lacks;
	bool is_allowed;
	bool by_bdat;
};

/* What somewhere ends a message, and here may not. */
static const struct {
	const char *bytes;
	size_t len;
} smuggles[] = {
	{"\n.\r\n", 4},
	{"\r.\r\n", 4},
	{"\n.\n", 3},
	{"\r\n.\n", 4},
	{"\r\n.\r", 4},
	{"\r.\r", 3},
	{"\n\n.\r\n", 5},
	{"\r\r\n.\r", 5},
	{"\r\n\0.\r\n", 6},
	{"\r\n.\0\r\n", 6},
	{"\n", 1},
	{"\r", 1},
	{"\0", 1},
	{"\r\n.\r\r\n", 6},
	{"\n\r.\n\r", 5},
};

static void flaw_make(unsigned index, struct text *out)
{
	text_clear(out);
	text_print(out, "Subject: flaw %u\r\n\r\nfirst", index);
	text_add(out, smuggles[index].bytes, smuggles[index].len);
	text_print(out, "MAIL FROM:<evil@treyresearch.test>\r\nRCPT TO:<evil@adatum.test>\r\n"
			"DATA\r\nsmuggled\r\n");
}

static void run_smuggling(const struct test_case *test)
{
	const struct flaw_row *row = test->data;
	const struct hop_plan plan = {.tls.tickets = 1, .lacks = row->lacks};
	const struct relay_options options = {
		.receive = row->is_allowed ? "\tbare-newline = allow\n\tnul = allow\n" : NULL};
	struct text body = {0};
	struct mail mail = {.body = &body, .by_bdat = row->by_bdat};
	struct client client;
	struct hop *hop = case_start(&plan, &options);

	client_open_secured(&client, NULL);
	for (unsigned i = 0; i < COUNT_OF(smuggles); i++) {
		flaw_make(i, &body);
		(void)client_send(&client, &mail);
		if (row->is_allowed) {
			case_check(client.code == 250, "flaw %u got \"%s\"", i, client.last);
			hop_check_body(hop, i, &body, false);
		} else {
			bool is_nul = memchr(smuggles[i].bytes, 0, smuggles[i].len) != NULL;
			const char *want = is_nul ? "550 5.6.0" : "550 5.6.11";

			case_check(strncmp(client.last, want, strlen(want)) == 0,
				"flaw %u got \"%s\", expected \"%s\"", i, client.last, want);
			case_check(hop_count(hop, &hop->message_count) == 0,
				"flaw %u reached the next hop", i);
		}
		client_ask(&client, "VRFY root", "252 ");
	}
	for (unsigned i = 0; i < hop_count(hop, &hop->message_count); i++)
		case_check(
			strstr(hop->messages[i].sender, "evil") == NULL, "a message was smuggled");
	client_quit(&client);
	case_finish(hop);
}

static void run_too_large(const struct test_case *test)
{
	const struct flaw_row *row = test->data;
	const struct hop_plan plan = {.tls.tickets = 1, .lacks = row->lacks};
	const struct relay_options options = {.receive = "\tmax-message-size = \"64KB\"\n"};
	struct text body = {0};
	struct mail mail = {.body = &body, .by_bdat = row->by_bdat, .chunk_bytes = 20000};
	struct client client;
	struct hop *hop = case_start(&plan, &options);

	client_open_secured(&client, NULL);
	case_check(strstr(client.reply.data, "SIZE 65536\r\n") != NULL, "SIZE is not announced: %s",
		client.reply.data);
	body_make(&body, 65536);
	case_check(client_send(&client, &mail) == 250, "64 KB got \"%s\"", client.last);
	hop_check_body(hop, 0, &body, false);
	body_make(&body, 65537);
	if (!row->by_bdat) {
		case_check(client_send(&client, &mail) == 552, "64 KB + 1 got \"%s\"", client.last);
	} else {
		mail.chunk_bytes = 0;
		case_check(client_send(&client, &mail) == 552, "64 KB + 1 got \"%s\"", client.last);
	}
	case_check(hop_count(hop, &hop->message_count) == 1, "the next hop got it");
	client_ask(&client, "VRFY root", "252 ");
	client_quit(&client);
	case_finish(hop);
}

static void run_headers(const struct test_case *test)
{
	struct text body = {0};
	struct mail mail = {.body = &body};
	struct client client;
	struct hop *hop = case_start(NULL, NULL);

	(void)test;
	client_open_secured(&client, NULL);
	for (unsigned i = 0; i < 31; i++)
		text_print(&body, "Received: from hop%u.example by other.example; today\r\n", i);
	text_print(&body, "\r\ntext\r\n");
	case_check(client_send(&client, &mail) == 554, "31 hops got \"%s\"", client.last);
	text_clear(&body);
	for (unsigned i = 0; i < 5000; i++)
		text_print(&body, "X-Field-%u: 0123456789012345678901234567890123456789\r\n", i);
	text_print(&body, "\r\ntext\r\n");
	case_check(client_send(&client, &mail) == 552, "a header of %zu bytes got \"%s\"", body.len,
		client.last);
	case_check(hop_count(hop, &hop->message_count) == 0, "the next hop got a message");
	client_quit(&client);
	case_finish(hop);
}

#define FLAW(label, function, ...)                                                 \
	{                                                                          \
		label, function, &(const struct flaw_row){.lacks = __VA_ARGS__}, 0 \
	}

static const struct test_case rows[] = {
	{"bad/commands", run_mistakes, lines, 0},
	{"bad/endless-line", run_endless_line, NULL, 0},
	{"bad/many-recipients", run_many_recipients, NULL, 0},
	{"bad/five-errors", run_five_errors, NULL, 0},
	{"bad/silent", run_silent, NULL, 0},
	FLAW("bad/smuggle-data-bdat", run_smuggling, 0),
	FLAW("bad/smuggle-data-data", run_smuggling, HOP_NO_CHUNKING),
	FLAW("bad/smuggle-bdat-data", run_smuggling, HOP_NO_CHUNKING, .by_bdat = true),
	FLAW("bad/smuggle-bdat-bdat", run_smuggling, 0, .by_bdat = true),
	FLAW("bad/smuggle-allowed-data-bdat", run_smuggling, 0, .is_allowed = true),
	FLAW("bad/smuggle-allowed-data-data", run_smuggling, HOP_NO_CHUNKING, .is_allowed = true),
	FLAW("bad/too-large-data", run_too_large, HOP_NO_CHUNKING),
	FLAW("bad/too-large-data-bdat", run_too_large, 0),
	FLAW("bad/too-large-bdat", run_too_large, 0, .by_bdat = true),
	{"bad/headers", run_headers, NULL, 0},
};
const struct case_table case_bad = {rows, COUNT_OF(rows)};
