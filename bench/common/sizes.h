/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * sizes.h: of which size each message is: "4k:70,64k:25,1m:5" are 70 of 100 messages of 4 KiB, and
 * so on.
 *
 * The messages take cards from a deck, in which each size has its exact share in every hundred (the
 * sum of the shares); their order within it is shuffled by a seed. So two runs send the same.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIZES_MAX 16
#define SIZES_SHARE_MAX 1000 /* of all shares together */
#define SIZES_CARDS_MIN 4000 /* so that the order does not repeat too soon */

struct sizes {
	unsigned count;
	unsigned share_sum;
	uint64_t bytes[SIZES_MAX];
	unsigned shares[SIZES_MAX];
	size_t card_count;
	uint8_t cards[SIZES_CARDS_MIN + SIZES_SHARE_MAX]; /* indices into bytes */
};

/* One size for all. */
void sizes_init(struct sizes *sizes, uint64_t bytes);

/* Reads a mix; false when it is none, or when a size is not within min and max. */
bool sizes_parse(struct sizes *sizes, const char *text, uint64_t min, uint64_t max);

/* Makes the deck. */
void sizes_shuffle(struct sizes *sizes, uint64_t seed);

/* The index into bytes of message number index. */
static inline unsigned sizes_pick(const struct sizes *sizes, uint64_t index)
{
	return sizes->cards[index % sizes->card_count];
}
