/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/queues_private.h"

#include "relay/base/log.h"
#include "relay/base/stats.h"

/*
 * queue_result.c: which recipients a delivery is for, and what it came to.
 *
 * Duplicates. What the next hop took is appended to the log before the session is given another
 * message, in front of everything else that is appended later, so whatever has become of a later
 * message after a crash, this one is settled. The record need not be on disk when the next message
 * goes out. So what may be delivered twice is a message whose 250 was on its way, or in a write
 * that was not flushed, when the power went; no queue can do better (RFC 1047).
 *
 * Losses. A recipient that failed is recorded only when the notice about it is in the spool; until
 * then it is open on disk, and after a crash it is tried and fails again. A notice may come twice
 * then, and never not at all.
 */

/* Which recipients. */

/* Another delivery of the message has it: its way was another when that began. */
static bool slot_has_rival(const struct slot *slot, uint32_t index)
{
	const struct queues *queues = slot->queues;

	for (unsigned i = 0; slot->message->holds > 1 && i < SLOTS; i++) {
		const struct slot *other = pool_at(&queues->slot_pool, i);

		if (other == slot || other->state != SLOT_DELIVERING ||
			other->message != slot->message)
			continue;
		for (uint32_t at = 0; at < other->picked_count; at++) {
			if (other->picked[at] == index)
				return true;
		}
	}
	return false;
}

/* What logs and notices need of it, for when the envelope is gone. */
static void slot_keep_words(struct slot *slot, const struct envelope *envelope)
{
	slot->words_len = 0;
	slot->sender =
		words_add(slot->words, sizeof(slot->words), &slot->words_len, envelope->sender);
	slot->message_id = words_add(slot->words, sizeof(slot->words), &slot->words_len,
		span_head(envelope->message_id, 1000));
	slot->subject = words_add(slot->words, sizeof(slot->words), &slot->words_len,
		span_head(envelope->subject, 1000));
}

static void slot_pick_one(struct slot *slot, const struct envelope *envelope, uint32_t index,
	const struct envelope_rcpt *rcpt)
{
	const bool may_tell = envelope->sender.len > 2; /* "<>" is never told */
	const uint32_t at = slot->picked_count++;

	slot->picked[at] = index;
	slot->wants_failed[at] = may_tell && notice_is_wanted(rcpt, NOTICE_FAILED);
	slot->wants_relayed[at] = may_tell && notice_is_wanted(rcpt, NOTICE_RELAYED);
	slot->paths[at] = words_add(
		slot->words, sizeof(slot->words), &slot->words_len, path_bare(rcpt->path));
}

static uint32_t slot_pick(
	struct delivery *delivery, const struct envelope *envelope, uint32_t *indexes, uint32_t max)
{
	struct slot *slot = delivery->owner;
	struct queues *queues = slot->queues;
	struct queue_way *way = &slot->way;
	struct envelope_rcpt rcpt;
	size_t cursor = 0;

	slot_keep_words(slot, envelope);
	slot->has_more = false;
	slot->goes_elsewhere = false;
	for (uint32_t index = 0; envelope_next(envelope, &cursor, &rcpt); index++) {
		if (!message_is_open(slot->message, index))
			continue;
		queues_find_way(queues, slot->message, envelope, rcpt.path, way);
		if (!queue_is_on_way(slot->queue, way)) {
			const struct queue *other =
				queue_find(queues, way->connector, way->domain, way->is_secured);

			if (way->is_refused || other == NULL ||
				message_entry_of(slot->message, other) == NULL)
				slot->goes_elsewhere = true;
			continue;
		}
		if (index < slot->entry->from || slot_has_rival(slot, index))
			continue;
		if (slot->picked_count == max || slot->picked_count == DELIVERY_RCPTS_MAX) {
			slot->has_more = true;
			break;
		}
		indexes[slot->picked_count] = index;
		slot_pick_one(slot, envelope, index, &rcpt);
	}
	return slot->picked_count;
}

static void slot_on_result(struct delivery *delivery, const struct delivery_result *result)
{
	struct slot *slot = delivery->owner;
	struct slot_result *out;

	ASSERT(slot->result_count < DELIVERY_RCPTS_MAX);
	out = &slot->results[slot->result_count++];
	out->index = result->index;
	out->verdict = result->verdict;
	out->code = result->code;
	out->is_local = result->is_local;
	(void)snprintf(out->text, sizeof(out->text), "%s", result->text);
}

/* What it came to. */

struct slot_sums {
	unsigned sent, failed, later;
	bool needs_job;
	bool knows_dsn;
	const struct slot_result *worst; /* of those that are not sent, the last */
};

