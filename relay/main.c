/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/policy.h"
#include "relay/base/log.h"
#include "relay/base/protolog.h"
#include "relay/base/track.h"
#include "relay/control.h"
#include "relay/keeper.h"
#include "relay/net/tls.h"
#include "relay/pki/crl.h"
#include "relay/pki/provider.h"
#include "relay/privilege.h"
#include "relay/version.h"
#include "relay/worker.h"
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <string.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

/*
 * main.c: options, configuration, what needs privileges, then the workers, the
 * first of them on the main thread, and how a new configuration reaches them.
 */

#define EXIT_USAGE 2

/* Certificates of peers that are remembered while no session shows them. */
#define PEERS_KEPT 4096

#define DEFAULT_CONFIG "/etc/postern/postern.conf"

static const char usage[] =
	"usage: postern [--config FILE]\n"
	"  -c, --config FILE  run with this configuration (" DEFAULT_CONFIG ")\n"
	"  --check FILE       print every mistake in a configuration, and exit\n"
	"  --version          print version, libraries, and what this kernel can do\n"
	"  --help             print this\n";

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

	provider_init();
	if (tls_init() < 0 || peer_cache_create(PEERS_KEPT) < 0)
		return EXIT_FAILURE;
	rc = world_create(file, NULL, stderr, &world) < 0 || check_caps(world->policy, &caps) < 0
		     ? EXIT_USAGE
		     : EXIT_SUCCESS;
	world_release(&world);
	peer_cache_destroy();
	return rc;
}

/*
 * Each session needs a descriptor, each session with a next hop, each segment of the spool, and the
 * door for its tries.
 */
static void raise_descriptor_limit(const struct world *world, unsigned workers)
{
	const struct queue_policy *queue = &world->policy->queue;
	const rlim_t segments = queue->spool_folder == NULL
					? 0
					: queue->spool_max_bytes / queue->spool_segment_bytes;
	const rlim_t need =
		(rlim_t)6 * DOOR_SLOTS + segments + (256 + world->connections_max) * workers;
	const rlim_t allowed = privilege_allow_files(need);

	if (allowed < need)
		log_event(LOG_LEVEL_WARNING, NULL, "start",
			"why=\"open files are limited to %lu, max-sessions and the spool need "
			"%lu\"",
			(unsigned long)allowed, (unsigned long)need);
}

struct relay {
	struct world *world; /* in force; the keeper's thread changes it after the start */
	struct loop_caps caps;
	struct ktls_support ktls_support;
	struct worker_shared shared;
	struct spool_folder *spool_folder; /* NULL: none is configured */
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

/* One question of the control thread about the queues of one worker. */
static int relay_ask_worker(void *owner, unsigned worker, struct queue_ask *ask)
{
	const struct relay *relay = owner;

	worker_ask(relay->workers[worker], ask);
	return worker_await_answer(relay->workers[worker], ask) ? 0 : -ESHUTDOWN;
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

static struct logset_options relay_track_options(const struct policy *policy)
{
	return (struct logset_options){.folder = policy->queue.tracking_log_folder,
		.max_file_bytes = policy->queue.tracking_log_max_file_bytes,
		.max_directory_bytes = policy->queue.tracking_log_max_directory_bytes,
		.max_age_ms = policy->queue.tracking_log_max_age_ms};
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
	struct logset_options track = relay_track_options(world->policy);
	int rc = atomic_load(&relay->is_draining) ? -ESHUTDOWN : 0;

	if (rc == 0)
		rc = world_probe_bindings(relay->world, world, stderr);
	if (rc == 0)
		rc = relay_change(relay, world);
	if (rc < 0)
		return strerror(-rc);
	world_release(&relay->world);
	relay->world = world_hold(world);
	log_level_max = world->policy->log_debug ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO;
	crl_configure(&crl);
	protolog_configure(&protolog);
	track_configure(&track);
	relay_log_listeners(world);
	return NULL;
}

/* The spool; its thread is the first beside this one. */
static int relay_create_spool(struct relay *relay)
{
	const struct queue_policy *queue = &relay->world->policy->queue;
	const struct spool_folder_options options = {.path = queue->spool_folder,
		.segment_bytes = queue->spool_segment_bytes,
		.bytes_max = queue->spool_max_bytes,
		.logs = relay->worker_count,
		.pressure_medium = (unsigned)queue->pressure_medium,
		.pressure_high = (unsigned)queue->pressure_high,
		.pressure_high_end = (unsigned)queue->pressure_high_end,
		.pressure_medium_end = (unsigned)queue->pressure_medium_end};
	int rc;

	if (queue->spool_folder == NULL)
		return 0;
	rc = spool_folder_create(&options, stderr, &relay->spool_folder);
	relay->shared.spool_folder = relay->spool_folder;
	return rc;
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
		.worker_count = count,
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
	rc = world_probe_bindings(NULL, relay->world, stderr);
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
	const struct logset_options track = relay_track_options(policy);
	int rc = relay_create_spool(relay);

	if (rc == 0)
		rc = crl_start(&crl);
	if (rc == 0)
		rc = protolog_start(&protolog, relay->worker_count);
	if (rc == 0)
		rc = track_start(&track, relay->worker_count);
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
	const struct policy *policy = relay->world->policy;
	int rc = relay_create_door(relay);

	if (rc == 0)
		rc = relay_create_workers(relay);
	if (rc == 0)
		rc = privilege_make_folder(policy->queue.spool_folder, policy->user, stderr);
	if (rc == 0)
		rc = drop_privileges(policy->user);
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
	control_set_hooks(relay->control,
		&(const struct control_hooks){
			.ask = relay_ask_worker, .workers = relay->worker_count, .owner = relay});
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
	spool_folder_destroy(&relay->spool_folder);
	protolog_stop();
	track_stop();
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

	provider_init();
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
		version_print();
		return EXIT_SUCCESS;
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
