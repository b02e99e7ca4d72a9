/* SPDX-License-Identifier: Apache-2.0 */

/*
 * case_quiet.c: what the door does not do: wake the relay for strangers, touch other services, get
 * in the way of another relay. And who else may be at it: rates, balancers, foreign programs.
 */

#include "tests/door/case.h"

#include "bpf/loader.h"
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

/* ---- nobody is woken */

/* What would rise if the kernel made anything of a connection. */
struct quiet_counts {
	unsigned long opens, overflows, drops, enters, accepted;
	struct daemon_door door;
};

static struct quiet_counts quiet_count(struct daemon *daemon)
{
	struct quiet_counts counts = {0};
	const char *stats = daemon_stats(daemon);

	counts.enters = daemon_stat(stats, "ring_enters");
	counts.accepted = daemon_stat(stats, "sessions") +
			  daemon_stat(stats, "sessions_unmatched") +
			  daemon_stat(stats, "sessions_refused");
	counts.opens = place_counter("snmp", "Tcp:", "PassiveOpens");
	counts.overflows = place_counter("netstat", "TcpExt:", "ListenOverflows");
	counts.drops = place_counter("netstat", "TcpExt:", "ListenDrops");
	daemon_door(daemon, &counts.door);
	return counts;
}

static void quiet_knock(const char *from, const char *to, unsigned long count, enum knock_end end)
{
	for (unsigned long i = 0; i < count; i++) {
		struct knock got = knock(from, to, DAEMON_PORT, false);

		case_check(got.end == end, "%s was %s: %s", from, knock_word(got.end),
			strerror(got.error));
	}
}

#define QUIET_KNOCKS 1000UL

/*
 * The relay's own thread logs refusals, some of them, which may wake the writer of the log: 200 at
 * once and 100 a second for each processor. So there are more knocks than that, first.
 */
static void quiet_refused(bool by_kernel)
{
	struct quiet_counts before;
	struct quiet_counts after;
	struct daemon daemon;
	unsigned long enters;

	case_begin(&daemon, by_kernel, NULL);
	daemon_start(&daemon);
	quiet_knock("10.2.0.1", CASE_V4, QUIET_KNOCKS, KNOCK_REFUSED);
	before = quiet_count(&daemon);
	quiet_knock("10.2.0.1", CASE_V4, QUIET_KNOCKS, KNOCK_REFUSED);
	quiet_knock("2001:db8:2::1", CASE_V6, QUIET_KNOCKS, KNOCK_REFUSED);
	after = quiet_count(&daemon);
	case_check(after.opens == before.opens, "%lu connections were made",
		after.opens - before.opens);
	case_check(after.overflows == before.overflows && after.drops == before.drops,
		"the accept queue has overflown");
	case_check(after.accepted == before.accepted, "the relay has accepted %lu",
		after.accepted - before.accepted);
	case_check(after.door.stranger - before.door.stranger == 2 * QUIET_KNOCKS,
		"%lu refusals are counted", after.door.stranger - before.door.stranger);
	enters = after.enters - before.enters;
	case_check(enters < QUIET_KNOCKS, "the worker was woken %lu times by %lu strangers", enters,
		2 * QUIET_KNOCKS);
	/* The same for friends, so that these counters are known to count. */
	before = after;
	quiet_knock("10.1.0.1", CASE_V4, 100, KNOCK_SERVED);
	after = quiet_count(&daemon);
	case_check(after.opens - before.opens == 100 && after.accepted - before.accepted == 100 &&
			   after.door.passed - before.door.passed >= 100 &&
			   after.enters - before.enters >= 100,
		"100 friends are not counted: %lu opens, %lu accepted, %lu passed, %lu enters",
		after.opens - before.opens, after.accepted - before.accepted,
		after.door.passed - before.door.passed, after.enters - before.enters);
	daemon_stop(&daemon);
}

/* ---- others in the namespace */

