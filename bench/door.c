/* SPDX-License-Identifier: Apache-2.0 */

/*
 * door.c: what the door costs: tries of the kernel and of the relay, refusals by each of them, and
 * the time until a change is in force. In namespaces of its own, as the tests of the door.
 *
 *   door --postern PATH [--sizes N,N,...] [--seconds N] [--repetitions N] [--list N]
 *
 * Prints a line of JSON for each measurement; bench/door.sh makes tables of them.
 */

#include "bpf/loader.h"
#include "policy/cidr.h"
#include "tests/door/case.h"
#include "tests/door/large.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <getopt.h>
#include <linux/bpf.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BENCH_LOOKUPS 1000000U
#define BENCH_SIZES_MAX 8
#define BENCH_CHANGES 200

static struct bench_options {
	unsigned sizes[BENCH_SIZES_MAX];
	unsigned size_count;
	unsigned seconds;
	unsigned repetitions;
	unsigned list;
} options = {.sizes = {1000, 10000, 100000, 1000000},
	.size_count = 4,
	.seconds = 3,
	.repetitions = 3,
	.list = 100000};

static uint64_t bench_now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* The same numbers in each run (xorshift64*). */
static uint64_t bench_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 2685821657736338717U;
}

/* ---- tries: load, exchange, look up, memory */

/* Anywhere in IPv4, or in 2000::/3. */
static struct ip bench_ip(uint64_t *state, bool is_v6)
{
	struct ip ip = {.is_v6 = is_v6};
	uint64_t bits = bench_random(state);

	memcpy(ip.bytes, &bits, is_v6 ? 8 : 4);
	if (is_v6)
		ip.bytes[0] = (uint8_t)((ip.bytes[0] & 0x1f) | 0x20);
	return ip;
}

/* 60 % hosts, 25 % /24, the rest anything from /9 on; of IPv6 half /48, half /64. */
static struct prefix bench_prefix(uint64_t *state, bool is_v6)
{
	struct prefix prefix = {.ip = bench_ip(state, is_v6)};
	unsigned kind = (unsigned)(bench_random(state) % 100);

	if (is_v6)
		prefix.bits = kind < 50 ? 48 : 64;
	else if (kind < 60)
		prefix.bits = 32;
	else if (kind < 85)
		prefix.bits = 24;
	else
		prefix.bits = (uint8_t)(9 + bench_random(state) % 23);
	for (unsigned bit = prefix.bits; bit < (is_v6 ? 128 : 32); bit++)
		prefix.ip.bytes[bit / 8] &= (uint8_t) ~(0x80 >> bit % 8);
	return prefix;
}

static struct cidr *bench_build(unsigned count, bool is_v6, uint64_t *out_ns)
{
	struct prefix *prefixes = calloc(count, sizeof(*prefixes));
	struct door_value value = {.connector = 1};
	struct cidr *trie;
	uint64_t state = 4711;
	uint64_t begun;

	if (prefixes == NULL || cidr_create(&trie) < 0)
		case_fail("no memory");
	for (unsigned i = 0; i < count; i++)
		prefixes[i] = bench_prefix(&state, is_v6);
	begun = bench_now_ns();
	for (unsigned i = 0; i < count; i++)
		case_check(cidr_put(trie, &prefixes[i], value) == 0, "no memory");
	*out_ns = bench_now_ns() - begun;
	free(prefixes);
	/* What was drawn twice. */
	while (cidr_count(trie) < count) {
		struct prefix prefix = bench_prefix(&state, is_v6);

		case_check(cidr_put(trie, &prefix, value) == 0, "no memory");
	}
	return trie;
}

/* Of a look-up of a random address, and of that random address alone. */
static double bench_look_up(const struct cidr *trie, bool is_v6)
{
	uint64_t state = 815;
	uint64_t sum = 0;
	uint64_t begun = bench_now_ns();
	uint64_t with;

	for (unsigned i = 0; i < BENCH_LOOKUPS; i++) {
		struct ip ip = bench_ip(&state, is_v6);

		sum += cidr_lookup(trie, &ip, NULL) != NULL;
	}
	with = bench_now_ns() - begun;
	begun = bench_now_ns();
	for (unsigned i = 0; i < BENCH_LOOKUPS; i++)
		sum += bench_ip(&state, is_v6).bytes[3];
	case_check(sum != 0, "nothing was found");
	return (double)(with - (bench_now_ns() - begun)) / BENCH_LOOKUPS;
}

