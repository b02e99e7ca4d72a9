/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/net/record.h"

#include "relay/base/limits.h"
#include "relay/base/stats.h"
#include <errno.h>

/* Messages of a handshake record (RFC 8446 4). */
#define HANDSHAKE_NEW_SESSION_TICKET 4
#define HANDSHAKE_KEY_UPDATE 24

/* KeyUpdates that one connection may send: each costs key derivation and system calls. */
#define KEY_UPDATES_MAX 64

/* In clear. */

static void plain_recv(struct conn *conn)
{
	conn_recv_bytes(conn, UINT32_MAX);
}

static void plain_received(struct conn *conn, uint32_t bytes)
{
	conn->raw_end += bytes;
	conn->in_end = conn->raw_end;
	conn->raw_start = conn->raw_end;
	conn_input_ready(conn);
}

/* What was gathered is sent as it is. */
static void plain_send(struct conn *conn)
{
	if (conn->send_op.in_flight || conn->out == NULL)
		return;
	ASSERT(conn->wire == NULL);
	conn->wire = conn->out;
	conn->wire_start = conn->out_start;
	conn->wire_end = conn->out_end;
	conn->out = NULL;
	conn_send_wire(conn);
}

static void plain_shutdown(struct conn *conn)
{
	(void)conn;
}

const struct record_layer record_plain = {
	.name = "none",
	.recv = plain_recv,
	.received = plain_received,
	.send = plain_send,
	.shutdown = plain_shutdown,
};

/* By OpenSSL. */

uint32_t record_recv_limit(const struct conn *conn)
{
	uint32_t have = conn->raw_end - conn->raw_start;
	int length;

	if (!(conn->ktls_want & BIT(KTLS_DIRECTION_RX)) || !conn->ktls_rx_ready || have == 0)
		return UINT32_MAX;
	length = tls_record_length(span_make(conn->in->data + conn->raw_start, have));
	if (length < 0)
		return UINT32_MAX; /* the error is found when it is fed */
	return length == 0 ? 5 - have : (uint32_t)length - have;
}

static void user_recv(struct conn *conn)
{
	conn_recv_bytes(conn, record_recv_limit(conn));
}

/* Decrypts one whole record in place. False ends the reading. */
static bool user_decrypt(struct conn *conn, uint32_t length)
{
	struct span record = span_make(conn->in->data + conn->raw_start, length);
	enum tls_status status;
	size_t len;

	if (conn->in_start == conn->in_end) {
		conn->in_start = 0;
		conn->in_end = 0;
	}
	tls_feed(conn->tls, record);
	conn->raw_start += length;
	do {
		status = tls_read(conn->tls, conn->in->data + conn->in_end,
			conn->raw_start - conn->in_end, &len);
		conn->in_end += (uint32_t)len;
	} while (status == TLS_DONE && len > 0);
	if (status == TLS_MORE || status == TLS_DONE)
		return true;
	conn_ended(conn, status == TLS_CLOSED ? CONN_END_EOF : CONN_END_TLS);
	return false;
}

void record_read_user(struct conn *conn)
{
	bool goes_on = true;

	conn_sink_open(conn);
	while (goes_on) {
		int length = tls_record_length(span_make(
			conn->in->data + conn->raw_start, conn->raw_end - conn->raw_start));

		if (length < 0) {
			/* OpenSSL puts what is wrong into an alert. */
			(void)user_decrypt(conn, conn->raw_end - conn->raw_start);
			conn_ended(conn, CONN_END_TLS);
		}
		if (length <= 0 || (uint32_t)length > conn->raw_end - conn->raw_start)
			break;
		goes_on = user_decrypt(conn, (uint32_t)length);
	}
	conn_sink_close(conn);
	if (conn->in_start < conn->in_end)
		conn->ktls_rx_ready = true;
}

static void user_received(struct conn *conn, uint32_t bytes)
{
	conn->raw_end += bytes;
	if (conn->state == CONN_HANDSHAKE) {
		handshake_run(conn);
		return;
	}
	record_read_user(conn);
	/* OpenSSL would answer a KeyUpdate under a key that is the kernel's by now. */
	if (conn->tls->keys_changed && conn->tx == &record_kernel)
		conn_ended(conn, CONN_END_KEY_UPDATE);
	handshake_offer_kernel(conn);
	conn_send_wire(conn);
	if (conn->has_ended && conn->in_start == conn->in_end)
		return;
	conn_input_ready(conn);
}

