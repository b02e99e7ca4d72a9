/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/cert.h"

#include "policy/names.h"
#include <errno.h>
#include <openssl/x509v3.h>
#include <string.h>

/* The parts of a subject that Exchange knows, in the order in which they are encoded. */
static const struct part {
	const char *name;
	int nid;
	size_t min, max; /* characters */
	bool is_single;
	bool is_ascii;
} parts[] = {
	{"C", NID_countryName, 2, 2, true, true},
	{"DC", NID_domainComponent, 1, 255, false, true},
	{"S", NID_stateOrProvinceName, 1, 128, true, false},
	{"L", NID_localityName, 1, 128, true, false},
	{"O", NID_organizationName, 1, 64, true, false},
	{"OU", NID_organizationalUnitName, 1, 64, false, false},
	{"CN", NID_commonName, 1, 64, false, false},
};

#define SUBJECT_PARTS_MAX 32

struct subject_value {
	const struct part *part;
	char text[512];
};

static const struct part *part_find(const char *name, size_t len)
{
	if (len == 2 && strncasecmp(name, "ST", 2) == 0)
		return part_find("S", 1);
	for (unsigned i = 0; i < COUNT_OF(parts); i++)
		if (strlen(parts[i].name) == len && strncasecmp(parts[i].name, name, len) == 0)
			return &parts[i];
	return NULL;
}

/* The text up to the next comma that no backslash stands before, without blanks around it. */
static int value_read(const char **at, char *out, size_t out_bytes)
{
	size_t len = 0;
	size_t kept = 0; /* blanks behind it are dropped, but not escaped ones */

	*at += strspn(*at, " ");
	for (; **at != '\0' && **at != ','; (*at)++) {
		bool is_escaped = **at == '\\' && (*at)[1] != '\0';

		if (is_escaped)
			(*at)++;
		if (len + 1 >= out_bytes)
			return -EINVAL;
		out[len++] = **at;
		if (is_escaped || **at != ' ')
			kept = len;
	}
	out[kept] = '\0';
	if (**at == ',')
		(*at)++;
	return 0;
}

/* UTF-8 without control characters; *out_count: its characters. */
static bool text_is_good(const char *text, bool is_ascii, size_t *out_count)
{
	const unsigned char *at = (const unsigned char *)text;
	int left = (int)strlen(text);
	unsigned long character;

	*out_count = 0;
	while (left > 0) {
		int len = UTF8_getc(at, left, &character);

		if (len <= 0 || character < ' ' || character == 0x7f || (is_ascii && len > 1))
			return false;
		at += len;
		left -= len;
		(*out_count)++;
	}
	return true;
}

static int value_check(const struct subject_value *value)
{
	const struct part *part = value->part;
	size_t count = 0;

	if (text_is_good(value->text, part->is_ascii, &count) && count >= part->min &&
		count <= part->max)
		return 0;
	ctl_error("--subject: %s=%s has %zu %s characters, expected %s%zu%s", part->name,
		value->text, count, part->is_ascii ? "ASCII" : "UTF-8",
		part->min == part->max ? "" : "1 to ", part->max,
		part->is_ascii ? " of ASCII" : "");
	return -EINVAL;
}

static int subject_parse(const char *text, struct subject_value *values, unsigned *out_count)
{
	unsigned count = 0;

	while (*text != '\0') {
		size_t len = strcspn(text, "=,");
		size_t blanks = strspn(text, " ");
		struct subject_value *value = &values[count];

		if (count == SUBJECT_PARTS_MAX || text[len] != '=' || blanks > len)
			break;
		value->part = part_find(text + blanks, len - blanks);
		if (value->part == NULL)
			break;
		text += len + 1;
		if (value_read(&text, value->text, sizeof(value->text)) < 0 ||
			value_check(value) < 0)
			return -EINVAL;
		for (unsigned i = 0; i < count && value->part->is_single; i++) {
			if (values[i].part == value->part) {
				ctl_error("--subject: %s stands twice, expected it once",
					value->part->name);
				return -EINVAL;
			}
		}
		count++;
	}
	*out_count = count;
	if (*text == '\0' && count > 0)
		return 0;
	ctl_error("--subject: cannot read \"%s\", expected C=, DC=, S=, L=, O=, OU= or CN= with "
		  "\",\" between",
		text);
	return -EINVAL;
}

