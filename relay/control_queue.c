/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/log.h"
#include "relay/control_private.h"
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/*
 * control_queue.c: queues. A queue of several workers is one for whoever asks: what each of them
 * says of it is added up, and what is done is done on each.
 */

/* Asked for at first; a worker that has more is asked again. */
#define ROWS_AT_FIRST 64

/* Of one worker; there is a queue for each domain that mail waits for. */
#define ROWS_OF_WORKER_MAX 16384

#define MESSAGE_BYTES CONTROL_MESSAGE_BYTES

/* ---- questions */

bool order_has_queue(const struct order *order)
{
	const struct control_desk *desk = order->desk;

	if (desk->spool_folder != NULL && desk->hooks.ask != NULL && desk->hooks.workers > 0)
		return true;
	control_refuse(order->client, "no-queue",
		"there is no queue here: no spool-folder was set when the relay was started");
	return false;
}

bool order_ask(const struct order *order, struct queue_ask *ask, unsigned worker)
{
	const struct control_hooks *hooks = &order->desk->hooks;
	char message[MESSAGE_BYTES];
	int rc;

	ask->rows = 0;
	ask->matched = 0;
	ask->cursor = 0;
	ask->is_done = false;
	rc = hooks->ask(hooks->owner, worker, ask);
	if (rc == 0 && ask->rows <= ask->rows_max)
		return true;
	(void)snprintf(message, sizeof(message),
		"worker %u does not answer (%s): is the relay ending?", worker,
		rc < 0 ? strerror(-rc) : "too many rows");
	control_refuse(order->client, "no-answer", message);
	return false;
}

/* Copies a word that fits. False: there is an answer. */
static bool order_copy(const struct order *order, const char *key, char *out, size_t out_bytes)
{
	const char *word = order_word(order, key);
	char message[MESSAGE_BYTES];

	if (word == NULL)
		return true;
	if (*word != '\0' && strlen(word) < out_bytes) {
		(void)snprintf(out, out_bytes, "%s", word);
		return true;
	}
	(void)snprintf(
		message, sizeof(message), "\"%s\" must have 1 to %zu bytes", key, out_bytes - 1);
	control_refuse(order->client, "bad-request", message);
	return false;
}

/* "a@b" as "<a@b>". */
static bool order_copy_path(const struct order *order, const char *key, char *out, size_t out_bytes)
{
	const char *word = order_word(order, key);
	int len;

	if (word == NULL)
		return true;
	len = snprintf(out, out_bytes, *word == '<' ? "%s" : "<%s>", word);
	if (len >= 0 && (size_t)len < out_bytes)
		return true;
	control_refuse(order->client, "bad-request",
		"\"sender\" and \"recipient\" must be addresses, as \"a@b.example\"");
	return false;
}

bool order_read_filter(const struct order *order, struct queue_filter *out)
{
	const char *id = order_word(order, "id");

	*out = (struct queue_filter){
		.older_than_ms = order_number(order, "older_than_ms", 0),
		.larger_than = order_number(order, "larger_than", 0),
	};
	if (id != NULL && (!message_id_parse(span_of(id), &out->id) || out->id == 0)) {
		control_refuse(order->client, "bad-request",
			"\"id\" must be 16 hexadecimal digits, as msg-list has them");
		return false;
	}
	return order_copy(order, "queue", out->queue, sizeof(out->queue)) &&
	       order_copy_path(order, "sender", out->sender, sizeof(out->sender)) &&
	       order_copy_path(order, "recipient", out->recipient, sizeof(out->recipient));
}

void order_audit(const struct order *order, const char *object, const char *target, uint64_t count)
{
	char who[CONTROL_WHO_BYTES];
	char quoted[QUEUE_NAME_BYTES];

	order_who(order->client, who);
	log_event(LOG_LEVEL_INFO, NULL, "queue-admin", "%s command=%s %s=%s count=%llu", who,
		order_word(order, "command"), object,
		log_quote_text(target == NULL ? "*" : target, quoted, sizeof(quoted)),
		(unsigned long long)count);
}

/* ---- rows */

