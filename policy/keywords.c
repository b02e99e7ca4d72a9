/* SPDX-License-Identifier: Apache-2.0 */

/*
 * keywords.c: every keyword once. tests/lint/keywords.sh compares these rows (name,
 * type, default) with the items of postern.conf.5, so a row and its item change together.
 */

#include "policy/config.h"
#include <string.h>

#define KEY(text, kind, otherwise) .name = (text), .type = (kind), .preset = (otherwise)
#define FIELD(type, member) .offset = offsetof(type, member), .bytes = sizeof(((type *)0)->member)
/* A field that is a pointer to a struct, or, for lists, to an array of them. */
#define POINTER(type, member) .offset = offsetof(type, member), .bytes = sizeof(void *)
#define LIST(type, member, number)                                 \
	.offset = offsetof(type, member), .bytes = sizeof(void *), \
	.count_offset = offsetof(type, number)
#define LIMITS(low, high) .min = (low), .max = (high)

#define KB ((uint64_t)1024)
#define MB ((uint64_t)1024 * 1024)
#define GB ((uint64_t)1024 * 1024 * 1024)
#define TB (1024 * GB)
#define SECOND ((uint64_t)1000)
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)

/* The largest number that Exchange takes for a count. */
#define COUNT_MAX ((uint64_t)INT32_MAX)

static const char *const tls_words[] = {
	[TLS_MODE_NONE] = "none",
	[TLS_MODE_STARTTLS] = "starttls",
	[TLS_MODE_IMPLICIT] = "implicit",
	NULL,
};
static const char *const client_certificate_words[] = {
	[CLIENT_CERTIFICATE_NONE] = "none",
	[CLIENT_CERTIFICATE_ASK] = "ask",
	[CLIENT_CERTIFICATE_REQUIRE] = "require",
	NULL,
};
static const char *const ktls_words[] = {
	[KTLS_OFF] = "off",
	[KTLS_TX] = "tx",
	[KTLS_RX] = "rx",
	[KTLS_ON] = "on",
	[KTLS_AUTO] = "auto",
	NULL,
};
static const char *const newline_words[] = {
	[NEWLINE_REJECT] = "reject",
	[NEWLINE_ALLOW] = "allow",
	NULL,
};
static const char *const deliver_words[] = {
	[DELIVER_PROXY] = "proxy",
	[DELIVER_QUEUE] = "queue",
	NULL,
};
static const char *const durability_words[] = {
	[DURABILITY_DURABLE] = "durable",
	[DURABILITY_RELAXED] = "relaxed",
	NULL,
};
static const char *const tls_auth_words[] = {
	[TLS_AUTH_NONE] = "none",
	[TLS_AUTH_OPPORTUNISTIC] = "opportunistic",
	[TLS_AUTH_ENCRYPTION_ONLY] = "encryption-only",
	[TLS_AUTH_CERTIFICATE_VALIDATION] = "certificate-validation",
	[TLS_AUTH_DOMAIN_VALIDATION] = "domain-validation",
	[TLS_AUTH_FINGERPRINT] = "fingerprint",
	NULL,
};
static const char *const size_words[] = {
	[SIZE_DISABLED] = "no",
	[SIZE_ENABLED] = "yes",
	[SIZE_WITHOUT_VALUE] = "without-value",
	NULL,
};
static const char *const type_words[] = {
	[CONNECTOR_CUSTOM] = "custom",
	[CONNECTOR_INTERNET] = "internet",
	[CONNECTOR_INTERNAL] = "internal",
	[CONNECTOR_PARTNER] = "partner",
	NULL,
};
/* In the order of the bits of enum permission. */
static const char *const permission_words[] = {"anonymous", "partners", "internal", NULL};
static const char *const revocation_words[] = {
	[REVOCATION_OFF] = "off",
	[REVOCATION_SOFT] = "soft",
	[REVOCATION_HARD] = "hard",
	[REVOCATION_STRICT] = "strict",
	NULL,
};
static const char *const rate_words[] = {
	[RATE_SOURCE_NONE] = "none",
	[RATE_SOURCE_IP_ADDRESS] = "ip-address",
	NULL,
};
static const char *const bpf_words[] = {
	[BPF_AUTO] = "auto",
	[BPF_REQUIRED] = "required",
	[BPF_OFF] = "off",
	NULL,
};
static const char *const identity_words[] = {
	[CLIENT_IDENTITY_NONE] = "none",
	[CLIENT_IDENTITY_PROXY_V1] = "proxy-v1",
	[CLIENT_IDENTITY_PROXY_V2] = "proxy-v2",
	[CLIENT_IDENTITY_XCLIENT] = "xclient",
	NULL,
};
static const char *const protocol_words[] = {
	[PROTOCOL_LOGGING_NONE] = "none",
	[PROTOCOL_LOGGING_VERBOSE] = "verbose",
	NULL,
};
static const char *const log_words[] = {[false] = "info", [true] = "debug", NULL};
static const char *const version_words[] = {"TLSv1.2", "TLSv1.3", NULL};

