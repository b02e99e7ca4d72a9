/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_kernel_door_shield.c: the XDP program: which packets it drops, and that it lets pass all
 * that it is not sure of; then on a real pair of interfaces, between two namespaces.
 */

#include "tests/unit/kernel_door_fixture.h"

#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <sys/prctl.h>

#define PACKET_BYTES 512
#define FRAME_BYTES_MIN 14 /* of BPF_PROG_TEST_RUN */

/* ---- packets */

enum flag { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16, ECE = 64, CWR = 128 };

/* What a packet is made of; zeros are what is usual: a SYN of TCP to PORT, no tags, no options. */
struct recipe {
	const char *from, *to;
	uint16_t port;
	uint8_t flags;
	unsigned tags;            /* of VLANs */
	unsigned options;         /* words of IPv4 options */
	uint16_t fragment;        /* of the IPv4 header */
	uint8_t extensions[6];    /* of IPv6: types, 0xff is hop-by-hop */
	unsigned extension_words; /* of each, beyond the first eight bytes */
	uint8_t protocol;
	uint8_t version_and_length; /* instead of what is right */
	uint16_t type;              /* of the link layer, likewise */
	bool is_to_other;           /* another hardware address */
};

struct packet {
	uint8_t bytes[PACKET_BYTES];
	unsigned len;
};

static void put_bytes(struct packet *packet, const void *bytes, size_t len)
{
	assert_true(packet->len + len <= sizeof(packet->bytes));
	memcpy(packet->bytes + packet->len, bytes, len);
	packet->len += (unsigned)len;
}

static void put_u16(struct packet *packet, uint16_t number)
{
	const uint16_t network = htons(number);

	put_bytes(packet, &network, sizeof(network));
}

static void put_v4(struct packet *packet, const struct recipe *recipe)
{
	const unsigned words = 5 + recipe->options;
	uint8_t header[60] = {(uint8_t)(0x40 | words), 0, 0, (uint8_t)(words * 4 + 20), 0, 0,
		(uint8_t)(recipe->fragment >> 8), (uint8_t)recipe->fragment, 64,
		recipe->protocol != 0 ? recipe->protocol : IPPROTO_TCP};

	if (recipe->version_and_length != 0)
		header[0] = recipe->version_and_length;
	assert_int_equal(inet_pton(AF_INET, recipe->from, header + 12), 1);
	assert_int_equal(inet_pton(AF_INET, recipe->to, header + 16), 1);
	memset(header + 20, 1, (size_t)recipe->options * 4); /* no operation */
	put_bytes(packet, header, (size_t)words * 4);
}

static void put_v6(struct packet *packet, const struct recipe *recipe)
{
	uint8_t header[40] = {0x60};
	uint8_t *next = &header[6];
	unsigned count = 0;

	if (recipe->version_and_length != 0)
		header[0] = recipe->version_and_length;
	header[7] = 64;
	assert_int_equal(inet_pton(AF_INET6, recipe->from, header + 8), 1);
	assert_int_equal(inet_pton(AF_INET6, recipe->to, header + 24), 1);
	while (count < sizeof(recipe->extensions) && recipe->extensions[count] != 0)
		count++;
	*next = count > 0 ? recipe->extensions[0] : IPPROTO_TCP;
	if (*next == 0xff)
		*next = IPPROTO_HOPOPTS;
	put_bytes(packet, header, sizeof(header));
	for (unsigned i = 0; i < count; i++) {
		uint8_t extension[64] = {i + 1 < count ? recipe->extensions[i + 1] : IPPROTO_TCP,
			(uint8_t)recipe->extension_words};

		put_bytes(packet, extension, 8 + recipe->extension_words * 8);
	}
}

static struct packet packet_of(const struct recipe *recipe)
{
	const bool is_v6 = strchr(recipe->from, ':') != NULL;
	uint8_t ends[12] = {(uint8_t)recipe->is_to_other};
	uint8_t tcp[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0x50, recipe->flags != 0 ? recipe->flags : SYN};
	struct packet packet = {.len = 0};

