/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/queues_private.h"

#include "relay/base/log.h"
#include "relay/base/stats.h"
#include "relay/mail/ladder.h"
#include <time.h>

/*
 * queue.c: one queue: where its messages go, whether they can, and when it is tried again.
 *
 * How many deliveries it may have follows what they come to: one more after each that the next hop
 * answered, half as many after each that it did not. After a failure there is one at a time, until
 * one succeeds.
 */

/* The table. */

static struct link *queue_bucket(struct queues *queues, uint64_t key)
{
	return &queues->buckets[(key ^ key >> 32) & (QUEUE_BUCKETS - 1)];
}

uint64_t queue_key(const char *connector, const char *domain, bool is_secured)
{
	const uint64_t key = text_hash(connector) * 31 + text_hash(domain);

	return (key << 1 | (is_secured ? 1 : 0)) | UINT64_C(1) << 63;
}

struct queue *queue_find(
	struct queues *queues, const char *connector, const char *domain, bool is_secured)
{
	struct link *bucket = queue_bucket(queues, queue_key(connector, domain, is_secured));
	struct link *link;
	struct link *after;

	LIST_FOR_EACH (link, after, bucket) {
		struct queue *queue = OWNER_OF(link, struct queue, in_bucket);

		if (queue->is_secured == is_secured && strcmp(queue->domain, domain) == 0 &&
			strcmp(queue->connector, connector) == 0)
			return queue;
	}
	return NULL;
}

void queue_set_kind(const struct queues *queues, struct queue *queue)
{
	const struct send_connector *found = NULL;

	if (queues->policy != NULL)
		found = policy_send_connector(queues->policy, queue->connector);
	if (queue->connector[0] == '\0')
		queue->kind = QUEUE_UNREACHABLE;
	else
		queue->kind =
			found != NULL && found->smart_host_count > 0 ? QUEUE_SMART_HOST : QUEUE_DNS;
}

struct queue *queue_take(
	struct queues *queues, const char *connector, const char *domain, bool is_secured)
{
	struct queue *queue = queue_find(queues, connector, domain, is_secured);

	if (queue != NULL)
		return queue;
	queue = pool_take(&queues->queue_pool);
	if (queue == NULL)
		return NULL;
	*queue = (struct queue){.key = queue_key(connector, domain, is_secured),
		.is_secured = is_secured,
		.window = WINDOW_FIRST,
		.empty_ms = queues_now(queues)};
	(void)snprintf(queue->connector, sizeof(queue->connector), "%s", connector);
	(void)snprintf(queue->domain, sizeof(queue->domain), "%s", domain);
	queue_set_kind(queues, queue);
	link_init(&queue->in_turns);
	link_init(&queue->in_chores);
	link_init(&queue->ready);
	link_init(&queue->parked);
	list_append(queue_bucket(queues, queue->key), &queue->in_bucket);
	bits_put(queues->queues_used, pool_index(&queues->queue_pool, queue), true);
	queue_plan(queues, queue);
	return queue;
}

struct queue *queue_at(const struct queues *queues, uint32_t number)
{
	if (number >= queues->queue_pool.fresh || !bits_get(queues->queues_used, number))
		return NULL;
	return pool_at(&queues->queue_pool, number);
}

void queue_drop(struct queues *queues, struct queue *queue)
{
	ASSERT(queue->messages == 0 && queue->active == 0 && queue->leasing == 0);
	link_remove(&queue->in_bucket);
	link_remove(&queue->in_turns);
	link_remove(&queue->in_chores);
	due_clear(&queues->queue_moments, &queue->due_place);
	bits_put(queues->queues_used, pool_index(&queues->queue_pool, queue), false);
	pool_put(&queues->queue_pool, queue);
}

/* What is shown. */

