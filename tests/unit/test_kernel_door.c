/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_kernel_door.c: what the program in the kernel decides, counts and tells, and that the
 * loader's answers agree with it.
 */

#include "tests/unit/kernel_door_fixture.h"

#include <pthread.h>

#define LAST_SLOT_V6 (DOOR_SLOTS_ALL - 1)

/* Whom the program lets in gets a connector from the loader, and nobody else does. */
static void assert_verdict(struct kernel_door *door, const char *local, const char *peer, int want)
{
	bool is_in = want > 0;

	if (passes(door, local, PORT, peer) != is_in)
		fail_msg("the program %s %s at %s", is_in ? "refuses" : "lets in", peer, local);
	assert_int_equal(connector_of(door, local, PORT, peer), want);
}

static void test_longest_prefix(void **state)
{
	struct kernel_door *door = door_up();

	(void)state;
	door_serve(door, "192.0.2.1", PORT, "10.0.0.0/8=1 10.1.0.0/16=2 10.1.2.3/32=3");
	door_serve(door, "2001:db8::1", PORT, "2001:db8::/32=4 2001:db8:1::/48=5 ::1/128=6");
	assert_verdict(door, "192.0.2.1", "10.9.9.9", 1);
	assert_verdict(door, "192.0.2.1", "10.1.9.9", 2);
	assert_verdict(door, "192.0.2.1", "10.1.2.3", 3);
	assert_verdict(door, "192.0.2.1", "11.0.0.0", -ENOENT);
	assert_verdict(door, "192.0.2.1", "9.255.255.255", -ENOENT);
	assert_verdict(door, "2001:db8::1", "2001:db8:ffff::1", 4);
	assert_verdict(door, "2001:db8::1", "2001:db8:1::1", 5);
	assert_verdict(door, "2001:db8::1", "::1", 6);
	assert_verdict(door, "2001:db8::1", "2001:db9::", -ENOENT);
	door_down(&door);
}

/* An exact address is asked before the wildcard of its port, which has those it does not know. */
static void test_exact_before_wildcard(void **state)
{
	struct kernel_door *door = door_up();

	(void)state;
	door_serve(door, "0.0.0.0", PORT, "10.0.0.0/8=1 172.16.0.0/12=2");
	door_serve(door, "192.0.2.1", PORT, "10.1.0.0/16=3 172.16.0.1/32=0!");
	door_serve(door, "::", PORT, "2001:db8::/32=4");
	door_serve(door, "2001:db8::1", PORT, "2001:db8::7/128=5 2001:db8::8/128=0!");
	assert_verdict(door, "192.0.2.1", "10.1.2.3", 3);
	assert_verdict(door, "192.0.2.9", "10.1.2.3", 1);
	assert_verdict(door, "192.0.2.1", "10.2.2.3", 1);
	assert_verdict(door, "192.0.2.1", "172.16.0.2", 2);
	assert_verdict(door, "192.0.2.9", "172.16.0.1", 2);
	/* An exclusion is an answer: the wildcard would have let it in. */
	assert_verdict(door, "192.0.2.1", "172.16.0.1", -EACCES);
	assert_verdict(door, "192.0.2.1", "8.8.8.8", -ENOENT);
	assert_verdict(door, "2001:db8::1", "2001:db8::7", 5);
	assert_verdict(door, "2001:db8::1", "2001:db8::8", -EACCES);
	assert_verdict(door, "2001:db8::1", "2001:db8::9", 4);
	assert_verdict(door, "2001:db8::2", "2001:db8::8", 4);
	assert_verdict(door, "2001:db8::2", "2001:db9::8", -ENOENT);
	door_down(&door);
}

static void assert_totals(struct kernel_door *door, uint64_t lookups, uint64_t others)
{
	struct door_totals totals;

	assert_int_equal(kernel_door_totals(door, &totals), 0);
	assert_int_equal(totals.lookups, lookups);
	assert_int_equal(totals.others, others);
	assert_int_equal(totals.shield_drops, 0);
}

