/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * spool_fixture.h: a spool in a folder of its own, and mail to put into it. The text of a mail
 * follows from its id, so that each byte that comes back can be checked.
 */

#include "relay/mail/spool_private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define MAILS_MAX 4096
#define TURNS_MAX 200000
#define MIB 1048576UL

enum mail_state {
	MAIL_NONE,
	MAIL_WRITING,
	MAIL_COMMITTING,
	MAIL_THERE,
	MAIL_REFUSED, /* on_committed said no, or it was broken */
	MAIL_GONE,    /* done */
};

struct mail {
	struct spool_message spool;
	struct spool_writer writer;
	struct spool_reader reader;
	struct spool_ticket ticket;
	uint64_t id;
	uint64_t bytes;
	uint64_t written;
	uint64_t read;
	unsigned rcpts;
	unsigned attempts; /* as last told by a change or an envelope */
	unsigned calls;    /* of on_committed */
	unsigned changes;  /* replayed */
	enum mail_state state;
	enum durability durability;
	int result;
	int read_error;
	bool is_read; /* to its end */
	bool is_reading;
	bool is_told; /* ticket */
	int told;
};

static struct box {
	char path[64];
	struct loop *loop;
	struct spool_folder *folder;
	struct spool *spool;
	struct spool_folder_options options;
	struct mail *mails; /* MAILS_MAX */
	unsigned count;
	unsigned levels;
	unsigned moves;
	unsigned notes;
	uint64_t note_keys[64];
	char note_texts[64][32];
	unsigned unexpected; /* changes of unknown mail */
	struct timer guard;
} box;

/* Where folders are made; a model of a disk needs none. */
static const char *box_place = "/tmp";

static inline uint8_t text_byte(uint64_t id, uint64_t at)
{
	uint64_t x = (id + 1) * 0x9e3779b97f4a7c15U + (at >> 3) * 0xbf58476d1ce4e5b9U;

	x ^= x >> 31;
	x *= 0x94d049bb133111ebU;
	return (uint8_t)(x >> ((at & 7) * 8));
}

/* Recipients "<r0@x>" and so on: an envelope as a session would make it. */
static inline size_t mail_envelope(const struct mail *mail, uint8_t *out, size_t out_bytes)
{
	const struct envelope envelope = {
		.rcpt_count = mail->rcpts,
		.arrived_ms = 1,
		.expires_ms = 2,
		.body_bytes = mail->bytes,
		.attempts = mail->attempts,
		.sender = span_of("<sender@contoso.com>"),
		.session = span_of("0a1b"),
	};
	size_t len = envelope_write(&envelope, out, out_bytes);

	assert_true(len > 0);
	for (unsigned i = 0; i < mail->rcpts; i++) {
		char path[40];
		struct envelope_rcpt rcpt = {.notify = span_of(""), .orcpt = span_of("")};
		size_t more;

		(void)snprintf(path, sizeof(path), "<r%u@fabrikam.com>", i);
		rcpt.path = span_of(path);
		more = envelope_write_rcpt(&rcpt, out + len, out_bytes - len);
		assert_true(more > 0);
		len += more;
	}
	return len;
}

/* The owner. */

static inline struct mail *mail_find(uint64_t id)
{
	for (unsigned i = 0; i < box.count; i++)
		if (box.mails[i].id == id)
			return &box.mails[i];
	return NULL;
}

static struct spool_message *box_on_message(
	void *owner, uint64_t id, const struct envelope *envelope, struct spool_message *known)
{
	struct mail *mail = mail_find(id);

	assert_ptr_equal(owner, &box);
	if (mail == NULL) {
		if (box.count == MAILS_MAX)
			return NULL;
		mail = &box.mails[box.count++];
		*mail = (struct mail){.id = id};
	}
	assert_true(known == NULL || known == &mail->spool);
	mail->bytes = envelope->body_bytes;
	mail->rcpts = envelope->rcpt_count;
	mail->attempts = envelope->attempts;
	mail->calls++;
	mail->state = MAIL_THERE;
	return &mail->spool;
}

