/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * kernel_door_fixture.h: a network namespace and a bpf file system of the test's own, and a door in
 * them. Needs root (or CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_BPF) and a kernel with BPF.
 */

#include "bpf/loader_private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define PORT 25

static char lab_folder[32] = "/tmp/postern-door.XXXXXX";
static char lab_pins[48];
static char why[KERNEL_DOOR_WHY_BYTES];

/* ---- the laboratory */

static inline void lab_close(void)
{
	(void)umount2(lab_folder, MNT_DETACH);
	(void)rmdir(lab_folder);
}

/* Returns why there can be none, or NULL. */
static inline const char *lab_open(void)
{
	static char reason[KERNEL_DOOR_WHY_BYTES + 64];
	struct kernel_door_options options = {.pin_folder = lab_pins};
	struct kernel_door *door = NULL;
	struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	const char *variant = getenv("VARIANT");
	int fd;

	/* It takes what bpf() does not read for uninitialised; AddressSanitizer does not. */
	if (variant != NULL && strcmp(variant, "valgrind") == 0)
		return "valgrind does not know bpf(2) well enough";
	if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0)
		return "no privileges to make namespaces";
	if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mkdtemp(lab_folder) == NULL)
		return "no folder for a bpf file system";
	if (mount("none", lab_folder, "bpf", 0, "mode=0755") < 0) {
		(void)rmdir(lab_folder);
		return "the kernel has no bpf file system";
	}
	(void)snprintf(lab_pins, sizeof(lab_pins), "%s/postern", lab_folder);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &lo) == 0);
	(void)close(fd);
	if (kernel_door_create(&options, why, &door) == -EPERM) {
		(void)snprintf(reason, sizeof(reason), "no privileges for BPF: %s", why);
		lab_close();
		return reason;
	}
	kernel_door_destroy(&door);
	if (kernel_door_remove(lab_pins, why) < 0)
		fail_msg("%s", why);
	return NULL;
}

/* The whole program: skipped without a laboratory. */
#define LAB_MAIN(tests)                                                   \
	do {                                                              \
		const char *lab_reason = lab_open();                      \
		int lab_failed;                                           \
		if (lab_reason != NULL) {                                 \
			printf("skipped: %s\n", lab_reason);              \
			return 77;                                        \
		}                                                         \
		lab_failed = cmocka_run_group_tests((tests), NULL, NULL); \
		lab_close();                                              \
		return lab_failed;                                        \
	} while (0)

static inline struct kernel_door *door_up(void)
{
	struct kernel_door_options options = {.pin_folder = lab_pins};
	struct kernel_door *door = NULL;

	if (kernel_door_create(&options, why, &door) < 0)
		fail_msg("%s", why);
	return door;
}

static inline struct kernel_door *door_up_attached(void)
{
	struct kernel_door *door = door_up();

	if (kernel_door_attach(door, why) < 0)
		fail_msg("%s", why);
	return door;
}

static inline void door_down(struct kernel_door **door)
{
	kernel_door_destroy(door);
	assert_null(*door);
	if (kernel_door_remove(lab_pins, why) < 0)
		fail_msg("%s", why);
	assert_false(kernel_door_is_pinned(lab_pins));
}

/* A program of any kind that says always the same. */
static inline int program_load(enum bpf_prog_type type, enum bpf_attach_type attach, int verdict)
{
	const struct bpf_insn yes[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = verdict},
		{.code = BPF_JMP | BPF_EXIT},
	};
	struct bpf_prog_load_opts options = {.sz = sizeof(options), .expected_attach_type = attach};
	int fd = bpf_prog_load(type, "yes", "GPL", yes, COUNT_OF(yes), &options);

	assert_true(fd >= 0);
	return fd;
}

/* ---- addresses */

static inline struct ip ip_from(const char *text)
{
	struct ip ip = {0};

	if (ip_parse(text, &ip) < 0)
		fail_msg("\"%s\" is no address", text);
	return ip;
}

static inline struct address address_from(const char *text, uint16_t port)
{
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct address address = {0};

	if (inet_pton(AF_INET, text, &v4.sin_addr) == 1) {
		memcpy(&address.sockaddr, &v4, sizeof(v4));
		address.len = sizeof(v4);
	} else {
		assert_int_equal(inet_pton(AF_INET6, text, &v6.sin6_addr), 1);
		memcpy(&address.sockaddr, &v6, sizeof(v6));
		address.len = sizeof(v6);
	}
	return address;
}

