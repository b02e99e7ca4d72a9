/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * verify.h: what a handshake says of the peer, and whether it is good enough for the
 * connector.
 *
 * The handshake never fails for a bad certificate of the peer: it completes,
 * the verdict is kept, and whoever owns the session refuses mail with a reply
 * that says why. The certificate itself is a struct peer (relay/pki/peer.h), which can be
 * judged for others later: this verdict is the connector's only.
 */

#include "policy/verdict.h"
#include "relay/base/assert.h"
#include "relay/pki/peer.h"
#include <stdbool.h>
#include <stddef.h>

struct tls;

/* What is remembered of a handshake once its TLS object is gone. */
struct tls_facts {
	const char *version; /* "TLSv1.3"; NULL: no TLS */
	const char *cipher;  /* RFC name, "TLS_AES_256_GCM_SHA384" */
	unsigned cipher_bits;
	bool is_resumed;
	bool is_pending;         /* a revocation list is on its way: judge again when it is there */
	enum verdict verdict;    /* for the connector's own trust, and the name it asks for */
	const char *subject;     /* of the peer, RFC 2253 form, "" if there is none; never NULL */
	const char *spki_sha256; /* of its SubjectPublicKeyInfo, in hex; both live as the peer */

	const struct peer *shown; /* our certificate, if it was sent; lives as the TLS context */

	/* What the verdict is made of. */
	bool is_asked;
	bool is_unreadable; /* it has sent a certificate that cannot be decoded */
	enum peer_purpose purpose;
	const struct trust *trust; /* NULL: nobody is trusted */
};

/*
 * Reads a completed handshake and judges it: name is what the certificate must have
 * (names_have()), or NULL. Returns the peer, held for the caller, or NULL if there is no
 * certificate.
 */
struct peer *tls_facts_read(struct tls *tls, const char *name, time_t now, struct tls_facts *out);

/*
 * Judges again: at another time, or when a revocation list has come. Sets verdict and
 * is_pending, and returns the verdict.
 */
enum verdict tls_facts_judge(
	struct tls_facts *facts, struct peer *peer, const char *name, time_t now);

/* The host name that the client asked for (SNI, RFC 6066 3); "" if none, or if it is too long. */
void tls_server_name(const struct tls *tls, char *out, size_t out_bytes);
