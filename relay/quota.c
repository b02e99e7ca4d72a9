/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/quota.h"

#include "relay/base/clock.h"
#include "relay/base/list.h"
#include "relay/base/stats.h"
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>

/* Names of receive connectors that are known at a time; those without sessions make room. */
#define QUOTA_CONNECTORS_MAX 256

#define QUOTA_MINUTE_MS 60000

/* No source, no connector. */
#define QUOTA_NONE UINT_MAX

struct quota_connector {
	char name[NAME_BYTES_MAX];
	uint64_t serial; /* of the name: what is known of its sources counts for this one only */
	uint64_t open;
};

/* Messages are counted by the minute of the clock, in this one and in the one before. */
struct quota_source {
	struct link idle; /* without sessions: who has left longest ago stands first */
	unsigned next;    /* in its bucket's chain */
	unsigned bucket;
	bool is_taken;
	struct ip prefix;
	uint64_t serial;
	uint64_t open;
	uint64_t minute;
	uint64_t messages;
	uint64_t messages_before;
	struct door_bucket pace; /* of connections */
};

/* The lock is held for look-ups only. */
struct quota {
	pthread_mutex_t lock;
	uint64_t seed; /* of the hash, so that nobody can choose addresses that collide */
	uint64_t next_serial;
	struct quota_connector connectors[QUOTA_CONNECTORS_MAX];
	struct quota_source *sources;
	unsigned source_count;
	unsigned fresh; /* sources from here on were never taken */
	unsigned *buckets;
	unsigned bucket_count; /* a power of two */
	struct link idle;
	struct link free;
};

int quota_create(unsigned sources, struct quota **out)
{
	struct quota *quota = calloc(1, sizeof(*quota));

	if (quota == NULL)
		return -ENOMEM;
	ASSERT(sources > 0 && sources <= 1u << 30);
	quota->source_count = sources;
	quota->bucket_count = 1;
	while (quota->bucket_count < sources)
		quota->bucket_count *= 2;
	quota->sources = calloc(sources, sizeof(*quota->sources));
	quota->buckets = calloc(quota->bucket_count, sizeof(*quota->buckets));
	(void)pthread_mutex_init(&quota->lock, NULL);
	if (quota->sources == NULL || quota->buckets == NULL) {
		quota_destroy(&quota);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < quota->bucket_count; i++)
		quota->buckets[i] = QUOTA_NONE;
	link_init(&quota->idle);
	link_init(&quota->free);
	quota->next_serial = 1;
	/* Without entropy the table works all the same. */
	if (getrandom(&quota->seed, sizeof(quota->seed), 0) != (ssize_t)sizeof(quota->seed))
		quota->seed = (uint64_t)(uintptr_t)quota;
	*out = quota;
	return 0;
}

void quota_destroy(struct quota **out)
{
	struct quota *quota = *out;

	if (quota == NULL)
		return;
	*out = NULL;
	(void)pthread_mutex_destroy(&quota->lock);
	free(quota->sources);
	free(quota->buckets);
	free(quota);
}

/* What counts as one source: the address, or the network that one IPv6 customer has. */
static struct ip quota_prefix(const struct ip *peer)
{
	struct ip prefix = {.is_v6 = peer->is_v6};

	memcpy(prefix.bytes, peer->bytes, peer->is_v6 ? 8 : 4);
	return prefix;
}

static unsigned quota_bucket(const struct quota *quota, uint64_t serial, const struct ip *prefix)
{
	uint64_t hash = quota->seed ^ serial * 0x9e3779b97f4a7c15u;
	uint64_t word;

	memcpy(&word, prefix->bytes, sizeof(word));
	hash = (hash ^ word) * 0xff51afd7ed558ccdu;
	hash ^= hash >> 32;
	hash = (hash ^ quota->seed) * 0xc4ceb9fe1a85ec53u;
	hash ^= hash >> 29;
	return (unsigned)hash & (quota->bucket_count - 1);
}

/* Connectors. */

/* By name; when it is new, and is_new allows, it gets a place. QUOTA_NONE: there is none. */
static unsigned quota_find_connector(struct quota *quota, const char *name, bool is_new)
{
	unsigned room = QUOTA_NONE;

	for (unsigned i = 0; i < QUOTA_CONNECTORS_MAX; i++) {
		const struct quota_connector *connector = &quota->connectors[i];

		if (connector->serial != 0 && strcmp(connector->name, name) == 0)
			return i;
		/* Rather one that was never used: the other may come back. */
		if (connector->open == 0 &&
			(room == QUOTA_NONE ||
				(connector->serial == 0 && quota->connectors[room].serial != 0)))
			room = i;
	}
	if (!is_new || room == QUOTA_NONE)
		return QUOTA_NONE;
	quota->connectors[room].serial = quota->next_serial++;
	(void)snprintf(
		quota->connectors[room].name, sizeof(quota->connectors[room].name), "%s", name);
	return room;
}

