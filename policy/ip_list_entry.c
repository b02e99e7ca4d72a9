/* SPDX-License-Identifier: Apache-2.0 */

/*
 * ip_list_entry.c: one entry of a list, of whatever form: an address, a network or a range, with
 * what there is to say about it.
 */

#include "policy/ip_list.h"
#include "policy/ip_list_private.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>

/* What a list can have in a place of an address. */
#define EXPECTED_ENTRY                                                                    \
	"expected an address, a network as 192.0.2.0/24 or 2001:db8::/32, or a range as " \
	"192.0.2.1-192.0.2.9"

/* ---- what there is to say */

const char *ip_import_quote(const char *text, size_t len, char out[static IP_IMPORT_QUOTE_BYTES])
{
	const size_t room = IP_IMPORT_QUOTE_BYTES - 4;
	size_t used = 0;

	for (; used < len && used < room; used++) {
		const char byte = text[used];

		out[used] = '?';
		if (byte >= ' ' && byte < 0x7f && byte != '"')
			out[used] = byte;
	}
	(void)snprintf(out + used, 4, "%s", used < len ? "..." : "");
	return out;
}

PRINTF_LIKE(4, 0)
static void import_say(
	const struct ip_import *import, FILE *file, unsigned line, const char *format, va_list args)
{
	(void)fprintf(file, "%s:%u: ", import->name, line);
	(void)vfprintf(file, format, args);
	(void)fputc('\n', file);
}

void ip_import_mistake(struct ip_import *import, unsigned line, const char *format, ...)
{
	va_list args;

	if (++import->mistakes > IP_IMPORT_TOLD_MAX || import->errors == NULL)
		return;
	va_start(args, format);
	import_say(import, import->errors, line, format, args);
	va_end(args);
}

void ip_import_note(struct ip_import *import, unsigned line, const char *format, ...)
{
	va_list args;

	if (import->notes == NULL || ++import->notes_made > IP_IMPORT_TOLD_MAX)
		return;
	va_start(args, format);
	import_say(import, import->notes, line, format, args);
	va_end(args);
}

void ip_import_say_more(const struct ip_import *import)
{
	const char *name = import->name;

	if (import->errors != NULL && import->mistakes > IP_IMPORT_TOLD_MAX)
		(void)fprintf(import->errors, "%s: and %u more mistakes\n", name,
			import->mistakes - IP_IMPORT_TOLD_MAX);
	if (import->notes != NULL && import->notes_made > IP_IMPORT_TOLD_MAX)
		(void)fprintf(import->notes, "%s: and %u more notes\n", name,
			import->notes_made - IP_IMPORT_TOLD_MAX);
}

/* ---- entries */

/*
 * ::ffff:0:0/96 and what lies in it: no peer has such an address, as it is taken for the IPv4
 * address in it. A range of IPv6 may go across, and the piece must not be written as if it
 * were all of IPv4.
 */
static bool prefix_is_mapped(const struct prefix *prefix)
{
	static const struct prefix mapped = {
		.ip = {.is_v6 = true, .bytes = {[10] = 0xff, [11] = 0xff}}, .bits = 96};

	return prefix_holds(&mapped, prefix);
}

/* What stands before the sign, if that is an address and the sign is there. */
static bool text_has_address_before(const char *text, char sign, struct ip *out)
{
	const char *end = strchr(text, sign);
	char head[INET6_ADDRSTRLEN];

	if (end == NULL || (size_t)(end - text) >= sizeof(head))
		return false;
	memcpy(head, text, (size_t)(end - text));
	head[end - text] = '\0';
	return ip_parse(head, out) == 0;
}

/* "FIRST - LAST" as "FIRST-LAST"; anything else as it is. */
static void text_close(const char *text, char out[static IP_LIST_LINE_BYTES_MAX + 1])
{
	const char *dash = strchr(text, '-');
	size_t head = dash == NULL ? 0 : (size_t)(dash - text);

	if (dash == NULL || strlen(text) > IP_LIST_LINE_BYTES_MAX) {
		(void)snprintf(out, IP_LIST_LINE_BYTES_MAX + 1, "%s", text);
		return;
	}
	while (head > 0 && strchr(IP_LIST_BLANKS, text[head - 1]) != NULL)
		head--;
	dash++;
	(void)snprintf(out, IP_LIST_LINE_BYTES_MAX + 1, "%.*s-%s", (int)head, text,
		dash + strspn(dash, IP_LIST_BLANKS));
}