struct json_t *control_text_create(const void *text, size_t len)
{
	json_t *out = json_stringn(text, len);
	char *plain;

	if (out != NULL)
		return out;
	plain = malloc(len + 1);
	if (plain == NULL)
		return NULL;
	memcpy(plain, text, len);
	for (size_t i = 0; i < len; i++)
		if (((const unsigned char *)text)[i] >= 0x80)
			plain[i] = '?';
	out = json_stringn(plain, len);
	free(plain);
	return out;
}

/* The queues of all workers, as they answer; later added up. */
struct table {
	struct queue_row *rows;
	size_t count, size;
};

static bool table_create_room(const struct order *order, struct table *table, size_t more)
{
	struct queue_row *rows =
		reallocarray(table->rows, table->count + more, sizeof(*table->rows));

	if (rows == NULL) {
		control_refuse(order->client, "no-memory", "there is no memory for so many queues");
		return false;
	}
	table->rows = rows;
	table->size = table->count + more;
	return true;
}

/* What a worker has; it is asked again with more room where there was too little. */
static bool table_create_rows(
	const struct order *order, const char *queue, unsigned worker, struct table *table)
{
	struct queue_ask ask = {.verb = QUEUE_ASK_LIST};
	size_t room = ROWS_AT_FIRST;

	(void)snprintf(ask.filter.queue, sizeof(ask.filter.queue), "%s", queue);
	for (;;) {
		if (!table_create_room(order, table, room))
			return false;
		ask.queue_rows = table->rows + table->count;
		ask.rows_max = room;
		if (!order_ask(order, &ask, worker))
			return false;
		if (ask.matched <= ask.rows || room == ROWS_OF_WORKER_MAX)
			break;
		room = ask.matched + ROWS_AT_FIRST < ROWS_OF_WORKER_MAX
			       ? (size_t)ask.matched + ROWS_AT_FIRST
			       : ROWS_OF_WORKER_MAX;
	}
	table->count += ask.rows;
	return true;
}

static int row_compare(const void *a, const void *b)
{
	const struct queue_row *one = a;
	const struct queue_row *other = b;

	return strcasecmp(one->identity, other->identity);
}

/* The one of two states that says more; a queue is suspended if it is so everywhere. */
static enum queue_status status_add(enum queue_status a, enum queue_status b)
{
	static const unsigned weights[] = {
		[QUEUE_ACTIVE] = 4,
		[QUEUE_CONNECTING] = 3,
		[QUEUE_RETRY] = 2,
		[QUEUE_READY] = 1,
		[QUEUE_SUSPENDED] = 0,
	};

	return weights[a] >= weights[b] ? a : b;
}

/* The earlier of two times, of which 0 is none. */
static int64_t earlier(int64_t a, int64_t b)
{
	return a == 0 || (b != 0 && b < a) ? b : a;
}

static void row_add(struct queue_row *sum, const struct queue_row *row)
{
	/* Of two that failed, the one that was tried last knows better. */
	if (*row->last_error != '\0' &&
		(*sum->last_error == '\0' || row->last_retry_ms > sum->last_retry_ms))
		memcpy(sum->last_error, row->last_error, sizeof(sum->last_error));
	if (*sum->connector == '\0')
		memcpy(sum->connector, row->connector, sizeof(sum->connector));
	sum->status = status_add(sum->status, row->status);
	sum->messages += row->messages;
	sum->bytes += row->bytes;
	sum->active += row->active;
	sum->in_minute += row->in_minute;
	sum->out_minute += row->out_minute;
	if (row->retry_count > sum->retry_count)
		sum->retry_count = row->retry_count;
	if (row->last_retry_ms > sum->last_retry_ms)
		sum->last_retry_ms = row->last_retry_ms;
	sum->next_retry_ms = earlier(sum->next_retry_ms, row->next_retry_ms);
	sum->oldest_ms = earlier(sum->oldest_ms, row->oldest_ms);
}

