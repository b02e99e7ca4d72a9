/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * tls_fixture.h: a client and a server of relay/net/tls.h that talk through
 * memory, with a certificate made for the occasion.
 */

#include "relay/base/limits.h"
#include "relay/net/tls.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>
/* cmocka needs those above it. */
#include <cmocka.h>

#define WIRE_BYTES 65536

struct tls_peer {
	struct tls_context context;
	struct tls tls;
	uint8_t wire[WIRE_BYTES]; /* what it has sent and the other has not taken */
	size_t wire_len;
	bool is_done;
};

static char tls_folder[] = "/tmp/postern-test-tls-XXXXXX";
static char tls_chain[sizeof(tls_folder) + 16];
static char tls_key[sizeof(tls_folder) + 16];

static inline void tls_fixture_write(EVP_PKEY *key, X509 *certificate)
{
	FILE *out = fopen(tls_chain, "w");

	assert_non_null(out);
	assert_int_equal(PEM_write_X509(out, certificate), 1);
	assert_int_equal(fclose(out), 0);
	out = fopen(tls_key, "w");
	assert_non_null(out);
	assert_int_equal(PEM_write_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL), 1);
	assert_int_equal(fclose(out), 0);
}

static inline int tls_fixture_setup(void **state)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *certificate = X509_new();
	X509_NAME *name;

	(void)state;
	assert_int_equal(tls_init(), 0);
	assert_int_equal(peer_cache_create(16), 0);
	assert_non_null(mkdtemp(tls_folder));
	(void)snprintf(tls_chain, sizeof(tls_chain), "%s/chain.pem", tls_folder);
	(void)snprintf(tls_key, sizeof(tls_key), "%s/key.pem", tls_folder);
	assert_true(key != NULL && certificate != NULL);
	name = X509_get_subject_name(certificate);
	assert_int_equal(X509_set_version(certificate, X509_VERSION_3), 1);
	assert_int_equal(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
				 (const unsigned char *)"unit.test", -1, -1, 0),
		1);
	assert_int_equal(X509_set_issuer_name(certificate, name), 1);
	assert_non_null(X509_gmtime_adj(X509_getm_notBefore(certificate), -3600));
	assert_non_null(X509_gmtime_adj(X509_getm_notAfter(certificate), 3600));
	assert_int_equal(X509_set_pubkey(certificate, key), 1);
	assert_true(X509_sign(certificate, key, EVP_sha256()) > 0);
	tls_fixture_write(key, certificate);
	X509_free(certificate);
	EVP_PKEY_free(key);
	return 0;
}

static inline int tls_fixture_teardown(void **state)
{
	(void)state;
	(void)unlink(tls_chain);
	(void)unlink(tls_key);
	(void)rmdir(tls_folder);
	peer_cache_destroy();
	return 0;
}

/* cipher is an OpenSSL name; version is "TLSv1.2" or "TLSv1.3". */
static inline void peer_open(struct tls_peer *peer, bool is_server, const char *version,
	const char *cipher, unsigned tickets)
{
	bool is_tls13 = strcmp(version, "TLSv1.3") == 0;
	struct certificate certificate = {.name = "unit", .chain = tls_chain, .key = tls_key};
	struct tls_settings settings = {.certificate = &certificate,
		.tls_min = version,
		.tls_max = version,
		.ciphers = is_tls13 ? "DEFAULT" : cipher,
		.ciphersuites = is_tls13 ? cipher : "TLS_AES_128_GCM_SHA256",
		.session_tickets = tickets};
	struct tls_context_options options = {.settings = &settings,
		.is_server = is_server,
		.client_certificate = CLIENT_CERTIFICATE_NONE,
		.name = "unit"};
	char error[256] = "";

	peer->wire_len = 0;
	peer->is_done = false;
	if (tls_context_create(&options, &peer->context, error, sizeof(error)) != 0)
		fail_msg("%s", error);
	assert_int_equal(tls_open(&peer->tls, &peer->context, "unit.test", NULL), 0);
}

static inline void peer_close(struct tls_peer *peer)
{
	tls_close(&peer->tls);
	tls_context_destroy(&peer->context);
}

/* Goes on with the handshake; a sink of room bytes at a time. */
static inline void peer_shake(struct tls_peer *peer, size_t room)
{
	enum tls_status status = TLS_FULL;

	while (status == TLS_FULL) {
		tls_sink(&peer->tls, peer->wire + peer->wire_len, room);
		status = tls_handshake(&peer->tls);
		peer->wire_len += peer->tls.sink_len;
		assert_true(peer->wire_len + room < WIRE_BYTES);
	}
	if (status == TLS_FAILED)
		fail_msg("handshake: %s", tls_error(&peer->tls));
	peer->is_done = status == TLS_DONE;
}

/* Takes the first record off what from has sent; returns its length, 0 if there is none. */
static inline size_t peer_take(struct tls_peer *from, uint8_t *record)
{
	int len = tls_record_length(span_make(from->wire, from->wire_len));

	assert_true(len >= 0 && (size_t)len <= from->wire_len);
	if (len == 0)
		return 0;
	memcpy(record, from->wire, (size_t)len);
	from->wire_len -= (size_t)len;
	memmove(from->wire, from->wire + len, from->wire_len);
	return (size_t)len;
}

/* Gives all that from has sent to to, and lets it go on. After the handshake only tickets come. */
static inline void peer_pump(struct tls_peer *from, struct tls_peer *to, size_t room)
{
	uint8_t record[TLS_RECORD_BYTES_MAX];
	uint8_t text[64];
	size_t len;
	size_t text_len;

	while ((len = peer_take(from, record)) > 0) {
		tls_feed(&to->tls, span_make(record, len));
		if (!to->is_done)
			peer_shake(to, room);
		else
			assert_int_equal(
				tls_read(&to->tls, text, sizeof(text), &text_len), TLS_MORE);
	}
}

/* A whole handshake, tickets included. */
static inline void peers_shake(struct tls_peer *client, struct tls_peer *server, size_t room)
{
	peer_shake(client, room);
	for (unsigned i = 0; i < 8 && (!client->is_done || !server->is_done); i++) {
		peer_pump(client, server, room);
		peer_pump(server, client, room);
	}
	peer_pump(client, server, room);
	peer_pump(server, client, room);
	assert_true(client->is_done && server->is_done);
	assert_int_equal(client->wire_len + server->wire_len, 0);
}
