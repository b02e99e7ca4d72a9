/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/log.h"

#include "relay/base/stats.h"
#include <stdarg.h>
#include <time.h>
#include <unistd.h>

_Atomic(enum log_level) log_level_max = LOG_LEVEL_INFO;

static _Thread_local struct log_buffer *log_mine;

void log_attach(struct log_buffer *buffer)
{
	log_mine = buffer;
}

static size_t log_stamp(char *out, size_t out_bytes)
{
	struct timespec now;
	struct tm utc;
	size_t len;
	int more;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	(void)gmtime_r(&now.tv_sec, &utc);
	len = strftime(out, out_bytes, "%Y-%m-%dT%H:%M:%S", &utc);
	more = snprintf(out + len, out_bytes - len, ".%03ldZ ", now.tv_nsec / 1000000);
	return len + (more > 0 ? (size_t)more : 0);
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

static size_t log_clip(int written, size_t room)
{
	if (written < 0 || room == 0)
		return 0;
	return (size_t)written < room ? (size_t)written : room - 1;
}

void log_event(
	enum log_level level, const char *session, const char *event, const char *format, ...)
{
	static const char *const words[] = {"error", "warning", NULL, "debug"};
	char line[LOG_LINE_BYTES_MAX];
	size_t len;
	va_list args;

	if (level > log_level_max)
		return;
	len = log_stamp(line, sizeof(line));
	if (session != NULL)
		len += log_clip(snprintf(line + len, sizeof(line) - len, "session=%s ", session),
			sizeof(line) - len);
	len += log_clip(
		snprintf(line + len, sizeof(line) - len, "event=%s", event), sizeof(line) - len);
	if (words[level] != NULL)
		len += log_clip(snprintf(line + len, sizeof(line) - len, " level=%s", words[level]),
			sizeof(line) - len);
	if (format[0] != '\0') {
		line[len++] = ' ';
		va_start(args, format);
		len += log_clip(vsnprintf(line + len, sizeof(line) - len, format, args),
			sizeof(line) - len);
		va_end(args);
	}
	if (len > sizeof(line) - 2)
		len = sizeof(line) - 2;
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
