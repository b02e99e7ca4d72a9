/* SPDX-License-Identifier: Apache-2.0 */

/*
 * case_chunk.c: BDAT that is not as it should be. A chunk that is refused is
 * consumed all the same, so that no byte of it is taken for a command.
 */

#include "tests/e2e/case.h"
#include <stdio.h>
#include <string.h>

#define MAIL "MAIL FROM:<ann@treyresearch.test>\r\n"
#define RCPT "RCPT TO:<bob@adatum.test>\r\n"
#define BOTH MAIL RCPT
#define FROM_TO "250 2.1.0|250 2.1.5|"

/* What is said in one piece, and all the replies, "|" between them. */
struct chunk_row {
	const char *say;
	const char *replies;
	unsigned messages; /* the next hop has whole, and accepted */
	unsigned lacks;
	enum hop_step step; /* the next hop misbehaves */
	const char *answer;
	bool ends; /* the session ends behind the last reply */
};

static void chunk_replies(struct client *client, const char *replies)
{
	char copy[512];
	char *rest = copy;
	const char *reply;

	case_check(strlen(replies) < sizeof(copy), "replies too long for the driver");
	(void)snprintf(copy, sizeof(copy), "%s", replies);
	while ((reply = strsep(&rest, "|")) != NULL)
		client_expect(client, reply);
}

static void run_chunk(const struct test_case *test)
{
	const struct chunk_row *row = test->data;
	const struct hop_plan plan = {.tls.tickets = 1,
		.lacks = row->lacks,
		.step = row->step,
		.act = HOP_ANSWER,
		.answer = row->answer};
	struct client client;
	struct hop *hop = case_start(&plan, NULL);

	client_open_secured(&client, NULL);
	case_check(wire_write(&client.wire, row->say, strlen(row->say)), "the relay does not read");
	chunk_replies(&client, row->replies);
	if (row->ends) {
		(void)client_expect_end(&client);
		client_close(&client);
	} else {
		client_ask(&client, "VRFY root", "252 ");
		client_quit(&client);
	}
	case_check(hop_count(hop, &hop->accepted) == row->messages,
		"%u messages at the next hop, expected %u", hop_count(hop, &hop->accepted),
		row->messages);
	hop_heal(hop);
	case_finish(hop);
}

/* A large chunk that is refused, or comes without MAIL, is drained: the command behind it counts.
 */
static void run_drained(const struct test_case *test)
{
	const struct chunk_row *row = test->data;
	const struct hop_plan plan = {.tls.tickets = 1,
		.lacks = row->lacks,
		.step = row->step,
		.act = HOP_ANSWER,
		.answer = row->answer};
	struct text all = {0};
	struct client client;
	struct hop *hop = case_start(&plan, NULL);

	client_open_secured(&client, NULL);
	text_print(&all, "%sBDAT 3000014 LAST\r\nSubject: x\r\n\r\n", row->say);
	for (unsigned i = 0; i < 500000; i++)
		text_add(&all, "QUIT\r\n", 6);
	text_print(&all, "VRFY root\r\n");
	case_check(wire_write(&client.wire, all.data, all.len), "the relay does not read");
	chunk_replies(&client, row->replies);
	client_expect(&client, "252 ");
	client_quit(&client);
	case_check(hop_count(hop, &hop->accepted) == 0, "the next hop accepted a message");
	hop_heal(hop);
	case_finish(hop);
}

#define CHUNK(label, ...)                                                          \
	{                                                                          \
		label, run_chunk, &(const struct chunk_row){.say = __VA_ARGS__}, 0 \
	}
#define DRAIN(label, ...)                                                            \
	{                                                                            \
		label, run_drained, &(const struct chunk_row){.say = __VA_ARGS__}, 0 \
	}
#define TEN "NOOP\r\nNOOP"

