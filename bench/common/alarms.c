/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/common/alarms.h"

#include "bench/common/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/timerfd.h>

static void alarms_put(struct alarms *alarms, size_t place, struct alarm *alarm)
{
	alarms->heap[place] = alarm;
	alarm->place = place;
}

/* Moves an alarm up or down from place until the heap is in order. */
static void alarms_sift(struct alarms *alarms, size_t place, struct alarm *alarm)
{
	while (place > 1 && alarms->heap[place / 2]->due_us > alarm->due_us) {
		alarms_put(alarms, place, alarms->heap[place / 2]);
		place /= 2;
	}
	for (size_t child; (child = 2 * place) <= alarms->count; place = child) {
		if (child < alarms->count &&
			alarms->heap[child + 1]->due_us < alarms->heap[child]->due_us)
			child++;
		if (alarms->heap[child]->due_us >= alarm->due_us)
			break;
		alarms_put(alarms, place, alarms->heap[child]);
	}
	alarms_put(alarms, place, alarm);
}

static void alarms_arm(struct alarms *alarms)
{
	uint64_t due_us = alarms->count > 0 ? alarms->heap[1]->due_us : 0;
	struct itimerspec when = {.it_value = {.tv_sec = (time_t)(due_us / 1000000),
					  .tv_nsec = (long)(due_us % 1000000 * 1000)}};

	/* One that is set too early only rings for nothing. */
	if (due_us == 0 || (alarms->armed_us != 0 && alarms->armed_us <= due_us))
		return;
	alarms->armed_us = due_us;
	(void)timerfd_settime(alarms->fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void alarms_done(struct op *op, int32_t result, uint32_t flags)
{
	struct alarms *alarms = OWNER_OF(op, struct alarms, op);
	uint64_t now_us = clock_us();

	(void)result;
	(void)flags;
	alarms->armed_us = 0;
	while (alarms->count > 0 && alarms->heap[1]->due_us <= now_us) {
		struct alarm *alarm = alarms->heap[1];

		alarm_stop(alarms, alarm);
		alarm->ring(alarm);
	}
	alarms_arm(alarms);
	loop_read(alarms->loop, &alarms->op, alarms->fd, &alarms->ticks, sizeof(alarms->ticks));
}

int alarms_create(struct alarms *alarms, struct loop *loop, size_t alarms_max)
{
	*alarms = (struct alarms){.loop = loop, .op.done = alarms_done, .room = alarms_max};
	alarms->heap = calloc(alarms_max + 1, sizeof(struct alarm *));
	alarms->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	if (alarms->heap == NULL)
		return -ENOMEM;
	if (alarms->fd < 0)
		return -errno;
	loop_read(loop, &alarms->op, alarms->fd, &alarms->ticks, sizeof(alarms->ticks));
	return 0;
}

void alarm_set(struct alarms *alarms, struct alarm *alarm, uint64_t due_us)
{
	alarm_stop(alarms, alarm);
	ASSERT(alarms->count < alarms->room);
	alarm->due_us = due_us;
	alarms_sift(alarms, ++alarms->count, alarm);
	alarms_arm(alarms);
}

void alarm_stop(struct alarms *alarms, struct alarm *alarm)
{
	struct alarm *last;
	size_t place = alarm->place;

	if (place == 0)
		return;
	alarm->place = 0;
	last = alarms->heap[alarms->count--];
	if (last != alarm)
		alarms_sift(alarms, place, last);
}
