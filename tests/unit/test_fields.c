/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/fields.h"

#include "relay/base/assert.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct fields_case {
	const char *name;
	const char *in;
	const char *message_id;
	const char *subject;
	bool is_done;
	bool is_utf8;
	size_t bytes;
};

static void check(const struct fields *fields, const struct fields_case *row, size_t cut)
{
	if (!span_equal(fields_message_id(fields), span_of(row->message_id)) ||
		!span_equal(fields_subject(fields), span_of(row->subject)) ||
		fields->is_done != row->is_done || fields->is_utf8 != row->is_utf8 ||
		fields->bytes != row->bytes)
		fail_msg("%s, cut at %zu: \"%.*s\" \"%.*s\" done %d utf8 %d bytes %zu", row->name,
			cut, (int)fields_message_id(fields).len, fields->message_id,
			(int)fields_subject(fields).len, fields->subject, fields->is_done,
			fields->is_utf8, (size_t)fields->bytes);
}

static const struct fields_case cases[] = {
	{"nothing", "", "", "", false, false, 0},
	{"no header", "\r\nSubject: x\r\n", "", "", true, false, 2},
	{"both", "Subject: a b\r\nMessage-ID: <1@x>\r\n\r\nbody", "<1@x>", "a b", true, false, 35},
	{"any case, no blank", "SUBJECT:a\r\nmessage-id:<1@x>\r\n\r\n", "<1@x>", "a", true, false,
		31},
	{"blanks before the colon", "Subject \t: a\r\n\r\n", "", "a", true, false, 16},
	{"folded", "Subject: a\r\n b\r\n\tc\r\nX: y\r\n\r\n", "", "a b c", true, false, 28},
	{"folded in front", "Message-ID:\r\n <1@x>\r\n\r\n", "<1@x>", "", true, false, 23},
	{"the first counts", "Subject: a\r\nSubject: b\r\n\r\n", "", "a", true, false, 26},
	{"an empty one counts", "Subject:\r\nSubject: b\r\n\r\n", "", "", true, false, 24},
	{"other names", "Subjects: a\r\nSub: b\r\nX-Subject: c\r\nMessage-I: d\r\n\r\n", "", "",
		true, false, 51},
	{"a word behind the name", "Subject x: a\r\n\r\n", "", "", true, false, 16},
	{"in the body", "A: b\r\n\r\nSubject: x\r\n", "", "", true, false, 8},
	{"a continuation of another", "A: b\r\n Subject: c\r\n\r\n", "", "", true, false, 21},
	{"controls",
		"Subject: a\001\x7f"
		"b\r\n\r\n",
		"", "ab", true, false, 17},
	{"bare CR and LF", "Subject: a\rb\nc\r\n\r\n", "", "abc", true, false, 18},
	{"UTF-8", "Subject: \xc3\xa4\r\n\r\n", "", "\xc3\xa4", true, true, 15},
	{"UTF-8 in the body only", "A: b\r\n\r\n\xc3\xa4", "", "", true, false, 8},
	{"UTF-8 elsewhere", "A: \xc3\xa4\r\n\r\n", "", "", true, true, 9},
	{"not ended", "Subject: a", "", "a", false, false, 10},
};

static void test_cases(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct span in = span_of(cases[i].in);
		struct fields fields;

		for (size_t cut = 0; cut <= in.len; cut++) {
			fields_init(&fields);
			fields_scan(&fields, span_head(in, cut));
			fields_scan(&fields, span_skip(in, cut));
			check(&fields, &cases[i], cut);
		}
		fields_init(&fields);
		for (size_t at = 0; at < in.len; at++)
			fields_scan(&fields, span_head(span_skip(in, at), 1));
		check(&fields, &cases[i], SIZE_MAX);
	}
}

/* A NUL is neither the end of a name nor part of a value. */
static void test_nul(void **state)
{
	static const char in[] = "Subject\0: a\r\nSubject: b\0c\r\n\r\n";
	struct fields fields;

	(void)state;
	fields_init(&fields);
	fields_scan(&fields, span_make(in, sizeof(in) - 1));
	assert_true(span_equal(fields_subject(&fields), span_of("bc")));
}

static void scan_long(struct fields *fields, const char *name, const char *piece, size_t count)
{
	fields_init(fields);
	fields_scan(fields, span_of(name));
	for (size_t i = 0; i < count; i++)
		fields_scan(fields, span_of(piece));
	fields_scan(fields, span_of(" \r\n\r\n"));
	assert_true(fields->is_done);
}

/* What is too long for a Message-ID is none; a Subject is cut, and not inside a character. */
static void test_long(void **state)
{
	struct fields fields;

	(void)state;
	scan_long(&fields, "Message-ID: ", "x", FIELDS_MESSAGE_ID_BYTES);
	assert_int_equal(fields_message_id(&fields).len, FIELDS_MESSAGE_ID_BYTES);
	scan_long(&fields, "Message-ID: ", "x", FIELDS_MESSAGE_ID_BYTES + 1);
	assert_int_equal(fields_message_id(&fields).len, 0);
	scan_long(&fields, "Subject: ", "x", FIELDS_SUBJECT_BYTES + 1);
	assert_int_equal(fields_subject(&fields).len, FIELDS_SUBJECT_BYTES);
	/* 83 characters of three bytes are 249. */
	scan_long(&fields, "Subject: ", "\xe2\x82\xac", FIELDS_SUBJECT_BYTES);
	assert_int_equal(fields_subject(&fields).len, 249);
	scan_long(&fields, "Subject: a", "\xc3\xa4", FIELDS_SUBJECT_BYTES);
	assert_int_equal(fields_subject(&fields).len, 249);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cases),
		cmocka_unit_test(test_nul),
		cmocka_unit_test(test_long),
	};

	return cmocka_run_group_tests_name("fields", tests, NULL, NULL);
}
