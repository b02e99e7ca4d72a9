/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/pki/trust.h"
#include "tests/unit/pki_fixture.h"
#include <errno.h>

/*
 * Verdicts: every fault that a chain may have, in both roles, and who remembers what for whom.
 * Revocation is in test_pki_crl.c.
 */

#define HOUR INT64_C(3600)

static struct pki root;
static struct pki middle;
static struct pki other; /* another CA, of another trust */
static struct trust *ours;
static struct trust *theirs;

static struct trust *trust_of(const char *anchors)
{
	const struct trust_options options = {.anchors = anchors, .depth = -1};
	struct trust *trust;
	char error[256];

	if (trust_create(&options, &trust, error, sizeof(error)) < 0)
		fail_msg("%s", error);
	return trust;
}

static int setup(void **state)
{
	const struct pki_options ca = {.cn = "root", .is_ca = true};
	const struct pki_options sub = {.cn = "middle", .is_ca = true, .path_length = 1};
	const struct pki_options stranger = {.cn = "other", .is_ca = true};
	struct pki_options of_root = sub;

	(void)state;
	pki_begin();
	assert_int_equal(peer_cache_create(8), 0);
	root = pki_make(&ca);
	other = pki_make(&stranger);
	of_root.issuer = &root;
	middle = pki_make(&of_root);
	ours = trust_of(pki_write_one("root.pem", &root));
	theirs = trust_of(pki_write_one("other.pem", &other));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	trust_destroy(&ours);
	trust_destroy(&theirs);
	pki_drop(&root);
	pki_drop(&middle);
	pki_drop(&other);
	peer_cache_destroy();
	pki_end();
	return 0;
}

static enum verdict judge_at(const struct trust *trust, const struct pki *leaf,
	const struct pki *sent, enum peer_purpose purpose, time_t now)
{
	struct peer *peer = peer_with(leaf, sent);
	bool pending = true;
	enum verdict verdict = trust_judge(trust, peer, purpose, now, &pending);

	assert_false(pending);
	/* Once more, from memory. */
	assert_int_equal(trust_judge(trust, peer, purpose, now, NULL), verdict);
	peer_release(&peer);
	assert_null(peer);
	assert_int_equal(ERR_peek_error(), 0);
	return verdict;
}

static void test_verdicts(void **state)
{
	static const struct {
		const char *name;
		struct pki_options leaf;
		bool lacks_middle;
		enum verdict as_client, as_server;
	} cases[] = {
		{"good", {.eku = "serverAuth,clientAuth"}, false, VERDICT_VALID, VERDICT_VALID},
		{"no usage named", {0}, false, VERDICT_VALID, VERDICT_VALID},
		{"client only", {.eku = "clientAuth"}, false, VERDICT_VALID, VERDICT_BAD_USAGE},
		{"server only", {.eku = "serverAuth"}, false, VERDICT_BAD_USAGE, VERDICT_VALID},
		{"signs code", {.eku = "codeSigning"}, false, VERDICT_BAD_USAGE, VERDICT_BAD_USAGE},
		{"key usage without signature", {.key_usage = "critical,cRLSign"}, false,
			VERDICT_BAD_USAGE, VERDICT_BAD_USAGE},
		{"expired", {.not_before = -9 * HOUR, .not_after = -HOUR}, false, VERDICT_EXPIRED,
			VERDICT_EXPIRED},
		{"not yet valid", {.not_before = HOUR, .not_after = 9 * HOUR}, false,
			VERDICT_NOT_YET_VALID, VERDICT_NOT_YET_VALID},
		{"no intermediate", {0}, true, VERDICT_UNTRUSTED_ROOT, VERDICT_UNTRUSTED_ROOT},
		{"weak key", {.rsa_bits = 1024}, false, VERDICT_WEAK_KEY, VERDICT_WEAK_KEY},
		{"RSA 2048", {.rsa_bits = 2048}, false, VERDICT_VALID, VERDICT_VALID},
		{"SHA-1", {.digest = "SHA1"}, false, VERDICT_WEAK_KEY, VERDICT_WEAK_KEY},
		{"spoiled", {.spoiled = true}, false, VERDICT_SIGNATURE_FAILURE,
			VERDICT_SIGNATURE_FAILURE},
		{"spoiled and expired",
			{.spoiled = true, .not_before = -9 * HOUR, .not_after = -HOUR}, false,
			VERDICT_SIGNATURE_FAILURE, VERDICT_SIGNATURE_FAILURE},
		{"untrusted and expired", {.not_before = -9 * HOUR, .not_after = -HOUR}, true,
			VERDICT_UNTRUSTED_ROOT, VERDICT_UNTRUSTED_ROOT},
		{"expired, of wrong usage",
			{.eku = "codeSigning", .not_before = -9 * HOUR, .not_after = -HOUR}, false,
			VERDICT_EXPIRED, VERDICT_EXPIRED},
		{"weak, of wrong usage", {.eku = "codeSigning", .rsa_bits = 1024}, false,
			VERDICT_BAD_USAGE, VERDICT_BAD_USAGE},
	};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(cases); i++) {
		struct pki_options options = cases[i].leaf;
		const struct pki *sent = cases[i].lacks_middle ? NULL : &middle;
		struct pki leaf;
		enum verdict as_client;
		enum verdict as_server;

		options.issuer = &middle;
		leaf = pki_make(&options);
		as_client = judge_at(ours, &leaf, sent, PEER_IS_CLIENT, time(NULL));
		as_server = judge_at(ours, &leaf, sent, PEER_IS_SERVER, time(NULL));
		if (as_client != cases[i].as_client || as_server != cases[i].as_server)
			fail_msg("%s: client %s, server %s", cases[i].name, verdict_word(as_client),
				verdict_word(as_server));
		pki_drop(&leaf);
	}
}