/* What the types of receive connectors set (EXCHANGE 2.2); the first is also .preset below. */
static const char *const template_permissions[] = {
	[CONNECTOR_CUSTOM] = "anonymous",
	[CONNECTOR_INTERNET] = "anonymous",
	[CONNECTOR_INTERNAL] = "internal",
	[CONNECTOR_PARTNER] = "partners",
};
static const char *const template_tls[] = {
	[CONNECTOR_CUSTOM] = "none",
	[CONNECTOR_INTERNET] = "starttls",
	[CONNECTOR_INTERNAL] = "starttls",
	[CONNECTOR_PARTNER] = "starttls",
};
static const char *const template_certificate[] = {
	[CONNECTOR_CUSTOM] = "none",
	[CONNECTOR_INTERNET] = "none",
	[CONNECTOR_INTERNAL] = "ask",
	[CONNECTOR_PARTNER] = "ask",
};
static const char *const template_secure[] = {
	[CONNECTOR_CUSTOM] = "no",
	[CONNECTOR_INTERNET] = "no",
	[CONNECTOR_INTERNAL] = "no",
	[CONNECTOR_PARTNER] = "yes",
};

static const struct keyword transport_rows[] = {
	{KEY("fqdn", TYPE_NAME, NULL), FIELD(struct policy, fqdn)},
	{KEY("workers", TYPE_COUNT, "0"), FIELD(struct policy, workers), LIMITS(0, 1024)},
	{KEY("max-sessions", TYPE_COUNT, "5000"), FIELD(struct policy, max_sessions),
		LIMITS(1, 15000)},
	{KEY("user", TYPE_TEXT, NULL), FIELD(struct policy, user), LIMITS(1, 32)},
	{KEY("io-uring-disable", TYPE_WORDS, NULL),
		LIST(struct policy, io_uring_disable, io_uring_disable_count)},
	{KEY("drain-timeout", TYPE_TIME, "30s"), FIELD(struct policy, drain_timeout_ms),
		LIMITS(0, HOUR)},
	{KEY("log-level", TYPE_WORD, "info"), FIELD(struct policy, log_debug), .words = log_words},
	{KEY("accepted-domains", TYPE_DOMAINS, NULL),
		LIST(struct policy, accepted_domains, accepted_domain_count), .wildcard = true},
	{KEY("certificate-store", TYPE_FOLDER, NULL), FIELD(struct policy, certificate_store)},
	{KEY("certificate-expiry-warning", TYPE_TIME, "30d"),
		FIELD(struct policy, certificate_expiry_warning_s), LIMITS(0, 365 * DAY),
		.unit = SECOND},
	{KEY("crl-cache", TYPE_FOLDER, NULL), FIELD(struct policy, crl_cache)},
	{KEY("crl-fetch-timeout", TYPE_TIME, "10s"), FIELD(struct policy, crl_fetch_timeout_ms),
		LIMITS(100, 5 * MINUTE)},
	{KEY("crl-refresh-interval", TYPE_TIME, "1h"),
		FIELD(struct policy, crl_refresh_interval_ms), LIMITS(SECOND, 7 * DAY)},
	{KEY("dns-servers", TYPE_SERVERS, NULL),
		LIST(struct policy, dns_servers, dns_server_count)},
	{KEY("bpf", TYPE_WORD, "auto"), FIELD(struct policy, bpf), .words = bpf_words},
	{KEY("bpf-pin-folder", TYPE_TEXT, "/sys/fs/bpf/postern"),
		FIELD(struct policy, bpf_pin_folder), LIMITS(1, 100)},
	{KEY("door", TYPE_TEXT, "sk_lookup"), FIELD(struct policy, door), LIMITS(1, 200)},
	{KEY("partner-lists", TYPE_FOLDER, NULL), FIELD(struct policy, partner_lists)},
	{KEY("control-socket", TYPE_TEXT, NULL), FIELD(struct policy, control_socket),
		LIMITS(1, 100)},
	{KEY("control-group", TYPE_TEXT, NULL), FIELD(struct policy, control_group), LIMITS(1, 32)},
	{KEY("protocol-log-folder", TYPE_FOLDER, NULL), FIELD(struct policy, protocol_log_folder),
		.may_be_made = true},
	{KEY("protocol-log-max-file-size", TYPE_SIZE, "10MB"),
		FIELD(struct policy, protocol_log_max_file_bytes), LIMITS(4 * KB, 2 * GB)},
	{KEY("protocol-log-max-directory-size", TYPE_SIZE, "250MB"),
		FIELD(struct policy, protocol_log_max_directory_bytes), LIMITS(4 * KB, TB)},
	{KEY("protocol-log-max-age", TYPE_TIME, "30d"),
		FIELD(struct policy, protocol_log_max_age_ms), LIMITS(HOUR, 3650 * DAY)},
	/* Times down to a second, so that tests need not wait. */
	{KEY("spool-folder", TYPE_FOLDER, NULL), FIELD(struct policy, queue.spool_folder),
		.may_be_made = true},
	{KEY("spool-segment-size", TYPE_SIZE, "64MB"),
		FIELD(struct policy, queue.spool_segment_bytes), LIMITS(4 * MB, GB)},
	{KEY("spool-max-size", TYPE_SIZE, "16GB"), FIELD(struct policy, queue.spool_max_bytes),
		LIMITS(16 * MB, 16 * TB)},
	{KEY("queue-max-messages", TYPE_COUNT, "100000"), FIELD(struct policy, queue.max_messages),
		LIMITS(1, 16 * MB)},
	{KEY("queue-glitch-retry-count", TYPE_COUNT, "4"),
		FIELD(struct policy, queue.glitch_retry_count), LIMITS(0, 15)},
	{KEY("queue-glitch-retry-interval", TYPE_TIME, "1m"),
		FIELD(struct policy, queue.glitch_retry_ms), LIMITS(SECOND, DAY)},
	{KEY("transient-failure-retry-count", TYPE_COUNT, "6"),
		FIELD(struct policy, queue.transient_retry_count), LIMITS(0, 15)},
	{KEY("transient-failure-retry-interval", TYPE_TIME, "10m"),
		FIELD(struct policy, queue.transient_retry_ms), LIMITS(SECOND, DAY)},
	{KEY("outbound-connection-failure-retry-interval", TYPE_TIME, "30m"),
		FIELD(struct policy, queue.steady_retry_ms), LIMITS(SECOND, 20 * DAY)},
	{KEY("message-retry-interval", TYPE_TIME, "15m"),
		FIELD(struct policy, queue.message_retry_ms), LIMITS(SECOND, DAY)},
	{KEY("delay-notification-timeout", TYPE_TIME, "4h"),
		FIELD(struct policy, queue.delay_notification_ms), LIMITS(0, 30 * DAY)},
	{KEY("message-expiration-timeout", TYPE_TIME, "2d"),
		FIELD(struct policy, queue.expiration_ms), LIMITS(5 * SECOND, 90 * DAY)},
	{KEY("max-idle-time-before-resubmit", TYPE_TIME, "12h"),
		FIELD(struct policy, queue.idle_before_resubmit_ms), LIMITS(SECOND, 30 * DAY)},
	{KEY("queue-max-idle-time", TYPE_TIME, "3m"), FIELD(struct policy, queue.queue_idle_ms),
		LIMITS(SECOND, HOUR)},
	{KEY("postmaster-address", TYPE_TEXT, NULL), FIELD(struct policy, queue.postmaster),
		LIMITS(3, 320)},
	{KEY("max-notice-original-size", TYPE_SIZE, "10MB"),
		FIELD(struct policy, queue.notice_original_bytes), LIMITS(0, 2 * GB)},
	{KEY("back-pressure-medium", TYPE_COUNT, "89"), FIELD(struct policy, queue.pressure_medium),
		LIMITS(1, 99)},
	{KEY("back-pressure-high", TYPE_COUNT, "99"), FIELD(struct policy, queue.pressure_high),
		LIMITS(1, 100)},
	{KEY("back-pressure-high-end", TYPE_COUNT, "90"),
		FIELD(struct policy, queue.pressure_high_end), LIMITS(1, 99)},
	{KEY("back-pressure-medium-end", TYPE_COUNT, "80"),
		FIELD(struct policy, queue.pressure_medium_end), LIMITS(0, 98)},
	{KEY("tracking-log-folder", TYPE_FOLDER, NULL),
		FIELD(struct policy, queue.tracking_log_folder), .may_be_made = true},
	{KEY("tracking-log-max-file-size", TYPE_SIZE, "10MB"),
		FIELD(struct policy, queue.tracking_log_max_file_bytes), LIMITS(4 * KB, 4 * GB)},
	{KEY("tracking-log-max-directory-size", TYPE_SIZE, "1000MB"),
		FIELD(struct policy, queue.tracking_log_max_directory_bytes), LIMITS(4 * KB, TB)},
	{KEY("tracking-log-max-age", TYPE_TIME, "30d"),
		FIELD(struct policy, queue.tracking_log_max_age_ms), LIMITS(HOUR, 3650 * DAY)},
	{KEY("tracking-log-subject", TYPE_BOOLEAN, "yes"),
		FIELD(struct policy, queue.tracking_log_subject)},
};

