/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_admit.c: who is admitted at MAIL, as whom, and who was asked about on the way.
 */

#include "tests/unit/admit_fixture.h"

/* Bits of partners. */
#define A BIT(ADATUM)
#define T BIT(TREY)
#define B BIT(BOTH)
#define O BIT(OUTBOUND)

struct admit_case {
	const char *what;
	enum fixture_connector connector;
	const char *sender;
	bool is_clear;        /* no TLS */
	const char *name;     /* its certificate's dNSName; NULL: none */
	enum fixture_key key; /* of its certificate; without a name and a key there is none */
	unsigned valid;       /* the partners whose anchors its chain ends in */
	unsigned pending;     /* those for which a revocation list is on its way */
	enum verdict chain;   /* for the others; 0: UntrustedRoot */
	enum verdict own;     /* for the connector */
	enum admit_status status;
	enum role role;
	enum fixture_partner partner;
	const char *domain;
	enum verdict verdict;
	enum name_match match;
	unsigned judged; /* whose anchors were asked about, and no others */
};

#define REFUSED(what_status) .status = (what_status)
#define AS_PARTNER(who, proved) \
	.role = ROLE_PARTNER, .partner = (who), .domain = (proved), .verdict = VERDICT_VALID

static const struct admit_case cases[] = {
	/* 0: require-tls. 1: client-certificate. */
	{"clear text, TLS required", REQUIRE_TLS, "<a@x.example>", .is_clear = true,
		REFUSED(ADMIT_TLS_REQUIRED), .partner = NOBODY},
	{"clear text and null sender, TLS required", REQUIRE_TLS, "<>", .is_clear = true,
		REFUSED(ADMIT_TLS_REQUIRED), .partner = NOBODY},
	{"TLS required, TLS there", REQUIRE_TLS, "<a@x.example>", .partner = NOBODY},
	{"certificate required, clear text", REQUIRE_CERT, "<a@x.example>", .is_clear = true,
		REFUSED(ADMIT_CLIENT_CERTIFICATE), .partner = NOBODY, .verdict = VERDICT_EMPTY},
	{"certificate required, none", REQUIRE_CERT, "<a@x.example>",
		REFUSED(ADMIT_CLIENT_CERTIFICATE), .partner = NOBODY, .verdict = VERDICT_EMPTY},
	{"certificate required, expired", REQUIRE_CERT, "<a@x.example>", .name = "x.example",
		.own = VERDICT_EXPIRED, REFUSED(ADMIT_CLIENT_CERTIFICATE), .partner = NOBODY,
		.verdict = VERDICT_EXPIRED},
	{"certificate required, list on its way", REQUIRE_CERT, "<a@x.example>",
		.name = "x.example", .own = VERDICT_NOT_ASKED, REFUSED(ADMIT_WAIT),
		.partner = NOBODY},
	{"certificate required, valid", REQUIRE_CERT, "<a@x.example>", .name = "x.example",
		.own = VERDICT_VALID, .partner = NOBODY, .verdict = VERDICT_VALID},

	/* A partner's certificate, or our own server's key, is as good as one that the connector
	 * believes. */
	{"required and domain-secure, none", REQUIRE_BOTH, "<a@x.example>",
		REFUSED(ADMIT_CLIENT_CERTIFICATE), .partner = NOBODY, .verdict = VERDICT_EMPTY},
	{"required and domain-secure, nobody's", REQUIRE_BOTH, "<a@x.example>", .name = "x.example",
		.own = VERDICT_EXPIRED, REFUSED(ADMIT_CLIENT_CERTIFICATE), .partner = NOBODY,
		.verdict = VERDICT_EXPIRED},
	{"required and domain-secure, a partner's", REQUIRE_BOTH, "<a@x.example>",
		.name = "adatum.com", .own = VERDICT_UNTRUSTED_ROOT, .valid = A, .partner = NOBODY,
		.verdict = VERDICT_UNTRUSTED_ROOT, .judged = A},
	{"required and domain-secure, listed", REQUIRE_BOTH, "<a@adatum.com>", .name = "adatum.com",
		.own = VERDICT_UNTRUSTED_ROOT, .valid = A, AS_PARTNER(ADATUM, "adatum.com"),
		.match = NAME_MATCH_EXACT, .judged = A},
	{"required and domain-secure, listed and none", REQUIRE_BOTH, "<a@adatum.com>",
		REFUSED(ADMIT_SECURE_NO_CERT), .partner = ADATUM, .domain = "adatum.com",
		.verdict = VERDICT_EMPTY},
	{"required, one of our own servers", REQUIRE_BOTH, "<a@x.example>", .key = KEY_HUB,
		.own = VERDICT_UNTRUSTED_ROOT, .role = ROLE_INTERNAL, .partner = NOBODY,
		.verdict = VERDICT_UNTRUSTED_ROOT},

	/* 2: our own servers. */
	{"externally secured, clear text", AUTHORITATIVE, "<a@adatum.com>", .is_clear = true,
		.role = ROLE_INTERNAL, .partner = NOBODY},
	{"internal by pin, any issuer and date", INTERNAL, "<a@contoso.com>", .name = "hub.local",
		.key = KEY_HUB, .own = VERDICT_EXPIRED, .role = ROLE_INTERNAL, .partner = NOBODY,
		.verdict = VERDICT_EXPIRED},
	{"internal by pin sends as a partner", INTERNAL, "<a@adatum.com>", .key = KEY_HUB,
		.own = VERDICT_UNTRUSTED_ROOT, .role = ROLE_INTERNAL, .partner = NOBODY,
		.verdict = VERDICT_UNTRUSTED_ROOT},
	{"internal by pin, null sender", MIXED, "<>", .key = KEY_HUB, .own = VERDICT_UNTRUSTED_ROOT,
		.role = ROLE_INTERNAL, .partner = NOBODY, .verdict = VERDICT_UNTRUSTED_ROOT},
	{"internal by pin, a sender that is no domain", MIXED, "<a@con_toso>", .key = KEY_HUB,
		.own = VERDICT_INVALID, .role = ROLE_INTERNAL, .partner = NOBODY,
		.verdict = VERDICT_INVALID},
	{"internal only, a stranger's certificate", INTERNAL, "<a@contoso.com>",
		.name = "contoso.com", .own = VERDICT_VALID, REFUSED(ADMIT_DIRECT_TRUST),
		.partner = NOBODY, .verdict = VERDICT_PIN_MISMATCH},
	{"internal only, a partner's certificate", INTERNAL, "<a@adatum.com>", .name = "adatum.com",
		.own = VERDICT_VALID, .valid = A, REFUSED(ADMIT_DIRECT_TRUST), .partner = NOBODY,
		.verdict = VERDICT_PIN_MISMATCH},
	{"internal only, a partner's pin", INTERNAL, "<a@pinned.example>", .key = KEY_PIN_1,
		.own = VERDICT_VALID, REFUSED(ADMIT_DIRECT_TRUST), .partner = NOBODY,
		.verdict = VERDICT_PIN_MISMATCH},
	{"internal only, no certificate", INTERNAL, "<a@x.example>",
		REFUSED(ADMIT_NOT_AUTHENTICATED), .partner = NOBODY, .verdict = VERDICT_EMPTY},
	{"internal only, clear text", INTERNAL, "<a@x.example>", .is_clear = true,
		REFUSED(ADMIT_NOT_AUTHENTICATED), .partner = NOBODY},
	{"our key where internal is not allowed", ANYBODY, "<a@x.example>", .key = KEY_HUB,
		.own = VERDICT_UNTRUSTED_ROOT, .partner = NOBODY,
		.verdict = VERDICT_UNTRUSTED_ROOT},
	{"our key does not make a partner", ANYBODY, "<a@adatum.com>", .key = KEY_HUB,
		REFUSED(ADMIT_SECURE_CHAIN), .partner = ADATUM, .domain = "adatum.com",
		.verdict = VERDICT_UNTRUSTED_ROOT, .judged = A},
	{"a stranger on a mixed connector", MIXED, "<a@x.example>", .name = "x.example",
		.own = VERDICT_VALID, .partner = NOBODY, .verdict = VERDICT_VALID},

	/* 3: listed domains. The connector. */
	{"listed, not a secure connector", INTERNET, "<a@adatum.com>", .name = "adatum.com",
		.valid = A, REFUSED(ADMIT_SECURE_CONNECTOR), .partner = ADATUM,
		.domain = "adatum.com"},
	{"listed, internal only and no certificate", INTERNAL, "<a@adatum.com>",
		REFUSED(ADMIT_SECURE_CONNECTOR), .partner = ADATUM, .domain = "adatum.com",
		.verdict = VERDICT_EMPTY},
	{"listed, taken unproved", UNSECURED, "<a@adatum.com>", .is_clear = true,
		.partner = NOBODY},
	{"listed and proved, taken unproved", UNSECURED, "<a@adatum.com>", .name = "adatum.com",
		.valid = A, .partner = NOBODY},
	{"listed for sending only", INTERNET, "<a@outbound.example>", .partner = NOBODY},
	{"listed for sending only, secure connector", ANYBODY, "<a@outbound.example>",
		.name = "outbound.example", .valid = O, .partner = NOBODY},
	{"below a listed domain", ANYBODY, "<a@sub.adatum.com>", .is_clear = true,
		.partner = NOBODY},
	{"below a listed domain, partners only", PARTNERS, "<a@sub.adatum.com>",
		.name = "*.adatum.com", .valid = A, REFUSED(ADMIT_NOT_AUTHENTICATED),
		.partner = NOBODY},
	{"ends like a listed domain", ANYBODY, "<a@notadatum.com>", .is_clear = true,
		.partner = NOBODY},

	/* r2, r3. */
	{"r2", PARTNERS, "<a@adatum.com>", .is_clear = true, REFUSED(ADMIT_SECURE_NO_TLS),
		.partner = ADATUM, .domain = "adatum.com"},
	{"r2 of a pinned partner", ANYBODY, "<a@pinned.example>", .is_clear = true,
		REFUSED(ADMIT_SECURE_NO_TLS), .partner = PINNED, .domain = "pinned.example"},
	{"r3", PARTNERS, "<a@adatum.com>", REFUSED(ADMIT_SECURE_NO_CERT), .partner = ADATUM,
		.domain = "adatum.com", .verdict = VERDICT_EMPTY},
	{"r3 of a pinned partner", ANYBODY, "<a@pinned.example>", REFUSED(ADMIT_SECURE_NO_CERT),
		.partner = PINNED, .domain = "pinned.example", .verdict = VERDICT_EMPTY},

	/* r4. */
	{"r4, other CA", PARTNERS, "<a@adatum.com>", .name = "adatum.com",
		REFUSED(ADMIT_SECURE_CHAIN), .partner = ADATUM, .domain = "adatum.com",
		.verdict = VERDICT_UNTRUSTED_ROOT, .judged = A},
	{"r4, valid for the connector only", ANYBODY, "<a@adatum.com>", .name = "adatum.com",
		.own = VERDICT_VALID, REFUSED(ADMIT_SECURE_CHAIN), .partner = ADATUM,
		.domain = "adatum.com", .verdict = VERDICT_UNTRUSTED_ROOT, .judged = A},
	{"r4, expired", ANYBODY, "<a@adatum.com>", .name = "adatum.com", .chain = VERDICT_EXPIRED,
		REFUSED(ADMIT_SECURE_CHAIN), .partner = ADATUM, .domain = "adatum.com",
		.verdict = VERDICT_EXPIRED, .judged = A},
	{"r4, revoked", PARTNERS, "<a@adatum.com>", .name = "adatum.com", .chain = VERDICT_REVOKED,
		REFUSED(ADMIT_SECURE_CHAIN), .partner = ADATUM, .domain = "adatum.com",
		.verdict = VERDICT_REVOKED, .judged = A},
	{"r4, list unreachable", PARTNERS, "<a@adatum.com>", .name = "adatum.com",
		.chain = VERDICT_REVOCATION_UNKNOWN, REFUSED(ADMIT_SECURE_CHAIN), .partner = ADATUM,
		.domain = "adatum.com", .verdict = VERDICT_REVOCATION_UNKNOWN, .judged = A},
	{"r4, list on its way", PARTNERS, "<a@adatum.com>", .name = "adatum.com", .pending = A,
		REFUSED(ADMIT_WAIT), .partner = ADATUM, .domain = "adatum.com", .judged = A},
	{"r4, the anchors of another partner", PARTNERS, "<a@adatum.com>", .name = "adatum.com",
		.valid = T | B | O, REFUSED(ADMIT_SECURE_CHAIN), .partner = ADATUM,
		.domain = "adatum.com", .verdict = VERDICT_UNTRUSTED_ROOT, .judged = A},
	{"pins only, another key", PARTNERS, "<a@pinned.example>", .name = "pinned.example",
		.valid = A | T | B | O, REFUSED(ADMIT_SECURE_CHAIN), .partner = PINNED,
		.domain = "pinned.example", .verdict = VERDICT_PIN_MISMATCH},
	{"pins and anchors, another key", PARTNERS, "<a@both.example>", .name = "both.example",
		.valid = B, REFUSED(ADMIT_SECURE_CHAIN), .partner = BOTH, .domain = "both.example",
		.verdict = VERDICT_PIN_MISMATCH},
	{"pins and anchors, another CA", PARTNERS, "<a@both.example>", .name = "both.example",
		.key = KEY_BOTH, REFUSED(ADMIT_SECURE_CHAIN), .partner = BOTH,
		.domain = "both.example", .verdict = VERDICT_UNTRUSTED_ROOT, .judged = B},
	{"the pin of another partner", PARTNERS, "<a@adatum.com>", .name = "adatum.com",
		.key = KEY_BOTH, REFUSED(ADMIT_SECURE_CHAIN), .partner = ADATUM,
		.domain = "adatum.com", .verdict = VERDICT_UNTRUSTED_ROOT, .judged = A},

	/* r5. */
	{"r5, no such name", PARTNERS, "<a@adatum.com>", .name = "x.example", .valid = A,
		REFUSED(ADMIT_SECURE_NAME), .partner = ADATUM, .domain = "adatum.com",
		.verdict = VERDICT_SUBJECT_MISMATCH, .judged = A},
	{"r5, a host without host-names", PARTNERS, "<a@adatum.com>", .name = "mail.adatum.com",
		.valid = A, REFUSED(ADMIT_SECURE_NAME), .partner = ADATUM, .domain = "adatum.com",
		.verdict = VERDICT_SUBJECT_MISMATCH, .judged = A},
	{"r5, named for the partner's other domain", PARTNERS, "<a@adatum.com>",
		.name = "xn--bcher-kva.example", .valid = A, REFUSED(ADMIT_SECURE_NAME),
		.partner = ADATUM, .domain = "adatum.com", .verdict = VERDICT_SUBJECT_MISMATCH,
		.judged = A},
	{"r5, one CA for two partners", PARTNERS, "<a@adatum.com>", .name = "treyresearch.net",
		.valid = A | T, REFUSED(ADMIT_SECURE_NAME), .partner = ADATUM,
		.domain = "adatum.com", .verdict = VERDICT_SUBJECT_MISMATCH, .judged = A},
	{"r5, valid for another partner", PARTNERS, "<a@adatum.com>", .name = "treyresearch.net",
		.valid = T, REFUSED(ADMIT_SECURE_NAME), .partner = ADATUM, .domain = "adatum.com",
		.verdict = VERDICT_SUBJECT_MISMATCH, .judged = A | T},
	{"r4, named for another partner, but not valid", PARTNERS, "<a@adatum.com>",
		.name = "treyresearch.net", .chain = VERDICT_EXPIRED, REFUSED(ADMIT_SECURE_CHAIN),
		.partner = ADATUM, .domain = "adatum.com", .verdict = VERDICT_EXPIRED,
		.judged = A | T},
	{"r5, the key of another partner", PARTNERS, "<a@adatum.com>", .key = KEY_PIN_1,
		REFUSED(ADMIT_SECURE_NAME), .partner = ADATUM, .domain = "adatum.com",
		.verdict = VERDICT_SUBJECT_MISMATCH, .judged = A},
	{"r5, another partner as the pinned", PARTNERS, "<a@pinned.example>", .name = "adatum.com",
		.valid = A, REFUSED(ADMIT_SECURE_NAME), .partner = PINNED,
		.domain = "pinned.example", .verdict = VERDICT_SUBJECT_MISMATCH, .judged = A},
	{"r4, valid for a send-only partner", PARTNERS, "<a@adatum.com>",
		.name = "outbound.example", .valid = O, REFUSED(ADMIT_SECURE_CHAIN),
		.partner = ADATUM, .domain = "adatum.com", .verdict = VERDICT_UNTRUSTED_ROOT,
		.judged = A},
	{"pins and anchors, wrong name", PARTNERS, "<a@both.example>", .name = "x.example",
		.key = KEY_BOTH, .valid = B, REFUSED(ADMIT_SECURE_NAME), .partner = BOTH,
		.domain = "both.example", .verdict = VERDICT_SUBJECT_MISMATCH, .judged = B},

	/* r6. */
	{"r6", PARTNERS, "<a@adatum.com>", .name = "adatum.com", .valid = A,
		AS_PARTNER(ADATUM, "adatum.com"), .match = NAME_MATCH_EXACT, .judged = A},
	{"r6, whatever the connector believes", PARTNERS, "<a@adatum.com>", .name = "adatum.com",
		.valid = A, .own = VERDICT_UNTRUSTED_ROOT, AS_PARTNER(ADATUM, "adatum.com"),
		.match = NAME_MATCH_EXACT, .judged = A},
	{"r6 where anybody may send", ANYBODY, "<a@adatum.com>", .name = "*.adatum.com", .valid = A,
		AS_PARTNER(ADATUM, "adatum.com"), .match = NAME_MATCH_WILDCARD, .judged = A},
	{"r6, upper case and a dot", MIXED, "<a@ADATUM.com.>", .name = "adatum.com", .valid = A,
		AS_PARTNER(ADATUM, "adatum.com"), .match = NAME_MATCH_EXACT, .judged = A},
	{"r6, U-label sender", PARTNERS,
		"<a@B\xc3\xbc"
		"cher.example>",
		.name = "xn--bcher-kva.example", .valid = A,
		AS_PARTNER(ADATUM, "xn--bcher-kva.example"), .match = NAME_MATCH_EXACT,
		.judged = A},
	{"r6, listed name", PARTNERS, "<a@treyresearch.net>", .name = "relay.hoster.example",
		.valid = T, AS_PARTNER(TREY, "treyresearch.net"), .match = NAME_MATCH_LISTED,
		.judged = T},
	{"r6, host name", PARTNERS, "<a@treyresearch.net>", .name = "mail.treyresearch.net",
		.valid = T, AS_PARTNER(TREY, "treyresearch.net"), .match = NAME_MATCH_HOST,
		.judged = T},
	{"r6, first pin, no names", PARTNERS, "<a@pinned.example>", .key = KEY_PIN_1,
		AS_PARTNER(PINNED, "pinned.example")},
	{"r6, second pin, a strange name", PARTNERS, "<a@second.pinned.example>",
		.name = "x.example", .key = KEY_PIN_2, .own = VERDICT_EXPIRED,
		AS_PARTNER(PINNED, "second.pinned.example")},
	{"r6, pins and anchors", PARTNERS, "<a@both.example>", .name = "both.example",
		.key = KEY_BOTH, .valid = B, AS_PARTNER(BOTH, "both.example"),
		.match = NAME_MATCH_EXACT, .judged = B},
	{"r6, but nobody may submit", NO_GROUPS, "<a@adatum.com>", .name = "adatum.com", .valid = A,
		.status = ADMIT_NOT_AUTHENTICATED, AS_PARTNER(ADATUM, "adatum.com"),
		.match = NAME_MATCH_EXACT, .judged = A},

	/* Paths. */
	{"source route", PARTNERS, "<@x.example,@adatum.com:u@treyresearch.net>",
		.name = "treyresearch.net", .valid = T, AS_PARTNER(TREY, "treyresearch.net"),
		.match = NAME_MATCH_EXACT, .judged = T},
	{"source route over a listed domain", ANYBODY, "<@adatum.com:u@x.example>",
		.is_clear = true, .partner = NOBODY},
	{"quoted @ of another domain", PARTNERS, "<\"a@treyresearch.net\"@adatum.com>",
		.name = "treyresearch.net", .valid = T, REFUSED(ADMIT_SECURE_NAME),
		.partner = ADATUM, .domain = "adatum.com", .verdict = VERDICT_SUBJECT_MISMATCH,
		.judged = A | T},
	{"quoted @ of a listed domain", ANYBODY, "<\"a@adatum.com\"@x.example>", .is_clear = true,
		.partner = NOBODY},
	{"address literal", ANYBODY, "<a@[192.0.2.1]>", .name = "adatum.com", .valid = A,
		.partner = NOBODY},
	{"address literal, v6", INTERNET, "<a@[IPv6:2001:db8::1]>", .partner = NOBODY},
	{"address literal, partners only", PARTNERS, "<a@[192.0.2.1]>", .name = "adatum.com",
		.valid = A, REFUSED(ADMIT_NOT_AUTHENTICATED), .partner = NOBODY},
	{"no domain name", INTERNET, "<a@con_toso.com>", REFUSED(ADMIT_BAD_DOMAIN),
		.partner = NOBODY},
	{"two trailing dots", ANYBODY, "<a@adatum.com..>", REFUSED(ADMIT_BAD_DOMAIN),
		.partner = NOBODY, .verdict = VERDICT_EMPTY},
	{"no domain at all", INTERNET, "<a>", REFUSED(ADMIT_BAD_DOMAIN), .partner = NOBODY},

	/* 4: the null sender. */
	{"null sender, proved", PARTNERS, "<>", .name = "adatum.com", .valid = A,
		AS_PARTNER(ADATUM, "adatum.com"), .match = NAME_MATCH_EXACT, .judged = A},
	{"null sender, the other domain", PARTNERS, "<>", .name = "XN--bcher-kva.example",
		.valid = A, AS_PARTNER(ADATUM, "xn--bcher-kva.example"), .match = NAME_MATCH_EXACT,
		.judged = A},
	{"null sender, by pin", PARTNERS, "<>", .key = KEY_PIN_2,
		AS_PARTNER(PINNED, "pinned.example")},
	{"null sender, by pin, a name of the second domain", PARTNERS, "<>",
		.name = "second.pinned.example", .key = KEY_PIN_2,
		AS_PARTNER(PINNED, "second.pinned.example"), .match = NAME_MATCH_EXACT},
	{"null sender, named but not valid", ANYBODY, "<>", .name = "adatum.com", .partner = NOBODY,
		.judged = A},
	{"null sender, named but not valid, partners only", PARTNERS, "<>", .name = "adatum.com",
		REFUSED(ADMIT_NOT_AUTHENTICATED), .partner = NOBODY, .judged = A},
	{"null sender, valid but not named", PARTNERS, "<>", .name = "x.example",
		.valid = A | T | B | O, REFUSED(ADMIT_NOT_AUTHENTICATED), .partner = NOBODY},
	{"null sender, named for one, valid for another", PARTNERS, "<>", .name = "adatum.com",
		.valid = T | B | O, REFUSED(ADMIT_NOT_AUTHENTICATED), .partner = NOBODY,
		.judged = A},
	{"null sender, a send-only partner", PARTNERS, "<>", .name = "outbound.example", .valid = O,
		REFUSED(ADMIT_NOT_AUTHENTICATED), .partner = NOBODY},
	{"null sender, pin of another key", PARTNERS, "<>", .name = "both.example", .valid = B,
		REFUSED(ADMIT_NOT_AUTHENTICATED), .partner = NOBODY},
	{"null sender, list on its way", PARTNERS, "<>", .name = "adatum.com", .pending = A,
		REFUSED(ADMIT_WAIT), .partner = NOBODY, .judged = A},
	{"null sender, no certificate", ANYBODY, "<>", .partner = NOBODY, .verdict = VERDICT_EMPTY},
	{"null sender, clear text, partners only", PARTNERS, "<>", .is_clear = true,
		REFUSED(ADMIT_NOT_AUTHENTICATED), .partner = NOBODY},
	{"null sender, not a secure connector", INTERNET, "<>", .name = "adatum.com", .valid = A,
		.partner = NOBODY},
	{"no path is the null path", ANYBODY, "", .partner = NOBODY, .verdict = VERDICT_EMPTY},

	/* 5, 6: unlisted. */
	{"anybody", INTERNET, "<a@x.example>", .is_clear = true, .partner = NOBODY},
	{"anybody, partners only", PARTNERS, "<a@x.example>", .is_clear = true,
		REFUSED(ADMIT_NOT_AUTHENTICATED), .partner = NOBODY},
	{"a proved partner, an unlisted domain", ANYBODY, "<a@x.example>", .name = "adatum.com",
		.valid = A, .partner = NOBODY},
	{"a proved partner, an unlisted domain, partners only", PARTNERS, "<a@x.example>",
		.name = "adatum.com", .valid = A, REFUSED(ADMIT_NOT_AUTHENTICATED),
		.partner = NOBODY},
	{"a proved partner as us", ANYBODY, "<a@contoso.com>", .name = "adatum.com", .valid = A,
		REFUSED(ADMIT_OWN_DOMAIN), .partner = ADATUM, .domain = "adatum.com", .judged = A},
	{"a pinned partner as us, below", PARTNERS, "<a@eu.fabrikam.com>", .key = KEY_PIN_1,
		REFUSED(ADMIT_OWN_DOMAIN), .partner = PINNED, .domain = "pinned.example"},
	{"whose certificate is not known yet, as us", ANYBODY, "<a@contoso.com>",
		.name = "adatum.com", .pending = A, REFUSED(ADMIT_WAIT), .partner = NOBODY,
		.judged = A},
	{"a stranger as us", ANYBODY, "<a@contoso.com>", .name = "x.example", .partner = NOBODY},
	{"anybody as us", INTERNET, "<a@contoso.com>", .is_clear = true, .partner = NOBODY},
	{"a partner's certificate as us, nobody is proved here", UNSECURED, "<a@contoso.com>",
		.name = "adatum.com", .valid = A, .partner = NOBODY},
};

