/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/common/clock.h"
#include "bench/common/load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* Messages under way when the time is over get so much more. */
#define LOAD_GRACE_US UINT64_C(5000000)

/* What is still open at the end gets so long to close. */
#define LOAD_CLOSE_US UINT64_C(6000000)

/* Idle sessions may take so long to open, and to answer at the end. */
#define LOAD_IDLE_MS 120000

#define LOAD_TICK_MS 64

static uint64_t load_end_us(const struct load *load)
{
	return atomic_load_explicit(&load->end_us, memory_order_relaxed);
}

void load_stop(struct load *load)
{
	atomic_store_explicit(&load->end_us, 0, memory_order_relaxed);
}

bool load_thread_has_more(struct load_thread *thread)
{
	struct load *load = thread->load;

	if (thread->is_over || clock_us() >= load_end_us(load))
		return false;
	if (thread->config->rate == 0)
		return atomic_load_explicit(&load->taken, memory_order_relaxed) <
		       thread->config->messages;
	return !thread->has_schedule ||
	       (thread->schedule.index < thread->config->messages &&
		       schedule_due_us(&thread->schedule) < load_end_us(load));
}

/* The open loop: sets the alarm for the next message, if a connection is free for it. */
static void load_thread_set_alarm(struct load_thread *thread)
{
	uint64_t due_us = schedule_due_us(&thread->schedule);
	struct itimerspec when = {.it_value = {.tv_sec = (time_t)(due_us / 1000000),
					  .tv_nsec = (long)(due_us % 1000000) * 1000}};

	if (list_is_empty(&thread->free) || !load_thread_has_more(thread))
		return;
	if (due_us != thread->alarm_us) {
		thread->alarm_us = due_us;
		(void)timerfd_settime(thread->alarm_fd, TFD_TIMER_ABSTIME, &when, NULL);
	}
	if (!thread->alarm_op.in_flight)
		loop_read(stream_net_loop(thread->net), &thread->alarm_op, thread->alarm_fd,
			&thread->alarm_count, sizeof(thread->alarm_count));
}

/* The message that is due, if one is. */
static bool load_thread_take_due(struct load_thread *thread, uint64_t *index, uint64_t *intended_us)
{
	if (!thread->has_schedule || !load_thread_has_more(thread) ||
		schedule_due_us(&thread->schedule) > clock_us())
		return false;
	*index = thread->schedule.index;
	*intended_us = schedule_due_us(&thread->schedule);
	schedule_next(&thread->schedule);
	return true;
}

/* Gives what is due to those that are free. */
static void load_thread_deal(struct load_thread *thread)
{
	uint64_t index;
	uint64_t intended_us;

	while (!list_is_empty(&thread->free) &&
		load_thread_take_due(thread, &index, &intended_us)) {
		struct load_conn *conn = OWNER_OF(list_take(&thread->free), struct load_conn, link);

		load_conn_begin(conn, index, intended_us);
		load_conn_talk(conn);
	}
	if (thread->has_schedule)
		load_thread_set_alarm(thread);
}

static void load_thread_alarm(struct op *op, int32_t result, uint32_t flags)
{
	struct load_thread *thread = OWNER_OF(op, struct load_thread, alarm_op);

	(void)flags;
	if (result > 0)
		load_thread_deal(thread);
}

enum load_turn load_thread_take(struct load_conn *conn, uint64_t *index, uint64_t *intended_us)
{
	struct load_thread *thread = conn->thread;

	if (!load_thread_has_more(thread))
		return LOAD_TURN_NONE;
	if (thread->config->rate == 0) {
		*index = atomic_fetch_add_explicit(&thread->load->taken, 1, memory_order_relaxed);
		*intended_us = clock_us();
		return *index < thread->config->messages ? LOAD_TURN_MESSAGE : LOAD_TURN_NONE;
	}
	if (load_thread_take_due(thread, index, intended_us))
		return LOAD_TURN_MESSAGE;
	list_append(&thread->free, &conn->link);
	if (thread->has_schedule)
		load_thread_set_alarm(thread);
	return LOAD_TURN_WAIT;
}

void load_thread_tried(struct load_conn *conn)
{
	struct load_thread *thread = conn->thread;
	const struct load_config *config = thread->config;

	if (conn->was_opened)
		return;
	conn->was_opened = true;
	if (++thread->tried_count < thread->conn_count || config->rate == 0)
		return;
	/* All are there, or will not be: now the times are fixed. */
	if (config->is_poisson)
		schedule_init_poisson(&thread->schedule, clock_us(), (double)config->rate,
			thread->index, config->threads, config->seed);
	else
		schedule_init(&thread->schedule, clock_us(), (double)config->rate, thread->index,
			config->threads);
	thread->arrived = thread->schedule;
	thread->has_schedule = true;
	load_thread_deal(thread);
}

static uint64_t load_thread_behind(struct load_thread *thread, uint64_t now_us)
{
	uint64_t end_us = load_end_us(thread->load);

	if (!thread->has_schedule)
		return 0;
	return schedule_behind(&thread->schedule, &thread->arrived,
		now_us < end_us ? now_us : end_us, thread->config->messages);
}

