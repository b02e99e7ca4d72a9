/* SPDX-License-Identifier: Apache-2.0 */

/*
 * check.c: what takes more than one keyword to see. A keyword that was set wrongly has
 * its message already, so these ask whether it was set, not whether it took effect.
 */

#include "policy/config.h"
#include <ifaddrs.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>

static bool check_is_set(const struct config *config, unsigned section, const char *keyword)
{
	return config_next(config, section, keyword, NULL) != NULL;
}

/* Whether its texts, if any, took effect. */
static bool check_is_sound(const struct config *config, unsigned section, const char *keyword)
{
	const struct config_value *value = NULL;

	while ((value = config_next(config, section, keyword, value)) != NULL)
		if (value->is_wrong)
			return false;
	return true;
}

static void check_tls_settings(struct config *config, unsigned s, const struct tls_settings *tls)
{
	if (!check_is_sound(config, s, "tls-min") || !check_is_sound(config, s, "tls-max"))
		return;
	/* "TLSv1.2" and "TLSv1.3" sort as they should. */
	if (strcmp(tls->tls_min, tls->tls_max) > 0)
		config_mistake(config,
			config_line(config, s,
				check_is_set(config, s, "tls-max") ? "tls-max" : "tls-min"),
			"tls-max is %s, expected at least tls-min, which is %s", tls->tls_max,
			tls->tls_min);
}

static void check_receive_tls(
	struct config *config, unsigned s, const struct receive_connector *connector)
{
	const bool asks = connector->client_certificate != CLIENT_CERTIFICATE_NONE;
	const bool has_no_tls = connector->tls == TLS_MODE_NONE && check_is_sound(config, s, "tls");

	check_tls_settings(config, s, &connector->tls_settings);
	if (connector->tls != TLS_MODE_NONE && !check_is_set(config, s, "certificate"))
		config_mistake(config, config_line(config, s, "tls"),
			"receive-connector \"%s\" offers TLS without a certificate, expected "
			"certificate = NAME",
			connector->name);
	if (connector->require_tls && has_no_tls)
		config_mistake(config, config_line(config, s, "require-tls"),
			"require-tls with tls = none refuses all mail, expected tls = starttls or "
			"implicit");
	if (asks && has_no_tls)
		config_mistake(config, config_line(config, s, "client-certificate"),
			"client-certificate with tls = none, expected tls = starttls or implicit");
	if (asks && !check_is_set(config, s, "trust-anchors"))
		config_mistake(config, config_line(config, s, "client-certificate"),
			"client-certificate without trust-anchors proves nobody, expected "
			"trust-anchors = FILE");
}

static void check_receive(struct config *config, unsigned s, struct receive_connector *connector)
{
	const char *banner = connector->banner;

	check_receive_tls(config, s, connector);
	if (connector->deliver == DELIVER_PROXY && !check_is_set(config, s, "send-connector"))
		config_mistake(config, config_line(config, s, "deliver"),
			"receive-connector \"%s\" delivers by proxy to nobody, expected "
			"send-connector = NAME",
			connector->name);
	if (banner != NULL && strncmp(banner, "220 ", 4) != 0)
		config_mistake(config, config_line(config, s, "banner"),
			"banner is \"%s\", expected a line that starts with \"220 \"", banner);
	if (check_is_sound(config, s, "connection-inactivity-timeout") &&
		check_is_sound(config, s, "connection-timeout") &&
		connector->connection_inactivity_timeout_ms >= connector->connection_timeout_ms)
		config_mistake(config,
			config_line(config, s,
				check_is_set(config, s, "connection-inactivity-timeout")
					? "connection-inactivity-timeout"
					: "connection-timeout"),
			"connection-inactivity-timeout (default 1m) is not below "
			"connection-timeout (default 5m), expected less");
	/* Who only says chunking = no means both; who says binary-mime = yes as well errs. */
	if (connector->binary_mime && !connector->chunking) {
		if (check_is_set(config, s, "binary-mime"))
			config_mistake(config, config_line(config, s, "binary-mime"),
				"binary-mime without chunking, expected chunking = yes (RFC 3030)");
		connector->binary_mime = false;
	}
}

static void check_send_tls(
	struct config *config, unsigned s, const struct send_connector *connector)
{
	const enum tls_auth_level level = connector->tls_auth_level;
	const bool validates =
		level == TLS_AUTH_CERTIFICATE_VALIDATION || level == TLS_AUTH_DOMAIN_VALIDATION;

	check_tls_settings(config, s, &connector->tls_settings);
	if (connector->ignore_starttls && connector->implicit_tls)
		config_mistake(config, config_line(config, s, "ignore-starttls"),
			"ignore-starttls with implicit-tls, expected one of them");
	if (connector->ignore_starttls && level > TLS_AUTH_OPPORTUNISTIC)
		config_mistake(config, config_line(config, s, "tls-auth-level"),
			"tls-auth-level with ignore-starttls, expected ignore-starttls = no");
	if (validates && !check_is_set(config, s, "trust-anchors"))
		config_mistake(config, config_line(config, s, "tls-auth-level"),
			"tls-auth-level validates without trust-anchors, expected trust-anchors = "
			"FILE");
	if (level == TLS_AUTH_DOMAIN_VALIDATION && !check_is_set(config, s, "tls-domain"))
		config_mistake(config, config_line(config, s, "tls-auth-level"),
			"tls-auth-level is domain-validation without a name to find, expected "
			"tls-domain = NAME");
	if (level != TLS_AUTH_DOMAIN_VALIDATION && check_is_set(config, s, "tls-domain") &&
		check_is_sound(config, s, "tls-auth-level"))
		config_mistake(config, config_line(config, s, "tls-domain"),
			"tls-domain at another level, expected tls-auth-level = domain-validation");
}

