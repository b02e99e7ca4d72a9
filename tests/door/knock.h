/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * knock.h: connecting to a relay from any address, and how that ends; once, or from threads that
 * go on until they are told to stop.
 */

#include "tests/e2e/suite.h"
#include <stdatomic.h>
#include <sys/time.h>

enum knock_end {
	KNOCK_SERVED,  /* a greeting came */
	KNOCK_REFUSED, /* ECONNREFUSED: there never was a connection */
	KNOCK_CLOSED,  /* a connection, or the beginning of one, and no greeting */
	KNOCK_BUSY,    /* 421 */
	KNOCK_SILENT,  /* neither a connection nor an end within the time limit */
	KNOCK_FAILED,  /* anything else: error */
	KNOCK_END_COUNT,
};

const char *knock_word(enum knock_end end);

struct knock {
	enum knock_end end;
	int error;
	int fd;            /* of a session that is to be kept; -1 */
	char greeting[64]; /* without "220 " */
};

/* From one address to another; any thread. With keep the session stays open. */
struct knock knock(const char *from, const char *to, unsigned port, bool keep);

/* The same, where a greeting is awaited no longer than that. */
struct knock knock_within(
	const char *from, const char *to, unsigned port, const struct timeval *patience);

/* A session that was kept: does it answer NOOP? */
bool knock_lives(int fd);

/* One row of a table. greeting: of who is served; NULL: refused. */
struct visit {
	const char *from, *to;
	unsigned port; /* 0: DAEMON_PORT */
	const char *greeting;
};

/* Ends the case unless each goes as the row says. Refused is KNOCK_REFUSED if by_kernel. */
void visit_all(const struct visit *visits, unsigned count, bool by_kernel);
#define VISIT_ALL(visits, by_kernel) visit_all(visits, COUNT_OF(visits), by_kernel)

/* ---- many */

#define CROWD_THREADS_MAX 16

/*
 * Threads that knock, each with addresses of its own: the pattern's "%u" runs from first, for count
 * addresses. What must not be is remembered, and never stops them.
 */
struct crowd_plan {
	const char *pattern; /* "10.1.0.%u" */
	unsigned first, count;
	const char *to;
	unsigned port;
	unsigned allowed;     /* bits of enum knock_end: how a knock may end */
	unsigned per_second;  /* 0: as fast as it goes */
	const char *greeting; /* of who is served; NULL: any */
};

struct crowd;

/* Starts a thread for the plan; the case ends if there are too many. */
struct crowd *crowd_start(const struct crowd_plan *plan);

/* How many knocks ended so, up to now. */
unsigned long crowd_ends(const struct crowd *crowd, enum knock_end end);
unsigned long crowd_knocks(const struct crowd *crowd);

/* What may be is something else from now on; knocks under way are judged by both. */
void crowd_allow(struct crowd *crowd, unsigned allowed);

/* Waits for so many more knocks to begin and end. The case ends if it takes too long. */
void crowd_await(const struct crowd *crowd, unsigned long more);

/* Stops it; the case ends if any knock ended otherwise than the plan allows. */
void crowd_stop(struct crowd *crowd);
