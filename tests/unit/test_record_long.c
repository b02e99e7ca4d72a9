/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_record_long.c: long records that came together are opened one by one, as the text before
 * is taken. Text, its end, and what is wrong with it come in turn all the same.
 */

#include "tests/unit/record_fixture.h"

enum {
	FULL = TLS_RECORD_TEXT_BYTES,
	LONG_COUNT = 3,
	LONG_TEXT = LONG_COUNT * FULL,
};

static char long_text[LONG_TEXT];

/* Long records, and one behind them, all that a buffer holds of them by the first receive. */
struct long_case {
	bool is_bulk;
	bool has_updates; /* a KeyUpdate behind each */
	size_t bite;
	uint8_t type; /* of the record behind */
	const char *content;
	size_t content_len;
};

static void long_send(const struct long_case *is)
{
	static const uint8_t update[5] = {24, 0, 0, 1, 0};
	static uint8_t records[(LONG_COUNT + 1) * TLS_RECORD_BYTES_MAX];
	struct ktls ktls = with.conn.ktls;
	size_t len = 0;

	for (size_t i = 0; i < LONG_TEXT; i++)
		long_text[i] = (char)(i * 31 + i / 255);
	for (size_t at = 0; at < LONG_TEXT; at += FULL) {
		len += fake_seal(
			&with.keys, RECORD_DATA, span_make(long_text + at, FULL), records + len);
		if (!is->has_updates)
			continue;
		len += fake_seal(&with.keys, RECORD_HANDSHAKE, span_make(update, sizeof(update)),
			records + len);
		next_keys_by(&ktls);
	}
	len += fake_seal(
		&with.keys, is->type, span_make(is->content, is->content_len), records + len);
	send_bytes(records, len);
}

/* An owner that is busy gets them: the first is opened, and no more. */
static void long_open(const struct long_case *is)
{
	with_open("TLS_AES_256_GCM_SHA384", true);
	/* The receive that was asked for already is a small one. */
	with.conn.is_bulk_in = is->is_bulk;
	send_record(RECORD_DATA, "x", 1);
	expect_text("x");
	with.is_busy = true;
	with.bite = is->bite;
	long_send(is);
	assert_int_equal(conn_input(&with.conn).len, FULL);
	assert_int_equal(with.conn.raw_end - with.conn.raw_start > FULL, is->is_bulk);
	assert_int_equal(with.ends, 0);
}

static void long_take(void)
{
	with.is_busy = false;
	on_input(&with.conn);
	run();
}

static void expect_long(const char *behind)
{
	assert_int_equal(with.text_len, LONG_TEXT + strlen(behind));
	assert_memory_equal(with.text, long_text, LONG_TEXT);
	assert_memory_equal(with.text + LONG_TEXT, behind, strlen(behind));
	with.text_len = 0;
}

static void test_text(void **state)
{
	/* A small buffer holds no more than a record behind an unfinished line. */
	static const size_t bites[][2] = {
		{0, 0}, {3, 3}, {12288, 4096}, {FULL, 7000}, {24576, 6144}};

	(void)state;
	for (unsigned i = 0; i < 4 * COUNT_OF(bites); i++) {
		const struct long_case is = {.is_bulk = i % 2 == 0,
			.has_updates = i / 2 % 2 == 0,
			.bite = bites[i / 4][i % 2],
			.type = RECORD_DATA,
			.content = "QUIT\r\n",
			.content_len = 6};

		long_open(&is);
		long_take();
		assert_int_equal(with.ends, 0);
		/* The connection goes on; what was no bite is taken with what comes now. */
		with.bite = 0;
		send_record(RECORD_DATA, "NOOP\r\n", 6);
		expect_long("QUIT\r\nNOOP\r\n");
		with_close();
	}
}

/* Text that is taken as it is opened stays where it was. */
static void test_place(void **state)
{
	const struct long_case is = {
		.is_bulk = true, .type = RECORD_DATA, .content = "", .content_len = 0};
	const uint8_t *at;

	(void)state;
	long_open(&is);
	at = conn_input(&with.conn).data;
	for (unsigned i = 0; i < LONG_COUNT; i++) {
		assert_int_equal(conn_input(&with.conn).len, FULL);
		assert_ptr_equal(conn_input(&with.conn).data, at);
		at += 5 + FULL + 1 + TAG_BYTES;
		take(&with.conn, FULL);
	}
	long_take();
	expect_long("");
	with_close();
}

/* Small records behind text that waits are opened with it: commands are answered together. */
static void test_small(void **state)
{
	uint8_t records[256];
	size_t len = 0;

	(void)state;
	with_open("TLS_AES_256_GCM_SHA384", true);
	with.is_busy = true;
	for (unsigned i = 0; i < 3; i++)
		len += fake_seal(&with.keys, RECORD_DATA, span_of("NOOP\r\n"), records + len);
	send_bytes(records, len);
	assert_int_equal(conn_input(&with.conn).len, 18);
	long_take();
	expect_text("NOOP\r\nNOOP\r\nNOOP\r\n");
	with_close();
}

static void test_end(void **state)
{
	struct long_case is = {.type = RECORD_ALERT, .content = "\1\0", .content_len = 2};

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		is.is_bulk = i % 2 == 0;
		is.bite = i / 2 * 4096u;
		long_open(&is);
		long_take();
		expect_long("");
		assert_int_equal(with.ends, 1);
		assert_int_equal(with.end, CONN_END_EOF);
		with_close();
	}
	/* A FIN alone is behind the text, too. */
	is = (struct long_case){
		.is_bulk = true, .type = RECORD_DATA, .content = "", .content_len = 0};
	long_open(&is);
	assert_int_equal(shutdown(with.pair.peer_fd, SHUT_WR), 0);
	run();
	assert_int_equal(with.ends, 0);
	long_take();
	expect_long("");
	assert_int_equal(with.ends, 1);
	assert_int_equal(with.end, CONN_END_EOF);
	with_close();
}

static void test_wrong(void **state)
{
	struct long_case is = {
		.is_bulk = true, .type = RECORD_HANDSHAKE, .content = "\1\0\0\0", .content_len = 4};

	(void)state;
	long_open(&is);
	long_take();
	expect_long("");
	expect_refusal("unexpected message");
	with_close();
	/* One that is spoiled, in the middle: what is before it is text, and nothing else. */
	is.type = RECORD_DATA;
	long_open(&is);
	with.conn.in->data[with.conn.raw_start + 100] ^= 1;
	long_take();
	assert_int_equal(with.text_len, FULL);
	expect_refusal("bad record mac");
	with_close();
	/* And one that is none. */
	long_open(&is);
	with.conn.in->data[with.conn.raw_start + 3] = 0xff;
	long_take();
	assert_int_equal(with.text_len, FULL);
	expect_refusal("record overflow");
	with_close();
}

/* An owner that lets go of it while records wait. */
static void test_abort(void **state)
{
	const struct long_case is = {
		.is_bulk = true, .type = RECORD_DATA, .content = "QUIT\r\n", .content_len = 6};

	(void)state;
	long_open(&is);
	take(&with.conn, 100);
	with_close();
	long_open(&is);
	conn_close(&with.conn);
	assert_int_equal(conn_input(&with.conn).len, 0);
	run();
	with_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_place),
		cmocka_unit_test(test_small),
		cmocka_unit_test(test_end),
		cmocka_unit_test(test_wrong),
		cmocka_unit_test(test_abort),
	};

	return cmocka_run_group_tests(tests, tls_fixture_setup, tls_fixture_teardown);
}
