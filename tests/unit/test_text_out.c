/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_text_out.c: text on its way to a next hop over records of our own, in frames or gathered:
 * the next hop reads the chunks that were announced, and no text that was to stay here.
 */

#include "relay/base/stats.h"
#include "relay/mail/text_out.h"
#include "tests/unit/sealed_fixture.h"

static const char rcpt[] = "RCPT TO:<a@b.example>\r\n";

static struct send_connector connector = {.connection_inactivity_timeout_ms = 100000};
static struct client client;
static struct text_out out;

static void with_begin(void)
{
	memset(&client, 0, sizeof(client));
	with_open(&client.conn, "TLSv1.3", "TLS_AES_256_GCM_SHA384");
	client.connector = &connector;
	client.state = CLIENT_READY;
	text_out_init(&out, true);
}

/* What the next hop has read, as chunks: their text is put together at the front of with.got. */
static unsigned parse_chunks(void)
{
	const char *at = with.got;
	const char *end = with.got + with.got_len;
	size_t len = 0;
	unsigned chunks = 0;
	bool is_last = false;

	while (at < end) {
		char *rest;
		size_t bytes;

		assert_false(is_last);
		assert_memory_equal(at, "BDAT ", 5);
		bytes = strtoul(at + 5, &rest, 10);
		is_last = strncmp(rest, " LAST\r\n", 7) == 0;
		assert_true(is_last || strncmp(rest, "\r\n", 2) == 0);
		at = rest + (is_last ? 7 : 2);
		assert_true(bytes <= (size_t)(end - at));
		memmove(with.got + len, at, bytes);
		at += bytes;
		len += bytes;
		chunks++;
	}
	assert_true(is_last);
	with.got_len = len;
	return chunks;
}

/* Writes text as a sink does: as much as there is room for, and more when that has left. */
static void write_text(size_t bytes, size_t piece)
{
	unsigned calls = 0;
	size_t at = 0;

	while (at < bytes) {
		struct span rest = span_make(text + at, bytes - at);

		rest = span_head(rest, text_out_room(&out, &client));
		if (rest.len == 0) {
			assert_true(calls++ < TURNS_MAX);
			they_read();
			text_out_push(&out, &client);
		}
		/* Room once asked for is room for several pieces. */
		at += rest.len;
		while (rest.len > 0) {
			text_out_write(&out, &client, span_head(rest, piece));
			rest = span_skip(rest, piece);
		}
	}
}

static void try_text(size_t bytes, size_t piece, bool is_joined, bool is_expected)
{
	unsigned chunks;

	with_begin();
	if (is_expected)
		text_out_expect(&out, bytes);
	if (is_joined) {
		text_out_reserve(&out, &client);
		client_command(&client, span_of(rcpt));
		assert_true(text_out_join(&out, &client));
	}
	write_text(bytes, piece);
	text_out_finish(&out, &client);
	they_read();
	assert_true(conn_is_drained(&client.conn));
	if (is_joined)
		expect(rcpt, strlen(rcpt));
	chunks = parse_chunks();
	assert_int_equal(chunks, out.chunks_owed + 1);
	assert_int_equal(chunks + is_joined, client.owed);
	assert_int_equal(out.bytes, bytes);
	expect(text, bytes);
	expect_nothing_more();
	/* 64 KiB with what goes in front are one chunk, where that is known or shows at once. */
	if (bytes <= 67000 && (is_expected || piece >= 16384))
		assert_int_equal(chunks, 1);
	with_close();
}

static void test_texts(void **state)
{
	static const size_t sizes[] = {1, 5000, 9000, 24000, 66000, 140000, 299999};
	static const size_t pieces[] = {700, 1280, 4096, 8191, 16384, 30000, 300000};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(sizes) * COUNT_OF(pieces); i++) {
		for (unsigned way = 0; way < 4; way++)
			try_text(sizes[i / COUNT_OF(pieces)], pieces[i % COUNT_OF(pieces)], way & 1,
				way & 2);
	}
}

/* A chunk was refused: what is held of the message stays here, and what is in front of it goes. */
static void test_stop(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 8; i++) {
		const bool is_joined = i & 1;
		const size_t bytes = i & 2 ? 40000 : 3000;

		with_begin();
		text_out_expect(&out, i & 4 ? 100000 : 3000);
		if (is_joined) {
			text_out_reserve(&out, &client);
			client_command(&client, span_of(rcpt));
			assert_true(text_out_join(&out, &client));
		}
		write_text(bytes < 20000 ? bytes : 20000, 10000);
		text_out_stop(&out, &client);
		client_command(&client, span_of("RSET\r\n"));
		client_flush(&client);
		they_read();
		if (is_joined)
			expect(rcpt, strlen(rcpt));
		expect("RSET\r\n", 6);
		expect_nothing_more();
		/* The next message finds nothing of it. */
		text_out_init(&out, true);
		write_text(bytes, 10000);
		text_out_finish(&out, &client);
		they_read();
		(void)parse_chunks();
		expect(text, bytes);
		expect_nothing_more();
		with_close();
	}
}

/* A chunk that is whole and waits for the wire goes out; what came behind it does not. */
static void test_stop_behind_chunk(void **state)
{
	int small = 4096;

	(void)state;
	with_begin();
	assert_int_equal(
		setsockopt(client.conn.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	text_out_expect(&out, sizeof(text));
	text_out_write(&out, &client, span_make(text, 60000));
	text_out_push(&out, &client);
	run();
	assert_non_null(client.conn.wire);
	/* Nothing is sealed behind what is on its way: more may join. */
	assert_true(text_out_room(&out, &client) >= 60000);
	text_out_write(&out, &client, span_make(text, 60000));
	text_out_push(&out, &client);
	assert_true(client.conn.is_frame_open);
	text_out_stop(&out, &client);
	they_read();
	assert_int_equal(with.got_len, strlen("BDAT 60000\r\n") + 60000);
	expect("BDAT 60000\r\n", 12);
	expect(text, 60000);
	client_command(&client, span_of("RSET\r\n"));
	client_flush(&client);
	they_read();
	expect("RSET\r\n", 6);
	expect_nothing_more();
	with_close();
}

/* Large pieces are sealed from where they lie. */
static void test_copies(void **state)
{
	uint64_t before;

	(void)state;
	with_begin();
	before = stats_mine->copied_bytes;
	text_out_expect(&out, 262144);
	write_text(262144, 65536);
	text_out_finish(&out, &client);
	they_read();
	/* A short rest of each chunk at the most. */
	assert_true(stats_mine->copied_bytes - before <= (out.chunks_owed + 1) * 4096UL);
	(void)parse_chunks();
	expect(text, 262144);
	with_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_texts),
		cmocka_unit_test(test_stop),
		cmocka_unit_test(test_stop_behind_chunk),
		cmocka_unit_test(test_copies),
	};

	return cmocka_run_group_tests(tests, tls_fixture_setup, tls_fixture_teardown);
}
