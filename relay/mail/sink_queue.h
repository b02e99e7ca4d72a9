/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * sink_queue.h: a sink that keeps what it takes: deliver = queue. A message is accepted when it is
 * in the spool, as safe as durability says, and it is delivered from there later, by queues.h.
 *
 *   IDLE --MAIL--> HELD --its time is over--> OPEN --DATA--> OPEN --end--> COMMIT --on_reply-->
 * IDLE |                                   ^
 *          +-----------------------------------+
 *
 * The path can carry everything that we know, since the queue deals with next hops that cannot. A
 * recipient is refused only for what the policy says for good: a domain that is none, a message
 * that is too large for where it would go, and, for now, a partner's domain that could not be
 * secured (as the proxy does).
 *
 * Back pressure (EXCHANGE 11.2): while the spool is filled to the medium mark, MAIL of senders that
 * have not proved who they are is answered late, 10 s at first, 5 s more with each 10 s that it
 * lasts, up to 55 s, and refused after ten minutes; above the high mark, without room among the
 * queues, or when the disk fails, everybody's is refused.
 *
 * Owns: the message until COMMIT; then it is arrival.h's, whatever becomes of the session.
 */

#include "relay/mail/arrival.h"
#include "relay/mail/router.h"

/* Whom it serves and where it sends. */
struct sink_queue_options {
	struct intake *intake;
	struct router *router;
	const struct policy *policy; /* of the router */
	const struct receive_connector *receive;
	const struct send_connector *connector; /* NULL: by address space */
	const char *session;                    /* its id, for the log; it must stay */
};

enum sink_queue_state {
	SINK_QUEUE_IDLE,   /* no transaction */
	SINK_QUEUE_HELD,   /* the answer to MAIL waits */
	SINK_QUEUE_OPEN,   /* recipients and text are taken */
	SINK_QUEUE_COMMIT, /* complete; the answer is awaited */
};

struct sink_queue {
	struct sink sink;
	struct sink_queue_options options;
	enum sink_queue_state state;
	struct arrival *arrival;
	uint64_t bytes;  /* announced by MAIL, 0: none */
	bool wants_room; /* the session waits for room */
	bool wants_data; /* DATA waits for room */
	struct timer tarpit;
	char via[sizeof("queue:") + MESSAGE_ID_TEXT_BYTES];
	char refusal[ROUTER_REPLY_BYTES];
};

/* Prepares; one serves one session, a transaction after the other. */
void sink_queue_init(struct sink_queue *queue, const struct sink_queue_options *options);

/* Between transactions: mail goes another way from now on (after a reload). */
void sink_queue_move(struct sink_queue *queue, const struct sink_queue_options *options);

/* For who looks for another way first: the recipient that was taken last is not to be kept. */
void sink_queue_forget_rcpt(struct sink *sink);

/* And that way has taken the message, which is abandoned here: it is told to the tracking log. */
void sink_queue_passed(struct sink *sink, const struct arrival_passed *passed);

/* The session is over. */
void sink_queue_fini(struct sink_queue *queue);
