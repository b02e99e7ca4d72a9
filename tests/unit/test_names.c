/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_names.c: certificates' names against mail domains, and domains in their compared form.
 */

#include "policy/names.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define N NAME_MATCH_NONE
#define E NAME_MATCH_EXACT
#define W NAME_MATCH_WILDCARD
#define L NAME_MATCH_LISTED
#define H NAME_MATCH_HOST

#define NAMES_MAX 4
#define RULES 6

/* A literal with whatever is in it, NULs too. */
#define TEXT(literal)                                           \
	{                                                       \
		(const uint8_t *)(literal), sizeof(literal) - 1 \
	}

#define LABEL_63 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define LABEL_64 LABEL_63 "a"
/* 253 bytes, the longest name that there can be, and one of 254. */
#define NAME_253                           \
	LABEL_63 "." LABEL_63 "." LABEL_63 \
		 ".aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.contoso.com"
#define NAME_254                           \
	LABEL_63 "." LABEL_63 "." LABEL_63 \
		 ".aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.contoso.com"

/* The matrix' columns. The list is another organisation's names: a host, and any host under x. */
static const char *const names_list[] = {"relay.hoster.example"};
static const char *const names_wild_list[] = {"*.out.hoster.example"};
static const char *const names_both_lists[] = {"relay.hoster.example", "*.out.hoster.example"};

static const struct name_rules columns[RULES] = {
	{.names = NULL},
	{.host_names = true},
	{.common_name = true},
	{.names = names_list, .name_count = 1},
	{.names = names_wild_list, .name_count = 1},
	{.names = names_both_lists, .name_count = 2, .host_names = true, .common_name = true},
};

static const char *const column_names[RULES] = {
	"exact only", "host-names", "common-name", "names", "names *.", "all"};

struct names_case {
	const char *what;
	const char *domain;
	struct span dns[NAMES_MAX];    /* ends at the first without data */
	struct span common[NAMES_MAX]; /* so does this */
	enum name_match want[RULES];
};

static unsigned names_count(const struct span list[static NAMES_MAX])
{
	unsigned count = 0;

	while (count < NAMES_MAX && list[count].data != NULL)
		count++;
	return count;
}

