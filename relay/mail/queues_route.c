/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/queues_private.h"

#include "relay/base/log.h"
#include "relay/base/stats.h"

/*
 * queues_route.c: Submission: from the recipients of a message to the queues that it waits in. The
 * same question is asked again whenever an envelope is read for a delivery, so what is said here
 * need not be remembered.
 */

/* Redirections of a message that are followed. */
#define REDIRECTS_MAX 4

/* What has its way by the name of a connector that is not there waits until it is. */
static bool way_find_connector(struct queues *queues, const struct envelope *envelope,
	const struct send_connector **out, struct queue_way *way)
{
	char name[NAME_BYTES_MAX];

	*out = NULL;
	if (envelope->send_connector.len == 0)
		return true;
	(void)snprintf(name, sizeof(name), "%.*s", (int)envelope->send_connector.len,
		(const char *)envelope->send_connector.data);
	*out = policy_send_connector(queues->policy, name);
	if (*out != NULL && (*out)->enabled)
		return true;
	(void)snprintf(way->reply, sizeof(way->reply),
		"451 4.4.4 Unable to route: there is no send connector %.200s", name);
	return false;
}

static void way_ask(struct queues *queues, const struct router_ask *ask, struct queue_way *out)
{
	*out = (struct queue_way){.connector = "", .domain = ""};
	(void)router_way(queues->router, ask, &out->way, out->reply);
	switch (out->way.verdict) {
	case ROUTER_GOES:
		out->connector = out->way.route.connector->name;
		out->domain = out->way.is_by_domain ? out->way.domain : "";
		out->is_secured = out->way.route.is_secured;
		break;
	case ROUTER_BAD_DOMAIN:
	case ROUTER_TOO_LARGE:
		out->is_refused = true;
		break;
	case ROUTER_UNREACHABLE:
	case ROUTER_UNSECURED:
		break;
	}
}

/*
 * An administrator may have sent what was in that queue elsewhere, and from there again. False: no
 * rule is for this message.
 */
static bool way_redirect(struct queues *queues, const struct message *message,
	struct router_ask *ask, struct queue_way *way)
{
	const struct queue *queue =
		queue_find(queues, way->connector, way->domain, way->is_secured);
	struct queue_way other;

	if (queue == NULL || queue->redirect[0] == '\0' ||
		message->arrived_ms > queue->redirect_before_ms)
		return false;
	ask->connector = policy_send_connector(queues->policy, queue->redirect);
	if (ask->connector == NULL || !ask->connector->enabled)
		return false;
	way_ask(queues, ask, &other);
	/* What the target does not take stays where it is. */
	if (other.is_refused)
		return false;
	*way = other;
	if (other.domain[0] != '\0')
		way->domain = way->way.domain;
	return true;
}

void queues_find_way(struct queues *queues, const struct message *message,
	const struct envelope *envelope, struct span path, struct queue_way *out)
{
	struct router_ask ask = {.session = NULL, .path = path, .bytes = message->bytes};

	*out = (struct queue_way){.connector = "", .domain = ""};
	if (!way_find_connector(queues, envelope, &ask.connector, out))
		return;
	way_ask(queues, &ask, out);
	/* Rules in a circle lead somewhere in it. */
	for (unsigned hops = 0; !out->is_refused && hops < REDIRECTS_MAX; hops++) {
		if (!way_redirect(queues, message, &ask, out))
			return;
	}
}

bool queue_is_on_way(const struct queue *queue, const struct queue_way *way)
{
	return !way->is_refused && queue->is_secured == way->is_secured &&
	       strcmp(queue->domain, way->domain) == 0 &&
	       strcmp(queue->connector, way->connector) == 0;
}

/* Of what cannot go anywhere, the first recipient is told; the others say the same. */
static void queues_track_unreachable(const struct queues *queues, const struct message *message,
	const struct envelope *envelope, struct span path, const char *reply)
{
	queue_track(message, &(struct queue_tracked){.event = TRACK_DEFER,
				     .source = "ROUTING",
				     .sender = envelope->sender,
				     .message_id = envelope->message_id,
				     .subject = queues_tracked_subject(queues, envelope->subject),
				     .recipients = path_bare(path),
				     .statuses = span_of(reply),
				     .recipient_count = 1});
}

