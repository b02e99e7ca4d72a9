/* SPDX-License-Identifier: Apache-2.0 */

/*
 * value.c: texts into fields. A text that does not fit is a mistake at its own line,
 * in the form: KEYWORD is "TEXT", expected what would have been right.
 */

#include "policy/value.h"
#include "policy/names.h"
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct value_unit {
	const char *name;
	uint64_t factor;
};

/* Each table from large to small, for printing. */
static const struct value_unit size_units[] = {
	{"GB", 1u << 30}, {"MB", 1u << 20}, {"KB", 1024}, {"B", 1}, {"", 1}};
static const struct value_unit time_units[] = {
	{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};

void value_mistake(const struct value *value, const char *expected)
{
	config_mistake(value->config, value->line, "%s is \"%s\", expected %s",
		value->keyword->name, value->text, expected);
}

void *value_field(const struct value *value)
{
	return (char *)value->object + value->keyword->offset;
}

/* Fields are bool, enum, unsigned or uint64_t; the table has their size. */
static void value_put_number(const struct value *value, uint64_t number)
{
	const unsigned narrow = (unsigned)number;
	const bool flag = number != 0;

	if (value->keyword->bytes == sizeof(number)) {
		memcpy(value_field(value), &number, sizeof(number));
	} else if (value->keyword->bytes == sizeof(narrow)) {
		memcpy(value_field(value), &narrow, sizeof(narrow));
	} else {
		ASSERT(value->keyword->bytes == sizeof(flag));
		memcpy(value_field(value), &flag, sizeof(flag));
	}
}

static void value_put_pointer(const struct value *value, const void *pointer)
{
	ASSERT(value->keyword->bytes == sizeof(pointer));
	memcpy(value_field(value), &pointer, sizeof(pointer));
}

bool value_parse_digits(const char *text, uint64_t *out, const char **out_end)
{
	char *end = NULL;

	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	*out = strtoull(text, &end, 10);
	*out_end = end;
	return errno == 0;
}

/* Digits and a unit, with a blank between them or not. */
static bool parse_units(
	const char *text, const struct value_unit *units, unsigned count, uint64_t *out)
{
	uint64_t number = 0;

	if (!value_parse_digits(text, &number, &text))
		return false;
	while (*text == ' ')
		text++;
	for (unsigned i = 0; i < count; i++)
		if (strcasecmp(text, units[i].name) == 0)
			return !__builtin_mul_overflow(number, units[i].factor, out);
	return false;
}

/* Exchange's "dd.hh:mm:ss" or "hh:mm:ss". */
static bool parse_clock(const char *text, uint64_t *out)
{
	uint64_t days = 0, hours = 0, minutes = 0, seconds = 0;

	if (!value_parse_digits(text, &hours, &text))
		return false;
	if (*text == '.') {
		days = hours;
		if (!value_parse_digits(text + 1, &hours, &text))
			return false;
	}
	if (*text != ':' || !value_parse_digits(text + 1, &minutes, &text))
		return false;
	if (*text != ':' || !value_parse_digits(text + 1, &seconds, &text) || *text != '\0')
		return false;
	/* A century of days cannot overflow, and is above every limit. */
	if (days > 36500 || hours > 23 || minutes > 59 || seconds > 59)
		return false;
	*out = (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000;
	return true;
}

/* The limit as a reader would write it: "64KB", "5m", "500". */
static void print_limit(enum keyword_type type, uint64_t limit, char *out, size_t out_bytes)
{
	const struct value_unit *units = type == TYPE_SIZE ? size_units : time_units;
	unsigned i = 0;

	if (type == TYPE_COUNT || limit == 0) {
		(void)snprintf(out, out_bytes, "%" PRIu64, limit);
		return;
	}
	while (limit % units[i].factor != 0)
		i++;
	(void)snprintf(out, out_bytes, "%" PRIu64 "%s", limit / units[i].factor, units[i].name);
}

static void value_set_number(const struct value *value)
{
	const struct keyword *keyword = value->keyword;
	char low[32], high[32], expected[160];
	const char *what = "a whole number";
	const char *end = NULL;
	uint64_t number = 0;
	bool right = false;

	if (keyword->unlimited && strcasecmp(value->text, "unlimited") == 0) {
		value_put_number(value, POLICY_UNLIMITED);
		return;
	}
	if (keyword->type == TYPE_SIZE) {
		what = "a size such as 36MB, 256KB or a number of bytes,";
		right = parse_units(value->text, size_units, COUNT_OF(size_units), &number);
	} else if (keyword->type == TYPE_TIME) {
		what = "a time such as 500ms, 30s, 5m, 1h or 00:05:00,";
		right = parse_units(value->text, time_units, COUNT_OF(time_units), &number) ||
			parse_clock(value->text, &number);
	} else {
		right = value_parse_digits(value->text, &number, &end) && *end == '\0';
	}
	if (right && number >= keyword->min && number <= keyword->max) {
		value_put_number(value, keyword->unit == 0 ? number : number / keyword->unit);
		return;
	}
	print_limit(keyword->type, keyword->min, low, sizeof(low));
	print_limit(keyword->type, keyword->max, high, sizeof(high));
	(void)snprintf(expected, sizeof(expected), "%s from %s to %s%s", what, low, high,
		keyword->unlimited ? " or unlimited" : "");
	value_mistake(value, expected);
}

static void value_set_boolean(const struct value *value)
{
	static const char *const words[] = {"no", "yes", "false", "true", "off", "on"};

	for (unsigned i = 0; i < COUNT_OF(words); i++) {
		if (strcasecmp(value->text, words[i]) == 0) {
			value_put_number(value, i % 2);
			return;
		}
	}
	value_mistake(value, "yes or no");
}

static void value_set_word(const struct value *value)
{
	const char *const *words = value->keyword->words;
	char expected[160] = "";
	size_t len = 0;

	for (unsigned i = 0; words[i] != NULL; i++) {
		if (strcasecmp(value->text, words[i]) == 0) {
			if (value->keyword->type == TYPE_VERSION)
				value_put_pointer(value, words[i]);
			else
				value_put_number(value, i);
			return;
		}
		len += (size_t)snprintf(expected + len, sizeof(expected) - len, "%s%s",
			i == 0 ? "" : (words[i + 1] == NULL ? " or " : ", "), words[i]);
		ASSERT(len < sizeof(expected));
	}
	value_mistake(value, expected);
}

static void value_set_text(const struct value *value)
{
	const size_t len = strlen(value->text);
	char expected[80];

	for (size_t i = 0; i < len; i++) {
		if (iscntrl((unsigned char)value->text[i])) {
			config_mistake(value->config, value->line,
				"%s has a control character in it, expected printable text",
				value->keyword->name);
			return;
		}
	}
	if (len < value->keyword->min || len > value->keyword->max) {
		(void)snprintf(expected, sizeof(expected), "%" PRIu64 " to %" PRIu64 " characters",
			value->keyword->min, value->keyword->max);
		value_mistake(value, expected);
		return;
	}
	value_put_pointer(value, config_strdup(value->config, value->text));
}

static void value_set_name(const struct value *value)
{
	if (value_is_host(value->text))
		value_put_pointer(value, config_strdup(value->config, value->text));
	else
		value_mistake(value, "a host name such as mail.example.com");
}

static void value_set_domain(const struct value *value)
{
	const char *domain = value_domain(value);

	if (domain != NULL)
		value_put_pointer(value, domain);
}

const char *value_path(const struct value *value)
{
	const char *folder = value->text[0] == '/' ? "" : value->config->folder;
	const size_t bytes = strlen(folder) + strlen(value->text) + 1;
	char *path = config_alloc(value->config, bytes, 1);

	if (path != NULL)
		(void)snprintf(path, bytes, "%s%s", folder, value->text);
	return path;
}

bool value_check_file(const struct value *value, const char *path, const char *what)
{
	struct stat status = {0};

	if (stat(path, &status) < 0 || access(path, R_OK) < 0) {
		config_mistake(value->config, value->line,
			"%s is \"%s\", which cannot be read (%s), expected a readable %s",
			value->keyword->name, path, strerror(errno), what);
		return false;
	}
	if (!S_ISREG(status.st_mode)) {
		config_mistake(value->config, value->line,
			"%s is \"%s\", which is not a file, expected a readable %s",
			value->keyword->name, path, what);
		return false;
	}
	return true;
}

static void value_set_file(const struct value *value)
{
	const char *path = value_path(value);

	if (path == NULL)
		return;
	value_put_pointer(value, path);
	(void)value_check_file(value, path, "PEM file");
}

static void value_set_folder(const struct value *value)
{
	const char *path = value_path(value);
	struct stat status = {0};

	if (path == NULL)
		return;
	if (stat(path, &status) < 0 && !(errno == ENOENT && value->keyword->may_be_made))
		config_mistake(value->config, value->line,
			"%s is \"%s\", which cannot be read (%s), expected a folder",
			value->keyword->name, path, strerror(errno));
	else if (status.st_mode != 0 && !S_ISDIR(status.st_mode))
		config_mistake(value->config, value->line,
			"%s is \"%s\", which is not a folder, expected one", value->keyword->name,
			path);
	else
		value_put_pointer(value, path);
}

static void value_set_reference(const struct value *value)
{
	const struct policy *policy = &value->config->owner->policy;
	const char *what = "certificate";

	if (value->keyword->type == TYPE_CERTIFICATE) {
		for (unsigned i = 0; i < policy->certificate_count; i++) {
			if (strcmp(policy->certificates[i].name, value->text) == 0) {
				value_put_pointer(value, &policy->certificates[i]);
				return;
			}
		}
	} else {
		const struct send_connector *found = policy_send_connector(policy, value->text);

		what = "send-connector";
		if (found != NULL) {
			value_put_pointer(value, found);
			return;
		}
	}
	config_mistake(value->config, value->line,
		"%s is \"%s\", which is missing, expected the name of a %s section",
		value->keyword->name, value->text, what);
}

static void value_set_address(const struct value *value)
{
	struct address address = {0};
	char host[NAME_BYTES_MAX];
	unsigned port = 0;
	const bool split = value->text[0] == '[' && value_split_host(value->text, host, &port);

	if (port != 0 || !value_parse_address(split ? host : value->text, 0, &address)) {
		value_mistake(value, "an address such as 192.0.2.1 or 2001:db8::1, without a port");
		return;
	}
	ASSERT(value->keyword->bytes == sizeof(address));
	memcpy(value_field(value), &address, sizeof(address));
}

static void value_set(const struct value *value)
{
	static void (*const setters[])(const struct value *value) = {
		[TYPE_BOOLEAN] = value_set_boolean,
		[TYPE_WORD] = value_set_word,
		[TYPE_VERSION] = value_set_word,
		[TYPE_COUNT] = value_set_number,
		[TYPE_SIZE] = value_set_number,
		[TYPE_TIME] = value_set_number,
		[TYPE_TEXT] = value_set_text,
		[TYPE_NAME] = value_set_name,
		[TYPE_DOMAIN] = value_set_domain,
		[TYPE_FILE] = value_set_file,
		[TYPE_FOLDER] = value_set_folder,
		[TYPE_CERTIFICATE] = value_set_reference,
		[TYPE_CONNECTOR] = value_set_reference,
		[TYPE_ADDRESS] = value_set_address,
		[TYPE_BINDINGS] = value_add_binding,
		[TYPE_HOSTS] = value_add_host,
		[TYPE_WORDS] = value_add_word,
		[TYPE_SET] = value_add_to_set,
		[TYPE_RANGES] = value_add_range,
		[TYPE_DOMAINS] = value_add_domain,
		[TYPE_FILES] = value_add_file,
		[TYPE_PINS] = value_add_pin,
		[TYPE_SPACES] = value_add_space,
		[TYPE_SERVERS] = value_add_server,
	};

	setters[value->keyword->type](value);
}

static bool keyword_is_list(const struct keyword *keyword)
{
	return keyword->type >= TYPE_BINDINGS;
}

/* The default; receive connectors have some by their type, which was loaded before. */
static const char *value_preset(const struct keyword *keyword, const void *object)
{
	const struct receive_connector *connector = object;

	return keyword->templates == NULL ? keyword->preset : keyword->templates[connector->type];
}

void value_load(
	struct config *config, unsigned section, const struct keyword *keyword, void *object)
{
	const struct config_section *owner = &config->sections[section];
	const struct config_value *at = config_next(config, section, keyword->name, NULL);
	struct value value = {config, keyword, object, value_preset(keyword, object), 0, 0};

	for (const struct config_value *each = at; each != NULL; value.count++)
		each = config_next(config, section, keyword->name, each);
	if (value.text != NULL)
		value_set(&value);
	if (at == NULL && keyword->required)
		config_mistake(config, owner->line, "%s \"%s\" has no %s, expected %s = ...",
			section_kind_name(owner->kind), owner->name, keyword->name, keyword->name);
	if (at != NULL && keyword->type == TYPE_SET)
		value_put_number(&value, 0);
	for (unsigned i = 0; at != NULL; i++) {
		const unsigned mistakes = config->mistake_count;

		value.text = at->text;
		value.line = at->line;
		if (i == 0 || keyword_is_list(keyword))
			value_set(&value);
		else
			config_mistake(config, at->line, "%s has a second value, expected one",
				keyword->name);
		config->values[at - config->values].is_wrong = config->mistake_count > mistakes;
		at = config_next(config, section, keyword->name, at);
	}
}
