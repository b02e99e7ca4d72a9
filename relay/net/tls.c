/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/net/tls.h"

#include "relay/base/limits.h"
#include "relay/net/seal.h"
#include "relay/pki/crl.h"
#include "relay/pki/provider.h"
#include "relay/pki/words.h"
#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/ssl.h>
#include <sys/random.h>

/* OpenSSL's ticket keys: a name, an HMAC key and an AES key (SSL_CTX_set_tlsext_ticket_keys). */
#define TICKET_KEY_BYTES 80
#define SESSION_LIFE_S 3600
#define RECORD_TEXT_BYTES_MAX 16384

/* What one record may add to its text: header, nonce, tag, type byte, CBC padding. */
#define RECORD_OVERHEAD_BYTES 96

static uint8_t tls_seed[32];
static BIO_METHOD *tls_bio_method;

/* Counts the records among bytes being written, whatever pieces they come in. */
static void tls_count_records(struct tls *tls, const uint8_t *data, size_t len)
{
	while (len > 0) {
		size_t step = len < tls->tx_skip ? len : tls->tx_skip;

		if (step > 0) {
			tls->tx_skip -= (unsigned)step;
			data += step;
			len -= step;
			continue;
		}
		tls->tx_header[tls->tx_header_len++] = *data++;
		len--;
		if (tls->tx_header_len < sizeof(tls->tx_header))
			continue;
		if (tls->tx_header[0] != SSL3_RT_CHANGE_CIPHER_SPEC)
			tls->tx_records++;
		tls->tx_skip = (unsigned)(tls->tx_header[3] << 8 | tls->tx_header[4]);
		tls->tx_header_len = 0;
	}
}

static int tls_bio_write(BIO *bio, const char *data, int len)
{
	struct tls *tls = BIO_get_data(bio);
	size_t room = tls->sink_bytes - tls->sink_len;
	size_t take = (size_t)len < room ? (size_t)len : room;

	BIO_clear_retry_flags(bio);
	if (take == 0) {
		BIO_set_retry_write(bio);
		return -1;
	}
	memcpy(tls->sink + tls->sink_len, data, take);
	tls->sink_len += take;
	tls_count_records(tls, (const uint8_t *)data, take);
	return (int)take;
}

static int tls_bio_read(BIO *bio, char *data, int len)
{
	struct tls *tls = BIO_get_data(bio);
	struct span take = span_head(tls->feed, (size_t)len);

	BIO_clear_retry_flags(bio);
	if (take.len == 0) {
		BIO_set_retry_read(bio);
		return -1;
	}
	memcpy(data, take.data, take.len);
	tls->feed = span_skip(tls->feed, take.len);
	return (int)take.len;
}

static long tls_bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
	(void)bio;
	(void)number;
	(void)pointer;
	return command == BIO_CTRL_FLUSH ? 1 : 0;
}

int tls_init(void)
{
	if (getrandom(tls_seed, sizeof(tls_seed), 0) != (ssize_t)sizeof(tls_seed))
		return -errno;
	if (OPENSSL_init_ssl(0, NULL) != 1 || seal_init() < 0)
		return -ENOMEM;
	tls_bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "postern");
	if (tls_bio_method == NULL)
		return -ENOMEM;
	(void)BIO_meth_set_write(tls_bio_method, tls_bio_write);
	(void)BIO_meth_set_read(tls_bio_method, tls_bio_read);
	(void)BIO_meth_set_ctrl(tls_bio_method, tls_bio_ctrl);
	return 0;
}

const char *tls_library(void)
{
	return OpenSSL_version(OPENSSL_VERSION);
}

/* The verdict is ours to give, after the handshake: see verify.h. The chain is kept. */
static int tls_on_verify(X509_STORE_CTX *store, void *arg)
{
	(void)arg;
	X509_STORE_CTX_set_error(store, X509_V_OK);
	return 1;
}

/*
 * A ticket tells the leaf that was shown, not what came with it. When that is
 * forgotten the client makes a full handshake and shows all again.
 */