/* The columns are: nothing on, host-names, common-name, a list, a list with "*.", all. */
static const struct names_case matrix[] = {
	{"the domain", "contoso.com", {TEXT("contoso.com")}, {{0}}, {E, E, E, E, E, E}},
	{"the domain, other case", "contoso.com", {TEXT("CONTOSO.Com")}, {{0}}, {E, E, E, E, E, E}},
	{"the domain, trailing dot", "contoso.com", {TEXT("contoso.com.")}, {{0}},
		{E, E, E, E, E, E}},
	{"two trailing dots", "contoso.com", {TEXT("contoso.com..")}, {{0}}, {N, N, N, N, N, N}},
	{"the domain as the last of several", "contoso.com",
		{TEXT("mail.contoso.com"), TEXT("*.contoso.com"), TEXT("contoso.com")}, {{0}},
		{E, E, E, E, E, E}},
	{"A-label", "xn--bcher-kva.example", {TEXT("xn--bcher-kva.example")}, {{0}},
		{E, E, E, E, E, E}},
	{"A-label, mixed case", "xn--bcher-kva.example", {TEXT("XN--Bcher-KVA.Example")}, {{0}},
		{E, E, E, E, E, E}},
	{"U-label as dNSName", "xn--bcher-kva.example",
		{TEXT("b\xc3\xbc"
		      "cher.example")},
		{TEXT("xn--bcher-kva.example")}, {N, N, N, N, N, N}},
	{"Latin-1 as dNSName", "xn--bcher-kva.example",
		{TEXT("b\xfc"
		      "cher.example")},
		{{0}}, {N, N, N, N, N, N}},
	{"A-label wildcard", "xn--bcher-kva.example", {TEXT("*.xn--bcher-kva.example")}, {{0}},
		{W, W, W, W, W, W}},
	{"wildcard inside an A-label", "xn--bcher-kva.example", {TEXT("xn--*.example")}, {{0}},
		{N, N, N, N, N, N}},
	{"NUL behind the domain", "contoso.com", {TEXT("contoso.com\0.evil.example")}, {{0}},
		{N, N, N, N, N, N}},
	{"NUL at the end", "contoso.com", {TEXT("contoso.com\0")}, {{0}}, {N, N, N, N, N, N}},
	{"NUL in front, of a host", "contoso.com", {TEXT("\0.contoso.com")}, {{0}},
		{N, N, N, N, N, N}},
	{"NUL in a wildcard", "contoso.com", {TEXT("*\0.contoso.com"), TEXT("*.\0contoso.com")},
		{{0}}, {N, N, N, N, N, N}},
	{"IP address only", "contoso.com", {{0}}, {{0}}, {N, N, N, N, N, N}},
	{"IP address as dNSName", "192.0.2.1", {TEXT("192.0.2.1"), TEXT("*.0.2.1")}, {{0}},
		{N, N, N, N, N, N}},
	{"IP address and CN", "contoso.com", {{0}}, {TEXT("contoso.com")}, {N, N, E, N, N, E}},
	{"CN only, other case and dot", "contoso.com", {{0}}, {TEXT("Contoso.COM.")},
		{N, N, E, N, N, E}},
	{"CN in words", "contoso.com", {{0}}, {TEXT("Contoso Ltd, contoso.com")},
		{N, N, N, N, N, N}},
	{"several CNs, the last one", "contoso.com", {{0}},
		{TEXT("Contoso Ltd"), TEXT("mail.contoso.com"), TEXT("contoso.com")},
		{N, N, E, N, N, E}},
	{"several CNs, a host", "contoso.com", {{0}},
		{TEXT("Contoso Ltd"), TEXT("mail.contoso.com")}, {N, N, N, N, N, H}},
	{"wildcard CN", "contoso.com", {{0}}, {TEXT("*.contoso.com")}, {N, N, W, N, N, W}},
	{"listed CN", "contoso.com", {{0}}, {TEXT("relay.hoster.example")}, {N, N, N, N, N, L}},
	{"U-label CN", "xn--bcher-kva.example", {{0}},
		{TEXT("B\xc3\xbc"
		      "cher.example")},
		{N, N, E, N, N, E}},
	{"U-label wildcard CN", "xn--bcher-kva.example", {{0}},
		{TEXT("*.b\xc3\xbc"
		      "cher.example")},
		{N, N, W, N, N, W}},
	{"fullwidth * as CN", "contoso.com", {{0}}, {TEXT("\xef\xbc\x8a.contoso.com")},
		{N, N, N, N, N, N}},
	{"fullwidth _ in the CN", "contoso.com", {{0}}, {TEXT("con\xef\xbc\xbftoso.com")},
		{N, N, N, N, N, N}},
	{"two trailing dots in two scripts", "xn--bcher-kva.example", {{0}},
		{TEXT("b\xc3\xbc"
		      "cher.example\xef\xbc\x8e.")},
		{N, N, N, N, N, N}},
	{"NUL in the CN", "contoso.com", {{0}}, {TEXT("contoso.com\0.evil.example")},
		{N, N, N, N, N, N}},
	{"CN beside another dNSName", "contoso.com", {TEXT("mail.fabrikam.example")},
		{TEXT("contoso.com")}, {N, N, N, N, N, N}},
	{"CN beside an empty dNSName", "contoso.com", {TEXT("")}, {TEXT("contoso.com")},
		{N, N, N, N, N, N}},
	{"empty dNSName", "contoso.com", {TEXT("")}, {{0}}, {N, N, N, N, N, N}},
	{"a dot", "contoso.com", {TEXT("."), TEXT("*."), TEXT("*"), TEXT("*.*")}, {{0}},
		{N, N, N, N, N, N}},
	{"wildcard for the domain", "contoso.com", {TEXT("*.contoso.com")}, {{0}},
		{W, W, W, W, W, W}},
	{"wildcard one label up", "eu.contoso.com", {TEXT("*.contoso.com")}, {{0}},
		{W, W, W, W, W, W}},
	{"wildcard two labels up", "mail.eu.contoso.com", {TEXT("*.contoso.com")}, {{0}},
		{N, N, N, N, N, N}},
	{"wildcard one label down", "contoso.com", {TEXT("*.eu.contoso.com")}, {{0}},
		{N, N, N, N, N, N}},
	{"host", "contoso.com", {TEXT("mail.contoso.com")}, {{0}}, {N, H, N, N, N, H}},
	{"host, case and dot", "contoso.com", {TEXT("MAIL.Contoso.com.")}, {{0}},
		{N, H, N, N, N, H}},
	{"host two labels down", "contoso.com", {TEXT("mx.mail.contoso.com")}, {{0}},
		{N, N, N, N, N, N}},
	{"the domain above", "eu.contoso.com", {TEXT("contoso.com")}, {{0}}, {N, N, N, N, N, N}},
	{"a neighbour under the same domain", "eu.contoso.com", {TEXT("us.contoso.com")}, {{0}},
		{N, N, N, N, N, N}},
	{"partial wildcard", "contoso.com",
		{TEXT("f*.contoso.com"), TEXT("*f.contoso.com"), TEXT("con*.com"),
			TEXT("m*l.contoso.com")},
		{{0}}, {N, N, N, N, N, N}},
	{"wildcard not in front", "a.b.contoso.com",
		{TEXT("a.*.contoso.com"), TEXT("*.*.contoso.com"), TEXT("**.contoso.com"),
			TEXT("contoso.*")},
		{{0}}, {N, N, N, N, N, N}},
	{"wildcard of a top-level domain", "contoso.com", {TEXT("*.com"), TEXT("*.COM.")}, {{0}},
		{N, N, N, N, N, N}},
	/* We have no list of public suffixes; see names.h. */
	{"wildcard of a public suffix", "contoso.co.uk", {TEXT("*.co.uk")}, {{0}},
		{W, W, W, W, W, W}},
	{"wildcard of a public suffix, a host", "mail.contoso.co.uk", {TEXT("*.co.uk")}, {{0}},
		{N, N, N, N, N, N}},
	{"top-level domain, its own wildcard", "com", {TEXT("*.com"), TEXT("contoso.com")}, {{0}},
		{N, N, N, N, N, N}},
	{"a domain of one label", "intranet", {TEXT("intranet")}, {{0}}, {E, E, E, E, E, E}},
	{"looks like the domain", "contoso.com",
		{TEXT("xcontoso.com"), TEXT("contoso.com.evil.example"), TEXT("contoso.co"),
			TEXT("*.xcontoso.com")},
		{{0}}, {N, N, N, N, N, N}},
	{"spaces", "contoso.com",
		{TEXT(" contoso.com"), TEXT("contoso.com "), TEXT("contoso.com\n")}, {{0}},
		{N, N, N, N, N, N}},
	{"a URL", "contoso.com", {TEXT("https://contoso.com"), TEXT("a@contoso.com")}, {{0}},
		{N, N, N, N, N, N}},
	{"hyphen at an edge", "contoso.com", {TEXT("-a.contoso.com"), TEXT("a-.contoso.com")},
		{{0}}, {N, N, N, N, N, N}},
	{"underscore", "contoso.com", {TEXT("_smtp.contoso.com")}, {{0}}, {N, N, N, N, N, N}},
	{"longest name there is", NAME_253, {TEXT(NAME_253)}, {{0}}, {E, E, E, E, E, E}},
	{"a byte too long", NAME_254, {TEXT(NAME_254), TEXT("*." NAME_254)}, {{0}},
		{N, N, N, N, N, N}},
	{"a label too long", "contoso.com", {TEXT(LABEL_64 ".contoso.com")}, {{0}},
		{N, N, N, N, N, N}},
	{"longest label there is", "contoso.com", {TEXT(LABEL_63 ".contoso.com")}, {{0}},
		{N, H, N, N, N, H}},
	{"another partner's name", "contoso.com", {TEXT("treyresearch.net")},
		{TEXT("treyresearch.net")}, {N, N, N, N, N, N}},
	{"listed", "contoso.com", {TEXT("Relay.Hoster.Example.")}, {{0}}, {N, N, N, L, N, L}},
	{"wildcard over the listed", "contoso.com", {TEXT("*.hoster.example")}, {{0}},
		{N, N, N, L, N, L}},
	{"a neighbour of the listed", "contoso.com", {TEXT("mail.hoster.example")}, {{0}},
		{N, N, N, N, N, N}},
	{"listed by wildcard", "contoso.com", {TEXT("a1.out.hoster.example")}, {{0}},
		{N, N, N, N, L, L}},
	{"the listed wildcard itself", "contoso.com", {TEXT("*.out.hoster.example")}, {{0}},
		{N, N, N, N, L, L}},
	{"the listed wildcard's name", "contoso.com", {TEXT("out.hoster.example")}, {{0}},
		{N, N, N, N, N, N}},
	{"two labels under the listed wildcard", "contoso.com", {TEXT("b.a1.out.hoster.example")},
		{{0}}, {N, N, N, N, N, N}},
	{"a host and a listed name: the list is stronger", "contoso.com",
		{TEXT("mail.contoso.com"), TEXT("relay.hoster.example")}, {{0}},
		{N, H, N, L, N, L}},
	{"no domain: the list only", NULL,
		{TEXT("contoso.com"), TEXT("a1.out.hoster.example"), TEXT("relay.hoster.example")},
		{{0}}, {N, N, N, L, L, L}},
	{"no domain, and nothing listed", NULL, {TEXT("contoso.com"), TEXT("*.com"), TEXT("")},
		{{0}}, {N, N, N, N, N, N}},
};

