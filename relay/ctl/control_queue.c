/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/queue.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/*
 * control_queue.c: what the relay says of queues and messages, as structs. A member that is missing
 * or is of another kind counts as 0 or "", so that a relay of a near version can be asked.
 */

/* More rows than any relay has; what comes is not trusted. */
#define ROWS_MAX 4000000

/* The object of an answer, if member is of that kind in it; else NULL. */
static json_t *answer_load(const char *line, size_t len, const char *member, json_type type)
{
	json_t *object = line == NULL ? NULL : json_loadb(line, len, 0, NULL);
	const json_t *value = json_object_get(object, member);

	if (value != NULL && json_typeof(value) == type)
		return object;
	json_decref(object);
	return NULL;
}

/* ---- queues */

static void queue_read(json_t *element, struct queue_line *row)
{
	row->json = element;
	CONTROL_JSON_TEXT(element, "identity", row->identity);
	CONTROL_JSON_TEXT(element, "delivery_type", row->delivery_type);
	CONTROL_JSON_TEXT(element, "status", row->status);
	CONTROL_JSON_TEXT(element, "next_hop_domain", row->next_hop_domain);
	CONTROL_JSON_TEXT(element, "connector", row->connector);
	CONTROL_JSON_TEXT(element, "tls_domain", row->tls_domain);
	CONTROL_JSON_TEXT(element, "last_error", row->last_error);
	row->message_count = control_json_number(element, "message_count");
	row->bytes = control_json_number(element, "bytes");
	row->active = control_json_number(element, "active");
	row->retry_count = control_json_number(element, "retry_count");
	row->in_minute = control_json_number(element, "in_minute");
	row->out_minute = control_json_number(element, "out_minute");
	row->last_retry_ms = (int64_t)control_json_number(element, "last_retry_ms");
	row->next_retry_ms = (int64_t)control_json_number(element, "next_retry_ms");
	row->oldest_ms = (int64_t)control_json_number(element, "oldest_ms");
}

/* Takes the object. */
static int queue_lines_create_from(json_t *object, const json_t *array, struct queue_lines *out)
{
	const size_t count = json_array_size(array);

	*out = (struct queue_lines){.json = object};
	out->rows = count > ROWS_MAX ? NULL : calloc(count + 1, sizeof(*out->rows));
	if (out->rows == NULL) {
		queue_lines_destroy(out);
		return -ENOMEM;
	}
	out->count = (unsigned)count;
	for (size_t i = 0; i < count; i++)
		queue_read(json_array_get(array, i), &out->rows[i]);
	return 0;
}

int queue_lines_create(const char *line, size_t len, struct queue_lines *out)
{
	json_t *object = answer_load(line, len, "queues", JSON_ARRAY);

	*out = (struct queue_lines){0};
	return object == NULL
		       ? -EINVAL
		       : queue_lines_create_from(object, json_object_get(object, "queues"), out);
}

int queue_lines_create_one(const char *line, size_t len, struct queue_lines *out)
{
	json_t *object = answer_load(line, len, "queue", JSON_OBJECT);
	json_t *array;

	*out = (struct queue_lines){0};
	if (object == NULL)
		return -EINVAL;
	array = json_array();
	(void)json_array_append(array, json_object_get(object, "queue"));
	json_decref(object);
	return queue_lines_create_from(array, array, out);
}

void queue_lines_destroy(struct queue_lines *lines)
{
	json_decref(lines->json);
	free(lines->rows);
	*lines = (struct queue_lines){0};
}

/* Takes the array. */
static void print_json(json_t *array)
{
	(void)json_dumpf(array, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	(void)putchar('\n');
	json_decref(array);
}

void queue_lines_print_json(const struct queue_lines *lines)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < lines->count; i++)
		(void)json_array_append(array, lines->rows[i].json);
	print_json(array);
}

/* ---- messages */

static void msg_read(json_t *element, struct msg_line *row)
{
	row->json = element;
	CONTROL_JSON_TEXT(element, "id", row->id);
	CONTROL_JSON_TEXT(element, "queue", row->queue);
	CONTROL_JSON_TEXT(element, "status", row->status);
	CONTROL_JSON_TEXT(element, "from_address", row->from_address);
	CONTROL_JSON_TEXT(element, "subject", row->subject);
	CONTROL_JSON_TEXT(element, "last_error", row->last_error);
	row->gone = json_is_true(json_object_get(element, "gone"));
	row->bytes = control_json_number(element, "bytes");
	row->retry_count = control_json_number(element, "retry_count");
	row->arrived_ms = (int64_t)control_json_number(element, "arrived_ms");
	row->expires_ms = (int64_t)control_json_number(element, "expires_ms");
}

