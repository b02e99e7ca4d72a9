/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_admit_recipient.c: recipients, the replies and words of refusals, and the lists that
 * decide whose domain is whose.
 */

#include "tests/unit/admit_fixture.h"

struct recipient_case {
	const char *recipient;
	/* What each role gets: with no switch on, and accepted-domains or without. */
	enum admit_status internal, others, unlimited;
	/* What everybody gets with all three switches on. */
	enum admit_status strict;
};

#define IS_OURS ADMIT_OK, ADMIT_OK, ADMIT_OK, ADMIT_OK
#define IS_RELAY ADMIT_OK, ADMIT_RELAY, ADMIT_OK, ADMIT_OK
#define IS_BAD ADMIT_BAD_DOMAIN, ADMIT_BAD_DOMAIN, ADMIT_BAD_DOMAIN, ADMIT_BAD_DOMAIN

static const struct recipient_case recipients[] = {
	{"<a@contoso.com>", IS_OURS},
	{"<a@Contoso.COM.>", IS_OURS},
	{"a@contoso.com", IS_OURS},
	{"<a@fabrikam.com>", IS_OURS},
	{"<a@mail.eu.fabrikam.com>", IS_OURS},
	{"<a@\xef\xbd\x83ontoso.com>", IS_OURS},
	{"<postmaster>", IS_OURS},
	{"<PostMaster>", IS_OURS},
	{"<@x.example:a@contoso.com>", IS_OURS},
	{"<\"a@x.com\"@contoso.com>", IS_OURS},
	{"<a@mail.contoso.com>", IS_RELAY},
	{"<a@notfabrikam.com>", IS_RELAY},
	{"<a@adatum.com>", IS_RELAY},
	{"<@contoso.com:a@adatum.com>", IS_RELAY},
	{"<\"a@contoso.com\"@adatum.com>", IS_RELAY},
	{"<a@[192.0.2.1]>", IS_RELAY},
	{"<a@contoso.com.adatum.com>", IS_RELAY},
	{"<a@x.test>", ADMIT_OK, ADMIT_RELAY, ADMIT_OK, ADMIT_RESERVED_TOP},
	{"<a@test>", ADMIT_OK, ADMIT_RELAY, ADMIT_OK, ADMIT_RESERVED_TOP},
	{"<a@x.EXAMPLE.>", ADMIT_OK, ADMIT_RELAY, ADMIT_OK, ADMIT_RESERVED_TOP},
	{"<a@a.b.invalid>", ADMIT_OK, ADMIT_RELAY, ADMIT_OK, ADMIT_RESERVED_TOP},
	{"<a@localhost>", ADMIT_OK, ADMIT_RELAY, ADMIT_OK, ADMIT_RESERVED_TOP},
	{"<a@x.contest>", IS_RELAY},
	{"<a@test.com>", IS_RELAY},
	{"<a@example.com>", ADMIT_OK, ADMIT_RELAY, ADMIT_OK, ADMIT_RESERVED_SECOND},
	{"<a@x.example.net>", ADMIT_OK, ADMIT_RELAY, ADMIT_OK, ADMIT_RESERVED_SECOND},
	{"<a@Example.ORG>", ADMIT_OK, ADMIT_RELAY, ADMIT_OK, ADMIT_RESERVED_SECOND},
	{"<a@notexample.com>", IS_RELAY},
	{"<a@example.edu>", IS_RELAY},
	{"<a@intranet>", ADMIT_OK, ADMIT_RELAY, ADMIT_OK, ADMIT_SINGLE_LABEL},
	{"<a@con_toso.com>", IS_BAD},
	{"<a@>", IS_BAD},
	{"<a>", IS_BAD},
	{"<>", IS_BAD},
	{"<a@contoso..com>", IS_BAD},
};

static void recipient_check(const struct recipient_case *row, const char *what,
	const struct policy *policy, const struct receive_connector *connector, enum role role,
	enum admit_status want)
{
	const struct admission admission = {.role = role};
	const enum admit_status got =
		admit_recipient(policy, connector, &admission, span_of(row->recipient), NULL);

	if (got != want)
		fail_msg("%s, %s, %s: %s, want %s", row->recipient, what, role_word(role),
			admit_word(got), admit_word(want));
}

static void test_admit_recipient(void **state)
{
	struct policy unlimited = fixture_policy;
	struct receive_connector strict = fixture_connectors[MIXED];

	(void)state;
	unlimited.accepted_domain_count = 0;
	strict.reject_reserved_top_level_recipient_domains = true;
	strict.reject_reserved_second_level_recipient_domains = true;
	strict.reject_single_label_recipient_domains = true;
	for (unsigned i = 0; i < COUNT_OF(recipients); i++) {
		const struct recipient_case *row = &recipients[i];

		for (unsigned at = 0; at < ROLE_COUNT; at++) {
			const enum role role = (enum role)at;

			recipient_check(row, "accepted-domains", &fixture_policy,
				&fixture_connectors[MIXED], role,
				role == ROLE_INTERNAL ? row->internal : row->others);
			recipient_check(row, "no accepted-domains", &unlimited,
				&fixture_connectors[MIXED], role, row->unlimited);
			recipient_check(
				row, "all switches", &unlimited, &strict, role, row->strict);
		}
	}
}