void queue_identity(const struct queue *queue, char out[static QUEUE_NAME_BYTES])
{
	const char *name = queue->domain[0] != '\0' ? queue->domain : queue->connector;

	if (queue->kind == QUEUE_UNREACHABLE)
		name = queue_kind_word(QUEUE_UNREACHABLE);
	(void)snprintf(out, QUEUE_NAME_BYTES, "%s%s", name, queue->is_secured ? " (secured)" : "");
}

enum queue_status queue_status_of(const struct queues *queues, const struct queue *queue)
{
	if (queue->is_suspended)
		return QUEUE_SUSPENDED;
	if (queue->active > 0)
		return QUEUE_ACTIVE;
	if (queue->leasing > 0)
		return QUEUE_CONNECTING;
	if (queue->failures > 0 && queues_now(queues) < queue->next_ms)
		return QUEUE_RETRY;
	return QUEUE_READY;
}

void queue_roll(const struct queues *queues, struct queue *queue)
{
	const int64_t minute = queues_now(queues) / 60000;

	if (queue->minute != minute) {
		const bool is_next = minute == queue->minute + 1;

		queue->in_minute = is_next ? queue->in_now : 0;
		queue->out_minute = is_next ? queue->out_now : 0;
		queue->in_now = 0;
		queue->out_now = 0;
		queue->minute = minute;
	}
}

void queue_count(struct queues *queues, struct queue *queue, bool is_in)
{
	queue_roll(queues, queue);
	if (is_in)
		queue->in_now++;
	else
		queue->out_now++;
}

/* When it goes. */

bool queue_may_go(const struct queues *queues, const struct queue *queue)
{
	if (!queues->has_started || queues->is_draining || queues->router == NULL)
		return false;
	if (queue->kind == QUEUE_UNREACHABLE || queue->is_suspended || queue->is_doomed)
		return false;
	return queue->failures == 0 || queues_now(queues) >= queue->next_ms;
}

void queue_wish(struct queues *queues, struct queue *queue)
{
	const unsigned limit = queue->failures > 0 ? 1 : queue->window;

	if (link_is_queued(&queue->in_turns) || queue->ready_count <= queue->leasing ||
		queue->active + queue->leasing >= limit || !queue_may_go(queues, queue))
		return;
	list_append(&queues->turns, &queue->in_turns);
	queues_kick(queues);
}

void queue_plan(struct queues *queues, struct queue *queue)
{
	int64_t at = 0;

	if (queue->messages > 0 && queue->failures > 0) {
		at = queue->next_ms;
	} else if (queue->messages == 0 && !queue->is_suspended && queues->policy != NULL) {
		at = queue->empty_ms + (int64_t)queues->policy->queue.queue_idle_ms;
		if (queue->redirect[0] != '\0' && at < queue->redirect_until_ms)
			at = queue->redirect_until_ms;
	}
	if (at == 0) {
		due_clear(&queues->queue_moments, &queue->due_place);
		return;
	}
	due_set(&queues->queue_moments, &queue->due_place, at);
	queues_expect(queues, at);
}

static void queue_look(struct queues *queues, struct queue *queue)
{
	due_clear(&queues->queue_moments, &queue->due_place);
	if (queue->messages > 0) {
		queue_wish(queues, queue);
		return;
	}
	/* After a restart its messages may not have been routed yet. */
	if (queue->active + queue->leasing > 0 ||
		(queue->has_note && !list_is_empty(&queues->work))) {
		due_set(&queues->queue_moments, &queue->due_place,
			queues_now(queues) + TROUBLE_RETRY_MS);
		return;
	}
	queue_unnote(queues, queue);
	queue_drop(queues, queue);
}

bool queues_look_at_queues(struct queues *queues, int64_t now_ms)
{
	int64_t at = 0;

	for (unsigned done = 0; done < SLICE_MOMENTS; done++) {
		uint32_t *place = due_first(&queues->queue_moments, &at);

		if (place == NULL || at > now_ms)
			return false;
		queue_look(queues, OWNER_OF(place, struct queue, due_place));
	}
	return true;
}

/* What its next hop does. */