static struct bpf_insn bench_insn(
	unsigned code, unsigned to, unsigned from, int offset, int immediate)
{
	return (struct bpf_insn){.code = (__u8)code,
		.dst_reg = to & 0xf,
		.src_reg = from & 0xf,
		.off = (__s16)offset,
		.imm = immediate};
}

/* r0 = a random number, into the key on the stack. */
static unsigned bench_emit_random(struct bpf_insn *at, int offset, bool is_top_of_v6)
{
	unsigned count = 0;

	at[count++] = bench_insn(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_get_prandom_u32);
	if (is_top_of_v6) {
		at[count++] = bench_insn(BPF_ALU64 | BPF_AND | BPF_K, 0, 0, 0, ~0xe0);
		at[count++] = bench_insn(BPF_ALU64 | BPF_OR | BPF_K, 0, 0, 0, 0x20);
	}
	at[count++] = bench_insn(BPF_STX | BPF_MEM | BPF_W, BPF_REG_10, BPF_REG_0, offset, 0);
	return count;
}

/* ns of a program that looks a random address up in the map; without one, only draws it. */
static double bench_run_program(int map, bool is_v6)
{
	LIBBPF_OPTS(bpf_prog_load_opts, load);
	LIBBPF_OPTS(bpf_test_run_opts, run);
	struct bpf_insn code[32];
	unsigned count = 0;
	int key = is_v6 ? -24 : -8;
	char packet[64] = {0};
	int program;

	code[count++] = bench_insn(BPF_ST | BPF_MEM | BPF_W, BPF_REG_10, 0, key, is_v6 ? 128 : 32);
	count += bench_emit_random(&code[count], key + 4, is_v6);
	if (is_v6) {
		count += bench_emit_random(&code[count], key + 8, false);
		code[count++] = bench_insn(BPF_ST | BPF_MEM | BPF_W, BPF_REG_10, 0, key + 12, 0);
		code[count++] = bench_insn(BPF_ST | BPF_MEM | BPF_W, BPF_REG_10, 0, key + 16, 0);
	}
	if (map >= 0) {
		code[count++] =
			bench_insn(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_2, BPF_REG_10, 0, 0);
		code[count++] = bench_insn(BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_2, 0, 0, key);
		code[count++] =
			bench_insn(BPF_LD | BPF_DW | BPF_IMM, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0, map);
		code[count++] = bench_insn(0, 0, 0, 0, 0);
		code[count++] = bench_insn(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem);
	}
	code[count++] = bench_insn(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, 0);
	code[count++] = bench_insn(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
	program = bpf_prog_load(BPF_PROG_TYPE_SOCKET_FILTER, "bench", "GPL", code, count, &load);
	case_check(program >= 0, "a program: %s", strerror(errno));
	run.data_in = packet;
	run.data_size_in = sizeof(packet);
	run.repeat = (int)BENCH_LOOKUPS;
	case_check(bpf_prog_test_run_opts(program, &run) == 0, "BPF_PROG_TEST_RUN: %s",
		strerror(errno));
	(void)close(program);
	return run.duration;
}

/* ns of the door's own program for addresses at random, each of them some times. */
static double bench_run_door(struct kernel_door *door, bool is_v6)
{
	LIBBPF_OPTS(bpf_test_run_opts, run);
	struct bpf_sk_lookup context = {.protocol = IPPROTO_TCP, .local_port = DAEMON_PORT};
	struct kernel_door_info info;
	uint64_t state = 815;
	uint64_t sum = 0;
	int program;

	kernel_door_info(door, &info);
	program = bpf_prog_get_fd_by_id(info.program_id);
	case_check(program >= 0, "the door's program: %s", strerror(errno));
	context.family = is_v6 ? AF_INET6 : AF_INET;
	run.ctx_in = &context;
	run.ctx_size_in = sizeof(context);
	run.repeat = 1000;
	for (unsigned i = 0; i < 500; i++) {
		struct ip ip = bench_ip(&state, is_v6);

		if (is_v6)
			memcpy(context.remote_ip6, ip.bytes, 16);
		else
			memcpy(&context.remote_ip4, ip.bytes, 4);
		case_check(bpf_prog_test_run_opts(program, &run) == 0, "BPF_PROG_TEST_RUN: %s",
			strerror(errno));
		sum += run.duration;
	}
	(void)close(program);
	return (double)sum / 500;
}

/* The trie of the slot that is in force. */
static int bench_inner(const char *pins, unsigned slot, bool is_v6)
{
	char path[PLACE_PATH_BYTES + 32];
	uint32_t key = slot % DOOR_SLOTS;
	uint32_t id = 0;
	int outer;
	int inner = -1;

	(void)snprintf(
		path, sizeof(path), "%s/v%u/tries_%s", pins, DOOR_VERSION, is_v6 ? "v6" : "v4");
	outer = bpf_obj_get(path);
	if (outer >= 0 && bpf_map_lookup_elem(outer, &key, &id) == 0)
		inner = bpf_map_get_fd_by_id(id);
	case_check(inner >= 0, "%s: slot %u: %s", path, slot, strerror(errno));
	(void)close(outer);
	return inner;
}

static unsigned long bench_file_number(const char *path, const char *key)
{
	unsigned long value = 0;
	char line[256];
	FILE *in = fopen(path, "re");

	while (in != NULL && fgets(line, sizeof(line), in) != NULL) {
		if (strncmp(line, key, strlen(key)) == 0)
			value = strtoul(line + strlen(key), NULL, 10);
	}
	if (in != NULL)
		(void)fclose(in);
	return value;
}

static void bench_binding(bool is_v6, struct address *out)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(DAEMON_PORT)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(DAEMON_PORT)};

	*out = (struct address){.len = is_v6 ? sizeof(v6) : sizeof(v4)};
	if (is_v6)
		memcpy(&out->sockaddr, &v6, sizeof(v6));
	else
		memcpy(&out->sockaddr, &v4, sizeof(v4));
}

