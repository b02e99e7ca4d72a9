/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_loop.c: the ring does the same whatever of io_uring a kernel has. Each
 * test runs with all that this kernel can, with each capability forced off, and
 * with none.
 */

#include "relay/base/stats.h"
#include "tests/unit/loop_fixture.h"

#include <time.h>

static int listen_at(struct sockaddr_in *at)
{
	socklen_t len = sizeof(*at);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*at = (struct sockaddr_in){.sin_family = AF_INET};
	at->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)at, sizeof(*at)), 0);
	assert_int_equal(listen(fd, 16), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)at, &len), 0);
	return fd;
}

static void run_accept_send_recv(void)
{
	struct loop *loop = loop_begin();
	struct sockaddr_in at;
	int listener = listen_at(&at);
	struct result accepts = RESULT;

	loop_accept(loop, &accepts.op, listener);
	for (unsigned i = 1; i <= 3; i++) {
		struct result connects = RESULT;
		struct result sends = RESULT;
		struct result recvs = RESULT;
		char text[64] = "";
		int near = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		int far;

		loop_connect(loop, &connects.op, near, (struct sockaddr *)&at, sizeof(at));
		loop_await(loop, &connects, 1);
		assert_int_equal(connects.last, 0);
		loop_await(loop, &accepts, i);
		far = accepts.last;
		assert_true(far >= 0);
		assert_int_equal(fcntl(far, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
		if (!accepts.op.in_flight)
			loop_accept(loop, &accepts.op, listener);

		loop_recv(loop, &recvs.op, far, text, sizeof(text));
		loop_send(loop, &sends.op, near, "EHLO\r\n", 6);
		loop_await(loop, &recvs, 1);
		loop_await(loop, &sends, 1);
		assert_int_equal(sends.last, 6);
		assert_int_equal(recvs.last, 6);
		assert_string_equal(text, "EHLO\r\n");

		loop_close(loop, near);
		loop_recv(loop, &recvs.op, far, text, sizeof(text));
		loop_await(loop, &recvs, 2);
		assert_int_equal(recvs.last, 0);
		loop_close(loop, far);
	}
	assert_int_equal(accepts.more > 0, caps->multishot_accept);
	loop_cancel(loop, &accepts.op);
	loop_await(loop, &accepts, 4);
	assert_int_equal(accepts.last, -ECANCELED);
	loop_close(loop, listener);
	loop_turn_now(loop);
	loop_destroy(&loop);
	assert_null(loop);
}

static void test_loop_accept_send_recv(void **state)
{
	(void)state;
	with_each(run_accept_send_recv);
}

/* Errors come as completions, not as calls. */
static void run_errors(void)
{
	struct loop *loop = loop_begin();
	struct result it = RESULT;
	struct sockaddr_in at;
	int fd = listen_at(&at);
	int pair[2];

	(void)close(fd); /* now nobody listens there */
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	loop_connect(loop, &it.op, fd, (struct sockaddr *)&at, sizeof(at));
	assert_int_equal(it.calls, 0);
	loop_await(loop, &it, 1);
	assert_int_equal(it.last, -ECONNREFUSED);
	(void)close(fd);
	loop_recv(loop, &it.op, fd, &at, sizeof(at));
	assert_int_equal(it.calls, 1);
	loop_await(loop, &it, 2);
	assert_int_equal(it.last, -EBADF);
	/* No SIGPIPE. */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	(void)close(pair[1]);
	loop_send(loop, &it.op, pair[0], "x", 1);
	loop_await(loop, &it, 3);
	assert_int_equal(it.last, -EPIPE);
	(void)close(pair[0]);
	loop_destroy(&loop);
}

static void test_loop_errors(void **state)
{
	(void)state;
	with_each(run_errors);
}

static void run_messages(void)
{
	struct loop *loop = loop_begin();
	struct result it = RESULT;
	char a[4] = "";
	char b[8] = "";
	struct iovec parts[2] = {{a, 3}, {b, 7}};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
	uint64_t count = 5;
	int pair[2];
	int event = eventfd(0, EFD_CLOEXEC);

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	loop_recvmsg(loop, &it.op, pair[0], &message);
	assert_int_equal(write(pair[1], "onetwo", 6), 6);
	loop_await(loop, &it, 1);
	assert_int_equal(it.last, 6);
	assert_string_equal(a, "one");
	assert_string_equal(b, "two");
	/* What another thread does: an eventfd wakes the loop. */
	loop_read(loop, &it.op, event, &count, sizeof(count));
	assert_int_equal(eventfd_write(event, 3), 0);
	loop_await(loop, &it, 2);
	assert_int_equal(it.last, sizeof(count));
	assert_int_equal(count, 3);
	loop_write(loop, &it.op, pair[1], "log", 3);
	loop_await(loop, &it, 3);
	assert_int_equal(it.last, 3);
	(void)close(pair[0]);
	(void)close(pair[1]);
	(void)close(event);
	loop_destroy(&loop);
}

static void test_loop_messages(void **state)
{
	(void)state;
	with_each(run_messages);
}

static void run_cancel(void)
{
	struct loop *loop = loop_begin();
	struct result it = RESULT;
	char byte;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	loop_cancel(loop, &it.op); /* nothing is in flight: harmless */
	loop_recv(loop, &it.op, pair[0], &byte, 1);
	assert_true(it.op.in_flight);
	loop_cancel(loop, &it.op);
	assert_int_equal(it.calls, 0);
	loop_await(loop, &it, 1);
	assert_int_equal(it.last, -ECANCELED);
	/* Later, when it has been waiting for a while. */
	loop_recv(loop, &it.op, pair[0], &byte, 1);
	loop_turn_now(loop);
	loop_cancel(loop, &it.op);
	loop_await(loop, &it, 2);
	assert_int_equal(it.last, -ECANCELED);
	/* It had completed before: the result stays what it was, and comes once. */
	assert_int_equal(write(pair[1], "x", 1), 1);
	loop_recv(loop, &it.op, pair[0], &byte, 1);
	loop_cancel(loop, &it.op);
	loop_await(loop, &it, 3);
	assert_true(it.last == 1 || it.last == -ECANCELED);
	loop_turn_now(loop);
	assert_int_equal(it.calls, 3);
	(void)close(pair[0]);
	(void)close(pair[1]);
	loop_destroy(&loop);
}

static void test_loop_cancel(void **state)
{
	(void)state;
	with_each(run_cancel);
}

/* Far more at once than the submission queue is long, waiting or completing at once. */
static void run_full_queue(void)
{
	enum { MANY = 40 * ENTRIES };
	static struct result waiting[ENTRIES * 5];
	static struct result quick[MANY];
	struct loop *loop = loop_begin();
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	unsigned done = 0;
	char byte;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	for (unsigned i = 0; i < COUNT_OF(waiting); i++) {
		waiting[i] = RESULT;
		loop_recv(loop, &waiting[i].op, pair[0], &byte, 1);
	}
	for (unsigned i = 0; i < MANY; i++) {
		quick[i] = RESULT;
		loop_write(loop, &quick[i].op, null, "line\n", 5);
	}
	for (unsigned turn = 0; turn < TURNS_MAX && done < MANY; turn++) {
		assert_int_equal(loop_turn(loop), 0);
		done = 0;
		for (unsigned i = 0; i < MANY; i++)
			done += quick[i].calls;
	}
	for (unsigned i = 0; i < MANY; i++) {
		assert_int_equal(quick[i].calls, 1);
		assert_int_equal(quick[i].last, 5);
	}
	for (unsigned i = 0; i < COUNT_OF(waiting); i++) {
		assert_int_equal(waiting[i].calls, 0);
		loop_cancel(loop, &waiting[i].op);
	}
	for (unsigned i = 0; i < COUNT_OF(waiting); i++)
		loop_await(loop, &waiting[i], 1);
	(void)close(null);
	(void)close(pair[0]);
	(void)close(pair[1]);
	loop_destroy(&loop);
}

static void test_loop_full_queue(void **state)
{
	(void)state;
	with_each(run_full_queue);
}

#define BUFFERS 4
#define BUFFER_BYTES 16

/* Takes a provided buffer's text and gives the buffer back. */
static void buffer_take(
	struct loop *loop, const struct result *it, char (*memory)[BUFFER_BYTES], struct span want)
{
	uint16_t id = UINT16_MAX;

	assert_true(loop_flags_buffer(it->flags, &id));
	assert_true(id < BUFFERS);
	assert_int_equal(it->last, want.len);
	assert_memory_equal(memory[id], want.data, want.len);
	loop_buffers_give(loop, memory[id], BUFFER_BYTES, id);
}

static void run_buffers(void)
{
	static char memory[BUFFERS][BUFFER_BYTES];
	struct loop *loop = loop_begin();
	struct result it = RESULT;
	int pair[2];
	int rc = loop_buffers_create(loop, BUFFERS);

	if (!caps->buffer_ring) {
		assert_int_equal(rc, -EOPNOTSUPP);
		loop_destroy(&loop);
		return;
	}
	assert_int_equal(rc, 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	/* Before any is given there is none: an answer, not a failure. */
	assert_int_equal(write(pair[1], "abcdef", 6), 6);
	loop_recv_provided(loop, &it.op, pair[0], BUFFER_BYTES);
	loop_await(loop, &it, 1);
	assert_int_equal(it.last, -ENOBUFS);
	for (uint16_t i = 0; i < BUFFERS; i++)
		loop_buffers_give(loop, memory[i], BUFFER_BYTES, i);
	loop_turn_now(loop);
	/* No more than was asked for. */
	loop_recv_provided(loop, &it.op, pair[0], 4);
	loop_await(loop, &it, 2);
	buffer_take(loop, &it, memory, span_of("abcd"));
	/* Round and round: each goes back in and comes out again. */
	loop_recv_provided(loop, &it.op, pair[0], BUFFER_BYTES);
	loop_await(loop, &it, 3);
	buffer_take(loop, &it, memory, span_of("ef"));
	for (unsigned i = 0; i < 5 * BUFFERS; i++) {
		struct msghdr message = {0};
		struct iovec part = {.iov_len = BUFFER_BYTES};
		char text[8];

		(void)snprintf(text, sizeof(text), "%u", i);
		message.msg_iov = &part;
		message.msg_iovlen = 1;
		loop_recvmsg_provided(loop, &it.op, pair[0], &message);
		loop_turn_now(loop);
		assert_int_equal(write(pair[1], text, strlen(text)), strlen(text));
		loop_await(loop, &it, 4 + i);
		buffer_take(loop, &it, memory, span_of(text));
	}
	/* The end of the stream takes none away for good. */
	(void)close(pair[1]);
	loop_recv_provided(loop, &it.op, pair[0], BUFFER_BYTES);
	loop_await(loop, &it, 4 + 5 * BUFFERS);
	assert_int_equal(it.last, 0);
	(void)close(pair[0]);
	loop_destroy(&loop);
}

static void test_loop_buffers(void **state)
{
	(void)state;
	with_each(run_buffers);
}

struct tick {
	struct timer timer;
	struct loop *loop;
	uint64_t fired_ms;
};

static void tick_fire(struct timer *timer)
{
	struct tick *tick = OWNER_OF(timer, struct tick, timer);

	tick->fired_ms = loop_now_ms(tick->loop);
}

/* The loop wakes for a timer by itself, and not early. */
static void run_timers(void)
{
	struct loop *loop = loop_begin();
	struct tick tick = {.loop = loop};
	uint64_t begin_ms = loop_now_ms(loop);
	uint64_t turns = loop_turns(loop);

	timer_init(&tick.timer, tick_fire);
	timer_set(loop_timers(loop), &tick.timer, begin_ms + 100);
	for (unsigned turn = 0; tick.fired_ms == 0; turn++) {
		assert_true(turn < TURNS_MAX);
		assert_int_equal(loop_turn(loop), 0);
	}
	assert_true(tick.fired_ms >= begin_ms + 100);
	/* It slept: a turn for each tick, not a busy loop. */
	assert_in_range(loop_turns(loop) - turns, 1, 10);
	loop_destroy(&loop);
}

static void test_loop_timers(void **state)
{
	(void)state;
	with_each(run_timers);
}

struct job {
	struct task task;
	struct loop *loop;
	unsigned runs;
	unsigned again;      /* adds itself so often */
	struct job *cancels; /* takes this one away */
};

static void job_run(struct task *task)
{
	struct job *job = OWNER_OF(task, struct job, task);

	job->runs++;
	if (job->again > 0) {
		job->again--;
		loop_task_add(job->loop, task);
	}
	if (job->cancels != NULL)
		loop_task_cancel(&job->cancels->task);
}

static void run_tasks(void)
{
	struct loop *loop = loop_begin();
	struct job a = {.loop = loop, .again = 2};
	struct job b = {.loop = loop};
	struct job c = {.loop = loop, .cancels = &b};

	task_init(&a.task, job_run);
	task_init(&b.task, job_run);
	task_init(&c.task, job_run);
	loop_task_add(loop, &a.task);
	loop_task_add(loop, &a.task); /* waits already */
	loop_task_add(loop, &c.task);
	loop_task_add(loop, &b.task);
	assert_int_equal(a.runs, 0);
	assert_int_equal(loop_turn(loop), 0);
	/* One that adds itself waits for the next turn. */
	assert_int_equal(a.runs, 1);
	assert_true(link_is_queued(&a.task.link));
	assert_int_equal(c.runs, 1);
	assert_int_equal(b.runs, 0);
	assert_int_equal(loop_turn(loop), 0);
	assert_int_equal(loop_turn(loop), 0);
	assert_int_equal(a.runs, 3);
	loop_task_add(loop, &b.task);
	loop_task_cancel(&b.task);
	loop_task_cancel(&b.task);
	loop_turn_now(loop);
	assert_int_equal(b.runs, 0);
	assert_int_equal(a.runs, 3);
	loop_destroy(&loop);
}

static void test_loop_tasks(void **state)
{
	(void)state;
	with_each(run_tasks);
}

/* An owner starts its next operation from within the completion of the last. */
struct echo {
	struct op op;
	struct loop *loop;
	int fd;
	unsigned left;
	char byte;
};

static void echo_done(struct op *op, int32_t result, uint32_t flags)
{
	struct echo *echo = OWNER_OF(op, struct echo, op);

	(void)flags;
	assert_int_equal(result, 1);
	if (--echo->left > 0)
		loop_recv(echo->loop, op, echo->fd, &echo->byte, 1);
}

static void run_chain(void)
{
	struct loop *loop = loop_begin_with(1);
	struct echo echo = {.op = {.done = echo_done}, .loop = loop, .left = 1000};
	static const char bytes[1000] = {'x'};
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(write(pair[1], bytes, sizeof(bytes)), sizeof(bytes));
	echo.fd = pair[0];
	loop_recv(loop, &echo.op, echo.fd, &echo.byte, 1);
	for (unsigned turn = 0; echo.left > 0; turn++) {
		assert_true(turn < TURNS_MAX);
		assert_int_equal(loop_turn(loop), 0);
	}
	assert_false(echo.op.in_flight);
	(void)close(pair[0]);
	(void)close(pair[1]);
	loop_destroy(&loop);
}

static void test_loop_chain(void **state)
{
	(void)state;
	with_each(run_chain);
}

static void nap_run(struct task *task)
{
	const struct timespec nap = {.tv_nsec = 21000000};

	(void)task;
	(void)nanosleep(&nap, NULL);
}

/* Each turn is counted once, by how long it was away; waiting in the ring is not. */
static void run_lag(void)
{
	static struct stats stats;
	struct loop *loop = loop_begin();
	struct task nap;
	uint64_t sum;

	stats = (struct stats){0};
	stats_mine = &stats;
	task_init(&nap, nap_run);
	loop_task_add(loop, &nap);
	for (unsigned i = 0; i < 4; i++)
		loop_turn_now(loop);
	sum = stats.loop_under_100us + stats.loop_under_1ms + stats.loop_under_5ms +
	      stats.loop_under_20ms + stats.loop_over_20ms;
	assert_int_equal(sum, loop_turns(loop) - 1);
	assert_true(stats.loop_over_20ms >= 1);
	assert_true(stats.loop_max_us >= 21000);
	loop_destroy(&loop);
}

static void test_loop_lag(void **state)
{
	(void)state;
	with_each(run_lag);
}

static void test_loop_caps(void **state)
{
	struct loop_caps all;
	unsigned count = 0;

	(void)state;
	memset(&all, 1, sizeof(all));
	for (unsigned i = 0; i < loop_cap_count; i++) {
		const bool *bit = (const bool *)((const char *)&all + loop_cap_names[i].offset);

		assert_true(*bit);
		assert_true(loop_caps_disable(&all, loop_cap_names[i].name));
		assert_false(*bit);
	}
	/* Every member has a name. */
	for (size_t i = 0; i < sizeof(all); i++)
		count += ((const uint8_t *)&all)[i];
	assert_int_equal(count, 0);
	assert_false(loop_caps_disable(&all, "no-such-thing"));
	assert_false(loop_caps_disable(&all, ""));
	assert_non_null(strstr(loop_why_not(EPERM), "io_uring_disabled"));
	assert_non_null(strstr(loop_why_not(ENOSYS), "CONFIG_IO_URING"));
	assert_non_null(strstr(loop_why_not(ENOMEM), "RLIMIT_MEMLOCK"));
	assert_non_null(loop_why_not(EINVAL));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_loop_caps),
		cmocka_unit_test(test_loop_accept_send_recv),
		cmocka_unit_test(test_loop_errors),
		cmocka_unit_test(test_loop_messages),
		cmocka_unit_test(test_loop_cancel),
		cmocka_unit_test(test_loop_full_queue),
		cmocka_unit_test(test_loop_buffers),
		cmocka_unit_test(test_loop_timers),
		cmocka_unit_test(test_loop_tasks),
		cmocka_unit_test(test_loop_chain),
		cmocka_unit_test(test_loop_lag),
	};
	int rc = loop_probe(&found);

	if (rc < 0) {
		(void)printf("no io_uring: %s\n", loop_why_not(-rc));
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
