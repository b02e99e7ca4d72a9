/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/admit.h"
#include "policy/lint_private.h"
#include "policy/partner.h"
#include "policy/route.h"
#include "policy/spelling.h"
#include <stdarg.h>
#include <string.h>

void lint_find(struct lint *lint, unsigned line, const char *format, ...)
{
	struct finding *grown =
		reallocarray(lint->findings, lint->count + 1, sizeof(*lint->findings));
	char *text = NULL;
	va_list args;

	if (grown != NULL)
		lint->findings = grown;
	va_start(args, format);
	if (grown == NULL || vasprintf(&text, format, args) < 0)
		text = NULL;
	va_end(args);
	if (text != NULL) {
		lint->findings[lint->count] = (struct finding){text, line, lint->count};
		lint->count++;
		return;
	}
	va_start(args, format);
	(void)fprintf(lint->out, "%s:%u: ", lint->policy->file, line);
	(void)vfprintf(lint->out, format, args);
	(void)fputc('\n', lint->out);
	va_end(args);
	lint->printed++;
}

static int finding_compare(const void *a, const void *b)
{
	const struct finding *left = a, *right = b;

	if (left->line != right->line)
		return left->line < right->line ? -1 : 1;
	return (left->order > right->order) - (left->order < right->order);
}

static bool any_partner(const struct policy *policy, bool for_sending)
{
	for (unsigned p = 0; p < policy->partner_count; p++)
		if (for_sending ? policy->partners[p].send_secure
				: policy->partners[p].receive_secure)
			return true;
	return false;
}

/* Is it the one way out of an enabled receive connector? */
static bool is_fixed_way(const struct policy *policy, const struct send_connector *connector)
{
	for (unsigned i = 0; i < policy->receive_connector_count; i++)
		if (policy->receive_connectors[i].enabled &&
			policy->receive_connectors[i].send_connector == connector)
			return true;
	return false;
}

/* A send connector that all mail of a receive connector takes, and that secures it. */
static bool any_fixed_secure(const struct policy *policy)
{
	for (unsigned i = 0; i < policy->send_connector_count; i++)
		if (policy->send_connectors[i].enabled &&
			policy->send_connectors[i].domain_secure &&
			is_fixed_way(policy, &policy->send_connectors[i]))
			return true;
	return false;
}

/* The way out for a listed domain, EXCHANGE 4.5 rows 2, 3 and 7. */
static void lint_send_domain(struct lint *lint, const struct partner *partner, const char *domain)
{
	struct route route;

	route_send(lint->policy, domain, 0, &route);
	if (route.is_secured)
		return;
	if (route.connector == NULL) {
		if (!any_fixed_secure(lint->policy))
			lint_find(lint, partner->line,
				"partner \"%s\": no domain-secure send-connector covers %s, so no "
				"mail goes there; give one address-spaces = {\"%s\"} and "
				"domain-secure = yes, or set send-secure = no here",
				partner->name, domain, domain);
		return;
	}
	if (route.connector->frontend_proxy)
		lint_find(lint, route.connector->line,
			"send-connector \"%s\": %s of partner \"%s\" (line %u) is in its "
			"address-spaces, and behind a frontend-proxy nobody sees the partner's "
			"certificate; give the domain to a send-connector of its own with "
			"domain-secure = yes and without frontend-proxy",
			route.connector->name, domain, partner->name, partner->line);
	else
		lint_find(lint, partner->line,
			"partner \"%s\": mail to %s takes send-connector \"%s\" (line %u), which "
			"is not domain-secure, and is %s; set domain-secure = yes there, or give "
			"the domain to another",
			partner->name, domain, route.connector->name, route.connector->line,
			route.connector->allow_unsecured_partners ? "sent unsecured" : "refused");
}

static bool is_listed(const struct policy *policy, const char *domain)
{
	for (unsigned p = 0; p < policy->partner_count; p++)
		for (unsigned i = 0; i < policy->partners[p].domain_count; i++)
			if (strcmp(policy->partners[p].domains[i], domain) == 0)
				return true;
	return false;
}

