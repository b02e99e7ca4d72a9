/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_admit_property.c: random organisations and peers, and no other way in. Whatever the
 * configuration is: who is admitted as a partner has proved it, who is admitted as one of our own
 * has, and nobody else sends as a listed domain over a secured connector.
 *
 * The same numbers in each run.
 */

#include "policy/admit.h"
#include "policy/partner.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define ROUNDS 200000
#define PARTNERS_MAX 5
#define KEYS 4
#define LIST_MAX 3

/* Few of each, so that they meet. */
static const char *const domain_pool[] = {"adatum.com", "eu.adatum.com", "treyresearch.net",
	"contoso.com", "xn--bcher-kva.example", "com"};
static const char *const name_pool[] = {"adatum.com", "*.adatum.com", "mail.adatum.com",
	"eu.adatum.com", "*.eu.adatum.com", "TREYRESEARCH.NET.", "*.com", "relay.example",
	"xn--bcher-kva.example",
	("b\xc3\xbc"
	 "cher.example"),
	"", "*", "contoso.com"};
static const char *const listed_pool[] = {"relay.example", "*.adatum.com", "mail.treyresearch.net"};
static const char *const sender_pool[] = {"<>", "<a@adatum.com>", "<a@EU.Adatum.com.>",
	"<a@treyresearch.net>", "<a@contoso.com>", "<a@x.example>", "<a@[192.0.2.1]>",
	("<a@b\xc3\xbc"
	 "cher.example>"),
	"<@adatum.com:\"a@treyresearch.net\"@contoso.com>", "<a@_.com>", "<a@com>"};
static struct pin key_pool[KEYS] = {{{1}}, {{2}}, {{3}}, {{4}}};

static uint64_t random_state;

/* xorshift64; below is small. */
static unsigned random_below(unsigned below)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (unsigned)((random_state >> 20) % below);
}

static bool random_once_in(unsigned n)
{
	return random_below(n) == 0;
}

/* One organisation, and one peer of it. */
struct world {
	struct policy policy;
	struct partner partners[PARTNERS_MAX];
	struct partner_domain index[PARTNERS_MAX * LIST_MAX];
	const char *domains[PARTNERS_MAX][LIST_MAX];
	const char *listed[PARTNERS_MAX][LIST_MAX];
	struct internal_server internal;
	const char *accepted[2];
	struct receive_connector connector;
	struct admit_peer peer;
	struct span dns[LIST_MAX];
	struct span common[LIST_MAX];
	enum verdict chains[PARTNERS_MAX];
	bool judged[PARTNERS_MAX];
	struct span sender;
};

static enum verdict world_judge(void *arg, const struct partner *partner)
{
	struct world *world = arg;

	world->judged[partner->index] = true;
	return world->chains[partner->index];
}

static void world_partner(struct world *world, unsigned index)
{
	struct partner *partner = &world->partners[index];

	*partner = (struct partner){.name = "partner",
		.index = index,
		.domains = world->domains[index],
		.domain_count = random_below(LIST_MAX + 1),
		.send_secure = random_once_in(2),
		.receive_secure = !random_once_in(4),
		.trust_anchors = random_once_in(3) ? NULL : "anchors.pem",
		.certificate_names = world->listed[index],
		.certificate_name_count = random_below(2),
		.host_names = random_once_in(3),
		.common_name = random_once_in(3)};
	for (unsigned i = 0; i < LIST_MAX; i++) {
		world->domains[index][i] = domain_pool[random_below(COUNT_OF(domain_pool))];
		world->listed[index][i] = listed_pool[random_below(COUNT_OF(listed_pool))];
	}
	if (random_once_in(2)) {
		partner->spki_pins = &key_pool[random_below(KEYS - 1)];
		partner->spki_pin_count = 1 + random_below(2);
	}
	world->chains[index] =
		random_once_in(2) ? VERDICT_VALID : (enum verdict)random_below(VERDICT_COUNT);
}

static void world_connector(struct world *world)
{
	world->connector = (struct receive_connector){
		.permission_groups = random_below(8),
		.external_authoritative = random_once_in(20),
		.domain_secure = !random_once_in(3),
		.allow_unsecured_partners = random_once_in(3),
		.require_tls = random_once_in(4),
		.client_certificate = random_once_in(4) ? (enum client_certificate)random_below(3)
							: CLIENT_CERTIFICATE_ASK,
	};
}

