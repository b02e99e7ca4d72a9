/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/common/clock.h"
#include "bench/common/load.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* A connection that fails so often in a row is not tried again. */
#define LOAD_FAILURES_MAX 10

/* Room that a command needs before it is written. */
#define LOAD_COMMAND_BYTES_MAX 128

static void load_conn_done(struct load_conn *conn)
{
	conn->state = LOAD_DONE;
	conn->thread->done_count++;
}

/* A message ended badly. */
static void load_conn_count_failed(struct load_conn *conn)
{
	struct load_thread *thread = conn->thread;

	thread->report.failed++;
	if (!thread->config->has_progress)
		return;
	pthread_mutex_lock(&thread->second.lock);
	thread->second.failed++;
	pthread_mutex_unlock(&thread->second.lock);
}

/* The connection ended in the wrong place. */
static void load_conn_count_lost(struct load_conn *conn, const char *what, int code)
{
	struct report *report = &conn->thread->report;

	if (report->lost + report->connect_failed == 0) {
		(void)fprintf(stderr, "postern-load: %s", what);
		if (code > 0)
			(void)fprintf(stderr, ": %d", code);
		else if (code < 0)
			(void)fprintf(stderr, ": %s", strerror(-code));
		(void)fputc('\n', stderr);
	}
	if (code > 0 && code < REPORT_CODES)
		report->codes[code]++;
	if (conn->state == LOAD_MESSAGE) {
		load_conn_count_failed(conn);
		report->lost++;
	} else if (conn->state == LOAD_OPENING) {
		report->connect_failed++;
	}
	if (conn->state != LOAD_OPENING)
		conn->thread->open_count--;
	link_remove(&conn->link);
	conn->failures_in_row++;
	conn->state = LOAD_CLOSING;
	load_thread_tried(conn);
}

static void load_conn_lost(struct load_conn *conn, const char *what, int code)
{
	load_conn_count_lost(conn, what, code);
	client_abort(&conn->client);
}

void load_conn_abort(struct load_conn *conn)
{
	if (conn->state == LOAD_DONE)
		return;
	link_remove(&conn->link);
	if (conn->state == LOAD_MESSAGE)
		load_conn_lost(conn, "not answered in time", 0);
	else
		client_abort(&conn->client);
}

/* Closes in order; it is opened anew from on_closed, if there is more to do. */
static void load_conn_close(struct load_conn *conn)
{
	conn->thread->open_count--;
	conn->state = LOAD_CLOSING;
	client_close(&conn->client);
}

void load_conn_quit(struct load_conn *conn)
{
	link_remove(&conn->link);
	conn->state = LOAD_QUIT;
	client_say(&conn->client, "QUIT\r\n");
	stream_flush(&conn->client.stream);
}

void load_conn_begin(struct load_conn *conn, uint64_t index, uint64_t intended_us)
{
	const struct load_config *config = conn->thread->config;
	unsigned size = sizes_pick(&config->sizes, index);

	conn->size = config->sizes.bytes[size];
	conn->id = config->first_id + index;
	message_init(&conn->message,
		&conn->thread->load->fillers[size * config->bodies + index % config->bodies],
		config->run, conn->id, !config->is_bdat);
	conn->state = LOAD_MESSAGE;
	conn->send_step = conn->reply_step = 0;
	conn->sent_bytes = conn->chunk_left = 0;
	conn->refusal = 0;
	conn->step_count = 1 + config->recipients +
			   (config->is_bdat ? (conn->size - 1) / config->chunk_bytes + 1 : 2);
	conn->messages_here++;
	conn->intended_us = intended_us;
}

/* Takes the next message and begins it, or waits for one, or says goodbye. */
static void load_conn_next(struct load_conn *conn)
{
	uint64_t index;
	uint64_t intended_us;

	if (conn->messages_here >= conn->thread->config->messages_per_connection) {
		load_conn_quit(conn);
		return;
	}
	conn->state = LOAD_FREE;
	switch (load_thread_take(conn, &index, &intended_us)) {
	case LOAD_TURN_MESSAGE:
		load_conn_begin(conn, index, intended_us);
		break;
	case LOAD_TURN_WAIT:
		break;
	case LOAD_TURN_NONE:
		load_conn_quit(conn);
		break;
	}
}

static bool load_conn_may_send(const struct load_conn *conn)
{
	const struct load_config *config = conn->thread->config;

	if (conn->state != LOAD_MESSAGE || conn->send_step == conn->step_count)
		return false;
	if (!config->is_bdat && conn->send_step == config->recipients + 2)
		return conn->reply_step >= conn->send_step;
	return !conn->is_stepwise || conn->reply_step >= conn->send_step;
}

