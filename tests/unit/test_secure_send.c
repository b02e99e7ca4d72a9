/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_secure_send.c: what a delivery needs, and which certificate is good enough for it: each
 * level, and domain security, against each kind of certificate.
 */

#include "policy/partner.h"
#include "policy/secure_send.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static const uint8_t key_pinned[PIN_BYTES] = {1};
static const uint8_t key_next[PIN_BYTES] = {2};
static const uint8_t key_other[PIN_BYTES] = {3};
static struct pin pins[] = {{{1}}, {{2}}};

/* The kinds of certificate that a next hop for adatum.com may show. */
enum kind {
	KIND_GOOD,     /* adatum.com, a CA that is trusted */
	KIND_WILDCARD, /* *.adatum.com */
	KIND_HOST,     /* mail.adatum.com */
	KIND_OTHER,    /* somebody else's name */
	KIND_CN_ONLY,
	KIND_NUL,       /* adatum.com\0.evil.example */
	KIND_EXPIRED,   /* the right name, as with all below */
	KIND_UNTRUSTED, /* other CA, or self-signed */
	KIND_REVOKED,
	KIND_PENDING,      /* its revocation list is on its way */
	KIND_PINNED,       /* expired, and its key is pinned */
	KIND_PINNED_VALID, /* and valid */
	KIND_PINNED_OTHER, /* valid, pinned second, and somebody else's name */
	KIND_NONE,
	KIND_COUNT,
};

struct kind_of {
	const char *what;
	const char *dns; /* NULL: none */
	size_t dns_len;
	const char *common;
	const uint8_t *key;
	enum verdict chain;
};

#define NAME(text) (text), sizeof(text) - 1

static const struct kind_of kinds[KIND_COUNT] = {
	[KIND_GOOD] = {"good", NAME("adatum.com"), NULL, key_other, VERDICT_VALID},
	[KIND_WILDCARD] = {"wildcard", NAME("*.adatum.com"), NULL, key_other, VERDICT_VALID},
	[KIND_HOST] = {"host", NAME("mail.adatum.com"), NULL, key_other, VERDICT_VALID},
	[KIND_OTHER] = {"other name", NAME("x.example"), "adatum.com", key_other, VERDICT_VALID},
	[KIND_CN_ONLY] = {"CN only", NULL, 0, "adatum.com", key_other, VERDICT_VALID},
	[KIND_NUL] = {"NUL", NAME("adatum.com\0.evil.example"), NULL, key_other, VERDICT_VALID},
	[KIND_EXPIRED] = {"expired", NAME("adatum.com"), NULL, key_other, VERDICT_EXPIRED},
	[KIND_UNTRUSTED] = {"other CA", NAME("adatum.com"), NULL, key_other,
		VERDICT_UNTRUSTED_ROOT},
	[KIND_REVOKED] = {"revoked", NAME("adatum.com"), NULL, key_other, VERDICT_REVOKED},
	[KIND_PENDING] = {"pending", NAME("adatum.com"), NULL, key_other, VERDICT_NOT_ASKED},
	[KIND_PINNED] = {"pinned", NAME("adatum.com"), NULL, key_pinned, VERDICT_EXPIRED},
	[KIND_PINNED_VALID] = {"pinned, valid", NAME("adatum.com"), NULL, key_pinned,
		VERDICT_VALID},
	[KIND_PINNED_OTHER] = {"pinned, other name", NAME("x.example"), NULL, key_next,
		VERDICT_VALID},
	[KIND_NONE] = {"none", NULL, 0, NULL, NULL, VERDICT_NOT_ASKED},
};

/* What deliveries ask for. */
enum wish {
	WISH_NONE,
	WISH_OPPORTUNISTIC,
	WISH_ENCRYPTION,
	WISH_CERT,
	WISH_CERT_PINS,  /* spki-pins without trust-anchors */
	WISH_DOMAIN,     /* the recipient's domain */
	WISH_TLS_DOMAIN, /* tls-domain = mail.adatum.com */
	WISH_TLS_WILD,   /* tls-domain = *.adatum.com */
	WISH_FINGERPRINT,
	WISH_SECURED, /* a partner with anchors */
	WISH_LOOSE,   /* and host-names, common-name */
	WISH_PINS,    /* a partner with pins only */
	WISH_BOTH,    /* a partner with anchors and pins */
	WISH_COUNT,
};

