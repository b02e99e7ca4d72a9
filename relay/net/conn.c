/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/net/conn.h"

#include "relay/base/limits.h"
#include "relay/base/stats.h"
#include "relay/net/record.h"
#include <errno.h>
#include <netinet/tcp.h>
#include <unistd.h>

/* How long an orderly end may take: to send the rest, then to see the peer's FIN. */
#define CLOSE_FLUSH_MS 10000
#define CLOSE_LINGER_MS 2000

/* What a peer may still send while we wait for its FIN; then it is reset. */
#define CLOSE_DISCARD_BYTES 1048576

/* Each connection may hold so many small buffers: received, gathered, on the wire, and its owner's.
 */
#define BUFFERS_EACH 4

/* The legal successors of each state; the drawing in conn.h in a form that is checked. */
static const uint16_t conn_next[] = {
	[CONN_CONNECTING] = BIT(CONN_OPEN) | BIT(CONN_DEAD),
	[CONN_OPEN] = BIT(CONN_HANDSHAKE) | BIT(CONN_CLOSING) | BIT(CONN_DEAD),
	[CONN_HANDSHAKE] = BIT(CONN_OPEN) | BIT(CONN_CLOSING) | BIT(CONN_DEAD),
	[CONN_CLOSING] = BIT(CONN_DEAD),
	[CONN_DEAD] = BIT(CONN_CLOSED),
	[CONN_CLOSED] = 0,
};

void conn_enter(struct conn *conn, enum conn_state state)
{
	ASSERT(conn_next[conn->state] & BIT(state));
	conn->state = state;
}

int conn_net_create(struct conn_net *net, struct loop *loop, unsigned sessions,
	unsigned bulk_buffers, const struct ktls_support *support)
{
	unsigned own = sessions * BUFFERS_EACH;
	int rc;

	*net = (struct conn_net){.loop = loop, .ktls_support = support};
	rc = iobufs_create(&net->bufs, loop, own, bulk_buffers);
	if (rc == 0)
		rc = pool_create(&net->tls_pool, sessions, sizeof(struct tls), 64);
	return rc;
}

void conn_net_destroy(struct conn_net *net)
{
	pool_destroy(&net->tls_pool);
	iobufs_destroy(&net->bufs);
}

static void conn_finish(struct conn *conn);

/* Nothing is in flight: the descriptor and everything held go, and the owner is told. */
static void conn_dispose(struct conn *conn)
{
	if (conn->recv_op.in_flight || conn->send_op.in_flight || conn->connect_op.in_flight)
		return;
	if (conn->fd >= 0)
		loop_close(conn->net->loop, conn->fd);
	conn->fd = -1;
	iobuf_put(&conn->net->bufs, &conn->in);
	conn_drop_out(conn);
	iobuf_put(&conn->net->bufs, &conn->wire);
	handshake_forget(conn);
	loop_task_cancel(&conn->flush_task);
	conn->pending = CONN_PENDING_CLOSED;
	loop_task_add(conn->net->loop, &conn->task);
}

void conn_abort(struct conn *conn)
{
	if (conn->state == CONN_DEAD || conn->state == CONN_CLOSED)
		return;
	conn_enter(conn, CONN_DEAD);
	conn->pending = 0;
	timer_stop(loop_timers(conn->net->loop), &conn->timer);
	loop_cancel(conn->net->loop, &conn->recv_op);
	loop_cancel(conn->net->loop, &conn->send_op);
	loop_cancel(conn->net->loop, &conn->connect_op);
	conn_dispose(conn);
}

static void conn_on_timer(struct timer *timer)
{
	struct conn *conn = OWNER_OF(timer, struct conn, timer);

	if (conn->state == CONN_CLOSING)
		conn_abort(conn);
	else
		conn->events->on_timeout(conn);
}

