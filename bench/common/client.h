/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * client.h: the client's side of an SMTP session, from connect to the point where mail may go.
 *
 *   CONNECT --> [TLS] --> BANNER --> EHLO --> [STARTTLS --> TLS --> EHLO] --> READY
 *
 * load and idle embed a struct client and take over at READY. It owns the wire, a window of
 * unread replies and one record's worth of bytes to send; nothing in it waits.
 */

#include "bench/common/wire.h"

/* The plaintext of one TLS record, so that a full buffer becomes one full record. */
#define CLIENT_OUT_BYTES 16384
#define CLIENT_IN_BYTES 4096

enum client_tls {
	CLIENT_PLAIN,    /* no TLS, even if offered */
	CLIENT_STARTTLS, /* TLS or failure */
	CLIENT_IMPLICIT, /* TLS from the first byte */
};

/* What all sessions of a program have in common. */
struct client_plan {
	struct sockaddr_in to;
	enum client_tls tls;
	struct ssl_ctx_st *ctx; /* NULL with CLIENT_PLAIN */
	const char *name;       /* to find in the server's certificate, or NULL */
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
	CLIENT_FAILED,      /* see why and code */
};

struct client {
	struct wire wire;
	const struct client_plan *plan;
	struct ssl_session_st *resume; /* borrowed; or NULL */
	enum client_state state;
	const char *why; /* after CLIENT_FAILED: at what, in a word or two */
	int code;        /* after CLIENT_FAILED: the reply, or -errno */
	bool may_read;   /* the socket may have input; set by the owner when poll says so */
	bool has_chunking;
	bool has_starttls;
	uint32_t polled; /* what epoll was told last */
	size_t in_at;
	size_t in_bytes;
	size_t out_at;
	size_t out_bytes;
	char in[CLIENT_IN_BYTES];
	char out[CLIENT_OUT_BYTES];
};

/* Connects, from source unless NULL, and puts the socket into epoll with owner as its data. */
int client_begin(struct client *client, const struct client_plan *plan,
	const struct sockaddr_in *source, int epoll, void *owner);

/* Goes on as far as possible; returns the state. To be called after each event until READY. */
enum client_state client_drive(struct client *client);

/* Appends a command; false when there is no room. It goes out with client_flush(). */
bool client_say(struct client *client, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Sends what is there: 0 all of it, -EAGAIN not yet, or why not. */
int client_flush(struct client *client);

/* The code of the next whole reply, -EAGAIN when none is there yet, -EPROTO when it is none. */
int client_next_reply(struct client *client);

/* Reads once: > 0 bytes, -EAGAIN, -ECONNRESET at the end of input, or another error. */
int client_receive(struct client *client);

/* Tells epoll what this client waits for, if that has changed. */
void client_poll(struct client *client, int epoll, void *owner);

void client_close(struct client *client);
