/* SPDX-License-Identifier: Apache-2.0 */

/*
 * stream_stock.c: a stream under stock OpenSSL. The ring moves bytes between the socket and our
 * buffers, and a BIO moves them between these and OpenSSL, so that up to four records are received
 * and sent at once.
 *
 * The received lies in one buffer, as in relay/net/conn.h: text for the owner, then ciphertext. A
 * record is decrypted to the end of the text: text is never longer than the whole records that it
 * came in, so it cannot reach the ciphertext that OpenSSL has not taken yet.
 */

#include "bench/common/stock.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* With less room than this behind what is there, it is moved to the front before a receive. */
#define STOCK_RECV_BYTES_MIN 32768

/* How long an orderly end may take. */
#define STOCK_CLOSE_MS 5000

/* Buffers: taken when bytes come, given back when none are left. */

struct stock_buffer *stock_buffer_create(struct stream_net *net)
{
	struct stock_buffer *buffer = net->free;

	if (buffer != NULL)
		net->free = buffer->next;
	else
		buffer = mmap(NULL, sizeof(*buffer), PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	/* Streams are counted before they are opened, so this is a machine out of memory. */
	if (buffer == MAP_FAILED) {
		(void)fprintf(stderr, "stream: out of memory\n");
		exit(1);
	}
	return buffer;
}

void stock_buffer_put(struct stream_net *net, struct stock_buffer **buffer)
{
	if (*buffer == NULL)
		return;
	(*buffer)->next = net->free;
	net->free = *buffer;
	*buffer = NULL;
}

/* The end. */

static void stock_finish(struct stock *stock);
static void stock_push(struct stock *stock);

void stock_task_add(struct stock *stock, enum stock_pending what)
{
	stock->pending |= what;
	loop_task_add(stock_owner(stock)->net->loop, &stock->task);
}

static void stock_dispose(struct stock *stock)
{
	struct stream_net *net = stock_owner(stock)->net;

	if (stock->connect_op.in_flight || stock->recv_op.in_flight || stock->send_op.in_flight)
		return;
	loop_close(net->loop, stock->fd);
	stock->fd = -1;
	stock_buffer_put(net, &stock->in);
	stock_buffer_put(net, &stock->out);
	stock_buffer_put(net, &stock->wire);
	stock_tls_free(stock);
	loop_task_cancel(&stock->flush_task);
	stock_task_add(stock, STOCK_PENDING_CLOSED);
}

static void stock_abort(struct stock *stock)
{
	struct loop *loop = stock_owner(stock)->net->loop;

	if (stock->state >= STOCK_DEAD)
		return;
	stock->state = STOCK_DEAD;
	stock->pending = 0;
	timer_stop(loop_timers(loop), &stock->timer);
	loop_cancel(loop, &stock->connect_op);
	loop_cancel(loop, &stock->recv_op);
	loop_cancel(loop, &stock->send_op);
	stock_dispose(stock);
}

void stock_ended(struct stock *stock, const char *why)
{
	stock->peer_closed = true;
	if (stock->has_ended || stock->state >= STOCK_CLOSING)
		return;
	stock->has_ended = true;
	(void)snprintf(stock->why, sizeof(stock->why), "%s", why != NULL ? why : "");
	stock_task_add(stock, STOCK_PENDING_END);
}

/* Sending. */

void stock_send_wire(struct stock *stock)
{
	if (stock->send_op.in_flight || stock->wire == NULL)
		return;
	loop_send(stock_owner(stock)->net->loop, &stock->send_op, stock->fd,
		stock->wire->data + stock->wire_start, stock->wire_end - stock->wire_start);
}

/* From what is gathered to the wire, which is empty. */
static void stock_push(struct stock *stock)
{
	if (stock->out == NULL || stock->wire != NULL)
		return;
	if (stock->ssl == NULL) {
		stock->wire = stock->out;
		stock->wire_start = 0;
		stock->wire_end = stock->out_end;
		stock->out = NULL;
	} else {
		stock_tls_encrypt(stock);
		stock_buffer_put(stock_owner(stock)->net, &stock->out);
	}
	stock->out_end = 0;
	stock_send_wire(stock);
}

static void stock_flush_now(struct stream *stream)
{
	struct stock *stock = &stream->as.stock;

	if (stock->state == STOCK_OPEN || stock->state == STOCK_CLOSING)
		stock_push(stock);
}

static void stock_flush(struct stream *stream)
{
	struct stock *stock = &stream->as.stock;

	if (stock->state == STOCK_OPEN && stock->out != NULL && stock->wire == NULL)
		loop_task_add(stream->net->loop, &stock->flush_task);
}

static void stock_run_flush(struct task *task)
{
	stock_flush_now(stock_owner(OWNER_OF(task, struct stock, flush_task)));
}

static void stock_send_done(struct op *op, int32_t result, uint32_t flags)
{
	struct stock *stock = OWNER_OF(op, struct stock, send_op);
	struct stream *stream = stock_owner(stock);

	(void)flags;
	if (stock->state == STOCK_DEAD) {
		stock_dispose(stock);
		return;
	}
	if (result < 0) {
		stock_buffer_put(stream->net, &stock->wire);
		stock_buffer_put(stream->net, &stock->out);
		if (stock->state == STOCK_CLOSING)
			stock_abort(stock);
		else if (!stock->recv_op.in_flight)
			stock_ended(stock, strerror(-result));
		return;
	}
	stock->wire_start += (size_t)result;
	if (stock->wire_start < stock->wire_end) {
		stock_send_wire(stock);
		return;
	}
	stock_buffer_put(stream->net, &stock->wire);
	if (stock->state == STOCK_HANDSHAKE)
		stock_tls_handshake(stock);
	else if (stock->out != NULL)
		stock_push(stock);
	else if (stock->state == STOCK_CLOSING)
		stock_finish(stock);
	else
		stream->events->on_drained(stream);
}

static size_t stock_room(const struct stream *stream)
{
	const struct stock *stock = &stream->as.stock;

	return STOCK_TEXT_BYTES - (stock->out != NULL ? stock->out_end : 0);
}

static uint8_t *stock_out_space(struct stream *stream, size_t *room)
{
	struct stock *stock = &stream->as.stock;

	if (stock->out == NULL) {
		stock->out = stock_buffer_create(stream->net);
		stock->out_end = 0;
	}
	*room = STOCK_TEXT_BYTES - stock->out_end;
	return stock->out->data + stock->out_end;
}

static void stock_out_commit(struct stream *stream, size_t bytes)
{
	struct stock *stock = &stream->as.stock;

	stock->out_end += bytes;
	ASSERT(stock->out_end <= STOCK_TEXT_BYTES);
	if (stock->out_end == 0 || stock->state >= STOCK_CLOSING)
		stock_buffer_put(stream->net, &stock->out);
}

static bool stock_is_drained(const struct stream *stream)
{
	return stream->as.stock.out == NULL && stream->as.stock.wire == NULL;
}

/* Receiving. */

static struct span stock_input(const struct stream *stream)
{
	const struct stock *stock = &stream->as.stock;

