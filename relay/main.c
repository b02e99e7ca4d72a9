/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/policy.h"
#include "relay/base/log.h"
#include "relay/net/tls.h"
#include "relay/worker.h"
#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/*
 * main.c: options, configuration, what needs privileges, then the workers, the
 * first of them on the main thread.
 */

#define EXIT_USAGE 2
#define DEFAULT_CONFIG "/etc/postern/postern.conf"

static const char usage[] =
	"usage: postern [--config FILE]\n"
	"  -c, --config FILE  run with this configuration (" DEFAULT_CONFIG ")\n"
	"  --check FILE       print every mistake in a configuration, and exit\n"
	"  --version          print version, libraries, and what this kernel can do\n"
	"  --help             print this\n";

static void print_ktls(const struct ktls_support *support)
{
	static const char *const versions[] = {"TLSv1.2", "TLSv1.3"};
	static const char *const ciphers[] = {
		NULL, "AES-128-GCM", "AES-256-GCM", "CHACHA20-POLY1305"};

	if (support->why_not != NULL) {
		(void)printf("ktls: none (%s); records stay in userspace\n", support->why_not);
		return;
	}
	for (unsigned version = 0; version < 2; version++) {
		for (unsigned cipher = 1; cipher < KTLS_CIPHER_COUNT; cipher++) {
			const bool *works = support->works[version][cipher];

			(void)printf("ktls %s %s: rx=%s tx=%s\n", versions[version],
				ciphers[cipher], works[KTLS_DIRECTION_RX] ? "yes" : "no",
				works[KTLS_DIRECTION_TX] ? "yes" : "no");
		}
	}
	(void)printf("ktls rekey: %s\n", support->rekeys ? "yes" : "no");
}

static int run_version(void)
{
	struct utsname kernel;
	struct loop_caps caps;
	struct ktls_support support;
	int rc = loop_probe(&caps);

	(void)uname(&kernel);
	(void)printf("postern %s\ntls: %s\nkernel: %s %s\n", POSTERN_VERSION, tls_library(),
		kernel.sysname, kernel.release);
	if (rc < 0)
		(void)printf("io_uring: none (%s)\n", loop_why_not(-rc));
	for (unsigned i = 0; rc == 0 && i < loop_cap_count; i++)
		(void)printf("io_uring %s: %s\n", loop_cap_names[i].name,
			*(const bool *)((const char *)&caps + loop_cap_names[i].offset) ? "yes"
											: "no");
	ktls_probe(&support);
	print_ktls(&support);
	return EXIT_SUCCESS;
}

/* Peers' certificates that are remembered while nobody uses them. */
#define PEERS_KEPT 4096

/* Anchors, lists and pins: those that cannot be used are told with their line. */
static int check_trust(const struct policy *policy)
{
	struct trust_set *trusts;
	int rc = trust_set_create(policy, stderr, &trusts);

	if (rc == 0)
		trust_set_destroy(&trusts);
	return rc;
}

/* The TLS settings too, since only OpenSSL can tell whether a certificate file is any good. */
static int check_tls(const struct policy *policy)
{
	char error[512];
	int bad = 0;

	for (unsigned i = 0; i < policy->receive_connector_count + policy->send_connector_count;
		i++) {
		bool is_server = i < policy->receive_connector_count;
		const struct receive_connector *receive = &policy->receive_connectors[i];
		const struct send_connector *send =
			is_server ? NULL
				  : &policy->send_connectors[i - policy->receive_connector_count];
		const struct tls_context_options options = {
			.settings = is_server ? &receive->tls_settings : &send->tls_settings,
			.is_server = is_server,
			.client_certificate =
				is_server ? receive->client_certificate : CLIENT_CERTIFICATE_NONE,
			.name = is_server ? receive->name : send->name};
		struct tls_context context;

		if (is_server && receive->tls == TLS_MODE_NONE)
			continue;
		if (tls_context_create(&options, &context, error, sizeof(error)) == 0) {
			tls_context_destroy(&context);
			continue;
		}
		(void)fprintf(stderr,
			"%s:%u: connector \"%s\": %s, expected PEM that OpenSSL accepts\n",
			policy->file, is_server ? receive->line : send->line,
			is_server ? receive->name : send->name, error);
		bad++;
	}
	return bad == 0 ? 0 : -EINVAL;
}

/* Buffers have numbers of 16 bits; a connection may hold four, and 4,096 are the kernel's. */
#define WORKER_CONNECTIONS_MAX 15000

static int check_size(const struct policy *policy)
{
	uint64_t connections = policy->max_sessions;

	for (unsigned i = 0; i < policy->send_connector_count; i++)
		connections += policy->send_connectors[i].max_connections;
	if (connections <= WORKER_CONNECTIONS_MAX)
		return 0;
	(void)fprintf(stderr,
		"%s: max-sessions and the max-connections of all send-connectors are %lu together, "
		"expected at most %u for a worker\n",
		policy->file, (unsigned long)connections, WORKER_CONNECTIONS_MAX);
	return -EINVAL;
}

