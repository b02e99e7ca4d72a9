/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/net/loop.h"

#include "relay/base/clock.h"
#include "relay/base/stats.h"
#include <errno.h>
#include <liburing.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* liburing 2.3 (Debian 12) lacks what newer kernels have; names as in <linux/io_uring.h>. */
#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1U << 12)
#endif
#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13)
#endif

#define LOOP_BUFFER_GROUP 0
#define LOOP_CQ_FACTOR 8

/* Completions handled before the ring is entered again, so that timers and tasks get their turn. */
#define LOOP_BATCH 512

/*
 * So many bytes to send do not wait for the end of the turn: what it has yet to do takes as long as
 * ciphers do, and whoever waits for these bytes can work meanwhile.
 */
#define LOOP_SEND_BYTES 262144

struct loop {
	struct io_uring ring;
	struct loop_caps caps;
	uint64_t now_ms;
	uint64_t left_ns; /* when the ring was left; 0: it was not yet entered */
	uint64_t turns;
	struct timer_wheel timers;
	struct link tasks;
	struct io_uring_buf_ring *buffers;
	unsigned buffer_mask;
	unsigned buffers_given; /* since the last advance */
	size_t send_bytes;      /* asked for since the ring was entered */
};

const struct loop_cap_name loop_cap_names[] = {
	{"single-issuer", offsetof(struct loop_caps, single_issuer)},
	{"defer-taskrun", offsetof(struct loop_caps, defer_taskrun)},
	{"coop-taskrun", offsetof(struct loop_caps, coop_taskrun)},
	{"registered-ring", offsetof(struct loop_caps, registered_ring)},
	{"multishot-accept", offsetof(struct loop_caps, multishot_accept)},
	{"buffer-ring", offsetof(struct loop_caps, buffer_ring)},
};
const unsigned loop_cap_count = COUNT_OF(loop_cap_names);

bool loop_caps_disable(struct loop_caps *caps, const char *name)
{
	for (unsigned i = 0; i < loop_cap_count; i++) {
		if (strcmp(loop_cap_names[i].name, name) == 0) {
			*(bool *)((char *)caps + loop_cap_names[i].offset) = false;
			return true;
		}
	}
	return false;
}

const char *loop_why_not(int error)
{
	switch (error) {
	case ENOSYS:
		return "this kernel is built without io_uring (CONFIG_IO_URING)";
	case EPERM:
		return "io_uring is forbidden here: see sysctl kernel.io_uring_disabled, "
		       "or the seccomp profile of the container";
	case ENOMEM:
		return "not enough locked memory: raise RLIMIT_MEMLOCK";
	default:
		return strerror(error);
	}
}

static int loop_try_setup(unsigned flags)
{
	struct io_uring ring;
	int rc = io_uring_queue_init(4, &ring, flags);

	if (rc == 0)
		io_uring_queue_exit(&ring);
	return rc;
}

/* A multishot accept on something that is no listener tells an old kernel (EINVAL) from a new. */
static bool loop_try_accept(struct io_uring *ring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool works = false;

	if (fd < 0 || sqe == NULL)
		return false;
	if (listen(fd, 1) == 0) {
		io_uring_prep_multishot_accept(sqe, fd, NULL, NULL, SOCK_CLOEXEC);
		sqe = io_uring_get_sqe(ring);
		if (sqe != NULL) {
			io_uring_prep_nop(sqe);
			sqe->user_data = 1;
		}
		if (io_uring_submit_and_wait(ring, 1) >= 0 && io_uring_peek_cqe(ring, &cqe) == 0)
			/* Only a refused accept completes before the no-op. */
			works = cqe->user_data == 1;
	}
	(void)close(fd);
	return works;
}

static bool loop_try_buffers(struct io_uring *ring)
{
	struct io_uring_buf_reg reg = {.ring_entries = 4, .bgid = LOOP_BUFFER_GROUP};
	void *memory;
	bool works;

	if (posix_memalign(&memory, 4096, 4 * sizeof(struct io_uring_buf)) != 0)
		return false;
	reg.ring_addr = (uint64_t)(uintptr_t)memory;
	works = io_uring_register_buf_ring(ring, &reg, 0) == 0;
	if (works)
		(void)io_uring_unregister_buf_ring(ring, LOOP_BUFFER_GROUP);
	free(memory);
	return works;
}

