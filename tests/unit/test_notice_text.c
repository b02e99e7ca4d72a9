/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/notice_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

static uint8_t page[NOTICE_HEAD_BYTES_MAX + 1];
static struct policy policy;
static struct envelope original;
static struct notice_rcpt rcpts[NOTICE_RCPTS_MAX];
static struct notice_text text;

static int setup(void **state)
{
	(void)state;
	policy = notice_policy();
	original = notice_original();
	rcpts[0] = notice_refused();
	text = (struct notice_text){.policy = &policy,
		.original = &original,
		.original_id = 0xabc,
		.id = 0x10,
		.random = 0x77,
		.now_ms = NOTICE_NOW,
		.rcpts = rcpts,
		.rcpt_count = 1};
	return 0;
}

/* Every line ends in CR LF, is short enough, and has no control but tabs that fold our own. */
static void check_lines(size_t len)
{
	size_t width = 0;

	for (size_t i = 0; i < len; i++) {
		if (page[i] == '\r') {
			assert_true(i + 1 < len && page[i + 1] == '\n');
			assert_true(width <= 998);
			width = 0;
			i++;
			continue;
		}
		assert_true(page[i] == '\t' ? width == 0 : page[i] >= ' ' && page[i] != 0x7f);
		width++;
	}
	assert_int_equal(width, 0);
}

static const char *head(void)
{
	size_t len = notice_write_head(&text, page, sizeof(page) - 1);

	assert_true(len > 0 && len <= NOTICE_HEAD_BYTES_MAX);
	page[len] = '\0';
	assert_int_equal(strlen((const char *)page), len);
	check_lines(len);
	return (const char *)page;
}

static void has(const char *what)
{
	if (strstr((const char *)page, what) == NULL)
		fail_msg("\"%s\" is not in:\n%s", what, (const char *)page);
}

static void lacks(const char *what)
{
	if (strstr((const char *)page, what) != NULL)
		fail_msg("\"%s\" is in:\n%s", what, (const char *)page);
}

static void test_wanted(void **state)
{
	static const struct {
		const char *notify;
		bool failed, delayed, success;
	} cases[] = {
		{"", true, true, false},
		{"NEVER", false, false, false},
		{"FAILURE", true, false, false},
		{"DELAY", false, true, false},
		{"SUCCESS", false, false, true},
		{"success,failure", true, false, true},
		{"FAILURE,DELAY,SUCCESS", true, true, true},
		{"FAILURES", false, false, false},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		const struct envelope_rcpt rcpt = {.notify = span_of(cases[i].notify)};

		assert_int_equal(notice_is_wanted(&rcpt, NOTICE_FAILED), cases[i].failed);
		assert_int_equal(notice_is_wanted(&rcpt, NOTICE_DELAYED), cases[i].delayed);
		assert_int_equal(notice_is_wanted(&rcpt, NOTICE_DELIVERED), cases[i].success);
		assert_int_equal(notice_is_wanted(&rcpt, NOTICE_RELAYED), cases[i].success);
	}
}

