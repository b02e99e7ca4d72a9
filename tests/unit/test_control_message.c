/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_control_message.c: relay/control_message*.c and control_letter.c: messages of two workers in
 * pages, what the spool has of them, what is done to them, and messages that are gone.
 */

#include "tests/unit/queue_desk_fixture.h"

#define SEGMENT_BYTES 9437184

static uint8_t segment[SEGMENT_BYTES];
static uint8_t payload[RECORD_BYTES_MAX];
static size_t segment_at;
static uint64_t segment_number;
static uint64_t sequence;

/* ---- a segment, as a spool writes it */

static uint32_t put_record(enum record_type type, uint64_t id, size_t len)
{
	const struct record_head head = {.type = type,
		.payload_bytes = (uint32_t)len,
		.segment = segment_number,
		.sequence = sequence + 1,
		.id = id,
		.time_ms = 1};
	const size_t offset = segment_at;

	assert_true(offset + RECORD_HEADER_BYTES + len <= sizeof(segment));
	memcpy(segment + offset + RECORD_HEADER_BYTES, payload, len);
	record_seal(&head, segment + offset);
	sequence++;
	segment_at += (record_bytes(len) + RECORD_ALIGN - 1) / RECORD_ALIGN * RECORD_ALIGN;
	return (uint32_t)offset;
}

/* The next write begins at a block. */
static void next_write(void)
{
	segment_at = (segment_at + RECORD_BLOCK - 1) / RECORD_BLOCK * RECORD_BLOCK;
}

static void begin(unsigned log, uint64_t number)
{
	const struct record_segment head = {.format = RECORD_FORMAT,
		.log = log,
		.number = number,
		.segment_bytes = SEGMENT_BYTES};

	memset(segment, 0, sizeof(segment));
	segment_at = 0;
	segment_number = number;
	record_write_segment(&head, payload);
	(void)put_record(RECORD_SEGMENT, 0, RECORD_SEGMENT_BYTES);
	next_write();
}

static void finish(unsigned log, unsigned file)
{
	char path[96];
	FILE *out;

	(void)snprintf(path, sizeof(path), "%s/%02u/%06u.seg", spool_folder, log, file);
	out = fopen(path, "we");
	assert_non_null(out);
	assert_int_equal(fwrite(segment, 1, sizeof(segment), out), sizeof(segment));
	assert_int_equal(fclose(out), 0);
}

/* MESSAGE from sender to rcpts (NULL ends them), with a rest of its body; fills row in. */
static void put_message_of(struct message_row *row, const char *sender, const char *const *rcpts,
	const struct record_extent *extent, const char *text)
{
	static uint8_t encoded[4096];
	uint8_t place[RECORD_EXTENT_BYTES];
	struct envelope envelope = {.sender = span_of(sender),
		.subject = span_of("caf\xc3\xa9"),
		.message_id = span_of("<1@fabrikam.com>"),
		.client = span_of("192.0.2.7"),
		.helo = span_of("mail.fabrikam.com"),
		.connector = span_of("From partners"),
		.session = span_of("S1"),
		.flags = ENVELOPE_SECURED,
		.body_bytes = strlen(text) + (extent == NULL ? 0 : extent->bytes)};
	struct record_message message = {.body_bytes = envelope.body_bytes,
		.extent_count = extent == NULL ? 0 : 1,
		.text = span_of(text)};
	size_t len;
	size_t at;

	while (rcpts[envelope.rcpt_count] != NULL)
		envelope.rcpt_count++;
	len = envelope_write(&envelope, encoded, sizeof(encoded));
	assert_true(len > 0);
	for (unsigned i = 0; rcpts[i] != NULL; i++) {
		const struct envelope_rcpt rcpt = {.path = span_of(rcpts[i])};
		size_t more = envelope_write_rcpt(&rcpt, encoded + len, sizeof(encoded) - len);

		assert_true(more > 0);
		len += more;
	}
	message.envelope = span_make(encoded, len);
	if (extent != NULL) {
		record_write_extent(extent, place);
		message.extents = span_make(place, sizeof(place));
	}
	at = record_write_message_head(&message, payload);
	memcpy(payload + at, encoded, len);
	memcpy(payload + at + len, text, strlen(text));
	row->segment = segment_number;
	row->offset = put_record(RECORD_MESSAGE, row->id, at + len + strlen(text));
	row->record_bytes = (uint32_t)record_bytes(at + len + strlen(text));
	row->rcpt_count = row->rcpt_open = envelope.rcpt_count;
	next_write();
}

