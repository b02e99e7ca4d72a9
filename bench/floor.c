/* SPDX-License-Identifier: Apache-2.0 */

/*
 * floor.c: the least that a message of so many bytes costs any relay here, in processor time of the
 * one thread that relays it, with this kernel and these libraries.
 *
 *   receive   recv(2) of its records from a loopback connection, as much as a bulk buffer takes
 *   open      AES-256-GCM of its records of 16 KiB, in place, by seal.h; open-evp by bare EVP
 *   seal      the same towards the next hop
 *   send      send(2) of its records on another loopback connection
 *   checksum  CRC-32C of its text, once
 *   store     its share of one write as the spool's: O_DIRECT, RWF_DSYNC, a batch at a time
 *   read      its share of reading that back from the disk
 *
 *   proxy     = receive + open + seal + send
 *   queue     = proxy + checksum + store
 *   chain     what proxy adds up, done in a row on the same bytes: the sum's own check
 *
 * No SMTP, no look at the text, no copy but the kernel's, no turn of a loop, no lock that another
 * holds. What is received lies in the socket before it is asked for, and who reads what is sent
 * comes when it has been, so nothing waits or wakes anybody. A message that is delivered while it
 * is in memory need not be read back, so read is in no sum.
 *
 * All steps take turns within each repetition; a figure is the median over the repetitions, sums
 * are taken within each. What the clock itself costs is measured first and taken off.
 */

#include "bench/common/floor.h"
#include "bench/common/options.h"
#include "relay/base/crc32c.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define SIZES_MAX 8
#define REPETITIONS_MAX 99
#define MESSAGE_BYTES_MAX (64U << 20)

/* One batch of the spool, and the blocks that it is written in. */
#define WRITE_BYTES_MAX (1U << 20)
#define BLOCK_BYTES 4096
#define FILE_BYTES (16U << 20)

#define CLOCK_SAMPLES 1001

static const char usage[] =
	"usage: floor [OPTION]...\n"
	"  --sizes N,...     bytes of a message (4k,64k,1m): up to 64k, or whole 64k\n"
	"  --batch N,...     messages that share a write, for each size (8), 1m in all at the "
	"most\n"
	"  --ms N            of each step in a repetition (30)\n"
	"  --repetitions N   (5)\n"
	"  --folder FOLDER   where the file of store lies: it should be a disk (/var/tmp)\n"
	"  --json            one line of JSON\n"
	"Exit status: 0, 1 when a step failed, 2 wrong options.\n";

enum step {
	STEP_RECEIVE,
	STEP_OPEN,
	STEP_SEAL,
	STEP_SEND,
	STEP_CHECKSUM,
	STEP_STORE,
	STEP_PROXY, /* sums */
	STEP_QUEUE,
	STEP_CHAIN, /* in no sum, from here */
	STEP_OPEN_EVP,
	STEP_SEAL_EVP,
	STEP_READ,
	STEP_STORE_WAIT, /* of the wall clock, not of the processor */
	STEP_COUNT,
};

static const char *const step_names[STEP_COUNT] = {
	[STEP_RECEIVE] = "receive",
	[STEP_OPEN] = "open",
	[STEP_SEAL] = "seal",
	[STEP_SEND] = "send",
	[STEP_CHECKSUM] = "checksum",
	[STEP_STORE] = "store",
	[STEP_PROXY] = "proxy",
	[STEP_QUEUE] = "queue",
	[STEP_CHAIN] = "chain",
	[STEP_OPEN_EVP] = "open-evp",
	[STEP_SEAL_EVP] = "seal-evp",
	[STEP_READ] = "read",
	[STEP_STORE_WAIT] = "store-wait",
};

struct size {
	uint64_t bytes;           /* of a message */
	uint64_t batch;           /* messages that share a write */
	uint32_t write_bytes;     /* of one */
	struct floor_round round; /* of the network's steps */
	double messages;          /* in it */
	double us[STEP_COUNT][REPETITIONS_MAX];
};

static struct {
	uint64_t ms, repetitions, clock_ns;
	const char *sizes_text, *batch_text, *folder;
	bool json;
	struct size sizes[SIZES_MAX];
	unsigned size_count;
	struct floor_ends ends;
	int file;
} bench = {.ms = 30,
	.repetitions = 5,
	.sizes_text = "4k,64k,1m",
	.batch_text = "8",
	.folder = "/var/tmp"};

