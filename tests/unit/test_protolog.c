/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/log.h"
#include "relay/base/protolog.h"
#include "relay/base/stats.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* 2026-11-21T22:46:05Z */
#define NOW 1795301165
#define COLUMNS 9
#define TEXT_BYTES 4194304

static struct stats counters;
static char folder[] = "/tmp/postern-test-protolog-XXXXXX";
static char place[sizeof(folder) + 16];
static _Atomic int64_t clock_ms;
static char text[TEXT_BYTES];

static void clock_fake(struct timespec *now)
{
	int64_t ms = atomic_load(&clock_ms);

	now->tv_sec = ms / 1000;
	now->tv_nsec = ms % 1000 * 1000000;
}

static void clock_set(int64_t seconds)
{
	atomic_store(&clock_ms, seconds * 1000);
}

static void folder_clear(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;

	if (dir == NULL) {
		(void)unlink(path);
		return;
	}
	while ((entry = readdir(dir)) != NULL)
		(void)unlinkat(dirfd(dir), entry->d_name, 0);
	(void)closedir(dir);
	(void)rmdir(path);
}

static int protolog_setup(void **state)
{
	(void)state;
	counters = (struct stats){0};
	stats_mine = &counters;
	protolog_clock = clock_fake;
	clock_set(NOW);
	if (mkdtemp(folder) == NULL)
		return -1;
	(void)snprintf(place, sizeof(place), "%s/log", folder);
	return 0;
}

static int protolog_teardown(void **state)
{
	(void)state;
	protolog_stop();
	folder_clear(place);
	(void)rmdir(folder);
	memcpy(folder + sizeof(folder) - 7, "XXXXXX", 6);
	return 0;
}

static void start(uint64_t max_file, uint64_t max_directory, uint64_t max_age_ms, unsigned workers)
{
	struct protolog_options options = {place, max_file, max_directory, max_age_ms};

	assert_int_equal(protolog_start(&options, workers), 0);
	protolog_attach(0);
}

static void start_usual(void)
{
	start(10485760, 262144000, 2592000000, 1);
}

static struct protolog session_log(enum protolog_set set)
{
	struct protolog log = {.is_on = true,
		.set = set,
		.connector = "partners",
		.fqdn = "mail.a.example",
		.session = "0a1b2c",
		.local = "192.0.2.1:25",
		.remote = "[2001:db8::1]:40000"};

	return log;
}

static bool exists(const char *name)
{
	char path[200];

	(void)snprintf(path, sizeof(path), "%s/%s", place, name);
	return access(path, F_OK) == 0;
}

/* The whole file, terminated. */
static char *slurp(const char *name)
{
	char path[200];
	ssize_t len;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", place, name);
	fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	len = read(fd, text, sizeof(text) - 1);
	assert_true(len >= 0);
	text[len] = '\0';
	(void)close(fd);
	return text;
}

static void put(const char *name, size_t bytes)
{
	char path[200];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", place, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	(void)close(fd);
}

/*
 * A strict parser of RFC 4180, of our own: cuts the next row of *at into its fields (in place),
 * and moves *at behind it. The end of the text is false.
 */
static bool csv_next(char **at, char *fields[COLUMNS])
{
	char *in = *at, *out;
	unsigned count = 0;

	if (*in == '\0')
		return false;
	for (;;) {
		bool is_quoted = *in == '"';

		assert_true(count < COLUMNS);
		if (is_quoted)
			in++;
		fields[count++] = out = in;
		while (is_quoted ? *in != '"' || in[1] == '"' : *in != ',' && *in != '\r') {
			assert_true(*in != '\0' && (uint8_t)*in >= ' ' && *in != 0x7f);
			assert_true(is_quoted || *in != '"');
			if (*in == '"')
				in++;
			*out++ = *in++;
		}
		if (is_quoted)
			in++;
		assert_true(*in == ',' || *in == '\r');
		if (*in == '\r')
			break;
		in++;
		*out = '\0';
	}
	assert_int_equal(in[1], '\n');
	*out = '\0';
	*at = in + 2;
	assert_int_equal(count, COLUMNS);
	return true;
}

/* Skips the five lines of the header, which must be there. */
static char *csv_rows(const char *name, const char *type)
{
	static const char *const heads[] = {"#Software: Postern\r\n",
		"#Version: ", "#Log-Type: ", "#Date: ",
		"#Fields: date-time,connector-id,session-id,sequence-number,"
		"local-endpoint,remote-endpoint,event,data,context\r\n"};
	char *at = slurp(name);

	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(strncmp(at, heads[i], strlen(heads[i])), 0);
		if (i == 2)
			assert_int_equal(strncmp(at + 11, type, strlen(type)), 0);
		at = strstr(at, "\r\n");
		assert_non_null(at);
		at += 2;
	}
	return at;
}

