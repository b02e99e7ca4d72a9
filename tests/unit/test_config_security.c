/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_config_security.c: the keywords of domain security: templates, partners, ranges, address
 * spaces, pins, the folder of certificates.
 */

#include "tests/unit/config_fixture.h"

static struct policy *load(const char *text)
{
	struct policy *policy = NULL;

	if (load_text(text, &policy) != 0)
		fail_msg("%s", said);
	return policy;
}

#define OUT "send-connector out { smart-hosts = \"203.0.113.9:2599\" }\n"
#define PIN "3f79bb7b435b05321651daefd374cdc681dc06faa65e374e38337b88ca046dea"
#define SERVER "internal-server hub { spki-pins = " PIN " }\n"

struct template
{
	const char *text;
	unsigned permissions;
	enum tls_mode tls;
	enum client_certificate asks;
	bool domain_secure;
};

static void test_row_4_partner_template(void **state)
{
	static const struct template rows[] = {
		{"", PERMISSION_ANONYMOUS, TLS_MODE_NONE, CLIENT_CERTIFICATE_NONE, false},
		{"type = custom", PERMISSION_ANONYMOUS, TLS_MODE_NONE, CLIENT_CERTIFICATE_NONE,
			false},
		{"type = internet", PERMISSION_ANONYMOUS, TLS_MODE_STARTTLS,
			CLIENT_CERTIFICATE_NONE, false},
		{"type = internal", PERMISSION_INTERNAL, TLS_MODE_STARTTLS, CLIENT_CERTIFICATE_ASK,
			false},
		{"type = Partner", PERMISSION_PARTNERS, TLS_MODE_STARTTLS, CLIENT_CERTIFICATE_ASK,
			true},
		/* What is set by itself goes before the template, wherever it stands. */
		{"tls = implicit type = partner permission-groups = {anonymous, partners}",
			PERMISSION_ANONYMOUS | PERMISSION_PARTNERS, TLS_MODE_IMPLICIT,
			CLIENT_CERTIFICATE_ASK, true},
		{"domain-secure = no type = partner", PERMISSION_PARTNERS, TLS_MODE_STARTTLS,
			CLIENT_CERTIFICATE_ASK, false},
		{"type = partner client-certificate = require", PERMISSION_PARTNERS,
			TLS_MODE_STARTTLS, CLIENT_CERTIFICATE_REQUIRE, true},
		{"type = internal tls = none", PERMISSION_INTERNAL, TLS_MODE_NONE,
			CLIENT_CERTIFICATE_NONE, false},
		{"type = internal client-certificate = none", PERMISSION_INTERNAL,
			TLS_MODE_STARTTLS, CLIENT_CERTIFICATE_NONE, false},
		/* domain-secure asks for a certificate by itself. */
		{"type = internet domain-secure = yes", PERMISSION_ANONYMOUS, TLS_MODE_STARTTLS,
			CLIENT_CERTIFICATE_ASK, true},
		{"permission-groups = internal permission-groups += {Anonymous, internal}",
			PERMISSION_ANONYMOUS | PERMISSION_INTERNAL, TLS_MODE_NONE,
			CLIENT_CERTIFICATE_NONE, false},
	};
	char text[512];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		struct policy *policy = NULL;
		const struct receive_connector *in = NULL;

		(void)snprintf(text, sizeof(text),
			OUT SERVER "receive-connector in { bindings = \"127.0.0.1:2525\"\n"
				   "send-connector = out %s }\n",
			rows[i].text);
		policy = load(text);
		in = &policy->receive_connectors[0];
		if (in->permission_groups != rows[i].permissions || in->tls != rows[i].tls ||
			in->client_certificate != rows[i].asks ||
			in->domain_secure != rows[i].domain_secure)
			fail_msg("\"%s\": %u %d %d %d", rows[i].text, in->permission_groups,
				in->tls, in->client_certificate, in->domain_secure);
		policy_destroy(&policy);
	}
}

