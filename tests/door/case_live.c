/* SPDX-License-Identifier: Apache-2.0 */

/*
 * case_live.c: a large list is replaced again and again while clients come from prefixes that stay,
 * prefixes that go and prefixes that come. Counts are judged, times are printed.
 */

#include "tests/door/case.h"
#include "tests/door/large.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LIVE_SESSIONS 40

/* Clients, and what is known of the commands. */
struct live {
	struct crowd *kept, *kept_v6, *stranger;
	struct crowd *part[2]; /* A, B */
	struct text list[2];
	int sessions[2 * LIVE_SESSIONS];
	unsigned long *answer_us; /* of each command: until the answer came */
	unsigned long *effect_us; /* and what the relay says */
};

static uint64_t live_now_us(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* 1000 a second together. */
static void live_start_clients(struct live *live, bool by_kernel, unsigned count)
{
	struct crowd_plan plan = large_crowd(LARGE_KEPT, count, false);

	plan.allowed = SERVED;
	plan.per_second = 300;
	live->kept = crowd_start(&plan);
	plan = large_crowd(LARGE_KEPT, count, true);
	plan.allowed = SERVED;
	plan.per_second = 100;
	live->kept_v6 = crowd_start(&plan);
	plan = large_crowd(LARGE_A, count, false);
	plan.allowed = SERVED;
	plan.per_second = 250;
	live->part[0] = crowd_start(&plan);
	plan.pattern = large_crowd(LARGE_B, count, false).pattern;
	plan.allowed = STRANGER(by_kernel);
	live->part[1] = crowd_start(&plan);
	live->stranger = crowd_start(&(struct crowd_plan){.pattern = "23.0.%u.%u",
		.count = 10000,
		.to = CASE_V4,
		.allowed = STRANGER(by_kernel),
		.per_second = 100});
}

static void live_open_sessions(struct live *live)
{
	for (unsigned i = 0; i < COUNT_OF(live->sessions); i++) {
		char from[64];
		struct knock got;

		(void)snprintf(
			from, sizeof(from), "%u.0.%u.3", i % 2 == 0 ? LARGE_KEPT : LARGE_A, i / 2);
		got = knock(from, CASE_V4, DAEMON_PORT, true);
		case_check(got.fd >= 0, "no session from %s: %s", from, knock_word(got.end));
		live->sessions[i] = got.fd;
	}
}

/*
 * One replacement. Until it is sent part "from" comes in and part "to" does not; when the answer is
 * here it is the other way round. In between each may go either way.
 */
static void live_replace(
	struct live *live, const struct daemon *daemon, unsigned round, bool by_kernel)
{
	struct crowd *from = live->part[round % 2];
	struct crowd *to = live->part[1 - round % 2];
	struct daemon_answer answer;
	uint64_t begun;

	/* Who passed the door and was then removed is closed by the worker. */
	crowd_allow(from, SERVED | STRANGER(by_kernel) | 1U << KNOCK_CLOSED);
	crowd_allow(to, SERVED | STRANGER(by_kernel) | 1U << KNOCK_CLOSED);
	begun = live_now_us();
	case_check(daemon_ask(daemon,
			   "{\"command\": \"partner-ip-replace\", \"partner\": \"friends\"}",
			   &live->list[1 - round % 2], &answer, NULL),
		"replacement %u: no answer", round);
	live->answer_us[round] = (unsigned long)(live_now_us() - begun);
	crowd_allow(from, STRANGER(by_kernel));
	crowd_allow(to, SERVED);
	case_check(answer.ok && answer.generation == round + 2, "replacement %u: %s", round,
		answer.raw);
	live->effect_us[round] = answer.effect_us;
	crowd_await(from, 5);
	crowd_await(to, 5);
}

static int live_compare(const void *a, const void *b)
{
	unsigned long left = *(const unsigned long *)a;
	unsigned long right = *(const unsigned long *)b;

	return left < right ? -1 : left > right;
}

static void live_tell_times(const char *what, unsigned long *us, unsigned count)
{
	qsort(us, count, sizeof(*us), live_compare);
	(void)printf("  %s: %lu.%03lu ms least, %lu.%03lu median, %lu.%03lu most\n", what,
		us[0] / 1000, us[0] % 1000, us[count / 2] / 1000, us[count / 2] % 1000,
		us[count - 1] / 1000, us[count - 1] % 1000);
}

/* One prefix, in and out, while all that goes on. */
static void live_single(struct live *live, const struct daemon *daemon)
{
	unsigned long us[50];
	unsigned long effect_us[COUNT_OF(us)];

	for (unsigned i = 0; i < COUNT_OF(us); i++) {
		struct daemon_answer answer;
		uint64_t begun = live_now_us();

		daemon_change(daemon, i % 2 == 0 ? "partner-ip-add" : "partner-ip-remove",
			"24.0.0.0/24\n", NULL, &answer);
		us[i] = (unsigned long)(live_now_us() - begun);
		effect_us[i] = answer.effect_us;
		case_check((knock("24.0.0.1", CASE_V4, DAEMON_PORT, false).end == KNOCK_SERVED) ==
				   (i % 2 == 0),
			"a prefix is not in force when the answer is there");
	}
	live_tell_times("one prefix, until in force", effect_us, COUNT_OF(us));
	live_tell_times("one prefix, until the answer", us, COUNT_OF(us));
	crowd_await(live->kept, 1);
}

static unsigned long live_end(struct live *live)
{
	struct crowd *all[] = {
		live->kept, live->kept_v6, live->part[0], live->part[1], live->stranger};
	unsigned long sum = 0;

	for (unsigned i = 0; i < COUNT_OF(all); i++) {
		sum += crowd_knocks(all[i]);
		crowd_stop(all[i]);
	}
	for (unsigned i = 0; i < COUNT_OF(live->sessions); i++)
		case_check(knock_lives(live->sessions[i]), "session %u was dropped", i);
	for (unsigned i = 0; i < 2; i++)
		case_check(crowd_ends(live->part[i], KNOCK_SERVED) > 0 &&
				   crowd_knocks(live->part[i]) >
					   crowd_ends(live->part[i], KNOCK_SERVED),
			"part %u did not come and go", i);
	return sum;
}

static void live_run(bool by_kernel)
{
	unsigned count = large_count();
	unsigned replaces = large_replaces();
	struct live live = {.answer_us = calloc(replaces, sizeof(unsigned long)),
		.effect_us = calloc(replaces, sizeof(unsigned long))};
	struct daemon_door door;
	struct daemon daemon;
	unsigned long knocks;
	uint64_t begun;
	uint64_t took;

	large_list(LARGE_A, count, &live.list[0]);
	large_list(LARGE_B, count, &live.list[1]);
	case_begin(&daemon, by_kernel, live.list[0].data);
	daemon_start(&daemon);
	live_open_sessions(&live);
	live_start_clients(&live, by_kernel, count);
	begun = live_now_us();
	for (unsigned i = 0; i < replaces; i++)
		live_replace(&live, &daemon, i, by_kernel);
	took = live_now_us() - begun;
	(void)printf("  %u prefixes replaced %u times in %lu.%lu s:\n", count, replaces,
		(unsigned long)(took / 1000000), (unsigned long)(took / 100000 % 10));
	live_tell_times("the whole, until in force", live.effect_us, replaces);
	live_tell_times("the whole, until the answer", live.answer_us, replaces);
	live_single(&live, &daemon);
	took = live_now_us() - begun;
	knocks = live_end(&live);
	daemon_door(&daemon, &door);
	(void)printf(
		"  turns of the worker's loop: %s; longest %lu us\n", door.lag, door.lag_max_us);
	(void)fflush(stdout);
	daemon_stop(&daemon);
	case_note("%lu knocks, %lu a second: none wrong", knocks,
		(unsigned long)(knocks * 1000000 / (took + 1)));
}

static const struct door_case rows[] = {
	{"live/replace", live_run, BY_KERNEL | BY_USER, 15},
};

const struct door_table case_live = {rows, COUNT_OF(rows)};
