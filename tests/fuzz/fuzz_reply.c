/* SPDX-License-Identifier: Apache-2.0 */

/*
 * fuzz_reply.c: reply_parse() and reply_parse_ehlo() on any bytes. A reply must
 * be made of lines of one code, and what was asked for more of must not be an
 * answer of another kind with less.
 */

#include "relay/smtp/reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_BYTES_MAX 1024

static void fuzz_check_inside(struct span part, struct span whole)
{
	ASSERT(part.len == 0 ||
		(part.data >= whole.data && part.data + part.len <= whole.data + whole.len));
}

/* Each line begins with the code, and only the last lacks the hyphen. */
static void fuzz_check_lines(const struct reply *reply)
{
	struct span rest = reply->wire;

	ASSERT(reply->code >= 200 && reply->code <= 599);
	while (rest.len > 0) {
		size_t len = span_find(rest, '\r');
		unsigned code;

		ASSERT(len >= 3 && len + 1 < rest.len && rest.data[len + 1] == '\n');
		code = (rest.data[0] - '0') * 100u + (rest.data[1] - '0') * 10u +
		       (rest.data[2] - '0');
		ASSERT(code == reply->code);
		ASSERT((rest.data[3] == '-') == (len + 2 < rest.len));
		ASSERT(span_find(span_head(rest, len), '\n') == len);
		ASSERT(span_find(span_head(rest, len), '\0') == len);
		rest = span_skip(rest, len + 2);
	}
}

static void fuzz_check_shorter(struct span in, enum reply_status status, const struct reply *reply)
{
	enum reply_status before = REPLY_MORE;

	for (size_t len = 0; len < in.len; len++) {
		struct reply shorter;
		enum reply_status now = reply_parse(span_head(in, len), &shorter);

		ASSERT(now == before || before == REPLY_MORE);
		ASSERT(now == status || now == REPLY_MORE);
		if (now == REPLY_OK)
			ASSERT(span_equal(shorter.wire, reply->wire));
		before = now;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span in = span_make(data, size);
	struct reply reply = {0};
	struct ehlo_offer offer;
	enum reply_status status;

	if (size > FUZZ_BYTES_MAX)
		return 0;
	status = reply_parse(in, &reply);
	fuzz_check_shorter(in, status, &reply);
	if (status != REPLY_OK)
		return 0;
	ASSERT(reply.wire.data == in.data && reply.wire.len <= in.len);
	fuzz_check_inside(reply.text, reply.wire);
	fuzz_check_lines(&reply);
	reply_parse_ehlo(&reply, &offer);
	fuzz_check_inside(offer.domain, reply.wire);
	ASSERT(offer.keywords < 1024);
	ASSERT(offer.size_max == 0 || (offer.keywords & EHLO_SIZE) != 0);
	return 0;
}
