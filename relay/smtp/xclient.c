/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/xclient.h"

#include "relay/base/limits.h"
#include "relay/smtp/chars.h"
#include <stdio.h>

#define IPV6_PREFIX "IPV6:"

static const char unavailable[] = "[UNAVAILABLE]";

static bool xclient_put_number(struct span value, uint16_t *out)
{
	uint64_t number;

	if (!chars_to_number(value, &number) || number > UINT16_MAX)
		return false;
	*out = (uint16_t)number;
	return true;
}

/* "192.0.2.1", or "IPV6:2001:db8::1". */
static bool xclient_put_ip(const char *text, struct ip *out)
{
	const size_t prefix = strlen(IPV6_PREFIX);
	const bool is_v6 = strncasecmp(text, IPV6_PREFIX, prefix) == 0;

	text += is_v6 ? prefix : 0;
	return (strchr(text, ':') != NULL) == is_v6 && ip_parse(text, out) == 0;
}

static unsigned hex_value(uint8_t digit)
{
	return char_is_digit(digit) ? digit - (unsigned)'0' : digit - (unsigned)'A' + 10;
}

/* Decodes xtext to what can stand in a log and in a header field. */
static bool xclient_decode(struct span value, char out[static XCLIENT_TEXT_BYTES])
{
	size_t len = 0;

	while (value.len > 0) {
		uint8_t byte = value.data[0];
		size_t taken = 1;

		if (byte == '=' || !char_is_graphic(byte) || len + 1 >= XCLIENT_TEXT_BYTES)
			return false;
		if (byte == '+') {
			if (value.len < 3 || !char_is_hex(value.data[1]) ||
				!char_is_hex(value.data[2]))
				return false;
			byte = (uint8_t)(hex_value(value.data[1]) << 4 | hex_value(value.data[2]));
			taken = 3;
		}
		if (byte < ' ' || byte > '~')
			return false;
		out[len++] = (char)byte;
		value = span_skip(value, taken);
	}
	out[len] = '\0';
	return len > 0;
}

static bool xclient_put_proto(const char *text, bool *out)
{
	*out = strcasecmp(text, "ESMTP") == 0;
	return *out || strcasecmp(text, "SMTP") == 0;
}

static const struct xclient_word {
	const char *name;
	enum xclient_attribute attribute;
} xclient_words[] = {
	{"NAME", XCLIENT_NAME},
	{"ADDR", XCLIENT_ADDR},
	{"PORT", XCLIENT_PORT},
	{"PROTO", XCLIENT_PROTO},
	{"HELO", XCLIENT_HELO},
	{"LOGIN", XCLIENT_LOGIN},
	{"DESTADDR", XCLIENT_DESTADDR},
	{"DESTPORT", XCLIENT_DESTPORT},
	{"REVERSE_NAME", XCLIENT_REVERSE_NAME},
};

static unsigned xclient_find(struct span name)
{
	for (size_t i = 0; i < COUNT_OF(xclient_words); i++) {
		if (span_equal_nocase(name, span_of(xclient_words[i].name)))
			return (unsigned)xclient_words[i].attribute;
	}
	return 0;
}

static bool xclient_put(struct xclient *out, unsigned attribute, const char *text)
{
	switch ((enum xclient_attribute)attribute) {
	case XCLIENT_NAME:
		memcpy(out->name, text, XCLIENT_TEXT_BYTES);
		return true;
	case XCLIENT_HELO:
		memcpy(out->helo, text, XCLIENT_TEXT_BYTES);
		return true;
	case XCLIENT_LOGIN:
		memcpy(out->login, text, XCLIENT_TEXT_BYTES);
		return true;
	case XCLIENT_REVERSE_NAME:
		memcpy(out->reverse_name, text, XCLIENT_TEXT_BYTES);
		return true;
	case XCLIENT_ADDR:
		return xclient_put_ip(text, &out->address);
	case XCLIENT_DESTADDR:
		return xclient_put_ip(text, &out->destination);
	case XCLIENT_PORT:
		return xclient_put_number(span_of(text), &out->port);
	case XCLIENT_DESTPORT:
		return xclient_put_number(span_of(text), &out->destination_port);
	case XCLIENT_PROTO:
		return xclient_put_proto(text, &out->is_extended);
	}
	return false;
}

static bool xclient_take(struct xclient *out, struct span word)
{
	const size_t equals = span_find(word, '=');
	const unsigned attribute = xclient_find(span_head(word, equals));
	char text[XCLIENT_TEXT_BYTES] = "";

	/* Of two values, one server would take the first and another the last. */
	if (attribute == 0 || out->given & attribute || equals == word.len ||
		!xclient_decode(span_skip(word, equals + 1), text))
		return false;
	out->given |= attribute;
	if (attribute != XCLIENT_PROTO &&
		(strcasecmp(text, unavailable) == 0 || strcasecmp(text, "[TEMPUNAVAIL]") == 0))
		return true;
	out->known |= attribute;
	return xclient_put(out, attribute, text);
}

