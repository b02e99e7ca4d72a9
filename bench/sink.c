/* SPDX-License-Identifier: Apache-2.0 */

/*
 * sink.c: a next hop that accepts all mail, throws it away, and counts; see server.h.
 *
 * The main thread accepts and deals the connections out in turn; each worker thread has an
 * epoll and a TLS context of its own. SIGUSR1 prints the counters as one line of JSON, SIGTERM
 * and SIGINT print them and end.
 */

#include "bench/common/options.h"
#include "bench/common/server.h"
#include "bench/common/wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Four records; what OpenSSL has read ahead is taken with four calls. */
#define SINK_READ_BYTES 65536

#define SINK_THREADS_MAX 64

struct sink_config {
	struct sockaddr_in listen;
	struct wire_tls tls;
	struct server_policy policy;
	uint64_t threads;
	uint64_t delay_ms;
	uint64_t tickets;
	bool is_implicit;
	bool has_no_chunking;
	bool has_no_starttls;
};

struct sink_session {
	struct wire wire;
	struct server server;
	struct sink_worker *worker;
	struct sink_session *delay_next;
	uint64_t due_ms;
	bool is_handshaking;
	uint32_t polled; /* what epoll was told last */
	char *held;      /* input that came while the reply was held back */
	size_t held_bytes;
};

struct sink_worker {
	pthread_t thread;
	const struct sink_config *config;
	struct ssl_ctx_st *ctx;
	int epoll;
	struct sink_session *delay_first; /* in order of due_ms, as all wait equally long */
	struct sink_session *delay_last;
	struct server_counters counters;
	char buf[SINK_READ_BYTES];
};

static uint64_t sink_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void sink_close(struct sink_session *session)
{
	wire_close(&session->wire);
	server_fini(&session->server);
	free(session->held);
	free(session);
}

/* Sends replies: 0 all, -EAGAIN not yet, or why not. */
static int sink_flush(struct sink_session *session)
{
	struct server *server = &session->server;

	while (server->out_at < server->out_bytes) {
		ssize_t sent = wire_send(&session->wire, server->out + server->out_at,
			server->out_bytes - server->out_at);

		if (sent < 0)
			return (int)sent;
		server->out_at += (size_t)sent;
	}
	server->out_at = server->out_bytes = 0;
	return 0;
}

/* The reply to a message waits for its time, and the input behind the message with it. */
static int sink_hold(struct sink_session *session, const char *rest, size_t bytes)
{
	struct sink_worker *worker = session->worker;

	if (bytes > 0) {
		session->held = malloc(bytes);
		if (session->held == NULL)
			return -ENOMEM;
		memcpy(session->held, rest, bytes);
		session->held_bytes = bytes;
	}
	session->due_ms = sink_now_ms() + worker->config->delay_ms;
	session->delay_next = NULL;
	if (worker->delay_last != NULL)
		worker->delay_last->delay_next = session;
	else
		worker->delay_first = session;
	worker->delay_last = session;
	return 0;
}

static int sink_begin_tls(struct sink_session *session)
{
	session->is_handshaking = true;
	return wire_tls_begin(&session->wire, session->worker->ctx, true, NULL, NULL);
}

static int sink_handshake(struct sink_session *session)
{
	struct server_counters *counters = &session->worker->counters;
	bool is_implicit = session->worker->config->is_implicit;
	struct wire_facts facts;
	int rc = wire_handshake(&session->wire);

	if (rc == -EAGAIN)
		return rc;
	if (rc < 0) {
		SERVER_ADD(counters, tls_failed, 1);
		return rc;
	}
	session->is_handshaking = false;
	wire_facts(&session->wire, &facts);
	SERVER_ADD(counters, tls_sessions, 1);
	SERVER_ADD(counters, tls_resumed, facts.is_resumed);
	server_secured(&session->server);
	if (is_implicit)
		server_greet(&session->server);
	return 0;
}

