/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * firewall.h: the header firewall (EXCHANGE 10, 4.6): takes header fields of given classes
 * out of a message as it passes; all else goes through byte for byte.
 *
 * Pure and incremental: any split of the input gives the same output. A field goes with
 * its folded lines. Its name is compared without regard to case, up to the colon; blanks before
 * the colon (obsolete syntax, RFC 5322 4.5) do not hide it. Up to FIREWALL_HELD_MAX bytes are held
 * back until a field's name is known; nothing else is copied. A message that begins with a folded
 * line continues no field of its own, but would continue ours: that line is taken out, too.
 *
 *   START --name known--> PASS or DROP --line end, next byte no blank--> START ... empty line: BODY
 *
 * Two servers may not agree on whether a bare CR or LF ends a line, so a field is looked for behind
 * each of them; but only CR LF CR LF, as it leaves here, ends the header, since all agree on that.
 * A line that begins with one of the prefixes and has no colon is no field, and passes. What
 * cannot be judged within FIREWALL_HELD_MAX bytes is taken out.
 */

#include "relay/base/assert.h"
#include "relay/base/span.h"

/* What is taken out; a set of bits. */
enum firewall_class {
	FIREWALL_ORGANIZATION = 1, /* X-MS-Exchange-Organization-*, X-MS-Exchange-Forest-* */
	FIREWALL_STAMP = 2,        /* our own: X-Postern-*; and Authentication-Results fields
				      whose authserv-id is ours (RFC 8601 5), or has a U-label
				      while ours has an A-label */
};

#define FIREWALL_HELD_MAX 512

struct firewall {
	const char *authserv_id; /* ours, compared without regard to case */
	unsigned removed;        /* fields taken out so far */
	bool has_auth_as;        /* X-MS-Exchange-Organization-AuthAs was there, and has passed */
	bool is_done;            /* the empty line has passed: the rest is body */
	/* private */
	bool is_idn; /* our authserv-id has an A-label */
	uint8_t state;
	uint8_t name;   /* which of those to look for the line begins with */
	uint8_t wanted; /* names to look for; bits */
	uint8_t alive;  /* names that the bytes so far may become; bits */
	uint8_t tail;   /* how much of CR LF CR LF has been passed on last, candidate included */
	uint8_t tail_saved; /* the same, without the candidate */
	bool after_cr;      /* at the start of a line: the byte before was a CR */
	bool is_escaped;    /* the byte before was a backslash */
	uint16_t matched;   /* bytes of the name, or of the authserv-id, that fit so far */
	uint16_t depth;     /* of comments */
	uint16_t held_len;
	uint8_t held[FIREWALL_HELD_MAX];
};

void firewall_init(struct firewall *firewall, unsigned classes, const char *authserv_id);

/*
 * Looks at the next piece: from in->data on, *in is advanced past what was looked at, and what is
 * to be passed on now is returned: a part of the input, or of firewall->held (valid until the
 * next call), maybe empty. Call until in->len is 0. When is_done turns true, what that call
 * returns begins with the empty line: so fields can be added before it.
 */
struct span firewall_next(struct firewall *firewall, struct span *in);

/* The message is over: what is still held (a message that ends in its header), maybe empty. */
struct span firewall_end(struct firewall *firewall);

/* Does what has passed end with a line, or is there nothing? */
static inline bool firewall_is_at_line(const struct firewall *firewall)
{
	return firewall->tail == 2;
}
