/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * dotend.h: finds the end of what DATA sends, CR LF . CR LF, in any pieces.
 *
 * The state says how much of the five bytes the text so far ends with. It starts at
 * DOT_LINE, as the body begins at the start of a line.
 */

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

enum dot_state {
	DOT_NONE,
	DOT_CR,
	DOT_LINE,   /* at the start of a line */
	DOT_DOT,    /* behind a dot there */
	DOT_DOT_CR, /* behind that and a CR */
	DOT_END,    /* the body is over */
};

static inline enum dot_state dot_step(enum dot_state state, char c)
{
	if (c == '\r')
		return state == DOT_DOT ? DOT_DOT_CR : DOT_CR;
	if (c == '\n')
		return state == DOT_DOT_CR ? DOT_END : state == DOT_CR ? DOT_LINE : DOT_NONE;
	return c == '.' && state == DOT_LINE ? DOT_DOT : DOT_NONE;
}

/*
 * Goes on to the end or through all bytes; returns how many belong to the body and its end.
 * Only dots are looked at closely: everything else passes at the speed of memchr.
 */
static inline size_t dot_feed(enum dot_state *state, const char *data, size_t bytes)
{
	enum dot_state now = *state;
	size_t at = 0;

	while (now != DOT_END && at < bytes) {
		const char *dot;
		size_t from = at;

		if (now != DOT_NONE) {
			now = dot_step(now, data[at++]);
			continue;
		}
		dot = memchr(data + at, '.', bytes - at);
		at = dot != NULL ? (size_t)(dot - data) : bytes;
		/* The two bytes before decide; behind the last dot they begin the next piece. */
		from = at - from > 2 ? at - 2 : from;
		while (from < at)
			now = dot_step(now, data[from++]);
		if (dot != NULL)
			now = dot_step(now, data[at++]);
	}
	*state = now;
	return at;
}

/*
 * The same, and gives the text to take in large pieces: without the dots that were stuffed, and
 * without the end.
 */
static inline size_t dot_unstuff(enum dot_state *state, const char *data, size_t bytes,
	void (*take)(void *owner, const char *text, size_t bytes), void *owner)
{
	enum dot_state now = *state;
	size_t begin = 0; /* of the piece under way */
	size_t at = 0;

	while (now != DOT_END && at < bytes) {
		const char *dot;
		size_t from = at;

		if (now == DOT_NONE) {
			dot = memchr(data + at, '.', bytes - at);
			at = dot != NULL ? (size_t)(dot - data) : bytes;
			from = at - from > 2 ? at - 2 : from;
			while (from < at)
				now = dot_step(now, data[from++]);
			if (dot == NULL)
				break;
		}
		/* A CR behind a lone dot waits: it is part of the end, or else of the text. */
		if ((now == DOT_LINE && data[at] == '.') || (now == DOT_DOT && data[at] == '\r')) {
			if (at > begin)
				take(owner, data + begin, at - begin);
			begin = at + 1;
		} else if (now == DOT_DOT_CR && data[at] == '\n') {
			begin = at + 1;
		} else if (now == DOT_DOT_CR) {
			take(owner, "\r", 1);
		}
		now = dot_step(now, data[at++]);
	}
	if (at > begin)
		take(owner, data + begin, at - begin);
	*state = now;
	return at;
}
