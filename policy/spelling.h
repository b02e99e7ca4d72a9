/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * spelling.h: may one domain be a slip of the pen for another? Pure.
 */

#include "relay/base/assert.h"
#include <stdbool.h>

/*
 * How many letters must be added, left out, replaced, or swapped with their neighbour to turn
 * one word into the other (Damerau and Levenshtein's distance); words of up to 255 bytes.
 */
unsigned spelling_distance(const char *a, const char *b);

/* One or two such slips apart; the shorter a domain, the fewer, as short ones are often near. */
bool spelling_is_near(const char *a, const char *b);
