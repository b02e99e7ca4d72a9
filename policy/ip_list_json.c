/* SPDX-License-Identifier: Apache-2.0 */

/*
 * ip_list_json.c: the only file here that knows jansson. It keeps no lines of what it has parsed,
 * and a tree of a million entries takes hundreds of megabytes. So the outer array is taken
 * apart here, and each of its elements is given to jansson alone.
 */

#include "policy/ip_list.h"
#include "policy/ip_list_private.h"
#include <jansson.h>
#include <string.h>

#define EXPECTED_ELEMENT                                                                           \
	"expected an address, network or range as text, or an object with \"cidr\", \"range\" or " \
	"\"ip\""
#define EXPECTED_KEYS "expected an array, or an object with one in \"ranges\" or \"prefixes\""

struct json_scan {
	struct ip_import *import;
	const char *text;
	size_t len;
	size_t at;
	unsigned line; /* of what is at the place, from 1 */
	bool is_over;  /* it cannot go on; there is a mistake, or no memory */
};

/* Goes on by so many bytes. */
static void scan_skip(struct json_scan *scan, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		scan->line += scan->text[scan->at + i] == '\n';
	scan->at += bytes;
}

/* The next sign that is no blank; '\0' at the end. */
static char scan_peek(struct json_scan *scan)
{
	size_t bytes = 0;

	while (scan->at + bytes < scan->len &&
		memchr(" \t\r\n", scan->text[scan->at + bytes], 4) != NULL)
		bytes++;
	scan_skip(scan, bytes);
	/* The text has one behind its end. */
	return scan->text[scan->at];
}

static void scan_fail(struct json_scan *scan, const char *expected)
{
	char quote[IP_IMPORT_QUOTE_BYTES];

	if (scan->is_over)
		return;
	if (scan->at >= scan->len)
		ip_import_mistake(scan->import, scan->line, "the end of the text, %s", expected);
	else
		ip_import_mistake(scan->import, scan->line, "\"%s\", %s",
			ip_import_quote(scan->text + scan->at, 1, quote), expected);
	scan->is_over = true;
}

/* Takes the sign if it is the next. */
static bool scan_take(struct json_scan *scan, char sign)
{
	if (scan->is_over || scan_peek(scan) != sign || scan->at >= scan->len)
		return false;
	scan_skip(scan, 1);
	return true;
}

/* The next value, whole; NULL: is_over. line: where it begins. */
static json_t *scan_value(struct json_scan *scan, unsigned *out_line)
{
	const size_t flags = JSON_DECODE_ANY | JSON_DISABLE_EOF_CHECK | JSON_REJECT_DUPLICATES;
	char quote[IP_IMPORT_QUOTE_BYTES];
	json_error_t error = {0};
	json_t *value = NULL;

	(void)scan_peek(scan);
	*out_line = scan->line;
	value = json_loadb(scan->text + scan->at, scan->len - scan->at, flags, &error);
	if (value != NULL) {
		scan_skip(scan, (size_t)error.position);
		return value;
	}
	scan->is_over = true;
	/* jansson has no word for most cases of no memory. */
	if (error.text[0] == '\0' || json_error_code(&error) == json_error_out_of_memory)
		scan->import->is_out_of_memory = true;
	else
		ip_import_mistake(scan->import,
			scan->line + (error.line > 0 ? (unsigned)error.line - 1 : 0),
			"no JSON (%s), expected a value of it",
			ip_import_quote(error.text, strlen(error.text), quote));
	return NULL;
}

/* ---- elements */

/* Which member has the address: ours, and those of lists that large hosters publish. */
static const char *const address_keys[] = {
	"cidr", "range", "ip", "ip_prefix", "ipv6_prefix", "ipv4Prefix", "ipv6Prefix"};

