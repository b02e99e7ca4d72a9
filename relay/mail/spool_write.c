/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/spool_private.h"

#include "relay/base/stats.h"
#include <errno.h>
#include <sys/uio.h>
#include <time.h>

#define SEAL_BYTES RECORD_ALIGN

static uint32_t up_to(size_t bytes, uint32_t multiple)
{
	return (uint32_t)((bytes + multiple - 1) / multiple * multiple);
}

int64_t spool_wall_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void spool_batch_init(struct spool_batch *batch, uint8_t *bytes)
{
	*batch = (struct spool_batch){.bytes = bytes, .hold = HOLDS_NOTHING};
	link_init(&batch->lent);
	link_init(&batch->commits);
	link_init(&batch->tickets);
	link_init(&batch->moves);
}

uint32_t spool_append(
	struct spool *spool, uint8_t *out, enum record_type type, uint64_t id, size_t payload_bytes)
{
	struct spool_batch *batch = spool->filling;
	const size_t bytes = record_bytes(payload_bytes);
	const uint32_t place = batch->offset + batch->used;
	const struct record_head head = {
		.type = type,
		.payload_bytes = (uint32_t)payload_bytes,
		.segment = batch->number,
		.sequence = spool->next_sequence++,
		.id = id,
		.time_ms = spool_wall_ms(),
		.write = batch->offset / RECORD_BLOCK + 1,
	};

	ASSERT(out == batch->bytes + batch->used);
	record_seal(&head, out);
	memset(out + bytes, 0, up_to(bytes, RECORD_ALIGN) - bytes);
	batch->used += up_to(bytes, RECORD_ALIGN);
	spool->records++;
	STAT(spool_records);
	loop_task_add(spool->loop, &spool->write_task);
	return place;
}

/* The first record of a segment; its header carries the highest id so far. */
static void batch_begin_segment(struct spool *spool, struct spool_batch *batch)
{
	const struct record_segment segment = {
		.format = RECORD_FORMAT,
		.log = spool->log,
		.number = batch->number,
		.segment_bytes = batch->segment->bytes,
		.created_ms = spool_wall_ms(),
	};

	record_write_segment(&segment, batch->bytes + RECORD_HEADER_BYTES);
	(void)spool_append(
		spool, batch->bytes, RECORD_SEGMENT, spool->next_id - 1, RECORD_SEGMENT_BYTES);
	/*
	 * Flushed in any case: until then the file may still hold what it held before, and the
	 * newest of the segments before it keeps the log's numbers.
	 */
	batch->is_durable = true;
	if (batch->segment->link.prev != &spool->segments)
		batch->hold =
			OWNER_OF(batch->segment->link.prev, struct spool_segment, link)->number;
}

static bool spool_begin_segment(struct spool *spool, enum spool_need need)
{
	struct spool_segment *segment;
	int error = 0;

	segment = folder_take(spool->folder, spool->log, need == NEED_MESSAGE, &error);
	if (segment == NULL) {
		if (error != -EAGAIN && need == NEED_MESSAGE)
			spool_enter_short(spool, error);
		else if (error != -EAGAIN && need == NEED_CHANGE)
			spool_enter_failed(spool, error);
		return false;
	}
	spool_segment_use(spool, segment, spool->next_number++);
	spool->current = segment;
	spool->at = 0;
	if (need == NEED_MESSAGE)
		spool->short_error = 0;
	return true;
}

/* The batch that fills is complete: it has its length, and the next one its place. */
static void spool_close_batch(struct spool *spool, size_t wanted)
{
	struct spool_batch *batch = spool->filling;
	const uint32_t rest = spool->current->bytes - batch->offset;
	const uint32_t end = up_to(batch->used + SEAL_BYTES, RECORD_BLOCK);
	const bool is_last = rest - end < SEGMENT_REST_BYTES_MIN ||
			     rest - end < up_to(wanted + SEAL_BYTES, RECORD_BLOCK);
	uint32_t padded;

	if (is_last)
		(void)spool_append(spool, batch->bytes + batch->used, RECORD_SEAL, 0, 0);
	padded = up_to(batch->used, RECORD_BLOCK);
	memset(batch->bytes + batch->used, 0, padded - batch->used);
	batch->used = padded;
	spool->filling = NULL;
	spool->at = batch->offset + padded;
	if (is_last)
		spool->current = NULL;
	list_append(&spool->queued, &batch->link);
}

