/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * pool.h: a fixed number of objects of one size, allocated at start.
 *
 * Memory that was never taken is never touched, so a large pool costs what was
 * in use at its busiest moment. The one last put is the next one taken.
 */

#include "relay/base/assert.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pool {
	uint8_t *memory;
	size_t object_bytes; /* rounded up to the alignment */
	uint32_t count;      /* objects it can hold */
	uint32_t fresh;      /* objects never taken so far: memory + fresh * object_bytes on */
	uint32_t used;
	uint32_t used_max; /* high-water mark */
	void *free_first;  /* its first bytes point to the next */
};

/* Room for count objects, each aligned to align (a power of two, at least 16). */
NODISCARD int pool_create(struct pool *pool, uint32_t count, size_t object_bytes, size_t align);

/* All objects must have been put back. */
void pool_destroy(struct pool *pool);

/* An object whose content is undefined, or NULL when all are in use. */
NODISCARD void *pool_take(struct pool *pool);

void pool_put(struct pool *pool, void *object);

/* The object's number, 0 to count - 1. */
uint32_t pool_index(const struct pool *pool, const void *object);

/* The object with that number; it must have been taken. */
void *pool_at(const struct pool *pool, uint32_t index);
