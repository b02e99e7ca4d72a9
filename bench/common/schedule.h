/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * schedule.h: when the messages of an open loop are to be sent; fixed before the first one.
 *
 * Sources do not wait for each other, nor for the server: whoever is to be sent at 12:00:01 and
 * goes out at 12:00:03, since all connections were busy, took two seconds longer than its reply
 * says. So latency counts from these times, and the times do not depend on what happens.
 *
 * Every thread has a schedule of its own. With even distances the threads take turns: number i of
 * all is i / rate after the start. With --poisson each is a Poisson process of its share of the
 * rate, and all together are one of the whole rate.
 */

#include "bench/common/random.h"

#include <stdbool.h>

struct schedule {
	double start_us;
	double distance_us; /* mean distance between two of this thread */
	double offset_us;   /* of the next one from the start */
	uint64_t index;     /* of the next one among those of all threads */
	uint64_t threads;
	bool is_poisson;
	struct random random;
};

/* For one of threads threads, at rate messages a second in all. */
void schedule_init(struct schedule *schedule, uint64_t start_us, double rate, uint64_t thread,
	uint64_t threads);

/* Instead of even distances: by chance, which the seed repeats. */
void schedule_init_poisson(struct schedule *schedule, uint64_t start_us, double rate,
	uint64_t thread, uint64_t threads, uint64_t seed);

/* When the next message is to be sent. */
static inline uint64_t schedule_due_us(const struct schedule *schedule)
{
	return (uint64_t)(schedule->start_us + schedule->offset_us);
}

/* Goes on to the one behind. */
void schedule_next(struct schedule *schedule);

/*
 * How many messages numbered below end are due before now_us and were not taken from next. arrived
 * is a copy of next as it was in the beginning, which this moves on.
 */
uint64_t schedule_behind(
	const struct schedule *next, struct schedule *arrived, uint64_t now_us, uint64_t end);
