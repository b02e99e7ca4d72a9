/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/spool_private.h"

#include "relay/base/log.h"
#include "relay/base/stats.h"
#include "relay/mail/spool_scan.h"
#include "relay/mail/spool_table.h"
#include <errno.h>
#include <string.h>

/*
 * One pass over the log. Where BODY records are is remembered, so that a MESSAGE can be checked
 * without reading its body again. A MESSAGE that lacks some is not told yet: when its end stands
 * further on, its body may be gone already. Only what has no end is damaged.
 */
struct replay {
	struct spool *spool;
	const struct spool_replay *events;
	void *owner;
	struct spool_table *messages; /* id: struct spool_message */
	struct spool_table *broken;   /* id: segment, offset of a MESSAGE without its whole body */
	struct spool_table *bodies;   /* place: bytes of text */
	struct link found;            /* files not yet known to be segments of it */
	uint64_t last_segment;        /* of the log, in use */
	uint64_t id_max;
	int rc;
};

/* Places of one segment lie next to each other; they are multiples of RECORD_ALIGN. */
static uint64_t place_of(uint64_t segment, uint32_t offset)
{
	return segment << 26 | offset / RECORD_ALIGN;
}

static unsigned name_of(const char *file)
{
	const char *slash = strrchr(file, '/');

	return (unsigned)strtoul(slash == NULL ? file : slash + 1, NULL, 10);
}

/* The file that a scan calls by that name is one of those that the folder has opened. */
static struct spool_segment *replay_find_file(struct link *found, const char *file)
{
	const unsigned name = name_of(file);
	struct link *link;

	for (link = found->next; link != found; link = link->next) {
		struct spool_segment *segment = OWNER_OF(link, struct spool_segment, link);

		if (segment->name == name)
			return segment;
	}
	return NULL;
}

static void replay_finding(void *owner, const struct spool_scan_finding *finding)
{
	struct replay *replay = owner;

	if (finding->kind == SPOOL_SCAN_TORN)
		STAT(spool_torn);
	else
		STAT(spool_corrupt);
	log_event(finding->kind == SPOOL_SCAN_TORN ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR, NULL,
		finding->kind == SPOOL_SCAN_TORN ? "spool-torn" : "spool-corrupt",
		"file=%s segment=%llu at=%llu found=%s what=\"%s\"", finding->file,
		(unsigned long long)finding->segment, (unsigned long long)finding->offset,
		spool_scan_word(finding->kind), finding->words);
	/* No segment of this log, as it seems, and not what a crash leaves: nobody touches it. */
	if (finding->kind != SPOOL_SCAN_TORN && finding->segment == 0) {
		struct spool_segment *segment = replay_find_file(&replay->found, finding->file);

		if (segment != NULL)
			segment->is_damaged = true;
	}
}

/* The record is in a segment that none before it was in. */
static void replay_segment(struct replay *replay, const struct spool_scan_record *record)
{
	struct spool_segment *segment = replay_find_file(&replay->found, record->file);

	if (segment == NULL) {
		replay->rc = -ESTALE; /* somebody changes the folder under our feet */
		return;
	}
	link_remove(&segment->link);
	spool_segment_use(replay->spool, segment, record->head.segment);
	segment->is_blank = false;
	replay->last_segment = record->head.segment;
}

/* The first segment that a MESSAGE needs; 0: a piece of its body is not there. */
static uint64_t replay_first_segment(
	const struct replay *replay, const struct record_message *message, uint64_t segment)
{
	struct record_extent extent;
	uint64_t first = segment;

	for (uint32_t i = 0; record_read_extent(message, i, &extent); i++) {
		if (spool_table_get(replay->bodies, place_of(extent.segment, extent.offset)) !=
				extent.bytes ||
			spool_segment_find(replay->spool, extent.segment) == NULL)
			return 0;
		first = extent.segment < first ? extent.segment : first;
	}
	return first;
}

static struct spool_message *replay_known(const struct replay *replay, uint64_t id)
{
	return (struct spool_message *)(uintptr_t)spool_table_get(replay->messages, id);
}

