/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_config_door.c: keywords of the door: what they become, and each mistake with its line.
 */

#include "bpf/shared.h"
#include "tests/unit/config_fixture.h"

#define OUT "send-connector out { smart-hosts = \"203.0.113.9:2599\" }\n"
#define IN "receive-connector in { bindings = \"127.0.0.1:2525\" send-connector = out }\n"

static struct policy *load(const char *text)
{
	struct policy *policy = NULL;

	if (load_text(text, &policy) != 0)
		fail_msg("%s", said);
	return policy;
}

static void test_defaults(void **state)
{
	struct policy *policy = load(OUT IN);
	const struct receive_connector *in = &policy->receive_connectors[0];

	(void)state;
	assert_string_equal(said, "");
	assert_int_equal(policy->bpf, BPF_AUTO);
	assert_string_equal(policy->bpf_pin_folder, "/sys/fs/bpf/postern");
	assert_string_equal(policy->door, "sk_lookup");
	assert_int_equal(policy->shield_interface_count, 0);
	assert_null(policy->partner_lists);
	assert_null(policy->control_socket);
	assert_null(policy->control_group);
	assert_int_equal(in->remote_ip_partner_count, 0);
	assert_int_equal(in->proxy_balancer_count, 0);
	assert_int_equal(in->xclient_host_count, 0);
	assert_true(in->connection_rate_limit == POLICY_UNLIMITED);
	assert_int_equal(policy->send_connectors[0].client_identity, CLIENT_IDENTITY_NONE);
	policy_destroy(&policy);
}

static void test_values(void **state)
{
	struct policy *policy = load(
		"transport { bpf = required bpf-pin-folder = \"/run/bpf/x\"\n"
		" door = \"sk_lookup+xdp:lo,fifteen-letters\"\n"
		" partner-lists = certs control-socket = \"/run/postern.sock\"\n"
		" control-group = root }\n"
		"receive-connector in { bindings = \"127.0.0.1:2525\" send-connector = out\n"
		" remote-ip-partners = {a, b} proxy-balancers = \"10.0.0.0/30\"\n"
		" xclient-hosts = {10.0.0.9, \"2001:db8::9\"} connection-rate-limit = 60 }\n"
		"send-connector out { smart-hosts = \"203.0.113.9:2599\" trusted-next-hop = yes\n"
		" client-identity = xclient }\n"
		"partner a { domains = a.example trust-anchors = good.pem }\n"
		"partner b { domains = b.example trust-anchors = good.pem }\n");
	const struct receive_connector *in = &policy->receive_connectors[0];

	(void)state;
	/* An interface that is not there may come. */
	assert_int_equal(said_lines(), 1);
	assert_true(said_at(2, "warning: door has the interface \"fifteen-letters\", which this "
			       "machine does not have now"));
	assert_int_equal(policy->bpf, BPF_REQUIRED);
	assert_string_equal(policy->bpf_pin_folder, "/run/bpf/x");
	assert_int_equal(policy->shield_interface_count, 2);
	assert_string_equal(policy->shield_interfaces[0], "lo");
	assert_string_equal(policy->shield_interfaces[1], "fifteen-letters");
	assert_non_null(strstr(policy->partner_lists, "/certs"));
	assert_string_equal(policy->control_socket, "/run/postern.sock");
	assert_string_equal(policy->control_group, "root");
	assert_int_equal(in->remote_ip_partner_count, 2);
	assert_string_equal(in->remote_ip_partners[1], "b");
	assert_int_equal(in->proxy_balancer_count, 1);
	assert_int_equal(in->xclient_host_count, 2);
	assert_int_equal(in->connection_rate_limit, 60);
	assert_int_equal(policy->send_connectors[0].client_identity, CLIENT_IDENTITY_XCLIENT);
	policy_destroy(&policy);
}