/* "192.0.2.0/24" */
static inline struct prefix prefix_from(const char *text)
{
	struct prefix out[PREFIXES_OF_RANGE_MAX];
	struct ip_range range = {0};

	if (ip_range_parse(text, &range) < 0 || prefix_of_range(&range, out) != 1)
		fail_msg("\"%s\" is no prefix", text);
	return out[0];
}

/* ---- sets: "192.0.2.0/24=1" (connector), "=1.7" (and partner), "!" behind it: excluded,
 * "*": a balancer, "%": zoned */

static inline void set_put(struct cidr *set, const char *text)
{
	struct door_value value = {0};
	unsigned connector = 1;
	unsigned partner = 0;
	char prefix[64];

	assert_true(sscanf(text, "%63[^=]=%u.%u", prefix, &connector, &partner) >= 1);
	value.connector = (uint16_t)connector;
	value.partner = partner;
	value.flags = (uint16_t)((strchr(text, '!') != NULL ? DOOR_EXCLUDED : 0) |
				 (strchr(text, '*') != NULL ? DOOR_BALANCER : 0) |
				 (strrchr(text, '%') != NULL ? DOOR_ZONED : 0));
	{
		struct prefix at = prefix_from(prefix);

		assert_int_equal(cidr_put(set, &at, value), 0);
	}
}

/* Of words, each as above. */
static inline struct cidr *set_of(const char *words)
{
	struct cidr *set = NULL;
	char copy[512];
	char *rest = copy;

	assert_int_equal(cidr_create(&set), 0);
	assert_true(strlen(words) < sizeof(copy));
	(void)snprintf(copy, sizeof(copy), "%s", words);
	for (char *word; (word = strsep(&rest, " ")) != NULL;) {
		if (*word != '\0')
			set_put(set, word);
	}
	return set;
}

/* So many neighbours, from a number on. */
static inline struct cidr *set_of_row(
	bool is_v6, unsigned first, unsigned count, unsigned connector)
{
	struct cidr *set = NULL;

	assert_int_equal(cidr_create(&set), 0);
	for (unsigned i = first; i < first + count; i++) {
		struct prefix prefix = {.ip.is_v6 = is_v6, .bits = is_v6 ? 128 : 32};
		uint32_t number = htonl(0x0a000000 + i);

		memcpy(prefix.ip.bytes + (is_v6 ? 12 : 0), &number, 4);
		assert_int_equal(cidr_put(set, &prefix,
					 (struct door_value){.connector = (uint16_t)connector}),
			0);
	}
	return set;
}

/* A binding with its set, in force. */
static inline unsigned door_serve(
	struct kernel_door *door, const char *local, uint16_t port, const char *words)
{
	struct address address = address_from(local, port);
	struct cidr *set = set_of(words);
	unsigned slot = DOOR_SLOTS_ALL;

	assert_int_equal(kernel_door_take_slot(door, &address, &slot), 0);
	assert_int_equal(kernel_door_fill(door, slot, set), 0);
	assert_int_equal(kernel_door_swap(door, slot), 0);
	assert_int_equal(kernel_door_bind(door, slot), 0);
	cidr_destroy(&set);
	return slot;
}

/* ---- the program's verdict, without a packet */

static inline int program_of(const struct kernel_door *door, const char *name)
{
	return bpf_program__fd(bpf_object__find_program_by_name(door->object, name));
}

static inline bool verdict_of_ips(const struct kernel_door *door, const struct ip *local,
	uint16_t port, const struct ip *peer, uint32_t protocol)
{
	struct bpf_sk_lookup context = {.family = peer->is_v6 ? AF_INET6 : AF_INET,
		.protocol = protocol,
		.remote_port = htons(40000),
		.local_port = port};
	struct bpf_test_run_opts options = {
		.sz = sizeof(options), .ctx_in = &context, .ctx_size_in = sizeof(context)};

	if (peer->is_v6) {
		memcpy(context.local_ip6, local->bytes, 16);
		memcpy(context.remote_ip6, peer->bytes, 16);
	} else {
		memcpy(&context.local_ip4, local->bytes, 4);
		memcpy(&context.remote_ip4, peer->bytes, 4);
	}
	if (bpf_prog_test_run_opts(program_of(door, "postern_door"), &options) < 0)
		fail_msg("BPF_PROG_TEST_RUN: %s", strerror(errno));
	return options.retval == SK_PASS;
}

