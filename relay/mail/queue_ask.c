/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/queue_ask_private.h"
#include "relay/mail/queues_private.h"

#include "relay/base/log.h"

/*
 * queue_ask.c: what an administrator asks of queues. They are looked at by their number in the
 * pool, some at a time: the number of one does not change, whatever comes and goes meanwhile.
 */

bool ask_is_named(const char *filter, const char *identity)
{
	return filter[0] == '\0' || strcasecmp(filter, identity) == 0;
}

/* The next row of the answer, or NULL: it is only counted. */
void *ask_take_row(struct queue_ask *ask, void *rows, size_t row_bytes)
{
	const uint64_t index = ask->matched++;

	if (rows == NULL || index < ask->skip || ask->rows >= ask->rows_max)
		return NULL;
	return (uint8_t *)rows + row_bytes * ask->rows++;
}

/* Rows. */

static int64_t queue_oldest_ms(const struct queue *queue)
{
	int64_t oldest_ms = 0;
	const struct link *heads[] = {&queue->ready, &queue->parked};

	/* Each list is nearly in the order of arrival, so the first of each will do. */
	for (unsigned i = 0; i < COUNT_OF(heads); i++) {
		const struct entry *first;

		if (list_is_empty(heads[i]))
			continue;
		first = OWNER_OF(heads[i]->next, const struct entry, link);
		if (oldest_ms == 0 || first->message->arrived_ms < oldest_ms)
			oldest_ms = first->message->arrived_ms;
	}
	return oldest_ms;
}

static void queue_fill_row(struct queues *queues, struct queue *queue, struct queue_row *row)
{
	*row = (struct queue_row){.kind = queue->kind,
		.status = queue_status_of(queues, queue),
		.messages = queue->messages,
		.bytes = queue->bytes,
		.active = queue->active,
		.retry_count = queue->failures,
		.last_retry_ms = queue->last_ms,
		.next_retry_ms = queue->failures > 0 ? queue->next_ms : 0,
		.oldest_ms = queue_oldest_ms(queue)};
	queue_identity(queue, row->identity);
	(void)snprintf(row->connector, sizeof(row->connector), "%s", queue->connector);
	if (queue->is_secured)
		(void)snprintf(row->tls_domain, sizeof(row->tls_domain), "%s", queue->domain);
	/* What is shown is of the last full minute: it may be over since it was counted. */
	queue_roll(queues, queue);
	row->in_minute = queue->in_minute;
	row->out_minute = queue->out_minute;
	(void)snprintf(row->last_error, sizeof(row->last_error), "%s", queue->error);
}

/* Messages that were accepted and have no queue yet are in Submission. */
static void ask_list_submission(struct queues *queues, struct queue_ask *ask)
{
	struct queue_row *row;

	if (!ask_is_named(ask->filter.queue, queue_kind_word(QUEUE_SUBMISSION)) ||
		(ask->filter.has_status && ask->filter.status != QUEUE_READY))
		return;
	row = ask_take_row(ask, ask->queue_rows, sizeof(*row));
	if (row == NULL)
		return;
	*row = (struct queue_row){.kind = QUEUE_SUBMISSION,
		.status = QUEUE_READY,
		.messages = queues->messages.used - queues->arriving - queues->queued_count,
		.bytes = queues->bytes - queues->queued_bytes};
	(void)snprintf(
		row->identity, sizeof(row->identity), "%s", queue_kind_word(QUEUE_SUBMISSION));
}

/* What is done to a queue. */

static void queue_suspend(struct queues *queues, struct queue *queue, bool is_suspended)
{
	char identity[QUEUE_NAME_BYTES];

	queue_identity(queue, identity);
	log_event(LOG_LEVEL_INFO, NULL, is_suspended ? "queue-suspend" : "queue-resume",
		"queue=%s messages=%lu", log_quote_text(identity, (char[400]){0}, 400),
		(unsigned long)queue->messages);
	queue->is_suspended = is_suspended;
	queue_note(queues, queue);
	queue_plan(queues, queue);
	if (is_suspended)
		slots_cancel(queues, queue);
	else
		queue_wish(queues, queue);
}

/* The timer is at its end, and where the ladder is counts on (EXCHANGE 9.2). */
static void queue_retry_now(struct queues *queues, struct queue *queue)
{
	queue->next_ms = queues_now(queues);
	queue_note(queues, queue);
	queue_plan(queues, queue);
	queue_wish(queues, queue);
}

/* What was sent here from the target may go back: the rule that brought it ends. */
static void queue_forget_way_back(
	struct queues *queues, const struct queue *queue, const char *target)
{
	for (uint32_t number = 0; number < queues->queue_pool.fresh; number++) {
		struct queue *other = queue_at(queues, number);

		if (other == NULL || strcmp(other->connector, target) != 0 ||
			strcmp(other->redirect, queue->connector) != 0)
			continue;
		other->redirect[0] = '\0';
		queue_note(queues, other);
		queue_plan(queues, other);
	}
}

/*
 * By a rule, not by a mark on each message: what came until now, and would wait here, goes by
 * that connector, for as long as any of it can be left. So it outlives a restart in one note.
 */