	put_bytes(&packet, ends, sizeof(ends));
	for (unsigned i = 0; i < recipe->tags; i++) {
		put_u16(&packet, i == 0 && recipe->tags > 1 ? ETH_P_8021AD : ETH_P_8021Q);
		put_u16(&packet, (uint16_t)(100 + i));
	}
	put_u16(&packet, recipe->type != 0 ? recipe->type : is_v6 ? ETH_P_IPV6 : ETH_P_IP);
	if (is_v6)
		put_v6(&packet, recipe);
	else
		put_v4(&packet, recipe);
	put_u16(&packet, 40000);
	put_u16(&packet, recipe->port != 0 ? recipe->port : PORT);
	put_bytes(&packet, tcp, sizeof(tcp));
	return packet;
}

static bool is_dropped(const struct kernel_door *door, const struct packet *packet)
{
	struct bpf_test_run_opts options = {
		.sz = sizeof(options), .data_in = packet->bytes, .data_size_in = packet->len};

	if (bpf_prog_test_run_opts(program_of(door, "postern_shield"), &options) < 0)
		fail_msg("BPF_PROG_TEST_RUN: %s", strerror(errno));
	assert_true(options.retval == XDP_DROP || options.retval == XDP_PASS);
	return options.retval == XDP_DROP;
}

/* BPF_PROG_TEST_RUN lets a packet come in by lo. */
static struct kernel_door *door_with_shield(const char *interface)
{
	struct kernel_door_options options = {
		.pin_folder = lab_pins, .interfaces = &interface, .interface_count = 1};
	struct kernel_door *door = NULL;

	if (kernel_door_create(&options, why, &door) < 0 || kernel_door_attach(door, why) < 0)
		fail_msg("%s", why);
	return door;
}

static uint64_t shield_drops(struct kernel_door *door)
{
	struct door_totals totals;

	assert_int_equal(kernel_door_totals(door, &totals), 0);
	return totals.shield_drops;
}

#define FRIEND_V6 "2001:db8::2"
#define STRANGER_V6 "2001:db9::3"

static void serve_all(struct kernel_door *door)
{
	door_serve(door, "0.0.0.0", PORT, "127.0.0.2/32=1 127.0.0.4/32=0!");
	door_serve(door, "::", PORT, "2001:db8::/32=1 2001:db8::4/128=0!");
}