static void box_on_change(void *owner, struct spool_message *message, int64_t time_ms,
	const struct envelope_change *change)
{
	struct mail *mail = OWNER_OF(message, struct mail, spool);

	assert_ptr_equal(owner, &box);
	assert_true(time_ms > 0);
	assert_int_equal(mail->state, MAIL_THERE);
	mail->attempts = change->attempts;
	mail->changes++;
}

static void box_on_done(void *owner, struct spool_message *message)
{
	struct mail *mail = OWNER_OF(message, struct mail, spool);

	(void)owner;
	assert_int_equal(mail->state, MAIL_THERE);
	mail->state = MAIL_GONE;
}

static void box_on_note(void *owner, uint64_t key, struct span payload)
{
	(void)owner;
	assert_true(box.notes < COUNT_OF(box.note_keys));
	box.note_keys[box.notes] = key;
	(void)snprintf(box.note_texts[box.notes++], 32, "%.*s", (int)payload.len,
		(const char *)payload.data);
}

static const struct spool_replay box_replay = {
	.on_message = box_on_message,
	.on_change = box_on_change,
	.on_done = box_on_done,
	.on_note = box_on_note,
};

static void box_on_move(void *owner, struct spool_message *message, uint8_t *bytes, size_t len)
{
	const struct mail *mail = OWNER_OF(message, struct mail, spool);

	(void)owner;
	assert_int_equal(mail->state, MAIL_THERE);
	box.moves++;
	envelope_patch(bytes, len, 0, mail->attempts);
}

static void box_on_level(void *owner)
{
	(void)owner;
	box.levels++;
}

static const struct spool_events box_events = {.on_move = box_on_move, .on_level = box_on_level};

static void guard_fire(struct timer *timer)
{
	(void)timer;
	fail_msg("nothing happened for 60 s");
}

/* The parts that a restart makes anew. */
static inline int box_try_open_log(unsigned log)
{
	const struct spool_options options = {
		.loop = box.loop,
		.folder = box.folder,
		.log = log,
		.events = &box_events,
		.owner = &box,
	};

	return spool_create(&options, &box_replay, &box, &box.spool);
}

static inline void box_open_folder(void)
{
	assert_int_equal(spool_folder_create(&box.options, stderr, &box.folder), 0);
}

static inline void box_open(void)
{
	box.count = box.notes = box.levels = box.moves = 0;
	box_open_folder();
	assert_int_equal(box_try_open_log(0), 0);
}

static inline void box_turn(void)
{
	assert_int_equal(loop_turn(box.loop), 0);
}

static void nudge_run(struct task *task)
{
	(void)task;
}

/* A turn that does not sleep. */
static inline void box_turn_now(void)
{
	struct task nudge;

	task_init(&nudge, nudge_run);
	loop_task_add(box.loop, &nudge);
	box_turn();
}

#define BOX_AWAIT(condition)                               \
	do {                                               \
		for (unsigned turns_ = 0; !(condition);) { \
			assert_true(turns_++ < TURNS_MAX); \
			box_turn();                        \
		}                                          \
	} while (0)

static inline void box_close(void)
{
	spool_drain(box.spool);
	BOX_AWAIT(spool_is_closed(box.spool));
	spool_destroy(&box.spool);
	spool_folder_destroy(&box.folder);
}

static inline void box_restart(void)
{
	box_close();
	box_open();
}

static inline int box_setup(void **state)
{
	struct loop_caps caps;

	(void)state;
	box = (struct box){
		.options = {.segment_bytes = 4 * MIB,
			.bytes_max = 64 * MIB,
			.logs = 1,
			.pressure_medium = 89,
			.pressure_high = 99,
			.pressure_high_end = 90,
			.pressure_medium_end = 80},
	};
	(void)snprintf(box.path, sizeof(box.path), "%s/postern-spool-XXXXXX", box_place);
	box.mails = calloc(MAILS_MAX, sizeof(*box.mails));
	if (box.mails == NULL || mkdtemp(box.path) == NULL || loop_probe(&caps) < 0 ||
		loop_create(&caps, 64, &box.loop) < 0)
		return -1;
	box.options.path = box.path;
	timer_init(&box.guard, guard_fire);
	timer_set(loop_timers(box.loop), &box.guard, loop_now_ms(box.loop) + 60000);
	return 0;
}

