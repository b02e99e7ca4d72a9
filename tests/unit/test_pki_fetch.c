/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/crl_fixture.h"
#include "tests/unit/pki_server.h"

/*
 * Revocation lists that are fetched from the distribution points of certificates.
 */

static struct pki_server server;
static _Atomic unsigned changes;

static void count_change(void *owner)
{
	assert_ptr_equal(owner, &changes);
	changes++;
}

static void fetching_start(const char *cache_folder, uint64_t timeout_ms)
{
	const struct crl_options options = {.cache_folder = cache_folder,
		.fetch_timeout_ms = timeout_ms,
		.refresh_interval_ms = 3600000,
		.on_change = count_change,
		.owner = &changes};

	crl_stop();
	changes = 0;
	assert_int_equal(crl_start(&options), 0);
}

static void wait_for_change(unsigned count)
{
	for (unsigned i = 0; i < 2000 && changes < count; i++)
		(void)usleep(10000);
	assert_true(changes >= count);
}

/* Judges until a list is no longer awaited. */
static enum verdict judge_settled(
	const struct trust *trust, struct peer *peer, bool *out_was_pending)
{
	bool pending = true;
	enum verdict verdict = VERDICT_INVALID;

	*out_was_pending = false;
	for (unsigned i = 0; i < 2000 && pending; i++) {
		verdict = trust_judge(trust, peer, PEER_IS_CLIENT, time(NULL), &pending);
		if (pending) {
			*out_was_pending = true;
			assert_int_equal(verdict, VERDICT_REVOCATION_UNKNOWN);
			(void)usleep(10000);
		}
	}
	assert_false(pending);
	return verdict;
}

/* A leaf of root whose list is at PATH of the server; cdp of further points comes first. */
static struct pki leaf_at(const char *before, const char *path)
{
	char cdp[512];
	const struct pki_options options = {.issuer = &root, .cdp = cdp};

	(void)snprintf(cdp, sizeof(cdp), "%sURI:http://127.0.0.1:%u%s", before, server.port, path);
	return pki_make(&options);
}

static void serve_list(enum list_kind kind, const struct pki *leaf)
{
	(void)write_list("served.crl", kind, &root, leaf);
	pki_server_give(&server, pki_path("served.crl"));
}

static const enum revocation rules[] = {REVOCATION_SOFT, REVOCATION_HARD, REVOCATION_STRICT};

static void test_fetched(void **state)
{
	static const struct {
		enum list_kind kind;
		enum verdict soft, hard;
	} cases[] = {
		{LIST_GOOD, V, V},
		{LIST_REVOKES, R, R},
		{LIST_EXPIRED, V, U},
		{LIST_FORGED, V, U},
		{LIST_ABSENT, V, U},
	};

	(void)state;
	pki_server_start(&server);
	for (unsigned i = 0; i < COUNT_OF(cases) * COUNT_OF(rules); i++) {
		enum revocation rule = rules[i % COUNT_OF(rules)];
		struct pki leaf = leaf_at("", "/list.crl");
		struct peer *peer = peer_with(&leaf, NULL);
		struct trust *trust = trust_of(rule, NULL, 0);
		enum verdict want = rule == REVOCATION_SOFT ? cases[i / 3].soft : cases[i / 3].hard;
		bool was_pending;
		enum verdict got;

		pki_server_give(&server, NULL);
		if (cases[i / 3].kind != LIST_ABSENT)
			serve_list(cases[i / 3].kind, &leaf);
		fetching_start(NULL, 5000);
		got = judge_settled(trust, peer, &was_pending);
		assert_true(was_pending);
		if (got != want)
			fail_msg("case %u, rule %u: %s", i / 3, rule, verdict_word(got));
		wait_for_change(1);
		trust_destroy(&trust);
		peer_release(&peer);
		pki_drop(&leaf);
	}
	crl_stop();
	pki_server_stop(&server);
}

