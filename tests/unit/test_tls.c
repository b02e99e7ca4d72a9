/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/limits.h"
#include "tests/unit/tls_pair.h"
#include <errno.h>

/* Too large for the stack; each test begins it anew. */
static struct pair pair;

/* Of the connection under way. */
static struct tls_context client_context;
static struct tls_context server_context;

static const char *const versions[] = {"TLSv1.2", "TLSv1.3"};

/* Both sides of one version, the client with a certificate, if leaf is not NULL. */
static bool handshake(
	const char *version, const struct side *client_side, const struct side *server_side)
{
	struct side client = *client_side;
	struct side server = *server_side;
	bool done;

	client.tls_max = version;
	server.tls_min = version;
	client_context = side_context(&client, false);
	server_context = side_context(&server, true);
	pair_open(&pair, &client_context, &server_context, NULL);
	done = pair_handshake(&pair);
	/* The library counts references: the connections go on without our contexts' ctx. */
	tls_context_destroy(&client_context);
	tls_context_destroy(&server_context);
	return done;
}

/* Handshakes. */

static void test_handshake(void **state)
{
	const struct side client = {.leaf = "treyresearch", .anchors = "adatum-ca"};
	const struct side server = {.anchors = "treyresearch-ca",
		.client_certificate = CLIENT_CERTIFICATE_REQUIRE,
		.tickets = 1};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(versions); i++) {
		struct tls_facts facts;

		assert_true(handshake(versions[i], &client, &server));
		facts = end_facts(&pair.server, NULL);
		assert_string_equal(facts.version, versions[i]);
		assert_non_null(strstr(facts.cipher, "AES_256_GCM_SHA384"));
		assert_int_equal(facts.cipher_bits, 256);
		assert_false(facts.is_resumed);
		assert_string_equal(verdict_word(facts.verdict), "Valid");
		assert_string_equal(facts.subject, "CN=mx.treyresearch.test,O=treyresearch");
		assert_int_equal(strlen(facts.spki_sha256), 64);
		facts = end_facts(&pair.client, "mx.adatum.test");
		assert_string_equal(verdict_word(facts.verdict), "Valid");
		assert_string_equal(facts.subject, "CN=mx.adatum.test,O=adatum");
		pair_close(&pair);
	}
}

static void test_handshake_rsa(void **state)
{
	const struct side client = {.leaf = "adatum-rsa", .anchors = "adatum-ca"};
	const struct side server = {.leaf = "adatum-rsa",
		.anchors = "adatum-ca",
		.client_certificate = CLIENT_CERTIFICATE_ASK};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(versions); i++) {
		assert_true(handshake(versions[i], &client, &server));
		assert_int_equal(end_facts(&pair.server, NULL).verdict, VERDICT_VALID);
		assert_int_equal(end_facts(&pair.client, NULL).verdict, VERDICT_VALID);
		pair_close(&pair);
	}
}

static void test_no_version_in_common(void **state)
{
	const struct side client = {.tls_max = "TLSv1.2"};
	const struct side server = {.tls_min = "TLSv1.3"};

	(void)state;
	client_context = side_context(&client, false);
	server_context = side_context(&server, true);
	pair_open(&pair, &client_context, &server_context, NULL);
	assert_false(pair_handshake(&pair));
	assert_int_equal(pair.server.status, TLS_FAILED);
	assert_string_not_equal(tls_error(&pair.server.tls), "");
	/* The alert has reached the client, and no error lies about for the next connection. */
	assert_int_equal(pair.client.status, TLS_FAILED);
	assert_int_equal(ERR_peek_error(), 0);
	pair_close(&pair);
	tls_context_destroy(&client_context);
	tls_context_destroy(&server_context);
}

/* Records. */

/* What the kernel would be told: each side's count is the other's, and both are what was sent. */
static void check_counts(unsigned client_sent, unsigned server_sent)
{
	assert_int_equal(pair.client.tls.tx_records, client_sent);
	assert_int_equal(pair.server.tls.rx_records, client_sent);
	assert_int_equal(pair.server.tls.tx_records, server_sent);
	assert_int_equal(pair.client.tls.rx_records, server_sent);
}

