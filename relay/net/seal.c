/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/net/seal.h"

#include "relay/base/limits.h"
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <string.h>

#define HEADER_BYTES 5
#define EXPLICIT_BYTES 8
#define TAG_BYTES 16
#define EXTRA_BYTES_MAX 13

_Static_assert(HEADER_BYTES + EXPLICIT_BYTES + 1 + TAG_BYTES <= SEAL_OVERHEAD_BYTES,
	"what a record adds fits what is kept for it");

/* Fetched once: to look a cipher up by name takes locks and time. */
static EVP_CIPHER *seal_ciphers[KTLS_CIPHER_COUNT];

int seal_init(void)
{
	static const char *const names[] = {
		[KTLS_CIPHER_AES_128_GCM] = "AES-128-GCM",
		[KTLS_CIPHER_AES_256_GCM] = "AES-256-GCM",
		[KTLS_CIPHER_CHACHA20_POLY1305] = "ChaCha20-Poly1305",
	};

	for (unsigned cipher = KTLS_CIPHER_NONE + 1; cipher < KTLS_CIPHER_COUNT; cipher++) {
		if (seal_ciphers[cipher] == NULL)
			seal_ciphers[cipher] = EVP_CIPHER_fetch(NULL, names[cipher], NULL);
		if (seal_ciphers[cipher] == NULL)
			return -ENOMEM;
	}
	return 0;
}

int seal_open(
	struct seal *seal, const struct ktls *ktls, bool is_sender, const struct record_keys *keys)
{
	ASSERT(ktls->cipher > KTLS_CIPHER_NONE && ktls->cipher < KTLS_CIPHER_COUNT);
	if (seal->ctx == NULL)
		seal->ctx = EVP_CIPHER_CTX_new();
	if (seal->ctx == NULL || EVP_CipherInit_ex2(seal->ctx, seal_ciphers[ktls->cipher],
					 keys->key, NULL, is_sender ? 1 : 0, NULL) != 1) {
		seal_close(seal);
		return -ENOMEM;
	}
	seal->cipher = ktls->cipher;
	seal->is_tls13 = ktls->is_tls13;
	seal->is_sender = is_sender;
	seal->has_explicit_nonce = !ktls->is_tls13 && ktls->cipher != KTLS_CIPHER_CHACHA20_POLY1305;
	memcpy(seal->iv, keys->iv, sizeof(seal->iv));
	seal->sequence = keys->sequence;
	return 0;
}

void seal_close(struct seal *seal)
{
	EVP_CIPHER_CTX_free(seal->ctx);
	OPENSSL_cleanse(seal, sizeof(*seal));
}

static void seal_number(uint64_t number, uint8_t out[8])
{
	for (unsigned i = 0; i < 8; i++)
		out[i] = (uint8_t)(number >> (56 - 8 * i));
}

/*
 * The next record's nonce goes in force: the IV with the sequence number in its last eight bytes
 * (RFC 8446 5.3, RFC 7905 2), or the salt with what the record itself says (RFC 5288 3).
 */
static bool seal_set_nonce(struct seal *seal, const uint8_t *explicit_nonce)
{
	uint8_t nonce[RECORD_IV_BYTES];
	uint8_t number[8];

	memcpy(nonce, seal->iv, sizeof(nonce));
	if (seal->has_explicit_nonce) {
		memcpy(nonce + 4, explicit_nonce, EXPLICIT_BYTES);
	} else {
		seal_number(seal->sequence, number);
		for (unsigned i = 0; i < 8; i++)
			nonce[4 + i] ^= number[i];
	}
	return EVP_CipherInit_ex2(seal->ctx, NULL, NULL, nonce, -1, NULL) == 1;
}

/* What is protected beside the text: the header (RFC 8446 5.2), with TLS 1.2 of the text itself. */
static bool seal_set_extra(const struct seal *seal, const uint8_t *header, size_t text_len)
{
	uint8_t extra[EXTRA_BYTES_MAX];
	int len;

	if (seal->is_tls13)
		return EVP_CipherUpdate(seal->ctx, NULL, &len, header, HEADER_BYTES) == 1;
	seal_number(seal->sequence, extra);
	memcpy(extra + 8, header, 3);
	extra[11] = (uint8_t)(text_len >> 8);
	extra[12] = (uint8_t)text_len;
	return EVP_CipherUpdate(seal->ctx, NULL, &len, extra, EXTRA_BYTES_MAX) == 1;
}