static int quiet_listen(const char *address, unsigned port, int type)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	struct timeval patience = {.tv_sec = 10L * suite.slow};
	int yes = 1;
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	(void)inet_pton(AF_INET, address, &at.sin_addr);
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	case_check(bind(fd, (struct sockaddr *)&at, sizeof(at)) == 0 &&
			   (type == SOCK_DGRAM || listen(fd, 16) == 0),
		"%s:%u: %s", address, port, strerror(errno));
	return fd;
}

/* A connection from a stranger of the relay's to a listener that is not the relay's. */
static void quiet_connect(int listener, const char *address, unsigned port, int ends[2])
{
	struct sockaddr_in from = {.sin_family = AF_INET};
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

	(void)inet_pton(AF_INET, "10.2.0.1", &from.sin_addr);
	(void)inet_pton(AF_INET, address, &to.sin_addr);
	ends[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	case_check(bind(ends[0], (struct sockaddr *)&from, sizeof(from)) == 0 &&
			   connect(ends[0], (struct sockaddr *)&to, sizeof(to)) == 0,
		"%s:%u: %s", address, port, strerror(errno));
	ends[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	case_check(ends[1] >= 0, "%s:%u: accept: %s", address, port, strerror(errno));
}

static void quiet_check_pair(const int ends[2], const char *when)
{
	char got = 0;

	case_check(send(ends[0], "x", 1, MSG_NOSIGNAL) == 1 && recv(ends[1], &got, 1, 0) == 1 &&
			   got == 'x',
		"a connection of others is cut %s", when);
}

/* To the relay's own address and port, but not by TCP. */
static void quiet_check_udp(int fd)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(DAEMON_PORT)};
	struct sockaddr_in from = {.sin_family = AF_INET};
	int client = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char got[8];

	(void)inet_pton(AF_INET, CASE_V4, &to.sin_addr);
	(void)inet_pton(AF_INET, "10.2.0.1", &from.sin_addr);
	case_check(bind(client, (struct sockaddr *)&from, sizeof(from)) == 0 &&
			   sendto(client, "udp", 3, 0, (struct sockaddr *)&to, sizeof(to)) == 3 &&
			   recv(fd, got, sizeof(got), 0) == 3,
		"UDP does not come through: %s", strerror(errno));
	(void)close(client);
}

static void quiet_others(bool by_kernel)
{
	static const struct visit stranger[] = {{.from = "10.2.0.1", .to = CASE_V4}};
	struct daemon daemon;
	int other_port = quiet_listen(CASE_V4, 2600, SOCK_STREAM);
	int other_address = quiet_listen("192.0.2.77", DAEMON_PORT, SOCK_STREAM);
	int udp = quiet_listen(CASE_V4, DAEMON_PORT, SOCK_DGRAM);
	int before[2];
	int pair[2];

	quiet_connect(other_port, CASE_V4, 2600, before);
	case_begin(&daemon, by_kernel, NULL);
	daemon_start(&daemon);
	VISIT_ALL(stranger, by_kernel);
	for (unsigned i = 0; i < 50; i++) {
		quiet_connect(other_port, CASE_V4, 2600, pair);
		(void)close(pair[0]);
		(void)close(pair[1]);
		quiet_connect(other_address, "192.0.2.77", DAEMON_PORT, pair);
		quiet_check_pair(pair, "while the relay runs");
		(void)close(pair[0]);
		(void)close(pair[1]);
		quiet_check_udp(udp);
	}
	quiet_check_pair(before, "by the start");
	case_check(daemon_reload(&daemon), "no reload");
	quiet_check_pair(before, "by a reload");
	daemon_stop(&daemon);
	quiet_check_pair(before, "by the end");
	quiet_connect(other_address, "192.0.2.77", DAEMON_PORT, pair);
	quiet_check_pair(pair, "after the end");
	quiet_check_udp(udp);
}

