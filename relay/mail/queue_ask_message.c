/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/queue_ask_private.h"

#include "relay/base/log.h"
#include "relay/base/stats.h"

/*
 * queue_ask_message.c: what an administrator asks of messages. A message has a row for each queue
 * that it waits in, as in Exchange. Who sent it, and to whom, stands in the spool only, so a filter
 * on that reads envelopes, one at a time; everything else is compared first.
 */

/* An answer that is not fetched for so long was for somebody who has gone. */
#define LOOK_KEPT_MS 1000

enum look_status {
	LOOK_WAITS, /* the envelope is being read: ask again */
	LOOK_FITS,
	LOOK_DIFFERS,
};

/* The envelope. */

static bool look_fits(const struct queue_look *look, const struct envelope *envelope)
{
	struct envelope_rcpt rcpt;
	size_t at = 0;

	if (look->sender[0] != '\0' && !span_equal_nocase(envelope->sender, span_of(look->sender)))
		return false;
	if (look->recipient[0] == '\0')
		return true;
	while (envelope_next(envelope, &at, &rcpt)) {
		if (span_equal_nocase(rcpt.path, span_of(look->recipient)))
			return true;
	}
	return false;
}

static void look_done(struct queue_look *look, bool fits)
{
	struct queues *queues = OWNER_OF(look, struct queues, look);
	struct message *message = look->message;

	look->fits = fits;
	look->is_done = true;
	look->done_ms = loop_now_ms(queues->options.net->loop);
	look->message = NULL;
	spool_read_end(&look->reader);
	message_release(queues, message);
}

static void look_on_envelope(struct spool_reader *reader, const struct envelope *envelope)
{
	struct queue_look *look = OWNER_OF(reader, struct queue_look, reader);

	look_done(look, look_fits(look, envelope));
}

static void look_on_text(struct spool_reader *reader, struct span text, bool is_last)
{
	(void)reader;
	(void)text;
	(void)is_last;
	UNREACHABLE(); /* nothing but the envelope is asked for */
}

/* What cannot be read is nobody's; a delivery finds out, and says so. */
static void look_on_failed(struct spool_reader *reader, int error)
{
	(void)error;
	look_done(OWNER_OF(reader, struct queue_look, reader), false);
}

static const struct spool_reader_events look_events = {
	.on_envelope = look_on_envelope,
	.on_text = look_on_text,
	.on_failed = look_on_failed,
};

void queue_look_end(struct queues *queues)
{
	if (queues->look.message != NULL)
		look_done(&queues->look, false);
}

static bool look_is_for(
	const struct queue_look *look, const struct queue_ask *ask, const struct message *message)
{
	return look->ask == ask && look->id == message->spool.id &&
	       strcmp(look->sender, ask->filter.sender) == 0 &&
	       strcmp(look->recipient, ask->filter.recipient) == 0;
}

static enum look_status ask_look(
	struct queues *queues, const struct queue_ask *ask, struct message *message)
{
	struct queue_look *look = &queues->look;
	const uint64_t now_ms = loop_now_ms(queues->options.net->loop);

	if (ask->filter.sender[0] == '\0' && ask->filter.recipient[0] == '\0')
		return LOOK_FITS;
	if (look->message != NULL || queues->is_draining)
		return queues->is_draining ? LOOK_DIFFERS : LOOK_WAITS;
	if (look->is_done && look_is_for(look, ask, message)) {
		look->ask = NULL;
		look->is_done = false;
		return look->fits ? LOOK_FITS : LOOK_DIFFERS;
	}
	/* Another's answer, which it will fetch in its turn. */
	if (look->is_done && look->ask != ask && now_ms - look->done_ms < LOOK_KEPT_MS)
		return LOOK_WAITS;
	look->ask = ask;
	look->id = message->spool.id;
	look->message = message;
	look->is_done = false;
	memcpy(look->sender, ask->filter.sender, sizeof(look->sender));
	memcpy(look->recipient, ask->filter.recipient, sizeof(look->recipient));
	message_hold(message);
	spool_reader_init(&look->reader, message_log(queues, message), &look_events);
	spool_read(&look->reader, &message->spool);
	return LOOK_WAITS;
}

