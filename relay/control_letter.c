/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/control_private.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * control_letter.c: reads single messages from the segments of the spool (record.h), while the
 * worker that owns them writes on. Nothing is locked: what is no longer there, or is being used
 * anew, has another segment number, another id, or the wrong checksum, and counts as gone.
 */

#define SEGMENT_NAME_BYTES 64

/* Records are looked for in pieces of this; the longest one fits. */
#define PIECE_BYTES 4194304
_Static_assert(PIECE_BYTES > 2 * RECORD_BYTES_MAX, "a record may begin anywhere in the first half");

/* Of the log behind a message, looked at for what became of its recipients. */
#define SCAN_BYTES_MAX (1024ULL * 1024 * 1024)

struct control_segment {
	uint64_t number;
	char name[SEGMENT_NAME_BYTES];
};

/* ---- files */

void control_reader_init(struct control_reader *reader, const struct control_desk *desk)
{
	*reader = (struct control_reader){
		.folder = desk->spool_folder, .workers = desk->hooks.workers, .fd = -1};
}

void control_reader_fini(struct control_reader *reader)
{
	if (reader->fd >= 0)
		(void)close(reader->fd);
	free(reader->segments);
	*reader = (struct control_reader){.fd = -1};
}

/* Of a worker's spools the first is its own log, and others are older ones (spool_folder.h). */
static unsigned reader_log(const struct control_reader *reader, const struct message_row *row)
{
	return row->worker + row->log * reader->workers;
}

/* What there is at that place: up to len bytes; how many, or -errno. */
static ssize_t file_read(int fd, uint8_t *out, size_t len, uint64_t at)
{
	size_t have = 0;

	while (have < len) {
		ssize_t got = pread(fd, out + have, len - have, (off_t)(at + have));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		have += (size_t)got;
	}
	return (ssize_t)have;
}

/* The number that a file has now. */
static bool segment_number(int folder, const char *name, uint64_t *out)
{
	uint8_t block[RECORD_BLOCK];
	struct record_head head;
	struct record_segment segment;
	struct span payload;
	int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t len = fd < 0 ? -1 : file_read(fd, block, sizeof(block), 0);

	if (fd >= 0)
		(void)close(fd);
	if (len < 0 ||
		record_read(span_make(block, (size_t)len), 0, &head, &payload) != RECORD_GOOD ||
		head.type != RECORD_SEGMENT || !record_read_segment(payload, &segment))
		return false;
	*out = segment.number;
	return true;
}

static int reader_create_segment(struct control_reader *reader, int folder, const char *name)
{
	const size_t len = strlen(name);
	struct control_segment *segments;
	uint64_t number;

	if (len < 5 || len >= SEGMENT_NAME_BYTES || strcmp(name + len - 4, ".seg") != 0 ||
		!segment_number(folder, name, &number))
		return 0;
	segments = reallocarray(
		reader->segments, reader->segment_count + 1, sizeof(*reader->segments));
	if (segments == NULL)
		return -ENOMEM;
	reader->segments = segments;
	segments += reader->segment_count++;
	segments->number = number;
	(void)snprintf(segments->name, sizeof(segments->name), "%s", name);
	return 0;
}