/* Whatever else listens in the namespace is none of our business. */
static void test_others_pass(void **state)
{
	struct kernel_door *door = door_up();
	struct ip local = ip_from("192.0.2.1");
	struct ip peer = ip_from("8.8.8.8");

	(void)state;
	assert_true(passes(door, "192.0.2.1", PORT, "8.8.8.8"));
	door_serve(door, "192.0.2.1", PORT, "10.0.0.0/8=1");
	assert_false(passes(door, "192.0.2.1", PORT, "8.8.8.8"));
	assert_true(passes(door, "192.0.2.2", PORT, "8.8.8.8"));
	assert_true(passes(door, "192.0.2.1", 22, "8.8.8.8"));
	assert_true(passes(door, "::", PORT, "2001:db8::1"));
	assert_true(passes(door, "2001:db8::1", PORT, "::ffff:8.8.8.8"));
	assert_true(verdict_of_ips(door, &local, PORT, &peer, IPPROTO_UDP));
	assert_int_equal(connector_of(door, "192.0.2.2", PORT, "10.0.0.1"), -EADDRNOTAVAIL);
	assert_int_equal(connector_of(door, "192.0.2.1", 22, "10.0.0.1"), -EADDRNOTAVAIL);
	assert_int_equal(connector_of(door, "192.0.2.1", PORT, "2001:db8::1"), -ENOENT);
	assert_totals(door, 7, 6);
	door_down(&door);
}

/* A binding of which nothing is known lets nobody in, and neither does one before it. */
static void test_no_trie_is_closed(void **state)
{
	struct kernel_door *door = door_up();
	struct address exact = address_from("192.0.2.1", PORT);
	struct address any = address_from("0.0.0.0", PORT);
	unsigned exact_slot = 0;
	unsigned any_slot = 0;

	(void)state;
	assert_int_equal(kernel_door_take_slot(door, &any, &any_slot), 0);
	assert_int_equal(kernel_door_bind(door, any_slot), 0);
	assert_false(passes(door, "192.0.2.1", PORT, "10.0.0.1"));
	assert_int_equal(connector_of(door, "192.0.2.1", PORT, "10.0.0.1"), -EAGAIN);
	assert_int_equal(kernel_door_take_slot(door, &exact, &exact_slot), 0);
	assert_int_not_equal(exact_slot, any_slot);
	assert_int_equal(kernel_door_bind(door, exact_slot), 0);
	door_serve(door, "0.0.0.0", PORT, "10.0.0.0/8=1");
	assert_true(passes(door, "192.0.2.2", PORT, "10.0.0.1"));
	assert_false(passes(door, "192.0.2.1", PORT, "10.0.0.1"));
	assert_int_equal(connector_of(door, "192.0.2.1", PORT, "10.0.0.1"), -EAGAIN);
	door_down(&door);
}

static void assert_counts(struct kernel_door *door, enum kernel_door_table table, unsigned index,
	uint64_t passed, const uint64_t refused[DOOR_REASON_COUNT])
{
	struct door_counts counts;

	assert_int_equal(kernel_door_counts(door, table, index, &counts), 0);
	assert_int_equal(counts.passed, passed);
	for (unsigned i = 0; i < DOOR_REASON_COUNT; i++)
		assert_int_equal(counts.refused[i], refused[i]);
}

#define REFUSED(stranger, excluded, rate, mapped)                                 \
	((const uint64_t[DOOR_REASON_COUNT]){[DOOR_REASON_STRANGER] = (stranger), \
		[DOOR_REASON_EXCLUDED] = (excluded),                              \
		[DOOR_REASON_RATE] = (rate),                                      \
		[DOOR_REASON_MAPPED] = (mapped)})

