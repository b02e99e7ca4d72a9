/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/net/ktls.h"

#include <errno.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/ssl.h>
#include <string.h>
#include <unistd.h>

#ifndef TCP_ULP
#define TCP_ULP 31
#endif
#ifndef SOL_TLS
#define SOL_TLS 282
#endif
#ifndef TLS_RX_EXPECT_NO_PAD
#define TLS_RX_EXPECT_NO_PAD 4
#endif

#define RECORD_APPLICATION_DATA 23

_Static_assert(RECORD_KEY_BYTES_MAX + RECORD_IV_BYTES <= TLS_SECRET_BYTES_MAX,
	"a key and its IV fit where a secret lies");

struct ktls_kernel ktls_kernel = {.setsockopt = setsockopt, .sendmsg = sendmsg};

static unsigned cipher_key_bytes(enum ktls_cipher cipher)
{
	return cipher == KTLS_CIPHER_AES_128_GCM ? 16 : 32;
}

static enum ktls_cipher cipher_of(const SSL *ssl)
{
	switch (SSL_CIPHER_get_cipher_nid(SSL_get_current_cipher(ssl))) {
	case NID_aes_128_gcm:
		return KTLS_CIPHER_AES_128_GCM;
	case NID_aes_256_gcm:
		return KTLS_CIPHER_AES_256_GCM;
	case NID_chacha20_poly1305:
		return KTLS_CIPHER_CHACHA20_POLY1305;
	default:
		return KTLS_CIPHER_NONE;
	}
}

static void sequence_bytes(uint64_t sequence, uint8_t out[8])
{
	for (unsigned i = 0; i < 8; i++)
		out[i] = (uint8_t)(sequence >> (56 - 8 * i));
}

union crypto_info {
	struct tls_crypto_info info;
	struct tls12_crypto_info_aes_gcm_128 aes_128;
	struct tls12_crypto_info_aes_gcm_256 aes_256;
	struct tls12_crypto_info_chacha20_poly1305 chacha;
};

/* The kernel's form of the keys; returns its length. */
static socklen_t crypto_info_make(bool is_tls13, enum ktls_cipher cipher,
	const struct record_keys *keys, union crypto_info *out)
{
	uint8_t sequence[8];

	memset(out, 0, sizeof(*out));
	sequence_bytes(keys->sequence, sequence);
	out->info.version = is_tls13 ? TLS_1_3_VERSION : TLS_1_2_VERSION;
	switch (cipher) {
	case KTLS_CIPHER_AES_128_GCM:
		out->info.cipher_type = TLS_CIPHER_AES_GCM_128;
		memcpy(out->aes_128.key, keys->key, sizeof(out->aes_128.key));
		memcpy(out->aes_128.salt, keys->iv, sizeof(out->aes_128.salt));
		memcpy(out->aes_128.iv, keys->iv + 4, sizeof(out->aes_128.iv));
		memcpy(out->aes_128.rec_seq, sequence, sizeof(sequence));
		return sizeof(out->aes_128);
	case KTLS_CIPHER_AES_256_GCM:
		out->info.cipher_type = TLS_CIPHER_AES_GCM_256;
		memcpy(out->aes_256.key, keys->key, sizeof(out->aes_256.key));
		memcpy(out->aes_256.salt, keys->iv, sizeof(out->aes_256.salt));
		memcpy(out->aes_256.iv, keys->iv + 4, sizeof(out->aes_256.iv));
		memcpy(out->aes_256.rec_seq, sequence, sizeof(sequence));
		return sizeof(out->aes_256);
	case KTLS_CIPHER_CHACHA20_POLY1305:
		out->info.cipher_type = TLS_CIPHER_CHACHA20_POLY1305;
		memcpy(out->chacha.key, keys->key, sizeof(out->chacha.key));
		memcpy(out->chacha.iv, keys->iv, sizeof(out->chacha.iv));
		memcpy(out->chacha.rec_seq, sequence, sizeof(sequence));
		return sizeof(out->chacha);
	case KTLS_CIPHER_NONE:
	case KTLS_CIPHER_COUNT:
		break;
	}
	return 0;
}

static bool kdf_run(const char *name, OSSL_PARAM *params, uint8_t *out, size_t out_bytes)
{
	EVP_KDF *kdf = EVP_KDF_fetch(NULL, name, NULL);
	EVP_KDF_CTX *ctx = kdf == NULL ? NULL : EVP_KDF_CTX_new(kdf);
	bool done = ctx != NULL && EVP_KDF_derive(ctx, out, out_bytes, params) == 1;

	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
	return done;
}