static const struct keyword certificate_rows[] = {
	{KEY("chain", TYPE_FILE, NULL), FIELD(struct certificate, chain), .required = true},
	{KEY("key", TYPE_FILE, NULL), FIELD(struct certificate, key), .required = true},
};

/* Defaults and limits of receive connectors: EXCHANGE.md 2.5, the edge column. */
static const struct keyword receive_rows[] = {
	/* The first, since others take their defaults from it. */
	{KEY("type", TYPE_WORD, "custom"), FIELD(struct receive_connector, type),
		.words = type_words},
	{KEY("enabled", TYPE_BOOLEAN, "yes"), FIELD(struct receive_connector, enabled)},
	{KEY("bindings", TYPE_BINDINGS, NULL), POINTER(struct receive_connector, bindings),
		.required = true},
	{KEY("remote-ip-ranges", TYPE_RANGES, NULL),
		LIST(struct receive_connector, remote_ip_ranges, remote_ip_range_count)},
	{KEY("remote-ip-partners", TYPE_WORDS, NULL),
		LIST(struct receive_connector, remote_ip_partners, remote_ip_partner_count)},
	{KEY("proxy-balancers", TYPE_RANGES, NULL),
		LIST(struct receive_connector, proxy_balancers, proxy_balancer_count)},
	{KEY("xclient-hosts", TYPE_RANGES, NULL),
		LIST(struct receive_connector, xclient_hosts, xclient_host_count)},
	{KEY("permission-groups", TYPE_SET, "anonymous"),
		FIELD(struct receive_connector, permission_groups), .words = permission_words,
		.templates = template_permissions},
	{KEY("external-authoritative", TYPE_BOOLEAN, "no"),
		FIELD(struct receive_connector, external_authoritative)},
	{KEY("domain-secure", TYPE_BOOLEAN, "no"), FIELD(struct receive_connector, domain_secure),
		.templates = template_secure},
	{KEY("allow-unsecured-partners", TYPE_BOOLEAN, "no"),
		FIELD(struct receive_connector, allow_unsecured_partners)},
	{KEY("fqdn", TYPE_NAME, NULL), FIELD(struct receive_connector, fqdn)},
	/* RFC 5321 4.5.3.1.5: a reply line has 512 bytes with its CR LF. */
	{KEY("banner", TYPE_TEXT, NULL), FIELD(struct receive_connector, banner), LIMITS(4, 510)},
	{KEY("tls", TYPE_WORD, "none"), FIELD(struct receive_connector, tls), .words = tls_words,
		.templates = template_tls},
	{KEY("require-tls", TYPE_BOOLEAN, "no"), FIELD(struct receive_connector, require_tls)},
	{KEY("client-certificate", TYPE_WORD, "none"),
		FIELD(struct receive_connector, client_certificate),
		.words = client_certificate_words, .templates = template_certificate},
	{KEY("tls-domain", TYPE_DOMAIN, NULL), FIELD(struct receive_connector, tls_domain),
		.wildcard = true},
	{KEY("permanent-tls-refusals", TYPE_BOOLEAN, "no"),
		FIELD(struct receive_connector, permanent_tls_refusals)},
	{KEY("deliver", TYPE_WORD, "proxy"), FIELD(struct receive_connector, deliver),
		.words = deliver_words},
	{KEY("durability", TYPE_WORD, "durable"), FIELD(struct receive_connector, durability),
		.words = durability_words},
	{KEY("cut-through", TYPE_BOOLEAN, "no"), FIELD(struct receive_connector, cut_through)},
	{KEY("send-connector", TYPE_CONNECTOR, NULL),
		POINTER(struct receive_connector, send_connector)},
	{KEY("connection-inactivity-timeout", TYPE_TIME, "1m"),
		FIELD(struct receive_connector, connection_inactivity_timeout_ms),
		LIMITS(SECOND, DAY)},
	{KEY("connection-timeout", TYPE_TIME, "5m"),
		FIELD(struct receive_connector, connection_timeout_ms), LIMITS(SECOND, DAY)},
	{KEY("max-inbound-connection", TYPE_COUNT, "5000"),
		FIELD(struct receive_connector, max_inbound_connection), LIMITS(1, COUNT_MAX),
		.unlimited = true},
	{KEY("max-message-size", TYPE_SIZE, "36MB"),
		FIELD(struct receive_connector, max_message_bytes), LIMITS(64 * KB, 2 * GB)},
	{KEY("max-header-size", TYPE_SIZE, "256KB"),
		FIELD(struct receive_connector, max_header_bytes), LIMITS(KB, 2 * GB)},
	{KEY("max-recipients-per-message", TYPE_COUNT, "200"),
		FIELD(struct receive_connector, max_recipients_per_message), LIMITS(1, 512000)},
	{KEY("max-protocol-errors", TYPE_COUNT, "5"),
		FIELD(struct receive_connector, max_protocol_errors), LIMITS(1, COUNT_MAX),
		.unlimited = true},
	{KEY("max-hop-count", TYPE_COUNT, "30"), FIELD(struct receive_connector, max_hop_count),
		LIMITS(1, 500)},
	{KEY("max-local-hop-count", TYPE_COUNT, "8"),
		FIELD(struct receive_connector, max_local_hop_count), LIMITS(0, 50)},
	{KEY("max-inbound-connection-per-source", TYPE_COUNT, "20"),
		FIELD(struct receive_connector, max_inbound_connection_per_source),
		LIMITS(1, COUNT_MAX), .unlimited = true},
	{KEY("max-inbound-connection-percentage-per-source", TYPE_COUNT, "2"),
		FIELD(struct receive_connector, max_inbound_connection_percentage_per_source),
		LIMITS(1, 100)},
	{KEY("connection-rate-limit", TYPE_COUNT, "unlimited"),
		FIELD(struct receive_connector, connection_rate_limit), LIMITS(1, 60000000),
		.unlimited = true},
	{KEY("message-rate-limit", TYPE_COUNT, "600"),
		FIELD(struct receive_connector, message_rate_limit), LIMITS(1, COUNT_MAX),
		.unlimited = true},
	{KEY("message-rate-source", TYPE_WORD, "ip-address"),
		FIELD(struct receive_connector, message_rate_source), .words = rate_words},
	{KEY("tarpit-interval", TYPE_TIME, "5s"),
		FIELD(struct receive_connector, tarpit_interval_ms), LIMITS(0, 10 * MINUTE)},
	{KEY("require-ehlo-domain", TYPE_BOOLEAN, "no"),
		FIELD(struct receive_connector, require_ehlo_domain)},
	{KEY("reject-reserved-top-level-recipient-domains", TYPE_BOOLEAN, "no"),
		FIELD(struct receive_connector, reject_reserved_top_level_recipient_domains)},
	{KEY("reject-reserved-second-level-recipient-domains", TYPE_BOOLEAN, "no"),
		FIELD(struct receive_connector, reject_reserved_second_level_recipient_domains)},
	{KEY("reject-single-label-recipient-domains", TYPE_BOOLEAN, "no"),
		FIELD(struct receive_connector, reject_single_label_recipient_domains)},
	{KEY("long-addresses", TYPE_BOOLEAN, "no"),
		FIELD(struct receive_connector, long_addresses)},
	{KEY("protocol-logging", TYPE_WORD, "none"),
		FIELD(struct receive_connector, protocol_logging), .words = protocol_words},
	{KEY("size", TYPE_WORD, "yes"), FIELD(struct receive_connector, size), .words = size_words},
	{KEY("pipelining", TYPE_BOOLEAN, "yes"), FIELD(struct receive_connector, pipelining)},
	{KEY("eight-bit-mime", TYPE_BOOLEAN, "yes"),
		FIELD(struct receive_connector, eight_bit_mime)},
	{KEY("smtputf8", TYPE_BOOLEAN, "yes"), FIELD(struct receive_connector, smtputf8)},
	{KEY("chunking", TYPE_BOOLEAN, "yes"), FIELD(struct receive_connector, chunking)},
	{KEY("binary-mime", TYPE_BOOLEAN, "yes"), FIELD(struct receive_connector, binary_mime)},
	{KEY("dsn", TYPE_BOOLEAN, "yes"), FIELD(struct receive_connector, dsn)},
	{KEY("enhanced-status-codes", TYPE_BOOLEAN, "yes"),
		FIELD(struct receive_connector, enhanced_status_codes)},
	{KEY("bare-newline", TYPE_WORD, "reject"), FIELD(struct receive_connector, bare_newline),
		.words = newline_words},
	{KEY("nul", TYPE_WORD, "reject"), FIELD(struct receive_connector, nul),
		.words = newline_words},
};

