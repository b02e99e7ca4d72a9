/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * disk_fixture.h: a disk that forgets what was not flushed, and fails as asked.
 *
 * Files are real ones, and hold what a reader would see. Beside them the model keeps what is on the
 * platter, and each write that is not yet there. A write with RWF_DSYNC puts its own range on the
 * platter when it completes, and nothing else; a flush puts all writes of its file there. A name
 * that was made or removed is safe when its folder was flushed. When the power is cut each sector
 * of 512 bytes has what the platter had, or what any write that was under way or not flushed would
 * have put there, in any order.
 */

#include "relay/mail/spool_disk.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define DISK_FILES 256
#define DISK_FDS 1024
#define DISK_SECTOR 512
#define DISK_OPS 512

enum disk_call {
	DISK_OPEN,
	DISK_ALLOCATE,
	DISK_WRITE,
	DISK_READ,
	DISK_FLUSH,
	DISK_RENAME,
	DISK_REMOVE,
	DISK_WRITE_AT,
	DISK_READ_AT,
	DISK_SYNC,
	DISK_CALLS,
};

struct disk_write {
	struct disk_write *next;
	uint64_t offset;
	size_t bytes;
	uint8_t data[];
};

struct disk_file {
	char name[32];
	bool is_used;
	bool is_linked;      /* as seen now */
	bool is_linked_safe; /* on the platter */
	uint8_t *platter;
	size_t bytes;
	struct disk_write *writes; /* not yet there */
	bool is_torn;              /* what is seen is not what the platter has */
};

struct disk_op {
	enum disk_call call;
	struct op *op;
	int fd;
	const uint8_t *data;
	uint8_t *out;
	size_t bytes;
	uint64_t offset;
	int flags;
};

/* The next skip calls are as usual, then times of them give result. */
struct disk_fault {
	unsigned skip;
	unsigned times;
	ssize_t result;
};

static struct disk {
	pthread_mutex_t mutex;
	struct disk_file files[DISK_FILES];
	int file_of[DISK_FDS]; /* index + 1 */
	struct disk_op ops[DISK_OPS];
	unsigned op_count;
	struct disk_fault faults[DISK_CALLS];
	unsigned calls[DISK_CALLS];
	struct task task;
	struct loop *loop;
	int folder_fd;              /* a copy of the log's */
	bool is_dead;               /* the power is off */
	bool is_held;               /* nothing completes */
	bool is_slow;               /* one completion a turn */
	bool drops_dsync;           /* the spool forgets to ask for a flush */
	bool has_no_dsync;          /* RWF_DSYNC is not known */
	unsigned writes_then_fails; /* so many writes are done, and said to have failed */
	uint64_t random;
} disk;

static inline uint64_t disk_random(void)
{
	disk.random ^= disk.random << 13;
	disk.random ^= disk.random >> 7;
	disk.random ^= disk.random << 17;
	return disk.random;
}

/* Is this call to fail? */
static bool disk_fails(enum disk_call call, ssize_t *result)
{
	struct disk_fault *fault = &disk.faults[call];

	disk.calls[call]++;
	if (disk.is_dead) {
		*result = -EIO;
		return true;
	}
	if (fault->times == 0)
		return false;
	if (fault->skip > 0) {
		fault->skip--;
		return false;
	}
	fault->times--;
	*result = fault->result;
	return true;
}

static struct disk_file *disk_file_of(int fd)
{
	return fd < DISK_FDS && disk.file_of[fd] > 0 ? &disk.files[disk.file_of[fd] - 1] : NULL;
}

static struct disk_file *disk_find(const char *name)
{
	for (unsigned i = 0; i < DISK_FILES; i++)
		if (disk.files[i].is_used && disk.files[i].is_linked &&
			strcmp(disk.files[i].name, name) == 0)
			return &disk.files[i];
	return NULL;
}

