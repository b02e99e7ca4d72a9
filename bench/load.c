/* SPDX-License-Identifier: Apache-2.0 */

/*
 * load.c: an SMTP client that sends as much mail as it is allowed to, and counts.
 *
 * A closed loop: each connection sends its next message when the reply to the last one has
 * come. It ends after --messages messages or --seconds seconds, whichever is first.
 *
 * A message is a row of steps: MAIL, RCPT, ..., RCPT, then DATA and BODY, or one CHUNK after the
 * other. There are two cursors, the next step to send and the next step to be answered. Two
 * facts hold the sender back: without pipelining it may not be ahead at all, and BODY waits for
 * the 354 to DATA. Each step gets exactly one reply.
 */

#include "bench/common/client.h"
#include "bench/common/loadconfig.h"
#include "bench/common/message.h"
#include "bench/common/options.h"
#include "bench/common/report.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

/* A connection that fails so often in a row is not tried again. */
#define LOAD_FAILURES_MAX 10

/* Messages under way when the time is over get so much more. */
#define LOAD_GRACE_MS 5000

/* Room that a command needs in the buffer before it is written. */
#define LOAD_COMMAND_BYTES_MAX 128

/* What the threads share. */
struct load {
	struct load_config config;
	struct filler fillers[LOAD_BODIES_MAX];
	_Atomic uint64_t taken; /* messages that some connection has begun */
	uint64_t end_ms;
};

enum load_state {
	LOAD_OPENING, /* the client is on its way to READY */
	LOAD_MESSAGE, /* the two cursors run */
	LOAD_RESET,   /* waits for the reply to RSET, after a message that failed */
	LOAD_QUIT,    /* waits for the reply to QUIT */
	LOAD_DONE,    /* no more to do */
};

struct load_conn {
	struct client client;
	struct load_thread *thread;
	enum load_state state;
	uint64_t send_step;
	uint64_t reply_step;
	uint64_t step_count;
	unsigned int failures_in_row;
	int last_code; /* the newest reply of this message */
	int refusal;   /* first reply of this message that was no success, or 0 */
	uint64_t messages_here;
	uint64_t begun_us;
	size_t sent_bytes; /* of the message, in the form that is sent */
	size_t chunk_left; /* of the chunk under way */
	struct ssl_session_st *session;
	struct message message;
};

struct load_thread {
	pthread_t thread;
	struct load *load;
	const struct load_config *config;
	struct client_plan plan; /* with a TLS context of this thread's own: no locks are shared */
	struct load_conn *conns;
	uint64_t conn_count;
	uint64_t done_count;
	int epoll;
	struct report report;
};

static uint64_t load_now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static bool load_has_more(struct load *load)
{
	return atomic_load_explicit(&load->taken, memory_order_relaxed) < load->config.messages &&
	       load_now_us() / 1000 < load->end_ms;
}

static void load_open(struct load_conn *conn);

/* Takes the next message and begins it, or says goodbye when there is none to take. */
static void load_next_message(struct load_conn *conn)
{
	const struct load_config *config = conn->thread->config;
	struct load *load = conn->thread->load;
	uint64_t index;

	if (conn->messages_here < config->messages_per_connection && load_has_more(load)) {
		index = atomic_fetch_add_explicit(&load->taken, 1, memory_order_relaxed);
		if (index < config->messages) {
			message_init(&conn->message, &load->fillers[index % config->bodies],
				config->first_id + index, !config->is_bdat);
			conn->state = LOAD_MESSAGE;
			conn->send_step = conn->reply_step = 0;
			conn->sent_bytes = conn->chunk_left = 0;
			conn->refusal = 0;
			conn->step_count =
				1 + config->recipients +
				(config->is_bdat ? (config->size - 1) / config->chunk_bytes + 1
						 : 2);
			conn->messages_here++;
			conn->begun_us = load_now_us();
			return;
		}
	}
	conn->state = LOAD_QUIT;
	client_say(&conn->client, "QUIT\r\n");
}

/* Closes, and opens anew if there is more to do and hope. */
static void load_close(struct load_conn *conn)
{
	client_close(&conn->client);
	if (load_has_more(conn->thread->load) && conn->failures_in_row < LOAD_FAILURES_MAX) {
		load_open(conn);
		return;
	}
	conn->state = LOAD_DONE;
	conn->thread->done_count++;
}

