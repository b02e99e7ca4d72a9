/* SPDX-License-Identifier: Apache-2.0 */

/*
 * check_partner.c: partners among themselves, and against our own domains.
 */

#include "policy/admit.h"
#include "policy/check.h"
#include <string.h>

/* A domain may stand in one partner once: it says whose anchors decide. */
static void check_domain_once(struct config *config, unsigned s, unsigned index, unsigned line)
{
	const struct partner *partners = config->owner->policy.partners;
	const unsigned own = config->sections[s].index;
	const char *domain = partners[own].domains[index];

	for (unsigned p = 0; p <= own; p++) {
		const unsigned count = p == own ? index : partners[p].domain_count;

		for (unsigned i = 0; i < count; i++) {
			if (strcmp(partners[p].domains[i], domain) != 0)
				continue;
			config_mistake(config, line,
				"domain \"%s\" of partner \"%s\" belongs to partner \"%s\" already "
				"(line %u), expected each once",
				domain, partners[own].name, partners[p].name, partners[p].line);
			return;
		}
	}
}

static void check_partner(struct config *config, unsigned s, const struct partner *partner)
{
	const struct policy *policy = &config->owner->policy;
	const bool has_anchors = check_is_set(config, s, "trust-anchors");

	if (!has_anchors && !check_is_set(config, s, "spki-pins"))
		config_mistake(config, partner->line,
			"partner \"%s\" cannot prove itself, expected trust-anchors = FILE or "
			"spki-pins = {...}",
			partner->name);
	if (!has_anchors && check_is_set(config, s, "crl-files"))
		config_mistake(config, config_line(config, s, "crl-files"),
			"crl-files without trust-anchors revoke nothing, expected trust-anchors = "
			"FILE");
	for (unsigned i = 0; i < partner->domain_count; i++) {
		const unsigned line = check_element_line(config, s, "domains", i);

		if (policy_is_accepted_domain(policy, partner->domains[i]))
			config_mistake(config, line,
				"domain \"%s\" of partner \"%s\" is one of accepted-domains, our "
				"own, expected domains of the partner only",
				partner->domains[i], partner->name);
		check_domain_once(config, s, i, line);
	}
}

void check_partners(struct config *config)
{
	const struct policy *policy = &config->owner->policy;

	for (unsigned s = 0; s < config->section_count; s++)
		if (config->sections[s].kind == SECTION_PARTNER)
			check_partner(config, s, &policy->partners[config->sections[s].index]);
}
