/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * seen.h: which messages of which runs of load have come, and which were promised: two bits for
 * each number, in pages that are made where numbers lie. For all threads, behind one lock.
 *
 * Memory is bounded by SEEN_PAGES_MAX; what finds no room is counted, and what is said of loss and
 * duplicates is then not to be trusted.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Numbers of one page: 4 KiB for each of the two. */
#define SEEN_PAGE_IDS 32768

/* 256 MiB of pages, for a thousand million numbers. */
#define SEEN_PAGES_MAX 32768

struct seen;

struct seen_totals {
	uint64_t lost;           /* promised, but not seen */
	uint64_t unacknowledged; /* seen, but not promised */
	uint64_t unwatched;      /* calls of seen_add() and seen_promise() that found no room */
};

/* NULL: no memory. */
struct seen *seen_create(void);
void seen_destroy(struct seen **seen);

/* It has come. False: it had come before. */
bool seen_add(struct seen *seen, uint64_t run, uint64_t id);

/* The sender was told that it is accepted. */
void seen_promise(struct seen *seen, uint64_t run, uint64_t id);

void seen_total(struct seen *seen, struct seen_totals *out);

/* Forgets all. */
void seen_reset(struct seen *seen);
