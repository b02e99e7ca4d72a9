/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/pki/crl.h"

#include "relay/base/list.h"
#include "relay/base/log.h"
#include "relay/pki/crl_fetch.h"
#include <errno.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

/*
 * One thread reads files; so many fetch, since one distribution point that does not
 * answer may not keep the lists of other partners waiting.
 */
#define FETCHER_COUNT 3

/* Files are looked at so often. */
#define POLL_MS 1000

/* How long a reload waits for the files to be looked at; a dead disk must not stop it. */
#define LOOK_MS 5000

#define BACKOFF_MIN_MS 10000
#define BACKOFF_MAX_MS 600000

/* A list is fetched again so long before it ends, or earlier: in the last tenth of its life. */
#define MARGIN_S 60

/* Distribution points that are remembered; the one not asked for longest goes. */
#define POINTS_MAX 512

/* One that nobody has asked for so long is not fetched again by itself. */
#define FORGOTTEN_MS 86400000

/* A file, or the URLs of a distribution point, and what was found there. */
struct crl_source {
	struct link link;
	char key[CRL_KEY_BYTES]; /* of the URLs; "" for a file */
	char *where;             /* file name or URLs; NULL: kept from before, not yet asked for */
	STACK_OF(X509_CRL) * lists; /* NULL: none */
	int64_t end;                /* the first nextUpdate of them */
	uint64_t touched_ms;        /* when it was last asked for */
	uint64_t waited_ms;         /* since when somebody waits for it; 0: nobody */
	uint64_t due_ms;            /* when it is fetched again */
	unsigned failures;          /* since it was last had */
	bool is_fetching;
	struct stat seen; /* of a file, when it was read */
};

static struct crl_table {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	struct link files;  /* of struct crl_source; none is ever removed while threads run */
	struct link points; /* last asked for last */
	unsigned point_count;
	unsigned rounds_wanted; /* looks at all files that were asked for */
	unsigned rounds_done;
	_Atomic uint64_t generation;
	bool is_running;
	char *cache_folder;
	uint64_t fetch_timeout_ms;
	uint64_t refresh_interval_ms;
	void (*on_change)(void *owner);
	void *owner;
	pthread_t threads[1 + FETCHER_COUNT];
	unsigned thread_count;
	struct crl_fetch fetches[FETCHER_COUNT];
} table = {.mutex = PTHREAD_MUTEX_INITIALIZER,
	.files = {&table.files, &table.files},
	.points = {&table.points, &table.points},
	.generation = 1};

uint64_t crl_generation(void)
{
	return table.generation;
}

/* Sources; the mutex is held. */

static bool source_create_where(struct crl_source *source, const char *where)
{
	if (source->where == NULL)
		source->where = strdup(where);
	return source->where != NULL;
}

static struct crl_source *source_create(struct link *list, const char *key, const char *where)
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

/* A list is sorted by the first look-up: here, and not in a worker that shares it with others. */
static void lists_settle(STACK_OF(X509_CRL) * lists)
{
	ASN1_INTEGER *serial = ASN1_INTEGER_new();

	for (int i = 0; serial != NULL && i < sk_X509_CRL_num(lists); i++) {
		X509_REVOKED *entry;

		(void)X509_CRL_get0_by_serial(sk_X509_CRL_value(lists, i), &entry, serial);
	}
	ASN1_INTEGER_free(serial);
}

/* Takes the lists over. What is new makes verdicts and tickets of before worth nothing. */
static void source_take(struct crl_source *source, STACK_OF(X509_CRL) * lists)
{
	bool is_new = !crl_lists_equal(source->lists, lists);

	sk_X509_CRL_pop_free(source->lists, X509_CRL_free);
	source->lists = lists;
	source->end = crl_lists_end(lists);
	if (is_new)
		table.generation++;
}

static void source_give(const struct crl_source *source, STACK_OF(X509_CRL) * out)
{
	for (int i = 0; i < sk_X509_CRL_num(source->lists); i++) {
		X509_CRL *list = sk_X509_CRL_value(source->lists, i);

		if (X509_CRL_up_ref(list) == 1 && sk_X509_CRL_push(out, list) <= 0)
			X509_CRL_free(list);
	}
}

static struct crl_source *file_find(const char *file)
{
	struct link *link;
	struct link *after;