static const char *secured_domains[] = {"treyresearch.net", "adatum.com"};

static struct partner partner_plain = {.name = "plain",
	.domains = secured_domains,
	.domain_count = 2,
	.send_secure = true,
	.trust_anchors = "adatum.pem"};
static struct partner partner_loose = {.name = "loose",
	.domains = secured_domains,
	.domain_count = 2,
	.send_secure = true,
	.trust_anchors = "adatum.pem",
	.host_names = true,
	.common_name = true};
static struct partner partner_pins = {.name = "pins",
	.domains = secured_domains,
	.domain_count = 2,
	.send_secure = true,
	.spki_pins = pins,
	.spki_pin_count = 2};
static struct partner partner_both = {.name = "both",
	.domains = secured_domains,
	.domain_count = 2,
	.send_secure = true,
	.trust_anchors = "adatum.pem",
	.spki_pins = pins,
	.spki_pin_count = 2};

struct wish_of {
	const char *what;
	struct send_connector connector;
	const struct partner *partner;
	bool needs_tls, needs_chain;
};

static const struct wish_of wishes[WISH_COUNT] = {
	[WISH_NONE] = {"none", {.tls_auth_level = TLS_AUTH_NONE}, NULL, false, false},
	[WISH_OPPORTUNISTIC] = {"opportunistic", {.tls_auth_level = TLS_AUTH_OPPORTUNISTIC}, NULL,
		false, false},
	[WISH_ENCRYPTION] = {"encryption-only", {.tls_auth_level = TLS_AUTH_ENCRYPTION_ONLY}, NULL,
		true, false},
	[WISH_CERT] = {"certificate-validation",
		{.tls_auth_level = TLS_AUTH_CERTIFICATE_VALIDATION,
			.tls_settings = {.trust_anchors = "any.pem"}},
		NULL, true, true},
	[WISH_CERT_PINS] = {"certificate-validation by pins",
		{.tls_auth_level = TLS_AUTH_CERTIFICATE_VALIDATION,
			.tls_settings = {.spki_pins = pins, .spki_pin_count = 2}},
		NULL, true, false},
	[WISH_DOMAIN] = {"domain-validation",
		{.tls_auth_level = TLS_AUTH_DOMAIN_VALIDATION,
			.tls_settings = {.trust_anchors = "any.pem"}},
		NULL, true, true},
	[WISH_TLS_DOMAIN] = {"domain-validation of a host",
		{.tls_auth_level = TLS_AUTH_DOMAIN_VALIDATION,
			.tls_domain = "mail.adatum.com",
			.tls_settings = {.trust_anchors = "any.pem"}},
		NULL, true, true},
	[WISH_TLS_WILD] = {"domain-validation of any host",
		{.tls_auth_level = TLS_AUTH_DOMAIN_VALIDATION,
			.tls_domain = "*.adatum.com",
			.tls_settings = {.trust_anchors = "any.pem"}},
		NULL, true, true},
	[WISH_FINGERPRINT] = {"fingerprint",
		{.tls_auth_level = TLS_AUTH_FINGERPRINT,
			.tls_settings = {.trust_anchors = "any.pem",
				.spki_pins = pins,
				.spki_pin_count = 2}},
		NULL, true, false},
	/* The connector's own level is the lowest there is, and of no account. */
	[WISH_SECURED] = {"secured", {.domain_secure = true}, &partner_plain, true, true},
	[WISH_LOOSE] = {"secured, loose names", {.domain_secure = true}, &partner_loose, true,
		true},
	[WISH_PINS] = {"secured by pins", {.domain_secure = true}, &partner_pins, true, false},
	[WISH_BOTH] = {"secured by anchors and pins", {.domain_secure = true}, &partner_both, true,
		true},
};

