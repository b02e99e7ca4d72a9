/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * seal.h: the records of TLS after the handshake, one direction of one connection, in memory.
 *
 * OpenSSL's SSL_read() and SSL_write() cost several times what the cipher does for a record of a
 * few KiB, and copy each byte twice; its object keeps some 20 KiB for a session that is silent. So
 * once a handshake is done its keys go here, as they go to the kernel elsewhere (ktls.h), and the
 * object is freed. What is done here is RFC 8446 5.2 and RFC 5246 6.2.3.3: nonce, additional data,
 * one call of EVP's AEAD, and the content type behind the padding. What a record means is its
 * reader's affair (record.c).
 *
 * Ciphers that are not AEADs of enum ktls_cipher stay with OpenSSL.
 */

#include "relay/net/ktls.h"

struct evp_cipher_ctx_st;

/* What a record adds to its text at most: header, nonce, content type, tag. */
#define SEAL_OVERHEAD_BYTES 30

struct seal {
	struct evp_cipher_ctx_st *ctx; /* NULL: not in use */
	enum ktls_cipher cipher;
	bool is_tls13;
	bool is_sender;
	bool has_explicit_nonce;     /* TLS 1.2 AES-GCM: eight bytes of it in each record */
	uint8_t iv[RECORD_IV_BYTES]; /* in full, or the salt of the former */
	uint64_t sequence;           /* of the next record */
};

/* Once, before any thread. -ENOMEM. */
NODISCARD int seal_init(void);

/* Begins one direction with these keys, or goes on with the next ones. -ENOMEM. */
NODISCARD int seal_open(
	struct seal *seal, const struct ktls *ktls, bool is_sender, const struct record_keys *keys);

/* Wipes the keys. Harmless when not in use. */
void seal_close(struct seal *seal);

/*
 * Makes one record of up to TLS_RECORD_TEXT_BYTES at out, which has room for the text and
 * SEAL_OVERHEAD_BYTES and does not overlap it. Returns its length; 0: the cipher failed.
 */
NODISCARD size_t seal_write(struct seal *seal, uint8_t type, struct span text, uint8_t *out);

/* The same of two pieces, one behind the other. The first may lie where its text goes to: at
 * out + seal_text_at(). */
NODISCARD size_t seal_write_both(
	struct seal *seal, uint8_t type, struct span first, struct span second, uint8_t *out);

/* Where in a record the text lies. */
size_t seal_text_at(const struct seal *seal);

/* How long a record of so much text is. */
size_t seal_record_bytes(const struct seal *seal, size_t text_bytes);

enum seal_status {
	SEAL_GOOD,
	SEAL_BAD,  /* not made with this key, or not the next in turn: bad_record_mac */
	SEAL_LONG, /* more text than a record may have: record_overflow */
	SEAL_ODD,  /* no content type where one must be: unexpected_message */
};

/*
 * Opens one whole record in place, record.len as tls_record_length() says. SEAL_GOOD: *text lies
 * within the record. Anything else ends the connection, and the record's bytes are worth nothing.
 */
NODISCARD enum seal_status seal_read(
	struct seal *seal, uint8_t *record, size_t len, uint8_t *type, struct span *text);
