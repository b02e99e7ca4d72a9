/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * record.h: what stands in the spool, byte by byte. Pure: no I/O.
 *
 * The spool is a folder of logs, LOG/NNNNNN.seg, one log for each worker. A log is a row of
 * segments of one size; each time that a file is used it gets the next segment number. A segment is
 * a row of records:
 *
 *   segment  = SEGMENT *record [SEAL]
 *   record   = BODY / MESSAGE / RECIPIENTS / DONE / NOTE
 *   message  = *BODY MESSAGE *RECIPIENTS [DONE]        of one id, in this order, in any segments
 *
 *   SEGMENT     first record of each segment, at its byte 0: which log, which number
 *   BODY        a piece of a body, in order; nothing by itself
 *   MESSAGE     the message is accepted: its envelope, where its BODY records are, and the rest
 *               of its body; one with an id that was there before takes its place: it was moved
 *   RECIPIENTS  what became of recipients, or was decided about the message
 *   DONE        nothing is owed for it any more
 *   NOTE        something to be remembered under a key; the last one counts, an empty one ends it
 *   SEAL        the segment ends here; the log goes on in the next number
 *
 * A record is a header of RECORD_HEADER_BYTES and a payload, and begins at a multiple of
 * RECORD_ALIGN. Records of one write stand behind one another, and each write begins at a multiple
 * of RECORD_BLOCK; what is between is zero. All integers are little-endian.
 *
 *   header   = magic:4 checksum:4 type:4 payload-bytes:4 segment:8 sequence:8 id:8 time-ms:8
 *              write:4 zero:4
 *
 * A record is good if its magic, length and checksum are, and its segment number is the segment's:
 * what an earlier use of the file left behind has another number. The checksum (CRC32C) covers the
 * header, with the field itself zero, and the payload.
 */

#include "relay/base/assert.h"
#include "relay/base/span.h"

#define RECORD_FORMAT 1
#define RECORD_MAGIC 0x31525350 /* "PSR1" */
#define RECORD_ALIGN 64
#define RECORD_BLOCK 4096
#define RECORD_HEADER_BYTES 56

/* No record is longer, header and all; a write buffer of the spool has room for several. */
#define RECORD_BYTES_MAX 524288

enum record_type {
	RECORD_SEGMENT = 1,
	RECORD_BODY = 2,
	RECORD_MESSAGE = 3,
	RECORD_RECIPIENTS = 4,
	RECORD_DONE = 5,
	RECORD_NOTE = 6,
	RECORD_SEAL = 7, /* the last */
};

struct record_head {
	enum record_type type;
	uint32_t payload_bytes;
	uint64_t segment;  /* number of the segment that it was written to */
	uint64_t sequence; /* of the log: one more with each record */
	uint64_t id;       /* of the message, the key of a note, or 0 */
	int64_t time_ms;   /* wall clock */
	/*
	 * Which write brought it: the RECORD_BLOCK of the segment that it began at, counted from 1;
	 * 0: not told. It tells a torn write, that may have kept any part of itself, from damage.
	 */
	uint32_t write;
};

enum record_status {
	RECORD_GOOD,
	RECORD_NONE, /* no record begins here: zero bytes, or another use's */
	RECORD_TORN, /* one begins, and is not whole, or not as it was written */
	/* in does not hold all of it. *out is as it claims to be; of less than a header: zero. */
	RECORD_SHORT,
};

/* Length of a record with that payload, without what follows up to RECORD_ALIGN. */
size_t record_bytes(size_t payload_bytes);

/* Writes the header in front of a payload that stands at out + RECORD_HEADER_BYTES already. */
void record_seal(const struct record_head *head, uint8_t *out);

/*
 * Reads the record at the start of in. segment: the number that it must have; 0: any (a SEGMENT
 * record tells). *payload points into in. Only RECORD_GOOD sets *payload; RECORD_NONE leaves *out,
 * too.
 */
NODISCARD enum record_status record_read(
	struct span in, uint64_t segment, struct record_head *out, struct span *payload);

/*
 * As record_read(), of memory in which record_seal() has made it, and nothing has altered it since:
 * the checksum is not looked at.
 */
NODISCARD enum record_status record_look(
	struct span in, uint64_t segment, struct record_head *out, struct span *payload);

/* For people: "MESSAGE". */
const char *record_type_name(enum record_type type);

/* Payloads. Each reader returns false for one that is not well-formed, however it came about. */

struct record_segment {
	uint32_t format;
	uint32_t log;
	uint64_t number;
	uint64_t segment_bytes;
	int64_t created_ms;
};
#define RECORD_SEGMENT_BYTES 32
void record_write_segment(const struct record_segment *segment, uint8_t out[RECORD_SEGMENT_BYTES]);
NODISCARD bool record_read_segment(struct span payload, struct record_segment *out);

/* BODY: where in the body it belongs (8 bytes), then the text, which is not empty. */
#define RECORD_BODY_HEAD_BYTES 8
#define RECORD_BODY_TEXT_BYTES_MAX (RECORD_BYTES_MAX - RECORD_HEADER_BYTES - RECORD_BODY_HEAD_BYTES)
void record_write_body_head(uint64_t at, uint8_t out[RECORD_BODY_HEAD_BYTES]);
NODISCARD bool record_read_body(struct span payload, uint64_t *at, struct span *text);

/*
 * MESSAGE: fixed head, then extents, envelope (envelope.h), and the rest of the body. Together the
 * extents and that rest are the whole body: body_bytes.
 *
 *   message-head = body-bytes:8 extent-count:4 envelope-bytes:4 text-bytes:4 zero:4
 *   extent       = segment:8 offset:4 bytes:4
 */
struct record_extent {
	uint64_t segment;
	uint32_t offset; /* of the BODY record in it */
	uint32_t bytes;  /* of text */
};
#define RECORD_MESSAGE_HEAD_BYTES 24
#define RECORD_EXTENT_BYTES 16
struct record_message {
	uint64_t body_bytes; /* all of it */
	uint32_t extent_count;
	struct span extents; /* extent_count times RECORD_EXTENT_BYTES */
	struct span envelope;
	struct span text; /* what stands behind the extents */
};
/* Everything in front of the envelope; returns its length. out has room for it. */
size_t record_write_message_head(const struct record_message *message, uint8_t *out);
void record_write_extent(const struct record_extent *extent, uint8_t out[RECORD_EXTENT_BYTES]);
NODISCARD bool record_read_message(struct span payload, struct record_message *out);
NODISCARD bool record_read_extent(
	const struct record_message *message, uint32_t index, struct record_extent *out);

/* DONE: why, one byte; for people and the tracking log. */
enum record_done {
	RECORD_DONE_DELIVERED = 1, /* every recipient was settled, one way or the other */
	RECORD_DONE_REMOVED = 2,   /* by an administrator */
	RECORD_DONE_REFUSED =
		3, /* the client was told 4xx, as the write failed: it never was ours */
};
#define RECORD_DONE_BYTES 1
NODISCARD bool record_read_done(struct span payload, enum record_done *out);

/* For people: "delivered". */
const char *record_done_word(enum record_done why);