static const char *const one_rcpt[] = {"<to@adatum.com>", NULL};
static const char *const three_rcpts[] = {"<a@x.example>", "<b@x.example>", "<c@x.example>", NULL};

static void put_change(uint64_t id, uint32_t index, enum rcpt_state state)
{
	const struct envelope_change change = {.count = 1};
	const struct envelope_change_rcpt rcpt = {.index = index, .state = state, .code = 250};
	size_t len = envelope_write_change(&change, payload, sizeof(payload));

	len += envelope_write_change_rcpt(&rcpt, payload + len, sizeof(payload) - len);
	(void)put_record(RECORD_RECIPIENTS, id, len);
	next_write();
}

/* ---- lists */

static json_t *row_at(const json_t *object, size_t i)
{
	json_t *row = json_array_get(json_object_get(object, "messages"), i);

	assert_non_null(row);
	return row;
}

static void test_list(void **state)
{
	struct message_row *row = add_message(1, 0xab, "adatum.com");
	json_t *object;

	(void)state;
	row->status = MESSAGE_RETRY;
	row->arrived_ms = 5000;
	row->expires_ms = 6000;
	row->next_ms = 5500;
	row->attempts = 3;
	row->rcpt_count = 2;
	(void)snprintf(row->last_error, sizeof(row->last_error), "451 later");
	object = desk_look("{\"command\": \"msg-list\"}");
	assert_int_equal(number_in(object, "matched"), 1);
	assert_true(json_is_false(json_object_get(object, "more")));
	row = NULL;
	assert_string_equal(text_in(row_at(object, 0), "id"), "00000000000000ab");
	assert_string_equal(text_in(row_at(object, 0), "queue"), "adatum.com");
	assert_string_equal(text_in(row_at(object, 0), "status"), "Retry");
	assert_string_equal(text_in(row_at(object, 0), "last_error"), "451 later");
	assert_int_equal(number_in(row_at(object, 0), "bytes"), 1000 + 0xab);
	assert_int_equal(number_in(row_at(object, 0), "arrived_ms"), 5000);
	assert_int_equal(number_in(row_at(object, 0), "expires_ms"), 6000);
	assert_int_equal(number_in(row_at(object, 0), "next_ms"), 5500);
	assert_int_equal(number_in(row_at(object, 0), "retry_count"), 3);
	assert_int_equal(number_in(row_at(object, 0), "recipient_count"), 2);
	assert_int_equal(number_in(row_at(object, 0), "recipients_open"), 1);
	assert_int_equal(number_in(row_at(object, 0), "worker"), 1);
	assert_null(json_object_get(row_at(object, 0), "gone"));
	assert_null(json_object_get(row_at(object, 0), "subject"));
	json_decref(object);
}

/* Pages go on from one worker to the next, and none is told twice or left out. */
static void test_pages(void **state)
{
	static const unsigned limits[] = {1, 7, 16, 40, 1000};
	char line[128];

	(void)state;
	for (uint64_t id = 1; id <= 40; id++)
		(void)add_message(id <= 15 ? 0 : 1, id, "adatum.com");
	for (unsigned l = 0; l < COUNT_OF(limits); l++) {
		uint64_t seen = 0;
		bool has_more = true;

		while (has_more && seen <= 40) {
			json_t *object;
			const json_t *rows;
			char id[32];

			(void)snprintf(line, sizeof(line),
				"{\"command\": \"msg-list\", \"limit\": %u, \"skip\": %" PRIu64 "}",
				limits[l], seen);
			object = desk_look(line);
			rows = json_object_get(object, "messages");
			assert_int_equal(number_in(object, "matched"), 40);
			assert_true(json_array_size(rows) <= limits[l]);
			for (size_t i = 0; i < json_array_size(rows); i++) {
				(void)snprintf(id, sizeof(id), "%016" PRIx64, ++seen);
				assert_string_equal(text_in(json_array_get(rows, i), "id"), id);
			}
			has_more = json_is_true(json_object_get(object, "more"));
			json_decref(object);
		}
		assert_int_equal(seen, 40);
	}
	/* How many there are, and none of them; and one that is not there. */
	json_decref(desk_look("{\"command\": \"msg-list\", \"limit\": 0}"));
	json_decref(desk_look("{\"command\": \"msg-list\", \"skip\": 99}"));
}

