/* SPDX-License-Identifier: Apache-2.0 */

/*
 * brittle.c: a disk with a cache that a power cut empties: an NBD server in front of another disk.
 *
 * What is written stays in this program's memory until the machine asks for a flush; then it goes
 * to the disk behind, which keeps it. Now and then a few sectors go there early, by lot, whatever
 * they belong to: so after a cut (the machine is killed, and this program with it) there is
 * everything that was flushed, and of the rest a part in any order, torn between sectors.
 *
 * SIGUSR1 holds flushes: they wait, all else goes on. SIGUSR2 lets them go.
 *
 *   brittle DISK NBD-DEVICE SEED      prints "ready"; runs until it is killed
 */

#include "tests/crash/letter.h"
#include "tests/crash/line.h"
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/nbd.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define BRITTLE_SECTOR 512
#define BRITTLE_REQUEST_MAX (32U << 20)
#define BRITTLE_HELD_MAX 4096

/* With so many sectors in memory, some go out. */
#define BRITTLE_DIRTY_MAX (128U << 11)

/* After one write in so many, and how many sectors at the most. */
#define BRITTLE_EARLY 8
#define BRITTLE_EARLY_SECTORS 16

struct brittle {
	int disk;
	uint64_t bytes;
	uint8_t **sectors; /* what is not flushed, NULL where there is nothing */
	uint64_t *dirty;   /* their numbers */
	size_t dirty_count;
	uint64_t lot;
	struct line line;
	uint64_t held[BRITTLE_HELD_MAX]; /* cookies of flushes that wait */
	size_t held_count;
};

static volatile sig_atomic_t brittle_is_held;

static void brittle_hold(int signal)
{
	brittle_is_held = signal == SIGUSR1;
}

static _Noreturn void brittle_die(const char *what)
{
	perror(what);
	exit(EXIT_FAILURE);
}

static void brittle_write_disk(
	const struct brittle *brittle, const void *data, size_t bytes, uint64_t at)
{
	if (pwrite(brittle->disk, data, bytes, (off_t)at) != (ssize_t)bytes)
		brittle_die("disk");
}

/* Data that is in order is a write of its own, so that a flush is not thousands of them. */
static int brittle_compare(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a;
	uint64_t right = *(const uint64_t *)b;

	return left < right ? -1 : left > right;
}

static void brittle_flush(struct brittle *brittle)
{
	static uint8_t run[1U << 20];
	size_t filled = 0;

	qsort(brittle->dirty, brittle->dirty_count, sizeof(*brittle->dirty), brittle_compare);
	for (size_t i = 0; i < brittle->dirty_count; i++) {
		uint64_t sector = brittle->dirty[i];

		memcpy(run + filled, brittle->sectors[sector], BRITTLE_SECTOR);
		filled += BRITTLE_SECTOR;
		free(brittle->sectors[sector]);
		brittle->sectors[sector] = NULL;
		if (filled == sizeof(run) || i + 1 == brittle->dirty_count ||
			brittle->dirty[i + 1] != sector + 1) {
			brittle_write_disk(
				brittle, run, filled, (sector + 1) * BRITTLE_SECTOR - filled);
			filled = 0;
		}
	}
	brittle->dirty_count = 0;
	if (fdatasync(brittle->disk) < 0)
		brittle_die("disk");
}

/* They stay in memory, too: the flush that is owed comes later. */
static void brittle_write_early(struct brittle *brittle)
{
	brittle->lot = letter_lot(brittle->lot, brittle->dirty_count);
	if (brittle->lot % BRITTLE_EARLY != 0 || brittle->dirty_count == 0)
		return;
	for (unsigned i = 0; i <= (brittle->lot >> 8) % BRITTLE_EARLY_SECTORS; i++) {
		uint64_t sector =
			brittle->dirty[letter_lot(brittle->lot, i) % brittle->dirty_count];

		brittle_write_disk(
			brittle, brittle->sectors[sector], BRITTLE_SECTOR, sector * BRITTLE_SECTOR);
	}
	if (fdatasync(brittle->disk) < 0)
		brittle_die("disk");
}

static void brittle_keep(struct brittle *brittle, const uint8_t *data, size_t bytes, uint64_t at)
{
	for (size_t done = 0; done < bytes; done += BRITTLE_SECTOR) {
		uint64_t sector = (at + done) / BRITTLE_SECTOR;

		if (brittle->sectors[sector] == NULL) {
			brittle->sectors[sector] = malloc(BRITTLE_SECTOR);
			if (brittle->sectors[sector] == NULL)
				brittle_die("memory");
			brittle->dirty[brittle->dirty_count++] = sector;
		}
		memcpy(brittle->sectors[sector], data + done, BRITTLE_SECTOR);
	}
	brittle_write_early(brittle);
	if (brittle->dirty_count > BRITTLE_DIRTY_MAX)
		brittle_flush(brittle);
}

static void brittle_fetch(const struct brittle *brittle, uint8_t *data, size_t bytes, uint64_t at)
{
	if (pread(brittle->disk, data, bytes, (off_t)at) != (ssize_t)bytes)
		brittle_die("disk");
	for (size_t done = 0; done < bytes; done += BRITTLE_SECTOR) {
		const uint8_t *fresh = brittle->sectors[(at + done) / BRITTLE_SECTOR];

		if (fresh != NULL)
			memcpy(data + done, fresh, BRITTLE_SECTOR);
	}
}

