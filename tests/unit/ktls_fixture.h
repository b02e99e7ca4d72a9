/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * ktls_fixture.h: a kernel of our own behind ktls.c's seam. It takes the keys,
 * or refuses as a test wants, and protects records with them as RFC 8446 5.2, RFC 5288
 * and RFC 7905 say.
 */

#include "relay/net/ktls.h"
#include "tests/unit/tls_fixture.h"

#include <errno.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#ifndef SOL_TLS
#define SOL_TLS 282
#endif
#ifndef TCP_ULP
#define TCP_ULP 31
#endif

#define FAKE_FD 12345
#define TAG_BYTES 16
#define RECORD_HANDSHAKE 22
#define RECORD_DATA 23

/* The keys of one direction as the kernel got them. */
struct fake_keys {
	unsigned times_set;
	uint16_t version, cipher;
	uint8_t key[32];
	uint8_t iv[12];
	uint64_t sequence;
};

static struct {
	int ulp_error, error[KTLS_DIRECTION_COUNT]; /* what the calls shall fail with */
	unsigned calls, ulp_calls, option_calls;
	struct fake_keys keys[KTLS_DIRECTION_COUNT];
	int send_error;
	uint8_t sent_type, sent[32];
	size_t sent_len;
	int sent_flags;
} fake;

static inline uint64_t big_endian(const uint8_t in[8])
{
	uint64_t out = 0;

	for (unsigned i = 0; i < 8; i++)
		out = out << 8 | in[i];
	return out;
}

static inline void fake_take_keys(struct fake_keys *out, const void *value, socklen_t bytes)
{
	struct tls_crypto_info info;
	struct tls12_crypto_info_aes_gcm_128 aes_128;
	struct tls12_crypto_info_aes_gcm_256 aes_256;
	struct tls12_crypto_info_chacha20_poly1305 chacha;

	memcpy(&info, value, sizeof(info));
	out->times_set++;
	out->version = info.version;
	out->cipher = info.cipher_type;
	if (info.cipher_type == TLS_CIPHER_AES_GCM_128) {
		assert_int_equal(bytes, sizeof(aes_128));
		memcpy(&aes_128, value, sizeof(aes_128));
		memcpy(out->key, aes_128.key, 16);
		memcpy(out->iv, aes_128.salt, 4);
		memcpy(out->iv + 4, aes_128.iv, 8);
		out->sequence = big_endian(aes_128.rec_seq);
	} else if (info.cipher_type == TLS_CIPHER_AES_GCM_256) {
		assert_int_equal(bytes, sizeof(aes_256));
		memcpy(&aes_256, value, sizeof(aes_256));
		memcpy(out->key, aes_256.key, 32);
		memcpy(out->iv, aes_256.salt, 4);
		memcpy(out->iv + 4, aes_256.iv, 8);
		out->sequence = big_endian(aes_256.rec_seq);
	} else {
		assert_int_equal(info.cipher_type, TLS_CIPHER_CHACHA20_POLY1305);
		assert_int_equal(bytes, sizeof(chacha));
		memcpy(&chacha, value, sizeof(chacha));
		memcpy(out->key, chacha.key, 32);
		memcpy(out->iv, chacha.iv, 12);
		out->sequence = big_endian(chacha.rec_seq);
	}
}

static inline int fake_setsockopt(int fd, int level, int name, const void *value, socklen_t bytes)
{
	enum ktls_direction way = name == TLS_RX ? KTLS_DIRECTION_RX : KTLS_DIRECTION_TX;

	assert_int_equal(fd, FAKE_FD);
	fake.calls++;
	if (level == IPPROTO_TCP) {
		assert_int_equal(name, TCP_ULP);
		assert_string_equal(value, "tls");
		fake.ulp_calls++;
		errno = fake.ulp_error;
		return fake.ulp_error == 0 ? 0 : -1;
	}
	assert_int_equal(level, SOL_TLS);
	assert_true(fake.ulp_calls > 0);
	if (name != TLS_RX && name != TLS_TX) {
		fake.option_calls++;
		errno = ENOPROTOOPT;
		return -1;
	}
	if (fake.error[way] != 0) {
		errno = fake.error[way];
		return -1;
	}
	fake_take_keys(&fake.keys[way], value, bytes);
	return 0;
}

static inline ssize_t fake_sendmsg(int fd, const struct msghdr *message, int flags)
{
	struct cmsghdr *header = CMSG_FIRSTHDR(message);

	assert_int_equal(fd, FAKE_FD);
	if (fake.send_error != 0) {
		errno = fake.send_error;
		return -1;
	}
	assert_non_null(header);
	assert_int_equal(header->cmsg_level, SOL_TLS);
	assert_int_equal(header->cmsg_type, TLS_SET_RECORD_TYPE);
	assert_int_equal(header->cmsg_len, CMSG_LEN(1));
	assert_int_equal(message->msg_iovlen, 1);
	fake.sent_type = *CMSG_DATA(header);
	fake.sent_len = message->msg_iov[0].iov_len;
	assert_true(fake.sent_len <= sizeof(fake.sent));
	memcpy(fake.sent, message->msg_iov[0].iov_base, fake.sent_len);
	fake.sent_flags = flags;
	return (ssize_t)fake.sent_len;
}

