/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/common/clock.h"
#include "bench/common/sink.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct sink_session {
	struct stream stream;
	struct server server;
	struct sink_worker *worker;
	struct link link;   /* while it is idle */
	struct alarm alarm; /* the end of a delay, or when a slow reader reads on */
	bool is_waiting;    /* for that */
	bool is_reading;    /* stream_read() is not answered yet */
	bool is_handshaking;
	bool is_over;          /* closed or aborted; on_closed is to come */
	uint64_t slow_bytes;   /* of the body that were read */
	uint64_t slow_from_us; /* since then */
};

static void sink_go(struct sink_session *session);

/* The end of the program: something here cannot go on. */
static void sink_break(struct sink *sink)
{
	atomic_store(&sink->is_broken, true);
	(void)eventfd_write(sink->stop_fd, 1);
}

static void sink_close(struct sink_session *session, bool is_orderly)
{
	if (session->is_over)
		return;
	session->is_over = true;
	alarm_stop(&session->worker->alarms, &session->alarm);
	if (is_orderly)
		stream_close(&session->stream);
	else
		stream_abort(&session->stream);
}

static void sink_begin_tls(struct sink_session *session)
{
	session->is_handshaking = true;
	if (stream_start_tls(&session->stream, NULL) < 0)
		sink_close(session, false);
}

/* Takes what the server has to say; false: not all had room, and on_drained goes on. */
static bool sink_flush(struct sink_session *session)
{
	struct server *server = &session->server;

	server->out_at += stream_write(&session->stream,
		span_make(server->out + server->out_at, server->out_bytes - server->out_at));
	stream_flush(&session->stream);
	if (server->out_at < server->out_bytes)
		return false;
	server->out_at = server->out_bytes = 0;
	return true;
}

static void sink_wait(struct sink_session *session, uint64_t due_us)
{
	session->is_waiting = true;
	alarm_set(&session->worker->alarms, &session->alarm, due_us);
}

static bool sink_in_body(const struct server *server)
{
	return server->state == SERVER_DATA || server->state == SERVER_CHUNK;
}

/* A slow reader reads on when the time for what it has read is over. */
static bool sink_is_slow(struct sink_session *session)
{
	uint64_t slow = session->worker->sink->config.slow_bytes;
	uint64_t due_us;

	if (slow == 0 || !sink_in_body(&session->server))
		return false;
	due_us = session->slow_from_us + session->slow_bytes * 1000000 / slow;
	if (due_us <= clock_us())
		return false;
	sink_wait(session, due_us);
	return true;
}

static uint64_t sink_messages(struct sink_session *session)
{
	return atomic_load_explicit(&session->worker->counters.messages, memory_order_relaxed);
}

/* Is it time to end, with those that have come? Only asked where --messages bounds the run. */
static void sink_count(struct sink *sink, uint64_t come)
{
	uint64_t all = atomic_fetch_add(&sink->accepted, come) + come;

	if (come > 0 && all >= sink->config.messages && all - come < sink->config.messages)
		(void)eventfd_write(sink->stop_fd, 1);
}

/* Gives the server what has come; counts what a slow reader has read of a body. */
static void sink_feed(struct sink_session *session)
{
	struct server *server = &session->server;
	struct sink *sink = session->worker->sink;
	bool was_in_body = sink_in_body(server);
	uint64_t before = sink_messages(session);
	struct span in = stream_input(&session->stream);
	size_t used = server_feed(server, (const char *)in.data, in.len);

	if (sink->config.messages > 0)
		sink_count(sink, sink_messages(session) - before);
	if (sink->config.slow_bytes > 0 && sink_in_body(server)) {
		if (!was_in_body) {
			session->slow_from_us = clock_us();
			session->slow_bytes = 0;
		}
		session->slow_bytes += used;
	}
	stream_consume(&session->stream, used);
}

