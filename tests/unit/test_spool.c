/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/spool_fixture.h"

#include "relay/base/clock.h"

/* Bodies of all kinds: none, a byte, with and without BODY records, over segments. */
static void test_write_read(void **state)
{
	static const uint64_t sizes[] = {0, 1, 63, 64, 4096, 65536, CHUNK_TEXT_BYTES - 2048,
		CHUNK_TEXT_BYTES - 2047, CHUNK_TEXT_BYTES, CHUNK_TEXT_BYTES + 1, MIB, 9 * MIB};
	uint64_t last = 0;

	(void)state;
	box_open();
	for (unsigned i = 0; i < COUNT_OF(sizes); i++) {
		struct mail *mail = mail_send(sizes[i]);

		assert_int_equal(mail->state, MAIL_THERE);
		assert_int_equal(mail->calls, 1);
		assert_true(mail->id > last);
		last = mail->id;
		mail_check(mail);
	}
	for (unsigned i = 0; i < box.count; i++) /* by now from the disk */
		mail_check(&box.mails[i]);
	assert_int_equal(facts_now().messages, COUNT_OF(sizes));
	assert_true(facts_now().segments_used > 2);
	box_restart();
	assert_int_equal(box.count, COUNT_OF(sizes));
	for (unsigned i = 0; i < box.count; i++) {
		assert_int_equal(box.mails[i].bytes, sizes[i]);
		mail_check(&box.mails[i]);
	}
	assert_true(spool_next_id(box.spool) > last);
	box_close();
}

/* What goes out in one turn has one write and one flush. */
static void test_group_commit(void **state)
{
	struct spool_facts before;

	(void)state;
	box_open();
	(void)mail_send(100);
	before = facts_now();
	for (unsigned i = 0; i < 50; i++)
		mail_start(mail_new(1000, 3));
	BOX_AWAIT(mails_are_settled());
	assert_int_equal(mails_there(), 51);
	assert_int_equal(facts_now().writes - before.writes, 1);
	assert_int_equal(facts_now().flushes - before.flushes, 1);
	assert_int_equal(facts_now().records - before.records, 50);
	box_close();
}

/* What is gathered goes out in one write, but a long one is not for many clients. */
static void test_length_of_writes(void **state)
{
	struct spool_facts before;

	(void)state;
	box.options.segment_bytes = 32 * MIB;
	box_open();
	(void)mail_send(100);
	before = facts_now();
	for (unsigned i = 0; i < 3; i++)
		mail_start(mail_new(MIB, 1));
	BOX_AWAIT(mails_are_settled());
	assert_int_equal(facts_now().writes - before.writes, 1);
	before = facts_now();
	for (unsigned i = 0; i < 32; i++)
		mail_start(mail_new(65536, 1));
	BOX_AWAIT(mails_are_settled());
	assert_int_equal(facts_now().writes - before.writes, 3);
	/* When few batches are left, it is as long as it can be. */
	before = facts_now();
	for (unsigned i = 0; i < 128; i++)
		mail_start(mail_new(65536, 1));
	BOX_AWAIT(mails_are_settled());
	assert_int_equal(facts_now().writes - before.writes, 5);
	assert_int_equal(mails_there(), 164);
	box_close();
}

/* Relaxed mail has no flush; a durable one beside it has. */
static void test_relaxed(void **state)
{
	struct spool_facts before;
	struct mail *mail;

	(void)state;
	box_open();
	(void)mail_send(100); /* the segment's first write is flushed in any case */
	before = facts_now();
	mail = mail_new(1000, 1);
	mail->durability = DURABILITY_RELAXED;
	mail_start(mail);
	BOX_AWAIT(mail_is_settled(mail));
	assert_int_equal(mail->state, MAIL_THERE);
	assert_int_equal(facts_now().writes - before.writes, 1);
	assert_int_equal(facts_now().flushes, before.flushes);
	mail = mail_new(1000, 1);
	mail->durability = DURABILITY_RELAXED;
	mail_start(mail);
	mail_start(mail_new(1000, 1));
	BOX_AWAIT(mails_are_settled());
	assert_int_equal(facts_now().writes - before.writes, 2);
	assert_int_equal(facts_now().flushes - before.flushes, 1);
	box_restart();
	assert_int_equal(mails_there(), 4);
	box_close();
}

/* Many at a time, of all sizes, over segments; each comes back as it was. */
static void test_many_writers(void **state)
{
	unsigned there;

	(void)state;
	box.options.segment_bytes = MIB;
	box_open();
	for (unsigned i = 0; i < 60; i++)
		mail_start(mail_new((uint64_t)i * i * 200, 1 + i));
	BOX_AWAIT(mails_are_settled());
	assert_int_equal(mails_there(), 60);
	for (unsigned i = 0; i < 60; i++)
		mail_read_start(&box.mails[i]); /* all at a time */
	for (unsigned i = 0; i < 60; i++) {
		BOX_AWAIT(!box.mails[i].is_reading);
		assert_true(box.mails[i].is_read);
	}
	there = box.count;
	box_restart();
	assert_int_equal(box.count, there);
	for (unsigned i = 0; i < there; i++)
		mail_check(&box.mails[i]);
	box_close();
}

