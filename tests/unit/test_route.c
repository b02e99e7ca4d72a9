/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_route.c: which connector (EXCHANGE 2.1 and 3.1, table 14 rows 1 and 24).
 */

#include "policy/route.h"
#include "tests/unit/config_fixture.h"
#include <arpa/inet.h>

static struct address address_of(const char *text, uint16_t port)
{
	struct address address = {0};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};

	if (inet_pton(AF_INET, text, &in.sin_addr) == 1) {
		memcpy(&address.sockaddr, &in, sizeof(in));
		address.len = sizeof(in);
	} else {
		assert_int_equal(inet_pton(AF_INET6, text, &in6.sin6_addr), 1);
		memcpy(&address.sockaddr, &in6, sizeof(in6));
		address.len = sizeof(in6);
	}
	return address;
}

/* Who comes from where to which address, and which connector serves it. */
struct arrival {
	const char *peer, *local;
	uint16_t port;
	uint32_t zone;
	const char *connector; /* NULL: nobody */
};

static void check_arrivals(const char *text, const struct arrival *rows, size_t count)
{
	struct policy *policy = NULL;

	if (load_text(text, &policy) != 0)
		fail_msg("%s", said);
	for (size_t i = 0; i < count; i++) {
		const struct address local = address_of(rows[i].local, rows[i].port);
		const struct receive_connector *got = NULL;
		struct ip peer;

		assert_int_equal(ip_parse(rows[i].peer, &peer), 0);
		got = route_receive(policy, &local, &peer, rows[i].zone);
		if ((got == NULL) != (rows[i].connector == NULL) ||
			(got != NULL && strcmp(got->name, rows[i].connector) != 0))
			fail_msg("%s to %s:%u: expected %s, got %s", rows[i].peer, rows[i].local,
				rows[i].port, rows[i].connector, got == NULL ? "none" : got->name);
	}
	policy_destroy(&policy);
}

#define OUT "send-connector out { smart-hosts = \"203.0.113.9:2599\" }\n"

/* The example of Microsoft's page on receive connectors. */
static void test_row_1_connector_match_example(void **state)
{
	static const struct arrival rows[] = {
		{"192.168.1.75", "192.0.2.1", 25, 0, "c"},
		{"192.168.1.100", "192.0.2.1", 25, 0, "b"},
		{"192.168.2.75", "192.0.2.1", 25, 0, "a"},
		{"::ffff:192.168.1.75", "192.0.2.1", 25, 0, "c"},
		{"2001:db8::1", "2001:db8::25", 25, 0, NULL},
		{"192.168.1.75", "192.0.2.1", 587, 0, NULL},
	};

	(void)state;
	check_arrivals(OUT "receive-connector a { bindings = \"0.0.0.0:25\" send-connector = out\n"
			   " remote-ip-ranges = \"0.0.0.0-255.255.255.255\" }\n"
			   "receive-connector b { bindings = \"0.0.0.0:25\" send-connector = out\n"
			   " remote-ip-ranges = \"192.168.1.0-192.168.1.255\" }\n"
			   "receive-connector c { bindings = \"0.0.0.0:25\" send-connector = out\n"
			   " remote-ip-ranges = 192.168.1.75 }\n",
		rows, COUNT_OF(rows));
}

