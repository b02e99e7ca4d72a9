/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_queues_end.c: how the queues end, logs of another start, what the tracking log says, and the
 * limits of memory.
 */

#include "tests/unit/queues_fixture.h"

static const char config[] =
	"receive-connector \"in\" { bindings = \"127.0.0.1:2525\" send-connector = out }\n"
	"send-connector \"out\" { address-spaces = { \"*\" } smart-hosts = { \"127.0.0.1:@0\" }\n"
	"  ignore-starttls = yes }\n"
	"send-connector \"second\" { address-spaces = { \"second.test\" }\n"
	"  smart-hosts = { \"127.0.0.1:@1\" } ignore-starttls = yes }\n";

static void test_drain(void **state)
{
	(void)state;
	rig.hops[0].holds_end = true;
	(void)mail_send("<a@adatum.test>");
	AWAIT(rig.hops[0].count == 1);
	queues_drain(rig.queues);
	(void)mail_send("<b@adatum.test>");
	rig_idle(20);
	assert_false(queues_are_closed(rig.queues));
	hop_release(&rig.hops[0]);
	AWAIT(queues_are_closed(rig.queues));
	/* What came meanwhile waits for the next start. */
	assert_int_equal(rig.hops[0].count, 1);
	assert_int_equal(rig_messages(), 1);
	rig_restart();
	AWAIT(rig_messages() == 0);
	assert_int_equal(rig.hops[0].count, 2);
	assert_string_equal(rig.hops[0].messages[1].rcpts, "b@adatum.test ");
}

/* A notice that is owed is made before the end. */
static void test_drain_tells(void **state)
{
	(void)state;
	(void)mail_send("<nobody@adatum.test>");
	AWAIT(rig.hops[0].mails == 1);
	queues_drain(rig.queues);
	AWAIT(queues_are_closed(rig.queues));
	assert_int_equal(rig_messages(), 1);
	rig_restart();
	AWAIT(rig_messages() == 0);
	assert_int_equal(rig.hops[0].count, 1);
	assert_string_equal(rig.hops[0].messages[0].sender, "<>");
}

/* Cut at any moment: nothing is lost, and what was answered for is not sent again. */
static void test_cut(void **state)
{
	(void)state;
	for (unsigned turns = 0; turns < 25; turns++) {
		const unsigned before = rig.hops[0].count;

		(void)mail_send("<a@adatum.test> <b@adatum.test>");
		rig_idle(turns);
		rig_restart();
		AWAIT(rig_messages() == 0);
		assert_in_range(rig.hops[0].count - before, 1, 2);
	}
}

static int two_logs_setup(void **state)
{
	rig.spool_count = 2;
	return rig_setup(state);
}

/* Messages and notes of a log that another worker had. */
static void test_other_log(void **state)
{
	static const char note[] = "2 0 1 0 0 0 0 0 0\nsecond\n\n\n";
	uint64_t id;

	(void)state;
	hop_down(&rig.hops[0]);
	rig.log = 1;
	id = mail_send("<a@adatum.test>");
	(void)mail_send("<b@second.test>");
	AWAIT(rig_queue("out")->retry_count == 1);
	AWAIT(rig.hops[1].count == 1);
	assert_int_equal(rig_message(id)->log, 1);
	spool_note(rig.spools[1], queue_key("second", "", false), span_of(note), NULL);
	rig_idle(10);
	rig_restart();
	AWAIT(rig_queue("out")->messages == 1);
	assert_int_equal(rig_message(id)->log, 1);
	assert_int_equal(rig_queue("second")->status, QUEUE_SUSPENDED);
	/* The note has moved to the worker's own log, so it outlives the other. */
	assert_int_equal(rig_do(QUEUE_ASK_RESUME, "second", NULL), 1);
	rig_idle(10);
	rig_restart();
	AWAIT(rig_queue("out")->messages == 1);
	assert_string_equal(rig_queue("second")->identity, "");
	hop_listen(&rig.hops[0]);
	rig_wait(MINUTE_MS);
	AWAIT(rig_messages() == 0);
}

static void test_bad_notes(void **state)
{
	static const char *const bad[] = {"x", "2 0 1 0 0 0 0 0\nout\n\n\n",
		"2 0 1 0 0 0 0 0 0\nout\n", "1 0 1 0 0 0 0 0 0\nout\n\n\n",
		"2 0 +1 0 0 0 0 0 0\nout\n\n\n"};
	struct queue_note_text out;
	char text[600];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(bad); i++)
		assert_false(queue_note_read(span_of(bad[i]), &out));
	assert_false(queue_note_read((struct span){0}, &out));
	/* A name that is too long. */
	(void)snprintf(text, sizeof(text), "2 0 1 0 0 0 0 0 0\n%0300d\n\n\n", 0);
	assert_false(queue_note_read(span_of(text), &out));
	(void)snprintf(text, sizeof(text), "2 1 0 7 1 2 3 4 5\nout\nd.test\nback\nwhy");
	assert_true(queue_note_read(span_of(text), &out));
	assert_true(out.is_secured);
	assert_int_equal(out.failures, 7);
	assert_int_equal(out.redirect_until_ms, 5);
	assert_string_equal(out.redirect, "back");
	assert_string_equal(out.error, "why");
}

