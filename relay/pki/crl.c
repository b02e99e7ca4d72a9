/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/pki/crl.h"

#include "relay/base/log.h"
#include "relay/pki/crl_table.h"
#include <errno.h>
#include <openssl/x509.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#define BACKOFF_MIN_MS 10000
#define BACKOFF_MAX_MS 600000

/* A list is fetched again so long before it ends, or earlier: in the last tenth of its life. */
#define MARGIN_S 60

/* Distribution points that are remembered; the one not asked for longest goes. */
#define POINTS_MAX 512

/* One that nobody has asked for so long is not fetched again by itself. */
#define FORGOTTEN_MS 86400000

struct crl_table crl_table = {.mutex = PTHREAD_MUTEX_INITIALIZER,
	.files = {&crl_table.files, &crl_table.files},
	.points = {&crl_table.points, &crl_table.points},
	.generation = 1};

uint64_t crl_generation(void)
{
	return crl_table.generation;
}

/* Sources; the mutex is held. */

static bool source_create_where(struct crl_source *source, const char *where)
{
	if (source->where == NULL)
		source->where = strdup(where);
	return source->where != NULL;
}

struct crl_source *crl_source_create(struct link *list, const char *key, const char *where)
{
	struct crl_source *source = calloc(1, sizeof(*source));

	if (source == NULL)
		return NULL;
	(void)snprintf(source->key, sizeof(source->key), "%s", key);
	if (where != NULL && !source_create_where(source, where)) {
		free(source);
		return NULL;
	}
	list_append(list, &source->link);
	return source;
}

/* It must be in no list any more. */
static void source_free(struct crl_source *source)
{
	sk_X509_CRL_pop_free(source->lists, X509_CRL_free);
	free(source->where);
	free(source);
}

static void source_free_all(struct link *list)
{
	struct link *link;
	struct link *after;

	LIST_FOR_EACH (link, after, list)
		source_free(OWNER_OF(link, struct crl_source, link));
	link_init(list);
}

void crl_lists_settle(STACK_OF(X509_CRL) * lists)
{
	ASN1_INTEGER *serial = ASN1_INTEGER_new();

	for (int i = 0; serial != NULL && i < sk_X509_CRL_num(lists); i++) {
		X509_REVOKED *entry;

		(void)X509_CRL_get0_by_serial(sk_X509_CRL_value(lists, i), &entry, serial);
	}
	ASN1_INTEGER_free(serial);
}

void crl_source_take(struct crl_source *source, STACK_OF(X509_CRL) * lists)
{
	bool is_new = !crl_lists_equal(source->lists, lists);

	sk_X509_CRL_pop_free(source->lists, X509_CRL_free);
	source->lists = lists;
	source->end = crl_lists_end(lists);
	if (is_new)
		crl_table.generation++;
}

void crl_source_give(const struct crl_source *source, STACK_OF(X509_CRL) * out)
{
	for (int i = 0; i < sk_X509_CRL_num(source->lists); i++) {
		X509_CRL *list = sk_X509_CRL_value(source->lists, i);

		if (X509_CRL_up_ref(list) == 1 && sk_X509_CRL_push(out, list) <= 0)
			X509_CRL_free(list);
	}
}

static struct crl_source *point_find(const char *key)
{
	struct link *link;
	struct link *after;

	LIST_FOR_EACH (link, after, &crl_table.points) {
		struct crl_source *source = OWNER_OF(link, struct crl_source, link);

		if (memcmp(source->key, key, CRL_KEY_BYTES) == 0)
			return source;
	}
	return NULL;
}

static void points_make_room(void)
{
	struct link *link;
	struct link *after;

	LIST_FOR_EACH (link, after, &crl_table.points) {
		struct crl_source *source = OWNER_OF(link, struct crl_source, link);

		if (crl_table.point_count < POINTS_MAX)
			return;
		if (source->is_fetching || source->waited_ms != 0)
			continue;
		link_remove(link);
		source_free(source);
		crl_table.point_count--;
	}
}

static struct crl_source *point_create(const char *key, const char *urls)
{
	struct crl_source *source;

	points_make_room();
	if (crl_table.point_count >= POINTS_MAX)
		return NULL;
	source = crl_source_create(&crl_table.points, key, urls);
	if (source != NULL)
		crl_table.point_count++;
	return source;
}

/* Looking up. */

static enum crl_state point_answer(struct crl_source *source, STACK_OF(X509_CRL) * out)
{
	uint64_t now_ms = clock_now_ms();

	link_remove(&source->link);
	list_append(&crl_table.points, &source->link);
	source->touched_ms = now_ms;
	crl_source_give(source, out);
	if (source->lists != NULL && source->end > time(NULL))
		return CRL_HERE;
	if (!source->is_fetching && source->failures > 0 && now_ms < source->due_ms)
		return CRL_FAILED;
	if (source->waited_ms == 0) {
		source->waited_ms = now_ms;
		if (!source->is_fetching)
			source->due_ms = now_ms;
		(void)pthread_cond_broadcast(&crl_table.changed);
	}
	return now_ms - source->waited_ms < crl_table.fetch_timeout_ms ? CRL_PENDING : CRL_FAILED;
}