/* Does what can be done now, and asks for what has to come first. */
static void sink_go(struct sink_session *session)
{
	struct server *server = &session->server;

	if (session->is_over || session->is_waiting || session->is_handshaking ||
		session->is_reading)
		return;
	while (server->state <= SERVER_CHUNK && stream_input(&session->stream).len > 0)
		sink_feed(session);
	if (!sink_flush(session))
		return;
	switch (server->state) {
	case SERVER_COMMAND:
	case SERVER_DATA:
	case SERVER_CHUNK:
		if (sink_is_slow(session))
			return;
		session->is_reading = true;
		stream_read(&session->stream);
		return;
	case SERVER_HOLD:
		sink_wait(session, clock_us() + (uint64_t)server->hold_ms * 1000);
		return;
	case SERVER_TLS:
		/* Clear text behind STARTTLS would be taken for what TLS protects. */
		if (stream_input(&session->stream).len > 0)
			sink_close(session, false);
		else if (stream_is_drained(&session->stream))
			sink_begin_tls(session);
		return;
	case SERVER_CLOSE:
		sink_close(session, true);
		return;
	}
}

static void sink_on_alarm(struct alarm *alarm)
{
	struct sink_session *session = OWNER_OF(alarm, struct sink_session, alarm);

	session->is_waiting = false;
	if (session->server.state == SERVER_HOLD)
		server_release(&session->server);
	sink_go(session);
}

static void sink_on_connected(struct stream *stream, int result)
{
	(void)stream;
	(void)result; /* the sink never connects */
}

static void sink_on_input(struct stream *stream)
{
	struct sink_session *session = OWNER_OF(stream, struct sink_session, stream);

	session->is_reading = false;
	sink_go(session);
}

static void sink_on_drained(struct stream *stream)
{
	sink_go(OWNER_OF(stream, struct sink_session, stream));
}

static void sink_on_tls(struct stream *stream)
{
	struct sink_session *session = OWNER_OF(stream, struct sink_session, stream);
	struct server_counters *counters = &session->worker->counters;
	struct stream_facts facts;

	session->is_handshaking = false;
	stream_facts(stream, &facts);
	SERVER_ADD(counters, tls_sessions, 1);
	SERVER_ADD(counters, tls_resumed, facts.is_resumed);
	server_secured(&session->server);
	if (session->worker->sink->config.is_implicit)
		server_greet(&session->server);
	sink_go(session);
}

static void sink_on_end(struct stream *stream, const char *why)
{
	struct sink_session *session = OWNER_OF(stream, struct sink_session, stream);

	session->is_reading = false;
	if (session->is_handshaking) {
		/* The first is told of, the others are counted. */
		if (SERVER_ADD(&session->worker->counters, tls_failed, 1) == 0)
			(void)fprintf(stderr, "postern-sink: handshake: %s\n",
				why != NULL ? why : "the client went away");
	}
	session->is_handshaking = false;
	sink_close(session, true);
}

static void sink_on_closed(struct stream *stream)
{
	struct sink_session *session = OWNER_OF(stream, struct sink_session, stream);
	struct sink_worker *worker = session->worker;

	session->is_over = true;
	alarm_stop(&worker->alarms, &session->alarm);
	server_fini(&session->server);
	atomic_fetch_sub_explicit(&worker->open, 1, memory_order_relaxed);
	/* The last one is warm in the cache. */
	list_prepend(&worker->idle, &session->link);
}

static const struct stream_events sink_events = {
	.on_connected = sink_on_connected,
	.on_input = sink_on_input,
	.on_drained = sink_on_drained,
	.on_tls = sink_on_tls,
	.on_end = sink_on_end,
	.on_closed = sink_on_closed,
};

/* A session that is not in use, or NULL. */
static struct sink_session *sink_session_create(struct sink_worker *worker)
{
	struct link *link = list_take(&worker->idle);
	struct sink_session *session = NULL;

	if (link != NULL)
		return OWNER_OF(link, struct sink_session, link);
	if (worker->session_count < SINK_SESSIONS_MAX)
		session = malloc(sizeof(*session));
	if (session != NULL)
		worker->session_count++;
	return session;
}

