/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/record.h"

#include "relay/base/crc32c.h"
#include "relay/mail/envelope.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define SEGMENT 7

/* Where the header's fields are, told once more. */
enum { AT_CHECKSUM = 4, AT_TYPE = 8, AT_BYTES = 12, AT_SEGMENT = 16, AT_ZERO = 52 };

static uint8_t room[RECORD_BYTES_MAX + 64];

/* A record with a payload of that kind in room; returns its length. */
static size_t make_record(enum record_type type, uint64_t segment)
{
	uint8_t *payload = room + RECORD_HEADER_BYTES;
	struct record_head head = {
		.type = type,
		.segment = segment,
		.sequence = 0x1122334455667788,
		.id = 0xfedcba9876543210,
		.time_ms = 1795967999123,
		.write = 0x0a0b0c0d,
	};
	size_t len = 0;

	memset(room, 0, sizeof(room));
	switch (type) {
	case RECORD_SEGMENT:
		record_write_segment(
			&(struct record_segment){
				.format = RECORD_FORMAT,
				.log = 3,
				.number = segment,
				.segment_bytes = 1 << 20,
				.created_ms = 5,
			},
			payload);
		len = RECORD_SEGMENT_BYTES;
		break;
	case RECORD_BODY:
		record_write_body_head(70000, payload);
		memcpy(payload + RECORD_BODY_HEAD_BYTES, "Hello.\r\n", 8);
		len = RECORD_BODY_HEAD_BYTES + 8;
		break;
	case RECORD_MESSAGE: {
		uint8_t extents[2 * RECORD_EXTENT_BYTES];
		struct record_message message = {
			.body_bytes = 100 + 50 + 3,
			.extent_count = 2,
			.extents = span_make(extents, sizeof(extents)),
			.envelope = span_of("an envelope"),
			.text = span_of("end"),
		};

		record_write_extent(&(struct record_extent){6, 4096, 100}, extents);
		record_write_extent(
			&(struct record_extent){7, 64, 50}, extents + RECORD_EXTENT_BYTES);
		len = record_write_message_head(&message, payload);
		memcpy(payload + len, "an envelopeend", 14);
		len += 14;
		break;
	}
	case RECORD_RECIPIENTS:
		len = envelope_write_change(&(struct envelope_change){.attempts = 3,
						    .text = span_of("450 4.7.1 later")},
			payload, 200);
		break;
	case RECORD_DONE:
		payload[0] = RECORD_DONE_DELIVERED;
		len = RECORD_DONE_BYTES;
		break;
	case RECORD_NOTE:
		memcpy(payload, "remember", 8);
		len = 8;
		break;
	case RECORD_SEAL:
		break;
	}
	head.payload_bytes = (uint32_t)len;
	record_seal(&head, room);
	return record_bytes(len);
}

/* A new checksum over what was changed in room. */
static void reseal(size_t len)
{
	uint32_t crc;

	memset(room + AT_CHECKSUM, 0, 4);
	crc = crc32c(0, span_make(room, len));
	for (unsigned i = 0; i < 4; i++)
		room[AT_CHECKSUM + i] = (uint8_t)(crc >> (8 * i));
}

/* Reads len bytes of room from a block of that length: valgrind and ASan see what is behind it. */
static enum record_status read_room(size_t len, struct record_head *head, struct span *payload)
{
	uint8_t *copy = malloc(len > 0 ? len : 1);
	enum record_status status;

	assert_non_null(copy);
	memcpy(copy, room, len);
	status = record_read(span_make(copy, len), SEGMENT, head, payload);
	if (status == RECORD_GOOD)
		payload->data = room + (payload->data - copy);
	free(copy);
	return status;
}

static void test_layout(void **state)
{
	static const uint8_t want[] = "PSR1"
				      "\0\0\0\0"
				      "\5\0\0\0"
				      "\1\0\0\0"
				      "\7\0\0\0\0\0\0\0"
				      "\x88\x77\x66\x55\x44\x33\x22\x11"
				      "\x10\x32\x54\x76\x98\xba\xdc\xfe"
				      "\x93\xdc\x08\x28\xa2\1\0\0"
				      "\x0d\x0c\x0b\x0a\0\0\0\0"
				      "\1";
	(void)state;

	assert_int_equal(make_record(RECORD_DONE, SEGMENT), sizeof(want) - 1);
	assert_int_equal(crc32c(0, span_make(want, sizeof(want) - 1)),
		(uint32_t)room[4] | (uint32_t)room[5] << 8 | (uint32_t)room[6] << 16 |
			(uint32_t)room[7] << 24);
	memset(room + AT_CHECKSUM, 0, 4);
	assert_memory_equal(room, want, sizeof(want) - 1);
}

