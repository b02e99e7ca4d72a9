/* SPDX-License-Identifier: Apache-2.0 */

/*
 * matrix.c: runs the real relay between a client and a next hop that are stock
 * OpenSSL, one case after the other, and counts.
 *
 *   matrix --postern PATH --pki DIR [--expect kernel|user|auto] [--filter SUBSTRING]
 *          [--list] [--verbose]
 *
 * One line a case; the last line is "N passed, N failed, N skipped". Exit: 0 none
 * failed, 1 some did, 2 wrong usage.
 *
 * Environment: POSTERN_TEST_BIG_BYTES, size of the largest bodies (64 MiB);
 * POSTERN_TEST_SLOW, a factor for all time limits (1).
 */

#include "tests/e2e/case.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXIT_USAGE 2

static const struct case_table *const tables[] = {&case_tls, &case_auto, &case_body, &case_end,
	&case_rekey, &case_cert, &case_bad, &case_chunk, &case_hop, &case_pool};

static unsigned passed, failed, skipped;

/* Setting up a case. */

struct hop *case_start(const struct hop_plan *plan, const struct relay_options *options)
{
	static struct hop hop;
	struct hop_plan usual = {.tls.tickets = -1};
	struct relay_options own = {0};

	hop_start(&hop, plan == NULL ? &usual : plan);
	if (options != NULL)
		own = *options;
	own.hop_port = hop.port;
	relay_start(&own);
	return &hop;
}

void case_finish(struct hop *hop)
{
	check_serves(hop);
	relay_stop();
}

void case_check_record(const char *line)
{
	char record[128];

	(void)relay_log_value(line, "record", record, sizeof(record));
	if (suite.is_kernel)
		case_check(strcmp(record, "kernel") == 0, "record=%s, expected kernel", record);
	else
		case_check(strncmp(record, "user(", 5) == 0, "record=%s, expected user", record);
}

void case_begin_body(struct client *client, struct hop *hop, const struct text *body, bool by_bdat)
{
	const struct mail envelope = {.body = body};
	struct text stuffed = {0};

	client_begin(client, &envelope);
	if (by_bdat) {
		client_say(client, "BDAT %zu LAST", body->len);
		text_add(&stuffed, body->data, body->len);
	} else {
		client_ask(client, "DATA", "354 ");
		body_stuff(body, &stuffed);
	}
	case_check(wire_write(&client->wire, stuffed.data, stuffed.len / 2),
		"the relay does not take the body (%s)", wire_end_word(client->wire.end));
	hop_await(hop, &hop->body_seen, 1000, "bytes of the body");
	text_free(&stuffed);
}

void case_check_cut_off(struct hop *hop)
{
	hop_await(hop, &hop->cut_off, 1, "bodies cut off");
	case_check(hop_count(hop, &hop->message_count) == 0, "the next hop got a whole message");
}

/* Running one. */

static _Noreturn void matrix_child(const struct test_case *row, int report_fd)
{
	unsigned id = (unsigned)getpid();
	unsigned minutes = row->minutes_max == 0 ? 1 : row->minutes_max;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	suite.report_fd = report_fd;
	/* An address of this process's own: no port of it is in anybody's way. */
	(void)snprintf(suite.address, sizeof(suite.address), "127.%u.%u.%u", 64 + (id >> 14) % 64,
		1 + (id >> 7) % 128, 1 + id % 128);
	(void)alarm(60 * minutes * suite.slow);
	row->run(row);
	case_check(!relay_is_alive(), "the case forgot to stop its relay");
	_exit(0);
}

static void matrix_tell(const struct test_case *row, int status, const char *reason)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		passed++;
		(void)printf("ok %s\n", row->name);
	} else if (WIFEXITED(status) && WEXITSTATUS(status) == CASE_SKIPPED) {
		skipped++;
		(void)printf("skipped %s: %s\n", row->name, reason);
	} else {
		failed++;
		(void)printf("FAILED %s: %s", row->name, reason);
		if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
			(void)printf("no end in time");
		else if (WIFSIGNALED(status))
			(void)printf("the driver was killed by signal %d", WTERMSIG(status));
		(void)printf("\n");
	}
	(void)fflush(stdout);
}

