/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * conn.h: one byte stream, in clear or under TLS, with its buffers and its end.
 *
 *   CONNECTING --on_connected--> OPEN --conn_start_tls--> HANDSHAKE --on_tls--> OPEN
 *       |                         |                          |
 *       +------ conn_abort -------+--- conn_close: flush, ---+
 *                |                     close_notify, FIN
 *                v                            |
 *              DEAD <--peer's FIN, or time--CLOSING
 *                |  no operation in flight
 *                v
 *             on_closed: the owner may free it
 *
 * Reading is asked for: nothing is received unless conn_read() was called, so
 * the receive buffer is the only queue and back-pressure is not reading.
 * Writing gathers: conn_write() copies, conn_flush() puts what was gathered on
 * the wire in one send.
 *
 * Who protects the records is a pair of tables, one for each direction
 * (record.h): none, OpenSSL, our own hand (seal.h), or the kernel. Received bytes lie in one
 * buffer:
 *
 *   0 .. in_start ==text for the owner== in_end .. raw_start ==ciphertext== raw_end .. cap
 *
 * A record is decrypted in place, since its text is shorter than itself. Long ones that we open
 * ourselves are opened one after the other, when the text before was consumed. What is sent in a
 * frame (conn_frame_begin()) lies in `out` as records:
 *
 *   front .. free .. out_start ==records== out_end .. frame_rest ==text== .. cap
 *
 * Owns its descriptor, buffers and TLS object. Calls of struct conn_events run
 * from the loop; in each of them the owner may write, read, start TLS, close or
 * abort. on_closed is the last.
 */

#include "relay/base/pool.h"
#include "relay/net/iobuf.h"
#include "relay/net/ktls.h"
#include "relay/net/loop.h"
#include "relay/net/seal.h"
#include "relay/net/tls.h"
#include "relay/pki/peer.h"

/* What all connections of one worker share. */
struct conn_net {
	struct loop *loop;
	struct iobufs bufs;
	struct pool tls_pool; /* of struct tls */
	const struct ktls_support *ktls_support;
	uint64_t handshake_turn; /* the turn that handshakes_left is for */
	unsigned handshakes_left;
};

enum conn_state {
	CONN_CONNECTING, /* connect() is under way */
	CONN_OPEN,       /* bytes flow */
	CONN_HANDSHAKE,  /* TLS handshake: the owner gets nothing until on_tls */
	CONN_CLOSING,    /* what was written is still sent, then an orderly end */
	CONN_DEAD,       /* waits for its operations to come back */
	CONN_CLOSED,     /* on_closed was called */
};

/* Why a connection ended by itself. */
enum conn_end {
	CONN_END_EOF,        /* the peer said goodbye: close_notify or FIN */
	CONN_END_RESET,      /* the network or the peer broke it */
	CONN_END_TLS,        /* a record or handshake that is none; alert received */
	CONN_END_KEY_UPDATE, /* the peer changed keys and the kernel cannot follow */
};

struct conn;

struct conn_events {
	void (*on_connected)(struct conn *conn, int result); /* 0 or -errno; outbound only */
	void (*on_input)(struct conn *conn);                 /* conn_input() has bytes */
	void (*on_drained)(struct conn *conn);               /* all that was flushed has left */
	void (*on_tls)(struct conn *conn);    /* handshake done, conn->facts are filled in */
	void (*on_record)(struct conn *conn); /* it is settled who protects the records; under
						 auto again when that changes (has_moved) */
	void (*on_end)(struct conn *conn, enum conn_end why); /* nothing more will be received */
	void (*on_timeout)(struct conn *conn);                /* the deadline passed */
	void (*on_closed)(struct conn *conn); /* it is over; the conn may be freed */
};

/* What waits for the next turn; a set of bits. */
enum conn_pending {
	CONN_PENDING_END = 1,
	CONN_PENDING_CLOSED = 2,
	CONN_PENDING_HANDSHAKE = 4,
	CONN_PENDING_INPUT = 8,
};

struct record_layer;

struct conn {
	struct conn_net *net;
	const struct conn_events *events;
	int fd;
	enum conn_state state;

	struct op connect_op;
	struct op recv_op;
	struct op send_op;
	struct task task;
	struct task flush_task;
	struct timer timer;
	unsigned pending;
	enum conn_end end;

	struct iobuf *in;
	uint32_t in_start, in_end, raw_start, raw_end;
	struct iobuf *out; /* gathered text */
	uint32_t out_start, out_end;
	uint32_t frame_front;    /* bytes of text in front of the frame's header */
	uint32_t frame_rest;     /* text behind out_end, less than a record, and not yet sealed */
	uint64_t frame_sequence; /* of the header's record, which comes before the others */
	struct iobuf *wire;      /* on its way: the kernel reads wire_start .. wire_sent_end */
	uint32_t wire_start, wire_end;