/* Each switch refuses its own kind only. */
static void test_admit_recipient_switches(void **state)
{
	static const char *const samples[] = {
		"<a@x.test>", "<a@example.com>", "<a@intranet>", "<a@contoso.com>"};
	static const enum admit_status statuses[] = {
		ADMIT_RESERVED_TOP, ADMIT_RESERVED_SECOND, ADMIT_SINGLE_LABEL, ADMIT_OK};
	const struct admission admission = {.role = ROLE_INTERNAL};

	(void)state;
	for (unsigned on = 0; on < 3; on++) {
		const struct receive_connector connector = {
			.reject_reserved_top_level_recipient_domains = on == 0,
			.reject_reserved_second_level_recipient_domains = on == 1,
			.reject_single_label_recipient_domains = on == 2};

		for (unsigned i = 0; i < COUNT_OF(samples); i++)
			assert_int_equal(admit_recipient(&fixture_policy, &connector, &admission,
						 span_of(samples[i]), NULL),
				i == on ? statuses[i] : ADMIT_OK);
	}
}

struct last_rule {
	const char *rule;
	bool passed;
};

static void last_rule_is(void *arg, const char *rule, bool passed, const char *text)
{
	struct last_rule *last = arg;

	assert_non_null(text);
	last->rule = rule;
	last->passed = passed;
}

static void test_admit_recipient_trace(void **state)
{
	static const struct {
		const char *recipient, *rule;
		bool passed;
	} rows[] = {
		{"<a@contoso.com>", "relay", true},
		{"<a@adatum.com>", "relay", false},
		{"<a@[192.0.2.1]>", "relay", false},
		{"<postmaster>", "relay", true},
		{"<a@_>", "recipient-domain", false},
		{"<a@x.test>", "reserved-top-level", false},
		{"<a@example.com>", "reserved-second-level", false},
		{"<a@intranet>", "single-label", false},
	};
	const struct admission admission = {.role = ROLE_PARTNER};
	struct receive_connector connector = fixture_connectors[PARTNERS];

	(void)state;
	connector.reject_reserved_top_level_recipient_domains = true;
	connector.reject_reserved_second_level_recipient_domains = true;
	connector.reject_single_label_recipient_domains = true;
	for (unsigned i = 0; i < COUNT_OF(rows); i++) {
		struct last_rule last = {.rule = "none"};
		const struct admit_trace trace = {last_rule_is, &last};

		(void)admit_recipient(&fixture_policy, &connector, &admission,
			span_of(rows[i].recipient), &trace);
		assert_string_equal(last.rule, rows[i].rule);
		assert_int_equal(last.passed, rows[i].passed);
	}
}

struct right_case {
	unsigned groups;
	/* Of a stranger, of a partner, and of one of our own servers. */
	enum admit_status status[ROLE_COUNT];
	enum role internal; /* as which our own server is admitted: without its group as anybody */
};

#define YES ADMIT_OK
#define NO ADMIT_NOT_AUTHENTICATED