static void matrix_run(const struct test_case *row)
{
	char reason[4096];
	size_t len = 0;
	ssize_t more;
	int ends[2];
	int status = 0;
	pid_t pid;

	(void)fflush(NULL);
	if (pipe2(ends, O_CLOEXEC) < 0)
		abort();
	pid = fork();
	if (pid == 0)
		matrix_child(row, ends[1]);
	(void)close(ends[1]);
	while ((more = read(ends[0], reason + len, sizeof(reason) - 1 - len)) > 0)
		len += (size_t)more;
	reason[len] = '\0';
	(void)close(ends[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	matrix_tell(row, status, reason);
}

static void matrix_run_all(const char *filter, bool is_list)
{
	for (unsigned i = 0; i < COUNT_OF(tables); i++) {
		for (unsigned j = 0; j < tables[i]->count; j++) {
			const struct test_case *row = &tables[i]->rows[j];

			if (filter != NULL && strstr(row->name, filter) == NULL)
				continue;
			if (is_list)
				(void)printf("%s\n", row->name);
			else
				matrix_run(row);
		}
	}
}

/* The beginning. */

/* Both organisations' authorities in one file: bad certificates come from ours. */
static bool matrix_make_anchors(void)
{
	static const char *const names[] = {"adatum-ca", "treyresearch-ca"};
	char file[512];
	char piece[4096];
	FILE *out;
	bool done;

	(void)snprintf(file, sizeof(file), "%s/anchors.pem", suite.dir);
	out = fopen(file, "we");
	done = out != NULL;
	for (unsigned i = 0; done && i < COUNT_OF(names); i++) {
		FILE *in = fopen(pki_file(names[i], ".pem", file, sizeof(file)), "re");
		size_t len;

		done = in != NULL;
		if (!done) {
			(void)fprintf(stderr, "matrix: %s: %s\n", file, strerror(errno));
			break;
		}
		while ((len = fread(piece, 1, sizeof(piece), in)) > 0)
			(void)fwrite(piece, 1, len, out);
		(void)fclose(in);
	}
	return out != NULL && fclose(out) == 0 && done;
}

static size_t matrix_number(const char *name, size_t otherwise)
{
	const char *text = getenv(name);
	size_t number = text == NULL ? 0 : strtoul(text, NULL, 10);

	return number == 0 ? otherwise : number;
}

static bool matrix_prepare(const char *expect)
{
	const char *base = getenv("TMPDIR");
	bool has_tls = kernel_has_tls();

	suite.slow = (unsigned)matrix_number("POSTERN_TEST_SLOW", 1);
	suite.big_bytes = matrix_number("POSTERN_TEST_BIG_BYTES", 64U << 20);
	suite.is_kernel = strcmp(expect, "kernel") == 0 || (strcmp(expect, "auto") == 0 && has_tls);
	suite.can_rekey = suite.is_kernel && kernel_can_rekey();
	(void)snprintf(suite.dir, sizeof(suite.dir), "%.90s/postern-e2e.XXXXXX",
		base == NULL ? "/tmp" : base);
	if (mkdtemp(suite.dir) == NULL) {
		(void)fprintf(stderr, "matrix: %s: %s\n", suite.dir, strerror(errno));
		return false;
	}
	return true;
}

static void matrix_clean_up(void)
{
	char file[256];

	(void)snprintf(file, sizeof(file), "%s/postern.conf", suite.dir);
	(void)unlink(file);
	(void)snprintf(file, sizeof(file), "%s/anchors.pem", suite.dir);
	(void)unlink(file);
	(void)rmdir(suite.dir);
}

static int matrix_usage(void)
{
	(void)fputs("usage: matrix --postern PATH --pki DIR [--expect kernel|user|auto]\n"
		    "              [--filter SUBSTRING] [--list] [--verbose]\n",
		stderr);
	return EXIT_USAGE;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"postern", required_argument, NULL, 'p'},
		{"pki", required_argument, NULL, 'k'}, {"expect", required_argument, NULL, 'e'},
		{"filter", required_argument, NULL, 'f'}, {"list", no_argument, NULL, 'l'},
		{"verbose", no_argument, NULL, 'v'}, {0}};
	const char *expect = "auto";
	const char *filter = NULL;
	bool is_list = false;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'p')
			suite.postern = optarg;
		else if (option == 'k')
			suite.pki = optarg;
		else if (option == 'e')
			expect = optarg;
		else if (option == 'f')
			filter = optarg;
		else if (option == 'l')
			is_list = true;
		else if (option == 'v')
			suite.is_verbose = true;
		else
			return matrix_usage();
	}
	if (strcmp(expect, "kernel") != 0 && strcmp(expect, "user") != 0 &&
		strcmp(expect, "auto") != 0)
		return matrix_usage();
	if (is_list) {
		matrix_run_all(filter, true);
		return EXIT_SUCCESS;
	}
	if (suite.postern == NULL || suite.pki == NULL || optind != argc)
		return matrix_usage();
	(void)signal(SIGPIPE, SIG_IGN);
	if (!matrix_prepare(expect))
		return EXIT_FAILURE;
	if (matrix_make_anchors())
		matrix_run_all(filter, false);
	else
		failed++;
	matrix_clean_up();
	(void)printf("%u passed, %u failed, %u skipped\n", passed, failed, skipped);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
