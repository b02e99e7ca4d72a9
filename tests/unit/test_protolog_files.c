/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/protolog_fixture.h"

static void test_row_38_turns_over_at_size(void **state)
{
	struct protolog log = session_log(PROTOLOG_RECEIVE);
	char *fields[COLUMNS], *at, name[40];
	unsigned next = 0, files = 0;

	(void)state;
	start(2000, 262144000, 2592000000, 1);
	for (unsigned i = 0; i < 50; i++)
		protolog_received(&log, span_of("NOOP"));
	protolog_stop();
	for (unsigned n = 1; n < 50; n++) {
		(void)snprintf(name, sizeof(name), "RECV2026112122-%u.LOG", n);
		if (!exists(name))
			break;
		files++;
		at = csv_rows(name, "SMTP Receive Protocol Log\r\n");
		assert_true(strlen(text) <= 2000);
		while (csv_next(&at, fields))
			assert_int_equal(strtoul(fields[3], NULL, 10), next++);
	}
	assert_int_equal(next, 50);
	assert_true(files > 2 && files < 10);
}

static void test_row_38_turns_over_at_hour(void **state)
{
	struct protolog log = session_log(PROTOLOG_RECEIVE);
	char *at;

	(void)state;
	start_usual();
	protolog_received(&log, span_of("NOOP 22"));
	clock_set(NOW + 3600);
	protolog_received(&log, span_of("NOOP 23"));
	clock_set(NOW + 835); /* another worker's row from just before the full hour */
	protolog_received(&log, span_of("NOOP late"));
	clock_set(NOW + 2 * 3600);
	protolog_received(&log, span_of("NOOP 00"));
	clock_set(NOW - 7200); /* the clock is put back */
	protolog_received(&log, span_of("NOOP 20"));
	protolog_stop();
	at = receive_rows();
	expect(&at, "0", "<", "NOOP 22", "");
	assert_int_equal(*at, '\0');
	at = csv_rows("RECV2026112123-1.LOG", "SMTP Receive Protocol Log");
	expect(&at, "1", "<", "NOOP 23", "");
	expect(&at, "2", "<", "NOOP late", "");
	assert_int_equal(*at, '\0');
	at = csv_rows("RECV2026112200-1.LOG", "SMTP Receive Protocol Log");
	expect(&at, "3", "<", "NOOP 00", "");
	assert_int_equal(*at, '\0');
	at = csv_rows("RECV2026112120-1.LOG", "SMTP Receive Protocol Log");
	expect(&at, "4", "<", "NOOP 20", "");
}

/* A restart goes on in the file of the hour while that is below the size. */
static void test_row_38_restart(void **state)
{
	struct protolog log = session_log(PROTOLOG_RECEIVE);
	char path[200], *at;
	int fd;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		start_usual();
		protolog_received(&log, span_of("NOOP"));
		protolog_stop();
	}
	at = receive_rows();
	expect(&at, "0", "<", "NOOP", "");
	expect(&at, "1", "<", "NOOP", "");
	assert_int_equal(*at, '\0');

	/* A crash cut a row: the next one begins a line of its own. */
	(void)snprintf(path, sizeof(path), "%s/RECV2026112122-1.LOG", place);
	fd = open(path, O_WRONLY | O_APPEND);
	assert_int_equal(write(fd, "2026-11-21T22:4", 15), 15);
	(void)close(fd);
	start_usual();
	protolog_received(&log, span_of("NOOP"));
	protolog_stop();
	assert_non_null(
		strstr(slurp("RECV2026112122-1.LOG"), "2026-11-21T22:4\r\n2026-11-21T22:46:05"));

	start(1000, 262144000, 2592000000, 1);
	for (unsigned i = 0; i < 10; i++)
		protolog_received(&log, span_of("NOOP"));
	protolog_stop();
	assert_true(exists("RECV2026112122-2.LOG"));
	start(600, 262144000, 2592000000, 1);
	protolog_received(&log, span_of("NOOP full"));
	protolog_stop();
	at = csv_rows("RECV2026112122-3.LOG", "SMTP Receive Protocol Log");
	assert_non_null(strstr(at, "NOOP full"));
}

