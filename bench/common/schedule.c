/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/common/schedule.h"

#include <math.h>

void schedule_init(struct schedule *schedule, uint64_t start_us, double rate, uint64_t thread,
	uint64_t threads)
{
	*schedule = (struct schedule){
		.start_us = (double)start_us,
		.distance_us = 1e6 * (double)threads / rate,
		.offset_us = 1e6 * (double)thread / rate,
		.index = thread,
		.threads = threads,
	};
}

static double schedule_gap_us(struct schedule *schedule)
{
	return -log(random_unit(&schedule->random)) * schedule->distance_us;
}

void schedule_init_poisson(struct schedule *schedule, uint64_t start_us, double rate,
	uint64_t thread, uint64_t threads, uint64_t seed)
{
	struct random mixed = {.state = seed};

	schedule_init(schedule, start_us, rate, thread, threads);
	schedule->is_poisson = true;
	/* Streams of neighbouring seeds must not be the same, moved by one. */
	schedule->random.state = random_next(&mixed) ^ (thread << 48);
	schedule->offset_us = schedule_gap_us(schedule);
}

void schedule_next(struct schedule *schedule)
{
	schedule->index += schedule->threads;
	/* Multiplied anew each time, as a sum of roundings would drift. */
	if (schedule->is_poisson)
		schedule->offset_us += schedule_gap_us(schedule);
	else
		schedule->offset_us =
			(double)schedule->index * schedule->distance_us / (double)schedule->threads;
}

uint64_t schedule_behind(
	const struct schedule *next, struct schedule *arrived, uint64_t now_us, uint64_t end)
{
	while (arrived->index < end && schedule_due_us(arrived) < now_us)
		schedule_next(arrived);
	/* What is due in this very microsecond may be taken already. */
	return arrived->index > next->index ? (arrived->index - next->index) / next->threads : 0;
}
