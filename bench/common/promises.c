/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/common/promises.h"

#include "bench/common/ledger.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PROMISES_READ_ENTRIES 4096

/* A file that is followed. It is kept open, so that one made anew has another inode. */
struct promises_file {
	char path[PATH_MAX];
	int fd;
	ino_t inode;
	off_t at;
};

struct promises {
	const char *const *paths;
	size_t path_count;
	size_t file_count;
	struct promises_file *files[PROMISES_FILES_MAX];
};

struct promises *promises_create(const char *const *paths, size_t count)
{
	struct promises *promises = calloc(1, sizeof(*promises));

	if (promises != NULL) {
		promises->paths = paths;
		promises->path_count = count;
	}
	return promises;
}

static void promises_drop(struct promises *promises, size_t index)
{
	(void)close(promises->files[index]->fd);
	free(promises->files[index]);
	promises->files[index] = promises->files[--promises->file_count];
	promises->files[promises->file_count] = NULL;
}

void promises_destroy(struct promises **promises)
{
	if (*promises == NULL)
		return;
	while ((*promises)->file_count > 0)
		promises_drop(*promises, 0);
	free(*promises);
	*promises = NULL;
}

/* Reads on, seen NULL: past all. An entry that is not whole yet is left for the next time. */
static int promises_read_file(struct promises_file *file, struct seen *seen)
{
	static uint8_t bytes[PROMISES_READ_ENTRIES * LEDGER_ENTRY_BYTES];
	ssize_t got;

	for (;;) {
		got = pread(file->fd, bytes, sizeof(bytes), file->at);
		if (got < 0)
			return -errno;
		got -= got % LEDGER_ENTRY_BYTES;
		if (got == 0)
			return 0;
		for (ssize_t i = 0; i < got && seen != NULL; i += LEDGER_ENTRY_BYTES) {
			uint64_t run;
			uint64_t id;

			memcpy(&run, bytes + i, sizeof(run));
			memcpy(&id, bytes + i + sizeof(run), sizeof(id));
			seen_promise(seen, le64toh(run), le64toh(id));
		}
		file->at += got;
	}
}

/* Follows a file that is not followed yet; one that is not there is harmless. */
static int promises_follow_create(struct promises *promises, const char *path, ino_t inode)
{
	struct promises_file *file;
	int rc;

	for (size_t i = 0; i < promises->file_count; i++)
		if (promises->files[i]->inode == inode)
			return 0;
	if (promises->file_count == PROMISES_FILES_MAX)
		return -ENFILE;
	file = calloc(1, sizeof(*file));
	if (file == NULL)
		return -ENOMEM;
	(void)snprintf(file->path, sizeof(file->path), "%s", path);
	file->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (file->fd < 0) {
		rc = errno == ENOENT ? 0 : -errno;
		free(file);
		return rc;
	}
	file->inode = inode;
	promises->files[promises->file_count++] = file;
	return 0;
}

static int promises_find_in(struct promises *promises, const char *folder)
{
	DIR *dir = opendir(folder);
	char path[PATH_MAX];
	struct dirent *entry;
	struct stat status;
	int rc = 0;

	if (dir == NULL)
		return errno == ENOENT ? 0 : -errno;
	while (rc == 0 && (entry = readdir(dir)) != NULL) {
		int len = snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);

		if (len > 0 && (size_t)len < sizeof(path) && stat(path, &status) == 0 &&
			S_ISREG(status.st_mode))
			rc = promises_follow_create(promises, path, status.st_ino);
	}
	(void)closedir(dir);
	return rc;
}

static int promises_find(struct promises *promises)
{
	struct stat status;
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < promises->path_count; i++) {
		if (stat(promises->paths[i], &status) < 0)
			rc = errno == ENOENT ? 0 : -errno;
		else if (S_ISDIR(status.st_mode))
			rc = promises_find_in(promises, promises->paths[i]);
		else
			rc = promises_follow_create(promises, promises->paths[i], status.st_ino);
	}
	return rc;
}

static int promises_go(struct promises *promises, struct seen *seen)
{
	int rc = promises_find(promises);
	struct stat status;

	for (size_t i = promises->file_count; i-- > 0;) {
		struct promises_file *file = promises->files[i];
		bool is_there = stat(file->path, &status) == 0 && status.st_ino == file->inode;
		int result = 0;

		if (is_there && status.st_size < file->at)
			file->at = 0; /* it was emptied */
		result = promises_read_file(file, seen);
		if (rc == 0)
			rc = result;
		if (!is_there)
			promises_drop(promises, i);
	}
	return rc;
}

int promises_read(struct promises *promises, struct seen *seen)
{
	return promises_go(promises, seen);
}

int promises_skip(struct promises *promises)
{
	return promises_go(promises, NULL);
}
