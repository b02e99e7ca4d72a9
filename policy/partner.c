/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/partner.h"

#include "policy/admit.h"
#include <stdlib.h>
#include <string.h>

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

bool partner_is_asked(const struct partner *partner, const struct receive_connector *connector)
{
	for (unsigned i = 0; i < connector->remote_ip_partner_count; i++)
		if (strcmp(connector->remote_ip_partners[i], "*") == 0 ||
			strcmp(connector->remote_ip_partners[i], partner->name) == 0)
			return true;
	return false;
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

unsigned partner_domain_total(const struct policy *policy)
{
	unsigned count = 0;

	for (unsigned i = 0; i < policy->partner_count; i++)
		count += policy->partners[i].domain_count;
	return count;
}

/* By domain, and partners in the order of the file. */
static int domain_compare(const void *a, const void *b)
{
	const struct partner_domain *left = a, *right = b;
	const int order = strcmp(left->domain, right->domain);

	if (order != 0)
		return order;
	return (left->partner->index > right->partner->index) -
	       (left->partner->index < right->partner->index);
}

void partner_index(struct policy *policy, struct partner_domain *room)
{
	unsigned count = 0;

	for (unsigned i = 0; i < policy->partner_count; i++)
		for (unsigned j = 0; j < policy->partners[i].domain_count; j++)
			room[count++] = (struct partner_domain){
				policy->partners[i].domains[j], &policy->partners[i]};
	if (count > 1)
		qsort(room, count, sizeof(*room), domain_compare);
	policy->partner_domains = room;
	policy->partner_domain_count = count;
}

const struct partner *partner_find(
	const struct policy *policy, const char *domain, bool for_sending)
{
	unsigned low = 0, high = policy->partner_domain_count;

	while (low < high) {
		const unsigned middle = low + (high - low) / 2;

		if (strcmp(policy->partner_domains[middle].domain, domain) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < policy->partner_domain_count; low++) {
		const struct partner_domain *at = &policy->partner_domains[low];

		if (strcmp(at->domain, domain) != 0)
			break;
		if (for_sending ? at->partner->send_secure : at->partner->receive_secure)
			return at->partner;
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