/* Defaults of send connectors: EXCHANGE.md 3.2 where it has them. */
static const struct keyword send_rows[] = {
	{KEY("enabled", TYPE_BOOLEAN, "yes"), FIELD(struct send_connector, enabled)},
	{KEY("address-spaces", TYPE_SPACES, NULL),
		LIST(struct send_connector, address_spaces, address_space_count)},
	{KEY("smart-hosts", TYPE_HOSTS, NULL), POINTER(struct send_connector, smart_hosts)},
	{KEY("port", TYPE_COUNT, "25"), FIELD(struct send_connector, port), LIMITS(1, 65535)},
	{KEY("fqdn", TYPE_NAME, NULL), FIELD(struct send_connector, fqdn)},
	{KEY("source-address", TYPE_ADDRESS, NULL), FIELD(struct send_connector, source_address)},
	{KEY("force-helo", TYPE_BOOLEAN, "no"), FIELD(struct send_connector, force_helo)},
	{KEY("ignore-starttls", TYPE_BOOLEAN, "no"), FIELD(struct send_connector, ignore_starttls)},
	{KEY("implicit-tls", TYPE_BOOLEAN, "no"), FIELD(struct send_connector, implicit_tls)},
	{KEY("tls-auth-level", TYPE_WORD, "opportunistic"),
		FIELD(struct send_connector, tls_auth_level), .words = tls_auth_words},
	{KEY("tls-domain", TYPE_DOMAIN, NULL), FIELD(struct send_connector, tls_domain),
		.wildcard = true},
	{KEY("domain-secure", TYPE_BOOLEAN, "no"), FIELD(struct send_connector, domain_secure)},
	{KEY("allow-unsecured-partners", TYPE_BOOLEAN, "no"),
		FIELD(struct send_connector, allow_unsecured_partners)},
	{KEY("frontend-proxy", TYPE_BOOLEAN, "no"), FIELD(struct send_connector, frontend_proxy)},
	{KEY("trusted-next-hop", TYPE_BOOLEAN, "no"),
		FIELD(struct send_connector, trusted_next_hop)},
	{KEY("client-identity", TYPE_WORD, "none"), FIELD(struct send_connector, client_identity),
		.words = identity_words},
	{KEY("max-message-size", TYPE_SIZE, "36MB"),
		FIELD(struct send_connector, max_message_bytes), LIMITS(64 * KB, 2 * GB)},
	{KEY("protocol-logging", TYPE_WORD, "none"), FIELD(struct send_connector, protocol_logging),
		.words = protocol_words},
	{KEY("max-connections", TYPE_COUNT, "100"), FIELD(struct send_connector, max_connections),
		LIMITS(1, 65535)},
	{KEY("max-messages-per-connection", TYPE_COUNT, "20"),
		FIELD(struct send_connector, max_messages_per_connection), LIMITS(1, COUNT_MAX),
		.unlimited = true},
	{KEY("connection-idle-timeout", TYPE_TIME, "30s"),
		FIELD(struct send_connector, connection_idle_ms), LIMITS(0, HOUR)},
	{KEY("connection-max-age", TYPE_TIME, "5m"),
		FIELD(struct send_connector, connection_age_ms), LIMITS(SECOND, DAY)},
	{KEY("connection-inactivity-timeout", TYPE_TIME, "10m"),
		FIELD(struct send_connector, connection_inactivity_timeout_ms),
		LIMITS(SECOND, DAY)},
	{KEY("connect-timeout", TYPE_TIME, "30s"), FIELD(struct send_connector, connect_timeout_ms),
		LIMITS(100, HOUR)},
	{KEY("chunking", TYPE_BOOLEAN, "yes"), FIELD(struct send_connector, chunking)},
	{KEY("max-deliveries", TYPE_COUNT, "20"), FIELD(struct send_connector, max_deliveries),
		LIMITS(1, 65535)},
};

