/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/spool_folder.h"

#include "relay/mail/spool_folder_private.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FOLDER_MODE 0700
#define FILE_MODE 0600

/* How long the last writes of a relay that was killed are waited for, a file: thirty seconds. */
#define SEGMENT_LOCK_TURNS 3000
#define SEGMENT_LOCK_PAUSE_MS 10

void segment_name_print(unsigned name, char out[static SEGMENT_NAME_BYTES])
{
	(void)snprintf(out, SEGMENT_NAME_BYTES, "%06u.seg", name % SEGMENT_NAMES);
}

static bool segment_name_parse(const char *text, unsigned *name)
{
	char again[SEGMENT_NAME_BYTES];

	if (sscanf(text, "%6u.seg", name) != 1)
		return false;
	segment_name_print(*name, again);
	return strcmp(text, again) == 0;
}

static bool folder_check(const struct spool_folder_options *options, FILE *errors)
{
	if (options->logs == 0 || options->logs > FOLDER_LOGS_MAX)
		(void)fprintf(errors, "spool-folder: %u logs, at most %u\n", options->logs,
			FOLDER_LOGS_MAX);
	else if (options->segment_bytes < SEGMENT_BYTES_MIN ||
		 options->segment_bytes > SEGMENT_BYTES_MAX ||
		 options->segment_bytes % RECORD_BLOCK != 0)
		(void)fprintf(errors,
			"spool-segment-size: %llu bytes, must be %u to %u and a multiple of %u\n",
			(unsigned long long)options->segment_bytes, SEGMENT_BYTES_MIN,
			SEGMENT_BYTES_MAX, RECORD_BLOCK);
	else if (options->bytes_max < options->segment_bytes)
		(void)fprintf(errors, "spool-max-size: less than one segment\n");
	else
		return true;
	return false;
}

static int folder_complain(
	const struct spool_folder *folder, FILE *errors, const char *what, int error)
{
	(void)fprintf(errors, "%s: %s: %s\n", folder->path, what, strerror(-error));
	return error;
}

