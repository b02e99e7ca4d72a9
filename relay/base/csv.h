/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * csv.h: reads rows as logset.h writes them: RFC 4180, one line each.
 *
 * Pure and incremental: any split of the input gives the same rows. Memory is fixed. A row that is
 * too long, has too many fields, or a quote where none belongs, is bad as a whole; so is a quoted
 * field that goes over the end of its line, as what a crash cut off has an open quote, and must not
 * swallow what follows. The row behind a bad one is read again. CR LF and LF end a line; a NUL
 * becomes "?", so that fields are C strings.
 */

#include "relay/base/assert.h"
#include "relay/base/span.h"

#define CSV_FIELDS_MAX 64
#define CSV_ROW_BYTES_MAX 65536

enum csv_status {
	CSV_MORE, /* the input is used up */
	CSV_ROW,  /* a row: see csv_field() */
	CSV_BAD,  /* a line that is no row */
};

struct csv {
	unsigned field_count; /* of the row */
	/* private */
	uint8_t where;
	bool is_bad;
	bool is_fresh; /* the row was returned; the next byte begins another */
	size_t len;
	uint32_t starts[CSV_FIELDS_MAX];
	char bytes[CSV_ROW_BYTES_MAX];
};

void csv_init(struct csv *csv);

/* Reads on, and advances *in. Empty lines are no rows. A row stays until the next call. */
NODISCARD enum csv_status csv_next(struct csv *csv, struct span *in);

/* There is no more input: was there a row without the end of its line? CSV_MORE: there was none. */
NODISCARD enum csv_status csv_end(struct csv *csv);

/* index < field_count. */
const char *csv_field(const struct csv *csv, unsigned index);