/*
 * The one that was written first, with nothing of it lent any more. Where that has much in it, one
 * that was never used is better, while there is one: so memory is not touched for small mail.
 */
static struct spool_batch *spool_take_batch(struct spool *spool)
{
	struct spool_batch *batch = OWNER_OF(spool->unused.next, struct spool_batch, link);

	if (spool->fresh < SPOOL_BATCHES &&
		(spool->fresh < SPOOL_WARM || list_is_empty(&spool->unused) ||
			batch->used >= BATCH_BYTES / 2))
		return &spool->batches[spool->fresh++];
	link_remove(&batch->link);
	spool_take_back(batch);
	return batch;
}

static bool spool_open_batch(struct spool *spool, size_t bytes, enum spool_need need)
{
	const unsigned kept = need == NEED_CHANGE ? 0 : 1;
	struct spool_batch *batch;
	uint32_t rest;

	if (spool->unused_count <= kept)
		return false;
	if (spool->current != NULL &&
		spool->current->bytes - spool->at < up_to(bytes + SEAL_BYTES, RECORD_BLOCK))
		spool->current = NULL;
	if (spool->current == NULL && !spool_begin_segment(spool, need))
		return false;
	batch = spool_take_batch(spool);
	spool->unused_count--;
	rest = spool->current->bytes - spool->at;
	batch->segment = spool->current;
	batch->number = spool->current->number;
	batch->offset = spool->at;
	batch->used = 0;
	batch->commit_count = 0;
	batch->limit = (rest < BATCH_BYTES ? rest : BATCH_BYTES) - SEAL_BYTES;
	batch->sequence = spool->next_sequence;
	batch->is_durable = false;
	batch->hold = batch->number;
	spool->filling = batch;
	if (batch->offset == 0)
		batch_begin_segment(spool, batch);
	return true;
}

/* Is the batch that fills to take no more? Though it is not full: where others can be had. */
static bool spool_is_filled(const struct spool *spool, uint32_t wanted)
{
	const struct spool_batch *batch = spool->filling;
	const uint32_t end = batch->used + wanted;

	return end > batch->limit || (batch->commit_count >= BATCH_COMMITS &&
					     end > BATCH_COMMITS_BYTES && spool->unused_count > 2);
}

bool spool_has_room(struct spool *spool, size_t bytes, enum spool_need need)
{
	const uint32_t wanted = up_to(bytes, RECORD_ALIGN);

	if (spool->has_failed)
		return false;
	if (spool->filling != NULL && !spool_is_filled(spool, wanted))
		return true;
	if (spool->filling != NULL)
		spool_close_batch(spool, wanted);
	return spool_open_batch(spool, wanted, need);
}

uint8_t *spool_place(struct spool *spool, size_t bytes, enum spool_need need)
{
	if (!spool_has_room(spool, bytes, need))
		return NULL;
	return spool->filling->bytes + spool->filling->used;
}

static struct spool_batch *spool_batch_under_way(struct spool *spool)
{
	return OWNER_OF(spool->queued.next, struct spool_batch, link);
}

static void spool_submit(struct spool *spool)
{
	const struct spool_batch *batch = spool_batch_under_way(spool);
	const int flags = batch->is_durable && !spool->has_no_dsync ? RWF_DSYNC : 0;

	spool->disk->write_at(spool->disk->context, spool->loop, &spool->write_op,
		batch->segment->fd,
		span_make(batch->bytes + spool->written, batch->used - spool->written),
		batch->offset + spool->written, flags);
}

