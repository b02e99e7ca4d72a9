/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/tls_pair.h"

/*
 * The verdicts on the certificates of tests/pki.sh, given by a server on its client and by a
 * client on its server, in both versions. No bad certificate ends the handshake.
 */

/* Too large for the stack; each test begins it anew. */
static struct pair pair;

static const char *const versions[] = {"TLSv1.2", "TLSv1.3"};

/* A handshake in which judge (server or not) looks at leaf for a name, with these anchors. */
static enum verdict judge(const char *version, bool is_server, const char *leaf,
	const char *anchors, const char *name, struct tls_facts *facts)
{
	/* Who shows a weak key must allow itself to; who judges stays at the default level. */
	const struct side shows = {.leaf = leaf,
		.tls_max = version,
		.ciphers = "ECDHE+AESGCM:@SECLEVEL=0",
		.anchors = "adatum-ca"};
	const struct side judges = {.tls_max = version,
		.anchors = anchors,
		.client_certificate = CLIENT_CERTIFICATE_ASK};
	struct tls_context client = side_context(is_server ? &shows : &judges, false);
	struct tls_context server = side_context(is_server ? &judges : &shows, true);
	struct end *end = is_server ? &pair.server : &pair.client;

	pair_open(&pair, &client, &server, NULL);
	if (!pair_handshake(&pair))
		fail_msg("%s %s: %s %s", version, leaf == NULL ? "nothing" : leaf,
			tls_error(&pair.client.tls), tls_error(&pair.server.tls));
	*facts = end_facts(end, name);
	pair_close(&pair);
	tls_context_destroy(&client);
	tls_context_destroy(&server);
	return facts->verdict;
}

static void test_verdicts(void **state)
{
	static const struct {
		const char *leaf;
		const char *anchors;
		const char *name;
		const char *of_client; /* what a server says of it */
		const char *of_server; /* what a client says of it; NULL: not asked */
	} cases[] = {
		{NULL, "adatum-ca", NULL, "EmptyCertificate", NULL},
		{"adatum", "adatum-ca", NULL, "Valid", "Valid"},
		{"adatum", "adatum-ca", "adatum.test", "Valid", "Valid"},
		{"adatum", "adatum-ca", "MX.Adatum.Test", "Valid", "Valid"},
		{"adatum", "adatum-ca", "treyresearch.test", "SubjectMismatch", "SubjectMismatch"},
		{"adatum", "adatum-ca", "test", "SubjectMismatch", "SubjectMismatch"},
		{"adatum", "adatum-ca", "x.mx.adatum.test", "SubjectMismatch", "SubjectMismatch"},
		{"adatum", "treyresearch-ca", NULL, "UntrustedRoot", "UntrustedRoot"},
		{"adatum", "treyresearch-ca", "other.test", "UntrustedRoot", "UntrustedRoot"},
		{"adatum", NULL, NULL, "UntrustedRoot", "UntrustedRoot"},
		{"adatum", "other-ca", NULL, "UntrustedRoot", "UntrustedRoot"},
		{"treyresearch", "treyresearch-ca", "mx.treyresearch.test", "Valid", "Valid"},
		{"localhost", "adatum-ca", "localhost", "Valid", "Valid"},
		{"adatum-rsa", "adatum-ca", "adatum.test", "Valid", "Valid"},
		{"adatum-weak", "adatum-ca", "adatum.test", "WeakKey", "WeakKey"},
		{"adatum-expired", "adatum-ca", "adatum.test", "Expired", "Expired"},
		{"adatum-future", "adatum-ca", "adatum.test", "NotYetValid", "NotYetValid"},
		{"adatum-eku", "adatum-ca", "adatum.test", "BadUsage", "BadUsage"},
		{"adatum-server", "adatum-ca", "adatum.test", "BadUsage", "Valid"},
		{"adatum-name", "adatum-ca", NULL, "Valid", "Valid"},
		{"adatum-name", "adatum-ca", "adatum.test", "SubjectMismatch", "SubjectMismatch"},
		{"self", "adatum-ca", NULL, "UntrustedRoot", "UntrustedRoot"},
		{"self", "self", NULL, "Valid", "Valid"},
		{"other", "adatum-ca", NULL, "UntrustedRoot", "UntrustedRoot"},
		{"adatum-expired", "other-ca", NULL, NULL, NULL},
	};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(cases) * 4; i++) {
		const char *version = versions[i % 2];
		bool is_server = i / 2 % 2 == 0;
		const char *leaf = cases[i / 4].leaf;
		const char *want = is_server ? cases[i / 4].of_client : cases[i / 4].of_server;
		struct tls_facts facts;
		const char *got;

		if (leaf == NULL && !is_server)
			continue;
		got = verdict_word(judge(
			version, is_server, leaf, cases[i / 4].anchors, cases[i / 4].name, &facts));
		/* With two faults either will do, but it may not pass for valid. */
		if (want == NULL)
			assert_string_not_equal(got, "Valid");
		else if (strcmp(got, want) != 0)
			fail_msg("%s, a %s judges %s for %s: %s, expected %s", version,
				is_server ? "server" : "client", leaf == NULL ? "nothing" : leaf,
				cases[i / 4].name == NULL ? "no name" : cases[i / 4].name, got,
				want);
		assert_int_equal(facts.subject[0] == '\0', leaf == NULL);
		assert_int_equal(strlen(facts.spki_sha256), leaf == NULL ? 0 : 64);
	}
}

/* Who was not asked has no certificate to be judged, even with one in its hands. */
static void test_not_asked(void **state)
{
	const struct side client_side = {.leaf = "treyresearch"};
	const struct side server_side = {.anchors = "treyresearch-ca"};
	struct tls_context client = side_context(&client_side, false);
	struct tls_context server = side_context(&server_side, true);
	struct tls_facts facts;

	(void)state;
	assert_true(client.asks_certificate);
	assert_false(server.asks_certificate);
	pair_open(&pair, &client, &server, NULL);
	assert_true(pair_handshake(&pair));
	facts = end_facts(&pair.server, "adatum.test");
	assert_int_equal(facts.verdict, VERDICT_NOT_ASKED);
	assert_string_equal(facts.subject, "");
	assert_string_equal(facts.spki_sha256, "");
	pair_close(&pair);
	tls_context_destroy(&client);
	tls_context_destroy(&server);
}

static void test_words(void **state)
{
	(void)state;
	for (unsigned i = 0; i < VERDICT_COUNT; i++) {
		assert_non_null(verdict_word(i));
		for (unsigned j = 0; j < i; j++)
			assert_string_not_equal(verdict_word(i), verdict_word(j));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_verdicts),
		cmocka_unit_test(test_not_asked),
		cmocka_unit_test(test_words),
	};

	return cmocka_run_group_tests(tests, pair_setup, pair_teardown);
}