/* The connection ended in the wrong place. */
static void load_lost(struct load_conn *conn, const char *what, int code)
{
	struct report *report = &conn->thread->report;

	if (report->lost + report->connect_failed == 0)
		(void)fprintf(stderr, "load: %s: %s\n", what,
			code == -EPROTO ? wire_error()
			: code < 0      ? strerror(-code)
					: "refused");
	if (code > 0 && code < REPORT_CODES)
		report->codes[code]++;
	if (conn->state == LOAD_MESSAGE) {
		report->failed++;
		report->lost++;
	} else if (conn->state == LOAD_OPENING) {
		report->connect_failed++;
	}
	conn->failures_in_row++;
	load_close(conn);
}

static void load_open(struct load_conn *conn)
{
	int rc;

	conn->state = LOAD_OPENING;
	conn->messages_here = 0;
	do {
		rc = client_begin(
			&conn->client, &conn->thread->plan, NULL, conn->thread->epoll, conn);
		if (rc == 0) {
			conn->client.resume = conn->session;
			return;
		}
		conn->thread->report.connect_failed++;
	} while (++conn->failures_in_row < LOAD_FAILURES_MAX);
	(void)fprintf(stderr, "load: connect: %s\n", strerror(-rc));
	conn->state = LOAD_DONE;
	conn->thread->done_count++;
}

static void load_opened(struct load_conn *conn)
{
	struct report *report = &conn->thread->report;
	struct wire_facts facts;

	wire_facts(&conn->client.wire, &facts);
	report->connections++;
	report->resumed += facts.is_resumed;
	report->tls = facts;
	if (conn->thread->config->is_bdat && !conn->client.has_chunking) {
		load_lost(conn, "the server does not offer CHUNKING", 0);
		return;
	}
	load_next_message(conn);
}

static bool load_may_send(const struct load_conn *conn)
{
	const struct load_config *config = conn->thread->config;

	if (conn->state != LOAD_MESSAGE || conn->send_step == conn->step_count)
		return false;
	if (!config->is_bdat && conn->send_step == config->recipients + 2)
		return conn->reply_step >= conn->send_step;
	return !config->is_stepwise || conn->reply_step >= conn->send_step;
}

/* Copies as much of the message as there is room and limit for. */
static size_t load_copy(struct load_conn *conn, size_t limit)
{
	struct client *client = &conn->client;
	size_t room = sizeof(client->out) - client->out_bytes;
	size_t copied = message_copy(&conn->message, conn->sent_bytes,
		client->out + client->out_bytes, room < limit ? room : limit);

	client->out_bytes += copied;
	conn->sent_bytes += copied;
	return copied;
}

static void load_fill_body(struct load_conn *conn)
{
	load_copy(conn, conn->message.bytes);
	if (conn->sent_bytes == conn->message.bytes && client_say(&conn->client, ".\r\n"))
		conn->send_step++;
}

static void load_fill_chunk(struct load_conn *conn)
{
	size_t left = conn->message.bytes - conn->sent_bytes;
	uint64_t chunk = conn->thread->config->chunk_bytes;

	if (conn->chunk_left == 0) {
		conn->chunk_left = left < chunk ? left : chunk;
		client_say(&conn->client, "BDAT %zu%s\r\n", conn->chunk_left,
			conn->chunk_left == left ? " LAST" : "");
	}
	conn->chunk_left -= load_copy(conn, conn->chunk_left);
	if (conn->chunk_left == 0)
		conn->send_step++;
}

/* Writes what may be sent of the current step into the buffer. */
static void load_fill_step(struct load_conn *conn)
{
	const struct load_config *config = conn->thread->config;
	struct client *client = &conn->client;

	if (conn->send_step == 0) {
		client_say(client, "MAIL FROM:<load@client.test>\r\n");
		conn->send_step++;
	} else if (conn->send_step <= config->recipients) {
		client_say(client, "RCPT TO:<r%" PRIu64 "@nexthop.test>\r\n", conn->send_step);
		conn->send_step++;
	} else if (config->is_bdat) {
		load_fill_chunk(conn);
	} else if (conn->send_step == config->recipients + 1) {
		client_say(client, "DATA\r\n");
		conn->send_step++;
	} else {
		load_fill_body(conn);
	}
}

