/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/worker_private.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/*
 * worker_queue.c: the spool and the queues of a worker: how they begin, what others ask of them,
 * and in which order they end.
 *
 *   sessions end --> messages that they brought are safe --> deliveries end --> the spool is closed
 */

static int64_t worker_wall_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Its own log comes first, and those of a start with more workers behind it. */
static int worker_open_spools(struct worker *worker)
{
	const unsigned step = worker->shared->worker_count;
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < worker->spool_count; i++) {
		const struct spool_options options = {.loop = worker->loop,
			.folder = worker->shared->spool_folder,
			.log = worker->index + i * step,
			.events = &queues_spool_events,
			.owner = worker->queues};

		queues_replay_log(worker->queues, i);
		rc = spool_create(&options, &queues_replay, worker->queues, &worker->spools[i]);
		if (rc < 0)
			log_event(LOG_LEVEL_ERROR, NULL, "stop", "worker=%u log=%u why=\"%s\"",
				worker->index, options.log,
				rc == -ENOBUFS ? "more messages are in the spool than "
						 "queue-max-messages allows for"
					       : strerror(-rc));
	}
	return rc;
}

int worker_create_queue(struct worker *worker)
{
	const unsigned step = worker->shared->worker_count;
	const struct policy *policy = worker->view->world->policy;
	struct queues_options options = {.net = &worker->net,
		.worker_id = worker->index,
		.policy = policy,
		.now_ms = worker_wall_ms};
	struct intake_options intake = {.loop = worker->loop,
		.sessions_max = (uint32_t)policy->max_sessions,
		.now_ms = worker_wall_ms};
	unsigned logs;
	int rc;

	if (worker->shared->spool_folder == NULL)
		return 0;
	logs = spool_folder_logs(worker->shared->spool_folder);
	ASSERT(logs > worker->index);
	worker->spool_count = (logs - worker->index + step - 1) / step;
	worker->spools = calloc(worker->spool_count, sizeof(*worker->spools));
	if (worker->spools == NULL)
		return -ENOMEM;
	options.spools = worker->spools;
	options.spool_count = worker->spool_count;
	rc = queues_create(&options, &worker->queues);
	if (rc == 0)
		rc = worker_open_spools(worker);
	if (rc < 0)
		return rc;
	intake.spool = worker->spools[0];
	intake.queues = worker->queues;
	rc = intake_create(&intake, &worker->intake);
	if (rc < 0)
		return rc;
	return pool_create(
		&worker->throughs, intake.sessions_max, sizeof(struct worker_through), 64);
}

void worker_start_queue(struct worker *worker)
{
	if (worker->queues == NULL)
		return;
	worker_use_queue(worker);
	queues_start(worker->queues);
}

void worker_use_queue(struct worker *worker)
{
	if (worker->queues != NULL)
		queues_use(worker->queues, worker->view->router, worker->view->world->policy);
}

bool worker_queue_needs(const struct worker *worker, const struct view *view)
{
	return worker->queues != NULL && queues_need_router(worker->queues, view->router);
}

/* The end. */

void worker_drain_queue(struct worker *worker)
{
	if (worker->queues != NULL)
		queues_drain(worker->queues);
}

void worker_abort_queue(struct worker *worker)
{
	if (worker->queues != NULL)
		queues_abort(worker->queues);
}

/* Nobody writes or reads any more: what is left in the spools goes out. */
void worker_close_spools(struct worker *worker)
{
	if (worker->queues == NULL || !worker->is_draining || worker->has_drained_spools ||
		!list_is_empty(&worker->open_sessions) || !intake_is_idle(worker->intake) ||
		!queues_are_closed(worker->queues))
		return;
	worker->has_drained_spools = true;
	for (unsigned i = 0; i < worker->spool_count; i++)
		spool_drain(worker->spools[i]);
}

bool worker_queue_is_done(const struct worker *worker)
{
	if (worker->queues == NULL)
		return true;
	if (!worker->has_drained_spools)
		return false;
	for (unsigned i = 0; i < worker->spool_count; i++)
		if (!spool_is_closed(worker->spools[i]))
			return false;
	return true;
}

void worker_destroy_queue(struct worker *worker)
{
	pool_destroy(&worker->throughs);
	intake_destroy(&worker->intake);
	queues_destroy(&worker->queues);
	for (unsigned i = 0; i < worker->spool_count && worker->spools != NULL; i++)
		spool_destroy(&worker->spools[i]);
	free(worker->spools);
}

/* What others ask. */

void worker_ask(struct worker *worker, struct queue_ask *ask)
{
	ask->is_done = false;
	link_init(&ask->link);
	(void)pthread_mutex_lock(&worker->change_lock);
	list_append(&worker->asks, &ask->link);
	worker->asking.asked++;
	(void)pthread_mutex_unlock(&worker->change_lock);
	worker_wake(worker, WORKER_WAKE_ASK);
}

bool worker_await_answer(struct worker *worker, struct queue_ask *ask)
{
	worker_await_duty(worker, &worker->asking);
	(void)pthread_mutex_lock(&worker->change_lock);
	/* Of a worker that has ended nobody takes it any more. */
	link_remove(&ask->link);
	(void)pthread_mutex_unlock(&worker->change_lock);
	return ask->is_done;
}

static struct queue_ask *worker_first_ask(struct worker *worker)
{
	struct link *first;

	(void)pthread_mutex_lock(&worker->change_lock);
	first = list_is_empty(&worker->asks) ? NULL : worker->asks.next;
	(void)pthread_mutex_unlock(&worker->change_lock);
	return first == NULL ? NULL : OWNER_OF(first, struct queue_ask, link);
}

/* A part of the first of them; the rest in the next turns, so that others are served meanwhile. */
void worker_do_ask(struct worker *worker)
{
	struct queue_ask *ask = worker_first_ask(worker);

	if (ask == NULL)
		return;
	if (worker->queues != NULL)
		queue_ask_run(worker->queues, ask);
	else
		ask->is_done = true;
	if (ask->is_done) {
		(void)pthread_mutex_lock(&worker->change_lock);
		link_remove(&ask->link);
		(void)pthread_mutex_unlock(&worker->change_lock);
		/* No return from here: it is the asker's again. */
		worker_duty_done(worker, &worker->asking);
	}
	worker_wake(worker, WORKER_WAKE_ASK);
}
