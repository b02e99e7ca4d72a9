/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/text_out.h"

#include "relay/base/format.h"
#include "relay/base/stats.h"

/* Room in front of a chunk for "BDAT 65536 LAST" and CR LF. */
#define CHUNK_HEADER_BYTES 24

/* Bodies larger than this are sent in large pieces. */
#define BULK_AFTER_BYTES 16384

/* So much text at once is sealed from where it lies; the header is a record of its own then. */
#define FRAME_AFTER_BYTES 8192

_Static_assert(CHUNK_HEADER_BYTES <= CONN_FRAME_HEADER_BYTES, "a frame's header is a chunk's");

void text_out_init(struct text_out *out, bool uses_bdat)
{
	*out = (struct text_out){.uses_bdat = uses_bdat};
	dot_writer_init(&out->dot);
}

void text_out_expect(struct text_out *out, uint64_t bytes)
{
	out->is_bulk = bytes > BULK_AFTER_BYTES;
}

void text_out_reserve(struct text_out *out, struct client *client)
{
	struct conn *conn = &client->conn;
	size_t room;

	if (!out->uses_bdat || conn->out != NULL)
		return;
	/* A frame takes a large buffer when there is text. */
	conn->is_bulk_out = out->is_bulk && conn_frame_room(conn, 0) == 0;
	(void)conn_out_space(conn, CHUNK_HEADER_BYTES, &room);
}

bool text_out_join(struct text_out *out, struct client *client)
{
	struct conn *conn = &client->conn;

	if (!out->uses_bdat || conn_gathered(conn) == 0 || conn->out_start < CHUNK_HEADER_BYTES)
		return false;
	out->in_front = (uint32_t)conn_gathered(conn);
	conn_hold(conn);
	return true;
}

/* The header goes between the commands in front, which move for it, and the text. */
static void text_out_insert(struct text_out *out, struct conn *conn, struct span header)
{
	uint8_t *front;

	conn_out_prepend(conn, header);
	if (out->in_front == 0)
		return;
	front = conn->out->data + conn->out_start;
	memmove(front, front + header.len, out->in_front);
	memcpy(front + out->in_front, header.data, header.len);
}

/* Completes the gathered chunk and sends it as soon as the wire is free. */
static void text_out_seal(struct text_out *out, struct client *client, bool is_last)
{
	struct conn *conn = &client->conn;
	char header[CHUNK_HEADER_BYTES + 8];
	const size_t len = format_print(
		header, sizeof(header), "BDAT %zu%s\r\n", out->chunk_bytes, is_last ? " LAST" : "");
	const struct span line = span_make(header, len);

	if (conn->is_frame_open)
		conn_frame_end(conn, line);
	else if (conn->is_corked && conn_gathered(conn) > 0)
		text_out_insert(out, conn, line);
	else
		(void)conn_write(conn, line);
	client_owe(client, line);
	if (!is_last)
		out->chunks_owed++;
	out->has_begun = true;
	out->chunk_bytes = 0;
	out->in_front = 0;
	conn->is_corked = false;
	client_flush_now(client);
}

void text_out_push(struct text_out *out, struct client *client)
{
	struct conn *conn = &client->conn;

	if (conn->wire != NULL || conn_gathered(conn) <= out->in_front)
		return;
	if (out->uses_bdat && conn->is_corked)
		text_out_seal(out, client, false);
	else
		client_flush_now(client);
}

static size_t text_out_conn_room(const struct text_out *out, struct conn *conn)
{
	size_t room = 0;

	conn->is_bulk_out = out->is_bulk || out->bytes > BULK_AFTER_BYTES;
	/* A sealed chunk that has not left entirely must not be added to. */
	if (out->uses_bdat && conn->out != NULL && !conn->is_corked)
		return 0;
	if (out->uses_bdat && conn->is_bulk_out)
		room = conn_frame_room(conn, out->in_front);
	if (room > 0 || conn->is_framed)
		return room;
	(void)conn_out_space(conn, out->uses_bdat ? CHUNK_HEADER_BYTES : 0, &room);
	conn_out_commit(conn, 0);
	/* Each byte may be a dot at the start of a line, and the end of data must fit too. */
	return out->uses_bdat ? room : (room - DOT_END_BYTES_MAX) / 2;
}

size_t text_out_room(struct text_out *out, struct client *client)
{
	struct conn *conn = &client->conn;
	size_t room = text_out_conn_room(out, conn);

	if (room < TEXT_OUT_ROOM_MIN && conn->wire == NULL) {
		text_out_push(out, client);
		room = text_out_conn_room(out, conn);
	}
	return room >= TEXT_OUT_ROOM_MIN ? room : 0;
}

/* Is text to go out in a frame? It need not be bulk as a whole where much of it is at hand. */
static bool text_out_is_framed(const struct text_out *out, struct conn *conn, struct span text)
{
	if (conn->is_framed)
		return true;
	return out->uses_bdat && (conn->is_bulk_out || text.len >= FRAME_AFTER_BYTES) &&
	       conn_frame_begin(conn, out->in_front);
}

void text_out_write(struct text_out *out, struct client *client, struct span text)
{
	struct conn *conn = &client->conn;
	uint8_t *to;
	size_t room;
	size_t len;

	out->bytes += text.len;
	out->chunk_bytes += text.len;
	if (text_out_is_framed(out, conn, text)) {
		conn_frame_add(conn, text);
		return;
	}
	STAT_ADD(copied_bytes, text.len);
	to = conn_out_space(conn, out->uses_bdat ? CHUNK_HEADER_BYTES : 0, &room);
	if (out->uses_bdat) {
		ASSERT(text.len <= room);
		memcpy(to, text.data, text.len);
		conn->is_corked = true;
		conn_out_commit(conn, text.len);
		return;
	}
	len = dot_write(&out->dot, text, to, room, &room);
	ASSERT(len == text.len);
	conn_out_commit(conn, room);
}

void text_out_finish(struct text_out *out, struct client *client)
{
	uint8_t end[DOT_END_BYTES_MAX];
	size_t len;

	if (out->uses_bdat) {
		text_out_seal(out, client, true);
		return;
	}
	len = dot_write_end(&out->dot, end);
	client_command_unshown(client, span_make(end, len));
	client_flush(client);
}

void text_out_stop(struct text_out *out, struct client *client)
{
	struct conn *conn = &client->conn;

	/* While a sealed chunk lies there nothing is added to it: what is held is text, and maybe
	 * commands in front of it, which are answered. */
	if (!out->uses_bdat || !conn->is_corked)
		return;
	out->chunk_bytes = 0;
	if (out->in_front == 0) {
		conn_drop_held(conn);
		return;
	}
	if (conn->is_framed)
		conn_frame_drop(conn);
	conn->out_end = conn->out_start + out->in_front;
	out->in_front = 0;
	conn_release(conn);
	client_flush(client);
}

bool text_out_take_reply(struct text_out *out)
{
	if (out->chunks_owed == 0)
		return false;
	out->chunks_owed--;
	return true;
}