static const struct {
	const char *what;
	bool is_dropped;
	struct recipe recipe;
} rows[] = {
	{"a stranger", true, {.from = STRANGER, .to = SERVED}},
	{"a stranger by IPv6", true, {.from = STRANGER_V6, .to = "::1"}},
	{"one who is excluded", true, {.from = "127.0.0.4", .to = SERVED}},
	{"one who is excluded, IPv6", true, {.from = "2001:db8::4", .to = "::1"}},
	{"a friend", false, {.from = FRIEND, .to = SERVED}},
	{"a friend by IPv6", false, {.from = FRIEND_V6, .to = "::1"}},
	{"another port", false, {.from = STRANGER, .to = SERVED, .port = 26}},
	{"another port, IPv6", false, {.from = STRANGER_V6, .to = "::1", .port = 26}},
	{"with other flags", true,
		{.from = STRANGER, .to = SERVED, .flags = SYN | ECE | CWR | PSH}},
	{"SYN and ACK", false, {.from = STRANGER, .to = SERVED, .flags = SYN | ACK}},
	{"ACK", false, {.from = STRANGER, .to = SERVED, .flags = ACK}},
	{"RST", false, {.from = STRANGER, .to = SERVED, .flags = RST}},
	{"SYN and RST", false, {.from = STRANGER, .to = SERVED, .flags = SYN | RST}},
	{"SYN and FIN", false, {.from = STRANGER, .to = SERVED, .flags = SYN | FIN}},
	{"no flag that matters", false, {.from = STRANGER, .to = SERVED, .flags = PSH}},
	{"UDP", false, {.from = STRANGER, .to = SERVED, .protocol = IPPROTO_UDP}},
	{"the first fragment", false, {.from = STRANGER, .to = SERVED, .fragment = 0x2000}},
	{"a later fragment", false, {.from = STRANGER, .to = SERVED, .fragment = 0x00ff}},
	{"not to be fragmented", true, {.from = STRANGER, .to = SERVED, .fragment = 0x4000}},
	{"options", true, {.from = STRANGER, .to = SERVED, .options = 1}},
	{"as many options as can be", true, {.from = STRANGER, .to = SERVED, .options = 10}},
	{"options of a friend", false, {.from = FRIEND, .to = SERVED, .options = 10}},
	{"another version", false, {.from = STRANGER, .to = SERVED, .version_and_length = 0x65}},
	{"too short a header", false, {.from = STRANGER, .to = SERVED, .version_and_length = 0x44}},
	{"a tag", true, {.from = STRANGER, .to = SERVED, .tags = 1}},
	{"two tags", true, {.from = STRANGER, .to = SERVED, .tags = 2}},
	{"two tags, IPv6", true, {.from = STRANGER_V6, .to = "::1", .tags = 2}},
	{"two tags of a friend", false, {.from = FRIEND, .to = SERVED, .tags = 2}},
	{"three tags", false, {.from = STRANGER, .to = SERVED, .tags = 3}},
	{"ARP", false, {.from = STRANGER, .to = SERVED, .type = ETH_P_ARP}},
	{"for another machine", false, {.from = STRANGER, .to = SERVED, .is_to_other = true}},
	{"hop-by-hop options", true, {.from = STRANGER_V6, .to = "::1", .extensions = {0xff}}},
	{"four headers", true,
		{.from = STRANGER_V6,
			.to = "::1",
			.extensions = {0xff, 60, 60, 60},
			.extension_words = 7}},
	{"four headers of a friend", false,
		{.from = FRIEND_V6, .to = "::1", .extensions = {0xff, 60, 60, 60}}},
	{"five headers", false,
		{.from = STRANGER_V6, .to = "::1", .extensions = {0xff, 60, 60, 60, 60}}},
	{"a routing header", false, {.from = STRANGER_V6, .to = "::1", .extensions = {43}}},
	{"a fragment by IPv6", false, {.from = STRANGER_V6, .to = "::1", .extensions = {44}}},
	{"another version of IPv6", false,
		{.from = STRANGER_V6, .to = "::1", .version_and_length = 0x50}},
	{"IPv4 in IPv6", false, {.from = "::ffff:127.0.0.3", .to = "::1"}},
};

static void test_packets(void **state)
{
	struct kernel_door *door = door_with_shield("lo");
	uint64_t dropped = 0;

	(void)state;
	serve_all(door);
	for (unsigned i = 0; i < COUNT_OF(rows); i++) {
		struct packet packet = packet_of(&rows[i].recipe);

		if (is_dropped(door, &packet) != rows[i].is_dropped)
			fail_msg("%s: %s", rows[i].what, rows[i].is_dropped ? "passed" : "dropped");
		dropped += rows[i].is_dropped;
	}
	assert_int_equal(shield_drops(door), dropped);
	door_down(&door);
}

/* A packet that is cut off anywhere before the end of its TCP header passes. */
static void test_short_packets(void **state)
{
	struct kernel_door *door = door_with_shield("lo");

	(void)state;
	serve_all(door);
	for (unsigned i = 0; i < COUNT_OF(rows); i++) {
		struct packet packet = packet_of(&rows[i].recipe);

		while (--packet.len >= FRAME_BYTES_MIN)
			assert_false(is_dropped(door, &packet));
	}
	assert_int_equal(shield_drops(door), 0);
	door_down(&door);
}

/* Any bytes at all: no stranger's SYN is among them but by the rarest chance. */
static void test_random_packets(void **state)
{
	struct kernel_door *door = door_with_shield("lo");
	uint32_t number = 1;

	(void)state;
	serve_all(door);
	for (unsigned i = 0; i < 20000; i++) {
		struct packet packet = packet_of(&rows[i % COUNT_OF(rows)].recipe);

		for (unsigned n = 0; n < 4; n++) {
			number = number * 1664525 + 1013904223;
			packet.bytes[12 + (number >> 8) % (packet.len - 12)] =
				(uint8_t)(number >> 24);
		}
		(void)is_dropped(door, &packet);
	}
	door_down(&door);
}

