/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/record.h"

#include "relay/base/crc32c.h"
#include "relay/mail/envelope.h"
#include "relay/mail/record_private.h"

/* Where the fields of the header are. */
#define AT_MAGIC 0
#define AT_CHECKSUM 4
#define AT_TYPE 8
#define AT_PAYLOAD_BYTES 12
#define AT_SEGMENT 16
#define AT_SEQUENCE 24
#define AT_ID 32
#define AT_TIME 40
#define AT_WRITE 48
#define AT_ZERO 52

#define TYPE_COUNT (RECORD_SEAL + 1)

_Static_assert(AT_ZERO + 4 == RECORD_HEADER_BYTES, "the fields fill the header");

size_t record_bytes(size_t payload_bytes)
{
	return RECORD_HEADER_BYTES + payload_bytes;
}

/* Of header and payload, with the field itself zero. */
static uint32_t record_checksum(struct span record)
{
	static const uint8_t zero[AT_TYPE - AT_CHECKSUM];
	uint32_t crc = crc32c(0, span_head(record, AT_CHECKSUM));

	crc = crc32c(crc, span_make(zero, sizeof(zero)));
	return crc32c(crc, span_skip(record, AT_TYPE));
}

void record_seal(const struct record_head *head, uint8_t *out)
{
	const size_t bytes = record_bytes(head->payload_bytes);

	ASSERT(bytes <= RECORD_BYTES_MAX);
	ASSERT(head->type >= RECORD_SEGMENT && head->type < TYPE_COUNT);
	ASSERT(head->segment > 0);
	put_le(out + AT_MAGIC, RECORD_MAGIC, 4);
	put_le(out + AT_CHECKSUM, 0, 4);
	put_le(out + AT_TYPE, head->type, 4);
	put_le(out + AT_PAYLOAD_BYTES, head->payload_bytes, 4);
	put_le(out + AT_SEGMENT, head->segment, 8);
	put_le(out + AT_SEQUENCE, head->sequence, 8);
	put_le(out + AT_ID, head->id, 8);
	put_le(out + AT_TIME, (uint64_t)head->time_ms, 8);
	put_le(out + AT_WRITE, head->write, 4);
	put_le(out + AT_ZERO, 0, 4);
	put_le(out + AT_CHECKSUM, record_checksum(span_make(out, bytes)), 4);
}

enum record_status record_look(
	struct span in, uint64_t segment, struct record_head *out, struct span *payload)
{
	uint64_t type;

	if (in.len >= AT_CHECKSUM && get_le(in.data, 4) != RECORD_MAGIC)
		return RECORD_NONE;
	if (in.len < RECORD_HEADER_BYTES) {
		*out = (struct record_head){0};
		return RECORD_SHORT;
	}
	if (segment != 0 && get_le(in.data + AT_SEGMENT, 8) != segment)
		return RECORD_NONE;
	type = get_le(in.data + AT_TYPE, 4);
	*out = (struct record_head){
		.type = type < TYPE_COUNT ? (enum record_type)type : (enum record_type)0,
		.payload_bytes = (uint32_t)get_le(in.data + AT_PAYLOAD_BYTES, 4),
		.segment = get_le(in.data + AT_SEGMENT, 8),
		.sequence = get_le(in.data + AT_SEQUENCE, 8),
		.id = get_le(in.data + AT_ID, 8),
		.time_ms = (int64_t)get_le(in.data + AT_TIME, 8),
		.write = (uint32_t)get_le(in.data + AT_WRITE, 4),
	};
	if (out->type < RECORD_SEGMENT || out->segment == 0 ||
		out->payload_bytes > RECORD_BYTES_MAX - RECORD_HEADER_BYTES ||
		get_le(in.data + AT_ZERO, 4) != 0)
		return RECORD_TORN;
	if (record_bytes(out->payload_bytes) > in.len)
		return RECORD_SHORT;
	in = span_head(in, record_bytes(out->payload_bytes));
	*payload = span_skip(in, RECORD_HEADER_BYTES);
	return RECORD_GOOD;
}

enum record_status record_read(
	struct span in, uint64_t segment, struct record_head *out, struct span *payload)
{
	struct span inside;
	const enum record_status status = record_look(in, segment, out, &inside);

	if (status != RECORD_GOOD)
		return status;
	in = span_head(in, record_bytes(inside.len));
	if (get_le(in.data + AT_CHECKSUM, 4) != record_checksum(in))
		return RECORD_TORN;
	*payload = inside;
	return RECORD_GOOD;
}

const char *record_type_name(enum record_type type)
{
	static const char *const names[TYPE_COUNT] = {
		[RECORD_SEGMENT] = "SEGMENT",
		[RECORD_BODY] = "BODY",
		[RECORD_MESSAGE] = "MESSAGE",
		[RECORD_RECIPIENTS] = "RECIPIENTS",
		[RECORD_DONE] = "DONE",
		[RECORD_NOTE] = "NOTE",
		[RECORD_SEAL] = "SEAL",
	};

	return type >= RECORD_SEGMENT && type < TYPE_COUNT ? names[type] : "?";
}