int loop_probe(struct loop_caps *out)
{
	struct io_uring ring;
	int rc = io_uring_queue_init(4, &ring, 0);

	if (rc < 0)
		return rc;
	*out = (struct loop_caps){
		.single_issuer = loop_try_setup(IORING_SETUP_SINGLE_ISSUER) == 0,
		.defer_taskrun = loop_try_setup(IORING_SETUP_SINGLE_ISSUER |
						IORING_SETUP_DEFER_TASKRUN) == 0,
		.coop_taskrun = loop_try_setup(IORING_SETUP_COOP_TASKRUN) == 0,
		.buffer_ring = loop_try_buffers(&ring),
	};
	out->registered_ring = io_uring_register_ring_fd(&ring) == 1;
	out->multishot_accept = loop_try_accept(&ring);
	io_uring_queue_exit(&ring);
	return 0;
}

static uint64_t loop_clock(struct loop *loop)
{
	uint64_t now_ns = clock_now_ns();

	loop->now_ms = now_ns / 1000000;
	return now_ns;
}

int loop_create(const struct loop_caps *caps, unsigned entries, struct loop **out)
{
	struct io_uring_params params = {.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
		.cq_entries = entries * LOOP_CQ_FACTOR};
	struct loop *loop = calloc(1, sizeof(*loop));
	int rc;

	if (loop == NULL)
		return -ENOMEM;
	loop->caps = *caps;
	if (caps->single_issuer)
		params.flags |= IORING_SETUP_SINGLE_ISSUER;
	if (caps->single_issuer && caps->defer_taskrun)
		params.flags |= IORING_SETUP_DEFER_TASKRUN;
	else if (caps->coop_taskrun)
		params.flags |= IORING_SETUP_COOP_TASKRUN;
	rc = io_uring_queue_init_params(entries, &loop->ring, &params);
	if (rc < 0) {
		free(loop);
		return rc;
	}
	if (caps->registered_ring)
		loop->caps.registered_ring = io_uring_register_ring_fd(&loop->ring) == 1;
	(void)loop_clock(loop);
	timer_wheel_init(&loop->timers, loop->now_ms);
	link_init(&loop->tasks);
	*out = loop;
	return 0;
}

void loop_destroy(struct loop **loop)
{
	if (*loop == NULL)
		return;
	io_uring_queue_exit(&(*loop)->ring);
	free((*loop)->buffers);
	free(*loop);
	*loop = NULL;
}

const struct loop_caps *loop_caps(const struct loop *loop)
{
	return &loop->caps;
}

uint64_t loop_now_ms(const struct loop *loop)
{
	return loop->now_ms;
}

uint64_t loop_turns(const struct loop *loop)
{
	return loop->turns;
}

struct timer_wheel *loop_timers(struct loop *loop)
{
	return &loop->timers;
}

void task_init(struct task *task, void (*run)(struct task *task))
{
	link_init(&task->link);
	task->run = run;
}

void loop_task_add(struct loop *loop, struct task *task)
{
	if (!link_is_queued(&task->link))
		list_append(&loop->tasks, &task->link);
}

void loop_task_cancel(struct task *task)
{
	link_remove(&task->link);
}

static void loop_buffers_advance(struct loop *loop)
{
	if (loop->buffers_given > 0)
		io_uring_buf_ring_advance(loop->buffers, (int)loop->buffers_given);
	loop->buffers_given = 0;
}

/* Submits what was asked for, without waiting for anything. */
static void loop_submit(struct loop *loop)
{
	loop_buffers_advance(loop);
	STAT(ring_enters);
	loop->send_bytes = 0;
	(void)io_uring_submit(&loop->ring);
}

/* Tasks that tasks add wait for the next turn, so that none can keep the others from the ring. */
static void loop_run_tasks(struct loop *loop)
{
	struct link now;
	struct link *link;

	if (list_is_empty(&loop->tasks))
		return;
	now = loop->tasks;
	now.next->prev = &now;
	now.prev->next = &now;
	link_init(&loop->tasks);
	while ((link = list_take(&now)) != NULL) {
		struct task *task = OWNER_OF(link, struct task, link);

		task->run(task);
		if (loop->send_bytes >= LOOP_SEND_BYTES)
			loop_submit(loop);
	}
}

static void loop_complete(const struct io_uring_cqe *cqe)
{
	struct op *op = (struct op *)(uintptr_t)cqe->user_data;

	if (op == NULL)
		return; /* a cancel or a close: nobody waits for it */
	ASSERT(op->in_flight);
	if (!(cqe->flags & IORING_CQE_F_MORE))
		op->in_flight = false;
	op->done(op, cqe->res, cqe->flags);
}

static unsigned loop_drain(struct loop *loop)
{
	const unsigned ready = io_uring_cq_ready(&loop->ring);
	const unsigned most = ready < LOOP_BATCH ? ready : LOOP_BATCH;
	struct io_uring_cqe *cqe;
	unsigned handled = 0;

	/* What comes meanwhile is for the next turn. */
	while (handled < most && io_uring_peek_cqe(&loop->ring, &cqe) == 0) {
		struct io_uring_cqe copy = *cqe;

		/* Given back first: the call may need room for completions of its own. */
		io_uring_cqe_seen(&loop->ring, cqe);
		loop_complete(&copy);
		handled++;
		if (loop->send_bytes >= LOOP_SEND_BYTES)
			loop_submit(loop);
	}
	return handled;
}

