/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/worker.h"

#include "relay/base/limits.h"
#include "relay/base/log.h"
#include "relay/mail/proxy.h"
#include "relay/net/listener.h"
#include "relay/smtp/session.h"
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* Length of the submission queue: what one turn may ask for before it is submitted early. */
#define RING_ENTRIES 1024

/* Large buffers of one worker: 256 bodies at full speed; the others use small ones. */
#define BULK_BUFFERS 256

struct worker_session {
	struct session session;
	struct proxy proxy;
	struct worker *worker;
	struct door_place place;
	struct link link;
};

struct worker {
	unsigned index;
	const struct worker_shared *shared;
	pthread_t thread;
	int result;
	int wake_fd;
	uint64_t wake_value;
	struct op wake_op;

	int signal_fd; /* -1: signals are another worker's business */
	struct signalfd_siginfo signal;
	struct op signal_op;

	struct loop *loop;
	struct conn_net net;
	struct pool sessions;
	struct link open_sessions;
	struct router *router;
	struct tls_context *tls_contexts; /* by receive connector */
	struct listener *listeners;
	unsigned listener_count;
	uint64_t next_session;
	struct session_world world; /* what MAIL is asked of */

	bool is_draining;
	struct timer drain_timer;

	struct log_buffer *log_filling;
	struct log_buffer *log_writing;
	size_t log_written;
	struct op log_op;

	struct stats stats;
};

const struct stats *worker_stats(const struct worker *worker)
{
	return &worker->stats;
}

/* Logging: lines gather while the ones before are written. */

static void worker_log_write(struct worker *worker)
{
	loop_write(worker->loop, &worker->log_op, STDERR_FILENO,
		worker->log_writing->bytes + worker->log_written,
		worker->log_writing->len - worker->log_written);
}

static void worker_log_flush(struct worker *worker)
{
	struct log_buffer *full = worker->log_filling;

	if (worker->log_op.in_flight || full->len == 0)
		return;
	worker->log_filling = worker->log_writing;
	worker->log_filling->len = 0;
	log_attach(worker->log_filling);
	worker->log_writing = full;
	worker->log_written = 0;
	worker_log_write(worker);
}

static void worker_log_done(struct op *op, int32_t result, uint32_t flags)
{
	struct worker *worker = OWNER_OF(op, struct worker, log_op);

	(void)flags;
	if (result > 0)
		worker->log_written += (size_t)result;
	if (result > 0 && worker->log_written < worker->log_writing->len)
		worker_log_write(worker);
	/* A reader that is gone costs lines, never mail. */
}

/* At the end nobody is kept waiting by a slow reader any more. */
static void worker_log_finish(struct worker *worker)
{
	ssize_t written =
		write(STDERR_FILENO, worker->log_filling->bytes, worker->log_filling->len);

	(void)written;
	log_attach(NULL);
}

/* Sessions. */

static void worker_on_session_closed(struct session *session)
{
	struct worker_session *own = OWNER_OF(session, struct worker_session, session);
	struct worker *worker = own->worker;

	proxy_fini(&own->proxy);
	door_leave(&own->place);
	link_remove(&own->link);
	pool_put(&worker->sessions, own);
}

static bool worker_on_message(struct session *session)
{
	struct worker_session *own = OWNER_OF(session, struct worker_session, session);

	return door_message(&own->place, session->connector, loop_now_ms(own->worker->loop)) ==
	       DOOR_OPEN;
}

static const struct session_owner worker_session_owner = {
	.on_closed = worker_on_session_closed,
	.on_message = worker_on_message,
};

/* The door is shut: the peer is told once, without waiting, and closed. */
static void worker_refuse(const struct receive_connector *connector, const char *peer,
	enum door_answer answer, int fd)
{
	static const char busy[] = "421 4.3.2 The maximum number of concurrent connections has "
				   "exceeded a limit, closing transmission channel\r\n";

	STAT(sessions_refused);
	if (answer == DOOR_SOURCE)
		STAT(sessions_refused_source);
	log_event(LOG_LEVEL_WARNING, NULL, "refused", "connector=%s peer=%s why=%s",
		connector->name, peer,
		answer == DOOR_SOURCE ? "too-many-connections-per-source event-id=1021"
				      : "too-many-connections");
	if (connector->tls != TLS_MODE_IMPLICIT) {
		ssize_t sent = send(fd, busy, sizeof(busy) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);

		(void)sent;
	}
	(void)close(fd);
}