/* Sends until the socket is full or a reply is needed. */
static int load_push(struct load_conn *conn)
{
	struct client *client = &conn->client;
	int rc;

	do {
		if (client->out_at == 0) {
			while (load_may_send(conn) &&
				client->out_bytes + LOAD_COMMAND_BYTES_MAX <= sizeof(client->out))
				load_fill_step(conn);
		}
		rc = client_flush(client);
	} while (rc == 0 && load_may_send(conn));
	return rc;
}

static void load_message_end(struct load_conn *conn)
{
	struct report *report = &conn->thread->report;

	if (conn->last_code == 250) {
		report->messages++;
		report->message_bytes += conn->thread->config->size;
		histogram_add(&report->latency, load_now_us() - conn->begun_us);
		conn->failures_in_row = 0;
		load_next_message(conn);
		return;
	}
	report->failed++;
	report->codes[conn->refusal]++;
	/* What is left of a refused transaction would spoil the next one. */
	conn->state = LOAD_RESET;
	client_say(&conn->client, "RSET\r\n");
}

/* The last step may be answered before it is all sent, which then still has to be done. */
static bool load_message_is_answered(const struct load_conn *conn)
{
	return conn->state == LOAD_MESSAGE && conn->send_step == conn->step_count &&
	       conn->reply_step == conn->step_count;
}

static void load_message_reply(struct load_conn *conn, int code)
{
	const struct load_config *config = conn->thread->config;
	uint64_t step = conn->reply_step++;
	bool is_data = !config->is_bdat && step == config->recipients + 1;

	conn->last_code = code;
	if (code == (is_data ? 354 : 250))
		return;
	if (conn->refusal == 0)
		conn->refusal = code;
	if (step >= 1 && step <= config->recipients)
		conn->thread->report.rcpt_refused++;
	/* Without 354 there is no body; and what is sent step by step may end at the first. */
	if (is_data || (config->is_stepwise && step == 0))
		conn->send_step = conn->reply_step = conn->step_count;
}

static void load_reply(struct load_conn *conn, int code)
{
	if (code == 421) {
		load_lost(conn, "connection closed by reply", code);
	} else if (conn->state == LOAD_MESSAGE &&
		   (conn->reply_step < conn->send_step ||
			   (conn->reply_step == conn->send_step && conn->sent_bytes > 0))) {
		load_message_reply(conn, code);
	} else if (conn->state == LOAD_RESET) {
		load_next_message(conn);
	} else if (conn->state == LOAD_QUIT) {
		if (conn->thread->config->is_resuming) {
			wire_session_put(&conn->session);
			conn->session = wire_session(&conn->client.wire);
		}
		load_close(conn);
	} else {
		load_lost(conn, "reply out of turn", code);
	}
}

static bool load_is_open(const struct load_conn *conn)
{
	return conn->state != LOAD_OPENING && conn->state != LOAD_DONE;
}

static void load_talk(struct load_conn *conn)
{
	while (load_is_open(conn)) {
		int rc = load_push(conn);

		if (rc == 0 && load_message_is_answered(conn)) {
			load_message_end(conn);
			continue;
		}
		if (rc == 0 || rc == -EAGAIN) {
			rc = client_next_reply(&conn->client);
			if (rc > 0) {
				load_reply(conn, rc);
				continue;
			}
		}
		if (rc == -EAGAIN)
			rc = client_receive(&conn->client);
		if (rc == -EAGAIN)
			return;
		if (rc < 0 && conn->state == LOAD_QUIT)
			load_close(conn);
		else if (rc < 0)
			load_lost(conn, "connection", rc);
	}
}