static void table_add_up(struct table *table)
{
	size_t sums = 0;

	if (table->count == 0)
		return;
	qsort(table->rows, table->count, sizeof(*table->rows), row_compare);
	for (size_t i = 1; i < table->count; i++) {
		if (row_compare(&table->rows[sums], &table->rows[i]) == 0)
			row_add(&table->rows[sums], &table->rows[i]);
		else if (++sums != i)
			table->rows[sums] = table->rows[i];
	}
	table->count = sums + 1;
}

/* All queues, or one; by name, added up. False: there is an answer. */
static bool table_create(const struct order *order, const char *queue, struct table *out)
{
	*out = (struct table){0};
	for (unsigned worker = 0; worker < order->desk->hooks.workers; worker++) {
		if (!table_create_rows(order, queue, worker, out)) {
			free(out->rows);
			return false;
		}
	}
	table_add_up(out);
	return true;
}

/* ---- what is told of them */

static void put(json_t *object, const char *key, uint64_t value)
{
	(void)json_object_set_new(object, key, json_integer((json_int_t)(value & INT64_MAX)));
}

static void put_text(json_t *object, const char *key, const char *text)
{
	(void)json_object_set_new(object, key, control_text_create(text, strlen(text)));
}

static json_t *row_create(const struct queue_row *row)
{
	static const char secured[] = " (secured)";
	json_t *out = json_object();
	size_t len = strlen(row->identity);

	put_text(out, "identity", row->identity);
	put_text(out, "delivery_type", queue_kind_word(row->kind));
	put_text(out, "status", queue_status_word(row->status));
	put(out, "message_count", row->messages);
	put(out, "bytes", row->bytes);
	put(out, "active", row->active);
	put(out, "retry_count", row->retry_count);
	put(out, "last_retry_ms", (uint64_t)row->last_retry_ms);
	put(out, "next_retry_ms", (uint64_t)row->next_retry_ms);
	put(out, "oldest_ms", (uint64_t)row->oldest_ms);
	put(out, "in_minute", row->in_minute);
	put(out, "out_minute", row->out_minute);
	if (len > strlen(secured) && strcmp(row->identity + len - strlen(secured), secured) == 0)
		len -= strlen(secured);
	(void)json_object_set_new(out, "next_hop_domain", control_text_create(row->identity, len));
	put_text(out, "connector", row->connector);
	put_text(out, "tls_domain", row->tls_domain);
	put_text(out, "last_error", row->last_error);
	return out;
}

/* Which status is meant; QUEUE_STATUS_COUNT: any. False: there is an answer. */
static bool order_read_status(const struct order *order, enum queue_status *out)
{
	const char *word = order_word(order, "status");

	*out = QUEUE_STATUS_COUNT;
	if (word == NULL)
		return true;
	for (*out = QUEUE_ACTIVE; *out < QUEUE_STATUS_COUNT; (*out)++)
		if (strcasecmp(word, queue_status_word(*out)) == 0)
			return true;
	control_refuse(order->client, "bad-request",
		"\"status\" must be one of Active, Connecting, Ready, Retry, Suspended");
	return false;
}

static void order_queues(const struct order *order)
{
	static const char *const keys[] = {"queue", "status", "limit", "skip", NULL};
	const uint64_t limit = order_number(order, "limit", UINT64_MAX);
	const uint64_t skip = order_number(order, "skip", 0);
	struct queue_filter filter;
	enum queue_status status;
	struct table table;
	uint64_t matched = 0;
	json_t *rows;

	/* What they say together has a status, so that none can be asked of a worker alone. */
	if (!order_check(order, keys) || !order_has_queue(order) ||
		!order_read_filter(order, &filter) || !order_read_status(order, &status) ||
		!table_create(order, filter.queue, &table))
		return;
	rows = json_array();
	for (size_t i = 0; i < table.count; i++) {
		if (status != QUEUE_STATUS_COUNT && table.rows[i].status != status)
			continue;
		if (matched >= skip && matched - skip < limit)
			(void)json_array_append_new(rows, row_create(&table.rows[i]));
		matched++;
	}
	free(table.rows);
	control_answer_create_object(order->client,
		json_pack("{s:o, s:I}", "queues", rows, "matched", (json_int_t)matched));
}

