/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/header.h"

#include "relay/base/assert.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct header_case {
	const char *name;
	const char *in;
	unsigned want_count;
	bool want_done;
	size_t want_bytes;
};

static void header_check(
	const struct header_scan *scan, const struct header_case *row, const char *how, size_t cut)
{
	if (scan->received_count != row->want_count || scan->is_done != row->want_done ||
		scan->bytes != row->want_bytes)
		fail_msg("%s, %s %zu: count %u done %d bytes %zu", row->name, how, cut,
			scan->received_count, scan->is_done, (size_t)scan->bytes);
}

static void header_check_splits(const struct header_case *row)
{
	struct span in = span_of(row->in);
	struct header_scan scan;

	for (size_t cut = 0; cut <= in.len; cut++) {
		header_scan_init(&scan, "edge.test");
		header_scan(&scan, span_head(in, cut));
		header_scan(&scan, span_skip(in, cut));
		header_check(&scan, row, "cut at", cut);
	}
	header_scan_init(&scan, "edge.test");
	for (size_t at = 0; at < in.len; at++)
		header_scan(&scan, span_head(span_skip(in, at), 1));
	header_check(&scan, row, "bytes", 0);
}

static void test_header_scan(void **state)
{
	static const struct header_case cases[] = {
		{"nothing", "", 0, false, 0},
		{"no header", "\r\nReceived: x\r\n", 0, true, 2},
		{"one", "Received: a\r\n\r\n", 1, true, 15},
		{"two", "Received: a\r\nReceived: b\r\n\r\n", 2, true, 28},
		{"any case", "RECEIVED: a\r\nreceived:b\r\nrEcEiVeD:\r\n\r\n", 3, true, 38},
		{"blanks before the colon", "Received : a\r\nReceived\t \t:\r\n\r\n", 2, true, 30},
		{"not that name", "Receive: a\r\nReceivedx: b\r\nXReceived: c\r\n", 0, false, 40},
		{"received-spf", "Received-SPF: pass\r\n", 0, false, 20},
		{"a blank inside the name", "Recei ved: a\r\n", 0, false, 14},
		{"a word behind the name", "Received x: a\r\n", 0, false, 15},
		{"a name that begins anew", "ReReceived: a\r\n", 0, false, 15},
		{"counted once a line", "Received: Received: a\r\n", 1, false, 23},
		{"a continuation line", "A: b\r\n Received: c\r\n\tReceived: d\r\n", 0, false, 34},
		{"in the body", "A: b\r\n\r\nReceived: c\r\n", 0, true, 8},
		{"behind a line that is no field", "no field\r\nReceived: a\r\n", 1, false, 23},
		{"a line of blanks ends nothing", "A: b\r\n \r\nReceived: a\r\n\r\n", 1, true, 24},
		{"bare LF ends no line", "A: b\nReceived: c\r\n", 0, false, 18},
		{"bare LFs end no header", "A: b\n\nReceived: c\r\n\r\n", 0, true, 21},
		{"bare CR ends no line", "A: b\rReceived: c\r\n", 0, false, 18},
		{"CR CR LF is a line", "A: b\r\r\nReceived: c\r\n", 1, false, 20},
		{"CR CR LF alone is not empty", "\r\r\nReceived: c\r\n", 1, false, 16},
		{"a CR at the start of a line", "\rx\r\nReceived: c\r\n", 1, false, 17},
		{"a CR inside the name", "Rece\rived: a\r\n", 0, false, 14},
		{"a line end instead of the colon", "Received\r\n: a\r\nReceived:\r\n", 1, false,
			26},
		{"a line end behind the blanks", "Received \r\n: a\r\nReceived:\r\n", 1, false, 27},
		{"a LF inside the name", "Received\n: a\r\n", 0, false, 14},
		{"unfinished", "Received", 0, false, 8},
		{"an end that is half there", "A: b\r\n\r", 0, false, 7},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++)
		header_check_splits(&cases[i]);
}

struct local_case {
	const char *name;
	const char *in;
	unsigned want;
};

static void header_check_local(const struct local_case *row)
{
	struct span in = span_of(row->in);
	struct header_scan scan;

	for (size_t cut = 0; cut <= in.len; cut++) {
		header_scan_init(&scan, "edge.test");
		header_scan(&scan, span_head(in, cut));
		header_scan(&scan, span_skip(in, cut));
		if (scan.local_count != row->want)
			fail_msg("%s, cut at %zu: %u", row->name, cut, scan.local_count);
	}
	header_scan_init(&scan, NULL);
	header_scan(&scan, in);
	assert_int_equal(scan.local_count, 0);
}

/* EXCHANGE 2.5, MaxLocalHopCount: which Received fields are our own. */
static void test_header_local_hops(void **state)
{
	static const struct local_case cases[] = {
		{"ours", "Received: from a\r\n\tby edge.test (Postern) with SMTP;\r\n\tdate\r\n",
			1},
		{"any case", "RECEIVED: FROM a BY Edge.TEST; date\r\n\r\n", 1},
		{"on one line", "Received:by edge.test;\r\n", 1},
		{"two", "Received: by edge.test;\r\nA: b\r\nReceived: by\r\n edge.test\r\n a\r\n",
			2},
		{"a comment between", "Received: by (x (y)) edge.test(z)\r\n\r\n", 1},
		{"once a field", "Received: by edge.test by edge.test ;\r\n", 1},
		{"a peer that calls itself by", "Received: from by by edge.test ;\r\n", 1},
		{"by another", "Received: from edge.test by mx.test;\r\n", 0},
		{"a longer name", "Received: by edge.test.example; a\r\n", 0},
		{"a shorter name", "Received: by edge.tes; a\r\n", 0},
		{"a longer by", "Received: bye edge.test;\r\nReceived: b edge.test;\r\n", 0},
		{"a word between", "Received: by the edge.test;\r\n", 0},
		{"in a comment", "Received: from a (by edge.test; \\) by edge.test)\r\n b\r\n", 0},
		{"in quotes", "Received: from \" by edge.test ; \\\" by edge.test \"\r\n b\r\n", 0},
		{"quotes between", "Received: by \"\" edge.test ;\r\n", 0},
		{"another field", "X-Received: by edge.test ;\r\nA: b\r\n by edge.test\r\n", 0},
		{"an open comment ends with its field",
			"Received: (\r\nReceived: by edge.test;\r\n", 1},
		{"an escaped line end", "Received: (\\\r\n ) by edge.test;\r\n", 1},
		{"a bare CR parts words", "Received: by\redge.test\r;\r\n", 1},
		{"in the body", "A: b\r\n\r\nReceived: by edge.test;\r\n", 0},
		{"unfinished", "Received: by edge.test", 0},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++)
		header_check_local(&cases[i]);
}

static void test_header_done(void **state)
{
	struct header_scan scan;

	(void)state;
	header_scan_init(&scan, "edge.test");
	header_scan(&scan, span_of("A: b\r\n\r\n"));
	header_scan(&scan, span_of("Received: c\r\n"));
	header_scan(&scan, span_make(NULL, 0));
	assert_true(scan.is_done);
	assert_int_equal(scan.bytes, 8);
	assert_int_equal(scan.received_count, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header_scan),
		cmocka_unit_test(test_header_local_hops),
		cmocka_unit_test(test_header_done),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
