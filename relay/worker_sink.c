/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/worker_private.h"

/*
 * worker_sink.c: where the mail of a session goes: to a next hop while it comes in, or into the
 * queue, or to the one, and into the other if that fails. Which of them, the receive connector
 * says, and it may be another after a reload, or when the client turns out to be another.
 */

static enum worker_sink_kind worker_sink_kind(const struct receive_connector *receive)
{
	if (receive->deliver != DELIVER_QUEUE)
		return WORKER_SINK_PROXY;
	return receive->cut_through ? WORKER_SINK_THROUGH : WORKER_SINK_QUEUE;
}

static struct proxy_options worker_proxy_options(
	const struct worker_session *own, const struct worker_way *way)
{
	return (struct proxy_options){.router = way->view->router,
		.connector = way->send,
		.session = own->session.id,
		.has_queue = own->kind == WORKER_SINK_THROUGH};
}

static struct sink_queue_options worker_queue_options(
	const struct worker_session *own, const struct worker_way *way)
{
	return (struct sink_queue_options){.intake = own->worker->intake,
		.router = way->view->router,
		.policy = way->view->world->policy,
		.receive = way->receive,
		.connector = way->send,
		.session = own->session.id};
}

static void worker_through_open(struct worker_session *own, const struct proxy_options *hop,
	const struct sink_queue_options *spare)
{
	struct worker_through *through = pool_take(&own->worker->throughs);
	const struct through_options options = {.sides = &through_proxy_and_queue,
		.hop = &through->proxy.sink,
		.spare = &through->queue.sink,
		.loop = own->worker->loop,
		.session = own->session.id};

	/* There is one for each session. */
	ASSERT(through != NULL);
	own->through = through;
	own->session.sink = &through->sink.sink;
	proxy_init(&through->proxy, hop);
	sink_queue_init(&through->queue, spare);
	sink_through_init(&through->sink, &options);
}

void worker_sink_open(struct worker_session *own, const struct worker_way *way)
{
	struct proxy_options hop;
	struct sink_queue_options spare;

	own->kind = worker_sink_kind(way->receive);
	own->out_view = way->view;
	own->out_view->sessions++;
	hop = worker_proxy_options(own, way);
	spare = worker_queue_options(own, way);
	switch (own->kind) {
	case WORKER_SINK_PROXY:
		proxy_init(&own->proxy, &hop);
		own->session.sink = &own->proxy.sink;
		break;
	case WORKER_SINK_QUEUE:
		sink_queue_init(&own->queue, &spare);
		own->session.sink = &own->queue.sink;
		break;
	case WORKER_SINK_THROUGH:
		worker_through_open(own, &hop, &spare);
		break;
	}
}

void worker_sink_close(struct worker_session *own)
{
	switch (own->kind) {
	case WORKER_SINK_PROXY:
		proxy_fini(&own->proxy);
		break;
	case WORKER_SINK_QUEUE:
		sink_queue_fini(&own->queue);
		break;
	case WORKER_SINK_THROUGH:
		sink_through_fini(&own->through->sink);
		proxy_fini(&own->through->proxy);
		sink_queue_fini(&own->through->queue);
		pool_put(&own->worker->throughs, own->through);
		break;
	}
	own->out_view->sessions--;
}

/* It serves the same session, and what that was told it can carry stands. */
static void worker_sink_exchange(struct worker_session *own, const struct worker_way *way)
{
	const struct sink *old = own->session.sink;
	const struct sink kept = {.events = old->events,
		.owner = old->owner,
		.offer = old->offer,
		.offer_size = old->offer_size};

	worker_sink_close(own);
	worker_sink_open(own, way);
	own->session.sink->events = kept.events;
	own->session.sink->owner = kept.owner;
	own->session.sink->offer = kept.offer;
	own->session.sink->offer_size = kept.offer_size;
}

void worker_sink_move(struct worker_session *own, const struct worker_way *way)
{
	const struct proxy_options hop = worker_proxy_options(own, way);
	const struct sink_queue_options spare = worker_queue_options(own, way);

	if (worker_sink_kind(way->receive) != own->kind) {
		worker_sink_exchange(own, way);
		return;
	}
	switch (own->kind) {
	case WORKER_SINK_PROXY:
		proxy_move(&own->proxy, &hop);
		break;
	case WORKER_SINK_QUEUE:
		sink_queue_move(&own->queue, &spare);
		break;
	case WORKER_SINK_THROUGH:
		proxy_move(&own->through->proxy, &hop);
		sink_queue_move(&own->through->queue, &spare);
		break;
	}
	own->out_view->sessions--;
	own->out_view = way->view;
	own->out_view->sessions++;
}
