/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/dot.h"

#include "relay/smtp/dot_walk.h"

/* A CR that was held back. */
static const uint8_t dot_held_cr = '\r';

/*
 * What came last. The first three are all that a body without dots at line
 * starts ever sees, and the only ones in which dot_scan() may be called.
 */
enum dot_state {
	AT_LINE_START, /* the body began or a CR LF ended: a dot here is stuffing or the end */
	AT_TEXT,       /* inside a line */
	AT_CR,         /* inside a line, behind a CR which was given as text already */
	AT_DOT,        /* behind the dot that began a line; that one is never given */
	AT_DOT_CR,     /* behind that dot and a CR: held back, for it may belong to the end */
	AT_END,        /* end of data was found; only dot_reader_init() leads on */
};

static void dot_enter(struct dot_reader *reader, enum dot_state state)
{
	reader->state = (uint8_t)state;
}

/*
 * Looks at body text, at least a byte of it: with out, taking dots out, so that the text ends at
 * *out; or up to a dot that begins a line. Returns how many bytes these are, which are none only
 * where such a dot comes first.
 */
static size_t dot_scan(
	struct dot_reader *reader, struct span in, enum dot_walk_how how, uint8_t **out)
{
	const enum dot_state last = (enum dot_state)reader->state;
	struct dot_walk walk = {
		.in = in,
		.line_at = -(ptrdiff_t)reader->column,
		.flaws = reader->flaws,
		.how = how,
		.is_after_cr = last == AT_CR,
		.is_at_start = last == AT_LINE_START,
		.out = out == NULL ? NULL : *out,
	};
	ptrdiff_t column;

	ASSERT(last == AT_LINE_START || last == AT_TEXT || last == AT_CR);
	dot_walk(&walk);

	/*
	 * One byte more than the limit may be the CR of the line's end. With two
	 * more the line is too long for sure, and counting on would only wrap.
	 */
	column = (ptrdiff_t)walk.at - walk.line_at;
	if (column > BODY_LINE_BYTES_MAX + 1) {
		walk.flaws |= BODY_LONG_LINE;
		column = BODY_LINE_BYTES_MAX + 2;
	}
	reader->column = (uint32_t)column;
	reader->flaws = walk.flaws;
	dot_enter(reader, walk.is_after_cr ? AT_CR : walk.is_at_start ? AT_LINE_START : AT_TEXT);
	if (out != NULL)
		*out = walk.out;
	return walk.at;
}

void dot_reader_init(struct dot_reader *reader)
{
	*reader = (struct dot_reader){.state = AT_LINE_START};
}

/* Is the next byte, which is this one, a dot that begins a line? */
static bool dot_is_at_dot(const struct dot_reader *reader, uint8_t byte)
{
	return reader->state == AT_LINE_START && byte == '.';
}

/* Does this byte, which follows the dot that began a line, belong to the end of data so far? */
static bool dot_read_may_end(struct dot_reader *reader, uint8_t byte)
{
	if (reader->state == AT_DOT && byte == '\r') {
		dot_enter(reader, AT_DOT_CR);
		return true;
	}
	if (reader->state == AT_DOT_CR && byte == '\n') {
		dot_enter(reader, AT_END);
		return true;
	}
	return false;
}

/* The byte behind CR LF "." CR is no LF: the CR was text after all, and a bare one. */
static void dot_read_held_cr(struct dot_reader *reader)
{
	reader->flaws |= BODY_BARE_CR;
	reader->column = 1;
	dot_enter(reader, AT_TEXT);
}

/*
 * Reads what stands between pieces of text. Moves *at behind the dots that begin a line, and behind
 * the end of data if it is there. Returns whether the held CR is the next text.
 */
static bool dot_read_dots(struct dot_reader *reader, struct span in, size_t *at)
{
	while (*at < in.len && reader->state != AT_END) {
		if (dot_is_at_dot(reader, in.data[*at])) {
			dot_enter(reader, AT_DOT);
			++*at;
		} else if (dot_read_may_end(reader, in.data[*at])) {
			++*at;
		} else if (reader->state == AT_DOT) {
			dot_enter(reader, AT_TEXT);
		} else if (reader->state == AT_DOT_CR) {
			dot_read_held_cr(reader);
			return true;
		} else {
			break;
		}
	}
	return false;
}

