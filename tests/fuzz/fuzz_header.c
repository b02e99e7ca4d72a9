/* SPDX-License-Identifier: Apache-2.0 */

/*
 * fuzz_header.c: header_scan() finds what one finds with the whole header at
 * hand, line by line, whatever the split. The first byte seeds the splits.
 */

#include "relay/smtp/header.h"

#include "relay/base/assert.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_BYTES_MAX 4096
#define FUZZ_FQDN "edge.test"

/* Where the CR LF of the first line of in begins, or in.len. */
static size_t fuzz_line_end(struct span in)
{
	for (size_t i = 0; i + 1 < in.len; i++) {
		if (in.data[i] == '\r' && in.data[i + 1] == '\n')
			return i;
	}
	return in.len;
}

static bool fuzz_is_received(struct span line)
{
	const struct span name = span_of("Received");
	struct span rest = span_skip(line, name.len);

	if (!span_starts_nocase(line, name))
		return false;
	rest = span_trim(rest);
	return rest.len > 0 && rest.data[0] == ':';
}

/* What is outside of comments and quotes; those become one blank, or a word of their own. */
static size_t fuzz_strip(struct span field, char *out)
{
	unsigned depth = 0;
	bool is_quoted = false;
	size_t len = 0;

	for (size_t i = 0; i < field.len; i++) {
		char byte = (char)field.data[i];

		if (byte == '\\' && (is_quoted || depth > 0)) {
			i += i + 1 < field.len && field.data[i + 1] != '\r' ? 1 : 0;
		} else if (byte == '"' && depth == 0) {
			is_quoted = !is_quoted;
			out[len++] = ' ';
			out[len++] = '"';
			out[len++] = ' ';
		} else if (is_quoted) {
			continue;
		} else if (byte == '(') {
			depth++;
			out[len++] = ' ';
		} else if (depth > 0) {
			depth -= byte == ')' ? 1 : 0;
		} else {
			bool is_gap = byte == '\r' || byte == '\t' || byte == ';';

			/* A LF of a fold goes with its CR. */
			if (byte == '\n' && i > 0 && field.data[i - 1] == '\r')
				is_gap = true;
			out[len] = (char)byte;
			if (is_gap)
				out[len] = ' ';
			len++;
		}
	}
	return len;
}

/* Does the Received field name us behind "by"? */
static bool fuzz_is_local(struct span field)
{
	static char text[3 * FUZZ_BYTES_MAX];
	struct span rest = span_make(text, fuzz_strip(field, text));
	bool follows_by = false;

	while ((rest = span_trim(rest)).len > 0) {
		struct span word = span_head(rest, span_find(rest, ' '));

		if (follows_by && span_equal_nocase(word, span_of(FUZZ_FQDN)))
			return true;
		follows_by = span_equal_nocase(word, span_of("by"));
		rest = span_skip(rest, word.len);
	}
	return false;
}

/* Of a whole message: what lies between the colon of the field at the start and its end. */
static struct span fuzz_value(struct span in)
{
	size_t start = span_find(in, ':') + 1;
	size_t end = fuzz_line_end(in);

	while (end + 2 < in.len && (in.data[end + 2] == ' ' || in.data[end + 2] == '\t'))
		end += 2 + fuzz_line_end(span_skip(in, end + 2));
	/* A word at the very end of all is not yet known to be complete. */
	if (end == in.len) {
		while (end > start && strchr(" \t\r;(\"", in.data[end - 1]) == NULL)
			end--;
	}
	return span_skip(span_head(in, end), start);
}

static struct header_scan fuzz_scan_plainly(struct span in)
{
	struct header_scan found = {0};

	while (!found.is_done && found.bytes < in.len) {
		struct span rest = span_skip(in, found.bytes);
		size_t end = fuzz_line_end(rest);

		if (fuzz_is_received(span_head(rest, end))) {
			found.received_count++;
			found.local_count += fuzz_is_local(fuzz_value(rest)) ? 1 : 0;
		}
		found.is_done = end == 0;
		found.bytes += end < rest.len ? end + 2 : end;
	}
	return found;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct header_scan scan, want;
	struct span rest;
	uint32_t random;

	if (size < 1 || size > FUZZ_BYTES_MAX)
		return 0;
	random = data[0];
	rest = span_make(data + 1, size - 1);
	want = fuzz_scan_plainly(rest);
	header_scan_init(&scan, FUZZ_FQDN);
	while (rest.len > 0) {
		struct span piece;

		random = random * 1664525u + 1013904223u;
		piece = span_head(rest, (random >> 24) % 24);
		header_scan(&scan, piece);
		rest = span_skip(rest, piece.len);
	}
	ASSERT(scan.is_done == want.is_done);
	ASSERT(scan.bytes == want.bytes);
	ASSERT(scan.received_count == want.received_count);
	ASSERT(scan.local_count == want.local_count);
	return 0;
}