static void admit_run(const struct admit_case *row, struct fixture_judge *judge,
	const struct admit_trace *trace, struct admission *out)
{
	const struct span dns = row->name == NULL ? (struct span){0} : span_of(row->name);
	const enum fixture_key key = row->key == KEY_NONE ? KEY_STRANGER : row->key;
	struct admit_peer peer = {.is_tls = !row->is_clear,
		.has_certificate = row->name != NULL || row->key != KEY_NONE,
		.connector_verdict = row->own,
		.judge = fixture_judge,
		.arg = judge};

	*judge = (struct fixture_judge){.calls = {0}};
	for (unsigned i = 0; i < PARTNER_COUNT; i++) {
		judge->chains[i] =
			row->chain == VERDICT_NOT_ASKED ? VERDICT_UNTRUSTED_ROOT : row->chain;
		if (row->valid & BIT(i))
			judge->chains[i] = VERDICT_VALID;
		if (row->pending & BIT(i))
			judge->chains[i] = VERDICT_NOT_ASKED;
	}
	if (peer.has_certificate) {
		peer.names =
			(struct certificate_names){.dns = &dns, .dns_count = row->name != NULL};
		peer.spki = fixture_keys[key];
	}
	memset(out, 0xff, sizeof(*out));
	admit_sender(&fixture_policy, &fixture_connectors[row->connector], &peer,
		span_of(row->sender), trace, out);
}