static int check_caps(const struct policy *policy, struct loop_caps *caps)
{
	int bad = 0;

	for (unsigned i = 0; i < policy->io_uring_disable_count; i++) {
		if (loop_caps_disable(caps, policy->io_uring_disable[i]))
			continue;
		(void)fprintf(stderr,
			"%s: io-uring-disable: \"%s\" is no capability, expected one that "
			"postern --version lists\n",
			policy->file, policy->io_uring_disable[i]);
		bad++;
	}
	return bad == 0 ? 0 : -EINVAL;
}

static int run_check(const char *file)
{
	struct policy *policy;
	struct loop_caps caps = {0};
	int rc;

	if (policy_load(file, stderr, &policy) < 0)
		return EXIT_USAGE;
	rc = tls_init() < 0 || check_trust(policy) < 0 || check_tls(policy) < 0 ||
			     check_size(policy) < 0 || check_caps(policy, &caps) < 0
		     ? EXIT_USAGE
		     : EXIT_SUCCESS;
	policy_destroy(&policy);
	return rc;
}

/* Each session needs a descriptor, and so does each session with a next hop. */
static void raise_descriptor_limit(const struct policy *policy, unsigned workers)
{
	struct rlimit limit;
	rlim_t need = 256;

	for (unsigned i = 0; i < policy->send_connector_count; i++)
		need += policy->send_connectors[i].max_connections;
	need = (need + policy->max_sessions) * workers;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= need)
		return;
	if (limit.rlim_max < need) {
		struct rlimit raised = {.rlim_cur = need, .rlim_max = need};

		if (setrlimit(RLIMIT_NOFILE, &raised) == 0)
			return;
		log_event(LOG_LEVEL_WARNING, NULL, "start",
			"why=\"open files are limited to %lu, max-sessions needs %lu\"",
			(unsigned long)limit.rlim_max, (unsigned long)need);
	}
	limit.rlim_cur = limit.rlim_max < need ? limit.rlim_max : need;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

static int drop_privileges(const char *user)
{
	const struct passwd *entry;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	if (user == NULL || geteuid() != 0)
		return 0;
	errno = 0;
	entry = getpwnam(user);
	if (entry == NULL)
		return errno != 0 ? -errno : -ENOENT;
	if (setgroups(0, NULL) < 0 || setgid(entry->pw_gid) < 0 || setuid(entry->pw_uid) < 0)
		return -errno;
	return 0;
}

struct relay {
	struct policy *policy;
	struct trust_set *trusts;
	struct loop_caps caps;
	struct ktls_support ktls_support;
	struct worker_shared shared;
	struct worker **workers;
	unsigned worker_count;
	unsigned started;
	_Atomic unsigned opened; /* workers that have opened all they need */
};

static void relay_log_stats(const struct relay *relay)
{
	struct stats sum = {0};
	char text[3072];

	for (unsigned i = 0; i < relay->worker_count; i++)
		stats_add(&sum, worker_stats(relay->workers[i]));
	(void)stats_print(&sum, text, sizeof(text));
	log_event(LOG_LEVEL_INFO, NULL, "stats", "%s", text);
}

static void relay_log_listeners(const struct policy *policy)
{
	for (unsigned i = 0; i < policy->receive_connector_count; i++) {
		const struct receive_connector *connector = &policy->receive_connectors[i];

		for (unsigned j = 0; j < connector->binding_count; j++) {
			char text[64];

			address_print(&connector->bindings[j], text, sizeof(text));
			log_event(LOG_LEVEL_INFO, NULL, "listen", "connector=%s address=%s",
				connector->name, text);
		}
	}
}

static void relay_on_signal(void *owner, int number)
{
	const struct relay *relay = owner;

	if (number == SIGUSR1) {
		relay_log_stats(relay);
		return;
	}
	log_event(LOG_LEVEL_INFO, NULL, "drain", "signal=%d", number);
	for (unsigned i = 0; i < relay->started; i++)
		worker_drain(relay->workers[i]);
}

/* The last to open says that all is ready; the first runs on the main thread, so it cannot be
 * waited for there. */
static void relay_on_open(void *owner)
{
	struct relay *relay = owner;

	if (atomic_fetch_add(&relay->opened, 1) + 1 < relay->worker_count)
		return;
	log_event(LOG_LEVEL_INFO, NULL, "ready", "workers=%u ktls=%s", relay->worker_count,
		relay->ktls_support.why_not == NULL ? "yes" : relay->ktls_support.why_not);
}

