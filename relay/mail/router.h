/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * router.h: where the mail of one worker goes: an outlet for each send connector, and the
 * destinations behind them. One for each worker and snapshot of the policy.
 *
 *   recipient --route_send()--> send connector --needs nothing of the domain--> its fixed
 * destination
 *                                     |
 *                                     +--by DNS, or the domain must be proved--> one of a pool,
 *                                        by connector and domain
 *
 * The pool is laid out at the start; a destination that nobody uses is taken for another
 * domain, the one longest unused first. When all are in use, a recipient gets 451 4.3.2.
 */

#include "policy/route.h"
#include "relay/mail/nexthop.h"

/* Destinations by domain that a worker knows at a time. */
#define ROUTER_DESTINATIONS_MAX 4096

#define ROUTER_REPLY_BYTES 512

struct router;

struct router_options {
	const struct policy *policy;
	const struct trust_set *trusts; /* of the same snapshot; may be NULL: nobody is trusted */
	struct conn_net *net;           /* used from router_open() on */
	unsigned worker_id;             /* for session ids */
};

/*
 * Prepares all outlets; on any thread. What is wrong with TLS settings goes to errors, a line
 * each: "FILE:LINE: ...". -EINVAL, -ENOMEM.
 */
NODISCARD int router_create(
	const struct router_options *options, FILE *errors, struct router **out);

/*
 * What belongs to the ring: on the worker's thread, before anything is routed. -errno: then what
 * needs DNS is refused, and it is tried again when that is asked for.
 */
NODISCARD int router_open(struct router *router);

/* All sessions must be gone, or never have been. */
void router_destroy(struct router **router);

/* Ends idle sessions; those in use end when they are put back. */
void router_drain(struct router *router);

/* Ends all sessions now. */
void router_abort(struct router *router);

/* Are all sessions gone, and nothing asked of the name servers? True once it was drained. */
bool router_is_closed(struct router *router);

/* Each turn: TLS sessions end with the lists or the policy that they were judged by. */
void router_refresh_tls(struct router *router);

/* Revocation lists have changed: sessions that wait for one are judged again. */
void router_proof_changed(struct router *router);

struct conn_net *router_net(const struct router *router);

/*
 * The destination of that connector if it is the same for every recipient, else NULL.
 * *out_checks: recipients must go through router_check() all the same.
 */
struct nexthop *router_fixed(
	struct router *router, const struct send_connector *connector, bool *out_checks);

/* Who asks: for log lines and routes. */
struct router_ask {
	const char *session;
	const struct send_connector *connector; /* NULL: by address space */
	struct span path;                       /* of the recipient, "<a@b>" */
	uint64_t bytes;                         /* announced size, 0: none */
	bool is_final; /* a refusal is given now: it is logged and counted */
};

/* Where a recipient goes, or why nowhere. */
enum router_verdict {
	ROUTER_GOES,
	ROUTER_BAD_DOMAIN,  /* 550 5.1.2: there is no such address */
	ROUTER_TOO_LARGE,   /* 552 5.3.4: every connector that is for it takes less */
	ROUTER_UNREACHABLE, /* 451 4.4.4: no connector is for it */
	ROUTER_UNSECURED,   /* 451 4.7.3: a listed domain, and the connector proves nobody */
};

struct router_way {
	enum router_verdict verdict;
	struct route route;            /* pointers into the policy of the router */
	bool is_by_domain;             /* the destination is another for each domain */
	char domain[DOMAIN_BYTES_MAX]; /* of the recipient, normalized; "": it has none */
};

/*
 * The way of a recipient, without a destination: pure, but for what is logged of a final refusal.
 * False: it is refused, out->verdict and reply say why.
 */
bool router_way(struct router *router, const struct router_ask *ask, struct router_way *out,
	char reply[static ROUTER_REPLY_BYTES]);

/*
 * The way to a destination that is known already: its connector, its domain ("" where it is the
 * same for all), and whether it is secured. False: there is no such destination any more.
 */
bool router_way_of(const struct router *router, const struct send_connector *connector,
	const char *domain, bool is_secured, struct router_way *out);

/* The destination of a way that goes, held for the caller. NULL: not now, reply is why. */
struct nexthop *router_enter(
	struct router *router, const struct router_way *way, char reply[static ROUTER_REPLY_BYTES]);

/*
 * The destination of a recipient, held for the caller. NULL: it is refused, and reply is why,
 * without CR LF.
 */
struct nexthop *router_route(
	struct router *router, const struct router_ask *ask, char reply[static ROUTER_REPLY_BYTES]);

/* Does the policy let this recipient go there? The same checks, without a destination. */
bool router_check(
	struct router *router, const struct router_ask *ask, char reply[static ROUTER_REPLY_BYTES]);