static const struct mistake transport_rows[] = {
	{"bpf word", "bpf = on", "expected auto, required or off", 0},
	{"pins of nowhere", "bpf-pin-folder = \"bpf/postern\"",
		"bpf-pin-folder is \"bpf/postern\", expected a path that starts with \"/\"", 0},
	{"socket of nowhere", "control-socket = \"postern.sock\"",
		"control-socket is \"postern.sock\", expected a path", 0},
	{"socket too long",
		"control-socket = "
		"\"/"
		"12345678901234567890123456789012345678901234567890123456789012345678901234567890"
		"12345678901234567890\"",
		"control-socket is", 0},
	{"group unknown", "control-socket = \"/x\"\ncontrol-group = nobody-here",
		"control-group is \"nobody-here\", which this machine does not know", 3},
	{"group of nothing", "control-group = root", "control-group without a socket", 0},
	{"no such folder", "partner-lists = nowhere", "partner-lists is", 0},
	{"door word", "door = \"xdp\"", "expected sk_lookup, or sk_lookup+xdp:INTERFACE", 0},
	{"door and more", "door = \"sk_lookup+tc:lo\"", "expected sk_lookup, or", 0},
	{"no interface", "door = \"sk_lookup+xdp:\"", "an interface \"\", expected a name", 0},
	{"an empty interface", "door = \"sk_lookup+xdp:lo,\"", "an interface \"\", expected", 0},
	{"a long interface", "door = \"sk_lookup+xdp:sixteen-letters-\"",
		"\"sixteen-letters-\", expected a name of 1 to 15 bytes", 0},
	{"an interface twice", "door = \"sk_lookup+xdp:lo,lo\"", "the interface \"lo\" twice", 0},
	{"shield without bpf", "door = \"sk_lookup+xdp:lo\"\nbpf = off", "xdp with bpf = off", 2},
};

static void test_transport_mistakes(void **state)
{
	(void)state;
	check_mistakes("transport {\n", "}\n" OUT IN, 2, transport_rows, COUNT_OF(transport_rows));
}

static const struct mistake receive_rows[] = {
	{"no such partner", "remote-ip-partners = {a,\nx}",
		"remote-ip-partners has \"x\", expected the name of a partner section, or \"*\"",
		7},
	{"a partner twice", "remote-ip-partners = {a, b, a}", "has \"a\" twice", 0},
	{"not a file's name", "remote-ip-partners = {\"../etc\"}", "cannot have a list", 4},
	{"a partner of two connectors",
		"remote-ip-partners = {a, b} }\nreceive-connector other {\n"
		"bindings = \"127.0.0.1:2525\" send-connector = out\n"
		"remote-ip-partners = {\nb}",
		"of receive-connector \"other\" has \"b\", and receive-connector \"in\" has \"b\" "
		"(line 6) on the same binding",
		10},
	{"not an address", "proxy-balancers = balancer.example", "expected an address", 0},
	{"not an address", "xclient-hosts = \"10.0.0.0/33\"", "expected an address", 0},
	{"no rate", "connection-rate-limit = 0", "or unlimited", 0},
	{"balancer of two",
		"proxy-balancers = 10.0.0.1 }\nreceive-connector other {\n"
		"bindings = \"127.0.0.1:2525\" send-connector = out\n"
		"remote-ip-ranges = 10.9.0.0\nproxy-balancers = {10.0.0.2,\n10.0.0.1}",
		"balancer 10.0.0.1 of receive-connector \"other\" belongs to receive-connector "
		"\"in\" already (line 6)",
		11},
	{"balancers in part",
		"proxy-balancers = \"10.0.0.1-10.0.0.5\" }\nreceive-connector other {\n"
		"bindings = \"127.0.0.1:2525\" send-connector = out\n"
		"remote-ip-ranges = 10.9.0.0\nproxy-balancers = \"10.0.0.5-10.0.0.6\"",
		"balancer 10.0.0.5-10.0.0.6 of receive-connector \"other\" overlaps "
		"10.0.0.1-10.0.0.5 of receive-connector \"in\" (line 6) in part",
		10},
	{"a balancer in part of its own",
		"proxy-balancers = \"10.0.0.1-10.0.0.5\"\nremote-ip-ranges = \"10.0.0.4/30\"",
		"balancer 10.0.0.1-10.0.0.5 of receive-connector \"in\" overlaps 10.0.0.4/30", 6},
	{"a range in part of a balancer",
		"proxy-balancers = \"10.0.0.1-10.0.0.5\" }\nreceive-connector other {\n"
		"bindings = \"127.0.0.1:2525\" send-connector = out\n"
		"remote-ip-ranges = \"10.0.0.5-10.0.0.6\"",
		"remote range 10.0.0.5-10.0.0.6 of receive-connector \"other\" overlaps", 9},
};

static void test_receive_mistakes(void **state)
{
	(void)state;
	check_mistakes(
		"transport { partner-lists = certs }\n" OUT
		"partner a { domains = a.example trust-anchors = good.pem }\n"
		"partner \"../etc\" { domains = c.example trust-anchors = good.pem }\n"
		"receive-connector in { bindings = \"127.0.0.1:2525\" send-connector = out\n",
		"}\npartner b { domains = b.example trust-anchors = good.pem }\n", 6, receive_rows,
		COUNT_OF(receive_rows));
}

