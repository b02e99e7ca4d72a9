/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/firewall.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define OURS "edge.adatum.test"
#define BOTH (FIREWALL_ORGANIZATION | FIREWALL_STAMP)
#define MESSAGE_BYTES_MAX 4096

struct firewall_case {
	const char *name;
	const char *in;
	const char *want;
	unsigned removed;
};

struct firewall_out {
	size_t len;
	uint8_t bytes[MESSAGE_BYTES_MAX];
};

static void out_add(struct firewall_out *out, struct span piece)
{
	assert_true(out->len + piece.len <= sizeof(out->bytes));
	if (piece.len > 0)
		memcpy(out->bytes + out->len, piece.data, piece.len);
	out->len += piece.len;
}

static void firewall_give(struct firewall *firewall, struct firewall_out *out, struct span piece)
{
	while (piece.len > 0)
		out_add(out, firewall_next(firewall, &piece));
}

static void firewall_check(const struct firewall *firewall, const struct firewall_out *out,
	const struct firewall_case *row, const char *how, size_t cut)
{
	struct span got = span_make(out->bytes, out->len);

	if (!span_equal(got, span_of(row->want)) || firewall->removed != row->removed)
		fail_msg("%s, %s %zu: removed %u:\n%.*s", row->name, how, cut, firewall->removed,
			(int)got.len, (const char *)got.data);
}

/* In two pieces at each place, and byte by byte. */
static void firewall_check_splits_as(const struct firewall_case *row, const char *ours)
{
	struct span in = span_of(row->in);
	struct firewall firewall;
	struct firewall_out out;

	for (size_t cut = 0; cut <= in.len; cut++) {
		out.len = 0;
		firewall_init(&firewall, BOTH, ours);
		firewall_give(&firewall, &out, span_head(in, cut));
		firewall_give(&firewall, &out, span_skip(in, cut));
		out_add(&out, firewall_end(&firewall));
		firewall_check(&firewall, &out, row, "cut at", cut);
	}
	out.len = 0;
	firewall_init(&firewall, BOTH, ours);
	for (size_t at = 0; at < in.len; at++)
		firewall_give(&firewall, &out, span_head(span_skip(in, at), 1));
	out_add(&out, firewall_end(&firewall));
	firewall_check(&firewall, &out, row, "bytes", 0);
}

static void firewall_check_splits(const struct firewall_case *row)
{
	firewall_check_splits_as(row, OURS);
}

#define ORG "X-MS-Exchange-Organization-"
#define AR "Authentication-Results:"

static void test_firewall_prefixes(void **state)
{
	static const struct firewall_case cases[] = {
		{"nothing", "", "", 0},
		{"only a body", "\r\n" ORG "A: b\r\n", "\r\n" ORG "A: b\r\n", 0},
		{"other fields", "From: a\r\nX: b\r\n\r\nc\r\n", "From: a\r\nX: b\r\n\r\nc\r\n", 0},
		{"first", ORG "AuthAs: Internal\r\nA: b\r\n\r\n", "A: b\r\n\r\n", 1},
		{"last", "A: b\r\n" ORG "AuthAs: Internal\r\n\r\nc", "A: b\r\n\r\nc", 1},
		{"two on end", "A: b\r\n" ORG "C: d\r\n" ORG "E: f\r\nG: h\r\n\r\n",
			"A: b\r\nG: h\r\n\r\n", 2},
		{"forest and ours", "X-MS-Exchange-Forest-A: b\r\nX-Postern-C: d\r\n\r\n", "\r\n",
			2},
		{"any case", "x-ms-EXCHANGE-organization-a: b\r\nX-POSTERN-: c\r\n\r\n", "\r\n", 2},
		{"folded", "A: b\r\n" ORG "C: d\r\n e\r\n\tf: g\r\nH: i\r\n\r\n",
			"A: b\r\nH: i\r\n\r\n", 1},
		{"folded with a line of blanks", ORG "C: d\r\n \r\nH: i\r\n\r\n", "H: i\r\n\r\n",
			1},
		{"blanks before the colon", ORG "C \t: d\r\nE: f\r\n", "E: f\r\n", 1},
		{"a blank in the name", ORG "C d: e\r\nE: f\r\n", "E: f\r\n", 1},
		{"no more than the prefix", ORG ": e\r\nE: f\r\n", "E: f\r\n", 1},
		{"less than the prefix", "X-MS-Exchange-Organization: e\r\nX-Postern: f\r\n",
			"X-MS-Exchange-Organization: e\r\nX-Postern: f\r\n", 0},
		{"a longer name", "XX-Postern-A: b\r\nX-MS-Exchange-Forests-A: b\r\n",
			"XX-Postern-A: b\r\nX-MS-Exchange-Forests-A: b\r\n", 0},
		{"no colon", ORG "C\r\nA: b\r\n\r\n", ORG "C\r\nA: b\r\n\r\n", 0},
		{"a colon on the next line", ORG "C\r\n : d\r\n\r\n", ORG "C\r\n : d\r\n\r\n", 0},
		{"a continuation of nothing", " x\r\n\ty\r\nA: b\r\n\r\n c\r\n",
			"A: b\r\n\r\n c\r\n", 0},
		{"blanks, then the body", " \r\n\r\n c\r\n", "\r\n c\r\n", 0},
		{"a continuation of nothing, the end", "\tx", "", 0},
		{"a continuation of another field", "A: b\r\n " ORG "C: d\r\n\r\n",
			"A: b\r\n " ORG "C: d\r\n\r\n", 0},
		{"in the value", "A: " ORG "C: d\r\n\r\n", "A: " ORG "C: d\r\n\r\n", 0},
		{"in the body", "A: b\r\n\r\n" ORG "C: d\r\n", "A: b\r\n\r\n" ORG "C: d\r\n", 0},
		{"the header never ends", "A: b\r\n" ORG "C: d", "A: b\r\n", 1},
		{"it ends in a name", "A: b\r\n" ORG "C", "A: b\r\n" ORG "C", 0},
		{"it ends behind a CR", "A: b\r\n" ORG "C: d\r", "A: b\r\n", 1},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++)
		firewall_check_splits(&cases[i]);
}