	LIST_FOR_EACH (link, after, &table.files) {
		struct crl_source *source = OWNER_OF(link, struct crl_source, link);

		if (strcmp(source->where, file) == 0)
			return source;
	}
	return NULL;
}

static struct crl_source *point_find(const char *key)
{
	struct link *link;
	struct link *after;

	LIST_FOR_EACH (link, after, &table.points) {
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

	LIST_FOR_EACH (link, after, &table.points) {
		struct crl_source *source = OWNER_OF(link, struct crl_source, link);

		if (table.point_count < POINTS_MAX)
			return;
		if (source->is_fetching || source->waited_ms != 0)
			continue;
		link_remove(link);
		source_free(source);
		table.point_count--;
	}
}

static struct crl_source *point_create(const char *key, const char *urls)
{
	struct crl_source *source;

	points_make_room();
	if (table.point_count >= POINTS_MAX)
		return NULL;
	source = source_create(&table.points, key, urls);
	if (source != NULL)
		table.point_count++;
	return source;
}

/* Looking up. */

static enum crl_state point_answer(struct crl_source *source, STACK_OF(X509_CRL) * out)
{
	uint64_t now_ms = crl_now_ms();

	link_remove(&source->link);
	list_append(&table.points, &source->link);
	source->touched_ms = now_ms;
	source_give(source, out);
	if (source->lists != NULL && source->end > time(NULL))
		return CRL_HERE;
	if (!source->is_fetching && source->failures > 0 && now_ms < source->due_ms)
		return CRL_FAILED;
	if (source->waited_ms == 0) {
		source->waited_ms = now_ms;
		if (!source->is_fetching)
			source->due_ms = now_ms;
		(void)pthread_cond_broadcast(&table.changed);
	}
	return now_ms - source->waited_ms < table.fetch_timeout_ms ? CRL_PENDING : CRL_FAILED;
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
	(void)pthread_mutex_lock(&table.mutex);
	if (table.is_running) {
		source = point_find(key);
		if (source == NULL)
			source = point_create(key, urls);
		/* One that was read from the cache has no URLs yet. */
		if (source != NULL && source_create_where(source, urls))
			state = point_answer(source, out);
	}
	(void)pthread_mutex_unlock(&table.mutex);
	return state;
}

enum crl_state crl_for_file(const char *file, struct stack_st_X509_CRL *out)
{
	STACK_OF(X509_CRL) *lists = NULL;
	struct crl_source *source;
	struct stat seen = {0};
	enum crl_state state = CRL_FAILED;

