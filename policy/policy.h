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

#include "policy/range.h"
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

/*
 * What we show, as server or as client: a certificate section, or one of the folder
 * certificate-store, which "posternctl cert" fills.
 */
struct certificate {
	const char *name;
	const char *chain; /* PEM file: leaf first, then intermediates */
	const char *key;   /* PEM file, not encrypted */
	unsigned line;     /* where it stands in the file, for messages; 0: of the store */
	bool is_enabled;   /* for SMTP: may be chosen by fqdn; sections always are */
};

/* Length of a SHA-256 digest of a SubjectPublicKeyInfo. */
#define PIN_BYTES 32

struct pin {
	uint8_t bytes[PIN_BYTES];
};

/* How certificates of a peer are checked for revocation. */
enum revocation {
	REVOCATION_OFF,    /* not at all */
	REVOCATION_SOFT,   /* a list that cannot be had is forgiven, and counted */
	REVOCATION_HARD,   /* a list that is published (distribution point) or configured must be
			      had, and fresh; a certificate without either passes [default] */
	REVOCATION_STRICT, /* each certificate of the chain must be covered by a fresh list */
};

/*
 * A partner: an organisation with which mail passes only over sessions in which each side
 * has proved its mail domain. Exchange's TLSSendDomainSecureList and
 * TLSReceiveDomainSecureList are the domains of those with send-secure and receive-secure.
 */
struct partner {
	const char *name;
	unsigned line;
	unsigned index;
	const char **domains; /* A-labels, lower case; no wildcards: a subdomain is its own entry */
	unsigned domain_count;
	bool send_secure;               /* [yes] mail to the domains is secured or not sent */
	bool receive_secure;            /* [yes] mail from them is secured or refused */
	const char *trust_anchors;      /* PEM file; valid for this partner only; NULL: pins only */
	const char **certificate_names; /* further names that prove it, "*." allowed in front */
	unsigned certificate_name_count;
	bool host_names;  /* [no] a host directly under a domain proves it */
	bool common_name; /* [no] the CN counts where there is no dNSName */
	/* Direct trust: without trust-anchors the key alone decides, whatever issuer, dates and
	 * names; with them both must hold. Two pins for a rollover. */
	struct pin *spki_pins;
	unsigned spki_pin_count;
	const char **crl_files; /* PEM or DER; read again when they change */
	unsigned crl_file_count;
	enum revocation revocation; /* [hard] */
};

/* Whose domain it is; see partner_find(). */
struct partner_domain {
	const char *domain;
	const struct partner *partner;
};

/* One of our own servers, known by its key (Exchange: edge to hub, direct trust). */
struct internal_server {
	const char *name;
	unsigned line;
	struct pin *spki_pins;
	unsigned spki_pin_count;
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
	KTLS_AUTO, /* receive side, where the kernel can, once enough bulk has come for it to pay */
};

enum newline_policy {
	NEWLINE_REJECT, /* the message is refused (default) */
	NEWLINE_ALLOW,  /* passed on as it is, and counted */
};

enum deliver_mode {
	DELIVER_PROXY, /* the next hop's answer is the client's answer */
	DELIVER_QUEUE, /* 250 when the message is in the spool; it is delivered from there */
};

/* What "accepted" means on a connector with deliver = queue. */
enum durability {
	DURABILITY_DURABLE, /* on stable storage: it outlives a power cut [default] */
	DURABILITY_RELAXED, /* handed to the disk: it outlives the relay, not the power */
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
	const char **crl_files; /* for trust_anchors */
	unsigned crl_file_count;
	enum revocation revocation; /* [hard] */
	struct pin *spki_pins;      /* the peer's key must be one of them; without trust_anchors
				       that is all that is asked (direct trust) */
	unsigned spki_pin_count;
};

/* A template: it sets the defaults of permission-groups, tls, domain-secure (EXCHANGE 2.2). */
enum connector_type {
	CONNECTOR_CUSTOM,   /* anonymous; tls none [default] */
	CONNECTOR_INTERNET, /* anonymous; tls starttls */
	CONNECTOR_INTERNAL, /* internal; tls starttls; client-certificate ask */
	CONNECTOR_PARTNER,  /* partners; tls starttls; client-certificate ask; domain-secure */
};

/* Who may submit, a set of bits; words "anonymous", "partners", "internal". */
enum permission {
	PERMISSION_ANONYMOUS = 1, /* anybody */
	PERMISSION_PARTNERS = 2,  /* who proved to be a partner, for its own domains */
	PERMISSION_INTERNAL = 4,  /* our own servers: any sender, any recipient, org headers */
};

enum protocol_logging {
	PROTOCOL_LOGGING_NONE,
	PROTOCOL_LOGGING_VERBOSE,
};