/* A server that takes a bare CR or LF for the end of a line must find nothing either. */
static void test_firewall_bare_newlines(void **state)
{
	static const struct firewall_case cases[] = {
		{"behind a bare LF", "A: b\n" ORG "C: d\r\nE: f\r\n", "A: b\nE: f\r\n", 1},
		{"behind a bare CR", "A: b\r" ORG "C: d\r\nE: f\r\n", "A: b\rE: f\r\n", 1},
		{"up to a bare LF", "A: b\r\n" ORG "C: d\nE: f\r\n", "A: b\r\nE: f\r\n", 1},
		{"up to a bare CR", ORG "C: d\rE: f\r\n", "E: f\r\n", 1},
		{"folded after a bare LF", ORG "C: d\n e\nE: f\r\n", "E: f\r\n", 1},
		{"LF LF ends no header", "A: b\n\n" ORG "C: d\r\n\r\n", "A: b\n\n\r\n", 1},
		{"LF CR LF ends no header", "A: b\n\r\n" ORG "C: d\r\n", "A: b\n\r\n", 1},
		{"CR CR LF ends no header", "A: b\r\r\n" ORG "C: d\r\n", "A: b\r\r\n", 1},
		{"the end that leaves here counts", "A: b\n" ORG "C: d\r\n\r\n" ORG "E: f\r\n",
			"A: b\n\r\n", 2},
		{"an end that a removal makes", "A: b\r\n" ORG "C: d\r\r\n" ORG "E: f\r\n",
			"A: b\r\n\r\n" ORG "E: f\r\n", 1},
		{"a CR in the name", "X-Post\rern-C: d\r\n", "X-Post\rern-C: d\r\n", 0},
		{"a CR behind the prefix", "X-Postern-\rC: d\r\n", "X-Postern-\rC: d\r\n", 0},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++)
		firewall_check_splits(&cases[i]);
}

