/* SPDX-License-Identifier: Apache-2.0 */

/*
 * fuzz_line.c: line_next() and line_skip() on any bytes. The first byte is the
 * limit. What they find must be so, and must not depend on how much of the
 * input was there at first.
 */

#include "relay/smtp/line.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool fuzz_has_end(struct span in)
{
	for (size_t i = 0; i + 1 < in.len; i++) {
		if (in.data[i] == '\r' && in.data[i + 1] == '\n')
			return true;
	}
	return false;
}

static bool fuzz_has(struct span in, uint8_t byte)
{
	return span_find(in, byte) < in.len;
}

static void fuzz_next(struct span in, size_t line_bytes_max)
{
	struct span line = {0};
	enum line_status status = line_next(in, line_bytes_max, &line);
	struct span window = span_head(in, line_bytes_max);
	bool is_bare;

	if (status == LINE_MORE || status == LINE_LONG) {
		ASSERT(!fuzz_has_end(window));
		ASSERT(status == LINE_LONG || in.len < line_bytes_max);
		ASSERT(status == LINE_MORE || in.len + 1 >= line_bytes_max);
		return;
	}
	ASSERT(line.data == in.data && line.len + 2 <= window.len);
	ASSERT(in.data[line.len] == '\r' && in.data[line.len + 1] == '\n');
	/* Nothing ends before: even the line and the CR behind it hold no CR LF. */
	ASSERT(!fuzz_has_end(span_head(in, line.len + 1)));
	is_bare = fuzz_has(line, '\r') || fuzz_has(line, '\n');
	ASSERT((status == LINE_BARE) == is_bare);
	ASSERT((status == LINE_NUL) == (!is_bare && fuzz_has(line, '\0')));
	/* With any less the answer was "more". */
	for (size_t len = 0; len < line.len + 2; len++)
		ASSERT(line_next(span_head(in, len), line_bytes_max, &line) == LINE_MORE);
}

static void fuzz_skip(struct span in)
{
	size_t whole = 0;
	bool is_found = line_skip(in, &whole);

	ASSERT(is_found == fuzz_has_end(in));
	for (size_t cut = 0; cut <= in.len; cut++) {
		size_t first = 0;
		size_t second = 0;

		if (line_skip(span_head(in, cut), &first)) {
			ASSERT(is_found && first == whole);
			continue;
		}
		ASSERT(line_skip(span_skip(in, first), &second) == is_found);
		ASSERT(first + second == whole);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1 || size > 512)
		return 0;
	fuzz_next(span_make(data + 1, size - 1), data[0]);
	fuzz_skip(span_make(data + 1, size - 1));
	return 0;
}