enum crl_state crl_for_certificate(struct x509_st *certificate, struct stack_st_X509_CRL *out)
{
	char urls[CRL_URLS_BYTES];
	char key[CRL_KEY_BYTES];
	struct crl_source *source;
	enum crl_state state = CRL_FAILED;

	if (!crl_urls(certificate, urls))
		return CRL_NONE;
	if (!crl_key(urls, key))
		return CRL_FAILED;
	(void)pthread_mutex_lock(&crl_table.mutex);
	if (crl_table.is_running) {
		source = point_find(key);
		if (source == NULL)
			source = point_create(key, urls);
		/* One that was read from the cache has no URLs yet. */
		if (source != NULL && source_create_where(source, urls))
			state = point_answer(source, out);
	}
	(void)pthread_mutex_unlock(&crl_table.mutex);
	return state;
}

void crl_table_wait(uint64_t wait_ms)
{
	const struct timespec until = clock_after_ms(wait_ms);

	(void)pthread_cond_timedwait(&crl_table.changed, &crl_table.mutex, &until);
}

/* The threads that fetch. */

/* When a list that was just had is fetched again. */
static uint64_t refresh_due(const struct crl_source *source)
{
	int64_t left_s = source->end == INT64_MAX ? INT64_MAX : source->end - time(NULL);
	uint64_t wait_ms = crl_table.refresh_interval_ms;

	if (left_s < INT64_MAX / 1000) {
		int64_t margin_s = left_s / 10 > MARGIN_S ? left_s / 10 : MARGIN_S;
		uint64_t left_ms = left_s > margin_s ? (uint64_t)(left_s - margin_s) * 1000 : 0;

		wait_ms = left_ms < wait_ms ? left_ms : wait_ms;
	}
	return clock_now_ms() + (wait_ms > BACKOFF_MIN_MS ? wait_ms : BACKOFF_MIN_MS);
}

static uint64_t retry_due(const struct crl_source *source)
{
	uint64_t wait_ms = BACKOFF_MIN_MS;

	for (unsigned i = 1; i < source->failures && wait_ms < BACKOFF_MAX_MS; i++)
		wait_ms *= 2;
	return clock_now_ms() + (wait_ms < BACKOFF_MAX_MS ? wait_ms : BACKOFF_MAX_MS);
}

/* The next to fetch, or NULL and how long there is nothing to do. */
static struct crl_source *point_take_due(uint64_t *wait_ms)
{
	uint64_t now_ms = clock_now_ms();
	struct link *link;
	struct link *after;

	*wait_ms = FORGOTTEN_MS;
	LIST_FOR_EACH (link, after, &crl_table.points) {
		struct crl_source *source = OWNER_OF(link, struct crl_source, link);

		if (source->where == NULL || source->is_fetching ||
			now_ms - source->touched_ms > FORGOTTEN_MS)
			continue;
		if (source->due_ms <= now_ms)
			return source;
		if (source->due_ms - now_ms < *wait_ms)
			*wait_ms = source->due_ms - now_ms;
	}
	return NULL;
}

static void point_settle(struct crl_source *source, STACK_OF(X509_CRL) * lists)
{
	source->is_fetching = false;
	source->waited_ms = 0;
	if (lists == NULL) {
		source->failures++;
		source->due_ms = retry_due(source);
		return;
	}
	source->failures = 0;
	crl_source_take(source, lists);
	source->due_ms = refresh_due(source);
	/* One that has ended already is as good as none: it is not asked for at once again. */
	if (source->end <= time(NULL))
		source->failures = 1;
}

/* Fetches one; the mutex is held before and after, and not meanwhile. */
static void point_fetch(struct crl_source *source, struct crl_fetch *fetch)
{
	char folder[1024] = "";
	bool is_waited_for;
	STACK_OF(X509_CRL) * lists;
	void (*on_change)(void *owner);
	void *owner;

	source->is_fetching = true;
	fetch->timeout_ms = crl_table.fetch_timeout_ms;
	if (crl_table.cache_folder != NULL)
		(void)snprintf(folder, sizeof(folder), "%s", crl_table.cache_folder);
	(void)pthread_mutex_unlock(&crl_table.mutex);
	/* It stays where it is while it is being fetched, and its key and URLs never change. */
	lists = crl_fetch_run(fetch, source->where);
	if (lists != NULL && folder[0] != '\0')
		crl_cache_write(folder, source->key, lists);
	crl_lists_settle(lists);
	(void)pthread_mutex_lock(&crl_table.mutex);
	is_waited_for = source->waited_ms != 0;
	point_settle(source, lists);
	if (!is_waited_for || !crl_table.is_running || crl_table.on_change == NULL)
		return;
	on_change = crl_table.on_change;
	owner = crl_table.owner;
	(void)pthread_mutex_unlock(&crl_table.mutex);
	on_change(owner);
	(void)pthread_mutex_lock(&crl_table.mutex);
}

