/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * partner.h: what a partner's section says about a domain, a name and a key. For admit.c and
 * secure_send.c, which do the same for the two directions. Pure.
 */

#include "policy/names.h"
#include "policy/policy.h"

/* Is the key (SHA-256, may be NULL) one of the pins? */
bool pins_have(const struct pin *pins, unsigned count, const uint8_t *spki);

/* The partner's own copy of a domain (normalized) that it lists, or NULL. */
const char *partner_domain(const struct partner *partner, const char *domain);

/* How many domains all partners list. */
unsigned partner_domain_total(const struct policy *policy);

/* Puts them all, sorted, into the policy's index; it has room for so many. */
void partner_index(struct policy *policy, struct partner_domain *room);

/* Does the connector ask its list of addresses: by name, or by "*"? */
bool partner_is_asked(const struct partner *partner, const struct receive_connector *connector);

/* The partner's rules for names. */
struct name_rules partner_rules(const struct partner *partner);

/* Direct trust: pins and no anchors. The key alone decides, whatever issuer, dates and names. */
bool partner_is_direct(const struct partner *partner);

/* Is the domain base, or below it? */
bool domain_is_within(const char *domain, const char *base);
