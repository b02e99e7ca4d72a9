/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/spool_fixture.h"

#include "relay/base/clock.h"
#include "relay/base/stats.h"
#include <limits.h>
#include <pthread.h>
#include <sys/file.h>

static void small_segments(uint64_t bytes_max)
{
	box.options.segment_bytes = MIB;
	box.options.bytes_max = bytes_max;
}

static void note(uint64_t key, const char *text)
{
	spool_note(box.spool, key, span_of(text), NULL);
}

static const char *note_text(uint64_t key)
{
	const char *text = NULL;

	for (unsigned i = 0; i < box.notes; i++)
		if (box.note_keys[i] == key) {
			assert_null(text); /* each one is told once */
			text = box.note_texts[i];
		}
	return text;
}

/* States and ends outlive a restart; what is done is forgotten. */
static void test_states(void **state)
{
	(void)state;
	box_open();
	for (unsigned i = 0; i < 10; i++)
		(void)mail_send((uint64_t)1000 * i);
	for (unsigned i = 0; i < 10; i++)
		mail_change(&box.mails[i], i + 1);
	BOX_AWAIT(spool_is_idle(box.spool));
	for (unsigned i = 0; i < 10; i += 2)
		mail_done(&box.mails[i]);
	BOX_AWAIT(box.mails[8].is_told);
	assert_int_equal(facts_now().messages, 5);
	for (unsigned restart = 0; restart < 3; restart++) {
		box_restart();
		assert_int_equal(mails_there(), 5);
		assert_int_equal(facts_now().messages, 5);
		for (unsigned i = 0; i < box.count; i++) {
			struct mail *mail = &box.mails[i];

			if (mail->state != MAIL_THERE)
				continue;
			assert_int_equal(mail->attempts, mail->bytes / 1000 + 1);
			mail_check(mail);
		}
	}
	box_close();
}

/* What was begun and not committed leaves nothing. */
static void test_abandoned(void **state)
{
	struct mail *small, *large, *empty;

	(void)state;
	box_open();
	BOX_AWAIT(facts_now().segments_free == 2);
	empty = mail_new(0, 1);
	assert_int_equal(spool_begin(&empty->writer, empty->id), 0);
	spool_abandon(&empty->writer);
	spool_abandon(&empty->writer); /* harmless */
	small = mail_new(100, 1);
	assert_int_equal(spool_begin(&small->writer, small->id), 0);
	assert_true(spool_room(&small->writer) >= 100);
	spool_write(&small->writer, span_of("Subject: never\r\n"));
	spool_abandon(&small->writer);
	large = mail_new(2 * MIB, 1);
	assert_int_equal(spool_begin(&large->writer, large->id), 0);
	for (unsigned i = 0; i < 400; i++) {
		static const uint8_t text[2048];

		if (spool_room(&large->writer) > 0)
			spool_write(&large->writer, span_make(text, sizeof(text)));
		box_turn_now();
	}
	assert_true(large->writer.extent_count > 0);
	spool_abandon(&large->writer);
	(void)mail_send(10);
	box_restart();
	assert_int_equal(box.count, 1);
	mail_check(&box.mails[0]);
	box_close();
}

/* Mail comes and goes; returns the highest id. */
static uint64_t pass_through(unsigned count, uint64_t last)
{
	for (unsigned i = 0; i < count; i++) {
		struct mail *mail = mail_send(200000);

		assert_int_equal(mail->state, MAIL_THERE);
		assert_true(mail->id > last);
		last = mail->id;
		mail_check(mail);
		mail_done(mail);
	}
	BOX_AWAIT(spool_is_idle(box.spool));
	return last;
}

