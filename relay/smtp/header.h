/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * header.h: watches the header section of a message as it passes: how long it
 * is, and how many Received fields it holds (the hop count, RFC 5321 6.3).
 *
 * Pure and incremental: any split of the input gives the same result.
 */

#include "relay/base/span.h"

struct header_scan {
	uint8_t state;   /* private */
	uint8_t matched; /* private: bytes of "Received:" matched on this line */
	bool is_done;    /* the empty line was seen: the rest is body */
	uint64_t bytes;  /* length of the header section so far, with the empty line */
	unsigned received_count;
};

/* Begins a message. */
void header_scan_init(struct header_scan *scan);

/* Looks at the next piece of the unstuffed message. Returns at once when is_done. */
void header_scan(struct header_scan *scan, struct span text);
