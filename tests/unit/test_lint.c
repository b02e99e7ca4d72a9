/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_lint.c: each finding of lint_policy() in a file that has no other, and the slips of the
 * article that EXCHANGE 4.5 names (table 14 row 47).
 */

#include "policy/lint.h"
#include "policy/spelling.h"
#include "tests/unit/config_fixture.h"

/* What lint_policy() wrote. */
static char *written;

static unsigned lint_text(const char *text)
{
	struct policy *policy = NULL;
	unsigned count = 0;
	size_t bytes = 0;
	FILE *out = NULL;

	if (load_text(text, &policy) != 0)
		fail_msg("%s", said);
	free(written);
	written = NULL;
	out = open_memstream(&written, &bytes);
	assert_non_null(out);
	lint_policy(policy, out, &count);
	assert_int_equal(fclose(out), 0);
	policy_destroy(&policy);
	return count;
}

/* Whether a finding at that line has the fragment; it ends with a remedy. */
static bool found_at(unsigned line, const char *fragment)
{
	char prefix[sizeof(file) + 16];
	const char *at = written;

	(void)snprintf(prefix, sizeof(prefix), "%s:%u: ", file, line);
	while (*at != '\0') {
		const size_t len = strcspn(at, "\n");
		const char *found = strstr(at, fragment);
		const char *remedy = strstr(at, "; ");

		if (strncmp(at, prefix, strlen(prefix)) == 0 && found != NULL && found < at + len &&
			remedy != NULL && remedy < at + len)
			return true;
		at += len + (at[len] == '\n');
	}
	return false;
}

#define PIN "3f79bb7b435b05321651daefd374cdc681dc06faa65e374e38337b88ca046dea"
#define CERTIFICATE "certificate c { chain = good.pem key = good.key }\n"
#define INSIDE "send-connector inside { smart-hosts = \"203.0.113.9:2599\" }\n"
#define DOOR                                                                         \
	"receive-connector in { type = internet domain-secure = yes\n"               \
	" permission-groups = {anonymous, partners} bindings = \"127.0.0.1:2525\"\n" \
	" send-connector = inside }\n"
#define WAY                                                     \
	"send-connector adatum { address-spaces = adatum.com\n" \
	" domain-secure = yes }\n"
#define OWN "internal-server hub { spki-pins = \"" PIN "\" }\n"
#define SPOOL "transport { spool-folder = \"spool\" }\n"
#define QUEUE                                                                    \
	"receive-connector in { deliver = queue bindings = \"127.0.0.1:2525\"\n" \
	" send-connector = inside }\n"
#define PARTNER "partner adatum { domains = adatum.com trust-anchors = good.pem }\n"

/* Both ways, as domain-security.conf: nothing to find. */
static void test_clean(void **state)
{
	static const char *const texts[] = {
		CERTIFICATE INSIDE DOOR WAY PARTNER,
		/* Without partners. */
		SMALLEST,
		/* All mail takes one domain-secure connector. */
		CERTIFICATE DOOR PARTNER "send-connector inside { domain-secure = yes }\n",
		CERTIFICATE INSIDE DOOR
		"send-connector all { address-spaces = \"*\" domain-secure = yes }\n" PARTNER,
		/* The partner's anchors are enough, and the keys of our own servers. */
		CERTIFICATE INSIDE WAY PARTNER
		"receive-connector p { type = partner client-certificate = require\n"
		" remote-ip-ranges = 198.51.100.1 bindings = \"127.0.0.1:2525\"\n"
		" send-connector = inside }\n",
		CERTIFICATE INSIDE OWN
		"receive-connector p { type = internal client-certificate = require\n"
		" bindings = \"127.0.0.1:2525\" send-connector = inside }\n",
		/* Notices have a way: to anybody, to partners, to our own. */
		SPOOL INSIDE QUEUE "send-connector all { address-spaces = \"*\" }\n",
		SPOOL CERTIFICATE INSIDE WAY PARTNER
		"receive-connector p { type = partner deliver = queue\n"
		" remote-ip-ranges = 198.51.100.1 bindings = \"127.0.0.1:2525\"\n"
		" send-connector = inside }\n",
		"transport { spool-folder = \"spool\" accepted-domains = inside.example }\n"
		"receive-connector p { permission-groups = internal deliver = queue\n"
		" external-authoritative = yes bindings = \"127.0.0.1:2525\" }\n"
		"send-connector all { address-spaces = \"--\" }\n",
		/* Nothing is said of what is not enabled. */
		CERTIFICATE INSIDE DOOR WAY PARTNER
		"receive-connector off { enabled = no type = partner\n"
		" bindings = \"127.0.0.1:2525\" }\n"
		"send-connector off { enabled = no }\n",
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(texts); i++)
		if (lint_text(texts[i]) != 0)
			fail_msg("%zu: %s", i, written);
}