static void conn_run_pending(struct task *task)
{
	struct conn *conn = OWNER_OF(task, struct conn, task);
	unsigned pending = conn->pending;

	conn->pending = 0;
	if (pending & CONN_PENDING_CLOSED) {
		conn_tell_closed(conn);
		return;
	}
	if (pending & CONN_PENDING_HANDSHAKE && conn->state == CONN_HANDSHAKE)
		handshake_run(conn);
	if (pending & CONN_PENDING_INPUT && conn->wants_input)
		conn_input_ready(conn);
	if (pending & CONN_PENDING_END && conn->state <= CONN_HANDSHAKE)
		conn->events->on_end(conn, conn->end);
}

void conn_ended(struct conn *conn, enum conn_end why)
{
	conn->peer_closed = true;
	if (conn->has_ended || conn->state >= CONN_CLOSING)
		return;
	conn->has_ended = true;
	conn->end = why;
	conn->pending |= CONN_PENDING_END;
	loop_task_add(conn->net->loop, &conn->task);
}

/* Receiving. */

struct span conn_input(const struct conn *conn)
{
	if (conn->in == NULL)
		return (struct span){0};
	return span_make(conn->in->data + conn->in_start, conn->in_end - conn->in_start);
}

uint8_t *conn_input_bytes(const struct conn *conn)
{
	return conn->in == NULL ? NULL : conn->in->data + conn->in_start;
}

/* May whole records that we open ourselves lie in the buffer? */
static bool conn_has_sealed(const struct conn *conn)
{
	return conn->rx == &record_own && conn->state == CONN_OPEN && conn->in != NULL &&
	       conn->raw_start < conn->raw_end;
}

void conn_consume(struct conn *conn, size_t bytes)
{
	ASSERT(bytes <= conn->in_end - conn->in_start && !conn->recv_op.in_flight);
	conn->in_start += (uint32_t)bytes;
	if (bytes > 0)
		conn->is_fresh = false;
	if (conn->in_start == conn->in_end && conn_has_sealed(conn))
		conn->is_fresh = record_open_own(conn, false);
	conn_in_tidy(conn);
}

static void conn_recv_again(struct conn *conn)
{
	if (conn->wants_input && !conn->recv_op.in_flight && !conn->peer_closed &&
		conn->state != CONN_DEAD)
		conn->rx->recv(conn);
}

void conn_read(struct conn *conn)
{
	ASSERT(conn->state == CONN_OPEN);
	conn->wants_input = true;
	if (conn->pending & CONN_PENDING_INPUT || conn->recv_op.in_flight)
		return;
	if (conn->is_fresh || (conn_has_sealed(conn) && record_open_own(conn, true))) {
		conn->is_fresh = false;
		conn->pending |= CONN_PENDING_INPUT;
		loop_task_add(conn->net->loop, &conn->task);
		return;
	}
	if (conn->peer_closed) {
		conn_ended(conn, CONN_END_EOF);
		return;
	}
	conn_recv_again(conn);
}

void conn_input_ready(struct conn *conn)
{
	if (conn->state != CONN_OPEN)
		return;
	if (conn->in_start < conn->in_end) {
		conn->wants_input = false;
		conn->events->on_input(conn);
		return;
	}
	conn_in_tidy(conn);
	conn_recv_again(conn);
}

/* While closing, what still comes is thrown away; the peer's FIN ends the wait. */
static void conn_recv_closing(struct conn *conn, int32_t result)
{
	conn->in_start = 0;
	conn->in_end = 0;
	conn->raw_start = 0;
	conn->raw_end = 0;
	iobuf_put(&conn->net->bufs, &conn->in);
	if (result <= 0)
		conn->peer_closed = true;
	else
		conn->discarded += (uint32_t)result;
	conn_finish(conn);
}

/* The kernel had no buffer to pick: lend it more and ask again. */
static void conn_recv_starved(struct conn *conn)
{
	STAT(buffers_starved);
	iobufs_lend_more(&conn->net->bufs);
	if (conn->state == CONN_CLOSING) {
		conn_finish(conn);
		return;
	}
	/* Its own, since there may be none to lend: to ask the kernel again could spin. */
	if (conn->wants_input && conn->in == NULL)
		conn->in = iobuf_take_small(&conn->net->bufs);
	conn_recv_again(conn);
}

