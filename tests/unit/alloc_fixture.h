/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * alloc_fixture.h: memory that runs out. For tests that are linked with --wrap=malloc,
 * --wrap=calloc and --wrap=realloc (Makefile), included once.
 */

#include <stdbool.h>
#include <stddef.h>

static unsigned alloc_left;
static bool alloc_fails;

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);

static inline bool alloc_is_over(void)
{
	if (!alloc_fails)
		return false;
	if (alloc_left == 0)
		return true;
	alloc_left--;
	return false;
}

void *__wrap_malloc(size_t bytes)
{
	return alloc_is_over() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
	return alloc_is_over() ? NULL : __real_calloc(count, bytes);
}

void *__wrap_realloc(void *old, size_t bytes)
{
	return alloc_is_over() ? NULL : __real_realloc(old, bytes);
}

static inline void alloc_limit(unsigned left)
{
	alloc_fails = true;
	alloc_left = left;
}

static inline void alloc_free(void)
{
	alloc_fails = false;
}
