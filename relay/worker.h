/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * worker.h: one thread: the ring, the pools and the sessions of one core. The
 * only place where the layers are put together.
 *
 * Workers share the world in force, which is read-only, and what struct worker_shared
 * names; nothing else. A change of the world is prepared on another thread and adopted by
 * the worker between two turns of its loop: sessions go on under the one they began with.
 */

#include "relay/base/stats.h"
#include "relay/doorman.h"
#include "relay/mail/queue_ask.h"
#include "relay/mail/spool_folder.h"
#include "relay/net/ktls.h"
#include "relay/net/loop.h"
#include "relay/quota.h"
#include "relay/world.h"
#include <pthread.h>

/* What all workers see. */
struct worker_shared {
	const struct loop_caps *caps;
	const struct ktls_support *ktls_support;
	struct quota *quota;
	struct doorman *doorman;
	struct spool_folder *spool_folder; /* NULL: there is none */
	unsigned worker_count;
	uint64_t started_s; /* wall clock at start: part of session ids */
	uint16_t random_id; /* and a number that tells this process from another's */

	/* Called by each worker on its own thread when it has opened all it needs. */
	void (*on_open)(void *owner);
	/* A signal came to the worker that reads them. */
	void (*on_signal)(void *owner, int number);
	void *owner;
};

struct worker;
struct worker_change;

/*
 * Prepares worker number index and its listeners (so that privileges can be
 * dropped before it runs). Each mistake is one line on errors. -errno.
 */
NODISCARD int worker_create(unsigned index, const struct worker_shared *shared, struct world *world,
	FILE *errors, struct worker **out);

/* Starts a thread of its own for it. */
NODISCARD int worker_start(struct worker *worker);

/*
 * Runs it on this thread until it is drained. signal_fd is a signalfd: each
 * signal that comes is given to on_signal. Returns 0 or -errno.
 */
NODISCARD int worker_run(struct worker *worker, int signal_fd);

/* Has the thread stop accepting and end its sessions; returns at once. */
void worker_drain(struct worker *worker);

/* A revocation list has come, or will not: whoever waits for it looks again. */
void worker_proof_changed(struct worker *worker);

/*
 * A change of the world in two steps, on any one thread: prepare everything that may fail
 * (for all workers), then adopt or discard. Listening sockets are made for bindings that
 * are new; those that the new world does not have are closed by the worker.
 */
NODISCARD int worker_change_create(
	struct worker *worker, struct world *world, FILE *errors, struct worker_change **out);
void worker_adopt(struct worker *worker, struct worker_change **change);
void worker_change_destroy(struct worker_change **change);

/*
 * Waits until the worker has adopted all that it was handed, or its thread has ended, which never
 * waits for anybody. Not on a worker.
 */
void worker_await_adopted(struct worker *worker);

/*
 * Has it end the sessions of peers that nobody serves any more, or that the list which let them in
 * does not have any more, after their current reply; the second call waits for it as above, and
 * says how many they were. On one thread at a time, and not on a worker.
 */
void worker_end_unserved(struct worker *worker);
uint64_t worker_await_unserved(struct worker *worker);

/*
 * Asks its queues something; ask must stay until the second call, which waits for the answer as
 * above. False: the worker has ended, and ask is not answered. On one thread at a time, and not on
 * a worker. A worker without queues has nothing to tell.
 */
void worker_ask(struct worker *worker, struct queue_ask *ask);
bool worker_await_answer(struct worker *worker, struct queue_ask *ask);

/* Waits for the thread. Returns 0, or the -errno that ended it. */
int worker_join(struct worker *worker);

/* Frees it; the thread must have ended or never begun. */
void worker_destroy(struct worker **worker);

/* Its counters; read them any time. */
const struct stats *worker_stats(const struct worker *worker);