/* The peer's address without the port; an IPv4 peer on a dual-stack socket is an IPv4 peer. */
static bool worker_name_peer(int fd, struct ip *ip, char *out, uint16_t *port)
{
	struct sockaddr_storage storage = {0};
	struct sockaddr_in v4;
	socklen_t len = sizeof(storage);

	STAT(other_syscalls);
	(void)snprintf(out, ADDRESS_TEXT_BYTES, "unknown");
	*port = 0;
	if (getpeername(fd, (struct sockaddr *)&storage, &len) < 0 ||
		!ip_of_sockaddr((const struct sockaddr *)&storage, ip))
		return false;
	/* The port stands at the same place in both families. */
	memcpy(&v4, &storage, sizeof(v4));
	*port = ntohs(v4.sin_port);
	(void)ip_print(ip, out, ADDRESS_TEXT_BYTES);
	return true;
}

static struct worker_session *worker_admit(struct worker *worker,
	const struct receive_connector *connector, const struct ip *ip, const char *peer, int fd)
{
	struct worker_session *own = NULL;
	struct door_place place;
	enum door_answer answer = door_enter(worker->shared->door, connector, ip, &place);

	if (answer == DOOR_OPEN)
		own = pool_take(&worker->sessions);
	if (own == NULL) {
		door_leave(&place);
		worker_refuse(connector, peer, answer, fd);
		return NULL;
	}
	own->place = place;
	return own;
}

static void worker_on_accept(struct listener *listener, int fd)
{
	struct worker *worker = listener->owner;
	const struct receive_connector *connector = listener->connector;
	const struct policy *policy = worker->shared->policy;
	size_t index = (size_t)(connector - policy->receive_connectors);
	struct worker_session *own;
	char peer[ADDRESS_TEXT_BYTES];
	struct ip ip;
	uint16_t port;
	bool is_known = worker_name_peer(fd, &ip, peer, &port);

	own = worker_admit(worker, connector, is_known ? &ip : NULL, peer, fd);
	if (own == NULL)
		return;
	own->worker = worker;
	proxy_init(&own->proxy, &(const struct proxy_options){.router = worker->router,
					.connector = connector->send_connector,
					.session = own->session.id});
	own->session.owner = &worker_session_owner;
	own->session.world = &worker->world;
	own->session.connector = connector;
	own->session.tls_context =
		connector->tls == TLS_MODE_NONE ? NULL : &worker->tls_contexts[index];
	own->session.sink = &own->proxy.sink;
	(void)snprintf(own->session.id, sizeof(own->session.id), "%08x%04x%02x%06x",
		(unsigned)worker->shared->started_s, worker->shared->random_id, worker->index,
		(unsigned)(worker->next_session++ & 0xffffff));
	memcpy(own->session.peer, peer, sizeof(peer));
	log_event(LOG_LEVEL_INFO, own->session.id, "accept", "connector=%s peer=%s port=%u",
		connector->name, peer, port);
	link_init(&own->link);
	list_append(&worker->open_sessions, &own->link);
	session_open(&own->session, &worker->net, fd);
}

/* The end. */

static void worker_drain_now(struct worker *worker)
{
	struct link *link;
	struct link *after;

	if (worker->is_draining)
		return;
	worker->is_draining = true;
	for (unsigned i = 0; i < worker->listener_count; i++)
		listener_close(&worker->listeners[i]);
	LIST_FOR_EACH (link, after, &worker->open_sessions)
		session_drain(&OWNER_OF(link, struct worker_session, link)->session);
	router_drain(worker->router);
	timer_set(loop_timers(worker->loop), &worker->drain_timer,
		loop_now_ms(worker->loop) + worker->shared->policy->drain_timeout_ms);
}

/* Patience is over: what still runs is cut off, and its client has not been told 250. */
static void worker_drain_expired(struct timer *timer)
{
	struct worker *worker = OWNER_OF(timer, struct worker, drain_timer);
	struct link *link;
	struct link *after;

	LIST_FOR_EACH (link, after, &worker->open_sessions)
		session_kick(&OWNER_OF(link, struct worker_session, link)->session,
			"421 4.3.2 Service not available, closing transmission channel");
	router_abort(worker->router);
}

static bool worker_is_done(struct worker *worker)
{
	if (!worker->is_draining || !list_is_empty(&worker->open_sessions))
		return false;
	for (unsigned i = 0; i < worker->listener_count; i++) {
		if (!listener_is_closed(&worker->listeners[i]))
			return false;
	}
	return router_is_closed(worker->router) && !worker->log_op.in_flight;
}

