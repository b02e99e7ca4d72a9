/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/tls_pair.h"

/*
 * The secrets of TLS 1.3 are listened for only while they come: each side has both, whatever other
 * handshakes of the same contexts lie in between, and wherever a flight is cut.
 */

#define PAIRS 3

static struct pair pairs[PAIRS];

static void assert_agree(const struct pair *pair)
{
	const struct tls *client = &pair->client.tls;
	const struct tls *server = &pair->server.tls;

	assert_true(client->is_done && server->is_done);
	assert_int_equal(client->secret_len, 48);
	assert_int_equal(server->secret_len, 48);
	assert_memory_equal(client->client_secret, server->client_secret, 48);
	assert_memory_equal(client->server_secret, server->server_secret, 48);
	assert_memory_not_equal(client->client_secret, client->server_secret, 48);
}

/* The pairs take turns, a flight at a time; the later ones begin while the first are under way. */
static void run_side_by_side(void)
{
	for (unsigned turn = 0; turn < 8; turn++) {
		for (unsigned i = 0; i < PAIRS; i++) {
			struct pair *pair = &pairs[i];

			if (turn < i)
				continue;
			if (turn == i)
				end_handshake(&pair->client);
			(void)pair_deliver(turn % 2 == 0 ? &pair->client : &pair->server,
				turn % 2 == 0 ? &pair->server : &pair->client);
			(void)pair_deliver(turn % 2 == 0 ? &pair->server : &pair->client,
				turn % 2 == 0 ? &pair->client : &pair->server);
		}
	}
}

static void test_secrets(void **state)
{
	static const size_t rooms[] = {WIRE_BYTES, 37};
	const struct side client_side = {.leaf = "treyresearch", .anchors = "adatum-ca"};
	const struct side server_side = {.anchors = "treyresearch-ca",
		.client_certificate = CLIENT_CERTIFICATE_REQUIRE,
		.tickets = 1,
		.tls_min = "TLSv1.3"};
	struct ssl_session_st *slot = NULL;
	struct tls_context client = side_context(&client_side, false);
	struct tls_context server = side_context(&server_side, true);

	(void)state;
	for (unsigned round = 0; round < 4; round++) {
		for (unsigned i = 0; i < PAIRS; i++) {
			pair_open(&pairs[i], &client, &server, i == 0 ? &slot : NULL);
			pairs[i].client.sink_bytes = rooms[round % 2];
			pairs[i].server.sink_bytes = rooms[round % 2];
		}
		run_side_by_side();
		for (unsigned i = 0; i < PAIRS; i++)
			assert_agree(&pairs[i]);
		assert_memory_not_equal(
			pairs[0].client.tls.client_secret, pairs[1].client.tls.client_secret, 48);
		/* From the second round on the first of them resumes. */
		assert_int_equal(end_facts(&pairs[0].server, NULL).is_resumed, round > 0);
		for (unsigned i = 0; i < PAIRS; i++)
			pair_close(&pairs[i]);
	}
	tls_session_drop(&slot);
	tls_context_destroy(&client);
	tls_context_destroy(&server);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_secrets)};

	return cmocka_run_group_tests(tests, pair_setup, pair_teardown);
}