static void test_status(void **state)
{
	static const struct {
		enum notice_action action;
		unsigned code;
		const char *status, *text, *want;
	} cases[] = {
		{NOTICE_FAILED, 550, "", "550 5.1.1 no such user", "5.1.1"},
		{NOTICE_FAILED, 550, "", "5.7.133 no", "5.7.133"},
		{NOTICE_FAILED, 550, "", "550-5.1.1 two\r\n550 lines", "5.1.1"},
		{NOTICE_FAILED, 550, "5.4.6", "550 5.1.1 no such user", "5.4.6"},
		{NOTICE_FAILED, 550, "junk", "550 5.1.1 no such user", "5.1.1"},
		{NOTICE_FAILED, 550, "", "550 5.1.1.1 no status", "5.0.0"},
		{NOTICE_FAILED, 550, "", "550 5.1.1000 no status", "5.0.0"},
		{NOTICE_FAILED, 550, "", "550 5..1 no status", "5.0.0"},
		{NOTICE_FAILED, 550, "", "550 5.1 no status", "5.0.0"},
		{NOTICE_FAILED, 550, "", "550 5.1.", "5.0.0"},
		{NOTICE_FAILED, 550, "", "550 3.1.1 no class", "5.0.0"},
		{NOTICE_FAILED, 550, "", "550 2.1.5 of another class", "5.0.0"},
		{NOTICE_FAILED, 550, "", "550", "5.0.0"},
		{NOTICE_FAILED, 550, "", "", "5.0.0"},
		{NOTICE_FAILED, 552, "", "552 full", "5.2.2"},
		{NOTICE_FAILED, 555, "", "555 option", "5.5.4"},
		{NOTICE_FAILED, 421, "", "421 4.4.1 for too long", "4.4.1"},
		{NOTICE_FAILED, 451, "", "451 later", "4.3.0"},
		{NOTICE_FAILED, 455, "", "455 later", "4.0.0"},
		{NOTICE_FAILED, 250, "", "250 odd", "5.0.0"},
		{NOTICE_FAILED, 0, "4.4.7", "QUEUE.Expired; message expired", "4.4.7"},
		{NOTICE_FAILED, 0, "", "words", "5.0.0"},
		{NOTICE_DELAYED, 0, "", "", "4.4.7"},
		{NOTICE_DELAYED, 451, "", "451 4.7.1 greylisted", "4.7.1"},
		{NOTICE_DELAYED, 550, "", "550 5.1.1 odd", "4.4.7"},
		{NOTICE_DELIVERED, 250, "", "250 2.1.5 ok", "2.1.5"},
		{NOTICE_RELAYED, 250, "", "250 ok", "2.0.0"},
		{NOTICE_RELAYED, 0, "", "", "2.0.0"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct notice_rcpt rcpt = {.action = cases[i].action,
			.code = cases[i].code,
			.text = span_of(cases[i].text)};
		char out[12];

		memcpy(rcpt.status, cases[i].status, strlen(cases[i].status) + 1);
		notice_status(&rcpt, out);
		assert_string_equal(out, cases[i].want);
	}
}

static void test_refused(void **state)
{
	(void)state;
	(void)head();
	has("From: Postmaster <postmaster@a.example>\r\nTo: <sender@b.example>\r\n"
	    "Subject: Undeliverable: Hello\r\nDate: Sun, 29 Nov 2026 16:00:00 +0000\r\n"
	    "Message-ID: <0000000000000010.0000000000000077@edge.a.example>\r\n"
	    "In-Reply-To: <one@b.example>\r\nReferences: <one@b.example>\r\n"
	    "Auto-Submitted: auto-replied\r\nX-MS-Exchange-Message-Is-Ndr:\r\n"
	    "MIME-Version: 1.0\r\n"
	    "Content-Type: multipart/report; report-type=delivery-status;\r\n");
	has("  b@adatum.example\r\n  The server mx.adatum.example rejected it.\r\n"
	    "  There is no mailbox with that address.");
	has("Diagnostic information for administrators:\r\n\r\n"
	    "Generating server: edge.a.example\r\n"
	    "Message in the queue: 0000000000000abc, arrived Sun, 29 Nov 2026 15:59:00 +0000\r\n"
	    "Message ID: <one@b.example>\r\n\r\nb@adatum.example\r\n"
	    "Remote server: mx.adatum.example[192.0.2.1]:25\r\n"
	    "Remote server returned '550 5.1.1 no such user'\r\n");
	has("Reporting-MTA: dns; edge.a.example\r\nOriginal-Envelope-Id: QQ+1\r\n"
	    "Received-From-MTA: dns; mail.b.example\r\n"
	    "Arrival-Date: Sun, 29 Nov 2026 15:59:00 +0000\r\n\r\n"
	    "Original-Recipient: rfc822; b+x@adatum.example\r\n"
	    "Final-Recipient: rfc822; b@adatum.example\r\nAction: failed\r\nStatus: 5.1.1\r\n"
	    "Remote-MTA: dns; mx.adatum.example\r\n"
	    "Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n"
	    "Last-Attempt-Date: Sun, 29 Nov 2026 15:59:59 +0000\r\n\r\n--");
	has("Content-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: 7bit\r\n\r\n");
	lacks("8bit");
	lacks("Will-Retry-Until");
	assert_string_equal((char *)page + strlen((char *)page) - 4, "\r\n\r\n");
}

/* The reply stands there once with its code, whether or not the text has it. */
static void test_reply_forms(void **state)
{
	static const struct {
		enum notice_action action;
		unsigned code;
		const char *status, *text, *want;
	} cases[] = {
		{NOTICE_FAILED, 550, "", "550 5.1.1 no", "550 5.1.1 no"},
		{NOTICE_FAILED, 550, "", "5.1.1 no", "550 5.1.1 no"},
		{NOTICE_FAILED, 554, "", "", "554"},
		{NOTICE_FAILED, 0, "4.4.7", "QUEUE.Expired; message expired",
			"550 4.4.7 QUEUE.Expired; message expired"},
		{NOTICE_FAILED, 0, "", "5.4.6 loop", "550 5.4.6 loop"},
		{NOTICE_FAILED, 0, "", "550 5.4.6 loop", "550 5.4.6 loop"},
		{NOTICE_FAILED, 0, "", "", "550 5.0.0 Message not delivered"},
		{NOTICE_DELAYED, 0, "", "", "400 4.4.7 Message delayed"},
		{NOTICE_DELIVERED, 0, "", "stored", "250 2.0.0 stored"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		char line[128];

		rcpts[0].action = cases[i].action;
		rcpts[0].code = cases[i].code;
		rcpts[0].text = span_of(cases[i].text);
		memcpy(rcpts[0].status, cases[i].status, strlen(cases[i].status) + 1);
		(void)head();
		(void)snprintf(
			line, sizeof(line), "\r\nDiagnostic-Code: smtp; %s\r\n", cases[i].want);
		has(line);
		(void)snprintf(line, sizeof(line), "%s returned '%s'\r\n",
			cases[i].code == 0 ? "\r\nServer" : "\r\nRemote server", cases[i].want);
		has(line);
	}
	rcpts[0].action = NOTICE_RELAYED;
	rcpts[0].code = 0;
	rcpts[0].text = span_of("");
	(void)head();
	lacks("Diagnostic-Code");
	lacks(" returned '");
}

static void test_delayed(void **state)
{
	(void)state;
	rcpts[0] = (struct notice_rcpt){.action = NOTICE_DELAYED,
		.path = span_of("<b@adatum.example>"),
		.retry_until_ms = NOTICE_NOW + 86400000};
	(void)head();
	has("Subject: Delayed: Hello\r\n");
	has("  It is tried until Mon, 30 Nov 2026 16:00:00 +0000.\r\n");
	has("Action: delayed\r\nStatus: 4.4.7\r\n");
	has("Will-Retry-Until: Mon, 30 Nov 2026 16:00:00 +0000\r\n");
	has("Server returned '400 4.4.7 Message delayed'\r\n");
	lacks("X-MS-Exchange-Message-Is-Ndr");
	lacks("Remote-MTA");
	lacks("Original-Recipient");
	lacks("Last-Attempt-Date");
}

static void test_given_up_by_us(void **state)
{
	(void)state;
	rcpts[0].code = 0;
	rcpts[0].text = span_of("QUEUE.Expired; message expired");
	memcpy(rcpts[0].status, "4.4.7", 6);
	rcpts[0].remote = span_of("[192.0.2.1]:25");
	(void)head();
	has("  It was given up by edge.a.example.\r\n  It was tried for as long as is allowed");
	has("Remote-MTA: dns; [192.0.2.1]:25\r\n");
}

static void test_success(void **state)
{
	static const struct {
		enum notice_action action;
		const char *subject, *word;
	} cases[] = {{NOTICE_DELIVERED, "Subject: Delivered: Hello\r\n", "Action: delivered\r\n"},
		{NOTICE_RELAYED, "Subject: Relayed: Hello\r\n", "Action: relayed\r\n"}};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		rcpts[0].action = cases[i].action;
		rcpts[0].code = 250;
		rcpts[0].text = span_of("250 2.1.5 ok");
		(void)head();
		has(cases[i].subject);
		has(cases[i].word);
		has("Status: 2.1.5\r\n");
	}
}

static void test_mixed(void **state)
{
	(void)state;
	for (unsigned i = 1; i < 4; i++) {
		rcpts[i] = rcpts[0];
		rcpts[i].action = (enum notice_action)i;
	}
	text.rcpt_count = 4;
	(void)head();
	has("Subject: Undeliverable: Hello\r\n");
	has("could not be delivered to these");
	has("has not been delivered yet");
	has("was delivered to these");
	has("was handed over");
	text.rcpts = rcpts + 1;
	text.rcpt_count = 3;
	(void)head();
	has("Subject: Delayed: Hello\r\n");
	text.rcpts = rcpts + 2;
	text.rcpt_count = 2;
	(void)head();
	has("Subject: Relayed: Hello\r\n");
	assert_int_equal(notice_action(rcpts, 0), NOTICE_FAILED);
}

static void test_from(void **state)
{
	(void)state;
	policy.queue.postmaster = "<admin@a.example>";
	(void)head();
	has("From: Postmaster <admin@a.example>\r\n");
	policy.queue.postmaster = NULL;
	policy.accepted_domain_count = 1; /* only a wildcard */
	(void)head();
	has("From: Postmaster <postmaster@edge.a.example>\r\n");
}

/* Whatever a peer has said stays in its line. */
static void test_injection(void **state)
{
	static const char evil[] = "x\r\nBcc: all@b.example\r\n\r\n--=_\tz\x1b\x7f\xff\xc3\xa9";
	const struct span bad = span_of(evil);

	(void)state;
	original.subject = original.envid = original.helo = original.sender = bad;
	original.message_id = span_of("<a\r\nb@c>");
	rcpts[0].path = rcpts[0].text = rcpts[0].remote = bad;
	rcpts[0].orcpt = span_of("rfc822;a+0D+0ABcc:+20b+00c+zz+4");
	(void)head();
	lacks("\nBcc:");
	lacks("In-Reply-To");
	has("Subject: Undeliverable: x  Bcc: all@b.example    --=_ z????\r\n");
	has("Original-Recipient: rfc822; a  Bcc: b?c+zz+4\r\n");
	original.flags = ENVELOPE_SMTPUTF8 | ENVELOPE_UTF8_HEADER;
	(void)head();
	has("Subject: Undeliverable: x  Bcc: all@b.example    --=_ z???\xc3\xa9\r\n");
	lacks("\nBcc:");
}

static void test_message_ids(void **state)
{
	static const struct {
		const char *id;
		unsigned flags;
		bool is_good;
	} cases[] = {{"<a@b>", 0, true}, {"", 0, false}, {"<>", 0, false}, {"a@b.cd", 0, false},
		{"<a b@c>", 0, false}, {"<a@b> <c@d>", 0, false}, {"<\xc3\xa9@b>", 0, false},
		{"<\xc3\xa9@b>", ENVELOPE_SMTPUTF8 | ENVELOPE_UTF8_HEADER, true},
		{"<a@b", 0, false}};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		original.message_id = span_of(cases[i].id);
		original.flags = cases[i].flags;
		(void)head();
		assert_int_equal(
			strstr((char *)page, "\r\nReferences: ") != NULL, cases[i].is_good);
		assert_int_equal(
			strstr((char *)page, "\r\nIn-Reply-To: ") != NULL, cases[i].is_good);
	}
}