static void conn_recv_done(struct op *op, int32_t result, uint32_t flags)
{
	struct conn *conn = OWNER_OF(op, struct conn, recv_op);
	uint16_t id;

	STAT(recv_calls);
	conn->has_more = loop_flags_nonempty(flags);
	if (loop_flags_buffer(flags, &id)) {
		ASSERT(conn->in == NULL);
		conn->in = iobuf_from_kernel(&conn->net->bufs, id);
		conn->in_start = 0;
		conn->in_end = 0;
		conn->raw_start = 0;
		conn->raw_end = 0;
	}
	if (conn->state == CONN_DEAD) {
		conn_dispose(conn);
	} else if (result == -ENOBUFS) {
		conn_recv_starved(conn);
	} else if (conn->state == CONN_CLOSING) {
		conn_recv_closing(conn, result);
	} else if (result <= 0) {
		conn_in_tidy(conn);
		record_tell_bad(conn, result);
		conn_ended(conn, result == 0 ? CONN_END_EOF
				 : result == -EBADMSG || result == -EMSGSIZE || result == -EINVAL
					 ? CONN_END_TLS
					 : CONN_END_RESET);
	} else {
		conn->rx->received(conn, (uint32_t)result);
	}
}

/* Sending. */

bool conn_is_drained(const struct conn *conn)
{
	return conn->out == NULL && conn->wire == NULL;
}

static uint32_t conn_out_cap(const struct conn *conn)
{
	if (conn->out != NULL ? conn->out->is_bulk : conn->is_bulk_out)
		return BULK_PLAIN_BYTES;
	return IOBUF_SMALL_BYTES;
}

size_t conn_room(const struct conn *conn)
{
	if (conn->out == NULL)
		return IOBUF_SMALL_BYTES;
	if (conn->is_framed)
		return conn_frame_room(conn, 0);
	return conn_out_cap(conn) - conn->out_end;
}

uint8_t *conn_out_space(struct conn *conn, size_t reserve, size_t *room)
{
	ASSERT(!conn->is_framed);
	if (conn->out == NULL) {
		conn->out = iobuf_take(&conn->net->bufs, conn->is_bulk_out);
		conn->out_start = (uint32_t)reserve;
		conn->out_end = (uint32_t)reserve;
	}
	*room = conn_room(conn);
	return conn->out->data + conn->out_end;
}

void conn_out_commit(struct conn *conn, size_t bytes)
{
	ASSERT(conn->out != NULL && bytes <= conn_room(conn));
	conn->out_end += (uint32_t)bytes;
	if (conn->out_start == conn->out_end)
		iobuf_put(&conn->net->bufs, &conn->out);
}

void conn_out_prepend(struct conn *conn, struct span header)
{
	ASSERT(conn->out != NULL && header.len <= conn->out_start);
	conn->out_start -= (uint32_t)header.len;
	memcpy(conn->out->data + conn->out_start, header.data, header.len);
}

size_t conn_gathered(const struct conn *conn)
{
	size_t framed = conn->is_framed ? conn->frame_front + conn->frame_rest : 0;

	return conn->out == NULL ? 0 : conn->out_end - conn->out_start + framed;
}

void conn_drop_out(struct conn *conn)
{
	if (conn->is_framed)
		record_unframe(conn);
	iobuf_put(&conn->net->bufs, &conn->out);
}

size_t conn_write(struct conn *conn, struct span bytes)
{
	uint8_t *to;
	size_t take;

	if (bytes.len == 0 || conn->state >= CONN_CLOSING)
		return bytes.len;
	if (conn->is_framed) {
		bytes = span_head(bytes, conn_frame_room(conn, 0));
		conn_frame_add(conn, bytes);
		return bytes.len;
	}
	to = conn_out_space(conn, 0, &take);
	take = take < bytes.len ? take : bytes.len;
	memcpy(to, bytes.data, take);
	conn_out_commit(conn, take);
	return take;
}