static void time_print(int64_t time_ms, char *out, size_t out_bytes)
{
	const time_t seconds = (time_t)(time_ms / 1000);
	struct tm utc;
	size_t len;

	(void)gmtime_r(&seconds, &utc);
	len = strftime(out, out_bytes, "%Y-%m-%dT%H:%M:%S", &utc);
	(void)snprintf(out + len, out_bytes - len, ".%03uZ", (unsigned)(time_ms % 1000));
}

/* LastError as Exchange shows it (EXCHANGE 9.3). */
static void queue_set_error(struct queue *queue, const struct queue_failure *failure)
{
	const bool is_host = failure->host != NULL && failure->host[0] != '\0';
	struct span reply = span_head(failure->reply, 300);
	char when[40];

	while (reply.len > 0 && reply.data[reply.len - 1] <= ' ')
		reply.len--;
	time_print(queue->last_ms, when, sizeof(when));
	if (is_host)
		(void)snprintf(queue->error, sizeof(queue->error),
			"[{LRT=%s};{LED=451 4.4.0 Primary target IP address responded with: "
			"\"%.*s\"};{FQDN=%.80s};{IP=%s}]",
			when, (int)reply.len, (const char *)reply.data, failure->host,
			failure->ip != NULL ? failure->ip : "");
	else
		(void)snprintf(queue->error, sizeof(queue->error),
			"[{LRT=%s};{LED=%.*s};{FQDN=%.80s};{IP=}]", when, (int)reply.len,
			(const char *)reply.data, queue->domain);
	for (char *at = queue->error; *at != '\0'; at++) {
		if ((uint8_t)*at < ' ')
			*at = ' ';
	}
}

static void queue_track_failure(struct queue *queue)
{
	const struct entry *entry;

	if (!track_is_on() || list_is_empty(&queue->ready))
		return;
	entry = OWNER_OF(queue->ready.next, const struct entry, link);
	queue_track(entry->message, &(struct queue_tracked){.event = TRACK_DEFER,
					    .source = queue->kind == QUEUE_DNS ? "DNS" : "SMTP",
					    .connector = queue->connector,
					    .statuses = span_of(queue->error),
					    .recipient_count = entry->message->open_count});
}

void queue_failed(struct queues *queues, struct queue *queue, const struct queue_failure *failure)
{
	const struct queue_policy *policy = &queues->policy->queue;
	const int64_t now_ms = queues_now(queues);
	char identity[QUEUE_NAME_BYTES], text[ERROR_TEXT_BYTES];

	/* Deliveries that began before the first of them failed are not a failure each. */
	if (queue->failures > 0 && now_ms < queue->next_ms)
		return;
	queue->passing_ms = 0;
	if (queue->failures++ == 0)
		queue->failing_ms = now_ms;
	queue->window = queue->window > 1 ? queue->window / 2 : 1;
	queue->last_ms = now_ms;
	queue->next_ms = now_ms + (int64_t)ladder_wait_ms(policy, queue->failures);
	queue_set_error(queue, failure);
	slots_cancel(queues, queue);
	link_remove(&queue->in_turns);
	STAT(queue_retries);
	queue_identity(queue, identity);
	log_event(LOG_LEVEL_WARNING, NULL, "queue-retry",
		"queue=%s connector=%s messages=%lu failures=%lu stage=%s next-s=%ld error=%s",
		log_quote_text(identity, (char[400]){0}, 400), queue->connector,
		(unsigned long)queue->messages, (unsigned long)queue->failures,
		ladder_word(policy, queue->failures), (long)((queue->next_ms - now_ms) / 1000),
		log_quote_text(queue->error, text, sizeof(text)));
	queue_track_failure(queue);
	if (now_ms - queue->failing_ms >= (int64_t)policy->idle_before_resubmit_ms) {
		queue->failing_ms = now_ms;
		queue_resubmit(queues, queue, TRACK_RESUBMIT, "QUEUE");
	}
	queue_note(queues, queue);
	queue_plan(queues, queue);
}