/* All that stands in the files of the tracking log. */
static void read_tracks(const char *path, char *out, size_t out_bytes)
{
	DIR *dir = opendir(path);
	size_t len = 0;

	assert_non_null(dir);
	for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
		char name[1024];
		FILE *in;

		(void)snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		in = entry->d_name[0] != '.' ? fopen(name, "r") : NULL;
		if (in == NULL)
			continue;
		len += fread(out + len, 1, out_bytes - len - 1, in);
		assert_int_equal(fclose(in), 0);
	}
	(void)closedir(dir);
	out[len] = '\0';
}

static void start_tracks(char *path, size_t path_bytes)
{
	(void)snprintf(path, path_bytes, "%s/tracks", folder);
	assert_int_equal(track_start(&(struct logset_options){.folder = path,
					     .max_file_bytes = 1 << 20,
					     .max_directory_bytes = 1 << 24,
					     .max_age_ms = 1000000000},
				 1),
		0);
	track_attach(0);
}

/* A message through Retry: its story can be told from the log (EXCHANGE 14, row 40). */
static void test_tracks(void **state)
{
	static char tracks[65536];
	char path[128], id_text[MESSAGE_ID_TEXT_BYTES];
	const char *defer;
	uint64_t id;

	(void)state;
	start_tracks(path, sizeof(path));
	hop_down(&rig.hops[0]);
	id = mail_send("<a@adatum.test> <nobody@adatum.test>");
	AWAIT(rig_queue("out")->retry_count == 1);
	hop_listen(&rig.hops[0]);
	assert_int_equal(rig_do_message(QUEUE_ASK_MESSAGE_SUSPEND, id), 1);
	assert_int_equal(rig_do_message(QUEUE_ASK_MESSAGE_RESUME, id), 1);
	rig_wait(MINUTE_MS);
	AWAIT(rig_messages() == 0);
	track_stop();
	read_tracks(path, tracks, sizeof(tracks));
	empty_folder(path);
	message_id_print(id, id_text);
	assert_non_null(strstr(tracks, id_text));
	defer = strstr(tracks, ",DEFER,");
	assert_non_null(defer);
	assert_non_null(strstr(defer, ",SUSPEND,"));
	assert_non_null(strstr(defer, ",RESUME,"));
	assert_non_null(strstr(defer, ",SEND,"));
	assert_non_null(strstr(defer, ",FAIL,"));
	assert_non_null(strstr(defer, "550 5.1.1 No such user"));
	assert_non_null(strstr(defer, "a@adatum.test"));
	assert_non_null(strstr(defer, ",DSN,"));
	assert_non_null(strstr(defer, ",Hello,"));
}

/* tracking-log-subject = no: not of what was delivered, nor of what failed. */
static void test_tracks_no_subject(void **state)
{
	static char tracks[65536];
	char path[128];

	(void)state;
	rig.policy->queue.tracking_log_subject = false;
	start_tracks(path, sizeof(path));
	(void)mail_send("<a@adatum.test> <nobody@adatum.test>");
	AWAIT(rig_messages() == 0);
	track_stop();
	rig.policy->queue.tracking_log_subject = true;
	read_tracks(path, tracks, sizeof(tracks));
	empty_folder(path);
	assert_non_null(strstr(tracks, ",SEND,"));
	assert_non_null(strstr(tracks, ",FAIL,"));
	assert_non_null(strstr(tracks, ",DSN,"));
	assert_null(strstr(tracks, "Hello"));
}

/* A place for each message, and no more; places beyond them are for notices. */
static void test_full(void **state)
{
	static struct message *taken[200];
	unsigned count = 0;

	(void)state;
	rig.queues->messages_max = 100;
	for (unsigned i = 0; i < 150; i++) {
		taken[count] = message_take(rig.queues, rig.spools[0]);
		count += taken[count] != NULL;
	}
	assert_int_equal(count, 100);
	rig.queues->jobs_telling = 1;
	taken[count] = message_take(rig.queues, rig.spools[0]);
	assert_non_null(taken[count++]);
	rig.queues->jobs_telling = 0;
	assert_null(message_take(rig.queues, rig.spools[0]));
	while (count > 0)
		message_put(rig.queues, &taken[--count]);
	assert_int_equal(rig_messages(), 0);
}

int main(void)
{
#define RIG(test) cmocka_unit_test_setup_teardown(test, rig_setup, rig_teardown)
	static const struct CMUnitTest tests[] = {
		RIG(test_drain),
		RIG(test_drain_tells),
		RIG(test_cut),
		cmocka_unit_test_setup_teardown(test_other_log, two_logs_setup, rig_teardown),
		cmocka_unit_test(test_bad_notes),
		RIG(test_tracks),
		RIG(test_tracks_no_subject),
		RIG(test_full),
	};

	rig.config = config;
	if (loop_probe(&found) < 0) {
		(void)printf("no io_uring here\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
