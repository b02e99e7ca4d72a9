/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_show.c: policy_show() of the defaults (table 14 row 5), and of what they do not show.
 */

#include "policy/lint.h"
#include "tests/unit/config_fixture.h"

/* What policy_show() wrote. */
static char *written;

#define PIN "3f79bb7b435b05321651daefd374cdc681dc06faa65e374e38337b88ca046dea"
#define CERTIFICATE "certificate c { chain = good.pem key = good.key }\n"

/* EXCHANGE 2.5, the edge column, where it has one; what needs AUTH is not there. */
static const char edge_defaults[] =
	"[ReceiveConnector]\n"
	"Name                                      : in\n"
	"AuthMechanism                             : None\n"
	"Banner                                    : \n"
	"BareLinefeedRejectionEnabled              : True\n"
	"BinaryMimeEnabled                         : True\n"
	"Bindings                                  : {127.0.0.1:2525}\n"
	"ChunkingEnabled                           : True\n"
	"ConnectionInactivityTimeout               : 00:01:00\n"
	"ConnectionTimeout                         : 00:05:00\n"
	"DeliveryStatusNotificationEnabled         : True\n"
	"DomainSecureEnabled                       : False\n"
	"EightBitMimeEnabled                       : True\n"
	"EnhancedStatusCodesEnabled                : True\n"
	"Enabled                                   : True\n"
	"Fqdn                                      : edge.example\n"
	"LongAddressesEnabled                      : False\n"
	"MaxHeaderSize                             : 256 KB (262,144 bytes)\n"
	"MaxHopCount                               : 30\n"
	"MaxInboundConnection                      : 5000\n"
	"MaxInboundConnectionPerSource             : 20\n"
	"MaxInboundConnectionPercentagePerSource   : 2\n"
	"MaxLocalHopCount                          : 8\n"
	"MaxMessageSize                            : 36 MB (37,748,736 bytes)\n"
	"MaxProtocolErrors                         : 5\n"
	"MaxRecipientsPerMessage                   : 200\n"
	"MessageRateLimit                          : 600\n"
	"MessageRateSource                         : IPAddress\n"
	"PermissionGroups                          : AnonymousUsers\n"
	"PipeliningEnabled                         : True\n"
	"ProtocolLoggingLevel                      : None\n"
	"RejectReservedSecondLevelRecipientDomains : False\n"
	"RejectReservedTopLevelRecipientDomains    : False\n"
	"RejectSingleLabelRecipientDomains         : False\n"
	"RemoteIPRanges                            : {::/0, 0.0.0.0/0}\n"
	"RequireEHLODomain                         : False\n"
	"RequireTLS                                : False\n"
	"SizeEnabled                               : Enabled\n"
	"SmtpUtf8Enabled                           : True\n"
	"TarpitInterval                            : 00:00:05\n"
	"TlsCertificateName                        : \n"
	"Usage                                     : Custom\n"
	"AllowUnsecuredPartners                    : False\n"
	"ClientCertificate                         : none\n"
	"ConnectionRateLimit                       : Unlimited\n"
	"CrlFiles                                  : {}\n"
	"CutThrough                                : False\n"
	"Deliver                                   : proxy\n"
	"Durability                                : durable\n"
	"Nul                                       : reject\n"
	"PermanentTlsRefusals                      : False\n"
	"ProxyBalancers                            : {}\n"
	"RemoteIPPartners                          : {}\n"
	"Revocation                                : hard\n"
	"SendConnector                             : out\n"
	"SpkiPins                                  : {}\n"
	"Tls                                       : none\n"
	"TlsDomain                                 : \n"
	"TlsMin                                    : TLSv1.2\n"
	"TlsMax                                    : TLSv1.3\n"
	"TrustAnchors                              : \n"
	"XclientHosts                              : {}\n";

/* EXCHANGE 3.2. */
static const char send_defaults[] =
	"[SendConnector]\n"
	"Name                                      : out\n"
	"AddressSpaces                             : {}\n"
	"ConnectionInactivityTimeOut               : 00:10:00\n"
	"DNSRoutingEnabled                         : False\n"
	"DomainSecureEnabled                       : False\n"
	"Enabled                                   : True\n"
	"ForceHELO                                 : False\n"
	"Fqdn                                      : edge.example\n"
	"FrontendProxyEnabled                      : False\n"
	"IgnoreSTARTTLS                            : False\n"
	"MaxMessageSize                            : 36 MB (37,748,736 bytes)\n"
	"Port                                      : 25\n"
	"ProtocolLoggingLevel                      : None\n"
	"RequireTLS                                : False\n"
	"SmartHosts                                : {127.0.0.1}\n"
	"SmtpMaxMessagesPerConnection              : 20\n"
	"SourceIPAddress                           : 0.0.0.0\n"
	"TlsAuthLevel                              : \n"
	"TlsCertificateName                        : \n"
	"TlsDomain                                 : \n"
	"AllowUnsecuredPartners                    : False\n"
	"ClientIdentity                            : none\n"
	"ConnectTimeout                            : 00:00:30\n"
	"ConnectionIdleTimeout                     : 00:00:30\n"
	"ConnectionMaxAge                          : 00:05:00\n"
	"CrlFiles                                  : {}\n"
	"ImplicitTls                               : False\n"
	"MaxConnections                            : 100\n"
	"MaxDeliveries                             : 20\n"
	"Revocation                                : hard\n"
	"SpkiPins                                  : {}\n"
	"TlsMin                                    : TLSv1.2\n"
	"TlsMax                                    : TLSv1.3\n"
	"TrustAnchors                              : \n"
	"TrustedNextHop                            : False\n";

