/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/spool_private.h"

#include "relay/base/log.h"
#include <errno.h>

static void batch_hold(struct spool_batch *batch, uint64_t hold)
{
	batch->hold = hold < batch->hold ? hold : batch->hold;
	batch->is_durable = true;
}

/* Appends it to the batch that fills. False: there is no room. */
static bool change_append(
	struct spool *spool, enum record_type type, uint64_t id, struct span payload, uint64_t hold)
{
	uint8_t *out = spool_place(spool, record_bytes(payload.len), NEED_CHANGE);

	if (out == NULL)
		return false;
	if (payload.len > 0)
		memcpy(out + RECORD_HEADER_BYTES, payload.data, payload.len);
	(void)spool_append(spool, out, type, id, payload.len);
	batch_hold(spool->filling, hold);
	if (type == RECORD_NOTE)
		spool_note_move(spool, id, spool->filling->number);
	return true;
}

struct spool_late *spool_create_late(
	enum record_type type, uint64_t id, struct span payload, uint64_t hold)
{
	struct spool_late *late = malloc(sizeof(*late) + payload.len);

	if (late == NULL)
		return NULL;
	link_init(&late->link);
	link_init(&late->tickets);
	late->hold = hold;
	late->type = type;
	late->id = id;
	late->bytes = (uint32_t)payload.len;
	if (payload.len > 0)
		memcpy(late->payload, payload.data, payload.len);
	return late;
}

void spool_record(struct spool *spool, enum record_type type, uint64_t id, struct span payload,
	uint64_t hold, struct spool_ticket *ticket)
{
	struct spool_late *late;

	if (ticket != NULL)
		link_init(&ticket->link);
	if (list_is_empty(&spool->late) && change_append(spool, type, id, payload, hold)) {
		if (ticket != NULL)
			list_append(&spool->filling->tickets, &ticket->link);
		return;
	}
	late = spool_create_late(type, id, payload, hold);
	if (late != NULL) {
		list_append(&spool->late, &late->link);
		if (ticket != NULL)
			list_append(&late->tickets, &ticket->link);
		return;
	}
	log_event(LOG_LEVEL_ERROR, NULL, "spool-failed",
		"folder=%s log=%02u error=\"no memory for a change of a message\" "
		"remedy=\"it may be delivered once more after a restart\"",
		spool->folder->path, spool->log);
	if (ticket != NULL)
		list_append(&spool->lost_tickets, &ticket->link);
	loop_task_add(spool->loop, &spool->look_task);
}

void spool_write_late(struct spool *spool)
{
	while (!list_is_empty(&spool->late)) {
		struct spool_late *late = OWNER_OF(spool->late.next, struct spool_late, link);

		if (!change_append(spool, late->type, late->id,
			    span_make(late->payload, late->bytes), late->hold))
			return;
		list_move(&spool->filling->tickets, &late->tickets);
		link_remove(&late->link);
		free(late);
	}
}

static void tickets_tell(struct link *tickets, int error)
{
	struct link *link;

	while ((link = list_take(tickets)) != NULL) {
		struct spool_ticket *ticket = OWNER_OF(link, struct spool_ticket, link);

		ticket->on_done(ticket, error);
	}
}

void spool_fail_lost(struct spool *spool)
{
	struct link tickets;

	link_init(&tickets);
	list_move(&tickets, &spool->lost_tickets);
	tickets_tell(&tickets, -ENOMEM);
}

void spool_fail_late(struct spool *spool, int error)
{
	struct link tickets, *link;

	link_init(&tickets);
	list_move(&tickets, &spool->lost_tickets);
	while ((link = list_take(&spool->late)) != NULL) {
		struct spool_late *late = OWNER_OF(link, struct spool_late, link);

		list_move(&tickets, &late->tickets);
		free(late);
	}
	tickets_tell(&tickets, error);
}

void spool_change(struct spool *spool, struct spool_message *message, struct span payload,
	struct spool_ticket *ticket)
{
	ASSERT(link_is_queued(&message->in_segment));
	spool_record(spool, RECORD_RECIPIENTS, message->id, payload, HOLDS_NOTHING, ticket);
}