static void test_admit_sender(void **state)
{
	(void)state;
	for (unsigned i = 0; i < COUNT_OF(cases); i++) {
		const struct admit_case *row = &cases[i];
		struct fixture_judge judge;
		struct admission got;
		const char *domain = NULL;
		unsigned judged = 0;

		admit_run(row, &judge, NULL, &got);
		judged = fixture_judged(&judge);
		domain = got.domain == NULL ? "none" : got.domain;
		if (got.status != row->status || got.role != row->role ||
			got.verdict != row->verdict || got.match != row->match ||
			judged != row->judged)
			fail_msg("%s: %s %s %s %s judged %x, want %s %s %s %s judged %x", row->what,
				admit_word(got.status), role_word(got.role),
				verdict_word(got.verdict), name_match_word(got.match), judged,
				admit_word(row->status), role_word(row->role),
				verdict_word(row->verdict), name_match_word(row->match),
				row->judged);
		if (got.partner !=
			(row->partner == NOBODY ? NULL : &fixture_partners[row->partner]))
			fail_msg("%s: of partner %s", row->what,
				got.partner == NULL ? "none" : got.partner->name);
		if (strcmp(domain, row->domain == NULL ? "none" : row->domain) != 0)
			fail_msg("%s: domain %s", row->what, domain);
		/* It outlives the sender's path. */
		if (got.domain != NULL)
			assert_ptr_equal(got.domain, partner_domain(got.partner, got.domain));
	}
}