/* Another name in the file that a domain of a partner may be a slip of, or the reverse. */
static void lint_near_name(struct lint *lint, const struct partner *partner, const char *domain,
	const char *name, const char *where)
{
	const char *plain = strncmp(name, "*.", 2) == 0 ? name + 2 : name;

	if (!is_listed(lint->policy, plain) && spelling_is_near(domain, plain))
		lint_find(lint, partner->line,
			"partner \"%s\": its domain %s is spelt almost like %s, which is %s; if "
			"one of them is a slip, correct it",
			partner->name, domain, plain, where);
}

static void lint_spelling(struct lint *lint, const struct partner *partner, const char *domain)
{
	const struct policy *policy = lint->policy;
	char where[NAME_BYTES_MAX + 64];

	for (unsigned i = 0; i < policy->accepted_domain_count; i++)
		lint_near_name(lint, partner, domain, policy->accepted_domains[i],
			"one of accepted-domains");
	for (unsigned p = 0; p < policy->partner_count; p++) {
		const struct partner *other = &policy->partners[p];

		(void)snprintf(where, sizeof(where), "in certificate-names of partner \"%s\"",
			other->name);
		for (unsigned i = 0; i < other->certificate_name_count; i++)
			lint_near_name(lint, partner, domain, other->certificate_names[i], where);
	}
	for (unsigned s = 0; s < policy->send_connector_count; s++) {
		const struct send_connector *connector = &policy->send_connectors[s];

		(void)snprintf(where, sizeof(where),
			"in address-spaces of send-connector \"%s\" (line %u)", connector->name,
			connector->line);
		for (unsigned i = 0; i < connector->address_space_count; i++)
			lint_near_name(
				lint, partner, domain, connector->address_spaces[i].domain, where);
	}
}

static bool any_secure_receive(const struct policy *policy)
{
	for (unsigned i = 0; i < policy->receive_connector_count; i++)
		if (policy->receive_connectors[i].enabled &&
			policy->receive_connectors[i].domain_secure)
			return true;
	return false;
}

static void lint_partner(struct lint *lint, const struct partner *partner)
{
	const struct policy *policy = lint->policy;

	if (!partner->send_secure && !partner->receive_secure)
		lint_find(lint, partner->line,
			"partner \"%s\": send-secure and receive-secure are both off, so it does "
			"nothing; switch one on, or remove it",
			partner->name);
	if (partner->receive_secure && !any_secure_receive(policy))
		lint_find(lint, partner->line,
			"partner \"%s\": no receive-connector is domain-secure, so its mail is "
			"taken nowhere; set domain-secure = yes on the one that it comes to, or "
			"receive-secure = no here",
			partner->name);
	for (unsigned i = 0; i < partner->domain_count; i++) {
		if (partner->send_secure)
			lint_send_domain(lint, partner, partner->domains[i]);
		lint_spelling(lint, partner, partner->domains[i]);
	}
	for (unsigned s = 0; s < policy->internal_server_count; s++) {
		const struct internal_server *server = &policy->internal_servers[s];

		for (unsigned i = 0; i < partner->spki_pin_count; i++)
			if (pins_have(server->spki_pins, server->spki_pin_count,
				    partner->spki_pins[i].bytes))
				lint_find(lint, partner->line,
					"partner \"%s\": its key is pinned by internal-server "
					"\"%s\" (line %u), too, which may send as anybody; remove "
					"one of the pins",
					partner->name, server->name, server->line);
	}
}

static void lint_receive_rights(struct lint *lint, const struct receive_connector *connector)
{
	const unsigned groups = connector->permission_groups;

	if ((groups & PERMISSION_INTERNAL) != 0 && !connector->external_authoritative &&
		connector->client_certificate == CLIENT_CERTIFICATE_NONE)
		lint_find(lint, connector->line,
			"receive-connector \"%s\": internal is among permission-groups, but no "
			"certificate is asked for, so none of our servers is known here; set "
			"client-certificate = ask, or external-authoritative = yes",
			connector->name);
	if ((groups & PERMISSION_PARTNERS) != 0 && !connector->domain_secure)
		lint_find(lint, connector->line,
			"receive-connector \"%s\": partners is among permission-groups, but "
			"without domain-secure nobody proves to be one; set domain-secure = yes",
			connector->name);
	/* A partner's certificate is enough where it proves the domain. */
	if (connector->client_certificate == CLIENT_CERTIFICATE_REQUIRE &&
		!connector->domain_secure && groups != PERMISSION_INTERNAL &&
		connector->tls_settings.trust_anchors == NULL &&
		connector->tls_settings.spki_pin_count == 0)
		lint_find(lint, connector->line,
			"receive-connector \"%s\": client-certificate = require without "
			"trust-anchors or spki-pins of its own, so no certificate is valid, and "
			"mail is taken from our own servers only; add them, or set "
			"client-certificate = ask",
			connector->name);
}

