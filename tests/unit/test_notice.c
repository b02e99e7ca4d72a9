/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_notice.c: the job that makes a notice.
 */

#include "relay/base/track.h"
#include "tests/unit/notice_fake.h"

struct asked {
	struct notice notice;
	bool is_done;
	int result;
};

static struct asked asked[NOTICES_AT_ONCE + 4];
static struct notice_maker *maker;
static unsigned answers;
static bool asks_again;

static void on_done(struct notice *notice, int result)
{
	struct asked *mine = OWNER_OF(notice, struct asked, notice);

	assert_false(mine->is_done);
	mine->is_done = true;
	mine->result = result;
	answers++;
	if (asks_again) {
		asks_again = false;
		mine->is_done = false;
		notice_make(maker, notice);
	}
}

static const char short_body[] = "Received: x\r\nX-MS-Exchange-Organization-AuthAs: Internal\r\n"
				 "X-Postern-Secure: yes\r\nSubject: Hello\r\n\r\n"
				 "X-MS-Exchange-Organization-SCL: 1\r\nbody\r\n.\r\n";

static int setup(void **state)
{
	(void)state;
	counters = (struct stats){0};
	stats_mine = &counters;
	policy = notice_policy();
	original = notice_original();
	body = short_body;
	original.body_bytes = strlen(body);
	original.header_bytes = (uint64_t)(strstr(body, "\r\n\r\n") + 4 - body);
	memset(&fake, 0, sizeof(fake));
	fake.piece = 7;
	fake.room = 2048;
	answers = 0;
	asks_again = false;
	for (unsigned i = 0; i < MESSAGES; i++)
		messages[i].is_used = false;
	for (unsigned i = 0; i < COUNT_OF(asked); i++) {
		asked[i].is_done = false;
		asked[i].notice = (struct notice){.on_done = on_done,
			.original = &original_message,
			.policy = &policy,
			.now_ms = NOTICE_NOW,
			.rcpt_count = 1};
		asked[i].notice.rcpts[0] = notice_refused();
	}
	return notice_maker_create(NULL, NULL, &maker);
}

static int teardown(void **state)
{
	(void)state;
	notice_maker_destroy(&maker);
	notice_maker_destroy(&maker);
	for (unsigned i = 0; i < READERS; i++)
		if (readers[i].reader != NULL || writers[i].writer != NULL)
			return -1;
	return 0;
}

static void make_one(int want)
{
	notice_make(maker, &asked[0].notice);
	assert_false(asked[0].is_done);
	assert_false(notice_maker_is_idle(maker));
	turns(2000);
	assert_true(asked[0].is_done);
	assert_int_equal(asked[0].result, want);
	assert_true(notice_maker_is_idle(maker));
	assert_int_equal(messages[0].is_used, want == 0);
	assert_int_equal(counters.notices_unmade, want == 0 ? 0 : 1);
	if (want == 0)
		messages[0].body[messages[0].len] = '\0';
}

static void has(const char *what)
{
	if (strstr((const char *)messages[0].body, what) == NULL)
		fail_msg("\"%s\" is not in:\n%s", what, (const char *)messages[0].body);
}

static void lacks(const char *what)
{
	if (strstr((const char *)messages[0].body, what) != NULL)
		fail_msg("\"%s\" is in:\n%s", what, (const char *)messages[0].body);
}

static void test_whole(void **state)
{
	const struct envelope *envelope = &messages[0].submitted;
	struct envelope_rcpt rcpt;
	const char *end;
	size_t at = 0;

	(void)state;
	make_one(0);
	has("Content-Type: message/rfc822\r\n");
	has("\r\n\r\nReceived: x\r\nSubject: Hello\r\n\r\n"
	    "X-MS-Exchange-Organization-SCL: 1\r\nbody\r\n.\r\n\r\n--=_");
	lacks("AuthAs");
	lacks("X-Postern-Secure");
	end = (const char *)messages[0].body + messages[0].len;
	assert_string_equal(end - 4, "--\r\n");

	assert_true(span_equal(envelope->sender, span_of("<>")));
	assert_int_equal(envelope->flags, ENVELOPE_NOTICE);
	assert_int_equal(envelope->body, BODY_7BIT);
	assert_int_equal(envelope->arrived_ms, NOTICE_NOW);
	assert_int_equal(envelope->expires_ms, NOTICE_NOW + 172800000);
	assert_int_equal(envelope->body_bytes, messages[0].len);
	end = strstr((const char *)messages[0].body, "\r\n\r\n") + 4;
	assert_int_equal(envelope->header_bytes, end - (const char *)messages[0].body);
	assert_true(span_equal(envelope->origin, span_of("0000000000000abc")));
	assert_true(span_equal(envelope->subject, span_of("Undeliverable: Hello")));
	assert_true(memmem(messages[0].body, messages[0].len, envelope->message_id.data,
			    envelope->message_id.len) != NULL);
	assert_int_equal(envelope->rcpt_count, 1);
	assert_true(envelope_next(envelope, &at, &rcpt));
	assert_true(span_equal(rcpt.path, span_of("<sender@b.example>")));
	assert_true(span_equal(rcpt.notify, span_of("NEVER")));
	assert_int_equal(rcpt.state, RCPT_OPEN);
	assert_int_equal(counters.notices_failed, 1);
}

