/* SPDX-License-Identifier: Apache-2.0 */

/*
 * postern-load.c: an SMTP client that sends as much mail as it is allowed to, and counts.
 *
 * Each thread has a ring, a TLS context and connections of its own; load.h says how they send. The
 * main thread waits for them, shows the progress, and prints the sum. SIGINT and SIGTERM end the
 * run early: what was sent until then is reported.
 */

#include "bench/common/clock.h"
#include "bench/common/load.h"
#include "bench/common/options.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static struct load load;

static void load_on_signal(int number)
{
	(void)number;
	load_stop(&load);
}

static int load_create_thread(struct load_thread *thread, uint64_t index)
{
	const struct load_config *config = &load.config;

	thread->load = &load;
	thread->config = config;
	thread->index = index;
	thread->alarm_fd = -1;
	thread->ledger.fd = -1;
	link_init(&thread->free);
	pthread_mutex_init(&thread->second.lock, NULL);
	thread->conn_count = config->connections / config->threads +
			     (index < config->connections % config->threads);
	thread->conns = calloc(thread->conn_count, sizeof(*thread->conns));
	if (thread->conns == NULL && thread->conn_count > 0)
		return -ENOMEM;
	for (uint64_t i = 0; i < thread->conn_count; i++) {
		thread->conns[i].thread = thread;
		link_init(&thread->conns[i].link);
	}
	return -pthread_create(&thread->thread, NULL, load_thread_run, thread);
}

/* One line: what the last second has brought. */
static void load_show(struct load_thread *threads, uint64_t passed)
{
	static struct histogram latency;
	uint64_t bytes = 0;
	uint64_t failed = 0;
	uint64_t open = 0;
	uint64_t behind = 0;

	latency = (struct histogram){0};
	for (uint64_t i = 0; i < load.config.threads; i++) {
		struct load_second *second = &threads[i].second;

		pthread_mutex_lock(&second->lock);
		histogram_merge(&latency, &second->latency);
		second->latency = (struct histogram){0};
		bytes += second->bytes;
		failed += second->failed;
		second->bytes = second->failed = 0;
		open += second->open;
		behind += second->behind;
		pthread_mutex_unlock(&second->lock);
	}
	(void)fprintf(stderr,
		"%4" PRIu64 " s: %" PRIu64 " messages/s, %.2f MB/s, p50 %.3f ms, p99 %.3f ms, "
		"%" PRIu64 " failed, %" PRIu64 " connections",
		passed, latency.count, (double)bytes / 1e6,
		(double)histogram_value(&latency, 500) / 1e3,
		(double)histogram_value(&latency, 990) / 1e3, failed, open);
	if (load.config.rate > 0)
		(void)fprintf(stderr, ", %" PRIu64 " behind", behind);
	(void)fputc('\n', stderr);
}

/* Waits for all threads; says each second how it goes. */
static void load_await(struct load_thread *threads)
{
	struct timespec next;
	uint64_t passed = 0;

	clock_gettime(CLOCK_MONOTONIC, &next);
	next.tv_sec++;
	for (uint64_t i = 0; i < load.config.threads; i++) {
		if (!load.config.has_progress) {
			pthread_join(threads[i].thread, NULL);
			continue;
		}
		while (pthread_clockjoin_np(threads[i].thread, NULL, CLOCK_MONOTONIC, &next) ==
			ETIMEDOUT) {
			load_show(threads, ++passed);
			next.tv_sec++;
		}
	}
}

static int load_run(void)
{
	const struct load_config *config = &load.config;
	struct load_thread *threads = calloc(config->threads, sizeof(*threads));
	struct report *sum;
	int rc = threads == NULL ? -ENOMEM : 0;

	atomic_store(&load.end_us, UINT64_MAX);
	pthread_barrier_init(&load.start, NULL, (unsigned)config->threads);
	for (uint64_t i = 0; i < config->threads && rc == 0; i++)
		rc = load_create_thread(&threads[i], i);
	if (rc < 0) {
		/* Some threads may run; the process ends with them. */
		(void)fprintf(stderr, "postern-load: %s\n", strerror(-rc));
		exit(1);
	}
	load_await(threads);
	sum = &threads[0].report;
	for (uint64_t i = 0; i < config->threads; i++) {
		if (i > 0)
			report_merge(sum, &threads[i].report);
		free(threads[i].conns);
	}
	rc = 1;
	if (!atomic_load(&load.is_broken)) {
		report_print(stdout, sum, config, load.started_us);
		rc = report_is_good(sum) ? 0 : 1;
	}
	free(threads);
	return rc;
}

static int load_create_fillers(void)
{
	const struct load_config *config = &load.config;
	uint64_t count = config->sizes.count * config->bodies;
	int rc = 0;

	load.fillers = calloc(count, sizeof(*load.fillers));
	if (load.fillers == NULL)
		return -ENOMEM;
	for (uint64_t i = 0; i < count && rc == 0; i++)
		rc = filler_create(&load.fillers[i], config->sizes.bytes[i / config->bodies],
			i % config->bodies + 1);
	return rc;
}

int main(int argc, char **argv)
{
	const struct load_config *config = &load.config;
	struct sigaction stop = {.sa_handler = load_on_signal, .sa_flags = (int)SA_RESETHAND};
	int rc;

	load_config_parse(&load.config, argc, argv);
	options_raise_files(config->connections + config->idle + 100);
	(void)signal(SIGPIPE, SIG_IGN);
	rc = stream_init(config->code);
	if (rc == 0)
		rc = load_create_fillers();
	if (rc < 0)
		return 1;
	(void)sigaction(SIGINT, &stop, NULL);
	(void)sigaction(SIGTERM, &stop, NULL);
	rc = load_run();
	for (uint64_t i = 0; i < config->sizes.count * config->bodies; i++)
		filler_destroy(&load.fillers[i]);
	free(load.fillers);
	return rc;
}
