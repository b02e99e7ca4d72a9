/* SPDX-License-Identifier: Apache-2.0 */

/*
 * fuzz_fields.c: fields_scan() finds the same whatever the split, and its values are fit for a log.
 * The first byte seeds the splits.
 */

#include "relay/smtp/fields.h"

#include "relay/base/assert.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_BYTES_MAX 4096

static void fuzz_check_value(struct span value, size_t max)
{
	ASSERT(value.len <= max);
	for (size_t i = 0; i < value.len; i++)
		ASSERT(value.data[i] >= ' ' && value.data[i] != 0x7f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fields whole, split;
	struct span rest;
	uint32_t random;

	if (size < 1 || size > FUZZ_BYTES_MAX)
		return 0;
	random = data[0];
	rest = span_make(data + 1, size - 1);
	fields_init(&whole);
	fields_scan(&whole, rest);
	fields_init(&split);
	while (rest.len > 0) {
		struct span piece;

		random = random * 1664525u + 1013904223u;
		piece = span_head(rest, (random >> 24) % 24);
		fields_scan(&split, piece);
		rest = span_skip(rest, piece.len);
	}
	ASSERT(whole.is_done == split.is_done && whole.bytes == split.bytes);
	ASSERT(whole.is_utf8 == split.is_utf8);
	ASSERT(span_equal(fields_message_id(&whole), fields_message_id(&split)));
	ASSERT(span_equal(fields_subject(&whole), fields_subject(&split)));
	fuzz_check_value(fields_message_id(&whole), FIELDS_MESSAGE_ID_BYTES);
	fuzz_check_value(fields_subject(&whole), FIELDS_SUBJECT_BYTES);
	return 0;
}