void queue_works(struct queues *queues, struct queue *queue)
{
	char identity[QUEUE_NAME_BYTES];

	queue->passing_ms = 0;
	if (queue->failures == 0) {
		queue->window++; /* slot_start() keeps it below the connector's limit */
		return;
	}
	queue_identity(queue, identity);
	log_event(LOG_LEVEL_INFO, NULL, "queue-ready", "queue=%s connector=%s failures=%lu",
		log_quote_text(identity, (char[400]){0}, 400), queue->connector,
		(unsigned long)queue->failures);
	queue->failures = 0;
	queue->window = WINDOW_FIRST;
	queue->next_ms = 0;
	queue->error[0] = '\0';
	queue_note(queues, queue);
	queue_plan(queues, queue);
	queue_wish(queues, queue);
}

/* What is done to all its messages, a slice at a time. */

static void queue_begin_chores(struct queues *queues, struct queue *queue)
{
	queue->chores = queue->ready_count + queue->parked_count;
	if (queue->chores > 0 && !link_is_queued(&queue->in_chores))
		list_append(&queues->chores, &queue->in_chores);
	queues_kick(queues);
}

void queue_resubmit(
	struct queues *queues, struct queue *queue, enum track_event event, const char *source)
{
	queue->is_doomed = false;
	queue->chore_as = event;
	queue->chore_source = source;
	queue_begin_chores(queues, queue);
}

void queue_doom(struct queues *queues, struct queue *queue, struct span reply)
{
	while (reply.len > 0 && reply.data[reply.len - 1] <= ' ')
		reply.len--;
	(void)snprintf(
		queue->doom, sizeof(queue->doom), "%.*s", (int)reply.len, (const char *)reply.data);
	slots_cancel(queues, queue);
	link_remove(&queue->in_turns);
	queue_begin_chores(queues, queue);
	queue->is_doomed = queue->chores > 0;
}

/* The next entry that nobody holds; NULL: there is none. */
static struct entry *queue_next_chore(struct queue *queue)
{
	if (queue->chores == 0)
		return NULL;
	if (!list_is_empty(&queue->ready))
		return OWNER_OF(queue->ready.next, struct entry, link);
	if (!list_is_empty(&queue->parked))
		return OWNER_OF(queue->parked.next, struct entry, link);
	return NULL;
}

static void queue_do_chore(struct queues *queues, struct queue *queue, struct entry *entry)
{
	struct message *message = entry->message;

	queue->chores--;
	if (!queue->is_doomed) {
		if (queue->chore_source != NULL)
			queue_track(message, &(struct queue_tracked){.event = queue->chore_as,
						     .source = queue->chore_source,
						     .connector = queue->connector,
						     .recipient_count = message->open_count});
		/* Why it could go nowhere may not be so any more. */
		if (queue->kind == QUEUE_UNREACHABLE)
			message_set_error(queues, message, "");
		entry_drop(queues, entry);
		message_want(queues, message, WANT_ROUTE);
		return;
	}
	entry_hold(entry);
	job_start(queues, JOB_DOOM, message)->entry = entry;
}

bool queues_do_chores(struct queues *queues)
{
	for (unsigned done = 0; done < SLICE_CHORES; done++) {
		struct link *first = queues->chores.next;
		struct queue *queue;
		struct entry *entry;

		if (first == &queues->chores)
			return false;
		queue = OWNER_OF(first, struct queue, in_chores);
		entry = queue_next_chore(queue);
		if (entry != NULL && queue->is_doomed && !jobs_have(queues, JOB_DOOM))
			return false; /* the end of one kicks */
		link_remove(first);
		if (entry == NULL) {
			queue->chores = 0;
			queue->is_doomed = false;
			queue_wish(queues, queue);
			continue;
		}
		/* One after the other, so that a long one holds up none. */
		list_append(&queues->chores, first);
		queue_do_chore(queues, queue, entry);
	}
	return true;
}
