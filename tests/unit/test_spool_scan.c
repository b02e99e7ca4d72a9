/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_spool_scan.c: what a scan finds in logs that were made by hand, and then torn, damaged,
 * used again, or lost in part.
 */

#include "tests/unit/spool_scan_fixture.h"

static void test_order(void **state)
{
	struct spool_scan *scan = scan_open();
	struct spool_scan_facts facts;
	(void)state;

	for (unsigned round = 0; round < 2; round++) {
		scan_read(scan);
		assert_int_equal(finding_count, 0);
		assert_int_equal(record_count, 12);
		for (unsigned i = 0; i < record_count; i++) {
			assert_int_equal(records[i].sequence, 101 + i);
			assert_int_equal(records[i].segment, i < 5 ? 1 : 2);
		}
		assert_int_equal(records[5].type, RECORD_SEGMENT);
		assert_int_equal(records[9].id, 44);
		assert_int_equal(records[10].offset, places[5]);
		assert_int_equal(spool_scan_sequence(scan), 112);
		spool_scan_rewind(scan);
	}
	spool_scan_facts(scan, &facts);
	assert_int_equal(facts.segments, 2);
	assert_int_equal(facts.blank, 0);
	assert_int_equal(facts.last_segment, 2);
	assert_int_equal(facts.bytes, 2 * IMAGE_BYTES);
	spool_scan_destroy(&scan);
}

static void test_body(void **state)
{
	struct spool_scan *scan = scan_open();
	struct record_extent odd = first_extents[0];
	struct spool_scan_record record;
	struct span text;
	(void)state;

	assert_true(spool_scan_next(scan, &record));
	assert_int_equal(spool_scan_body(scan, 7, 0, &first_extents[0], &text), 0);
	assert_true(span_equal(text, span_of("one\r\n")));
	assert_int_equal(spool_scan_body(scan, 7, 5, &first_extents[1], &text), 0);
	assert_true(span_equal(text, span_of("two\r\n")));
	assert_int_equal(
		spool_scan_body(scan, 8, 0, &(struct record_extent){2, places[1], 3}, &text), 0);
	assert_int_equal(spool_scan_at(scan, 2, places[5], &record), 0);
	assert_int_equal(record.head.type, RECORD_DONE);
	assert_int_equal(record.payload.len, 1);
	assert_non_null(strstr(record.file, "/00/000001.seg"));
	assert_int_equal(spool_scan_at(scan, 2, places[5] + 32, &record), -EBADMSG);
	assert_int_equal(spool_scan_at(scan, 9, 0, &record), -ENOENT);
	/* In between nothing has moved. */
	assert_true(spool_scan_next(scan, &record));
	assert_int_equal(record.head.sequence, 102);
	assert_int_equal(spool_scan_body(scan, 8, 0, &first_extents[0], &text), -EBADMSG);
	assert_int_equal(spool_scan_body(scan, 7, 1, &first_extents[0], &text), -EBADMSG);
	odd.bytes = 4;
	assert_int_equal(spool_scan_body(scan, 7, 0, &odd, &text), -EBADMSG);
	odd = first_extents[0];
	odd.offset = IMAGE_BYTES;
	assert_int_equal(spool_scan_body(scan, 7, 0, &odd, &text), -EBADMSG);
	odd.offset = 0;
	assert_int_equal(spool_scan_body(scan, 0, 0, &odd, &text), -EBADMSG);
	odd.segment = 3;
	assert_int_equal(spool_scan_body(scan, 7, 0, &odd, &text), -ENOENT);
	odd.segment = 0;
	assert_int_equal(spool_scan_body(scan, 7, 0, &odd, &text), -ENOENT);
	spool_scan_destroy(&scan);
}

/* A flipped bit of what was safe is found, costs that record only, and is told where it is. */
static void test_flips(void **state)
{
	(void)state;

	/* The records of the first two writes: a later one tells that they had been safe. */
	for (unsigned i = 0; i <= 4; i++) {
		const size_t bits = (size_t)8 * (RECORD_HEADER_BYTES + 5);

		for (size_t bit = 0; bit < bits; bit += 3) {
			image_sequence = 105;
			make_second();
			image[places[i] + bit / 8] ^= (uint8_t)BIT(bit % 8);
			image_save("000001.seg");
			scan_all();
			expect_finding(SPOOL_SCAN_DAMAGED, 2, places[i]);
			assert_false(has_record(106 + i));
			assert_int_equal(record_count, 11);
		}
	}
}

/* In the last write a flip cannot be told from a crash; but it is told. */
static void test_flips_last(void **state)
{
	(void)state;

	for (unsigned i = 5; i <= 6; i++) {
		for (size_t bit = 0; bit < (size_t)8 * (RECORD_HEADER_BYTES + 1); bit++) {
			image_sequence = 105;
			make_second();
			image[places[i] + bit / 8] ^= (uint8_t)BIT(bit % 8);
			image_save("000001.seg");
			scan_all();
			expect_finding(SPOOL_SCAN_TORN, 2, places[i]);
			assert_int_equal(record_count, 5 + i);
		}
	}
}

