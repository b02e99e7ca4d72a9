/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/queues_private.h"

#include <errno.h>

/*
 * queues.c: start and end, and the turns in between. What can be much is done in slices, each turn
 * one of each kind; a queue that can go gets one slot, and stands behind all others then.
 */

/* However far the next moment is: the wall clock may be set meanwhile. */
#define WAKE_MS_MAX 60000

/* Turns. */

void queues_kick(struct queues *queues)
{
	if (queues->has_started && !queues->is_aborted)
		loop_task_add(queues->options.net->loop, &queues->task);
}

static void queues_take_turns(struct queues *queues)
{
	while (!list_is_empty(&queues->slots_free) && !list_is_empty(&queues->turns)) {
		struct queue *queue = OWNER_OF(list_take(&queues->turns), struct queue, in_turns);

		if (queue_may_go(queues, queue) && queue->ready_count > queue->leasing)
			slot_start(queues, queue);
		queue_wish(queues, queue);
	}
}

static void queues_set_timer(struct queues *queues, int64_t now_ms)
{
	struct loop *loop = queues->options.net->loop;
	int64_t wait_ms = WAKE_MS_MAX;
	int64_t at_ms = 0;

	if (due_first(&queues->moments, &at_ms) != NULL && at_ms - now_ms < wait_ms)
		wait_ms = at_ms - now_ms;
	if (due_first(&queues->queue_moments, &at_ms) != NULL && at_ms - now_ms < wait_ms)
		wait_ms = at_ms - now_ms;
	if (wait_ms < 0)
		wait_ms = 0;
	queues->wake_ms = now_ms + wait_ms;
	timer_set(loop_timers(loop), &queues->timer, loop_now_ms(loop) + (uint64_t)wait_ms);
}

static void queues_run(struct task *task)
{
	struct queues *queues = OWNER_OF(task, struct queues, task);
	const int64_t now_ms = queues_now(queues);
	bool has_more = false;

	slots_take_refusals(queues);
	if (!queues->is_draining) {
		has_more = messages_go_on_planning(queues);
		has_more = messages_look(queues, now_ms) || has_more;
		has_more = queues_look_at_queues(queues, now_ms) || has_more;
		has_more = queues_do_chores(queues) || has_more;
	}
	queues_do_work(queues);
	queues_take_turns(queues);
	if (queues->is_draining)
		return;
	queues_set_timer(queues, now_ms);
	if (has_more)
		queues_kick(queues);
}

static void queues_wake(struct timer *timer)
{
	struct queues *queues = OWNER_OF(timer, struct queues, timer);

	queues->wake_ms = INT64_MAX;
	queues_kick(queues);
}

void queues_look(struct queues *queues)
{
	queues_kick(queues);
}

/* Start and end. */

static int queues_create_pools(struct queues *queues)
{
	const unsigned logs = queues->options.spool_count;
	/* Logs of a start with more workers may bring as many each. */
	const uint32_t max = (uint32_t)queues->options.policy->queue.max_messages *
				     (logs > LOGS_FULL_MAX ? LOGS_FULL_MAX : logs) +
			     MESSAGES_SPARE;
	const size_t block_bytes = (RCPTS_MAX + 63) / 64 * sizeof(uint64_t);
	int rc = pool_create(&queues->messages, max, sizeof(struct message), 16);

	/* Most have one recipient; those of many domains take the places of those. */
	if (rc == 0)
		rc = pool_create(&queues->entries, max * 4, sizeof(struct entry), 16);
	if (rc == 0)
		rc = pool_create(&queues->blocks, max, block_bytes, 16);
	if (rc == 0)
		rc = pool_create(&queues->errors, max < 8192 ? max : 8192, ERROR_TEXT_BYTES, 16);
	if (rc == 0)
		rc = pool_create(&queues->queue_pool, QUEUES_MAX, sizeof(struct queue), 64);
	if (rc == 0)
		rc = due_create(&queues->moments, max);
	if (rc == 0)
		rc = due_create(&queues->queue_moments, QUEUES_MAX);
	if (rc < 0)
		return rc;
	queues->messages_used = calloc(max / 64 + 1, sizeof(uint64_t));
	queues->queues_used = calloc(QUEUES_MAX / 64 + 1, sizeof(uint64_t));
	return queues->messages_used == NULL || queues->queues_used == NULL ? -ENOMEM : 0;
}