int msg_lines_create(const char *line, size_t len, struct msg_lines *lines)
{
	json_t *object = answer_load(line, len, "messages", JSON_ARRAY);
	const json_t *array = json_object_get(object, "messages");
	const size_t count = json_array_size(array);
	struct msg_line *rows;

	if (object == NULL)
		return -EINVAL;
	if (lines->json == NULL)
		lines->json = json_array();
	rows = count > ROWS_MAX - lines->count
		       ? NULL
		       : reallocarray(lines->rows, lines->count + count + 1, sizeof(*rows));
	if (rows == NULL) {
		json_decref(object);
		return -ENOMEM;
	}
	lines->rows = rows;
	lines->has_more = json_is_true(json_object_get(object, "more"));
	for (size_t i = 0; i < count; i++) {
		json_t *element = json_array_get(array, i);

		(void)json_array_append(lines->json, element);
		rows[lines->count] = (struct msg_line){0};
		msg_read(element, &rows[lines->count++]);
	}
	json_decref(object);
	return 0;
}

void msg_lines_destroy(struct msg_lines *lines)
{
	json_decref(lines->json);
	free(lines->rows);
	*lines = (struct msg_lines){0};
}

void msg_lines_print_json(const struct msg_lines *lines)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < lines->count; i++)
		(void)json_array_append(array, lines->rows[i].json);
	print_json(array);
}

/* ---- one message */

static int msg_whole_create_rows(const json_t *message, struct msg_whole *out)
{
	const json_t *entries = json_object_get(message, "entries");
	const json_t *rcpts = json_object_get(message, "recipients");
	const size_t entry_count = json_array_size(entries);
	const size_t rcpt_count = json_array_size(rcpts);

	if (entry_count > ROWS_MAX || rcpt_count > ROWS_MAX)
		return -ENOMEM;
	out->entries = calloc(entry_count + 1, sizeof(*out->entries));
	out->rcpts = calloc(rcpt_count + 1, sizeof(*out->rcpts));
	if (out->entries == NULL || out->rcpts == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < entry_count; i++)
		msg_read(json_array_get(entries, i), &out->entries[i]);
	for (size_t i = 0; i < rcpt_count; i++) {
		CONTROL_JSON_TEXT(json_array_get(rcpts, i), "address", out->rcpts[i].address);
		CONTROL_JSON_TEXT(json_array_get(rcpts, i), "state", out->rcpts[i].state);
	}
	out->entry_count = (unsigned)entry_count;
	out->rcpt_count = (unsigned)rcpt_count;
	return 0;
}

int msg_whole_create(const char *line, size_t len, struct msg_whole *out)
{
	json_t *object = answer_load(line, len, "message", JSON_OBJECT);
	json_t *message = json_object_get(object, "message");
	const json_t *envelope = json_object_get(message, "envelope");
	int rc;

	*out = (struct msg_whole){0};
	if (object == NULL)
		return -EINVAL;
	msg_read(message, &out->line);
	CONTROL_JSON_TEXT(envelope, "from_address", out->line.from_address);
	CONTROL_JSON_TEXT(envelope, "subject", out->line.subject);
	CONTROL_JSON_TEXT(envelope, "message_id", out->message_id);
	CONTROL_JSON_TEXT(envelope, "connector", out->connector);
	CONTROL_JSON_TEXT(envelope, "client", out->client);
	CONTROL_JSON_TEXT(envelope, "helo", out->helo);
	CONTROL_JSON_TEXT(envelope, "domain", out->domain);
	CONTROL_JSON_TEXT(envelope, "tls", out->tls);
	CONTROL_JSON_TEXT(envelope, "session", out->session);
	CONTROL_JSON_TEXT(envelope, "origin", out->origin);
	out->recipient_count = control_json_number(message, "recipient_count");
	out->recipients_open = control_json_number(message, "recipients_open");
	rc = msg_whole_create_rows(message, out);
	/* What is printed as JSON is the answer itself. */
	out->line.json = NULL;
	for (unsigned i = 0; i < out->entry_count; i++)
		out->entries[i].json = NULL;
	json_decref(object);
	if (rc < 0)
		msg_whole_destroy(out);
	return rc;
}

void msg_whole_destroy(struct msg_whole *whole)
{
	free(whole->entries);
	free(whole->rcpts);
	*whole = (struct msg_whole){0};
}

/* ---- the spool */

int spool_status_read(const char *line, size_t len, struct spool_status *out)
{
	json_t *object = answer_load(line, len, "level", JSON_STRING);
	const json_t *pressure = json_object_get(object, "pressure");

	*out = (struct spool_status){0};
	if (object == NULL)
		return -EINVAL;
	CONTROL_JSON_TEXT(object, "folder", out->folder);
	CONTROL_JSON_TEXT(object, "level", out->level);
	out->bytes_used = control_json_number(object, "bytes_used");
	out->bytes_max = control_json_number(object, "bytes_max");
	out->segments_used = control_json_number(object, "segments_used");
	out->segments_free = control_json_number(object, "segments_free");
	out->segments_failed = control_json_number(object, "segments_failed");
	out->messages = control_json_number(object, "messages");
	out->messages_max = control_json_number(object, "messages_max");
	out->queues = control_json_number(object, "queues");
	out->active = control_json_number(object, "active");
	out->workers = json_array_size(json_object_get(object, "workers"));
	out->medium = control_json_number(pressure, "medium");
	out->high = control_json_number(pressure, "high");
	out->high_end = control_json_number(pressure, "high_end");
	out->medium_end = control_json_number(pressure, "medium_end");
	json_decref(object);
	return 0;
}
