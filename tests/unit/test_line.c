/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/line.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define TEXT(literal)                                           \
	{                                                       \
		(const uint8_t *)(literal), sizeof(literal) - 1 \
	}

struct line_case {
	const char *name;
	struct span in;
	size_t line_bytes_max;
	enum line_status want;
	struct span want_line;
};

/* Reads from a copy of exactly in.len bytes, so that a read behind it is found. */
static enum line_status line_run(struct span in, size_t line_bytes_max, struct span *out)
{
	static uint8_t line[256];
	uint8_t *copy = malloc(in.len + 1);
	struct span cut = {0};
	enum line_status status;

	assert_non_null(copy);
	memcpy(copy + 1, in.data, in.len);
	status = line_next(span_make(copy + 1, in.len), line_bytes_max, &cut);
	if (cut.len > 0) {
		assert_ptr_equal(cut.data, copy + 1);
		memcpy(line, cut.data, cut.len);
	}
	*out = span_make(line, cut.len);
	free(copy);
	return status;
}

/* With less than all of its input, a case must ask for more, or give its final answer early. */
static void line_check_splits(const struct line_case *row)
{
	bool is_decided = false;

	for (size_t len = 0; len <= row->in.len; len++) {
		struct span line = {0};
		enum line_status status =
			line_run(span_head(row->in, len), row->line_bytes_max, &line);

		if (status == LINE_MORE && !is_decided && len < row->in.len)
			continue;
		is_decided = true;
		if (status != row->want || !span_equal(line, row->want_line))
			fail_msg("%s: %d at %zu of %zu bytes, want %d", row->name, (int)status, len,
				row->in.len, (int)row->want);
	}
}

static void test_line_next(void **state)
{
	static const struct line_case cases[] = {
		{"a line", TEXT("NOOP\r\n"), 512, LINE_OK, TEXT("NOOP")},
		{"an empty line", TEXT("\r\n"), 512, LINE_OK, TEXT("")},
		{"only the first of two", TEXT("A\r\nB\r\n"), 512, LINE_OK, TEXT("A")},
		{"no input", TEXT(""), 512, LINE_MORE, TEXT("")},
		{"no end", TEXT("NOOP"), 512, LINE_MORE, TEXT("")},
		{"CR at the edge", TEXT("NOOP\r"), 512, LINE_MORE, TEXT("")},
		{"bare LF alone", TEXT("NOOP\n"), 512, LINE_MORE, TEXT("")},
		{"bare LF", TEXT("NOOP\nQUIT\r\n"), 512, LINE_BARE, TEXT("NOOP\nQUIT")},
		{"bare LF first", TEXT("\nQUIT\r\n"), 512, LINE_BARE, TEXT("\nQUIT")},
		{"bare CR", TEXT("NO\rOP\r\n"), 512, LINE_BARE, TEXT("NO\rOP")},
		{"CR CR LF", TEXT("NOOP\r\r\n"), 512, LINE_BARE, TEXT("NOOP\r")},
		{"LF CR", TEXT("NOOP\n\r\r\n"), 512, LINE_BARE, TEXT("NOOP\n\r")},
		{"bare LF and then CR LF", TEXT("A\n\r\n"), 512, LINE_BARE, TEXT("A\n")},
		{"NUL", TEXT("NO\0OP\r\n"), 512, LINE_NUL, TEXT("NO\0OP")},
		{"NUL and bare LF", TEXT("\0\n\r\n"), 512, LINE_BARE, TEXT("\0\n")},
		{"NUL of the next line", TEXT("NOOP\r\n\0\r\n"), 512, LINE_OK, TEXT("NOOP")},
		{"as long as may be", TEXT("12345678\r\n"), 10, LINE_OK, TEXT("12345678")},
		{"one too long", TEXT("123456789\r\n"), 10, LINE_LONG, TEXT("")},
		{"no room for the LF", TEXT("123456789\r"), 10, LINE_LONG, TEXT("")},
		{"no room for CR LF", TEXT("123456789"), 10, LINE_LONG, TEXT("")},
		{"room for CR LF", TEXT("12345678"), 10, LINE_MORE, TEXT("")},
		{"room for LF", TEXT("12345678\r"), 10, LINE_MORE, TEXT("")},
		{"the end lies behind the limit", TEXT("1234567890\r\n"), 10, LINE_LONG, TEXT("")},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++)
		line_check_splits(&cases[i]);
}

static void test_line_skip(void **state)
{
	static const struct {
		const char *name;
		struct span in;
		bool want;
		size_t want_consumed;
	} cases[] = {
		{"nothing", TEXT(""), false, 0},
		{"no end", TEXT("abc"), false, 3},
		{"a CR that may be an end", TEXT("abc\r"), false, 3},
		{"only a CR", TEXT("\r"), false, 0},
		{"bare LF", TEXT("abc\ndef"), false, 7},
		{"bare CR", TEXT("abc\rdef"), false, 7},
		{"the end", TEXT("abc\r\n"), true, 5},
		{"CR CR LF", TEXT("abc\r\r\nd"), true, 6},
		{"what follows stays", TEXT("abc\r\nNOOP\r\n"), true, 5},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		size_t consumed = 99;

		if (line_skip(cases[i].in, &consumed) != cases[i].want ||
			consumed != cases[i].want_consumed)
			fail_msg("%s: consumed %zu", cases[i].name, consumed);
	}
}

/* A long line that comes in pieces is skipped up to the same byte, however it is cut. */
static void test_line_skip_split(void **state)
{
	const struct span in = TEXT("a\rb\nc\r\r\nNOOP\r\n");

	(void)state;
	for (size_t cut = 0; cut <= in.len; cut++) {
		size_t consumed = 0;
		size_t more = 0;

		if (!line_skip(span_head(in, cut), &consumed)) {
			assert_true(line_skip(span_skip(in, consumed), &more));
			consumed += more;
		}
		assert_int_equal(consumed, 8);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_line_next),
		cmocka_unit_test(test_line_skip),
		cmocka_unit_test(test_line_skip_split),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
