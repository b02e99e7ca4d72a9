/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * spool_scan_fixture.h: a log of two segments for tests of the scan, and what a scan of it found.
 */

#include "relay/mail/spool_scan.h"
#include "tests/unit/spool_image.h"

#define RECORDS_MAX 128
#define FINDINGS_MAX 8

/* What the last scan has found. */
static struct {
	enum record_type type;
	uint64_t segment, sequence, id;
	uint32_t offset;
} records[RECORDS_MAX];
static unsigned record_count;
static struct {
	enum spool_scan_kind kind;
	uint64_t segment, offset;
	char file[160];
	char words[256];
} findings[FINDINGS_MAX];
static unsigned finding_count;

static inline void on_finding(void *owner, const struct spool_scan_finding *finding)
{
	assert_ptr_equal(owner, &finding_count);
	assert_true(finding_count < FINDINGS_MAX);
	findings[finding_count].kind = finding->kind;
	findings[finding_count].segment = finding->segment;
	findings[finding_count].offset = finding->offset;
	(void)snprintf(findings[finding_count].file, sizeof(findings[0].file), "%s", finding->file);
	(void)snprintf(
		findings[finding_count].words, sizeof(findings[0].words), "%s", finding->words);
	finding_count++;
}

static const struct spool_scan_events events = {.on_finding = on_finding};

static inline struct spool_scan *scan_open(void)
{
	struct spool_scan *scan = NULL;

	finding_count = 0;
	assert_int_equal(
		spool_scan_create(image_folder, image_log, &events, &finding_count, &scan), 0);
	assert_int_equal(finding_count, 0);
	return scan;
}

static inline void scan_read(struct spool_scan *scan)
{
	struct spool_scan_record record;

	record_count = 0;
	finding_count = 0;
	while (spool_scan_next(scan, &record)) {
		assert_true(record_count < RECORDS_MAX);
		assert_int_equal(record.payload.len, record.head.payload_bytes);
		records[record_count].type = record.head.type;
		records[record_count].segment = record.head.segment;
		records[record_count].sequence = record.head.sequence;
		records[record_count].id = record.head.id;
		records[record_count].offset = record.offset;
		record_count++;
	}
	assert_false(spool_scan_next(scan, &record));
}

static inline void scan_all(void)
{
	struct spool_scan *scan = scan_open();

	scan_read(scan);
	spool_scan_destroy(&scan);
	assert_null(scan);
}

static inline bool has_record(uint64_t sequence)
{
	for (unsigned i = 0; i < record_count; i++) {
		if (records[i].sequence == sequence)
			return true;
	}
	return false;
}

static inline void expect_finding(enum spool_scan_kind kind, uint64_t segment, uint64_t offset)
{
	assert_int_equal(finding_count, 1);
	assert_string_equal(spool_scan_word(findings[0].kind), spool_scan_word(kind));
	assert_int_equal(findings[0].segment, segment);
	assert_int_equal(findings[0].offset, offset);
}

/* Segment 1 in the file 000002.seg: SEGMENT, a message with a body, SEAL; 101 to 105. */
static struct record_extent first_extents[2];
static inline void make_first(void)
{
	image_begin(1);
	first_extents[0] = (struct record_extent){1, image_body(7, 0, span_of("one\r\n")), 5};
	image_flush();
	first_extents[1] = (struct record_extent){1, image_body(7, 5, span_of("two\r\n")), 5};
	(void)image_message(7, first_extents, 2, span_of("three\r\n"));
	image_flush();
	(void)image_add(RECORD_SEAL, 0, (struct span){0});
	image_save("000002.seg");
}

/* Segment 2 in 000001.seg, with one of each type, three writes; 106 to 112. Where they are: */
static uint32_t places[8];
static inline void make_second(void)
{
	image_begin(2);
	places[0] = 0;
	places[1] = image_body(8, 0, span_of("x\r\n"));
	image_flush();
	places[2] = image_message(9, NULL, 0, span_of("y\r\n"));
	places[3] = image_change(9, 0, RCPT_DELIVERED);
	places[4] = image_add(RECORD_NOTE, 44, span_of("a note"));
	image_flush();
	places[5] = image_done(9);
	places[6] = image_add(RECORD_NOTE, 45, span_of("another"));
	image_flush();
	places[7] = image_at;
	image_save("000001.seg");
}

static inline int set_up(void **state)
{
	(void)state;
	image_open();
	make_first();
	make_second();
	return 0;
}

static inline int tear_down(void **state)
{
	(void)state;
	image_close();
	return 0;
}

#define WITH_LOG(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
