/* SPDX-License-Identifier: Apache-2.0 */

/*
 * commit.c: how many messages a second can be put on stable storage, by the relay's spool and by
 * what is usual.
 *
 *   durable   the spool, group commit with a flush
 *   relaxed   the spool, group commit without one
 *   append    one file for all; each message is written behind the last one, and fdatasync(2)ed
 *   files     a file for each message, made, written and fdatasync(2)ed, then removed
 *
 * A closed loop of so many sessions that each put the next message when the last one is safe. A
 * session of the first two is a writer on one ring; of the others a thread. In the spool each
 * message is also ended (a DONE record) as soon as it is safe, as if a next hop took it at once:
 * its cost is in the figures. One run, one line of JSON.
 */

#include "bench/common/histogram.h"
#include "bench/common/options.h"
#include "relay/mail/spool.h"
#include "relay/mail/spool_folder.h"
#include "relay/smtp/sink.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define COMMIT_SESSIONS_MAX 4096
#define COMMIT_BYTES_MAX (1U << 20)
#define COMMIT_PATH_BYTES 512

/* Of the file for append; it is written from the front again when it is full. */
#define COMMIT_FILE_BYTES (256U << 20)
#define COMMIT_SPOOL_BYTES (4ULL << 30)
#define COMMIT_SEGMENT_BYTES (64ULL << 20)

static const char commit_usage[] =
	"usage: commit --folder FOLDER --how durable|relaxed|append|files [OPTION]...\n"
	"  --sessions N   at a time (8)\n"
	"  --messages N   in all (10000)\n"
	"  --seconds N    begin no message after these (20)\n"
	"  --size BYTES   of a body (4096)\n"
	"One line of JSON. Exit status: 0, 1 when a message failed, 2 wrong options.\n";

static struct {
	const char *folder, *how;
	uint64_t sessions, messages, seconds, size;
	uint8_t body[COMMIT_BYTES_MAX];
	atomic_ullong begun; /* messages */
	uint64_t begun_us, end_us, took_us;
} commit = {.sessions = 8, .messages = 10000, .seconds = 20, .size = 4096};

/* What a run counts. */
struct commit_sum {
	uint64_t messages, failed, flushes;
	struct histogram latency;
};

