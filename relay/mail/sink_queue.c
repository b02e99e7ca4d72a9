/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/sink_queue.h"

#include "relay/base/format.h"
#include "relay/base/log.h"
#include "relay/base/stats.h"
#include <errno.h>

/* EXCHANGE 11.2. */
#define TARPIT_FIRST_MS 10000
#define TARPIT_STEP_MS 5000
#define TARPIT_MAX_MS 55000
#define TARPIT_STEP_AFTER_MS 10000
#define TARPIT_END_MS 600000

static const char reply_full[] = "452 4.3.1 Insufficient system resources";
static const char reply_failed[] = "451 4.3.0 Messages cannot be stored now, try again later";

static struct sink_queue *queue_of_sink(struct sink *sink)
{
	return OWNER_OF(sink, struct sink_queue, sink);
}

/* The legal successors of each state; every state may also be forgotten (IDLE). */
static const uint16_t sink_queue_next[] = {
	[SINK_QUEUE_IDLE] = BIT(SINK_QUEUE_HELD) | BIT(SINK_QUEUE_OPEN),
	[SINK_QUEUE_HELD] = BIT(SINK_QUEUE_OPEN),
	[SINK_QUEUE_OPEN] = BIT(SINK_QUEUE_COMMIT),
	[SINK_QUEUE_COMMIT] = 0,
};

static void sink_queue_enter(struct sink_queue *queue, enum sink_queue_state state)
{
	ASSERT(state == SINK_QUEUE_IDLE || sink_queue_next[queue->state] & BIT(state));
	queue->state = state;
}

static void sink_queue_abandon(struct sink *sink)
{
	struct sink_queue *queue = queue_of_sink(sink);

	timer_stop(loop_timers(queue->options.intake->options.loop), &queue->tarpit);
	arrival_drop(&queue->arrival);
	queue->wants_room = false;
	queue->wants_data = false;
	sink_queue_enter(queue, SINK_QUEUE_IDLE);
}

static enum sink_status sink_queue_hello(struct sink *sink)
{
	struct sink_queue *queue = queue_of_sink(sink);

	sink->offer = EHLO_SIZE | EHLO_PIPELINING | EHLO_8BITMIME | EHLO_SMTPUTF8 | EHLO_CHUNKING |
		      EHLO_BINARYMIME | EHLO_DSN | EHLO_ENHANCEDSTATUSCODES;
	sink->offer_size = queue->options.receive->max_message_bytes;
	return SINK_DONE;
}

/* Back pressure. */

static const char *sink_queue_refuse(const struct sink_queue *queue, int error)
{
	const bool is_full = error == -ENOSPC || error == -ENOBUFS;

	STAT(queue_refused);
	log_event(LOG_LEVEL_WARNING, queue->options.session, "refused", "why=%s",
		error == -ENOSPC ? "spool-full"
		: is_full        ? "queue-full"
				 : "spool-failed");
	return is_full ? reply_full : reply_failed;
}

/* How long the answer to MAIL waits, in ms; -errno: it is refused. */
static int64_t sink_queue_press(struct sink_queue *queue)
{
	struct intake *intake = queue->options.intake;
	const uint64_t now = loop_now_ms(intake->options.loop);
	struct sink_sender sender;
	uint64_t lasts;
	uint64_t wait;

	switch (spool_level(intake->options.spool)) {
	case SPOOL_FAILED:
		return -EIO;
	case SPOOL_HIGH:
		return -ENOSPC;
	case SPOOL_NORMAL:
		intake->pressed_since_ms = 0;
		return 0;
	case SPOOL_MEDIUM:
		break;
	}
	if (intake->pressed_since_ms == 0)
		intake->pressed_since_ms = now;
	queue->sink.events->admitted(&queue->sink, &sender);
	if (sender.is_proved || sender.grant.role != ROLE_ANONYMOUS)
		return 0;
	lasts = now - intake->pressed_since_ms;
	wait = TARPIT_FIRST_MS + lasts / TARPIT_STEP_AFTER_MS * TARPIT_STEP_MS;
	if (lasts >= TARPIT_END_MS)
		return -ENOSPC;
	return (int64_t)(wait < TARPIT_MAX_MS ? wait : TARPIT_MAX_MS);
}

/* The arrival gets its id and its place in the spool. */
static int sink_queue_open_arrival(struct sink_queue *queue)
{
	int rc = arrival_begin(queue->arrival);

	if (rc == 0)
		sink_queue_enter(queue, SINK_QUEUE_OPEN);
	return rc;
}