/* Records in both directions, then both goodbyes. first: records before, of client and server. */
static void exchange(unsigned client_first, unsigned server_first)
{
	static uint8_t text[40000];
	unsigned client_sent = client_first;
	unsigned server_sent = server_first;

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (uint8_t)(i % 251);
	client_sent += end_write(&pair.client, span_make(text, 1));
	client_sent += end_write(&pair.client, span_make(text, sizeof(text)));
	assert_int_equal(client_sent, client_first + 4);
	assert_int_equal(pair_deliver(&pair.client, &pair.server), 4);
	assert_int_equal(pair.server.text_len, sizeof(text) + 1);
	assert_memory_equal(pair.server.text + 1, text, sizeof(text));
	server_sent += end_write(&pair.server, span_make(text, 16384));
	server_sent += end_write(&pair.server, span_make(text, 5));
	assert_int_equal(pair_deliver(&pair.server, &pair.client), 2);
	assert_int_equal(pair.client.text_len, 16389);
	check_counts(client_sent, server_sent);

	end_sink_open(&pair.client);
	tls_write_close(&pair.client.tls);
	end_sink_close(&pair.client);
	assert_int_equal(pair_deliver(&pair.client, &pair.server), 1);
	assert_int_equal(pair.server.status, TLS_CLOSED);
	/* Half-closed: the server may still send. */
	server_sent += end_write(&pair.server, span_make(text, 7));
	assert_int_equal(pair_deliver(&pair.server, &pair.client), 1);
	assert_int_equal(pair.client.text_len, 16396);
	end_sink_open(&pair.server);
	tls_write_close(&pair.server.tls);
	end_sink_close(&pair.server);
	assert_int_equal(pair_deliver(&pair.server, &pair.client), 1);
	assert_int_equal(pair.client.status, TLS_CLOSED);
	check_counts(client_sent + 1, server_sent + 1);
}

static void test_record_counts(void **state)
{
	static const unsigned tickets[] = {0, 1, 2, 4};
	const struct side client = {.leaf = "treyresearch"};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(tickets); i++) {
		const struct side server = {
			.tickets = tickets[i], .client_certificate = CLIENT_CERTIFICATE_ASK};

		/* TLS 1.2: Finished is record 0 of each direction; the ticket comes before it. */
		assert_true(handshake("TLSv1.2", &client, &server));
		check_counts(1, 1);
		exchange(1, 1);
		pair_close(&pair);
		/* TLS 1.3: tickets are the server's first records under its application key. */
		assert_true(handshake("TLSv1.3", &client, &server));
		check_counts(0, tickets[i]);
		exchange(0, tickets[i]);
		pair_close(&pair);
	}
}

/* The counts may not depend on how much fits the sink of a call. */
static void test_record_counts_small_sink(void **state)
{
	static const size_t sinks[] = {1, 5, 37, 100, 500, 1000, 2000, 5000};
	const struct side client_side = {.leaf = "treyresearch"};
	const struct side server_side = {
		.tickets = 2, .client_certificate = CLIENT_CERTIFICATE_ASK};
	struct tls_context client = side_context(&client_side, false);
	struct tls_context server = side_context(&server_side, true);

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(sinks); i++) {
		pair_open(&pair, &client, &server, NULL);
		pair.client.sink_bytes = sinks[i];
		pair.server.sink_bytes = sinks[i];
		assert_true(pair_handshake(&pair));
		check_counts(0, 2);
		pair.client.sink_bytes = WIRE_BYTES;
		pair.server.sink_bytes = WIRE_BYTES;
		exchange(0, 2);
		pair_close(&pair);
	}
	tls_context_destroy(&client);
	tls_context_destroy(&server);
}

