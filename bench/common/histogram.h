/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * histogram.h: times in microseconds, counted in buckets whose width is at most 1/64 of their
 * value; up to 2^32 us, which is more than an hour. The largest and the mean are exact.
 */

#include <stdint.h>

#define HISTOGRAM_STEPS 64
#define HISTOGRAM_BUCKETS (HISTOGRAM_STEPS * (32 - 6 + 1))

struct histogram {
	uint64_t count;
	uint64_t sum_us;
	uint64_t max_us;
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
	histogram->sum_us += us;
	if (us > histogram->max_us)
		histogram->max_us = us;
}

static inline void histogram_merge(struct histogram *sum, const struct histogram *from)
{
	for (unsigned int i = 0; i < HISTOGRAM_BUCKETS; i++)
		sum->buckets[i] += from->buckets[i];
	sum->count += from->count;
	sum->sum_us += from->sum_us;
	if (from->max_us > sum->max_us)
		sum->max_us = from->max_us;
}

/* The lowest time that bucket index counts. */
static inline uint64_t histogram_floor(unsigned int index)
{
	if (index < 2 * HISTOGRAM_STEPS)
		return index;
	return (uint64_t)(index % HISTOGRAM_STEPS + HISTOGRAM_STEPS)
	       << (index / HISTOGRAM_STEPS - 1);
}

static inline double histogram_mean(const struct histogram *histogram)
{
	return histogram->count > 0 ? (double)histogram->sum_us / (double)histogram->count : 0;
}

/* The lower end of the bucket below which permille of all times lie. */
static inline uint64_t histogram_value(const struct histogram *histogram, uint64_t permille)
{
	uint64_t rank = histogram->count * permille / 1000;
	uint64_t seen = 0;

	for (unsigned int i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += histogram->buckets[i];
		if (seen > rank)
			return histogram_floor(i);
	}
	return 0;
}
