/* SPDX-License-Identifier: Apache-2.0 */

/*
 * ip_list_import.c: reads a list whole, and takes those that are made of lines apart: plain ones
 * and tables of Postfix.
 */

#include "policy/ip_list.h"
#include "policy/ip_list_private.h"
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define GENERATION_MARK "# generation "

/* ---- the whole text */

/* With a NUL behind it. -EFBIG, -ENOMEM or what reading says. */
static int text_slurp(FILE *in, char **out_text, size_t *out_len)
{
	size_t len = 0, room = 32768;
	char *text = NULL;
	int rc = 0;

	do {
		if (text == NULL || len == room) {
			char *grown = realloc(text, room * 2 + 1);

			if (grown == NULL) {
				rc = -ENOMEM;
				break;
			}
			text = grown;
			room *= 2;
		}
		errno = 0;
		len += fread(text + len, 1, room - len, in);
		if (ferror(in))
			rc = errno != 0 ? -errno : -EIO;
		else if (len > IP_LIST_FILE_BYTES_MAX)
			rc = -EFBIG;
	} while (rc == 0 && !feof(in));
	if (rc < 0) {
		free(text);
		return rc;
	}
	text[len] = '\0';
	*out_text = text;
	*out_len = len;
	return 0;
}

/* Editors of some systems put one in front of UTF-8. */
static size_t text_mark_bytes(const char *text, size_t len)
{
	return len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
}

static bool text_is_utf16(const char *text, size_t len)
{
	return len >= 2 && (memcmp(text, "\xff\xfe", 2) == 0 || memcmp(text, "\xfe\xff", 2) == 0);
}

/* ---- lines */

/* What is left of a line without comment and blanks around; its end is cut off in place. */
static char *line_trim(char *line)
{
	char *end = line + strcspn(line, "#");

	while (end > line && strchr(IP_LIST_BLANKS, end[-1]) != NULL)
		end--;
	*end = '\0';
	return line + strspn(line, IP_LIST_BLANKS);
}

/*
 * The next line of a text, its end cut off in place; false: there is none. One that cannot be
 * read is empty, and a mistake.
 */
static bool line_next(struct ip_import *import, unsigned line, char **at, char *end, char **out)
{
	char *text = *at;
	char *stop = text < end ? memchr(text, '\n', (size_t)(end - text)) : NULL;
	size_t len = 0;

	if (text >= end)
		return false;
	*at = stop == NULL ? end : stop + 1;
	if (stop == NULL)
		stop = end;
	len = (size_t)(stop - text);
	if (len > 0 && text[len - 1] == '\r')
		len--;
	if (len > IP_LIST_LINE_BYTES_MAX) {
		ip_import_mistake(import, line, "a line of %zu bytes, expected at most %d", len,
			IP_LIST_LINE_BYTES_MAX);
		len = 0;
	} else if (memchr(text, '\0', len) != NULL) {
		ip_import_mistake(import, line, "a NUL byte, expected text");
		len = 0;
	}
	text[len] = '\0';
	*out = text;
	return true;
}

/* "# generation 17" of a file of ours. */
static void line_generation(struct ip_import *import, unsigned line, const char *text)
{
	const char *number = text + strlen(GENERATION_MARK);
	char *end = NULL;
	uint64_t generation = 0;

	if (strncmp(text, GENERATION_MARK, strlen(GENERATION_MARK)) != 0)
		return;
	errno = 0;
	generation = strtoull(number, &end, 10);
	if (!isdigit((unsigned char)*number) || *end != '\0' || errno != 0 || generation == 0)
		ip_import_mistake(import, line,
			"a generation that is no number, expected \"" GENERATION_MARK "\" and how "
			"often the list was changed");
	else if (*import->generation != 0)
		ip_import_mistake(import, line, "a second generation, expected one");
	else
		*import->generation = generation;
}

static void import_lines(struct ip_import *import, char *text, size_t len)
{
	char *end = text + len, *line = NULL;

	for (unsigned number = 1; line_next(import, number, &text, end, &line); number++) {
		if (import->generation != NULL)
			line_generation(import, number, line);
		line = line_trim(line);
		if (line[0] != '\0')
			ip_import_plain(import, number, line);
	}
}

/* ---- tables of Postfix, cidr_table(5) and access(5) */

