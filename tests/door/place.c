/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/door/place.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PLACE_NAMESPACES (CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID)

/* Is it possible? */

/* A trie, since that is what the door is made of. */
static bool place_has_bpf(char *why, size_t why_bytes)
{
	union bpf_attr attr;
	long fd;

	memset(&attr, 0, sizeof(attr));
	attr.map_type = BPF_MAP_TYPE_LPM_TRIE;
	attr.key_size = 8;
	attr.value_size = 8;
	attr.max_entries = 1;
	attr.map_flags = BPF_F_NO_PREALLOC;
	fd = syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr));
	if (fd < 0) {
		(void)snprintf(why, why_bytes, "no BPF here: making a trie: %s", strerror(errno));
		return false;
	}
	(void)close((int)fd);
	return true;
}

bool place_is_possible(char *why, size_t why_bytes)
{
	int status = 0;
	pid_t pid;

	if (geteuid() != 0) {
		(void)snprintf(why, why_bytes, "needs root: namespaces, bpf");
		return false;
	}
	if (!place_has_bpf(why, why_bytes))
		return false;
	pid = fork();
	if (pid == 0)
		_exit(unshare(PLACE_NAMESPACES) == 0 ? 0 : errno);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (status == 0)
		return true;
	(void)snprintf(why, why_bytes, "no namespaces here: %s", strerror(WEXITSTATUS(status)));
	return false;
}

/* The processes: this one, which keeps the time; the first of the namespaces, which it kills. */

/* The only thing that would outlive the namespaces. */
static void place_remove_group(void)
{
	char path[PLACE_PATH_BYTES];

	(void)rmdir(place_group(path));
}

static _Noreturn void place_guard(
	void (*run)(const void *data), const void *data, unsigned seconds_max)
{
	int status = 0;
	pid_t pid;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (unshare(PLACE_NAMESPACES) != 0)
		case_fail("unshare: %s", strerror(errno));
	pid = fork();
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		run(data);
		_exit(0);
	}
	/* Its own alarm would not end it: the first process of a namespace ignores what it does not
	 * handle. */
	(void)alarm(seconds_max);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	place_remove_group();
	if (WIFSIGNALED(status))
		case_fail("the case was killed by signal %d", WTERMSIG(status));
	_exit(WEXITSTATUS(status));
}

int place_run(void (*run)(const void *data), const void *data, unsigned seconds_max)
{
	int status = 0;
	pid_t pid;

	(void)fflush(NULL);
	pid = fork();
	if (pid == 0)
		place_guard(run, data, seconds_max);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

/* The network. */

static void place_raise_lo(void)
{
	struct ifreq request = {.ifr_name = "lo"};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	request.ifr_flags = IFF_UP | IFF_RUNNING;
	case_check(fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &request) == 0, "lo: %s", strerror(errno));
	(void)close(fd);
}

/* Every address of the family is local: "ip route add local default dev lo". */
static void place_add_route(int fd, unsigned char family)
{
	struct {
		struct nlmsghdr header;
		struct rtmsg route;
		struct rtattr attribute;
		uint32_t interface;
	} request = {
		.header = {.nlmsg_len = sizeof(request),
			.nlmsg_type = RTM_NEWROUTE,
			.nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK},
		.route = {.rtm_family = family,
			.rtm_table = RT_TABLE_LOCAL,
			.rtm_protocol = RTPROT_STATIC,
			.rtm_scope = RT_SCOPE_HOST,
			.rtm_type = RTN_LOCAL},
		.attribute = {.rta_len = RTA_LENGTH(sizeof(uint32_t)), .rta_type = RTA_OIF},
		.interface = if_nametoindex("lo"),
	};
	struct {
		struct nlmsghdr header;
		struct nlmsgerr error;
		char rest[512];
	} answer = {0};

	case_check(send(fd, &request, sizeof(request), 0) == (ssize_t)sizeof(request) &&
			   recv(fd, &answer, sizeof(answer), 0) > 0,
		"netlink: %s", strerror(errno));
	case_check(answer.header.nlmsg_type == NLMSG_ERROR && answer.error.error == 0,
		"a route for family %u: %s", family, strerror(-answer.error.error));
}

static void place_write(const char *file, const char *text)
{
	FILE *out = fopen(file, "we");

	case_check(out != NULL && fputs(text, out) >= 0 && fclose(out) == 0, "%s: %s", file,
		strerror(errno));
}

static void place_make_network(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	place_raise_lo();
	case_check(fd >= 0, "netlink: %s", strerror(errno));
	place_add_route(fd, AF_INET);
	place_add_route(fd, AF_INET6);
	(void)close(fd);
	/* A server may be at an IPv6 address that only the route makes ours. */
	place_write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1\n");
	/* All clients share two processors with the server: more ports, no queue that is short. */
	place_write("/proc/sys/net/ipv4/ip_local_port_range", "10000 65000\n");
}

/* The folder. */

const char *place_path(const char *name, char out[static PLACE_PATH_BYTES])
{
	(void)snprintf(out, PLACE_PATH_BYTES, "%s/place/%s", suite.dir, name);
	return out;
}

const char *place_group(char out[static PLACE_PATH_BYTES])
{
	const char *unique = strrchr(suite.dir, '/');

	(void)snprintf(out, PLACE_PATH_BYTES, "%s/place/cgroup%s", suite.dir, unique);
	return out;
}

void place_make(void)
{
	char path[PLACE_PATH_BYTES];

	case_check(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0, "mounts: %s",
		strerror(errno));
	case_check(mount("proc", "/proc", "proc", 0, NULL) == 0, "/proc: %s", strerror(errno));
	place_make_network();
	/* In memory, of this namespace alone, and gone with it. */
	(void)snprintf(path, sizeof(path), "%s/place", suite.dir);
	case_check((mkdir(path, 0755) == 0 || errno == EEXIST) &&
			   mount("none", path, "tmpfs", 0, "mode=0777") == 0,
		"%s: %s", path, strerror(errno));
	(void)place_path("bpf", path);
	case_check(mkdir(path, 0755) == 0 && mount("none", path, "bpf", 0, NULL) == 0,
		"a bpf file system at %s: %s", path, strerror(errno));
}

/* What the kernel counts. */

unsigned long place_counter(const char *file, const char *line, const char *key)
{
	char names[4096];
	char values[4096];
	char path[64];
	char *name_rest = names;
	char *value_rest = values;
	char *name;
	FILE *in;

	(void)snprintf(path, sizeof(path), "/proc/net/%s", file);
	in = fopen(path, "re");
	case_check(in != NULL, "%s: %s", path, strerror(errno));
	while (fgets(names, sizeof(names), in) != NULL &&
		fgets(values, sizeof(values), in) != NULL) {
		if (strncmp(names, line, strlen(line)) != 0)
			continue;
		while ((name = strsep(&name_rest, " \n")) != NULL) {
			const char *value = strsep(&value_rest, " \n");

			if (value == NULL || strcmp(name, key) != 0)
				continue;
			(void)fclose(in);
			return strtoul(value, NULL, 10);
		}
		break;
	}
	case_fail("%s has no %s of %s", path, key, line);
}