static void test_kinds(void **state)
{
	static const struct {
		unsigned flags;
		bool is_whole, is_utf8, is_eight;
		const char *third;
	} cases[] = {
		{0, true, false, false, "message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n"},
		{ENVELOPE_EIGHT_BIT, true, false, true,
			"message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n"},
		{ENVELOPE_EIGHT_BIT, false, false, false,
			"text/rfc822-headers\r\nContent-Transfer-Encoding: 7bit\r\n"},
		{ENVELOPE_EIGHT_BIT | ENVELOPE_UTF8_HEADER, false, false, true,
			"text/rfc822-headers\r\nContent-Transfer-Encoding: 8bit\r\n"},
		{ENVELOPE_SMTPUTF8, true, false, false,
			"message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n"},
		{ENVELOPE_SMTPUTF8 | ENVELOPE_UTF8_HEADER, true, true, true,
			"message/global\r\nContent-Transfer-Encoding: 8bit\r\n"},
		{ENVELOPE_SMTPUTF8 | ENVELOPE_UTF8_HEADER, false, true, true,
			"message/global-headers\r\nContent-Transfer-Encoding: 8bit\r\n"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		original.flags = cases[i].flags;
		text.is_whole = cases[i].is_whole;
		(void)head();
		has(cases[i].third);
		has(cases[i].is_utf8 ? "Content-Type: message/global-delivery-status\r\n"
				     : "Content-Type: message/delivery-status\r\n");
		assert_int_equal(notice_is_utf8(&text), cases[i].is_utf8);
		assert_int_equal(notice_is_eight_bit(&text), cases[i].is_eight);
		assert_int_equal(strstr((char *)page, "8bit") != NULL, cases[i].is_eight);
	}
}

static void test_utf8_addresses(void **state)
{
	(void)state;
	original.flags = ENVELOPE_SMTPUTF8;
	rcpts[0].path = span_of("<\xc3\xa9@adatum.example>");
	rcpts[0].orcpt = span_of("utf-8;\\x{E9}@adatum.example");
	(void)head();
	has("Original-Recipient: utf-8; \\x{E9}@adatum.example\r\n"
	    "Final-Recipient: utf-8; \xc3\xa9@adatum.example\r\n");
	rcpts[0].path = span_of("<e@adatum.example>");
	(void)head();
	has("message/delivery-status");
	has("Original-Recipient: utf-8; \\x{E9}@adatum.example\r\n"
	    "Final-Recipient: rfc822; e@adatum.example\r\n");
	rcpts[0].orcpt = span_of("utf-8;\xc3\xa9@adatum.example");
	(void)head();
	has("message/global-delivery-status");
	has("Original-Recipient: utf-8; \xc3\xa9@adatum.example\r\n"
	    "Final-Recipient: rfc822; e@adatum.example\r\n");
	rcpts[0].orcpt = span_of("noword");
	original.sender = span_of("<\xc3\xa9@b.example>");
	(void)head();
	has("Final-Recipient: rfc822; e@adatum.example\r\n");
	lacks("Original-Recipient");
}

/* The longest of everything fits, a byte less than that is needed does not. */
static void test_limits(void **state)
{
	static char filler[4096];
	size_t len;

	(void)state;
	memset(filler, 'x', sizeof(filler));
	memcpy(filler, "rfc822;", 7);
	original.subject = original.envid = original.helo = original.sender = original.message_id =
		span_make(filler, sizeof(filler));
	for (unsigned i = 0; i < NOTICE_RCPTS_MAX; i++)
		rcpts[i] = (struct notice_rcpt){.action = NOTICE_FAILED,
			.path = original.subject,
			.orcpt = original.subject,
			.code = 550,
			.text = original.subject,
			.remote = original.subject,
			.last_attempt_ms = NOTICE_NOW,
			.retry_until_ms = NOTICE_NOW};
	text.rcpt_count = NOTICE_RCPTS_MAX + 7;
	(void)head();
	has("The same is true of 7 more recipients.\r\n");
	len = notice_write_head(&text, page, sizeof(page));
	assert_int_equal(notice_write_head(&text, page, len), len);
	assert_int_equal(notice_write_head(&text, page, len - 1), 0);
	assert_int_equal(notice_write_head(&text, page, 0), 0);
}

static void test_advice(void **state)
{
	static const struct {
		const char *text, *want;
	} cases[] = {{"5.7.500 x", "refused by a rule of the server"},
		{"5.2.2 x", "mailbox is full"}, {"5.9.9 x", "was not accepted"},
		{"5.1.10 x", "accepts no mail"}};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		rcpts[0].text = span_of(cases[i].text);
		(void)head();
		has(cases[i].want);
	}
}

static void test_tail(void **state)
{
	size_t len = notice_write_tail(&text, page, NOTICE_TAIL_BYTES_MAX);
	char end[NOTICE_TAIL_BYTES_MAX + 1], boundary[64];

	(void)state;
	assert_true(len > 8);
	memcpy(end, page, len);
	end[len] = '\0';
	assert_string_equal(end, "\r\n--=_0000000000000010.0000000000000077--\r\n");
	(void)snprintf(boundary, sizeof(boundary), "boundary=\"%.*s\"", (int)len - 8, end + 4);
	(void)head();
	has(boundary);
	assert_int_equal(notice_write_tail(&text, page, len - 1), 0);
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(test_wanted), TEST(test_status), TEST(test_refused),
		TEST(test_reply_forms), TEST(test_delayed), TEST(test_given_up_by_us),
		TEST(test_success), TEST(test_mixed), TEST(test_from), TEST(test_injection),
		TEST(test_message_ids), TEST(test_kinds), TEST(test_utf8_addresses),
		TEST(test_limits), TEST(test_advice), TEST(test_tail)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