static int relay_create_workers(struct relay *relay)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned count = relay->policy->workers != 0 ? relay->policy->workers
			 : cores > 0                 ? (unsigned)cores
						     : 1;
	int rc = trust_set_create(relay->policy, stderr, &relay->trusts);

	if (rc < 0)
		return rc;

	relay->workers = calloc(count, sizeof(*relay->workers));
	relay->shared = (struct worker_shared){.policy = relay->policy,
		.trusts = relay->trusts,
		.caps = &relay->caps,
		.ktls_support = &relay->ktls_support,
		.started_s = (uint64_t)time(NULL),
		.on_open = relay_on_open,
		.on_signal = relay_on_signal,
		.owner = relay};
	if (getrandom(&relay->shared.random_id, sizeof(relay->shared.random_id), 0) < 0)
		return -errno;
	if (relay->workers == NULL || door_create(DOOR_SOURCES, &relay->shared.door) < 0)
		return -ENOMEM;
	raise_descriptor_limit(relay->policy, count);
	while (rc == 0 && relay->worker_count < count) {
		rc = worker_create(
			relay->worker_count, &relay->shared, &relay->workers[relay->worker_count]);
		if (rc == 0)
			relay->worker_count++;
	}
	return rc;
}

static int relay_start(struct relay *relay)
{
	int rc = relay_create_workers(relay);

	if (rc == 0)
		rc = drop_privileges(relay->policy->user);
	if (rc < 0)
		return rc;
	if (geteuid() == 0)
		log_event(LOG_LEVEL_WARNING, NULL, "start",
			"why=\"running as root: set user in the transport section\"");
	relay_log_listeners(relay->policy);
	/* The first runs on this thread. */
	relay->started = 1;
	while (rc == 0 && relay->started < relay->worker_count) {
		rc = worker_start(relay->workers[relay->started]);
		if (rc == 0)
			relay->started++;
	}
	return rc;
}

static int relay_stop(struct relay *relay)
{
	int rc = 0;

	for (unsigned i = 1; i < relay->started; i++)
		worker_drain(relay->workers[i]);
	for (unsigned i = 1; i < relay->started; i++) {
		int result = worker_join(relay->workers[i]);

		rc = result < 0 ? result : rc;
	}
	relay_log_stats(relay);
	for (unsigned i = 0; i < relay->worker_count; i++)
		worker_destroy(&relay->workers[i]);
	free(relay->workers);
	door_destroy(&relay->shared.door);
	trust_set_destroy(&relay->trusts);
	peer_cache_destroy();
	return rc;
}

/* Signals are read from a descriptor, like everything else; so all threads begin with them blocked.
 */
static int open_signals(void)
{
	sigset_t signals;

	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigaddset(&signals, SIGINT);
	(void)sigaddset(&signals, SIGUSR1);
	(void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &signals, SFD_CLOEXEC);
}

static int run_relay(const char *file)
{
	struct relay relay = {0};
	int signals;
	int rc;

	if (policy_load(file, stderr, &relay.policy) < 0)
		return EXIT_USAGE;
	log_level_max = relay.policy->log_debug ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO;
	signals = open_signals();
	rc = loop_probe(&relay.caps);
	if (rc < 0) {
		(void)fprintf(stderr, "postern: io_uring cannot be used: %s\n", loop_why_not(-rc));
		policy_destroy(&relay.policy);
		return EXIT_FAILURE;
	}
	if (tls_init() < 0 || peer_cache_create(PEERS_KEPT) < 0 || check_trust(relay.policy) < 0 ||
		check_tls(relay.policy) < 0 || check_size(relay.policy) < 0 ||
		check_caps(relay.policy, &relay.caps) < 0) {
		policy_destroy(&relay.policy);
		return EXIT_USAGE;
	}
	log_event(LOG_LEVEL_INFO, NULL, "start", "version=%s config=%s pid=%d", POSTERN_VERSION,
		file, getpid());
	/* Before privileges go: the kernel loads its TLS module only for who may administer
	 * networks. */
	ktls_probe(&relay.ktls_support);
	rc = relay_start(&relay);
	if (rc == 0)
		rc = worker_run(relay.workers[0], signals);
	else
		(void)fprintf(stderr, "postern: cannot start: %s\n", strerror(-rc));
	if (relay_stop(&relay) < 0)
		rc = -EIO;
	(void)close(signals);
	log_event(LOG_LEVEL_INFO, NULL, "stop", "result=%s", rc == 0 ? "ok" : "failed");
	policy_destroy(&relay.policy);
	return rc == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'},
		{"check", required_argument, NULL, 'k'},
		{"version", no_argument, NULL, 'V'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	const char *file = DEFAULT_CONFIG;
	int option = getopt_long(argc, argv, "c:", options, NULL);

	switch (option) {
	case 'k':
		return run_check(optarg);
	case 'V':
		return run_version();
	case 'h':
		(void)fputs(usage, stdout);
		return EXIT_SUCCESS;
	case 'c':
		file = optarg;
		break;
	case -1:
		break;
	default:
		(void)fputs(usage, stderr);
		return EXIT_USAGE;
	}
	if (getopt_long(argc, argv, "c:", options, NULL) != -1 || optind != argc) {
		(void)fputs(usage, stderr);
		return EXIT_USAGE;
	}
	return run_relay(file);
}