void conn_flush_now(struct conn *conn)
{
	if (conn->state == CONN_OPEN || conn->state == CONN_CLOSING)
		conn->tx->send(conn);
}

void conn_flush(struct conn *conn)
{
	if (conn->state == CONN_OPEN && conn->out != NULL && !conn->send_op.in_flight)
		loop_task_add(conn->net->loop, &conn->flush_task);
}

static void conn_run_flush(struct task *task)
{
	conn_flush_now(OWNER_OF(task, struct conn, flush_task));
}

void conn_send_wire(struct conn *conn)
{
	if (conn->send_op.in_flight || conn->wire == NULL)
		return;
	loop_send(conn->net->loop, &conn->send_op, conn->fd, conn->wire->data + conn->wire_start,
		conn->wire_end - conn->wire_start);
}

/* The owner hears of it; a connection that is ending anyway ends at once. */
static void conn_end_now(struct conn *conn, enum conn_end why)
{
	if (conn->state == CONN_CLOSING)
		conn_abort(conn);
	else
		conn_ended(conn, why);
}

/* The peer takes nothing more. What it has sent before may still be read. */
static void conn_send_failed(struct conn *conn)
{
	iobuf_put(&conn->net->bufs, &conn->wire);
	conn_drop_out(conn);
	if (!conn->recv_op.in_flight || conn->state != CONN_OPEN)
		conn_end_now(conn, CONN_END_RESET);
}

static void conn_send_done(struct op *op, int32_t result, uint32_t flags)
{
	struct conn *conn = OWNER_OF(op, struct conn, send_op);

	(void)flags;
	STAT(send_calls);
	if (conn->state == CONN_DEAD) {
		conn_dispose(conn);
		return;
	}
	if (result < 0) {
		conn_send_failed(conn);
		return;
	}
	conn->wire_start += (uint32_t)result;
	conn->records_sent += 1 + (uint32_t)result / TLS_RECORD_TEXT_BYTES;
	if (conn->wire_start < conn->wire_end) {
		conn_send_wire(conn);
		return;
	}
	iobuf_put(&conn->net->bufs, &conn->wire);
	if (conn->state == CONN_HANDSHAKE) {
		handshake_run(conn);
		return;
	}
	handshake_offer_kernel(conn);
	if (!record_answer_key_update(conn)) {
		STAT(tls_key_update_closed);
		conn_end_now(conn, CONN_END_KEY_UPDATE);
		return;
	}
	if (conn->out != NULL && !conn->is_corked)
		conn_flush_now(conn);
	else if (conn->wire != NULL)
		conn_send_wire(conn); /* the answer to a KeyUpdate */
	else if (conn->state == CONN_CLOSING)
		conn_finish(conn);
	else
		conn->events->on_drained(conn);
}

bool conn_is_worn(const struct conn *conn)
{
	/* Those that we seal are numbered, under the key in force. */
	const uint64_t records = conn->tx == &record_own ? conn->seal[KTLS_DIRECTION_TX].sequence
							 : conn->records_sent;

	return conn->facts.version != NULL && records > TLS_RECORDS_MAX;
}

/* The end. */

void conn_deadline(struct conn *conn, uint64_t due_ms)
{
	struct timer_wheel *wheel = loop_timers(conn->net->loop);

	if (conn->state >= CONN_CLOSING)
		return;
	if (due_ms == 0)
		timer_stop(wheel, &conn->timer);
	else
		timer_set(wheel, &conn->timer, due_ms);
}

