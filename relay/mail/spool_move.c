/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/spool_private.h"

#include "relay/base/stats.h"
#include <errno.h>

/*
 * A few messages at a time are read as a delivery would read them, and what comes is appended.
 *
 *   IDLE --> READING --its MESSAGE is in a batch--> WRITING --that is on disk--> IDLE
 *             |  ^
 *             v  | room
 *            WAITING
 */
enum mover_state {
	MOVER_IDLE,
	MOVER_READING,
	MOVER_WAITING,
	MOVER_WRITING,
};

struct mover {
	struct spool *spool;
	struct spool_reader reader;
	struct spool_message *message; /* NULL: it was done meanwhile */
	struct spool_message place;    /* where it will be */
	uint64_t pinned;               /* the first segment of what was appended; 0: none */
	struct record_extent *extents;
	uint32_t extent_count;
	bool is_last; /* the piece at hand */
	enum mover_state state;
	struct link link; /* of the batch that has its MESSAGE */
};

struct spool_move {
	struct mover movers[MOVERS_MAX];
	uint64_t stuck_segment; /* a message in it could not be read */
	uint64_t retry_ms;
};

static void mover_enter(struct mover *mover, enum mover_state state)
{
	mover->state = state;
}

static void mover_end(struct mover *mover)
{
	struct spool *spool = mover->spool;

	spool_read_end(&mover->reader);
	if (mover->pinned != 0)
		spool_unpin(spool, mover->pinned);
	mover->pinned = 0;
	if (mover->extents != NULL)
		pool_put(&spool->extents, mover->extents);
	mover->extents = NULL;
	mover->message = NULL;
	mover_enter(mover, MOVER_IDLE);
}

static void mover_pin(struct mover *mover)
{
	if (mover->pinned != 0)
		return;
	mover->pinned = mover->spool->filling->number;
	spool_pin(mover->spool, mover->pinned);
}

/* A piece of the body. False: there is no room. */
static bool mover_append_body(struct mover *mover)
{
	struct spool *spool = mover->spool;
	/* Its bytes are looked up below: where they lie may be what the record is to have. */
	const size_t text_bytes = mover->reader.text.len;
	const size_t payload_bytes = RECORD_BODY_HEAD_BYTES + text_bytes;
	struct record_extent *extent = &mover->extents[mover->extent_count];
	uint8_t *out = spool_place(spool, record_bytes(payload_bytes), NEED_MOVE);

	if (out == NULL)
		return false;
	record_write_body_head(mover->reader.at - text_bytes, out + RECORD_HEADER_BYTES);
	memcpy(out + RECORD_HEADER_BYTES + RECORD_BODY_HEAD_BYTES, mover->reader.text.data,
		text_bytes);
	extent->segment = spool->filling->number;
	extent->bytes = (uint32_t)text_bytes;
	extent->offset = spool_append(spool, out, RECORD_BODY, mover->message->id, payload_bytes);
	mover->extent_count++;
	spool->filling->is_durable = true;
	mover_pin(mover);
	return true;
}

