/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/common/wire.h"

#include <errno.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* Four full records come with one read, as in the relay. */
#define WIRE_READ_AHEAD_BYTES ((size_t)4 * (5 + 16384 + 256))

static _Thread_local char wire_reason[256] = "no reason known";

static int wire_explain(const char *what, const SSL *ssl)
{
	unsigned long code = ERR_peek_error();
	long verify = ssl != NULL ? SSL_get_verify_result(ssl) : X509_V_OK;
	const char *text = code != 0 ? ERR_reason_error_string(code) : NULL;

	(void)snprintf(wire_reason, sizeof(wire_reason), "%s: %s%s%s", what,
		text != NULL ? text : "connection ended", verify != X509_V_OK ? ": " : "",
		verify != X509_V_OK ? X509_verify_cert_error_string(verify) : "");
	ERR_clear_error();
	return -EPROTO;
}

const char *wire_error(void)
{
	return wire_reason;
}

static bool wire_tls_files(SSL_CTX *ctx, const struct wire_tls *options)
{
	int verify = SSL_VERIFY_PEER | (options->is_server ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0);
	const char *wrong = NULL;

	if (options->cert != NULL && SSL_CTX_use_certificate_chain_file(ctx, options->cert) != 1)
		wrong = options->cert;
	else if (options->key != NULL &&
		 SSL_CTX_use_PrivateKey_file(ctx, options->key, SSL_FILETYPE_PEM) != 1)
		wrong = options->key;
	else if (options->ca != NULL && SSL_CTX_load_verify_file(ctx, options->ca) != 1)
		wrong = options->ca;
	if (wrong != NULL) {
		wire_explain(wrong, NULL);
		return false;
	}
	SSL_CTX_set_verify(ctx, options->ca != NULL ? verify : SSL_VERIFY_NONE, NULL);
	if (options->is_server && options->ca != NULL)
		SSL_CTX_set_client_CA_list(ctx, SSL_load_client_CA_file(options->ca));
	return true;
}

static bool wire_tls_versions(SSL_CTX *ctx, const char *versions)
{
	int min = TLS1_2_VERSION;
	int max = TLS1_3_VERSION;

	if (versions != NULL && strcmp(versions, "1.2") == 0)
		max = TLS1_2_VERSION;
	else if (versions != NULL && strcmp(versions, "1.3") == 0)
		min = TLS1_3_VERSION;
	else if (versions != NULL)
		return false;
	return SSL_CTX_set_min_proto_version(ctx, min) == 1 &&
	       SSL_CTX_set_max_proto_version(ctx, max) == 1;
}

struct ssl_ctx_st *wire_tls_create(const struct wire_tls *options)
{
	static const unsigned char id[] = "postern-bench";
	SSL_CTX *ctx = SSL_CTX_new(options->is_server ? TLS_server_method() : TLS_client_method());

	if (ctx == NULL || !wire_tls_versions(ctx, options->versions)) {
		wire_explain("no such TLS version", NULL);
		goto fail;
	}
	if (!wire_tls_files(ctx, options))
		goto fail;
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	if (options->is_small) {
		SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
	} else {
		SSL_CTX_set_read_ahead(ctx, 1);
		SSL_CTX_set_default_read_buffer_len(ctx, WIRE_READ_AHEAD_BYTES);
	}
	if (options->is_server) {
		SSL_CTX_set_session_id_context(ctx, id, sizeof(id) - 1);
		SSL_CTX_set_num_tickets(ctx, options->ticket_count);
		if (options->ticket_count == 0) {
			/* TLS 1.2 could resume without a ticket too. */
			SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
			SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
		}
	}
	return ctx;
fail:
	(void)fprintf(stderr, "TLS: %s\n", wire_reason);
	SSL_CTX_free(ctx);
	return NULL;
}

void wire_tls_destroy(struct ssl_ctx_st **ctx)
{
	SSL_CTX_free(*ctx);
	*ctx = NULL;
}

static void wire_init(struct wire *wire, int fd)
{
	int on = 1;

	*wire = (struct wire){.fd = fd};
	/* What is written together belongs together; waiting for an ACK would cost 40 ms. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

int wire_connect(struct wire *wire, const struct sockaddr_in *to, const struct sockaddr_in *source)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int on = 1;

	if (fd < 0)
		return -errno;
	wire_init(wire, fd);
	if (source != NULL) {
		/* The port is chosen by connect, so that each destination has all of them. */
		setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
		if (bind(fd, (const struct sockaddr *)source, sizeof(*source)) < 0)
			goto fail;
	}
	wire->wants_write = true;
	if (connect(fd, (const struct sockaddr *)to, sizeof(*to)) < 0 && errno != EINPROGRESS)
		goto fail;
	return 0;
fail:
	on = -errno;
	close(fd);
	wire->fd = -1;
	return on;
}

int wire_connected(struct wire *wire)
{
	int error = 0;
	socklen_t len = sizeof(error);

	if (getsockopt(wire->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		return -errno;
	wire->wants_write = false;
	return -error;
}

int wire_listen(struct sockaddr_in *address)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(*address);
	int on = 1;
	int rc;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)address, len) < 0 || listen(fd, 4096) < 0 ||
		getsockname(fd, (struct sockaddr *)address, &len) < 0) {
		rc = -errno;
		close(fd);
		return rc;
	}
	return fd;
}

