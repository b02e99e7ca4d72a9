/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/protolog.h"

#include "relay/base/stats.h"
#include <stdarg.h>
#include <stdio.h>

#define DATA_BYTES_MAX 4096
#define NAME_FIELD_BYTES_MAX 512
#define CONTEXT_BYTES_MAX 1024

_Static_assert(
	DATA_BYTES_MAX + 3 * NAME_FIELD_BYTES_MAX + CONTEXT_BYTES_MAX + 256 <= LOGSET_ROW_BYTES_MAX,
	"all columns fit a row");

#define FIELDS                                                                              \
	"date-time,connector-id,session-id,sequence-number,local-endpoint,remote-endpoint," \
	"event,data,context"

static const struct logset_kind protolog_kinds[] = {
	[PROTOLOG_RECEIVE] = {"RECV", "Log-Type", "SMTP Receive Protocol Log", FIELDS},
	[PROTOLOG_SEND] = {"SEND", "Log-Type", "SMTP Send Protocol Log", FIELDS},
};

static const struct logset_about protolog_about = {
	"protocol-log-failed", protolog_kinds, COUNT_OF(protolog_kinds)};

static struct logset *protolog_logset; /* NULL: not started */

static _Thread_local unsigned protolog_worker = UINT_MAX;

int protolog_start(const struct logset_options *options, unsigned workers)
{
	ASSERT(protolog_logset == NULL);
	return logset_create(&protolog_about, options, workers, &protolog_logset);
}

void protolog_stop(void)
{
	logset_destroy(&protolog_logset);
}

void protolog_configure(const struct logset_options *options)
{
	if (protolog_logset != NULL)
		logset_configure(protolog_logset, options);
}

void protolog_attach(unsigned worker)
{
	protolog_worker = worker;
}

/* ---- rows */

static void protolog_row(struct protolog *log, char event, struct span data, struct span context)
{
	char connector[NAME_FIELD_BYTES_MAX], number[16];
	struct logset_row row;
	struct timespec now;

	if (!logset_is_kept(protolog_logset))
		return;
	(void)snprintf(number, sizeof(number), "%u", log->sequence++);
	(void)snprintf(connector, sizeof(connector), "%s\\%s", log->fqdn, log->connector);
	logset_clock(&now);
	logset_row_begin(&row, &now);
	logset_row_text(&row, connector, NAME_FIELD_BYTES_MAX);
	logset_row_text(&row, log->session, NAME_FIELD_BYTES_MAX);
	logset_row_text(&row, number, sizeof(number));
	logset_row_text(&row, log->local, NAME_FIELD_BYTES_MAX / 2);
	logset_row_text(&row, log->remote, NAME_FIELD_BYTES_MAX / 2);
	row.bytes[row.len++] = event;
	logset_row_comma(&row);
	logset_row_field(&row, data, DATA_BYTES_MAX);
	logset_row_comma(&row);
	logset_row_field(&row, context, CONTEXT_BYTES_MAX);
	logset_row_end(&row);
	if (!logset_append(protolog_logset, protolog_worker, log->set, &now,
		    span_make(row.bytes, row.len)))
		STAT(protolog_dropped);
}

/* ---- what the session says */

static bool line_has_verb(struct span line, const char *verb)
{
	struct span word = span_of(verb);

	return span_starts_nocase(line, word) &&
	       (line.len == word.len || line.data[word.len] <= ' ' || line.data[word.len] == ':');
}

static bool line_is_command(struct span line)
{
	static const char *const verbs[] = {"EHLO", "HELO", "MAIL", "RCPT", "DATA", "BDAT", "RSET",
		"NOOP", "QUIT", "VRFY", "EXPN", "HELP", "STARTTLS"};

	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (line_has_verb(line, verbs[i]))
			return true;
	return false;
}

static struct span line_strip(struct span line)
{
	while (line.len > 0 && line.data[0] <= ' ')
		line = span_skip(line, 1);
	return line;
}

/*
 * The line, or what stands for it. We offer no AUTH, but a client may try it all the same, and
 * send name and password without waiting; so all lines behind it are hidden, until one begins
 * with a verb that is known.
 */
static struct span protolog_hide(struct protolog *log, struct span line)
{
	struct span bare = line_strip(line);

	if (line_has_verb(bare, "AUTH") || line_has_verb(bare, "X-EXPS")) {
		log->hides_lines = true;
		return span_of(bare.data[0] == 'X' || bare.data[0] == 'x' ? "X-EXPS *" : "AUTH *");
	}
	if (line_is_command(bare))
		log->hides_lines = false;
	return log->hides_lines ? span_of("*") : line;
}

void protolog_open(struct protolog *log)
{
	if (!log->is_on)
		return;
	log->sequence = 0;
	log->hides_lines = false;
	protolog_row(log, '+', span_of(""), span_of(""));
}

void protolog_close(struct protolog *log, const char *why)
{
	if (!log->is_on)
		return;
	protolog_row(log, '-', span_of(""), span_of(why == NULL ? "" : why));
	log->is_on = false;
}

void protolog_received(struct protolog *log, struct span line)
{
	if (!log->is_on)
		return;
	if (log->set == PROTOLOG_RECEIVE)
		line = protolog_hide(log, line);
	protolog_row(log, '<', line, span_of(""));
}

/* Cuts the next line off, without its CR LF or LF. */
static struct span wire_line(struct span *wire)
{
	size_t end = span_find(*wire, '\n');
	struct span line = span_head(*wire, end);

	*wire = span_skip(*wire, end + 1);
	if (line.len > 0 && line.data[line.len - 1] == '\r')
		line.len--;
	return line;
}

static bool line_is_continued(struct span line)
{
	return line.len >= 4 && line.data[0] >= '2' && line.data[0] <= '5' && line.data[3] == '-';
}

void protolog_sent(struct protolog *log, struct span wire)
{
	if (!log->is_on)
		return;
	while (wire.len > 0) {
		char joined[DATA_BYTES_MAX];
		struct span line = wire_line(&wire);
		size_t len = 0;

		if (log->set == PROTOLOG_SEND) {
			protolog_row(log, '>', protolog_hide(log, line), span_of(""));
			continue;
		}
		for (;;) {
			struct span part = span_head(line, sizeof(joined) - len);

			memcpy(joined + len, part.data, part.len);
			len += part.len;
			if (!line_is_continued(line) || wire.len == 0)
				break;
			if (len + 2 <= sizeof(joined)) {
				memcpy(joined + len, "; ", 2);
				len += 2;
			}
			line = wire_line(&wire);
		}
		protolog_row(log, '>', span_make(joined, len), span_of(""));
	}
}

void protolog_note(struct protolog *log, const char *context, const char *format, ...)
{
	char data[DATA_BYTES_MAX];
	va_list args;

	if (!log->is_on)
		return;
	va_start(args, format);
	(void)vsnprintf(data, sizeof(data), format, args);
	va_end(args);
	protolog_row(log, '*', span_of(data), span_of(context == NULL ? "" : context));
}