/* In a segment that is not the last one a gap tells. */
static void test_flips_sealed(void **state)
{
	static const char *const types[] = {"SEGMENT", "BODY", "BODY", "MESSAGE", "SEAL"};
	uint32_t at[5];
	(void)state;

	scan_all();
	for (unsigned i = 0; i < 5; i++)
		at[i] = records[i].offset;
	for (unsigned i = 0; i < 5; i++) {
		image_sequence = 100;
		make_first();
		image[at[i] + RECORD_HEADER_BYTES - 20] ^= 1; /* its id or sequence */
		image_save("000002.seg");
		scan_all();
		expect_finding(SPOOL_SCAN_DAMAGED, 1, at[i]);
		assert_int_equal(record_count, 11);
		assert_false(has_record(101 + i));
		assert_non_null(strstr(findings[0].file, "/00/000002.seg"));
		assert_non_null(strstr(findings[0].words, types[i]));
	}
}

/* The last write was cut at each sector: what is in front of it is there, and nothing is wrong. */
static void test_torn(void **state)
{
	static uint8_t whole[IMAGE_BYTES];
	uint32_t at[4], first;
	(void)state;

	image_sequence = 105;
	make_second();
	memset(whole, 'x', sizeof(whole));
	at[0] = first = image_body(10, 0, span_make(whole, 3000));
	at[1] = image_message(10, &(struct record_extent){2, first, 3000}, 1, span_of("z\r\n"));
	at[2] = image_body(10, 0, span_make(whole, 6000));
	at[3] = image_change(10, 1, RCPT_FAILED);
	image_flush();
	memcpy(whole, image, sizeof(whole));
	for (uint32_t cut = first; cut < image_at; cut += 512) {
		unsigned there = 0;

		memcpy(image, whole, sizeof(image));
		memset(image + cut, 0, sizeof(image) - cut);
		image_save("000001.seg");
		scan_all();
		while (there < COUNT_OF(at) && has_record(113 + there))
			there++;
		assert_int_equal(record_count, 12 + there);
		/* Is one there in part? */
		if (there < COUNT_OF(at) && cut > at[there])
			expect_finding(SPOOL_SCAN_TORN, 2, at[there]);
		else
			assert_int_equal(finding_count, 0);
		assert_true(there == COUNT_OF(at) || cut < at[there] + 6100);
	}
}

/* Any sector of the last write may be missing: what is good behind it does not count. */
static void test_torn_inside(void **state)
{
	static uint8_t whole[IMAGE_BYTES];
	uint32_t first, second;
	(void)state;

	image_sequence = 105;
	make_second();
	memset(whole, 'x', sizeof(whole));
	first = image_body(10, 0, span_make(whole, 3000));
	second = image_message(10, &(struct record_extent){2, first, 3000}, 1, span_of("z\r\n"));
	(void)image_done(10);
	image_flush();
	memcpy(whole, image, sizeof(whole));
	for (uint32_t sector = first; sector < second; sector += 512) {
		memcpy(image, whole, sizeof(image));
		memset(image + sector, 0xee, 512);
		image_save("000001.seg");
		scan_all();
		assert_int_equal(record_count, 12);
		expect_finding(SPOOL_SCAN_TORN, 2, first);
	}
	/* Not so when there is a later one. */
	memcpy(image, whole, sizeof(image));
	memset(image + first, 0, 512);
	(void)image_done(11);
	image_save("000001.seg");
	scan_all();
	assert_int_equal(record_count, 15);
	expect_finding(SPOOL_SCAN_MISSING, 2, places[7]);
}

/* After a crash the log goes on in a new segment: what was torn stays harmless. */
static void test_torn_before(void **state)
{
	(void)state;

	image_sequence = 105;
	make_second();
	(void)image_body(10, 0, span_of("torn\r\n"));
	(void)image_done(10);
	image[places[7] + RECORD_HEADER_BYTES] ^= 1;
	image_save("000001.seg");
	scan_all();
	expect_finding(SPOOL_SCAN_TORN, 2, places[7]);
	image_sequence = 112;
	image_begin(3);
	image_save("000003.seg");
	scan_all();
	assert_int_equal(record_count, 13);
	expect_finding(SPOOL_SCAN_TORN, 2, places[7]);
	/* With a gap it was not torn. */
	image_sequence = 114;
	image_begin(3);
	image_save("000003.seg");
	scan_all();
	assert_int_equal(record_count, 14);
	expect_finding(SPOOL_SCAN_DAMAGED, 2, places[7]);
	assert_true(has_record(114));
}