/* HKDF-Expand-Label with an empty context (RFC 8446 7.1). */
static bool expand_label(const uint8_t *secret, unsigned secret_len, const char *label,
	uint8_t *out, size_t out_bytes)
{
	uint8_t info[64];
	size_t label_len = strlen(label);
	size_t at = 0;
	int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
	const char *digest = secret_len == 48 ? "SHA384" : "SHA256";
	uint8_t key[TLS_SECRET_BYTES_MAX];
	char digest_name[8];
	OSSL_PARAM params[5];
	bool done;

	info[at++] = (uint8_t)(out_bytes >> 8);
	info[at++] = (uint8_t)out_bytes;
	info[at++] = (uint8_t)(6 + label_len);
	memcpy(info + at, "tls13 ", 6);
	memcpy(info + at + 6, label, label_len);
	at += 6 + label_len;
	info[at++] = 0;
	memcpy(key, secret, secret_len);
	(void)snprintf(digest_name, sizeof(digest_name), "%s", digest);
	params[0] = OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode);
	params[1] = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest_name, 0);
	params[2] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, key, secret_len);
	params[3] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info, at);
	params[4] = OSSL_PARAM_construct_end();
	done = kdf_run("HKDF", params, out, out_bytes);
	OPENSSL_cleanse(key, sizeof(key));
	return done;
}

/* RFC 8446 7.3. */
static bool keys_from_secret(
	const struct ktls *ktls, enum ktls_direction direction, struct record_keys *out)
{
	const uint8_t *secret = ktls->secret[direction];

	return expand_label(
		       secret, ktls->secret_len, "key", out->key, cipher_key_bytes(ktls->cipher)) &&
	       expand_label(secret, ktls->secret_len, "iv", out->iv, RECORD_IV_BYTES);
}

static unsigned cipher_iv_bytes(const struct ktls *ktls)
{
	return ktls->is_tls13 || ktls->cipher == KTLS_CIPHER_CHACHA20_POLY1305 ? RECORD_IV_BYTES
									       : 4;
}

/*
 * TLS 1.2's key block (RFC 5246 6.3): client key, server key, client IV, server
 * IV; an AEAD has no MAC keys. There are no others later, so they are kept instead of secrets.
 */
static bool secrets_from_master(struct ktls *ktls, const struct tls *tls)
{
	size_t key_bytes = cipher_key_bytes(ktls->cipher);
	size_t iv_bytes = cipher_iv_bytes(ktls);
	uint8_t master[SSL_MAX_MASTER_KEY_LENGTH];
	uint8_t seed[13 + 2 * SSL3_RANDOM_SIZE] = "key expansion";
	uint8_t block[2 * (RECORD_KEY_BYTES_MAX + RECORD_IV_BYTES)];
	const EVP_MD *md = SSL_CIPHER_get_handshake_digest(SSL_get_current_cipher(tls->ssl));
	char digest[16];
	OSSL_PARAM params[4];
	size_t master_len;
	bool done;

	if (md == NULL)
		return false;
	(void)snprintf(digest, sizeof(digest), "%s", EVP_MD_get0_name(md));
	master_len = SSL_SESSION_get_master_key(SSL_get0_session(tls->ssl), master, sizeof(master));
	(void)SSL_get_server_random(tls->ssl, seed + 13, SSL3_RANDOM_SIZE);
	(void)SSL_get_client_random(tls->ssl, seed + 13 + SSL3_RANDOM_SIZE, SSL3_RANDOM_SIZE);
	params[0] = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0);
	params[1] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SECRET, master, master_len);
	params[2] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SEED, seed, sizeof(seed));
	params[3] = OSSL_PARAM_construct_end();
	done = kdf_run("TLS1-PRF", params, block, 2 * (key_bytes + iv_bytes));
	for (unsigned way = 0; done && way < KTLS_DIRECTION_COUNT; way++) {
		const size_t which = (way == KTLS_DIRECTION_TX) == ktls->is_server ? 1 : 0;

		memcpy(ktls->secret[way], block + which * key_bytes, key_bytes);
		memcpy(ktls->secret[way] + key_bytes, block + 2 * key_bytes + which * iv_bytes,
			iv_bytes);
	}
	OPENSSL_cleanse(master, sizeof(master));
	OPENSSL_cleanse(block, sizeof(block));
	return done;
}