/* Segments are used again, and ids never: mail passes through many times the size of the spool. */
static void test_reuse(void **state)
{
	uint64_t last = 0;

	(void)state;
	small_segments(8 * MIB);
	box_open();
	for (unsigned i = 0; i < 4; i++) {
		last = pass_through(40, last);
		box_restart();
		assert_int_equal(mails_there(), 0);
	}
	last = pass_through(10, last);
	BOX_AWAIT(spool_is_idle(box.spool));
	assert_true(facts_now().segments_used <= 2);
	box_restart();
	assert_int_equal(mails_there(), 0);
	assert_true(spool_next_id(box.spool) > last);
	box_close();
}

/* One that stays is moved, with what is known of it, again and again. */
static void test_moved(void **state)
{
	const uint64_t moved = stats_mine->spool_moved;
	struct mail *small, *large;

	(void)state;
	small_segments(8 * MIB);
	box_open();
	small = mail_send(5000);
	large = mail_send(300000);
	mail_change(small, 4);
	mail_change(large, 6);
	for (unsigned i = 0; i < 100; i++) {
		struct mail *mail = mail_send(150000);

		assert_int_equal(mail->state, MAIL_THERE);
		mail_done(mail);
	}
	assert_true(stats_mine->spool_moved >= moved + 4);
	assert_true(box.moves >= 4);
	assert_int_equal(facts_now().messages, 2);
	mail_check(small);
	mail_check(large);
	box_restart();
	assert_int_equal(mails_there(), 2);
	for (unsigned i = 0; i < box.count; i++) {
		if (box.mails[i].state != MAIL_THERE)
			continue;
		assert_int_equal(box.mails[i].attempts, box.mails[i].bytes == 5000 ? 4 : 6);
		mail_check(&box.mails[i]);
	}
	box_close();
}

/* A reader that holds the old place reads on while its message is moved. */
static void test_moved_while_read(void **state)
{
	const uint64_t moved = stats_mine->spool_moved;
	struct mail *mail;

	(void)state;
	small_segments(8 * MIB);
	box_open();
	mail = mail_send(450000);
	for (unsigned i = 0; i < 12; i++)
		mail_done(mail_send(400000));
	box_leave_memory();
	mail_read_start(mail);
	for (unsigned i = 0; i < 10; i++)
		mail_done(mail_send(400000));
	BOX_AWAIT(!mail->is_reading);
	assert_true(mail->is_read);
	assert_true(stats_mine->spool_moved > moved);
	mail_check(mail);
	box_close();
}

/* One that is done while it is being moved does not come back. */
static void test_done_while_moved(void **state)
{
	(void)state;
	small_segments(8 * MIB);
	for (unsigned turns = 0; turns < 12; turns++) {
		struct mail *mail;

		box_open();
		mail = mail_send(300000);
		for (unsigned i = 0; i < 12; i++)
			mail_done(mail_send(400000));
		for (unsigned i = 0; i < turns; i++)
			box_turn_now();
		mail_done(mail);
		BOX_AWAIT(spool_is_idle(box.spool) && spool_move_is_idle(box.spool));
		box_restart();
		assert_int_equal(mails_there(), 0);
		box_close();
	}
}

/* Notes: the last one counts, an empty one ends it, and all outlive their segments. */
static void test_notes(void **state)
{
	(void)state;
	small_segments(8 * MIB);
	box_open();
	note(1, "one");
	note(2, "two");
	note(3, "three");
	note(1, "uno");
	note(2, "");
	note(99, ""); /* there never was one */
	BOX_AWAIT(spool_is_idle(box.spool));
	box_restart();
	assert_int_equal(box.notes, 2);
	assert_string_equal(note_text(1), "uno");
	assert_string_equal(note_text(3), "three");
	for (unsigned i = 0; i < 60; i++)
		mail_done(mail_send(300000));
	BOX_AWAIT(spool_is_idle(box.spool));
	assert_true(facts_now().segments_used <= 3);
	box_restart();
	assert_int_equal(box.notes, 2);
	assert_string_equal(note_text(1), "uno");
	note(1, "");
	note(3, "");
	BOX_AWAIT(spool_is_idle(box.spool));
	box_restart();
	assert_int_equal(box.notes, 0);
	box_close();
}