/* However small the pieces and the room, the same bytes come out; the boundary is another. */
static void test_pieces(void **state)
{
	static const size_t pieces[] = {1, 2, 13, 100, 4096};
	size_t len = 0;

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(pieces); i++) {
		messages[0].is_used = asked[0].is_done = false;
		fake.piece = pieces[i];
		fake.room = pieces[COUNT_OF(pieces) - 1 - i];
		make_one(0);
		assert_true(i == 0 || messages[0].len == len);
		len = messages[0].len;
		has("\r\n\r\nReceived: x\r\nSubject: Hello\r\n\r\n"
		    "X-MS-Exchange-Organization-SCL: 1\r\nbody\r\n.\r\n\r\n--=_");
	}
	assert_int_equal(counters.notices_failed, COUNT_OF(pieces));
}

static void test_header_only(void **state)
{
	static const struct {
		enum notice_action action;
		const char *ret;
		enum body_type body;
		uint64_t bytes_max;
		bool is_whole;
	} cases[] = {
		{NOTICE_FAILED, "", BODY_UNSAID, 1000, true},
		{NOTICE_FAILED, "FULL", BODY_8BITMIME, 1000, true},
		{NOTICE_FAILED, "HDRS", BODY_UNSAID, 1000, false},
		{NOTICE_FAILED, "hdrs", BODY_UNSAID, 1000, false},
		{NOTICE_FAILED, "FULL", BODY_UNSAID, sizeof(short_body) - 1, true},
		{NOTICE_FAILED, "FULL", BODY_UNSAID, sizeof(short_body) - 2, false},
		{NOTICE_FAILED, "FULL", BODY_BINARYMIME, 1000, false},
		{NOTICE_DELAYED, "FULL", BODY_UNSAID, 1000, false},
		{NOTICE_DELIVERED, "FULL", BODY_UNSAID, 1000, false},
		{NOTICE_RELAYED, "FULL", BODY_UNSAID, 1000, false},
	};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(cases); i++) {
		messages[0].is_used = asked[0].is_done = false;
		asked[0].notice.rcpts[0].action = cases[i].action;
		original.ret = span_of(cases[i].ret);
		original.body = cases[i].body;
		policy.queue.notice_original_bytes = cases[i].bytes_max;
		make_one(0);
		has(cases[i].is_whole ? "Content-Type: message/rfc822\r\n"
				      : "Content-Type: text/rfc822-headers\r\n");
		has(cases[i].is_whole ? "body\r\n.\r\n\r\n--=_" : "Subject: Hello\r\n\r\n\r\n--=_");
		if (!cases[i].is_whole)
			lacks("\r\nbody\r\n");
		lacks("AuthAs");
	}
	assert_int_equal(counters.notices_failed, 7);
	assert_int_equal(counters.notices_delayed, 1);
	assert_int_equal(counters.notices_success, 2);
}

/* A header that ends with the message: the firewall holds its end back, and it still comes. */
static void test_cut_header(void **state)
{
	(void)state;
	body = "Received: x\r\nX-MS-Exchange-Or";
	original.body_bytes = original.header_bytes = strlen(body);
	make_one(0);
	has("\r\n\r\nReceived: x\r\nX-MS-Exchange-Or\r\n--=_");
	messages[0].is_used = asked[0].is_done = false;
	body = "";
	original.body_bytes = original.header_bytes = 0;
	make_one(0);
	has("7bit\r\n\r\n\r\n--=_");
}

static void test_flags(void **state)
{
	static const struct {
		unsigned flags, want;
		const char *sender;
		enum body_type body;
	} cases[] = {
		{ENVELOPE_RELAXED, 0, "<s@b.example>", BODY_7BIT},
		{ENVELOPE_EIGHT_BIT, ENVELOPE_EIGHT_BIT, "<s@b.example>", BODY_8BITMIME},
		{ENVELOPE_SMTPUTF8, 0, "<s@b.example>", BODY_7BIT},
		{ENVELOPE_SMTPUTF8 | ENVELOPE_UTF8_HEADER, ENVELOPE_SMTPUTF8 | ENVELOPE_EIGHT_BIT,
			"<s@b.example>", BODY_8BITMIME},
		{ENVELOPE_SMTPUTF8, ENVELOPE_SMTPUTF8 | ENVELOPE_EIGHT_BIT | ENVELOPE_UTF8_HEADER,
			"<\xc3\xa9@b.example>", BODY_8BITMIME},
	};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(cases); i++) {
		messages[0].is_used = asked[0].is_done = false;
		original.flags = cases[i].flags;
		original.sender = span_of(cases[i].sender);
		make_one(0);
		assert_int_equal(messages[0].submitted.flags, cases[i].want | ENVELOPE_NOTICE);
		assert_int_equal(messages[0].submitted.body, cases[i].body);
	}
}

