/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * due.h: a heap of moments: what is due first, among a million, without a look at the rest.
 *
 * Whoever waits embeds a place, which is zero while it waits for nothing, and finds itself again by
 * OWNER_OF. Moments are milliseconds of any one clock. Memory that was never used is never touched.
 */

#include "relay/base/assert.h"
#include <stdbool.h>
#include <stdint.h>

struct due_item {
	int64_t at_ms;
	uint32_t *place; /* of who waits: 1 + its index in items */
};

struct due {
	struct due_item *items;
	uint32_t count;
	uint32_t max;
};

/* Room for max who wait. -ENOMEM. */
NODISCARD int due_create(struct due *due, uint32_t max);
void due_destroy(struct due *due);

/* It waits for that moment from now on, instead of any other. There must be room. */
void due_set(struct due *due, uint32_t *place, int64_t at_ms);

/* It does not wait any more; harmless when it did not. */
void due_clear(struct due *due, uint32_t *place);

/* Who is due first, and when; NULL: nobody waits. */
uint32_t *due_first(const struct due *due, int64_t *out_at_ms);
