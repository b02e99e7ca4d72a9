/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/sink_through_private.h"

#include "relay/base/log.h"
#include "relay/base/stats.h"
#include "relay/net/loop.h"
#include "relay/smtp/compose.h"
#include <stdlib.h>

static const char reply_sender[] = "250 2.1.0 Sender OK\r\n";
static const char reply_recipient[] = "250 2.1.5 Recipient OK\r\n";

/* The legal successors of each state; every state may also be forgotten (IDLE). */
static const uint16_t through_next[THROUGH_STATE_COUNT] = {
	[THROUGH_IDLE] = BIT(THROUGH_MAIL) | BIT(THROUGH_OPEN) | BIT(THROUGH_SPARE),
	[THROUGH_MAIL] = BIT(THROUGH_OPEN) | BIT(THROUGH_SPARE),
	[THROUGH_OPEN] =
		BIT(THROUGH_RCPT) | BIT(THROUGH_DATA) | BIT(THROUGH_BODY) | BIT(THROUGH_SPARE),
	[THROUGH_RCPT] = BIT(THROUGH_OPEN) | BIT(THROUGH_SPARE),
	[THROUGH_DATA] = BIT(THROUGH_BODY) | BIT(THROUGH_SPARE),
	[THROUGH_BODY] = BIT(THROUGH_FINISH) | BIT(THROUGH_SPARE),
	[THROUGH_FINISH] = BIT(THROUGH_SPARE),
	[THROUGH_SPARE] = 0,
};

void sink_through_enter(struct sink_through *through, enum through_state state)
{
	ASSERT(state == THROUGH_IDLE || through_next[through->state] & BIT(state));
	through->state = state;
}

/* Patience. */

void through_stop(struct sink_through *through)
{
	timer_stop(loop_timers(through->options.loop), &through->patience);
}

/* From now on the next hop is awaited. */
void through_await(struct sink_through *through)
{
	const uint64_t now_ms = loop_now_ms(through->options.loop);

	through->is_slow = through->options.hop->via != NULL;
	timer_set(loop_timers(through->options.loop), &through->patience,
		now_ms + (through->is_slow ? THROUGH_ANSWER_MS : THROUGH_SESSION_MS));
}

/* Giving up. */

enum sink_status through_fail(struct sink_through *through)
{
	through->sink.refusal = through->options.spare->refusal;
	return SINK_FAIL;
}

void through_reply(struct sink_through *through, struct span wire)
{
	through->sink.events->on_reply(
		&through->sink, (unsigned)strtoul((const char *)wire.data, NULL, 10), wire);
}

/* The queue has the message alone from now on. reply: the next hop's, or empty. */
void through_give_up(struct sink_through *through, const char *why, struct span reply)
{
	const char *via = through->options.hop->via;
	char text[256];

	log_event(LOG_LEVEL_INFO, through->options.session, "kept", "why=%s nexthop=%s reply=%s",
		why, via == NULL ? "-" : via,
		log_quote(span_head(reply, reply.len > 2 ? reply.len - 2 : 0), text, sizeof(text)));
	through_stop(through);
	through->options.hop->ops->abandon(through->options.hop);
	through->sink.via = NULL;
	through->sink.bytes_max = through->options.spare->bytes_max;
	through->awaits_hop = false;
	sink_through_enter(through, THROUGH_SPARE);
}

/* What the next hop's silence, loss or answer is called in the log. */
const char *through_why(const struct sink_through *through)
{
	if (through->options.sides->is_answer(through->options.hop))
		return "put-off";
	return through->options.hop->via == NULL ? "unreachable" : "lost";
}

static void through_forget(struct sink_through *through)
{
	through_stop(through);
	through->options.hop->ops->abandon(through->options.hop);
	through->options.spare->ops->abandon(through->options.spare);
	through->sink.bytes_max = 0;
	through->is_split = false;
	through->awaits_hop = false;
	through->awaits_room = false;
	through->is_ending = false;
	through->hop_rcpts = 0;
	sink_through_enter(through, THROUGH_IDLE);
}

static void through_abandon(struct sink *sink)
{
	through_forget(through_of(sink));
}

/* The queue deals with what a next hop lacks, so it says what is announced. */
static enum sink_status through_hello(struct sink *sink)
{
	struct sink_through *through = through_of(sink);
	struct sink *spare = through->options.spare;
	enum sink_status status = spare->ops->hello(spare);

	sink->offer = spare->offer;
	sink->offer_size = spare->offer_size;
	return status;
}

/* Envelope. */

