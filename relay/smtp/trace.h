/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * trace.h: the Received field that we put before each message (RFC 5321 4.4).
 *
 * Pure: the clock is passed in.
 */

#include "relay/base/assert.h"
#include "relay/base/span.h"
#include <time.h>

/* Longest Received field that trace_received() makes, with its CR LFs. */
#define TRACE_BYTES_MAX 2304

struct trace {
	struct span helo;         /* what the peer called itself; may be empty */
	const char *peer_address; /* "192.0.2.1" or "2001:db8::1", unbracketed */
	const char *fqdn;         /* our name */
	const char *connector;    /* the receive connector's name */
	const char *session_id;
	bool is_extended;           /* EHLO was used */
	bool is_utf8;               /* SMTPUTF8 message: "UTF8SMTPS" (RFC 6531 4.3) */
	const char *tls_version;    /* "TLSv1.3"; NULL without TLS */
	const char *tls_cipher;     /* "TLS_AES_256_GCM_SHA384" */
	unsigned tls_bits;          /* 256 */
	const char *client_subject; /* certificate subject (RFC 2253 form); NULL: none was sent */
	bool client_is_verified;
	const char *client_domain; /* the mail domain that it has proved; NULL: none */
	struct span recipient;     /* "<a@b>" when there is just one, else empty (RFC 5321 7.2) */
	time_t now;
};

/*
 * Writes one folded Received field, each line ending in CR LF and none over 998
 * bytes. What a peer chose (helo, subject) is cleaned: controls, CR, LF, NUL,
 * parentheses and backslashes cannot break out of where they stand, and over-long values are cut.
 *
 *   Received: from HELO ([192.0.2.1])
 *   \t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256 bits)
 *   \t client certificate "CN=..." verified for treyresearch.test)
 *   \tby FQDN (Postern, connector NAME) with ESMTPS id SESSION
 *   \tfor <rcpt>; Sat, 21 Nov 2026 22:46:05 +0000
 *
 * or "verified" alone, "not verified", "no client certificate". IPv6 peers are written
 * [IPv6:2001:db8::1] (RFC 5321 4.1.3). "with" is SMTP, ESMTP, ESMTPS, UTF8SMTP or UTF8SMTPS
 * (RFC 3848, RFC 6531). Returns the length.
 */
NODISCARD size_t trace_received(const struct trace *trace, uint8_t out[TRACE_BYTES_MAX]);
