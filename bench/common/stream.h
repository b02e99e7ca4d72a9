/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * stream.h: one byte stream of load or sink on the relay's ring, in clear text or under TLS.
 *
 *   CONNECTING --on_connected--> OPEN --stream_start_tls--> HANDSHAKE --on_tls--> OPEN
 *        any of them: on_end, stream_close or stream_abort --> on_closed, which is the last
 *
 * There are two codes behind it, and one net uses one of them: STREAM_STOCK is OpenSSL as it
 * comes, and shares nothing of the relay's TLS, so that a mistake of the relay cannot hide on
 * both sides of a measurement; STREAM_POSTERN is the relay's own (relay/net/conn.h), with kernel
 * TLS where that is asked for. Both do all input and output through relay/net/loop.h.
 *
 * Reading is asked for: each stream_read() is answered by one on_input or on_end, and until then
 * nothing may be consumed. on_end may also come unasked, behind an on_input. Writing
 * gathers: stream_flush() puts what was gathered on the wire at the end of the turn, several
 * records in one send, and on_drained comes when all of it has left.
 *
 * A stream is embedded in its owner and everything about it happens on its net's thread. The
 * calls of struct stream_events come from the loop, never from within a call of this header; in
 * each of them the owner may do all that is declared here. Between stream_open() or
 * stream_connect() and on_closed the stream may neither move nor be freed; then it may be used
 * again.
 */

#include "relay/net/conn.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ssl_session_st;
struct ssl_st;

enum stream_code {
	STREAM_STOCK,
	STREAM_POSTERN,
};

struct stream_tls {
	bool is_server;
	const char *cert;      /* PEM chain to show, or NULL */
	const char *key;       /* its key */
	const char *ca;        /* PEM: the other side must show a certificate from these; or NULL */
	const char *name;      /* client: the name that the certificate must have; or NULL */
	const char *versions;  /* "1.2", "1.3", or NULL for both */
	const char *groups;    /* as SSL_CTX_set1_groups_list() takes them, or NULL */
	const char *ciphers;   /* names of TLS 1.2 and of TLS 1.3, with colons between; or NULL */
	const char *ktls;      /* postern's code: "off", "rx", "tx", "on"; NULL: off */
	unsigned ticket_count; /* server: tickets of a TLS 1.3 handshake; 0 ends resumption */
};

struct stream_net_options {
	enum stream_code code;
	unsigned streams_max;         /* that are open at once */
	bool is_small;                /* keep no buffer while idle: for many quiet streams */
	const struct stream_tls *tls; /* NULL: clear text only; must live as long as the net */
};

struct stream_net;

/*
 * Before the first net and before any thread: asks the kernel what it can do, and prepares both
 * codes. With STREAM_POSTERN the process also gets the relay's own provider of OpenSSL, which stock
 * OpenSSL would use as well. On failure -errno, and what is wrong on stderr.
 */
int stream_init(enum stream_code code);

/*
 * What the streams of one thread share: its loop and TLS contexts. Made on the thread that runs
 * it. On failure -errno, and what is wrong (naming the file) on stderr.
 */
int stream_net_create(struct stream_net **out, const struct stream_net_options *options);
void stream_net_destroy(struct stream_net **net);

/* The owner calls loop_turn() on it until it has had enough. */
struct loop *stream_net_loop(struct stream_net *net);

struct stream;

struct stream_events {
	void (*on_connected)(struct stream *stream, int result); /* 0 or -errno; then only abort */
	void (*on_input)(struct stream *stream);                 /* stream_input() has bytes */
	void (*on_drained)(struct stream *stream);               /* all that was written has left */
	void (*on_tls)(struct stream *stream); /* the handshake is done, the peer is proved */
	/* Nothing more will be received. why NULL: the peer said goodbye; lives for the call. */
	void (*on_end)(struct stream *stream, const char *why);
	void (*on_closed)(struct stream *stream);
};

struct stream_ops;