/* The server takes its time: the verdict is pending, then it is there, fetched once. */
static void test_fetched_slowly(void **state)
{
	struct pki leaf;
	struct peer *peer;
	struct trust *trust = trust_of(REVOCATION_HARD, NULL, 0);
	struct tls_facts facts = {.is_asked = true, .purpose = PEER_IS_CLIENT, .trust = trust};
	bool pending = false;

	(void)state;
	pki_server_start(&server);
	pki_server_hold(&server, true);
	leaf = leaf_at("", "/slow.crl");
	peer = peer_with(&leaf, NULL);
	serve_list(LIST_REVOKES, &leaf);
	fetching_start(NULL, 20000);
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(trust_judge(trust, peer, PEER_IS_CLIENT, time(NULL), &pending), U);
		assert_true(pending);
		(void)usleep(1000);
	}
	assert_int_equal(changes, 0);
	/* The same as a connection sees it. */
	assert_int_equal(tls_facts_judge(&facts, peer, NULL, time(NULL)), U);
	assert_true(facts.is_pending);
	pki_server_hold(&server, false);
	wait_for_change(1);
	assert_int_equal(tls_facts_judge(&facts, peer, NULL, time(NULL)), R);
	assert_false(facts.is_pending);
	assert_int_equal(trust_judge(trust, peer, PEER_IS_CLIENT, time(NULL), &pending), R);
	assert_false(pending);
	assert_int_equal(server.requests, 1);
	crl_stop();
	trust_destroy(&trust);
	peer_release(&peer);
	pki_drop(&leaf);
	pki_server_stop(&server);
}

/* Who does not answer: pending until the time is over, then it could not be had. */
static void test_fetched_never(void **state)
{
	struct trust *hard = trust_of(REVOCATION_HARD, NULL, 0);
	struct trust *soft = trust_of(REVOCATION_SOFT, NULL, 0);
	struct pki leaf;
	struct peer *peer;
	bool was_pending;

	(void)state;
	pki_server_start(&server);
	pki_server_hold(&server, true);
	leaf = leaf_at("", "/never.crl");
	peer = peer_with(&leaf, NULL);
	fetching_start(NULL, 1000);
	assert_int_equal(judge_settled(soft, peer, &was_pending), V);
	assert_true(was_pending);
	assert_int_equal(judge_settled(hard, peer, &was_pending), U);
	wait_for_change(1);
	/* Not asked for again at once. */
	assert_int_equal(judge_settled(hard, peer, &was_pending), U);
	assert_false(was_pending);
	crl_stop();
	trust_destroy(&hard);
	trust_destroy(&soft);
	peer_release(&peer);
	pki_drop(&leaf);
	pki_server_stop(&server);
}

/* ldap: is passed over; a point without an answer is followed by the next; without any, none. */
static void test_several_points(void **state)
{
	struct trust *hard = trust_of(REVOCATION_HARD, NULL, 0);
	char dead[128];
	char only_ldap[] = "URI:ldap://127.0.0.1/cn=x?certificateRevocationList";
	const struct pki_options ldap_options = {.issuer = &root, .cdp = only_ldap};
	struct pki leaf;
	struct pki ldap = pki_make(&ldap_options);
	struct peer *peer;
	bool was_pending;

	(void)state;
	pki_server_start(&server);
	(void)snprintf(dead, sizeof(dead),
		"URI:ldap://127.0.0.1/x?y,URI:http://127.0.0.1:%u/missing,", server.port);
	leaf = leaf_at(dead, "/list.crl");
	serve_list(LIST_REVOKES, &leaf);
	fetching_start(NULL, 5000);
	peer = peer_with(&leaf, NULL);
	assert_int_equal(judge_settled(hard, peer, &was_pending), R);
	assert_int_equal(server.requests, 2);
	peer_release(&peer);
	peer = peer_with(&ldap, NULL);
	assert_int_equal(judge_settled(hard, peer, &was_pending), V);
	assert_false(was_pending);
	assert_int_equal(server.requests, 2);
	crl_stop();
	trust_destroy(&hard);
	peer_release(&peer);
	pki_drop(&leaf);
	pki_drop(&ldap);
	pki_server_stop(&server);
}

/* A stranger's certificate names a URL of its own choice: nobody goes there. */
static void test_stranger_is_not_fetched(void **state)
{
	struct trust *hard = trust_of(REVOCATION_HARD, NULL, 0);
	char cdp[128];
	struct pki_options options = {.issuer = &other, .cdp = cdp};
	struct pki leaf;
	struct peer *peer;
	bool was_pending;

	(void)state;
	pki_server_start(&server);
	(void)snprintf(cdp, sizeof(cdp), "URI:http://127.0.0.1:%u/list.crl", server.port);
	leaf = pki_make(&options);
	fetching_start(NULL, 5000);
	peer = peer_with(&leaf, &other);
	assert_int_equal(judge_settled(hard, peer, &was_pending), VERDICT_UNTRUSTED_ROOT);
	assert_false(was_pending);
	(void)usleep(100000);
	assert_int_equal(server.requests, 0);
	crl_stop();
	trust_destroy(&hard);
	peer_release(&peer);
	pki_drop(&leaf);
	pki_server_stop(&server);
}

