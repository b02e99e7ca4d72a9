/* SPDX-License-Identifier: Apache-2.0 */

/*
 * notice_sample.c: notice_sample NAME prints a notice as it leaves, its original included, so that
 * parsers that others wrote can be asked what they make of it (tests/e2e/test_notice_format.py).
 * Without a name it lists the names.
 */

#include "tests/unit/notice_fixture.h"

#define ASCII_ORIGINAL                                                           \
	"Received: from x\r\nFrom: sender@b.example\r\nTo: b@adatum.example\r\n" \
	"Subject: Hello\r\nMessage-ID: <one@b.example>\r\n\r\n"
#define UTF8_ORIGINAL "From: s\xc3\xa9nder@b.example\r\nSubject: gr\xc3\xbc\xc3\x9f\r\n\r\n"

struct sample {
	const char *name;
	void (*change)(
		struct notice_text *text, struct envelope *original, struct notice_rcpt *rcpts);
	const char *copy;
};

static void sample_whole(
	struct notice_text *text, struct envelope *original, struct notice_rcpt *rcpts)
{
	(void)original;
	(void)rcpts;
	text->is_whole = true;
}

static void sample_headers(
	struct notice_text *text, struct envelope *original, struct notice_rcpt *rcpts)
{
	(void)text;
	(void)original;
	(void)rcpts;
}

static void sample_eight_bit(
	struct notice_text *text, struct envelope *original, struct notice_rcpt *rcpts)
{
	(void)rcpts;
	text->is_whole = true;
	original->flags = ENVELOPE_EIGHT_BIT;
}

static void sample_delayed(
	struct notice_text *text, struct envelope *original, struct notice_rcpt *rcpts)
{
	(void)text;
	original->envid = original->helo = original->client = original->message_id = span_of("");
	rcpts[0] = (struct notice_rcpt){.action = NOTICE_DELAYED,
		.path = span_of("<b@adatum.example>"),
		.retry_until_ms = NOTICE_NOW + 86400000};
}

static void sample_relayed(
	struct notice_text *text, struct envelope *original, struct notice_rcpt *rcpts)
{
	(void)text;
	(void)original;
	rcpts[0].action = NOTICE_RELAYED;
	rcpts[0].code = 250;
	rcpts[0].text = span_of("250 2.1.5 ok");
}

/* One of each, and more than there is room for. */
static void sample_mixed(
	struct notice_text *text, struct envelope *original, struct notice_rcpt *rcpts)
{
	(void)original;
	for (unsigned i = 1; i < NOTICE_RCPTS_MAX; i++) {
		rcpts[i] = rcpts[0];
		rcpts[i].action = (enum notice_action)(i % NOTICE_ACTION_COUNT);
		rcpts[i].code = 0;
		rcpts[i].text = span_of("");
	}
	text->rcpt_count = NOTICE_RCPTS_MAX + 20;
}

static void sample_utf8(
	struct notice_text *text, struct envelope *original, struct notice_rcpt *rcpts)
{
	text->is_whole = true;
	original->flags = ENVELOPE_SMTPUTF8 | ENVELOPE_UTF8_HEADER | ENVELOPE_EIGHT_BIT;
	original->sender = span_of("<s\xc3\xa9nder@b.example>");
	original->subject = span_of("gr\xc3\xbc\xc3\x9f");
	rcpts[0].path = span_of("<\xc3\xa9@adatum.example>");
	rcpts[0].orcpt = span_of("utf-8;\\x{E9}@adatum.example");
}

static void sample_hostile(
	struct notice_text *text, struct envelope *original, struct notice_rcpt *rcpts)
{
	static char filler[2000];
	static const char evil[] = "x\r\nBcc: all@b.example\r\n\r\n--=_\t\x01\xff\xc3\xa9 ";

	(void)text;
	for (size_t i = 0; i < sizeof(filler); i++)
		filler[i] = evil[i % (sizeof(evil) - 1)];
	original->subject = original->envid = original->helo = original->message_id =
		span_make(filler, sizeof(filler));
	rcpts[0].text = rcpts[0].remote = original->subject;
	rcpts[0].orcpt = span_of("rfc822;a+0D+0A+0D+0AX-Evil:+20b@c.example");
}

static const struct sample samples[] = {
	{"whole", sample_whole, ASCII_ORIGINAL "body without an end"},
	{"headers", sample_headers, ASCII_ORIGINAL},
	{"eight-bit", sample_eight_bit, ASCII_ORIGINAL "\xe4\xf6\xfc\r\n"},
	{"delayed", sample_delayed, ASCII_ORIGINAL},
	{"relayed", sample_relayed, ASCII_ORIGINAL},
	{"mixed", sample_mixed, ASCII_ORIGINAL},
	{"utf8", sample_utf8, UTF8_ORIGINAL "\xc3\xa9\r\n"},
	{"hostile", sample_hostile, ASCII_ORIGINAL},
};

static bool print_all(const uint8_t *bytes, size_t len)
{
	return len > 0 && fwrite(bytes, 1, len, stdout) == len;
}

static int sample_print(const struct sample *sample)
{
	static uint8_t head[NOTICE_HEAD_BYTES_MAX];
	static struct notice_rcpt rcpts[NOTICE_RCPTS_MAX];
	struct policy policy = notice_policy();
	struct envelope original = notice_original();
	struct notice_text text = {.policy = &policy,
		.original = &original,
		.original_id = 0xabc,
		.id = 0x10,
		.random = 0x1234567890abcdef,
		.now_ms = NOTICE_NOW,
		.rcpts = rcpts,
		.rcpt_count = 1};
	uint8_t tail[NOTICE_TAIL_BYTES_MAX] = {0};
	bool is_good;

	rcpts[0] = notice_refused();
	sample->change(&text, &original, rcpts);
	is_good = print_all(head, notice_write_head(&text, head, sizeof(head)));
	is_good = is_good && fputs(sample->copy, stdout) >= 0;
	is_good = is_good && print_all(tail, notice_write_tail(&text, tail, sizeof(tail)));
	return is_good && fflush(stdout) == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
	for (size_t i = 0; i < COUNT_OF(samples); i++) {
		if (argc < 2)
			(void)puts(samples[i].name);
		else if (strcmp(argv[1], samples[i].name) == 0)
			return sample_print(&samples[i]);
	}
	return argc < 2 ? 0 : 2;
}
