/* SPDX-License-Identifier: Apache-2.0 */

/*
 * value_list.c: texts of lists into one element more of an array, and the forms that
 * addresses and domains have.
 */

#include "policy/names.h"
#include "policy/value.h"
#include <ctype.h>
#include <string.h>

bool value_is_host(const char *name)
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

bool value_split_host(const char *text, char host[static NAME_BYTES_MAX], unsigned *out_port)
{
	const bool bracket = *text == '[';
	const char *start = bracket ? text + 1 : text;
	const size_t len = strcspn(start, bracket ? "]" : ":");
	const char *rest = start + len;
	uint64_t port = 0;

	if (len == 0 || len >= NAME_BYTES_MAX || (bracket && *rest++ != ']'))
		return false;
	if (*rest == ':' &&
		(!value_parse_digits(rest + 1, &port, &rest) || port < 1 || port > 65535))
		return false;
	if (*rest != '\0')
		return false;
	memcpy(host, start, len);
	host[len] = '\0';
	*out_port = (unsigned)port;
	return true;
}

int value_resolve(const char *host, unsigned port, int flags, struct addrinfo **out)
{
	const struct addrinfo hints = {.ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = flags | AI_NUMERICSERV};
	char service[16];

	(void)snprintf(service, sizeof(service), "%u", port);
	return getaddrinfo(host, service, &hints, out);
}

struct address value_address_from(const struct addrinfo *info)
{
	struct address address = {.len = info->ai_addrlen};

	ASSERT(info->ai_addrlen <= sizeof(address.sockaddr));
	memcpy(&address.sockaddr, info->ai_addr, info->ai_addrlen);
	return address;
}

bool value_parse_address(const char *host, unsigned port, struct address *out)
{
	struct addrinfo *list = NULL;

	if (value_resolve(host, port, AI_NUMERICHOST, &list) != 0)
		return false;
	*out = value_address_from(list);
	freeaddrinfo(list);
	return true;
}

/* The next element of the list, zeroed; its array is made for all texts at the first. */
static void *value_append(const struct value *value, size_t bytes)
{
	unsigned *count = (void *)((char *)value->object + value->keyword->count_offset);
	char *array = NULL;

	ASSERT(value->count > 0 && *count < value->count);
	memcpy(&array, value_field(value), sizeof(array));
	if (array == NULL) {
		array = config_alloc(value->config, value->count, bytes);
		memcpy(value_field(value), &array, sizeof(array));
	}
	return array == NULL ? NULL : array + (*count)++ * bytes;
}

static void value_append_text(const struct value *value, const char *text)
{
	const char **place = text == NULL ? NULL : value_append(value, sizeof(text));

	if (place != NULL)
		*place = text;
}

