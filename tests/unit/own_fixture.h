/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * own_fixture.h: a connection that OpenSSL has let go of, on a ring of its own, and OpenSSL at the
 * other end of a pair of sockets. What record_fixture.h (it reads) and sealed_fixture.h (it sends)
 * have in common.
 */

#include "relay/net/record.h"
#include "tests/unit/ktls_fixture.h"

#define RX KTLS_DIRECTION_RX
#define TX KTLS_DIRECTION_TX
#define TURNS_MAX 200

struct own_pair {
	struct loop *loop;
	struct conn_net net;
	int peer_fd; /* -1: closed before */
	struct tls_peer client, server;
	struct tls_peer *mine, *theirs;
};

static inline void nudge(struct task *task)
{
	(void)task;
}

/* Both ends are on this machine: what was sent has come after a few turns. */
static inline void own_run(struct loop *loop)
{
	for (unsigned turn = 0; turn < 20; turn++) {
		struct task task;

		task_init(&task, nudge);
		loop_task_add(loop, &task);
		assert_int_equal(loop_turn(loop), 0);
	}
}

/* A handshake, and both directions taken from OpenSSL. *peer_keys: what the peer seals with. */
static inline void own_open(struct own_pair *own, struct conn *conn,
	const struct conn_events *events, const char *version, const char *cipher, bool is_server,
	unsigned bulk_buffers, struct record_keys *peer_keys)
{
	static const struct ktls_support none = {.why_not = "no kernel"};
	struct loop_caps caps;
	struct record_keys keys;
	const char *why = NULL;
	int pair[2];

	assert_int_equal(loop_probe(&caps), 0);
	assert_int_equal(loop_create(&caps, 64, &own->loop), 0);
	assert_int_equal(conn_net_create(&own->net, own->loop, 4, bulk_buffers, &none), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	own->peer_fd = pair[1];
	peer_open(&own->client, false, version, cipher, 0);
	peer_open(&own->server, true, version, cipher, 0);
	peers_shake(&own->client, &own->server, 16384);
	own->mine = is_server ? &own->server : &own->client;
	own->theirs = is_server ? &own->client : &own->server;
	conn_open(conn, &own->net, events, pair[0]);
	assert_false(ktls_init(&conn->ktls, &none, pair[0], &own->mine->tls, &why));
	for (unsigned way = 0; way < KTLS_DIRECTION_COUNT; way++) {
		assert_true(ktls_keys(&conn->ktls, way, ktls_records(&own->mine->tls, way), &keys));
		assert_int_equal(seal_open(&conn->seal[way], &conn->ktls, way == TX, &keys), 0);
		if (way == RX)
			*peer_keys = keys;
	}
	conn->rx = &record_own;
	conn->tx = &record_own;
}

/* Ends the connection; *is_closed is what its on_closed sets. */
static inline void own_abort(struct own_pair *own, struct conn *conn, const bool *is_closed)
{
	conn_abort(conn);
	for (unsigned turn = 0; turn < TURNS_MAX && !*is_closed; turn++)
		own_run(own->loop);
	assert_true(*is_closed);
}

static inline void own_destroy(struct own_pair *own)
{
	if (own->peer_fd >= 0)
		(void)close(own->peer_fd);
	loop_destroy(&own->loop);
	conn_net_destroy(&own->net);
	peer_close(&own->client);
	peer_close(&own->server);
}