/* The MESSAGE, with what is known of it now. False: there is no room. */
static bool mover_append_message(struct mover *mover)
{
	struct spool *spool = mover->spool;
	const size_t extents_bytes = (size_t)mover->extent_count * RECORD_EXTENT_BYTES;
	const struct record_message *source = &mover->reader.record;
	const size_t payload_bytes =
		RECORD_MESSAGE_HEAD_BYTES + extents_bytes + source->envelope.len + source->text.len;
	uint8_t *out = spool_place(spool, record_bytes(payload_bytes), NEED_MOVE);
	struct record_message record;
	uint8_t *at;

	if (out == NULL)
		return false;
	record = *source; /* not before: its text may lie elsewhere now */
	at = out + RECORD_HEADER_BYTES;
	for (uint32_t i = 0; i < mover->extent_count; i++)
		record_write_extent(&mover->extents[i],
			at + RECORD_MESSAGE_HEAD_BYTES + (size_t)i * RECORD_EXTENT_BYTES);
	record.extents = span_make(at + RECORD_MESSAGE_HEAD_BYTES, extents_bytes);
	at += record_write_message_head(&record, at);
	memcpy(at, record.envelope.data, record.envelope.len);
	if (record.text.len > 0)
		memcpy(at + record.envelope.len, record.text.data, record.text.len);
	spool->events->on_move(spool->owner, mover->message, at, record.envelope.len);
	mover_pin(mover);
	mover->place.segment = spool->filling->number;
	mover->place.bytes = (uint32_t)record_bytes(payload_bytes);
	mover->place.first_segment = mover->pinned;
	mover->place.offset =
		spool_append(spool, out, RECORD_MESSAGE, mover->message->id, payload_bytes);
	spool->filling->is_durable = true;
	list_append(&spool->filling->moves, &mover->link);
	return true;
}

/* Appends what is at hand, and asks for more. */
static void mover_go_on(struct mover *mover)
{
	if (!mover->is_last && mover_append_body(mover)) {
		mover_enter(mover, MOVER_READING);
		spool_read_more(&mover->reader);
	} else if (mover->is_last && mover_append_message(mover)) {
		mover_enter(mover, MOVER_WRITING);
		spool_read_end(&mover->reader);
	} else {
		mover_enter(mover, MOVER_WAITING);
	}
}

static void mover_on_envelope(struct spool_reader *reader, const struct envelope *envelope)
{
	(void)envelope;
	spool_read_more(reader);
}

static void mover_on_text(struct spool_reader *reader, struct span text, bool is_last)
{
	struct mover *mover = OWNER_OF(reader, struct mover, reader);

	(void)text;
	mover->is_last = is_last;
	mover_go_on(mover);
}

/* It was told already. It stays where it is, until its owner cannot read it either. */
static void mover_on_failed(struct spool_reader *reader, int error)
{
	struct mover *mover = OWNER_OF(reader, struct mover, reader);
	struct spool_move *move = mover->spool->move;

	(void)error;
	move->stuck_segment = mover->message->first_segment;
	move->retry_ms = loop_now_ms(mover->spool->loop) + SPOOL_RETRY_MS;
	mover_end(mover);
}

static const struct spool_reader_events mover_events = {
	.on_envelope = mover_on_envelope,
	.on_text = mover_on_text,
	.on_failed = mover_on_failed,
};

static void mover_begin(struct mover *mover, struct spool_message *message)
{
	mover->message = message;
	mover->extent_count = 0;
	mover->extents = pool_take(&mover->spool->extents);
	ASSERT(mover->extents != NULL);
	mover_enter(mover, MOVER_READING);
	spool_read(&mover->reader, message);
}

static bool mover_is_behind(const struct mover *mover, uint64_t number, uint32_t offset)
{
	const struct record_extent *last;

	if (mover->extent_count == 0)
		return false;
	last = &mover->extents[mover->extent_count - 1];
	return last->segment > number || (last->segment == number && last->offset >= offset);
}

int spool_move_create(struct spool *spool)
{
	spool->move = calloc(1, sizeof(*spool->move));
	if (spool->move == NULL)
		return -ENOMEM;
	for (unsigned i = 0; i < MOVERS_MAX; i++) {
		struct mover *mover = &spool->move->movers[i];

		mover->spool = spool;
		link_init(&mover->link);
		spool_reader_init(&mover->reader, spool, &mover_events);
	}
	return 0;
}

void spool_move_destroy(struct spool *spool)
{
	free(spool->move);
	spool->move = NULL;
}

static struct mover *mover_of(struct spool *spool, const struct spool_message *message)
{
	for (unsigned i = 0; i < MOVERS_MAX; i++)
		if (spool->move->movers[i].message == message)
			return &spool->move->movers[i];
	return NULL;
}