/* The queue that the order is about. False: there is an answer. */
static bool order_find(const struct order *order, struct queue_filter *out)
{
	if (!order_has_queue(order) || !order_read_filter(order, out))
		return false;
	if (*out->queue != '\0')
		return true;
	control_refuse(order->client, "bad-request", "\"queue\" is missing");
	return false;
}

/* The first row of table, or NULL after an answer. */
static const struct queue_row *table_row(const struct order *order, const struct table *table)
{
	char message[MESSAGE_BYTES];

	if (table->count > 0)
		return &table->rows[0];
	(void)snprintf(message, sizeof(message), "there is no queue \"%s\"; queue list names them",
		order_word(order, "queue"));
	control_refuse(order->client, "unknown-queue", message);
	return NULL;
}

static void order_queue(const struct order *order)
{
	static const char *const keys[] = {"queue", NULL};
	struct queue_filter filter;
	const struct queue_row *row;
	struct table table;

	if (!order_check(order, keys) || !order_find(order, &filter) ||
		!table_create(order, filter.queue, &table))
		return;
	row = table_row(order, &table);
	if (row != NULL)
		control_answer_create_object(
			order->client, json_pack("{s:o}", "queue", row_create(row)));
	free(table.rows);
}

/* ---- what is done to them */

/* Nothing was done: there is no such queue, or it is in no state for it. */
static void answer_nothing(const struct order *order, const struct queue_filter *filter)
{
	const struct queue_row *row;
	struct table table;

	if (!table_create(order, filter->queue, &table))
		return;
	row = table_row(order, &table);
	if (row != NULL)
		control_answer_create(order->client,
			json_pack("{s:b, s:I, s:s}", "ok", 1, "count", (json_int_t)0, "status",
				queue_status_word(row->status)),
			NULL, 0);
	free(table.rows);
}

static void order_do(
	const struct order *order, enum queue_verb verb, const struct queue_filter *filter)
{
	const char *target = order_word(order, "to");
	uint64_t count = 0;

	for (unsigned worker = 0; worker < order->desk->hooks.workers; worker++) {
		struct queue_ask ask = {.verb = verb, .filter = *filter};

		(void)snprintf(ask.target, sizeof(ask.target), "%s", target == NULL ? "" : target);
		if (!order_ask(order, &ask, worker))
			return;
		count += ask.matched;
	}
	order_audit(order, "queue", filter->queue, count);
	if (count == 0)
		answer_nothing(order, filter);
	else
		control_answer_create(order->client,
			json_pack("{s:b, s:I}", "ok", 1, "count", (json_int_t)count), NULL, 0);
}

static void order_change(const struct order *order, enum queue_verb verb)
{
	static const char *const keys[] = {"queue", NULL};
	struct queue_filter filter;

	if (order_check(order, keys) && order_find(order, &filter))
		order_do(order, verb, &filter);
}

static void order_retry(const struct order *order)
{
	order_change(order, QUEUE_ASK_RETRY);
}

static void order_resubmit(const struct order *order)
{
	order_change(order, QUEUE_ASK_RESUBMIT);
}

static void order_suspend(const struct order *order)
{
	order_change(order, QUEUE_ASK_SUSPEND);
}

static void order_resume(const struct order *order)
{
	order_change(order, QUEUE_ASK_RESUME);
}

static void order_redirect(const struct order *order)
{
	static const char *const keys[] = {"queue", "to", NULL};
	const struct control_hooks *hooks = &order->desk->hooks;
	char target[NAME_BYTES_MAX] = "";
	char message[MESSAGE_BYTES];
	struct queue_filter filter;

	if (!order_check(order, keys) || !order_find(order, &filter) ||
		!order_copy(order, "to", target, sizeof(target)))
		return;
	if (*target == '\0') {
		control_refuse(order->client, "bad-request", "\"to\" is missing");
		return;
	}
	if (hooks->has_connector != NULL && !hooks->has_connector(hooks->owner, target)) {
		(void)snprintf(message, sizeof(message),
			"the configuration in force has no send-connector \"%s\"", target);
		control_refuse(order->client, "unknown-connector", message);
		return;
	}
	order_do(order, QUEUE_ASK_REDIRECT, &filter);
}

