/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/protolog_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define HOUR_S 3600

/* "RECV2026112122-4294967295.LOG" */
#define FILE_NAME_BYTES 40

struct protolog_name {
	uint64_t hour;
	unsigned number;
};

static const char *const set_prefixes[] = {[PROTOLOG_RECEIVE] = "RECV", [PROTOLOG_SEND] = "SEND"};
static const char *const set_types[] = {[PROTOLOG_RECEIVE] = "SMTP Receive Protocol Log",
	[PROTOLOG_SEND] = "SMTP Send Protocol Log"};

size_t protolog_stamp(const struct timespec *time, char *out, size_t out_bytes)
{
	struct tm utc;
	size_t len;
	int more;

	(void)gmtime_r(&time->tv_sec, &utc);
	len = strftime(out, out_bytes, "%Y-%m-%dT%H:%M:%S", &utc);
	more = snprintf(out + len, out_bytes - len, ".%03ldZ", time->tv_nsec / 1000000);
	return len + (more > 0 ? (size_t)more : 0);
}

static void protolog_name_print(
	enum protolog_set set, struct protolog_name name, char out[static FILE_NAME_BYTES])
{
	time_t start = (time_t)(name.hour * HOUR_S);
	char stamp[16];
	struct tm utc;

	(void)gmtime_r(&start, &utc);
	(void)strftime(stamp, sizeof(stamp), "%Y%m%d%H", &utc);
	(void)snprintf(out, FILE_NAME_BYTES, "%s%s-%u.LOG", set_prefixes[set], stamp, name.number);
}