static const struct keyword tls_rows[] = {
	{KEY("certificate", TYPE_CERTIFICATE, NULL), POINTER(struct tls_settings, certificate)},
	{KEY("trust-anchors", TYPE_FILE, NULL), FIELD(struct tls_settings, trust_anchors)},
	{KEY("tls-min", TYPE_VERSION, "TLSv1.2"), FIELD(struct tls_settings, tls_min),
		.words = version_words},
	{KEY("tls-max", TYPE_VERSION, "TLSv1.3"), FIELD(struct tls_settings, tls_max),
		.words = version_words},
	{KEY("ciphers", TYPE_TEXT, "ECDHE+AESGCM:ECDHE+CHACHA20"),
		FIELD(struct tls_settings, ciphers), LIMITS(1, 4096)},
	{KEY("ciphersuites", TYPE_TEXT,
		 "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256"),
		FIELD(struct tls_settings, ciphersuites), LIMITS(1, 4096)},
	{KEY("session-tickets", TYPE_COUNT, "1"), FIELD(struct tls_settings, session_tickets),
		LIMITS(0, 4)},
	{KEY("ktls", TYPE_WORD, "auto"), FIELD(struct tls_settings, ktls), .words = ktls_words},
	{KEY("crl-files", TYPE_FILES, NULL), LIST(struct tls_settings, crl_files, crl_file_count)},
	{KEY("revocation", TYPE_WORD, "hard"), FIELD(struct tls_settings, revocation),
		.words = revocation_words},
	{KEY("spki-pins", TYPE_PINS, NULL), LIST(struct tls_settings, spki_pins, spki_pin_count)},
};

