/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/nexthop.h"

#include "relay/base/limits.h"
#include "relay/base/log.h"
#include "relay/base/stats.h"
#include <errno.h>

/* How long a host that failed is passed over. */
#define HOST_DOWN_MS 10000

struct nexthop_client {
	struct client client;
	struct nexthop *nexthop;
	struct link in_all;
	struct link in_idle;
	unsigned host; /* whose address is tried or used */
	unsigned hosts_tried;
	bool is_opening;
	bool was_ready; /* it got to READY at this address */
};

static struct nexthop_client *nexthop_client_of(struct client *client)
{
	return OWNER_OF(client, struct nexthop_client, client);
}

static const struct client_events nexthop_events;
static void nexthop_serve(struct task *task);

int nexthop_create(struct nexthop *nexthop, struct conn_net *net,
	const struct send_connector *connector, unsigned worker_id, char *error, size_t error_bytes)
{
	const struct tls_context_options options = {
		.settings = &connector->tls_settings, .name = connector->name};
	int rc;

	*nexthop = (struct nexthop){.net = net, .connector = connector, .worker_id = worker_id};
	link_init(&nexthop->idle);
	link_init(&nexthop->waiting);
	link_init(&nexthop->all);
	task_init(&nexthop->task, nexthop_serve);
	rc = tls_context_create(&options, &nexthop->tls_context, error, error_bytes);
	if (rc < 0)
		return rc;
	nexthop->hosts = calloc(connector->smart_host_count, sizeof(*nexthop->hosts));
	if (nexthop->hosts == NULL)
		return -ENOMEM;
	return pool_create(&nexthop->clients, (uint32_t)connector->max_connections,
		sizeof(struct nexthop_client), 64);
}

void nexthop_destroy(struct nexthop *nexthop)
{
	for (unsigned i = 0; nexthop->hosts != NULL && i < nexthop->connector->smart_host_count;
		i++)
		tls_session_drop(&nexthop->hosts[i].session);
	free(nexthop->hosts);
	nexthop->hosts = NULL;
	tls_context_destroy(&nexthop->tls_context);
	pool_destroy(&nexthop->clients);
}

void lease_init(struct lease *lease, const struct lease_events *events)
{
	link_init(&lease->link);
	lease->events = events;
}

/* Opening. */

/* The host to try: the first that is not down, or simply the first, if all are. */
static unsigned nexthop_pick_host(const struct nexthop *nexthop)
{
	uint64_t now = loop_now_ms(nexthop->net->loop);

	for (unsigned i = 0; i < nexthop->connector->smart_host_count; i++) {
		if (nexthop->hosts[i].down_until_ms <= now)
			return i;
	}
	return 0;
}

/* Begins a session with own->host, or with the next one that has a socket for us. */
static int nexthop_open_at(struct nexthop_client *own)
{
	struct nexthop *nexthop = own->nexthop;
	const struct send_connector *connector = nexthop->connector;
	char address[NAME_BYTES_MAX];
	int rc;

	own->client.events = &nexthop_events;
	own->client.owner = own;
	own->client.connector = connector;
	own->client.tls_context = &nexthop->tls_context;
	own->client.host = connector->smart_host_names[own->host];
	own->client.session_slot = &nexthop->hosts[own->host].session;
	own->was_ready = false;
	(void)snprintf(own->client.id, sizeof(own->client.id), "n%02x-%08x", nexthop->worker_id,
		nexthop->next_id++);
	rc = client_open(&own->client, nexthop->net, &connector->smart_hosts[own->host]);
	address_print(&connector->smart_hosts[own->host], address, sizeof(address));
	log_event(rc < 0 ? LOG_LEVEL_ERROR : LOG_LEVEL_DEBUG, own->client.id, "nexthop-open",
		"connector=%s address=%s%s%s", connector->name, address, rc < 0 ? " why=" : "",
		rc < 0 ? strerror(-rc) : "");
	return rc;
}

static void nexthop_free(struct nexthop_client *own)
{
	struct nexthop *nexthop = own->nexthop;

	link_remove(&own->in_all);
	link_remove(&own->in_idle);
	pool_put(&nexthop->clients, own);
	loop_task_add(nexthop->net->loop, &nexthop->task);
}

static bool nexthop_open_one(struct nexthop *nexthop)
{
	struct nexthop_client *own = pool_take(&nexthop->clients);

	if (own == NULL)
		return false;
	own->nexthop = nexthop;
	own->hosts_tried = 0;
	own->host = nexthop_pick_host(nexthop);
	link_init(&own->in_idle);
	link_init(&own->in_all);
	list_append(&nexthop->all, &own->in_all);
	if (nexthop_open_at(own) < 0) {
		link_remove(&own->in_all);
		pool_put(&nexthop->clients, own);
		return false;
	}
	own->is_opening = true;
	nexthop->opening_count++;
	return true;
}

