/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/pki/trust.h"
#include "tests/unit/pki_fixture.h"

/*
 * Certificates of rare kinds: other keys and signatures, old versions, extensions that nobody
 * knows or that stand there twice, and paths of which one is good.
 */

static struct pki root;
static struct trust *ours;

static int setup(void **state)
{
	const struct pki_options ca = {.cn = "root", .is_ca = true, .rsa_bits = 2048};
	struct trust_options options = {.depth = -1};
	char error[256];

	(void)state;
	pki_begin();
	assert_int_equal(peer_cache_create(8), 0);
	root = pki_make(&ca);
	options.anchors = pki_write_one("root.pem", &root);
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

/* The verdict for both roles, which is the same. */
static enum verdict judge(const struct pki *leaf, const struct pki *a, const struct pki *b)
{
	STACK_OF(X509) *sent = sk_X509_new_null();
	struct peer *peer;
	enum verdict verdict;

	if (a != NULL)
		assert_true(sk_X509_push(sent, a->certificate) > 0);
	if (b != NULL)
		assert_true(sk_X509_push(sent, b->certificate) > 0);
	peer = peer_of_chain(leaf->certificate, sent);
	assert_non_null(peer);
	verdict = trust_judge(ours, peer, PEER_IS_CLIENT, time(NULL), NULL);
	assert_int_equal(trust_judge(ours, peer, PEER_IS_SERVER, time(NULL), NULL), verdict);
	peer_release(&peer);
	sk_X509_free(sent);
	assert_int_equal(ERR_peek_error(), 0);
	return verdict;
}

/* A leaf below a CA below the root. */
static enum verdict judge_below(const struct pki *middle)
{
	struct pki leaf = pki_make(&(const struct pki_options){.issuer = middle});
	enum verdict verdict = judge(&leaf, middle, NULL);

	pki_drop(&leaf);
	return verdict;
}

/* And decoded again: OpenSSL remembers what extensions there were. */
static void sign_again(struct pki *pki)
{
	X509 *fresh;

	assert_true(X509_sign(pki->certificate, root.key, EVP_sha256()) > 0);
	fresh = X509_dup(pki->certificate);
	assert_non_null(fresh);
	X509_free(pki->certificate);
	pki->certificate = fresh;
}

static void test_weak(void **state)
{
	static const struct pki_options kinds[] = {
		{.rsa_bits = 1024}, {.digest = "MD5"}, {.digest = "SHA1"}};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(kinds); i++) {
		struct pki_options options = kinds[i];
		struct pki made;

		options.issuer = &root;
		options.cn = "middle";
		made = pki_make(&options);
		assert_int_equal(judge(&made, NULL, NULL), VERDICT_WEAK_KEY);
		pki_drop(&made);
		options.is_ca = true;
		made = pki_make(&options);
		assert_int_equal(judge_below(&made), VERDICT_WEAK_KEY);
		pki_drop(&made);
	}
}

/* A leaf with that key; it replaces the one of the fixture. */
static enum verdict judge_key(EVP_PKEY *key)
{
	struct pki leaf = pki_make(&(const struct pki_options){.issuer = &root});
	enum verdict verdict;

	assert_non_null(key);
	EVP_PKEY_free(leaf.key);
	leaf.key = key;
	assert_int_equal(X509_set_pubkey(leaf.certificate, key), 1);
	sign_again(&leaf);
	verdict = judge(&leaf, NULL, NULL);
	pki_drop(&leaf);
	return verdict;
}

static void test_keys(void **state)
{
	(void)state;
	assert_int_equal(judge_key(EVP_EC_gen("P-224")), VERDICT_VALID);
	assert_int_equal(judge_key(EVP_EC_gen("P-521")), VERDICT_VALID);
	assert_int_equal(judge_key(EVP_EC_gen("prime192v1")), VERDICT_WEAK_KEY);
	assert_int_equal(judge_key(EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")), VERDICT_VALID);
	assert_int_equal(judge_key(EVP_PKEY_Q_keygen(NULL, NULL, "ED448")), VERDICT_VALID);
}

/* Signed by a CA with RSA-PSS; by one with SHA-1 in its parameters. */
static void test_pss(void **state)
{
	struct pki middle = pki_make(&(const struct pki_options){
		.issuer = &root, .cn = "middle", .is_ca = true, .rsa_bits = 2048});

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct pki leaf = pki_make(&(const struct pki_options){.issuer = &middle});
		EVP_MD_CTX *ctx = EVP_MD_CTX_new();
		EVP_PKEY_CTX *pss = NULL;

		assert_int_equal(EVP_DigestSignInit(ctx, &pss, i == 0 ? EVP_sha256() : EVP_sha1(),
					 NULL, middle.key),
			1);
		assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(pss, RSA_PKCS1_PSS_PADDING), 1);
		assert_true(X509_sign_ctx(leaf.certificate, ctx) > 0);
		assert_int_equal(
			judge(&leaf, &middle, NULL), i == 0 ? VERDICT_VALID : VERDICT_WEAK_KEY);
		EVP_MD_CTX_free(ctx);
		pki_drop(&leaf);
	}
	pki_drop(&middle);
}

