/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * sender.h: clients that send letters for as long as they may, whatever becomes of the server.
 *
 * Some commands go one by one and some in a row, some bodies as DATA and some as BDAT in one chunk
 * or several; several messages go behind one another without waiting for their answers; now and
 * then a client leaves in the middle of one. Each message's fate goes into the ledger.
 */

#include <stdbool.h>
#include <stdint.h>

struct sender_options {
	uint16_t port;
	unsigned connections;
	uint64_t seed;
	uint64_t owed_max;       /* no new message while the next hop lacks so many */
	uint64_t owed_bytes_max; /* or so much */
	unsigned pause_ms;       /* behind each batch; 0: none */
};

void sender_start(const struct sender_options *options);

/* While paused no message is begun; sender_pause() returns when none is under way. */
void sender_pause(void);
void sender_resume(void);