/* Writers that do not tell their writes: then nothing is dropped. */
static void test_write_untold(void **state)
{
	struct record_head head;
	struct span payload;
	(void)state;

	image_sequence = 105;
	make_second();
	assert_int_equal(
		record_read(span_make(image + places[6], 4096), 2, &head, &payload), RECORD_GOOD);
	head.write = 0;
	record_seal(&head, image + places[6]);
	image[places[5] + RECORD_HEADER_BYTES] ^= 1;
	image_save("000001.seg");
	scan_all();
	assert_int_equal(record_count, 11);
	expect_finding(SPOOL_SCAN_DAMAGED, 2, places[5]);
}

/* What an earlier use of the file has left is not there. */
static void test_used_again(void **state)
{
	static uint8_t old[IMAGE_BYTES];
	(void)state;

	image_sequence = 100;
	make_first();
	for (uint32_t at = 0; at < IMAGE_BYTES; at += 1024)
		memcpy(old + at, image, 1024);
	image_sequence = 105;
	make_second();
	memcpy(image + places[7], old, IMAGE_BYTES - places[7]);
	image_save("000001.seg");
	scan_all();
	assert_int_equal(record_count, 12);
	assert_int_equal(finding_count, 0);
	/* Given back, and not yet used: its first block is zero. */
	memset(image, 0, RECORD_BLOCK);
	image_save("000001.seg");
	scan_all();
	assert_int_equal(record_count, 5);
	assert_int_equal(finding_count, 0);
}

/*
 * The first write to segment 3 was torn: its first block is not there, but others are. The number
 * is used again, for the same file: what is left is good and in order, but of a write that was not.
 */
static void test_number_again(void **state)
{
	static uint8_t torn[IMAGE_BYTES];
	uint32_t at;
	(void)state;

	image_sequence = 111;
	image_begin(3);
	while (image_at + 64 <= RECORD_BLOCK)
		(void)image_done(20);
	at = image_done(21);
	assert_int_equal(at, RECORD_BLOCK);
	memcpy(torn, image, sizeof(torn));
	/* One record less, so that the sequence fits: 174 and 175. */
	image_sequence = 112;
	image_begin(3);
	while (image_at + 128 <= RECORD_BLOCK)
		(void)image_done(22);
	assert_int_equal(image_sequence, 174);
	image_flush();
	memcpy(image + RECORD_BLOCK, torn + RECORD_BLOCK, RECORD_BLOCK);
	image_save("000003.seg");
	scan_all();
	expect_finding(SPOOL_SCAN_TORN, 3, RECORD_BLOCK);
	for (unsigned i = 0; i < record_count; i++)
		assert_int_not_equal(records[i].id, 21);
}

/* Numbers need not be in a row. */
static void test_number_left_out(void **state)
{
	(void)state;

	image_begin(9);
	image_save("000003.seg");
	scan_all();
	assert_int_equal(record_count, 13);
	assert_int_equal(finding_count, 0);
}

static void test_missing_file(void **state)
{
	char path[128];
	(void)state;

	image_begin(3);
	image_save("000007.seg");
	(void)snprintf(path, sizeof(path), "%s/00/000001.seg", image_folder);
	assert_int_equal(unlink(path), 0);
	scan_all();
	assert_int_equal(record_count, 6);
	expect_finding(SPOOL_SCAN_MISSING, 3, 0);
	assert_non_null(strstr(findings[0].words, "106 to 112"));
	/* Without the oldest nothing is missing that anybody could know of. */
	(void)snprintf(path, sizeof(path), "%s/00/000002.seg", image_folder);
	assert_int_equal(unlink(path), 0);
	scan_all();
	assert_int_equal(record_count, 1);
	assert_int_equal(finding_count, 0);
}

/* A segment without its end: a gap, but no bad place. */
static void test_missing_end(void **state)
{
	(void)state;

	image_begin(3);
	image_save("000003.seg");
	image_sequence = 105;
	make_second();
	memset(image + places[5], 0, IMAGE_BYTES - places[5]);
	image_save("000001.seg");
	scan_all();
	assert_int_equal(record_count, 11);
	assert_int_equal(finding_count, 1);
	expect_finding(SPOOL_SCAN_MISSING, 2, findings[0].offset);
	assert_non_null(strstr(findings[0].words, "111 to 112"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_LOG(test_order),
		WITH_LOG(test_body),
		WITH_LOG(test_flips),
		WITH_LOG(test_flips_last),
		WITH_LOG(test_flips_sealed),
		WITH_LOG(test_torn),
		WITH_LOG(test_torn_inside),
		WITH_LOG(test_torn_before),
		WITH_LOG(test_write_untold),
		WITH_LOG(test_used_again),
		WITH_LOG(test_number_again),
		WITH_LOG(test_number_left_out),
		WITH_LOG(test_missing_file),
		WITH_LOG(test_missing_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
