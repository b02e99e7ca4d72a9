/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * tls_pair.h: a client and a server of tls.c, back to back in memory, for its tests.
 *
 * What one end writes lies in its wire until pair_deliver() feeds it to the other, one record at
 * a time, as conn.c does.
 */

#include "relay/net/tls.h"
#include "relay/pki/provider.h"
#include "relay/pki/trust.h"
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs those above it. */
#include <cmocka.h>

#define WIRE_BYTES 262144
#define PAIR_TRUSTS 8

struct end {
	struct tls tls;
	enum tls_status status; /* of its last call */
	uint8_t wire[WIRE_BYTES];
	size_t wire_len;
	size_t sink_bytes;        /* how much it may write in one call */
	uint8_t text[WIRE_BYTES]; /* what it has decrypted */
	size_t text_len;
};

struct pair {
	struct end client;
	struct end server;
};

/* What a test says of one side; NULL and 0 are the defaults of postern.conf(5). */
struct side {
	const char *name;    /* connector; "one" */
	const char *leaf;    /* NAME of NAME.pem and NAME.key; server "adatum", client none */
	const char *anchors; /* NAME of NAME.pem; none */
	const char *tls_min;
	const char *tls_max;
	const char *ciphers;
	const char *ciphersuites;
	unsigned tickets;
	enum client_certificate client_certificate;
};

static char pki_folder[256];

/* What each of the CAs that a test has named stands for. */
static struct {
	char path[320];
	struct trust *trust;
} pair_trusts[PAIR_TRUSTS];

/* Makes the certificates, if they are not there. */
static inline int pair_setup(void **state)
{
	const char *folder = getenv("PKI");
	char command[512];

	(void)state;
	(void)snprintf(pki_folder, sizeof(pki_folder), "%s", folder == NULL ? "build/pki" : folder);
	(void)snprintf(command, sizeof(command), "tests/pki.sh '%s'", pki_folder);
	/* As in the relay. */
	provider_init();
	return system(command) != 0 || tls_init() < 0 || peer_cache_create(64) < 0 ? -1 : 0;
}

static inline int pair_teardown(void **state)
{
	(void)state;
	for (unsigned i = 0; i < PAIR_TRUSTS; i++)
		trust_destroy(&pair_trusts[i].trust);
	peer_cache_destroy();
	return 0;
}

/* The trust in the CAs of a file, made once. NULL: it cannot be made. */
static inline const struct trust *pair_trust(const char *path)
{
	const struct trust_options options = {.anchors = path, .depth = -1};
	char error[512];
	unsigned i = 0;

	while (i < PAIR_TRUSTS && pair_trusts[i].trust != NULL) {
		if (strcmp(pair_trusts[i].path, path) == 0)
			return pair_trusts[i].trust;
		i++;
	}
	if (i == PAIR_TRUSTS)
		return NULL;
	(void)snprintf(pair_trusts[i].path, sizeof(pair_trusts[i].path), "%s", path);
	if (trust_create(&options, &pair_trusts[i].trust, error, sizeof(error)) < 0)
		return NULL;
	return pair_trusts[i].trust;
}

static inline int side_create_context(
	const struct side *side, bool is_server, struct tls_context *out, char error[512])
{
	const char *leaf = side->leaf != NULL ? side->leaf : is_server ? "adatum" : NULL;
	char chain[320];
	char key[320];
	char anchors[320];
	const struct certificate certificate = {.name = leaf, .chain = chain, .key = key};
	const struct tls_settings settings = {.certificate = leaf == NULL ? NULL : &certificate,
		.trust_anchors = side->anchors == NULL ? NULL : anchors,
		.tls_min = side->tls_min == NULL ? "TLSv1.2" : side->tls_min,
		.tls_max = side->tls_max == NULL ? "TLSv1.3" : side->tls_max,
		.ciphers = side->ciphers == NULL ? "ECDHE+AESGCM:ECDHE+CHACHA20" : side->ciphers,
		.ciphersuites = side->ciphersuites == NULL
					? "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:"
					  "TLS_CHACHA20_POLY1305_SHA256"
					: side->ciphersuites,
		.session_tickets = side->tickets};
	struct tls_context_options options = {.settings = &settings,
		.is_server = is_server,
		.client_certificate = side->client_certificate,
		.name = side->name == NULL ? "one" : side->name};

	(void)snprintf(chain, sizeof(chain), "%s/%s.pem", pki_folder, leaf == NULL ? "" : leaf);
	(void)snprintf(key, sizeof(key), "%s/%s.key", pki_folder, leaf == NULL ? "" : leaf);
	(void)snprintf(anchors, sizeof(anchors), "%s/%s.pem", pki_folder,
		side->anchors == NULL ? "" : side->anchors);
	if (side->anchors != NULL)
		options.trust = pair_trust(anchors);
	return tls_context_create(&options, out, error, 512);
}

