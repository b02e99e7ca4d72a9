/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_spool_scan_files.c: what a scan makes of files that are not as a spool has left them.
 */

#include "tests/unit/spool_scan_fixture.h"

/* Files that are no segments of this log, or not any more. */
static void test_odd_files(void **state)
{
	struct spool_scan *scan;
	struct spool_scan_facts facts;
	(void)state;

	memset(image, 0, sizeof(image));
	image_save("000010.seg"); /* blank */
	image_save("000011.new"); /* being made */
	image_save("x.seg");
	scan = scan_open();
	scan_read(scan);
	spool_scan_facts(scan, &facts);
	spool_scan_destroy(&scan);
	assert_int_equal(facts.blank, 1);
	assert_int_equal(facts.blank_bytes, IMAGE_BYTES);
	assert_int_equal(record_count, 12);
	assert_int_equal(finding_count, 0);
}

static void test_odd_segments(void **state)
{
	static const struct {
		const char *name;
		enum spool_scan_kind kind;
		const char *words;
	} cases[] = {
		{"a copy", SPOOL_SCAN_DAMAGED, "another file is segment 2"},
		{"another log's", SPOOL_SCAN_DAMAGED, "of log 05"},
		{"another format", SPOOL_SCAN_DAMAGED, "no SEGMENT record of format 1"},
		{"another type", SPOOL_SCAN_DAMAGED, "no SEGMENT record of format 1"},
		{"too short", SPOOL_SCAN_DAMAGED, "too few"},
		{"its first sector missing", SPOOL_SCAN_TORN, "first write"},
		{"only text", SPOOL_SCAN_TORN, "nothing that belongs to it"},
	};
	(void)state;

	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		size_t bytes = IMAGE_BYTES;

		print_message("%s\n", cases[i].name);
		image_sequence = 105;
		if (i == 1) {
			char path[128];

			(void)snprintf(path, sizeof(path), "%s/05", image_folder);
			assert_int_equal(mkdir(path, 0700), 0);
			image_log = 5;
		}
		make_second();
		image_log = 0;
		if (i == 1)
			image_save("000001.seg");
		if (i == 2)
			image[RECORD_HEADER_BYTES]++;
		if (i == 3)
			image_at = 0;
		if (i == 2 || i == 3) {
			const struct record_head head = {
				.type = i == 2 ? RECORD_SEGMENT : RECORD_NOTE,
				.payload_bytes = RECORD_SEGMENT_BYTES,
				.segment = 2,
				.sequence = 106,
			};

			record_seal(&head, image);
		}
		if (i == 4)
			bytes = RECORD_BLOCK - 1;
		if (i == 5)
			memset(image, 0, 512), image[600] = 1;
		if (i == 6)
			memset(image, 'x', sizeof(image));
		image_save_bytes("000009.seg", bytes);
		image_sequence = 105;
		make_second();
		scan_all();
		expect_finding(cases[i].kind, 0, 0);
		assert_non_null(strstr(findings[0].words, cases[i].words));
		assert_non_null(strstr(findings[0].file, "000009.seg"));
		assert_int_equal(record_count, 12);
	}
}

/* The file was cut: what is there is read. */
static void test_cut_file(void **state)
{
	(void)state;

	image_sequence = 105;
	make_second();
	image_save_bytes("000001.seg", places[5] + 50);
	scan_all();
	assert_int_equal(record_count, 10);
	assert_int_equal(finding_count, 2);
	assert_int_equal(findings[0].kind, SPOOL_SCAN_DAMAGED);
	assert_int_equal(findings[0].offset, 0);
	assert_int_equal(findings[1].kind, SPOOL_SCAN_TORN);
	assert_int_equal(findings[1].offset, places[5]);
}

/* Both numbers of a SEGMENT record may be hit; one is enough to know the rest. */
static void test_headless(void **state)
{
	static const size_t bytes[] = {0, 4, 16, 30, RECORD_HEADER_BYTES + 8};
	(void)state;

	for (size_t i = 0; i < COUNT_OF(bytes); i++) {
		image_sequence = 100;
		make_first();
		image[bytes[i]] ^= 0x40;
		image_save("000002.seg");
		image_sequence = 105;
		make_second();
		scan_all();
		expect_finding(SPOOL_SCAN_DAMAGED, 1, 0);
		assert_int_equal(record_count, 11);
		assert_int_equal(records[0].sequence, 102);

		image_sequence = 100;
		make_first();
		image_sequence = 105;
		make_second();
		image[bytes[i]] ^= 0x40;
		image_save("000001.seg");
		scan_all();
		expect_finding(SPOOL_SCAN_DAMAGED, 2, 0);
		assert_int_equal(record_count, 11);
	}
}

/* A record that is good but out of order is none: a body may hold anything. */
static void test_out_of_order(void **state)
{
	uint32_t at;
	(void)state;

	image_sequence = 105;
	make_second();
	at = image_at;
	image_sequence = 50;
	(void)image_done(9);
	image_flush();
	image_save("000001.seg");
	scan_all();
	assert_int_equal(record_count, 12);
	expect_finding(SPOOL_SCAN_TORN, 2, at);
}

