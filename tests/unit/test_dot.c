/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/dot.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define TEXT(literal)                                           \
	{                                                       \
		(const uint8_t *)(literal), sizeof(literal) - 1 \
	}

#define NONE 0u
#define OUT_BYTES_MAX 8192

struct dot_case {
	const char *name;
	struct span in;
	enum dot_status want; /* DOT_END, or DOT_MORE when the body goes on */
	unsigned want_flaws;
	struct span want_body;
	size_t want_behind; /* bytes behind the end */
};

/* Puts text at *at and moves *at behind it. */
static void put(uint8_t **at, const char *text)
{
	struct span s = span_of(text);

	memcpy(*at, s.data, s.len);
	*at += s.len;
}

static void put_many(uint8_t **at, char byte, size_t count)
{
	memset(*at, byte, count);
	*at += count;
}

/* What one run gave. */
struct dot_run {
	struct dot_reader reader;
	enum dot_status status;
	size_t consumed;
	size_t piece_count;
	size_t len;
	uint8_t body[OUT_BYTES_MAX];
};

/* Reads one piece of input, from a copy of exactly its length. */
static void dot_run_piece(struct dot_run *run, struct span piece)
{
	uint8_t *copy = malloc(piece.len + 1);
	struct span rest = span_make(copy + 1, piece.len);

	assert_non_null(copy);
	if (piece.len > 0)
		memcpy(copy + 1, piece.data, piece.len);
	while (run->status != DOT_END) {
		struct span text = {0};
		size_t consumed = 0;

		run->status = dot_read(&run->reader, rest, &consumed, &text);
		run->consumed += consumed;
		rest = span_skip(rest, consumed);
		if (run->status == DOT_MORE) {
			assert_int_equal(rest.len, 0);
			break;
		}
		if (run->status == DOT_TEXT) {
			assert_true(text.len > 0 && run->len + text.len <= sizeof(run->body));
			memcpy(run->body + run->len, text.data, text.len);
			run->len += text.len;
			run->piece_count++;
		}
	}
	free(copy);
}

static void dot_run_begin(struct dot_run *run)
{
	dot_reader_init(&run->reader);
	run->status = DOT_MORE;
	run->consumed = run->piece_count = run->len = 0;
}

static void dot_run_check(const struct dot_run *run, const struct dot_case *row, const char *how,
	size_t number, struct span pad)
{
	struct span body = span_make(run->body, run->len);
	size_t all = pad.len + row->in.len - row->want_behind;

	if (run->status != row->want || run->reader.flaws != row->want_flaws ||
		run->consumed != all || !span_equal(span_head(body, pad.len), pad) ||
		!span_equal(span_skip(body, pad.len), row->want_body))
		fail_msg("%s, %s %zu: status %d flaws %u consumed %zu body %zu", row->name, how,
			number, (int)run->status, run->reader.flaws, run->consumed, run->len);
}

/* Whole, cut in two at each byte, cut in three, and byte by byte. */
static void dot_check_splits(const struct dot_case *row)
{
	struct dot_run run;
	struct span none = {0};

	for (size_t cut = 0; cut <= row->in.len; cut++) {
		dot_run_begin(&run);
		dot_run_piece(&run, span_head(row->in, cut));
		dot_run_piece(&run, span_skip(row->in, cut));
		dot_run_check(&run, row, "cut at", cut, none);

		dot_run_begin(&run);
		dot_run_piece(&run, span_head(row->in, cut));
		dot_run_piece(&run, span_head(span_skip(row->in, cut), 1));
		dot_run_piece(&run, span_skip(row->in, cut + 1));
		dot_run_check(&run, row, "cut out", cut, none);
	}
	dot_run_begin(&run);
	for (size_t at = 0; at < row->in.len; at++)
		dot_run_piece(&run, span_head(span_skip(row->in, at), 1));
	dot_run_check(&run, row, "bytes", 0, none);
}

