/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/door.h"

#include "relay/base/clock.h"
#include "relay/base/list.h"
#include "relay/base/stats.h"
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>

/* Names of receive connectors that are known at a time; those without sessions make room. */
#define DOOR_CONNECTORS_MAX 256

#define DOOR_MINUTE_MS 60000

/* No source, no connector. */
#define DOOR_NONE UINT_MAX

struct door_connector {
	char name[NAME_BYTES_MAX];
	uint64_t serial; /* of the name: what is known of its sources counts for this one only */
	uint64_t open;
};

/* Messages are counted by the minute of the clock, in this one and in the one before. */
struct door_source {
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
};

/* The lock is held for look-ups only. */
struct door {
	pthread_mutex_t lock;
	uint64_t seed; /* of the hash, so that nobody can choose addresses that collide */
	uint64_t next_serial;
	struct door_connector connectors[DOOR_CONNECTORS_MAX];
	struct door_source *sources;
	unsigned source_count;
	unsigned fresh; /* sources from here on were never taken */
	unsigned *buckets;
	unsigned bucket_count; /* a power of two */
	struct link idle;
	struct link free;
};

int door_create(unsigned sources, struct door **out)
{
	struct door *door = calloc(1, sizeof(*door));

	if (door == NULL)
		return -ENOMEM;
	ASSERT(sources > 0 && sources <= 1u << 30);
	door->source_count = sources;
	door->bucket_count = 1;
	while (door->bucket_count < sources)
		door->bucket_count *= 2;
	door->sources = calloc(sources, sizeof(*door->sources));
	door->buckets = calloc(door->bucket_count, sizeof(*door->buckets));
	(void)pthread_mutex_init(&door->lock, NULL);
	if (door->sources == NULL || door->buckets == NULL) {
		door_destroy(&door);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < door->bucket_count; i++)
		door->buckets[i] = DOOR_NONE;
	link_init(&door->idle);
	link_init(&door->free);
	door->next_serial = 1;
	/* Without entropy the table works all the same. */
	if (getrandom(&door->seed, sizeof(door->seed), 0) != (ssize_t)sizeof(door->seed))
		door->seed = (uint64_t)(uintptr_t)door;
	*out = door;
	return 0;
}

void door_destroy(struct door **out)
{
	struct door *door = *out;

	if (door == NULL)
		return;
	*out = NULL;
	(void)pthread_mutex_destroy(&door->lock);
	free(door->sources);
	free(door->buckets);
	free(door);
}

/* What counts as one source: the address, or the network that one IPv6 customer has. */
static struct ip door_prefix(const struct ip *peer)
{
	struct ip prefix = {.is_v6 = peer->is_v6};

	memcpy(prefix.bytes, peer->bytes, peer->is_v6 ? 8 : 4);
	return prefix;
}

static unsigned door_bucket(const struct door *door, uint64_t serial, const struct ip *prefix)
{
	uint64_t hash = door->seed ^ serial * 0x9e3779b97f4a7c15u;
	uint64_t word;

	memcpy(&word, prefix->bytes, sizeof(word));
	hash = (hash ^ word) * 0xff51afd7ed558ccdu;
	hash ^= hash >> 32;
	hash = (hash ^ door->seed) * 0xc4ceb9fe1a85ec53u;
	hash ^= hash >> 29;
	return (unsigned)hash & (door->bucket_count - 1);
}

/* Connectors. */

/* By name; when it is new, and is_new allows, it gets a place. DOOR_NONE: there is none. */
static unsigned door_find_connector(struct door *door, const char *name, bool is_new)
{
	unsigned room = DOOR_NONE;

	for (unsigned i = 0; i < DOOR_CONNECTORS_MAX; i++) {
		const struct door_connector *connector = &door->connectors[i];

		if (connector->serial != 0 && strcmp(connector->name, name) == 0)
			return i;
		/* Rather one that was never used: the other may come back. */
		if (connector->open == 0 &&
			(room == DOOR_NONE ||
				(connector->serial == 0 && door->connectors[room].serial != 0)))
			room = i;
	}
	if (!is_new || room == DOOR_NONE)
		return DOOR_NONE;
	door->connectors[room].serial = door->next_serial++;
	(void)snprintf(
		door->connectors[room].name, sizeof(door->connectors[room].name), "%s", name);
	return room;
}

/* How many connections one source may have. The share is one of what is still free. */
static uint64_t door_source_limit(const struct receive_connector *connector, uint64_t open)
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

static unsigned door_find_source(struct door *door, uint64_t serial, const struct ip *prefix)
{
	unsigned at = door->buckets[door_bucket(door, serial, prefix)];

	while (at != DOOR_NONE && (door->sources[at].serial != serial ||
					  ip_compare(&door->sources[at].prefix, prefix) != 0))
		at = door->sources[at].next;
	return at;
}

static void door_unchain(struct door *door, struct door_source *source)
{
	unsigned index = (unsigned)(source - door->sources);
	unsigned *at = &door->buckets[source->bucket];

	while (*at != index)
		at = &door->sources[*at].next;
	*at = source->next;
	link_remove(&source->idle);
	source->is_taken = false;
}

/* Moves the counts on to this minute. */
static void door_turn_minute(struct door_source *source, uint64_t minute)
{
	if (minute <= source->minute)
		return;
	source->messages_before = minute == source->minute + 1 ? source->messages : 0;
	source->messages = 0;
	source->minute = minute;
}

/* Takes a place for a new source, from one that is forgotten if need be. */
static struct door_source *door_take_source(struct door *door)
{
	struct link *link = list_take(&door->free);
	struct door_source *source;

