/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_loop_bulk.c: bulk to send leaves before the turn is over, and is answered for in the next.
 */

#include "tests/unit/loop_fixture.h"

#include <sys/ioctl.h>

/* Two tasks of one turn: one sends, the other looks what has arrived. */
struct early {
	struct task send, look;
	struct loop *loop;
	struct result sent;
	const void *bytes;
	size_t len;
	int pair[2];
	int arrived; /* when the second was run; -1: not yet */
};

static void early_send(struct task *task)
{
	struct early *early = OWNER_OF(task, struct early, send);

	loop_send(early->loop, &early->sent.op, early->pair[0], early->bytes, early->len);
}

static void early_look(struct task *task)
{
	struct early *early = OWNER_OF(task, struct early, look);

	assert_int_equal(ioctl(early->pair[1], FIONREAD, &early->arrived), 0);
	/* Though it may be over, who asked for it is not called within a turn. */
	assert_int_equal(early->sent.calls, 0);
}

static int arrived_within_turn(const void *bytes, size_t len)
{
	struct early early = {
		.loop = loop_begin(), .sent = RESULT, .bytes = bytes, .len = len, .arrived = -1};

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, early.pair), 0);
	task_init(&early.send, early_send);
	task_init(&early.look, early_look);
	loop_task_add(early.loop, &early.send);
	loop_task_add(early.loop, &early.look);
	for (unsigned turn = 0; early.arrived < 0; turn++) {
		assert_true(turn < TURNS_MAX);
		assert_int_equal(loop_turn(early.loop), 0);
	}
	(void)close(early.pair[1]);
	loop_await(early.loop, &early.sent, 1);
	(void)close(early.pair[0]);
	loop_destroy(&early.loop);
	return early.arrived;
}

static void run_bulk(void)
{
	static const uint8_t bytes[1048576];

	assert_true(arrived_within_turn(bytes, sizeof(bytes)) > 0);
	assert_int_equal(arrived_within_turn(bytes, 1024), 0);
}

static void test_loop_bulk(void **state)
{
	(void)state;
	with_each(run_bulk);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_loop_bulk),
	};
	int rc = loop_probe(&found);

	if (rc < 0) {
		(void)printf("no io_uring: %s\n", loop_why_not(-rc));
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