#define OK VERDICT_VALID
#define NAM VERDICT_SUBJECT_MISMATCH
#define PIN VERDICT_PIN_MISMATCH
#define EXP VERDICT_EXPIRED
#define ROT VERDICT_UNTRUSTED_ROOT
#define REV VERDICT_REVOKED
#define ASK VERDICT_NOT_ASKED
#define NIL VERDICT_EMPTY

#define ROW(wish) [WISH_##wish] =

/* clang-format off */
static const enum verdict matrix[WISH_COUNT][KIND_COUNT] = {
	/*                 good wild host othr CN   NUL  expd root revo pend pin  pin+ pinX none */
	ROW(NONE)          {OK,  OK,  OK,  OK,  OK,  OK,  OK,  OK,  OK,  OK,  OK,  OK,  OK,  OK},
	ROW(OPPORTUNISTIC) {OK,  OK,  OK,  OK,  OK,  OK,  OK,  OK,  OK,  OK,  OK,  OK,  OK,  OK},
	ROW(ENCRYPTION)    {OK,  OK,  OK,  OK,  OK,  OK,  OK,  OK,  OK,  OK,  OK,  OK,  OK,  OK},
	ROW(CERT)          {OK,  OK,  OK,  OK,  OK,  OK,  EXP, ROT, REV, ASK, EXP, OK,  OK,  NIL},
	ROW(CERT_PINS)     {PIN, PIN, PIN, PIN, PIN, PIN, PIN, PIN, PIN, PIN, OK,  OK,  OK,  NIL},
	ROW(DOMAIN)        {OK,  OK,  NAM, NAM, NAM, NAM, EXP, ROT, REV, ASK, EXP, OK,  NAM, NIL},
	ROW(TLS_DOMAIN)    {NAM, OK,  OK,  NAM, NAM, NAM, EXP, ROT, REV, ASK, EXP, NAM, NAM, NIL},
	ROW(TLS_WILD)      {NAM, OK,  OK,  NAM, NAM, NAM, EXP, ROT, REV, ASK, EXP, NAM, NAM, NIL},
	ROW(FINGERPRINT)   {PIN, PIN, PIN, PIN, PIN, PIN, PIN, PIN, PIN, PIN, OK,  OK,  OK,  NIL},
	ROW(SECURED)       {OK,  OK,  NAM, NAM, NAM, NAM, EXP, ROT, REV, ASK, EXP, OK,  NAM, NIL},
	ROW(LOOSE)         {OK,  OK,  OK,  NAM, OK,  NAM, EXP, ROT, REV, ASK, EXP, OK,  NAM, NIL},
	ROW(PINS)          {PIN, PIN, PIN, PIN, PIN, PIN, PIN, PIN, PIN, PIN, OK,  OK,  OK,  NIL},
	ROW(BOTH)          {PIN, PIN, PIN, PIN, PIN, PIN, PIN, PIN, PIN, PIN, EXP, OK,  NAM, NIL},
};
/* clang-format on */

static void wish_requirement(const struct wish_of *wish, struct send_requirement *out)
{
	const struct route route = {.connector = &wish->connector,
		.partner = wish->partner,
		.is_secured = wish->partner != NULL};

	send_requirement_of(&wish->connector, &route, "adatum.com", out);
}

static enum verdict kind_judge(
	const struct send_requirement *requirement, const struct kind_of *kind, enum verdict chain)
{
	const struct span dns = span_make(kind->dns, kind->dns_len);
	const struct span common = kind->common == NULL ? (struct span){0} : span_of(kind->common);
	const struct certificate_names names = {.dns = &dns,
		.dns_count = kind->dns != NULL,
		.common = &common,
		.common_count = kind->common != NULL};

	return send_judge(requirement, &names, kind->key != NULL, kind->key, chain);
}

