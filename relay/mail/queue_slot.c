/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/queues_private.h"

#include "relay/base/stats.h"

/*
 * queue_slot.c: the deliveries of a worker: a slot for each, that a queue gets when its turn comes.
 *
 * A slot keeps its session for the queue's next message, unless others wait for a slot and there is
 * none, the session has carried enough, or a configuration has come that it does not belong to.
 */

/* The legal successors of each state. */
static const uint8_t slot_next[SLOT_STATE_COUNT] = {
	[SLOT_FREE] = BIT(SLOT_LEASING) | BIT(SLOT_DELIVERING),
	[SLOT_LEASING] = BIT(SLOT_DELIVERING) | BIT(SLOT_FREE),
	[SLOT_DELIVERING] = BIT(SLOT_DELIVERING) | BIT(SLOT_SETTLING) | BIT(SLOT_FREE),
	[SLOT_SETTLING] = BIT(SLOT_FREE),
};

void slot_enter(struct slot *slot, enum slot_state state)
{
	ASSERT(slot_next[slot->state] & BIT(state));
	slot->state = state;
}

/* Sessions of the queue speak for us: where a next hop wants to hear of a client, there is none. */
static void slot_identify(struct principal *principal, struct identity *out)
{
	(void)principal;
	*out = (struct identity){0};
}

int slots_create(struct queues *queues)
{
	int rc = pool_create(&queues->slot_pool, SLOTS, sizeof(struct slot), 64);

	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < SLOTS; i++) {
		struct slot *slot = pool_take(&queues->slot_pool);

		/* All but its large buffers, which are not touched before they are used. */
		memset(slot, 0, offsetof(struct slot, picked));
		slot->queues = queues;
		link_init(&slot->link);
		principal_init(&slot->principal, slot_identify);
		lease_init(&slot->lease, &slot_lease_events, &slot->principal);
		delivery_init(&slot->delivery);
		slot->delivery.events = &slot_delivery_events;
		slot->delivery.owner = slot;
		list_append(&queues->slots_free, &slot->link);
	}
	return 0;
}

void slots_destroy(struct queues *queues)
{
	struct link *link;

	if (queues->slot_pool.memory == NULL)
		return;
	while ((link = list_take(&queues->slots_free)) != NULL) {
		struct slot *slot = OWNER_OF(link, struct slot, link);

		principal_end(&slot->principal);
		pool_put(&queues->slot_pool, slot);
	}
	pool_destroy(&queues->slot_pool);
}

bool slots_are_free(const struct queues *queues)
{
	unsigned count = 0;
	struct link *link;
	struct link *after;

	LIST_FOR_EACH (link, after, &queues->slots_free)
		count++;
	return count == SLOTS;
}

static struct slot *slot_at(const struct queues *queues, unsigned index)
{
	return pool_at(&queues->slot_pool, index);
}

void slot_let_go(struct slot *slot, enum nexthop_put how)
{
	struct queues *queues = slot->queues;
	struct queue *queue = slot->queue;

	link_remove(&slot->link);
	if (slot->state == SLOT_LEASING) {
		nexthop_cancel(slot->nexthop, &slot->lease);
		queue->leasing--;
	}
	if (slot->client != NULL)
		nexthop_put(slot->client, how);
	slot->client = NULL;
	if (slot->nexthop != NULL)
		nexthop_release(slot->nexthop);
	slot->nexthop = NULL;
	slot->router = NULL;
	slot->queue = NULL;
	slot_enter(slot, SLOT_FREE);
	list_append(&queues->slots_free, &slot->link);
	if (queue != NULL)
		queue_wish(queues, queue);
	queues_kick(queues);
}

/* Of "mx.adatum.test:25" the name; nothing of an address, which is said by itself. */
static size_t host_name_bytes(const char *host, const char *ip)
{
	const size_t len = strcspn(host, ":");

	return host[0] == '[' || (strlen(ip) == len && strncmp(host, ip, len) == 0) ? 0 : len;
}

