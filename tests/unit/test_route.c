/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_route.c: which send connector (EXCHANGE 3.1, table 14 row 24).
 */

#include "policy/route.h"
#include "tests/unit/config_fixture.h"

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
		cmocka_unit_test(test_row_24_send_connector_choice),
		cmocka_unit_test(test_unreachable),
		cmocka_unit_test(test_fixed),
	};

	return cmocka_run_group_tests_name("route", tests, fixture_setup, fixture_teardown);
}