/* Self-signed, of another CA, or with an intermediate of the same name and another key. */
static void test_strangers(void **state)
{
	const struct pki_options plain = {.cn = "self"};
	struct pki_options of_other = {.issuer = &other};
	struct pki_options fake_ca = {.cn = "middle", .is_ca = true};
	struct pki self = pki_make(&plain);
	struct pki stranger = pki_make(&of_other);
	struct pki fake = pki_make(&fake_ca);
	struct pki_options of_fake = {.issuer = &fake};
	struct pki forged = pki_make(&of_fake);

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		enum peer_purpose purpose = i == 0 ? PEER_IS_CLIENT : PEER_IS_SERVER;
		time_t now = time(NULL);

		assert_int_equal(judge_at(ours, &self, NULL, purpose, now), VERDICT_UNTRUSTED_ROOT);
		assert_int_equal(
			judge_at(ours, &stranger, NULL, purpose, now), VERDICT_UNTRUSTED_ROOT);
		assert_int_equal(judge_at(theirs, &stranger, NULL, purpose, now), VERDICT_VALID);
		assert_int_not_equal(judge_at(ours, &forged, &fake, purpose, now), VERDICT_VALID);
		assert_int_not_equal(judge_at(ours, &forged, &middle, purpose, now), VERDICT_VALID);
		/* To send the root along proves nothing. */
		assert_int_equal(
			judge_at(ours, &stranger, &other, purpose, now), VERDICT_UNTRUSTED_ROOT);
	}
	pki_drop(&self);
	pki_drop(&stranger);
	pki_drop(&fake);
	pki_drop(&forged);
}

/* A self-signed certificate that is an anchor itself is valid, and nothing that it has signed. */
static void test_anchor_itself(void **state)
{
	const struct pki_options plain = {.cn = "self"};
	struct pki self = pki_make(&plain);
	const struct pki_options of_self = {.issuer = &self};
	struct pki child = pki_make(&of_self);
	struct trust *trust = trust_of(pki_write_one("self.pem", &self));

	(void)state;
	assert_int_equal(judge_at(trust, &self, NULL, PEER_IS_CLIENT, time(NULL)), VERDICT_VALID);
	assert_int_equal(
		judge_at(trust, &child, NULL, PEER_IS_CLIENT, time(NULL)), VERDICT_BAD_USAGE);
	trust_destroy(&trust);
	pki_drop(&self);
	pki_drop(&child);
}

/* An intermediate as the only anchor is no root: no partial chain. */
static void test_no_partial_chain(void **state)
{
	const struct pki_options options = {.issuer = &middle};
	struct pki leaf = pki_make(&options);
	struct trust *trust = trust_of(pki_write_one("middle.pem", &middle));

	(void)state;
	assert_int_equal(
		judge_at(trust, &leaf, NULL, PEER_IS_CLIENT, time(NULL)), VERDICT_UNTRUSTED_ROOT);
	trust_destroy(&trust);
	pki_drop(&leaf);
}

static void test_name_constraints(void **state)
{
	const struct pki_options ca = {.cn = "bound",
		.is_ca = true,
		.issuer = &root,
		.constraints = "critical,permitted;DNS:adatum.test"};
	struct pki bound = pki_make(&ca);
	const struct pki_options inside = {.issuer = &bound, .san = "DNS:mx.adatum.test"};
	const struct pki_options outside = {.issuer = &bound, .san = "DNS:contoso.test"};
	struct pki in = pki_make(&inside);
	struct pki out = pki_make(&outside);

	(void)state;
	assert_int_equal(judge_at(ours, &in, &bound, PEER_IS_CLIENT, time(NULL)), VERDICT_VALID);
	assert_int_equal(judge_at(ours, &out, &bound, PEER_IS_CLIENT, time(NULL)), VERDICT_INVALID);
	pki_drop(&bound);
	pki_drop(&in);
	pki_drop(&out);
}