struct finding {
	const char *name;
	const char *text;
	unsigned line;
	const char *fragment;
};

static const struct finding rows[] = {
	{"no way to the partner", CERTIFICATE INSIDE DOOR PARTNER, 6,
		"no domain-secure send-connector covers adatum.com"},
	{"unsecured way, refused",
		CERTIFICATE INSIDE DOOR PARTNER "send-connector all { address-spaces = \"*\" }\n",
		6,
		"takes send-connector \"all\" (line 7), which is not domain-secure, and is "
		"refused"},
	{"a subdomain is not covered",
		CERTIFICATE INSIDE DOOR WAY
		"partner a { domains = {adatum.com, hr.adatum.com} trust-anchors = good.pem }\n",
		8, "no domain-secure send-connector covers hr.adatum.com"},
	{"no door for the partner",
		CERTIFICATE INSIDE "receive-connector in { type = internet\n"
				   " bindings = \"127.0.0.1:2525\"\n"
				   " send-connector = inside }\n" WAY PARTNER,
		8, "no receive-connector is domain-secure"},
	{"the door is not enabled",
		CERTIFICATE INSIDE "receive-connector in { bindings = \"127.0.0.1:2525\"\n"
				   " send-connector = inside }\n"
				   "receive-connector p { type = partner enabled = no\n"
				   " bindings = \"127.0.0.1:2526\" }\n" WAY PARTNER,
		9, "no receive-connector is domain-secure"},
	{"secure for nobody, in", CERTIFICATE INSIDE DOOR, 3, "no partner is receive-secure"},
	{"secure for nobody, out",
		CERTIFICATE "receive-connector in { bindings = \"127.0.0.1:2525\" }\n"
			    "send-connector all { address-spaces = \"*\" domain-secure = yes }\n",
		3, "no partner is send-secure"},
	{"near an address space",
		CERTIFICATE INSIDE DOOR WAY PARTNER
		"send-connector typo { address-spaces = \"*.adatun.com\" }\n",
		8, "adatun.com, which is in address-spaces of send-connector \"typo\" (line 9)"},
	{"near one of ours",
		"transport { accepted-domains = {inside.example, \"*.adatam.com\"} }\n" CERTIFICATE
			INSIDE DOOR WAY PARTNER,
		9, "adatam.com, which is one of accepted-domains"},
	{"near a certificate name",
		CERTIFICATE INSIDE DOOR WAY
		"partner adatum { domains = adatum.com trust-anchors = good.pem\n"
		" certificate-names = {mx.adatum.net, daatum.com} }\n",
		8, "daatum.com, which is in certificate-names of partner \"adatum\""},
	{"secure with a smart host",
		CERTIFICATE INSIDE DOOR PARTNER
		"send-connector adatum { address-spaces = adatum.com domain-secure = yes\n"
		" smart-hosts = \"203.0.113.1\" }\n",
		7, "domain-secure with smart-hosts, which Exchange refuses"},
	{"servers that nobody knows",
		INSIDE "receive-connector in { bindings = \"127.0.0.1:2525\"\n"
		       " send-connector = inside permission-groups = {anonymous, internal} }\n",
		2, "internal is among permission-groups, but no certificate is asked for"},
	{"partners that nobody knows",
		INSIDE "receive-connector in { bindings = \"127.0.0.1:2525\"\n"
		       " send-connector = inside permission-groups = {anonymous, partners} }\n",
		2, "without domain-secure nobody proves to be one"},
	{"valid for nobody",
		CERTIFICATE INSIDE OWN
		"receive-connector p { type = internal client-certificate = require\n"
		" permission-groups = {anonymous, internal} bindings = \"127.0.0.1:2525\"\n"
		" send-connector = inside }\n",
		4, "so no certificate is valid"},
	{"unsecured in",
		CERTIFICATE INSIDE DOOR WAY PARTNER
		"receive-connector other { bindings = \"127.0.0.1:2526\" send-connector = inside\n"
		" allow-unsecured-partners = yes }\n",
		9, "takes mail from the domains of partners from anybody"},
	{"unsecured out",
		CERTIFICATE INSIDE DOOR WAY PARTNER
		"send-connector all { address-spaces = \"*\" allow-unsecured-partners = yes }\n",
		9, "sends mail to the domains of partners unsecured"},
	{"behind a front end",
		CERTIFICATE INSIDE DOOR PARTNER
		"send-connector front { address-spaces = {contoso.com, adatum.com}\n"
		" smart-hosts = \"203.0.113.1\" frontend-proxy = yes }\n",
		7, "adatum.com of partner \"adatum\" (line 6) is in its address-spaces"},
	{"open to all",
		CERTIFICATE INSIDE WAY PARTNER
		"receive-connector p { type = partner bindings = \"127.0.0.1:2525\"\n"
		" send-connector = inside }\n",
		6, "for a partner, but open to all addresses"},
	{"partners only, open to all",
		CERTIFICATE INSIDE WAY PARTNER
		"receive-connector p { domain-secure = yes tls = starttls\n"
		" permission-groups = partners\n"
		" bindings = \"127.0.0.1:2525\" send-connector = inside }\n",
		6, "or remote-ip-partners to its name"},
	{"all of no partners",
		"transport { control-socket = \"/x\" partner-lists = certs }\n"
		"receive-connector p { remote-ip-partners = \"*\"\n"
		" bindings = \"127.0.0.1:2525\" send-connector = inside }\n" INSIDE,
		2, "remote-ip-partners is all partners, and there is none"},
	{"lists that nobody can change",
		"transport { partner-lists = certs }\n" CERTIFICATE INSIDE DOOR WAY
		"partner listed { domains = adatum.com trust-anchors = good.pem }\n"
		"receive-connector p { remote-ip-partners = listed\n"
		" bindings = \"127.0.0.1:2526\" send-connector = inside }\n",
		10, "cannot be changed while the relay runs"},
	{"lists that the relay cannot change",
		"transport { control-socket = \"/x\" partner-lists = certs user = nobody "
		"}\n" CERTIFICATE INSIDE DOOR WAY
		"partner listed { domains = adatum.com trust-anchors = good.pem }\n"
		"receive-connector p { remote-ip-partners = listed\n"
		" bindings = \"127.0.0.1:2526\" send-connector = inside }\n",
		10, "/certs, where user \"nobody\" may not write"},
	{"an empty list",
		"transport { control-socket = \"/x\" partner-lists = certs }\n" CERTIFICATE INSIDE
			DOOR WAY PARTNER "receive-connector p { remote-ip-partners = \"*\"\n"
		" bindings = \"127.0.0.1:2526\" send-connector = inside }\n",
		9, "which receive-connector \"p\" (line 10) asks for, is empty"},
	{"a list for nobody",
		"transport { partner-lists = certs }\n" CERTIFICATE INSIDE DOOR WAY
		"partner listed { domains = adatum.com trust-anchors = good.pem }\n",
		9, "/certs/listed.list, and no receive-connector asks for it"},
	{"anybody is a balancer",
		INSIDE "receive-connector in { proxy-balancers = {10.0.0.1, \"0.0.0.0/0\"}\n"
		       " bindings = \"127.0.0.1:2525\" send-connector = inside }\n",
		2, "by its proxy-balancers everybody may announce any address"},
	{"anybody is a front end",
		INSIDE "receive-connector in { xclient-hosts = \"::/0\"\n"
		       " bindings = \"127.0.0.1:2525\" send-connector = inside }\n",
		2, "by its xclient-hosts everybody may announce any address"},
	{"a front end that is not served",
		INSIDE "receive-connector in { xclient-hosts = {10.0.0.1, 10.0.1.1}\n"
		       " bindings = \"127.0.0.1:2525\" send-connector = inside\n"
		       " remote-ip-ranges = \"10.0.0.0/24\" }\n",
		2, "10.0.1.1 is one of xclient-hosts, and none of its remote-ip-ranges has it"},
	{"a way that nobody takes",
		CERTIFICATE INSIDE DOOR WAY PARTNER
		"send-connector lost { smart-hosts = \"203.0.113.1\" }\n",
		9, "no mail takes it"},
	{"a partner for nothing",
		CERTIFICATE INSIDE DOOR WAY PARTNER
		"partner b { domains = b.example trust-anchors = good.pem\n"
		" send-secure = no receive-secure = no }\n",
		9, "send-secure and receive-secure are both off"},
	{"one key, two owners",
		CERTIFICATE INSIDE DOOR WAY "internal-server hub { spki-pins = " PIN " }\n"
					    "partner adatum { domains = adatum.com\n"
					    " spki-pins = " PIN " }\n",
		9, "its key is pinned by internal-server \"hub\" (line 8)"},
	{"TLS without a certificate",
		INSIDE "receive-connector in { type = internet bindings = \"127.0.0.1:2525\"\n"
		       " send-connector = inside }\n",
		2, "there is no certificate at all"},
	{"no way back to strangers", SPOOL INSIDE QUEUE, 3,
		"notices (NDRs) to senders outside go by address space and would wait in "
		"Unreachable; set address-spaces = {\"*\"}"},
	{"the way back is not enabled",
		SPOOL INSIDE QUEUE "send-connector all { address-spaces = \"*\" enabled = no }\n",
		3, "no send-connector has the address-space \"*\""},
	{"an address space of ours is no way back",
		"transport { spool-folder = \"spool\" accepted-domains = inside.example }\n" QUEUE
		"send-connector inside { address-spaces = {\"--\", elsewhere.example} }\n",
		2, "no send-connector has the address-space \"*\""},
	{"no way back to a partner",
		SPOOL CERTIFICATE INSIDE
		"partner adatum { domains = {adatum.com, hr.adatum.com}\n"
		" send-secure = no trust-anchors = good.pem }\n"
		"receive-connector p { type = partner deliver = queue\n"
		" remote-ip-ranges = 198.51.100.1\n"
		" bindings = \"127.0.0.1:2525\" send-connector = inside }\n"
		"send-connector out { address-spaces = adatum.com }\n",
		6, "no send-connector has an address-space for senders of hr.adatum.com"},
	{"no way back to our own",
		"transport { spool-folder = \"spool\" accepted-domains = {\"*.x.example\",\n"
		" inside.example} }\n"
		"receive-connector p { permission-groups = internal deliver = queue\n"
		" external-authoritative = yes bindings = \"127.0.0.1:2525\" }\n"
		"send-connector out { address-spaces = \"elsewhere.example\" }\n",
		3, "for senders of inside.example: notices (NDRs) to them would wait"},
	{"a spool that nothing comes to",
		"transport {\n spool-folder = \"spool\" }\n" SMALLEST
		"receive-connector off { enabled = no deliver = queue bindings = "
		"\"127.0.0.1:2526\"\n"
		" send-connector = out }\n",
		2, "no enabled receive-connector has deliver = queue"},
};

