/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * delivery.h: one attempt: one message, some of its recipients, one session with a next hop.
 *
 *   READ --envelope read, recipients picked--> ENVELOPE --all answered--> DATA --354--> BODY
 *                                                 |   (BDAT: straight to BODY)           |
 *                                                 | nobody accepted                      | end
 *                                                 v                                      v
 *                              over <--reply--- RESET <------refused (DATA, BDAT)----- FINISH
 *                               ^                                                        |
 *                               +-----------------------the message's answer-------------+
 *
 * MAIL, all RCPTs and (with PIPELINING) DATA go out without waiting for answers (RFC 2920); the
 * body goes as BDAT where CHUNKING is offered and the connector allows it, else dot-stuffed.
 * Towards a next hop that is not trusted Exchange's organization fields are taken out (EXCHANGE
 * 10).
 *
 * What the next hop does not offer (RFC 6152 3, RFC 6531 3.6, RFC 3030 3, RFC 3461 4):
 *
 *   8BITMIME    a body without bytes over 127 goes without BODY=; else it is refused here,
 *               554 5.6.3
 *   SMTPUTF8    a message with neither such a sender nor such a header goes without, but not to
 *               recipients with such an address: refused here, 550 5.6.7
 *   BINARYMIME  refused here, 554 5.6.3
 *   DSN         parameters are left out, and who asked for success is told "relayed" by the owner
 *   SIZE        not sent; a limit that is announced and too low, or the connector's own: refused
 *               here, 552 5.3.4
 *
 * What is refused here is not asked for; with nobody left, nothing is sent at all.
 *
 * Replies. 2xx, 4xx and 5xx settle whom they are for; the code's first digit decides, and 354 is
 * the only answer that lets a body go out. 421 at any step, and an answer that makes no sense at
 * its step, end the attempt and the session: who is not settled is put off. Where the transaction
 * has to be given up the session is brought back to rest by RSET, whose answer is awaited. A body
 * that cannot be read to its end is cut off with the session: the next hop never sees a false end.
 *
 * Owns: its reader. Borrows: the client until on_end; it is the owner's again then.
 * Fails: always by on_end. A recipient has its own reply, MAIL's, DATA's or the message's,
 * whichever settled it.
 *
 * All events come from the loop. on_end is the last thing that an attempt does: the next may be
 * started from within it. The other events must not start or abort.
 */

#include "relay/mail/spool.h"
#include "relay/mail/text_out.h"
#include "relay/smtp/firewall.h"

struct delivery;

enum delivery_verdict {
	DELIVERY_SENT,   /* the next hop said 250 for it: it is its own now */
	DELIVERY_FAILED, /* 5xx, the next hop's or ours: not again */
	DELIVERY_LATER,  /* 4xx: again later, by this way or another */
	DELIVERY_LOST,   /* the session broke, or was silent, when all was sent and the answer to it
			    was awaited: nobody knows; again */
	DELIVERY_VERDICT_COUNT,
};

#define DELIVERY_TEXT_BYTES 512

/* Of one recipient. */
struct delivery_result {
	uint32_t index; /* in the envelope */
	enum delivery_verdict verdict;
	unsigned code; /* what text begins with */
	/* "550 5.1.1 No such user": the reply with its code, lines joined by a space, or words of
	 * ours in the same form. Neither CR, LF nor NUL; what is too long is cut. */
	char text[DELIVERY_TEXT_BYTES];
	bool is_local; /* the words are ours, not the next hop's */
};

struct delivery_events {
	/*
	 * The envelope was read: which recipients? Fills in indexes (ascending, max at most) and
	 * returns how many; 0: the delivery ends, with on_end. The envelope is valid until on_end.
	 */
	uint32_t (*pick)(struct delivery *delivery, const struct envelope *envelope,
		uint32_t *indexes, uint32_t max);
	/* One recipient is settled; each that was picked, once, before on_end. */
	void (*on_result)(struct delivery *delivery, const struct delivery_result *result);
	/*
	 * It is over, and the reader has ended. is_usable: the session is at rest, owes nothing,
	 * and goes back with NEXTHOP_PUT_CLEAN; else it is cut with NEXTHOP_PUT_ABORT, or if
	 * delivery->lost says that it broke by itself, given to nexthop_lost(). read_error: the
	 * spool could not read the message (-errno), and nobody got it; else 0.
	 */
	void (*on_end)(struct delivery *delivery, bool is_usable, int read_error);
};

/* Recipients of one attempt; more go in the next (RFC 5321 4.5.3.1.8 asks for 100 at least). */
#define DELIVERY_RCPTS_MAX 100

enum delivery_state {
	DELIVERY_IDLE,
	DELIVERY_READ,     /* the envelope is being read */
	DELIVERY_ENVELOPE, /* commands go out; answers to MAIL or RCPT are owed */
	DELIVERY_DATA,     /* somebody was accepted; the answer to DATA is awaited */
	DELIVERY_BODY,     /* text flows */
	DELIVERY_FINISH,   /* its end was given out; the answer to the message is awaited */
	DELIVERY_RESET,    /* all are settled; the session is brought back to rest */
	DELIVERY_STATE_COUNT,
};

/* Where among the envelope's recipients. */
struct delivery_cursor {
	size_t at;      /* for envelope_next() */
	uint32_t index; /* of the recipient that comes next */
};

struct delivery {
	const struct delivery_events *events; /* set by the owner, as are the next three */
	void *owner;
	struct client *client;
	bool is_trusted; /* the next hop gets Exchange's fields */

	/*
	 * For the owner, during the events. A session that was lost (or said 421) before it has
	 * answered anything may have been closed in the pool: that says little of the next hop.
	 */
	const char *lost; /* why the session broke, for nexthop_lost(); NULL: it did not */
	bool is_answered; /* the next hop answered something, and not 421 */

	/* private; delivery.c documents them */
	struct spool_reader reader;
	enum delivery_state state;
	uint64_t id; /* of the message */
	struct envelope envelope;
	struct firewall firewall;
	struct text_out out;
	struct delivery_cursor cursor; /* the next RCPT to write */
	uint32_t count;                /* picked, and not refused here */
	uint32_t written;              /* RCPTs gone out */
	uint32_t answered;             /* and answered */
	uint32_t accepted;
	uint32_t verdicts[DELIVERY_VERDICT_COUNT]; /* how many got each, for the log */
	bool is_mail_written, is_mail_answered;
	bool is_data_written, is_data_answered;
	bool is_reset_written;
	bool is_open;      /* the next hop has a transaction of ours */
	bool is_reading;   /* a piece was asked of the reader */
	bool is_last_text; /* what is at hand is the reader's text */
	uint32_t indexes[DELIVERY_RCPTS_MAX];
	bool is_settled[DELIVERY_RCPTS_MAX];
};

/* Prepares; a delivery serves one message after the other. What the owner sets is left alone. */
void delivery_init(struct delivery *delivery);

/* Begins. client is READY and owes nothing; its events and owner are taken over until on_end. */
void delivery_start(struct delivery *delivery, struct spool *spool, struct spool_message *message);

/*
 * Cuts it off: no event follows, nobody is told, the reader has ended. The owner ends the session
 * with NEXTHOP_PUT_ABORT, at once. Only while it runs.
 */
void delivery_abort(struct delivery *delivery);

/* Did the next hop offer DSN? For "relayed". Until on_end. */
bool delivery_knows_dsn(const struct delivery *delivery);
