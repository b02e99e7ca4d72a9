/* SPDX-License-Identifier: Apache-2.0 */

/*
 * postern-sink.c: a next hop that accepts mail, checks it, throws it away, and counts.
 *
 * Each message of postern-load has a run, a number and a sum: what is altered, doubled, or in a
 * ledger and not here, is found. SIGUSR1 prints the counters, SIGUSR2 sets them to 0 and forgets
 * all numbers, SIGTERM and SIGINT print the counters and end.
 */

#include "bench/common/clock.h"
#include "bench/common/sink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* How long sessions are waited for when --messages have come. */
#define SINK_GRACE_US 2000000

static struct sink sink;
static struct promises *promises; /* NULL: no ledger was given */

/* The counters of all workers together. */
struct sink_sum {
#define SINK_FIELD(name) uint64_t name;
	SERVER_COUNTERS(SINK_FIELD)
#undef SINK_FIELD
	uint64_t faults[FAULTS_STEP_COUNT];
	uint64_t delays;
	uint64_t refused;
	uint64_t open;
	uint64_t first_us;
	uint64_t last_us;
	struct seen_totals seen;
	int ledger_error; /* -errno: what was promised is not known */
};

static uint64_t sink_read(_Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

static void sink_sum(struct sink_sum *sum)
{
	*sum = (struct sink_sum){.first_us = UINT64_MAX};
	for (uint64_t i = 0; i < sink.config.threads; i++) {
		struct sink_worker *worker = &sink.workers[i];
		struct server_counters *counters = &worker->counters;
		uint64_t first_us = sink_read(&counters->first_us);
		uint64_t last_us = sink_read(&counters->last_us);

#define SINK_SUM(name) sum->name += sink_read(&counters->name);
		SERVER_COUNTERS(SINK_SUM)
#undef SINK_SUM
		for (unsigned step = 0; step < FAULTS_STEP_COUNT; step++)
			sum->faults[step] += sink_read(&counters->faults[step]);
		sum->delays += sink_read(&counters->delays);
		sum->refused += sink_read(&worker->refused);
		sum->open += sink_read(&worker->open);
		if (first_us != 0 && first_us < sum->first_us)
			sum->first_us = first_us;
		if (last_us > sum->last_us)
			sum->last_us = last_us;
	}
	if (sum->first_us == UINT64_MAX)
		sum->first_us = 0;
}

/* The same, and what the ledgers say. */
static void sink_sum_all(struct sink_sum *sum)
{
	int rc = promises != NULL ? promises_read(promises, sink.config.policy.seen) : 0;

	sink_sum(sum);
	if (sink.config.policy.is_verifying)
		seen_total(sink.config.policy.seen, &sum->seen);
	sum->ledger_error = rc;
	if (rc < 0)
		(void)fprintf(stderr, "postern-sink: ledger: %s\n", strerror(-rc));
	if (sum->seen.unwatched > 0)
		(void)fprintf(stderr,
			"postern-sink: numbers in more than %d pages of %d: not all are watched\n",
			SEEN_PAGES_MAX, SEEN_PAGE_IDS);
}

static void sink_print_json(const struct sink_sum *sum)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	(void)printf("{");
#define SINK_PRINT(name) (void)printf("\"%s\":%" PRIu64 ",", #name, sum->name);
	SERVER_COUNTERS(SINK_PRINT)
#undef SINK_PRINT
	/* Without a ledger, or when it cannot be read, nobody knows. */
	if (promises != NULL && sum->ledger_error == 0)
		(void)printf("\"lost\":%" PRIu64 ",\"unacknowledged\":%" PRIu64 ",", sum->seen.lost,
			sum->seen.unacknowledged);
	else
		(void)printf("\"lost\":null,\"unacknowledged\":null,");
	(void)printf("\"unwatched\":%" PRIu64 ",\"refused\":%" PRIu64 ",\"open\":%" PRIu64
		     ",\"faults\":{",
		sum->seen.unwatched, sum->refused, sum->open);
	for (unsigned step = 0; step < FAULTS_STEP_COUNT; step++)
		(void)printf("%s\"%s\":%" PRIu64, step > 0 ? "," : "", faults_step_names[step],
			sum->faults[step]);
	(void)printf("},\"delays\":%" PRIu64 ",\"first_us\":%" PRIu64 ",\"last_us\":%" PRIu64
		     ",\"tls_code\":\"%s\",\"cpu_user_seconds\":%ld.%03ld,"
		     "\"cpu_system_seconds\":%ld.%03ld}\n",
		sum->delays, sum->first_us, sum->last_us,
		sink.config.code == STREAM_POSTERN ? "postern" : "stock",
		(long)usage.ru_utime.tv_sec, (long)usage.ru_utime.tv_usec / 1000,
		(long)usage.ru_stime.tv_sec, (long)usage.ru_stime.tv_usec / 1000);
}

