/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/logset_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define HOUR_S 3600

/* "MSGTRK2026112122-4294967295.LOG" */
#define FILE_NAME_BYTES 40

struct logset_name {
	uint64_t hour;
	unsigned number;
};

static void logset_clock_wall(struct timespec *now)
{
	(void)clock_gettime(CLOCK_REALTIME, now);
}

void (*logset_clock)(struct timespec *now) = logset_clock_wall;

size_t logset_stamp(const struct timespec *time, char *out, size_t out_bytes)
{
	struct tm utc;
	size_t len;
	int more;

	(void)gmtime_r(&time->tv_sec, &utc);
	len = strftime(out, out_bytes, "%Y-%m-%dT%H:%M:%S", &utc);
	more = snprintf(out + len, out_bytes - len, ".%03ldZ", time->tv_nsec / 1000000);
	return len + (more > 0 ? (size_t)more : 0);
}

static void logset_name_print(
	const struct logset_kind *kind, struct logset_name name, char out[static FILE_NAME_BYTES])
{
	time_t start = (time_t)(name.hour * HOUR_S);
	char stamp[16];
	struct tm utc;

	(void)gmtime_r(&start, &utc);
	(void)strftime(stamp, sizeof(stamp), "%Y%m%d%H", &utc);
	(void)snprintf(out, FILE_NAME_BYTES, "%s%s-%u.LOG", kind->prefix, stamp, name.number);
}

/* Is text a name that this set gives? What is printed from the result must be text again. */
static bool logset_name_parse(
	const struct logset_kind *kind, const char *text, struct logset_name *out)
{
	struct logset_name name;
	const size_t prefix = strlen(kind->prefix);
	char again[FILE_NAME_BYTES];
	int year, month, day, hour;
	struct tm utc = {0};
	time_t start;

	if (strlen(text) >= FILE_NAME_BYTES || strncmp(text, kind->prefix, prefix) != 0 ||
		sscanf(text + prefix, "%4d%2d%2d%2d-%9u.LOG", &year, &month, &day, &hour,
			&name.number) != 5)
		return false;
	utc.tm_year = year - 1900;
	utc.tm_mon = month - 1;
	utc.tm_mday = day;
	utc.tm_hour = hour;
	start = timegm(&utc);
	if (start < 0)
		return false;
	name.hour = (uint64_t)start / HOUR_S;
	logset_name_print(kind, name, again);
	if (strcmp(again, text) != 0)
		return false;
	*out = name;
	return true;
}

/* Opens the folder to be read, made if need be; the caller closes it. NULL: see errno. */
static DIR *logset_folder_open(const struct logset_place *place)
{
	if (mkdir(place->folder, 0750) != 0 && errno != EEXIST)
		return NULL;
	return opendir(place->folder);
}

/* The next regular file of the set, or false at the end. */
static bool logset_folder_next(DIR *folder, const struct logset_kind *kind,
	struct logset_name *out_name, uint64_t *out_bytes)
{
	struct dirent *entry;
	struct stat facts;

	while ((entry = readdir(folder)) != NULL) {
		if (!logset_name_parse(kind, entry->d_name, out_name) ||
			fstatat(dirfd(folder), entry->d_name, &facts, AT_SYMLINK_NOFOLLOW) != 0 ||
			!S_ISREG(facts.st_mode))
			continue;
		*out_bytes = (uint64_t)facts.st_size;
		return true;
	}
	return false;
}

static void logset_remove(DIR *folder, const struct logset_kind *kind, struct logset_name name)
{
	char text[FILE_NAME_BYTES];

	logset_name_print(kind, name, text);
	/* What cannot be removed now is tried again at the next turn-over. */
	(void)unlinkat(dirfd(folder), text, 0);
}

static bool logset_name_is_older(struct logset_name a, struct logset_name b)
{
	return a.hour != b.hour ? a.hour < b.hour : a.number < b.number;
}

/* Removes what is too old. Returns how many files are left. */
static unsigned logset_prune_aged(DIR *folder, const struct logset_place *place,
	const struct logset_kind *kind, int64_t now_s)
{
	uint64_t age_s = place->max_age_ms / 1000;
	struct logset_name name;
	unsigned left = 0;
	uint64_t bytes;

	rewinddir(folder);
	while (logset_folder_next(folder, kind, &name, &bytes)) {
		uint64_t end_s = (name.hour + 1) * HOUR_S;

		if (now_s >= 0 && (uint64_t)now_s > end_s && (uint64_t)now_s - end_s > age_s)
			logset_remove(folder, kind, name);
		else
			left++;
	}
	return left;
}

int logset_file_prune(const struct logset_place *place, const struct logset_kind *kind,
	int64_t now_s, uint64_t room)
{
	DIR *folder = logset_folder_open(place);
	unsigned left;

	if (folder == NULL)
		return -errno;
	left = logset_prune_aged(folder, place, kind, now_s);
	/* One is removed in each round, so there are at most as many rounds as files. */
	for (; left > 0; left--) {
		struct logset_name oldest = {0}, name;
		uint64_t total = 0, bytes;
		bool any = false;

		rewinddir(folder);
		while (logset_folder_next(folder, kind, &name, &bytes)) {
			total += bytes;
			if (!any || logset_name_is_older(name, oldest))
				oldest = name;
			any = true;
		}
		if (!any || (total <= place->max_directory_bytes &&
				    room <= place->max_directory_bytes - total))
			break;
		logset_remove(folder, kind, oldest);
	}
	(void)closedir(folder);
	return 0;
}

void logset_file_init(struct logset_file *file, const struct logset_kind *kind)
{
	file->kind = kind;
	file->fd = -1;
	file->hour = 0;
	file->number = 0;
	file->written = 0;
	file->pending_len = 0;
}

