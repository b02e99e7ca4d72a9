/* SPDX-License-Identifier: Apache-2.0 */

/*
 * case_fault.c: what goes wrong: pins that are not ours, maps that are full, memory that is not
 * there, clients and relays that are killed in the middle. The old set stays in force, and the
 * error is clear.
 */

#include "tests/door/case.h"
#include "tests/door/large.h"

#include "bpf/loader.h"
#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <linux/bpf.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- pins */

#define FAULT_PINS_MAX 32

struct fault_pin {
	char path[PLACE_PATH_BYTES + 64];
	char name[64];
};

static unsigned fault_find_pins(const struct daemon *daemon, struct fault_pin *out)
{
	char root[PLACE_PATH_BYTES];
	char folder[PLACE_PATH_BYTES + 8];
	unsigned count = 0;
	const struct dirent *entry;
	DIR *dir;

	(void)snprintf(folder, sizeof(folder), "%s/v%u", daemon_pins(daemon, root), DOOR_VERSION);
	dir = opendir(folder);
	if (dir == NULL)
		case_fail("%s: %s", folder, strerror(errno));
	while ((entry = readdir(dir)) != NULL && count < FAULT_PINS_MAX) {
		if (entry->d_name[0] == '.')
			continue;
		(void)snprintf(out[count].name, sizeof(out[count].name), "%.60s", entry->d_name);
		(void)snprintf(
			out[count].path, sizeof(out[count].path), "%s/%s", folder, out[count].name);
		count++;
	}
	(void)closedir(dir);
	return count;
}

/* The old set is in force if whoever listens hears of friends, and of nobody else. */
static void fault_check_in_force(const char *what)
{
	int fd = case_listen();

	case_check(case_passes("10.1.0.1"), "%s: a friend does not get through", what);
	case_check(!case_passes("10.2.0.1"), "%s: a stranger gets through", what);
	(void)close(fd);
}

/* The relay does not start, says where, and leaves what is in force. */
static void fault_check_refusal(struct daemon *daemon, const struct fault_pin *pin)
{
	case_check(
		daemon_try(daemon) != 0, "%s: it started with a pin that is another's", pin->name);
	case_check(strstr(daemon->log.data + daemon->mark, pin->path) != NULL ||
			   strstr(daemon->log.data + daemon->mark, pin->name) != NULL,
		"the pin %s is not named: %.800s", pin->name, daemon->log.data + daemon->mark);
	fault_check_in_force(pin->name);
}

static void fault_pins(bool by_kernel)
{
	LIBBPF_OPTS(bpf_map_create_opts, options);
	static const char *const words[] = {"required", "auto"};
	char root[PLACE_PATH_BYTES];
	char why[KERNEL_DOOR_WHY_BYTES];
	struct fault_pin pins[FAULT_PINS_MAX];
	struct daemon daemon;
	unsigned count;
	int wrong = bpf_map_create(BPF_MAP_TYPE_ARRAY, "another", 4, 8, 1, &options);

	case_begin(&daemon, by_kernel, NULL);
	daemon_start(&daemon);
	daemon_kill(&daemon);
	count = fault_find_pins(&daemon, pins);
	case_check(count >= 5 && wrong >= 0, "%u pins", count);
	for (unsigned i = 0; i < count; i++) {
		int right = bpf_obj_get(pins[i].path);

		case_check(right >= 0 && unlink(pins[i].path) == 0 &&
				   bpf_obj_pin(wrong, pins[i].path) == 0,
			"%s: %s", pins[i].path, strerror(errno));
		daemon_begin_again(
			&daemon, &(struct daemon_options){.bpf = words[i % COUNT_OF(words)]});
		daemon_connector(&daemon, "friends", CASE_BINDINGS, CASE_RANGES);
		fault_check_refusal(&daemon, &pins[i]);
		case_check(unlink(pins[i].path) == 0 && bpf_obj_pin(right, pins[i].path) == 0,
			"%s: %s", pins[i].path, strerror(errno));
		(void)close(right);
	}
	/* As they were, they are taken up; and the remedy that was named works. */
	daemon_start(&daemon);
	daemon_stop(&daemon);
	case_check(unlink(pins[0].path) == 0 && bpf_obj_pin(wrong, pins[0].path) == 0 &&
			   kernel_door_remove(daemon_pins(&daemon, root), why) == 0,
		"%s", why);
	daemon_start(&daemon);
	VISIT_ALL(
		((const struct visit[]){{.from = "10.1.0.1", .to = CASE_V4, .greeting = "friends"},
			{.from = "10.2.0.1", .to = CASE_V4}}),
		by_kernel);
	daemon_stop(&daemon);
	case_note("%u pins", count);
}

