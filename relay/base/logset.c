/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/logset.h"

#include "relay/base/clock.h"
#include "relay/base/log.h"
#include "relay/base/utf8.h"
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

/* What one worker may be ahead of the writing thread: some thousand rows. A power of two. */
#define LANE_BYTES 1048576

/* How long a row may wait to be written. */
#define WRITE_INTERVAL_MS 100

#define RETRY_S 60

struct lane_record {
	uint32_t len;
	uint32_t kind;
	uint64_t hour;
};

/*
 * A ring of records, each with its row behind it. The worker alone moves head, the
 * writing thread alone moves tail; both only grow.
 */
struct lane {
	_Alignas(64) _Atomic size_t head;
	_Alignas(64) _Atomic size_t tail;
	uint8_t bytes[LANE_BYTES];
};

/* The writing thread's own. */
struct writer {
	struct logset_place place;
	unsigned changes; /* as of place */
	struct logset_file files[LOGSET_KINDS_MAX];
	bool in_trouble;
	int64_t tried_s; /* in_trouble: when */
};

struct logset {
	const struct logset_about *about;
	struct lane *lanes;
	unsigned lane_count;
	pthread_t thread;
	sem_t wake;
	_Atomic bool is_stopping;
	_Atomic bool is_kept;  /* there is a folder */
	pthread_mutex_t mutex; /* for place, which a reload changes */
	struct logset_place place;
	_Atomic unsigned changes; /* of place */
	struct writer writer;
};

/* ---- the writing thread */

static void lane_copy_out(const struct lane *lane, size_t at, void *out, size_t len)
{
	size_t start = at % LANE_BYTES;
	size_t first = len < LANE_BYTES - start ? len : LANE_BYTES - start;

	memcpy(out, lane->bytes + start, first);
	memcpy((uint8_t *)out + first, lane->bytes, len - first);
}

/* Moves rows from a worker's buffer to the files; -errno: the rest stays where it is. */
static int writer_drain_lane(struct logset *set, struct lane *lane)
{
	struct writer *writer = &set->writer;
	size_t head = atomic_load_explicit(&lane->head, memory_order_acquire);
	size_t tail = atomic_load_explicit(&lane->tail, memory_order_relaxed);
	uint8_t row[LOGSET_ROW_BYTES_MAX];
	struct lane_record record;

	while (tail != head) {
		int rc;

		lane_copy_out(lane, tail, &record, sizeof(record));
		ASSERT(record.len <= sizeof(row) && record.kind < set->about->kind_count);
		lane_copy_out(lane, tail + sizeof(record), row, record.len);
		if (writer->place.folder[0] != '\0') {
			rc = logset_file_append(&writer->files[record.kind], &writer->place,
				record.hour, span_make(row, record.len));
			if (rc < 0)
				return rc;
		}
		tail += sizeof(record) + record.len;
		atomic_store_explicit(&lane->tail, tail, memory_order_release);
	}
	return 0;
}

static int writer_drain(struct logset *set)
{
	int rc = 0;

	for (unsigned i = 0; i < set->lane_count && rc == 0; i++)
		rc = writer_drain_lane(set, &set->lanes[i]);
	for (unsigned i = 0; i < set->about->kind_count && rc == 0; i++)
		rc = logset_file_flush(&set->writer.files[i], &set->writer.place);
	return rc;
}

/* One event for a trouble, however often it is met until a write succeeds. */
static void writer_note_trouble(struct logset *set, int rc, int64_t now_s)
{
	struct writer *writer = &set->writer;
	char folder[256];

	if (!writer->in_trouble)
		log_event(LOG_LEVEL_ERROR, NULL, set->about->trouble,
			"folder=%s why=\"%s\" retry=%ds",
			log_quote_text(writer->place.folder, folder, sizeof(folder)), strerror(-rc),
			RETRY_S);
	writer->in_trouble = true;
	writer->tried_s = now_s;
}

