/* SPDX-License-Identifier: Apache-2.0 */

/*
 * bench/common/stream.h: both codes, in both roles, against each other.
 */

#include "bench/common/stream.h"
#include "tests/unit/pki_fixture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/socket.h>

#define BULK_BYTES 500000
#define TURNS_MAX 2000000

/* One end: says how many bytes it wants to send, counts and checks what it gets. */
struct end {
	struct stream stream;
	struct stream_net *net;
	struct ssl_session_st **slot;
	struct stream_facts facts;
	bool is_server;
	bool begins_tls;
	bool is_secured;
	bool has_ended;
	bool is_closed;
	int connected;
	size_t to_send;
	size_t sent;
	size_t wanted;
	size_t got;
	char why[160];
};

/* Keeps a loop from sleeping, since two of them share this thread. */
struct stir {
	struct task task;
	struct loop *loop;
};

static struct pki ca, stranger;
static const char *ca_file, *stranger_file;
static const char *server_chain, *server_key, *client_chain, *client_key;

static uint8_t letter_at(size_t at)
{
	return (uint8_t)(at * 31 + at / 4096);
}

static void end_push(struct end *end)
{
	size_t room;
	uint8_t *out;

	while (end->sent < end->to_send && stream_room(&end->stream) > 0) {
		out = stream_out_space(&end->stream, &room);
		room = room < end->to_send - end->sent ? room : end->to_send - end->sent;
		for (size_t i = 0; i < room; i++)
			out[i] = letter_at(end->sent + i);
		stream_out_commit(&end->stream, room);
		end->sent += room;
		stream_flush_now(&end->stream);
	}
	stream_flush(&end->stream);
}

static void end_begin(struct end *end)
{
	stream_facts(&end->stream, &end->facts);
	stream_read(&end->stream);
	end_push(end);
}

static void on_connected(struct stream *stream, int result)
{
	struct end *end = OWNER_OF(stream, struct end, stream);

	end->connected = result;
	if (result < 0)
		stream_abort(stream);
	else if (end->begins_tls)
		assert_int_equal(stream_start_tls(stream, end->slot), 0);
	else
		end_begin(end);
}

static void on_input(struct stream *stream)
{
	struct end *end = OWNER_OF(stream, struct end, stream);
	struct span in = stream_input(stream);

	assert_true(in.len > 0);
	for (size_t i = 0; i < in.len; i++)
		assert_int_equal(in.data[i], letter_at(end->got + i));
	end->got += in.len;
	stream_consume(stream, in.len);
	stream_read(stream);
}

static void on_drained(struct stream *stream)
{
	struct end *end = OWNER_OF(stream, struct end, stream);

	if (end->is_secured || !end->begins_tls)
		end_push(end);
}

static void on_tls(struct stream *stream)
{
	struct end *end = OWNER_OF(stream, struct end, stream);

	end->is_secured = true;
	end_begin(end);
}

static void on_end(struct stream *stream, const char *why)
{
	struct end *end = OWNER_OF(stream, struct end, stream);

	assert_false(end->has_ended);
	end->has_ended = true;
	(void)snprintf(end->why, sizeof(end->why), "%s", why != NULL ? why : "");
	stream_close(stream);
}

static void on_closed(struct stream *stream)
{
	struct end *end = OWNER_OF(stream, struct end, stream);

	assert_false(end->is_closed);
	end->is_closed = true;
}

static const struct stream_events events = {
	.on_connected = on_connected,
	.on_input = on_input,
	.on_drained = on_drained,
	.on_tls = on_tls,
	.on_end = on_end,
	.on_closed = on_closed,
};

static void stir(struct task *task)
{
	struct stir *it = OWNER_OF(task, struct stir, task);

	loop_task_add(it->loop, task);
}

static void turn_until_closed(struct end *server, struct end *client)
{
	struct stir stirs[2];
	struct end *ends[] = {server, client};

	for (unsigned i = 0; i < 2; i++) {
		stirs[i].loop = stream_net_loop(ends[i]->net);
		task_init(&stirs[i].task, stir);
		loop_task_add(stirs[i].loop, &stirs[i].task);
	}
	for (unsigned i = 0; i < TURNS_MAX && !(server->is_closed && client->is_closed); i++) {
		assert_int_equal(loop_turn(stirs[0].loop), 0);
		assert_int_equal(loop_turn(stirs[1].loop), 0);
		/* The client has all that it wanted, and the server has, too: goodbye. */
		if (client->got == client->wanted && server->got == server->wanted)
			stream_close(&client->stream);
	}
	assert_true(server->is_closed && client->is_closed);
	loop_task_cancel(&stirs[0].task);
	loop_task_cancel(&stirs[1].task);
}