static void test_findings(void **state)
{
	(void)state;
	put_file("certs/listed.list", "", 0644);
	for (size_t i = 0; i < COUNT_OF(rows); i++)
		if (lint_text(rows[i].text) != 1 || !found_at(rows[i].line, rows[i].fragment))
			fail_msg("%s: expected line %u and \"%s\" alone, got:\n%s", rows[i].name,
				rows[i].line, rows[i].fragment, written);
}

/* What is found together, by line. */
static void test_findings_together(void **state)
{
	(void)state;
	assert_int_equal(lint_text("receive-connector in { type = partner\n"
				   " bindings = \"127.0.0.1:2525\" send-connector = inside }\n"
				   "partner adatum { domains = adatum.com send-secure = no\n"
				   " trust-anchors = good.pem }\n"
				   "partner a { domains = a.example trust-anchors = good.pem }\n"
				   "send-connector sent { address-spaces = a.example\n"
				   " allow-unsecured-partners = yes }\n"
				   "send-connector secure { address-spaces = elsewhere.example\n"
				   " domain-secure = yes }\n" INSIDE),
		5);
	assert_true(found_at(1, "open to all addresses"));
	assert_true(found_at(1, "there is no certificate at all"));
	assert_true(found_at(5, "and is sent unsecured"));
	assert_true(found_at(6, "sends mail to the domains of partners unsecured"));
	assert_true(found_at(8, "there is no certificate to show to the partner"));
	assert_non_null(strstr(strstr(strstr(written, ":1: "), ":5: "), ":8: "));
}

