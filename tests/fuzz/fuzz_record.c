/* SPDX-License-Identifier: Apache-2.0 */

/*
 * fuzz_record.c: record_read() and the readers of payloads on any bytes. The first byte says how
 * the others are taken: as a record, or as the payload of that type. What was understood lies
 * inside, and written again it is the same.
 */

#include "relay/mail/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_BYTES_MAX 8192

static void fuzz_check_inside(struct span part, struct span whole)
{
	ASSERT(part.len == 0 ||
		(part.data >= whole.data && part.data + part.len <= whole.data + whole.len));
}

static void fuzz_segment(struct span in)
{
	struct record_segment segment;
	uint8_t again[RECORD_SEGMENT_BYTES];

	if (!record_read_segment(in, &segment))
		return;
	record_write_segment(&segment, again);
	ASSERT(span_equal(in, span_make(again, sizeof(again))));
}

static void fuzz_body(struct span in)
{
	struct span text;
	uint8_t head[RECORD_BODY_HEAD_BYTES];
	uint64_t at;

	if (!record_read_body(in, &at, &text))
		return;
	fuzz_check_inside(text, in);
	record_write_body_head(at, head);
	ASSERT(text.len > 0 && text.len + sizeof(head) == in.len);
	ASSERT(span_equal(span_head(in, sizeof(head)), span_make(head, sizeof(head))));
}

static void fuzz_message(struct span in)
{
	static uint8_t head[FUZZ_BYTES_MAX];
	struct record_message message;
	struct record_extent extent;
	uint64_t bytes = 0;
	uint32_t count = 0;
	size_t len;

	if (!record_read_message(in, &message))
		return;
	fuzz_check_inside(message.extents, in);
	fuzz_check_inside(message.envelope, in);
	fuzz_check_inside(message.text, in);
	for (; record_read_extent(&message, count, &extent); count++) {
		uint8_t again[RECORD_EXTENT_BYTES];

		record_write_extent(&extent, again);
		ASSERT(memcmp(again, message.extents.data + count * sizeof(again), sizeof(again)) ==
			0);
		bytes += extent.bytes;
	}
	ASSERT(count == message.extent_count);
	ASSERT(bytes + message.text.len == message.body_bytes);
	len = record_write_message_head(&message, head);
	ASSERT(len + message.envelope.len + message.text.len == in.len);
	ASSERT(span_equal(span_head(in, len), span_make(head, len)));
}

static void fuzz_record(struct span in)
{
	static uint8_t again[FUZZ_BYTES_MAX];
	struct record_head head;
	struct span payload;

	if (record_read(in, 0, &head, &payload) != RECORD_GOOD)
		return;
	fuzz_check_inside(payload, in);
	ASSERT(record_bytes(payload.len) <= in.len && payload.len == head.payload_bytes);
	memcpy(again + RECORD_HEADER_BYTES, payload.data, payload.len);
	record_seal(&head, again);
	ASSERT(memcmp(again, in.data, record_bytes(payload.len)) == 0);
	ASSERT(record_read(in, head.segment + 1, &head, &payload) != RECORD_GOOD);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span in;
	enum record_done why;

	if (size < 1 || size > FUZZ_BYTES_MAX)
		return 0;
	in = span_make(data + 1, size - 1);
	switch (data[0] % (RECORD_SEAL + 1)) {
	case RECORD_SEGMENT:
		fuzz_segment(in);
		break;
	case RECORD_BODY:
		fuzz_body(in);
		break;
	case RECORD_MESSAGE:
		fuzz_message(in);
		break;
	case RECORD_DONE:
		if (record_read_done(in, &why))
			ASSERT(in.len == 1 && in.data[0] == (uint8_t)why);
		break;
	default:
		fuzz_record(in);
		break;
	}
	return 0;
}
