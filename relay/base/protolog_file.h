/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * protolog_file.h: the files of one set of the protocol log: names, headers, turn-over, and the
 * removal of old ones. Used by the writing thread of protolog.c only.
 *
 * The set goes on in the last file of the hour while that is below its size, also after a
 * restart; else in the next number. Before a file is begun, files of the set are removed that are
 * too old, and then the oldest, until the rest and one full file fit the directory's limit. No
 * file of another name is touched.
 */

#include "relay/base/protolog.h"
#include <limits.h>

/* The longest row, with its CR LF. */
#define PROTOLOG_ROW_BYTES_MAX 8192

#define PROTOLOG_PENDING_BYTES 65536

/* A copy of struct protolog_options; an empty folder: nothing is kept. */
struct protolog_place {
	char folder[PATH_MAX];
	uint64_t max_file_bytes;
	uint64_t max_directory_bytes;
	uint64_t max_age_ms;
};

struct protolog_file {
	enum protolog_set set;
	int fd; /* -1: none is open */
	uint64_t hour;
	unsigned number;
	uint64_t written; /* bytes of the file that stand on disk, whole rows */
	size_t pending_len;
	char pending[PROTOLOG_PENDING_BYTES]; /* rows that are not written yet */
};

void protolog_file_init(struct protolog_file *file, enum protolog_set set);

/*
 * Adds a row of that hour (hours since 1970) to the file that it belongs to, which is opened if
 * need be. A row of the hour before the open file's goes into the open file: rows of two
 * workers cross the full hour in any order. 0, or -errno: nothing was taken, try again later.
 */
NODISCARD int protolog_file_append(struct protolog_file *file, const struct protolog_place *place,
	uint64_t hour, struct span row);

/* Writes out what was appended; -errno: it is kept. The file is opened if need be. */
NODISCARD int protolog_file_flush(struct protolog_file *file, const struct protolog_place *place);

/* Closes the file without writing; appended rows are kept for the next one. */
void protolog_file_close(struct protolog_file *file);

/*
 * Removes the files of a set that are beyond the limits at that time, so that room bytes more
 * fit. -errno: there is no such folder, and it cannot be made.
 */
NODISCARD int protolog_file_prune(
	const struct protolog_place *place, enum protolog_set set, int64_t now_s, uint64_t room);

/* "2026-11-21T22:46:05.123Z"; out_bytes >= 25. Returns the length. */
size_t protolog_stamp(const struct timespec *time, char *out, size_t out_bytes);