/* ---- another program, another relay */

/* A program that lets all pass, attached before or behind ours. */
static unsigned long quiet_attach_foreign(void)
{
	const struct bpf_insn pass[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = SK_PASS},
		{.code = BPF_JMP | BPF_EXIT}};
	struct bpf_prog_load_opts options = {
		.sz = sizeof(options), .expected_attach_type = BPF_SK_LOOKUP};
	struct bpf_prog_info info = {0};
	__u32 info_len = sizeof(info);
	int program = bpf_prog_load(
		BPF_PROG_TYPE_SK_LOOKUP, "foreign", "GPL", pass, COUNT_OF(pass), &options);
	int netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

	case_check(program >= 0 && netns >= 0 &&
			   bpf_link_create(program, netns, BPF_SK_LOOKUP, NULL) >= 0 &&
			   bpf_obj_get_info_by_fd(program, &info, &info_len) == 0,
		"a program of others: %s", strerror(errno));
	return info.id;
}

/* As posternctl looks, which has the rights that the relay has given up. */
static struct kernel_door_info quiet_look(const struct daemon *daemon)
{
	char why[KERNEL_DOOR_WHY_BYTES];
	char pins[PLACE_PATH_BYTES];
	struct kernel_door_info info;
	struct kernel_door *door;

	case_check(kernel_door_open_pinned(daemon_pins(daemon, pins), why, &door) == 0, "%s", why);
	kernel_door_info(door, &info);
	kernel_door_destroy(&door);
	return info;
}

static void quiet_foreign(bool by_kernel)
{
	static const struct visit visits[] = {
		{.from = "10.1.0.1", .to = CASE_V4, .greeting = "friends"},
		{.from = "10.2.0.1", .to = CASE_V4},
	};
	struct kernel_door_info info;
	struct daemon daemon;
	unsigned long foreign;

	case_begin(&daemon, by_kernel, NULL);
	daemon_start(&daemon);
	info = quiet_look(&daemon);
	case_check(info.foreign_is_known && info.foreign_count == 0, "%u foreign programs",
		info.foreign_count);
	foreign = quiet_attach_foreign();
	info = quiet_look(&daemon);
	case_check(info.foreign_is_known && info.foreign_count == 1 && info.foreign[0] == foreign,
		"%u foreign programs, the first is %u and not %lu", info.foreign_count,
		info.foreign[0], foreign);
	/* It selects no socket, so it does not overrule. */
	VISIT_ALL(visits, by_kernel);
	daemon_stop(&daemon);
}

static void quiet_two_relays(bool by_kernel)
{
	static const struct visit both[] = {
		{.from = "10.1.0.1", .to = CASE_V4, .greeting = "friends"},
		{.from = "10.3.0.1", .to = CASE_V4},
		{.from = "10.3.0.1", .to = "192.0.2.26", .greeting = "second"},
		{.from = "10.1.0.1", .to = "192.0.2.26"},
	};
	static const struct visit one[] = {
		{.from = "10.1.0.1", .to = CASE_V4, .greeting = "friends"},
		{.from = "10.3.0.1", .to = CASE_V4},
	};
	static const struct visit none[] = {
		{.from = "10.3.0.1", .to = "192.0.2.26"},
		{.from = "10.1.0.1", .to = "192.0.2.26"},
	};
	struct daemon first;
	struct daemon second;

	case_begin(&first, by_kernel, NULL);
	daemon_begin(
		&second, &(struct daemon_options){.name = "second", .bpf = case_bpf(by_kernel)});
	daemon_connector(&second, "second", "\"192.0.2.26:2525\"",
		"\tremote-ip-ranges = {\"10.3.0.0/16\"}\n");
	daemon_start(&first);
	daemon_start(&second);
	VISIT_ALL(both, by_kernel);
	daemon_stop(&second);
	VISIT_ALL(one, by_kernel);
	VISIT_ALL(none, true);
	daemon_start(&second);
	VISIT_ALL(both, by_kernel);
	daemon_kill(&first);
	visit_all(both + 2, 2, by_kernel);
	daemon_stop(&second);
}

