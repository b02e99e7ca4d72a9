/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * verdict.h: what may be said of a peer's certificate, in Exchange's status words
 * (EXCHANGE 4.10). A verdict is always about one certificate *for* somebody: a
 * partner, or a connector.
 */

#include "relay/base/assert.h"

enum verdict {
	VERDICT_NOT_ASKED, /* no certificate was asked for */
	VERDICT_EMPTY,     /* asked for, and none came */
	VERDICT_VALID,
	VERDICT_UNTRUSTED_ROOT, /* the chain ends in none of the anchors, or is incomplete */
	VERDICT_EXPIRED,
	VERDICT_NOT_YET_VALID,
	VERDICT_REVOKED,
	VERDICT_REVOCATION_UNKNOWN, /* a revocation list is wanted and cannot be had, or is stale */
	VERDICT_BAD_USAGE,          /* key usage or purpose does not fit */
	VERDICT_WEAK_KEY,
	VERDICT_SIGNATURE_FAILURE,
	VERDICT_SUBJECT_MISMATCH, /* valid, but of another name */
	VERDICT_PIN_MISMATCH,     /* its key is none of the pinned ones */
	VERDICT_INVALID,          /* anything else */
	VERDICT_COUNT,
};

/* The status word, "Valid", "EmptyCertificate", "UntrustedRoot"... */
const char *verdict_word(enum verdict verdict);
