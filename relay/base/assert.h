/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * assert.h: checks of our own mistakes, on in every build.
 *
 * What a peer sends or a kernel answers can never trip an ASSERT: those are
 * replies and return values. A failed ASSERT prints where and what, and aborts.
 */

#include <stdio.h>
#include <stdlib.h>

#define NODISCARD __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

#define ASSERT(condition)                                                        \
	do {                                                                     \
		if (__builtin_expect(!(condition), 0))                           \
			assert_failed(#condition, __FILE__, __LINE__, __func__); \
	} while (0)

#define UNREACHABLE() assert_failed("unreachable", __FILE__, __LINE__, __func__)

/* Number of elements of a true array. */
#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* From a member's address to the object that embeds it. */
#define OWNER_OF(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

#define BIT(n) (1u << (n))

/* Says what was expected and aborts; never returns. */
__attribute__((noreturn, cold)) static inline void assert_failed(
	const char *condition, const char *file, int line, const char *function)
{
	(void)fprintf(stderr, "postern: %s:%d: %s: assertion failed: %s\n", file, line, function,
		condition);
	abort();
}
