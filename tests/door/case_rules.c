/* SPDX-License-Identifier: Apache-2.0 */

/*
 * case_rules.c: who comes in, and to which connector, by the kernel and by the relay alike.
 */

#include "tests/door/case.h"

#include <stdlib.h>

static void rules_basic(bool by_kernel)
{
	static const struct visit visits[] = {
		{.from = "10.1.0.1", .to = CASE_V4, .greeting = "friends"},
		{.from = "10.1.255.254", .to = CASE_V4, .greeting = "friends"},
		{.from = "10.0.255.255", .to = CASE_V4},
		{.from = "10.2.0.0", .to = CASE_V4},
		{.from = "198.51.100.7", .to = CASE_V4},
		{.from = "127.0.0.1", .to = CASE_V4},
		{.from = "2001:db8:1::1", .to = CASE_V6, .greeting = "friends"},
		{.from = "2001:db8:1:ffff:ffff:ffff:ffff:fffe",
			.to = CASE_V6,
			.greeting = "friends"},
		{.from = "2001:db8:0:ffff::1", .to = CASE_V6},
		{.from = "2001:db8:2::", .to = CASE_V6},
		{.from = "::1", .to = CASE_V6},
	};
	struct daemon daemon;

	case_begin(&daemon, by_kernel, NULL);
	daemon_start(&daemon);
	VISIT_ALL(visits, by_kernel);
	daemon_stop(&daemon);
}

/* EXCHANGE 2.1: the example of the documentation, whose widest connector serves everybody. */
static void rules_exchange(bool by_kernel)
{
	static const struct visit visits[] = {
		{.from = "192.168.1.75", .to = CASE_V4, .greeting = "one"},
		{.from = "192.168.1.100", .to = CASE_V4, .greeting = "net"},
		{.from = "192.168.1.0", .to = CASE_V4, .greeting = "net"},
		{.from = "192.168.1.255", .to = CASE_V4, .greeting = "net"},
		{.from = "192.168.1.74", .to = CASE_V4, .greeting = "net"},
		{.from = "192.168.1.76", .to = CASE_V4, .greeting = "net"},
		{.from = "192.168.0.255", .to = CASE_V4, .greeting = "world"},
		{.from = "192.168.2.0", .to = CASE_V4, .greeting = "world"},
		{.from = "8.8.8.8", .to = CASE_V4, .greeting = "world"},
		/* Nobody said anything of IPv6. */
		{.from = "2001:db8:1::1", .to = CASE_V6},
	};
	struct daemon daemon;

	daemon_begin(&daemon, &(struct daemon_options){.bpf = case_bpf(by_kernel)});
	daemon_connector(&daemon, "world", CASE_BINDINGS,
		"\tremote-ip-ranges = {\"0.0.0.0-255.255.255.255\"}\n");
	daemon_connector(&daemon, "net", CASE_BINDINGS,
		"\tremote-ip-ranges = {\"192.168.1.0-192.168.1.255\"}\n");
	daemon_connector(
		&daemon, "one", CASE_BINDINGS, "\tremote-ip-ranges = {\"192.168.1.75\"}\n");
	daemon_start(&daemon);
	VISIT_ALL(visits, by_kernel);
	daemon_stop(&daemon);
}

/* Each connector inside the one before, and the same for IPv6. */
static void rules_longest(bool by_kernel)
{
	static const struct visit visits[] = {
		{.from = "10.2.0.1", .to = CASE_V4, .greeting = "eight"},
		{.from = "10.1.2.1", .to = CASE_V4, .greeting = "sixteen"},
		{.from = "10.1.1.1", .to = CASE_V4, .greeting = "twenty-four"},
		{.from = "10.1.1.7", .to = CASE_V4, .greeting = "thirty-two"},
		{.from = "10.1.1.8", .to = CASE_V4, .greeting = "twenty-four"},
		{.from = "11.0.0.0", .to = CASE_V4},
		{.from = "2001:db8:2::1", .to = CASE_V6, .greeting = "eight"},
		{.from = "2001:db8:1:2::1", .to = CASE_V6, .greeting = "sixteen"},
		{.from = "2001:db8:1:1::1", .to = CASE_V6, .greeting = "twenty-four"},
		{.from = "2001:db8:1:1::7", .to = CASE_V6, .greeting = "thirty-two"},
		{.from = "2001:db9::", .to = CASE_V6},
	};
	struct daemon daemon;

	daemon_begin(&daemon, &(struct daemon_options){.bpf = case_bpf(by_kernel)});
	daemon_connector(&daemon, "thirty-two", CASE_BINDINGS,
		"\tremote-ip-ranges = {\"10.1.1.7\", \"2001:db8:1:1::7\"}\n");
	daemon_connector(&daemon, "eight", CASE_BINDINGS,
		"\tremote-ip-ranges = {\"10.0.0.0/8\", \"2001:db8::/32\"}\n");
	daemon_connector(&daemon, "twenty-four", CASE_BINDINGS,
		"\tremote-ip-ranges = {\"10.1.1.0/24\", \"2001:db8:1:1::/64\"}\n");
	daemon_connector(&daemon, "sixteen", CASE_BINDINGS,
		"\tremote-ip-ranges = {\"10.1.0.0/16\", \"2001:db8:1::/48\"}\n");
	daemon_start(&daemon);
	VISIT_ALL(visits, by_kernel);
	daemon_stop(&daemon);
}