/* The client's first key share is of a group that the server lacks (RFC 8446 4.1.4). */
static void test_hello_retry(void **state)
{
	int groups[] = {NID_X25519, NID_X9_62_prime256v1};
	const struct side client_side = {.leaf = "treyresearch"};
	const struct side server_side = {
		.tickets = 2, .client_certificate = CLIENT_CERTIFICATE_ASK};
	struct tls_context client = side_context(&client_side, false);
	struct tls_context server = side_context(&server_side, true);

	(void)state;
	pair_open(&pair, &client, &server, NULL);
	assert_int_equal(SSL_set1_groups(pair.client.tls.ssl, groups, 2), 1);
	assert_int_equal(SSL_set1_groups(pair.server.tls.ssl, groups + 1, 1), 1);
	assert_true(pair_handshake(&pair));
	exchange(0, 2);
	pair_close(&pair);
	tls_context_destroy(&client);
	tls_context_destroy(&server);
}

static void test_write_limits(void **state)
{
	static const struct side plain = {0};
	static uint8_t text[40000];
	size_t taken = 1;

	(void)state;
	assert_true(handshake("TLSv1.3", &plain, &plain));
	pair.client.sink_bytes = 16384;
	end_sink_open(&pair.client);
	assert_int_equal(
		tls_write(&pair.client.tls, span_make(text, sizeof(text)), &taken), TLS_FULL);
	end_sink_close(&pair.client);
	assert_int_equal(taken, 0);
	assert_int_equal(pair.client.wire_len, 0);
	pair.client.sink_bytes = WIRE_BYTES;
	end_sink_open(&pair.client);
	assert_int_equal(
		tls_write(&pair.client.tls, span_make(text, sizeof(text)), &taken), TLS_DONE);
	end_sink_close(&pair.client);
	assert_int_equal(taken, 16384);
	/* The longest record that we send is one that we would take. */
	assert_int_equal(
		tls_record_length(span_make(pair.client.wire, 5)), (int)pair.client.wire_len);
	pair_close(&pair);
}

static void test_record_length(void **state)
{
	static const struct {
		const char *name;
		uint8_t in[6];
		size_t len;
		int want;
	} cases[] = {
		{"nothing", {0}, 0, 0},
		{"a header in part", {22, 3, 1, 0}, 4, 0},
		{"a client hello", {22, 3, 1, 1, 0}, 5, 261},
		{"and more behind it", {22, 3, 1, 1, 0, 1}, 6, 261},
		{"change cipher spec", {20, 3, 3, 0, 1}, 5, 6},
		{"an alert", {21, 3, 3, 0, 2}, 5, 7},
		{"application data", {23, 3, 3, 0x40, 0x00}, 5, 16389},
		{"an empty record", {23, 3, 3, 0, 0}, 5, 5},
		{"the longest", {23, 3, 3, 0x41, 0x00}, 5, TLS_RECORD_BYTES_MAX},
		{"one byte longer", {23, 3, 3, 0x41, 0x01}, 5, -EPROTO},
		{"far longer", {23, 3, 3, 0xff, 0xff}, 5, -EPROTO},
		{"SSL 3.0 in the header", {22, 3, 0, 0, 1}, 5, 6},
		{"a type below", {19, 3, 3, 0, 1}, 5, -EPROTO},
		{"a heartbeat", {24, 3, 3, 0, 1}, 5, -EPROTO},
		{"version 2", {22, 2, 0, 0, 1}, 5, -EPROTO},
		{"an SSLv2 hello", {0x80, 0x2e, 1, 0, 2}, 5, -EPROTO},
		{"HTTP in clear", {'G', 'E', 'T', ' ', '/'}, 5, -EPROTO},
		{"SMTP in clear", {'E', 'H', 'L', 'O', ' '}, 5, -EPROTO},
	};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(cases); i++) {
		int got = tls_record_length(span_make(cases[i].in, cases[i].len));

		if (got != cases[i].want)
			print_error("%s\n", cases[i].name);
		assert_int_equal(got, cases[i].want);
	}
}