/* Where the recipient stands among those that were picked. */
static uint32_t slot_picked_at(const struct slot *slot, uint32_t index)
{
	uint32_t at = 0;

	while (at < slot->picked_count && slot->picked[at] != index)
		at++;
	ASSERT(at < slot->picked_count);
	return at;
}

static bool slot_tells(const struct slot *slot, const struct slot_result *result, bool knows_dsn)
{
	const uint32_t at = slot_picked_at(slot, result->index);

	if (result->verdict == DELIVERY_FAILED)
		return slot->wants_failed[at];
	return result->verdict == DELIVERY_SENT && !knows_dsn && slot->wants_relayed[at];
}

static enum rcpt_state slot_state_of(const struct slot_result *result, bool knows_dsn)
{
	if (result->verdict == DELIVERY_FAILED)
		return RCPT_FAILED;
	if (result->verdict != DELIVERY_SENT)
		return RCPT_OPEN;
	return knows_dsn ? RCPT_DELIVERED : RCPT_RELAYED;
}

/* Settles them in memory, and sums up. */
static void slot_sum(struct slot *slot, struct slot_sums *sums)
{
	for (uint32_t i = 0; i < slot->result_count; i++) {
		struct slot_result *result = &slot->results[i];

		result->tells = slot_tells(slot, result, sums->knows_dsn);
		sums->needs_job = sums->needs_job || result->tells;
		switch (result->verdict) {
		case DELIVERY_SENT:
			sums->sent++;
			message_set_open(slot->message, result->index, false);
			continue;
		case DELIVERY_FAILED:
			sums->failed++;
			message_set_open(slot->message, result->index, false);
			break;
		case DELIVERY_LATER:
		case DELIVERY_LOST:
			sums->later++;
			break;
		case DELIVERY_VERDICT_COUNT:
			UNREACHABLE();
		}
		sums->worst = result;
	}
}

/* RECIPIENTS of the attempt; those that failed are in it if nobody is told of them. */
static void slot_record(struct slot *slot, const struct slot_sums *sums, int64_t next_ms)
{
	struct queues *queues = slot->queues;
	struct message *message = slot->message;
	struct envelope_change change = {.flags = message->flags,
		.attempts = message->attempts,
		.next_ms = next_ms,
		.where = span_of(slot->remote),
		.text = span_of(sums->worst != NULL && sums->sent == 0 ? sums->worst->text : "")};
	size_t len;

	for (uint32_t i = 0; i < slot->result_count; i++)
		change.count +=
			!(slot->results[i].tells && slot->results[i].verdict == DELIVERY_FAILED);
	len = envelope_write_change(&change, queues->change, CHANGE_BYTES_MAX);
	ASSERT(len > 0);
	for (uint32_t i = 0; i < slot->result_count; i++) {
		const struct slot_result *result = &slot->results[i];
		const struct envelope_change_rcpt rcpt = {.index = result->index,
			.state = slot_state_of(result, sums->knows_dsn),
			.code = result->code,
			.text = span_of(result->text)};

		if (result->tells && result->verdict == DELIVERY_FAILED)
			continue;
		len += envelope_write_change_rcpt(
			&rcpt, queues->change + len, CHANGE_BYTES_MAX - len);
	}
	spool_change(message_log(queues, message), &message->spool, span_make(queues->change, len),
		NULL);
}

static void slot_log(const struct slot *slot, const struct slot_sums *sums)
{
	const struct slot_result *shown = sums->worst != NULL ? sums->worst : &slot->results[0];
	char id[MESSAGE_ID_TEXT_BYTES], identity[QUEUE_NAME_BYTES], text[600];
	const char *word = "sent";

	if (sums->failed > 0)
		word = "failed";
	if (sums->later > 0)
		word = slot->is_broken ? "lost" : "deferred";
	message_id_print(slot->message->spool.id, id);
	queue_identity(slot->queue, identity);
	log_event(LOG_LEVEL_INFO, slot->client->id, "deliver",
		"id=%s result=%s queue=%s connector=%s recipients=%u sent=%u failed=%u "
		"deferred=%u attempts=%u nexthop=%s code=%u text=%s",
		id, word, log_quote_text(identity, (char[400]){0}, 400), slot->queue->connector,
		slot->result_count, sums->sent, sums->failed, sums->later, slot->message->attempts,
		slot->remote, shown->code, log_quote_text(shown->text, text, sizeof(text)));
}