static void test_round_trip(void **state)
{
	(void)state;

	for (enum record_type type = RECORD_SEGMENT; type <= RECORD_SEAL; type++) {
		const size_t len = make_record(type, SEGMENT);
		struct record_head head = {0};
		struct span payload = {0};

		/* What follows does not matter. */
		room[len] = 0xff;
		assert_int_equal(read_room(len + 1, &head, &payload), RECORD_GOOD);
		assert_int_equal(head.type, type);
		assert_int_equal(head.payload_bytes, len - RECORD_HEADER_BYTES);
		assert_int_equal(head.segment, SEGMENT);
		assert_int_equal(head.sequence, 0x1122334455667788);
		assert_int_equal(head.id, 0xfedcba9876543210);
		assert_int_equal(head.time_ms, 1795967999123);
		assert_int_equal(head.write, 0x0a0b0c0d);
		assert_ptr_equal(payload.data, room + RECORD_HEADER_BYTES);
		assert_int_equal(payload.len, head.payload_bytes);
		assert_int_equal(
			record_read(span_make(room, len), 0, &head, &payload), RECORD_GOOD);
	}
}

static void test_truncated(void **state)
{
	(void)state;

	for (enum record_type type = RECORD_SEGMENT; type <= RECORD_SEAL; type++) {
		const size_t len = make_record(type, SEGMENT);

		for (size_t cut = 0; cut < len; cut++) {
			struct record_head head = {.id = 1};
			struct span payload = {0};

			assert_int_equal(read_room(cut, &head, &payload), RECORD_SHORT);
			assert_null(payload.data);
			assert_int_equal(head.payload_bytes,
				cut < RECORD_HEADER_BYTES ? 0 : len - RECORD_HEADER_BYTES);
		}
	}
}

static void test_flipped(void **state)
{
	(void)state;

	for (enum record_type type = RECORD_SEGMENT; type <= RECORD_SEAL; type++) {
		const size_t len = make_record(type, SEGMENT);

		for (size_t bit = 0; bit < 8 * len; bit++) {
			struct record_head head;
			struct span payload;
			enum record_status status;

			room[bit / 8] ^= (uint8_t)BIT(bit % 8);
			status = read_room(len, &head, &payload);
			assert_int_not_equal(status, RECORD_GOOD);
			if (bit / 8 < AT_CHECKSUM ||
				(bit / 8 >= AT_SEGMENT && bit / 8 < AT_SEGMENT + 8))
				assert_int_equal(status, RECORD_NONE);
			else if (bit / 8 < AT_BYTES || bit / 8 >= AT_BYTES + 4)
				assert_int_equal(status, RECORD_TORN);
			/* With any number, too. */
			assert_int_not_equal(
				record_read(span_make(room, len), 0, &head, &payload), RECORD_GOOD);
			room[bit / 8] ^= (uint8_t)BIT(bit % 8);
		}
	}
}

static void test_none(void **state)
{
	struct record_head head = {.id = 1};
	struct span payload = {0};
	size_t len;
	(void)state;

	memset(room, 0, sizeof(room));
	assert_int_equal(read_room(4096, &head, &payload), RECORD_NONE);
	assert_int_equal(read_room(4, &head, &payload), RECORD_NONE);
	/* An earlier use of the file left it. */
	len = make_record(RECORD_BODY, SEGMENT - 1);
	assert_int_equal(read_room(len, &head, &payload), RECORD_NONE);
	/* Half of it was overwritten since. */
	memset(room + RECORD_HEADER_BYTES, 0, len - RECORD_HEADER_BYTES);
	assert_int_equal(read_room(len, &head, &payload), RECORD_NONE);
	assert_int_equal(head.id, 1);
	assert_null(payload.data);
}

