/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/track.h"

#include "relay/base/stats.h"
#include <stdio.h>

/* What is cut: a row of thousands of recipients names the first ones, and counts all. */
#define NAME_BYTES_MAX 512
#define LIST_BYTES_MAX 3584
#define STATUS_BYTES_MAX 3584
#define TEXT_BYTES_MAX 1024
#define NUMBER_BYTES 24

/* Eight names at most: connector, context, four of client and server, sender twice. */
_Static_assert(LIST_BYTES_MAX + STATUS_BYTES_MAX + 8 * NAME_BYTES_MAX + 4 * TEXT_BYTES_MAX +
			       5 * NUMBER_BYTES <=
		       LOGSET_ROW_BYTES_MAX - 256,
	"all columns fit a row");

static const struct logset_kind track_kind = {"MSGTRK", "Log-type", "Message Tracking Log",
	"date-time,client-ip,client-hostname,server-ip,server-hostname,source-context,"
	"connector-id,source,event-id,internal-message-id,message-id,network-message-id,"
	"recipient-address,recipient-status,total-bytes,recipient-count,"
	"related-recipient-address,reference,message-subject,sender-address,return-path,"
	"message-info,directionality,tenant-id,original-client-ip,original-server-ip,"
	"custom-data,transport-traffic-type,log-id,schema-version"};

static const struct logset_about track_about = {"tracking-log-failed", &track_kind, 1};

static struct logset *track_logset; /* NULL: not started */

static _Thread_local unsigned track_worker = UINT_MAX;

int track_start(const struct logset_options *options, unsigned workers)
{
	ASSERT(track_logset == NULL);
	return logset_create(&track_about, options, workers, &track_logset);
}

void track_stop(void)
{
	logset_destroy(&track_logset);
}

void track_configure(const struct logset_options *options)
{
	if (track_logset != NULL)
		logset_configure(track_logset, options);
}

void track_attach(unsigned worker)
{
	track_worker = worker;
}

bool track_is_on(void)
{
	return logset_is_kept(track_logset);
}

const char *track_event_word(enum track_event event)
{
	static const char *const words[TRACK_EVENT_COUNT] = {[TRACK_RECEIVE] = "RECEIVE",
		[TRACK_SEND] = "SEND",
		[TRACK_DEFER] = "DEFER",
		[TRACK_FAIL] = "FAIL",
		[TRACK_DSN] = "DSN",
		[TRACK_RESUBMIT] = "RESUBMIT",
		[TRACK_SUSPEND] = "SUSPEND",
		[TRACK_RESUME] = "RESUME",
		[TRACK_REDIRECT] = "REDIRECT"};

	ASSERT(event < TRACK_EVENT_COUNT);
	return words[event];
}

static void track_put(struct logset_row *row, struct span text, size_t max)
{
	logset_row_field(row, text, max);
	logset_row_comma(row);
}

/* What is too long is cut between two of the list. */
static void track_put_list(struct logset_row *row, struct span list, size_t max)
{
	struct span head = span_head(list, max - 2);

	while (head.len < list.len && head.len > 0 && list.data[head.len] != ';')
		head.len--;
	track_put(row, head, max);
}

/* Columns that a relay without mailboxes and tenants has nothing for. */
static void track_skip(struct logset_row *row, unsigned columns)
{
	for (unsigned i = 0; i < columns; i++)
		logset_row_comma(row);
}

static void track_put_row(const struct track_row *in, struct logset_row *row)
{
	char id[NUMBER_BYTES] = "", bytes[NUMBER_BYTES] = "", count[NUMBER_BYTES] = "";

	if (in->id != 0)
		(void)snprintf(id, sizeof(id), "%016llx", (unsigned long long)in->id);
	if (in->bytes != 0)
		(void)snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)in->bytes);
	if (in->recipient_count != 0)
		(void)snprintf(count, sizeof(count), "%u", in->recipient_count);
	track_put(row, in->client_ip, NAME_BYTES_MAX);
	track_put(row, in->client_host, NAME_BYTES_MAX);
	track_put(row, in->server_ip, NAME_BYTES_MAX);
	track_put(row, in->server_host, NAME_BYTES_MAX);
	logset_row_text(row, in->context, NAME_BYTES_MAX);
	logset_row_text(row, in->connector, NAME_BYTES_MAX);
	logset_row_text(row, in->source, NUMBER_BYTES);
	logset_row_text(row, track_event_word(in->event), NUMBER_BYTES);
	logset_row_text(row, id, NUMBER_BYTES);
	track_put(row, in->message_id, TEXT_BYTES_MAX);
	track_skip(row, 1); /* network-message-id */
	track_put_list(row, in->recipients, LIST_BYTES_MAX);
	track_put_list(row, in->statuses, STATUS_BYTES_MAX);
	logset_row_text(row, bytes, NUMBER_BYTES);
	logset_row_text(row, count, NUMBER_BYTES);
	track_skip(row, 1); /* related-recipient-address */
	track_put(row, in->reference, TEXT_BYTES_MAX);
	track_put(row, in->subject, TEXT_BYTES_MAX);
	track_put(row, in->sender, NAME_BYTES_MAX);
	track_put(row, in->sender, NAME_BYTES_MAX); /* return-path: the envelope has no other */
	track_skip(row, 5);                         /* message-info to original-server-ip */
	track_put(row, in->custom, TEXT_BYTES_MAX);
	logset_row_text(row, "Email", NUMBER_BYTES);
	track_skip(row, 1); /* log-id */
	logset_row_field(row, span_of(POSTERN_VERSION), NAME_BYTES_MAX);
}

void track_write(const struct track_row *in)
{
	struct logset_row row;
	struct timespec now;

	if (!track_is_on())
		return;
	logset_clock(&now);
	logset_row_begin(&row, &now);
	track_put_row(in, &row);
	logset_row_end(&row);
	if (!logset_append(track_logset, track_worker, 0, &now, span_make(row.bytes, row.len)))
		STAT(track_dropped);
}