static void test_transport_keywords(void **state)
{
	struct policy *policy = NULL;

	(void)state;
	policy = load(SMALLEST
		"transport {\n"
		" accepted-domains = {Contoso.com., \"*.contoso.com\", \"b\xc3\xbc"
		"cher.example\"}\n"
		" accepted-domains += \"*.xn--bcher-kva.example\"\n"
		" certificate-expiry-warning = 2d crl-cache = certs crl-fetch-timeout = 500ms\n"
		" crl-refresh-interval = 5m\n"
		" dns-servers = {\"192.0.2.53\", \"[::1]:5353\", \"[2001:db8::53]\"}\n"
		" protocol-log-folder = \"log/new\" protocol-log-max-file-size = 1MB\n"
		" protocol-log-max-directory-size = 2MB protocol-log-max-age = 1h }\n");
	assert_int_equal(policy->accepted_domain_count, 4);
	assert_string_equal(policy->accepted_domains[0], "contoso.com");
	assert_string_equal(policy->accepted_domains[1], "*.contoso.com");
	assert_string_equal(policy->accepted_domains[2], "xn--bcher-kva.example");
	assert_string_equal(policy->accepted_domains[3], "*.xn--bcher-kva.example");
	assert_int_equal(policy->certificate_expiry_warning_s, 2 * 86400);
	assert_string_equal(strrchr(policy->crl_cache, '/'), "/certs");
	assert_int_equal(policy->crl_fetch_timeout_ms, 500);
	assert_int_equal(policy->crl_refresh_interval_ms, 300000);
	assert_int_equal(policy->dns_server_count, 3);
	assert_string_equal(policy->dns_servers[1], "[::1]:5353");
	assert_string_equal(strstr(policy->protocol_log_folder, "/log"), "/log/new");
	assert_int_equal(policy->protocol_log_max_file_bytes, 1024 * 1024);
	assert_int_equal(policy->protocol_log_max_directory_bytes, 2 * 1024 * 1024);
	assert_int_equal(policy->protocol_log_max_age_ms, 3600 * 1000);
	policy_destroy(&policy);
}

static void test_receive_keywords(void **state)
{
	struct policy *policy = NULL;
	const struct receive_connector *in = NULL;
	char text[IP_RANGE_TEXT_BYTES];

	(void)state;
	policy = load(
		OUT "transport { protocol-log-folder = certs }\n"
		    "receive-connector in { bindings = \"127.0.0.1:2525\" send-connector = out\n"
		    " tls = starttls client-certificate = require spki-pins = " PIN "\n"
		    " tls-domain = \"*.Fabrikam.com\" trust-anchors = good.pem\n"
		    " crl-files = {good.pem, good.key} revocation = strict\n"
		    " remote-ip-ranges = {192.0.2.1, \"192.0.2.9/28\", \"2001:db8::1%1\"}\n"
		    " permission-groups = internal external-authoritative = yes\n"
		    " allow-unsecured-partners = yes max-local-hop-count = 0\n"
		    " max-inbound-connection-per-source = unlimited\n"
		    " max-inbound-connection-percentage-per-source = 100\n"
		    " message-rate-limit = unlimited message-rate-source = none\n"
		    " tarpit-interval = 0s require-ehlo-domain = yes long-addresses = yes\n"
		    " reject-reserved-top-level-recipient-domains = yes\n"
		    " reject-reserved-second-level-recipient-domains = yes\n"
		    " reject-single-label-recipient-domains = yes\n"
		    " protocol-logging = verbose size = without-value }\n");
	in = &policy->receive_connectors[0];
	assert_string_equal(in->tls_domain, "*.fabrikam.com");
	assert_null(in->tls_settings.certificate);
	assert_int_equal(in->tls_settings.crl_file_count, 2);
	assert_string_equal(strrchr(in->tls_settings.crl_files[1], '/'), "/good.key");
	assert_int_equal(in->tls_settings.revocation, REVOCATION_STRICT);
	assert_int_equal(in->tls_settings.spki_pin_count, 1);
	assert_int_equal(in->remote_ip_range_count, 3);
	assert_string_equal(ip_range_print(&in->remote_ip_ranges[1], text), "192.0.2.0/28");
	assert_string_equal(ip_range_print(&in->remote_ip_ranges[2], text), "2001:db8::1%1");
	assert_int_equal(in->permission_groups, PERMISSION_INTERNAL);
	assert_true(in->external_authoritative && in->allow_unsecured_partners);
	assert_int_equal(in->max_local_hop_count, 0);
	assert_true(in->max_inbound_connection_per_source == POLICY_UNLIMITED);
	assert_int_equal(in->max_inbound_connection_percentage_per_source, 100);
	assert_true(in->message_rate_limit == POLICY_UNLIMITED);
	assert_int_equal(in->message_rate_source, RATE_SOURCE_NONE);
	assert_int_equal(in->tarpit_interval_ms, 0);
	assert_true(in->require_ehlo_domain && in->long_addresses);
	assert_true(in->reject_reserved_top_level_recipient_domains &&
		    in->reject_reserved_second_level_recipient_domains &&
		    in->reject_single_label_recipient_domains);
	assert_int_equal(in->protocol_logging, PROTOCOL_LOGGING_VERBOSE);
	assert_int_equal(in->size, SIZE_WITHOUT_VALUE);
	policy_destroy(&policy);
}