/* How many connections one source may have. The share is one of what is still free. */
static uint64_t quota_source_limit(const struct receive_connector *connector, uint64_t open)
{
	uint64_t limit = connector->max_inbound_connection_per_source;
	uint64_t percentage = connector->max_inbound_connection_percentage_per_source;
	uint64_t share;

	if (percentage >= 100 || connector->max_inbound_connection == POLICY_UNLIMITED)
		return limit;
	share = (connector->max_inbound_connection - open) * percentage / 100;
	if (share == 0)
		share = 1;
	return share < limit ? share : limit;
}

/* Sources. */

static unsigned quota_find_source(struct quota *quota, uint64_t serial, const struct ip *prefix)
{
	unsigned at = quota->buckets[quota_bucket(quota, serial, prefix)];

	while (at != QUOTA_NONE && (quota->sources[at].serial != serial ||
					   ip_compare(&quota->sources[at].prefix, prefix) != 0))
		at = quota->sources[at].next;
	return at;
}

static void quota_unchain(struct quota *quota, struct quota_source *source)
{
	unsigned index = (unsigned)(source - quota->sources);
	unsigned *at = &quota->buckets[source->bucket];

	while (*at != index)
		at = &quota->sources[*at].next;
	*at = source->next;
	link_remove(&source->idle);
	source->is_taken = false;
}

/* Moves the counts on to this minute. */
static void quota_turn_minute(struct quota_source *source, uint64_t minute)
{
	if (minute <= source->minute)
		return;
	source->messages_before = minute == source->minute + 1 ? source->messages : 0;
	source->messages = 0;
	source->minute = minute;
}

/* Takes a place for a new source, from one that is forgotten if need be. */
static struct quota_source *quota_take_source(struct quota *quota)
{
	struct link *link = list_take(&quota->free);
	struct quota_source *source;

	if (link != NULL)
		return OWNER_OF(link, struct quota_source, idle);
	if (quota->fresh < quota->source_count)
		return &quota->sources[quota->fresh++];
	if (list_is_empty(&quota->idle))
		return NULL;
	source = OWNER_OF(quota->idle.next, struct quota_source, idle);
	quota_turn_minute(source, clock_now_ms() / QUOTA_MINUTE_MS);
	if (source->messages + source->messages_before > 0)
		return NULL;
	quota_unchain(quota, source);
	return source;
}

static unsigned quota_add_source(struct quota *quota, uint64_t serial, const struct ip *prefix)
{
	struct quota_source *source = quota_take_source(quota);
	unsigned bucket = quota_bucket(quota, serial, prefix);

	if (source == NULL)
		return QUOTA_NONE;
	*source = (struct quota_source){.next = quota->buckets[bucket],
		.bucket = bucket,
		.is_taken = true,
		.prefix = *prefix,
		.serial = serial};
	link_init(&source->idle);
	quota->buckets[bucket] = (unsigned)(source - quota->sources);
	return quota->buckets[bucket];
}

/* The last session of a source has ended: with no messages, and none of its connections still to
 * be counted, there is nothing to remember. */
static void quota_rest_source(struct quota *quota, struct quota_source *source)
{
	if (source->messages + source->messages_before > 0 ||
		source->pace.due_ns > clock_now_ns()) {
		list_append(&quota->idle, &source->idle);
		return;
	}
	quota_unchain(quota, source);
	list_append(&quota->free, &source->idle);
}

/* In and out. */

struct door_limit quota_connection_limit(const struct receive_connector *connector)
{
	const uint64_t limit = connector->connection_rate_limit;

	if (limit == POLICY_UNLIMITED || limit == 0)
		return (struct door_limit){0};
	return (struct door_limit){
		.interval_ns = QUOTA_MINUTE_MS * UINT64_C(1000000) / limit, .burst = limit};
}

static enum quota_answer quota_enter_source(struct quota *quota,
	const struct receive_connector *connector, bool keeps_speed, uint64_t open,
	struct quota_source *source)
{
	const struct door_limit limit = quota_connection_limit(connector);
	enum quota_answer answer = QUOTA_OPEN;

