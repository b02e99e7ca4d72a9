/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/disk_fixture.h"
#include "tests/unit/spool_fixture.h"

#include "relay/base/stats.h"

/*
 * The power is cut at any moment, again and again in one folder. Afterwards every message that was
 * acknowledged is there once and whole, none is damaged, and none is there that was never
 * committed, or was done.
 */

#define ROUNDS 1000
#define ROUNDS_WITHOUT_FLUSH 3000 /* at most; mostly one of the first has something wrong */
#define NOTE_KEYS 4

struct expected {
	uint64_t id, bytes;
	enum mail_state state;
	enum durability durability;
	bool is_done_safe;
	unsigned attempts_safe, attempts;
	bool is_found;
};

static struct expected expected[MAILS_MAX];
static unsigned expected_count;
static unsigned note_wanted[NOTE_KEYS], note_safe[NOTE_KEYS];
static struct spool_ticket note_tickets[NOTE_KEYS];
static bool note_waits[NOTE_KEYS];

static void note_told(struct spool_ticket *ticket, int result)
{
	const size_t key = (size_t)(ticket - note_tickets);

	note_waits[key] = false;
	if (result == 0 && !disk.is_dead)
		note_safe[key] = note_wanted[key];
}

static void act_note(void)
{
	const size_t key = disk_random() % NOTE_KEYS;
	char text[32];

	if (note_waits[key])
		return;
	note_waits[key] = true;
	note_wanted[key]++;
	(void)snprintf(text, sizeof(text), "%u", note_wanted[key]);
	note_tickets[key].on_done = note_told;
	spool_note(box.spool, key + 1, span_of(text), &note_tickets[key]);
}

static struct mail *any_mail(void)
{
	return box.count == 0 ? NULL : &box.mails[disk_random() % box.count];
}

static uint64_t any_size(void)
{
	const uint64_t kind = disk_random() % 100;

	if (kind < 70)
		return disk_random() % 5000;
	if (kind < 97)
		return disk_random() % 100000;
	return disk_random() % (MIB + MIB / 2);
}

static void act_change(void)
{
	struct mail *mail = any_mail();

	if (mail == NULL || mail->state != MAIL_THERE || (mail->changes != 0 && !mail->is_told))
		return;
	mail->changes = 1; /* one is under way, until the ticket */
	mail_change(mail, mail->attempts + 1);
}

static void act_done(void)
{
	struct mail *mail = any_mail();

	if (mail != NULL && mail->state == MAIL_THERE && (mail->changes == 0 || mail->is_told))
		mail_done(mail);
}

static void act_send(bool has_relaxed)
{
	struct mail *mail;

	if (mails_there() > 24 || box.count + 1 >= MAILS_MAX)
		return;
	mail = mail_new(any_size(), 1 + (unsigned)(disk_random() % 3));
	if (has_relaxed && (disk_random() & 1))
		mail->durability = DURABILITY_RELAXED;
	mail_start(mail);
}

static void act(bool has_relaxed)
{
	const uint64_t what = disk_random() % 100;

	if (what < 35)
		act_send(has_relaxed);
	else if (what < 45)
		act_change();
	else if (what < 65)
		act_done();
	else if (what < 70)
		act_note();
	else
		box_turn_now();
}

/* What counts is what was said when the power went. */
static void remember(void)
{
	expected_count = box.count;
	for (unsigned i = 0; i < box.count; i++) {
		const struct mail *mail = &box.mails[i];
		const bool is_told = mail->is_told && mail->told == 0;

		expected[i] = (struct expected){
			.id = mail->id,
			.bytes = mail->bytes,
			.state = mail->state,
			.durability = mail->durability,
			.is_done_safe = mail->state == MAIL_GONE && is_told,
			.attempts = mail->attempts,
			.attempts_safe =
				mail->changes == 0 || is_told ? mail->attempts : mail->attempts - 1,
		};
		if (mail->state == MAIL_GONE)
			expected[i].attempts_safe = 0;
	}
}

static void crash(void)
{
	for (unsigned i = 0; i < box.count; i++)
		if (box.mails[i].is_reading)
			spool_read_end(&box.mails[i].reader);
	disk_cut();
	remember();
	for (unsigned i = 0; i < box.count; i++) {
		struct mail *mail = &box.mails[i];

		if (mail->state == MAIL_WRITING) {
			spool_abandon(&mail->writer);
			mail->state = MAIL_REFUSED;
		}
	}
	BOX_AWAIT(mails_are_settled());
	spool_destroy(&box.spool);
	spool_folder_destroy(&box.folder);
	disk_return();
	memset(note_waits, 0, sizeof(note_waits));
}

static struct expected *expected_find(uint64_t id)
{
	for (unsigned i = 0; i < expected_count; i++)
		if (expected[i].id == id)
			return &expected[i];
	return NULL;
}

