/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/spool_scan.h"

#include "relay/mail/envelope.h"
#include "relay/mail/record_private.h"
#include "relay/mail/spool_scan_private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <unistd.h>

/* Where a header says what; for one that is not as it was written. */
#define AT_TYPE 8
#define AT_PAYLOAD_BYTES 12
#define AT_SEGMENT 16
#define AT_SEQUENCE 24
#define AT_ID 32

int spool_scan_logs(const char *folder, unsigned logs[SPOOL_LOGS_MAX])
{
	bool is_there[SPOOL_LOGS_MAX] = {false};
	DIR *entries = opendir(folder);
	const struct dirent *entry;
	int count = 0;

	if (entries == NULL)
		return -errno;
	while ((entry = readdir(entries)) != NULL) {
		const char *name = entry->d_name;

		if (strlen(name) == 2 && strspn(name, "0123456789") == 2)
			is_there[(name[0] - '0') * 10 + name[1] - '0'] = true;
	}
	(void)closedir(entries);
	for (unsigned i = 0; i < SPOOL_LOGS_MAX; i++) {
		if (is_there[i])
			logs[count++] = i;
	}
	return count;
}

static int scan_create_parts(struct spool_scan *scan, const char *folder)
{
	const int len = snprintf(scan->path, sizeof(scan->path), "%s/%02u", folder, scan->log);

	if (len < 0 || (size_t)len >= sizeof(scan->path))
		return -ENAMETOOLONG;
	scan->folder_fd = open(scan->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (scan->folder_fd < 0)
		return -errno;
	scan->window.bytes = malloc(SCAN_WINDOW_BYTES);
	scan->body.bytes = malloc(SCAN_WINDOW_BYTES);
	if (scan->window.bytes == NULL || scan->body.bytes == NULL)
		return -ENOMEM;
	return scan_create_segments(scan);
}

int spool_scan_create(const char *folder, unsigned log, const struct spool_scan_events *events,
	void *owner, struct spool_scan **out)
{
	struct spool_scan *scan = calloc(1, sizeof(*scan));
	int rc;

	ASSERT(log < SPOOL_LOGS_MAX);
	if (scan == NULL)
		return -ENOMEM;
	scan->events = events;
	scan->owner = owner;
	scan->log = log;
	scan->folder_fd = scan->window.fd = scan->body.fd = -1;
	rc = scan_create_parts(scan, folder);
	if (rc < 0)
		spool_scan_destroy(&scan);
	else
		*out = scan;
	return rc;
}

void spool_scan_destroy(struct spool_scan **scan)
{
	struct spool_scan *gone = *scan;

	*scan = NULL;
	if (gone == NULL)
		return;
	scan_window_close(&gone->window);
	scan_window_close(&gone->body);
	if (gone->folder_fd >= 0)
		(void)close(gone->folder_fd);
	free(gone->window.bytes);
	free(gone->body.bytes);
	free(gone->segments);
	free(gone);
}

void spool_scan_rewind(struct spool_scan *scan)
{
	scan_window_close(&scan->window);
	scan->index = 0;
	scan->is_open = false;
	scan->has_sequence = false;
	scan->sequence = 0;
}

static const struct scan_segment *scan_segment(const struct spool_scan *scan)
{
	return &scan->segments[scan->index];
}

static const char *scan_file(struct spool_scan *scan)
{
	(void)snprintf(
		scan->file, sizeof(scan->file), "%s/%s", scan->path, scan_segment(scan)->name);
	return scan->file;
}

static PRINTF_LIKE(4, 5) void scan_tell(struct spool_scan *scan, enum spool_scan_kind kind,
	uint64_t offset, const char *format, ...)
{
	char words[SCAN_WORDS_BYTES];
	struct spool_scan_finding finding = {
		.kind = kind,
		.file = scan_file(scan),
		.segment = scan_segment(scan)->number,
		.offset = offset,
		.words = words,
	};
	va_list list;

	va_start(list, format);
	(void)vsnprintf(words, sizeof(words), format, list);
	va_end(list);
	if (scan->events != NULL && scan->events->on_finding != NULL)
		scan->events->on_finding(scan->owner, &finding);
}

/* Of the next segment that can be read: the sequence that it begins with. */
struct scan_limit {
	bool is_last;      /* there is none */
	uint64_t sequence; /* 0: it is not known */
};

static struct scan_limit scan_limit(const struct spool_scan *scan)
{
	if (scan->index + 1 >= scan->segment_count)
		return (struct scan_limit){.is_last = true};
	return (struct scan_limit){.sequence = scan->segments[scan->index + 1].first_sequence};
}

/* May a record with that sequence follow? */
static bool scan_is_in_order(const struct spool_scan *scan, uint64_t sequence)
{
	const struct scan_limit limit = scan_limit(scan);

	return (!scan->has_sequence || sequence > scan->sequence) &&
	       (limit.sequence == 0 || sequence < limit.sequence);
}

static bool scan_is_next(const struct spool_scan *scan, uint64_t sequence)
{
	return !scan->has_sequence || sequence == scan->sequence + 1;
}

/*
 * May a record of that write stand at scan->at? Right behind another it is of the same write, or
 * begins one at its block; behind a pause it can only begin one. What a torn write has left may be
 * good and in order, but not this.
 */
static bool scan_is_in_write(const struct spool_scan *scan, uint32_t write)
{
	if (write == 0 || (scan->at % RECORD_BLOCK == 0 && write == scan->at / RECORD_BLOCK + 1))
		return true;
	return scan->at == scan->behind && write == scan->write;
}

/*
 * A good record that may follow what is bad at place, at from or behind it. Each one takes room, so
 * its sequence tells whether it may be as far away: what somebody has put into a body, to be found
 * just here, would have to know it. False: there is none.
 */
static bool scan_find(struct spool_scan *scan, uint64_t place, uint64_t from, uint64_t *at,
	struct record_head *head)
{
	struct span payload;

	for (; from < scan->window.file_bytes; from += RECORD_ALIGN) {
		if (scan_window_read(&scan->window, from, scan_segment(scan)->number, head,
			    &payload) != RECORD_GOOD ||
			!scan_is_in_order(scan, head->sequence))
			continue;
		if (scan->has_sequence &&
			head->sequence - scan->sequence - 1 > (from - place) / RECORD_ALIGN)
			continue;
		*at = from;
		return true;
	}
	return false;
}

/* Is there a record of a write that began behind that place? Then what was there had been safe. */
static bool scan_has_later_write(struct spool_scan *scan, uint64_t place, uint64_t from)
{
	struct record_head head;

	while (scan_find(scan, place, from, &from, &head)) {
		if (head.write == 0 || (uint64_t)(head.write - 1) * RECORD_BLOCK > place)
			return true;
		from = scan_align(from + record_bytes(head.payload_bytes), RECORD_ALIGN);
	}
	return false;
}

static bool scan_is_unreadable(struct spool_scan *scan, uint64_t at)
{
	const struct span in = scan_window_at(&scan->window, at, RECORD_HEADER_BYTES);

	return in.len < RECORD_HEADER_BYTES && scan->window.error != 0;
}

/* Does a record of ours stand there, maybe but for some bits? */
static bool scan_is_ours(struct spool_scan *scan, uint64_t at)
{
	const struct span in = scan_window_at(&scan->window, at, RECORD_HEADER_BYTES);

	return in.len >= RECORD_HEADER_BYTES &&
	       (get_le(in.data, 4) == RECORD_MAGIC ||
		       get_le(in.data + AT_SEGMENT, 8) == scan_segment(scan)->number) &&
	       get_le(in.data + AT_SEQUENCE, 8) == scan->sequence + 1;
}

/* What a bad place claims to be, for people. */
static void scan_print_claim(struct spool_scan *scan, uint64_t at, char *out, size_t out_bytes)
{
	const struct span in = scan_window_at(&scan->window, at, RECORD_HEADER_BYTES);
	char id[MESSAGE_ID_TEXT_BYTES];

	if (scan_is_unreadable(scan, at)) {
		(void)snprintf(
			out, out_bytes, "this cannot be read (%s)", strerror(-scan->window.error));
	} else if (in.len < RECORD_HEADER_BYTES ||
		   (get_le(in.data, 4) != RECORD_MAGIC && !scan_is_ours(scan, at))) {
		(void)snprintf(out, out_bytes, "this is no record");
	} else {
		const uint64_t type = get_le(in.data + AT_TYPE, 4);

		message_id_print(get_le(in.data + AT_ID, 8), id);
		(void)snprintf(out, out_bytes, "a bad record (as it seems, %s of %s)",
			record_type_name(
				type <= RECORD_SEAL ? (enum record_type)type : (enum record_type)0),
			id);
	}
}

/* Says that records up to next are not there, if so, and goes on as if they had been. */
static void scan_tell_gap(struct spool_scan *scan, bool is_bad, uint64_t place, uint64_t next)
{
	char claim[128] = "";
	const unsigned long long first = scan->sequence + 1;

	if (is_bad)
		scan_print_claim(scan, place, claim, sizeof(claim));
	/* Only of a next segment: what is in it was written later, whatever stood here. */
	if (next != 0 && scan->has_sequence && next <= scan->sequence)
		scan_tell(scan, SPOOL_SCAN_DAMAGED, place,
			"the next segment goes on with record %llu, and %llu was read before it: "
			"which of those between are as they were written is not known",
			(unsigned long long)next, (unsigned long long)scan->sequence);
	else if (next == 0 && is_bad)
		scan_tell(scan, SPOOL_SCAN_DAMAGED, place, "%s; lost: records from %llu on", claim,
			first);
	else if (next != 0 && !scan_is_next(scan, next) && is_bad)
		scan_tell(scan, SPOOL_SCAN_DAMAGED, place, "%s; lost: records %llu to %llu", claim,
			first, (unsigned long long)next - 1);
	else if (next != 0 && !scan_is_next(scan, next))
		scan_tell(scan, SPOOL_SCAN_MISSING, place,
			"records %llu to %llu are not here: they were lost, or a write failed",
			first, (unsigned long long)next - 1);
	else if (next != 0 && is_bad)
		scan_tell(scan, SPOOL_SCAN_TORN, place,
			"%s, that a crash or a failed write has left; nothing is missing", claim);
	if (next != 0 && scan->has_sequence)
		scan->sequence = next - 1;
}

static void scan_leave(struct spool_scan *scan)
{
	scan_window_close(&scan->window);
	scan->is_open = false;
	scan->index++;
}

/*
 * Nothing that may follow stands at place: a bad record, or none. Finds out what that means, and
 * goes on behind it. from: where good ones may be.
 */
static void scan_judge(struct spool_scan *scan, uint64_t place, uint64_t from, bool is_bad)
{
	const struct scan_limit limit = scan_limit(scan);
	struct record_head head;
	uint64_t at = 0;
	const bool is_followed = scan_find(scan, place, from, &at, &head);

	if (limit.is_last && !(is_followed && scan_has_later_write(scan, place, from))) {
		if (is_bad && scan_is_unreadable(scan, place))
			scan_tell_gap(scan, true, place, 0);
		else if (is_bad || is_followed)
			scan_tell(scan, SPOOL_SCAN_TORN, place,
				"the last write is torn here: nobody was told that it is safe");
		scan_leave(scan);
	} else if (is_followed) {
		scan_tell_gap(scan, is_bad, place, head.sequence);
		scan->at = scan->behind = at;
		scan->write = head.write;
	} else {
		scan_tell_gap(scan, is_bad, place, limit.sequence);
		scan_leave(scan);
	}
}

/* A bad record stands at place: behind it, if its length is right, is the one after it. */
static void scan_fail(struct spool_scan *scan, uint64_t place)
{
	const struct span in = scan_window_at(&scan->window, place, RECORD_HEADER_BYTES);
	uint64_t behind = place + RECORD_ALIGN;
	struct record_head next;
	struct span payload;

	if (in.len >= RECORD_HEADER_BYTES) {
		const uint64_t bytes = get_le(in.data + AT_PAYLOAD_BYTES, 4);
		const uint64_t end = scan_align(place + record_bytes(bytes), RECORD_ALIGN);

		if (scan_window_read(&scan->window, end, scan_segment(scan)->number, &next,
			    &payload) == RECORD_GOOD &&
			scan_is_in_order(scan, next.sequence) &&
			next.sequence == scan->sequence + 2)
			behind = end;
	}
	scan_judge(scan, place, behind, true);
}

/*
 * No record begins at scan->at: that write may end there, and the next one begins at the next
 * block, if there is one.
 */
static void scan_pass(struct spool_scan *scan)
{
	const uint64_t at = scan->at;
	const uint64_t block = scan_align(at, RECORD_BLOCK);
	const struct span rest =
		span_head(scan_window_at(&scan->window, at, block - at), block - at);
	struct record_head head;
	struct span payload;
	enum record_status status;

	if (!scan_is_zero(rest)) {
		scan_fail(scan, at);
		return;
	}
	status =
		scan_window_read(&scan->window, block, scan_segment(scan)->number, &head, &payload);
	if (block >= scan->window.file_bytes)
		scan_judge(scan, block, block, false);
	else if (status == RECORD_NONE && scan_is_ours(scan, block))
		scan_fail(scan, block);
	else if (status == RECORD_NONE)
		scan_judge(scan, block, block, false);
	else if (status == RECORD_GOOD && scan_is_in_order(scan, head.sequence) &&
		 !scan_is_next(scan, head.sequence))
		scan_judge(scan, at, block, false);
	else
		scan->at = block;
}

/* Begins with a segment; says what is known of it. */
static void scan_enter(struct spool_scan *scan)
{
	const struct scan_segment *segment = scan_segment(scan);
	struct record_head head;
	struct span payload;

	if (segment->trouble[0] != '\0')
		scan_tell(scan, segment->trouble_kind, 0, "%s", segment->trouble);
	if (segment->number == 0) {
		scan->index++;
		return;
	}
	scan_window_open(&scan->window, scan->folder_fd, segment);
	scan->is_open = true;
	scan->is_sealed = false;
	scan->at = scan->behind = 0;
	scan->write = 1;
	if (segment->first_sequence != 0)
		return;
	scan->at = scan_align(record_bytes(RECORD_SEGMENT_BYTES), RECORD_ALIGN);
	while (scan->at < scan->window.file_bytes &&
		(scan_window_read(&scan->window, scan->at, segment->number, &head, &payload) !=
				RECORD_GOOD ||
			!scan_is_in_order(scan, head.sequence)))
		scan->at += RECORD_ALIGN;
	if (scan->at >= scan->window.file_bytes)
		return;
	scan->behind = scan->at;
	scan->write = head.write;
	if (scan->has_sequence)
		scan->sequence = head.sequence - 1;
}

/* Looks at scan->at. True: there is a record. */
static bool scan_step(struct spool_scan *scan, struct spool_scan_record *out)
{
	const uint64_t at = scan->at;
	struct spool_scan_record record = {.offset = (uint32_t)at};
	enum record_status status;

	if (at >= scan->window.file_bytes) {
		scan_judge(scan, at, at, false);
		return false;
	}
	status = scan_window_read(
		&scan->window, at, scan_segment(scan)->number, &record.head, &record.payload);
	if (status == RECORD_NONE) {
		scan_pass(scan);
		return false;
	}
	if (status != RECORD_GOOD || !scan_is_in_order(scan, record.head.sequence) ||
		!scan_is_in_write(scan, record.head.write)) {
		scan_fail(scan, at);
		return false;
	}
	/* A gap without anything in between: at the start of a segment, or in a row. */
	if (!scan_is_next(scan, record.head.sequence))
		scan_tell_gap(scan, false, at, record.head.sequence);
	record.file = scan_file(scan);
	scan->at = scan_align(at + record_bytes(record.head.payload_bytes), RECORD_ALIGN);
	scan->behind = scan->at;
	scan->write = record.head.write;
	scan->sequence = record.head.sequence;
	scan->has_sequence = true;
	scan->is_sealed = record.head.type == RECORD_SEAL;
	*out = record;
	return true;
}

bool spool_scan_next(struct spool_scan *scan, struct spool_scan_record *out)
{
	while (scan->index < scan->segment_count) {
		if (!scan->is_open)
			scan_enter(scan);
		else if (scan->is_sealed)
			scan_leave(scan);
		else if (scan_step(scan, out))
			return true;
	}
	return false;
}

static bool scan_find_segment(const struct spool_scan *scan, uint64_t number, unsigned *out)
{
	for (unsigned i = 0; i < scan->segment_count; i++) {
		if (scan->segments[i].number == number) {
			*out = i;
			return true;
		}
	}
	return false;
}

int spool_scan_at(
	struct spool_scan *scan, uint64_t segment, uint32_t offset, struct spool_scan_record *out)
{
	struct spool_scan_record record = {.offset = offset};
	unsigned index = 0;

	if (segment == 0 || !scan_find_segment(scan, segment, &index))
		return -ENOENT;
	if (scan->body.fd < 0 || scan->body_index != index) {
		scan_window_close(&scan->body);
		scan_window_open(&scan->body, scan->folder_fd, &scan->segments[index]);
		scan->body_index = index;
	}
	if (scan_window_read(&scan->body, offset, segment, &record.head, &record.payload) !=
		RECORD_GOOD)
		return scan->body.error < 0 ? scan->body.error : -EBADMSG;
	(void)snprintf(scan->body_file, sizeof(scan->body_file), "%s/%s", scan->path,
		scan->segments[index].name);
	record.file = scan->body_file;
	*out = record;
	return 0;
}

int spool_scan_body(struct spool_scan *scan, uint64_t id, uint64_t at,
	const struct record_extent *extent, struct span *text)
{
	struct spool_scan_record record;
	struct span found;
	uint64_t said;
	int rc = spool_scan_at(scan, extent->segment, extent->offset, &record);

	if (rc < 0)
		return rc;
	if (record.head.type != RECORD_BODY || record.head.id != id ||
		!record_read_body(record.payload, &said, &found) || said != at ||
		found.len != extent->bytes)
		return -EBADMSG;
	*text = found;
	return 0;
}

uint64_t spool_scan_sequence(const struct spool_scan *scan)
{
	return scan->sequence;
}

void spool_scan_facts(const struct spool_scan *scan, struct spool_scan_facts *out)
{
	*out = (struct spool_scan_facts){
		.blank = scan->blank_count,
		.blank_bytes = scan->blank_bytes,
	};
	for (unsigned i = 0; i < scan->segment_count; i++) {
		const struct scan_segment *segment = &scan->segments[i];

		out->segments++;
		out->bytes += segment->bytes;
		if (segment->number > out->last_segment)
			out->last_segment = segment->number;
	}
}

const char *spool_scan_word(enum spool_scan_kind kind)
{
	switch (kind) {
	case SPOOL_SCAN_TORN:
		return "torn";
	case SPOOL_SCAN_DAMAGED:
		return "damaged";
	case SPOOL_SCAN_MISSING:
		return "missing";
	}
	return "?";
}
