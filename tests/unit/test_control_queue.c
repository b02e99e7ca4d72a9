/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_control_queue.c: relay/control_queue.c: queues of two workers as one, what is done to them,
 * the spool's sums, and requests that mean nothing.
 */

#include "tests/unit/queue_desk_fixture.h"

static void test_sums(void **state)
{
	struct queue_row *row;
	json_t *object;
	json_t *sum;

	(void)state;
	row = add_queue(0, "adatum.com (secured)", QUEUE_RETRY, 3);
	row->bytes = 300;
	row->retry_count = 4;
	row->last_retry_ms = 5000;
	row->next_retry_ms = 9000;
	row->oldest_ms = 700;
	row->in_minute = 2;
	(void)snprintf(row->last_error, sizeof(row->last_error), "older");
	(void)snprintf(row->connector, sizeof(row->connector), "Internet");
	(void)snprintf(row->tls_domain, sizeof(row->tls_domain), "adatum.com");
	row = add_queue(1, "ADATUM.COM (secured)", QUEUE_ACTIVE, 2);
	row->bytes = 50;
	row->active = 1;
	row->retry_count = 1;
	row->last_retry_ms = 6000;
	row->next_retry_ms = 8000;
	row->out_minute = 5;
	(void)snprintf(row->last_error, sizeof(row->last_error), "caf\xe9 later");
	row = add_queue(1, "Submission", QUEUE_READY, 0);
	row->kind = QUEUE_SUBMISSION;
	object = desk_look("{\"command\": \"queue-list\"}");
	assert_int_equal(number_in(object, "matched"), 2);
	sum = json_array_get(json_object_get(object, "queues"), 0);
	assert_int_equal(strcasecmp(text_in(sum, "identity"), "adatum.com (secured)"), 0);
	assert_int_equal(strcasecmp(text_in(sum, "next_hop_domain"), "adatum.com"), 0);
	assert_string_equal(text_in(sum, "status"), "Active");
	assert_string_equal(text_in(sum, "delivery_type"), "DnsConnectorDelivery");
	assert_string_equal(text_in(sum, "connector"), "Internet");
	assert_string_equal(text_in(sum, "last_error"), "caf? later");
	assert_int_equal(number_in(sum, "message_count"), 5);
	assert_int_equal(number_in(sum, "bytes"), 350);
	assert_int_equal(number_in(sum, "active"), 1);
	assert_int_equal(number_in(sum, "retry_count"), 4);
	assert_int_equal(number_in(sum, "last_retry_ms"), 6000);
	assert_int_equal(number_in(sum, "next_retry_ms"), 8000);
	assert_int_equal(number_in(sum, "oldest_ms"), 700);
	assert_int_equal(number_in(sum, "in_minute"), 2);
	assert_int_equal(number_in(sum, "out_minute"), 5);
	sum = json_array_get(json_object_get(object, "queues"), 1);
	assert_string_equal(text_in(sum, "identity"), "Submission");
	assert_string_equal(text_in(sum, "next_hop_domain"), "Submission");
	assert_string_equal(text_in(sum, "delivery_type"), queue_kind_word(QUEUE_SUBMISSION));
	json_decref(object);
}

/* The state of two workers' queue, for each pair. */
static void test_precedence(void **state)
{
	static const enum queue_status order[] = {
		QUEUE_ACTIVE, QUEUE_CONNECTING, QUEUE_RETRY, QUEUE_READY, QUEUE_SUSPENDED};

	(void)state;
	for (unsigned a = 0; a < COUNT_OF(order); a++) {
		for (unsigned b = 0; b < COUNT_OF(order); b++) {
			json_t *object;

			workers[0].queue_count = workers[1].queue_count = 0;
			(void)add_queue(0, "a.example", order[a], 1);
			(void)add_queue(1, "a.example", order[b], 1);
			object = desk_look("{\"command\":\"queue-show\",\"queue\":\"a.example\"}");
			assert_string_equal(text_in(json_object_get(object, "queue"), "status"),
				queue_status_word(order[a < b ? a : b]));
			json_decref(object);
		}
	}
}

/* What is asked for by status is what the workers say together. */
static void test_status_filter(void **state)
{
	json_t *object;

	(void)state;
	(void)add_queue(0, "a.example", QUEUE_RETRY, 1);
	(void)add_queue(1, "a.example", QUEUE_ACTIVE, 1);
	(void)add_queue(1, "b.example", QUEUE_RETRY, 7);
	object = desk_look("{\"command\": \"queue-list\", \"status\": \"retry\"}");
	assert_int_equal(number_in(object, "matched"), 1);
	assert_string_equal(
		text_in(json_array_get(json_object_get(object, "queues"), 0), "identity"),
		"b.example");
	json_decref(object);
	assert_false(workers[0].last.filter.has_status);
	object = desk_look("{\"command\": \"queue-list\", \"queue\": \"A.example\"}");
	assert_int_equal(number_in(object, "matched"), 1);
	json_decref(object);
	assert_string_equal(workers[1].last.filter.queue, "A.example");
}