static void test_roles_and_permissions(void **state)
{
	static const struct right_case rows[] = {
		{0, {NO, NO, NO}, ROLE_ANONYMOUS},
		{PERMISSION_ANONYMOUS, {YES, YES, YES}, ROLE_ANONYMOUS},
		{PERMISSION_PARTNERS, {NO, YES, NO}, ROLE_ANONYMOUS},
		{PERMISSION_ANONYMOUS | PERMISSION_PARTNERS, {YES, YES, YES}, ROLE_ANONYMOUS},
		{PERMISSION_INTERNAL, {NO, ADMIT_DIRECT_TRUST, YES}, ROLE_INTERNAL},
		{PERMISSION_INTERNAL | PERMISSION_ANONYMOUS, {YES, YES, YES}, ROLE_INTERNAL},
		{PERMISSION_INTERNAL | PERMISSION_PARTNERS, {NO, YES, YES}, ROLE_INTERNAL},
		{PERMISSION_INTERNAL | PERMISSION_PARTNERS | PERMISSION_ANONYMOUS, {YES, YES, YES},
			ROLE_INTERNAL},
	};
	static const char *const senders[] = {"<a@x.example>", "<a@adatum.com>", "<a@x.example>"};
	struct fixture_judge judge = {.chains = {[ADATUM] = VERDICT_VALID}};
	const struct span dns = span_of("adatum.com");
	const struct admit_peer peers[ROLE_COUNT] = {
		[ROLE_ANONYMOUS] = {.is_tls = true},
		[ROLE_PARTNER] = {.is_tls = true,
			.has_certificate = true,
			.names = {.dns = &dns, .dns_count = 1},
			.spki = fixture_keys[KEY_STRANGER],
			.judge = fixture_judge,
			.arg = &judge},
		[ROLE_INTERNAL] = {.is_tls = true,
			.has_certificate = true,
			.spki = fixture_keys[KEY_HUB]},
	};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(rows); i++) {
		struct receive_connector connector = fixture_connectors[MIXED];

		connector.permission_groups = rows[i].groups;
		for (unsigned at = 0; at < ROLE_COUNT; at++) {
			struct admission got = {.status = ADMIT_OK};

			admit_sender(&fixture_policy, &connector, &peers[at], span_of(senders[at]),
				NULL, &got);
			if (got.status != rows[i].status[at])
				fail_msg("groups %u, %s: %s, want %s", rows[i].groups,
					role_word((enum role)at), admit_word(got.status),
					admit_word(rows[i].status[at]));
			if (got.status == ADMIT_OK)
				assert_int_equal(got.role,
					at == ROLE_INTERNAL ? rows[i].internal : (enum role)at);
		}
	}
}

struct reply_case {
	enum admit_status status;
	const char *reply, *permanent; /* NULL: the same */
	const char *word, *event_id;
};

static const struct reply_case replies[] = {
	{ADMIT_OK, "250 2.1.0 Sender OK", NULL, "ok", NULL},
	{ADMIT_WAIT, "454 4.7.5 Certificate validation failure: RevocationUnknown", NULL,
		"revocation-pending", NULL},
	{ADMIT_TLS_REQUIRED, "451 5.7.3 STARTTLS is required to send mail",
		"530 5.7.0 Must issue a STARTTLS command first", "tls-required", NULL},
	{ADMIT_CLIENT_CERTIFICATE, "454 4.7.5 Certificate validation failure: Expired",
		"550 5.7.5 Certificate validation failure: Expired", "client-certificate", NULL},
	{ADMIT_DIRECT_TRUST, "454 4.7.0 Temporary authentication failure", NULL, "direct-trust",
		"1036"},
	{ADMIT_SECURE_NO_TLS,
		"451 4.7.3 Mail from adatum.com needs mutual TLS: STARTTLS was not used",
		"550 5.7.3 Mail from adatum.com needs mutual TLS: STARTTLS was not used",
		"tls-not-started", "11012"},
	{ADMIT_SECURE_NO_CERT, "454 4.7.5 Certificate validation failure: Expired",
		"550 5.7.5 Certificate validation failure: Expired", "no-certificate", "11022"},
	{ADMIT_SECURE_CHAIN, "454 4.7.5 Certificate validation failure: Expired",
		"550 5.7.5 Certificate validation failure: Expired", "certificate-not-valid",
		"11022"},
	{ADMIT_SECURE_NAME, "454 4.7.5 Certificate validation failure: Expired",
		"550 5.7.5 Certificate validation failure: Expired", "subject-mismatch", "11015"},
	{ADMIT_SECURE_CONNECTOR,
		"451 4.7.3 Mail from adatum.com is taken over a domain-secured connector only",
		NULL, "connector-not-secure", NULL},
	{ADMIT_NOT_AUTHENTICATED, "530 5.7.1 Client was not authenticated", NULL,
		"not-authenticated", NULL},
	{ADMIT_OWN_DOMAIN, "550 5.7.1 Sender domain is ours", NULL, "own-domain", NULL},
	{ADMIT_RELAY, "550 5.7.1 Unable to relay", NULL, "relay", NULL},
	{ADMIT_RESERVED_TOP, "550 5.1.4 Top-level domain of the recipient is reserved", NULL,
		"reserved-top-level", NULL},
	{ADMIT_RESERVED_SECOND, "550 5.1.5 Second-level domain of the recipient is reserved", NULL,
		"reserved-second-level", NULL},
	{ADMIT_SINGLE_LABEL, "550 5.1.6 Domain of the recipient is a single label", NULL,
		"single-label", NULL},
	{ADMIT_BAD_DOMAIN, "550 5.1.7 Invalid address", NULL, "bad-domain", NULL},
};

