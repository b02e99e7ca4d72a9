/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/spool_private.h"

#include "relay/base/stats.h"
#include "relay/smtp/sink.h"
#include <errno.h>

/*
 *   IDLE --begin--> OPEN --commit--> COMMITTING --on_committed--> IDLE
 *                    |                   (its record is in a batch, or waits for room)
 *                    +--a piece was not written--> BROKEN --abandon--> IDLE
 */
enum writer_state {
	WRITER_IDLE,
	WRITER_OPEN,
	WRITER_COMMITTING,
	WRITER_BROKEN,
};

static void writer_enter(struct spool_writer *writer, enum writer_state state)
{
	writer->state = state;
}

static void writer_unpin(struct spool_writer *writer)
{
	if (writer->first_segment != 0)
		spool_unpin(writer->spool, writer->first_segment);
	writer->first_segment = 0;
}

/* Idle again; nothing of the message is kept. */
static void writer_release(struct spool_writer *writer)
{
	struct spool *spool = writer->spool;

	writer_unpin(writer);
	if (writer->chunk != NULL)
		pool_put(&spool->chunks, writer->chunk);
	writer->chunk = NULL;
	if (writer->extents != writer->extents_inline)
		pool_put(&spool->extents, writer->extents);
	writer->extents = writer->extents_inline;
	writer->message = NULL;
	writer->wants_room = false;
	link_remove(&writer->link);
	link_remove(&writer->open);
	loop_task_cancel(&writer->task);
	writer_enter(writer, WRITER_IDLE);
}

/* What its owner is to know, from the loop. */
static void writer_tell(struct task *task)
{
	struct spool_writer *writer = OWNER_OF(task, struct spool_writer, task);
	const int error = writer->error;

	if (writer->state == WRITER_COMMITTING) {
		writer_release(writer);
		writer->events->on_committed(writer, error);
	} else if (writer->state == WRITER_BROKEN) {
		writer->events->on_broken(writer, error);
	} else if (writer->state == WRITER_OPEN && writer->wants_room) {
		writer->wants_room = false;
		writer->events->on_room(writer);
	}
}

void spool_writer_init(
	struct spool_writer *writer, struct spool *spool, const struct spool_writer_events *events)
{
	*writer = (struct spool_writer){.events = events, .spool = spool};
	writer->extents = writer->extents_inline;
	link_init(&writer->link);
	link_init(&writer->open);
	task_init(&writer->task, writer_tell);
	writer_enter(writer, WRITER_IDLE);
}

int spool_begin(struct spool_writer *writer, uint64_t id)
{
	struct spool *spool = writer->spool;

	ASSERT(writer->state == WRITER_IDLE);
	if (spool->has_failed || spool->is_on_trial)
		return -EIO;
	if (spool->is_draining)
		return -ENOBUFS;
	if (spool->short_error != 0 && !spool_has_room(spool, CHUNK_BYTES, NEED_MESSAGE))
		return -ENOSPC;
	writer->chunk = pool_take(&spool->chunks);
	if (writer->chunk == NULL)
		return -ENOBUFS;
	writer->id = id;
	writer->chunk_bytes = 0;
	writer->body_bytes = 0;
	writer->extent_count = 0;
	writer->error = 0;
	list_append(&spool->open, &writer->open);
	writer_enter(writer, WRITER_OPEN);
	return 0;
}

/* Nothing more of it is written. What it had written needs no segment any more. */
static void writer_break(struct spool_writer *writer, int error)
{
	writer_unpin(writer);
	link_remove(&writer->link);
	writer->error = error;
	if (writer->state == WRITER_OPEN)
		writer_enter(writer, WRITER_BROKEN);
	loop_task_add(writer->spool->loop, &writer->task);
}

/* The list of pieces outgrows the writer. There are as many blocks as chunks. */
static void writer_grow(struct spool_writer *writer)
{
	struct record_extent *extents = pool_take(&writer->spool->extents);

	ASSERT(extents != NULL);
	memcpy(extents, writer->extents_inline, sizeof(writer->extents_inline));
	writer->extents = extents;
}

/* Appends what was gathered as a BODY. False: there is no room, or it is broken now. */
static bool writer_flush(struct spool_writer *writer)
{
	struct spool *spool = writer->spool;
	const size_t payload_bytes = RECORD_BODY_HEAD_BYTES + writer->chunk_bytes;
	struct record_extent *extent;
	uint8_t *out;

	if (writer->extent_count == EXTENTS_MAX) {
		writer_break(writer, -EFBIG);
		return false;
	}
	out = spool_place(spool, record_bytes(payload_bytes), NEED_MESSAGE);
	if (out == NULL)
		return false;
	if (writer->extent_count == SPOOL_EXTENTS_INLINE)
		writer_grow(writer);
	record_write_body_head(writer->body_bytes - writer->chunk_bytes, out + RECORD_HEADER_BYTES);
	memcpy(out + RECORD_HEADER_BYTES + RECORD_BODY_HEAD_BYTES, writer->chunk,
		writer->chunk_bytes);
	extent = &writer->extents[writer->extent_count++];
	extent->segment = spool->filling->number;
	extent->bytes = writer->chunk_bytes;
	extent->offset = spool_append(spool, out, RECORD_BODY, writer->id, payload_bytes);
	/* A flush covers its own write only: the MESSAGE's would come too late for this one. */
	spool->filling->is_durable = true;
	if (writer->first_segment == 0) {
		writer->first_segment = extent->segment;
		spool_pin(spool, writer->first_segment);
	}
	writer->chunk_bytes = 0;
	return true;
}

