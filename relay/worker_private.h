/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * worker_private.h: what the files of a worker share.
 *
 *   worker.c          the thread: loop, log, signals, beginning and end
 *   worker_accept.c   from an accepted socket to a session, or a refusal
 *   worker_change.c   listening sockets and views, and how they are replaced
 */

#include "relay/base/log.h"
#include "relay/mail/proxy.h"
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

struct worker_session {
	struct session session;
	struct proxy proxy;
	struct worker *worker;
	struct worker_peer ends; /* of the connection; who the client is, session.client says */
	struct view *view;       /* it began under */
	struct view *out_view;   /* its mail goes by */
	const struct partner *partner; /* of the view; whose list has let it in; NULL: none */
	struct quota_place place;
	struct link link;
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

	bool is_draining;
	struct timer drain_timer;

	struct log_buffer *log_filling;
	struct log_buffer *log_writing;
	size_t log_written;
	struct op log_op;

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

/* Has the worker's thread look at why. */
void worker_wake(struct worker *worker, enum worker_wake why);
