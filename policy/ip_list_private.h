/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * ip_list_private.h: one reading of a list of addresses, of any form: what has been found, and what
 * there is to say about it. For ip_list*.c only.
 *
 * Entries are collected as they come, and make a set when all are there: in their order, since a
 * million of them in any order would take three times as long.
 */

#include "policy/ip_list.h"

/* So many mistakes are told, and so many notes; the others are counted. */
#define IP_IMPORT_TOLD_MAX 20

/* Between words; a line has no end of line in it. */
#define IP_LIST_BLANKS " \t\v\f"

/* A prefix of an entry. */
struct ip_import_item {
	struct prefix prefix;
	uint16_t flags;
	uint32_t line;
};

struct ip_import {
	const char *name; /* what messages call it */
	FILE *errors;     /* NULL: nobody wants to know */
	FILE *notes;      /* the same */
	struct ip_import_item *items;
	size_t count;
	size_t room;
	uint64_t *generation; /* of a file of ours: "# generation N" goes there; NULL: a comment */
	bool is_first_match;  /* an earlier entry hides what it holds (Postfix) */
	bool is_full;
	bool is_out_of_memory;
	unsigned mistakes;
	unsigned notes_made;
};

void ip_import_mistake(struct ip_import *import, unsigned line, const char *format, ...)
	PRINTF_LIKE(3, 4);
void ip_import_note(struct ip_import *import, unsigned line, const char *format, ...)
	PRINTF_LIKE(3, 4);

/* "and N more", where not all were told. */
void ip_import_say_more(const struct ip_import *import);

/* An address, network or range, without "!", that stands in a line. flags: of its value. */
void ip_import_entry(struct ip_import *import, unsigned line, const char *text, uint16_t flags);

/* The same with "!" in front, or not. */
void ip_import_plain(struct ip_import *import, unsigned line, const char *text);

/* All of a text, which has a NUL behind it. */
void ip_import_json(struct ip_import *import, const char *text, size_t len);

/*
 * Reads all of in; import has name, errors, notes and generation. An entry that another covers
 * is noted and left out, or kept. -EINVAL after a mistake; or -errno.
 */
NODISCARD int ip_import_run(struct ip_import *import, FILE *in, enum ip_list_format format,
	bool keeps_covered, struct cidr **out);

/* One more prefix. */
void ip_import_add(
	struct ip_import *import, unsigned line, const struct prefix *prefix, uint16_t flags);

/*
 * What has been collected, as a set; with it come the mistakes and notes about entries that are
 * there twice, or within each other. -EINVAL if there ever was a mistake; -ENOMEM.
 */
NODISCARD int ip_import_settle(struct ip_import *import, bool keeps_covered, struct cidr **out);

/* What of a text may stand in a message: 60 bytes, strange ones as "?". Returns out. */
#define IP_IMPORT_QUOTE_BYTES 64
const char *ip_import_quote(const char *text, size_t len, char out[static IP_IMPORT_QUOTE_BYTES]);