/* More readers than there is memory for: they wait; one that ends early leaves its place. */
static void test_many_readers(void **state)
{
	static struct mail copies[READS_MAX + 20];
	struct mail *mail;

	(void)state;
	box_open();
	mail = mail_send(100000);
	for (unsigned i = 0; i < COUNT_OF(copies); i++) {
		copies[i] = *mail;
		copies[i].is_reading = true;
		copies[i].read = 0;
		spool_reader_init(&copies[i].reader, box.spool, &mail_reader_events);
		spool_read(&copies[i].reader, &mail->spool);
	}
	spool_read_end(&copies[3].reader);
	spool_read_end(&copies[READS_MAX + 7].reader); /* it waits */
	copies[3].is_reading = copies[READS_MAX + 7].is_reading = false;
	for (unsigned i = 0; i < COUNT_OF(copies); i++) {
		BOX_AWAIT(!copies[i].is_reading);
		assert_true(copies[i].is_read || i == 3 || i == READS_MAX + 7);
	}
	box_close();
}

/* A reader may end while the kernel still reads for it. */
static void test_reader_ends_early(void **state)
{
	struct mail *mail;

	(void)state;
	box_open();
	mail = mail_send(400000);
	for (unsigned i = 0; i < 25; i++)
		assert_int_equal(mail_send(400000)->state, MAIL_THERE);
	for (unsigned turns = 0; turns < 6; turns++) {
		mail_read_start(mail);
		for (unsigned i = 0; i < turns; i++)
			box_turn_now();
		spool_read_end(&mail->reader);
		memset(&mail->reader, 0xee, sizeof(mail->reader));
		box_turn_now();
	}
	mail_check(mail);
	box_close();
}

/* No more writers than there are chunks. */
static void test_no_chunks(void **state)
{
	(void)state;
	box_open();
	for (unsigned i = 0; i <= CHUNKS_MAX; i++) {
		struct mail *mail = mail_new(1, 1);

		assert_int_equal(
			spool_begin(&mail->writer, mail->id), i < CHUNKS_MAX ? 0 : -ENOBUFS);
	}
	for (unsigned i = 0; i < CHUNKS_MAX; i++)
		spool_abandon(&box.mails[i].writer);
	box_close();
}

/* The largest envelope, and what is left of a body beside it. */
static void test_large_envelope(void **state)
{
	struct mail *mail;

	(void)state;
	box_open();
	mail = mail_new(CHUNK_TEXT_BYTES - 4096, 9000);
	mail_start(mail);
	BOX_AWAIT(mail_is_settled(mail));
	assert_int_equal(mail->state, MAIL_THERE);
	mail_check(mail);
	box_restart();
	mail_check(&box.mails[0]);
	box_close();
}

/* Ids go up, whatever the clock does, and over restarts. */
static void test_ids(void **state)
{
	uint64_t last;

	(void)state;
	box_open();
	last = mail_send(1)->id;
	box.spool->next_id = last + 1000000000000; /* as if the clock had been put back since */
	mail_done(mail_send(1));
	last = box.mails[1].id;
	assert_true(spool_next_id(box.spool) > last);
	BOX_AWAIT(spool_is_idle(box.spool));
	box_restart();
	assert_true(spool_next_id(box.spool) > last);
	box_close();
}

/* Nothing is taken while it drains; what was committed goes out. */
static void test_drain(void **state)
{
	struct mail *mail;

	(void)state;
	box_open();
	mail = mail_new(100, 1);
	mail_start(mail);
	spool_drain(box.spool);
	spool_drain(box.spool); /* harmless */
	mail_start(mail_new(100, 1));
	assert_int_equal(box.mails[1].result, -ENOBUFS);
	assert_false(spool_is_closed(box.spool));
	BOX_AWAIT(spool_is_closed(box.spool));
	assert_int_equal(mail->state, MAIL_THERE);
	spool_destroy(&box.spool);
	spool_folder_destroy(&box.folder);
	box_open();
	assert_int_equal(mails_there(), 1);
	box_close();
}

/* For people: how many commits a second, with so many at a time? */
static uint64_t figure(unsigned at_a_time)
{
	const unsigned total = at_a_time * 50;
	uint64_t begun_ns, spent_ns;
	unsigned sent = 0;

	begun_ns = clock_now_ns();
	while (sent < total) {
		for (box.count = 0; box.count < at_a_time; sent++)
			mail_start(mail_new(1000, 1));
		BOX_AWAIT(mails_are_settled());
		for (unsigned n = 0; n < box.count; n++)
			mail_done(&box.mails[n]);
		BOX_AWAIT(spool_is_idle(box.spool));
	}
	spent_ns = clock_now_ns() - begun_ns;
	return total * 1000000000ULL / (spent_ns + 1);
}

static void test_figures(void **state)
{
	static const unsigned at_a_time[] = {1, 8, 64};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(at_a_time); i++) {
		box_open();
		mail_done(mail_send(1));
		BOX_AWAIT(spool_is_idle(box.spool));
		print_message("[  FIGURE  ] %u at a time: %llu commits and ends a second\n",
			at_a_time[i], (unsigned long long)figure(at_a_time[i]));
		box_close();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SPOOL_TEST(test_write_read),
		SPOOL_TEST(test_length_of_writes),
		SPOOL_TEST(test_group_commit),
		SPOOL_TEST(test_relaxed),
		SPOOL_TEST(test_many_writers),
		SPOOL_TEST(test_many_readers),
		SPOOL_TEST(test_reader_ends_early),
		SPOOL_TEST(test_no_chunks),
		SPOOL_TEST(test_large_envelope),
		SPOOL_TEST(test_ids),
		SPOOL_TEST(test_drain),
		SPOOL_TEST(test_figures),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
