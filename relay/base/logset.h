/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * logset.h: rows of text from many workers into sets of files, for the protocol log (protolog.h)
 * and the message tracking log (track.h).
 *
 * A log is a thread that writes, a buffer for each worker, and one or more sets: files of one name
 * in one folder (logset_file.h). Workers append rows and never wait; the thread writes the buffers
 * out, in each worker's order. Rows that find the buffer full are dropped, and the caller counts
 * them. A folder that cannot be written is an error event, is tried again each minute, and keeps
 * no mail from passing.
 */

#include "relay/base/assert.h"
#include "relay/base/logset_file.h"
#include "relay/base/span.h"
#include <time.h>

#define LOGSET_KINDS_MAX 2

struct logset_options {
	const char *folder; /* NULL: no log is kept; rows are nothing */
	uint64_t max_file_bytes;
	uint64_t max_directory_bytes; /* of each set */
	uint64_t max_age_ms;
};

/* What a log is; constant. */
struct logset_about {
	const char *trouble; /* the event of a folder that cannot be written */
	const struct logset_kind *kinds;
	unsigned kind_count;
};

struct logset;

/* Starts the thread; makes the folder. workers: how many buffers. -errno: no memory, no thread. */
NODISCARD int logset_create(const struct logset_about *about, const struct logset_options *options,
	unsigned workers, struct logset **out);
/* Writes out what is there and ends the thread. Harmless for NULL. */
void logset_destroy(struct logset **set);
/* After a reload: other folder or limits. */
void logset_configure(struct logset *set, const struct logset_options *options);

/* Is there a folder? False for NULL. */
bool logset_is_kept(const struct logset *set);

/* A row of that time, with its CR LF. False: it was dropped. */
NODISCARD bool logset_append(struct logset *set, unsigned worker, unsigned kind,
	const struct timespec *now, struct span row);

/* One row as it is written; cut where a field is longer than it may be. */
struct logset_row {
	size_t len;
	char bytes[LOGSET_ROW_BYTES_MAX];
};

/* Begins with the time and a comma. */
void logset_row_begin(struct logset_row *row, const struct timespec *now);

/*
 * A field of at most max bytes: quoted as RFC 4180 wants it; what is no printable UTF-8 becomes
 * \xHH, so that a row is always one line, whatever the peer sent. The sum of all max and commas
 * must fit the row.
 */
void logset_row_field(struct logset_row *row, struct span text, size_t max);
/* The same, then a comma; NULL is empty. */
void logset_row_text(struct logset_row *row, const char *text, size_t max);
void logset_row_comma(struct logset_row *row);
void logset_row_end(struct logset_row *row);
