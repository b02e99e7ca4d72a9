/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/pki/store.h"
#include "tests/unit/pki_fixture.h"
#include <errno.h>

/*
 * Our own certificates: what is known of them, and which one a connector shows (EXCHANGE 5.1
 * and 14, row 8).
 */

#define STORE_MAX 8

static struct pki root;
static struct certificate certificates[STORE_MAX];
static struct own_certificate own[STORE_MAX];
static char paths[STORE_MAX][2][256];
static unsigned own_count;

static int setup(void **state)
{
	const struct pki_options ca = {.cn = "root", .is_ca = true};

	(void)state;
	pki_begin();
	assert_int_equal(peer_cache_create(16), 0);
	root = pki_make(&ca);
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

/* Writes and loads one; whose key lies beside it says key_of, NULL for none. */
static struct own_certificate *own_add(
	const char *name, const struct pki *shown, const struct pki *key_of)
{
	struct own_certificate *out = &own[own_count];
	struct certificate *certificate = &certificates[own_count];
	char file[64];
	char error[256];

	assert_true(own_count < STORE_MAX);
	(void)snprintf(file, sizeof(file), "%s.pem", name);
	(void)snprintf(paths[own_count][0], 256, "%s", pki_write_one(file, shown));
	(void)snprintf(file, sizeof(file), "%s.key", name);
	(void)snprintf(paths[own_count][1], 256, "%s",
		key_of == NULL ? pki_path("missing.key") : pki_write_key(file, key_of));
	*certificate = (struct certificate){.name = name,
		.chain = paths[own_count][0],
		.key = paths[own_count][1],
		.is_enabled = true};
	own_count++;
	if (own_certificate_load(certificate, out, error, sizeof(error)) != 0)
		fail_msg("%s", error);
	return out;
}

static struct own_certificate *own_make(
	const char *name, const char *cn, const char *san, int64_t not_before, bool is_self_signed)
{
	const struct pki_options options = {.issuer = is_self_signed ? NULL : &root,
		.cn = cn,
		.san = san,
		.not_before = not_before,
		.not_after = not_before + 30 * PKI_DAY};
	struct pki made = pki_make(&options);
	struct own_certificate *out = own_add(name, &made, &made);

	pki_drop(&made);
	return out;
}

static void own_drop_all(void)
{
	while (own_count > 0)
		own_certificate_drop(&own[--own_count]);
}

static const char *selected(const char *fqdn)
{
	const struct own_certificate *best =
		own_certificate_select(own, own_count, fqdn, time(NULL));

	return best == NULL ? "none" : best->certificate->name;
}

static void test_select(void **state)
{
	struct own_certificate *newest;

	(void)state;
	(void)own_make("self-new", "mail.adatum.test", "DNS:mail.adatum.test", -PKI_DAY, true);
	(void)own_make("ca-old", "mail.adatum.test", "DNS:mail.adatum.test", -9 * PKI_DAY, false);
	newest = own_make("ca-new", "x", "DNS:x.test,DNS:Mail.Adatum.test", -2 * PKI_DAY, false);
	(void)own_make("ca-ended", "mail.adatum.test", NULL, -40 * PKI_DAY, false);
	(void)own_make("wild", "wild", "DNS:*.contoso.test", -PKI_DAY, false);
	(void)own_make("by-cn", "cn.adatum.test", "DNS:other.adatum.test", -PKI_DAY, true);
	assert_string_equal(selected("mail.adatum.test"), "ca-new");
	assert_string_equal(selected("MAIL.adatum.test"), "ca-new");
	assert_string_equal(selected("mx.contoso.test"), "wild");
	assert_string_equal(selected("contoso.test"), "none");
	assert_string_equal(selected("a.mx.contoso.test"), "none");
	assert_string_equal(selected("cn.adatum.test"), "by-cn");
	assert_string_equal(selected("adatum.test"), "none");
	/* Each of the things that it needs, taken away. */
	newest->has_key = false;
	assert_string_equal(selected("mail.adatum.test"), "ca-old");
	newest->has_key = true;
	newest->is_v3 = false;
	assert_string_equal(selected("mail.adatum.test"), "ca-old");
	newest->is_v3 = true;
	certificates[newest - own].is_enabled = false;
	assert_string_equal(selected("mail.adatum.test"), "ca-old");
	certificates[1].is_enabled = false;
	assert_string_equal(selected("mail.adatum.test"), "self-new");
	/* One that has ended is better than none. */
	certificates[0].is_enabled = false;
	assert_string_equal(selected("mail.adatum.test"), "ca-ended");
	certificates[3].is_enabled = false;
	assert_string_equal(selected("mail.adatum.test"), "none");
	own_drop_all();
}

/* Equal in all: the lowest name, whatever the order of the list. */
static void test_select_by_name(void **state)
{
	const struct pki_options options = {.issuer = &root, .san = "DNS:mail.adatum.test"};
	struct pki made = pki_make(&options);

	(void)state;
	(void)own_add("b", &made, &made);
	(void)own_add("a", &made, &made);
	(void)own_add("c", &made, &made);
	assert_string_equal(selected("mail.adatum.test"), "a");
	own_drop_all();
	pki_drop(&made);
}

static void test_load(void **state)
{
	const struct pki_options plain = {.issuer = &root};
	const struct pki_options alone = {.cn = "self"};
	struct pki made = pki_make(&plain);
	struct pki self = pki_make(&alone);
	const struct own_certificate *loaded;
	struct own_certificate bad;
	struct certificate none = {.name = "none"};
	char error[256];

	(void)state;
	loaded = own_add("good", &made, &made);
	assert_true(loaded->has_key && loaded->is_v3 && !loaded->is_self_signed);
	loaded = own_add("self", &self, &self);
	assert_true(loaded->has_key && loaded->is_v3 && loaded->is_self_signed);
	assert_string_equal(loaded->facts->subject, "CN=self");
	assert_false(own_add("no-key", &made, NULL)->has_key);
	assert_false(own_add("other-key", &made, &self)->has_key);
	own_drop_all();
	none.chain = pki_path("none.pem");
	none.key = pki_path("none.key");
	assert_int_equal(own_certificate_load(&none, &bad, error, sizeof(error)), -EINVAL);
	assert_null(bad.facts);
	assert_non_null(strstr(error, "none.pem"));
	none.chain = pki_write_key("only.key", &made);
	assert_int_equal(own_certificate_load(&none, &bad, error, sizeof(error)), -EINVAL);
	assert_non_null(strstr(error, "only.key"));
	own_certificate_drop(&bad);
	pki_drop(&made);
	pki_drop(&self);
}

/* A key under a password is none: nobody is asked for it. */
static void test_encrypted_key(void **state)
{
	const struct pki_options plain = {.issuer = &root};
	struct pki made = pki_make(&plain);
	char password[] = "secret";
	FILE *out;

	(void)state;
	(void)own_add("locked", &made, &made);
	own_drop_all();
	out = fopen(paths[0][1], "w");
	assert_non_null(out);
	assert_int_equal(PEM_write_PrivateKey(out, made.key, EVP_aes_128_cbc(),
				 (unsigned char *)password, 6, NULL, NULL),
		1);
	assert_int_equal(fclose(out), 0);
	assert_int_equal(own_certificate_load(&certificates[0], &own[0], password, 7), 0);
	assert_false(own[0].has_key);
	own_certificate_drop(&own[0]);
	pki_drop(&made);
}

static void test_words(void **state)
{
	(void)state;
	assert_string_equal(certificate_status_word(CERTIFICATE_VALID), "Valid");
	assert_string_equal(certificate_status_word(CERTIFICATE_PENDING_REQUEST), "PendingRequest");
	for (unsigned i = 0; i < CERTIFICATE_STATUS_COUNT; i++)
		assert_non_null(certificate_status_word(i));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_select),
		cmocka_unit_test(test_select_by_name),
		cmocka_unit_test(test_load),
		cmocka_unit_test(test_encrypted_key),
		cmocka_unit_test(test_words),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
