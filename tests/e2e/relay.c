/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/e2e/relay.h"

#include "tests/e2e/wire.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t relay_pid = -1;
static pthread_mutex_t relay_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t relay_logged = PTHREAD_COND_INITIALIZER;
static struct text relay_log; /* whole lines are read by the case, under the lock */
static bool relay_log_ended;

/* The log. */

static void *relay_read_log(void *arg)
{
	int fd = *(int *)arg;
	char piece[4096];
	ssize_t len;

	while ((len = read(fd, piece, sizeof(piece))) > 0 || (len < 0 && errno == EINTR)) {
		(void)pthread_mutex_lock(&relay_lock);
		if (len > 0)
			text_add(&relay_log, piece, (size_t)len);
		(void)pthread_cond_broadcast(&relay_logged);
		(void)pthread_mutex_unlock(&relay_lock);
	}
	(void)pthread_mutex_lock(&relay_lock);
	relay_log_ended = true;
	(void)pthread_cond_broadcast(&relay_logged);
	(void)pthread_mutex_unlock(&relay_lock);
	return NULL;
}

unsigned relay_count_log(const char *words)
{
	unsigned count;

	(void)pthread_mutex_lock(&relay_lock);
	count = text_count_lines(&relay_log, 0, words, NULL, 0);
	(void)pthread_mutex_unlock(&relay_lock);
	return count;
}

const char *relay_await_log(unsigned count, const char *words)
{
	static char line[4200];
	uint64_t until = now_ms() + wire_patience_ms();
	unsigned found;

	for (;;) {
		struct timespec wake;
		bool ended;

		(void)pthread_mutex_lock(&relay_lock);
		found = text_count_lines(&relay_log, 0, words, line, sizeof(line));
		ended = relay_log_ended;
		if (found < count && !ended) {
			(void)clock_gettime(CLOCK_REALTIME, &wake);
			wake.tv_sec++;
			(void)pthread_cond_timedwait(&relay_logged, &relay_lock, &wake);
		}
		(void)pthread_mutex_unlock(&relay_lock);
		if (found >= count)
			return line;
		case_check(!ended && now_ms() < until, "log has %u of %u lines with \"%s\"", found,
			count, words);
	}
}

const char *relay_log_value(const char *line, const char *key, char *out, size_t out_bytes)
{
	char label[64];
	const char *at;

	(void)snprintf(label, sizeof(label), " %s=", key);
	at = strstr(line, label);
	out[0] = '\0';
	if (at != NULL)
		(void)snprintf(out, out_bytes, "%.*s", (int)strcspn(at + strlen(label), " "),
			at + strlen(label));
	return out;
}

unsigned long relay_counter(const char *name)
{
	char value[32];
	unsigned before = relay_count_log("event=stats");

	(void)kill(relay_pid, SIGUSR1);
	return strtoul(relay_log_value(relay_await_log(before + 1, "event=stats"), name, value,
			       sizeof(value)),
		NULL, 10);
}

void relay_show_log(void)
{
	/* The last lines may still be on their way. */
	pause_ms(100);
	(void)pthread_mutex_lock(&relay_lock);
	if (relay_log.len > 0)
		(void)fprintf(stderr, "%s", relay_log.data);
	(void)pthread_mutex_unlock(&relay_lock);
}

/* The configuration. */

static const char *relay_or(const char *text, const char *otherwise)
{
	return text == NULL ? otherwise : text;
}