bool xclient_parse(struct span argument, struct xclient *out)
{
	*out = (struct xclient){0};
	while (argument.len > 0) {
		struct span word = span_head(argument, span_find(argument, ' '));

		if (word.len > 0 && !xclient_take(out, word))
			return false;
		argument = span_skip(argument, word.len + 1);
	}
	return out->given != 0;
}

unsigned xclient_attributes(struct span words)
{
	unsigned attributes = 0;

	while (words.len > 0) {
		struct span word = span_head(words, span_find(words, ' '));

		attributes |= xclient_find(word);
		words = span_skip(words, word.len + 1);
	}
	return attributes;
}

/* xtext; false if it is empty or too long. */
static bool xclient_encode(const char *text, char *out, size_t out_bytes)
{
	size_t len = 0;

	for (; *text != '\0'; text++) {
		const uint8_t byte = (uint8_t)*text;
		const bool is_plain = char_is_graphic(byte) && byte != '+' && byte != '=';

		if (len + 4 > out_bytes)
			return false;
		len += (size_t)snprintf(
			out + len, out_bytes - len, is_plain ? "%c" : "+%02X", byte);
	}
	out[len] = '\0';
	return len > 0;
}

static bool xclient_print_ip(const struct ip *ip, char *out, size_t out_bytes)
{
	char text[ADDRESS_TEXT_BYTES];

	(void)snprintf(out, out_bytes, "%s%s", ip->is_v6 ? IPV6_PREFIX : "",
		ip_print(ip, text, sizeof(text)));
	return true;
}

/* One value as it stands in the command. False: it cannot be said. */
static bool xclient_print(
	const struct xclient *from, enum xclient_attribute attribute, char *out, size_t out_bytes)
{
	switch (attribute) {
	case XCLIENT_NAME:
		return xclient_encode(from->name, out, out_bytes);
	case XCLIENT_HELO:
		return xclient_encode(from->helo, out, out_bytes);
	case XCLIENT_LOGIN:
		return xclient_encode(from->login, out, out_bytes);
	case XCLIENT_REVERSE_NAME:
		return xclient_encode(from->reverse_name, out, out_bytes);
	case XCLIENT_ADDR:
		return xclient_print_ip(&from->address, out, out_bytes);
	case XCLIENT_DESTADDR:
		return xclient_print_ip(&from->destination, out, out_bytes);
	case XCLIENT_PORT:
		return snprintf(out, out_bytes, "%u", from->port) > 0;
	case XCLIENT_DESTPORT:
		return snprintf(out, out_bytes, "%u", from->destination_port) > 0;
	case XCLIENT_PROTO:
		return snprintf(out, out_bytes, "%s", from->is_extended ? "ESMTP" : "SMTP") > 0;
	}
	return false;
}

/* What the attributes behind index i need, with every text that is too long unavailable. */
static size_t xclient_rest(unsigned attributes, size_t i)
{
	const unsigned addresses = XCLIENT_ADDR | XCLIENT_DESTADDR;
	size_t bytes = strlen("\r\n");

	while (++i < COUNT_OF(xclient_words)) {
		const unsigned bit = (unsigned)xclient_words[i].attribute;

		if (!(attributes & bit))
			continue;
		bytes += strlen(" =") + strlen(xclient_words[i].name);
		bytes += bit & addresses ? strlen(IPV6_PREFIX) + ADDRESS_TEXT_BYTES
					 : strlen(unavailable);
	}
	return bytes;
}

size_t xclient_write(const struct xclient *from, unsigned announced,
	char out[static XCLIENT_COMMAND_BYTES_MAX + 1])
{
	const unsigned attributes = from->given & announced;
	size_t len = (size_t)snprintf(out, XCLIENT_COMMAND_BYTES_MAX, "XCLIENT");

	for (size_t i = 0; i < COUNT_OF(xclient_words); i++) {
		const struct xclient_word *word = &xclient_words[i];
		const unsigned bit = (unsigned)word->attribute;
		const size_t fixed = 2 + strlen(word->name);
		const size_t room = XCLIENT_COMMAND_BYTES_MAX - len - xclient_rest(attributes, i);
		char value[XCLIENT_COMMAND_BYTES_MAX] = "";

		if (!(attributes & bit))
			continue;
		if (!(from->known & bit) ||
			!xclient_print(from, word->attribute, value, sizeof(value)) ||
			fixed + strlen(value) > room)
			(void)snprintf(value, sizeof(value), "%s", unavailable);
		len += (size_t)snprintf(
			out + len, XCLIENT_COMMAND_BYTES_MAX - len, " %s=%s", word->name, value);
	}
	len += (size_t)snprintf(out + len, XCLIENT_COMMAND_BYTES_MAX + 1 - len, "\r\n");
	ASSERT(len <= XCLIENT_COMMAND_BYTES_MAX);
	return len;
}
