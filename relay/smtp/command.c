/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/command.h"

#include "relay/smtp/address.h"
#include "relay/smtp/chars.h"

/* EXCHANGE 4.7. */
static const char error_verb[] = "500 5.3.3 Unrecognized command";
static const char error_domain[] = "501 5.5.4 Invalid domain name";
static const char error_sender[] = "501 5.1.7 Invalid address";
static const char error_rcpt[] = "501 5.1.3 Invalid address";
static const char error_arguments[] = "501 5.5.4 Invalid arguments";
static const char error_option[] = "555 5.5.4 Unsupported option";

/* RFC 3461 4.4 and 4.2. */
#define ENVID_BYTES_MAX 100
#define ORCPT_BYTES_MAX 500

/* What may stand behind a verb. */
enum command_form {
	FORM_ANY,    /* nothing or anything */
	FORM_NONE,   /* nothing */
	FORM_WORDS,  /* something */
	FORM_DOMAIN, /* nothing, a domain, or an address literal */
	FORM_PATH,   /* "FROM:" or "TO:", a path, and parameters */
	FORM_CHUNK,  /* a size, and perhaps "LAST" */
};

static const struct command_syntax {
	const char *name;
	enum command_form form;
} command_verbs[VERB_COUNT] = {
	[VERB_UNKNOWN] = {"?", FORM_ANY},
	[VERB_EHLO] = {"EHLO", FORM_DOMAIN},
	[VERB_HELO] = {"HELO", FORM_DOMAIN},
	[VERB_MAIL] = {"MAIL", FORM_PATH},
	[VERB_RCPT] = {"RCPT", FORM_PATH},
	[VERB_DATA] = {"DATA", FORM_NONE},
	[VERB_BDAT] = {"BDAT", FORM_CHUNK},
	[VERB_RSET] = {"RSET", FORM_NONE},
	[VERB_NOOP] = {"NOOP", FORM_ANY},
	[VERB_VRFY] = {"VRFY", FORM_WORDS},
	[VERB_EXPN] = {"EXPN", FORM_WORDS},
	[VERB_HELP] = {"HELP", FORM_ANY},
	[VERB_QUIT] = {"QUIT", FORM_NONE},
	[VERB_STARTTLS] = {"STARTTLS", FORM_NONE},
	[VERB_AUTH] = {"AUTH", FORM_WORDS},
	[VERB_XCLIENT] = {"XCLIENT", FORM_ANY},
};

/* Cuts the text before the next separator off *rest, and the separator with it. */
static struct span command_take_until(struct span *rest, uint8_t separator)
{
	struct span word = span_head(*rest, span_find(*rest, separator));

	*rest = span_skip(*rest, word.len + 1);
	return word;
}

/* Cuts the next word off *rest, and all spaces behind it. */
static struct span command_take_word(struct span *rest)
{
	struct span word = command_take_until(rest, ' ');

	while (rest->len > 0 && rest->data[0] == ' ')
		*rest = span_skip(*rest, 1);
	return word;
}

static bool command_is_word(struct span text, const char *word)
{
	return span_equal_nocase(text, span_of(word));
}

static bool command_param_size(struct command *command, struct span value)
{
	return chars_to_number(value, &command->size);
}

static bool command_param_body(struct command *command, struct span value)
{
	if (command_is_word(value, "7BIT"))
		command->body = BODY_7BIT;
	else if (command_is_word(value, "8BITMIME"))
		command->body = BODY_8BITMIME;
	else if (command_is_word(value, "BINARYMIME"))
		command->body = BODY_BINARYMIME;
	return command->body != BODY_UNSAID;
}

static bool command_param_ret(struct command *command, struct span value)
{
	command->ret = value;
	return command_is_word(value, "FULL") || command_is_word(value, "HDRS");
}

/* Graphic characters, of which "+" announces two hexadecimal digits (RFC 3461 4). */
static bool command_is_xtext(struct span text)
{
	while (text.len > 0) {
		bool is_coded = text.data[0] == '+';

		if (text.data[0] == '=' || !char_is_graphic(text.data[0]))
			return false;
		if (is_coded &&
			(text.len < 3 || !char_is_hex(text.data[1]) || !char_is_hex(text.data[2])))
			return false;
		text = span_skip(text, is_coded ? 3 : 1);
	}
	return true;
}

