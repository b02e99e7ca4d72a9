/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * spool_state.h: which messages of a log are still owed to somebody, from its records in order. For
 * posternctl: it allocates as it goes, and knows nothing of the relay.
 *
 * A MESSAGE takes the place of an earlier one of its id, RECIPIENTS are applied to it, DONE ends
 * it. RECIPIENTS and DONE of an id that is not there are nothing: its segment was used again.
 */

#include "relay/mail/spool_scan.h"

struct spool_state;

struct spool_state_message {
	uint64_t id;
	uint64_t segment; /* where its MESSAGE record is, for spool_scan_at() */
	uint32_t offset;
	bool is_done;
	unsigned flags, attempts;
	int64_t arrived_ms, next_ms;
	uint64_t body_bytes;
	uint32_t rcpt_count;
	uint32_t open_count;
	uint8_t *rcpt_states; /* rcpt_count times enum rcpt_state; NULL when done */
};

NODISCARD int spool_state_create(struct spool_state **out);
void spool_state_destroy(struct spool_state **state);

/* -EBADMSG: the payload of this record is not what it should be, and it has no effect. -ENOMEM. */
NODISCARD int spool_state_apply(struct spool_state *state, const struct spool_scan_record *record);

/* In the order in which they came first, done ones too. NULL: there are no more. */
const struct spool_state_message *spool_state_at(const struct spool_state *state, unsigned index);
/* That one, or NULL. */
const struct spool_state_message *spool_state_find(const struct spool_state *state, uint64_t id);

struct spool_state_facts {
	unsigned messages; /* not done */
	unsigned done;
	uint64_t open_rcpts;
	uint64_t body_bytes; /* of those not done */
};
void spool_state_facts(const struct spool_state *state, struct spool_state_facts *out);
