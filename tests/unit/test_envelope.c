/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/envelope.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* Where the texts of an envelope begin. */
#define HEAD_BYTES 42
#define CHANGE_HEAD_BYTES 20

static uint8_t bytes[ENVELOPE_BYTES_MAX + 64];

static struct envelope make_envelope(void)
{
	return (struct envelope){
		.body = BODY_8BITMIME,
		.flags = ENVELOPE_EIGHT_BIT | ENVELOPE_SECURED | ENVELOPE_RELAXED,
		.rcpt_count = 3,
		.arrived_ms = 1795967999123,
		.expires_ms = 1796140799123,
		.body_bytes = UINT64_MAX,
		.header_bytes = 300,
		.attempts = 7,
		.sender = span_of("<a@woodgrove.example>"),
		.ret = span_of("HDRS"),
		.envid = span_of("QQ314159"),
		.connector = span_of("internet"),
		.send_connector = span_of("partners"),
		.session = span_of("0a1b"),
		.client = span_of("192.0.2.7"),
		.helo = span_of("mx.woodgrove.example"),
		.domain = span_of("woodgrove.example"),
		.message_id = span_of("<1@woodgrove.example>"),
		.subject = span_of("h\xc3\xa4llo"),
		.server = span_of("[2001:db8::1]:25"),
		.tls = span_of("TLSv1.3 TLS_AES_256_GCM_SHA384"),
		.origin = span_of("00000000000000ff"),
	};
}

static const struct envelope_rcpt rcpts[] = {
	{RCPT_OPEN, {(const uint8_t *)"<b@adatum.example>", 18}, {0}, {0}},
	{RCPT_FAILED, {(const uint8_t *)"<c@adatum.example>", 18},
		{(const uint8_t *)"SUCCESS,DELAY", 13}, {(const uint8_t *)"rfc822;c@x", 10}},
	{RCPT_REMOVED, {(const uint8_t *)"<postmaster>", 12}, {(const uint8_t *)"NEVER", 5}, {0}},
};

/* The envelope above in bytes; its length. */
static size_t write_whole(const struct envelope *envelope)
{
	size_t len = envelope_write(envelope, bytes, sizeof(bytes));

	assert_int_not_equal(len, 0);
	for (size_t i = 0; i < COUNT_OF(rcpts); i++) {
		const size_t more =
			envelope_write_rcpt(&rcpts[i], bytes + len, sizeof(bytes) - len);

		assert_int_not_equal(more, 0);
		len += more;
	}
	return len;
}

/* From a block of its own length, so that a read behind it is seen. */
static bool read_copy(size_t len)
{
	uint8_t *copy = malloc(len > 0 ? len : 1);
	struct envelope out;
	bool is_good;

	assert_non_null(copy);
	memcpy(copy, bytes, len);
	is_good = envelope_read(span_make(copy, len), &out);
	free(copy);
	return is_good;
}

static void assert_span(struct span have, struct span want)
{
	assert_int_equal(have.len, want.len);
	assert_true(span_equal(have, want));
}

static void assert_same(const struct envelope *have, const struct envelope *want)
{
	assert_int_equal(have->body, want->body);
	assert_int_equal(have->flags, want->flags);
	assert_int_equal(have->rcpt_count, want->rcpt_count);
	assert_int_equal(have->arrived_ms, want->arrived_ms);
	assert_int_equal(have->expires_ms, want->expires_ms);
	assert_int_equal(have->body_bytes, want->body_bytes);
	assert_int_equal(have->header_bytes, want->header_bytes);
	assert_int_equal(have->attempts, want->attempts);
	assert_span(have->sender, want->sender);
	assert_span(have->ret, want->ret);
	assert_span(have->envid, want->envid);
	assert_span(have->connector, want->connector);
	assert_span(have->send_connector, want->send_connector);
	assert_span(have->session, want->session);
	assert_span(have->client, want->client);
	assert_span(have->helo, want->helo);
	assert_span(have->domain, want->domain);
	assert_span(have->message_id, want->message_id);
	assert_span(have->subject, want->subject);
	assert_span(have->server, want->server);
	assert_span(have->tls, want->tls);
	assert_span(have->origin, want->origin);
}

