/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * logset_file.h: the files of one set of a log: names, headers, turn-over, and the removal of old
 * ones. Used by the writing thread of logset.c only.
 *
 * Files are named PREFIXyyyymmddhh-n.LOG, UTC, and turn over each hour and at the size limit. The
 * set goes on in the last file of the hour while that is below its size, also after a restart; else
 * in the next number. Before a file is begun, files of the set are removed that are too old, and
 * then the oldest, until the rest and one full file fit the directory's limit. No file of another
 * name is touched.
 */

#include "relay/base/assert.h"
#include "relay/base/span.h"
#include <limits.h>
#include <time.h>

/* The longest row, with its CR LF. */
#define LOGSET_ROW_BYTES_MAX 16384

#define LOGSET_PENDING_BYTES 65536

/* What the files of a set are called, and what their header says. */
struct logset_kind {
	const char *prefix;    /* "RECV" */
	const char *type_word; /* "Log-Type"; Exchange spells it in two ways (EXCHANGE 12.1) */
	const char *type;      /* "SMTP Receive Protocol Log" */
	const char *fields;    /* the columns, with commas */
};

/* A copy of struct logset_options (logset.h); an empty folder: nothing is kept. */
struct logset_place {
	char folder[PATH_MAX];
	uint64_t max_file_bytes;
	uint64_t max_directory_bytes;
	uint64_t max_age_ms;
};

struct logset_file {
	const struct logset_kind *kind;
	int fd; /* -1: none is open */
	uint64_t hour;
	unsigned number;
	uint64_t written; /* bytes of the file that stand on disk, whole rows */
	size_t pending_len;
	char pending[LOGSET_PENDING_BYTES]; /* rows that are not written yet */
};

void logset_file_init(struct logset_file *file, const struct logset_kind *kind);

/*
 * Adds a row of that hour (hours since 1970) to the file that it belongs to, which is opened if
 * need be. A row of the hour before the open file's goes into the open file: rows of two
 * workers cross the full hour in any order. 0, or -errno: nothing was taken, try again later.
 */
NODISCARD int logset_file_append(
	struct logset_file *file, const struct logset_place *place, uint64_t hour, struct span row);

/* Writes out what was appended; -errno: it is kept. The file is opened if need be. */
NODISCARD int logset_file_flush(struct logset_file *file, const struct logset_place *place);

/* Closes the file without writing; appended rows are kept for the next one. */
void logset_file_close(struct logset_file *file);

/*
 * Removes the files of a set that are beyond the limits at that time, so that room bytes more
 * fit. -errno: there is no such folder, and it cannot be made.
 */
NODISCARD int logset_file_prune(const struct logset_place *place, const struct logset_kind *kind,
	int64_t now_s, uint64_t room);

/* "2026-11-21T22:46:05.123Z"; out_bytes >= 25. Returns the length. */
size_t logset_stamp(const struct timespec *time, char *out, size_t out_bytes);

/* The time of rows and files; a test may put another one here before a log is started. */
extern void (*logset_clock)(struct timespec *now);