/* An intermediate that may sign leaves only has made another intermediate. */
static void test_path_length(void **state)
{
	const struct pki_options ca = {.cn = "low", .is_ca = true, .issuer = &middle};
	struct pki low = pki_make(&ca);
	const struct pki_options options = {.issuer = &low};
	struct pki leaf = pki_make(&options);
	STACK_OF(X509) *chain = sk_X509_new_null();
	struct peer *peer;

	(void)state;
	assert_true(sk_X509_push(chain, low.certificate) > 0);
	assert_true(sk_X509_push(chain, middle.certificate) > 0);
	peer = peer_of_chain(leaf.certificate, chain);
	assert_non_null(peer);
	assert_int_equal(
		trust_judge(ours, peer, PEER_IS_SERVER, time(NULL), NULL), VERDICT_INVALID);
	peer_release(&peer);
	sk_X509_free(chain);
	pki_drop(&low);
	pki_drop(&leaf);
}

static void test_depth(void **state)
{
	const struct pki_options leaf_options = {.issuer = &middle};
	struct pki leaf = pki_make(&leaf_options);
	struct trust_options options = {.anchors = pki_path("root.pem"), .depth = 0};
	struct trust *trust;
	char error[256];

	(void)state;
	assert_int_equal(trust_create(&options, &trust, error, sizeof(error)), 0);
	assert_int_not_equal(
		judge_at(trust, &leaf, &middle, PEER_IS_CLIENT, time(NULL)), VERDICT_VALID);
	trust_destroy(&trust);
	options.depth = 1;
	assert_int_equal(trust_create(&options, &trust, error, sizeof(error)), 0);
	assert_int_equal(
		judge_at(trust, &leaf, &middle, PEER_IS_CLIENT, time(NULL)), VERDICT_VALID);
	trust_destroy(&trust);
	pki_drop(&leaf);
}

/* What one trust has found out is not asked by another, whoever comes first. */
static void test_verdict_of_one_trust(void **state)
{
	const struct pki_options of_ours = {.issuer = &root};
	struct pki leaf = pki_make(&of_ours);
	struct peer *peer = peer_with(&leaf, NULL);

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(
			trust_judge(ours, peer, PEER_IS_CLIENT, time(NULL), NULL), VERDICT_VALID);
		assert_int_equal(trust_judge(theirs, peer, PEER_IS_CLIENT, time(NULL), NULL),
			VERDICT_UNTRUSTED_ROOT);
	}
	peer_release(&peer);
	pki_drop(&leaf);
}

/* A remembered verdict ends with the certificate, and does not hold before its time. */
static void test_verdict_ends(void **state)
{
	const struct pki_options options = {
		.issuer = &root, .not_before = HOUR, .not_after = 2 * HOUR};
	struct pki leaf = pki_make(&options);
	struct peer *peer = peer_with(&leaf, NULL);
	int64_t begin = peer->not_before;
	int64_t end = peer->not_after;
	static const struct {
		bool from_end;
		int64_t offset;
		enum verdict want;
	} steps[] = {
		{false, -1, VERDICT_NOT_YET_VALID},
		{false, 0, VERDICT_VALID},
		{false, 1, VERDICT_VALID},
		{true, -1, VERDICT_VALID},
		{true, 0, VERDICT_EXPIRED},
		{true, 1, VERDICT_EXPIRED},
		{true, -1, VERDICT_VALID},
		{false, -1, VERDICT_NOT_YET_VALID},
	};

	(void)state;
	assert_int_equal(end - begin, HOUR);
	for (unsigned i = 0; i < COUNT_OF(steps); i++) {
		time_t at = (steps[i].from_end ? end : begin) + steps[i].offset;
		enum verdict got = trust_judge(ours, peer, PEER_IS_CLIENT, at, NULL);

		if (got != steps[i].want)
			fail_msg("step %u: %s", i, verdict_word(got));
	}
	peer_release(&peer);
	pki_drop(&leaf);
}

/* An intermediate or an anchor that ends sooner ends the verdict too. */
static void test_verdict_ends_with_issuer(void **state)
{
	const struct pki_options ca = {
		.cn = "short", .is_ca = true, .not_before = -HOUR, .not_after = HOUR};
	struct pki short_root = pki_make(&ca);
	const struct pki_options options = {.issuer = &short_root};
	struct pki leaf = pki_make(&options);
	struct trust *trust = trust_of(pki_write_one("short.pem", &short_root));
	struct peer *peer = peer_with(&leaf, NULL);
	time_t now = time(NULL);

	(void)state;
	assert_int_equal(trust_judge(trust, peer, PEER_IS_CLIENT, now, NULL), VERDICT_VALID);
	assert_int_equal(
		trust_judge(trust, peer, PEER_IS_CLIENT, now + 2 * HOUR, NULL), VERDICT_EXPIRED);
	peer_release(&peer);
	trust_destroy(&trust);
	pki_drop(&leaf);
	pki_drop(&short_root);
}