bool ktls_keys(const struct ktls *ktls, enum ktls_direction direction, uint64_t sequence,
	struct record_keys *out)
{
	const size_t key_bytes = cipher_key_bytes(ktls->cipher);
	const size_t iv_bytes = cipher_iv_bytes(ktls);

	out->sequence = sequence;
	if (ktls->is_tls13)
		return keys_from_secret(ktls, direction, out);
	memcpy(out->key, ktls->secret[direction], key_bytes);
	memcpy(out->iv, ktls->secret[direction] + key_bytes, iv_bytes);
	if (iv_bytes == 4) /* the explicit nonce is ours to choose: the sequence number */
		sequence_bytes(sequence, out->iv + 4);
	return true;
}

bool ktls_next_keys(struct ktls *ktls, enum ktls_direction direction, struct record_keys *out)
{
	uint8_t next[TLS_SECRET_BYTES_MAX];
	bool done = expand_label(
		ktls->secret[direction], ktls->secret_len, "traffic upd", next, ktls->secret_len);

	if (done)
		memcpy(ktls->secret[direction], next, ktls->secret_len);
	OPENSSL_cleanse(next, sizeof(next));
	out->sequence = 0;
	return done && keys_from_secret(ktls, direction, out);
}

static int direction_option(enum ktls_direction direction)
{
	return direction == KTLS_DIRECTION_RX ? TLS_RX : TLS_TX;
}

static int kernel_set(int fd, int level, int name, const void *value, socklen_t bytes)
{
	return ktls_kernel.setsockopt(fd, level, name, value, bytes) == 0 ? 0 : -errno;
}

static int keys_set(
	struct ktls *ktls, enum ktls_direction direction, const struct record_keys *keys)
{
	union crypto_info info;
	socklen_t bytes = crypto_info_make(ktls->is_tls13, ktls->cipher, keys, &info);
	int rc = kernel_set(ktls->fd, SOL_TLS, direction_option(direction), &info, bytes);

	OPENSSL_cleanse(&info, sizeof(info));
	return rc;
}

/* What the keys come from. False, with the reason, if they cannot be had. */
static bool ktls_take_secrets(struct ktls *ktls, const struct tls *tls, const char **why_not)
{
	const uint8_t *mine = ktls->is_server ? tls->server_secret : tls->client_secret;
	const uint8_t *theirs = ktls->is_server ? tls->client_secret : tls->server_secret;

	if (ktls->cipher == KTLS_CIPHER_NONE) {
		*why_not = "cipher";
		return false;
	}
	/* Records are filled to 2^14, whatever the peer has asked for (RFC 6066 4). */
	if (SSL_SESSION_get_max_fragment_length(SSL_get0_session(tls->ssl)) != 0) {
		*why_not = "max-fragment-length";
		return false;
	}
	if (ktls->is_tls13 ? tls->secret_len == 0 : !secrets_from_master(ktls, tls)) {
		*why_not = "no-secret";
		return false;
	}
	if (ktls->is_tls13) {
		ktls->secret_len = tls->secret_len;
		memcpy(ktls->secret[KTLS_DIRECTION_TX], mine, tls->secret_len);
		memcpy(ktls->secret[KTLS_DIRECTION_RX], theirs, tls->secret_len);
	}
	return true;
}

bool ktls_init(struct ktls *ktls, const struct ktls_support *support, int fd, const struct tls *tls,
	const char **why_not)
{
	*ktls = (struct ktls){.support = support,
		.fd = fd,
		.is_tls13 = SSL_version(tls->ssl) == TLS1_3_VERSION,
		.is_server = tls->context->is_server,
		.cipher = cipher_of(tls->ssl)};
	ktls->has_keys = ktls_take_secrets(ktls, tls, why_not);
	if (support->why_not != NULL)
		*why_not = support->why_not;
	return ktls->has_keys && support->why_not == NULL;
}

