/* SPDX-License-Identifier: Apache-2.0 */

/*
 * show.c: the settings in force. Most rows name a keyword, whose type in keywords.c says how
 * its field is printed; a few properties of Exchange are made of several of our fields.
 */

#include "policy/config.h"
#include "policy/lint.h"
#include <inttypes.h>
#include <string.h>

/* The width of "RejectReservedSecondLevelRecipientDomains", the longest property. */
#define PROPERTY_WIDTH 41

struct show_row {
	const char *property; /* Exchange's name, or our keyword in its manner */
	const char *keyword;  /* NULL: print */
	void (*print)(const void *object, FILE *out);
	const char *const *words; /* of a TYPE_WORD, where Exchange writes others */
};

static const char *const logging_words[] = {
	[PROTOCOL_LOGGING_NONE] = "None",
	[PROTOCOL_LOGGING_VERBOSE] = "Verbose",
};
static const char *const rate_words[] = {
	[RATE_SOURCE_NONE] = "None",
	[RATE_SOURCE_IP_ADDRESS] = "IPAddress",
};
static const char *const size_words[] = {
	[SIZE_DISABLED] = "Disabled",
	[SIZE_ENABLED] = "Enabled",
	[SIZE_WITHOUT_VALUE] = "EnabledWithoutValue",
};
static const char *const type_words[] = {
	[CONNECTOR_CUSTOM] = "Custom",
	[CONNECTOR_INTERNET] = "Internet",
	[CONNECTOR_INTERNAL] = "Internal",
	[CONNECTOR_PARTNER] = "Partner",
};

/* What separates an element from the one before it, and opens the list. */
static const char *list_mark(unsigned index)
{
	return index == 0 ? "" : ", ";
}

/* 37748736 as "37,748,736". */
static void print_grouped(uint64_t number, FILE *out)
{
	char text[32];
	const size_t len = (size_t)snprintf(text, sizeof(text), "%" PRIu64, number);

	for (size_t i = 0; i < len; i++) {
		if (i > 0 && (len - i) % 3 == 0)
			(void)fputc(',', out);
		(void)fputc(text[i], out);
	}
}

/* "36 MB (37,748,736 bytes)", with the largest unit that divides it. */
static void print_size(uint64_t bytes, FILE *out)
{
	static const char *const units[] = {"B", "KB", "MB", "GB"};
	uint64_t count = bytes;
	unsigned unit = 0;

	while (count > 0 && count % 1024 == 0 && unit + 1 < COUNT_OF(units)) {
		count /= 1024;
		unit++;
	}
	(void)fprintf(out, "%" PRIu64 " %s (", count, units[unit]);
	print_grouped(bytes, out);
	(void)fputs(" bytes)", out);
}

/* "[dd.]hh:mm:ss[.fff]" */
static void print_time(uint64_t ms, FILE *out)
{
	const uint64_t s = ms / 1000;

	if (s >= 86400)
		(void)fprintf(out, "%" PRIu64 ".", s / 86400);
	(void)fprintf(out, "%02u:%02u:%02u", (unsigned)(s / 3600 % 24), (unsigned)(s / 60 % 60),
		(unsigned)(s % 60));
	if (ms % 1000 != 0)
		(void)fprintf(out, ".%03u", (unsigned)(ms % 1000));
}

static uint64_t field_number(const struct keyword *keyword, const char *field)
{
	uint64_t number = 0;
	unsigned narrow = 0;
	bool flag = false;

	if (keyword->bytes == sizeof(number)) {
		memcpy(&number, field, sizeof(number));
		return number;
	}
	if (keyword->bytes == sizeof(narrow)) {
		memcpy(&narrow, field, sizeof(narrow));
		return narrow;
	}
	memcpy(&flag, field, sizeof(flag));
	return flag;
}