static void test_round_trip(void **state)
{
	const struct envelope in = make_envelope();
	const size_t len = write_whole(&in);
	struct envelope out;
	struct envelope_rcpt rcpt;
	size_t at = 0;
	(void)state;

	assert_true(envelope_read(span_make(bytes, len), &out));
	assert_same(&out, &in);
	for (size_t i = 0; i < COUNT_OF(rcpts); i++) {
		assert_true(envelope_next(&out, &at, &rcpt));
		assert_int_equal(rcpt.state, rcpts[i].state);
		assert_span(rcpt.path, rcpts[i].path);
		assert_span(rcpt.notify, rcpts[i].notify);
		assert_span(rcpt.orcpt, rcpts[i].orcpt);
	}
	assert_false(envelope_next(&out, &at, &rcpt));
	assert_false(envelope_next(&out, &at, &rcpt));
}

static void test_least(void **state)
{
	const struct envelope in = {.sender = span_of("<>")};
	struct envelope out;
	struct envelope_rcpt rcpt;
	size_t at = 0;
	size_t len;
	(void)state;

	len = envelope_write(&in, bytes, sizeof(bytes));
	assert_int_equal(len, HEAD_BYTES + 14 * 2 + 2);
	assert_true(envelope_read(span_make(bytes, len), &out));
	assert_same(&out, &in);
	assert_false(envelope_next(&out, &at, &rcpt));
}

static void test_truncated(void **state)
{
	const struct envelope in = make_envelope();
	const size_t len = write_whole(&in);
	(void)state;

	for (size_t cut = 0; cut < len; cut++)
		assert_false(read_copy(cut));
	assert_true(read_copy(len));
	bytes[len] = 0;
	assert_false(read_copy(len + 1));
}

/* One byte of a good envelope is another. */
static void test_odd(void **state)
{
	static const struct {
		const char *name;
		size_t at;
		uint8_t value;
	} cases[] = {
		{"another version", 0, 2},
		{"no body type", 1, BODY_BINARYMIME + 1},
		{"an unknown flag", 3, 2},
		{"fewer recipients", 4, 2},
		{"more recipients", 4, 4},
		{"recipients beyond all", 7, 0xff},
		{"a shorter sender", HEAD_BYTES, 20},
		{"a sender beyond all", HEAD_BYTES + 1, 0xff},
		{"a sender without bracket", HEAD_BYTES + 2, 'a'},
		{"a sender without its end", HEAD_BYTES + 2 + 20, 'e'},
		{"CR", HEAD_BYTES + 5, '\r'},
		{"LF", HEAD_BYTES + 5, '\n'},
		{"NUL", HEAD_BYTES + 5, '\0'},
		{"LF in ret", HEAD_BYTES + 2 + 21 + 2, '\n'},
	};
	const struct envelope in = make_envelope();
	(void)state;

	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		const size_t len = write_whole(&in);

		print_message("%s\n", cases[i].name);
		bytes[cases[i].at] = cases[i].value;
		assert_false(read_copy(len));
	}
}

static void test_odd_rcpts(void **state)
{
	static const struct {
		const char *name;
		size_t at; /* in the first recipient */
		uint8_t value;
	} cases[] = {
		{"no state", 0, RCPT_STATE_COUNT},
		{"a shorter path", 1, 17},
		{"a path beyond all", 2, 0xff},
		{"a path without bracket", 3, 'b'},
		{"LF", 5, '\n'},
		{"a longer notify", 1 + 2 + 18, 1},
	};
	const struct envelope in = make_envelope();
	(void)state;

	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		const size_t first = envelope_write(&in, bytes, sizeof(bytes));
		const size_t len = write_whole(&in);

		print_message("%s\n", cases[i].name);
		bytes[first + cases[i].at] = cases[i].value;
		assert_false(read_copy(len));
	}
}

