/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/e2e/wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PATIENCE_MS 10000
#define READ_BYTES 65536
#define GATHER_BYTES 262144

unsigned wire_patience_ms(void)
{
	return PATIENCE_MS * suite.slow;
}

const char *wire_end_word(enum wire_end end)
{
	static const char *const words[] = {[WIRE_OPEN] = "open",
		[WIRE_GOODBYE] = "close_notify",
		[WIRE_FIN] = "FIN",
		[WIRE_RESET] = "RST",
		[WIRE_BROKEN] = "TLS alert or bad record"};

	return words[end];
}

/* Contexts. */

static int tls_side_new_session(SSL *ssl, SSL_SESSION *session)
{
	struct wire *wire = SSL_get_app_data(ssl);

	wire->tickets++;
	SSL_SESSION_free(wire->session);
	wire->session = session;
	return 1;
}

static void tls_side_info(const SSL *ssl, int where, int value)
{
	struct wire *wire = SSL_get_app_data(ssl);

	if ((where & SSL_CB_READ_ALERT) == SSL_CB_READ_ALERT)
		wire->alert = value;
	if (where & SSL_CB_HANDSHAKE_DONE)
		wire->handshakes++;
}

static bool tls_side_identify(SSL_CTX *ctx, const char *name)
{
	char file[512];

	if (name[0] == '\0')
		return true;
	return SSL_CTX_use_certificate_chain_file(
		       ctx, pki_file(name, ".pem", file, sizeof(file))) == 1 &&
	       SSL_CTX_use_PrivateKey_file(
		       ctx, pki_file(name, ".key", file, sizeof(file)), SSL_FILETYPE_PEM) == 1;
}

SSL_CTX *tls_side_make(const struct tls_side *side, bool is_server)
{
	SSL_CTX *ctx = SSL_CTX_new(is_server ? TLS_server_method() : TLS_client_method());
	const char *name = side->certificate == NULL ? "treyresearch" : side->certificate;
	char anchors[256];
	bool done = ctx != NULL;

	(void)snprintf(anchors, sizeof(anchors), "%s/anchors.pem", suite.dir);
	if (done && side->is_weak)
		SSL_CTX_set_security_level(ctx, 0);
	done = done && tls_side_identify(ctx, name);
	done = done && SSL_CTX_load_verify_locations(ctx, anchors, NULL) == 1;
	done = done && SSL_CTX_set_min_proto_version(ctx, side->version_min) == 1;
	done = done && SSL_CTX_set_max_proto_version(ctx, side->version_max) == 1;
	if (done && side->ciphers != NULL)
		done = SSL_CTX_set_cipher_list(ctx, side->ciphers) == 1;
	if (done && side->suites != NULL)
		done = SSL_CTX_set_ciphersuites(ctx, side->suites) == 1;
	if (!done) {
		SSL_CTX_free(ctx);
		return NULL;
	}
	SSL_CTX_set_verify(
		ctx, SSL_VERIFY_PEER | (is_server ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), NULL);
	SSL_CTX_set_info_callback(ctx, tls_side_info);
	if (is_server) {
		(void)SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"hop", 3);
		if (side->tickets >= 0)
			(void)SSL_CTX_set_num_tickets(ctx, (size_t)side->tickets);
	} else {
		SSL_CTX_set_session_cache_mode(
			ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
		SSL_CTX_sess_set_new_cb(ctx, tls_side_new_session);
	}
	return ctx;
}

/* Sockets. */

void wire_open(struct wire *wire, int fd)
{
	int on = 1;

	*wire = (struct wire){.fd = fd};
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	(void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

void wire_connect(struct wire *wire, const char *address, uint16_t port)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)inet_pton(AF_INET, address, &to.sin_addr);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
		(void)close(fd);
		fd = -1;
	}
	wire_open(wire, fd);
}

void wire_close(struct wire *wire)
{
	if (wire->fd >= 0)
		(void)close(wire->fd);
	SSL_free(wire->ssl);
	SSL_SESSION_free(wire->session);
	text_free(&wire->in);
	text_free(&wire->out);
	*wire = (struct wire){.fd = -1, .end = WIRE_RESET};
}

