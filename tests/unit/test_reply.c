/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/reply.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define TEXT(literal)                                           \
	{                                                       \
		(const uint8_t *)(literal), sizeof(literal) - 1 \
	}

struct reply_case {
	const char *name;
	struct span in;
	enum reply_status want;
	unsigned want_code;
	size_t want_wire;
	struct span want_text;
};

/* With each shorter input: more, or the final answer. */
static void reply_check_splits(const struct reply_case *row)
{
	bool is_decided = false;

	for (size_t len = 0; len <= row->in.len; len++) {
		uint8_t *copy = malloc(len + 1);
		struct reply reply = {0};
		enum reply_status status;

		assert_non_null(copy);
		memcpy(copy + 1, row->in.data, len);
		status = reply_parse(span_make(copy + 1, len), &reply);
		if (status != REPLY_MORE || is_decided || len == row->in.len) {
			is_decided = true;
			if (status != row->want || reply.code != row->want_code ||
				reply.wire.len != row->want_wire ||
				!span_equal(reply.text, row->want_text))
				fail_msg("%s: %d at %zu bytes", row->name, (int)status, len);
		}
		free(copy);
	}
}

static void test_reply_parse(void **state)
{
	static const struct reply_case cases[] = {
		{"nothing", TEXT(""), REPLY_MORE, 0, 0, TEXT("")},
		{"one line", TEXT("250 ok\r\n"), REPLY_OK, 250, 8, TEXT("ok")},
		{"a code alone", TEXT("250\r\n"), REPLY_OK, 250, 5, TEXT("")},
		{"a code and a space", TEXT("354 \r\n"), REPLY_OK, 354, 6, TEXT("")},
		{"two spaces", TEXT("250  ok\r\n"), REPLY_OK, 250, 9, TEXT(" ok")},
		{"two lines", TEXT("250-a\r\n250 b\r\n"), REPLY_OK, 250, 14, TEXT("b")},
		{"an empty first line", TEXT("250-\r\n250\r\n"), REPLY_OK, 250, 11, TEXT("")},
		{"pipelined replies", TEXT("250 a\r\n550 b\r\n"), REPLY_OK, 250, 7, TEXT("a")},
		{"text of any bytes", TEXT("550 \xc3\xa9\t-\r\n"), REPLY_OK, 550, 10,
			TEXT("\xc3\xa9\t-")},
		{"an odd code", TEXT("571 no\r\n"), REPLY_OK, 571, 8, TEXT("no")},
		{"the highest code", TEXT("599 no\r\n"), REPLY_OK, 599, 8, TEXT("no")},
		{"last line missing", TEXT("250-a\r\n"), REPLY_MORE, 0, 0, TEXT("")},
		{"half an end", TEXT("250 a\r"), REPLY_MORE, 0, 0, TEXT("")},
		{"codes that differ", TEXT("250-a\r\n251 b\r\n"), REPLY_BAD, 0, 0, TEXT("")},
		{"no digits", TEXT("abc\r\n"), REPLY_BAD, 0, 0, TEXT("")},
		{"two digits", TEXT("25 a\r\n"), REPLY_BAD, 0, 0, TEXT("")},
		{"four digits", TEXT("2500 a\r\n"), REPLY_BAD, 0, 0, TEXT("")},
		{"a short line", TEXT("25\r\n"), REPLY_BAD, 0, 0, TEXT("")},
		{"an empty line", TEXT("\r\n"), REPLY_BAD, 0, 0, TEXT("")},
		{"an empty line inside", TEXT("250-a\r\n\r\n"), REPLY_BAD, 0, 0, TEXT("")},
		{"1yz", TEXT("150 a\r\n"), REPLY_BAD, 0, 0, TEXT("")},
		{"6yz", TEXT("600 a\r\n"), REPLY_BAD, 0, 0, TEXT("")},
		{"a tab behind the code", TEXT("250\ta\r\n"), REPLY_BAD, 0, 0, TEXT("")},
		{"a space before the code", TEXT(" 250 a\r\n"), REPLY_BAD, 0, 0, TEXT("")},
		{"bare LF", TEXT("250 a\n"), REPLY_BAD, 0, 0, TEXT("")},
		{"bare LF inside", TEXT("250 a\nb\r\n"), REPLY_BAD, 0, 0, TEXT("")},
		{"bare LF in the second line", TEXT("250-a\r\n250 b\n"), REPLY_BAD, 0, 0, TEXT("")},
		{"bare CR", TEXT("250 a\rb\r\n"), REPLY_BAD, 0, 0, TEXT("")},
		{"CR CR LF", TEXT("250 a\r\r\n"), REPLY_BAD, 0, 0, TEXT("")},
		{"NUL", TEXT("250 a\0b\r\n"), REPLY_BAD, 0, 0, TEXT("")},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++)
		reply_check_splits(&cases[i]);
}