static void queue_redirect(struct queues *queues, struct queue *queue, const char *target)
{
	const int64_t now_ms = queues_now(queues);
	char identity[QUEUE_NAME_BYTES];

	queue_identity(queue, identity);
	log_event(LOG_LEVEL_INFO, NULL, "queue-redirect", "queue=%s messages=%lu connector=%s",
		log_quote_text(identity, (char[400]){0}, 400), (unsigned long)queue->messages,
		target);
	queue_forget_way_back(queues, queue, target);
	(void)snprintf(queue->redirect, sizeof(queue->redirect), "%s", target);
	queue->redirect_before_ms = now_ms;
	queue->redirect_until_ms = now_ms + (int64_t)queues->policy->queue.expiration_ms;
	queue_note(queues, queue);
	queue_resubmit(queues, queue, TRACK_REDIRECT, "ADMIN");
}

/* False: the verb is not for a queue that is as this one. */
static bool ask_do_queue(struct queues *queues, struct queue_ask *ask, struct queue *queue)
{
	const enum queue_status status = queue_status_of(queues, queue);

	switch (ask->verb) {
	case QUEUE_ASK_RETRY:
		if (status != QUEUE_RETRY)
			return false;
		queue_retry_now(queues, queue);
		return true;
	case QUEUE_ASK_RESUBMIT:
		queue_resubmit(queues, queue, TRACK_RESUBMIT, "ADMIN");
		return true;
	case QUEUE_ASK_SUSPEND:
	case QUEUE_ASK_RESUME:
		if ((ask->verb == QUEUE_ASK_SUSPEND) == queue->is_suspended)
			return false;
		queue_suspend(queues, queue, ask->verb == QUEUE_ASK_SUSPEND);
		return true;
	case QUEUE_ASK_REDIRECT:
		queue_redirect(queues, queue, ask->target);
		return true;
	case QUEUE_ASK_LIST:
	case QUEUE_ASK_MESSAGES:
	case QUEUE_ASK_MESSAGE_SUSPEND:
	case QUEUE_ASK_MESSAGE_RESUME:
	case QUEUE_ASK_MESSAGE_REMOVE:
	case QUEUE_ASK_MESSAGE_REMOVE_NDR:
	case QUEUE_ASK_FACTS:
		break;
	}
	UNREACHABLE();
}

static void ask_queue(struct queues *queues, struct queue_ask *ask, struct queue *queue)
{
	char identity[QUEUE_NAME_BYTES];
	struct queue_row *row;

	queue_identity(queue, identity);
	if (!ask_is_named(ask->filter.queue, identity) ||
		(ask->filter.has_status && ask->filter.status != queue_status_of(queues, queue)))
		return;
	if (ask->verb != QUEUE_ASK_LIST) {
		ask->matched += ask_do_queue(queues, ask, queue);
		return;
	}
	row = ask_take_row(ask, ask->queue_rows, sizeof(*row));
	if (row != NULL)
		queue_fill_row(queues, queue, row);
}

/* A connector that is not there, or does not take mail, is no target. */
static bool ask_has_target(const struct queues *queues, const struct queue_ask *ask)
{
	const struct send_connector *target;

	if (ask->verb != QUEUE_ASK_REDIRECT)
		return true;
	target = policy_send_connector(queues->policy, ask->target);
	return target != NULL && target->enabled;
}

static void ask_queues(struct queues *queues, struct queue_ask *ask)
{
	const uint64_t end = ask->cursor + SLICE_QUEUES;

	if (!ask_has_target(queues, ask)) {
		ask->is_done = true;
		return;
	}
	if (ask->cursor == 0 && ask->verb == QUEUE_ASK_LIST)
		ask_list_submission(queues, ask);
	for (; ask->cursor < end && ask->cursor < queues->queue_pool.fresh; ask->cursor++) {
		struct queue *queue = queue_at(queues, (uint32_t)ask->cursor);

		if (queue != NULL)
			ask_queue(queues, ask, queue);
	}
	ask->is_done = ask->cursor >= queues->queue_pool.fresh;
}

/* The level is the worst of them, and the room that of the folder, the same for all. */
static void ask_sum_spools(const struct queues *queues, struct spool_facts *out)
{
	*out = (struct spool_facts){0};
	for (unsigned i = 0; i < queues->options.spool_count; i++) {
		struct spool_facts one;

		spool_facts(queues->options.spools[i], &one);
		out->level = one.level > out->level ? one.level : out->level;
		out->messages += one.messages;
		out->segments_used += one.segments_used;
		out->segments_free += one.segments_free;
		out->segments_failed += one.segments_failed;
		out->bytes_used += one.bytes_used;
		out->bytes_max = one.bytes_max;
		out->writes += one.writes;
		out->flushes += one.flushes;
		out->records += one.records;
	}
}

void queue_ask_run(struct queues *queues, struct queue_ask *ask)
{
	if (ask->is_done)
		return;
	switch (ask->verb) {
	case QUEUE_ASK_LIST:
	case QUEUE_ASK_RETRY:
	case QUEUE_ASK_RESUBMIT:
	case QUEUE_ASK_SUSPEND:
	case QUEUE_ASK_RESUME:
	case QUEUE_ASK_REDIRECT:
		ask_queues(queues, ask);
		return;
	case QUEUE_ASK_MESSAGES:
	case QUEUE_ASK_MESSAGE_SUSPEND:
	case QUEUE_ASK_MESSAGE_RESUME:
	case QUEUE_ASK_MESSAGE_REMOVE:
	case QUEUE_ASK_MESSAGE_REMOVE_NDR:
		ask_messages(queues, ask);
		return;
	case QUEUE_ASK_FACTS:
		queues_facts(queues, &ask->facts);
		ask_sum_spools(queues, &ask->spool);
		ask->is_done = true;
		return;
	}
	UNREACHABLE();
}
