/* SPDX-License-Identifier: Apache-2.0 */

/*
 * fuzz_spool_scan.c: the scan of a log, and what is owed by it, on segment files of any bytes. They
 * are in a folder of their own below TMPDIR, or else /dev/shm or /tmp, made once. The first byte
 * says how the others become files, so that an input comes behind the checksums:
 *
 *   bits 0-1  one to three files
 *   bit 2     the rest is a script, see fuzz_script(); else it is cut into the files as it is
 *   bit 3     of a script: no SEGMENT by itself; of bytes: each record gets its file's number and
 *             the right checksum
 *   bit 4     the files' names are not in the order of their numbers
 *   bits 5-6  a file has one to four blocks
 *   bit 7     the last one lacks some bytes
 *
 * Each record that is given stands in the file as it is given, is good there, and has a sequence
 * beyond the last one's, unless it was said that it goes back. A second scan says the same. What
 * the state says adds up, and leads to a MESSAGE record.
 */

#include "relay/mail/envelope.h"
#include "relay/mail/record_private.h"
#include "relay/mail/spool_state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_FILES_MAX 3U
#define FUZZ_BYTES_MAX ((size_t)4 * RECORD_BLOCK)
#define FUZZ_RECORDS_MAX (FUZZ_FILES_MAX * FUZZ_BYTES_MAX / RECORD_ALIGN)
#define FUZZ_FINDINGS_MAX (FUZZ_RECORDS_MAX + FUZZ_FILES_MAX + FUZZ_FILES_MAX)
#define FUZZ_CUT_BYTES 100

enum fuzz_mode {
	FUZZ_SCRIPT = 4,
	FUZZ_BARE = 8, /* or sealed, see above */
	FUZZ_SWAPPED = 16,
	FUZZ_CUT = 128,
};

static char fuzz_folder[128];
static char fuzz_log[160];
static int fuzz_fds[FUZZ_FILES_MAX];
static struct fuzz_file {
	uint8_t bytes[FUZZ_BYTES_MAX];
	size_t len;
	uint64_t number;
} fuzz_files[FUZZ_FILES_MAX];
static unsigned fuzz_count;
static unsigned fuzz_mode;

/* Where the next record goes. */
static struct {
	unsigned file;
	size_t at, write_at;
	uint64_t sequence;
} fuzz_place;

static void fuzz_path(unsigned file, char *out, size_t out_bytes)
{
	ASSERT(snprintf(out, out_bytes, "%s/%u.seg", fuzz_log, file) < (int)out_bytes);
}

static void fuzz_remove(void)
{
	char path[192];

	for (unsigned i = 0; i < FUZZ_FILES_MAX; i++) {
		fuzz_path(i, path, sizeof(path));
		(void)unlink(path);
	}
	(void)rmdir(fuzz_log);
	(void)rmdir(fuzz_folder);
}

static void fuzz_make_folder(void)
{
	const char *parent = getenv("TMPDIR");
	char path[192];
	int len;

	if (parent == NULL || *parent == '\0')
		parent = access("/dev/shm", W_OK | X_OK) == 0 ? "/dev/shm" : "/tmp";
	len = snprintf(fuzz_folder, sizeof(fuzz_folder), "%s/postern-fuzz-XXXXXX", parent);
	ASSERT(len < (int)sizeof(fuzz_folder) && mkdtemp(fuzz_folder) != NULL);
	(void)snprintf(fuzz_log, sizeof(fuzz_log), "%s/00", fuzz_folder);
	ASSERT(mkdir(fuzz_log, 0700) == 0 && atexit(fuzz_remove) == 0);
	for (unsigned i = 0; i < FUZZ_FILES_MAX; i++) {
		fuzz_path(i, path, sizeof(path));
		fuzz_fds[i] = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		ASSERT(fuzz_fds[i] >= 0);
	}
}

/* A file that there is not in this input is blank. */
static void fuzz_save(void)
{
	for (unsigned i = 0; i < FUZZ_FILES_MAX; i++) {
		const struct fuzz_file *file = &fuzz_files[i];
		const bool is_cut = i + 1 == fuzz_count && (fuzz_mode & FUZZ_CUT) != 0;
		const size_t len = file->len - (is_cut ? FUZZ_CUT_BYTES : 0);

		ASSERT(pwrite(fuzz_fds[i], file->bytes, len, 0) == (ssize_t)len);
		ASSERT(ftruncate(fuzz_fds[i], (off_t)len) == 0);
	}
}

