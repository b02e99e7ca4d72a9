/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * client.h: one SMTP session with a next hop, as its client.
 *
 *   CONNECT --> GREETING --> EHLO --+--------------------------> READY --> QUIT
 *                             ^     |                              ^
 *                             |     +--> STARTTLS --> TLS --+      |
 *                             +-----------------------------+      |
 *                                   EHLO --> HELO -----------------+
 *
 * READY means usable: TLS is as the send connector wants it and the peer's
 * offer is known. From then on the owner gives commands and gets replies, in
 * order; any number may be under way (RFC 2920), so there are two cursors: what
 * was written, and how many answers are owed.
 *
 * Owns its conn. Fails by on_failed (before READY) or on_lost (after); the
 * owner then waits for on_closed.
 */

#include "policy/policy.h"
#include "relay/net/conn.h"
#include "relay/smtp/reply.h"

enum client_state {
	CLIENT_CONNECT,  /* TCP, and TLS if it is implicit */
	CLIENT_GREETING, /* the peer's 220 is awaited */
	CLIENT_EHLO,     /* the answer to EHLO is awaited */
	CLIENT_HELO,     /* EHLO was not understood; the answer to HELO is awaited */
	CLIENT_STARTTLS, /* the answer to STARTTLS is awaited */
	CLIENT_TLS,      /* handshake */
	CLIENT_READY,    /* usable */
	CLIENT_QUIT,     /* ending */
	CLIENT_STATE_COUNT,
};

struct client;

struct client_events {
	void (*on_ready)(struct client *client);
	/* It did not come to READY; why is a phrase for the log. on_closed follows. */
	void (*on_failed)(struct client *client, const char *why);
	/* The next reply that was owed. */
	void (*on_reply)(struct client *client, const struct reply *reply);
	/* All that was flushed has left. */
	void (*on_drained)(struct client *client);
	/* A usable session broke, or its peer was silent for too long. on_closed follows. */
	void (*on_lost)(struct client *client, const char *why);
	/* It is over; the client may be freed. */
	void (*on_closed)(struct client *client);
};

#define CLIENT_ID_BYTES 20

struct client {
	struct conn conn;
	const struct client_events *events;
	void *owner; /* whom events are for */
	const struct send_connector *connector;
	const struct tls_context *tls_context;
	const char *host; /* configured name of the address in use, for SNI and the log */
	enum client_state state;
	bool is_secured;
	struct ehlo_offer offer;
	unsigned owed; /* replies to commands that were written */
	uint64_t opened_ms;
	uint64_t message_count;
	struct ssl_session_st **session_slot;
	char id[CLIENT_ID_BYTES];
};

/*
 * Begins a session with the address; the caller has set events, owner,
 * connector, tls_context, host, session_slot and id. -errno when there is no socket.
 */
NODISCARD int client_open(
	struct client *client, struct conn_net *net, const struct address *address);

/* Writes a command with its CR LF; one reply is owed for it. It leaves with client_flush(). */
void client_command(struct client *client, struct span command);

/* One more reply is owed, for a command that the owner wrote into the conn itself. */
void client_owe(struct client *client);

/* At the end of this turn, or at once: as conn_flush(), conn_flush_now(). */
void client_flush(struct client *client);
void client_flush_now(struct client *client);

/* Ends it: QUIT when it is usable and owes nothing, else just the end. */
void client_quit(struct client *client);

/* Ends it now: what was not sent is lost, and the peer must take it for cut off. */
void client_abort(struct client *client);

/* An idle session ends by itself at due_ms (on_lost). 0: only the usual deadlines hold. */
void client_idle_until(struct client *client, uint64_t due_ms);