static void queues_create_lists(struct queues *queues)
{
	link_init(&queues->work);
	link_init(&queues->turns);
	link_init(&queues->chores);
	link_init(&queues->slots_free);
	link_init(&queues->slots_refused);
	link_init(&queues->slots_waiting);
	link_init(&queues->jobs_free);
	link_init(&queues->jobs);
	for (unsigned i = 0; i < QUEUE_BUCKETS; i++)
		link_init(&queues->buckets[i]);
	task_init(&queues->task, queues_run);
	timer_init(&queues->timer, queues_wake);
	queues->wake_ms = INT64_MAX;
}

int queues_create(const struct queues_options *options, struct queues **out)
{
	struct queues *queues = calloc(1, sizeof(*queues));
	int rc;

	if (queues == NULL)
		return -ENOMEM;
	queues->options = *options;
	queues->messages_max = options->policy->queue.max_messages;
	queues_create_lists(queues);
	rc = queues_create_pools(queues);
	if (rc == 0)
		rc = slots_create(queues);
	if (rc == 0)
		rc = jobs_create(queues);
	if (rc == 0)
		rc = notice_maker_create(options->net, queues, &queues->notices);
	if (rc < 0) {
		queues_destroy(&queues);
		return rc;
	}
	*out = queues;
	return 0;
}

static void queues_forget(struct queues *queues)
{
	for (uint32_t number = 0; number < queues->messages.fresh; number++) {
		struct message *message = message_at(queues, number);

		if (message == NULL)
			continue;
		while (message->entries != NULL)
			entry_drop(queues, message->entries);
		message_free(queues, message);
	}
	for (uint32_t number = 0; number < queues->queue_pool.fresh; number++) {
		struct queue *queue = queue_at(queues, number);

		if (queue != NULL)
			queue_drop(queues, queue);
	}
}

/* Messages stay in the spool, which must not look at them any more. */
void queues_destroy(struct queues **out)
{
	struct queues *queues = *out;

	if (queues == NULL)
		return;
	*out = NULL;
	queues->is_draining = true;
	queues->is_aborted = true;
	if (queues->notices != NULL)
		notice_maker_destroy(&queues->notices);
	if (queues->queues_used != NULL && queues->messages_used != NULL)
		queues_forget(queues);
	slots_destroy(queues);
	jobs_destroy(queues);
	loop_task_cancel(&queues->task);
	timer_stop(loop_timers(queues->options.net->loop), &queues->timer);
	due_destroy(&queues->moments);
	due_destroy(&queues->queue_moments);
	pool_destroy(&queues->messages);
	pool_destroy(&queues->entries);
	pool_destroy(&queues->blocks);
	pool_destroy(&queues->errors);
	pool_destroy(&queues->queue_pool);
	free(queues->messages_used);
	free(queues->queues_used);
	free(queues);
}

/* What waits may have its way changed; what is under way finds out when it is over. */
static void queues_route_anew(struct queues *queues, bool is_changed)
{
	for (uint32_t number = 0; number < queues->queue_pool.fresh; number++) {
		struct queue *queue = queue_at(queues, number);

		if (queue == NULL)
			continue;
		queue_set_kind(queues, queue);
		queue_plan(queues, queue);
		if (is_changed || queue->kind == QUEUE_UNREACHABLE)
			queue_resubmit(queues, queue, TRACK_RESUBMIT, NULL);
		queue_wish(queues, queue);
	}
}

