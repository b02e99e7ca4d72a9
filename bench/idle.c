/* SPDX-License-Identifier: Apache-2.0 */

/*
 * idle.c: opens many sessions, keeps them silent, and tells what they cost the server.
 *
 * Each session goes through TLS and EHLO, then nothing is sent for --hold seconds. The server's
 * memory is read from /proc before the first session, when all are open, and at the end of the
 * silence; so is the kernel's: TCP buffers from /proc/net/sockstat, its objects (sockets, epoll)
 * from "Slab" of /proc/meminfo, and in both of them both ends of a loopback connection count. At
 * the end a NOOP shows which sessions are alive, and QUIT closes them.
 */

#include "bench/common/client.h"
#include "bench/common/options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

/* Sessions from one source address, well below the ephemeral ports of one (28,232). */
#define IDLE_PER_ADDRESS 8000

/* Handshakes at a time, so that no listen queue overflows. */
#define IDLE_OPENING_MAX 64

#define IDLE_TLS_UNSET 99

struct idle_config {
	struct client_plan plan;
	struct wire_tls tls;
	unsigned int tls_choice; /* enum client_tls, or IDLE_TLS_UNSET */
	uint64_t sessions;
	uint64_t hold_seconds;
	uint64_t seconds;
	uint64_t pid;
	bool is_json;
};

enum idle_state {
	IDLE_UNUSED,
	IDLE_OPENING,
	IDLE_OPEN,   /* EHLO is done */
	IDLE_ASKED,  /* NOOP is sent */
	IDLE_ALIVE,  /* and answered */
	IDLE_FAILED, /* did not open, or was closed by the server */
};

struct idle_session {
	struct client client;
	enum idle_state state;
};

struct idle {
	const struct idle_config *config;
	struct idle_session *sessions;
	int epoll;
	uint64_t begun;   /* sessions that were tried */
	uint64_t opening; /* of these, on their way */
	uint64_t open;    /* EHLO is done; counted once */
	uint64_t asked;   /* NOOP sent, reply not here yet */
	uint64_t alive;
	uint64_t failed;
	uint64_t end_ms;
	struct wire_facts tls;
};

struct idle_memory {
	uint64_t rss_kb;    /* of the server */
	uint64_t socket_kb; /* buffers of all TCP sockets of the machine */
	uint64_t slab_kb;   /* all objects of the kernel */
};

static uint64_t idle_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* The number behind key in a file of /proc, in which the key may lie anywhere; or 0. */
static uint64_t idle_proc_number(const char *path, const char *key)
{
	FILE *file = fopen(path, "re");
	uint64_t value = 0;
	char line[512];
	char *found;

	if (file == NULL)
		return 0;
	while (value == 0 && fgets(line, sizeof(line), file) != NULL) {
		found = strstr(line, key);
		if (found != NULL)
			value = strtoull(found + strlen(key), NULL, 10);
	}
	(void)fclose(file);
	return value;
}

static struct idle_memory idle_measure(const struct idle_config *config)
{
	struct idle_memory memory;
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%" PRIu64 "/status", config->pid);
	memory.rss_kb = config->pid != 0 ? idle_proc_number(path, "VmRSS:") : 0;
	memory.socket_kb = idle_proc_number("/proc/net/sockstat", " mem ") *
			   (uint64_t)sysconf(_SC_PAGESIZE) / 1024;
	memory.slab_kb = idle_proc_number("/proc/meminfo", "Slab:");
	return memory;
}

static void idle_fail(struct idle *idle, struct idle_session *session, const char *why, int code)
{
	if (idle->failed++ == 0)
		(void)fprintf(stderr, "idle: %s: %s\n", why,
			code == -EPROTO ? wire_error()
			: code < 0      ? strerror(-code)
					: "refused by the server");
	if (session->state == IDLE_OPENING)
		idle->opening--;
	if (session->state == IDLE_ASKED)
		idle->asked--;
	session->state = IDLE_FAILED;
	client_close(&session->client);
}