static void nexthop_refuse_first(struct nexthop *nexthop)
{
	struct link *link = list_take(&nexthop->waiting);
	struct lease *lease;

	if (link == NULL)
		return;
	nexthop->waiting_count--;
	lease = OWNER_OF(link, struct lease, link);
	lease->events->on_refused(
		lease, span_of("451 4.4.1 The next hop could not be reached, try again later\r\n"));
}

/* Gives idle clients to those who wait, and opens as many as are still wanted. */
static void nexthop_serve(struct task *task)
{
	struct nexthop *nexthop = OWNER_OF(task, struct nexthop, task);
	struct link *link;

	while (!list_is_empty(&nexthop->idle) && (link = list_take(&nexthop->waiting)) != NULL) {
		struct lease *lease = OWNER_OF(link, struct lease, link);

		nexthop->waiting_count--;
		lease->events->on_leased(lease, nexthop_take(nexthop));
	}
	while (nexthop->opening_count < nexthop->waiting_count) {
		if (!nexthop_open_one(nexthop))
			break;
	}
	/* Whoever waited may have gone. */
	if (nexthop->is_draining)
		nexthop_drain(nexthop);
	/* Nothing is open, nothing can be opened: waiting would be for ever. */
	while (list_is_empty(&nexthop->all) && !list_is_empty(&nexthop->waiting))
		nexthop_refuse_first(nexthop);
}

void nexthop_ask(struct nexthop *nexthop, struct lease *lease)
{
	ASSERT(!link_is_queued(&lease->link));
	list_append(&nexthop->waiting, &lease->link);
	nexthop->waiting_count++;
	loop_task_add(nexthop->net->loop, &nexthop->task);
}

void nexthop_cancel(struct nexthop *nexthop, struct lease *lease)
{
	if (!link_is_queued(&lease->link))
		return;
	link_remove(&lease->link);
	nexthop->waiting_count--;
}

struct client *nexthop_take(struct nexthop *nexthop)
{
	struct link *link = list_take(&nexthop->idle);
	struct nexthop_client *own;

	if (link == NULL)
		return NULL;
	own = OWNER_OF(link, struct nexthop_client, in_idle);
	client_idle_until(&own->client, 0);
	if (own->client.message_count > 0)
		STAT(nexthop_reused);
	return &own->client;
}

/* Keeping. */

static void nexthop_log_end(const struct nexthop_client *own, const char *why)
{
	char text[160];

	log_event(LOG_LEVEL_INFO, own->client.id, "nexthop-end", "connector=%s messages=%lu why=%s",
		own->nexthop->connector->name, (unsigned long)own->client.message_count,
		log_quote_text(why, text, sizeof(text)));
}

/* May it carry another message? */
static bool nexthop_is_reusable(const struct nexthop_client *own)
{
	const struct nexthop *nexthop = own->nexthop;
	uint64_t age_ms = loop_now_ms(nexthop->net->loop) - own->client.opened_ms;

	return !nexthop->is_draining && own->client.state == CLIENT_READY &&
	       !conn_is_worn(&own->client.conn) &&
	       own->client.message_count < nexthop->connector->max_messages_per_connection &&
	       age_ms < nexthop->connector->connection_age_ms;
}

static void nexthop_keep(struct nexthop_client *own)
{
	struct nexthop *nexthop = own->nexthop;

	own->client.events = &nexthop_events;
	own->client.owner = own;
	if (!nexthop_is_reusable(own)) {
		nexthop_log_end(own, "done");
		client_quit(&own->client);
		return;
	}
	client_idle_until(&own->client,
		loop_now_ms(nexthop->net->loop) + nexthop->connector->connection_idle_ms);
	/* The one last used is used next, so that those not needed grow old and go. */
	list_append(nexthop->idle.next, &own->in_idle);
	if (!list_is_empty(&nexthop->waiting))
		loop_task_add(nexthop->net->loop, &nexthop->task);
}

void nexthop_put(struct nexthop *nexthop, struct client *client, enum nexthop_put how)
{
	struct nexthop_client *own = nexthop_client_of(client);

	client->events = &nexthop_events;
	client->owner = own;
	client->conn.is_bulk_out = false;
	client->conn.is_corked = false;
	if (client->state != CLIENT_READY)
		return; /* it ends by itself */
	switch (how) {
	case NEXTHOP_PUT_ABORT:
		nexthop_log_end(own, "aborted");
		client_abort(client);
		return;
	case NEXTHOP_PUT_RESET:
		client_command(client, span_of("RSET\r\n"));
		client_flush(client);
		break;
	case NEXTHOP_PUT_FINISH:
	case NEXTHOP_PUT_CLEAN:
		break;
	}
	if (client->owed == 0 && client->state == CLIENT_READY)
		nexthop_keep(own);
	(void)nexthop;
}

