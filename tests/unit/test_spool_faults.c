/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/spool_fixture.h"

#include "relay/base/stats.h"
#include "tests/unit/disk_fixture.h"

/*
 * A disk that fails: whoever waits is told, others go on, and what was acknowledged is there after
 * a restart.
 */

static void begin(void)
{
	disk_begin(1);
	box.options.segment_bytes = MIB;
	box.options.bytes_max = 64 * MIB;
	box.options.disk = &disk_model;
	box_open();
}

static void fault(enum disk_call call, unsigned skip, unsigned times, ssize_t result)
{
	(void)pthread_mutex_lock(&disk.mutex);
	disk.faults[call] = (struct disk_fault){skip, times, result};
	(void)pthread_mutex_unlock(&disk.mutex);
}

static void end(void)
{
	box_close();
	disk_end();
}

/* After a restart all that was acknowledged is there, and nothing else. */
static void check_restart(void)
{
	uint64_t ids[64];
	unsigned count = 0;

	for (unsigned i = 0; i < box.count; i++)
		if (box.mails[i].state == MAIL_THERE)
			ids[count++] = box.mails[i].id;
	box_restart();
	assert_int_equal(mails_there(), count);
	for (unsigned i = 0; i < count; i++) {
		struct mail *mail = mail_find(ids[i]);

		if (mail == NULL)
			fail_msg("%llx is lost", (unsigned long long)ids[i]);
		else
			mail_check(mail);
	}
}

/* A failing write: its messages are refused, a change of another is written again. */
static void test_write_fails(void **state)
{
	static const int errors[] = {-EIO, -ENOSPC, -EROFS};

	(void)state;
	begin();
	for (unsigned i = 0; i < COUNT_OF(errors); i++) {
		struct mail *old = mail_send(3000);
		const uint64_t before = stats_mine->spool_errors;
		struct mail *mail;

		assert_int_equal(old->state, MAIL_THERE);
		fault(DISK_WRITE_AT, 0, 1, errors[i]);
		mail_change(old, 7 + i);
		mail = mail_send(2000);
		assert_int_equal(mail->state, MAIL_REFUSED);
		assert_int_equal(mail->result, errors[i]);
		assert_int_equal(mail->calls, 1);
		BOX_AWAIT(old->is_told);
		assert_int_equal(old->told, 0);
		assert_int_equal(stats_mine->spool_errors, before + 1);
		mail_check(old);
		assert_int_equal(spool_level(box.spool), SPOOL_NORMAL);
		assert_int_equal(mail_send(100)->state, MAIL_THERE);
	}
	assert_true(facts_now().segments_failed > 0);
	check_restart();
	for (unsigned i = 0; i < COUNT_OF(errors); i++)
		assert_int_equal(box.mails[(size_t)2 * i].attempts, 7 + i);
	end();
}

/* It may all be on disk, though the kernel said no: it does not come back. */
static void test_write_fails_but_is_there(void **state)
{
	struct mail *mail;

	(void)state;
	begin();
	assert_int_equal(mail_send(100)->state, MAIL_THERE);
	disk.writes_then_fails = 1;
	mail = mail_send(1000);
	assert_int_equal(mail->state, MAIL_REFUSED);
	BOX_AWAIT(spool_is_idle(box.spool));
	check_restart();
	end();
}

/* Short writes are gone on with, however short; one that never goes on fails. */
static void test_short_writes(void **state)
{
	(void)state;
	begin();
	fault(DISK_WRITE_AT, 0, 1, 512);
	assert_int_equal(mail_send(20000)->state, MAIL_THERE);
	fault(DISK_WRITE_AT, 0, 3, 8192);
	assert_int_equal(mail_send(60000)->state, MAIL_THERE);
	fault(DISK_WRITE_AT, 0, 2, -EINTR);
	assert_int_equal(mail_send(100)->state, MAIL_THERE);
	fault(DISK_WRITE_AT, 0, 1000, 0);
	assert_int_equal(mail_send(100)->result, -EIO);
	fault(DISK_WRITE_AT, 0, 0, 0);
	check_restart();
	end();
}