/* Nothing is written beyond the room, and nothing in part. */
static void test_room(void **state)
{
	const struct envelope in = make_envelope();
	const size_t len = envelope_write(&in, bytes, sizeof(bytes));
	const size_t rcpt_len = envelope_write_rcpt(&rcpts[1], bytes, sizeof(bytes));
	(void)state;

	for (size_t room = 0; room < len; room++) {
		bytes[room] = 0x5a;
		assert_int_equal(envelope_write(&in, bytes, room), 0);
		assert_int_equal(bytes[room], 0x5a);
	}
	assert_int_equal(envelope_write(&in, bytes, len), len);
	for (size_t room = 0; room < rcpt_len; room++) {
		bytes[room] = 0x5a;
		assert_int_equal(envelope_write_rcpt(&rcpts[1], bytes, room), 0);
		assert_int_equal(bytes[room], 0x5a);
	}
	assert_int_equal(envelope_write_rcpt(&rcpts[1], bytes, rcpt_len), rcpt_len);
}

/* A writer refuses what its reader would. */
static void test_refused(void **state)
{
	static char longest[UINT16_MAX + 2];
	static const struct span bad[] = {
		{(const uint8_t *)"<a\r@b>", 6},
		{(const uint8_t *)"<a\n@b>", 6},
		{(const uint8_t *)"<a\0@b>", 6},
		{(const uint8_t *)longest, UINT16_MAX + 1},
	};
	static const struct span no_path[] = {
		{(const uint8_t *)"a@b", 3},
		{(const uint8_t *)"<a@b", 4},
		{(const uint8_t *)"a@b>", 4},
		{(const uint8_t *)"<", 1},
		{NULL, 0},
	};
	(void)state;

	memset(longest, 'x', sizeof(longest));
	for (size_t i = 0; i < COUNT_OF(bad); i++) {
		struct envelope in = make_envelope();
		struct envelope_rcpt rcpt = rcpts[0];

		in.sender = bad[i];
		assert_int_equal(envelope_write(&in, bytes, sizeof(bytes)), 0);
		in = make_envelope();
		in.helo = bad[i];
		assert_int_equal(envelope_write(&in, bytes, sizeof(bytes)), 0);
		rcpt.orcpt = bad[i];
		assert_int_equal(envelope_write_rcpt(&rcpt, bytes, sizeof(bytes)), 0);
	}
	for (size_t i = 0; i < COUNT_OF(no_path); i++) {
		struct envelope in = make_envelope();
		struct envelope_rcpt rcpt = rcpts[0];

		in.sender = no_path[i];
		rcpt.path = no_path[i];
		assert_int_equal(envelope_write(&in, bytes, sizeof(bytes)), 0);
		assert_int_equal(envelope_write_rcpt(&rcpt, bytes, sizeof(bytes)), 0);
	}
}

/* What a header brought is made fit instead: it is for people. */
static void test_header_text(void **state)
{
	struct envelope in = make_envelope();
	struct envelope out;
	size_t len;
	(void)state;

	in.subject = span_make("one\r\n two\0", 10);
	in.message_id = span_of("<1\n@b>");
	in.attempts = 100000;
	len = write_whole(&in);
	assert_true(envelope_read(span_make(bytes, len), &out));
	assert_span(out.subject, span_of("one   two "));
	assert_span(out.message_id, span_of("<1 @b>"));
	assert_int_equal(out.attempts, UINT16_MAX);
}

/* The largest that there is, and one byte more. */
static void test_longest(void **state)
{
	static char text[UINT16_MAX];
	struct envelope in = {.sender = span_of("<>")};
	struct envelope out;
	size_t len;
	(void)state;

	memset(text, 'x', sizeof(text));
	in.helo = in.session = in.client = span_make(text, sizeof(text));
	in.connector = span_make(text, ENVELOPE_BYTES_MAX - 3 * UINT16_MAX - HEAD_BYTES - 28 - 2);
	len = envelope_write(&in, bytes, sizeof(bytes));
	assert_int_equal(len, ENVELOPE_BYTES_MAX);
	assert_true(envelope_read(span_make(bytes, len), &out));
	in.connector.len++;
	len = envelope_write(&in, bytes, sizeof(bytes));
	assert_int_equal(len, ENVELOPE_BYTES_MAX + 1);
	assert_false(envelope_read(span_make(bytes, len), &out));
}