static bool command_param_envid(struct command *command, struct span value)
{
	command->envid = value;
	return value.len <= ENVID_BYTES_MAX && command_is_xtext(value);
}

/* "NEVER", or a list of the others (RFC 3461 4.1). */
static bool command_param_notify(struct command *command, struct span value)
{
	command->notify = value;
	if (command_is_word(value, "NEVER"))
		return true;
	for (;;) {
		struct span word = span_head(value, span_find(value, ','));

		if (!command_is_word(word, "SUCCESS") && !command_is_word(word, "FAILURE") &&
			!command_is_word(word, "DELAY"))
			return false;
		if (word.len == value.len)
			return true;
		value = span_skip(value, word.len + 1);
	}
}

/* "rfc822;" and xtext (RFC 3461 4.2), or "utf-8;" and text of which UTF-8 is part (RFC 6533 3). */
static bool command_param_orcpt(struct command *command, struct span value)
{
	struct span rest = value;
	struct span type = command_take_until(&rest, ';');

	command->orcpt = value;
	if (value.len > ORCPT_BYTES_MAX || type.len == 0 || type.len == value.len)
		return false;
	for (size_t i = 0; i < type.len; i++) {
		if (!char_is_atext(type.data[i]))
			return false;
	}
	/* The parameter's own check has let through nothing but graphic ASCII and UTF-8. */
	return command_is_word(type, "utf-8") ? rest.len > 0 : command_is_xtext(rest);
}

static const struct command_option {
	const char *keyword;
	enum command_param param;
	enum verb verb;
	bool (*parse)(struct command *command, struct span value); /* NULL: it has no value */
} command_options[] = {
	{"SIZE", PARAM_SIZE, VERB_MAIL, command_param_size},
	{"BODY", PARAM_BODY, VERB_MAIL, command_param_body},
	{"SMTPUTF8", PARAM_SMTPUTF8, VERB_MAIL, NULL},
	{"RET", PARAM_RET, VERB_MAIL, command_param_ret},
	{"ENVID", PARAM_ENVID, VERB_MAIL, command_param_envid},
	{"NOTIFY", PARAM_NOTIFY, VERB_RCPT, command_param_notify},
	{"ORCPT", PARAM_ORCPT, VERB_RCPT, command_param_orcpt},
};

static const struct command_option *command_find_option(enum verb verb, struct span keyword)
{
	for (size_t i = 0; i < COUNT_OF(command_options); i++) {
		const struct command_option *option = &command_options[i];

		if (option->verb == verb && command_is_word(keyword, option->keyword))
			return option;
	}
	return NULL;
}

/* keyword or keyword=value, of the characters that RFC 5321 4.1.2 and RFC 6531 3.3 allow. */
static bool command_is_param(struct span keyword, struct span value, bool has_value)
{
	if (keyword.len == 0 || !char_is_let_dig(keyword.data[0]))
		return false;
	for (size_t i = 0; i < keyword.len; i++) {
		if (!char_is_let_dig(keyword.data[i]) && keyword.data[i] != '-')
			return false;
	}
	if (has_value && value.len == 0)
		return false;
	for (size_t i = 0; i < value.len; i++) {
		bool is_ascii = value.data[i] < 0x80;

		if (value.data[i] == '=' || (is_ascii && !char_is_graphic(value.data[i])))
			return false;
	}
	return address_is_utf8(value);
}

static const char *command_parse_param(struct command *command, struct span param)
{
	struct span value = param;
	struct span keyword = command_take_until(&value, '=');
	bool has_value = keyword.len < param.len;
	const struct command_option *option;

	if (!command_is_param(keyword, value, has_value))
		return error_arguments;
	option = command_find_option(command->verb, keyword);
	if (option == NULL)
		return error_option;
	/* Of two values, one server would take the first and another the last. */
	if ((command->params & (unsigned)option->param) != 0 ||
		has_value != (option->parse != NULL))
		return error_arguments;
	command->params |= (unsigned)option->param;
	if (option->parse != NULL && !option->parse(command, value))
		return error_arguments;
	return NULL;
}

/* Fills in the path without its source route; false if it is too long to be one. */
static bool command_set_path(struct command *command, const struct address_path *path)
{
	command->mailbox = path->mailbox;
	command->mail_domain = path->domain;
	command->path = path->whole;
	if (!path->has_route)
		return true;
	if (path->whole.len > sizeof(command->unrouted))
		return false;
	command->unrouted[0] = '<';
	memcpy(command->unrouted + 1, path->mailbox.data, path->mailbox.len);
	command->unrouted[path->mailbox.len + 1] = '>';
	command->path = span_make(command->unrouted, path->mailbox.len + 2);
	return true;
}