/* Each list in a block of its own length, so that a read behind a name is found. */
static enum name_match names_run(const struct names_case *row, const struct name_rules *rules)
{
	struct span lists[2][NAMES_MAX];
	uint8_t *blocks[2 * NAMES_MAX];
	unsigned block_count = 0;
	struct certificate_names names = {.dns = lists[0],
		.dns_count = names_count(row->dns),
		.common = lists[1],
		.common_count = names_count(row->common)};
	struct span proved = {0};
	enum name_match match;
	bool is_own = false;

	for (unsigned i = 0; i < names.dns_count + names.common_count; i++) {
		const bool is_common = i >= names.dns_count;
		const unsigned at = is_common ? i - names.dns_count : i;
		const struct span text = is_common ? row->common[at] : row->dns[at];
		uint8_t *block = malloc(text.len + 1);

		assert_non_null(block);
		memcpy(block + 1, text.data, text.len);
		blocks[block_count++] = block;
		lists[is_common][at] = span_make(block + 1, text.len);
	}
	match = names_match(&names, row->domain, rules, &proved);
	for (unsigned i = 0; i < names.dns_count; i++)
		is_own |= proved.data == lists[0][i].data;
	for (unsigned i = 0; i < names.common_count; i++)
		is_own |= proved.data == lists[1][i].data;
	if ((match != NAME_MATCH_NONE) != is_own)
		fail_msg("%s: %s by a name that is%s of the certificate", row->what,
			name_match_word(match), is_own ? "" : " not");
	assert_int_equal(names_match(&names, row->domain, rules, NULL), match);
	for (unsigned i = 0; i < block_count; i++)
		free(blocks[i]);
	return match;
}