/* What the shield is not sure of the door decides: the rate, a binding without a trie. */
static void test_door_decides(void **state)
{
	const struct door_limit limit = {.interval_ns = 3600000000000ull, .burst = 1};
	const struct recipe knock_of_friend = {.from = FRIEND, .to = SERVED};
	const struct recipe knock_elsewhere = {.from = STRANGER, .to = "127.0.0.9"};
	struct kernel_door *door = door_with_shield("lo");
	struct packet packet = packet_of(&knock_of_friend);
	struct packet elsewhere = packet_of(&knock_elsewhere);
	struct address address = address_from("127.0.0.9", PORT);
	unsigned slot = 0;

	(void)state;
	serve_all(door);
	assert_int_equal(kernel_door_set_limit(door, 1, &limit), 0);
	for (unsigned i = 0; i < 5; i++)
		assert_false(is_dropped(door, &packet));
	/* Nothing was counted: one may still come in. */
	assert_true(passes(door, SERVED, PORT, FRIEND));
	assert_false(passes(door, SERVED, PORT, FRIEND));
	assert_true(is_dropped(door, &elsewhere));
	assert_int_equal(kernel_door_take_slot(door, &address, &slot), 0);
	assert_int_equal(kernel_door_bind(door, slot), 0);
	assert_false(is_dropped(door, &elsewhere));
	assert_false(passes(door, "127.0.0.9", PORT, STRANGER));
	door_down(&door);
}

/* ---- two namespaces */

#define INTERFACE "ve.0" /* a name as of a VLAN: a bpf file system has no dots */

static bool run(const char *command)
{
	char line[512];

	(void)snprintf(
		line, sizeof(line), "PATH=$PATH:/usr/sbin:/sbin; %s >/dev/null 2>&1", command);
	return system(line) == 0;
}

static void write_setting(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, value, strlen(value)), strlen(value));
	(void)close(fd);
}

/* A process in a namespace of its own, which knocks when it is told to. */
static struct {
	pid_t process;
	int ask, answer;
} client;

struct order {
	char from[INET6_ADDRSTRLEN], to[INET6_ADDRSTRLEN];
	uint16_t port;
};

static void client_run(int ask, int answer)
{
	struct order order;
	int error = 0;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (unshare(CLONE_NEWNET) < 0)
		_exit(1);
	(void)!write(answer, &error, sizeof(error));
	while (read(ask, &order, sizeof(order)) == sizeof(order)) {
		error = knock(-1, order.from, order.to, order.port);
		(void)!write(answer, &error, sizeof(error));
	}
	_exit(0);
}

static void client_open(void)
{
	int ask[2];
	int answer[2];
	int error = -1;

	assert_int_equal(pipe2(ask, O_CLOEXEC), 0);
	assert_int_equal(pipe2(answer, O_CLOEXEC), 0);
	client.process = fork();
	assert_true(client.process >= 0);
	if (client.process == 0) {
		(void)close(ask[1]);
		client_run(ask[0], answer[1]);
	}
	(void)close(ask[0]);
	(void)close(answer[1]);
	client.ask = ask[1];
	client.answer = answer[0];
	assert_int_equal(read(client.answer, &error, sizeof(error)), sizeof(error));
	assert_int_equal(error, 0);
}

static void client_close(void)
{
	(void)close(client.ask);
	(void)close(client.answer);
	assert_int_equal(waitpid(client.process, NULL, 0), client.process);
}

static int client_knock(const char *from, const char *to, uint16_t port)
{
	struct order order = {.port = port};
	int error = 0;

	(void)snprintf(order.from, sizeof(order.from), "%s", from);
	(void)snprintf(order.to, sizeof(order.to), "%s", to);
	assert_int_equal(write(client.ask, &order, sizeof(order)), sizeof(order));
	assert_int_equal(read(client.answer, &error, sizeof(error)), sizeof(error));
	return error;
}