/* ---- an IPv4 address in an IPv6 packet, as nothing but a forger sends it */

static uint16_t quiet_checksum(const struct ip6_hdr *ip, const struct tcphdr *tcp)
{
	uint32_t sum = IPPROTO_TCP + sizeof(*tcp);
	uint16_t word;

	for (unsigned i = 0; i < 32; i += 2) {
		memcpy(&word, (const char *)&ip->ip6_src + i, 2);
		sum += ntohs(word);
	}
	for (unsigned i = 0; i < sizeof(*tcp); i += 2) {
		memcpy(&word, (const char *)tcp + i, 2);
		sum += ntohs(word);
	}
	while (sum > 0xffff)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

static void quiet_mapped(bool by_kernel)
{
	struct {
		struct ip6_hdr ip;
		struct tcphdr tcp;
	} packet = {.tcp = {.th_sport = htons(4711),
			    .th_dport = htons(DAEMON_PORT),
			    .th_off = 5,
			    .th_flags = TH_SYN,
			    .th_win = htons(1000),
			    .th_seq = htonl(1)}};
	struct sockaddr_in6 to = {.sin6_family = AF_INET6};
	struct quiet_counts before;
	struct quiet_counts after;
	struct daemon daemon;
	unsigned long asked;
	int fd = socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);

	/* Everybody of IPv4 and IPv6 may come in, but not so. */
	daemon_begin(&daemon, &(struct daemon_options){.bpf = case_bpf(by_kernel)});
	daemon_connector(&daemon, "friends", "\"192.0.2.25:2525\", \"[::]:2525\"", NULL);
	daemon_start(&daemon);
	(void)inet_pton(AF_INET6, CASE_V6, &to.sin6_addr);
	packet.ip.ip6_flow = htonl(6U << 28);
	packet.ip.ip6_plen = htons(sizeof(packet.tcp));
	packet.ip.ip6_nxt = IPPROTO_TCP;
	packet.ip.ip6_hops = 64;
	packet.ip.ip6_dst = to.sin6_addr;
	(void)inet_pton(AF_INET6, "::ffff:10.1.0.1", &packet.ip.ip6_src);
	packet.tcp.th_sum = quiet_checksum(&packet.ip, &packet.tcp);
	before = quiet_count(&daemon);
	case_check(fd >= 0 && sendto(fd, &packet, sizeof(packet), 0, (struct sockaddr *)&to,
				      sizeof(to)) == (ssize_t)sizeof(packet),
		"a raw packet: %s", strerror(errno));
	pause_ms(200);
	after = quiet_count(&daemon);
	case_check(after.opens == before.opens && after.accepted == before.accepted &&
			   after.door.passed == before.door.passed,
		"it came in");
	/* Some kernels drop it before anybody is asked; the answer to it is none of ours. */
	asked = after.door.lookups - before.door.lookups - (after.door.others - before.door.others);
	case_check(after.door.mapped - before.door.mapped == asked, "%lu look-ups, %lu as mapped",
		asked, after.door.mapped - before.door.mapped);
	case_note("%lu look-ups", asked);
	daemon_stop(&daemon);
}

static const struct door_case rows[] = {
	{"quiet/refused", quiet_refused, BY_KERNEL, 0},
	{"quiet/others", quiet_others, BY_KERNEL | BY_USER, 0},
	{"quiet/foreign", quiet_foreign, BY_KERNEL, 0},
	{"quiet/two-relays", quiet_two_relays, BY_KERNEL | BY_USER, 0},
	{"quiet/mapped", quiet_mapped, BY_KERNEL, 0},
};

const struct door_table case_quiet = {rows, COUNT_OF(rows)};
