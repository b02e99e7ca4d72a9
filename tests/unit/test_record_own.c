/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_record_own.c: what a connection makes of the records that come when OpenSSL has let go of
 * it: text in pieces, tickets, KeyUpdate, alerts, and what no peer should send.
 */

#include "tests/unit/record_fixture.h"

static void test_pieces(void **state)
{
	uint8_t records[3 * 64];
	size_t len;
	char out[64];
	size_t got;

	(void)state;
	with_open("TLS_AES_256_GCM_SHA384", true);
	/* Three records, cut everywhere. */
	len = fake_seal(&with.keys, RECORD_DATA, span_of("MAIL"), records);
	len += fake_seal(&with.keys, RECORD_DATA, span_of(" FROM:"), records + len);
	len += fake_seal(&with.keys, RECORD_DATA, span_of("<>\r\n"), records + len);
	for (size_t i = 0; i < len; i++)
		send_bytes(records + i, 1);
	expect_text("MAIL FROM:<>\r\n");
	assert_int_equal(conn_write(&with.conn, span_of("250 ok\r\n")), 8);
	conn_flush(&with.conn);
	run();
	assert_int_equal(they_get(out, sizeof(out), &got), TLS_DONE);
	assert_int_equal(got, 8);
	assert_memory_equal(out, "250 ok\r\n", 8);
	with_close();
}

/* Does a whole record lie in what the peer has received? */
static bool they_have_record(void)
{
	const struct span wire = span_make(with.pair.theirs->wire, with.pair.theirs->wire_len);
	const int len = tls_record_length(wire);

	return len > 0 && (size_t)len <= wire.len;
}

/* All that lies in the socket; returns its text's length. */
static size_t they_get_all(char *out, size_t out_bytes)
{
	struct tls_peer *peer = with.pair.theirs;
	uint8_t record[TLS_RECORD_BYTES_MAX];
	size_t len = 0;
	ssize_t got;

	do {
		got = recv(with.pair.peer_fd, peer->wire + peer->wire_len,
			WIRE_BYTES - peer->wire_len, MSG_DONTWAIT);
		peer->wire_len += got > 0 ? (size_t)got : 0;
		while (they_have_record()) {
			const size_t bytes = peer_take(peer, record);
			size_t more = 0;

			tls_feed(&peer->tls, span_make(record, bytes));
			assert_int_equal(
				tls_read(&peer->tls, (uint8_t *)out + len, out_bytes - len, &more),
				TLS_DONE);
			len += more;
		}
	} while (got > 0);
	return len;
}

/* More than a buffer holds, by small and by bulk ones: the peer gets all of it, in turn. */
static void test_much(void **state)
{
	static char much[200000];
	static char got[sizeof(much)];

	(void)state;
	for (size_t i = 0; i < sizeof(much); i++)
		much[i] = (char)(i * 31 + i / 255);
	for (unsigned bulk = 0; bulk < 2; bulk++) {
		size_t sent = 0;
		size_t len = 0;

		with_open("TLS_AES_128_GCM_SHA256", true);
		with.conn.is_bulk_out = bulk == 1;
		for (unsigned turn = 0; turn < TURNS_MAX && len < sizeof(much); turn++) {
			sent += conn_write(&with.conn, span_make(much + sent, sizeof(much) - sent));
			conn_flush(&with.conn);
			run();
			len += they_get_all(got + len, sizeof(got) - len);
		}
		assert_int_equal(len, sizeof(much));
		assert_memory_equal(got, much, len);
		with_close();
	}
}

static void test_tickets(void **state)
{
	/* Two messages of 8 bytes, in records that end anywhere. */
	static const uint8_t ticket[] = {4, 0, 0, 4, 'a', 'b', 'c', 'd', 4, 0, 0, 4, 1, 2, 3, 4};

	(void)state;
	for (size_t cut = 4; cut <= sizeof(ticket); cut++) {
		with_open("TLS_AES_256_GCM_SHA384", false);
		/* A header of a message that is cut is more than anybody sends. */
		if (cut > 8 && cut < 12) {
			with_close();
			continue;
		}
		send_record(RECORD_HANDSHAKE, ticket, cut);
		if (cut < sizeof(ticket))
			send_record(RECORD_HANDSHAKE, ticket + cut, sizeof(ticket) - cut);
		send_record(RECORD_DATA, "220 hello", 9);
		expect_text("220 hello");
		assert_int_equal(with.ends, 0);
		with_close();
	}
	/* Text in the middle of one. */
	with_open("TLS_AES_256_GCM_SHA384", false);
	send_record(RECORD_HANDSHAKE, ticket, 6);
	send_record(RECORD_DATA, "220 hello", 9);
	expect_text("");
	expect_refusal("unexpected message");
	with_close();
	/* A server gets none. */
	with_open("TLS_AES_256_GCM_SHA384", true);
	send_record(RECORD_HANDSHAKE, ticket, sizeof(ticket));
	expect_refusal("unexpected message");
	with_close();
}

