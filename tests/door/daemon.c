/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/door/daemon.h"

#include "tests/e2e/relay.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The user that a relay becomes. */
#define DAEMON_USER "nobody"

static struct daemon *last_started;

static uint64_t daemon_patience_ms(void)
{
	return (uint64_t)15000 * suite.slow;
}

/* The configuration. */

static const char *daemon_file(const struct daemon *daemon, const char *suffix, char *out)
{
	char name[64];

	(void)snprintf(name, sizeof(name), "%s%s", daemon->name, suffix);
	return place_path(name, out);
}

const char *daemon_pins(const struct daemon *daemon, char out[static PLACE_PATH_BYTES])
{
	char name[64];

	(void)snprintf(name, sizeof(name), "bpf/%s", daemon->name);
	return place_path(name, out);
}

/* The folder of the lists belongs to who writes them. */
static void daemon_make_folders(const struct daemon *daemon)
{
	const struct passwd *user = getpwnam(DAEMON_USER);
	char path[PLACE_PATH_BYTES];

	case_check(user != NULL, "there is no user %s", DAEMON_USER);
	(void)daemon_file(daemon, "-lists", path);
	case_check((mkdir(path, 0750) == 0 || errno == EEXIST) &&
			   chown(path, user->pw_uid, user->pw_gid) == 0,
		"%s: %s", path, strerror(errno));
}

void daemon_begin_again(struct daemon *daemon, const struct daemon_options *options)
{
	char lists[PLACE_PATH_BYTES];
	char control[PLACE_PATH_BYTES];
	char pins[PLACE_PATH_BYTES];

	text_clear(&daemon->config);
	text_print(&daemon->config,
		"transport {\n\tfqdn = \"mx.adatum.test\"\n\tworkers = %u\n\tmax-sessions = 4000\n"
		"\tdrain-timeout = \"2s\"\n\tlog-level = %s\n\tbpf = %s\n\tbpf-pin-folder = "
		"\"%s\"\n\tpartner-lists = \"%s\"\n\tcontrol-socket = \"%s\"\n%s%s}\n",
		options->workers == 0 ? 1 : options->workers,
		options->level == NULL ? "info" : options->level, options->bpf,
		daemon_pins(daemon, pins), daemon_file(daemon, "-lists", lists),
		daemon_file(daemon, ".control", control),
		options->is_root || options->is_nobody ? "" : "\tuser = \"" DAEMON_USER "\"\n",
		options->more == NULL ? "" : options->more);
	/* Nobody sends mail, but a receive connector must know where it would go. */
	text_print(&daemon->config,
		"send-connector \"out\" {\n\tsmart-hosts = {\"127.0.0.9:9\"}\n}\n");
}

void daemon_begin(struct daemon *daemon, const struct daemon_options *options)
{
	*daemon = (struct daemon){.name = options->name == NULL ? "relay" : options->name,
		.is_nobody = options->is_nobody};
	daemon_make_folders(daemon);
	daemon_begin_again(daemon, options);
}

void daemon_connector(
	struct daemon *daemon, const char *name, const char *bindings, const char *lines)
{
	text_print(&daemon->config,
		"receive-connector \"%s\" {\n\tbindings = {%s}\n\tbanner = \"220 %s\"\n"
		"\tsend-connector = \"out\"\n\tmax-inbound-connection = unlimited\n"
		"\tmax-inbound-connection-per-source = unlimited\n"
		"\tmax-inbound-connection-percentage-per-source = 100\n"
		"\tconnection-timeout = \"1h\"\n\tconnection-inactivity-timeout = \"30m\"\n%s}\n",
		name, bindings, name, lines == NULL ? "" : lines);
}

void daemon_partner(struct daemon *daemon, const char *name, const char *list)
{
	const struct passwd *user = getpwnam(DAEMON_USER);
	char folder[PLACE_PATH_BYTES];
	char path[PLACE_PATH_BYTES + 80];
	FILE *out;

	/* The key of a certificate that nobody shows. */
	text_print(&daemon->config,
		"partner \"%s\" {\n\tdomains = {\"%s.test\"}\n\tspki-pins = {\"%064d\"}\n}\n", name,
		name, 7);
	if (list == NULL)
		return;
	(void)snprintf(
		path, sizeof(path), "%s/%s.list", daemon_file(daemon, "-lists", folder), name);
	out = fopen(path, "we");
	case_check(out != NULL && fputs("# generation 1\n", out) >= 0 && fputs(list, out) >= 0 &&
			   fclose(out) == 0 && chown(path, user->pw_uid, user->pw_gid) == 0,
		"%s: %s", path, strerror(errno));
}