/* Who it is that takes the messages, for logs and notices: "mx.adatum.test[192.0.2.1]:25". */
static void slot_note_remote(struct slot *slot)
{
	const struct address *address = nexthop_address(slot->client);
	char text[ADDRESS_TEXT_BYTES + 16];
	size_t len;

	address_print(address, text, sizeof(text));
	/* "192.0.2.1:25" or "[2001:db8::1]:25": without the port. */
	len = (size_t)(strrchr(text, ':') - text);
	(void)snprintf(slot->remote_ip, sizeof(slot->remote_ip), "%.*s",
		(int)(text[0] == '[' ? len - 2 : len), text[0] == '[' ? text + 1 : text);
	(void)snprintf(slot->remote, sizeof(slot->remote), "%.*s[%s]:%u",
		(int)host_name_bytes(slot->client->host, slot->remote_ip), slot->client->host,
		slot->remote_ip, address_port(address));
}

/* The session is there: for the queue's first message, if it still may go. */
static void slot_begin(struct slot *slot, struct client *client)
{
	struct queues *queues = slot->queues;
	struct queue *queue = slot->queue;
	const bool is_other = slot->client != client;
	struct entry *entry;

	slot->client = client;
	if (list_is_empty(&queue->ready) || !queue_may_go(queues, queue)) {
		slot_let_go(slot, NEXTHOP_PUT_CLEAN);
		return;
	}
	entry = OWNER_OF(queue->ready.next, struct entry, link);
	entry_hold(entry);
	slot->entry = entry;
	slot->message = entry->message;
	message_hold(slot->message);
	queue->active++;
	slot_enter(slot, SLOT_DELIVERING);
	slot->was_used = client->message_count > 0;
	slot->picked_count = 0;
	slot->result_count = 0;
	if (is_other)
		slot_note_remote(slot);
	STAT(queue_attempts);
	slot->delivery.client = client;
	slot->delivery.is_trusted = client->connector->trusted_next_hop;
	delivery_start(&slot->delivery, message_log(queues, slot->message), &slot->message->spool);
}

/* The queue's destination, held. NULL: not now, and the queue has been told. */
static struct nexthop *slot_enter_nexthop(struct queues *queues, struct queue *queue)
{
	const struct send_connector *connector =
		policy_send_connector(queues->policy, queue->connector);
	char reply[ROUTER_REPLY_BYTES] = "451 4.4.4 The policy sends this mail elsewhere now";
	struct nexthop *nexthop = NULL;
	struct router_way way;
	bool is_there;

	is_there = connector != NULL &&
		   router_way_of(queues->router, connector, queue->domain, queue->is_secured, &way);
	if (is_there)
		nexthop = router_enter(queues->router, &way, reply);
	if (nexthop == NULL)
		queue_failed(queues, queue, &(struct queue_failure){.reply = span_of(reply)});
	if (!is_there)
		queue_resubmit(queues, queue, TRACK_RESUBMIT, "QUEUE");
	if (nexthop != NULL && queue->window > connector->max_deliveries)
		queue->window =
			connector->max_deliveries > 0 ? (unsigned)connector->max_deliveries : 1;
	return nexthop;
}

void slot_start(struct queues *queues, struct queue *queue)
{
	struct nexthop *nexthop = slot_enter_nexthop(queues, queue);
	struct link *link = nexthop != NULL ? list_take(&queues->slots_free) : NULL;
	struct client *client;
	struct slot *slot;

	if (link == NULL)
		return;
	slot = OWNER_OF(link, struct slot, link);
	slot->queue = queue;
	slot->router = queues->router;
	slot->nexthop = nexthop;
	slot->is_refused = false;
	client = nexthop_take(nexthop, &slot->principal);
	if (client != NULL) {
		slot_begin(slot, client);
		return;
	}
	slot_enter(slot, SLOT_LEASING);
	queue->leasing++;
	nexthop_ask(nexthop, &slot->lease);
}

