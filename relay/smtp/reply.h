/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * reply.h: replies of a next hop (RFC 5321 4.2), and what its EHLO offers.
 *
 * Pure: a parsed reply points into the caller's receive buffer.
 */

#include "relay/base/assert.h"
#include "relay/base/span.h"
#include <stdarg.h>

struct reply {
	unsigned code;    /* 200 to 599 */
	struct span wire; /* all its lines with their CR LF, as received */
	struct span text; /* last line, behind the code and one space, without CR LF */
};

enum reply_status {
	REPLY_OK,
	REPLY_MORE, /* the last line has not come yet */
	REPLY_BAD, /* not a reply: bad digits, codes that differ, bare CR or LF, NUL, over the limit
		    */
};

/* Longest reply that is read, all lines together; an EHLO reply is the longest in practice. */
#define REPLY_BYTES_MAX 7680

/*
 * Parses the reply at the start of in. On REPLY_OK the caller consumes
 * out->wire.len bytes when it is done with *out. "250 text", "250-text" and a
 * lone "250" are accepted.
 */
NODISCARD enum reply_status reply_parse(struct span in, struct reply *out);

/* What a server offers in its EHLO reply; a set of bits. */
enum ehlo_keyword {
	EHLO_SIZE = 1,
	EHLO_PIPELINING = 2,
	EHLO_8BITMIME = 4,
	EHLO_SMTPUTF8 = 8,
	EHLO_CHUNKING = 16,
	EHLO_BINARYMIME = 32,
	EHLO_DSN = 64,
	EHLO_ENHANCEDSTATUSCODES = 128,
	EHLO_STARTTLS = 256,
	EHLO_XCLIENT = 512, /* Postfix's */
};

struct ehlo_offer {
	unsigned keywords;  /* enum ehlo_keyword bits */
	uint64_t size_max;  /* SIZE argument in octets; 0: none given */
	unsigned xclient;   /* arguments of XCLIENT: bits of enum xclient_attribute */
	struct span domain; /* first word of the first line; points into the reply */
};

/* Reads the keywords off a 250 reply to EHLO; unknown ones are ignored. */
void reply_parse_ehlo(const struct reply *reply, struct ehlo_offer *out);

/*
 * Prints a reply line of ours and its CR LF, with a NUL behind; what is too long is cut. Returns
 * the length without the NUL.
 */
size_t reply_vprint(char *out, size_t out_bytes, const char *format, va_list args)
	PRINTF_LIKE(3, 0);
