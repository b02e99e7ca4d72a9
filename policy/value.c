/* SPDX-License-Identifier: Apache-2.0 */

/*
 * value.c: texts into fields. A text that does not fit is a mistake at its own line,
 * in the form: KEYWORD is "TEXT", expected what would have been right.
 */

#include "policy/config.h"
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A value on its way into its field. */
struct value {
	struct config *config;
	const struct keyword *keyword;
	void *object;
	const char *text;
	unsigned line;
};

struct value_unit {
	const char *name;
	uint64_t factor;
};

/* Each table from large to small, for printing. */
static const struct value_unit size_units[] = {
	{"GB", 1u << 30}, {"MB", 1u << 20}, {"KB", 1024}, {"B", 1}, {"", 1}};
static const struct value_unit time_units[] = {
	{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};

static void value_mistake(const struct value *value, const char *expected)
{
	config_mistake(value->config, value->line, "%s is \"%s\", expected %s",
		value->keyword->name, value->text, expected);
}

static void *value_field(const struct value *value)
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

/* Digits and nothing else in front; *out_end is what follows them. */
static bool parse_digits(const char *text, uint64_t *out, const char **out_end)
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

	if (!parse_digits(text, &number, &text))
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

	if (!parse_digits(text, &hours, &text))
		return false;
	if (*text == '.') {
		days = hours;
		if (!parse_digits(text + 1, &hours, &text))
			return false;
	}
	if (*text != ':' || !parse_digits(text + 1, &minutes, &text))
		return false;
	if (*text != ':' || !parse_digits(text + 1, &seconds, &text) || *text != '\0')
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
		right = parse_digits(value->text, &number, &end) && *end == '\0';
	}
	if (right && number >= keyword->min && number <= keyword->max) {
		value_put_number(value, number);
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

/* Letters, digits, "-" and "_" in labels of 1 to 63 (RFC 1035 2.3.4). */
static bool name_is_host(const char *name)
{
	size_t label = 0;
	size_t i = 0;

	for (; name[i] != '\0'; i++) {
		if (name[i] == '.' && label > 0) {
			label = 0;
			continue;
		}
		if (!isalnum((unsigned char)name[i]) && name[i] != '-' && name[i] != '_')
			return false;
		if (++label > 63)
			return false;
	}
	return label > 0 && i < NAME_BYTES_MAX;
}

static void value_set_name(const struct value *value)
{
	if (name_is_host(value->text))
		value_put_pointer(value, config_strdup(value->config, value->text));
	else
		value_mistake(value, "a host name such as mail.example.com");
}

static void value_set_file(const struct value *value)
{
	const char *folder = value->text[0] == '/' ? "" : value->config->folder;
	const size_t bytes = strlen(folder) + strlen(value->text) + 1;
	char *path = config_alloc(value->config, bytes, 1);
	struct stat status = {0};

	if (path == NULL)
		return;
	(void)snprintf(path, bytes, "%s%s", folder, value->text);
	value_put_pointer(value, path);
	if (stat(path, &status) < 0 || access(path, R_OK) < 0)
		config_mistake(value->config, value->line,
			"%s is \"%s\", which cannot be read (%s), expected a readable PEM file",
			value->keyword->name, path, strerror(errno));
	else if (!S_ISREG(status.st_mode))
		config_mistake(value->config, value->line,
			"%s is \"%s\", which is not a file, expected a readable PEM file",
			value->keyword->name, path);
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
		what = "send-connector";
		for (unsigned i = 0; i < policy->send_connector_count; i++) {
			if (strcmp(policy->send_connectors[i].name, value->text) == 0) {
				value_put_pointer(value, &policy->send_connectors[i]);
				return;
			}
		}
	}
	config_mistake(value->config, value->line,
		"%s is \"%s\", which is missing, expected the name of a %s section",
		value->keyword->name, value->text, what);
}

/* "host:port", "[v6]:port", "host" into host and port (0: none given); false: no such form. */
static bool split_host(const char *text, char host[static NAME_BYTES_MAX], unsigned *out_port)
{
	const bool bracket = *text == '[';
	const char *start = bracket ? text + 1 : text;
	const size_t len = strcspn(start, bracket ? "]" : ":");
	const char *rest = start + len;
	uint64_t port = 0;

	if (len == 0 || len >= NAME_BYTES_MAX || (bracket && *rest++ != ']'))
		return false;
	if (*rest == ':' && (!parse_digits(rest + 1, &port, &rest) || port < 1 || port > 65535))
		return false;
	if (*rest != '\0')
		return false;
	memcpy(host, start, len);
	host[len] = '\0';
	*out_port = (unsigned)port;
	return true;
}

/* Resolves; the list is for freeaddrinfo(). Returns 0 or an EAI code. */
static int resolve(const char *host, unsigned port, int flags, struct addrinfo **out)
{
	const struct addrinfo hints = {.ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = flags | AI_NUMERICSERV};
	char service[16];

	(void)snprintf(service, sizeof(service), "%u", port);
	return getaddrinfo(host, service, &hints, out);
}

static struct address address_from(const struct addrinfo *info)
{
	struct address address = {.len = info->ai_addrlen};

	ASSERT(info->ai_addrlen <= sizeof(address.sockaddr));
	memcpy(&address.sockaddr, info->ai_addr, info->ai_addrlen);
	return address;
}

/* An address in figures, without asking anybody. */
static bool address_parse(const char *host, unsigned port, struct address *out)
{
	struct addrinfo *list = NULL;

	if (resolve(host, port, AI_NUMERICHOST, &list) != 0)
		return false;
	*out = address_from(list);
	freeaddrinfo(list);
	return true;
}