/* Gives each record of a file, one behind the other, its number and the right checksum. */
static void fuzz_seal_all(struct fuzz_file *file)
{
	size_t at = 0;

	while (at + RECORD_HEADER_BYTES <= file->len) {
		uint8_t *in = file->bytes + at;
		const size_t room = file->len - at - RECORD_HEADER_BYTES;
		struct record_head head = {
			.type = (enum record_type)(get_le(in + 8, 4) % RECORD_SEAL + 1),
			.payload_bytes = (uint32_t)(get_le(in + 12, 4) % (room + 1)),
			.segment = file->number,
			.sequence = get_le(in + 24, 8),
			.id = get_le(in + 32, 8),
			.time_ms = (int64_t)get_le(in + 40, 8),
			.write = (uint32_t)get_le(in + 48, 4),
		};

		if (get_le(in, 4) != RECORD_MAGIC) {
			at += RECORD_ALIGN;
			continue;
		}
		record_seal(&head, in);
		at += record_bytes(head.payload_bytes);
		at = (at + RECORD_ALIGN - 1) / RECORD_ALIGN * RECORD_ALIGN;
	}
}

static void fuzz_cut(struct span in)
{
	const size_t part = in.len / fuzz_count;

	for (unsigned i = 0; i < fuzz_count; i++) {
		struct fuzz_file *file = &fuzz_files[i];
		const size_t rest = i + 1 == fuzz_count ? in.len - i * part : part;
		const size_t len = rest < file->len ? rest : file->len;

		if (len > 0)
			memcpy(file->bytes, in.data + i * part, len);
		if ((fuzz_mode & FUZZ_BARE) != 0)
			fuzz_seal_all(file);
	}
}

/* A record at the place, and the place behind it; nothing if there is no room. */
static uint8_t *fuzz_add(struct record_head head, struct span payload)
{
	struct fuzz_file *file = &fuzz_files[fuzz_place.file];
	uint8_t *out = file->bytes + fuzz_place.at;
	const size_t bytes = record_bytes(payload.len);

	if (fuzz_place.at + bytes > file->len)
		return NULL;
	head.payload_bytes = (uint32_t)payload.len;
	if (payload.len > 0)
		memcpy(out + RECORD_HEADER_BYTES, payload.data, payload.len);
	record_seal(&head, out);
	fuzz_place.at += (bytes + RECORD_ALIGN - 1) / RECORD_ALIGN * RECORD_ALIGN;
	return out;
}

static void fuzz_begin_file(void)
{
	const struct fuzz_file *file = &fuzz_files[fuzz_place.file];
	const struct record_segment segment = {
		.format = RECORD_FORMAT, .number = file->number, .segment_bytes = file->len};
	uint8_t payload[RECORD_SEGMENT_BYTES];

	fuzz_place.at = fuzz_place.write_at = 0;
	if ((fuzz_mode & FUZZ_BARE) != 0)
		return;
	record_write_segment(&segment, payload);
	ASSERT(fuzz_add((struct record_head){.type = RECORD_SEGMENT,
				.segment = file->number,
				.sequence = ++fuzz_place.sequence,
				.write = 1},
		       span_make(payload, sizeof(payload))) != NULL);
}

/* Bytes as they are, whatever they are. */
static void fuzz_add_raw(struct span in)
{
	struct fuzz_file *file = &fuzz_files[fuzz_place.file];

	if (in.len == 0 || fuzz_place.at + in.len > file->len)
		return;
	memcpy(file->bytes + fuzz_place.at, in.data, in.len);
	fuzz_place.at += (in.len + RECORD_ALIGN - 1) / RECORD_ALIGN * RECORD_ALIGN;
}

/*
 * A script is steps: what, which, length:2, then the payload.
 *
 *   what   bits 0-2  the type; 0: the bytes as they are
 *          bit 3     a write begins; bit 4: the next file does
 *          bit 5     one bit turns over; bit 6: another segment's number; bit 7: another write's
 *   which  bits 0-3  the id; bits 4-5: the sequence is the next, the one after it, the last, or
 *                    far away; bit 6: it is not told of which write it is
 */
