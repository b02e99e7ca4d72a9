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

#include "bench/common/clock.h"
#include "bench/common/idlers.h"
#include "bench/common/options.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define IDLE_TLS_UNSET 99

struct idle_config {
	struct client_plan plan;
	struct stream_tls tls;
	unsigned int tls_choice; /* enum client_tls, or IDLE_TLS_UNSET */
	uint64_t sessions;
	uint64_t hold_seconds;
	uint64_t seconds;
	uint64_t pid;
	bool is_json;
};

struct idle_memory {
	uint64_t rss_kb;    /* of the server */
	uint64_t socket_kb; /* buffers of all TCP sockets of the machine */
	uint64_t slab_kb;   /* all objects of the kernel */
};

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

/* Bytes for each session by which a figure in KiB has grown. */
static int64_t idle_each(const struct idlers *idlers, uint64_t before_kb, uint64_t now_kb)
{
	int64_t grown = (int64_t)now_kb - (int64_t)before_kb;

	return idlers->open > 0 ? grown * 1024 / (int64_t)idlers->open : 0;
}

static void idle_print(const struct idle_config *config, const struct idlers *idlers,
	const struct idle_memory *before, const struct idle_memory *open,
	const struct idle_memory *held, uint64_t open_ms)
{
	int64_t each = idle_each(idlers, before->rss_kb, held->rss_kb);
	int64_t whole = idle_each(idlers, 0, held->rss_kb);
	int64_t socket = idle_each(idlers, before->socket_kb, held->socket_kb);
	int64_t slab = idle_each(idlers, before->slab_kb, held->slab_kb);

	if (config->is_json) {
		(void)printf("{\"sessions\":%" PRIu64 ",\"alive\":%" PRIu64 ",\"failed\":%" PRIu64
			     ",\"open_ms\":%" PRIu64 ",\"tls\":\"%s\",\"cipher\":\"%s\"",
			idlers->open, idlers->alive, idlers->failed, open_ms, idlers->tls.version,
			idlers->tls.cipher);
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
		idlers->open, (double)open_ms / 1000, idlers->tls.version, idlers->tls.cipher,
		idlers->failed);
	(void)printf("alive         %" PRIu64 " answered NOOP after %" PRIu64 " s of silence\n",
		idlers->alive, config->hold_seconds);
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

/* Turns the loop for so long, so that whoever is closed by the server is noticed. */
static void idle_hold(struct stream_net *net, uint64_t seconds)
{
	uint64_t end_us = clock_us() + seconds * 1000000;

	while (clock_us() < end_us && loop_turn(stream_net_loop(net)) >= 0)
		;
}

static int idle_run(const struct idle_config *config, struct stream_net *net)
{
	uint64_t begun_ms = clock_us() / 1000;
	uint64_t end_ms = begun_ms + (config->seconds + config->hold_seconds) * 1000;
	struct idle_memory before = idle_measure(config);
	struct idle_memory open;
	struct idle_memory held;
	struct idlers idlers;
	uint64_t open_ms;
	bool is_good;

	/* calloc leaves pages untouched until they are used. */
	if (idlers_create(&idlers, net, &config->plan, config->sessions, 0) < 0) {
		(void)fprintf(stderr, "idle: out of memory\n");
		return 1;
	}
	idlers_open_all(&idlers, end_ms);
	open_ms = clock_us() / 1000 - begun_ms;
	open = idle_measure(config);
	idle_hold(net, config->hold_seconds);
	held = idle_measure(config);
	idlers_ask_all(&idlers, end_ms);
	idle_print(config, &idlers, &before, &open, &held, open_ms);
	is_good = idlers.alive == config->sessions;
	idlers_destroy(&idlers);
	return is_good ? 0 : 1;
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
		{"name", OPTIONS_TEXT, {.text = &config->tls.name}, 0, 0},
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
		.sessions = 10000,
		.hold_seconds = 5,
		.seconds = 120,
	};
	struct stream_net_options options = {.code = STREAM_STOCK, .is_small = true};
	struct stream_net *net = NULL;
	int rc;

	idle_options(&config, argc, argv);
	options_raise_files(config.sessions + 100);
	(void)signal(SIGPIPE, SIG_IGN);
	options.streams_max = (unsigned)config.sessions;
	options.tls = config.plan.tls != CLIENT_PLAIN ? &config.tls : NULL;
	if (stream_init(options.code) < 0 || stream_net_create(&net, &options) < 0)
		return 2;
	rc = idle_run(&config, net);
	stream_net_destroy(&net);
	return rc;
}