static _Alignas(BLOCK_BYTES) uint8_t text[WRITE_BYTES_MAX];
static _Alignas(BLOCK_BYTES) uint8_t in[IOBUF_BULK_BYTES], out[IOBUF_BULK_BYTES];

/* Processor time of this thread since then, less what it costs to ask. */
static uint64_t spent_ns(uint64_t since)
{
	const uint64_t all = floor_clock_ns(CLOCK_THREAD_CPUTIME_ID) - since;

	return all > bench.clock_ns ? all - bench.clock_ns : 0;
}

/* One step in one repetition: it goes on for so long, and for one message at least. */
struct pace {
	uint64_t until_ns;
	double messages;
	uint64_t ns; /* spent on them */
};

static struct pace pace_begin(uint64_t ms)
{
	return (struct pace){.until_ns = floor_clock_ns(CLOCK_MONOTONIC) + ms * 1000000};
}

static bool pace_goes_on(const struct pace *pace)
{
	return pace->messages < 1 || floor_clock_ns(CLOCK_MONOTONIC) < pace->until_ns;
}

static double pace_us(const struct pace *pace)
{
	return (double)pace->ns / 1e3 / pace->messages;
}

static void receive_piece(const struct floor_round *round)
{
	floor_must(recv(bench.ends.in_fd, in, round->wire, 0) == (ssize_t)round->wire, "recv");
}

static void send_piece(const struct floor_round *round)
{
	floor_must(send(bench.ends.out_fd, out, round->wire, MSG_NOSIGNAL) == (ssize_t)round->wire,
		"send");
}

/* Messages of one write; less than one if it is longer than a batch. */
static double write_messages(const struct size *size)
{
	return size->bytes > WRITE_BYTES_MAX ? (double)WRITE_BYTES_MAX / (double)size->bytes
					     : (double)size->batch;
}

/* The steps. Each runs for a while, and gives microseconds a message. */

static void run_receive(struct size *size, unsigned repetition, uint64_t ms)
{
	const struct floor_round *round = &size->round;
	struct pace pace = pace_begin(ms);

	for (; pace_goes_on(&pace); pace.messages += size->messages) {
		uint64_t since;

		floor_peer_do(FLOOR_JOB_FEED, round);
		since = floor_clock_ns(CLOCK_THREAD_CPUTIME_ID);
		for (uint32_t i = 0; i < round->pieces; i++)
			receive_piece(round);
		pace.ns += spent_ns(since);
	}
	size->us[STEP_RECEIVE][repetition] = pace_us(&pace);
}

static void run_send(struct size *size, unsigned repetition, uint64_t ms)
{
	const struct floor_round *round = &size->round;
	struct pace pace = pace_begin(ms);

	for (; pace_goes_on(&pace); pace.messages += size->messages) {
		const uint64_t since = floor_clock_ns(CLOCK_THREAD_CPUTIME_ID);

		for (uint32_t i = 0; i < round->pieces; i++)
			send_piece(round);
		pace.ns += spent_ns(since);
		floor_peer_do(FLOOR_JOB_DRAIN, round);
	}
	size->us[STEP_SEND][repetition] = pace_us(&pace);
}

/* Sealed, and opened where it lies: as hot in the cache as what was just received. */
static void run_seal(struct size *size, unsigned repetition, uint64_t ms)
{
	const struct floor_round *round = &size->round;
	struct pace sealing = pace_begin(ms), opening = sealing;
	struct seal tx = {0}, rx = {0};

	floor_seal_begin(&tx, true);
	floor_seal_begin(&rx, false);
	while (pace_goes_on(&sealing)) {
		uint64_t since = floor_clock_ns(CLOCK_THREAD_CPUTIME_ID);

		for (uint32_t i = 0; i < round->pieces; i++)
			floor_seal_piece(&tx, round->piece, text + (size_t)i * round->piece,
				out + (size_t)i * round->wire);
		sealing.ns += spent_ns(since);
		since = floor_clock_ns(CLOCK_THREAD_CPUTIME_ID);
		for (uint32_t i = 0; i < round->pieces; i++)
			floor_open_piece(
				&rx, round->piece, out + (size_t)i * round->wire, NULL, NULL);
		opening.ns += spent_ns(since);
		sealing.messages += size->messages;
	}
	seal_close(&tx);
	seal_close(&rx);
	opening.messages = sealing.messages;
	size->us[STEP_SEAL][repetition] = pace_us(&sealing);
	size->us[STEP_OPEN][repetition] = pace_us(&opening);
}

