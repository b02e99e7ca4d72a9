/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/record_private.h"
#include "relay/mail/spool_scan_private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEGMENT_SUFFIX ".seg"

/* Where a SEGMENT record says its number a second time, in its payload. */
#define AT_NUMBER 16
#define AT_NUMBER_AGAIN (RECORD_HEADER_BYTES + 8)

bool scan_is_zero(struct span bytes)
{
	for (size_t i = 0; i < bytes.len; i++) {
		if (bytes.data[i] != 0)
			return false;
	}
	return true;
}

void scan_window_open(struct scan_window *window, int folder_fd, const struct scan_segment *segment)
{
	window->fd = openat(folder_fd, segment->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	window->error = window->fd < 0 ? -errno : 0;
	window->file_bytes = segment->bytes;
	window->from = 0;
	window->len = 0;
}

void scan_window_close(struct scan_window *window)
{
	if (window->fd >= 0)
		(void)close(window->fd);
	window->fd = -1;
	window->len = 0;
}

/* As much as there is from a block on. */
static void scan_window_fill(struct scan_window *window, uint64_t from)
{
	window->from = from;
	window->len = 0;
	if (window->fd >= 0)
		window->error = 0;
	while (window->fd >= 0 && window->len < SCAN_WINDOW_BYTES) {
		const ssize_t bytes = pread(window->fd, window->bytes + window->len,
			SCAN_WINDOW_BYTES - window->len, (off_t)(from + window->len));

		if (bytes < 0 && errno == EINTR)
			continue;
		if (bytes < 0)
			window->error = -errno;
		if (bytes <= 0)
			return;
		window->len += (size_t)bytes;
	}
}

struct span scan_window_at(struct scan_window *window, uint64_t at, size_t want)
{
	const uint64_t end = window->from + window->len;
	const uint64_t rest = at < window->file_bytes ? window->file_bytes - at : 0;

	if (want > rest)
		want = (size_t)rest;
	if (at < window->from || at + want > end)
		scan_window_fill(window, at - at % RECORD_BLOCK);
	if (at - window->from >= window->len)
		return (struct span){0};
	return span_skip(span_make(window->bytes, window->len), (size_t)(at - window->from));
}

enum record_status scan_window_read(struct scan_window *window, uint64_t at, uint64_t number,
	struct record_head *head, struct span *payload)
{
	struct span in = scan_window_at(window, at, RECORD_HEADER_BYTES);
	enum record_status status = record_read(in, number, head, payload);

	if (status == RECORD_SHORT && in.len >= RECORD_HEADER_BYTES) {
		in = scan_window_at(window, at, record_bytes(head->payload_bytes));
		status = record_read(in, number, head, payload);
	}
	return status == RECORD_SHORT ? RECORD_TORN : status;
}

static PRINTF_LIKE(3, 4) void segment_trouble(
	struct scan_segment *segment, enum spool_scan_kind kind, const char *format, ...)
{
	va_list list;

	segment->trouble_kind = kind;
	va_start(list, format);
	(void)vsnprintf(segment->trouble, sizeof(segment->trouble), format, list);
	va_end(list);
}

/* Is there a good record of that number behind the first one? */
static bool segment_has_number(struct scan_window *window, uint64_t number)
{
	uint64_t at = scan_align(record_bytes(RECORD_SEGMENT_BYTES), RECORD_ALIGN);
	struct record_head head;
	struct span payload;

	for (; number != 0 && at < window->file_bytes; at += RECORD_ALIGN) {
		if (scan_window_read(window, at, number, &head, &payload) == RECORD_GOOD)
			return true;
	}
	return false;
}

/*
 * The first record is bad. It is in the first sector, so a write that was torn leaves it whole or
 * not at all: if it is there it was safe once. Its number is in it twice.
 */
static void segment_salvage(
	struct scan_segment *segment, struct scan_window *window, struct span first)
{
	static const size_t places[] = {AT_NUMBER, AT_NUMBER_AGAIN};

	if (scan_is_zero(span_head(first, record_bytes(RECORD_SEGMENT_BYTES)))) {
		segment_trouble(segment, SPOOL_SCAN_TORN,
			"the first write to this segment is torn: nobody was told that it is safe");
		return;
	}
	for (size_t i = 0; i < COUNT_OF(places); i++) {
		const struct span block = scan_window_at(window, 0, RECORD_BLOCK);
		const uint64_t number =
			block.len >= RECORD_BLOCK ? get_le(block.data + places[i], 8) : 0;

		if (!segment_has_number(window, number))
			continue;
		segment->number = number;
		segment_trouble(segment, SPOOL_SCAN_DAMAGED,
			"the SEGMENT record is damaged; what stands behind it is read");
		return;
	}
	segment_trouble(segment, SPOOL_SCAN_TORN,
		"the first record is no SEGMENT record, and nothing that belongs to it follows: "
		"nobody was told that it is safe");
}

/* The first record is good; is it what it should be? */
static void segment_check(const struct spool_scan *scan, struct scan_segment *segment,
	const struct record_head *head, struct span payload)
{
	struct record_segment record;

	if (head->type != RECORD_SEGMENT || !record_read_segment(payload, &record) ||
		record.number != head->segment) {
		segment_trouble(segment, SPOOL_SCAN_DAMAGED,
			"the first record is no SEGMENT record of format %d: nothing can be read",
			RECORD_FORMAT);
		return;
	}
	if (record.log != scan->log) {
		segment_trouble(segment, SPOOL_SCAN_DAMAGED,
			"this is a segment of log %02u, and has no place here: it is not read",
			record.log);
		return;
	}
	segment->number = head->segment;
	segment->first_sequence = head->sequence;
	if (record.segment_bytes > segment->bytes)
		segment_trouble(segment, SPOOL_SCAN_DAMAGED,
			"the file has %llu bytes, and was made with %llu",
			(unsigned long long)segment->bytes,
			(unsigned long long)record.segment_bytes);
}

/* Looks at a file. False: it is blank. */
static bool segment_read(struct spool_scan *scan, struct scan_segment *segment)
{
	struct scan_window *window = &scan->window;
	struct record_head head;
	struct span payload, first;
	bool is_blank = false;

	scan_window_open(window, scan->folder_fd, segment);
	first = span_head(scan_window_at(window, 0, RECORD_BLOCK), RECORD_BLOCK);
	if (window->error != 0 && first.len < RECORD_BLOCK)
		segment_trouble(segment, SPOOL_SCAN_DAMAGED, "it cannot be read: %s",
			strerror(-window->error));
	else if (first.len < RECORD_BLOCK)
		segment_trouble(segment, SPOOL_SCAN_DAMAGED,
			"the file has %llu bytes, too few for a segment",
			(unsigned long long)segment->bytes);
	else if (scan_is_zero(first))
		is_blank = true;
	else if (scan_window_read(window, 0, 0, &head, &payload) == RECORD_GOOD)
		segment_check(scan, segment, &head, payload);
	else
		segment_salvage(segment, window, first);
	scan_window_close(window);
	return !is_blank;
}

static bool name_is_segment(const char *name)
{
	const size_t len = strlen(name);
	const size_t suffix = strlen(SEGMENT_SUFFIX);

	return len > suffix && len < SCAN_NAME_BYTES && name[0] >= '0' && name[0] <= '9' &&
	       strcmp(name + len - suffix, SEGMENT_SUFFIX) == 0;
}

/* Takes a file into the list, with room for it. */
static int segment_add(struct spool_scan *scan, const char *name)
{
	struct scan_segment *segment = &scan->segments[scan->segment_count];
	struct stat facts;

	if (fstatat(scan->folder_fd, name, &facts, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISREG(facts.st_mode))
		return 0;
	*segment = (struct scan_segment){.bytes = (uint64_t)facts.st_size};
	(void)snprintf(segment->name, sizeof(segment->name), "%s", name);
	if (segment_read(scan, segment)) {
		scan->segment_count++;
	} else {
		scan->blank_count++;
		scan->blank_bytes += segment->bytes;
	}
	return 0;
}

/* By number, those without one first, in the order of their names. */
static int segment_compare(const void *left, const void *right)
{
	const struct scan_segment *a = left;
	const struct scan_segment *b = right;

	if (a->number != b->number)
		return a->number < b->number ? -1 : 1;
	return strcmp(a->name, b->name);
}

static void segments_sort(struct spool_scan *scan)
{
	if (scan->segment_count > 0)
		qsort(scan->segments, scan->segment_count, sizeof(*scan->segments),
			segment_compare);
}

/* A number that two files have: the first one by name is believed. */
static void segments_check_twice(struct spool_scan *scan)
{
	uint64_t last = 0;

	for (unsigned i = 0; i < scan->segment_count; i++) {
		struct scan_segment *segment = &scan->segments[i];

		if (segment->number != 0 && segment->number == last) {
			segment_trouble(segment, SPOOL_SCAN_DAMAGED,
				"another file is segment %llu, too: this one is not read",
				(unsigned long long)segment->number);
			segment->number = 0;
		} else if (segment->number != 0) {
			last = segment->number;
		}
	}
}

int scan_create_segments(struct spool_scan *scan)
{
	const int fd = openat(scan->folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *folder = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;
	int rc = folder == NULL ? -errno : 0;

	if (folder == NULL) {
		if (fd >= 0)
			(void)close(fd);
		return rc;
	}
	while (rc == 0 && (entry = readdir(folder)) != NULL) {
		struct scan_segment *more;

		if (!name_is_segment(entry->d_name))
			continue;
		more = reallocarray(
			scan->segments, scan->segment_count + 1, sizeof(*scan->segments));
		if (more == NULL) {
			rc = -ENOMEM;
			break;
		}
		scan->segments = more;
		rc = segment_add(scan, entry->d_name);
	}
	(void)closedir(folder);
	if (rc < 0)
		return rc;
	segments_sort(scan);
	segments_check_twice(scan);
	segments_sort(scan);
	return 0;
}