static void test_filters(void **state)
{
	json_t *object;

	(void)state;
	(void)add_message(0, 1, "adatum.com");
	add_message(1, 2, "fabrikam.com")->status = MESSAGE_SUSPENDED;
	object = desk_look("{\"command\": \"msg-list\", \"queue\": \"fabrikam.com\","
			   " \"status\": \"suspended\", \"id\": \"0000000000000002\","
			   " \"older_than_ms\": 60000, \"larger_than\": 1000}");
	assert_int_equal(number_in(object, "matched"), 1);
	json_decref(object);
	assert_int_equal(workers[0].last.filter.older_than_ms, 60000);
	assert_int_equal(workers[0].last.filter.larger_than, 1000);
	assert_int_equal(workers[0].last.filter.id, 2);
	assert_true(workers[0].last.filter.has_status);
	assert_int_equal(workers[0].last.filter.status, MESSAGE_SUSPENDED);
}

/* More than are looked at together, of which every third is from somebody. */
static void test_letters(void **state)
{
	char line[160];
	uint64_t seen = 0;
	bool has_more = true;

	(void)state;
	begin(0, 4711);
	for (uint64_t id = 1; id <= 600; id++)
		put_message_of(add_message(0, id, "adatum.com"),
			id % 3 == 0 ? "<Ann@fabrikam.com>" : "<>", one_rcpt, NULL, "text\r\n");
	finish(0, 1);
	while (has_more) {
		json_t *object;
		const json_t *rows;

		(void)snprintf(line, sizeof(line),
			"{\"command\": \"msg-list\", \"limit\": 64, \"skip\": %" PRIu64
			", \"sender\": \"ann@FABRIKAM.com\"}",
			seen);
		object = desk_look(line);
		assert_string_equal(workers[0].last.filter.sender, "");
		rows = json_object_get(object, "messages");
		has_more = json_is_true(json_object_get(object, "more"));
		assert_null(json_object_get(object, "matched"));
		assert_true(json_array_size(rows) > 0);
		for (size_t i = 0; i < json_array_size(rows); i++) {
			const json_t *row = json_array_get(rows, i);

			seen++;
			assert_int_equal(number_in(row, "bytes"), 1000 + 3 * seen);
			assert_string_equal(text_in(row, "from_address"), "Ann@fabrikam.com");
			assert_string_equal(text_in(row, "subject"), "caf\xc3\xa9");
			assert_string_equal(text_in(row, "message_id"), "<1@fabrikam.com>");
		}
		json_decref(object);
	}
	assert_int_equal(seen, 200);
}

static size_t rows_of(const char *line)
{
	json_t *object = desk_look(line);
	size_t count = json_array_size(json_object_get(object, "messages"));

	json_decref(object);
	return count;
}

static void test_recipients(void **state)
{
	(void)state;
	begin(1, 9);
	put_message_of(add_message(1, 1, "x.example"), "<>", three_rcpts, NULL, "");
	put_message_of(add_message(1, 2, "adatum.com"), "<a@b.example>", one_rcpt, NULL, "");
	finish(1, 1);
	assert_int_equal(rows_of("{\"command\":\"msg-list\",\"recipient\":\"B@X.example\"}"), 1);
	assert_int_equal(
		rows_of("{\"command\":\"msg-list\",\"recipient\":\"<to@adatum.com>\"}"), 1);
	assert_int_equal(rows_of("{\"command\":\"msg-list\",\"recipient\":\"to@adatum\"}"), 0);
	assert_int_equal(rows_of("{\"command\":\"msg-list\",\"sender\":\"\"}"), 1);
	assert_int_equal(rows_of("{\"command\":\"msg-list\",\"sender\":\"a@b.example\","
				 "\"recipient\":\"b@x.example\"}"),
		0);
}

/* A log of a start with more workers: the second that the first one has. */
static void test_older_log(void **state)
{
	struct message_row *row = add_message(0, 1, "x.example");

	(void)state;
	row->log = 1;
	begin(WORKERS, 5);
	put_message_of(row, "<a@b.example>", one_rcpt, NULL, "");
	finish(WORKERS, 1);
	assert_int_equal(rows_of("{\"command\":\"msg-list\",\"sender\":\"a@b.example\"}"), 1);
}