static void sink_print_text(const struct sink_sum *sum)
{
	double seconds = (double)(sum->last_us - sum->first_us) / 1e6;

	(void)printf(
		"%" PRIu64 " messages, %.1f MB", sum->messages, (double)sum->message_bytes / 1e6);
	if (seconds > 0)
		(void)printf(", in %.3f s, %.1f/s", seconds, (double)sum->messages / seconds);
	(void)printf("\n%" PRIu64 " right, %" PRIu64 " corrupt, %" PRIu64 " foreign, %" PRIu64
		     " duplicates, %" PRIu64 " incomplete",
		sum->verified, sum->corrupt, sum->foreign, sum->duplicates, sum->incomplete);
	if (promises != NULL && sum->ledger_error == 0)
		(void)printf(", %" PRIu64 " lost, %" PRIu64 " unacknowledged", sum->seen.lost,
			sum->seen.unacknowledged);
	(void)printf("\n%" PRIu64 " sessions, %" PRIu64 " with TLS, %" PRIu64 " resumed, %" PRIu64
		     " failed\n",
		sum->sessions, sum->tls_sessions, sum->tls_resumed, sum->tls_failed);
	for (unsigned step = 0; step < FAULTS_STEP_COUNT; step++)
		if (sum->faults[step] > 0)
			(void)printf("%" PRIu64 " faults at %s\n", sum->faults[step],
				faults_step_names[step]);
}

/* Prints the counters; true: nothing was lost, doubled or altered. */
static bool sink_print(void)
{
	struct sink_sum sum;

	sink_sum_all(&sum);
	if (sink.config.is_text)
		sink_print_text(&sum);
	else
		sink_print_json(&sum);
	(void)fflush(stdout);
	return sum.corrupt == 0 && sum.duplicates == 0 && sum.seen.unwatched == 0 &&
	       (promises == NULL ||
		       (sum.ledger_error == 0 && sum.seen.lost == 0 && sum.foreign == 0));
}

static void sink_reset(void)
{
	int rc = promises != NULL ? promises_skip(promises) : 0;

	for (uint64_t i = 0; i < sink.config.threads; i++) {
		struct server_counters *counters = &sink.workers[i].counters;

#define SINK_RESET(name) atomic_store(&counters->name, 0);
		SERVER_COUNTERS(SINK_RESET)
#undef SINK_RESET
		for (unsigned step = 0; step < FAULTS_STEP_COUNT; step++)
			atomic_store(&counters->faults[step], 0);
		atomic_store(&counters->delays, 0);
		atomic_store(&counters->first_us, 0);
		atomic_store(&counters->last_us, 0);
		atomic_store(&sink.workers[i].refused, 0);
	}
	seen_reset(sink.config.policy.seen);
	if (rc < 0)
		(void)fprintf(stderr, "postern-sink: ledger: %s\n", strerror(-rc));
	(void)printf("reset\n");
	(void)fflush(stdout);
}

/* A line: what the last second has brought. */
static void sink_show(struct sink_sum *before, uint64_t passed)
{
	struct sink_sum now;

	sink_sum(&now);
	(void)fprintf(stderr,
		"%4" PRIu64 " s: %" PRIu64 " messages/s, %.2f MB/s, %" PRIu64 " sessions, %" PRIu64
		" corrupt, %" PRIu64 " duplicates\n",
		passed, now.messages - before->messages,
		(double)(now.message_bytes - before->message_bytes) / 1e6, now.open, now.corrupt,
		now.duplicates);
	*before = now;
}

/* So many messages have come; whoever sent the last is told so, and may say goodbye. */
static void sink_finish(void)
{
	uint64_t end_us = clock_us() + SINK_GRACE_US;
	struct sink_sum sum;

	do {
		(void)poll(NULL, 0, 5);
		sink_sum(&sum);
	} while (sum.open > 0 && clock_us() < end_us && !atomic_load(&sink.is_broken));
}

