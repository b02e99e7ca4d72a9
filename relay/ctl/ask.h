/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * ask.h: what the commands share that answer questions: connector, explain, partner, config.
 *
 *   config.c        config check, lint, show; partner list, show
 *   match.c         connector match, connector route
 *   explain.c       explain
 *   partner.c       partner check: what the configuration and the files say
 *   partner_live.c  partner check: what the partner's hosts say
 *   check.c         the numbered list of partner check
 *   judge.c         certificates: ours of a connector, a peer's from a file, and their verdicts
 *   chain.c         PEM files into certificates (OpenSSL)
 *   probe.c         one SMTP session with a partner's host (OpenSSL)
 *   mx.c            names of hosts for a domain (libunbound)
 *
 * They ask the relay's own functions (policy/route.h, admit.h, relay/pki/), so that the answer
 * is what the relay would do; nothing is decided here a second time.
 */

#include "policy/policy.h"
#include "relay/ctl/ctl.h"
#include "relay/pki/store.h"
#include "relay/pki/trust.h"
#include <time.h>

/* ---- reading arguments: -EINVAL after a message */

/* "192.0.2.1", "2001:db8::1", "fe80::1%eth0"; zone: 0 for none. */
NODISCARD int ask_peer_read(const char *text, struct ip *out, uint32_t *out_zone);

/* "192.0.2.1:25", "[2001:db8::1]:25". */
NODISCARD int ask_address_read(const char *text, struct address *out);

/* "a@b.example", with or without "<>", "<>" alone if null_too: the path as MAIL has it. */
#define ASK_PATH_BYTES 600
NODISCARD int ask_path_read(const char *text, bool null_too, char out[static ASK_PATH_BYTES]);

/* The domain behind the "@" of a path or alone, normalized; DOMAIN_BYTES_MAX of names.h. */
NODISCARD int ask_domain_read(const char *text, char *out);

/* "2026-11-21T22:46:05Z" or seconds since 1970; NULL is now. */
NODISCARD int ask_time_read(const char *text, time_t *out);

/* ---- certificates */

/* What judges certificates as the relay does. */
struct judge {
	const struct policy *policy;
	struct trust_set *trusts;    /* NULL: an anchor or list cannot be read */
	struct own_certificate *own; /* those that can be loaded, in the policy's order */
	unsigned own_count;
	time_t now;
};

/*
 * Starts what the relay has for it (cache, revocation lists). What is wrong with anchors and
 * lists goes to errors, and leaves trusts NULL. -errno after a message.
 */
NODISCARD int judge_create(
	const struct policy *policy, time_t now, FILE *errors, struct judge *out);
void judge_destroy(struct judge *judge);

/* What a connector with these settings and that fqdn shows; NULL: nothing. */
const struct own_certificate *judge_own(
	const struct judge *judge, const struct tls_settings *settings, const char *fqdn);

/* trust_judge(), but waits for a revocation list that is on its way. trust may be NULL. */
enum verdict judge_chain(const struct judge *judge, const struct trust *trust, struct peer *peer,
	enum peer_purpose purpose);

/* The certificate and chain of a PEM file, leaf first. NULL after a message. */
struct peer *chain_read_peer(const char *file);

/* What chain_walk() says of each certificate of a file. */
struct chain_facts {
	char subject[PEER_SUBJECT_BYTES];
	int64_t not_before;
	int64_t not_after;
	bool is_client; /* may be used to prove a client */
	bool is_server;
	bool is_ca;
};

/* Calls seen for each certificate of a PEM file. Returns how many there are; -EINVAL: unreadable.
 */
NODISCARD int chain_walk(
	const char *file, void (*seen)(void *arg, const struct chain_facts *facts), void *arg);

/* The first revocation list of a file (PEM or DER): when the next is due, 0: it does not say. */
bool chain_read_crl(const char *file, int64_t *out_next_update);

/* ---- the numbered list of "partner check" */

enum check_outcome { CHECK_PASS, CHECK_FAIL, CHECK_SKIP };

struct check {
	unsigned number;
	unsigned counts[CHECK_SKIP + 1];
};

/* " 3 FAIL  what: why"; why may be NULL. */
void check_row(struct check *check, enum check_outcome outcome, const char *what,
	const char *format, ...) PRINTF_LIKE(4, 5);
/* "         remedy: ..." below a row. */
void check_remedy(const char *format, ...) PRINTF_LIKE(1, 2);

/* "1 day", "30 days" from seconds, rounded down; out_bytes >= 24. Returns out. */
const char *check_days(int64_t seconds, char *out, size_t out_bytes);

/* ---- names and sessions */

#define MX_HOSTS_MAX 16

struct mx_host {
	char name[NAME_BYTES_MAX];
	char address[ADDRESS_TEXT_BYTES]; /* its first, of the same name servers; "" if none */
	unsigned preference;
};

enum mx_status {
	MX_OK,
	MX_NONE,   /* no such domain, no address, or a null MX (RFC 7505) */
	MX_FAILED, /* no answer from the name servers */
};

/* Who takes mail for a domain, best first (RFC 5321 5.1); why: on another status. */
enum mx_status mx_find(const struct policy *policy, const char *domain,
	struct mx_host out[static MX_HOSTS_MAX], unsigned *out_count, char *why, size_t why_bytes);

#define PROBE_TEXT_BYTES 512

struct probe_options {
	const char *host;    /* name or address */
	const char *address; /* of the host, where to connect; NULL: look the host up */
	uint64_t port;
	const char *fqdn; /* for EHLO */
	const struct tls_settings *settings;
	const struct certificate *own; /* what we show; NULL: nothing */
	const struct address *source;  /* to connect from; len 0: any */
	bool is_implicit;
	uint64_t timeout_ms; /* of each step */
};

/* How far a session came: each says that those before it went well. */
enum probe_step {
	PROBE_CONNECT,
	PROBE_BANNER,
	PROBE_EHLO,
	PROBE_STARTTLS,  /* it offers it, and answered 220 */
	PROBE_HANDSHAKE, /* TLS is there */
	PROBE_AFTER_TLS, /* EHLO under TLS was answered: our certificate was taken */
	PROBE_DONE,
};

struct probe {
	enum probe_step failed; /* the step that failed; PROBE_DONE: none */
	char why[PROBE_TEXT_BYTES];
	char address[ADDRESS_TEXT_BYTES + 10]; /* "192.0.2.1:25" */
	char banner[PROBE_TEXT_BYTES];
	char ehlo[4 * PROBE_TEXT_BYTES]; /* the reply, lines with "\n" */
	bool is_altered;                 /* banner or keywords look as if a firewall changed them */
	bool wants_certificate;          /* the server asked for ours */
	const char *version;
	const char *cipher;
	struct peer *peer; /* held; NULL: it showed none */
};

/* One session: banner, EHLO, STARTTLS, handshake, EHLO, QUIT. No mail is sent. */
void probe_run(const struct probe_options *options, struct probe *out);

/* ---- the tables of commands */

extern const struct ctl_command ctl_config_commands[];
extern const struct ctl_command ctl_connector_commands[];
extern const struct ctl_command ctl_explain_commands[];
extern const struct ctl_command ctl_partner_commands[];

int partner_check_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv);

/* partner_live.c: what to look at, and with what. */
struct partner_live {
	struct check *check;
	const struct judge *judge;
	const struct partner *partner;
	const struct send_connector *connector;
	const char *domain;
	const char *host; /* --host; NULL: by DNS, or the smart hosts */
};
void partner_live_run(const struct partner_live *live);
