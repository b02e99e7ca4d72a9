/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * record_fixture.h: a connection that OpenSSL has let go of. On the other end of a pair of sockets
 * OpenSSL reads, and ktls_fixture.h writes with the same keys.
 */

#include "relay/net/record.h"
#include "tests/unit/ktls_fixture.h"

#define RX KTLS_DIRECTION_RX
#define TX KTLS_DIRECTION_TX
#define TURNS_MAX 200

static struct {
	struct loop *loop;
	struct conn_net net;
	struct conn conn;
	int peer_fd;
	struct tls_peer client, server;
	struct tls_peer *mine, *theirs;
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

static inline void nudge(struct task *task)
{
	(void)task;
}

/* Both ends are on this machine: what was sent has come after a few turns. */
static inline void run(void)
{
	for (unsigned turn = 0; turn < 20; turn++) {
		struct task task;

		task_init(&task, nudge);
		loop_task_add(with.loop, &task);
		assert_int_equal(loop_turn(with.loop), 0);
	}
}

static inline void with_open(const char *cipher, bool is_server)
{
	static const struct ktls_support none = {.why_not = "no kernel"};
	struct loop_caps caps;
	struct record_keys keys;
	const char *why = NULL;
	int pair[2];

	memset(&with, 0, sizeof(with));
	assert_int_equal(loop_probe(&caps), 0);
	assert_int_equal(loop_create(&caps, 64, &with.loop), 0);
	assert_int_equal(conn_net_create(&with.net, with.loop, 4, 4, &none), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	with.peer_fd = pair[1];
	peer_open(&with.client, false, "TLSv1.3", cipher, 0);
	peer_open(&with.server, true, "TLSv1.3", cipher, 0);
	peers_shake(&with.client, &with.server, 16384);
	with.mine = is_server ? &with.server : &with.client;
	with.theirs = is_server ? &with.client : &with.server;
	conn_open(&with.conn, &with.net, &events, pair[0]);
	assert_false(ktls_init(&with.conn.ktls, &none, pair[0], &with.mine->tls, &why));
	for (unsigned way = 0; way < KTLS_DIRECTION_COUNT; way++) {
		assert_true(
			ktls_keys(&with.conn.ktls, way, ktls_records(&with.mine->tls, way), &keys));
		assert_int_equal(
			seal_open(&with.conn.seal[way], &with.conn.ktls, way == TX, &keys), 0);
		if (way != RX)
			continue;
		with.keys.version = TLS_1_3_VERSION;
		with.keys.cipher = with.conn.ktls.cipher == KTLS_CIPHER_AES_128_GCM
					   ? TLS_CIPHER_AES_GCM_128
					   : TLS_CIPHER_AES_GCM_256;
		with.keys.sequence = keys.sequence;
		memcpy(with.keys.key, keys.key, sizeof(with.keys.key));
		memcpy(with.keys.iv, keys.iv, sizeof(with.keys.iv));
	}
	with.conn.rx = &record_own;
	with.conn.tx = &record_own;
	conn_read(&with.conn);
}

static inline void with_close(void)
{
	conn_abort(&with.conn);
	for (unsigned turn = 0; turn < TURNS_MAX && !with.is_closed; turn++)
		run();
	assert_true(with.is_closed);
	assert_null(with.conn.seal[RX].ctx);
	(void)close(with.peer_fd);
	loop_destroy(&with.loop);
	conn_net_destroy(&with.net);
	peer_close(&with.client);
	peer_close(&with.server);
}

static inline void send_bytes(const uint8_t *bytes, size_t len)
{
	assert_int_equal(write(with.peer_fd, bytes, len), (ssize_t)len);
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
	ssize_t got = recv(with.peer_fd, with.theirs->wire, WIRE_BYTES, MSG_DONTWAIT);
	size_t len;

	*out_len = 0;
	with.theirs->wire_len = got > 0 ? (size_t)got : 0;
	while (status == TLS_MORE && (len = peer_take(with.theirs, record)) > 0) {
		tls_sink(&with.theirs->tls, NULL, 0);
		tls_feed(&with.theirs->tls, span_make(record, len));
		status = tls_read(&with.theirs->tls, (uint8_t *)out, out_bytes, out_len);
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
	if (strstr(tls_error(&with.theirs->tls), alert) == NULL)
		fail_msg("\"%s\", expected %s", tls_error(&with.theirs->tls), alert);
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