static void replay_attach(struct replay *replay, const struct spool_scan_record *record,
	const struct envelope *envelope, const struct record_message *body, uint64_t first)
{
	struct spool_message *known = replay_known(replay, record->head.id);
	struct spool_message *message;

	if (known != NULL)
		spool_detach_message(replay->spool, known);
	message = replay->events->on_message(replay->owner, record->head.id, envelope, known);
	if (message == NULL) {
		replay->rc = -ENOBUFS;
		return;
	}
	message->id = record->head.id;
	message->segment = record->head.segment;
	message->offset = record->offset;
	message->bytes = (uint32_t)record_bytes(record->payload.len);
	message->first_segment = first;
	message->live_bytes = message->bytes + body->body_bytes - body->text.len;
	spool_attach(replay->spool, message);
	if (!spool_table_put(replay->messages, message->id, (uint64_t)(uintptr_t)message))
		replay->rc = -ENOMEM;
}

static void replay_message(struct replay *replay, const struct spool_scan_record *record)
{
	struct record_message message;
	struct envelope envelope;
	uint64_t first = 0;

	if (record_read_message(record->payload, &message) &&
		envelope_read(message.envelope, &envelope))
		first = replay_first_segment(replay, &message, record->head.segment);
	if (first != 0) {
		(void)spool_table_put(replay->broken, record->head.id, 0);
		replay_attach(replay, record, &envelope, &message, first);
	} else if (replay_known(replay, record->head.id) == NULL &&
		   !spool_table_put(replay->broken, record->head.id,
			   place_of(record->head.segment, record->offset))) {
		replay->rc = -ENOMEM;
	}
	/* One that was moved, but not wholly, is where it was before. */
}

static void replay_done(struct replay *replay, uint64_t id)
{
	struct spool_message *message = replay_known(replay, id);

	(void)spool_table_put(replay->broken, id, 0);
	if (message == NULL)
		return;
	spool_detach_message(replay->spool, message);
	(void)spool_table_put(replay->messages, id, 0);
	replay->events->on_done(replay->owner, message);
}

static void replay_change(struct replay *replay, const struct spool_scan_record *record)
{
	struct spool_message *message = replay_known(replay, record->head.id);
	struct envelope_change change;

	/* What is known of a message that was moved stands in its MESSAGE. */
	if (message == NULL)
		return;
	if (envelope_read_change(record->payload, &change))
		replay->events->on_change(replay->owner, message, record->head.time_ms, &change);
}

static void replay_body(struct replay *replay, const struct spool_scan_record *record)
{
	struct span text;
	uint64_t at;

	if (record_read_body(record->payload, &at, &text) &&
		!spool_table_put(
			replay->bodies, place_of(record->head.segment, record->offset), text.len))
		replay->rc = -ENOMEM;
}

static void replay_note(struct replay *replay, const struct spool_scan_record *record)
{
	if (record->payload.len <= SPOOL_NOTE_BYTES_MAX &&
		spool_note_keep(
			replay->spool, record->head.id, record->payload, record->head.segment) < 0)
		replay->rc = -ENOBUFS;
}

static void replay_record(struct replay *replay, const struct spool_scan_record *record)
{
	const uint64_t id = record->head.id;

	if (record->head.segment > replay->last_segment)
		replay_segment(replay, record);
	if (replay->rc < 0)
		return;
	if (record->head.type != RECORD_NOTE && id > replay->id_max)
		replay->id_max = id;
	switch (record->head.type) {
	case RECORD_BODY:
		replay_body(replay, record);
		break;
	case RECORD_MESSAGE:
		replay_message(replay, record);
		break;
	case RECORD_RECIPIENTS:
		replay_change(replay, record);
		break;
	case RECORD_DONE:
		replay_done(replay, id);
		break;
	case RECORD_NOTE:
		replay_note(replay, record);
		break;
	case RECORD_SEGMENT:
	case RECORD_SEAL:
		break;
	}
}

