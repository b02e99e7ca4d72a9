/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/log.h"
#include "relay/pki/crl_table.h"
#include <openssl/x509.h>
#include <string.h>

/*
 * crl_file.c: lists in files of the configuration, and the thread that reads one again
 * when it has changed.
 */

/* Files are looked at so often. */
#define POLL_MS 1000

/* How long a reload waits for the files to be looked at; a dead disk must not stop it. */
#define LOOK_MS 5000

static struct crl_source *file_find(const char *file)
{
	struct link *link;
	struct link *after;

	LIST_FOR_EACH (link, after, &crl_table.files) {
		struct crl_source *source = OWNER_OF(link, struct crl_source, link);

		if (strcmp(source->where, file) == 0)
			return source;
	}
	return NULL;
}

enum crl_state crl_for_file(const char *file, struct stack_st_X509_CRL *out)
{
	STACK_OF(X509_CRL) *lists = NULL;
	struct crl_source *source;
	struct stat seen = {0};
	enum crl_state state = CRL_FAILED;

	(void)pthread_mutex_lock(&crl_table.mutex);
	source = file_find(file);
	if (source == NULL) {
		(void)pthread_mutex_unlock(&crl_table.mutex);
		/* Seen before it is read: a change in between is found the next time. */
		(void)stat(file, &seen);
		lists = crl_read_file(file);
		if (lists == NULL)
			return CRL_FAILED;
		crl_lists_settle(lists);
		(void)pthread_mutex_lock(&crl_table.mutex);
		source = file_find(file);
		if (source == NULL) {
			source = crl_source_create(&crl_table.files, "", file);
			if (source != NULL) {
				source->seen = seen;
				crl_source_take(source, lists);
				lists = NULL;
			}
		}
	}
	if (source != NULL) {
		crl_source_give(source, out);
		state = CRL_HERE;
	}
	(void)pthread_mutex_unlock(&crl_table.mutex);
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
	crl_lists_settle(lists);
	(void)pthread_mutex_lock(&crl_table.mutex);
	crl_source_take(source, lists);
	(void)pthread_mutex_unlock(&crl_table.mutex);
}

void *crl_file_main(void *arg)
{
	uint64_t due_ms = 0;
	unsigned round = 0;

	(void)arg;
	(void)pthread_mutex_lock(&crl_table.mutex);
	while (crl_table.is_running) {
		uint64_t now_ms = clock_now_ms();
		struct link *link = crl_table.files.next;

		if (now_ms < due_ms && crl_table.rounds_wanted == crl_table.rounds_done) {
			crl_table_wait(due_ms - now_ms);
			continue;
		}
		due_ms = now_ms + POLL_MS;
		round = crl_table.rounds_wanted;
		while (link != &crl_table.files && crl_table.is_running) {
			(void)pthread_mutex_unlock(&crl_table.mutex);
			file_poll(OWNER_OF(link, struct crl_source, link));
			(void)pthread_mutex_lock(&crl_table.mutex);
			link = link->next;
		}
		if (crl_table.rounds_done != round) {
			crl_table.rounds_done = round;
			(void)pthread_cond_broadcast(&crl_table.changed);
		}
	}
	(void)pthread_mutex_unlock(&crl_table.mutex);
	return NULL;
}

void crl_look(void)
{
	const uint64_t end_ms = clock_now_ms() + LOOK_MS;
	unsigned round;

	(void)pthread_mutex_lock(&crl_table.mutex);
	round = ++crl_table.rounds_wanted;
	(void)pthread_cond_broadcast(&crl_table.changed);
	while (crl_table.is_running && (int)(crl_table.rounds_done - round) < 0 &&
		clock_now_ms() < end_ms)
		crl_table_wait(end_ms - clock_now_ms());
	(void)pthread_mutex_unlock(&crl_table.mutex);
}