static void nexthop_on_ready(struct client *client)
{
	struct nexthop_client *own = nexthop_client_of(client);
	struct nexthop *nexthop = own->nexthop;

	own->is_opening = false;
	own->was_ready = true;
	nexthop->opening_count--;
	nexthop->hosts[own->host].down_until_ms = 0;
	nexthop->offer = client->offer;
	nexthop->has_offer = true;
	log_event(LOG_LEVEL_INFO, client->id, "nexthop-ready", "connector=%s host=%s tls=%s",
		nexthop->connector->name, client->host, client->is_secured ? "yes" : "no");
	if (list_is_empty(&nexthop->waiting)) {
		nexthop_keep(own);
		return;
	}
	/* Opened for somebody who waits: reuse is judged when it comes back. */
	list_append(nexthop->idle.next, &own->in_idle);
	loop_task_add(nexthop->net->loop, &nexthop->task);
}

static void nexthop_mark_down(struct nexthop_client *own, const char *why)
{
	struct nexthop *nexthop = own->nexthop;
	char text[224];

	STAT(nexthop_connect_failed);
	nexthop->hosts[own->host].down_until_ms = loop_now_ms(nexthop->net->loop) + HOST_DOWN_MS;
	log_event(LOG_LEVEL_WARNING, own->client.id, "nexthop-failed",
		"connector=%s host=%s why=%s", nexthop->connector->name, own->client.host,
		log_quote_text(why, text, sizeof(text)));
}

static void nexthop_on_failed(struct client *client, const char *why)
{
	nexthop_mark_down(nexthop_client_of(client), why);
}

/* Replies that are owed to a transaction nobody waits for any more. */
static void nexthop_on_reply(struct client *client, const struct reply *reply)
{
	(void)reply;
	if (client->owed == 0)
		nexthop_keep(nexthop_client_of(client));
}

static void nexthop_on_drained(struct client *client)
{
	(void)client;
}

void nexthop_lost(struct nexthop *nexthop, struct client *client, const char *why)
{
	struct nexthop_client *own = nexthop_client_of(client);

	(void)nexthop;
	client->events = &nexthop_events;
	client->owner = own;
	nexthop_log_end(own, why);
}

static void nexthop_on_lost(struct client *client, const char *why)
{
	struct nexthop_client *own = nexthop_client_of(client);

	link_remove(&own->in_idle);
	nexthop_log_end(own, why);
}

/* After a failure the same client tries the next address; when all have failed, one waiter hears of
 * it. */
static void nexthop_on_closed(struct client *client)
{
	struct nexthop_client *own = nexthop_client_of(client);
	struct nexthop *nexthop = own->nexthop;
	unsigned count = nexthop->connector->smart_host_count;

	while (own->is_opening && !nexthop->is_draining && ++own->hosts_tried < count) {
		own->host = (own->host + 1) % count;
		if (nexthop_open_at(own) == 0)
			return;
		nexthop_mark_down(own, "no-socket");
	}
	if (own->is_opening) {
		nexthop->opening_count--;
		nexthop_refuse_first(nexthop);
	}
	nexthop_free(own);
}

static const struct client_events nexthop_events = {
	.on_ready = nexthop_on_ready,
	.on_failed = nexthop_on_failed,
	.on_reply = nexthop_on_reply,
	.on_drained = nexthop_on_drained,
	.on_lost = nexthop_on_lost,
	.on_closed = nexthop_on_closed,
};

/* Ending. */

void nexthop_drain(struct nexthop *nexthop)
{
	struct link *link;

	nexthop->is_draining = true;
	while ((link = list_take(&nexthop->idle)) != NULL) {
		struct nexthop_client *own = OWNER_OF(link, struct nexthop_client, in_idle);

		nexthop_log_end(own, "drained");
		client_quit(&own->client);
	}
}

void nexthop_abort(struct nexthop *nexthop)
{
	struct link *link;
	struct link *after;

	nexthop->is_draining = true;
	LIST_FOR_EACH (link, after, &nexthop->all)
		client_abort(&OWNER_OF(link, struct nexthop_client, in_all)->client);
}

bool nexthop_is_closed(const struct nexthop *nexthop)
{
	return list_is_empty(&nexthop->all);
}