/* Ranges that no single prefix is. */
static void rules_ranges(bool by_kernel)
{
	static const struct visit visits[] = {
		{.from = "10.0.0.2", .to = CASE_V4},
		{.from = "10.0.0.3", .to = CASE_V4, .greeting = "odd"},
		{.from = "10.0.0.128", .to = CASE_V4, .greeting = "odd"},
		{.from = "10.0.7.77", .to = CASE_V4, .greeting = "odd"},
		{.from = "10.0.7.78", .to = CASE_V4},
		{.from = "172.16.5.0", .to = CASE_V4, .greeting = "odd"}, /* host bits given */
		{.from = "172.16.6.0", .to = CASE_V4},
		{.from = "2001:db8::ff", .to = CASE_V6},
		{.from = "2001:db8::100", .to = CASE_V6, .greeting = "odd"},
		{.from = "2001:db8::2ff", .to = CASE_V6, .greeting = "odd"},
		{.from = "2001:db8::300", .to = CASE_V6, .greeting = "odd"},
		{.from = "2001:db8::301", .to = CASE_V6},
	};
	struct daemon daemon;

	daemon_begin(&daemon, &(struct daemon_options){.bpf = case_bpf(by_kernel)});
	daemon_connector(&daemon, "odd", CASE_BINDINGS,
		"\tremote-ip-ranges = {\"10.0.0.3-10.0.7.77\", \"172.16.5.9/24\", "
		"\"2001:db8::100-2001:db8::300\"}\n");
	daemon_start(&daemon);
	VISIT_ALL(visits, by_kernel);
	daemon_stop(&daemon);
}

/* Who is in no prefix of the exact address is looked up at the wildcard; a match ends it. */
static void rules_wildcard(bool by_kernel)
{
	static const struct visit visits[] = {
		{.from = "10.1.1.1", .to = CASE_V4, .greeting = "exact"},
		{.from = "10.1.1.1", .to = "192.0.2.26", .greeting = "wild"},
		{.from = "10.2.0.1", .to = CASE_V4, .greeting = "wild"},
		/* Longer at the wildcard, but the exact address goes first. */
		{.from = "10.1.2.9", .to = CASE_V4, .greeting = "exact"},
		{.from = "10.1.2.9", .to = "192.0.2.26", .greeting = "nine"},
		{.from = "11.0.0.1", .to = CASE_V4},
		{.from = "11.0.0.1", .to = "192.0.2.26"},
		{.from = "2001:db8:1::1", .to = CASE_V6, .greeting = "exact"},
		{.from = "2001:db8:1::1", .to = "2001:db8::26", .greeting = "wild"},
		{.from = "2001:db8:2::1", .to = CASE_V6, .greeting = "wild"},
		{.from = "2001:db9::1", .to = CASE_V6},
		/* Another port is another binding. */
		{.from = "11.0.0.1", .to = CASE_V4, .port = 2526, .greeting = "other-port"},
		{.from = "10.1.1.1", .to = CASE_V4, .port = 2526},
	};
	struct daemon daemon;

	daemon_begin(&daemon, &(struct daemon_options){.bpf = case_bpf(by_kernel)});
	daemon_connector(&daemon, "exact", CASE_BINDINGS, CASE_RANGES);
	daemon_connector(&daemon, "wild", "\"0.0.0.0:2525\", \"[::]:2525\"",
		"\tremote-ip-ranges = {\"10.0.0.0/8\", \"2001:db8::/32\"}\n");
	daemon_connector(
		&daemon, "nine", "\"0.0.0.0:2525\"", "\tremote-ip-ranges = {\"10.1.2.9\"}\n");
	daemon_connector(&daemon, "other-port", "\"192.0.2.25:2526\"",
		"\tremote-ip-ranges = {\"11.0.0.0/8\"}\n");
	daemon_start(&daemon);
	VISIT_ALL(visits, by_kernel);
	daemon_stop(&daemon);
}