/* What the next hop is known to offer, which says how MAIL is composed; not waited for. */
static void through_look_at_offer(struct sink *hop)
{
	hop->offer = 0;
	if (hop->ops->hello(hop) == SINK_WAIT)
		hop->ops->abandon(hop);
}

static enum sink_status through_mail(
	struct sink *sink, const struct command *command, uint64_t size_extra)
{
	struct sink_through *through = through_of(sink);
	struct sink *hop = through->options.hop;
	enum sink_status status;

	through_forget(through);
	sink->via = NULL;
	hop->via = NULL;
	status = through->options.spare->ops->mail(through->options.spare, command, size_extra);
	if (status == SINK_FAIL)
		return through_fail(through);
	if (status == SINK_WAIT) {
		through_give_up(through, "back-pressure", (struct span){0});
		return SINK_WAIT;
	}
	through_look_at_offer(hop);
	status = hop->ops->mail(hop, command, size_extra);
	if (status == SINK_WAIT) {
		sink_through_enter(through, THROUGH_MAIL);
		through_await(through);
		return SINK_WAIT;
	}
	if (status == SINK_DONE)
		sink_through_enter(through, THROUGH_OPEN);
	else
		through_give_up(through, "not-for-it", span_of(hop->refusal));
	return SINK_DONE;
}

static enum sink_status through_spare_rcpt(
	struct sink_through *through, const struct command *command)
{
	struct sink *spare = through->options.spare;
	enum sink_status status = spare->ops->rcpt(spare, command);

	return status == SINK_FAIL ? through_fail(through) : status;
}

static enum sink_status through_rcpt(struct sink *sink, const struct command *command)
{
	struct sink_through *through = through_of(sink);
	struct sink *hop = through->options.hop;
	enum sink_status status;

	if (through->state == THROUGH_MAIL || through->state == THROUGH_RCPT)
		return SINK_FULL;
	status = through_spare_rcpt(through, command);
	if (through->state == THROUGH_SPARE || status != SINK_DONE)
		return status;
	if (through->options.sides->offers(hop, compose_needs(command)) &&
		hop->ops->rcpt(hop, command) == SINK_WAIT) {
		sink_through_enter(through, THROUGH_RCPT);
		through_await(through);
		return SINK_WAIT;
	}
	/* It goes elsewhere, or that next hop is not for it. */
	through->is_split = true;
	return SINK_DONE;
}

static void through_mail_answered(struct sink_through *through, unsigned code, struct span wire)
{
	const bool is_answer = through->options.sides->is_answer(through->options.hop);
	const unsigned kind = code / 100;

	if (is_answer && (kind == 2 || kind == 5)) {
		sink_through_enter(through, THROUGH_OPEN);
		through->sink.events->on_reply(&through->sink, code, wire);
		return;
	}
	through_give_up(through, through_why(through), wire);
	through_reply(through, span_of(reply_sender));
}

static void through_rcpt_answered(struct sink_through *through, unsigned code, struct span wire)
{
	const bool is_answer = through->options.sides->is_answer(through->options.hop);
	const unsigned kind = code / 100;

	if (is_answer && (kind == 2 || kind == 5)) {
		if (kind == 2)
			through->hop_rcpts++;
		else
			through->options.sides->forget_rcpt(through->options.spare);
		sink_through_enter(through, THROUGH_OPEN);
		through->sink.events->on_reply(&through->sink, code, wire);
		return;
	}
	if (is_answer) {
		through->is_split = true;
		sink_through_enter(through, THROUGH_OPEN);
	} else {
		through_give_up(through, through_why(through), wire);
	}
	through_reply(through, span_of(reply_recipient));
}

static void through_push(struct sink *sink)
{
	struct sink_through *through = through_of(sink);
	struct sink *hop = through->options.hop;

	if (through->state != THROUGH_SPARE)
		hop->ops->push(hop);
	through->options.spare->ops->push(through->options.spare);
}

/* The next hop's side. */

static void through_hop_on_reply(struct sink *hop, unsigned code, struct span wire)
{
	struct sink_through *through = hop->owner;

	switch (through->state) {
	case THROUGH_MAIL:
		through_stop(through);
		through_mail_answered(through, code, wire);
		break;
	case THROUGH_RCPT:
		through_stop(through);
		through_rcpt_answered(through, code, wire);
		break;
	case THROUGH_DATA:
		through_data_answered(through, code, wire);
		break;
	case THROUGH_FINISH:
		through_message_answered(through, code, wire);
		break;
	case THROUGH_IDLE:
	case THROUGH_OPEN:
	case THROUGH_BODY:
	case THROUGH_SPARE:
	case THROUGH_STATE_COUNT:
		UNREACHABLE();
	}
}