/* A reply of this length, in lines of 16 bytes. */
static enum reply_status reply_of_length(size_t all_bytes)
{
	static const uint8_t line[] = "250-0123456789\r\n";
	static uint8_t in[REPLY_BYTES_MAX + 64];
	struct reply reply;

	for (size_t at = 0; at < all_bytes; at++)
		in[at] = line[at % 16];
	in[all_bytes - 13] = ' ';
	return reply_parse(span_make(in, all_bytes), &reply);
}

static void test_reply_limit(void **state)
{
	static uint8_t in[REPLY_BYTES_MAX];
	struct reply reply;

	(void)state;
	assert_int_equal(reply_of_length(REPLY_BYTES_MAX), REPLY_OK);
	assert_int_equal(reply_of_length(REPLY_BYTES_MAX + 16), REPLY_BAD);
	/* A line that never ends: its code is all that must be right at first. */
	memset(in, '2', sizeof(in));
	in[3] = ' ';
	assert_int_equal(reply_parse(span_make(in, sizeof(in) - 2), &reply), REPLY_MORE);
	assert_int_equal(reply_parse(span_make(in, sizeof(in)), &reply), REPLY_BAD);
}

static void test_reply_parse_ehlo(void **state)
{
	static const struct {
		const char *name;
		const char *in;
		unsigned want;
		uint64_t want_size;
		const char *want_domain;
	} cases[] = {
		{"one line", "250 mx.example\r\n", 0, 0, "mx.example"},
		{"a greeting", "250-mx.example Hello [192.0.2.1]\r\n250 DSN\r\n", EHLO_DSN, 0,
			"mx.example"},
		{"no domain", "250-\r\n250 DSN\r\n", EHLO_DSN, 0, ""},
		{"a domain is no keyword", "250-SIZE 5\r\n250 DSN\r\n", EHLO_DSN, 0, "SIZE"},
		{"a code alone", "250\r\n", 0, 0, ""},
		{"all",
			"250-m\r\n250-SIZE 37748736\r\n250-PIPELINING\r\n250-DSN\r\n"
			"250-ENHANCEDSTATUSCODES\r\n250-STARTTLS\r\n250-8BITMIME\r\n"
			"250-BINARYMIME\r\n250-CHUNKING\r\n250 SMTPUTF8\r\n",
			511, 37748736, "m"},
		{"any case", "250-m\r\n250-StartTls\r\n250 size 12\r\n", EHLO_STARTTLS | EHLO_SIZE,
			12, "m"},
		{"unknown ones", "250-m\r\n250-X-FOO bar\r\n250-\r\n250 AUTH LOGIN\r\n", 0, 0, "m"},
		{"keywords that begin alike", "250-m\r\n250-STARTTLSX\r\n250 SIZ\r\n", 0, 0, "m"},
		{"SIZE alone", "250-m\r\n250 SIZE\r\n", EHLO_SIZE, 0, "m"},
		{"SIZE with no number", "250-m\r\n250 SIZE x\r\n", EHLO_SIZE, 0, "m"},
		{"SIZE 0", "250-m\r\n250 SIZE 0\r\n", EHLO_SIZE, 0, "m"},
		{"SIZE over all bounds", "250-m\r\n250 SIZE 99999999999999999999999\r\n", EHLO_SIZE,
			UINT64_MAX, "m"},
		{"blanks at the end", "250-m \r\n250-DSN \r\n250 SIZE  7 \r\n",
			EHLO_DSN | EHLO_SIZE, 7, "m"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct ehlo_offer offer;
		struct reply reply;

		assert_int_equal(reply_parse(span_of(cases[i].in), &reply), REPLY_OK);
		reply_parse_ehlo(&reply, &offer);
		if (offer.keywords != cases[i].want || offer.size_max != cases[i].want_size ||
			!span_equal(offer.domain, span_of(cases[i].want_domain)))
			fail_msg("%s: keywords %u", cases[i].name, offer.keywords);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reply_parse),
		cmocka_unit_test(test_reply_limit),
		cmocka_unit_test(test_reply_parse_ehlo),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