static bool seal_tag(const struct seal *seal, uint8_t *tag)
{
	int command = seal->is_sender ? EVP_CTRL_AEAD_GET_TAG : EVP_CTRL_AEAD_SET_TAG;

	return EVP_CIPHER_CTX_ctrl(seal->ctx, command, TAG_BYTES, tag) == 1;
}

size_t seal_text_at(const struct seal *seal)
{
	return HEADER_BYTES + (seal->has_explicit_nonce ? EXPLICIT_BYTES : 0);
}

size_t seal_record_bytes(const struct seal *seal, size_t text_bytes)
{
	return seal_text_at(seal) + text_bytes + (seal->is_tls13 ? 1 : 0) + TAG_BYTES;
}

/* Encrypts the next piece behind what there is of the record's text. */
static bool seal_add(const struct seal *seal, struct span piece, uint8_t *to, size_t *len)
{
	int done;

	if (piece.len == 0)
		return true;
	if (EVP_CipherUpdate(seal->ctx, to + *len, &done, piece.data, (int)piece.len) != 1)
		return false;
	*len += (size_t)done;
	return true;
}

size_t seal_write_both(
	struct seal *seal, uint8_t type, struct span first, struct span second, uint8_t *out)
{
	const size_t text_len = first.len + second.len;
	const size_t bytes = seal_record_bytes(seal, text_len);
	const size_t len = bytes - HEADER_BYTES;
	uint8_t *to = out + seal_text_at(seal);
	size_t inner = 0;
	int more = 0;

	ASSERT(seal->is_sender && text_len <= TLS_RECORD_TEXT_BYTES);
	out[0] = seal->is_tls13 ? SSL3_RT_APPLICATION_DATA : type;
	out[1] = 3;
	out[2] = 3;
	out[3] = (uint8_t)(len >> 8);
	out[4] = (uint8_t)len;
	if (seal->has_explicit_nonce)
		seal_number(seal->sequence, out + HEADER_BYTES);
	if (!seal_set_nonce(seal, out + HEADER_BYTES) || !seal_set_extra(seal, out, text_len))
		return 0;
	if (!seal_add(seal, first, to, &inner) || !seal_add(seal, second, to, &inner) ||
		!seal_add(seal, span_make(&type, seal->is_tls13 ? 1 : 0), to, &inner))
		return 0;
	ASSERT(to + inner + TAG_BYTES == out + bytes);
	if (EVP_CipherFinal_ex(seal->ctx, to + inner, &more) != 1 || !seal_tag(seal, to + inner))
		return 0;
	seal->sequence++;
	return bytes;
}

size_t seal_write(struct seal *seal, uint8_t type, struct span text, uint8_t *out)
{
	return seal_write_both(seal, type, text, (struct span){0}, out);
}

/* The content type is the last byte that is not 0 (RFC 8446 5.4). */
static enum seal_status seal_strip(const uint8_t *inner, size_t len, uint8_t *type, size_t *text)
{
	if (len > TLS_RECORD_TEXT_BYTES + 1)
		return SEAL_LONG;
	while (len > 0 && inner[len - 1] == 0)
		len--;
	if (len == 0)
		return SEAL_ODD;
	*type = inner[len - 1];
	*text = len - 1;
	return SEAL_GOOD;
}

enum seal_status seal_read(
	struct seal *seal, uint8_t *record, size_t len, uint8_t *type, struct span *text)
{
	const size_t before = seal_text_at(seal);
	uint8_t *at = record + before;
	size_t inner;
	int done = 0;
	int more = 0;

	ASSERT(!seal->is_sender);
	*type = record[0];
	if (seal->is_tls13 && *type != SSL3_RT_APPLICATION_DATA)
		return SEAL_ODD;
	if (len < before + TAG_BYTES)
		return SEAL_BAD;
	inner = len - before - TAG_BYTES;
	if (!seal_set_nonce(seal, record + HEADER_BYTES) || !seal_set_extra(seal, record, inner) ||
		!seal_tag(seal, at + inner))
		return SEAL_BAD;
	/* Nothing of what is written here is looked at before the tag was found to be right. */
	if (inner > 0 && EVP_CipherUpdate(seal->ctx, at, &done, at, (int)inner) != 1)
		return SEAL_BAD;
	if ((size_t)done != inner || EVP_CipherFinal_ex(seal->ctx, at + inner, &more) != 1)
		return SEAL_BAD;
	seal->sequence++;
	if (seal->is_tls13) {
		enum seal_status status = seal_strip(at, inner, type, &inner);

		if (status != SEAL_GOOD)
			return status;
	} else if (inner > TLS_RECORD_TEXT_BYTES) {
		return SEAL_LONG;
	}
	*text = span_make(at, inner);
	return SEAL_GOOD;
}
