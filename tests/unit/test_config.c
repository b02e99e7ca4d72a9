/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_config.c: the configuration file. Defaults against EXCHANGE.md 2.5 and 3.2, every keyword
 * set, the examples, and that nothing is left behind.
 */

#include "policy/gate.h"
#include "policy/lint.h"
#include "tests/unit/config_fixture.h"

#include <netdb.h>

static void test_transport_defaults(void **state)
{
	struct policy *policy = NULL;

	(void)state;
	assert_int_equal(load_text(SMALLEST, &policy), 0);
	assert_string_equal(said, "");
	assert_string_equal(policy->file, file);
	assert_true(policy->fqdn != NULL && policy->fqdn[0] != '\0');
	assert_int_equal(policy->workers, 0);
	assert_int_equal(policy->max_sessions, 5000);
	assert_null(policy->user);
	assert_int_equal(policy->io_uring_disable_count, 0);
	assert_int_equal(policy->drain_timeout_ms, 30000);
	assert_false(policy->log_debug);
	assert_int_equal(policy->accepted_domain_count, 0);
	assert_null(policy->certificate_store);
	assert_int_equal(policy->certificate_expiry_warning_s, 30 * 86400);
	assert_null(policy->crl_cache);
	assert_int_equal(policy->crl_fetch_timeout_ms, 10000);
	assert_int_equal(policy->crl_refresh_interval_ms, 3600 * 1000);
	assert_int_equal(policy->dns_server_count, 0);
	assert_null(policy->protocol_log_folder);
	assert_int_equal(policy->protocol_log_max_file_bytes, 10 * 1024 * 1024);
	assert_int_equal(policy->protocol_log_max_directory_bytes, 250 * 1024 * 1024);
	assert_true(policy->protocol_log_max_age_ms == UINT64_C(30) * 86400 * 1000);
	assert_int_equal(policy->partner_count + policy->internal_server_count, 0);
	assert_int_equal(policy->certificate_count, 0);
	assert_int_equal(policy->receive_connector_count, 1);
	assert_int_equal(policy->send_connector_count, 1);
	policy_destroy(&policy);
	assert_null(policy);
}

static void check_tls_defaults(const struct tls_settings *tls)
{
	assert_null(tls->certificate);
	assert_null(tls->trust_anchors);
	assert_string_equal(tls->tls_min, "TLSv1.2");
	assert_string_equal(tls->tls_max, "TLSv1.3");
	assert_string_equal(tls->ciphers, "ECDHE+AESGCM:ECDHE+CHACHA20");
	assert_string_equal(tls->ciphersuites,
		"TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256");
	assert_int_equal(tls->session_tickets, 1);
	assert_int_equal(tls->ktls, KTLS_AUTO);
	assert_int_equal(tls->crl_file_count + tls->spki_pin_count, 0);
	assert_int_equal(tls->revocation, REVOCATION_HARD);
}