static SSL_TICKET_RETURN tls_on_ticket(SSL *ssl, SSL_SESSION *session, const unsigned char *name,
	size_t name_len, SSL_TICKET_STATUS status, void *arg)
{
	struct tls *tls = SSL_get_app_data(ssl);
	X509 *leaf;

	(void)name;
	(void)name_len;
	(void)arg;
	if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW)
		return SSL_TICKET_RETURN_IGNORE_RENEW;
	leaf = SSL_SESSION_get0_peer(session);
	peer_release(&tls->ticket_peer);
	if (leaf != NULL) {
		tls->ticket_peer = peer_of_leaf(leaf);
		if (tls->ticket_peer == NULL)
			return SSL_TICKET_RETURN_IGNORE_RENEW;
	}
	return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
}

static unsigned tls_hex(const char *text, uint8_t *out, unsigned out_max)
{
	size_t len = 0;

	if (OPENSSL_hexstr2buf_ex(out, out_max, &len, text, '\0') != 1)
		return 0;
	return (unsigned)len;
}

/*
 * One line of the key log: label, client random, secret. Only the two application secrets are
 * kept, in the connection's own memory, while the keys may still be used elsewhere.
 */
static void tls_on_secret(const SSL *ssl, const char *line)
{
	struct tls *tls = SSL_get_app_data(ssl);
	static const char client[] = "CLIENT_TRAFFIC_SECRET_0 ";
	static const char server[] = "SERVER_TRAFFIC_SECRET_0 ";
	const char *secret = strrchr(line, ' ');

	if (secret == NULL || tls == NULL)
		return;
	if (strncmp(line, client, sizeof(client) - 1) == 0)
		tls->secret_len = tls_hex(secret + 1, tls->client_secret, TLS_SECRET_BYTES_MAX);
	else if (strncmp(line, server, sizeof(server) - 1) == 0)
		tls->secret_len = tls_hex(secret + 1, tls->server_secret, TLS_SECRET_BYTES_MAX);
	else
		return;
	tls->wants_secret = false;
	SSL_CTX_set_keylog_callback(SSL_get_SSL_CTX(ssl), NULL);
}

/*
 * OpenSSL prints each of five secrets digit by digit. Wanted are two, behind each side's Finished.
 * The context is this worker's alone: every connection sets it before it goes on.
 */
static void tls_set_secrets(const struct tls *tls)
{
	SSL_CTX_set_keylog_callback(
		SSL_get_SSL_CTX(tls->ssl), tls->wants_secret ? tls_on_secret : NULL);
}

/*
 * A KeyUpdate in userspace makes the logged secrets useless: such a connection
 * stays there. An alert is kept in clear, for when the kernel has the send side.
 */
static void tls_on_message(int written, int version, int content_type, const void *data, size_t len,
	SSL *ssl, void *arg)
{
	struct tls *tls = SSL_get_app_data(ssl);

	(void)version;
	(void)arg;
	if (written && content_type == SSL3_RT_ALERT && len == 2 && tls != NULL) {
		memcpy(tls->alert, data, 2);
		tls->has_alert = true;
	}
	if (content_type != SSL3_RT_HANDSHAKE || len == 0 || tls == NULL)
		return;
	if (*(const uint8_t *)data == SSL3_MT_KEY_UPDATE)
		tls->keys_changed = true;
	tls->wants_secret |= *(const uint8_t *)data == SSL3_MT_FINISHED;
	tls_set_secrets(tls);
	/* An empty list, "I have none", is no longer than its headers. */
	if (written && *(const uint8_t *)data == SSL3_MT_CERTIFICATE && len > 8)
		tls->has_shown = true;
}

static int tls_on_session(SSL *ssl, SSL_SESSION *session)
{
	struct tls *tls = SSL_get_app_data(ssl);

	if (tls == NULL || tls->session_slot == NULL)
		return 0;
	SSL_SESSION_free(*tls->session_slot);
	*tls->session_slot = session;
	return 1;
}

static bool tls_version_number(const char *word, int *out)
{
	if (strcmp(word, "TLSv1.2") == 0)
		*out = TLS1_2_VERSION;
	else if (strcmp(word, "TLSv1.3") == 0)
		*out = TLS1_3_VERSION;
	else
		return false;
	return true;
}

static const char *context_set_certificate(SSL_CTX *ctx, const struct certificate *certificate)
{
	if (SSL_CTX_use_certificate_chain_file(ctx, certificate->chain) != 1)
		return certificate->chain;
	if (!provider_use_key(ctx, certificate->key) || SSL_CTX_check_private_key(ctx) != 1)
		return certificate->key;
	return NULL;
}

