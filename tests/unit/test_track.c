/* SPDX-License-Identifier: Apache-2.0 */
#define COLUMNS 30
#include "relay/base/track.h"
#include "tests/unit/protolog_fixture.h"

static char *tracked[COLUMNS];

static int track_setup(void **state)
{
	return protolog_setup(state);
}

static int track_teardown(void **state)
{
	track_stop();
	return protolog_teardown(state);
}

static void track_begin(uint64_t max_file, uint64_t max_directory)
{
	const struct logset_options options = {place, max_file, max_directory, 2592000000};

	assert_int_equal(track_start(&options, 2), 0);
	track_attach(1);
	assert_true(track_is_on());
}

/* Behind the five lines of the header. */
static char *track_rows(const char *name)
{
	static const char *const heads[] = {"#Software: Postern\r\n",
		"#Version: ", "#Log-type: Message Tracking Log\r\n", "#Date: 2026-11-21T",
		"#Fields: date-time,client-ip,client-hostname,server-ip,server-hostname,"
		"source-context,connector-id,source,event-id,internal-message-id,message-id,"
		"network-message-id,recipient-address,recipient-status,total-bytes,"
		"recipient-count,related-recipient-address,reference,message-subject,"
		"sender-address,return-path,message-info,directionality,tenant-id,"
		"original-client-ip,original-server-ip,custom-data,transport-traffic-type,log-id,"
		"schema-version\r\n"};
	char *at = slurp(name);

	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(strncmp(at, heads[i], strlen(heads[i])), 0);
		at = strstr(at, "\r\n") + 2;
	}
	return at;
}

static void expect_row(const char *const want[COLUMNS])
{
	for (unsigned i = 0; i < COLUMNS; i++)
		assert_string_equal(tracked[i], want[i]);
}

static void test_columns(void **state)
{
	static const char *const want[COLUMNS] = {"2026-11-21T22:46:05.000Z", "192.0.2.1",
		"client.example", "192.0.2.2", "edge.a.example", "0a1b2c", "partners", "SMTP",
		"RECEIVE", "00000000000000ab", "<one@b.example>", "", "a@a.example;b@a.example",
		"250 2.1.5 OK;550 5.1.1 no, \"never\"", "1234", "2", "", "ref", "Hello, \"you\"",
		"s@b.example", "s@b.example", "", "", "", "", "", "S:Key=value;S:Other=2", "Email",
		"", POSTERN_VERSION};
	static const char *const empty[COLUMNS] = {"2026-11-21T22:46:05.000Z", "", "", "", "", "",
		"", "", "SUSPEND", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "",
		"", "", "Email", "", POSTERN_VERSION};
	const struct track_row row = {.event = TRACK_RECEIVE,
		.source = "SMTP",
		.connector = "partners",
		.context = "0a1b2c",
		.client_ip = span_of("192.0.2.1"),
		.client_host = span_of("client.example"),
		.server_ip = span_of("192.0.2.2"),
		.server_host = span_of("edge.a.example"),
		.id = 0xab,
		.message_id = span_of("<one@b.example>"),
		.recipients = span_of("a@a.example;b@a.example"),
		.statuses = span_of("250 2.1.5 OK;550 5.1.1 no, \"never\""),
		.bytes = 1234,
		.recipient_count = 2,
		.reference = span_of("ref"),
		.subject = span_of("Hello, \"you\""),
		.sender = span_of("s@b.example"),
		.custom = span_of("S:Key=value;S:Other=2")};
	const struct track_row bare = {.event = TRACK_SUSPEND};
	char *at;

	(void)state;
	track_begin(10485760, 262144000);
	track_write(&row);
	track_write(&bare);
	track_stop();
	assert_false(track_is_on());

	at = track_rows("MSGTRK2026112122-1.LOG");
	assert_true(csv_next(&at, tracked));
	expect_row(want);
	assert_true(csv_next(&at, tracked));
	expect_row(empty);
	assert_false(csv_next(&at, tracked));
	assert_int_equal(counters.track_dropped, 0);
}

static void test_events(void **state)
{
	static const char *const words[TRACK_EVENT_COUNT] = {"RECEIVE", "SEND", "DEFER", "FAIL",
		"DSN", "RESUBMIT", "SUSPEND", "RESUME", "REDIRECT"};
	char *at;

	(void)state;
	track_begin(10485760, 262144000);
	for (unsigned i = 0; i < TRACK_EVENT_COUNT; i++) {
		const struct track_row row = {.event = (enum track_event)i};

		assert_string_equal(track_event_word(row.event), words[i]);
		track_write(&row);
	}
	track_stop();
	at = track_rows("MSGTRK2026112122-1.LOG");
	for (unsigned i = 0; i < TRACK_EVENT_COUNT; i++) {
		assert_true(csv_next(&at, tracked));
		assert_string_equal(tracked[8], words[i]);
	}
	assert_false(csv_next(&at, tracked));
}

