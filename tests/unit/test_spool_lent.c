/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_spool_lent.c: a reader whose text lies in a batch, and what becomes of it when the batch is
 * filled anew: the text moves to the reader's memory, is the same, and no disk was asked.
 */

#include "tests/unit/spool_fixture.h"

#include "relay/base/stats.h"

/* A reader that goes on only when it is told to. */
struct slow {
	struct spool_reader reader;
	struct mail *mail;
	struct envelope envelope;
	uint64_t at; /* bytes checked */
	unsigned pieces;
	bool has_envelope, has_text, is_last;
};

static void slow_on_envelope(struct spool_reader *reader, const struct envelope *envelope)
{
	struct slow *slow = OWNER_OF(reader, struct slow, reader);

	slow->envelope = *envelope;
	slow->has_envelope = true;
}

static void slow_on_text(struct spool_reader *reader, struct span text, bool is_last)
{
	struct slow *slow = OWNER_OF(reader, struct slow, reader);

	assert_true(span_equal(text, reader->text));
	slow->has_text = true;
	slow->is_last = is_last;
	slow->pieces++;
}

static void slow_on_failed(struct spool_reader *reader, int error)
{
	(void)reader;
	fail_msg("a read has failed: %s", strerror(-error));
}

static const struct spool_reader_events slow_events = {
	.on_envelope = slow_on_envelope,
	.on_text = slow_on_text,
	.on_failed = slow_on_failed,
};

static void slow_open(struct slow *slow, struct mail *mail)
{
	*slow = (struct slow){.mail = mail};
	spool_reader_init(&slow->reader, box.spool, &slow_events);
	spool_read(&slow->reader, &mail->spool);
}

static void slow_await_envelope(struct slow *slow)
{
	BOX_AWAIT(slow->has_envelope);
}

static void slow_next(struct slow *slow)
{
	assert_int_equal(slow->reader.text.len, 0);
	slow->has_text = false;
	spool_read_more(&slow->reader);
}

/* Uses so much of the text at hand. */
static void slow_use(struct slow *slow, size_t bytes)
{
	struct span *text = &slow->reader.text;

	assert_true(bytes <= text->len);
	for (size_t i = 0; i < bytes; i++, slow->at++)
		if (text->data[i] != text_byte(slow->mail->id, slow->at))
			fail_msg("byte %llu is wrong", (unsigned long long)slow->at);
	*text = span_skip(*text, bytes);
}

/* To the end. */
static void slow_finish(struct slow *slow)
{
	while (!slow->is_last || slow->reader.text.len > 0) {
		slow_use(slow, slow->reader.text.len);
		if (slow->is_last)
			break;
		slow_next(slow);
		BOX_AWAIT(slow->has_text);
	}
	assert_int_equal(slow->at, slow->mail->bytes);
	spool_read_end(&slow->reader);
}

static void slow_check_envelope(const struct slow *slow)
{
	struct envelope_rcpt rcpt;
	unsigned count = 0;
	size_t at = 0;

	assert_int_equal(slow->envelope.body_bytes, slow->mail->bytes);
	while (envelope_next(&slow->envelope, &at, &rcpt))
		count++;
	assert_int_equal(count, slow->mail->rcpts);
}

static uint64_t reads_now(void)
{
	return atomic_load(&stats_mine->spool_reads);
}

/* The text is taken where it lies, moves when it must, and stays what it was. */
static void test_text_moves(void **state)
{
	const uint64_t reads = reads_now();
	struct slow slow;
	const uint8_t *place;
	struct mail *mail;

	(void)state;
	box_open();
	mail = mail_send(CHUNK_TEXT_BYTES + 70000);
	slow_open(&slow, mail);
	slow_await_envelope(&slow);
	slow_next(&slow);
	BOX_AWAIT(slow.has_text);
	place = slow.reader.text.data;
	assert_true(place > box.spool->memory &&
		    place < box.spool->memory + (size_t)SPOOL_BATCHES * BATCH_BYTES);
	slow_use(&slow, 4321);
	box_leave_memory();
	assert_true(
		slow.reader.text.data < box.spool->memory ||
		slow.reader.text.data >= box.spool->memory + (size_t)SPOOL_BATCHES * BATCH_BYTES);
	slow_check_envelope(&slow);
	slow_finish(&slow);
	assert_int_equal(slow.pieces, 2);
	assert_int_equal(reads_now(), reads);
	box_close();
}

