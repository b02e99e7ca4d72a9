/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * loop_fixture.h: a ring that cannot hang a test, and the sets of capabilities
 * to run each test with.
 */

#include "relay/base/span.h"
#include "relay/net/loop.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#define ENTRIES 8
#define TURNS_MAX 2000
#define GUARD_MS 10000

static struct loop_caps found;
static const struct loop_caps *caps; /* in force */

struct result {
	struct op op;
	unsigned calls;
	int32_t last;
	uint32_t flags;
	unsigned more; /* completions that said that more will come */
};

static inline void result_done(struct op *op, int32_t result, uint32_t flags)
{
	struct result *it = OWNER_OF(op, struct result, op);

	it->calls++;
	it->last = result;
	it->flags = flags;
	it->more += loop_flags_more(flags);
	assert_int_equal(op->in_flight, loop_flags_more(flags));
}

#define RESULT                               \
	(struct result)                      \
	{                                    \
		.op = {.done = result_done } \
	}

static struct timer guard;

static inline void guard_fire(struct timer *timer)
{
	(void)timer;
	fail_msg("nothing happened for %d ms", GUARD_MS);
}

static inline struct loop *loop_begin_with(unsigned entries)
{
	struct loop *loop = NULL;

	assert_int_equal(loop_create(caps, entries, &loop), 0);
	timer_init(&guard, guard_fire);
	timer_set(loop_timers(loop), &guard, loop_now_ms(loop) + GUARD_MS);
	return loop;
}

static inline struct loop *loop_begin(void)
{
	return loop_begin_with(ENTRIES);
}

/* Turns until the result has completed so often. */
static inline void loop_await(struct loop *loop, const struct result *it, unsigned calls)
{
	for (unsigned turn = 0; it->calls < calls; turn++) {
		assert_true(turn < TURNS_MAX);
		assert_int_equal(loop_turn(loop), 0);
	}
}

static inline void nudge_run(struct task *task)
{
	(void)task;
}

/* A turn that does not sleep. */
static inline void loop_turn_now(struct loop *loop)
{
	struct task nudge;

	task_init(&nudge, nudge_run);
	loop_task_add(loop, &nudge);
	assert_int_equal(loop_turn(loop), 0);
	assert_false(link_is_queued(&nudge.link));
}

static inline unsigned open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	assert_non_null(dir);
	while (readdir(dir) != NULL)
		count++;
	(void)closedir(dir);
	return count;
}

/* Runs a test with each set of capabilities, and looks for descriptors left behind. */
static inline void with_each(void (*run)(void))
{
	for (unsigned off = 0; off <= loop_cap_count + 1; off++) {
		struct loop_caps now = found;
		unsigned before = open_files();

		if (off < loop_cap_count)
			assert_true(loop_caps_disable(&now, loop_cap_names[off].name));
		if (off == loop_cap_count)
			now = (struct loop_caps){0};
		caps = &now;
		run();
		assert_int_equal(open_files(), before);
	}
}