/* ---- the spool */

static const char *level_word(enum spool_level level)
{
	switch (level) {
	case SPOOL_NORMAL:
		return "normal";
	case SPOOL_MEDIUM:
		return "medium";
	case SPOOL_HIGH:
		return "high";
	case SPOOL_FAILED:
		return "failed";
	}
	UNREACHABLE();
}

static void facts_add(struct queue_ask *sum, const struct queue_ask *facts)
{
	if (facts->spool.level > sum->spool.level)
		sum->spool.level = facts->spool.level;
	sum->spool.segments_used += facts->spool.segments_used;
	sum->spool.segments_free += facts->spool.segments_free;
	sum->spool.segments_failed += facts->spool.segments_failed;
	sum->spool.bytes_used += facts->spool.bytes_used;
	sum->spool.writes += facts->spool.writes;
	sum->spool.flushes += facts->spool.flushes;
	sum->spool.records += facts->spool.records;
	sum->facts.messages += facts->facts.messages;
	sum->facts.queues += facts->facts.queues;
	sum->facts.active += facts->facts.active;
	if (facts->facts.bytes_each > sum->facts.bytes_each)
		sum->facts.bytes_each = facts->facts.bytes_each;
}

static void put_facts(json_t *object, const struct queue_ask *facts)
{
	put_text(object, "level", level_word(facts->spool.level));
	put(object, "bytes_used", facts->spool.bytes_used);
	put(object, "segments_used", facts->spool.segments_used);
	put(object, "segments_free", facts->spool.segments_free);
	put(object, "segments_failed", facts->spool.segments_failed);
	put(object, "messages", facts->facts.messages);
	put(object, "queues", facts->facts.queues);
	put(object, "active", facts->facts.active);
	put(object, "writes", facts->spool.writes);
	put(object, "flushes", facts->spool.flushes);
	put(object, "records", facts->spool.records);
	put(object, "bytes_each", facts->facts.bytes_each);
}

static void order_spool(const struct order *order)
{
	static const char *const keys[] = {NULL};
	const struct queue_policy *queue = &order->desk->queue;
	struct queue_ask sum = {0};
	json_t *workers;
	json_t *out;

	if (!order_check(order, keys) || !order_has_queue(order))
		return;
	workers = json_array();
	for (unsigned worker = 0; worker < order->desk->hooks.workers; worker++) {
		struct queue_ask ask = {.verb = QUEUE_ASK_FACTS};
		json_t *row = json_object();

		if (!order_ask(order, &ask, worker)) {
			json_decref(row);
			json_decref(workers);
			return;
		}
		facts_add(&sum, &ask);
		put(row, "worker", worker);
		put_facts(row, &ask);
		(void)json_array_append_new(workers, row);
	}
	out = json_object();
	put_text(out, "folder", order->desk->spool_folder);
	put_facts(out, &sum);
	put(out, "bytes_max", queue->spool_max_bytes);
	put(out, "messages_max", queue->max_messages);
	(void)json_object_set_new(out, "pressure",
		json_pack("{s:I, s:I, s:I, s:I}", "medium", (json_int_t)queue->pressure_medium,
			"high", (json_int_t)queue->pressure_high, "high_end",
			(json_int_t)queue->pressure_high_end, "medium_end",
			(json_int_t)queue->pressure_medium_end));
	(void)json_object_set_new(out, "workers", workers);
	control_answer_create_object(order->client, out);
}

const struct control_order control_queue_orders[] = {
	{"queue-list", false, order_queues},
	{"queue-show", false, order_queue},
	{"queue-retry", false, order_retry},
	{"queue-resubmit", false, order_resubmit},
	{"queue-suspend", false, order_suspend},
	{"queue-resume", false, order_resume},
	{"queue-redirect", false, order_redirect},
	{"spool-status", false, order_spool},
	{NULL, false, NULL},
};