void record_write_segment(const struct record_segment *segment, uint8_t out[RECORD_SEGMENT_BYTES])
{
	put_le(out, segment->format, 4);
	put_le(out + 4, segment->log, 4);
	put_le(out + 8, segment->number, 8);
	put_le(out + 16, segment->segment_bytes, 8);
	put_le(out + 24, (uint64_t)segment->created_ms, 8);
}

bool record_read_segment(struct span payload, struct record_segment *out)
{
	struct record_cursor cursor = {.rest = payload};
	struct record_segment segment;

	segment.format = (uint32_t)cursor_number(&cursor, 4);
	segment.log = (uint32_t)cursor_number(&cursor, 4);
	segment.number = cursor_number(&cursor, 8);
	segment.segment_bytes = cursor_number(&cursor, 8);
	segment.created_ms = (int64_t)cursor_number(&cursor, 8);
	if (!cursor_is_done(&cursor) || segment.format != RECORD_FORMAT || segment.number == 0 ||
		segment.segment_bytes == 0 || segment.segment_bytes % RECORD_BLOCK != 0)
		return false;
	*out = segment;
	return true;
}

void record_write_body_head(uint64_t at, uint8_t out[RECORD_BODY_HEAD_BYTES])
{
	put_le(out, at, RECORD_BODY_HEAD_BYTES);
}

bool record_read_body(struct span payload, uint64_t *at, struct span *text)
{
	if (payload.len <= RECORD_BODY_HEAD_BYTES)
		return false;
	*at = get_le(payload.data, RECORD_BODY_HEAD_BYTES);
	*text = span_skip(payload, RECORD_BODY_HEAD_BYTES);
	return true;
}

size_t record_write_message_head(const struct record_message *message, uint8_t *out)
{
	ASSERT(message->extents.len == (size_t)message->extent_count * RECORD_EXTENT_BYTES);
	ASSERT(message->envelope.len <= ENVELOPE_BYTES_MAX);
	ASSERT(message->text.len <= RECORD_BYTES_MAX);
	put_le(out, message->body_bytes, 8);
	put_le(out + 8, message->extent_count, 4);
	put_le(out + 12, message->envelope.len, 4);
	put_le(out + 16, message->text.len, 4);
	put_le(out + 20, 0, 4);
	if (message->extents.len > 0)
		memmove(out + RECORD_MESSAGE_HEAD_BYTES, message->extents.data,
			message->extents.len);
	return RECORD_MESSAGE_HEAD_BYTES + message->extents.len;
}

void record_write_extent(const struct record_extent *extent, uint8_t out[RECORD_EXTENT_BYTES])
{
	put_le(out, extent->segment, 8);
	put_le(out + 8, extent->offset, 4);
	put_le(out + 12, extent->bytes, 4);
}

/* Every extent may be one, and with the rest they are the body. */
static bool record_check_extents(const struct record_message *message)
{
	uint64_t sum = message->text.len;
	struct record_extent extent;

	for (uint32_t i = 0; record_read_extent(message, i, &extent); i++) {
		if (extent.segment == 0 || extent.offset % RECORD_ALIGN != 0 || extent.bytes == 0 ||
			extent.bytes > RECORD_BODY_TEXT_BYTES_MAX)
			return false;
		sum += extent.bytes;
	}
	return sum == message->body_bytes;
}

bool record_read_message(struct span payload, struct record_message *out)
{
	struct record_cursor cursor = {.rest = payload};
	struct record_message message;
	size_t envelope_bytes, text_bytes;

	message.body_bytes = cursor_number(&cursor, 8);
	message.extent_count = (uint32_t)cursor_number(&cursor, 4);
	envelope_bytes = cursor_number(&cursor, 4);
	text_bytes = cursor_number(&cursor, 4);
	if (cursor_number(&cursor, 4) != 0 || envelope_bytes > ENVELOPE_BYTES_MAX)
		return false;
	message.extents = cursor_span(&cursor, (size_t)message.extent_count * RECORD_EXTENT_BYTES);
	message.envelope = cursor_span(&cursor, envelope_bytes);
	message.text = cursor_span(&cursor, text_bytes);
	if (!cursor_is_done(&cursor) || !record_check_extents(&message))
		return false;
	*out = message;
	return true;
}

bool record_read_extent(
	const struct record_message *message, uint32_t index, struct record_extent *out)
{
	const uint8_t *at;

	if (index >= message->extents.len / RECORD_EXTENT_BYTES)
		return false;
	at = message->extents.data + (size_t)index * RECORD_EXTENT_BYTES;
	*out = (struct record_extent){
		.segment = get_le(at, 8),
		.offset = (uint32_t)get_le(at + 8, 4),
		.bytes = (uint32_t)get_le(at + 12, 4),
	};
	return true;
}

bool record_read_done(struct span payload, enum record_done *out)
{
	if (payload.len != RECORD_DONE_BYTES || payload.data[0] < RECORD_DONE_DELIVERED ||
		payload.data[0] > RECORD_DONE_REFUSED)
		return false;
	*out = (enum record_done)payload.data[0];
	return true;
}

const char *record_done_word(enum record_done why)
{
	switch (why) {
	case RECORD_DONE_DELIVERED:
		return "delivered";
	case RECORD_DONE_REMOVED:
		return "removed";
	case RECORD_DONE_REFUSED:
		return "refused";
	}
	return "?";
}
