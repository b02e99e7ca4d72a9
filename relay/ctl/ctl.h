/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * ctl.h: what the commands of posternctl share: their table, options, printed tables.
 *
 * A command is a few words and a function. Each family of commands has a table of its
 * own (ctl_cert_commands) that main.c lists; "posternctl --help" is made from the tables, and
 * tests/lint/keywords.sh compares it with posternctl.8. Most commands read the configuration and
 * files, and end; "partner NAME ip" and "door" ask the relay that runs (control.h).
 *
 * Answers go to standard output, everything else to standard error, as one line that begins
 * with "posternctl: ". Exit status: CTL_OK, CTL_FAILED, CTL_USAGE.
 */

#include "relay/base/assert.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct config;
struct policy;

enum {
	CTL_OK = 0,     /* done; the answer is yes */
	CTL_FAILED = 1, /* not done, or the answer is no */
	CTL_USAGE = 2,  /* wrong options, or files that cannot be read */
};

/* What stands before the command, or anywhere behind it. */
struct ctl {
	const char *config;   /* --config; never NULL */
	bool config_is_given; /* it was named, so it must be there */
	const char *store;    /* --store; NULL: certificate-store of the configuration */
	bool json;            /* --json: tables are printed as JSON */
};

struct ctl_command {
	const char *words; /* "cert list"; a word NAME is any: "partner NAME ip list" */
	const char *usage; /* arguments, as the help shows them; "\n" breaks the line */
	const char *help;  /* one line */
	/* argv[0] is what stood for NAME, or the first argument behind the words; argv is
	 * NULL-terminated. */
	int (*run)(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv);
};

/* Each ends with a row of NULLs. */
extern const struct ctl_command ctl_cert_commands[];

/* ---- options of a command */

enum ctl_option_kind {
	CTL_OPTION_FLAG,   /* bool: set to true */
	CTL_OPTION_TEXT,   /* const char *: the last one given */
	CTL_OPTION_LIST,   /* struct ctl_list: all that were given, in order */
	CTL_OPTION_NUMBER, /* int64_t between min and max */
};

#define CTL_LIST_MAX 512

struct ctl_list {
	const char *texts[CTL_LIST_MAX];
	unsigned count;
};

struct ctl_option {
	const char *name; /* "name" for --name; a row of NULL ends the table */
	enum ctl_option_kind kind;
	void *out;
	int64_t min, max; /* of NUMBER */
	bool is_required;
};

/*
 * Reads options, also as --name=VALUE, and gathers the other arguments in operands, which must
 * be between min and max; "--" ends the options. The options of all commands (struct ctl) are
 * known too. 0, or -EINVAL after a message; --help: prints the usage and exits.
 */
NODISCARD int ctl_options_read(struct ctl *ctl, const struct ctl_command *command, char **argv,
	const struct ctl_option *options, struct ctl_list *operands, unsigned min, unsigned max);

/* "posternctl: ...", one line on standard error. */
void ctl_error(const char *format, ...) PRINTF_LIKE(1, 2);

/* "posternctl: note: ...": it is done, and there is something to know about it. */
void ctl_note(const char *format, ...) PRINTF_LIKE(1, 2);

/* From here on errors go into text instead, the last one stays; NULL ends that. */
void ctl_error_divert(char *text, size_t bytes);

/* Prints the usage of one command; returns CTL_USAGE. */
int ctl_usage(const struct ctl_command *command, FILE *file);

/* The configuration; its mistakes go to standard error. NULL: there is no valid one. */
struct policy *ctl_policy_create(const struct ctl *ctl);

/* A keyword of the transport section, although the configuration as a whole may not be valid: it
 * may name certificates that are still to be made. NULL: it is not set. */
const char *ctl_config_word(const struct config *config, const char *keyword);

/* ---- tables */

#define CTL_COLUMNS_MAX 12

struct ctl_row {
	char *cells[CTL_COLUMNS_MAX];
};

/* Columns are as wide as their widest cell; the last one is not padded. */
struct ctl_table {
	const char *const *columns;
	unsigned column_count;
	struct ctl_row *rows;
	unsigned row_count;
	unsigned right; /* bits of the columns that are numbers */
	bool out_of_memory;
};

void ctl_table_init(struct ctl_table *table, const char *const *columns, unsigned count);

/* A row with as many texts as there are columns; they are copied. NULL: an empty cell. */
void ctl_table_create_row(struct ctl_table *table, const char *const *cells);

/* Prints it: with headings, or (ctl->json) as an array of objects. Then frees it. CTL_OK. */
int ctl_table_finish(const struct ctl *ctl, struct ctl_table *table);

/*
 * The same for one object: "Name : value" lines as Exchange's Format-List prints them (names
 * are padded to the longest), or one JSON object. The table has two columns.
 */
int ctl_table_finish_list(const struct ctl *ctl, struct ctl_table *table);

/* As JSON has it, with its quotes. */
void ctl_print_json(const char *text);

/* One line of a file that comes from elsewhere: control characters are printed as "?". */
void ctl_print_safe(const char *text);