/* What is wrong with one that is there? */
static unsigned judge_found(const struct mail *mail)
{
	struct expected *it = expected_find(mail->id);

	if (it == NULL)
		return 1;
	it->is_found = true;
	if (it->state == MAIL_WRITING || it->state == MAIL_REFUSED || it->is_done_safe ||
		it->bytes != mail->bytes)
		return 1;
	return mail->attempts < it->attempts_safe || mail->attempts > it->attempts;
}

static unsigned judge_notes(void)
{
	unsigned wrong = 0;

	for (unsigned key = 0; key < NOTE_KEYS; key++) {
		unsigned value = 0;

		for (unsigned i = 0; i < box.notes; i++)
			if (box.note_keys[i] == key + 1)
				value = (unsigned)strtoul(box.note_texts[i], NULL, 10);
		wrong += value < note_safe[key] || value > note_wanted[key];
		note_wanted[key] = note_safe[key] = value;
	}
	return wrong;
}

/* How much is wrong after a restart? */
static unsigned judge(bool is_verbose)
{
	unsigned wrong = judge_notes();

	for (unsigned i = 0; i < box.count; i++) {
		struct mail *mail = &box.mails[i];

		mail->changes = 0;
		if (mail->state != MAIL_THERE)
			continue;
		if (judge_found(mail) > 0) {
			wrong++;
			if (is_verbose)
				print_error(
					"%llx should not be so\n", (unsigned long long)mail->id);
		}
		mail_read_start(mail);
		BOX_AWAIT(!mail->is_reading);
		wrong += mail->read_error != 0;
	}
	for (unsigned i = 0; i < expected_count; i++) {
		if (expected[i].state != MAIL_THERE || expected[i].is_found ||
			expected[i].durability == DURABILITY_RELAXED)
			continue;
		wrong++;
		if (is_verbose)
			print_error("%llx is lost\n", (unsigned long long)expected[i].id);
	}
	return wrong;
}

/* What a replay found to be over needs no place here. */
static void forget_gone(void)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < box.count; i++)
		kept += box.mails[i].state == MAIL_THERE;
	for (unsigned i = 0; i < box.count; i++)
		if (box.mails[i].state == MAIL_GONE)
			box.mails[i].id = 0;
	assert_true(kept < 200);
}

/* Rounds in one folder; how much was wrong in all of them? Without flushes, in the first such. */
static unsigned run(uint64_t seed, unsigned rounds, bool has_relaxed)
{
	const uint64_t corrupt = stats_mine->spool_corrupt;
	unsigned wrong = 0;

	disk_begin(seed);
	disk.drops_dsync = seed == 0;
	box.options.segment_bytes = MIB;
	box.options.bytes_max = 8 * MIB;
	box.options.disk = &disk_model;
	memset(note_wanted, 0, sizeof(note_wanted));
	memset(note_safe, 0, sizeof(note_safe));
	box_open();
	for (unsigned round = 0; round < rounds; round++) {
		const uint64_t steps = disk_random() % 60;
		unsigned now;

		disk.is_slow = disk_random() % 4 == 0;
		for (uint64_t i = 0; i < steps; i++)
			act(has_relaxed);
		crash();
		disk.is_slow = false;
		box_open();
		now = judge(seed != 0);
		if (now > 0 && seed != 0)
			print_error("seed %llu round %u: %u wrong\n", (unsigned long long)seed,
				round, now);
		wrong += now;
		if (seed == 0 && wrong > 0)
			break;
		if (!has_relaxed && seed != 0)
			assert_int_equal(stats_mine->spool_corrupt, corrupt);
		forget_gone();
		timer_set(loop_timers(box.loop), &box.guard, loop_now_ms(box.loop) + 60000);
	}
	box_close();
	disk_end();
	return wrong;
}

static void test_power_cuts(void **state)
{
	(void)state;
	assert_int_equal(run(1, ROUNDS / 2, false), 0);
	assert_true(stats_mine->spool_moved > 0);
}

static void test_power_cuts_with_relaxed(void **state)
{
	(void)state;
	assert_int_equal(run(2, ROUNDS / 2, true), 0);
}

/*
 * The test is worth something: without the flush it finds what is lost, once something was
 * acknowledged before a cut, which on a busy machine is later.
 */
static void test_power_cuts_without_flush(void **state)
{
	(void)state;
	assert_true(run(0, ROUNDS_WITHOUT_FLUSH, false) > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SPOOL_TEST(test_power_cuts),
		SPOOL_TEST(test_power_cuts_with_relaxed),
		SPOOL_TEST(test_power_cuts_without_flush),
	};

	if (access("/dev/shm", W_OK) == 0)
		box_place = "/dev/shm";
	return cmocka_run_group_tests(tests, NULL, NULL);
}
