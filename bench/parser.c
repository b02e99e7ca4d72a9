/* SPDX-License-Identifier: Apache-2.0 */

/*
 * parser.c: what reading a session's bytes costs: command lines, addresses, replies, bodies, the
 * header, and the writing of a line of the log.
 *
 * Every row goes over the same input again and again, so caches are warm and branches are learned:
 * it is the least that a byte or a line costs. All rows take turns within each repetition; a figure
 * is the median over the repetitions, spread is (highest - lowest) / median. Each row checks what
 * came out, so a parser that stops early makes the run void, not quick.
 */

#include "bench/common/options.h"
#include "relay/base/log.h"
#include "relay/smtp/address.h"
#include "relay/smtp/command.h"
#include "relay/smtp/dot.h"
#include "relay/smtp/fields.h"
#include "relay/smtp/firewall.h"
#include "relay/smtp/header.h"
#include "relay/smtp/line.h"
#include "relay/smtp/reply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BODY_BYTES 65536
#define REPETITIONS_MAX 99
#define ADDRESS_BYTES_MAX 571

static const char usage[] = "usage: parser [OPTION]...\n"
			    "  --ms N            of each row in a repetition (20)\n"
			    "  --repetitions N   (7)\n"
			    "  --only TEXT       rows with this in their name\n"
			    "  --json            one line of JSON\n"
			    "Exit status: 0, 1 when something was read wrong, 2 wrong options.\n";

static struct {
	uint64_t ms, repetitions;
	const char *only;
	bool json;
} bench = {.ms = 20, .repetitions = 7};

struct row {
	const char *name;
	const char *text;              /* what is read; NULL: a body of lines of that length */
	unsigned line;                 /* of a body; 0: 4 to 76 bytes, and dots at starts */
	bool (*once)(struct row *row); /* false: it was read wrong */
	unsigned things;               /* lines or replies that once() reads */
	struct span in;
	double ns[REPETITIONS_MAX]; /* of one once() */
};

static uint64_t now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* The compiler may not think that nobody looks at it. */
static void use(const void *anything)
{
	__asm__ volatile("" : : "r"(anything) : "memory");
}

static bool line_once(struct row *row)
{
	struct span rest = row->in;
	struct span line;
	unsigned count = 0;

	for (; rest.len > 0; count++) {
		if (line_next(rest, 2048, &line) != LINE_OK)
			return false;
		rest = span_skip(rest, line.len + 2);
	}
	return count == row->things;
}

static bool command_once(struct row *row)
{
	struct span rest = row->in;
	struct command command;
	struct span line;
	unsigned count = 0;

	for (; rest.len > 0; count++) {
		if (line_next(rest, 2048, &line) != LINE_OK ||
			command_parse(line, ADDRESS_BYTES_MAX, &command) != COMMAND_OK)
			return false;
		use(&command);
		rest = span_skip(rest, line.len + 2);
	}
	return count == row->things;
}

static bool address_once(struct row *row)
{
	struct span rest = row->in;
	struct address_path path;
	unsigned count = 0;

	for (; rest.len > 0; count++) {
		if (!address_take_path(&rest, &path))
			return false;
		use(&path);
	}
	return count == row->things;
}

static bool reply_once(struct row *row)
{
	struct span rest = row->in;
	struct reply reply;
	struct ehlo_offer offer;
	unsigned count = 0;

	for (; rest.len > 0; count++) {
		if (reply_parse(rest, &reply) != REPLY_OK)
			return false;
		if (row->things == 1)
			reply_parse_ehlo(&reply, &offer);
		use(&reply);
		rest = span_skip(rest, reply.wire.len);
	}
	return count == row->things;
}

static bool dot_once(struct row *row)
{
	struct span rest = row->in;
	struct dot_reader reader;
	enum dot_status status;
	size_t bytes = 0;
	struct span text;
	size_t consumed;

	dot_reader_init(&reader);
	do {
		status = dot_read(&reader, rest, &consumed, &text);
		rest = span_skip(rest, consumed);
		if (status == DOT_TEXT)
			bytes += text.len;
	} while (status == DOT_TEXT);
	return status == DOT_END && rest.len == 0 && reader.flaws == 0 && bytes > row->in.len / 2;
}

static bool check_once(struct row *row)
{
	struct dot_reader reader;

	dot_reader_init(&reader);
	body_check(&reader, row->in);
	body_check_end(&reader);
	return reader.flaws == 0;
}

static bool stuff_once(struct row *row)
{
	static uint8_t out[2 * BODY_BYTES];
	struct dot_writer writer;
	size_t len;
	size_t taken;

	dot_writer_init(&writer);
	taken = dot_write(&writer, row->in, out, sizeof(out), &len);
	use(out);
	return taken == row->in.len && len >= taken;
}

