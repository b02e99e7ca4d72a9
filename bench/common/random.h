/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * random.h: numbers by chance that a seed repeats (SplitMix64). Not for secrets.
 */

#include <stdint.h>

struct random {
	uint64_t state;
};

static inline uint64_t random_next(struct random *random)
{
	uint64_t z = (random->state += 0x9e3779b97f4a7c15ULL);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

/* Greater than 0 and not greater than 1. */
static inline double random_unit(struct random *random)
{
	return (double)((random_next(random) >> 11) + 1) * 0x1p-53;
}
