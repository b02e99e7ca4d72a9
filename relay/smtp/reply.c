/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/reply.h"

#include "relay/base/format.h"
#include "relay/smtp/chars.h"
#include "relay/smtp/line.h"
#include "relay/smtp/xclient.h"

/* "250" and the "-" or space behind it. */
#define REPLY_CODE_BYTES 3
#define REPLY_PREFIX_BYTES 4

/*
 * May this be the start of a reply line? It need not be whole: a server that
 * ends its lines with a bare LF is found out at once, not by a timeout.
 */
static bool reply_line_is_possible(struct span line)
{
	for (size_t i = 0; i < line.len && i < REPLY_CODE_BYTES; i++) {
		if (!char_is_digit(line.data[i]))
			return false;
	}
	if (line.len > 0 && (line.data[0] < '2' || line.data[0] > '5'))
		return false;
	return line.len <= REPLY_CODE_BYTES || line.data[REPLY_CODE_BYTES] == ' ' ||
	       line.data[REPLY_CODE_BYTES] == '-';
}

/* A line whose CR LF has not come: can it still become a reply line? */
static bool reply_rest_is_possible(struct span rest)
{
	if (rest.len == 0)
		return true;
	ASSERT(rest.data != NULL);
	if (rest.data[rest.len - 1] == '\r')
		rest.len--;
	return reply_line_is_possible(rest) && span_find(rest, '\r') == rest.len &&
	       span_find(rest, '\n') == rest.len && span_find(rest, '\0') == rest.len;
}

/* Its code, or 0 if this is no reply line. */
static unsigned reply_line_code(struct span line)
{
	if (line.len < REPLY_CODE_BYTES || !reply_line_is_possible(line))
		return 0;
	return (line.data[0] - '0') * 100u + (line.data[1] - '0') * 10u + (line.data[2] - '0');
}

enum reply_status reply_parse(struct span in, struct reply *out)
{
	unsigned first_code = 0;
	size_t at = 0;

	for (;;) {
		struct span rest = span_skip(in, at);
		struct span line = {0};
		enum line_status status = line_next(rest, REPLY_BYTES_MAX - at, &line);
		unsigned code;

		if (status == LINE_MORE)
			return reply_rest_is_possible(rest) ? REPLY_MORE : REPLY_BAD;
		code = status == LINE_OK ? reply_line_code(line) : 0;
		if (code == 0 || (first_code != 0 && code != first_code))
			return REPLY_BAD;
		first_code = code;
		at += line.len + 2;
		if (line.len > REPLY_CODE_BYTES && line.data[REPLY_CODE_BYTES] == '-')
			continue;
		*out = (struct reply){
			.code = code,
			.wire = span_head(in, at),
			.text = span_skip(line, REPLY_PREFIX_BYTES),
		};
		return REPLY_OK;
	}
}

/* The first word of *rest, which then begins behind it and its blanks. */
static struct span reply_take_word(struct span *rest)
{
	struct span word = span_head(*rest, span_find(*rest, ' '));

	*rest = span_trim(span_skip(*rest, word.len));
	return word;
}

static void reply_parse_ehlo_line(struct span line, struct ehlo_offer *out)
{
	static const struct {
		const char *name;
		enum ehlo_keyword keyword;
	} known[] = {
		{"SIZE", EHLO_SIZE},
		{"PIPELINING", EHLO_PIPELINING},
		{"8BITMIME", EHLO_8BITMIME},
		{"SMTPUTF8", EHLO_SMTPUTF8},
		{"CHUNKING", EHLO_CHUNKING},
		{"BINARYMIME", EHLO_BINARYMIME},
		{"DSN", EHLO_DSN},
		{"ENHANCEDSTATUSCODES", EHLO_ENHANCEDSTATUSCODES},
		{"STARTTLS", EHLO_STARTTLS},
		{"XCLIENT", EHLO_XCLIENT},
	};
	struct span word = reply_take_word(&line);

	for (size_t i = 0; i < COUNT_OF(known); i++) {
		if (!span_equal_nocase(word, span_of(known[i].name)))
			continue;
		out->keywords |= (unsigned)known[i].keyword;
		if (known[i].keyword == EHLO_SIZE && !chars_to_number(line, &out->size_max))
			out->size_max = 0;
		if (known[i].keyword == EHLO_XCLIENT)
			out->xclient = xclient_attributes(line);
	}
}

void reply_parse_ehlo(const struct reply *reply, struct ehlo_offer *out)
{
	struct span rest = reply->wire;
	bool is_first = true;

	*out = (struct ehlo_offer){0};
	while (rest.len > 0) {
		struct span line = span_head(rest, span_find(rest, '\r'));
		struct span words = span_trim(span_skip(line, REPLY_PREFIX_BYTES));

		rest = span_skip(rest, line.len + 2);
		if (is_first)
			out->domain = reply_take_word(&words);
		else
			reply_parse_ehlo_line(words, out);
		is_first = false;
	}
}

size_t reply_vprint(char *out, size_t out_bytes, const char *format, va_list args)
{
	size_t len;

	ASSERT(out_bytes > 3);
	len = format_vprint(out, out_bytes - 2, format, args);
	ASSERT(len > 0);
	memcpy(out + len, "\r\n", 3);
	return len + 2;
}