static void check_space(const struct address_space *space, const char *domain, bool with_subdomains,
	bool is_any, bool is_accepted, unsigned cost)
{
	assert_string_equal(space->domain, domain);
	assert_int_equal(space->with_subdomains, with_subdomains);
	assert_int_equal(space->is_any, is_any);
	assert_int_equal(space->is_accepted, is_accepted);
	assert_int_equal(space->cost, cost);
}

static void test_send_keywords(void **state)
{
	struct policy *policy = NULL;
	const struct send_connector *out = NULL;

	(void)state;
	policy = load("transport { protocol-log-folder = certs }\n"
		      "receive-connector in { bindings = \"127.0.0.1:2525\" }\n"
		      "send-connector dns {\n"
		      " address-spaces = {\"SMTP:Contoso.com;100\", \"*.contoso.com\", \"*\"}\n"
		      " address-spaces += {\"smtp:--;7\", \"b\xc3\xbc"
		      "cher.example;2\"}\n"
		      " port = 2525 tls-auth-level = domain-validation trust-anchors = good.pem\n"
		      " domain-secure = yes allow-unsecured-partners = yes\n"
		      " trusted-next-hop = yes max-message-size = 1MB protocol-logging = verbose\n"
		      " revocation = soft crl-files = good.pem }\n"
		      "send-connector helo { enabled = no force-helo = yes frontend-proxy = yes\n"
		      " smart-hosts = \"203.0.113.9\" }\n"
		      "send-connector key { tls-auth-level = fingerprint spki-pins = " PIN " }\n");
	out = &policy->send_connectors[0];
	assert_true(out->enabled);
	assert_int_equal(out->smart_host_count, 0);
	assert_int_equal(out->address_space_count, 5);
	check_space(&out->address_spaces[0], "contoso.com", false, false, false, 100);
	check_space(&out->address_spaces[1], "contoso.com", true, false, false, 1);
	check_space(&out->address_spaces[2], "", false, true, false, 1);
	check_space(&out->address_spaces[3], "", false, false, true, 7);
	check_space(&out->address_spaces[4], "xn--bcher-kva.example", false, false, false, 2);
	assert_int_equal(out->port, 2525);
	assert_null(out->tls_domain);
	assert_true(out->domain_secure && out->allow_unsecured_partners && out->trusted_next_hop);
	assert_int_equal(out->max_message_bytes, 1024 * 1024);
	assert_int_equal(out->protocol_logging, PROTOCOL_LOGGING_VERBOSE);
	assert_int_equal(out->tls_settings.revocation, REVOCATION_SOFT);
	assert_int_equal(out->tls_settings.crl_file_count, 1);
	out = &policy->send_connectors[1];
	assert_false(out->enabled);
	assert_true(out->force_helo && out->frontend_proxy);
	assert_int_equal(policy->send_connectors[2].tls_auth_level, TLS_AUTH_FINGERPRINT);
	policy_destroy(&policy);
}

