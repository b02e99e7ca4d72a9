/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * tls.h: handshakes and records by OpenSSL, in memory: no socket is touched here.
 *
 * The caller frames its input: one whole record at a time goes in through
 * tls_feed(), so that no byte is ever held where the kernel cannot get at it
 * and the count of records is exact. What OpenSSL wants sent goes to the
 * memory given by tls_sink().
 *
 *   HANDSHAKE --tls_handshake() says TLS_DONE--> RECORDS --both directions in the kernel--> freed
 *
 * A struct tls comes from a pool and lives as long as one direction of its
 * connection is protected in userspace.
 */

#include "policy/policy.h"
#include "relay/base/assert.h"
#include "relay/base/span.h"
#include "relay/net/verify.h"

struct ssl_ctx_st;
struct ssl_st;
struct ssl_session_st;

/* Longest traffic secret: SHA-384. */
#define TLS_SECRET_BYTES_MAX 48

struct tls_context_options {
	const struct tls_settings *settings;
	bool is_server;
	enum client_certificate client_certificate; /* server only */
	const char *name; /* connector: binds tickets and sessions to it; lives as the context */
	/* Whom the connector believes; NULL: nobody. settings->trust_anchors are only named to
	 * clients, so that they know which certificate to send. */
	const struct trust *trust;
};

/* SSL_MAX_SID_CTX_LENGTH */
#define TLS_BINDING_BYTES 32

struct tls_context {
	struct ssl_ctx_st *ctx;
	bool is_server;
	bool asks_certificate; /* this side asks for, and judges, the peer's certificate */
	bool has_tickets;      /* a server gives them out */
	enum ktls_mode ktls;
	const char *name;
	const struct trust *trust;
	struct peer *shown;         /* what is known of our own certificate; NULL: we have none */
	uint64_t policy_generation; /* what tickets and sessions are bound to, beside the name */
	uint64_t crl_generation;
	uint8_t binding[TLS_BINDING_BYTES]; /* and what that comes to */
};

/* Once, before any thread: OpenSSL, and the seed of the ticket keys. -errno if there is no entropy.
 */
NODISCARD int tls_init(void);

/*
 * Builds a context for one worker (contexts are not shared, since OpenSSL's
 * reference counts contend). On failure returns -EINVAL and puts what is wrong,
 * naming the file, into error.
 */
NODISCARD int tls_context_create(const struct tls_context_options *options, struct tls_context *out,
	char *error, size_t error_bytes);
void tls_context_destroy(struct tls_context *context);

/* The same for a connector as it is configured, with what it believes (NULL: nobody). */
NODISCARD static inline int tls_context_create_receive(const struct receive_connector *connector,
	const struct trust *trust, struct tls_context *out, char *error, size_t error_bytes)
{
	const struct tls_context_options options = {.settings = &connector->tls_settings,
		.is_server = true,
		.client_certificate = connector->client_certificate,
		.name = connector->name,
		.trust = trust};

	return tls_context_create(&options, out, error, error_bytes);
}

NODISCARD static inline int tls_context_create_send(const struct send_connector *connector,
	const struct trust *trust, struct tls_context *out, char *error, size_t error_bytes)
{
	const struct tls_context_options options = {
		.settings = &connector->tls_settings, .name = connector->name, .trust = trust};

	return tls_context_create(&options, out, error, error_bytes);
}

/*
 * Before each tls_open(); costs nothing unless something has changed. Tickets and
 * sessions of another generation of the policy's trust or of the revocation lists are
 * worth nothing from then on. Contexts of one connector in all workers agree.
 */
void tls_context_refresh(struct tls_context *context, uint64_t policy_generation);

enum tls_status {
	TLS_DONE,   /* the handshake is complete, or bytes were read or written */
	TLS_MORE,   /* feed another record */
	TLS_FULL,   /* the sink is full: send it and call again */
	TLS_CLOSED, /* the peer sent close_notify */
	TLS_FAILED, /* final; tls_error() says why, and an alert may lie in the sink */
};

struct tls {
	struct ssl_st *ssl;
	const struct tls_context *context;
	struct ssl_session_st **session_slot; /* client: where a session for resumption is kept */
	struct peer *ticket_peer; /* server: whose ticket was opened; held until it is asked for */

	struct span feed; /* record bytes that OpenSSL has not taken yet */
	uint8_t *sink;    /* where output goes */
	size_t sink_len;
	size_t sink_bytes;

	bool has_alert;   /* OpenSSL wrote an alert */
	uint8_t alert[2]; /* level and description */
	bool is_cut;      /* the sink was full in the middle of a flight */
	bool is_done;
	bool wants_secret;   /* the next that OpenSSL derives is to be kept */
	bool has_shown;      /* our certificate was sent: the peer asked for it */
	bool keys_changed;   /* a KeyUpdate was seen: the secrets below are old */
	uint64_t rx_records; /* records under the application key: received */
	uint64_t tx_records; /* and sent */
	unsigned tx_skip;    /* of the record being written: bytes until the next header */
	uint8_t tx_header[5];
	unsigned tx_header_len;

	uint8_t client_secret[TLS_SECRET_BYTES_MAX]; /* TLS 1.3 traffic secrets 0 */
	uint8_t server_secret[TLS_SECRET_BYTES_MAX];
	unsigned secret_len; /* 0: none (TLS 1.2) */
	char error[128];
};

/*
 * Begins a connection in tls, which the caller took from its pool. host is sent
 * as SNI by a client (NULL: none). slot: client only, may be NULL; *slot is
 * offered for resumption and replaced by what the server gives; one of another connector or
 * generation is dropped.
 */
NODISCARD int tls_open(struct tls *tls, const struct tls_context *context, const char *host,
	struct ssl_session_st **slot);

/* Ends it and wipes the secrets. The session stays resumable. */
void tls_close(struct tls *tls);

/* Where output goes from now on. */
void tls_sink(struct tls *tls, uint8_t *at, size_t bytes);

/* One whole record; it must stay in place until the next tls_ call returned. */
void tls_feed(struct tls *tls, struct span record);

NODISCARD enum tls_status tls_handshake(struct tls *tls);

/* Decrypts what was fed. TLS_DONE: *out_len bytes; call again until TLS_MORE. */
NODISCARD enum tls_status tls_read(
	struct tls *tls, uint8_t *out, size_t out_bytes, size_t *out_len);

/* Encrypts up to one record's worth of text into the sink; *taken bytes of it. */
NODISCARD enum tls_status tls_write(struct tls *tls, struct span text, size_t *taken);

/* Puts a close_notify into the sink if there is room. */
void tls_write_close(struct tls *tls);

/* What went wrong; never NULL. */
const char *tls_error(const struct tls *tls);

/* Length of the record at the start of in, 0 if its header is incomplete, -EPROTO if it is none. */
NODISCARD int tls_record_length(struct span in);

/* Frees a session kept in a slot. */
void tls_session_drop(struct ssl_session_st **slot);

/* For --version: the library in use. */
const char *tls_library(void);
