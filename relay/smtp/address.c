/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/address.h"

#include "relay/base/limits.h"
#include "relay/smtp/chars.h"

#include <arpa/inet.h>

/* RFC 5321 4.5.3.1.2, and RFC 1035 2.3.4 for the label. */
#define DOMAIN_BYTES_MAX 255
#define LABEL_BYTES_MAX 63

static bool address_take_byte(struct span *rest, uint8_t byte)
{
	if (rest->len == 0 || rest->data[0] != byte)
		return false;
	*rest = span_skip(*rest, 1);
	return true;
}

/*
 * Length of the well-formed character of more than one byte at the start of
 * text, or 0. Overlong forms, surrogates and what lies over U+10FFFF have no
 * legal second byte (RFC 3629 4).
 */
static size_t address_utf8_bytes(struct span text)
{
	uint8_t lead = text.len > 0 ? text.data[0] : 0;
	size_t bytes = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
	uint8_t least = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
	uint8_t most = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;

	if (lead < 0xc2 || lead > 0xf4 || text.len < bytes)
		return 0;
	if (text.data[1] < least || text.data[1] > most)
		return 0;
	for (size_t i = 2; i < bytes; i++) {
		if ((text.data[i] & 0xc0) != 0x80)
			return 0;
	}
	return bytes;
}

bool address_is_utf8(struct span text)
{
	while (text.len > 0) {
		size_t bytes = text.data[0] < 0x80 ? 1 : address_utf8_bytes(text);

		if (bytes == 0)
			return false;
		text = span_skip(text, bytes);
	}
	return true;
}

/* How many bytes at the start of text are one character of an atom: 0 if none is. */
static size_t address_atext_bytes(struct span text)
{
	if (text.len > 0 && char_is_atext(text.data[0]))
		return 1;
	return address_utf8_bytes(text);
}

static bool address_take_atom(struct span *rest)
{
	size_t before = rest->len;
	size_t bytes;

	while ((bytes = address_atext_bytes(*rest)) > 0)
		*rest = span_skip(*rest, bytes);
	return rest->len < before;
}

/* What follows the first quote of a quoted string; a backslash makes the next character ordinary.
 */
static bool address_take_quoted(struct span *rest)
{
	while (!address_take_byte(rest, '"')) {
		bool is_pair = address_take_byte(rest, '\\');
		size_t bytes = 1;

		if (rest->len == 0)
			return false;
		/* The space is text here and a backslash makes pairs, but only of ASCII. */
		if (rest->data[0] != ' ' && !char_is_graphic(rest->data[0]))
			bytes = is_pair ? 0 : address_utf8_bytes(*rest);
		if (bytes == 0)
			return false;
		*rest = span_skip(*rest, bytes);
	}
	return true;
}

/* Atoms with dots between them, or one quoted string. */
static bool address_take_local(struct span *rest)
{
	if (address_take_byte(rest, '"'))
		return address_take_quoted(rest);
	do {
		if (!address_take_atom(rest))
			return false;
	} while (address_take_byte(rest, '.'));
	return true;
}

/* Letters, digits, hyphens that are neither first nor last; or a U-label (RFC 6531 3.3). */
static bool address_take_label(struct span *rest)
{
	struct span label = *rest;
	bool is_ascii = true;
	size_t at = 0;

	while (at < label.len) {
		size_t bytes = 1;

		if (!char_is_let_dig(label.data[at]) && label.data[at] != '-') {
			bytes = address_utf8_bytes(span_skip(label, at));
			if (bytes == 0)
				break;
			is_ascii = false;
		}
		at += bytes;
	}
	/* How long a U-label may be is known only once it is an A-label. */
	if (at == 0 || (is_ascii && at > LABEL_BYTES_MAX))
		return false;
	if (label.data[0] == '-' || label.data[at - 1] == '-')
		return false;
	*rest = span_skip(*rest, at);
	return true;
}

static bool address_take_name(struct span *rest)
{
	size_t before = rest->len;

	do {
		if (!address_take_label(rest))
			return false;
	} while (address_take_byte(rest, '.'));
	return before - rest->len <= DOMAIN_BYTES_MAX;
}

/* RFC 5321 4.1.3; of the tagged kinds only IPv6 was ever registered. */
static bool address_take_literal(struct span *rest)
{
	const struct span tag = span_of("IPv6:");
	struct span inside = span_skip(*rest, 1);
	bool is_ipv6 = span_starts_nocase(inside, tag);
	char text[ADDRESS_TEXT_BYTES];
	struct in6_addr unused;

	inside = span_head(inside, span_find(inside, ']'));
	*rest = span_skip(*rest, inside.len + 1);
	if (is_ipv6)
		inside = span_skip(inside, tag.len);
	if (inside.len == 0 || inside.len >= sizeof(text) || span_find(inside, '\0') < inside.len)
		return false;
	memcpy(text, inside.data, inside.len);
	text[inside.len] = '\0';
	return inet_pton(is_ipv6 ? AF_INET6 : AF_INET, text, &unused) == 1 &&
	       address_take_byte(rest, ']');
}

bool address_take_domain(struct span *rest)
{
	if (rest->len > 0 && rest->data[0] == '[')
		return address_take_literal(rest);
	return address_take_name(rest);
}

/* "@a,@b:", whose hosts mean nothing any more (RFC 5321 appendix C). */
static bool address_take_route(struct span *rest)
{
	do {
		if (!address_take_byte(rest, '@') || !address_take_domain(rest))
			return false;
	} while (address_take_byte(rest, ','));
	return address_take_byte(rest, ':');
}

/* What was taken between two states of rest. */
static struct span address_between(struct span before, struct span after)
{
	return span_head(before, before.len - after.len);
}

static bool address_take_mailbox(struct span *rest, struct address_path *path)
{
	struct span start = *rest;
	struct span at_domain;

	if (!address_take_local(rest))
		return false;
	path->mailbox = address_between(start, *rest);
	if (!address_take_byte(rest, '@'))
		return !path->has_route && span_equal_nocase(path->mailbox, span_of("postmaster"));
	at_domain = *rest;
	if (!address_take_domain(rest))
		return false;
	path->domain = address_between(at_domain, *rest);
	path->mailbox = address_between(start, *rest);
	return true;
}

bool address_take_path(struct span *rest, struct address_path *out)
{
	struct address_path path = {0};
	struct span start = *rest;

	if (!address_take_byte(rest, '<'))
		return false;
	if (address_take_byte(rest, '>')) {
		out->mailbox = out->domain = span_head(span_skip(start, 1), 0);
		out->whole = address_between(start, *rest);
		out->has_route = false;
		return true;
	}
	path.has_route = rest->len > 0 && rest->data[0] == '@';
	if (path.has_route && !address_take_route(rest))
		return false;
	if (!address_take_mailbox(rest, &path) || !address_take_byte(rest, '>'))
		return false;
	path.whole = address_between(start, *rest);
	*out = path;
	return true;
}
