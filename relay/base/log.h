/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * log.h: one line an event, "key=value", the session first, on stderr.
 *
 *   2026-11-21T22:46:05.123Z session=0a1b... event=tls version=TLSv1.3 record=kernel
 *
 * A worker must never wait for a slow reader of stderr: its lines gather in a
 * buffer that its loop writes out. When that is full, lines are dropped and
 * counted. A thread without a buffer writes at once.
 */

#include "relay/base/assert.h"
#include "relay/base/span.h"

#define LOG_BUFFER_BYTES 131072
#define LOG_LINE_BYTES_MAX 4096

enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARNING,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG,
};

struct log_buffer {
	size_t len;
	char bytes[LOG_BUFFER_BYTES];
};

/* The most verbose level that is written. */
extern _Atomic(enum log_level) log_level_max;

/* This thread's lines go to buffer from now on; NULL: straight to stderr. */
void log_attach(struct log_buffer *buffer);

/*
 * Writes one event. session may be NULL. format gives the "key=value" pairs;
 * whatever a peer chose must come through log_quote().
 */
void log_event(enum log_level level, const char *session, const char *event, const char *format,
	...) PRINTF_LIKE(4, 5);

/*
 * Puts text into quotes when it needs them; controls, quotes and backslashes
 * become \xHH, long text is cut. Returns out, which is always terminated.
 */
const char *log_quote(struct span text, char *out, size_t out_bytes);

/* log_quote() of a C string; NULL is "-". */
const char *log_quote_text(const char *text, char *out, size_t out_bytes);
