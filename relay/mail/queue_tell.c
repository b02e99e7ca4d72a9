/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/queues_private.h"

#include "relay/base/log.h"
#include "relay/base/stats.h"
#include <errno.h>

/*
 * queue_tell.c: recipients that are given up, or are late: the notice about them is made first, and
 * when it is in the spool they are recorded. A notice tells of NOTICE_RCPTS_MAX recipients; where
 * there are more, the job goes on behind them.
 */

/* What is said where the words are ours and the same for all. */
struct job_words {
	unsigned code;
	const char *status;
	const char *text;     /* in the notice */
	const char *recorded; /* in the spool and the tracking log */
	enum rcpt_state state;
	const char *source; /* of the row */
};

static const struct job_words job_words[] = {
	[JOB_RESULTS] = {.state = RCPT_FAILED, .source = "SMTP"},
	[JOB_DOOM] = {.state = RCPT_FAILED, .source = "DNS"},
	[JOB_EXPIRE] = {550, "4.4.7", "QUEUE.Expired; message expired",
		"550 4.4.7 QUEUE.Expired; message expired", RCPT_EXPIRED, "QUEUE"},
	[JOB_REMOVE] = {550, "4.3.2", "QUEUE.Admin; message deleted by administrative action",
		"550 4.3.2 QUEUE.Admin; message deleted by administrative action", RCPT_REMOVED,
		"ADMIN"},
	[JOB_REFUSE] = {.state = RCPT_FAILED, .source = "ROUTING"},
	[JOB_DELAY] = {400, "4.4.7", "Message delayed", "400 4.4.7 Message delayed", RCPT_OPEN,
		"QUEUE"},
};

/* One recipient that the job is about. */
struct job_pick {
	enum rcpt_state state;
	unsigned code;
	const char *text;   /* recorded */
	const char *told;   /* in the notice */
	const char *remote; /* "" : we say it ourselves */
};

static bool job_find_result(const struct job *job, uint32_t index, struct job_pick *out)
{
	for (uint32_t i = 0; i < job->result_count; i++) {
		const struct job_result *result = &job->results[i];

		if (result->index != index)
			continue;
		*out = (struct job_pick){.state = result->outcome,
			.code = result->code,
			.text = result->text,
			.told = result->text,
			.remote = result->is_local ? "" : job->remote};
		return true;
	}
	return false;
}

static void job_pick_text(struct job_pick *out, enum job_kind kind, const char *text)
{
	*out = (struct job_pick){.state = job_words[kind].state,
		.code = (unsigned)strtoul(text, NULL, 10),
		.text = text,
		.told = text,
		.remote = ""};
}

/* Is it about this recipient, and what is said of it? way is memory for the latter. */
static bool job_picks(struct job *job, const struct envelope *envelope, uint32_t index,
	struct span path, struct job_pick *out)
{
	const struct job_words *words = &job_words[job->kind];
	struct queue_way *way = &job->way;

	if (job->kind == JOB_RESULTS)
		return job_find_result(job, index, out);
	if (!message_is_open(job->message, index))
		return false;
	if (job->kind == JOB_DOOM || job->kind == JOB_REFUSE) {
		queues_find_way(job->queues, job->message, envelope, path, way);
		if (job->kind == JOB_REFUSE) {
			job_pick_text(out, job->kind, way->reply);
			return way->is_refused;
		}
		job_pick_text(out, job->kind, job->entry->queue->doom);
		return queue_is_on_way(job->entry->queue, way);
	}
	*out = (struct job_pick){.state = words->state,
		.code = 0,
		.text = words->recorded,
		.told = words->text,
		.remote = ""};
	return true;
}

static struct span job_add_words(struct job *job, struct span text)
{
	return words_add(job->words, sizeof(job->words), &job->words_len, text);
}

static enum notice_action job_action(const struct job *job, const struct job_pick *pick)
{
	if (job->kind == JOB_DELAY)
		return NOTICE_DELAYED;
	return pick->state == RCPT_RELAYED ? NOTICE_RELAYED : NOTICE_FAILED;
}