static uint64_t evp_round(
	EVP_CIPHER_CTX *ctx, bool is_sender, uint64_t sequence, const struct floor_round *round)
{
	for (uint32_t i = 0; i < round->pieces; i++)
		sequence = floor_evp_piece(ctx, is_sender, sequence, round->piece,
			text + (size_t)i * round->piece, out + (size_t)i * round->wire);
	return sequence;
}

static void run_evp(struct size *size, unsigned repetition, uint64_t ms)
{
	struct pace sealing = pace_begin(ms), opening = sealing;
	EVP_CIPHER_CTX *tx = floor_evp_begin(true), *rx = floor_evp_begin(false);
	uint64_t sequence = 0;

	while (pace_goes_on(&sealing)) {
		uint64_t since = floor_clock_ns(CLOCK_THREAD_CPUTIME_ID);

		(void)evp_round(tx, true, sequence, &size->round);
		sealing.ns += spent_ns(since);
		since = floor_clock_ns(CLOCK_THREAD_CPUTIME_ID);
		sequence = evp_round(rx, false, sequence, &size->round);
		opening.ns += spent_ns(since);
		sealing.messages += size->messages;
	}
	EVP_CIPHER_CTX_free(tx);
	EVP_CIPHER_CTX_free(rx);
	opening.messages = sealing.messages;
	size->us[STEP_SEAL_EVP][repetition] = pace_us(&sealing);
	size->us[STEP_OPEN_EVP][repetition] = pace_us(&opening);
}

/* What a relay does with a message that it passes on: nothing but that. */
static void run_chain(struct size *size, unsigned repetition, uint64_t ms)
{
	const struct floor_round *round = &size->round;
	struct pace pace = pace_begin(ms);
	struct seal rx = {0}, tx = {0};

	floor_peer_seal_anew();
	floor_seal_begin(&rx, false);
	floor_seal_begin(&tx, true);
	for (; pace_goes_on(&pace); pace.messages += size->messages) {
		uint64_t since;

		floor_peer_do(FLOOR_JOB_FEED_SEALED, round);
		since = floor_clock_ns(CLOCK_THREAD_CPUTIME_ID);
		for (uint32_t i = 0; i < round->pieces; i++) {
			receive_piece(round);
			floor_open_piece(&rx, round->piece, in, &tx, out);
			send_piece(round);
		}
		pace.ns += spent_ns(since);
		floor_peer_do(FLOOR_JOB_DRAIN, round);
	}
	seal_close(&rx);
	seal_close(&tx);
	size->us[STEP_CHAIN][repetition] = pace_us(&pace);
}

static void run_checksum(struct size *size, unsigned repetition, uint64_t ms)
{
	static volatile uint32_t sum; /* nobody looks at it, but it is made */
	struct pace pace = pace_begin(ms);

	for (; pace_goes_on(&pace); pace.messages += size->messages) {
		const uint64_t since = floor_clock_ns(CLOCK_THREAD_CPUTIME_ID);

		for (uint32_t i = 0; i < size->round.pieces; i++)
			sum = crc32c(sum,
				span_make(text + (size_t)i * size->round.piece, size->round.piece));
		pace.ns += spent_ns(since);
	}
	size->us[STEP_CHECKSUM][repetition] = pace_us(&pace);
}

/* As the spool does it: where RWF_DSYNC is not known, a flush follows. */
static void store_once(uint32_t bytes, off_t at)
{
	static bool has_no_dsync;
	const struct iovec piece = {.iov_base = text, .iov_len = bytes};
	ssize_t written = -1;

	if (!has_no_dsync)
		written = pwritev2(bench.file, &piece, 1, at, RWF_DSYNC);
	if (has_no_dsync || (written < 0 && errno == EOPNOTSUPP)) {
		has_no_dsync = true;
		written = pwrite(bench.file, text, bytes, at);
		floor_must(fdatasync(bench.file) == 0, "fdatasync");
	}
	floor_must(written == (ssize_t)bytes, "write");
}

