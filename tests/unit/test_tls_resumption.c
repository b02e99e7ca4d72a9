/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/pki/crl.h"
#include "tests/unit/pki_fixture.h"
#include "tests/unit/tls_pair.h"

/*
 * Who may resume what: a ticket counts within one connector and one generation of its policy and
 * of the revocation lists; and the peer is judged anew each time.
 */

/* Too large for the stack; each test begins it anew. */
static struct pair pair;

static const char *const versions[] = {"TLSv1.2", "TLSv1.3"};

/* One connection with what slot has; tells what the server has found. */
static struct tls_facts resume(const struct tls_context *client, const struct tls_context *server,
	struct ssl_session_st **slot)
{
	struct tls_facts facts;

	pair_open(&pair, client, server, slot);
	assert_true(pair_handshake(&pair));
	facts = end_facts(&pair.server, NULL);
	assert_int_equal(end_facts(&pair.client, NULL).is_resumed, facts.is_resumed);
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

/* A peer that was refused stays refused when it resumes. */
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

/* Both sides of one version, with tickets, the client with a certificate that is believed. */
static void open_contexts(
	const char *version, struct tls_context *client, struct tls_context *server)
{
	const struct side client_side = {.leaf = "adatum", .anchors = "adatum-ca"};
	const struct side server_side = {.tls_min = version,
		.tls_max = version,
		.anchors = "adatum-ca",
		.client_certificate = CLIENT_CERTIFICATE_ASK,
		.tickets = 1};

	*client = side_context(&client_side, false);
	*server = side_context(&server_side, true);
}

/* Tickets of another generation of the server's policy are worth nothing; nor are its keys. */
static void test_server_generation(void **state)
{
	(void)state;
	for (unsigned i = 0; i < COUNT_OF(versions); i++) {
		struct ssl_session_st *slot = NULL;
		struct tls_context client;
		struct tls_context server;

		open_contexts(versions[i], &client, &server);
		tls_context_refresh(&server, 7);
		assert_false(resume(&client, &server, &slot).is_resumed);
		assert_true(resume(&client, &server, &slot).is_resumed);
		tls_context_refresh(&server, 7);
		assert_true(resume(&client, &server, &slot).is_resumed);
		tls_context_refresh(&server, 8);
		assert_false(resume(&client, &server, &slot).is_resumed);
		assert_true(resume(&client, &server, &slot).is_resumed);
		/* Another worker comes to the same keys. */
		tls_context_destroy(&server);
		tls_context_destroy(&client);
		open_contexts(versions[i], &client, &server);
		assert_false(resume(&client, &server, &slot).is_resumed);
		tls_context_refresh(&server, 8);
		assert_false(resume(&client, &server, &slot).is_resumed);
		assert_true(resume(&client, &server, &slot).is_resumed);
		tls_session_drop(&slot);
		tls_context_destroy(&client);
		tls_context_destroy(&server);
	}
}

/* A client forgets the sessions of another generation, or of another connector. */
static void test_client_generation(void **state)
{
	const struct side two_side = {.name = "two", .leaf = "adatum", .anchors = "adatum-ca"};
	struct tls_context two = side_context(&two_side, false);

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(versions); i++) {
		struct ssl_session_st *slot = NULL;
		struct tls_context client;
		struct tls_context server;

		open_contexts(versions[i], &client, &server);
		assert_false(resume(&client, &server, &slot).is_resumed);
		assert_true(resume(&client, &server, &slot).is_resumed);
		tls_context_refresh(&client, 7);
		assert_false(resume(&client, &server, &slot).is_resumed);
		assert_true(resume(&client, &server, &slot).is_resumed);
		assert_false(resume(&two, &server, &slot).is_resumed);
		tls_session_drop(&slot);
		tls_context_destroy(&client);
		tls_context_destroy(&server);
	}
	tls_context_destroy(&two);
}

