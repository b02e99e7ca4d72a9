/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/control_private.h"
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/*
 * control_message.c: messages that wait. The workers keep of a message what delivering needs; who
 * sent it and what it is about is read from the spool, for those rows that are shown or asked for.
 */

/* Of one answer. */
#define ROWS_MAX 1000

/* Rows that are looked at together when some must be read from the spool. */
#define WALK_ROWS 256

/* Entries of one message: a queue for each of its domains. */
#define ENTRIES_MAX 256

#define MESSAGE_BYTES CONTROL_MESSAGE_BYTES

static void put(json_t *object, const char *key, uint64_t value)
{
	(void)json_object_set_new(object, key, json_integer((json_int_t)(value & INT64_MAX)));
}

static void put_text(json_t *object, const char *key, const char *text)
{
	(void)json_object_set_new(object, key, control_text_create(text, strlen(text)));
}

static void put_span(json_t *object, const char *key, struct span text)
{
	(void)json_object_set_new(object, key,
		control_text_create(text.len == 0 ? (const void *)"" : text.data, text.len));
}

/* "<a@b>" as "a@b". */
static void put_path(json_t *object, const char *key, struct span path)
{
	if (path.len >= 2 && path.data[0] == '<')
		path = span_head(span_skip(path, 1), path.len - 2);
	put_span(object, key, path);
}

/* ---- filters */

bool order_read_message_status(const struct order *order, struct queue_filter *out)
{
	const char *word = order_word(order, "status");

	out->has_status = word != NULL;
	if (word == NULL)
		return true;
	for (out->status = 0; out->status < MESSAGE_STATUS_COUNT; out->status++)
		if (strcasecmp(word, message_status_word((enum message_status)out->status)) == 0)
			return true;
	control_refuse(order->client, "bad-request",
		"\"status\" must be one of Ready, Active, Retry, Suspended, PendingSuspend, "
		"PendingRemove");
	return false;
}

static bool path_equals(struct span path, const char *wanted)
{
	return span_equal_nocase(path, span_of(wanted));
}

static bool letter_has_rcpt(const struct control_letter *letter, const char *wanted)
{
	struct envelope_rcpt rcpt;
	size_t at = 0;

	while (envelope_next(&letter->envelope, &at, &rcpt))
		if (path_equals(rcpt.path, wanted))
			return true;
	return false;
}

/* ---- rows */

static void put_row(json_t *out, const struct message_row *row)
{
	put_text(out, "queue", row->queue);
	put_text(out, "status", message_status_word(row->status));
	put(out, "next_ms", (uint64_t)row->next_ms);
	put(out, "retry_count", row->attempts);
	put_text(out, "last_error", row->last_error);
}

/* What all of its entries have in common. */
static void put_message(json_t *out, const struct message_row *row)
{
	char id[MESSAGE_ID_TEXT_BYTES];

	message_id_print(row->id, id);
	put_text(out, "id", id);
	put(out, "bytes", row->bytes);
	put(out, "arrived_ms", (uint64_t)row->arrived_ms);
	put(out, "expires_ms", (uint64_t)row->expires_ms);
	put(out, "recipient_count", row->rcpt_count);
	put(out, "recipients_open", row->rcpt_open);
	put(out, "worker", row->worker);
}

/* letter: NULL, if it is not asked for; its record: NULL, if it is gone. */
static json_t *row_create(const struct message_row *row, const struct control_letter *letter)
{
	json_t *out = json_object();

	put_message(out, row);
	put_row(out, row);
	if (letter == NULL)
		return out;
	(void)json_object_set_new(out, "gone", json_boolean(letter->record == NULL));
	if (letter->record == NULL)
		return out;
	put_path(out, "from_address", letter->envelope.sender);
	put_span(out, "subject", letter->envelope.subject);
	put_span(out, "message_id", letter->envelope.message_id);
	return out;
}

/* ---- msg-list */

struct list {
	const struct order *order;
	struct control_reader reader;
	const struct queue_filter *filter; /* with what only the spool knows */
	uint64_t limit, skip;
	bool has_envelopes;
	json_t *rows;
	uint64_t seen; /* that fit, so far */
	uint64_t told;
	bool has_more;
	struct message_row *room;
};