static uint64_t commit_now_us(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void commit_start(void)
{
	commit.begun_us = commit_now_us();
	commit.end_us = commit.begun_us + commit.seconds * 1000000;
}

static _Noreturn void commit_die(const char *what, int error)
{
	(void)fprintf(stderr, "commit: %s: %s\n", what, strerror(error < 0 ? -error : error));
	exit(1);
}

/* May one more be begun? */
static bool commit_take(void)
{
	return commit_now_us() < commit.end_us &&
	       atomic_fetch_add(&commit.begun, 1) < commit.messages;
}

/* The spool. */

struct commit_session {
	struct spool_writer writer;
	struct spool_message message;
	struct commit_spool *run;
	uint64_t left; /* of the body, to be written */
	uint64_t begun_us;
};

struct commit_spool {
	struct spool *spool;
	enum durability durability;
	struct commit_session *sessions;
	uint64_t running;
	struct commit_sum sum;
	uint8_t envelope[1024];
	size_t envelope_bytes;
};

static void commit_make_envelope(struct commit_spool *run)
{
	const struct envelope envelope = {.rcpt_count = 1,
		.arrived_ms = 1700000000000,
		.expires_ms = 1700172800000,
		.body_bytes = commit.size,
		.header_bytes = 2,
		.sender = span_of("<sender@client.test>"),
		.connector = span_of("in"),
		.client = span_of("127.0.0.1"),
		.helo = span_of("client.test")};
	const struct envelope_rcpt rcpt = {.path = span_of("<recipient@nexthop.test>")};
	size_t head = envelope_write(&envelope, run->envelope, sizeof(run->envelope));
	size_t tail =
		envelope_write_rcpt(&rcpt, run->envelope + head, sizeof(run->envelope) - head);

	if (head == 0 || tail == 0)
		commit_die("envelope", EINVAL);
	run->envelope_bytes = head + tail;
}

static void commit_go_on(struct commit_session *session);

static void commit_begin(struct commit_session *session)
{
	struct commit_spool *run = session->run;
	int rc;

	if (!commit_take()) {
		run->running--;
		return;
	}
	session->left = commit.size;
	session->begun_us = commit_now_us();
	rc = spool_begin(&session->writer, spool_next_id(run->spool));
	if (rc < 0)
		commit_die("the spool takes no message", rc);
	commit_go_on(session);
}

static void commit_go_on(struct commit_session *session)
{
	struct commit_spool *run = session->run;

	while (session->left > 0) {
		size_t room = spool_room(&session->writer);
		size_t bytes = room < session->left ? room : session->left;

		if (room == 0)
			return;
		spool_write(&session->writer,
			(struct span){commit.body + commit.size - session->left, bytes});
		session->left -= bytes;
	}
	spool_commit(&session->writer, (struct span){run->envelope, run->envelope_bytes},
		run->durability, &session->message);
}

static void commit_on_room(struct spool_writer *writer)
{
	commit_go_on(OWNER_OF(writer, struct commit_session, writer));
}

static void commit_on_committed(struct spool_writer *writer, int result)
{
	struct commit_session *session = OWNER_OF(writer, struct commit_session, writer);
	struct commit_spool *run = session->run;

	if (result < 0)
		commit_die("a message was not committed", result);
	run->sum.messages++;
	histogram_add(&run->sum.latency, commit_now_us() - session->begun_us);
	spool_done(run->spool, &session->message, RECORD_DONE_DELIVERED, NULL);
	commit_begin(session);
}

static void commit_on_broken(struct spool_writer *writer, int error)
{
	(void)writer;
	commit_die("a body was not written", error);
}

static void commit_on_move(void *owner, struct spool_message *message, uint8_t *bytes, size_t len)
{
	(void)owner, (void)message, (void)bytes, (void)len;
}

static void commit_on_level(void *owner)
{
	(void)owner;
}

static struct spool_message *commit_replayed(
	void *owner, uint64_t id, const struct envelope *envelope, struct spool_message *known)
{
	(void)owner, (void)id, (void)envelope, (void)known;
	return NULL; /* the folder is fresh */
}

static void commit_turn(struct loop *loop)
{
	int rc = loop_turn(loop);

	if (rc < 0)
		commit_die("io_uring", rc);
}

static struct spool_folder *commit_open_folder(void)
{
	const struct spool_folder_options options = {.path = commit.folder,
		.segment_bytes = COMMIT_SEGMENT_BYTES,
		.bytes_max = COMMIT_SPOOL_BYTES,
		.logs = 1,
		.pressure_medium = 90,
		.pressure_high = 95,
		.pressure_high_end = 92,
		.pressure_medium_end = 85};
	struct spool_folder *folder = NULL;
	int rc = spool_folder_create(&options, stderr, &folder);

	if (rc < 0)
		commit_die(commit.folder, rc);
	return folder;
}

static struct loop *commit_open_loop(void)
{
	struct loop_caps caps;
	struct loop *loop = NULL;
	int rc = loop_probe(&caps);

	if (rc == 0)
		rc = loop_create(&caps, 1024, &loop);
	if (rc < 0)
		commit_die("io_uring", rc);
	return loop;
}

static void commit_run_sessions(struct commit_spool *run, struct loop *loop)
{
	static const struct spool_writer_events events = {.on_room = commit_on_room,
		.on_committed = commit_on_committed,
		.on_broken = commit_on_broken};

	run->running = commit.sessions;
	for (uint64_t i = 0; i < commit.sessions; i++) {
		run->sessions[i].run = run;
		spool_writer_init(&run->sessions[i].writer, run->spool, &events);
		commit_begin(&run->sessions[i]);
	}
	while (run->running > 0)
		commit_turn(loop);
}

static void commit_by_spool(struct commit_sum *sum)
{
	static const struct spool_events events = {
		.on_move = commit_on_move, .on_level = commit_on_level};
	static const struct spool_replay replay = {.on_message = commit_replayed};
	static struct commit_spool run;
	struct spool_folder *folder = commit_open_folder();
	struct loop *loop = commit_open_loop();
	struct spool_facts before;
	struct spool_facts after;
	int rc;

	run.durability =
		strcmp(commit.how, "durable") == 0 ? DURABILITY_DURABLE : DURABILITY_RELAXED;
	run.sessions = calloc(commit.sessions, sizeof(*run.sessions));
	commit_make_envelope(&run);
	rc = spool_create(
		&(struct spool_options){
			.loop = loop, .folder = folder, .log = 0, .events = &events, .owner = &run},
		&replay, &run, &run.spool);
	if (rc < 0 || run.sessions == NULL)
		commit_die("spool", rc < 0 ? rc : ENOMEM);
	spool_facts(run.spool, &before);
	commit_start();
	commit_run_sessions(&run, loop);
	commit.took_us = commit_now_us() - commit.begun_us;
	spool_facts(run.spool, &after);
	*sum = run.sum;
	sum->flushes = after.flushes - before.flushes;
	spool_drain(run.spool);
	while (!spool_is_closed(run.spool))
		commit_turn(loop);
	spool_destroy(&run.spool);
	loop_destroy(&loop);
	spool_folder_destroy(&folder);
	free(run.sessions);
}

/* What is usual. */

struct commit_thread {
	pthread_t thread;
	uint64_t number;
	struct commit_sum sum;
};

static int commit_file;
static atomic_ullong commit_place;

static bool commit_put_file(uint64_t number, uint64_t message)
{
	char path[COMMIT_PATH_BYTES];
	bool is_put;
	int fd;

	(void)snprintf(
		path, sizeof(path), "%.400s/%" PRIu64 ".%" PRIu64, commit.folder, number, message);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	is_put = fd >= 0 && write(fd, commit.body, commit.size) == (ssize_t)commit.size &&
		 fdatasync(fd) == 0;
	(void)close(fd);
	return is_put;
}

/* It is delivered: outside of what is measured as latency, but not of the rate. */
static void commit_remove_file(uint64_t number, uint64_t message)
{
	char path[COMMIT_PATH_BYTES];

	(void)snprintf(
		path, sizeof(path), "%.400s/%" PRIu64 ".%" PRIu64, commit.folder, number, message);
	(void)unlink(path);
}

static bool commit_append(void)
{
	uint64_t place = atomic_fetch_add(&commit_place, commit.size) %
			 (COMMIT_FILE_BYTES - COMMIT_BYTES_MAX);

	return pwrite(commit_file, commit.body, commit.size, (off_t)place) ==
		       (ssize_t)commit.size &&
	       fdatasync(commit_file) == 0;
}

static void *commit_thread_run(void *argument)
{
	struct commit_thread *thread = argument;
	bool is_files = strcmp(commit.how, "files") == 0;

	for (uint64_t message = 0; commit_take(); message++) {
		uint64_t begun_us = commit_now_us();

		if (!(is_files ? commit_put_file(thread->number, message) : commit_append())) {
			thread->sum.failed++;
			break;
		}
		histogram_add(&thread->sum.latency, commit_now_us() - begun_us);
		thread->sum.messages++;
		if (is_files)
			commit_remove_file(thread->number, message);
	}
	return NULL;
}

/* Allocated and zero, as the spool's segments are, so that only data has to go out. */
static void commit_make_file(void)
{
	static uint8_t zero[1U << 20];
	char path[COMMIT_PATH_BYTES];

	(void)snprintf(path, sizeof(path), "%.400s/log", commit.folder);
	commit_file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	for (uint64_t at = 0; commit_file >= 0 && at < COMMIT_FILE_BYTES; at += sizeof(zero)) {
		if (pwrite(commit_file, zero, sizeof(zero), (off_t)at) != (ssize_t)sizeof(zero))
			commit_die(path, errno);
	}
	if (commit_file < 0 || fsync(commit_file) < 0)
		commit_die(path, errno);
}

static void commit_by_threads(struct commit_sum *sum)
{
	struct commit_thread *threads = calloc(commit.sessions, sizeof(*threads));
	uint64_t i;

	if (threads == NULL)
		commit_die("threads", ENOMEM);
	if (strcmp(commit.how, "append") == 0)
		commit_make_file();
	commit_start();
	for (i = 0; i < commit.sessions; i++) {
		threads[i].number = i;
		if (pthread_create(&threads[i].thread, NULL, commit_thread_run, &threads[i]) != 0)
			commit_die("threads", EAGAIN);
	}
	for (i = 0; i < commit.sessions; i++) {
		(void)pthread_join(threads[i].thread, NULL);
		sum->messages += threads[i].sum.messages;
		sum->failed += threads[i].sum.failed;
		histogram_merge(&sum->latency, &threads[i].sum.latency);
	}
	commit.took_us = commit_now_us() - commit.begun_us;
	sum->flushes = sum->messages;
	free(threads);
}

static void commit_parse(int argc, char **argv)
{
	const struct options_entry entries[] = {
		{"folder", OPTIONS_TEXT, {.text = &commit.folder}, 0, 0},
		{"how", OPTIONS_TEXT, {.text = &commit.how}, 0, 0},
		{"sessions", OPTIONS_NUMBER, {.number = &commit.sessions}, 1, COMMIT_SESSIONS_MAX},
		{"messages", OPTIONS_NUMBER, {.number = &commit.messages}, 1, 1ULL << 40},
		{"seconds", OPTIONS_NUMBER, {.number = &commit.seconds}, 1, 3600},
		{"size", OPTIONS_NUMBER, {.number = &commit.size}, 1, COMMIT_BYTES_MAX},
	};
	static const char *const ways[] = {"durable", "relaxed", "append", "files"};
	bool is_known = false;

	options_parse(argc, argv, entries, sizeof(entries) / sizeof(entries[0]), commit_usage);
	for (unsigned i = 0; commit.how != NULL && i < sizeof(ways) / sizeof(ways[0]); i++)
		is_known = is_known || strcmp(ways[i], commit.how) == 0;
	if (commit.folder == NULL || !is_known)
		options_wrong(commit_usage, "--folder and --how are needed");
}

int main(int argc, char **argv)
{
	struct commit_sum *sum = calloc(1, sizeof(*sum));
	bool is_spool;

	commit_parse(argc, argv);
	if (sum == NULL || (mkdir(commit.folder, 0700) < 0 && errno != EEXIST))
		commit_die(commit.folder, errno);
	for (uint64_t i = 0; i < commit.size; i++)
		commit.body[i] = i % 78 == 76   ? '\r'
				 : i % 78 == 77 ? '\n'
						: (uint8_t)('a' + i % 26);
	is_spool = strcmp(commit.how, "durable") == 0 || strcmp(commit.how, "relaxed") == 0;
	if (is_spool)
		commit_by_spool(sum);
	else
		commit_by_threads(sum);
	(void)printf("{\"part\":\"commit\",\"rows\":[{\"name\":\"%s, %" PRIu64 " sessions, %" PRIu64
		     " bytes\",\"unit\":\"messages/s\",\"value\":%.1f}],",
		commit.how, commit.sessions, commit.size,
		(double)sum->messages * 1e6 / (double)commit.took_us);
	(void)printf("\"how\":\"%s\",\"sessions\":%" PRIu64 ",\"size\":%" PRIu64
		     ",\"messages\":%" PRIu64 ",\"failed\":%" PRIu64
		     ",\"seconds\":%.6f,\"per_second\":%.1f,\"flushes\":%" PRIu64
		     ",\"latency_p50_us\":%" PRIu64 ",\"latency_p99_us\":%" PRIu64 "}\n",
		commit.how, commit.sessions, commit.size, sum->messages, sum->failed,
		(double)commit.took_us / 1e6, (double)sum->messages * 1e6 / (double)commit.took_us,
		sum->flushes, histogram_value(&sum->latency, 500),
		histogram_value(&sum->latency, 990));
	is_spool = sum->failed == 0 && sum->messages > 0;
	free(sum);
	return is_spool ? EXIT_SUCCESS : EXIT_FAILURE;
}