/* Not in front of others that wait for room. */
static bool writer_flush_in_turn(struct spool_writer *writer)
{
	return list_is_empty(&writer->spool->waiting) && writer_flush(writer);
}

/* Those that wait for a segment may wait for long: they are told at once. */
static bool spool_is_stuck(const struct spool *spool)
{
	return spool->has_failed || (spool->short_error != 0 && spool->unused_count > 1);
}

static int spool_why_stuck(const struct spool *spool)
{
	return spool->has_failed ? -EIO : spool->short_error;
}

size_t spool_room(struct spool_writer *writer)
{
	size_t room;

	if (writer->state == WRITER_BROKEN)
		return CHUNK_TEXT_BYTES;
	ASSERT(writer->state == WRITER_OPEN);
	room = CHUNK_TEXT_BYTES - writer->chunk_bytes;
	if (room >= SINK_ROOM_MIN)
		return room;
	if (!writer_flush_in_turn(writer) && writer->state == WRITER_OPEN &&
		spool_is_stuck(writer->spool))
		writer_break(writer, spool_why_stuck(writer->spool));
	if (writer->chunk_bytes == 0 || writer->state == WRITER_BROKEN)
		return CHUNK_TEXT_BYTES;
	writer->wants_room = true;
	if (!link_is_queued(&writer->link))
		list_append(&writer->spool->waiting, &writer->link);
	return 0;
}

void spool_write(struct spool_writer *writer, struct span text)
{
	if (writer->state == WRITER_BROKEN)
		return;
	ASSERT(writer->state == WRITER_OPEN);
	ASSERT(text.len <= CHUNK_TEXT_BYTES - writer->chunk_bytes);
	if (text.len == 0)
		return;
	memcpy(writer->chunk + writer->chunk_bytes, text.data, text.len);
	writer->chunk_bytes += (uint32_t)text.len;
	writer->body_bytes += text.len;
	STAT_ADD(copied_bytes, text.len);
	/* Early, so that it is on its way when the message is complete. */
	if (CHUNK_TEXT_BYTES - writer->chunk_bytes < SINK_ROOM_MIN)
		(void)writer_flush_in_turn(writer);
}

/* Length of the MESSAGE's payload. */
static size_t writer_message_bytes(const struct spool_writer *writer, size_t envelope_bytes)
{
	return RECORD_MESSAGE_HEAD_BYTES + (size_t)writer->extent_count * RECORD_EXTENT_BYTES +
	       envelope_bytes + writer->chunk_bytes;
}

static void writer_put_message(struct spool_writer *writer, struct span envelope, uint8_t *out)
{
	const struct record_message message = {
		.body_bytes = writer->body_bytes,
		.extent_count = writer->extent_count,
		.extents = span_make(out + RECORD_MESSAGE_HEAD_BYTES,
			(size_t)writer->extent_count * RECORD_EXTENT_BYTES),
		.envelope = envelope,
		.text = span_make(writer->chunk, writer->chunk_bytes),
	};

	for (uint32_t i = 0; i < writer->extent_count; i++)
		record_write_extent(&writer->extents[i],
			out + RECORD_MESSAGE_HEAD_BYTES + (size_t)i * RECORD_EXTENT_BYTES);
	out += record_write_message_head(&message, out);
	memcpy(out, envelope.data, envelope.len);
	if (writer->chunk_bytes > 0)
		memcpy(out + envelope.len, writer->chunk, writer->chunk_bytes);
}

/* Appends the MESSAGE. False: there is no room now, or the writer has an error. */
static bool writer_append(struct spool_writer *writer, struct span envelope)
{
	struct spool *spool = writer->spool;
	struct spool_message *message = writer->message;
	size_t bytes = writer_message_bytes(writer, envelope.len);
	uint8_t *out;

	if (record_bytes(bytes) > RECORD_BYTES_MAX) {
		if (!writer_flush(writer))
			return false;
		bytes = writer_message_bytes(writer, envelope.len);
	}
	out = spool_place(spool, record_bytes(bytes), NEED_MESSAGE);
	if (out == NULL)
		return false;
	writer_put_message(writer, envelope, out + RECORD_HEADER_BYTES);
	message->id = writer->id;
	message->segment = spool->filling->number;
	message->bytes = (uint32_t)record_bytes(bytes);
	message->first_segment =
		writer->first_segment == 0 ? message->segment : writer->first_segment;
	message->live_bytes = message->bytes + writer->body_bytes - writer->chunk_bytes;
	message->offset = spool_append(spool, out, RECORD_MESSAGE, writer->id, bytes);
	if (!writer->is_relaxed)
		spool->filling->is_durable = true;
	link_remove(&writer->link);
	list_append(&spool->filling->commits, &writer->link);
	spool->filling->commit_count++;
	return true;
}

