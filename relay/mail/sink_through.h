/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * sink_through.h: cut-through = yes: a message goes straight to its next hop, and into the queue
 * only if that fails. A sink in front of two others, towards each of which it is the session: hop,
 * which passes mail on (proxy.h), and spare, which keeps it (sink_queue.h).
 *
 *   IDLE --> MAIL --> OPEN <--> RCPT       OPEN --> DATA --> BODY --> FINISH --> IDLE
 *              |        |        |                   |        |         |
 *              +--------+--------+-- hop is given up +--------+---------+---> SPARE --> IDLE
 *
 * SPARE is the queue alone, as if there were no hop. What each answer of the next hop means:
 *
 *   MAIL       2xx, 5xx passed on; else SPARE, and the client hears 250
 *   RCPT       2xx: both have it. 5xx passed on: neither has it. 4xx: the queue alone has it, the
 *              client hears 250, the message is split. No session to be had: SPARE
 *   DATA       354: text goes to both; 5xx passed on; else SPARE, and 354
 *   in BODY    5xx passed on; else, and when it is lost or takes no text for a while, SPARE
 *   the end    2xx passed on: the next hop has it, and the spool forgets it: no commit, no flush,
 *              and of a message that fits into one chunk (spool.h) nothing was written at all.
 *              5xx passed on. Else the queue commits it, and 250 comes when it is safe.
 *
 * Only the next hop's own 5xx is passed on. What we say in its place (it has no keyword that the
 * message needs, it cannot be reached) is for the queue to deal with, which has more ways. A
 * refusal of the queue to MAIL or RCPT is one: what cannot be kept is not begun, since nobody knows
 * yet whether it will have to be. Under back pressure that holds MAIL back, the queue has it alone.
 *
 * A split message, some of whose recipients only the queue has, does not go straight through at
 * all: the next hop is left before DATA. There is one answer to a message. If the next hop had the
 * text for some and the queue for the others, then a 5xx, or a commit that fails, would be true for
 * one part only: passed on, the client would return to its sender or send again what has been
 * delivered; not passed on, mail would be lost. The queue can tell recipients apart, and does. It
 * costs nothing that was not to be paid: 250 would have to wait for the flush anyway. The next hop
 * is asked for recipients all the same, since its 5xx is better heard now than returned later.
 *
 * Nothing is lost: until the next hop has said 2xx, everything is with the queue or with the
 * client. Twice arrives only what the next hop took and said nothing of: its session was lost
 * between the end of data and the answer (RFC 1047). That is counted, queue_through_doubtful.
 *
 * One command at a time is given to hop, and its answer awaited: a recipient costs a round trip.
 *
 * Time: a session must be there within THROUGH_SESSION_MS, an answer before the text within
 * THROUGH_ANSWER_MS, and the next hop may refuse text for that long. The answer to the message is
 * awaited as long as hop does, since giving up earlier would deliver twice.
 *
 * Owns: neither sink; their events and owners. The header firewall stands before hop if that is not
 * trusted: text comes with Exchange's fields, which the queue keeps.
 */

#include "relay/base/timer.h"
#include "relay/smtp/firewall.h"
#include "relay/smtp/sink.h"

struct loop;

/* Longer than a next hop that is up needs to greet, with TLS; shorter than clients mind. */
#define THROUGH_SESSION_MS 5000
/* Beyond the tarpits that servers put refusals into: Exchange's is 5 s, and up to 55 s only under
 * back pressure, where the queue serves better. */
#define THROUGH_ANSWER_MS 30000

/* What must be known or said of the two sinks beyond struct sink_ops. */
struct through_sides {
	/* Does hop's session offer these bits of enum ehlo_keyword? True, too, if it has none yet.
	 */
	bool (*offers)(struct sink *hop, unsigned needs);
	/* In its events: are these the next hop's words, and not ours for want of any? */
	bool (*is_answer)(struct sink *hop);
	/* spare shall forget the recipient that it took last. */
	void (*forget_rcpt)(struct sink *spare);
	/* hop has said reply to the end of data: for the tracking log. spare forgets it then. */
	void (*passed)(struct sink *spare, struct sink *hop, struct span reply);
};

/* Of a struct proxy and a struct sink_queue. */
extern const struct through_sides through_proxy_and_queue;

struct through_options {
	const struct through_sides *sides;
	struct sink *hop; /* has room for SINK_ROOM_MIN + FIREWALL_HELD_MAX, where it has any */
	struct sink *spare;
	struct loop *loop;
	const char *session; /* its id, for the log; it must stay */
};

enum through_state {
	THROUGH_IDLE,   /* no transaction */
	THROUGH_MAIL,   /* the queue has begun it; the next hop's answer to MAIL is awaited */
	THROUGH_OPEN,   /* both have begun it; nothing is awaited */
	THROUGH_RCPT,   /* the queue has the recipient; the next hop's answer is awaited */
	THROUGH_DATA,   /* one of them, or both, get ready for text */
	THROUGH_BODY,   /* text goes to both */
	THROUGH_FINISH, /* the next hop has it all; its answer is awaited */
	THROUGH_SPARE,  /* the queue alone */
	THROUGH_STATE_COUNT,
};

struct sink_through {
	struct sink sink;
	struct through_options options;
	enum through_state state;
	bool is_split;    /* somebody accepted is not the next hop's */
	bool awaits_hop;  /* DATA */
	bool awaits_room; /* the session does, or awaits spare's answer to DATA */
	bool is_slow;     /* there was a session when patience was measured last */
	bool is_ending;   /* SPARE: complete; the answer is awaited */
	unsigned hop_rcpts;
	struct timer patience;
	struct firewall firewall;
};

/* Prepares; the two sinks are prepared, and idle. */
void sink_through_init(struct sink_through *through, const struct through_options *options);

/* The session is over. The two sinks are for the owner to end. */
void sink_through_fini(struct sink_through *through);