static inline struct tls_context side_context(const struct side *side, bool is_server)
{
	struct tls_context context;
	char error[512] = "";
	int rc = side_create_context(side, is_server, &context, error);

	if (rc < 0)
		print_error("%s\n", error);
	assert_int_equal(rc, 0);
	return context;
}

static inline void end_init(struct end *end)
{
	end->status = TLS_MORE;
	end->wire_len = 0;
	end->text_len = 0;
	end->sink_bytes = WIRE_BYTES;
}

/* slot may be NULL. */
static inline void pair_open(struct pair *pair, const struct tls_context *client,
	const struct tls_context *server, struct ssl_session_st **slot)
{
	end_init(&pair->client);
	end_init(&pair->server);
	assert_int_equal(tls_open(&pair->client.tls, client, "adatum.test", slot), 0);
	assert_int_equal(tls_open(&pair->server.tls, server, NULL, NULL), 0);
}

static inline void pair_close(struct pair *pair)
{
	tls_close(&pair->client.tls);
	tls_close(&pair->server.tls);
}

/* What the handshake of an end has shown; the texts are good for some more calls. */
static inline struct tls_facts end_facts_at(struct end *end, const char *name, time_t now)
{
	static char texts[16][PEER_SUBJECT_BYTES];
	static unsigned next;
	char *subject = texts[next++ % 16];
	char *spki = texts[next++ % 16];
	struct tls_facts facts;
	struct peer *peer = tls_facts_read(&end->tls, name, now, &facts);

	(void)snprintf(subject, PEER_SUBJECT_BYTES, "%s", facts.subject);
	(void)snprintf(spki, PEER_SUBJECT_BYTES, "%s", facts.spki_sha256);
	facts.subject = subject;
	facts.spki_sha256 = spki;
	peer_release(&peer);
	return facts;
}

static inline struct tls_facts end_facts(struct end *end, const char *name)
{
	return end_facts_at(end, name, time(NULL));
}

static inline void end_sink_open(struct end *end)
{
	size_t room = WIRE_BYTES - end->wire_len;

	tls_sink(&end->tls, end->wire + end->wire_len,
		room < end->sink_bytes ? room : end->sink_bytes);
}

static inline void end_sink_close(struct end *end)
{
	end->wire_len += end->tls.sink_len;
	tls_sink(&end->tls, NULL, 0);
}

/* One step of the handshake; a full sink is emptied and the step made again. */
static inline void end_handshake(struct end *end)
{
	unsigned calls = 0;

	do {
		end_sink_open(end);
		end->status = tls_handshake(&end->tls);
		end_sink_close(end);
		assert_true(++calls < 100000);
	} while (end->status == TLS_FULL);
	/* A record goes in whole and is taken whole: none may be held back. */
	if (end->status == TLS_MORE || end->status == TLS_DONE)
		assert_int_equal(end->tls.feed.len, 0);
}

static inline void end_read(struct end *end)
{
	size_t len = 0;

	end_sink_open(end);
	do {
		end->status = tls_read(
			&end->tls, end->text + end->text_len, WIRE_BYTES - end->text_len, &len);
		end->text_len += len;
	} while (end->status == TLS_DONE && len > 0);
	end_sink_close(end);
}

static inline void end_feed(struct end *end, struct span record)
{
	tls_feed(&end->tls, record);
	if (end->tls.is_done)
		end_read(end);
	else
		end_handshake(end);
}

/* Feeds all whole records that lie on the wire; returns how many. */
static inline unsigned pair_deliver(struct end *from, struct end *to)
{
	unsigned count = 0;
	size_t at = 0;

	while (at < from->wire_len && to->status != TLS_FAILED) {
		struct span rest = span_make(from->wire + at, from->wire_len - at);
		int length = tls_record_length(rest);

		assert_true(length > 0 && (size_t)length <= rest.len);
		end_feed(to, span_head(rest, (size_t)length));
		at += (size_t)length;
		count++;
	}
	from->wire_len = 0;
	return count;
}

/* Runs the handshake to its end, tickets included. False if one side failed. */
static inline bool pair_handshake(struct pair *pair)
{
	end_handshake(&pair->client);
	for (unsigned turn = 0; turn < 16; turn++) {
		unsigned moved = pair_deliver(&pair->client, &pair->server);

		moved += pair_deliver(&pair->server, &pair->client);
		if (moved == 0)
			break;
	}
	return pair->client.tls.is_done && pair->server.tls.is_done &&
	       pair->client.status != TLS_FAILED && pair->server.status != TLS_FAILED;
}

/* Writes text as records; returns how many. */
static inline unsigned end_write(struct end *end, struct span text)
{
	unsigned count = 0;
	size_t taken;

	while (text.len > 0) {
		end_sink_open(end);
		assert_int_equal(tls_write(&end->tls, text, &taken), TLS_DONE);
		end_sink_close(end);
		assert_true(taken > 0);
		text = span_skip(text, taken);
		count++;
	}
	return count;
}