static void job_add(struct job *job, const struct envelope *envelope, uint32_t index,
	const struct envelope_rcpt *rcpt, const struct job_pick *pick)
{
	const enum notice_action action = job_action(job, pick);
	const struct job_words *words = &job_words[job->kind];
	struct job_closing *closing = &job->closing[job->closing_count++];
	struct notice_rcpt *told;

	closing->index = index;
	closing->outcome = pick->state;
	closing->code = pick->code != 0 ? pick->code : words->code;
	closing->path = job_add_words(job, rcpt->path);
	closing->text = job_add_words(job, span_of(pick->text));
	if (job->kind != JOB_DELAY)
		message_set_open(job->message, index, false);
	if (envelope->sender.len <= 2 || !notice_is_wanted(rcpt, action))
		return;
	told = &job->notice.rcpts[job->notice.rcpt_count++];
	*told = (struct notice_rcpt){.action = action,
		.path = closing->path,
		.orcpt = job_add_words(job, rcpt->orcpt),
		.code = pick->code,
		.text = job_add_words(job, span_of(pick->told)),
		.remote = job_add_words(job, span_of(pick->remote)),
		.retry_until_ms = action == NOTICE_DELAYED ? job->message->expires_ms : 0};
	if (words->status != NULL)
		(void)snprintf(told->status, sizeof(told->status), "%s", words->status);
}

/* Is there room for the words of one more? */
static bool job_has_room(const struct job *job, const struct envelope_rcpt *rcpt)
{
	return job->closing_count < NOTICE_RCPTS_MAX &&
	       job->words_len + rcpt->path.len + rcpt->orcpt.len + (size_t)2 * DELIVERY_TEXT_BYTES +
			       sizeof(job->remote) <=
		       sizeof(job->words);
}

static void job_pick_recipients(struct job *job, const struct envelope *envelope)
{
	struct envelope_rcpt rcpt;
	struct job_pick pick;
	size_t at = 0;

	for (uint32_t index = 0; envelope_next(envelope, &at, &rcpt); index++) {
		if (index < job->from || !job_picks(job, envelope, index, rcpt.path, &pick))
			continue;
		if (!job_has_room(job, &rcpt)) {
			job->has_more = true;
			job->from = index;
			return;
		}
		job_add(job, envelope, index, &rcpt, &pick);
	}
}

/* Recorded. */

static int64_t message_next_ms(const struct message *message)
{
	int64_t next_ms = 0;

	for (const struct entry *entry = message->entries; entry != NULL; entry = entry->next) {
		if (entry->due_ms > 0 && (next_ms == 0 || entry->due_ms < next_ms))
			next_ms = entry->due_ms;
	}
	return next_ms;
}

static void job_record(struct job *job)
{
	struct message *message = job->message;
	uint8_t *out = job->queues->change;
	const struct envelope_change change = {.flags = message->flags,
		.attempts = message->attempts,
		.next_ms = message_next_ms(message),
		.where = span_of(job->remote),
		.count = job->kind == JOB_DELAY ? 0 : job->closing_count};
	size_t len = envelope_write_change(&change, out, CHANGE_BYTES_MAX);

	ASSERT(len > 0);
	for (uint32_t i = 0; i < change.count; i++) {
		const struct job_closing *closing = &job->closing[i];

		len += envelope_write_change_rcpt(
			&(struct envelope_change_rcpt){.index = closing->index,
				.state = closing->outcome,
				.code = closing->code,
				.text = closing->text},
			out + len, CHANGE_BYTES_MAX - len);
	}
	spool_change(message_log(job->queues, message), &message->spool, span_make(out, len), NULL);
}

