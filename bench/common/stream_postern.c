/* SPDX-License-Identifier: Apache-2.0 */

/*
 * stream_postern.c: a stream under the relay's own TLS: a struct conn, and a context and trust
 * made of the same files.
 */

#include "bench/common/stream_private.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>

/* Bulk buffers of a net at the most: what a stream receives, gathers and sends. */
#define POSTERN_BULK_MAX 1024

/* As the relay's own defaults. */
#define POSTERN_CIPHERS_TLS12 "ECDHE+AESGCM:ECDHE+CHACHA20"
#define POSTERN_CIPHERS_TLS13 \
	"TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256"

static struct stream *postern_owner(struct conn *conn)
{
	return OWNER_OF(conn, struct stream, as.conn);
}

/* NULL, or the words that are wrong. */
static const char *postern_settings(struct stream_net *net, const struct stream_tls *tls)
{
	static const char *const ktls_words[] = {"off", "tx", "rx", "on"};
	struct tls_settings *settings = &net->settings;
	const char *ktls = tls->ktls != NULL ? tls->ktls : "off";
	unsigned mode = 0;

	while (mode <= KTLS_ON && strcmp(ktls, ktls_words[mode]) != 0)
		mode++;
	if (mode > KTLS_ON)
		return ktls;
	if (tls->versions != NULL && strcmp(tls->versions, "1.2") != 0 &&
		strcmp(tls->versions, "1.3") != 0)
		return tls->versions;
	if (!stream_ciphers_split(tls->ciphers != NULL ? tls->ciphers : "", net->tls12_ciphers,
		    net->tls13_ciphers))
		return tls->ciphers;
	net->certificate =
		(struct certificate){.name = "bench", .chain = tls->cert, .key = tls->key};
	*settings = (struct tls_settings){
		.certificate = tls->cert != NULL ? &net->certificate : NULL,
		.trust_anchors = tls->ca,
		.tls_min = tls->versions != NULL && tls->versions[2] == '3' ? "TLSv1.3" : "TLSv1.2",
		.tls_max = tls->versions != NULL && tls->versions[2] == '2' ? "TLSv1.2" : "TLSv1.3",
		.ciphers =
			net->tls12_ciphers[0] != '\0' ? net->tls12_ciphers : POSTERN_CIPHERS_TLS12,
		.ciphersuites =
			net->tls13_ciphers[0] != '\0' ? net->tls13_ciphers : POSTERN_CIPHERS_TLS13,
		.session_tickets = tls->ticket_count,
		.ktls = (enum ktls_mode)mode,
		.revocation = REVOCATION_OFF,
	};
	return NULL;
}

static int postern_context(struct stream_net *net, char *error, size_t error_bytes)
{
	const struct stream_tls *tls = net->options.tls;
	const struct trust_options believed = {
		.anchors = tls->ca, .revocation = REVOCATION_OFF, .depth = -1};
	struct tls_context_options options = {.settings = &net->settings,
		.is_server = tls->is_server,
		.client_certificate =
			tls->ca != NULL ? CLIENT_CERTIFICATE_REQUIRE : CLIENT_CERTIFICATE_NONE,
		.name = "bench"};
	const char *wrong = postern_settings(net, tls);
	int rc = 0;

	if (wrong != NULL) {
		(void)snprintf(error, error_bytes, "%s: not known", wrong);
		return -EINVAL;
	}
	if (tls->ca != NULL)
		rc = trust_create(&believed, &net->trust, error, error_bytes);
	options.trust = net->trust;
	if (rc == 0)
		rc = tls_context_create(&options, &net->context, error, error_bytes);
	if (rc == 0 && tls->groups != NULL &&
		SSL_CTX_set1_groups_list(net->context.ctx, tls->groups) != 1) {
		(void)snprintf(error, error_bytes, "%s: no groups of OpenSSL's", tls->groups);
		rc = -EINVAL;
	}
	return rc;
}