void value_add_binding(const struct value *value)
{
	struct config *config = value->config;
	struct receive_connector *connector = value->object;
	struct config_binding binding = {.connector = connector, .line = value->line};
	char host[NAME_BYTES_MAX];
	unsigned port = 0;

	if (!value_split_host(value->text, host, &port) || port == 0 ||
		!value_parse_address(host, port, &binding.address)) {
		value_mistake(value, "an address and a port such as 192.0.2.1:25 or [::]:25");
		return;
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
		connector->bindings =
			config_alloc(config, CONFIG_ADDRESSES_MAX, sizeof(*connector->bindings));
	if (connector->bindings != NULL)
		connector->bindings[connector->binding_count++] = binding.address;
}

void value_add_host(const struct value *value)
{
	struct config *config = value->config;
	struct send_connector *connector = value->object;
	struct addrinfo *list = NULL;
	char host[NAME_BYTES_MAX];
	const char *name = NULL;
	unsigned port = 0;
	int error = 0;

	if (!value_split_host(value->text, host, &port) ||
		(value->text[0] != '[' && !value_is_host(host))) {
		value_mistake(value, "HOST, HOST:PORT or [ADDRESS]:PORT");
		return;
	}
	error = value_resolve(
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
		connector->smart_hosts[connector->smart_host_count] = value_address_from(at);
		connector->smart_host_names[connector->smart_host_count++] = name;
	}
	freeaddrinfo(list);
}

void value_add_word(const struct value *value)
{
	if (value->text[0] == '\0')
		value_mistake(value, "a word");
	else
		value_append_text(value, config_strdup(value->config, value->text));
}

void value_add_to_set(const struct value *value)
{
	const char *const *words = value->keyword->words;
	unsigned *bits = value_field(value);
	char expected[160] = "";
	size_t len = 0;

	ASSERT(value->keyword->bytes == sizeof(*bits));
	for (unsigned i = 0; words[i] != NULL; i++) {
		if (strcasecmp(value->text, words[i]) == 0) {
			*bits |= BIT(i);
			return;
		}
		len += (size_t)snprintf(expected + len, sizeof(expected) - len, "%s%s",
			i == 0 ? "some of " : (words[i + 1] == NULL ? " and " : ", "), words[i]);
		ASSERT(len < sizeof(expected));
	}
	value_mistake(value, expected);
}

void value_add_range(const struct value *value)
{
	struct ip_range range = {0};
	struct ip_range *place = NULL;

	if (ip_range_parse(value->text, &range) < 0) {
		value_mistake(value, "an address, a range such as 192.0.2.1-192.0.2.9, or "
				     "192.0.2.0/24; the same for IPv6");
		return;
	}
	place = value_append(value, sizeof(*place));
	if (place != NULL)
		*place = range;
}

const char *value_domain(const struct value *value)
{
	const bool star = strncmp(value->text, "*.", 2) == 0;
	char domain[2 + DOMAIN_BYTES_MAX] = "*.";

	if (star && !value->keyword->wildcard)
		value_mistake(value, "each domain by itself, since \"*.\" is not taken here: "
				     "list each subdomain");
	else if (strchr(value->text + (star ? 2 : 0), '*') != NULL)
		value_mistake(value, value->keyword->wildcard
					     ? "a domain such as contoso.com or *.contoso.com"
					     : "a domain such as contoso.com; list each subdomain");
	else if (domain_normalize(span_of(value->text + (star ? 2 : 0)), domain + 2) < 0)
		value_mistake(value, "a domain such as contoso.com");
	else
		return config_strdup(value->config, star ? domain : domain + 2);
	return NULL;
}

void value_add_domain(const struct value *value)
{
	value_append_text(value, value_domain(value));
}

void value_add_file(const struct value *value)
{
	const char *path = value_path(value);

	if (path != NULL && value_check_file(value, path, "file"))
		value_append_text(value, path);
}

/* The value of a digit in base 16 or 64; -1: it is none. */
static int digit_value(unsigned char c, unsigned base)
{
	static const char hex[] = "0123456789abcdef";
	static const char base64[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *digits = base == 16 ? hex : base64;
	const char *found = c == '\0' ? NULL : strchr(digits, base == 16 ? tolower(c) : c);

	return found == NULL ? -1 : (int)(found - digits);
}

/* So many digits of 4 or 6 bits; false: another character, or bits left over that are not 0. */
static bool parse_digest(const char *text, size_t digits, unsigned bits, struct pin *out)
{
	unsigned held = 0, held_bits = 0;
	size_t count = 0;

	for (size_t i = 0; i < digits; i++) {
		const int digit = digit_value((unsigned char)text[i], 1u << bits);

		if (digit < 0)
			return false;
		held = held << bits | (unsigned)digit;
		held_bits += bits;
		if (held_bits >= 8 && count < PIN_BYTES) {
			held_bits -= 8;
			out->bytes[count++] = (uint8_t)(held >> held_bits);
			held &= BIT(held_bits) - 1;
		}
	}
	return count == PIN_BYTES && held == 0;
}

void value_add_pin(const struct value *value)
{
	static const char scheme[] = "sha256//";
	const char *text = value->text;
	struct pin pin = {0};
	struct pin *place = NULL;
	bool right = false;

	if (strncmp(text, scheme, strlen(scheme)) == 0) {
		text += strlen(scheme);
		right = strlen(text) == 44 && text[43] == '=' && parse_digest(text, 43, 6, &pin);
	} else {
		right = strlen(text) == 64 && parse_digest(text, 64, 4, &pin);
	}
	if (!right) {
		value_mistake(value, "the SHA-256 of a public key: 64 hex digits, or sha256// and "
				     "44 characters of base64");
		return;
	}
	place = value_append(value, sizeof(*place));
	if (place != NULL)
		*place = pin;
}

/* "contoso.com", "*.contoso.com", "*" or "--"; false: it has its message. */
static bool parse_space(const struct value *value, const char *text, struct address_space *out)
{
	char domain[DOMAIN_BYTES_MAX];

	out->domain = "";
	out->is_any = strcmp(text, "*") == 0;
	out->is_accepted = strcmp(text, "--") == 0;
	if (out->is_any || out->is_accepted)
		return true;
	out->with_subdomains = strncmp(text, "*.", 2) == 0;
	if (!out->with_subdomains && text[0] == '*') {
		config_mistake(value->config, value->line,
			"%s is \"%s\", expected \"*.%s\" for the domain and all below it",
			value->keyword->name, value->text, text + 1);
		return false;
	}
	if (domain_normalize(span_of(text + (out->with_subdomains ? 2 : 0)), domain) < 0) {
		value_mistake(value, "\"contoso.com\", \"*.contoso.com\", \"*\" or \"--\", with a "
				     "cost from 1 to 100 behind \";\"");
		return false;
	}
	out->domain = config_strdup(value->config, domain);
	return out->domain != NULL;
}

void value_add_space(const struct value *value)
{
	static const char type[] = "SMTP:";
	const char *text = value->text;
	struct address_space space = {.cost = 1};
	struct address_space *place = NULL;
	char domain[DOMAIN_BYTES_MAX];
	const char *end = NULL;
	uint64_t cost = 1;
	size_t len = 0;

	if (strncasecmp(text, type, strlen(type)) == 0)
		text += strlen(type);
	len = strcspn(text, ";");
	if (strchr(value->text, ':') != NULL && text == value->text) {
		value_mistake(value, "an address space of the type SMTP");
		return;
	}
	if (text[len] == ';' && (!value_parse_digits(text + len + 1, &cost, &end) || *end != '\0' ||
					cost < 1 || cost > 100)) {
		value_mistake(value, "a cost from 1 to 100 behind \";\"");
		return;
	}
	if (len >= sizeof(domain)) {
		value_mistake(value, "a domain of at most 253 characters");
		return;
	}
	memcpy(domain, text, len);
	domain[len] = '\0';
	space.cost = (unsigned)cost;
	if (!parse_space(value, domain, &space))
		return;
	place = value_append(value, sizeof(*place));
	if (place != NULL)
		*place = space;
}

void value_add_server(const struct value *value)
{
	struct address address = {0};
	char host[NAME_BYTES_MAX];
	unsigned port = 0;

	if (value_split_host(value->text, host, &port) &&
		value_parse_address(host, port == 0 ? 53 : port, &address))
		value_append_text(value, config_strdup(value->config, value->text));
	else
		value_mistake(value,
			"the address of a DNS server such as 192.0.2.53 or [2001:db8::53]:53");
}
