/* SPDX-License-Identifier: Apache-2.0 */

/*
 * case_body.c: bodies of every awkward size, from DATA or BDAT to DATA or BDAT,
 * compared byte for byte.
 */

#include "tests/e2e/case.h"
#include <string.h>

/* The largest body: its size is the suite's. */
#define BIG SIZE_MAX

struct body_row {
	bool in_bdat, out_bdat;
	size_t bytes;
	size_t chunk_bytes;  /* 0: one chunk */
	size_t record_bytes; /* 0: full records */
	const char *text;    /* instead of a body that is made */
	bool is_binary;
	bool ends_with_empty_chunk;
	int version_max; /* 0: TLS 1.3 */
};

static void run_body(const struct test_case *test)
{
	const struct body_row *row = test->data;
	struct hop_plan plan = {.tls = {.tickets = 1, .version_max = row->version_max},
		.lacks = row->out_bdat ? 0 : HOP_NO_CHUNKING};
	struct relay_options options = {.receive = "\tmax-message-size = \"2GB\"\n"};
	const struct tls_side side = {.version_max = row->version_max};
	struct text body = {0};
	struct mail mail = {.body = &body,
		.by_bdat = row->in_bdat,
		.chunk_bytes = row->chunk_bytes,
		.record_bytes = row->record_bytes,
		.ends_with_empty_chunk = row->ends_with_empty_chunk,
		.params = row->is_binary ? " BODY=BINARYMIME" : " BODY=8BITMIME"};
	bool is_line_ended;
	struct client client;
	struct hop *hop = case_start(&plan, &options);

	if (row->text != NULL)
		text_add(&body, row->text, strlen(row->text));
	else if (row->is_binary)
		body_make_binary(&body, row->bytes);
	else
		body_make(&body, row->bytes == BIG ? suite.big_bytes : row->bytes);
	/* DATA cannot carry a last line without its end: one byte becomes a line of one byte. */
	if (!row->in_bdat && body.len > 0 &&
		(body.len < 2 || memcmp(body.data + body.len - 2, "\r\n", 2) != 0))
		text_add(&body, "\r\n", 2);
	is_line_ended = !row->out_bdat && body.len > 0 &&
			(body.len < 2 || memcmp(body.data + body.len - 2, "\r\n", 2) != 0);
	client_open_secured(&client, &side);
	case_check(client_send(&client, &mail) == 250, "the message got \"%s\"", client.last);
	hop_check_body(hop, 0, &body, is_line_ended);
	case_check(hop->messages[0].by_bdat == row->out_bdat, "the next hop got it with %s",
		hop->messages[0].by_bdat ? "BDAT" : "DATA");
	client_quit(&client);
	relay_stop();
}

/* BINARYMIME is neither announced nor taken when the next hop lacks it. */
static void run_no_binary(const struct test_case *test)
{
	const struct hop_plan plan = {
		.tls.tickets = 1, .lacks = HOP_NO_BINARYMIME | HOP_NO_8BITMIME};
	struct client client;
	struct hop *hop = case_start(&plan, NULL);

	(void)test;
	client_open_secured(&client, NULL);
	case_check(strstr(client.reply.data, "BINARYMIME") == NULL, "BINARYMIME is announced");
	case_check(strstr(client.reply.data, "8BITMIME") == NULL, "8BITMIME is announced");
	case_check(strstr(client.reply.data, "CHUNKING") != NULL, "CHUNKING is not announced");
	client_ask(&client, "MAIL FROM:<ann@treyresearch.test> BODY=BINARYMIME", "555 5.5.4");
	client_ask(&client, "MAIL FROM:<ann@treyresearch.test> BODY=8BITMIME", "555 5.5.4");
	case_check(hop_count(hop, &hop->mails) == 0, "the next hop was asked");
	client_quit(&client);
	case_finish(hop);
}

