/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * run.h: one relay, its sender and its sink: killed again and again, then drained and judged.
 */

#include "tests/crash/daemon.h"
#include "tests/crash/sink.h"

struct run_options {
	struct daemon_options daemon; /* the ports are chosen by the run */
	uint64_t seed;
	unsigned rounds;
	unsigned connections;
	unsigned up_ms_max; /* a life is killed so long after it is ready, at the most */
	unsigned doubt_ms;
	unsigned patience_s; /* for the end: until everything has come */
	enum sink_spoil spoil;
	/* For a machine that is killed, and not the relay alone: */
	const char *journal;        /* where lines go; NULL: none is kept */
	const char *const *earlier; /* journals of the lives before, NULL at the end */
	uint64_t first_id;
};

/* How a run ends; bits. */
enum run_result {
	RUN_LOST = 1,   /* what was acknowledged */
	RUN_WRONG = 2,  /* came twice, or spoiled, or should not have come */
	RUN_FAILED = 4, /* could not be done: the relay does not start, or takes nothing */
};

/* Kills the relay options->rounds times. */
unsigned run_kills(const struct run_options *options);

/* A life that ends when the machine does; or after that many seconds, with RUN_FAILED. */
unsigned run_until_cut(const struct run_options *options, unsigned seconds);

/*
 * The disk (brittle.c, that process) holds its flushes for a while: nothing may be acknowledged
 * then, and all goes on behind it. RUN_LOST: something was.
 */
unsigned run_hold(const struct run_options *options, int disk);

/* A life without a sender: everything that is owed has to come. Then it is judged. */
unsigned run_to_end(const struct run_options *options);