/* Of a partner's domains the one that is proved best, wherever it stands in the list. */
static void test_admit_null_sender_best(void **state)
{
	static const char *const names[][2] = {{"*.adatum.com", "xn--bcher-kva.example"},
		{"*.xn--bcher-kva.example", "adatum.com"}};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(names); i++) {
		const struct span dns[] = {span_of(names[i][0]), span_of(names[i][1])};
		struct fixture_judge judge = {.chains = {[ADATUM] = VERDICT_VALID}};
		const struct admit_peer peer = {.is_tls = true,
			.has_certificate = true,
			.names = {.dns = dns, .dns_count = 2},
			.spki = fixture_keys[KEY_STRANGER],
			.judge = fixture_judge,
			.arg = &judge};
		struct admission got = {.status = ADMIT_WAIT};

		admit_sender(&fixture_policy, &fixture_connectors[PARTNERS], &peer, span_of("<>"),
			NULL, &got);
		assert_int_equal(got.status, ADMIT_OK);
		assert_string_equal(got.domain, names[i][1]);
		assert_int_equal(got.match, NAME_MATCH_EXACT);
	}
}

/* What a trace heard: the rules in order, those that were not passed with a "!" in front. */
struct heard {
	char rules[256];
	size_t len;
	unsigned texts;
};

