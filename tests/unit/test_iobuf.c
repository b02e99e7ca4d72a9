/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/limits.h"
#include "relay/net/conn.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* cmocka needs those above it. */
#include <cmocka.h>

/* A connection's own: received, gathered, on the wire, and its owner's (iobuf.h). */
#define EACH 4

static struct loop_caps caps;
static const struct ktls_support support = {.why_not = "test"};

static int probe(void **state)
{
	(void)state;
	return loop_probe(&caps);
}

/* What the kernel is lent in a burst may not be missing when every connection holds its own. */
static void test_enough_for_all(void **state)
{
	static const unsigned sessions[] = {1, 15, 16, 17, 100, 250, 400, 1000, 2100, 5100};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(sessions); i++) {
		struct loop *loop = NULL;
		struct conn_net net;
		unsigned left;

		assert_int_equal(loop_create(&caps, 64, &loop), 0);
		assert_int_equal(conn_net_create(&net, loop, sessions[i], 1, &support), 0);
		/* As after many receives that found the kernel without. */
		for (unsigned turn = 0; turn < 16; turn++)
			iobufs_lend_more(&net.bufs);
		left = net.bufs.small_memory.count - net.bufs.small_memory.used;
		if (left < EACH * sessions[i])
			print_error("%u sessions need %u buffers, %u lent, %u are left\n",
				sessions[i], EACH * sessions[i], net.bufs.lent, left);
		assert_true(left >= EACH * sessions[i]);
		loop_destroy(&loop);
		conn_net_destroy(&net);
	}
}

/* A buffer that is put back goes to the kernel while that has too few, else to the pool. */
static void test_take_and_put(void **state)
{
	struct loop *loop = NULL;
	struct conn_net net;
	struct iobuf *small;
	struct iobuf *bulk;
	struct iobuf *other;
	unsigned lent;

	(void)state;
	assert_int_equal(loop_create(&caps, 64, &loop), 0);
	assert_int_equal(conn_net_create(&net, loop, 4, 1, &support), 0);
	lent = net.bufs.lent;
	assert_int_equal(lent > 0, net.bufs.provided);
	small = iobuf_take_small(&net.bufs);
	assert_int_equal(small->cap, IOBUF_SMALL_BYTES);
	assert_false(small->is_bulk);
	bulk = iobuf_take(&net.bufs, true);
	assert_int_equal(bulk->cap, IOBUF_BULK_BYTES);
	assert_true(bulk->is_bulk);
	/* There was one only. */
	assert_null(iobuf_take_bulk(&net.bufs));
	other = iobuf_take(&net.bufs, true);
	assert_false(other->is_bulk);
	iobuf_put(&net.bufs, &small);
	iobuf_put(&net.bufs, &bulk);
	iobuf_put(&net.bufs, &other);
	assert_null(small);
	assert_null(bulk);
	assert_null(other);
	iobuf_put(&net.bufs, &other);
	assert_int_equal(net.bufs.lent, lent);
	assert_int_equal(net.bufs.bulk_memory.used, 0);
	loop_destroy(&loop);
	conn_net_destroy(&net);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_enough_for_all),
		cmocka_unit_test(test_take_and_put),
	};

	return cmocka_run_group_tests(tests, probe, NULL);
}