static void test_key_update(void **state)
{
	uint8_t update[5] = {24, 0, 0, 1, 0};
	uint8_t record[64];
	size_t bytes;
	char out[64];
	size_t len;

	(void)state;
	with_open("TLS_AES_256_GCM_SHA384", true);
	for (unsigned i = 0; i < 8; i++) {
		/* Every other one asks for ours: the peer's OpenSSL follows. */
		update[4] = i % 2;
		bytes = fake_seal(
			&with.keys, RECORD_HANDSHAKE, span_make(update, sizeof(update)), record);
		next_peer_keys();
		send_bytes(record, bytes);
		send_record(RECORD_DATA, "NOOP\r\n", 6);
		expect_text("NOOP\r\n");
		assert_int_equal(conn_write(&with.conn, span_of("250\r\n")), 5);
		conn_flush(&with.conn);
		run();
		assert_int_equal(they_get(out, sizeof(out), &len), TLS_DONE);
		assert_int_equal(len, 5);
		assert_int_equal(with.pair.theirs->tls.keys_changed, i > 0);
	}
	assert_int_equal(with.ends, 0);
	/* One with something behind it, under the same key. */
	send_record(RECORD_HANDSHAKE, "\x18\0\0\1\0\x18\0\0\1\0", 10);
	assert_int_equal(with.ends, 1);
	assert_int_equal(with.end, CONN_END_KEY_UPDATE);
	with_close();
}

static void test_key_updates_without_end(void **state)
{
	static const uint8_t update[5] = {24, 0, 0, 1, 1};
	uint8_t record[64];

	(void)state;
	with_open("TLS_AES_128_GCM_SHA256", true);
	for (unsigned i = 0; i < 100 && with.ends == 0; i++) {
		size_t bytes = fake_seal(
			&with.keys, RECORD_HANDSHAKE, span_make(update, sizeof(update)), record);

		next_peer_keys();
		send_bytes(record, bytes);
	}
	assert_int_equal(with.ends, 1);
	assert_int_equal(with.end, CONN_END_KEY_UPDATE);
	with_close();
}

static void test_empty(void **state)
{
	(void)state;
	with_open("TLS_AES_256_GCM_SHA384", true);
	for (unsigned i = 0; i < 32; i++)
		send_record(RECORD_DATA, "", 0);
	send_record(RECORD_DATA, "x", 1);
	expect_text("x");
	for (unsigned i = 0; i < 33; i++)
		send_record(RECORD_DATA, "", 0);
	expect_refusal("unexpected message");
	with_close();
}

static void test_ends(void **state)
{
	static const uint8_t goodbye[2] = {1, 0};
	static const uint8_t fatal[2] = {2, 80};

	(void)state;
	with_open("TLS_AES_256_GCM_SHA384", true);
	send_record(RECORD_DATA, "QUIT\r\n", 6);
	send_record(21, goodbye, 2);
	expect_text("QUIT\r\n");
	assert_int_equal(with.ends, 1);
	assert_int_equal(with.end, CONN_END_EOF);
	with_close();
	with_open("TLS_AES_256_GCM_SHA384", true);
	send_record(21, fatal, 2);
	assert_int_equal(with.end, CONN_END_TLS);
	assert_int_equal(with.ends, 1);
	with_close();
	/* A FIN, with a record that has come in part: none of it is text. */
	with_open("TLS_AES_256_GCM_SHA384", true);
	send_bytes((const uint8_t *)"\x17\3\3\0\x20secret", 11);
	assert_int_equal(shutdown(with.pair.peer_fd, SHUT_WR), 0);
	run();
	expect_text("");
	assert_int_equal(with.ends, 1);
	assert_int_equal(with.end, CONN_END_EOF);
	with_close();
}

static void test_spoiled(void **state)
{
	uint8_t record[64];
	size_t len;

	(void)state;
	with_open("TLS_AES_256_GCM_SHA384", true);
	len = fake_seal(&with.keys, RECORD_DATA, span_of("DATA\r\n"), record);
	record[len - 1] ^= 1;
	send_bytes(record, len);
	expect_text("");
	expect_refusal("bad record mac");
	/* Nothing is read behind it, however right it is. */
	with.keys.sequence--;
	send_record(RECORD_DATA, "DATA\r\n", 6);
	expect_text("");
	with_close();

	with_open("TLS_AES_256_GCM_SHA384", true);
	send_bytes((const uint8_t *)"\x17\3\3\xff\xff", 5);
	expect_refusal("record overflow");
	with_close();

	with_open("TLS_AES_256_GCM_SHA384", true);
	send_bytes((const uint8_t *)"EHLO client\r\n", 13);
	expect_refusal("unexpected message");
	with_close();
}

/* Our own goodbye is one that the peer understands. */
static void test_close(void **state)
{
	char out[64];
	size_t len;

	(void)state;
	with_open("TLS_AES_256_GCM_SHA384", true);
	assert_int_equal(conn_write(&with.conn, span_of("221\r\n")), 5);
	conn_close(&with.conn);
	run();
	assert_int_equal(they_get(out, sizeof(out), &len), TLS_DONE);
	assert_int_equal(len, 5);
	(void)close(with.pair.peer_fd);
	with.pair.peer_fd = -1;
	run();
	assert_true(with.is_closed);
	own_destroy(&with.pair);
}