static void test_partner_keywords(void **state)
{
	static const uint8_t second[] = {0x2c, 0xf2, 0x4d, 0xba};
	struct policy *policy = NULL;
	const struct partner *partner = NULL;

	(void)state;
	policy = load(SMALLEST
		"internal-server hub { spki-pins = {" PIN ",\n"
		" \"sha256//LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=\"} }\n"
		"partner first { domains = Adatum.com trust-anchors = good.pem }\n"
		"partner second {\n"
		" domains = {fabrikam.com, \"b\xc3\xbc"
		"cher.example\"} certificate-names = {mx.fabrikam.net, \"*.Mail.example\"}\n"
		" send-secure = no receive-secure = no host-names = yes common-name = yes\n"
		" spki-pins = \"3F"
		"79bb7b435b05321651daefd374cdc681dc06faa65e374e38337b88ca046dea\"\n"
		" trust-anchors = good.pem crl-files = good.key revocation = off }\n"
		"partner third { domains = litware.example spki-pins = " PIN " }\n");
	assert_int_equal(policy->internal_server_count, 1);
	assert_string_equal(policy->internal_servers[0].name, "hub");
	assert_int_equal(policy->internal_servers[0].spki_pin_count, 2);
	assert_int_equal(policy->internal_servers[0].spki_pins[0].bytes[0], 0x3f);
	assert_int_equal(policy->internal_servers[0].spki_pins[0].bytes[31], 0xea);
	assert_memory_equal(policy->internal_servers[0].spki_pins[1].bytes, second, sizeof(second));
	assert_int_equal(policy->internal_servers[0].spki_pins[1].bytes[31], 0x24);
	assert_int_equal(policy->partner_count, 3);
	partner = &policy->partners[0];
	assert_int_equal(partner->line, 5);
	assert_int_equal(partner->index, 0);
	assert_string_equal(partner->domains[0], "adatum.com");
	assert_true(partner->send_secure && partner->receive_secure);
	assert_false(partner->host_names || partner->common_name);
	assert_int_equal(partner->certificate_name_count + partner->spki_pin_count, 0);
	assert_int_equal(partner->crl_file_count, 0);
	assert_int_equal(partner->revocation, REVOCATION_HARD);
	partner = &policy->partners[1];
	assert_string_equal(partner->name, "second");
	assert_int_equal(partner->index, 1);
	assert_int_equal(partner->domain_count, 2);
	assert_string_equal(partner->domains[1], "xn--bcher-kva.example");
	assert_int_equal(partner->certificate_name_count, 2);
	assert_string_equal(partner->certificate_names[1], "*.mail.example");
	assert_false(partner->send_secure || partner->receive_secure);
	assert_true(partner->host_names && partner->common_name);
	assert_memory_equal(
		partner->spki_pins, policy->internal_servers[0].spki_pins, sizeof(struct pin));
	assert_int_equal(partner->crl_file_count, 1);
	assert_int_equal(partner->revocation, REVOCATION_OFF);
	assert_null(policy->partners[2].trust_anchors);
	policy_destroy(&policy);
}

/* Bindings that connectors may share. */
static void test_row_2_overlap_lint(void **state)
{
	static const char *const texts[] = {
		/* Everybody, and some. */
		"receive-connector a { bindings = \"0.0.0.0:2525\" send-connector = out }\n"
		"receive-connector b { bindings = \"0.0.0.0:2525\" send-connector = out\n"
		" remote-ip-ranges = \"0.0.0.0/0\" }\n",
		/* One inside of the other, and others apart. */
		"receive-connector a { bindings = \"0.0.0.0:2525\" send-connector = out\n"
		" remote-ip-ranges = {\"10.0.0.0/8\", \"192.0.2.0-192.0.2.9\"} }\n"
		"receive-connector b { bindings = \"0.0.0.0:2525\" send-connector = out\n"
		" remote-ip-ranges = {\"10.1.0.0/16\", \"192.0.2.10\", \"2001:db8::/32\"} }\n",
		/* The same ranges on other bindings. */
		"receive-connector a { bindings = \"0.0.0.0:2525\" send-connector = out }\n"
		"receive-connector b { bindings = \"127.0.0.1:2525\" send-connector = out }\n"
		"receive-connector c { bindings = \"0.0.0.0:2526\" send-connector = out }\n"
		"receive-connector d { bindings = \"[::]:2525\" send-connector = out }\n",
		/* One that is not enabled takes nothing. */
		"receive-connector a { bindings = \"0.0.0.0:2525\" send-connector = out }\n"
		"receive-connector b { bindings = \"0.0.0.0:2525\" send-connector = out\n"
		" enabled = no }\n"
		"receive-connector c { bindings = \"203.0.113.9:2599\" enabled = no }\n",
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(texts); i++) {
		char text[1024];
		struct policy *policy = NULL;

		(void)snprintf(text, sizeof(text), "%s%s", OUT, texts[i]);
		policy = load(text);
		assert_string_equal(said, "");
		policy_destroy(&policy);
	}
}

