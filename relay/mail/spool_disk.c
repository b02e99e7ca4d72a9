/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/spool_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static int kernel_open(void *context, int folder, const char *name, int flags, unsigned mode)
{
	int fd = openat(folder, name, flags | O_CLOEXEC, mode);

	(void)context;
	return fd < 0 ? -errno : fd;
}

/* A file system that cannot say so (EOPNOTSUPP) gets its blocks by the zeros that follow. */
static int kernel_allocate(void *context, int fd, uint64_t bytes)
{
	(void)context;
	if (fallocate(fd, 0, 0, (off_t)bytes) == 0 || errno == EOPNOTSUPP)
		return 0;
	return -errno;
}

static ssize_t kernel_write(void *context, int fd, const void *data, size_t bytes, uint64_t offset)
{
	ssize_t written = pwrite(fd, data, bytes, (off_t)offset);

	(void)context;
	return written < 0 ? -errno : written;
}

static ssize_t kernel_read(void *context, int fd, void *data, size_t bytes, uint64_t offset)
{
	ssize_t got = pread(fd, data, bytes, (off_t)offset);

	(void)context;
	return got < 0 ? -errno : got;
}

static int kernel_flush(void *context, int fd)
{
	(void)context;
	return fsync(fd) == 0 ? 0 : -errno;
}

static int kernel_rename(void *context, int folder, const char *from, const char *to)
{
	(void)context;
	return renameat(folder, from, folder, to) == 0 ? 0 : -errno;
}

static int kernel_remove(void *context, int folder, const char *name)
{
	(void)context;
	return unlinkat(folder, name, 0) == 0 ? 0 : -errno;
}

static void kernel_close(void *context, int fd)
{
	(void)context;
	(void)close(fd);
}

static void kernel_write_at(void *context, struct loop *loop, struct op *op, int fd,
	struct span data, uint64_t offset, int flags)
{
	(void)context;
	loop_write_at(loop, op, fd, data.data, data.len, offset, flags);
}

static void kernel_read_at(void *context, struct loop *loop, struct op *op, int fd, void *data,
	size_t bytes, uint64_t offset)
{
	(void)context;
	loop_read_at(loop, op, fd, data, bytes, offset);
}

static void kernel_sync(void *context, struct loop *loop, struct op *op, int fd)
{
	(void)context;
	loop_sync(loop, op, fd);
}

const struct spool_disk spool_disk_kernel = {
	.open = kernel_open,
	.allocate = kernel_allocate,
	.write = kernel_write,
	.read = kernel_read,
	.flush = kernel_flush,
	.rename = kernel_rename,
	.remove = kernel_remove,
	.close = kernel_close,
	.write_at = kernel_write_at,
	.read_at = kernel_read_at,
	.sync = kernel_sync,
};
