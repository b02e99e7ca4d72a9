/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * timer.h: one timer wheel a worker; timers are embedded in their owners.
 *
 * The clock is passed in, so a test can move it. A timer fires once, from
 * timer_wheel_run(), never earlier than asked and at most one tick late. It may
 * be set or stopped from within any timer's call.
 */

#include "relay/base/assert.h"
#include "relay/base/list.h"
#include <stdint.h>

#define TIMER_TICK_MS 64
#define TIMER_SLOTS 1024 /* a turn of the wheel is 65.5 s; later timers wait in their slot */

struct timer {
	struct link link;
	uint64_t due_ms;
	void (*fire)(struct timer *timer);
};

struct timer_wheel {
	uint64_t now_tick; /* ticks up to this one have fired */
	unsigned count;    /* timers that are set */
	struct link slots[TIMER_SLOTS];
};

/* Begins at now_ms (monotonic). */
void timer_wheel_init(struct timer_wheel *wheel, uint64_t now_ms);

/* Fires what is due at now_ms. */
void timer_wheel_run(struct timer_wheel *wheel, uint64_t now_ms);

/* How long the owner may sleep before the next timer_wheel_run(): -1 for ever, else ms. */
int64_t timer_wheel_sleep_ms(const struct timer_wheel *wheel, uint64_t now_ms);

void timer_init(struct timer *timer, void (*fire)(struct timer *timer));

/* Sets or moves the timer to due_ms. */
void timer_set(struct timer_wheel *wheel, struct timer *timer, uint64_t due_ms);

/* Harmless when it is not set. */
void timer_stop(struct timer_wheel *wheel, struct timer *timer);
