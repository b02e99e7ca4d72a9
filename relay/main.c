/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/policy.h"
#include "relay/base/log.h"
#include "relay/base/protolog.h"
#include "relay/control.h"
#include "relay/keeper.h"
#include "relay/net/listener.h"
#include "relay/net/tls.h"
#include "relay/pki/crl.h"
#include "relay/privilege.h"
#include "relay/worker.h"
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/*
 * main.c: options, configuration, what needs privileges, then the workers, the
 * first of them on the main thread, and how a new configuration reaches them.
 */

#define EXIT_USAGE 2

/* Certificates of peers that are remembered while no session shows them. */
#define PEERS_KEPT 4096

/* How often, and how long apart, a reload asks for an address that is in use. */
#define PROBE_TURNS 100
#define PROBE_PAUSE_MS 20

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
	struct world *world = NULL;
	struct loop_caps caps = {0};
	int rc;

	if (tls_init() < 0 || peer_cache_create(PEERS_KEPT) < 0)
		return EXIT_FAILURE;
	rc = world_create(file, NULL, stderr, &world) < 0 || check_caps(world->policy, &caps) < 0
		     ? EXIT_USAGE
		     : EXIT_SUCCESS;
	world_release(&world);
	peer_cache_destroy();
	return rc;
}

/* Each session needs a descriptor, each session with a next hop, and the door for its tries. */
static void raise_descriptor_limit(const struct world *world, unsigned workers)
{
	const rlim_t need = (rlim_t)6 * DOOR_SLOTS + (256 + world->connections_max) * workers;
	struct rlimit limit;

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

struct relay {
	struct world *world; /* in force; the keeper's thread changes it after the start */
	struct loop_caps caps;
	struct ktls_support ktls_support;
	struct worker_shared shared;
	struct doorman *doorman;
	struct control *control;
	struct worker **workers;
	unsigned worker_count;
	unsigned started;
	_Atomic unsigned opened; /* workers that have opened all they need */
	_Atomic bool is_draining;
	struct keeper *keeper;
};

static void relay_sum_stats(void *owner, struct stats *out)
{
	const struct relay *relay = owner;

	for (unsigned i = 0; i < relay->worker_count; i++)
		stats_add(out, worker_stats(relay->workers[i]));
}

/* Asked of all first, so that they do it at the same time. */
static uint64_t relay_end_unserved(void *owner)
{
	const struct relay *relay = owner;
	uint64_t count = 0;

	for (unsigned i = 0; i < relay->worker_count; i++)
		worker_end_unserved(relay->workers[i]);
	for (unsigned i = 0; i < relay->worker_count; i++)
		count += worker_await_unserved(relay->workers[i]);
	return count;
}

static void relay_log_stats(struct relay *relay)
{
	struct stats sum = {0};
	char text[4096];

	relay_sum_stats(relay, &sum);
	(void)stats_print(&sum, text, sizeof(text));
	log_event(LOG_LEVEL_INFO, NULL, "stats", "%s", text);
}

static void relay_log_listeners(const struct world *world)
{
	const struct policy *policy = world->policy;

	for (unsigned i = 0; i < policy->receive_connector_count; i++) {
		const struct receive_connector *connector = &policy->receive_connectors[i];

		for (unsigned j = 0; connector->enabled && j < connector->binding_count; j++) {
			char text[64];

			address_print(&connector->bindings[j], text, sizeof(text));
			log_event(LOG_LEVEL_INFO, NULL, "listen", "connector=%s address=%s",
				connector->name, text);
		}
	}
}

static void relay_on_signal(void *owner, int number)
{
	struct relay *relay = owner;

	if (number == SIGUSR1) {
		relay_log_stats(relay);
		return;
	}
	if (number == SIGHUP) {
		keeper_reload(relay->keeper);
		return;
	}
	log_event(LOG_LEVEL_INFO, NULL, "drain", "signal=%d", number);
	atomic_store(&relay->is_draining, true);
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

/* A revocation list came: sessions on any worker may wait for it. */
static void relay_on_crl(void *owner)
{
	struct relay *relay = owner;

	/* On a thread of crl.h, maybe while workers are still being started. */
	for (unsigned i = 0; i < relay->worker_count; i++)
		worker_proof_changed(relay->workers[i]);
}

static struct crl_options relay_crl_options(struct relay *relay, const struct policy *policy)
{
	return (struct crl_options){.cache_folder = policy->crl_cache,
		.fetch_timeout_ms = policy->crl_fetch_timeout_ms,
		.refresh_interval_ms = policy->crl_refresh_interval_ms,
		.on_change = relay_on_crl,
		.owner = relay};
}

static struct logset_options relay_protolog_options(const struct policy *policy)
{
	return (struct logset_options){.folder = policy->protocol_log_folder,
		.max_file_bytes = policy->protocol_log_max_file_bytes,
		.max_directory_bytes = policy->protocol_log_max_directory_bytes,
		.max_age_ms = policy->protocol_log_max_age_ms};
}

/*
 * An address that the reload before gave up may still be held by a worker that has not come to
 * close it: then it is tried again, until no turn is left. Not on a worker.
 */
static int relay_probe_address(const struct address *address, unsigned *turns)
{
	const struct timespec pause = {.tv_nsec = PROBE_PAUSE_MS * 1000000L};
	int rc = listener_probe(address);

	while (rc == -EADDRINUSE && *turns > 0) {
		--*turns;
		(void)nanosleep(&pause, NULL);
		rc = listener_probe(address);
	}
	return rc;
}

/*
 * Which bindings are new, and can be had? An address that is not of this machine is reported
 * and passed over, so that the other connectors are served (EXCHANGE 14 row 3).
 */
static int relay_probe_bindings(const struct world *old, struct world *world, FILE *errors)
{
	unsigned turns = old == NULL ? 0 : PROBE_TURNS;
	unsigned open = 0;

	for (unsigned i = 0; i < world->binding_count; i++) {
		struct world_binding *binding = &world->bindings[i];
		char text[64];
		int rc = 0;

		for (unsigned j = 0; old != NULL && j < old->binding_count; j++)
			binding->is_open |=
				old->bindings[j].is_open &&
				address_is_equal(old->bindings[j].address, binding->address);
		binding->is_new = !binding->is_open;
		rc = binding->is_open ? 0 : relay_probe_address(binding->address, &turns);
		binding->is_open = rc == 0;
		open += rc == 0;
		if (rc == 0)
			continue;
		world_complain_binding(binding, rc, errors);
		if (rc != -EADDRNOTAVAIL)
			return rc;
		address_print(binding->address, text, sizeof(text));
		log_event(LOG_LEVEL_ERROR, NULL, "listen-failed",
			"connector=%s address=%s why=\"%s\"", binding->connector, text,
			strerror(-rc));
	}
	return open > 0 ? 0 : -EADDRNOTAVAIL;
}

/* What every worker has to change; if one of them cannot, none has to. */
static int relay_create_changes(
	struct relay *relay, struct world *world, struct worker_change ***out)
{
	struct worker_change **changes =
		calloc(relay->worker_count, sizeof(struct worker_change *));
	int rc = changes == NULL ? -ENOMEM : 0;

	for (unsigned i = 0; rc == 0 && i < relay->worker_count; i++)
		rc = worker_change_create(relay->workers[i], world, stderr, &changes[i]);
	for (unsigned i = 0; rc < 0 && changes != NULL && i < relay->worker_count; i++)
		worker_change_destroy(&changes[i]);
	if (rc < 0)
		free(changes);
	else
		*out = changes;
	return rc;
}

static struct gate_ids *relay_ids(void *owner)
{
	const struct relay *relay = owner;

	return doorman_ids(relay->doorman);
}

/*
 * The door lets in whom the old world serves until all workers have adopted the new one; what is
 * new with it is guarded before anybody listens there.
 */
static int relay_change(struct relay *relay, struct world *world)
{
	struct worker_change **changes = NULL;
	int rc;

	doorman_reload_begin(relay->doorman);
	rc = doorman_reload_prepare(relay->doorman, world, stderr);
	if (rc == 0)
		rc = relay_create_changes(relay, world, &changes);
	if (rc < 0) {
		doorman_reload_abandon(relay->doorman);
		return rc;
	}
	for (unsigned i = 0; i < relay->worker_count; i++)
		worker_adopt(relay->workers[i], &changes[i]);
	for (unsigned i = 0; i < relay->worker_count; i++)
		worker_await_adopted(relay->workers[i]);
	doorman_reload_finish(relay->doorman, world);
	free(changes);
	return 0;
}

/* The keeper has a new world: every worker prepares, and if all could, all change. */
static const char *relay_on_world(void *owner, struct world *world)
{
	struct relay *relay = owner;
	struct crl_options crl = relay_crl_options(relay, world->policy);
	struct logset_options protolog = relay_protolog_options(world->policy);
	int rc = atomic_load(&relay->is_draining) ? -ESHUTDOWN : 0;

	if (rc == 0)
		rc = relay_probe_bindings(relay->world, world, stderr);
	if (rc == 0)
		rc = relay_change(relay, world);
	if (rc < 0)
		return strerror(-rc);
	world_release(&relay->world);
	relay->world = world_hold(world);
	log_level_max = world->policy->log_debug ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO;
	crl_configure(&crl);
	protolog_configure(&protolog);
	relay_log_listeners(world);
	return NULL;
}

static int relay_create_workers(struct relay *relay)
{
	const struct policy *policy = relay->world->policy;
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned count = policy->workers != 0 ? policy->workers : cores > 0 ? (unsigned)cores : 1;
	int rc = 0;

	relay->workers = calloc(count, sizeof(*relay->workers));
	relay->shared = (struct worker_shared){.caps = &relay->caps,
		.doorman = relay->doorman,
		.ktls_support = &relay->ktls_support,
		.started_s = (uint64_t)time(NULL),
		.on_open = relay_on_open,
		.on_signal = relay_on_signal,
		.owner = relay};
	if (getrandom(&relay->shared.random_id, sizeof(relay->shared.random_id), 0) < 0)
		return -errno;
	if (relay->workers == NULL || quota_create(QUOTA_SOURCES, &relay->shared.quota) < 0)
		return -ENOMEM;
	raise_descriptor_limit(relay->world, count);
	rc = relay_probe_bindings(NULL, relay->world, stderr);
	while (rc == 0 && relay->worker_count < count) {
		rc = worker_create(relay->worker_count, &relay->shared, relay->world, stderr,
			&relay->workers[relay->worker_count]);
		if (rc == 0)
			relay->worker_count++;
	}
	return rc;
}

/* The threads beside the workers; after the user was changed. */
static int relay_start_helpers(struct relay *relay, const char *file)
{
	static const struct keeper_events events = {.ids = relay_ids, .on_world = relay_on_world};
	const struct policy *policy = relay->world->policy;
	const struct crl_options crl = relay_crl_options(relay, policy);
	const struct logset_options protolog = relay_protolog_options(policy);
	int rc = crl_start(&crl);

	if (rc == 0)
		rc = protolog_start(&protolog, relay->worker_count);
	if (rc == 0)
		rc = keeper_create(file, relay->world, &events, relay, &relay->keeper);
	return rc;
}

/* The door, before anybody listens. */
static int relay_create_door(struct relay *relay)
{
	const struct doorman_hooks hooks = {
		.end_sessions = relay_end_unserved, .sum_stats = relay_sum_stats, .owner = relay};
	int rc = doorman_create(relay->world, stderr, &relay->doorman);

	if (rc < 0)
		return rc;
	doorman_set_hooks(relay->doorman, &hooks);
	return control_create(relay->world->policy, relay->doorman, stderr, &relay->control);
}

static int relay_start(struct relay *relay, const char *file)
{
	int rc = relay_create_door(relay);

	if (rc == 0)
		rc = relay_create_workers(relay);
	if (rc == 0)
		rc = drop_privileges(relay->world->policy->user);
	if (rc == 0)
		rc = relay_start_helpers(relay, file);
	if (rc < 0)
		return rc;
	if (geteuid() == 0)
		log_event(LOG_LEVEL_WARNING, NULL, "start",
			"why=\"running as root: set user in the transport section\"");
	relay_log_listeners(relay->world);
	/* The first runs on this thread. */
	relay->started = 1;
	while (rc == 0 && relay->started < relay->worker_count) {
		rc = worker_start(relay->workers[relay->started]);
		if (rc == 0)
			relay->started++;
	}
	/* It may ask workers for something, and waits for them. */
	if (rc == 0)
		rc = control_start(relay->control);
	if (rc == 0 && doorman_is_behind(relay->doorman))
		keeper_reload(relay->keeper);
	return rc;
}

static int relay_stop(struct relay *relay, bool has_served)
{
	int rc = 0;

	/* They wait for workers, which end without them. */
	control_destroy(&relay->control);
	keeper_destroy(&relay->keeper);
	for (unsigned i = 1; i < relay->started; i++)
		worker_drain(relay->workers[i]);
	for (unsigned i = 1; i < relay->started; i++) {
		int result = worker_join(relay->workers[i]);

		rc = result < 0 ? result : rc;
	}
	/* Its threads wake workers. */
	crl_stop();
	relay_log_stats(relay);
	for (unsigned i = 0; i < relay->worker_count; i++)
		worker_destroy(&relay->workers[i]);
	free(relay->workers);
	protolog_stop();
	quota_destroy(&relay->shared.quota);
	(has_served ? doorman_destroy : doorman_abandon)(&relay->doorman);
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
	(void)sigaddset(&signals, SIGHUP);
	(void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &signals, SFD_CLOEXEC);
}

static int run_relay(const char *file)
{
	struct relay relay = {0};
	bool has_started;
	int signals;
	int rc;

	if (tls_init() < 0 || peer_cache_create(PEERS_KEPT) < 0)
		return EXIT_FAILURE;
	if (world_create(file, NULL, stderr, &relay.world) < 0)
		return EXIT_USAGE;
	log_level_max = relay.world->policy->log_debug ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO;
	signals = open_signals();
	rc = loop_probe(&relay.caps);
	if (rc < 0) {
		(void)fprintf(stderr, "postern: io_uring cannot be used: %s\n", loop_why_not(-rc));
		world_release(&relay.world);
		return EXIT_FAILURE;
	}
	if (check_caps(relay.world->policy, &relay.caps) < 0) {
		world_release(&relay.world);
		return EXIT_USAGE;
	}
	log_event(LOG_LEVEL_INFO, NULL, "start", "version=%s config=%s pid=%d", POSTERN_VERSION,
		file, getpid());
	/* Before privileges go: the kernel loads its TLS module only for who may administer
	 * networks. */
	ktls_probe(&relay.ktls_support);
	rc = relay_start(&relay, file);
	has_started = rc == 0;
	if (has_started)
		rc = worker_run(relay.workers[0], signals);
	else
		(void)fprintf(stderr, "postern: cannot start: %s\n", strerror(-rc));
	if (relay_stop(&relay, has_started) < 0)
		rc = -EIO;
	(void)close(signals);
	log_event(LOG_LEVEL_INFO, NULL, "stop", "result=%s", rc == 0 ? "ok" : "failed");
	world_release(&relay.world);
	peer_cache_destroy();
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