static void test_names_matrix(void **state)
{
	unsigned wrong = 0;

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(matrix); i++) {
		for (unsigned rule = 0; rule < RULES; rule++) {
			const enum name_match match = names_run(&matrix[i], &columns[rule]);

			if (match == matrix[i].want[rule])
				continue;
			print_error("%s, %s: %s, want %s\n", matrix[i].what, column_names[rule],
				name_match_word(match), name_match_word(matrix[i].want[rule]));
			wrong++;
		}
	}
	assert_int_equal(wrong, 0);
}

/* The strongest rule, whichever name comes first. */
static void test_names_order(void **state)
{
	const struct span ascending[] = {TEXT("contoso.com"), TEXT("*.contoso.com"),
		TEXT("relay.hoster.example"), TEXT("mail.contoso.com")};
	struct span descending[COUNT_OF(ascending)];

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(ascending); i++)
		descending[i] = ascending[COUNT_OF(ascending) - 1 - i];
	for (unsigned skip = 0; skip < COUNT_OF(ascending); skip++) {
		const unsigned count = (unsigned)COUNT_OF(ascending) - skip;
		const struct certificate_names up = {.dns = ascending + skip, .dns_count = count};
		const struct certificate_names down = {.dns = descending, .dns_count = count};
		struct span name = {0};

		assert_int_equal(names_match(&up, "contoso.com", &columns[5], &name), E + skip);
		assert_true(span_equal(name, ascending[skip]));
		assert_int_equal(names_match(&down, "contoso.com", &columns[5], &name), E + skip);
		assert_true(span_equal(name, ascending[skip]));
	}
}

static void test_names_many_commons(void **state)
{
	struct span common[NAMES_COMMON_MAX + 1];
	const struct certificate_names names = {
		.common = common, .common_count = (unsigned)COUNT_OF(common)};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(common); i++)
		common[i] = span_of("Contoso Ltd");
	common[NAMES_COMMON_MAX] = span_of("contoso.com");
	assert_int_equal(names_match(&names, "contoso.com", &columns[2], NULL), N);
	common[NAMES_COMMON_MAX - 1] = span_of("contoso.com");
	assert_int_equal(names_match(&names, "contoso.com", &columns[2], NULL), E);
}

struct have_case {
	const char *reference;
	struct span dns;
	bool want;
};