static void print_number(
	const struct show_row *row, const struct keyword *keyword, const char *field, FILE *out)
{
	const uint64_t number = field_number(keyword, field);
	const char *const *words = row->words != NULL ? row->words : keyword->words;

	if (keyword->unlimited && number == POLICY_UNLIMITED)
		(void)fputs("Unlimited", out);
	else if (keyword->type == TYPE_BOOLEAN)
		(void)fputs(number != 0 ? "True" : "False", out);
	else if (keyword->type == TYPE_WORD)
		(void)fputs(words[number], out);
	else if (keyword->type == TYPE_SIZE)
		print_size(number, out);
	else if (keyword->type == TYPE_TIME)
		print_time(keyword->unit == 0 ? number : number * keyword->unit, out);
	else
		(void)fprintf(out, "%" PRIu64, number);
}

static void print_space(const struct address_space *space, FILE *out)
{
	const char *text = space->is_any ? "*" : (space->is_accepted ? "--" : space->domain);

	(void)fprintf(out, "SMTP:%s%s;%u", space->with_subdomains ? "*." : "", text, space->cost);
}

/* An element of a list, by its type. */
static void print_element(enum keyword_type type, const char *array, unsigned index, FILE *out)
{
	const void *at = array;
	char text[IP_RANGE_TEXT_BYTES];

	if (type == TYPE_RANGES) {
		(void)fputs(ip_range_print((const struct ip_range *)at + index, text), out);
	} else if (type == TYPE_SPACES) {
		print_space((const struct address_space *)at + index, out);
	} else if (type == TYPE_PINS) {
		const struct pin *pin = (const struct pin *)at + index;

		for (unsigned i = 0; i < PIN_BYTES; i++)
			(void)fprintf(out, "%02x", pin->bytes[i]);
	} else {
		(void)fputs(((const char *const *)at)[index], out);
	}
}

static void print_list(
	const struct keyword *keyword, const char *object, const char *field, FILE *out)
{
	const char *array = NULL;
	unsigned count = 0;

	memcpy(&array, field, sizeof(array));
	memcpy(&count, object + keyword->count_offset, sizeof(count));
	(void)fputc('{', out);
	for (unsigned i = 0; i < count; i++) {
		(void)fputs(list_mark(i), out);
		print_element(keyword->type, array, i, out);
	}
	(void)fputc('}', out);
}

/* The field of keyword in object, of a section of that kind or of its struct tls_settings. */
static void print_field(
	enum section_kind kind, const struct show_row *row, const char *object, FILE *out)
{
	const struct keyword_set set = keywords_of(kind);
	const struct keyword *keyword = keyword_find(kind, row->keyword);
	const char *field = NULL;
	const char *text = NULL;

	ASSERT(keyword != NULL);
	if (keyword < set.rows || keyword >= set.rows + set.count)
		object += keywords_tls_offset(kind);
	field = object + keyword->offset;
	if (keyword->count_offset != 0) {
		print_list(keyword, object, field, out);
	} else if (keyword->type <= TYPE_TIME && keyword->type != TYPE_VERSION) {
		print_number(row, keyword, field, out);
	} else {
		memcpy(&text, field, sizeof(text));
		(void)fputs(text == NULL ? "" : text, out);
	}
}

static void print_auth_mechanism(const void *object, FILE *out)
{
	const struct receive_connector *connector = object;

	if (connector->tls != TLS_MODE_NONE)
		(void)fputs(
			connector->external_authoritative ? "Tls, ExternalAuthoritative" : "Tls",
			out);
	else
		(void)fputs(
			connector->external_authoritative ? "ExternalAuthoritative" : "None", out);
}

static void print_bare_newline(const void *object, FILE *out)
{
	const struct receive_connector *connector = object;

	(void)fputs(connector->bare_newline == NEWLINE_REJECT ? "True" : "False", out);
}