static const struct keyword partner_rows[] = {
	{KEY("domains", TYPE_DOMAINS, NULL), LIST(struct partner, domains, domain_count),
		.required = true},
	{KEY("send-secure", TYPE_BOOLEAN, "yes"), FIELD(struct partner, send_secure)},
	{KEY("receive-secure", TYPE_BOOLEAN, "yes"), FIELD(struct partner, receive_secure)},
	{KEY("trust-anchors", TYPE_FILE, NULL), FIELD(struct partner, trust_anchors)},
	{KEY("certificate-names", TYPE_DOMAINS, NULL),
		LIST(struct partner, certificate_names, certificate_name_count), .wildcard = true},
	{KEY("host-names", TYPE_BOOLEAN, "no"), FIELD(struct partner, host_names)},
	{KEY("common-name", TYPE_BOOLEAN, "no"), FIELD(struct partner, common_name)},
	{KEY("spki-pins", TYPE_PINS, NULL), LIST(struct partner, spki_pins, spki_pin_count)},
	{KEY("crl-files", TYPE_FILES, NULL), LIST(struct partner, crl_files, crl_file_count)},
	{KEY("revocation", TYPE_WORD, "hard"), FIELD(struct partner, revocation),
		.words = revocation_words},
};

static const struct keyword internal_rows[] = {
	{KEY("spki-pins", TYPE_PINS, NULL), LIST(struct internal_server, spki_pins, spki_pin_count),
		.required = true},
};