void logset_file_close(struct logset_file *file)
{
	if (file->fd >= 0)
		(void)close(file->fd);
	file->fd = -1;
}

/* All of it, or -errno. */
static int logset_write(int fd, const char *bytes, size_t len)
{
	while (len > 0) {
		ssize_t written = write(fd, bytes, len);

		if (written < 0 && errno == EINTR)
			continue;
		if (written < 0)
			return -errno;
		bytes += written;
		len -= (size_t)written;
	}
	return 0;
}

static int logset_file_head(struct logset_file *file)
{
	char stamp[32], head[1024];
	struct timespec now;
	int len, rc;

	logset_clock(&now);
	(void)logset_stamp(&now, stamp, sizeof(stamp));
	len = snprintf(head, sizeof(head),
		"#Software: Postern\r\n#Version: %s\r\n#%s: %s\r\n#Date: %s\r\n"
		"#Fields: %s\r\n",
		POSTERN_VERSION, file->kind->type_word, file->kind->type, stamp,
		file->kind->fields);
	ASSERT(len > 0 && (size_t)len < sizeof(head));
	rc = logset_write(file->fd, head, (size_t)len);
	if (rc == 0)
		file->written = (uint64_t)len;
	return rc;
}

/* A file that exists: a row that a crash cut off gets its end, so that the next one is whole. */
static int logset_file_mend(struct logset_file *file)
{
	char last;

	if (pread(file->fd, &last, 1, (off_t)file->written - 1) != 1 || last == '\n')
		return 0;
	file->written += 2;
	return logset_write(file->fd, "\r\n", 2);
}

/* The highest number of the hour and its size; 0: there is none. */
static unsigned logset_last_number(
	DIR *folder, const struct logset_kind *kind, uint64_t hour, uint64_t *out_bytes)
{
	struct logset_name name;
	unsigned last = 0;
	uint64_t bytes;

	while (logset_folder_next(folder, kind, &name, &bytes))
		if (name.hour == hour && name.number > last) {
			last = name.number;
			*out_bytes = bytes;
		}
	return last;
}

static int logset_file_begin(struct logset_file *file, int folder)
{
	char text[FILE_NAME_BYTES];
	struct stat facts;
	int rc;

	logset_name_print(file->kind, (struct logset_name){file->hour, file->number}, text);
	file->fd = openat(folder, text,
		O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0640);
	if (file->fd < 0)
		return -errno;
	if (fstat(file->fd, &facts) != 0 || !S_ISREG(facts.st_mode))
		rc = -EINVAL;
	else {
		file->written = (uint64_t)facts.st_size;
		rc = file->written == 0 ? logset_file_head(file) : logset_file_mend(file);
	}
	if (rc < 0)
		logset_file_close(file);
	return rc;
}

/* Opens the file of an hour that has room for so many bytes more. */
static int logset_file_enter(
	struct logset_file *file, const struct logset_place *place, uint64_t hour, size_t bytes)
{
	uint64_t last_bytes = 0;
	struct timespec now;
	DIR *folder;
	int rc;

	logset_file_close(file);
	logset_clock(&now);
	rc = logset_file_prune(place, file->kind, now.tv_sec, place->max_file_bytes);
	if (rc < 0)
		return rc;
	folder = logset_folder_open(place);
	if (folder == NULL)
		return -errno;
	file->hour = hour;
	file->number = logset_last_number(folder, file->kind, hour, &last_bytes);
	if (file->number == 0 || last_bytes + bytes > place->max_file_bytes)
		file->number++;
	rc = logset_file_begin(file, dirfd(folder));
	(void)closedir(folder);
	return rc;
}

int logset_file_flush(struct logset_file *file, const struct logset_place *place)
{
	struct stat facts;
	int rc = 0;

	if (file->pending_len == 0)
		return 0;
	/* Somebody may have removed the file: nobody would ever read what is written to it. */
	if (file->fd < 0 || fstat(file->fd, &facts) != 0 || facts.st_nlink == 0)
		rc = logset_file_enter(file, place, file->hour, file->pending_len);
	if (rc < 0)
		return rc;
	rc = logset_write(file->fd, file->pending, file->pending_len);
	if (rc < 0) {
		/* What was written of them goes again, so that no row stands there twice. */
		if (ftruncate(file->fd, (off_t)file->written) != 0)
			file->pending_len = 0;
		logset_file_close(file);
		return rc;
	}
	file->written += file->pending_len;
	file->pending_len = 0;
	return 0;
}

/* Does the row belong to the open file, and the file to the row? */
static bool logset_file_fits(const struct logset_file *file, const struct logset_place *place,
	uint64_t hour, size_t bytes)
{
	return (file->hour == hour || file->hour == hour + 1) &&
	       file->written + file->pending_len + bytes <= place->max_file_bytes;
}

int logset_file_append(
	struct logset_file *file, const struct logset_place *place, uint64_t hour, struct span row)
{
	int rc = 0;

	ASSERT(row.len <= sizeof(file->pending));
	if (!logset_file_fits(file, place, hour, row.len) ||
		row.len > sizeof(file->pending) - file->pending_len)
		rc = logset_file_flush(file, place);
	if (rc < 0)
		return rc;
	if (file->pending_len == 0 &&
		(file->fd < 0 || !logset_file_fits(file, place, hour, row.len)))
		rc = logset_file_enter(
			file, place, file->hour == hour + 1 ? file->hour : hour, row.len);
	if (rc < 0)
		return rc;
	memcpy(file->pending + file->pending_len, row.data, row.len);
	file->pending_len += row.len;
	return 0;
}