/* How long was the loop away from its ring? Meanwhile it served nobody else. */
static void loop_count_lag(const struct loop *loop)
{
	const uint64_t lag_us = (clock_now_ns() - loop->left_ns) / 1000;

	if (loop->left_ns == 0)
		return;
	if (lag_us < 100)
		STAT(loop_under_100us);
	else if (lag_us < 1000)
		STAT(loop_under_1ms);
	else if (lag_us < 5000)
		STAT(loop_under_5ms);
	else if (lag_us < 20000)
		STAT(loop_under_20ms);
	else
		STAT(loop_over_20ms);
	STAT_MAX(loop_max_us, lag_us);
}

int loop_turn(struct loop *loop)
{
	int64_t sleep_ms = timer_wheel_sleep_ms(&loop->timers, loop->now_ms);
	struct io_uring_cqe *cqe;
	struct __kernel_timespec limit;
	int rc;

	if (!list_is_empty(&loop->tasks))
		sleep_ms = 0;
	limit.tv_sec = sleep_ms / 1000;
	limit.tv_nsec = (sleep_ms % 1000) * 1000000;
	loop->turns++;
	loop->send_bytes = 0;
	STAT(ring_enters);
	loop_count_lag(loop);
	/* To wait for no time would have the kernel set a timer and stop it again. */
	if (sleep_ms == 0)
		rc = io_uring_submit_and_get_events(&loop->ring);
	else
		rc = io_uring_submit_and_wait_timeout(
			&loop->ring, &cqe, 1, sleep_ms < 0 ? NULL : &limit, NULL);
	loop->left_ns = loop_clock(loop);
	if (rc < 0 && rc != -ETIME && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY)
		return rc;
	(void)loop_drain(loop);
	timer_wheel_run(&loop->timers, loop->now_ms);
	loop_run_tasks(loop);
	loop_buffers_advance(loop);
	return 0;
}

int loop_buffers_create(struct loop *loop, unsigned count)
{
	struct io_uring_buf_reg reg = {.ring_entries = count, .bgid = LOOP_BUFFER_GROUP};
	void *memory;
	int rc;

	ASSERT(count > 0 && (count & (count - 1)) == 0 && count <= 32768);
	if (!loop->caps.buffer_ring)
		return -EOPNOTSUPP;
	if (posix_memalign(&memory, 4096, count * sizeof(struct io_uring_buf)) != 0)
		return -ENOMEM;
	reg.ring_addr = (uint64_t)(uintptr_t)memory;
	rc = io_uring_register_buf_ring(&loop->ring, &reg, 0);
	if (rc < 0) {
		free(memory);
		return rc;
	}
	loop->buffers = memory;
	io_uring_buf_ring_init(loop->buffers);
	loop->buffer_mask = count - 1;
	return 0;
}

void loop_buffers_give(struct loop *loop, void *data, uint32_t bytes, uint16_t id)
{
	io_uring_buf_ring_add(
		loop->buffers, data, bytes, id, (int)loop->buffer_mask, (int)loop->buffers_given);
	loop->buffers_given++;
}

bool loop_flags_buffer(uint32_t flags, uint16_t *id)
{
	if (!(flags & IORING_CQE_F_BUFFER))
		return false;
	*id = (uint16_t)(flags >> IORING_CQE_BUFFER_SHIFT);
	return true;
}

bool loop_flags_nonempty(uint32_t flags)
{
	return (flags & IORING_CQE_F_SOCK_NONEMPTY) != 0;
}

bool loop_flags_more(uint32_t flags)
{
	return (flags & IORING_CQE_F_MORE) != 0;
}

/* An entry of the submission queue; a full queue is submitted first. */
static struct io_uring_sqe *loop_sqe(struct loop *loop)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&loop->ring);

	if (sqe == NULL) {
		loop_submit(loop);
		sqe = io_uring_get_sqe(&loop->ring);
		ASSERT(sqe != NULL);
	}
	return sqe;
}

static struct io_uring_sqe *loop_begin(struct loop *loop, struct op *op)
{
	ASSERT(!op->in_flight && op->done != NULL);
	op->in_flight = true;
	return loop_sqe(loop);
}

void loop_accept(struct loop *loop, struct op *op, int fd)
{
	struct io_uring_sqe *sqe = loop_begin(loop, op);

	if (loop->caps.multishot_accept)
		io_uring_prep_multishot_accept(sqe, fd, NULL, NULL, SOCK_CLOEXEC);
	else
		io_uring_prep_accept(sqe, fd, NULL, NULL, SOCK_CLOEXEC);
	io_uring_sqe_set_data(sqe, op);
}

