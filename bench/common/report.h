/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * report.h: what postern-load counts, summed over its threads and printed.
 */

#include "bench/common/histogram.h"
#include "bench/common/loadconfig.h"

#include <stdio.h>

#define REPORT_CODES 600

/* struct stream_facts, in memory of its own. */
struct report_tls {
	bool is_known;
	char version[16];
	char cipher[64];
	char group[64];
	char record[128];
};

struct report {
	uint64_t messages;            /* answered 2xx after the body */
	uint64_t message_bytes;       /* of these, unstuffed */
	uint64_t failed;              /* not so: by reply or lost with the connection */
	uint64_t lost;                /* of these, with the connection */
	uint64_t rcpt_refused;        /* recipients refused in any message */
	uint64_t connections;         /* sessions that got to EHLO */
	uint64_t resumed;             /* of these, with a resumed TLS session */
	uint64_t connect_failed;      /* sessions that did not */
	uint64_t behind;              /* were due and not begun when the time was over */
	uint64_t idle_open;           /* silent sessions that got to EHLO */
	uint64_t idle_alive;          /* of these, such as answered NOOP at the end */
	uint64_t idle_failed;         /* silent sessions that did not open or did not last */
	uint64_t last_us;             /* when the newest message was answered */
	uint64_t codes[REPORT_CODES]; /* first refusal of each failed message or session */
	bool ledger_failed;
	struct report_tls tls; /* of the newest session */
	struct histogram latency;
	struct histogram handshake; /* from connect until mail may go */
};

void report_facts(struct report *report, const struct stream_facts *facts);

void report_merge(struct report *sum, const struct report *from);

/* Prints for people, or as one line of JSON. */
void report_print(FILE *file, const struct report *report, const struct load_config *config,
	uint64_t started_us);

/* Did all that was tried succeed? */
bool report_is_good(const struct report *report);
