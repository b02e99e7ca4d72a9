/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/format.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct format_text {
	char *out;
	size_t len;
	size_t max;
};

static void format_put(struct format_text *text, const char *bytes, size_t len)
{
	const size_t room = text->max - text->len;
	const size_t take = len < room ? len : room;

	memcpy(text->out + text->len, bytes, take);
	text->len += take;
}

static void format_put_number(struct format_text *text, unsigned long number, bool is_negative)
{
	char digits[24];
	size_t at = sizeof(digits);

	do {
		digits[--at] = (char)('0' + number % 10);
		number /= 10;
	} while (number > 0);
	if (is_negative)
		digits[--at] = '-';
	format_put(text, digits + at, sizeof(digits) - at);
}

static void format_put_signed(struct format_text *text, int number)
{
	format_put_number(
		text, number < 0 ? 0UL - (unsigned long)number : (unsigned long)number, number < 0);
}

/* A va_list may be an array, which would not be handed on as one. */
struct format_args {
	va_list list;
};

/*
 * One conversion, of which at stands behind the '%'. Returns what is behind it; NULL: it is none
 * that we know.
 */

static const char *format_one(struct format_text *text, const char *at, struct format_args *args)
{
	const char *word;
	size_t len;
	char byte;

	switch (*at++) {
	case 's':
		word = va_arg(args->list, const char *);
		format_put(text, word, strlen(word));
		return at;
	case 'u':
		format_put_number(text, va_arg(args->list, unsigned), false);
		return at;
	case 'd':
		format_put_signed(text, va_arg(args->list, int));
		return at;
	case 'l':
	case 'z':
		if (*at != 'u')
			return NULL;
		format_put_number(text,
			at[-1] == 'l' ? va_arg(args->list, unsigned long)
				      : va_arg(args->list, size_t),
			false);
		return at + 1;
	case 'c':
		byte = (char)va_arg(args->list, int);
		format_put(text, &byte, 1);
		return at;
	case '%':
		format_put(text, "%", 1);
		return at;
	case '.':
		len = *at == '*' ? (size_t)va_arg(args->list, int) : 0;
		at += *at == '*' ? 1 : 0;
		for (; at[0] >= '0' && at[0] <= '9'; at++)
			len = 10 * len + (size_t)(at[0] - '0');
		if (*at != 's')
			return NULL;
		word = va_arg(args->list, const char *);
		format_put(text, word, strnlen(word, len));
		return at + 1;
	default:
		return NULL;
	}
}

/* False: a conversion that is not known, and what was written is worth nothing. */
static bool format_all(struct format_text *text, const char *format, struct format_args *args)
{
	while (format != NULL && *format != '\0') {
		const char *next = strchr(format, '%');
		const size_t words = next == NULL ? strlen(format) : (size_t)(next - format);

		format_put(text, format, words);
		if (next == NULL)
			return true;
		format = format_one(text, next + 1, args);
	}
	return format != NULL;
}

size_t format_vprint(char *out, size_t out_bytes, const char *format, va_list args)
{
	struct format_text text = {.out = out, .max = out_bytes - 1};
	struct format_args ours;
	bool done;
	int len;

	ASSERT(out_bytes > 0);
	va_copy(ours.list, args);
	done = format_all(&text, format, &ours);
	va_end(ours.list);
	if (done) {
		out[text.len] = '\0';
		return text.len;
	}
	len = vsnprintf(out, out_bytes, format, args);
	if (len < 0)
		len = 0;
	return (size_t)len < out_bytes ? (size_t)len : out_bytes - 1;
}

size_t format_print(char *out, size_t out_bytes, const char *format, ...)
{
	va_list args;
	size_t len;

	va_start(args, format);
	len = format_vprint(out, out_bytes, format, args);
	va_end(args);
	return len;
}