	if (link != NULL)
		return OWNER_OF(link, struct door_source, idle);
	if (door->fresh < door->source_count)
		return &door->sources[door->fresh++];
	if (list_is_empty(&door->idle))
		return NULL;
	source = OWNER_OF(door->idle.next, struct door_source, idle);
	door_turn_minute(source, clock_now_ms() / DOOR_MINUTE_MS);
	if (source->messages + source->messages_before > 0)
		return NULL;
	door_unchain(door, source);
	return source;
}

static unsigned door_add_source(struct door *door, uint64_t serial, const struct ip *prefix)
{
	struct door_source *source = door_take_source(door);
	unsigned bucket = door_bucket(door, serial, prefix);

	if (source == NULL)
		return DOOR_NONE;
	*source = (struct door_source){.next = door->buckets[bucket],
		.bucket = bucket,
		.is_taken = true,
		.prefix = *prefix,
		.serial = serial};
	link_init(&source->idle);
	door->buckets[bucket] = (unsigned)(source - door->sources);
	return door->buckets[bucket];
}

/* The last session of a source has ended: with no messages there is nothing to remember. */
static void door_rest_source(struct door *door, struct door_source *source)
{
	if (source->messages + source->messages_before > 0) {
		list_append(&door->idle, &source->idle);
		return;
	}
	door_unchain(door, source);
	list_append(&door->free, &source->idle);
}

/* In and out. */

static enum door_answer door_enter_locked(struct door *door,
	const struct receive_connector *connector, const struct ip *peer, struct door_place *place)
{
	unsigned index = door_find_connector(door, connector->name, true);
	struct door_connector *mine = &door->connectors[index == DOOR_NONE ? 0 : index];
	struct door_source *source = NULL;
	struct ip prefix;

	place->connector = index;
	if (index == DOOR_NONE)
		return DOOR_OPEN;
	if (mine->open >= connector->max_inbound_connection)
		return DOOR_FULL;
	if (peer != NULL) {
		prefix = door_prefix(peer);
		place->source = door_find_source(door, mine->serial, &prefix);
		if (place->source == DOOR_NONE)
			place->source = door_add_source(door, mine->serial, &prefix);
	}
	if (place->source != DOOR_NONE) {
		source = &door->sources[place->source];
		if (source->open >= door_source_limit(connector, mine->open)) {
			if (source->open == 0 && !link_is_queued(&source->idle))
				door_rest_source(door, source);
			return DOOR_SOURCE;
		}
		link_remove(&source->idle);
		source->open++;
	}
	mine->open++;
	return DOOR_OPEN;
}

enum door_answer door_enter(struct door *door, const struct receive_connector *connector,
	const struct ip *peer, struct door_place *place)
{
	struct door_place mine = {.door = door, .connector = DOOR_NONE, .source = DOOR_NONE};
	enum door_answer answer;

	(void)pthread_mutex_lock(&door->lock);
	answer = door_enter_locked(door, connector, peer, &mine);
	(void)pthread_mutex_unlock(&door->lock);
	if (answer == DOOR_OPEN && mine.source == DOOR_NONE)
		STAT(door_untracked);
	*place = answer == DOOR_OPEN ? mine : (struct door_place){0};
	return answer;
}

void door_leave(struct door_place *place)
{
	struct door *door = place->door;

	if (door == NULL)
		return;
	place->door = NULL;
	(void)pthread_mutex_lock(&door->lock);
	if (place->connector != DOOR_NONE) {
		ASSERT(door->connectors[place->connector].open > 0);
		door->connectors[place->connector].open--;
	}
	if (place->source != DOOR_NONE) {
		struct door_source *source = &door->sources[place->source];

		ASSERT(source->is_taken && source->open > 0);
		if (--source->open == 0)
			door_rest_source(door, source);
	}
	(void)pthread_mutex_unlock(&door->lock);
}

/*
 * What was said in the minute before counts for as much of it as still lies within the last
 * 60 seconds. So a minute's worth may come at once, and then the rate holds.
 */
static bool door_is_too_fast(const struct door_source *source, uint64_t limit, uint64_t now_ms)
{
	uint64_t left_ms = DOOR_MINUTE_MS - now_ms % DOOR_MINUTE_MS;
	uint64_t before = source->messages_before * left_ms / DOOR_MINUTE_MS;

	return source->messages + before >= limit;
}

enum door_answer door_message(
	struct door_place *place, const struct receive_connector *connector, uint64_t now_ms)
{
	struct door *door = place->door;
	enum door_answer answer = DOOR_OPEN;
	struct door_source *source;

	if (door == NULL || place->source == DOOR_NONE ||
		connector->message_rate_source == RATE_SOURCE_NONE ||
		connector->message_rate_limit == POLICY_UNLIMITED)
		return DOOR_OPEN;
	(void)pthread_mutex_lock(&door->lock);
	source = &door->sources[place->source];
	door_turn_minute(source, now_ms / DOOR_MINUTE_MS);
	if (door_is_too_fast(source, connector->message_rate_limit, now_ms))
		answer = DOOR_RATE;
	else
		source->messages++;
	(void)pthread_mutex_unlock(&door->lock);
	return answer;
}

uint64_t door_count(struct door *door, const struct receive_connector *connector)
{
	uint64_t count = 0;
	unsigned index;

	(void)pthread_mutex_lock(&door->lock);
	index = door_find_connector(door, connector->name, false);
	if (index != DOOR_NONE)
		count = door->connectors[index].open;
	(void)pthread_mutex_unlock(&door->lock);
	return count;
}
