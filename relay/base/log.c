/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/log.h"

#include "relay/base/format.h"
#include "relay/base/stats.h"
#include <time.h>
#include <unistd.h>

_Atomic(enum log_level) log_level_max = LOG_LEVEL_INFO;

static _Thread_local struct log_buffer *log_mine;

void log_attach(struct log_buffer *buffer)
{
	log_mine = buffer;
}

/* A second's words are kept: many lines fall into one. */
static size_t log_stamp(char *out, size_t out_bytes)
{
	static _Thread_local time_t second;
	static _Thread_local char words[sizeof("2026-11-21T22:46:05")];
	struct timespec now;
	struct tm utc;
	unsigned ms;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	ms = (unsigned)(now.tv_nsec / 1000000);
	if (now.tv_sec != second || words[0] == '\0') {
		(void)gmtime_r(&now.tv_sec, &utc);
		(void)strftime(words, sizeof(words), "%Y-%m-%dT%H:%M:%S", &utc);
		second = now.tv_sec;
	}
	return format_print(out, out_bytes, "%s.%u%u%uZ ", words, ms / 100, ms / 10 % 10, ms % 10);
}

static void log_emit(const char *line, size_t len)
{
	if (log_mine == NULL) {
		ssize_t written = write(STDERR_FILENO, line, len);

		(void)written; /* nobody is left to tell */
		return;
	}
	if (len > LOG_BUFFER_BYTES - log_mine->len) {
		STAT(log_dropped);
		return;
	}
	memcpy(log_mine->bytes + log_mine->len, line, len);
	log_mine->len += len;
}

void log_event(
	enum log_level level, const char *session, const char *event, const char *format, ...)
{
	static const char *const words[] = {"error", "warning", NULL, "debug"};
	char line[LOG_LINE_BYTES_MAX];
	const size_t max = sizeof(line) - 1; /* the end of the line comes behind it */
	size_t len;
	va_list args;

	if (level > log_level_max)
		return;
	len = log_stamp(line, max);
	if (session != NULL)
		len += format_print(line + len, max - len, "session=%s ", session);
	len += format_print(line + len, max - len, "event=%s", event);
	if (words[level] != NULL)
		len += format_print(line + len, max - len, " level=%s", words[level]);
	if (format[0] != '\0') {
		len += format_print(line + len, max - len, " ");
		va_start(args, format);
		len += format_vprint(line + len, max - len, format, args);
		va_end(args);
	}
	line[len++] = '\n';
	log_emit(line, len);
}

static bool log_is_plain(uint8_t byte)
{
	return byte > ' ' && byte < 0x7f && byte != '"' && byte != '\\' && byte != '=';
}

const char *log_quote(struct span text, char *out, size_t out_bytes)
{
	static const char hex[] = "0123456789abcdef";
	bool plain = text.len > 0;
	size_t at = 0;

	ASSERT(out_bytes >= 8);
	for (size_t i = 0; plain && i < text.len; i++)
		plain = log_is_plain(text.data[i]);
	if (plain && text.len < out_bytes) {
		memcpy(out, text.data, text.len);
		out[text.len] = '\0';
		return out;
	}
	out[at++] = '"';
	for (size_t i = 0; i < text.len && at + 6 < out_bytes; i++) {
		uint8_t byte = text.data[i];

		if (log_is_plain(byte) || byte == ' ' || byte == '=') {
			out[at++] = (char)byte;
			continue;
		}
		out[at++] = '\\';
		out[at++] = 'x';
		out[at++] = hex[byte >> 4];
		out[at++] = hex[byte & 15];
	}
	out[at++] = '"';
	out[at] = '\0';
	return out;
}

const char *log_quote_text(const char *text, char *out, size_t out_bytes)
{
	return log_quote(span_of(text == NULL ? "-" : text), out, out_bytes);
}
