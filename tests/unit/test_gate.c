/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_gate.c: who is served where (EXCHANGE 2.1; table 14 row 1): ranges, bindings, zones,
 * partners' lists, balancers; and what of it the kernel is told.
 */

#include "tests/unit/gate_fixture.h"

static void check_text(const char *text, const struct arrival *rows, size_t count)
{
	struct policy *policy = NULL;
	struct gate *gate = NULL;

	gate_text(text, &policy, &gate);
	check_arrivals(gate, rows, count);
	gate_destroy(&gate);
	assert_null(gate);
	policy_destroy(&policy);
}

/* The example of Microsoft's page on receive connectors. */
static void test_row_1_connector_match_example(void **state)
{
	static const struct arrival rows[] = {
		{"192.168.1.75", "192.0.2.1", 25, 0, "c", false},
		{"192.168.1.100", "192.0.2.1", 25, 0, "b", false},
		{"192.168.2.75", "192.0.2.1", 25, 0, "a", false},
		{"::ffff:192.168.1.75", "192.0.2.1", 25, 0, "c", false},
		{"2001:db8::1", "2001:db8::25", 25, 0, "nobody", false},
		{"192.168.1.75", "192.0.2.1", 587, 0, "nobody", false},
	};

	(void)state;
	check_text(OUT "receive-connector a { bindings = \"0.0.0.0:25\" send-connector = out\n"
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
		{"203.0.113.1", "192.0.2.1", 25, 0, "all", false},
		{"2001:db8::1", "2001:db8::25", 25, 0, "all", false},
		{"198.51.100.1", "192.0.2.1", 25, 0, "partner", false},
		{"198.51.100.15", "192.0.2.1", 25, 0, "partner", false},
		{"198.51.100.16", "192.0.2.1", 25, 0, "all", false},
		{"2001:db8:51::9", "2001:db8::25", 25, 0, "partner", false},
		{"2001:db8:52::9", "2001:db8::25", 25, 0, "all", false},
		{"::ffff:198.51.100.1", "::ffff:192.0.2.1", 25, 0, "partner", false},
		/* An exact address goes before the wildcard, even with a wider range. */
		{"198.51.100.1", "192.0.2.7", 25, 0, "exact", false},
		{"203.0.113.1", "192.0.2.7", 25, 0, "all", false},
		/* By zone. */
		{"fe80::1", "fe80::25", 26, 2, "link", false},
		{"fe80::1", "fe80::25", 26, 3, "links", false},
		{"fe80::1", "fe80::25", 26, 0, "links", false},
		{"2001:db8::1", "fe80::25", 26, 2, "nobody", false},
		/* Of two ranges of one connector the narrower counts. */
		{"10.0.0.1", "192.0.2.1", 27, 0, "two", false},
		{"10.0.0.9", "192.0.2.1", 27, 0, "mid", false},
		{"10.9.0.1", "192.0.2.1", 27, 0, "two", false},
		/* Not enabled. */
		{"192.0.2.99", "192.0.2.1", 28, 0, "nobody", false},
		/* Everybody goes behind a range that is as wide. */
		{"192.0.2.99", "192.0.2.1", 29, 0, "whole", false},
		/* Equal pieces of ranges: the narrower range's. */
		{"10.0.0.2", "192.0.2.1", 30, 0, "inner", false},
		{"10.0.0.4", "192.0.2.1", 30, 0, "inner", false},
		{"10.0.0.7", "192.0.2.1", 30, 0, "outer", false},
		{"10.0.0.1", "192.0.2.1", 30, 0, "outer", false},
	};

	(void)state;
	check_text(OUT
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
		" enabled = no }\n"
		"receive-connector everybody { bindings = \"0.0.0.0:29\" send-connector = out }\n"
		"receive-connector whole { bindings = \"0.0.0.0:29\" send-connector = out\n"
		" remote-ip-ranges = \"0.0.0.0/0\" }\n"
		"receive-connector inner { bindings = \"0.0.0.0:30\" send-connector = out\n"
		" remote-ip-ranges = \"10.0.0.2-10.0.0.6\" }\n"
		"receive-connector outer { bindings = \"0.0.0.0:30\" send-connector = out\n"
		" remote-ip-ranges = \"10.0.0.1-10.0.0.9\" }\n",
		rows, COUNT_OF(rows));
}

/* ---- lists of partners */

#define TWO_PARTNERS LISTS OUT PARTNER("p") PARTNER("q") PARTNER("r")