static void lint_receive(struct lint *lint, const struct receive_connector *connector)
{
	const struct policy *policy = lint->policy;
	const bool has_partner = any_partner(policy, false);

	lint_receive_rights(lint, connector);
	if (connector->domain_secure && !has_partner)
		lint_find(lint, connector->line,
			"receive-connector \"%s\": domain-secure, but no partner is "
			"receive-secure, so there is nothing to prove; add partner \"NAME\" {...}",
			connector->name);
	if (connector->allow_unsecured_partners && !connector->domain_secure && has_partner)
		lint_find(lint, connector->line,
			"receive-connector \"%s\": allow-unsecured-partners takes mail from the "
			"domains of partners from anybody; set domain-secure = yes, or remove it",
			connector->name);
	lint_receive_door(lint, connector);
	if (connector->tls != TLS_MODE_NONE && policy->certificate_count == 0)
		lint_find(lint, connector->line,
			"receive-connector \"%s\": offers TLS, but there is no certificate at all, "
			"so it works in clear text; add certificate \"NAME\" {...} or "
			"certificate-store",
			connector->name);
}

static void lint_send(struct lint *lint, const struct send_connector *connector)
{
	const struct policy *policy = lint->policy;
	const bool has_partner = any_partner(policy, true);

	if (connector->address_space_count == 0 && !is_fixed_way(policy, connector))
		lint_find(lint, connector->line,
			"send-connector \"%s\": it has no address-spaces and no receive-connector "
			"names it, so no mail takes it; add one or the other, or remove it",
			connector->name);
	if (connector->domain_secure && !has_partner)
		lint_find(lint, connector->line,
			"send-connector \"%s\": domain-secure, but no partner is send-secure, so "
			"there is nothing to prove; add partner \"NAME\" {...}",
			connector->name);
	if (connector->domain_secure && connector->smart_host_count > 0)
		lint_find(lint, connector->line,
			"send-connector \"%s\": domain-secure with smart-hosts, which Exchange "
			"refuses: the smart host must prove the partner's domain; remove "
			"smart-hosts unless it is the partner's",
			connector->name);
	if (connector->domain_secure && connector->tls_settings.certificate == NULL &&
		policy->certificate_count == 0)
		lint_find(lint, connector->line,
			"send-connector \"%s\": domain-secure, but there is no certificate to show "
			"to the partner; add certificate \"NAME\" {...} or certificate-store",
			connector->name);
	if (connector->allow_unsecured_partners && !connector->domain_secure && has_partner)
		lint_find(lint, connector->line,
			"send-connector \"%s\": allow-unsecured-partners sends mail to the domains "
			"of partners unsecured; set domain-secure = yes, or remove it",
			connector->name);
}

void lint_policy(const struct policy *policy, FILE *out, unsigned *out_count)
{
	struct lint lint = {.policy = policy, .out = out};

	for (unsigned i = 0; i < policy->partner_count; i++) {
		lint_partner(&lint, &policy->partners[i]);
		lint_partner_list(&lint, &policy->partners[i]);
	}
	lint_list_folder(&lint);
	lint_queue(&lint);
	for (unsigned i = 0; i < policy->receive_connector_count; i++)
		if (policy->receive_connectors[i].enabled)
			lint_receive(&lint, &policy->receive_connectors[i]);
	for (unsigned i = 0; i < policy->send_connector_count; i++)
		if (policy->send_connectors[i].enabled)
			lint_send(&lint, &policy->send_connectors[i]);
	if (lint.count > 1)
		qsort(lint.findings, lint.count, sizeof(*lint.findings), finding_compare);
	for (unsigned i = 0; i < lint.count; i++) {
		(void)fprintf(out, "%s:%u: %s\n", policy->file, lint.findings[i].line,
			lint.findings[i].text);
		free(lint.findings[i].text);
	}
	free(lint.findings);
	if (out_count != NULL)
		*out_count = lint.count + lint.printed;
}