/* EXCHANGE.md 2.5, the edge column. */
static void test_receive_defaults(void **state)
{
	struct policy *policy = NULL;
	const struct receive_connector *in = NULL;

	(void)state;
	assert_int_equal(load_text(SMALLEST, &policy), 0);
	in = &policy->receive_connectors[0];
	assert_string_equal(in->name, "in");
	assert_int_equal(in->line, 1);
	assert_int_equal(in->index, 0);
	assert_true(in->enabled);
	assert_int_equal(in->type, CONNECTOR_CUSTOM);
	assert_int_equal(in->permission_groups, PERMISSION_ANONYMOUS);
	assert_false(in->external_authoritative || in->domain_secure);
	assert_false(in->allow_unsecured_partners);
	assert_int_equal(in->remote_ip_range_count, 0);
	assert_int_equal(in->binding_count, 1);
	assert_string_equal(in->fqdn, policy->fqdn);
	assert_null(in->banner);
	assert_int_equal(in->tls, TLS_MODE_NONE);
	assert_false(in->require_tls);
	assert_int_equal(in->client_certificate, CLIENT_CERTIFICATE_NONE);
	assert_false(in->permanent_tls_refusals);
	check_tls_defaults(&in->tls_settings);
	assert_int_equal(in->deliver, DELIVER_PROXY);
	assert_ptr_equal(in->send_connector, &policy->send_connectors[0]);
	assert_int_equal(in->connection_inactivity_timeout_ms, 60 * 1000);
	assert_int_equal(in->connection_timeout_ms, 5 * 60 * 1000);
	assert_int_equal(in->max_inbound_connection, 5000);
	assert_int_equal(in->max_message_bytes, 37748736);
	assert_int_equal(in->max_header_bytes, 256 * 1024);
	assert_int_equal(in->max_recipients_per_message, 200);
	assert_int_equal(in->max_protocol_errors, 5);
	assert_int_equal(in->max_hop_count, 30);
	assert_int_equal(in->max_local_hop_count, 8);
	assert_int_equal(in->max_inbound_connection_per_source, 20);
	assert_int_equal(in->max_inbound_connection_percentage_per_source, 2);
	assert_int_equal(in->message_rate_limit, 600);
	assert_int_equal(in->message_rate_source, RATE_SOURCE_IP_ADDRESS);
	assert_int_equal(in->tarpit_interval_ms, 5000);
	assert_false(in->require_ehlo_domain || in->long_addresses);
	assert_false(in->reject_reserved_top_level_recipient_domains ||
		     in->reject_reserved_second_level_recipient_domains ||
		     in->reject_single_label_recipient_domains);
	assert_int_equal(in->protocol_logging, PROTOCOL_LOGGING_NONE);
	assert_null(in->tls_domain);
	assert_true(
		in->size == SIZE_ENABLED && in->pipelining && in->eight_bit_mime && in->smtputf8);
	assert_true(in->chunking && in->binary_mime && in->dsn && in->enhanced_status_codes);
	assert_int_equal(in->bare_newline, NEWLINE_REJECT);
	assert_int_equal(in->nul, NEWLINE_REJECT);
	policy_destroy(&policy);
}

/* EXCHANGE.md 3.2 and policy.h. */
static void test_send_defaults(void **state)
{
	struct policy *policy = NULL;
	const struct send_connector *out = NULL;
	char text[56];

	(void)state;
	assert_int_equal(load_text(SMALLEST, &policy), 0);
	out = &policy->send_connectors[0];
	assert_string_equal(out->name, "out");
	assert_int_equal(out->line, 2);
	assert_int_equal(out->index, 0);
	assert_int_equal(out->smart_host_count, 1);
	address_print(&out->smart_hosts[0], text, sizeof(text));
	assert_string_equal(text, "127.0.0.1:25");
	assert_string_equal(out->smart_host_names[0], "127.0.0.1");
	assert_string_equal(out->fqdn, policy->fqdn);
	assert_int_equal(out->source_address.len, 0);
	assert_true(out->enabled);
	assert_int_equal(out->address_space_count, 0);
	assert_int_equal(out->port, 25);
	assert_false(out->ignore_starttls || out->implicit_tls || out->force_helo);
	assert_false(out->domain_secure || out->allow_unsecured_partners);
	assert_false(out->frontend_proxy || out->trusted_next_hop);
	assert_int_equal(out->max_message_bytes, 37748736);
	assert_int_equal(out->protocol_logging, PROTOCOL_LOGGING_NONE);
	assert_int_equal(out->tls_auth_level, TLS_AUTH_OPPORTUNISTIC);
	assert_null(out->tls_domain);
	check_tls_defaults(&out->tls_settings);
	assert_int_equal(out->max_connections, 100);
	assert_int_equal(out->max_messages_per_connection, 20);
	assert_int_equal(out->connection_idle_ms, 30 * 1000);
	assert_int_equal(out->connection_age_ms, 5 * 60 * 1000);
	assert_int_equal(out->connection_inactivity_timeout_ms, 10 * 60 * 1000);
	assert_int_equal(out->connect_timeout_ms, 30 * 1000);
	assert_true(out->chunking);
	policy_destroy(&policy);
}

/*
 * Every keyword of before domain security set to something else than its default; the others are in
 * test_config_security.c.
 */