static void worker_on_wake(struct op *op, int32_t result, uint32_t flags)
{
	struct worker *worker = OWNER_OF(op, struct worker, wake_op);

	(void)result;
	(void)flags;
	worker_drain_now(worker);
}

static void worker_await_signal(struct worker *worker)
{
	loop_read(worker->loop, &worker->signal_op, worker->signal_fd, &worker->signal,
		sizeof(worker->signal));
}

static void worker_signal_done(struct op *op, int32_t result, uint32_t flags)
{
	struct worker *worker = OWNER_OF(op, struct worker, signal_op);

	(void)flags;
	if (result == (int32_t)sizeof(worker->signal))
		worker->shared->on_signal(worker->shared->owner, (int)worker->signal.ssi_signo);
	worker_await_signal(worker);
}

void worker_drain(struct worker *worker)
{
	uint64_t one = 1;
	ssize_t written = write(worker->wake_fd, &one, sizeof(one));

	(void)written; /* it cannot fail: nobody else writes */
}

/* The beginning. */

static int worker_create_sessions(struct worker *worker)
{
	const struct policy *policy = worker->shared->policy;
	unsigned connections = policy->max_sessions;
	int rc;

	for (unsigned i = 0; i < policy->send_connector_count; i++)
		connections += (unsigned)policy->send_connectors[i].max_connections;
	rc = conn_net_create(&worker->net, worker->loop, connections, BULK_BUFFERS,
		worker->shared->ktls_support);
	if (rc == 0)
		rc = pool_create(
			&worker->sessions, policy->max_sessions, sizeof(struct worker_session), 64);
	return rc;
}

static int worker_create_tls(struct worker *worker)
{
	const struct policy *policy = worker->shared->policy;
	char error[512] = "no memory";
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < policy->receive_connector_count; i++) {
		const struct receive_connector *connector = &policy->receive_connectors[i];
		const struct tls_context_options options = {.settings = &connector->tls_settings,
			.is_server = true,
			.client_certificate = connector->client_certificate,
			.name = connector->name,
			.trust = worker->shared->trusts->receive[i]};

		if (connector->tls != TLS_MODE_NONE)
			rc = tls_context_create(
				&options, &worker->tls_contexts[i], error, sizeof(error));
		if (rc < 0)
			(void)fprintf(stderr, "%s:%u: receive-connector \"%s\": %s\n", policy->file,
				connector->line, connector->name, error);
	}
	if (rc == 0)
		rc = router_create(&(const struct router_options){.policy = policy,
					   .trusts = worker->shared->trusts,
					   .net = &worker->net,
					   .worker_id = worker->index},
			stderr, &worker->router);
	return rc;
}

static int worker_create_listeners(struct worker *worker)
{
	const struct policy *policy = worker->shared->policy;
	unsigned at = 0;
	int rc = 0;

	for (unsigned i = 0; i < policy->receive_connector_count; i++) {
		const struct receive_connector *connector = &policy->receive_connectors[i];

		for (unsigned j = 0; rc == 0 && j < connector->binding_count; j++) {
			struct listener *listener = &worker->listeners[at++];

			listener->owner = worker;
			listener->on_accept = worker_on_accept;
			rc = worker->index == 0 ? listener_probe(connector, &connector->bindings[j])
						: 0;
			if (rc == 0)
				rc = listener_create(listener, connector, &connector->bindings[j]);
		}
	}
	return rc;
}

static int worker_allocate(struct worker *worker)
{
	const struct policy *policy = worker->shared->policy;

	for (unsigned i = 0; i < policy->receive_connector_count; i++)
		worker->listener_count += policy->receive_connectors[i].binding_count;
	worker->listeners = calloc(worker->listener_count, sizeof(*worker->listeners));
	worker->tls_contexts =
		calloc(policy->receive_connector_count + 1, sizeof(*worker->tls_contexts));
	worker->log_filling = calloc(1, sizeof(*worker->log_filling));
	worker->log_writing = calloc(1, sizeof(*worker->log_writing));
	if (worker->listeners == NULL || worker->tls_contexts == NULL ||
		worker->log_filling == NULL || worker->log_writing == NULL)
		return -ENOMEM;
	for (unsigned i = 0; i < worker->listener_count; i++)
		worker->listeners[i].fd = -1;
	worker->wake_fd = eventfd(0, EFD_CLOEXEC);
	return worker->wake_fd < 0 ? -errno : 0;
}