static void disk_file_drop(struct disk_file *file)
{
	while (file->writes != NULL) {
		struct disk_write *next = file->writes->next;

		free(file->writes);
		file->writes = next;
	}
	free(file->platter);
	*file = (struct disk_file){.is_used = false};
}

static struct disk_file *disk_file_new(const char *name)
{
	for (unsigned i = 0; i < DISK_FILES; i++) {
		if (disk.files[i].is_used)
			continue;
		disk.files[i] = (struct disk_file){.is_used = true, .is_linked = true};
		(void)snprintf(disk.files[i].name, sizeof(disk.files[i].name), "%s", name);
		return &disk.files[i];
	}
	abort();
}

static void disk_apply(struct disk_file *file, uint64_t offset, const uint8_t *data, size_t bytes)
{
	if (offset + bytes > file->bytes) {
		file->platter = realloc(file->platter, offset + bytes);
		assert(file->platter != NULL);
		memset(file->platter + file->bytes, 0, offset + bytes - file->bytes);
		file->bytes = offset + bytes;
	}
	memcpy(file->platter + offset, data, bytes);
}

static void disk_remember(
	struct disk_file *file, uint64_t offset, const uint8_t *data, size_t bytes)
{
	struct disk_write *write = malloc(sizeof(*write) + bytes);
	struct disk_write **at = &file->writes;

	assert(write != NULL);
	*write = (struct disk_write){.offset = offset, .bytes = bytes};
	memcpy(write->data, data, bytes);
	while (*at != NULL)
		at = &(*at)->next;
	*at = write;
}

static void disk_settle_file(struct disk_file *file)
{
	while (file->writes != NULL) {
		struct disk_write *write = file->writes;

		disk_apply(file, write->offset, write->data, write->bytes);
		file->writes = write->next;
		free(write);
	}
}

static int disk_open(void *context, int folder, const char *name, int flags, unsigned mode)
{
	struct disk_file *file;
	ssize_t result;
	int fd;

	(void)context;
	(void)pthread_mutex_lock(&disk.mutex);
	if (disk_fails(DISK_OPEN, &result)) {
		(void)pthread_mutex_unlock(&disk.mutex);
		return (int)result;
	}
	fd = openat(folder, name, (flags & ~O_DIRECT) | O_CLOEXEC, mode);
	if (fd >= 0) {
		assert(fd < DISK_FDS);
		file = disk_find(name);
		if (file == NULL)
			file = disk_file_new(name);
		disk.file_of[fd] = (int)(file - disk.files) + 1;
		if (strstr(name, ".seg") != NULL || strcmp(name, "try.new") != 0) {
			if (disk.folder_fd >= 0)
				(void)close(disk.folder_fd);
			disk.folder_fd = dup(folder);
		}
	}
	(void)pthread_mutex_unlock(&disk.mutex);
	return fd < 0 ? -errno : fd;
}

static int disk_allocate(void *context, int fd, uint64_t bytes)
{
	ssize_t result = 0;

	(void)context;
	(void)pthread_mutex_lock(&disk.mutex);
	if (!disk_fails(DISK_ALLOCATE, &result))
		result = ftruncate(fd, (off_t)bytes) == 0 ? 0 : -errno;
	(void)pthread_mutex_unlock(&disk.mutex);
	return (int)result;
}

static ssize_t disk_write(void *context, int fd, const void *data, size_t bytes, uint64_t offset)
{
	struct disk_file *file;
	ssize_t result;

	(void)context;
	(void)pthread_mutex_lock(&disk.mutex);
	file = disk_file_of(fd);
	if (disk_fails(DISK_WRITE, &result)) {
		if (result > 0)
			result = pwrite(fd, data, (size_t)result, (off_t)offset);
	} else {
		result = pwrite(fd, data, bytes, (off_t)offset);
	}
	if (result > 0 && file != NULL)
		disk_remember(file, offset, data, (size_t)result);
	(void)pthread_mutex_unlock(&disk.mutex);
	return result;
}

