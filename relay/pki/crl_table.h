/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * crl_table.h: what the files of crl.h share: the table of lists, and its mutex.
 *
 *   crl.c         lists of distribution points, and the threads that fetch them
 *   crl_file.c    lists in files, and the thread that looks at them
 *   crl_fetch.c   reading and fetching itself, without the table
 */

#include "relay/base/list.h"
#include "relay/pki/crl.h"
#include "relay/pki/crl_fetch.h"
#include <pthread.h>
#include <sys/stat.h>

/*
 * One thread reads files; so many fetch, since one distribution point that does not
 * answer may not keep the lists of other partners waiting.
 */
#define CRL_FETCHER_COUNT 3

/* A file, or the URLs of a distribution point, and what was found there. */
struct crl_source {
	struct link link;
	char key[CRL_KEY_BYTES]; /* of the URLs; "" for a file */
	char *where;             /* file name or URLs; NULL: kept from before, not yet asked for */
	struct stack_st_X509_CRL *lists; /* NULL: none */
	int64_t end;                     /* the first nextUpdate of them */
	uint64_t touched_ms;             /* when it was last asked for */
	uint64_t waited_ms;              /* since when somebody waits for it; 0: nobody */
	uint64_t due_ms;                 /* when it is fetched again */
	unsigned failures;               /* since it was last had */
	bool is_fetching;
	struct stat seen; /* of a file, when it was read */
};

struct crl_table {
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
	pthread_t threads[1 + CRL_FETCHER_COUNT];
	unsigned thread_count;
	struct crl_fetch fetches[CRL_FETCHER_COUNT];
};

extern struct crl_table crl_table;

/* Sources; the mutex is held. */

/* One more at the end of a list; where may be NULL. NULL: no memory. */
struct crl_source *crl_source_create(struct link *list, const char *key, const char *where);

/* Takes the lists over. What is new makes verdicts and tickets of before worth nothing. */
void crl_source_take(struct crl_source *source, struct stack_st_X509_CRL *lists);

/* Its lists, added to out. */
void crl_source_give(const struct crl_source *source, struct stack_st_X509_CRL *out);

/* Waits for a change, or so long; the mutex is held. */
void crl_table_wait(uint64_t wait_ms);

/* A list is sorted by the first look-up: here, and not in a worker that shares it with others. */
void crl_lists_settle(struct stack_st_X509_CRL *lists);

/* The thread that looks at files; no argument. */
void *crl_file_main(void *arg);