static void end_create(struct end *end, enum stream_code code, const struct stream_tls *tls,
	bool is_server, bool is_small)
{
	const struct stream_net_options options = {
		.code = code, .streams_max = 4, .tls = tls, .is_small = is_small};

	*end = (struct end){.is_server = is_server,
		.begins_tls = tls != NULL,
		.to_send = BULK_BYTES,
		.wanted = BULK_BYTES};
	assert_int_equal(stream_net_create(&end->net, &options), 0);
}

/* Connects the two and lets them run to their end. */
static void talk(struct end *server, struct end *client)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int listener = stream_listen(&at);
	int fd;

	assert_true(listener >= 0);
	client->is_closed = server->is_closed = false;
	assert_int_equal(stream_connect(&client->stream, client->net, &events, &at, NULL), 0);
	assert_int_equal(loop_turn(stream_net_loop(client->net)), 0);
	do {
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	} while (fd < 0 && errno == EAGAIN);
	assert_true(fd >= 0);
	stream_open(&server->stream, server->net, &events, fd);
	on_connected(&server->stream, 0);
	turn_until_closed(server, client);
	assert_int_equal(close(listener), 0);
}

static struct stream_tls tls_server(const char *versions)
{
	return (struct stream_tls){.is_server = true,
		.cert = server_chain,
		.key = server_key,
		.ca = ca_file,
		.versions = versions,
		.ticket_count = 2};
}

static struct stream_tls tls_client(const char *versions)
{
	return (struct stream_tls){.cert = client_chain,
		.key = client_key,
		.ca = ca_file,
		.name = "server.test",
		.versions = versions};
}

static void check_whole(const struct end *end)
{
	if (end->got != end->wanted || end->why[0] != '\0')
		fail_msg("%zu of %zu: %s", end->got, end->wanted, end->why);
}

static void try_pair(enum stream_code at_server, enum stream_code at_client, const char *version,
	bool is_small, const char *ktls)
{
	struct stream_tls tls_of_server = tls_server(version);
	struct stream_tls tls_of_client = tls_client(version);
	struct ssl_session_st *session = NULL;
	struct end server, client;

	tls_of_server.ktls = tls_of_client.ktls = ktls;
	end_create(&server, at_server, &tls_of_server, true, is_small);
	end_create(&client, at_client, &tls_of_client, false, is_small);
	client.slot = &session;
	for (unsigned round = 0; round < 2; round++) {
		server.got = client.got = server.sent = client.sent = 0;
		server.has_ended = client.has_ended = false;
		server.is_secured = client.is_secured = false;
		talk(&server, &client);
		check_whole(&server);
		check_whole(&client);
		assert_int_equal(client.facts.is_resumed, round > 0);
		assert_int_equal(server.facts.is_resumed, round > 0);
		assert_string_equal(
			client.facts.version, strcmp(version, "1.2") == 0 ? "TLSv1.2" : "TLSv1.3");
		assert_string_equal(server.facts.cipher, client.facts.cipher);
		if (at_client == STREAM_STOCK)
			assert_string_equal(client.facts.record, "user");
	}
	stream_session_drop(&session);
	stream_net_destroy(&server.net);
	stream_net_destroy(&client.net);
}

static void test_codes_and_versions(void **state)
{
	static const char *const versions[] = {"1.2", "1.3"};

	(void)state;
	for (unsigned i = 0; i < 16; i++)
		try_pair(i & 1 ? STREAM_POSTERN : STREAM_STOCK,
			i & 2 ? STREAM_POSTERN : STREAM_STOCK, versions[i >> 2 & 1], i >> 3, NULL);
}

/* Where the kernel has no TLS they stay in userspace, and it must go well all the same. */
static void test_kernel_records(void **state)
{
	static const char *const words[] = {"on", "rx", "tx"};

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		try_pair(STREAM_POSTERN, STREAM_STOCK, "1.3", false, words[i]);
		try_pair(STREAM_STOCK, STREAM_POSTERN, "1.2", false, words[i]);
	}
}

static void test_clear_text(void **state)
{
	struct end server, client;

	(void)state;
	for (unsigned i = 0; i < 8; i++) {
		end_create(&server, i & 1 ? STREAM_POSTERN : STREAM_STOCK, NULL, true, i >> 2);
		end_create(&client, i & 2 ? STREAM_POSTERN : STREAM_STOCK, NULL, false, i >> 2);
		talk(&server, &client);
		check_whole(&server);
		check_whole(&client);
		assert_false(client.facts.is_tls);
		stream_net_destroy(&server.net);
		stream_net_destroy(&client.net);
	}
}

