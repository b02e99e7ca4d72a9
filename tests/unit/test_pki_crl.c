/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/pki/crl.h"
#include "relay/pki/trust.h"
#include "tests/unit/pki_fixture.h"
#include "tests/unit/pki_server.h"

/*
 * Revocation: lists in files and lists that are fetched, under each of the four rules.
 */

#define HOUR INT64_C(3600)

static struct pki root;
static struct pki middle;
static struct pki other;

static int setup(void **state)
{
	const struct pki_options ca = {.cn = "root", .is_ca = true};
	const struct pki_options sub = {
		.cn = "middle", .is_ca = true, .path_length = 1, .issuer = &root};
	const struct pki_options stranger = {.cn = "other", .is_ca = true};

	(void)state;
	pki_begin();
	assert_int_equal(peer_cache_create(8), 0);
	root = pki_make(&ca);
	middle = pki_make(&sub);
	other = pki_make(&stranger);
	(void)pki_write_one("root.pem", &root);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	pki_drop(&root);
	pki_drop(&middle);
	pki_drop(&other);
	peer_cache_destroy();
	crl_stop();
	pki_end();
	return 0;
}

static struct trust *trust_of(
	enum revocation revocation, const char *const *crl_files, unsigned crl_file_count)
{
	const struct trust_options options = {.anchors = pki_path("root.pem"),
		.crl_files = crl_files,
		.crl_file_count = crl_file_count,
		.revocation = revocation,
		.depth = -1};
	struct trust *trust;
	char error[256];

	if (trust_create(&options, &trust, error, sizeof(error)) < 0)
		fail_msg("%s", error);
	return trust;
}

static struct peer *peer_with(const struct pki *leaf, const struct pki *sent)
{
	STACK_OF(X509) *chain = sk_X509_new_null();
	struct peer *peer;

	assert_non_null(chain);
	if (sent != NULL)
		assert_true(sk_X509_push(chain, sent->certificate) > 0);
	peer = peer_of_chain(leaf->certificate, chain);
	assert_non_null(peer);
	sk_X509_free(chain);
	return peer;
}

/* What is done to the two lists, of root (covers middle) and of middle (covers the leaf). */
enum list_kind {
	LIST_ABSENT,
	LIST_GOOD,
	LIST_REVOKES,
	LIST_REVOKES_EXPIRED,
	LIST_EXPIRED,
	LIST_FUTURE,
	LIST_FORGED, /* signed by another key under the right name */
	LIST_DELTA,
	LIST_INDIRECT,
};

static const char *write_list(
	const char *name, enum list_kind kind, const struct pki *issuer, const struct pki *subject)
{
	bool is_expired = kind == LIST_EXPIRED || kind == LIST_REVOKES_EXPIRED;
	bool is_future = kind == LIST_FUTURE;
	bool revokes = kind == LIST_REVOKES || kind == LIST_REVOKES_EXPIRED;
	const struct pki_list_options options = {.issuer = issuer,
		.signer = kind == LIST_FORGED ? &other : NULL,
		.revoked = revokes ? subject : NULL,
		.this_update = is_expired  ? -9 * HOUR
			       : is_future ? HOUR
					   : -HOUR,
		.next_update = is_expired ? -HOUR : 9 * HOUR,
		.is_delta = kind == LIST_DELTA,
		.is_indirect = kind == LIST_INDIRECT};

	return pki_write_list(name, pki_list(&options));
}

struct list_case {
	enum list_kind of_root, of_middle;
	enum verdict off, soft, hard, strict;
};

