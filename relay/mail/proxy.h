/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * proxy.h: a sink that is a live next hop. Its answers are the client's answers.
 *
 * The rules of the proxy:
 * - A message is accepted (250) only when the next hop said so. No custody, no disk.
 * - Commands go on as they come, without waiting for each other's answers; what
 *   must fail is not forwarded, and 4xx of our own is given where the cause is ours.
 * - The body goes on as it comes: as BDAT chunks when the next hop offers
 *   CHUNKING (and the connector allows it), else as dot-stuffed DATA.
 * - A message that is cut off, by either side, is cut off on the other: the next hop
 *   never sees an end of data that the client did not send.
 * - A transaction is begun anew on a fresh session only if the pooled one broke
 *   before the next hop answered anything; so nothing is delivered twice by us.
 *
 * Where the destination depends on the recipient, MAIL is answered by us and kept: the first
 * recipient says where the transaction goes, and then both go out. A MAIL that the next hop
 * refuses is the answer to that recipient, and the next recipient tries anew. What goes
 * elsewhere than the first that was accepted needs a transaction of its own (452).
 */

#include "relay/mail/router.h"
#include "relay/mail/text_out.h"
#include "relay/smtp/sink.h"

enum proxy_state {
	PROXY_IDLE,     /* no transaction */
	PROXY_HELLO,    /* a session is opened only to learn what it offers */
	PROXY_KEPT,     /* MAIL is kept until a recipient says where it goes */
	PROXY_ENVELOPE, /* MAIL was given; answers may be owed */
	PROXY_DATA,     /* DATA was given; 354 is awaited */
	PROXY_BODY,     /* text flows */
	PROXY_FINISH,   /* complete; the answer is awaited */
	PROXY_BROKEN,   /* the next hop is gone; the session was told */
};

/* Whom it serves and where it sends: given once. */
struct proxy_options {
	struct router *router;
	const struct send_connector *connector; /* NULL: by address space */
	const char *session;                    /* its id, for the log; it must stay */
	bool has_queue; /* what it refuses is kept elsewhere: it is not logged as refused */
};

struct proxy {
	struct sink sink;
	struct lease lease;
	struct principal principal; /* the session's client, for a next hop that is to know it */
	struct proxy_options options;
	struct nexthop *fixed;   /* the destination of all mail, or NULL */
	struct nexthop *nexthop; /* the transaction's destination, held; NULL: not known yet */
	bool checks_recipients;  /* the destination is fixed, and not for every recipient */
	struct client *client;   /* NULL while waiting for one, or when there is none */
	enum proxy_state state;
	unsigned pending;  /* answers that the session waits for */
	unsigned attempts; /* sessions that this transaction was begun on */
	unsigned needs;    /* enum ehlo_keyword bits that it cannot do without */
	bool is_answered;  /* the next hop answered something: no second attempt */
	bool wants_room;   /* the session waits for room */
	struct text_out text;
	char via[CLIENT_ID_BYTES]; /* the client that the transaction was begun on, for the log */
	struct iobuf *commands;    /* MAIL and RCPT lines, until the first answer */
	uint32_t commands_len;
	uint32_t commands_sent; /* how much of them was written to the client */

	/* Where the first recipient says where it goes: */
	uint64_t mail_bytes; /* size announced by MAIL, 0: none */
	uint32_t mail_len;   /* MAIL's line at the start of commands, kept until one is accepted */
	uint32_t size_at;    /* where " SIZE=n" stands in it */
	uint32_t size_len;   /* 0: it does not */
	bool owes_mail;      /* the next answer is to MAIL, and not for the session */
	unsigned accepted;   /* recipients that the next hop took */
	char refusal[ROUTER_REPLY_BYTES];
};

/* Prepares; one proxy serves one session, a transaction after the other. */
void proxy_init(struct proxy *proxy, const struct proxy_options *options);

/* Between transactions: mail goes another way from now on (after a reload). */
void proxy_move(struct proxy *proxy, const struct proxy_options *options);

/* The session is over: nothing may be held any more. */
void proxy_fini(struct proxy *proxy);

/* For proxy_body.c and proxy.c. */

static inline struct proxy *proxy_of_sink(struct sink *sink)
{
	return OWNER_OF(sink, struct proxy, sink);
}

/* Assigns the state; asserts that the edge is legal. */
void proxy_enter(struct proxy *proxy, enum proxy_state state);

/* Of struct sink_ops. */
enum sink_status proxy_data(struct sink *sink);
size_t proxy_room(struct sink *sink);
void proxy_body(struct sink *sink, struct span text);
void proxy_push(struct sink *sink);
enum sink_status proxy_finish(struct sink *sink);

/* An answer to a chunk that is not the last: only bad news matters. False: it is none. */
bool proxy_take_chunk_reply(struct proxy *proxy, const struct reply *reply);

/* The client has sent all: there may be room again. */
void proxy_on_drained(struct client *client);

/* What is offered while no recipient is known. */
void proxy_show_any(struct proxy *proxy);

/* MAIL's line was composed: what has to be known of it until it goes out. */
void proxy_note_mail(struct proxy *proxy, const struct command *command);

/* It goes out: MAIL was composed before it was known whether the next hop knows SIZE (RFC 1870). */
void proxy_fit_mail(struct proxy *proxy, unsigned offer);

/* Why the next hop cannot take the message: for good, if it was never asked what it offers. */
struct span proxy_lacks(const struct proxy *proxy, unsigned offer);

/*
 * May the recipient go where the transaction goes? If that is not known yet, it says where.
 * SINK_DONE: yes.
 */
enum sink_status proxy_route(struct proxy *proxy, const struct command *command);

/* May it go to the destination that all mail goes to? */
enum sink_status proxy_check(struct proxy *proxy, const struct command *command);

/* Nobody was accepted where the transaction went: only MAIL is left of it, for another try. */
void proxy_keep(struct proxy *proxy, enum nexthop_put how);