static ssize_t disk_read(void *context, int fd, void *data, size_t bytes, uint64_t offset)
{
	ssize_t result;

	(void)context;
	(void)pthread_mutex_lock(&disk.mutex);
	if (!disk_fails(DISK_READ, &result))
		result = pread(fd, data, bytes, (off_t)offset);
	(void)pthread_mutex_unlock(&disk.mutex);
	return result;
}

/* Of a file its content, of a folder its names. */
static int disk_flush(void *context, int fd)
{
	struct disk_file *file;
	ssize_t result = 0;

	(void)context;
	(void)pthread_mutex_lock(&disk.mutex);
	file = disk_file_of(fd);
	if (disk_fails(DISK_FLUSH, &result)) {
		(void)pthread_mutex_unlock(&disk.mutex);
		return (int)result;
	}
	if (file != NULL)
		disk_settle_file(file);
	for (unsigned i = 0; file == NULL && i < DISK_FILES; i++) {
		if (!disk.files[i].is_used)
			continue;
		disk.files[i].is_linked_safe = disk.files[i].is_linked;
		if (!disk.files[i].is_linked)
			disk_file_drop(&disk.files[i]);
	}
	(void)pthread_mutex_unlock(&disk.mutex);
	return (int)result;
}

static int disk_rename(void *context, int folder, const char *from, const char *to)
{
	struct disk_file *file;
	ssize_t result = 0;

	(void)context;
	(void)pthread_mutex_lock(&disk.mutex);
	if (!disk_fails(DISK_RENAME, &result)) {
		result = renameat(folder, from, folder, to) == 0 ? 0 : -errno;
		file = disk_find(from);
		if (result == 0 && file != NULL)
			(void)snprintf(file->name, sizeof(file->name), "%s", to);
	}
	(void)pthread_mutex_unlock(&disk.mutex);
	return (int)result;
}

static int disk_remove(void *context, int folder, const char *name)
{
	struct disk_file *file;
	ssize_t result = 0;

	(void)context;
	(void)pthread_mutex_lock(&disk.mutex);
	if (!disk_fails(DISK_REMOVE, &result)) {
		result = unlinkat(folder, name, 0) == 0 ? 0 : -errno;
		file = disk_find(name);
		if (result == 0 && file != NULL)
			file->is_linked = false;
	}
	(void)pthread_mutex_unlock(&disk.mutex);
	return (int)result;
}

static void disk_close(void *context, int fd)
{
	(void)context;
	(void)pthread_mutex_lock(&disk.mutex);
	if (fd < DISK_FDS)
		disk.file_of[fd] = 0;
	(void)close(fd);
	(void)pthread_mutex_unlock(&disk.mutex);
}

/* Older writes to the same place must not come back. */
static void disk_outdate(struct disk_file *file, uint64_t offset, const uint8_t *data, size_t bytes)
{
	for (struct disk_write *w = file->writes; w != NULL; w = w->next) {
		const uint64_t from = w->offset > offset ? w->offset : offset;
		const uint64_t w_end = w->offset + w->bytes, end = offset + bytes;
		const uint64_t to = w_end < end ? w_end : end;

		if (from < to)
			memcpy(w->data + (from - w->offset), data + (from - offset), to - from);
	}
}

static int32_t disk_do_write(const struct disk_op *it)
{
	struct disk_file *file = disk_file_of(it->fd);
	size_t bytes = it->bytes;
	ssize_t result = 0;

	assert(file != NULL);
	if (disk_fails(DISK_WRITE_AT, &result)) {
		if (result <= 0)
			return (int32_t)result;
		bytes = (size_t)result < bytes ? (size_t)result : bytes;
	}
	result = pwrite(it->fd, it->data, bytes, (off_t)it->offset);
	if (result < 0)
		return -errno;
	if (it->flags & RWF_DSYNC) {
		disk_outdate(file, it->offset, it->data, bytes);
		disk_apply(file, it->offset, it->data, bytes);
	} else {
		disk_remember(file, it->offset, it->data, bytes);
	}
	if (disk.writes_then_fails > 0) {
		disk.writes_then_fails--;
		return -EIO;
	}
	return (int32_t)result;
}

