/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/command.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define ADDRESS_MAX 571

#define L10 "0123456789"
#define L60 L10 L10 L10 L10 L10 L10
#define L63 L60 "012"

static const char bad_verb[] = "500 5.3.3 Unrecognized command";
static const char bad_domain[] = "501 5.5.4 Invalid domain name";
static const char bad_sender[] = "501 5.1.7 Invalid address";
static const char bad_rcpt[] = "501 5.1.3 Invalid address";
static const char bad_arguments[] = "501 5.5.4 Invalid arguments";
static const char bad_option[] = "555 5.5.4 Unsupported option";

/* Parses a copy of exactly the line's length, which the caller frees. */
static uint8_t *command_run(struct span line, const char *want_error, struct command *command)
{
	uint8_t *copy = malloc(line.len + 1);
	enum command_status status;

	assert_non_null(copy);
	memcpy(copy + 1, line.data, line.len);
	status = command_parse(span_make(copy + 1, line.len), ADDRESS_MAX, command);
	if ((status == COMMAND_OK) != (command->error == NULL))
		fail_msg("%.*s: status and error differ", (int)line.len, (const char *)line.data);
	if ((want_error == NULL) != (command->error == NULL) ||
		(want_error != NULL && strcmp(want_error, command->error) != 0))
		fail_msg("%.*s: answers %s", (int)line.len, (const char *)line.data,
			command->error == NULL ? "nothing" : command->error);
	return copy;
}

static void assert_span(struct span got, const char *want, const char *line)
{
	if (!span_equal(got, span_of(want)))
		fail_msg("%s: got '%.*s', want '%s'", line, (int)got.len, (const char *)got.data,
			want);
}

static void test_command_verbs(void **state)
{
	static const struct {
		const char *line;
		enum verb verb;
		const char *argument;
		const char *error;
	} cases[] = {
		{"NOOP", VERB_NOOP, "", NULL},
		{"noop", VERB_NOOP, "", NULL},
		{"NoOp   ", VERB_NOOP, "", NULL},
		{"NOOP\t", VERB_NOOP, "", NULL},
		{"NOOP some words ", VERB_NOOP, "some words", NULL},
		{"DATA", VERB_DATA, "", NULL},
		{"DATA x", VERB_DATA, "x", bad_arguments},
		{"RSET", VERB_RSET, "", NULL},
		{"RSET x", VERB_RSET, "x", bad_arguments},
		{"QUIT", VERB_QUIT, "", NULL},
		{"QUIT x", VERB_QUIT, "x", bad_arguments},
		{"STARTTLS", VERB_STARTTLS, "", NULL},
		{"STARTTLS x", VERB_STARTTLS, "x", bad_arguments},
		{"VRFY a@b", VERB_VRFY, "a@b", NULL},
		{"VRFY", VERB_VRFY, "", bad_arguments},
		{"EXPN list", VERB_EXPN, "list", NULL},
		{"EXPN ", VERB_EXPN, "", bad_arguments},
		{"HELP", VERB_HELP, "", NULL},
		{"HELP MAIL", VERB_HELP, "MAIL", NULL},
		{"AUTH PLAIN AGEAYg==", VERB_AUTH, "PLAIN AGEAYg==", NULL},
		{"AUTH", VERB_AUTH, "", bad_arguments},
		{"", VERB_UNKNOWN, "", bad_verb},
		{"   ", VERB_UNKNOWN, "", bad_verb},
		{" NOOP", VERB_UNKNOWN, "NOOP", bad_verb},
		{"NOOPX", VERB_UNKNOWN, "", bad_verb},
		{"NOO", VERB_UNKNOWN, "", bad_verb},
		{"NOOP\tx", VERB_UNKNOWN, "", bad_verb},
		{"?", VERB_UNKNOWN, "", bad_verb},
		{"BURL imap://x", VERB_UNKNOWN, "imap://x", bad_verb},
		{"GET / HTTP/1.1", VERB_UNKNOWN, "/ HTTP/1.1", bad_verb},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct command command;
		uint8_t *copy = command_run(span_of(cases[i].line), cases[i].error, &command);

		if (command.verb != cases[i].verb)
			fail_msg("%s: is %s", cases[i].line, verb_name(command.verb));
		assert_span(command.argument, cases[i].argument, cases[i].line);
		free(copy);
	}
}

