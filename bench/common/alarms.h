/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * alarms.h: calls of one thread at a time to the microsecond, where the wheel of timer.h is too
 * coarse: a heap, and one timerfd that the ring reads.
 */

#include "relay/net/loop.h"

#include <stddef.h>
#include <stdint.h>

struct alarm {
	uint64_t due_us;
	size_t place; /* in the heap, from 1 on; 0: it is not set */
	void (*ring)(struct alarm *alarm);
};

struct alarms {
	struct loop *loop;
	struct op op;
	int fd;
	uint64_t ticks;    /* what is read from fd */
	uint64_t armed_us; /* what fd is set to; 0: nothing */
	size_t count;
	size_t room;
	struct alarm **heap;
};

/* alarms_max: set at the same time. -errno. */
int alarms_create(struct alarms *alarms, struct loop *loop, size_t alarms_max);

/* Sets it, or moves it. Must not have been set more often than alarms_max allows. */
void alarm_set(struct alarms *alarms, struct alarm *alarm, uint64_t due_us);

/* Harmless when it is not set. */
void alarm_stop(struct alarms *alarms, struct alarm *alarm);