static void test_transport_and_receive_keywords(void **state)
{
	struct policy *policy = NULL;
	const struct receive_connector *in = NULL;
	char text[56];

	(void)state;
	assert_int_equal(
		load_text(
			"transport { fqdn = a.example workers = 3 max-sessions = 7 user = root\n"
			" io-uring-disable = {defer-taskrun, 'x'} drain-timeout = 0s\n"
			" log-level = debug }\n"
			"receive-connector in { bindings = {\"127.0.0.1:2525\", \"[::1]:2526\"}\n"
			" bindings += \"127.0.0.2:2525\" fqdn = b.example banner = \"220 hello\"\n"
			" tls = starttls require-tls = on client-certificate = ask\n"
			" permanent-tls-refusals = true certificate = c trust-anchors = good.pem\n"
			" tls-min = TLSv1.3 ciphers = A ciphersuites = B session-tickets = 0\n"
			" ktls = rx deliver = proxy send-connector = out\n"
			" connection-inactivity-timeout = 30s connection-timeout = \"00:01:00\"\n"
			" max-inbound-connection = unlimited max-message-size = 64KB\n"
			" max-header-size = 1024 max-recipients-per-message = 1\n"
			" max-protocol-errors = unlimited max-hop-count = 500 size = no\n"
			" pipelining = no eight-bit-mime = off smtputf8 = false chunking = no\n"
			" dsn = no enhanced-status-codes = no bare-newline = allow nul = allow }\n"
			"send-connector out { smart-hosts = \"[2001:db8::1]:26\" }\n"
			"certificate c { chain = good.pem key = good.key }\n",
			&policy),
		0);
	assert_string_equal(said, "");
	assert_string_equal(policy->fqdn, "a.example");
	assert_true(policy->workers == 3 && policy->max_sessions == 7);
	assert_string_equal(policy->user, "root");
	assert_int_equal(policy->io_uring_disable_count, 2);
	assert_string_equal(policy->io_uring_disable[0], "defer-taskrun");
	assert_int_equal(policy->drain_timeout_ms, 0);
	assert_true(policy->log_debug);
	in = &policy->receive_connectors[0];
	assert_int_equal(in->line, 4);
	assert_int_equal(in->binding_count, 3);
	address_print(&in->bindings[1], text, sizeof(text));
	assert_string_equal(text, "[::1]:2526");
	address_print(&in->bindings[2], text, sizeof(text));
	assert_string_equal(text, "127.0.0.2:2525");
	assert_string_equal(in->fqdn, "b.example");
	assert_string_equal(in->banner, "220 hello");
	assert_int_equal(in->tls, TLS_MODE_STARTTLS);
	assert_true(in->require_tls && in->permanent_tls_refusals);
	assert_int_equal(in->client_certificate, CLIENT_CERTIFICATE_ASK);
	assert_ptr_equal(in->tls_settings.certificate, &policy->certificates[0]);
	assert_string_equal(strrchr(in->tls_settings.trust_anchors, '/'), "/good.pem");
	assert_string_equal(in->tls_settings.tls_min, "TLSv1.3");
	assert_string_equal(in->tls_settings.ciphers, "A");
	assert_string_equal(in->tls_settings.ciphersuites, "B");
	assert_int_equal(in->tls_settings.session_tickets, 0);
	assert_int_equal(in->tls_settings.ktls, KTLS_RX);
	assert_int_equal(in->connection_inactivity_timeout_ms, 30000);
	assert_int_equal(in->connection_timeout_ms, 60000);
	assert_true(in->max_inbound_connection == POLICY_UNLIMITED);
	assert_int_equal(in->max_message_bytes, 65536);
	assert_int_equal(in->max_header_bytes, 1024);
	assert_int_equal(in->max_recipients_per_message, 1);
	assert_true(in->max_protocol_errors == POLICY_UNLIMITED);
	assert_int_equal(in->max_hop_count, 500);
	assert_false(
		in->size != SIZE_DISABLED || in->pipelining || in->eight_bit_mime || in->smtputf8);
	/* binary-mime was not set and follows chunking. */
	assert_false(in->chunking || in->binary_mime || in->dsn || in->enhanced_status_codes);
	assert_int_equal(in->bare_newline, NEWLINE_ALLOW);
	assert_int_equal(in->nul, NEWLINE_ALLOW);
	policy_destroy(&policy);
}

