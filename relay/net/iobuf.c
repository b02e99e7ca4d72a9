/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/net/iobuf.h"

#include "relay/base/limits.h"
#include <errno.h>

static void iobufs_lend(struct iobufs *bufs, struct iobuf *buf)
{
	loop_buffers_give(bufs->loop, buf->data, buf->cap, buf->id);
	bufs->lent++;
}

static void iobufs_lend_up_to(struct iobufs *bufs, unsigned target)
{
	bufs->lent_target = target < bufs->lent_max ? target : bufs->lent_max;
	while (bufs->lent < bufs->lent_target && bufs->small_memory.used < bufs->small_memory.count)
		iobufs_lend(bufs, iobuf_take_small(bufs));
}

int iobufs_create(struct iobufs *bufs, struct loop *loop, unsigned own_count, unsigned bulk_count)
{
	unsigned small_count;
	int rc;

	ASSERT(own_count > 0 && bulk_count > 0);
	*bufs = (struct iobufs){.loop = loop, .lent_max = IOBUFS_LENT_MAX};
	while (bufs->lent_max > own_count && bufs->lent_max > IOBUFS_LENT_FIRST)
		bufs->lent_max /= 2;
	small_count = own_count + bufs->lent_max;
	if (small_count > 65536)
		return -E2BIG;
	bufs->small = calloc(small_count, sizeof(*bufs->small));
	bufs->bulk = calloc(bulk_count, sizeof(*bufs->bulk));
	rc = bufs->small == NULL || bufs->bulk == NULL ? -ENOMEM : 0;
	if (rc == 0)
		rc = pool_create(&bufs->small_memory, small_count, IOBUF_SMALL_BYTES, 4096);
	if (rc == 0)
		rc = pool_create(&bufs->bulk_memory, bulk_count, IOBUF_BULK_BYTES, 4096);
	if (rc < 0) {
		iobufs_destroy(bufs);
		return rc;
	}
	bufs->provided = loop_buffers_create(loop, bufs->lent_max) == 0;
	if (bufs->provided)
		iobufs_lend_up_to(bufs, IOBUFS_LENT_FIRST);
	return 0;
}

void iobufs_destroy(struct iobufs *bufs)
{
	/* What the kernel was lent comes back with the ring, which ends with the worker. */
	bufs->small_memory.used = 0;
	pool_destroy(&bufs->small_memory);
	pool_destroy(&bufs->bulk_memory);
	free(bufs->small);
	free(bufs->bulk);
	bufs->small = NULL;
	bufs->bulk = NULL;
}

struct iobuf *iobuf_take_small(struct iobufs *bufs)
{
	void *memory = pool_take(&bufs->small_memory);
	struct iobuf *buf;
	uint32_t index;

	ASSERT(memory != NULL);
	index = pool_index(&bufs->small_memory, memory);
	buf = &bufs->small[index];
	*buf = (struct iobuf){.data = memory, .cap = IOBUF_SMALL_BYTES, .id = (uint16_t)index};
	return buf;
}

struct iobuf *iobuf_take_bulk(struct iobufs *bufs)
{
	void *memory = pool_take(&bufs->bulk_memory);
	struct iobuf *buf;

	if (memory == NULL)
		return NULL;
	buf = &bufs->bulk[pool_index(&bufs->bulk_memory, memory)];
	*buf = (struct iobuf){.data = memory, .cap = IOBUF_BULK_BYTES, .is_bulk = true};
	return buf;
}

struct iobuf *iobuf_take(struct iobufs *bufs, bool bulk)
{
	struct iobuf *buf = bulk ? iobuf_take_bulk(bufs) : NULL;

	return buf != NULL ? buf : iobuf_take_small(bufs);
}

void iobuf_put(struct iobufs *bufs, struct iobuf **buf)
{
	struct iobuf *old = *buf;

	*buf = NULL;
	if (old == NULL)
		return;
	if (old->is_bulk)
		pool_put(&bufs->bulk_memory, old->data);
	else if (bufs->provided && bufs->lent < bufs->lent_target)
		iobufs_lend(bufs, old);
	else
		pool_put(&bufs->small_memory, old->data);
}

struct iobuf *iobuf_from_kernel(struct iobufs *bufs, uint16_t id)
{
	ASSERT(bufs->lent > 0 && id < bufs->small_memory.fresh);
	bufs->lent--;
	/* Replaced at once if it can be, so that a burst does not find the kernel without. */
	if (bufs->lent < bufs->lent_target / 2)
		iobufs_lend_up_to(bufs, bufs->lent_target);
	return &bufs->small[id];
}

void iobufs_lend_more(struct iobufs *bufs)
{
	iobufs_lend_up_to(bufs, bufs->lent_target * 2);
}