void queues_use(struct queues *queues, struct router *router, const struct policy *policy)
{
	const uint64_t routing = queues_routing_of(policy);
	const bool is_changed = queues->router != NULL && routing != queues->routing;
	const bool is_late_changed =
		queues->policy == NULL ||
		queues->policy->queue.delay_notification_ms != policy->queue.delay_notification_ms;

	slots_cancel(queues, NULL);
	queues->router = router;
	queues->policy = policy;
	queues->routing = routing;
	/* At the start none is planned yet; queues_start() does so. */
	if (is_late_changed && queues->has_started)
		messages_plan_again(queues);
	queues_route_anew(queues, is_changed);
	queues_kick(queues);
}

bool queues_need_router(const struct queues *queues, const struct router *router)
{
	struct link *link;
	struct link *after;

	if (queues->router == router)
		return true;
	for (unsigned i = 0; i < SLOTS; i++) {
		const struct slot *slot = pool_at(&queues->slot_pool, i);

		if (slot->router == router)
			return true;
	}
	LIST_FOR_EACH (link, after, &queues->jobs) {
		if (OWNER_OF(link, const struct job, link)->router == router)
			return true;
	}
	return false;
}

void queues_start(struct queues *queues)
{
	ASSERT(queues->policy != NULL && queues->router != NULL);
	queues->has_started = true;
	queues_move_notes(queues);
	for (uint32_t number = 0; number < queues->messages.fresh; number++) {
		struct message *message = message_at(queues, number);

		/* Those that wait by themselves are put into their queues all the same. */
		if (message == NULL || !message->is_ours)
			continue;
		if (message->open_count > 0)
			message->wants |= WANT_ROUTE;
		message_settle(queues, message);
	}
	queues_kick(queues);
}

void queues_drain(struct queues *queues)
{
	queues->is_draining = true;
	slots_cancel(queues, NULL);
	timer_stop(loop_timers(queues->options.net->loop), &queues->timer);
	queues_kick(queues);
}

void queues_abort(struct queues *queues)
{
	struct link *link;
	struct link *after;

	queues_drain(queues);
	queues->is_aborted = true;
	loop_task_cancel(&queues->task);
	slots_abort(queues);
	LIST_FOR_EACH (link, after, &queues->jobs)
		job_abort(OWNER_OF(link, struct job, link));
	notice_maker_abort(queues->notices);
	queue_look_end(queues);
}

bool queues_are_closed(const struct queues *queues)
{
	return queues->is_draining && slots_are_free(queues) && list_is_empty(&queues->jobs) &&
	       queues->look.message == NULL && notice_maker_is_idle(queues->notices);
}

void queues_submit(struct queues *queues, struct message **message, const struct envelope *envelope)
{
	struct message *own = *message;

	*message = NULL;
	own->is_ours = true;
	queues->arriving--;
	message_fill(queues, own, envelope);
	if (queues->router != NULL && queues->has_started)
		queues_route(queues, own, envelope);
	message_settle(queues, own);
}

/*
 * Queues whose next hop was not reached for want of a list, or of an answer of name servers, may
 * be tried before their time; where they are on the ladder is another matter.
 */
void queues_proof_changed(struct queues *queues)
{
	for (uint32_t number = 0; number < queues->queue_pool.fresh; number++) {
		struct queue *queue = queue_at(queues, number);

		if (queue == NULL || queue->failures == 0 || queue->messages == 0 ||
			(strstr(queue->error, "4.7.5") == NULL &&
				strstr(queue->error, "4.4.3") == NULL))
			continue;
		queue->next_ms = queues_now(queues);
		queue_plan(queues, queue);
	}
}

void queues_facts(const struct queues *queues, struct queues_facts *out)
{
	*out = (struct queues_facts){.messages = queues->messages.used - queues->arriving,
		.queues = queues->queue_pool.used,
		.bytes_each = queues->messages.object_bytes + queues->entries.object_bytes +
			      sizeof(struct due_item)};
	for (unsigned i = 0; i < SLOTS; i++) {
		const struct slot *slot = pool_at(&queues->slot_pool, i);

		out->active += slot->state == SLOT_DELIVERING;
	}
}
