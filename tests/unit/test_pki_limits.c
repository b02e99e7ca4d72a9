/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/pki/trust.h"
#include "tests/unit/pki_fixture.h"

/*
 * What a stranger may cost us: long chains, many names, and entries that nobody uses. Whatever
 * is not looked at makes a certificate Invalid, never valid.
 */

#define ENTRIES 4096

static struct pki root;
static struct trust *ours;

static int setup(void **state)
{
	const struct pki_options ca = {.cn = "root", .is_ca = true};
	struct trust_options options = {.depth = -1};
	char error[256];

	(void)state;
	pki_begin();
	options.anchors = pki_path("root.pem");
	assert_int_equal(peer_cache_create(ENTRIES), 0);
	root = pki_make(&ca);
	(void)pki_write_one("root.pem", &root);
	assert_int_equal(trust_create(&options, &ours, error, sizeof(error)), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	trust_destroy(&ours);
	pki_drop(&root);
	peer_cache_destroy();
	pki_end();
	return 0;
}

static enum verdict judge(const struct pki *leaf, STACK_OF(X509) * sent)
{
	struct peer *peer = peer_of_chain(leaf->certificate, sent);
	enum verdict as_client;

	assert_non_null(peer);
	as_client = trust_judge(ours, peer, PEER_IS_CLIENT, time(NULL), NULL);
	assert_int_equal(trust_judge(ours, peer, PEER_IS_SERVER, time(NULL), NULL), as_client);
	peer_release(&peer);
	return as_client;
}

/* 32 certificates beside the leaf are a chain; more are an attack, even if they are not needed. */
static void test_long_chain(void **state)
{
	const struct pki_options of_root = {.issuer = &root};
	const struct pki_options junk_options = {.cn = "junk"};
	struct pki leaf = pki_make(&of_root);
	struct pki junk = pki_make(&junk_options);
	STACK_OF(X509) *sent = sk_X509_new_null();

	(void)state;
	for (unsigned i = 0; i < 32; i++)
		assert_true(sk_X509_push(sent, junk.certificate) > 0);
	assert_int_equal(judge(&leaf, sent), VERDICT_VALID);
	/* The leaf at the head of its own chain is not counted. */
	assert_true(sk_X509_unshift(sent, leaf.certificate) > 0);
	assert_int_equal(judge(&leaf, sent), VERDICT_VALID);
	assert_true(sk_X509_push(sent, junk.certificate) > 0);
	assert_int_equal(judge(&leaf, sent), VERDICT_INVALID);
	sk_X509_free(sent);
	pki_drop(&leaf);
	pki_drop(&junk);
}

/* Nor may it become so long with what we have ourselves: lists are looked at for 32 only. */
static void test_long_path(void **state)
{
	struct pki cas[34];
	const struct pki *list[COUNT_OF(cas) + 1] = {NULL};
	struct trust_options options = {.anchors = pki_path("path.pem"), .depth = -1};
	struct trust *trust;
	char error[256];

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(cas); i++) {
		char name[32];
		const struct pki_options ca = {
			.issuer = i == 0 ? NULL : &cas[i - 1], .cn = name, .is_ca = true};

		(void)snprintf(name, sizeof(name), "ca%u", i);
		cas[i] = pki_make(&ca);
		list[i] = &cas[i];
	}
	(void)pki_write_chain("path.pem", list);
	assert_int_equal(trust_create(&options, &trust, error, sizeof(error)), 0);
	for (unsigned i = 30; i < 33; i++) {
		/* The leaf, CA i down to CA 0: i + 2 certificates. */
		const struct pki_options of_ca = {.issuer = &cas[i]};
		struct pki leaf = pki_make(&of_ca);
		struct peer *peer = peer_of_chain(leaf.certificate, NULL);

		assert_int_equal(trust_judge(trust, peer, PEER_IS_CLIENT, time(NULL), NULL),
			i + 2 <= 32 ? VERDICT_VALID : VERDICT_INVALID);
		peer_release(&peer);
		pki_drop(&leaf);
	}
	trust_destroy(&trust);
	for (unsigned i = 0; i < COUNT_OF(cas); i++)
		pki_drop(&cas[i]);
}