void spool_write_next(struct spool *spool)
{
	const struct spool_batch *batch;

	if (spool->is_writing)
		return;
	if (list_is_empty(&spool->queued)) {
		if (spool->filling == NULL || spool->filling->used == 0)
			return;
		spool_close_batch(spool, 0);
	}
	batch = spool_batch_under_way(spool);
	spool->is_writing = true;
	spool->is_syncing = false;
	spool->written = 0;
	spool->again = 0;
	spool->writes++;
	STAT(spool_writes);
	STAT_ADD(spool_bytes, batch->used);
	if (batch->is_durable) {
		spool->flushes++;
		STAT(spool_flushes);
	}
	spool_submit(spool);
}

/* Everything in a batch is as safe as it is to be. The next one goes out before anybody is told. */
static void spool_written(struct spool *spool)
{
	struct spool_batch *batch = spool_batch_under_way(spool);
	struct link commits, tickets, moves, *link;

	link_remove(&batch->link);
	batch->hold = HOLDS_NOTHING;
	link_init(&commits);
	link_init(&tickets);
	link_init(&moves);
	list_move(&commits, &batch->commits);
	list_move(&tickets, &batch->tickets);
	list_move(&moves, &batch->moves);
	list_append(&spool->unused, &batch->link);
	spool->unused_count++;
	spool->is_writing = false;
	spool->faults = 0;
	batch->segment->is_blank = false;
	if (spool->is_on_trial) {
		spool->is_on_trial = false;
		loop_task_add(spool->loop, &spool->look_task);
	}
	spool_write_next(spool);
	while ((link = list_take(&commits)) != NULL)
		spool_writer_committed(OWNER_OF(link, struct spool_writer, link), 0);
	spool_moved(spool, &moves, 0);
	while ((link = list_take(&tickets)) != NULL) {
		struct spool_ticket *ticket = OWNER_OF(link, struct spool_ticket, link);

		ticket->on_done(ticket, 0);
	}
	spool_go_on(spool);
}

static void spool_sync(struct spool *spool)
{
	spool->is_syncing = true;
	spool->disk->sync(spool->disk->context, spool->loop, &spool->write_op,
		spool_batch_under_way(spool)->segment->fd);
}

/* A write was cut short: the rest, from a whole block on, as O_DIRECT wants it. */
static void spool_write_on(struct spool *spool, uint32_t more)
{
	spool->written = (spool->written + more) / RECORD_BLOCK * RECORD_BLOCK;
	spool->again++;
	spool_submit(spool);
}

void spool_write_done(struct op *op, int32_t result, uint32_t flags)
{
	struct spool *spool = OWNER_OF(op, struct spool, write_op);
	const struct spool_batch *batch = spool_batch_under_way(spool);
	const bool is_again = result == -EINTR || result == -EAGAIN;

	(void)flags;
	if (!spool->is_syncing && result == -EOPNOTSUPP && batch->is_durable &&
		!spool->has_no_dsync) {
		spool->has_no_dsync = true;
		spool_submit(spool);
	} else if (is_again && spool->again < SPOOL_AGAIN_MAX && !spool->is_syncing) {
		spool_write_on(spool, 0);
	} else if (result < 0) {
		spool_fail_batches(spool, result);
	} else if (spool->is_syncing) {
		spool_written(spool);
	} else if ((uint32_t)result < batch->used - spool->written) {
		if (spool->again < SPOOL_AGAIN_MAX)
			spool_write_on(spool, (uint32_t)result);
		else
			spool_fail_batches(spool, -EIO);
	} else if (batch->is_durable && spool->has_no_dsync) {
		spool_sync(spool);
	} else {
		spool_written(spool);
	}
}

bool spool_is_idle(const struct spool *spool)
{
	return !spool->is_writing && (spool->filling == NULL || spool->filling->used == 0) &&
	       list_is_empty(&spool->queued) && list_is_empty(&spool->late) &&
	       list_is_empty(&spool->late_commits);
}

void spool_go_on(struct spool *spool)
{
	spool_write_late(spool);
	spool_writers_go_on(spool);
	spool_segment_free(spool);
	spool_move_look(spool);
}