static void fuzz_step(unsigned what, unsigned which, struct span payload)
{
	static const uint64_t steps[] = {1, 2, 0, 0xffffffffffffff00U};
	uint8_t *out;

	if ((what & 16) != 0 && fuzz_place.file + 1 < fuzz_count) {
		fuzz_place.file++;
		fuzz_begin_file();
	}
	if ((what & 8) != 0) {
		fuzz_place.at = (fuzz_place.at + RECORD_BLOCK - 1) / RECORD_BLOCK * RECORD_BLOCK;
		fuzz_place.write_at = fuzz_place.at;
	}
	if ((what & 7) == 0) {
		fuzz_add_raw(payload);
		return;
	}
	fuzz_place.sequence += steps[which >> 4 & 3];
	out = fuzz_add(
		(struct record_head){.type = (enum record_type)(what & 7),
			.segment = fuzz_files[fuzz_place.file].number + ((what & 64) != 0 ? 1 : 0),
			.sequence = fuzz_place.sequence,
			.id = which & 15,
			.write = (which & 64) != 0 ? 0
						   : (uint32_t)(fuzz_place.write_at / RECORD_BLOCK +
								1 + ((what & 128) != 0 ? 1 : 0))},
		payload);
	if (out != NULL && (what & 32) != 0)
		out[record_bytes(payload.len) - 1] ^= 1;
}

static void fuzz_script(struct span in)
{
	memset(&fuzz_place, 0, sizeof(fuzz_place));
	fuzz_begin_file();
	while (in.len >= 4) {
		const unsigned what = in.data[0], which = in.data[1];
		size_t len = (size_t)get_le(in.data + 2, 2);

		in = span_skip(in, 4);
		if (len > in.len)
			len = in.len;
		fuzz_step(what, which, span_head(in, len));
		in = span_skip(in, len);
	}
}

static void fuzz_write(const uint8_t *data, size_t size)
{
	const struct span in = span_make(data + 1, size - 1);

	fuzz_mode = data[0];
	fuzz_count = data[0] % 4 % FUZZ_FILES_MAX + 1;
	for (unsigned i = 0; i < FUZZ_FILES_MAX; i++) {
		struct fuzz_file *file = &fuzz_files[i];

		memset(file->bytes, 0, sizeof(file->bytes));
		file->len = ((size_t)(data[0] >> 5 & 3) + 1) * RECORD_BLOCK;
		file->number =
			(uint64_t)2 * ((fuzz_mode & FUZZ_SWAPPED) != 0 ? fuzz_count - i : i + 1);
	}
	if ((fuzz_mode & FUZZ_SCRIPT) != 0)
		fuzz_script(in);
	else
		fuzz_cut(in);
	fuzz_save();
}

/* It stands in its file, as the scan says. */
static void fuzz_check_record(const struct spool_scan_record *record)
{
	const char *name = strrchr(record->file, '/');
	const struct fuzz_file *file;
	struct record_head head;
	struct span payload;

	ASSERT(name != NULL && name[1] >= '0' && name[1] < '0' + (int)FUZZ_FILES_MAX);
	file = &fuzz_files[name[1] - '0'];
	ASSERT(record->payload.len == record->head.payload_bytes);
	ASSERT(record->offset % RECORD_ALIGN == 0);
	ASSERT(record->offset + record_bytes(record->payload.len) <= file->len);
	ASSERT(record_read(span_make(file->bytes + record->offset, file->len - record->offset),
		       record->head.segment, &head, &payload) == RECORD_GOOD);
	ASSERT(head.type == record->head.type && head.id == record->head.id);
	ASSERT(head.sequence == record->head.sequence && head.write == record->head.write);
	ASSERT(span_equal(payload, record->payload));
	ASSERT(strcmp(record_type_name(head.type), "?") != 0);
}