/* The end of a line: the three figures by name, and as rows. */
static void bench_print_look_ups(
	const char *family, unsigned count, double user, double kernel, double program)
{
	const struct {
		const char *name;
		double ns;
	} rows[] = {{"look-up in the relay", user}, {"look-up in the kernel", kernel},
		{"the whole program", program}};

	(void)printf("\"rows\":[");
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		(void)printf("%s{\"name\":\"%s, %u %s prefixes\",\"unit\":\"ns\",\"value\":%.0f}",
			i == 0 ? "" : ",", rows[i].name, count, family, rows[i].ns);
	(void)printf("],\"user_lookup_ns\":%.0f,\"kernel_lookup_ns\":%.0f,\"program_ns\":%.0f}\n",
		user, kernel, program);
}

static void bench_trie(struct kernel_door *door, const char *pins, unsigned count, bool is_v6)
{
	struct address binding;
	struct cidr *trie;
	char path[64];
	unsigned long slab = bench_file_number("/proc/meminfo", "Slab:");
	uint64_t build_ns;
	uint64_t fill_ns;
	uint64_t swap_ns;
	double draw;
	unsigned slot;
	int inner;

	trie = bench_build(count, is_v6, &build_ns);
	bench_binding(is_v6, &binding);
	case_check(kernel_door_take_slot(door, &binding, &slot) == 0, "no slot");
	fill_ns = bench_now_ns();
	case_check(kernel_door_fill(door, slot, trie) == 0, "%u prefixes cannot be loaded", count);
	fill_ns = bench_now_ns() - fill_ns;
	slab = bench_file_number("/proc/meminfo", "Slab:") - slab;
	swap_ns = bench_now_ns();
	case_check(kernel_door_swap(door, slot) == 0, "no swap");
	swap_ns = bench_now_ns() - swap_ns;
	case_check(kernel_door_bind(door, slot) == 0, "no binding");
	inner = bench_inner(pins, slot, is_v6);
	(void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", inner);
	draw = bench_run_program(-1, is_v6);
	(void)printf("{\"part\":\"trie\",\"family\":\"%s\",\"prefixes\":%u,\"user_build_ms\":%.3f,"
		     "\"kernel_load_ms\":%.3f,\"swap_ms\":%.3f,\"user_bytes\":%zu,"
		     "\"kernel_bytes\":%lu,\"slab_kb\":%ld,",
		is_v6 ? "IPv6" : "IPv4", count, (double)build_ns / 1e6, (double)fill_ns / 1e6,
		(double)swap_ns / 1e6, cidr_bytes(trie), bench_file_number(path, "memlock:"),
		(long)slab);
	bench_print_look_ups(is_v6 ? "IPv6" : "IPv4", count, bench_look_up(trie, is_v6),
		bench_run_program(inner, is_v6) - draw, bench_run_door(door, is_v6));
	(void)fflush(stdout);
	(void)close(inner);
	case_check(kernel_door_unbind(door, slot) == 0, "the slot is not given up");
	cidr_destroy(&trie);
}

static void bench_tries(void)
{
	char why[KERNEL_DOOR_WHY_BYTES];
	char pins[PLACE_PATH_BYTES];
	struct kernel_door_options door_options = {.pin_folder = place_path("bpf/bench", pins)};

	for (unsigned i = 0; i < 2 * options.size_count; i++) {
		struct kernel_door *door;

		/* A door each, so that nothing is left of the one before. */
		case_check(kernel_door_create(&door_options, why, &door) == 0 &&
				   kernel_door_attach(door, why) == 0,
			"%s", why);
		bench_trie(door, pins, options.sizes[i / 2], i % 2 == 1);
		kernel_door_destroy(&door);
		case_check(kernel_door_remove(pins, why) == 0, "%s", why);
	}
}

/* ---- refusals */

static uint64_t bench_own_cpu_us(void)
{
	struct timespec used;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	return (uint64_t)used.tv_sec * 1000000 + (uint64_t)used.tv_nsec / 1000;
}

/* One client that is refused, as fast as it goes. */
static void bench_refuse(bool by_kernel, unsigned repetition, const char *list)
{
	struct daemon daemon;
	struct crowd *crowd;
	uint64_t relay_us;
	uint64_t own_us;
	uint64_t begun;
	unsigned long knocks;
	double seconds;

	daemon_begin(&daemon, &(struct daemon_options){.bpf = case_bpf(by_kernel)});
	daemon_partner(&daemon, "friends", list);
	daemon_connector(&daemon, "friends", CASE_BINDINGS, "\tremote-ip-partners = {\"*\"}\n");
	daemon_start(&daemon);
	crowd = crowd_start(&(struct crowd_plan){.pattern = "23.0.%u.%u",
		.count = 10000,
		.to = CASE_V4,
		.allowed = STRANGER(by_kernel)});
	crowd_await(crowd, 1000);
	begun = bench_now_ns();
	knocks = crowd_knocks(crowd);
	relay_us = daemon_cpu_us(&daemon);
	own_us = bench_own_cpu_us();
	pause_ms(options.seconds * 1000);
	knocks = crowd_knocks(crowd) - knocks;
	relay_us = daemon_cpu_us(&daemon) - relay_us;
	own_us = bench_own_cpu_us() - own_us;
	seconds = (double)(bench_now_ns() - begun) / 1e9;
	crowd_stop(crowd);
	daemon_stop(&daemon);
	(void)printf("{\"part\":\"refuse\",\"by\":\"%s\",\"repetition\":%u,\"prefixes\":%u,"
		     "\"refusals\":%lu,\"per_second\":%.0f,\"relay_cpu_us\":%.3f,"
		     "\"client_cpu_us\":%.3f}\n",
		by_kernel ? "kernel" : "relay", repetition, options.list, knocks,
		(double)knocks / seconds, (double)relay_us / (double)knocks,
		(double)own_us / (double)knocks);
	(void)fflush(stdout);
}

/* ---- one prefix */

static void bench_change(bool by_kernel, const char *list)
{
	unsigned long effect_us[BENCH_CHANGES];
	double answer_us[BENCH_CHANGES];
	struct daemon daemon;

	daemon_begin(&daemon, &(struct daemon_options){.bpf = case_bpf(by_kernel)});
	daemon_partner(&daemon, "friends", list);
	daemon_connector(&daemon, "friends", CASE_BINDINGS, "\tremote-ip-partners = {\"*\"}\n");
	daemon_start(&daemon);
	for (unsigned i = 0; i < BENCH_CHANGES; i++) {
		struct daemon_answer answer;
		uint64_t begun = bench_now_ns();

		daemon_change(&daemon, i % 2 == 0 ? "partner-ip-add" : "partner-ip-remove",
			"24.0.0.0/24\n", NULL, &answer);
		answer_us[i] = (double)(bench_now_ns() - begun) / 1000;
		effect_us[i] = answer.effect_us;
	}
	daemon_stop(&daemon);
	(void)printf("{\"part\":\"change\",\"by\":\"%s\",\"prefixes\":%u,\"effect_us\":[",
		by_kernel ? "kernel" : "relay", options.list);
	for (unsigned i = 0; i < BENCH_CHANGES; i++)
		(void)printf("%s%lu", i == 0 ? "" : ",", effect_us[i]);
	(void)printf("],\"answer_us\":[");
	for (unsigned i = 0; i < BENCH_CHANGES; i++)
		(void)printf("%s%.0f", i == 0 ? "" : ",", answer_us[i]);
	(void)printf("]}\n");
	(void)fflush(stdout);
}

/* ---- the beginning */

enum bench_part {
	BENCH_TRIES,
	BENCH_REFUSE,
	BENCH_CHANGE,
	BENCH_PART_COUNT,
};

struct bench_run {
	enum bench_part part;
	bool by_kernel;
	unsigned repetition;
};

static void bench_in_place(const void *data)
{
	const struct bench_run *run = data;
	struct text list = {0};

	place_make();
	if (run->part == BENCH_TRIES) {
		bench_tries();
		return;
	}
	large_list(LARGE_A, options.list, &list);
	if (run->part == BENCH_REFUSE)
		bench_refuse(run->by_kernel, run->repetition, list.data);
	else
		bench_change(run->by_kernel, list.data);
}

static bool bench_do(enum bench_part part, bool by_kernel, unsigned repetition)
{
	struct bench_run run = {part, by_kernel, repetition};
	int status = place_run(bench_in_place, &run, 600);

	if (status != 0)
		(void)fprintf(stderr, "\ndoor: part %u failed\n", part);
	return status == 0;
}

static bool bench_all(void)
{
	bool done = bench_do(BENCH_TRIES, true, 0);

	/* The two take turns, so that whatever else the machine does meets both. */
	for (unsigned i = 0; done && i < 2 * options.repetitions; i++)
		done = bench_do(BENCH_REFUSE, i % 2 == 0, i / 2);
	return done && bench_do(BENCH_CHANGE, true, 0) && bench_do(BENCH_CHANGE, false, 0);
}

static void bench_sizes(const char *text)
{
	char *end;

	options.size_count = 0;
	while (*text != '\0' && options.size_count < BENCH_SIZES_MAX) {
		options.sizes[options.size_count++] = (unsigned)strtoul(text, &end, 10);
		text = *end == ',' ? end + 1 : "";
	}
}

int main(int argc, char **argv)
{
	static const struct option words[] = {{"postern", required_argument, NULL, 'p'},
		{"sizes", required_argument, NULL, 's'}, {"seconds", required_argument, NULL, 't'},
		{"repetitions", required_argument, NULL, 'r'},
		{"list", required_argument, NULL, 'l'}, {0}};
	char why[256];
	bool done;
	int option;

	while ((option = getopt_long(argc, argv, "", words, NULL)) != -1) {
		if (option == 'p')
			suite.postern = optarg;
		else if (option == 's')
			bench_sizes(optarg);
		else if (option == 't')
			options.seconds = (unsigned)strtoul(optarg, NULL, 10);
		else if (option == 'r')
			options.repetitions = (unsigned)strtoul(optarg, NULL, 10);
		else if (option == 'l')
			options.list = (unsigned)strtoul(optarg, NULL, 10);
		else
			return 2;
	}
	if (suite.postern == NULL || optind != argc)
		return 2;
	if (!place_is_possible(why, sizeof(why))) {
		(void)fprintf(stderr, "door: %s\n", why);
		return 77;
	}
	(void)signal(SIGPIPE, SIG_IGN);
	suite.slow = 1;
	suite.report_fd = STDERR_FILENO;
	(void)snprintf(suite.dir, sizeof(suite.dir), "/tmp/postern-bench.XXXXXX");
	if (mkdtemp(suite.dir) == NULL || chmod(suite.dir, 0755) < 0)
		return 1;
	done = bench_all();
	(void)snprintf(why, sizeof(why), "%s/place", suite.dir);
	(void)rmdir(why);
	(void)rmdir(suite.dir);
	return done ? 0 : 1;
}
