/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * spool_disk.h: every system call of the spool that touches a disk, as one table.
 *
 * It is the seam for tests: a model of a disk takes the kernel's place, fails as asked, and
 * forgets what was not flushed. Those of the first group wait, and are for the folder's thread and
 * the start; those of the second go to the ring, and complete from loop_turn().
 */

#include "relay/base/span.h"
#include "relay/net/loop.h"
#include <stddef.h>
#include <sys/types.h>

struct spool_disk {
	void *context; /* of a test; handed to each call */

	/* As openat(2), ..., with -errno for results. */
	int (*open)(void *context, int folder, const char *name, int flags, unsigned mode);
	int (*allocate)(void *context, int fd, uint64_t bytes);
	ssize_t (*write)(void *context, int fd, const void *data, size_t bytes, uint64_t offset);
	ssize_t (*read)(void *context, int fd, void *data, size_t bytes, uint64_t offset);
	int (*flush)(void *context, int fd);
	int (*rename)(void *context, int folder, const char *from, const char *to);
	int (*remove)(void *context, int folder, const char *name);
	void (*close)(void *context, int fd);

	/* As in loop.h. */
	void (*write_at)(void *context, struct loop *loop, struct op *op, int fd, struct span data,
		uint64_t offset, int flags);
	void (*read_at)(void *context, struct loop *loop, struct op *op, int fd, void *data,
		size_t bytes, uint64_t offset);
	void (*sync)(void *context, struct loop *loop, struct op *op, int fd);
};

extern const struct spool_disk spool_disk_kernel;