static int postern_net_create(struct stream_net *net)
{
	unsigned streams = net->options.streams_max;
	unsigned bulk = net->options.is_small ? 1 : 3 * streams;
	char error[256] = "";
	int rc = conn_net_create(&net->conn_net, net->loop, streams,
		bulk < POSTERN_BULK_MAX ? bulk : POSTERN_BULK_MAX, stream_ktls_support());

	net->has_conn_net = rc == 0;
	if (rc == 0 && net->options.tls != NULL)
		rc = postern_context(net, error, sizeof(error));
	if (rc < 0)
		(void)fprintf(stderr, "TLS: %s\n", error[0] != '\0' ? error : strerror(-rc));
	return rc;
}

static void postern_net_destroy(struct stream_net *net)
{
	if (net->context.ctx != NULL)
		tls_context_destroy(&net->context);
	trust_destroy(&net->trust);
	if (net->has_conn_net)
		conn_net_destroy(&net->conn_net);
}

/* Events of the conn are events of the stream. */

static void postern_on_connected(struct conn *conn, int result)
{
	struct stream *stream = postern_owner(conn);

	stream->events->on_connected(stream, result);
}

static void postern_on_input(struct conn *conn)
{
	struct stream *stream = postern_owner(conn);

	stream->events->on_input(stream);
}

static void postern_on_drained(struct conn *conn)
{
	struct stream *stream = postern_owner(conn);

	stream->events->on_drained(stream);
}

/* Why the peer's certificate will not do, or NULL. */
static const char *postern_judge(const struct stream_net *net, const struct conn *conn)
{
	const struct stream_tls *tls = net->options.tls;

	if (tls->ca == NULL)
		return NULL;
	if (conn->facts.verdict != VERDICT_VALID)
		return verdict_word(conn->facts.verdict);
	if (tls->name != NULL && !tls->is_server && !names_have(&conn->peer->names, tls->name))
		return "hostname mismatch";
	return NULL;
}

static void postern_on_tls(struct conn *conn)
{
	struct stream *stream = postern_owner(conn);
	const char *wrong = postern_judge(stream->net, conn);
	int group = (int)SSL_get_negotiated_group(conn->tls->ssl);
	char why[128];

	if (wrong != NULL) {
		(void)snprintf(why, sizeof(why), "handshake: the peer's certificate: %s", wrong);
		stream->events->on_end(stream, why);
		return;
	}
	/* Kept, since the TLS object goes when the kernel has both directions. */
	stream->cipher = SSL_get_cipher_name(conn->tls->ssl);
	stream->group = group != 0 ? SSL_group_to_name(conn->tls->ssl, group) : NULL;
	conn->is_bulk_in = conn->is_bulk_out = !stream->net->options.is_small;
	conn_allow_ktls(conn, stream->net->settings.ktls, "configured");
	stream->events->on_tls(stream);
}

static void postern_on_record(struct conn *conn)
{
	(void)conn;
}

static void postern_on_end(struct conn *conn, enum conn_end why)
{
	static const char *const words[] = {
		[CONN_END_EOF] = NULL,
		[CONN_END_RESET] = "connection reset",
		[CONN_END_TLS] = "TLS failed",
		[CONN_END_KEY_UPDATE] = "key update",
	};
	struct stream *stream = postern_owner(conn);
	const char *text = words[why];

	if (why == CONN_END_TLS && conn->tls != NULL && tls_error(conn->tls)[0] != '\0')
		text = tls_error(conn->tls);
	stream->events->on_end(stream, text);
}

static void postern_on_timeout(struct conn *conn)
{
	(void)conn; /* no deadline is ever set */
}

static void postern_on_closed(struct conn *conn)
{
	struct stream *stream = postern_owner(conn);

	stream->events->on_closed(stream);
}

