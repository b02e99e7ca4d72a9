/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * spool_table.h: a table of numbers by numbers that grows, for a replay only.
 */

#include "relay/base/assert.h"
#include <stdbool.h>
#include <stdint.h>

struct spool_table;

struct spool_table *spool_table_create(void); /* NULL: no memory */
void spool_table_destroy(struct spool_table **table);

/* 0: it is not there. */
uint64_t spool_table_get(const struct spool_table *table, uint64_t key);

/* A value of 0 takes the key out. False: no memory; that never happens with 0. */
bool spool_table_put(struct spool_table *table, uint64_t key, uint64_t value);

/* Calls visit for each that is there, in no order. */
void spool_table_each(const struct spool_table *table,
	void (*visit)(void *owner, uint64_t key, uint64_t value), void *owner);