/* Handles input; 0, or why the session must end. */
static int sink_feed(struct sink_session *session, const char *data, size_t bytes)
{
	size_t used = server_feed(&session->server, data, bytes);
	int rc = 0;

	switch (session->server.state) {
	case SERVER_COMMAND:
	case SERVER_DATA:
	case SERVER_CHUNK:
	case SERVER_CLOSE:
		break;
	case SERVER_HOLD:
		return sink_hold(session, data + used, bytes - used);
	case SERVER_TLS:
		/* Clear text behind STARTTLS would be taken for what TLS protects. */
		if (used < bytes)
			return -EPROTO;
		rc = sink_flush(session);
		return rc < 0 ? rc : sink_begin_tls(session);
	}
	return 0;
}

/* One step: 0 to go on, -EAGAIN to wait, or why the session must end. */
static int sink_step(struct sink_session *session)
{
	struct sink_worker *worker = session->worker;
	ssize_t got;
	int rc;

	if (session->is_handshaking)
		return sink_handshake(session);
	rc = sink_flush(session);
	if (rc < 0)
		return rc;
	if (session->server.state == SERVER_CLOSE)
		return -ECONNRESET;
	if (session->server.state == SERVER_HOLD)
		return -EAGAIN;
	got = wire_recv(&session->wire, worker->buf, sizeof(worker->buf));
	if (got <= 0)
		return got == 0 ? -ECONNRESET : (int)got;
	rc = sink_feed(session, worker->buf, (size_t)got);
	if (rc == 0)
		rc = sink_flush(session);
	if (rc < 0)
		return rc;
	/* epoll tells of more in the socket, but not of what OpenSSL has read ahead. */
	return session->is_handshaking || session->server.state == SERVER_CLOSE ||
			       wire_has_pending(&session->wire)
		       ? 0
		       : -EAGAIN;
}

static void sink_run(struct sink_session *session)
{
	struct epoll_event event = {.data.ptr = session};
	int rc;

	do {
		rc = sink_step(session);
	} while (rc == 0);
	if (rc != -EAGAIN) {
		if (session->server.state != SERVER_HOLD) {
			sink_close(session);
			return;
		}
		/* The delay queue still points here; what it finds closed it frees. */
		wire_close(&session->wire);
		session->server.state = SERVER_CLOSE;
		return;
	}
	event.events = session->server.state == SERVER_HOLD && !session->wire.wants_write
			       ? 0
			       : wire_interest(&session->wire);
	if (event.events != session->polled) {
		session->polled = event.events;
		epoll_ctl(session->worker->epoll, EPOLL_CTL_MOD, session->wire.fd, &event);
	}
}

/* Releases the replies whose time has come; returns how long to wait for the next, or -1. */
static int sink_release(struct sink_worker *worker)
{
	uint64_t now_ms = worker->delay_first != NULL ? sink_now_ms() : 0;

	while (worker->delay_first != NULL && worker->delay_first->due_ms <= now_ms) {
		struct sink_session *session = worker->delay_first;
		char *held = session->held;
		size_t held_bytes = session->held_bytes;
		int rc = 0;

		worker->delay_first = session->delay_next;
		if (worker->delay_first == NULL)
			worker->delay_last = NULL;
		session->held = NULL;
		session->held_bytes = 0;
		if (session->server.state == SERVER_HOLD) {
			server_release(&session->server);
			rc = sink_feed(session, held, held_bytes);
		}
		free(held);
		if (rc < 0)
			session->server.state = SERVER_CLOSE;
		sink_run(session);
	}
	return worker->delay_first != NULL ? (int)(worker->delay_first->due_ms - now_ms) : -1;
}

static void *sink_worker_run(void *argument)
{
	struct sink_worker *worker = argument;
	struct epoll_event events[64];

	for (;;) {
		int count = epoll_wait(worker->epoll, events, 64, sink_release(worker));

		for (int i = 0; i < count; i++)
			sink_run(events[i].data.ptr);
	}
	return NULL;
}