static bool firewall_once(struct row *row)
{
	static struct firewall firewall;
	struct span rest = row->in;
	size_t bytes = 0;

	firewall_init(&firewall, FIREWALL_ORGANIZATION | FIREWALL_STAMP, "mx.adatum.test");
	while (rest.len > 0)
		bytes += firewall_next(&firewall, &rest).len;
	return firewall.is_done && firewall.removed == 1 && bytes < row->in.len;
}

static bool header_once(struct row *row)
{
	struct header_scan scan;

	header_scan_init(&scan, "mx.adatum.test");
	header_scan(&scan, row->in);
	return scan.is_done && scan.received_count == 2;
}

static bool fields_once(struct row *row)
{
	static struct fields fields;

	fields_init(&fields);
	fields_scan(&fields, row->in);
	return fields.is_done && fields_message_id(&fields).len > 0;
}

static bool log_once(struct row *row)
{
	static struct log_buffer buffer;
	char subject[256];

	buffer.len = 0;
	log_attach(&buffer);
	log_event(LOG_LEVEL_INFO, "0123456789abcdef", "message",
		"peer=%s from=%s bytes=%lu recipients=%u queue-id=%s ms=%u", "192.0.2.17:52114",
		log_quote(row->in, subject, sizeof(subject)), 4096UL, 1U, "0f3a91b2c4d5e6f7", 12U);
	log_attach(NULL);
	return buffer.len > 150;
}

#define COMMANDS                                                              \
	"MAIL FROM:<ann.other@treyresearch.test> SIZE=4096 BODY=8BITMIME\r\n" \
	"RCPT TO:<bob@adatum.test>\r\n"                                       \
	"BDAT 4096 LAST\r\n"
#define EHLO_REPLY                                                                            \
	"250-mx.treyresearch.test at your service\r\n250-SIZE 37748736\r\n250-PIPELINING\r\n" \
	"250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n250-CHUNKING\r\n"         \
	"250-BINARYMIME\r\n250 DSN\r\n"
#define REPLIES "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.0.0 <4096@x.test> queued as 0f3a91b2\r\n"
#define HEADER                                                                                   \
	"Received: from mail.treyresearch.test (mail.treyresearch.test [192.0.2.17])\r\n"        \
	"\tby mx.treyresearch.test with ESMTPS id 0f3a91b2; Mon, 23 Nov 2026 10:00:00 +0000\r\n" \
	"Received: from desk (localhost [127.0.0.1])\r\n\tby mail.treyresearch.test; "           \
	"Mon, 23 Nov 2026 09:59:58 +0000\r\nX-MS-Exchange-Organization-SCL: -1\r\n"              \
	"From: Ann Other <ann.other@treyresearch.test>\r\nTo: Bob <bob@adatum.test>\r\n"         \
	"Subject: The figures of the third quarter, as we said on the telephone\r\n"             \
	"Message-ID: <20261123095958.0f3a91b2@desk.treyresearch.test>\r\n"                       \
	"Date: Mon, 23 Nov 2026 09:59:57 +0000\r\nMIME-Version: 1.0\r\n"                         \
	"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"

#define READ(row_name, row_text, row_once, row_things)                                             \
	{                                                                                          \
		.name = (row_name), .text = (row_text), .once = (row_once), .things = (row_things) \
	}
#define BODY(row_name, row_line, row_once)                                 \
	{                                                                  \
		.name = (row_name), .line = (row_line), .once = (row_once) \
	}

static struct row rows[] = {
	READ("line, 3 commands", COMMANDS, line_once, 3),
	READ("commands MAIL, RCPT, BDAT", COMMANDS, command_once, 3),
	READ("address <ann.other@treyresearch.test>", "<ann.other@treyresearch.test>", address_once,
		1),
	READ("replies 250, 250, 250", REPLIES, reply_once, 3),
	READ("reply to EHLO, 9 lines", EHLO_REPLY, reply_once, 1),
	BODY("DATA reader, lines of 10 bytes", 10, dot_once),
	BODY("DATA reader, lines of 40 bytes", 40, dot_once),
	BODY("DATA reader, lines of 76 bytes", 76, dot_once),
	BODY("DATA reader, lines of 200 bytes", 200, dot_once),
	BODY("DATA reader, lines of 990 bytes", 990, dot_once),
	BODY("DATA reader, mixed lines with dots", 0, dot_once),
	BODY("BDAT check, lines of 76 bytes", 76, check_once),
	BODY("BDAT check, lines of 990 bytes", 990, check_once),
	BODY("DATA writer, lines of 76 bytes", 76, stuff_once),
	BODY("DATA writer, mixed lines with dots", 0, stuff_once),
	READ("header firewall", HEADER, firewall_once, 0),
	READ("header scan (hops)", HEADER, header_once, 0),
	READ("header fields (Message-ID, Subject)", HEADER, fields_once, 0),
	READ("log line with a quoted address", "ann.other@treyresearch.test", log_once, 1),
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

/* Lines of letters; with mixed ones, every eighth begins with a dot, stuffed. */
static struct span body_create(unsigned line, bool has_end)
{
	uint8_t *body = malloc(BODY_BYTES + 1024);
	size_t at = 0;
	unsigned number = 0;

