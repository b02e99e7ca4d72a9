/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/spool_folder_private.h"

#include "relay/base/clock.h"
#include "relay/base/log.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* What has failed is tried again after this. */
#define THREAD_RETRY_MS 10000

int folder_write(
	struct spool_folder *folder, int fd, const uint8_t *data, size_t bytes, uint64_t offset)
{
	const struct spool_disk *disk = folder->disk;

	while (bytes > 0) {
		ssize_t written = disk->write(disk->context, fd, data, bytes, offset);

		if (written == -EINTR)
			continue;
		if (written <= 0)
			return written < 0 ? (int)written : -EIO;
		data += written;
		bytes -= (size_t)written;
		offset += (uint64_t)written;
	}
	return 0;
}

static void log_tell(const struct folder_log *log)
{
	const uint64_t one = 1;

	/* It cannot be full in our time, and a spool that is told already need not be told twice.
	 */
	if (write(log->event, &one, sizeof(one)) < 0)
		return;
}

static void thread_complain(const struct spool_folder *folder, const struct folder_log *log,
	const char *what, int error)
{
	log_event(LOG_LEVEL_ERROR, NULL, "spool-segment-failed",
		"folder=%s log=%02u while=\"%s\" error=\"%s\" remedy=\"%s\"", folder->path,
		log->index, what, strerror(-error),
		error == -ENOSPC || error == -EDQUOT
			? "free space on this file system, or lower spool-max-size"
			: "look at the disk and at the kernel's log; it is tried again every 10 s");
}

/* Blocks of zeros, really written: a write to them changes no metadata any more. */
static int segment_fill(struct spool_folder *folder, int fd, uint32_t bytes)
{
	const struct spool_disk *disk = folder->disk;
	int rc = disk->allocate(disk->context, fd, bytes);

	for (uint32_t at = 0; rc == 0 && at < bytes;) {
		const uint32_t piece =
			bytes - at < RECORD_BYTES_MAX ? bytes - at : RECORD_BYTES_MAX;

		rc = folder_write(folder, fd, folder->zeros, piece, at);
		at += piece;
	}
	return rc < 0 ? rc : disk->flush(disk->context, fd);
}

/* Makes a segment under another name first: one that is not whole never has the right name. */
static int segment_make(struct spool_folder *folder, struct folder_log *log,
	struct spool_segment *segment, unsigned name)
{
	const struct spool_disk *disk = folder->disk;
	const uint32_t bytes = (uint32_t)folder->options.segment_bytes;
	char text[SEGMENT_NAME_BYTES], early[SEGMENT_NAME_BYTES];
	int fd, rc;

	segment_name_print(name, text);
	(void)snprintf(early, sizeof(early), "%06u.new", name % SEGMENT_NAMES);
	fd = disk->open(disk->context, log->fd, early,
		O_RDWR | O_CREAT | O_TRUNC | folder->open_flags, 0600);
	if (fd < 0)
		return fd;
	rc = segment_lock(fd);
	if (rc == 0)
		rc = segment_fill(folder, fd, bytes);
	if (rc == 0)
		rc = disk->rename(disk->context, log->fd, early, text);
	if (rc == 0)
		rc = disk->flush(disk->context, log->fd);
	if (rc < 0) {
		disk->close(disk->context, fd);
		(void)disk->remove(disk->context, log->fd, early);
		(void)disk->remove(disk->context, log->fd, text);
		return rc;
	}
	segment->fd = fd;
	segment->name = name;
	segment->bytes = bytes;
	segment->is_failed = false;
	return 0;
}

static int segment_remove(
	struct spool_folder *folder, struct folder_log *log, const struct spool_segment *segment)
{
	const struct spool_disk *disk = folder->disk;
	char text[SEGMENT_NAME_BYTES];
	int rc;

	segment_name_print(segment->name, text);
	rc = disk->remove(disk->context, log->fd, text);
	if (rc == 0 || rc == -ENOENT)
		rc = disk->flush(disk->context, log->fd);
	return rc;
}

/* Makes sure that a replay finds nothing in it. */
static int segment_scrub(struct spool_folder *folder, struct spool_segment *segment)
{
	int rc = folder_write(folder, segment->fd, folder->zeros, RECORD_BLOCK, 0);

	return rc < 0 ? rc : folder->disk->flush(folder->disk->context, segment->fd);
}