static void import_object(struct ip_import *import, unsigned line, const json_t *object)
{
	const json_t *exclude = json_object_get(object, "exclude");
	const json_t *address = NULL;
	unsigned found = 0;

	for (unsigned i = 0; i < COUNT_OF(address_keys); i++) {
		const json_t *member = json_object_get(object, address_keys[i]);

		found += member != NULL;
		address = member != NULL ? member : address;
	}
	if (found != 1 || !json_is_string(address))
		ip_import_mistake(import, line, "an object with %s, expected one, as text",
			found == 0  ? "no \"cidr\", \"range\" or \"ip\""
			: found > 1 ? "more than one of \"cidr\", \"range\" and \"ip\""
				    : "an address that is no text");
	else if (exclude != NULL && !json_is_boolean(exclude))
		ip_import_mistake(
			import, line, "\"exclude\" of another kind, expected true or false");
	else
		ip_import_entry(import, line, json_string_value(address),
			json_is_true(exclude) ? DOOR_EXCLUDED : 0);
}

static void import_element(struct ip_import *import, unsigned line, const json_t *element)
{
	if (json_is_string(element))
		ip_import_plain(import, line, json_string_value(element));
	else if (json_is_object(element))
		import_object(import, line, element);
	else
		ip_import_mistake(import, line, "an element of another kind, " EXPECTED_ELEMENT);
}

/* Behind its "[". */
static void import_array(struct json_scan *scan)
{
	if (scan_take(scan, ']'))
		return;
	while (!scan->is_over && !scan->import->is_out_of_memory) {
		unsigned line = 0;
		json_t *element = scan_value(scan, &line);

		if (element == NULL)
			return;
		import_element(scan->import, line, element);
		json_decref(element);
		if (scan_take(scan, ']'))
			return;
		if (!scan_take(scan, ','))
			scan_fail(scan, "expected \",\" or \"]\" behind an element");
	}
}

/* ---- the object around */

static bool key_is_list(const char *key)
{
	static const char *const keys[] = {"ranges", "prefixes", "ipv6_prefixes"};

	for (unsigned i = 0; i < COUNT_OF(keys); i++)
		if (strcmp(key, keys[i]) == 0)
			return true;
	return false;
}

/* A member: its key, ":" and its value. Was it a list? */
static bool import_member(struct json_scan *scan)
{
	unsigned line = 0;
	json_t *key = NULL, *value = NULL;
	bool is_list = false;

	if (scan_peek(scan) != '"') {
		scan_fail(scan, "expected a key in quotes");
		return false;
	}
	key = scan_value(scan, &line);
	if (key == NULL)
		return false;
	is_list = key_is_list(json_string_value(key));
	json_decref(key);
	if (!scan_take(scan, ':')) {
		scan_fail(scan, "expected \":\" behind a key");
	} else if (is_list) {
		if (scan_take(scan, '['))
			import_array(scan);
		else
			scan_fail(scan, "expected an array of addresses");
	} else {
		value = scan_value(scan, &line);
		if (value != NULL)
			json_decref(value);
	}
	return is_list;
}

/* Behind its "{". */
static void import_members(struct json_scan *scan)
{
	const unsigned line = scan->line;
	bool has_list = false, is_end = scan_take(scan, '}');

	while (!is_end && !scan->is_over) {
		has_list |= import_member(scan);
		if (scan->is_over)
			return;
		is_end = scan_take(scan, '}');
		if (!is_end && !scan_take(scan, ','))
			scan_fail(scan, "expected \",\" or \"}\" behind a value");
	}
	if (is_end && !has_list)
		ip_import_mistake(scan->import, line, "an object without a list, " EXPECTED_KEYS);
}

void ip_import_json(struct ip_import *import, const char *text, size_t len)
{
	struct json_scan scan = {.import = import, .text = text, .len = len, .line = 1};

	if (scan_take(&scan, '['))
		import_array(&scan);
	else if (scan_take(&scan, '{'))
		import_members(&scan);
	else
		scan_fail(&scan, EXPECTED_KEYS);
	if (!scan.is_over && (scan_peek(&scan) != '\0' || scan.at < scan.len))
		scan_fail(&scan, "expected nothing behind the end of the list");
}
