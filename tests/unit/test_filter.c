/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_filter.c: relay/ctl/filter.h: which rows a filter means, what it can be narrowed by before
 * they are there, and what is said of one that cannot be read.
 */

#include "relay/ctl/filter.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char *const statuses[] = {"Active", "Ready", "Retry", NULL};

enum {
	STATUS,
	COUNT,
	ERROR,
	SIZE,
	RECEIVED,
};

static const struct filter_property properties[] = {
	[STATUS] = {"Status", FILTER_WORD, statuses},
	[COUNT] = {"MessageCount", FILTER_NUMBER, NULL},
	[ERROR] = {"LastError", FILTER_TEXT, NULL},
	[SIZE] = {"Size", FILTER_SIZE, NULL},
	[RECEIVED] = {"DateReceived", FILTER_TIME, NULL},
	{.name = NULL},
};

struct row {
	const char *status;
	int64_t count;
	const char *error;
	int64_t size;
	int64_t received_ms;
};

/* 2026-11-21T22:46:05Z */
#define NOON_MS INT64_C(1795301165000)

static const struct row row = {
	"Retry", 12, "451 4.4.0 Primary target said \"it's late\"", 10485760, NOON_MS};

static void get(const void *at, unsigned property, struct filter_value *out)
{
	const struct row *one = at;

	switch (property) {
	case STATUS:
		out->text = one->status;
		return;
	case COUNT:
		out->number = one->count;
		return;
	case ERROR:
		out->text = one->error;
		return;
	case SIZE:
		out->number = one->size;
		return;
	case RECEIVED:
		out->number = one->received_ms;
		return;
	default:
		fail();
	}
}

static struct filter filter;
static char why[FILTER_WHY_BYTES];

static void parse(const char *text)
{
	if (filter_parse(text, properties, &filter, why) != 0)
		fail_msg("%s: %s", text, why);
}

/* Filters that the row fits, and others. */
static const char *const matching[] = {
	"Status -eq 'Retry'",
	"status -EQ retry",
	"Status -eq \"RETRY\"",
	"Status -ne 'Active'",
	"Status -like 'Re*'",
	"  Status\t-eq\n'Retry'  ",
	"MessageCount -eq 12",
	"MessageCount -eq '12'",
	"MessageCount -ne 13",
	"MessageCount -gt 11",
	"MessageCount -ge 12",
	"MessageCount -lt 13",
	"MessageCount -le 12",
	"MessageCount -lt 9223372036854775807",
	"Size -eq 10MB",
	"Size -eq '10 MB'",
	"Size -eq 10240kb",
	"Size -eq 10485760B",
	"Size -ge 10485760",
	"Size -lt 1TB",
	"Size -lt 1GB",
	"DateReceived -eq 2026-11-21T22:46:05Z",
	"DateReceived -eq '2026-11-21 22:46:05'",
	"DateReceived -ge 2026-11-21",
	"DateReceived -gt 2026-11-21T22:46",
	"DateReceived -lt 2026-11-22",
	"DateReceived -ne $null",
	"LastError -ne $null",
	"LastError -like '*primary*'",
	"LastError -like '451 ?.?.? *'",
	"LastError -like '*'",
	"LastError -like '**late\"'",
	"LastError -like '*it''s late*'",
	"LastError -like \"*said \"\"it's*\"",
	"(Status -eq 'Retry')",
	"((Status -eq 'Retry'))",
	"Status -eq 'Retry' -and MessageCount -gt 10",
	"Status -eq 'Ready' -or MessageCount -gt 10",
	"Status -eq 'Ready' -or Status -eq 'Active' -or Status -eq 'Retry'",
	"(Status -eq 'Ready' -or Status -eq 'Retry') -and MessageCount -gt 10",
	"Status -eq 'Retry' -or (Status -eq 'Ready' -and MessageCount -gt 99)",
	"(Status -eq'Retry')-and(MessageCount -gt 10)",
};
static const char *const other[] = {
	"Status -eq 'Ready'",
	"Status -ne 'Retry'",
	"Status -like 'Re'",
	"MessageCount -gt 12",
	"MessageCount -lt 12",
	"MessageCount -eq 0",
	"Size -gt 10MB",
	"DateReceived -gt 2026-11-22",
	"DateReceived -eq $null",
	"LastError -eq $null",
	"LastError -eq ''",
	"LastError -like '*early*'",
	"LastError -like '?'",
	"LastError -like ''",
	"Status -eq 'Retry' -and MessageCount -gt 12",
	"(Status -eq 'Ready' -or Status -eq 'Retry') -and MessageCount -gt 12",
	"Status -eq 'Ready' -or (Status -eq 'Retry' -and MessageCount -gt 99)",
};