static void sink_queue_tarpit_over(struct timer *timer)
{
	struct sink_queue *queue = OWNER_OF(timer, struct sink_queue, tarpit);
	char line[128];
	int len;
	int64_t rc = sink_queue_press(queue);

	/* It has waited; only what refuses everybody counts now. */
	if (rc >= 0)
		rc = sink_queue_open_arrival(queue);
	if (rc == 0)
		len = snprintf(line, sizeof(line), "250 2.1.0 Sender OK\r\n");
	else
		len = snprintf(line, sizeof(line), "%s\r\n", sink_queue_refuse(queue, (int)rc));
	queue->sink.events->on_reply(&queue->sink,
		rc == 0 ? 250 : (unsigned)strtoul(line, NULL, 10), span_make(line, (size_t)len));
}

static const struct arrival_events sink_queue_arrival_events;

static enum sink_status sink_queue_mail(
	struct sink *sink, const struct command *command, uint64_t size_extra)
{
	struct sink_queue *queue = queue_of_sink(sink);
	struct intake *intake = queue->options.intake;
	int64_t rc;

	(void)size_extra;
	sink_queue_abandon(sink);
	sink->via = NULL;
	queue->bytes = command->params & PARAM_SIZE ? command->size : 0;
	rc = sink_queue_press(queue);
	if (rc >= 0) {
		queue->arrival = arrival_take(intake, queue->options.policy, command);
		if (queue->arrival == NULL)
			rc = -ENOBUFS;
	}
	if (rc >= 0) {
		queue->arrival->events = &sink_queue_arrival_events;
		queue->arrival->owner = queue;
	}
	if (rc > 0) {
		STAT(queue_tarpitted);
		sink_queue_enter(queue, SINK_QUEUE_HELD);
		timer_set(loop_timers(intake->options.loop), &queue->tarpit,
			loop_now_ms(intake->options.loop) + (uint64_t)rc);
		return SINK_WAIT;
	}
	if (rc == 0)
		rc = sink_queue_open_arrival(queue);
	if (rc == 0)
		return SINK_DONE;
	arrival_drop(&queue->arrival);
	sink->refusal = sink_queue_refuse(queue, (int)rc);
	return SINK_FAIL;
}

/* Recipients. */

/* May it wait for a way? Else refusal says why not. */
static bool sink_queue_check(struct sink_queue *queue, const struct command *command)
{
	const struct router_ask ask = {.session = queue->options.session,
		.connector = queue->options.connector,
		.path = command->path,
		.bytes = queue->bytes,
		.is_final = true};
	struct router_way way;

	/* No send connector is for it: it waits for one (EXCHANGE 9.1). */
	return router_way(queue->options.router, &ask, &way, queue->refusal) ||
	       way.verdict == ROUTER_UNREACHABLE;
}

/* Without an arrival the spool has failed since MAIL: the session was told, and has let go. */
static enum sink_status sink_queue_rcpt(struct sink *sink, const struct command *command)
{
	struct sink_queue *queue = queue_of_sink(sink);

	if (queue->state == SINK_QUEUE_HELD)
		return SINK_FULL;
	if (queue->arrival == NULL) {
		sink->refusal = reply_failed;
		return SINK_FAIL;
	}
	if (!sink_queue_check(queue, command)) {
		sink->refusal = queue->refusal;
		return SINK_FAIL;
	}
	switch (arrival_add_rcpt(queue->arrival, command)) {
	case 0:
		return SINK_DONE;
	case -E2BIG:
		sink->refusal = "452 4.5.3 Too many recipients";
		return SINK_FAIL;
	}
	sink->refusal = sink_queue_refuse(queue, -ENOBUFS);
	return SINK_FAIL;
}

/* The body. */

static enum sink_status sink_queue_data(struct sink *sink)
{
	struct sink_queue *queue = queue_of_sink(sink);

	if (queue->arrival == NULL) {
		sink->refusal = reply_failed;
		return SINK_FAIL;
	}
	/* The session's own fields follow at once. */
	if (arrival_room(queue->arrival) > 0)
		return SINK_DONE;
	queue->wants_data = true;
	return SINK_WAIT;
}

static size_t sink_queue_room(struct sink *sink)
{
	struct sink_queue *queue = queue_of_sink(sink);
	size_t room = queue->arrival == NULL ? SIZE_MAX : arrival_room(queue->arrival);

	queue->wants_room = room == 0;
	return room;
}

static void sink_queue_body(struct sink *sink, struct span text)
{
	struct sink_queue *queue = queue_of_sink(sink);

	if (queue->arrival != NULL)
		arrival_write(queue->arrival, text);
}

/* What is gathered goes with the rest: small writes would cost the disk more than they gain. */
static void sink_queue_push(struct sink *sink)
{
	(void)sink;
}

/* The end. */

/* What facts point to. */
struct sink_queue_source {
	struct sink_sender sender;
	struct identity client;
};