static void brittle_answer(
	const struct brittle *brittle, uint64_t cookie, const uint8_t *data, size_t bytes)
{
	struct nbd_reply reply = {.magic = htonl(NBD_REPLY_MAGIC)};

	memcpy(reply.handle, &cookie, sizeof(cookie));
	if (!line_write(&brittle->line, (const char *)&reply, sizeof(reply)) ||
		!line_write(&brittle->line, (const char *)data, bytes))
		brittle_die("answer");
}

static void brittle_serve_one(struct brittle *brittle)
{
	static uint8_t data[BRITTLE_REQUEST_MAX];
	struct nbd_request request;
	uint64_t cookie;
	uint64_t at;
	size_t bytes;

	if (!line_read_bytes(&brittle->line, (char *)&request, sizeof(request)))
		exit(EXIT_SUCCESS);
	at = be64toh(request.from);
	bytes = ntohl(request.len);
	memcpy(&cookie, request.handle, sizeof(cookie));
	if (ntohl(request.magic) != NBD_REQUEST_MAGIC || bytes > sizeof(data))
		brittle_die("request");
	switch (ntohl(request.type) & 0xffff) {
	case NBD_CMD_READ:
		brittle_fetch(brittle, data, bytes, at);
		brittle_answer(brittle, cookie, data, bytes);
		break;
	case NBD_CMD_WRITE:
		if (!line_read_bytes(&brittle->line, (char *)data, bytes))
			exit(EXIT_SUCCESS);
		brittle_keep(brittle, data, bytes, at);
		brittle_answer(brittle, cookie, NULL, 0);
		break;
	case NBD_CMD_FLUSH:
		if (brittle->held_count == BRITTLE_HELD_MAX)
			brittle_die("too many flushes");
		brittle->held[brittle->held_count++] = cookie;
		break;
	default:
		exit(EXIT_SUCCESS);
	}
}

static _Noreturn void brittle_serve(struct brittle *brittle)
{
	for (;;) {
		struct pollfd wait = {.fd = brittle->line.fd, .events = POLLIN};

		if (!brittle_is_held && brittle->held_count > 0) {
			brittle_flush(brittle);
			for (size_t i = 0; i < brittle->held_count; i++)
				brittle_answer(brittle, brittle->held[i], NULL, 0);
			brittle->held_count = 0;
		}
		/* A signal may come between the look and the wait, so that is short. */
		if (line_has_more(&brittle->line) || poll(&wait, 1, 20) > 0)
			brittle_serve_one(brittle);
	}
}

/* A connection to ourselves: the other end is the kernel's. */
static int brittle_connect(struct line *line)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(at);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int far;

	if (listener < 0 || bind(listener, (struct sockaddr *)&at, len) < 0 ||
		listen(listener, 1) < 0 ||
		getsockname(listener, (struct sockaddr *)&at, &len) < 0 ||
		!line_connect(line, ntohs(at.sin_port)))
		brittle_die("socket");
	far = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	(void)close(listener);
	return far;
}

/* The kernel's side lives in a process that sleeps in NBD_DO_IT. */
static void brittle_attach(const struct brittle *brittle, const char *device, int far)
{
	const struct timeval forever = {0};
	int nbd = open(device, O_RDWR | O_CLOEXEC);

	(void)setsockopt(brittle->line.fd, SOL_SOCKET, SO_RCVTIMEO, &forever, sizeof(forever));
	if (nbd < 0 || ioctl(nbd, NBD_SET_BLKSIZE, (unsigned long)BRITTLE_SECTOR) < 0 ||
		ioctl(nbd, NBD_SET_SIZE_BLOCKS, brittle->bytes / BRITTLE_SECTOR) < 0 ||
		ioctl(nbd, NBD_SET_FLAGS, NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH) < 0 ||
		ioctl(nbd, NBD_SET_SOCK, far) < 0)
		brittle_die(device);
	if (fork() == 0) {
		(void)close(brittle->line.fd);
		(void)signal(SIGUSR1, SIG_IGN);
		(void)signal(SIGUSR2, SIG_IGN);
		(void)ioctl(nbd, NBD_DO_IT);
		_exit(0);
	}
	(void)close(nbd);
	(void)close(far);
}

int main(int argc, char **argv)
{
	static struct brittle brittle;
	const struct sigaction hold = {.sa_handler = brittle_hold, .sa_flags = SA_RESTART};
	off_t end;

	if (argc != 4) {
		(void)fputs("usage: brittle DISK NBD-DEVICE SEED\n", stderr);
		return 2;
	}
	brittle.disk = open(argv[1], O_RDWR | O_CLOEXEC);
	end = brittle.disk < 0 ? -1 : lseek(brittle.disk, 0, SEEK_END);
	if (end < BRITTLE_SECTOR)
		brittle_die(argv[1]);
	brittle.bytes = (uint64_t)end / BRITTLE_SECTOR * BRITTLE_SECTOR;
	brittle.lot = strtoull(argv[3], NULL, 10);
	brittle.sectors = calloc(brittle.bytes / BRITTLE_SECTOR, sizeof(*brittle.sectors));
	brittle.dirty = calloc(brittle.bytes / BRITTLE_SECTOR, sizeof(*brittle.dirty));
	if (brittle.sectors == NULL || brittle.dirty == NULL)
		brittle_die("memory");
	if (sigaction(SIGUSR1, &hold, NULL) < 0 || sigaction(SIGUSR2, &hold, NULL) < 0)
		brittle_die("signals");
	brittle_attach(&brittle, argv[2], brittle_connect(&brittle.line));
	(void)printf("ready\n");
	(void)fflush(stdout);
	brittle_serve(&brittle);
}