static char *receive_rows(void)
{
	return csv_rows("RECV2026112122-1.LOG", "SMTP Receive Protocol Log\r\n");
}

/* The next row has this sequence number, event, data and context. */
static void expect(
	char **at, const char *sequence, const char *event, const char *data, const char *context)
{
	char *fields[COLUMNS];

	assert_true(csv_next(at, fields));
	assert_string_equal(fields[3], sequence);
	assert_string_equal(fields[6], event);
	assert_string_equal(fields[7], data);
	assert_string_equal(fields[8], context);
}

static void test_row_38_columns(void **state)
{
	struct protolog log = session_log(PROTOLOG_RECEIVE);
	char *fields[COLUMNS], *at;

	(void)state;
	start_usual();
	atomic_fetch_add(&clock_ms, 123);
	protolog_open(&log);
	protolog_sent(&log, span_of("220 mail.a.example ESMTP\r\n"));
	protolog_received(&log, span_of("EHLO b.example"));
	protolog_sent(&log, span_of("250-mail.a.example\r\n250-SIZE\r\n250 DSN\r\n250 next\r\n"));
	protolog_note(&log, "Certificate subject", "CN=%s, O=\"x\"", "b.example");
	protolog_note(&log, NULL, "no context");
	protolog_close(&log, "Remote");
	assert_false(log.is_on);
	protolog_close(&log, "again is nothing");
	protolog_stop();

	at = receive_rows();
	assert_true(csv_next(&at, fields));
	assert_string_equal(fields[0], "2026-11-21T22:46:05.123Z");
	assert_string_equal(fields[1], "mail.a.example\\partners");
	assert_string_equal(fields[2], "0a1b2c");
	assert_string_equal(fields[3], "0");
	assert_string_equal(fields[4], "192.0.2.1:25");
	assert_string_equal(fields[5], "[2001:db8::1]:40000");
	assert_string_equal(fields[6], "+");
	expect(&at, "1", ">", "220 mail.a.example ESMTP", "");
	expect(&at, "2", "<", "EHLO b.example", "");
	expect(&at, "3", ">", "250-mail.a.example; 250-SIZE; 250 DSN", "");
	expect(&at, "4", ">", "250 next", "");
	expect(&at, "5", "*", "CN=b.example, O=\"x\"", "Certificate subject");
	expect(&at, "6", "*", "no context", "");
	expect(&at, "7", "-", "", "Remote");
	assert_false(csv_next(&at, fields));
	assert_false(exists("SEND2026112122-1.LOG"));
	assert_int_equal(counters.protolog_dropped, 0);
}

static void test_row_38_sets(void **state)
{
	struct protolog in = session_log(PROTOLOG_RECEIVE), out = session_log(PROTOLOG_SEND);
	char *fields[COLUMNS], *at;

	(void)state;
	start_usual();
	protolog_open(&in);
	protolog_open(&out);
	protolog_sent(&out, span_of("MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\n"));
	protolog_received(&out, span_of("250-2.1.0 ok"));
	protolog_received(&out, span_of("354"));
	protolog_close(&out, NULL);
	protolog_stop();

	at = csv_rows("SEND2026112122-1.LOG", "SMTP Send Protocol Log\r\n");
	expect(&at, "0", "+", "", "");
	expect(&at, "1", ">", "MAIL FROM:<a@a.example>", "");
	expect(&at, "2", ">", "RCPT TO:<b@b.example>", "");
	expect(&at, "3", "<", "250-2.1.0 ok", "");
	expect(&at, "4", "<", "354", "");
	expect(&at, "5", "-", "", "");
	assert_false(csv_next(&at, fields));
	at = receive_rows();
	expect(&at, "0", "+", "", "");
	assert_false(csv_next(&at, fields));
}

static void test_row_38_off(void **state)
{
	struct protolog log = session_log(PROTOLOG_RECEIVE);

	(void)state;
	start_usual();
	log.is_on = false;
	protolog_open(&log);
	protolog_received(&log, span_of("NOOP"));
	protolog_sent(&log, span_of("250 ok\r\n"));
	protolog_note(&log, "x", "y");
	protolog_close(&log, "Local");
	assert_int_equal(log.sequence, 0);
	protolog_stop();
	assert_false(exists("RECV2026112122-1.LOG"));
	/* Not started at all: nothing, too. */
	log.is_on = true;
	protolog_open(&log);
	assert_int_equal(counters.protolog_dropped, 0);
}