/* State of STREAM_STOCK; private to stream_stock.c. */
struct stock {
	int fd;
	unsigned state; /* enum stock_state */
	unsigned pending;
	struct ssl_st *ssl;
	struct ssl_session_st **slot;
	struct op connect_op, recv_op, send_op;
	struct task task;
	struct task flush_task;
	struct timer timer;
	/* 0 .. in_start ==text== in_end .. raw_start ==ciphertext== raw_end .. as in conn.h */
	struct stock_buffer *in;
	size_t in_start, in_end, raw_start, raw_end;
	size_t feed;              /* of the record that OpenSSL is taking */
	struct stock_buffer *out; /* gathered text, up to out_end */
	size_t out_end;
	struct stock_buffer *wire; /* on its way */
	size_t wire_start, wire_end;
	bool is_accepted;
	bool wants_input;
	bool is_fresh;     /* what came with the end of the handshake was not looked at */
	bool is_polling;   /* recv_op only waits, and holds no buffer */
	bool peer_closed;  /* nothing more will be received */
	bool has_ended;    /* on_end was or will be called */
	bool is_shut;      /* our close_notify has been given out */
	bool is_lingering; /* and our FIN */
	struct sockaddr_in to;
	char why[128];
};

struct stream {
	struct stream_net *net;
	const struct stream_events *events;
	const struct stream_ops *ops;
	struct address to; /* STREAM_POSTERN: where it connects */
	const char *cipher;
	const char *group; /* and what was agreed upon */
	union {
		struct stock stock;
		struct conn conn;
	} as;
};

/* Takes over an accepted descriptor. Nothing is read yet. */
void stream_open(
	struct stream *stream, struct stream_net *net, const struct stream_events *events, int fd);

/*
 * Begins to connect, from source unless that is NULL; on_connected tells how it went. Both
 * addresses are copied. On -errno the stream is not open.
 */
int stream_connect(struct stream *stream, struct stream_net *net,
	const struct stream_events *events, const struct sockaddr_in *to,
	const struct sockaddr_in *source);

/* The received text, valid until stream_consume() or stream_read(). */
struct span stream_input(const struct stream *stream);
void stream_consume(struct stream *stream, size_t bytes);

/* Asks for text beyond what is there and not consumed. Harmless if it was asked already. */
void stream_read(struct stream *stream);

/* How much stream_write() would take now. 0 while too much is on its way: wait for on_drained. */
size_t stream_room(const struct stream *stream);

/* Copies bytes to what is gathered; returns how many (all, if there is room). */
size_t stream_write(struct stream *stream, struct span bytes);

/* Room to write into directly, *room bytes (perhaps 0), and how many of them were written. */
uint8_t *stream_out_space(struct stream *stream, size_t *room);
void stream_out_commit(struct stream *stream, size_t bytes);

/* Sends what is gathered at the end of this turn. */
void stream_flush(struct stream *stream);

/*
 * The same at once, so that there is room for more while it leaves. With nothing on its way
 * already, stream_room() is then that of an empty stream again.
 */
void stream_flush_now(struct stream *stream);

/* Is nothing gathered and nothing on its way? */
bool stream_is_drained(const struct stream *stream);

/*
 * Begins TLS in the role of the net. Everything written must have left, and no text may be
 * unread. slot: client only, may be NULL; *slot is offered for resumption and replaced by what
 * the server gives. on_tls or on_end follows.
 */
int stream_start_tls(struct stream *stream, struct ssl_session_st **slot);
void stream_session_drop(struct ssl_session_st **slot);

struct stream_facts {
	bool is_tls;
	bool is_resumed;
	const char *version; /* "TLSv1.3"; "none" */
	const char *cipher;  /* by OpenSSL's name; "none" */
	const char *group;   /* of the key exchange; "none" if there was none, or it is not known */
	char record[128];    /* who protects the records: "none", "kernel", "user(WHY)", "user" */
};

/* From on_tls on; of a stream in clear text, at any time. */
void stream_facts(const struct stream *stream, struct stream_facts *out);

/* An orderly end: what was written is sent, then close_notify and FIN; on_closed follows. */
void stream_close(struct stream *stream);

/* The end, now. What was not sent is lost. on_closed follows. Harmless when it was called. */
void stream_abort(struct stream *stream);

/* A listening, non-blocking socket on address; its port is filled in when it was 0. fd or -errno.
 */
int stream_listen(struct sockaddr_in *address);
