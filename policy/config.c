/* SPDX-License-Identifier: Apache-2.0 */

/*
 * config.c: the only file that knows libconfuse. It leaves grammar, quoting and lists to
 * the library and takes every value as a list of texts, so that one wrong value does not
 * hide the next; what the texts mean is keywords.c and value.c.
 *
 * Three habits of libconfuse 3.3 shape this file (seen with Debian 12's package):
 *
 *   - Line numbers count a comment twice, a "}" missing at the end is no error, and a
 *     string left open spoils the next parse of the process, as the lexer is global.
 *     So the text is looked over first: comments become blanks, the rest is refused.
 *   - The first unknown keyword ends the parse. So it is added to the options, to be
 *     found unknown when its value arrives, and the parse starts anew.
 *   - There is no user pointer. So the parse under way is a static, behind a mutex.
 */

#include "policy/config.h"
#include <confuse.h>
#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* Different unknown keywords that one load reports; each costs a parse. */
#define UNKNOWN_MAX 64

struct config_unknown {
	enum section_kind kind;
	char name[64];
};

/* The look over the text before libconfuse gets it. */
struct config_scan {
	struct config *config;
	char *text; /* NUL-terminated */
	size_t len;
	size_t at;
	unsigned line;
	unsigned depth;          /* of braces */
	size_t list_at;          /* behind the "{" of the list that is open; 0: none is */
	unsigned *section_lines; /* where each "{" of depth 0 stands */
	unsigned section_count;
};

struct config_parse {
	struct config *config;
	const struct config_scan *scan;
	struct config_unknown unknown[UNKNOWN_MAX];
	unsigned unknown_count;
	bool again; /* an unknown keyword was added */
};

static pthread_mutex_t config_lock = PTHREAD_MUTEX_INITIALIZER;
static struct config_parse *config_current; /* under config_lock */

/* Reads the whole file, with a NUL behind it. */
static int config_slurp(struct config *config, char **out_text, size_t *out_len)
{
	FILE *file = fopen(config->file, "re");
	size_t len = 0;
	char *text = NULL;
	int rc = 0;

	if (file == NULL) {
		rc = -errno;
		goto fail;
	}
	text = malloc(CONFIG_BYTES_MAX + 1);
	if (text == NULL) {
		rc = -ENOMEM;
		goto fail;
	}
	len = fread(text, 1, CONFIG_BYTES_MAX, file);
	if (ferror(file)) {
		rc = errno != 0 ? -errno : -EIO;
		goto fail;
	}
	if (getc(file) != EOF) {
		rc = -EFBIG;
		goto fail;
	}
	(void)fclose(file);
	text[len] = '\0';
	*out_text = text;
	*out_len = len;
	return 0;
fail:
	if (file != NULL)
		(void)fclose(file);
	free(text);
	return rc;
}

/* Blanks from the cursor up to end, keeping the line ends. */
static void scan_blank(struct config_scan *scan, size_t end)
{
	for (; scan->at < end; scan->at++) {
		if (scan->text[scan->at] == '\n')
			scan->line++;
		else
			scan->text[scan->at] = ' ';
	}
}

static void scan_block_comment(struct config_scan *scan)
{
	const char *end = strstr(scan->text + scan->at + 2, "*/");

	if (end == NULL) {
		config_mistake(
			scan->config, scan->line, "the comment is never closed, expected \"*/\"");
		scan_blank(scan, scan->len);
		return;
	}
	scan_blank(scan, (size_t)(end - scan->text) + 2);
}

/* A string ends on its line: else a forgotten quote turns the rest of the file inside out. */
static void scan_string(struct config_scan *scan)
{
	const char quote = scan->text[scan->at++];

	for (; scan->at < scan->len; scan->at++) {
		const char c = scan->text[scan->at];
		const char next = scan->text[scan->at + 1];

		if (c == '\n')
			break;
		if (c == quote) {
			scan->at++;
			return;
		}
		if (quote == '"' && c == '$' && next == '{')
			config_mistake(scan->config, scan->line,
				"\"${\" in a string, expected the value itself: the "
				"environment is not taken over");
		if (c != '\\' || next == '\n')
			continue;
		if (quote == '"' && isdigit((unsigned char)next))
			config_mistake(scan->config, scan->line,
				"\"\\%c\" in a string, expected the character itself", next);
		scan->at++;
	}
	config_mistake(scan->config, scan->line,
		"the string is not closed, expected %c on the same line", quote);
}