/* Levels follow what is used, with their four thresholds. */
static void test_levels(void **state)
{
	unsigned there;

	(void)state;
	small_segments(20 * MIB);
	box.options.pressure_medium = 50;
	box.options.pressure_high = 75;
	box.options.pressure_high_end = 60;
	box.options.pressure_medium_end = 25;
	box_open();
	assert_int_equal(spool_level(box.spool), SPOOL_NORMAL);
	while (spool_level(box.spool) == SPOOL_NORMAL)
		assert_int_equal(mail_send(900000)->state, MAIL_THERE);
	assert_int_equal(spool_level(box.spool), SPOOL_MEDIUM);
	assert_in_range(facts_now().segments_used, 10, 11);
	while (spool_level(box.spool) == SPOOL_MEDIUM)
		assert_int_equal(mail_send(900000)->state, MAIL_THERE);
	assert_int_equal(spool_level(box.spool), SPOOL_HIGH);
	assert_in_range(facts_now().segments_used, 15, 16);
	assert_int_equal(box.levels, 2);
	there = box.count;
	for (unsigned i = 0; i < there && spool_level(box.spool) == SPOOL_HIGH; i++) {
		mail_done(&box.mails[i]);
		BOX_AWAIT(box.mails[i].is_told);
		box_turn_now();
		box_turn_now();
	}
	assert_int_equal(spool_level(box.spool), SPOOL_MEDIUM);
	assert_true(facts_now().segments_used < 12);
	for (unsigned i = 0; i < there; i++)
		if (box.mails[i].state == MAIL_THERE)
			mail_done(&box.mails[i]);
	BOX_AWAIT(spool_level(box.spool) == SPOOL_NORMAL);
	box_close();
}

/* A start with other numbers of workers finds the logs of those before. */
static void test_workers(void **state)
{
	(void)state;
	box.options.logs = 3;
	box_open_folder();
	assert_int_equal(spool_folder_logs(box.folder), 3);
	for (unsigned log = 0; log < 3; log++) {
		box.count = 0;
		assert_int_equal(box_try_open_log(log), 0);
		for (unsigned i = 0; i <= log; i++)
			(void)mail_send(1000 + i);
		spool_drain(box.spool);
		BOX_AWAIT(spool_is_closed(box.spool));
		spool_destroy(&box.spool);
	}
	spool_folder_destroy(&box.folder);
	box.options.logs = 1;
	box_open_folder();
	assert_int_equal(spool_folder_logs(box.folder), 3);
	for (unsigned log = 0; log < 3; log++) {
		box.count = 0;
		assert_int_equal(box_try_open_log(log), 0);
		assert_int_equal(mails_there(), log + 1);
		for (unsigned i = 0; i <= log; i++) {
			mail_check(&box.mails[i]);
			mail_done(&box.mails[i]);
		}
		spool_drain(box.spool);
		BOX_AWAIT(spool_is_closed(box.spool));
		spool_destroy(&box.spool);
	}
	spool_folder_destroy(&box.folder);
	box_open();
	assert_int_equal(mails_there(), 0);
	box_close();
}

/* Two cannot have the folder at a time; mistakes are told. */
static void test_folder(void **state)
{
	struct spool_folder_options options;
	struct spool_folder *other = NULL;
	FILE *errors = tmpfile();

	(void)state;
	assert_non_null(errors);
	box_open();
	assert_int_equal(spool_folder_create(&box.options, errors, &other), -EWOULDBLOCK);
	assert_null(other);
	box_close();
	options = box.options;
	options.segment_bytes = MIB - 4096;
	assert_int_equal(spool_folder_create(&options, errors, &other), -EINVAL);
	options.segment_bytes = MIB + 1;
	assert_int_equal(spool_folder_create(&options, errors, &other), -EINVAL);
	options = box.options;
	options.logs = 0;
	assert_int_equal(spool_folder_create(&options, errors, &other), -EINVAL);
	options = box.options;
	options.path = "/proc/no/such";
	assert_true(spool_folder_create(&options, errors, &other) < 0);
	assert_true(ftell(errors) > 0);
	(void)fclose(errors);
}

