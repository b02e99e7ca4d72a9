/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * store.h: our own certificates: which one a connector shows (EXCHANGE 5.1), and when they
 * end.
 *
 * certificate-store is a folder with a folder for each certificate, named by its thumbprint
 * (SHA-1, lower-case hex; a request that has no certificate yet: by its key's):
 *   chain.pem    leaf first, then intermediates     key.pem   mode 0600, not encrypted
 *   enabled      an empty file: for SMTP            request.pem   a request that is not answered
 * Files are written beside and renamed, so that a reader sees the old or the new.
 */

#include "policy/policy.h"
#include "relay/pki/peer.h"

enum certificate_status {
	CERTIFICATE_VALID,
	CERTIFICATE_DATE_INVALID, /* expired or not yet valid */
	CERTIFICATE_UNTRUSTED,
	CERTIFICATE_REVOKED,
	CERTIFICATE_REVOCATION_CHECK_FAILURE,
	CERTIFICATE_PENDING_REQUEST,
	CERTIFICATE_INVALID,
	CERTIFICATE_STATUS_COUNT,
};

/* Exchange's words: "Valid", "DateInvalid", "PendingRequest"... */
const char *certificate_status_word(enum certificate_status status);

/* What is known of a certificate of ours. */
struct own_certificate {
	const struct certificate *certificate; /* where it comes from */
	struct peer *facts;                    /* subject, dates, names; held */
	bool has_key;                          /* the key is there and fits */
	bool is_self_signed;
	bool is_v3;
};

/* Reads chain and key. -EINVAL with the reason in error. */
NODISCARD int own_certificate_load(const struct certificate *certificate,
	struct own_certificate *out, char *error, size_t error_bytes);
void own_certificate_drop(struct own_certificate *own);

/*
 * Which of them a connector with that fqdn shows: has a key, is enabled, v3, the fqdn is among
 * its names (dNSName or CN; "*." stands for one label); valid now before expired, issued by a
 * CA before self-signed, then the newest (not_before), then the lowest name. NULL: none.
 */
const struct own_certificate *own_certificate_select(
	const struct own_certificate *list, unsigned count, const char *fqdn, time_t now);