static void print_bindings(const void *object, FILE *out)
{
	const struct receive_connector *connector = object;
	char text[56];

	(void)fputc('{', out);
	for (unsigned i = 0; i < connector->binding_count; i++) {
		address_print(&connector->bindings[i], text, sizeof(text));
		(void)fprintf(out, "%s%s", list_mark(i), text);
	}
	(void)fputc('}', out);
}

static void print_permission_groups(const void *object, FILE *out)
{
	static const char *const groups[] = {"AnonymousUsers", "Partners", "ExchangeServers"};
	const struct receive_connector *connector = object;
	unsigned count = 0;

	for (unsigned i = 0; i < COUNT_OF(groups); i++)
		if ((connector->permission_groups & BIT(i)) != 0)
			(void)fprintf(out, "%s%s", list_mark(count++), groups[i]);
}

static void print_remote_ip_ranges(const void *object, FILE *out)
{
	const struct receive_connector *connector = object;
	char text[IP_RANGE_TEXT_BYTES];

	if (connector->remote_ip_range_count == 0 && connector->remote_ip_partner_count == 0) {
		(void)fputs("{::/0, 0.0.0.0/0}", out);
		return;
	}
	(void)fputc('{', out);
	for (unsigned i = 0; i < connector->remote_ip_range_count; i++)
		(void)fprintf(out, "%s%s", list_mark(i),
			ip_range_print(&connector->remote_ip_ranges[i], text));
	(void)fputc('}', out);
}

static void print_receive_send_connector(const void *object, FILE *out)
{
	const struct receive_connector *connector = object;

	if (connector->send_connector != NULL)
		(void)fputs(connector->send_connector->name, out);
}

static void print_certificate_of(const struct tls_settings *tls, FILE *out)
{
	if (tls->certificate != NULL)
		(void)fputs(tls->certificate->name, out);
}

static void print_receive_certificate(const void *object, FILE *out)
{
	print_certificate_of(&((const struct receive_connector *)object)->tls_settings, out);
}

static void print_send_certificate(const void *object, FILE *out)
{
	print_certificate_of(&((const struct send_connector *)object)->tls_settings, out);
}

static void print_dns_routing(const void *object, FILE *out)
{
	const struct send_connector *connector = object;

	(void)fputs(connector->smart_host_count == 0 ? "True" : "False", out);
}

static void print_ignore_starttls(const void *object, FILE *out)
{
	const struct send_connector *connector = object;

	(void)fputs(connector->ignore_starttls || connector->tls_auth_level == TLS_AUTH_NONE
			    ? "True"
			    : "False",
		out);
}

static void print_send_require_tls(const void *object, FILE *out)
{
	const struct send_connector *connector = object;

	(void)fputs(connector->tls_auth_level > TLS_AUTH_OPPORTUNISTIC ? "True" : "False", out);
}

static void print_smart_hosts(const void *object, FILE *out)
{
	const struct send_connector *connector = object;
	unsigned count = 0;

	(void)fputc('{', out);
	for (unsigned i = 0; i < connector->smart_host_count; i++) {
		/* A name stands there once for each of its addresses. */
		if (i > 0 && connector->smart_host_names[i] == connector->smart_host_names[i - 1])
			continue;
		(void)fprintf(out, "%s%s", list_mark(count++), connector->smart_host_names[i]);
	}
	(void)fputc('}', out);
}

static void print_source_address(const void *object, FILE *out)
{
	const struct send_connector *connector = object;
	struct ip ip = {0};
	char text[ADDRESS_TEXT_BYTES];

	if (connector->source_address.len > 0)
		(void)ip_of_sockaddr(
			(const struct sockaddr *)&connector->source_address.sockaddr, &ip);
	(void)fputs(ip_print(&ip, text, sizeof(text)), out);
}