enum rate_source {
	RATE_SOURCE_NONE,       /* message-rate-limit is not in force */
	RATE_SOURCE_IP_ADDRESS, /* for each source: an IPv4 address, an IPv6 /64 */
};

/* Who decides which addresses may connect. */
enum bpf_mode {
	BPF_AUTO,     /* the kernel if it can, else the relay after accept, and the log says why */
	BPF_REQUIRED, /* the kernel, or the relay does not start */
	BPF_OFF,      /* the relay */
};

/* How the next hop is told who the client is; it must be trusted. */
enum client_identity {
	CLIENT_IDENTITY_NONE,
	CLIENT_IDENTITY_PROXY_V1, /* PROXY protocol header, text; addresses and ports */
	CLIENT_IDENTITY_PROXY_V2, /* binary; TLS facts and proved domain as TLVs, too */
	CLIENT_IDENTITY_XCLIENT,  /* XCLIENT, as far as the next hop announces its attributes */
};

/* The SIZE keyword of our EHLO reply (RFC 1870). */
enum size_mode {
	SIZE_DISABLED,
	SIZE_ENABLED,
	SIZE_WITHOUT_VALUE,
};

struct receive_connector {
	const char *name;
	unsigned line;
	unsigned index;
	bool enabled;             /* [yes] no: it is as if it were not there */
	enum connector_type type; /* [custom] */
	struct ip_range
		*remote_ip_ranges; /* who is served here; none, and no partners: everybody */
	unsigned remote_ip_range_count;
	/* And those that the lists of these partners have ("posternctl partner NAME ip"); "*": all
	 * partners. A list may be empty: then nobody comes in by it. */
	const char **remote_ip_partners;
	unsigned remote_ip_partner_count;
	/* Load balancers: each of their connections begins with a PROXY protocol header, v1 or v2,
	 * and the address in it is what counts. They are served beside remote-ip-ranges. */
	struct ip_range *proxy_balancers;
	unsigned proxy_balancer_count;
	/* Front ends that may say with XCLIENT who they speak for; they are peers like others. */
	struct ip_range *xclient_hosts;
	unsigned xclient_host_count;
	unsigned permission_groups;    /* bits of enum permission */
	bool external_authoritative;   /* [no] secured elsewhere: every session is internal */
	bool domain_secure;            /* [no; yes for partner] listed domains are proved here */
	bool allow_unsecured_partners; /* [no] without domain-secure: mail of listed domains is
					  taken unproved (as Exchange does) */
	struct address *bindings;      /* address and port, "0.0.0.0:25", "[::]:25" */
	unsigned binding_count;
	const char *fqdn;   /* banner, EHLO reply, Received; default: transport fqdn */
	const char *banner; /* NULL: our own; else a whole line that starts with 220 */

	enum tls_mode tls;
	bool require_tls; /* MAIL in clear text is refused with 451 5.7.3 */
	enum client_certificate client_certificate;
	bool permanent_tls_refusals; /* 5xx instead of 4xx for failed certificate checks */
	struct tls_settings tls_settings;
	const char *tls_domain; /* client-certificate = require: a name that it must have, "*."
				   allowed in front; NULL: any */

	enum deliver_mode deliver;
	/* Where to; NULL: by address space. With deliver = proxy that of the first recipient, and
	 * recipients of one transaction that go elsewhere get 452 4.5.3 */
	const struct send_connector *send_connector;
	enum durability durability; /* of deliver = queue [durable] */
	bool cut_through; /* of deliver = queue: kept only if it cannot be delivered at once [no] */

	/* Limits; EXCHANGE 2.5, edge defaults in brackets. */
	uint64_t connection_inactivity_timeout_ms;  /* [1 min] */
	uint64_t connection_timeout_ms;             /* whole life, [5 min] */
	uint64_t max_inbound_connection;            /* [5000] */
	uint64_t max_message_bytes;                 /* max-message-size [36 MB = 37748736] */
	uint64_t max_header_bytes;                  /* max-header-size [256 KB] */
	uint64_t max_recipients_per_message;        /* [200] */
	uint64_t max_protocol_errors;               /* [5], then 421 and close */
	uint64_t max_hop_count;                     /* [30] Received fields */
	uint64_t max_local_hop_count;               /* [8] of these, by ourselves; 0: any */
	uint64_t max_inbound_connection_per_source; /* [20] */
	uint64_t max_inbound_connection_percentage_per_source; /* [2] of what is still free */
	uint64_t connection_rate_limit;       /* [unlimited] connections a minute of one source */
	uint64_t message_rate_limit;          /* [600] messages a minute of one source */
	enum rate_source message_rate_source; /* [ip-address] */
	uint64_t tarpit_interval_ms;          /* [5 s] error replies to unproved peers wait */
	bool require_ehlo_domain;             /* [no] HELO and EHLO need a domain or literal */
	bool reject_reserved_top_level_recipient_domains;    /* [no] */
	bool reject_reserved_second_level_recipient_domains; /* [no] */
	bool reject_single_label_recipient_domains;          /* [no] */
	bool long_addresses; /* [no] addresses of up to 1,860 bytes instead of 571 */
	enum protocol_logging protocol_logging; /* [none] */