int cert_subject_set(const char *text, const char *name, X509_NAME *out)
{
	struct subject_value values[SUBJECT_PARTS_MAX + 1];
	unsigned count = 0;
	bool has_common = false;

	if (text != NULL && subject_parse(text, values, &count) < 0)
		return -EINVAL;
	for (unsigned i = 0; i < count; i++)
		has_common |= values[i].part->nid == NID_commonName;
	/* A longer one is in the subjectAltName only. */
	if (!has_common && (strlen(name) <= 64 || count == 0)) {
		values[count].part = part_find("CN", 2);
		(void)snprintf(values[count].text, sizeof(values[count].text), "%.64s", name);
		count++;
	}
	for (unsigned i = 0; i < COUNT_OF(parts); i++) {
		for (unsigned j = 0; j < count; j++) {
			if (values[j].part != &parts[i])
				continue;
			if (X509_NAME_add_entry_by_NID(out, parts[i].nid, MBSTRING_UTF8,
				    (const unsigned char *)values[j].text, -1, -1, 0) != 1) {
				ctl_error("--subject: %s=%s: %s", parts[i].name, values[j].text,
					cert_openssl_reason());
				return -EINVAL;
			}
		}
	}
	return 0;
}

int cert_name_normalize(const char *text, size_t len, char out[static DOMAIN_BYTES_MAX + 2])
{
	size_t skipped = len > 2 && memcmp(text, "*.", 2) == 0 ? 2 : 0;
	char domain[DOMAIN_BYTES_MAX];

	if (domain_normalize(span_make(text + skipped, len - skipped), domain) < 0) {
		ctl_error("--name %.*s: expected a domain name", (int)len, text);
		return -EINVAL;
	}
	(void)snprintf(out, DOMAIN_BYTES_MAX + 2, "%s%s", skipped > 0 ? "*." : "", domain);
	return 0;
}

static bool names_hold(const GENERAL_NAMES *names, const char *name)
{
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const ASN1_STRING *have = sk_GENERAL_NAME_value(names, i)->d.dNSName;

		if (ASN1_STRING_length(have) == (int)strlen(name) &&
			memcmp(ASN1_STRING_get0_data(have), name, strlen(name)) == 0)
			return true;
	}
	return false;
}

static int names_create_one(GENERAL_NAMES *names, const char *name)
{
	GENERAL_NAME *general = NULL;
	ASN1_IA5STRING *text = NULL;

	if (names_hold(names, name))
		return 0;
	general = GENERAL_NAME_new();
	text = ASN1_IA5STRING_new();
	if (general == NULL || text == NULL || ASN1_STRING_set(text, name, -1) != 1) {
		GENERAL_NAME_free(general);
		ASN1_IA5STRING_free(text);
		return -ENOMEM;
	}
	GENERAL_NAME_set0_value(general, GEN_DNS, text);
	if (sk_GENERAL_NAME_push(names, general) > 0)
		return 0;
	GENERAL_NAME_free(general);
	return -ENOMEM;
}

int cert_names_create(const struct ctl_list *list, GENERAL_NAMES *names)
{
	char name[DOMAIN_BYTES_MAX + 2];
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < list->count; i++) {
		const char *at = list->texts[i];

		for (;;) {
			size_t len = strcspn(at, ",");

			rc = cert_name_normalize(at, len, name);
			if (rc == 0)
				rc = names_create_one(names, name);
			if (rc < 0 || at[len] == '\0')
				break;
			at += len + 1;
		}
	}
	return rc;
}
