/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/timer.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define TICK_MS ((uint64_t)TIMER_TICK_MS)
#define TURN_MS (TICK_MS * TIMER_SLOTS)
#define START_MS 1000000007 /* in the middle of a tick */

struct alarm {
	struct timer timer;
	unsigned fired;
	uint64_t fired_ms;
	void (*then)(struct alarm *alarm);
	struct alarm *other;
};

static struct timer_wheel wheel;
static uint64_t now_ms;

static void alarm_fire(struct timer *timer)
{
	struct alarm *alarm = OWNER_OF(timer, struct alarm, timer);

	alarm->fired++;
	alarm->fired_ms = now_ms;
	assert_false(link_is_queued(&timer->link));
	if (alarm->then != NULL)
		alarm->then(alarm);
}

static struct alarm alarm_make(void)
{
	return (struct alarm){0};
}

static void alarm_set(struct alarm *alarm, uint64_t in_ms)
{
	timer_init(&alarm->timer, alarm_fire);
	timer_set(&wheel, &alarm->timer, now_ms + in_ms);
}

static int wheel_setup(void **state)
{
	(void)state;
	now_ms = START_MS;
	timer_wheel_init(&wheel, now_ms);
	return 0;
}

/* Moves the clock in steps. */
static void wheel_advance(uint64_t by_ms, uint64_t step_ms)
{
	uint64_t until_ms = now_ms + by_ms;

	while (now_ms < until_ms) {
		now_ms += step_ms < until_ms - now_ms ? step_ms : until_ms - now_ms;
		timer_wheel_run(&wheel, now_ms);
	}
}

/* Never early and at most a tick late, be it on this turn of the wheel or a later one. */
static void test_timer_on_time(void **state)
{
	static const uint64_t delays[] = {0, 1, 63, 64, 65, 127, 128, 1000, TURN_MS - 65,
		TURN_MS - 64, TURN_MS - 1, TURN_MS, TURN_MS + 1, TURN_MS + 64, 2 * TURN_MS,
		3 * TURN_MS + 77, 300000};

	(void)state;
	for (unsigned offset = 0; offset < TIMER_TICK_MS; offset += 7) {
		struct alarm alarms[COUNT_OF(delays)];
		uint64_t begin_ms;

		now_ms += offset;
		timer_wheel_init(&wheel, now_ms);
		begin_ms = now_ms;
		for (unsigned i = 0; i < COUNT_OF(delays); i++) {
			alarms[i] = alarm_make();
			alarm_set(&alarms[i], delays[i]);
		}
		assert_int_equal(wheel.count, COUNT_OF(delays));
		wheel_advance(300000 + 2 * TIMER_TICK_MS, 13);
		for (unsigned i = 0; i < COUNT_OF(delays); i++) {
			assert_int_equal(alarms[i].fired, 1);
			assert_true(alarms[i].fired_ms >= begin_ms + delays[i]);
			assert_true(alarms[i].fired_ms < begin_ms + delays[i] + TIMER_TICK_MS + 13);
		}
		assert_int_equal(wheel.count, 0);
	}
}

static void test_timer_past_fires_next(void **state)
{
	struct alarm alarm = alarm_make();

	(void)state;
	timer_init(&alarm.timer, alarm_fire);
	timer_set(&wheel, &alarm.timer, 0);
	assert_int_equal(alarm.fired, 0);
	wheel_advance(TIMER_TICK_MS, TIMER_TICK_MS);
	assert_int_equal(alarm.fired, 1);
}

/* The machine slept: all that is due fires, once, and what is not due yet stays. */
static void test_timer_long_pause(void **state)
{
	static const uint64_t pauses[] = {TURN_MS - 1, TURN_MS, TURN_MS + 1, 2 * TURN_MS + 33,
		10 * TURN_MS, 86400000, 40ULL * 365 * 86400000};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(pauses); i++) {
		struct alarm due[50];
		struct alarm later = alarm_make();

		for (unsigned n = 0; n < COUNT_OF(due); n++) {
			due[n] = alarm_make();
			alarm_set(&due[n], (pauses[i] - TIMER_TICK_MS) * n / COUNT_OF(due));
		}
		alarm_set(&later, pauses[i] + TIMER_TICK_MS);
		wheel_advance(pauses[i], pauses[i]);
		for (unsigned n = 0; n < COUNT_OF(due); n++)
			assert_int_equal(due[n].fired, 1);
		assert_int_equal(later.fired, 0);
		assert_int_equal(wheel.count, 1);
		wheel_advance(2 * TICK_MS, 1);
		assert_int_equal(later.fired, 1);
		assert_int_equal(wheel.count, 0);
	}
}

static void test_timer_clock_stands_still(void **state)
{
	struct alarm alarm = alarm_make();

	(void)state;
	alarm_set(&alarm, 100);
	for (unsigned i = 0; i < 10; i++)
		timer_wheel_run(&wheel, now_ms);
	timer_wheel_run(&wheel, now_ms - 5000); /* a clock that goes back changes nothing */
	assert_int_equal(alarm.fired, 0);
	wheel_advance(200, 1);
	assert_int_equal(alarm.fired, 1);
}