/* What the worker said is not there any more: another message, another use, nothing at all. */
static void test_gone(void **state)
{
	static const struct {
		uint64_t id, segment;
		uint32_t offset, bytes;
	} changes[] = {{7, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 64, 0}, {0, 0, 0, 64},
		{0, 0, 1U << 31, 0}, {0, 0, 0, 1U << 31}};
	struct message_row *row = add_message(0, 1, "adatum.com");
	struct message_row good;
	json_t *object;

	(void)state;
	begin(0, 3);
	put_message_of(row, "<>", one_rcpt, NULL, "text");
	finish(0, 1);
	good = *row;
	for (unsigned i = 0; i <= COUNT_OF(changes); i++) {
		bool is_gone = i < COUNT_OF(changes);
		char line[80];

		*row = good;
		if (is_gone) {
			row->id += changes[i].id;
			row->segment += changes[i].segment;
			row->offset += changes[i].offset;
			row->record_bytes -= changes[i].bytes;
		}
		object = desk_look("{\"command\": \"msg-list\", \"envelopes\": true}");
		assert_int_equal(json_is_true(json_object_get(row_at(object, 0), "gone")), is_gone);
		assert_int_equal(
			json_object_get(row_at(object, 0), "from_address") == NULL, is_gone);
		json_decref(object);
		(void)snprintf(line, sizeof(line),
			"{\"command\": \"msg-show\", \"id\": \"%016" PRIx64 "\"}", row->id);
		object = desk_look(line);
		assert_int_equal(
			json_is_true(json_object_get(json_object_get(object, "message"), "gone")),
			is_gone);
		json_decref(object);
		(void)snprintf(line, sizeof(line),
			"{\"command\": \"msg-export\", \"id\": \"%016" PRIx64 "\"}", row->id);
		if (is_gone)
			desk_expect(line, "gone", "ask again");
	}
	/* A byte of it is another. */
	*row = good;
	segment[row->offset + RECORD_HEADER_BYTES + 30] ^= 1;
	finish(0, 1);
	desk_expect("{\"command\": \"msg-export\", \"id\": \"0000000000000001\"}", "gone", "");
	/* There is no such log. */
	row->log = 55;
	desk_expect("{\"command\": \"msg-export\", \"id\": \"0000000000000001\"}", "gone", "");
}

/* ---- one message */

static const char *state_of(const json_t *object, size_t i)
{
	return text_in(json_array_get(json_object_get(object, "recipients"), i), "state");
}

static void test_show(void **state)
{
	struct message_row *row = add_message(0, 5, "x.example");
	struct message_row *other;
	json_t *object;
	json_t *message;

	(void)state;
	begin(0, 21);
	put_change(5, 0, RCPT_FAILED); /* of an id that was used before: in front of it */
	put_message_of(row, "<a@b.example>", three_rcpts, NULL, "text");
	put_change(5, 0, RCPT_DELIVERED);
	put_change(6, 1, RCPT_FAILED); /* of another message */
	put_change(5, 77, RCPT_FAILED);
	/* Far behind it: in a piece that is read later, behind bytes that are no record. */
	segment_at = 5242880;
	memset(segment + segment_at - 2 * (size_t)RECORD_BLOCK, 0x55, RECORD_BLOCK);
	put_change(5, 2, RCPT_OPEN);
	finish(0, 2);
	begin(0, 22);
	put_change(5, 2, RCPT_EXPIRED);
	finish(0, 1);
	row->rcpt_open = 1;
	other = add_message(0, 5, "y.example");
	*other = *row;
	(void)snprintf(other->queue, sizeof(other->queue), "y.example");
	object = desk_look("{\"command\": \"msg-show\", \"id\": \"0000000000000005\"}");
	message = json_object_get(object, "message");
	assert_true(json_is_false(json_object_get(message, "gone")));
	assert_int_equal(json_array_size(json_object_get(message, "entries")), 2);
	assert_string_equal(
		text_in(json_array_get(json_object_get(message, "entries"), 1), "queue"),
		"y.example");
	assert_int_equal(json_array_size(json_object_get(message, "recipients")), 3);
	assert_string_equal(state_of(message, 0), rcpt_state_word(RCPT_DELIVERED));
	assert_string_equal(state_of(message, 1), rcpt_state_word(RCPT_OPEN));
	assert_string_equal(state_of(message, 2), rcpt_state_word(RCPT_EXPIRED));
	assert_string_equal(
		text_in(json_array_get(json_object_get(message, "recipients"), 1), "address"),
		"b@x.example");
	message = json_object_get(message, "envelope");
	assert_string_equal(text_in(message, "from_address"), "a@b.example");
	assert_string_equal(text_in(message, "client"), "192.0.2.7");
	assert_string_equal(text_in(message, "connector"), "From partners");
	assert_true(json_is_true(json_object_get(message, "secured")));
	assert_true(json_is_false(json_object_get(message, "notice")));
	json_decref(object);
}

