/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/stamp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define L64 "0123456789012345678901234567890123456789012345678901234567890123"

static struct stamp stamp_of(enum role role)
{
	return (struct stamp){.fqdn = "mx.adatum.test",
		.role = role,
		.domain = role == ROLE_PARTNER ? "treyresearch.test" : "",
		.tls_version = "TLSv1.3",
		.tls_cipher = "TLS_AES_256_GCM_SHA384"};
}

static void check(size_t len, const char *out, const char *want)
{
	assert_int_equal(len, strlen(want));
	assert_string_equal(out, want);
}

/* RFC 8601: one method, its result, a comment, a property. */
static void test_stamp_results(void **state)
{
	struct stamp stamp = stamp_of(ROLE_PARTNER);
	char out[STAMP_BYTES_MAX];

	(void)state;
	check(stamp_results(&stamp, out), out,
		"Authentication-Results: mx.adatum.test;\r\n"
		"\tx-domain-secure=pass (TLSv1.3, TLS_AES_256_GCM_SHA384)\r\n"
		"\tpolicy.domain=treyresearch.test\r\n");
	stamp = stamp_of(ROLE_ANONYMOUS);
	check(stamp_results(&stamp, out), out,
		"Authentication-Results: mx.adatum.test;\r\n"
		"\tx-domain-secure=none (TLSv1.3, TLS_AES_256_GCM_SHA384)\r\n");
	stamp.tls_cipher = NULL;
	check(stamp_results(&stamp, out), out,
		"Authentication-Results: mx.adatum.test;\r\n"
		"\tx-domain-secure=none (TLSv1.3, unknown)\r\n");
	stamp = stamp_of(ROLE_INTERNAL);
	stamp.tls_version = stamp.tls_cipher = NULL;
	check(stamp_results(&stamp, out), out,
		"Authentication-Results: mx.adatum.test;\r\n\tx-domain-secure=none\r\n");
}

static void test_stamp_exchange(void **state)
{
	struct stamp stamp = stamp_of(ROLE_PARTNER);
	char out[STAMP_BYTES_MAX];

	(void)state;
	check(stamp_exchange(&stamp, out), out,
		"X-MS-Exchange-Organization-AuthSource: mx.adatum.test\r\n"
		"X-MS-Exchange-Organization-AuthAs: Partner\r\n"
		"X-MS-Exchange-Organization-AuthDomain: treyresearch.test\r\n");
	stamp = stamp_of(ROLE_ANONYMOUS);
	check(stamp_exchange(&stamp, out), out,
		"X-MS-Exchange-Organization-AuthSource: mx.adatum.test\r\n"
		"X-MS-Exchange-Organization-AuthAs: Anonymous\r\n");
	stamp = stamp_of(ROLE_INTERNAL);
	check(stamp_exchange(&stamp, out), out,
		"X-MS-Exchange-Organization-AuthSource: mx.adatum.test\r\n"
		"X-MS-Exchange-Organization-AuthAs: Internal\r\n");
}

/* Everything as long as can be still fits: stamp.c would abort otherwise. */
static void test_stamp_longest(void **state)
{
	static const char name[] = L64 L64 L64 L64 L64;
	struct stamp stamp = {.fqdn = name,
		.role = ROLE_PARTNER,
		.domain = name,
		.tls_version = name,
		.tls_cipher = name};
	char out[STAMP_BYTES_MAX];

	(void)state;
	assert_true(stamp_results(&stamp, out) > 255 * 2 + 64 * 2);
	assert_true(stamp_exchange(&stamp, out) > (size_t)2 * 255);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stamp_results),
		cmocka_unit_test(test_stamp_exchange),
		cmocka_unit_test(test_stamp_longest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