static void value_set_address(const struct value *value)
{
	struct address address = {0};
	char host[NAME_BYTES_MAX];
	unsigned port = 0;
	const bool split = value->text[0] == '[' && split_host(value->text, host, &port);

	if (port != 0 || !address_parse(split ? host : value->text, 0, &address)) {
		value_mistake(value, "an address such as 192.0.2.1 or 2001:db8::1, without a port");
		return;
	}
	ASSERT(value->keyword->bytes == sizeof(address));
	memcpy(value_field(value), &address, sizeof(address));
}

static bool address_is_equal(const struct address *a, const struct address *b)
{
	return a->len == b->len && memcmp(&a->sockaddr, &b->sockaddr, a->len) == 0;
}

static void value_add_binding(const struct value *value)
{
	struct config *config = value->config;
	struct receive_connector *connector = value->object;
	struct config_binding binding = {.connector = connector->name, .line = value->line};
	char host[NAME_BYTES_MAX];
	unsigned port = 0;

	if (!split_host(value->text, host, &port) || port == 0 ||
		!address_parse(host, port, &binding.address)) {
		value_mistake(value, "an address and a port such as 192.0.2.1:25 or [::]:25");
		return;
	}
	for (unsigned i = 0; i < config->binding_count; i++) {
		const struct config_binding *other = &config->bindings[i];

		if (address_is_equal(&other->address, &binding.address)) {
			config_mistake(config, value->line,
				"binding \"%s\" of receive-connector \"%s\" belongs to "
				"receive-connector \"%s\" already (line %u), expected each once",
				value->text, connector->name, other->connector, other->line);
			return;
		}
	}
	if (connector->binding_count == CONFIG_ADDRESSES_MAX) {
		value_mistake(value, "at most 64 bindings");
		return;
	}
	if (config_grow(
		    config, (void **)&config->bindings, config->binding_count, sizeof(binding)) < 0)
		return;
	config->bindings[config->binding_count++] = binding;
	if (connector->bindings == NULL)
		connector->bindings = config_alloc(config, CONFIG_ADDRESSES_MAX, sizeof(binding));
	if (connector->bindings != NULL)
		connector->bindings[connector->binding_count++] = binding.address;
}

static void value_add_host(const struct value *value)
{
	struct config *config = value->config;
	struct send_connector *connector = value->object;
	struct addrinfo *list = NULL;
	char host[NAME_BYTES_MAX];
	const char *name = NULL;
	unsigned port = 0;
	int error = 0;

	if (!split_host(value->text, host, &port) ||
		(value->text[0] != '[' && !name_is_host(host))) {
		value_mistake(value, "HOST, HOST:PORT or [ADDRESS]:PORT");
		return;
	}
	error = resolve(
		host, port == 0 ? 25 : port, value->text[0] == '[' ? AI_NUMERICHOST : 0, &list);
	if (error != 0) {
		config_mistake(config, value->line,
			"%s is \"%s\", which does not resolve (%s), expected a known host name or "
			"an address in brackets",
			value->keyword->name, value->text, gai_strerror(error));
		return;
	}
	if (connector->smart_hosts == NULL) {
		connector->smart_hosts =
			config_alloc(config, CONFIG_ADDRESSES_MAX, sizeof(*connector->smart_hosts));
		connector->smart_host_names = config_alloc(
			config, CONFIG_ADDRESSES_MAX, sizeof(*connector->smart_host_names));
	}
	name = config_strdup(config, value->text);
	for (const struct addrinfo *at = list; at != NULL && !config->out_of_memory;
		at = at->ai_next) {
		if (connector->smart_host_count == CONFIG_ADDRESSES_MAX) {
			value_mistake(value, "at most 64 addresses of smart hosts");
			break;
		}
		connector->smart_hosts[connector->smart_host_count] = address_from(at);
		connector->smart_host_names[connector->smart_host_count++] = name;
	}
	freeaddrinfo(list);
}

static void value_add_word(const struct value *value)
{
	struct config *config = value->config;
	struct policy *policy = value->object;

	if (policy->io_uring_disable_count == CONFIG_ADDRESSES_MAX || value->text[0] == '\0') {
		value_mistake(value, "at most 64 names of capabilities");
		return;
	}
	if (policy->io_uring_disable == NULL)
		policy->io_uring_disable = config_alloc(
			config, CONFIG_ADDRESSES_MAX, sizeof(*policy->io_uring_disable));
	if (policy->io_uring_disable != NULL)
		policy->io_uring_disable[policy->io_uring_disable_count++] =
			config_strdup(config, value->text);
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
		[TYPE_FILE] = value_set_file,
		[TYPE_CERTIFICATE] = value_set_reference,
		[TYPE_CONNECTOR] = value_set_reference,
		[TYPE_ADDRESS] = value_set_address,
		[TYPE_BINDINGS] = value_add_binding,
		[TYPE_HOSTS] = value_add_host,
		[TYPE_WORDS] = value_add_word,
	};

	setters[value->keyword->type](value);
}

static bool keyword_is_list(const struct keyword *keyword)
{
	return keyword->type == TYPE_BINDINGS || keyword->type == TYPE_HOSTS ||
	       keyword->type == TYPE_WORDS;
}

void value_load(
	struct config *config, unsigned section, const struct keyword *keyword, void *object)
{
	const struct config_section *owner = &config->sections[section];
	const struct config_value *at = config_next(config, section, keyword->name, NULL);
	struct value value = {config, keyword, object, keyword->preset, 0};

	if (keyword->preset != NULL)
		value_set(&value);
	if (at == NULL && keyword->required)
		config_mistake(config, owner->line, "%s \"%s\" has no %s, expected %s = ...",
			section_kind_name(owner->kind), owner->name, keyword->name, keyword->name);
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