/* Before version 3 nothing says that it is a CA. */
static void test_version_1(void **state)
{
	struct pki middle = pki_make(
		&(const struct pki_options){.issuer = &root, .cn = "middle", .is_ca = true});
	struct pki leaf = pki_make(&(const struct pki_options){.issuer = &middle});

	(void)state;
	assert_int_equal(judge(&leaf, &middle, NULL), VERDICT_VALID);
	while (X509_get_ext_count(middle.certificate) > 0)
		X509_EXTENSION_free(X509_delete_ext(middle.certificate, 0));
	assert_int_equal(X509_set_version(middle.certificate, X509_VERSION_1), 1);
	sign_again(&middle);
	assert_int_equal(judge(&leaf, &middle, NULL), VERDICT_BAD_USAGE);
	pki_drop(&leaf);
	pki_drop(&middle);
}

static void test_extensions(void **state)
{
	static const unsigned char null[] = {5, 0};
	static const int twice[] = {NID_ext_key_usage, NID_basic_constraints, NID_key_usage};

	(void)state;
	for (unsigned i = 0; i < 2 + COUNT_OF(twice); i++) {
		struct pki leaf = pki_make(&(const struct pki_options){
			.issuer = &root, .eku = "clientAuth,serverAuth"});
		ASN1_OBJECT *unknown = OBJ_txt2obj("1.3.6.1.4.1.55555.1", 1);
		ASN1_OCTET_STRING *text = ASN1_OCTET_STRING_new();
		X509_EXTENSION *extension;

		assert_int_equal(ASN1_OCTET_STRING_set(text, null, sizeof(null)), 1);
		if (i < 2) /* the second is critical */
			extension = X509_EXTENSION_create_by_OBJ(NULL, unknown, (int)i, text);
		else
			extension = X509_EXTENSION_dup(X509_get_ext(leaf.certificate,
				X509_get_ext_by_NID(leaf.certificate, twice[i - 2], -1)));
		assert_int_equal(X509_add_ext(leaf.certificate, extension, -1), 1);
		sign_again(&leaf);
		if (i == 0)
			assert_int_equal(judge(&leaf, NULL, NULL), VERDICT_VALID);
		else
			assert_int_not_equal(judge(&leaf, NULL, NULL), VERDICT_VALID);
		X509_EXTENSION_free(extension);
		ASN1_OCTET_STRING_free(text);
		ASN1_OBJECT_free(unknown);
		pki_drop(&leaf);
	}
}

/* Two certificates of one CA, with the same key: the one that is over does not stand in the way. */
static void test_other_path(void **state)
{
	const struct pki_options options = {.issuer = &root, .cn = "middle", .is_ca = true};
	struct pki good = pki_make(&options);
	struct pki over = pki_make(&options);
	struct pki leaf = pki_make(&(const struct pki_options){.issuer = &good});

	(void)state;
	assert_int_equal(X509_set_pubkey(over.certificate, good.key), 1);
	X509_EXTENSION_free(X509_delete_ext(over.certificate,
		X509_get_ext_by_NID(over.certificate, NID_subject_key_identifier, -1)));
	pki_set_dates(over.certificate, -9 * PKI_DAY, -PKI_DAY);
	sign_again(&over);
	assert_int_equal(judge(&leaf, &over, NULL), VERDICT_EXPIRED);
	assert_int_equal(judge(&leaf, &over, &good), VERDICT_VALID);
	assert_int_equal(judge(&leaf, &good, &over), VERDICT_VALID);
	pki_drop(&good);
	pki_drop(&over);
	pki_drop(&leaf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_weak),
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_pss),
		cmocka_unit_test(test_version_1),
		cmocka_unit_test(test_extensions),
		cmocka_unit_test(test_other_path),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