/* More queues than a worker is asked for at first, in pages. */
static void test_pages(void **state)
{
	char name[32];
	char line[128];
	unsigned seen = 0;

	(void)state;
	for (unsigned i = 0; i < 150; i++) {
		(void)snprintf(name, sizeof(name), "d%03u.example", i);
		(void)add_queue(i % 2, name, QUEUE_READY, i);
		(void)add_queue(1 - i % 2, name, QUEUE_READY, 1000);
	}
	for (unsigned skip = 0; skip < 200; skip += 40) {
		json_t *object;
		const json_t *rows;

		(void)snprintf(line, sizeof(line),
			"{\"command\": \"queue-list\", \"limit\": 40, \"skip\": %u}", skip);
		object = desk_look(line);
		rows = json_object_get(object, "queues");
		assert_int_equal(number_in(object, "matched"), 150);
		for (size_t i = 0; i < json_array_size(rows); i++, seen++)
			assert_int_equal(
				number_in(json_array_get(rows, i), "message_count"), 1000 + seen);
		json_decref(object);
	}
	assert_int_equal(seen, 150);
}

static void test_changes(void **state)
{
	static const struct {
		const char *command;
		enum queue_verb verb;
	} rows[] = {
		{"queue-retry", QUEUE_ASK_RETRY},
		{"queue-resubmit", QUEUE_ASK_RESUBMIT},
		{"queue-suspend", QUEUE_ASK_SUSPEND},
		{"queue-resume", QUEUE_ASK_RESUME},
	};
	char line[128];
	json_t *answer;

	(void)state;
	(void)add_queue(1, "a.example", QUEUE_READY, 1);
	for (unsigned i = 0; i < COUNT_OF(rows); i++) {
		(void)snprintf(line, sizeof(line),
			"{\"command\": \"%s\", \"queue\": \"a.example\"}", rows[i].command);
		workers[0].does = 2;
		workers[1].does = 3;
		desk_count(line, 5);
		assert_int_equal(workers[1].last.verb, rows[i].verb);
		assert_string_equal(workers[1].last.filter.queue, "a.example");
		/* It is there, and in no state for it. */
		workers[0].does = workers[1].does = 0;
		answer = desk_ask(line, NULL);
		assert_int_equal(number_in(answer, "count"), 0);
		assert_string_equal(text_in(answer, "status"), "Ready");
		json_decref(answer);
		(void)snprintf(line, sizeof(line),
			"{\"command\": \"%s\", \"queue\": \"b.example\"}", rows[i].command);
		desk_expect(line, "unknown-queue", "b.example");
	}
	workers[0].does = 4;
	desk_count("{\"command\": \"queue-redirect\", \"queue\": \"a.example\","
		   " \"to\": \"Smart host\"}",
		4);
	assert_int_equal(workers[0].last.verb, QUEUE_ASK_REDIRECT);
	assert_string_equal(workers[0].last.target, "Smart host");
	desk_expect("{\"command\": \"queue-redirect\", \"queue\": \"a.example\", \"to\": \"x\"}",
		"unknown-connector", "\"x\"");
	desk_expect("{\"command\": \"queue-redirect\", \"queue\": \"a.example\"}", "bad-request",
		"\"to\" is missing");
}

static void test_spool(void **state)
{
	json_t *object;
	json_t *row;

	(void)state;
	workers[0].facts = (struct queues_facts){.messages = 3, .queues = 2, .active = 1};
	workers[0].spool = (struct spool_facts){
		.level = SPOOL_MEDIUM, .segments_used = 4, .bytes_used = 900, .writes = 7};
	workers[1].facts = (struct queues_facts){.messages = 10, .queues = 1, .bytes_each = 700};
	workers[1].spool = (struct spool_facts){.level = SPOOL_NORMAL,
		.segments_used = 1,
		.segments_free = 2,
		.segments_failed = 1,
		.bytes_used = 100,
		.flushes = 5,
		.records = 9};
	object = desk_look("{\"command\": \"spool-status\"}");
	assert_string_equal(text_in(object, "folder"), spool_folder);
	assert_string_equal(text_in(object, "level"), "medium");
	assert_int_equal(number_in(object, "messages"), 13);
	assert_int_equal(number_in(object, "queues"), 3);
	assert_int_equal(number_in(object, "active"), 1);
	assert_int_equal(number_in(object, "segments_used"), 5);
	assert_int_equal(number_in(object, "segments_free"), 2);
	assert_int_equal(number_in(object, "segments_failed"), 1);
	assert_int_equal(number_in(object, "bytes_used"), 1000);
	assert_int_equal(number_in(object, "bytes_max"), 1000000);
	assert_int_equal(number_in(object, "messages_max"), 5000);
	assert_int_equal(number_in(object, "writes"), 7);
	assert_int_equal(number_in(object, "flushes"), 5);
	assert_int_equal(number_in(object, "records"), 9);
	assert_int_equal(number_in(object, "bytes_each"), 700);
	row = json_object_get(object, "pressure");
	assert_int_equal(number_in(row, "medium"), 90);
	assert_int_equal(number_in(row, "high"), 98);
	assert_int_equal(number_in(row, "high_end"), 97);
	assert_int_equal(number_in(row, "medium_end"), 85);
	row = json_array_get(json_object_get(object, "workers"), 1);
	assert_int_equal(number_in(row, "worker"), 1);
	assert_string_equal(text_in(row, "level"), "normal");
	json_decref(object);
	workers[1].spool.level = SPOOL_FAILED;
	object = desk_look("{\"command\": \"spool-status\"}");
	assert_string_equal(text_in(object, "level"), "failed");
	json_decref(object);
	workers[1].spool.level = SPOOL_HIGH;
	object = desk_look("{\"command\": \"spool-status\"}");
	assert_string_equal(text_in(object, "level"), "high");
	json_decref(object);
}

