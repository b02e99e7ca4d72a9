/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * policy.h: what is allowed. A snapshot of the configuration: built once,
 * checked, and read-only from then on, so that workers share it without locks.
 *
 * Each field below is one keyword of postern.conf(5) with "-" for "_"; the man
 * page says the same as the comments here. Strings and arrays are owned by the
 * snapshot and live as long as it does.
 */

#include "relay/base/assert.h"
#include "relay/base/limits.h"
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>

/* No limit, where a keyword allows "unlimited". */
#define POLICY_UNLIMITED UINT64_MAX

struct address {
	struct sockaddr_storage sockaddr;
	socklen_t len;
};

/* A certificate section: what we show, as server or as client. */
struct certificate {
	const char *name;
	const char *chain; /* PEM file: leaf first, then intermediates */
	const char *key;   /* PEM file, not encrypted */
	unsigned line;     /* where it stands in the file, for messages */
};

enum tls_mode {
	TLS_MODE_NONE,     /* STARTTLS is neither offered nor accepted */
	TLS_MODE_STARTTLS, /* RFC 3207 */
	TLS_MODE_IMPLICIT, /* TLS from the first byte (RFC 8314 3.3) */
};

enum client_certificate {
	CLIENT_CERTIFICATE_NONE,    /* not asked for */
	CLIENT_CERTIFICATE_ASK,     /* asked for; a session without one goes on, unproved */
	CLIENT_CERTIFICATE_REQUIRE, /* asked for; without a valid one MAIL is refused */
};

enum ktls_mode {
	KTLS_OFF,  /* records stay in userspace */
	KTLS_TX,   /* send side only */
	KTLS_RX,   /* receive side only */
	KTLS_ON,   /* both */
	KTLS_AUTO, /* both where the kernel can; chosen by bench/ figures */
};

enum newline_policy {
	NEWLINE_REJECT, /* the message is refused (default) */
	NEWLINE_ALLOW,  /* passed on as it is, and counted */
};

enum deliver_mode {
	DELIVER_PROXY, /* the next hop's answer is the client's answer */
};

/* TLS versions and ciphers, the same words for both directions. */
struct tls_settings {
	const struct certificate *certificate; /* NULL: none */
	const char *trust_anchors; /* PEM file of CA certificates; NULL: none are trusted */
	const char *tls_min;       /* "TLSv1.2" (default) or "TLSv1.3" */
	const char *tls_max;       /* "TLSv1.3" (default) or "TLSv1.2" */
	const char *ciphers;       /* OpenSSL list for TLS 1.2 */
	const char *ciphersuites;  /* OpenSSL list for TLS 1.3 */
	unsigned session_tickets;  /* of a TLS 1.3 handshake, 0 to 4; 0 ends resumption too */
	enum ktls_mode ktls;
};

struct receive_connector {
	const char *name;
	unsigned line;
	struct address *bindings; /* address and port, "0.0.0.0:25", "[::]:25" */
	unsigned binding_count;
	const char *fqdn;   /* banner, EHLO reply, Received; default: transport fqdn */
	const char *banner; /* NULL: our own; else a whole line that starts with 220 */

	enum tls_mode tls;
	bool require_tls; /* MAIL in clear text is refused with 451 5.7.3 */
	enum client_certificate client_certificate;
	bool permanent_tls_refusals; /* 5xx instead of 4xx for failed certificate checks */
	struct tls_settings tls_settings;

	enum deliver_mode deliver;
	const struct send_connector *send_connector; /* deliver = proxy: where to */

	/* Limits; EXCHANGE 2.5, edge defaults in brackets. */
	uint64_t connection_inactivity_timeout_ms; /* [1 min] */
	uint64_t connection_timeout_ms;            /* whole life, [5 min] */
	uint64_t max_inbound_connection;           /* [5000] */
	uint64_t max_message_bytes;                /* max-message-size [36 MB = 37748736] */
	uint64_t max_header_bytes;                 /* max-header-size [256 KB] */
	uint64_t max_recipients_per_message;       /* [200] */
	uint64_t max_protocol_errors;              /* [5], then 421 and close */
	uint64_t max_hop_count;                    /* [30] Received fields */