/* Whether the "{" at the cursor opens a list: "=" stands before it. */
static bool scan_is_list(const struct config_scan *scan)
{
	size_t at = scan->at;

	while (at > 0 && isspace((unsigned char)scan->text[at - 1]))
		at--;
	return at > 0 && scan->text[at - 1] == '=';
}

/*
 * Counts the braces and remembers where sections open. libconfuse takes "= {}" for a keyword
 * that is not there, so that a list of remote addresses that has lost its last one would mean
 * everybody.
 */
static void scan_brace(struct config_scan *scan)
{
	unsigned *lines = NULL;

	if (scan->text[scan->at] == '{')
		scan->list_at = scan_is_list(scan) ? scan->at + 1 : 0;
	if (scan->text[scan->at++] == '}') {
		const char *inside = scan->text + scan->list_at;

		if (scan->list_at > 0 &&
			inside + strspn(inside, " \t\r\n") == scan->text + scan->at - 1)
			config_mistake(scan->config, scan->line,
				"the list is empty, expected a value or no such keyword");
		scan->list_at = 0;
		if (scan->depth == 0)
			config_mistake(scan->config, scan->line,
				"\"}\" closes nothing, expected a section before it");
		else
			scan->depth--;
		return;
	}
	if (scan->depth++ > 0)
		return;
	lines = reallocarray(scan->section_lines, scan->section_count + 1, sizeof(*lines));
	if (lines == NULL) {
		scan->config->out_of_memory = true;
		return;
	}
	lines[scan->section_count++] = scan->line;
	scan->section_lines = lines;
}

/* Blanks the comments and finds what libconfuse would pass over or stumble on. */
static void scan_text(struct config_scan *scan)
{
	bool in_word = false; /* "//" inside an unquoted word, as in "a//b", is no comment */

	scan->line = 1;
	if (strlen(scan->text) != scan->len) {
		config_mistake(scan->config, 1, "the file has a NUL in it, expected text");
		return;
	}
	while (scan->at < scan->len) {
		const char *at = scan->text + scan->at;

		if (*at == '#' || (!in_word && at[0] == '/' && at[1] == '/')) {
			scan_blank(scan, scan->at + strcspn(at, "\n"));
		} else if (at[0] == '/' && at[1] == '*') {
			scan_block_comment(scan);
		} else if (*at == '"' || *at == '\'') {
			scan_string(scan);
		} else if (*at == '{' || *at == '}') {
			scan_brace(scan);
		} else {
			if (at[0] == '$' && at[1] == '{')
				config_mistake(scan->config, scan->line,
					"\"${\", expected the value itself: the environment is "
					"not taken over");
			scan->line += *at == '\n';
			in_word = strchr(" \t\r\n=(),+", *at) == NULL;
			scan->at++;
			continue;
		}
		in_word = false;
	}
	/* An open string has swallowed braces, and has its message. */
	if (scan->depth > 0 && scan->section_count > 0 && scan->config->mistake_count == 0)
		config_mistake(scan->config, scan->section_lines[scan->section_count - 1],
			"the section is never closed, expected \"}\" at its end");
}

static enum section_kind config_kind(const char *name)
{
	for (unsigned kind = 0; kind < SECTION_KIND_COUNT; kind++)
		if (strcmp(name, section_kind_name(kind)) == 0)
			return kind;
	return SECTION_NONE;
}

static void config_mistake_unknown(
	struct config *config, unsigned line, enum section_kind kind, const char *name)
{
	if (kind == SECTION_NONE) {
		config_mistake(config, line,
			"unknown word \"%s\" outside of a section, expected transport, "
			"certificate, receive-connector, send-connector, partner or "
			"internal-server",
			name);
		return;
	}
	for (unsigned other = 0; other < SECTION_KIND_COUNT; other++) {
		if (keyword_find(other, name) == NULL)
			continue;
		config_mistake(config, line, "keyword \"%s\" in %s, expected it in %s only", name,
			section_kind_name(kind), section_kind_name(other));
		return;
	}
	config_mistake(config, line,
		"unknown keyword \"%s\" in %s, expected one of postern.conf(5)", name,
		section_kind_name(kind));
}

