/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * case.h: the rows of the matrix.
 */

#include "tests/e2e/kernel.h"
#include "tests/e2e/talk.h"

struct test_case {
	const char *name;
	void (*run)(const struct test_case *row);
	const void *data;     /* what the function knows of */
	unsigned minutes_max; /* 0: one */
};

struct case_table {
	const struct test_case *rows;
	unsigned count;
};

extern const struct case_table case_tls;   /* 1, 2: hand-off and early records */
extern const struct case_table case_auto;  /* 2: hand-off when it pays */
extern const struct case_table case_body;  /* 3: bodies */
extern const struct case_table case_end;   /* 4, 6: ends, alerts, garbage */
extern const struct case_table case_rekey; /* 5: KeyUpdate */
extern const struct case_table case_cert;  /* 7: certificates and handshakes */
extern const struct case_table case_bad;   /* 7: commands and bodies */
extern const struct case_table case_chunk; /* 7: BDAT */
extern const struct case_table case_hop;   /* 8: next hops that fail */
extern const struct case_table case_pool;  /* 8: fail-over and reuse */

/* Starts a next hop and the relay in front of it; either may be NULL for the usual. */
struct hop *case_start(const struct hop_plan *plan, const struct relay_options *options);

/* The relay goes on serving, and ends with 0. */
void case_finish(struct hop *hop);

/* "record=" of the log line must be what is expected of this kernel. */
void case_check_record(const char *line);

/* What a body that is cut off needs: MAIL, RCPT, and its first bytes, seen by the next hop. */
void case_begin_body(struct client *client, struct hop *hop, const struct text *body, bool by_bdat);

/* The next hop has taken no message, and saw the end of the body that was cut off. */
void case_check_cut_off(struct hop *hop);