static const char transport_defaults[] =
	"[Transport]\n"
	"Fqdn                                      : edge.example\n"
	"TLSReceiveDomainSecureList                : {}\n"
	"TLSSendDomainSecureList                   : {}\n"
	"AcceptedDomains                           : {}\n"
	"ExternalDNSServers                        : {}\n"
	"ProtocolLogPath                           : \n"
	"ProtocolLogMaxAge                         : 30.00:00:00\n"
	"ProtocolLogMaxDirectorySize               : 250 MB (262,144,000 bytes)\n"
	"ProtocolLogMaxFileSize                    : 10 MB (10,485,760 bytes)\n"
	"QueueGlitchRetryCount                     : 4\n"
	"QueueGlitchRetryInterval                  : 00:01:00\n"
	"TransientFailureRetryCount                : 6\n"
	"TransientFailureRetryInterval             : 00:10:00\n"
	"OutboundConnectionFailureRetryInterval    : 00:30:00\n"
	"MessageRetryInterval                      : 00:15:00\n"
	"DelayNotificationTimeout                  : 04:00:00\n"
	"MessageExpirationTimeout                  : 2.00:00:00\n"
	"MaxIdleTimeBeforeResubmit                 : 12:00:00\n"
	"QueueMaxIdleTime                          : 00:03:00\n"
	"QueueMaxMessages                          : 100000\n"
	"ExternalPostmasterAddress                 : postmaster@edge.example\n"
	"ExternalDsnMaxMessageAttachSize           : 10 MB (10,485,760 bytes)\n"
	"MessageTrackingLogPath                    : \n"
	"MessageTrackingLogMaxAge                  : 30.00:00:00\n"
	"MessageTrackingLogMaxDirectorySize        : 1000 MB (1,048,576,000 bytes)\n"
	"MessageTrackingLogMaxFileSize             : 10 MB (10,485,760 bytes)\n"
	"MessageTrackingLogSubjectLoggingEnabled   : True\n"
	"BackPressureMedium                        : 89\n"
	"BackPressureHigh                          : 99\n"
	"BackPressureHighEnd                       : 90\n"
	"BackPressureMediumEnd                     : 80\n"
	"Bpf                                       : auto\n"
	"BpfPinFolder                              : /sys/fs/bpf/postern\n"
	"CertificateStore                          : \n"
	"CertificateExpiryWarning                  : 30.00:00:00\n"
	"ControlGroup                              : \n"
	"ControlSocket                             : \n"
	"CrlCache                                  : \n"
	"CrlFetchTimeout                           : 00:00:10\n"
	"CrlRefreshInterval                        : 01:00:00\n"
	"Door                                      : sk_lookup\n"
	"DrainTimeout                              : 00:00:30\n"
	"MaxSessions                               : 5000\n"
	"PartnerLists                              : \n"
	"SpoolFolder                               : \n"
	"SpoolMaxSize                              : 16 GB (17,179,869,184 bytes)\n"
	"SpoolSegmentSize                          : 64 MB (67,108,864 bytes)\n"
	"Workers                                   : 0\n";

static void show_text(const char *text)
{
	struct policy *policy = NULL;
	size_t bytes = 0;
	FILE *out = NULL;

	if (load_text(text, &policy) != 0)
		fail_msg("%s", said);
	free(written);
	written = NULL;
	out = open_memstream(&written, &bytes);
	assert_non_null(out);
	policy_show(policy, out);
	assert_int_equal(fclose(out), 0);
	policy_destroy(&policy);
}

static void test_row_5_edge_defaults(void **state)
{
	char expected[sizeof(transport_defaults) + sizeof(edge_defaults) + sizeof(send_defaults)];

	(void)state;
	(void)snprintf(expected, sizeof(expected), "%s\n%s\n%s", transport_defaults, edge_defaults,
		send_defaults);
	show_text(SMALLEST "transport { fqdn = edge.example }\n");
	assert_string_equal(written, expected);
}

static void check_shown(const char *property, const char *value)
{
	char line[512];

	(void)snprintf(line, sizeof(line), "\n%-41s : %s\n", property, value);
	if (strstr(written, line) == NULL)
		fail_msg("expected %s, got:\n%s", line, written);
}