	bool wants_input;   /* conn_read() was called and is not yet answered */
	bool is_fresh;      /* text that on_input did not tell of: conn_read() gives it first */
	bool is_bulk_in;    /* the owner expects bulk: receive into large buffers */
	bool is_bulk_out;   /* the owner sends bulk */
	bool is_corked;     /* what is gathered is not complete: only conn_flush() sends it */
	bool is_framed;     /* `out` holds records instead, and maybe text behind them */
	bool is_frame_open; /* the frame's header is owed */
	bool has_more;      /* the socket held more than the last receive took */
	bool peer_closed;   /* FIN or close_notify was seen: never read again */
	bool has_ended;     /* on_end was or will be called */
	bool is_shut;       /* our close_notify has been given out */
	bool is_lingering;  /* our FIN too: what comes is thrown away */
	uint32_t discarded; /* bytes thrown away while closing */

	const struct record_layer *rx;
	const struct record_layer *tx;
	struct tls *tls; /* while OpenSSL protects one direction */
	struct ktls ktls;
	struct seal seal[KTLS_DIRECTION_COUNT]; /* directions that are ours */
	uint64_t records_sent;  /* about so many; where we seal, seal[].sequence is exact */
	bool owes_key_update;   /* the peer asked for our next key, and a send was under way */
	unsigned key_updates;   /* KeyUpdate records met since OpenSSL lets go of reading */
	uint32_t ticket_left;   /* of a ticket that goes on in the next record */
	unsigned empty_records; /* in a row */
	unsigned ktls_want;     /* bits of enum ktls_direction that shall go to the kernel */
	unsigned ktls_later;    /* those that shall when it pays (auto) */
	uint32_t ktls_saved;    /* what the kernel would have saved of reading by now (auto) */
	bool is_hello_due;      /* the handshake has a step to make without new input */
	bool ktls_rx_ready;     /* the receive side may be handed over now */
	bool may_seal;          /* what the kernel does not take may leave OpenSSL, too */
	bool is_settled;        /* on_record was called */
	bool has_moved;         /* and again: a direction was handed over later, or refused */
	const char *ktls_why_not[KTLS_DIRECTION_COUNT];
	struct tls_facts facts;
	struct peer *peer; /* from on_tls to on_closed: who the other side is; NULL: unknown */

	struct msghdr message; /* of a receive under kernel TLS */
	struct iovec piece;
	_Alignas(struct cmsghdr) uint8_t control[KTLS_CONTROL_BYTES];
};

/* Prepares what the connections of one worker share. sessions: connections at the most. */
NODISCARD int conn_net_create(struct conn_net *net, struct loop *loop, unsigned sessions,
	unsigned bulk_buffers, const struct ktls_support *support);
void conn_net_destroy(struct conn_net *net);

/* Takes over an accepted descriptor. Nothing is read yet. */
void conn_open(struct conn *conn, struct conn_net *net, const struct conn_events *events, int fd);

/*
 * Begins a connection to an address; on_connected tells how it went. source may
 * be NULL or have len 0. Returns -errno when no socket is to be had; then conn is
 * not open. to must stay in place until on_connected.
 */
NODISCARD int conn_connect(struct conn *conn, struct conn_net *net,
	const struct conn_events *events, const struct address *to, const struct address *source);

/*
 * The received text, valid until conn_consume() or conn_read(). When all of it was consumed, more
 * may be at hand: conn_input() has it at once, or on_input tells of it after conn_read().
 */
struct span conn_input(const struct conn *conn);

/* Where that begins, for an owner who alters it before he consumes it; NULL: there is none. */
uint8_t *conn_input_bytes(const struct conn *conn);

void conn_consume(struct conn *conn, size_t bytes);

/* Asks for more text; on_input or on_end will come. Harmless if it was asked already. */
void conn_read(struct conn *conn);

/* How much conn_write() would take now. */
size_t conn_room(const struct conn *conn);

/* Copies bytes to what is gathered; returns how many (all, if there is room). */
size_t conn_write(struct conn *conn, struct span bytes);

/*
 * Room to write into directly: at the end of what is gathered, *room bytes.
 * conn_out_commit() says how many were written. With reserve > 0 and nothing
 * gathered, so many bytes are kept free in front, for conn_out_prepend().
 */
uint8_t *conn_out_space(struct conn *conn, size_t reserve, size_t *room);
void conn_out_commit(struct conn *conn, size_t bytes);