void slot_go_on(struct slot *slot, bool is_usable)
{
	struct queues *queues = slot->queues;
	struct queue *queue = slot->queue;
	const bool is_needed = !list_is_empty(&queues->turns) && list_is_empty(&queues->slots_free);
	const unsigned limit = queue->failures > 0 ? 1 : queue->window;

	if (!is_usable) {
		if (slot->delivery.lost != NULL) {
			nexthop_lost(slot->client, slot->delivery.lost);
			slot->client = NULL;
		}
		slot_let_go(slot, NEXTHOP_PUT_ABORT);
		return;
	}
	if (is_needed || slot->router != queues->router ||
		queue->active + queue->leasing >= limit || list_is_empty(&queue->ready) ||
		!nexthop_may_go_on(slot->client)) {
		slot_let_go(slot, NEXTHOP_PUT_CLEAN);
		return;
	}
	slot_begin(slot, slot->client);
}

/* The lease's events. */

static void slot_on_leased(struct lease *lease, struct client *client)
{
	struct slot *slot = OWNER_OF(lease, struct slot, lease);

	slot->queue->leasing--;
	/* From here on it counts as one that delivers; without work it is free at once. */
	slot_enter(slot, SLOT_DELIVERING);
	slot_begin(slot, client);
}

/*
 * What follows may end other wishes for the same destination, whose list is being gone through: so
 * it is done in the next turn.
 */
static void slot_on_refused(struct lease *lease, struct span reply)
{
	struct slot *slot = OWNER_OF(lease, struct slot, lease);

	slot->is_refused = true;
	(void)snprintf(slot->refusal, sizeof(slot->refusal), "%.*s", (int)reply.len,
		(const char *)reply.data);
	list_append(&slot->queues->slots_refused, &slot->link);
	queues_kick(slot->queues);
}

const struct lease_events slot_lease_events = {
	.on_leased = slot_on_leased,
	.on_refused = slot_on_refused,
};

static void slot_take_refusal(struct slot *slot)
{
	struct queues *queues = slot->queues;
	struct queue *queue = slot->queue;
	const struct nexthop *nexthop = slot->nexthop;
	char name[NAME_BYTES_MAX], ip[ADDRESS_TEXT_BYTES + 16] = "";
	const struct queue_failure failure = {
		.reply = span_of(slot->refusal), .host = name, .ip = ip};

	(void)snprintf(name, sizeof(name), "%s", nexthop->failed_name);
	if (name[0] != '\0')
		address_print(&nexthop->failed_address, ip, sizeof(ip));
	slot_let_go(slot, NEXTHOP_PUT_CLEAN);
	/* Only name servers can tell that a domain takes no mail, ever; a host's refusal is its
	 * own, and others, or it another day, may think better of it. */
	if (slot->refusal[0] == '5' && name[0] == '\0')
		queue_doom(queues, queue, failure.reply);
	else
		queue_failed(queues, queue, &failure);
}

void slots_take_refusals(struct queues *queues)
{
	struct link *link;

	while ((link = list_take(&queues->slots_refused)) != NULL)
		slot_take_refusal(OWNER_OF(link, struct slot, link));
}

/* The end. */

void slots_cancel(struct queues *queues, const struct queue *queue)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		struct slot *slot = slot_at(queues, i);

		if (slot->state == SLOT_LEASING && (queue == NULL || slot->queue == queue))
			slot_let_go(slot, NEXTHOP_PUT_CLEAN);
	}
}

/* What was not recorded is open again. */
static void slot_abort(struct slot *slot)
{
	struct queues *queues = slot->queues;
	struct message *message = slot->message;

	if (slot->state == SLOT_DELIVERING) {
		delivery_abort(&slot->delivery);
		slot->queue->active--;
		entry_line_up(queues, slot->entry, 0, true);
	} else if (slot->state != SLOT_SETTLING) {
		return;
	}
	for (uint32_t i = 0; i < slot->result_count; i++) {
		if (slot->results[i].verdict == DELIVERY_FAILED)
			message_set_open(message, slot->results[i].index, true);
	}
	slot->entry = NULL;
	slot->message = NULL;
	slot_let_go(slot, NEXTHOP_PUT_ABORT);
	message_release(queues, message);
}

void slots_abort(struct queues *queues)
{
	slots_cancel(queues, NULL);
	for (unsigned i = 0; i < SLOTS; i++)
		slot_abort(slot_at(queues, i));
}