/* Behind a line of each length from 0 to 140, so that each byte stands at each place of a block. */
static void dot_check_places(const struct dot_case *row)
{
	static uint8_t in[OUT_BYTES_MAX];
	struct dot_run run;

	for (size_t pad = 2; pad < 142; pad++) {
		uint8_t *end = in;

		put_many(&end, 'x', pad - 2);
		put(&end, "\r\n");
		memcpy(end, row->in.data, row->in.len);
		dot_run_begin(&run);
		dot_run_piece(&run, span_make(in, pad + row->in.len));
		dot_run_check(&run, row, "padded by", pad, span_make(in, pad));
	}
}

static const struct dot_case dot_cases[] = {
	{"no input", TEXT(""), DOT_MORE, NONE, TEXT(""), 0},
	{"empty body", TEXT(".\r\n"), DOT_END, NONE, TEXT(""), 0},
	{"empty line", TEXT("\r\n.\r\n"), DOT_END, NONE, TEXT("\r\n"), 0},
	{"a line", TEXT("hi\r\n.\r\n"), DOT_END, NONE, TEXT("hi\r\n"), 0},
	{"commands behind", TEXT("hi\r\n.\r\nQ\0\xff\n.\r\n"), DOT_END, NONE, TEXT("hi\r\n"), 7},
	{"many bytes behind",
		TEXT(".\r\n\0\n\r\xff "
		     "8901234567890123456789012345678901234567890123456789012345678"),
		DOT_END, NONE, TEXT(""), 66},
	{"a stuffed dot", TEXT("..\r\n.\r\n"), DOT_END, NONE, TEXT(".\r\n"), 0},
	{"two stuffed lines", TEXT("..a\r\n..b\r\n.\r\n"), DOT_END, NONE, TEXT(".a\r\n.b\r\n"), 0},
	{"three dots", TEXT("...\r\n.\r\n"), DOT_END, NONE, TEXT("..\r\n"), 0},
	{"a dot taken out though not doubled", TEXT(".a\r\n.\r\n"), DOT_END, NONE, TEXT("a\r\n"),
		0},
	{"dots inside", TEXT("a.b.\r\n.\r\n"), DOT_END, NONE, TEXT("a.b.\r\n"), 0},
	{"LF . CR LF", TEXT("a\n.\r\nb\r\n"), DOT_MORE, BODY_BARE_LF, TEXT("a\n.\r\nb\r\n"), 0},
	{"LF . LF", TEXT("a\n.\nb\r\n"), DOT_MORE, BODY_BARE_LF, TEXT("a\n.\nb\r\n"), 0},
	{"CR LF . LF", TEXT("a\r\n.\nb"), DOT_MORE, BODY_BARE_LF, TEXT("a\r\n\nb"), 0},
	{"CR . CR LF", TEXT("a\r.\r\nb"), DOT_MORE, BODY_BARE_CR, TEXT("a\r.\r\nb"), 0},
	{"CR . CR", TEXT("a\r.\rb"), DOT_MORE, BODY_BARE_CR, TEXT("a\r.\rb"), 0},
	{"CR LF . CR x", TEXT("a\r\n.\rx"), DOT_MORE, BODY_BARE_CR, TEXT("a\r\n\rx"), 0},
	{"CR LF . CR . CR LF", TEXT("\r\n.\r.\r\nb"), DOT_MORE, BODY_BARE_CR, TEXT("\r\n\r.\r\nb"),
		0},
	{"CR LF . CR CR LF", TEXT("a\r\n.\r\r\nb"), DOT_MORE, BODY_BARE_CR, TEXT("a\r\n\r\r\nb"),
		0},
	{"CR LF . CR CR LF and the end", TEXT("\r\n.\r\r\n.\r\n"), DOT_END, BODY_BARE_CR,
		TEXT("\r\n\r\r\n"), 0},
	{"CR LF . CR NUL", TEXT("a\r\n.\r\0"), DOT_MORE, BODY_BARE_CR | BODY_NUL, TEXT("a\r\n\r\0"),
		0},
	{"CR LF . . CR LF", TEXT("a\r\n..\r\nb"), DOT_MORE, NONE, TEXT("a\r\n.\r\nb"), 0},
	{"CR CR LF . CR LF", TEXT("a\r\r\n.\r\n"), DOT_END, BODY_BARE_CR, TEXT("a\r\r\n"), 0},
	{"LF CR LF . CR LF", TEXT("a\n\r\n.\r\n"), DOT_END, BODY_BARE_LF, TEXT("a\n\r\n"), 0},
	{"LF LF", TEXT("\n\n.\r\n"), DOT_MORE, BODY_BARE_LF, TEXT("\n\n.\r\n"), 0},
	{"LF CR", TEXT("\n\r.\r\n"), DOT_MORE, BODY_BARE_LF | BODY_BARE_CR, TEXT("\n\r.\r\n"), 0},
	{"the end without its LF", TEXT("a\r\n.\r"), DOT_MORE, NONE, TEXT("a\r\n"), 0},
	{"the end without CR LF", TEXT("a\r\n."), DOT_MORE, NONE, TEXT("a\r\n"), 0},
	{"a CR that may be an end", TEXT("a\r"), DOT_MORE, NONE, TEXT("a\r"), 0},
	{"NUL", TEXT("a\0b\r\n.\r\n"), DOT_END, BODY_NUL, TEXT("a\0b\r\n"), 0},
	{"NUL dot", TEXT("\r\n\0.\r\n"), DOT_MORE, BODY_NUL, TEXT("\r\n\0.\r\n"), 0},
	{"eight bits", TEXT("\xc3\xa9\r\n.\r\n"), DOT_END, BODY_EIGHT_BIT, TEXT("\xc3\xa9\r\n"), 0},
	{"eight-bit CR, LF and dot", TEXT("\x8d\x8a\xae\x8d\x8a"), DOT_MORE, BODY_EIGHT_BIT,
		TEXT("\x8d\x8a\xae\x8d\x8a"), 0},
	{"DEL is no flaw", TEXT("\x7f\r\n.\r\n"), DOT_END, NONE, TEXT("\x7f\r\n"), 0},
	{"a NUL where a stuffed dot was", TEXT(".\0\r\n.\r\n"), DOT_END, BODY_NUL, TEXT("\0\r\n"),
		0},
};

