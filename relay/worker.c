/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/worker.h"

#include "relay/base/limits.h"
#include "relay/base/log.h"
#include "relay/base/protolog.h"
#include "relay/base/track.h"
#include "relay/pki/crl.h"
#include "relay/worker_private.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Length of the submission queue: what one turn may ask for before it is submitted early. */
#define RING_ENTRIES 1024

/* Large buffers of one worker: 256 bodies at full speed; the others use small ones. */
#define BULK_BUFFERS 256

const struct stats *worker_stats(const struct worker *worker)
{
	return &worker->stats;
}

/*
 * Logging: lines gather while the ones before are written. io_uring hands each write to a file to
 * another thread, so a busy relay also waits for more: in each stretch of LOG_STRETCH_MS the first
 * LOG_WRITES_AT_ONCE writes go out at the end of their turn, and what comes then at the end of the
 * stretch, or when it is enough.
 */
#define LOG_WRITE_BYTES_MIN 16384
#define LOG_STRETCH_MS 50
#define LOG_WRITES_AT_ONCE 16

static void worker_log_write(struct worker *worker)
{
	loop_write(worker->loop, &worker->log_op, STDERR_FILENO,
		worker->log_writing->bytes + worker->log_written,
		worker->log_writing->len - worker->log_written);
}

static void worker_log_flush(struct worker *worker)
{
	struct log_buffer *full = worker->log_filling;

	if (worker->log_op.in_flight || full->len == 0)
		return;
	if (loop_now_ms(worker->loop) >= worker->log_due_ms) {
		worker->log_due_ms = loop_now_ms(worker->loop) + LOG_STRETCH_MS;
		worker->log_writes = 0;
	}
	if (worker->log_writes >= LOG_WRITES_AT_ONCE && full->len < LOG_WRITE_BYTES_MIN) {
		if (!link_is_queued(&worker->log_timer.link))
			timer_set(
				loop_timers(worker->loop), &worker->log_timer, worker->log_due_ms);
		return;
	}
	worker->log_writes++;
	worker->log_filling = worker->log_writing;
	worker->log_filling->len = 0;
	log_attach(worker->log_filling);
	worker->log_writing = full;
	worker->log_written = 0;
	worker_log_write(worker);
}

/* The turn in which it fires ends with a look at what has gathered. */
static void worker_log_fire(struct timer *timer)
{
	(void)timer;
}

static void worker_log_done(struct op *op, int32_t result, uint32_t flags)
{
	struct worker *worker = OWNER_OF(op, struct worker, log_op);

	(void)flags;
	if (result > 0)
		worker->log_written += (size_t)result;
	if (result > 0 && worker->log_written < worker->log_writing->len)
		worker_log_write(worker);
	/* A reader that is gone costs lines, never mail. */
}

/* At the end nobody is kept waiting by a slow reader any more. */
static void worker_log_finish(struct worker *worker)
{
	ssize_t written =
		write(STDERR_FILENO, worker->log_filling->bytes, worker->log_filling->len);

	(void)written;
	log_attach(NULL);
}

/* The end. */

static void worker_drain_now(struct worker *worker)
{
	struct link *link;
	struct link *after;

	if (worker->is_draining)
		return;
	worker->is_draining = true;
	worker_drain_queue(worker);
	LIST_FOR_EACH (link, after, &worker->listeners)
		listener_close(&OWNER_OF(link, struct worker_listener, link)->listener);
	LIST_FOR_EACH (link, after, &worker->open_sessions)
		session_drain(&OWNER_OF(link, struct worker_session, link)->session);
	LIST_FOR_EACH (link, after, &worker->views)
		router_drain(OWNER_OF(link, struct view, link)->router);
	timer_set(loop_timers(worker->loop), &worker->drain_timer,
		loop_now_ms(worker->loop) + worker->view->world->policy->drain_timeout_ms);
}

/* Patience is over: what still runs is cut off, and its client has not been told 250. */
static void worker_drain_expired(struct timer *timer)
{
	struct worker *worker = OWNER_OF(timer, struct worker, drain_timer);
	struct link *link;
	struct link *after;

	LIST_FOR_EACH (link, after, &worker->open_sessions)
		session_kick(&OWNER_OF(link, struct worker_session, link)->session,
			"421 4.3.2 Service not available, closing transmission channel");
	worker_abort_queue(worker);
	LIST_FOR_EACH (link, after, &worker->views)
		router_abort(OWNER_OF(link, struct view, link)->router);
}