static void test_send_keywords(void **state)
{
	struct policy *policy = NULL;
	const struct send_connector *out = NULL;
	char text[56];

	(void)state;
	assert_int_equal(
		load_text(
			"send-connector first { smart-hosts = \"127.0.0.1:9\" ignore-starttls = "
			"yes }\n"
			"send-connector out {\n"
			" smart-hosts = {\"[192.0.2.1]\", \"192.0.2.2:587\", "
			"\"[2001:db8::1]:26\"}\n"
			" fqdn = c.example source-address = \"[::1]\" implicit-tls = yes\n"
			" tls-auth-level = domain-validation tls-domain = d.example\n"
			" certificate = c trust-anchors = good.pem tls-max = TLSv1.2 ktls = off\n"
			" max-connections = 1 max-messages-per-connection = unlimited\n"
			" connection-idle-timeout = 0s connection-max-age = 1h\n"
			" connection-inactivity-timeout = \"1.00:00:00\" connect-timeout = 500ms\n"
			" chunking = no session-tickets = 4 }\n"
			"receive-connector in { bindings = \"0.0.0.0:25\" send-connector = out }\n"
			"certificate c { chain = good.pem key = good.key }\n",
			&policy),
		0);
	out = &policy->send_connectors[1];
	assert_int_equal(out->index, 1);
	assert_int_equal(out->smart_host_count, 3);
	address_print(&out->smart_hosts[0], text, sizeof(text));
	assert_string_equal(text, "192.0.2.1:25");
	address_print(&out->smart_hosts[1], text, sizeof(text));
	assert_string_equal(text, "192.0.2.2:587");
	address_print(&out->smart_hosts[2], text, sizeof(text));
	assert_string_equal(text, "[2001:db8::1]:26");
	assert_string_equal(out->smart_host_names[1], "192.0.2.2:587");
	assert_string_equal(out->fqdn, "c.example");
	assert_int_equal(out->source_address.sockaddr.ss_family, AF_INET6);
	assert_true(out->implicit_tls);
	assert_int_equal(out->tls_auth_level, TLS_AUTH_DOMAIN_VALIDATION);
	assert_string_equal(out->tls_domain, "d.example");
	assert_string_equal(out->tls_settings.certificate->name, "c");
	assert_string_equal(out->tls_settings.tls_max, "TLSv1.2");
	assert_int_equal(out->tls_settings.session_tickets, 4);
	assert_int_equal(out->tls_settings.ktls, KTLS_OFF);
	assert_int_equal(out->max_connections, 1);
	assert_true(out->max_messages_per_connection == POLICY_UNLIMITED);
	assert_int_equal(out->connection_idle_ms, 0);
	assert_int_equal(out->connection_age_ms, 3600 * 1000);
	assert_int_equal(out->connection_inactivity_timeout_ms, 86400 * 1000);
	assert_int_equal(out->connect_timeout_ms, 500);
	assert_false(out->chunking);
	assert_true(policy->send_connectors[0].ignore_starttls);
	assert_ptr_equal(policy->receive_connectors[0].send_connector, out);
	policy_destroy(&policy);
}

static void test_open_key_warns(void **state)
{
	struct policy *policy = NULL;

	(void)state;
	assert_int_equal(load_text(SMALLEST "certificate c {\nchain = good.pem\nkey = open.key }\n",
				 &policy),
		0);
	assert_true(said_at(5, "warning: key "));
	assert_int_equal(said_lines(), 1);
	policy_destroy(&policy);
}

static void test_smart_host_names(void **state)
{
	struct policy *policy = NULL;
	const struct send_connector *out = NULL;
	struct addrinfo *found = NULL;

	(void)state;
	/* A root file system fresh from debootstrap has no /etc/hosts. */
	if (getaddrinfo("localhost", NULL, NULL, &found) != 0)
		skip();
	freeaddrinfo(found);
	assert_int_equal(load_text("send-connector out { smart-hosts = \"localhost:2600\" }\n"
				   "receive-connector in { bindings = \"127.0.0.1:1\"\n"
				   "send-connector = out }\n",
				 &policy),
		0);
	out = &policy->send_connectors[0];
	assert_true(out->smart_host_count >= 1);
	for (unsigned i = 0; i < out->smart_host_count; i++)
		assert_string_equal(out->smart_host_names[i], "localhost:2600");
	policy_destroy(&policy);
}

static void test_unreadable_file(void **state)
{
	struct policy *policy = NULL;
	static const char nul[] = "transport { }\0";
	FILE *out = NULL;

	(void)state;
	assert_int_equal(load_file("/nonexistent/postern.conf", &policy), -ENOENT);
	assert_non_null(strstr(said, "cannot be read (No such file"));
	assert_int_equal(load_file(folder, &policy), -EISDIR);
	out = fopen(file, "w");
	assert_non_null(out);
	assert_int_equal(fwrite(nul, 1, sizeof(nul), out), sizeof(nul));
	assert_int_equal(fclose(out), 0);
	assert_int_equal(load_file(file, &policy), -EINVAL);
	assert_true(said_at(1, "NUL"));
	assert_null(policy);
	/* One byte more than a mebibyte. */
	assert_int_equal(truncate(file, 1024 * 1024 + 1), 0);
	assert_int_equal(load_file(file, &policy), -EFBIG);
}