static void test_names_have(void **state)
{
	static const struct have_case cases[] = {
		{"mail.contoso.com", TEXT("mail.contoso.com"), true},
		{"mail.contoso.com", TEXT("MAIL.CONTOSO.COM."), true},
		{"Mail.Contoso.com", TEXT("mail.contoso.com"), true},
		{"mail.contoso.com", TEXT("*.contoso.com"), true},
		{"mx.mail.contoso.com", TEXT("*.contoso.com"), false},
		{"contoso.com", TEXT("*.contoso.com"), false},
		{"contoso.com", TEXT("mail.contoso.com"), false},
		{"contoso.com", TEXT("*.com"), false},
		{"*.contoso.com", TEXT("mail.contoso.com"), true},
		{"*.contoso.com", TEXT("*.contoso.com"), true},
		{"*.contoso.com", TEXT("contoso.com"), false},
		{"*.contoso.com", TEXT("mx.mail.contoso.com"), false},
		{"*.contoso.com", TEXT("*.mail.contoso.com"), false},
		{"*.contoso.com", TEXT("*.com"), false},
		{"*.com", TEXT("contoso.com"), false},
		{"*.com", TEXT("*.com"), false},
		{"_a.contoso.com", TEXT("*.contoso.com"), false},
		{"mail.contoso.com", TEXT("mail.contoso.com\0"), false},
		{"mail.contoso.com", TEXT("m*.contoso.com"), false},
		{"mail.contoso.com", TEXT(""), false},
	};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(cases); i++) {
		const struct span dns[] = {TEXT("other.example"), cases[i].dns};
		const struct span common[] = {span_of(cases[i].reference)};
		const struct certificate_names names = {.dns = dns,
			.dns_count = (unsigned)COUNT_OF(dns),
			.common = common,
			.common_count = 1};

		if (names_have(&names, cases[i].reference) != cases[i].want)
			fail_msg("%s and %.*s: want %d", cases[i].reference, (int)cases[i].dns.len,
				(const char *)cases[i].dns.data, cases[i].want);
	}
	/* A CN never counts here. */
	assert_false(
		names_have(&(struct certificate_names){.common = &cases[0].dns, .common_count = 1},
			"mail.contoso.com"));
}

struct domain_case {
	struct span in;
	const char *want; /* NULL: none */
};

static const struct domain_case domains[] = {
	{TEXT("contoso.com"), "contoso.com"},
	{TEXT("CONTOSO.com."), "contoso.com"},
	{TEXT("a"), "a"},
	{TEXT("3com.com"), "3com.com"},
	{TEXT("r3---sn.example"), "r3---sn.example"},
	{TEXT("b\xc3\xbc"
	      "cher.example"),
		"xn--bcher-kva.example"},
	{TEXT("B\xc3\x9c"
	      "CHER.Example."),
		"xn--bcher-kva.example"},
	/* u and a combining diaeresis. */
	{TEXT("bu\xcc\x88"
	      "cher.example"),
		"xn--bcher-kva.example"},
	{TEXT("XN--Bcher-KVA.example"), "xn--bcher-kva.example"},
	{TEXT("xn--i-7iq.ws"), "xn--i-7iq.ws"},
	/* Non-transitional: the sharp s stays one. */
	{TEXT("stra\xc3\x9f"
	      "e.de"),
		"xn--strae-oqa.de"},
	/* Fullwidth letters, ideographic full stops, a soft hyphen: what a mail program maps. */
	{TEXT("\xef\xbd\x83ontoso.com"), "contoso.com"},
	{TEXT("contoso\xe3\x80\x82"
	      "com"),
		"contoso.com"},
	{TEXT("contoso.com\xef\xbc\x8e"), "contoso.com"},
	{TEXT("con\xc2\xadtoso.com"), "contoso.com"},
	{TEXT(NAME_253), NAME_253},
	{TEXT(NAME_253 "."), NAME_253},
	{TEXT(LABEL_63 ".example"), LABEL_63 ".example"},
	{TEXT(""), NULL},
	{TEXT("."), NULL},
	{TEXT(".contoso.com"), NULL},
	{TEXT("contoso..com"), NULL},
	{TEXT("contoso.com.."), NULL},
	{TEXT("\xc3\xbc..com"), NULL},
	{TEXT("contoso.com.\xe3\x80\x82"), NULL},
	{TEXT("-contoso.com"), NULL},
	{TEXT("contoso-.com"), NULL},
	{TEXT("con_toso.com"), NULL},
	/* What is left out by others must not be by us: this is not xn--x-dha. */
	{TEXT("\xc3\xbc_x.com"), NULL},
	{TEXT("con\xef\xbc\xbftoso.com"), NULL},
	{TEXT("\xc3\xbc x.com"), NULL},
	{TEXT("contoso.com "), NULL},
	{TEXT("*.contoso.com"), NULL},
	{TEXT("[192.0.2.1]"), NULL},
	{TEXT("[IPv6:2001:db8::1]"), NULL},
	{TEXT("192.0.2.1"), NULL},
	{TEXT("\xef\xbc\x91\xef\xbc\x99.0.2.1"), NULL},
	{TEXT("contoso.com\0"), NULL},
	{TEXT("contoso.com\0.example"), NULL},
	{TEXT("\xc3\xbc\0.example"), NULL},
	{TEXT("contoso.com\r\n"), NULL},
	{TEXT("a@contoso.com"), NULL},
	{TEXT("\xff.com"), NULL},
	{TEXT("\xe2\x98\x83.net"), NULL},
	{TEXT("\xe2\x84\x80.com"), NULL},
	{TEXT(NAME_254), NULL},
	{TEXT(LABEL_64 ".example"), NULL},
	{TEXT("\xc3\xbc" LABEL_63 ".example"), NULL},
};

