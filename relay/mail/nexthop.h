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
 * A destination is a send connector and what its sessions must be (struct send_requirement):
 * a session that was good enough for one domain is never used for another that asks for
 * more. Nor is one that speaks for a client of ours (client-identity) ever used for another: it
 * belongs to a principal, ends with it, and when something else is to be said of the client.
 * Its hosts are the connector's smart hosts, or those that DNS names for the domain,
 * looked up again when that answer is old. All destinations of a connector share its outlet: one
 * limit of clients, one TLS context. Where the limit is reached, the session of another
 * destination that was idle for the longest time ends, and who came first is served first.
 */

#include "relay/base/list.h"
#include "relay/base/pool.h"
#include "relay/mail/hosts.h"
#include "relay/smtp/client.h"

struct lease;
struct nexthop;

struct lease_events {
	/* The client is yours until nexthop_put(). Set its events and owner. */
	void (*on_leased)(struct lease *lease, struct client *client);
	/* No session is to be had; reply is a whole line with CR LF. */
	void (*on_refused)(struct lease *lease, struct span reply);
};

/*
 * Whom a session speaks for, where the connector has client-identity; elsewhere it is not looked
 * at. Embedded in whoever serves one client of ours, who has one wish at a time.
 */
struct principal {
	/* What is known of the client now. */
	void (*identify)(struct principal *principal, struct identity *out);
	struct link clients;     /* of struct nexthop_client: opened for it */
	struct nexthop *waiting; /* where its wish waits */
	struct lease *lease;
};

void principal_init(struct principal *principal,
	void (*identify)(struct principal *principal, struct identity *out));

/* The client has gone, or is another: sessions opened for it end, those in use when put back. */
void principal_end(struct principal *principal);

/* A wish for a client; embedded in whoever has it. */
struct lease {
	struct link link;
	const struct lease_events *events;
	struct principal *principal;
};

/* What all destinations of one send connector share. */
struct outlet {
	struct conn_net *net;
	const struct send_connector *connector;
	struct tls_context tls_context;
	struct pool clients; /* of struct nexthop_client */
	struct link all;     /* every client that is open */
	struct link idle;    /* of these, those without work, the longest idle first */
	struct link starved; /* of struct nexthop: they wait for a client */
	unsigned worker_id;  /* for session ids, as the next three */
	unsigned made_s;     /* when, in seconds since 1970 */
	unsigned generation; /* of the snapshot */
	unsigned *next_id;   /* shared by all outlets of a worker */
	bool keeps_protolog;
	bool is_draining;
};

struct nexthop {
	struct outlet *outlet;
	struct send_requirement requirement;
	const struct trust *trust;
	char domain[DOMAIN_BYTES_MAX]; /* "": the same for every domain */

	struct hosts hosts;

	struct link idle;    /* of struct nexthop_client, last used first */
	struct link waiting; /* of struct lease */
	struct link in_starved;
	struct task task; /* serves who waits */
	unsigned waiting_count;
	unsigned opening_count; /* clients on their way to READY */
	unsigned client_count;  /* clients that are open */
	unsigned users;         /* who holds it, see nexthop_hold() */
	bool has_offer;         /* offer is what the last usable session announced */
	struct ehlo_offer offer;
	char refusal[CLIENT_REFUSAL_BYTES]; /* why the last host failed, with CR LF */
	char failed_name[NAME_BYTES_MAX];   /* which that was; "": none, as with DNS */
	struct address failed_address;

	/* Nobody uses it and it has no client; may be NULL. Its owner may take it for another. */
	void (*on_unused)(struct nexthop *nexthop);
};

/* How a transaction leaves its client. */
enum nexthop_put {
	NEXTHOP_PUT_CLEAN,  /* no transaction is open */
	NEXTHOP_PUT_RESET,  /* one is open, or replies are owed: RSET, then it may be used again */
	NEXTHOP_PUT_FINISH, /* the answer to a message is owed and nobody waits for it */
	NEXTHOP_PUT_ABORT,  /* the peer must see it cut off */
};

/*
 * Prepares an outlet for that connector; the caller has set net, worker_id, next_id and
 * keeps_protolog. trust is the connector's, or NULL. error says what is wrong with the TLS settings
 * (-EINVAL).
 */
NODISCARD int outlet_create(struct outlet *outlet, const struct send_connector *connector,
	const struct trust *trust, char *error, size_t error_bytes);

/* All clients must be closed. */
void outlet_destroy(struct outlet *outlet);

/* Ends idle sessions; those in use end when they are put back. */
void outlet_drain(struct outlet *outlet);

/* Ends the session that was idle for the longest time, if nobody waits for it. False: none is. */
bool outlet_end_idle(struct outlet *outlet, const char *why);

/* Ends all sessions now. */
void outlet_abort(struct outlet *outlet);

/* Are all sessions gone? */
bool outlet_is_closed(const struct outlet *outlet);

/* Revocation lists have changed: who waits for one is judged again. */
void outlet_proof_changed(struct outlet *outlet);

/*
 * Begins a destination in zeroed memory; the caller has set outlet, requirement, trust,
 * domain, hosts (a lookup's end goes to nexthop_resolved()) and on_unused.
 */
void nexthop_init(struct nexthop *nexthop);

/* It must be unused. Sessions kept for resumption are dropped. */
void nexthop_fini(struct nexthop *nexthop);

/* While it is held it stays what it is. */
void nexthop_hold(struct nexthop *nexthop);
void nexthop_release(struct nexthop *nexthop);

/* The lookup of its hosts has ended. */
void nexthop_resolved(struct nexthop *nexthop, enum resolve_status status);

void lease_init(
	struct lease *lease, const struct lease_events *events, struct principal *principal);

/*
 * Asks for a client; on_leased or on_refused comes from the loop, never from
 * here. The destination must be held.
 */
void nexthop_ask(struct nexthop *nexthop, struct lease *lease);

/*
 * Takes an idle client at once, or returns NULL. Whom it is connected to is judged again: idle
 * clients whose certificate is not good any more end here.
 */
struct client *nexthop_take(struct nexthop *nexthop, struct principal *principal);

/* No longer wanted. Harmless when it does not wait. */
void nexthop_cancel(struct nexthop *nexthop, struct lease *lease);

/* Gives a leased client back. */
void nexthop_put(struct client *client, enum nexthop_put how);

/* Where a client is connected to. */
const struct address *nexthop_address(struct client *client);

/* May a leased client carry one more message, by the limits of its connector? */
bool nexthop_may_go_on(struct client *client);

/* How long a host that failed is passed over. */
#define NEXTHOP_HOST_DOWN_MS 10000

/*
 * A leased client broke, or was told 421, in the middle of its work: its host counts as one that
 * failed. Is there another to try now?
 */
NODISCARD bool nexthop_pass_over(struct client *client);

/* A leased client broke: it goes by itself, and the next is opened elsewhere if that host is down.
 */
void nexthop_lost(struct client *client, const char *why);
