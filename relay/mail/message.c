/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/queues_private.h"

#include "relay/base/log.h"
#include "relay/base/stats.h"
#include <errno.h>

/*
 * message.c: messages and their entries, in memory: what stands in the spool is not kept twice. So
 * a message is its place there, when it came and ends, and which of its recipients are still open.
 */

struct message *message_at(const struct queues *queues, uint32_t number)
{
	if (number >= queues->messages.fresh || !bits_get(queues->messages_used, number))
		return NULL;
	return pool_at(&queues->messages, number);
}

/* Open recipients. */

static bool message_is_wide(const struct message *message)
{
	return message->rcpt_count > RCPTS_INLINE;
}

bool message_is_open(const struct message *message, uint32_t index)
{
	if (index >= message->rcpt_count)
		return false;
	return message_is_wide(message) ? bits_get(message->open.block, index)
					: bits_get(&message->open.bits, index);
}

void message_set_open(struct message *message, uint32_t index, bool is_open)
{
	if (index >= message->rcpt_count || message_is_open(message, index) == is_open)
		return;
	bits_put(message_is_wide(message) ? message->open.block : &message->open.bits, index,
		is_open);
	message->open_count = is_open ? message->open_count + 1 : message->open_count - 1;
}

static void message_drop_open(struct queues *queues, struct message *message)
{
	if (message_is_wide(message))
		pool_put(&queues->blocks, message->open.block);
	message->rcpt_count = 0;
	message->open_count = 0;
	message->open.bits = 0;
}

static void message_fill_open(
	struct queues *queues, struct message *message, const struct envelope *envelope)
{
	struct envelope_rcpt rcpt;
	uint32_t index = 0;
	size_t at = 0;

	message_drop_open(queues, message);
	message->rcpt_count = envelope->rcpt_count < RCPTS_MAX ? envelope->rcpt_count : RCPTS_MAX;
	if (message_is_wide(message)) {
		/* There are as many blocks as messages. */
		message->open.block = pool_take(&queues->blocks);
		ASSERT(message->open.block != NULL);
		memset(message->open.block, 0, queues->blocks.object_bytes);
	}
	for (; index < message->rcpt_count && envelope_next(envelope, &at, &rcpt); index++)
		message_set_open(message, index, rcpt.state == RCPT_OPEN);
}

void message_fill(struct queues *queues, struct message *message, const struct envelope *envelope)
{
	message_fill_open(queues, message, envelope);
	queues->bytes += envelope->body_bytes - message->bytes;
	message->bytes = envelope->body_bytes;
	message->arrived_ms = envelope->arrived_ms;
	message->expires_ms = envelope->expires_ms;
	message->flags = (uint16_t)envelope->flags;
	message->attempts = (uint16_t)envelope->attempts;
}

/* Memory. */

struct message *message_take(struct queues *queues, struct spool *spool)
{
	const uint64_t max = queues->messages_max + (queues->jobs_telling > 0 ? MESSAGES_SPARE : 0);
	struct message *message;
	unsigned log = 0;

	/* Places beyond the limit are for the notices that empty a worker which is full. */
	if (queues->messages.used >= max)
		return NULL;
	while (log < queues->options.spool_count && queues->options.spools[log] != spool)
		log++;
	ASSERT(log < queues->options.spool_count);
	message = pool_take(&queues->messages);
	if (message == NULL)
		return NULL;
	*message = (struct message){.spool = {.id = spool_next_id(spool)}, .log = (uint8_t)log};
	queues->arriving++;
	link_init(&message->link);
	bits_put(queues->messages_used, pool_index(&queues->messages, message), true);
	return message;
}

struct spool_message *message_spool(struct message *message)
{
	return &message->spool;
}

void message_free(struct queues *queues, struct message *message)
{
	ASSERT(message->entries == NULL && message->holds == 0);
	link_remove(&message->link);
	due_clear(&queues->moments, &message->due_place);
	message_set_error(queues, message, "");
	message_drop_open(queues, message);
	queues->bytes -= message->bytes;
	bits_put(queues->messages_used, pool_index(&queues->messages, message), false);
	pool_put(&queues->messages, message);
}