static void test_command_verb_text(void **state)
{
	struct command command;

	(void)state;
	assert_int_equal(command_parse(span_of("fOo bar"), ADDRESS_MAX, &command), COMMAND_BAD);
	assert_span(command.verb_text, "fOo", "fOo");
	assert_string_equal(verb_name(VERB_UNKNOWN), "?");
	assert_string_equal(verb_name(VERB_STARTTLS), "STARTTLS");
	for (unsigned verb = 0; verb < VERB_COUNT; verb++)
		assert_non_null(verb_name((enum verb)verb));
}

static void test_command_ehlo(void **state)
{
	static const struct {
		const char *line;
		const char *domain;
		const char *error;
	} cases[] = {
		{"EHLO mx.example", "mx.example", NULL},
		{"HELO mx.example", "mx.example", NULL},
		{"ehlo   mx.example  ", "mx.example", NULL},
		{"EHLO", "", NULL},
		{"EHLO host", "host", NULL},
		{"EHLO 192.0.2.1", "192.0.2.1", NULL},
		{"EHLO [192.0.2.1]", "[192.0.2.1]", NULL},
		{"EHLO [IPv6:2001:db8::1]", "[IPv6:2001:db8::1]", NULL},
		{"EHLO [ipv6:::ffff:192.0.2.1]", "[ipv6:::ffff:192.0.2.1]", NULL},
		{"EHLO a-b.c--d.xn--e1afmkfd", "a-b.c--d.xn--e1afmkfd", NULL},
		{"EHLO " L63 ".example", L63 ".example", NULL},
		{"EHLO " L63 "3.example", "", bad_domain},
		{"EHLO " L63 "." L63 "." L63 "." L63, L63 "." L63 "." L63 "." L63, NULL},
		{"EHLO " L63 "." L63 "." L63 "." L63 ".a", "", bad_domain},
		{"EHLO two words", "", bad_domain},
		{"EHLO mx.example.", "", bad_domain},
		{"EHLO .example", "", bad_domain},
		{"EHLO a..b", "", bad_domain},
		{"EHLO -a.b", "", bad_domain},
		{"EHLO a-.b", "", bad_domain},
		{"EHLO a_b", "", bad_domain},
		{"EHLO a@b", "", bad_domain},
		{"EHLO m\xc3\xbcller.example", "", bad_domain},
		{"EHLO [192.0.2.1", "", bad_domain},
		{"EHLO 192.0.2.1]", "", bad_domain},
		{"EHLO [192.0.2]", "", bad_domain},
		{"EHLO [192.0.2.256]", "", bad_domain},
		{"EHLO [192.0.2.1]x", "", bad_domain},
		{"EHLO []", "", bad_domain},
		{"EHLO [", "", bad_domain},
		{"EHLO [2001:db8::1]", "", bad_domain},
		{"EHLO [IPv6:]", "", bad_domain},
		{"EHLO [IPv6:2001:db8::1%eth0]", "", bad_domain},
		{"EHLO [IPv6:192.0.2.1]", "", bad_domain},
		{"EHLO [tag:anything]", "", bad_domain},
		{"EHLO [" L60 "]", "", bad_domain},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct command command;
		uint8_t *copy = command_run(span_of(cases[i].line), cases[i].error, &command);

		assert_span(command.domain, cases[i].domain, cases[i].line);
		free(copy);
	}
}

/* A NUL must not make a shorter address of a literal. */
static void test_command_literal_nul(void **state)
{
	static const char line[] = "EHLO [192.0.2.1\0x]";
	struct command command;

	(void)state;
	free(command_run(span_make(line, sizeof(line) - 1), bad_domain, &command));
}

