/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * spool_image.h: a log of a spool, made by hand: one segment is in memory and goes to a file.
 *
 *   image_open()                              a folder of its own under /tmp
 *   image_begin(2); image_add(...); image_flush(); image_save("000001.seg");
 *   image_close()
 *
 * Each image_flush() ends a write: the next record begins at the next block.
 */

#include "relay/mail/envelope.h"
#include "relay/mail/record.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define IMAGE_BYTES 65536

static char image_folder[64];
static uint8_t image[IMAGE_BYTES];
static uint32_t image_at;       /* where the next record goes */
static uint32_t image_write_at; /* where the write began */
static uint64_t image_segment;
static uint64_t image_sequence; /* of the last record */
static unsigned image_log;

static inline void image_open(void)
{
	char log[80];

	(void)snprintf(image_folder, sizeof(image_folder), "/tmp/postern-image-XXXXXX");
	assert_non_null(mkdtemp(image_folder));
	(void)snprintf(log, sizeof(log), "%s/00", image_folder);
	assert_int_equal(mkdir(log, 0700), 0);
	image_sequence = 100;
	image_log = 0;
}

static inline int image_remove_one(
	const char *path, const struct stat *facts, int flag, struct FTW *walk)
{
	(void)facts;
	(void)flag;
	(void)walk;
	return remove(path);
}

static inline void image_close(void)
{
	assert_int_equal(nftw(image_folder, image_remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

/* A record of that payload; returns where it is. */
static inline uint32_t image_add(enum record_type type, uint64_t id, struct span payload)
{
	const uint32_t at = image_at;
	const struct record_head head = {
		.type = type,
		.payload_bytes = (uint32_t)payload.len,
		.segment = image_segment,
		.sequence = ++image_sequence,
		.id = id,
		.time_ms = 1795967999123,
		.write = image_write_at / RECORD_BLOCK + 1,
	};

	assert_true(at + record_bytes(payload.len) <= sizeof(image));
	if (payload.len > 0)
		memcpy(image + at + RECORD_HEADER_BYTES, payload.data, payload.len);
	record_seal(&head, image + at);
	image_at += (uint32_t)((record_bytes(payload.len) + RECORD_ALIGN - 1) / RECORD_ALIGN) *
		    RECORD_ALIGN;
	return at;
}

static inline void image_flush(void)
{
	image_at = (image_at + RECORD_BLOCK - 1) / RECORD_BLOCK * RECORD_BLOCK;
	image_write_at = image_at;
}

/* A segment begins, on a blank file. */
static inline void image_begin(uint64_t number)
{
	uint8_t payload[RECORD_SEGMENT_BYTES];
	const struct record_segment segment = {
		.format = RECORD_FORMAT,
		.log = image_log,
		.number = number,
		.segment_bytes = IMAGE_BYTES,
		.created_ms = 1795967999000,
	};

	memset(image, 0, sizeof(image));
	image_at = image_write_at = 0;
	image_segment = number;
	record_write_segment(&segment, payload);
	(void)image_add(RECORD_SEGMENT, 0, span_make(payload, sizeof(payload)));
}

static inline void image_save_bytes(const char *name, size_t bytes)
{
	char path[128];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%02u/%s", image_folder, image_log, name);
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, image, bytes), bytes);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	assert_int_equal(close(fd), 0);
}

static inline void image_save(const char *name)
{
	image_save_bytes(name, sizeof(image));
}

static inline uint32_t image_body(uint64_t id, uint64_t at, struct span text)
{
	uint8_t payload[8192];

	assert_true(text.len + RECORD_BODY_HEAD_BYTES <= sizeof(payload));
	record_write_body_head(at, payload);
	memcpy(payload + RECORD_BODY_HEAD_BYTES, text.data, text.len);
	return image_add(RECORD_BODY, id, span_make(payload, RECORD_BODY_HEAD_BYTES + text.len));
}

/* A message of two recipients, whose body is in these extents and then text. */
static inline uint32_t image_message(
	uint64_t id, const struct record_extent *extents, uint32_t count, struct span text)
{
	static const char *const paths[] = {"<b@adatum.example>", "<c@adatum.example>"};
	uint8_t payload[8192], encoded[8 * RECORD_EXTENT_BYTES], bytes[2048];
	struct record_message message = {.body_bytes = text.len,
		.extent_count = count,
		.extents = span_make(encoded, (size_t)count * RECORD_EXTENT_BYTES),
		.text = text};
	struct envelope envelope = {.sender = span_of("<a@woodgrove.example>"),
		.rcpt_count = COUNT_OF(paths),
		.arrived_ms = 1795967999123,
		.expires_ms = 1796140799123,
		.subject = span_of("a subject")};
	size_t len;

	for (uint32_t i = 0; i < count; i++) {
		record_write_extent(&extents[i], encoded + (size_t)i * RECORD_EXTENT_BYTES);
		message.body_bytes += extents[i].bytes;
	}
	envelope.body_bytes = message.body_bytes;
	len = envelope_write(&envelope, bytes, sizeof(bytes));
	for (size_t i = 0; i < COUNT_OF(paths); i++)
		len += envelope_write_rcpt(&(struct envelope_rcpt){.path = span_of(paths[i])},
			bytes + len, sizeof(bytes) - len);
	message.envelope = span_make(bytes, len);
	len = record_write_message_head(&message, payload);
	memcpy(payload + len, bytes, message.envelope.len);
	len += message.envelope.len;
	memcpy(payload + len, text.data, text.len);
	return image_add(RECORD_MESSAGE, id, span_make(payload, len + text.len));
}

static inline uint32_t image_change(uint64_t id, uint32_t index, enum rcpt_state outcome)
{
	uint8_t payload[512];
	size_t len = envelope_write_change(
		&(struct envelope_change){.count = 1, .attempts = 2}, payload, sizeof(payload));

	len += envelope_write_change_rcpt(
		&(struct envelope_change_rcpt){
			.index = index, .state = outcome, .code = 250, .text = span_of("OK")},
		payload + len, sizeof(payload) - len);
	return image_add(RECORD_RECIPIENTS, id, span_make(payload, len));
}

static inline uint32_t image_done(uint64_t id)
{
	const uint8_t why = RECORD_DONE_DELIVERED;

	return image_add(RECORD_DONE, id, span_make(&why, 1));
}
