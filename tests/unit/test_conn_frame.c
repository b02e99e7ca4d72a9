/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_conn_frame.c: frames of a connection whose records are our own: what the peer's OpenSSL
 * reads is the text in front, the header, the text and what was written behind it, whatever pieces
 * they came in; and nothing of a frame that was given up.
 */

#include "tests/unit/sealed_fixture.h"

static struct conn conn;

static void with_begin(void)
{
	with_open(&conn, "TLSv1.3", "TLS_AES_256_GCM_SHA384");
}

static void end_frame(const char *header)
{
	conn_frame_end(with.conn, span_of(header));
	conn_flush_now(with.conn);
}

/* Text of all sizes, in pieces of all sizes. */
static void try_pieces(size_t gathered, size_t piece)
{
	const size_t total = 69000;
	size_t at = gathered;

	assert_int_equal(conn_write(with.conn, span_of("RCPT TO:<a@b>\r\n")), 15);
	assert_int_equal(conn_write(with.conn, span_make(text, gathered)), gathered);
	assert_true(conn_frame_begin(with.conn, 15));
	while (at < total) {
		const size_t len = piece < total - at ? piece : total - at;

		assert_true(conn_frame_room(with.conn, 0) >= len);
		conn_frame_add(with.conn, span_make(text + at, len));
		at += len;
	}
	end_frame("BDAT 69000\r\n");
	with.records = 0;
	they_get("RCPT TO:<a@b>\r\n", "BDAT 69000\r\n", total);
	/* Small pieces are put together. */
	assert_true(with.records <= 1 + total / 4096 + 1);
	if (piece <= 2 || piece == 16384)
		assert_true(with.records <= 7);
	assert_true(conn_is_drained(with.conn));
}

static void test_pieces(void **state)
{
	static const struct {
		const char *version, *cipher;
	} suites[] = {{"TLSv1.3", "TLS_AES_256_GCM_SHA384"}, {"TLSv1.3", "TLS_AES_128_GCM_SHA256"},
		{"TLSv1.3", "TLS_CHACHA20_POLY1305_SHA256"},
		{"TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384"},
		{"TLSv1.2", "ECDHE-ECDSA-CHACHA20-POLY1305"}};
	static const size_t pieces[] = {1, 2, 100, 4095, 4096, 5000, 16383, 16384, 16385, 69000};
	static const size_t gathered[] = {0, 1, 600, 4096, 16384, 20000};

	(void)state;
	for (unsigned s = 0; s < COUNT_OF(suites); s++) {
		with_open(&conn, suites[s].version, suites[s].cipher);
		for (unsigned i = 0; i < COUNT_OF(pieces) * COUNT_OF(gathered); i++)
			try_pieces(gathered[i / COUNT_OF(pieces)], pieces[i % COUNT_OF(pieces)]);
		with_close();
	}
}

/* As much as there is room for, to the last byte, and a command behind it. */
static void test_room(void **state)
{
	(void)state;
	with_begin();
	for (size_t first = 0; first < 40000; first += 1237) {
		size_t len = 0;
		size_t room;

		if (first > 0)
			assert_int_equal(conn_write(with.conn, span_make(text, first % 24000)),
				first % 24000);
		len = conn_gathered(with.conn);
		room = conn_frame_room(with.conn, 0);
		assert_true(room + len >= BULK_PLAIN_BYTES);
		assert_true(conn_frame_begin(with.conn, 0));
		assert_true(conn_frame_room(with.conn, 0) >= room);
		while ((room = conn_frame_room(with.conn, 0)) > 0) {
			/* All of it in pieces, which are records of their own, or in two. */
			const size_t piece = first % 2 == 0 ? 4096 : first + 1;

			for (size_t at = 0; at < room; at += piece)
				conn_frame_add(
					with.conn, span_make(text + len + at,
							   piece < room - at ? piece : room - at));
			len += room;
		}
		conn_frame_end(with.conn, span_of("BDAT 12345678901234567890 LAST\r\n"));
		assert_int_equal(conn_write(with.conn, span_of("BDAT 0 LAST\r\n")), 13);
		conn_flush_now(with.conn);
		they_read();
		expect("BDAT 12345678901234567890 LAST\r\n", 32);
		expect(text, len);
		expect("BDAT 0 LAST\r\n", 13);
		expect_nothing_more();
	}
	with_close();
}