static inline void folder_remove(int parent, const char *path)
{
	int fd = openat(parent, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	while (dir != NULL && (entry = readdir(dir)) != NULL)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
			unlinkat(fd, entry->d_name, 0) != 0)
			folder_remove(fd, entry->d_name);
	if (dir != NULL)
		(void)closedir(dir);
	(void)unlinkat(parent, path, AT_REMOVEDIR);
}

static inline int box_teardown(void **state)
{
	(void)state;
	if (box.spool != NULL)
		spool_destroy(&box.spool);
	if (box.folder != NULL)
		spool_folder_destroy(&box.folder);
	loop_destroy(&box.loop);
	folder_remove(AT_FDCWD, box.path);
	free(box.mails);
	return 0;
}

/* Mail. */

static void mail_go_on(struct mail *mail);

static void mail_on_room(struct spool_writer *writer)
{
	mail_go_on(OWNER_OF(writer, struct mail, writer));
}

static void mail_on_committed(struct spool_writer *writer, int result)
{
	struct mail *mail = OWNER_OF(writer, struct mail, writer);

	mail->calls++;
	mail->result = result;
	mail->state = result == 0 ? MAIL_THERE : MAIL_REFUSED;
}

static void mail_on_broken(struct spool_writer *writer, int error)
{
	struct mail *mail = OWNER_OF(writer, struct mail, writer);

	mail->result = error;
	mail->state = MAIL_REFUSED;
	spool_abandon(writer);
}

static const struct spool_writer_events mail_writer_events = {
	.on_room = mail_on_room,
	.on_committed = mail_on_committed,
	.on_broken = mail_on_broken,
};

static void mail_commit(struct mail *mail)
{
	static uint8_t envelope[ENVELOPE_BYTES_MAX];
	const size_t len = mail_envelope(mail, envelope, sizeof(envelope));

	mail->state = MAIL_COMMITTING;
	spool_commit(&mail->writer, span_make(envelope, len), mail->durability, &mail->spool);
	memset(envelope, 0xee, len); /* it was copied */
}

/* Writes as much as there is room for, in pieces as a session would. */
static void mail_go_on(struct mail *mail)
{
	static uint8_t text[65536];

	while (mail->state == MAIL_WRITING && mail->written < mail->bytes) {
		uint64_t room = spool_room(&mail->writer);
		uint64_t left = mail->bytes - mail->written;

		if (room == 0)
			return;
		assert_true(room >= 2048);
		left = left < room ? left : room;
		left = left < sizeof(text) ? left : sizeof(text);
		for (uint64_t i = 0; i < left; i++)
			text[i] = text_byte(mail->id, mail->written + i);
		spool_write(&mail->writer, span_make(text, left));
		mail->written += left;
	}
	if (mail->state == MAIL_WRITING)
		mail_commit(mail);
}

static inline struct mail *mail_new(uint64_t bytes, unsigned rcpts)
{
	struct mail *mail = &box.mails[box.count++];

	assert_true(box.count <= MAILS_MAX);
	*mail = (struct mail){.id = spool_next_id(box.spool), .bytes = bytes, .rcpts = rcpts};
	spool_writer_init(&mail->writer, box.spool, &mail_writer_events);
	return mail;
}

static inline void mail_start(struct mail *mail)
{
	int rc = spool_begin(&mail->writer, mail->id);

	if (rc == 0) {
		mail->state = MAIL_WRITING;
		mail_go_on(mail);
	} else {
		mail->state = MAIL_REFUSED;
		mail->result = rc;
	}
}

static inline bool mail_is_settled(const struct mail *mail)
{
	return mail->state != MAIL_WRITING && mail->state != MAIL_COMMITTING;
}

/* One mail, to its end. */
static inline struct mail *mail_send(uint64_t bytes)
{
	struct mail *mail = mail_new(bytes, 1);

	mail_start(mail);
	BOX_AWAIT(mail_is_settled(mail));
	return mail;
}