static void list_tell(
	struct list *list, const struct message_row *row, const struct control_letter *letter)
{
	(void)json_array_append_new(list->rows, row_create(row, letter));
	list->told++;
}

/* A row that fits as far as the worker knows: reads what is asked for of it. */
static void list_look(struct list *list, const struct message_row *row)
{
	const struct queue_filter *filter = list->filter;
	const bool is_filtered = *filter->sender != '\0' || *filter->recipient != '\0';
	struct control_letter letter = {0};

	/* What cannot be read counts as gone; the worker says why in the log when it needs it. */
	if ((is_filtered || list->has_envelopes) &&
		control_letter_create(&list->reader, row, &letter) < 0)
		letter = (struct control_letter){0};
	if (is_filtered) {
		bool fits =
			letter.record != NULL &&
			(*filter->sender == '\0' ||
				path_equals(letter.envelope.sender, filter->sender)) &&
			(*filter->recipient == '\0' || letter_has_rcpt(&letter, filter->recipient));

		if (fits && list->seen++ >= list->skip) {
			if (list->told < list->limit)
				list_tell(list, row, &letter);
			else
				list->has_more = true;
		}
	} else {
		list_tell(list, row, list->has_envelopes ? &letter : NULL);
	}
	control_letter_destroy(&letter);
}

/* Rows of a worker, by what it knows itself. False: there is an answer. */
static bool list_ask(
	struct list *list, unsigned worker, uint64_t skip, uint64_t rows, struct queue_ask *ask)
{
	*ask = (struct queue_ask){
		.verb = QUEUE_ASK_MESSAGES,
		.filter = *list->filter,
		.rows_max = rows,
		.skip = skip,
		.message_rows = list->room,
	};
	memset(ask->filter.sender, 0, sizeof(ask->filter.sender));
	memset(ask->filter.recipient, 0, sizeof(ask->filter.recipient));
	return order_ask(list->order, ask, worker);
}

/* The worker says which rows are on the page. */
static bool list_worker(struct list *list, unsigned worker)
{
	uint64_t skip = list->skip > list->seen ? list->skip - list->seen : 0;
	struct queue_ask ask;

	if (!list_ask(list, worker, skip, list->limit - list->told, &ask))
		return false;
	for (uint64_t i = 0; i < ask.rows; i++)
		list_look(list, &list->room[i]);
	list->seen += ask.matched;
	return true;
}

/* The spool says so, of one row after another. */
static bool list_worker_by_letter(struct list *list, unsigned worker)
{
	uint64_t skip = 0;
	struct queue_ask ask;

	do {
		if (!list_ask(list, worker, skip, WALK_ROWS, &ask))
			return false;
		for (uint64_t i = 0; i < ask.rows && !list->has_more; i++)
			list_look(list, &list->room[i]);
		skip += ask.rows;
	} while (ask.rows == WALK_ROWS && !list->has_more);
	return true;
}

static void list_answer(struct list *list, bool is_filtered)
{
	json_t *out = json_pack("{s:O}", "messages", list->rows);

	if (!is_filtered) {
		list->has_more = list->skip < list->seen && list->seen - list->skip > list->told;
		put(out, "matched", list->seen);
	}
	(void)json_object_set_new(out, "more", json_boolean(list->has_more));
	control_answer_create_object(list->order->client, out);
}

static void list_create(struct list *list)
{
	const bool is_filtered = *list->filter->sender != '\0' || *list->filter->recipient != '\0';
	bool is_whole = true;

	control_reader_init(&list->reader, list->order->desk);
	list->room = calloc(list->limit > WALK_ROWS ? list->limit : WALK_ROWS, sizeof(*list->room));
	list->rows = json_array();
	if (list->room == NULL || list->rows == NULL) {
		control_refuse(list->order->client, "no-memory", "there is no memory for the rows");
		is_whole = false;
	}
	for (unsigned worker = 0; is_whole && worker < list->order->desk->hooks.workers; worker++)
		is_whole = is_filtered ? list_worker_by_letter(list, worker)
				       : list_worker(list, worker);
	if (is_whole)
		list_answer(list, is_filtered);
	json_decref(list->rows);
	free(list->room);
	control_reader_fini(&list->reader);
}