static int log_open(const struct control_reader *reader, unsigned log)
{
	char path[4096];
	int len = snprintf(path, sizeof(path), "%s/%02u", reader->folder, log);
	int fd;

	if (len < 0 || (size_t)len >= sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Which file has which segment of that log. -errno. */
static int reader_create_segments(struct control_reader *reader, unsigned log)
{
	const struct dirent *entry;
	int folder = log_open(reader, log);
	DIR *dir = NULL;
	int rc = 0;

	reader->segment_count = 0;
	reader->has_log = true;
	reader->log = log;
	if (folder < 0)
		return folder;
	dir = fdopendir(folder);
	if (dir == NULL) {
		rc = -errno;
		(void)close(folder);
		return rc;
	}
	while (rc == 0 && (entry = readdir(dir)) != NULL)
		rc = reader_create_segment(reader, folder, entry->d_name);
	(void)closedir(dir);
	return rc;
}

static const struct control_segment *reader_find(
	const struct control_reader *reader, uint64_t segment)
{
	for (size_t i = 0; i < reader->segment_count; i++)
		if (reader->segments[i].number == segment)
			return &reader->segments[i];
	return NULL;
}

/* reader->fd is that segment after it. -ESTALE: there is none. */
static int reader_open(struct control_reader *reader, unsigned log, uint64_t segment)
{
	const struct control_segment *found = NULL;
	int folder;
	int rc = 0;

	if (reader->fd >= 0 && reader->log == log && reader->fd_segment == segment)
		return 0;
	if (reader->fd >= 0)
		(void)close(reader->fd);
	reader->fd = -1;
	if (reader->has_log && reader->log == log)
		found = reader_find(reader, segment);
	/* It may be younger than what is known. */
	if (found == NULL)
		rc = reader_create_segments(reader, log);
	if (rc < 0)
		return rc == -ENOENT ? -ESTALE : rc;
	found = reader_find(reader, segment);
	folder = found == NULL ? -1 : log_open(reader, log);
	if (folder >= 0) {
		reader->fd = openat(folder, found->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		(void)close(folder);
	}
	reader->fd_segment = segment;
	return reader->fd < 0 ? -ESTALE : 0;
}

/* ---- records */

/* A record of that type and id at its place; *payload points into *out, which is to be freed. */
static int record_create(struct control_reader *reader, unsigned log,
	const struct record_head *wanted, uint64_t offset, uint8_t **out, struct span *payload)
{
	const size_t bytes = record_bytes(wanted->payload_bytes);
	struct record_head head;
	uint8_t *record;
	ssize_t len;
	int rc;

	if (bytes > RECORD_BYTES_MAX)
		return -ESTALE;
	rc = reader_open(reader, log, wanted->segment);
	if (rc < 0)
		return rc;
	record = malloc(bytes);
	if (record == NULL)
		return -ENOMEM;
	len = file_read(reader->fd, record, bytes, offset);
	if (len < 0)
		rc = (int)len;
	else if (record_read(span_make(record, (size_t)len), wanted->segment, &head, payload) !=
			 RECORD_GOOD ||
		 head.type != wanted->type || head.id != wanted->id)
		rc = -ESTALE;
	if (rc < 0)
		free(record);
	else
		*out = record;
	return rc;
}

int control_letter_create(
	struct control_reader *reader, const struct message_row *row, struct control_letter *out)
{
	const struct record_head wanted = {
		.type = RECORD_MESSAGE,
		.payload_bytes = row->record_bytes < RECORD_HEADER_BYTES
					 ? 0
					 : row->record_bytes - RECORD_HEADER_BYTES,
		.segment = row->segment,
		.id = row->id,
	};
	struct control_letter letter = {0};
	struct span payload;
	int rc = record_create(
		reader, reader_log(reader, row), &wanted, row->offset, &letter.record, &payload);

	if (rc < 0)
		return rc;
	if (record_read_message(payload, &letter.message) &&
		envelope_read(letter.message.envelope, &letter.envelope)) {
		*out = letter;
		return 0;
	}
	free(letter.record);
	return -ESTALE;
}

void control_letter_destroy(struct control_letter *letter)
{
	free(letter->record);
	*letter = (struct control_letter){0};
}

/* ---- the body */

/* One piece of it, to its place in text. */
static int extent_create_copy(struct control_reader *reader, const struct message_row *row,
	const struct record_extent *extent, char *text, size_t place, size_t len)
{
	const struct record_head wanted = {
		.type = RECORD_BODY,
		.payload_bytes = extent->bytes + RECORD_BODY_HEAD_BYTES,
		.segment = extent->segment,
		.id = row->id,
	};
	uint8_t *record = NULL;
	struct span payload;
	struct span piece = {0};
	uint64_t at = 0;
	int rc = extent->bytes > len ? -ESTALE
				     : record_create(reader, reader_log(reader, row), &wanted,
					       extent->offset, &record, &payload);

	if (rc == 0 && (!record_read_body(payload, &at, &piece) || at != place ||
			       piece.len != extent->bytes))
		rc = -ESTALE;
	if (rc == 0)
		memcpy(text + place, piece.data, piece.len);
	free(record);
	return rc;
}

int control_letter_create_text(struct control_reader *reader, const struct message_row *row,
	const struct control_letter *letter, char **out, size_t *out_len)
{
	const struct record_message *message = &letter->message;
	const size_t len = message->body_bytes;
	char *text = len > IP_LIST_FILE_BYTES_MAX ? NULL : malloc(len + 1);
	size_t at = 0;
	int rc = 0;

	if (text == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; rc == 0 && i < message->extent_count; i++) {
		struct record_extent extent;

		if (!record_read_extent(message, i, &extent)) {
			rc = -ESTALE;
			break;
		}
		rc = extent_create_copy(reader, row, &extent, text, at, len);
		at += rc == 0 ? extent.bytes : 0;
	}
	if (rc == 0 && message->text.len != len - at)
		rc = -ESTALE;
	if (rc < 0) {
		free(text);
		return rc;
	}
	if (message->text.len > 0)
		memcpy(text + at, message->text.data, message->text.len);
	*out = text;
	*out_len = len;
	return 0;
}

/* ---- what became of its recipients */

struct scan {
	uint64_t id;
	uint32_t rcpt_count;
	uint8_t *states;
	uint8_t *piece;
	uint64_t bytes; /* looked at */
};

static void scan_change(struct scan *scan, struct span payload)
{
	struct envelope_change change;
	struct envelope_change_rcpt rcpt;
	size_t at = 0;

	if (!envelope_read_change(payload, &change))
		return;
	while (envelope_change_next(&change, &at, &rcpt))
		if (rcpt.index < scan->rcpt_count && rcpt.state < RCPT_STATE_COUNT)
			scan->states[rcpt.index] = (uint8_t)rcpt.state;
}

/* The records of a piece, which begins at that place of the segment; how much is done with. */
static size_t scan_piece(struct scan *scan, size_t len, uint64_t segment, uint64_t place)
{
	size_t at = 0;

	while (len - at >= RECORD_HEADER_BYTES) {
		struct record_head head;
		struct span payload;
		size_t bytes = RECORD_BLOCK - (place + at) % RECORD_BLOCK;

		switch (record_read(
			span_make(scan->piece + at, len - at), segment, &head, &payload)) {
		case RECORD_GOOD:
			if (head.id == scan->id && head.type == RECORD_RECIPIENTS)
				scan_change(scan, payload);
			bytes = record_bytes(head.payload_bytes);
			bytes += RECORD_ALIGN - 1;
			bytes -= bytes % RECORD_ALIGN;
			break;
		case RECORD_SHORT:
			/* With the next piece, unless this is all that there is. */
			if (at > 0)
				return at;
			break;
		case RECORD_NONE:
		case RECORD_TORN:
			break;
		}
		at += bytes < len - at ? bytes : len - at;
	}
	return at;
}

/* A segment, from that block on. -errno. */
static int scan_segment(struct scan *scan, struct control_reader *reader, unsigned log,
	uint64_t segment, uint64_t at)
{
	int rc = reader_open(reader, log, segment);

	while (rc == 0 && scan->bytes < SCAN_BYTES_MAX) {
		ssize_t len = file_read(reader->fd, scan->piece, PIECE_BYTES, at);
		size_t done;

		if (len < 0)
			return (int)len;
		if (len < RECORD_HEADER_BYTES)
			break;
		done = scan_piece(scan, (size_t)len, segment, at);
		at += done;
		scan->bytes += done;
		if (len < PIECE_BYTES)
			break;
	}
	return rc;
}

int control_letter_create_states(struct control_reader *reader, const struct message_row *row,
	const struct control_letter *letter, uint8_t **out)
{
	struct scan scan = {.id = row->id, .rcpt_count = letter->envelope.rcpt_count};
	struct envelope_rcpt rcpt;
	uint64_t last = 0;
	size_t at = 0;
	uint32_t i = 0;
	int rc = 0;

	scan.states = calloc(scan.rcpt_count + 1, 1);
	scan.piece = malloc(PIECE_BYTES);
	if (scan.states == NULL || scan.piece == NULL)
		rc = -ENOMEM;
	for (; rc == 0 && i < scan.rcpt_count && envelope_next(&letter->envelope, &at, &rcpt); i++)
		scan.states[i] = (uint8_t)rcpt.state;
	/* Nothing is behind it as long as all wait. */
	if (rc == 0 && row->rcpt_open < row->rcpt_count)
		rc = reader_create_segments(reader, reader_log(reader, row));
	for (size_t s = 0; s < reader->segment_count; s++)
		last = reader->segments[s].number > last ? reader->segments[s].number : last;
	for (uint64_t s = row->segment; rc == 0 && row->rcpt_open < row->rcpt_count && s <= last;
		s++) {
		rc = scan_segment(&scan, reader, reader_log(reader, row), s,
			s == row->segment ? row->offset - row->offset % RECORD_BLOCK : 0);
		/* A number that was never used, or is not any more. */
		rc = rc == -ESTALE && s != row->segment ? 0 : rc;
	}
	free(scan.piece);
	if (rc < 0)
		free(scan.states);
	else
		*out = scan.states;
	return rc;
}
