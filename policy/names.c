/* SPDX-License-Identifier: Apache-2.0 */

/*
 * names.c: names of certificates against mail domains.
 *
 * A certificate may bring thousands of names, and a null sender is compared with every
 * partner. So texts are compared first, and only a name that would prove something is
 * looked at closely.
 */

#include "policy/names.h"

#include <ctype.h>
#include <errno.h>
#include <idn2.h>

/* RFC 1035 2.3.4; 253 is what is left of 255 in writing. */
#define NAME_BYTES 253
#define LABEL_BYTES 63

/* Longer than any domain in UTF-8: a label of 63 bytes stands for less than four times that. */
#define DOMAIN_UTF8_BYTES 1024

/* A name of a certificate, or one that it must have: "*.base" or "base". */
struct name {
	struct span base; /* without a trailing dot */
	bool is_wildcard;
};

static bool byte_is_ldh(uint8_t byte)
{
	return byte < 0x80 && (isalnum(byte) || byte == '-');
}

/* Letters, digits and hyphens; a hyphen is neither first nor last (RFC 1123 2.1). */
static bool label_is_host(struct span label)
{
	if (label.len == 0 || label.len > LABEL_BYTES)
		return false;
	for (size_t i = 0; i < label.len; i++) {
		if (!byte_is_ldh(label.data[i]))
			return false;
	}
	return label.data[0] != '-' && label.data[label.len - 1] != '-';
}

static bool label_is_number(struct span label)
{
	for (size_t i = 0; i < label.len; i++) {
		if (!isdigit(label.data[i]))
			return false;
	}
	return true;
}

/* A host name without a trailing dot. Its last label has a letter: else it is an address. */
static bool span_is_host(struct span text)
{
	if (text.len > NAME_BYTES)
		return false;
	for (;;) {
		const struct span label = span_head(text, span_find(text, '.'));

		if (!label_is_host(label))
			return false;
		if (label.len == text.len)
			return !label_is_number(label);
		text = span_skip(text, label.len + 1);
	}
}

/* What is behind the first dot; empty if there is none. */
static struct span span_parent(struct span name)
{
	return span_skip(name, span_find(name, '.') + 1);
}

static struct span span_without_dot(struct span text)
{
	if (text.len > 0 && text.data[text.len - 1] == '.')
		text.len--;
	return text;
}

static int domain_put(struct span ascii, char out[static DOMAIN_BYTES_MAX])
{
	ascii = span_without_dot(ascii);
	if (!span_is_host(ascii))
		return -EINVAL;
	for (size_t i = 0; i < ascii.len; i++)
		out[i] = (char)tolower(ascii.data[i]);
	out[ascii.len] = '\0';
	return 0;
}

/*
 * IDN2_USE_STD3_ASCII_RULES is not asked for: libidn2 then leaves "_" and the like out and takes
 * the rest, so that "a_b" would be "ab". Without it they stay, and domain_put() refuses them.
 */
static int domain_put_unicode(struct span domain, char out[static DOMAIN_BYTES_MAX])
{
	char text[DOMAIN_UTF8_BYTES + 1];
	uint8_t *ascii = NULL;
	int error = 0;

	if (domain.len == 0 || domain.len > DOMAIN_UTF8_BYTES ||
		span_find(domain, '\0') < domain.len)
		return -EINVAL;
	memcpy(text, domain.data, domain.len);
	text[domain.len] = '\0';
	error = idn2_lookup_u8(
		(const uint8_t *)text, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);
	if (error == IDN2_MALLOC)
		return -ENOMEM;
	if (error != IDN2_OK)
		return -EINVAL;
	error = domain_put(span_of((const char *)ascii), out);
	idn2_free(ascii);
	return error;
}

/*
 * What is ASCII is taken as it stands, A-labels too: in that form two domains are the same
 * if and only if their letters are.
 */
int domain_normalize(struct span domain, char out[static DOMAIN_BYTES_MAX])
{
	out[0] = '\0';
	if (!span_has_high(domain))
		return domain_put(domain, out);
	return domain_put_unicode(domain, out);
}

static struct name name_of(struct span text)
{
	struct name name = {.base = span_without_dot(text)};

	if (name.base.len >= 2 && name.base.data[0] == '*' && name.base.data[1] == '.') {
		name.base = span_skip(name.base, 2);
		name.is_wildcard = true;
	}
	return name;
}

/*
 * May it prove anything? It is a host name, and if it is a wildcard, then not of a whole
 * top-level domain. Any other "*" is no host name.
 */
static bool name_is_usable(struct name name)
{
	return span_is_host(name.base) && (!name.is_wildcard || span_parent(name.base).len > 0);
}

