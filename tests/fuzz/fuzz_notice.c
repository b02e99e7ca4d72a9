/* SPDX-License-Identifier: Apache-2.0 */

/*
 * fuzz_notice.c: whatever peers have said, a notice has the lines that it should have, and no
 * others: each ends in CR LF, is short enough, has no control, and bytes over 127 only where the
 * kind has them; its header has the fields that we wrote. The input is cut into the fields by its
 * own lengths.
 */

#include "tests/unit/notice_fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t page[NOTICE_HEAD_BYTES_MAX];

/* A byte says how long the next field is, in eights. */
static struct span fuzz_field(struct span *in)
{
	struct span field;
	size_t len;

	if (in->len == 0)
		return span_of("");
	len = (size_t)in->data[0] * 8;
	*in = span_skip(*in, 1);
	field = span_head(*in, len);
	*in = span_skip(*in, field.len);
	return field;
}

static void fuzz_check_lines(struct span text, bool is_utf8)
{
	size_t width = 0;

	for (size_t i = 0; i < text.len; i++) {
		const uint8_t byte = text.data[i];

		if (byte == '\r') {
			ASSERT(i + 1 < text.len && text.data[i + 1] == '\n' && width <= 998);
			width = 0;
			i++;
			continue;
		}
		ASSERT(byte == '\t' ? width == 0 : byte >= ' ' && byte != 0x7f);
		ASSERT(byte < 0x80 || is_utf8);
		width++;
	}
	ASSERT(width == 0);
}

/* How many lines of the header there are up to the empty one; none begins with "Bcc". */
static unsigned fuzz_header_lines(struct span text)
{
	unsigned lines = 0;

	while (text.len > 0 && text.data[0] != '\r') {
		ASSERT(!span_starts_nocase(text, span_of("bcc")));
		text = span_skip(text, span_find(text, '\n') + 1);
		lines++;
	}
	return lines;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span in = span_make(data, size);
	const struct policy policy = notice_policy();
	struct envelope original = notice_original();
	struct notice_rcpt rcpts[2] = {notice_refused(), notice_refused()};
	const struct notice_text text = {.policy = &policy,
		.original = &original,
		.now_ms = NOTICE_NOW,
		.rcpts = rcpts,
		.rcpt_count = COUNT_OF(rcpts)};
	uint8_t subject[NOTICE_SUBJECT_BYTES];
	char status[12];
	unsigned lines;
	size_t len;

	if (size < 2)
		return 0;
	original.flags = (data[0] & 1) != 0 ? ENVELOPE_SMTPUTF8 | ENVELOPE_UTF8_HEADER : 0;
	rcpts[0].action = (enum notice_action)((data[0] >> 1) % NOTICE_ACTION_COUNT);
	rcpts[0].code = data[1] * 4u;
	in = span_skip(in, 2);
	original.subject = fuzz_field(&in);
	original.sender = fuzz_field(&in);
	original.envid = fuzz_field(&in);
	original.helo = fuzz_field(&in);
	original.message_id = fuzz_field(&in);
	rcpts[0].path = fuzz_field(&in);
	rcpts[0].orcpt = fuzz_field(&in);
	rcpts[0].text = fuzz_field(&in);
	rcpts[0].remote = fuzz_field(&in);
	len = notice_write_head(&text, page, sizeof(page));
	ASSERT(len > 0);
	fuzz_check_lines(span_make(page, len), notice_is_utf8(&text));
	lines = fuzz_header_lines(span_make(page, len));
	ASSERT(lines == 11 || lines == 13);
	ASSERT(notice_subject(&text, subject) <= sizeof(subject));
	notice_status(&rcpts[0], status);
	ASSERT(status[1] == '.' && strlen(status) >= 5);
	return 0;
}
