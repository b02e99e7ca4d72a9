/* SPDX-License-Identifier: Apache-2.0 */

/*
 * crash.c: is what the relay acknowledged still there after it was killed, once and unspoiled?
 *
 * Some relays run beside one another, each with a spool of its own, a sender that never rests, and
 * a next hop that outlives it; see run.h. The last line counts the relays.
 */

#include "tests/crash/ledger.h"
#include "tests/crash/model.h"
#include "tests/crash/run.h"
#include <errno.h>
#include <ftw.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define EXIT_USAGE 2
#define CRASH_JOBS_MAX 64
#define CRASH_DIR_BYTES 256
#define CRASH_SELF_TEST_ROUNDS 12
#define CRASH_SELF_TEST_PATIENCE_S 10
#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

struct crash_options {
	struct run_options run;
	const char *dir;
	unsigned jobs;
	unsigned cut_seconds; /* 0: this machine is not to be cut */
	bool is_self_test, is_last, is_hold;
};

static const char crash_usage[] =
	"usage: crash --postern PATH [OPTION]...\n"
	"  --rounds N         kills, of all relays together (200)\n"
	"  --jobs N           relays beside one another (2)\n"
	"  --connections N    of each sender (8)\n"
	"  --up MS            longest time from ready to the kill (250)\n"
	"  --doubt MS         so long before a kill a delivery may be forgotten (150)\n"
	"  --patience SECONDS for the end: until all has come (90)\n"
	"  --seed N           of everything that is drawn by lot (the time)\n"
	"  --deliver WORD     queue (default) or proxy\n"
	"  --durability WORD  durable (default), relaxed, or none: say nothing\n"
	"  --transport TEXT   more lines of that section\n"
	"  --model WORD       instead of the relay: store, unflushed, ack, forgetful\n"
	"  --spoil WORD       the next hop's: twice, corrupt, loses\n"
	"  --dir FOLDER       where to work (a new one)\n"
	"  --self-test        does all this find what it must?\n"
	"For tests/crash/power.sh, whose machine is killed:\n"
	"  --spool FOLDER --journal FILE --first-id N --cut SECONDS [EARLIER-JOURNAL...]\n"
	"  --spool FOLDER --last [EARLIER-JOURNAL...]\n"
	"  --spool FOLDER --hold            (BRITTLE is the disk's process)\n"
	"Exit status: 0 all is well, 1 something is not, 2 wrong options.\n";

static _Noreturn void crash_wrong(void)
{
	(void)fputs(crash_usage, stderr);
	exit(EXIT_USAGE);
}

/* Folders. */

static int crash_remove_one(const char *path, const struct stat *stat, int kind, struct FTW *at)
{
	(void)stat, (void)kind, (void)at;
	return remove(path);
}