static void test_lists(void **state)
{
	static const struct arrival rows[] = {
		{"192.0.2.1", "198.51.100.1", 25, 0, "partners/p", false},
		{"192.0.2.7", "198.51.100.1", 25, 0, "!p", false},
		{"192.0.2.9", "198.51.100.1", 25, 0, "partners/q", false},
		{"192.0.3.1", "198.51.100.1", 25, 0, "!q", false},
		{"192.0.3.128", "198.51.100.1", 25, 0, "partners/q", false},
		{"::ffff:192.0.2.1", "198.51.100.1", 25, 0, "partners/p", false},
		{"2001:db8::1", "2001:db8::25", 25, 0, "partners/p", false},
		{"2001:db8:0:1::1", "2001:db8::25", 25, 0, "!p", false},
		{"2001:db9::1", "2001:db8::25", 25, 0, "all", false},
		/* Who is in no list: everybody's. */
		{"203.0.113.1", "198.51.100.1", 25, 0, "all", false},
		/* A list goes before a range of its own connector, and before a piece of a wider
		   one. */
		{"10.0.0.1", "198.51.100.1", 26, 0, "own/q", false},
		{"10.0.1.1", "198.51.100.1", 26, 0, "own", false},
		{"10.0.2.6", "198.51.100.1", 26, 0, "own/q", false},
		{"10.0.2.7", "198.51.100.1", 26, 0, "pieces", false},
		/* Around a range the list is wider. */
		{"10.1.0.1", "198.51.100.1", 26, 0, "own/q", false},
		{"10.1.0.9", "198.51.100.1", 26, 0, "pieces", false},
		/* An exclusion in the exact binding is an answer, and ends it. */
		{"192.0.2.7", "198.51.100.9", 25, 0, "!p", false},
		{"203.0.113.1", "198.51.100.9", 25, 0, "all", false},
		/* An empty list lets nobody in, where there is nothing else. */
		{"192.0.2.1", "198.51.100.1", 27, 0, "nobody", false},
		{"192.0.2.1", "198.51.100.1", 28, 0, "all-partners/p", false},
		{"203.0.113.1", "198.51.100.1", 28, 0, "nobody", false},
	};

	(void)state;
	put_list("p", "192.0.2.0/24\n!192.0.2.7\n2001:db8::/32\n!2001:db8:0:1::/64\n");
	put_list("q", "192.0.2.9\n192.0.3.0/24\n!192.0.3.0/25\n10.0.0.0/24\n10.0.2.6\n"
		      "10.1.0.0/24\n");
	check_text(TWO_PARTNERS
		"receive-connector all { bindings = {\"0.0.0.0:25\", \"[::]:25\"}\n"
		" send-connector = out }\n"
		"receive-connector partners { bindings = {\"0.0.0.0:25\", \"[::]:25\"}\n"
		" send-connector = out remote-ip-partners = {p, q} }\n"
		"receive-connector exact { bindings = \"198.51.100.9:25\"\n"
		" send-connector = out remote-ip-partners = p }\n"
		"receive-connector own { bindings = \"0.0.0.0:26\" send-connector = out\n"
		" remote-ip-partners = q remote-ip-ranges = {\"10.0.0.0/24\", \"10.0.1.0/24\"} }\n"
		"receive-connector pieces { bindings = \"0.0.0.0:26\" send-connector = out\n"
		" remote-ip-ranges = {\"10.0.2.5-10.0.2.7\", \"10.1.0.8-10.1.0.9\"} }\n"
		"receive-connector empty { bindings = \"0.0.0.0:27\" send-connector = out\n"
		" remote-ip-partners = r }\n"
		"receive-connector all-partners { bindings = \"0.0.0.0:28\" send-connector = out\n"
		" remote-ip-partners = \"*\" }\n",
		rows, COUNT_OF(rows));
}