static inline const struct ktls_support *support_all(void)
{
	static struct ktls_support support = {.rekeys = true};

	for (unsigned cipher = 1; cipher < KTLS_CIPHER_COUNT; cipher++)
		for (unsigned way = 0; way < KTLS_DIRECTION_COUNT; way++)
			support.works[0][cipher][way] = support.works[1][cipher][way] = true;
	return &support;
}

static inline const EVP_CIPHER *fake_cipher(const struct fake_keys *keys)
{
	if (keys->cipher == TLS_CIPHER_AES_GCM_128)
		return EVP_aes_128_gcm();
	if (keys->cipher == TLS_CIPHER_AES_GCM_256)
		return EVP_aes_256_gcm();
	return EVP_chacha20_poly1305();
}

/* The bytes between a record's header and its ciphertext: TLS 1.2 AES-GCM sends part of the nonce.
 */
static inline size_t fake_explicit(const struct fake_keys *keys)
{
	return keys->version == TLS_1_2_VERSION && keys->cipher != TLS_CIPHER_CHACHA20_POLY1305 ? 8
												: 0;
}

/* AEAD over one record. record holds header and explicit nonce; text_len without the tag. */
static inline bool fake_aead(
	const struct fake_keys *keys, bool is_seal, uint8_t type, uint8_t *record, size_t text_len)
{
	uint8_t nonce[12];
	uint8_t extra[13];
	uint8_t *text = record + 5 + fake_explicit(keys);
	bool is_tls13 = keys->version == TLS_1_3_VERSION;
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int n = 0;
	bool good;

	memcpy(nonce, keys->iv, sizeof(nonce));
	for (unsigned i = 0; i < 8; i++) {
		extra[i] = (uint8_t)(keys->sequence >> (56 - 8 * i));
		nonce[4 + i] ^= extra[i];
	}
	if (fake_explicit(keys) > 0)
		memcpy(nonce + 4, record + 5, 8);
	extra[8] = type;
	memcpy(extra + 9, record + 1, 2);
	extra[11] = (uint8_t)(text_len >> 8);
	extra[12] = (uint8_t)text_len;
	good = EVP_CipherInit_ex(ctx, fake_cipher(keys), NULL, keys->key, nonce, is_seal) == 1 &&
	       EVP_CipherUpdate(ctx, NULL, &n, is_tls13 ? record : extra, is_tls13 ? 5 : 13) == 1;
	if (good && !is_seal)
		good = EVP_CIPHER_CTX_ctrl(
			       ctx, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES, text + text_len) == 1;
	good = good && EVP_CipherUpdate(ctx, text, &n, text, (int)text_len) == 1 &&
	       EVP_CipherFinal_ex(ctx, text + n, &n) == 1;
	if (good && is_seal)
		good = EVP_CIPHER_CTX_ctrl(
			       ctx, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, text + text_len) == 1;
	EVP_CIPHER_CTX_free(ctx);
	return good;
}

/* What the kernel does with a received record: its text into place; the length, or -EBADMSG. */
static inline int fake_open(
	struct fake_keys *keys, uint8_t *record, size_t record_len, uint8_t *type)
{
	size_t text_len = record_len - 5 - fake_explicit(keys) - TAG_BYTES;
	uint8_t *text = record + 5 + fake_explicit(keys);

	*type = record[0];
	if (!fake_aead(keys, false, record[0], record, text_len))
		return -EBADMSG;
	keys->sequence++;
	if (keys->version == TLS_1_3_VERSION)
		*type = text[--text_len];
	memmove(record, text, text_len);
	return (int)text_len;
}

/* What the kernel does with text to be sent; the record's length. */
static inline size_t fake_seal(
	struct fake_keys *keys, uint8_t type, struct span in, uint8_t *record)
{
	size_t text_len = in.len;
	size_t before = 5 + fake_explicit(keys);
	size_t len;

	memcpy(record + before, in.data, in.len);
	if (keys->version == TLS_1_3_VERSION)
		record[before + text_len++] = type;
	len = before - 5 + text_len + TAG_BYTES;
	record[0] = keys->version == TLS_1_3_VERSION ? RECORD_DATA : type;
	record[1] = 3;
	record[2] = 3;
	record[3] = (uint8_t)(len >> 8);
	record[4] = (uint8_t)len;
	/* Linux counts the explicit nonce up from the iv that it was given. */
	if (fake_explicit(keys) > 0)
		memcpy(record + 5, keys->iv + 4, 8);
	assert_true(fake_aead(keys, true, type, record, text_len));
	keys->sequence++;
	for (unsigned i = 12; fake_explicit(keys) > 0 && i > 4 && ++keys->iv[i - 1] == 0;)
		i--;
	return 5 + len;
}