static void crash_remove(const char *dir)
{
	(void)nftw(dir, crash_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static const char *crash_make_dir(const char *given)
{
	static char dir[CRASH_DIR_BYTES / 2];
	const char *base = getenv("TMPDIR");

	if (given != NULL)
		return mkdir(given, 0755) == 0 || errno == EEXIST ? given : NULL;
	(void)snprintf(
		dir, sizeof(dir), "%.90s/postern-crash.XXXXXX", base == NULL ? "/tmp" : base);
	return mkdtemp(dir);
}

/* One relay in a process of its own: the bits of run.h. */

static pid_t crash_begin(
	const struct run_options *options, const char *dir, unsigned job, bool is_silent)
{
	struct run_options own = *options;
	char place[CRASH_DIR_BYTES];
	char spool[CRASH_DIR_BYTES + 8];
	pid_t pid;

	(void)fflush(NULL);
	pid = fork();
	if (pid != 0)
		return pid;
	(void)snprintf(place, sizeof(place), "%.200s/%u", dir, job);
	(void)snprintf(spool, sizeof(spool), "%s/spool", place);
	if (mkdir(place, 0755) < 0)
		_exit(RUN_FAILED);
	if (is_silent) {
		(void)snprintf(spool, sizeof(spool), "%s/said", place);
		if (freopen(spool, "we", stdout) == NULL)
			_exit(RUN_FAILED);
		(void)snprintf(spool, sizeof(spool), "%s/spool", place);
	}
	own.daemon.dir = place;
	own.daemon.spool = spool;
	own.seed += job;
	exit((int)run_kills(&own));
}

static unsigned crash_end(pid_t pid)
{
	int status;

	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return RUN_FAILED;
	return (unsigned)WEXITSTATUS(status);
}

/* Does it find what it must? */

struct crash_row {
	const char *name;
	const char *model;
	enum sink_spoil spoil;
	unsigned expected;
};

static const struct crash_row crash_rows[] = {
	{"a relay that is right", "store", SINK_HONEST, 0},
	{"one that never flushes, and is only killed", "unflushed", SINK_HONEST, 0},
	{"one that keeps nothing", "ack", SINK_HONEST, RUN_LOST},
	{"one that forgets what it delivered", "forgetful", SINK_HONEST, RUN_WRONG},
	{"a letter that comes twice", "store", SINK_TWICE, RUN_WRONG},
	{"a letter that is spoiled", "store", SINK_CORRUPT, RUN_WRONG | RUN_LOST},
	{"a letter that does not come", "store", SINK_LOSES, RUN_LOST},
};

static pid_t crash_begin_row(const struct crash_options *options, unsigned index)
{
	const struct crash_row *row = &crash_rows[index];
	struct run_options run = options->run;

	run.daemon.model = row->model;
	run.spoil = row->spoil;
	run.rounds = CRASH_SELF_TEST_ROUNDS;
	/* What cannot come is not waited for very long. */
	if ((row->expected & RUN_LOST) != 0)
		run.patience_s = CRASH_SELF_TEST_PATIENCE_S;
	return crash_begin(&run, options->dir, index, true);
}

static int crash_self_test(const struct crash_options *options)
{
	pid_t pids[COUNT_OF(crash_rows)];
	unsigned count = COUNT_OF(crash_rows);
	unsigned failed = 0;

	for (unsigned i = 0; i < count; i++)
		pids[i] = crash_begin_row(options, i);
	for (unsigned i = 0; i < count; i++) {
		const struct crash_row *row = &crash_rows[i];
		unsigned result = crash_end(pids[i]);

		(void)printf("%s %s: %s%s%s\n", result == row->expected ? "ok" : "FAILED",
			row->name, (result & RUN_LOST) != 0 ? "lost " : "",
			(result & RUN_WRONG) != 0 ? "wrong " : "",
			(result & RUN_FAILED) != 0 ? "not done"
			: result == 0              ? "well"
						   : "found");
		if (result != row->expected)
			(void)printf("see %s/%u\n", options->dir, i);
		failed += result != row->expected;
	}
	(void)printf("%u passed, %u failed, 0 skipped\n", count - failed, failed);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int crash_kill_all(const struct crash_options *options)
{
	pid_t pids[CRASH_JOBS_MAX];
	unsigned failed = 0;

	for (unsigned i = 0; i < options->jobs; i++) {
		struct run_options run = options->run;

		run.rounds = run.rounds / options->jobs + (i < run.rounds % options->jobs);
		pids[i] = crash_begin(&run, options->dir, i, false);
	}
	for (unsigned i = 0; i < options->jobs; i++) {
		unsigned result = crash_end(pids[i]);

		(void)printf("%s relay %u\n", result == 0 ? "ok" : "FAILED", i);
		failed += result != 0;
	}
	if (failed > 0)
		(void)printf("seed %" PRIu64 "; see %s\n", options->run.seed, options->dir);
	(void)printf("%u passed, %u failed, 0 skipped\n", options->jobs - failed, failed);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* power-guest.sh says which process is the disk. */
static int crash_hold(const struct crash_options *options)
{
	const char *disk = getenv("BRITTLE");

	if (disk == NULL)
		return RUN_FAILED;
	return (int)run_hold(&options->run, (int)strtol(disk, NULL, 10));
}

/* Options. */

static unsigned crash_number(const char *text, unsigned min, unsigned max)
{
	char *rest;
	unsigned long number = strtoul(text, &rest, 10);

	if (*text == '\0' || *rest != '\0' || number < min || number > max)
		crash_wrong();
	return (unsigned)number;
}

static enum sink_spoil crash_spoil(const char *word)
{
	static const char *const words[] = {"honest", "twice", "corrupt", "loses"};

	for (unsigned i = 0; i < COUNT_OF(words); i++) {
		if (strcmp(words[i], word) == 0)
			return (enum sink_spoil)i;
	}
	crash_wrong();
}

/* Those that say what to run; false: it is another. */
static bool crash_set_daemon(struct daemon_options *daemon, int option, const char *value)
{
	if (option == 'p')
		daemon->postern = value;
	else if (option == 'd')
		daemon->deliver = value;
	else if (option == 'D')
		daemon->durability = strcmp(value, "none") == 0 ? NULL : value;
	else if (option == 't')
		daemon->transport = value;
	else if (option == 'm')
		daemon->model = value;
	else if (option == 'S')
		daemon->spool = value;
	else
		return false;
	return true;
}

static void crash_set(struct crash_options *options, int option, const char *value)
{
	struct run_options *run = &options->run;

	if (option == 'r')
		run->rounds = crash_number(value, 1, 60000);
	else if (option == 'j')
		options->jobs = crash_number(value, 1, CRASH_JOBS_MAX);
	else if (option == 'c')
		run->connections = crash_number(value, 1, 500);
	else if (option == 'u')
		run->up_ms_max = crash_number(value, 1, 60000);
	else if (option == 'q')
		run->doubt_ms = crash_number(value, 1, 60000);
	else if (option == 'P')
		run->patience_s = crash_number(value, 1, 3600);
	else if (option == 's')
		run->seed = strtoull(value, NULL, 10);
	else if (option == 'x')
		run->spoil = crash_spoil(value);
	else if (option == 'w')
		options->dir = value;
	else if (option == 'J')
		run->journal = value;
	else if (option == 'i')
		run->first_id = crash_number(value, 0, LEDGER_IDS_MAX - 1);
	else if (option == 'C')
		options->cut_seconds = crash_number(value, 1, 3600);
	else if (option == 'T')
		options->is_self_test = true;
	else if (option == 'L')
		options->is_last = true;
	else if (option == 'H')
		options->is_hold = true;
	else if (!crash_set_daemon(&run->daemon, option, value))
		crash_wrong();
}

static void crash_parse(struct crash_options *options, int argc, char **argv)
{
	static const struct option table[] = {{"postern", required_argument, NULL, 'p'},
		{"rounds", required_argument, NULL, 'r'}, {"jobs", required_argument, NULL, 'j'},
		{"connections", required_argument, NULL, 'c'}, {"up", required_argument, NULL, 'u'},
		{"doubt", required_argument, NULL, 'q'}, {"seed", required_argument, NULL, 's'},
		{"patience", required_argument, NULL, 'P'},
		{"deliver", required_argument, NULL, 'd'},
		{"durability", required_argument, NULL, 'D'},
		{"transport", required_argument, NULL, 't'},
		{"model", required_argument, NULL, 'm'}, {"spoil", required_argument, NULL, 'x'},
		{"dir", required_argument, NULL, 'w'}, {"self-test", no_argument, NULL, 'T'},
		{"spool", required_argument, NULL, 'S'}, {"journal", required_argument, NULL, 'J'},
		{"first-id", required_argument, NULL, 'i'}, {"cut", required_argument, NULL, 'C'},
		{"last", no_argument, NULL, 'L'}, {"hold", no_argument, NULL, 'H'}, {0}};
	const char *slow = getenv("POSTERN_TEST_SLOW");
	unsigned factor = slow == NULL ? 1 : crash_number(slow, 1, 1000);
	int option;

	*options = (struct crash_options){.jobs = 2,
		.run = {.seed = (uint64_t)time(NULL),
			.rounds = 200,
			.connections = 8,
			.up_ms_max = 250,
			.doubt_ms = 150,
			.patience_s = 90,
			.daemon = {.deliver = "queue", .durability = "durable", .workers = 2}}};
	while ((option = getopt_long(argc, argv, "", table, NULL)) != -1)
		crash_set(options, option, optarg);
	options->run.doubt_ms *= factor;
	options->run.patience_s *= factor;
	options->run.earlier = (const char *const *)argv + optind;
	if (options->run.daemon.postern == NULL && options->run.daemon.model == NULL &&
		!options->is_self_test)
		crash_wrong();
}

int main(int argc, char **argv)
{
	struct crash_options options;
	bool is_kept;
	int status;

	if (argc == 5 && strcmp(argv[1], MODEL_WORD) == 0)
		return model_run(argv[2], argv[3], argv[4]);
	crash_parse(&options, argc, argv);
	(void)signal(SIGPIPE, SIG_IGN);
	is_kept = options.dir != NULL;
	options.dir = crash_make_dir(options.dir);
	if (options.dir == NULL) {
		perror("crash");
		return EXIT_FAILURE;
	}
	options.run.daemon.dir = options.dir;
	if (options.cut_seconds > 0)
		return (int)run_until_cut(&options.run, options.cut_seconds);
	if (options.is_hold)
		return crash_hold(&options);
	if (options.is_last)
		return (int)run_to_end(&options.run);
	status = options.is_self_test ? crash_self_test(&options) : crash_kill_all(&options);
	if (status == EXIT_SUCCESS && !is_kept)
		crash_remove(options.dir);
	return status;
}