static void test_dot_read_splits(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(dot_cases); i++)
		dot_check_splits(&dot_cases[i]);
}

static void test_dot_read_places(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(dot_cases); i++)
		dot_check_places(&dot_cases[i]);
}

/* One line of so many bytes, stuffed or not: only what lies before the CR LF counts. */
static unsigned dot_line_flaws(size_t line_bytes, bool is_stuffed, size_t cut)
{
	static uint8_t in[OUT_BYTES_MAX];
	struct dot_run run;
	uint8_t *end = in;

	put(&end, "first\r\n");
	put(&end, is_stuffed ? "." : "");
	put_many(&end, is_stuffed ? '.' : 'x', line_bytes);
	put(&end, "\r\nlast\r\n.\r\n");
	dot_run_begin(&run);
	dot_run_piece(&run, span_make(in, cut));
	dot_run_piece(&run, span_make(in + cut, (size_t)(end - in) - cut));
	assert_int_equal(run.status, DOT_END);
	assert_int_equal(run.len, 7 + line_bytes + 8);
	return run.reader.flaws;
}

static void test_dot_long_lines(void **state)
{
	(void)state;
	for (size_t cut = 0; cut < 1010; cut++) {
		for (unsigned is_stuffed = 0; is_stuffed < 2; is_stuffed++) {
			assert_int_equal(dot_line_flaws(998, is_stuffed != 0, cut), NONE);
			assert_int_equal(dot_line_flaws(999, is_stuffed != 0, cut), BODY_LONG_LINE);
		}
	}
	assert_int_equal(dot_line_flaws(5000, false, 3000), BODY_LONG_LINE);
}

