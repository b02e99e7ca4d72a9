/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * notice_fake.h: a spool and queues for notices: each answers when turns() lets it, gives the
 * original in small pieces, takes as little as it likes, and fails where it is told to. Included
 * once, as it stands for spool.c and queues.c.
 */

#include "relay/base/stats.h"
#include "tests/unit/notice_fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#define MESSAGES 64
#define READERS 16
#define BODY_BYTES 1048576

struct message {
	struct spool_message spool;
	bool is_used, is_submitted;
	size_t len;
	uint8_t body[BODY_BYTES];
	uint8_t envelope[8192];
	size_t envelope_len;
	struct envelope submitted;
};

struct fake_reader {
	struct spool_reader *reader; /* NULL: not in use */
	bool wants_envelope, wants_text;
	size_t at;
};

struct fake_writer {
	struct spool_writer *writer;
	struct message *message;
	bool wants_room, wants_commit;
};

static struct message messages[MESSAGES];
static struct fake_reader readers[READERS];
static struct fake_writer writers[READERS];
static struct stats counters;

/* What goes wrong, and how things are given. */
static struct {
	int read, text, begin, broken, commit; /* -errno where it happens; 0: it does not */
	bool is_full;                          /* message_take() */
	size_t piece, room;
	unsigned rooms; /* room is given so often, then has to be waited for */
	bool is_stuck;  /* on_room does not come */
	bool is_slow;   /* nor does on_committed */
} fake;

static struct policy policy;
static struct envelope original;
static const char *body;
static struct spool_message original_message = {.id = 0xabc};

/* NULL: one that is free. It must be there. */
static struct fake_reader *reader_of(const struct spool_reader *reader)
{
	unsigned i = 0;

	while (i < READERS && readers[i].reader != reader)
		i++;
	ASSERT(i < READERS);
	return &readers[i];
}

static struct fake_writer *writer_of(const struct spool_writer *writer)
{
	unsigned i = 0;

	while (i < READERS && writers[i].writer != writer)
		i++;
	ASSERT(i < READERS);
	return &writers[i];
}

/* ---- the spool */

void spool_reader_init(
	struct spool_reader *reader, struct spool *spool, const struct spool_reader_events *events)
{
	reader->spool = spool;
	reader->events = events;
}

void spool_read(struct spool_reader *reader, struct spool_message *message)
{
	assert_ptr_equal(message, &original_message);
	*reader_of(NULL) = (struct fake_reader){.reader = reader, .wants_envelope = true};
}

void spool_read_more(struct spool_reader *reader)
{
	struct fake_reader *mine = reader_of(reader);

	assert_false(mine->wants_envelope || mine->wants_text);
	mine->wants_text = true;
}

void spool_read_end(struct spool_reader *reader)
{
	for (unsigned i = 0; i < READERS; i++)
		if (readers[i].reader == reader)
			readers[i] = (struct fake_reader){0};
}

void spool_writer_init(
	struct spool_writer *writer, struct spool *spool, const struct spool_writer_events *events)
{
	writer->spool = spool;
	writer->events = events;
}

int spool_begin(struct spool_writer *writer, uint64_t id)
{
	if (fake.begin < 0)
		return fake.begin;
	assert_in_range(id, 1, MESSAGES);
	messages[id - 1].len = 0;
	*writer_of(NULL) = (struct fake_writer){.writer = writer, .message = &messages[id - 1]};
	return 0;
}

size_t spool_room(struct spool_writer *writer)
{
	if (fake.rooms > 0) {
		fake.rooms--;
		return fake.room;
	}
	writer_of(writer)->wants_room = true;
	return 0;
}

void spool_write(struct spool_writer *writer, struct span text)
{
	struct message *message = writer_of(writer)->message;

	assert_true(text.len > 0 && text.len <= fake.room);
	assert_true(message->len + text.len <= BODY_BYTES);
	memcpy(message->body + message->len, text.data, text.len);
	message->len += text.len;
}

void spool_commit(struct spool_writer *writer, struct span envelope, enum durability durability,
	struct spool_message *message)
{
	struct fake_writer *mine = writer_of(writer);

	assert_int_equal(durability, DURABILITY_DURABLE);
	assert_ptr_equal(message, &mine->message->spool);
	assert_true(envelope.len <= sizeof(mine->message->envelope));
	memcpy(mine->message->envelope, envelope.data, envelope.len);
	mine->message->envelope_len = envelope.len;
	mine->wants_commit = true;
}

void spool_abandon(struct spool_writer *writer)
{
	for (unsigned i = 0; i < READERS; i++)
		if (writers[i].writer == writer) {
			assert_false(writers[i].wants_commit);
			writers[i] = (struct fake_writer){0};
		}
}

/* ---- the queues */

struct message *message_take(struct queues *queues, struct spool *spool)
{
	(void)queues;
	(void)spool;
	for (unsigned i = 0; i < MESSAGES && !fake.is_full; i++) {
		if (messages[i].is_used)
			continue;
		messages[i].is_used = true;
		messages[i].is_submitted = false;
		messages[i].spool.id = i + 1;
		return &messages[i];
	}
	return NULL;
}

struct spool_message *message_spool(struct message *message)
{
	return &message->spool;
}

void message_put(struct queues *queues, struct message **message)
{
	(void)queues;
	assert_true((*message)->is_used && !(*message)->is_submitted);
	(*message)->is_used = false;
	*message = NULL;
}

void queues_submit(struct queues *queues, struct message **message, const struct envelope *envelope)
{
	(void)queues;
	assert_true((*message)->is_used && !(*message)->is_submitted);
	(*message)->is_submitted = true;
	assert_true(envelope_read(
		span_make((*message)->envelope, (*message)->envelope_len), &(*message)->submitted));
	assert_true(span_equal(envelope->message_id, (*message)->submitted.message_id));
	*message = NULL;
}

/* ---- what answers */

static void reader_turn(struct fake_reader *mine)
{
	struct spool_reader *reader = mine->reader;

	if (mine->wants_envelope) {
		mine->wants_envelope = false;
		if (fake.read < 0)
			reader->events->on_failed(reader, fake.read);
		else
			reader->events->on_envelope(reader, &original);
	} else if (mine->wants_text) {
		const struct span rest = span_skip(span_of(body), mine->at);
		const struct span piece = span_head(rest, fake.piece);

		mine->wants_text = false;
		mine->at += piece.len;
		if (fake.text < 0)
			reader->events->on_failed(reader, fake.text);
		else
			reader->events->on_text(reader, piece, piece.len == rest.len);
	}
}

static void writer_turn(struct fake_writer *mine)
{
	struct spool_writer *writer = mine->writer;

	if (mine->wants_commit && fake.is_slow)
		return;
	if (mine->wants_commit) {
		*mine = (struct fake_writer){0};
		writer->events->on_committed(writer, fake.commit);
	} else if (fake.broken < 0) {
		writer->events->on_broken(writer, fake.broken);
	} else if (mine->wants_room && !fake.is_stuck) {
		mine->wants_room = false;
		fake.rooms = 3;
		writer->events->on_room(writer);
	}
}

static void turns(unsigned count)
{
	for (unsigned n = 0; n < count; n++)
		for (unsigned i = 0; i < READERS; i++) {
			if (readers[i].reader != NULL)
				reader_turn(&readers[i]);
			if (writers[i].writer != NULL)
				writer_turn(&writers[i]);
		}
}
