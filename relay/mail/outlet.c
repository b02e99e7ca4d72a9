/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/log.h"
#include "relay/mail/nexthop_client.h"

/*
 * outlet.c: what all destinations of a send connector share: its clients, whoever has them.
 */

void nexthop_log_end(const struct nexthop_client *own, const char *why)
{
	char text[160];

	log_event(LOG_LEVEL_INFO, own->client.id, "nexthop-end", "connector=%s messages=%lu why=%s",
		own->client.connector->name, (unsigned long)own->client.message_count,
		log_quote_text(why, text, sizeof(text)));
}

void nexthop_unidle(struct nexthop_client *own)
{
	link_remove(&own->in_idle);
	link_remove(&own->in_waiting);
}

bool nexthop_is_reusable(const struct nexthop_client *own)
{
	const struct outlet *outlet = own->nexthop->outlet;
	uint64_t age_ms = loop_now_ms(outlet->net->loop) - own->client.opened_ms;

	if (nexthop_is_personal(own->nexthop) && own->principal == NULL)
		return false;
	return !outlet->is_draining && own->client.state == CLIENT_READY &&
	       !conn_is_worn(&own->client.conn) &&
	       own->client.message_count < outlet->connector->max_messages_per_connection &&
	       age_ms < outlet->connector->connection_age_ms;
}

bool nexthop_may_go_on(struct client *client)
{
	return nexthop_is_reusable(nexthop_client_of(client)) && client->owed == 0 &&
	       client_is_still_proved(client);
}

const struct address *nexthop_address(struct client *client)
{
	return &nexthop_client_of(client)->address;
}

int outlet_create(struct outlet *outlet, const struct send_connector *connector,
	const struct trust *trust, char *error, size_t error_bytes)
{
	int rc;

	outlet->connector = connector;
	link_init(&outlet->all);
	link_init(&outlet->idle);
	link_init(&outlet->starved);
	rc = tls_context_create_send(connector, trust, &outlet->tls_context, error, error_bytes);
	if (rc < 0)
		return rc;
	return pool_create(&outlet->clients, (uint32_t)connector->max_connections,
		sizeof(struct nexthop_client), 64);
}

void outlet_destroy(struct outlet *outlet)
{
	tls_context_destroy(&outlet->tls_context);
	pool_destroy(&outlet->clients);
}

void outlet_wake(struct outlet *outlet)
{
	struct link *first = outlet->starved.next;

	if (first == &outlet->starved || outlet->clients.used == outlet->clients.count)
		return;
	link_remove(first);
	loop_task_add(outlet->net->loop, &OWNER_OF(first, struct nexthop, in_starved)->task);
}

bool outlet_end_idle(struct outlet *outlet, const char *why)
{
	struct link *link;
	struct link *after;

	LIST_FOR_EACH (link, after, &outlet->idle) {
		struct nexthop_client *own = OWNER_OF(link, struct nexthop_client, in_waiting);

		/* It is about to be given to somebody who waits for it. */
		if (nexthop_is_wanted(own) && !outlet->is_draining)
			continue;
		nexthop_unidle(own);
		nexthop_log_end(own, why);
		client_quit(&own->client);
		return true;
	}
	return false;
}

void outlet_drain(struct outlet *outlet)
{
	outlet->is_draining = true;
	while (outlet_end_idle(outlet, "drained"))
		;
}

void outlet_abort(struct outlet *outlet)
{
	struct link *link;
	struct link *after;

	outlet->is_draining = true;
	LIST_FOR_EACH (link, after, &outlet->all)
		client_abort(&OWNER_OF(link, struct nexthop_client, in_all)->client);
}

bool outlet_is_closed(const struct outlet *outlet)
{
	return list_is_empty(&outlet->all);
}

void outlet_proof_changed(struct outlet *outlet)
{
	struct link *link;
	struct link *after;

	LIST_FOR_EACH (link, after, &outlet->all)
		client_proof_changed(&OWNER_OF(link, struct nexthop_client, in_all)->client);
}