static void relay_write_config(const char *file, const struct relay_options *options)
{
	const char *ktls = relay_or(options->ktls, suite.is_kernel ? "on" : "off");
	const char *tls = relay_or(options->tls, "");
	const char *receive = relay_or(options->receive, "");
	const char *patient = "\tconnection-inactivity-timeout = \"5m\"\n";
	char hosts[128];
	FILE *out = fopen(file, "we");

	case_check(out != NULL, "cannot write %s", file);
	(void)snprintf(hosts, sizeof(hosts), "{\"%s:%u\"}", suite.address, options->hop_port);
	(void)fprintf(out,
		"transport {\n\tfqdn = \"mx.adatum.test\"\n\tworkers = 1\n\tmax-sessions = 64\n"
		"\tbpf = off\n"
		"\tdrain-timeout = \"5s\"\n%s}\n"
		"certificate \"own\" {\n\tchain = \"%s/adatum.pem\"\n\tkey = "
		"\"%s/adatum.key\"\n}\n",
		relay_or(options->transport, ""), suite.pki, suite.pki);
	(void)fprintf(out,
		"receive-connector \"in\" {\n\tbindings = {\"%s:%u\"}\n\ttls = starttls\n"
		"\trequire-tls = yes\n\tcertificate = \"own\"\n\tclient-certificate = require\n"
		"\ttrust-anchors = \"%s/anchors.pem\"\n\tktls = %s\n\tsend-connector = \"out\"\n"
		"\tconnection-timeout = \"1h\"\n\ttarpit-interval = \"0s\"\n"
		"\tmessage-rate-limit = unlimited\n"
		"\tmax-inbound-connection-per-source = unlimited\n"
		"\tmax-inbound-connection-percentage-per-source = 100\n%s%s%s}\n",
		suite.address, RELAY_PORT, suite.dir, ktls, tls, receive,
		strstr(receive, "connection-inactivity-timeout") != NULL ? "" : patient);
	(void)fprintf(out,
		"send-connector \"out\" {\n\tsmart-hosts = %s\n\tcertificate = \"own\"\n"
		"\ttls-auth-level = domain-validation\n\ttls-domain = \"%s\"\n"
		"\tmax-message-size = \"2GB\"\n"
		"\ttrust-anchors = \"%s/anchors.pem\"\n\tktls = %s\n\tmax-connections = "
		"16\n%s%s}\n",
		relay_or(options->hosts, hosts),
		relay_or(options->tls_domain, "mx.treyresearch.test"), suite.dir, ktls, tls,
		relay_or(options->send, ""));
	case_check(fclose(out) == 0, "cannot write %s", file);
}

/* The process. */

static _Noreturn void relay_exec(const char *config, int log_fd)
{
	int null = open("/dev/null", O_RDWR);

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)dup2(null, STDIN_FILENO);
	(void)dup2(null, STDOUT_FILENO);
	(void)dup2(log_fd, STDERR_FILENO);
	(void)execl(suite.postern, suite.postern, "--config", config, (char *)NULL);
	_exit(126);
}

void relay_start(const struct relay_options *options)
{
	static int log_fd;
	char config[256];
	int ends[2];
	pthread_t reader;

	(void)snprintf(config, sizeof(config), "%s/postern.conf", suite.dir);
	relay_write_config(config, options);
	case_check(pipe2(ends, O_CLOEXEC) == 0, "no pipe");
	relay_pid = fork();
	case_check(relay_pid >= 0, "no process for the relay");
	if (relay_pid == 0)
		relay_exec(config, ends[1]);
	(void)close(ends[1]);
	log_fd = ends[0];
	case_check(pthread_create(&reader, NULL, relay_read_log, &log_fd) == 0, "no thread");
	(void)pthread_detach(reader);
	(void)relay_await_log(1, "event=ready");
}

bool relay_is_alive(void)
{
	return relay_pid > 0 && waitpid(relay_pid, NULL, WNOHANG) == 0;
}

void relay_stop(void)
{
	uint64_t until = now_ms() + (uint64_t)2 * wire_patience_ms();
	pid_t pid = relay_pid;
	pid_t done = 0;
	int status = 0;

	case_check(pid > 0 && kill(pid, SIGTERM) == 0, "the relay is not running");
	while (done == 0 && now_ms() < until) {
		done = waitpid(pid, &status, WNOHANG);
		if (done == 0)
			pause_ms(2);
	}
	case_check(done == pid, "the relay does not end after SIGTERM");
	relay_pid = -1;
	case_check(!WIFSIGNALED(status), "the relay was killed by signal %d", WTERMSIG(status));
	case_check(WEXITSTATUS(status) == 0, "the relay's exit status is %d", WEXITSTATUS(status));
}

void relay_terminate(void)
{
	(void)kill(relay_pid, SIGTERM);
}

void relay_kill(void)
{
	if (relay_pid > 0)
		(void)kill(relay_pid, SIGKILL);
}