/* With a right checksum, but never written by us. */
static void test_odd_headers(void **state)
{
	static const struct {
		const char *name;
		size_t at;
		uint8_t value;
	} cases[] = {
		{"no type", AT_TYPE, 0},
		{"an unknown type", AT_TYPE, RECORD_SEAL + 1},
		{"a type beyond a byte", AT_TYPE + 2, 1},
		{"no zero at the end", AT_ZERO + 3, 1},
		{"too long", AT_BYTES + 2, 8},
		{"far too long", AT_BYTES + 3, 0xff},
	};
	struct record_head head;
	struct span payload;
	size_t len;
	(void)state;

	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		len = make_record(RECORD_SEAL, SEGMENT);
		room[cases[i].at] = cases[i].value;
		reseal(len);
		print_message("%s\n", cases[i].name);
		assert_int_equal(read_room(len, &head, &payload), RECORD_TORN);
		assert_int_equal(read_room(sizeof(room), &head, &payload), RECORD_TORN);
	}
	len = make_record(RECORD_SEAL, SEGMENT);
	memset(room + AT_SEGMENT, 0, 8);
	reseal(len);
	assert_int_equal(record_read(span_make(room, len), 0, &head, &payload), RECORD_TORN);
}

static void test_longest(void **state)
{
	const struct record_head head = {
		.type = RECORD_NOTE,
		.payload_bytes = RECORD_BYTES_MAX - RECORD_HEADER_BYTES,
		.segment = SEGMENT,
	};
	struct record_head again;
	struct span payload;
	(void)state;

	memset(room, 'x', sizeof(room));
	record_seal(&head, room);
	assert_int_equal(read_room(RECORD_BYTES_MAX, &again, &payload), RECORD_GOOD);
	assert_int_equal(read_room(RECORD_BYTES_MAX - 1, &again, &payload), RECORD_SHORT);
}

static void test_segment_payload(void **state)
{
	static const struct {
		const char *name;
		struct record_segment segment;
		bool want;
	} cases[] = {
		{"good", {RECORD_FORMAT, 99, UINT64_MAX, 4096, -5}, true},
		{"another format", {RECORD_FORMAT + 1, 0, 1, 4096, 0}, false},
		{"number 0", {RECORD_FORMAT, 0, 0, 4096, 0}, false},
		{"no room", {RECORD_FORMAT, 0, 1, 0, 0}, false},
		{"no whole blocks", {RECORD_FORMAT, 0, 1, 4160, 0}, false},
	};
	uint8_t bytes[RECORD_SEGMENT_BYTES + 1] = {0};
	(void)state;

	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct record_segment out = {0};

		print_message("%s\n", cases[i].name);
		record_write_segment(&cases[i].segment, bytes);
		assert_int_equal(record_read_segment(span_make(bytes, sizeof(bytes) - 1), &out),
			cases[i].want);
		if (!cases[i].want)
			continue;
		assert_memory_equal(&out, &cases[i].segment, sizeof(out));
		assert_false(record_read_segment(span_make(bytes, sizeof(bytes)), &out));
		for (size_t len = 0; len < RECORD_SEGMENT_BYTES; len++)
			assert_false(record_read_segment(span_make(bytes, len), &out));
	}
}

static void test_body_payload(void **state)
{
	uint8_t bytes[RECORD_BODY_HEAD_BYTES + 1] = {0};
	struct span text;
	uint64_t at;
	(void)state;

	record_write_body_head(0x8070605040302010, bytes);
	bytes[RECORD_BODY_HEAD_BYTES] = 'x';
	assert_true(record_read_body(span_make(bytes, sizeof(bytes)), &at, &text));
	assert_int_equal(at, 0x8070605040302010);
	assert_true(span_equal(text, span_of("x")));
	for (size_t len = 0; len <= RECORD_BODY_HEAD_BYTES; len++)
		assert_false(record_read_body(span_make(bytes, len), &at, &text));
}

static void test_done_payload(void **state)
{
	enum record_done why = RECORD_DONE_REMOVED;
	(void)state;

	for (unsigned value = 0; value < 256; value++) {
		const uint8_t bytes[2] = {(uint8_t)value, 0};
		const bool want = value >= RECORD_DONE_DELIVERED && value <= RECORD_DONE_REFUSED;

		assert_int_equal(record_read_done(span_make(bytes, 1), &why), want);
		assert_false(record_read_done(span_make(bytes, 2), &why));
		assert_string_not_equal(want ? record_done_word(why) : "", "?");
	}
	assert_false(record_read_done((struct span){0}, &why));
	assert_string_equal(record_done_word(RECORD_DONE_DELIVERED), "delivered");
	assert_string_equal(record_done_word(RECORD_DONE_REMOVED), "removed");
	assert_string_equal(record_done_word(RECORD_DONE_REFUSED), "refused");
	assert_string_equal(record_done_word((enum record_done)0), "?");
}