/* What is no handshake fails, says why, and answers with an alert. */
static void test_bad_records(void **state)
{
	static const struct {
		const char *name;
		uint8_t in[16];
		size_t len;
	} cases[] = {
		{"application data first", {23, 3, 3, 0, 1, 0}, 6},
		{"an unknown handshake", {22, 3, 1, 0, 5, 99, 0, 0, 1, 0}, 10},
		{"a hello too long", {22, 3, 1, 0, 5, 1, 0xff, 0xff, 0xff, 0}, 10},
		{"a server hello", {22, 3, 3, 0, 5, 2, 0, 0, 1, 0}, 10},
	};
	static const struct side plain = {0};
	struct tls_context context = side_context(&plain, true);

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(cases); i++) {
		end_init(&pair.server);
		assert_int_equal(tls_open(&pair.server.tls, &context, NULL, NULL), 0);
		end_feed(&pair.server, span_make(cases[i].in, cases[i].len));
		if (pair.server.status != TLS_FAILED)
			print_error("%s\n", cases[i].name);
		assert_int_equal(pair.server.status, TLS_FAILED);
		assert_string_not_equal(tls_error(&pair.server.tls), "");
		assert_int_equal(pair.server.wire_len, 7);
		assert_int_equal(pair.server.wire[0], SSL3_RT_ALERT);
		assert_int_equal(ERR_peek_error(), 0);
		tls_close(&pair.server.tls);
	}
	tls_context_destroy(&context);
}

/* A record that was changed on its way ends the connection with bad_record_mac. */
static void test_changed_record(void **state)
{
	static const struct side plain = {0};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(versions); i++) {
		assert_true(handshake(versions[i], &plain, &plain));
		assert_int_equal(end_write(&pair.client, span_of("hello")), 1);
		pair.client.wire[pair.client.wire_len - 1] ^= 1;
		(void)pair_deliver(&pair.client, &pair.server);
		assert_int_equal(pair.server.status, TLS_FAILED);
		assert_int_equal(pair.server.text_len, 0);
		assert_true(pair.server.wire_len > 0);
		assert_int_equal(ERR_peek_error(), 0);
		pair_close(&pair);
	}
}

/* Keys. */

static bool is_zero(const void *memory, size_t bytes)
{
	const uint8_t *at = memory;

	for (size_t i = 0; i < bytes; i++) {
		if (at[i] != 0)
			return false;
	}
	return true;
}

static void test_secrets(void **state)
{
	static const struct {
		const char *suite;
		unsigned secret_len;
	} cases[] = {
		{"TLS_AES_128_GCM_SHA256", 32},
		{"TLS_AES_256_GCM_SHA384", 48},
		{"TLS_CHACHA20_POLY1305_SHA256", 32},
	};
	static const struct side plain = {0};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(cases); i++) {
		const struct side server = {.ciphersuites = cases[i].suite};
		const struct tls *ours = &pair.server.tls;
		const struct tls *theirs = &pair.client.tls;

		assert_true(handshake("TLSv1.3", &plain, &server));
		assert_int_equal(ours->secret_len, cases[i].secret_len);
		assert_int_equal(theirs->secret_len, cases[i].secret_len);
		assert_memory_equal(ours->client_secret, theirs->client_secret, ours->secret_len);
		assert_memory_equal(ours->server_secret, theirs->server_secret, ours->secret_len);
		assert_memory_not_equal(ours->client_secret, ours->server_secret, ours->secret_len);
		assert_false(is_zero(ours->client_secret, ours->secret_len));
		assert_false(is_zero(ours->server_secret, ours->secret_len));
		pair_close(&pair);
		assert_true(is_zero(ours, sizeof(*ours)));
	}
	/* TLS 1.2 has none: its keys come from the master secret. */
	assert_true(handshake("TLSv1.2", &plain, &plain));
	assert_int_equal(pair.server.tls.secret_len, 0);
	pair_close(&pair);
}

