/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/sender.h"

#include "tests/crash/ledger.h"
#include "tests/crash/line.h"
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Messages that go behind one another without an answer. */
#define SENDER_BATCH_MAX 4

/* Some letters at once are written in pieces of this size. */
#define SENDER_PIECE_BYTES 16384

/* One client in so many leaves in the middle of a message. */
#define SENDER_LEAVES 60

static struct sender_options sender;
static atomic_bool sender_is_paused;
static atomic_uint sender_busy;

/* A row of commands and bodies as it goes out, and where in it each letter ends. */
struct sender_batch {
	struct letter letters[SENDER_BATCH_MAX];
	size_t ends[SENDER_BATCH_MAX];
	unsigned chunks[SENDER_BATCH_MAX];
	unsigned count;
	char *bytes;
	size_t len, cap;
};

static void sender_wait_ms(unsigned ms)
{
	const struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};

	(void)nanosleep(&time, NULL);
}

static void sender_add(struct sender_batch *batch, const char *bytes, size_t len)
{
	if (batch->len + len > batch->cap) {
		batch->cap = 2 * (batch->len + len);
		batch->bytes = realloc(batch->bytes, batch->cap);
		if (batch->bytes == NULL)
			abort();
	}
	memcpy(batch->bytes + batch->len, bytes, len);
	batch->len += len;
}

static void sender_add_text(struct sender_batch *batch, const char *text)
{
	sender_add(batch, text, strlen(text));
}

static void sender_add_envelope(struct sender_batch *batch, const struct letter *letter)
{
	char line[128];

	(void)snprintf(line, sizeof(line), "MAIL FROM:<c%" PRIu64 "@client.test>\r\n", letter->id);
	sender_add_text(batch, line);
	for (unsigned i = 0; i < letter->rcpts; i++) {
		(void)snprintf(line, sizeof(line), "RCPT TO:<r%u.%" PRIu64 "@sink.test>\r\n", i,
			letter->id);
		sender_add_text(batch, line);
	}
}

static void sender_add_chunks(struct sender_batch *batch, unsigned index, uint64_t lot)
{
	const struct letter *letter = &batch->letters[index];
	size_t chunk = lot % 2 == 0 ? letter->bytes : letter->bytes / (1 + lot / 2 % 5) + 1;
	char line[64];

	for (size_t at = 0; at < letter->bytes; at += chunk) {
		size_t take = letter->bytes - at < chunk ? letter->bytes - at : chunk;

		(void)snprintf(line, sizeof(line), "BDAT %zu%s\r\n", take,
			at + take == letter->bytes ? " LAST" : "");
		sender_add_text(batch, line);
		sender_add(batch, letter->text + at, take);
		batch->chunks[index]++;
	}
	batch->ends[index] = batch->len;
}

static void sender_add_stuffed(struct sender_batch *batch, unsigned index)
{
	const struct letter *letter = &batch->letters[index];
	const char *at = letter->text;
	const char *end = at + letter->bytes;

	while (at < end) {
		const char *next = memchr(at, '\n', (size_t)(end - at));

		next = next == NULL ? end : next + 1;
		if (*at == '.')
			sender_add(batch, ".", 1);
		sender_add(batch, at, (size_t)(next - at));
		at = next;
	}
	sender_add_text(batch, ".\r\n");
	batch->ends[index] = batch->len;
}

/* Writes; a letter counts as sent whole before its last byte may be out. */
static bool sender_write(
	struct line *line, struct sender_batch *batch, size_t limit, unsigned *whole)
{
	size_t at = 0;

	while (at < limit) {
		size_t piece = limit - at < SENDER_PIECE_BYTES ? limit - at : SENDER_PIECE_BYTES;

		while (*whole < batch->count && batch->ends[*whole] <= at + piece)
			ledger_sent(batch->letters[(*whole)++].id, LEDGER_WHOLE);
		if (!line_write(line, batch->bytes + at, piece))
			return false;
		at += piece;
	}
	return true;
}

/* The answers to the envelope: false if the connection is gone; *is_good if all were 250. */
static bool sender_envelope_replies(struct line *line, const struct letter *letter, bool *is_good)
{
	*is_good = true;
	for (unsigned i = 0; i < 1 + letter->rcpts; i++) {
		int code = line_reply(line);

		if (code < 0 || code == 421)
			return false;
		*is_good = *is_good && code == 250;
	}
	return true;
}

/* What the server says in the end of a message that went to all of its recipients. */
static bool sender_last_reply(struct line *line, uint64_t id, bool is_judged)
{
	int code = line_reply(line);

	if (code == 250 && is_judged)
		ledger_sent(id, LEDGER_ACKED);
	else if (code >= 400 && is_judged)
		ledger_sent(id, LEDGER_REFUSED);
	return code > 0 && code != 421;
}

/* Leaves in the middle, at a place by lot, in front of the end of the first letter. */
static bool sender_leave(struct line *line, struct sender_batch *batch, uint64_t lot)
{
	unsigned whole = 0;

	(void)sender_write(line, batch, lot % (batch->ends[0] - 4), &whole);
	return false;
}