/* Copies as much of the message as there is room and limit for. */
static size_t load_conn_copy(struct load_conn *conn, size_t limit)
{
	size_t room;
	uint8_t *space = stream_out_space(&conn->client.stream, &room);
	size_t copied = message_copy(
		&conn->message, conn->sent_bytes, (char *)space, room < limit ? room : limit);

	stream_out_commit(&conn->client.stream, copied);
	conn->sent_bytes += copied;
	return copied;
}

static void load_conn_fill_body(struct load_conn *conn)
{
	load_conn_copy(conn, conn->message.bytes);
	if (conn->sent_bytes == conn->message.bytes && client_say(&conn->client, ".\r\n"))
		conn->send_step++;
}

static void load_conn_fill_chunk(struct load_conn *conn)
{
	size_t left = conn->message.bytes - conn->sent_bytes;
	uint64_t chunk = conn->thread->config->chunk_bytes;

	if (conn->chunk_left == 0) {
		conn->chunk_left = left < chunk ? left : chunk;
		client_say_number(&conn->client, "BDAT ", conn->chunk_left,
			conn->chunk_left == left ? " LAST\r\n" : "\r\n");
	}
	conn->chunk_left -= load_conn_copy(conn, conn->chunk_left);
	if (conn->chunk_left == 0)
		conn->send_step++;
}

/* Writes what may be sent of the current step. */
static void load_conn_fill(struct load_conn *conn)
{
	const struct load_config *config = conn->thread->config;
	struct client *client = &conn->client;

	if (conn->send_step == 0) {
		client_say(client, "MAIL FROM:<load@client.test>\r\n");
		conn->send_step++;
	} else if (conn->send_step <= config->recipients) {
		client_say_number(client, "RCPT TO:<r", conn->send_step, "@nexthop.test>\r\n");
		conn->send_step++;
	} else if (config->is_bdat) {
		load_conn_fill_chunk(conn);
	} else if (conn->send_step == config->recipients + 1) {
		client_say(client, "DATA\r\n");
		conn->send_step++;
	} else {
		load_conn_fill_body(conn);
	}
}

/* Sends until a reply is needed, or room: then on_drained goes on. */
static void load_conn_push(struct load_conn *conn)
{
	struct stream *stream = &conn->client.stream;

	if (!load_conn_may_send(conn))
		return;
	do {
		if (stream_room(stream) < LOAD_COMMAND_BYTES_MAX) {
			stream_flush_now(stream);
			if (stream_room(stream) < LOAD_COMMAND_BYTES_MAX)
				return;
		}
		load_conn_fill(conn);
	} while (load_conn_may_send(conn));
	stream_flush(stream);
}

static void load_conn_count_good(struct load_conn *conn)
{
	struct load_thread *thread = conn->thread;
	struct report *report = &thread->report;
	uint64_t now_us = clock_us();
	uint64_t took_us = now_us > conn->intended_us ? now_us - conn->intended_us : 0;

	report->messages++;
	report->message_bytes += conn->size;
	report->last_us = now_us;
	histogram_add(&report->latency, took_us);
	if (ledger_add(&thread->ledger, thread->config->run, conn->id) < 0)
		report->ledger_failed = true;
	if (!thread->config->has_progress)
		return;
	pthread_mutex_lock(&thread->second.lock);
	histogram_add(&thread->second.latency, took_us);
	thread->second.bytes += conn->size;
	pthread_mutex_unlock(&thread->second.lock);
}

static void load_conn_message_end(struct load_conn *conn)
{
	if (conn->last_code / 100 == 2) {
		load_conn_count_good(conn);
		conn->failures_in_row = 0;
		load_conn_next(conn);
		return;
	}
	load_conn_count_failed(conn);
	conn->thread->report.codes[conn->refusal]++;
	/* What is left of a refused transaction would spoil the next one. */
	conn->state = LOAD_RESET;
	client_say(&conn->client, "RSET\r\n");
	stream_flush(&conn->client.stream);
}

/* The last step may be answered before it is all sent, which then still has to be done. */
static bool load_conn_is_answered(const struct load_conn *conn)
{
	return conn->state == LOAD_MESSAGE && conn->send_step == conn->step_count &&
	       conn->reply_step == conn->step_count;
}

static void load_conn_message_reply(struct load_conn *conn, int code)
{
	const struct load_config *config = conn->thread->config;
	uint64_t step = conn->reply_step++;
	bool is_data = !config->is_bdat && step == config->recipients + 1;

	conn->last_code = code;
	if (is_data ? code == 354 : code / 100 == 2)
		return;
	if (conn->refusal == 0)
		conn->refusal = code;
	if (step >= 1 && step <= config->recipients)
		conn->thread->report.rcpt_refused++;
	/* Without 354 there is no body; and what is sent step by step may end at the first. */
	if (is_data || (conn->is_stepwise && step == 0))
		conn->send_step = conn->reply_step = conn->step_count;
}