static void test_row_38_directory_age(void **state)
{
	struct protolog log = session_log(PROTOLOG_RECEIVE);

	(void)state;
	assert_int_equal(mkdir(place, 0700), 0);
	put("RECV2026112119-1.LOG", 10); /* ended 2 h 46 min ago */
	put("RECV2026112120-1.LOG", 10); /* 1 h 46 min */
	put("RECV2026112121-1.LOG", 10);
	put("SEND2026112119-1.LOG", 10);
	put("RECV2026112119-1.log", 10); /* none of ours, each for another reason */
	put("RECV2026112119-01.LOG", 10);
	put("RECV2026112199-1.LOG", 10);
	put("RECV20261121-1.LOG", 10);
	put("RECV2026112119-1.LOG.gz", 10);
	put("precious.txt", 10);
	start(10485760, 262144000, 7200000, 1);
	protolog_stop(); /* the start alone removes what is too old */
	assert_false(exists("RECV2026112119-1.LOG"));
	assert_false(exists("SEND2026112119-1.LOG"));
	assert_true(exists("RECV2026112120-1.LOG") && exists("RECV2026112121-1.LOG"));
	start(10485760, 262144000, 7200000, 1);
	clock_set(NOW + 3600);
	protolog_received(&log, span_of("NOOP"));
	protolog_stop(); /* and the turn-over */
	assert_false(exists("RECV2026112120-1.LOG"));
	assert_true(exists("RECV2026112121-1.LOG") && exists("RECV2026112123-1.LOG"));
	assert_true(exists("RECV2026112119-1.log") && exists("RECV2026112119-01.LOG") &&
		    exists("RECV2026112199-1.LOG") && exists("RECV20261121-1.LOG") &&
		    exists("RECV2026112119-1.LOG.gz") && exists("precious.txt"));
}

static void test_row_38_directory_size(void **state)
{
	struct protolog log = session_log(PROTOLOG_RECEIVE);
	struct stat facts;
	uint64_t total = 0;
	char path[300];
	unsigned files = 0;

	(void)state;
	assert_int_equal(mkdir(place, 0700), 0);
	put("RECV2026112120-10.LOG", 3000);
	put("RECV2026112120-9.LOG", 3000); /* the older of the two: numbers, not text */
	put("RECV2026112121-1.LOG", 3000);
	put("SEND2026112001-1.LOG", 9000); /* the other set has a limit of its own */
	put("precious.txt", 50000);
	start(2000, 9000, 2592000000, 1);
	protolog_received(&log, span_of("NOOP"));
	protolog_stop(); /* 9,000 are there and a file may grow to 2,000 */
	assert_false(exists("RECV2026112120-9.LOG"));
	assert_true(exists("RECV2026112120-10.LOG") && exists("RECV2026112121-1.LOG"));
	assert_true(exists("SEND2026112001-1.LOG"));
	start(2000, 9000, 2592000000, 1);
	for (unsigned i = 0; i < 400; i++)
		protolog_received(&log, span_of("NOOP"));
	protolog_stop();
	for (unsigned n = 1; n < 100; n++) {
		(void)snprintf(path, sizeof(path), "%s/RECV2026112122-%u.LOG", place, n);
		if (stat(path, &facts) == 0) {
			total += (uint64_t)facts.st_size;
			files++;
		}
	}
	assert_true(total > 2000 && total <= 9000 && files > 1);
	assert_false(exists("RECV2026112122-1.LOG"));
	assert_true(exists("precious.txt"));
}

/* Waits for the writing thread; the bound is only reached when it is wrong. */
static void wait_for(const char *name, const char *words)
{
	for (unsigned i = 0; i < 3000; i++) {
		if (exists(name) && (words == NULL || strstr(slurp(name), words) != NULL))
			return;
		(void)usleep(10000);
	}
	fail();
}

