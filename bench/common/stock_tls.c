/* SPDX-License-Identifier: Apache-2.0 */

/*
 * stock_tls.c: OpenSSL as its own manual uses it; nothing of the relay's.
 */

#include "bench/common/stock.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* RFC 8446 5.2, and its header. */
#define STOCK_RECORD_BYTES_MAX (5 + 16384 + 2048)

static BIO_METHOD *stock_bio;

/* NULL, or the file that is wrong. */
static const char *stock_context_files(SSL_CTX *ctx, const struct stream_tls *tls)
{
	int verify = SSL_VERIFY_PEER | (tls->is_server ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0);

	if (tls->cert != NULL && SSL_CTX_use_certificate_chain_file(ctx, tls->cert) != 1)
		return tls->cert;
	if (tls->key != NULL && SSL_CTX_use_PrivateKey_file(ctx, tls->key, SSL_FILETYPE_PEM) != 1)
		return tls->key;
	if (tls->ca != NULL && SSL_CTX_load_verify_file(ctx, tls->ca) != 1)
		return tls->ca;
	SSL_CTX_set_verify(ctx, tls->ca != NULL ? verify : SSL_VERIFY_NONE, NULL);
	if (tls->is_server && tls->ca != NULL)
		SSL_CTX_set_client_CA_list(ctx, SSL_load_client_CA_file(tls->ca));
	return NULL;
}

/* NULL, or the words that are wrong. */
static const char *stock_context_protocol(SSL_CTX *ctx, const struct stream_tls *tls)
{
	char tls12[STREAM_CIPHERS_BYTES];
	char tls13[STREAM_CIPHERS_BYTES];
	int min = TLS1_2_VERSION;
	int max = TLS1_3_VERSION;

	if (tls->versions != NULL && strcmp(tls->versions, "1.2") == 0)
		max = TLS1_2_VERSION;
	else if (tls->versions != NULL && strcmp(tls->versions, "1.3") == 0)
		min = TLS1_3_VERSION;
	else if (tls->versions != NULL)
		return tls->versions;
	if (SSL_CTX_set_min_proto_version(ctx, min) != 1 ||
		SSL_CTX_set_max_proto_version(ctx, max) != 1)
		return "TLS versions";
	if (tls->groups != NULL && SSL_CTX_set1_groups_list(ctx, tls->groups) != 1)
		return tls->groups;
	if (tls->ciphers == NULL)
		return NULL;
	if (!stream_ciphers_split(tls->ciphers, tls12, tls13) ||
		(tls12[0] != '\0' && SSL_CTX_set_cipher_list(ctx, tls12) != 1) ||
		(tls13[0] != '\0' && SSL_CTX_set_ciphersuites(ctx, tls13) != 1))
		return tls->ciphers;
	return NULL;
}