static int32_t disk_do(const struct disk_op *it)
{
	struct disk_file *file;
	ssize_t result = 0;

	if (it->call == DISK_WRITE_AT)
		return disk_do_write(it);
	if (disk_fails(it->call, &result)) {
		if (it->call == DISK_READ_AT && result > 0)
			return (int32_t)pread(it->fd, it->out, (size_t)result, (off_t)it->offset);
		return (int32_t)result;
	}
	if (it->call == DISK_READ_AT)
		return (int32_t)pread(it->fd, it->out, it->bytes, (off_t)it->offset);
	file = disk_file_of(it->fd);
	assert(file != NULL);
	disk_settle_file(file);
	return 0;
}

static void disk_complete(struct task *task)
{
	unsigned count = disk.is_slow && disk.op_count > 0 ? 1 : disk.op_count;

	if (disk.is_held)
		return;
	while (count-- > 0) {
		const struct disk_op it = disk.ops[0];
		int32_t result;

		(void)pthread_mutex_lock(&disk.mutex);
		disk.op_count--;
		memmove(disk.ops, disk.ops + 1, disk.op_count * sizeof(it));
		result = disk_do(&it);
		(void)pthread_mutex_unlock(&disk.mutex);
		it.op->in_flight = false;
		it.op->done(it.op, result, 0);
	}
	if (disk.op_count > 0)
		loop_task_add(disk.loop, task);
}

static void disk_submit(struct loop *loop, struct disk_op it)
{
	assert(disk.op_count < DISK_OPS && !it.op->in_flight);
	it.op->in_flight = true;
	(void)pthread_mutex_lock(&disk.mutex);
	disk.ops[disk.op_count++] = it;
	(void)pthread_mutex_unlock(&disk.mutex);
	disk.loop = loop;
	loop_task_add(loop, &disk.task);
}

static void disk_write_at(void *context, struct loop *loop, struct op *op, int fd, struct span data,
	uint64_t offset, int flags)
{
	(void)context;
	if (disk.has_no_dsync && (flags & RWF_DSYNC))
		disk.faults[DISK_WRITE_AT] = (struct disk_fault){0, 1, -EOPNOTSUPP};
	if (disk.drops_dsync)
		flags &= ~RWF_DSYNC;
	disk_submit(loop, (struct disk_op){.call = DISK_WRITE_AT,
				  .op = op,
				  .fd = fd,
				  .data = data.data,
				  .bytes = data.len,
				  .offset = offset,
				  .flags = flags});
}

static void disk_read_at(void *context, struct loop *loop, struct op *op, int fd, void *data,
	size_t bytes, uint64_t offset)
{
	(void)context;
	disk_submit(loop, (struct disk_op){.call = DISK_READ_AT,
				  .op = op,
				  .fd = fd,
				  .out = data,
				  .bytes = bytes,
				  .offset = offset});
}

static void disk_sync(void *context, struct loop *loop, struct op *op, int fd)
{
	(void)context;
	disk_submit(loop, (struct disk_op){.call = DISK_SYNC, .op = op, .fd = fd});
}

static const struct spool_disk disk_model = {
	.open = disk_open,
	.allocate = disk_allocate,
	.write = disk_write,
	.read = disk_read,
	.flush = disk_flush,
	.rename = disk_rename,
	.remove = disk_remove,
	.close = disk_close,
	.write_at = disk_write_at,
	.read_at = disk_read_at,
	.sync = disk_sync,
};