/*
 * Article A1 as it was written: its own domain in the list and the proxy on the connector of domain
 * security are mistakes; a misspelt partner is found, and the proxy without the switch.
 */
#define A1_BEGIN                                                           \
	"transport { accepted-domains = adatum.com }\n" CERTIFICATE        \
	"receive-connector treyresearch { type = partner tls = starttls\n" \
	" bindings = \"0.0.0.0:2525\" remote-ip-ranges = 198.51.100.7\n"   \
	" send-connector = inside }\n" INSIDE

static void test_row_47_lint_for_article_mistakes(void **state)
{
	struct policy *policy = NULL;

	(void)state;
	assert_int_equal(
		load_text(A1_BEGIN "partner treyresearch { trust-anchors = good.pem\n"
				   " domains = {treyresearch.net,\n"
				   "adatum.com} }\n"
				   "send-connector out { address-spaces = treyresearch.net\n"
				   " smart-hosts = \"203.0.113.1\" frontend-proxy = yes\n"
				   " domain-secure = yes }\n",
			&policy),
		-EINVAL);
	assert_true(said_at(9, "domain \"adatum.com\" of partner \"treyresearch\" is one of "
			       "accepted-domains"));
	assert_true(said_at(12, "domain-secure with frontend-proxy"));
	assert_int_equal(said_lines(), 2);
	assert_int_equal(
		lint_text(A1_BEGIN "partner treyresearch { trust-anchors = good.pem\n"
				   " domains = treyresereach.net }\n"
				   "send-connector out { address-spaces = treyresearch.net\n"
				   " smart-hosts = \"203.0.113.1\" frontend-proxy = yes }\n"),
		2);
	assert_true(found_at(7, "no domain-secure send-connector covers treyresereach.net"));
	assert_true(
		found_at(7, "its domain treyresereach.net is spelt almost like treyresearch.net, "
			    "which is in address-spaces of send-connector \"out\" (line 9)"));
	assert_int_equal(
		lint_text(A1_BEGIN "partner treyresearch { trust-anchors = good.pem\n"
				   " domains = treyresearch.net }\n"
				   "send-connector out { address-spaces = treyresearch.net\n"
				   " smart-hosts = \"203.0.113.1\" frontend-proxy = yes }\n"),
		1);
	assert_true(found_at(9, "behind a frontend-proxy nobody sees the partner's certificate"));
}

