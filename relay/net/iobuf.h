/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * iobuf.h: the I/O buffers of one worker, in two sizes.
 *
 * A connection holds a buffer only while bytes lie in it, so that an idle
 * session holds none. Small ones are also lent to the kernel, which picks one
 * when bytes arrive. There are enough small ones for every connection to hold
 * its four (received, gathered, on the wire, its owner's), so taking one cannot fail; bulk
 * ones speed up bodies and are taken while there are any.
 */

#include "relay/base/assert.h"
#include "relay/base/pool.h"
#include "relay/net/loop.h"

struct iobuf {
	uint8_t *data;
	uint32_t cap;
	uint16_t id; /* of a small buffer: its number, and the kernel's buffer id */
	bool is_bulk;
};

struct iobufs {
	struct loop *loop;
	struct pool small_memory;
	struct pool bulk_memory;
	struct iobuf *small; /* one for each object of small_memory */
	struct iobuf *bulk;
	bool provided;        /* the kernel picks receive buffers */
	unsigned lent;        /* small buffers that the kernel holds now */
	unsigned lent_target; /* how many it should hold */
	unsigned lent_max;
};

/* Small buffers that the kernel is lent at first; grows with need to the size of its ring. */
#define IOBUFS_LENT_FIRST 64
#define IOBUFS_LENT_MAX 4096

/*
 * Allocates both kinds and lends the first to the kernel. own_count: what the connections may
 * hold themselves; what the kernel is lent comes on top. -E2BIG: more than buffer ids.
 */
NODISCARD int iobufs_create(
	struct iobufs *bufs, struct loop *loop, unsigned own_count, unsigned bulk_count);
void iobufs_destroy(struct iobufs *bufs);

/* Never NULL: see above. */
struct iobuf *iobuf_take_small(struct iobufs *bufs);

/* NULL when all bulk buffers are in use. */
struct iobuf *iobuf_take_bulk(struct iobufs *bufs);

/* A bulk buffer if wanted and there is one, else a small one. */
struct iobuf *iobuf_take(struct iobufs *bufs, bool bulk);

/* Gives it back, to the kernel when that has too few. Clears the pointer. */
void iobuf_put(struct iobufs *bufs, struct iobuf **buf);

/* The buffer that a completion took. */
struct iobuf *iobuf_from_kernel(struct iobufs *bufs, uint16_t id);

/* The kernel had none left: lends it more, so that the receive can be asked for again. */
void iobufs_lend_more(struct iobufs *bufs);
