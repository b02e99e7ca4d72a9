/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * nexthop.h: the sessions of one worker with one destination: who has one, which
 * are idle, and where the next is opened.
 *
 * A transaction asks for a lease and gets a usable client, at once or later,
 * or a refusal when no host can be reached. Sessions are opened as transactions
 * wait, up to the connector's limit, and kept idle for reuse within its limits of
 * age, messages and silence. A host that failed is passed over for a while.
 *
 * Owns its clients, between leases too. The fixed pool of clients is its own.
 */

#include "relay/base/list.h"
#include "relay/base/pool.h"
#include "relay/smtp/client.h"

struct lease;

struct lease_events {
	/* The client is yours until nexthop_put(). Set its events and owner. */
	void (*on_leased)(struct lease *lease, struct client *client);
	/* No session is to be had; reply is a whole line with CR LF. */
	void (*on_refused)(struct lease *lease, struct span reply);
};

/* A wish for a client; embedded in whoever has it. */
struct lease {
	struct link link;
	const struct lease_events *events;
};

struct nexthop_host {
	uint64_t down_until_ms;         /* failed lately: passed over until then */
	struct ssl_session_st *session; /* for resumption */
};

struct nexthop {
	struct conn_net *net;
	const struct send_connector *connector;
	struct tls_context tls_context;
	struct pool clients;
	struct nexthop_host *hosts; /* one for each smart host address */
	struct link idle;           /* of struct nexthop_client, last used first */
	struct link waiting;        /* of struct lease */
	struct link all;            /* every client that is open */
	struct task task;           /* serves who waits */
	unsigned waiting_count;
	unsigned opening_count; /* clients on their way to READY */
	unsigned next_id;
	bool is_draining;
	bool has_offer; /* offer is what the last usable session announced */
	struct ehlo_offer offer;
	unsigned worker_id; /* for session ids */
};

/* How a transaction leaves its client. */
enum nexthop_put {
	NEXTHOP_PUT_CLEAN,  /* no transaction is open */
	NEXTHOP_PUT_RESET,  /* one is open, or replies are owed: RSET, then it may be used again */
	NEXTHOP_PUT_FINISH, /* the answer to a message is owed and nobody waits for it */
	NEXTHOP_PUT_ABORT,  /* the peer must see it cut off */
};

/* Prepares; error says what is wrong with the TLS settings (-EINVAL). */
NODISCARD int nexthop_create(struct nexthop *nexthop, struct conn_net *net,
	const struct send_connector *connector, unsigned worker_id, char *error,
	size_t error_bytes);

/* All clients must be closed. */
void nexthop_destroy(struct nexthop *nexthop);

void lease_init(struct lease *lease, const struct lease_events *events);

/*
 * Asks for a client; on_leased or on_refused comes from the loop, never from
 * here.
 */
void nexthop_ask(struct nexthop *nexthop, struct lease *lease);

/* Takes an idle client at once, or returns NULL. */
struct client *nexthop_take(struct nexthop *nexthop);

/* No longer wanted. Harmless when it does not wait. */
void nexthop_cancel(struct nexthop *nexthop, struct lease *lease);

/* Gives a leased client back. */
void nexthop_put(struct nexthop *nexthop, struct client *client, enum nexthop_put how);

/* A leased client broke: it goes by itself, and the next is opened elsewhere if that host is down.
 */
void nexthop_lost(struct nexthop *nexthop, struct client *client, const char *why);

/* Ends idle sessions; those in use end when they are put back. */
void nexthop_drain(struct nexthop *nexthop);

/* Ends all sessions now. */
void nexthop_abort(struct nexthop *nexthop);

/* Are all sessions gone? */
bool nexthop_is_closed(const struct nexthop *nexthop);