static void load_event(struct load_conn *conn)
{
	conn->client.may_read = true;
	if (conn->state == LOAD_OPENING) {
		switch (client_drive(&conn->client)) {
		case CLIENT_READY:
			load_opened(conn);
			break;
		case CLIENT_FAILED:
			load_lost(conn, conn->client.why, conn->client.code);
			break;
		case CLIENT_CONNECT:
		case CLIENT_TLS_FIRST:
		case CLIENT_BANNER:
		case CLIENT_EHLO:
		case CLIENT_STARTTLS_GO:
		case CLIENT_TLS_LATER:
		case CLIENT_EHLO_AGAIN:
			break;
		}
	}
	load_talk(conn);
	client_poll(&conn->client, conn->thread->epoll, conn);
}

static void *load_thread_run(void *argument)
{
	struct load_thread *thread = argument;
	struct epoll_event events[64];
	uint64_t stop_ms = thread->load->end_ms + LOAD_GRACE_MS;

	for (uint64_t i = 0; i < thread->conn_count; i++)
		load_open(&thread->conns[i]);
	while (thread->done_count < thread->conn_count && load_now_us() / 1000 < stop_ms) {
		int count = epoll_wait(thread->epoll, events, 64, 200);

		for (int i = 0; i < count; i++)
			load_event(events[i].data.ptr);
	}
	for (uint64_t i = 0; i < thread->conn_count; i++) {
		struct load_conn *conn = &thread->conns[i];

		if (conn->state == LOAD_MESSAGE) {
			thread->report.failed++;
			thread->report.lost++;
		}
		client_close(&conn->client);
		wire_session_put(&conn->session);
	}
	return NULL;
}

static int load_thread_start(struct load_thread *thread, struct load *load, uint64_t i)
{
	const struct load_config *config = &load->config;

	thread->load = load;
	thread->config = config;
	thread->plan = config->plan;
	if (config->plan.tls != CLIENT_PLAIN) {
		thread->plan.ctx = wire_tls_create(&config->tls);
		if (thread->plan.ctx == NULL)
			return -EINVAL;
	}
	thread->conn_count =
		config->connections / config->threads + (i < config->connections % config->threads);
	thread->conns = calloc(thread->conn_count, sizeof(*thread->conns));
	thread->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (thread->conns == NULL || thread->epoll < 0)
		return -ENOMEM;
	for (uint64_t j = 0; j < thread->conn_count; j++) {
		thread->conns[j].thread = thread;
		thread->conns[j].client.wire.fd = -1;
	}
	return -pthread_create(&thread->thread, NULL, load_thread_run, thread);
}

static int load_run(struct load *load)
{
	const struct load_config *config = &load->config;
	struct load_thread *threads = calloc(config->threads, sizeof(*threads));
	uint64_t begun_us = load_now_us();
	struct report *sum;
	int rc = 0;

	if (threads == NULL)
		return 1;
	load->end_ms = begun_us / 1000 + config->seconds * 1000;
	for (uint64_t i = 0; i < config->threads && rc == 0; i++)
		rc = load_thread_start(&threads[i], load, i);
	if (rc < 0) {
		/* Some threads may run; the process ends with them. */
		(void)fprintf(stderr, "load: %s\n", strerror(-rc));
		exit(1);
	}
	sum = &threads[0].report;
	for (uint64_t i = 0; i < config->threads; i++) {
		pthread_join(threads[i].thread, NULL);
		if (i > 0)
			report_merge(sum, &threads[i].report);
		free(threads[i].conns);
		wire_tls_destroy(&threads[i].plan.ctx);
	}
	report_print(stdout, sum, (double)(load_now_us() - begun_us) / 1e6, config->size,
		config->is_json);
	rc = sum->failed > 0 || sum->messages == 0 ? 1 : 0;
	free(threads);
	return rc;
}

int main(int argc, char **argv)
{
	static struct load load;
	const struct load_config *config = &load.config;
	int rc = 0;

	load_config_parse(&load.config, argc, argv);
	options_raise_files(config->connections + 100);
	/* OpenSSL writes with write(2); a peer that is gone must be an error, not the end. */
	(void)signal(SIGPIPE, SIG_IGN);
	for (uint64_t i = 0; i < config->bodies && rc == 0; i++)
		rc = filler_create(&load.fillers[i], config->size, i + 1);
	if (rc == 0)
		rc = load_run(&load);
	for (uint64_t i = 0; i < config->bodies; i++)
		filler_destroy(&load.fillers[i]);
	return rc < 0 ? 1 : rc;
}
