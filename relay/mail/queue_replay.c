/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/queues_private.h"

#include "relay/base/log.h"

/*
 * queue_replay.c: what the spool finds at the start, and what it wants to know when it moves a
 * message.
 */

void queues_replay_log(struct queues *queues, unsigned index)
{
	queues->replayed_log = index;
}

static struct spool_message *replay_on_message(
	void *owner, uint64_t id, const struct envelope *envelope, struct spool_message *known)
{
	struct queues *queues = owner;
	struct message *message = NULL;

	if (known != NULL) {
		message = OWNER_OF(known, struct message, spool);
	} else {
		message = pool_take(&queues->messages);
		if (message == NULL)
			return NULL;
		*message = (struct message){
			.spool = {.id = id}, .log = (uint8_t)queues->replayed_log, .is_ours = true};
		link_init(&message->link);
		bits_put(queues->messages_used, pool_index(&queues->messages, message), true);
	}
	message_fill(queues, message, envelope);
	return &message->spool;
}

static void replay_on_change(void *owner, struct spool_message *spool, int64_t time_ms,
	const struct envelope_change *change)
{
	struct message *message = OWNER_OF(spool, struct message, spool);
	struct envelope_change_rcpt rcpt;
	char text[ERROR_TEXT_BYTES];
	size_t at = 0;

	(void)time_ms;
	message->flags = (uint16_t)change->flags;
	message->attempts = (uint16_t)change->attempts;
	message->not_before_ms = change->next_ms;
	(void)snprintf(
		text, sizeof(text), "%.*s", (int)change->text.len, (const char *)change->text.data);
	message_set_error(owner, message, text);
	while (envelope_change_next(change, &at, &rcpt))
		message_set_open(message, rcpt.index, rcpt.state == RCPT_OPEN);
}

static void replay_on_done(void *owner, struct spool_message *spool)
{
	message_free(owner, OWNER_OF(spool, struct message, spool));
}

static void replay_on_note(void *owner, uint64_t key, struct span payload)
{
	if (!queue_take_note(owner, payload))
		log_event(LOG_LEVEL_WARNING, NULL, "queue-note",
			"key=%016lx result=ignored why=not-well-formed", (unsigned long)key);
}

const struct spool_replay queues_replay = {
	.on_message = replay_on_message,
	.on_change = replay_on_change,
	.on_done = replay_on_done,
	.on_note = replay_on_note,
};

/*
 * What is settled here and open in the envelope is marked as delivered, whatever it came to: how is
 * in the records before, and in the tracking log; from here on only that it is settled counts. What
 * is being told and not recorded yet stays open.
 */
static void queues_on_move(void *owner, struct spool_message *spool, uint8_t *bytes, size_t len)
{
	struct message *message = OWNER_OF(spool, struct message, spool);
	struct envelope_rcpt rcpt;
	struct envelope envelope;
	size_t at = 0;

	envelope_patch(bytes, len, message->flags, message->attempts);
	if (!envelope_read(span_make(bytes, len), &envelope))
		return; /* the spool has read it before, so this cannot be */
	for (uint32_t index = 0; envelope_next(&envelope, &at, &rcpt); index++) {
		if (rcpt.state == RCPT_OPEN && !message_is_open(message, index) &&
			!jobs_have_recipient(owner, message, index))
			envelope_patch_rcpt(bytes, len, index, RCPT_DELIVERED);
	}
}

/* How full it is matters to those who take mail in. */
static void queues_on_level(void *owner)
{
	(void)owner;
}

const struct spool_events queues_spool_events = {
	.on_move = queues_on_move,
	.on_level = queues_on_level,
};
