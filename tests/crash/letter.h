/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * letter.h: messages that can be told from one another, and from what a fault made of them.
 *
 * A letter is made from its number alone. Its header has the number and the SHA-256 of number and
 * body; whoever takes it needs nothing else to say whether it is whole, unchanged, and itself.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A body of this length at the most, before lines are stuffed. */
#define LETTER_BYTES_MAX (3U << 20)
#define LETTER_RCPTS_MAX 3

struct letter {
	uint64_t id;
	char *text; /* header and body, lines end in CR LF, nothing is stuffed */
	size_t bytes;
	unsigned rcpts;
};

/* The text is freed by letter_free(). */
void letter_make(uint64_t id, struct letter *out);
void letter_free(struct letter *letter);

/* How large letter id is, roughly, without making it; and how many recipients it has. */
size_t letter_body_bytes(uint64_t id);
unsigned letter_rcpts(uint64_t id);

/*
 * Is what came a letter, as it was made? Fields that were put in front of it are its carrier's. *id
 * is that which it says to have, UINT64_MAX if it says none.
 */
bool letter_is_good(const char *text, size_t bytes, uint64_t *id);

/* A number that looks random, from two others; for all that is drawn by lot. */
uint64_t letter_lot(uint64_t a, uint64_t b);
