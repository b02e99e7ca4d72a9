/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/daemon.h"

#include "tests/crash/ledger.h"
#include "tests/crash/model.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DAEMON_PATH_BYTES 512
#define DAEMON_START_MS 60000
#define DAEMON_STOP_MS 60000

static pid_t daemon_pid;

static void daemon_wait_ms(unsigned ms)
{
	const struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};

	(void)nanosleep(&time, NULL);
}

uint16_t daemon_free_port(void)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(at);
	int fd;

	/* Not one of those that the kernel gives to clients: it is used again and again. */
	for (unsigned tries = 0; tries < 1000; tries++) {
		uint64_t lot = letter_lot((uint64_t)getpid(), ledger_now_us());

		at.sin_port = htons((uint16_t)(20000 + lot % 12000));
		fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd >= 0 && bind(fd, (struct sockaddr *)&at, len) == 0) {
			(void)close(fd);
			return ntohs(at.sin_port);
		}
		(void)close(fd);
	}
	abort();
}

static bool daemon_write_config(const struct daemon_options *options, const char *path)
{
	bool is_queue = strcmp(options->deliver, "queue") == 0;
	FILE *out = fopen(path, "we");

	if (out == NULL)
		return false;
	(void)fprintf(out,
		"transport {\n\tfqdn = \"mx.adatum.test\"\n\tworkers = %u\n\tmax-sessions = 1000\n"
		"\tdrain-timeout = \"2s\"\n\tbpf = off\n",
		options->workers);
	if (is_queue)
		(void)fprintf(out,
			"\tspool-folder = \"%s\"\n\tspool-segment-size = \"4MB\"\n"
			"\tqueue-glitch-retry-interval = \"1s\"\n"
			"\ttransient-failure-retry-interval = \"1s\"\n"
			"\toutbound-connection-failure-retry-interval = \"1s\"\n"
			"\tmessage-retry-interval = \"1s\"\n",
			options->spool);
	(void)fprintf(out,
		"%s}\nreceive-connector \"in\" {\n\tbindings = {\"127.0.0.1:%u\"}\n"
		"\tdeliver = %s\n%s%s%s\tsend-connector = \"out\"\n\ttarpit-interval = \"0s\"\n"
		"\tmessage-rate-limit = unlimited\n\tmax-inbound-connection = unlimited\n"
		"\tmax-inbound-connection-per-source = unlimited\n"
		"\tmax-inbound-connection-percentage-per-source = 100\n}\n"
		"send-connector \"out\" {\n\tsmart-hosts = {\"127.0.0.1:%u\"}\n"
		"\ttls-auth-level = none\n\tmax-connections = 20\n}\n",
		options->transport == NULL ? "" : options->transport, options->port,
		options->deliver, options->durability == NULL ? "" : "\tdurability = ",
		options->durability == NULL ? "" : options->durability,
		options->durability == NULL ? "" : "\n", options->sink_port);
	return fclose(out) == 0;
}

static _Noreturn void daemon_exec(
	const struct daemon_options *options, const char *config, const char *log)
{
	int null = open("/dev/null", O_RDWR);
	int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)dup2(null, STDIN_FILENO);
	(void)dup2(null, STDOUT_FILENO);
	(void)dup2(fd, STDERR_FILENO);
	if (options->model != NULL) {
		(void)execl("/proc/self/exe", "crash", MODEL_WORD, options->model, config,
			options->spool, (char *)NULL);
	} else {
		(void)execl(options->postern, options->postern, "--config", config, (char *)NULL);
	}
	_exit(126);
}

bool daemon_has_ended(void)
{
	return daemon_pid > 0 && waitpid(daemon_pid, NULL, WNOHANG) == daemon_pid;
}

/* Has the log this word behind that place? */
static bool daemon_log_has(const char *log, off_t from, const char *word)
{
	char bytes[16384];
	int fd = open(log, O_RDONLY | O_CLOEXEC);
	ssize_t count;
	bool has = false;

	if (fd < 0)
		return false;
	while (!has && (count = pread(fd, bytes, sizeof(bytes) - 1, from)) > 0) {
		bytes[count] = '\0';
		has = strstr(bytes, word) != NULL;
		/* The word may lie across the border. */
		from += count > 64 && !has ? count - 64 : count;
	}
	(void)close(fd);
	return has;
}

static off_t daemon_log_bytes(const char *log)
{
	int fd = open(log, O_RDONLY | O_CLOEXEC);
	off_t bytes;

	if (fd < 0)
		return 0;
	bytes = lseek(fd, 0, SEEK_END);
	(void)close(fd);
	return bytes < 0 ? 0 : bytes;
}

bool daemon_start(const struct daemon_options *options)
{
	char config[DAEMON_PATH_BYTES];
	char log[DAEMON_PATH_BYTES];
	uint64_t until_us = ledger_now_us() + (uint64_t)DAEMON_START_MS * 1000;
	off_t from;

	(void)snprintf(config, sizeof(config), "%s/postern.conf", options->dir);
	(void)snprintf(log, sizeof(log), "%s/postern.log", options->dir);
	from = daemon_log_bytes(log);
	if (!daemon_write_config(options, config)) {
		(void)fprintf(stderr, "crash: %s: %s\n", config, strerror(errno));
		return false;
	}
	daemon_pid = fork();
	if (daemon_pid == 0)
		daemon_exec(options, config, log);
	while (!daemon_log_has(log, from, "event=ready")) {
		if (daemon_has_ended()) {
			(void)fprintf(stderr, "crash: the relay does not start: see %s\n", log);
			daemon_pid = 0;
			return false;
		}
		if (ledger_now_us() > until_us) {
			(void)fprintf(
				stderr, "crash: the relay is not ready in time: see %s\n", log);
			daemon_kill();
			return false;
		}
		daemon_wait_ms(1);
	}
	return true;
}

void daemon_kill(void)
{
	if (daemon_pid <= 0)
		return;
	(void)kill(daemon_pid, SIGKILL);
	(void)waitpid(daemon_pid, NULL, 0);
	daemon_pid = 0;
}

bool daemon_stop(void)
{
	uint64_t until_us = ledger_now_us() + (uint64_t)DAEMON_STOP_MS * 1000;
	int status = 0;

	(void)kill(daemon_pid, SIGTERM);
	while (waitpid(daemon_pid, &status, WNOHANG) == 0) {
		if (ledger_now_us() > until_us) {
			daemon_kill();
			return false;
		}
		daemon_wait_ms(2);
	}
	daemon_pid = 0;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}
