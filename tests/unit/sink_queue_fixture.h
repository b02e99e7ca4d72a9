/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * sink_queue_fixture.h: a spool, queues, a router, a clock and a session that do as they are told,
 * for the sink of deliver = queue. The real ones are not linked: their names are defined here.
 */

#include "relay/base/log.h"
#include "relay/base/stats.h"
#include "relay/base/track.h"
#include "relay/mail/sink_queue.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* The clock. */
static struct timer_wheel wheel;
static uint64_t clock_ms;
static int64_t wall_ms = 1700000000000;
static char ring; /* stands for the loop, which nobody looks into */

struct timer_wheel *loop_timers(struct loop *loop)
{
	assert_ptr_equal(loop, (struct loop *)&ring);
	return &wheel;
}

uint64_t loop_now_ms(const struct loop *loop)
{
	assert_ptr_equal(loop, (const struct loop *)&ring);
	return clock_ms;
}

static int64_t fake_now_ms(void)
{
	return wall_ms;
}

static inline void pass_ms(uint64_t ms)
{
	clock_ms += ms;
	timer_wheel_run(&wheel, clock_ms);
}

/* The queues. */
struct message {
	struct spool_message spool;
};
#define MESSAGES 4
static struct {
	struct message messages[MESSAGES];
	bool is_taken[MESSAGES];
	unsigned taken, put, submitted;
	bool is_full;
	uint64_t next_id;
	uint64_t submitted_id;
	struct envelope envelope; /* of the last one; its spans are gone */
	char sender[512], rcpts[4096], domain[64], tls[64];
} fake_queues;

struct message *message_take(struct queues *queues, struct spool *spool)
{
	(void)queues;
	(void)spool;
	for (unsigned i = 0; !fake_queues.is_full && i < MESSAGES; i++) {
		if (fake_queues.is_taken[i])
			continue;
		fake_queues.is_taken[i] = true;
		fake_queues.taken++;
		fake_queues.messages[i].spool.id = fake_queues.next_id++;
		return &fake_queues.messages[i];
	}
	return NULL;
}

struct spool_message *message_spool(struct message *message)
{
	return &message->spool;
}

static inline void message_free(struct message **message)
{
	const long i = *message - fake_queues.messages;

	assert_true(i >= 0 && i < MESSAGES && fake_queues.is_taken[i]);
	fake_queues.is_taken[i] = false;
	*message = NULL;
}

void message_put(struct queues *queues, struct message **message)
{
	(void)queues;
	message_free(message);
	fake_queues.put++;
}

static inline void copy_span(char *out, size_t out_bytes, struct span text)
{
	(void)snprintf(out, out_bytes, "%.*s", (int)text.len, (const char *)text.data);
}

void queues_submit(struct queues *queues, struct message **message, const struct envelope *envelope)
{
	struct envelope_rcpt rcpt;
	size_t at = 0;
	size_t len = 0;

	(void)queues;
	fake_queues.submitted++;
	fake_queues.submitted_id = (*message)->spool.id;
	fake_queues.envelope = *envelope;
	copy_span(fake_queues.sender, sizeof(fake_queues.sender), envelope->sender);
	copy_span(fake_queues.domain, sizeof(fake_queues.domain), envelope->domain);
	copy_span(fake_queues.tls, sizeof(fake_queues.tls), envelope->tls);
	fake_queues.rcpts[0] = '\0';
	while (envelope_next(envelope, &at, &rcpt) && len < sizeof(fake_queues.rcpts))
		len += (size_t)snprintf(fake_queues.rcpts + len, sizeof(fake_queues.rcpts) - len,
			"%.*s %.*s %.*s|", (int)rcpt.path.len, (const char *)rcpt.path.data,
			(int)rcpt.notify.len, (const char *)rcpt.notify.data, (int)rcpt.orcpt.len,
			(const char *)rcpt.orcpt.data);
	message_free(message);
}

/* The spool. */
static struct {
	enum spool_level level;
	int begin_result;
	size_t room;
	unsigned begun, abandoned, commits;
	char text[4096];
	size_t text_len;
	uint8_t envelope[ENVELOPE_BYTES_MAX];
	size_t envelope_len;
	enum durability durability;
	struct spool_writer *writer; /* of the commit under way, or of the last one begun */
} fake_spool;

enum spool_level spool_level(const struct spool *spool)
{
	(void)spool;
	return fake_spool.level;
}

void spool_writer_init(
	struct spool_writer *writer, struct spool *spool, const struct spool_writer_events *events)
{
	*writer = (struct spool_writer){.spool = spool, .events = events};
}