/* What is given up is not seen, and what comes after it is in order. */
static void test_drop(void **state)
{
	(void)state;
	with_begin();
	for (size_t len = 0; len < 60000; len += 7001) {
		assert_int_equal(conn_write(with.conn, span_of("NOOP\r\n")), 6);
		assert_true(conn_frame_begin(with.conn, 6));
		conn_frame_add(with.conn, span_make(text, len));
		/* It is not whole: nothing leaves. */
		conn_flush_now(with.conn);
		run();
		assert_null(with.conn->wire);
		conn_frame_drop(with.conn);
		conn_release(with.conn);
		assert_int_equal(conn_gathered(with.conn), 6);
		assert_int_equal(conn_write(with.conn, span_of("RSET\r\n")), 6);
		conn_flush_now(with.conn);
		they_get("NOOP\r\nRSET\r\n", "", 0);
		/* With nothing in front nothing is left. */
		assert_true(conn_frame_begin(with.conn, 0));
		conn_frame_add(with.conn, span_make(text, len));
		conn_drop_held(with.conn);
		assert_true(conn_is_drained(with.conn));
		assert_true(conn_frame_begin(with.conn, 0));
		conn_frame_add(with.conn, span_make(text, len));
		end_frame("BDAT\r\n");
		they_get("", "BDAT\r\n", len);
	}
	with_close();
}