static void daemon_write_config(const struct daemon *daemon)
{
	char path[PLACE_PATH_BYTES];
	FILE *out = fopen(daemon_file(daemon, ".conf", path), "we");

	case_check(out != NULL &&
			   fwrite(daemon->config.data, 1, daemon->config.len, out) ==
				   daemon->config.len &&
			   fclose(out) == 0,
		"%s: %s", path, strerror(errno));
}

/* The log. */

static void daemon_read_log(struct daemon *daemon)
{
	char path[PLACE_PATH_BYTES];
	char piece[65536];
	ssize_t len;
	int fd = open(daemon_file(daemon, ".log", path), O_RDONLY | O_CLOEXEC);

	while (fd >= 0 && (len = pread(fd, piece, sizeof(piece), (off_t)daemon->log.len)) > 0)
		text_add(&daemon->log, piece, (size_t)len);
	if (fd >= 0)
		(void)close(fd);
}

unsigned daemon_count(struct daemon *daemon, const char *words)
{
	daemon_read_log(daemon);
	return text_count_lines(&daemon->log, daemon->mark, words, NULL, 0);
}

void daemon_mark(struct daemon *daemon)
{
	daemon_read_log(daemon);
	daemon->mark = daemon->log.len;
}

/* Has it ended by itself? Then status says how. */
static bool daemon_has_ended(struct daemon *daemon, int *status)
{
	if (daemon->pid == 0 || waitpid(daemon->pid, status, WNOHANG) != daemon->pid)
		return false;
	daemon->pid = 0;
	return true;
}

const char *daemon_await(struct daemon *daemon, unsigned count, const char *words)
{
	static char line[8192];
	uint64_t until = now_ms() + daemon_patience_ms();
	unsigned found;
	int status;

	for (;;) {
		daemon_read_log(daemon);
		found = text_count_lines(&daemon->log, daemon->mark, words, line, sizeof(line));
		if (found >= count)
			return line;
		case_check(!daemon_has_ended(daemon, &status),
			"the relay ended, waiting for \"%s\"", words);
		case_check(now_ms() < until, "log has %u of %u lines with \"%s\"", found, count,
			words);
		pause_ms(5);
	}
}

const char *daemon_value(const char *line, const char *key, char *out, size_t out_bytes)
{
	char label[64];
	const char *at;

	(void)snprintf(label, sizeof(label), " %s=", key);
	at = strstr(line, label);
	out[0] = '\0';
	if (at == NULL)
		return out;
	at += strlen(label);
	if (*at == '"')
		(void)snprintf(out, out_bytes, "%.*s", (int)strcspn(at + 1, "\""), at + 1);
	else
		(void)snprintf(out, out_bytes, "%.*s", (int)strcspn(at, " "), at);
	return out;
}

const char *daemon_stats(struct daemon *daemon)
{
	unsigned before = daemon_count(daemon, "event=stats");

	(void)kill(daemon->pid, SIGUSR1);
	return daemon_await(daemon, before + 1, "event=stats");
}

unsigned long daemon_stat(const char *stats, const char *name)
{
	char value[32];

	return strtoul(daemon_value(stats, name, value, sizeof(value)), NULL, 10);
}

/* What suite.c wants to know of a relay. */

void relay_show_log(void)
{
	if (last_started == NULL)
		return;
	pause_ms(100);
	daemon_read_log(last_started);
	if (last_started->log.len > 0)
		(void)fprintf(stderr, "%s", last_started->log.data);
}

void relay_kill(void)
{
	/* The namespace of processes ends with the case, and everything in it. */
}

/* The process. */

