/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * sink_through_fixture.h: a next hop, a queue, a session and a clock that do as they are told, for
 * the sink that stands between them.
 */

#include "relay/base/log.h"
#include "relay/base/stats.h"
#include "relay/mail/sink_through.h"
#include "relay/net/loop.h"
#include "relay/smtp/reply.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* The clock. */
static struct timer_wheel wheel;
static uint64_t clock_ms;
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

static inline void pass_ms(uint64_t ms)
{
	clock_ms += ms;
	timer_wheel_run(&wheel, clock_ms);
}

/* One of the two sinks. Each call says what the test has put into next. */
struct fake {
	struct sink sink;
	enum sink_status next;
	enum sink_status hello;
	bool is_open; /* a transaction was begun, and neither abandoned nor taken */
	unsigned abandoned, pushed;
	unsigned rcpts;   /* that it has taken */
	bool is_finished; /* it was given the end of data */
	size_t room;
	char text[4096];
	size_t text_len;
	unsigned mail_offer; /* what was known to be offered when MAIL came */

	/* Of the next hop: */
	bool is_answer;
	bool lacks;
	/* Of the queue: */
	unsigned forgotten, passed;
	char passed_reply[64];
};

static struct fake hop, spare;

static inline struct fake *fake_of(struct sink *sink)
{
	return OWNER_OF(sink, struct fake, sink);
}

static enum sink_status fake_hello(struct sink *sink)
{
	if (fake_of(sink)->hello == SINK_DONE)
		sink->offer = EHLO_SIZE;
	return fake_of(sink)->hello;
}

static enum sink_status fake_mail(
	struct sink *sink, const struct command *command, uint64_t size_extra)
{
	struct fake *fake = fake_of(sink);

	assert_non_null(command);
	assert_int_equal(size_extra, 7);
	assert_false(fake->is_open);
	fake->is_open = fake->next != SINK_FAIL;
	fake->mail_offer = sink->offer;
	return fake->next;
}

static enum sink_status fake_rcpt(struct sink *sink, const struct command *command)
{
	struct fake *fake = fake_of(sink);

	assert_non_null(command);
	assert_true(fake->is_open);
	if (fake->next == SINK_DONE)
		fake->rcpts++;
	return fake->next;
}

static enum sink_status fake_data(struct sink *sink)
{
	assert_true(fake_of(sink)->is_open);
	return fake_of(sink)->next;
}

static size_t fake_room(struct sink *sink)
{
	return fake_of(sink)->room;
}

static void fake_body(struct sink *sink, struct span text)
{
	struct fake *fake = fake_of(sink);

	assert_true(fake->is_open && text.len <= fake->room);
	assert_true(fake->text_len + text.len < sizeof(fake->text));
	memcpy(fake->text + fake->text_len, text.data, text.len);
	fake->text_len += text.len;
	fake->text[fake->text_len] = '\0';
}

static void fake_push(struct sink *sink)
{
	fake_of(sink)->pushed++;
}

static enum sink_status fake_finish(struct sink *sink)
{
	struct fake *fake = fake_of(sink);

	assert_true(fake->is_open && !fake->is_finished);
	fake->is_finished = true;
	return fake->next;
}

static void fake_abandon(struct sink *sink)
{
	fake_of(sink)->abandoned++;
	fake_of(sink)->is_open = false;
}

static const struct sink_ops fake_ops = {
	.hello = fake_hello,
	.mail = fake_mail,
	.rcpt = fake_rcpt,
	.data = fake_data,
	.room = fake_room,
	.body = fake_body,
	.push = fake_push,
	.finish = fake_finish,
	.abandon = fake_abandon,
};

static bool fake_offers(struct sink *sink, unsigned needs)
{
	assert_ptr_equal(sink, &hop.sink);
	(void)needs;
	return !hop.lacks;
}

static bool fake_is_answer(struct sink *sink)
{
	return fake_of(sink)->is_answer;
}

static void fake_forget_rcpt(struct sink *sink)
{
	assert_ptr_equal(sink, &spare.sink);
	spare.forgotten++;
	spare.rcpts--;
}

static void fake_passed(struct sink *sink, struct sink *by, struct span reply)
{
	assert_ptr_equal(sink, &spare.sink);
	assert_ptr_equal(by, &hop.sink);
	assert_true(spare.is_open);
	spare.passed++;
	(void)snprintf(spare.passed_reply, sizeof(spare.passed_reply), "%.*s", (int)reply.len,
		(const char *)reply.data);
}

static const struct through_sides fake_sides = {
	.offers = fake_offers,
	.is_answer = fake_is_answer,
	.forget_rcpt = fake_forget_rcpt,
	.passed = fake_passed,
};

/* The session. */
static struct {
	unsigned replies, ready, broken, identified, admitted;
	unsigned code;
	char reply[256];
	char via[16];
	bool stays; /* it does not abandon what has ended */
} client;