/* The file is gone; under the mutex. */
static void log_forget(
	struct spool_folder *folder, struct folder_log *log, struct spool_segment *segment)
{
	folder->disk->close(folder->disk->context, segment->fd);
	segment->fd = -1;
	list_append(&folder->unused, &segment->link);
	log->files--;
	folder->files--;
}

static void log_add_blank(struct folder_log *log, struct spool_segment *segment)
{
	list_append(&log->blank, &segment->link);
	log->blanks++;
	log->is_wanted = false;
	log_tell(log);
}

static struct spool_segment *log_take_blank(struct folder_log *log)
{
	struct spool_segment *segment = OWNER_OF(log->blank.next, struct spool_segment, link);

	link_remove(&segment->link);
	log->blanks--;
	return segment;
}

/*
 * The first of those that were given back. It stays first until nothing of it can come back: the
 * next one may hold the end of what it tells the beginning of.
 */
static bool thread_scrub(struct spool_folder *folder, struct folder_log *log)
{
	struct spool_segment *segment;
	bool is_gone = false;
	int rc;

	if (list_is_empty(&log->returned))
		return false;
	segment = OWNER_OF(log->returned.next, struct spool_segment, link);
	(void)pthread_mutex_unlock(&folder->mutex);
	rc = segment_scrub(folder, segment);
	if (rc < 0 || segment->is_failed) {
		rc = segment_remove(folder, log, segment);
		is_gone = true;
	}
	(void)pthread_mutex_lock(&folder->mutex);
	if (rc < 0 && log->error != rc)
		thread_complain(folder, log, "removing what is not needed", rc);
	log->error = rc;
	if (rc < 0)
		return false;
	link_remove(&segment->link);
	if (is_gone)
		log_forget(folder, log, segment);
	else
		log_add_blank(log, segment);
	return true;
}

/*
 * Up to what the spool may take in all. Beyond that a log gets some when it has none at all: it
 * needs one to tell what became of messages, or to move them, and so to become smaller.
 */
static bool log_may_grow(const struct spool_folder *folder, const struct folder_log *log)
{
	const bool is_needy = log->blanks == 0 && list_is_empty(&log->returned) &&
			      folder->files < folder->files_max + FOLDER_BEYOND * folder->log_count;

	return !list_is_empty(&folder->unused) &&
	       (folder->files < folder->files_max || log->files < FOLDER_AHEAD + 1 || is_needy);
}

/* Logs of workers have some ahead; older ones are only to be emptied, and get what they ask for. */
static bool log_wants_more(const struct spool_folder *folder, const struct folder_log *log)
{
	const unsigned ahead = log->index < folder->options.logs ? FOLDER_AHEAD : 0;

	return log->is_open && (log->blanks < ahead || log->is_wanted) &&
	       log_may_grow(folder, log) && list_is_empty(&log->returned);
}

/* Names begin again after a million files: those that are there are passed over. */
static unsigned log_next_name(struct folder_log *log)
{
	char text[SEGMENT_NAME_BYTES];

	do
		segment_name_print(log->next_name++, text);
	while (faccessat(log->fd, text, F_OK, 0) == 0);
	return (log->next_name - 1) % SEGMENT_NAMES;
}

static bool thread_make(struct spool_folder *folder, struct folder_log *log)
{
	struct spool_segment *segment;
	unsigned name;
	int rc;

	if (!log_wants_more(folder, log))
		return false;
	segment = OWNER_OF(folder->unused.next, struct spool_segment, link);
	link_remove(&segment->link);
	name = log_next_name(log);
	(void)pthread_mutex_unlock(&folder->mutex);
	rc = segment_make(folder, log, segment, name);
	(void)pthread_mutex_lock(&folder->mutex);
	if (rc < 0 && log->error != rc)
		thread_complain(folder, log, "making a segment", rc);
	log->error = rc;
	if (rc < 0) {
		list_append(&folder->unused, &segment->link);
		log_tell(log);
		return false;
	}
	log->files++;
	folder->files++;
	log_add_blank(log, segment);
	return true;
}

