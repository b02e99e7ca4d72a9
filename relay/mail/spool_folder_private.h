/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * spool_folder_private.h: what the spools of a folder share with its thread.
 *
 *   the thread:  made, or scrubbed --> blank --> a spool uses it --> returned --> the thread again
 *
 * A segment that no message needs is scrubbed before it is used or removed: zeros over its first
 * block, flushed, one after the other in the order in which they were given back. So what a replay
 * finds is always a row of segments whose oldest are missing, never one with a hole: a DONE cannot
 * be gone while its MESSAGE is still there. When one cannot be scrubbed, those behind it wait.
 *
 * Lists and counts of a log are under the folder's mutex; a segment in use is the spool's alone.
 */

#include "relay/base/list.h"
#include "relay/mail/record.h"
#include "relay/mail/spool_disk.h"
#include "relay/mail/spool_folder.h"
#include <pthread.h>
#include <stdatomic.h>

/* A segment has room for the longest record beside its own two, in whole blocks. */
#define SEGMENT_BYTES_MIN 1048576
/* Places in it are 32 bits wide. */
#define SEGMENT_BYTES_MAX 2147483648U

#define FOLDER_LOGS_MAX 100

/* Blank segments that a log has ahead, and how many it keeps. */
#define FOLDER_AHEAD 2
#define FOLDER_KEPT 4

/* And how many for each log there may be beyond the most that the spool is to take. */
#define FOLDER_BEYOND 4

#define SEGMENT_NAME_BYTES 16 /* "NNNNNN.seg" */
#define SEGMENT_NAMES 1000000

/* A file, and what a spool knows of it while it is in use. */
struct spool_segment {
	struct link link; /* of the list that it is in */
	int fd;
	unsigned name;
	uint32_t bytes;
	bool is_failed; /* it is removed when it is not needed, as a write or a flush failed */

	bool is_damaged; /* its beginning cannot be read: left as it is */

	uint64_t number;
	bool is_blank;              /* nothing of it is on disk yet */
	struct spool_segment *same; /* the next with that remainder */
	struct link messages;       /* attached ones whose first_segment it is */
	uint64_t live_bytes;        /* theirs */
	unsigned pins;              /* writers and readers whose first_segment it is */
	unsigned notes;             /* whose last record is in it */
};

struct folder_log {
	int fd; /* of its folder */
	int event;
	unsigned index;
	struct link found;    /* of the start, not yet looked at */
	struct link blank;    /* zeros at its start */
	struct link returned; /* to be scrubbed, in this order */
	unsigned blanks;
	unsigned files; /* all, in use or not */
	unsigned next_name;
	int error;      /* why the last one could not be made, or scrubbed; 0 */
	bool is_open;   /* a spool has it */
	bool is_wanted; /* that spool has not got what it wanted */
};

struct spool_folder {
	struct spool_folder_options options;
	const struct spool_disk *disk;
	char *path;
	int fd;
	int lock_fd;
	int open_flags;     /* O_DIRECT, or 0 */
	unsigned files_max; /* of all logs together */
	unsigned files;
	uint8_t *zeros;                 /* the thread's; RECORD_BYTES_MAX */
	struct spool_segment *segments; /* files_max of them and those that were found */
	unsigned segment_count;
	struct link unused; /* of them, without a file */
	struct folder_log *logs;
	unsigned log_count;

	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	bool is_started;
	bool must_stop;

	_Atomic uint64_t used_bytes; /* of segments in use, all logs together */
};

/* For a spool, on its thread. */

void folder_open(struct spool_folder *folder, unsigned log);
/* No more segments are made for the log. */
void folder_close(struct spool_folder *folder, unsigned log);

/* Those that were there at the start, one after the other; NULL: no more. */
struct spool_segment *folder_take_found(struct spool_folder *folder, unsigned log);

/*
 * A blank one. for_message: the last one is left for what becomes of messages. NULL: *error is
 * -EAGAIN when one will be there soon (the event tells), else why there is none.
 */
struct spool_segment *folder_take(
	struct spool_folder *folder, unsigned log, bool for_message, int *error);

/* Given back: to be scrubbed, or blank still. */
void folder_give(struct spool_folder *folder, unsigned log, struct spool_segment *segment);
void folder_give_blank(struct spool_folder *folder, unsigned log, struct spool_segment *segment);

unsigned folder_blanks(struct spool_folder *folder, unsigned log);

/* Within the folder. */

void segment_name_print(unsigned name, char out[static SEGMENT_NAME_BYTES]);

/* The file is ours, and of nobody who was killed; it waits. -EWOULDBLOCK: it is another's still. */
NODISCARD int segment_lock(int fd);

/* All of it, or -errno. */
NODISCARD int folder_write(
	struct spool_folder *folder, int fd, const uint8_t *data, size_t bytes, uint64_t offset);

/* The thread: main is a struct spool_folder. */
void *folder_thread_run(void *main);