static void replay_tell_broken(void *owner, uint64_t id, uint64_t place)
{
	const struct replay *replay = owner;
	char text[MESSAGE_ID_TEXT_BYTES];

	message_id_print(id, text);
	STAT(spool_corrupt);
	log_event(LOG_LEVEL_ERROR, NULL, "spool-corrupt",
		"folder=%s log=%02u segment=%llu at=%llu id=%s what=\"%s\" remedy=\"%s\"",
		replay->spool->folder->path, replay->spool->log, (unsigned long long)(place >> 26),
		(unsigned long long)(place << 38 >> 38) * RECORD_ALIGN, text,
		"a message that was accepted lacks a piece of its body",
		"it is lost: look at the disk, and tell its sender");
}

static void replay_notes(const struct replay *replay)
{
	for (unsigned i = 0; i < NOTE_BUCKETS; i++) {
		const struct spool_note *note = replay->spool->note_buckets[i];

		for (; note != NULL; note = note->next)
			replay->events->on_note(
				replay->owner, note->key, span_make(note->payload, note->bytes));
	}
}

static bool segment_starts_blank(const struct spool *spool, const struct spool_segment *segment)
{
	const struct spool_folder *folder = spool->folder;
	const ssize_t got = spool->disk->read(
		spool->disk->context, segment->fd, spool->memory, RECORD_BLOCK, 0);

	return got == RECORD_BLOCK && memcmp(spool->memory, folder->zeros, RECORD_BLOCK) == 0;
}

/*
 * Files that are no segments of the log. Blank ones may be used again. What a crash has left of a
 * first write may have a number that comes once more, so that file goes; and when the log has no
 * segment that tells its numbers, all go.
 */
static void replay_leftovers(struct replay *replay)
{
	struct spool *spool = replay->spool;
	struct link *link;

	while ((link = list_take(&replay->found)) != NULL) {
		struct spool_segment *segment = OWNER_OF(link, struct spool_segment, link);

		if (segment->is_damaged)
			continue;
		if (replay->last_segment != 0 && segment_starts_blank(spool, segment)) {
			folder_give_blank(spool->folder, spool->log, segment);
			continue;
		}
		segment->is_failed = true;
		folder_give(spool->folder, spool->log, segment);
	}
}

static void replay_run(struct replay *replay, struct spool_scan *scan)
{
	struct spool_scan_record record;

	while (replay->rc == 0 && spool_scan_next(scan, &record))
		replay_record(replay, &record);
	replay->spool->next_sequence = spool_scan_sequence(scan) + 1;
	if (replay->rc == 0) {
		spool_table_each(replay->broken, replay_tell_broken, replay);
		replay_notes(replay);
	}
}

static int replay_create_tables(struct replay *replay)
{
	replay->messages = spool_table_create();
	replay->broken = spool_table_create();
	replay->bodies = spool_table_create();
	return replay->messages == NULL || replay->broken == NULL || replay->bodies == NULL
		       ? -ENOMEM
		       : 0;
}

int spool_create_replay(struct spool *spool, const struct spool_replay *events, void *owner)
{
	static const struct spool_scan_events scan_events = {.on_finding = replay_finding};
	struct replay replay = {.spool = spool, .events = events, .owner = owner};
	struct spool_scan *scan = NULL;
	struct spool_segment *segment;
	int rc;

	link_init(&replay.found);
	while ((segment = folder_take_found(spool->folder, spool->log)) != NULL)
		list_append(&replay.found, &segment->link);
	rc = replay_create_tables(&replay);
	if (rc == 0)
		rc = spool_scan_create(
			spool->folder->path, spool->log, &scan_events, &replay, &scan);
	if (rc == 0) {
		replay_run(&replay, scan);
		rc = replay.rc;
	}
	if (rc == 0)
		replay_leftovers(&replay);
	/* The one between may have been torn in its first write: see spool_scan.h. */
	spool->next_number = replay.last_segment == 0 ? 1 : replay.last_segment + 2;
	spool->next_id = replay.id_max + 1;
	if (scan != NULL)
		spool_scan_destroy(&scan);
	spool_table_destroy(&replay.messages);
	spool_table_destroy(&replay.broken);
	spool_table_destroy(&replay.bodies);
	return rc;
}
