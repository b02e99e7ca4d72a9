/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/run.h"

#include "tests/crash/ledger.h"
#include "tests/crash/sender.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Nothing came for so long: nothing more will. */
#define RUN_QUIET_MS 3000

/* A disk that holds flushes, how often and for how long; and the time for what was on its way. */
#define RUN_HOLDS 3
#define RUN_HOLD_MS 1500
#define RUN_SETTLE_MS 700

/* With so much on its way the sender waits, or the end would take too long. */
#define RUN_OWED_MAX 1000
#define RUN_OWED_BYTES_MAX (32U << 20)

struct run {
	const struct run_options *options;
	struct daemon_options daemon;
	uint64_t starts, start_us; /* how long they took, in sum */
};

static void run_wait_ms(uint64_t ms)
{
	const struct timespec time = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};

	(void)nanosleep(&time, NULL);
}

/* The ledger, the sink; the sender is not begun yet. */
static bool run_begin(struct run *run, const struct run_options *options)
{
	int journal = -1;

	*run = (struct run){.options = options, .daemon = options->daemon};
	if (options->journal != NULL) {
		journal = open(options->journal, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOCTTY);
		if (journal < 0) {
			(void)fprintf(stderr, "crash: %s: %s\n", options->journal, strerror(errno));
			return false;
		}
	}
	/* What was written down before is not to be written down again. */
	ledger_open(options->first_id, options->doubt_ms);
	for (const char *const *earlier = options->earlier; earlier != NULL && *earlier != NULL;
		earlier++) {
		if (!ledger_read(*earlier)) {
			(void)fprintf(stderr, "crash: %s: %s\n", *earlier, strerror(errno));
			return false;
		}
	}
	ledger_go_on(options->first_id, journal);
	run->daemon.sink_port = sink_start(options->seed, options->spoil);
	run->daemon.port = daemon_free_port();
	return true;
}

static void run_send(const struct run *run, unsigned pause_ms)
{
	sender_start(&(struct sender_options){.port = run->daemon.port,
		.connections = run->options->connections,
		.seed = run->options->seed,
		.owed_max = RUN_OWED_MAX,
		.owed_bytes_max = RUN_OWED_BYTES_MAX,
		.pause_ms = pause_ms});
}

static bool run_start(struct run *run)
{
	uint64_t begun_us = ledger_now_us();

	if (!daemon_start(&run->daemon))
		return false;
	run->starts++;
	run->start_us += ledger_now_us() - begun_us;
	return true;
}

/* One life in two has a next hop that is well. */
static enum sink_mood run_mood(uint64_t lot)
{
	return lot % 2 == 0 ? SINK_WELL : (enum sink_mood)(lot / 2 % SINK_MOODS);
}

static bool run_life(struct run *run, unsigned round)
{
	uint64_t lot = letter_lot(run->options->seed, round);
	bool has_ended;

	sink_set_mood(run_mood(lot));
	if (!run_start(run))
		return false;
	run_wait_ms(1 + (lot >> 16) % run->options->up_ms_max);
	has_ended = daemon_has_ended();
	if (has_ended)
		(void)fprintf(stderr, "crash: the relay ended by itself: see %s/postern.log\n",
			run->options->daemon.dir);
	ledger_kill();
	daemon_kill();
	sink_settle();
	ledger_life_begins();
	return !has_ended;
}

/* Until nothing is owed, and what nobody is sure of has had its time, too. */
static bool run_await_all(const struct run *run)
{
	uint64_t until_us = ledger_now_us() + (uint64_t)run->options->patience_s * 1000000;
	uint64_t quiet_us = ledger_now_us() + (uint64_t)RUN_QUIET_MS * 1000;
	uint64_t taken = ledger_taken();

	while (ledger_owed() > 0 || ledger_now_us() < quiet_us) {
		if (ledger_now_us() > until_us)
			return false;
		run_wait_ms(20);
		if (ledger_taken() != taken)
			quiet_us = ledger_now_us() + (uint64_t)RUN_QUIET_MS * 1000;
		taken = ledger_taken();
	}
	return true;
}

/* The relay runs, nobody sends: all has to come; and after a clean end nothing may come again. */
static unsigned run_drain(struct run *run)
{
	uint64_t taken;

	(void)run_await_all(run);
	if (!daemon_stop()) {
		(void)fprintf(stderr, "crash: the relay does not end well: see %s/postern.log\n",
			run->options->daemon.dir);
		return RUN_FAILED;
	}
	sink_settle();
	ledger_life_begins();
	taken = ledger_taken();
	if (!run_start(run))
		return RUN_FAILED;
	run_wait_ms(RUN_QUIET_MS);
	if (!daemon_stop())
		return RUN_FAILED;
	if (ledger_taken() != taken)
		(void)printf("after a clean end %" PRIu64 " came\n", ledger_taken() - taken);
	return 0;
}