static void heard_rule(void *arg, const char *rule, bool passed, const char *text)
{
	struct heard *heard = arg;

	heard->len += (size_t)snprintf(heard->rules + heard->len, sizeof(heard->rules) - heard->len,
		"%s%s%s", heard->len > 0 ? " " : "", passed ? "" : "!", rule);
	assert_true(heard->len < sizeof(heard->rules));
	assert_non_null(text);
	heard->texts += strlen(text) > 10;
}

struct trace_case {
	const char *what; /* of cases */
	const char *rules;
};

static void test_admit_trace(void **state)
{
	static const struct trace_case traces[] = {
		{"clear text, TLS required", "!require-tls"},
		{"certificate required, expired", "require-tls !client-certificate"},
		{"externally secured, clear text", "require-tls client-certificate role r5b"},
		{"internal by pin, any issuer and date", "require-tls client-certificate role r5b"},
		{"internal only, a stranger's certificate", "require-tls client-certificate !role"},
		{"listed, not a secure connector",
			"require-tls client-certificate !r1 !allow-unsecured-partners"},
		{"listed, taken unproved",
			"require-tls client-certificate !r1 allow-unsecured-partners r5b"},
		{"r2", "require-tls client-certificate r1 !r2"},
		{"r3", "require-tls client-certificate r1 r2 !r3"},
		{"r4, other CA", "require-tls client-certificate r1 r2 r3 !r4"},
		{"r4, list on its way", "require-tls client-certificate r1 r2 r3 !r4"},
		{"r5, no such name", "require-tls client-certificate r1 r2 r3 r4 !r5"},
		{"r5, valid for another partner",
			"require-tls client-certificate r1 r2 r3 !r4 !r5"},
		{"r6", "require-tls client-certificate r1 r2 r3 r4 r5 r6 r5b"},
		{"r6, first pin, no names", "require-tls client-certificate r1 r2 r3 r4 r5 r6 r5b"},
		{"r6, but nobody may submit",
			"require-tls client-certificate r1 r2 r3 r4 r5 r6 !r5b"},
		{"no domain name", "require-tls client-certificate !sender-domain"},
		{"address literal", "require-tls client-certificate !r1 r5b"},
		{"null sender, proved", "require-tls client-certificate null-sender r5b"},
		{"null sender, list on its way", "require-tls client-certificate !null-sender"},
		{"null sender, not a secure connector",
			"require-tls client-certificate null-sender r5b"},
		{"anybody, partners only", "require-tls client-certificate !r1 !r5b"},
		{"a proved partner as us", "require-tls client-certificate !r1 !own-domain"},
		{"a stranger as us", "require-tls client-certificate !r1 own-domain r5b"},
	};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(traces); i++) {
		struct heard heard = {.len = 0};
		const struct admit_trace trace = {heard_rule, &heard};
		struct fixture_judge judge;
		struct admission got;
		unsigned at = 0;

		while (at < COUNT_OF(cases) && strcmp(cases[at].what, traces[i].what) != 0)
			at++;
		assert_true(at < COUNT_OF(cases));
		admit_run(&cases[at], &judge, &trace, &got);
		if (strcmp(heard.rules, traces[i].rules) != 0)
			fail_msg("%s: %s, want %s", traces[i].what, heard.rules, traces[i].rules);
		assert_true(heard.texts > 0);
	}
}

/* A trace hears and changes nothing, and one without a function hears nothing. */
static void test_admit_trace_is_silent(void **state)
{
	(void)state;
	for (unsigned i = 0; i < COUNT_OF(cases); i++) {
		struct heard heard = {.len = 0};
		const struct admit_trace trace = {heard_rule, &heard};
		const struct admit_trace deaf = {NULL, NULL};
		struct fixture_judge judge;
		struct admission plain, traced, unheard;

		admit_run(&cases[i], &judge, NULL, &plain);
		admit_run(&cases[i], &judge, &trace, &traced);
		admit_run(&cases[i], &judge, &deaf, &unheard);
		assert_memory_equal(&plain, &traced, sizeof(plain));
		assert_memory_equal(&plain, &unheard, sizeof(plain));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_admit_sender),
		cmocka_unit_test(test_admit_null_sender_best),
		cmocka_unit_test(test_admit_trace),
		cmocka_unit_test(test_admit_trace_is_silent),
	};

	return cmocka_run_group_tests(tests, fixture_index, NULL);
}
