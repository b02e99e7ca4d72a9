/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * span.h: bytes that somebody else owns, as pointer and length.
 *
 * A span is never NUL-terminated and may contain any byte. It is valid as long
 * as the buffer that it points into is neither consumed nor moved.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

struct span {
	const uint8_t *data; /* may be NULL when len is 0 */
	size_t len;
};

/* A span over a C string, without its NUL. */
static inline struct span span_of(const char *text)
{
	return (struct span){(const uint8_t *)text, strlen(text)};
}

static inline struct span span_make(const void *data, size_t len)
{
	return (struct span){data, len};
}

/* The first count bytes, or all if there are fewer. */
static inline struct span span_head(struct span s, size_t count)
{
	return (struct span){s.data, count < s.len ? count : s.len};
}

/* What remains behind the first count bytes; empty if there are fewer. */
static inline struct span span_skip(struct span s, size_t count)
{
	if (count >= s.len)
		return (struct span){s.data == NULL ? NULL : s.data + s.len, 0};
	return (struct span){s.data + count, s.len - count};
}

static inline bool span_equal(struct span a, struct span b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

/* Equal but for the case of ASCII letters: verbs, keywords, domains. */
static inline bool span_equal_nocase(struct span a, struct span b)
{
	return a.len == b.len &&
	       (a.len == 0 || strncasecmp((const char *)a.data, (const char *)b.data, a.len) == 0);
}

static inline bool span_starts_nocase(struct span s, struct span prefix)
{
	return s.len >= prefix.len && span_equal_nocase(span_head(s, prefix.len), prefix);
}

/* The index of byte, or s.len if it is not there. */
static inline size_t span_find(struct span s, uint8_t byte)
{
	const uint8_t *at = s.len == 0 ? NULL : memchr(s.data, byte, s.len);
	return at == NULL ? s.len : (size_t)(at - s.data);
}

/* Is there a byte beyond ASCII? 32 at a time, in two rows that do not wait for each other: it is
 * asked of all of a message. */
static inline bool span_has_high(struct span s)
{
	uint64_t words[4];
	uint64_t even = 0;
	uint64_t odd = 0;

	for (; s.len >= sizeof(words); s = span_skip(s, sizeof(words))) {
		memcpy(words, s.data, sizeof(words));
		even |= words[0] | words[2];
		odd |= words[1] | words[3];
	}
	for (size_t i = 0; i < s.len; i++)
		odd |= s.data[i];
	return ((even | odd) & UINT64_C(0x8080808080808080)) != 0;
}

/* Without spaces and tabs at either end. */
static inline struct span span_trim(struct span s)
{
	while (s.len > 0 && (s.data[0] == ' ' || s.data[0] == '\t'))
		s = span_skip(s, 1);
	while (s.len > 0 && (s.data[s.len - 1] == ' ' || s.data[s.len - 1] == '\t'))
		s.len--;
	return s;
}

/* A hash of a C string (FNV-1a), for tables whose keys a peer cannot choose freely. */
static inline uint64_t text_hash(const char *text)
{
	uint64_t hash = 14695981039346656037U;

	for (; *text != '\0'; text++)
		hash = (hash ^ (uint8_t)*text) * 1099511628211U;
	return hash;
}
