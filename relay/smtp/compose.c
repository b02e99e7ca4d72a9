/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/compose.h"

#include "relay/smtp/reply.h"

/* A line being written; is_full once something did not fit. */
struct line_out {
	uint8_t *at;
	size_t bytes;
	size_t len;
	bool is_full;
};

static void line_add(struct line_out *line, const char *words, struct span value)
{
	size_t words_len = strlen(words);

	if (line->is_full || line->bytes - line->len < words_len + value.len) {
		line->is_full = true;
		return;
	}
	memcpy(line->at + line->len, words, words_len);
	if (value.len > 0)
		memcpy(line->at + line->len + words_len, value.data, value.len);
	line->len += words_len + value.len;
}

static size_t line_end(struct line_out *line)
{
	line_add(line, "\r\n", (struct span){0});
	return line->is_full ? 0 : line->len;
}

static const char *body_words(enum body_type body)
{
	switch (body) {
	case BODY_8BITMIME:
		return " BODY=8BITMIME";
	case BODY_BINARYMIME:
		return " BODY=BINARYMIME";
	case BODY_7BIT:
	case BODY_UNSAID:
		break;
	}
	return ""; /* the default (RFC 6152 3) */
}

size_t compose_mail(const struct command *command, uint64_t size_extra, unsigned offer,
	uint8_t *out, size_t out_bytes)
{
	struct line_out line = {.at = out, .bytes = out_bytes};
	char size[24];

	line_add(&line, "MAIL FROM:", command->path);
	if (command->params & PARAM_SIZE && offer & EHLO_SIZE) {
		(void)snprintf(
			size, sizeof(size), "%lu", (unsigned long)(command->size + size_extra));
		line_add(&line, " SIZE=", span_of(size));
	}
	line_add(&line, body_words(command->body), (struct span){0});
	if (command->params & PARAM_SMTPUTF8)
		line_add(&line, " SMTPUTF8", (struct span){0});
	if (command->params & PARAM_RET)
		line_add(&line, " RET=", command->ret);
	if (command->params & PARAM_ENVID)
		line_add(&line, " ENVID=", command->envid);
	return line_end(&line);
}

size_t compose_rcpt(const struct command *command, uint8_t *out, size_t out_bytes)
{
	struct line_out line = {.at = out, .bytes = out_bytes};

	line_add(&line, "RCPT TO:", command->path);
	if (command->params & PARAM_NOTIFY)
		line_add(&line, " NOTIFY=", command->notify);
	if (command->params & PARAM_ORCPT)
		line_add(&line, " ORCPT=", command->orcpt);
	return line_end(&line);
}

unsigned compose_needs(const struct command *command)
{
	unsigned needs = 0;

	if (command->body == BODY_8BITMIME)
		needs |= EHLO_8BITMIME;
	if (command->body == BODY_BINARYMIME)
		needs |= EHLO_BINARYMIME | EHLO_CHUNKING;
	if (command->params & PARAM_SMTPUTF8)
		needs |= EHLO_SMTPUTF8;
	if (command->params & (PARAM_RET | PARAM_ENVID | PARAM_NOTIFY | PARAM_ORCPT))
		needs |= EHLO_DSN;
	return needs;
}