static const struct {
	const char *line;
	const char *path;
	const char *domain;
	const char *error;
} path_cases[] = {
	{"MAIL FROM:<a@b.example>", "<a@b.example>", "b.example", NULL},
	{"mail from:<a@b>", "<a@b>", "b", NULL},
	{"MAIL FROM: <a@b>", "<a@b>", "b", NULL},
	{"MAIL  FROM:  <a@b>  ", "<a@b>", "b", NULL},
	{"RCPT TO:<a@b>", "<a@b>", "b", NULL},
	{"rcpt to: <a@b>", "<a@b>", "b", NULL},
	{"MAIL FROM:<>", "<>", "", NULL},
	{"MAIL FROM:<> ", "<>", "", NULL},
	{"RCPT TO:<postmaster>", "<postmaster>", "", NULL},
	{"RCPT TO:<PostMaster>", "<PostMaster>", "", NULL},
	{"RCPT TO:<a@[192.0.2.1]>", "<a@[192.0.2.1]>", "[192.0.2.1]", NULL},
	{"RCPT TO:<a@[IPv6:::1]>", "<a@[IPv6:::1]>", "[IPv6:::1]", NULL},
	{"RCPT TO:<a.b.c@d>", "<a.b.c@d>", "d", NULL},
	{"RCPT TO:<!#$%&'*+-/=?^_`{|}~@d>", "<!#$%&'*+-/=?^_`{|}~@d>", "d", NULL},
	{"RCPT TO:<\"a b\"@d>", "<\"a b\"@d>", "d", NULL},
	{"RCPT TO:<\"a@b>c\\\"\\\\\"@d>", "<\"a@b>c\\\"\\\\\"@d>", "d", NULL},
	{"RCPT TO:<\"\"@d>", "<\"\"@d>", "d", NULL},
	{"RCPT TO:<@x:a@b>", "<a@b>", "b", NULL},
	{"RCPT TO:<@x,@y.z,@[192.0.2.1]:a@b>", "<a@b>", "b", NULL},
	{"MAIL FROM:<@x:\"a b\"@b> SIZE=1", "<\"a b\"@b>", "b", NULL},
	{"RCPT TO:<j\xc3\xb6rg@m\xc3\xbcller.example>", "<j\xc3\xb6rg@m\xc3\xbcller.example>",
		"m\xc3\xbcller.example", NULL},
	{"RCPT TO:<\"\xe2\x82\xac \xf0\x9f\x98\x80\"@b>", "<\"\xe2\x82\xac \xf0\x9f\x98\x80\"@b>",
		"b", NULL},
	{"MAIL", "", "", bad_arguments},
	{"MAIL <a@b>", "", "", bad_arguments},
	{"MAIL TO:<a@b>", "", "", bad_arguments},
	{"RCPT FROM:<a@b>", "", "", bad_arguments},
	{"MAIL FROM <a@b>", "", "", bad_arguments},
	{"MAIL FROM :<a@b>", "", "", bad_arguments},
	{"MAIL FROM:", "", "", bad_sender},
	{"RCPT TO:", "", "", bad_rcpt},
	{"MAIL FROM:a@b", "", "", bad_sender},
	{"MAIL FROM:<a@b", "", "", bad_sender},
	{"MAIL FROM:<", "", "", bad_sender},
	{"MAIL FROM:<a>", "", "", bad_sender},
	{"MAIL FROM:<a@>", "", "", bad_sender},
	{"MAIL FROM:<@b>", "", "", bad_sender},
	{"MAIL FROM:< a@b>", "", "", bad_sender},
	{"MAIL FROM:<a@b >", "", "", bad_sender},
	{"MAIL FROM:<a b@c>", "", "", bad_sender},
	{"MAIL FROM:<<a@b>>", "", "", bad_sender},
	{"MAIL FROM:<a@b@c>", "", "", bad_sender},
	{"MAIL FROM:<.a@b>", "", "", bad_sender},
	{"MAIL FROM:<a.@b>", "", "", bad_sender},
	{"MAIL FROM:<a..b@c>", "", "", bad_sender},
	{"MAIL FROM:<a\"b\"@c>", "", "", bad_sender},
	{"MAIL FROM:<\"a\"b@c>", "", "", bad_sender},
	{"MAIL FROM:<\"a@b>", "", "", bad_sender},
	{"MAIL FROM:<\"a\\", "", "", bad_sender},
	{"MAIL FROM:<\"a\tb\"@c>", "", "", bad_sender},
	{"MAIL FROM:<\"a\\\xc3\xb6\"@c>", "", "", bad_sender},
	{"MAIL FROM:<a(c)@b>", "", "", bad_sender},
	{"MAIL FROM:<a@b_c>", "", "", bad_sender},
	{"MAIL FROM:<a@b.>", "", "", bad_sender},
	{"MAIL FROM:<a@[1.2.3]>", "", "", bad_sender},
	{"MAIL FROM:<postmaster>", "", "", bad_sender},
	{"RCPT TO:<>", "", "", bad_rcpt},
	{"RCPT TO:<root>", "", "", bad_rcpt},
	{"RCPT TO:<\"postmaster\">", "", "", bad_rcpt},
	{"RCPT TO:<@x:postmaster>", "", "", bad_rcpt},
	{"RCPT TO:<@x:>", "", "", bad_rcpt},
	{"RCPT TO:<@x a@b>", "", "", bad_rcpt},
	{"RCPT TO:<@x,:a@b>", "", "", bad_rcpt},
	{"RCPT TO:<@x,y:a@b>", "", "", bad_rcpt},
	{"RCPT TO:<\xff@b>", "", "", bad_rcpt},
	{"RCPT TO:<\xc3@b>", "", "", bad_rcpt},
	{"RCPT TO:<\xe2\x82x@b>", "", "", bad_rcpt},
	{"RCPT TO:<\xc0\x80@b>", "", "", bad_rcpt},
	{"RCPT TO:<\xc1\xbf@b>", "", "", bad_rcpt},
	{"RCPT TO:<\xe0\x9f\xbf@b>", "", "", bad_rcpt},
	{"RCPT TO:<\xed\xa0\x80@b>", "", "", bad_rcpt},
	{"RCPT TO:<\xf0\x8f\xbf\xbf@b>", "", "", bad_rcpt},
	{"RCPT TO:<\xf4\x90\x80\x80@b>", "", "", bad_rcpt},
	{"RCPT TO:<\xf5\x80\x80\x80@b>", "", "", bad_rcpt},
	{"RCPT TO:<a@\x80>", "", "", bad_rcpt},
	{"MAIL FROM:<a@b>SIZE=1", "<a@b>", "b", bad_arguments},
	{"MAIL FROM:<a@b>\tSIZE=1", "<a@b>", "b", bad_arguments},
	{"MAIL FROM:<a@b>>", "<a@b>", "b", bad_arguments},
};

