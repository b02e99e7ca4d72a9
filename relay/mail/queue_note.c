/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/queues_private.h"

#include "relay/base/log.h"
#include <inttypes.h>

/*
 * queue_note.c: what of a queue outlives a restart: that it is in Retry, and where on the ladder,
 * that it was suspended, and the rule of a redirection. A note of the spool under the queue's key:
 *
 *   "2" SP secured SP suspended SP failures SP failing SP last SP next SP before SP until LF
 *   connector LF domain LF redirect LF error
 *
 * Names have no LF in them, and an error neither. A queue of which nothing is worth remembering has
 * no note.
 */

#define NOTE_LINES 5

static bool queue_is_notable(const struct queue *queue)
{
	return queue->failures > 0 || queue->is_suspended || queue->redirect[0] != '\0';
}

void queue_unnote(struct queues *queues, struct queue *queue)
{
	if (!queue->has_note)
		return;
	queue->has_note = false;
	queues->note_count--;
	spool_note(queues->options.spools[0], queue->key, (struct span){0}, NULL);
}

void queue_note(struct queues *queues, struct queue *queue)
{
	const bool is_ordered = queue->is_suspended || queue->redirect[0] != '\0';
	const unsigned max = is_ordered ? NOTES_ALL_MAX : NOTES_RETRY_MAX;
	char text[SPOOL_NOTE_BYTES_MAX];
	int len;

	if (!queue_is_notable(queue)) {
		queue_unnote(queues, queue);
		return;
	}
	if (!queue->has_note && queues->note_count >= max)
		return;
	len = snprintf(text, sizeof(text),
		"2 %d %d %" PRIu64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64
		"\n%s\n%s\n%s\n%s",
		queue->is_secured, queue->is_suspended, queue->failures, queue->failing_ms,
		queue->last_ms, queue->next_ms, queue->redirect_before_ms, queue->redirect_until_ms,
		queue->connector, queue->domain, queue->redirect, queue->error);
	ASSERT(len > 0 && (size_t)len < sizeof(text));
	queues->note_count += !queue->has_note;
	queue->has_note = true;
	spool_note(queues->options.spools[0], queue->key, span_make(text, (size_t)len), NULL);
}

/* Cuts the text into its lines, in place. False: there are fewer. */
static bool note_split(char *text, char *lines[NOTE_LINES])
{
	for (unsigned i = 0; i < NOTE_LINES; i++) {
		char *end = strchr(text, '\n');

		lines[i] = text;
		if (i == NOTE_LINES - 1)
			return true;
		if (end == NULL)
			return false;
		*end = '\0';
		text = end + 1;
	}
	return true;
}

static bool note_read_numbers(const char *line, struct queue_note_text *out)
{
	static const char digits[] = "0123456789 -";
	int is_secured = 0, is_suspended = 0;

	/* What sscanf() takes is wider than what is written. */
	if (line[strspn(line, digits)] != '\0')
		return false;
	if (sscanf(line,
		    "2 %d %d %" SCNu64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64,
		    &is_secured, &is_suspended, &out->failures, &out->failing_ms, &out->last_ms,
		    &out->next_ms, &out->redirect_before_ms, &out->redirect_until_ms) != 8)
		return false;
	out->is_secured = is_secured != 0;
	out->is_suspended = is_suspended != 0;
	return true;
}

bool queue_note_read(struct span payload, struct queue_note_text *out)
{
	char text[SPOOL_NOTE_BYTES_MAX + 1];
	char *lines[NOTE_LINES];

	if (payload.len == 0 || payload.len > SPOOL_NOTE_BYTES_MAX)
		return false;
	memcpy(text, payload.data, payload.len);
	text[payload.len] = '\0';
	if (!note_split(text, lines) || !note_read_numbers(lines[0], out) ||
		strlen(lines[1]) >= sizeof(out->connector) ||
		strlen(lines[2]) >= sizeof(out->domain) ||
		strlen(lines[3]) >= sizeof(out->redirect))
		return false;
	(void)snprintf(out->connector, sizeof(out->connector), "%s", lines[1]);
	(void)snprintf(out->domain, sizeof(out->domain), "%s", lines[2]);
	(void)snprintf(out->redirect, sizeof(out->redirect), "%s", lines[3]);
	(void)snprintf(out->error, sizeof(out->error), "%s", lines[4]);
	return true;
}

bool queue_take_note(struct queues *queues, struct span payload)
{
	struct queue_note_text note;
	struct queue *queue;

	if (payload.len == 0)
		return true;
	if (!queue_note_read(payload, &note))
		return false;
	queue = queue_take(queues, note.connector, note.domain, note.is_secured);
	if (queue == NULL)
		return false;
	queue->is_suspended = note.is_suspended;
	queue->failures = note.failures;
	queue->failing_ms = note.failing_ms;
	queue->last_ms = note.last_ms;
	queue->next_ms = note.next_ms;
	queue->redirect_before_ms = note.redirect_before_ms;
	queue->redirect_until_ms = note.redirect_until_ms;
	queues->note_count += !queue->has_note;
	queue->has_note = true;
	queue->note_log = (uint8_t)queues->replayed_log;
	memcpy(queue->redirect, note.redirect, sizeof(queue->redirect));
	memcpy(queue->error, note.error, sizeof(queue->error));
	queue_plan(queues, queue);
	return true;
}

void queues_move_notes(struct queues *queues)
{
	for (uint32_t number = 0; number < queues->queue_pool.fresh; number++) {
		struct queue *queue = queue_at(queues, number);

		if (queue == NULL || queue->note_log == 0)
			continue;
		queue_note(queues, queue);
		spool_note(queues->options.spools[queue->note_log], queue->key, (struct span){0},
			NULL);
		queue->note_log = 0;
	}
}