static void through_hop_on_ready(struct sink *hop)
{
	struct sink_through *through = hop->owner;

	ASSERT(through->state == THROUGH_BODY);
	through_stop(through);
	through->sink.events->on_ready(&through->sink);
}

static void through_hop_on_broken(struct sink *hop, unsigned code, struct span wire)
{
	struct sink_through *through = hop->owner;

	ASSERT(through->state == THROUGH_BODY);
	if (code / 100 == 5 && through->options.sides->is_answer(hop)) {
		through->sink.events->on_broken(&through->sink, code, wire);
		return;
	}
	through_give_up(through, through_why(through), wire);
	if (through->awaits_room)
		through->sink.events->on_ready(&through->sink);
}

/* Events that are none are those of the session behind both. */
static void through_identify(struct sink *side, struct identity *out)
{
	struct sink_through *through = side->owner;

	through->sink.events->identify(&through->sink, out);
}

static void through_admitted(struct sink *side, struct sink_sender *out)
{
	struct sink_through *through = side->owner;

	through->sink.events->admitted(&through->sink, out);
}

static const struct sink_events through_hop_events = {
	.on_reply = through_hop_on_reply,
	.on_ready = through_hop_on_ready,
	.on_broken = through_hop_on_broken,
	.identify = through_identify,
	.admitted = through_admitted,
};

/* The queue's side. */

static void through_spare_on_reply(struct sink *spare, unsigned code, struct span wire)
{
	struct sink_through *through = spare->owner;

	if (through->state == THROUGH_SPARE) {
		if (through->is_ending && code / 100 == 2)
			STAT(queue_through_kept);
		through->awaits_room = false;
		through->sink.events->on_reply(&through->sink, code, wire);
		return;
	}
	/* To DATA: only then was it asked for anything that takes time. */
	ASSERT(through->state == THROUGH_DATA);
	through->awaits_room = false;
	if (code == 354)
		through_is_ready(through);
	else
		through->sink.events->on_reply(&through->sink, code, wire);
}

static void through_spare_on_ready(struct sink *spare)
{
	struct sink_through *through = spare->owner;

	through->sink.events->on_ready(&through->sink);
}

static void through_spare_on_broken(struct sink *spare, unsigned code, struct span wire)
{
	struct sink_through *through = spare->owner;

	/* Elsewhere the next hop may still take it, and if not, the queue says this again at the
	 * end. */
	if (through->state == THROUGH_BODY || through->state == THROUGH_SPARE)
		through->sink.events->on_broken(&through->sink, code, wire);
}

static const struct sink_events through_spare_events = {
	.on_reply = through_spare_on_reply,
	.on_ready = through_spare_on_ready,
	.on_broken = through_spare_on_broken,
	.identify = through_identify,
	.admitted = through_admitted,
};

/* Time is over. */
static void through_impatient(struct timer *timer)
{
	struct sink_through *through = OWNER_OF(timer, struct sink_through, patience);
	const enum through_state state = through->state;

	if (!through->is_slow && through->options.hop->via != NULL) {
		/* The session has come; its answer has the longer time. */
		through_await(through);
		return;
	}
	through_give_up(through, through->is_slow ? "slow" : "no-session", (struct span){0});
	switch (state) {
	case THROUGH_MAIL:
		through_reply(through, span_of(reply_sender));
		break;
	case THROUGH_RCPT:
		through_reply(through, span_of(reply_recipient));
		break;
	case THROUGH_DATA:
		through_spare_is_ready(through);
		break;
	case THROUGH_BODY:
		through->sink.events->on_ready(&through->sink);
		break;
	case THROUGH_IDLE:
	case THROUGH_OPEN:
	case THROUGH_FINISH:
	case THROUGH_SPARE:
	case THROUGH_STATE_COUNT:
		UNREACHABLE();
	}
}

static const struct sink_ops through_ops = {
	.hello = through_hello,
	.mail = through_mail,
	.rcpt = through_rcpt,
	.data = through_data,
	.room = through_room,
	.body = through_body,
	.push = through_push,
	.finish = through_finish,
	.abandon = through_abandon,
};

void sink_through_init(struct sink_through *through, const struct through_options *options)
{
	*through = (struct sink_through){.sink = {.ops = &through_ops, .is_trusted = true},
		.options = *options,
		.state = THROUGH_IDLE};
	timer_init(&through->patience, through_impatient);
	options->hop->events = &through_hop_events;
	options->hop->owner = through;
	options->spare->events = &through_spare_events;
	options->spare->owner = through;
}

void sink_through_fini(struct sink_through *through)
{
	through_forget(through);
}
