/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_dot_walk.c: bodies are looked at many bytes at once. By chance, in pieces of any length, and
 * with what is odd at each place, they give what they give byte by byte, in each way to look.
 */

#include "relay/smtp/dot.h"
#include "relay/smtp/dot_walk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { BODIES = 2500, BODY_BYTES = 12000, PIECE_BYTES = 900, WAYS_MAX = 8 };

static uint64_t seed = 20261129;

static unsigned chance(unsigned below)
{
	seed = seed * 6364136223846793005U + 1442695040888963407U;
	return (unsigned)(seed >> 33) % below;
}

/* What a body gives. */
struct seen {
	uint8_t text[BODY_BYTES];
	size_t len;
	size_t consumed;
	unsigned flaws;
	bool is_end;
};

/* The rules of dot.h, a byte at a time. */
struct plain {
	struct seen *seen;
	bool is_start, is_after_cr;
	size_t column;
};

static void plain_text(struct plain *plain, uint8_t byte)
{
	struct seen *seen = plain->seen;
	const bool is_end = byte == '\n' && plain->is_after_cr;

	seen->text[seen->len++] = byte;
	seen->flaws |= byte == 0 ? BODY_NUL : 0u;
	seen->flaws |= byte > 127 ? BODY_EIGHT_BIT : 0u;
	seen->flaws |= byte == '\n' && !is_end ? BODY_BARE_LF : 0u;
	seen->flaws |= plain->is_after_cr && !is_end ? BODY_BARE_CR : 0u;
	if (is_end && plain->column > 998 + 1)
		seen->flaws |= BODY_LONG_LINE;
	plain->column = is_end ? 0 : plain->column + 1;
	plain->is_start = is_end;
	plain->is_after_cr = byte == '\r';
}

static void plain_read(const uint8_t *in, size_t len, bool has_dots, struct seen *seen)
{
	struct plain plain = {.seen = seen, .is_start = true};
	size_t at = 0;

	*seen = (struct seen){.len = 0};
	while (at < len && !seen->is_end) {
		if (!has_dots || !plain.is_start || in[at] != '.') {
			plain_text(&plain, in[at++]);
			continue;
		}
		plain.is_start = false;
		at++;
		if (at + 1 < len && in[at] == '\r' && in[at + 1] == '\n') {
			at += 2;
			seen->is_end = true;
		} else if (at + 1 == len && in[at] == '\r') {
			at++; /* held back */
		}
	}
	seen->consumed = at;
	if (!seen->is_end && plain.column > 998 + 1)
		seen->flaws |= BODY_LONG_LINE;
}

/* Lines of many lengths, some with what is no line. */
static size_t make_body(uint8_t *out)
{
	static const uint8_t strange[] = {'\r', '\n', '.', 0, 0x80, 0xff, 'x', 'x'};
	const unsigned oddness = chance(4) == 0 ? 0 : 20 + chance(2000);
	const unsigned line_max = chance(3) == 0 ? 1 + chance(2200) : 1 + chance(120);
	size_t len = 0;

	while (len < BODY_BYTES - PIECE_BYTES * 3) {
		const size_t line = chance(line_max);

		if (chance(12) == 0)
			out[len++] = '.';
		for (size_t i = 0; i < line; i++)
			out[len++] = oddness > 0 && chance(oddness) == 0
					     ? strange[chance(sizeof(strange))]
					     : 'a';
		out[len++] = '\r';
		out[len++] = '\n';
		if (chance(200) == 0)
			break;
	}
	return len;
}

static void read_piece(
	struct dot_reader *reader, uint8_t *in, size_t len, bool is_taken, struct seen *seen)
{
	struct span rest = span_make(in, len);

	while (!seen->is_end) {
		struct span text = {0};
		size_t consumed;
		const enum dot_status status = is_taken ? dot_take(reader, in + (len - rest.len),
								  rest.len, &consumed, &text)
							: dot_read(reader, rest, &consumed, &text);

		seen->consumed += consumed;
		rest = span_skip(rest, consumed);
		if (text.len > 0)
			memcpy(seen->text + seen->len, text.data, text.len);
		seen->len += text.len;
		seen->is_end = status == DOT_END;
		if (status == DOT_MORE)
			break;
	}
}

