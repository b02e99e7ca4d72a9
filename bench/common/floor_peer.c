/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/common/floor.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

/* Of a socket: a round must fit, however the kernel counts, so that no call waits. */
#define SOCKET_BYTES (1 << 20)
#define SOCKET_SECONDS 10

static struct {
	pthread_t thread;
	_Atomic(enum floor_job) job;
	const struct floor_round *round;
	int feed_fd, drain_fd; /* its own ends */
	struct floor_ends ends;
	struct seal seal;
	uint8_t text[FLOOR_ROUND_BYTES], wire[IOBUF_BULK_BYTES];
} peer;

static uint32_t round_bytes(const struct floor_round *round)
{
	return round->pieces * round->wire;
}

static void peer_feed(const struct floor_round *round, bool is_sealed)
{
	for (uint32_t i = 0; i < round->pieces; i++) {
		uint8_t *wire = peer.wire + (size_t)i * round->wire;

		if (is_sealed)
			floor_seal_piece(&peer.seal, round->piece,
				peer.text + (size_t)i * round->piece, wire);
		floor_must(
			send(peer.feed_fd, wire, round->wire, MSG_NOSIGNAL) == (ssize_t)round->wire,
			"send to the relay's end");
	}
}

static void peer_drain(const struct floor_round *round)
{
	const ssize_t got = recv(peer.drain_fd, peer.wire, round_bytes(round), MSG_WAITALL);

	floor_must(got == (ssize_t)round_bytes(round), "recv from the relay's end");
}

static void *peer_run(void *argument)
{
	enum floor_job job;

	(void)argument;
	while ((job = atomic_load(&peer.job)) != FLOOR_JOB_END) {
		if (job == FLOOR_JOB_NONE) {
			(void)sched_yield();
			continue;
		}
		if (job == FLOOR_JOB_DRAIN)
			peer_drain(peer.round);
		else
			peer_feed(peer.round, job == FLOOR_JOB_FEED_SEALED);
		atomic_store(&peer.job, FLOOR_JOB_NONE);
	}
	return NULL;
}

void floor_peer_do(enum floor_job job, const struct floor_round *round)
{
	const uint64_t until =
		floor_clock_ns(CLOCK_MONOTONIC) + SOCKET_SECONDS * UINT64_C(1000000000);
	int there = 0;

	peer.round = round;
	atomic_store(&peer.job, job);
	while (atomic_load(&peer.job) != FLOOR_JOB_NONE)
		(void)sched_yield();
	while (job != FLOOR_JOB_DRAIN && (uint32_t)there < round_bytes(round)) {
		floor_must(ioctl(peer.ends.in_fd, FIONREAD, &there) == 0, "FIONREAD");
		errno = ETIMEDOUT;
		floor_must(floor_clock_ns(CLOCK_MONOTONIC) < until, "a round did not come");
	}
}

void floor_peer_seal_anew(void)
{
	if (peer.seal.ctx != NULL)
		seal_close(&peer.seal);
	floor_seal_begin(&peer.seal, true);
}

/* From sender to receiver. A call that waits for good ends, too. */
static void connect_ends(int *sender, int *receiver)
{
	const struct timeval limit = {.tv_sec = SOCKET_SECONDS};
	struct sockaddr_in address = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const int bytes = SOCKET_BYTES;
	const int one = 1;
	socklen_t len = sizeof(address);

	*sender = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	floor_must(listener >= 0 && *sender >= 0, "socket");
	floor_must(setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes)) == 0 &&
			   setsockopt(*sender, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)) == 0 &&
			   setsockopt(*sender, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) == 0,
		"socket options");
	floor_must(bind(listener, (struct sockaddr *)&address, len) == 0 &&
			   listen(listener, 1) == 0 &&
			   getsockname(listener, (struct sockaddr *)&address, &len) == 0 &&
			   connect(*sender, (struct sockaddr *)&address, len) == 0,
		"loopback");
	*receiver = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	floor_must(*receiver >= 0 &&
			   setsockopt(*receiver, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) ==
				   0 &&
			   setsockopt(*sender, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) == 0,
		"accept");
	(void)close(listener);
}

struct floor_ends floor_peer_start(void)
{
	connect_ends(&peer.feed_fd, &peer.ends.in_fd);
	connect_ends(&peer.ends.out_fd, &peer.drain_fd);
	errno = pthread_create(&peer.thread, NULL, peer_run, NULL);
	floor_must(errno == 0, "pthread_create");
	return peer.ends;
}

void floor_peer_end(void)
{
	atomic_store(&peer.job, FLOOR_JOB_END);
	(void)pthread_join(peer.thread, NULL);
	if (peer.seal.ctx != NULL)
		seal_close(&peer.seal);
	(void)close(peer.feed_fd);
	(void)close(peer.drain_fd);
	(void)close(peer.ends.in_fd);
	(void)close(peer.ends.out_fd);
}