static void test_firewall_results(void **state)
{
	static const struct firewall_case cases[] = {
		{"ours", AR " " OURS "; x=pass\r\nA: b\r\n\r\n", "A: b\r\n\r\n", 1},
		{"ours in capitals", "AUTHENTICATION-results : EDGE.Adatum.test;x\r\n\r\n", "\r\n",
			1},
		{"ours with a version", AR OURS " 1; x=pass\r\n\r\n", "\r\n", 1},
		{"ours without results", AR " " OURS "\r\nA: b\r\n\r\n", "A: b\r\n\r\n", 1},
		{"ours, a comment behind", AR " " OURS "(1); x=pass\r\n\r\n", "\r\n", 1},
		{"ours in quotes", AR " \"" OURS "\"; x=pass\r\n\r\n", "\r\n", 1},
		{"ours in quotes, escaped", AR "\"edge.\\adatum\\.test\"; x\r\n\r\n", "\r\n", 1},
		{"ours behind a fold", AR "\r\n\t" OURS "; x\r\n y\r\nA: b\r\n", "A: b\r\n", 1},
		{"ours behind two folds", AR " \r\n \r\n " OURS "\r\n z\r\nA: b\r\n", "A: b\r\n",
			1},
		{"ours behind comments", AR " (a(b\\)\\()c)\r\n ()\t" OURS "; x\r\nA: b\r\n",
			"A: b\r\n", 1},
		{"ours behind a folded comment", AR " (a\r\n b) " OURS "; x\r\nA: b\r\n",
			"A: b\r\n", 1},
		{"ours at the end of all", "A: b\r\n" AR " " OURS, "A: b\r\n", 1},
		{"a bare LF for a fold", AR "\n " OURS "; x\r\nA: b\r\n", "A: b\r\n", 1},
		{"of another", AR " mx.other.test; x=pass\r\n\r\n",
			AR " mx.other.test; x=pass\r\n\r\n", 0},
		{"of a longer name", AR " " OURS ".evil.test; x\r\n\r\n",
			AR " " OURS ".evil.test; x\r\n\r\n", 0},
		{"of a shorter name", AR " edge.adatum; x\r\n\r\n", AR " edge.adatum; x\r\n\r\n",
			0},
		{"of another in quotes", AR "\"edge\"; x\r\n\r\n", AR "\"edge\"; x\r\n\r\n", 0},
		{"ours in a comment only", AR " (" OURS ") mx.b; x\r\n\r\n",
			AR " (" OURS ") mx.b; x\r\n\r\n", 0},
		{"ours in a result only", AR " mx.b; x=" OURS "\r\n\r\n",
			AR " mx.b; x=" OURS "\r\n\r\n", 0},
		{"of nobody", AR "\r\nX-Postern-A: b\r\n\r\n", AR "\r\n\r\n", 1},
		{"of nobody, the end", AR " \r\n\r\nX-Postern-A: b\r\n",
			AR " \r\n\r\nX-Postern-A: b\r\n", 0},
		{"a comment without end", AR " (\r\nA: b\r\n\r\n", AR " (\r\nA: b\r\n\r\n", 0},
		{"the end in the name", "Authentication-Results", "Authentication-Results", 0},
		{"the end in the gap", AR " (", AR " (", 0},
		{"another name", "ARC-" AR OURS "\r\nAuthentication-ResultsX:" OURS "\r\n",
			"ARC-" AR OURS "\r\nAuthentication-ResultsX:" OURS "\r\n", 0},
		{"no colon", "Authentication-Results " OURS "\r\n",
			"Authentication-Results " OURS "\r\n", 0},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++)
		firewall_check_splits(&cases[i]);
}

/* Our name has an A-label: who writes the U-label means us (RFC 8601 2.5). */
static void test_firewall_idn(void **state)
{
	static const struct firewall_case cases[] = {
		{"A-label", AR " mx.XN--bcher-kva.test; x\r\n\r\n", "\r\n", 1},
		{"U-label", AR " mx.b\303\274cher.test; x\r\n\r\n", "\r\n", 1},
		{"U-label in quotes", AR "\"MX.B\303\234cher.test\"; x\r\n y\r\n\r\n", "\r\n", 1},
		{"the end in a U-label", AR " mx.b\303\274", "", 1},
		{"of another", AR " mx.other.test; \303\274\r\n\r\n",
			AR " mx.other.test; \303\274\r\n\r\n", 0},
		{"of another in quotes", AR " \"other\" \303\274\r\n\r\n",
			AR " \"other\" \303\274\r\n\r\n", 0},
		{"of another, a quote that never ends", AR " \"other\r\n\303\274: b\r\n\r\n",
			AR " \"other\r\n\303\274: b\r\n\r\n", 0},
		{"of another at the end of all", AR " other", AR " other", 0},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++)
		firewall_check_splits_as(&cases[i], "mx.xn--bcher-kva.test");
}

/* Text and its NUL. */
static void put(char *out, size_t at, const char *text)
{
	(void)snprintf(out + at, MESSAGE_BYTES_MAX - at, "%s", text);
}