/* Without RWF_DSYNC each durable batch has a flush of its own, and a failing one is final. */
static void test_flush_apart(void **state)
{
	struct mail *mail;

	(void)state;
	begin();
	disk.has_no_dsync = true;
	assert_int_equal(mail_send(100)->state, MAIL_THERE);
	assert_int_equal(disk.calls[DISK_SYNC], 1);
	assert_int_equal(mail_send(100)->state, MAIL_THERE);
	assert_int_equal(disk.calls[DISK_SYNC], 2);
	fault(DISK_SYNC, 0, 1, -EIO);
	mail = mail_send(100);
	assert_int_equal(mail->state, MAIL_REFUSED);
	assert_int_equal(mail->result, -EIO);
	assert_int_equal(mail_send(100)->state, MAIL_THERE);
	check_restart();
	end();
}

/* A body in pieces: a writer whose piece was lost is told; others do not notice. */
static void test_body_breaks(void **state)
{
	struct mail *large, *small;
	uint64_t id;

	(void)state;
	begin();
	small = mail_send(100);
	id = small->id;
	large = mail_new(12 * MIB, 1);
	disk.is_held = true;
	mail_start(large); /* fills all buffers that there are */
	assert_int_equal(large->state, MAIL_WRITING);
	box_turn_now();
	fault(DISK_WRITE_AT, 0, 1, -EIO);
	mail_change(small, 3);
	disk_release();
	BOX_AWAIT(mail_is_settled(large));
	assert_int_equal(large->state, MAIL_REFUSED);
	assert_int_equal(large->result, -EIO);
	BOX_AWAIT(small->is_told);
	assert_int_equal(small->told, 0);
	assert_int_equal(mail_send(2 * MIB)->state, MAIL_THERE);
	check_restart();
	small = mail_find(id);
	assert_true(small != NULL && small->attempts == 3);
	end();
}

/* Three in a row: refused at the door, told by the level, and well again after a while. */
static void test_fails_and_recovers(void **state)
{
	struct mail *old, *mail;

	(void)state;
	begin();
	old = mail_send(100);
	fault(DISK_WRITE_AT, 0, 1000, -EIO);
	mail_change(old, 5);
	BOX_AWAIT(spool_level(box.spool) == SPOOL_FAILED);
	assert_true(box.levels > 0);
	assert_false(old->is_told);
	mail = mail_new(100, 1);
	mail_start(mail);
	assert_int_equal(mail->result, -EIO);
	mail_check(old);
	fault(DISK_WRITE_AT, 0, 0, 0);
	box.spool->retry_ms = 0; /* 10 s later */
	BOX_AWAIT(spool_level(box.spool) == SPOOL_NORMAL);
	BOX_AWAIT(old->is_told);
	assert_int_equal(old->told, 0);
	assert_int_equal(mail_send(100)->state, MAIL_THERE);
	check_restart();
	assert_int_equal(box.mails[0].attempts, 5);
	end();
}

/* A spool that has failed can be closed: tickets are told that nobody knows. */
static void test_closes_when_failed(void **state)
{
	struct mail *old;

	(void)state;
	begin();
	old = mail_send(100);
	fault(DISK_WRITE_AT, 0, 1000, -EIO);
	mail_done(old);
	BOX_AWAIT(spool_level(box.spool) == SPOOL_FAILED);
	box_close();
	assert_true(old->is_told);
	assert_int_equal(old->told, -EIO);
	fault(DISK_WRITE_AT, 0, 0, 0);
	box_open();
	assert_int_equal(mails_there(), 1);
	end();
}

/* Segments cannot be made: what is there is used up, then messages are refused, changes are not. */
static void test_no_space(void **state)
{
	static const enum disk_call calls[] = {
		DISK_OPEN, DISK_ALLOCATE, DISK_WRITE, DISK_FLUSH, DISK_RENAME};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(calls); i++) {
		struct mail *old, *mail;

		box.options.path = box.path;
		begin();
		BOX_AWAIT(facts_now().segments_free == 2);
		old = mail_send(100);
		BOX_AWAIT(facts_now().segments_free == 2);
		fault(calls[i], 0, 1000000, -ENOSPC);
		for (unsigned n = 0;; n++) {
			mail = mail_send(300000);
			if (mail->state != MAIL_THERE)
				break;
			assert_true(n < 10);
		}
		assert_int_equal(mail->result, -ENOSPC);
		assert_int_equal(facts_now().segments_free, 1);
		mail_change(old, 9);
		BOX_AWAIT(old->is_told);
		assert_int_equal(old->told, 0);
		fault(calls[i], 0, 0, 0);
		check_restart();
		assert_int_equal(box.mails[0].attempts, 9);
		for (unsigned n = 0; n < box.count; n++)
			mail_done(&box.mails[n]);
		BOX_AWAIT(spool_is_idle(box.spool));
		end();
		folder_remove(AT_FDCWD, box.path);
		assert_int_equal(mkdir(box.path, 0700), 0);
	}
}

