/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/spool_private.h"

#include "relay/base/log.h"
#include <errno.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum spool_level spool_level(const struct spool *spool)
{
	return spool->level;
}

/* Four thresholds, so that it does not swing: see EXCHANGE 11.2. */
static enum spool_level spool_judge(const struct spool *spool)
{
	const struct spool_folder_options *options = &spool->folder->options;
	const uint64_t used = atomic_load(&spool->folder->used_bytes);
	const uint64_t percent = used * 100 / options->bytes_max;
	const enum spool_level before = spool->level == SPOOL_FAILED ? SPOOL_NORMAL : spool->level;

	if (spool->has_failed || spool->is_on_trial)
		return SPOOL_FAILED;
	if (percent >= options->pressure_high)
		return SPOOL_HIGH;
	if (before == SPOOL_HIGH && percent >= options->pressure_high_end)
		return SPOOL_HIGH;
	if (percent >= options->pressure_medium)
		return SPOOL_MEDIUM;
	if (before != SPOOL_NORMAL && percent >= options->pressure_medium_end)
		return SPOOL_MEDIUM;
	return SPOOL_NORMAL;
}

static void spool_look_at_level(struct spool *spool)
{
	const enum spool_level level = spool_judge(spool);

	if (level == spool->level)
		return;
	spool->level = level;
	if (spool->events != NULL && spool->events->on_level != NULL)
		spool->events->on_level(spool->owner);
}

void spool_look(struct spool *spool)
{
	if (spool->has_failed && spool->is_draining)
		spool_fail_late(spool, -EIO);
	else if (!list_is_empty(&spool->lost_tickets))
		spool_fail_lost(spool);
	if (spool->has_failed && !spool->is_draining && loop_now_ms(spool->loop) >= spool->retry_ms)
		spool_retry(spool);
	if (!spool->has_failed)
		spool_go_on(spool);
	spool_readers_go_on(spool);
	spool_look_at_level(spool);
}

static void spool_look_run(struct task *task)
{
	spool_look(OWNER_OF(task, struct spool, look_task));
}

static void spool_look_fire(struct timer *timer)
{
	struct spool *spool = OWNER_OF(timer, struct spool, look_timer);
	const uint64_t wait_ms = spool->is_draining ? SPOOL_DRAIN_LOOK_MS : SPOOL_LOOK_MS;

	timer_set(loop_timers(spool->loop), timer, loop_now_ms(spool->loop) + wait_ms);
	spool_look(spool);
}

static void spool_write_run(struct task *task)
{
	spool_write_next(OWNER_OF(task, struct spool, write_task));
}

static void spool_watch(struct spool *spool)
{
	loop_read(spool->loop, &spool->event_op, spool->folder->logs[spool->log].event,
		&spool->event_count, sizeof(spool->event_count));
}

/* The folder's thread has made a segment, or could not. */
static void spool_event_done(struct op *op, int32_t result, uint32_t flags)
{
	struct spool *spool = OWNER_OF(op, struct spool, event_op);

	(void)flags;
	if (spool->is_draining)
		return;
	if (result > 0 || result == -EINTR || result == -EAGAIN)
		spool_watch(spool);
	if (spool->has_failed && folder_blanks(spool->folder, spool->log) > 0 &&
		spool->faults < SPOOL_FAULTS_MAX)
		spool->retry_ms = 0; /* it had failed for the lack of one */
	spool_look(spool);
}

uint64_t spool_next_id(struct spool *spool)
{
	struct timespec now;
	uint64_t now_us;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	now_us = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
	if (spool->next_id < now_us)
		spool->next_id = now_us;
	return spool->next_id++;
}

static int spool_create_pools(struct spool *spool)
{
	int rc = pool_create(&spool->chunks, CHUNKS_MAX, CHUNK_BYTES, 64);

	if (rc == 0)
		rc = pool_create(&spool->extents, CHUNKS_MAX + MOVERS_MAX,
			EXTENTS_MAX * sizeof(struct record_extent), 64);
	if (rc == 0)
		rc = pool_create(&spool->reads, READS_MAX, SPOOL_READ_BYTES, RECORD_BLOCK);
	if (rc == 0)
		rc = pool_create(&spool->notes, NOTES_MAX, sizeof(struct spool_note), 16);
	if (rc < 0)
		return rc;
	spool->memory = aligned_alloc(SPOOL_PAGE_BYTES, (size_t)SPOOL_BATCHES * BATCH_BYTES);
	if (spool->memory == NULL)
		return -ENOMEM;
	(void)madvise(spool->memory, (size_t)SPOOL_BATCHES * BATCH_BYTES, MADV_HUGEPAGE);
	spool->unused_count = SPOOL_BURST;
	for (unsigned i = 0; i < SPOOL_BATCHES; i++)
		spool_batch_init(&spool->batches[i], spool->memory + (size_t)i * BATCH_BYTES);
	return spool_move_create(spool);
}