void wire_accept(struct wire *wire, int fd)
{
	wire_init(wire, fd);
}

/* The name to send to the server, and to find in its certificate. */
static bool wire_tls_name(SSL *ssl, const char *name)
{
	char copy[256]; /* OpenSSL's macro casts const away, which -Wcast-qual finds */
	int len = snprintf(copy, sizeof(copy), "%s", name);

	return len > 0 && (size_t)len < sizeof(copy) && SSL_set1_host(ssl, copy) == 1 &&
	       SSL_set_tlsext_host_name(ssl, copy) == 1;
}

int wire_tls_begin(struct wire *wire, struct ssl_ctx_st *ctx, bool is_server, const char *name,
	struct ssl_session_st *session)
{
	SSL *ssl = SSL_new(ctx);

	if (ssl == NULL || SSL_set_fd(ssl, wire->fd) != 1)
		goto fail;
	if (is_server) {
		SSL_set_accept_state(ssl);
	} else {
		SSL_set_connect_state(ssl);
		if (name != NULL && !wire_tls_name(ssl, name))
			goto fail;
		if (session != NULL)
			SSL_set_session(ssl, session);
	}
	wire->ssl = ssl;
	return 0;
fail:
	wire_explain("TLS set-up", NULL);
	SSL_free(ssl);
	return -EPROTO;
}

/* Translates OpenSSL's answer; a peer that just closes is the end of input, as without TLS. */
static int wire_tls_result(struct wire *wire, int rc, const char *what)
{
	switch (SSL_get_error(wire->ssl, rc)) {
	case SSL_ERROR_WANT_READ:
		return -EAGAIN;
	case SSL_ERROR_WANT_WRITE:
		wire->wants_write = true;
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	default:
		/* After a fatal error OpenSSL forbids SSL_shutdown. */
		SSL_set_quiet_shutdown(wire->ssl, 1);
		return wire_explain(what, wire->ssl);
	}
}

int wire_handshake(struct wire *wire)
{
	int rc;

	ERR_clear_error();
	wire->wants_write = false;
	rc = SSL_do_handshake(wire->ssl);
	if (rc == 1)
		return 0;
	rc = wire_tls_result(wire, rc, "handshake");
	return rc == 0 ? wire_explain("handshake", wire->ssl) : rc;
}

ssize_t wire_recv(struct wire *wire, void *out, size_t bytes)
{
	ssize_t got;
	int rc;

	wire->wants_write = false;
	if (wire->ssl == NULL) {
		got = recv(wire->fd, out, bytes, 0);
		return got < 0 ? -errno : got;
	}
	ERR_clear_error();
	rc = SSL_read(wire->ssl, out, bytes > INT_MAX ? INT_MAX : (int)bytes);
	return rc > 0 ? rc : wire_tls_result(wire, rc, "read");
}

ssize_t wire_send(struct wire *wire, const void *data, size_t bytes)
{
	ssize_t sent;
	int rc;

	wire->wants_write = false;
	if (wire->ssl == NULL) {
		sent = send(wire->fd, data, bytes, MSG_NOSIGNAL);
		if (sent < 0 && errno == EAGAIN)
			wire->wants_write = true;
		return sent < 0 ? -errno : sent;
	}
	ERR_clear_error();
	rc = SSL_write(wire->ssl, data, bytes > INT_MAX ? INT_MAX : (int)bytes);
	if (rc > 0)
		return rc;
	rc = wire_tls_result(wire, rc, "write");
	return rc == 0 ? -EPIPE : rc;
}

bool wire_has_pending(const struct wire *wire)
{
	return wire->ssl != NULL && SSL_has_pending(wire->ssl);
}

uint32_t wire_interest(const struct wire *wire)
{
	return wire->wants_write ? EPOLLOUT : EPOLLIN;
}

struct ssl_session_st *wire_session(const struct wire *wire)
{
	return wire->ssl != NULL ? SSL_get1_session(wire->ssl) : NULL;
}

void wire_session_put(struct ssl_session_st **session)
{
	SSL_SESSION_free(*session);
	*session = NULL;
}

void wire_facts(const struct wire *wire, struct wire_facts *out)
{
	*out = (struct wire_facts){.version = "none", .cipher = "none"};
	if (wire->ssl == NULL)
		return;
	out->is_tls = true;
	out->is_resumed = SSL_session_reused(wire->ssl) == 1;
	out->version = SSL_get_version(wire->ssl);
	out->cipher = SSL_get_cipher_name(wire->ssl);
}

void wire_close(struct wire *wire)
{
	if (wire->fd < 0)
		return;
	if (wire->ssl != NULL) {
		if (SSL_is_init_finished(wire->ssl))
			SSL_shutdown(wire->ssl);
		ERR_clear_error();
		SSL_free(wire->ssl);
		wire->ssl = NULL;
	}
	close(wire->fd);
	wire->fd = -1;
}
