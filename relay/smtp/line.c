/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/line.h"

/*
 * Where the next CR LF begins, or in.len. Going from LF to LF lets memchr do the
 * walking: a line has one LF, and any other is a fault.
 */
static size_t line_end(struct span in)
{
	size_t at = 0;

	while (at < in.len) {
		at += span_find(span_skip(in, at), '\n');
		if (at < in.len && at > 0 && in.data[at - 1] == '\r')
			return at - 1;
		at++;
	}
	return in.len;
}

static bool line_has(struct span line, uint8_t byte)
{
	return span_find(line, byte) < line.len;
}

enum line_status line_next(struct span in, size_t line_bytes_max, struct span *out)
{
	struct span window = span_head(in, line_bytes_max);
	size_t end = line_end(window);
	struct span line = span_head(in, end);

	if (end == window.len) {
		bool is_half_ended = end > 0 && window.data[end - 1] == '\r';
		size_t missing = is_half_ended ? 1 : 2;

		return end + missing > line_bytes_max ? LINE_LONG : LINE_MORE;
	}
	*out = line;
	/* The line goes up to the first CR LF, so each CR or LF that is left is bare. */
	if (line_has(line, '\r') || line_has(line, '\n'))
		return LINE_BARE;
	return line_has(line, '\0') ? LINE_NUL : LINE_OK;
}

bool line_skip(struct span in, size_t *consumed)
{
	size_t end = line_end(in);

	if (end < in.len) {
		*consumed = end + 2;
		return true;
	}
	*consumed = in.len;
	if (in.len > 0 && in.data[in.len - 1] == '\r')
		*consumed = in.len - 1;
	return false;
}