/* A row for those that came to the same. */
static void slot_track_as(
	const struct slot *slot, enum delivery_verdict verdict, enum track_event event)
{
	char recipients[8192], statuses[8192];
	struct queue_tracked row = {.event = event,
		.source = "SMTP",
		.connector = slot->queue->connector,
		.context = slot->client->id,
		.sender = slot->sender,
		.message_id = slot->message_id,
		.subject = queues_tracked_subject(slot->queues, slot->subject),
		.server_ip = span_of(slot->remote_ip),
		.server_host = span_of(slot->client->host)};
	size_t rcpts_len = 0, statuses_len = 0;

	for (uint32_t i = 0; i < slot->result_count; i++) {
		const struct slot_result *result = &slot->results[i];
		const struct span mark = span_of(row.recipient_count > 0 ? ";" : "");

		/* A session that was lost leaves them waiting, as one that was told 4xx. */
		if (result->verdict != verdict &&
			!(verdict == DELIVERY_LATER && result->verdict == DELIVERY_LOST))
			continue;
		row.recipient_count++;
		(void)words_add((uint8_t *)recipients, sizeof(recipients), &rcpts_len, mark);
		(void)words_add((uint8_t *)recipients, sizeof(recipients), &rcpts_len,
			slot->paths[slot_picked_at(slot, result->index)]);
		(void)words_add((uint8_t *)statuses, sizeof(statuses), &statuses_len, mark);
		(void)words_add((uint8_t *)statuses, sizeof(statuses), &statuses_len,
			span_of(result->text));
	}
	if (row.recipient_count == 0)
		return;
	row.recipients = span_make(recipients, rcpts_len);
	row.statuses = span_make(statuses, statuses_len);
	queue_track(slot->message, &row);
}

static void slot_track(const struct slot *slot)
{
	if (!track_is_on())
		return;
	slot_track_as(slot, DELIVERY_SENT, TRACK_SEND);
	slot_track_as(slot, DELIVERY_FAILED, TRACK_FAIL);
	slot_track_as(slot, DELIVERY_LATER, TRACK_DEFER);
}

static void slot_count(const struct slot_sums *sums)
{
	STAT_ADD(queue_sent, sums->sent);
	STAT_ADD(queue_failed, sums->failed);
	if (sums->later > 0)
		STAT(queue_deferred);
}

/*
 * Did the next hop work? A session from the pool that was closed before it said anything tells
 * nothing of it: the message is tried on another at once, and each such session is gone for good.
 */
static bool slot_is_stale(const struct slot *slot)
{
	return slot->is_broken && slot->was_used && !slot->delivery.is_answered;
}

/*
 * Its host broke a session in the middle, and others are there: they are tried before the
 * destination counts as one that failed (RFC 5321 5.1). Only while the first of them is still
 * passed over, so that this comes to an end.
 */
static bool slot_passes_over(struct slot *slot)
{
	const int64_t now_ms = queues_now(slot->queues);
	struct queue *queue = slot->queue;

	if (!nexthop_pass_over(slot->client))
		return false;
	if (queue->passing_ms == 0)
		queue->passing_ms = now_ms;
	return now_ms - queue->passing_ms < NEXTHOP_HOST_DOWN_MS;
}

static void slot_judge_nexthop(struct slot *slot, const struct slot_sums *sums)
{
	struct queues *queues = slot->queues;

	if (!slot->is_broken) {
		queue_works(queues, slot->queue);
	} else if (!slot_is_stale(slot) && !slot_passes_over(slot)) {
		const struct queue_failure failure = {
			.reply = span_of(sums->worst != NULL ? sums->worst->text
							     : "451 4.4.2 The connection was lost"),
			.host = slot->client->host,
			.ip = slot->remote_ip};

		queue_failed(queues, slot->queue, &failure);
	}
}

/* When its recipients that are put off are tried again: with the queue, or by themselves. */
static int64_t slot_next_ms(const struct slot *slot, const struct slot_sums *sums)
{
	const struct queues *queues = slot->queues;

	if (sums->later == 0 || slot->is_broken)
		return 0;
	return queues_now(queues) + (int64_t)queues->policy->queue.message_retry_ms;
}