int worker_create(unsigned index, const struct worker_shared *shared, struct worker **out)
{
	struct worker *worker = calloc(1, sizeof(*worker));
	int rc;

	if (worker == NULL)
		return -ENOMEM;
	worker->index = index;
	worker->shared = shared;
	worker->world =
		(struct session_world){.policy = shared->policy, .trusts = shared->trusts};
	worker->wake_fd = -1;
	worker->wake_op.done = worker_on_wake;
	worker->log_op.done = worker_log_done;
	worker->signal_fd = -1;
	worker->signal_op.done = worker_signal_done;
	link_init(&worker->open_sessions);
	timer_init(&worker->drain_timer, worker_drain_expired);
	rc = worker_allocate(worker);
	if (rc == 0)
		rc = worker_create_listeners(worker);
	if (rc == 0)
		rc = worker_create_tls(worker);
	if (rc < 0) {
		worker_destroy(&worker);
		return rc;
	}
	*out = worker;
	return 0;
}

/* What belongs to the ring is made on its own thread: a ring has a single issuer. */
static int worker_open(struct worker *worker)
{
	int rc = loop_create(worker->shared->caps, RING_ENTRIES, &worker->loop);

	if (rc < 0) {
		log_event(LOG_LEVEL_ERROR, NULL, "stop", "worker=%u why=%s", worker->index,
			loop_why_not(-rc));
		return rc;
	}
	rc = worker_create_sessions(worker);
	if (rc == 0)
		rc = router_open(worker->router);
	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < worker->listener_count; i++)
		listener_start(&worker->listeners[i], worker->loop);
	loop_read(worker->loop, &worker->wake_op, worker->wake_fd, &worker->wake_value,
		sizeof(worker->wake_value));
	if (worker->signal_fd >= 0)
		worker_await_signal(worker);
	return 0;
}

/* Tickets and sessions end with the lists or the policy that they were given under. */
static void worker_refresh_tls(struct worker *worker)
{
	const struct policy *policy = worker->shared->policy;
	uint64_t generation = worker->shared->trusts->generation;

	for (unsigned i = 0; i < policy->receive_connector_count; i++) {
		if (worker->tls_contexts[i].ctx != NULL)
			tls_context_refresh(&worker->tls_contexts[i], generation);
	}
	router_refresh_tls(worker->router);
}

static void *worker_main(void *arg)
{
	struct worker *worker = arg;

	stats_mine = &worker->stats;
	worker->result = worker_open(worker);
	if (worker->result == 0)
		worker->shared->on_open(worker->shared->owner);
	log_attach(worker->log_filling);
	while (worker->result == 0 && !worker_is_done(worker)) {
		worker_refresh_tls(worker);
		worker->result = loop_turn(worker->loop);
		worker_log_flush(worker);
	}
	worker_log_finish(worker);
	if (worker->result < 0)
		log_event(LOG_LEVEL_ERROR, NULL, "stop", "worker=%u why=\"%s\"", worker->index,
			strerror(-worker->result));
	/* Whoever watches the process must not take a dead worker for an idle one. */
	if (worker->result < 0)
		(void)kill(getpid(), SIGTERM);
	return NULL;
}

int worker_run(struct worker *worker, int signal_fd)
{
	worker->signal_fd = signal_fd;
	(void)worker_main(worker);
	return worker->result;
}

int worker_start(struct worker *worker)
{
	return -pthread_create(&worker->thread, NULL, worker_main, worker);
}

int worker_join(struct worker *worker)
{
	int rc = pthread_join(worker->thread, NULL);

	return rc != 0 ? -rc : worker->result;
}

void worker_destroy(struct worker **out)
{
	struct worker *worker = *out;
	const struct policy *policy;

	if (worker == NULL)
		return;
	*out = NULL;
	if (worker->result < 0)
		return; /* its sessions are as they were when the ring broke: the process ends */
	policy = worker->shared->policy;
	for (unsigned i = 0; worker->listeners != NULL && i < worker->listener_count; i++)
		listener_destroy(&worker->listeners[i]);
	router_destroy(&worker->router);
	for (unsigned i = 0; worker->tls_contexts != NULL && i < policy->receive_connector_count;
		i++)
		tls_context_destroy(&worker->tls_contexts[i]);
	if (worker->loop != NULL) {
		loop_destroy(&worker->loop);
		pool_destroy(&worker->sessions);
		conn_net_destroy(&worker->net);
	}
	if (worker->wake_fd >= 0)
		(void)close(worker->wake_fd);
	free(worker->listeners);
	free(worker->tls_contexts);
	free(worker->log_filling);
	free(worker->log_writing);
	free(worker);
}
