/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * ledger.h: what became of each letter, and whether that is right.
 *
 * The sender writes down what it knows of a letter before it does what makes it true (the last byte
 * goes out), or after it was told (250); the sink writes down what it took before it says so. A
 * crash in between thus only ever makes a letter doubtful, never wrong. A life is the time from one
 * start of the relay to its end; a kill ends it.
 *
 *   acknowledged   must have come, to each recipient, once
 *   whole          sent without an answer: may have come, once
 *   begun          never complete: must not have come
 *   refused        answered 4xx or 5xx: must not have come
 *
 * A second time is right only if the relay may not have known of the first, or have had no time to
 * remember it: it was killed in doubt_ms of the sink's 250, or of the next command behind it.
 *
 * With a journal each line also goes to a file at once, so that it outlives a machine (power.sh),
 * and can be read again.
 */

#include "tests/crash/letter.h"

#include <stdio.h>

#define LEDGER_IDS_MAX (1U << 25)

enum ledger_fate {
	LEDGER_NONE,
	LEDGER_BEGUN,
	LEDGER_WHOLE,
	LEDGER_ACKED,
	LEDGER_REFUSED,
};

void ledger_open(uint64_t first_id, unsigned doubt_ms);

/* Adds what a journal says, of an earlier life that ended by a kill. False: it cannot be read. */
bool ledger_read(const char *journal);

/* From now on, with these numbers, and into that journal; -1: none is kept. */
void ledger_go_on(uint64_t first_id, int journal_fd);

/* The sender. */
uint64_t ledger_next_id(void);
void ledger_sent(uint64_t id, enum ledger_fate fate);

/* The sink: about to say 250 for that recipient (0...). */
void ledger_took(uint64_t id, unsigned rcpt);
/* A command came behind the 250 for that letter: the relay has read it. */
void ledger_heard(uint64_t id, unsigned rcpt);
/* What is no letter of ours, or none any more. */
void ledger_bad(const char *what, uint64_t id);

/* The driver, around a kill: before it, and when nobody speaks for the dead any more. */
void ledger_kill(void);
void ledger_life_begins(void);

uint64_t ledger_acked(void);
/* What is acknowledged and has not come. */
uint64_t ledger_owed(void);
/* Its bodies, roughly. */
uint64_t ledger_owed_bytes(void);
/* How much came so far. */
uint64_t ledger_taken(void);

struct ledger_sum {
	uint64_t acked, whole, begun, refused, taken;
	uint64_t lost;       /* acknowledged recipients that have not come */
	uint64_t twice;      /* came again, rightly */
	uint64_t wrong;      /* came again, or at all, and must not; or were not what was sent */
	unsigned longest_ms; /* from the sink's last word about a letter that came again to the kill
			      */
};

/* Judges; what is wrong is a line on out, some of many. True: nothing is. */
bool ledger_judge(FILE *out, struct ledger_sum *sum);

uint64_t ledger_now_us(void);
