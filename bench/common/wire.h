/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * wire.h: one non-blocking TCP connection, in clear text or under TLS.
 *
 * The TLS here is stock OpenSSL on a socket and shares nothing with the relay's,
 * so that a mistake of the relay cannot hide on both sides of a measurement.
 *
 * Results are as of read(2) and write(2), with -errno for an error: -EAGAIN means
 * "poll for wire_interest() and call again", -EPROTO is any failure of TLS, which
 * wire_error() explains.
 */

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct ssl_ctx_st;
struct ssl_session_st;
struct ssl_st;

struct wire {
	int fd;             /* -1: closed */
	struct ssl_st *ssl; /* NULL: clear text */
	bool wants_write;   /* the last call waits for room to send, not for input */
};

struct wire_tls {
	bool is_server;
	bool is_small;        /* release buffers when idle: for many quiet sessions */
	const char *cert;     /* PEM chain to show, or NULL */
	const char *key;      /* its key */
	const char *ca;       /* PEM: the other side must show a certificate from these; or NULL */
	const char *name;     /* client: the name that the certificate must have; or NULL */
	const char *versions; /* "1.2", "1.3", or NULL for both */
	unsigned int ticket_count; /* server: tickets of a TLS 1.3 handshake */
};

struct wire_facts {
	bool is_tls;
	bool is_resumed;
	const char *version;
	const char *cipher;
};

/* Makes a context; NULL after a line on stderr. The caller frees it with wire_tls_destroy(). */
struct ssl_ctx_st *wire_tls_create(const struct wire_tls *options);
void wire_tls_destroy(struct ssl_ctx_st **ctx);

/* Begins to connect, from source unless that is NULL; the result comes with wire_connected(). */
int wire_connect(struct wire *wire, const struct sockaddr_in *to, const struct sockaddr_in *source);

/* After the socket became writable: 0, or why it did not connect. */
int wire_connected(struct wire *wire);

/* A listening socket on address; its port is filled in when it was 0. Returns fd or -errno. */
int wire_listen(struct sockaddr_in *address);

/* Makes a wire of an accepted socket. */
void wire_accept(struct wire *wire, int fd);

/* Puts TLS on the wire; session is one to resume, or NULL. Then wire_handshake() until it is 0. */
int wire_tls_begin(struct wire *wire, struct ssl_ctx_st *ctx, bool is_server, const char *name,
	struct ssl_session_st *session);
int wire_handshake(struct wire *wire);

ssize_t wire_recv(struct wire *wire, void *out, size_t bytes);
ssize_t wire_send(struct wire *wire, const void *data, size_t bytes);

/* True when input waits inside of OpenSSL, where no poll sees it. */
bool wire_has_pending(const struct wire *wire);

/* What to poll for, in epoll's words. */
uint32_t wire_interest(const struct wire *wire);

/* The session to resume on the next connection, or NULL; owned by the caller. */
struct ssl_session_st *wire_session(const struct wire *wire);
void wire_session_put(struct ssl_session_st **session);

void wire_facts(const struct wire *wire, struct wire_facts *out);

/* Says goodbye as far as that needs no waiting, and closes. Harmless on a closed wire. */
void wire_close(struct wire *wire);

/* The reason of this thread's last -EPROTO, until the next call on a wire. */
const char *wire_error(void);
