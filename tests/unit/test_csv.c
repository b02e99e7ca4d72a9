/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/csv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

static struct csv csv;
static char out[4096];

static void note(enum csv_status status)
{
	size_t len = strlen(out);

	if (status == CSV_BAD)
		(void)snprintf(out + len, sizeof(out) - len, "!/");
	if (status != CSV_ROW)
		return;
	for (unsigned i = 0; i < csv.field_count; i++) {
		len = strlen(out);
		(void)snprintf(out + len, sizeof(out) - len, "%s%s", csv_field(&csv, i),
			i + 1 == csv.field_count ? "/" : "|");
	}
}

/* Each row as "a|b/", a bad one as "!/"; the input comes in pieces of that size. */
static const char *rows(struct span in, size_t piece)
{
	out[0] = '\0';
	csv_init(&csv);
	while (in.len > 0) {
		struct span part = span_head(in, piece);

		in = span_skip(in, part.len);
		while (part.len > 0)
			note(csv_next(&csv, &part));
	}
	note(csv_end(&csv));
	note(csv_end(&csv));
	return out;
}

static void test_rows(void **state)
{
	static const struct {
		const char *in, *want;
	} cases[] = {
		{"", ""},
		{"a", "a/"},
		{"a,b\r\nc,d\r\n", "a|b/c|d/"},
		{"a,b\nc,d", "a|b/c|d/"},
		{"\r\n\na\r\n\r\n", "a/"},
		{",\r\n,,\n", "|/||/"},
		{"\"a,b\",\"c\"\"d\",\"\"\r\n", "a,b|c\"d|/"},
		{"\"\"\"\"\n", "\"/"},
		{"a\"b\r\nc\r\n", "!/c/"},
		{"\"a\"b\r\nc\r\n", "!/c/"},
		{"a,\"open\r\nc,d\r\n", "!/c|d/"},
		{"a,\"open", "!/"},
		{"a\rb\r\nc\n", "!/c/"},
		{"\ra\nc\n", "!/c/"},
		{"\r\r\nc\n", "!/c/"},
		{"\"a\r\n", "!/"},
		{"\"a\rb\"\nc\n", "!/c/"},
		{"\"a\"\r\n", "a/"},
		{"#Fields: a,b\r\n1,2\r\n", "#Fields: a|b/1|2/"},
		{" a , b \n", " a | b /"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++)
		for (size_t piece = 1; piece <= strlen(cases[i].in) + 1; piece++)
			assert_string_equal(rows(span_of(cases[i].in), piece), cases[i].want);
	assert_string_equal(rows(span_make("a\0b\n", 4), 4), "a?b/");
}

static void test_limits(void **state)
{
	static char in[CSV_ROW_BYTES_MAX + 8];
	struct span text = span_make(in, 0);

	(void)state;
	/* The longest row has room for its terminator only. */
	for (size_t len = CSV_ROW_BYTES_MAX - 3; len < CSV_ROW_BYTES_MAX + 4; len++) {
		memset(in, 'x', len);
		memcpy(in + len, "\nb\n", 3);
		text = span_make(in, len + 3);
		csv_init(&csv);
		assert_int_equal(
			csv_next(&csv, &text), len < CSV_ROW_BYTES_MAX - 1 ? CSV_ROW : CSV_BAD);
		assert_int_equal(csv_next(&csv, &text), CSV_ROW);
		assert_string_equal(csv_field(&csv, 0), "b");
		assert_int_equal(csv_next(&csv, &text), CSV_MORE);
	}
	for (size_t fields = CSV_FIELDS_MAX - 1; fields <= CSV_FIELDS_MAX + 2; fields++) {
		memset(in, ',', fields - 1);
		in[fields - 1] = '\n';
		text = span_make(in, fields);
		csv_init(&csv);
		assert_int_equal(
			csv_next(&csv, &text), fields <= CSV_FIELDS_MAX ? CSV_ROW : CSV_BAD);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows), cmocka_unit_test(test_limits)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