/* Load balancers, and who is announced behind them. */
static void test_balancers(void **state)
{
	static const struct arrival rows[] = {
		{"10.0.0.1", "198.51.100.1", 25, 0, "balancer in", false},
		{"10.0.0.2", "198.51.100.1", 25, 0, "balancer in", false},
		/* A narrower rule is a rule. */
		{"10.0.0.3", "198.51.100.1", 25, 0, "!p", false},
		{"10.0.0.4", "198.51.100.1", 25, 0, "partners/p", false},
		/* Balancers do not count for who is announced. */
		{"10.0.0.1", "198.51.100.1", 25, 0, "nobody", true},
		{"10.0.0.2", "198.51.100.1", 25, 0, "partners/p", true},
		{"10.0.0.3", "198.51.100.1", 25, 0, "!p", true},
		{"192.0.2.1", "198.51.100.1", 25, 0, "in", true},
		{"203.0.113.1", "198.51.100.1", 25, 0, "nobody", true},
		/* Of the other family. */
		{"2001:db8::1", "198.51.100.1", 25, 0, "partners/p", true},
		{"2001:db8::1", "198.51.100.1", 25, 0, "nobody", false},
		{"::ffff:192.0.2.1", "198.51.100.1", 25, 0, "in", true},
		/* Behind an address of its own the wildcard is asked second, there too. */
		{"10.0.0.9", "198.51.100.2", 26, 0, "balancer exact", false},
		{"192.0.2.1", "198.51.100.2", 26, 0, "any", true},
		{"2001:db8::1", "198.51.100.2", 26, 0, "any", true},
		{"192.0.2.1", "198.51.100.2", 26, 0, "any", false},
		/* A front end that uses XCLIENT is a peer like others. */
		{"192.0.2.1", "198.51.100.1", 27, 0, "front", false},
		{"192.0.2.1", "198.51.100.1", 27, 0, "front", true},
		{"2001:db8::1", "198.51.100.1", 27, 0, "front", true},
	};

	(void)state;
	put_list("p", "10.0.0.2\n!10.0.0.3\n10.0.0.4\n2001:db8::/32\n");
	check_text(LISTS OUT PARTNER(
			   "p") "receive-connector in { bindings = \"0.0.0.0:25\" send-connector = "
				"out\n"
				" remote-ip-ranges = \"192.0.2.0/24\"\n"
				" proxy-balancers = {\"10.0.0.0/28\", 10.0.0.2} }\n"
				"receive-connector partners { bindings = \"0.0.0.0:25\" "
				"send-connector = out\n"
				" remote-ip-partners = p }\n"
				"receive-connector exact { bindings = \"198.51.100.2:26\" "
				"send-connector = out\n"
				" remote-ip-ranges = 10.9.9.9 proxy-balancers = \"10.0.0.0/28\" }\n"
				"receive-connector any { bindings = \"0.0.0.0:26\" send-connector "
				"= out }\n"
				"receive-connector front { bindings = \"0.0.0.0:27\" "
				"send-connector = out\n"
				" xclient-hosts = 10.9.9.9 }\n",
		rows, COUNT_OF(rows));
}

/* Rules of one zone beside others with the same prefix. */
static void test_zones(void **state)
{
	static const struct arrival rows[] = {
		{"fe80::1", "fe80::25", 25, 2, "link", false},
		{"fe80::1", "fe80::25", 25, 3, "balancer other", false},
		{"fe80::1", "fe80::25", 25, 4, "partners/p", false},
		{"fe80::1", "fe80::25", 25, 0, "partners/p", false},
		{"fe80::2", "fe80::25", 25, 2, "narrow", false},
		{"fe80::2", "fe80::25", 25, 4, "partners/p", false},
		{"fec0::1", "fe80::25", 25, 2, "all", false},
		/* Nobody of another zone: the wildcard's turn. */
		{"fe80::1", "fe80::26", 25, 2, "exact", false},
		{"fe80::1", "fe80::26", 25, 4, "partners/p", false},
		/* A zone is never announced. */
		{"fe80::1", "fe80::25", 25, 0, "partners/p", true},
	};

	(void)state;
	put_list("p", "fe80::/10\n");
	check_text(LISTS OUT PARTNER("p") "receive-connector all { bindings = \"[::]:25\" "
					  "send-connector = out }\n"
					  "receive-connector partners { bindings = \"[::]:25\" "
					  "send-connector = out\n"
					  " remote-ip-partners = p }\n"
					  "receive-connector link { bindings = \"[::]:25\" "
					  "send-connector = out\n"
					  " remote-ip-ranges = \"fe80::%2/10\" }\n"
					  "receive-connector narrow { bindings = \"[::]:25\" "
					  "send-connector = out\n"
					  " remote-ip-ranges = \"fe80::2%2\" }\n"
					  "receive-connector other { bindings = \"[::]:25\" "
					  "send-connector = out\n"
					  " remote-ip-ranges = \"fe80::%5/10\" proxy-balancers = "
					  "\"fe80::%3/10\" }\n"
					  "receive-connector exact { bindings = \"[fe80::26]:25\" "
					  "send-connector = out\n"
					  " remote-ip-ranges = \"fe80::%2/10\" }\n",
		rows, COUNT_OF(rows));
}

