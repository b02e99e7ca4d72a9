/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/sink_through_private.h"

#include "relay/base/stats.h"

/*
 * sink_through_body.c: the text of a message, to both, and whose it is in the end.
 */

static const char reply_text[] = "354 Start mail input; end with <CRLF>.<CRLF>\r\n";

static void through_begin_body(struct sink_through *through)
{
	through_stop(through);
	through->sink.via = through->options.hop->via;
	through->sink.bytes_max = through->options.hop->bytes_max;
	firewall_init(&through->firewall, FIREWALL_ORGANIZATION, "");
	sink_through_enter(through, THROUGH_BODY);
}

enum sink_status through_data(struct sink *sink)
{
	struct sink_through *through = through_of(sink);
	struct sink *hop = through->options.hop;
	struct sink *spare = through->options.spare;
	enum sink_status of_hop;
	enum sink_status of_spare;

	if (through->state == THROUGH_OPEN && (through->is_split || through->hop_rcpts == 0))
		through_give_up(through, "split", (struct span){0});
	of_spare = spare->ops->data(spare);
	if (of_spare != SINK_DONE && of_spare != SINK_WAIT)
		return through_fail(through);
	through->awaits_room = of_spare == SINK_WAIT;
	if (through->state == THROUGH_SPARE)
		return of_spare;
	of_hop = hop->ops->data(hop);
	if (of_hop != SINK_DONE && of_hop != SINK_WAIT) {
		through_give_up(through, "lost", span_of(hop->refusal));
		return of_spare;
	}
	through->awaits_hop = of_hop == SINK_WAIT;
	if (!through->awaits_hop && !through->awaits_room) {
		through_begin_body(through);
		return SINK_DONE;
	}
	sink_through_enter(through, THROUGH_DATA);
	if (through->awaits_hop)
		through_await(through);
	return SINK_WAIT;
}

/* Both are ready, or still one of them is not. */
void through_is_ready(struct sink_through *through)
{
	if (through->awaits_hop || through->awaits_room)
		return;
	through_begin_body(through);
	through_reply(through, span_of(reply_text));
}

/* The next hop was given up while it was to be ready for text: is the queue? */
void through_spare_is_ready(struct sink_through *through)
{
	if (!through->awaits_room)
		through_reply(through, span_of(reply_text));
}

void through_data_answered(struct sink_through *through, unsigned code, struct span wire)
{
	through->awaits_hop = false;
	through_stop(through);
	if (code == 354) {
		through_is_ready(through);
	} else if (code / 100 == 5 && through->options.sides->is_answer(through->options.hop)) {
		through->sink.events->on_reply(&through->sink, code, wire);
	} else {
		through_give_up(through, through_why(through), wire);
		through_spare_is_ready(through);
	}
}

size_t through_room(struct sink *sink)
{
	struct sink_through *through = through_of(sink);
	struct sink *hop = through->options.hop;
	size_t room = through->options.spare->ops->room(through->options.spare);
	size_t of_hop;

	if (through->state != THROUGH_BODY)
		return room;
	of_hop = hop->ops->room(hop);
	if (of_hop == 0)
		through_await(through);
	/* Text that was held back may go on top of what comes. */
	else
		of_hop -= through->firewall.held_len;
	ASSERT(of_hop == 0 || of_hop >= SINK_ROOM_MIN);
	if (of_hop < room)
		room = of_hop;
	through->awaits_room = room == 0;
	return room;
}

static void through_hop_body(struct sink_through *through, struct span text)
{
	struct sink *hop = through->options.hop;

	if (hop->is_trusted) {
		hop->ops->body(hop, text);
		return;
	}
	while (text.len > 0) {
		const struct span piece = firewall_next(&through->firewall, &text);

		if (piece.len > 0)
			hop->ops->body(hop, piece);
	}
}

void through_body(struct sink *sink, struct span text)
{
	struct sink_through *through = through_of(sink);
	struct sink *spare = through->options.spare;

	spare->ops->body(spare, text);
	if (through->state == THROUGH_BODY)
		through_hop_body(through, text);
}

/* Only the queue has it: it is to keep it. */
static enum sink_status through_spare_finish(struct sink_through *through)
{
	struct sink *spare = through->options.spare;

	if (spare->ops->finish(spare) == SINK_FAIL)
		return through_fail(through);
	through->is_ending = true;
	through->sink.via = spare->via;
	return SINK_WAIT;
}

enum sink_status through_finish(struct sink *sink)
{
	struct sink_through *through = through_of(sink);
	struct sink *hop = through->options.hop;
	struct span rest = {0};

	if (through->state == THROUGH_SPARE)
		return through_spare_finish(through);
	through_stop(through);
	if (!hop->is_trusted && !through->firewall.is_done)
		rest = firewall_end(&through->firewall);
	if (rest.len > 0)
		hop->ops->body(hop, rest);
	if (hop->ops->finish(hop) == SINK_WAIT) {
		sink_through_enter(through, THROUGH_FINISH);
		return SINK_WAIT;
	}
	through_give_up(through, "lost", span_of(hop->refusal));
	return through_spare_finish(through);
}

/* It is safe with the next hop. */
static void through_passed(struct sink_through *through, unsigned code, struct span wire)
{
	struct sink *spare = through->options.spare;

	STAT(queue_through);
	through->options.sides->passed(spare, through->options.hop, wire);
	/* The session abandons what is over: so the spool forgets it. */
	sink_through_enter(through, THROUGH_IDLE);
	through->sink.events->on_reply(&through->sink, code, wire);
}

void through_message_answered(struct sink_through *through, unsigned code, struct span wire)
{
	const bool is_answer = through->options.sides->is_answer(through->options.hop);
	const unsigned kind = code / 100;
	char refusal[512];

	if (is_answer && kind == 2) {
		through_passed(through, code, wire);
		return;
	}
	if (is_answer && kind == 5) {
		through->sink.events->on_reply(&through->sink, code, wire);
		return;
	}
	if (!is_answer)
		STAT(queue_through_doubtful);
	through_give_up(through, is_answer ? "put-off" : "unanswered", wire);
	if (through_spare_finish(through) == SINK_WAIT)
		return;
	(void)snprintf(refusal, sizeof(refusal), "%s\r\n", through->sink.refusal);
	through_reply(through, span_of(refusal));
}
