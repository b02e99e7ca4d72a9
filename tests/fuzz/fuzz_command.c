/* SPDX-License-Identifier: Apache-2.0 */

/*
 * fuzz_command.c: command_parse() on any line. Its spans must lie in the line,
 * what it let through must be free of what would be read differently by the
 * next server, and a path, once parsed, must be parsed the same again.
 */

#include "relay/smtp/command.h"

#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_BYTES_MAX 2048
#define FUZZ_ADDRESS_MAX 571

static void fuzz_check_inside(struct span part, struct span whole)
{
	ASSERT(part.len == 0 ||
		(part.data >= whole.data && part.data + part.len <= whole.data + whole.len));
}

static void fuzz_check_spans(const struct command *command, struct span line)
{
	const struct span parts[] = {command->verb_text, command->argument, command->domain,
		command->mailbox, command->mail_domain, command->param_text, command->ret,
		command->envid, command->notify, command->orcpt};

	for (size_t i = 0; i < COUNT_OF(parts); i++)
		fuzz_check_inside(parts[i], line);
	if (command->path.data == command->unrouted)
		ASSERT(command->path.len <= sizeof(command->unrouted));
	else
		fuzz_check_inside(command->path, line);
}

/* No control can leave with a path or a parameter. */
static void fuzz_check_printable(struct span text)
{
	for (size_t i = 0; i < text.len; i++)
		ASSERT(text.data[i] >= ' ' && text.data[i] != 127);
}

static void fuzz_check_path(const struct command *command)
{
	struct span path = command->path;
	struct command again;
	char line[FUZZ_BYTES_MAX + 16];
	int len;

	ASSERT(path.len >= 2 && path.data[0] == '<' && path.data[path.len - 1] == '>');
	ASSERT(command->mailbox.len == path.len - 2);
	ASSERT(command->mailbox.len <= FUZZ_ADDRESS_MAX);
	ASSERT(span_equal(command->mailbox, span_make(path.data + 1, path.len - 2)));
	ASSERT(span_find(command->mail_domain, '@') == command->mail_domain.len);
	fuzz_check_printable(path);
	fuzz_check_printable(command->param_text);
	len = snprintf(line, sizeof(line), "%s:%.*s %.*s",
		command->verb == VERB_MAIL ? "MAIL FROM" : "RCPT TO", (int)path.len,
		(const char *)path.data, (int)command->param_text.len,
		(const char *)command->param_text.data);
	ASSERT(len > 0 && (size_t)len < sizeof(line));
	ASSERT(command_parse(span_make(line, (size_t)len), FUZZ_ADDRESS_MAX, &again) == COMMAND_OK);
	ASSERT(span_equal(again.path, path));
	ASSERT(span_equal(again.mail_domain, command->mail_domain));
	ASSERT(span_equal(again.param_text, command->param_text));
	ASSERT(again.params == command->params && again.size == command->size);
	ASSERT(command_is_utf8(&again) == command_is_utf8(command));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span line = span_make(data, size);
	struct command command;
	enum command_status status;

	if (size > FUZZ_BYTES_MAX)
		return 0;
	status = command_parse(line, FUZZ_ADDRESS_MAX, &command);
	ASSERT((status == COMMAND_OK) == (command.error == NULL));
	fuzz_check_spans(&command, line);
	if (status == COMMAND_BAD) {
		ASSERT(command.error[0] == '5' && command.error[3] == ' ');
		return 0;
	}
	ASSERT(command.verb != VERB_UNKNOWN);
	ASSERT(span_equal_nocase(command.verb_text, span_of(verb_name(command.verb))));
	ASSERT(command.chunk_bytes <= INT64_MAX);
	fuzz_check_printable(command.domain);
	if (command.verb == VERB_MAIL || command.verb == VERB_RCPT)
		fuzz_check_path(&command);
	return 0;
}