	if (stock->in == NULL)
		return (struct span){0};
	return span_make(stock->in->data + stock->in_start, stock->in_end - stock->in_start);
}

static void stock_consume(struct stream *stream, size_t bytes)
{
	struct stock *stock = &stream->as.stock;

	ASSERT(bytes <= stock->in_end - stock->in_start && !stock->recv_op.in_flight);
	stock->in_start += bytes;
	if (stock->in_start < stock->in_end)
		return;
	stock->in_start = stock->in_end = 0;
	if (stock->raw_start < stock->raw_end)
		return;
	stock->raw_start = stock->raw_end = 0;
	stock_buffer_put(stream->net, &stock->in);
}

/* Text and ciphertext move to the front when there is little room behind them. */
static void stock_in_tidy(struct stock *stock)
{
	size_t text = stock->in_end - stock->in_start;
	size_t raw = stock->raw_end - stock->raw_start;
	uint8_t *data = stock->in->data;

	if (raw == 0)
		stock->raw_start = stock->raw_end = stock->in_end;
	if (STOCK_BUFFER_BYTES - stock->raw_end >= STOCK_RECV_BYTES_MIN)
		return;
	memmove(data, data + stock->in_start, text);
	memmove(data + text, data + stock->raw_start, raw);
	stock->in_start = 0;
	stock->in_end = stock->raw_start = text;
	stock->raw_end = text + raw;
}

void stock_recv(struct stock *stock, bool is_ready)
{
	struct stream_net *net = stock_owner(stock)->net;

	if (stock->recv_op.in_flight || stock->peer_closed)
		return;
	if (net->options.is_small && stock->in_start == stock->in_end &&
		stock->raw_start == stock->raw_end)
		stock_buffer_put(net, &stock->in);
	stock->is_polling = net->options.is_small && stock->in == NULL && !is_ready;
	if (stock->is_polling) {
		loop_poll(net->loop, &stock->recv_op, stock->fd, POLLIN);
		return;
	}
	if (stock->in == NULL) {
		stock->in = stock_buffer_create(net);
		stock->in_start = stock->in_end = stock->raw_start = stock->raw_end = 0;
	}
	stock_in_tidy(stock);
	ASSERT(stock->raw_end < STOCK_BUFFER_BYTES);
	loop_recv(net->loop, &stock->recv_op, stock->fd, stock->in->data + stock->raw_end,
		STOCK_BUFFER_BYTES - stock->raw_end);
}

/* After a receive, or when what was here already is asked for. */
static void stock_input_ready(struct stock *stock)
{
	struct stream *stream = stock_owner(stock);

	if (stock->ssl != NULL)
		stock_tls_decrypt(stock);
	if (stock->in_start < stock->in_end) {
		stock->wants_input = false;
		stream->events->on_input(stream);
	} else if (stock->wants_input) {
		stock_recv(stock, false);
	}
}

static void stock_recv_closing(struct stock *stock, int32_t result)
{
	stock->in_start = stock->in_end = stock->raw_start = stock->raw_end = 0;
	if (result <= 0)
		stock->peer_closed = true;
	stock_finish(stock);
}

static void stock_recv_done(struct op *op, int32_t result, uint32_t flags)
{
	struct stock *stock = OWNER_OF(op, struct stock, recv_op);
	bool was_polling = stock->is_polling;

	(void)flags;
	stock->is_polling = false;
	if (stock->state == STOCK_DEAD) {
		stock_dispose(stock);
	} else if (was_polling && result >= 0) {
		stock_recv(stock, true);
	} else if (stock->state == STOCK_CLOSING) {
		stock_recv_closing(stock, result);
	} else if (result <= 0) {
		stock_ended(stock, result == 0 ? NULL : strerror(-result));
	} else {
		stock->raw_end += (size_t)result;
		if (stock->ssl == NULL)
			stock->in_end = stock->raw_start = stock->raw_end;
		if (stock->state == STOCK_HANDSHAKE)
			stock_tls_handshake(stock);
		else
			stock_input_ready(stock);
	}
}

static void stock_read(struct stream *stream)
{
	struct stock *stock = &stream->as.stock;

	ASSERT(stock->state == STOCK_OPEN);
	stock->wants_input = true;
	/* What came behind the handshake is looked at first; an end may have been found there. */
	if (stock->is_fresh && stock->raw_start < stock->raw_end)
		stock_task_add(stock, STOCK_PENDING_INPUT);
	else if (stock->peer_closed)
		stock_ended(stock, NULL);
	else
		stock_recv(stock, false);
	stock->is_fresh = false;
}

/* The orderly end, step by step: the rest, goodbye, the peer's FIN. */
static void stock_finish(struct stock *stock)
{
	if (stock->out != NULL || stock->wire != NULL) {
		stock_push(stock);
		return;
	}
	if (!stock->is_shut) {
		stock->is_shut = true;
		if (stock->ssl != NULL)
			stock_tls_goodbye(stock);
		if (stock->wire != NULL)
			return;
	}
	/*
	 * To close with input unread would reset the connection, perhaps ahead of a server's last
	 * reply. A client has had its last reply.
	 */
	if (stock->peer_closed || !stock->is_accepted) {
		stock_abort(stock);
		return;
	}
	if (!stock->is_lingering) {
		stock->is_lingering = true;
		(void)shutdown(stock->fd, SHUT_WR);
	}
	stock_recv(stock, false);
}

static void stock_close(struct stream *stream)
{
	struct stock *stock = &stream->as.stock;
	struct loop *loop = stream->net->loop;

	if (stock->state >= STOCK_CLOSING)
		return;
	if (stock->state == STOCK_CONNECTING) {
		stock_abort(stock);
		return;
	}
	stock->state = STOCK_CLOSING;
	stock->pending = 0;
	timer_set(loop_timers(loop), &stock->timer, loop_now_ms(loop) + STOCK_CLOSE_MS);
	if (!stock->recv_op.in_flight)
		stock->in_start = stock->in_end = stock->raw_start = stock->raw_end = 0;
	stock_finish(stock);
}

static void stock_on_timer(struct timer *timer)
{
	stock_abort(OWNER_OF(timer, struct stock, timer));
}

static void stock_run_pending(struct task *task)
{
	struct stock *stock = OWNER_OF(task, struct stock, task);
	struct stream *stream = stock_owner(stock);
	unsigned pending = stock->pending;

	stock->pending = 0;
	if (pending & STOCK_PENDING_CLOSED) {
		stock->state = STOCK_CLOSED;
		stream->events->on_closed(stream);
		return;
	}
	if (pending & STOCK_PENDING_INPUT && stock->state == STOCK_HANDSHAKE)
		stock_tls_handshake(stock);
	else if (pending & STOCK_PENDING_INPUT && stock->state == STOCK_OPEN)
		stock_input_ready(stock);
	if (pending & STOCK_PENDING_END && stock->state < STOCK_CLOSING)
		stream->events->on_end(stream, stock->why[0] != '\0' ? stock->why : NULL);
}

/* The beginning. */

static void stock_connect_done(struct op *op, int32_t result, uint32_t flags)
{
	struct stock *stock = OWNER_OF(op, struct stock, connect_op);
	struct stream *stream = stock_owner(stock);

	(void)flags;
	if (stock->state == STOCK_DEAD) {
		stock_dispose(stock);
		return;
	}
	if (result == 0)
		stock->state = STOCK_OPEN;
	stream->events->on_connected(stream, result);
}

static void stock_init(struct stream *stream, int fd, enum stock_state state)
{
	struct stock *stock = &stream->as.stock;
	int on = 1;

	*stock = (struct stock){.fd = fd,
		.state = state,
		.connect_op.done = stock_connect_done,
		.recv_op.done = stock_recv_done,
		.send_op.done = stock_send_done};
	task_init(&stock->task, stock_run_pending);
	task_init(&stock->flush_task, stock_run_flush);
	timer_init(&stock->timer, stock_on_timer);
	/* What is written together belongs together; waiting for an ACK would cost 40 ms. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static void stock_open(struct stream *stream, int fd)
{
	stock_init(stream, fd, STOCK_OPEN);
	stream->as.stock.is_accepted = true;
}

static int stock_connect(
	struct stream *stream, const struct sockaddr_in *to, const struct sockaddr_in *source)
{
	struct stock *stock = &stream->as.stock;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int on = 1;
	int rc;

	if (fd < 0)
		return -errno;
	stock_init(stream, fd, STOCK_CONNECTING);
	/* The port is chosen by connect, so that each destination has all of them. */
	if (source != NULL &&
		(setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on)) < 0 ||
			bind(fd, (const struct sockaddr *)source, sizeof(*source)) < 0)) {
		rc = -errno;
		close(fd);
		return rc;
	}
	stock->to = *to;
	loop_connect(stream->net->loop, &stock->connect_op, fd, (struct sockaddr *)&stock->to,
		sizeof(stock->to));
	return 0;
}

static void stock_abort_stream(struct stream *stream)
{
	stock_abort(&stream->as.stock);
}

const struct stream_ops stream_stock = {
	.net_create = stock_tls_net_create,
	.net_destroy = stock_tls_net_destroy,
	.open = stock_open,
	.connect = stock_connect,
	.input = stock_input,
	.consume = stock_consume,
	.read = stock_read,
	.room = stock_room,
	.out_space = stock_out_space,
	.out_commit = stock_out_commit,
	.flush = stock_flush,
	.flush_now = stock_flush_now,
	.is_drained = stock_is_drained,
	.start_tls = stock_tls_start,
	.facts = stock_tls_facts,
	.close = stock_close,
	.abort = stock_abort_stream,
};
