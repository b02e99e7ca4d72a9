/* SPDX-License-Identifier: Apache-2.0 */

/*
 * fuzz_firewall.c: firewall_next() lets through what one lets through with the whole message
 * at hand, line by line, whatever the split. The first byte seeds the splits, the second
 * has the classes.
 */

#include "relay/smtp/firewall.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_BYTES_MAX 4096
#define OURS "edge.test"

struct plain_out {
	size_t len;
	uint8_t bytes[FUZZ_BYTES_MAX];
	unsigned removed;
};

static void plain_add(struct plain_out *out, struct span piece)
{
	ASSERT(out->len + piece.len <= sizeof(out->bytes));
	if (piece.len > 0)
		memcpy(out->bytes + out->len, piece.data, piece.len);
	out->len += piece.len;
}

static bool plain_is(struct span in, size_t at, const char *any)
{
	return at < in.len && in.data[at] != '\0' && strchr(any, in.data[at]) != NULL;
}

/* How long the first line is without what ends it, and with that. */
static size_t plain_line(struct span in, size_t *out_whole)
{
	size_t len = 0;

	while (len < in.len && !plain_is(in, len, "\r\n"))
		len++;
	*out_whole = len;
	if (plain_is(in, len, "\r"))
		(*out_whole)++;
	if (plain_is(in, *out_whole, "\n"))
		(*out_whole)++;
	return len;
}

/* The first line and those that continue it. */
static struct span plain_field(struct span in)
{
	size_t whole;
	size_t at;

	(void)plain_line(in, &at);
	while (plain_is(in, at, " \t")) {
		(void)plain_line(span_skip(in, at), &whole);
		at += whole;
	}
	return span_head(in, at);
}

/* Where the comment at the cursor ends, or the field's end. */
static size_t plain_skip_comment(struct span field, size_t at)
{
	unsigned depth = 0;

	for (; at < field.len; at++) {
		if (plain_is(field, at, "\\") && !plain_is(field, at + 1, "\r\n"))
			at++;
		else if (plain_is(field, at, "("))
			depth++;
		else if (plain_is(field, at, ")") && --depth == 0)
			return at + 1;
	}
	return field.len;
}

/* Is the authserv-id at the cursor ours? *at becomes the place where that is known. */
static bool plain_is_ours(struct span field, size_t *at)
{
	const bool is_quoted = plain_is(field, *at, "\"");
	const char *want = OURS;

	for (*at += is_quoted ? 1 : 0; *at < field.len; (*at)++) {
		if (plain_is(field, *at, is_quoted ? "\r\n" : " \t\r\n;("))
			return !is_quoted && *want == '\0';
		if (is_quoted && plain_is(field, *at, "\""))
			return *want == '\0';
		if (is_quoted && plain_is(field, *at, "\\")) {
			(*at)++;
			if (*at == field.len || plain_is(field, *at, "\r\n"))
				return false;
		}
		if (*want == '\0' ||
			!span_equal_nocase(span_make(want, 1), span_make(field.data + *at, 1)))
			return false;
		want++;
	}
	return !is_quoted && *want == '\0';
}

/* Is it an Authentication-Results field that has to go? */
static bool plain_is_result(struct span field)
{
	size_t at = strlen("Authentication-Results");
	bool is_ours;

	if (!span_starts_nocase(field, span_of("Authentication-Results")))
		return false;
	while (plain_is(field, at, " \t"))
		at++;
	if (!plain_is(field, at, ":"))
		return at >= FIREWALL_HELD_MAX;
	for (at++; plain_is(field, at, " \t\r\n("); at++) {
		if (plain_is(field, at, "("))
			at = plain_skip_comment(field, at) - 1;
	}
	is_ours = plain_is_ours(field, &at);
	return is_ours || at >= FIREWALL_HELD_MAX;
}

static bool plain_has_prefix(struct span line, const char *prefix)
{
	return span_starts_nocase(line, span_of(prefix)) &&
	       (span_find(line, ':') < line.len || line.len >= FIREWALL_HELD_MAX);
}

static bool plain_goes(struct span in, unsigned classes)
{
	size_t whole;
	struct span line = span_head(in, plain_line(in, &whole));

	if (classes & FIREWALL_ORGANIZATION &&
		(plain_has_prefix(line, "X-MS-Exchange-Organization-") ||
			plain_has_prefix(line, "X-MS-Exchange-Forest-")))
		return true;
	return classes & FIREWALL_STAMP &&
	       (plain_has_prefix(line, "X-Postern-") || plain_is_result(plain_field(in)));
}

static bool plain_has_ended(const struct plain_out *out)
{
	if (out->len == 2)
		return memcmp(out->bytes, "\r\n", 2) == 0;
	return out->len >= 4 && memcmp(out->bytes + out->len - 4, "\r\n\r\n", 4) == 0;
}

static void plain_filter(struct span in, unsigned classes, struct plain_out *out)
{
	bool is_dropped = true; /* what is folded at the very start continues nothing */
	bool has_ended = false;

	while (in.len > 0 && !has_ended) {
		size_t whole;
		size_t len = plain_line(in, &whole);

		if (len == 0) {
			is_dropped = false;
		} else if (!plain_is(in, 0, " \t")) {
			is_dropped = plain_goes(in, classes);
			out->removed += is_dropped ? 1 : 0;
		}
		if (!is_dropped)
			plain_add(out, span_head(in, whole));
		has_ended = !is_dropped && plain_has_ended(out);
		in = span_skip(in, whole);
	}
	plain_add(out, in);
}

/* One piece through the firewall. */
static void feed(struct firewall *firewall, struct span piece, struct plain_out *got)
{
	while (piece.len > 0) {
		bool was_done = firewall->is_done;
		struct span passed = firewall_next(firewall, &piece);

		/* Whoever adds a field before the empty line must find a line's start. */
		if (firewall->is_done && !was_done) {
			ASSERT(passed.len >= 2 && memcmp(passed.data, "\r\n", 2) == 0);
			ASSERT(got->len == 0 || memcmp(got->bytes + got->len - 2, "\r\n", 2) == 0);
		}
		plain_add(got, passed);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct plain_out want = {0};
	struct plain_out got = {0};
	struct firewall firewall;
	struct span rest;
	uint32_t random;

	if (size < 2 || size > FUZZ_BYTES_MAX)
		return 0;
	random = data[0];
	rest = span_make(data + 2, size - 2);
	plain_filter(rest, data[1] & 3u, &want);
	firewall_init(&firewall, data[1] & 3u, OURS);
	while (rest.len > 0) {
		struct span piece;

		random = random * 1664525u + 1013904223u;
		piece = span_head(rest, (random >> 24) % (data[0] & 1 ? 7 : 200));
		rest = span_skip(rest, piece.len);
		feed(&firewall, piece, &got);
	}
	plain_add(&got, firewall_end(&firewall));
	ASSERT(firewall.removed == want.removed);
	ASSERT(span_equal(span_make(got.bytes, got.len), span_make(want.bytes, want.len)));
	return 0;
}
