/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * ktls.h: hands the record protection of a finished handshake to the kernel.
 *
 * Each direction by itself: TCP_ULP "tls", then TLS_RX, TLS_TX with keys that
 * we derive from the secrets of the handshake and with the exact number of
 * records that have already passed. A refusal changes nothing, and the
 * direction stays in userspace. Once a direction is handed over, no byte of it
 * may be touched here again: there is no way back.
 *
 * The kernel is reached through struct ktls_kernel, so that a test can make each
 * call fail.
 */

#include "relay/base/assert.h"
#include "relay/base/limits.h"
#include "relay/net/tls.h"
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum ktls_direction {
	KTLS_DIRECTION_RX,
	KTLS_DIRECTION_TX,
	KTLS_DIRECTION_COUNT,
};

enum ktls_cipher {
	KTLS_CIPHER_NONE, /* one that the kernel side does not know */
	KTLS_CIPHER_AES_128_GCM,
	KTLS_CIPHER_AES_256_GCM,
	KTLS_CIPHER_CHACHA20_POLY1305,
	KTLS_CIPHER_COUNT,
};

/* The two calls that this module makes. Only tests may change them. */
struct ktls_kernel {
	int (*setsockopt)(int fd, int level, int name, const void *value, socklen_t bytes);
	ssize_t (*sendmsg)(int fd, const struct msghdr *message, int flags);
};
extern struct ktls_kernel ktls_kernel;

/* What this kernel takes, tried at start with keys of no value. */
struct ktls_support {
	/* [0] TLS 1.2, [1] TLS 1.3 */
	bool works[2][KTLS_CIPHER_COUNT][KTLS_DIRECTION_COUNT];
	bool rekeys;         /* TLS 1.3 keys can be replaced (6.14) */
	const char *why_not; /* why nothing works; NULL if something does */
};

/*
 * Tries every (version, cipher, direction) on a loopback connection of its own.
 * Call before privileges are dropped: loading the kernel's module needs
 * CAP_NET_ADMIN. Never fails: without support everything is false.
 */
void ktls_probe(struct ktls_support *out);

#define RECORD_KEY_BYTES_MAX 32
#define RECORD_IV_BYTES 12

/* One direction's keys in the form of RFC 8446 7.3. Wiped by who asked for them. */
struct record_keys {
	uint8_t key[RECORD_KEY_BYTES_MAX];
	uint8_t iv[RECORD_IV_BYTES]; /* TLS 1.2 AES-GCM: 4 bytes of salt, then the sequence number
				      */
	uint64_t sequence;
};

/* What is kept of a connection while OpenSSL does not hold its keys: enough to change them. */
struct ktls {
	const struct ktls_support *support;
	int fd;
	bool has_ulp;
	bool has_keys; /* a cipher that we know, no odd limit: keys can be derived */
	bool is_tls13;
	bool is_server;
	enum ktls_cipher cipher;
	bool active[KTLS_DIRECTION_COUNT];
	unsigned secret_len; /* TLS 1.3 */
	/* TLS 1.3: the present traffic secrets. TLS 1.2: key and IV as they are. */
	uint8_t secret[KTLS_DIRECTION_COUNT][TLS_SECRET_BYTES_MAX];
};

/*
 * What ktls = auto goes by, in instructions. To give the receive direction away costs
 * KTLS_HAND_OVER_COST once (keys set, the socket's protocol changed, the record that is under way
 * completed by itself); after that each full record costs KTLS_SAVED_BY_FULL_RECORD less than by
 * seal.h. It goes when the full records so far would have saved what that costs: nobody knows how
 * long a session goes on. To send is never given away.
 *
 * By bench/icount.sh (AES-256-GCM, TLS 1.3, OpenSSL 3.0, Linux 6.12), against off: a hand-over of
 * receiving 34 000 to 38 000; saved by each full record 2 600 to 3 600 in messages of 1 MiB (1 to
 * 2 % of the message), 700 to 2 000 in messages of 64 KiB, whose commands and replies come in
 * between, and by a message of 4 KiB 0 to 600. So 3 000, which is fourteen records. Sending costs
 * 8 to 10 % of a message of 64 KiB or 1 MiB, which has to be copied once more for it, so it never
 * pays. Measure again with other kernels and libraries: the rows rx:off, tx:off, off:rx, off:tx.
 */
#define KTLS_HAND_OVER_COST 40000
#define KTLS_SAVED_BY_FULL_RECORD 3000
#define KTLS_FULL_RECORD_BYTES TLS_RECORD_TEXT_BYTES

/* How many records OpenSSL has read (or written) under the application key. */
static inline uint64_t ktls_records(const struct tls *tls, enum ktls_direction direction)
{
	return direction == KTLS_DIRECTION_RX ? tls->rx_records : tls->tx_records;
}

/*
 * Prepares for a finished handshake on fd. False, with the reason, if this kernel cannot help;
 * has_keys may be true all the same, for records in userspace (seal.h).
 */
NODISCARD bool ktls_init(struct ktls *ktls, const struct ktls_support *support, int fd,
	const struct tls *tls, const char **why_not);

/*
 * Gives one direction to the kernel, of which so many records have passed under the present key. No
 * receive (or send) may be in flight, and no byte of that direction may lie in userspace. Returns 0
 * or -errno; after 0 there is no return.
 */
NODISCARD int ktls_install(struct ktls *ktls, enum ktls_direction direction, uint64_t sequence);

/*
 * The peer changed its key (RFC 8446 4.6.3): the next key of a direction goes
 * into force. -EOPNOTSUPP where the kernel cannot; the connection must then be
 * closed, since nothing more can be read.
 */
NODISCARD int ktls_rekey(struct ktls *ktls, enum ktls_direction direction);

/* The present keys of one direction, of which so many records have passed under them. */
NODISCARD bool ktls_keys(const struct ktls *ktls, enum ktls_direction direction, uint64_t sequence,
	struct record_keys *out);

/* The keys that follow a KeyUpdate (RFC 8446 7.2), from record 0 on. The secret before is gone. */
NODISCARD bool ktls_next_keys(
	struct ktls *ktls, enum ktls_direction direction, struct record_keys *out);

/* Sends one control record (21 alert, 22 handshake) now; -EAGAIN if the socket is full. */
NODISCARD int ktls_send_control(int fd, uint8_t record_type, struct span content);

/* Tells the kernel that this TLS 1.3 peer does not pad, which saves a copy. Only for proved
 * partners. */
void ktls_expect_no_pad(struct ktls *ktls);

/* Room for the record type beside received data. */
#define KTLS_CONTROL_BYTES CMSG_SPACE(1)

/* The record type in a received message's control data; 23 (application data) if it has none. */
uint8_t ktls_record_type(struct msghdr *message);

/* Wipes the secrets. */
void ktls_close(struct ktls *ktls);