/* What was fetched is there after a restart, without the server. */
static void test_cache(void **state)
{
	struct trust *hard = trust_of(REVOCATION_HARD, NULL, 0);
	struct pki leaf;
	struct peer *peer;
	char folder[280];
	bool was_pending;

	(void)state;
	pki_server_start(&server);
	leaf = leaf_at("", "/list.crl");
	serve_list(LIST_REVOKES, &leaf);
	(void)snprintf(folder, sizeof(folder), "%s", pki_path("cache"));
	assert_int_equal(mkdir(folder, 0700), 0);
	fetching_start(folder, 1000);
	peer = peer_with(&leaf, NULL);
	assert_int_equal(judge_settled(hard, peer, &was_pending), R);
	crl_stop();
	pki_server_stop(&server);

	peer_release(&peer);
	fetching_start(folder, 1000);
	peer = peer_with(&leaf, NULL);
	assert_int_equal(judge_settled(hard, peer, &was_pending), R);
	assert_false(was_pending);
	crl_stop();
	trust_destroy(&hard);
	peer_release(&peer);
	pki_drop(&leaf);
}

/* Servers that send on and on, or too much, or too slowly, cost a bounded time and no more. */
static void test_hostile_servers(void **state)
{
	static const struct {
		const char *path;
		enum verdict want;
		unsigned requests; /* 0: not counted */
	} cases[] = {
		{"/moved", R, 2},
		{"/loop", U, 5},
		{"/tls", U, 1},
		{"/huge", U, 1},
		{"/drip", U, 1},
	};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(cases); i++) {
		struct trust *hard = trust_of(REVOCATION_HARD, NULL, 0);
		struct pki leaf;
		struct peer *peer;
		bool was_pending;
		enum verdict got;

		pki_server_start(&server);
		leaf = leaf_at("", cases[i].path);
		serve_list(LIST_REVOKES, &leaf);
		fetching_start(NULL, 2000);
		peer = peer_with(&leaf, NULL);
		got = judge_settled(hard, peer, &was_pending);
		if (got != cases[i].want)
			fail_msg("%s: %s", cases[i].path, verdict_word(got));
		wait_for_change(1);
		if (server.requests != cases[i].requests)
			fail_msg("%s: %u requests", cases[i].path, server.requests);
		crl_stop();
		trust_destroy(&hard);
		peer_release(&peer);
		pki_drop(&leaf);
		pki_server_stop(&server);
	}
}

/* Ends while a fetch hangs and others wait. */
static void test_stop_in_fetch(void **state)
{
	struct trust *hard = trust_of(REVOCATION_HARD, NULL, 0);

	(void)state;
	pki_server_start(&server);
	pki_server_hold(&server, true);
	fetching_start(NULL, 60000);
	for (unsigned i = 0; i < 8; i++) {
		char path[32];
		struct pki leaf;
		struct peer *peer;
		bool pending;

		(void)snprintf(path, sizeof(path), "/list%u.crl", i);
		leaf = leaf_at("", path);
		peer = peer_with(&leaf, NULL);
		assert_int_equal(trust_judge(hard, peer, PEER_IS_CLIENT, time(NULL), &pending), U);
		assert_true(pending);
		peer_release(&peer);
		pki_drop(&leaf);
	}
	for (unsigned i = 0; i < 1000 && server.requests == 0; i++)
		(void)usleep(10000);
	assert_true(server.requests > 0);
	crl_stop();
	assert_int_equal(changes, 0);
	trust_destroy(&hard);
	pki_server_stop(&server);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fetched),
		cmocka_unit_test(test_fetched_slowly),
		cmocka_unit_test(test_fetched_never),
		cmocka_unit_test(test_several_points),
		cmocka_unit_test(test_stranger_is_not_fetched),
		cmocka_unit_test(test_cache),
		cmocka_unit_test(test_hostile_servers),
		cmocka_unit_test(test_stop_in_fetch),
	};

	(void)unsetenv("http_proxy");
	return cmocka_run_group_tests(tests, setup, teardown);
}
