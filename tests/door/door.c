/* SPDX-License-Identifier: Apache-2.0 */

/*
 * door.c: who is let in. Runs the real relay in namespaces of its own, knocks from many addresses,
 * and looks at what happens in the kernel and in the relay, one case after the other.
 *
 *   door --postern PATH [--filter SUBSTRING] [--list] [--verbose]
 *
 * One line a case; the last line is "N passed, N failed, N skipped". A case that is called
 * kernel/NAME has bpf = required, user/NAME is the same with bpf = off. Exit: 0 none failed, 1 some
 * did, 2 wrong usage, 77 this cannot be done here: the last line is why.
 *
 * Environment: POSTERN_TEST_SLOW, a factor for all time limits (1); POSTERN_DOOR_PREFIXES, how many
 * prefixes lists have that are large (100000), and POSTERN_DOOR_REPLACES, how often one is replaced
 * under load (100).
 */

#include "tests/door/case.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXIT_USAGE 2

static const struct door_table *const tables[] = {
	&case_rules, &case_quiet, &case_restart, &case_change, &case_fault, &case_live};

static unsigned passed, failed, skipped;

/* One. */

struct door_run {
	const struct door_case *row;
	bool by_kernel;
};

static void door_in_place(const void *data)
{
	const struct door_run *run = data;

	place_make();
	run->row->run(run->by_kernel);
}

static void door_tell(const char *name, int status, const char *reason)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		passed++;
		(void)printf("ok %s%s%s\n", name, reason[0] == '\0' ? "" : ": ", reason);
	} else if (WIFEXITED(status) && WEXITSTATUS(status) == CASE_SKIPPED) {
		skipped++;
		(void)printf("skipped %s: %s\n", name, reason);
	} else {
		failed++;
		(void)printf("FAILED %s: %s", name, reason);
		if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
			(void)printf("no end in time");
		else if (WIFSIGNALED(status))
			(void)printf("the driver was killed by signal %d", WTERMSIG(status));
		(void)printf("\n");
	}
	(void)fflush(stdout);
}

static void door_run(const char *name, const struct door_run *run)
{
	unsigned minutes = run->row->minutes_max == 0 ? 1 : run->row->minutes_max;
	char reason[4096];
	size_t len = 0;
	ssize_t more;
	int ends[2];
	int status;

	/* A pipe holds it until the case has ended. */
	if (pipe(ends) < 0)
		abort();
	suite.report_fd = ends[1];
	status = place_run(door_in_place, run, 60 * minutes * suite.slow);
	(void)close(ends[1]);
	while ((more = read(ends[0], reason + len, sizeof(reason) - 1 - len)) > 0)
		len += (size_t)more;
	reason[len] = '\0';
	(void)close(ends[0]);
	door_tell(name, status, reason);
}

static void door_run_all(const char *filter, bool is_list)
{
	for (unsigned i = 0; i < COUNT_OF(tables); i++) {
		for (unsigned j = 0; j < 2 * tables[i]->count; j++) {
			const struct door_case *row = &tables[i]->rows[j / 2];
			unsigned by = j % 2 == 0 ? BY_KERNEL : BY_USER;
			char name[128];

			(void)snprintf(name, sizeof(name), "%s/%s",
				by == BY_KERNEL ? "kernel" : "user", row->name);
			if ((row->by & by) == 0 || (filter != NULL && strstr(name, filter) == NULL))
				continue;
			if (is_list)
				(void)printf("%s\n", name);
			else
				door_run(name, &(struct door_run){row, by == BY_KERNEL});
		}
	}
}

/* The beginning. */

static bool door_prepare(void)
{
	const char *base = getenv("TMPDIR");
	const char *slow = getenv("POSTERN_TEST_SLOW");

	suite.slow = slow == NULL ? 1 : (unsigned)strtoul(slow, NULL, 10);
	if (suite.slow == 0)
		suite.slow = 1;
	(void)snprintf(suite.dir, sizeof(suite.dir), "%.90s/postern-door.XXXXXX",
		base == NULL ? "/tmp" : base);
	/* The relay becomes another user, who has to get through. */
	if (mkdtemp(suite.dir) != NULL && chmod(suite.dir, 0755) == 0)
		return true;
	(void)fprintf(stderr, "door: %s: %s\n", suite.dir, strerror(errno));
	return false;
}

static void door_clean_up(void)
{
	char path[256];

	(void)snprintf(path, sizeof(path), "%s/place", suite.dir);
	(void)rmdir(path);
	(void)rmdir(suite.dir);
}

static int door_usage(void)
{
	(void)fputs(
		"usage: door --postern PATH [--filter SUBSTRING] [--list] [--verbose]\n", stderr);
	return EXIT_USAGE;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"postern", required_argument, NULL, 'p'},
		{"filter", required_argument, NULL, 'f'}, {"list", no_argument, NULL, 'l'},
		{"verbose", no_argument, NULL, 'v'}, {0}};
	const char *filter = NULL;
	bool is_list = false;
	char why[256];
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'p')
			suite.postern = optarg;
		else if (option == 'f')
			filter = optarg;
		else if (option == 'l')
			is_list = true;
		else if (option == 'v')
			suite.is_verbose = true;
		else
			return door_usage();
	}
	if (is_list) {
		door_run_all(filter, true);
		return EXIT_SUCCESS;
	}
	if (suite.postern == NULL || optind != argc)
		return door_usage();
	if (!place_is_possible(why, sizeof(why))) {
		(void)printf("%s\n", why);
		return CASE_SKIPPED;
	}
	(void)signal(SIGPIPE, SIG_IGN);
	if (!door_prepare())
		return EXIT_FAILURE;
	door_run_all(filter, false);
	door_clean_up();
	(void)printf("%u passed, %u failed, %u skipped\n", passed, failed, skipped);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
