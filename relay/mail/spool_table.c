/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/spool_table.h"

#include <stdlib.h>

/* Of two powers, so that a start costs nothing and a million of messages few rounds. */
#define CELLS_MIN 1024

/* A cell with value 0 whose key is set was taken out; it is used again by the same key only. */
struct table_cell {
	uint64_t key;
	uint64_t value;
	bool is_set;
};

struct spool_table {
	struct table_cell *cells;
	uint64_t count; /* a power of two */
	uint64_t set;
};

struct spool_table *spool_table_create(void)
{
	struct spool_table *table = calloc(1, sizeof(*table));

	if (table == NULL)
		return NULL;
	table->count = CELLS_MIN;
	table->cells = calloc(table->count, sizeof(*table->cells));
	if (table->cells == NULL)
		spool_table_destroy(&table);
	return table;
}

void spool_table_destroy(struct spool_table **table)
{
	if (*table == NULL)
		return;
	free((*table)->cells);
	free(*table);
	*table = NULL;
}

/* The cell of that key, or the one where it would be. Half of the cells at least are free. */
static struct table_cell *table_find(const struct spool_table *table, uint64_t key)
{
	uint64_t at = (key * 0x9e3779b97f4a7c15U) >> 20;
	struct table_cell *cell;

	for (;; at++) {
		cell = &table->cells[at & (table->count - 1)];
		if (!cell->is_set || cell->key == key)
			return cell;
	}
}

uint64_t spool_table_get(const struct spool_table *table, uint64_t key)
{
	const struct table_cell *cell = table_find(table, key);

	return cell->is_set ? cell->value : 0;
}

/* Moves what has a value to a table that has room for it. */
static bool table_create_larger(struct spool_table *table)
{
	struct spool_table larger = {.count = table->count * 2};

	larger.cells = calloc(larger.count, sizeof(*larger.cells));
	if (larger.cells == NULL)
		return false;
	for (uint64_t i = 0; i < table->count; i++) {
		const struct table_cell *cell = &table->cells[i];

		if (!cell->is_set || cell->value == 0)
			continue;
		*table_find(&larger, cell->key) = *cell;
		larger.set++;
	}
	free(table->cells);
	*table = larger;
	return true;
}

bool spool_table_put(struct spool_table *table, uint64_t key, uint64_t value)
{
	struct table_cell *cell = table_find(table, key);

	if (!cell->is_set && value == 0)
		return true;
	if (!cell->is_set && table->set * 2 >= table->count) {
		if (!table_create_larger(table))
			return false;
		cell = table_find(table, key);
	}
	table->set += !cell->is_set;
	*cell = (struct table_cell){key, value, true};
	return true;
}

void spool_table_each(const struct spool_table *table,
	void (*visit)(void *owner, uint64_t key, uint64_t value), void *owner)
{
	for (uint64_t i = 0; i < table->count; i++)
		if (table->cells[i].is_set && table->cells[i].value != 0)
			visit(owner, table->cells[i].key, table->cells[i].value);
}
