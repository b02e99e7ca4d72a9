/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * faults.h: what the sink does wrong on purpose, and what it delays.
 *
 * Each fault has a rate. Whether the N-th event of its step is hit depends on the seed and N
 * only, so two runs with the same seed hit equally many, at whatever time and in whatever session
 * that event comes. Shared by all threads.
 */

#include "bench/common/options.h"

#include <stdatomic.h>

#define FAULTS_MAX OPTIONS_LIST_MAX

/* Where a reply is due. */
enum faults_step {
	FAULTS_ACCEPT, /* the banner */
	FAULTS_MAIL,
	FAULTS_RCPT,
	FAULTS_DATA,
	FAULTS_BODY, /* the end of a body, or of the last BDAT */
	FAULTS_STEP_COUNT,
};

extern const char *const faults_step_names[FAULTS_STEP_COUNT];

#define FAULTS_NONE 0
#define FAULTS_CLOSE 1 /* the connection is closed, and there is no reply */

/* One --fault or --delay. */
struct fault {
	enum faults_step step;
	unsigned what;  /* FAULTS_CLOSE or a code; of a delay: ms */
	uint64_t share; /* of 2^32 events */
	uint64_t salt;  /* so that no two hit the same events */
	_Atomic uint64_t events;
};

struct faults {
	size_t fault_count;
	struct fault faults[FAULTS_MAX];
	size_t delay_count;
	struct fault delays[FAULTS_MAX];
	uint64_t max;           /* faults in all; delays do not count */
	_Atomic uint64_t given; /* so far */
};

/*
 * Reads "body=451:0.01" and "rcpt=5xx", and "body=20:0.5". False: it is not to be understood, or
 * there are too many.
 */
bool faults_read(struct faults *faults, const char *text, uint64_t seed);
bool faults_read_delay(struct faults *faults, const char *text, uint64_t seed);

/* The next event of a step: FAULTS_NONE, FAULTS_CLOSE or the code to answer. */
unsigned faults_draw(struct faults *faults, enum faults_step step);

/* And how long its reply is to wait, in ms. */
unsigned faults_draw_delay(struct faults *faults, enum faults_step step);