static void order_messages(const struct order *order)
{
	static const char *const keys[] = {"queue", "status", "id", "sender", "recipient",
		"older_than_ms", "larger_than", "limit", "skip", "envelopes", NULL};
	const uint64_t limit = order_number(order, "limit", ROWS_MAX);
	struct queue_filter filter;
	struct list list = {
		.order = order,
		.filter = &filter,
		.limit = limit < ROWS_MAX ? limit : ROWS_MAX,
		.skip = order_number(order, "skip", 0),
		.has_envelopes = order_flag(order, "envelopes"),
	};

	if (order_check(order, keys) && order_has_queue(order) &&
		order_read_filter(order, &filter) && order_read_message_status(order, &filter))
		list_create(&list);
}

/* ---- one message */

void order_refuse_message(const struct order *order)
{
	char message[MESSAGE_BYTES];

	(void)snprintf(message, sizeof(message),
		"no message %s waits here: it may have been delivered", order_word(order, "id"));
	control_refuse(order->client, "unknown-message", message);
}

/* The rows of the message that the order is about, ENTRIES_MAX at most; 0: there is an answer. */
static uint64_t message_find(const struct order *order, struct message_row *rows)
{
	struct queue_filter filter;
	uint64_t count = 0;

	if (!order_has_queue(order) || !order_read_filter(order, &filter))
		return 0;
	if (filter.id == 0) {
		control_refuse(order->client, "bad-request", "\"id\" is missing");
		return 0;
	}
	for (unsigned worker = 0; worker < order->desk->hooks.workers; worker++) {
		struct queue_ask ask = {
			.verb = QUEUE_ASK_MESSAGES,
			.filter = filter,
			.rows_max = ENTRIES_MAX - count,
			.message_rows = rows + count,
		};

		if (!order_ask(order, &ask, worker))
			return 0;
		count += ask.rows;
	}
	if (count == 0)
		order_refuse_message(order);
	return count;
}

static void put_envelope(json_t *out, const struct envelope *envelope)
{
	static const struct {
		unsigned flag;
		const char *key;
	} flags[] = {
		{ENVELOPE_SMTPUTF8, "smtputf8"},
		{ENVELOPE_SECURED, "secured"},
		{ENVELOPE_NOTICE, "notice"},
		{ENVELOPE_DELAY_TOLD, "delay_told"},
		{ENVELOPE_INTERNAL, "internal"},
		{ENVELOPE_RELAXED, "relaxed"},
	};

	put_path(out, "from_address", envelope->sender);
	put_span(out, "subject", envelope->subject);
	put_span(out, "message_id", envelope->message_id);
	put(out, "header_bytes", envelope->header_bytes);
	put_span(out, "connector", envelope->connector);
	put_span(out, "send_connector", envelope->send_connector);
	put_span(out, "session", envelope->session);
	put_span(out, "client", envelope->client);
	put_span(out, "helo", envelope->helo);
	put_span(out, "domain", envelope->domain);
	put_span(out, "server", envelope->server);
	put_span(out, "tls", envelope->tls);
	put_span(out, "ret", envelope->ret);
	put_span(out, "envid", envelope->envid);
	put_span(out, "origin", envelope->origin);
	for (unsigned i = 0; i < COUNT_OF(flags); i++)
		(void)json_object_set_new(
			out, flags[i].key, json_boolean((envelope->flags & flags[i].flag) != 0));
}

static json_t *rcpts_create(const struct control_letter *letter, const uint8_t *states)
{
	json_t *out = json_array();
	struct envelope_rcpt rcpt;
	size_t at = 0;

	for (uint32_t i = 0; envelope_next(&letter->envelope, &at, &rcpt); i++) {
		json_t *row = json_object();

		put_path(row, "address", rcpt.path);
		put_text(row, "state", rcpt_state_word((enum rcpt_state)states[i]));
		put_span(row, "notify", rcpt.notify);
		put_span(row, "orcpt", rcpt.orcpt);
		(void)json_array_append_new(out, row);
	}
	return out;
}