static void job_log(const struct job *job)
{
	const struct message *message = job->message;
	char id[MESSAGE_ID_TEXT_BYTES], text[600];

	message_id_print(message->spool.id, id);
	(void)snprintf(text, sizeof(text), "%.*s", (int)job->closing[0].text.len,
		(const char *)job->closing[0].text.data);
	log_event(LOG_LEVEL_INFO, NULL, job->kind == JOB_EXPIRE ? "queue-expired" : "deliver",
		"id=%s result=failed recipients=%u notice=%s code=%u text=%s", id,
		job->closing_count, job->notice.rcpt_count > 0 ? "yes" : "no", job->closing[0].code,
		log_quote_text(text, (char[600]){0}, 600));
}

static void job_track(struct job *job)
{
	char recipients[8192];
	size_t len = 0;

	for (uint32_t i = 0; i < job->closing_count; i++) {
		if (i > 0)
			(void)words_add(
				(uint8_t *)recipients, sizeof(recipients), &len, span_of(";"));
		(void)words_add((uint8_t *)recipients, sizeof(recipients), &len,
			path_bare(job->closing[i].path));
	}
	queue_track(
		job->message, &(struct queue_tracked){.event = TRACK_FAIL,
				      .source = job_words[job->kind].source,
				      .sender = job->sender,
				      .message_id = job->message_id,
				      .subject = queues_tracked_subject(job->queues, job->subject),
				      .recipients = span_make(recipients, len),
				      .statuses = job->closing[0].text,
				      .recipient_count = job->closing_count});
}

static void job_count(const struct job *job)
{
	if (job->kind == JOB_EXPIRE)
		STAT_ADD(queue_expired, job->closing_count);
	else if (job->kind == JOB_DOOM || job->kind == JOB_REFUSE)
		STAT_ADD(queue_failed, job->closing_count);
}

/* Nothing is left to be told. */
static void job_finish(struct job *job)
{
	struct message *message = job->message;

	if (job->kind == JOB_DELAY) {
		message->flags |= ENVELOPE_DELAY_TOLD;
		message_record(job->queues, message, message_next_ms(message));
	}
	if (job->kind == JOB_REMOVE)
		STAT(queue_removed);
	if (job->entry != NULL)
		entry_drop(job->queues, job->entry);
	job->entry = NULL;
	job_end(job);
}

/* The notice is in the spool, or none was wanted. */
static void job_close(struct job *job)
{
	if (job->closing_count > 0 && job->kind != JOB_DELAY) {
		job_record(job);
		job_count(job);
		/* Deliveries log what they came to themselves. */
		if (job->kind != JOB_RESULTS) {
			job_log(job);
			job_track(job);
		}
	}
	job->closing_count = 0;
	if (job->has_more) {
		job->has_more = false;
		job_read(job);
		return;
	}
	job->result_count = 0;
	job_finish(job);
}

void job_on_notice(struct notice *notice, int result)
{
	struct job *job = OWNER_OF(notice, struct job, notice);

	job->is_noticing = false;
	/* -EINVAL: there is nobody to tell. */
	if (result < 0 && result != -EINVAL)
		job_fail(job, result);
	else
		job_close(job);
}

void job_tell(struct job *job, const struct envelope *envelope)
{
	struct notice *notice = &job->notice;

	job->words_len = 0;
	job->closing_count = 0;
	notice->rcpt_count = 0;
	job->sender = job_add_words(job, envelope->sender);
	job->message_id = job_add_words(job, span_head(envelope->message_id, 1000));
	job->subject = job_add_words(job, span_head(envelope->subject, 1000));
	job_pick_recipients(job, envelope);
	spool_read_end(&job->reader);
	if (notice->rcpt_count == 0) {
		job_close(job);
		return;
	}
	link_init(&notice->link);
	notice->on_done = job_on_notice;
	notice->spool = message_log(job->queues, job->message);
	notice->original = &job->message->spool;
	notice->policy = job->queues->policy;
	notice->now_ms = queues_now(job->queues);
	notice->words = job->words;
	job->is_noticing = true;
	notice_make(job->queues->notices, notice);
}