static unsigned run_judge(const struct run *run, const char *what)
{
	struct ledger_sum sum;

	(void)ledger_judge(stdout, &sum);
	(void)printf("%s: seed %" PRIu64 ", %u rounds, started in %" PRIu64
		     " ms; acknowledged %" PRIu64 ", in doubt %" PRIu64 ", incomplete %" PRIu64
		     ", refused %" PRIu64 "; taken %" PRIu64 ", again %" PRIu64
		     " (%u ms before a kill at most); lost %" PRIu64 ", wrong %" PRIu64 "\n",
		what, run->options->seed, run->options->rounds,
		run->starts == 0 ? 0 : run->start_us / run->starts / 1000, sum.acked, sum.whole,
		sum.begun, sum.refused, sum.taken, sum.twice, sum.longest_ms, sum.lost, sum.wrong);
	(void)fflush(stdout);
	if (sum.acked < run->options->rounds) {
		(void)printf("too little was acknowledged to say anything\n");
		return RUN_FAILED;
	}
	return (sum.lost > 0 ? RUN_LOST : 0U) | (sum.wrong > 0 ? RUN_WRONG : 0U);
}

unsigned run_kills(const struct run_options *options)
{
	struct run run;
	unsigned result;

	if (!run_begin(&run, options))
		return RUN_FAILED;
	run_send(&run, 0);
	for (unsigned round = 0; round < options->rounds; round++) {
		if (!run_life(&run, round))
			return RUN_FAILED;
	}
	sink_set_mood(SINK_WELL);
	if (!run_start(&run))
		return RUN_FAILED;
	sender_pause();
	result = run_drain(&run);
	return result | run_judge(&run, "killed");
}

unsigned run_until_cut(const struct run_options *options, unsigned seconds)
{
	struct run run;

	if (!run_begin(&run, options))
		return RUN_FAILED;
	sink_set_mood(run_mood(letter_lot(options->seed, 0)));
	if (!run_start(&run))
		return RUN_FAILED;
	run_send(&run, 0);
	(void)printf("running\n");
	(void)fflush(stdout);
	run_wait_ms((uint64_t)seconds * 1000);
	(void)fprintf(stderr, "crash: nobody cut the power\n");
	return RUN_FAILED;
}

/* So many acknowledgements are there behind the last one that may still be on its way. */
static uint64_t run_settled(void)
{
	run_wait_ms(RUN_SETTLE_MS);
	return ledger_acked();
}

/* More is acknowledged than that, before long. */
static bool run_await_more(const struct run *run, uint64_t than)
{
	uint64_t until_us = ledger_now_us() + (uint64_t)run->options->patience_s * 1000000;

	while (ledger_acked() <= than && ledger_now_us() < until_us)
		run_wait_ms(5);
	return ledger_acked() > than;
}

unsigned run_hold(const struct run_options *options, int disk)
{
	unsigned result = 0;
	struct run run;

	if (!run_begin(&run, options) || !run_start(&run))
		return RUN_FAILED;
	run_send(&run, 0);
	for (unsigned round = 0; round < RUN_HOLDS; round++) {
		bool goes_on = run_await_more(&run, run_settled());
		uint64_t held;

		(void)kill(disk, SIGUSR1);
		held = run_settled();
		run_wait_ms(RUN_HOLD_MS);
		if (ledger_acked() != held) {
			(void)printf("%" PRIu64 " acknowledged while no flush completed\n",
				ledger_acked() - held);
			result |= RUN_LOST;
		}
		held = ledger_acked();
		(void)kill(disk, SIGUSR2);
		if (!goes_on || !run_await_more(&run, held)) {
			(void)printf("it does not go on\n");
			result |= RUN_FAILED;
		}
	}
	sender_pause();
	(void)printf("held %u times: %" PRIu64 " acknowledged\n", RUN_HOLDS, ledger_acked());
	return result | run_drain(&run);
}

unsigned run_to_end(const struct run_options *options)
{
	struct run run;
	unsigned result;

	if (!run_begin(&run, options) || !run_start(&run))
		return RUN_FAILED;
	result = run_drain(&run);
	return result | run_judge(&run, "cut");
}
