/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/protolog.h"

#include "relay/base/clock.h"
#include "relay/base/log.h"
#include "relay/base/protolog_file.h"
#include "relay/base/stats.h"
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

/* What one worker may be ahead of the writing thread: some thousand rows. A power of two. */
#define LANE_BYTES 1048576

/* How long a row may wait to be written. */
#define WRITE_INTERVAL_MS 100

#define RETRY_S 60

#define DATA_BYTES_MAX 4096
#define NAME_FIELD_BYTES_MAX 512
#define CONTEXT_BYTES_MAX 1024

_Static_assert(DATA_BYTES_MAX + 3 * NAME_FIELD_BYTES_MAX + CONTEXT_BYTES_MAX + 256 <=
		       PROTOLOG_ROW_BYTES_MAX,
	"all columns fit a row");

struct lane_record {
	uint32_t len;
	uint32_t set;
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

static void protolog_clock_wall(struct timespec *now)
{
	(void)clock_gettime(CLOCK_REALTIME, now);
}

void (*protolog_clock)(struct timespec *now) = protolog_clock_wall;

static struct {
	struct lane *lanes; /* NULL: not started */
	unsigned lane_count;
	pthread_t thread;
	sem_t wake;
	_Atomic bool is_stopping;
	_Atomic bool is_kept;  /* there is a folder */
	pthread_mutex_t mutex; /* for place, which a reload changes */
	struct protolog_place place;
	_Atomic unsigned changes; /* of place */
} protolog = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local unsigned lane_mine = UINT_MAX;

/* ---- the writing thread */

struct writer {
	struct protolog_place place;
	unsigned changes; /* as of place */
	struct protolog_file files[2];
	bool in_trouble;
	int64_t tried_s; /* in_trouble: when */
};

static void lane_copy_out(const struct lane *lane, size_t at, void *out, size_t len)
{
	size_t start = at % LANE_BYTES;
	size_t first = len < LANE_BYTES - start ? len : LANE_BYTES - start;

	memcpy(out, lane->bytes + start, first);
	memcpy((uint8_t *)out + first, lane->bytes, len - first);
}

/* Moves rows from a worker's buffer to the files; -errno: the rest stays where it is. */
static int writer_drain_lane(struct writer *writer, struct lane *lane)
{
	size_t head = atomic_load_explicit(&lane->head, memory_order_acquire);
	size_t tail = atomic_load_explicit(&lane->tail, memory_order_relaxed);
	uint8_t row[PROTOLOG_ROW_BYTES_MAX];
	struct lane_record record;

	while (tail != head) {
		int rc;

		lane_copy_out(lane, tail, &record, sizeof(record));
		ASSERT(record.len <= sizeof(row) && record.set <= PROTOLOG_SEND);
		lane_copy_out(lane, tail + sizeof(record), row, record.len);
		if (writer->place.folder[0] != '\0') {
			rc = protolog_file_append(&writer->files[record.set], &writer->place,
				record.hour, span_make(row, record.len));
			if (rc < 0)
				return rc;
		}
		tail += sizeof(record) + record.len;
		atomic_store_explicit(&lane->tail, tail, memory_order_release);
	}
	return 0;
}

static int writer_drain(struct writer *writer)
{
	int rc = 0;

	for (unsigned i = 0; i < protolog.lane_count && rc == 0; i++)
		rc = writer_drain_lane(writer, &protolog.lanes[i]);
	for (unsigned i = 0; i < 2 && rc == 0; i++)
		rc = protolog_file_flush(&writer->files[i], &writer->place);
	return rc;
}

/* One event for a trouble, however often it is met until a write succeeds. */
static void writer_note_trouble(struct writer *writer, int rc, int64_t now_s)
{
	char folder[256];

	if (!writer->in_trouble)
		log_event(LOG_LEVEL_ERROR, NULL, "protocol-log-failed",
			"folder=%s why=\"%s\" retry=%ds",
			log_quote_text(writer->place.folder, folder, sizeof(folder)), strerror(-rc),
			RETRY_S);
	writer->in_trouble = true;
	writer->tried_s = now_s;
}

static void writer_round(struct writer *writer, bool is_last)
{
	struct timespec now;
	int rc;

	protolog_clock(&now);
	/* A clock that was put back must not make it wait for more than the minute. */
	if (writer->in_trouble && !is_last && now.tv_sec >= writer->tried_s &&
		now.tv_sec - writer->tried_s < RETRY_S)
		return;
	rc = writer_drain(writer);
	if (rc < 0)
		writer_note_trouble(writer, rc, now.tv_sec);
	else
		writer->in_trouble = false;
}

/* Takes the options of a reload; files of another folder are closed. */
static void writer_configure(struct writer *writer)
{
	struct timespec now;
	int rc = 0;

	if (writer->place.folder[0] != '\0')
		writer_round(writer, true);
	(void)pthread_mutex_lock(&protolog.mutex);
	writer->place = protolog.place;
	writer->changes = atomic_load(&protolog.changes);
	(void)pthread_mutex_unlock(&protolog.mutex);
	writer->in_trouble = false;
	protolog_clock(&now);
	for (unsigned i = 0; i < 2; i++) {
		protolog_file_close(&writer->files[i]);
		if (writer->place.folder[0] == '\0')
			protolog_file_init(&writer->files[i], (enum protolog_set)i);
		else if (rc == 0)
			rc = protolog_file_prune(
				&writer->place, (enum protolog_set)i, now.tv_sec, 0);
	}
	if (rc < 0)
		writer_note_trouble(writer, rc, now.tv_sec);
}

static void writer_sleep(void)
{
	const struct timespec until = clock_after_ms(WRITE_INTERVAL_MS);

	(void)sem_clockwait(&protolog.wake, CLOCK_MONOTONIC, &until);
}

static void *writer_run(void *arg)
{
	struct writer *writer = arg;

	for (;;) {
		/* Read before the last round, so that no row appended before it is missed. */
		bool is_last = atomic_load(&protolog.is_stopping);

		if (atomic_load(&protolog.changes) != writer->changes)
			writer_configure(writer);
		writer_round(writer, is_last);
		if (is_last)
			break;
		writer_sleep();
	}
	for (unsigned i = 0; i < 2; i++)
		protolog_file_close(&writer->files[i]);
	free(writer);
	return NULL;
}

/* ---- start and stop */

static void protolog_place_set(const struct protolog_options *options)
{
	struct protolog_place *place = &protolog.place;

	(void)pthread_mutex_lock(&protolog.mutex);
	(void)snprintf(place->folder, sizeof(place->folder), "%s",
		options->folder == NULL ? "" : options->folder);
	place->max_file_bytes = options->max_file_bytes;
	place->max_directory_bytes = options->max_directory_bytes;
	place->max_age_ms = options->max_age_ms;
	atomic_fetch_add(&protolog.changes, 1);
	(void)pthread_mutex_unlock(&protolog.mutex);
	atomic_store(&protolog.is_kept, place->folder[0] != '\0');
}

static struct writer *writer_create(void)
{
	struct writer *writer = calloc(1, sizeof(*writer));