/* Each look-up is counted once, where it was decided. */
static void test_counts(void **state)
{
	struct kernel_door *door = door_up();
	unsigned any = door_serve(door, "0.0.0.0", PORT, "10.0.0.0/8=1 11.0.0.0/8=2.9");
	unsigned exact =
		door_serve(door, "192.0.2.1", PORT, "12.0.0.0/8=256.4096 12.1.1.1/32=256.4096!");
	unsigned v6 = door_serve(door, "::", PORT, "2001:db8::/32=3 ::/0=4");

	(void)state;
	assert_true(exact < DOOR_SLOTS && any < DOOR_SLOTS && v6 >= DOOR_SLOTS);
	assert_true(passes(door, "192.0.2.1", PORT, "10.0.0.1"));
	assert_true(passes(door, "192.0.2.2", PORT, "11.0.0.1"));
	assert_true(passes(door, "192.0.2.1", PORT, "11.0.0.1"));
	assert_true(passes(door, "192.0.2.1", PORT, "12.0.0.1"));
	assert_false(passes(door, "192.0.2.1", PORT, "12.1.1.1"));
	assert_false(passes(door, "192.0.2.1", PORT, "13.1.1.1"));
	assert_false(passes(door, "192.0.2.2", PORT, "12.0.0.1"));
	assert_true(passes(door, "2001:db8::1", PORT, "2001:db8::9"));
	/* Everybody is welcome at that binding, but not as two. */
	assert_false(passes(door, "2001:db8::1", PORT, "::ffff:10.0.0.1"));
	assert_true(passes(door, "2001:db8::1", PORT, "::10.0.0.1"));
	assert_counts(door, KERNEL_DOOR_SLOTS_V4, any, 3, REFUSED(1, 0, 0, 0));
	assert_counts(door, KERNEL_DOOR_SLOTS_V4, exact, 1, REFUSED(1, 1, 0, 0));
	assert_counts(door, KERNEL_DOOR_SLOTS_V6, v6, 2, REFUSED(0, 0, 0, 1));
	assert_counts(door, KERNEL_DOOR_CONNECTORS, 1, 1, REFUSED(0, 0, 0, 0));
	assert_counts(door, KERNEL_DOOR_CONNECTORS, 2, 2, REFUSED(0, 0, 0, 0));
	assert_counts(door, KERNEL_DOOR_CONNECTORS, 256, 1, REFUSED(0, 1, 0, 0));
	assert_counts(door, KERNEL_DOOR_CONNECTORS, 0, 0, REFUSED(0, 0, 0, 0));
	assert_counts(door, KERNEL_DOOR_PARTNERS, 9, 2, REFUSED(0, 0, 0, 0));
	assert_counts(door, KERNEL_DOOR_PARTNERS, 4096, 1, REFUSED(0, 1, 0, 0));
	assert_counts(door, KERNEL_DOOR_PARTNERS, 0, 0, REFUSED(0, 0, 0, 0));
	assert_totals(door, 10, 0);
	door_down(&door);
}

/* ---- connection-rate-limit */

#define HOUR_NS 3600000000000ull

/* So many get in, and the next does not. */
static void assert_burst(struct kernel_door *door, const char *local, const char *peer, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		assert_true(passes(door, local, PORT, peer));
	assert_false(passes(door, local, PORT, peer));
}

static void test_rate(void **state)
{
	struct kernel_door *door = door_up();
	const struct door_limit three = {.interval_ns = HOUR_NS, .burst = 3};
	const struct door_limit none = {0};
	unsigned slot =
		door_serve(door, "0.0.0.0", PORT, "10.0.0.0/8=1 11.0.0.0/8=2 12.0.0.0/8=1*");

	(void)state;
	door_serve(door, "::", PORT, "2001:db8::/32=1");
	assert_int_equal(kernel_door_set_limit(door, 1, &three), 0);
	assert_burst(door, "192.0.2.1", "10.0.0.1", 3);
	/* Whatever address of ours it is; another peer has its own. */
	assert_false(passes(door, "192.0.2.9", PORT, "10.0.0.1"));
	assert_burst(door, "192.0.2.9", "10.0.0.2", 3);
	/* All of a /64 are one peer. */
	assert_true(passes(door, "::1", PORT, "2001:db8::1:1"));
	assert_true(passes(door, "::1", PORT, "2001:db8::2:2"));
	assert_burst(door, "::1", "2001:db8::3:3", 1);
	assert_burst(door, "::1", "2001:db8:0:1::", 3);
	for (unsigned i = 0; i < 10; i++) {
		assert_true(passes(door, "192.0.2.1", PORT, "11.0.0.1")); /* has no limit */
		assert_true(passes(door, "192.0.2.1", PORT, "12.0.0.1")); /* is a balancer */
	}
	assert_counts(door, KERNEL_DOOR_SLOTS_V4, slot, 26, REFUSED(0, 0, 3, 0));
	assert_counts(door, KERNEL_DOOR_CONNECTORS, 1, 22, REFUSED(0, 0, 5, 0));
	/* Taking it away lets all in. */
	assert_int_equal(kernel_door_set_limit(door, 1, &none), 0);
	for (unsigned i = 0; i < 10; i++)
		assert_true(passes(door, "192.0.2.1", PORT, "10.0.0.1"));
	assert_int_equal(kernel_door_set_limit(door, DOOR_CONNECTORS_MAX + 1, &three), -EINVAL);
	door_down(&door);
}

