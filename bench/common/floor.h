/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * floor.h: what the steps of bench/floor.c are made of: records, and both ends of two loopback
 * connections. All of it ends the program with status 1 where a call fails.
 */

#include "relay/base/limits.h"
#include "relay/net/seal.h"
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

/* What one round of a step is about: the text of four full records, as a bulk buffer holds them. */
#define FLOOR_ROUND_BYTES 65536
#define FLOOR_MESSAGE_BYTES_MIN 1024

/* How a round is cut: into pieces of one call each, which are records of 16 KiB and a rest. */
struct floor_round {
	uint32_t piece; /* text that one call takes */
	uint32_t wire;  /* the same in records */
	uint32_t pieces;
};

/* The round for messages of this size: several if they are small, a part if they are large. */
struct floor_round floor_round_of(uint64_t message_bytes);

uint64_t floor_clock_ns(clockid_t which);

/* Ends the program, with errno's text, unless good. */
void floor_must(bool good, const char *what);

/* One direction of TLS 1.3 with AES-256-GCM. Both ends of one have the same keys, and count alike.
 */
void floor_seal_begin(struct seal *seal, bool is_sender);

/* The records of one piece. */
void floor_seal_piece(struct seal *seal, uint32_t piece, const uint8_t *text, uint8_t *out);

/* Opens them in place; with a next one, each goes on to it at once, and to out. */
void floor_open_piece(
	struct seal *seal, uint32_t piece, uint8_t *in, struct seal *next, uint8_t *out);

struct evp_cipher_ctx_st;

/* The same by bare EVP. Freed with EVP_CIPHER_CTX_free(). */
struct evp_cipher_ctx_st *floor_evp_begin(bool is_sender);

/* From text to wire, or the other way in place; returns the number of the next record. */
uint64_t floor_evp_piece(struct evp_cipher_ctx_st *ctx, bool is_sender, uint64_t sequence,
	uint32_t piece, const uint8_t *text, uint8_t *wire);

/* What the other ends are asked for. */
enum floor_job {
	FLOOR_JOB_NONE, /* it is the relay's turn */
	FLOOR_JOB_FEED,
	FLOOR_JOB_FEED_SEALED, /* as the records that come next */
	FLOOR_JOB_DRAIN,
	FLOOR_JOB_END,
};

/* The relay's ends of both connections. */
struct floor_ends {
	int in_fd, out_fd;
};

/* Makes both connections, and starts the thread that has their other ends and is not counted. */
struct floor_ends floor_peer_start(void);

/* Both ends begin anew with sealed records. */
void floor_peer_seal_anew(void);

/*
 * Has a round fed or drained, and returns when that is done: what was fed lies in the socket of the
 * relay then, and what was to be drained has gone.
 */
void floor_peer_do(enum floor_job job, const struct floor_round *round);

void floor_peer_end(void);