/* Frames are made while the one before is on its way to a peer that does not read. */
static void test_slow_peer(void **state)
{
	unsigned frames = 0;
	int small = 4096;

	(void)state;
	with_begin();
	assert_int_equal(
		setsockopt(with.conn->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	while (with.conn->wire == NULL || with.conn->out == NULL) {
		assert_true(frames++ < 10);
		assert_true(conn_frame_begin(with.conn, 0));
		conn_frame_add(with.conn, span_make(text, 65536));
		end_frame("BDAT 65536\r\n");
		run();
	}
	/* The second waits, complete, and a command behind it. */
	assert_int_equal(conn_write(with.conn, span_of("BDAT 0 LAST\r\n")), 13);
	conn_flush_now(with.conn);
	they_read();
	for (unsigned i = 0; i < frames; i++) {
		expect("BDAT 65536\r\n", 12);
		expect(text, 65536);
	}
	expect("BDAT 0 LAST\r\n", 13);
	expect_nothing_more();
	assert_true(with.drains > 0);
	with_close();
}

static void peer_sends(uint8_t type, const void *content, size_t len)
{
	struct fake_keys keys = {.version = TLS_1_3_VERSION,
		.cipher = TLS_CIPHER_AES_GCM_256,
		.sequence = with.peer_keys.sequence++};
	uint8_t record[256];
	size_t bytes;

	memcpy(keys.key, with.peer_keys.key, sizeof(keys.key));
	memcpy(keys.iv, with.peer_keys.iv, sizeof(keys.iv));
	bytes = fake_seal(&keys, type, span_make(content, len), record);
	assert_int_equal(write(with.pair.peer_fd, record, bytes), (ssize_t)bytes);
	run();
}

/* The peer asks for our next key while a frame is made: the frame goes first, under the old one. */
static void test_key_update(void **state)
{
	static const uint8_t update[5] = {24, 0, 0, 1, 1};

	(void)state;
	for (unsigned round = 0; round < 3; round++) {
		with_begin();
		assert_int_equal(conn_write(with.conn, span_of("NOOP\r\n")), 6);
		assert_true(conn_frame_begin(with.conn, 6));
		conn_frame_add(with.conn, span_make(text, 30000));
		peer_sends(RECORD_HANDSHAKE, update, sizeof(update));
		assert_true(with.conn->owes_key_update);
		if (round == 0) {
			end_frame("BDAT 30000\r\n");
			they_get("NOOP\r\n", "BDAT 30000\r\n", 30000);
		} else {
			conn_frame_drop(with.conn);
			conn_release(with.conn);
			/* No other before the answer, and the answer before other text. */
			assert_int_equal(conn_frame_room(with.conn, 0), 0);
			assert_false(conn_frame_begin(with.conn, 0));
			conn_flush_now(with.conn);
			they_get("NOOP\r\n", "", 0);
		}
		assert_false(with.conn->owes_key_update);
		assert_true(with.pair.theirs->tls.keys_changed);
		assert_int_equal(with.conn->seal[TX].sequence, round == 0 ? 0 : 1);
		assert_true(conn_frame_begin(with.conn, 0));
		conn_frame_add(with.conn, span_make(text, 65536));
		end_frame("BDAT 65536\r\n");
		they_get("", "BDAT 65536\r\n", 65536);
		assert_int_equal(with.ends, 0);
		with_close();
	}
}

/* An alert goes out instead of a frame, whole or not. */
static void test_alert(void **state)
{
	(void)state;
	for (unsigned is_whole = 0; is_whole < 2; is_whole++) {
		with_begin();
		assert_true(conn_frame_begin(with.conn, 0));
		conn_frame_add(with.conn, span_make(text, 30000));
		if (is_whole)
			conn_frame_end(with.conn, span_of("BDAT 30000\r\n"));
		assert_int_equal(write(with.pair.peer_fd, "EHLO client\r\n", 13), 13);
		run();
		assert_int_equal(with.ends, 1);
		/* Nor does anything follow it. */
		assert_int_equal(conn_write(with.conn, span_of("BDAT 30001 LAST\r\nx")), 18);
		conn_flush_now(with.conn);
		assert_true(conn_is_drained(with.conn));
		they_read();
		assert_int_equal(with.got_len, 0);
		assert_int_equal(with.status, TLS_FAILED);
		assert_non_null(strstr(tls_error(&with.pair.theirs->tls), "unexpected message"));
		with_close();
	}
}

/* An orderly end sends what is whole, and nothing else. */
static void test_close(void **state)
{
	(void)state;
	for (unsigned is_whole = 0; is_whole < 2; is_whole++) {
		with_begin();
		assert_true(conn_frame_begin(with.conn, 0));
		conn_frame_add(with.conn, span_make(text, 30000));
		if (is_whole)
			conn_frame_end(with.conn, span_of("BDAT 30000\r\n"));
		conn_close(with.conn);
		they_read();
		if (is_whole) {
			expect("BDAT 30000\r\n", 12);
			expect(text, 30000);
		}
		expect_nothing_more();
		assert_int_equal(with.status, TLS_CLOSED);
		with_close();
	}
}

/* Records of any length count for the end of a key's life. */
static void test_worn(void **state)
{
	(void)state;
	with_begin();
	with.conn->facts.version = "TLSv1.3";
	with.conn->seal[TX].sequence = TLS_RECORDS_MAX - 2;
	for (unsigned i = 0; i < 3; i++) {
		assert_false(conn_is_worn(with.conn));
		assert_int_equal(conn_write(with.conn, span_of("x")), 1);
		conn_flush_now(with.conn);
		run();
	}
	assert_true(conn_is_worn(with.conn));
	with_close();
}

/* Where there can be none: nothing changes, and the owner gathers. */
static void test_none(void **state)
{
	struct iobuf *taken[BULK_BUFFERS];

	(void)state;
	with_begin();
	for (unsigned i = 0; i < BULK_BUFFERS; i++)
		assert_non_null(taken[i] = iobuf_take_bulk(&with.pair.net.bufs));
	assert_int_equal(conn_frame_room(with.conn, 0), 0);
	assert_false(conn_frame_begin(with.conn, 0));
	iobuf_put(&with.pair.net.bufs, &taken[0]);
	assert_true(conn_frame_room(with.conn, 0) > 65536);
	/* Too much in front. */
	assert_int_equal(conn_frame_room(with.conn, 5000), 0);
	assert_int_equal(conn_write(with.conn, span_make(text, 5000)), 5000);
	assert_false(conn_frame_begin(with.conn, 5000));
	conn_flush_now(with.conn);
	they_get("", "", 5000);
	for (unsigned i = 1; i < BULK_BUFFERS; i++)
		iobuf_put(&with.pair.net.bufs, &taken[i]);
	/* Other record layers have none. */
	with.conn->tx = &record_plain;
	assert_int_equal(conn_frame_room(with.conn, 0), 0);
	assert_false(conn_frame_begin(with.conn, 0));
	with_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_room),
		cmocka_unit_test(test_drop),
		cmocka_unit_test(test_slow_peer),
		cmocka_unit_test(test_key_update),
		cmocka_unit_test(test_alert),
		cmocka_unit_test(test_close),
		cmocka_unit_test(test_worn),
		cmocka_unit_test(test_none),
	};

	return cmocka_run_group_tests(tests, tls_fixture_setup, tls_fixture_teardown);
}