/* The names tell a client with several certificates which one to send. */
static const char *context_name_anchors(SSL_CTX *ctx, const char *file)
{
	STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(file);

	if (names == NULL)
		return file;
	SSL_CTX_set_client_CA_list(ctx, names);
	return NULL;
}

static const char *context_set_protocol(SSL_CTX *ctx, const struct tls_settings *settings)
{
	int version = 0;

	if (!tls_version_number(settings->tls_min, &version) ||
		SSL_CTX_set_min_proto_version(ctx, version) != 1)
		return settings->tls_min;
	if (!tls_version_number(settings->tls_max, &version) ||
		SSL_CTX_set_max_proto_version(ctx, version) != 1)
		return settings->tls_max;
	if (SSL_CTX_set_cipher_list(ctx, settings->ciphers) != 1)
		return settings->ciphers;
	if (SSL_CTX_set_ciphersuites(ctx, settings->ciphersuites) != 1)
		return settings->ciphersuites;
	return NULL;
}

/* Key material for one connector: the same in all workers, different for each connector. */
static bool context_derive(
	const struct tls_context *context, uint8_t label, uint8_t out[EVP_MAX_MD_SIZE])
{
	uint8_t input[1 + 2 * sizeof(uint64_t) + NAME_BYTES_MAX];
	size_t len = strnlen(context->name, NAME_BYTES_MAX);
	size_t at = 0;
	unsigned out_len = 0;

	input[at++] = label;
	memcpy(input + at, &context->policy_generation, sizeof(uint64_t));
	at += sizeof(uint64_t);
	memcpy(input + at, &context->crl_generation, sizeof(uint64_t));
	at += sizeof(uint64_t);
	memcpy(input + at, context->name, len);
	return HMAC(EVP_sha512(), tls_seed, sizeof(tls_seed), input, at + len, out, &out_len) !=
	       NULL;
}

/*
 * A ticket or session of one connector must never open another: a client that
 * was judged there would pass here unjudged (the CVE-2025-23419 class). A
 * client's sessions carry the binding too: see tls_open().
 */
static bool context_bind(struct tls_context *context)
{
	uint8_t keys[2 * EVP_MAX_MD_SIZE];
	uint8_t id[EVP_MAX_MD_SIZE];
	bool ok = context_derive(context, 1, keys) &&
		  context_derive(context, 2, keys + EVP_MAX_MD_SIZE) &&
		  context_derive(context, 3, id);

	_Static_assert(TLS_BINDING_BYTES == SSL_MAX_SID_CTX_LENGTH, "one fills the other");
	if (ok && context->is_server)
		ok = SSL_CTX_set_tlsext_ticket_keys(context->ctx, keys, TICKET_KEY_BYTES) == 1;
	ok = ok && SSL_CTX_set_session_id_context(context->ctx, id, TLS_BINDING_BYTES) == 1;
	if (ok)
		memcpy(context->binding, id, TLS_BINDING_BYTES);
	OPENSSL_cleanse(keys, sizeof(keys));
	return ok;
}

void tls_context_refresh(struct tls_context *context, uint64_t policy_generation)
{
	uint64_t lists = crl_generation();

	if (context->policy_generation == policy_generation && context->crl_generation == lists)
		return;
	context->policy_generation = policy_generation;
	context->crl_generation = lists;
	/* Without keys of this generation nobody resumes; the next call tries again. */
	if (context_bind(context)) {
		(void)SSL_CTX_clear_options(context->ctx,
			context->has_tickets || !context->is_server ? SSL_OP_NO_TICKET : 0);
	} else {
		(void)SSL_CTX_set_options(context->ctx, SSL_OP_NO_TICKET);
		context->policy_generation = 0;
	}
}

