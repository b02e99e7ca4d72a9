/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/tls_pair.h"

/*
 * Who may resume what: a ticket counts within one connector, and carries its verdict.
 */

/* Too large for the stack; each test begins it anew. */
static struct pair pair;

static const char *const versions[] = {"TLSv1.2", "TLSv1.3"};

static struct tls_facts facts_of(struct end *end, bool is_asked)
{
	struct tls_facts facts;

	tls_facts_read(end->tls.ssl, is_asked, NULL, &facts);
	return facts;
}

/* One connection with what slot has; tells what the server has found. */
static struct tls_facts resume(const struct tls_context *client, const struct tls_context *server,
	struct ssl_session_st **slot)
{
	struct tls_facts facts;

	pair_open(&pair, client, server, slot);
	assert_true(pair_handshake(&pair));
	facts = facts_of(&pair.server, server->asks_certificate);
	assert_int_equal(facts_of(&pair.client, true).is_resumed, facts.is_resumed);
	pair_close(&pair);
	return facts;
}

/* Within one connector the ticket counts, whichever worker's context gave it; nowhere else. */
static void test_resumption(void **state)
{
	const struct side client_side = {.leaf = "treyresearch", .anchors = "adatum-ca"};
	struct side server_side = {.name = "one",
		.anchors = "treyresearch-ca",
		.client_certificate = CLIENT_CERTIFICATE_REQUIRE,
		.tickets = 1};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(versions); i++) {
		struct ssl_session_st *slot = NULL;
		struct tls_context client;
		struct tls_context one;
		struct tls_context again;
		struct tls_context two;
		struct tls_facts facts;

		server_side.tls_max = versions[i];
		server_side.tls_min = versions[i];
		client = side_context(&client_side, false);
		server_side.name = "one";
		one = side_context(&server_side, true);
		again = side_context(&server_side, true);
		server_side.name = "two";
		two = side_context(&server_side, true);

		assert_false(resume(&client, &one, &slot).is_resumed);
		assert_non_null(slot);
		facts = resume(&client, &one, &slot);
		assert_true(facts.is_resumed);
		assert_int_equal(facts.verdict, VERDICT_VALID);
		assert_string_equal(facts.subject, "CN=mx.treyresearch.test,O=treyresearch");
		assert_int_equal(strlen(facts.spki_sha256), 64);
		assert_true(resume(&client, &again, &slot).is_resumed);
		/* The full handshake with the other replaces what was kept. */
		facts = resume(&client, &two, &slot);
		assert_false(facts.is_resumed);
		assert_int_equal(facts.verdict, VERDICT_VALID);
		assert_false(resume(&client, &one, &slot).is_resumed);

		tls_session_drop(&slot);
		assert_null(slot);
		tls_context_destroy(&client);
		tls_context_destroy(&one);
		tls_context_destroy(&again);
		tls_context_destroy(&two);
	}
}

/* A peer that was refused stays refused when it resumes: the verdict lies in the ticket. */
static void test_resumption_keeps_verdict(void **state)
{
	static const struct {
		const char *leaf;
		enum verdict want;
	} cases[] = {
		{NULL, VERDICT_EMPTY},
		{"self", VERDICT_UNTRUSTED_ROOT},
		{"adatum-expired", VERDICT_EXPIRED},
		{"adatum-eku", VERDICT_BAD_USAGE},
	};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(cases) * COUNT_OF(versions); i++) {
		const struct side client_side = {.leaf = cases[i / 2].leaf};
		const struct side server_side = {.tls_max = versions[i % 2],
			.anchors = "adatum-ca",
			.client_certificate = CLIENT_CERTIFICATE_REQUIRE,
			.tickets = 1};
		struct tls_context client = side_context(&client_side, false);
		struct tls_context server = side_context(&server_side, true);
		struct ssl_session_st *slot = NULL;
		struct tls_facts facts;

		assert_int_equal(resume(&client, &server, &slot).verdict, cases[i / 2].want);
		facts = resume(&client, &server, &slot);
		assert_true(facts.is_resumed);
		assert_int_equal(facts.verdict, cases[i / 2].want);
		tls_session_drop(&slot);
		tls_context_destroy(&client);
		tls_context_destroy(&server);
	}
}

static void test_no_tickets_no_resumption(void **state)
{
	static const struct side plain = {0};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(versions); i++) {
		const struct side server_side = {.tls_max = versions[i], .tickets = 0};
		struct tls_context client = side_context(&plain, false);
		struct tls_context server = side_context(&server_side, true);
		struct ssl_session_st *slot = NULL;

		for (unsigned turn = 0; turn < 3; turn++)
			assert_false(resume(&client, &server, &slot).is_resumed);
		tls_session_drop(&slot);
		tls_context_destroy(&client);
		tls_context_destroy(&server);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_resumption),
		cmocka_unit_test(test_resumption_keeps_verdict),
		cmocka_unit_test(test_no_tickets_no_resumption),
	};

	return cmocka_run_group_tests(tests, pair_setup, NULL);
}