/*
 * An address to compare. Copied out, as a sockaddr read through pointers of two types is
 * undefined: GCC 12 at -O2 then found no loop where there was one.
 */
struct host {
	sa_family_t family;
	in_port_t port;
	uint8_t bytes[16]; /* IPv4 has 4, and zeros behind them */
};

static struct host host_of(const void *sockaddr)
{
	const uint8_t *from = sockaddr;
	struct host host = {0};

	memcpy(&host.family, from + offsetof(struct sockaddr, sa_family), sizeof(host.family));
	if (host.family == AF_INET) {
		memcpy(&host.port, from + offsetof(struct sockaddr_in, sin_port), 2);
		memcpy(host.bytes, from + offsetof(struct sockaddr_in, sin_addr), 4);
	} else if (host.family == AF_INET6) {
		memcpy(&host.port, from + offsetof(struct sockaddr_in6, sin6_port), 2);
		memcpy(host.bytes, from + offsetof(struct sockaddr_in6, sin6_addr), 16);
	}
	return host;
}

static bool host_is_wildcard(const struct host *host)
{
	static const uint8_t zeros[16];

	return memcmp(host->bytes, zeros, sizeof(zeros)) == 0;
}

/* One of this machine's addresses, of 127.0.0.0/8, or the wildcard, which connects to itself. */
static bool host_is_local(const struct host *host, const struct ifaddrs *interfaces)
{
	if (host_is_wildcard(host) || (host->family == AF_INET && host->bytes[0] == 127))
		return true;
	for (const struct ifaddrs *at = interfaces; at != NULL; at = at->ifa_next) {
		const struct host own =
			at->ifa_addr == NULL ? (struct host){0} : host_of(at->ifa_addr);

		if (own.family == host->family &&
			memcmp(own.bytes, host->bytes, sizeof(own.bytes)) == 0)
			return true;
	}
	return false;
}

/* Whether a connection to host would arrive at the binding. */
static bool host_reaches(
	const struct host *host, const struct host *binding, const struct ifaddrs *interfaces)
{
	if (host->port != binding->port || host->family != binding->family)
		return false;
	if (host_is_wildcard(binding))
		return host_is_local(host, interfaces);
	return memcmp(host->bytes, binding->bytes, sizeof(host->bytes)) == 0;
}

/* Mail to a smart host that is ourselves would run in a circle until its hop count ends it. */
static void check_loops(struct config *config, unsigned s, const struct send_connector *connector,
	const struct ifaddrs *interfaces)
{
	for (unsigned i = 0; i < connector->smart_host_count; i++) {
		const struct host host = host_of(&connector->smart_hosts[i].sockaddr);
		const char *name = connector->smart_host_names[i];
		const struct config_value *value = config_next(config, s, "smart-hosts", NULL);

		while (value != NULL && strcmp(value->text, name) != 0)
			value = config_next(config, s, "smart-hosts", value);
		for (unsigned b = 0; b < config->binding_count; b++) {
			const struct config_binding *binding = &config->bindings[b];
			const struct host own = host_of(&binding->address.sockaddr);

			if (!host_reaches(&host, &own, interfaces))
				continue;
			config_mistake(config, value == NULL ? connector->line : value->line,
				"smart host \"%s\" is our own receive-connector \"%s\" (line %u), "
				"a loop, expected another machine or port",
				name, binding->connector, binding->line);
		}
	}
}

static void check_certificate(
	struct config *config, unsigned s, const struct certificate *certificate)
{
	struct stat status = {0};

	if (certificate->key == NULL || stat(certificate->key, &status) < 0 ||
		!S_ISREG(status.st_mode))
		return;
	if (status.st_mode & S_IROTH)
		config_warn(config, config_line(config, s, "key"),
			"key \"%s\" can be read by everybody on this machine, expected mode 0600 "
			"or 0640",
			certificate->key);
}

static void check_transport(struct config *config, unsigned s, const struct policy *policy)
{
	if (policy->user != NULL && getpwnam(policy->user) == NULL)
		config_mistake(config, config_line(config, s, "user"),
			"user is \"%s\", which this machine does not know, expected a user name",
			policy->user);
}

void check_policy(struct config *config)
{
	struct policy *policy = &config->owner->policy;
	struct ifaddrs *interfaces = NULL;

	if (getifaddrs(&interfaces) < 0)
		interfaces = NULL;
	if (policy->receive_connector_count == 0)
		config_mistake(config, 1,
			"no receive-connector, expected at least one receive-connector \"NAME\" "
			"{...}");
	for (unsigned s = 0; s < config->section_count; s++) {
		const unsigned index = config->sections[s].index;

		switch (config->sections[s].kind) {
		case SECTION_TRANSPORT:
			check_transport(config, s, policy);
			break;
		case SECTION_CERTIFICATE:
			check_certificate(config, s, &policy->certificates[index]);
			break;
		case SECTION_RECEIVE:
			check_receive(config, s, &policy->receive_connectors[index]);
			break;
		case SECTION_SEND:
			check_send_tls(config, s, &policy->send_connectors[index]);
			check_loops(config, s, &policy->send_connectors[index], interfaces);
			break;
		case SECTION_NONE:
			UNREACHABLE();
		}
	}
	if (interfaces != NULL)
		freeifaddrs(interfaces);
}