static const struct conn_events postern_events = {
	.on_connected = postern_on_connected,
	.on_input = postern_on_input,
	.on_drained = postern_on_drained,
	.on_tls = postern_on_tls,
	.on_record = postern_on_record,
	.on_end = postern_on_end,
	.on_timeout = postern_on_timeout,
	.on_closed = postern_on_closed,
};

/* The calls. */

static void postern_open(struct stream *stream, int fd)
{
	int on = 1;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	stream->group = NULL;
	conn_open(&stream->as.conn, &stream->net->conn_net, &postern_events, fd);
	stream->as.conn.is_bulk_in = stream->as.conn.is_bulk_out = !stream->net->options.is_small;
}

static void postern_address(struct address *out, const struct sockaddr_in *from)
{
	*out = (struct address){.len = sizeof(*from)};
	memcpy(&out->sockaddr, from, sizeof(*from));
}

static int postern_connect(
	struct stream *stream, const struct sockaddr_in *to, const struct sockaddr_in *source)
{
	struct address local;
	int rc;

	postern_address(&stream->to, to);
	if (source != NULL)
		postern_address(&local, source);
	stream->group = NULL;
	rc = conn_connect(&stream->as.conn, &stream->net->conn_net, &postern_events, &stream->to,
		source != NULL ? &local : NULL);
	if (rc == 0)
		stream->as.conn.is_bulk_in = stream->as.conn.is_bulk_out =
			!stream->net->options.is_small;
	return rc;
}

static struct span postern_input(const struct stream *stream)
{
	return conn_input(&stream->as.conn);
}

static void postern_consume(struct stream *stream, size_t bytes)
{
	conn_consume(&stream->as.conn, bytes);
}

static void postern_read(struct stream *stream)
{
	conn_read(&stream->as.conn);
}

static size_t postern_room(const struct stream *stream)
{
	return conn_room(&stream->as.conn);
}

static uint8_t *postern_out_space(struct stream *stream, size_t *room)
{
	return conn_out_space(&stream->as.conn, 0, room);
}

static void postern_out_commit(struct stream *stream, size_t bytes)
{
	conn_out_commit(&stream->as.conn, bytes);
}

static void postern_flush(struct stream *stream)
{
	conn_flush(&stream->as.conn);
}

static void postern_flush_now(struct stream *stream)
{
	conn_flush_now(&stream->as.conn);
}

static bool postern_is_drained(const struct stream *stream)
{
	return conn_is_drained(&stream->as.conn);
}

static int postern_start_tls(struct stream *stream, struct ssl_session_st **slot)
{
	const struct stream_tls *tls = stream->net->options.tls;

	return conn_start_tls(&stream->as.conn, &stream->net->context,
		tls->is_server ? NULL : tls->name, tls->is_server ? NULL : slot);
}

static void postern_facts(const struct stream *stream, struct stream_facts *out)
{
	const struct conn *conn = &stream->as.conn;

	if (conn->facts.version == NULL)
		return;
	out->is_tls = true;
	out->is_resumed = conn->facts.is_resumed;
	out->version = conn->facts.version;
	out->cipher = stream->cipher;
	if (stream->group != NULL)
		out->group = stream->group;
	(void)conn_record_print(conn, out->record, sizeof(out->record));
}

static void postern_close(struct stream *stream)
{
	conn_close(&stream->as.conn);
}

static void postern_abort(struct stream *stream)
{
	conn_abort(&stream->as.conn);
}

const struct stream_ops stream_postern = {
	.net_create = postern_net_create,
	.net_destroy = postern_net_destroy,
	.open = postern_open,
	.connect = postern_connect,
	.input = postern_input,
	.consume = postern_consume,
	.read = postern_read,
	.room = postern_room,
	.out_space = postern_out_space,
	.out_commit = postern_out_commit,
	.flush = postern_flush,
	.flush_now = postern_flush_now,
	.is_drained = postern_is_drained,
	.start_tls = postern_start_tls,
	.facts = postern_facts,
	.close = postern_close,
	.abort = postern_abort,
};