	if (writer == NULL)
		return NULL;
	for (unsigned i = 0; i < 2; i++)
		protolog_file_init(&writer->files[i], (enum protolog_set)i);
	return writer;
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

int protolog_start(const struct protolog_options *options, unsigned workers)
{
	struct writer *writer;
	int rc;

	ASSERT(protolog.lanes == NULL && workers > 0);
	writer = writer_create();
	protolog.lanes = lanes_create(workers);
	if (writer == NULL || protolog.lanes == NULL) {
		rc = ENOMEM;
		goto fail;
	}
	protolog.lane_count = workers;
	atomic_store(&protolog.is_stopping, false);
	(void)sem_init(&protolog.wake, 0, 0);
	protolog_place_set(options);
	rc = pthread_create(&protolog.thread, NULL, writer_run, writer);
	if (rc == 0)
		return 0;
	(void)sem_destroy(&protolog.wake);
fail:
	free(writer);
	free(protolog.lanes);
	protolog.lanes = NULL;
	return -rc;
}

void protolog_stop(void)
{
	if (protolog.lanes == NULL)
		return;
	atomic_store(&protolog.is_stopping, true);
	(void)sem_post(&protolog.wake);
	(void)pthread_join(protolog.thread, NULL);
	(void)sem_destroy(&protolog.wake);
	free(protolog.lanes);
	protolog.lanes = NULL;
}

void protolog_configure(const struct protolog_options *options)
{
	if (protolog.lanes != NULL)
		protolog_place_set(options);
}

void protolog_attach(unsigned worker)
{
	lane_mine = worker;
}

/* ---- rows */

static void lane_copy_in(struct lane *lane, size_t at, const void *bytes, size_t len)
{
	size_t start = at % LANE_BYTES;
	size_t first = len < LANE_BYTES - start ? len : LANE_BYTES - start;

	memcpy(lane->bytes + start, bytes, first);
	memcpy(lane->bytes, (const uint8_t *)bytes + first, len - first);
}

static void lane_append(struct lane *lane, const struct lane_record *record, const char *row)
{
	size_t head = atomic_load_explicit(&lane->head, memory_order_relaxed);
	size_t used = head - atomic_load_explicit(&lane->tail, memory_order_acquire);
	size_t need = sizeof(*record) + record->len;

	if (need > LANE_BYTES - used) {
		STAT(protolog_dropped);
		return;
	}
	lane_copy_in(lane, head, record, sizeof(*record));
	lane_copy_in(lane, head + sizeof(*record), row, record->len);
	atomic_store_explicit(&lane->head, head + need, memory_order_release);
	/* Half full: the writing thread should not wait for the end of its interval. */
	if (used < LANE_BYTES / 2 && used + need >= LANE_BYTES / 2)
		(void)sem_post(&protolog.wake);
}

/* How many bytes the UTF-8 character in front has; 0: it is none, or a control. */
static size_t utf8_character(struct span text)
{
	uint8_t first = text.data[0];
	size_t len = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;

	if (first < ' ' || first == 0x7f || (first >= 0x80 && first < 0xc2) || first > 0xf4 ||
		text.len < len)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((text.data[i] & 0xc0) != 0x80)
			return 0;
	if (len == 1)
		return 1;
	/* Longer than needed, a surrogate, beyond U+10FFFF, or a C1 control. */
	if ((first == 0xe0 && text.data[1] < 0xa0) || (first == 0xed && text.data[1] > 0x9f) ||
		(first == 0xf0 && text.data[1] < 0x90) || (first == 0xf4 && text.data[1] > 0x8f) ||
		(first == 0xc2 && text.data[1] < 0xa0))
		return 0;
	return len;
}

struct row {
	size_t len;
	char bytes[PROTOLOG_ROW_BYTES_MAX];
};

/*
 * A field of at most max bytes: quoted as RFC 4180 wants it; what is no printable UTF-8 becomes
 * \xHH, so that a row is always one line, whatever the peer sent.
 */
static void row_field(struct row *row, struct span text, size_t max)
{
	static const char hex[] = "0123456789abcdef";
	bool is_quoted = span_find(text, ',') < text.len || span_find(text, '"') < text.len;
	size_t end = row->len + max - 1; /* one for the last quote */

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

static void row_text(struct row *row, const char *text, size_t max)
{
	row_field(row, span_of(text == NULL ? "" : text), max);
	row->bytes[row->len++] = ',';
}

static void protolog_row(struct protolog *log, char event, struct span data, struct span context)
{
	char connector[NAME_FIELD_BYTES_MAX], number[16];
	struct lane_record record;
	struct timespec now;
	struct row row;

	if (protolog.lanes == NULL ||
		!atomic_load_explicit(&protolog.is_kept, memory_order_relaxed))
		return;
	(void)snprintf(number, sizeof(number), "%u", log->sequence++);
	if (lane_mine >= protolog.lane_count) {
		STAT(protolog_dropped);
		return;
	}
	protolog_clock(&now);
	row.len = protolog_stamp(&now, row.bytes, sizeof(row.bytes));
	row.bytes[row.len++] = ',';
	(void)snprintf(connector, sizeof(connector), "%s\\%s", log->fqdn, log->connector);
	row_text(&row, connector, NAME_FIELD_BYTES_MAX);
	row_text(&row, log->session, NAME_FIELD_BYTES_MAX);
	row_text(&row, number, sizeof(number));
	row_text(&row, log->local, NAME_FIELD_BYTES_MAX / 2);
	row_text(&row, log->remote, NAME_FIELD_BYTES_MAX / 2);
	row.bytes[row.len++] = event;
	row.bytes[row.len++] = ',';
	row_field(&row, data, DATA_BYTES_MAX);
	row.bytes[row.len++] = ',';
	row_field(&row, context, CONTEXT_BYTES_MAX);
	row.bytes[row.len++] = '\r';
	row.bytes[row.len++] = '\n';
	ASSERT(row.len <= sizeof(row.bytes));
	record.len = (uint32_t)row.len;
	record.set = log->set;
	record.hour = now.tv_sec < 0 ? 0 : (uint64_t)now.tv_sec / 3600;
	lane_append(&protolog.lanes[lane_mine], &record, row.bytes);
}

/* ---- what the session says */

static bool line_has_verb(struct span line, const char *verb)
{
	struct span word = span_of(verb);

	return span_starts_nocase(line, word) &&
	       (line.len == word.len || line.data[word.len] <= ' ' || line.data[word.len] == ':');
}

static bool line_is_command(struct span line)
{
	static const char *const verbs[] = {"EHLO", "HELO", "MAIL", "RCPT", "DATA", "BDAT", "RSET",
		"NOOP", "QUIT", "VRFY", "EXPN", "HELP", "STARTTLS"};

	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (line_has_verb(line, verbs[i]))
			return true;
	return false;
}

static struct span line_strip(struct span line)
{
	while (line.len > 0 && line.data[0] <= ' ')
		line = span_skip(line, 1);
	return line;
}

/*
 * The line, or what stands for it. We offer no AUTH, but a client may try it all the same, and
 * send name and password without waiting; so all lines behind it are hidden, until one begins
 * with a verb that is known.
 */
static struct span protolog_hide(struct protolog *log, struct span line)
{
	struct span bare = line_strip(line);

	if (line_has_verb(bare, "AUTH") || line_has_verb(bare, "X-EXPS")) {
		log->hides_lines = true;
		return span_of(bare.data[0] == 'X' || bare.data[0] == 'x' ? "X-EXPS *" : "AUTH *");
	}
	if (line_is_command(bare))
		log->hides_lines = false;
	return log->hides_lines ? span_of("*") : line;
}

void protolog_open(struct protolog *log)
{
	if (!log->is_on)
		return;
	log->sequence = 0;
	log->hides_lines = false;
	protolog_row(log, '+', span_of(""), span_of(""));
}

void protolog_close(struct protolog *log, const char *why)
{
	if (!log->is_on)
		return;
	protolog_row(log, '-', span_of(""), span_of(why == NULL ? "" : why));
	log->is_on = false;
}

void protolog_received(struct protolog *log, struct span line)
{
	if (!log->is_on)
		return;
	if (log->set == PROTOLOG_RECEIVE)
		line = protolog_hide(log, line);
	protolog_row(log, '<', line, span_of(""));
}

/* Cuts the next line off, without its CR LF or LF. */
static struct span wire_line(struct span *wire)
{
	size_t end = span_find(*wire, '\n');
	struct span line = span_head(*wire, end);

	*wire = span_skip(*wire, end + 1);
	if (line.len > 0 && line.data[line.len - 1] == '\r')
		line.len--;
	return line;
}

static bool line_is_continued(struct span line)
{
	return line.len >= 4 && line.data[0] >= '2' && line.data[0] <= '5' && line.data[3] == '-';
}

void protolog_sent(struct protolog *log, struct span wire)
{
	if (!log->is_on)
		return;
	while (wire.len > 0) {
		char joined[DATA_BYTES_MAX];
		struct span line = wire_line(&wire);
		size_t len = 0;

		if (log->set == PROTOLOG_SEND) {
			protolog_row(log, '>', protolog_hide(log, line), span_of(""));
			continue;
		}
		for (;;) {
			struct span part = span_head(line, sizeof(joined) - len);

			memcpy(joined + len, part.data, part.len);
			len += part.len;
			if (!line_is_continued(line) || wire.len == 0)
				break;
			if (len + 2 <= sizeof(joined)) {
				memcpy(joined + len, "; ", 2);
				len += 2;
			}
			line = wire_line(&wire);
		}
		protolog_row(log, '>', span_make(joined, len), span_of(""));
	}
}

void protolog_note(struct protolog *log, const char *context, const char *format, ...)
{
	char data[DATA_BYTES_MAX];
	va_list args;

	if (!log->is_on)
		return;
	va_start(args, format);
	(void)vsnprintf(data, sizeof(data), format, args);
	va_end(args);
	protolog_row(log, '*', span_of(data), span_of(context == NULL ? "" : context));
}
