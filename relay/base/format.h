/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * format.h: text by printf's rules, for what every message needs: log lines and replies.
 *
 * The C library's printf costs thousands of instructions for a line of a dozen values. This one
 * knows %s (with a precision, too), %c, %d, %u, %lu, %zu and %% itself and leaves a format with
 * anything else to it, so the text is the same.
 */

#include "relay/base/assert.h"
#include <stdarg.h>
#include <stddef.h>

/*
 * Writes to out, with a NUL behind it; what does not fit is cut off. Returns the length of what was
 * written. out_bytes is at least 1.
 */
size_t format_vprint(char *out, size_t out_bytes, const char *format, va_list args)
	PRINTF_LIKE(3, 0);

size_t format_print(char *out, size_t out_bytes, const char *format, ...) PRINTF_LIKE(3, 4);