/* A KeyUpdate is noticed by who sends it and by who gets it; the records go on. */
static void test_key_update(void **state)
{
	static const struct side plain = {0};

	(void)state;
	assert_true(handshake("TLSv1.3", &plain, &plain));
	assert_int_equal(SSL_key_update(pair.client.tls.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
	assert_false(pair.server.tls.keys_changed);
	(void)end_write(&pair.client, span_of("hello"));
	assert_int_equal(pair_deliver(&pair.client, &pair.server), 2);
	assert_true(pair.client.tls.keys_changed);
	assert_true(pair.server.tls.keys_changed);
	assert_int_equal(pair.server.text_len, 5);
	(void)end_write(&pair.server, span_of("hello"));
	assert_int_equal(pair_deliver(&pair.server, &pair.client), 2);
	assert_int_equal(pair.client.text_len, 5);
	pair_close(&pair);
}

/* TLS 1.2 only; refused with a warning, and the connection goes on (RFC 5246 7.2.2). */
static void test_renegotiation(void **state)
{
	static const struct side plain = {0};

	(void)state;
	assert_true(handshake("TLSv1.2", &plain, &plain));
	(void)SSL_clear_options(pair.client.tls.ssl, SSL_OP_NO_RENEGOTIATION);
	assert_int_equal(SSL_renegotiate(pair.client.tls.ssl), 1);
	end_sink_open(&pair.client);
	(void)SSL_do_handshake(pair.client.tls.ssl);
	end_sink_close(&pair.client);
	assert_int_equal(pair_deliver(&pair.client, &pair.server), 1);
	assert_true(pair.server.status == TLS_MORE || pair.server.status == TLS_FAILED);
	assert_true(pair.server.wire_len > 0);
	assert_int_equal(pair.server.wire[0], SSL3_RT_ALERT);
	pair_close(&pair);
}

/* Contexts. */

/* The message names the file, or the word, that is wrong. */
static void test_context_mistakes(void **state)
{
	static const struct {
		struct side side;
		const char *named;
	} cases[] = {
		{{.leaf = "no-such"}, "/no-such.pem: "},
		{{.leaf = "adatum-ca"}, NULL},
		{{.leaf = "adatum-weak"}, "/adatum-weak.pem: "},
		{{.anchors = "no-such"}, "/no-such.pem: "},
		{{.tls_min = "TLSv1.1"}, "TLSv1.1: "},
		{{.tls_max = "TLSv1.4"}, "TLSv1.4: "},
		{{.ciphers = "NO-SUCH"}, "NO-SUCH: "},
		{{.ciphersuites = "TLS_NO_SUCH"}, "TLS_NO_SUCH: "},
	};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(cases); i++) {
		struct tls_context context = {0};
		char error[512] = "";
		int rc = side_create_context(&cases[i].side, true, &context, error);

		if (cases[i].named == NULL) {
			assert_int_equal(rc, 0);
			tls_context_destroy(&context);
			continue;
		}
		assert_int_equal(rc, -EINVAL);
		assert_null(context.ctx);
		if (strstr(error, cases[i].named) == NULL)
			print_error("\"%s\" does not name \"%s\"\n", error, cases[i].named);
		assert_non_null(strstr(error, cases[i].named));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_handshake),
		cmocka_unit_test(test_handshake_rsa),
		cmocka_unit_test(test_no_version_in_common),
		cmocka_unit_test(test_record_counts),
		cmocka_unit_test(test_record_counts_small_sink),
		cmocka_unit_test(test_hello_retry),
		cmocka_unit_test(test_write_limits),
		cmocka_unit_test(test_record_length),
		cmocka_unit_test(test_bad_records),
		cmocka_unit_test(test_changed_record),
		cmocka_unit_test(test_secrets),
		cmocka_unit_test(test_key_update),
		cmocka_unit_test(test_renegotiation),
		cmocka_unit_test(test_context_mistakes),
	};

	return cmocka_run_group_tests(tests, pair_setup, pair_teardown);
}