/* Several times a second: what no completion brings about. */
static void load_thread_tick(struct timer *timer)
{
	struct load_thread *thread = OWNER_OF(timer, struct load_thread, tick);
	struct loop *loop = stream_net_loop(thread->net);

	timer_set(loop_timers(loop), timer, loop_now_ms(loop) + LOAD_TICK_MS);
	if (ledger_flush(&thread->ledger) < 0)
		thread->report.ledger_failed = true;
	if (thread->config->rate > 0 && !load_thread_has_more(thread)) {
		while (!list_is_empty(&thread->free)) {
			struct load_conn *conn =
				OWNER_OF(list_take(&thread->free), struct load_conn, link);

			load_conn_quit(conn);
			load_conn_talk(conn);
		}
	}
	if (!thread->config->has_progress)
		return;
	pthread_mutex_lock(&thread->second.lock);
	thread->second.open = thread->open_count;
	thread->second.behind = load_thread_behind(thread, clock_us());
	pthread_mutex_unlock(&thread->second.lock);
}

static int load_thread_open(struct load_thread *thread)
{
	const struct load_config *config = thread->config;
	uint64_t idle =
		config->idle / config->threads + (thread->index < config->idle % config->threads);
	struct stream_net_options options = {
		.code = (enum stream_code)config->code,
		.streams_max = (unsigned)(thread->conn_count + idle),
		.tls = config->plan.tls != CLIENT_PLAIN ? &config->tls : NULL,
	};
	int rc = stream_net_create(&thread->net, &options);
	struct loop *loop;

	if (rc < 0)
		return rc;
	rc = ledger_open(&thread->ledger, config->ledger);
	if (rc < 0) {
		(void)fprintf(stderr, "postern-load: %s: %s\n", config->ledger, strerror(-rc));
		return rc;
	}
	thread->alarm_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	if (thread->alarm_fd < 0)
		return -errno;
	thread->alarm_op.done = load_thread_alarm;
	loop = stream_net_loop(thread->net);
	timer_init(&thread->tick, load_thread_tick);
	timer_set(loop_timers(loop), &thread->tick, loop_now_ms(loop) + LOAD_TICK_MS);
	return idlers_create(&thread->idlers, thread->net, &config->plan, idle,
		thread->index * (config->idle / config->threads + 1));
}

/* All threads begin to send at one time, when each is ready. */
static void load_thread_await_start(struct load_thread *thread)
{
	struct load *load = thread->load;

	pthread_barrier_wait(&load->start);
	if (thread->index == 0) {
		uint64_t never = UINT64_MAX;

		load->started_us = clock_us();
		/* Unless somebody has said stop already. */
		atomic_compare_exchange_strong(
			&load->end_us, &never, load->started_us + load->config.seconds * 1000000);
	}
	pthread_barrier_wait(&load->start);
}

static bool load_thread_turn(struct load_thread *thread)
{
	int rc = loop_turn(stream_net_loop(thread->net));

	if (rc < 0)
		(void)fprintf(stderr, "postern-load: io_uring: %s\n", strerror(-rc));
	return rc >= 0;
}

static void load_thread_send(struct load_thread *thread)
{
	struct load *load = thread->load;
	uint64_t over_us = 0;

	for (uint64_t i = 0; i < thread->conn_count; i++)
		load_conn_open(&thread->conns[i]);
	while (thread->done_count < thread->conn_count && load_thread_turn(thread)) {
		uint64_t now_us = clock_us();

		if (over_us == 0 && now_us >= load_end_us(load))
			over_us = now_us;
		if (over_us != 0 && now_us >= over_us + LOAD_GRACE_US)
			break;
	}
	thread->is_over = true;
	thread->report.behind = load_thread_behind(thread, clock_us());
}

/* Ends what is still open. */
static void load_thread_end(struct load_thread *thread)
{
	uint64_t end_us = clock_us() + LOAD_CLOSE_US;

	for (uint64_t i = 0; i < thread->conn_count; i++)
		load_conn_abort(&thread->conns[i]);
	while (thread->done_count < thread->conn_count && clock_us() < end_us &&
		load_thread_turn(thread))
		;
	if (thread->alarm_op.in_flight)
		loop_cancel(stream_net_loop(thread->net), &thread->alarm_op);
	while (thread->alarm_op.in_flight && load_thread_turn(thread))
		;
	for (uint64_t i = 0; i < thread->conn_count; i++) {
		stream_session_drop(&thread->conns[i].session);
		stream_session_drop(&thread->conns[i].fresh);
	}
}

void *load_thread_run(void *argument)
{
	struct load_thread *thread = argument;
	struct report *report = &thread->report;
	bool is_open = load_thread_open(thread) == 0;

	if (is_open)
		idlers_open_all(&thread->idlers, clock_us() / 1000 + LOAD_IDLE_MS);
	else
		atomic_store(&thread->load->is_broken, true);
	load_thread_await_start(thread);
	if (is_open && !atomic_load(&thread->load->is_broken)) {
		load_thread_send(thread);
		load_thread_end(thread);
	}
	if (is_open) {
		idlers_ask_all(&thread->idlers, clock_us() / 1000 + LOAD_IDLE_MS);
		report->idle_open = thread->idlers.open;
		report->idle_alive = thread->idlers.alive;
		report->idle_failed = thread->idlers.failed;
		timer_stop(loop_timers(stream_net_loop(thread->net)), &thread->tick);
	}
	if (ledger_close(&thread->ledger) < 0)
		report->ledger_failed = true;
	idlers_destroy(&thread->idlers);
	stream_net_destroy(&thread->net);
	if (thread->alarm_fd >= 0)
		close(thread->alarm_fd);
	return NULL;
}
