/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * proxy_header.h: the header of the PROXY protocol, versions 1 and 2, in which a load balancer says
 * for whom it opened a connection (HAProxy's proxy-protocol.txt, 2.1 and 2.2).
 *
 * Pure: spans of what was read point into the caller's receive buffer.
 *
 * The reader is strict, since what it lets through decides who somebody is: one spelling of
 * version 1, no length that does not fit, a checksum that is there must be right. It is done with
 * rubbish at the first byte that cannot be. What version 2 carries beside addresses is skipped
 * where it is not known, but must be well formed.
 */

#include "policy/range.h"
#include "relay/base/limits.h"
#include "relay/base/span.h"

/* What the balancer says of the client's TLS session with it. Told, not proved: for the log. */
struct proxy_header_tls {
	bool is_tls;
	bool has_certificate; /* on this connection, or when the session began */
	bool is_verified;
	struct span version;   /* "TLSv1.3" */
	struct span cipher;    /* OpenSSL's name */
	struct span cn;        /* common name of the certificate; unproved unless is_verified */
	struct span signature; /* of the certificate that the client was shown: "RSA-SHA256" */
	struct span key;       /* "RSA2048" */
};

struct proxy_header {
	unsigned version; /* 1 or 2 */
	size_t bytes;     /* of the whole; what stands behind it is not the balancer's */
	/*
	 * False: the balancer speaks for itself (LOCAL), or cannot say for whom (UNKNOWN, another
	 * kind of socket). Then there are no addresses.
	 */
	bool has_client;
	struct ip source;
	struct ip destination; /* that the client connected to */
	uint16_t source_port;
	uint16_t destination_port;

	/* Version 2 only; empty if not said. */
	struct span alpn;
	struct span authority; /* the server name that the client asked for */
	struct span unique_id;
	struct span netns;
	struct proxy_header_tls tls;
};

/* PP2_TYPE_UNIQUE_ID is no longer. */
#define PROXY_HEADER_UNIQUE_ID_BYTES_MAX 128

enum proxy_header_status {
	PROXY_HEADER_OK,
	PROXY_HEADER_MORE,     /* what came may be the beginning of one */
	PROXY_HEADER_NONE,     /* it does not begin as a header does */
	PROXY_HEADER_BAD,      /* it does, but breaks the rules */
	PROXY_HEADER_LONG,     /* over PROXY_HEADER_BYTES_MAX, or 107 bytes of version 1 */
	PROXY_HEADER_CHECKSUM, /* it was changed on the way */
};

/* Reads the header at the start of in. out is set on PROXY_HEADER_OK only. */
NODISCARD enum proxy_header_status proxy_header_parse(struct span in, struct proxy_header *out);

/* Why it is refused, as a word for the log. */
const char *proxy_header_word(enum proxy_header_status status);

/*
 * Writes a header for the client that it names (version and has_client say which form; bytes is
 * not looked at); where the addresses are of two families both are written as IPv6. Version 2 gets
 * a checksum, and of its other fields those that are not empty; a long one is left out. Returns the
 * length.
 */
NODISCARD size_t proxy_header_write(
	const struct proxy_header *header, uint8_t out[static PROXY_HEADER_BYTES_MAX]);