/* Exchange has no word for what is the default, nor for none. */
static void print_tls_auth_level(const void *object, FILE *out)
{
	static const char *const words[] = {
		[TLS_AUTH_NONE] = "",
		[TLS_AUTH_OPPORTUNISTIC] = "",
		[TLS_AUTH_ENCRYPTION_ONLY] = "EncryptionOnly",
		[TLS_AUTH_CERTIFICATE_VALIDATION] = "CertificateValidation",
		[TLS_AUTH_DOMAIN_VALIDATION] = "DomainValidation",
		[TLS_AUTH_FINGERPRINT] = "Fingerprint",
	};

	(void)fputs(words[((const struct send_connector *)object)->tls_auth_level], out);
}

static void print_secure_list(const struct policy *policy, bool for_sending, FILE *out)
{
	unsigned count = 0;

	(void)fputc('{', out);
	for (unsigned p = 0; p < policy->partner_count; p++) {
		const struct partner *partner = &policy->partners[p];

		if (!(for_sending ? partner->send_secure : partner->receive_secure))
			continue;
		for (unsigned i = 0; i < partner->domain_count; i++)
			(void)fprintf(out, "%s%s", list_mark(count++), partner->domains[i]);
	}
	(void)fputc('}', out);
}

static void print_receive_list(const void *object, FILE *out)
{
	print_secure_list(object, false, out);
}

static void print_send_list(const void *object, FILE *out)
{
	print_secure_list(object, true, out);
}

static const struct show_row transport_rows[] = {
	{"Fqdn", "fqdn", NULL, NULL},
	{"TLSReceiveDomainSecureList", NULL, print_receive_list, NULL},
	{"TLSSendDomainSecureList", NULL, print_send_list, NULL},
	{"AcceptedDomains", "accepted-domains", NULL, NULL},
	{"ExternalDNSServers", "dns-servers", NULL, NULL},
	{"ProtocolLogPath", "protocol-log-folder", NULL, NULL},
	{"ProtocolLogMaxAge", "protocol-log-max-age", NULL, NULL},
	{"ProtocolLogMaxDirectorySize", "protocol-log-max-directory-size", NULL, NULL},
	{"ProtocolLogMaxFileSize", "protocol-log-max-file-size", NULL, NULL},
	{"QueueGlitchRetryCount", "queue-glitch-retry-count", NULL, NULL},
	{"QueueGlitchRetryInterval", "queue-glitch-retry-interval", NULL, NULL},
	{"TransientFailureRetryCount", "transient-failure-retry-count", NULL, NULL},
	{"TransientFailureRetryInterval", "transient-failure-retry-interval", NULL, NULL},
	{"OutboundConnectionFailureRetryInterval", "outbound-connection-failure-retry-interval",
		NULL, NULL},
	{"MessageRetryInterval", "message-retry-interval", NULL, NULL},
	{"DelayNotificationTimeout", "delay-notification-timeout", NULL, NULL},
	{"MessageExpirationTimeout", "message-expiration-timeout", NULL, NULL},
	{"MaxIdleTimeBeforeResubmit", "max-idle-time-before-resubmit", NULL, NULL},
	{"QueueMaxIdleTime", "queue-max-idle-time", NULL, NULL},
	{"QueueMaxMessages", "queue-max-messages", NULL, NULL},
	{"ExternalPostmasterAddress", "postmaster-address", NULL, NULL},
	{"ExternalDsnMaxMessageAttachSize", "max-notice-original-size", NULL, NULL},
	{"MessageTrackingLogPath", "tracking-log-folder", NULL, NULL},
	{"MessageTrackingLogMaxAge", "tracking-log-max-age", NULL, NULL},
	{"MessageTrackingLogMaxDirectorySize", "tracking-log-max-directory-size", NULL, NULL},
	{"MessageTrackingLogMaxFileSize", "tracking-log-max-file-size", NULL, NULL},
	{"MessageTrackingLogSubjectLoggingEnabled", "tracking-log-subject", NULL, NULL},
	{"BackPressureMedium", "back-pressure-medium", NULL, NULL},
	{"BackPressureHigh", "back-pressure-high", NULL, NULL},
	{"BackPressureHighEnd", "back-pressure-high-end", NULL, NULL},
	{"BackPressureMediumEnd", "back-pressure-medium-end", NULL, NULL},
	{"Bpf", "bpf", NULL, NULL},
	{"BpfPinFolder", "bpf-pin-folder", NULL, NULL},
	{"CertificateStore", "certificate-store", NULL, NULL},
	{"CertificateExpiryWarning", "certificate-expiry-warning", NULL, NULL},
	{"ControlGroup", "control-group", NULL, NULL},
	{"ControlSocket", "control-socket", NULL, NULL},
	{"CrlCache", "crl-cache", NULL, NULL},
	{"CrlFetchTimeout", "crl-fetch-timeout", NULL, NULL},
	{"CrlRefreshInterval", "crl-refresh-interval", NULL, NULL},
	{"Door", "door", NULL, NULL},
	{"DrainTimeout", "drain-timeout", NULL, NULL},
	{"MaxSessions", "max-sessions", NULL, NULL},
	{"PartnerLists", "partner-lists", NULL, NULL},
	{"SpoolFolder", "spool-folder", NULL, NULL},
	{"SpoolMaxSize", "spool-max-size", NULL, NULL},
	{"SpoolSegmentSize", "spool-segment-size", NULL, NULL},
	{"Workers", "workers", NULL, NULL},
};