#define ENOUGH_RECORDS \
	((KTLS_HAND_OVER_COST + KTLS_SAVED_BY_FULL_RECORD - 1) / KTLS_SAVED_BY_FULL_RECORD)

/*
 * Under auto: after so many full records, whatever pieces they come in, the kernel gets the keys in
 * force and the right number. Behind the seam stands no cipher, so that what is behind
 * them comes as it was sent: whole, which shows that no byte of it was in userspace before.
 */
static void hand_over(const char *cipher, size_t piece, unsigned updates, bool is_bulk, int error)
{
	enum { FULL = ENOUGH_RECORDS, COUNT = FULL + 2, TEXT = TLS_RECORD_TEXT_BYTES };
	static const uint8_t update[5] = {24, 0, 0, 1, 0};
	static uint8_t stream[COUNT * TLS_RECORD_BYTES_MAX];
	static char text[TEXT];
	size_t starts[COUNT + 1];
	size_t len = 0;
	uint64_t before;
	size_t read;

	with_open(cipher, true);
	with.conn.is_bulk_in = is_bulk;
	memset(&fake, 0, sizeof(fake));
	fake.error[RX] = error;
	ktls_kernel.setsockopt = fake_setsockopt;
	with.conn.ktls.support = support_all();
	with.conn.ktls.fd = FAKE_FD;
	with.conn.ktls_later = BIT(RX);
	with.conn.ktls_rx_ready = true;
	with.conn.is_settled = true;
	for (unsigned i = 0; i < updates; i++) {
		uint8_t record[64];
		const size_t bytes = fake_seal(
			&with.keys, RECORD_HANDSHAKE, span_make(update, sizeof(update)), record);

		next_peer_keys();
		send_bytes(record, bytes);
	}
	/* Small records do not count. */
	for (unsigned i = 0; i < 2 * FULL; i++)
		send_record(RECORD_DATA, "NOOP\r\n", 6);
	with.text_len = 0;
	memset(text, 'x', sizeof(text));
	before = with.keys.sequence;
	for (unsigned i = 0; i < COUNT; i++) {
		starts[i] = len;
		len += fake_seal(&with.keys, RECORD_DATA, span_make(text, TEXT), stream + len);
	}
	starts[COUNT] = len;
	for (size_t at = 0; at < len; at += piece) {
		if (at < starts[FULL])
			assert_int_equal(with.moves, 0);
		send_bytes(stream + at, len - at < piece ? len - at : piece);
	}
	assert_int_equal(with.ends, 0);
	assert_int_equal(with.moves, 1);
	assert_int_equal(with.conn.ktls_later, 0);
	assert_int_equal(with.conn.ktls_want, 0);
	assert_true(with.conn.tx == &record_own);
	if (error != 0) {
		assert_true(with.conn.rx == &record_own);
		assert_string_equal(with.conn.ktls_why_not[RX], "kernel-refused");
		assert_int_equal(with.text_len, COUNT * TEXT);
	} else {
		assert_true(with.conn.rx == &record_kernel);
		assert_null(with.conn.seal[RX].ctx);
		assert_int_equal(fake.keys[RX].times_set, 1);
		assert_memory_equal(fake.keys[RX].iv, with.keys.iv, sizeof(with.keys.iv));
		/* More where they, or a part of one, had come when the time was there. */
		read = (size_t)(fake.keys[RX].sequence - before);
		assert_in_range(read, FULL, is_bulk ? COUNT : FULL + 1);
		assert_int_equal(with.text_len, read * TEXT + len - starts[read]);
		assert_memory_equal(
			with.text + read * TEXT, stream + starts[read], len - starts[read]);
	}
	with.conn.ktls.fd = with.conn.fd;
	with_close();
}

static void test_hand_over(void **state)
{
	/* The last ends with a record that is behind the one that makes it time. */
	static const size_t pieces[] = {1000, 4099, 16384, 16406, 30001, 60000, 65624};

	(void)state;
	for (unsigned i = 0; i < 2 * COUNT_OF(pieces); i++) {
		const size_t piece = pieces[i / 2];
		const bool is_bulk = i % 2 == 1;

		hand_over("TLS_AES_256_GCM_SHA384", piece, 0, is_bulk, 0);
		hand_over("TLS_AES_128_GCM_SHA256", piece, i / 2, is_bulk, 0);
		hand_over("TLS_AES_256_GCM_SHA384", piece, 1, is_bulk, EINVAL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_much),
		cmocka_unit_test(test_tickets),
		cmocka_unit_test(test_key_update),
		cmocka_unit_test(test_key_updates_without_end),
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_spoiled),
		cmocka_unit_test(test_close),
		cmocka_unit_test(test_hand_over),
	};

	return cmocka_run_group_tests(tests, tls_fixture_setup, tls_fixture_teardown);
}
