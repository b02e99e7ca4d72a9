/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/common/seen.h"

#include <pthread.h>
#include <stdlib.h>

/* Places of the table; so many that it is never more than half full. */
#define SEEN_PLACES (2 * SEEN_PAGES_MAX)

#define SEEN_WORDS (SEEN_PAGE_IDS / 64)

struct seen_page {
	uint64_t run;
	uint64_t number; /* of the first id, in pages */
	uint64_t come[SEEN_WORDS];
	uint64_t promised[SEEN_WORDS];
};

struct seen {
	pthread_mutex_t lock;
	size_t page_count;
	uint64_t unwatched;
	struct seen_page *newest; /* the next number is mostly of the same */
	struct seen_page *places[SEEN_PLACES];
};

struct seen *seen_create(void)
{
	struct seen *seen = calloc(1, sizeof(*seen));

	if (seen != NULL)
		(void)pthread_mutex_init(&seen->lock, NULL);
	return seen;
}

void seen_reset(struct seen *seen)
{
	(void)pthread_mutex_lock(&seen->lock);
	for (size_t i = 0; i < SEEN_PLACES; i++) {
		free(seen->places[i]);
		seen->places[i] = NULL;
	}
	seen->page_count = 0;
	seen->unwatched = 0;
	seen->newest = NULL;
	(void)pthread_mutex_unlock(&seen->lock);
}

void seen_destroy(struct seen **seen)
{
	if (*seen == NULL)
		return;
	seen_reset(*seen);
	(void)pthread_mutex_destroy(&(*seen)->lock);
	free(*seen);
	*seen = NULL;
}

/* The page of a number, made if it is new; NULL: there is no room. */
static struct seen_page *seen_page_create(struct seen *seen, uint64_t run, uint64_t number)
{
	size_t at = (size_t)((run ^ number * 0x9e3779b97f4a7c15ULL) * 0xbf58476d1ce4e5b9ULL >> 32) %
		    SEEN_PLACES;
	struct seen_page *page = seen->newest;

	if (page != NULL && page->run == run && page->number == number)
		return page;
	while ((page = seen->places[at]) != NULL && (page->run != run || page->number != number))
		at = (at + 1) % SEEN_PLACES;
	if (page == NULL && seen->page_count < SEEN_PAGES_MAX) {
		page = calloc(1, sizeof(*page));
		if (page != NULL) {
			page->run = run;
			page->number = number;
			seen->places[at] = page;
			seen->page_count++;
		}
	}
	if (page == NULL)
		seen->unwatched++;
	else
		seen->newest = page;
	return page;
}

bool seen_add(struct seen *seen, uint64_t run, uint64_t id)
{
	uint64_t bit = 1ULL << (id % 64);
	struct seen_page *page;
	bool is_new = true;

	(void)pthread_mutex_lock(&seen->lock);
	page = seen_page_create(seen, run, id / SEEN_PAGE_IDS);
	if (page != NULL) {
		uint64_t *word = &page->come[id % SEEN_PAGE_IDS / 64];

		is_new = (*word & bit) == 0;
		*word |= bit;
	}
	(void)pthread_mutex_unlock(&seen->lock);
	return is_new;
}

void seen_promise(struct seen *seen, uint64_t run, uint64_t id)
{
	struct seen_page *page;

	(void)pthread_mutex_lock(&seen->lock);
	page = seen_page_create(seen, run, id / SEEN_PAGE_IDS);
	if (page != NULL)
		page->promised[id % SEEN_PAGE_IDS / 64] |= 1ULL << (id % 64);
	(void)pthread_mutex_unlock(&seen->lock);
}

void seen_total(struct seen *seen, struct seen_totals *out)
{
	*out = (struct seen_totals){0};
	(void)pthread_mutex_lock(&seen->lock);
	out->unwatched = seen->unwatched;
	for (size_t i = 0; i < SEEN_PLACES; i++) {
		const struct seen_page *page = seen->places[i];

		for (size_t w = 0; page != NULL && w < SEEN_WORDS; w++) {
			uint64_t come = page->come[w];
			uint64_t promised = page->promised[w];

			out->lost += (uint64_t)__builtin_popcountll(promised & ~come);
			out->unacknowledged += (uint64_t)__builtin_popcountll(come & ~promised);
		}
	}
	(void)pthread_mutex_unlock(&seen->lock);
}