static void run_store(struct size *size, unsigned repetition, uint64_t ms)
{
	struct pace writing = pace_begin(ms), waiting = writing, reading = writing;
	uint64_t at = 0;

	while (pace_goes_on(&writing)) {
		const uint64_t wall = floor_clock_ns(CLOCK_MONOTONIC);
		uint64_t since = floor_clock_ns(CLOCK_THREAD_CPUTIME_ID);

		store_once(size->write_bytes, (off_t)at);
		writing.ns += spent_ns(since);
		waiting.ns += floor_clock_ns(CLOCK_MONOTONIC) - wall;
		since = floor_clock_ns(CLOCK_THREAD_CPUTIME_ID);
		floor_must(pread(bench.file, text, size->write_bytes, (off_t)at) ==
				   (ssize_t)size->write_bytes,
			"read");
		reading.ns += spent_ns(since);
		writing.messages += write_messages(size);
		at = (at + size->write_bytes) % (FILE_BYTES - WRITE_BYTES_MAX);
	}
	waiting.messages = writing.messages;
	reading.messages = writing.messages;
	size->us[STEP_STORE][repetition] = pace_us(&writing);
	size->us[STEP_STORE_WAIT][repetition] = pace_us(&waiting);
	size->us[STEP_READ][repetition] = pace_us(&reading);
}

static void run_all(struct size *size, unsigned repetition, uint64_t ms)
{
	double sum = 0;

	run_receive(size, repetition, ms);
	run_seal(size, repetition, 2 * ms);
	run_send(size, repetition, ms);
	run_evp(size, repetition, 2 * ms);
	run_checksum(size, repetition, ms);
	run_store(size, repetition, 2 * ms);
	run_chain(size, repetition, ms);
	for (unsigned step = STEP_RECEIVE; step <= STEP_SEND; step++)
		sum += size->us[step][repetition];
	size->us[STEP_PROXY][repetition] = sum;
	size->us[STEP_QUEUE][repetition] =
		sum + size->us[STEP_CHECKSUM][repetition] + size->us[STEP_STORE][repetition];
}

/* Before and after. */

/* A file without a name, or -1 where none can be written with these flags. */
static int file_try(int flags)
{
	char path[4096];
	int fd;

	(void)snprintf(path, sizeof(path), "%.4000s/floor.XXXXXX", bench.folder);
	fd = mkostemp(path, O_CLOEXEC | flags);
	if (fd < 0)
		return -1;
	(void)unlink(path);
	if (pwrite(fd, text, BLOCK_BYTES, 0) == BLOCK_BYTES)
		return fd;
	(void)close(fd);
	return -1;
}

/* As a segment of the spool is: whole, of zeros, on the disk, past the page cache if that can be.
 */
static void file_make(void)
{
	bench.file = file_try(O_DIRECT);
	if (bench.file < 0)
		bench.file = file_try(0);
	floor_must(bench.file >= 0, bench.folder);
	for (off_t at = 0; at < (off_t)FILE_BYTES; at += WRITE_BYTES_MAX)
		floor_must(pwrite(bench.file, text, WRITE_BYTES_MAX, at) == WRITE_BYTES_MAX,
			bench.folder);
	floor_must(fsync(bench.file) == 0, bench.folder);
}

static int by_ns(const void *left, const void *right)
{
	const uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return (a > b) - (a < b);
}

static void clock_calibrate(void)
{
	uint64_t samples[CLOCK_SAMPLES];

	for (unsigned i = 0; i < CLOCK_SAMPLES; i++) {
		samples[i] = floor_clock_ns(CLOCK_THREAD_CPUTIME_ID);
		samples[i] = floor_clock_ns(CLOCK_THREAD_CPUTIME_ID) - samples[i];
	}
	qsort(samples, CLOCK_SAMPLES, sizeof(*samples), by_ns);
	bench.clock_ns = samples[CLOCK_SAMPLES / 2];
}

