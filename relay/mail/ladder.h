/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * ladder.h: when a queue, or a message, is tried again (EXCHANGE 9.3). Pure: the clock is passed
 * in.
 *
 *   glitch     queue-glitch-retry-count times, queue-glitch-retry-interval apart
 *   transient  transient-failure-retry-count times, transient-failure-retry-interval apart
 *   steady     every outbound-connection-failure-retry-interval
 */

#include "policy/policy.h"

/* After so many failed attempts in a row (1 at least): how long until the next, in ms. */
uint64_t ladder_wait_ms(const struct queue_policy *policy, uint64_t failures);

/* "glitch", "transient", "steady". */
const char *ladder_word(const struct queue_policy *policy, uint64_t failures);
