/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * admit_fixture.h: an organisation with its partners and connectors, built by hand, and a judge
 * of chains that counts how often it was asked about whom.
 */

#include "policy/admit.h"
#include "policy/partner.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Keys, as the first byte of a digest that is otherwise empty. */
enum fixture_key { KEY_NONE, KEY_STRANGER, KEY_PIN_1, KEY_PIN_2, KEY_BOTH, KEY_HUB, KEY_COUNT };

enum fixture_partner {
	ADATUM,   /* anchors; two domains, one of them a U-label */
	TREY,     /* anchors; a listed name, host-names */
	PINNED,   /* two pins and no anchors: direct trust */
	BOTH,     /* anchors and a pin */
	OUTBOUND, /* send-secure only */
	PARTNER_COUNT,
	NOBODY = PARTNER_COUNT,
};

enum fixture_connector {
	INTERNET,      /* anonymous, not domain-secure */
	UNSECURED,     /* the same with allow-unsecured-partners */
	PARTNERS,      /* partners, domain-secure */
	ANYBODY,       /* anonymous, domain-secure: Exchange's default on an edge */
	MIXED,         /* all three groups, domain-secure */
	INTERNAL,      /* internal only */
	AUTHORITATIVE, /* external-authoritative */
	REQUIRE_TLS,   /* anonymous, require-tls */
	REQUIRE_CERT,  /* anonymous, client-certificate = require */
	REQUIRE_BOTH,  /* anonymous and internal, domain-secure, client-certificate = require */
	NO_GROUPS,     /* nobody may submit */
	CONNECTOR_COUNT,
};

static const char *adatum_domains[] = {"adatum.com", "xn--bcher-kva.example"};
static const char *trey_domains[] = {"treyresearch.net"};
static const char *trey_names[] = {"relay.hoster.example"};
static const char *pinned_domains[] = {"pinned.example", "second.pinned.example"};
static const char *both_domains[] = {"both.example"};
static const char *outbound_domains[] = {"outbound.example"};
static struct pin pinned_pins[] = {{{KEY_PIN_1}}, {{KEY_PIN_2}}};
static struct pin both_pins[] = {{{KEY_BOTH}}};
static struct pin hub_pins[] = {{{KEY_HUB}}};
static const uint8_t fixture_keys[KEY_COUNT][PIN_BYTES] = {
	{0}, {KEY_STRANGER}, {KEY_PIN_1}, {KEY_PIN_2}, {KEY_BOTH}, {KEY_HUB}};

static struct partner fixture_partners[PARTNER_COUNT] = {
	[ADATUM] = {.name = "adatum",
		.index = ADATUM,
		.domains = adatum_domains,
		.domain_count = 2,
		.send_secure = true,
		.receive_secure = true,
		.trust_anchors = "adatum.pem"},
	[TREY] = {.name = "trey",
		.index = TREY,
		.domains = trey_domains,
		.domain_count = 1,
		.send_secure = true,
		.receive_secure = true,
		.trust_anchors = "trey.pem",
		.certificate_names = trey_names,
		.certificate_name_count = 1,
		.host_names = true},
	[PINNED] = {.name = "pinned",
		.index = PINNED,
		.domains = pinned_domains,
		.domain_count = 2,
		.send_secure = true,
		.receive_secure = true,
		.spki_pins = pinned_pins,
		.spki_pin_count = 2},
	[BOTH] = {.name = "both",
		.index = BOTH,
		.domains = both_domains,
		.domain_count = 1,
		.send_secure = true,
		.receive_secure = true,
		.trust_anchors = "both.pem",
		.spki_pins = both_pins,
		.spki_pin_count = 1},
	[OUTBOUND] = {.name = "outbound",
		.index = OUTBOUND,
		.domains = outbound_domains,
		.domain_count = 1,
		.send_secure = true,
		.trust_anchors = "outbound.pem"},
};

static struct internal_server fixture_internal[] = {
	{.name = "hub", .spki_pins = hub_pins, .spki_pin_count = 1}};