int ktls_install(struct ktls *ktls, enum ktls_direction direction, uint64_t sequence)
{
	struct record_keys keys;
	int rc = 0;

	ASSERT(!ktls->active[direction]);
	if (!ktls->support->works[ktls->is_tls13][ktls->cipher][direction])
		return -EOPNOTSUPP;
	if (!ktls_keys(ktls, direction, sequence, &keys))
		rc = -ENOKEY;
	if (rc == 0 && !ktls->has_ulp) {
		rc = kernel_set(ktls->fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls"));
		ktls->has_ulp = rc == 0;
	}
	if (rc == 0)
		rc = keys_set(ktls, direction, &keys);
	OPENSSL_cleanse(&keys, sizeof(keys));
	if (rc < 0)
		return rc;
	/* No return from here: the kernel protects this direction. */
	ktls->active[direction] = true;
	return 0;
}

int ktls_rekey(struct ktls *ktls, enum ktls_direction direction)
{
	struct record_keys keys;
	int rc = -ENOKEY;

	if (!ktls->support->rekeys || !ktls->is_tls13)
		return -EOPNOTSUPP;
	if (ktls_next_keys(ktls, direction, &keys))
		rc = keys_set(ktls, direction, &keys);
	OPENSSL_cleanse(&keys, sizeof(keys));
	return rc;
}

int ktls_send_control(int fd, uint8_t record_type, struct span content)
{
	_Alignas(struct cmsghdr) uint8_t control[KTLS_CONTROL_BYTES] = {0};
	uint8_t copy[16];
	struct iovec piece = {.iov_base = copy, .iov_len = content.len};
	struct msghdr message = {.msg_iov = &piece,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control)};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	ASSERT(content.len <= sizeof(copy) && header != NULL);
	memcpy(copy, content.data, content.len);
	header->cmsg_level = SOL_TLS;
	header->cmsg_type = TLS_SET_RECORD_TYPE;
	header->cmsg_len = CMSG_LEN(1);
	*CMSG_DATA(header) = record_type;
	if (ktls_kernel.sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return -errno;
	return 0;
}

void ktls_expect_no_pad(struct ktls *ktls)
{
	int on = 1;

	/* 6.0 and later; where it is refused only speed is lost. */
	if (ktls->is_tls13)
		(void)kernel_set(ktls->fd, SOL_TLS, TLS_RX_EXPECT_NO_PAD, &on, sizeof(on));
}

uint8_t ktls_record_type(struct msghdr *message)
{
	struct cmsghdr *header = CMSG_FIRSTHDR(message);

	if (header != NULL && header->cmsg_level == SOL_TLS &&
		header->cmsg_type == TLS_GET_RECORD_TYPE)
		return *CMSG_DATA(header);
	return RECORD_APPLICATION_DATA;
}

void ktls_close(struct ktls *ktls)
{
	OPENSSL_cleanse(ktls->secret, sizeof(ktls->secret));
	ktls->active[KTLS_DIRECTION_RX] = false;
	ktls->active[KTLS_DIRECTION_TX] = false;
}

/* A connection with itself over loopback, for the trials. */
static bool probe_pair(int *near, int *far)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t len = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool done;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	*far = -1;
	*near = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	done = listener >= 0 && *near >= 0 &&
	       bind(listener, (struct sockaddr *)&address, sizeof(address)) == 0 &&
	       listen(listener, 1) == 0 &&
	       getsockname(listener, (struct sockaddr *)&address, &len) == 0 &&
	       connect(*near, (struct sockaddr *)&address, sizeof(address)) == 0;
	if (done)
		*far = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	(void)close(listener);
	return *far >= 0;
}

/* Tries one combination; a second TLS_TX on TLS 1.3 tells whether keys can be replaced. */
static int probe_one(struct ktls *trial, enum ktls_direction direction, bool *rekeys)
{
	struct record_keys keys = {0};
	int far;
	int rc = -ENOTCONN;

	if (probe_pair(&trial->fd, &far)) {
		rc = kernel_set(trial->fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls"));
		if (rc == 0)
			rc = keys_set(trial, direction, &keys);
		if (rc == 0 && trial->is_tls13 && direction == KTLS_DIRECTION_TX) {
			keys.key[0] = 1;
			*rekeys = keys_set(trial, direction, &keys) == 0;
		}
	}
	(void)close(trial->fd);
	(void)close(far);
	return rc;
}

void ktls_probe(struct ktls_support *out)
{
	int first_error = 0;
	bool any = false;

	*out = (struct ktls_support){0};
	for (unsigned version = 0; version < 2; version++) {
		for (unsigned cipher = 1; cipher < KTLS_CIPHER_COUNT; cipher++) {
			for (unsigned way = 0; way < KTLS_DIRECTION_COUNT; way++) {
				struct ktls trial = {.is_tls13 = version == 1, .cipher = cipher};
				int rc = probe_one(&trial, way, &out->rekeys);

				out->works[version][cipher][way] = rc == 0;
				any = any || rc == 0;
				if (rc < 0 && first_error == 0)
					first_error = -rc;
			}
		}
	}
	if (!any)
		out->why_not = first_error == ENOENT ? "kernel-has-no-tls-module"
						     : "kernel-refused-every-trial";
}