static void put_folder(const char *name)
{
	char path[512];

	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	assert_int_equal(mkdir(path, 0700), 0);
}

static void test_certificate_store(void **state)
{
	static const char *const files[] = {"b2/chain.pem", "b2/key.pem", "b2/enabled",
		"a1/chain.pem", "a1/key.pem", "c3/key.pem", "c3/request.pem", ".tmp/chain.pem",
		".tmp/key.pem", "named/chain.pem", "named/key.pem"};
	static const char *const folders[] = {"b2", "a1", "c3", ".tmp", "named"};
	struct policy *policy = NULL;
	char path[128];

	(void)state;
	put_folder("store");
	for (size_t i = 0; i < COUNT_OF(folders); i++) {
		(void)snprintf(path, sizeof(path), "store/%s", folders[i]);
		put_folder(path);
	}
	for (size_t i = 0; i < COUNT_OF(files); i++) {
		(void)snprintf(path, sizeof(path), "store/%s", files[i]);
		put_file(path, "", strcmp(files[i], "a1/key.pem") == 0 ? 0644 : 0600);
	}
	policy = load("receive-connector in { bindings = \"127.0.0.1:2525\" certificate = b2\n"
		      "send-connector = out tls = starttls }\n"
		      "certificate named { chain = good.pem key = good.key }\n"
		      "send-connector out { smart-hosts = \"127.0.0.1\" certificate = named }\n"
		      "transport {\ncertificate-store = store }\n");
	assert_int_equal(policy->certificate_count, 4);
	assert_string_equal(policy->certificates[0].name, "named");
	assert_true(policy->certificates[0].is_enabled);
	assert_int_equal(policy->certificates[0].line, 3);
	assert_string_equal(policy->certificates[1].name, "a1");
	assert_false(policy->certificates[1].is_enabled);
	assert_int_equal(policy->certificates[1].line, 0);
	assert_string_equal(policy->certificates[2].name, "b2");
	assert_true(policy->certificates[2].is_enabled);
	assert_string_equal(
		strstr(policy->certificates[2].chain, "/store/"), "/store/b2/chain.pem");
	assert_string_equal(strstr(policy->certificates[2].key, "/store/"), "/store/b2/key.pem");
	assert_string_equal(policy->certificates[3].name, "named");
	assert_ptr_equal(
		policy->receive_connectors[0].tls_settings.certificate, &policy->certificates[2]);
	/* A section goes before the store, and the load says so. */
	assert_ptr_equal(
		policy->send_connectors[0].tls_settings.certificate, &policy->certificates[0]);
	assert_true(said_at(6, "warning: certificate \"named\" is in the store and a section"));
	assert_true(said_at(6, "warning: key "));
	assert_int_equal(said_lines(), 2);
	policy_destroy(&policy);
	for (size_t i = 0; i < COUNT_OF(folders); i++) {
		(void)snprintf(path, sizeof(path), "%s/store/%s", folder, folders[i]);
		empty_folder(path);
	}
	(void)snprintf(path, sizeof(path), "%s/store", folder);
	empty_folder(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_row_4_partner_template),
		cmocka_unit_test(test_transport_keywords),
		cmocka_unit_test(test_receive_keywords),
		cmocka_unit_test(test_send_keywords),
		cmocka_unit_test(test_partner_keywords),
		cmocka_unit_test(test_row_2_overlap_lint),
		cmocka_unit_test(test_certificate_store),
	};

	return cmocka_run_group_tests_name(
		"config security", tests, fixture_setup, fixture_teardown);
}
