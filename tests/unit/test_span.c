/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/span.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const struct span nothing = {NULL, 0};

static void assert_span(struct span got, const char *want)
{
	assert_int_equal(got.len, strlen(want));
	if (got.len > 0)
		assert_memory_equal(got.data, want, got.len);
}

static void test_span_cut(void **state)
{
	static const struct {
		const char *in;
		size_t count;
		const char *head;
		const char *rest;
	} cases[] = {
		{"", 0, "", ""},
		{"", 3, "", ""},
		{"abc", 0, "", "abc"},
		{"abc", 1, "a", "bc"},
		{"abc", 3, "abc", ""},
		{"abc", 4, "abc", ""},
		{"abc", SIZE_MAX, "abc", ""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct span in = span_of(cases[i].in);

		assert_span(span_head(in, cases[i].count), cases[i].head);
		assert_span(span_skip(in, cases[i].count), cases[i].rest);
		/* What is cut off in two steps stays within the bytes. */
		assert_true(span_skip(in, cases[i].count).data <= in.data + in.len);
	}
	assert_int_equal(span_skip(nothing, 5).len, 0);
	assert_null(span_skip(nothing, 5).data);
	assert_int_equal(span_head(nothing, 5).len, 0);
}

static void test_span_compare(void **state)
{
	static const struct {
		const char *a;
		const char *b;
		bool equal, nocase, starts; /* a starts with b, whatever the case */
	} cases[] = {
		{"", "", true, true, true},
		{"a", "", false, false, true},
		{"", "a", false, false, false},
		{"MAIL", "MAIL", true, true, true},
		{"MAIL", "mail", false, true, true},
		{"MAIL FROM", "mail", false, false, true},
		{"MAI", "MAIL", false, false, false},
		{"[", "{", false, false, false}, /* differ in the bit that letters' cases do */
		{"\xc3\xa9", "\xc3\x89", false, false, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct span a = span_of(cases[i].a);
		struct span b = span_of(cases[i].b);

		assert_int_equal(span_equal(a, b), cases[i].equal);
		assert_int_equal(span_equal_nocase(a, b), cases[i].nocase);
		assert_int_equal(span_starts_nocase(a, b), cases[i].starts);
	}
	assert_true(span_equal(nothing, span_of("")));
	assert_true(span_equal_nocase(nothing, nothing));
	assert_true(span_equal(span_make("a\0b", 3), span_make("a\0b", 3)));
	assert_false(span_equal(span_make("a\0b", 3), span_make("a\0c", 3)));
}

static void test_span_find(void **state)
{
	(void)state;
	assert_int_equal(span_find(span_of("a=b=c"), '='), 1);
	assert_int_equal(span_find(span_of("abc"), '='), 3);
	assert_int_equal(span_find(span_make("abc", 2), 'c'), 2);
	assert_int_equal(span_find(span_make("a\0b", 3), '\0'), 1);
	assert_int_equal(span_find(nothing, 'a'), 0);
}

static void test_span_trim(void **state)
{
	static const char *const cases[][2] = {
		{"", ""}, {" \t ", ""}, {"a", "a"}, {" \ta b\t ", "a b"},
		{"a\r\n", "a\r\n"}, /* blanks only */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_span(span_trim(span_of(cases[i][0])), cases[i][1]);
	assert_int_equal(span_trim(nothing).len, 0);
}

/* One byte at each place of texts of each length, from each alignment. */
static void test_span_has_high(void **state)
{
	uint8_t text[112];

	(void)state;
	assert_false(span_has_high(nothing));
	memset(text, 0x7f, sizeof(text));
	for (size_t from = 0; from < 9; from++) {
		for (size_t len = 0; from + len < sizeof(text); len++) {
			const struct span at = span_make(text + from, len);

			text[from + len] = 0x80;
			assert_false(span_has_high(at));
			text[from + len] = 0x7f;
			for (size_t i = 0; i < len; i++) {
				text[from + i] = 0x80;
				assert_true(span_has_high(at));
				text[from + i] = 0x7f;
			}
		}
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_span_cut),
		cmocka_unit_test(test_span_compare),
		cmocka_unit_test(test_span_find),
		cmocka_unit_test(test_span_trim),
		cmocka_unit_test(test_span_has_high),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