static _Noreturn void daemon_exec(const struct daemon *daemon)
{
	const char *program = daemon->program == NULL ? suite.postern : daemon->program;
	char path[PLACE_PATH_BYTES];
	int null = open("/dev/null", O_RDWR);
	int log = open(
		daemon_file(daemon, ".log", path), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);

	(void)dup2(null, STDIN_FILENO);
	(void)dup2(null, STDOUT_FILENO);
	(void)dup2(log, STDERR_FILENO);
	if (daemon->is_nobody) {
		const struct passwd *user = getpwnam(DAEMON_USER);

		if (setgroups(0, NULL) < 0 || setgid(user->pw_gid) < 0 || setuid(user->pw_uid) < 0)
			_exit(126);
	}
	(void)execl(program, program, "--config", daemon_file(daemon, ".conf", path), (char *)NULL);
	_exit(126);
}

int daemon_try(struct daemon *daemon)
{
	uint64_t until = now_ms() + 4 * daemon_patience_ms();
	int status = 0;

	daemon_write_config(daemon);
	daemon_mark(daemon);
	last_started = daemon;
	daemon->pid = fork();
	case_check(daemon->pid >= 0, "no process for the relay");
	if (daemon->pid == 0)
		daemon_exec(daemon);
	while (daemon_count(daemon, "event=ready") == 0) {
		if (daemon_has_ended(daemon, &status)) {
			daemon_read_log(daemon);
			case_check(WIFEXITED(status), "the relay was killed by signal %d",
				WTERMSIG(status));
			case_check(WEXITSTATUS(status) != 0, "the relay ended with 0");
			return WEXITSTATUS(status);
		}
		case_check(now_ms() < until, "the relay is not ready in time");
		pause_ms(5);
	}
	return 0;
}

void daemon_start(struct daemon *daemon)
{
	int status = daemon_try(daemon);

	case_check(status == 0, "the relay does not start (%d): %.900s", status,
		daemon->log.len == 0 ? "" : daemon->log.data + daemon->mark);
}

static int daemon_end(struct daemon *daemon, int signal)
{
	uint64_t until = now_ms() + 2 * daemon_patience_ms();
	int status = 0;

	case_check(daemon->pid > 0 && kill(daemon->pid, signal) == 0, "the relay is not running");
	while (!daemon_has_ended(daemon, &status)) {
		case_check(now_ms() < until, "the relay does not end after signal %d", signal);
		pause_ms(2);
	}
	return status;
}

void daemon_stop(struct daemon *daemon)
{
	int status = daemon_end(daemon, SIGTERM);

	case_check(!WIFSIGNALED(status), "the relay was killed by signal %d", WTERMSIG(status));
	case_check(WEXITSTATUS(status) == 0, "the relay's exit status is %d", WEXITSTATUS(status));
}

void daemon_kill(struct daemon *daemon)
{
	(void)daemon_end(daemon, SIGKILL);
}

bool daemon_reload(struct daemon *daemon)
{
	char result[32];
	unsigned before = daemon_count(daemon, "event=reload");

	daemon_write_config(daemon);
	(void)kill(daemon->pid, SIGHUP);
	(void)daemon_value(
		daemon_await(daemon, before + 1, "event=reload"), "result", result, sizeof(result));
	return strcmp(result, "ok") == 0;
}

/* What it costs. */

unsigned long daemon_memory_kb(const struct daemon *daemon, const char *key)
{
	char path[64];
	char line[256];
	unsigned long kb = 0;
	FILE *in;

	(void)snprintf(path, sizeof(path), "/proc/%d/status", (int)daemon->pid);
	in = fopen(path, "re");
	while (in != NULL && fgets(line, sizeof(line), in) != NULL) {
		if (strncmp(line, key, strlen(key)) == 0)
			kb = strtoul(line + strlen(key), NULL, 10);
	}
	if (in != NULL)
		(void)fclose(in);
	return kb;
}

/* From the scheduler, to the nanosecond: schedstat of each thread. */
uint64_t daemon_cpu_us(const struct daemon *daemon)
{
	clockid_t clock;
	struct timespec used = {0};

	if (clock_getcpuclockid(daemon->pid, &clock) == 0)
		(void)clock_gettime(clock, &used);
	return (uint64_t)used.tv_sec * 1000000 + (uint64_t)used.tv_nsec / 1000;
}