static void *unlock_later(void *fd)
{
	const struct timespec pause = {.tv_nsec = 100000000};

	(void)nanosleep(&pause, NULL);
	(void)close(*(int *)fd);
	return NULL;
}

/*
 * A write of a relay that was killed may still be on its way to a segment: the lock on the file,
 * which goes with the last of its users, is waited for.
 */
static void test_segment_in_use(void **state)
{
	char path[PATH_MAX];
	pthread_t thread;
	int fd;

	(void)state;
	box_open();
	mail_check(mail_send(100));
	(void)snprintf(path, sizeof(path), "%s/00/000000.seg", box.path);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), -1);
	assert_int_equal(errno, EWOULDBLOCK);
	box_close();
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
	assert_int_equal(pthread_create(&thread, NULL, unlock_later, &fd), 0);
	box_open();
	/* It was not opened before the other had let go. */
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(mails_there(), 1);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), -1);
	(void)close(fd);
	box_close();
}

/* The room that the owner has for messages is too small. */
static struct spool_message *no_room(
	void *owner, uint64_t id, const struct envelope *envelope, struct spool_message *known)
{
	(void)owner;
	(void)id;
	(void)envelope;
	(void)known;
	return NULL;
}

static void test_owner_without_room(void **state)
{
	const struct spool_replay replay = {.on_message = no_room};
	struct spool_options options;

	(void)state;
	box_open();
	(void)mail_send(10);
	box_close();
	box_open_folder();
	options = (struct spool_options){
		.loop = box.loop, .folder = box.folder, .events = &box_events, .owner = &box};
	assert_int_equal(spool_create(&options, &replay, &box, &box.spool), -ENOBUFS);
	assert_null(box.spool);
	spool_folder_destroy(&box.folder);
	box_open();
	assert_int_equal(mails_there(), 1);
	box_close();
}

static void flip(const char *path, uint64_t at)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	uint8_t byte;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
	byte ^= 0x10;
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
	(void)close(fd);
}

/* A bit flips in a record of each type: it is told, and what does not depend on it is there. */
static void test_flipped_bits(void **state)
{
	struct {
		const char *word;
		enum record_type type;
	} const rows[] = {
		{"a segment's head", RECORD_SEGMENT},
		{"a body", RECORD_BODY},
		{"a message", RECORD_MESSAGE},
		{"a change", RECORD_RECIPIENTS},
		{"an end", RECORD_DONE},
		{"a note", RECORD_NOTE},
	};
	char path[128];

	(void)state;
	small_segments(16 * MIB);
	for (unsigned row = 0; row < COUNT_OF(rows); row++) {
		struct record_head head;
		struct span payload;
		uint8_t *file = malloc(MIB);
		uint64_t at = 0, found = UINT64_MAX;
		const uint64_t corrupt = stats_mine->spool_corrupt;
		int fd;

		assert_non_null(file);
		box_open();
		mail_done(mail_send(10));
		mail_change(mail_send(300000), 2);
		note(5, "five");
		BOX_AWAIT(spool_is_idle(box.spool));
		(void)mail_send(20); /* behind all of them, so that they were safe */
		(void)snprintf(path, sizeof(path), "%s/00/%06u.seg", box.path,
			spool_segment_find(box.spool, 1)->name);
		box_close();
		fd = open(path, O_RDONLY | O_CLOEXEC);
		assert_int_equal(read(fd, file, MIB), MIB);
		(void)close(fd);
		for (; at < MIB; at += RECORD_ALIGN)
			if (record_read(span_make(file + at, MIB - at), 1, &head, &payload) ==
					RECORD_GOOD &&
				head.type == rows[row].type && found == UINT64_MAX)
				found = at;
		free(file);
		assert_true(found != UINT64_MAX);
		flip(path, found + RECORD_HEADER_BYTES);
		box_open();
		assert_true(stats_mine->spool_corrupt > corrupt);
		/* The last one is there in any case. */
		assert_int_equal(box.mails[box.count - 1].bytes, 20);
		mail_check(&box.mails[box.count - 1]);
		box_close();
		folder_remove(AT_FDCWD, box.path);
		assert_int_equal(mkdir(box.path, 0700), 0);
	}
}