static bool worker_is_done(const struct worker *worker)
{
	struct link *link;
	struct link *after;

	if (!worker->is_draining || !list_is_empty(&worker->open_sessions))
		return false;
	LIST_FOR_EACH (link, after, &worker->listeners) {
		if (!listener_is_closed(&OWNER_OF(link, struct worker_listener, link)->listener))
			return false;
	}
	LIST_FOR_EACH (link, after, &worker->views) {
		if (!router_is_closed(OWNER_OF(link, struct view, link)->router))
			return false;
	}
	return worker_queue_is_done(worker) && !worker->log_op.in_flight;
}

/* What others ask of a worker. */

static void worker_await_wake(struct worker *worker)
{
	loop_read(worker->loop, &worker->wake_op, worker->wake_fd, &worker->wake_value,
		sizeof(worker->wake_value));
}

void worker_wake(struct worker *worker, enum worker_wake why)
{
	uint64_t one = 1;
	ssize_t written;

	(void)atomic_fetch_or(&worker->wake_why, why);
	written = write(worker->wake_fd, &one, sizeof(one));
	(void)written; /* it cannot fail: the counter never comes near its end */
}

void worker_drain(struct worker *worker)
{
	worker_wake(worker, WORKER_WAKE_DRAIN);
}

void worker_proof_changed(struct worker *worker)
{
	worker_wake(worker, WORKER_WAKE_PROOF);
}

static void worker_look_again(struct worker *worker)
{
	struct link *link;
	struct link *after;

	LIST_FOR_EACH (link, after, &worker->open_sessions)
		session_proof_changed(&OWNER_OF(link, struct worker_session, link)->session);
	LIST_FOR_EACH (link, after, &worker->views)
		router_proof_changed(OWNER_OF(link, struct view, link)->router);
	if (worker->queues != NULL)
		queues_proof_changed(worker->queues);
}

static void worker_on_wake(struct op *op, int32_t result, uint32_t flags)
{
	struct worker *worker = OWNER_OF(op, struct worker, wake_op);
	unsigned why = atomic_exchange(&worker->wake_why, 0);

	(void)result;
	(void)flags;
	if (why & WORKER_WAKE_CHANGE)
		worker_adopt_all(worker);
	if (why & WORKER_WAKE_UNSERVED)
		worker_do_end_unserved(worker);
	if (why & WORKER_WAKE_ASK)
		worker_do_ask(worker);
	if (why & WORKER_WAKE_PROOF)
		worker_look_again(worker);
	if (why & WORKER_WAKE_DRAIN)
		worker_drain_now(worker);
	worker_await_wake(worker);
}

static void worker_await_signal(struct worker *worker)
{
	loop_read(worker->loop, &worker->signal_op, worker->signal_fd, &worker->signal,
		sizeof(worker->signal));
}

static void worker_signal_done(struct op *op, int32_t result, uint32_t flags)
{
	struct worker *worker = OWNER_OF(op, struct worker, signal_op);

	(void)flags;
	if (result == (int32_t)sizeof(worker->signal))
		worker->shared->on_signal(worker->shared->owner, (int)worker->signal.ssi_signo);
	worker_await_signal(worker);
}

/* The beginning. */

static int worker_create_sessions(struct worker *worker)
{
	const struct world *world = worker->view->world;
	int rc = conn_net_create(&worker->net, worker->loop, (unsigned)world->connections_max,
		BULK_BUFFERS, worker->shared->ktls_support);

	if (rc == 0)
		rc = pool_create(&worker->sessions, world->policy->max_sessions,
			sizeof(struct worker_session), 64);
	return rc;
}

static int worker_allocate(struct worker *worker)
{
	worker->log_filling = calloc(1, sizeof(*worker->log_filling));
	worker->log_writing = calloc(1, sizeof(*worker->log_writing));
	if (worker->log_filling == NULL || worker->log_writing == NULL)
		return -ENOMEM;
	worker->wake_fd = eventfd(0, EFD_CLOEXEC);
	return worker->wake_fd < 0 ? -errno : 0;
}

int worker_create(unsigned index, const struct worker_shared *shared, struct world *world,
	FILE *errors, struct worker **out)
{
	struct worker *worker = calloc(1, sizeof(*worker));
	struct view *view = NULL;
	int rc;

	if (worker == NULL)
		return -ENOMEM;
	worker->index = index;
	worker->shared = shared;
	worker->wake_fd = -1;
	worker->wake_op.done = worker_on_wake;
	worker->log_op.done = worker_log_done;
	timer_init(&worker->log_timer, worker_log_fire);
	worker->signal_fd = -1;
	worker->signal_op.done = worker_signal_done;
	(void)pthread_mutex_init(&worker->change_lock, NULL);
	(void)pthread_cond_init(&worker->progress, NULL);
	link_init(&worker->changes);
	link_init(&worker->asks);
	link_init(&worker->open_sessions);
	link_init(&worker->views);
	link_init(&worker->listeners);
	timer_init(&worker->drain_timer, worker_drain_expired);
	rc = worker_allocate(worker);
	if (rc == 0)
		rc = worker_create_listeners(worker, world, errors, &worker->listeners);
	if (rc == 0)
		rc = view_create(world, &worker->net, worker->index, errors, &view);
	if (rc < 0) {
		worker_destroy(&worker);
		return rc;
	}
	worker_use_view(worker, view);
	*out = worker;
	return 0;
}

