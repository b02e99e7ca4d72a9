/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/protolog_fixture.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		ROW_TEST(test_row_38_columns),
		ROW_TEST(test_row_38_sets),
		ROW_TEST(test_row_38_off),
		ROW_TEST(test_row_38_injection),
		ROW_TEST(test_row_38_long),
		ROW_TEST(test_row_38_auth),
		ROW_TEST(test_row_38_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