	/* Announced keywords; each off switch removes it (and the next hop must have it too). */
	enum size_mode size; /* [yes] */
	bool pipelining, eight_bit_mime, smtputf8, chunking, binary_mime, dsn,
		enhanced_status_codes;

	enum newline_policy bare_newline; /* bare CR or LF in a body [reject] */
	enum newline_policy nul;          /* NUL in a body [reject] */
};

/* In order: who is above opportunistic gets TLS or nothing (EXCHANGE 3.3). */
enum tls_auth_level {
	TLS_AUTH_NONE,                   /* never TLS */
	TLS_AUTH_OPPORTUNISTIC,          /* TLS when offered, one retry in clear [default] */
	TLS_AUTH_ENCRYPTION_ONLY,        /* TLS or nothing; certificate not judged */
	TLS_AUTH_CERTIFICATE_VALIDATION, /* and the chain must be valid, and not revoked */
	TLS_AUTH_DOMAIN_VALIDATION,      /* and have tls-domain, or the recipient's domain */
	TLS_AUTH_FINGERPRINT,            /* and its key be one of spki-pins; chain not judged */
};

/* "SMTP:contoso.com;1", "*.contoso.com;5", "*", "--" (accepted-domains). */
struct address_space {
	const char *domain;   /* without "*."; "" for "*" and "--" */
	bool with_subdomains; /* "*.contoso.com": it and all below it */
	bool is_any;          /* "*" */
	bool is_accepted;     /* "--" */
	unsigned cost;        /* 1 to 100 [1] */
};

struct send_connector {
	const char *name;
	unsigned line;
	unsigned index;                       /* 0.., for tables by send connector */
	bool enabled;                         /* [yes] */
	struct address_space *address_spaces; /* none: chosen by send-connector only */
	unsigned address_space_count;
	/* Every address of every smart host, in order of preference; none: by DNS (MX). */
	struct address *smart_hosts;
	const char **smart_host_names; /* smart_host_names[i]: the configured text behind
					  smart_hosts[i] */
	unsigned smart_host_count;
	const char *fqdn;              /* our name in EHLO; default: transport fqdn */
	struct address source_address; /* len 0: any */

	uint64_t port;        /* [25] of hosts found by DNS */
	bool force_helo;      /* [no] HELO instead of EHLO, so no TLS either */
	bool ignore_starttls; /* never TLS */
	bool implicit_tls;    /* TLS from the first byte */
	enum tls_auth_level tls_auth_level;
	/* domain-validation: the name to find in the certificate, "*." allowed in front; NULL:
	 * the recipient's domain, by the rules of names.h; needed with smart-hosts */
	const char *tls_domain;
	struct tls_settings tls_settings;
	bool domain_secure;            /* [no] mail to listed domains is secured here */
	bool allow_unsecured_partners; /* [no] without domain-secure: mail to listed domains is
					  sent as to any other (as Exchange does) */
	bool frontend_proxy;           /* [no] the smart host is a front end that speaks for us */
	bool trusted_next_hop; /* [no] an inside server: gets Exchange's stamps and org headers */
	enum client_identity client_identity;   /* [none] needs trusted_next_hop */
	uint64_t max_message_bytes;             /* max-message-size [36 MB] */
	enum protocol_logging protocol_logging; /* [none] */

	/* The pool of next-hop sessions, for each worker. */
	uint64_t max_connections;             /* [100] at a time */
	uint64_t max_messages_per_connection; /* [20] (EXCHANGE 3.2); then QUIT */
	uint64_t connection_idle_ms;          /* connection-idle-timeout [30 s] kept without work */
	uint64_t connection_age_ms; /* connection-max-age [5 min] reused at most so long */
	uint64_t connection_inactivity_timeout_ms; /* wait for a reply [10 min] (EXCHANGE 3.2) */
	uint64_t connect_timeout_ms; /* [30 s] connect, greeting and handshake, each */
	bool chunking;               /* use BDAT when the next hop offers it [true] */
	uint64_t max_deliveries; /* from the queue: at a time to one destination, for each worker
				    [20] (EXCHANGE 9.3) */
};

/*
 * Where messages wait, and how long (EXCHANGE 9.3, edge numbers). Times are milliseconds.
 */