enum table_result {
	TABLE_LETS_IN,
	TABLE_REFUSES,
	TABLE_NUMBER, /* of a refusal, but with no text behind it, which there means to let in */
	TABLE_OTHER,
};

/* The result's first word, and whether others follow. */
static enum table_result table_result(const char *word, bool has_text)
{
	static const char *const let_in[] = {"OK", "RELAY", "permit"};
	static const char *const refuse[] = {"REJECT", "DEFER", "DEFER_IF_PERMIT", "DISCARD"};
	const size_t digits = strspn(word, "0123456789");
	const bool is_code = digits == 3 && (word[0] == '4' || word[0] == '5');

	for (unsigned i = 0; i < COUNT_OF(let_in); i++)
		if (strcasecmp(word, let_in[i]) == 0)
			return TABLE_LETS_IN;
	for (unsigned i = 0; i < COUNT_OF(refuse); i++)
		if (strcasecmp(word, refuse[i]) == 0)
			return TABLE_REFUSES;
	if (digits == 0 || word[digits] != '\0')
		return TABLE_OTHER;
	if (is_code)
		return has_text ? TABLE_REFUSES : TABLE_NUMBER;
	return has_text ? TABLE_OTHER : TABLE_LETS_IN;
}

/* "[2001:db8::]/32", "[2001:db8::/32]": in place. */
static void table_unbracket(char *pattern)
{
	char *close = strchr(pattern, ']');

	if (pattern[0] != '[' || close == NULL)
		return;
	memmove(close, close + 1, strlen(close + 1) + 1);
	memmove(pattern, pattern + 1, strlen(pattern + 1) + 1);
}

/* A logical line, without blanks in front. */
static void table_rule(struct ip_import *import, unsigned line, char *text)
{
	char *rest = text + strcspn(text, IP_LIST_BLANKS);
	char quote[IP_IMPORT_QUOTE_BYTES];
	char *result = rest + strspn(rest, IP_LIST_BLANKS);
	char *more = result + strcspn(result, IP_LIST_BLANKS);
	const bool has_text = more[strspn(more, IP_LIST_BLANKS)] != '\0';

	*more = '\0';
	*rest = '\0';
	if (strcasecmp(text, "if") == 0 || strcasecmp(text, "endif") == 0) {
		ip_import_mistake(import, line,
			"\"%s\", a condition, expected none: write the networks out that it leads "
			"to",
			text);
		return;
	}
	if (text[0] == '!') {
		ip_import_mistake(import, line,
			"\"%s\" means all addresses but these, expected the networks that are to "
			"be let in (OK) or refused (REJECT)",
			ip_import_quote(text, strlen(text), quote));
		return;
	}
	if (result[0] == '\0') {
		ip_import_mistake(import, line, "\"%s\" has no result, expected OK or REJECT",
			ip_import_quote(text, strlen(text), quote));
		return;
	}
	table_unbracket(text);
	switch (table_result(result, has_text)) {
	case TABLE_LETS_IN:
		ip_import_entry(import, line, text, 0);
		break;
	case TABLE_REFUSES:
		ip_import_entry(import, line, text, DOOR_EXCLUDED);
		break;
	case TABLE_NUMBER:
		ip_import_mistake(import, line,
			"result \"%s\" looks like a refusal, but a number alone lets in, "
			"expected OK or REJECT",
			result);
		break;
	case TABLE_OTHER:
		ip_import_mistake(import, line,
			"result \"%s\" neither lets in nor refuses, expected OK or REJECT (or "
			"another of access(5) that means one of them)",
			ip_import_quote(result, strlen(result), quote));
		break;
	}
}

/*
 * A line that begins with a blank goes on with the one before; comments and empty ones may lie
 * between. Of a rule only its first words are of interest, so what has no room is not missed.
 */
