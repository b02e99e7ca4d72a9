/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/spool_private.h"

#include "relay/base/log.h"
#include "relay/base/stats.h"
#include <errno.h>

/*
 * Reads go past the page cache as writes do: mail that has just come is in a batch still, and what
 * has waited for long is read once. One descriptor serves both, and nothing can be stale.
 *
 *   IDLE --spool_read--> WAIT --memory is free--> HEAD --on_envelope--> REST <--+
 *                                                                        |      | on_text
 *                                                                        +-> BODY
 */
enum reader_state {
	READER_IDLE,
	READER_WAIT, /* for memory */
	READER_HEAD, /* the MESSAGE is being read */
	READER_REST, /* its owner asks for more */
	READER_BODY, /* the next piece is on its way */
};

/* A part of a batch that a reader has, until the batch is wanted. */
struct spool_lent {
	struct link link; /* of the batch */
	struct spool_read *read;
	struct span bytes;
	uint8_t *room; /* of the read: where it goes then */
};

/* What a read needs, and the kernel may still write to when its reader has gone. */
struct spool_read {
	struct op op;
	struct spool *spool;
	struct spool_reader *reader; /* NULL: it has gone */
	uint64_t pinned;             /* segment */
	int fd;
	uint8_t *bytes;  /* head or chunk */
	uint64_t offset; /* of bytes in the file */
	uint32_t wanted, got;
	struct span record;
	uint64_t segment; /* that the record is in */
	struct spool_lent lent_head, lent_chunk;
	_Alignas(RECORD_BLOCK) uint8_t head[READ_BYTES]; /* the MESSAGE */
	uint8_t chunk[READ_BYTES];                       /* a BODY */
};

_Static_assert(offsetof(struct spool_read, head) == RECORD_BLOCK, "for O_DIRECT");
_Static_assert(offsetof(struct spool_read, chunk) % RECORD_BLOCK == 0, "for O_DIRECT");
_Static_assert(sizeof(struct spool_read) == SPOOL_READ_BYTES, "the pool is right");

static void reader_enter(struct spool_reader *reader, enum reader_state state)
{
	reader->state = state;
}

static void read_put(struct spool_read *read)
{
	spool_unpin(read->spool, read->pinned);
	pool_put(&read->spool->reads, read);
}

static void reader_release(struct spool_reader *reader)
{
	struct spool *spool = reader->spool;
	struct spool_read *read = reader->read;

	link_remove(&reader->link);
	loop_task_cancel(&reader->task);
	reader->read = NULL;
	reader->message = NULL;
	reader->text = (struct span){0};
	reader_enter(reader, READER_IDLE);
	if (read == NULL)
		return;
	link_remove(&read->lent_head.link);
	link_remove(&read->lent_chunk.link);
	read->reader = NULL;
	if (read->op.in_flight)
		return;
	read_put(read);
	/* For others, and not from within the owner's call. */
	loop_task_add(spool->loop, &spool->look_task);
}

static void reader_fail(struct spool_reader *reader, int error)
{
	reader_release(reader);
	reader->events->on_failed(reader, error);
}

/* What was read is not what was written, or could not be read. */
static void reader_fail_read(struct spool_reader *reader, int error)
{
	const struct spool_read *read = reader->read;
	const struct spool_segment *segment = spool_segment_find(reader->spool, read->segment);
	char name[SEGMENT_NAME_BYTES], id[MESSAGE_ID_TEXT_BYTES];

	segment_name_print(segment->name, name);
	message_id_print(reader->message->id, id);
	if (error == -EBADMSG)
		STAT(spool_corrupt);
	else
		STAT(spool_errors);
	log_event(LOG_LEVEL_ERROR, NULL, error == -EBADMSG ? "spool-corrupt" : "spool-read-failed",
		"file=%s/%02u/%s at=%llu id=%s error=\"%s\" remedy=\"%s\"",
		reader->spool->folder->path, reader->spool->log, name,
		(unsigned long long)read->offset, id, strerror(-error),
		"the message cannot be delivered: look at the disk");
	reader_fail(reader, error);
}

/* A record in a batch is as it was made; one from disk must prove it. */
static bool read_open(const struct spool_read *read, const struct spool_lent *lent,
	struct record_head *out, struct span *payload)
{
	const enum record_status status =
		link_is_queued(&lent->link)
			? record_look(read->record, read->segment, out, payload)
			: record_read(read->record, read->segment, out, payload);

	return status == RECORD_GOOD;
}