/* False: no veth here, or no ip(8). */
static bool wire_open(void)
{
	char command[256];

	(void)snprintf(command, sizeof(command),
		"ip link add " INTERFACE " type veth peer name ve1 netns %d", (int)client.process);
	if (!run(command))
		return false;
	assert_true(run(
		"ip addr add 10.9.0.1/24 dev " INTERFACE " && ip addr add fd09::1/64 dev " INTERFACE
		" nodad && ip link set " INTERFACE " up"));
	(void)snprintf(command, sizeof(command),
		"nsenter -t %d -n sh -c 'ip link set ve1 up && for n in 2 3; do "
		"ip addr add 10.9.0.$n/24 dev ve1 && ip addr add fd09::$n/64 dev ve1 nodad; done'",
		(int)client.process);
	assert_true(run(command));
	return true;
}

/* How many look-ups the door has done. */
static uint64_t lookups(struct kernel_door *door)
{
	struct door_totals totals;

	assert_int_equal(kernel_door_totals(door, &totals), 0);
	return totals.lookups;
}

static void assert_shielded(struct kernel_door *door)
{
	const char *const servers[] = {"10.9.0.1", "fd09::1"};
	const char *const friends[] = {"10.9.0.2", "fd09::2"};
	const char *const strangers[] = {"10.9.0.3", "fd09::3"};

	for (unsigned i = 0; i < COUNT_OF(servers); i++) {
		uint64_t drops = shield_drops(door);
		uint64_t seen;

		assert_int_equal(client_knock(friends[i], servers[i], PORT), 0);
		assert_int_equal(shield_drops(door), drops);
		seen = lookups(door);
		/* The door itself never hears of it. */
		assert_int_equal(client_knock(strangers[i], servers[i], PORT), -ETIMEDOUT);
		assert_int_equal(lookups(door), seen);
		assert_true(shield_drops(door) > drops);
		drops = shield_drops(door);
		/* A port of nobody, of which the kernel says so itself. */
		assert_int_equal(client_knock(strangers[i], servers[i], 26), -ECONNREFUSED);
		assert_int_equal(shield_drops(door), drops);
	}
}

/* Whether packets are forwarded does not matter for those to this machine. */
static void check_shield(struct kernel_door *door)
{
	write_setting("/proc/sys/net/ipv4/ip_forward", "0");
	assert_shielded(door);
	write_setting("/proc/sys/net/ipv4/ip_forward", "1");
	write_setting("/proc/sys/net/ipv6/conf/all/forwarding", "1");
	assert_shielded(door);
}

/* What is only forwarded is not touched: that of a stranger to another machine's port 25. */
static void check_forwarding(struct kernel_door *door)
{
	uint64_t drops = shield_drops(door);

	assert_true(run("ip addr add 10.10.0.1/24 dev lo && ip route add 10.11.0.0/24 dev lo"));
	assert_int_equal(client_knock("10.9.0.3", "10.9.0.1", PORT), -ETIMEDOUT);
	assert_true(shield_drops(door) > drops);
	drops = shield_drops(door);
	(void)client_knock("10.9.0.3", "10.11.0.5", PORT);
	assert_int_equal(shield_drops(door), drops);
}

static void check_links(struct kernel_door **door)
{
	struct kernel_door_info before;
	struct kernel_door_info info;

	kernel_door_info(*door, &before);
	assert_int_equal(before.shield_count, 1);
	assert_string_equal(before.shield_names[0], INTERFACE);
	assert_int_not_equal(before.shield_ids[0], 0);
	/* A restart replaces the program in its link. */
	kernel_door_destroy(door);
	assert_int_equal(client_knock("10.9.0.3", "10.9.0.1", PORT), -ETIMEDOUT);
	*door = door_with_shield(INTERFACE);
	door_serve(*door, "0.0.0.0", PORT, "10.9.0.2/32=1");
	kernel_door_info(*door, &info);
	assert_int_not_equal(info.shield_ids[0], 0);
	assert_int_not_equal(info.shield_ids[0], before.shield_ids[0]);
	assert_int_equal(client_knock("10.9.0.3", "10.9.0.1", PORT), -ETIMEDOUT);
	/* No longer wanted: the door is what is left. */
	kernel_door_destroy(door);
	*door = door_up_attached();
	kernel_door_info(*door, &info);
	assert_int_equal(info.shield_count, 0);
	assert_int_equal(client_knock("10.9.0.3", "10.9.0.1", PORT), -ECONNREFUSED);
	assert_int_equal(client_knock("10.9.0.2", "10.9.0.1", PORT), 0);
}