static void idle_begin(struct idle *idle)
{
	struct idle_session *session = &idle->sessions[idle->begun];
	struct sockaddr_in source = {.sin_family = AF_INET};
	int rc;

	source.sin_addr.s_addr =
		htonl(INADDR_LOOPBACK + (uint32_t)(idle->begun / IDLE_PER_ADDRESS));
	idle->begun++;
	idle->opening++;
	session->state = IDLE_OPENING;
	rc = client_begin(&session->client, &idle->config->plan, &source, idle->epoll, session);
	if (rc < 0)
		idle_fail(idle, session, "connect", rc);
}

static void idle_drive(struct idle *idle, struct idle_session *session)
{
	enum client_state state = client_drive(&session->client);

	if (state == CLIENT_FAILED) {
		idle_fail(idle, session, session->client.why, session->client.code);
	} else if (state == CLIENT_READY) {
		wire_facts(&session->client.wire, &idle->tls);
		session->state = IDLE_OPEN;
		idle->opening--;
		idle->open++;
	}
}

/* Input on an open session: the reply to NOOP, TLS tickets, or the server's goodbye. */
static void idle_read(struct idle *idle, struct idle_session *session)
{
	int rc;

	do {
		rc = client_receive(&session->client);
	} while (rc > 0 && session->client.may_read);
	if (rc < 0 && rc != -EAGAIN) {
		idle_fail(idle, session, "connection", rc);
		return;
	}
	rc = client_next_reply(&session->client);
	if (rc == 250 && session->state == IDLE_ASKED) {
		session->state = IDLE_ALIVE;
		idle->asked--;
		idle->alive++;
	} else if (rc != -EAGAIN) {
		idle_fail(idle, session, "reply", rc);
	}
}

static void idle_wait(struct idle *idle, int timeout_ms)
{
	struct epoll_event events[64];
	int count = epoll_wait(idle->epoll, events, 64, timeout_ms);

	for (int i = 0; i < count; i++) {
		struct idle_session *session = events[i].data.ptr;

		session->client.may_read = true;
		if (session->state == IDLE_OPENING)
			idle_drive(idle, session);
		else if (session->state != IDLE_FAILED)
			idle_read(idle, session);
		client_poll(&session->client, idle->epoll, session);
	}
}

static void idle_open_all(struct idle *idle)
{
	while ((idle->begun < idle->config->sessions || idle->opening > 0) &&
		idle_now_ms() < idle->end_ms) {
		while (idle->begun < idle->config->sessions && idle->opening < IDLE_OPENING_MAX)
			idle_begin(idle);
		idle_wait(idle, 200);
	}
}

static void idle_hold(struct idle *idle)
{
	uint64_t end_ms = idle_now_ms() + idle->config->hold_seconds * 1000;

	for (uint64_t now = idle_now_ms(); now < end_ms; now = idle_now_ms())
		idle_wait(idle, end_ms - now > 200 ? 200 : (int)(end_ms - now));
}

/* NOOP and its reply on each session, some at a time; then QUIT, whose reply nobody reads. */
static void idle_ask_all(struct idle *idle)
{
	uint64_t next = 0;

	while ((next < idle->begun || idle->asked > 0) && idle_now_ms() < idle->end_ms) {
		while (next < idle->begun && idle->asked < IDLE_OPENING_MAX) {
			struct idle_session *session = &idle->sessions[next++];

			if (session->state != IDLE_OPEN)
				continue;
			session->state = IDLE_ASKED;
			idle->asked++;
			client_say(&session->client, "NOOP\r\n");
			if (client_flush(&session->client) < 0)
				idle_fail(idle, session, "NOOP", -EPIPE);
		}
		if (idle->asked > 0)
			idle_wait(idle, 200);
	}
	for (uint64_t i = 0; i < idle->begun; i++) {
		struct idle_session *session = &idle->sessions[i];

		if (session->state != IDLE_ALIVE)
			continue;
		client_say(&session->client, "QUIT\r\n");
		(void)client_flush(&session->client);
	}
}