static void *fetcher_main(void *arg)
{
	struct crl_fetch *fetch = arg;

	(void)pthread_mutex_lock(&crl_table.mutex);
	while (crl_table.is_running) {
		uint64_t wait_ms;
		struct crl_source *source = point_take_due(&wait_ms);

		if (source != NULL)
			point_fetch(source, fetch);
		else
			crl_table_wait(wait_ms);
	}
	(void)pthread_mutex_unlock(&crl_table.mutex);
	return NULL;
}

/* Start and stop. */

static int table_create_options(const struct crl_options *options)
{
	char *folder = NULL;

	if (options->cache_folder != NULL) {
		folder = strdup(options->cache_folder);
		if (folder == NULL)
			return -ENOMEM;
	}
	free(crl_table.cache_folder);
	crl_table.cache_folder = folder;
	crl_table.fetch_timeout_ms = options->fetch_timeout_ms;
	crl_table.refresh_interval_ms = options->refresh_interval_ms;
	crl_table.on_change = options->on_change;
	crl_table.owner = options->owner;
	return 0;
}

void crl_configure(const struct crl_options *options)
{
	(void)pthread_mutex_lock(&crl_table.mutex);
	if (table_create_options(options) < 0)
		log_event(LOG_LEVEL_WARNING, NULL, "crl", "result=not-configured why=memory");
	(void)pthread_cond_broadcast(&crl_table.changed);
	(void)pthread_mutex_unlock(&crl_table.mutex);
}

static void table_keep(const char *key, struct stack_st_X509_CRL *lists)
{
	struct crl_source *source = point_create(key, NULL);

	if (source == NULL) {
		sk_X509_CRL_pop_free(lists, X509_CRL_free);
		return;
	}
	source->touched_ms = clock_now_ms();
	crl_lists_settle(lists);
	crl_source_take(source, lists);
	/* As old as the last run: refreshed as soon as it is asked for. */
	source->due_ms = 0;
}

static int table_start_threads(void)
{
	sigset_t all;
	sigset_t before;
	int rc = 0;

	/* Signals are the main thread's business. */
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_BLOCK, &all, &before);
	crl_table.thread_count = 0;
	for (unsigned i = 0; i < CRL_FETCHER_COUNT; i++)
		crl_fetch_open(&crl_table.fetches[i]);
	for (unsigned i = 0; rc == 0 && i < COUNT_OF(crl_table.threads); i++) {
		struct crl_fetch *fetch = i == 0 ? NULL : &crl_table.fetches[i - 1];

		rc = -pthread_create(&crl_table.threads[i], NULL,
			fetch == NULL ? crl_file_main : fetcher_main, fetch);
		if (rc == 0)
			crl_table.thread_count++;
	}
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc;
}

int crl_start(const struct crl_options *options)
{
	pthread_condattr_t clock;
	int rc;

	ASSERT(!crl_table.is_running);
	(void)pthread_condattr_init(&clock);
	(void)pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&crl_table.changed, &clock);
	(void)pthread_condattr_destroy(&clock);
	(void)pthread_mutex_lock(&crl_table.mutex);
	rc = table_create_options(options);
	if (rc == 0) {
		if (options->cache_folder != NULL)
			crl_cache_read(options->cache_folder, table_keep);
		crl_table.is_running = true;
		rc = table_start_threads();
	}
	(void)pthread_mutex_unlock(&crl_table.mutex);
	if (rc < 0)
		crl_stop();
	return rc;
}

void crl_stop(void)
{
	bool was_running;

	(void)pthread_mutex_lock(&crl_table.mutex);
	was_running = crl_table.is_running;
	crl_table.is_running = false;
	if (was_running)
		(void)pthread_cond_broadcast(&crl_table.changed);
	(void)pthread_mutex_unlock(&crl_table.mutex);
	for (unsigned i = 0; was_running && i < CRL_FETCHER_COUNT; i++)
		crl_fetch_cancel(&crl_table.fetches[i]);
	for (unsigned i = 0; was_running && i < crl_table.thread_count; i++)
		(void)pthread_join(crl_table.threads[i], NULL);
	for (unsigned i = 0; was_running && i < CRL_FETCHER_COUNT; i++)
		crl_fetch_close(&crl_table.fetches[i]);
	if (was_running)
		(void)pthread_cond_destroy(&crl_table.changed);
	(void)pthread_mutex_lock(&crl_table.mutex);
	source_free_all(&crl_table.files);
	source_free_all(&crl_table.points);
	crl_table.point_count = 0;
	free(crl_table.cache_folder);
	crl_table.cache_folder = NULL;
	(void)pthread_mutex_unlock(&crl_table.mutex);
}