	if (keeps_speed && !door_bucket_take(&source->pace, &limit, clock_now_ns()))
		answer = QUOTA_SPEED;
	else if (source->open >= quota_source_limit(connector, open))
		answer = QUOTA_SOURCE;
	if (answer == QUOTA_OPEN) {
		link_remove(&source->idle);
		source->open++;
	} else if (source->open == 0 && !link_is_queued(&source->idle)) {
		quota_rest_source(quota, source);
	}
	return answer;
}

static enum quota_answer quota_enter_locked(struct quota *quota,
	const struct receive_connector *connector, const struct ip *peer, bool keeps_speed,
	struct quota_place *place)
{
	unsigned index = quota_find_connector(quota, connector->name, true);
	struct quota_connector *mine = &quota->connectors[index == QUOTA_NONE ? 0 : index];
	enum quota_answer answer = QUOTA_OPEN;
	struct ip prefix;

	place->connector = index;
	if (index == QUOTA_NONE)
		return QUOTA_OPEN;
	if (mine->open >= connector->max_inbound_connection)
		return QUOTA_FULL;
	if (peer != NULL) {
		prefix = quota_prefix(peer);
		place->source = quota_find_source(quota, mine->serial, &prefix);
		if (place->source == QUOTA_NONE)
			place->source = quota_add_source(quota, mine->serial, &prefix);
	}
	if (place->source != QUOTA_NONE)
		answer = quota_enter_source(
			quota, connector, keeps_speed, mine->open, &quota->sources[place->source]);
	mine->open += answer == QUOTA_OPEN;
	return answer;
}

enum quota_answer quota_enter(struct quota *quota, const struct receive_connector *connector,
	const struct ip *peer, bool keeps_speed, struct quota_place *place)
{
	struct quota_place mine = {.quota = quota, .connector = QUOTA_NONE, .source = QUOTA_NONE};
	enum quota_answer answer;

	(void)pthread_mutex_lock(&quota->lock);
	answer = quota_enter_locked(quota, connector, peer, keeps_speed, &mine);
	(void)pthread_mutex_unlock(&quota->lock);
	if (answer == QUOTA_OPEN && mine.source == QUOTA_NONE)
		STAT(quota_untracked);
	*place = answer == QUOTA_OPEN ? mine : (struct quota_place){0};
	return answer;
}

void quota_leave(struct quota_place *place)
{
	struct quota *quota = place->quota;

	if (quota == NULL)
		return;
	place->quota = NULL;
	(void)pthread_mutex_lock(&quota->lock);
	if (place->connector != QUOTA_NONE) {
		ASSERT(quota->connectors[place->connector].open > 0);
		quota->connectors[place->connector].open--;
	}
	if (place->source != QUOTA_NONE) {
		struct quota_source *source = &quota->sources[place->source];

		ASSERT(source->is_taken && source->open > 0);
		if (--source->open == 0)
			quota_rest_source(quota, source);
	}
	(void)pthread_mutex_unlock(&quota->lock);
}

/*
 * What was said in the minute before counts for as much of it as still lies within the last
 * 60 seconds. So a minute's worth may come at once, and then the rate holds.
 */
static bool quota_is_too_fast(const struct quota_source *source, uint64_t limit, uint64_t now_ms)
{
	uint64_t left_ms = QUOTA_MINUTE_MS - now_ms % QUOTA_MINUTE_MS;
	uint64_t before = source->messages_before * left_ms / QUOTA_MINUTE_MS;

	return source->messages + before >= limit;
}

enum quota_answer quota_message(
	struct quota_place *place, const struct receive_connector *connector, uint64_t now_ms)
{
	struct quota *quota = place->quota;
	enum quota_answer answer = QUOTA_OPEN;
	struct quota_source *source;

	if (quota == NULL || place->source == QUOTA_NONE ||
		connector->message_rate_source == RATE_SOURCE_NONE ||
		connector->message_rate_limit == POLICY_UNLIMITED)
		return QUOTA_OPEN;
	(void)pthread_mutex_lock(&quota->lock);
	source = &quota->sources[place->source];
	quota_turn_minute(source, now_ms / QUOTA_MINUTE_MS);
	if (quota_is_too_fast(source, connector->message_rate_limit, now_ms))
		answer = QUOTA_RATE;
	else
		source->messages++;
	(void)pthread_mutex_unlock(&quota->lock);
	return answer;
}

uint64_t quota_count(struct quota *quota, const struct receive_connector *connector)
{
	uint64_t count = 0;
	unsigned index;

	(void)pthread_mutex_lock(&quota->lock);
	index = quota_find_connector(quota, connector->name, false);
	if (index != QUOTA_NONE)
		count = quota->connectors[index].open;
	(void)pthread_mutex_unlock(&quota->lock);
	return count;
}
