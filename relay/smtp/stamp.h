/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * stamp.h: what we say of the sender in each message (EXCHANGE 4.6). Behind our Received field:
 *
 *   Authentication-Results: FQDN;
 *   \tx-domain-secure=pass (TLSv1.3, TLS_AES_256_GCM_SHA384)
 *   \tpolicy.domain=treyresearch.test
 *
 * in the form of RFC 8601; "none", and no domain, for a sender that did not prove to be a partner;
 * and no comment where there is no TLS. At the end of the header, for a trusted next hop:
 *
 *   X-MS-Exchange-Organization-AuthSource: FQDN
 *   X-MS-Exchange-Organization-AuthAs: Partner
 *   X-MS-Exchange-Organization-AuthDomain: treyresearch.test
 *
 * Pure. Inbound copies are taken out by firewall.h.
 */

#include "policy/admit.h"
#include "relay/base/assert.h"
#include "relay/base/span.h"

/* Longest text of either function: two domain names and words. */
#define STAMP_BYTES_MAX 1024

struct stamp {
	const char *fqdn; /* ours, of the transport section: the authserv-id */
	enum role role;
	const char *domain;      /* ROLE_PARTNER: what it has proved, A-labels */
	const char *tls_version; /* NULL without TLS */
	const char *tls_cipher;
};

/* The Authentication-Results field with its CR LFs. Returns the length. */
NODISCARD size_t stamp_results(const struct stamp *stamp, char out[static STAMP_BYTES_MAX]);

/* The fields of Exchange, each with its CR LF. Returns the length. */
NODISCARD size_t stamp_exchange(const struct stamp *stamp, char out[static STAMP_BYTES_MAX]);