static void test_matches(void **state)
{
	(void)state;
	for (unsigned i = 0; i < COUNT_OF(matching); i++) {
		parse(matching[i]);
		if (!filter_matches(&filter, get, &row))
			fail_msg("%s: expected yes", matching[i]);
	}
	for (unsigned i = 0; i < COUNT_OF(other); i++) {
		parse(other[i]);
		if (filter_matches(&filter, get, &row))
			fail_msg("%s: expected no", other[i]);
	}
}

/* What never was is neither before nor after anything. */
static void test_absent(void **state)
{
	static const struct row absent = {"Ready", 0, "", 0, 0};

	(void)state;
	parse("DateReceived -lt 2030-01-01");
	assert_false(filter_matches(&filter, get, &absent));
	parse("DateReceived -ge 1970-01-01");
	assert_false(filter_matches(&filter, get, &absent));
	parse("DateReceived -eq $null -and LastError -eq $null");
	assert_true(filter_matches(&filter, get, &absent));
	parse("LastError -like '*'");
	assert_true(filter_matches(&filter, get, &absent));
}

static void test_mistakes(void **state)
{
	static const struct {
		const char *text, *why;
	} rows[] = {
		{"", "at 1: the filter ends, expected \"(\" or one of Status, MessageCount, "
		     "LastError, Size, DateReceived"},
		{"  ", "at 3: the filter ends, expected \"(\""},
		{"Stat -eq 1", "at 1: \"Stat\", expected \"(\" or one of Status,"},
		{"'Status' -eq 1", "at 1: \"Status\", expected \"(\" or one of"},
		{"Status", "at 7: the filter ends, expected one of -eq, -ne, -like"},
		{"Status -eqq 'Retry'", "at 8: \"-eqq\", expected one of -eq, -ne, -like"},
		{"Status = 'Retry'", "at 8: \"=\", expected one of -eq, -ne, -like"},
		{"Status -gt 'Retry'", "at 8: \"-gt\", expected one of -eq, -ne, -like"},
		{"LastError -le 'a'", "at 11: \"-le\", expected one of -eq, -ne, -like"},
		{"MessageCount -like '1*'",
			"at 14: \"-like\", expected one of -eq, -ne, -gt, -ge, -lt, -le"},
		{"MessageCount -and 1", "at 14: \"-and\", expected one of -eq"},
		{"Status -eq", "at 11: the filter ends, expected a value"},
		{"Status -eq (", "at 12: \"(\", expected a value"},
		{"Status -eq 'Lost'", "at 12: \"Lost\", expected one of Active, Ready, Retry"},
		{"Status -eq $null", "at 12: \"$null\", expected one of Active, Ready, Retry"},
		{"Status -eq 'Retry", "at 12: Retry, expected a quote at its end"},
		{"Status -eq 'Retry''", "at 12: Retry'', expected a quote at its end"},
		{"MessageCount -gt ten", "at 18: \"ten\", expected a whole number, not negative"},
		{"MessageCount -gt -1", "at 18: \"-1\", expected a whole number"},
		{"MessageCount -gt ''", "at 18: \"\", expected a whole number"},
		{"MessageCount -gt $null", "at 18: \"$null\", expected a whole number"},
		{"MessageCount -gt 9223372036854775808",
			"at 18: \"9223372036854775808\", expected a whole number"},
		{"Size -gt 10XB", "at 10: \"10XB\", expected a size"},
		{"Size -gt MB", "at 10: \"MB\", expected a size"},
		{"Size -gt 9999999TB", "at 10: \"9999999TB\", expected a size"},
		{"DateReceived -gt today", "at 18: \"today\", expected a time"},
		{"DateReceived -gt 2026-02-30", "at 18: \"2026-02-30\", expected a time"},
		{"DateReceived -gt 2026-13-01", "at 18: \"2026-13-01\", expected a time"},
		{"DateReceived -gt 2026-11-21T25:00",
			"at 18: \"2026-11-21T25:00\", expected a time"},
		{"DateReceived -gt 2026-11-21T22", "at 18: \"2026-11-21T22\", expected a time"},
		{"DateReceived -gt 2026-11-21T22:46:05+01",
			"at 18: \"2026-11-21T22:46:05+01\", expected a time"},
		{"DateReceived -gt 1969-12-31", "at 18: \"1969-12-31\", expected a time"},
		{"Status -eq Retry MessageCount -gt 1",
			"at 18: \"MessageCount\", expected -and, -or or the end of the filter"},
		{"Status -eq Retry)", "at 17: \")\", expected -and, -or or the end"},
		{"(Status -eq Retry", "at 18: the filter ends, expected -and, -or or \")\""},
		{"Status -eq Retry -and", "at 22: the filter ends, expected \"(\" or one of"},
		{"-and Status -eq Retry", "at 1: \"-and\", expected \"(\" or one of"},
		{"Size -gt 1 -and Size -lt 9 -or Size -eq 20",
			"at 28: \"-or\", expected parentheses"},
		{"Size -gt 1 -or Size -lt 9 -and Size -eq 20",
			"at 27: \"-and\", expected parentheses"},
		{"((((((((((((((((( Size -gt 1", "at 17: \"(\", expected no more than 16"},
		{"\x1b[2J\xff -eq 1", "at 1: \"?[2J?\", expected \"(\""},
		{"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
			"at 1: \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...\", expected"},
	};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(rows); i++) {
		memset(why, 0, sizeof(why));
		assert_int_equal(filter_parse(rows[i].text, properties, &filter, why), -EINVAL);
		if (strncmp(why, rows[i].why, strlen(rows[i].why)) != 0)
			fail_msg("%s: expected %s, got %s", rows[i].text, rows[i].why, why);
	}
}