/* Behind a damaged SEGMENT the log begins with what was read: said, and the newest is read. */
static void test_goes_back(void **state)
{
	(void)state;

	image_sequence = 500;
	make_first();
	make_second();
	image[0] ^= 0x40;
	image_save("000001.seg");
	image_sequence = 200;
	image_begin(3);
	(void)image_message(10, NULL, 0, span_of("z\r\n"));
	image_save("000003.seg");
	scan_all();
	assert_int_equal(finding_count, 2);
	assert_int_equal(findings[1].kind, SPOOL_SCAN_DAMAGED);
	assert_int_equal(findings[1].segment, 2);
	assert_non_null(strstr(findings[1].words, "goes on with record 201, and 505 was read"));
	assert_int_equal(record_count, 7);
	assert_int_equal(records[5].sequence, 201);
	assert_int_equal(records[6].id, 10);
}

/* A segment that is full to its last byte. */
static void test_full(void **state)
{
	static uint8_t text[4096];
	(void)state;

	image_sequence = 105;
	make_second();
	while (image_at < IMAGE_BYTES)
		(void)image_body(10, 0,
			span_make(
				text, RECORD_BLOCK - RECORD_HEADER_BYTES - RECORD_BODY_HEAD_BYTES));
	image_save("000001.seg");
	scan_all();
	assert_int_equal(finding_count, 0);
	assert_int_equal(records[record_count - 1].sequence, image_sequence);
	/* The last one claims to go on beyond the end. */
	image[IMAGE_BYTES - RECORD_BLOCK + 13] = 0x20;
	image_save("000001.seg");
	scan_all();
	expect_finding(SPOOL_SCAN_TORN, 2, IMAGE_BYTES - RECORD_BLOCK);
}

/* Nothing that stands in a segment stops a scan, or takes it out of its bounds. */
static void test_garbage(void **state)
{
	uint32_t random = 7;
	(void)state;

	for (unsigned round = 0; round < 200; round++) {
		image_sequence = 105;
		make_second();
		for (unsigned i = 0; i < 6; i++) {
			random = random * 1664525u + 1013904223u;
			image[(random >> 8) % (places[7] + 256)] = (uint8_t)random;
		}
		image_save("000001.seg");
		finding_count = 0;
		scan_all();
		assert_true(record_count >= 5 && record_count <= 12);
	}
}

static void test_logs(void **state)
{
	static const char *const names[] = {"07", "99", "1", "100", "x1", "lock"};
	unsigned logs[SPOOL_LOGS_MAX];
	char path[128];
	struct spool_scan *scan = NULL;
	(void)state;

	for (size_t i = 0; i < COUNT_OF(names); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", image_folder, names[i]);
		assert_int_equal(mkdir(path, 0700), 0);
	}
	assert_int_equal(spool_scan_logs(image_folder, logs), 3);
	assert_int_equal(logs[0], 0);
	assert_int_equal(logs[1], 7);
	assert_int_equal(logs[2], 99);
	assert_int_equal(spool_scan_logs("/nowhere/at/all", logs), -ENOENT);
	assert_int_equal(spool_scan_create(image_folder, 8, NULL, NULL, &scan), -ENOENT);
	assert_null(scan);
	/* An empty one, and nobody to tell. */
	assert_int_equal(spool_scan_create(image_folder, 7, NULL, NULL, &scan), 0);
	scan_read(scan);
	assert_int_equal(record_count, 0);
	assert_int_equal(spool_scan_sequence(scan), 0);
	spool_scan_destroy(&scan);
	spool_scan_destroy(&scan);
}

/* A folder in place of a file, and a file that is gone when the scan comes to it. */
static void test_gone(void **state)
{
	char path[128];
	struct spool_scan *scan;
	(void)state;

	(void)snprintf(path, sizeof(path), "%s/00/000005.seg", image_folder);
	assert_int_equal(mkdir(path, 0700), 0);
	scan = scan_open();
	(void)snprintf(path, sizeof(path), "%s/00/000001.seg", image_folder);
	assert_int_equal(unlink(path), 0);
	scan_read(scan);
	assert_int_equal(record_count, 5);
	expect_finding(SPOOL_SCAN_DAMAGED, 2, 0);
	assert_non_null(strstr(findings[0].words, "cannot be read"));
	spool_scan_destroy(&scan);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_LOG(test_odd_files),
		WITH_LOG(test_odd_segments),
		WITH_LOG(test_cut_file),
		WITH_LOG(test_headless),
		WITH_LOG(test_out_of_order),
		WITH_LOG(test_goes_back),
		WITH_LOG(test_full),
		WITH_LOG(test_garbage),
		WITH_LOG(test_logs),
		WITH_LOG(test_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