/* Answers signals until one of them, or a bound, says stop; returns the exit status. */
static int sink_serve(int signals)
{
	struct pollfd polls[] = {
		{.fd = signals, .events = POLLIN}, {.fd = sink.stop_fd, .events = POLLIN}};
	struct signalfd_siginfo info = {0};
	struct sink_sum before = {0};
	uint64_t begun_us = clock_us();
	uint64_t passed = 0;

	while (sink.config.seconds == 0 || passed < sink.config.seconds) {
		uint64_t next_us = begun_us + (passed + 1) * 1000000;
		uint64_t now_us = clock_us();
		int wait_ms = now_us < next_us ? (int)((next_us - now_us + 999) / 1000) : 0;

		if (!sink.config.has_progress && sink.config.seconds == 0)
			wait_ms = -1;
		if (poll(polls, 2, wait_ms) == 0) {
			passed++;
			if (sink.config.has_progress)
				sink_show(&before, passed);
			continue;
		}
		if (polls[1].revents != 0) {
			sink_finish();
			break;
		}
		if (read(signals, &info, sizeof(info)) != sizeof(info))
			continue;
		if (info.ssi_signo == SIGUSR1) {
			(void)sink_print();
		} else if (info.ssi_signo == SIGUSR2) {
			sink_reset();
			before = (struct sink_sum){0};
		} else {
			break;
		}
	}
	return sink_print() && !atomic_load(&sink.is_broken) ? 0 : 1;
}

static int sink_listen(void)
{
	char host[INET_ADDRSTRLEN];

	for (size_t i = 0; i < sink.config.listen_count; i++) {
		struct sockaddr_in *address = &sink.config.listen[i];

		sink.acceptors[i].fd = stream_listen(address);
		if (sink.acceptors[i].fd < 0) {
			(void)fprintf(stderr, "postern-sink: cannot listen: %s\n",
				strerror(-sink.acceptors[i].fd));
			return -EADDRINUSE;
		}
	}
	for (size_t i = 0; i < sink.config.listen_count; i++)
		(void)printf("listening %s:%u\n",
			inet_ntop(AF_INET, &sink.config.listen[i].sin_addr, host, sizeof(host)),
			ntohs(sink.config.listen[i].sin_port));
	return 0;
}

/* Starts the workers, each of which makes what it needs on its own thread. */
static int sink_create(void)
{
	unsigned threads = (unsigned)sink.config.threads;

	sink.workers = calloc(threads, sizeof(*sink.workers));
	sink.config.policy.seen = seen_create();
	sink.stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (sink.config.ledgers.count > 0)
		promises = promises_create(sink.config.ledgers.texts, sink.config.ledgers.count);
	if (sink.workers == NULL || sink.config.policy.seen == NULL || sink.stop_fd < 0 ||
		(promises == NULL && sink.config.ledgers.count > 0))
		return -ENOMEM;
	(void)pthread_barrier_init(&sink.start, NULL, threads + 1);
	for (unsigned i = 0; i < threads; i++) {
		sink.workers[i].sink = &sink;
		if (pipe2(sink.workers[i].deal, O_CLOEXEC) < 0)
			return -errno;
	}
	for (unsigned i = 0; i < threads; i++)
		if (pthread_create(
			    &sink.workers[i].thread, NULL, sink_worker_run, &sink.workers[i]) != 0)
			return -ENOMEM;
	(void)pthread_barrier_wait(&sink.start);
	return atomic_load(&sink.is_broken) ? -EINVAL : 0;
}

int main(int argc, char **argv)
{
	sigset_t mask;
	int signals;
	int rc;

	sink_config_parse(&sink.config, argc, argv);
	options_raise_files(sink.config.threads * SINK_SESSIONS_MAX + 100);
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	sigaddset(&mask, SIGUSR2);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	/* Before the threads start, so that none of them takes the signals. */
	sigprocmask(SIG_BLOCK, &mask, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signals < 0 || stream_init(sink.config.code) < 0 || sink_listen() < 0)
		return 1;
	rc = sink_create();
	if (rc < 0) {
		(void)fprintf(stderr, "postern-sink: %s\n", strerror(-rc));
		return 1;
	}
	(void)fflush(stdout);
	/* The workers still run when the process ends, so nothing of theirs is freed. */
	return sink_serve(signals);
}
