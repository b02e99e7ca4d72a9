/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/spool.h"

#include "relay/base/log.h"
#include "relay/mail/envelope.h"
#include "relay/smtp/address.h"

#include <inttypes.h>
#include <time.h>

/* The longest text of an envelope, each byte as \xHH, in quotes. */
#define QUOTED_BYTES (UINT16_MAX * 4 + 3)

const char *spool_time_print(int64_t time_ms, char out[SPOOL_TIME_BYTES])
{
	const time_t seconds = (time_t)(time_ms / 1000);
	struct tm utc;
	size_t len = 0;

	if (time_ms > 0 && gmtime_r(&seconds, &utc) != NULL)
		len = strftime(out, SPOOL_TIME_BYTES, "%Y-%m-%dT%H:%M:%S", &utc);
	if (len == 0)
		(void)snprintf(out, SPOOL_TIME_BYTES, "-");
	else
		(void)snprintf(out + len, SPOOL_TIME_BYTES - len, ".%03dZ", (int)(time_ms % 1000));
	return out;
}

/* Bytes over 127 that are no UTF-8 are taken for ISO 8859-1. */
static void print_json_text(struct span text)
{
	const bool is_utf8 = address_is_utf8(text);

	(void)putchar('"');
	for (size_t i = 0; i < text.len; i++) {
		const uint8_t byte = text.data[i];

		if (byte == '"' || byte == '\\')
			(void)printf("\\%c", byte);
		else if (byte < ' ' || byte == 0x7f || (byte > 0x7f && !is_utf8))
			(void)printf("\\u%04x", byte);
		else
			(void)putchar(byte);
	}
	(void)putchar('"');
}

static void line_key(struct spool_line *line, const char *key)
{
	if (line->is_json)
		(void)printf("%s\"%s\": ", line->is_inner ? ", " : "", key);
	else
		(void)printf("%s%s=", line->is_inner ? " " : "", key);
	line->is_inner = true;
}

void spool_line_begin(struct spool_line *line, bool is_json)
{
	*line = (struct spool_line){.is_json = is_json};
	if (is_json)
		(void)putchar('{');
}

void spool_line_end(struct spool_line *line)
{
	if (line->is_json)
		(void)putchar('}');
	else
		(void)putchar('\n');
}

void spool_line_text(struct spool_line *line, const char *key, struct span text)
{
	static char quoted[QUOTED_BYTES];

	line_key(line, key);
	if (line->is_json)
		print_json_text(text);
	else
		(void)fputs(log_quote(text, quoted, sizeof(quoted)), stdout);
}

void spool_line_word(struct spool_line *line, const char *key, const char *word)
{
	spool_line_text(line, key, span_of(word));
}

void spool_line_number(struct spool_line *line, const char *key, uint64_t number)
{
	line_key(line, key);
	(void)printf("%" PRIu64, number);
}

void spool_line_id(struct spool_line *line, const char *key, uint64_t id)
{
	char text[MESSAGE_ID_TEXT_BYTES];

	message_id_print(id, text);
	spool_line_word(line, key, text);
}

void spool_line_time(struct spool_line *line, const char *key, int64_t time_ms)
{
	char text[SPOOL_TIME_BYTES];

	spool_line_word(line, key, spool_time_print(time_ms, text));
}

void spool_line_list(struct spool_line *line, const char *key)
{
	if (!line->is_json)
		return;
	line_key(line, key);
	(void)putchar('[');
}

void spool_line_item(struct spool_line *line, bool is_first)
{
	if (!line->is_json)
		return;
	(void)fputs(is_first ? "{" : "}, {", stdout);
	line->is_inner = false;
}

void spool_line_list_end(struct spool_line *line, bool is_empty)
{
	if (!line->is_json)
		return;
	(void)fputs(is_empty ? "]" : "}]", stdout);
	line->is_inner = true;
}
