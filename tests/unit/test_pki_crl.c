/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/crl_fixture.h"

/*
 * Revocation lists in files, under each of the four rules. Those that are fetched are in
 * test_pki_fetch.c.
 */

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

/* Threads that judge, while the list that they need is replaced. */

static struct pki crowd_leaf;
static struct trust *crowd_trust;
static _Atomic bool crowd_is_over;

static void *crowd_main(void *arg)
{
	uintptr_t wrong = 0;

	(void)arg;
	while (!crowd_is_over) {
		X509 *leaf = X509_dup(crowd_leaf.certificate);
		struct peer *peer = peer_of_chain(leaf, NULL);
		enum verdict verdict =
			trust_judge(crowd_trust, peer, PEER_IS_CLIENT, time(NULL), NULL);

		/* Another time, so that it is not remembered. */
		(void)trust_judge(crowd_trust, peer, PEER_IS_CLIENT, time(NULL) - HOUR / 2, NULL);
		wrong += verdict != VERDICT_VALID && verdict != VERDICT_REVOKED;
		peer_release(&peer);
		X509_free(leaf);
	}
	return (void *)wrong;
}

static void test_threads(void **state)
{
	const struct pki_options options = {.issuer = &root};
	const struct crl_options running = {
		.fetch_timeout_ms = 1000, .refresh_interval_ms = 3600000};
	const char *file;
	pthread_t threads[3];

	(void)state;
	crl_stop();
	crowd_leaf = pki_make(&options);
	file = write_list("crowd.crl", LIST_GOOD, &root, &crowd_leaf);
	assert_int_equal(crl_start(&running), 0);
	crowd_trust = trust_of(REVOCATION_HARD, &file, 1);
	for (unsigned i = 0; i < COUNT_OF(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, crowd_main, NULL), 0);
	for (unsigned i = 0; i < 2; i++) {
		uint64_t generation = crl_generation();

		(void)write_list(
			"crowd.crl", i == 0 ? LIST_REVOKES : LIST_GOOD, &root, &crowd_leaf);
		wait_for_generation(generation);
	}
	crowd_is_over = true;
	for (unsigned i = 0; i < COUNT_OF(threads); i++) {
		void *wrong;

		assert_int_equal(pthread_join(threads[i], &wrong), 0);
		assert_null(wrong);
	}
	crl_stop();
	trust_destroy(&crowd_trust);
	pki_drop(&crowd_leaf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_with_other_faults),
		cmocka_unit_test(test_list_ends),
		cmocka_unit_test(test_file_changes),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
