/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * client.h: the client's side of an SMTP session, from connect to the point where mail may go.
 *
 *   CONNECT --> [TLS] --> BANNER --> EHLO --> [STARTTLS --> TLS --> EHLO] --> READY
 *
 * load and idle embed a struct client and take over with on_ready. It owns the stream. Calls come
 * from the loop, never from within a call of this header. Each client_open() that succeeds is
 * answered by one on_closed, which is the last.
 */

#include "bench/common/stream.h"

enum client_tls {
	CLIENT_PLAIN,    /* no TLS, even if offered */
	CLIENT_STARTTLS, /* TLS or failure */
	CLIENT_IMPLICIT, /* TLS from the first byte */
};

/* What all sessions of a program have in common. */
struct client_plan {
	struct sockaddr_in to;
	enum client_tls tls;
};

enum client_state {
	CLIENT_CONNECT,     /* the socket connects */
	CLIENT_TLS_FIRST,   /* handshake before the banner */
	CLIENT_BANNER,      /* waits for 220 */
	CLIENT_EHLO,        /* waits for the reply to the first EHLO */
	CLIENT_STARTTLS_GO, /* waits for the reply to STARTTLS */
	CLIENT_TLS_LATER,   /* handshake behind STARTTLS */
	CLIENT_EHLO_AGAIN,  /* waits for the reply to the EHLO under TLS */
	CLIENT_READY,       /* mail may go; the owner reads the replies */
	CLIENT_LOST,        /* on_lost was called, or the owner ends it */
};

struct client;

struct client_events {
	void (*on_ready)(struct client *client);
	/* After on_ready: there may be a reply; there may be room for more. */
	void (*on_input)(struct client *client);
	void (*on_drained)(struct client *client);
	/* The session ended, or never came to be: at what, in words that live for the call; code is
	 * a reply, -errno or 0. The client ends itself; on_closed follows. */
	void (*on_lost)(struct client *client, const char *why, int code);
	void (*on_closed)(struct client *client);
};

struct client {
	struct stream stream;
	const struct client_plan *plan;
	const struct client_events *events;
	struct ssl_session_st **slot;
	enum client_state state;
	bool has_chunking;
	bool has_pipelining;
	bool has_starttls;
};

/*
 * Connects, from source unless NULL. slot: a session to resume, as in stream_start_tls(). On -errno
 * nothing was begun.
 */
int client_open(struct client *client, struct stream_net *net, const struct client_plan *plan,
	const struct client_events *events, const struct sockaddr_in *source,
	struct ssl_session_st **slot);

/* Appends a command; false when there is no room. It goes out with stream_flush(). */
bool client_say(struct client *client, const char *line);

/* The same with a number in it, without what printf would cost for each message. */
bool client_say_number(
	struct client *client, const char *before, uint64_t number, const char *after);

/*
 * The code of the next whole reply, or -EPROTO when what came is none. -EAGAIN when none is there
 * yet; then on_input will say that there is more.
 */
int client_next_reply(struct client *client);

/* The orderly end, or the quick one. Neither calls on_lost any more. */
void client_close(struct client *client);
void client_abort(struct client *client);