/*
 * Until the DONE is on disk the message keeps all of its segments: with some of them gone a replay
 * would take it for damaged.
 */
void spool_done(struct spool *spool, struct spool_message *message, enum record_done why,
	struct spool_ticket *ticket)
{
	const uint8_t payload = (uint8_t)why;

	ASSERT(link_is_queued(&message->in_segment));
	spool_move_forget(spool, message);
	spool_detach_message(spool, message);
	spool_record(spool, RECORD_DONE, message->id, span_make(&payload, 1),
		message->first_segment, ticket);
}

static struct spool_note **note_bucket(struct spool *spool, uint64_t key)
{
	return &spool->note_buckets[(key * 0x9e3779b97f4a7c15U >> 32) % NOTE_BUCKETS];
}

struct spool_note *spool_note_find(struct spool *spool, uint64_t key)
{
	struct spool_note *note = *note_bucket(spool, key);

	while (note != NULL && note->key != key)
		note = note->next;
	return note;
}

static void note_set_segment(struct spool *spool, struct spool_note *note, uint64_t number)
{
	if (note->segment != 0)
		spool_segment_find(spool, note->segment)->notes--;
	note->segment = number;
	if (number != 0)
		spool_segment_find(spool, number)->notes++;
}

void spool_note_move(struct spool *spool, uint64_t key, uint64_t segment)
{
	struct spool_note *note = spool_note_find(spool, key);

	if (note != NULL)
		note_set_segment(spool, note, segment);
}

static void note_forget(struct spool *spool, struct spool_note *note)
{
	struct spool_note **at = note_bucket(spool, note->key);

	note_set_segment(spool, note, 0);
	while (*at != note)
		at = &(*at)->next;
	*at = note->next;
	pool_put(&spool->notes, note);
}

int spool_note_keep(struct spool *spool, uint64_t key, struct span payload, uint64_t segment)
{
	struct spool_note *note = spool_note_find(spool, key);

	ASSERT(payload.len <= SPOOL_NOTE_BYTES_MAX);
	if (payload.len == 0) {
		if (note != NULL)
			note_forget(spool, note);
		return 0;
	}
	if (note == NULL) {
		note = pool_take(&spool->notes);
		if (note == NULL)
			return -ENOBUFS;
		note->key = key;
		note->segment = 0;
		note->next = *note_bucket(spool, key);
		*note_bucket(spool, key) = note;
	}
	memcpy(note->payload, payload.data, payload.len);
	note->bytes = (uint32_t)payload.len;
	if (segment != 0)
		note_set_segment(spool, note, segment);
	return 0;
}

void spool_note(struct spool *spool, uint64_t key, struct span payload, struct spool_ticket *ticket)
{
	const struct spool_note *before = spool_note_find(spool, key);
	const uint64_t hold =
		before == NULL || before->segment == 0 ? HOLDS_NOTHING : before->segment;

	if (payload.len == 0 && before == NULL && ticket == NULL)
		return;
	if (spool_note_keep(spool, key, payload, 0) < 0) {
		if (ticket != NULL) {
			link_init(&ticket->link);
			list_append(&spool->lost_tickets, &ticket->link);
			loop_task_add(spool->loop, &spool->look_task);
		}
		return;
	}
	spool_record(spool, RECORD_NOTE, key, payload, hold, ticket);
}

void spool_notes_rewrite(struct spool *spool, const struct spool_segment *segment)
{
	const uint64_t number = segment->number;

	for (unsigned i = 0; i < NOTE_BUCKETS && segment->notes > 0; i++) {
		struct spool_note *note = spool->note_buckets[i];

		for (; note != NULL; note = note->next) {
			if (note->segment != number)
				continue;
			/* When it is late, its old record is not the last one any more. */
			note_set_segment(spool, note, 0);
			spool_record(spool, RECORD_NOTE, note->key,
				span_make(note->payload, note->bytes), number, NULL);
		}
	}
}