static void test_row_1_connector_match(void **state)
{
	static const struct arrival rows[] = {
		/* Without ranges: everybody, of both families, and the widest of all. */
		{"203.0.113.1", "192.0.2.1", 25, 0, "all"},
		{"2001:db8::1", "2001:db8::25", 25, 0, "all"},
		{"198.51.100.1", "192.0.2.1", 25, 0, "partner"},
		{"198.51.100.15", "192.0.2.1", 25, 0, "partner"},
		{"198.51.100.16", "192.0.2.1", 25, 0, "all"},
		{"2001:db8:51::9", "2001:db8::25", 25, 0, "partner"},
		{"2001:db8:52::9", "2001:db8::25", 25, 0, "all"},
		{"::ffff:198.51.100.1", "::ffff:192.0.2.1", 25, 0, "partner"},
		/* An exact address goes before the wildcard, even with a wider range. */
		{"198.51.100.1", "192.0.2.7", 25, 0, "exact"},
		{"203.0.113.1", "192.0.2.7", 25, 0, "all"},
		/* By zone. */
		{"fe80::1", "fe80::25", 26, 2, "link"},
		{"fe80::1", "fe80::25", 26, 3, "links"},
		{"fe80::1", "fe80::25", 26, 0, "links"},
		{"2001:db8::1", "fe80::25", 26, 2, NULL},
		/* Of two ranges of one connector the narrower counts. */
		{"10.0.0.1", "192.0.2.1", 27, 0, "two"},
		{"10.0.0.9", "192.0.2.1", 27, 0, "mid"},
		{"10.9.0.1", "192.0.2.1", 27, 0, "two"},
		/* Not enabled. */
		{"192.0.2.99", "192.0.2.1", 28, 0, NULL},
	};

	(void)state;
	check_arrivals(OUT
		"receive-connector all { bindings = {\"[::]:25\", \"0.0.0.0:25\"}\n"
		" send-connector = out }\n"
		"receive-connector partner { bindings = {\"0.0.0.0:25\", \"[::]:25\"}\n"
		" remote-ip-ranges = {\"198.51.100.0/28\", \"2001:db8:51::/64\"}\n"
		" send-connector = out }\n"
		"receive-connector exact { bindings = \"192.0.2.7:25\" send-connector = out\n"
		" remote-ip-ranges = \"198.51.100.0/24\" }\n"
		"receive-connector links { bindings = \"[::]:26\" send-connector = out\n"
		" remote-ip-ranges = \"fe80::/10\" }\n"
		"receive-connector link { bindings = \"[::]:26\" send-connector = out\n"
		" remote-ip-ranges = \"fe80::%2/10\" }\n"
		"receive-connector two { bindings = \"0.0.0.0:27\" send-connector = out\n"
		" remote-ip-ranges = {\"10.0.0.0/8\", \"10.0.0.0/30\"} }\n"
		"receive-connector mid { bindings = \"0.0.0.0:27\" send-connector = out\n"
		" remote-ip-ranges = \"10.0.0.0/24\" }\n"
		"receive-connector off { bindings = \"0.0.0.0:28\" send-connector = out\n"
		" enabled = no }\n",
		rows, COUNT_OF(rows));
}

static uint32_t seed;

static uint32_t roll(uint32_t below)
{
	seed = seed * 1664525u + 1013904223u;
	return (uint32_t)(((uint64_t)seed * below) >> 32);
}

#define DOORS 8

/* A range that is inside of, around, or apart from each of those before it. */
static struct ip_range roll_range(const struct receive_connector *before, unsigned count)
{
	struct ip_range range;
	bool again = true;

	while (again) {
		const uint8_t one = (uint8_t)roll(256), two = (uint8_t)roll(256);

		range = (struct ip_range){.first.bytes = {10, 0, 0, one < two ? one : two},
			.last.bytes = {10, 0, 0, one < two ? two : one}};
		again = false;
		for (unsigned i = 0; i < count; i++) {
			const struct ip_range *other = before[i].remote_ip_ranges;

			again = again || (ip_range_overlaps(&range, other) &&
						 ip_range_holds(&range, other) ==
							 ip_range_holds(other, &range));
		}
	}
	return range;
}

/* Whoever wins, its range is inside of every other range that has the peer in it. */
static void test_row_1_connector_match_property(void **state)
{
	static struct receive_connector doors[DOORS];
	static struct ip_range ranges[DOORS];
	struct address local = address_of("192.0.2.1", 25);
	unsigned served = 0;

	(void)state;
	seed = 3;
	for (unsigned round = 0; round < 2000; round++) {
		struct policy policy = {
			.receive_connectors = doors, .receive_connector_count = 1 + roll(DOORS)};
		struct ip peer = {.bytes = {10, 0, 0, (uint8_t)roll(256)}};
		const struct receive_connector *winner = NULL;
		unsigned matching = 0;

		for (unsigned i = 0; i < policy.receive_connector_count; i++) {
			ranges[i] = roll_range(doors, i);
			doors[i] = (struct receive_connector){.enabled = true,
				.bindings = &local,
				.binding_count = 1,
				.remote_ip_ranges = &ranges[i],
				.remote_ip_range_count = 1};
			matching += ip_range_has(&ranges[i], &peer);
		}
		winner = route_receive(&policy, &local, &peer, 0);
		assert_int_equal(winner != NULL, matching > 0);
		served += winner != NULL;
		for (unsigned i = 0; winner != NULL && i < policy.receive_connector_count; i++)
			if (ip_range_has(&ranges[i], &peer))
				assert_true(ip_range_holds(&ranges[i], winner->remote_ip_ranges));
	}
	assert_in_range(served, 500, 2000);
}

