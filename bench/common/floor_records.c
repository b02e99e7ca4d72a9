/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/common/floor.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_BYTES 5
#define TAG_BYTES 16
#define KEY_BYTES 32
#define RECORD_TYPE 23 /* application data */

void floor_must(bool good, const char *what)
{
	if (good)
		return;
	(void)fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
	exit(1);
}

uint64_t floor_clock_ns(clockid_t which)
{
	struct timespec now;

	(void)clock_gettime(which, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint32_t record_text(uint32_t piece, uint32_t at)
{
	return piece - at < TLS_RECORD_TEXT_BYTES ? piece - at : TLS_RECORD_TEXT_BYTES;
}

/* What a record of TLS 1.3 adds: header, content type, tag. */
static uint32_t record_bytes(uint32_t text)
{
	return HEADER_BYTES + text + 1 + TAG_BYTES;
}

struct floor_round floor_round_of(uint64_t message_bytes)
{
	struct floor_round round = {.piece = FLOOR_ROUND_BYTES};

	if (message_bytes < FLOOR_ROUND_BYTES)
		round.piece = (uint32_t)message_bytes;
	round.pieces = FLOOR_ROUND_BYTES / round.piece;
	for (uint32_t at = 0; at < round.piece; at += record_text(round.piece, at))
		round.wire += record_bytes(record_text(round.piece, at));
	return round;
}

void floor_seal_begin(struct seal *seal, bool is_sender)
{
	static const struct ktls ktls = {.cipher = KTLS_CIPHER_AES_256_GCM, .is_tls13 = true};
	const struct record_keys keys = {.key = {1, 2, 3}, .iv = {4, 5, 6}};

	floor_must(seal_open(seal, &ktls, is_sender, &keys) == 0, "seal_open");
}

void floor_seal_piece(struct seal *seal, uint32_t piece, const uint8_t *text, uint8_t *out)
{
	for (uint32_t at = 0; at < piece;) {
		const uint32_t len = record_text(piece, at);
		const size_t made = seal_write(seal, RECORD_TYPE, span_make(text + at, len), out);

		floor_must(made == record_bytes(len), "seal");
		at += len;
		out += made;
	}
}

void floor_open_piece(
	struct seal *seal, uint32_t piece, uint8_t *in, struct seal *next, uint8_t *out)
{
	for (uint32_t at = 0; at < piece;) {
		const uint32_t len = record_text(piece, at);
		struct span text = {0};
		uint8_t type = 0;

		floor_must(seal_read(seal, in, record_bytes(len), &type, &text) == SEAL_GOOD &&
				   text.len == len,
			"open");
		if (next != NULL) {
			const size_t made = seal_write(next, type, text, out);

			floor_must(made == record_bytes(len), "seal");
			out += made;
		}
		at += len;
		in += record_bytes(len);
	}
}

struct evp_cipher_ctx_st *floor_evp_begin(bool is_sender)
{
	static const uint8_t key[KEY_BYTES] = {1, 2, 3};
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();

	floor_must(cipher != NULL && ctx != NULL &&
			   EVP_CipherInit_ex2(ctx, cipher, key, NULL, is_sender ? 1 : 0, NULL) == 1,
		"EVP");
	EVP_CIPHER_free(cipher);
	return ctx;
}

/* A nonce, the header, the text, the tag. */
static void evp_record(
	EVP_CIPHER_CTX *ctx, bool is_sender, uint64_t sequence, struct span text, uint8_t *record)
{
	uint8_t *to = record + HEADER_BYTES;
	uint8_t *tag = to + text.len;
	uint8_t nonce[RECORD_IV_BYTES] = {0};
	int done;
	bool good;

	memcpy(nonce, &sequence, sizeof(sequence));
	good = EVP_CipherInit_ex2(ctx, NULL, NULL, nonce, -1, NULL) == 1 &&
	       EVP_CipherUpdate(ctx, NULL, &done, record, HEADER_BYTES) == 1;
	if (!is_sender)
		good = good && EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES, tag) == 1;
	good = good && EVP_CipherUpdate(ctx, to, &done, text.data, (int)text.len) == 1 &&
	       EVP_CipherFinal_ex(ctx, tag, &done) == 1;
	if (is_sender)
		good = good && EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, tag) == 1;
	floor_must(good, "EVP");
}

uint64_t floor_evp_piece(struct evp_cipher_ctx_st *ctx, bool is_sender, uint64_t sequence,
	uint32_t piece, const uint8_t *text, uint8_t *wire)
{
	for (uint32_t at = 0; at < piece; sequence++) {
		const uint32_t len = record_text(piece, at);
		const uint8_t *from = is_sender ? text + at : wire + HEADER_BYTES;

		evp_record(ctx, is_sender, sequence, span_make(from, len), wire);
		at += len;
		wire += record_bytes(len);
	}
	return sequence;
}
