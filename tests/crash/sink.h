/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * sink.h: the next hop: takes letters, checks each, writes down what it took before it says 250.
 *
 * It outlives the relay. Told to, it is slow, puts off, or has no word for anybody; and, to show
 * that the ledger sees it, spoils what it was given.
 */

#include <stdint.h>

enum sink_mood {
	SINK_WELL,
	SINK_SLOW, /* some milliseconds in front of each reply */
	SINK_BUSY, /* one transaction in two is put off with 451, in any place */
	SINK_DEAD, /* connections end at once */
	SINK_MOODS,
};

enum sink_spoil {
	SINK_HONEST,
	SINK_TWICE,   /* takes one in a hundred twice */
	SINK_CORRUPT, /* changes a byte of one in a hundred */
	SINK_LOSES,   /* says 250 for one in a hundred, and has it not */
};

/* Listens on a port of its own, which it returns. */
uint16_t sink_start(uint64_t seed, enum sink_spoil spoil);

void sink_set_mood(enum sink_mood mood);

/* The relay is dead: returns when all that it had sent was read, and its sessions have ended. */
void sink_settle(void);
