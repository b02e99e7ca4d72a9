/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/proxy.h"

#include "relay/base/stats.h"

/*
 * proxy_body.c: the text of a message, from the session to the next hop.
 */

/* Room in front of a chunk for "BDAT 65536 LAST" and CR LF. */
#define CHUNK_HEADER_BYTES 24

/* Bodies larger than this are sent in large pieces. */
#define BULK_AFTER_BYTES 16384

/* Less room than this is not worth a call of the session. */
#define PROXY_ROOM_MIN SINK_ROOM_MIN

enum sink_status proxy_data(struct sink *sink)
{
	struct proxy *proxy = proxy_of_sink(sink);

	if (proxy->client == NULL) {
		sink->refusal =
			"451 4.4.2 The connection to the next hop was lost, try again later";
		return SINK_FAIL;
	}
	if (proxy->uses_bdat) {
		proxy_enter(proxy, PROXY_BODY);
		return SINK_DONE;
	}
	proxy_enter(proxy, PROXY_DATA);
	proxy->pending = 1;
	dot_writer_init(&proxy->dot);
	client_command(proxy->client, span_of("DATA\r\n"));
	client_flush(proxy->client);
	return SINK_WAIT;
}

/* Completes the gathered chunk and sends it as soon as the wire is free. */
static void proxy_seal(struct proxy *proxy, const char *last)
{
	struct conn *conn = &proxy->client->conn;
	char header[CHUNK_HEADER_BYTES + 8];
	int len;

	if (proxy->uses_bdat) {
		len = snprintf(header, sizeof(header), "BDAT %zu%s\r\n",
			conn->is_corked ? conn_gathered(conn) : 0, last);
		if (conn->is_corked && conn_gathered(conn) > 0)
			conn_out_prepend(conn, span_make(header, (size_t)len));
		else
			(void)conn_write(conn, span_make(header, (size_t)len));
		client_owe(proxy->client, span_make(header, (size_t)len));
		if (last[0] == '\0')
			proxy->chunks_owed++;
	}
	conn->is_corked = false;
	client_flush_now(proxy->client);
}

/* Sends what is gathered, unless something is still on its way: then more may join it. */
static void proxy_push_text(struct proxy *proxy)
{
	struct conn *conn = &proxy->client->conn;

	if (conn->wire != NULL || conn_gathered(conn) == 0)
		return;
	if (proxy->uses_bdat && conn->is_corked)
		proxy_seal(proxy, "");
	else
		client_flush_now(proxy->client);
}

static size_t proxy_conn_room(struct proxy *proxy)
{
	struct conn *conn = &proxy->client->conn;
	size_t room;

	conn->is_bulk_out = proxy->body_bytes > BULK_AFTER_BYTES;
	/* A sealed chunk that has not left entirely must not be added to. */
	if (proxy->uses_bdat && conn->out != NULL && !conn->is_corked)
		return 0;
	(void)conn_out_space(conn, proxy->uses_bdat ? CHUNK_HEADER_BYTES : 0, &room);
	conn_out_commit(conn, 0);
	/* Each byte may be a dot at the start of a line, and the end of data must fit too. */
	return proxy->uses_bdat ? room : (room - DOT_END_BYTES_MAX) / 2;
}

size_t proxy_room(struct sink *sink)
{
	struct proxy *proxy = proxy_of_sink(sink);
	size_t room;

	if (proxy->client == NULL)
		return SIZE_MAX; /* broken: the session was told, or will be */
	room = proxy_conn_room(proxy);
	if (room < PROXY_ROOM_MIN && proxy->client->conn.wire == NULL) {
		proxy_push_text(proxy);
		if (proxy->client != NULL)
			room = proxy_conn_room(proxy);
	}
	if (room >= PROXY_ROOM_MIN)
		return room;
	proxy->wants_room = true;
	return 0;
}

void proxy_body(struct sink *sink, struct span text)
{
	struct proxy *proxy = proxy_of_sink(sink);
	struct conn *conn;
	uint8_t *to;
	size_t room;
	size_t len;

	if (proxy->client == NULL)
		return;
	conn = &proxy->client->conn;
	proxy->body_bytes += text.len;
	STAT_ADD(copied_bytes, text.len);
	to = conn_out_space(conn, proxy->uses_bdat ? CHUNK_HEADER_BYTES : 0, &room);
	if (proxy->uses_bdat) {
		ASSERT(text.len <= room);
		memcpy(to, text.data, text.len);
		conn->is_corked = true;
		conn_out_commit(conn, text.len);
		return;
	}
	len = dot_write(&proxy->dot, text, to, room, &room);
	ASSERT(len == text.len);
	conn_out_commit(conn, room);
}

void proxy_push(struct sink *sink)
{
	struct proxy *proxy = proxy_of_sink(sink);

	if (proxy->client == NULL)
		return;
	if (proxy->state == PROXY_BODY)
		proxy_push_text(proxy);
	else if (proxy->state == PROXY_ENVELOPE)
		client_flush(proxy->client);
}

enum sink_status proxy_finish(struct sink *sink)
{
	struct proxy *proxy = proxy_of_sink(sink);
	uint8_t end[DOT_END_BYTES_MAX];
	size_t len;

	if (proxy->client == NULL)
		return SINK_FAIL;
	proxy_enter(proxy, PROXY_FINISH);
	proxy->pending = 1;
	if (proxy->uses_bdat) {
		proxy_seal(proxy, " LAST");
		return SINK_WAIT;
	}
	len = dot_write_end(&proxy->dot, end);
	client_command_unshown(proxy->client, span_make(end, len));
	client_flush(proxy->client);
	return SINK_WAIT;
}

bool proxy_take_chunk_reply(struct proxy *proxy, const struct reply *reply)
{
	if (proxy->chunks_owed == 0)
		return false;
	proxy->chunks_owed--;
	if (reply->code < 300)
		return true;
	/*
	 * The message is refused; the answers to what is already on its way say the
	 * same. The session abandons it when it hears that, and in this state the
	 * connection is then cut. Not before: the reply lies in its buffer.
	 */
	if (proxy->state == PROXY_FINISH) {
		proxy_enter(proxy, PROXY_BODY);
		proxy->pending = 0;
		proxy->sink.events->on_reply(&proxy->sink, reply->code, reply->wire);
	} else {
		proxy->sink.events->on_broken(&proxy->sink, reply->code, reply->wire);
	}
	return true;
}

void proxy_on_drained(struct client *client)
{
	struct proxy *proxy = client->owner;

	if (proxy->state == PROXY_BODY)
		proxy_push_text(proxy);
	if (proxy->state != PROXY_BODY || !proxy->wants_room)
		return;
	proxy->wants_room = false;
	proxy->sink.events->on_ready(&proxy->sink);
}
