/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * xclient.h: the command XCLIENT, in which a front end says for whom it speaks, as Postfix has it
 * (XCLIENT_README): XCLIENT NAME=mx.example ADDR=192.0.2.1 PORT=12345 ...
 *
 * Pure. Values are xtext (RFC 3461 4); instead of one may stand [UNAVAILABLE] or [TEMPUNAVAIL].
 */

#include "policy/range.h"
#include "relay/base/span.h"

/* A set of bits; also of what a server announces behind the keyword XCLIENT. */
enum xclient_attribute {
	XCLIENT_NAME = 1, /* host name of the address, looked up by the front end */
	XCLIENT_ADDR = 2,
	XCLIENT_PORT = 4,
	XCLIENT_PROTO = 8, /* SMTP or ESMTP */
	XCLIENT_HELO = 16,
	XCLIENT_LOGIN = 32,
	XCLIENT_DESTADDR = 64, /* what the client connected to */
	XCLIENT_DESTPORT = 128,
	XCLIENT_REVERSE_NAME = 256, /* host name of the address, not looked up the other way */
};

/* All of them, as they stand in our EHLO reply. */
#define XCLIENT_KEYWORD "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT REVERSE_NAME"

/* Postfix: names have 255 bytes at the most, and a command 512. */
#define XCLIENT_TEXT_BYTES 256
#define XCLIENT_COMMAND_BYTES_MAX 512

struct xclient {
	unsigned given; /* bits of enum xclient_attribute */
	unsigned known; /* of these, those that have a value */
	struct ip address;
	struct ip destination;
	uint16_t port;
	uint16_t destination_port;
	bool is_extended;              /* PROTO=ESMTP */
	char name[XCLIENT_TEXT_BYTES]; /* texts are printable ASCII, or "" */
	char helo[XCLIENT_TEXT_BYTES];
	char login[XCLIENT_TEXT_BYTES];
	char reverse_name[XCLIENT_TEXT_BYTES];
};

/* What stands behind the verb. False: its form is wrong; out is undefined then. */
NODISCARD bool xclient_parse(struct span argument, struct xclient *out);

/* What stands behind XCLIENT in an EHLO reply; unknown words are ignored. */
unsigned xclient_attributes(struct span words);

/*
 * Writes the command with its CR LF, of those attributes in given that are announced, too; one
 * that is not known is [UNAVAILABLE], and so is a text that would make the line too long.
 */
NODISCARD size_t xclient_write(const struct xclient *from, unsigned announced,
	char out[static XCLIENT_COMMAND_BYTES_MAX + 1]);
