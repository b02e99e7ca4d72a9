/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * load.h: what the parts of postern-load share: the run, its threads, and their connections.
 *
 * A message is a row of steps: MAIL, RCPT, ..., RCPT, then DATA and BODY, or one CHUNK after the
 * other. There are two cursors, the next step to send and the next step to be answered. Two facts
 * hold the sender back: without pipelining it may not be ahead at all, and BODY waits for the 354
 * to DATA. Each step gets exactly one reply.
 *
 * In a closed loop (no --rate) a connection begins its next message when the last one is answered.
 * In an open loop each thread has a schedule; a connection that is free takes the message that is
 * due, or waits in the list of free ones for the next to be due. A message that is due while none
 * is free stays in the schedule, and its latency grows there.
 */

#include "bench/common/idlers.h"
#include "bench/common/ledger.h"
#include "bench/common/loadconfig.h"
#include "bench/common/message.h"
#include "bench/common/report.h"
#include "bench/common/schedule.h"

#include <pthread.h>
#include <stdatomic.h>

/* What all threads share. */
struct load {
	struct load_config config;
	struct filler *fillers; /* config.bodies of each size */
	pthread_barrier_t start;
	_Atomic uint64_t taken;  /* messages that some connection has begun; closed loop */
	_Atomic uint64_t end_us; /* no message is begun after that */
	_Atomic bool is_broken;  /* a thread could not start */
	uint64_t started_us;
};

enum load_state {
	LOAD_OPENING, /* the client is on its way to READY */
	LOAD_FREE,    /* open loop: no message is due */
	LOAD_MESSAGE, /* the two cursors run */
	LOAD_RESET,   /* waits for the reply to RSET, after a message that failed */
	LOAD_QUIT,    /* waits for the reply to QUIT */
	LOAD_CLOSING, /* waits for the end of the stream */
	LOAD_DONE,    /* no more to do */
};

struct load_conn {
	struct client client;
	struct load_thread *thread;
	struct link link; /* in thread->free, while LOAD_FREE */
	enum load_state state;
	uint64_t send_step;
	uint64_t reply_step;
	uint64_t step_count;
	unsigned failures_in_row;
	int last_code; /* the newest reply of this message */
	int refusal;   /* first reply of this message that was no success, or 0 */
	bool is_stepwise;
	bool was_opened; /* it has been tried once */
	uint64_t messages_here;
	uint64_t opened_us;
	uint64_t intended_us; /* when the message was to be sent */
	uint64_t id;
	uint64_t size;
	size_t sent_bytes;              /* of the message, in the form that is sent */
	size_t chunk_left;              /* of the chunk under way */
	struct ssl_session_st *session; /* to offer */
	struct ssl_session_st *fresh;   /* what a connection that offered none was given */
	struct message message;
};

/* What --progress shows of one second. */
struct load_second {
	pthread_mutex_t lock;
	struct histogram latency;
	uint64_t bytes;
	uint64_t failed;
	uint64_t open; /* connections, at this moment */
	uint64_t behind;
};

struct load_thread {
	pthread_t thread;
	struct load *load;
	const struct load_config *config;
	uint64_t index;
	struct stream_net *net; /* with a TLS context of this thread's own: no locks are shared */
	struct load_conn *conns;
	uint64_t conn_count;
	uint64_t tried_count; /* connections that were opened, or failed, once */
	uint64_t done_count;
	uint64_t open_count;
	unsigned resume_turn; /* of a hundred */
	bool is_over;         /* nothing is opened any more */
	bool has_schedule;    /* the open loop has begun */
	struct link free;
	struct schedule schedule; /* at the next message to begin */
	struct schedule arrived;  /* at the next message to be due */
	int alarm_fd;             /* a timerfd: the wheel of the loop is too coarse */
	uint64_t alarm_us;
	uint64_t alarm_count; /* what read(2) gives */
	struct op alarm_op;
	struct timer tick;
	struct ledger ledger;
	struct idlers idlers;
	struct load_second second;
	struct report report;
};

/* Ends the run when it can: no message is begun any more. From any thread or signal. */
void load_stop(struct load *load);

/* The body of a thread; argument is its struct load_thread. */
void *load_thread_run(void *argument);

/* The conversation: loadconn.c. */
void load_conn_open(struct load_conn *conn);

/* Sends, and handles what has come, as far as that goes now. */
void load_conn_talk(struct load_conn *conn);

/* Begins message number index, due at intended_us. */
void load_conn_begin(struct load_conn *conn, uint64_t index, uint64_t intended_us);

/* Says goodbye. */
void load_conn_quit(struct load_conn *conn);

/* Ends at once; a message under way has failed. */
void load_conn_abort(struct load_conn *conn);

/* What to send next, and when: loadthread.c. */
enum load_turn {
	LOAD_TURN_MESSAGE, /* *index, due at *intended_us */
	LOAD_TURN_WAIT,    /* the thread will say when; the connection is among the free ones */
	LOAD_TURN_NONE,    /* no more */
};
enum load_turn load_thread_take(struct load_conn *conn, uint64_t *index, uint64_t *intended_us);

/* Is there any message left to begin? */
bool load_thread_has_more(struct load_thread *thread);

/* Each connection says once that it was opened or failed; then the open loop begins. */
void load_thread_tried(struct load_conn *conn);