/* ---- events */

static struct door_event seen[2 * DOOR_EVENTS_BURST];
static unsigned seen_count;

static void on_event(void *owner, const struct door_event *event)
{
	assert_ptr_equal(owner, seen);
	if (seen_count < COUNT_OF(seen))
		seen[seen_count++] = *event;
}

static void assert_event(unsigned at, const char *local, const char *peer, enum door_reason reason)
{
	struct door_binding binding;
	struct ip local_ip = {.is_v6 = strchr(local, ':') != NULL};
	struct ip peer_ip = {.is_v6 = strchr(peer, ':') != NULL};

	assert_int_equal(inet_pton(local_ip.is_v6 ? AF_INET6 : AF_INET, local, local_ip.bytes), 1);
	assert_int_equal(inet_pton(peer_ip.is_v6 ? AF_INET6 : AF_INET, peer, peer_ip.bytes), 1);
	binding_of_address(&local_ip, PORT, &binding);
	assert_true(at < seen_count);
	assert_memory_equal(&seen[at].local, &binding, sizeof(binding));
	assert_memory_equal(seen[at].peer, peer_ip.bytes, sizeof(seen[at].peer));
	assert_int_equal(seen[at].peer_port, 40000);
	assert_int_equal(seen[at].reason, reason);
	assert_true(at == 0 || seen[at].time_ns >= seen[at - 1].time_ns);
}

static void test_events(void **state)
{
	struct kernel_door *door = door_up();
	const struct door_limit one = {.interval_ns = HOUR_NS, .burst = 1};

	(void)state;
	seen_count = 0;
	assert_true(kernel_door_event_fd(door) >= 0);
	assert_int_equal(kernel_door_read_events(door, on_event, seen), 0);
	door_serve(door, "0.0.0.0", PORT, "10.0.0.0/8=1.7 10.1.1.1/32=1.7!");
	door_serve(door, "::", PORT, "2001:db8::/32=1");
	assert_int_equal(kernel_door_set_limit(door, 1, &one), 0);
	assert_false(passes(door, "192.0.2.1", PORT, "10.1.1.1"));
	assert_false(passes(door, "192.0.2.1", PORT, "8.8.8.8"));
	assert_burst(door, "192.0.2.1", "10.0.0.1", 1);
	assert_false(passes(door, "2001:db8::1", PORT, "2001:db9::1"));
	assert_false(passes(door, "2001:db8::1", PORT, "::ffff:10.0.0.1"));
	assert_int_equal(kernel_door_read_events(door, on_event, seen), 5);
	assert_int_equal(seen_count, 5);
	assert_event(0, "192.0.2.1", "10.1.1.1", DOOR_REASON_EXCLUDED);
	assert_event(1, "192.0.2.1", "8.8.8.8", DOOR_REASON_STRANGER);
	assert_event(2, "192.0.2.1", "10.0.0.1", DOOR_REASON_RATE);
	assert_event(3, "2001:db8::1", "2001:db9::1", DOOR_REASON_STRANGER);
	assert_event(4, "2001:db8::1", "::ffff:10.0.0.1", DOOR_REASON_MAPPED);
	assert_int_equal(seen[0].value.connector, 1);
	assert_int_equal(seen[0].value.partner, 7);
	assert_int_equal(seen[0].value.flags, DOOR_EXCLUDED);
	assert_int_equal(seen[1].value.connector, 0);
	assert_int_equal(seen[2].value.connector, 1);
	door_down(&door);
}

/* A flood is told of in part; the rest is counted. It changes no verdict. */
static void test_events_held(void **state)
{
	enum { flood = 20000 };
	struct kernel_door *door = door_up();
	struct door_totals totals;
	unsigned read = 0;

	(void)state;
	seen_count = 0;
	door_serve(door, "0.0.0.0", PORT, "10.0.0.0/8=1");
	for (unsigned i = 0; i < flood; i++)
		assert_false(passes(door, "192.0.2.1", PORT, "8.8.8.8"));
	for (int n; (n = kernel_door_read_events(door, on_event, seen)) != 0;) {
		assert_true(n > 0);
		read += (unsigned)n;
	}
	assert_int_equal(kernel_door_totals(door, &totals), 0);
	assert_int_equal(read + totals.events_held + totals.events_lost, flood);
	assert_true(read >= DOOR_EVENTS_BURST);
	assert_true(totals.events_held > 0);
	door_down(&door);
}