static void test_command_paths(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(path_cases); i++) {
		struct command command;
		uint8_t *copy =
			command_run(span_of(path_cases[i].line), path_cases[i].error, &command);
		bool is_sender = strncasecmp(path_cases[i].line, "MAIL", 4) == 0;

		assert_int_equal(command.verb, is_sender ? VERB_MAIL : VERB_RCPT);
		if (path_cases[i].error == NULL) {
			struct span inside = span_skip(command.path, 1);

			assert_span(command.path, path_cases[i].path, path_cases[i].line);
			assert_span(command.mail_domain, path_cases[i].domain, path_cases[i].line);
			assert_int_equal(command.mailbox.len, inside.len - 1);
		}
		free(copy);
	}
}

static void test_command_source_route(void **state)
{
	static const char long_route[] = "RCPT TO:<@" L63 "." L63 "." L63 ":" L60 "@b>";
	struct command command;

	(void)state;
	assert_int_equal(command_parse(span_of("RCPT TO:<@x,@y:a.b@c.d> NOTIFY=NEVER"), ADDRESS_MAX,
				 &command),
		COMMAND_OK);
	assert_span(command.path, "<a.b@c.d>", "route");
	assert_span(command.mailbox, "a.b@c.d", "route");
	assert_span(command.mail_domain, "c.d", "route");
	assert_span(command.notify, "NEVER", "route");
	/* A path with a route may have 256 bytes (RFC 5321 4.5.3.1.3). */
	assert_int_equal(sizeof(long_route) - 1 - 8, 257);
	assert_int_equal(command_parse(span_of(long_route), ADDRESS_MAX, &command), COMMAND_BAD);
	assert_string_equal(command.error, bad_rcpt);
}

/* The limit counts the mailbox, not its brackets. */
static void test_command_address_limit(void **state)
{
	struct command command;

	(void)state;
	assert_int_equal(command_parse(span_of("MAIL FROM:<12345@789>"), 9, &command), COMMAND_OK);
	assert_int_equal(command_parse(span_of("MAIL FROM:<12345@789>"), 8, &command), COMMAND_BAD);
	assert_string_equal(command.error, bad_sender);
	assert_int_equal(command_parse(span_of("RCPT TO:<12345@789>"), 8, &command), COMMAND_BAD);
	assert_string_equal(command.error, bad_rcpt);
}

