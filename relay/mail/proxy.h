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
 */

#include "relay/mail/nexthop.h"
#include "relay/smtp/dot.h"
#include "relay/smtp/sink.h"

enum proxy_state {
	PROXY_IDLE,     /* no transaction */
	PROXY_HELLO,    /* a session is opened only to learn what it offers */
	PROXY_ENVELOPE, /* MAIL was given; answers may be owed */
	PROXY_DATA,     /* DATA was given; 354 is awaited */
	PROXY_BODY,     /* text flows */
	PROXY_FINISH,   /* complete; the answer is awaited */
	PROXY_BROKEN,   /* the next hop is gone; the session was told */
};

struct proxy {
	struct sink sink;
	struct lease lease;
	struct nexthop *nexthop;
	struct client *client; /* NULL while waiting for one, or when there is none */
	enum proxy_state state;
	unsigned pending;  /* answers that the session waits for */
	unsigned attempts; /* sessions that this transaction was begun on */
	unsigned needs;    /* enum ehlo_keyword bits that it cannot do without */
	bool is_answered;  /* the next hop answered something: no second attempt */
	bool uses_bdat;
	bool wants_room;      /* the session waits for room */
	unsigned chunks_owed; /* answers to BDAT chunks that are not the message's answer */
	uint64_t body_bytes;
	struct dot_writer dot;
	char via[CLIENT_ID_BYTES]; /* the client that the transaction was begun on, for the log */
	struct iobuf *commands;    /* MAIL and RCPT lines, until the first answer */
	uint32_t commands_len;
	uint32_t commands_sent; /* how much of them was written to the client */
};

/* Prepares; one proxy serves one session, a transaction after the other. */
void proxy_init(struct proxy *proxy, struct nexthop *nexthop);

/* The session is over: nothing may be held any more. */
void proxy_fini(struct proxy *proxy);