/* Of a MESSAGE in a batch only the text stays there; the rest is wanted to the end. */
static void read_settle_head(struct spool_read *read, struct record_message *record)
{
	struct spool_lent *lent = &read->lent_head;
	const size_t front = read->record.len - record->text.len;

	if (!link_is_queued(&lent->link))
		return;
	memcpy(lent->room, read->record.data, front);
	record->extents.data = lent->room + (record->extents.data - read->record.data);
	record->envelope.data = lent->room + (record->envelope.data - read->record.data);
	lent->room += front;
	lent->bytes = record->text;
}

static bool reader_take_head(struct spool_reader *reader)
{
	struct spool_read *read = reader->read;
	struct record_head head;
	struct span payload;

	if (!read_open(read, &read->lent_head, &head, &payload) || head.type != RECORD_MESSAGE ||
		head.id != reader->message->id || !record_read_message(payload, &reader->record))
		return false;
	read_settle_head(read, &reader->record);
	return envelope_read(reader->record.envelope, &reader->envelope);
}

static bool reader_take_body(struct spool_reader *reader)
{
	struct spool_read *read = reader->read;
	struct record_extent extent;
	struct record_head head;
	struct span payload;
	uint64_t at;

	return record_read_extent(&reader->record, reader->extent, &extent) &&
	       read_open(read, &read->lent_chunk, &head, &payload) && head.type == RECORD_BODY &&
	       head.id == reader->message->id && record_read_body(payload, &at, &reader->text) &&
	       at == reader->at && reader->text.len == extent.bytes;
}

/* The record is there. */
static void reader_arrived(struct spool_reader *reader)
{
	const bool is_last = reader->extent == reader->record.extent_count;

	if (reader->state == READER_HEAD) {
		if (!reader_take_head(reader)) {
			reader_fail_read(reader, -EBADMSG);
			return;
		}
		reader_enter(reader, READER_REST);
		reader->events->on_envelope(reader, &reader->envelope);
		return;
	}
	if (is_last) {
		reader->text = reader->record.text;
	} else if (!reader_take_body(reader)) {
		reader_fail_read(reader, -EBADMSG);
		return;
	} else {
		reader->extent++;
		reader->at += reader->text.len;
	}
	reader_enter(reader, READER_REST);
	reader->events->on_text(reader, reader->text, is_last);
}

static void reader_run(struct task *task)
{
	reader_arrived(OWNER_OF(task, struct spool_reader, task));
}

static void read_submit(struct spool_read *read)
{
	read->spool->disk->read_at(read->spool->disk->context, read->spool->loop, &read->op,
		read->fd, read->bytes + read->got, read->wanted - read->got,
		read->offset + read->got);
}

static void read_done(struct op *op, int32_t result, uint32_t flags)
{
	struct spool_read *read = OWNER_OF(op, struct spool_read, op);
	struct spool_reader *reader = read->reader;

	(void)flags;
	if (reader == NULL) {
		struct spool *spool = read->spool;

		read_put(read);
		spool_look(spool);
		return;
	}
	if (result == -EINTR || result == -EAGAIN) {
		read_submit(read);
		return;
	}
	if (result <= 0) {
		reader_fail_read(reader, result < 0 ? result : -EBADMSG);
		return;
	}
	read->got += (uint32_t)result;
	if (read->got < read->wanted) {
		read->got = read->got / RECORD_BLOCK * RECORD_BLOCK;
		read_submit(read);
		return;
	}
	reader_arrived(reader);
}

static struct spool_batch *read_find(
	struct spool *spool, uint64_t segment, uint32_t offset, uint32_t bytes)
{
	for (unsigned i = 0; i < SPOOL_BATCHES; i++) {
		struct spool_batch *batch = &spool->batches[i];

		if (batch->number == segment && offset >= batch->offset &&
			offset - batch->offset + bytes <= batch->used)
			return batch;
	}
	return NULL;
}

/* The record is in a batch: it is read there. */
static void read_borrow(struct spool_read *read, struct spool_batch *batch, uint32_t offset,
	uint32_t bytes, uint8_t *room)
{
	struct spool_lent *lent = room < read->chunk ? &read->lent_head : &read->lent_chunk;
	const struct span here = span_make(batch->bytes + (offset - batch->offset), bytes);

	if (read->reader->is_fixed) {
		memcpy(room, here.data, here.len);
	} else {
		read->record = lent->bytes = here;
		lent->room = room;
		list_append(&batch->lent, &lent->link);
	}
	loop_task_add(read->spool->loop, &read->reader->task);
}