/* Is this reply one to a step that was sent, at least in part? */
static bool load_conn_awaits(const struct load_conn *conn)
{
	return conn->state == LOAD_MESSAGE &&
	       (conn->reply_step < conn->send_step ||
		       (conn->reply_step == conn->send_step && conn->sent_bytes > 0));
}

static void load_conn_reply(struct load_conn *conn, int code)
{
	if (code == 421)
		load_conn_lost(conn, "connection closed by reply", code);
	else if (load_conn_awaits(conn))
		load_conn_message_reply(conn, code);
	else if (conn->state == LOAD_RESET)
		load_conn_next(conn);
	else if (conn->state == LOAD_QUIT)
		load_conn_close(conn);
	else
		load_conn_lost(conn, "reply out of turn", code);
}

static bool load_conn_is_talking(const struct load_conn *conn)
{
	return conn->state == LOAD_FREE || conn->state == LOAD_MESSAGE ||
	       conn->state == LOAD_RESET || conn->state == LOAD_QUIT;
}

void load_conn_talk(struct load_conn *conn)
{
	while (load_conn_is_talking(conn)) {
		int rc;

		load_conn_push(conn);
		if (load_conn_is_answered(conn)) {
			load_conn_message_end(conn);
			continue;
		}
		rc = client_next_reply(&conn->client);
		if (rc == -EAGAIN)
			return;
		if (rc < 0)
			load_conn_lost(conn, "not SMTP", rc);
		else
			load_conn_reply(conn, rc);
	}
}

static void load_conn_ready(struct client *client)
{
	struct load_conn *conn = OWNER_OF(client, struct load_conn, client);
	struct report *report = &conn->thread->report;
	struct stream_facts facts;

	histogram_add(&report->handshake, clock_us() - conn->opened_us);
	stream_facts(&client->stream, &facts);
	report_facts(report, &facts);
	report->connections++;
	report->resumed += facts.is_resumed;
	conn->thread->open_count++;
	conn->is_stepwise = conn->thread->config->is_stepwise || !client->has_pipelining;
	conn->state = LOAD_FREE;
	if (conn->thread->config->is_bdat && !client->has_chunking) {
		load_conn_lost(conn, "the server does not offer CHUNKING", 0);
		return;
	}
	load_thread_tried(conn);
	load_conn_next(conn);
	load_conn_talk(conn);
}

static void load_conn_event(struct client *client)
{
	load_conn_talk(OWNER_OF(client, struct load_conn, client));
}

static void load_conn_on_lost(struct client *client, const char *why, int code)
{
	struct load_conn *conn = OWNER_OF(client, struct load_conn, client);

	/* After QUIT the server may close without a word. */
	if (conn->state == LOAD_QUIT) {
		conn->thread->open_count--;
		conn->state = LOAD_CLOSING;
	} else if (conn->state != LOAD_CLOSING) {
		load_conn_count_lost(conn, why, code);
	}
}

static void load_conn_closed(struct client *client)
{
	struct load_conn *conn = OWNER_OF(client, struct load_conn, client);

	if (conn->fresh != NULL) {
		stream_session_drop(&conn->session);
		conn->session = conn->fresh;
		conn->fresh = NULL;
	}
	if (conn->failures_in_row < LOAD_FAILURES_MAX && load_thread_has_more(conn->thread))
		load_conn_open(conn);
	else
		load_conn_done(conn);
}

static const struct client_events load_conn_events = {
	.on_ready = load_conn_ready,
	.on_input = load_conn_event,
	.on_drained = load_conn_event,
	.on_lost = load_conn_on_lost,
	.on_closed = load_conn_closed,
};

/* Where the session lies that is offered: --resume of a hundred connections offer one. */
static struct ssl_session_st **load_conn_slot(struct load_conn *conn)
{
	struct load_thread *thread = conn->thread;

	if (thread->config->resume_percent == 0)
		return NULL;
	thread->resume_turn += (unsigned)thread->config->resume_percent;
	if (thread->resume_turn < 100)
		return &conn->fresh;
	thread->resume_turn -= 100;
	return &conn->session;
}

void load_conn_open(struct load_conn *conn)
{
	int rc;

	conn->messages_here = 0;
	do {
		conn->state = LOAD_OPENING;
		conn->opened_us = clock_us();
		rc = client_open(&conn->client, conn->thread->net, &conn->thread->config->plan,
			&load_conn_events, NULL, load_conn_slot(conn));
		if (rc == 0)
			return;
		conn->thread->report.connect_failed++;
	} while (++conn->failures_in_row < LOAD_FAILURES_MAX);
	(void)fprintf(stderr, "postern-load: connect: %s\n", strerror(-rc));
	load_thread_tried(conn);
	load_conn_done(conn);
}