static void import_table(struct ip_import *import, char *text, size_t len)
{
	char rule[2 * IP_LIST_LINE_BYTES_MAX + 2] = "";
	char *end = text + len, *line = NULL;
	unsigned number = 1, rule_line = 0;

	for (; line_next(import, number, &text, end, &line); number++) {
		const bool goes_on = strchr(IP_LIST_BLANKS, line[0]) != NULL;
		const size_t used = strlen(rule);

		line = line_trim(line);
		if (line[0] == '\0')
			continue;
		if (goes_on && used > 0) {
			(void)snprintf(rule + used, sizeof(rule) - used, " %s", line);
			continue;
		}
		if (goes_on)
			ip_import_mistake(import, number,
				"blanks in front go on with the entry before, and there is none, "
				"expected none");
		if (used > 0)
			table_rule(import, rule_line, rule);
		(void)snprintf(rule, sizeof(rule), "%s", goes_on ? "" : line);
		rule_line = number;
	}
	if (rule[0] != '\0')
		table_rule(import, rule_line, rule);
}

/* ---- which form it has */

/* The first bytes of JSON; "[2001:db8::]/32" is of a table. */
static bool text_is_json(const char *text)
{
	text += strspn(text, " \t\r\n");
	return text[0] == '{' ||
	       (text[0] == '[' && text[1] != ':' && !isxdigit((unsigned char)text[1]));
}

/* By the first entry: a table has a second word, and that does not make it a range. */
static enum ip_list_format text_format(const char *text)
{
	char line[IP_LIST_LINE_BYTES_MAX + 1];
	const char *entry = NULL, *second = NULL;
	size_t word = 0;

	if (text_is_json(text))
		return IP_LIST_JSON;
	while (*text != '\0') {
		const size_t len = strcspn(text, "\n");

		(void)snprintf(line, sizeof(line), "%.*s",
			(int)(len < sizeof(line) ? len : sizeof(line) - 1), text);
		line[strcspn(line, "\r")] = '\0';
		entry = line_trim(line);
		if (entry[0] != '\0')
			break;
		text += len + (text[len] == '\n');
		entry = NULL;
	}
	if (entry == NULL || entry[0] == '!')
		return IP_LIST_PLAIN;
	word = strcspn(entry, IP_LIST_BLANKS);
	second = entry + word + strspn(entry + word, IP_LIST_BLANKS);
	if (second[0] == '\0' && strcasecmp(entry, "endif") != 0)
		return IP_LIST_PLAIN;
	return entry[word - 1] == '-' || second[0] == '-' ? IP_LIST_PLAIN : IP_LIST_POSTFIX_CIDR;
}

/* ---- all of it */

static void import_text(
	struct ip_import *import, char *text, size_t len, enum ip_list_format format)
{
	const size_t mark = text_mark_bytes(text, len);

	text += mark;
	len -= mark;
	if (text_is_utf16(text, len)) {
		ip_import_mistake(import, 1, "a text in UTF-16, expected UTF-8 or ASCII");
		return;
	}
	switch (format == IP_LIST_AUTO ? text_format(text) : format) {
	case IP_LIST_AUTO:
	case IP_LIST_PLAIN:
		import_lines(import, text, len);
		break;
	case IP_LIST_POSTFIX_CIDR:
		import->is_first_match = true;
		import_table(import, text, len);
		break;
	case IP_LIST_JSON:
		ip_import_json(import, text, len);
		break;
	}
}

int ip_import_run(struct ip_import *import, FILE *in, enum ip_list_format format,
	bool keeps_covered, struct cidr **out)
{
	char *text = NULL;
	size_t len = 0;
	int rc = text_slurp(in, &text, &len);

	if (rc == -EFBIG) {
		ip_import_mistake(
			import, 1, "more than %zu bytes, expected fewer", IP_LIST_FILE_BYTES_MAX);
		return -EINVAL;
	}
	if (rc < 0)
		return rc;
	import_text(import, text, len, format);
	/* It is no longer needed, and what follows takes memory. */
	free(text);
	rc = ip_import_settle(import, keeps_covered, out);
	ip_import_say_more(import);
	free(import->items);
	import->items = NULL;
	return rc;
}

int ip_list_import(FILE *in, const char *name, enum ip_list_format format, FILE *errors,
	FILE *notes, struct cidr **out)
{
	struct ip_import import = {.name = name, .errors = errors, .notes = notes};

	return ip_import_run(&import, in, format, false, out);
}

int ip_list_take(FILE *in, const char *name, FILE *errors, struct cidr **out)
{
	struct ip_import import = {.name = name, .errors = errors};

	return ip_import_run(&import, in, IP_LIST_PLAIN, true, out);
}