int spool_begin(struct spool_writer *writer, uint64_t id)
{
	if (fake_spool.begin_result < 0)
		return fake_spool.begin_result;
	fake_spool.begun++;
	fake_spool.writer = writer;
	fake_spool.text_len = 0;
	writer->id = id;
	return 0;
}

size_t spool_room(struct spool_writer *writer)
{
	(void)writer;
	return fake_spool.room;
}

void spool_write(struct spool_writer *writer, struct span text)
{
	(void)writer;
	assert_true(fake_spool.text_len + text.len < sizeof(fake_spool.text));
	memcpy(fake_spool.text + fake_spool.text_len, text.data, text.len);
	fake_spool.text_len += text.len;
	fake_spool.text[fake_spool.text_len] = '\0';
}

void spool_commit(struct spool_writer *writer, struct span envelope, enum durability durability,
	struct spool_message *message)
{
	assert_int_equal(message->id, writer->id);
	assert_true(envelope.len <= ENVELOPE_BYTES_MAX);
	memcpy(fake_spool.envelope, envelope.data, envelope.len);
	fake_spool.envelope_len = envelope.len;
	fake_spool.durability = durability;
	fake_spool.writer = writer;
	fake_spool.commits++;
}

void spool_abandon(struct spool_writer *writer)
{
	(void)writer;
	fake_spool.abandoned++;
}

/* The router: what it says of a domain is its first word. */
bool router_way(struct router *router, const struct router_ask *ask, struct router_way *out,
	char reply[static ROUTER_REPLY_BYTES])
{
	const struct span domain = span_skip(ask->path, span_find(ask->path, '@') + 1);

	(void)router;
	assert_true(ask->is_final);
	*out = (struct router_way){.verdict = ROUTER_GOES};
	if (span_starts_nocase(domain, span_of("bad.")))
		out->verdict = ROUTER_BAD_DOMAIN;
	else if (span_starts_nocase(domain, span_of("small.")) && ask->bytes > 1000)
		out->verdict = ROUTER_TOO_LARGE;
	else if (span_starts_nocase(domain, span_of("nowhere.")))
		out->verdict = ROUTER_UNREACHABLE;
	else if (span_starts_nocase(domain, span_of("partner.")))
		out->verdict = ROUTER_UNSECURED;
	(void)snprintf(reply, ROUTER_REPLY_BYTES, "500 verdict %d", (int)out->verdict);
	return out->verdict == ROUTER_GOES;
}

/* The tracking log. */
static struct {
	bool is_on;
	unsigned rows;
	unsigned sent; /* of these: SEND */
	char statuses[64], server[32];
	char recipients[256], subject[64], message_id[64], connector[64], context[64];
	uint64_t id, bytes;
} fake_track;

bool track_is_on(void)
{
	return fake_track.is_on;
}

void track_write(const struct track_row *row)
{
	assert_true(row->event == TRACK_RECEIVE || row->event == TRACK_SEND);
	assert_string_equal(row->source, "SMTP");
	fake_track.rows++;
	fake_track.sent += row->event == TRACK_SEND;
	copy_span(fake_track.statuses, sizeof(fake_track.statuses), row->statuses);
	copy_span(fake_track.server, sizeof(fake_track.server), row->server_ip);
	fake_track.id = row->id;
	fake_track.bytes = row->bytes;
	copy_span(fake_track.recipients, sizeof(fake_track.recipients), row->recipients);
	copy_span(fake_track.subject, sizeof(fake_track.subject), row->subject);
	copy_span(fake_track.message_id, sizeof(fake_track.message_id), row->message_id);
	copy_span(fake_track.connector, sizeof(fake_track.connector), span_of(row->connector));
	copy_span(fake_track.context, sizeof(fake_track.context), span_of(row->context));
}

/* The session. */
static struct {
	unsigned replies, ready, broken;
	unsigned code;
	char reply[1024];
	struct sink_sender sender;
	bool leaves; /* abandons the transaction when it is answered, as sessions do */
} fake_session;

static void fake_on_reply(struct sink *sink, unsigned code, struct span wire)
{
	fake_session.replies++;
	fake_session.code = code;
	copy_span(fake_session.reply, sizeof(fake_session.reply), wire);
	if (fake_session.leaves)
		sink->ops->abandon(sink);
}

static void fake_on_ready(struct sink *sink)
{
	(void)sink;
	fake_session.ready++;
}

static void fake_on_broken(struct sink *sink, unsigned code, struct span wire)
{
	fake_session.broken++;
	fake_session.code = code;
	copy_span(fake_session.reply, sizeof(fake_session.reply), wire);
	sink->ops->abandon(sink);
}

