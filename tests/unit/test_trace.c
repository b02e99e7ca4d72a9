/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/trace.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* Sat, 21 Nov 2026 22:46:05 UTC. */
#define NOW 1795301165

#define L100                                                                                       \
	"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567" \
	"890123456789"

static struct trace trace_plain(void)
{
	return (struct trace){
		.helo = span_of("mx.example"),
		.peer_address = "192.0.2.1",
		.fqdn = "edge.example",
		.connector = "internet",
		.session_id = "08DE1",
		.is_extended = true,
		.now = NOW,
	};
}

static struct trace trace_tls(void)
{
	struct trace trace = trace_plain();

	trace.tls_version = "TLSv1.3";
	trace.tls_cipher = "TLS_AES_256_GCM_SHA384";
	trace.tls_bits = 256;
	return trace;
}

/* What holds for every field: folded, ended once, of printable text, with balanced comments. */
static void trace_check_form(struct span text)
{
	size_t line_bytes = 0;
	int depth = 0;

	assert_true(span_starts_nocase(text, span_of("Received: from ")));
	for (size_t i = 0; i < text.len; i++) {
		uint8_t byte = text.data[i];

		line_bytes++;
		if (byte == '\r') {
			assert_true(i + 1 < text.len && text.data[i + 1] == '\n');
			/* A fold begins with a tab; nothing follows the last line. */
			assert_true(i + 2 == text.len || text.data[i + 2] == '\t');
			assert_true(line_bytes - 1 <= 998);
			line_bytes = 0;
			i++;
			continue;
		}
		assert_true(byte == '\t' || (byte >= ' ' && byte != 127));
		depth += byte == '(' ? 1 : byte == ')' ? -1 : 0;
		assert_true(depth >= 0);
	}
	assert_int_equal(line_bytes, 0);
	assert_int_equal(depth, 0);
}

static void trace_check(const struct trace *trace, const char *want)
{
	uint8_t out[TRACE_BYTES_MAX];
	size_t len = trace_received(trace, out);

	trace_check_form(span_make(out, len));
	if (!span_equal(span_make(out, len), span_of(want)))
		fail_msg("got:\n%.*s", (int)len, (const char *)out);
}

/* Does the field of this trace hold these words? */
static void trace_check_has(const struct trace *trace, const char *words)
{
	uint8_t out[TRACE_BYTES_MAX + 1];
	size_t len = trace_received(trace, out);

	trace_check_form(span_make(out, len));
	out[len] = '\0';
	if (strstr((const char *)out, words) == NULL)
		fail_msg("no '%s' in:\n%s", words, (const char *)out);
}

static void test_trace_plain(void **state)
{
	struct trace trace = trace_plain();

	(void)state;
	trace_check(&trace,
		"Received: from mx.example ([192.0.2.1])\r\n"
		"\tby edge.example (Postern, connector internet) with ESMTP id 08DE1;\r\n"
		"\tSat, 21 Nov 2026 22:46:05 +0000\r\n");
	trace.is_extended = false;
	trace.helo = span_make(NULL, 0);
	trace.peer_address = "2001:db8::1";
	trace.recipient = span_of("<a@b>");
	trace.now = 0;
	trace_check(&trace, "Received: from unknown ([IPv6:2001:db8::1])\r\n"
			    "\tby edge.example (Postern, connector internet) with SMTP id 08DE1\r\n"
			    "\tfor <a@b>; Thu, 1 Jan 1970 00:00:00 +0000\r\n");
}

static void test_trace_tls(void **state)
{
	struct trace trace = trace_tls();

	(void)state;
	trace.client_subject = "CN=mx.example,O=Example";
	trace.client_is_verified = true;
	trace.recipient = span_of("<a@b>");
	trace_check(&trace,
		"Received: from mx.example ([192.0.2.1])\r\n"
		"\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256 bits)\r\n"
		"\t client certificate \"CN=mx.example,O=Example\" verified)\r\n"
		"\tby edge.example (Postern, connector internet) with ESMTPS id 08DE1\r\n"
		"\tfor <a@b>; Sat, 21 Nov 2026 22:46:05 +0000\r\n");
	trace.client_domain = "treyresearch.test";
	trace_check_has(&trace, "\t client certificate \"CN=mx.example,O=Example\" verified for "
				"treyresearch.test)\r\n");
	trace.client_is_verified = false;
	trace_check_has(&trace, "\"CN=mx.example,O=Example\" not verified)\r\n");
	trace.client_subject = NULL;
	trace_check_has(&trace, "(256 bits)\r\n\t no client certificate)\r\n");
	trace.tls_cipher = NULL;
	trace_check_has(&trace, "(using TLSv1.3 with cipher unknown (256 bits)");
}