static void test_limits(void **state)
{
	static char text[2 * FILTER_BYTES_MAX];
	size_t len = 0;

	(void)state;
	/* As many comparisons as there are, and one more. */
	for (unsigned i = 0; i < FILTER_NODES_MAX / 2; i++)
		len += (size_t)snprintf(
			text + len, sizeof(text) - len, "%sSize -ge 1", i == 0 ? "" : " -and ");
	parse(text);
	assert_true(filter_matches(&filter, get, &row));
	(void)snprintf(text + len, sizeof(text) - len, " -and Size -ge 1");
	assert_int_equal(filter_parse(text, properties, &filter, why), -EINVAL);
	assert_non_null(strstr(why, "expected no more than 64 comparisons"));
	/* The longest text. */
	(void)snprintf(text, sizeof(text), "LastError -ne '%*s'", FILTER_BYTES_MAX - 1 - 16, "x");
	assert_int_equal(strlen(text), FILTER_BYTES_MAX - 1);
	parse(text);
	assert_true(filter_matches(&filter, get, &row));
	(void)snprintf(text, sizeof(text), "LastError -ne '%*s'", FILTER_BYTES_MAX - 16, "x");
	assert_int_equal(filter_parse(text, properties, &filter, why), -EINVAL);
	assert_non_null(strstr(why, "expected at most 4095 bytes"));
}

static void test_find(void **state)
{
	(void)state;
	parse("Status -eq 'Retry' -and MessageCount -gt 10 -and (Size -gt 1KB -and Size -lt 9KB)");
	assert_string_equal(filter_find(&filter, STATUS, FILTER_EQ)->text, "Retry");
	assert_int_equal(filter_find(&filter, COUNT, FILTER_GT)->number, 10);
	assert_int_equal(filter_find(&filter, SIZE, FILTER_GT)->number, 1024);
	assert_null(filter_find(&filter, SIZE, FILTER_EQ));
	assert_null(filter_find(&filter, ERROR, FILTER_EQ));
	assert_true(filter_asks(&filter, SIZE));
	assert_false(filter_asks(&filter, ERROR));
	/* A row may match without these. */
	parse("Status -eq 'Retry' -or MessageCount -gt 10");
	assert_null(filter_find(&filter, STATUS, FILTER_EQ));
	assert_null(filter_find(&filter, COUNT, FILTER_GT));
	assert_true(filter_asks(&filter, COUNT));
	parse("Size -gt 1 -and (Status -eq 'Retry' -or MessageCount -gt 10)");
	assert_null(filter_find(&filter, STATUS, FILTER_EQ));
	assert_int_equal(filter_find(&filter, SIZE, FILTER_GT)->number, 1);
	parse("Status -ne 'Retry'");
	assert_null(filter_find(&filter, STATUS, FILTER_EQ));
	assert_non_null(filter_find(&filter, STATUS, FILTER_NE));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_matches),
		cmocka_unit_test(test_absent),
		cmocka_unit_test(test_mistakes),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_find),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
