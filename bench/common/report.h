/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * report.h: what load counts, summed over its threads and printed.
 */

#include "bench/common/histogram.h"
#include "bench/common/wire.h"

#include <stdio.h>

#define REPORT_CODES 600

struct report {
	uint64_t messages;            /* answered 2xx after the body */
	uint64_t message_bytes;       /* of these, unstuffed */
	uint64_t failed;              /* not so: by reply or lost with the connection */
	uint64_t lost;                /* of these, with the connection */
	uint64_t rcpt_refused;        /* recipients refused in any message */
	uint64_t connections;         /* sessions that got to EHLO */
	uint64_t resumed;             /* of these, with a resumed TLS session */
	uint64_t connect_failed;      /* sessions that did not */
	uint64_t codes[REPORT_CODES]; /* first refusal of each failed message or session */
	struct wire_facts tls;        /* of the first session */
	struct histogram latency;
};

void report_merge(struct report *sum, const struct report *from);

/* Prints for people, or as one line of JSON. */
void report_print(FILE *file, const struct report *report, double seconds, size_t size, bool json);