static void writer_round(struct logset *set, bool is_last)
{
	struct writer *writer = &set->writer;
	struct timespec now;
	int rc;

	logset_clock(&now);
	/* A clock that was put back must not make it wait for more than the minute. */
	if (writer->in_trouble && !is_last && now.tv_sec >= writer->tried_s &&
		now.tv_sec - writer->tried_s < RETRY_S)
		return;
	rc = writer_drain(set);
	if (rc < 0)
		writer_note_trouble(set, rc, now.tv_sec);
	else
		writer->in_trouble = false;
}

/* Takes the options of a reload; files of another folder are closed. */
static void writer_configure(struct logset *set)
{
	struct writer *writer = &set->writer;
	struct timespec now;
	int rc = 0;

	if (writer->place.folder[0] != '\0')
		writer_round(set, true);
	(void)pthread_mutex_lock(&set->mutex);
	writer->place = set->place;
	writer->changes = atomic_load(&set->changes);
	(void)pthread_mutex_unlock(&set->mutex);
	writer->in_trouble = false;
	logset_clock(&now);
	for (unsigned i = 0; i < set->about->kind_count; i++) {
		const struct logset_kind *kind = &set->about->kinds[i];

		logset_file_close(&writer->files[i]);
		if (writer->place.folder[0] == '\0')
			logset_file_init(&writer->files[i], kind);
		else if (rc == 0)
			rc = logset_file_prune(&writer->place, kind, now.tv_sec, 0);
	}
	if (rc < 0)
		writer_note_trouble(set, rc, now.tv_sec);
}

static void writer_sleep(struct logset *set)
{
	const struct timespec until = clock_after_ms(WRITE_INTERVAL_MS);

	(void)sem_clockwait(&set->wake, CLOCK_MONOTONIC, &until);
}

static void *writer_run(void *arg)
{
	struct logset *set = arg;

	for (;;) {
		/* Read before the last round, so that no row appended before it is missed. */
		bool is_last = atomic_load(&set->is_stopping);

		if (atomic_load(&set->changes) != set->writer.changes)
			writer_configure(set);
		writer_round(set, is_last);
		if (is_last)
			break;
		writer_sleep(set);
	}
	for (unsigned i = 0; i < set->about->kind_count; i++)
		logset_file_close(&set->writer.files[i]);
	return NULL;
}

/* ---- start and stop */

void logset_configure(struct logset *set, const struct logset_options *options)
{
	struct logset_place *place = &set->place;

	(void)pthread_mutex_lock(&set->mutex);
	(void)snprintf(place->folder, sizeof(place->folder), "%s",
		options->folder == NULL ? "" : options->folder);
	place->max_file_bytes = options->max_file_bytes;
	place->max_directory_bytes = options->max_directory_bytes;
	place->max_age_ms = options->max_age_ms;
	atomic_fetch_add(&set->changes, 1);
	(void)pthread_mutex_unlock(&set->mutex);
	atomic_store(&set->is_kept, place->folder[0] != '\0');
}

static struct lane *lanes_create(unsigned count)
{
	struct lane *lanes = NULL;

	if (posix_memalign((void **)&lanes, _Alignof(struct lane), count * sizeof(*lanes)) != 0)
		return NULL;
	/* The buffers themselves are left untouched: no page of them is used before it is needed.
	 */
	for (unsigned i = 0; i < count; i++) {
		atomic_init(&lanes[i].head, 0);
		atomic_init(&lanes[i].tail, 0);
	}
	return lanes;
}

int logset_create(const struct logset_about *about, const struct logset_options *options,
	unsigned workers, struct logset **out)
{
	struct logset *set = calloc(1, sizeof(*set));
	int rc = ENOMEM;

	ASSERT(workers > 0 && about->kind_count <= LOGSET_KINDS_MAX);
	if (set == NULL)
		return -ENOMEM;
	set->about = about;
	for (unsigned i = 0; i < about->kind_count; i++)
		logset_file_init(&set->writer.files[i], &about->kinds[i]);
	set->lane_count = workers;
	set->lanes = lanes_create(workers);
	(void)pthread_mutex_init(&set->mutex, NULL);
	(void)sem_init(&set->wake, 0, 0);
	logset_configure(set, options);
	if (set->lanes != NULL)
		rc = pthread_create(&set->thread, NULL, writer_run, set);
	if (rc == 0) {
		*out = set;
		return 0;
	}
	(void)sem_destroy(&set->wake);
	(void)pthread_mutex_destroy(&set->mutex);
	free(set->lanes);
	free(set);
	return -rc;
}