static const struct mistake other_rows[] = {
	{"lists of nowhere",
		"partner a { domains = a.example trust-anchors = good.pem }\n"
		"receive-connector p { bindings = \"127.0.0.1:2526\" send-connector = out\n"
		"remote-ip-partners = a }",
		"remote-ip-partners without a place for their lists, expected partner-lists = "
		"FOLDER",
		5},
	{"all and one",
		"transport { partner-lists = certs }\n"
		"partner b { domains = b.example trust-anchors = good.pem }\n"
		"receive-connector p { bindings = \"127.0.0.1:2526\" send-connector = out\n"
		"remote-ip-partners = {\"*\",\nb} }",
		"has \"b\" beside \"*\"", 7},
	{"identity for anybody",
		"send-connector other { smart-hosts = \"203.0.113.8\"\nclient-identity = proxy-v2 "
		"}",
		"client-identity tells clients' addresses to a next hop that is not trusted", 4},
	{"identity word",
		"send-connector other { smart-hosts = \"203.0.113.8\"\nclient-identity = proxy }",
		"expected none, proxy-v1, proxy-v2 or xclient", 4},
};

static void test_other_mistakes(void **state)
{
	(void)state;
	check_mistakes(OUT IN, "", 3, other_rows, COUNT_OF(other_rows));
}

/* What connectors may share. */
static void test_shared(void **state)
{
	static const char *const texts[] = {
		/* Who has partners does not serve everybody. */
		IN "receive-connector p { bindings = \"127.0.0.1:2525\" send-connector = out\n"
		   " remote-ip-partners = a }\n",
		/* Partners of two connectors on a binding, and of both on different ones. */
		"receive-connector p { bindings = \"127.0.0.1:2525\" send-connector = out\n"
		" remote-ip-partners = a }\n"
		"receive-connector q { bindings = \"127.0.0.1:2525\" send-connector = out\n"
		" remote-ip-partners = b }\n"
		"receive-connector r { bindings = \"127.0.0.1:2526\" send-connector = out\n"
		" remote-ip-partners = \"*\" }\n",
		/* A balancer may lie in the range that it stands in, and may be one. */
		"receive-connector p { bindings = \"127.0.0.1:2525\" send-connector = out\n"
		" remote-ip-ranges = {\"10.0.0.0/8\", 10.0.0.9} proxy-balancers = 10.0.0.9\n"
		" tls = implicit certificate = c }\n"
		"certificate c { chain = good.pem key = good.key }\n",
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(texts); i++) {
		char text[1024];
		struct policy *policy = NULL;

		(void)snprintf(text, sizeof(text),
			"transport { partner-lists = certs }\n" OUT
			"partner a { domains = a.example trust-anchors = good.pem }\n"
			"partner b { domains = b.example trust-anchors = good.pem }\n%s",
			texts[i]);
		policy = load(text);
		assert_string_equal(said, "");
		policy_destroy(&policy);
	}
}

/* One for each of so many addresses; a connector has at most 64. */
static int load_bindings(const char *bpf, unsigned count, struct policy **out)
{
	char text[16384];
	size_t len = 0;

	len += (size_t)snprintf(text, sizeof(text), "transport { bpf = %s }\n" OUT, bpf);
	for (unsigned i = 0; i < count; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len,
			"receive-connector c%u { send-connector = out\n"
			" bindings = {\"127.0.1.%u:25\", \"[2001:db8::%u]:25\"} }\n",
			i, i, i);
	assert_in_range(len, 1, sizeof(text) - 1);
	return load_text(text, out);
}

static void test_slots(void **state)
{
	struct policy *policy = NULL;

	(void)state;
	assert_int_equal(load_bindings("auto", DOOR_SLOTS, &policy), 0);
	assert_string_equal(said, "");
	policy_destroy(&policy);
	assert_int_equal(load_bindings("auto", DOOR_SLOTS + 1, &policy), -EINVAL);
	assert_int_equal(said_lines(), 2);
	assert_true(said_at(2 + 2 * DOOR_SLOTS + 2, "more than 64 bindings of IPv4"));
	assert_true(said_at(2 + 2 * DOOR_SLOTS + 2, "more than 64 bindings of IPv6"));
	assert_int_equal(load_bindings("off", DOOR_SLOTS + 1, &policy), 0);
	policy_destroy(&policy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_transport_mistakes),
		cmocka_unit_test(test_receive_mistakes),
		cmocka_unit_test(test_other_mistakes),
		cmocka_unit_test(test_shared),
		cmocka_unit_test(test_slots),
	};

	return cmocka_run_group_tests_name("config-door", tests, fixture_setup, fixture_teardown);
}
