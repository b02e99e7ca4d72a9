/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_dot_walk.c: bodies are looked at many bytes at once. By chance, in pieces of any length,
 * they give what they give byte by byte.
 */

#include "relay/smtp/dot.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { BODIES = 4000, BODY_BYTES = 12000, PIECE_BYTES = 900 };

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
	static const uint8_t odd[] = {'\r', '\n', '.', 0, 0x80, 0xff, 'x', 'x'};
	const unsigned oddness = chance(4) == 0 ? 0 : 20 + chance(2000);
	const unsigned line_max = chance(3) == 0 ? 1 + chance(2200) : 1 + chance(120);
	size_t len = 0;

	while (len < BODY_BYTES - PIECE_BYTES * 3) {
		const size_t line = chance(line_max);

		if (chance(12) == 0)
			out[len++] = '.';
		for (size_t i = 0; i < line; i++)
			out[len++] = oddness > 0 && chance(oddness) == 0 ? odd[chance(sizeof(odd))]
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

static void test_by_chance(void **state)
{
	static uint8_t body[BODY_BYTES];
	static struct seen want;
	static struct seen got;
	unsigned ends = 0;

	(void)state;
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_by_chance),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