void message_put(struct queues *queues, struct message **message)
{
	ASSERT(!(*message)->is_ours);
	queues->arriving--;
	message_free(queues, *message);
	*message = NULL;
}

void message_set_error(struct queues *queues, struct message *message, const char *text)
{
	if (text[0] == '\0') {
		if (message->error != NULL)
			pool_put(&queues->errors, message->error);
		message->error = NULL;
		return;
	}
	if (message->error == NULL)
		message->error = pool_take(&queues->errors);
	if (message->error != NULL)
		(void)snprintf(message->error, ERROR_TEXT_BYTES, "%s", text);
}

/* Entries. */

struct entry *message_entry_of(const struct message *message, const struct queue *queue)
{
	struct entry *entry = message->entries;

	while (entry != NULL && entry->queue != queue)
		entry = entry->next;
	return entry;
}

/* Out of whatever list it is in. */
static void entry_leave(struct entry *entry)
{
	link_remove(&entry->link);
	if (entry->place == ENTRY_READY)
		entry->queue->ready_count--;
	if (entry->place == ENTRY_PARKED)
		entry->queue->parked_count--;
	entry->place = ENTRY_HELD;
}

void entry_hold(struct entry *entry)
{
	entry_leave(entry);
	entry->due_ms = 0;
}

void entry_line_up(struct queues *queues, struct entry *entry, int64_t due_ms, bool is_first)
{
	struct queue *queue = entry->queue;
	const bool is_parked =
		entry->message->flags & ENVELOPE_SUSPENDED || due_ms > queues_now(queues);

	entry_leave(entry);
	entry->due_ms = is_parked ? due_ms : 0;
	entry->place = is_parked ? ENTRY_PARKED : ENTRY_READY;
	if (is_parked) {
		list_append(&queue->parked, &entry->link);
		queue->parked_count++;
		return;
	}
	list_append(is_first ? queue->ready.next : &queue->ready, &entry->link);
	queue->ready_count++;
	queue_wish(queues, queue);
}

bool message_add_entry(struct queues *queues, struct message *message, struct queue *queue)
{
	struct entry *entry = pool_take(&queues->entries);

	if (entry == NULL)
		return false;
	*entry = (struct entry){
		.message = message, .queue = queue, .next = message->entries, .place = ENTRY_HELD};
	link_init(&entry->link);
	if (message->entries == NULL) {
		queues->queued_count++;
		queues->queued_bytes += message->bytes;
	}
	message->entries = entry;
	queue->messages++;
	queue->bytes += message->bytes;
	queue_count(queues, queue, true);
	if (queue->messages == 1)
		queue_plan(queues, queue);
	entry_line_up(queues, entry, message->not_before_ms, false);
	return true;
}

void entry_drop(struct queues *queues, struct entry *entry)
{
	struct message *message = entry->message;
	struct queue *queue = entry->queue;
	struct entry **at = &message->entries;

	entry_leave(entry);
	while (*at != entry)
		at = &(*at)->next;
	*at = entry->next;
	if (message->entries == NULL) {
		queues->queued_count--;
		queues->queued_bytes -= message->bytes;
	}
	queue->messages--;
	queue->bytes -= message->bytes;
	queue_count(queues, queue, false);
	pool_put(&queues->entries, entry);
	if (queue->messages == 0) {
		queue->empty_ms = queues_now(queues);
		queue->chores = 0;
		queue_plan(queues, queue);
	}
}

/* Those that nobody holds. */
static void message_drop_entries(struct queues *queues, struct message *message)
{
	struct entry *after;

	for (struct entry *entry = message->entries; entry != NULL; entry = after) {
		after = entry->next;
		if (entry->place != ENTRY_HELD)
			entry_drop(queues, entry);
	}
}

/* What is to become of it. */