/* Fetches a record: from a batch if it is in one, else from disk to where there is room for it. */
static void read_fetch(
	struct spool_read *read, uint8_t *out, uint64_t segment, uint32_t offset, uint32_t bytes)
{
	const struct spool_segment *where = spool_segment_find(read->spool, segment);
	struct spool_batch *batch = read_find(read->spool, segment, offset, bytes);
	const uint32_t skip = offset % RECORD_BLOCK;
	uint32_t whole = (skip + bytes + RECORD_BLOCK - 1) / RECORD_BLOCK * RECORD_BLOCK;

	ASSERT(where != NULL && bytes <= RECORD_BYTES_MAX && offset + bytes <= where->bytes);
	read->segment = segment;
	read->record = span_make(out + skip, bytes);
	read->offset = offset - skip;
	if (batch != NULL) {
		read_borrow(read, batch, offset, bytes, out + skip);
		return;
	}
	STAT(spool_reads);
	read->fd = where->fd;
	read->bytes = out;
	read->wanted = whole;
	read->got = 0;
	read_submit(read);
}

static bool reader_begin(struct spool_reader *reader)
{
	struct spool *spool = reader->spool;
	const struct spool_message *message = reader->message;
	struct spool_read *read = pool_take(&spool->reads);

	if (read == NULL)
		return false;
	read->op = (struct op){.done = read_done};
	read->spool = spool;
	read->reader = reader;
	read->lent_head.read = read->lent_chunk.read = read;
	link_init(&read->lent_head.link);
	link_init(&read->lent_chunk.link);
	read->pinned = message->first_segment;
	spool_pin(spool, read->pinned);
	reader->read = read;
	reader_enter(reader, READER_HEAD);
	read_fetch(read, read->head, message->segment, message->offset, message->bytes);
	return true;
}

void spool_reader_init(
	struct spool_reader *reader, struct spool *spool, const struct spool_reader_events *events)
{
	*reader = (struct spool_reader){.events = events, .spool = spool};
	link_init(&reader->link);
	task_init(&reader->task, reader_run);
	reader_enter(reader, READER_IDLE);
}

void spool_read(struct spool_reader *reader, struct spool_message *message)
{
	ASSERT(reader->state == READER_IDLE && link_is_queued(&message->in_segment));
	reader->message = message;
	reader->extent = 0;
	reader->at = 0;
	reader->text = (struct span){0};
	reader_enter(reader, READER_WAIT);
	if (!list_is_empty(&reader->spool->readers_waiting) || !reader_begin(reader))
		list_append(&reader->spool->readers_waiting, &reader->link);
}

void spool_read_more(struct spool_reader *reader)
{
	struct spool_read *read = reader->read;
	struct record_extent extent;

	ASSERT(reader->state == READER_REST);
	link_remove(&read->lent_chunk.link);
	reader->text = (struct span){0};
	reader_enter(reader, READER_BODY);
	if (record_read_extent(&reader->record, reader->extent, &extent) &&
		spool_segment_find(reader->spool, extent.segment) != NULL)
		read_fetch(read, read->chunk, extent.segment, extent.offset,
			(uint32_t)record_bytes(RECORD_BODY_HEAD_BYTES + extent.bytes));
	else
		loop_task_add(reader->spool->loop, &reader->task);
}

void spool_read_end(struct spool_reader *reader)
{
	if (reader->state != READER_IDLE)
		reader_release(reader);
}

void spool_readers_go_on(struct spool *spool)
{
	while (!list_is_empty(&spool->readers_waiting)) {
		struct spool_reader *reader =
			OWNER_OF(spool->readers_waiting.next, struct spool_reader, link);

		if (!reader_begin(reader))
			return;
		link_remove(&reader->link);
	}
}

/* What points to a place in what was lent points to the same in its room. */
static void lent_follow(const struct spool_lent *lent, struct span *span)
{
	const uintptr_t at = (uintptr_t)span->data - (uintptr_t)lent->bytes.data;

	if (span->data != NULL && at <= lent->bytes.len)
		span->data = lent->room + at;
}

void spool_take_back(struct spool_batch *batch)
{
	struct link *link;

	while ((link = list_take(&batch->lent)) != NULL) {
		const struct spool_lent *lent = OWNER_OF(link, struct spool_lent, link);
		struct spool_reader *reader = lent->read->reader;

		memcpy(lent->room, lent->bytes.data, lent->bytes.len);
		lent_follow(lent, &lent->read->record);
		lent_follow(lent, &reader->record.text);
		lent_follow(lent, &reader->text);
	}
}