static const struct {
	const char *params;
	uint64_t size;
	unsigned want;
	enum body_type body;
	const char *error;
} mail_cases[] = {
	{"", 0, 0, BODY_UNSAID, NULL},
	{"SIZE=0", 0, PARAM_SIZE, BODY_UNSAID, NULL},
	{"size=12345", 12345, PARAM_SIZE, BODY_UNSAID, NULL},
	{"SIZE=18446744073709551615", UINT64_MAX, PARAM_SIZE, BODY_UNSAID, NULL},
	{"SIZE=18446744073709551616", UINT64_MAX, PARAM_SIZE, BODY_UNSAID, NULL},
	{"SIZE=99999999999999999999999999", UINT64_MAX, PARAM_SIZE, BODY_UNSAID, NULL},
	{"BODY=7BIT", 0, PARAM_BODY, BODY_7BIT, NULL},
	{"BODY=8bitMIME", 0, PARAM_BODY, BODY_8BITMIME, NULL},
	{"BODY=BINARYMIME", 0, PARAM_BODY, BODY_BINARYMIME, NULL},
	{"SMTPUTF8", 0, PARAM_SMTPUTF8, BODY_UNSAID, NULL},
	{"RET=FULL", 0, PARAM_RET, BODY_UNSAID, NULL},
	{"RET=hdrs", 0, PARAM_RET, BODY_UNSAID, NULL},
	{"ENVID=QQ314159", 0, PARAM_ENVID, BODY_UNSAID, NULL},
	{"ENVID=a+2Bb+3D", 0, PARAM_ENVID, BODY_UNSAID, NULL},
	{"ENVID=" L60 L10 L10 L10 L10, 0, PARAM_ENVID, BODY_UNSAID, NULL},
	{"SIZE=5 BODY=8BITMIME  SMTPUTF8 RET=FULL ENVID=x", 5,
		PARAM_SIZE | PARAM_BODY | PARAM_SMTPUTF8 | PARAM_RET | PARAM_ENVID, BODY_8BITMIME,
		NULL},
	{"SIZE", 0, 0, BODY_UNSAID, bad_arguments},
	{"SIZE=", 0, 0, BODY_UNSAID, bad_arguments},
	{"SIZE=-1", 0, 0, BODY_UNSAID, bad_arguments},
	{"SIZE=+1", 0, 0, BODY_UNSAID, bad_arguments},
	{"SIZE=0x10", 0, 0, BODY_UNSAID, bad_arguments},
	{"SIZE=1 SIZE=2", 0, 0, BODY_UNSAID, bad_arguments},
	{"SMTPUTF8 smtputf8", 0, 0, BODY_UNSAID, bad_arguments},
	{"SMTPUTF8=1", 0, 0, BODY_UNSAID, bad_arguments},
	{"BODY=9BIT", 0, 0, BODY_UNSAID, bad_arguments},
	{"BODY", 0, 0, BODY_UNSAID, bad_arguments},
	{"RET=NONE", 0, 0, BODY_UNSAID, bad_arguments},
	{"ENVID=", 0, 0, BODY_UNSAID, bad_arguments},
	{"ENVID=a+2", 0, 0, BODY_UNSAID, bad_arguments},
	{"ENVID=a+2g", 0, 0, BODY_UNSAID, bad_arguments},
	{"ENVID=a+2b", 0, 0, BODY_UNSAID, bad_arguments},
	{"ENVID=\xc3\xb6", 0, 0, BODY_UNSAID, bad_arguments},
	{"ENVID=" L60 L10 L10 L10 L10 "1", 0, 0, BODY_UNSAID, bad_arguments},
	{"SIZE==1", 0, 0, BODY_UNSAID, bad_arguments},
	{"=1", 0, 0, BODY_UNSAID, bad_arguments},
	{"-X=1", 0, 0, BODY_UNSAID, bad_arguments},
	{"X_Y=1", 0, 0, BODY_UNSAID, bad_arguments},
	{"SIZE=1\tSIZE", 0, 0, BODY_UNSAID, bad_arguments},
	{"X=\x01", 0, 0, BODY_UNSAID, bad_arguments},
	{"X=\x7f", 0, 0, BODY_UNSAID, bad_arguments},
	{"X=\xc3", 0, 0, BODY_UNSAID, bad_arguments},
	{"X", 0, 0, BODY_UNSAID, bad_option},
	{"X-Y=1", 0, 0, BODY_UNSAID, bad_option},
	{"X=\xc3\xb6", 0, 0, BODY_UNSAID, bad_option},
	{"AUTH=<>", 0, 0, BODY_UNSAID, bad_option},
	{"NOTIFY=NEVER", 0, 0, BODY_UNSAID, bad_option},
	{"ORCPT=rfc822;a@b", 0, 0, BODY_UNSAID, bad_option},
};