/* What the spool has of it; false: it is gone. */
static bool put_letter(const struct order *order, const struct message_row *row, json_t *out)
{
	struct control_letter letter = {0};
	struct control_reader reader;
	uint8_t *states = NULL;
	json_t *envelope;

	control_reader_init(&reader, order->desk);
	if (control_letter_create(&reader, row, &letter) == 0 &&
		control_letter_create_states(&reader, row, &letter, &states) == 0) {
		envelope = json_object();
		put_envelope(envelope, &letter.envelope);
		(void)json_object_set_new(out, "envelope", envelope);
		(void)json_object_set_new(out, "recipients", rcpts_create(&letter, states));
	}
	free(states);
	control_letter_destroy(&letter);
	control_reader_fini(&reader);
	return json_object_get(out, "envelope") != NULL;
}

static void message_answer(
	const struct order *order, const struct message_row *rows, uint64_t count)
{
	json_t *entries = json_array();
	json_t *out = json_object();

	put_message(out, &rows[0]);
	for (uint64_t i = 0; i < count; i++) {
		json_t *entry = json_object();

		put_row(entry, &rows[i]);
		(void)json_array_append_new(entries, entry);
	}
	(void)json_object_set_new(out, "entries", entries);
	(void)json_object_set_new(out, "gone", json_boolean(!put_letter(order, &rows[0], out)));
	control_answer_create_object(order->client, json_pack("{s:o}", "message", out));
}

static struct message_row *rows_create(const struct order *order)
{
	struct message_row *rows = calloc(ENTRIES_MAX, sizeof(*rows));

	if (rows == NULL)
		control_refuse(order->client, "no-memory", "there is no memory for the rows");
	return rows;
}

static void order_message(const struct order *order)
{
	static const char *const keys[] = {"id", NULL};
	struct message_row *rows;
	uint64_t count;

	if (!order_check(order, keys))
		return;
	rows = rows_create(order);
	count = rows == NULL ? 0 : message_find(order, rows);
	if (count > 0)
		message_answer(order, rows, count);
	free(rows);
}

static void export_refuse(const struct order *order, int rc)
{
	char message[MESSAGE_BYTES];

	if (rc == -ESTALE)
		(void)snprintf(message, sizeof(message),
			"message %s was delivered, or moved in the spool, meanwhile: ask again",
			order_word(order, "id"));
	else
		(void)snprintf(message, sizeof(message), "message %s cannot be read: %s",
			order_word(order, "id"), strerror(-rc));
	control_refuse(order->client,
		rc == -ESTALE   ? "gone"
		: rc == -ENOMEM ? "no-memory"
				: "disk",
		message);
}

static void export_create(const struct order *order, const struct message_row *row)
{
	struct control_letter letter = {0};
	struct control_reader reader;
	char *text = NULL;
	size_t len = 0;
	int rc;

	control_reader_init(&reader, order->desk);
	rc = control_letter_create(&reader, row, &letter);
	if (rc == 0)
		rc = control_letter_create_text(&reader, row, &letter, &text, &len);
	if (rc < 0) {
		export_refuse(order, rc);
	} else {
		order_audit(order, "message", order_word(order, "id"), 1);
		control_answer_create(order->client,
			json_pack("{s:b, s:I}", "ok", 1, "bytes", (json_int_t)len), text, len);
	}
	free(text);
	control_letter_destroy(&letter);
	control_reader_fini(&reader);
}

static void order_export(const struct order *order)
{
	static const char *const keys[] = {"id", NULL};
	struct message_row *rows;

	if (!order_check(order, keys))
		return;
	rows = rows_create(order);
	if (rows != NULL && message_find(order, rows) > 0)
		export_create(order, &rows[0]);
	free(rows);
}

const struct control_order control_message_orders[] = {
	{"msg-list", false, order_messages},
	{"msg-show", false, order_message},
	{"msg-export", false, order_export},
	{NULL, false, NULL},
};
