/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/filter.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

/* Of a word that is shown in a mistake. */
#define SHOWN_BYTES 40

static const char *const op_words[] = {
	[FILTER_EQ] = "-eq",
	[FILTER_NE] = "-ne",
	[FILTER_GT] = "-gt",
	[FILTER_GE] = "-ge",
	[FILTER_LT] = "-lt",
	[FILTER_LE] = "-le",
	[FILTER_LIKE] = "-like",
	[FILTER_AND] = "-and",
	[FILTER_OR] = "-or",
};

enum token_kind {
	TOKEN_END,
	TOKEN_OPEN,
	TOKEN_CLOSE,
	TOKEN_WORD,
	TOKEN_QUOTED,
	TOKEN_BROKEN, /* a quote without its end */
};

struct token {
	enum token_kind kind;
	size_t at;        /* its first byte */
	const char *text; /* as it was written, without quotes */
	size_t len;
};

struct parser {
	const char *text;
	size_t next; /* byte behind the token */
	struct token token;
	struct filter *filter;
	char *why;
};

/* ---- tokens */

static bool is_blank(char byte)
{
	return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

static bool is_quote(char byte)
{
	return byte == '\'' || byte == '"';
}

/* A quoted text; parser->next is at its quote. */
static void parser_take_quoted(struct parser *parser)
{
	const char quote = parser->text[parser->next++];
	size_t at = parser->next;

	parser->token.text = parser->text + at;
	for (;;) {
		if (parser->text[at] == quote && parser->text[at + 1] == quote) {
			at += 2;
			continue;
		}
		if (parser->text[at] == quote || parser->text[at] == '\0')
			break;
		at++;
	}
	parser->token.kind = parser->text[at] == quote ? TOKEN_QUOTED : TOKEN_BROKEN;
	parser->token.len = at - parser->next;
	parser->next = at + (parser->text[at] == quote ? 1 : 0);
}

static void parser_advance(struct parser *parser)
{
	const char *text = parser->text;
	size_t at = parser->next;

	while (is_blank(text[at]))
		at++;
	parser->next = at;
	parser->token = (struct token){.at = at, .text = text + at, .len = 1};
	if (text[at] == '\0') {
		parser->token.kind = TOKEN_END;
		parser->token.len = 0;
	} else if (text[at] == '(' || text[at] == ')') {
		parser->token.kind = text[at] == '(' ? TOKEN_OPEN : TOKEN_CLOSE;
		parser->next++;
	} else if (is_quote(text[at])) {
		parser_take_quoted(parser);
	} else {
		while (text[at] != '\0' && !is_blank(text[at]) && text[at] != '(' &&
			text[at] != ')' && !is_quote(text[at]))
			at++;
		parser->token.kind = TOKEN_WORD;
		parser->token.len = at - parser->next;
		parser->next = at;
	}
}

static bool token_is(const struct token *token, const char *word)
{
	return token->kind == TOKEN_WORD && strlen(word) == token->len &&
	       strncasecmp(token->text, word, token->len) == 0;
}

/* ---- mistakes */

static int parser_fail(const struct parser *parser, const char *format, ...) PRINTF_LIKE(2, 3);

/* About the token; format is what was expected. -EINVAL. */
static int parser_fail(const struct parser *parser, const char *format, ...)
{
	const struct token *token = &parser->token;
	char shown[SHOWN_BYTES + 1];
	const size_t len = token->len < SHOWN_BYTES ? token->len : SHOWN_BYTES;
	int used;
	va_list args;

	memcpy(shown, token->text, len);
	for (size_t i = 0; i < len; i++)
		if (shown[i] < ' ' || shown[i] > '~')
			shown[i] = '?';
	shown[len] = '\0';
	if (token->kind == TOKEN_END)
		used = snprintf(parser->why, FILTER_WHY_BYTES, "at %zu: the filter ends, expected ",
			token->at + 1);
	else
		used = snprintf(parser->why, FILTER_WHY_BYTES, "at %zu: %s%s%s%s, expected ",
			token->at + 1, token->kind == TOKEN_BROKEN ? "" : "\"", shown,
			token->len > len ? "..." : "", token->kind == TOKEN_BROKEN ? "" : "\"");
	va_start(args, format);
	(void)vsnprintf(parser->why + used, FILTER_WHY_BYTES - (size_t)used, format, args);
	va_end(args);
	return -EINVAL;
}

/* "Active, Ready, Retry" */
static void words_print(const char *const *words, size_t count, char *out, size_t out_bytes)
{
	size_t len = 0;

	out[0] = '\0';
	for (size_t i = 0; i < count && words[i] != NULL && len < out_bytes; i++)
		len += (size_t)snprintf(
			out + len, out_bytes - len, "%s%s", i == 0 ? "" : ", ", words[i]);
}

static int fail_property(const struct parser *parser)
{
	char names[FILTER_WHY_BYTES - 96];
	const char *words[32] = {NULL};
	const struct filter_property *properties = parser->filter->properties;

	for (unsigned i = 0; i < COUNT_OF(words) && properties[i].name != NULL; i++)
		words[i] = properties[i].name;
	words_print(words, COUNT_OF(words), names, sizeof(names));
	return parser_fail(parser, "\"(\" or one of %s", names);
}

static int fail_operator(const struct parser *parser, enum filter_kind kind)
{
	return parser_fail(parser, "one of %s",
		kind == FILTER_TEXT || kind == FILTER_WORD ? "-eq, -ne, -like"
							   : "-eq, -ne, -gt, -ge, -lt, -le");
}

/* ---- values */

/* The token's text among the filter's own. There is room: it is no longer than the filter. */
static const char *parser_keep(struct parser *parser)
{
	struct filter *filter = parser->filter;
	const struct token *token = &parser->token;
	char *out = filter->texts + filter->texts_len;
	size_t len = 0;

	for (size_t i = 0; i < token->len; i++) {
		out[len++] = token->text[i];
		/* Only a doubled quote is in a quoted text. */
		if (token->kind == TOKEN_QUOTED && token->text[i] == token->text[-1])
			i++;
	}
	out[len] = '\0';
	filter->texts_len += len + 1;
	return out;
}

/* Digits, at *at, of which there is one at least. */
static bool number_read(const char **at, int64_t *out)
{
	const char *text = *at;

	*out = 0;
	for (; **at >= '0' && **at <= '9'; (*at)++)
		if (__builtin_mul_overflow(*out, 10, out) ||
			__builtin_add_overflow(*out, **at - '0', out))
			return false;
	return *at != text;
}

static bool size_read(const char *text, int64_t *out)
{
	static const struct {
		const char *unit;
		unsigned shift;
	} units[] = {{"", 0}, {"B", 0}, {"KB", 10}, {"MB", 20}, {"GB", 30}, {"TB", 40}};

	if (!number_read(&text, out))
		return false;
	while (is_blank(*text))
		text++;
	for (unsigned i = 0; i < COUNT_OF(units); i++)
		if (strcasecmp(text, units[i].unit) == 0)
			return !__builtin_mul_overflow(*out, INT64_C(1) << units[i].shift, out);
	return false;
}

/* Two digits, and none behind them. */
static bool time_read_part(const char **at, char before, int *out)
{
	const char *text = *at;

	if (*text != before && !(before == 'T' && *text == ' '))
		return false;
	text++;
	if (text[0] < '0' || text[0] > '9' || text[1] < '0' || text[1] > '9')
		return false;
	*out = (text[0] - '0') * 10 + text[1] - '0';
	*at = text + 2;
	return true;
}

/* "2026-11-21", "2026-11-21T22:46", "2026-11-21 22:46:05", with or without "Z": all UTC. */
static bool time_read(const char *text, int64_t *out)
{
	struct tm tm = {0};
	struct tm asked;
	int64_t year = 0;
	time_t seconds;

	if (strcspn(text, "-") != 4 || !number_read(&text, &year) || year < 1970)
		return false;
	tm.tm_year = (int)year - 1900;
	if (!time_read_part(&text, '-', &tm.tm_mon) || !time_read_part(&text, '-', &tm.tm_mday))
		return false;
	tm.tm_mon--;
	if (*text != '\0' && (!time_read_part(&text, 'T', &tm.tm_hour) ||
				     !time_read_part(&text, ':', &tm.tm_min)))
		return false;
	if (*text == ':' && !time_read_part(&text, ':', &tm.tm_sec))
		return false;
	if (*text == 'Z' || *text == 'z')
		text++;
	/* A day that the month does not have comes back as another. */
	asked = tm;
	seconds = timegm(&tm);
	*out = (int64_t)seconds * 1000;
	return *text == '\0' && tm.tm_mon == asked.tm_mon && tm.tm_mday == asked.tm_mday &&
	       tm.tm_hour == asked.tm_hour && tm.tm_min == asked.tm_min &&
	       tm.tm_sec == asked.tm_sec;
}

static bool word_is_one_of(const char *word, const char *const *words)
{
	for (unsigned i = 0; words[i] != NULL; i++)
		if (strcasecmp(word, words[i]) == 0)
			return true;
	return false;
}

static int value_check_word(
	const struct parser *parser, const struct filter_property *property, const char *text)
{
	char words[FILTER_WHY_BYTES / 2];

	if (word_is_one_of(text, property->words))
		return 0;
	words_print(property->words, SIZE_MAX, words, sizeof(words));
	return parser_fail(parser, "one of %s", words);
}

static int parser_take_value(struct parser *parser, struct filter_node *node)
{
	const struct filter_property *property = &parser->filter->properties[node->property];
	const bool is_null = token_is(&parser->token, "$null");
	const char *text;
	int rc = 0;

	if (parser->token.kind == TOKEN_BROKEN)
		return parser_fail(parser, "a quote at its end");
	if (parser->token.kind != TOKEN_WORD && parser->token.kind != TOKEN_QUOTED)
		return parser_fail(parser, "a value, as 'text', 10 or 10MB");
	text = parser_keep(parser);
	node->text = is_null ? "" : text;
	if (is_null && (node->op == FILTER_EQ || node->op == FILTER_NE) &&
		(property->kind == FILTER_TEXT || property->kind == FILTER_TIME)) {
		node->number = 0;
	} else if (property->kind == FILTER_WORD && node->op != FILTER_LIKE) {
		rc = value_check_word(parser, property, text);
	} else if (property->kind == FILTER_NUMBER) {
		if (!number_read(&text, &node->number) || *text != '\0')
			rc = parser_fail(parser, "a whole number, not negative");
	} else if (property->kind == FILTER_SIZE) {
		if (!size_read(text, &node->number))
			rc = parser_fail(parser, "a size, as 10240, 10KB or 2MB");
	} else if (property->kind == FILTER_TIME) {
		if (!time_read(text, &node->number))
			rc = parser_fail(parser, "a time, as 2026-11-21T22:46:05Z or 2026-11-21");
	}
	if (rc == 0)
		parser_advance(parser);
	return rc;
}

/* ---- terms */

static int parser_add(struct parser *parser, const struct filter_node *node, unsigned *out)
{
	struct filter *filter = parser->filter;

	if (filter->count == FILTER_NODES_MAX)
		return parser_fail(parser, "no more than %d comparisons", FILTER_NODES_MAX / 2);
	filter->nodes[filter->count] = *node;
	*out = filter->count++;
	return 0;
}

static int parser_take_comparison(struct parser *parser, unsigned *out)
{
	const struct filter_property *properties = parser->filter->properties;
	struct filter_node node = {0};
	bool is_ordered;
	int rc;

	while (properties[node.property].name != NULL &&
		!token_is(&parser->token, properties[node.property].name))
		node.property++;
	if (properties[node.property].name == NULL)
		return fail_property(parser);
	parser_advance(parser);
	is_ordered = properties[node.property].kind != FILTER_TEXT &&
		     properties[node.property].kind != FILTER_WORD;
	while (node.op < FILTER_AND && !token_is(&parser->token, op_words[node.op]))
		node.op++;
	if (node.op == FILTER_AND || (node.op == FILTER_LIKE && is_ordered) ||
		(node.op >= FILTER_GT && node.op <= FILTER_LE && !is_ordered))
		return fail_operator(parser, properties[node.property].kind);
	parser_advance(parser);
	rc = parser_take_value(parser, &node);
	return rc < 0 ? rc : parser_add(parser, &node, out);
}

static int parser_take_filter(struct parser *parser, unsigned depth, unsigned *out);

static int parser_take_term(struct parser *parser, unsigned depth, unsigned *out)
{
	int rc;

	if (parser->token.kind != TOKEN_OPEN)
		return parser_take_comparison(parser, out);
	if (depth == FILTER_DEPTH_MAX)
		return parser_fail(
			parser, "no more than %d parentheses in one another", FILTER_DEPTH_MAX);
	parser_advance(parser);
	rc = parser_take_filter(parser, depth + 1, out);
	if (rc == 0 && parser->token.kind != TOKEN_CLOSE)
		rc = parser_fail(parser, "-and, -or or \")\"");
	if (rc == 0)
		parser_advance(parser);
	return rc;
}

/* Its depth is bounded by FILTER_DEPTH_MAX. */
static int parser_take_filter(struct parser *parser, unsigned depth, unsigned *out)
{
	int rc = parser_take_term(parser, depth, out);
	enum filter_op first = FILTER_EQ;

	while (rc == 0) {
		struct filter_node node = {.left = *out};

		if (token_is(&parser->token, op_words[FILTER_AND]))
			node.op = FILTER_AND;
		else if (token_is(&parser->token, op_words[FILTER_OR]))
			node.op = FILTER_OR;
		else
			break;
		if (first != FILTER_EQ && first != node.op)
			return parser_fail(parser, "parentheses: -and and -or stand side by side");
		first = node.op;
		parser_advance(parser);
		rc = parser_take_term(parser, depth, &node.right);
		if (rc == 0)
			rc = parser_add(parser, &node, out);
	}
	return rc;
}

int filter_parse(const char *text, const struct filter_property *properties, struct filter *out,
	char why[static FILTER_WHY_BYTES])
{
	struct parser parser = {.text = text, .filter = out, .why = why};
	int rc;

	out->properties = properties;
	out->count = 0;
	out->root = 0;
	out->texts_len = 0;
	/* Each text that is kept is shorter, with its NUL, than what it was made of. */
	if (strlen(text) >= FILTER_BYTES_MAX) {
		(void)snprintf(why, FILTER_WHY_BYTES,
			"at %d: the filter goes on, expected at most %d bytes", FILTER_BYTES_MAX,
			FILTER_BYTES_MAX - 1);
		return -EINVAL;
	}
	parser_advance(&parser);
	rc = parser_take_filter(&parser, 0, &out->root);
	if (rc == 0 && parser.token.kind != TOKEN_END)
		rc = parser_fail(&parser, "-and, -or or the end of the filter");
	return rc;
}

/* ---- rows */

static bool byte_is_like(char a, char b)
{
	return strncasecmp(&a, &b, 1) == 0;
}

/* The last "*" takes one more byte whenever what stands behind it does not fit. */
static bool text_is_like(const char *text, const char *pattern)
{
	const char *star = NULL;
	const char *star_text = NULL;

	while (*text != '\0') {
		if (*pattern == '*') {
			star = pattern++;
			star_text = text;
		} else if (*pattern == '?' || byte_is_like(*pattern, *text)) {
			pattern++;
			text++;
		} else if (star != NULL) {
			pattern = star + 1;
			text = ++star_text;
		} else {
			return false;
		}
	}
	while (*pattern == '*')
		pattern++;
	return *pattern == '\0';
}

static bool text_matches(const struct filter_node *node, const char *text)
{
	if (node->op == FILTER_LIKE)
		return text_is_like(text, node->text);
	return (strcasecmp(text, node->text) == 0) == (node->op == FILTER_EQ);
}

static bool number_matches(const struct filter_node *node, enum filter_kind kind, int64_t number)
{
	/* There was no such time: it is neither before nor after another. */
	if (kind == FILTER_TIME && number == 0 && node->op != FILTER_EQ && node->op != FILTER_NE)
		return false;
	switch (node->op) {
	case FILTER_EQ:
		return number == node->number;
	case FILTER_NE:
		return number != node->number;
	case FILTER_GT:
		return number > node->number;
	case FILTER_GE:
		return number >= node->number;
	case FILTER_LT:
		return number < node->number;
	case FILTER_LE:
		return number <= node->number;
	case FILTER_LIKE:
	case FILTER_AND:
	case FILTER_OR:
		break;
	}
	UNREACHABLE();
}

/* Nodes stand behind those that they are made of: one pass from the first to the root. */
bool filter_matches(const struct filter *filter,
	void (*get)(const void *row, unsigned property, struct filter_value *out), const void *row)
{
	bool results[FILTER_NODES_MAX];

	for (unsigned i = 0; i <= filter->root; i++) {
		const struct filter_node *node = &filter->nodes[i];
		const struct filter_property *property = &filter->properties[node->property];
		struct filter_value value = {.text = ""};

		if (node->op == FILTER_AND || node->op == FILTER_OR) {
			results[i] = node->op == FILTER_AND
					     ? results[node->left] && results[node->right]
					     : results[node->left] || results[node->right];
			continue;
		}
		get(row, node->property, &value);
		results[i] = property->kind == FILTER_TEXT || property->kind == FILTER_WORD
				     ? text_matches(node, value.text)
				     : number_matches(node, property->kind, value.number);
	}
	return results[filter->root];
}

const struct filter_node *filter_find(
	const struct filter *filter, unsigned property, enum filter_op op)
{
	bool is_needed[FILTER_NODES_MAX] = {false};

	is_needed[filter->root] = true;
	for (unsigned i = filter->root + 1; i-- > 0;) {
		const struct filter_node *node = &filter->nodes[i];

		if (!is_needed[i])
			continue;
		if (node->op == FILTER_AND) {
			is_needed[node->left] = true;
			is_needed[node->right] = true;
		} else if (node->op == op && node->property == property) {
			return node;
		}
	}
	return NULL;
}

bool filter_asks(const struct filter *filter, unsigned property)
{
	for (unsigned i = 0; i <= filter->root; i++)
		if (filter->nodes[i].op != FILTER_AND && filter->nodes[i].op != FILTER_OR &&
			filter->nodes[i].property == property)
			return true;
	return false;
}
