/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * client.h: one SMTP session with a next hop, as its client.
 *
 *   CONNECT --> GREETING --> EHLO --+----> (XCLIENT, EHLO) ----> READY --> QUIT
 *                             ^     |                              ^
 *                             |     +--> STARTTLS --> TLS          |
 *                             |                        |           |
 *                             +--------- (PROOF) <-----+           |
 *                                   EHLO --> HELO -----------------+
 *
 * READY means usable: TLS is as the requirement wants it, the peer is who it should be, and
 * its offer is known. A peer that is not gets QUIT and never a MAIL; a session that needs TLS
 * never goes on without it. From then on the owner gives commands and gets replies, in
 * order; any number may be under way (RFC 2920), so there are two cursors: what
 * was written, and how many answers are owed.
 *
 * With client-identity the session speaks for one client, and says so before it is READY: in a
 * PROXY header, the first bytes of the connection, or with XCLIENT, under TLS if there is TLS. A
 * next hop that does not hear it gets no mail, which it would take for ours.
 *
 * Owns its conn. Fails by on_failed (before READY) or on_lost (after); the
 * owner then waits for on_closed.
 */

#include "policy/secure_send.h"
#include "relay/base/protolog.h"
#include "relay/net/conn.h"
#include "relay/pki/trust.h"
#include "relay/smtp/identity.h"
#include "relay/smtp/reply.h"

enum client_state {
	CLIENT_CONNECT,  /* TCP, the PROXY header, and TLS if it is implicit */
	CLIENT_GREETING, /* the peer's 220 is awaited */
	CLIENT_EHLO,     /* the answer to EHLO is awaited */
	CLIENT_HELO,     /* EHLO was not understood; the answer to HELO is awaited */
	CLIENT_STARTTLS, /* the answer to STARTTLS is awaited */
	CLIENT_TLS,      /* handshake */
	CLIENT_PROOF,    /* under TLS; a revocation list that its certificate needs is awaited */
	CLIENT_XCLIENT,  /* the answer to XCLIENT is awaited */
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
#define CLIENT_REFUSAL_BYTES 512

struct client {
	struct conn conn;
	const struct client_events *events;
	void *owner; /* whom events are for */
	const struct send_connector *connector;
	const struct tls_context *tls_context;
	const struct send_requirement *requirement; /* what the session must be */
	const struct trust *trust; /* what its certificate is judged by; NULL: none is trusted */
	const char *host;          /* configured name of the address in use, for SNI and the log */
	struct identity identity;  /* of whom it speaks for, where the connector asks for that */
	bool skips_starttls; /* its handshake failed a moment ago, and clear text is allowed */
	bool keeps_protolog;
	enum client_state state;
	bool is_told;        /* the peer knows, or may know, for whom the session is */
	bool is_announced;   /* XCLIENT was accepted */
	bool is_turned_away; /* it failed, and maybe for whom it is: that says nothing of the host
			      */
	bool is_secured;     /* under TLS, and the requirement is met */
	bool has_tls_failed; /* STARTTLS was refused or the handshake failed */
	const char *status;  /* why the requirement was not met: a verdict's word, or NULL */
	char refusal[CLIENT_REFUSAL_BYTES]; /* why, as a reply with CR LF; "": nothing special */
	struct ehlo_offer offer;
	unsigned owed; /* replies to commands that were written */
	uint64_t opened_ms;
	uint64_t message_count;
	struct ssl_session_st **session_slot;
	char id[CLIENT_ID_BYTES];
	struct protolog protolog;
	const char *end_word; /* how it ended, for the protocol log */
};

/*
 * Begins a session with the address; the caller has set events, owner, connector, tls_context,
 * requirement, trust, host, identity, skips_starttls, keeps_protolog, session_slot and id. -errno
 * when there is no socket.
 */
NODISCARD int client_open(
	struct client *client, struct conn_net *net, const struct address *address);

/* Writes a command with its CR LF; one reply is owed for it. It leaves with client_flush(). */
void client_command(struct client *client, struct span command);

/* The same for what is no command and does not go to the protocol log: the end of data. */
void client_command_unshown(struct client *client, struct span bytes);

/* One more reply is owed, for a command that the owner wrote into the conn itself; shown may be
 * empty, and is for the protocol log. */
void client_owe(struct client *client, struct span shown);

/* At the end of this turn, or at once: as conn_flush(), conn_flush_now(). */
void client_flush(struct client *client);
void client_flush_now(struct client *client);

/* Ends it: QUIT when it is usable and owes nothing, else just the end. */
void client_quit(struct client *client);

/* Ends it now: what was not sent is lost, and the peer must take it for cut off. */
void client_abort(struct client *client);

/* An idle session ends by itself at due_ms (on_lost). 0: only the usual deadlines hold. */
void client_idle_until(struct client *client, uint64_t due_ms);

/*
 * After a failure: may it be tried once more in clear text (skips_starttls)? Only where nothing
 * asks for TLS and a handshake is what failed.
 */
bool client_may_downgrade(const struct client *client);

/*
 * A usable session that was kept for a while: would its certificate be judged good now? What it was
 * judged by may have changed, or its time be over. False: it must not carry mail any more; end it.
 */
bool client_is_still_proved(struct client *client);

/* A revocation list came or cannot be had: a client in CLIENT_PROOF is judged again. */
void client_proof_changed(struct client *client);

/*
 * For client.c: what is to be said of the peer's certificate; shown is for the log. False: it is
 * not known yet, for want of a revocation list.
 */
NODISCARD bool client_judge(struct client *client, enum verdict *out, enum verdict *out_shown);

/* For client.c: the host name for SNI, without its port; an address is none (RFC 6066 3). */
NODISCARD bool client_sni(const struct client *client, char out[NAME_BYTES_MAX]);

/* client_identity.c, for client.c. */

/* Who says EHLO: we, or the client once it was announced, since the session is its own then. */
const char *client_ehlo_name(const struct client *client);

/* Connected: gathers the PROXY header, if the next hop is to have one. */
void client_write_header(struct client *client);

/* After EHLO: is XCLIENT still to be said? */
bool client_owes_xclient(const struct client *client);

/* The line; NULL: the next hop cannot take it. It stands in out. */
const char *client_compose_xclient(
	const struct client *client, char out[static XCLIENT_COMMAND_BYTES_MAX + 1]);

/* The peer wants no session, not in a silent way: is_turned_away if it was told for whom. */
void client_turned_away(struct client *client);

/* It does not take it: says why for the log, and leaves the refusal for who waits. */
void client_lacks_xclient(struct client *client, const char *words);

/* For client.c: the log's event, and rows of the protocol log (EXCHANGE 12.1). */
void client_log_record(const struct client *client);
void client_log_open(struct client *client);
void client_log_reply(struct client *client, const struct reply *reply);
void client_log_tls(struct client *client);