/* The order of EXCHANGE 2.5, then what is ours. */
static const struct show_row receive_rows[] = {
	{"AuthMechanism", NULL, print_auth_mechanism, NULL},
	{"Banner", "banner", NULL, NULL},
	{"BareLinefeedRejectionEnabled", NULL, print_bare_newline, NULL},
	{"BinaryMimeEnabled", "binary-mime", NULL, NULL},
	{"Bindings", NULL, print_bindings, NULL},
	{"ChunkingEnabled", "chunking", NULL, NULL},
	{"ConnectionInactivityTimeout", "connection-inactivity-timeout", NULL, NULL},
	{"ConnectionTimeout", "connection-timeout", NULL, NULL},
	{"DeliveryStatusNotificationEnabled", "dsn", NULL, NULL},
	{"DomainSecureEnabled", "domain-secure", NULL, NULL},
	{"EightBitMimeEnabled", "eight-bit-mime", NULL, NULL},
	{"EnhancedStatusCodesEnabled", "enhanced-status-codes", NULL, NULL},
	{"Enabled", "enabled", NULL, NULL},
	{"Fqdn", "fqdn", NULL, NULL},
	{"LongAddressesEnabled", "long-addresses", NULL, NULL},
	{"MaxHeaderSize", "max-header-size", NULL, NULL},
	{"MaxHopCount", "max-hop-count", NULL, NULL},
	{"MaxInboundConnection", "max-inbound-connection", NULL, NULL},
	{"MaxInboundConnectionPerSource", "max-inbound-connection-per-source", NULL, NULL},
	{"MaxInboundConnectionPercentagePerSource", "max-inbound-connection-percentage-per-source",
		NULL, NULL},
	{"MaxLocalHopCount", "max-local-hop-count", NULL, NULL},
	{"MaxMessageSize", "max-message-size", NULL, NULL},
	{"MaxProtocolErrors", "max-protocol-errors", NULL, NULL},
	{"MaxRecipientsPerMessage", "max-recipients-per-message", NULL, NULL},
	{"MessageRateLimit", "message-rate-limit", NULL, NULL},
	{"MessageRateSource", "message-rate-source", NULL, rate_words},
	{"PermissionGroups", NULL, print_permission_groups, NULL},
	{"PipeliningEnabled", "pipelining", NULL, NULL},
	{"ProtocolLoggingLevel", "protocol-logging", NULL, logging_words},
	{"RejectReservedSecondLevelRecipientDomains",
		"reject-reserved-second-level-recipient-domains", NULL, NULL},
	{"RejectReservedTopLevelRecipientDomains", "reject-reserved-top-level-recipient-domains",
		NULL, NULL},
	{"RejectSingleLabelRecipientDomains", "reject-single-label-recipient-domains", NULL, NULL},
	{"RemoteIPRanges", NULL, print_remote_ip_ranges, NULL},
	{"RequireEHLODomain", "require-ehlo-domain", NULL, NULL},
	{"RequireTLS", "require-tls", NULL, NULL},
	{"SizeEnabled", "size", NULL, size_words},
	{"SmtpUtf8Enabled", "smtputf8", NULL, NULL},
	{"TarpitInterval", "tarpit-interval", NULL, NULL},
	{"TlsCertificateName", NULL, print_receive_certificate, NULL},
	{"Usage", "type", NULL, type_words},
	{"AllowUnsecuredPartners", "allow-unsecured-partners", NULL, NULL},
	{"ClientCertificate", "client-certificate", NULL, NULL},
	{"ConnectionRateLimit", "connection-rate-limit", NULL, NULL},
	{"CrlFiles", "crl-files", NULL, NULL},
	{"CutThrough", "cut-through", NULL, NULL},
	{"Deliver", "deliver", NULL, NULL},
	{"Durability", "durability", NULL, NULL},
	{"Nul", "nul", NULL, NULL},
	{"PermanentTlsRefusals", "permanent-tls-refusals", NULL, NULL},
	{"ProxyBalancers", "proxy-balancers", NULL, NULL},
	{"RemoteIPPartners", "remote-ip-partners", NULL, NULL},
	{"Revocation", "revocation", NULL, NULL},
	{"SendConnector", NULL, print_receive_send_connector, NULL},
	{"SpkiPins", "spki-pins", NULL, NULL},
	{"Tls", "tls", NULL, NULL},
	{"TlsDomain", "tls-domain", NULL, NULL},
	{"TlsMin", "tls-min", NULL, NULL},
	{"TlsMax", "tls-max", NULL, NULL},
	{"TrustAnchors", "trust-anchors", NULL, NULL},
	{"XclientHosts", "xclient-hosts", NULL, NULL},
};