/* The entry goes back into the queue, or out of it. */
static void slot_place_entry(struct slot *slot, const struct slot_sums *sums, int64_t next_ms)
{
	struct entry *entry = slot->entry;
	struct queues *queues = slot->queues;

	slot->entry = NULL;
	entry->is_put_off = entry->is_put_off || sums->later > 0;
	if (slot->is_broken) {
		entry->from = 0;
		entry->is_put_off = false;
		/* If this message is what it cannot bear, others come first next time. */
		entry_line_up(queues, entry, 0, slot_is_stale(slot));
	} else if (slot->has_more) {
		entry->from = slot->picked[slot->picked_count - 1] + 1;
		entry_line_up(queues, entry, 0, true);
	} else if (entry->is_put_off) {
		entry->from = 0;
		entry->is_put_off = false;
		entry_line_up(queues, entry,
			next_ms != 0 ? next_ms
				     : queues_now(queues) +
					       (int64_t)queues->policy->queue.message_retry_ms,
			false);
	} else {
		entry_drop(queues, entry);
	}
}

static void slot_finish(struct slot *slot, struct slot_sums *sums, bool is_usable)
{
	struct queues *queues = slot->queues;
	struct message *message = slot->message;
	int64_t next_ms;

	message->attempts++;
	slot_sum(slot, sums);
	/* Lost, 421, or nonsense: the session ended while somebody waited for it. */
	slot->is_broken = !is_usable && sums->later > 0;
	next_ms = slot_next_ms(slot, sums);
	if (sums->later > 0 && sums->worst != NULL)
		message_set_error(queues, message, sums->worst->text);
	slot_record(slot, sums, next_ms);
	slot_count(sums);
	slot_log(slot, sums);
	slot_track(slot);
	slot_judge_nexthop(slot, sums);
	slot_place_entry(slot, sums, next_ms);
}

/* The job has a copy: the slot is free for the next message. */
static void slot_hand_over(struct slot *slot)
{
	struct job *job = job_start(slot->queues, JOB_RESULTS, slot->message);

	job->result_count = 0;
	for (uint32_t i = 0; i < slot->result_count; i++) {
		const struct slot_result *result = &slot->results[i];
		struct job_result *out = &job->results[job->result_count];

		if (!result->tells)
			continue;
		out->index = result->index;
		out->outcome = result->verdict == DELIVERY_FAILED ? RCPT_FAILED : RCPT_RELAYED;
		out->code = result->code;
		out->is_local = result->is_local;
		memcpy(out->text, result->text, sizeof(out->text));
		job->result_count++;
	}
	(void)snprintf(job->remote, sizeof(job->remote), "%s", slot->remote);
}

void slot_settle(struct slot *slot)
{
	struct queues *queues = slot->queues;
	struct message *message = slot->message;

	slot_hand_over(slot);
	slot->message = NULL;
	slot_let_go(slot, NEXTHOP_PUT_CLEAN);
	message_release(queues, message);
}

/* All jobs are busy: the session goes back, the slot keeps what it has to tell. */
static void slot_wait_for_job(struct slot *slot, bool is_usable)
{
	struct client *client = slot->client;

	slot->client = NULL;
	if (slot->delivery.lost != NULL)
		nexthop_lost(client, slot->delivery.lost);
	else
		nexthop_put(client, is_usable ? NEXTHOP_PUT_CLEAN : NEXTHOP_PUT_ABORT);
	slot_enter(slot, SLOT_SETTLING);
	list_append(&slot->queues->slots_waiting, &slot->link);
}

static void slot_on_end(struct delivery *delivery, bool is_usable, int read_error)
{
	struct slot *slot = delivery->owner;
	struct queues *queues = slot->queues;
	struct message *message = slot->message;
	struct slot_sums sums = {.knows_dsn = delivery_knows_dsn(delivery)};

	slot->queue->active--;
	if (read_error != 0) {
		struct entry *entry = slot->entry;

		slot->entry = NULL;
		message_poisoned(queues, message, read_error);
		entry_line_up(queues, entry, 0, false);
	} else if (slot->result_count > 0) {
		slot_finish(slot, &sums, is_usable);
	} else if (slot->entry->from > 0) {
		/* All behind those of the attempt before were settled meanwhile. */
		slot->is_broken = false;
		slot_place_entry(slot, &sums, 0);
	} else {
		entry_drop(queues, slot->entry);
		slot->entry = NULL;
	}
	if (slot->goes_elsewhere && read_error == 0)
		message->wants |= WANT_ROUTE;
	slot->goes_elsewhere = false;
	if (sums.needs_job && !jobs_have(queues, JOB_RESULTS)) {
		slot_wait_for_job(slot, is_usable);
		return;
	}
	if (sums.needs_job)
		slot_hand_over(slot);
	slot->message = NULL;
	message_release(queues, message);
	slot_go_on(slot, is_usable);
}

const struct delivery_events slot_delivery_events = {
	.pick = slot_pick,
	.on_result = slot_on_result,
	.on_end = slot_on_end,
};