const char *section_kind_name(enum section_kind kind)
{
	static const char *const names[SECTION_KIND_COUNT] = {
		[SECTION_TRANSPORT] = "transport",
		[SECTION_CERTIFICATE] = "certificate",
		[SECTION_RECEIVE] = "receive-connector",
		[SECTION_SEND] = "send-connector",
		[SECTION_PARTNER] = "partner",
		[SECTION_INTERNAL] = "internal-server",
	};

	ASSERT(kind < SECTION_KIND_COUNT);
	return names[kind];
}

struct keyword_set keywords_of(enum section_kind kind)
{
	static const struct keyword_set sets[SECTION_KIND_COUNT] = {
		[SECTION_TRANSPORT] = {transport_rows, COUNT_OF(transport_rows)},
		[SECTION_CERTIFICATE] = {certificate_rows, COUNT_OF(certificate_rows)},
		[SECTION_RECEIVE] = {receive_rows, COUNT_OF(receive_rows)},
		[SECTION_SEND] = {send_rows, COUNT_OF(send_rows)},
		[SECTION_PARTNER] = {partner_rows, COUNT_OF(partner_rows)},
		[SECTION_INTERNAL] = {internal_rows, COUNT_OF(internal_rows)},
	};

	ASSERT(kind < SECTION_KIND_COUNT);
	return sets[kind];
}

struct keyword_set keywords_of_tls(void)
{
	return (struct keyword_set){tls_rows, COUNT_OF(tls_rows)};
}

size_t keywords_tls_offset(enum section_kind kind)
{
	if (kind == SECTION_RECEIVE)
		return offsetof(struct receive_connector, tls_settings);
	if (kind == SECTION_SEND)
		return offsetof(struct send_connector, tls_settings);
	return 0;
}

static const struct keyword *keyword_find_in(struct keyword_set set, const char *name)
{
	for (unsigned i = 0; i < set.count; i++)
		if (strcmp(set.rows[i].name, name) == 0)
			return &set.rows[i];
	return NULL;
}

const struct keyword *keyword_find(enum section_kind kind, const char *name)
{
	const struct keyword *found = NULL;

	if (kind == SECTION_NONE)
		return NULL;
	found = keyword_find_in(keywords_of(kind), name);
	if (found == NULL && keywords_tls_offset(kind) != 0)
		found = keyword_find_in(keywords_of_tls(), name);
	return found;
}