static void test_message_payload(void **state)
{
	const size_t len = make_record(RECORD_MESSAGE, SEGMENT) - RECORD_HEADER_BYTES;
	uint8_t *payload = room + RECORD_HEADER_BYTES;
	struct record_message message;
	struct record_extent extent;
	(void)state;

	assert_true(record_read_message(span_make(payload, len), &message));
	assert_int_equal(message.body_bytes, 153);
	assert_int_equal(message.extent_count, 2);
	assert_true(span_equal(message.envelope, span_of("an envelope")));
	assert_true(span_equal(message.text, span_of("end")));
	assert_true(record_read_extent(&message, 0, &extent));
	assert_int_equal(extent.segment, 6);
	assert_int_equal(extent.offset, 4096);
	assert_int_equal(extent.bytes, 100);
	assert_true(record_read_extent(&message, 1, &extent));
	assert_int_equal(extent.segment, 7);
	assert_false(record_read_extent(&message, 2, &extent));
	assert_false(record_read_extent(&message, UINT32_MAX, &extent));
	for (size_t cut = 0; cut < len; cut++)
		assert_false(record_read_message(span_make(payload, cut), &message));
	assert_false(record_read_message(span_make(payload, len + 1), &message));
}

/* One byte of a good MESSAGE is another. */
static void test_odd_messages(void **state)
{
	static const struct {
		const char *name;
		size_t at;
		uint8_t value;
	} cases[] = {
		{"a longer body", 0, 154},
		{"a body beyond all", 7, 0xff},
		{"fewer extents", 8, 1},
		{"more extents", 8, 3},
		{"extents beyond all", 11, 0xff},
		{"a shorter envelope", 12, 10},
		{"a longer envelope", 12, 12},
		{"an envelope beyond all", 15, 0xff},
		{"less text", 16, 2},
		{"more text", 16, 4},
		{"text beyond all", 19, 0xff},
		{"no zero", 20, 1},
		{"an extent of segment 0", 24, 0},
		{"an extent between records", 24 + 8, 32},
		{"an empty extent", 24 + 12, 0},
		{"a longer extent", 24 + 12, 101},
		{"an extent longer than a record", 24 + 15, 1},
	};
	uint8_t *payload = room + RECORD_HEADER_BYTES;
	struct record_message message;
	(void)state;

	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		const size_t len = make_record(RECORD_MESSAGE, SEGMENT) - RECORD_HEADER_BYTES;

		print_message("%s\n", cases[i].name);
		payload[cases[i].at] = cases[i].value;
		assert_false(record_read_message(span_make(payload, len), &message));
	}
}

static void test_plain_message(void **state)
{
	const struct record_message in = {.body_bytes = 2, .text = span_of("\r\n")};
	struct record_message out;
	struct record_extent extent;
	size_t len;
	(void)state;

	len = record_write_message_head(&in, room);
	assert_int_equal(len, RECORD_MESSAGE_HEAD_BYTES);
	memcpy(room + len, "\r\n", 2);
	assert_true(record_read_message(span_make(room, len + 2), &out));
	assert_true(span_equal(out.text, in.text));
	assert_false(record_read_extent(&out, 0, &extent));
}

static void test_names(void **state)
{
	(void)state;

	assert_string_equal(record_type_name(RECORD_SEGMENT), "SEGMENT");
	assert_string_equal(record_type_name(RECORD_SEAL), "SEAL");
	assert_string_equal(record_type_name((enum record_type)0), "?");
	assert_string_equal(record_type_name((enum record_type)(RECORD_SEAL + 1)), "?");
	for (enum record_type type = RECORD_SEGMENT; type <= RECORD_SEAL; type++)
		assert_string_not_equal(record_type_name(type), "?");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_flipped),
		cmocka_unit_test(test_none),
		cmocka_unit_test(test_odd_headers),
		cmocka_unit_test(test_longest),
		cmocka_unit_test(test_segment_payload),
		cmocka_unit_test(test_body_payload),
		cmocka_unit_test(test_done_payload),
		cmocka_unit_test(test_message_payload),
		cmocka_unit_test(test_odd_messages),
		cmocka_unit_test(test_plain_message),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