static inline void disk_begin(uint64_t seed)
{
	disk = (struct disk){.random = seed * 0x9e3779b97f4a7c15U + 1, .folder_fd = -1};
	(void)pthread_mutex_init(&disk.mutex, NULL);
	task_init(&disk.task, disk_complete);
}

static inline void disk_end(void)
{
	for (unsigned i = 0; i < DISK_FILES; i++)
		if (disk.files[i].is_used)
			disk_file_drop(&disk.files[i]);
	if (disk.folder_fd >= 0)
		(void)close(disk.folder_fd);
	disk.folder_fd = -1;
	(void)pthread_mutex_destroy(&disk.mutex);
}

static inline void disk_release(void)
{
	disk.is_held = false;
	if (disk.op_count > 0)
		loop_task_add(disk.loop, &disk.task);
}

/* Sectors of one write come to the platter, or do not. */
static void disk_tear(struct disk_file *file, uint64_t offset, const uint8_t *data, size_t bytes)
{
	const unsigned mood = (unsigned)(disk_random() % 4); /* none, all, some, a part in front */
	const uint64_t front = disk_random() % (bytes / DISK_SECTOR + 1);

	for (size_t at = 0; at < bytes; at += DISK_SECTOR) {
		const size_t piece = bytes - at < DISK_SECTOR ? bytes - at : DISK_SECTOR;
		const bool stays = mood == 1 || (mood == 2 && (disk_random() & 1)) ||
				   (mood == 3 && at / DISK_SECTOR < front);

		if (stays)
			disk_apply(file, offset + at, data + at, piece);
	}
}

/* Of the writes that are not safe each may come in front of each other. */
static void disk_tear_file(struct disk_file *file)
{
	file->is_torn = file->writes != NULL;
	while (file->writes != NULL) {
		struct disk_write **at = &file->writes, *write;
		unsigned count = 0;

		for (struct disk_write *w = file->writes; w != NULL; w = w->next)
			count++;
		for (uint64_t skip = disk_random() % count; skip > 0; skip--)
			at = &(*at)->next;
		write = *at;
		*at = write->next;
		disk_tear(file, write->offset, write->data, write->bytes);
		free(write);
	}
}

/* The power is cut: from here on nothing is done, and nobody is told anything that counts. */
static inline void disk_cut(void)
{
	(void)pthread_mutex_lock(&disk.mutex);
	disk.is_dead = true;
	for (unsigned i = 0; i < disk.op_count; i++)
		if (disk.ops[i].call == DISK_WRITE_AT)
			disk_remember(disk_file_of(disk.ops[i].fd), disk.ops[i].offset,
				disk.ops[i].data, disk.ops[i].bytes);
	for (unsigned i = 0; i < DISK_FILES; i++)
		if (disk.files[i].is_used)
			disk_tear_file(&disk.files[i]);
	(void)pthread_mutex_unlock(&disk.mutex);
	disk.is_held = false;
	if (disk.op_count > 0)
		loop_task_add(disk.loop, &disk.task);
}

/* The power is back: files are what the platter has. All descriptors must be closed. */
static inline void disk_return(void)
{
	for (unsigned i = 0; i < DISK_FILES; i++) {
		struct disk_file *file = &disk.files[i];
		bool is_there = file->is_linked;
		int fd;

		if (!file->is_used)
			continue;
		if (file->is_linked != file->is_linked_safe)
			is_there = disk_random() & 1;
		if (!is_there) {
			(void)unlinkat(disk.folder_fd, file->name, 0);
			disk_file_drop(file);
			continue;
		}
		fd = openat(disk.folder_fd, file->name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		assert(fd >= 0);
		if (file->bytes > 0 && (file->is_torn || !file->is_linked) &&
			pwrite(fd, file->platter, file->bytes, 0) != (ssize_t)file->bytes)
			abort();
		(void)close(fd);
		file->is_linked = file->is_linked_safe = true;
	}
	disk.is_dead = false;
}
