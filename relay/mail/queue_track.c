/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/queues_private.h"

/*
 * queue_track.c: what the tracking log hears of the queues.
 */

struct span path_bare(struct span path)
{
	if (path.len >= 2 && path.data[0] == '<')
		return span_make(path.data + 1, path.len - 2);
	return path;
}

struct span words_add(uint8_t *words, size_t words_bytes, size_t *len, struct span text)
{
	uint8_t *at = words + *len;
	const struct span fits = span_head(text, words_bytes - *len);

	if (fits.len > 0)
		memcpy(at, fits.data, fits.len);
	*len += fits.len;
	return span_make(at, fits.len);
}

struct span queues_tracked_subject(const struct queues *queues, struct span subject)
{
	return queues->policy->queue.tracking_log_subject ? subject : (struct span){0};
}

void queue_track(const struct message *message, const struct queue_tracked *row)
{
	if (!track_is_on())
		return;
	track_write(&(struct track_row){.event = row->event,
		.source = row->source,
		.connector = row->connector,
		.context = row->context,
		.server_ip = row->server_ip,
		.server_host = row->server_host,
		.id = message->spool.id,
		.message_id = row->message_id,
		.recipients = row->recipients,
		.statuses = row->statuses,
		.bytes = message->bytes,
		.recipient_count = row->recipient_count,
		.subject = row->subject,
		.sender = path_bare(row->sender)});
}