/* ---- changes */

static void test_one_prefix(void **state)
{
	struct kernel_door *door = door_up();
	struct address address = address_from("0.0.0.0", PORT);
	struct prefix net = prefix_from("10.0.0.0/8");
	struct prefix host = prefix_from("10.1.1.1/32");
	struct cidr *set = set_of("172.16.0.0/12=3");
	unsigned slot = 0;

	(void)state;
	assert_int_equal(kernel_door_take_slot(door, &address, &slot), 0);
	/* Nothing is in force that could be changed. */
	assert_int_equal(
		kernel_door_put(door, slot, &net, (struct door_value){.connector = 1}), -EAGAIN);
	assert_int_equal(kernel_door_drop(door, slot, &net), -EAGAIN);
	assert_int_equal(kernel_door_prefixes(door, slot), 0);
	door_serve(door, "0.0.0.0", PORT, "");
	assert_verdict(door, "192.0.2.1", "10.1.1.1", -ENOENT);
	assert_int_equal(kernel_door_put(door, slot, &net, (struct door_value){.connector = 1}), 0);
	assert_verdict(door, "192.0.2.1", "10.1.1.1", 1);
	assert_int_equal(
		kernel_door_put(door, slot, &host, (struct door_value){.connector = 2}), 0);
	assert_verdict(door, "192.0.2.1", "10.1.1.1", 2);
	assert_int_equal(kernel_door_put(door, slot, &host,
				 (struct door_value){.flags = DOOR_EXCLUDED, .partner = 1}),
		0);
	assert_verdict(door, "192.0.2.1", "10.1.1.1", -EACCES);
	assert_int_equal(kernel_door_prefixes(door, slot), 2);
	assert_int_equal(kernel_door_drop(door, slot, &host), 0);
	assert_int_equal(kernel_door_drop(door, slot, &host), -ENOENT);
	assert_verdict(door, "192.0.2.1", "10.1.1.1", 1);
	assert_int_equal(kernel_door_prefixes(door, slot), 1);
	/* A whole set beside it; until the exchange nothing changes. */
	assert_int_equal(kernel_door_fill(door, slot, set), 0);
	assert_verdict(door, "192.0.2.1", "10.1.1.1", 1);
	assert_verdict(door, "192.0.2.1", "172.16.0.1", -ENOENT);
	assert_int_equal(kernel_door_swap(door, slot), 0);
	assert_verdict(door, "192.0.2.1", "10.1.1.1", -ENOENT);
	assert_verdict(door, "192.0.2.1", "172.16.0.1", 3);
	cidr_destroy(&set);
	door_down(&door);
}

/* All slots of a family, and one more; what is given up is free again and open to all. */
static void test_slots(void **state)
{
	struct kernel_door *door = door_up();
	struct address address;
	char text[INET6_ADDRSTRLEN];
	unsigned slot = 0;

	(void)state;
	for (unsigned i = 0; i < 2 * DOOR_SLOTS; i++) {
		(void)snprintf(
			text, sizeof(text), i < DOOR_SLOTS ? "192.0.2.%u" : "2001:db8::%u", i);
		assert_int_equal(
			door_serve(door, text, PORT, i < DOOR_SLOTS ? "10.0.0.0/8=1" : "::1/128=1"),
			i);
	}
	address = address_from("192.0.2.200", PORT);
	assert_int_equal(kernel_door_take_slot(door, &address, &slot), -ENOSPC);
	address = address_from("2001:db8::200", PORT);
	assert_int_equal(kernel_door_take_slot(door, &address, &slot), -ENOSPC);
	assert_true(kernel_door_binding(door, LAST_SLOT_V6, &address, &slot));
	assert_int_equal(slot, LAST_SLOT_V6);
	assert_false(kernel_door_binding(door, DOOR_SLOTS_ALL, &address, &slot));
	assert_int_equal(kernel_door_unbind(door, 5), 0);
	assert_true(passes(door, "192.0.2.5", PORT, "8.8.8.8"));
	assert_int_equal(connector_of(door, "192.0.2.5", PORT, "10.0.0.1"), -EADDRNOTAVAIL);
	assert_false(kernel_door_binding(door, LAST_SLOT_V6, &address, &slot));
	address = address_from("192.0.2.200", PORT);
	assert_int_equal(kernel_door_take_slot(door, &address, &slot), 0);
	assert_int_equal(slot, 5);
	assert_true(passes(door, "192.0.2.200", PORT, "8.8.8.8"));
	assert_int_equal(kernel_door_bind(door, slot), 0);
	/* Nothing of the binding before is left. */
	assert_false(passes(door, "192.0.2.200", PORT, "10.0.0.1"));
	assert_int_equal(kernel_door_prefixes(door, slot), 0);
	door_down(&door);
}

