/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * header.h: watches the header section of a message as it passes: how long it
 * is, how many Received fields it holds (the hop count, RFC 5321 6.3), and how many of
 * these are our own: those in which "by" is followed by our name, outside of comments and quotes.
 *
 * Pure and incremental: any split of the input gives the same result.
 */

#include "relay/base/span.h"

struct header_scan {
	bool is_done;   /* the empty line was seen: the rest is body */
	uint64_t bytes; /* length of the header section so far, with the empty line */
	unsigned received_count;
	unsigned local_count; /* of these, by us */
	bool has_nul;
	/* private */
	const char *fqdn;
	uint8_t state;
	uint8_t matched; /* bytes of "Received" matched on this line */
	bool is_quoted;  /* in a Received field: inside quotes */
	bool is_escaped; /* the byte before was a backslash */
	bool is_counted; /* this field is in local_count */
	bool follows_by; /* the word before was "by" */
	bool is_by;      /* the word is "by" so far */
	bool is_fqdn;    /* the word is our name so far */
	uint16_t word_len;
	uint32_t depth; /* of comments */
};

/* Begins a message. fqdn: our name, which has to stay; NULL: local_count stays 0. */
void header_scan_init(struct header_scan *scan, const char *fqdn);

/* Looks at the next piece of the unstuffed message. Returns at once when is_done. */
void header_scan(struct header_scan *scan, struct span text);