/* Where mail of so many bytes to a domain goes. */
struct departure {
	const char *domain;
	uint64_t bytes;
	enum route_status status;
	const char *connector;
	const char *partner;
	bool is_secured;
};

static void check_departures(
	const struct policy *policy, const struct departure *rows, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct route route;

		route_send(policy, rows[i].domain, rows[i].bytes, &route);
		if (route.status != rows[i].status ||
			(route.connector == NULL) != (rows[i].connector == NULL) ||
			(route.connector != NULL &&
				strcmp(route.connector->name, rows[i].connector) != 0))
			fail_msg("%s, %u bytes: expected %d, %s, got %d, %s", rows[i].domain,
				(unsigned)rows[i].bytes, rows[i].status, rows[i].connector,
				route.status,
				route.connector == NULL ? "none" : route.connector->name);
		assert_int_equal(route.space != NULL, route.connector != NULL);
		assert_int_equal(route.partner != NULL, rows[i].partner != NULL);
		if (route.partner != NULL)
			assert_string_equal(route.partner->name, rows[i].partner);
		assert_int_equal(route.is_secured, rows[i].is_secured);
	}
}

#define MB ((uint64_t)1024 * 1024)

static void test_row_24_send_connector_choice(void **state)
{
	static const struct departure rows[] = {
		/* Exact, then the longest "*.", then "*". */
		{"contoso.com", 0, ROUTE_OK, "exact", NULL, false},
		{"a.contoso.com", 0, ROUTE_OK, "below", NULL, false},
		{"b.a.contoso.com", 0, ROUTE_OK, "below", NULL, false},
		{"eu.contoso.com", 0, ROUTE_OK, "eu", NULL, false},
		{"a.eu.contoso.com", 0, ROUTE_OK, "eu", NULL, false},
		{"neu.contoso.com", 0, ROUTE_OK, "below", NULL, false},
		{"notcontoso.com", 0, ROUTE_OK, "any", NULL, false},
		{"com", 0, ROUTE_OK, "any", NULL, false},
		/* By cost, and by name with the same. */
		{"cost.net", 0, ROUTE_OK, "cheap", NULL, false},
		{"tie.net", 0, ROUTE_OK, "Cheap2", NULL, false},
		/* "--" is as exact as the domain, whatever it is listed as. */
		{"ours.org", 0, ROUTE_OK, "inside", NULL, false},
		{"sub.ours.org", 0, ROUTE_OK, "inside", NULL, false},
		{"special.ours.org", 0, ROUTE_OK, "special", NULL, false},
		/* Too small ones are dropped first, so that a wider space may win. */
		{"contoso.com", MB, ROUTE_OK, "exact", NULL, false},
		{"contoso.com", MB + 1, ROUTE_OK, "below", NULL, false},
		{"contoso.com", 36 * MB + 1, ROUTE_TOO_LARGE, NULL, NULL, false},
		{"notcontoso.com", 37 * MB, ROUTE_TOO_LARGE, NULL, NULL, false},
		/* Partners. */
		{"adatum.com", 0, ROUTE_OK, "secure", "adatum", true},
		{"open.adatum.com", 0, ROUTE_OK, "any", "adatum", false},
		{"sub.adatum.com", 0, ROUTE_OK, "any", NULL, false},
		{"in.adatum.com", 0, ROUTE_OK, "any", NULL, false},
	};
	struct policy *policy = NULL;

	(void)state;
	if (load_text("transport { accepted-domains = {ours.org, \"*.ours.org\"} }\n"
		      "receive-connector in { bindings = \"127.0.0.1:2525\" }\n"
		      "send-connector any { address-spaces = \"*;1\" }\n"
		      "send-connector below { address-spaces = \"*.contoso.com;100\" }\n"
		      "send-connector exact { address-spaces = \"SMTP:CONTOSO.com;50\"\n"
		      " max-message-size = 1MB }\n"
		      "send-connector eu { address-spaces = \"*.eu.contoso.com\" }\n"
		      "send-connector dear { address-spaces = {\"cost.net;3\", \"tie.net;2\"} }\n"
		      "send-connector cheap { address-spaces = {\"cost.net;2\", \"tie.net;3\"} }\n"
		      "send-connector cheap3 { address-spaces = \"tie.net;2\" }\n"
		      "send-connector Cheap2 { address-spaces = {\"tie.net;7\", \"tie.net;2\"} }\n"
		      "send-connector inside { address-spaces = \"--;9\"\n"
		      " smart-hosts = \"203.0.113.1\" }\n"
		      "send-connector special { address-spaces = \"special.ours.org;8\" }\n"
		      "send-connector off { address-spaces = \"contoso.com\" enabled = no }\n"
		      "send-connector fixed { smart-hosts = \"203.0.113.1\" }\n"
		      "send-connector secure { address-spaces = \"adatum.com\"\n"
		      " domain-secure = yes }\n"
		      "partner adatum { domains = {adatum.com, open.adatum.com}\n"
		      " trust-anchors = good.pem }\n"
		      "partner in { domains = in.adatum.com trust-anchors = good.pem\n"
		      " send-secure = no }\n",
		    &policy) != 0)
		fail_msg("%s", said);
	check_departures(policy, rows, COUNT_OF(rows));
	policy_destroy(&policy);
}

