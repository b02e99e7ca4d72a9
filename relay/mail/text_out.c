/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/text_out.h"

#include "relay/base/format.h"
#include "relay/base/stats.h"

/* Room in front of a chunk for "BDAT 65536 LAST" and CR LF. */
#define CHUNK_HEADER_BYTES 24

/* Bodies larger than this are sent in large pieces. */
#define BULK_AFTER_BYTES 16384

void text_out_init(struct text_out *out, bool uses_bdat)
{
	*out = (struct text_out){.uses_bdat = uses_bdat};
	dot_writer_init(&out->dot);
}

/* Completes the gathered chunk and sends it as soon as the wire is free. */
static void text_out_seal(struct text_out *out, struct client *client, const char *last)
{
	struct conn *conn = &client->conn;
	char header[CHUNK_HEADER_BYTES + 8];
	size_t len = format_print(header, sizeof(header), "BDAT %zu%s\r\n",
		conn->is_corked ? conn_gathered(conn) : 0, last);

	if (conn->is_corked && conn_gathered(conn) > 0)
		conn_out_prepend(conn, span_make(header, len));
	else
		(void)conn_write(conn, span_make(header, len));
	client_owe(client, span_make(header, len));
	if (last[0] == '\0')
		out->chunks_owed++;
	conn->is_corked = false;
	client_flush_now(client);
}

void text_out_push(struct text_out *out, struct client *client)
{
	struct conn *conn = &client->conn;

	if (conn->wire != NULL || conn_gathered(conn) == 0)
		return;
	if (out->uses_bdat && conn->is_corked)
		text_out_seal(out, client, "");
	else
		client_flush_now(client);
}

static size_t text_out_conn_room(const struct text_out *out, struct conn *conn)
{
	size_t room;

	conn->is_bulk_out = out->bytes > BULK_AFTER_BYTES;
	/* A sealed chunk that has not left entirely must not be added to. */
	if (out->uses_bdat && conn->out != NULL && !conn->is_corked)
		return 0;
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

void text_out_write(struct text_out *out, struct client *client, struct span text)
{
	struct conn *conn = &client->conn;
	uint8_t *to;
	size_t room;
	size_t len;

	out->bytes += text.len;
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
		text_out_seal(out, client, " LAST");
		return;
	}
	len = dot_write_end(&out->dot, end);
	client_command_unshown(client, span_make(end, len));
	client_flush(client);
}

void text_out_stop(struct text_out *out, struct client *client)
{
	/* While a sealed chunk lies there nothing is added to it: what is held is text only. */
	if (out->uses_bdat && client->conn.is_corked)
		conn_drop_held(&client->conn);
}

bool text_out_take_reply(struct text_out *out)
{
	if (out->chunks_owed == 0)
		return false;
	out->chunks_owed--;
	return true;
}