/* The order of EXCHANGE 3.2, then what is ours. */
static const struct show_row send_rows[] = {
	{"AddressSpaces", "address-spaces", NULL, NULL},
	{"ConnectionInactivityTimeOut", "connection-inactivity-timeout", NULL, NULL},
	{"DNSRoutingEnabled", NULL, print_dns_routing, NULL},
	{"DomainSecureEnabled", "domain-secure", NULL, NULL},
	{"Enabled", "enabled", NULL, NULL},
	{"ForceHELO", "force-helo", NULL, NULL},
	{"Fqdn", "fqdn", NULL, NULL},
	{"FrontendProxyEnabled", "frontend-proxy", NULL, NULL},
	{"IgnoreSTARTTLS", NULL, print_ignore_starttls, NULL},
	{"MaxMessageSize", "max-message-size", NULL, NULL},
	{"Port", "port", NULL, NULL},
	{"ProtocolLoggingLevel", "protocol-logging", NULL, logging_words},
	{"RequireTLS", NULL, print_send_require_tls, NULL},
	{"SmartHosts", NULL, print_smart_hosts, NULL},
	{"SmtpMaxMessagesPerConnection", "max-messages-per-connection", NULL, NULL},
	{"SourceIPAddress", NULL, print_source_address, NULL},
	{"TlsAuthLevel", NULL, print_tls_auth_level, NULL},
	{"TlsCertificateName", NULL, print_send_certificate, NULL},
	{"TlsDomain", "tls-domain", NULL, NULL},
	{"AllowUnsecuredPartners", "allow-unsecured-partners", NULL, NULL},
	{"ClientIdentity", "client-identity", NULL, NULL},
	{"ConnectTimeout", "connect-timeout", NULL, NULL},
	{"ConnectionIdleTimeout", "connection-idle-timeout", NULL, NULL},
	{"ConnectionMaxAge", "connection-max-age", NULL, NULL},
	{"CrlFiles", "crl-files", NULL, NULL},
	{"ImplicitTls", "implicit-tls", NULL, NULL},
	{"MaxConnections", "max-connections", NULL, NULL},
	{"MaxDeliveries", "max-deliveries", NULL, NULL},
	{"Revocation", "revocation", NULL, NULL},
	{"SpkiPins", "spki-pins", NULL, NULL},
	{"TlsMin", "tls-min", NULL, NULL},
	{"TlsMax", "tls-max", NULL, NULL},
	{"TrustAnchors", "trust-anchors", NULL, NULL},
	{"TrustedNextHop", "trusted-next-hop", NULL, NULL},
};