/* ---- too many */

static const struct visit fault_old[] = {
	{.from = "203.0.113.7", .to = CASE_V4, .greeting = "friends"},
	{.from = "198.51.100.7", .to = CASE_V4},
	{.from = "10.1.0.1", .to = CASE_V4, .greeting = "friends"},
};

/* A replacement that fails, and what it leaves. */
static void fault_check_replace(
	const struct daemon *daemon, const struct text *list, bool by_kernel)
{
	struct daemon_answer answer;

	case_check(daemon_ask(daemon,
			   "{\"command\": \"partner-ip-replace\", \"partner\": \"friends\"}", list,
			   &answer, NULL),
		"no answer");
	case_check(!answer.ok && answer.message[0] != '\0', "it was done: %s", answer.raw);
	answer.message[strcspn(answer.message, "\n")] = '\0';
	visit_all(fault_old, COUNT_OF(fault_old), by_kernel);
	case_note("%.300s", answer.message);
	case_check(
		daemon_ask(daemon, "{\"command\": \"partner-ip-list\", \"partner\": \"friends\"}",
			NULL, &answer, NULL) &&
			answer.ok && answer.count == 1 && answer.generation == 1,
		"the list is another: %s", answer.raw);
}

static void fault_full(bool by_kernel)
{
	struct text list = {0};
	struct daemon daemon;

	if (large_count() < 100000)
		case_skip("%u prefixes and more are too many for this place", DOOR_PREFIXES_MAX);
	for (unsigned i = 0; i <= DOOR_PREFIXES_MAX; i++)
		text_print(&list, "%u.%u.%u.%u\n", 20 + (i >> 23), i >> 15 & 255, i >> 7 & 255,
			i << 1 & 255);
	case_begin(&daemon, by_kernel, "203.0.113.0/24\n");
	daemon_start(&daemon);
	fault_check_replace(&daemon, &list, by_kernel);
	/* What fits is taken. */
	daemon_change(&daemon, "partner-ip-replace", "198.51.100.0/24\n", NULL, NULL);
	visit_all(
		(const struct visit[]){
			{.from = "198.51.100.7", .to = CASE_V4, .greeting = "friends"}},
		1, by_kernel);
	daemon_stop(&daemon);
}

/* ---- no memory for a trie, which the kernel counts to the control group that made it */

static bool fault_write(const char *folder, const char *file, const char *text)
{
	char path[PLACE_PATH_BYTES + 64];
	FILE *out;

	(void)snprintf(path, sizeof(path), "%s/%s", folder, file);
	out = fopen(path, "we");
	if (out == NULL)
		return false;
	(void)fputs(text, out);
	return fclose(out) == 0;
}

static unsigned long fault_read(const char *folder, const char *file)
{
	char path[PLACE_PATH_BYTES + 64];
	unsigned long number = 0;
	FILE *in;

	(void)snprintf(path, sizeof(path), "%s/%s", folder, file);
	in = fopen(path, "re");
	if (in != NULL) {
		if (fscanf(in, "%lu", &number) != 1)
			number = 0;
		(void)fclose(in);
	}
	return number;
}

/* Control groups, of which those of the memory lie in root; their files' names. */
struct fault_group {
	char root[PLACE_PATH_BYTES];
	char folder[PLACE_PATH_BYTES];
	const char *limit, *usage;
};