static void test_errors(void **state)
{
	static const struct {
		int *where;
		int error;
	} cases[] = {{&fake.read, -EBADMSG}, {&fake.text, -EIO}, {&fake.begin, -ENOSPC},
		{&fake.broken, -EIO}, {&fake.commit, -EIO}};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(cases); i++) {
		asked[0].is_done = false;
		counters.notices_unmade = 0;
		*cases[i].where = cases[i].error;
		make_one(cases[i].error);
		*cases[i].where = 0;
	}
	asked[0].is_done = false;
	counters.notices_unmade = 0;
	fake.is_full = true;
	make_one(-ENOBUFS);
	fake.is_full = false;
	assert_int_equal(counters.notices_failed, 0);
	asked[0].is_done = false;
	counters.notices_unmade = 0;
	make_one(0);
}

static void test_null_sender(void **state)
{
	(void)state;
	original.sender = span_of("<>");
	make_one(-EINVAL);
}

/* More than are made at a time wait, and come in order; who is answered may ask again. */
static void test_line(void **state)
{
	unsigned reading = 0;

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(asked); i++)
		notice_make(maker, &asked[i].notice);
	for (unsigned i = 0; i < READERS; i++)
		reading += readers[i].reader != NULL;
	assert_int_equal(reading, NOTICES_AT_ONCE);
	assert_int_equal(answers, 0);
	asks_again = true;
	turns(4000);
	assert_int_equal(answers, COUNT_OF(asked) + 1);
	for (unsigned i = 0; i < COUNT_OF(asked); i++) {
		assert_true(asked[i].is_done);
		assert_int_equal(asked[i].result, 0);
	}
	assert_int_equal(counters.notices_failed, COUNT_OF(asked) + 1);
}

static void test_abort(void **state)
{
	(void)state;
	fake.is_stuck = true;
	for (unsigned i = 0; i < COUNT_OF(asked); i++)
		notice_make(maker, &asked[i].notice);
	turns(3);
	assert_int_equal(answers, 0);
	notice_maker_abort(maker);
	assert_int_equal(answers, COUNT_OF(asked));
	for (unsigned i = 0; i < COUNT_OF(asked); i++)
		assert_int_equal(asked[i].result, -ECANCELED);
	assert_true(notice_maker_is_idle(maker));
	for (unsigned i = 0; i < MESSAGES; i++)
		assert_false(messages[i].is_used);
}

/* What is being committed is not taken back. */
static void test_abort_commit(void **state)
{
	(void)state;
	fake.is_slow = true;
	notice_make(maker, &asked[0].notice);
	turns(2000);
	assert_true(writers[0].wants_commit);
	notice_maker_abort(maker);
	assert_int_equal(answers, 0);
	assert_false(notice_maker_is_idle(maker));
	fake.is_slow = false;
	turns(1);
	assert_int_equal(answers, 1);
	assert_int_equal(asked[0].result, 0);
	assert_true(messages[0].is_submitted);
}

static void test_tracked(void **state)
{
	static char folder[] = "/tmp/postern-test-notice-XXXXXX";
	const struct logset_options options = {folder, 1000000, 1000000, 1000000};
	char path[128], text[4096];
	FILE *file;
	size_t len;

	(void)state;
	assert_non_null(mkdtemp(folder));
	assert_int_equal(track_start(&options, 1), 0);
	track_attach(0);
	policy.queue.tracking_log_subject = true;
	make_one(0);
	policy.queue.tracking_log_subject = false;
	messages[0].is_used = asked[0].is_done = false;
	original.message_id = span_of("");
	make_one(0);
	track_stop();
	(void)snprintf(path, sizeof(path), "ls %s", folder);
	file = popen(path, "r");
	assert_non_null(file);
	len = (size_t)snprintf(path, sizeof(path), "%s/", folder);
	assert_non_null(fgets(path + len, (int)(sizeof(path) - len), file));
	(void)pclose(file);
	path[strcspn(path, "\n")] = '\0';
	file = fopen(path, "r");
	assert_non_null(file);
	len = fread(text, 1, sizeof(text) - 1, file);
	text[len] = '\0';
	(void)fclose(file);
	(void)unlink(path);
	(void)rmdir(folder);
	assert_non_null(strstr(text, ",edge.a.example,failed,,DSN,DSN,0000000000000001,<"));
	assert_non_null(strstr(text, ",sender@b.example,,"));
	assert_non_null(strstr(text, ",1,,<one@b.example>,Undeliverable: Hello,,,"));
	assert_non_null(strstr(text, ",1,,0000000000000abc,,,,"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(test_whole), TEST(test_pieces),
		TEST(test_header_only), TEST(test_cut_header), TEST(test_flags), TEST(test_errors),
		TEST(test_null_sender), TEST(test_line), TEST(test_abort), TEST(test_abort_commit),
		TEST(test_tracked)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