/* The next one to be moved; at most MOVERS_MAX that are on their way already are passed over. */
static struct spool_message *move_next(struct spool *spool, struct spool_segment *segment)
{
	struct link *link = segment->messages.next;

	for (; link != &segment->messages; link = link->next) {
		struct spool_message *message = OWNER_OF(link, struct spool_message, in_segment);

		if (mover_of(spool, message) == NULL)
			return message;
	}
	return NULL;
}

/* Is the log long for what it holds, and does moving what its oldest segment holds help? */
static bool move_is_due(const struct spool *spool, const struct spool_segment *oldest)
{
	const struct spool_folder_options *options = &spool->folder->options;
	const uint64_t share = options->bytes_max / options->logs;
	const uint64_t used = (uint64_t)spool->segment_count * options->segment_bytes;
	const struct spool_move *move = spool->move;

	if (spool->is_draining || spool->has_failed || spool->is_on_trial)
		return false;
	if (oldest == spool->current || list_is_empty(&oldest->messages))
		return false;
	if (oldest->number == move->stuck_segment && loop_now_ms(spool->loop) < move->retry_ms)
		return false;
	if (used <= share / 2 && spool->short_error == 0)
		return false;
	return oldest->live_bytes * 2 <= oldest->bytes ||
	       (used > share / 4 * 3 && spool->live_bytes * 2 <= used);
}

void spool_move_look(struct spool *spool)
{
	struct spool_segment *oldest = OWNER_OF(spool->segments.next, struct spool_segment, link);
	struct spool_message *message;

	for (unsigned i = 0; i < MOVERS_MAX; i++) {
		struct mover *mover = &spool->move->movers[i];

		if (mover->state == MOVER_WAITING)
			mover_go_on(mover);
		if (mover->state != MOVER_IDLE || spool->segment_count < 2 ||
			!move_is_due(spool, oldest))
			continue;
		message = move_next(spool, oldest);
		if (message == NULL)
			return;
		mover_begin(mover, message);
	}
}

void spool_move_forget(struct spool *spool, const struct spool_message *message)
{
	struct mover *mover = mover_of(spool, message);

	if (mover == NULL)
		return;
	if (mover->state == MOVER_WRITING)
		mover->message = NULL;
	else
		mover_end(mover);
}

void spool_move_break(struct spool *spool, uint64_t number, uint32_t offset)
{
	for (unsigned i = 0; i < MOVERS_MAX; i++) {
		struct mover *mover = &spool->move->movers[i];

		if ((mover->state == MOVER_READING || mover->state == MOVER_WAITING) &&
			mover_is_behind(mover, number, offset))
			mover_end(mover);
	}
}

void spool_move_stop(struct spool *spool)
{
	for (unsigned i = 0; i < MOVERS_MAX; i++) {
		struct mover *mover = &spool->move->movers[i];

		if (mover->state == MOVER_READING || mover->state == MOVER_WAITING)
			mover_end(mover);
	}
}

void spool_moved(struct spool *spool, struct link *moves, int result)
{
	struct link *link;

	while ((link = list_take(moves)) != NULL) {
		struct mover *mover = OWNER_OF(link, struct mover, link);
		struct spool_message *message = mover->message;

		if (message != NULL && result == 0) {
			const uint64_t body_bytes = message->live_bytes - message->bytes;

			spool_detach_message(spool, message);
			message->segment = mover->place.segment;
			message->offset = mover->place.offset;
			message->bytes = mover->place.bytes;
			message->first_segment = mover->place.first_segment;
			message->live_bytes = message->bytes + body_bytes;
			spool_attach(spool, message);
			STAT(spool_moved);
		}
		mover_end(mover);
	}
}

bool spool_move_is_idle(const struct spool *spool)
{
	for (unsigned i = 0; i < MOVERS_MAX; i++)
		if (spool->move->movers[i].state != MOVER_IDLE)
			return false;
	return true;
}