static void test_spelling(void **state)
{
	static const struct {
		const char *a, *b;
		unsigned distance;
		bool is_near;
	} words[] = {
		{"", "", 0, false},
		{"", "abc", 3, false},
		{"contoso.com", "contoso.com", 0, false},
		{"contoso.com", "contosso.com", 1, true},
		{"contoso.com", "cotoso.com", 1, true},
		{"contoso.com", "c0ntoso.com", 1, true},
		{"contoso.com", "conotso.com", 1, true},
		{"contoso.com", "contoso.net", 3, false},
		{"contoso.com", "c0nt0so.com", 2, false},
		{"treyresereach.net", "treyresearch.net", 2, true},
		{"treyresearch.net", "treyreseach.net", 1, true},
		{"ca", "abc", 2, false},
		{"a.com", "b.com", 1, false},
		{"ab.com", "ac.com", 1, true},
		{"kitten", "sitting", 3, false},
		{"mail.contoso.com", "contoso.com", 5, false},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(words); i++) {
		assert_int_equal(spelling_distance(words[i].a, words[i].b), words[i].distance);
		assert_int_equal(spelling_distance(words[i].b, words[i].a), words[i].distance);
		assert_int_equal(spelling_is_near(words[i].a, words[i].b), words[i].is_near);
		assert_int_equal(spelling_is_near(words[i].b, words[i].a), words[i].is_near);
	}
}

static int teardown(void **state)
{
	free(written);
	return fixture_teardown(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clean),
		cmocka_unit_test(test_findings),
		cmocka_unit_test(test_findings_together),
		cmocka_unit_test(test_row_47_lint_for_article_mistakes),
		cmocka_unit_test(test_spelling),
	};

	return cmocka_run_group_tests_name("lint", tests, fixture_setup, teardown);
}