/* Rows. */

static enum message_status message_status_of(
	const struct queues *queues, const struct message *message, const struct entry *entry)
{
	if (entry != NULL && entry->place == ENTRY_HELD) {
		if (message->is_removed || message->wants & WANT_REMOVE)
			return MESSAGE_PENDING_REMOVE;
		return message->flags & ENVELOPE_SUSPENDED ? MESSAGE_PENDING_SUSPEND
							   : MESSAGE_ACTIVE;
	}
	if (message->flags & ENVELOPE_SUSPENDED)
		return MESSAGE_SUSPENDED;
	if (entry == NULL)
		return message->late_wants != 0 ? MESSAGE_RETRY : MESSAGE_READY;
	if (entry->place == ENTRY_PARKED)
		return MESSAGE_RETRY;
	return queue_status_of(queues, entry->queue) == QUEUE_RETRY ? MESSAGE_RETRY : MESSAGE_READY;
}

/* entry NULL: it is in Submission. A name is made only to be compared: there may be a million. */
static bool ask_fits_place(const struct queues *queues, const struct queue_ask *ask,
	const struct message *message, const struct entry *entry)
{
	char identity[QUEUE_NAME_BYTES];

	if (ask->filter.has_status &&
		ask->filter.status != message_status_of(queues, message, entry))
		return false;
	if (ask->filter.queue[0] == '\0')
		return true;
	if (entry == NULL)
		return ask_is_named(ask->filter.queue, queue_kind_word(QUEUE_SUBMISSION));
	queue_identity(entry->queue, identity);
	return ask_is_named(ask->filter.queue, identity);
}

static void message_fill_row(const struct queues *queues, const struct message *message,
	const struct entry *entry, struct message_row *row)
{
	const char *error = message->error;

	*row = (struct message_row){.id = message->spool.id,
		.status = message_status_of(queues, message, entry),
		.bytes = message->bytes,
		.arrived_ms = message->arrived_ms,
		.expires_ms = message->expires_ms,
		.next_ms = message->late_wants != 0 ? message->not_before_ms : 0,
		.rcpt_count = message->rcpt_count,
		.rcpt_open = message->open_count,
		.attempts = message->attempts,
		.worker = queues->options.worker_id,
		.log = message->log,
		.segment = message->spool.segment,
		.offset = message->spool.offset,
		.record_bytes = message->spool.bytes};
	(void)snprintf(row->queue, sizeof(row->queue), "%s", queue_kind_word(QUEUE_SUBMISSION));
	if (entry != NULL) {
		queue_identity(entry->queue, row->queue);
		row->next_ms = entry->due_ms;
		if (entry->due_ms == 0 && entry->queue->failures > 0)
			row->next_ms = entry->queue->next_ms;
		/* What keeps it here may be another thing than what it waits for elsewhere. */
		if (error == NULL ||
			(entry->queue->kind != QUEUE_UNREACHABLE && entry->queue->failures > 0 &&
				!(message->flags & ENVELOPE_SUSPENDED)))
			error = entry->queue->error;
	}
	(void)snprintf(row->last_error, sizeof(row->last_error), "%s", error != NULL ? error : "");
}

static void ask_list_message(
	struct queues *queues, struct queue_ask *ask, const struct message *message)
{
	const struct entry *entry = message->entries;
	struct message_row *row;

	do {
		if (ask_fits_place(queues, ask, message, entry)) {
			row = ask_take_row(ask, ask->message_rows, sizeof(*row));
			if (row != NULL)
				message_fill_row(queues, message, entry, row);
		}
		entry = entry != NULL ? entry->next : NULL;
	} while (entry != NULL);
}

/* What is done to a message. */