static void spool_init(struct spool *spool, const struct spool_options *options)
{
	spool->loop = options->loop;
	spool->folder = options->folder;
	spool->disk = options->folder->disk;
	spool->log = options->log;
	spool->events = options->events;
	spool->owner = options->owner;
	spool->write_op.done = spool_write_done;
	spool->event_op.done = spool_event_done;
	link_init(&spool->segments);
	link_init(&spool->unused);
	link_init(&spool->queued);
	link_init(&spool->late);
	link_init(&spool->late_commits);
	link_init(&spool->open);
	link_init(&spool->waiting);
	link_init(&spool->lost_tickets);
	link_init(&spool->readers_waiting);
	task_init(&spool->write_task, spool_write_run);
	task_init(&spool->look_task, spool_look_run);
	timer_init(&spool->look_timer, spool_look_fire);
}

int spool_create(const struct spool_options *options, const struct spool_replay *replay,
	void *replay_owner, struct spool **out)
{
	struct spool *spool = calloc(1, sizeof(*spool));
	int rc;

	if (spool == NULL)
		return -ENOMEM;
	ASSERT(options->log < options->folder->log_count);
	spool_init(spool, options);
	rc = spool_create_pools(spool);
	if (rc == 0)
		rc = spool_create_replay(spool, replay, replay_owner);
	*out = spool;
	if (rc < 0) {
		spool_destroy(out);
		return rc;
	}
	folder_open(spool->folder, spool->log);
	spool_watch(spool);
	timer_set(loop_timers(spool->loop), &spool->look_timer,
		loop_now_ms(spool->loop) + SPOOL_LOOK_MS);
	/* What a replay found to be over can go, and the level may be another one already. */
	loop_task_add(spool->loop, &spool->look_task);
	return 0;
}

void spool_drain(struct spool *spool)
{
	if (spool->is_draining)
		return;
	spool->is_draining = true;
	spool_move_stop(spool);
	loop_cancel(spool->loop, &spool->event_op);
	timer_set(loop_timers(spool->loop), &spool->look_timer,
		loop_now_ms(spool->loop) + SPOOL_DRAIN_LOOK_MS);
	loop_task_add(spool->loop, &spool->look_task);
}

bool spool_is_closed(const struct spool *spool)
{
	return spool->is_draining && spool_is_idle(spool) && !spool->event_op.in_flight &&
	       list_is_empty(&spool->lost_tickets) && spool_move_is_idle(spool);
}

/* What is under way belongs to the kernel until it ends; nothing new is begun. */
static void spool_settle(struct spool *spool)
{
	if (spool->move == NULL)
		return; /* it was never begun */
	spool_drain(spool);
	while (spool->write_op.in_flight || spool->event_op.in_flight || spool->reads.used > 0)
		if (loop_turn(spool->loop) < 0)
			break;
}

void spool_destroy(struct spool **at)
{
	struct spool *spool = *at;
	struct link *link;

	if (spool == NULL)
		return;
	spool_settle(spool);
	ASSERT(list_is_empty(&spool->open) && list_is_empty(&spool->readers_waiting));
	folder_close(spool->folder, spool->log);
	loop_task_cancel(&spool->write_task);
	loop_task_cancel(&spool->look_task);
	timer_stop(loop_timers(spool->loop), &spool->look_timer);
	while ((link = list_take(&spool->late)) != NULL)
		free(OWNER_OF(link, struct spool_late, link));
	while ((link = list_take(&spool->segments)) != NULL) {
		const struct spool_segment *segment = OWNER_OF(link, struct spool_segment, link);

		atomic_fetch_sub(&spool->folder->used_bytes, segment->bytes);
	}
	spool_move_destroy(spool);
	for (unsigned i = 0; i < NOTE_BUCKETS; i++)
		for (struct spool_note *note = spool->note_buckets[i]; note != NULL;) {
			struct spool_note *next = note->next;

			pool_put(&spool->notes, note);
			note = next;
		}
	pool_destroy(&spool->chunks);
	pool_destroy(&spool->extents);
	pool_destroy(&spool->reads);
	pool_destroy(&spool->notes);
	free(spool->memory);
	free(spool);
	*at = NULL;
}

void spool_facts(const struct spool *spool, struct spool_facts *out)
{
	*out = (struct spool_facts){
		.level = spool->level,
		.messages = spool->message_count,
		.segments_used = spool->segment_count,
		.segments_free = folder_blanks(spool->folder, spool->log),
		.segments_failed = spool->failed_count,
		.bytes_max = spool->folder->options.bytes_max,
		.writes = spool->writes,
		.flushes = spool->flushes,
		.records = spool->records,
	};
	for (struct link *link = spool->segments.next; link != &spool->segments; link = link->next)
		out->bytes_used += OWNER_OF(link, struct spool_segment, link)->bytes;
}