static void test_bad_requests(void **state)
{
	static const char *const rows[][2] = {
		{"{\"command\": \"queue-\"}", "queue-list, queue-show"},
		{"{\"command\": \"queue-\"}", "msg-list, msg-show, msg-export, msg-suspend"},
		{"{\"command\": \"queue-list\", \"name\": \"a\"}", "\"name\" is nothing"},
		{"{\"command\": \"queue-list\", \"id\": \"a\"}", "\"id\" is nothing"},
		{"{\"command\": \"queue-list\", \"limit\": -1}", "\"limit\" must be a whole"},
		{"{\"command\": \"queue-list\", \"queue\": 1}", "\"queue\" must be a text"},
		{"{\"command\": \"queue-list\", \"queue\": \"\"}", "\"queue\" must have 1 to 319"},
		{"{\"command\": \"queue-list\", \"status\": \"Lost\"}", "\"status\" must be one"},
		{"{\"command\": \"queue-list\", \"bytes\": 1}", "nothing may follow"},
		{"{\"command\": \"queue-show\"}", "\"queue\" is missing"},
		{"{\"command\": \"queue-retry\"}", "\"queue\" is missing"},
		{"{\"command\": \"queue-retry\", \"queue\": \"a\", \"to\": \"b\"}",
			"\"to\" is nothing"},
		{"{\"command\": \"queue-redirect\", \"to\": \"b\"}", "\"queue\" is missing"},
		{"{\"command\": \"spool-status\", \"limit\": 1}", "\"limit\" is nothing"},
	};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(rows); i++)
		desk_expect(rows[i][0], "bad-request", rows[i][1]);
	assert_int_equal(workers[0].asked + workers[1].asked, 0);
	desk_expect("{\"command\": \"queue-show\", \"queue\": \"a\"}", "unknown-queue",
		"there is no queue \"a\"");
}

static void test_no_queue(void **state)
{
	static const char *const commands[] = {"queue-list", "spool-status", "msg-list"};
	char line[64];

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(commands); i++) {
		(void)snprintf(line, sizeof(line), "{\"command\": \"%s\"}", commands[i]);
		desk.spool_folder = NULL;
		desk_expect(line, "no-queue", "no spool-folder");
		desk.spool_folder = spool_folder;
		desk.hooks.ask = NULL;
		desk_expect(line, "no-queue", "no spool-folder");
		desk.hooks.ask = fake_ask;
	}
	/* One of them has no answer any more. */
	workers[1].rc = -ETIMEDOUT;
	for (unsigned i = 0; i < COUNT_OF(commands); i++) {
		(void)snprintf(line, sizeof(line), "{\"command\": \"%s\"}", commands[i]);
		desk_expect(line, "no-answer", "worker 1");
	}
	desk_expect("{\"command\": \"queue-suspend\", \"queue\": \"a\"}", "no-answer", "worker 1");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_sums, desk_up, desk_down),
		cmocka_unit_test_setup_teardown(test_precedence, desk_up, desk_down),
		cmocka_unit_test_setup_teardown(test_status_filter, desk_up, desk_down),
		cmocka_unit_test_setup_teardown(test_pages, desk_up, desk_down),
		cmocka_unit_test_setup_teardown(test_changes, desk_up, desk_down),
		cmocka_unit_test_setup_teardown(test_spool, desk_up, desk_down),
		cmocka_unit_test_setup_teardown(test_bad_requests, desk_up, desk_down),
		cmocka_unit_test_setup_teardown(test_no_queue, desk_up, desk_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