static void test_zoned_and_balancer(void **state)
{
	struct kernel_door *door = door_up();
	struct address local = address_from("fe80::1", PORT);
	struct ip peer = ip_from("fe80::2");
	struct door_value value;

	(void)state;
	door_serve(door, "::", PORT, "fe80::/10=0% 2001:db8::/32=3*");
	assert_true(passes(door, "fe80::1", PORT, "fe80::2"));
	assert_true(passes(door, "fe80::1", PORT, "2001:db8::2"));
	assert_int_equal(kernel_door_ask(door, &local, &peer, &value), 0);
	assert_int_equal(value.flags, DOOR_ZONED);
	peer = ip_from("2001:db8::5");
	assert_int_equal(kernel_door_ask(door, &local, &peer, &value), 0);
	assert_int_equal(value.flags, DOOR_BALANCER);
	assert_int_equal(value.connector, 3);
	door_down(&door);
}

/* ---- exchanging while others ask */

struct asker {
	struct kernel_door *door;
	atomic_bool is_over;
	unsigned long asked, refused;
};

static void *asker_run(void *arg)
{
	struct asker *asker = arg;
	struct address local = address_from("192.0.2.1", PORT);
	struct ip kept = ip_from("10.0.0.1");
	struct door_value value;

	while (!atomic_load(&asker->is_over)) {
		asker->asked++;
		if (kernel_door_ask(asker->door, &local, &kept, &value) != 0 ||
			(value.connector != 1 && value.connector != 2))
			asker->refused++;
	}
	return NULL;
}

/* A peer that is in every set is never refused, by the program or by the answer. */
static void test_exchange_under_questions(void **state)
{
	enum { rounds = 40, looks = 200 };
	struct kernel_door *door = door_up();
	struct asker asker = {.door = door};
	struct cidr *sets[2] = {
		set_of("10.0.0.1/32=1 10.1.0.0/16=1"), set_of("10.0.0.0/8=2 10.1.0.0/16=2")};
	unsigned slot = door_serve(door, "0.0.0.0", PORT, "10.0.0.0/8=1");
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, asker_run, &asker), 0);
	for (unsigned i = 0; i < rounds; i++) {
		assert_int_equal(kernel_door_fill(door, slot, sets[i % 2]), 0);
		assert_int_equal(kernel_door_swap(door, slot), 0);
		for (unsigned n = 0; n < looks; n++)
			assert_true(passes(door, "192.0.2.1", PORT, "10.0.0.1"));
	}
	atomic_store(&asker.is_over, true);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_true(asker.asked > rounds);
	assert_int_equal(asker.refused, 0);
	cidr_destroy(&sets[0]);
	cidr_destroy(&sets[1]);
	door_down(&door);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_longest_prefix),
		cmocka_unit_test(test_exact_before_wildcard),
		cmocka_unit_test(test_others_pass),
		cmocka_unit_test(test_no_trie_is_closed),
		cmocka_unit_test(test_counts),
		cmocka_unit_test(test_rate),
		cmocka_unit_test(test_events),
		cmocka_unit_test(test_events_held),
		cmocka_unit_test(test_one_prefix),
		cmocka_unit_test(test_slots),
		cmocka_unit_test(test_zoned_and_balancer),
		cmocka_unit_test(test_exchange_under_questions),
	};

	LAB_MAIN(tests);
}
