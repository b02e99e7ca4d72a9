/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/format.h"

#include "relay/base/span.h"
#include <limits.h>
#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>

#define ROOM 200

/* The same as the C library's, in a buffer of each length, with nothing written behind it. */
#define CHECK(...)                                                              \
	do {                                                                    \
		for (size_t bytes = 1; bytes <= ROOM; bytes++) {                \
			char want[ROOM + 1];                                    \
			char got[ROOM + 1];                                     \
			int len = snprintf(want, bytes, __VA_ARGS__);           \
			memset(got, '#', sizeof(got));                          \
			assert_true(len >= 0);                                  \
			assert_int_equal(format_print(got, bytes, __VA_ARGS__), \
				(size_t)len < bytes ? (size_t)len : bytes - 1); \
			assert_string_equal(got, want);                         \
			assert_int_equal(got[bytes], '#');                      \
		}                                                               \
	} while (0)

static void test_known(void **state)
{
	(void)state;
	CHECK("%s", "");
	CHECK("words alone");
	CHECK("session=%s event=%s", "0a1b", "message");
	CHECK("%u %u %lu %zu", 0U, UINT_MAX, ULONG_MAX, SIZE_MAX);
	CHECK("%d %d %d", 0, INT_MIN, INT_MAX);
	CHECK("%c%c%%%s", 'x', 'y', "%s");
	CHECK("%.*s|%.*s|%.*s", 3, "abcdef", 0, "abcdef", 9, "abcdef");
	CHECK("%.255s|%.64s|%.2s|%.s", "a host", "TLSv1.3", "abcdef", "none");
	CHECK("code=%u from=%s bytes=%lu role=%s", 250U, "<a@b.test>", 4096UL, "partner");
}

/* Left to the C library, from the start, whatever came before. */
static void test_unknown(void **state)
{
	(void)state;
	CHECK("%s %03u %x", "a", 7U, 255U);
	CHECK("%ld %5d %-4s|", -5L, 42, "b");
	CHECK("%.*s %llu", 2, "abc", 77ULL);
	CHECK("%.3u", 5U);
}

static void test_cut(void **state)
{
	char out[4];

	(void)state;
	assert_int_equal(format_print(out, 1, "abc"), 0);
	assert_string_equal(out, "");
	assert_int_equal(format_print(out, sizeof(out), "%s%s", "ab", "cd"), 3);
	assert_string_equal(out, "abc");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known),
		cmocka_unit_test(test_unknown),
		cmocka_unit_test(test_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