static struct arrival_facts sink_queue_facts(
	struct sink_queue *queue, struct sink_queue_source *source)
{
	const struct sink_queue_options *options = &queue->options;

	queue->sink.events->admitted(&queue->sink, &source->sender);
	queue->sink.events->identify(&queue->sink, &source->client);
	return (struct arrival_facts){.sender = &source->sender,
		.client = &source->client,
		.connector = options->receive->name,
		.send_connector = options->connector == NULL ? NULL : options->connector->name,
		.durability = options->receive->durability,
		.expiration_ms = options->policy->queue.expiration_ms};
}

static enum sink_status sink_queue_finish(struct sink *sink)
{
	struct sink_queue *queue = queue_of_sink(sink);
	struct sink_queue_source source;
	const struct arrival_facts facts = sink_queue_facts(queue, &source);
	char id[MESSAGE_ID_TEXT_BYTES];
	int rc;

	rc = arrival_commit(queue->arrival, &facts);
	if (rc < 0) {
		sink->refusal = sink_queue_refuse(queue, rc);
		return SINK_FAIL;
	}
	message_id_print(arrival_id(queue->arrival), id);
	(void)format_print(queue->via, sizeof(queue->via), "queue:%s", id);
	sink->via = queue->via;
	sink_queue_enter(queue, SINK_QUEUE_COMMIT);
	return SINK_WAIT;
}

/* The spool's side. */

static void sink_queue_on_room(void *owner)
{
	struct sink_queue *queue = owner;

	if (queue->wants_data) {
		queue->wants_data = false;
		queue->sink.events->on_reply(&queue->sink, 354,
			span_of("354 Start mail input; end with <CRLF>.<CRLF>\r\n"));
	} else if (queue->wants_room) {
		queue->wants_room = false;
		queue->sink.events->on_ready(&queue->sink);
	}
}

static void sink_queue_on_broken(void *owner, int error)
{
	struct sink_queue *queue = owner;
	const bool is_full = error == -ENOSPC || error == -ENOBUFS;
	char line[128];
	int len = snprintf(line, sizeof(line), "%s\r\n", is_full ? reply_full : reply_failed);
	const struct span wire = span_make(line, (size_t)len);

	queue->wants_room = false;
	log_event(LOG_LEVEL_WARNING, queue->options.session, "refused", "why=%s",
		is_full ? "spool-full" : "spool-failed");
	if (queue->wants_data) {
		queue->wants_data = false;
		queue->sink.events->on_reply(&queue->sink, is_full ? 452 : 451, wire);
	} else {
		queue->sink.events->on_broken(&queue->sink, is_full ? 452 : 451, wire);
	}
}

static void sink_queue_on_stored(void *owner, int result, struct span reply)
{
	struct sink_queue *queue = owner;

	(void)result;
	queue->arrival = NULL;
	sink_queue_enter(queue, SINK_QUEUE_IDLE);
	queue->sink.events->on_reply(
		&queue->sink, (unsigned)strtoul((const char *)reply.data, NULL, 10), reply);
}

static const struct arrival_events sink_queue_arrival_events = {
	.on_room = sink_queue_on_room,
	.on_broken = sink_queue_on_broken,
	.on_stored = sink_queue_on_stored,
};

static const struct sink_ops sink_queue_ops = {
	.hello = sink_queue_hello,
	.mail = sink_queue_mail,
	.rcpt = sink_queue_rcpt,
	.data = sink_queue_data,
	.room = sink_queue_room,
	.body = sink_queue_body,
	.push = sink_queue_push,
	.finish = sink_queue_finish,
	.abandon = sink_queue_abandon,
};

void sink_queue_init(struct sink_queue *queue, const struct sink_queue_options *options)
{
	/* Deliveries take Exchange's fields out again where the next hop is not trusted. */
	*queue = (struct sink_queue){.sink = {.ops = &sink_queue_ops, .is_trusted = true},
		.options = *options,
		.state = SINK_QUEUE_IDLE};
	timer_init(&queue->tarpit, sink_queue_tarpit_over);
}

void sink_queue_move(struct sink_queue *queue, const struct sink_queue_options *options)
{
	ASSERT(queue->state == SINK_QUEUE_IDLE);
	queue->options = *options;
}

void sink_queue_forget_rcpt(struct sink *sink)
{
	arrival_forget_rcpt(queue_of_sink(sink)->arrival);
}

void sink_queue_passed(struct sink *sink, const struct arrival_passed *passed)
{
	struct sink_queue *queue = queue_of_sink(sink);
	struct sink_queue_source source;
	const struct arrival_facts facts = sink_queue_facts(queue, &source);

	arrival_track_passed(queue->arrival, &facts, passed);
}

void sink_queue_fini(struct sink_queue *queue)
{
	sink_queue_abandon(&queue->sink);
}
