/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/worker_private.h"
#include <errno.h>
#include <stdlib.h>

/*
 * worker_change.c: from one world to the next. What may fail is done by the keeper's
 * thread beforehand; what is left for the worker is to start, to close, and to let
 * go of what nobody uses any more.
 */

/* Changes. */

int worker_create_listeners(
	struct worker *worker, const struct world *world, FILE *errors, struct link *out)
{
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < world->binding_count; i++) {
		const struct world_binding *binding = &world->bindings[i];
		struct worker_listener *own = NULL;

		if (!binding->is_open || !binding->is_new)
			continue;
		own = calloc(1, sizeof(*own));
		if (own == NULL)
			return -ENOMEM;
		link_init(&own->link);
		own->listener.owner = worker;
		own->listener.on_accept = worker_on_accept;
		list_append(out, &own->link);
		rc = listener_create(&own->listener, binding->address);
		if (rc < 0)
			world_complain_binding(binding, rc, errors);
	}
	return rc;
}

int worker_change_create(
	struct worker *worker, struct world *world, FILE *errors, struct worker_change **out)
{
	struct worker_change *change = calloc(1, sizeof(*change));
	int rc;

	if (change == NULL)
		return -ENOMEM;
	link_init(&change->link);
	link_init(&change->listeners);
	rc = worker_create_listeners(worker, world, errors, &change->listeners);
	if (rc == 0)
		rc = view_create(world, &worker->net, worker->index, errors, &change->view);
	if (rc < 0)
		worker_change_destroy(&change);
	else
		*out = change;
	return rc;
}

void worker_adopt(struct worker *worker, struct worker_change **change)
{
	(void)pthread_mutex_lock(&worker->change_lock);
	list_append(&worker->changes, &(*change)->link);
	worker->adopting.asked++;
	(void)pthread_mutex_unlock(&worker->change_lock);
	*change = NULL;
	worker_wake(worker, WORKER_WAKE_CHANGE);
}

static void worker_free_listener(struct worker_listener *own)
{
	link_remove(&own->link);
	listener_destroy(&own->listener);
	free(own);
}

void worker_free_listeners(struct link *listeners)
{
	struct link *link;
	struct link *after;

	LIST_FOR_EACH (link, after, listeners)
		worker_free_listener(OWNER_OF(link, struct worker_listener, link));
}

void worker_change_destroy(struct worker_change **out)
{
	struct worker_change *change = *out;

	*out = NULL;
	if (change == NULL)
		return;
	worker_free_listeners(&change->listeners);
	view_destroy(&change->view);
	free(change);
}

void worker_use_view(struct worker *worker, struct view *view)
{
	worker->view = view;
	worker->world.policy = view->world->policy;
	worker->world.trusts = view->world->trusts;
	list_append(&worker->views, &view->link);
}

static bool world_listens(const struct world *world, const struct address *address)
{
	for (unsigned i = 0; i < world->binding_count; i++)
		if (world->bindings[i].is_open &&
			address_is_equal(world->bindings[i].address, address))
			return true;
	return false;
}

/* The sockets that the view in force wants go on; the others are closed. */
static void worker_sort_listeners(struct worker *worker)
{
	struct link *link;
	struct link *after;

	LIST_FOR_EACH (link, after, &worker->listeners) {
		struct listener *listener = &OWNER_OF(link, struct worker_listener, link)->listener;

		if (!listener->is_closing &&
			!world_listens(worker->view->world, &listener->address))
			listener_close(listener);
	}
}

static void worker_adopt_now(struct worker *worker, struct worker_change *change)
{
	struct view *old = worker->view;
	struct link *link;

	worker_use_view(worker, change->view);
	if (view_open(change->view) < 0)
		log_event(LOG_LEVEL_ERROR, NULL, "reload", "worker=%u result=failed why=resolver",
			worker->index);
	change->view = NULL;
	worker_use_queue(worker);
	worker_sort_listeners(worker);
	while ((link = list_take(&change->listeners)) != NULL) {
		struct worker_listener *own = OWNER_OF(link, struct worker_listener, link);

		list_append(&worker->listeners, &own->link);
		if (!worker->is_draining)
			listener_start(&own->listener, worker->loop);
		else
			listener_close(&own->listener);
	}
	view_retire(old);
	worker_change_destroy(&change);
}

/* One of a kind is under way at a time. */
void worker_duty_done(struct worker *worker, struct worker_duty *duty)
{
	(void)pthread_mutex_lock(&worker->change_lock);
	duty->done++;
	(void)pthread_cond_broadcast(&worker->progress);
	(void)pthread_mutex_unlock(&worker->change_lock);
}

void worker_await_duty(struct worker *worker, const struct worker_duty *duty)
{
	(void)pthread_mutex_lock(&worker->change_lock);
	while (duty->done < duty->asked && !worker->has_ended)
		(void)pthread_cond_wait(&worker->progress, &worker->change_lock);
	(void)pthread_mutex_unlock(&worker->change_lock);
}

void worker_adopt_all(struct worker *worker)
{
	struct link *link;

	do {
		(void)pthread_mutex_lock(&worker->change_lock);
		link = list_take(&worker->changes);
		(void)pthread_mutex_unlock(&worker->change_lock);
		if (link != NULL)
			worker_adopt_now(worker, OWNER_OF(link, struct worker_change, link));
		if (link != NULL)
			worker_duty_done(worker, &worker->adopting);
	} while (link != NULL);
}

void worker_await_adopted(struct worker *worker)
{
	worker_await_duty(worker, &worker->adopting);
}

void worker_end_unserved(struct worker *worker)
{
	(void)pthread_mutex_lock(&worker->change_lock);
	worker->ending_unserved.asked++;
	worker->ended_unserved = 0;
	(void)pthread_mutex_unlock(&worker->change_lock);
	worker_wake(worker, WORKER_WAKE_UNSERVED);
}

uint64_t worker_await_unserved(struct worker *worker)
{
	worker_await_duty(worker, &worker->ending_unserved);
	return worker->ended_unserved;
}

void worker_do_end_unserved(struct worker *worker)
{
	struct link *link;
	struct link *after;

	if (worker->unserved_left == 0)
		LIST_FOR_EACH (link, after, &worker->open_sessions)
			worker->unserved_left++;
	worker->ended_unserved += worker_drain_unserved(worker);
	if (worker->unserved_left > 0)
		worker_wake(worker, WORKER_WAKE_UNSERVED);
	else
		worker_duty_done(worker, &worker->ending_unserved);
}

void worker_tell_end(struct worker *worker)
{
	(void)pthread_mutex_lock(&worker->change_lock);
	worker->has_ended = true;
	(void)pthread_cond_broadcast(&worker->progress);
	(void)pthread_mutex_unlock(&worker->change_lock);
}

void worker_sweep(struct worker *worker)
{
	struct link *link;
	struct link *after;

	LIST_FOR_EACH (link, after, &worker->views) {
		struct view *view = OWNER_OF(link, struct view, link);

		if (view_is_done(view) && !worker_queue_needs(worker, view))
			view_destroy(&view);
	}
	LIST_FOR_EACH (link, after, &worker->listeners) {
		struct worker_listener *own = OWNER_OF(link, struct worker_listener, link);

		if (listener_is_closed(&own->listener))
			worker_free_listener(own);
	}
}