/* Only a sender may be empty, and only the postmaster who is written to may lack a domain. */
static bool command_is_path_allowed(enum verb verb, const struct address_path *path)
{
	if (verb == VERB_MAIL)
		return path->mailbox.len == 0 || path->domain.len > 0;
	return path->mailbox.len > 0;
}

static const char *command_parse_path(struct command *command, size_t address_bytes_max)
{
	bool is_mail = command->verb == VERB_MAIL;
	struct span label = span_of(is_mail ? "FROM:" : "TO:");
	const char *error_path = is_mail ? error_sender : error_rcpt;
	struct span rest = command->argument;
	struct address_path path;

	if (!span_starts_nocase(rest, label))
		return error_arguments;
	rest = span_trim(span_skip(rest, label.len));
	if (!address_take_path(&rest, &path) || path.mailbox.len > address_bytes_max)
		return error_path;
	if (!command_is_path_allowed(command->verb, &path) || !command_set_path(command, &path))
		return error_path;
	if (rest.len > 0 && rest.data[0] != ' ')
		return error_arguments;
	rest = span_trim(rest);
	command->param_text = rest;
	while (rest.len > 0) {
		const char *error = command_parse_param(command, command_take_word(&rest));

		if (error != NULL)
			return error;
	}
	return NULL;
}

/* U-labels are refused here: SMTPUTF8 is not yet on the table (RFC 6531 3.7.1). */
static const char *command_parse_domain(struct command *command)
{
	struct span rest = command->argument;

	if (rest.len == 0)
		return NULL;
	if (span_has_high(rest) || !address_take_domain(&rest) || rest.len > 0)
		return error_domain;
	command->domain = command->argument;
	return NULL;
}

static const char *command_parse_chunk(struct command *command)
{
	struct span rest = command->argument;
	struct span size = command_take_word(&rest);

	/* A size that wrapped would make commands of the message's own text. */
	if (!chars_to_number(size, &command->chunk_bytes) || command->chunk_bytes > INT64_MAX)
		return error_arguments;
	command->chunk_is_last = command_is_word(rest, "LAST");
	if (rest.len > 0 && !command->chunk_is_last)
		return error_arguments;
	return NULL;
}

static const char *command_parse_argument(struct command *command, size_t address_bytes_max)
{
	bool is_empty = command->argument.len == 0;

	switch (command_verbs[command->verb].form) {
	case FORM_ANY:
		return NULL;
	case FORM_NONE:
		return is_empty ? NULL : error_arguments;
	case FORM_WORDS:
		return is_empty ? error_arguments : NULL;
	case FORM_DOMAIN:
		return command_parse_domain(command);
	case FORM_PATH:
		return command_parse_path(command, address_bytes_max);
	case FORM_CHUNK:
		return command_parse_chunk(command);
	}
	UNREACHABLE();
}

static enum verb command_find_verb(struct span word)
{
	for (unsigned verb = VERB_UNKNOWN + 1; verb < VERB_COUNT; verb++) {
		if (command_is_word(word, command_verbs[verb].name))
			return (enum verb)verb;
	}
	return VERB_UNKNOWN;
}

enum command_status command_parse(struct span line, size_t address_bytes_max, struct command *out)
{
	/* Blanks at the end are ignored (RFC 5321 4.1.1), at the start they are not. */
	while (line.len > 0 && (line.data[line.len - 1] == ' ' || line.data[line.len - 1] == '\t'))
		line.len--;
	*out = (struct command){0};
	out->verb_text = command_take_until(&line, ' ');
	out->argument = span_trim(line);
	out->verb = command_find_verb(out->verb_text);
	if (out->verb == VERB_UNKNOWN)
		out->error = error_verb;
	else
		out->error = command_parse_argument(out, address_bytes_max);
	return out->error == NULL ? COMMAND_OK : COMMAND_BAD;
}

bool command_is_utf8(const struct command *command)
{
	return span_has_high(command->path) || span_has_high(command->param_text);
}

const char *verb_name(enum verb verb)
{
	ASSERT(verb < VERB_COUNT);
	return command_verbs[verb].name;
}