static void test_patch(void **state)
{
	struct envelope want = make_envelope();
	const size_t len = write_whole(&want);
	struct envelope out;
	struct envelope_rcpt rcpt;
	size_t at = 0;
	(void)state;

	want.flags = ENVELOPE_SUSPENDED | ENVELOPE_DELAY_TOLD;
	want.attempts = 300;
	envelope_patch(bytes, len, want.flags, want.attempts);
	envelope_patch_rcpt(bytes, len, 0, RCPT_RELAYED);
	envelope_patch_rcpt(bytes, len, 2, RCPT_EXPIRED);
	assert_true(envelope_read(span_make(bytes, len), &out));
	assert_same(&out, &want);
	assert_true(envelope_next(&out, &at, &rcpt));
	assert_int_equal(rcpt.state, RCPT_RELAYED);
	assert_span(rcpt.path, rcpts[0].path);
	assert_true(envelope_next(&out, &at, &rcpt));
	assert_int_equal(rcpt.state, rcpts[1].state);
	assert_true(envelope_next(&out, &at, &rcpt));
	assert_int_equal(rcpt.state, RCPT_EXPIRED);
	envelope_patch(bytes, len, 0, 1 << 20);
	assert_true(envelope_read(span_make(bytes, len), &out));
	assert_int_equal(out.attempts, UINT16_MAX);
}

static const struct envelope_change_rcpt changed[] = {
	{0, RCPT_DELIVERED, 250, {(const uint8_t *)"2.0.0 OK", 8}},
	{70000, RCPT_FAILED, 550, {(const uint8_t *)"5.1.1 No such user", 18}},
};

static size_t write_change(void)
{
	const struct envelope_change change = {
		.flags = ENVELOPE_SMTPUTF8 | ENVELOPE_SUSPENDED,
		.attempts = 4,
		.next_ms = -1,
		.where = span_of("mx.adatum.example[192.0.2.1]:25"),
		.text = span_of("450 4.7.1 later"),
		.count = 2,
	};
	size_t len = envelope_write_change(&change, bytes, sizeof(bytes));

	assert_int_not_equal(len, 0);
	for (size_t i = 0; i < COUNT_OF(changed); i++)
		len += envelope_write_change_rcpt(&changed[i], bytes + len, sizeof(bytes) - len);
	return len;
}

static bool read_change_copy(size_t len)
{
	uint8_t *copy = malloc(len > 0 ? len : 1);
	struct envelope_change out;
	bool is_good;

	assert_non_null(copy);
	memcpy(copy, bytes, len);
	is_good = envelope_read_change(span_make(copy, len), &out);
	free(copy);
	return is_good;
}

static void test_change(void **state)
{
	const size_t len = write_change();
	struct envelope_change out;
	struct envelope_change_rcpt rcpt;
	size_t at = 0;
	(void)state;

	assert_true(envelope_read_change(span_make(bytes, len), &out));
	assert_int_equal(out.flags, ENVELOPE_SMTPUTF8 | ENVELOPE_SUSPENDED);
	assert_int_equal(out.attempts, 4);
	assert_int_equal(out.next_ms, -1);
	assert_int_equal(out.count, 2);
	assert_span(out.where, span_of("mx.adatum.example[192.0.2.1]:25"));
	assert_span(out.text, span_of("450 4.7.1 later"));
	for (size_t i = 0; i < COUNT_OF(changed); i++) {
		assert_true(envelope_change_next(&out, &at, &rcpt));
		assert_int_equal(rcpt.index, changed[i].index);
		assert_int_equal(rcpt.state, changed[i].state);
		assert_int_equal(rcpt.code, changed[i].code);
		assert_span(rcpt.text, changed[i].text);
	}
	assert_false(envelope_change_next(&out, &at, &rcpt));
	for (size_t cut = 0; cut < len; cut++)
		assert_false(read_change_copy(cut));
	bytes[len] = 0;
	assert_false(read_change_copy(len + 1));
}