static void fault_make_group(struct fault_group *group)
{
	(void)place_path("cgroup", group->root);
	(void)mkdir(group->root, 0755);
	(void)place_group(group->folder);
	group->limit = "memory.max";
	group->usage = "memory.current";
	if (mount("none", group->root, "cgroup2", 0, NULL) == 0) {
		(void)fault_write(group->root, "cgroup.subtree_control", "+memory");
		(void)mkdir(group->folder, 0755);
		if (fault_write(group->folder, group->limit, "max"))
			return;
		(void)rmdir(group->folder);
		(void)umount2(group->root, MNT_DETACH);
	}
	group->limit = "memory.limit_in_bytes";
	group->usage = "memory.usage_in_bytes";
	if (mount("none", group->root, "cgroup", 0, "memory") == 0 &&
		mkdir(group->folder, 0755) == 0 && fault_write(group->folder, group->limit, "-1"))
		return;
	case_skip("no control group counts memory here: %s", strerror(errno));
}

static void fault_join(const char *folder)
{
	case_check(fault_write(folder, "cgroup.procs", "0"), "%s: %s", folder, strerror(errno));
}

/* The kernel's caches of nodes may need a moment until they have heard of the new limit. */
static void fault_try_again(const struct daemon *daemon, const struct text *list)
{
	struct daemon_answer answer = {0};

	for (unsigned tries = 0; tries < 20 && !answer.ok; tries++) {
		if (tries > 0)
			pause_ms(50);
		case_check(
			daemon_ask(daemon,
				"{\"command\": \"partner-ip-replace\", \"partner\": \"friends\"}",
				list, &answer, NULL),
			"no answer");
	}
	case_check(answer.ok, "with memory it does not work: %s", answer.raw);
}

static void fault_no_memory(bool by_kernel)
{
	struct fault_group group;
	struct text list = {0};
	struct daemon daemon;
	char bytes[32];

	fault_make_group(&group);
	large_list(LARGE_A, 50000, &list);
	case_begin(&daemon, by_kernel, "203.0.113.0/24\n");
	fault_join(group.folder);
	daemon_start(&daemon);
	fault_join(group.root);
	/* The relay itself goes on without a limit; only its maps stay behind. */
	(void)snprintf(bytes, sizeof(bytes), "%d", (int)daemon.pid);
	case_check(fault_write(group.root, "cgroup.procs", bytes), "the relay cannot be moved");
	(void)snprintf(
		bytes, sizeof(bytes), "%lu", fault_read(group.folder, group.usage) + 1024UL * 1024);
	case_check(fault_write(group.folder, group.limit, bytes), "no limit of memory: %s",
		strerror(errno));
	fault_check_replace(&daemon, &list, by_kernel);
	/* With memory it works again, as the message says. */
	case_check(fault_write(group.folder, group.limit,
			   strcmp(group.limit, "memory.max") == 0 ? "max" : "-1"),
		"no end of the limit");
	fault_try_again(&daemon, &list);
	visit_all(
		(const struct visit[]){
			{.from = LARGE_A_PEER, .to = CASE_V4, .greeting = "friends"}},
		1, by_kernel);
	daemon_stop(&daemon);
}

/* ---- killed */

static pid_t fault_start_replace(const struct daemon *daemon, const struct text *list)
{
	pid_t pid = fork();

	if (pid == 0) {
		struct daemon_answer answer;

		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)daemon_ask(daemon,
			"{\"command\": \"partner-ip-replace\", \"partner\": \"friends\"}", list,
			&answer, NULL);
		_exit(0);
	}
	case_check(pid > 0, "no process");
	return pid;
}

/* How long a whole replacement takes: up to then things can be killed in its middle. */
static unsigned long fault_time_replace(const struct daemon *daemon, const struct text *list)
{
	uint64_t begun = now_ms();

	daemon_change(daemon, "partner-ip-replace", list->data, NULL, NULL);
	return (unsigned long)(now_ms() - begun);
}

