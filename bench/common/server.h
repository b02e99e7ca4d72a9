/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * server.h: the SMTP of the sink: takes bytes, makes replies, counts; no socket is touched here.
 *
 *   COMMAND --DATA--> DATA --CRLF.CRLF--> COMMAND
 *   COMMAND --BDAT--> CHUNK --its last byte--> COMMAND
 *   COMMAND --STARTTLS--> TLS --> COMMAND
 *   COMMAND --QUIT--> CLOSE
 *
 * Between the two of each of these lies HOLD, when the reply is delayed. All mail is accepted,
 * checked (message.h, seen.h) and thrown away, but for what faults.h refuses.
 */

#include "bench/common/dotend.h"
#include "bench/common/faults.h"
#include "bench/common/message.h"
#include "bench/common/seen.h"

#include <stdatomic.h>

/* A command line, with room to spare (RFC 5321 4.5.3.1.4 asks for 512). */
#define SERVER_LINE_BYTES_MAX 4096

/* More replies than this are not kept for a client that does not read them. */
#define SERVER_OUT_BYTES_MAX (4U << 20)

#define SERVER_COUNTERS(X)                                                    \
	X(sessions)      /* accepted connections */                           \
	X(tls_sessions)  /* handshakes completed */                           \
	X(tls_resumed)   /* of these, resumed */                              \
	X(tls_failed)    /* handshakes failed */                              \
	X(messages)      /* accepted */                                       \
	X(message_bytes) /* of these; DATA with the dots that were stuffed */ \
	X(recipients)    /* accepted */                                       \
	X(data)          /* messages that came with DATA */                   \
	X(bdat)          /* and with BDAT */                                  \
	X(verified)      /* messages whose sum was right */                   \
	X(corrupt)       /* whose sum was wrong */                            \
	X(foreign)       /* that had none */                                  \
	X(duplicates)    /* verified more than once */                        \
	X(incomplete)    /* bodies cut off by the end of a connection */      \
	X(bad_commands)  /* answered 5xx */

struct server_counters {
#define SERVER_FIELD(name) _Atomic uint64_t name;
	SERVER_COUNTERS(SERVER_FIELD)
#undef SERVER_FIELD
	_Atomic uint64_t
		faults[FAULTS_STEP_COUNT]; /* replies that were refusals, or were not given */
	_Atomic uint64_t delays;           /* replies that had to wait */
	_Atomic uint64_t first_us;         /* when the first message was accepted; 0: none was */
	_Atomic uint64_t last_us;          /* and the newest */
};

#define SERVER_ADD(counters, name, n) \
	atomic_fetch_add_explicit(&(counters)->name, (n), memory_order_relaxed)

struct server_policy {
	bool is_verifying;
	bool has_chunking;
	bool has_starttls;
	bool needs_tls;        /* no mail in clear text */
	struct faults *faults; /* NULL: none */
	struct seen *seen;     /* while verifying */
};

enum server_state {
	SERVER_COMMAND, /* commands, line by line */
	SERVER_DATA,    /* a body up to its dot */
	SERVER_CHUNK,   /* the bytes of a BDAT */
	SERVER_HOLD,    /* a reply is held back for hold_ms, until server_release() */
	SERVER_TLS,     /* 220 to STARTTLS is in out; the owner does the handshake */
	SERVER_CLOSE,   /* to be closed when out is sent */
};

struct server {
	const struct server_policy *policy;
	struct server_counters *counters;
	enum server_state state;
	enum dot_state dot;
	bool is_tls;
	bool has_mail;
	bool has_rcpt;
	bool in_bdat; /* a chunk of this message has come */
	bool is_last; /* the chunk under way is the last */
	bool is_void; /* it belongs to no transaction */
	unsigned hold_ms;
	enum server_state held_state; /* and what comes when that is over */
	char held[64];                /* the reply */
	uint64_t chunk_left;
	uint64_t body_bytes;
	struct check check;
	char *out; /* replies to send, from out_at to out_bytes */
	size_t out_at;
	size_t out_bytes;
	size_t out_room;
	size_t line_bytes; /* an unfinished command line */
	char line[SERVER_LINE_BYTES_MAX];
};

void server_init(struct server *server, const struct server_policy *policy,
	struct server_counters *counters);
void server_fini(struct server *server);

/* Puts the banner into out, or what is to stand in its place. */
void server_greet(struct server *server);

/* Consumes input as long as the state is COMMAND, DATA or CHUNK; returns how much. */
size_t server_feed(struct server *server, const char *data, size_t bytes);

/* SERVER_HOLD is over: hold_ms have passed. */
void server_release(struct server *server);

/* SERVER_TLS is over: the handshake is done, and all from before it is forgotten. */
void server_secured(struct server *server);
