/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/limits.h"
#include "relay/base/stats.h"
#include "relay/net/record.h"

/*
 * conn_frame.c: frames, sealed while they are made. Numbers of records are given out in the order
 * of the wire: the first of a frame is kept for its header, whose record is made last. Nothing that
 * was sealed under a number has been sent when the number is used again.
 */

/* In front of the records: what a header may need, and the text before it. */
#define FRAME_FRONT_AT SEAL_OVERHEAD_BYTES
#define FRAME_FRONT_BYTES_MAX 4096

/* Kept free for a command behind a complete frame. */
#define FRAME_TAIL_BYTES (64 + SEAL_OVERHEAD_BYTES)

/* Less text than this is not worth a record of its own: it waits for more. */
#define FRAME_RECORD_BYTES_MIN 4096

static struct seal *frame_seal(struct conn *conn)
{
	return &conn->seal[KTLS_DIRECTION_TX];
}

/* May one begin? What is gathered must fit, and be its owner's to send. */
static bool frame_may_begin(const struct conn *conn, size_t front)
{
	const struct pool *bulk = &conn->net->bufs.bulk_memory;

	return conn->tx == &record_own && conn->state == CONN_OPEN && !conn->is_shut &&
	       !conn->owes_key_update && bulk->used < bulk->count &&
	       front <= FRAME_FRONT_BYTES_MAX && conn_gathered(conn) <= IOBUF_SMALL_BYTES;
}

/* Of so many bytes, how much may be text, in any pieces? The last record may be short. */
static size_t frame_text(size_t bytes)
{
	const size_t overhead = (bytes / FRAME_RECORD_BYTES_MIN + 2) * SEAL_OVERHEAD_BYTES;

	return bytes > overhead ? bytes - overhead : 0;
}

size_t conn_frame_room(const struct conn *conn, size_t front)
{
	size_t used = conn->out_end + conn->frame_rest + CONTROL_ROOM_BYTES;

	if (!conn->is_framed) {
		if (!frame_may_begin(conn, front))
			return 0;
		/* What is gathered makes two records at the most. */
		used = FRAME_FRONT_AT + CONN_FRAME_HEADER_BYTES + SEAL_OVERHEAD_BYTES +
		       conn_gathered(conn) + 2 * SEAL_OVERHEAD_BYTES + CONTROL_ROOM_BYTES;
	}
	if (!conn->is_framed || conn->is_frame_open)
		used += FRAME_TAIL_BYTES;
	return used < IOBUF_BULK_BYTES ? frame_text(IOBUF_BULK_BYTES - used) : 0;
}

/* The cipher failed: nothing can be sent any more, as half a frame must not be. */
static void frame_fail(struct conn *conn)
{
	conn_drop_out(conn);
	conn->is_shut = true;
	conn_ended(conn, CONN_END_TLS);
}

/* The next record: the text that waits, and more behind it. */
static bool frame_put(struct conn *conn, struct span more)
{
	struct seal *seal = frame_seal(conn);
	uint8_t *at = conn->out->data + conn->out_end;
	const struct span rest = span_make(at + seal_text_at(seal), conn->frame_rest);
	size_t len;

	ASSERT(conn->out_end + seal_record_bytes(seal, rest.len + more.len) + CONTROL_ROOM_BYTES <=
		conn->out->cap);
	len = seal_write_both(seal, RECORD_APPLICATION_DATA, rest, more, at);
	if (len == 0) {
		frame_fail(conn);
		return false;
	}
	conn->out_end += (uint32_t)len;
	conn->frame_rest = 0;
	return true;
}

/* Text that waits for more lies where its record will be. */
static void frame_keep(struct conn *conn, struct span text)
{
	uint8_t *at = conn->out->data + conn->out_end + seal_text_at(frame_seal(conn));

	memcpy(at + conn->frame_rest, text.data, text.len);
	conn->frame_rest += (uint32_t)text.len;
	STAT_ADD(copied_bytes, text.len);
}