static void sink_accept(struct sink_worker *worker, int fd)
{
	struct sink_session *session = calloc(1, sizeof(*session));
	struct epoll_event event = {.data.ptr = session};
	int rc = 0;

	if (session == NULL) {
		close(fd);
		return;
	}
	SERVER_ADD(&worker->counters, sessions, 1);
	session->worker = worker;
	wire_accept(&session->wire, fd);
	server_init(&session->server, &worker->config->policy, &worker->counters);
	if (worker->config->is_implicit)
		rc = sink_begin_tls(session);
	else
		server_greet(&session->server);
	/* From the moment it is in epoll the session is the worker's; the first event sends. */
	event.events = session->polled = worker->config->is_implicit ? EPOLLIN : EPOLLOUT;
	if (rc < 0 || epoll_ctl(worker->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
		sink_close(session);
}

static void sink_print(const struct sink_config *config, const struct sink_worker *workers)
{
	struct rusage usage;
	uint64_t sum;

	getrusage(RUSAGE_SELF, &usage);
	(void)printf("{");
#define SINK_PRINT(name)                                                                      \
	sum = 0;                                                                              \
	for (uint64_t i = 0; i < config->threads; i++)                                        \
		sum += atomic_load_explicit(&workers[i].counters.name, memory_order_relaxed); \
	(void)printf("\"%s\":%" PRIu64 ",", #name, sum);
	SERVER_COUNTERS(SINK_PRINT)
#undef SINK_PRINT
	(void)printf("\"cpu_user_seconds\":%ld.%03ld,\"cpu_system_seconds\":%ld.%03ld}\n",
		(long)usage.ru_utime.tv_sec, (long)usage.ru_utime.tv_usec / 1000,
		(long)usage.ru_stime.tv_sec, (long)usage.ru_stime.tv_usec / 1000);
	(void)fflush(stdout);
}

/* Accepts and answers signals until one of them says stop. */
static int sink_serve(const struct sink_config *config, struct sink_worker *workers, int signals)
{
	struct sockaddr_in address = config->listen;
	struct signalfd_siginfo signal_info = {0};
	struct epoll_event event = {.events = EPOLLIN};
	char host[INET_ADDRSTRLEN];
	uint64_t next = 0;
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	int listener = wire_listen(&address);
	int fd;

	if (listener < 0 || epoll < 0) {
		(void)fprintf(stderr, "sink: cannot listen: %s\n", strerror(-listener));
		return 1;
	}
	(void)printf("listening %s:%u\n", inet_ntop(AF_INET, &address.sin_addr, host, sizeof(host)),
		ntohs(address.sin_port));
	(void)fflush(stdout);
	event.data.fd = listener;
	epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
	event.data.fd = signals;
	epoll_ctl(epoll, EPOLL_CTL_ADD, signals, &event);
	while (signal_info.ssi_signo != SIGTERM && signal_info.ssi_signo != SIGINT) {
		if (epoll_wait(epoll, &event, 1, -1) != 1)
			continue;
		if (event.data.fd == signals) {
			if (read(signals, &signal_info, sizeof(signal_info)) > 0)
				sink_print(config, workers);
			continue;
		}
		fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0)
			sink_accept(&workers[next++ % config->threads], fd);
	}
	return 0;
}

static int sink_start(struct sink_config *config, struct sink_worker *workers)
{
	for (uint64_t i = 0; i < config->threads; i++) {
		workers[i].config = config;
		workers[i].epoll = epoll_create1(EPOLL_CLOEXEC);
		if (config->tls.cert != NULL) {
			workers[i].ctx = wire_tls_create(&config->tls);
			if (workers[i].ctx == NULL)
				return -EINVAL;
		}
		if (workers[i].epoll < 0 ||
			pthread_create(&workers[i].thread, NULL, sink_worker_run, &workers[i]) != 0)
			return -ENOMEM;
	}
	return 0;
}

static const char sink_usage[] =
	"usage: sink --listen ADDRESS:PORT [OPTION]...\n"
	"  --tls-cert FILE --tls-key FILE   offer STARTTLS with this certificate\n"
	"  --client-ca FILE                 demand a client certificate from these\n"
	"  --tls-version 1.2|1.3            this version only\n"
	"  --tickets N                      of a TLS 1.3 handshake (2); 0 ends resumption\n"
	"  --implicit-tls                   TLS from the first byte\n"
	"  --no-starttls --no-chunking      do not offer it\n"
	"  --threads N                      that share the connections (1)\n"
	"  --delay-ms N                     before the reply to each message (0)\n"
	"  --verify                         check the sums of load's messages\n"
	"Port 0 is any free port; the first line printed is \"listening ADDRESS:PORT\".\n"
	"SIGUSR1 prints the counters, SIGTERM prints them and ends.\n";

static void sink_options(struct sink_config *config, int argc, char **argv)
{
	const struct options_entry entries[] = {
		{"listen", OPTIONS_ADDRESS, {.address = &config->listen}, 0, 0},
		{"tls-cert", OPTIONS_TEXT, {.text = &config->tls.cert}, 0, 0},
		{"tls-key", OPTIONS_TEXT, {.text = &config->tls.key}, 0, 0},
		{"client-ca", OPTIONS_TEXT, {.text = &config->tls.ca}, 0, 0},
		{"tls-version", OPTIONS_TEXT, {.text = &config->tls.versions}, 0, 0},
		{"tickets", OPTIONS_NUMBER, {.number = &config->tickets}, 0, 4},
		{"implicit-tls", OPTIONS_FLAG, {.flag = &config->is_implicit}, 0, 0},
		{"no-starttls", OPTIONS_FLAG, {.flag = &config->has_no_starttls}, 0, 0},
		{"no-chunking", OPTIONS_FLAG, {.flag = &config->has_no_chunking}, 0, 0},
		{"threads", OPTIONS_NUMBER, {.number = &config->threads}, 1, SINK_THREADS_MAX},
		{"delay-ms", OPTIONS_NUMBER, {.number = &config->delay_ms}, 0, 600000},
		{"verify", OPTIONS_FLAG, {.flag = &config->policy.is_verifying}, 0, 0},
	};

	options_parse(argc, argv, entries, sizeof(entries) / sizeof(entries[0]), sink_usage);
	if (config->listen.sin_family == 0)
		options_wrong(sink_usage, "--listen is missing");
	if ((config->tls.cert == NULL) != (config->tls.key == NULL))
		options_wrong(sink_usage, "--tls-cert and --tls-key belong together");
	if (config->is_implicit && config->tls.cert == NULL)
		options_wrong(sink_usage, "--implicit-tls needs --tls-cert");
	config->tls.is_server = true;
	config->tls.ticket_count = (unsigned int)config->tickets;
	config->policy.is_delaying = config->delay_ms > 0;
	config->policy.has_chunking = !config->has_no_chunking;
	config->policy.has_starttls = config->tls.cert != NULL && !config->has_no_starttls;
}

int main(int argc, char **argv)
{
	static struct sink_config config = {.threads = 1, .tickets = 2};
	struct sink_worker *workers;
	sigset_t mask;
	int signals;

	sink_options(&config, argc, argv);
	options_raise_files(20000);
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	/* Before the threads start, so that none of them takes the signals. */
	sigprocmask(SIG_BLOCK, &mask, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	workers = calloc(config.threads, sizeof(*workers));
	config.policy.ids = calloc(SERVER_IDS_MAX / 64, sizeof(*config.policy.ids));
	if (workers == NULL || config.policy.ids == NULL || signals < 0) {
		(void)fprintf(stderr, "sink: out of memory or descriptors\n");
		return 1;
	}
	if (sink_start(&config, workers) < 0)
		return 1;
	/* The workers still run when the process ends, so nothing of theirs is freed. */
	return sink_serve(&config, workers, signals);
}