/* Puts a header in front of what is gathered; it must fit what was reserved. */
void conn_out_prepend(struct conn *conn, struct span header);

/* How much is gathered and not on the wire. */
size_t conn_gathered(const struct conn *conn);

/* Forgets what is gathered. */
void conn_drop_out(struct conn *conn);

/*
 * A frame: bulk text under a header that tells how long it is. Where the records are our own
 * (seal.h) it is sealed at once from where it lies, and so copied and read once less than what is
 * gathered. The header is known when all the text is; its record, the first by number, is made
 * last.
 *
 * How much text conn_frame_add() takes, now or after conn_frame_begin(conn, front). 0: none, or
 * there can be no frame, and text is to be gathered.
 */
size_t conn_frame_room(const struct conn *conn, size_t front);

/*
 * Begins one with what is gathered: its first bytes, `front` of them, stay in front of the header,
 * the others are text. Nothing of it is sent before conn_frame_end(). False: there can be none.
 */
NODISCARD bool conn_frame_begin(struct conn *conn, size_t front);

/* Takes text, no more than there is room for. */
void conn_frame_add(struct conn *conn, struct span text);

/*
 * The frame is complete: header, CONN_FRAME_HEADER_BYTES at the most, goes in front of the text. It
 * leaves with conn_flush_now(). Until it has left only conn_write() adds to what is gathered.
 */
#define CONN_FRAME_HEADER_BYTES 32
void conn_frame_end(struct conn *conn, struct span header);

/* Gives an open frame up: what was in front of the header is gathered again, the text is gone. */
void conn_frame_drop(struct conn *conn);

/*
 * Puts what is gathered on the wire at the end of this turn, so that all that a turn has to say
 * leaves in one piece. on_drained comes when all has left.
 */
void conn_flush(struct conn *conn);

/* Holds back what is gathered, and a flush that was asked for in this turn: until conn_release().
 */
static inline void conn_hold(struct conn *conn)
{
	conn->is_corked = true;
	loop_task_cancel(&conn->flush_task);
}

/* The end of conn_hold(); nothing is flushed by that. */
static inline void conn_release(struct conn *conn)
{
	conn->is_corked = false;
}

/* The end of conn_hold() where what was gathered is not to be sent at all. */
static inline void conn_drop_held(struct conn *conn)
{
	conn_drop_out(conn);
	conn_release(conn);
}

/* The same at once: for bulk, where the room is needed for more. */
void conn_flush_now(struct conn *conn);

/* Is nothing gathered and nothing on the wire? */
bool conn_is_drained(const struct conn *conn);

/*
 * Begins TLS. Everything written must have left; no received text may be
 * unread (RFC 3207 4.2: what came before TLS is worth nothing). host and slot
 * as in tls_open(). -ENOBUFS when too many connections use TLS at once.
 */
NODISCARD int conn_start_tls(struct conn *conn, const struct tls_context *context, const char *host,
	struct ssl_session_st **slot);

/*
 * What was received and not consumed is the beginning of the peer's handshake: it came behind what
 * was for us in clear (a PROXY header). Between the two only conn_start_tls() may be called. That
 * is not for STARTTLS, where such bytes are an attack.
 */
void conn_keep_for_tls(struct conn *conn);

/*
 * After on_tls: lets the kernel have what mode says; on_record follows, at once
 * or when it is settled, which may be within conn_read(). why_not is logged when mode is KTLS_OFF.
 * KTLS_AUTO hands the receive direction over as soon as so much has come that it would have paid:
 * see KTLS_HAND_OVER_COST.
 */
void conn_allow_ktls(struct conn *conn, enum ktls_mode mode, const char *why_not);

/*
 * Judges the peer again for its connector, at now or since a revocation list has come; updates
 * conn->facts. *pending (may be NULL): a list is awaited, and the verdict may be another soon.
 */
enum verdict conn_judge(struct conn *conn, time_t now, bool *pending);

/* "kernel", "user(REASON)", or both directions when they differ; never over 128 bytes. */
const char *conn_record_print(const struct conn *conn, char *out, size_t out_bytes);

/*
 * Has one key protected so many records that the connection should end at the next chance? Neither
 * OpenSSL nor the kernel counts (AES-GCM: RFC 8446 5.5).
 */
bool conn_is_worn(const struct conn *conn);

/* The deadline, monotonic ms; 0 takes it away. */
void conn_deadline(struct conn *conn, uint64_t due_ms);

/* An orderly end: sends what was written, says goodbye, waits a moment for the peer's own. */
void conn_close(struct conn *conn);

/* The end, now. What was not sent is lost. */
void conn_abort(struct conn *conn);