static const struct test_case rows[] = {
	CHUNK("chunk/zero-last", BOTH "BDAT 0 LAST\r\n", FROM_TO "250 2.0.0 <queued>", 1),
	CHUNK("chunk/zero-zero-last", BOTH "BDAT 0\r\nBDAT 0 LAST\r\n",
		FROM_TO "250 2.6.0|250 2.0.0 <queued>", 1),
	CHUNK("chunk/zero-between", BOTH "BDAT 3\r\na\r\nBDAT 0\r\nBDAT 3 LAST\r\nb\r\n",
		FROM_TO "250 2.6.0|250 2.6.0|250 2.0.0 <queued>", 1),
	CHUNK("chunk/zero-to-data", BOTH "BDAT 0\r\nBDAT 0 LAST\r\n",
		FROM_TO "250 2.6.0|250 2.0.0 <queued>", 1, HOP_NO_CHUNKING),
	CHUNK("chunk/lower-case",
		"mail from:<ann@treyresearch.test>\r\nrcpt to:<bob@adatum.test>\r\n"
		"bdat 3 last\r\na\r\n",
		FROM_TO "250 2.0.0 <queued>", 1),
	CHUNK("chunk/without-mail", "BDAT 10\r\n" TEN, "503 5.5.2"),
	CHUNK("chunk/without-mail-last", "BDAT 10 LAST\r\n" TEN, "503 5.5.2"),
	CHUNK("chunk/without-mail-zero", "BDAT 0\r\nBDAT 0 LAST\r\n", "503 5.5.2|503 5.5.2"),
	CHUNK("chunk/without-rcpt", MAIL "BDAT 10\r\n" TEN RCPT "RSET\r\n",
		"250 2.1.0|503 5.5.2|250 2.1.5|250 2.0.0"),
	CHUNK("chunk/refused-rcpt", MAIL "RCPT TO:<refused@adatum.test>\r\nBDAT 10 LAST\r\n" TEN,
		"250 2.1.0|550 5.1.1|554 5.5.1"),
	CHUNK("chunk/rset-between", BOTH "BDAT 10\r\n" TEN "RSET\r\n" BOTH "BDAT 3 LAST\r\na\r\n",
		FROM_TO "250 2.6.0|250 2.0.0|" FROM_TO "250 2.0.0 <queued>", 1),
	CHUNK("chunk/rset-between-to-data",
		BOTH "BDAT 10\r\n" TEN "RSET\r\n" BOTH "BDAT 3 LAST\r\na\r\n",
		FROM_TO "250 2.6.0|250 2.0.0|" FROM_TO "250 2.0.0 <queued>", 1, HOP_NO_CHUNKING),
	CHUNK("chunk/rset-then-chunk", BOTH "BDAT 10\r\n" TEN "RSET\r\nBDAT 10 LAST\r\n" TEN,
		FROM_TO "250 2.6.0|250 2.0.0|503 5.5.2"),
	CHUNK("chunk/ehlo-between",
		BOTH "BDAT 10\r\n" TEN "EHLO again.example\r\n" BOTH "BDAT 3 LAST\r\na\r\n",
		FROM_TO "250 2.6.0|250 HELP|" FROM_TO "250 2.0.0 <queued>", 1),
	CHUNK("chunk/data-after", BOTH "BDAT 3\r\na\r\nDATA\r\nBDAT 3 LAST\r\nb\r\n",
		FROM_TO "250 2.6.0|503 5.5.1|250 2.0.0 <queued>", 1),
	CHUNK("chunk/mail-after", BOTH "BDAT 3\r\na\r\n" MAIL "BDAT 3 LAST\r\nb\r\n",
		FROM_TO "250 2.6.0|503 5.5.2|250 2.0.0 <queued>", 1),
	CHUNK("chunk/rcpt-after", BOTH "BDAT 3\r\na\r\n" RCPT "BDAT 3 LAST\r\nb\r\n",
		FROM_TO "250 2.6.0|503 5.5.2|250 2.0.0 <queued>", 1),
	CHUNK("chunk/quit-between", BOTH "BDAT 3\r\na\r\nQUIT\r\n", FROM_TO "250 2.6.0|221 ",
		.ends = true),
	CHUNK("chunk/2^63", BOTH "BDAT 9223372036854775808\r\n" TEN, FROM_TO "5", .ends = true),
	CHUNK("chunk/2^63-1", BOTH "BDAT 9223372036854775807 LAST\r\n" TEN, FROM_TO "5",
		.ends = true),
	CHUNK("chunk/2^64", BOTH "BDAT 18446744073709551616 LAST\r\n" TEN, FROM_TO "5",
		.ends = true),
	CHUNK("chunk/2^64+10", BOTH "BDAT 18446744073709551626 LAST\r\n" TEN, FROM_TO "5",
		.ends = true),
	CHUNK("chunk/negative", BOTH "BDAT -1\r\n" TEN, FROM_TO "501 5.5.4", .ends = true),
	CHUNK("chunk/plus", BOTH "BDAT +10 LAST\r\n" TEN, FROM_TO "501 5.5.4", .ends = true),
	CHUNK("chunk/hex", BOTH "BDAT 0x0a LAST\r\n" TEN, FROM_TO "501 5.5.4", .ends = true),
	CHUNK("chunk/no-number", BOTH "BDAT\r\n", FROM_TO "501 5.5.4", .ends = true),
	CHUNK("chunk/other-word", BOTH "BDAT 10 FIRST\r\n" TEN, FROM_TO "501 5.5.4", .ends = true),
	CHUNK("chunk/refused-by-hop", BOTH "BDAT 10\r\n" TEN "BDAT 10 LAST\r\n" TEN,
		FROM_TO "554 5.6.0 hop says no|554 5.6.0 hop says no", 0, HOP_NO_CHUNKING, HOP_DATA,
		"554 5.6.0 hop says no"),
	DRAIN("chunk/drained-without-mail", "", "503 5.5.2"),
	DRAIN("chunk/drained-refused-to-bdat", BOTH, FROM_TO "552 5.2.2 hop is full", 0, 0,
		HOP_DATA, "552 5.2.2 hop is full"),
	DRAIN("chunk/drained-refused-to-data", BOTH, FROM_TO "452 4.2.2 hop is full", 0,
		HOP_NO_CHUNKING, HOP_DATA, "452 4.2.2 hop is full"),
};
const struct case_table case_chunk = {rows, COUNT_OF(rows)};