static const char *context_set_resumption(struct tls_context *context, unsigned tickets)
{
	SSL_CTX *ctx = context->ctx;

	(void)SSL_CTX_set_timeout(ctx, SESSION_LIFE_S);
	if (!context->is_server) {
		(void)SSL_CTX_set_session_cache_mode(
			ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
		SSL_CTX_sess_set_new_cb(ctx, tls_on_session);
	} else {
		(void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
		if (tickets == 0)
			(void)SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
		if (SSL_CTX_set_num_tickets(ctx, tickets) != 1 ||
			SSL_CTX_set_session_ticket_cb(ctx, NULL, tls_on_ticket, NULL) != 1)
			return "session tickets";
	}
	return context_bind(context) ? NULL : "session tickets";
}

static const char *context_configure(
	struct tls_context *context, const struct tls_context_options *options)
{
	const struct tls_settings *settings = options->settings;
	SSL_CTX *ctx = context->ctx;
	const char *bad = context_set_protocol(ctx, settings);

	if (bad == NULL && settings->certificate != NULL)
		bad = context_set_certificate(ctx, settings->certificate);
	if (bad == NULL && SSL_CTX_get0_certificate(ctx) != NULL)
		context->shown = peer_of_chain(SSL_CTX_get0_certificate(ctx), NULL);
	if (bad == NULL && settings->trust_anchors != NULL && options->is_server)
		bad = context_name_anchors(ctx, settings->trust_anchors);
	if (bad == NULL)
		bad = context_set_resumption(context, settings->session_tickets);
	return bad;
}

int tls_context_create(const struct tls_context_options *options, struct tls_context *out,
	char *error, size_t error_bytes)
{
	SSL_CTX *ctx = SSL_CTX_new(options->is_server ? TLS_server_method() : TLS_client_method());
	const char *bad;

	if (ctx == NULL)
		return -ENOMEM;
	ERR_clear_error();
	*out = (struct tls_context){.ctx = ctx,
		.is_server = options->is_server,
		.asks_certificate = !options->is_server ||
				    options->client_certificate != CLIENT_CERTIFICATE_NONE,
		.has_tickets = options->settings->session_tickets > 0,
		.ktls = options->settings->ktls,
		.name = options->name,
		.trust = options->trust};
	(void)SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
					       SSL_OP_CIPHER_SERVER_PREFERENCE |
					       SSL_OP_IGNORE_UNEXPECTED_EOF);
	(void)SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
					    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_verify(ctx, out->asks_certificate ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
	SSL_CTX_set_cert_verify_callback(ctx, tls_on_verify, NULL);
	SSL_CTX_set_msg_callback(ctx, tls_on_message);
	bad = context_configure(out, options);
	if (bad != NULL) {
		(void)snprintf(error, error_bytes, "%s: %s", bad, openssl_why("unknown cause"));
		tls_context_destroy(out);
		return -EINVAL;
	}
	return 0;
}

void tls_context_destroy(struct tls_context *context)
{
	SSL_CTX_free(context->ctx);
	context->ctx = NULL;
	peer_release(&context->shown);
}

/* Server name indication (RFC 6066 3); OpenSSL's macro wants the name writable. */
static bool tls_name_host(SSL *ssl, const char *host)
{
	char name[NAME_BYTES_MAX];

	(void)snprintf(name, sizeof(name), "%s", host);
	return SSL_set_tlsext_host_name(ssl, name) == 1;
}

/* Was it made for this connector, under the present generations? */
static bool tls_session_fits(const SSL_SESSION *session, const struct tls_context *context)
{
	unsigned len = 0;
	const unsigned char *binding = SSL_SESSION_get0_id_context(session, &len);

	return len == TLS_BINDING_BYTES && memcmp(binding, context->binding, len) == 0;
}

int tls_open(
	struct tls *tls, const struct tls_context *context, const char *host, SSL_SESSION **slot)
{
	BIO *bio;

	*tls = (struct tls){.context = context, .session_slot = slot};
	tls->ssl = SSL_new(context->ctx);
	bio = BIO_new(tls_bio_method);
	if (tls->ssl == NULL || bio == NULL) {
		SSL_free(tls->ssl);
		BIO_free(bio);
		tls->ssl = NULL;
		return -ENOMEM;
	}
	BIO_set_data(bio, tls);
	BIO_set_init(bio, 1);
	SSL_set_bio(tls->ssl, bio, bio);
	(void)SSL_set_app_data(tls->ssl, tls);
	if (context->is_server) {
		SSL_set_accept_state(tls->ssl);
		return 0;
	}
	SSL_set_connect_state(tls->ssl);
	if (host != NULL && !tls_name_host(tls->ssl, host)) {
		tls_close(tls);
		return -ENOMEM;
	}
	if (slot != NULL && *slot != NULL && !tls_session_fits(*slot, context))
		tls_session_drop(slot);
	if (slot != NULL && *slot != NULL)
		(void)SSL_set_session(tls->ssl, *slot);
	return 0;
}

void tls_close(struct tls *tls)
{
	if (tls->ssl != NULL) {
		/* Without this OpenSSL takes the session for broken and never resumes it. */
		if (tls->is_done)
			SSL_set_shutdown(tls->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
		SSL_free(tls->ssl);
	}
	peer_release(&tls->ticket_peer);
	OPENSSL_cleanse(tls, sizeof(*tls));
}

void tls_sink(struct tls *tls, uint8_t *at, size_t bytes)
{
	tls->sink = at;
	tls->sink_len = 0;
	tls->sink_bytes = bytes;
}

void tls_feed(struct tls *tls, struct span record)
{
	ASSERT(tls->feed.len == 0);
	tls->feed = record;
	if (tls->is_done)
		tls->rx_records++;
}

/* Puts OpenSSL's answer into our words. */
static enum tls_status tls_outcome(struct tls *tls, int rc)
{
	int why = SSL_get_error(tls->ssl, rc);
	unsigned long error;

	switch (why) {
	case SSL_ERROR_WANT_READ:
		return TLS_MORE;
	case SSL_ERROR_WANT_WRITE:
		return TLS_FULL;
	case SSL_ERROR_ZERO_RETURN:
		return TLS_CLOSED;
	default:
		break;
	}
	error = ERR_peek_error();
	(void)snprintf(tls->error, sizeof(tls->error), "%s",
		error == 0 ? "connection ended" : ERR_reason_error_string(error));
	ERR_clear_error();
	return TLS_FAILED;
}

enum tls_status tls_handshake(struct tls *tls)
{
	int rc;

	ASSERT(!tls->is_done);
	ERR_clear_error();
	/*
	 * The server's last flight in TLS 1.3 holds only session tickets, each a
	 * record under the application key; so the records of the call that ends
	 * the handshake are counted, and those of the calls before are not. A call
	 * that goes on after a full sink is the same flight.
	 */
	if (!tls->is_cut)
		tls->tx_records = 0;
	tls_set_secrets(tls);
	rc = SSL_do_handshake(tls->ssl);
	if (rc != 1) {
		enum tls_status status = tls_outcome(tls, rc);

		tls->is_cut = status == TLS_FULL;
		return status;
	}
	tls->is_done = true;
	if (SSL_version(tls->ssl) != TLS1_3_VERSION) {
		/* TLS 1.2: each side's Finished was record 0 under its key. */
		tls->rx_records = 1;
		tls->tx_records = 1;
	} else if (!tls->context->is_server) {
		tls->tx_records =
			0; /* what was sent is the Finished flight, under the handshake key */
	}
	return TLS_DONE;
}

enum tls_status tls_read(struct tls *tls, uint8_t *out, size_t out_bytes, size_t *out_len)
{
	int rc;

	ERR_clear_error();
	*out_len = 0;
	rc = SSL_read_ex(tls->ssl, out, out_bytes, out_len);
	return rc == 1 ? TLS_DONE : tls_outcome(tls, rc);
}

enum tls_status tls_write(struct tls *tls, struct span text, size_t *taken)
{
	int rc;

	*taken = 0;
	text = span_head(text, RECORD_TEXT_BYTES_MAX);
	if (tls->sink_bytes - tls->sink_len < text.len + RECORD_OVERHEAD_BYTES)
		return TLS_FULL;
	ERR_clear_error();
	rc = SSL_write_ex(tls->ssl, text.data, text.len, taken);
	return rc == 1 ? TLS_DONE : tls_outcome(tls, rc);
}

void tls_write_close(struct tls *tls)
{
	if (tls->is_done && tls->sink_bytes - tls->sink_len >= RECORD_OVERHEAD_BYTES) {
		ERR_clear_error();
		(void)SSL_shutdown(tls->ssl);
		ERR_clear_error();
	}
}

const char *tls_error(const struct tls *tls)
{
	return tls->error;
}

int tls_record_length(struct span in)
{
	int len;

	if (in.len < 5)
		return 0;
	len = 5 + (in.data[3] << 8 | in.data[4]);
	/* An SSLv2 hello, HTTP or SMTP in clear has no such header. */
	if (in.data[0] < SSL3_RT_CHANGE_CIPHER_SPEC || in.data[0] > SSL3_RT_APPLICATION_DATA ||
		in.data[1] != 3 || len > TLS_RECORD_BYTES_MAX)
		return -EPROTO;
	return len;
}

void tls_session_drop(SSL_SESSION **slot)
{
	SSL_SESSION_free(*slot);
	*slot = NULL;
}
