/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * wire.h: one connection as a peer of the relay sees it: a socket, and stock
 * OpenSSL between memory BIOs, so that the driver decides what goes into which
 * segment. Clients and next hops use it alike.
 *
 * Sending always listens too, so two sides that both write much cannot block each
 * other. Nothing here ends a case: next hops run in threads. A wire is used by one
 * thread.
 */

#include "tests/e2e/suite.h"
#include <openssl/ssl.h>

/* How the other side ended. */
enum wire_end {
	WIRE_OPEN,
	WIRE_GOODBYE, /* close_notify */
	WIRE_FIN,     /* FIN; in clear that is the orderly end, under TLS it is none */
	WIRE_RESET,
	WIRE_BROKEN, /* alert received, or a record that is none: OpenSSL says no more is to come */
};

struct wire {
	int fd;
	SSL *ssl;             /* NULL: in clear */
	struct text in;       /* text that came and was not taken */
	struct text out;      /* bytes for the socket that have not left */
	bool is_secured;      /* a handshake was completed */
	unsigned handshakes;  /* so many, to tell a renegotiation */
	bool is_held;         /* bytes gather in out until wire_release() */
	bool is_dripping;     /* each byte is sent by itself */
	bool is_corrupting;   /* the next bytes that come have one bit turned */
	unsigned tickets;     /* NewSessionTickets that came */
	SSL_SESSION *session; /* the last of them */
	enum wire_end end;
	int alert; /* the last alert that came: level << 8 | description; 0: none */
};

/* What a side shows, speaks and demands. Zero means OpenSSL's default. */
struct tls_side {
	const char *certificate; /* name in the PKI, "": none; NULL: "treyresearch" */
	const char *ciphers;     /* TLS 1.2 */
	const char *suites;      /* TLS 1.3 */
	int version_min, version_max;
	bool is_weak; /* OpenSSL's security level 0: for what is refused otherwise */
	int tickets;  /* server: NewSessionTickets after a TLS 1.3 handshake; -1: OpenSSL's default
		       */
};

/* A context; NULL if it cannot be made. Both sides demand a certificate of our CAs from the other.
 */
SSL_CTX *tls_side_make(const struct tls_side *side, bool is_server);

/* Takes over a connected socket. */
void wire_open(struct wire *wire, int fd);

/* Connects; fd is -1 when that fails. */
void wire_connect(struct wire *wire, const char *address, uint16_t port);

/* Closes the descriptor and frees what is held; nothing is said. */
void wire_close(struct wire *wire);

/* As wire_close(), but the peer gets a RST. */
void wire_reset(struct wire *wire);

/*
 * A handshake. session may be NULL. With is_held, the client's last flight stays
 * in out for wire_release().
 */
bool wire_handshake(struct wire *wire, SSL_CTX *ctx, bool is_server, SSL_SESSION *session);

/* Text, encrypted if there is TLS. False if the peer is gone or takes nothing for too long. */
bool wire_write(struct wire *wire, const void *text, size_t len);

/* The same, in records of so many bytes at the most. */
bool wire_write_records(struct wire *wire, const void *text, size_t len, size_t record_bytes);

/* Bytes that are no TLS record of ours, as they are. */
bool wire_write_raw(struct wire *wire, const void *bytes, size_t len);

/* Sends the first bytes of what is held; SIZE_MAX: all, and holds no longer. */
bool wire_release(struct wire *wire, size_t bytes);

/* Sends what OpenSSL has to say, such as a KeyUpdate or an alert. */
bool wire_flush(struct wire *wire);

/* A KeyUpdate leaves at once; SSL_KEY_UPDATE_REQUESTED or SSL_KEY_UPDATE_NOT_REQUESTED. */
bool wire_update_keys(struct wire *wire, int type);

/* close_notify, without closing the socket. */
bool wire_say_goodbye(struct wire *wire);

/* FIN. */
void wire_finish(struct wire *wire);

/* Waits until more text has come, or the end. False: neither came in time. */
bool wire_wait(struct wire *wire, unsigned timeout_ms);

/* Reads and drops everything until the end or the time is over; says whether the end came. */
bool wire_drain(struct wire *wire, unsigned timeout_ms);

/* The next line without its CR LF, to be freed with the next call; NULL at the end or timeout. */
const char *wire_line(struct wire *wire, struct text *out, unsigned timeout_ms);

const char *wire_end_word(enum wire_end end);

/* The limit that most waits have. */
unsigned wire_patience_ms(void);
