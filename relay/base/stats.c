/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/stats.h"

#include "relay/base/assert.h"

static struct stats stats_unread;
_Thread_local struct stats *stats_mine = &stats_unread;

void stats_add(struct stats *sum, const struct stats *from)
{
#define STATS_SUM(name)                                                          \
	atomic_store_explicit(&sum->name,                                        \
		atomic_load_explicit(&sum->name, memory_order_relaxed) +         \
			atomic_load_explicit(&from->name, memory_order_relaxed), \
		memory_order_relaxed);
	STATS_LIST(STATS_SUM)
#undef STATS_SUM
#define STATS_LARGER(name)                                                       \
	if (atomic_load_explicit(&sum->name, memory_order_relaxed) <             \
		atomic_load_explicit(&from->name, memory_order_relaxed))         \
		atomic_store_explicit(&sum->name,                                \
			atomic_load_explicit(&from->name, memory_order_relaxed), \
			memory_order_relaxed);
	STATS_MAX_LIST(STATS_LARGER)
#undef STATS_LARGER
}

static size_t stats_print_one(
	const char *name, uint64_t value, char *out, size_t out_bytes, size_t at)
{
	int written;

	if (value == 0 || at >= out_bytes)
		return at;
	written = snprintf(out + at, out_bytes - at, "%s%s=%lu", at == 0 ? "" : " ", name,
		(unsigned long)value);
	if (written < 0 || (size_t)written >= out_bytes - at) {
		out[at] = '\0';
		return at;
	}
	return at + (size_t)written;
}

size_t stats_print(const struct stats *stats, char *out, size_t out_bytes)
{
	size_t at = 0;

	ASSERT(out_bytes > 0);
	out[0] = '\0';
#define STATS_PRINT(name)                                                                          \
	at = stats_print_one(#name, atomic_load_explicit(&stats->name, memory_order_relaxed), out, \
		out_bytes, at);
	STATS_LIST(STATS_PRINT)
	STATS_MAX_LIST(STATS_PRINT)
#undef STATS_PRINT
	return at;
}
