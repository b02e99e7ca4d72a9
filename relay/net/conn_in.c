/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/limits.h"
#include "relay/net/record.h"

/*
 * conn_in.c: the buffer that a connection receives into.
 */

void conn_in_tidy(struct conn *conn)
{
	if (conn->in == NULL || conn->in_start < conn->in_end)
		return;
	conn->in_start = 0;
	conn->in_end = 0;
	if (conn->raw_start < conn->raw_end)
		return;
	conn->raw_start = 0;
	conn->raw_end = 0;
	if (!conn->recv_op.in_flight)
		iobuf_put(&conn->net->bufs, &conn->in);
}

uint32_t conn_in_room(struct conn *conn)
{
	uint32_t text = conn->in_end - conn->in_start;
	uint32_t raw = conn->raw_end - conn->raw_start;
	uint8_t *data = conn->in->data;

	if (conn->in_start > 0 || conn->raw_start > text) {
		uint32_t end = raw > 0 ? conn->raw_end : conn->in_end;
		uint32_t gain = end - text - raw;

		/* Moving costs a copy: where it gains more room than that, or a record lacks it. */
		if (text + raw < gain || conn->in->cap - end < TLS_RECORD_BYTES_MAX) {
			memmove(data, data + conn->in_start, text);
			memmove(data + text, data + conn->raw_start, raw);
			conn->in_start = 0;
			conn->in_end = text;
			conn->raw_start = text;
			conn->raw_end = text + raw;
		}
	}
	if (raw == 0) {
		conn->raw_start = conn->in_end;
		conn->raw_end = conn->in_end;
	}
	return conn->in->cap - conn->raw_end;
}

/* Bulk goes on in a large buffer, though a part of a record or a line lies in a small one. */
static void conn_in_grow(struct conn *conn)
{
	const uint32_t text = conn->in_end - conn->in_start;
	const uint32_t raw = conn->raw_end - conn->raw_start;
	struct iobuf *bulk;

	if (conn->in == NULL || conn->in->is_bulk || !conn->is_bulk_in)
		return;
	bulk = iobuf_take_bulk(&conn->net->bufs);
	if (bulk == NULL)
		return;
	memcpy(bulk->data, conn->in->data + conn->in_start, text);
	memcpy(bulk->data + text, conn->in->data + conn->raw_start, raw);
	conn->in_start = 0;
	conn->in_end = text;
	conn->raw_start = text;
	conn->raw_end = text + raw;
	iobuf_put(&conn->net->bufs, &conn->in);
	conn->in = bulk;
}

void conn_recv_bytes(struct conn *conn, uint32_t bytes_max)
{
	struct iobufs *bufs = &conn->net->bufs;
	uint32_t room;

	conn_in_grow(conn);
	if (conn->in == NULL && conn->is_bulk_in)
		conn->in = iobuf_take_bulk(bufs);
	if (conn->in == NULL && !bufs->provided)
		conn->in = iobuf_take_small(bufs);
	if (conn->in == NULL) {
		room = IOBUF_SMALL_BYTES < bytes_max ? IOBUF_SMALL_BYTES : bytes_max;
		loop_recv_provided(conn->net->loop, &conn->recv_op, conn->fd, room);
		return;
	}
	room = conn_in_room(conn);
	ASSERT(room > 0);
	loop_recv(conn->net->loop, &conn->recv_op, conn->fd, conn->in->data + conn->raw_end,
		room < bytes_max ? room : bytes_max);
}