void wire_reset(struct wire *wire)
{
	struct linger linger = {.l_onoff = 1};

	(void)setsockopt(wire->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	wire_close(wire);
}

void wire_finish(struct wire *wire)
{
	(void)shutdown(wire->fd, SHUT_WR);
}

/* Receiving. */

static void wire_take_output(struct wire *wire)
{
	char piece[READ_BYTES];
	int len;

	while ((len = BIO_read(SSL_get_wbio(wire->ssl), piece, sizeof(piece))) > 0)
		text_add(&wire->out, piece, (size_t)len);
}

static void wire_decrypt(struct wire *wire)
{
	char piece[READ_BYTES];
	size_t len;

	ERR_clear_error();
	while (SSL_read_ex(wire->ssl, piece, sizeof(piece), &len) == 1)
		text_add(&wire->in, piece, len);
	switch (SSL_get_error(wire->ssl, 0)) {
	case SSL_ERROR_ZERO_RETURN:
		wire->end = WIRE_GOODBYE;
		break;
	case SSL_ERROR_SSL:
		/* The server's no_renegotiation is a warning: the connection goes on. */
		if (ERR_GET_REASON(ERR_peek_error()) != SSL_R_NO_RENEGOTIATION)
			wire->end = WIRE_BROKEN;
		break;
	default:
		break;
	}
	wire_take_output(wire);
}

/* Takes what the socket has. False: it had nothing. */
static bool wire_receive(struct wire *wire)
{
	char piece[READ_BYTES];
	ssize_t len = recv(wire->fd, piece, sizeof(piece), 0);

	if (len < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (len <= 0) {
		if (wire->end == WIRE_OPEN)
			wire->end = len == 0 ? WIRE_FIN : WIRE_RESET;
		return true;
	}
	if (wire->is_corrupting) {
		piece[len - 1] = (char)(piece[len - 1] ^ 1);
		wire->is_corrupting = false;
	}
	if (wire->ssl == NULL) {
		text_add(&wire->in, piece, (size_t)len);
		return true;
	}
	(void)BIO_write(SSL_get_rbio(wire->ssl), piece, (int)len);
	if (wire->is_secured)
		wire_decrypt(wire);
	return true;
}

static bool wire_poll(struct wire *wire, short events, unsigned timeout_ms, short *out)
{
	struct pollfd pollfd = {.fd = wire->fd, .events = events};

	*out = 0;
	if (wire->fd < 0 || poll(&pollfd, 1, (int)timeout_ms) <= 0)
		return false;
	*out = pollfd.revents;
	return true;
}

bool wire_wait(struct wire *wire, unsigned timeout_ms)
{
	uint64_t until = now_ms() + timeout_ms;
	size_t had = wire->in.len;
	uint64_t now;
	short events;

	while (wire->end == WIRE_OPEN && wire->in.len == had) {
		now = now_ms();
		if (now >= until || !wire_poll(wire, POLLIN, (unsigned)(until - now), &events))
			return false;
		(void)wire_receive(wire);
		if (wire->out.len > 0 && !wire->is_held)
			(void)wire_flush(wire);
	}
	return true;
}

bool wire_drain(struct wire *wire, unsigned timeout_ms)
{
	uint64_t until = now_ms() + timeout_ms;

	while (wire->end == WIRE_OPEN && now_ms() < until) {
		(void)wire_wait(wire, (unsigned)(until - now_ms()));
		text_clear(&wire->in);
	}
	return wire->end != WIRE_OPEN;
}

const char *wire_line(struct wire *wire, struct text *out, unsigned timeout_ms)
{
	size_t scanned = 0;

	for (;;) {
		size_t len = text_line_end(&wire->in, scanned);

		if (len < wire->in.len) {
			text_clear(out);
			text_add(out, wire->in.data, len);
			text_drop(&wire->in, len + 2);
			return out->data;
		}
		scanned = wire->in.len > 0 ? wire->in.len - 1 : 0;
		if (wire->end != WIRE_OPEN || !wire_wait(wire, timeout_ms))
			return NULL;
	}
}

/* Sending. */

static ssize_t wire_send_some(struct wire *wire, size_t offset, size_t bytes)
{
	size_t len = wire->is_dripping && bytes > 1 ? 1 : bytes;

	return send(wire->fd, wire->out.data + offset, len, MSG_NOSIGNAL);
}

/* Sends so many bytes of out. What comes meanwhile is taken in. */
static bool wire_send(struct wire *wire, size_t bytes)
{
	size_t sent = 0;
	short events;

	while (sent < bytes) {
		ssize_t len = wire_send_some(wire, sent, bytes - sent);

		if (len > 0) {
			sent += (size_t)len;
			continue;
		}
		if (len < 0 && errno != EAGAIN && errno != EINTR) {
			/* What the peer has said before it went can still be read. */
			while (wire->end == WIRE_OPEN && wire_receive(wire))
				;
			break;
		}
		if (!wire_poll(wire, wire->end == WIRE_OPEN ? POLLIN | POLLOUT : POLLOUT,
			    wire_patience_ms(), &events))
			break;
		if (events & POLLIN && wire->end == WIRE_OPEN)
			(void)wire_receive(wire);
	}
	text_drop(&wire->out, sent);
	return sent >= bytes;
}

bool wire_flush(struct wire *wire)
{
	if (wire->ssl != NULL)
		wire_take_output(wire);
	if (wire->is_held || wire->out.len == 0)
		return true;
	return wire_send(wire, wire->out.len);
}

bool wire_release(struct wire *wire, size_t bytes)
{
	if (bytes != SIZE_MAX)
		return wire_send(wire, bytes);
	wire->is_held = false;
	return wire_flush(wire);
}

bool wire_write_raw(struct wire *wire, const void *bytes, size_t len)
{
	text_add(&wire->out, bytes, len);
	return wire_flush(wire);
}

bool wire_write_records(struct wire *wire, const void *text, size_t len, size_t record_bytes)
{
	const char *at = text;

	if (wire->ssl == NULL)
		return wire_write_raw(wire, text, len);
	while (len > 0) {
		size_t piece = len < record_bytes ? len : record_bytes;
		size_t done;

		if (SSL_write_ex(wire->ssl, at, piece, &done) != 1)
			return false;
		wire_take_output(wire);
		at += piece;
		len -= piece;
		if (wire->out.len > GATHER_BYTES && !wire_flush(wire))
			return false;
	}
	return wire_flush(wire);
}

bool wire_write(struct wire *wire, const void *text, size_t len)
{
	return wire_write_records(wire, text, len, 16384);
}

/* TLS. */

static bool wire_handshake_step(struct wire *wire)
{
	uint64_t until = now_ms() + wire_patience_ms();

	while (!SSL_is_init_finished(wire->ssl) || SSL_in_before(wire->ssl)) {
		int done;
		int error;

		ERR_clear_error();
		done = SSL_do_handshake(wire->ssl);
		error = SSL_get_error(wire->ssl, done);
		wire_take_output(wire);
		if (done == 1)
			break;
		if (!wire_send(wire, wire->out.len) || error != SSL_ERROR_WANT_READ)
			return false;
		while (wire->end == WIRE_OPEN && !wire_receive(wire)) {
			short events;

			if (now_ms() >= until)
				return false;
			(void)wire_poll(wire, POLLIN, 100, &events);
		}
		if (wire->end != WIRE_OPEN)
			return false;
	}
	return wire_flush(wire);
}

bool wire_handshake(struct wire *wire, SSL_CTX *ctx, bool is_server, SSL_SESSION *session)
{
	if (ctx == NULL)
		return false;
	wire->ssl = SSL_new(ctx);
	if (wire->ssl == NULL)
		return false;
	SSL_set_bio(wire->ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
	(void)SSL_set_app_data(wire->ssl, wire);
	if (is_server)
		SSL_set_accept_state(wire->ssl);
	else
		SSL_set_connect_state(wire->ssl);
	if (session != NULL && SSL_set_session(wire->ssl, session) != 1)
		return false;
	if (!wire_handshake_step(wire))
		return false;
	wire->is_secured = true;
	/* Records may have come with the peer's last flight. */
	wire_decrypt(wire);
	return wire_flush(wire);
}

bool wire_update_keys(struct wire *wire, int type)
{
	return SSL_key_update(wire->ssl, type) == 1 && SSL_do_handshake(wire->ssl) == 1 &&
	       wire_flush(wire);
}

bool wire_say_goodbye(struct wire *wire)
{
	(void)SSL_shutdown(wire->ssl);
	return wire_flush(wire);
}
