/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/refusals.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* A source may stand at so many places; of these the oldest makes room. */
#define REFUSALS_WAYS 8

struct refusals {
	pthread_mutex_t lock;
	uint64_t seed;
	struct refusal rows[REFUSALS_MAX]; /* count 0: free */
};

int refusals_create(struct refusals **out)
{
	struct refusals *refusals = calloc(1, sizeof(*refusals));

	if (refusals == NULL)
		return -ENOMEM;
	(void)pthread_mutex_init(&refusals->lock, NULL);
	/* Without entropy the table works all the same. */
	if (getrandom(&refusals->seed, sizeof(refusals->seed), 0) < 0)
		refusals->seed = 0;
	*out = refusals;
	return 0;
}

void refusals_destroy(struct refusals **out)
{
	struct refusals *refusals = *out;

	*out = NULL;
	if (refusals == NULL)
		return;
	(void)pthread_mutex_destroy(&refusals->lock);
	free(refusals);
}

static uint64_t refusals_mix(uint64_t hash, uint64_t word)
{
	hash = (hash ^ word) * 0xff51afd7ed558ccdU;
	return hash ^ hash >> 32;
}

static struct refusal *refusals_set(struct refusals *refusals, const struct refusal *refusal)
{
	uint64_t hash = refusals->seed ^ (uint64_t)refusal->reason;
	uint64_t words[2];

	memcpy(words, refusal->peer.bytes, sizeof(words));
	hash = refusals_mix(refusals_mix(hash, words[0]), words[1]);
	return &refusals->rows[hash % (REFUSALS_MAX / REFUSALS_WAYS) * REFUSALS_WAYS];
}

static bool refusal_is_same(const struct refusal *a, const struct refusal *b)
{
	return a->count > 0 && a->reason == b->reason && ip_compare(&a->peer, &b->peer) == 0 &&
	       address_is_equal(&a->local, &b->local);
}

void refusals_note(struct refusals *refusals, const struct refusal *refusal)
{
	struct refusal *set = refusals_set(refusals, refusal);
	struct refusal *oldest = set;
	struct refusal *found = NULL;
	uint64_t count = 1;

	(void)pthread_mutex_lock(&refusals->lock);
	for (unsigned i = 0; i < REFUSALS_WAYS && found == NULL; i++) {
		if (refusal_is_same(&set[i], refusal))
			found = &set[i];
		else if (set[i].count == 0 || set[i].last_ms < oldest->last_ms)
			oldest = &set[i];
	}
	if (found != NULL)
		count += found->count;
	else
		found = oldest;
	*found = *refusal;
	found->count = count;
	(void)pthread_mutex_unlock(&refusals->lock);
}

static int refusals_compare(const void *a, const void *b)
{
	const struct refusal *one = a;
	const struct refusal *two = b;

	if (one->count != two->count)
		return one->count < two->count ? 1 : -1;
	return one->last_ms == two->last_ms ? 0 : one->last_ms < two->last_ms ? 1 : -1;
}

unsigned refusals_read(struct refusals *refusals, struct refusal *out, unsigned max)
{
	static struct refusal all[REFUSALS_MAX]; /* under the lock */
	unsigned count = 0;

	(void)pthread_mutex_lock(&refusals->lock);
	for (unsigned i = 0; i < REFUSALS_MAX; i++)
		if (refusals->rows[i].count > 0)
			all[count++] = refusals->rows[i];
	qsort(all, count, sizeof(*all), refusals_compare);
	count = count < max ? count : max;
	memcpy(out, all, count * sizeof(*all));
	(void)pthread_mutex_unlock(&refusals->lock);
	return count;
}

const char *refusal_word(enum door_reason reason)
{
	static const char *const words[] = {
		[DOOR_REASON_STRANGER] = "stranger",
		[DOOR_REASON_EXCLUDED] = "excluded",
		[DOOR_REASON_RATE] = "rate",
		[DOOR_REASON_MAPPED] = "mapped",
		[DOOR_REASON_COUNT] = "?",
	};

	return words[reason < DOOR_REASON_COUNT ? reason : DOOR_REASON_COUNT];
}