/* A list that is read makes all tickets and sessions of before worth nothing, on both sides. */
static void test_list_generation(void **state)
{
	(void)state;
	pki_begin();
	for (unsigned i = 0; i < COUNT_OF(versions) * 2; i++) {
		const struct pki_options ca = {.is_ca = true};
		struct pki root = pki_make(&ca);
		const struct pki_list_options empty = {.issuer = &root};
		const char *file = pki_write_list("new.crl", pki_list(&empty));
		STACK_OF(X509_CRL) *lists = sk_X509_CRL_new_null();
		struct ssl_session_st *slot = NULL;
		struct tls_context client;
		struct tls_context server;
		uint64_t generation;

		open_contexts(versions[i % 2], &client, &server);
		tls_context_refresh(&client, 1);
		tls_context_refresh(&server, 1);
		assert_false(resume(&client, &server, &slot).is_resumed);
		assert_true(resume(&client, &server, &slot).is_resumed);
		generation = crl_generation();
		assert_int_equal(crl_for_file(file, lists), CRL_HERE);
		assert_true(crl_generation() > generation);
		assert_true(resume(&client, &server, &slot).is_resumed);
		tls_context_refresh(i < 2 ? &client : &server, 1);
		assert_false(resume(&client, &server, &slot).is_resumed);
		assert_true(resume(&client, &server, &slot).is_resumed);
		tls_session_drop(&slot);
		tls_context_destroy(&client);
		tls_context_destroy(&server);
		sk_X509_CRL_pop_free(lists, X509_CRL_free);
		pki_drop(&root);
		crl_stop();
	}
	pki_end();
}

/* Whose chain is forgotten makes a full handshake: its ticket tells the leaf alone. */
static void test_forgotten_peer(void **state)
{
	(void)state;
	for (unsigned i = 0; i < COUNT_OF(versions); i++) {
		struct ssl_session_st *slot = NULL;
		struct tls_context client;
		struct tls_context server;
		struct tls_facts facts;

		open_contexts(versions[i], &client, &server);
		assert_false(resume(&client, &server, &slot).is_resumed);
		facts = resume(&client, &server, &slot);
		assert_true(facts.is_resumed);
		assert_int_equal(facts.verdict, VERDICT_VALID);
		peer_cache_destroy();
		assert_int_equal(peer_cache_create(64), 0);
		facts = resume(&client, &server, &slot);
		assert_false(facts.is_resumed);
		assert_int_equal(facts.verdict, VERDICT_VALID);
		assert_true(resume(&client, &server, &slot).is_resumed);
		tls_session_drop(&slot);
		tls_context_destroy(&client);
		tls_context_destroy(&server);
	}
}

/* A resumed session is judged anew: here at a time when the certificate has ended. */
static void test_resumed_is_judged(void **state)
{
	(void)state;
	for (unsigned i = 0; i < COUNT_OF(versions); i++) {
		struct ssl_session_st *slot = NULL;
		struct tls_context client;
		struct tls_context server;
		const time_t late = time(NULL) + (time_t)20 * 366 * 86400;

		open_contexts(versions[i], &client, &server);
		assert_false(resume(&client, &server, &slot).is_resumed);
		pair_open(&pair, &client, &server, &slot);
		assert_true(pair_handshake(&pair));
		assert_true(end_facts(&pair.client, NULL).is_resumed);
		assert_int_equal(end_facts(&pair.client, NULL).verdict, VERDICT_VALID);
		assert_int_equal(end_facts_at(&pair.client, NULL, late).verdict, VERDICT_EXPIRED);
		assert_int_equal(end_facts_at(&pair.server, NULL, late).verdict, VERDICT_EXPIRED);
		pair_close(&pair);
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
		cmocka_unit_test(test_server_generation),
		cmocka_unit_test(test_client_generation),
		cmocka_unit_test(test_list_generation),
		cmocka_unit_test(test_forgotten_peer),
		cmocka_unit_test(test_resumed_is_judged),
	};

	return cmocka_run_group_tests(tests, pair_setup, pair_teardown);
}
