/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/partner.h"

#include "policy/admit.h"

bool pins_have(const struct pin *pins, unsigned count, const uint8_t *spki)
{
	for (unsigned i = 0; spki != NULL && i < count; i++) {
		if (memcmp(pins[i].bytes, spki, PIN_BYTES) == 0)
			return true;
	}
	return false;
}

const char *partner_domain(const struct partner *partner, const char *domain)
{
	for (unsigned i = 0; i < partner->domain_count; i++) {
		if (strcmp(partner->domains[i], domain) == 0)
			return partner->domains[i];
	}
	return NULL;
}

struct name_rules partner_rules(const struct partner *partner)
{
	return (struct name_rules){
		.names = partner->certificate_names,
		.name_count = partner->certificate_name_count,
		.host_names = partner->host_names,
		.common_name = partner->common_name,
	};
}

bool partner_is_direct(const struct partner *partner)
{
	return partner->spki_pin_count > 0 && partner->trust_anchors == NULL;
}

const struct partner *partner_find(
	const struct policy *policy, const char *domain, bool for_sending)
{
	for (unsigned i = 0; i < policy->partner_count; i++) {
		const struct partner *partner = &policy->partners[i];

		if ((for_sending ? partner->send_secure : partner->receive_secure) &&
			partner_domain(partner, domain) != NULL)
			return partner;
	}
	return NULL;
}

bool domain_is_within(const char *domain, const char *base)
{
	const size_t len = strlen(domain);
	const size_t base_len = strlen(base);

	return len >= base_len && strcmp(domain + len - base_len, base) == 0 &&
	       (len == base_len || domain[len - base_len - 1] == '.');
}

/* Does the entry "x" or "*.x" of accepted-domains take the domain in? */
static bool entry_accepts(const char *entry, const char *domain)
{
	if (strncmp(entry, "*.", 2) == 0)
		return domain_is_within(domain, entry + 2);
	return strcmp(entry, domain) == 0;
}

bool policy_is_accepted_domain(const struct policy *policy, const char *domain)
{
	for (unsigned i = 0; i < policy->accepted_domain_count; i++) {
		if (entry_accepts(policy->accepted_domains[i], domain))
			return true;
	}
	return false;
}