/* Bytes for each session by which a figure in KiB has grown. */
static int64_t idle_each(const struct idle *idle, uint64_t before_kb, uint64_t now_kb)
{
	int64_t grown = (int64_t)now_kb - (int64_t)before_kb;

	return idle->open > 0 ? grown * 1024 / (int64_t)idle->open : 0;
}

static void idle_print(const struct idle *idle, const struct idle_memory *before,
	const struct idle_memory *open, const struct idle_memory *held, uint64_t open_ms)
{
	int64_t each = idle_each(idle, before->rss_kb, held->rss_kb);
	int64_t whole = idle_each(idle, 0, held->rss_kb);
	int64_t socket = idle_each(idle, before->socket_kb, held->socket_kb);
	int64_t slab = idle_each(idle, before->slab_kb, held->slab_kb);

	if (idle->config->is_json) {
		(void)printf("{\"sessions\":%" PRIu64 ",\"alive\":%" PRIu64 ",\"failed\":%" PRIu64
			     ",\"open_ms\":%" PRIu64 ",\"tls\":\"%s\",\"cipher\":\"%s\"",
			idle->open, idle->alive, idle->failed, open_ms, idle->tls.version,
			idle->tls.cipher);
		(void)printf(",\"rss_before_kb\":%" PRIu64 ",\"rss_open_kb\":%" PRIu64
			     ",\"rss_held_kb\":%" PRIu64,
			before->rss_kb, open->rss_kb, held->rss_kb);
		(void)printf(",\"rss_bytes_per_session\":%" PRId64
			     ",\"rss_total_bytes_per_session\":%" PRId64
			     ",\"socket_bytes_per_session\":%" PRId64
			     ",\"slab_bytes_per_session\":%" PRId64 "}\n",
			each, whole, socket, slab);
		return;
	}
	(void)printf("sessions      %" PRIu64 " open after %.1f s (%s %s), %" PRIu64 " failed\n",
		idle->open, (double)open_ms / 1000, idle->tls.version, idle->tls.cipher,
		idle->failed);
	(void)printf("alive         %" PRIu64 " answered NOOP after %" PRIu64 " s of silence\n",
		idle->alive, idle->config->hold_seconds);
	(void)printf("server RSS    %" PRIu64 " KiB before, %" PRIu64 " KiB open, %" PRIu64
		     " KiB held\n",
		before->rss_kb, open->rss_kb, held->rss_kb);
	(void)printf("per session   %" PRId64 " bytes grown, %" PRId64
		     " bytes with all that was there\n",
		each, whole);
	(void)printf("kernel        %" PRId64 " bytes of TCP buffers, %" PRId64
		     " of objects a connection (both ends)\n",
		socket, slab);
}

static int idle_run(const struct idle_config *config)
{
	struct idle idle = {.config = config, .tls = {.version = "none", .cipher = "none"}};
	uint64_t begun_ms = idle_now_ms();
	struct idle_memory before = idle_measure(config);
	struct idle_memory open;
	struct idle_memory held;
	uint64_t open_ms;

	idle.end_ms = begun_ms + (config->seconds + config->hold_seconds) * 1000;
	idle.epoll = epoll_create1(EPOLL_CLOEXEC);
	/* calloc leaves the pages of the buffers untouched until they are used. */
	idle.sessions = calloc(config->sessions, sizeof(*idle.sessions));
	if (idle.sessions == NULL || idle.epoll < 0) {
		(void)fprintf(stderr, "idle: out of memory\n");
		free(idle.sessions);
		return 1;
	}
	idle_open_all(&idle);
	open_ms = idle_now_ms() - begun_ms;
	open = idle_measure(config);
	idle_hold(&idle);
	held = idle_measure(config);
	idle_ask_all(&idle);
	for (uint64_t i = 0; i < idle.begun; i++)
		client_close(&idle.sessions[i].client);
	idle_print(&idle, &before, &open, &held, open_ms);
	free(idle.sessions);
	return idle.alive == config->sessions ? 0 : 1;
}

