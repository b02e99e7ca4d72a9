/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/pki/trust.h"
#include "tests/unit/pki_fixture.h"
#include <openssl/x509_vfy.h>

/*
 * Never weaker than OpenSSL: chains are put together and spoiled at random, and whatever is
 * Valid to us must be so to a plain X509_verify_cert() with the same anchors, purpose and time.
 */

#define ROUNDS 4000
#define ANCHORS 3
#define CAS 8
#define LEAVES 28

static struct pki cas[CAS];
static struct pki leaves[LEAVES];
static const struct pki_options ca_kinds[CAS] = {
	{.cn = "root", .is_ca = true},
	{.cn = "root", .is_ca = true}, /* the same name, another key */
	{.cn = "middle", .is_ca = true, .path_length = 1},
	{.cn = "middle", .is_ca = true, .not_before = -2 * PKI_DAY, .not_after = -PKI_DAY},
	{.cn = "server-only", .is_ca = true, .eku = "serverAuth"},
	{.cn = "no-ca"},
	{.cn = "bound", .is_ca = true, .constraints = "critical,permitted;DNS:a.test"},
	{.cn = "no-sign", .is_ca = true, .key_usage = "critical,cRLSign"},
};
static struct trust *trusts[ANCHORS];
static uint32_t seed = 20261122;

static uint32_t pick(uint32_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 17;
	seed ^= seed << 5;
	return seed % below;
}

static struct pki leaf_at_random(void)
{
	static const char *const usages[] = {
		NULL, NULL, "serverAuth,clientAuth", "clientAuth", "serverAuth", "codeSigning"};
	static const char *const names[] = {NULL, "DNS:x.a.test", "DNS:b.test"};
	struct pki_options options = {.issuer = &cas[pick(CAS)],
		.eku = usages[pick(COUNT_OF(usages))],
		.san = names[pick(COUNT_OF(names))],
		.digest = pick(8) == 0 ? "SHA1" : NULL,
		.rsa_bits = pick(8) == 0 ? 1024 : 0,
		.spoiled = pick(12) == 0};

	if (pick(6) == 0) {
		options.not_before = -PKI_DAY;
		options.not_after = pick(2) == 0 ? -3600 : 3600;
	}
	return pki_make(&options);
}

static int setup(void **state)
{
	(void)state;
	pki_begin();
	assert_int_equal(peer_cache_create(32), 0);
	for (unsigned i = 0; i < CAS; i++) {
		struct pki_options options = ca_kinds[i];

		if (i >= 2)
			options.issuer = &cas[0];
		cas[i] = pki_make(&options);
	}
	for (unsigned i = 0; i < LEAVES; i++)
		leaves[i] = leaf_at_random();
	for (unsigned i = 0; i < ANCHORS; i++) {
		const struct trust_options options = {
			.anchors = pki_write_one("anchor.pem", &cas[i]), .depth = -1};
		char error[256];

		assert_int_equal(trust_create(&options, &trusts[i], error, sizeof(error)), 0);
	}
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ANCHORS; i++)
		trust_destroy(&trusts[i]);
	for (unsigned i = 0; i < CAS; i++)
		pki_drop(&cas[i]);
	for (unsigned i = 0; i < LEAVES; i++)
		pki_drop(&leaves[i]);
	peer_cache_destroy();
	pki_end();
	return 0;
}

/* Some bytes of it changed at random; NULL if it is no certificate any more. */
static X509 *mutate(X509 *certificate)
{
	unsigned char *der = NULL;
	int len = i2d_X509(certificate, &der);
	const unsigned char *at = der;
	X509 *out;

	assert_true(len > 0);
	for (uint32_t i = 0; i <= pick(3); i++)
		der[pick((uint32_t)len)] ^= (unsigned char)(1u << pick(8));
	out = d2i_X509(NULL, &at, len);
	OPENSSL_free(der);
	ERR_clear_error();
	return out;
}

/* One of what there is, sometimes changed; owned by the caller. */
static X509 *take(X509 *certificate)
{
	X509 *out = pick(4) == 0 ? mutate(certificate) : NULL;

	if (out == NULL) {
		assert_int_equal(X509_up_ref(certificate), 1);
		out = certificate;
	}
	return out;
}

static bool plain_says_ok(
	X509 *anchor, X509 *leaf, STACK_OF(X509) * chain, bool is_client, time_t now)
{
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *ctx = X509_STORE_CTX_new();
	bool ok;

	assert_true(store != NULL && ctx != NULL);
	assert_int_equal(X509_STORE_add_cert(store, anchor), 1);
	assert_int_equal(X509_STORE_CTX_init(ctx, store, leaf, chain), 1);
	assert_int_equal(
		X509_STORE_CTX_set_default(ctx, is_client ? "ssl_client" : "ssl_server"), 1);
	X509_STORE_CTX_set_time(ctx, 0, now);
	X509_VERIFY_PARAM_set_auth_level(X509_STORE_CTX_get0_param(ctx), 2);
	ok = X509_verify_cert(ctx) == 1 && X509_STORE_CTX_get_error(ctx) == X509_V_OK;
	X509_STORE_CTX_free(ctx);
	X509_STORE_free(store);
	ERR_clear_error();
	return ok;
}

static void test_never_weaker(void **state)
{
	unsigned valid = 0;
	unsigned refused = 0;
	unsigned stricter = 0;

	(void)state;
	for (unsigned i = 0; i < ROUNDS; i++) {
		uint32_t anchor = pick(ANCHORS);
		X509 *leaf = take(pick(10) == 0 ? cas[pick(CAS)].certificate
						: leaves[pick(LEAVES)].certificate);
		STACK_OF(X509) *chain = sk_X509_new_null();
		enum peer_purpose purpose = pick(2) == 0 ? PEER_IS_CLIENT : PEER_IS_SERVER;
		time_t now = time(NULL) + (pick(4) == 0 ? PKI_DAY - 2 * PKI_DAY * pick(2) : 0);
		struct peer *peer;
		bool ours;
		bool plain;

		for (uint32_t more = 3 + pick(6); more > 0; more--)
			assert_true(sk_X509_push(chain, take(cas[pick(CAS)].certificate)) > 0);
		peer = peer_of_chain(leaf, chain);
		ours = peer != NULL &&
		       trust_judge(trusts[anchor], peer, purpose, now, NULL) == VERDICT_VALID;
		plain = plain_says_ok(
			cas[anchor].certificate, leaf, chain, purpose == PEER_IS_CLIENT, now);
		if (ours && !plain)
			fail_msg("round %u: valid to us, and not to OpenSSL", i);
		valid += ours;
		refused += !plain;
		stricter += plain && !ours;
		peer_release(&peer);
		sk_X509_pop_free(chain, X509_free);
		X509_free(leaf);
	}
	/* Else it has proved nothing. With the same level there is no reason to be stricter. */
	assert_true(valid > ROUNDS / 50 && refused > ROUNDS / 50);
	assert_true(stricter < ROUNDS / 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_never_weaker),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
