/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/e2e/suite.h"

#include "tests/e2e/relay.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct suite suite;

PRINTF_LIKE(2, 0)
static _Noreturn void case_end(int status, const char *format, va_list args)
{
	char line[2048];
	int len = vsnprintf(line, sizeof(line), format, args);

	/* The reason is one line, whatever a peer has sent. */
	for (int i = 0; i < len && i < (int)sizeof(line) - 1; i++) {
		if (line[i] == '\r' || line[i] == '\n')
			line[i] = '|';
	}
	if (write(suite.report_fd, line, strlen(line)) < 0)
		status = 1;
	if (status == 1 && suite.is_verbose)
		relay_show_log();
	relay_kill();
	_exit(status);
}

void case_fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	case_end(1, format, args);
}

void case_skip(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	case_end(CASE_SKIPPED, format, args);
}

void case_check(bool holds, const char *format, ...)
{
	va_list args;

	if (holds)
		return;
	va_start(args, format);
	case_end(1, format, args);
}

static void text_reserve(struct text *text, size_t more)
{
	size_t skipped = text->base == NULL ? 0 : (size_t)(text->data - text->base);
	size_t need = text->len + more + 1;

	if (skipped + need <= text->cap)
		return;
	if (skipped > 0)
		memmove(text->base, text->data, text->len);
	/* Growing while much was dropped would only keep what is gone. */
	if (need > text->cap) {
		text->cap = need > 2 * text->cap ? need : 2 * text->cap;
		text->base = realloc(text->base, text->cap);
		if (text->base == NULL)
			abort();
	}
	text->data = text->base;
}

void text_add(struct text *text, const void *bytes, size_t len)
{
	text_reserve(text, len);
	if (len > 0)
		memcpy(text->data + text->len, bytes, len);
	text->len += len;
	text->data[text->len] = '\0';
}

void text_print(struct text *text, const char *format, ...)
{
	char line[4096];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (len < 0 || (size_t)len >= sizeof(line))
		abort();
	text_add(text, line, (size_t)len);
}

void text_drop(struct text *text, size_t len)
{
	text->data += len;
	text->len -= len;
	if (text->len == 0)
		text->data = text->base;
}

void text_clear(struct text *text)
{
	text_drop(text, text->len);
}

void text_free(struct text *text)
{
	free(text->base);
	*text = (struct text){0};
}

static bool line_has(const char *line, const char *words)
{
	char copy[512];
	char *rest = copy;
	const char *word;

	(void)snprintf(copy, sizeof(copy), "%s", words);
	while ((word = strsep(&rest, " ")) != NULL) {
		const char *at = line;
		size_t len = strlen(word);

		while ((at = strstr(at, word)) != NULL && at > line && at[-1] != ' ')
			at++;
		if (at == NULL ||
			(strncmp(word, "event=", 6) == 0 && at[len] != ' ' && at[len] != '\0'))
			return false;
	}
	return true;
}

unsigned text_count_lines(
	const struct text *text, size_t from, const char *words, char *last, size_t last_bytes)
{
	const char *at = text->len == 0 ? "" : text->data + from;
	unsigned count = 0;
	const char *end;

	for (; (end = strchr(at, '\n')) != NULL; at = end + 1) {
		char line[8192];

		(void)snprintf(line, sizeof(line), "%.*s", (int)(end - at), at);
		if (!line_has(line, words))
			continue;
		count++;
		if (last != NULL)
			(void)snprintf(last, last_bytes, "%s", line);
	}
	return count;
}

size_t text_difference(const struct text *a, const struct text *b)
{
	size_t at = 0;

	if (a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0))
		return a->len;
	while (at < a->len && at < b->len && a->data[at] == b->data[at])
		at++;
	return at;
}

/* By memchr, since AddressSanitizer's memmem looks at all that is left, each time. */
size_t text_line_end(const struct text *text, size_t from)
{
	size_t at = from;

	while (at < text->len) {
		const char *end = memchr(text->data + at, '\n', text->len - at);

		if (end == NULL)
			break;
		at = (size_t)(end - text->data) + 1;
		if (at >= from + 2 && end[-1] == '\r')
			return at - 2;
	}
	return text->len;
}

uint64_t now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void pause_ms(unsigned ms)
{
	struct timespec wait = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

	(void)nanosleep(&wait, NULL);
}

const char *pki_file(const char *name, const char *suffix, char *out, size_t out_bytes)
{
	(void)snprintf(out, out_bytes, "%s/%s%s", suite.pki, name, suffix);
	return out;
}