static void fake_identify(struct sink *sink, struct identity *out)
{
	(void)sink;
	memset(out, 0, sizeof(*out));
	assert_int_equal(ip_parse("192.0.2.7", &out->source), 0);
	assert_int_equal(ip_parse("192.0.2.25", &out->destination), 0);
	(void)snprintf(out->helo, sizeof(out->helo), "client.example");
	(void)snprintf(out->session, sizeof(out->session), "SESSION");
	(void)snprintf(out->tls_version, sizeof(out->tls_version), "TLSv1.3");
	(void)snprintf(out->tls_cipher, sizeof(out->tls_cipher), "CIPHER");
}

static void fake_admitted(struct sink *sink, struct sink_sender *out)
{
	(void)sink;
	*out = fake_session.sender;
}

static const struct sink_events fake_events = {
	.on_reply = fake_on_reply,
	.on_ready = fake_on_ready,
	.on_broken = fake_on_broken,
	.identify = fake_identify,
	.admitted = fake_admitted,
};

static struct stats counters;
static struct policy fake_policy = {
	.fqdn = "edge.example", .queue = {.expiration_ms = 1000, .tracking_log_subject = true}};
static const struct send_connector fake_send = {.name = "out"};
static struct receive_connector fake_receive = {.name = "in", .max_message_bytes = 5000};
static struct intake *intake;
static struct sink_queue own;

static inline int sink_fixture_setup(void **state)
{
	const struct intake_options options = {
		.loop = (struct loop *)&ring, .sessions_max = 1, .now_ms = fake_now_ms};
	struct sink_queue_options sink = {.policy = &fake_policy,
		.receive = &fake_receive,
		.connector = &fake_send,
		.session = "SESSION"};

	(void)state;
	stats_mine = &counters;
	memset(&counters, 0, sizeof(counters));
	log_level_max = LOG_LEVEL_ERROR;
	memset(&fake_queues, 0, sizeof(fake_queues));
	memset(&fake_spool, 0, sizeof(fake_spool));
	memset(&fake_session, 0, sizeof(fake_session));
	memset(&fake_track, 0, sizeof(fake_track));
	fake_queues.next_id = 0xabc;
	fake_spool.room = 65536;
	fake_receive.durability = DURABILITY_DURABLE;
	clock_ms = 1000;
	timer_wheel_init(&wheel, clock_ms);
	if (intake_create(&options, &intake) < 0)
		return -1;
	sink.intake = intake;
	sink_queue_init(&own, &sink);
	own.sink.events = &fake_events;
	return 0;
}

/* Whatever a test did, nothing is left behind. */
static inline int sink_fixture_teardown(void **state)
{
	(void)state;
	sink_queue_fini(&own);
	if (!intake_is_idle(intake) || intake->blocks.used != 0 || wheel.count != 0)
		return -1;
	for (unsigned i = 0; i < MESSAGES; i++)
		if (fake_queues.is_taken[i])
			return -1;
	intake_destroy(&intake);
	return 0;
}

static inline struct command parse(const char *line)
{
	static char kept[4096];
	struct command command;

	(void)snprintf(kept, sizeof(kept), "%s", line);
	assert_int_equal(
		command_parse(span_of(kept), LONG_ADDRESS_BYTES_MAX, &command), COMMAND_OK);
	return command;
}

static inline enum sink_status say_mail(const char *line)
{
	struct command command = parse(line);

	return own.sink.ops->mail(&own.sink, &command, OWN_FIELDS_BYTES_MAX);
}

static inline enum sink_status say_rcpt(const char *line)
{
	struct command command = parse(line);

	return own.sink.ops->rcpt(&own.sink, &command);
}

static inline void say_body(const char *text)
{
	own.sink.ops->body(&own.sink, span_of(text));
}

/* Up to the commit. */
static inline void send_message(const char *text)
{
	assert_int_equal(say_mail("MAIL FROM:<a@b.example>"), SINK_DONE);
	assert_int_equal(say_rcpt("RCPT TO:<c@d.example>"), SINK_DONE);
	assert_int_equal(own.sink.ops->data(&own.sink), SINK_DONE);
	say_body(text);
	assert_int_equal(own.sink.ops->finish(&own.sink), SINK_WAIT);
}

static inline void commit_done(int result)
{
	fake_spool.writer->events->on_committed(fake_spool.writer, result);
}

/* What the spool was given. */
static inline struct envelope committed(void)
{
	struct envelope envelope;

	assert_true(
		envelope_read(span_make(fake_spool.envelope, fake_spool.envelope_len), &envelope));
	return envelope;
}

#define SINK_TEST(function) \
	cmocka_unit_test_setup_teardown(function, sink_fixture_setup, sink_fixture_teardown)