static void take_back_if(bool is_due)
{
	for (unsigned i = 0; is_due && i < SPOOL_BATCHES; i++)
		spool_take_back(&box.spool->batches[i]);
}

/* At each point between the call and the text. */
static void test_moves_at_any_time(void **state)
{
	struct slow slow;
	struct mail *mail;
	uint64_t reads;

	(void)state;
	box_open();
	for (unsigned when = 0; when < 5; when++) {
		mail = mail_send(CHUNK_TEXT_BYTES + 3000 * when);
		reads = reads_now();
		slow_open(&slow, mail);
		take_back_if(when == 0);
		slow_await_envelope(&slow);
		take_back_if(when == 1);
		slow_next(&slow);
		take_back_if(when == 2);
		BOX_AWAIT(slow.has_text);
		slow_use(&slow, slow.reader.text.len);
		take_back_if(when == 3);
		slow_check_envelope(&slow);
		slow_finish(&slow);
		assert_int_equal(reads_now(), reads);
	}
	box_close();
}

/* Two that read the same, one of which ends while it borrows: nothing is written to what is gone.
 */
static void test_one_ends(void **state)
{
	struct slow here, gone;
	struct mail *mail;

	(void)state;
	box_open();
	mail = mail_send(CHUNK_TEXT_BYTES + 70000);
	slow_open(&here, mail);
	slow_open(&gone, mail);
	slow_await_envelope(&here);
	slow_await_envelope(&gone);
	slow_next(&here);
	slow_next(&gone);
	BOX_AWAIT(here.has_text && gone.has_text);
	assert_ptr_equal(here.reader.text.data, gone.reader.text.data);
	spool_read_end(&gone.reader);
	memset(&gone, 0xee, sizeof(gone));
	box_leave_memory();
	slow_finish(&here);
	box_close();
}

/* Who wants a piece to stay where it is gets a copy. */
static void test_fixed(void **state)
{
	const uint64_t reads = reads_now();
	const uint8_t *place;
	struct slow slow;
	struct mail *mail;

	(void)state;
	box_open();
	mail = mail_send(70000);
	slow = (struct slow){.mail = mail};
	spool_reader_init(&slow.reader, box.spool, &slow_events);
	slow.reader.is_fixed = true;
	spool_read(&slow.reader, &mail->spool);
	slow_await_envelope(&slow);
	slow_next(&slow);
	BOX_AWAIT(slow.has_text);
	place = slow.reader.text.data;
	box_leave_memory();
	assert_ptr_equal(slow.reader.text.data, place);
	slow_finish(&slow);
	assert_int_equal(reads_now(), reads);
	box_close();
}

/* What no batch has any more comes from the disk, and is checked. */
static void test_from_disk(void **state)
{
	struct mail *mail;
	uint64_t reads;

	(void)state;
	box_open();
	mail = mail_send(CHUNK_TEXT_BYTES + 70000);
	box_leave_memory();
	reads = reads_now();
	mail_check(mail);
	assert_int_equal(reads_now() - reads, 2);
	box_close();
}

/* Those that are to be read from do not let more be gathered than a burst. */
static void test_burst(void **state)
{
	uint64_t written = 0;

	(void)state;
	box_open();
	(void)mail_send(100);
	for (unsigned i = 0; i < 16; i++) {
		struct mail *mail = mail_new(2 * MIB, 1);

		mail_start(mail);
		written += mail->written;
	}
	/* Nothing has completed: no turn was made. */
	assert_true(written <= (uint64_t)SPOOL_BURST * BATCH_BYTES + 16 * CHUNK_BYTES);
	BOX_AWAIT(mails_are_settled());
	for (unsigned i = 0; i < box.count; i++) {
		assert_int_equal(box.mails[i].state, MAIL_THERE);
		mail_check(&box.mails[i]);
	}
	box_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SPOOL_TEST(test_text_moves),
		SPOOL_TEST(test_moves_at_any_time),
		SPOOL_TEST(test_one_ends),
		SPOOL_TEST(test_fixed),
		SPOOL_TEST(test_from_disk),
		SPOOL_TEST(test_burst),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
