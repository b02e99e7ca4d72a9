/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/pki/trust.h"
#include "tests/unit/pki_fixture.h"
#include <errno.h>
#include <pthread.h>

/*
 * What is read from a certificate, who is remembered how long, and the sets that are made
 * of a policy.
 */

#define CACHE_ENTRIES 4

static struct pki root;

static int setup(void **state)
{
	const struct pki_options ca = {.cn = "root", .is_ca = true};

	(void)state;
	pki_begin();
	assert_int_equal(peer_cache_create(CACHE_ENTRIES), 0);
	root = pki_make(&ca);
	(void)pki_write_one("root.pem", &root);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	pki_drop(&root);
	peer_cache_destroy();
	pki_end();
	return 0;
}

static struct pki leaf_of(const char *cn, const char *san)
{
	const struct pki_options options = {.issuer = &root, .cn = cn, .san = san};

	return pki_make(&options);
}

static void test_facts(void **state)
{
	const struct pki_options options = {.issuer = &root,
		.cn = "mx.adatum.test",
		.san = "DNS:adatum.test,IP:192.0.2.1,DNS:*.Adatum.test,email:a@adatum.test",
		.serial = 0x1234abcd};
	struct pki leaf = pki_make(&options);
	struct peer *peer = peer_of_chain(leaf.certificate, NULL);
	unsigned char digest[EVP_MAX_MD_SIZE];
	char hex[2 * EVP_MAX_MD_SIZE + 1];

	(void)state;
	assert_non_null(peer);
	assert_string_equal(peer->subject, "CN=mx.adatum.test");
	assert_string_equal(peer->issuer, "CN=root");
	assert_string_equal(peer->serial, "1234ABCD");
	assert_string_equal(peer->names_text, "adatum.test;*.Adatum.test");
	assert_int_equal(peer->names.dns_count, 2);
	assert_true(span_equal(peer->names.dns[1], span_of("*.Adatum.test")));
	assert_int_equal(peer->names.common_count, 1);
	assert_true(span_equal(peer->names.common[0], span_of("mx.adatum.test")));
	assert_true(peer->not_before < time(NULL) && time(NULL) < peer->not_after);
	assert_int_equal(X509_digest(leaf.certificate, EVP_sha1(), digest, NULL), 1);
	for (size_t i = 0; i < 20; i++)
		(void)snprintf(hex + 2 * i, 3, "%02X", digest[i]);
	assert_string_equal(peer->thumbprint, hex);
	for (size_t i = 0; i < 32; i++)
		(void)snprintf(hex + 2 * i, 3, "%02x", peer->spki[i]);
	assert_string_equal(peer->spki_sha256, hex);
	peer_release(&peer);
	pki_drop(&leaf);
}

static void add_dns(GENERAL_NAMES *names, const char *data, int len)
{
	GENERAL_NAME *name = GENERAL_NAME_new();
	ASN1_IA5STRING *text = ASN1_IA5STRING_new();

	assert_int_equal(ASN1_STRING_set(text, data, len), 1);
	GENERAL_NAME_set0_value(name, GEN_DNS, text);
	assert_true(sk_GENERAL_NAME_push(names, name) > 0);
}

/* Names are handed on as they stand there, for names.h to refuse. */
static void test_odd_names(void **state)
{
	struct pki leaf = leaf_of("a", NULL);
	GENERAL_NAMES *names = GENERAL_NAMES_new();
	struct peer *peer;

	(void)state;
	add_dns(names, "adatum.test\0.evil.test", 22);
	add_dns(names, "", 0);
	add_dns(names, "a b\xff", 4);
	assert_int_equal(X509_add1_ext_i2d(leaf.certificate, NID_subject_alt_name, names, 0, 0), 1);
	assert_true(X509_sign(leaf.certificate, root.key, EVP_sha256()) > 0);
	GENERAL_NAMES_free(names);
	peer = peer_of_chain(leaf.certificate, NULL);
	assert_non_null(peer);
	assert_int_equal(peer->names.dns_count, 3);
	assert_true(span_equal(peer->names.dns[0], span_make("adatum.test\0.evil.test", 22)));
	assert_int_equal(peer->names.dns[1].len, 0);
	assert_int_equal(peer->names.dns[2].len, 4);
	assert_string_equal(peer->names_text, "adatum.test?.evil.test;;a?b?");
	assert_false(names_have(&peer->names, "adatum.test"));
	peer_release(&peer);
	pki_drop(&leaf);
}