static void test_unreachable(void **state)
{
	static const struct departure rows[] = {
		{"contoso.com", 0, ROUTE_OK, "one", NULL, false},
		{"contoso.net", 0, ROUTE_UNREACHABLE, NULL, NULL, false},
		{"contoso.net", 1 << 30, ROUTE_UNREACHABLE, NULL, NULL, false},
		{"adatum.com", 0, ROUTE_UNREACHABLE, NULL, "adatum", false},
		/* Without accepted-domains "--" is nobody. */
		{"ours.org", 0, ROUTE_UNREACHABLE, NULL, NULL, false},
	};
	struct policy *policy = NULL;

	(void)state;
	if (load_text("receive-connector in { bindings = \"127.0.0.1:2525\" }\n"
		      "send-connector one { address-spaces = {\"contoso.com\", \"--\"} }\n"
		      "partner adatum { domains = adatum.com trust-anchors = good.pem }\n",
		    &policy) != 0)
		fail_msg("%s", said);
	check_departures(policy, rows, COUNT_OF(rows));
	policy_destroy(&policy);
}

/* With the connector given, address spaces do not matter; size and partners do. */
static void test_fixed(void **state)
{
	struct policy *policy = NULL;
	const struct send_connector *plain = NULL, *secure = NULL;
	struct route route;

	(void)state;
	if (load_text("receive-connector in { bindings = \"127.0.0.1:2525\"\n"
		      " send-connector = plain }\n"
		      "send-connector plain { smart-hosts = \"203.0.113.1\"\n"
		      " max-message-size = 64KB }\n"
		      "send-connector secure { domain-secure = yes }\n"
		      "partner adatum { domains = adatum.com trust-anchors = good.pem }\n",
		    &policy) != 0)
		fail_msg("%s", said);
	plain = &policy->send_connectors[0];
	secure = &policy->send_connectors[1];
	route_fixed(policy, plain, "contoso.com", 65536, &route);
	assert_int_equal(route.status, ROUTE_OK);
	assert_ptr_equal(route.connector, plain);
	assert_null(route.space);
	assert_null(route.partner);
	route_fixed(policy, plain, "contoso.com", 65537, &route);
	assert_int_equal(route.status, ROUTE_TOO_LARGE);
	route_fixed(policy, plain, "adatum.com", 0, &route);
	assert_int_equal(route.status, ROUTE_OK);
	assert_ptr_equal(route.partner, &policy->partners[0]);
	assert_false(route.is_secured);
	route_fixed(policy, secure, "adatum.com", 0, &route);
	assert_true(route.is_secured);
	route_fixed(policy, secure, "contoso.com", 0, &route);
	assert_false(route.is_secured);
	policy_destroy(&policy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_row_1_connector_match_example),
		cmocka_unit_test(test_row_1_connector_match),
		cmocka_unit_test(test_row_1_connector_match_property),
		cmocka_unit_test(test_row_24_send_connector_choice),
		cmocka_unit_test(test_unreachable),
		cmocka_unit_test(test_fixed),
	};

	return cmocka_run_group_tests_name("route", tests, fixture_setup, fixture_teardown);
}