/* What the kernel is told: prefixes of the binding's family, in which the longest decides. */
static void test_kernel_tries(void **state)
{
	static const char *const want[] = {"10.0.0.1:25", "10.0.0.0/30 b", "192.0.2.0/24 c p",
		"192.0.2.7/32 c p !", "198.51.100.0/24 a", "[fe80::1]:25", "2001:db8::/32 c p",
		"fe80::/10 zoned"};
	struct policy *policy = NULL;
	struct gate *gate = NULL;
	unsigned line = 0;

	(void)state;
	put_list("p", "192.0.2.0/24\n!192.0.2.7\n2001:db8::/32\n");
	gate_text(LISTS OUT PARTNER("p") "receive-connector a { bindings = {\"10.0.0.1:25\", "
					 "\"[fe80::1]:25\"}\n"
					 " send-connector = out remote-ip-ranges = "
					 "{\"198.51.100.0/24\", \"fe80::%2/10\"} }\n"
					 "receive-connector b { bindings = \"10.0.0.1:25\" "
					 "send-connector = out\n"
					 " proxy-balancers = \"10.0.0.0/30\" remote-ip-ranges = "
					 "\"2001:db8:7::/48\" }\n"
					 "receive-connector c { bindings = {\"10.0.0.1:25\", "
					 "\"[fe80::1]:25\"}\n"
					 " send-connector = out remote-ip-partners = p }\n",
		&policy, &gate);
	assert_int_equal(gate_binding_count(gate), 2);
	for (unsigned b = 0; b < 2; b++) {
		struct cidr_walk walk;
		struct door_value value;
		struct prefix prefix;
		char text[PREFIX_TEXT_BYTES + 16], row[256];

		address_print(gate_binding_address(gate, b), text, sizeof(text));
		assert_string_equal(text, want[line++]);
		cidr_walk_start(&walk, gate_binding_trie(gate, b));
		while (cidr_walk_next(&walk, &prefix, &value)) {
			struct gate_answer answer = {0};
			const bool is_known = gate_resolve(gate, value, &answer);

			(void)ip_print(&prefix.ip, text, sizeof(text));
			(void)snprintf(row, sizeof(row), "%s/%u %s%s%s", text, prefix.bits,
				!is_known ? "zoned"
				: value.connector == gate_connector_id(
							     gate, &policy->receive_connectors[0])
					? "a"
				: value.connector == gate_connector_id(
							     gate, &policy->receive_connectors[1])
					? "b"
					: "c",
				value.partner == 0 ? "" : " p",
				(value.flags & DOOR_EXCLUDED) != 0 ? " !" : "");
			assert_in_range(line, 1, COUNT_OF(want) - 1);
			assert_string_equal(row, want[line++]);
			assert_int_equal(is_known, (value.flags & DOOR_ZONED) == 0);
			assert_int_equal(answer.is_balancer, strstr(row, " b") != NULL);
		}
	}
	assert_int_equal(line, COUNT_OF(want));
	gate_destroy(&gate);
	policy_destroy(&policy);
}

/* ---- what a list may not have */

struct conflict {
	const char *name, *p, *q, *said;
};

#define CONFLICT_TEXT                                                                         \
	LISTS OUT PARTNER("p") PARTNER(                                                       \
		"q") "receive-connector a { bindings = \"0.0.0.0:25\" send-connector = out\n" \
		     " remote-ip-partners = {p, q} remote-ip-ranges = \"172.16.0.0/30\" }\n"  \
		     "receive-connector b { bindings = \"0.0.0.0:25\" send-connector = out\n" \
		     " remote-ip-ranges = {\"10.0.0.0/24\", \"10.0.1.5-10.0.1.20\"} }\n"

static const struct conflict conflicts[] = {
	{"a list twice", "192.0.2.0/24\n", "192.0.2.0/24\n",
		"certs/q.list: 192.0.2.0/24 of partner \"q\" is in the list of partner \"p\" too, "
		"which is asked on the same binding 0.0.0.0:25, expected each address in one "
		"list\n"},
	{"once excluded", "!192.0.2.0/24\n", "192.0.2.0/24\n", "of partner \"p\" too"},
	{"a range", "10.0.0.0/24\n", "",
		"certs/p.list: 10.0.0.0/24 of partner \"p\" is one of remote-ip-ranges of "
		"receive-connector \"b\" ("},
	{"the line of the connector", "", "!10.0.0.0/24\n",
		":7) on the same binding 0.0.0.0:25, "
		"expected each address in one place\n"},
	{"a range in part", "10.0.1.0/28\n", "",
		"10.0.1.0/28 of partner \"p\" overlaps a range of receive-connector \"b\""},
	{"which range", "", "10.0.1.16/29\n", "in part: 10.0.1.5-10.0.1.20, expected one inside"},
	{"not the list's form", "10.0.0.0/33\n", "", "certs/p.list:2: "},
};