static void test_trace_protocols(void **state)
{
	static const struct {
		bool is_extended, is_utf8, is_tls;
		const char *want;
	} cases[] = {
		{false, false, false, " with SMTP id "},
		{false, false, true, " with SMTP id "},
		{true, false, false, " with ESMTP id "},
		{true, false, true, " with ESMTPS id "},
		{true, true, false, " with UTF8SMTP id "},
		{true, true, true, " with UTF8SMTPS id "},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct trace trace = cases[i].is_tls ? trace_tls() : trace_plain();

		trace.is_extended = cases[i].is_extended;
		trace.is_utf8 = cases[i].is_utf8;
		trace_check_has(&trace, cases[i].want);
	}
}

/* What a peer chose stays where it stands. */
static void test_trace_cleaned(void **state)
{
	static const struct {
		const char *helo;
		const char *want;
	} cases[] = {
		{"[192.0.2.1]", "from [192.0.2.1] ([192.0.2.1])"},
		{"[IPv6:2001:db8::1]", "from [IPv6:2001:db8::1] ("},
		{"a b", "from a?b ("},
		{"a(b)c\\", "from a?b?c? ("},
		{"a\r\nX: b", "from a??X:?b ("},
		{"a;b<c>\"", "from a?b?c?? ("},
		{"a\x7f\x80\xff\t", "from a???? ("},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct trace trace = trace_plain();

		trace.helo = span_of(cases[i].helo);
		trace_check_has(&trace, cases[i].want);
	}
}

static void test_trace_every_byte(void **state)
{
	char subject[256];
	uint8_t helo[256];

	(void)state;
	for (unsigned byte = 0; byte < 256; byte++) {
		helo[byte] = (uint8_t)byte;
		subject[byte] = (char)(byte + 1);
	}
	for (unsigned is_utf8 = 0; is_utf8 < 2; is_utf8++) {
		struct trace trace = trace_tls();

		trace.helo = span_make(helo, sizeof(helo));
		trace.client_subject = subject;
		trace.is_utf8 = is_utf8 != 0;
		trace_check_has(&trace, "Postern");
	}
}

static void test_trace_subject(void **state)
{
	static const struct {
		const char *subject;
		const char *want;
	} cases[] = {
		{"CN=A\\, B", "certificate \"CN=A?, B\" not"},
		{"CN=\") by evil (\"", "certificate \"CN=?? by evil ??\" not"},
		{"CN=a\r\nb\tc\xc3\xb6", "certificate \"CN=a??b?c??\" not"},
		{L100 L100 L100, "012345...\" not verified)"},
		{"", "certificate \"\" not"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct trace trace = trace_tls();

		trace.client_subject = cases[i].subject;
		trace_check_has(&trace, cases[i].want);
	}
}

static void test_trace_rcpt(void **state)
{
	static const struct {
		const char *recipient;
		bool is_utf8;
		const char *want;
	} cases[] = {
		{"<a@b>", false, "id 08DE1\r\n\tfor <a@b>; Sat"},
		{"<\"a b\"@c>", false, "\tfor <\"a b\"@c>; Sat"},
		{"<j\xc3\xb6rg@b>", true, "\tfor <j\xc3\xb6rg@b>; Sat"},
		{"<j\xc3\xb6rg@b>", false, "id 08DE1;\r\n\tSat"},
		{"<a\r\nb@c>", true, "id 08DE1;\r\n\tSat"},
		{"<a\x7f@c>", true, "id 08DE1;\r\n\tSat"},
		{"<" L100 L100 L100 L100 L100 "1234567890@" L100 ">", true, "id 08DE1;\r\n\tSat"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct trace trace = trace_plain();

		trace.recipient = span_of(cases[i].recipient);
		trace.is_utf8 = cases[i].is_utf8;
		trace_check_has(&trace, cases[i].want);
	}
}

/* Everything as long as can be still fits: trace.c would abort otherwise. */
static void test_trace_longest(void **state)
{
	static const char name[] = L100 L100 L100 L100;
	struct trace trace = trace_plain();
	uint8_t rcpt[573];
	uint8_t out[TRACE_BYTES_MAX];
	size_t len;

	(void)state;
	memset(rcpt, 'x', sizeof(rcpt));
	trace.helo = span_of(name);
	trace.peer_address = "::" L100;
	trace.fqdn = trace.connector = trace.session_id = name;
	trace.tls_version = trace.tls_cipher = trace.client_subject = name;
	trace.client_domain = name;
	trace.client_is_verified = true;
	trace.tls_bits = 4294967295u;
	trace.is_utf8 = true;
	trace.recipient = span_make(rcpt, sizeof(rcpt));
	len = trace_received(&trace, out);
	trace_check_form(span_make(out, len));
	assert_true(len > 255 * 3 + 64 * 5 + 256 + 573);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_trace_plain),
		cmocka_unit_test(test_trace_tls),
		cmocka_unit_test(test_trace_protocols),
		cmocka_unit_test(test_trace_cleaned),
		cmocka_unit_test(test_trace_every_byte),
		cmocka_unit_test(test_trace_subject),
		cmocka_unit_test(test_trace_rcpt),
		cmocka_unit_test(test_trace_longest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