/* A row is one line, and fits, whatever is in it. */
static void test_hostile(void **state)
{
	static char longest[65536];
	struct track_row row = {.event = TRACK_FAIL,
		.subject = span_of("a\r\nb\tc\xff\xc3\xa9"),
		.sender = span_make("\0,", 2)};
	char *at;

	(void)state;
	memset(longest, '"', sizeof(longest) - 1);
	track_begin(10485760, 262144000);
	track_write(&row);
	row = (struct track_row){.event = TRACK_FAIL,
		.source = "a source that is too long for its column",
		.connector = longest,
		.context = longest,
		.id = UINT64_MAX,
		.bytes = UINT64_MAX,
		.recipient_count = UINT32_MAX};
	row.client_ip = row.client_host = row.server_ip = row.server_host = row.message_id =
		row.recipients = row.statuses = row.reference = row.subject = row.sender =
			row.custom = span_of(longest);
	track_write(&row);
	memset(longest, '\x01', sizeof(longest) - 1);
	track_write(&row);
	track_stop();
	at = track_rows("MSGTRK2026112122-1.LOG");
	assert_true(csv_next(&at, tracked));
	assert_string_equal(tracked[18], "a\\x0d\\x0ab\\x09c\\xff\xc3\xa9");
	assert_string_equal(tracked[19], "\\x00,");
	assert_true(csv_next(&at, tracked));
	assert_string_equal(tracked[14], "18446744073709551615");
	assert_true(csv_next(&at, tracked));
	assert_false(csv_next(&at, tracked));
	assert_int_equal(counters.track_dropped, 0);
}

/* A list that is too long ends with a whole address. */
static void test_long_list(void **state)
{
	static char list[8192];
	struct track_row row = {.event = TRACK_SEND, .recipient_count = 400};
	size_t len = 0;
	char *at;

	(void)state;
	for (unsigned i = 0; i < 400; i++)
		len += (size_t)snprintf(
			list + len, sizeof(list) - len, "%s%03u@a.example", i == 0 ? "" : ";", i);
	row.recipients = span_make(list, len);
	row.statuses = span_make(list, 3583);
	track_begin(10485760, 262144000);
	track_write(&row);
	track_stop();
	at = track_rows("MSGTRK2026112122-1.LOG");
	assert_true(csv_next(&at, tracked));
	len = strlen(tracked[12]);
	assert_true(len > 3500 && len % 14 == 13 && strncmp(list, tracked[12], len) == 0);
	assert_string_equal(tracked[13], tracked[12]);
	assert_string_equal(tracked[15], "400");
	assert_false(csv_next(&at, tracked));
}

static void test_turn_over(void **state)
{
	const struct track_row row = {.event = TRACK_SEND, .subject = span_of("one")};
	char *at;

	(void)state;
	track_begin(1100, 262144000);
	for (unsigned i = 0; i < 12; i++)
		track_write(&row);
	track_stop();
	assert_true(exists("MSGTRK2026112122-1.LOG"));
	assert_true(exists("MSGTRK2026112122-2.LOG"));
	track_begin(10485760, 262144000);
	clock_set(NOW + 3600);
	track_write(&row);
	track_stop();
	at = track_rows("MSGTRK2026112123-1.LOG");
	assert_true(csv_next(&at, tracked));
	assert_false(csv_next(&at, tracked));
}

/* Two logs at a time, each with its own folder and limits; and one that has no folder. */
static void test_beside_protolog(void **state)
{
	const struct track_row row = {.event = TRACK_SEND};
	struct logset_options options = {NULL, 10485760, 262144000, 2592000000};
	struct protolog log = session_log(PROTOLOG_RECEIVE);

	(void)state;
	assert_false(track_is_on());
	track_write(&row);
	track_configure(&options);
	start_usual();
	assert_int_equal(track_start(&options, 1), 0);
	track_attach(0);
	assert_false(track_is_on());
	track_write(&row);
	protolog_open(&log);
	protolog_close(&log, NULL);
	protolog_stop();
	assert_true(exists("RECV2026112122-1.LOG"));
	assert_false(exists("MSGTRK2026112122-1.LOG"));
	options.folder = place;
	track_configure(&options);
	assert_true(track_is_on());
	track_write(&row);
	track_stop();
	assert_true(exists("MSGTRK2026112122-1.LOG"));
	assert_int_equal(counters.track_dropped, 0);
}

static void test_dropped(void **state)
{
	static char subject[1000];
	const struct track_row row = {.event = TRACK_SEND, .subject = span_make(subject, 1000)};
	struct logset_options options = {folder, 10485760, 262144000, 2592000000};
	unsigned written = 0;
	char path[sizeof(folder) + 16];
	int fd;

	(void)state;
	/* A file stands where the folder should be, so nothing is ever written. */
	(void)snprintf(path, sizeof(path), "%s/plain", folder);
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	assert_true(fd >= 0);
	(void)close(fd);
	options.folder = path;
	memset(subject, 's', sizeof(subject));
	assert_int_equal(track_start(&options, 1), 0);
	track_attach(0);
	while (counters.track_dropped == 0 && written < 4000) {
		track_write(&row);
		written++;
	}
	assert_int_equal(counters.track_dropped, 1);
	assert_true(written > 500);
	/* A thread of no worker has no buffer. */
	track_attach(7);
	track_write(&row);
	assert_int_equal(counters.track_dropped, 2);
	track_stop();
	(void)unlink(path);
}

#define TRACK_TEST(name) cmocka_unit_test_setup_teardown(name, track_setup, track_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {TRACK_TEST(test_columns), TRACK_TEST(test_events),
		TRACK_TEST(test_hostile), TRACK_TEST(test_long_list), TRACK_TEST(test_turn_over),
		TRACK_TEST(test_beside_protolog), TRACK_TEST(test_dropped)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
