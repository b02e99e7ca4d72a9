/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * worker_private.h: what the files of a worker share.
 *
 *   worker.c          the thread: loop, log, signals, beginning and end
 *   worker_accept.c   from an accepted socket to a session, or a refusal
 *   worker_change.c   listening sockets and views, and how they are replaced
 *   worker_sink.c     where the mail of a session goes
 *   worker_queue.c    the spool and the queues, and what is asked of them
 */

#include "relay/base/log.h"
#include "relay/mail/proxy.h"
#include "relay/mail/queue_ask.h"
#include "relay/mail/sink_queue.h"
#include "relay/mail/sink_through.h"
#include "relay/net/listener.h"
#include "relay/smtp/session.h"
#include "relay/view.h"
#include "relay/worker.h"
#include <sys/signalfd.h>

/* Both ends of an accepted connection. */
struct worker_peer {
	struct ip ip;
	uint32_t zone;
	uint16_t port;
	char address[ADDRESS_TEXT_BYTES];
	char local_text[ADDRESS_TEXT_BYTES + 10];
	struct address local;
};

/* Straight through, with the queue behind. */
struct worker_through {
	struct sink_through sink;
	struct proxy proxy;
	struct sink_queue queue;
};

enum worker_sink_kind {
	WORKER_SINK_PROXY,
	WORKER_SINK_QUEUE,
	WORKER_SINK_THROUGH,
};

struct worker_session {
	struct session session;
	enum worker_sink_kind kind; /* which of these session.sink is of */
	union {
		struct proxy proxy;
		struct sink_queue queue;
		struct worker_through *through; /* owned; so other sessions do not pay for it */
	};
	struct worker *worker;
	struct worker_peer ends; /* of the connection; who the client is, session.client says */
	struct view *view;       /* it began under */
	struct view *out_view;   /* its mail goes by */
	const struct partner *partner; /* of the view; whose list has let it in; NULL: none */
	struct quota_place place;
	struct link link;
};

/* Where mail goes, by the rules of a view. */
struct worker_way {
	struct view *view;
	const struct receive_connector *receive; /* of the view, or the session's own */
	const struct send_connector *send;       /* of the view; NULL: by address space */
};

struct worker_listener {
	struct listener listener;
	struct link link;
};

/* A view that is to be put in force, and the listening sockets that are new with it. */
struct worker_change {
	struct link link;
	struct view *view;
	struct link listeners;
};

/* Why a worker was woken; a set of bits. */
enum worker_wake {
	WORKER_WAKE_DRAIN = 1,
	WORKER_WAKE_CHANGE = 2,
	WORKER_WAKE_PROOF = 4,
	WORKER_WAKE_UNSERVED = 8,
	WORKER_WAKE_ASK = 16,
};

/* What other threads wait for: asked for and done so many times. */
struct worker_duty {
	uint64_t asked;
	uint64_t done;
};

struct worker {
	unsigned index;
	const struct worker_shared *shared;
	pthread_t thread;
	int result;
	int wake_fd;
	uint64_t wake_value;
	struct op wake_op;
	_Atomic unsigned wake_why; /* bits of enum worker_wake */
	pthread_mutex_t change_lock;
	struct link changes; /* under change_lock: to be adopted, in order */
	/* Under change_lock, too; progress is told when one is done or the thread has ended. */
	pthread_cond_t progress;
	struct worker_duty adopting;
	struct worker_duty ending_unserved;
	uint64_t ended_unserved; /* sessions, since it was asked for */
	uint64_t unserved_left;  /* of those there were: still to be looked at */
	struct worker_duty asking;
	struct link asks; /* of struct queue_ask, the first is under way */
	bool has_ended;

	int signal_fd; /* -1: signals are another worker's business */
	struct signalfd_siginfo signal;
	struct op signal_op;

	struct loop *loop;
	struct conn_net net;
	struct pool sessions;
	struct link open_sessions;
	struct link views;          /* the one in force, and those that sessions still use */
	struct view *view;          /* in force */
	struct session_world world; /* of the view in force: what the next MAIL is judged by */
	struct link listeners;
	uint64_t lists_generation; /* of revocation lists that tickets are bound to */
	uint64_t next_session;

	/* NULL, all of them: there is no spool-folder. */
	struct queues *queues;
	struct spool **spools; /* its own, which takes new messages, then those it empties */
	unsigned spool_count;
	struct intake *intake;
	struct pool throughs; /* of struct worker_through, one for each session at most */
	bool has_drained_spools;

	bool is_draining;
	struct timer drain_timer;

	struct log_buffer *log_filling;
	struct log_buffer *log_writing;
	size_t log_written;
	struct op log_op;
	struct timer log_timer;
	uint64_t log_due_ms; /* the end of this stretch */
	unsigned log_writes; /* in it, so far */

	struct stats stats;
};

/* worker_accept.c */
void worker_on_accept(struct listener *listener, int fd);

/* Of the sessions that are left to be looked at, ends those whose peer the door would not let in
 * now: of some at a time, so that others are served meanwhile. How many. */
uint64_t worker_drain_unserved(struct worker *worker);

/* worker_change.c */

/* A listening socket in out for each binding of the world that is new. */
NODISCARD int worker_create_listeners(
	struct worker *worker, const struct world *world, FILE *errors, struct link *out);
void worker_free_listeners(struct link *listeners);

/* Puts a view in force: sessions begin with it from now on. */
void worker_use_view(struct worker *worker, struct view *view);

/* Puts the changes that wait in force. */
void worker_adopt_all(struct worker *worker);

/* Carries out worker_end_unserved(). */
void worker_do_end_unserved(struct worker *worker);

/* Nobody waits for this worker any more. */
void worker_tell_end(struct worker *worker);

/* Frees views that no session uses any more, and listeners that are closed. */
void worker_sweep(struct worker *worker);

/* worker_sink.c */

/* The session's sink; way->view is held as its out_view. */
void worker_sink_open(struct worker_session *own, const struct worker_way *way);

/* Between transactions: the next goes that way. */
void worker_sink_move(struct worker_session *own, const struct worker_way *way);
void worker_sink_close(struct worker_session *own);

/* worker_queue.c; all harmless without a spool-folder. */

/* On the worker's thread; reads the spool. -errno. */
NODISCARD int worker_create_queue(struct worker *worker);
void worker_destroy_queue(struct worker *worker);

/* The view in force is open: deliveries begin; and after a reload: they go by it. */
void worker_start_queue(struct worker *worker);
void worker_use_queue(struct worker *worker);

/* Do deliveries still go by that view? */
bool worker_queue_needs(const struct worker *worker, const struct view *view);

void worker_drain_queue(struct worker *worker);
void worker_abort_queue(struct worker *worker);

/* Each turn: drains the spools once nobody needs them any more. */
void worker_close_spools(struct worker *worker);
bool worker_queue_is_done(const struct worker *worker);

/* Carries out worker_ask(). */
void worker_do_ask(struct worker *worker);

/* Of a duty: one is done; and another thread waits until all are, or the worker has ended. */
void worker_duty_done(struct worker *worker, struct worker_duty *duty);
void worker_await_duty(struct worker *worker, const struct worker_duty *duty);

/* Has the worker's thread look at why. */
void worker_wake(struct worker *worker, enum worker_wake why);