enum dot_status dot_read(
	struct dot_reader *reader, struct span in, size_t *consumed, struct span *text)
{
	size_t at = 0;
	bool is_held;

	ASSERT(reader->state != AT_END);
	is_held = dot_read_dots(reader, in, &at);
	if (is_held)
		*text = span_make(&dot_held_cr, 1);
	else if (reader->state != AT_END && at < in.len)
		*text = span_head(span_skip(in, at),
			dot_scan(reader, span_skip(in, at), DOT_WALK_STOP, NULL));
	else
		*text = (struct span){0};
	*consumed = at + (is_held ? 0 : text->len);
	if (text->len > 0)
		return DOT_TEXT;
	return reader->state == AT_END ? DOT_END : DOT_MORE;
}

enum dot_status dot_take(
	struct dot_reader *reader, uint8_t *in, size_t len, size_t *consumed, struct span *text)
{
	const struct span all = span_make(in, len);
	uint8_t *start = NULL;
	uint8_t *end = NULL;
	size_t at = 0;

	ASSERT(reader->state != AT_END);
	do {
		if (dot_read_dots(reader, all, &at)) {
			/* There may be no room for it in front of what is at hand. */
			if (start == NULL) {
				*consumed = at;
				*text = span_make(&dot_held_cr, 1);
				return DOT_TEXT;
			}
			*end++ = dot_held_cr;
		}
		if (reader->state == AT_END || at == len)
			break;
		if (start == NULL)
			start = end = in + at;
		at += dot_scan(reader, span_skip(all, at), DOT_WALK_TAKE, &end);
	} while (at < len && dot_is_at_dot(reader, in[at]));
	*consumed = at;
	*text = start == NULL ? (struct span){0} : span_make(start, (size_t)(end - start));
	if (reader->state == AT_END)
		return DOT_END;
	return start == NULL ? DOT_MORE : DOT_TEXT;
}

void body_check(struct dot_reader *reader, struct span in)
{
	(void)dot_scan(reader, in, DOT_WALK_PASS, NULL);
}

void body_check_end(struct dot_reader *reader)
{
	if (reader->state == AT_CR)
		reader->flaws |= BODY_BARE_CR;
	if (reader->column > BODY_LINE_BYTES_MAX)
		reader->flaws |= BODY_LONG_LINE;
}

void dot_writer_init(struct dot_writer *writer)
{
	*writer = (struct dot_writer){.state = AT_LINE_START};
}

size_t dot_write(struct dot_writer *writer, struct span in, uint8_t *out, size_t out_bytes_max,
	size_t *out_len)
{
	/* The reader's scan finds the places; what else it notes is dropped. */
	struct dot_reader scan = {.state = writer->state};
	size_t used = 0;
	size_t len = 0;

	while (used < in.len && len < out_bytes_max) {
		struct span rest = span_head(span_skip(in, used), out_bytes_max - len);
		size_t count = 0;

		if (!dot_is_at_dot(&scan, rest.data[0]))
			count = dot_scan(&scan, rest, DOT_WALK_STOP, NULL);
		if (count > 0) {
			memcpy(out + len, rest.data, count);
			used += count;
			len += count;
		} else {
			/* The body's own dot comes next, as text: there may be no room for it now.
			 */
			out[len++] = '.';
			dot_enter(&scan, AT_TEXT);
		}
	}
	*writer = (struct dot_writer){.state = scan.state};
	*out_len = len;
	return used;
}

size_t dot_write_end(struct dot_writer *writer, uint8_t out[DOT_END_BYTES_MAX])
{
	static const char end[] = "\r\n.\r\n";
	size_t skip = writer->state == AT_LINE_START ? 2 : 0;

	memcpy(out, end + skip, DOT_END_BYTES_MAX - skip);
	*writer = (struct dot_writer){.state = AT_END};
	return DOT_END_BYTES_MAX - skip;
}