/* May the peer reach that port? */
static inline bool passes(
	const struct kernel_door *door, const char *local, uint16_t port, const char *peer)
{
	struct ip local_ip = {.is_v6 = strchr(local, ':') != NULL};
	struct ip peer_ip = {.is_v6 = strchr(peer, ':') != NULL};

	assert_int_equal(inet_pton(local_ip.is_v6 ? AF_INET6 : AF_INET, local, local_ip.bytes), 1);
	assert_int_equal(inet_pton(peer_ip.is_v6 ? AF_INET6 : AF_INET, peer, peer_ip.bytes), 1);
	return verdict_of_ips(door, &local_ip, port, &peer_ip, IPPROTO_TCP);
}

/* What the relay is told of the same peer: the connector, or -errno. */
static inline int connector_of(
	struct kernel_door *door, const char *local, uint16_t port, const char *peer)
{
	struct address address = address_from(local, port);
	struct ip ip = ip_from(peer);
	struct door_value value = {0};
	int error = kernel_door_ask(door, &address, &ip, &value);

	return error < 0 ? error : value.flags & DOOR_EXCLUDED ? -EACCES : value.connector;
}

/* ---- real connections, over lo */

#define SERVED "127.0.0.1"
#define FRIEND "127.0.0.2"
#define STRANGER "127.0.0.3"

/* A listener that nobody reads from. */
static inline int listener_open(const char *local, uint16_t port)
{
	struct address address = address_from(local, port);
	int fd = socket(address.sockaddr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int on = 1;

	assert_true(fd >= 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
	assert_int_equal(bind(fd, (const struct sockaddr *)&address.sockaddr, address.len), 0);
	assert_int_equal(listen(fd, 128), 0);
	return fd;
}

/* Connects from an address: 0, or -errno. What came in is taken from the listener. */
static inline int knock(int listener, const char *from, const char *to, uint16_t port)
{
	struct address source = address_from(from, 0);
	struct address target = address_from(to, port);
	int fd = socket(source.sockaddr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const unsigned timeout_ms = 500; /* who gets no answer at all */
	int accepted;
	int error = 0;

	if (fd >= 0)
		(void)setsockopt(
			fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
	if (fd < 0 || bind(fd, (const struct sockaddr *)&source.sockaddr, source.len) < 0 ||
		connect(fd, (const struct sockaddr *)&target.sockaddr, target.len) < 0)
		error = -errno;
	if (error == 0 && listener >= 0) {
		accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (accepted < 0)
			error = -errno;
		else
			(void)close(accepted);
	}
	if (fd >= 0)
		(void)close(fd);
	return error;
}

/* The friend comes in, the stranger does not. */
static inline void assert_guarded(int listener)
{
	assert_int_equal(knock(listener, FRIEND, SERVED, PORT), 0);
	assert_int_equal(knock(listener, STRANGER, SERVED, PORT), -ECONNREFUSED);
}

static inline void assert_open(int listener)
{
	assert_int_equal(knock(listener, FRIEND, SERVED, PORT), 0);
	assert_int_equal(knock(listener, STRANGER, SERVED, PORT), 0);
}

/* What the kernel's trie has is what is known of it. */
static inline void assert_trie_is_known(const struct trie *trie, bool is_v6)
{
	struct door_key_v6 key = {0};
	struct door_key_v6 next;
	size_t count = 0;

	assert_false(trie->is_lost);
	for (void *last = NULL; bpf_map_get_next_key(trie->fd, last, &next) == 0; last = &key) {
		struct prefix prefix = {.ip.is_v6 = is_v6, .bits = (uint8_t)next.bits};
		const struct door_value *known;
		struct door_value value;

		memcpy(prefix.ip.bytes, next.address, is_v6 ? 16 : 4);
		known = cidr_get(trie->known, &prefix);
		assert_non_null(known);
		assert_int_equal(bpf_map_lookup_elem(trie->fd, &next, &value), 0);
		assert_memory_equal(&value, known, sizeof(value));
		key = next;
		assert_true(++count <= cidr_count(trie->known));
	}
	assert_int_equal(count, cidr_count(trie->known));
}
