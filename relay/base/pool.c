/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/pool.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define POOL_POISON(at, bytes) ASAN_POISON_MEMORY_REGION(at, bytes)
#define POOL_UNPOISON(at, bytes) ASAN_UNPOISON_MEMORY_REGION(at, bytes)
#else
#define POOL_POISON(at, bytes) ((void)(at), (void)(bytes))
#define POOL_UNPOISON(at, bytes) ((void)(at), (void)(bytes))
#endif

int pool_create(struct pool *pool, uint32_t count, size_t object_bytes, size_t align)
{
	size_t each = (object_bytes + align - 1) & ~(align - 1);
	void *memory;

	ASSERT(align >= 16 && (align & (align - 1)) == 0);
	ASSERT(count > 0 && each >= sizeof(void *));
	memory = mmap(NULL, each * count, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		return -errno;
	*pool = (struct pool){.memory = memory, .object_bytes = each, .count = count};
	return 0;
}

void pool_destroy(struct pool *pool)
{
	if (pool->memory == NULL)
		return;
	ASSERT(pool->used == 0);
	POOL_UNPOISON(pool->memory, pool->object_bytes * pool->fresh);
	(void)munmap(pool->memory, pool->object_bytes * pool->count);
	*pool = (struct pool){0};
}

void *pool_take(struct pool *pool)
{
	void *object = pool->free_first;

	if (object != NULL) {
		POOL_UNPOISON(object, pool->object_bytes);
		memcpy(&pool->free_first, object, sizeof(void *));
	} else if (pool->fresh < pool->count) {
		object = pool->memory + pool->object_bytes * pool->fresh++;
	} else {
		return NULL;
	}
	pool->used++;
	if (pool->used > pool->used_max)
		pool->used_max = pool->used;
	return object;
}

void pool_put(struct pool *pool, void *object)
{
	ASSERT(pool->used > 0 && pool_index(pool, object) < pool->fresh);
	memcpy(object, &pool->free_first, sizeof(void *));
	pool->free_first = object;
	pool->used--;
	POOL_POISON(object, pool->object_bytes);
}

uint32_t pool_index(const struct pool *pool, const void *object)
{
	size_t offset = (size_t)((const uint8_t *)object - pool->memory);

	ASSERT(offset % pool->object_bytes == 0);
	return (uint32_t)(offset / pool->object_bytes);
}

void *pool_at(const struct pool *pool, uint32_t index)
{
	ASSERT(index < pool->fresh);
	return pool->memory + pool->object_bytes * index;
}
