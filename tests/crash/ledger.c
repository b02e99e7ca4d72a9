/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/ledger.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define LEDGER_LIVES_MAX 65536
#define LEDGER_COMPLAINTS_MAX 20

struct ledger_came {
	uint32_t life;
	uint8_t count;
	bool is_heard;
	uint64_t at_us; /* of the 250, or of the command behind it */
};

struct ledger_entry {
	uint8_t fate;
	struct ledger_came came[LETTER_RCPTS_MAX];
};

static struct {
	pthread_mutex_t lock;
	struct ledger_entry *entries; /* LEDGER_IDS_MAX of them; pages are there when touched */
	uint64_t next_id;
	uint64_t end_id; /* none beyond was ever used */
	unsigned doubt_ms;
	int journal;
	uint32_t life;
	uint64_t killed_us[LEDGER_LIVES_MAX]; /* 0: not killed */
	uint64_t acked, owed, owed_bytes, taken;
	unsigned complaints;
	struct ledger_sum sum;
} ledger = {.lock = PTHREAD_MUTEX_INITIALIZER};

uint64_t ledger_now_us(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

void ledger_open(uint64_t first_id, unsigned doubt_ms)
{
	ledger.entries = mmap(NULL, LEDGER_IDS_MAX * sizeof(struct ledger_entry),
		PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (ledger.entries == MAP_FAILED)
		abort();
	ledger.next_id = ledger.end_id = first_id;
	ledger.doubt_ms = doubt_ms;
	ledger.journal = -1;
}

void ledger_go_on(uint64_t first_id, int journal_fd)
{
	if (first_id > ledger.next_id)
		ledger.next_id = first_id;
	ledger.end_id = ledger.next_id;
	ledger.journal = journal_fd;
}

/* One write for one line: it is in the file whole, or not at all. */
static void ledger_note(char kind, uint64_t id, unsigned more)
{
	char line[64];
	int length;

	if (ledger.journal < 0)
		return;
	length = snprintf(line, sizeof(line), "%c %" PRIu64 " %u %" PRIu64 "\n", kind, id, more,
		ledger_now_us());
	if (write(ledger.journal, line, (size_t)length) != length) {
		(void)fprintf(stderr, "crash: the journal cannot be written\n");
		abort();
	}
}

static void ledger_complain(const char *what, uint64_t id)
{
	ledger.sum.wrong++;
	if (ledger.complaints++ < LEDGER_COMPLAINTS_MAX)
		(void)printf("WRONG %" PRIu64 ": %s\n", id, what);
	(void)fflush(stdout);
}

uint64_t ledger_next_id(void)
{
	uint64_t id;

	(void)pthread_mutex_lock(&ledger.lock);
	id = ledger.next_id++;
	if (id >= LEDGER_IDS_MAX)
		abort();
	ledger.end_id = ledger.next_id;
	(void)pthread_mutex_unlock(&ledger.lock);
	return id;
}

static void ledger_owe(uint64_t id, unsigned rcpts, int sign)
{
	ledger.owed += (uint64_t)(sign * (int64_t)rcpts);
	ledger.owed_bytes += (uint64_t)(sign * (int64_t)(rcpts * letter_body_bytes(id)));
}

static void ledger_set(uint64_t id, enum ledger_fate fate)
{
	struct ledger_entry *entry = &ledger.entries[id];
	unsigned missing = 0;

	for (unsigned i = 0; i < letter_rcpts(id); i++)
		missing += entry->came[i].count == 0;
	if (fate == LEDGER_ACKED) {
		ledger.acked++;
		ledger_owe(id, missing, 1);
	}
	entry->fate = (uint8_t)fate;
}

void ledger_sent(uint64_t id, enum ledger_fate fate)
{
	(void)pthread_mutex_lock(&ledger.lock);
	ledger_note("?bwar"[fate], id, 0);
	ledger_set(id, fate);
	(void)pthread_mutex_unlock(&ledger.lock);
}

/* Was the relay killed before it can have remembered what came there? */
static bool ledger_is_excused(const struct ledger_came *came)
{
	uint64_t killed_us = ledger.killed_us[came->life];
	uint64_t doubt_us = (uint64_t)ledger.doubt_ms * 1000;
	unsigned since_ms;

	if (came->life == ledger.life || killed_us == 0)
		return false;
	if (killed_us <= came->at_us)
		return true;
	since_ms = (unsigned)((killed_us - came->at_us) / 1000);
	/* Without a command behind it the relay may have read the 250 much later. */
	if (killed_us - came->at_us > (came->is_heard ? doubt_us : 4 * doubt_us))
		return false;
	if (since_ms > ledger.sum.longest_ms)
		ledger.sum.longest_ms = since_ms;
	return true;
}

static void ledger_take(uint64_t id, unsigned rcpt, uint64_t now_us)
{
	struct ledger_entry *entry = &ledger.entries[id];
	struct ledger_came *came = &entry->came[rcpt];

	ledger.taken++;
	if (came->count == 0 && entry->fate == LEDGER_ACKED)
		ledger_owe(id, 1, -1);
	if (came->count > 0 && ledger_is_excused(came))
		ledger.sum.twice++;
	else if (came->count > 0)
		ledger_complain(came->life == ledger.life ? "came twice in one life"
							  : "came again, long after it was taken",
			id);
	if (came->count < UINT8_MAX)
		came->count++;
	came->life = ledger.life;
	came->is_heard = false;
	came->at_us = now_us;
}

void ledger_took(uint64_t id, unsigned rcpt)
{
	(void)pthread_mutex_lock(&ledger.lock);
	if (id >= ledger.end_id || rcpt >= letter_rcpts(id)) {
		ledger_complain("was never sent, or not to this recipient", id);
	} else {
		ledger_note('t', id, rcpt);
		ledger_take(id, rcpt, ledger_now_us());
	}
	(void)pthread_mutex_unlock(&ledger.lock);
}

void ledger_heard(uint64_t id, unsigned rcpt)
{
	struct ledger_came *came;

	(void)pthread_mutex_lock(&ledger.lock);
	if (id < ledger.end_id && rcpt < LETTER_RCPTS_MAX) {
		came = &ledger.entries[id].came[rcpt];
		if (!came->is_heard) {
			came->is_heard = true;
			came->at_us = ledger_now_us();
		}
	}
	(void)pthread_mutex_unlock(&ledger.lock);
}

void ledger_bad(const char *what, uint64_t id)
{
	(void)pthread_mutex_lock(&ledger.lock);
	ledger_note('x', id, 0);
	ledger_complain(what, id);
	(void)pthread_mutex_unlock(&ledger.lock);
}

void ledger_kill(void)
{
	(void)pthread_mutex_lock(&ledger.lock);
	ledger.killed_us[ledger.life] = ledger_now_us();
	(void)pthread_mutex_unlock(&ledger.lock);
}

void ledger_life_begins(void)
{
	(void)pthread_mutex_lock(&ledger.lock);
	if (++ledger.life == LEDGER_LIVES_MAX)
		abort();
	(void)pthread_mutex_unlock(&ledger.lock);
}

uint64_t ledger_acked(void)
{
	uint64_t acked;

	(void)pthread_mutex_lock(&ledger.lock);
	acked = ledger.acked;
	(void)pthread_mutex_unlock(&ledger.lock);
	return acked;
}

uint64_t ledger_owed(void)
{
	uint64_t owed;

	(void)pthread_mutex_lock(&ledger.lock);
	owed = ledger.owed;
	(void)pthread_mutex_unlock(&ledger.lock);
	return owed;
}

uint64_t ledger_owed_bytes(void)
{
	uint64_t bytes;

	(void)pthread_mutex_lock(&ledger.lock);
	bytes = ledger.owed_bytes;
	(void)pthread_mutex_unlock(&ledger.lock);
	return bytes;
}

uint64_t ledger_taken(void)
{
	uint64_t taken;

	(void)pthread_mutex_lock(&ledger.lock);
	taken = ledger.taken;
	(void)pthread_mutex_unlock(&ledger.lock);
	return taken;
}

static void ledger_read_line(char kind, uint64_t id, unsigned more, uint64_t at_us)
{
	static const char fates[] = "?bwar";
	const char *fate = strchr(fates, kind);

	if (id >= ledger.end_id)
		ledger.end_id = ledger.next_id = id + 1;
	if (kind == 'x')
		ledger_complain("was not what was sent", id);
	else if (kind == 't' && more < letter_rcpts(id))
		ledger_take(id, more, at_us);
	else if (fate != NULL)
		ledger_set(id, (enum ledger_fate)(fate - fates));
}

/* Its last line was written just before the kill. */
bool ledger_read(const char *journal)
{
	FILE *in = fopen(journal, "re");
	char line[128];
	uint64_t last_us = 0;

	if (in == NULL)
		return false;
	while (fgets(line, sizeof(line), in) != NULL) {
		uint64_t id;
		uint64_t at_us;
		unsigned more;
		char kind;

		/* Of the last line the crash may have left a part. */
		if (strchr(line, '\n') == NULL ||
			sscanf(line, "%c %" SCNu64 " %u %" SCNu64, &kind, &id, &more, &at_us) !=
				4 ||
			id >= LEDGER_IDS_MAX)
			continue;
		ledger_read_line(kind, id, more, at_us);
		last_us = at_us;
	}
	(void)fclose(in);
	ledger.killed_us[ledger.life] = last_us;
	ledger_life_begins();
	return true;
}

static void ledger_judge_one(FILE *out, uint64_t id, struct ledger_sum *sum)
{
	const struct ledger_entry *entry = &ledger.entries[id];
	unsigned came = 0;

	for (unsigned i = 0; i < letter_rcpts(id); i++) {
		came += entry->came[i].count > 0;
		if (entry->fate != LEDGER_ACKED || entry->came[i].count > 0)
			continue;
		if (sum->lost++ < LEDGER_COMPLAINTS_MAX)
			(void)fprintf(out,
				"LOST %" PRIu64 ": acknowledged, and recipient %u has it not\n", id,
				i);
	}
	if (came == 0)
		return;
	if (entry->fate == LEDGER_BEGUN || entry->fate == LEDGER_NONE)
		ledger_complain("came, and was never complete", id);
	else if (entry->fate == LEDGER_REFUSED)
		ledger_complain("came, and was refused", id);
}

bool ledger_judge(FILE *out, struct ledger_sum *sum)
{
	(void)pthread_mutex_lock(&ledger.lock);
	for (uint64_t id = 0; id < ledger.end_id; id++) {
		uint8_t fate = ledger.entries[id].fate;

		ledger.sum.acked += fate == LEDGER_ACKED;
		ledger.sum.whole += fate == LEDGER_WHOLE;
		ledger.sum.begun += fate == LEDGER_BEGUN;
		ledger.sum.refused += fate == LEDGER_REFUSED;
		ledger_judge_one(out, id, &ledger.sum);
	}
	ledger.sum.taken = ledger.taken;
	*sum = ledger.sum;
	(void)pthread_mutex_unlock(&ledger.lock);
	return sum->lost == 0 && sum->wrong == 0;
}