/* A read that fails is the reader's own trouble. */
static void test_read_fails(void **state)
{
	struct mail *mail;

	(void)state;
	begin();
	mail = mail_send(200000);
	box_leave_memory();
	fault(DISK_READ_AT, 0, 1, -EIO);
	mail_read_start(mail);
	BOX_AWAIT(!mail->is_reading);
	assert_int_equal(mail->read_error, -EIO);
	fault(DISK_READ_AT, 1, 1, -EIO);
	mail_read_start(mail);
	BOX_AWAIT(!mail->is_reading);
	assert_int_equal(mail->read_error, -EIO);
	fault(DISK_READ_AT, 0, 2, 4096);
	mail_check(mail);
	fault(DISK_READ_AT, 0, 1, -EAGAIN);
	mail_check(mail);
	fault(DISK_READ_AT, 0, 1, 0);
	mail_read_start(mail);
	BOX_AWAIT(!mail->is_reading);
	assert_int_equal(mail->read_error, -EBADMSG);
	end();
}

/* A segment that cannot be scrubbed stays in front of those behind it. */
static void test_scrub_fails(void **state)
{
	struct mail *mail;

	(void)state;
	begin();
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(mail_send(400000)->state, MAIL_THERE);
	fault(DISK_FLUSH, 0, 1000000, -EIO);
	fault(DISK_REMOVE, 0, 1000000, -EIO);
	for (unsigned i = 0; i < 8; i++)
		mail_done(&box.mails[i]);
	BOX_AWAIT(box.mails[7].is_told);
	box_turn_now();
	mail = mail_send(100);
	assert_int_equal(mail->state, MAIL_THERE);
	fault(DISK_FLUSH, 0, 0, 0);
	fault(DISK_REMOVE, 0, 0, 0);
	check_restart();
	end();
}

/* A slow disk: others gather meanwhile, and go out together. */
static void test_slow_flush(void **state)
{
	struct spool_facts before;

	(void)state;
	begin();
	(void)mail_send(100);
	before = facts_now();
	disk.is_held = true;
	mail_start(mail_new(100, 1));
	box_turn_now();
	for (unsigned i = 0; i < 20; i++) {
		mail_start(mail_new(100, 1));
		box_turn_now();
	}
	for (unsigned i = 1; i < box.count; i++)
		assert_int_equal(box.mails[i].state, MAIL_COMMITTING);
	disk_release();
	BOX_AWAIT(mails_are_settled());
	assert_int_equal(mails_there(), 22);
	assert_int_equal(facts_now().writes - before.writes, 2);
	check_restart();
	end();
}

/* All buffers are full: no room, and room again. */
static void test_no_room(void **state)
{
	struct mail *mails[6];

	(void)state;
	begin();
	disk.is_held = true;
	for (unsigned i = 0; i < COUNT_OF(mails); i++) {
		mails[i] = mail_new(2 * MIB, 1);
		mail_start(mails[i]);
		box_turn_now();
	}
	assert_int_equal(mails[5]->state, MAIL_WRITING);
	assert_int_equal(spool_room(&mails[5]->writer), 0);
	spool_abandon(&mails[5]->writer);
	mails[5]->state = MAIL_REFUSED;
	mail_start(mail_new(50, 1)); /* complete at once, and it waits, too */
	disk_release();
	BOX_AWAIT(mails_are_settled());
	assert_int_equal(mails_there(), 6);
	check_restart();
	end();
}

static int setup(void **state)
{
	if (access("/dev/shm", W_OK) == 0)
		box_place = "/dev/shm";
	return box_setup(state);
}

#define FAULT_TEST(name) cmocka_unit_test_setup_teardown(name, setup, box_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		FAULT_TEST(test_write_fails),
		FAULT_TEST(test_write_fails_but_is_there),
		FAULT_TEST(test_short_writes),
		FAULT_TEST(test_flush_apart),
		FAULT_TEST(test_body_breaks),
		FAULT_TEST(test_fails_and_recovers),
		FAULT_TEST(test_closes_when_failed),
		FAULT_TEST(test_no_space),
		FAULT_TEST(test_read_fails),
		FAULT_TEST(test_scrub_fails),
		FAULT_TEST(test_slow_flush),
		FAULT_TEST(test_no_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