	/* Announced keywords; each off switch removes it (and the next hop must have it too). */
	bool size, pipelining, eight_bit_mime, smtputf8, chunking, binary_mime, dsn,
		enhanced_status_codes;

	enum newline_policy bare_newline; /* bare CR or LF in a body [reject] */
	enum newline_policy nul;          /* NUL in a body [reject] */
};

enum tls_auth_level {
	TLS_AUTH_NONE,                   /* opportunistic: TLS when offered */
	TLS_AUTH_ENCRYPTION_ONLY,        /* TLS or nothing; certificate not judged */
	TLS_AUTH_CERTIFICATE_VALIDATION, /* and the chain must be valid */
	TLS_AUTH_DOMAIN_VALIDATION,      /* and its names must match tls-domain */
};

struct send_connector {
	const char *name;
	unsigned line;
	unsigned index;              /* 0.., for tables by send connector */
	struct address *smart_hosts; /* every address of every smart host, in order of preference */
	const char **smart_host_names; /* smart_host_names[i]: the configured text behind
					  smart_hosts[i] */
	unsigned smart_host_count;
	const char *fqdn;              /* our name in EHLO; default: transport fqdn */
	struct address source_address; /* len 0: any */

	bool ignore_starttls; /* never TLS */
	bool implicit_tls;    /* TLS from the first byte */
	enum tls_auth_level tls_auth_level;
	const char *tls_domain; /* name to find in the certificate: domain-validation */
	struct tls_settings tls_settings;

	/* The pool of next-hop sessions, for each worker. */
	uint64_t max_connections;             /* [100] at a time */
	uint64_t max_messages_per_connection; /* [20] (EXCHANGE 3.2); then QUIT */
	uint64_t connection_idle_ms;          /* connection-idle-timeout [30 s] kept without work */
	uint64_t connection_age_ms; /* connection-max-age [5 min] reused at most so long */
	uint64_t connection_inactivity_timeout_ms; /* wait for a reply [10 min] (EXCHANGE 3.2) */
	uint64_t connect_timeout_ms; /* [30 s] connect, greeting and handshake, each */
	bool chunking;               /* use BDAT when the next hop offers it [true] */
};

struct policy {
	const char *file;
	const char *fqdn;              /* transport fqdn; default: the machine's */
	unsigned workers;              /* 0: one for each core */
	unsigned max_sessions;         /* inbound sessions of one worker [5000] */
	const char *user;              /* NULL: stay who we are; else setuid after binding */
	const char **io_uring_disable; /* capability bits forced off, "defer-taskrun"... */
	unsigned io_uring_disable_count;
	uint64_t drain_timeout_ms; /* after SIGTERM sessions may end by themselves for so long [30
				      s] */
	bool log_debug;            /* log-level = debug; default info */

	struct certificate *certificates;
	unsigned certificate_count;
	struct receive_connector *receive_connectors;
	unsigned receive_connector_count;
	struct send_connector *send_connectors;
	unsigned send_connector_count;
};

/*
 * Reads file and checks all of it: syntax, values, references between sections, readable files,
 * certificates' existence, bindings used twice. Smart host names are resolved here
 * (getaddrinfo; so never call this on a worker). Each mistake is one line on errors:
 * "FILE:LINE: what is wrong, what was expected". Returns 0 and *out (give back with
 * policy_destroy()), or -EINVAL for mistakes, or another -errno.
 */
NODISCARD int policy_load(const char *file, FILE *errors, struct policy **out);

/* Frees the snapshot and clears the pointer. */
void policy_destroy(struct policy **policy);

/* "192.0.2.1:25" or "[2001:db8::1]:25" into out; out_bytes >= 56. */
void address_print(const struct address *address, char *out, size_t out_bytes);