/* What is not judged within what can be held is taken out; what was judged may be long. */
static void test_firewall_long(void **state)
{
	char in[MESSAGE_BYTES_MAX] = ORG;
	struct firewall_case row = {"a name too long", in, "A: b\r\n", 1};
	size_t len = strlen(in);

	(void)state;
	memset(in + len, 'x', 600);
	put(in, len + 600, "\r\nA: b\r\n");
	firewall_check_splits(&row);

	/* One byte less than what is held. */
	put(in, FIREWALL_HELD_MAX - 1, "\r\nA: b\r\n");
	row = (struct firewall_case){"a name that is just short enough", in, in, 0};
	firewall_check_splits(&row);

	memset(in, 'x', 600);
	memcpy(in, AR "(", strlen(AR "("));
	put(in, 505, "\r\n\r\n");
	row = (struct firewall_case){"a comment without an end", in, in, 0};
	firewall_check_splits(&row);
	put(in, 505, "xxxxxxxx\r\nA: b\r\n");
	row = (struct firewall_case){"a comment too long", in, "A: b\r\n", 1};
	firewall_check_splits(&row);
	put(in, 509, "\r\n xxxxxxxx\r\nA: b\r\n");
	firewall_check_splits(&row);
	/* The last byte that is held is the end of a line: the next field is not part of it. */
	in[509] = 'x';
	put(in, 510, "\r\nA: b\r\n");
	firewall_check_splits(&row);

	memset(in, 'y', 2000);
	memcpy(in, AR OURS ";", strlen(AR OURS ";"));
	put(in, 2000, "\r\nA: b\r\n");
	row = (struct firewall_case){"a long field", in, "A: b\r\n", 1};
	firewall_check_splits(&row);
}

static void test_firewall_classes(void **state)
{
	static const char in[] = ORG "A: b\r\nX-Postern-C: d\r\n" AR OURS "\r\n\r\n";
	static const struct {
		unsigned classes;
		const char *want;
	} cases[] = {
		{0, in},
		{FIREWALL_ORGANIZATION, "X-Postern-C: d\r\n" AR OURS "\r\n\r\n"},
		{FIREWALL_STAMP, ORG "A: b\r\n\r\n"},
		{BOTH, "\r\n"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct firewall_out out = {0};
		struct firewall firewall;

		firewall_init(&firewall, cases[i].classes, OURS);
		firewall_give(&firewall, &out, span_of(in));
		assert_true(firewall.is_done);
		assert_int_equal(firewall_end(&firewall).len, 0);
		assert_true(span_equal(span_make(out.bytes, out.len), span_of(cases[i].want)));
	}
}

/* What the sender says of itself is noted when it passes; who adds a field finds the place. */
static void test_firewall_auth_as(void **state)
{
	static const struct {
		unsigned classes;
		const char *in;
		bool want;
	} cases[] = {
		{FIREWALL_STAMP, "A: b\r\n" ORG "AuthAs: Anonymous\r\n\r\n", true},
		{FIREWALL_STAMP, "A: b\r\n" ORG "AUTHAS \t:\r\n\r\n", true},
		{0, ORG "AuthAs: Anonymous\r\n\r\n", true},
		{FIREWALL_STAMP, ORG "AuthAsX: Anonymous\r\n\r\n", false},
		{FIREWALL_STAMP, ORG "AuthAs\r\n : a\r\n\r\n", false},
		{FIREWALL_STAMP, "\r\n" ORG "AuthAs: a\r\n\r\n", false},
		{BOTH, ORG "AuthAs: Anonymous\r\n\r\n", false},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct span in = span_of(cases[i].in);

		for (size_t cut = 0; cut <= in.len; cut++) {
			struct firewall_out out = {0};
			struct firewall firewall;

			firewall_init(&firewall, cases[i].classes, OURS);
			firewall_give(&firewall, &out, span_head(in, cut));
			firewall_give(&firewall, &out, span_skip(in, cut));
			assert_true(firewall.is_done);
			assert_int_equal(firewall.has_auth_as, cases[i].want);
			assert_int_equal(out.len, in.len - (cases[i].classes == BOTH ? 46 : 0));
		}
	}
}

/* A body is not copied, nor cut in pieces. */
static void test_firewall_body(void **state)
{
	static const char header[] = "A: b\r\n\r\nbody";
	struct span in = span_of(header);
	struct firewall firewall;
	struct span got;

	(void)state;
	firewall_init(&firewall, BOTH, OURS);
	got = firewall_next(&firewall, &in);
	assert_ptr_equal(got.data, header);
	assert_int_equal(got.len, 6);
	assert_false(firewall.is_done);
	assert_true(firewall_is_at_line(&firewall));
	got = firewall_next(&firewall, &in);
	assert_ptr_equal(got.data, header + 6);
	assert_int_equal(got.len, 6);
	assert_true(firewall.is_done);
	assert_int_equal(in.len, 0);
	in = span_of("X-Postern-A: b\r\n");
	got = firewall_next(&firewall, &in);
	assert_int_equal(got.len, 16);
	assert_int_equal(firewall.removed, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_firewall_prefixes),
		cmocka_unit_test(test_firewall_bare_newlines),
		cmocka_unit_test(test_firewall_results),
		cmocka_unit_test(test_firewall_idn),
		cmocka_unit_test(test_firewall_long),
		cmocka_unit_test(test_firewall_classes),
		cmocka_unit_test(test_firewall_auth_as),
		cmocka_unit_test(test_firewall_body),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
