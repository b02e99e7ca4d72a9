/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * verify.h: what a peer's certificate says, and whether it is any good.
 *
 * The handshake never fails for a bad certificate of the peer: it completes,
 * the verdict is kept, and whoever owns the session refuses mail with a reply
 * that says why. A verdict is one of Exchange's status words.
 */

#include "policy/verdict.h"
#include "relay/base/assert.h"
#include <stdbool.h>
#include <stddef.h>

struct ssl_st;

#define PEER_SUBJECT_BYTES 256
#define PEER_SPKI_BYTES 65

/* What is remembered of a handshake once its TLS object is gone. */
struct tls_facts {
	const char *version; /* "TLSv1.3"; NULL: no TLS */
	const char *cipher;  /* RFC name, "TLS_AES_256_GCM_SHA384" */
	unsigned cipher_bits;
	bool is_resumed;
	enum verdict verdict;
	char subject[PEER_SUBJECT_BYTES];  /* RFC 2253 form, "" if there is no certificate */
	char spki_sha256[PEER_SPKI_BYTES]; /* of its SubjectPublicKeyInfo, in hex */
};

/*
 * Reads a completed handshake. is_asked: did this side ask for the peer's
 * certificate? name: what its names must match (RFC 9525 6.3, no CN), or NULL. A resumed session's
 * certificate is checked again for its dates.
 */
void tls_facts_read(struct ssl_st *ssl, bool is_asked, const char *name, struct tls_facts *out);
