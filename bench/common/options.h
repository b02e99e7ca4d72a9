/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * options.h: the command lines of postern-load, postern-sink and idle, each described by a table.
 *
 * What is wrong ends the program with status 2 and a line that says which option it was and
 * what was expected. --help prints the usage text and ends it with 0.
 */

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum options_kind {
	OPTIONS_FLAG,    /* no value: *flag = true */
	OPTIONS_CHOICE,  /* no value: *choice = min */
	OPTIONS_NUMBER,  /* from min to max; k, m and g stand for 2^10, 2^20 and 2^30 */
	OPTIONS_SHARE,   /* the same, and without a value max */
	OPTIONS_TEXT,    /* as it is */
	OPTIONS_LIST,    /* as it is; may be given OPTIONS_LIST_MAX times */
	OPTIONS_ADDRESS, /* "127.0.0.1:2525"; the bench programs speak IPv4 only */
};

#define OPTIONS_LIST_MAX 32

struct options_list {
	const char *texts[OPTIONS_LIST_MAX];
	size_t count;
};

struct options_entry {
	const char *name;
	enum options_kind kind;
	union {
		bool *flag;
		unsigned int *choice;
		uint64_t *number;
		const char **text;
		struct options_list *list;
		struct sockaddr_in *address;
	} out;
	uint64_t min;
	uint64_t max;
};

void options_parse(int argc, char **argv, const struct options_entry *entries, size_t count,
	const char *usage);

/* Reads a number with its unit at the start of text: where it ends, or NULL when there is none. */
const char *options_read_number(const char *text, uint64_t *out);

/* Reads "127.0.0.1:2525"; ends the program when it is none. */
void options_read_address(const char *option, const char *text, struct sockaddr_in *out);

/* Prints a line and the usage, and ends the program with status 2. */
_Noreturn void options_wrong(const char *usage, const char *reason);

/* Lets this process have as many descriptors as count, as far as the system allows. */
void options_raise_files(uint64_t count);