static void message_track_by_admin(
	const struct message *message, enum track_event event, const char *status)
{
	queue_track(message, &(struct queue_tracked){.event = event,
				     .source = "ADMIN",
				     .statuses = span_of(status),
				     .recipient_count = message->open_count});
}

/* While it is transferred it is not taken away: only if that attempt fails. */
static void message_remove(struct queues *queues, struct message *message)
{
	char id[MESSAGE_ID_TEXT_BYTES];

	message_id_print(message->spool.id, id);
	log_event(LOG_LEVEL_INFO, NULL, "message-remove", "id=%s recipients=%u notice=no next=%s",
		id, message->open_count, message->holds > 0 ? "pending" : "gone");
	message->is_removed = true;
	if (message->holds == 0)
		message_settle(queues, message);
}

static bool ask_do_message(struct queues *queues, struct queue_ask *ask, struct message *message)
{
	const bool is_suspended = message->flags & ENVELOPE_SUSPENDED;

	switch (ask->verb) {
	case QUEUE_ASK_MESSAGE_SUSPEND:
		if (is_suspended)
			return false;
		message_track_by_admin(message, TRACK_SUSPEND, "");
		message_suspend(queues, message);
		return true;
	case QUEUE_ASK_MESSAGE_RESUME:
		if (!is_suspended)
			return false;
		message_track_by_admin(message, TRACK_RESUME, "");
		message_resume(queues, message);
		return true;
	case QUEUE_ASK_MESSAGE_REMOVE:
		message_remove(queues, message);
		return true;
	case QUEUE_ASK_MESSAGE_REMOVE_NDR:
		message_want(queues, message, WANT_REMOVE);
		return true;
	case QUEUE_ASK_LIST:
	case QUEUE_ASK_RETRY:
	case QUEUE_ASK_RESUBMIT:
	case QUEUE_ASK_SUSPEND:
	case QUEUE_ASK_RESUME:
	case QUEUE_ASK_REDIRECT:
	case QUEUE_ASK_MESSAGES:
	case QUEUE_ASK_FACTS:
		break;
	}
	UNREACHABLE();
}

/* Does the message fit, by all that is in memory? */
static bool ask_fits(
	const struct queues *queues, const struct queue_ask *ask, const struct message *message)
{
	const struct queue_filter *filter = &ask->filter;
	const struct entry *entry = message->entries;

	if (!message->is_ours || (filter->id != 0 && filter->id != message->spool.id) ||
		(filter->larger_than != 0 && message->bytes <= filter->larger_than) ||
		(filter->older_than_ms != 0 &&
			queues_now(queues) - message->arrived_ms < (int64_t)filter->older_than_ms))
		return false;
	if (entry == NULL)
		return ask_fits_place(queues, ask, message, NULL);
	while (entry != NULL && !ask_fits_place(queues, ask, message, entry))
		entry = entry->next;
	return entry != NULL;
}

/* False: it must be asked again. */
static bool ask_message(struct queues *queues, struct queue_ask *ask, struct message *message)
{
	if (!ask_fits(queues, ask, message))
		return true;
	switch (ask_look(queues, ask, message)) {
	case LOOK_WAITS:
		return false;
	case LOOK_DIFFERS:
		return true;
	case LOOK_FITS:
		break;
	}
	if (ask->verb == QUEUE_ASK_MESSAGES)
		ask_list_message(queues, ask, message);
	else
		ask->matched += ask_do_message(queues, ask, message);
	return true;
}

void ask_messages(struct queues *queues, struct queue_ask *ask)
{
	const uint64_t end = ask->cursor + SLICE_MESSAGES;

	for (; ask->cursor < end && ask->cursor < queues->messages.fresh; ask->cursor++) {
		struct message *message = message_at(queues, (uint32_t)ask->cursor);

		if (message != NULL && !ask_message(queues, ask, message))
			return;
	}
	ask->is_done = ask->cursor >= queues->messages.fresh;
}
