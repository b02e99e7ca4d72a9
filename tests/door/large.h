/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * large.h: lists of as many prefixes as POSTERN_DOOR_PREFIXES says. Each has a part that all have
 * and a part of its own, one in five of them of IPv6:
 *
 *   kept      20.0.0.0/28, 20.0.0.32/28, ...   2001:db8:20:0::/64, 2001:db8:20:1::/64, ...
 *   A         21.0.0.0/28, ...                 2001:db8:21:0::/64, ...
 *   B         22.0.0.0/28, ...                 2001:db8:22:0::/64, ...
 */

#include "tests/door/case.h"

/* 100000, or what the environment says. */
unsigned large_count(void);
/* How often one is replaced: 100, or what the environment says. */
unsigned large_replaces(void);

#define LARGE_KEPT 20
#define LARGE_A 21
#define LARGE_B 22

/* The lines of a list of so many prefixes: half of them of all lists, half of part A or B. */
void large_list(unsigned part, unsigned count, struct text *out);

/* An address of each, of IPv4. */
#define LARGE_KEPT_PEER "20.0.1.3"
#define LARGE_A_PEER "21.0.1.3"
#define LARGE_B_PEER "22.0.1.3"

/* Clients from the part of a list of so many prefixes: to CASE_V4 or CASE_V6. */
struct crowd_plan large_crowd(unsigned part, unsigned count, bool is_v6);