/* A bare CR is a byte of its line, and the CR of the line's end is not. */
static void test_dot_long_line_bare_cr(void **state)
{
	static uint8_t in[2048];

	(void)state;
	for (size_t held = 0; held < 2; held++) {
		struct dot_run run;
		size_t body_bytes = 998 + held;
		uint8_t *end = in;

		put(&end, ".\r");
		put_many(&end, 'x', body_bytes - 1);
		put(&end, "\r\n.\r\n");
		dot_run_begin(&run);
		for (const uint8_t *at = in; at < end; at++)
			dot_run_piece(&run, span_make(at, 1));
		assert_int_equal(run.status, DOT_END);
		assert_int_equal(run.len, body_bytes + 2);
		assert_int_equal(
			run.reader.flaws, BODY_BARE_CR | (held == 1 ? BODY_LONG_LINE : NONE));
	}
}

/* Ordinary text is one span a buffer, or the copies and system calls behind it would be many. */
static void test_dot_read_long_spans(void **state)
{
	static uint8_t in[OUT_BYTES_MAX];
	struct dot_run run;
	uint8_t *end = in;

	(void)state;
	while (end < in + 4096) {
		put_many(&end, 'x', 40);
		put(&end, ". ");
		put_many(&end, 'x', 34);
		put(&end, "\r\n");
	}
	dot_run_begin(&run);
	dot_run_piece(&run, span_make(in, (size_t)(end - in)));
	assert_int_equal(run.piece_count, 1);
	put(&end, "..\r\n.\r\n");
	dot_run_begin(&run);
	dot_run_piece(&run, span_make(in, (size_t)(end - in)));
	assert_int_equal(run.piece_count, 2);
	assert_int_equal(run.status, DOT_END);
}

static const struct body_case {
	const char *name;
	struct span in;
	unsigned want;
} body_cases[] = {
	{"nothing", TEXT(""), NONE},
	{"lines", TEXT("a\r\n\r\nb\r\n"), NONE},
	{"no line end", TEXT("a"), NONE},
	{"dots mean nothing", TEXT(".\r\n..\r\n.\r\n.x"), NONE},
	{"CR at the end", TEXT("a\r\nb\r"), BODY_BARE_CR},
	{"bare CR", TEXT("a\rb"), BODY_BARE_CR},
	{"CR CR LF", TEXT("a\r\r\n"), BODY_BARE_CR},
	{"bare LF", TEXT("a\n"), BODY_BARE_LF},
	{"LF first", TEXT("\n"), BODY_BARE_LF},
	{"NUL", TEXT("\0"), BODY_NUL},
	{"eight bits", TEXT("\x80"), BODY_EIGHT_BIT},
	{"all but length", TEXT("\x80\0\n\r"),
		BODY_EIGHT_BIT | BODY_NUL | BODY_BARE_LF | BODY_BARE_CR},
};

/* Behind a line of so many bytes, cut in two at each byte. */
static void body_check_splits(const struct body_case *row, size_t pad)
{
	static uint8_t in[512];
	uint8_t *end = in;
	size_t all = pad + 2 + row->in.len;

	put_many(&end, 'x', pad);
	put(&end, "\r\n");
	memcpy(end, row->in.data, row->in.len);
	for (size_t cut = 0; cut <= all; cut++) {
		struct dot_reader reader;

		dot_reader_init(&reader);
		body_check(&reader, span_make(in, cut));
		body_check(&reader, span_make(in + cut, all - cut));
		body_check_end(&reader);
		if (reader.flaws != row->want)
			fail_msg("%s: pad %zu cut %zu: %u", row->name, pad, cut, reader.flaws);
	}
}

static void test_body_check(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(body_cases); i++) {
		for (size_t pad = 0; pad < 140; pad++)
			body_check_splits(&body_cases[i], pad);
	}
}

