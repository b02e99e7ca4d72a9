/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * admit.h: may this session send as this domain, and to that one? Checks r1 to r6 of
 * EXCHANGE 4.3 and the rights of 2.4, as pure functions on the snapshot. Whether a
 * certificate is valid for a partner is asked through a callback, and only when it matters.
 */

#include "policy/names.h"
#include "policy/policy.h"
#include "policy/verdict.h"

/* What the session is, once it has said MAIL. */
enum role {
	ROLE_ANONYMOUS,
	ROLE_PARTNER,  /* proved to be admission.partner */
	ROLE_INTERNAL, /* one of our own servers: direct trust, or externally secured */
	ROLE_COUNT,
};

const char *role_word(enum role role); /* "anonymous", "partner", "internal" */

struct admit_peer {
	bool is_tls;
	bool has_certificate;
	struct certificate_names names;
	const uint8_t *spki; /* SHA-256 of its public key; NULL without certificate */
	/* For the connector's own anchors, names and pins; VERDICT_NOT_ASKED: not known yet. */
	enum verdict connector_verdict;
	/*
	 * Is its chain valid for the partner (anchors, dates, usage, strength, revocation; not
	 * names, not pins)? May say VERDICT_NOT_ASKED for "not known yet: a revocation list is
	 * on its way"; then admission.status is ADMIT_WAIT.
	 */
	enum verdict (*judge)(void *arg, const struct partner *partner);
	void *arg;
};

enum admit_status {
	ADMIT_OK,
	ADMIT_WAIT,               /* ask again when the revocation list has come */
	ADMIT_TLS_REQUIRED,       /* require-tls, and there is none */
	ADMIT_CLIENT_CERTIFICATE, /* client-certificate = require, and it is not valid */
	ADMIT_DIRECT_TRUST,       /* only our own servers may send here, and its key is not known */
	ADMIT_SECURE_NO_TLS,      /* r2: listed domain, no TLS */
	ADMIT_SECURE_NO_CERT,     /* r3: listed domain, no certificate */
	ADMIT_SECURE_CHAIN,       /* r4: listed domain, certificate not valid: see verdict */
	ADMIT_SECURE_NAME,        /* r5: listed domain, certificate of somebody else */
	ADMIT_SECURE_CONNECTOR,   /* listed domain on a connector without domain-secure */
	ADMIT_NOT_AUTHENTICATED,  /* r5b: no right to submit on this connector */
	ADMIT_OWN_DOMAIN,         /* a proved partner claims one of our domains */
	ADMIT_RELAY,              /* recipient is not ours */
	ADMIT_RESERVED_TOP,       /* recipient's top-level domain is reserved (RFC 2606, 6761) */
	ADMIT_RESERVED_SECOND,    /* example.com, example.net, example.org */
	ADMIT_SINGLE_LABEL,       /* recipient domain without a dot */
	ADMIT_BAD_DOMAIN,         /* not a domain name */
	ADMIT_STATUS_COUNT,
};

#define ADMIT_REPLY_BYTES 512

struct admission {
	enum admit_status status;
	enum role role;
	const struct partner *partner; /* ROLE_PARTNER: who; refusals: whose listed domain */
	const char *domain;            /* ROLE_PARTNER: the proved one; refusals: the listed one */
	enum verdict verdict;
	enum name_match match;
};

/* Each rule that was consulted, for "explain": rule "r2", what it said. May be NULL. */
struct admit_trace {
	void (*rule)(void *arg, const char *rule, bool passed, const char *text);
	void *arg;
};

/* MAIL FROM:sender ("<a@b>" or "<>"). */
void admit_sender(const struct policy *policy, const struct receive_connector *connector,
	const struct admit_peer *peer, struct span sender, const struct admit_trace *trace,
	struct admission *out);

/* RCPT TO:recipient, for a session that was admitted as that. */
enum admit_status admit_recipient(const struct policy *policy,
	const struct receive_connector *connector, const struct admission *admission,
	struct span recipient, const struct admit_trace *trace);

/*
 * The reply for a refusal, without CR LF (EXCHANGE 4.7): 4xx, or 5xx with
 * permanent-tls-refusals where the certificate or TLS is the reason. Returns out.
 */
const char *admit_reply(const struct receive_connector *connector,
	const struct admission *admission, char out[static ADMIT_REPLY_BYTES]);

/* The refusal's word in the log's why=: "tls-not-started", "client-certificate"... */
const char *admit_word(enum admit_status status);

/* Exchange's event id and symbol that the refusal corresponds to, or NULL: "11012". */
const char *admit_event_id(enum admit_status status);

/* The partner that lists domain (normalized) for sending or receiving, or NULL. */
const struct partner *partner_find(
	const struct policy *policy, const char *domain, bool for_sending);

/* Is it one of accepted-domains? "*.x" in the list stands for x and all below it. */
bool policy_is_accepted_domain(const struct policy *policy, const char *domain);