/* libconfuse: the parse ends here, for the reason in the format. */
PRINTF_LIKE(2, 0)
static void config_on_error(cfg_t *cfg, const char *format, va_list args)
{
	struct config_parse *parse = config_current;
	const enum section_kind kind = config_kind(cfg->name);
	struct config_unknown *unknown = &parse->unknown[parse->unknown_count];
	const unsigned line = cfg->line > 0 ? (unsigned)cfg->line : 1;
	char text[256];

	(void)vsnprintf(text, sizeof(text), format, args);
	if (parse->unknown_count < UNKNOWN_MAX &&
		sscanf(text, "no such option '%63[^']'", unknown->name) == 1) {
		unknown->kind = kind;
		config_mistake_unknown(parse->config, line, kind, unknown->name);
		parse->unknown_count++;
		parse->again = true;
		return;
	}
	config_mistake(parse->config, line,
		"%s, expected KEYWORD = VALUE, KEYWORD = {VALUE, ...} or SECTION \"NAME\" {...}",
		text);
}

/* libconfuse: a value was read, one of a list or the only one. */
static int config_on_value(cfg_t *cfg, cfg_opt_t *opt, const char *text, void *result)
{
	struct config_parse *parse = config_current;
	struct config *config = parse->config;
	const enum section_kind kind = config_kind(cfg->name);
	const unsigned line = (unsigned)cfg->line;
	/* Sections are appended when they end, so the one that is open has the next index. */
	const unsigned section = config->section_count;
	const struct keyword *keyword = keyword_find(kind, opt->name);
	const struct config_value *before = NULL;
	struct config_value *value = NULL;

	*(const char **)result = text;
	if (keyword == NULL) {
		config_mistake_unknown(config, line, kind, opt->name);
		return 0;
	}
	/* The library has dropped earlier values if "=" came a second time, so we are the first. */
	before = config_next(config, section, keyword->name, NULL);
	if (before != NULL && cfg_opt_size(opt) == 1) {
		config_mistake(config, line, "%s is set again, expected it once (line %u)",
			keyword->name, before->line);
		return 0;
	}
	if (config_grow(config, (void **)&config->values, config->value_count, sizeof(*value)) < 0)
		return -1;
	value = &config->values[config->value_count];
	value->text = strdup(text);
	if (value->text == NULL) {
		config->out_of_memory = true;
		return -1;
	}
	value->keyword = keyword;
	value->is_wrong = false;
	value->section = section;
	value->line = line;
	config->value_count++;
	return 0;
}

/*
 * The title of the section that just ended: the one with the greatest line, since a second
 * section of a name takes the first one's place in the library's list.
 */
static const char *config_closed_title(cfg_opt_t *opt)
{
	const cfg_t *closed = cfg_opt_getnsec(opt, cfg_opt_size(opt) - 1);

	for (unsigned i = 0; i < cfg_opt_size(opt); i++) {
		const cfg_t *other = cfg_opt_getnsec(opt, i);

		if (other->line > closed->line)
			closed = other;
	}
	return closed->title;
}

static void config_check_section(struct config *config, const struct config_section *added)
{
	const char *what = section_kind_name(added->kind);

	if (added->name != NULL && (added->name[0] == '\0' || strpbrk(added->name, " \t\n\"=")))
		config_mistake(config, added->line,
			"%s is named \"%s\", expected a name without blanks, quotes and \"=\"",
			what, added->name);
	for (unsigned i = 0; i < config->section_count; i++) {
		const struct config_section *other = &config->sections[i];

		if (other->kind != added->kind)
			continue;
		if (added->name == NULL)
			config_mistake(config, added->line,
				"a second %s section, expected one (line %u)", what, other->line);
		else if (strcmp(other->name, added->name) == 0)
			config_mistake(config, added->line,
				"a second %s \"%s\", expected another name (line %u has it)", what,
				added->name, other->line);
		else
			continue;
		return;
	}
}

/* libconfuse: a section ended. */
static int config_on_section(cfg_t *cfg, cfg_opt_t *opt)
{
	struct config_parse *parse = config_current;
	struct config *config = parse->config;
	struct config_section section = {.kind = config_kind(opt->name)};
	const char *title = config_closed_title(opt);

	if (config_grow(
		    config, (void **)&config->sections, config->section_count, sizeof(section)) < 0)
		return -1;
	section.line = config->section_count < parse->scan->section_count
			       ? parse->scan->section_lines[config->section_count]
			       : (unsigned)cfg->line;
	for (unsigned i = 0; i < config->section_count; i++)
		section.index += config->sections[i].kind == section.kind;
	if (title != NULL) {
		section.name = strdup(title);
		if (section.name == NULL) {
			config->out_of_memory = true;
			return -1;
		}
	}
	config_check_section(config, &section);
	config->sections[config->section_count++] = section;
	return 0;
}