static void test_send_matrix(void **state)
{
	unsigned wrong = 0;

	(void)state;
	for (unsigned wish = 0; wish < WISH_COUNT; wish++) {
		struct send_requirement requirement;

		wish_requirement(&wishes[wish], &requirement);
		for (unsigned kind = 0; kind < KIND_COUNT; kind++) {
			const enum verdict got =
				kind_judge(&requirement, &kinds[kind], kinds[kind].chain);

			if (got == matrix[wish][kind])
				continue;
			print_error("%s, %s: %s, want %s\n", wishes[wish].what, kinds[kind].what,
				verdict_word(got), verdict_word(matrix[wish][kind]));
			wrong++;
		}
	}
	assert_int_equal(wrong, 0);
}

/* Who says that the chain does not matter gets the same answer whatever it is. */
static void test_send_needs_chain(void **state)
{
	(void)state;
	for (unsigned wish = 0; wish < WISH_COUNT; wish++) {
		struct send_requirement requirement;
		bool depends = false;

		wish_requirement(&wishes[wish], &requirement);
		for (unsigned kind = 0; kind < KIND_COUNT; kind++)
			for (unsigned chain = 0; chain < VERDICT_COUNT; chain++)
				depends |= kind_judge(&requirement, &kinds[kind],
						   (enum verdict)chain) !=
					   kind_judge(&requirement, &kinds[kind], VERDICT_VALID);
		assert_int_equal(depends, wishes[wish].needs_chain);
		assert_int_equal(send_needs_chain(&requirement), wishes[wish].needs_chain);
	}
}

static void test_send_requirement(void **state)
{
	(void)state;
	for (unsigned wish = 0; wish < WISH_COUNT; wish++) {
		struct send_requirement requirement;

		wish_requirement(&wishes[wish], &requirement);
		assert_int_equal(requirement.needs_tls, wishes[wish].needs_tls);
		assert_int_equal(requirement.may_clear, !wishes[wish].needs_tls);
		assert_ptr_equal(requirement.partner, wishes[wish].partner);
		assert_string_equal(requirement.domain, "adatum.com");
		if (wishes[wish].partner != NULL)
			assert_ptr_equal(requirement.domain, secured_domains[1]);
	}
}

/* A listed domain on a connector that is not domain-secure: the connector's own level. */
static void test_send_requirement_unsecured(void **state)
{
	const struct send_connector connector = {.tls_auth_level = TLS_AUTH_OPPORTUNISTIC};
	const struct route route = {.connector = &connector, .partner = &partner_plain};
	struct send_requirement requirement;

	(void)state;
	send_requirement_of(&connector, &route, "adatum.com", &requirement);
	assert_null(requirement.partner);
	assert_false(requirement.needs_tls);
	assert_true(requirement.may_clear);
}

static void test_send_requirement_implicit(void **state)
{
	const struct send_connector connector = {
		.tls_auth_level = TLS_AUTH_OPPORTUNISTIC, .implicit_tls = true};
	const struct route route = {.connector = &connector};
	struct send_requirement requirement;

	(void)state;
	send_requirement_of(&connector, &route, "adatum.com", &requirement);
	assert_true(requirement.needs_tls);
	assert_false(requirement.may_clear);
}

/* A configuration that the loader refuses still trusts nobody. */
static void test_send_fingerprint_without_pins(void **state)
{
	const struct send_connector connector = {.tls_auth_level = TLS_AUTH_FINGERPRINT};
	const struct route route = {.connector = &connector};
	struct send_requirement requirement;

	(void)state;
	send_requirement_of(&connector, &route, "adatum.com", &requirement);
	for (unsigned kind = 0; kind < KIND_COUNT; kind++)
		assert_int_not_equal(
			kind_judge(&requirement, &kinds[kind], VERDICT_VALID), VERDICT_VALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_send_matrix),
		cmocka_unit_test(test_send_needs_chain),
		cmocka_unit_test(test_send_requirement),
		cmocka_unit_test(test_send_requirement_unsecured),
		cmocka_unit_test(test_send_requirement_implicit),
		cmocka_unit_test(test_send_fingerprint_without_pins),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