static void user_send(struct conn *conn)
{
	enum tls_status status = TLS_DONE;
	size_t taken;

	if (conn->send_op.in_flight || conn->out == NULL)
		return;
	conn_sink_open(conn);
	while (status == TLS_DONE && conn->out_start < conn->out_end) {
		status = tls_write(conn->tls,
			span_make(
				conn->out->data + conn->out_start, conn->out_end - conn->out_start),
			&taken);
		conn->out_start += (uint32_t)taken;
	}
	conn_sink_close(conn);
	if (conn->out_start == conn->out_end) {
		iobuf_put(&conn->net->bufs, &conn->out);
	} else {
		/* The wire buffer was the smaller: what is left makes room behind it. */
		conn->out_end -= conn->out_start;
		memmove(conn->out->data, conn->out->data + conn->out_start, conn->out_end);
		conn->out_start = 0;
	}
	if (status == TLS_FAILED || status == TLS_CLOSED) {
		iobuf_put(&conn->net->bufs, &conn->out);
		conn_ended(conn, CONN_END_TLS);
	}
	conn_send_wire(conn);
}

static void user_shutdown(struct conn *conn)
{
	conn_sink_open(conn);
	tls_write_close(conn->tls);
	conn_sink_close(conn);
	conn_send_wire(conn);
}

const struct record_layer record_user = {
	.name = "user",
	.recv = user_recv,
	.received = user_received,
	.send = user_send,
	.shutdown = user_shutdown,
};

/* By the kernel. */

/*
 * Every receive brings room for the record type, so that a control record comes
 * like data does; without it the kernel answers EIO and a second call is needed.
 */
static void kernel_recv(struct conn *conn)
{
	struct iobufs *bufs = &conn->net->bufs;

	conn->message = (struct msghdr){.msg_iov = &conn->piece,
		.msg_iovlen = 1,
		.msg_control = conn->control,
		.msg_controllen = sizeof(conn->control)};
	if (conn->in == NULL && conn->is_bulk_in)
		conn->in = iobuf_take_bulk(bufs);
	if (conn->in == NULL && !bufs->provided)
		conn->in = iobuf_take_small(bufs);
	if (conn->in == NULL) {
		conn->piece = (struct iovec){.iov_len = IOBUF_SMALL_BYTES};
		loop_recvmsg_provided(conn->net->loop, &conn->recv_op, conn->fd, &conn->message);
		return;
	}
	conn->piece.iov_len = conn_in_room(conn);
	conn->piece.iov_base = conn->in->data + conn->in_end;
	loop_recvmsg(conn->net->loop, &conn->recv_op, conn->fd, &conn->message);
}

void record_send_alert(struct conn *conn, const uint8_t alert[2])
{
	/* A peer that takes nothing more does not get its alert: the connection ends all the same.
	 */
	if (conn->tx == &record_own) {
		/* Records that were made and not sent have the next numbers, and no future; nor has
		 * what their owner may write behind them before it hears of the end. */
		if (conn->is_framed) {
			conn_drop_out(conn);
			conn->is_shut = true;
		}
		if (!record_put_own(conn, RECORD_ALERT, span_make(alert, 2)))
			STAT(alerts_unsent);
		conn_send_wire(conn);
	}
	if (conn->tx != &record_kernel)
		return;
	STAT(other_syscalls);
	if (ktls_send_control(conn->fd, RECORD_ALERT, span_make(alert, 2)) < 0)
		STAT(alerts_unsent);
}

static void record_alert(struct conn *conn, uint8_t level, uint8_t description)
{
	const uint8_t alert[2] = {level, description};

	record_send_alert(conn, alert);
}

void record_refuse(struct conn *conn, uint8_t description)
{
	record_alert(conn, 2, description);
	conn_ended(conn, CONN_END_TLS);
}

void record_tell_bad(struct conn *conn, int32_t result)
{
	int error;
	socklen_t len = sizeof(error);

	if (conn->rx != &record_kernel || (result != -EBADMSG && result != -EMSGSIZE))
		return;
	/* The failure is also kept as the socket's error, which the next call would only report. */
	STAT(other_syscalls);
	if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0)
		record_alert(
			conn, 2, result == -EBADMSG ? ALERT_BAD_RECORD_MAC : ALERT_RECORD_OVERFLOW);
}

/* The next key of a direction, by whoever protects it. */
static bool record_rekey(struct conn *conn, enum ktls_direction direction)
{
	const bool is_tx = direction == KTLS_DIRECTION_TX;
	struct record_keys keys;
	bool done;

	if ((is_tx ? conn->tx : conn->rx) == &record_kernel)
		return ktls_rekey(&conn->ktls, direction) == 0;
	done = ktls_next_keys(&conn->ktls, direction, &keys) &&
	       seal_open(&conn->seal[direction], &conn->ktls, is_tx, &keys) == 0;
	explicit_bzero(&keys, sizeof(keys));
	return done;
}

