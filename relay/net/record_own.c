/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/net/record.h"

#include "relay/base/limits.h"
#include "relay/base/stats.h"

/*
 * record_own.c: records in userspace without OpenSSL's object; seal.h has the reasons.
 */

/* A longer record is not opened while text before it waits: its own would have to be moved. */
#define GATHERED_RECORD_BYTES_MAX 2048

/* Records without text in a row, as many as OpenSSL takes: each costs work and brings nothing. */
#define EMPTY_RECORDS_MAX 32

static void own_recv(struct conn *conn)
{
	/* The last record that had come was opened after own_received(): no byte is held now. */
	if (conn->ktls_want & BIT(KTLS_DIRECTION_RX) && conn->raw_start == conn->raw_end)
		handshake_offer_kernel(conn);
	if (conn->rx == &record_own)
		conn_recv_bytes(conn, record_recv_limit(conn));
	else
		conn->rx->recv(conn);
}

/* Text stays where it was decrypted, unless some before it was not consumed. */
static void own_take_text(struct conn *conn, struct span text)
{
	uint8_t *data = conn->in->data;

	if (conn->in_start == conn->in_end) {
		conn->in_start = (uint32_t)(text.data - data);
		conn->in_end = conn->in_start;
	} else {
		memmove(data + conn->in_end, text.data, text.len);
	}
	conn->in_end += (uint32_t)text.len;
}

static void own_open_record(struct conn *conn, uint32_t length)
{
	static const uint8_t alerts[] = {
		[SEAL_BAD] = ALERT_BAD_RECORD_MAC,
		[SEAL_LONG] = ALERT_RECORD_OVERFLOW,
		[SEAL_ODD] = ALERT_UNEXPECTED_MESSAGE,
	};
	struct span text = {0};
	uint8_t type;
	enum seal_status status = seal_read(&conn->seal[KTLS_DIRECTION_RX],
		conn->in->data + conn->raw_start, length, &type, &text);

	if (status != SEAL_GOOD)
		record_refuse(conn, alerts[status]);
	else if (type != RECORD_APPLICATION_DATA)
		record_control(conn, type, text);
	else if (conn->ticket_left > 0)
		record_refuse(conn, ALERT_UNEXPECTED_MESSAGE); /* in the middle of a message */
	else if (text.len > 0)
		own_take_text(conn, text);
	conn->empty_records = text.len > 0 ? 0 : conn->empty_records + 1;
	if (conn->empty_records > EMPTY_RECORDS_MAX && !conn->has_ended)
		record_refuse(conn, ALERT_UNEXPECTED_MESSAGE);
}

/* The length of the next record, if it has come whole and there is no reason to end; or 0. */
static uint32_t own_next_record(struct conn *conn)
{
	const uint32_t have = conn->raw_end - conn->raw_start;
	const uint8_t *record;
	int length;

	if (have == 0 || conn->has_ended)
		return 0;
	record = conn->in->data + conn->raw_start;
	length = tls_record_length(span_make(record, have));
	if (length < 0)
		record_refuse(
			conn, record[1] == 3 ? ALERT_RECORD_OVERFLOW : ALERT_UNEXPECTED_MESSAGE);
	return length <= 0 || (uint32_t)length > have ? 0 : (uint32_t)length;
}

bool record_open_own(struct conn *conn, bool is_more_wanted)
{
	const uint32_t before = conn->in_end - conn->in_start;
	const uint32_t enough = is_more_wanted ? before : 0;
	uint32_t length;

	while ((length = own_next_record(conn)) > 0) {
		if (conn->in_end - conn->in_start > enough && length > GATHERED_RECORD_BYTES_MAX)
			break;
		own_open_record(conn, length);
		conn->raw_start += length;
		handshake_count(conn, length);
	}
	conn_send_wire(conn);
	return conn->in_end - conn->in_start > before;
}

static void own_received(struct conn *conn, uint32_t bytes)
{
	conn->raw_end += bytes;
	(void)record_open_own(conn, true);
	handshake_offer_kernel(conn);
	if (conn->has_ended && conn->in_start == conn->in_end)
		return;
	conn_input_ready(conn);
}

bool record_put_own(struct conn *conn, uint8_t record_type, struct span content)
{
	size_t len = 0;

	if (conn->wire == NULL) {
		conn->wire = iobuf_take_small(&conn->net->bufs);
		conn->wire_start = 0;
		conn->wire_end = 0;
	}
	if (conn->wire->cap - conn->wire_end >= content.len + SEAL_OVERHEAD_BYTES)
		len = seal_write(&conn->seal[KTLS_DIRECTION_TX], record_type, content,
			conn->wire->data + conn->wire_end);
	conn->wire_end += (uint32_t)len;
	if (conn->wire_end == 0)
		iobuf_put(&conn->net->bufs, &conn->wire);
	return len > 0;
}

/* What was gathered, and did not fit the wire, makes room behind it. */
static void own_keep_rest(struct conn *conn)
{
	conn->out_end -= conn->out_start;
	memmove(conn->out->data, conn->out->data + conn->out_start, conn->out_end);
	conn->out_start = 0;
}

/* Records that lie ready: a frame's. One that is not complete is not sent. */
static void own_send_frame(struct conn *conn)
{
	if (conn->wire == NULL && !conn->is_frame_open && record_complete_frame(conn)) {
		conn->wire = conn->out;
		conn->wire_start = conn->out_start;
		conn->wire_end = conn->out_end;
		conn->out = NULL;
		conn->is_framed = false;
	}
	conn_send_wire(conn);
}

static void own_send(struct conn *conn)
{
	bool good = true;

	if (conn->send_op.in_flight || conn->out == NULL)
		return;
	if (conn->is_framed) {
		own_send_frame(conn);
		return;
	}
	if (conn->is_shut) {
		iobuf_put(&conn->net->bufs, &conn->out);
		return;
	}
	/* One that had to wait for a frame which was given up. */
	if (!record_answer_key_update(conn)) {
		iobuf_put(&conn->net->bufs, &conn->out);
		STAT(tls_key_update_closed);
		conn_ended(conn, CONN_END_KEY_UPDATE);
		return;
	}
	if (conn->wire == NULL) {
		conn->wire = iobuf_take(&conn->net->bufs, conn->out->is_bulk);
		conn->wire_start = 0;
		conn->wire_end = 0;
	}
	while (good && conn->out_start < conn->out_end) {
		const struct span text =
			span_head(span_make(conn->out->data + conn->out_start, conn_gathered(conn)),
				TLS_RECORD_TEXT_BYTES);

		if (conn->wire->cap - conn->wire_end <
			text.len + SEAL_OVERHEAD_BYTES + CONTROL_ROOM_BYTES)
			break;
		good = record_put_own(conn, RECORD_APPLICATION_DATA, text);
		conn->out_start += (uint32_t)text.len;
	}
	if (!good)
		conn_ended(conn, CONN_END_TLS);
	if (!good || conn->out_start == conn->out_end)
		iobuf_put(&conn->net->bufs, &conn->out);
	else
		own_keep_rest(conn);
	conn_send_wire(conn);
}

static void own_shutdown(struct conn *conn)
{
	static const uint8_t goodbye[2] = {1, ALERT_CLOSE_NOTIFY};

	record_send_alert(conn, goodbye);
}

const struct record_layer record_own = {
	.name = "user",
	.recv = own_recv,
	.received = own_received,
	.send = own_send,
	.shutdown = own_shutdown,
};