static void test_conflicts(void **state)
{
	struct policy *policy = NULL;
	struct gate *gate = NULL;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(conflicts); i++) {
		int rc = 0;

		put_list("p", conflicts[i].p);
		put_list("q", conflicts[i].q);
		assert_int_equal(load_text(CONFLICT_TEXT, &policy), 0);
		rc = make_gate(policy, NULL, &gate);
		if (rc != -EINVAL || gate != NULL || said_lines() != 1 ||
			strstr(said, conflicts[i].said) == NULL)
			fail_msg("%s: rc %d, said:\n%s", conflicts[i].name, rc, said);
		policy_destroy(&policy);
	}
}

/* The same in other places, and one inside of the other. */
static void test_no_conflicts(void **state)
{
	static const struct arrival rows[] = {
		{"172.16.0.1", "192.0.2.1", 25, 0, "a/q", false},
		{"10.0.1.6", "192.0.2.1", 25, 0, "a/p", false},
		{"10.0.1.5", "192.0.2.1", 25, 0, "b", false},
		{"10.0.0.129", "192.0.2.1", 25, 0, "b", false},
		/* Inside, with one end of it. */
		{"10.0.0.1", "192.0.2.1", 25, 0, "a/p", false},
		{"10.0.0.255", "192.0.2.1", 25, 0, "a/p", false},
		{"10.0.2.1", "192.0.2.1", 25, 0, "a/q", false},
	};

	(void)state;
	/* Own ranges; a piece of a range; around and inside of others; another's, elsewhere. */
	put_list("p", "10.0.1.6/31\n192.0.2.0/24\n10.0.0.0/25\n10.0.0.192/26\n");
	put_list("q", "172.16.0.0/30\n10.0.0.0/16\n!10.0.0.7\n192.0.2.0/25\n");
	check_text(CONFLICT_TEXT, rows, COUNT_OF(rows));
	put_list("p", "10.0.1.6/31\n192.0.2.0/24\n");
	put_list("q", "192.0.2.0/24\n");
	check_text(LISTS OUT PARTNER("p") PARTNER("q") "receive-connector a { bindings = "
						       "\"0.0.0.0:25\" send-connector = out\n"
						       " remote-ip-partners = p }\n"
						       "receive-connector b { bindings = "
						       "\"0.0.0.0:26\" send-connector = out\n"
						       " remote-ip-partners = q }\n",
		NULL, 0);
}

static void test_many_mistakes(void **state)
{
	char lines[4096] = "";
	size_t len = 0;
	struct policy *policy = NULL;
	struct gate *gate = NULL;

	(void)state;
	for (unsigned i = 0; i < 50; i++)
		len += (size_t)snprintf(lines + len, sizeof(lines) - len, "192.0.2.%u\n", i);
	put_list("p", lines);
	put_list("q", lines);
	assert_int_equal(load_text(CONFLICT_TEXT, &policy), 0);
	assert_int_equal(make_gate(policy, NULL, &gate), -EINVAL);
	assert_int_equal(said_lines(), 21);
	assert_non_null(strstr(said, "/certs/q.list: and more of the kind\n"));
	policy_destroy(&policy);
}

static void test_unreadable_list(void **state)
{
	char path[512];
	struct policy *policy = NULL;
	struct gate *gate = NULL;

	(void)state;
	put_list("p", "");
	put_list("q", "");
	(void)snprintf(path, sizeof(path), "%s/certs/p.list", folder);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(load_text(CONFLICT_TEXT, &policy), 0);
	assert_true(make_gate(policy, NULL, &gate) < 0);
	assert_null(gate);
	assert_non_null(strstr(said, "p.list"));
	assert_int_equal(rmdir(path), 0);
	policy_destroy(&policy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_row_1_connector_match_example),
		cmocka_unit_test(test_row_1_connector_match),
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_balancers),
		cmocka_unit_test(test_zones),
		cmocka_unit_test(test_kernel_tries),
		cmocka_unit_test(test_conflicts),
		cmocka_unit_test(test_no_conflicts),
		cmocka_unit_test(test_many_mistakes),
		cmocka_unit_test(test_unreadable_list),
	};

	return cmocka_run_group_tests_name("gate", tests, fixture_setup, fixture_teardown);
}