/* The parts of its body: each is there, as it is said, or it is said that it is not. */
static void fuzz_check_bodies(struct spool_scan *scan, const struct spool_scan_record *record)
{
	static uint8_t copy[RECORD_BYTES_MAX];
	struct record_message message;
	struct record_extent extent;
	struct span text;
	uint64_t at = 0;

	if (record->head.type != RECORD_MESSAGE || record->payload.len == 0)
		return;
	memcpy(copy, record->payload.data, record->payload.len);
	if (!record_read_message(span_make(copy, record->payload.len), &message))
		return;
	for (uint32_t i = 0; record_read_extent(&message, i, &extent); i++) {
		if (spool_scan_body(scan, record->head.id, at, &extent, &text) == 0)
			ASSERT(text.len == extent.bytes);
		at += extent.bytes;
	}
	ASSERT(span_equal(span_make(copy, record->payload.len), record->payload));
}

static unsigned fuzz_findings;
static bool fuzz_goes_back; /* it was said that the next record does */

static void fuzz_on_finding(void *owner, const struct spool_scan_finding *finding)
{
	(void)owner;
	ASSERT(finding->file != NULL && strlen(finding->words) > 0);
	fuzz_goes_back = fuzz_goes_back || strstr(finding->words, "goes on with record") != NULL;
	fuzz_findings++;
	ASSERT(fuzz_findings <= FUZZ_FINDINGS_MAX);
}

/* All records; what they do to state. How many. */
static unsigned fuzz_scan(struct spool_scan *scan, struct spool_state *state)
{
	struct spool_scan_record record;
	unsigned count = 0;
	uint64_t last = 0;
	int rc;

	fuzz_findings = 0;
	fuzz_goes_back = false;
	while (spool_scan_next(scan, &record)) {
		ASSERT(++count <= FUZZ_RECORDS_MAX);
		ASSERT(count == 1 || record.head.sequence > last || fuzz_goes_back);
		fuzz_goes_back = false;
		last = record.head.sequence;
		ASSERT(spool_scan_sequence(scan) == last);
		fuzz_check_record(&record);
		fuzz_check_bodies(scan, &record);
		rc = spool_state_apply(state, &record);
		ASSERT(rc == 0 || rc == -EBADMSG);
	}
	ASSERT(!spool_scan_next(scan, &record));
	return count;
}

static void fuzz_check_state(struct spool_scan *scan, const struct spool_state *state)
{
	const struct spool_state_message *message;
	struct spool_state_facts facts;
	struct spool_scan_record record;
	uint64_t open = 0;
	unsigned count = 0;

	for (; (message = spool_state_at(state, count)) != NULL; count++) {
		uint32_t open_here = 0;

		ASSERT(spool_state_find(state, message->id) == message);
		for (uint32_t i = 0; !message->is_done && i < message->rcpt_count; i++) {
			ASSERT(message->rcpt_states[i] < RCPT_STATE_COUNT);
			open_here += message->rcpt_states[i] == RCPT_OPEN ? 1 : 0;
		}
		ASSERT(open_here == message->open_count);
		open += open_here;
		ASSERT(spool_scan_at(scan, message->segment, message->offset, &record) == 0);
		ASSERT(record.head.type == RECORD_MESSAGE && record.head.id == message->id);
	}
	spool_state_facts(state, &facts);
	ASSERT(facts.messages + facts.done == count && facts.open_rcpts == open);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct spool_scan_events events = {.on_finding = fuzz_on_finding};
	struct spool_scan *scan = NULL;
	struct spool_state *first = NULL, *second = NULL;
	unsigned count, findings;

	if (size < 1)
		return 0;
	if (fuzz_folder[0] == '\0')
		fuzz_make_folder();
	fuzz_write(data, size);
	ASSERT(spool_scan_create(fuzz_folder, 0, &events, NULL, &scan) == 0);
	ASSERT(spool_state_create(&first) == 0 && spool_state_create(&second) == 0);
	count = fuzz_scan(scan, first);
	findings = fuzz_findings;
	fuzz_check_state(scan, first);
	spool_scan_rewind(scan);
	ASSERT(fuzz_scan(scan, second) == count && fuzz_findings == findings);
	fuzz_check_state(scan, second);
	spool_state_destroy(&first);
	spool_state_destroy(&second);
	spool_scan_destroy(&scan);
	return 0;
}