/* The next step of an orderly end: the rest, then goodbye, then the peer's FIN. */
static void conn_finish(struct conn *conn)
{
	if (conn->out != NULL || conn->wire != NULL) {
		if (conn->out != NULL && conn->wire == NULL)
			conn_flush_now(conn);
		return;
	}
	if (!conn->is_shut) {
		conn->is_shut = true;
		conn->tx->shutdown(conn);
		if (conn->wire != NULL)
			return;
	}
	if (conn->peer_closed || conn->discarded > CLOSE_DISCARD_BYTES) {
		conn_abort(conn);
		return;
	}
	/*
	 * Closing a socket with unread input resets it, and the reset may overtake
	 * our last reply; so the input is read and dropped until the peer ends.
	 */
	if (!conn->is_lingering) {
		conn->is_lingering = true;
		(void)shutdown(conn->fd, SHUT_WR);
		STAT(other_syscalls);
		timer_set(loop_timers(conn->net->loop), &conn->timer,
			loop_now_ms(conn->net->loop) + CLOSE_LINGER_MS);
	}
	if (conn->recv_op.in_flight)
		return;
	iobuf_put(&conn->net->bufs, &conn->in);
	conn->is_bulk_in = false;
	/* A control record would fail a receive that has no room for its type. */
	if (conn->rx == &record_kernel)
		conn->rx->recv(conn);
	else
		conn_recv_bytes(conn, IOBUF_SMALL_BYTES);
}

void conn_close(struct conn *conn)
{
	if (conn->state >= CONN_CLOSING)
		return;
	if (conn->state == CONN_CONNECTING) {
		conn_abort(conn);
		return;
	}
	if (conn->state == CONN_HANDSHAKE)
		conn->is_shut = true; /* there is nothing to say goodbye under */
	/* Half a thing must not look like a whole one: a body's text without its frame is commands.
	 */
	if (conn->is_corked)
		conn_drop_out(conn);
	conn_enter(conn, CONN_CLOSING);
	conn->pending = 0;
	timer_set(loop_timers(conn->net->loop), &conn->timer,
		loop_now_ms(conn->net->loop) + CLOSE_FLUSH_MS);
	if (!conn->recv_op.in_flight) {
		conn->in_start = 0;
		conn->in_end = 0;
		conn->raw_start = 0;
		conn->raw_end = 0;
		iobuf_put(&conn->net->bufs, &conn->in);
	}
	conn_finish(conn);
}

/* The beginning. */

static void conn_connect_done(struct op *op, int32_t result, uint32_t flags)
{
	struct conn *conn = OWNER_OF(op, struct conn, connect_op);

	(void)flags;
	if (conn->state == CONN_DEAD) {
		conn_dispose(conn);
		return;
	}
	if (result == 0)
		conn_enter(conn, CONN_OPEN);
	conn->events->on_connected(conn, result);
}

static void conn_open_as(struct conn *conn, struct conn_net *net, const struct conn_events *events,
	int fd, enum conn_state state)
{
	*conn = (struct conn){.net = net,
		.events = events,
		.fd = fd,
		.state = state,
		.connect_op.done = conn_connect_done,
		.recv_op.done = conn_recv_done,
		.send_op.done = conn_send_done,
		.rx = &record_plain,
		.tx = &record_plain,
		.facts = {.subject = "", .spki_sha256 = ""}};
	task_init(&conn->task, conn_run_pending);
	task_init(&conn->flush_task, conn_run_flush);
	timer_init(&conn->timer, conn_on_timer);
}

void conn_open(struct conn *conn, struct conn_net *net, const struct conn_events *events, int fd)
{
	conn_open_as(conn, net, events, fd, CONN_OPEN);
}

int conn_connect(struct conn *conn, struct conn_net *net, const struct conn_events *events,
	const struct address *to, const struct address *source)
{
	int on = 1;
	int fd = socket(to->sockaddr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	STAT_ADD(other_syscalls, 2);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0 ||
		(source != NULL && source->len > 0 &&
			bind(fd, (const struct sockaddr *)&source->sockaddr, source->len) < 0)) {
		int error = errno;

		(void)close(fd);
		return -error;
	}
	conn_open_as(conn, net, events, fd, CONN_CONNECTING);
	loop_connect(
		net->loop, &conn->connect_op, fd, (const struct sockaddr *)&to->sockaddr, to->len);
	return 0;
}
