/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * peer.h: certificates that peers have shown, and what was found out about them.
 *
 * One cache for the whole process, behind a mutex that is held for lookups only.
 * An entry is a leaf with the chain that came with it; it is read once (names,
 * subject, digests), shared by all sessions that show it, and remembers its
 * verdicts: for a struct trust, until the earliest date at which one of the
 * certificates or lists that it rests on ends, and for one generation of the lists.
 * A verdict for one trust is never used for another.
 *
 * Everything that a handshake gives away is kept here, so that a session can be
 * judged for any partner after its TLS object is gone (kernel TLS), and again
 * after a reload.
 */

#include "policy/names.h"
#include "policy/verdict.h"
#include "relay/base/assert.h"
#include <time.h>

struct x509_st;
struct stack_st_X509;
struct trust;

#define PEER_SUBJECT_BYTES 256
#define PEER_SERIAL_BYTES 64
#define PEER_DIGEST_HEX_BYTES 65

enum peer_purpose { PEER_IS_CLIENT, PEER_IS_SERVER };

/* Read-only once it is made, but for what peer.c keeps private. Shared; see peer_hold(). */
struct peer {
	char subject[PEER_SUBJECT_BYTES]; /* RFC 2253 */
	char issuer[PEER_SUBJECT_BYTES];
	char serial[PEER_SERIAL_BYTES];         /* hex */
	char thumbprint[PEER_DIGEST_HEX_BYTES]; /* SHA-1 of the certificate, as Exchange shows it */
	char spki_sha256[PEER_DIGEST_HEX_BYTES];
	uint8_t spki[32];
	int64_t not_before; /* seconds since 1970 */
	int64_t not_after;
	struct certificate_names names;
	char names_text[1024]; /* dNSNames joined by ";", for the protocol log */
};

/* Once, at the start. entries: how many are kept that no session uses. -ENOMEM. */
NODISCARD int peer_cache_create(unsigned entries);
void peer_cache_destroy(void);

/*
 * The entry for this leaf and chain (leaf not among it; may be NULL), made if it is new.
 * The caller holds it until peer_release(). NULL: no memory, or it cannot be decoded.
 */
struct peer *peer_of_chain(struct x509_st *leaf, struct stack_st_X509 *chain);

/* The entry of a leaf whose chain was seen before (a resumed session), or NULL. */
struct peer *peer_of_leaf(struct x509_st *leaf);

struct peer *peer_hold(struct peer *peer);
void peer_release(struct peer **peer); /* clears the pointer; NULL is harmless */

/*
 * Is it valid, by chain, dates, usage, strength and revocation, for what trust believes?
 * Names and pins are not looked at: see trust_judge(). When a revocation list is needed
 * that is being fetched: VERDICT_REVOCATION_UNKNOWN, and *out_is_pending is true (may be NULL).
 */
enum verdict peer_judge(struct peer *peer, const struct trust *trust, enum peer_purpose purpose,
	time_t now, bool *out_is_pending);
