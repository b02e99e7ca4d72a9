/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/due.h"

#include <errno.h>

int due_create(struct due *due, uint32_t max)
{
	*due = (struct due){.items = calloc((size_t)max + 1, sizeof(struct due_item)), .max = max};
	return due->items == NULL ? -ENOMEM : 0;
}

void due_destroy(struct due *due)
{
	free(due->items);
	*due = (struct due){0};
}

static void due_put(struct due *due, uint32_t index, struct due_item item)
{
	due->items[index] = item;
	*item.place = index + 1;
}

/* The item stands at index, and may belong nearer to the front. */
static uint32_t due_rise(struct due *due, uint32_t index, struct due_item item)
{
	while (index > 0) {
		const uint32_t parent = (index - 1) / 2;

		if (due->items[parent].at_ms <= item.at_ms)
			break;
		due_put(due, index, due->items[parent]);
		index = parent;
	}
	due_put(due, index, item);
	return index;
}

/* The same, farther to the back. */
static void due_sink(struct due *due, uint32_t index, struct due_item item)
{
	for (uint32_t child = 2 * index + 1; child < due->count; child = 2 * index + 1) {
		if (child + 1 < due->count && due->items[child + 1].at_ms < due->items[child].at_ms)
			child++;
		if (due->items[child].at_ms >= item.at_ms)
			break;
		due_put(due, index, due->items[child]);
		index = child;
	}
	due_put(due, index, item);
}

static void due_settle(struct due *due, uint32_t index, struct due_item item)
{
	if (due_rise(due, index, item) == index)
		due_sink(due, index, item);
}

void due_set(struct due *due, uint32_t *place, int64_t at_ms)
{
	const struct due_item item = {at_ms, place};

	if (*place == 0) {
		ASSERT(due->count < due->max);
		(void)due_rise(due, due->count++, item);
		return;
	}
	if (due->items[*place - 1].at_ms != at_ms)
		due_settle(due, *place - 1, item);
}

void due_clear(struct due *due, uint32_t *place)
{
	const uint32_t index = *place - 1;
	struct due_item last;

	if (*place == 0)
		return;
	ASSERT(index < due->count && due->items[index].place == place);
	last = due->items[--due->count];
	*place = 0;
	if (index < due->count)
		due_settle(due, index, last);
}

uint32_t *due_first(const struct due *due, int64_t *out_at_ms)
{
	if (due->count == 0)
		return NULL;
	*out_at_ms = due->items[0].at_ms;
	return due->items[0].place;
}