/* Everything in one segment, as PIPELINING allows. */
static void run_pipelined(const struct test_case *test)
{
	struct text body = {0};
	struct text all = {0};
	struct client client;
	struct hop *hop = case_start(NULL, NULL);

	(void)test;
	body_make(&body, 5000);
	client_open_secured(&client, NULL);
	for (unsigned i = 0; i < 3; i++) {
		text_print(&all, "MAIL FROM:<ann@treyresearch.test> BODY=8BITMIME\r\n");
		text_print(&all, "RCPT TO:<bob@adatum.test>\r\nRCPT TO:<refused@adatum.test>\r\n");
		text_print(&all, "BDAT 1000\r\n");
		text_add(&all, body.data, 1000);
		text_print(&all, "BDAT 4000 LAST\r\n");
		text_add(&all, body.data + 1000, 4000);
	}
	text_print(&all, "NOOP\r\n");
	case_check(wire_write(&client.wire, all.data, all.len), "the relay does not read");
	for (unsigned i = 0; i < 3; i++) {
		client_expect(&client, "250 2.1.0 hop likes the sender");
		client_expect(&client, "250 2.1.5 hop likes the recipient");
		client_expect(&client, "550 5.1.1 hop knows no such user");
		client_expect(&client, "250 2.6.0");
		client_expect(&client, "250 2.0.0 <queued> as HOP-");
		hop_check_body(hop, i, &body, false);
	}
	client_expect(&client, "250 2.0.0 OK");
	client_quit(&client);
	relay_stop();
}

#define BODY(label, ...)                                                             \
	{                                                                            \
		label, run_body, &(const struct body_row){.in_bdat = __VA_ARGS__}, 0 \
	}
#define HUGE(label, ...)                                                              \
	{                                                                             \
		label, run_body, &(const struct body_row){.in_bdat = __VA_ARGS__}, 10 \
	}
#define SIZES(path, in, out)                                                                     \
	BODY("body/" path "-0", in, out, 0), BODY("body/" path "-1", in, out, 1),                \
		BODY("body/" path "-16383", in, out, 16383),                                     \
		BODY("body/" path "-16384", in, out, 16384),                                     \
		BODY("body/" path "-16385", in, out, 16385),                                     \
		BODY("body/" path "-1MiB", in, out, 1 << 20),                                    \
		BODY("body/" path "-1MiB-odd-records", in, out, 1 << 20, .chunk_bytes = 70001,   \
			.record_bytes = 1777),                                                   \
		BODY("body/" path "-1MiB-1.2", in, out, 1 << 20, .version_max = TLS1_2_VERSION), \
		BODY("body/" path "-dots", in, out,                                              \
			.text = ".\r\n..\r\n...\r\n.\r\n\r\n.x\r\n\r\n..\r\n."                   \
				"\r\n"),                                                         \
		HUGE("body/" path "-big", in, out, BIG, .chunk_bytes = 3000000)

static const struct test_case rows[] = {
	SIZES("data-bdat", false, true),
	SIZES("data-data", false, false),
	SIZES("bdat-bdat", true, true),
	SIZES("bdat-data", true, false),
	BODY("body/bdat-bdat-no-line-end", true, true, .text = "Subject: x\r\n\r\nhalf a line"),
	BODY("body/bdat-data-no-line-end", true, false, .text = "Subject: x\r\n\r\nhalf a line"),
	BODY("body/bdat-data-dot-at-end", true, false, .text = "Subject: x\r\n\r\n."),
	BODY("body/bdat-bdat-empty-last", true, true, 30000, .chunk_bytes = 10000,
		.ends_with_empty_chunk = true),
	BODY("body/bdat-data-empty-last", true, false, 30000, .chunk_bytes = 10000,
		.ends_with_empty_chunk = true),
	BODY("body/bdat-bdat-tiny-chunks", true, true, 2000, .chunk_bytes = 7),
	BODY("body/bdat-data-tiny-chunks", true, false, 2000, .chunk_bytes = 7),
	BODY("body/binary", true, true, 300000, .is_binary = true),
	BODY("body/binary-chunks", true, true, 300000, .is_binary = true, .chunk_bytes = 33333),
	{"body/binary-not-offered", run_no_binary, NULL, 0},
	{"body/pipelined", run_pipelined, NULL, 0},
};
const struct case_table case_body = {rows, COUNT_OF(rows)};
