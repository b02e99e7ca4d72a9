/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * spool_scan_private.h: the parts of a scan.
 *
 *   spool_scan.c        from record to record, and what is said of a bad place
 *   spool_scan_files.c  which files there are, in which order, and their bytes
 */

#include "relay/mail/spool_scan.h"
#include <limits.h>
#include <stdarg.h>

#define SCAN_NAME_BYTES 32
#define SCAN_WORDS_BYTES 256

/* The longest record, wherever it begins in a block, and enough behind it to read seldom. */
#define SCAN_WINDOW_BYTES 1048576

struct scan_segment {
	char name[SCAN_NAME_BYTES];
	uint64_t number; /* 0: nothing can be read from it, see trouble */
	uint64_t bytes;
	uint64_t first_sequence; /* of its SEGMENT record; 0: that is damaged */
	/* Told when the scan comes to it; trouble_kind only counts with words. */
	enum spool_scan_kind trouble_kind;
	char trouble[SCAN_WORDS_BYTES];
};

/* A part of a file in memory. */
struct scan_window {
	uint8_t *bytes;
	int fd;
	uint64_t file_bytes;
	uint64_t from;
	size_t len;
	int error; /* of the last read; 0 */
};

struct spool_scan {
	const struct spool_scan_events *events;
	void *owner;
	unsigned log;
	int folder_fd;
	char path[PATH_MAX]; /* of the folder */
	char file[PATH_MAX + SCAN_NAME_BYTES];

	struct scan_segment *segments; /* in the order of their numbers */
	unsigned segment_count;
	unsigned blank_count;
	uint64_t blank_bytes;

	unsigned index;    /* of the segment that is read */
	bool is_open;      /* it is */
	bool is_sealed;    /* its SEAL was read */
	uint64_t at;       /* where the next record may be */
	uint64_t behind;   /* where the last one ended; at itself where the scan went on */
	uint32_t write;    /* of the last one */
	bool has_sequence; /* one was read */
	uint64_t sequence; /* of the last one */
	struct scan_window window;

	struct scan_window body; /* for spool_scan_at() */
	char body_file[PATH_MAX + SCAN_NAME_BYTES];
	unsigned body_index;
};

/* Finds the segments of an opened folder. -errno. */
NODISCARD int scan_create_segments(struct spool_scan *scan);

/* The bytes of a file, or an error to be told by reading it. */
void scan_window_open(
	struct scan_window *window, int folder_fd, const struct scan_segment *segment);
void scan_window_close(struct scan_window *window);

/* What there is at that place: want bytes at least, unless the file ends or cannot be read. */
struct span scan_window_at(struct scan_window *window, uint64_t at, size_t want);

/* record_read() of that place; never RECORD_SHORT: what does not fit is torn. */
NODISCARD enum record_status scan_window_read(struct scan_window *window, uint64_t at,
	uint64_t number, struct record_head *head, struct span *payload);

/* Is all of it zero? */
bool scan_is_zero(struct span bytes);

/* Up to a multiple of unit. */
static inline uint64_t scan_align(uint64_t at, uint64_t unit)
{
	return (at + unit - 1) / unit * unit;
}
