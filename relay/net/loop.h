/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * loop.h: the ring of one worker. The only way to the kernel's io_uring; only
 * loop.c includes liburing.
 *
 * An operation is a struct op embedded in its owner: its address is the
 * kernel's user data. Its call runs from loop_turn(), never from within a
 * submission. While an operation is in flight its owner may not be freed and
 * the memory it names belongs to the kernel.
 *
 * Each turn enters the kernel once: it submits what was asked for, waits until
 * something completes or a timer is due, and handles all that has completed.
 * Nothing completes in between, since the ring defers its task work.
 */

#include "relay/base/assert.h"
#include "relay/base/list.h"
#include "relay/base/timer.h"
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>

/* What this kernel's io_uring can do; each was tried, not looked up. */
struct loop_caps {
	bool single_issuer;   /* IORING_SETUP_SINGLE_ISSUER, 6.0 */
	bool defer_taskrun;   /* IORING_SETUP_DEFER_TASKRUN, 6.1; without it slower than epoll */
	bool coop_taskrun;    /* IORING_SETUP_COOP_TASKRUN, 5.19; used when the former is missing */
	bool registered_ring; /* the ring's own descriptor is registered, 5.18 */
	bool multishot_accept; /* 5.19; else one accept at a time */
	bool buffer_ring; /* provided buffer rings, 5.19; else a buffer for each idle session */
};

/* The bits by name, for --version and for io-uring-disable. */
struct loop_cap_name {
	const char *name;
	size_t offset; /* of a bool in struct loop_caps */
};
extern const struct loop_cap_name loop_cap_names[];
extern const unsigned loop_cap_count;

/*
 * Tries each feature once. Returns 0, or -errno when there is no io_uring at
 * all; loop_why_not() then has the words.
 */
NODISCARD int loop_probe(struct loop_caps *out);

/* Forces the named bit off. False when there is no such bit. */
bool loop_caps_disable(struct loop_caps *caps, const char *name);

/* Why io_uring_setup() answered error (a positive errno), and what to do about it. */
const char *loop_why_not(int error);

struct op {
	/* result is what the system call would have returned, or -errno; flags as in a CQE. */
	void (*done)(struct op *op, int32_t result, uint32_t flags);
	bool in_flight;
};

/* Work for the next turn, embedded in its owner. */
struct task {
	struct link link;
	void (*run)(struct task *task);
};

struct loop;

/*
 * Creates the ring on the thread that will run it. entries is the length of the
 * submission queue; the completion queue is eight times as long.
 */
NODISCARD int loop_create(const struct loop_caps *caps, unsigned entries, struct loop **out);
void loop_destroy(struct loop **loop);

const struct loop_caps *loop_caps(const struct loop *loop);

/* Submits, waits, handles all completions, fires timers and runs tasks. -errno is fatal. */
NODISCARD int loop_turn(struct loop *loop);

/* Monotonic milliseconds, taken once a turn. */
uint64_t loop_now_ms(const struct loop *loop);

/* Turns made so far. */
uint64_t loop_turns(const struct loop *loop);

struct timer_wheel *loop_timers(struct loop *loop);

void task_init(struct task *task, void (*run)(struct task *task));

/* Runs the task in the next turn, without sleeping before it. Harmless when it already waits. */
void loop_task_add(struct loop *loop, struct task *task);
void loop_task_cancel(struct task *task);

/*
 * Provided buffers: group 0 of the ring. count is a power of two and fixed;
 * buffers are given back one by one. Fails with -errno if the kernel has none.
 */
NODISCARD int loop_buffers_create(struct loop *loop, unsigned count);
void loop_buffers_give(struct loop *loop, void *data, uint32_t bytes, uint16_t id);

/* Did the completion take a provided buffer, and which? */
bool loop_flags_buffer(uint32_t flags, uint16_t *id);

/* Did a receive leave bytes in the socket? Then the next one completes at once. */
bool loop_flags_nonempty(uint32_t flags);

/* Does a multishot operation go on? */
bool loop_flags_more(uint32_t flags);

/* Operations. Each asserts that op is not in flight. */
void loop_accept(struct loop *loop, struct op *op, int fd);
void loop_connect(
	struct loop *loop, struct op *op, int fd, const struct sockaddr *to, socklen_t len);
void loop_recv(struct loop *loop, struct op *op, int fd, void *data, size_t bytes);
void loop_recv_provided(struct loop *loop, struct op *op, int fd, size_t bytes_max);
void loop_recvmsg(struct loop *loop, struct op *op, int fd, struct msghdr *message);
void loop_recvmsg_provided(struct loop *loop, struct op *op, int fd, struct msghdr *message);
void loop_send(struct loop *loop, struct op *op, int fd, const void *data, size_t bytes);
void loop_write(struct loop *loop, struct op *op, int fd, const void *data, size_t bytes);
void loop_read(struct loop *loop, struct op *op, int fd, void *data, size_t bytes);
/*
 * At a place of a file, for descriptors that know places. flags are those of pwritev2(2):
 * RWF_DSYNC, or 0. A short result is the caller's to go on with.
 */
void loop_write_at(struct loop *loop, struct op *op, int fd, const void *data, size_t bytes,
	uint64_t offset, int flags);
void loop_read_at(
	struct loop *loop, struct op *op, int fd, void *data, size_t bytes, uint64_t offset);
/* fdatasync(2). */
void loop_sync(struct loop *loop, struct op *op, int fd);

/* Completes once, when one of the poll(2) events of mask is there. */
void loop_poll(struct loop *loop, struct op *op, int fd, unsigned mask);

/* Asks for op to end soon; it still completes, usually with -ECANCELED. */
void loop_cancel(struct loop *loop, struct op *op);

/* Closes fd in the background; fd may not be used again. No operation on it may be in flight. */
void loop_close(struct loop *loop, int fd);