static void stock_context_resumption(SSL_CTX *ctx, const struct stream_tls *tls)
{
	static const unsigned char id[] = "postern-bench";

	if (!tls->is_server) {
		SSL_CTX_set_session_cache_mode(
			ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
		return;
	}
	/* Tickets alone: a cache would only lock. */
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_session_id_context(ctx, id, sizeof(id) - 1);
	SSL_CTX_set_num_tickets(ctx, tls->ticket_count);
	if (tls->ticket_count == 0)
		SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
}

static SSL_CTX *stock_context_create(const struct stream_tls *tls, bool is_small)
{
	SSL_CTX *ctx = SSL_CTX_new(tls->is_server ? TLS_server_method() : TLS_client_method());
	const char *wrong = ctx == NULL ? "context" : stock_context_protocol(ctx, tls);
	const char *why;

	if (wrong == NULL)
		wrong = stock_context_files(ctx, tls);
	if (wrong != NULL) {
		why = ERR_reason_error_string(ERR_peek_error());
		(void)fprintf(stderr, "TLS: %s: %s\n", wrong, why != NULL ? why : "not known");
		ERR_clear_error();
		SSL_CTX_free(ctx);
		return NULL;
	}
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	if (is_small)
		SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
	stock_context_resumption(ctx, tls);
	return ctx;
}

/* Between OpenSSL and the buffers. */

/*
 * OpenSSL gets whole records only. Had it taken a part and kept it, the text of that record could
 * be longer than what lies here of it, and reach the record behind.
 */
static size_t stock_record(const struct stock *stock)
{
	const uint8_t *at = stock->in->data + stock->raw_start;
	size_t have = stock->raw_end - stock->raw_start;
	size_t length;

	if (have < 5)
		return 0;
	length = 5 + ((size_t)at[3] << 8 | at[4]);
	if (length > STOCK_RECORD_BYTES_MAX)
		return have; /* no record: OpenSSL will say so */
	return length <= have ? length : 0;
}

static int stock_bio_read(BIO *bio, char *data, int bytes)
{
	struct stock *stock = BIO_get_data(bio);
	size_t take;

	BIO_clear_retry_flags(bio);
	if (stock->feed == 0 && stock->in != NULL)
		stock->feed = stock_record(stock);
	if (stock->feed == 0) {
		BIO_set_retry_read(bio);
		return -1;
	}
	take = stock->feed < (size_t)bytes ? stock->feed : (size_t)bytes;
	memcpy(data, stock->in->data + stock->raw_start, take);
	stock->raw_start += take;
	stock->feed -= take;
	return (int)take;
}

static int stock_bio_write(BIO *bio, const char *data, int bytes)
{
	struct stock *stock = BIO_get_data(bio);
	size_t take;

	BIO_clear_retry_flags(bio);
	if (stock->wire == NULL) {
		stock->wire = stock_buffer_create(stock_owner(stock)->net);
		stock->wire_start = stock->wire_end = 0;
	}
	take = STOCK_BUFFER_BYTES - stock->wire_end;
	if (take == 0) {
		BIO_set_retry_write(bio);
		return -1;
	}
	take = take < (size_t)bytes ? take : (size_t)bytes;
	memcpy(stock->wire->data + stock->wire_end, data, take);
	stock->wire_end += take;
	return (int)take;
}

static long stock_bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
	(void)bio;
	(void)number;
	(void)pointer;
	return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static int stock_on_session(SSL *ssl, SSL_SESSION *session)
{
	struct stock *stock = SSL_get_app_data(ssl);

	if (stock->slot == NULL)
		return 0;
	SSL_SESSION_free(*stock->slot);
	*stock->slot = session;
	return 1;
}

int stock_tls_net_create(struct stream_net *net)
{
	if (net->options.tls == NULL)
		return 0;
	net->ctx = stock_context_create(net->options.tls, net->options.is_small);
	if (net->ctx == NULL)
		return -EINVAL;
	if (!net->options.tls->is_server)
		SSL_CTX_sess_set_new_cb(net->ctx, stock_on_session);
	return 0;
}

void stock_tls_free(struct stock *stock)
{
	if (stock->ssl == NULL)
		return;
	/* Without this OpenSSL takes the session for broken and never resumes it. */
	if (SSL_is_init_finished(stock->ssl))
		SSL_set_shutdown(stock->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	SSL_free(stock->ssl);
	stock->ssl = NULL;
}

static void stock_failed_tls(struct stock *stock, const char *what)
{
	unsigned long code = ERR_peek_error();
	long verify = SSL_get_verify_result(stock->ssl);
	const char *reason = code != 0 ? ERR_reason_error_string(code) : NULL;
	char why[sizeof(stock->why)];

	(void)snprintf(why, sizeof(why), "%s: %s%s%s", what,
		reason != NULL ? reason : "connection ended", verify != X509_V_OK ? ": " : "",
		verify != X509_V_OK ? X509_verify_cert_error_string(verify) : "");
	ERR_clear_error();
	stock_ended(stock, why);
}

void stock_tls_decrypt(struct stock *stock)
{
	size_t got;
	int rc;

	do {
		ERR_clear_error();
		rc = SSL_read_ex(stock->ssl, stock->in->data + stock->in_end,
			STOCK_BUFFER_BYTES - stock->in_end, &got);
		if (rc == 1)
			stock->in_end += got;
	} while (rc == 1);
	switch (SSL_get_error(stock->ssl, rc)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		break;
	case SSL_ERROR_ZERO_RETURN:
		stock_ended(stock, NULL);
		break;
	default:
		stock_failed_tls(stock, "read");
		break;
	}
	stock_send_wire(stock); /* an answer to a KeyUpdate, or an alert */
}

int stock_tls_start(struct stream *stream, struct ssl_session_st **slot)
{
	struct stock *stock = &stream->as.stock;
	const struct stream_tls *tls = stream->net->options.tls;
	char name[256]; /* OpenSSL's macro casts const away, which -Wcast-qual finds */
	BIO *bio = BIO_new(stock_bio);
	SSL *ssl = SSL_new(stream->net->ctx);

	ASSERT(stock->state == STOCK_OPEN && stock->out == NULL && stock->wire == NULL);
	ASSERT(stock->in_start == stock->in_end && !stock->recv_op.in_flight);
	if (ssl == NULL || bio == NULL) {
		SSL_free(ssl);
		BIO_free(bio);
		return -ENOMEM;
	}
	BIO_set_data(bio, stock);
	BIO_set_init(bio, 1);
	SSL_set_bio(ssl, bio, bio);
	(void)SSL_set_app_data(ssl, stock);
	stock->ssl = ssl;
	stock->slot = slot;
	stock->state = STOCK_HANDSHAKE;
	stock->is_fresh = true;
	if (tls->is_server) {
		SSL_set_accept_state(ssl);
		stock_recv(stock, false);
		return 0;
	}
	SSL_set_connect_state(ssl);
	if (tls->name != NULL) {
		(void)snprintf(name, sizeof(name), "%s", tls->name);
		if (SSL_set1_host(ssl, name) != 1 || SSL_set_tlsext_host_name(ssl, name) != 1)
			return -EINVAL;
	}
	if (slot != NULL && *slot != NULL)
		SSL_set_session(ssl, *slot);
	stock_task_add(stock, STOCK_PENDING_INPUT);
	return 0;
}

/*
 * A step costs about a millisecond, and what it has to say leaves at the end of the turn: so there
 * is one in a turn, or the other side would have nothing to do until all were made.
 */
void stock_tls_handshake(struct stock *stock)
{
	struct stream *stream = stock_owner(stock);
	uint64_t turn = loop_turns(stream->net->loop);
	int rc;

	if (stream->net->handshake_turn == turn) {
		stock_task_add(stock, STOCK_PENDING_INPUT);
		return;
	}
	stream->net->handshake_turn = turn;
	ERR_clear_error();
	rc = SSL_do_handshake(stock->ssl);
	if (rc == 1)
		stock->state = STOCK_OPEN;
	else if (SSL_get_error(stock->ssl, rc) == SSL_ERROR_WANT_READ)
		stock_recv(stock, false);
	else if (SSL_get_error(stock->ssl, rc) != SSL_ERROR_WANT_WRITE)
		stock_failed_tls(stock, "handshake");
	stock_send_wire(stock);
	if (rc == 1)
		stream->events->on_tls(stream);
}

static const char *stock_group(SSL *ssl)
{
	int group = (int)SSL_get_negotiated_group(ssl);
	const char *name = group != 0 ? SSL_group_to_name(ssl, group) : NULL;

	return name != NULL ? name : "none";
}

void stock_tls_facts(const struct stream *stream, struct stream_facts *out)
{
	SSL *ssl = stream->as.stock.ssl;

	if (ssl == NULL)
		return;
	out->is_tls = true;
	out->is_resumed = SSL_session_reused(ssl) == 1;
	out->version = SSL_get_version(ssl);
	out->cipher = SSL_get_cipher_name(ssl);
	out->group = stock_group(ssl);
	(void)snprintf(out->record, sizeof(out->record), "user");
}

int stock_tls_init(void)
{
	stock_bio = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "stock");
	if (stock_bio == NULL)
		return -ENOMEM;
	(void)BIO_meth_set_write(stock_bio, stock_bio_write);
	(void)BIO_meth_set_read(stock_bio, stock_bio_read);
	(void)BIO_meth_set_ctrl(stock_bio, stock_bio_ctrl);
	return 0;
}

void stock_tls_net_destroy(struct stream_net *net)
{
	struct stock_buffer *buffer;

	while ((buffer = net->free) != NULL) {
		net->free = buffer->next;
		(void)munmap(buffer, sizeof(*buffer));
	}
	SSL_CTX_free(net->ctx);
	net->ctx = NULL;
}

void stock_tls_encrypt(struct stock *stock)
{
	size_t at = 0;
	size_t taken;

	while (at < stock->out_end) {
		ERR_clear_error();
		if (SSL_write_ex(stock->ssl, stock->out->data + at, stock->out_end - at, &taken) !=
			1) {
			stock_failed_tls(stock, "write");
			return;
		}
		at += taken;
	}
}

void stock_tls_goodbye(struct stock *stock)
{
	if (!SSL_is_init_finished(stock->ssl))
		return;
	ERR_clear_error();
	(void)SSL_shutdown(stock->ssl);
	ERR_clear_error();
	stock_send_wire(stock);
}
