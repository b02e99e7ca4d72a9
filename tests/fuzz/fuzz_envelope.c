/* SPDX-License-Identifier: Apache-2.0 */

/*
 * fuzz_envelope.c: the readers of envelopes and of changes on any bytes. The first byte says which.
 * What was understood lies inside, and written again it is the same, byte by byte; patched it is
 * still understood.
 */

#include "relay/mail/envelope.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_BYTES_MAX 8192

static uint8_t again[FUZZ_BYTES_MAX];

static void fuzz_check_inside(struct span part, struct span whole)
{
	ASSERT(part.len == 0 ||
		(part.data >= whole.data && part.data + part.len <= whole.data + whole.len));
}

static void fuzz_patch(struct span in)
{
	struct envelope envelope;
	struct envelope_rcpt rcpt;
	uint32_t count = 0;
	size_t at = 0;

	envelope_patch(again, in.len, ENVELOPE_SUSPENDED, 9);
	ASSERT(envelope_read(span_make(again, in.len), &envelope));
	ASSERT(envelope.flags == ENVELOPE_SUSPENDED && envelope.attempts == 9);
	if (envelope.rcpt_count == 0)
		return;
	envelope_patch_rcpt(again, in.len, envelope.rcpt_count - 1, RCPT_REMOVED);
	ASSERT(envelope_read(span_make(again, in.len), &envelope));
	while (envelope_next(&envelope, &at, &rcpt))
		count++;
	ASSERT(count == envelope.rcpt_count && rcpt.state == RCPT_REMOVED);
}

static void fuzz_envelope(struct span in)
{
	struct envelope envelope;
	struct envelope_rcpt rcpt;
	size_t at = 0;
	size_t len;

	if (!envelope_read(in, &envelope))
		return;
	fuzz_check_inside(envelope.sender, in);
	fuzz_check_inside(envelope.origin, in);
	fuzz_check_inside(envelope.recipients, in);
	len = envelope_write(&envelope, again, sizeof(again));
	ASSERT(len > 0);
	while (envelope_next(&envelope, &at, &rcpt)) {
		const size_t more = envelope_write_rcpt(&rcpt, again + len, sizeof(again) - len);

		fuzz_check_inside(rcpt.path, in);
		ASSERT(more > 0);
		len += more;
	}
	ASSERT(span_equal(in, span_make(again, len)));
	fuzz_patch(in);
}

/* Longer text than a writer writes is understood, but cut when it is written. */
static void fuzz_change(struct span in)
{
	struct envelope_change change;
	struct envelope_change_rcpt rcpt;
	bool is_cut;
	uint32_t count = 0;
	size_t at = 0;
	size_t len;

	if (!envelope_read_change(in, &change))
		return;
	fuzz_check_inside(change.where, in);
	fuzz_check_inside(change.text, in);
	fuzz_check_inside(change.rcpts, in);
	is_cut = change.where.len > ENVELOPE_CHANGE_TEXT_BYTES_MAX ||
		 change.text.len > ENVELOPE_CHANGE_TEXT_BYTES_MAX;
	len = envelope_write_change(&change, again, sizeof(again));
	for (; envelope_change_next(&change, &at, &rcpt); count++) {
		fuzz_check_inside(rcpt.text, in);
		is_cut = is_cut || rcpt.text.len > ENVELOPE_CHANGE_TEXT_BYTES_MAX;
		len += envelope_write_change_rcpt(&rcpt, again + len, sizeof(again) - len);
	}
	ASSERT(count == change.count);
	ASSERT(is_cut || span_equal(in, span_make(again, len)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1 || size > FUZZ_BYTES_MAX)
		return 0;
	if (data[0] % 2 == 0)
		fuzz_envelope(span_make(data + 1, size - 1));
	else
		fuzz_change(span_make(data + 1, size - 1));
	return 0;
}