/* Makes the certificates that an example names, empty. */
static void put_certificates_of(const char *text)
{
	char name[64];

	while ((text = strstr(text, "\"certs/")) != NULL) {
		assert_int_equal(sscanf(text, "\"%63[^\"]", name), 1);
		put_file(name, "", 0600);
		text++;
	}
}

static char *read_file(const char *path)
{
	char *text = calloc(1, 8192);
	FILE *in = fopen(path, "r");

	assert_non_null(text);
	assert_non_null(in);
	assert_true(fread(text, 1, 8191, in) > 0);
	assert_int_equal(fclose(in), 0);
	return text;
}

/* An example has nothing doubtful in it. */
static void check_lint(const char *path, const struct policy *policy)
{
	char *found = NULL;
	size_t bytes = 0;
	unsigned count = 0;
	FILE *out = open_memstream(&found, &bytes);

	assert_non_null(out);
	lint_policy(policy, out, &count);
	assert_int_equal(fclose(out), 0);
	if (count > 0)
		fail_msg("%s: %s", path, found);
	free(found);
}

/* The folder of lists that an example names. */
static void put_lists(void)
{
	char path[512];

	(void)snprintf(path, sizeof(path), "%s/lists", folder);
	assert_int_equal(mkdir(path, 0700), 0);
	put_file("lists/fabrikam.list", "198.51.100.0/24\n!198.51.100.7\n", 0640);
	put_file("lists/treyresearch.list", "", 0640);
}

static void remove_lists(void)
{
	char path[512];

	(void)snprintf(path, sizeof(path), "%s/lists", folder);
	empty_folder(path);
}

/* Who may connect can be told. */
static void check_gate(const char *path, const struct policy *policy)
{
	struct gate *gate = NULL;

	if (gate_create(policy, NULL, stderr, &gate) != 0)
		fail_msg("%s: no gate", path);
	assert_in_range(gate_binding_count(gate), 1, 8);
	gate_destroy(&gate);
}

/* Every example loads without a word. Each beginning of one is refused or loads, but does no harm.
 */
static void test_examples(void **state)
{
	DIR *dir = opendir("policy/examples");
	unsigned count = 0;

	(void)state;
	if (dir == NULL) {
		skip(); /* run from the project's folder */
		return;
	}
	put_lists();
	for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
		struct policy *policy = NULL;
		char path[300];
		char *text = NULL;

		if (entry->d_name[0] == '.')
			continue;
		(void)snprintf(path, sizeof(path), "policy/examples/%s", entry->d_name);
		text = read_file(path);
		put_certificates_of(text);
		if (load_text(text, &policy) != 0 || said[0] != '\0')
			fail_msg("%s: %s", path, said);
		check_lint(path, policy);
		check_gate(path, policy);
		policy_destroy(&policy);
		for (size_t len = strlen(text); len > 0; len -= len > 7 ? 7 : len) {
			text[len] = '\0';
			if (load_text(text, &policy) == 0)
				policy_destroy(&policy);
			assert_null(policy);
		}
		assert_int_equal(load_text(SMALLEST, &policy), 0);
		policy_destroy(&policy);
		free(text);
		count++;
	}
	(void)closedir(dir);
	remove_lists();
	assert_true(count >= 7);
}

/* The sanitizer build counts leaks exactly; this sees growth in every build. */
static void test_nothing_is_left(void **state)
{
	struct policy *policy = NULL;
	size_t before = 0;

	(void)state;
	for (unsigned i = 0; i < 60; i++) {
		assert_int_equal(load_text(SMALLEST, &policy), 0);
		policy_destroy(&policy);
		assert_int_equal(load_text(SMALLEST "colour = red", &policy), -EINVAL);
		if (i == 9)
			before = mallinfo2().uordblks;
	}
	assert_true(mallinfo2().uordblks <= before + 1024);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_transport_defaults),
		cmocka_unit_test(test_receive_defaults),
		cmocka_unit_test(test_send_defaults),
		cmocka_unit_test(test_transport_and_receive_keywords),
		cmocka_unit_test(test_send_keywords),
		cmocka_unit_test(test_open_key_warns),
		cmocka_unit_test(test_smart_host_names),
		cmocka_unit_test(test_unreadable_file),
		cmocka_unit_test(test_examples),
		cmocka_unit_test(test_nothing_is_left),
	};

	return cmocka_run_group_tests_name("config", tests, fixture_setup, fixture_teardown);
}