static void check_rule(
	const struct list_case *this, unsigned number, enum revocation rule, const struct pki *leaf)
{
	const enum verdict want[] = {[REVOCATION_OFF] = this->off,
		[REVOCATION_SOFT] = this->soft,
		[REVOCATION_HARD] = this->hard,
		[REVOCATION_STRICT] = this->strict};
	struct peer *peer = peer_with(leaf, &middle);
	const char *files[2];
	unsigned count = 0;
	struct trust *trust;
	bool pending = true;
	enum verdict got;

	crl_stop(); /* and forget what the case before has read */
	if (this->of_root != LIST_ABSENT)
		files[count++] = write_list("of-root.crl", this->of_root, &root, &middle);
	if (this->of_middle != LIST_ABSENT)
		files[count++] = write_list("of-middle.crl", this->of_middle, &middle, leaf);
	trust = trust_of(rule, files, count);
	got = trust_judge(trust, peer, PEER_IS_CLIENT, time(NULL), &pending);
	if (got != want[rule])
		fail_msg("case %u, rule %u: %s", number, rule, verdict_word(got));
	assert_false(pending);
	assert_int_equal(trust_judge(trust, peer, PEER_IS_CLIENT, time(NULL), NULL), got);
	assert_int_equal(ERR_peek_error(), 0);
	trust_destroy(&trust);
	peer_release(&peer);
}

#define V VERDICT_VALID
#define U VERDICT_REVOCATION_UNKNOWN
#define R VERDICT_REVOKED

/* Certificates without a distribution point, lists in files. */
static void test_files(void **state)
{
	static const struct list_case cases[] = {
		{LIST_ABSENT, LIST_ABSENT, V, V, V, U},
		{LIST_GOOD, LIST_GOOD, V, V, V, V},
		{LIST_GOOD, LIST_ABSENT, V, V, V, U},
		{LIST_ABSENT, LIST_GOOD, V, V, V, U},
		{LIST_GOOD, LIST_REVOKES, V, R, R, R},
		{LIST_REVOKES, LIST_GOOD, V, R, R, R},
		{LIST_REVOKES, LIST_ABSENT, V, R, R, R},
		{LIST_ABSENT, LIST_REVOKES, V, R, R, R},
		{LIST_GOOD, LIST_EXPIRED, V, V, U, U},
		{LIST_EXPIRED, LIST_GOOD, V, V, U, U},
		{LIST_GOOD, LIST_REVOKES_EXPIRED, V, R, R, R},
		{LIST_GOOD, LIST_FUTURE, V, V, U, U},
		{LIST_GOOD, LIST_FORGED, V, V, U, U},
		{LIST_FORGED, LIST_GOOD, V, V, U, U},
		{LIST_FORGED, LIST_REVOKES, V, R, R, R},
		{LIST_GOOD, LIST_DELTA, V, V, U, U},
		{LIST_GOOD, LIST_INDIRECT, V, V, U, U},
	};
	const struct pki_options options = {.issuer = &middle};
	struct pki leaf = pki_make(&options);

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(cases); i++) {
		for (unsigned rule = REVOCATION_OFF; rule <= REVOCATION_STRICT; rule++)
			check_rule(&cases[i], i, (enum revocation)rule, &leaf);
	}
	pki_drop(&leaf);
}

/* A worse fault is told first, and a better one later than revocation. */
static void test_with_other_faults(void **state)
{
	static const struct {
		struct pki_options leaf;
		enum verdict want;
	} cases[] = {
		{{.not_before = -9 * HOUR, .not_after = -HOUR}, VERDICT_REVOKED},
		{{.eku = "codeSigning"}, VERDICT_REVOKED},
		{{.rsa_bits = 1024}, VERDICT_REVOKED},
		{{.spoiled = true}, VERDICT_SIGNATURE_FAILURE},
	};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(cases); i++) {
		struct pki_options options = cases[i].leaf;
		struct pki leaf;
		const char *file;
		struct trust *trust;
		struct peer *peer;

		crl_stop();
		options.issuer = &middle;
		leaf = pki_make(&options);
		peer = peer_with(&leaf, &middle);
		file = write_list("of-middle.crl", LIST_REVOKES, &middle, &leaf);
		trust = trust_of(REVOCATION_HARD, &file, 1);
		assert_int_equal(
			trust_judge(trust, peer, PEER_IS_CLIENT, time(NULL), NULL), cases[i].want);
		trust_destroy(&trust);
		peer_release(&peer);
		pki_drop(&leaf);
	}
}

