/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * resolve.h: from a mail domain to the addresses of its servers (RFC 5321 5.1), without
 * waiting. The only user of libunbound.
 *
 * A resolver belongs to a worker: libunbound asks on a thread of its own, and the ring is told
 * through a descriptor when answers are there. Answers are cached by libunbound for as long as
 * their TTL says, one hour at the most.
 *
 *   MX --> A and AAAA of each exchanger, a few at a time --> own addresses taken out --> done
 *     \--> none: A and AAAA of the domain itself ---------/
 *
 * Everything is bounded: records of an answer, exchangers, addresses, and the time.
 */

#include "relay/net/loop.h"
#include "relay/net/resolve_list.h"

/* Questions of one resolve that are under way together. */
#define RESOLVE_LOOKUPS 4

/* After so long the answer is RESOLVE_FAILED. */
#define RESOLVE_TIMEOUT_MS 20000

/* How long an answer is used, whatever its TTL says. */
#define RESOLVE_TTL_MIN_S 60
#define RESOLVE_TTL_MAX_S 3600

enum resolve_status {
	RESOLVE_OK,
	RESOLVE_FAILED,     /* no answer, or a useless one: try again later */
	RESOLVE_NO_DOMAIN,  /* there is no such domain, or it has neither MX nor address */
	RESOLVE_NO_ADDRESS, /* it has exchangers, and none of them has an address */
	RESOLVE_NULL_MX,    /* it takes no mail (RFC 7505) */
	RESOLVE_LOOP,       /* the best exchanger is this very relay */
	RESOLVE_STATUS_COUNT,
};

/* The reply that tells a client so, with CR LF; out_bytes >= 400. Not for RESOLVE_OK. */
void resolve_reply(enum resolve_status status, const char *domain, char *out, size_t out_bytes);

/* For the log: "ok", "failed", "no-domain"... */
const char *resolve_word(enum resolve_status status);

struct resolver;
struct resolve;
struct ub_ctx;

struct resolve_lookup {
	struct resolve *resolve;
	int id; /* libunbound's */
	bool is_busy;
	bool is_mx;
	uint8_t host; /* whose address this is about */
	int family;
};

/* A question for the addresses of a domain; embedded in whoever asks. */
struct resolve {
	struct resolver *resolver;
	/* The end, from the loop. The list is filled in when status is RESOLVE_OK. */
	void (*on_done)(struct resolve *resolve, enum resolve_status status);
	struct resolve_list list; /* being filled in between resolve_mx() and on_done */

	/* private */
	bool is_running;
	bool has_failed;  /* one of the questions had no answer */
	bool is_implicit; /* no MX: the domain itself is the host */
	enum resolve_status status;
	unsigned port;
	unsigned next; /* address question to ask next: host * 2 + family */
	unsigned busy;
	struct resolve_lookup lookups[RESOLVE_LOOKUPS];
	struct task task;
	struct timer timer;
};

/*
 * What libunbound is told before its first question: the policy's dns-servers or those of
 * /etc/resolv.conf, no validation, nothing answered by itself. 0, or an error of libunbound.
 */
NODISCARD int resolver_configure(struct ub_ctx *ctx, const struct policy *policy);

/*
 * Servers and own addresses are the policy's: dns-servers, or /etc/resolv.conf; bindings of
 * receive connectors (with a wildcard address: every address of this machine). -ENOMEM, or
 * -EINVAL with the reason in error.
 */
NODISCARD int resolver_create(struct loop *loop, const struct policy *policy, struct resolver **out,
	char *error, size_t error_bytes);

/* It must be closed, unless its loop is gone. Waits for libunbound's thread to end. */
void resolver_destroy(struct resolver **resolver);

/* Is no question open? */
bool resolver_is_idle(const struct resolver *resolver);

/* No question may be open. Then it is closed when resolver_is_closed() says so. */
void resolver_close(struct resolver *resolver);
bool resolver_is_closed(const struct resolver *resolver);

/* Prepares; once, before the first question. */
void resolve_init(struct resolve *resolve, struct resolver *resolver,
	void (*on_done)(struct resolve *resolve, enum resolve_status status));

/*
 * Asks for the hosts that take mail for domain (A-labels). port is put into the addresses, and
 * belongs to the question whether an address is our own. No question may be open.
 */
void resolve_mx(struct resolve *resolve, const char *domain, unsigned port);

/* No longer wanted: on_done will not come. Harmless when nothing was asked. */
void resolve_cancel(struct resolve *resolve);