/* Is it that name, a wildcard of the certificate standing for one label (RFC 9525 6.3)? */
static bool name_is(struct name name, struct name reference)
{
	if (span_equal_nocase(name.base, reference.base))
		return name.is_wildcard == reference.is_wildcard && name_is_usable(name);
	if (name.is_wildcard == reference.is_wildcard)
		return false;
	if (name.is_wildcard)
		return span_equal_nocase(name.base, span_parent(reference.base)) &&
		       name_is_usable(name) && name_is_usable(reference);
	return span_equal_nocase(span_parent(name.base), reference.base) && name_is_usable(name) &&
	       name_is_usable(reference);
}

static bool name_is_listed(struct name name, const struct name_rules *rules)
{
	for (unsigned i = 0; i < rules->name_count; i++) {
		if (name_is(name, name_of(span_of(rules->names[i]))))
			return true;
	}
	return false;
}

/* A host directly under a domain; under a top-level domain it is somebody else's domain. */
static bool name_is_under(struct name name, struct span domain)
{
	return !name.is_wildcard && span_equal_nocase(span_parent(name.base), domain) &&
	       span_parent(domain).len > 0 && name_is_usable(name);
}

static enum name_match name_match_one(
	struct name name, struct name domain, const struct name_rules *rules)
{
	const bool has_domain = domain.base.len > 0;

	if (has_domain && !name.is_wildcard && name_is(name, domain))
		return NAME_MATCH_EXACT;
	if (has_domain && name.is_wildcard &&
		(name_is(name, domain) ||
			(span_equal_nocase(name.base, domain.base) && name_is_usable(name))))
		return NAME_MATCH_WILDCARD;
	if (name_is_listed(name, rules))
		return NAME_MATCH_LISTED;
	if (has_domain && rules->host_names && name_is_under(name, domain.base))
		return NAME_MATCH_HOST;
	return NAME_MATCH_NONE;
}

/* A CN may be a U-label, as no dNSName can (RFC 5280 7.2). */
static struct name name_of_common(struct span common, char room[static DOMAIN_BYTES_MAX])
{
	struct name name = name_of(common);

	/* With its trailing dot, so that only one is taken off, in whatever script it is. */
	if (span_has_high(common)) {
		const struct span base = span_skip(common, name.is_wildcard ? 2 : 0);

		name.base = domain_normalize(base, room) == 0 ? span_of(room) : (struct span){0};
	}
	return name;
}

enum name_match names_match(const struct certificate_names *names, const char *domain,
	const struct name_rules *rules, struct span *out_name)
{
	const struct name wanted = {.base = domain == NULL ? (struct span){0} : span_of(domain)};
	const bool is_common = names->dns_count == 0 && rules->common_name;
	const struct span *list = is_common ? names->common : names->dns;
	const unsigned commons =
		names->common_count < NAMES_COMMON_MAX ? names->common_count : NAMES_COMMON_MAX;
	const unsigned count = is_common ? commons : names->dns_count;
	enum name_match best = NAME_MATCH_NONE;
	struct span best_name = {0};

	/* The strongest rule, so that the order of the names does not matter. */
	for (unsigned i = 0; i < count && best != NAME_MATCH_EXACT; i++) {
		char room[DOMAIN_BYTES_MAX];
		const struct name name =
			is_common ? name_of_common(list[i], room) : name_of(list[i]);
		const enum name_match match = name_match_one(name, wanted, rules);

		if (match != NAME_MATCH_NONE && (best == NAME_MATCH_NONE || match < best)) {
			best = match;
			best_name = list[i];
		}
	}
	if (out_name != NULL)
		*out_name = best_name;
	return best;
}

bool names_have(const struct certificate_names *names, const char *reference)
{
	const struct name wanted = name_of(span_of(reference));

	for (unsigned i = 0; i < names->dns_count; i++) {
		if (name_is(name_of(names->dns[i]), wanted))
			return true;
	}
	return false;
}

const char *name_match_word(enum name_match match)
{
	static const char *const words[NAME_MATCH_COUNT] = {
		[NAME_MATCH_NONE] = "none",
		[NAME_MATCH_EXACT] = "exact",
		[NAME_MATCH_WILDCARD] = "wildcard",
		[NAME_MATCH_LISTED] = "listed",
		[NAME_MATCH_HOST] = "host",
	};

	ASSERT(match < NAME_MATCH_COUNT);
	return words[match];
}

/*
 * A quoted local part may have an @ in it, a source route has one for each host; neither a
 * domain nor an address literal has any.
 */
struct span path_domain(struct span path)
{
	size_t at = 0;

	if (path.len > 0 && path.data[path.len - 1] == '>')
		path.len--;
	for (at = path.len; at > 0; at--) {
		if (path.data[at - 1] == '@')
			return span_skip(path, at);
	}
	return span_skip(path, path.len);
}
