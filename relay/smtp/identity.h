/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * identity.h: what a next hop is told of the client, where client-identity asks for it.
 *
 * It is a copy by value of what was known when the session with the next hop was opened: that
 * session is for this client, and as soon as more or something else is known, another is opened.
 */

#include "policy/range.h"
#include "relay/base/limits.h"
#include "relay/base/span.h"
#include "relay/smtp/xclient.h"

#define IDENTITY_WORD_BYTES 64

struct identity {
	struct ip source;
	struct ip destination; /* that the client connected to */
	uint16_t source_port;  /* 0: not known */
	uint16_t destination_port;
	bool is_extended;
	char helo[XCLIENT_TEXT_BYTES];         /* "": not said yet */
	char session[IDENTITY_WORD_BYTES];     /* our session's id */
	char server_name[XCLIENT_TEXT_BYTES];  /* that the client asked for in TLS; "": none */
	char tls_version[IDENTITY_WORD_BYTES]; /* "": it does not use TLS, as far as we know */
	char tls_cipher[IDENTITY_WORD_BYTES];
	bool has_certificate;
	bool is_verified;
	char common_name[XCLIENT_TEXT_BYTES]; /* of the certificate; "" unless is_verified */
};

bool identity_is_equal(const struct identity *a, const struct identity *b);

/* The common name in a subject in RFC 2253 form; "" if there is none, or none that is plain. */
void identity_common_name(const char *subject, char out[static XCLIENT_TEXT_BYTES]);

/* The header of the PROXY protocol of that version. Returns its length. */
NODISCARD size_t identity_write_proxy(const struct identity *identity, unsigned version,
	uint8_t out[static PROXY_HEADER_BYTES_MAX]);

/* The command XCLIENT, of what is announced. Returns its length. */
NODISCARD size_t identity_write_xclient(const struct identity *identity, unsigned announced,
	char out[static XCLIENT_COMMAND_BYTES_MAX + 1]);
