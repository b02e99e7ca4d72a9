/* SPDX-License-Identifier: Apache-2.0 */

/*
 * fuzz_header.c: header_scan() finds what one finds with the whole header at
 * hand, line by line, whatever the split. The first byte seeds the splits.
 */

#include "relay/smtp/header.h"

#include "relay/base/assert.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_BYTES_MAX 4096

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

static struct header_scan fuzz_scan_plainly(struct span in)
{
	struct header_scan found = {0};

	while (!found.is_done && found.bytes < in.len) {
		struct span rest = span_skip(in, found.bytes);
		size_t end = fuzz_line_end(rest);

		found.received_count += fuzz_is_received(span_head(rest, end)) ? 1 : 0;
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
	header_scan_init(&scan);
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
	return 0;
}
