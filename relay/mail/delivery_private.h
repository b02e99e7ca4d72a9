/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * delivery_private.h: what the files of delivery.c need of each other.
 *
 *   delivery.c           the machine: the next hop's answers, the end
 *   delivery_envelope.c  what may be sent at all, and the commands
 *   delivery_body.c      the text, from the spool to the client
 *   delivery_result.c    what recipients are told
 */

#include "relay/mail/delivery.h"

/* delivery.c */

/* Assigns the state; asserts that the edge is legal. */
void delivery_enter(struct delivery *delivery, enum delivery_state state);

/* Over; all that were picked are settled. The delivery must not be touched after this. */
void delivery_end(struct delivery *delivery, bool is_usable, int read_error);

/* delivery_envelope.c */

/*
 * Settles those of the picked recipients whom the next hop cannot be asked for, for what it does
 * not offer; the others stay picked. False: nobody is left.
 */
NODISCARD bool delivery_admit(struct delivery *delivery);

/* Writes the commands that may go out now: all, or without PIPELINING the next one. */
void delivery_send_commands(struct delivery *delivery);

/* delivery_body.c */

/* The next hop waits for the text. */
void delivery_begin_body(struct delivery *delivery);

/* Gives the client text, and asks the reader for more, while there is room. */
void delivery_pump(struct delivery *delivery);

/* Of struct spool_reader_events. */
void delivery_on_text(struct spool_reader *reader, struct span text, bool is_last);

/* delivery_result.c */

/* What a reply says of whom it is for: 2xx, 4xx or 5xx. */
struct delivery_result delivery_result_of(const struct reply *reply);

/* Our own words, a reply without CR LF: "554 5.6.3 ...". */
struct delivery_result delivery_result_local(enum delivery_verdict verdict, const char *format, ...)
	PRINTF_LIKE(2, 3);

/* Settles the picked recipient number at, or all that are not settled; *result gets their index. */
void delivery_settle(struct delivery *delivery, uint32_t at, struct delivery_result *result);
void delivery_settle_rest(struct delivery *delivery, struct delivery_result result);