static void mail_on_envelope(struct spool_reader *reader, const struct envelope *envelope)
{
	struct mail *mail = OWNER_OF(reader, struct mail, reader);
	struct envelope_rcpt rcpt;
	size_t at = 0;
	unsigned count = 0;

	assert_int_equal(envelope->body_bytes, mail->bytes);
	assert_int_equal(envelope->rcpt_count, mail->rcpts);
	while (envelope_next(envelope, &at, &rcpt))
		count++;
	assert_int_equal(count, mail->rcpts);
	spool_read_more(reader);
}

static void mail_on_text(struct spool_reader *reader, struct span text, bool is_last)
{
	struct mail *mail = OWNER_OF(reader, struct mail, reader);

	for (size_t i = 0; i < text.len; i++)
		if (text.data[i] != text_byte(mail->id, mail->read + i))
			fail_msg("byte %llu of mail %llu is wrong",
				(unsigned long long)(mail->read + i), (unsigned long long)mail->id);
	mail->read += text.len;
	if (is_last) {
		assert_int_equal(mail->read, mail->bytes);
		mail->is_read = true;
		mail->is_reading = false;
		spool_read_end(reader);
	} else {
		spool_read_more(reader);
	}
}

static void mail_on_failed(struct spool_reader *reader, int error)
{
	struct mail *mail = OWNER_OF(reader, struct mail, reader);

	mail->read_error = error;
	mail->is_reading = false;
}

static const struct spool_reader_events mail_reader_events = {
	.on_envelope = mail_on_envelope,
	.on_text = mail_on_text,
	.on_failed = mail_on_failed,
};

static inline void mail_read_start(struct mail *mail)
{
	mail->read = 0;
	mail->read_error = 0;
	mail->is_read = false;
	mail->is_reading = true;
	spool_reader_init(&mail->reader, box.spool, &mail_reader_events);
	spool_read(&mail->reader, &mail->spool);
}

/* Reads it to its end, and checks each byte. */
static inline void mail_check(struct mail *mail)
{
	mail_read_start(mail);
	BOX_AWAIT(!mail->is_reading);
	assert_int_equal(mail->read_error, 0);
	assert_true(mail->is_read);
}

static void mail_on_ticket(struct spool_ticket *ticket, int result)
{
	struct mail *mail = OWNER_OF(ticket, struct mail, ticket);

	mail->is_told = true;
	mail->told = result;
}

/* A change that sets attempts. */
static inline void mail_change(struct mail *mail, unsigned attempts)
{
	const struct envelope_change change = {
		.attempts = attempts, .where = span_of("mx"), .text = span_of("later")};
	uint8_t payload[200];
	const size_t len = envelope_write_change(&change, payload, sizeof(payload));

	assert_true(len > 0);
	mail->attempts = attempts;
	mail->is_told = false;
	mail->ticket.on_done = mail_on_ticket;
	spool_change(box.spool, &mail->spool, span_make(payload, len), &mail->ticket);
}

static inline void mail_done(struct mail *mail)
{
	mail->is_told = false;
	mail->ticket.on_done = mail_on_ticket;
	spool_done(box.spool, &mail->spool, RECORD_DONE_DELIVERED, &mail->ticket);
	mail->state = MAIL_GONE;
}

/* So many writes that each batch is filled anew: what was there before is on disk only. */
static inline void box_leave_memory(void)
{
	for (unsigned i = 0; i < SPOOL_BATCHES + 1; i++) {
		struct mail *mail = mail_send(100);

		assert_int_equal(mail->state, MAIL_THERE);
		mail_done(mail);
	}
}

static inline unsigned mails_there(void)
{
	unsigned there = 0;

	for (unsigned i = 0; i < box.count; i++)
		there += box.mails[i].state == MAIL_THERE;
	return there;
}

static inline bool mails_are_settled(void)
{
	for (unsigned i = 0; i < box.count; i++)
		if (!mail_is_settled(&box.mails[i]))
			return false;
	return true;
}

static inline struct spool_facts facts_now(void)
{
	struct spool_facts facts;

	spool_facts(box.spool, &facts);
	return facts;
}

#define SPOOL_TEST(name) cmocka_unit_test_setup_teardown(name, box_setup, box_teardown)