static void test_command_mail_params(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(mail_cases); i++) {
		char line[512];
		struct command command;
		uint8_t *copy;

		(void)snprintf(line, sizeof(line), "MAIL FROM:<a@b> %s", mail_cases[i].params);
		copy = command_run(span_of(line), mail_cases[i].error, &command);
		assert_span(command.param_text, mail_cases[i].params, line);
		if (mail_cases[i].error == NULL) {
			assert_int_equal(command.params, mail_cases[i].want);
			assert_true(command.size == mail_cases[i].size);
			assert_int_equal(command.body, mail_cases[i].body);
		}
		free(copy);
	}
}

static void test_command_rcpt_params(void **state)
{
	static const struct {
		const char *params;
		unsigned want;
		const char *error;
	} cases[] = {
		{"NOTIFY=NEVER", PARAM_NOTIFY, NULL},
		{"NOTIFY=success", PARAM_NOTIFY, NULL},
		{"NOTIFY=SUCCESS,FAILURE,DELAY", PARAM_NOTIFY, NULL},
		{"ORCPT=rfc822;a+40b@c", PARAM_ORCPT, NULL},
		{"ORCPT=RFC822;a", PARAM_ORCPT, NULL},
		{"ORCPT=x400;/C", PARAM_ORCPT, NULL},
		{"ORCPT=rfc822;", PARAM_ORCPT, NULL},
		{"ORCPT=utf-8;j\xc3\xb6rg@b", PARAM_ORCPT, NULL},
		{"ORCPT=utf-8;j\\x{F6}rg@b", PARAM_ORCPT, NULL},
		{"NOTIFY=DELAY ORCPT=rfc822;a@b", PARAM_NOTIFY | PARAM_ORCPT, NULL},
		{"NOTIFY", 0, bad_arguments},
		{"NOTIFY=NEVER,DELAY", 0, bad_arguments},
		{"NOTIFY=DELAY,NEVER", 0, bad_arguments},
		{"NOTIFY=DELAY,", 0, bad_arguments},
		{"NOTIFY=,DELAY", 0, bad_arguments},
		{"NOTIFY=ALWAYS", 0, bad_arguments},
		{"ORCPT=a@b", 0, bad_arguments},
		{"ORCPT=;a@b", 0, bad_arguments},
		{"ORCPT=utf-8;", 0, bad_arguments},
		{"ORCPT=rf(c;a@b", 0, bad_arguments},
		{"ORCPT=rfc822;a+4", 0, bad_arguments},
		{"ORCPT=rfc822;j\xc3\xb6rg@b", 0, bad_arguments},
		{"ORCPT=utf-8;\xff", 0, bad_arguments},
		{"ORCPT=rfc822;a ORCPT=rfc822;b", 0, bad_arguments},
		{"ORCPT=rfc822;" L60 L60 L60 L60 L60 L60 L60 L60 "01234567890123", 0,
			bad_arguments},
		{"SIZE=1", 0, bad_option},
		{"RET=FULL", 0, bad_option},
		{"SMTPUTF8", 0, bad_option},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		char line[1024];
		struct command command;
		uint8_t *copy;

		(void)snprintf(line, sizeof(line), "RCPT TO:<a@b> %s", cases[i].params);
		copy = command_run(span_of(line), cases[i].error, &command);
		if (cases[i].error == NULL)
			assert_int_equal(command.params, cases[i].want);
		free(copy);
	}
}