static void test_odd_changes(void **state)
{
	/* Behind where and text. */
	enum { FIRST = CHANGE_HEAD_BYTES + 2 + 31 + 2 + 15 };
	static const struct {
		const char *name;
		size_t at;
		uint8_t value;
	} cases[] = {
		{"another version", 0, 0},
		{"no zero", 1, 1},
		{"an unknown flag", 3, 2},
		{"no zero again", 7, 1},
		{"fewer", 8, 1},
		{"more", 8, 3},
		{"beyond all", 11, 0xff},
		{"where beyond all", CHANGE_HEAD_BYTES + 1, 0xff},
		{"LF in where", CHANGE_HEAD_BYTES + 3, '\n'},
		{"CR in text", FIRST - 1, '\r'},
		{"no state", FIRST + 4, RCPT_STATE_COUNT},
		{"no zero in a recipient", FIRST + 5, 1},
		{"no code", FIRST + 7, 4},
		{"text beyond all", FIRST + 9, 1},
		{"NUL in its text", FIRST + 10, '\0'},
	};
	(void)state;

	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		const size_t len = write_change();

		print_message("%s\n", cases[i].name);
		bytes[cases[i].at] = cases[i].value;
		assert_false(read_change_copy(len));
	}
}

static void test_change_text(void **state)
{
	static char text[700];
	struct envelope_change in = {.attempts = 1 << 16, .where = span_of("a\r\nb")};
	struct envelope_change out;
	struct envelope_change_rcpt rcpt = {.state = RCPT_OPEN};
	size_t len, rcpt_len;
	(void)state;

	/* The 500th byte and the next are one character. */
	memset(text, 'x', sizeof(text));
	memcpy(text + 499, "\xc3\xa4", 2);
	in.text = span_make(text, sizeof(text));
	len = envelope_write_change(&in, bytes, sizeof(bytes));
	assert_true(envelope_read_change(span_make(bytes, len), &out));
	assert_span(out.where, span_of("a  b"));
	assert_span(out.text, span_make(text, 499));
	assert_int_equal(out.attempts, UINT16_MAX);
	for (size_t room = 0; room < len; room++)
		assert_int_equal(envelope_write_change(&in, bytes, room), 0);
	/* What is no UTF-8 at all is cut a bit sooner. */
	memset(text, 0xbf, sizeof(text));
	rcpt.text = span_make(text, sizeof(text));
	rcpt_len = envelope_write_change_rcpt(&rcpt, bytes + len, sizeof(bytes) - len);
	assert_int_equal(rcpt_len, 8 + 2 + ENVELOPE_CHANGE_TEXT_BYTES_MAX - 3);
	for (size_t room = 0; room < rcpt_len; room++)
		assert_int_equal(envelope_write_change_rcpt(&rcpt, bytes, room), 0);
}

static void test_words(void **state)
{
	(void)state;

	assert_string_equal(rcpt_state_word(RCPT_OPEN), "open");
	assert_string_equal(rcpt_state_word(RCPT_DELIVERED), "delivered");
	assert_string_equal(rcpt_state_word(RCPT_RELAYED), "relayed");
	assert_string_equal(rcpt_state_word(RCPT_FAILED), "failed");
	assert_string_equal(rcpt_state_word(RCPT_EXPIRED), "expired");
	assert_string_equal(rcpt_state_word(RCPT_REMOVED), "removed");
	assert_string_equal(rcpt_state_word(RCPT_STATE_COUNT), "?");
}

static void test_ids(void **state)
{
	static const char *const bad[] = {"", "0", "0123456789abcde", "0123456789abcdef0",
		"0123456789abcdeg", "0x23456789abcdef", " 123456789abcdef", "0123456789abcde@"};
	static const uint64_t ids[] = {0, 1, 0x0123456789abcdef, UINT64_MAX};
	char text[MESSAGE_ID_TEXT_BYTES];
	uint64_t id;
	(void)state;

	for (size_t i = 0; i < COUNT_OF(ids); i++) {
		message_id_print(ids[i], text);
		assert_true(message_id_parse(span_of(text), &id));
		assert_int_equal(id, ids[i]);
	}
	assert_string_equal(text, "ffffffffffffffff");
	assert_true(message_id_parse(span_of("0123456789ABCDEF"), &id));
	assert_int_equal(id, 0x0123456789abcdef);
	for (size_t i = 0; i < COUNT_OF(bad); i++)
		assert_false(message_id_parse(span_of(bad[i]), &id));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_least),
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_odd),
		cmocka_unit_test(test_odd_rcpts),
		cmocka_unit_test(test_room),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_header_text),
		cmocka_unit_test(test_longest),
		cmocka_unit_test(test_patch),
		cmocka_unit_test(test_change),
		cmocka_unit_test(test_odd_changes),
		cmocka_unit_test(test_change_text),
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_ids),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