/* One set or the other, whole: 'A' or 'B'. A list that is asked for waits for what is under way. */
static char fault_which(const struct daemon *daemon, unsigned count)
{
	struct daemon_answer answer;
	struct text list = {0};
	bool has_a;
	bool has_b;

	case_check(
		daemon_ask(daemon, "{\"command\": \"partner-ip-list\", \"partner\": \"friends\"}",
			NULL, &answer, &list) &&
			answer.ok,
		"no list: %s", answer.raw);
	case_check(answer.count == (unsigned long)(count / 2) * 2, "%lu prefixes of %u",
		answer.count, count);
	has_a = strstr(list.data, "\n21.0.1.0/28\n") != NULL;
	has_b = strstr(list.data, "\n22.0.1.0/28\n") != NULL;
	text_free(&list);
	case_check(has_a != has_b, "the list is %s", has_a ? "of both sets" : "of no set");
	return has_a ? 'A' : 'B';
}

static void fault_check_set(char which, bool by_kernel)
{
	const struct visit visits[] = {
		{.from = LARGE_KEPT_PEER, .to = CASE_V4, .greeting = "friends"},
		{.from = LARGE_A_PEER, .to = CASE_V4, .greeting = which == 'A' ? "friends" : NULL},
		{.from = LARGE_B_PEER, .to = CASE_V4, .greeting = which == 'B' ? "friends" : NULL},
	};

	VISIT_ALL(visits, by_kernel);
}

#define FAULT_KILLS 12

static void fault_killed(bool by_kernel, bool is_relay)
{
	unsigned count = large_count();
	struct text lists[2] = {0};
	struct daemon daemon;
	unsigned long long_ms;
	unsigned changed = 0;

	large_list(LARGE_A, count, &lists[0]);
	large_list(LARGE_B, count, &lists[1]);
	case_begin(&daemon, by_kernel, "203.0.113.0/24\n");
	daemon_start(&daemon);
	long_ms = fault_time_replace(&daemon, &lists[0]);
	srandom(4711);
	for (unsigned i = 0; i < FAULT_KILLS; i++) {
		char before = fault_which(&daemon, count);
		char after;
		pid_t client = fault_start_replace(&daemon, &lists[before == 'A']);

		/* Every other time early on, while the request is on its way. */
		pause_ms((unsigned)((unsigned long)random() %
				    (i % 2 == 0 ? 2 * long_ms + 1 : long_ms / 8 + 1)));
		if (is_relay)
			daemon_kill(&daemon);
		(void)kill(client, SIGKILL);
		(void)waitpid(client, NULL, 0);
		if (is_relay)
			daemon_start(&daemon);
		after = fault_which(&daemon, count);
		fault_check_set(after, by_kernel);
		changed += before != after;
	}
	/* Then it works again. */
	daemon_change(&daemon, "partner-ip-replace", lists[0].data, NULL, NULL);
	fault_check_set('A', by_kernel);
	daemon_change(&daemon, "partner-ip-replace", lists[1].data, NULL, NULL);
	fault_check_set('B', by_kernel);
	daemon_stop(&daemon);
	case_note("killed %u times within %lu ms, %u of the changes were done", FAULT_KILLS,
		long_ms, changed);
}

static void fault_killed_client(bool by_kernel)
{
	fault_killed(by_kernel, false);
}

static void fault_killed_relay(bool by_kernel)
{
	fault_killed(by_kernel, true);
}

static const struct door_case rows[] = {
	{"fault/pins", fault_pins, BY_KERNEL, 3},
	{"fault/full", fault_full, BY_KERNEL, 10},
	{"fault/no-memory", fault_no_memory, BY_KERNEL, 2},
	{"fault/killed-client", fault_killed_client, BY_KERNEL | BY_USER, 5},
	{"fault/killed-relay", fault_killed_relay, BY_KERNEL | BY_USER, 5},
};

const struct door_table case_fault = {rows, COUNT_OF(rows)};