static void test_timer_move_and_stop(void **state)
{
	struct alarm alarm = alarm_make();

	(void)state;
	alarm_set(&alarm, 100);
	timer_set(&wheel, &alarm.timer, now_ms + 1000);
	assert_int_equal(wheel.count, 1);
	wheel_advance(500, 10);
	assert_int_equal(alarm.fired, 0);
	timer_set(&wheel, &alarm.timer, now_ms + 100);
	wheel_advance(200, 10);
	assert_int_equal(alarm.fired, 1);
	timer_set(&wheel, &alarm.timer, now_ms + 100);
	timer_stop(&wheel, &alarm.timer);
	timer_stop(&wheel, &alarm.timer);
	assert_int_equal(wheel.count, 0);
	wheel_advance(2 * TURN_MS, 50);
	assert_int_equal(alarm.fired, 1);
}

static void alarm_again(struct alarm *alarm)
{
	timer_set(&wheel, &alarm->timer, now_ms + 1000);
}

static void test_timer_set_itself(void **state)
{
	struct alarm alarm = alarm_make();

	(void)state;
	alarm.then = alarm_again;
	alarm_set(&alarm, 1000);
	wheel_advance(10 * (1000 + TICK_MS), 1);
	assert_in_range(alarm.fired, 10, 11);
	assert_int_equal(wheel.count, 1);
}

/* One that is due at once, from within a call, does not keep the wheel from returning. */
static void alarm_at_once(struct alarm *alarm)
{
	timer_set(&wheel, &alarm->timer, now_ms);
}

static void test_timer_set_itself_at_once(void **state)
{
	struct alarm alarm = alarm_make();

	(void)state;
	alarm.then = alarm_at_once;
	alarm_set(&alarm, 0);
	wheel_advance(10 * TICK_MS, TICK_MS);
	assert_int_equal(alarm.fired, 10);
}

static void alarm_stop_other(struct alarm *alarm)
{
	timer_stop(&wheel, &alarm->other->timer);
}

static void alarm_move_other(struct alarm *alarm)
{
	timer_set(&wheel, &alarm->other->timer, now_ms + 1000);
}

/* Of two that are due together, the first takes the second away or moves it. */
static void test_timer_touch_other(void **state)
{
	static void (*const acts[])(struct alarm *) = {alarm_stop_other, alarm_move_other};

	(void)state;
	for (unsigned act = 0; act < COUNT_OF(acts); act++) {
		for (unsigned late = 0; late < 2; late++) {
			struct alarm a = alarm_make();
			struct alarm b = alarm_make();

			a.then = acts[act];
			a.other = &b;
			alarm_set(&a, 100);
			alarm_set(&b, 100 + late * 200); /* the same slot, or one further on */
			wheel_advance(500, 500);
			assert_int_equal(a.fired, 1);
			assert_int_equal(b.fired, 0);
			wheel_advance(1500, 10);
			assert_int_equal(b.fired, act == 1);
			assert_int_equal(wheel.count, 0);
		}
	}
}

/* The time to sleep never passes a timer that is due, and is for ever when none is set. */
static void test_timer_sleep(void **state)
{
	struct alarm alarm = alarm_make();
	unsigned turns = 0;

	(void)state;
	assert_int_equal(timer_wheel_sleep_ms(&wheel, now_ms), -1);
	alarm_set(&alarm, 1000);
	while (alarm.fired == 0 && turns < 100) {
		int64_t sleep_ms = timer_wheel_sleep_ms(&wheel, now_ms);

		assert_in_range(sleep_ms, 0, TIMER_TICK_MS);
		now_ms += (uint64_t)sleep_ms;
		timer_wheel_run(&wheel, now_ms);
		turns++;
	}
	assert_int_equal(alarm.fired, 1);
	assert_true(alarm.fired_ms < START_MS + 1000 + TIMER_TICK_MS);
	assert_int_equal(timer_wheel_sleep_ms(&wheel, now_ms), -1);
	/* When the owner was away for long, it does not sleep at all. */
	alarm_set(&alarm, 10);
	assert_int_equal(timer_wheel_sleep_ms(&wheel, now_ms + 5000), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_timer_on_time, wheel_setup),
		cmocka_unit_test_setup(test_timer_past_fires_next, wheel_setup),
		cmocka_unit_test_setup(test_timer_long_pause, wheel_setup),
		cmocka_unit_test_setup(test_timer_clock_stands_still, wheel_setup),
		cmocka_unit_test_setup(test_timer_move_and_stop, wheel_setup),
		cmocka_unit_test_setup(test_timer_set_itself, wheel_setup),
		cmocka_unit_test_setup(test_timer_set_itself_at_once, wheel_setup),
		cmocka_unit_test_setup(test_timer_touch_other, wheel_setup),
		cmocka_unit_test_setup(test_timer_sleep, wheel_setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
