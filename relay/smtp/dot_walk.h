/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * dot_walk.h: body text, walked over many bytes at a time. Finds the dots that begin a line, closes
 * the gaps that they leave, and notices what may not be in a body.
 *
 * Belongs to dot.c, which says what a dot means.
 */

#include "relay/base/assert.h"
#include "relay/base/span.h"

/* RFC 5322 2.1.1: bytes of a line before its CR LF; a stuffed dot does not count. */
#define BODY_LINE_BYTES_MAX 998

/*
 * Text is moved for the dot in front of it up to so many bytes and a few more; the walk ends there,
 * since what lies behind can stay where it is.
 */
#define DOT_MOVE_BYTES_MAX 2048

/* What is done about a dot that begins a line. */
enum dot_walk_how {
	DOT_WALK_PASS, /* it is text */
	DOT_WALK_STOP, /* the walk ends in front of it */
	DOT_WALK_TAKE, /* it is taken out, or the walk ends in front of it */
};

/* A walk over one piece of input. */
struct dot_walk {
	struct span in;
	size_t at;         /* how far it came */
	ptrdiff_t line_at; /* where the line began; negative: in an earlier piece */
	unsigned flaws;    /* enum body_flaw */
	enum dot_walk_how how;
	bool is_after_cr; /* the byte before is a CR */
	bool is_at_start; /* of a line */

	uint8_t *out;  /* TAKE: where text goes, in front of all of in or where that begins */
	size_t moved;  /* private, TAKE: up to here text lies where it shall */
	bool is_rough; /* private: the line began somewhere in the group that begins at line_at */
};

/*
 * Walks on from at. With DOT_WALK_TAKE the text lies in one piece afterwards that ends at out. Such
 * a walk may end in front of any dot that begins a line, and in front of each that may be the end
 * of data; or after DOT_MOVE_BYTES_MAX.
 */
void dot_walk(struct dot_walk *walk);

/*
 * There is a way to walk for each size of vectors, and each gives the same: 0 is what every
 * processor has. The best was chosen before main(); this chooses another, for tests. False: this
 * processor has it not, or there is none of that number.
 */
NODISCARD bool dot_walk_choose(unsigned way);