/* Keeps a few; the rest is the file system's again. */
static bool thread_trim(struct spool_folder *folder, struct folder_log *log)
{
	const unsigned kept = log->index < folder->options.logs ? FOLDER_KEPT : 1;
	struct spool_segment *segment;
	int rc;

	if (!log->is_open || log->blanks <= kept)
		return false;
	segment = log_take_blank(log);
	(void)pthread_mutex_unlock(&folder->mutex);
	rc = segment_remove(folder, log, segment);
	(void)pthread_mutex_lock(&folder->mutex);
	if (rc < 0) {
		/* It holds nothing, wherever it is. */
		list_append(&log->blank, &segment->link);
		log->blanks++;
		return false;
	}
	log_forget(folder, log, segment);
	return true;
}

void *folder_thread_run(void *main)
{
	struct spool_folder *folder = main;

	(void)pthread_mutex_lock(&folder->mutex);
	while (!folder->must_stop) {
		bool has_failed = false, has_worked = false;

		for (unsigned i = 0; i < folder->log_count && !folder->must_stop; i++) {
			struct folder_log *log = &folder->logs[i];

			has_worked |= thread_scrub(folder, log);
			has_worked |= thread_make(folder, log);
			has_worked |= thread_trim(folder, log);
			has_failed |= log->error != 0;
		}
		if (has_worked || folder->must_stop)
			continue;
		if (has_failed) {
			const struct timespec until = clock_after_ms(THREAD_RETRY_MS);

			(void)pthread_cond_timedwait(&folder->changed, &folder->mutex, &until);
		} else {
			(void)pthread_cond_wait(&folder->changed, &folder->mutex);
		}
	}
	(void)pthread_mutex_unlock(&folder->mutex);
	return NULL;
}

void folder_open(struct spool_folder *folder, unsigned log)
{
	(void)pthread_mutex_lock(&folder->mutex);
	folder->logs[log].is_open = true;
	(void)pthread_cond_signal(&folder->changed);
	(void)pthread_mutex_unlock(&folder->mutex);
}

void folder_close(struct spool_folder *folder, unsigned log)
{
	(void)pthread_mutex_lock(&folder->mutex);
	folder->logs[log].is_open = false;
	(void)pthread_mutex_unlock(&folder->mutex);
}

struct spool_segment *folder_take_found(struct spool_folder *folder, unsigned log)
{
	struct link *link;

	(void)pthread_mutex_lock(&folder->mutex);
	link = list_take(&folder->logs[log].found);
	(void)pthread_mutex_unlock(&folder->mutex);
	return link == NULL ? NULL : OWNER_OF(link, struct spool_segment, link);
}

/* Why there is no blank one: under the mutex. */
static int log_why_none(const struct spool_folder *folder, const struct folder_log *log)
{
	if (log->error != 0)
		return log->error;
	if (!list_is_empty(&log->returned) || log_may_grow(folder, log))
		return -EAGAIN;
	return -ENOSPC;
}

struct spool_segment *folder_take(
	struct spool_folder *folder, unsigned index, bool for_message, int *error)
{
	struct folder_log *log = &folder->logs[index];
	struct spool_segment *segment = NULL;

	(void)pthread_mutex_lock(&folder->mutex);
	if (log->blanks > (for_message ? 1 : 0)) {
		segment = log_take_blank(log);
	} else {
		log->is_wanted = true;
		*error = log_why_none(folder, log);
	}
	(void)pthread_cond_signal(&folder->changed);
	(void)pthread_mutex_unlock(&folder->mutex);
	return segment;
}

void folder_give(struct spool_folder *folder, unsigned log, struct spool_segment *segment)
{
	(void)pthread_mutex_lock(&folder->mutex);
	list_append(&folder->logs[log].returned, &segment->link);
	(void)pthread_cond_signal(&folder->changed);
	(void)pthread_mutex_unlock(&folder->mutex);
}

void folder_give_blank(struct spool_folder *folder, unsigned log, struct spool_segment *segment)
{
	(void)pthread_mutex_lock(&folder->mutex);
	log_add_blank(&folder->logs[log], segment);
	(void)pthread_mutex_unlock(&folder->mutex);
}

unsigned folder_blanks(struct spool_folder *folder, unsigned log)
{
	unsigned blanks;

	(void)pthread_mutex_lock(&folder->mutex);
	blanks = folder->logs[log].blanks;
	(void)pthread_mutex_unlock(&folder->mutex);
	return blanks;
}