/* A folder that cannot be written costs rows, not mail, and is tried again each minute. */
static void test_row_38_folder_in_trouble(void **state)
{
	struct protolog log = session_log(PROTOLOG_RECEIVE);
	char *fields[COLUMNS], *at, said[2000];
	unsigned rows = 0;
	int ends[2], keep = dup(STDERR_FILENO);
	ssize_t len;

	(void)state;
	assert_true(pipe(ends) == 0 && keep >= 0 && dup2(ends[1], STDERR_FILENO) >= 0);
	close(creat(place, 0600)); /* a file stands in the folder's place */
	start_usual();
	for (unsigned i = 0; i < 20000; i++)
		protolog_received(&log, span_of("NOOP"));
	assert_true(counters.protolog_dropped > 0 && counters.protolog_dropped < 20000);
	assert_int_equal(poll(&(struct pollfd){.fd = ends[0], .events = POLLIN}, 1, 30000), 1);
	assert_int_equal(unlink(place), 0);
	clock_set(NOW + 61);
	wait_for("RECV2026112122-1.LOG", NULL);
	protolog_stop();
	assert_true(dup2(keep, STDERR_FILENO) >= 0);
	(void)close(ends[1]);
	len = read(ends[0], said, sizeof(said) - 1);
	assert_true(len > 0);
	said[len] = '\0';
	(void)close(ends[0]);
	(void)close(keep);
	assert_non_null(strstr(said, "event=protocol-log-failed level=error"));
	assert_null(strchr(strchr(said, '\n') + 1, '\n')); /* once */
	at = receive_rows();
	while (csv_next(&at, fields))
		rows++;
	assert_int_equal(rows + counters.protolog_dropped, 20000);
}

/* A reload: another folder, then none. */
static void test_row_49_protocol_log_folder(void **state)
{
	struct logset_options options = {place, 10485760, 262144000, 2592000000};
	struct protolog log = session_log(PROTOLOG_RECEIVE);
	char *at;

	(void)state;
	options.folder = folder;
	assert_int_equal(protolog_start(&options, 1), 0);
	protolog_attach(0);
	protolog_received(&log, span_of("NOOP old"));
	(void)snprintf(place, sizeof(place), "%s", folder);
	wait_for("RECV2026112122-1.LOG", "NOOP old");
	(void)snprintf(text, sizeof(text), "%s/RECV2026112122-1.LOG", folder);
	assert_int_equal(unlink(text), 0);
	(void)snprintf(place, sizeof(place), "%s/log", folder);
	options.folder = place;
	protolog_configure(&options);
	wait_for("", NULL); /* the folder is made when the change is seen */
	protolog_received(&log, span_of("NOOP new"));
	wait_for("RECV2026112122-1.LOG", "NOOP new");
	options.folder = NULL;
	protolog_configure(&options);
	protolog_received(&log, span_of("NOOP nowhere"));
	protolog_stop();
	at = receive_rows();
	expect(&at, "1", "<", "NOOP new", "");
	assert_int_equal(*at, '\0');
	assert_int_equal(counters.protolog_dropped, 0);
}

/* A file that somebody removed is begun anew. */
static void test_row_38_removed_file(void **state)
{
	struct protolog log = session_log(PROTOLOG_RECEIVE);
	char *at;

	(void)state;
	start_usual();
	protolog_received(&log, span_of("NOOP one"));
	wait_for("RECV2026112122-1.LOG", "NOOP one");
	folder_clear(place);
	protolog_received(&log, span_of("NOOP two"));
	protolog_stop();
	at = receive_rows();
	expect(&at, "1", "<", "NOOP two", "");
	assert_int_equal(*at, '\0');
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ROW_TEST(test_row_38_turns_over_at_size),
		ROW_TEST(test_row_38_turns_over_at_hour),
		ROW_TEST(test_row_38_restart),
		ROW_TEST(test_row_38_directory_age),
		ROW_TEST(test_row_38_directory_size),
		ROW_TEST(test_row_38_folder_in_trouble),
		ROW_TEST(test_row_49_protocol_log_folder),
		ROW_TEST(test_row_38_removed_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