/* What the defaults do not show. */
static void test_show_values(void **state)
{
	(void)state;
	show_text(CERTIFICATE
		"transport { accepted-domains = {a.example, \"*.b.example\"}\n"
		" crl-fetch-timeout = 1500ms crl-refresh-interval = 7d bpf = off\n"
		" partner-lists = certs }\n"
		"receive-connector in { type = partner tls-max = TLSv1.2 certificate = c\n"
		" bindings = {\"0.0.0.0:25\", \"[::]:25\"} message-rate-limit = unlimited\n"
		" remote-ip-ranges = {\"10.0.0.0-10.0.0.9\", \"2001:db8::/32\"}\n"
		" max-message-size = 65537 message-rate-source = none size = without-value }\n"
		"receive-connector hub { permission-groups = {internal, anonymous}\n"
		" external-authoritative = yes bindings = \"127.0.0.1:26\" tls = implicit\n"
		" remote-ip-partners = {one, two} connection-rate-limit = 60\n"
		" proxy-balancers = {10.0.0.1, \"2001:db8::/64\"} xclient-hosts = 10.0.0.2 }\n"
		"send-connector mx { address-spaces = {adatum.com, \"*.x.example;5\", \"*;9\"}\n"
		" domain-secure = yes source-address = \"::1\" }\n"
		"send-connector smart { address-spaces = \"--\" implicit-tls = yes\n"
		" smart-hosts = {\"203.0.113.1\", \"[203.0.113.2]:26\"}\n"
		" tls-auth-level = fingerprint spki-pins = " PIN "\n"
		" max-messages-per-connection = unlimited }\n"
		"send-connector never { address-spaces = z.example tls-auth-level = none }\n"
		"partner one { domains = {adatum.com, b.net} trust-anchors = good.pem }\n"
		"partner two { domains = c.net receive-secure = no spki-pins = " PIN " }\n"
		"internal-server hub { spki-pins = " PIN " }\n");
	check_shown("TLSReceiveDomainSecureList", "{adatum.com, b.net}");
	check_shown("TLSSendDomainSecureList", "{adatum.com, b.net, c.net}");
	check_shown("AcceptedDomains", "{a.example, *.b.example}");
	check_shown("CrlFetchTimeout", "00:00:01.500");
	check_shown("CrlRefreshInterval", "7.00:00:00");
	check_shown("Bpf", "off");
	check_shown("RemoteIPRanges", "{}");
	check_shown("RemoteIPPartners", "{one, two}");
	check_shown("ConnectionRateLimit", "60");
	check_shown("ProxyBalancers", "{10.0.0.1, 2001:db8::/64}");
	check_shown("XclientHosts", "{10.0.0.2}");
	check_shown("AuthMechanism", "Tls");
	check_shown("PermissionGroups", "Partners");
	check_shown("Usage", "Partner");
	check_shown("ClientCertificate", "ask");
	check_shown("TlsCertificateName", "c");
	check_shown("Bindings", "{0.0.0.0:25, [::]:25}");
	check_shown("MessageRateLimit", "Unlimited");
	check_shown("MessageRateSource", "None");
	check_shown("MaxMessageSize", "65537 B (65,537 bytes)");
	check_shown("SizeEnabled", "EnabledWithoutValue");
	check_shown("RemoteIPRanges", "{10.0.0.0-10.0.0.9, 2001:db8::/32}");
	check_shown("AuthMechanism", "Tls, ExternalAuthoritative");
	check_shown("PermissionGroups", "AnonymousUsers, ExchangeServers");
	check_shown("DNSRoutingEnabled", "True");
	check_shown("AddressSpaces", "{SMTP:adatum.com;1, SMTP:*.x.example;5, SMTP:*;9}");
	check_shown("AddressSpaces", "{SMTP:--;1}");
	check_shown("SourceIPAddress", "::1");
	check_shown("SmartHosts", "{203.0.113.1, [203.0.113.2]:26}");
	check_shown("TlsAuthLevel", "Fingerprint");
	check_shown("RequireTLS", "True");
	check_shown("IgnoreSTARTTLS", "True");
	check_shown("SmtpMaxMessagesPerConnection", "Unlimited");
	check_shown("Domains", "{c.net}");
	check_shown("SpkiPins", "{" PIN "}");
	assert_non_null(strstr(written, "\n[Partner]\nName "));
	assert_non_null(strstr(written, "\n[InternalServer]\nName "));
	assert_non_null(strstr(written, "\n[Certificate]\nName "));
}

static int teardown(void **state)
{
	free(written);
	return fixture_teardown(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_row_5_edge_defaults),
		cmocka_unit_test(test_show_values),
	};

	return cmocka_run_group_tests_name("show", tests, fixture_setup, teardown);
}