	(void)pthread_mutex_lock(&table.mutex);
	source = file_find(file);
	if (source == NULL) {
		(void)pthread_mutex_unlock(&table.mutex);
		/* Seen before it is read: a change in between is found the next time. */
		(void)stat(file, &seen);
		lists = crl_read_file(file);
		if (lists == NULL)
			return CRL_FAILED;
		lists_settle(lists);
		(void)pthread_mutex_lock(&table.mutex);
		source = file_find(file);
		if (source == NULL) {
			source = source_create(&table.files, "", file);
			if (source != NULL) {
				source->seen = seen;
				source_take(source, lists);
				lists = NULL;
			}
		}
	}
	if (source != NULL) {
		source_give(source, out);
		state = CRL_HERE;
	}
	(void)pthread_mutex_unlock(&table.mutex);
	sk_X509_CRL_pop_free(lists, X509_CRL_free);
	return state;
}

/* The thread of files. */

static bool file_has_changed(const struct stat *a, const struct stat *b)
{
	return a->st_size != b->st_size || a->st_ino != b->st_ino || a->st_dev != b->st_dev ||
	       a->st_mtim.tv_sec != b->st_mtim.tv_sec || a->st_mtim.tv_nsec != b->st_mtim.tv_nsec;
}

/* Only this thread writes seen, and where never changes: both are read without the mutex. */
static void file_poll(struct crl_source *source)
{
	char quoted[1024];
	struct stat now;
	STACK_OF(X509_CRL) * lists;

	if (stat(source->where, &now) < 0 || !file_has_changed(&now, &source->seen))
		return;
	source->seen = now;
	lists = crl_read_file(source->where);
	log_event(lists == NULL ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO, NULL, "crl",
		"file=%s result=%s", log_quote_text(source->where, quoted, sizeof(quoted)),
		lists == NULL ? "unreadable" : "read");
	if (lists == NULL)
		return; /* what was there before stays in force */
	lists_settle(lists);
	(void)pthread_mutex_lock(&table.mutex);
	source_take(source, lists);
	(void)pthread_mutex_unlock(&table.mutex);
}

/* Waits for a change, or so long; the mutex is held. */
static void table_wait(uint64_t wait_ms)
{
	struct timespec until;

	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += (time_t)(wait_ms / 1000);
	until.tv_nsec += (long)(wait_ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	(void)pthread_cond_timedwait(&table.changed, &table.mutex, &until);
}

static void *reader_main(void *arg)
{
	uint64_t due_ms = 0;
	unsigned round = 0;

	(void)arg;
	(void)pthread_mutex_lock(&table.mutex);
	while (table.is_running) {
		uint64_t now_ms = crl_now_ms();
		struct link *link = table.files.next;

		if (now_ms < due_ms && table.rounds_wanted == table.rounds_done) {
			table_wait(due_ms - now_ms);
			continue;
		}
		due_ms = now_ms + POLL_MS;
		round = table.rounds_wanted;
		while (link != &table.files && table.is_running) {
			(void)pthread_mutex_unlock(&table.mutex);
			file_poll(OWNER_OF(link, struct crl_source, link));
			(void)pthread_mutex_lock(&table.mutex);
			link = link->next;
		}
		if (table.rounds_done != round) {
			table.rounds_done = round;
			(void)pthread_cond_broadcast(&table.changed);
		}
	}
	(void)pthread_mutex_unlock(&table.mutex);
	return NULL;
}

void crl_look(void)
{
	const uint64_t end_ms = crl_now_ms() + LOOK_MS;
	unsigned round;

	(void)pthread_mutex_lock(&table.mutex);
	round = ++table.rounds_wanted;
	(void)pthread_cond_broadcast(&table.changed);
	while (table.is_running && (int)(table.rounds_done - round) < 0 && crl_now_ms() < end_ms)
		table_wait(end_ms - crl_now_ms());
	(void)pthread_mutex_unlock(&table.mutex);
}

/* The threads that fetch. */

/* When a list that was just had is fetched again. */
static uint64_t refresh_due(const struct crl_source *source)
{
	int64_t left_s = source->end == INT64_MAX ? INT64_MAX : source->end - time(NULL);
	uint64_t wait_ms = table.refresh_interval_ms;

	if (left_s < INT64_MAX / 1000) {
		int64_t margin_s = left_s / 10 > MARGIN_S ? left_s / 10 : MARGIN_S;
		uint64_t left_ms = left_s > margin_s ? (uint64_t)(left_s - margin_s) * 1000 : 0;

		wait_ms = left_ms < wait_ms ? left_ms : wait_ms;
	}
	return crl_now_ms() + (wait_ms > BACKOFF_MIN_MS ? wait_ms : BACKOFF_MIN_MS);
}

static uint64_t retry_due(const struct crl_source *source)
{
	uint64_t wait_ms = BACKOFF_MIN_MS;

	for (unsigned i = 1; i < source->failures && wait_ms < BACKOFF_MAX_MS; i++)
		wait_ms *= 2;
	return crl_now_ms() + (wait_ms < BACKOFF_MAX_MS ? wait_ms : BACKOFF_MAX_MS);
}

/* The next to fetch, or NULL and how long there is nothing to do. */
static struct crl_source *point_take_due(uint64_t *wait_ms)
{
	uint64_t now_ms = crl_now_ms();
	struct link *link;
	struct link *after;

	*wait_ms = FORGOTTEN_MS;
	LIST_FOR_EACH (link, after, &table.points) {
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
	source_take(source, lists);
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
	fetch->timeout_ms = table.fetch_timeout_ms;
	if (table.cache_folder != NULL)
		(void)snprintf(folder, sizeof(folder), "%s", table.cache_folder);
	(void)pthread_mutex_unlock(&table.mutex);
	/* It stays where it is while it is being fetched, and its key and URLs never change. */
	lists = crl_fetch_run(fetch, source->where);
	if (lists != NULL && folder[0] != '\0')
		crl_cache_write(folder, source->key, lists);
	lists_settle(lists);
	(void)pthread_mutex_lock(&table.mutex);
	is_waited_for = source->waited_ms != 0;
	point_settle(source, lists);
	if (!is_waited_for || !table.is_running || table.on_change == NULL)
		return;
	on_change = table.on_change;
	owner = table.owner;
	(void)pthread_mutex_unlock(&table.mutex);
	on_change(owner);
	(void)pthread_mutex_lock(&table.mutex);
}

static void *fetcher_main(void *arg)
{
	struct crl_fetch *fetch = arg;

	(void)pthread_mutex_lock(&table.mutex);
	while (table.is_running) {
		uint64_t wait_ms;
		struct crl_source *source = point_take_due(&wait_ms);

		if (source != NULL)
			point_fetch(source, fetch);
		else
			table_wait(wait_ms);
	}
	(void)pthread_mutex_unlock(&table.mutex);
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
	free(table.cache_folder);
	table.cache_folder = folder;
	table.fetch_timeout_ms = options->fetch_timeout_ms;
	table.refresh_interval_ms = options->refresh_interval_ms;
	table.on_change = options->on_change;
	table.owner = options->owner;
	return 0;
}

void crl_configure(const struct crl_options *options)
{
	(void)pthread_mutex_lock(&table.mutex);
	if (table_create_options(options) < 0)
		log_event(LOG_LEVEL_WARNING, NULL, "crl", "result=not-configured why=memory");
	(void)pthread_cond_broadcast(&table.changed);
	(void)pthread_mutex_unlock(&table.mutex);
}

static void table_keep(const char *key, struct stack_st_X509_CRL *lists)
{
	struct crl_source *source = point_create(key, NULL);

	if (source == NULL) {
		sk_X509_CRL_pop_free(lists, X509_CRL_free);
		return;
	}
	source->touched_ms = crl_now_ms();
	lists_settle(lists);
	source_take(source, lists);
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
	table.thread_count = 0;
	for (unsigned i = 0; i < FETCHER_COUNT; i++)
		crl_fetch_open(&table.fetches[i]);
	for (unsigned i = 0; rc == 0 && i < COUNT_OF(table.threads); i++) {
		struct crl_fetch *fetch = i == 0 ? NULL : &table.fetches[i - 1];

		rc = -pthread_create(
			&table.threads[i], NULL, fetch == NULL ? reader_main : fetcher_main, fetch);
		if (rc == 0)
			table.thread_count++;
	}
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc;
}

int crl_start(const struct crl_options *options)
{
	pthread_condattr_t clock;
	int rc;

	ASSERT(!table.is_running);
	(void)pthread_condattr_init(&clock);
	(void)pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&table.changed, &clock);
	(void)pthread_condattr_destroy(&clock);
	(void)pthread_mutex_lock(&table.mutex);
	rc = table_create_options(options);
	if (rc == 0) {
		if (options->cache_folder != NULL)
			crl_cache_read(options->cache_folder, table_keep);
		table.is_running = true;
		rc = table_start_threads();
	}
	(void)pthread_mutex_unlock(&table.mutex);
	if (rc < 0)
		crl_stop();
	return rc;
}

void crl_stop(void)
{
	bool was_running;

	(void)pthread_mutex_lock(&table.mutex);
	was_running = table.is_running;
	table.is_running = false;
	if (was_running)
		(void)pthread_cond_broadcast(&table.changed);
	(void)pthread_mutex_unlock(&table.mutex);
	for (unsigned i = 0; was_running && i < FETCHER_COUNT; i++)
		crl_fetch_cancel(&table.fetches[i]);
	for (unsigned i = 0; was_running && i < table.thread_count; i++)
		(void)pthread_join(table.threads[i], NULL);
	for (unsigned i = 0; was_running && i < FETCHER_COUNT; i++)
		crl_fetch_close(&table.fetches[i]);
	if (was_running)
		(void)pthread_cond_destroy(&table.changed);
	(void)pthread_mutex_lock(&table.mutex);
	source_free_all(&table.files);
	source_free_all(&table.points);
	table.point_count = 0;
	free(table.cache_folder);
	table.cache_folder = NULL;
	(void)pthread_mutex_unlock(&table.mutex);
}