static struct sink_through own;

static void client_on_reply(struct sink *sink, unsigned code, struct span wire)
{
	assert_ptr_equal(sink, &own.sink);
	assert_true(wire.len > 5);
	client.replies++;
	client.code = code;
	(void)snprintf(
		client.reply, sizeof(client.reply), "%.*s", (int)wire.len, (const char *)wire.data);
	(void)snprintf(client.via, sizeof(client.via), "%s", sink->via == NULL ? "-" : sink->via);
	if ((hop.is_finished || spare.is_finished) && !client.stays)
		sink->ops->abandon(sink);
}

static void client_on_ready(struct sink *sink)
{
	assert_ptr_equal(sink, &own.sink);
	client.ready++;
}

static void client_on_broken(struct sink *sink, unsigned code, struct span wire)
{
	client.broken++;
	client.code = code;
	(void)snprintf(
		client.reply, sizeof(client.reply), "%.*s", (int)wire.len, (const char *)wire.data);
	sink->ops->abandon(sink);
}

static void client_identify(struct sink *sink, struct identity *out)
{
	assert_ptr_equal(sink, &own.sink);
	assert_non_null(out);
	client.identified++;
}

static void client_admitted(struct sink *sink, struct sink_sender *out)
{
	assert_ptr_equal(sink, &own.sink);
	assert_non_null(out);
	client.admitted++;
}

static const struct sink_events client_events = {
	.on_reply = client_on_reply,
	.on_ready = client_on_ready,
	.on_broken = client_on_broken,
	.identify = client_identify,
	.admitted = client_admitted,
};

static struct stats counters;

static inline void through_restart(void)
{
	const struct through_options options = {.sides = &fake_sides,
		.hop = &hop.sink,
		.spare = &spare.sink,
		.loop = (struct loop *)&ring,
		.session = "SESSION"};

	memset(&counters, 0, sizeof(counters));
	memset(&client, 0, sizeof(client));
	hop = (struct fake){.sink = {.ops = &fake_ops, .refusal = "452 4.5.3 hop refuses"},
		.next = SINK_WAIT,
		.room = 65536,
		.is_answer = true};
	spare = (struct fake){
		.sink = {.ops = &fake_ops, .refusal = "451 4.3.0 queue refuses"}, .room = 65536};
	sink_through_init(&own, &options);
	own.sink.events = &client_events;
}

static inline int through_setup(void **state)
{
	(void)state;
	stats_mine = &counters;
	log_level_max = LOG_LEVEL_ERROR;
	clock_ms = 1000;
	timer_wheel_init(&wheel, clock_ms);
	through_restart();
	return 0;
}

/* Whatever a test did, nothing is left behind. */
static inline int through_teardown(void **state)
{
	(void)state;
	sink_through_fini(&own);
	return wheel.count != 0 || hop.is_open || spare.is_open ? -1 : 0;
}

static inline enum sink_status say_mail(void)
{
	const struct command command = {.verb = VERB_MAIL, .path = span_of("<a@b.example>")};

	return own.sink.ops->mail(&own.sink, &command, 7);
}

static inline enum sink_status say_rcpt(void)
{
	const struct command command = {.verb = VERB_RCPT, .path = span_of("<c@d.example>")};

	return own.sink.ops->rcpt(&own.sink, &command);
}

static inline enum sink_status say_data(void)
{
	return own.sink.ops->data(&own.sink);
}

static inline void say_body(const char *text)
{
	own.sink.ops->body(&own.sink, span_of(text));
}

static inline enum sink_status say_end(void)
{
	return own.sink.ops->finish(&own.sink);
}

static inline unsigned code_of(const char *line)
{
	return (unsigned)strtoul(line, NULL, 10);
}

/* The next hop answers in its own words. */
static inline void hop_says(const char *line)
{
	hop.is_answer = true;
	hop.sink.via = "HOP";
	hop.sink.events->on_reply(&hop.sink, code_of(line), span_of(line));
}

/* We answer for it. */
static inline void hop_is_lost(void)
{
	const char *line = "451 4.4.2 lost\r\n";

	hop.is_answer = false;
	hop.sink.events->on_reply(&hop.sink, 451, span_of(line));
}

static inline void spare_says(const char *line)
{
	spare.sink.events->on_reply(&spare.sink, code_of(line), span_of(line));
}

/* Up to the text, with one recipient that the next hop has accepted. */
static inline void begin_body(void)
{
	hop.next = SINK_WAIT;
	assert_int_equal(say_mail(), SINK_WAIT);
	hop_says("250 2.1.0 hop\r\n");
	assert_int_equal(say_rcpt(), SINK_WAIT);
	hop_says("250 2.1.5 hop\r\n");
	hop.next = SINK_DONE;
	assert_int_equal(say_data(), SINK_DONE);
	hop.next = SINK_WAIT;
	spare.next = SINK_WAIT;
}