/* What belongs to the ring is made on its own thread: a ring has a single issuer. */
static int worker_open(struct worker *worker)
{
	int rc = loop_create(worker->shared->caps, RING_ENTRIES, &worker->loop);
	struct link *link;
	struct link *after;

	if (rc < 0) {
		log_event(LOG_LEVEL_ERROR, NULL, "stop", "worker=%u why=%s", worker->index,
			loop_why_not(-rc));
		return rc;
	}
	rc = worker_create_sessions(worker);
	if (rc == 0)
		rc = worker_create_queue(worker);
	if (rc == 0)
		rc = view_open(worker->view);
	if (rc < 0)
		return rc;
	worker_start_queue(worker);
	LIST_FOR_EACH (link, after, &worker->listeners)
		listener_start(
			&OWNER_OF(link, struct worker_listener, link)->listener, worker->loop);
	worker_await_wake(worker);
	if (worker->signal_fd >= 0)
		worker_await_signal(worker);
	return 0;
}

/* Tickets and sessions end with the lists or the policy that they were given under. */
static void worker_refresh_tls(struct worker *worker)
{
	struct link *link;
	struct link *after;

	if (worker->lists_generation == crl_generation())
		return;
	worker->lists_generation = crl_generation();
	LIST_FOR_EACH (link, after, &worker->views)
		view_refresh_tls(OWNER_OF(link, struct view, link));
}

static void *worker_main(void *arg)
{
	struct worker *worker = arg;

	stats_mine = &worker->stats;
	protolog_attach(worker->index);
	track_attach(worker->index);
	worker->result = worker_open(worker);
	if (worker->result == 0)
		worker->shared->on_open(worker->shared->owner);
	log_attach(worker->log_filling);
	while (worker->result == 0 && !worker_is_done(worker)) {
		worker->result = loop_turn(worker->loop);
		worker_sweep(worker);
		worker_refresh_tls(worker);
		worker_close_spools(worker);
		worker_log_flush(worker);
	}
	worker_log_finish(worker);
	if (worker->result < 0)
		log_event(LOG_LEVEL_ERROR, NULL, "stop", "worker=%u why=\"%s\"", worker->index,
			strerror(-worker->result));
	worker_tell_end(worker);
	/* Whoever watches the process must not take a dead worker for an idle one. */
	if (worker->result < 0)
		(void)kill(getpid(), SIGTERM);
	return NULL;
}

int worker_run(struct worker *worker, int signal_fd)
{
	worker->signal_fd = signal_fd;
	(void)worker_main(worker);
	return worker->result;
}

int worker_start(struct worker *worker)
{
	return -pthread_create(&worker->thread, NULL, worker_main, worker);
}

int worker_join(struct worker *worker)
{
	int rc = pthread_join(worker->thread, NULL);

	return rc != 0 ? -rc : worker->result;
}

void worker_destroy(struct worker **out)
{
	struct worker *worker = *out;
	struct link *link;
	struct link *after;

	if (worker == NULL)
		return;
	*out = NULL;
	if (worker->result < 0)
		return; /* its sessions are as they were when the ring broke: the process ends */
	worker_free_listeners(&worker->listeners);
	LIST_FOR_EACH (link, after, &worker->changes) {
		struct worker_change *change = OWNER_OF(link, struct worker_change, link);

		link_remove(link);
		worker_change_destroy(&change);
	}
	LIST_FOR_EACH (link, after, &worker->views) {
		struct view *view = OWNER_OF(link, struct view, link);

		view_destroy(&view);
	}
	worker_destroy_queue(worker);
	if (worker->loop != NULL) {
		loop_destroy(&worker->loop);
		pool_destroy(&worker->sessions);
		conn_net_destroy(&worker->net);
	}
	if (worker->wake_fd >= 0)
		(void)close(worker->wake_fd);
	(void)pthread_mutex_destroy(&worker->change_lock);
	(void)pthread_cond_destroy(&worker->progress);
	free(worker->log_filling);
	free(worker->log_writing);
	free(worker);
}