enum how { READ, TAKE, CHECK };

/* All of it, in pieces that each lie in memory of just their length. */
static void read_all(const uint8_t *in, size_t len, enum how how, struct seen *seen)
{
	const unsigned piece_max = 1 + chance(PIECE_BYTES);
	struct dot_reader reader;
	size_t at = 0;

	*seen = (struct seen){.len = 0};
	dot_reader_init(&reader);
	while (at < len && !seen->is_end) {
		const struct span piece = span_head(
			span_make(in + at, len - at), chance(8) == 0 ? len : 1 + chance(piece_max));
		uint8_t *copy = malloc(piece.len);

		assert_non_null(copy);
		memcpy(copy, piece.data, piece.len);
		if (how == CHECK)
			body_check(&reader, span_make(copy, piece.len));
		else
			read_piece(&reader, copy, piece.len, how == TAKE, seen);
		free(copy);
		at += piece.len;
	}
	seen->flaws = reader.flaws;
}

static void check(const struct seen *got, const struct seen *want)
{
	assert_int_equal(got->is_end, want->is_end);
	assert_int_equal(got->consumed, want->consumed);
	assert_int_equal(got->len, want->len);
	assert_memory_equal(got->text, want->text, want->len);
	assert_int_equal(got->flaws, want->flaws);
}

static void check_by_chance(void)
{
	static uint8_t body[BODY_BYTES];
	static struct seen want;
	static struct seen got;
	unsigned ends = 0;

	for (unsigned i = 0; i < BODIES; i++) {
		const size_t len = make_body(body);

		plain_read(body, len, true, &want);
		read_all(body, len, READ, &got);
		check(&got, &want);
		read_all(body, len, TAKE, &got);
		check(&got, &want);
		ends += want.is_end;
		plain_read(body, len, false, &want);
		read_all(body, len, CHECK, &got);
		assert_int_equal(got.flaws, want.flaws);
	}
	assert_in_range(ends, 1, BODIES - 1);
}

/* Does this in each way that the processor has, and at last in the best. */
static void in_each_way(void (*check_way)(void))
{
	unsigned ways = 0;

	for (unsigned way = 0; way < WAYS_MAX; way++) {
		if (dot_walk_choose(way)) {
			check_way();
			ways++;
		}
	}
	print_message("%u ways to walk\n", ways);
	assert_true(ways > 0);
}

static void test_by_chance(void **state)
{
	(void)state;
	in_each_way(check_by_chance);
}

/* A body in two pieces, of which each lies in memory of just its length. */
static void read_cut(const uint8_t *in, size_t len, size_t cut, enum how how, struct seen *seen)
{
	const struct span pieces[] = {span_make(in, cut), span_make(in + cut, len - cut)};
	struct dot_reader reader;

	*seen = (struct seen){.len = 0};
	dot_reader_init(&reader);
	for (size_t i = 0; i < COUNT_OF(pieces) && !seen->is_end; i++) {
		uint8_t *copy = malloc(pieces[i].len + 1);

		assert_non_null(copy);
		memcpy(copy + 1, pieces[i].data, pieces[i].len);
		if (how == CHECK)
			body_check(&reader, span_make(copy + 1, pieces[i].len));
		else
			read_piece(&reader, copy + 1, pieces[i].len, how == TAKE, seen);
		free(copy);
	}
	seen->flaws = reader.flaws;
}

/* In one piece, and cut at some place. */
static void check_cuts(const uint8_t *body, size_t len, size_t cut)
{
	const size_t cuts[] = {len, cut < len ? cut : len};
	static struct seen want;
	static struct seen got;

	for (size_t i = 0; i < COUNT_OF(cuts); i++) {
		plain_read(body, len, true, &want);
		read_cut(body, len, cuts[i], READ, &got);
		check(&got, &want);
		read_cut(body, len, cuts[i], TAKE, &got);
		check(&got, &want);
		plain_read(body, len, false, &want);
		read_cut(body, len, cuts[i], CHECK, &got);
		assert_int_equal(got.flaws, want.flaws);
	}
}

static size_t put(uint8_t *out, const char *bytes, size_t len)
{
	memcpy(out, bytes, len);
	return len;
}