/*
 * Our own KeyUpdate, under the old key, then the new key; not while a send is
 * under way or records of a frame wait for theirs, since it would have to get in between. False: it
 * cannot be done.
 */
bool record_answer_key_update(struct conn *conn)
{
	static const uint8_t answer[5] = {HANDSHAKE_KEY_UPDATE, 0, 0, 1, 0};
	const struct span message = span_make(answer, sizeof(answer));

	if (!conn->owes_key_update || conn->wire != NULL || conn->is_framed)
		return true;
	conn->owes_key_update = false;
	if (conn->tx == &record_own)
		return record_put_own(conn, RECORD_HANDSHAKE, message) &&
		       record_rekey(conn, KTLS_DIRECTION_TX);
	STAT(other_syscalls);
	return ktls_send_control(conn->fd, RECORD_HANDSHAKE, message) == 0 &&
	       record_rekey(conn, KTLS_DIRECTION_TX);
}

/*
 * The peer's next record is under its next key (RFC 8446 4.6.3), and it may ask
 * for ours to change before we send anything else.
 */
static bool record_key_update(struct conn *conn, struct span message)
{
	const bool is_kernel = conn->rx == &record_kernel;

	if (is_kernel)
		STAT(ktls_key_update);
	if (message.len != 5 || message.data[4] > 1 || ++conn->key_updates > KEY_UPDATES_MAX)
		return false;
	if (!record_rekey(conn, KTLS_DIRECTION_RX))
		return false;
	if (is_kernel)
		STAT(ktls_rekeyed);
	if (message.data[4] == 0)
		return true;
	/* OpenSSL has a send side whose keys it has not been told to change. */
	if (conn->tx == &record_user)
		return false;
	conn->owes_key_update = true;
	return record_answer_key_update(conn);
}

/*
 * Tickets to us as a client are passed over: the session that matters was kept before the hand-off.
 * One may go on in the next record. A KeyUpdate is alone in the last record under its key.
 */
static void record_handshake(struct conn *conn, struct span content)
{
	while (content.len > 0) {
		if (conn->ticket_left > 0) {
			const struct span ticket = span_head(content, conn->ticket_left);

			conn->ticket_left -= (uint32_t)ticket.len;
			content = span_skip(content, ticket.len);
			continue;
		}
		if (content.len < 4 || content.data[0] != HANDSHAKE_NEW_SESSION_TICKET ||
			conn->ktls.is_server)
			break;
		conn->ticket_left = 4 + ((uint32_t)content.data[1] << 16 |
						(uint32_t)content.data[2] << 8 | content.data[3]);
	}
	if (content.len == 0)
		return;
	if (!conn->ktls.is_tls13) {
		/* Another handshake is never had; that is a warning in form (RFC 5246 7.2.2). */
		record_alert(conn, 1, ALERT_NO_RENEGOTIATION);
		conn_ended(conn, CONN_END_TLS);
	} else if (content.data[0] != HANDSHAKE_KEY_UPDATE) {
		record_refuse(conn, ALERT_UNEXPECTED_MESSAGE);
	} else if (!record_key_update(conn, content)) {
		STAT(tls_key_update_closed);
		record_alert(conn, 2, ALERT_INTERNAL_ERROR);
		conn_ended(conn, CONN_END_KEY_UPDATE);
	}
}

void record_control(struct conn *conn, uint8_t record_type, struct span content)
{
	if (record_type == RECORD_ALERT && content.len == 2 &&
		content.data[1] == ALERT_CLOSE_NOTIFY)
		conn_ended(conn, CONN_END_EOF);
	else if (record_type == RECORD_HANDSHAKE && content.len > 0)
		record_handshake(conn, content);
	else
		conn_ended(conn, CONN_END_TLS);
}

static void kernel_received(struct conn *conn, uint32_t bytes)
{
	uint8_t record_type = ktls_record_type(&conn->message);

	if (record_type == RECORD_APPLICATION_DATA) {
		conn->in_end += bytes;
		conn->raw_start = conn->in_end;
		conn->raw_end = conn->in_end;
	} else {
		record_control(conn, record_type, span_make(conn->in->data + conn->in_end, bytes));
		conn_send_wire(conn);
	}
	if (!conn->has_ended)
		conn_input_ready(conn);
}

static void kernel_shutdown(struct conn *conn)
{
	record_alert(conn, 1, ALERT_CLOSE_NOTIFY);
}

const struct record_layer record_kernel = {
	.name = "kernel",
	.recv = kernel_recv,
	.received = kernel_received,
	.send = plain_send,
	.shutdown = kernel_shutdown,
};