/* Is text a name that this set gives? What is printed from the result must be text again. */
static bool protolog_name_parse(enum protolog_set set, const char *text, struct protolog_name *out)
{
	struct protolog_name name;
	char again[FILE_NAME_BYTES];
	int year, month, day, hour;
	struct tm utc = {0};
	time_t start;

	if (strlen(text) >= FILE_NAME_BYTES || strncmp(text, set_prefixes[set], 4) != 0 ||
		sscanf(text + 4, "%4d%2d%2d%2d-%9u.LOG", &year, &month, &day, &hour,
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
	protolog_name_print(set, name, again);
	if (strcmp(again, text) != 0)
		return false;
	*out = name;
	return true;
}

/* Opens the folder to be read, made if need be; the caller closes it. NULL: see errno. */
static DIR *protolog_folder_open(const struct protolog_place *place)
{
	if (mkdir(place->folder, 0750) != 0 && errno != EEXIST)
		return NULL;
	return opendir(place->folder);
}

/* The next regular file of the set, or false at the end. */
static bool protolog_folder_next(
	DIR *folder, enum protolog_set set, struct protolog_name *out_name, uint64_t *out_bytes)
{
	struct dirent *entry;
	struct stat facts;

	while ((entry = readdir(folder)) != NULL) {
		if (!protolog_name_parse(set, entry->d_name, out_name) ||
			fstatat(dirfd(folder), entry->d_name, &facts, AT_SYMLINK_NOFOLLOW) != 0 ||
			!S_ISREG(facts.st_mode))
			continue;
		*out_bytes = (uint64_t)facts.st_size;
		return true;
	}
	return false;
}

static void protolog_remove(DIR *folder, enum protolog_set set, struct protolog_name name)
{
	char text[FILE_NAME_BYTES];

	protolog_name_print(set, name, text);
	/* What cannot be removed now is tried again at the next turn-over. */
	(void)unlinkat(dirfd(folder), text, 0);
}

static bool protolog_name_is_older(struct protolog_name a, struct protolog_name b)
{
	return a.hour != b.hour ? a.hour < b.hour : a.number < b.number;
}

/* Removes what is too old. Returns how many files are left. */
static unsigned protolog_prune_aged(
	DIR *folder, const struct protolog_place *place, enum protolog_set set, int64_t now_s)
{
	uint64_t age_s = place->max_age_ms / 1000;
	struct protolog_name name;
	unsigned left = 0;
	uint64_t bytes;

	rewinddir(folder);
	while (protolog_folder_next(folder, set, &name, &bytes)) {
		uint64_t end_s = (name.hour + 1) * HOUR_S;

		if (now_s >= 0 && (uint64_t)now_s > end_s && (uint64_t)now_s - end_s > age_s)
			protolog_remove(folder, set, name);
		else
			left++;
	}
	return left;
}

int protolog_file_prune(
	const struct protolog_place *place, enum protolog_set set, int64_t now_s, uint64_t room)
{
	DIR *folder = protolog_folder_open(place);
	unsigned left;

	if (folder == NULL)
		return -errno;
	left = protolog_prune_aged(folder, place, set, now_s);
	/* One is removed in each round, so there are at most as many rounds as files. */
	for (; left > 0; left--) {
		struct protolog_name oldest = {0}, name;
		uint64_t total = 0, bytes;
		bool any = false;

		rewinddir(folder);
		while (protolog_folder_next(folder, set, &name, &bytes)) {
			total += bytes;
			if (!any || protolog_name_is_older(name, oldest))
				oldest = name;
			any = true;
		}
		if (!any || (total <= place->max_directory_bytes &&
				    room <= place->max_directory_bytes - total))
			break;
		protolog_remove(folder, set, oldest);
	}
	(void)closedir(folder);
	return 0;
}

void protolog_file_init(struct protolog_file *file, enum protolog_set set)
{
	file->set = set;
	file->fd = -1;
	file->hour = 0;
	file->number = 0;
	file->written = 0;
	file->pending_len = 0;
}

void protolog_file_close(struct protolog_file *file)
{
	if (file->fd >= 0)
		(void)close(file->fd);
	file->fd = -1;
}

/* All of it, or -errno. */
static int protolog_write(int fd, const char *bytes, size_t len)
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

static int protolog_file_head(struct protolog_file *file)
{
	char stamp[32], head[512];
	struct timespec now;
	int len, rc;

	protolog_clock(&now);
	(void)protolog_stamp(&now, stamp, sizeof(stamp));
	len = snprintf(head, sizeof(head),
		"#Software: Postern\r\n#Version: %s\r\n#Log-Type: %s\r\n#Date: %s\r\n"
		"#Fields: date-time,connector-id,session-id,sequence-number,local-endpoint,"
		"remote-endpoint,event,data,context\r\n",
		POSTERN_VERSION, set_types[file->set], stamp);
	ASSERT(len > 0 && (size_t)len < sizeof(head));
	rc = protolog_write(file->fd, head, (size_t)len);
	if (rc == 0)
		file->written = (uint64_t)len;
	return rc;
}

/* A file that exists: a row that a crash cut off gets its end, so that the next one is whole. */
static int protolog_file_mend(struct protolog_file *file)
{
	char last;

	if (pread(file->fd, &last, 1, (off_t)file->written - 1) != 1 || last == '\n')
		return 0;
	file->written += 2;
	return protolog_write(file->fd, "\r\n", 2);
}

/* The highest number of the hour and its size; 0: there is none. */
static unsigned protolog_last_number(
	DIR *folder, enum protolog_set set, uint64_t hour, uint64_t *out_bytes)
{
	struct protolog_name name;
	unsigned last = 0;
	uint64_t bytes;

	while (protolog_folder_next(folder, set, &name, &bytes))
		if (name.hour == hour && name.number > last) {
			last = name.number;
			*out_bytes = bytes;
		}
	return last;
}

static int protolog_file_begin(struct protolog_file *file, int folder)
{
	char text[FILE_NAME_BYTES];
	struct stat facts;
	int rc;

	protolog_name_print(file->set, (struct protolog_name){file->hour, file->number}, text);
	file->fd = openat(folder, text,
		O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0640);
	if (file->fd < 0)
		return -errno;
	if (fstat(file->fd, &facts) != 0 || !S_ISREG(facts.st_mode))
		rc = -EINVAL;
	else {
		file->written = (uint64_t)facts.st_size;
		rc = file->written == 0 ? protolog_file_head(file) : protolog_file_mend(file);
	}
	if (rc < 0)
		protolog_file_close(file);
	return rc;
}

/* Opens the file of an hour that has room for so many bytes more. */
static int protolog_file_enter(
	struct protolog_file *file, const struct protolog_place *place, uint64_t hour, size_t bytes)
{
	uint64_t last_bytes = 0;
	struct timespec now;
	DIR *folder;
	int rc;

	protolog_file_close(file);
	protolog_clock(&now);
	rc = protolog_file_prune(place, file->set, now.tv_sec, place->max_file_bytes);
	if (rc < 0)
		return rc;
	folder = protolog_folder_open(place);
	if (folder == NULL)
		return -errno;
	file->hour = hour;
	file->number = protolog_last_number(folder, file->set, hour, &last_bytes);
	if (file->number == 0 || last_bytes + bytes > place->max_file_bytes)
		file->number++;
	rc = protolog_file_begin(file, dirfd(folder));
	(void)closedir(folder);
	return rc;
}

int protolog_file_flush(struct protolog_file *file, const struct protolog_place *place)
{
	struct stat facts;
	int rc = 0;

	if (file->pending_len == 0)
		return 0;
	/* Somebody may have removed the file: nobody would ever read what is written to it. */
	if (file->fd < 0 || fstat(file->fd, &facts) != 0 || facts.st_nlink == 0)
		rc = protolog_file_enter(file, place, file->hour, file->pending_len);
	if (rc < 0)
		return rc;
	rc = protolog_write(file->fd, file->pending, file->pending_len);
	if (rc < 0) {
		/* What was written of them goes again, so that no row stands there twice. */
		if (ftruncate(file->fd, (off_t)file->written) != 0)
			file->pending_len = 0;
		protolog_file_close(file);
		return rc;
	}
	file->written += file->pending_len;
	file->pending_len = 0;
	return 0;
}

/* Does the row belong to the open file, and the file to the row? */
static bool protolog_file_fits(const struct protolog_file *file, const struct protolog_place *place,
	uint64_t hour, size_t bytes)
{
	return (file->hour == hour || file->hour == hour + 1) &&
	       file->written + file->pending_len + bytes <= place->max_file_bytes;
}

int protolog_file_append(struct protolog_file *file, const struct protolog_place *place,
	uint64_t hour, struct span row)
{
	int rc = 0;

	ASSERT(row.len <= sizeof(file->pending));
	if (!protolog_file_fits(file, place, hour, row.len) ||
		row.len > sizeof(file->pending) - file->pending_len)
		rc = protolog_file_flush(file, place);
	if (rc < 0)
		return rc;
	if (file->pending_len == 0 &&
		(file->fd < 0 || !protolog_file_fits(file, place, hour, row.len)))
		rc = protolog_file_enter(
			file, place, file->hour == hour + 1 ? file->hour : hour, row.len);
	if (rc < 0)
		return rc;
	memcpy(file->pending + file->pending_len, row.data, row.len);
	file->pending_len += row.len;
	return 0;
}
