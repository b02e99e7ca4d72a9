/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * clock.h: CLOCK_MONOTONIC in microseconds: load and sink of one machine have the same.
 */

#include <stdint.h>
#include <time.h>

static inline uint64_t clock_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}
