/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * relay.h: the relay under test, one a case: its configuration, its process, its
 * log. It dies with the case.
 */

#include "tests/e2e/suite.h"
#include <stdint.h>

#define RELAY_PORT 2525

/* What the configuration has beyond the usual; each text is lines of a section. */
struct relay_options {
	const char *transport;  /* lines, or NULL */
	const char *receive;    /* lines of the receive connector, or NULL */
	const char *send;       /* lines of the send connector, or NULL */
	const char *tls;        /* lines for both connectors, or NULL */
	const char *ktls;       /* NULL: "on" where the kernel is expected, else "off" */
	const char *tls_domain; /* NULL: "mx.treyresearch.test" */
	const char *hosts;      /* smart-hosts in braces; NULL: the one next hop */
	uint16_t hop_port;      /* of the one next hop */
};

/* Starts it and waits for "event=ready". The case ends if it does not come. */
void relay_start(const struct relay_options *options);

/* SIGTERM; the case fails unless the relay exits with 0 in time. Closes nothing else. */
void relay_stop(void);

/* SIGTERM only; relay_stop() has to follow. */
void relay_terminate(void);

/* SIGKILL, for a case that ends early. Harmless without a relay. */
void relay_kill(void);

/* Is it still running? */
bool relay_is_alive(void);

/*
 * Waits until the log has so many lines with all of the given words in them
 * ("event=tls record=kernel"), and returns the last; the case fails if they do not come.
 */
const char *relay_await_log(unsigned count, const char *words);

/* How many lines have all of the words now. */
unsigned relay_count_log(const char *words);

/* "value" of "key=value" in a line that relay_await_log() returned; "" if it has none. */
const char *relay_log_value(const char *line, const char *key, char *out, size_t out_bytes);

/* A counter of the "stats" line; asks the relay for one (SIGUSR1). */
unsigned long relay_counter(const char *name);

/* The log to stderr. */
void relay_show_log(void);