void message_want(struct queues *queues, struct message *message, unsigned want)
{
	message->wants |= (uint8_t)want;
	/* It goes nowhere any more. */
	if (want & (WANT_REMOVE | WANT_EXPIRE))
		message_drop_entries(queues, message);
	if (message->holds == 0 && !link_is_queued(&message->link)) {
		list_append(&queues->work, &message->link);
		queues_kick(queues);
	}
}

void message_hold(struct message *message)
{
	ASSERT(message->holds < UINT16_MAX);
	message->holds++;
}

void message_end(struct queues *queues, struct message *message, enum record_done why)
{
	ASSERT(message->holds == 0);
	message_drop_entries(queues, message);
	/* It is detached at once, so its memory may go: DONE is in front of whatever follows. */
	spool_done(message_log(queues, message), &message->spool, why, NULL);
	message_free(queues, message);
}

void message_settle(struct queues *queues, struct message *message)
{
	ASSERT(message->holds == 0 && message->is_ours);
	if (message->open_count == 0) {
		message_end(queues, message, RECORD_DONE_DELIVERED);
		return;
	}
	if (message->is_removed) {
		queue_track(message, &(struct queue_tracked){.event = TRACK_FAIL,
					     .source = "ADMIN",
					     .recipient_count = message->open_count});
		STAT(queue_removed);
		message_end(queues, message, RECORD_DONE_REMOVED);
		return;
	}
	if (message->wants == 0 && message->entries == NULL) {
		if (queues_now(queues) < message->not_before_ms)
			message->late_wants |= WANT_ROUTE;
		else
			message->wants = WANT_ROUTE;
	}
	if (message->wants != 0)
		message_want(queues, message, message->wants);
	message_plan(queues, message);
}

void message_release(struct queues *queues, struct message *message)
{
	ASSERT(message->holds > 0);
	message->holds--;
	if (message->holds == 0)
		message_settle(queues, message);
}

void message_record(struct queues *queues, struct message *message, int64_t next_ms)
{
	const struct envelope_change change = {.flags = message->flags,
		.attempts = message->attempts,
		.next_ms = next_ms,
		.text = span_of(message->error != NULL ? message->error : "")};
	const size_t len = envelope_write_change(&change, queues->change, CHANGE_BYTES_MAX);

	ASSERT(len > 0);
	spool_change(message_log(queues, message), &message->spool, span_make(queues->change, len),
		NULL);
}

/* Suspended and resumed. */

void message_suspend(struct queues *queues, struct message *message)
{
	message->flags |= ENVELOPE_SUSPENDED;
	for (struct entry *entry = message->entries; entry != NULL; entry = entry->next) {
		if (entry->place != ENTRY_HELD)
			entry_line_up(queues, entry, entry->due_ms, false);
	}
	message_record(queues, message, 0);
	message_plan(queues, message);
}

void message_resume(struct queues *queues, struct message *message)
{
	message->flags &= (uint16_t)~ENVELOPE_SUSPENDED;
	message->not_before_ms = 0;
	message_set_error(queues, message, "");
	for (struct entry *entry = message->entries; entry != NULL; entry = entry->next) {
		if (entry->place == ENTRY_PARKED)
			entry_line_up(queues, entry, 0, false);
	}
	message_record(queues, message, 0);
	if (message->holds == 0)
		message_settle(queues, message);
}

void message_poisoned(struct queues *queues, struct message *message, int error)
{
	char id[MESSAGE_ID_TEXT_BYTES];
	char text[ERROR_TEXT_BYTES];

	message_id_print(message->spool.id, id);
	(void)snprintf(text, sizeof(text),
		"451 4.3.0 The message cannot be read from the spool: %s",
		error == -EBADMSG ? "it is not what was written" : strerror(-error));
	log_event(LOG_LEVEL_ERROR, NULL, "message-poisoned",
		"id=%s log=%u segment=%lu offset=%u why=%s next=suspended", id, message->log,
		(unsigned long)message->spool.segment, message->spool.offset, strerror(-error));
	STAT(spool_errors);
	message_set_error(queues, message, text);
	message->wants = 0;
	message->late_wants = 0;
	message_suspend(queues, message);
}
