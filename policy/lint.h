/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * lint.h: what an administrator reads about a snapshot: what is doubtful in it (lint.c), and what
 * is in force (show.c). For "posternctl config lint" and "config show". Nothing is changed; of
 * files only partners' lists are looked for.
 */

#include "policy/policy.h"

/*
 * What is allowed and still likely to be wrong, or not what was meant. Each finding is a line
 * "FILE:LINE: what; remedy", by line, where LINE is that of the section. *out_count may be NULL.
 */
void lint_policy(const struct policy *policy, FILE *out, unsigned *out_count);

/*
 * Every setting that is in force, in the manner of Exchange's Format-List: a line "PROPERTY :
 * value" for each, under Exchange's names where it has one, a blank line between objects. The
 * two domain secure lists are views of the partners.
 */
void policy_show(const struct policy *policy, FILE *out);