static void test_export(void **state)
{
	struct message_row *row = add_message(0, 5, "x.example");
	const char *begin_text = "Subject: long\r\n\r\nbeginning ";
	struct record_extent extent = {.segment = 30, .bytes = (uint32_t)strlen(begin_text)};
	json_t *answer;
	char *body;

	(void)state;
	begin(0, 30);
	record_write_body_head(0, payload);
	memcpy(payload + RECORD_BODY_HEAD_BYTES, begin_text, strlen(begin_text));
	extent.offset = put_record(RECORD_BODY, 5, RECORD_BODY_HEAD_BYTES + strlen(begin_text));
	finish(0, 1);
	begin(0, 31);
	put_message_of(row, "<>", one_rcpt, &extent, "and end\r\n");
	finish(0, 2);
	answer = desk_ask("{\"command\": \"msg-export\", \"id\": \"0000000000000005\"}", &body);
	assert_true(json_is_true(json_object_get(answer, "ok")));
	assert_string_equal(body, "Subject: long\r\n\r\nbeginning and end\r\n");
	json_decref(answer);
	free(body);
	/* The piece is used for something else. */
	begin(0, 32);
	finish(0, 1);
	desk_expect("{\"command\": \"msg-export\", \"id\": \"0000000000000005\"}", "gone", "");
	/* A message without a body. */
	begin(0, 33);
	put_message_of(row, "<>", one_rcpt, NULL, "");
	finish(0, 2);
	answer = desk_ask("{\"command\": \"msg-export\", \"id\": \"0000000000000005\"}", &body);
	assert_int_equal(number_in(answer, "bytes"), 0);
	json_decref(answer);
	free(body);
}

/* ---- what is done to them */

static void test_changes(void **state)
{
	(void)state;
	workers[0].does = 1;
	workers[1].does = 2;
	desk_count("{\"command\": \"msg-suspend\", \"id\": \"000000000000000a\"}", 3);
	assert_int_equal(workers[1].last.verb, QUEUE_ASK_MESSAGE_SUSPEND);
	assert_int_equal(workers[1].last.filter.id, 10);
	desk_count("{\"command\": \"msg-resume\", \"queue\": \"a.example\", \"status\":"
		   " \"Suspended\"}",
		3);
	assert_int_equal(workers[1].last.verb, QUEUE_ASK_MESSAGE_RESUME);
	assert_int_equal(workers[1].last.filter.status, MESSAGE_SUSPENDED);
	desk_count("{\"command\": \"msg-remove\", \"larger_than\": 7}", 3);
	assert_int_equal(workers[1].last.verb, QUEUE_ASK_MESSAGE_REMOVE);
	desk_count("{\"command\": \"msg-remove\", \"older_than_ms\": 7, \"ndr\": false}", 3);
	assert_int_equal(workers[1].last.verb, QUEUE_ASK_MESSAGE_REMOVE);
	desk_count("{\"command\": \"msg-remove\", \"ndr\": true, \"queue\": \"a.example\","
		   " \"ids\": [\"000000000000000b\", \"000000000000000c\"]}",
		6);
	assert_int_equal(workers[1].last.verb, QUEUE_ASK_MESSAGE_REMOVE_NDR);
	assert_int_equal(workers[1].last.filter.id, 12);
	assert_string_equal(workers[1].last.filter.queue, "a.example");
	desk_count("{\"command\": \"msg-remove\", \"ids\": []}", 0);
	workers[0].does = workers[1].does = 0;
	desk_count("{\"command\": \"msg-suspend\", \"queue\": \"a.example\"}", 0);
	desk_expect("{\"command\": \"msg-suspend\", \"id\": \"000000000000000a\"}",
		"unknown-message", "000000000000000a");
}

