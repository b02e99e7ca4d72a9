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
		char text[64];

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
		if (rc == 0)
			continue;
		address_print(binding->address, text, sizeof(text));
		(void)fprintf(errors, "receive-connector \"%s\": cannot listen on %s: %s\n",
			binding->connector, text, strerror(-rc));
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
	(void)pthread_mutex_unlock(&worker->change_lock);
	*change = NULL;
	worker_wake(worker, WORKER_WAKE_CHANGE);
}

void worker_free_listeners(struct link *listeners)
{
	struct link *link;

	while ((link = list_take(listeners)) != NULL) {
		struct worker_listener *own = OWNER_OF(link, struct worker_listener, link);

		listener_destroy(&own->listener);
		free(own);
	}
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

/* The sockets that the view in force wants go on; the others are closed. */
static void worker_sort_listeners(struct worker *worker)
{
	const struct world *world = worker->view->world;
	struct link *link;
	struct link *after;

	LIST_FOR_EACH (link, after, &worker->listeners) {
		struct worker_listener *own = OWNER_OF(link, struct worker_listener, link);

		own->is_wanted = false;
		for (unsigned i = 0; i < world->binding_count && !own->is_wanted; i++)
			own->is_wanted = world->bindings[i].is_open && !own->listener.is_closing &&
					 address_is_equal(world->bindings[i].address,
						 &own->listener.address);
		if (!own->is_wanted && !own->listener.is_closing)
			listener_close(&own->listener);
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

void worker_adopt_all(struct worker *worker)
{
	struct link *link;

	do {
		(void)pthread_mutex_lock(&worker->change_lock);
		link = list_take(&worker->changes);
		(void)pthread_mutex_unlock(&worker->change_lock);
		if (link != NULL)
			worker_adopt_now(worker, OWNER_OF(link, struct worker_change, link));
	} while (link != NULL);
}

void worker_sweep(struct worker *worker)
{
	struct link *link;
	struct link *after;

	LIST_FOR_EACH (link, after, &worker->views) {
		struct view *view = OWNER_OF(link, struct view, link);

		if (view_is_done(view))
			view_destroy(&view);
	}
	LIST_FOR_EACH (link, after, &worker->listeners) {
		struct worker_listener *own = OWNER_OF(link, struct worker_listener, link);

		if (!listener_is_closed(&own->listener))
			continue;
		link_remove(&own->link);
		listener_destroy(&own->listener);
		free(own);
	}
}