static void queues_say_unreachable(struct queues *queues, struct message *message,
	struct queue *queue, const struct queue_way *way)
{
	char id[MESSAGE_ID_TEXT_BYTES];
	char text[ERROR_TEXT_BYTES];

	message_id_print(message->spool.id, id);
	if (way->way.verdict == ROUTER_UNSECURED)
		STAT(secure_send_refused);
	message_set_error(queues, message, way->reply);
	(void)snprintf(queue->error, sizeof(queue->error), "%s", way->reply);
	log_event(LOG_LEVEL_WARNING, NULL, "queue-unreachable", "id=%s error=%s", id,
		log_quote_text(way->reply, text, sizeof(text)));
}

/* False: there is no memory for it now. */
static bool queues_route_one(struct queues *queues, struct message *message,
	const struct envelope *envelope, struct span path)
{
	struct queue_way way;
	struct queue *queue;

	queues_find_way(queues, message, envelope, path, &way);
	if (way.is_refused) {
		message->wants |= WANT_REFUSE;
		return true;
	}
	queue = queue_take(queues, way.connector, way.domain, way.is_secured);
	if (queue == NULL)
		return false;
	if (message_entry_of(message, queue) != NULL)
		return true;
	if (!message_add_entry(queues, message, queue))
		return false;
	if (queue->kind == QUEUE_UNREACHABLE) {
		queues_say_unreachable(queues, message, queue, &way);
		queues_track_unreachable(queues, message, envelope, path, way.reply);
	}
	return true;
}

void queues_route(struct queues *queues, struct message *message, const struct envelope *envelope)
{
	struct envelope_rcpt rcpt;
	bool has_room = true;
	size_t at = 0;

	for (uint32_t index = 0; envelope_next(envelope, &at, &rcpt); index++) {
		if (message_is_open(message, index) &&
			!queues_route_one(queues, message, envelope, rcpt.path))
			has_room = false;
	}
	message->not_before_ms = 0;
	if (has_room)
		return;
	message->late_wants |= WANT_ROUTE;
	message->not_before_ms = queues_now(queues) + TROUBLE_RETRY_MS;
	log_event(LOG_LEVEL_WARNING, NULL, "queue-full", "queues=%u entries=%u next-s=%u",
		queues->queue_pool.used, queues->entries.used, TROUBLE_RETRY_MS / 1000);
}

/* What routing depends on. */

static uint64_t hash_text(uint64_t hash, const char *text)
{
	return (hash ^ text_hash(text != NULL ? text : "\x01")) * 1099511628211U;
}

static uint64_t hash_number(uint64_t hash, uint64_t number)
{
	return (hash ^ (number + 1)) * 1099511628211U;
}

static uint64_t hash_connector(uint64_t hash, const struct send_connector *connector)
{
	hash = hash_text(hash, connector->name);
	hash = hash_number(hash, connector->enabled);
	hash = hash_number(hash, connector->max_message_bytes);
	hash = hash_number(hash, connector->smart_host_count > 0);
	hash = hash_number(hash, connector->tls_auth_level);
	hash = hash_text(hash, connector->tls_domain);
	hash = hash_number(hash, connector->domain_secure);
	hash = hash_number(hash, connector->allow_unsecured_partners);
	for (unsigned i = 0; i < connector->address_space_count; i++) {
		const struct address_space *space = &connector->address_spaces[i];

		hash = hash_text(hash, space->domain);
		hash = hash_number(
			hash, (uint64_t)space->cost << 3 | (space->with_subdomains ? 4U : 0U) |
				      (space->is_any ? 2U : 0U) | (space->is_accepted ? 1U : 0U));
	}
	return hash_number(hash, connector->address_space_count);
}

uint64_t queues_routing_of(const struct policy *policy)
{
	uint64_t hash = 14695981039346656037U;

	for (unsigned i = 0; i < policy->send_connector_count; i++)
		hash = hash_connector(hash, &policy->send_connectors[i]);
	for (unsigned i = 0; i < policy->accepted_domain_count; i++)
		hash = hash_text(hash, policy->accepted_domains[i]);
	for (unsigned i = 0; i < policy->partner_domain_count; i++) {
		const struct partner_domain *domain = &policy->partner_domains[i];

		hash = hash_text(hash, domain->domain);
		hash = hash_number(hash, domain->partner->send_secure);
	}
	return hash_text(hash, policy->fqdn);
}