static void test_bad_requests(void **state)
{
	static const char *const rows[][2] = {
		{"{\"command\": \"msg-list\", \"id\": \"xyz\"}", "\"id\" must be 16"},
		{"{\"command\": \"msg-list\", \"id\": \"0000000000000000\"}", "\"id\" must be 16"},
		{"{\"command\": \"msg-list\", \"status\": \"Lost\"}", "\"status\" must be one of"},
		{"{\"command\": \"msg-list\", \"envelopes\": 1}", "must be true or false"},
		{"{\"command\": \"msg-list\", \"skip\": true}", "must be a whole number"},
		{"{\"command\": \"msg-list\", \"ids\": []}", "\"ids\" is nothing"},
		{"{\"command\": \"msg-show\"}", "\"id\" is missing"},
		{"{\"command\": \"msg-show\", \"queue\": \"a\"}", "\"queue\" is nothing"},
		{"{\"command\": \"msg-export\"}", "\"id\" is missing"},
		{"{\"command\": \"msg-remove\"}", "which messages?"},
		{"{\"command\": \"msg-remove\", \"ndr\": true}", "which messages?"},
		{"{\"command\": \"msg-remove\", \"sender\": \"a@b\"}", "\"sender\" is nothing"},
		{"{\"command\": \"msg-suspend\", \"ndr\": true}", "\"ndr\" is nothing"},
		{"{\"command\": \"msg-suspend\", \"ids\": \"a\"}", "must be an array of texts"},
		{"{\"command\": \"msg-suspend\", \"ids\": [1]}", "must be an array of texts"},
		{"{\"command\": \"msg-suspend\", \"ids\": [\"000000000000000a\", \"b\"]}",
			"16 hexadecimal digits each"},
	};
	static char line[40000] = "{\"command\": \"msg-suspend\", \"ids\": [\"000000000000000a\"";
	char path[700];

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(rows); i++)
		desk_expect(rows[i][0], "bad-request", rows[i][1]);
	for (unsigned i = 0; i < 1000; i++)
		(void)snprintf(
			line + strlen(line), sizeof(line) - strlen(line), ", \"000000000000000a\"");
	(void)snprintf(line + strlen(line), sizeof(line) - strlen(line), "]}");
	desk_expect(line, "bad-request", "1000 at the most");
	(void)snprintf(
		path, sizeof(path), "{\"command\": \"msg-list\", \"sender\": \"%0600d\"}", 1);
	desk_expect(path, "bad-request", "must be addresses");
	assert_int_equal(workers[0].asked, 0);
	desk_expect("{\"command\": \"msg-show\", \"id\": \"000000000000000a\"}", "unknown-message",
		"000000000000000a");
	workers[1].rc = -ECANCELED;
	desk_expect("{\"command\": \"msg-show\", \"id\": \"000000000000000a\"}", "no-answer", "1");
	desk_expect("{\"command\": \"msg-list\", \"sender\": \"a@b\"}", "no-answer", "1");
	desk_expect("{\"command\": \"msg-suspend\", \"ids\": [\"000000000000000a\"]}", "no-answer",
		"worker 1");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_list, desk_up, desk_down),
		cmocka_unit_test_setup_teardown(test_pages, desk_up, desk_down),
		cmocka_unit_test_setup_teardown(test_filters, desk_up, desk_down),
		cmocka_unit_test_setup_teardown(test_letters, desk_up, desk_down),
		cmocka_unit_test_setup_teardown(test_recipients, desk_up, desk_down),
		cmocka_unit_test_setup_teardown(test_older_log, desk_up, desk_down),
		cmocka_unit_test_setup_teardown(test_gone, desk_up, desk_down),
		cmocka_unit_test_setup_teardown(test_show, desk_up, desk_down),
		cmocka_unit_test_setup_teardown(test_export, desk_up, desk_down),
		cmocka_unit_test_setup_teardown(test_changes, desk_up, desk_down),
		cmocka_unit_test_setup_teardown(test_bad_requests, desk_up, desk_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