	if (body == NULL)
		exit(1);
	while (at < BODY_BYTES) {
		unsigned len = line > 0 ? line : 4 + number * 7 % 73;

		for (unsigned i = 0; i + 2 < len; i++)
			body[at + i] = (uint8_t)('a' + (i + number) % 26);
		if (line == 0 && number % 8 == 0)
			memcpy(body + at, "..", 2);
		memcpy(body + at + len - 2, "\r\n", 2);
		at += len;
		number++;
	}
	if (has_end) {
		memcpy(body + at, ".\r\n", 3);
		at += 3;
	}
	return span_make(body, at);
}

static void row_run(struct row *row, unsigned repetition)
{
	uint64_t limit = bench.ms * 1000000;
	uint64_t begun = now_ns();
	uint64_t spent = 0;
	uint64_t count = 0;

	while (spent < limit) {
		for (unsigned i = 0; i < 64; i++) {
			if (!row->once(row)) {
				(void)fprintf(stderr, "parser: %s: read wrong\n", row->name);
				exit(1);
			}
		}
		count += 64;
		spent = now_ns() - begun;
	}
	row->ns[repetition] = (double)spent / (double)count;
}

static int by_value(const void *left, const void *right)
{
	double a = *(const double *)left;
	double b = *(const double *)right;

	return (a > b) - (a < b);
}

static void row_print(struct row *row, bool is_first)
{
	double *ns = row->ns;
	double spread;
	double value;
	bool by_byte = row->things == 0;
	double each;

	qsort(ns, bench.repetitions, sizeof(*ns), by_value);
	value = ns[bench.repetitions / 2];
	spread = (ns[bench.repetitions - 1] - ns[0]) / value;
	each = value / (by_byte ? (double)row->in.len : row->things);
	if (bench.json)
		(void)printf("%s{\"name\":\"%s\",\"unit\":\"%s\",\"value\":%.4g,\"spread\":%.3f,"
			     "\"bytes\":%zu}",
			is_first ? "" : ",", row->name, by_byte ? "ns/byte" : "ns", each, spread,
			row->in.len);
	else
		(void)printf("%-40s %10.3f %-8s spread %3.0f %%\n", row->name, each,
			by_byte ? "ns/byte" : "ns each", 100 * spread);
}

int main(int argc, char **argv)
{
	const struct options_entry entries[] = {
		{"ms", OPTIONS_NUMBER, {.number = &bench.ms}, 1, 10000},
		{"repetitions", OPTIONS_NUMBER, {.number = &bench.repetitions}, 1, REPETITIONS_MAX},
		{"only", OPTIONS_TEXT, {.text = &bench.only}, 0, 0},
		{"json", OPTIONS_FLAG, {.flag = &bench.json}, 0, 0},
	};
	bool is_first = true;

	options_parse(argc, argv, entries, sizeof(entries) / sizeof(*entries), usage);
	for (size_t i = 0; i < ROWS; i++) {
		rows[i].in = rows[i].text != NULL
				     ? span_of(rows[i].text)
				     : body_create(rows[i].line, rows[i].once == dot_once);
	}
	for (unsigned repetition = 0; repetition < bench.repetitions; repetition++) {
		for (size_t i = 0; i < ROWS; i++) {
			if (bench.only == NULL || strstr(rows[i].name, bench.only) != NULL)
				row_run(&rows[i], repetition);
		}
	}
	if (bench.json)
		(void)printf(
			"{\"part\":\"parser\",\"repetitions\":%lu,\"rows\":[", bench.repetitions);
	for (size_t i = 0; i < ROWS; i++) {
		if (bench.only != NULL && strstr(rows[i].name, bench.only) == NULL)
			continue;
		row_print(&rows[i], is_first);
		is_first = false;
	}
	if (bench.json)
		(void)puts("]}");
	return 0;
}