/* Lists of partners, what they exclude, and a partner whose list is empty. */
static void rules_lists(bool by_kernel)
{
	static const struct visit visits[] = {
		{.from = "203.0.113.1", .to = CASE_V4, .greeting = "partners"},
		{.from = "203.0.113.7", .to = CASE_V4}, /* excluded */
		{.from = "203.0.113.65", .to = CASE_V4},
		{.from = "203.0.113.70", .to = CASE_V4, .greeting = "partners"}, /* and in again */
		{.from = "203.0.113.128", .to = CASE_V4, .greeting = "partners"},
		{.from = "10.9.0.1", .to = CASE_V4, .greeting = "partners"}, /* of its ranges */
		{.from = "10.9.0.9", .to = CASE_V4},                         /* a list goes first */
		{.from = "198.51.100.7", .to = CASE_V4, .greeting = "partners"},
		{.from = "198.51.100.8", .to = CASE_V4},
		{.from = "2001:db8:5::1", .to = CASE_V6, .greeting = "partners"},
		{.from = "2001:db8:5::bad", .to = CASE_V6},
		/* An exclusion ends it: the wildcard, which serves everybody, is not asked. */
		{.from = "203.0.113.7", .to = "192.0.2.26", .greeting = "all"},
		{.from = "8.8.8.8", .to = CASE_V4, .greeting = "all"},
		/* Whose list is empty lets nobody in. */
		{.from = "203.0.113.1", .to = CASE_V4, .port = 2526},
		{.from = "10.9.0.1", .to = CASE_V4, .port = 2526},
	};
	static const struct visit excluded[] = {
		{.from = "203.0.113.7", .to = CASE_V4},
		{.from = "10.9.0.9", .to = CASE_V4},
	};
	struct daemon daemon;

	daemon_begin(&daemon, &(struct daemon_options){.bpf = case_bpf(by_kernel)});
	daemon_partner(&daemon, "friends",
		"203.0.113.0/24\n!203.0.113.7\n!203.0.113.64/26\n203.0.113.70\n!10.9.0.9\n"
		"2001:db8:5::/48\n!2001:db8:5::bad\n");
	daemon_partner(&daemon, "others", "198.51.100.7\n!198.51.100.8\n");
	daemon_partner(&daemon, "nobody", "");
	daemon_connector(&daemon, "partners", CASE_BINDINGS,
		"\tremote-ip-ranges = {\"10.9.0.0/24\"}\n"
		"\tremote-ip-partners = {\"friends\", \"others\"}\n");
	daemon_connector(&daemon, "all", "\"0.0.0.0:2525\"", NULL);
	daemon_connector(
		&daemon, "empty", "\"192.0.2.25:2526\"", "\tremote-ip-partners = {\"nobody\"}\n");
	daemon_start(&daemon);
	VISIT_ALL(visits, by_kernel);
	VISIT_ALL(excluded, by_kernel);
	daemon_stop(&daemon);
}

/* An IPv6 socket that connects to an IPv4 address is an IPv4 peer. */
static void rules_mapped(bool by_kernel)
{
	static const struct visit visits[] = {
		{.from = "::ffff:10.1.0.1", .to = "::ffff:192.0.2.25", .greeting = "friends"},
		{.from = "::ffff:10.2.0.1", .to = "::ffff:192.0.2.25"},
		{.from = "2001:db8:1::1", .to = CASE_V6, .greeting = "friends"},
	};
	struct daemon daemon;

	case_begin(&daemon, by_kernel, NULL);
	daemon_start(&daemon);
	VISIT_ALL(visits, by_kernel);
	daemon_stop(&daemon);
}

/* Without ranges and partners everybody comes in; workers and users make no difference. */
static void rules_everybody(bool by_kernel)
{
	static const struct visit visits[] = {
		{.from = "10.1.0.1", .to = CASE_V4, .greeting = "everybody"},
		{.from = "223.255.255.254", .to = CASE_V4, .greeting = "everybody"},
		{.from = "2001:db8:1::1", .to = CASE_V6, .greeting = "everybody"},
		{.from = "::1", .to = CASE_V6, .greeting = "everybody"},
	};
	struct daemon daemon;

	daemon_begin(&daemon, &(struct daemon_options){
				      .bpf = case_bpf(by_kernel), .workers = 3, .is_root = true});
	daemon_connector(&daemon, "everybody", CASE_BINDINGS, NULL);
	daemon_start(&daemon);
	for (unsigned i = 0; i < 10; i++)
		VISIT_ALL(visits, by_kernel);
	daemon_stop(&daemon);
}

static const struct door_case rows[] = {
	{"rules/basic", rules_basic, BY_KERNEL | BY_USER, 0},
	{"rules/exchange", rules_exchange, BY_KERNEL | BY_USER, 0},
	{"rules/longest", rules_longest, BY_KERNEL | BY_USER, 0},
	{"rules/ranges", rules_ranges, BY_KERNEL | BY_USER, 0},
	{"rules/wildcard", rules_wildcard, BY_KERNEL | BY_USER, 0},
	{"rules/lists", rules_lists, BY_KERNEL | BY_USER, 0},
	{"rules/mapped", rules_mapped, BY_KERNEL | BY_USER, 0},
	{"rules/everybody", rules_everybody, BY_KERNEL | BY_USER, 0},
};

const struct door_table case_rules = {rows, COUNT_OF(rows)};