void logset_destroy(struct logset **set_at)
{
	struct logset *set = *set_at;

	if (set == NULL)
		return;
	*set_at = NULL;
	atomic_store(&set->is_stopping, true);
	(void)sem_post(&set->wake);
	(void)pthread_join(set->thread, NULL);
	(void)sem_destroy(&set->wake);
	(void)pthread_mutex_destroy(&set->mutex);
	free(set->lanes);
	free(set);
}

bool logset_is_kept(const struct logset *set)
{
	return set != NULL && atomic_load_explicit(&set->is_kept, memory_order_relaxed);
}

/* ---- rows */

static void lane_copy_in(struct lane *lane, size_t at, const void *bytes, size_t len)
{
	size_t start = at % LANE_BYTES;
	size_t first = len < LANE_BYTES - start ? len : LANE_BYTES - start;

	memcpy(lane->bytes + start, bytes, first);
	memcpy(lane->bytes, (const uint8_t *)bytes + first, len - first);
}

bool logset_append(struct logset *set, unsigned worker, unsigned kind, const struct timespec *now,
	struct span row)
{
	const struct lane_record record = {.len = (uint32_t)row.len,
		.kind = kind,
		.hour = now->tv_sec < 0 ? 0 : (uint64_t)now->tv_sec / 3600};
	const size_t need = sizeof(record) + row.len;
	struct lane *lane;
	size_t head, used;

	ASSERT(row.len <= LOGSET_ROW_BYTES_MAX && kind < set->about->kind_count);
	if (worker >= set->lane_count)
		return false;
	lane = &set->lanes[worker];
	head = atomic_load_explicit(&lane->head, memory_order_relaxed);
	used = head - atomic_load_explicit(&lane->tail, memory_order_acquire);
	if (need > LANE_BYTES - used)
		return false;
	lane_copy_in(lane, head, &record, sizeof(record));
	lane_copy_in(lane, head + sizeof(record), row.data, row.len);
	atomic_store_explicit(&lane->head, head + need, memory_order_release);
	/* Half full: the writing thread should not wait for the end of its interval. */
	if (used < LANE_BYTES / 2 && used + need >= LANE_BYTES / 2)
		(void)sem_post(&set->wake);
	return true;
}

void logset_row_begin(struct logset_row *row, const struct timespec *now)
{
	row->len = logset_stamp(now, row->bytes, sizeof(row->bytes));
	logset_row_comma(row);
}

void logset_row_field(struct logset_row *row, struct span text, size_t max)
{
	static const char hex[] = "0123456789abcdef";
	bool is_quoted = span_find(text, ',') < text.len || span_find(text, '"') < text.len;
	size_t end = row->len + max - 1; /* one for the last quote */

	ASSERT(max <= sizeof(row->bytes) - row->len);
	if (is_quoted)
		row->bytes[row->len++] = '"';
	while (text.len > 0 && row->len + 4 <= end) {
		size_t len = utf8_character(text);

		if (len == 0) {
			row->bytes[row->len++] = '\\';
			row->bytes[row->len++] = 'x';
			row->bytes[row->len++] = hex[text.data[0] >> 4];
			row->bytes[row->len++] = hex[text.data[0] & 15];
			len = 1;
		} else {
			if (text.data[0] == '"')
				row->bytes[row->len++] = '"';
			memcpy(row->bytes + row->len, text.data, len);
			row->len += len;
		}
		text = span_skip(text, len);
	}
	if (is_quoted)
		row->bytes[row->len++] = '"';
}

void logset_row_text(struct logset_row *row, const char *text, size_t max)
{
	logset_row_field(row, span_of(text == NULL ? "" : text), max);
	logset_row_comma(row);
}

void logset_row_comma(struct logset_row *row)
{
	ASSERT(row->len < sizeof(row->bytes));
	row->bytes[row->len++] = ',';
}

void logset_row_end(struct logset_row *row)
{
	ASSERT(row->len + 2 <= sizeof(row->bytes));
	row->bytes[row->len++] = '\r';
	row->bytes[row->len++] = '\n';
}