/* Whatever a peer sends stays in its field. */
static void test_row_38_injection(void **state)
{
	static const struct {
		const char *in;
		size_t len;
		const char *want;
	} cases[] = {
#define CASE(in, want) {in, sizeof(in) - 1, want}
		CASE("plain", "plain"),
		CASE("", ""),
		CASE("a,b", "a,b"),
		CASE("\"", "\""),
		CASE("\",\"", "\",\""),
		CASE("a\r\n2026,evil", "a\\x0d\\x0a2026,evil"),
		CASE("a\nb\rc", "a\\x0ab\\x0dc"),
		CASE("nul \0 bell \a del \x7f", "nul \\x00 bell \\x07 del \\x7f"),
		CASE("gr\xc3\xbc\xc3\x9f \xf0\x9f\x93\xa7", "gr\xc3\xbc\xc3\x9f \xf0\x9f\x93\xa7"),
		CASE("\xff\xc3", "\\xff\\xc3"),
		CASE("\xc0\xaf\xe0\x80\xaf", "\\xc0\\xaf\\xe0\\x80\\xaf"),
		CASE("\xc2\x85\xed\xa0\x80", "\\xc2\\x85\\xed\\xa0\\x80"),
		CASE("=1+1\ttab", "=1+1\\x09tab"),
#undef CASE
	};
	struct protolog log = session_log(PROTOLOG_RECEIVE);
	char *fields[COLUMNS], *at;

	(void)state;
	start_usual();
	log.fqdn = "a,b\r\n";
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		protolog_received(&log, span_make(cases[i].in, cases[i].len));
	protolog_note(&log, "con,text\r\n", "%s", "d\r\n");
	protolog_stop();
	at = receive_rows();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_true(csv_next(&at, fields));
		assert_string_equal(fields[1], "a,b\\x0d\\x0a\\partners");
		assert_string_equal(fields[7], cases[i].want);
	}
	expect(&at, "13", "*", "d\\x0d\\x0a", "con,text\\x0d\\x0a");
	assert_false(csv_next(&at, fields));
}

/* A line of any length and any bytes is a whole row, cut at 4 KiB. */
static void test_row_38_long(void **state)
{
	static const char fills[] = {'x', '"', ',', '\r', '\0', (char)0xc3};
	static char line[10000];
	struct protolog log = session_log(PROTOLOG_RECEIVE);
	char *fields[COLUMNS], *at;
	unsigned count = 0;

	(void)state;
	start_usual();
	for (size_t fill = 0; fill < sizeof(fills); fill++) {
		memset(line, fills[fill], sizeof(line));
		for (size_t len = 4080; len < 4110; len++)
			protolog_received(&log, span_make(line, len));
		protolog_sent(&log, span_make(line, sizeof(line)));
		protolog_note(&log, "c", "%.*s", (int)sizeof(line), line);
		for (size_t i = 0; i + 6 <= sizeof(line); i += 6)
			memcpy(line + i, "250-\r\n", 6);
		protolog_sent(&log, span_make(line, sizeof(line)));
	}
	protolog_stop();
	at = receive_rows();
	while (csv_next(&at, fields)) {
		assert_true(strlen(fields[7]) <= 4096);
		count++;
	}
	assert_true(count >= sizeof(fills) * 33);
	assert_int_equal(counters.protolog_dropped, 0);
}