void conn_frame_add(struct conn *conn, struct span text)
{
	while (text.len > 0 && conn->is_framed) {
		const struct span piece = span_head(text, TLS_RECORD_TEXT_BYTES - conn->frame_rest);

		text = span_skip(text, piece.len);
		if (piece.len < FRAME_RECORD_BYTES_MIN &&
			conn->frame_rest + piece.len < TLS_RECORD_TEXT_BYTES)
			frame_keep(conn, piece);
		else
			(void)frame_put(conn, piece);
	}
}

bool conn_frame_begin(struct conn *conn, size_t front)
{
	struct iobuf *gathered = conn->out;
	struct iobuf *bulk = NULL;
	struct span text = {0};

	ASSERT(!conn->is_framed);
	if (frame_may_begin(conn, front))
		bulk = iobuf_take_bulk(&conn->net->bufs);
	if (bulk == NULL)
		return false;
	if (gathered != NULL)
		text = span_make(gathered->data + conn->out_start, conn_gathered(conn));
	ASSERT(front <= text.len);
	conn_hold(conn);
	if (front > 0)
		memcpy(bulk->data + FRAME_FRONT_AT, text.data, front);
	conn->out = bulk;
	conn->out_start =
		(uint32_t)(FRAME_FRONT_AT + front + CONN_FRAME_HEADER_BYTES + SEAL_OVERHEAD_BYTES);
	conn->out_end = conn->out_start;
	conn->is_framed = true;
	conn->is_frame_open = true;
	conn->frame_front = (uint32_t)front;
	conn->frame_rest = 0;
	conn->frame_sequence = frame_seal(conn)->sequence++;
	conn_frame_add(conn, span_skip(text, front));
	iobuf_put(&conn->net->bufs, &gathered);
	return true;
}

void conn_frame_end(struct conn *conn, struct span header)
{
	struct seal *seal = frame_seal(conn);
	const size_t text_len = conn->frame_front + header.len;
	const uint64_t next = seal->sequence;
	size_t len = seal_record_bytes(seal, text_len);
	uint8_t *record;
	uint8_t *text;

	/* The cipher failed: the owner is about to hear of it. */
	if (!conn->is_framed)
		return;
	ASSERT(conn->is_frame_open && header.len <= CONN_FRAME_HEADER_BYTES &&
		len <= conn->out_start);
	record = conn->out->data + conn->out_start - len;
	text = record + seal_text_at(seal);
	memmove(text, conn->out->data + FRAME_FRONT_AT, conn->frame_front);
	memcpy(text + conn->frame_front, header.data, header.len);
	seal->sequence = conn->frame_sequence;
	len = seal_write(seal, RECORD_APPLICATION_DATA, span_make(text, text_len), record);
	seal->sequence = next;
	if (len == 0) {
		frame_fail(conn);
		return;
	}
	conn->out_start -= (uint32_t)len;
	conn->is_frame_open = false;
	conn->frame_front = 0;
	conn_release(conn);
}

bool record_complete_frame(struct conn *conn)
{
	return conn->frame_rest == 0 || frame_put(conn, (struct span){0});
}

void record_unframe(struct conn *conn)
{
	ASSERT(conn->is_framed);
	frame_seal(conn)->sequence = conn->frame_sequence;
	conn->is_framed = false;
	conn->is_frame_open = false;
	conn->frame_rest = 0;
	conn->out_start = FRAME_FRONT_AT;
	conn->out_end = FRAME_FRONT_AT + conn->frame_front;
	conn->frame_front = 0;
}

void conn_frame_drop(struct conn *conn)
{
	if (!conn->is_framed)
		return;
	ASSERT(conn->is_frame_open);
	record_unframe(conn);
	if (conn->out_start == conn->out_end)
		iobuf_put(&conn->net->bufs, &conn->out);
}