static const char *fixture_accepted[] = {"contoso.com", "*.fabrikam.com"};

static struct policy fixture_policy = {.fqdn = "edge.contoso.com",
	.accepted_domains = fixture_accepted,
	.accepted_domain_count = 2,
	.partners = fixture_partners,
	.partner_count = PARTNER_COUNT,
	.internal_servers = fixture_internal,
	.internal_server_count = 1};

/* For cmocka, once: what policy_load() would do. */
static inline int fixture_index(void **state)
{
	static struct partner_domain room[16];

	(void)state;
	assert_in_range(partner_domain_total(&fixture_policy), 1, COUNT_OF(room));
	partner_index(&fixture_policy, room);
	return 0;
}

static struct receive_connector fixture_connectors[CONNECTOR_COUNT] = {
	[INTERNET] = {.permission_groups = PERMISSION_ANONYMOUS, .tls = TLS_MODE_STARTTLS},
	[UNSECURED] = {.permission_groups = PERMISSION_ANONYMOUS,
		.tls = TLS_MODE_STARTTLS,
		.allow_unsecured_partners = true},
	[PARTNERS] = {.permission_groups = PERMISSION_PARTNERS,
		.tls = TLS_MODE_STARTTLS,
		.client_certificate = CLIENT_CERTIFICATE_ASK,
		.domain_secure = true},
	[ANYBODY] = {.permission_groups = PERMISSION_ANONYMOUS,
		.tls = TLS_MODE_STARTTLS,
		.client_certificate = CLIENT_CERTIFICATE_ASK,
		.domain_secure = true},
	[MIXED] = {.permission_groups =
			   PERMISSION_ANONYMOUS | PERMISSION_PARTNERS | PERMISSION_INTERNAL,
		.tls = TLS_MODE_STARTTLS,
		.client_certificate = CLIENT_CERTIFICATE_ASK,
		.domain_secure = true},
	[INTERNAL] = {.permission_groups = PERMISSION_INTERNAL,
		.tls = TLS_MODE_STARTTLS,
		.client_certificate = CLIENT_CERTIFICATE_ASK},
	[AUTHORITATIVE] = {.external_authoritative = true},
	[REQUIRE_TLS] = {.permission_groups = PERMISSION_ANONYMOUS,
		.tls = TLS_MODE_STARTTLS,
		.require_tls = true},
	[REQUIRE_CERT] = {.permission_groups = PERMISSION_ANONYMOUS,
		.tls = TLS_MODE_STARTTLS,
		.client_certificate = CLIENT_CERTIFICATE_REQUIRE},
	[REQUIRE_BOTH] = {.permission_groups = PERMISSION_ANONYMOUS | PERMISSION_INTERNAL,
		.tls = TLS_MODE_STARTTLS,
		.client_certificate = CLIENT_CERTIFICATE_REQUIRE,
		.domain_secure = true},
	[NO_GROUPS] = {.tls = TLS_MODE_STARTTLS,
		.client_certificate = CLIENT_CERTIFICATE_ASK,
		.domain_secure = true},
};

/* What the judge will say, and what it was asked. */
struct fixture_judge {
	enum verdict chains[PARTNER_COUNT];
	unsigned calls[PARTNER_COUNT];
};

static inline enum verdict fixture_judge(void *arg, const struct partner *partner)
{
	struct fixture_judge *judge = arg;

	assert_in_range(partner->index, 0, PARTNER_COUNT - 1);
	judge->calls[partner->index]++;
	return judge->chains[partner->index];
}

/* Which partners were asked about, as bits; nobody may be asked about twice. */
static inline unsigned fixture_judged(const struct fixture_judge *judge)
{
	unsigned judged = 0;

	for (unsigned i = 0; i < PARTNER_COUNT; i++) {
		assert_in_range(judge->calls[i], 0, 1);
		judged |= judge->calls[i] > 0 ? BIT(i) : 0;
	}
	return judged;
}
