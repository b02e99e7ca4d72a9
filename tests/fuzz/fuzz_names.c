/* SPDX-License-Identifier: Apache-2.0 */

/*
 * fuzz_names.c: domain_normalize(), names_match(), names_have() and path_domain() on any bytes. A
 * line of the input is a name of a certificate, and all of it is a domain and a path. What
 * is compared must be a host name, and no bytes beside a host name prove anything.
 */

#include "policy/names.h"

#include <ctype.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_NAMES_MAX 16
#define FUZZ_BYTES_MAX 2048

static const char *const fuzz_domains[] = {
	"contoso.com", "eu.contoso.com", "xn--bcher-kva.example", "com", "a"};
static const char *const fuzz_list[] = {"relay.hoster.example", "*.out.hoster.example"};

static bool fuzz_is_host(struct span text)
{
	bool is_start = true;

	for (size_t i = 0; i < text.len; i++) {
		if (text.data[i] == '.') {
			if (is_start)
				return false;
			is_start = true;
			continue;
		}
		if (text.data[i] >= 0x80 || (!isalnum(text.data[i]) && text.data[i] != '-'))
			return false;
		is_start = false;
	}
	return !is_start && text.len <= 253;
}

static void fuzz_normalize(struct span in)
{
	char once[DOMAIN_BYTES_MAX];
	char twice[DOMAIN_BYTES_MAX];
	char again[DOMAIN_BYTES_MAX + 1];
	size_t len = 0;

	if (domain_normalize(in, once) < 0) {
		ASSERT(once[0] == '\0');
		return;
	}
	len = strlen(once);
	ASSERT(fuzz_is_host(span_of(once)));
	for (size_t i = 0; i < len; i++)
		ASSERT(!isupper((unsigned char)once[i]));
	/* It is a fixed point, in upper case and with a trailing dot too. */
	for (size_t i = 0; i < len; i++)
		again[i] = (char)toupper((unsigned char)once[i]);
	again[len] = '.';
	ASSERT(domain_normalize(span_of(once), twice) == 0 && strcmp(once, twice) == 0);
	ASSERT(domain_normalize(span_make(again, len + 1), twice) == 0 && strcmp(once, twice) == 0);
}

/* A name that proves something is a host name, "*." in front and one dot behind allowed. */
static void fuzz_proof(struct span name, enum name_match match, bool is_common)
{
	char domain[DOMAIN_BYTES_MAX];
	struct span base = name;
	bool is_wildcard = false;

	if (base.len > 2 && base.data[0] == '*' && base.data[1] == '.') {
		base = span_skip(base, 2);
		is_wildcard = true;
	}
	if (is_common) {
		ASSERT(domain_normalize(base, domain) == 0);
		base = span_of(domain);
	} else if (base.len > 0 && base.data[base.len - 1] == '.') {
		base.len--;
	}
	ASSERT(fuzz_is_host(base));
	ASSERT(is_wildcard ? match != NAME_MATCH_EXACT && match != NAME_MATCH_HOST
			   : match != NAME_MATCH_WILDCARD);
	/* Never a whole top-level domain. */
	ASSERT(!is_wildcard || span_find(base, '.') < base.len);
}

static enum name_match fuzz_match(const struct certificate_names *names, const char *domain,
	const struct name_rules *rules, bool is_common)
{
	struct span name = {0};
	const enum name_match match = names_match(names, domain, rules, &name);

	ASSERT(match < NAME_MATCH_COUNT);
	if (match == NAME_MATCH_NONE)
		ASSERT(name.len == 0);
	else
		fuzz_proof(name, match, is_common);
	return match;
}

static void fuzz_names(const struct span *list, unsigned count)
{
	const struct certificate_names as_dns = {.dns = list, .dns_count = count};
	const struct certificate_names as_common = {.common = list, .common_count = count};
	const struct name_rules none = {.names = NULL};
	const struct name_rules common = {.common_name = true};
	const struct name_rules all = {
		.names = fuzz_list, .name_count = 2, .host_names = true, .common_name = true};

	for (unsigned i = 0; i < COUNT_OF(fuzz_domains); i++) {
		const enum name_match strict = fuzz_match(&as_dns, fuzz_domains[i], &none, false);
		const enum name_match loose = fuzz_match(&as_dns, fuzz_domains[i], &all, false);

		/* A switch adds, and takes nothing away. */
		ASSERT(strict == NAME_MATCH_NONE || strict == loose);
		ASSERT(fuzz_match(&as_common, fuzz_domains[i], &none, true) == NAME_MATCH_NONE);
		/* A CN proves what a dNSName would, and maybe as a U-label more. */
		if (count <= NAMES_COMMON_MAX && strict != NAME_MATCH_NONE)
			ASSERT(fuzz_match(&as_common, fuzz_domains[i], &common, true) !=
				NAME_MATCH_NONE);
		(void)fuzz_match(&as_common, fuzz_domains[i], &all, true);
	}
	ASSERT(fuzz_match(&as_dns, NULL, &none, false) == NAME_MATCH_NONE);
	(void)fuzz_match(&as_dns, NULL, &all, false);
	/* One label below it, whoever has the wildcard. */
	if (names_have(&as_dns, "mail.contoso.com"))
		ASSERT(names_have(&as_dns, "*.contoso.com"));
	ASSERT(!names_have(&as_dns, "*.com"));
	ASSERT(!names_have(&as_common, "mail.contoso.com"));
}

static void fuzz_path(struct span in)
{
	const struct span domain = path_domain(in);

	ASSERT(domain.len <= in.len && span_find(domain, '@') == domain.len);
	ASSERT(domain.len == 0 ||
		(domain.data > in.data && domain.data + domain.len <= in.data + in.len &&
			domain.data[-1] == '@'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span list[FUZZ_NAMES_MAX];
	struct span rest = span_make(data, size);
	unsigned count = 0;

	if (size > FUZZ_BYTES_MAX)
		return 0;
	fuzz_path(rest);
	fuzz_normalize(rest);
	while (rest.len > 0 && count < FUZZ_NAMES_MAX) {
		list[count] = span_head(rest, span_find(rest, '\n'));
		rest = span_skip(rest, list[count].len + 1);
		fuzz_normalize(list[count++]);
	}
	fuzz_names(list, count);
	return 0;
}
