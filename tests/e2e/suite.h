/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * suite.h: what all cases of the matrix share: the options, how a case fails, and
 * a buffer that grows.
 *
 * Every case runs in a process of its own, with a relay and a next hop of its own.
 * So a case that fails or hangs just ends its process; nothing has to be undone.
 */

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* To the letter as in relay/base/assert.h, so that both may be included. */
#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

struct suite {
	const char *postern; /* the relay's program */
	const char *pki;     /* made by tests/pki.sh */
	char dir[128];       /* of our own, for the configuration */
	char address[32];    /* in 127.0.0.0/8, of this case alone */
	bool is_kernel;      /* records are expected in the kernel */
	bool can_rekey;      /* and it can take new keys for a connection (6.14) */
	bool is_verbose;     /* a failed case shows the relay's log */
	unsigned slow;       /* factor for every time limit: POSTERN_TEST_SLOW */
	size_t big_bytes;    /* of the largest body: POSTERN_TEST_BIG_BYTES */
	int report_fd;       /* where a case says why it failed */
};
extern struct suite suite;

/* How a case's process ends when nothing failed. */
#define CASE_SKIPPED 77

/* Ends the case. Only the case's own thread may call these. */
_Noreturn void case_fail(const char *format, ...) PRINTF_LIKE(1, 2);
_Noreturn void case_skip(const char *format, ...) PRINTF_LIKE(1, 2);

/* Ends the case unless what is expected holds. */
void case_check(bool holds, const char *format, ...) PRINTF_LIKE(2, 3);

/* Bytes, with a NUL behind them that does not count. Never NULL once something was added. */
struct text {
	char *data;
	size_t len;
	char *base; /* what was allocated: data moves on in it as bytes are dropped */
	size_t cap;
};

void text_add(struct text *text, const void *bytes, size_t len);
void text_print(struct text *text, const char *format, ...) PRINTF_LIKE(2, 3);

/* Takes bytes off the front. */
void text_drop(struct text *text, size_t len);
void text_clear(struct text *text);
void text_free(struct text *text);

/*
 * How many lines of a log, from that byte on, have all the words: each begins behind a blank and
 * may be the start of a longer value, but an event is whole. The last such line goes to last, which
 * may be NULL.
 */
unsigned text_count_lines(
	const struct text *text, size_t from, const char *words, char *last, size_t last_bytes);

/* Where the first difference is. */
size_t text_difference(const struct text *a, const struct text *b);

/* Where the next CR LF from an offset on begins; len if there is none. */
size_t text_line_end(const struct text *text, size_t from);

/* Monotonic milliseconds, and a wait. */
uint64_t now_ms(void);
void pause_ms(unsigned ms);

/* A name in the PKI directory: "adatum", ".pem". */
const char *pki_file(const char *name, const char *suffix, char *out, size_t out_bytes);