void loop_connect(
	struct loop *loop, struct op *op, int fd, const struct sockaddr *to, socklen_t len)
{
	struct io_uring_sqe *sqe = loop_begin(loop, op);

	io_uring_prep_connect(sqe, fd, to, len);
	io_uring_sqe_set_data(sqe, op);
}

void loop_recv(struct loop *loop, struct op *op, int fd, void *data, size_t bytes)
{
	struct io_uring_sqe *sqe = loop_begin(loop, op);

	io_uring_prep_recv(sqe, fd, data, bytes, 0);
	io_uring_sqe_set_data(sqe, op);
}

void loop_recv_provided(struct loop *loop, struct op *op, int fd, size_t bytes_max)
{
	struct io_uring_sqe *sqe = loop_begin(loop, op);

	io_uring_prep_recv(sqe, fd, NULL, bytes_max, 0);
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = LOOP_BUFFER_GROUP;
	io_uring_sqe_set_data(sqe, op);
}

void loop_recvmsg(struct loop *loop, struct op *op, int fd, struct msghdr *message)
{
	struct io_uring_sqe *sqe = loop_begin(loop, op);

	io_uring_prep_recvmsg(sqe, fd, message, 0);
	io_uring_sqe_set_data(sqe, op);
}

void loop_recvmsg_provided(struct loop *loop, struct op *op, int fd, struct msghdr *message)
{
	struct io_uring_sqe *sqe = loop_begin(loop, op);

	io_uring_prep_recvmsg(sqe, fd, message, 0);
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = LOOP_BUFFER_GROUP;
	io_uring_sqe_set_data(sqe, op);
}

void loop_send(struct loop *loop, struct op *op, int fd, const void *data, size_t bytes)
{
	struct io_uring_sqe *sqe = loop_begin(loop, op);

	loop->send_bytes += bytes;
	/* No MSG_WAITALL: a kernel-TLS socket answers EOPNOTSUPP to it (6.1 to 7.2). */
	io_uring_prep_send(sqe, fd, data, bytes, MSG_NOSIGNAL);
	io_uring_sqe_set_data(sqe, op);
}

void loop_write(struct loop *loop, struct op *op, int fd, const void *data, size_t bytes)
{
	struct io_uring_sqe *sqe = loop_begin(loop, op);

	io_uring_prep_write(sqe, fd, data, (unsigned)bytes, (uint64_t)-1);
	io_uring_sqe_set_data(sqe, op);
}

void loop_read(struct loop *loop, struct op *op, int fd, void *data, size_t bytes)
{
	struct io_uring_sqe *sqe = loop_begin(loop, op);

	io_uring_prep_read(sqe, fd, data, (unsigned)bytes, 0);
	io_uring_sqe_set_data(sqe, op);
}

void loop_write_at(struct loop *loop, struct op *op, int fd, const void *data, size_t bytes,
	uint64_t offset, int flags)
{
	struct io_uring_sqe *sqe = loop_begin(loop, op);

	io_uring_prep_write(sqe, fd, data, (unsigned)bytes, offset);
	sqe->rw_flags = flags;
	io_uring_sqe_set_data(sqe, op);
}

void loop_read_at(
	struct loop *loop, struct op *op, int fd, void *data, size_t bytes, uint64_t offset)
{
	struct io_uring_sqe *sqe = loop_begin(loop, op);

	io_uring_prep_read(sqe, fd, data, (unsigned)bytes, offset);
	io_uring_sqe_set_data(sqe, op);
}

void loop_sync(struct loop *loop, struct op *op, int fd)
{
	struct io_uring_sqe *sqe = loop_begin(loop, op);

	io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
	io_uring_sqe_set_data(sqe, op);
}

void loop_poll(struct loop *loop, struct op *op, int fd, unsigned mask)
{
	struct io_uring_sqe *sqe = loop_begin(loop, op);

	io_uring_prep_poll_add(sqe, fd, mask);
	io_uring_sqe_set_data(sqe, op);
}

void loop_cancel(struct loop *loop, struct op *op)
{
	struct io_uring_sqe *sqe;

	if (!op->in_flight)
		return;
	sqe = loop_sqe(loop);
	io_uring_prep_cancel(sqe, op, 0);
	io_uring_sqe_set_data(sqe, NULL);
}

void loop_close(struct loop *loop, int fd)
{
	struct io_uring_sqe *sqe = loop_sqe(loop);

	io_uring_prep_close(sqe, fd);
	io_uring_sqe_set_data(sqe, NULL);
}