/* The options of one kind of section, or of the file for SECTION_NONE; ends like CFG_END(). */
static unsigned config_options(
	const struct config_parse *parse, enum section_kind kind, cfg_opt_t *options)
{
	const struct keyword_set sets[] = {
		kind == SECTION_NONE ? (struct keyword_set){0} : keywords_of(kind),
		kind == SECTION_NONE || keywords_tls_offset(kind) == 0 ? (struct keyword_set){0}
								       : keywords_of_tls(),
	};
	unsigned count = 0;

	for (unsigned s = 0; s < COUNT_OF(sets); s++)
		for (unsigned i = 0; i < sets[s].count; i++)
			options[count++] = (cfg_opt_t)CFG_STR_LIST_CB(
				sets[s].rows[i].name, NULL, CFGF_NODEFAULT, config_on_value);
	for (unsigned i = 0; i < parse->unknown_count; i++)
		if (parse->unknown[i].kind == kind)
			options[count++] = (cfg_opt_t)CFG_STR_LIST_CB(
				parse->unknown[i].name, NULL, CFGF_NODEFAULT, config_on_value);
	return count;
}

static void config_forget(struct config *config)
{
	for (unsigned i = 0; i < config->value_count; i++)
		free(config->values[i].text);
	for (unsigned i = 0; i < config->section_count; i++)
		free(config->sections[i].name);
	config->value_count = 0;
	config->section_count = 0;
}

/* One parse from the start of the text. */
static int config_parse_once(struct config_parse *parse)
{
	enum { OPTIONS_MAX = 128 + UNKNOWN_MAX };
	cfg_opt_t *options =
		calloc((SECTION_KIND_COUNT + 1) * (size_t)OPTIONS_MAX, sizeof(*options));
	FILE *stream = fmemopen(parse->scan->text, parse->scan->len, "r");
	cfg_opt_t *root = NULL;
	cfg_t *cfg = NULL;
	unsigned root_count = 0;
	int rc = -ENOMEM;

	parse->again = false;
	config_forget(parse->config);
	if (options == NULL || stream == NULL)
		goto done;
	root = options + SECTION_KIND_COUNT * (size_t)OPTIONS_MAX;
	root_count = config_options(parse, SECTION_NONE, root);
	for (unsigned kind = 0; kind < SECTION_KIND_COUNT; kind++) {
		cfg_opt_t *own = options + kind * (size_t)OPTIONS_MAX;
		const int titled = kind == SECTION_TRANSPORT ? CFGF_NONE : CFGF_TITLE;

		(void)config_options(parse, kind, own);
		root[root_count] =
			(cfg_opt_t)CFG_SEC(section_kind_name(kind), own, CFGF_MULTI | titled);
		root[root_count++].validcb = config_on_section;
	}
	cfg = cfg_init(root, CFGF_NONE);
	if (cfg == NULL)
		goto done;
	(void)cfg_set_error_function(cfg, config_on_error);
	rc = cfg_parse_fp(cfg, stream) == CFG_SUCCESS ? 0 : -EINVAL;
	if (parse->config->out_of_memory)
		rc = -ENOMEM;
	cfg_free(cfg);
done:
	if (stream != NULL)
		(void)fclose(stream);
	free(options);
	return rc;
}

int config_read(struct config *config)
{
	struct config_scan scan = {.config = config};
	struct config_parse *parse = calloc(1, sizeof(*parse));
	int rc = parse == NULL ? -ENOMEM : config_slurp(config, &scan.text, &scan.len);

	if (rc < 0)
		goto done;
	ASSERT(scan.text != NULL);
	scan_text(&scan);
	if (config->out_of_memory)
		rc = -ENOMEM;
	else if (config->mistake_count > 0)
		rc = -EINVAL;
	/* fmemopen() refuses an empty buffer, and there is nothing to read. */
	if (rc < 0 || scan.len == 0)
		goto done;
	parse->config = config;
	parse->scan = &scan;
	(void)pthread_mutex_lock(&config_lock);
	config_current = parse;
	do
		rc = config_parse_once(parse);
	while (rc == -EINVAL && parse->again);
	config_current = NULL;
	(void)pthread_mutex_unlock(&config_lock);
done:
	free(scan.section_lines);
	free(scan.text);
	free(parse);
	return rc;
}
