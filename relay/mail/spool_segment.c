/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/spool_private.h"

static struct spool_segment **segment_bucket(struct spool *spool, uint64_t number)
{
	return &spool->by_number[number % SEGMENT_BUCKETS];
}

struct spool_segment *spool_segment_find(const struct spool *spool, uint64_t number)
{
	struct spool_segment *segment = spool->by_number[number % SEGMENT_BUCKETS];

	while (segment != NULL && segment->number != number)
		segment = segment->same;
	return segment;
}

/* number is above all that are in use. */
void spool_segment_use(struct spool *spool, struct spool_segment *segment, uint64_t number)
{
	struct spool_segment **bucket = segment_bucket(spool, number);

	segment->number = number;
	segment->same = *bucket;
	*bucket = segment;
	segment->is_failed = false;
	segment->is_blank = true;
	segment->live_bytes = 0;
	segment->pins = 0;
	segment->notes = 0;
	link_init(&segment->messages);
	list_append(&spool->segments, &segment->link);
	spool->segment_count++;
	atomic_fetch_add(&spool->folder->used_bytes, segment->bytes);
}

void spool_segment_forget(struct spool *spool, struct spool_segment *segment)
{
	struct spool_segment **at = segment_bucket(spool, segment->number);

	ASSERT(segment->pins == 0 && segment->notes == 0 && list_is_empty(&segment->messages));
	while (*at != segment)
		at = &(*at)->same;
	*at = segment->same;
	link_remove(&segment->link);
	spool->segment_count--;
	if (segment->is_failed)
		spool->failed_count--;
	atomic_fetch_sub(&spool->folder->used_bytes, segment->bytes);
}

void spool_pin(struct spool *spool, uint64_t number)
{
	struct spool_segment *segment = spool_segment_find(spool, number);

	ASSERT(segment != NULL);
	segment->pins++;
}

void spool_unpin(struct spool *spool, uint64_t number)
{
	struct spool_segment *segment = spool_segment_find(spool, number);

	ASSERT(segment != NULL && segment->pins > 0);
	segment->pins--;
}

void spool_attach(struct spool *spool, struct spool_message *message)
{
	struct spool_segment *segment = spool_segment_find(spool, message->first_segment);

	ASSERT(segment != NULL);
	list_append(&segment->messages, &message->in_segment);
	segment->live_bytes += message->live_bytes;
	spool->live_bytes += message->live_bytes;
	spool->message_count++;
}

void spool_detach_message(struct spool *spool, struct spool_message *message)
{
	struct spool_segment *segment = spool_segment_find(spool, message->first_segment);

	ASSERT(segment != NULL);
	link_remove(&message->in_segment);
	segment->live_bytes -= message->live_bytes;
	spool->live_bytes -= message->live_bytes;
	spool->message_count--;
}

/* The oldest segment that something not yet written holds. */
static uint64_t spool_held(const struct spool *spool)
{
	uint64_t held = spool->filling == NULL ? HOLDS_NOTHING : spool->filling->hold;
	struct link *link;

	for (link = spool->queued.next; link != &spool->queued; link = link->next) {
		const struct spool_batch *batch = OWNER_OF(link, struct spool_batch, link);

		held = batch->hold < held ? batch->hold : held;
	}
	for (link = spool->late.next; link != &spool->late; link = link->next) {
		const struct spool_late *late = OWNER_OF(link, struct spool_late, link);

		held = late->hold < held ? late->hold : held;
	}
	return held;
}

static bool segment_is_needed(const struct spool_segment *segment)
{
	return segment->pins > 0 || !list_is_empty(&segment->messages);
}

/* The newest that is on disk: with it the log would forget its numbers. */
static bool segment_is_newest(const struct spool *spool, const struct spool_segment *segment)
{
	struct link *link = segment->link.next;

	while (link != &spool->segments && OWNER_OF(link, struct spool_segment, link)->is_blank)
		link = link->next;
	return link == &spool->segments;
}

/*
 * The newest is never given back. Notes are written once
 * more when nothing else holds their segment, and it is looked at again when that is done.
 */
void spool_segment_free(struct spool *spool)
{
	while (!list_is_empty(&spool->segments)) {
		struct spool_segment *segment =
			OWNER_OF(spool->segments.next, struct spool_segment, link);

		if (segment == spool->current || segment_is_newest(spool, segment) ||
			segment_is_needed(segment) || segment->number >= spool_held(spool))
			break;
		if (segment->notes > 0) {
			spool_notes_rewrite(spool, segment);
			break;
		}
		spool_segment_forget(spool, segment);
		folder_give(spool->folder, spool->log, segment);
	}
}
