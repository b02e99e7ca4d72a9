/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * refusals.h: who was refused lately, by source: a bounded table of (peer, binding, reason), each
 * with a count. When it is full, of a few candidates the one that was seen longest ago makes room.
 * Any thread.
 */

#include "bpf/shared.h"
#include "policy/policy.h"

/* Sources that are remembered. */
#define REFUSALS_MAX 2048

struct refusal {
	struct ip peer;
	struct address local;
	enum door_reason reason;
	struct door_value value; /* whose rule it was; zeros for a stranger */
	uint64_t count;
	uint64_t last_ms; /* CLOCK_MONOTONIC */
};

struct refusals;

NODISCARD int refusals_create(struct refusals **out);
void refusals_destroy(struct refusals **refusals); /* NULL is harmless */

/* One more; count of what is given does not matter. */
void refusals_note(struct refusals *refusals, const struct refusal *refusal);

/* The most refused first, at most max; how many. */
unsigned refusals_read(struct refusals *refusals, struct refusal *out, unsigned max);

/* "stranger", "excluded", "rate", "mapped". */
const char *refusal_word(enum door_reason reason);