static struct trust *trust_with_pins(
	const char *anchors, const struct peer *const *peers, unsigned count)
{
	struct pin pins[4];
	const struct trust_options options = {
		.anchors = anchors, .pins = pins, .pin_count = count, .depth = -1};
	struct trust *trust;
	char error[256];

	for (unsigned i = 0; i < count; i++)
		memcpy(pins[i].bytes, peers[i]->spki, PIN_BYTES);
	assert_int_equal(trust_create(&options, &trust, error, sizeof(error)), 0);
	return trust;
}

/* Pins alone: direct trust. With anchors: both must hold. With nothing: nobody. */
static void test_pins(void **state)
{
	const struct pki_options plain = {
		.cn = "self", .not_before = -9 * HOUR, .not_after = -HOUR};
	const struct pki_options of_ours = {.issuer = &root};
	struct pki old = pki_make(&plain);
	struct pki leaf = pki_make(&of_ours);
	struct peer *expired = peer_with(&old, NULL);
	struct peer *good = peer_with(&leaf, NULL);
	const struct peer *const both[] = {good, expired};
	struct trust *first = trust_with_pins(NULL, both, 1);
	struct trust *second = trust_with_pins(NULL, both, 2);
	struct trust *chained = trust_with_pins(pki_path("root.pem"), both, 2);
	struct trust *other_pin = trust_with_pins(pki_path("root.pem"), both + 1, 1);
	struct trust *nobody = trust_with_pins(NULL, both, 0);
	time_t now = time(NULL);

	(void)state;
	assert_int_equal(trust_judge(first, good, PEER_IS_CLIENT, now, NULL), VERDICT_VALID);
	assert_int_equal(
		trust_judge(first, expired, PEER_IS_CLIENT, now, NULL), VERDICT_PIN_MISMATCH);
	assert_int_equal(trust_judge(second, expired, PEER_IS_CLIENT, now, NULL), VERDICT_VALID);
	assert_int_equal(trust_judge(second, good, PEER_IS_SERVER, now, NULL), VERDICT_VALID);
	assert_int_equal(trust_judge(chained, good, PEER_IS_CLIENT, now, NULL), VERDICT_VALID);
	assert_int_equal(
		trust_judge(chained, expired, PEER_IS_CLIENT, now, NULL), VERDICT_UNTRUSTED_ROOT);
	assert_int_equal(
		trust_judge(other_pin, good, PEER_IS_CLIENT, now, NULL), VERDICT_PIN_MISMATCH);
	assert_int_equal(
		trust_judge(nobody, good, PEER_IS_CLIENT, now, NULL), VERDICT_UNTRUSTED_ROOT);
	assert_int_equal(trust_judge(ours, NULL, PEER_IS_CLIENT, now, NULL), VERDICT_EMPTY);
	trust_destroy(&first);
	trust_destroy(&second);
	trust_destroy(&chained);
	trust_destroy(&other_pin);
	trust_destroy(&nobody);
	peer_release(&expired);
	peer_release(&good);
	pki_drop(&old);
	pki_drop(&leaf);
}

static void test_bad_files(void **state)
{
	static const char *const texts[] = {
		"", "no PEM\n", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"};
	struct trust *trust = NULL;
	char error[256];

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(texts) + 2; i++) {
		const char *path = i > COUNT_OF(texts) ? pki_path("root.pem") : pki_path("bad.pem");
		const char *const lists[] = {pki_path("bad.pem")};
		const struct trust_options options = {.anchors = path,
			.crl_files = lists,
			.crl_file_count = i > COUNT_OF(texts) ? 1 : 0,
			.depth = -1};

		if (i < COUNT_OF(texts)) {
			FILE *out = fopen(path, "w");

			assert_non_null(out);
			assert_true(fputs(texts[i], out) >= 0);
			assert_int_equal(fclose(out), 0);
		} else {
			(void)unlink(pki_path("bad.pem"));
		}
		error[0] = '\0';
		assert_int_equal(trust_create(&options, &trust, error, sizeof(error)), -EINVAL);
		assert_null(trust);
		assert_non_null(strstr(error, pki_path("bad.pem")));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_verdicts),
		cmocka_unit_test(test_strangers),
		cmocka_unit_test(test_anchor_itself),
		cmocka_unit_test(test_no_partial_chain),
		cmocka_unit_test(test_name_constraints),
		cmocka_unit_test(test_path_length),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_verdict_of_one_trust),
		cmocka_unit_test(test_verdict_ends),
		cmocka_unit_test(test_verdict_ends_with_issuer),
		cmocka_unit_test(test_pins),
		cmocka_unit_test(test_bad_files),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