/* The verdict that a list carries ends with the list, by the time that is asked for. */
static void test_list_ends(void **state)
{
	const struct pki_options options = {.issuer = &root};
	struct pki leaf = pki_make(&options);
	const char *file = write_list("of-root.crl", LIST_GOOD, &root, &leaf);
	struct trust *hard;
	struct peer *peer = peer_with(&leaf, NULL);
	time_t now = time(NULL);

	(void)state;
	crl_stop();
	hard = trust_of(REVOCATION_HARD, &file, 1);
	assert_int_equal(trust_judge(hard, peer, PEER_IS_CLIENT, now, NULL), V);
	assert_int_equal(trust_judge(hard, peer, PEER_IS_CLIENT, now + 8 * HOUR, NULL), V);
	assert_int_equal(trust_judge(hard, peer, PEER_IS_CLIENT, now + 10 * HOUR, NULL), U);
	assert_int_equal(trust_judge(hard, peer, PEER_IS_CLIENT, now + 8 * HOUR, NULL), V);
	assert_int_equal(trust_judge(hard, peer, PEER_IS_CLIENT, now - 2 * HOUR, NULL), U);
	trust_destroy(&hard);
	peer_release(&peer);
	pki_drop(&leaf);
}

/* Waits until the generation of the lists is another, at most ten seconds. */
static void wait_for_generation(uint64_t old)
{
	for (unsigned i = 0; i < 1000 && crl_generation() == old; i++)
		(void)usleep(10000);
	assert_int_not_equal(crl_generation(), old);
}

/* A file that is replaced is read by the thread; one that is spoiled or gone changes nothing. */
static void test_file_changes(void **state)
{
	const struct pki_options options = {.issuer = &root};
	const struct crl_options running = {
		.fetch_timeout_ms = 1000, .refresh_interval_ms = 3600000};
	struct pki leaf = pki_make(&options);
	const char *file = write_list("of-root.crl", LIST_GOOD, &root, &leaf);
	struct peer *peer = peer_with(&leaf, NULL);
	struct trust *hard;
	uint64_t generation;

	(void)state;
	crl_stop();
	assert_int_equal(crl_start(&running), 0);
	hard = trust_of(REVOCATION_HARD, &file, 1);
	assert_int_equal(trust_judge(hard, peer, PEER_IS_CLIENT, time(NULL), NULL), V);
	generation = crl_generation();
	(void)write_list("of-root.crl", LIST_REVOKES, &root, &leaf);
	wait_for_generation(generation);
	assert_int_equal(trust_judge(hard, peer, PEER_IS_CLIENT, time(NULL), NULL), R);
	assert_int_equal(unlink(file), 0);
	assert_int_equal(trust_judge(hard, peer, PEER_IS_CLIENT, time(NULL), NULL), R);
	crl_stop();
	trust_destroy(&hard);
	peer_release(&peer);
	pki_drop(&leaf);
}

/* Distribution points. */

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
	pki_server_hold(&server, false);
	wait_for_change(1);
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
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_with_other_faults),
		cmocka_unit_test(test_list_ends),
		cmocka_unit_test(test_file_changes),
		cmocka_unit_test(test_fetched),
		cmocka_unit_test(test_fetched_slowly),
		cmocka_unit_test(test_fetched_never),
		cmocka_unit_test(test_several_points),
		cmocka_unit_test(test_stranger_is_not_fetched),
		cmocka_unit_test(test_cache),
		cmocka_unit_test(test_stop_in_fetch),
	};

	(void)unsetenv("http_proxy");
	return cmocka_run_group_tests(tests, setup, teardown);
}