/* Lines of text of so many bytes in all. */
static size_t put_lines(uint8_t *out, size_t len)
{
	for (size_t i = 0; i < len; i++)
		out[i] = i % 78 == 77 ? '\n' : i % 78 == 76 ? '\r' : i % 13 == 5 ? '.' : 'a';
	return len;
}

static const struct {
	const char *bytes;
	size_t len;
} odd[] = {
#define ODD(literal)                           \
	{                                      \
		(literal), sizeof(literal) - 1 \
	}
	ODD("."),
	ODD("\r\n."),
	ODD("\r\n.."),
	ODD("\r\n.\r\n"),
	ODD("\r\n.\r"),
	ODD("\r\n.\n"),
	ODD("\r\n.\rx"),
	ODD("\r\n..\r\n..\r\n...\r\n\r\n..\r\n"),
	ODD("\r\n.x\r\n\r\n.\r\n"),
	ODD("\n."),
	ODD("\r."),
	ODD("\n.\r\n"),
	ODD("\r\r\n."),
	ODD("\r"),
	ODD("\n"),
	ODD("\r\n.\0"),
	ODD("\0"),
	ODD("\x80"),
#undef ODD
};

/* Each oddity at each place of the first groups, behind text with dots taken out, and with not. */
static void check_places(void)
{
	static uint8_t body[BODY_BYTES];

	for (size_t i = 0; i < COUNT_OF(odd); i++) {
		for (size_t at = 0; at < 600; at++) {
			size_t len = put_lines(body, at);

			if (at % 3 == 0 && at > 20)
				(void)put(body + 6, "\r\n..", 4);
			len += put(body + len, odd[i].bytes, odd[i].len);
			len += put_lines(body + len, 300 + at % 7);
			check_cuts(body, len, at + chance((unsigned)odd[i].len + 2));
		}
	}
}

static void test_places(void **state)
{
	(void)state;
	in_each_way(check_places);
}

/* A line of about the most bytes begins at each place, with dots or without. */
static void check_long_lines(void)
{
	static uint8_t body[BODY_BYTES];

	for (size_t at = 0; at < 600; at++) {
		for (size_t bytes = 997; bytes < 1001; bytes++) {
			for (unsigned dots = 0; dots < 4; dots++) {
				size_t len = put(body, "..\r\n", 4);

				len += put_lines(body + len, at);
				len += put(body + len, "\r\n..", (dots & 1) != 0 ? 3 : 2);
				memset(body + len, 'b', bytes);
				len += bytes;
				len += put(body + len, "\r\n..c\r\n", (dots & 2) != 0 ? 7 : 2);
				len += put_lines(body + len, 400);
				check_cuts(body, len, chance((unsigned)len));
			}
		}
	}
}

static void test_long_lines(void **state)
{
	(void)state;
	in_each_way(check_long_lines);
}

/* Dots here and there do not cut text up; but one dot does not move all that is behind it. */
static void check_moves(void)
{
	static uint8_t body[BODY_BYTES];
	struct dot_reader reader;
	struct span text;
	size_t consumed;
	size_t len = 0;

	while (len < BODY_BYTES - 1200) {
		len += put_lines(body + len, 1000);
		len += put(body + len, "\r\n..x", 5);
	}
	len += put(body + len, "\r\n", 2);
	dot_reader_init(&reader);
	assert_int_equal(dot_take(&reader, body, len, &consumed, &text), DOT_TEXT);
	assert_int_equal(consumed, len);

	len = put(body, "a\r\n..b\r\n", 8);
	len += put_lines(body + len, BODY_BYTES - len);
	dot_reader_init(&reader);
	assert_int_equal(dot_take(&reader, body, len, &consumed, &text), DOT_TEXT);
	assert_int_equal(text.len, consumed - 1);
	assert_in_range(consumed, DOT_MOVE_BYTES_MAX, DOT_MOVE_BYTES_MAX + 512);
	assert_int_equal(
		dot_take(&reader, body + consumed, len - consumed, &consumed, &text), DOT_TEXT);
	assert_int_equal(text.len, consumed);
}

static void test_moves(void **state)
{
	(void)state;
	in_each_way(check_moves);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_by_chance),
		cmocka_unit_test(test_places),
		cmocka_unit_test(test_long_lines),
		cmocka_unit_test(test_moves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
