/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/spool_private.h"

#include "relay/base/log.h"
#include "relay/base/stats.h"
#include <errno.h>
#include <string.h>

static void fault_tell(const struct spool *spool, const struct spool_batch *batch, int error)
{
	char name[SEGMENT_NAME_BYTES];

	STAT(spool_errors);
	segment_name_print(batch->segment->name, name);
	log_event(LOG_LEVEL_ERROR, NULL, "spool-failed",
		"file=%s/%02u/%s at=%u while=%s error=\"%s\" in-a-row=%u remedy=\"%s\"",
		spool->folder->path, spool->log, name, batch->offset,
		spool->is_syncing ? "flush" : "write", strerror(-error), spool->faults,
		"the file is used no more; look at the disk and at the kernel's log");
}

/* A record that must not be lost: again, in another segment. */
static struct spool_late *fault_keep(struct spool *spool, struct link *kept, enum record_type type,
	uint64_t id, struct span payload, uint64_t hold)
{
	struct spool_late *late = spool_create_late(type, id, payload, hold);

	if (late == NULL) {
		log_event(LOG_LEVEL_ERROR, NULL, "spool-failed",
			"folder=%s log=%02u error=\"no memory for a change of a message\" "
			"remedy=\"it may be delivered once more after a restart\"",
			spool->folder->path, spool->log);
		return NULL;
	}
	list_append(kept, &late->link);
	return late;
}

/* Takes out of a batch what became of messages, and notes. */
static void fault_salvage(struct spool *spool, struct spool_batch *batch, struct link *kept)
{
	struct spool_late *last = NULL;
	struct record_head head;
	struct span payload;
	size_t at = 0;

	while (at < batch->used && record_read(span_make(batch->bytes + at, batch->used - at),
					   batch->number, &head, &payload) == RECORD_GOOD) {
		at += (record_bytes(payload.len) + RECORD_ALIGN - 1) / RECORD_ALIGN * RECORD_ALIGN;
		if (head.type != RECORD_RECIPIENTS && head.type != RECORD_DONE &&
			head.type != RECORD_NOTE)
			continue;
		last = fault_keep(spool, kept, head.type, head.id, payload, batch->hold);
		if (head.type == RECORD_NOTE)
			spool_note_move(spool, head.id, 0);
	}
	if (last != NULL)
		list_move(&last->tickets, &batch->tickets);
	else
		list_move(&spool->lost_tickets, &batch->tickets);
}

/* Its messages are refused. If it was under way they may be on disk: a replay must know. */
static void fault_refuse(
	struct spool *spool, struct spool_batch *batch, bool was_under_way, struct link *kept)
{
	const uint8_t why = RECORD_DONE_REFUSED;
	struct link *link;

	if (!was_under_way)
		return;
	for (link = batch->commits.next; link != &batch->commits; link = link->next) {
		const struct spool_writer *writer = OWNER_OF(link, struct spool_writer, link);

		(void)fault_keep(spool, kept, RECORD_DONE, writer->id, span_make(&why, 1),
			writer->message->first_segment);
	}
}

void spool_fail_batches(struct spool *spool, int error)
{
	struct spool_batch *first = OWNER_OF(spool->queued.next, struct spool_batch, link);
	struct link kept, commits, moves, *link;

	link_init(&kept);
	link_init(&commits);
	link_init(&moves);
	spool->faults++;
	fault_tell(spool, first, error);
	if (!first->segment->is_failed)
		spool->failed_count++;
	first->segment->is_failed = true;
	if (spool->filling != NULL)
		list_append(&spool->queued, &spool->filling->link);
	spool->filling = NULL;
	spool->current = NULL;
	/* What comes next in the log takes their place: a replay does not look at them. */
	spool->next_sequence = first->sequence;
	spool->is_writing = spool->is_syncing = false;
	spool_writers_break(spool, first->number, first->offset, error);
	spool_move_break(spool, first->number, first->offset);
	while ((link = list_take(&spool->queued)) != NULL) {
		struct spool_batch *batch = OWNER_OF(link, struct spool_batch, link);

		fault_salvage(spool, batch, &kept);
		fault_refuse(spool, batch, batch == first, &kept);
		list_move(&commits, &batch->commits);
		list_move(&moves, &batch->moves);
		batch->hold = HOLDS_NOTHING;
		batch->number = 0; /* nobody reads from it */
		list_append(&spool->unused, &batch->link);
		spool->unused_count++;
	}
	list_move(&kept, &spool->late);
	list_move(&spool->late, &kept);
	if (spool->faults >= SPOOL_FAULTS_MAX || spool->is_on_trial)
		spool_enter_failed(spool, error);
	while ((link = list_take(&commits)) != NULL)
		spool_writer_committed(OWNER_OF(link, struct spool_writer, link), error);
	spool_moved(spool, &moves, error);
	if (!list_is_empty(&spool->lost_tickets))
		loop_task_add(spool->loop, &spool->look_task);
	spool_go_on(spool);
}

/* What becomes of messages has the last segment for itself; new ones are refused. */
void spool_enter_short(struct spool *spool, int error)
{
	if (spool->short_error != error)
		log_event(LOG_LEVEL_WARNING, NULL, "spool-full",
			"folder=%s log=%02u error=\"%s\" remedy=\"%s\"", spool->folder->path,
			spool->log, strerror(-error),
			"new mail is refused until some was delivered, or spool-max-size is "
			"raised");
	spool->short_error = error;
	spool_fail_writers(spool, error);
}

void spool_enter_failed(struct spool *spool, int error)
{
	if (!spool->has_failed)
		log_event(LOG_LEVEL_ERROR, NULL, "spool-failed",
			"folder=%s log=%02u error=\"%s\" remedy=\"%s\"", spool->folder->path,
			spool->log, strerror(-error),
			"no segment can be written: mail is refused; tried again every 10 s");
	spool->has_failed = true;
	spool->is_on_trial = false;
	spool->retry_ms = loop_now_ms(spool->loop) + SPOOL_RETRY_MS;
	spool_fail_writers(spool, -EIO);
	loop_task_add(spool->loop, &spool->look_task);
}

/* One segment is begun: if that can be written, all is well again. */
void spool_retry(struct spool *spool)
{
	spool->has_failed = false;
	spool->is_on_trial = true;
	if (spool_place(spool, RECORD_ALIGN, NEED_CHANGE) == NULL) {
		/* If there is none yet, the folder's thread will tell. */
		if (spool->is_on_trial)
			spool->retry_ms = loop_now_ms(spool->loop);
		spool->has_failed = true;
		spool->is_on_trial = false;
		return;
	}
	/* What waits goes along. */
	spool_write_late(spool);
	loop_task_add(spool->loop, &spool->write_task);
}