static void test_domain_normalize(void **state)
{
	(void)state;
	for (unsigned i = 0; i < COUNT_OF(domains); i++) {
		const struct domain_case *row = &domains[i];
		char out[DOMAIN_BYTES_MAX] = "untouched";
		const int error = domain_normalize(row->in, out);

		if (error != (row->want == NULL ? -EINVAL : 0) ||
			strcmp(out, row->want == NULL ? "" : row->want) != 0)
			fail_msg("%.*s: %d \"%s\", want \"%s\"", (int)row->in.len,
				(const char *)row->in.data, error, out,
				row->want == NULL ? "none" : row->want);
	}
}

/* Longer than any domain can be, in letters that need many bytes. */
static void test_domain_normalize_long(void **state)
{
	enum { BYTES = 1 << 16 };
	uint8_t *text = malloc(BYTES);
	char out[DOMAIN_BYTES_MAX];

	(void)state;
	assert_non_null(text);
	for (size_t i = 0; i < BYTES; i += 2)
		memcpy(text + i, "\xc3\xbc", 2);
	for (size_t len = 4 * DOMAIN_BYTES_MAX - 4; len < 4 * DOMAIN_BYTES_MAX + 4; len++)
		assert_int_equal(domain_normalize(span_make(text, len), out), -EINVAL);
	assert_int_equal(domain_normalize(span_make(text, BYTES), out), -EINVAL);
	free(text);
}

static void test_path_domain(void **state)
{
	static const struct {
		const char *path, *want;
	} cases[] = {
		{"<a@contoso.com>", "contoso.com"},
		{"a@contoso.com", "contoso.com"},
		{"<>", ""},
		{"", ""},
		{"<", ""},
		{">", ""},
		{"<@a.example,@b.example:user@contoso.com>", "contoso.com"},
		{"<\"a@b\"@contoso.com>", "contoso.com"},
		{"<\"a\\\"@b\"@contoso.com>", "contoso.com"},
		{"<a@[192.0.2.1]>", "[192.0.2.1]"},
		{"<postmaster>", ""},
		{"<a@>", ""},
		{"@", ""},
		{"<a@Contoso.COM.>", "Contoso.COM."},
	};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(cases); i++) {
		const struct span domain = path_domain(span_of(cases[i].path));

		if (!span_equal(domain, span_of(cases[i].want)))
			fail_msg("%s: %.*s", cases[i].path, (int)domain.len,
				(const char *)domain.data);
	}
	assert_int_equal(path_domain((struct span){0}).len, 0);
}

static void test_name_match_words(void **state)
{
	static const char *const words[] = {"none", "exact", "wildcard", "listed", "host"};

	(void)state;
	assert_int_equal(COUNT_OF(words), NAME_MATCH_COUNT);
	for (unsigned i = 0; i < NAME_MATCH_COUNT; i++)
		assert_string_equal(name_match_word((enum name_match)i), words[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names_matrix),
		cmocka_unit_test(test_names_order),
		cmocka_unit_test(test_names_many_commons),
		cmocka_unit_test(test_names_have),
		cmocka_unit_test(test_domain_normalize),
		cmocka_unit_test(test_domain_normalize_long),
		cmocka_unit_test(test_path_domain),
		cmocka_unit_test(test_name_match_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