static void world_peer(struct world *world)
{
	struct admit_peer *peer = &world->peer;

	*peer = (struct admit_peer){
		.is_tls = !random_once_in(5), .judge = world_judge, .arg = world};
	peer->has_certificate = peer->is_tls && !random_once_in(5);
	if (!peer->has_certificate)
		return;
	for (unsigned i = 0; i < LIST_MAX; i++) {
		world->dns[i] = span_of(name_pool[random_below(COUNT_OF(name_pool))]);
		world->common[i] = span_of(name_pool[random_below(COUNT_OF(name_pool))]);
	}
	peer->names = (struct certificate_names){.dns = world->dns,
		.dns_count = random_below(LIST_MAX + 1),
		.common = world->common,
		.common_count = random_below(LIST_MAX + 1)};
	peer->spki = key_pool[random_below(KEYS)].bytes;
	peer->connector_verdict =
		random_once_in(2) ? VERDICT_VALID : (enum verdict)random_below(VERDICT_COUNT);
}

static void world_make(struct world *world)
{
	*world = (struct world){.internal = {.name = "hub", .spki_pins = &key_pool[KEYS - 1]}};
	world->internal.spki_pin_count = random_below(2);
	world->accepted[0] = "contoso.com";
	world->accepted[1] = "*.fabrikam.com";
	world->policy = (struct policy){.accepted_domains = world->accepted,
		.accepted_domain_count = random_below(3),
		.partners = world->partners,
		.partner_count = random_below(PARTNERS_MAX + 1),
		.internal_servers = &world->internal,
		.internal_server_count = 1};
	for (unsigned i = 0; i < world->policy.partner_count; i++)
		world_partner(world, i);
	partner_index(&world->policy, world->index);
	world_connector(world);
	world_peer(world);
	world->sender = span_of(sender_pool[random_below(COUNT_OF(sender_pool))]);
}

static bool world_has_pin(const struct world *world, const struct pin *pins, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		if (world->peer.has_certificate &&
			memcmp(world->peer.spki, pins[i].bytes, PIN_BYTES) == 0)
			return true;
	}
	return false;
}

static bool world_has_name(
	const struct world *world, const struct partner *partner, const char *domain)
{
	const struct name_rules rules = {.names = partner->certificate_names,
		.name_count = partner->certificate_name_count,
		.host_names = partner->host_names,
		.common_name = partner->common_name};

	return names_match(&world->peer.names, domain, &rules, NULL) != NAME_MATCH_NONE;
}

/* The sender's domain as it is compared, "" if there is none. */
static void world_domain(const struct world *world, char out[static DOMAIN_BYTES_MAX])
{
	if (domain_normalize(path_domain(world->sender), out) < 0)
		out[0] = '\0';
}

/* A partner: TLS, a certificate that its own section trusts, by a name or by direct trust. */
static void check_partner(const struct world *world, const struct admission *got)
{
	const struct partner *partner = got->partner;
	bool is_listed = false;
	char domain[DOMAIN_BYTES_MAX];

	assert_non_null(partner);
	assert_non_null(got->domain);
	assert_true(world->connector.domain_secure);
	assert_true(world->peer.is_tls && world->peer.has_certificate);
	assert_true(partner->receive_secure);
	assert_int_equal(got->verdict, VERDICT_VALID);
	for (unsigned i = 0; i < partner->domain_count; i++)
		is_listed |= strcmp(partner->domains[i], got->domain) == 0;
	assert_true(is_listed);
	assert_true(partner->trust_anchors != NULL || partner->spki_pin_count > 0);
	if (partner->spki_pin_count > 0)
		assert_true(world_has_pin(world, partner->spki_pins, partner->spki_pin_count));
	if (partner->trust_anchors != NULL) {
		assert_true(world->judged[partner->index]);
		assert_int_equal(world->chains[partner->index], VERDICT_VALID);
		assert_true(world_has_name(world, partner, got->domain));
	}
	world_domain(world, domain);
	if (!span_equal(world->sender, span_of("<>")))
		assert_string_equal(got->domain, domain);
}

static void check_internal(const struct world *world)
{
	if (world->connector.external_authoritative)
		return;
	assert_true(world->connector.permission_groups & PERMISSION_INTERNAL);
	assert_true(
		world_has_pin(world, world->internal.spki_pins, world->internal.spki_pin_count));
}

