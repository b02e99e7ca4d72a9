/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/secure_send.h"

#include "policy/partner.h"

void send_requirement_of(const struct send_connector *connector, const struct route *route,
	const char *domain, struct send_requirement *out)
{
	*out = (struct send_requirement){.level = connector->tls_auth_level, .domain = domain};
	if (route->is_secured) {
		const char *own = NULL;

		ASSERT(route->partner != NULL);
		own = partner_domain(route->partner, domain);
		ASSERT(own != NULL);
		out->needs_tls = true;
		out->partner = route->partner;
		out->domain = own;
		out->is_direct = partner_is_direct(route->partner);
		out->pins = route->partner->spki_pins;
		out->pin_count = route->partner->spki_pin_count;
		return;
	}
	out->needs_tls = connector->implicit_tls || out->level >= TLS_AUTH_ENCRYPTION_ONLY;
	out->may_clear = !out->needs_tls;
	if (out->level == TLS_AUTH_DOMAIN_VALIDATION)
		out->tls_domain = connector->tls_domain;
	if (out->level < TLS_AUTH_CERTIFICATE_VALIDATION)
		return;
	out->pins = connector->tls_settings.spki_pins;
	out->pin_count = connector->tls_settings.spki_pin_count;
	out->is_direct = out->level == TLS_AUTH_FINGERPRINT ||
			 (out->pin_count > 0 && connector->tls_settings.trust_anchors == NULL);
}

bool send_needs_chain(const struct send_requirement *requirement)
{
	return !requirement->is_direct &&
	       (requirement->partner != NULL ||
		       requirement->level >= TLS_AUTH_CERTIFICATE_VALIDATION);
}

/* s6. A partner's rules are its own; the level's are exact names and "*.domain". */
static bool send_has_name(
	const struct send_requirement *requirement, const struct certificate_names *names)
{
	struct name_rules rules = {.names = NULL};

	if (requirement->partner != NULL) {
		/* Direct trust: the key is who it is. */
		if (requirement->is_direct)
			return true;
		rules = partner_rules(requirement->partner);
	} else if (requirement->level != TLS_AUTH_DOMAIN_VALIDATION) {
		return true;
	} else if (requirement->tls_domain != NULL) {
		return names_have(names, requirement->tls_domain);
	}
	return names_match(names, requirement->domain, &rules, NULL) != NAME_MATCH_NONE;
}

enum verdict send_judge(const struct send_requirement *requirement,
	const struct certificate_names *names, bool has_certificate, const uint8_t *spki,
	enum verdict chain)
{
	if (requirement->partner == NULL && requirement->level < TLS_AUTH_CERTIFICATE_VALIDATION)
		return VERDICT_VALID;
	if (!has_certificate)
		return VERDICT_EMPTY;
	/* Without pins direct trust trusts nobody. */
	if ((requirement->is_direct || requirement->pin_count > 0) &&
		!pins_have(requirement->pins, requirement->pin_count, spki))
		return VERDICT_PIN_MISMATCH;
	if (!requirement->is_direct && chain != VERDICT_VALID)
		return chain;
	return send_has_name(requirement, names) ? VERDICT_VALID : VERDICT_SUBJECT_MISMATCH;
}