/* 1,024 names are read; one with more has none, neither dNSNames nor a common name. */
static void test_too_many_names(void **state)
{
	static char san[40000];
	size_t at = 0;

	(void)state;
	for (unsigned i = 0; i < 1024; i++) {
		at += (size_t)snprintf(
			san + at, sizeof(san) - at, "%sDNS:h%u.a.test", at == 0 ? "" : ",", i);
		if (i == 1022 || i == 1023) {
			const struct pki_options options = {
				.issuer = &root, .cn = "a.test", .san = san};
			struct pki leaf = pki_make(&options);
			struct peer *peer = peer_of_chain(leaf.certificate, NULL);

			/* And the common name. */
			assert_non_null(peer);
			assert_int_equal(peer->names.dns_count, i == 1022 ? 1023 : 0);
			assert_int_equal(peer->names.common_count, i == 1022 ? 1 : 0);
			assert_int_equal(
				judge(&leaf, NULL), i == 1022 ? VERDICT_VALID : VERDICT_INVALID);
			peer_release(&peer);
			pki_drop(&leaf);
		}
	}
}

/* Large ones of which nobody makes use are not kept without end, however many entries there may be.
 */
static void test_idle_bytes(void **state)
{
	static struct pki leaves[1200];
	static char san[26000];
	const struct pki_options options = {.issuer = &root, .cn = "small"};
	STACK_OF(X509) *sent = sk_X509_new_null();
	struct pki large;
	size_t at = 0;
	unsigned kept = 0;

	(void)state;
	for (unsigned i = 0; at < sizeof(san) - 64; i++)
		at += (size_t)snprintf(
			san + at, sizeof(san) - at, "%sDNS:h%u.a.test", at == 0 ? "" : ",", i);
	large = pki_make(&(const struct pki_options){.cn = "large", .san = san});
	assert_true(i2d_X509(large.certificate, NULL) > 20000);
	assert_true(sk_X509_push(sent, large.certificate) > 0);
	for (unsigned i = 0; i < COUNT_OF(leaves); i++) {
		struct peer *peer;

		leaves[i] = pki_make(&options);
		peer = peer_of_chain(leaves[i].certificate, sent);
		assert_non_null(peer);
		peer_release(&peer);
	}
	for (unsigned i = 0; i < COUNT_OF(leaves); i++) {
		struct peer *peer = peer_of_leaf(leaves[i].certificate);

		kept += peer != NULL;
		/* The youngest are kept. */
		assert_true(peer != NULL || i < COUNT_OF(leaves) / 2);
		peer_release(&peer);
		pki_drop(&leaves[i]);
	}
	assert_true(kept < 16u * 1024 * 1024 / 20000);
	sk_X509_free(sent);
	pki_drop(&large);
}

/* Of a stranger's chain no signature is looked at: what comes of it is known before. */
static void test_stranger_costs_nothing(void **state)
{
	const struct pki_options ca = {.cn = "stranger", .is_ca = true};
	struct pki stranger = pki_make(&ca);
	const struct pki_options spoiled = {.issuer = &stranger, .spoiled = true};
	struct pki leaf = pki_make(&spoiled);
	STACK_OF(X509) *sent = sk_X509_new_null();

	(void)state;
	assert_true(sk_X509_push(sent, stranger.certificate) > 0);
	assert_int_equal(judge(&leaf, sent), VERDICT_UNTRUSTED_ROOT);
	sk_X509_free(sent);
	pki_drop(&leaf);
	pki_drop(&stranger);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_long_chain),
		cmocka_unit_test(test_long_path),
		cmocka_unit_test(test_too_many_names),
		cmocka_unit_test(test_idle_bytes),
		cmocka_unit_test(test_stranger_costs_nothing),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