/* What AUTH carries is not written, wherever it is and however it is split. */
static void test_row_38_auth(void **state)
{
	static const struct {
		const char *in, *want;
	} cases[] = {
		{"EHLO x", "EHLO x"},
		{"XXXA x", "XXXA x"},
		{"AUTH PLAIN c2VjcmV0", "AUTH *"},
		{"c2VjcmV0", "*"},
		{"  NOOP", "  NOOP"},
		{"c2VjcmV0", "c2VjcmV0"}, /* nobody said AUTH: a line like any other */
		{"auth login", "AUTH *"},
		{"c2VjcmV0", "*"},
		{"c2VjcmV0", "*"},
		{"", "*"},
		{"*", "*"},
		{"MAIL FROM:<a@b>", "MAIL FROM:<a@b>"},
		{" \tAuTh\tPLAIN c2VjcmV0", "AUTH *"},
		{"MAILc2VjcmV0", "*"},
		{"rcpt to:<x@y>", "rcpt to:<x@y>"},
		{"AUTHOR", "AUTHOR"},
		{"X-EXPS NTLM c2VjcmV0", "X-EXPS *"},
		{"c2VjcmV0", "*"},
		{"QUIT", "QUIT"},
	};
	struct protolog log = session_log(PROTOLOG_RECEIVE);
	struct protolog out = session_log(PROTOLOG_SEND);
	char *fields[COLUMNS], *at;

	(void)state;
	start_usual();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		protolog_received(&log, span_of(cases[i].in));
	protolog_sent(&out, span_of("AUTH PLAIN c2VjcmV0\r\nc2VjcmV0\r\n"));
	protolog_stop();
	at = receive_rows();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_true(csv_next(&at, fields));
		assert_string_equal(fields[7], cases[i].want);
	}
	assert_null(strstr(slurp("SEND2026112122-1.LOG"), "c2VjcmV0"));
}

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
	start(10485760, 262144000, 2 * 3600 * 1000, 1);
	protolog_stop(); /* the start alone removes what is too old */
	assert_false(exists("RECV2026112119-1.LOG"));
	assert_false(exists("SEND2026112119-1.LOG"));
	assert_true(exists("RECV2026112120-1.LOG") && exists("RECV2026112121-1.LOG"));
	start(10485760, 262144000, 2 * 3600 * 1000, 1);
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
	struct protolog_options options = {place, 10485760, 262144000, 2592000000};
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

#define WORKERS 4
#define SESSIONS 10
#define ROWS 200

static void *work(void *arg)
{
	static struct stats blocks[WORKERS];
	struct protolog logs[SESSIONS];
	char ids[SESSIONS][16];
	unsigned worker = (unsigned)(uintptr_t)arg;

	stats_mine = &blocks[worker];
	protolog_attach(worker);
	for (unsigned i = 0; i < SESSIONS; i++) {
		(void)snprintf(ids[i], sizeof(ids[i]), "%ux%u", worker, i);
		logs[i] = session_log(i % 2 == 0 ? PROTOLOG_RECEIVE : PROTOLOG_SEND);
		logs[i].session = ids[i];
	}
	for (unsigned row = 0; row < ROWS; row++)
		for (unsigned i = 0; i < SESSIONS; i++)
			protolog_received(&logs[i], span_of("NOOP, and more of it"));
	ASSERT(blocks[worker].protolog_dropped == 0);
	return NULL;
}

/* Four workers at once: every row is there, and each session's rows are in order. */
static void test_row_38_threads(void **state)
{
	unsigned next[WORKERS][SESSIONS] = {0};
	pthread_t threads[WORKERS];
	char *fields[COLUMNS];

	(void)state;
	start(10485760, 262144000, 2592000000, WORKERS);
	for (unsigned i = 0; i < WORKERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)i), 0);
	for (unsigned i = 0; i < WORKERS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	protolog_stop();
	for (unsigned set = 0; set < 2; set++) {
		char *at = set == 0 ? receive_rows()
				    : csv_rows("SEND2026112122-1.LOG", "SMTP Send Protocol Log");

		while (csv_next(&at, fields)) {
			unsigned worker, session;

			assert_int_equal(sscanf(fields[2], "%ux%u", &worker, &session), 2);
			assert_true(worker < WORKERS && session < SESSIONS);
			assert_int_equal(session % 2, set);
			assert_int_equal(strtoul(fields[3], NULL, 10), next[worker][session]++);
		}
	}
	for (unsigned i = 0; i < WORKERS * SESSIONS; i++)
		assert_int_equal(next[i / SESSIONS][i % SESSIONS], ROWS);
}

#define ROW_TEST(name) cmocka_unit_test_setup_teardown(name, protolog_setup, protolog_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ROW_TEST(test_row_38_columns),
		ROW_TEST(test_row_38_sets),
		ROW_TEST(test_row_38_off),
		ROW_TEST(test_row_38_injection),
		ROW_TEST(test_row_38_long),
		ROW_TEST(test_row_38_auth),
		ROW_TEST(test_row_38_turns_over_at_size),
		ROW_TEST(test_row_38_turns_over_at_hour),
		ROW_TEST(test_row_38_restart),
		ROW_TEST(test_row_38_directory_age),
		ROW_TEST(test_row_38_directory_size),
		ROW_TEST(test_row_38_folder_in_trouble),
		ROW_TEST(test_row_49_protocol_log_folder),
		ROW_TEST(test_row_38_removed_file),
		ROW_TEST(test_row_38_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
