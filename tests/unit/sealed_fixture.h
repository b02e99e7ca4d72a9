/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * sealed_fixture.h: a connection whose records are our own, with little around it, and OpenSSL at
 * the other end of a pair of sockets, which reads what it sends. Included once, under
 * tls_fixture_setup().
 */

#include "relay/base/limits.h"
#include "relay/net/record.h"
#include "tests/unit/own_fixture.h"

#define BULK_BUFFERS 3

static struct {
	struct own_pair pair;
	struct conn *conn;
	struct record_keys peer_keys;
	unsigned ends, drains;
	bool is_closed;
	/* What the peer has read, and how many records that were. */
	char got[2000000];
	size_t got_len;
	unsigned records;
	enum tls_status status;
} with;

static char text[300000];

static inline void on_input(struct conn *conn)
{
	conn_consume(conn, conn_input(conn).len);
	conn_read(conn);
}

static inline void on_drained(struct conn *conn)
{
	(void)conn;
	with.drains++;
}

static inline void on_end(struct conn *conn, enum conn_end why)
{
	(void)conn;
	(void)why;
	with.ends++;
}

static inline void on_closed(struct conn *conn)
{
	(void)conn;
	with.is_closed = true;
}

static inline void on_nothing(struct conn *conn)
{
	(void)conn;
}

static const struct conn_events events = {.on_input = on_input,
	.on_drained = on_drained,
	.on_timeout = on_nothing,
	.on_record = on_nothing,
	.on_end = on_end,
	.on_closed = on_closed};

static inline void run(void)
{
	own_run(with.pair.loop);
}

static inline void with_open(struct conn *conn, const char *version, const char *cipher)
{
	memset(&with, 0, sizeof(with));
	with.conn = conn;
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)(i * 31 + i / 255);
	own_open(&with.pair, conn, &events, version, cipher, false, BULK_BUFFERS, &with.peer_keys);
	conn_read(conn);
}

static inline void with_close(void)
{
	own_abort(&with.pair, with.conn, &with.is_closed);
	/* Nothing was left behind. */
	assert_int_equal(with.pair.net.bufs.bulk_memory.used, 0);
	own_destroy(&with.pair);
}

static inline bool they_have_record(void)
{
	const struct span wire = span_make(with.pair.theirs->wire, with.pair.theirs->wire_len);
	const int len = tls_record_length(wire);

	assert_true(len >= 0);
	return len > 0 && (size_t)len <= wire.len;
}

static inline void they_read_record(void)
{
	uint8_t record[TLS_RECORD_BYTES_MAX];
	const size_t bytes = peer_take(with.pair.theirs, record);
	size_t more = 0;

	/* Nothing that OpenSSL has to say is listened to. */
	tls_sink(&with.pair.theirs->tls, NULL, 0);
	tls_feed(&with.pair.theirs->tls, span_make(record, bytes));
	with.status = tls_read(&with.pair.theirs->tls, (uint8_t *)with.got + with.got_len,
		sizeof(with.got) - with.got_len, &more);
	with.got_len += more;
	with.records += more > 0;
}

/* Until nothing comes any more, or an end does. */
static inline void they_read(void)
{
	struct tls_peer *peer = with.pair.theirs;
	ssize_t got;

	with.status = TLS_MORE;
	do {
		run();
		got = recv(with.pair.peer_fd, peer->wire + peer->wire_len,
			WIRE_BYTES - peer->wire_len, MSG_DONTWAIT);
		peer->wire_len += got > 0 ? (size_t)got : 0;
		while ((with.status == TLS_MORE || with.status == TLS_DONE) && they_have_record())
			they_read_record();
	} while (got > 0 && (with.status == TLS_MORE || with.status == TLS_DONE));
}

static inline void expect(const char *bytes, size_t len)
{
	assert_true(with.got_len >= len);
	assert_memory_equal(with.got, bytes, len);
	memmove(with.got, with.got + len, with.got_len - len);
	with.got_len -= len;
}

static inline void expect_nothing_more(void)
{
	assert_int_equal(with.got_len, 0);
	assert_int_equal(with.pair.theirs->wire_len, 0);
}

static inline void they_get(const char *front, const char *header, size_t len)
{
	they_read();
	expect(front, strlen(front));
	expect(header, strlen(header));
	expect(text, len);
	expect_nothing_more();
}
