/* SPDX-License-Identifier: Apache-2.0 */

/*
 * check_connector.c: one connector by itself, and what it refers to.
 */

#include "policy/check.h"
#include <string.h>

static void check_logging(struct config *config, unsigned s, enum protocol_logging logging)
{
	if (logging != PROTOCOL_LOGGING_NONE && config->owner->policy.protocol_log_folder == NULL)
		config_mistake(config, config_line(config, s, "protocol-logging"),
			"protocol-logging has nowhere to write to, expected protocol-log-folder = "
			"FOLDER in transport");
}

static void check_tls_settings(struct config *config, unsigned s, const struct tls_settings *tls)
{
	if (check_is_set(config, s, "crl-files") && !check_is_set(config, s, "trust-anchors"))
		config_mistake(config, config_line(config, s, "crl-files"),
			"crl-files without trust-anchors revoke nothing, expected trust-anchors = "
			"FILE");
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

/* Where one of the keywords says that it is set; those of the template are set by "type". */
static unsigned check_line_of(
	const struct config *config, unsigned s, const char *keyword, const char *other)
{
	return config_line(config, s, check_is_set(config, s, keyword) ? keyword : other);
}

/* Something that a client's certificate could be found good by. */
static bool check_has_proof(
	const struct config *config, unsigned s, const struct receive_connector *connector)
{
	const struct policy *policy = &config->owner->policy;

	return check_is_set(config, s, "trust-anchors") || check_is_set(config, s, "spki-pins") ||
	       connector->domain_secure ||
	       ((connector->permission_groups & PERMISSION_INTERNAL) != 0 &&
		       policy->internal_server_count > 0);
}

static void check_receive_proof(
	struct config *config, unsigned s, struct receive_connector *connector)
{
	const bool has_no_tls = connector->tls == TLS_MODE_NONE && check_is_sound(config, s, "tls");

	if (!check_is_set(config, s, "client-certificate")) {
		/* What comes by itself: nothing to ask without TLS, and to ask for domain-secure.
		 */
		if (connector->tls == TLS_MODE_NONE)
			connector->client_certificate = CLIENT_CERTIFICATE_NONE;
		else if (connector->domain_secure)
			connector->client_certificate = CLIENT_CERTIFICATE_ASK;
	} else if (connector->client_certificate != CLIENT_CERTIFICATE_NONE) {
		if (has_no_tls)
			config_mistake(config, config_line(config, s, "client-certificate"),
				"client-certificate with tls = none, expected tls = starttls or "
				"implicit");
		if (!check_has_proof(config, s, connector))
			config_mistake(config, config_line(config, s, "client-certificate"),
				"client-certificate without trust-anchors proves nobody, expected "
				"trust-anchors = FILE, spki-pins or domain-secure = yes");
	}
	if (check_is_set(config, s, "tls-domain") && check_is_sound(config, s, "tls-domain") &&
		connector->client_certificate != CLIENT_CERTIFICATE_REQUIRE)
		config_mistake(config, config_line(config, s, "tls-domain"),
			"tls-domain with a certificate that is not required, expected "
			"client-certificate = require");
}

static void check_receive_tls(
	struct config *config, unsigned s, struct receive_connector *connector)
{
	const bool has_no_tls = connector->tls == TLS_MODE_NONE && check_is_sound(config, s, "tls");

	check_tls_settings(config, s, &connector->tls_settings);
	if (connector->require_tls && has_no_tls)
		config_mistake(config, config_line(config, s, "require-tls"),
			"require-tls with tls = none refuses all mail, expected tls = starttls or "
			"implicit");
	check_receive_proof(config, s, connector);
	if (!connector->domain_secure)
		return;
	if (has_no_tls)
		config_mistake(config, check_line_of(config, s, "domain-secure", "tls"),
			"domain-secure with tls = none, expected tls = starttls or implicit");
	if (check_is_set(config, s, "client-certificate") &&
		check_is_sound(config, s, "client-certificate") &&
		connector->client_certificate == CLIENT_CERTIFICATE_NONE)
		config_mistake(config, config_line(config, s, "client-certificate"),
			"client-certificate = none with domain-secure proves no domain, expected "
			"ask or require");
}

/* Who is served, and as what. */
static void check_receive_rights(
	struct config *config, unsigned s, const struct receive_connector *connector)
{
	const struct policy *policy = &config->owner->policy;
	const unsigned groups = connector->permission_groups;

	if (!check_is_sound(config, s, "permission-groups"))
		return;
	if (connector->external_authoritative && connector->domain_secure)
		config_mistake(config, config_line(config, s, "external-authoritative"),
			"external-authoritative with domain-secure, expected one of them: who is "
			"secured elsewhere has no domain to prove");
	if (connector->external_authoritative && (groups & PERMISSION_INTERNAL) == 0)
		config_mistake(config, config_line(config, s, "external-authoritative"),
			"external-authoritative without the permission for it, expected internal "
			"among permission-groups");
	if (groups == PERMISSION_INTERNAL && !connector->external_authoritative &&
		policy->internal_server_count == 0)
		config_mistake(config, check_line_of(config, s, "permission-groups", "type"),
			"receive-connector \"%s\" is for internal servers only, and there is none, "
			"expected internal-server \"NAME\" {...} or external-authoritative = yes",
			connector->name);
}

/* What deliver = queue needs, and what only means something with it. */
static void check_receive_queue(
	struct config *config, unsigned s, const struct receive_connector *connector)
{
	if (connector->deliver == DELIVER_QUEUE && !check_is_queue_possible(config))
		config_mistake(config, config_line(config, s, "deliver"),
			"deliver = queue has nowhere to keep messages, expected spool-folder = "
			"FOLDER in transport, or deliver = proxy");
	if (connector->deliver != DELIVER_QUEUE && check_is_set(config, s, "durability") &&
		check_is_sound(config, s, "durability") && check_is_sound(config, s, "deliver"))
		config_mistake(config, config_line(config, s, "durability"),
			"durability with deliver = proxy, which stores nothing, expected deliver = "
			"queue");
	if (connector->deliver != DELIVER_QUEUE && connector->cut_through &&
		check_is_sound(config, s, "deliver"))
		config_mistake(config, config_line(config, s, "cut-through"),
			"cut-through with deliver = proxy, which has no queue to fall back to, "
			"expected deliver = queue");
}

/* Where its mail goes. */
static void check_receive_delivery(
	struct config *config, unsigned s, const struct receive_connector *connector)
{
	const struct policy *policy = &config->owner->policy;
	const struct send_connector *to = connector->send_connector;

	check_receive_queue(config, s, connector);
	if (!connector->enabled)
		return;
	if (to != NULL && !to->enabled)
		config_mistake(config, config_line(config, s, "send-connector"),
			"send-connector \"%s\" is not enabled (line %u), expected one that is",
			to->name, to->line);
	if (check_is_set(config, s, "send-connector"))
		return;
	for (unsigned i = 0; i < policy->send_connector_count; i++)
		if (policy->send_connectors[i].enabled &&
			policy->send_connectors[i].address_space_count > 0)
			return;
	config_mistake(config, config_line(config, s, "deliver"),
		"receive-connector \"%s\" delivers by %s to nobody, expected send-connector = "
		"NAME, or a send-connector with address-spaces",
		connector->name, connector->deliver == DELIVER_QUEUE ? "queue" : "proxy");
}

void check_receive(struct config *config, unsigned s, struct receive_connector *connector)
{
	const char *banner = connector->banner;

	check_receive_tls(config, s, connector);
	check_receive_rights(config, s, connector);
	check_receive_delivery(config, s, connector);
	check_remote_partners(config, s, connector);
	check_logging(config, s, connector->protocol_logging);
	if (banner != NULL && strncmp(banner, "220 ", 4) != 0)
		config_mistake(config, config_line(config, s, "banner"),
			"banner is \"%s\", expected a line that starts with \"220 \"", banner);
	if (check_is_sound(config, s, "connection-inactivity-timeout") &&
		check_is_sound(config, s, "connection-timeout") &&
		connector->connection_inactivity_timeout_ms >= connector->connection_timeout_ms)
		config_mistake(config,
			check_line_of(
				config, s, "connection-inactivity-timeout", "connection-timeout"),
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

/* The level of TLS against what makes TLS impossible, and against what it needs. */
static void check_send_level(
	struct config *config, unsigned s, const struct send_connector *connector)
{
	const enum tls_auth_level level = connector->tls_auth_level;
	const bool validates =
		level == TLS_AUTH_CERTIFICATE_VALIDATION || level == TLS_AUTH_DOMAIN_VALIDATION;
	const unsigned line = config_line(config, s, "tls-auth-level");

	if (connector->ignore_starttls && level > TLS_AUTH_OPPORTUNISTIC)
		config_mistake(config, line,
			"tls-auth-level with ignore-starttls, expected ignore-starttls = no");
	if (connector->force_helo && !connector->implicit_tls && level > TLS_AUTH_OPPORTUNISTIC)
		config_mistake(config, line,
			"tls-auth-level with force-helo, which knows no STARTTLS, expected "
			"force-helo = no");
	if (connector->implicit_tls && level == TLS_AUTH_NONE)
		config_mistake(config, line,
			"tls-auth-level = none with implicit-tls, expected one of them");
	if (validates && !check_is_set(config, s, "trust-anchors"))
		config_mistake(config, line,
			"tls-auth-level validates without trust-anchors, expected trust-anchors = "
			"FILE");
	if (level == TLS_AUTH_FINGERPRINT && !check_is_set(config, s, "spki-pins"))
		config_mistake(config, line,
			"tls-auth-level is fingerprint without a key to know, expected spki-pins = "
			"{...}");
	if (level == TLS_AUTH_DOMAIN_VALIDATION && !check_is_set(config, s, "tls-domain") &&
		check_is_set(config, s, "smart-hosts"))
		config_mistake(config, line,
			"tls-auth-level is domain-validation of smart hosts without a name to "
			"find, expected tls-domain = NAME");
	if (level != TLS_AUTH_DOMAIN_VALIDATION && check_is_set(config, s, "tls-domain") &&
		check_is_sound(config, s, "tls-auth-level"))
		config_mistake(config, config_line(config, s, "tls-domain"),
			"tls-domain at another level, expected tls-auth-level = domain-validation");
}

static void check_send_secure(
	struct config *config, unsigned s, const struct send_connector *connector)
{
	const unsigned line = config_line(config, s, "domain-secure");

	if (!connector->domain_secure)
		return;
	if (connector->ignore_starttls)
		config_mistake(config, line,
			"domain-secure with ignore-starttls, expected ignore-starttls = no");
	if (connector->force_helo && !connector->implicit_tls)
		config_mistake(config, line,
			"domain-secure with force-helo, which knows no STARTTLS, expected "
			"force-helo = no");
	if (connector->tls_auth_level == TLS_AUTH_NONE)
		config_mistake(config, line,
			"domain-secure with tls-auth-level = none, expected another level");
	if (connector->frontend_proxy)
		config_mistake(config, line,
			"domain-secure with frontend-proxy, which hides the partner's certificate "
			"from us, expected frontend-proxy = no");
}

void check_send(struct config *config, unsigned s, const struct send_connector *connector)
{
	check_tls_settings(config, s, &connector->tls_settings);
	if (connector->ignore_starttls && connector->implicit_tls)
		config_mistake(config, config_line(config, s, "ignore-starttls"),
			"ignore-starttls with implicit-tls, expected one of them");
	check_send_level(config, s, connector);
	check_send_secure(config, s, connector);
	check_logging(config, s, connector->protocol_logging);
	if (connector->client_identity != CLIENT_IDENTITY_NONE && !connector->trusted_next_hop &&
		check_is_sound(config, s, "trusted-next-hop"))
		config_mistake(config, config_line(config, s, "client-identity"),
			"client-identity tells clients' addresses to a next hop that is not "
			"trusted, expected trusted-next-hop = yes");
	if (connector->frontend_proxy && !check_is_set(config, s, "smart-hosts"))
		config_mistake(config, config_line(config, s, "frontend-proxy"),
			"frontend-proxy without a front end, expected smart-hosts = {...}");
	if (check_is_set(config, s, "smart-hosts") && check_is_set(config, s, "port"))
		config_mistake(config, config_line(config, s, "port"),
			"port with smart-hosts, expected it behind the host: HOST:PORT");
}