static bool sender_send_bdat(struct line *line, struct sender_batch *batch, uint64_t lot)
{
	unsigned whole = 0;
	bool is_good = true;

	for (unsigned i = 0; i < batch->count; i++) {
		/* If the one in front of it fails, what is left of that must not become its own. */
		if (i > 0)
			sender_add_text(batch, "RSET\r\n");
		sender_add_envelope(batch, &batch->letters[i]);
		sender_add_chunks(batch, i, letter_lot(lot, i));
	}
	if (lot % SENDER_LEAVES == 0)
		return sender_leave(line, batch, letter_lot(lot, 7));
	if (!sender_write(line, batch, batch->len, &whole))
		return false;
	for (unsigned i = 0; i < batch->count; i++) {
		if (i > 0 && line_reply(line) < 0)
			return false;
		if (!sender_envelope_replies(line, &batch->letters[i], &is_good))
			return false;
		for (unsigned chunk = 1; chunk < batch->chunks[i]; chunk++) {
			if (line_reply(line) < 0)
				return false;
		}
		if (!sender_last_reply(line, batch->letters[i].id, is_good))
			return false;
	}
	return is_good || (line_say(line, "RSET\r\n") && line_reply(line) > 0);
}

static bool sender_say_envelope(struct line *line, struct sender_batch *batch, bool is_stepwise)
{
	const char *at = batch->bytes;
	const char *end = at + batch->len;
	unsigned whole = batch->count;

	if (!is_stepwise)
		return sender_write(line, batch, batch->len, &whole);
	/* The answers are counted by the caller; they may not come before they are asked for. */
	while (at < end) {
		const char *next = (const char *)memchr(at, '\n', (size_t)(end - at)) + 1;

		if (!line_write(line, at, (size_t)(next - at)))
			return false;
		at = next;
		if (at < end)
			sender_wait_ms(1);
	}
	return true;
}

static bool sender_send_data(struct line *line, struct sender_batch *batch, uint64_t lot)
{
	const struct letter *letter = &batch->letters[0];
	unsigned whole = 0;
	bool is_good;
	int code;

	sender_add_envelope(batch, letter);
	sender_add_text(batch, "DATA\r\n");
	if (!sender_say_envelope(line, batch, lot % 4 == 0) ||
		!sender_envelope_replies(line, letter, &is_good))
		return false;
	code = line_reply(line);
	if (code != 354)
		return code > 0 && code != 421 && line_say(line, "RSET\r\n") &&
		       line_reply(line) > 0;
	batch->len = 0;
	sender_add_stuffed(batch, 0);
	if (lot % SENDER_LEAVES == 1)
		return sender_leave(line, batch, letter_lot(lot, 7));
	return sender_write(line, batch, batch->len, &whole) &&
	       sender_last_reply(line, letter->id, is_good);
}

/* Some letters; false: the connection is of no use any more. */
static bool sender_batch(struct line *line, uint64_t lot)
{
	struct sender_batch batch = {0};
	bool is_bdat = lot % 3 == 0;
	bool is_usable;

	batch.count = is_bdat ? 1 + (unsigned)(lot / 3 % SENDER_BATCH_MAX) : 1;
	for (unsigned i = 0; i < batch.count; i++) {
		uint64_t id = ledger_next_id();

		letter_make(id, &batch.letters[i]);
		ledger_sent(id, LEDGER_BEGUN);
	}
	is_usable = is_bdat ? sender_send_bdat(line, &batch, lot / 16)
			    : sender_send_data(line, &batch, lot / 16);
	for (unsigned i = 0; i < batch.count; i++)
		letter_free(&batch.letters[i]);
	free(batch.bytes);
	return is_usable;
}

static bool sender_may_send(void)
{
	return !atomic_load(&sender_is_paused) && ledger_owed() < sender.owed_max &&
	       ledger_owed_bytes() < sender.owed_bytes_max;
}

/* One session, for as long as it lasts. */
static void sender_session(uint64_t *lot)
{
	struct line line;
	bool is_usable;

	if (!line_connect(&line, sender.port)) {
		sender_wait_ms(5);
		return;
	}
	is_usable = line_reply(&line) == 220 && line_say(&line, "EHLO client.test\r\n") &&
		    line_reply(&line) == 250;
	for (unsigned i = 0; is_usable && i < 200; i++) {
		while (!sender_may_send() && !atomic_load(&sender_is_paused))
			sender_wait_ms(5);
		(void)atomic_fetch_add(&sender_busy, 1);
		if (atomic_load(&sender_is_paused)) {
			is_usable = false;
		} else {
			*lot = letter_lot(*lot, i);
			is_usable = sender_batch(&line, *lot);
		}
		(void)atomic_fetch_sub(&sender_busy, 1);
		if (sender.pause_ms > 0)
			sender_wait_ms(sender.pause_ms);
	}
	line_close(&line);
}

static void *sender_run(void *argument)
{
	uint64_t lot = letter_lot(sender.seed, (uintptr_t)argument);

	for (;;) {
		if (atomic_load(&sender_is_paused))
			sender_wait_ms(5);
		else
			sender_session(&lot);
	}
	return NULL;
}

void sender_start(const struct sender_options *options)
{
	pthread_t thread;

	sender = *options;
	for (uintptr_t i = 0; i < options->connections; i++) {
		if (pthread_create(&thread, NULL, sender_run, (void *)i) != 0)
			abort();
		(void)pthread_detach(thread);
	}
}

void sender_pause(void)
{
	atomic_store(&sender_is_paused, true);
	while (atomic_load(&sender_busy) > 0)
		sender_wait_ms(2);
}

void sender_resume(void)
{
	atomic_store(&sender_is_paused, false);
}