/* Alternative names that cannot be read are not "none": else the CN would count. */
static void test_unreadable_names(void **state)
{
	struct pki leaf = leaf_of("adatum.test", NULL);
	ASN1_OCTET_STRING *junk = ASN1_OCTET_STRING_new();
	X509_EXTENSION *extension;

	(void)state;
	assert_int_equal(ASN1_OCTET_STRING_set(junk, (const unsigned char *)"\x30\x05\x82", 3), 1);
	extension = X509_EXTENSION_create_by_NID(NULL, NID_subject_alt_name, 0, junk);
	assert_int_equal(X509_add_ext(leaf.certificate, extension, -1), 1);
	assert_true(X509_sign(leaf.certificate, root.key, EVP_sha256()) > 0);
	assert_null(peer_of_chain(leaf.certificate, NULL));
	assert_int_equal(ERR_peek_error(), 0);
	X509_EXTENSION_free(extension);
	ASN1_OCTET_STRING_free(junk);
	pki_drop(&leaf);
}

/* More names than the text has room for: the list is whole, the text is cut between two. */
static void test_many_names(void **state)
{
	static char san[20000];
	struct pki leaf;
	struct peer *peer;
	size_t at = 0;

	(void)state;
	for (unsigned i = 0; i < 500; i++)
		at += (size_t)snprintf(san + at, sizeof(san) - at, "%sDNS:host%u.adatum.test",
			at == 0 ? "" : ",", i);
	leaf = leaf_of("a", san);
	peer = peer_of_chain(leaf.certificate, NULL);
	assert_non_null(peer);
	assert_int_equal(peer->names.dns_count, 500);
	assert_true(span_equal(peer->names.dns[499], span_of("host499.adatum.test")));
	at = strlen(peer->names_text);
	assert_true(at < sizeof(peer->names_text) && at > 900);
	assert_string_equal(peer->names_text + at - 12, ".adatum.test");
	peer_release(&peer);
	pki_drop(&leaf);
}

/* The same leaf with another chain is another entry; by the leaf alone the last used is found. */
static void test_leaf_and_chain(void **state)
{
	struct pki leaf = leaf_of("a", NULL);
	STACK_OF(X509) *chain = sk_X509_new_null();
	struct peer *alone;
	struct peer *with_root;
	struct peer *again;
	struct peer *found;

	(void)state;
	assert_null(peer_of_leaf(leaf.certificate));
	assert_true(sk_X509_push(chain, root.certificate) > 0);
	alone = peer_of_chain(leaf.certificate, NULL);
	with_root = peer_of_chain(leaf.certificate, chain);
	assert_ptr_not_equal(alone, with_root);
	found = peer_of_leaf(leaf.certificate);
	assert_ptr_equal(found, with_root);
	peer_release(&found);
	again = peer_of_chain(leaf.certificate, NULL);
	assert_ptr_equal(again, alone);
	found = peer_of_leaf(leaf.certificate);
	assert_ptr_equal(found, alone);
	peer_release(&found);
	peer_release(&again);
	/* The leaf at the head of its own chain is not counted twice. */
	assert_true(sk_X509_unshift(chain, leaf.certificate) > 0);
	again = peer_of_chain(leaf.certificate, chain);
	assert_ptr_equal(again, with_root);
	found = peer_hold(again);
	peer_release(&again);
	peer_release(&found);
	peer_release(&alone);
	peer_release(&with_root);
	peer_release(&with_root);
	sk_X509_free(chain);
	pki_drop(&leaf);
}

/* Those that nobody uses go, oldest first; those in use stay, however many. */
static void test_eviction(void **state)
{
	struct pki leaves[3 * CACHE_ENTRIES];
	struct peer *peers[3 * CACHE_ENTRIES];
	struct peer *found;

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(leaves); i++) {
		leaves[i] = leaf_of("a", NULL);
		peers[i] = peer_of_chain(leaves[i].certificate, NULL);
	}
	for (unsigned i = 0; i < COUNT_OF(leaves); i++) {
		found = peer_of_leaf(leaves[i].certificate);
		assert_ptr_equal(found, peers[i]);
		peer_release(&found);
	}
	for (unsigned i = 0; i < COUNT_OF(leaves); i++)
		peer_release(&peers[i]);
	for (unsigned i = 0; i < COUNT_OF(leaves); i++) {
		bool is_kept = i >= COUNT_OF(leaves) - CACHE_ENTRIES;

		found = peer_of_leaf(leaves[i].certificate);
		assert_int_equal(found != NULL, is_kept);
		peer_release(&found);
	}
	/* Used again, it is the youngest. */
	found = peer_of_leaf(leaves[COUNT_OF(leaves) - CACHE_ENTRIES].certificate);
	peer_release(&found);
	for (unsigned i = 0; i < CACHE_ENTRIES - 1; i++) {
		found = peer_of_chain(leaves[i].certificate, NULL);
		peer_release(&found);
	}
	found = peer_of_leaf(leaves[COUNT_OF(leaves) - CACHE_ENTRIES].certificate);
	assert_non_null(found);
	peer_release(&found);
	assert_null(peer_of_leaf(leaves[COUNT_OF(leaves) - 1].certificate));
	for (unsigned i = 0; i < COUNT_OF(leaves); i++)
		pki_drop(&leaves[i]);
}