/* A folder that was made must outlive a power cut, or all that is in it is gone. */
static int folder_keep(struct spool_folder *folder)
{
	int parent = openat(folder->fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc = parent < 0 ? -errno : 0;

	/* One that may not be read by us was not made by us just now. */
	if (rc == -EACCES)
		return 0;
	if (rc == 0 && fsync(parent) != 0)
		rc = -errno;
	if (parent >= 0)
		(void)close(parent);
	return rc;
}

/* Makes the folder, its missing parents not among it, and takes its lock. */
static int folder_lock(struct spool_folder *folder, FILE *errors)
{
	int rc;

	if (mkdir(folder->path, FOLDER_MODE) != 0 && errno != EEXIST)
		return folder_complain(folder, errors, "the folder cannot be made", -errno);
	folder->fd = open(folder->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder->fd < 0)
		return folder_complain(folder, errors, "the folder cannot be opened", -errno);
	rc = folder_keep(folder);
	if (rc < 0)
		return folder_complain(folder, errors, "the folder above cannot be flushed", rc);
	folder->lock_fd = openat(folder->fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, FILE_MODE);
	if (folder->lock_fd < 0)
		return folder_complain(folder, errors, "its lock cannot be opened", -errno);
	if (flock(folder->lock_fd, LOCK_EX | LOCK_NB) != 0)
		return folder_complain(folder, errors,
			errno == EWOULDBLOCK ? "another process uses the folder"
					     : "it cannot be locked",
			-errno);
	return 0;
}

/* Does the file system take O_DIRECT? Many do not: then writes go through the page cache. */
static int folder_try_direct(struct spool_folder *folder, FILE *errors)
{
	const struct spool_disk *disk = folder->disk;
	ssize_t written = -EINVAL;
	int fd = disk->open(
		disk->context, folder->fd, "try.new", O_RDWR | O_CREAT | O_DIRECT, FILE_MODE);

	if (fd >= 0) {
		written = disk->write(disk->context, fd, folder->zeros, RECORD_BLOCK, 0);
		disk->close(disk->context, fd);
	}
	(void)disk->remove(disk->context, folder->fd, "try.new");
	if (fd < 0 && fd != -EINVAL)
		return folder_complain(folder, errors, "a file cannot be made in it", fd);
	folder->open_flags = written == RECORD_BLOCK ? O_DIRECT : 0;
	return 0;
}

/* Calls found for each segment in the folder of a log; returns how many there are, or -errno. */
static int log_scan(struct spool_folder *folder, struct folder_log *log,
	int (*found)(struct spool_folder *folder, struct folder_log *log, unsigned name))
{
	int fd = openat(log->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	int count = 0, rc = 0;
	unsigned name;

	if (dir == NULL) {
		rc = -errno;
		if (fd >= 0)
			(void)close(fd);
		return rc;
	}
	while (rc == 0 && (entry = readdir(dir)) != NULL) {
		const size_t len = strlen(entry->d_name);

		/* One that was being made when the relay ended. */
		if (len > 4 && strcmp(entry->d_name + len - 4, ".new") == 0)
			(void)unlinkat(log->fd, entry->d_name, 0);
		if (!segment_name_parse(entry->d_name, &name))
			continue;
		count++;
		if (found != NULL)
			rc = found(folder, log, name);
	}
	(void)closedir(dir);
	return rc < 0 ? rc : count;
}

/*
 * A process that was killed may have a write on its way: the kernel takes its ring apart after the
 * process has ended, and after its lock on the folder has gone. A lock on the file itself goes with
 * the last of these writes, so nothing can come into what is read, or used again, from here on.
 */
int segment_lock(int fd)
{
	const struct timespec pause = {.tv_nsec = SEGMENT_LOCK_PAUSE_MS * 1000000L};

	for (unsigned i = 0; i < SEGMENT_LOCK_TURNS; i++) {
		if (flock(fd, LOCK_EX | LOCK_NB) == 0)
			return 0;
		if (errno != EWOULDBLOCK)
			return -errno;
		(void)nanosleep(&pause, NULL);
	}
	return -EWOULDBLOCK;
}

static int log_found(struct spool_folder *folder, struct folder_log *log, unsigned name)
{
	struct spool_segment *segment = OWNER_OF(folder->unused.next, struct spool_segment, link);
	char text[SEGMENT_NAME_BYTES];
	struct stat facts;
	int fd;
	int rc;

	if (list_is_empty(&folder->unused))
		return 0; /* it was made since they were counted: not by us, who hold the lock */
	segment_name_print(name, text);
	fd = folder->disk->open(
		folder->disk->context, log->fd, text, O_RDWR | folder->open_flags, 0);
	if (fd < 0)
		return fd;
	rc = segment_lock(fd);
	if (rc < 0) {
		folder->disk->close(folder->disk->context, fd);
		return rc;
	}
	if (fstat(fd, &facts) != 0 || !S_ISREG(facts.st_mode) ||
		facts.st_size < SEGMENT_BYTES_MIN || facts.st_size > SEGMENT_BYTES_MAX ||
		facts.st_size % RECORD_BLOCK != 0) {
		folder->disk->close(folder->disk->context, fd);
		return -EUCLEAN;
	}
	link_remove(&segment->link);
	segment->fd = fd;
	segment->name = name;
	segment->bytes = (uint32_t)facts.st_size;
	list_append(&log->found, &segment->link);
	log->files++;
	folder->files++;
	if (log->next_name <= name)
		log->next_name = name + 1;
	return 0;
}

static int log_open(struct spool_folder *folder, unsigned index, FILE *errors)
{
	struct folder_log *log = &folder->logs[index];
	char name[16];

	(void)snprintf(name, sizeof(name), "%02u", index);
	if (mkdirat(folder->fd, name, FOLDER_MODE) != 0 && errno != EEXIST)
		return folder_complain(
			folder, errors, "the folder of a log cannot be made", -errno);
	log->fd = openat(folder->fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (log->fd < 0)
		return folder_complain(
			folder, errors, "the folder of a log cannot be opened", -errno);
	log->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return log->event < 0 ? -errno : 0;
}

/* Logs of an earlier start with more workers are there as well. */
static unsigned folder_count_logs(const struct spool_folder *folder)
{
	unsigned count = folder->options.logs;
	char name[16];

	for (unsigned i = count; i < FOLDER_LOGS_MAX; i++) {
		(void)snprintf(name, sizeof(name), "%02u", i);
		if (faccessat(folder->fd, name, F_OK, 0) == 0)
			count = i + 1;
	}
	return count;
}

static int folder_create_logs(struct spool_folder *folder, FILE *errors)
{
	folder->log_count = folder_count_logs(folder);
	folder->logs = calloc(folder->log_count, sizeof(*folder->logs));
	if (folder->logs == NULL)
		return -ENOMEM;
	for (unsigned i = 0; i < folder->log_count; i++) {
		folder->logs[i] = (struct folder_log){.fd = -1, .event = -1, .index = i};
		link_init(&folder->logs[i].found);
		link_init(&folder->logs[i].blank);
		link_init(&folder->logs[i].returned);
	}
	for (unsigned i = 0; i < folder->log_count; i++) {
		int rc = log_open(folder, i, errors);

		if (rc < 0)
			return rc;
	}
	/* Of the folders of logs, too. */
	if (fsync(folder->fd) != 0)
		return folder_complain(folder, errors, "the folder cannot be flushed", -errno);
	return 0;
}

static int folder_create_segments(struct spool_folder *folder, FILE *errors)
{
	const struct spool_folder_options *options = &folder->options;
	int count = 0, rc;

	for (unsigned i = 0; i < folder->log_count; i++) {
		rc = log_scan(folder, &folder->logs[i], NULL);
		if (rc < 0)
			return folder_complain(folder, errors, "a log cannot be listed", rc);
		count += rc;
	}
	folder->files_max =
		(unsigned)(options->bytes_max / options->segment_bytes) + folder->log_count;
	folder->segment_count =
		folder->files_max + FOLDER_BEYOND * folder->log_count + (unsigned)count;
	folder->segments = calloc(folder->segment_count, sizeof(*folder->segments));
	if (folder->segments == NULL)
		return -ENOMEM;
	for (unsigned i = 0; i < folder->segment_count; i++) {
		folder->segments[i].fd = -1;
		list_append(&folder->unused, &folder->segments[i].link);
	}
	for (unsigned i = 0; i < folder->log_count; i++) {
		rc = log_scan(folder, &folder->logs[i], log_found);
		if (rc == -EUCLEAN)
			(void)fprintf(errors,
				"%s/%02u: a .seg file in it is none: its size is not right\n",
				folder->path, i);
		if (rc == -EWOULDBLOCK)
			(void)fprintf(errors,
				"%s/%02u: a segment is still being written to by a relay that was "
				"killed: its disk does not answer\n",
				folder->path, i);
		if (rc < 0)
			return folder_complain(folder, errors, "a segment cannot be opened", rc);
	}
	return 0;
}

static int folder_create_thread(struct spool_folder *folder)
{
	pthread_condattr_t attributes;
	int rc;

	(void)pthread_condattr_init(&attributes);
	(void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&folder->changed, &attributes);
	(void)pthread_condattr_destroy(&attributes);
	(void)pthread_mutex_init(&folder->mutex, NULL);
	rc = pthread_create(&folder->thread, NULL, folder_thread_run, folder);
	folder->is_started = rc == 0;
	return -rc;
}

int spool_folder_create(
	const struct spool_folder_options *options, FILE *errors, struct spool_folder **out)
{
	struct spool_folder *folder;
	int rc;

	if (!folder_check(options, errors))
		return -EINVAL;
	folder = calloc(1, sizeof(*folder));
	if (folder == NULL)
		return -ENOMEM;
	folder->options = *options;
	folder->disk = options->disk == NULL ? &spool_disk_kernel : options->disk;
	folder->path = strdup(options->path);
	folder->fd = folder->lock_fd = -1;
	folder->zeros = aligned_alloc(RECORD_BLOCK, RECORD_BYTES_MAX);
	link_init(&folder->unused);
	rc = folder->path == NULL || folder->zeros == NULL ? -ENOMEM : 0;
	if (rc == 0) {
		memset(folder->zeros, 0, RECORD_BYTES_MAX);
		rc = folder_lock(folder, errors);
	}
	if (rc == 0)
		rc = folder_try_direct(folder, errors);
	if (rc == 0)
		rc = folder_create_logs(folder, errors);
	if (rc == 0)
		rc = folder_create_segments(folder, errors);
	if (rc == 0)
		rc = folder_create_thread(folder);
	*out = folder;
	if (rc < 0)
		spool_folder_destroy(out);
	return rc;
}

static void folder_stop(struct spool_folder *folder)
{
	if (!folder->is_started)
		return;
	(void)pthread_mutex_lock(&folder->mutex);
	folder->must_stop = true;
	(void)pthread_cond_signal(&folder->changed);
	(void)pthread_mutex_unlock(&folder->mutex);
	(void)pthread_join(folder->thread, NULL);
	(void)pthread_cond_destroy(&folder->changed);
	(void)pthread_mutex_destroy(&folder->mutex);
}

void spool_folder_destroy(struct spool_folder **at)
{
	struct spool_folder *folder = *at;

	if (folder == NULL)
		return;
	folder_stop(folder);
	for (unsigned i = 0; i < folder->segment_count; i++)
		if (folder->segments[i].fd >= 0)
			folder->disk->close(folder->disk->context, folder->segments[i].fd);
	for (unsigned i = 0; folder->logs != NULL && i < folder->log_count; i++) {
		if (folder->logs[i].fd >= 0)
			(void)close(folder->logs[i].fd);
		if (folder->logs[i].event >= 0)
			(void)close(folder->logs[i].event);
	}
	if (folder->lock_fd >= 0)
		(void)close(folder->lock_fd);
	if (folder->fd >= 0)
		(void)close(folder->fd);
	free(folder->segments);
	free(folder->logs);
	free(folder->zeros);
	free(folder->path);
	free(folder);
	*at = NULL;
}

unsigned spool_folder_logs(const struct spool_folder *folder)
{
	return folder->log_count;
}