static const struct show_row partner_rows[] = {
	{"Domains", "domains", NULL, NULL},
	{"SendSecure", "send-secure", NULL, NULL},
	{"ReceiveSecure", "receive-secure", NULL, NULL},
	{"TrustAnchors", "trust-anchors", NULL, NULL},
	{"CertificateNames", "certificate-names", NULL, NULL},
	{"HostNames", "host-names", NULL, NULL},
	{"CommonName", "common-name", NULL, NULL},
	{"SpkiPins", "spki-pins", NULL, NULL},
	{"CrlFiles", "crl-files", NULL, NULL},
	{"Revocation", "revocation", NULL, NULL},
};

static const struct show_row internal_rows[] = {
	{"SpkiPins", "spki-pins", NULL, NULL},
};

static const struct show_row certificate_rows[] = {
	{"Chain", "chain", NULL, NULL},
	{"Key", "key", NULL, NULL},
};

/* One object: its title, its name if it has one, its rows. */
static void print_rows(enum section_kind kind, const char *title, const char *name,
	const struct show_row *rows, unsigned count, const void *object, FILE *out)
{
	(void)fprintf(out, "%s[%s]\n", kind == SECTION_TRANSPORT ? "" : "\n", title);
	if (name != NULL)
		(void)fprintf(out, "%-*s : %s\n", PROPERTY_WIDTH, "Name", name);
	for (unsigned i = 0; i < count; i++) {
		(void)fprintf(out, "%-*s : ", PROPERTY_WIDTH, rows[i].property);
		if (rows[i].keyword == NULL)
			rows[i].print(object, out);
		else
			print_field(kind, &rows[i], object, out);
		(void)fputc('\n', out);
	}
}

void policy_show(const struct policy *policy, FILE *out)
{
	print_rows(SECTION_TRANSPORT, "Transport", NULL, transport_rows, COUNT_OF(transport_rows),
		policy, out);
	for (unsigned i = 0; i < policy->receive_connector_count; i++)
		print_rows(SECTION_RECEIVE, "ReceiveConnector", policy->receive_connectors[i].name,
			receive_rows, COUNT_OF(receive_rows), &policy->receive_connectors[i], out);
	for (unsigned i = 0; i < policy->send_connector_count; i++)
		print_rows(SECTION_SEND, "SendConnector", policy->send_connectors[i].name,
			send_rows, COUNT_OF(send_rows), &policy->send_connectors[i], out);
	for (unsigned i = 0; i < policy->partner_count; i++)
		print_rows(SECTION_PARTNER, "Partner", policy->partners[i].name, partner_rows,
			COUNT_OF(partner_rows), &policy->partners[i], out);
	for (unsigned i = 0; i < policy->internal_server_count; i++)
		print_rows(SECTION_INTERNAL, "InternalServer", policy->internal_servers[i].name,
			internal_rows, COUNT_OF(internal_rows), &policy->internal_servers[i], out);
	for (unsigned i = 0; i < policy->certificate_count; i++)
		print_rows(SECTION_CERTIFICATE, "Certificate", policy->certificates[i].name,
			certificate_rows, COUNT_OF(certificate_rows), &policy->certificates[i],
			out);
}