static void sink_session_open(struct sink_worker *worker, int fd)
{
	const struct sink_config *config = &worker->sink->config;
	struct sink_session *session = sink_session_create(worker);

	if (session == NULL) {
		atomic_fetch_add_explicit(&worker->refused, 1, memory_order_relaxed);
		(void)close(fd);
		return;
	}
	SERVER_ADD(&worker->counters, sessions, 1);
	atomic_fetch_add_explicit(&worker->open, 1, memory_order_relaxed);
	session->worker = worker;
	session->alarm = (struct alarm){.ring = sink_on_alarm};
	session->is_waiting = session->is_reading = session->is_handshaking = false;
	session->is_over = false;
	link_init(&session->link);
	server_init(&session->server, &config->policy, &worker->counters);
	stream_open(&session->stream, worker->net, &sink_events, fd);
	if (config->is_implicit) {
		sink_begin_tls(session);
	} else {
		server_greet(&session->server);
		sink_go(session);
	}
}

/* A connection has come; whose is it? */
static void sink_on_accept(struct op *op, int32_t result, uint32_t flags)
{
	struct sink_acceptor *acceptor = OWNER_OF(op, struct sink_acceptor, op);
	struct sink_worker *first = acceptor->worker;
	struct sink *sink = first->sink;
	struct sink_worker *worker = &sink->workers[sink->next++ % sink->config.threads];

	if (result >= 0 && worker == first)
		sink_session_open(first, result);
	else if (result >= 0 && write(worker->deal[1], &result, sizeof(result)) != sizeof(result))
		sink_break(sink);
	if (result < 0 && result != -ECONNABORTED && result != -EINTR && result != -EAGAIN) {
		(void)fprintf(stderr, "postern-sink: accept: %s\n", strerror(-result));
		sink_break(sink);
		return;
	}
	if (!loop_flags_more(flags))
		loop_accept(first->loop, &acceptor->op, acceptor->fd);
}

static void sink_on_deal(struct op *op, int32_t result, uint32_t flags)
{
	struct sink_worker *worker = OWNER_OF(op, struct sink_worker, deal_op);

	(void)flags;
	if (result <= 0 || result % (int32_t)sizeof(int) != 0) {
		sink_break(worker->sink);
		return;
	}
	for (size_t i = 0; i < (size_t)result / sizeof(int); i++)
		sink_session_open(worker, worker->dealt[i]);
	loop_read(worker->loop, &worker->deal_op, worker->deal[0], worker->dealt,
		sizeof(worker->dealt));
}

static int sink_worker_create(struct sink_worker *worker)
{
	struct sink *sink = worker->sink;
	const struct stream_net_options options = {.code = sink->config.code,
		.streams_max = SINK_SESSIONS_MAX,
		.tls = sink->config.has_tls ? &sink->config.tls : NULL};
	int rc = stream_net_create(&worker->net, &options);

	if (rc < 0)
		return rc;
	worker->loop = stream_net_loop(worker->net);
	link_init(&worker->idle);
	rc = alarms_create(&worker->alarms, worker->loop, SINK_SESSIONS_MAX);
	if (rc < 0)
		return rc;
	worker->deal_op.done = sink_on_deal;
	loop_read(worker->loop, &worker->deal_op, worker->deal[0], worker->dealt,
		sizeof(worker->dealt));
	for (size_t i = 0; worker == sink->workers && i < sink->config.listen_count; i++) {
		sink->acceptors[i].worker = worker;
		sink->acceptors[i].op.done = sink_on_accept;
		loop_accept(worker->loop, &sink->acceptors[i].op, sink->acceptors[i].fd);
	}
	return 0;
}

void *sink_worker_run(void *argument)
{
	struct sink_worker *worker = argument;
	int rc = sink_worker_create(worker);

	if (rc < 0)
		atomic_store(&worker->sink->is_broken, true);
	(void)pthread_barrier_wait(&worker->sink->start);
	while (rc == 0)
		rc = loop_turn(worker->loop);
	(void)fprintf(stderr, "postern-sink: %s\n", strerror(-rc));
	sink_break(worker->sink);
	return NULL;
}