static struct spool_late_commit *writer_create_late(
	struct spool_writer *writer, struct span envelope)
{
	struct spool_late_commit *late = malloc(sizeof(*late) + envelope.len);

	if (late == NULL)
		return NULL;
	late->writer = writer;
	late->bytes = (uint32_t)envelope.len;
	memcpy(late->envelope, envelope.data, envelope.len);
	return late;
}

void spool_commit(struct spool_writer *writer, struct span envelope, enum durability durability,
	struct spool_message *message)
{
	struct spool *spool = writer->spool;
	struct spool_late_commit *late;
	const bool is_broken = writer->state == WRITER_BROKEN;

	ASSERT(writer->state == WRITER_OPEN || is_broken);
	ASSERT(envelope.len <= ENVELOPE_BYTES_MAX);
	writer->message = message;
	writer->is_relaxed = durability == DURABILITY_RELAXED;
	writer->wants_room = false;
	link_remove(&writer->link);
	writer_enter(writer, WRITER_COMMITTING);
	if (is_broken) /* its owner has not heard yet */
		return;
	if (spool->has_failed || spool->is_on_trial) {
		writer_break(writer, -EIO);
		return;
	}
	if (list_is_empty(&spool->late_commits) && writer_append(writer, envelope))
		return;
	if (writer->error != 0)
		return;
	late = writer_create_late(writer, envelope);
	if (late == NULL)
		writer_break(writer, -ENOMEM);
	else
		list_append(&spool->late_commits, &late->link);
	if (late != NULL && spool_is_stuck(spool))
		spool_fail_writers(spool, spool_why_stuck(spool));
}

void spool_abandon(struct spool_writer *writer)
{
	if (writer->state == WRITER_IDLE)
		return;
	ASSERT(writer->state != WRITER_COMMITTING);
	writer_release(writer);
}

void spool_writer_committed(struct spool_writer *writer, int result)
{
	if (result == 0)
		spool_attach(writer->spool, writer->message);
	writer_release(writer);
	writer->events->on_committed(writer, result);
}

/* The first of those that are complete. False: it still waits. */
static bool late_commit_go_on(struct spool *spool)
{
	struct spool_late_commit *late =
		OWNER_OF(list_take(&spool->late_commits), struct spool_late_commit, link);
	struct spool_writer *writer = late->writer;

	if (!writer_append(writer, span_make(late->envelope, late->bytes)) && writer->error == 0) {
		if (!spool_is_stuck(spool)) {
			list_prepend(&spool->late_commits, &late->link);
			return false;
		}
		writer_break(writer, spool_why_stuck(spool));
	}
	free(late);
	return true;
}

/* In the order in which they asked, those that are complete first. */
void spool_writers_go_on(struct spool *spool)
{
	while (!list_is_empty(&spool->late_commits))
		if (!late_commit_go_on(spool))
			return;
	while (!list_is_empty(&spool->waiting)) {
		struct spool_writer *writer =
			OWNER_OF(spool->waiting.next, struct spool_writer, link);

		if (!writer_flush(writer) && writer->state == WRITER_OPEN) {
			if (!spool_is_stuck(spool))
				return;
			writer_break(writer, spool_why_stuck(spool));
		}
		link_remove(&writer->link);
		loop_task_add(spool->loop, &writer->task);
	}
}

static void late_commit_fail(struct spool_late_commit *late, int error)
{
	link_remove(&late->link);
	writer_break(late->writer, error);
	free(late);
}

/* Is its last piece there, or behind? */
static bool writer_is_behind(const struct spool_writer *writer, uint64_t number, uint32_t offset)
{
	const struct record_extent *last;

	if (writer->extent_count == 0)
		return false;
	last = &writer->extents[writer->extent_count - 1];
	return last->segment > number || (last->segment == number && last->offset >= offset);
}

void spool_writers_break(struct spool *spool, uint64_t number, uint32_t offset, int error)
{
	struct link *link, *after;

	LIST_FOR_EACH (link, after, &spool->late_commits) {
		struct spool_late_commit *late = OWNER_OF(link, struct spool_late_commit, link);

		if (writer_is_behind(late->writer, number, offset))
			late_commit_fail(late, error);
	}
	LIST_FOR_EACH (link, after, &spool->open) {
		struct spool_writer *writer = OWNER_OF(link, struct spool_writer, open);

		if (writer->state == WRITER_OPEN && writer_is_behind(writer, number, offset))
			writer_break(writer, error);
	}
}

void spool_fail_writers(struct spool *spool, int error)
{
	struct link *link, *after;

	LIST_FOR_EACH (link, after, &spool->late_commits)
		late_commit_fail(OWNER_OF(link, struct spool_late_commit, link), error);
	LIST_FOR_EACH (link, after, &spool->waiting)
		writer_break(OWNER_OF(link, struct spool_writer, link), error);
}
