/* SPDX-License-Identifier: Apache-2.0 */

/*
 * fuzz_dot.c: three properties of dot.c. What dot_read() and dot_take() find is what a reader
 * of single bytes finds, whatever the split. What dot_write() wrote is read
 * back as the same body. And a body checked by body_check() has the same flaws.
 *
 * The first byte seeds the splits and chooses the way to look, the rest is the input.
 */

#include "relay/smtp/dot.h"
#include "relay/smtp/dot_walk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_BYTES_MAX 8192

/* What a reading gave. */
struct fuzz_result {
	enum dot_status status;
	size_t consumed;
	size_t len;
	unsigned flaws;
	uint8_t body[2 * FUZZ_BYTES_MAX + 8];
};

static uint32_t fuzz_random;

/* Piece lengths on both sides of a block, many of one or two bytes, and some of many groups. */
static size_t fuzz_piece_bytes(void)
{
	fuzz_random = fuzz_random * 1664525u + 1013904223u;
	if ((fuzz_random >> 20) % 16 == 0)
		return (fuzz_random >> 8) % 3000;
	return (fuzz_random >> 24) % 3 == 0 ? (fuzz_random >> 16) % 200 : 1 + (fuzz_random >> 30);
}

/* A copy of exactly its length, so that the sanitizer sees each byte that is read too many. */
static uint8_t *fuzz_copy(struct span piece)
{
	uint8_t *copy = malloc(piece.len + 1);

	ASSERT(copy != NULL);
	memcpy(copy + 1, piece.data, piece.len);
	return copy;
}

static void fuzz_read_piece(
	struct dot_reader *reader, struct span piece, struct fuzz_result *result)
{
	uint8_t *copy = fuzz_copy(piece);
	struct span rest = span_make(copy + 1, piece.len);

	do {
		struct span text = {0};
		size_t consumed = 0;

		if (fuzz_piece_bytes() % 2 == 0)
			result->status = dot_take(reader, copy + 1 + (piece.len - rest.len),
				rest.len, &consumed, &text);
		else
			result->status = dot_read(reader, rest, &consumed, &text);
		ASSERT(consumed <= rest.len);
		result->consumed += consumed;
		rest = span_skip(rest, consumed);
		ASSERT(result->status != DOT_MORE || rest.len == 0);
		ASSERT(result->status != DOT_TEXT || text.len > 0);
		ASSERT(result->len + text.len <= sizeof(result->body));
		if (text.len > 0)
			memcpy(result->body + result->len, text.data, text.len);
		result->len += text.len;
	} while (result->status == DOT_TEXT);
	free(copy);
}

static void fuzz_read(struct span in, struct fuzz_result *result)
{
	struct dot_reader reader;

	dot_reader_init(&reader);
	result->status = DOT_MORE;
	result->consumed = result->len = 0;
	while (in.len > 0 && result->status != DOT_END) {
		struct span piece = span_head(in, fuzz_piece_bytes());

		fuzz_read_piece(&reader, piece, result);
		in = span_skip(in, piece.len);
	}
	result->flaws = reader.flaws;
}

/* Is there a line end, or the start of the body, right before at? */
static bool fuzz_is_line_start(struct span in, size_t at)
{
	return at == 0 || (at >= 2 && in.data[at - 2] == '\r' && in.data[at - 1] == '\n');
}

/* The same by the words of the RFC, a byte at a time and with all of the input at hand. */
static void fuzz_read_plainly(struct span in, struct fuzz_result *result)
{
	size_t at = 0;

	result->status = DOT_MORE;
	result->len = 0;
	for (; at < in.len; at++) {
		struct span rest = span_skip(in, at);

		if (in.data[at] == '.' && fuzz_is_line_start(in, at)) {
			if (rest.len >= 3 && rest.data[1] == '\r' && rest.data[2] == '\n') {
				result->status = DOT_END;
				at += 3;
				break;
			}
			/* This CR may yet belong to the end: nobody can give it. */
			if (rest.len == 2 && rest.data[1] == '\r')
				at++;
			continue;
		}
		result->body[result->len++] = in.data[at];
	}
	result->consumed = at;
}

static unsigned fuzz_flaws_plainly(struct span body)
{
	unsigned flaws = 0;
	size_t column = 0;

	for (size_t i = 0; i < body.len; i++) {
		uint8_t byte = body.data[i];
		bool is_end = byte == '\r' && i + 1 < body.len && body.data[i + 1] == '\n';

		flaws |= byte == '\0' ? BODY_NUL : 0u;
		flaws |= byte > 127 ? BODY_EIGHT_BIT : 0u;
		flaws |= byte == '\r' && !is_end ? BODY_BARE_CR : 0u;
		flaws |= byte == '\n' ? BODY_BARE_LF : 0u;
		if (is_end)
			i++;
		column = is_end ? 0 : column + 1;
		flaws |= column > 998 ? BODY_LONG_LINE : 0u;
	}
	return flaws;
}

static void fuzz_check_reading(struct span in)
{
	static struct fuzz_result split, plain;

	fuzz_read(in, &split);
	fuzz_read_plainly(in, &plain);
	ASSERT(split.status == plain.status);
	ASSERT(split.consumed == plain.consumed);
	ASSERT(span_equal(span_make(split.body, split.len), span_make(plain.body, plain.len)));
	/* A body that goes on may end in a CR of which nobody knows yet. */
	if (split.status == DOT_END)
		ASSERT(split.flaws == fuzz_flaws_plainly(span_make(plain.body, plain.len)));
}

static void fuzz_check_body(struct span body)
{
	unsigned want = fuzz_flaws_plainly(body);
	struct dot_reader reader;

	dot_reader_init(&reader);
	while (body.len > 0) {
		struct span piece = span_head(body, fuzz_piece_bytes());
		uint8_t *copy = fuzz_copy(piece);

		body_check(&reader, span_make(copy + 1, piece.len));
		free(copy);
		body = span_skip(body, piece.len);
	}
	body_check_end(&reader);
	ASSERT(reader.flaws == want);
}

static void fuzz_check_writing(struct span body)
{
	static uint8_t wire[2 * FUZZ_BYTES_MAX + 8];
	static struct fuzz_result back;
	struct dot_writer writer;
	struct span rest = body;
	size_t wire_len = 0;
	bool is_ended = fuzz_is_line_start(body, body.len);

	dot_writer_init(&writer);
	while (rest.len > 0) {
		size_t room = 1 + fuzz_piece_bytes();
		size_t written = 0;
		size_t used = dot_write(&writer, span_head(rest, 1 + fuzz_piece_bytes()),
			wire + wire_len, room, &written);

		ASSERT(written > 0 && written <= room);
		wire_len += written;
		rest = span_skip(rest, used);
	}
	wire_len += dot_write_end(&writer, wire + wire_len);
	fuzz_read(span_make(wire, wire_len), &back);
	ASSERT(back.status == DOT_END && back.consumed == wire_len);
	ASSERT(back.len == body.len + (is_ended ? 0 : 2));
	ASSERT(span_equal(span_make(back.body, body.len), body));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span in;

	if (size < 1 || size > FUZZ_BYTES_MAX)
		return 0;
	fuzz_random = data[0];
	if (!dot_walk_choose(data[0] % 3))
		ASSERT(dot_walk_choose(0));
	in = span_make(data + 1, size - 1);
	fuzz_check_reading(in);
	fuzz_check_body(in);
	fuzz_check_writing(in);
	return 0;
}
