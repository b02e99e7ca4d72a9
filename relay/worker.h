/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * worker.h: one thread: the ring, the pools and the sessions of one core. The
 * only place where the layers are put together.
 *
 * Workers share the policy, which is read-only, and the door; nothing else.
 */

#include "policy/policy.h"
#include "relay/base/stats.h"
#include "relay/door.h"
#include "relay/net/ktls.h"
#include "relay/net/loop.h"
#include "relay/pki/trust.h"
#include <pthread.h>
#include <stdatomic.h>

/* What all workers see. */
struct worker_shared {
	const struct policy *policy;
	const struct trust_set *trusts; /* of the policy */
	const struct loop_caps *caps;
	const struct ktls_support *ktls_support;
	struct door *door;
	uint64_t started_s; /* wall clock at start: part of session ids */
	uint16_t random_id; /* and a number that tells this process from another's */

	/* Called by each worker on its own thread when it has opened all it needs. */
	void (*on_open)(void *owner);
	/* A signal came to the worker that reads them. */
	void (*on_signal)(void *owner, int number);
	void *owner;
};

struct worker;

/*
 * Prepares worker number index and its listeners (so that privileges can be
 * dropped before it runs). Each mistake is one line on stderr. -errno.
 */
NODISCARD int worker_create(
	unsigned index, const struct worker_shared *shared, struct worker **out);

/* Starts a thread of its own for it. */
NODISCARD int worker_start(struct worker *worker);

/*
 * Runs it on this thread until it is drained. signal_fd is a signalfd: each
 * signal that comes is given to on_signal. Returns 0 or -errno.
 */
NODISCARD int worker_run(struct worker *worker, int signal_fd);

/* Has the thread stop accepting and end its sessions; returns at once. */
void worker_drain(struct worker *worker);

/* Waits for the thread. Returns 0, or the -errno that ended it. */
int worker_join(struct worker *worker);

/* Frees it; the thread must have ended or never begun. */
void worker_destroy(struct worker **worker);

/* Its counters; read them any time. */
const struct stats *worker_stats(const struct worker *worker);
