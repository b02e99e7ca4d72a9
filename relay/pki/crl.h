/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * crl.h: revocation lists: files of the configuration, and lists fetched from the
 * distribution points that certificates name.
 *
 * Threads of its own read, fetch (HTTP, by OpenSSL's OSSL_HTTP_get(); http: URLs only,
 * bounded in time, size and redirections) and store them; workers only look up, under a
 * mutex that nobody holds while waiting. A list is taken only if it parses; whether its
 * signature is right is judged with the chain. Lists are fetched again before their
 * nextUpdate, and every refresh interval; one that cannot be had again stays in force until
 * its nextUpdate.
 *
 * crl_generation() goes up whenever the content of any list changed: verdicts and
 * tickets from before are worth nothing then.
 */

#include "relay/base/assert.h"
#include <stdint.h>

struct stack_st_X509_CRL;
struct x509_st;

struct crl_options {
	const char *cache_folder; /* NULL: memory only */
	uint64_t fetch_timeout_ms;
	uint64_t refresh_interval_ms;
	/* Called on one of the threads when a fetch that somebody asked for has ended, well or not.
	 */
	void (*on_change)(void *owner);
	void *owner;
};

/* Starts the threads; lists of the cache folder are there when it returns. -errno. */
NODISCARD int crl_start(const struct crl_options *options);
void crl_stop(void);

/* Changed options after a reload. */
void crl_configure(const struct crl_options *options);

uint64_t crl_generation(void);

/*
 * Looks at all files now, and returns when that is done: what a reload finds must be what is in the
 * files. Waits, so never on a worker; nothing while the thread does not run.
 */
void crl_look(void);

enum crl_state {
	CRL_NONE,    /* the certificate names no distribution point that we can fetch */
	CRL_HERE,    /* lists were added to out */
	CRL_PENDING, /* it is being fetched: ask again after on_change */
	CRL_FAILED,  /* it could not be had; tried again later */
};

/* The lists of the distribution points that a certificate names, added to out. Starts a fetch. */
enum crl_state crl_for_certificate(struct x509_st *certificate, struct stack_st_X509_CRL *out);

/* The list or lists in a file (PEM or DER), read again when it changes. */
enum crl_state crl_for_file(const char *file, struct stack_st_X509_CRL *out);
