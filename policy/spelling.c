/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/spelling.h"
#include <stdint.h>
#include <string.h>

#define WORD_BYTES_MAX 255

/* Letters of a domain for each slip that it is forgiven. */
#define LETTERS_PER_SLIP ((size_t)6)

static unsigned smallest(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

unsigned spelling_distance(const char *a, const char *b)
{
	/*
	 * cost[i][j]: from the first i letters of a to the first j of b. No value is above 255, as
	 * replacing all letters costs no more than the longer word has.
	 */
	uint8_t cost[WORD_BYTES_MAX + 1][WORD_BYTES_MAX + 1];
	unsigned row_of[UINT8_MAX + 1] = {0}; /* where a letter was last in a; 0: not yet */
	const size_t a_len = strlen(a), b_len = strlen(b);

	ASSERT(a_len <= WORD_BYTES_MAX && b_len <= WORD_BYTES_MAX);
	for (unsigned i = 0; i <= a_len; i++)
		cost[i][0] = (uint8_t)i;
	for (unsigned j = 0; j <= b_len; j++)
		cost[0][j] = (uint8_t)j;
	for (unsigned i = 1; i <= a_len; i++) {
		unsigned column = 0; /* where a's letter was last in b */

		for (unsigned j = 1; j <= b_len; j++) {
			const unsigned row = row_of[(uint8_t)b[j - 1]];
			const bool same = a[i - 1] == b[j - 1];
			unsigned best = smallest(cost[i - 1][j], cost[i][j - 1]) + 1;

			best = smallest(best, cost[i - 1][j - 1] + (same ? 0u : 1u));
			/* Swapped, with what lies between left out of one and added to the other.
			 */
			if (row > 0 && column > 0)
				best = smallest(best, cost[row - 1][column - 1] + (i - row - 1) +
							      1 + (j - column - 1));
			cost[i][j] = (uint8_t)best;
			if (same)
				column = j;
		}
		row_of[(uint8_t)a[i - 1]] = i;
	}
	return cost[a_len][b_len];
}

bool spelling_is_near(const char *a, const char *b)
{
	const size_t a_len = strlen(a), b_len = strlen(b);
	const size_t shorter = a_len < b_len ? a_len : b_len;
	const size_t longer = a_len < b_len ? b_len : a_len;
	unsigned distance = 0;

	if (longer - shorter > 2 || longer > WORD_BYTES_MAX || shorter < LETTERS_PER_SLIP)
		return false;
	distance = spelling_distance(a, b);
	return distance > 0 && distance <= 2 && distance * LETTERS_PER_SLIP <= shorter;
}
