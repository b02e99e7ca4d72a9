/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * crl_fetch.h: where revocation lists come from: a certificate names URLs, a URL or a file
 * holds lists, and a folder keeps what was fetched over a restart. For crl.c, which knows
 * when; nothing here takes its mutex, and all but crl_urls() may wait for disk or network.
 */

#include "relay/base/assert.h"
#include "relay/base/clock.h"
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct stack_st_X509_CRL;
struct x509_st;

/* All URLs of one certificate, joined by "\n". */
#define CRL_URLS_BYTES 4096

/* Hex of SHA-256 of the URLs: the name of the list, and of its file without ".crl". */
#define CRL_KEY_BYTES 65

/*
 * The http: URLs of a certificate's distribution points, in their order; others, as
 * ldap:, are passed over. False: it has none.
 */
bool crl_urls(struct x509_st *certificate, char out[static CRL_URLS_BYTES]);

/* Their key. */
NODISCARD bool crl_key(const char *urls, char out[static CRL_KEY_BYTES]);

/* A fetch under way, so that it can be cut off. */
struct crl_fetch {
	uint64_t timeout_ms; /* of each URL */
	pthread_mutex_t mutex;
	bool is_over; /* set by crl_fetch_cancel() */
	int fd;       /* -1: not connected */
	uint64_t due_ms;
	unsigned connects;
};

void crl_fetch_open(struct crl_fetch *fetch);
void crl_fetch_close(struct crl_fetch *fetch);

/* Tries the URLs one after the other; the list, or NULL. Written to the log. */
struct stack_st_X509_CRL *crl_fetch_run(struct crl_fetch *fetch, const char *urls);

/* Has a crl_fetch_run() on another thread end soon; for good. */
void crl_fetch_cancel(struct crl_fetch *fetch);

/* The lists in a file, PEM or DER; NULL if there is none, or one that cannot be read. */
struct stack_st_X509_CRL *crl_read_file(const char *file);

/* Keeps a list as FOLDER/KEY.crl, written beside and renamed. A failure is logged. */
void crl_cache_write(const char *folder, const char *key, struct stack_st_X509_CRL *lists);

/* What a folder keeps: calls keep for each list that is in force; files of old ones are removed. */
void crl_cache_read(
	const char *folder, void (*keep)(const char *key, struct stack_st_X509_CRL *lists));

/* The first nextUpdate of them; INT64_MAX for lists that have none, INT64_MIN for unreadable. */
int64_t crl_lists_end(struct stack_st_X509_CRL *lists);

/* Do they say the same, byte for byte? NULL is like nothing but NULL. */
bool crl_lists_equal(struct stack_st_X509_CRL *a, struct stack_st_X509_CRL *b);