static const char idle_usage[] =
	"usage: idle --connect ADDRESS:PORT --plain|--starttls|--implicit-tls [OPTION]...\n"
	"  --cert FILE --key FILE   certificate to show, and its key\n"
	"  --ca FILE                check the server's certificate against these\n"
	"  --name HOST              and that it has this name\n"
	"  --tls-version 1.2|1.3    this version only\n"
	"  --sessions N             to open (10000)\n"
	"  --hold N                 seconds of silence (5)\n"
	"  --seconds N              for all the rest, at most (120)\n"
	"  --pid PID                of the server, whose memory is read\n"
	"  --json                   print one line of JSON\n"
	"Exit status: 0 all sessions lived to the end, 1 some did not, 2 wrong options.\n";

static void idle_options(struct idle_config *config, int argc, char **argv)
{
	const struct options_entry entries[] = {
		{"connect", OPTIONS_ADDRESS, {.address = &config->plan.to}, 0, 0},
		{"plain", OPTIONS_CHOICE, {.choice = &config->tls_choice}, CLIENT_PLAIN, 0},
		{"starttls", OPTIONS_CHOICE, {.choice = &config->tls_choice}, CLIENT_STARTTLS, 0},
		{"implicit-tls", OPTIONS_CHOICE, {.choice = &config->tls_choice}, CLIENT_IMPLICIT,
			0},
		{"cert", OPTIONS_TEXT, {.text = &config->tls.cert}, 0, 0},
		{"key", OPTIONS_TEXT, {.text = &config->tls.key}, 0, 0},
		{"ca", OPTIONS_TEXT, {.text = &config->tls.ca}, 0, 0},
		{"name", OPTIONS_TEXT, {.text = &config->plan.name}, 0, 0},
		{"tls-version", OPTIONS_TEXT, {.text = &config->tls.versions}, 0, 0},
		{"sessions", OPTIONS_NUMBER, {.number = &config->sessions}, 1, 1000000},
		{"hold", OPTIONS_NUMBER, {.number = &config->hold_seconds}, 0, 86400},
		{"seconds", OPTIONS_NUMBER, {.number = &config->seconds}, 1, 86400},
		{"pid", OPTIONS_NUMBER, {.number = &config->pid}, 1, 1ULL << 22},
		{"json", OPTIONS_FLAG, {.flag = &config->is_json}, 0, 0},
	};

	options_parse(argc, argv, entries, sizeof(entries) / sizeof(entries[0]), idle_usage);
	if (config->plan.to.sin_port == 0)
		options_wrong(idle_usage, "--connect is missing");
	if (config->tls_choice == IDLE_TLS_UNSET)
		options_wrong(idle_usage, "one of --plain, --starttls, --implicit-tls is missing");
	config->plan.tls = (enum client_tls)config->tls_choice;
}

int main(int argc, char **argv)
{
	static struct idle_config config = {
		.tls_choice = IDLE_TLS_UNSET,
		.tls = {.is_small = true},
		.sessions = 10000,
		.hold_seconds = 5,
		.seconds = 120,
	};
	int rc;

	idle_options(&config, argc, argv);
	options_raise_files(config.sessions + 100);
	/* OpenSSL writes with write(2); a peer that is gone must be an error, not the end. */
	(void)signal(SIGPIPE, SIG_IGN);
	if (config.plan.tls != CLIENT_PLAIN) {
		config.plan.ctx = wire_tls_create(&config.tls);
		if (config.plan.ctx == NULL)
			return 2;
	}
	rc = idle_run(&config);
	wire_tls_destroy(&config.plan.ctx);
	return rc;
}
