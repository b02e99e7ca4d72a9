/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/timer.h"

void timer_wheel_init(struct timer_wheel *wheel, uint64_t now_ms)
{
	wheel->now_tick = now_ms / TIMER_TICK_MS;
	wheel->count = 0;
	for (unsigned i = 0; i < TIMER_SLOTS; i++)
		link_init(&wheel->slots[i]);
}

/* The first tick that begins at or after due_ms. */
static uint64_t timer_tick(uint64_t due_ms)
{
	return (due_ms + TIMER_TICK_MS - 1) / TIMER_TICK_MS;
}

static void timer_slot_run(struct timer_wheel *wheel, struct link *slot, uint64_t tick)
{
	struct link due;
	struct link *link;
	struct link *after;

	/* Due timers move to a list of their own, since a call may set or stop any timer. */
	link_init(&due);
	LIST_FOR_EACH (link, after, slot) {
		struct timer *timer = OWNER_OF(link, struct timer, link);

		if (timer_tick(timer->due_ms) > tick)
			continue;
		link_remove(link);
		list_append(&due, link);
	}
	while ((link = list_take(&due)) != NULL) {
		struct timer *timer = OWNER_OF(link, struct timer, link);

		wheel->count--;
		timer->fire(timer);
	}
}

void timer_wheel_run(struct timer_wheel *wheel, uint64_t now_ms)
{
	uint64_t tick = now_ms / TIMER_TICK_MS;

	/* After a long pause one turn of the wheel visits every slot. */
	if (tick > wheel->now_tick + TIMER_SLOTS)
		wheel->now_tick = tick - TIMER_SLOTS;
	while (wheel->now_tick < tick) {
		wheel->now_tick++;
		timer_slot_run(wheel, &wheel->slots[wheel->now_tick % TIMER_SLOTS], tick);
	}
}

int64_t timer_wheel_sleep_ms(const struct timer_wheel *wheel, uint64_t now_ms)
{
	uint64_t next_ms = (wheel->now_tick + 1) * TIMER_TICK_MS;

	if (wheel->count == 0)
		return -1;
	return next_ms > now_ms ? (int64_t)(next_ms - now_ms) : 0;
}

void timer_init(struct timer *timer, void (*fire)(struct timer *timer))
{
	link_init(&timer->link);
	timer->due_ms = 0;
	timer->fire = fire;
}

void timer_set(struct timer_wheel *wheel, struct timer *timer, uint64_t due_ms)
{
	uint64_t tick = timer_tick(due_ms);

	timer_stop(wheel, timer);
	if (tick <= wheel->now_tick)
		tick = wheel->now_tick + 1;
	timer->due_ms = due_ms;
	list_append(&wheel->slots[tick % TIMER_SLOTS], &timer->link);
	wheel->count++;
}

void timer_stop(struct timer_wheel *wheel, struct timer *timer)
{
	if (!link_is_queued(&timer->link))
		return;
	link_remove(&timer->link);
	wheel->count--;
}
