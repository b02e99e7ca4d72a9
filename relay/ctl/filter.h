/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * filter.h: which rows are meant, in Exchange's words. Pure: no I/O, no memory of its own.
 *
 *   "Status -eq 'Retry' -and MessageCount -gt 10"
 *
 *   filter     = term *( "-and" term ) / term *( "-or" term )
 *   term       = "(" filter ")" / property operator value
 *   operator   = "-eq" / "-ne" / "-gt" / "-ge" / "-lt" / "-le" / "-like"
 *   value      = "'" text "'" / '"' text '"' / word / "$null"        a quote in text is doubled
 *
 * Case never counts. "-like" has "*" for any text and "?" for one byte. Side by side "-and" and
 * "-or" need parentheses: PowerShell and databases read them differently, and "msg remove" must
 * not guess. A filter that cannot be read is a line that says where, what, and what was expected.
 */

#include "relay/base/assert.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FILTER_BYTES_MAX 4096
#define FILTER_NODES_MAX 128
#define FILTER_DEPTH_MAX 16
#define FILTER_WHY_BYTES 512

enum filter_kind {
	FILTER_TEXT,   /* -eq, -ne, -like; $null is the empty text */
	FILTER_WORD,   /* one of a few words; likewise */
	FILTER_NUMBER, /* all but -like */
	FILTER_SIZE,   /* bytes; "10MB" */
	FILTER_TIME,   /* ms since 1970; "2026-11-21T22:46:05Z", a day; 0 is $null */
};

struct filter_property {
	const char *name; /* NULL ends a table of them */
	enum filter_kind kind;
	const char *const *words; /* of FILTER_WORD; NULL ends them */
};

enum filter_op {
	FILTER_EQ,
	FILTER_NE,
	FILTER_GT,
	FILTER_GE,
	FILTER_LT,
	FILTER_LE,
	FILTER_LIKE,
	FILTER_AND,
	FILTER_OR,
};

struct filter_node {
	enum filter_op op;
	unsigned left, right; /* nodes, of AND and OR; the others have what follows */
	unsigned property;    /* of the table */
	const char *text;     /* of TEXT and WORD */
	int64_t number;
};

/* It points into itself: not to be copied. */
struct filter {
	const struct filter_property *properties;
	unsigned count, root;
	size_t texts_len;
	struct filter_node nodes[FILTER_NODES_MAX];
	char texts[FILTER_BYTES_MAX];
};

/* What a property of a row is: text of TEXT and WORD, number of the others. */
struct filter_value {
	const char *text;
	int64_t number;
};

/*
 * 0, or -EINVAL and why: "at 8: "-eqq", expected one of -eq, ...", where the first byte is 1. Why
 * has no byte that a terminal would obey.
 */
NODISCARD int filter_parse(const char *text, const struct filter_property *properties,
	struct filter *out, char why[static FILTER_WHY_BYTES]);

/* get: the value of a property, by its number in the table, of that row. */
bool filter_matches(const struct filter *filter,
	void (*get)(const void *row, unsigned property, struct filter_value *out), const void *row);

/*
 * A comparison without which no row matches, so that whoever has the rows may leave others out; or
 * NULL.
 */
const struct filter_node *filter_find(
	const struct filter *filter, unsigned property, enum filter_op op);

/* Does it ask for that property anywhere? */
bool filter_asks(const struct filter *filter, unsigned property);
