/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * histogram.h: times in microseconds, counted in buckets whose width is at most 1/64 of their
 * value; up to 2^32 us, which is more than an hour.
 */

#include <stdint.h>

#define HISTOGRAM_STEPS 64
#define HISTOGRAM_BUCKETS (HISTOGRAM_STEPS * (32 - 6 + 1))

struct histogram {
	uint64_t count;
	uint64_t buckets[HISTOGRAM_BUCKETS];
};

static inline unsigned int histogram_index(uint64_t us)
{
	unsigned int shift;

	if (us > UINT32_MAX)
		us = UINT32_MAX;
	if (us < HISTOGRAM_STEPS)
		return (unsigned int)us;
	/* The top seven bits, of which the first is always set. */
	shift = 57 - (unsigned int)__builtin_clzll(us);
	return shift * HISTOGRAM_STEPS + (unsigned int)(us >> shift);
}

static inline void histogram_add(struct histogram *histogram, uint64_t us)
{
	histogram->buckets[histogram_index(us)]++;
	histogram->count++;
}

static inline void histogram_merge(struct histogram *sum, const struct histogram *from)
{
	for (unsigned int i = 0; i < HISTOGRAM_BUCKETS; i++)
		sum->buckets[i] += from->buckets[i];
	sum->count += from->count;
}

/* The lower end of the bucket below which permille of all times lie. */
static inline uint64_t histogram_value(const struct histogram *histogram, uint64_t permille)
{
	uint64_t rank = histogram->count * permille / 1000;
	uint64_t seen = 0;

	for (unsigned int i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += histogram->buckets[i];
		if (seen > rank && i < 2 * HISTOGRAM_STEPS)
			return i;
		if (seen > rank)
			return (uint64_t)(i % HISTOGRAM_STEPS + HISTOGRAM_STEPS)
			       << (i / HISTOGRAM_STEPS - 1);
	}
	return 0;
}
