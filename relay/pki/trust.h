/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * trust.h: whom a partner's or a connector's rules believe: anchors, revocation
 * lists and how they are used, pins. Built from a snapshot, immutable, shared by
 * all workers, never by two partners.
 *
 * Verification is X509_verify_cert() with the purpose of the peer's role, security
 * level 2 at least, and our own rule for revocation lists (enum revocation). Never weaker than
 * OpenSSL's default for that purpose (X509_PURPOSE_SSL_CLIENT or _SERVER, with trusted-first,
 * no partial chain).
 */

#include "policy/policy.h"
#include "relay/pki/peer.h"

struct trust;

struct trust_options {
	const char *anchors;          /* PEM file; NULL: none, nobody is trusted by chain */
	const char *const *crl_files; /* read now, and again when they change (crl.h) */
	unsigned crl_file_count;
	enum revocation revocation;
	const struct pin *pins;
	unsigned pin_count;
	int depth; /* of intermediates, at most; -1: OpenSSL's default */
};

/* -EINVAL and the reason in error (naming the file); -ENOMEM. */
NODISCARD int trust_create(
	const struct trust_options *options, struct trust **out, char *error, size_t error_bytes);
void trust_destroy(struct trust **trust);

/*
 * The whole judgement but names: pins where there are any (alone, if there are no anchors:
 * direct trust), then peer_judge(). peer NULL: VERDICT_EMPTY.
 */
enum verdict trust_judge(const struct trust *trust, struct peer *peer, enum peer_purpose purpose,
	time_t now, bool *out_is_pending);

/* What the partners and connectors of a snapshot believe; by their index. */
struct trust_set {
	struct trust **partners;
	struct trust **receive; /* NULL entries: the connector has neither anchors nor pins */
	struct trust **send;
	unsigned partner_count, receive_count, send_count;
	uint64_t generation; /* goes up with each set that is made: part of ticket keys */
};

/* Each mistake is a line on errors, "FILE:LINE: what, expected what". -EINVAL, -ENOMEM. */
NODISCARD int trust_set_create(const struct policy *policy, FILE *errors, struct trust_set **out);
void trust_set_destroy(struct trust_set **set);