/* Threads that take, judge and let go of the same few peers, more than are kept. */

static struct pki crowd[2 * CACHE_ENTRIES];
static struct trust *crowd_trust;

static void *crowd_main(void *arg)
{
	unsigned seed = *(const unsigned *)arg;
	uintptr_t wrong = 0;

	for (unsigned i = 0; i < 400; i++) {
		struct peer *peer;
		X509 *leaf;

		seed = seed * 1103515245 + 12345;
		/* Each handshake has a copy of its own. */
		leaf = X509_dup(crowd[(seed >> 16) % COUNT_OF(crowd)].certificate);
		peer = peer_of_chain(leaf, NULL);
		X509_free(leaf);
		if (peer == NULL || trust_judge(crowd_trust, peer, PEER_IS_CLIENT, time(NULL),
					    NULL) != VERDICT_VALID)
			wrong++;
		peer_release(&peer);
	}
	return (void *)wrong;
}

static void test_threads(void **state)
{
	const struct trust_options options = {.anchors = pki_path("root.pem"), .depth = -1};
	pthread_t threads[4];
	unsigned seeds[4] = {1, 2, 3, 4};
	char error[256];

	(void)state;
	assert_int_equal(trust_create(&options, &crowd_trust, error, sizeof(error)), 0);
	for (unsigned i = 0; i < COUNT_OF(crowd); i++)
		crowd[i] = leaf_of("a", "DNS:a.test");
	for (unsigned i = 0; i < COUNT_OF(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, crowd_main, &seeds[i]), 0);
	for (unsigned i = 0; i < COUNT_OF(threads); i++) {
		void *wrong;

		assert_int_equal(pthread_join(threads[i], &wrong), 0);
		assert_null(wrong);
	}
	for (unsigned i = 0; i < COUNT_OF(crowd); i++)
		pki_drop(&crowd[i]);
	trust_destroy(&crowd_trust);
}

/* Sets. */

static void test_sets(void **state)
{
	const char *anchors = pki_path("root.pem");
	struct pin pin = {{1, 2, 3}};
	struct partner partners[] = {{.name = "trey", .line = 3, .trust_anchors = anchors},
		{.name = "pinned", .line = 9, .spki_pins = &pin, .spki_pin_count = 1}};
	struct receive_connector receive[] = {
		{.name = "in"}, {.name = "asks", .tls_settings = {.trust_anchors = anchors}}};
	struct send_connector send[] = {
		{.name = "out", .tls_settings = {.spki_pins = &pin, .spki_pin_count = 1}}};
	struct policy policy = {.file = "x.conf",
		.partners = partners,
		.partner_count = 2,
		.receive_connectors = receive,
		.receive_connector_count = 2,
		.send_connectors = send,
		.send_connector_count = 1};
	struct trust_set *set = NULL;
	struct trust_set *next = NULL;
	char *text = NULL;
	size_t bytes = 0;
	FILE *errors = open_memstream(&text, &bytes);

	(void)state;
	assert_int_equal(trust_set_create(&policy, errors, &set), 0);
	assert_non_null(set->partners[0]);
	assert_non_null(set->partners[1]);
	assert_null(set->receive[0]);
	assert_non_null(set->receive[1]);
	assert_non_null(set->send[0]);
	assert_int_equal(trust_set_create(&policy, errors, &next), 0);
	assert_true(next->generation > set->generation);
	trust_set_destroy(&next);
	trust_set_destroy(&set);
	assert_null(set);
	assert_int_equal(fflush(errors), 0);
	assert_int_equal(bytes, 0);
	/* All mistakes are told, not the first only. */
	partners[0].trust_anchors = "/nonexistent/a.pem";
	receive[1].tls_settings.trust_anchors = "/nonexistent/b.pem";
	receive[1].line = 7;
	assert_int_equal(trust_set_create(&policy, errors, &set), -EINVAL);
	assert_null(set);
	assert_int_equal(fclose(errors), 0);
	assert_string_equal(text,
		"x.conf:3: partner \"trey\": /nonexistent/a.pem: No such file or directory, "
		"expected certificates in PEM\n"
		"x.conf:7: receive-connector \"asks\": /nonexistent/b.pem: No such file or "
		"directory, expected certificates in PEM\n");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_facts),
		cmocka_unit_test(test_odd_names),
		cmocka_unit_test(test_unreadable_names),
		cmocka_unit_test(test_many_names),
		cmocka_unit_test(test_leaf_and_chain),
		cmocka_unit_test(test_eviction),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_sets),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