/* Is the certificate that of some partner, whoever the sender is? */
static bool world_is_partner(const struct world *world)
{
	for (unsigned i = 0; i < world->policy.partner_count; i++) {
		const struct partner *partner = &world->partners[i];
		bool is_named = false;

		for (unsigned d = 0; d < partner->domain_count; d++)
			is_named |= world_has_name(world, partner, partner->domains[d]);
		if (partner->receive_secure &&
			(partner->spki_pin_count == 0 || world_has_pin(world, partner->spki_pins,
								 partner->spki_pin_count)) &&
			(partner->trust_anchors == NULL
					? partner->spki_pin_count > 0
					: is_named && world->chains[i] == VERDICT_VALID))
			return true;
	}
	return false;
}

/* client-certificate = require: good for the connector, our own server's, or a partner's. */
static void check_required(const struct world *world, const struct admission *got)
{
	const bool is_own =
		(world->connector.permission_groups & PERMISSION_INTERNAL) != 0 &&
		world_has_pin(world, world->internal.spki_pins, world->internal.spki_pin_count);

	assert_true(world->peer.has_certificate);
	if (world->peer.connector_verdict == VERDICT_VALID || is_own)
		return;
	assert_true(world->connector.domain_secure);
	assert_true(got->role == ROLE_PARTNER || world_is_partner(world));
}

static void check_admitted(const struct world *world, const struct admission *got)
{
	const unsigned groups = world->connector.permission_groups;
	char domain[DOMAIN_BYTES_MAX];

	assert_true(world->peer.is_tls || !world->connector.require_tls);
	if (world->connector.client_certificate == CLIENT_CERTIFICATE_REQUIRE)
		check_required(world, got);
	if (got->role == ROLE_INTERNAL)
		return;
	assert_true(groups & (got->role == ROLE_PARTNER ? PERMISSION_PARTNERS | PERMISSION_ANONYMOUS
							: PERMISSION_ANONYMOUS));
	/* The domain of a partner with receive-secure is that partner's only. */
	world_domain(world, domain);
	if (partner_find(&world->policy, domain, false) == NULL)
		return;
	if (world->connector.domain_secure)
		assert_int_equal(got->role, ROLE_PARTNER);
	else
		assert_true(world->connector.allow_unsecured_partners);
}

/* Nobody is asked about a chain that cannot matter. */
static void check_judged(const struct world *world)
{
	char domain[DOMAIN_BYTES_MAX];

	world_domain(world, domain);
	for (unsigned i = 0; i < world->policy.partner_count; i++) {
		const struct partner *partner = &world->partners[i];
		bool has_name = partner_domain(partner, domain) != NULL;

		if (!world->judged[i])
			continue;
		assert_true(world->connector.domain_secure && world->peer.has_certificate);
		assert_true(partner->receive_secure);
		assert_non_null(partner->trust_anchors);
		if (partner->spki_pin_count > 0)
			assert_true(
				world_has_pin(world, partner->spki_pins, partner->spki_pin_count));
		for (unsigned at = 0; at < partner->domain_count; at++)
			has_name |= world_has_name(world, partner, partner->domains[at]);
		assert_true(has_name);
	}
}

static void test_no_other_way_in(void **state)
{
	unsigned roles[ROLE_COUNT] = {0};
	unsigned statuses[ADMIT_STATUS_COUNT] = {0};

	(void)state;
	random_state = 0x9e3779b97f4a7c15;
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct world world;
		struct admission got = {.status = ADMIT_OK};

		world_make(&world);
		admit_sender(
			&world.policy, &world.connector, &world.peer, world.sender, NULL, &got);
		if (got.role == ROLE_PARTNER)
			check_partner(&world, &got);
		if (got.role == ROLE_INTERNAL)
			check_internal(&world);
		if (got.status == ADMIT_OK)
			check_admitted(&world, &got);
		check_judged(&world);
		statuses[got.status]++;
		if (got.status == ADMIT_OK)
			roles[got.role]++;
	}
	/* All of it was tried, and not just once. */
	for (unsigned i = 0; i < ROLE_COUNT; i++)
		assert_true(roles[i] > ROUNDS / 1000);
	for (unsigned i = ADMIT_OK; i <= ADMIT_OWN_DOMAIN; i++)
		if (statuses[i] < ROUNDS / 1000)
			fail_msg("%s: %u", admit_word((enum admit_status)i), statuses[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_other_way_in),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