struct queue_policy {
	const char *spool_folder;         /* NULL: there is no queue */
	unsigned spool_line;              /* where that is said; 0: nowhere */
	uint64_t spool_segment_bytes;     /* spool-segment-size [64 MB] */
	uint64_t spool_max_bytes;         /* spool-max-size [16 GB] of all workers together */
	uint64_t max_messages;            /* queue-max-messages [100000] of one worker */
	uint64_t glitch_retry_count;      /* queue-glitch-retry-count [4] */
	uint64_t glitch_retry_ms;         /* queue-glitch-retry-interval [1 min] */
	uint64_t transient_retry_count;   /* transient-failure-retry-count [6] */
	uint64_t transient_retry_ms;      /* transient-failure-retry-interval [10 min] */
	uint64_t steady_retry_ms;         /* outbound-connection-failure-retry-interval [30 min] */
	uint64_t message_retry_ms;        /* message-retry-interval [15 min] */
	uint64_t delay_notification_ms;   /* delay-notification-timeout [4 h]; 0: never */
	uint64_t expiration_ms;           /* message-expiration-timeout [2 d] */
	uint64_t idle_before_resubmit_ms; /* max-idle-time-before-resubmit [12 h] */
	uint64_t queue_idle_ms;           /* queue-max-idle-time [3 min] an empty one is kept */
	const char *postmaster;           /* postmaster-address: From of notices; default
					     postmaster@ the first accepted domain, or fqdn */
	uint64_t notice_original_bytes;   /* max-notice-original-size [10 MB] attached whole, else
					     its header only */
	/* Back pressure, in percent of spool-max-size (EXCHANGE 11.2), and messages waiting: four
	 * numbers each: medium, high, back to medium, back to normal. */
	uint64_t pressure_medium, pressure_high, pressure_high_end, pressure_medium_end;
	const char *tracking_log_folder;           /* NULL: no message tracking log is kept */
	uint64_t tracking_log_max_file_bytes;      /* [10 MB] */
	uint64_t tracking_log_max_directory_bytes; /* [1000 MB] */
	uint64_t tracking_log_max_age_ms;          /* [30 d] */
	bool tracking_log_subject;                 /* [yes] */
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

	const char **accepted_domains; /* ours; A-labels, "*." in front for subdomains too; none:
					  the next hop decides whom it takes mail for */
	unsigned accepted_domain_count;
	const char *certificate_store;         /* folder of "posternctl cert"; NULL: none */
	uint64_t certificate_expiry_warning_s; /* certificate-expiry-warning [30 d] before it */
	const char *crl_cache;         /* folder, keeps fetched lists over a restart; NULL: none */
	uint64_t crl_fetch_timeout_ms; /* [10 s] of one fetch; a session waits at most so long */
	uint64_t crl_refresh_interval_ms; /* [1 h] how often a list is fetched again at the least */
	const char **dns_servers;         /* "192.0.2.53", "[::1]:5353"; none: /etc/resolv.conf */
	unsigned dns_server_count;
	enum bpf_mode bpf;              /* [auto] */
	const char *bpf_pin_folder;     /* [/sys/fs/bpf/postern] on a bpf file system */
	const char *door;               /* [sk_lookup] or "sk_lookup+xdp:IFACE,IFACE" */
	const char **shield_interfaces; /* those of door */
	unsigned shield_interface_count;
	const char *partner_lists;  /* folder of the partners' lists of addresses; NULL: none */
	const char *control_socket; /* where posternctl reaches the relay; NULL: nowhere */
	const char *control_group;  /* who may, beside root and user; NULL: nobody */
	const char *protocol_log_folder;           /* NULL: no protocol log is kept */
	uint64_t protocol_log_max_file_bytes;      /* protocol-log-max-file-size [10 MB] */
	uint64_t protocol_log_max_directory_bytes; /* protocol-log-max-directory-size [250 MB] */
	uint64_t protocol_log_max_age_ms;          /* protocol-log-max-age [30 d] */

	struct queue_policy queue;

	struct partner *partners;
	unsigned partner_count;
	struct partner_domain *partner_domains; /* of all of them, sorted by partner_index() */
	unsigned partner_domain_count;
	struct internal_server *internal_servers;
	unsigned internal_server_count;
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

/* The connector or partner of that name, or NULL. */
const struct receive_connector *policy_receive_connector(
	const struct policy *policy, const char *name);
const struct send_connector *policy_send_connector(const struct policy *policy, const char *name);
const struct partner *policy_partner(const struct policy *policy, const char *name);

/* bytes: 4 of an IPv4 address, or 16 of an IPv6 one. */
struct address address_make(int family, const void *bytes, unsigned port);

/* "192.0.2.1:25" or "[2001:db8::1]:25" into out; out_bytes >= 56. */
void address_print(const struct address *address, char *out, size_t out_bytes);

/* In the machine's order. */
uint16_t address_port(const struct address *address);

/* The same family, address and port (and scope, IPv6)? */
bool address_is_equal(const struct address *a, const struct address *b);