/* Another interface of the same name: the link that is pinned is of one that is gone. */
static void check_new_interface(struct kernel_door **door)
{
	kernel_door_destroy(door);
	*door = door_with_shield(INTERFACE);
	kernel_door_destroy(door);
	assert_true(run("ip link del " INTERFACE));
	assert_true(wire_open());
	*door = door_with_shield(INTERFACE);
	assert_int_equal(client_knock("10.9.0.3", "10.9.0.1", PORT), -ETIMEDOUT);
	assert_int_equal(client_knock("10.9.0.2", "10.9.0.1", PORT), 0);
}

static void test_wire(void **state)
{
	struct kernel_door *door;
	int listeners[2];

	(void)state;
	client_open();
	if (!wire_open()) {
		client_close();
		print_message("skipped: no veth here, or no ip(8)\n");
		skip();
	}
	door = door_with_shield(INTERFACE);
	door_serve(door, "0.0.0.0", PORT, "10.9.0.2/32=1");
	door_serve(door, "::", PORT, "fd09::2/128=1");
	listeners[0] = listener_open("10.9.0.1", PORT);
	listeners[1] = listener_open("fd09::1", PORT);
	check_shield(door);
	check_forwarding(door);
	check_links(&door);
	check_new_interface(&door);
	(void)close(listeners[0]);
	(void)close(listeners[1]);
	door_down(&door);
	client_close();
}

/* ---- attaching that fails */

static struct kernel_door *door_that_wants(const char *const *interfaces, unsigned count)
{
	struct kernel_door_options options = {
		.pin_folder = lab_pins, .interfaces = interfaces, .interface_count = count};
	struct kernel_door *door = NULL;

	if (kernel_door_create(&options, why, &door) < 0)
		fail_msg("%s", why);
	return door;
}

/* One interface is there, the other is not: neither is attached, nor is the door. */
static void test_no_such_interface(void **state)
{
	const char *const interfaces[] = {"lo", "nowhere0"};
	struct kernel_door *door = door_that_wants(interfaces, 2);
	struct kernel_door_info info;

	(void)state;
	assert_int_equal(kernel_door_attach(door, why), -ENODEV);
	assert_non_null(strstr(why, "nowhere0"));
	kernel_door_info(door, &info);
	assert_int_equal(info.program_id, 0);
	assert_int_equal(info.shield_count, 0);
	assert_int_equal(info.foreign_count, 0);
	kernel_door_destroy(&door);
	/* It stays as it was, too, when there was something before. */
	door = door_up_attached();
	kernel_door_destroy(&door);
	door = door_that_wants(interfaces, 2);
	assert_int_equal(kernel_door_attach(door, why), -ENODEV);
	kernel_door_info(door, &info);
	assert_int_not_equal(info.program_id, 0);
	assert_int_equal(info.shield_count, 0);
	door_down(&door);
}

static void test_other_program_is_there(void **state)
{
	const char *const interfaces[] = {"lo"};
	int program = program_load(BPF_PROG_TYPE_XDP, 0, XDP_PASS);
	int link = bpf_link_create(program, (int)if_nametoindex("lo"), BPF_XDP, NULL);
	struct kernel_door *door = door_that_wants(interfaces, 1);

	(void)state;
	assert_true(program >= 0 && link >= 0);
	assert_int_equal(kernel_door_attach(door, why), -EBUSY);
	assert_non_null(strstr(why, "xdp:lo"));
	(void)close(link);
	(void)close(program);
	assert_int_equal(kernel_door_attach(door, why), 0);
	door_down(&door);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_packets),
		cmocka_unit_test(test_short_packets),
		cmocka_unit_test(test_random_packets),
		cmocka_unit_test(test_door_decides),
		cmocka_unit_test(test_wire),
		cmocka_unit_test(test_no_such_interface),
		cmocka_unit_test(test_other_program_is_there),
	};

	LAB_MAIN(tests);
}
