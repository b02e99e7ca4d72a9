/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * ip_list.h: from which addresses a partner connects: a set of prefixes, each to be let in or
 * ("!") excluded, kept in a file of its own. Importing from other forms, comparing two sets.
 *
 * What is in force is what is on disk. The file is replaced whole, by rename, with each change; its
 * generation counts them. It lies in the folder partner-lists and is named NAME.list:
 *
 *   # Postern: addresses of partner "fabrikam"; change them with "posternctl partner fabrikam ip".
 *   # generation 17
 *   192.0.2.0/24
 *   !192.0.2.7
 *   2001:db8::/32
 */

#include "policy/cidr.h"
#include <stdio.h>
#include <sys/types.h>
#include <time.h>

/* A line of any list; an import of more bytes than that is a mistake. */
#define IP_LIST_LINE_BYTES_MAX 1024
#define IP_LIST_FILE_BYTES_MAX ((size_t)256 * 1024 * 1024)

/* Which file it was, and as it was when it was read: whoever writes a list puts another there. */
struct ip_list_file {
	bool exists;
	dev_t device;
	ino_t inode;
	off_t size;
	struct timespec modified;
};

/* The set; door_value.flags is 0 or DOOR_EXCLUDED, connector and partner are 0. */
struct ip_list {
	struct cidr *set;         /* owned */
	uint64_t generation;      /* 0: there never was one */
	struct ip_list_file file; /* of ip_list_read() */
};

void ip_list_clear(struct ip_list *list); /* frees the set; harmless when it is NULL */

/* May the partner's name be that of a file: no "/", no "." in front, at most 127 bytes? */
bool ip_list_name_is_valid(const char *partner);

/* FOLDER/NAME.list; false: too long. */
bool ip_list_path(const char *folder, const char *partner, char *out, size_t out_bytes);

/*
 * Reads a partner's file. One that is not there is an empty list of generation 0, one without a
 * generation was made by hand and has 1. Mistakes are lines on errors, "FILE:LINE: what, expected
 * ...", and nothing is read: -EINVAL; or -errno, -EISDIR or -ENOTSUP for what is no file.
 */
NODISCARD int ip_list_read(const char *path, FILE *errors, struct ip_list *out);

/* The file of that name as it is now. */
void ip_list_look(const char *path, struct ip_list_file *out);
bool ip_list_file_is_same(const struct ip_list_file *a, const struct ip_list_file *b);

/*
 * Replaces the file: a new one beside it, flushed to the disk, renamed over it, the folder flushed.
 * On failure (-errno) the old file is as it was, unless flushing the folder failed. Owner and mode
 * stay those of the old file as far as we may; a group that cannot stay loses its rights. A
 * first file is 0640, and belongs to the owner of the folder if root makes it.
 */
NODISCARD int ip_list_write(const char *path, const char *partner, const struct ip_list *list);

enum ip_list_format {
	IP_LIST_AUTO,  /* JSON if it begins with [ or {, else by its lines */
	IP_LIST_PLAIN, /* an address, CIDR, or range FIRST-LAST a line; "!" in front excludes */
	IP_LIST_POSTFIX_CIDR, /* cidr_table(5): "network/length result"; if/endif are mistakes */
	IP_LIST_JSON, /* array of texts as in PLAIN, or of objects with "cidr", "range" or "ip" and
			 maybe "exclude": true; or an object with one of these in "ranges" or
			 "prefixes". Also what AWS ("ip_prefix", "ipv6_prefixes") and Google
			 ("ipv4Prefix") publish */
};

/* "auto", "plain", "postfix-cidr", "json"; false: no such format. */
bool ip_list_format_parse(const char *word, enum ip_list_format *out);

/*
 * Reads all of in, which messages call name. "#" begins a comment in all forms but JSON. Host bits
 * behind a prefix are dropped and noted (notes may be NULL), and so is an entry that stands there
 * twice or is covered by another. The same prefix once in and once excluded is a mistake. A
 * Postfix table's first match wins, our longest prefix: an entry that an earlier, wider one
 * hides there is a mistake, unless both say the same. After a mistake nothing is read: -EINVAL. At
 * most 20 mistakes are told, and 20 notes.
 */
NODISCARD int ip_list_import(FILE *in, const char *name, enum ip_list_format format, FILE *errors,
	FILE *notes, struct cidr **out);

/* The same for what posternctl and the relay send each other: what is covered stays in it. */
NODISCARD int ip_list_take(FILE *in, const char *name, FILE *errors, struct cidr **out);

/* One entry as in PLAIN: its prefixes (a range has several) into set. -EINVAL, -ENOMEM. */
NODISCARD int ip_list_put_text(struct cidr *set, const char *text);

/* "192.0.2.0/24" or "!192.0.2.7". Returns out. */
const char *ip_list_print(const struct prefix *prefix, struct door_value value,
	char out[static PREFIX_TEXT_BYTES + 1]);

/* What leads from one set to another. */
struct ip_list_diff {
	size_t added, removed; /* an entry that changes from in to excluded is both */
	size_t kept;
};

/* on_line (may be NULL) gets "+" or "-" and each prefix that differs, in order. */
void ip_list_compare(const struct cidr *from, const struct cidr *to, struct ip_list_diff *out,
	void (*on_line)(
		void *owner, char sign, const struct prefix *prefix, struct door_value value),
	void *owner);
