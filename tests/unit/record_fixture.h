/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * record_fixture.h: a connection that OpenSSL has let go of. On the other end of a pair of sockets
 * OpenSSL reads, and ktls_fixture.h writes with the same keys.
 */

#include "relay/net/record.h"
#include "tests/unit/own_fixture.h"

static struct {
	struct own_pair pair;
	struct conn conn;
	struct fake_keys keys; /* what the peer seals with */
	char text[300000];     /* what the owner got */
	size_t text_len;
	unsigned ends;
	enum conn_end end;
	bool is_closed;
	unsigned moves; /* calls of on_record */
	bool is_busy;   /* the owner takes nothing now */
	size_t bite;    /* it takes so much at a time, or nothing; 0: what there is */
} with;

static inline void take(struct conn *conn, size_t len)
{
	assert_true(with.text_len + len < sizeof(with.text));
	if (len > 0)
		memcpy(with.text + with.text_len, conn_input(conn).data, len);
	with.text_len += len;
	conn_consume(conn, len);
}

static inline void on_input(struct conn *conn)
{
	if (with.is_busy)
		return;
	if (with.bite == 0)
		take(conn, conn_input(conn).len);
	while (with.bite > 0 && conn_input(conn).len >= with.bite)
		take(conn, with.bite);
	conn_read(conn);
}

static inline void on_end(struct conn *conn, enum conn_end why)
{
	(void)conn;
	with.ends++;
	with.end = why;
}

static inline void on_closed(struct conn *conn)
{
	(void)conn;
	with.is_closed = true;
}

static inline void on_record(struct conn *conn)
{
	(void)conn;
	with.moves++;
}

static inline void on_nothing(struct conn *conn)
{
	(void)conn;
}

static const struct conn_events events = {.on_input = on_input,
	.on_drained = on_nothing,
	.on_timeout = on_nothing,
	.on_record = on_record,
	.on_end = on_end,
	.on_closed = on_closed};

static inline void run(void)
{
	own_run(with.pair.loop);
}

static inline void with_open(const char *cipher, bool is_server)
{
	struct record_keys keys;

	memset(&with, 0, sizeof(with));
	own_open(&with.pair, &with.conn, &events, "TLSv1.3", cipher, is_server, 4, &keys);
	with.keys.version = TLS_1_3_VERSION;
	with.keys.cipher = with.conn.ktls.cipher == KTLS_CIPHER_AES_128_GCM
				   ? TLS_CIPHER_AES_GCM_128
				   : TLS_CIPHER_AES_GCM_256;
	with.keys.sequence = keys.sequence;
	memcpy(with.keys.key, keys.key, sizeof(with.keys.key));
	memcpy(with.keys.iv, keys.iv, sizeof(with.keys.iv));
	conn_read(&with.conn);
}

static inline void with_close(void)
{
	own_abort(&with.pair, &with.conn, &with.is_closed);
	assert_null(with.conn.seal[RX].ctx);
	own_destroy(&with.pair);
}

static inline void send_bytes(const uint8_t *bytes, size_t len)
{
	assert_int_equal(write(with.pair.peer_fd, bytes, len), (ssize_t)len);
	run();
}

static inline void send_record(uint8_t type, const void *content, size_t len)
{
	uint8_t record[TLS_RECORD_BYTES_MAX];
	size_t bytes = fake_seal(&with.keys, type, span_make(content, len), record);

	send_bytes(record, bytes);
}

/* What the connection has sent, through the peer's OpenSSL: text, or how it ended. */
static inline enum tls_status they_get(char *out, size_t out_bytes, size_t *out_len)
{
	enum tls_status status = TLS_MORE;
	uint8_t record[TLS_RECORD_BYTES_MAX];
	ssize_t got = recv(with.pair.peer_fd, with.pair.theirs->wire, WIRE_BYTES, MSG_DONTWAIT);
	size_t len;

	*out_len = 0;
	with.pair.theirs->wire_len = got > 0 ? (size_t)got : 0;
	while (status == TLS_MORE && (len = peer_take(with.pair.theirs, record)) > 0) {
		tls_sink(&with.pair.theirs->tls, NULL, 0);
		tls_feed(&with.pair.theirs->tls, span_make(record, len));
		status = tls_read(&with.pair.theirs->tls, (uint8_t *)out, out_bytes, out_len);
	}
	return status;
}

static inline void expect_text(const char *text)
{
	assert_int_equal(with.text_len, strlen(text));
	assert_memory_equal(with.text, text, with.text_len);
	with.text_len = 0;
}

/* The end, and the alert that the peer gets. */
static inline void expect_refusal(const char *alert)
{
	char out[64];
	size_t len;

	assert_int_equal(with.ends, 1);
	assert_int_equal(with.end, CONN_END_TLS);
	assert_int_equal(they_get(out, sizeof(out), &len), TLS_FAILED);
	if (strstr(tls_error(&with.pair.theirs->tls), alert) == NULL)
		fail_msg("\"%s\", expected %s", tls_error(&with.pair.theirs->tls), alert);
}

/* The peer's next keys. ktls has the secret of those in force. */
static inline void next_keys_by(struct ktls *ktls)
{
	struct record_keys keys;

	assert_true(ktls_next_keys(ktls, RX, &keys));
	memcpy(with.keys.key, keys.key, sizeof(with.keys.key));
	memcpy(with.keys.iv, keys.iv, sizeof(with.keys.iv));
	with.keys.sequence = 0;
}

/* The same, where the connection has met all KeyUpdates before. */
static inline void next_peer_keys(void)
{
	struct ktls ktls = with.conn.ktls;

	next_keys_by(&ktls);
}