static void test_group_and_cipher(void **state)
{
	struct stream_tls tls_of_server = tls_server("1.3");
	struct stream_tls tls_of_client = tls_client("1.3");
	struct end server, client;

	(void)state;
	tls_of_client.groups = "P-384";
	tls_of_client.ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256:TLS_CHACHA20_POLY1305_SHA256";
	for (unsigned i = 0; i < 4; i++) {
		end_create(&server, i & 1 ? STREAM_POSTERN : STREAM_STOCK, &tls_of_server, true,
			false);
		end_create(&client, i & 2 ? STREAM_POSTERN : STREAM_STOCK, &tls_of_client, false,
			false);
		talk(&server, &client);
		check_whole(&client);
		assert_string_equal(client.facts.group, "secp384r1");
		assert_string_equal(server.facts.group, "secp384r1");
		assert_string_equal(client.facts.cipher, "TLS_CHACHA20_POLY1305_SHA256");
		stream_net_destroy(&server.net);
		stream_net_destroy(&client.net);
	}
}

/* A certificate of somebody else's, of another name, or none: nothing may get through. */
static void test_unproved_peers(void **state)
{
	struct stream_tls tls_of_server = tls_server("1.3");
	struct stream_tls good = tls_client("1.3");
	struct stream_tls bad[] = {good, good, good};
	struct end server, client;

	(void)state;
	bad[0].name = "another.test";
	bad[1].ca = stranger_file;
	bad[2].cert = bad[2].key = NULL;
	for (unsigned i = 0; i < 4 * 3; i++) {
		end_create(&server, i & 1 ? STREAM_POSTERN : STREAM_STOCK, &tls_of_server, true,
			false);
		end_create(
			&client, i & 2 ? STREAM_POSTERN : STREAM_STOCK, &bad[i / 4], false, false);
		talk(&server, &client);
		assert_true(client.has_ended || server.has_ended);
		assert_true(client.why[0] != '\0' || server.why[0] != '\0');
		assert_int_equal(server.got, 0);
		if (i / 4 < 2)
			assert_false(client.is_secured);
		else
			assert_false(server.is_secured);
		stream_net_destroy(&server.net);
		stream_net_destroy(&client.net);
	}
}

static void test_nobody_listens(void **state)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int listener = stream_listen(&at);
	struct end client;

	(void)state;
	assert_true(listener >= 0);
	assert_int_equal(close(listener), 0);
	for (unsigned i = 0; i < 2; i++) {
		end_create(&client, i ? STREAM_POSTERN : STREAM_STOCK, NULL, false, false);
		assert_int_equal(stream_connect(&client.stream, client.net, &events, &at, NULL), 0);
		for (unsigned turn = 0; turn < 100 && !client.is_closed; turn++)
			assert_int_equal(loop_turn(stream_net_loop(client.net)), 0);
		assert_true(client.is_closed);
		assert_int_equal(client.connected, -ECONNREFUSED);
		stream_net_destroy(&client.net);
	}
}

static int setup(void **state)
{
	(void)state;
	pki_begin();
	ca = pki_make(&(struct pki_options){.cn = "ca", .is_ca = true});
	stranger = pki_make(&(struct pki_options){.cn = "stranger", .is_ca = true});
	ca_file = strdup(pki_write_one("ca.pem", &ca));
	stranger_file = strdup(pki_write_one("stranger.pem", &stranger));
	for (unsigned i = 0; i < 2; i++) {
		struct pki leaf = pki_make(&(struct pki_options){.issuer = &ca,
			.san = i == 0 ? "DNS:server.test" : "DNS:client.test",
			.eku = "serverAuth,clientAuth"});
		const char *chain = strdup(pki_write_one(i == 0 ? "s.pem" : "c.pem", &leaf));
		const char *key = strdup(pki_write_key(i == 0 ? "s.key" : "c.key", &leaf));

		if (i == 0)
			server_chain = chain, server_key = key;
		else
			client_chain = chain, client_key = key;
		pki_drop(&leaf);
	}
	return stream_init(STREAM_STOCK);
}

static int teardown(void **state)
{
	(void)state;
	peer_cache_destroy();
	pki_drop(&ca);
	pki_drop(&stranger);
	pki_end();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_codes_and_versions),
		cmocka_unit_test(test_kernel_records),
		cmocka_unit_test(test_clear_text),
		cmocka_unit_test(test_group_and_cipher),
		cmocka_unit_test(test_unproved_peers),
		cmocka_unit_test(test_nobody_listens),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
