/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * ledger.h: a file of what the server has promised: the run and number of each message that was
 * answered 2xx, 16 bytes each, little-endian. What is in the ledger and not at the sink is lost.
 *
 * Entries are appended, some at a time, in pieces that no other writer comes between; so threads,
 * and several runs of load, can share one file.
 */

#include <stdint.h>

#define LEDGER_ENTRY_BYTES 16
#define LEDGER_ENTRIES_HELD 256

struct ledger {
	int fd; /* -1: none is kept */
	unsigned count;
	uint8_t held[LEDGER_ENTRIES_HELD * LEDGER_ENTRY_BYTES];
};

/* path NULL: keeps none. -errno when it cannot be opened. */
int ledger_open(struct ledger *ledger, const char *path);

/* -errno when entries could not be written; what is not in the file then is not known. */
int ledger_add(struct ledger *ledger, uint64_t run, uint64_t id);

/* Writes what is held back. */
int ledger_flush(struct ledger *ledger);

/* The same, and closes. */
int ledger_close(struct ledger *ledger);