/* A bit that flips while the relay runs is found by the reader. */
static void test_flipped_under_a_reader(void **state)
{
	struct mail *mail;
	char path[128];

	(void)state;
	small_segments(16 * MIB);
	box_open();
	mail = mail_send(30000);
	box_leave_memory();
	(void)snprintf(path, sizeof(path), "%s/00/%06u.seg", box.path,
		spool_segment_find(box.spool, mail->spool.segment)->name);
	flip(path, mail->spool.offset + 20000);
	mail_read_start(mail);
	BOX_AWAIT(!mail->is_reading);
	assert_int_equal(mail->read_error, -EBADMSG);
	box_close();
}

/* Owners of many small messages, that keep no more of each than they must. */
#define MANY 100000

static struct spool_message *many;
static unsigned many_count;

static struct spool_message *many_on_message(
	void *owner, uint64_t id, const struct envelope *envelope, struct spool_message *known)
{
	(void)owner;
	(void)id;
	(void)envelope;
	assert_null(known);
	return many_count <= MANY ? &many[many_count++] : NULL;
}

static void test_many(void **state)
{
	static const struct spool_replay replay = {.on_message = many_on_message};
	struct spool_options options;
	unsigned sent = 0;
	uint64_t begun_ms;

	(void)state;
	box.options.segment_bytes = 16 * MIB;
	box.options.bytes_max = 512 * MIB;
	many = calloc(MANY + 1, sizeof(*many));
	assert_non_null(many);
	box_open();
	(void)mail_send(0);
	spool_pin(box.spool, box.mails[0].spool.segment); /* so that no segment is used again */
	spool_detach_message(box.spool, &box.mails[0].spool);
	while (sent < MANY) {
		for (box.count = 0; box.count < CHUNKS_MAX && sent < MANY; sent++)
			mail_start(mail_new(200, 1));
		BOX_AWAIT(mails_are_settled());
		assert_int_equal(mails_there(), box.count);
		/* They stay in the log, but in no memory of ours. */
		for (unsigned i = 0; i < box.count; i++)
			spool_detach_message(box.spool, &box.mails[i].spool);
	}
	box_close();
	box_open_folder();
	options = (struct spool_options){
		.loop = box.loop, .folder = box.folder, .events = &box_events, .owner = &box};
	begun_ms = clock_now_ms();
	assert_int_equal(spool_create(&options, &replay, &box, &box.spool), 0);
	print_message("[  FIGURE  ] %u messages replayed in %llu ms\n", many_count,
		(unsigned long long)(clock_now_ms() - begun_ms));
	assert_int_equal(many_count, MANY + 1);
	box_close();
	free(many);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SPOOL_TEST(test_states),
		SPOOL_TEST(test_abandoned),
		SPOOL_TEST(test_reuse),
		SPOOL_TEST(test_moved),
		SPOOL_TEST(test_moved_while_read),
		SPOOL_TEST(test_done_while_moved),
		SPOOL_TEST(test_notes),
		SPOOL_TEST(test_levels),
		SPOOL_TEST(test_workers),
		SPOOL_TEST(test_folder),
		SPOOL_TEST(test_segment_in_use),
		SPOOL_TEST(test_owner_without_room),
		SPOOL_TEST(test_flipped_bits),
		SPOOL_TEST(test_flipped_under_a_reader),
		SPOOL_TEST(test_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