static void size_make(struct size *size, uint64_t bytes, uint64_t batch)
{
	uint64_t write = bytes * batch;

	if (bytes < FLOOR_MESSAGE_BYTES_MIN || bytes > MESSAGE_BYTES_MAX ||
		(bytes > FLOOR_ROUND_BYTES && bytes % FLOOR_ROUND_BYTES != 0))
		options_wrong(usage, "--sizes: from 1k to 64k, or whole 64k");
	if (batch < 1 || batch > 1024)
		options_wrong(usage, "--batch: from 1 to 1024");
	if (write > WRITE_BYTES_MAX)
		write = bytes > WRITE_BYTES_MAX ? WRITE_BYTES_MAX : WRITE_BYTES_MAX / bytes * bytes;
	size->bytes = bytes;
	size->round = floor_round_of(bytes);
	size->messages = (double)size->round.pieces * (double)size->round.piece / (double)bytes;
	size->batch = write < bytes ? 1 : write / bytes;
	size->write_bytes = (uint32_t)((write + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES);
}

/* The next number of a list; the last one counts for the rest. */
static uint64_t list_next(const char **list, const char *option)
{
	uint64_t value = 0;
	const char *end = options_read_number(*list, &value);

	if (end != NULL && *end == ',')
		*list = end + 1;
	else if (end == NULL || *end != '\0')
		options_wrong(usage, option);
	return value;
}

static void parse(int argc, char **argv)
{
	const struct options_entry entries[] = {
		{"sizes", OPTIONS_TEXT, {.text = &bench.sizes_text}, 0, 0},
		{"batch", OPTIONS_TEXT, {.text = &bench.batch_text}, 0, 0},
		{"ms", OPTIONS_NUMBER, {.number = &bench.ms}, 1, 10000},
		{"repetitions", OPTIONS_NUMBER, {.number = &bench.repetitions}, 1, REPETITIONS_MAX},
		{"folder", OPTIONS_TEXT, {.text = &bench.folder}, 0, 0},
		{"json", OPTIONS_FLAG, {.flag = &bench.json}, 0, 0},
	};
	const char *sizes, *batch, *before;

	options_parse(argc, argv, entries, sizeof(entries) / sizeof(*entries), usage);
	sizes = bench.sizes_text;
	batch = bench.batch_text;
	do {
		before = sizes;
		if (bench.size_count == SIZES_MAX)
			options_wrong(usage, "--sizes: eight at the most");
		size_make(&bench.sizes[bench.size_count++],
			list_next(&sizes, "--sizes: not a list of numbers"),
			list_next(&batch, "--batch: not a list of numbers"));
	} while (sizes != before);
}

static int by_value(const void *left, const void *right)
{
	const double a = *(const double *)left, b = *(const double *)right;

	return (a > b) - (a < b);
}

static void print_step(const struct size *size, enum step step, bool is_first)
{
	const uint64_t count = bench.repetitions;
	double us[REPETITIONS_MAX];

	memcpy(us, size->us[step], count * sizeof(*us));
	qsort(us, count, sizeof(*us), by_value);
	if (!bench.json) {
		(void)printf("  %-11s %10.2f   %10.2f to %.2f\n", step_names[step], us[count / 2],
			us[0], us[count - 1]);
		return;
	}
	(void)printf("%s{\"name\":\"%s, %" PRIu64 " bytes\",\"step\":\"%s\",\"size\":%" PRIu64
		     ",\"unit\":\"us\",\"value\":%.4f,\"min\":%.4f,\"max\":%.4f,\"values\":[",
		is_first ? "" : ",", step_names[step], size->bytes, step_names[step], size->bytes,
		us[count / 2], us[0], us[count - 1]);
	for (unsigned i = 0; i < count; i++)
		(void)printf("%s%.4f", i == 0 ? "" : ",", size->us[step][i]);
	(void)printf("],\"batch\":%" PRIu64 ",\"write_bytes\":%" PRIu32 "}", size->batch,
		size->write_bytes);
}

static void print_all(void)
{
	const char *library = OpenSSL_version(OPENSSL_VERSION);

	if (bench.json)
		(void)printf("{\"part\":\"floor\",\"library\":\"%s\",\"cipher\":\"AES-256-GCM\","
			     "\"repetitions\":%" PRIu64 ",\"clock_ns\":%" PRIu64 ",\"rows\":[",
			library, bench.repetitions, bench.clock_ns);
	for (unsigned i = 0; i < bench.size_count; i++) {
		const struct size *size = &bench.sizes[i];

		if (!bench.json)
			(void)printf("%" PRIu64 " bytes, %" PRIu64 " to a write of %" PRIu32
				     ": us a message, lowest to highest\n",
				size->bytes, size->batch, size->write_bytes);
		for (unsigned step = 0; step < STEP_COUNT; step++)
			print_step(size, step, i == 0 && step == 0);
	}
	if (bench.json)
		(void)puts("]}");
}

int main(int argc, char **argv)
{
	parse(argc, argv);
	file_make();
	floor_must(seal_init() == 0, "seal_init");
	bench.ends = floor_peer_start();
	clock_calibrate();
	for (unsigned i = 0; i < bench.size_count; i++) /* warms up, and is written over */
		run_all(&bench.sizes[i], 0, 1);
	for (unsigned repetition = 0; repetition < bench.repetitions; repetition++) {
		for (unsigned i = 0; i < bench.size_count; i++)
			run_all(&bench.sizes[i], repetition, bench.ms);
	}
	floor_peer_end();
	print_all();
	return 0;
}
