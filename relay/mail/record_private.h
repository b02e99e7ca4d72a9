/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * record_private.h: little-endian integers and a cursor, for the readers and writers of what stands
 * in the spool. A cursor that was asked for more than there is turns bad, stays so, and gives
 * zeros: its user looks once, at the end.
 */

#include "relay/base/assert.h"
#include "relay/base/span.h"

static inline void put_le(uint8_t *out, uint64_t value, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		out[i] = (uint8_t)(value >> (8 * i));
}

static inline uint64_t get_le(const uint8_t *in, size_t bytes)
{
	uint64_t value = 0;

	for (size_t i = 0; i < bytes; i++)
		value |= (uint64_t)in[i] << (8 * i);
	return value;
}

struct record_cursor {
	struct span rest;
	bool is_bad;
};

static inline struct span cursor_span(struct record_cursor *cursor, size_t bytes)
{
	struct span taken = {0};

	if (cursor->is_bad || bytes > cursor->rest.len) {
		cursor->is_bad = true;
		return taken;
	}
	taken = span_head(cursor->rest, bytes);
	cursor->rest = span_skip(cursor->rest, bytes);
	return taken;
}

/* An integer of 8 bytes at the most. */
static inline uint64_t cursor_number(struct record_cursor *cursor, size_t bytes)
{
	struct span taken = cursor_span(cursor, bytes);

	return cursor->is_bad ? 0 : get_le(taken.data, bytes);
}

/* Nothing was missing, and nothing is left. */
static inline bool cursor_is_done(const struct record_cursor *cursor)
{
	return !cursor->is_bad && cursor->rest.len == 0;
}