static void test_admit_replies(void **state)
{
	(void)state;
	assert_int_equal(COUNT_OF(replies), ADMIT_STATUS_COUNT);
	for (unsigned i = 0; i < COUNT_OF(replies); i++) {
		const struct reply_case *row = &replies[i];
		const struct receive_connector connectors[] = {
			{.permanent_tls_refusals = false}, {.permanent_tls_refusals = true}};
		const struct admission admission = {
			.status = row->status, .domain = "adatum.com", .verdict = VERDICT_EXPIRED};
		char out[ADMIT_REPLY_BYTES] = "";

		assert_int_equal(row->status, i);
		assert_string_equal(admit_reply(&connectors[0], &admission, out), row->reply);
		assert_ptr_equal(admit_reply(&connectors[1], &admission, out), out);
		assert_string_equal(out, row->permanent == NULL ? row->reply : row->permanent);
		assert_string_equal(admit_word(row->status), row->word);
		if (row->event_id == NULL)
			assert_null(admit_event_id(row->status));
		else
			assert_string_equal(admit_event_id(row->status), row->event_id);
	}
}

/* Each status word of a certificate stands in the reply as it is. */
static void test_admit_reply_verdicts(void **state)
{
	const struct receive_connector connector = {.permanent_tls_refusals = false};

	(void)state;
	for (unsigned i = 0; i < VERDICT_COUNT; i++) {
		const struct admission admission = {
			.status = ADMIT_SECURE_CHAIN, .verdict = (enum verdict)i};
		char out[ADMIT_REPLY_BYTES];
		char want[ADMIT_REPLY_BYTES];

		(void)snprintf(want, sizeof(want), "454 4.7.5 Certificate validation failure: %s",
			verdict_word((enum verdict)i));
		assert_string_equal(admit_reply(&connector, &admission, out), want);
	}
}

/* The longest domain there is leaves the reply whole. */
static void test_admit_reply_long(void **state)
{
	const struct receive_connector connector = {.permanent_tls_refusals = false};
	struct admission admission = {.status = ADMIT_SECURE_NO_TLS};
	char domain[DOMAIN_BYTES_MAX];
	char out[ADMIT_REPLY_BYTES];

	(void)state;
	memset(domain, 'a', sizeof(domain) - 1);
	domain[sizeof(domain) - 1] = '\0';
	admission.domain = domain;
	assert_non_null(strstr(admit_reply(&connector, &admission, out),
		"needs mutual TLS: STARTTLS was not used"));
	admission.domain = NULL;
	assert_non_null(strstr(admit_reply(&connector, &admission, out), "Mail from this domain "));
}

struct list_case {
	const char *domain;
	enum fixture_partner receives, sends;
	bool is_accepted;
};

static void test_lists(void **state)
{
	static const struct list_case rows[] = {
		{"adatum.com", ADATUM, ADATUM, false},
		{"xn--bcher-kva.example", ADATUM, ADATUM, false},
		{"sub.adatum.com", NOBODY, NOBODY, false},
		{"com", NOBODY, NOBODY, false},
		{"second.pinned.example", PINNED, PINNED, false},
		{"outbound.example", NOBODY, OUTBOUND, false},
		{"contoso.com", NOBODY, NOBODY, true},
		{"sub.contoso.com", NOBODY, NOBODY, false},
		{"fabrikam.com", NOBODY, NOBODY, true},
		{"sub.fabrikam.com", NOBODY, NOBODY, true},
		{"a.sub.fabrikam.com", NOBODY, NOBODY, true},
		{"notfabrikam.com", NOBODY, NOBODY, false},
		{"", NOBODY, NOBODY, false},
	};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(rows); i++) {
		const struct list_case *row = &rows[i];

		assert_ptr_equal(partner_find(&fixture_policy, row->domain, false),
			row->receives == NOBODY ? NULL : &fixture_partners[row->receives]);
		assert_ptr_equal(partner_find(&fixture_policy, row->domain, true),
			row->sends == NOBODY ? NULL : &fixture_partners[row->sends]);
		assert_int_equal(
			policy_is_accepted_domain(&fixture_policy, row->domain), row->is_accepted);
	}
}

static void test_pins(void **state)
{
	(void)state;
	assert_true(pins_have(pinned_pins, 2, fixture_keys[KEY_PIN_1]));
	assert_true(pins_have(pinned_pins, 2, fixture_keys[KEY_PIN_2]));
	assert_false(pins_have(pinned_pins, 1, fixture_keys[KEY_PIN_2]));
	assert_false(pins_have(pinned_pins, 2, fixture_keys[KEY_STRANGER]));
	assert_false(pins_have(NULL, 0, fixture_keys[KEY_PIN_1]));
	assert_false(pins_have(pinned_pins, 2, NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_admit_recipient),
		cmocka_unit_test(test_admit_recipient_switches),
		cmocka_unit_test(test_admit_recipient_trace),
		cmocka_unit_test(test_roles_and_permissions),
		cmocka_unit_test(test_admit_replies),
		cmocka_unit_test(test_admit_reply_verdicts),
		cmocka_unit_test(test_admit_reply_long),
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_pins),
	};

	return cmocka_run_group_tests(tests, fixture_index, NULL);
}