static void import_explain(struct ip_import *import, unsigned line, const char *entry)
{
	char text[IP_LIST_LINE_BYTES_MAX + 1], quote[IP_IMPORT_QUOTE_BYTES];
	const char *quoted = ip_import_quote(entry, strlen(entry), quote);
	struct ip ip = {0};

	text_close(entry, text);
	if (text[0] == '\0')
		ip_import_mistake(import, line, "no address, " EXPECTED_ENTRY);
	else if (text[strcspn(text, IP_LIST_BLANKS)] != '\0')
		ip_import_mistake(import, line,
			"\"%s\" is more than one word, expected one entry a line; "
			"a table of Postfix is of the format postfix-cidr",
			quoted);
	else if (strchr(text, '%') != NULL)
		ip_import_mistake(import, line,
			"\"%s\" has a zone, which a list cannot tell apart, expected the address "
			"without it",
			quoted);
	else if (text_has_address_before(text, '/', &ip))
		ip_import_mistake(import, line,
			"\"%s\" has no length of a prefix behind \"/\", expected 0 to 32, or to "
			"128 for IPv6",
			quoted);
	else if (text_has_address_before(text, '-', &ip) &&
		 ip_parse(strchr(text, '-') + 1, &ip) == 0)
		ip_import_mistake(import, line,
			"\"%s\" is no range, expected its lower end first, and both of one family",
			quoted);
	else
		ip_import_mistake(import, line, "\"%s\" is no address, " EXPECTED_ENTRY, quoted);
}

/* -EINVAL. */
static int text_range(const char *text, struct ip_range *out)
{
	char closed[IP_LIST_LINE_BYTES_MAX + 1];
	int rc = 0;

	/* Names of interfaces are nobody's business here. */
	if (strchr(text, '%') != NULL)
		return -EINVAL;
	rc = ip_range_parse(text, out);
	if (rc == 0 || strchr(text, '-') == NULL)
		return rc;
	text_close(text, closed);
	return ip_range_parse(closed, out);
}

void ip_import_entry(struct ip_import *import, unsigned line, const char *text, uint16_t flags)
{
	struct prefix prefixes[PREFIXES_OF_RANGE_MAX];
	char quote[IP_IMPORT_QUOTE_BYTES], network[IP_RANGE_TEXT_BYTES];
	struct ip_range range = {0};
	struct ip ip = {0};
	unsigned count = 0;

	if (text_range(text, &range) < 0) {
		import_explain(import, line, text);
		return;
	}
	if (import->notes != NULL && text_has_address_before(text, '/', &ip) &&
		ip_compare(&ip, &range.first) != 0)
		ip_import_note(import, line, "\"%s\" has bits behind the prefix, taken as %s",
			ip_import_quote(text, strlen(text), quote),
			ip_range_print(&range, network));
	count = prefix_of_range(&range, prefixes);
	for (unsigned i = 0; i < count; i++)
		if (!prefix_is_mapped(&prefixes[i]))
			ip_import_add(import, line, &prefixes[i], flags);
}

void ip_import_plain(struct ip_import *import, unsigned line, const char *text)
{
	const bool is_excluded = text[0] == '!';

	text += is_excluded;
	text += is_excluded ? strspn(text, IP_LIST_BLANKS) : 0;
	ip_import_entry(import, line, text, is_excluded ? DOOR_EXCLUDED : 0);
}

int ip_list_put_text(struct cidr *set, const char *text)
{
	struct prefix prefixes[PREFIXES_OF_RANGE_MAX];
	const bool is_excluded = text[0] == '!';
	const struct door_value value = {.flags = is_excluded ? DOOR_EXCLUDED : 0};
	struct ip_range range = {0};
	int rc = text_range(text + is_excluded, &range);
	const unsigned count = rc < 0 ? 0 : prefix_of_range(&range, prefixes);

	for (unsigned i = 0; rc == 0 && i < count; i++)
		if (!prefix_is_mapped(&prefixes[i]))
			rc = cidr_put(set, &prefixes[i], value);
	return rc;
}
