/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * spool_folder.h: the folder of the spool, its lock, and the thread that makes segments.
 *
 *   FOLDER/lock            locked (flock) while a relay or posternctl spool uses the folder
 *   FOLDER/LOG/NNNNNN.seg  segments of log LOG, two digits
 *
 * Logs are for workers: worker i of n has log i, and those of a start with more workers, i + n and
 * so on, which it empties. The thread allocates a file, fills it with zeros and flushes it and its
 * folder, so that a write to it later changes no metadata of the file system. It keeps some
 * segments of each log ahead.
 */

#include "relay/base/assert.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* The system calls that touch the disk beside the ring; a test may replace them and the ring's. */
struct spool_disk;

struct spool_folder_options {
	const char *path;
	uint64_t segment_bytes; /* of new segments; those that are there keep theirs */
	uint64_t bytes_max;     /* of all logs together */
	unsigned logs;          /* of this start: workers */
	/* In percent of bytes_max; see struct queue_policy. */
	unsigned pressure_medium, pressure_high, pressure_high_end, pressure_medium_end;
	const struct spool_disk *disk; /* NULL: the kernel */
};

struct spool_folder;

/*
 * Makes the folder if need be (0700), locks it, finds its logs, starts the thread. Mistakes are
 * lines on errors. -EWOULDBLOCK: another process has it; -errno.
 */
NODISCARD int spool_folder_create(
	const struct spool_folder_options *options, FILE *errors, struct spool_folder **out);

/* All spools of it must be destroyed. */
void spool_folder_destroy(struct spool_folder **folder);

/* How many logs there are: those of this start, and older ones. */
unsigned spool_folder_logs(const struct spool_folder *folder);