static void test_command_param_values(void **state)
{
	struct command command;

	(void)state;
	assert_int_equal(
		command_parse(span_of("MAIL FROM:<a@b>  RET=HDRS  ENVID=a+2Bb "), 99, &command),
		COMMAND_OK);
	assert_span(command.ret, "HDRS", "ret");
	assert_span(command.envid, "a+2Bb", "envid");
	assert_span(command.param_text, "RET=HDRS  ENVID=a+2Bb", "param_text");
	assert_int_equal(
		command_parse(span_of("RCPT TO:<a@b> ORCPT=rfc822;c@d NOTIFY=DELAY"), 99, &command),
		COMMAND_OK);
	assert_span(command.orcpt, "rfc822;c@d", "orcpt");
	assert_span(command.notify, "DELAY", "notify");
	assert_int_equal(command.ret.len, 0);
}

static void test_command_bdat(void **state)
{
	static const struct {
		const char *line;
		uint64_t bytes;
		bool is_last;
		const char *error;
	} cases[] = {
		{"BDAT 0", 0, false, NULL},
		{"BDAT 86", 86, false, NULL},
		{"BDAT 0 LAST", 0, true, NULL},
		{"bdat 1000  last ", 1000, true, NULL},
		{"BDAT 00010", 10, false, NULL},
		{"BDAT 9223372036854775807", INT64_MAX, false, NULL},
		{"BDAT 9223372036854775808", 0, false, bad_arguments},
		{"BDAT 18446744073709551616", 0, false, bad_arguments},
		{"BDAT 18446744073709551626 LAST", 0, false, bad_arguments},
		{"BDAT 999999999999999999999999", 0, false, bad_arguments},
		{"BDAT", 0, false, bad_arguments},
		{"BDAT LAST", 0, false, bad_arguments},
		{"BDAT -1", 0, false, bad_arguments},
		{"BDAT +1", 0, false, bad_arguments},
		{"BDAT 0x1", 0, false, bad_arguments},
		{"BDAT 1.", 0, false, bad_arguments},
		{"BDAT 1 2", 0, false, bad_arguments},
		{"BDAT 1 LASTX", 0, false, bad_arguments},
		{"BDAT 1 LAST LAST", 0, false, bad_arguments},
		{"BDAT 1\tLAST", 0, false, bad_arguments},
		{"BDAT 1LAST", 0, false, bad_arguments},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct command command;
		uint8_t *copy = command_run(span_of(cases[i].line), cases[i].error, &command);

		assert_int_equal(command.verb, VERB_BDAT);
		if (cases[i].error == NULL) {
			assert_true(command.chunk_bytes == cases[i].bytes);
			assert_int_equal(command.chunk_is_last, cases[i].is_last);
		}
		free(copy);
	}
}

static void test_command_is_utf8(void **state)
{
	static const struct {
		const char *line;
		bool want;
	} cases[] = {
		{"MAIL FROM:<a@b> SIZE=1 SMTPUTF8", false},
		{"MAIL FROM:<>", false},
		{"MAIL FROM:<j\xc3\xb6rg@b>", true},
		{"RCPT TO:<a@m\xc3\xbcller>", true},
		{"RCPT TO:<a@b> ORCPT=utf-8;\xc3\xb6@b", true},
		{"RCPT TO:<@m\xc3\xbcller:a@b>", false},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct command command;

		assert_int_equal(
			command_parse(span_of(cases[i].line), ADDRESS_MAX, &command), COMMAND_OK);
		assert_int_equal(command_is_utf8(&command), cases[i].want);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_command_verbs),
		cmocka_unit_test(test_command_verb_text),
		cmocka_unit_test(test_command_ehlo),
		cmocka_unit_test(test_command_literal_nul),
		cmocka_unit_test(test_command_paths),
		cmocka_unit_test(test_command_source_route),
		cmocka_unit_test(test_command_address_limit),
		cmocka_unit_test(test_command_mail_params),
		cmocka_unit_test(test_command_rcpt_params),
		cmocka_unit_test(test_command_param_values),
		cmocka_unit_test(test_command_bdat),
		cmocka_unit_test(test_command_is_utf8),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