/* The last line of a body need not end, and is as long as any other. */
static void test_body_check_last_line(void **state)
{
	static uint8_t in[2048];

	(void)state;
	memset(in, 'x', sizeof(in));
	for (size_t len = 996; len < 1003; len++) {
		struct dot_reader reader;

		dot_reader_init(&reader);
		body_check(&reader, span_make("a\r\n", 3));
		body_check(&reader, span_make(in, len));
		body_check_end(&reader);
		assert_int_equal(reader.flaws, len > 998 ? BODY_LONG_LINE : NONE);
	}
}

/* Writes in, cut in two, through an output of so many bytes, with the end behind it. */
static size_t dot_write_all(struct span in, size_t cut, size_t room, uint8_t *out)
{
	struct dot_writer writer;
	struct span pieces[] = {span_head(in, cut), span_skip(in, cut)};
	size_t len = 0;

	dot_writer_init(&writer);
	for (size_t i = 0; i < COUNT_OF(pieces); i++) {
		struct span rest = pieces[i];

		while (rest.len > 0) {
			size_t written = 99;
			size_t used = dot_write(&writer, rest, out + len, room, &written);

			assert_true(written > 0 && written <= room && used <= rest.len);
			len += written;
			rest = span_skip(rest, used);
		}
	}
	return len + dot_write_end(&writer, out + len);
}

static const struct write_case {
	const char *name;
	struct span body;
	struct span want;
} write_cases[] = {
	{"empty", TEXT(""), TEXT(".\r\n")},
	{"a line", TEXT("a\r\n"), TEXT("a\r\n.\r\n")},
	{"no line end", TEXT("a"), TEXT("a\r\n.\r\n")},
	{"a CR at the end", TEXT("a\r"), TEXT("a\r\r\n.\r\n")},
	{"a LF at the end", TEXT("a\n"), TEXT("a\n\r\n.\r\n")},
	{"a dot", TEXT("."), TEXT("..\r\n.\r\n")},
	{"a line of a dot", TEXT(".\r\n"), TEXT("..\r\n.\r\n")},
	{"two dots", TEXT("..\r\n"), TEXT("...\r\n.\r\n")},
	{"dots in each line", TEXT(".\r\n.\r\n.a\r\n"), TEXT("..\r\n..\r\n..a\r\n.\r\n")},
	{"a dot inside", TEXT("a.\r\n"), TEXT("a.\r\n.\r\n")},
	{"a dot behind a bare LF", TEXT("a\n.\r\n"), TEXT("a\n.\r\n.\r\n")},
	{"a dot behind a bare CR", TEXT("a\r.\r\n"), TEXT("a\r.\r\n.\r\n")},
};

static void dot_write_check_splits(const struct write_case *row, size_t room)
{
	for (size_t cut = 0; cut <= row->body.len; cut++) {
		uint8_t out[64];
		size_t len = dot_write_all(row->body, cut, room, out);

		if (!span_equal(span_make(out, len), row->want))
			fail_msg("%s: cut %zu room %zu", row->name, cut, room);
	}
}

static void test_dot_write(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(write_cases); i++) {
		for (size_t room = 1; room < 20; room++)
			dot_write_check_splits(&write_cases[i], room);
	}
}

static void test_dot_write_no_room(void **state)
{
	struct dot_writer writer;
	uint8_t out[1];
	size_t len = 99;

	(void)state;
	dot_writer_init(&writer);
	assert_int_equal(dot_write(&writer, span_of("abc"), out, 0, &len), 0);
	assert_int_equal(len, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dot_read_splits),
		cmocka_unit_test(test_dot_read_places),
		cmocka_unit_test(test_dot_long_lines),
		cmocka_unit_test(test_dot_long_line_bare_cr),
		cmocka_unit_test(test_dot_read_long_spans),
		cmocka_unit_test(test_body_check),
		cmocka_unit_test(test_body_check_last_line),
		cmocka_unit_test(test_dot_write),
		cmocka_unit_test(test_dot_write_no_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
