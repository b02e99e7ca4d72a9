/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * queue_desk_fixture.h: the control thread's side of queues without a socket: requests in, answers
 * out, two workers that are tables, and a spool with a log of each and an older one, which the test
 * writes itself.
 */

#include "relay/control_private.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define WORKERS 2
#define WORKER_ROWS_MAX 3000

/* What a worker has, and what it was asked for. */
struct fake_worker {
	struct queue_row queues[WORKER_ROWS_MAX];
	unsigned queue_count;
	struct message_row messages[WORKER_ROWS_MAX];
	unsigned message_count;
	struct queues_facts facts;
	struct spool_facts spool;
	int rc;         /* of the next question */
	uint64_t does;  /* to how many it does something */
	unsigned asked; /* how often */
	struct queue_ask last;
};

static struct fake_worker workers[WORKERS];
static struct control_desk desk;
static char spool_folder[64];

static bool fake_queue_fits(const struct queue_filter *filter, const char *name)
{
	return *filter->queue == '\0' || strcasecmp(filter->queue, name) == 0;
}

static bool fake_message_fits(const struct queue_filter *filter, const struct message_row *row)
{
	return fake_queue_fits(filter, row->queue) && (filter->id == 0 || filter->id == row->id) &&
	       (!filter->has_status || filter->status == row->status) &&
	       (filter->larger_than == 0 || row->bytes > filter->larger_than);
}

static void fake_list(struct fake_worker *worker, struct queue_ask *ask)
{
	const bool is_queues = ask->verb == QUEUE_ASK_LIST;

	for (unsigned i = 0; i < (is_queues ? worker->queue_count : worker->message_count); i++) {
		if (is_queues ? !fake_queue_fits(&ask->filter, worker->queues[i].identity)
			      : !fake_message_fits(&ask->filter, &worker->messages[i]))
			continue;
		if (ask->matched++ < ask->skip || ask->rows == ask->rows_max)
			continue;
		if (is_queues)
			ask->queue_rows[ask->rows++] = worker->queues[i];
		else
			ask->message_rows[ask->rows++] = worker->messages[i];
	}
}

static int fake_ask(void *owner, unsigned index, struct queue_ask *ask)
{
	struct fake_worker *worker = &workers[index];

	assert_ptr_equal(owner, &workers);
	assert_true(index < WORKERS);
	assert_int_equal(ask->rows + ask->matched + ask->cursor, 0);
	worker->asked++;
	worker->last = *ask;
	if (worker->rc < 0)
		return worker->rc;
	if (ask->verb == QUEUE_ASK_LIST || ask->verb == QUEUE_ASK_MESSAGES) {
		fake_list(worker, ask);
	} else if (ask->verb == QUEUE_ASK_FACTS) {
		ask->facts = worker->facts;
		ask->spool = worker->spool;
	} else {
		ask->matched = worker->does;
	}
	ask->is_done = true;
	return 0;
}

static bool fake_has_connector(void *owner, const char *name)
{
	assert_ptr_equal(owner, &workers);
	return strcmp(name, "Smart host") == 0;
}

static inline int desk_up(void **state)
{
	char path[80];

	(void)state;
	memset(workers, 0, sizeof(workers));
	(void)snprintf(spool_folder, sizeof(spool_folder), "/tmp/postern-desk.XXXXXX");
	assert_non_null(mkdtemp(spool_folder));
	for (unsigned i = 0; i <= WORKERS; i++) {
		(void)snprintf(path, sizeof(path), "%s/%02u", spool_folder, i);
		assert_int_equal(mkdir(path, 0700), 0);
	}
	desk = (struct control_desk){
		.hooks = {fake_ask, fake_has_connector, WORKERS, &workers},
		.queue = {.spool_max_bytes = 1000000,
			.max_messages = 5000,
			.pressure_medium = 90,
			.pressure_high = 98,
			.pressure_high_end = 97,
			.pressure_medium_end = 85},
		.spool_folder = spool_folder,
	};
	return 0;
}

static inline int desk_down(void **state)
{
	static const char *const names[] = {"00/000001.seg", "00/000002.seg", "00/notes.txt",
		"01/000001.seg", "02/000001.seg", "00", "01", "02"};
	char path[96];

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(names); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", spool_folder, names[i]);
		(void)remove(path);
	}
	return rmdir(spool_folder);
}

/* The answer's line; *body: what is behind it, to be freed. */
static inline json_t *desk_ask(const char *line, char **body)
{
	struct asker client = {.fd = -1, .in = strdup(line)};
	const char *line_end;
	json_t *answer;
	size_t len;

	assert_non_null(client.in);
	if (control_parse(&client, strlen(line)))
		control_run(&desk, &client);
	assert_non_null(client.out);
	/* An answer is bytes, and no string. */
	line_end = memchr(client.out, '\n', client.out_len);
	assert_non_null(line_end);
	len = (size_t)(line_end - client.out);
	answer = json_loadb(client.out, len, 0, NULL);
	assert_non_null(answer);
	if (json_is_true(json_object_get(answer, "ok")))
		assert_int_equal(json_integer_value(json_object_get(answer, "bytes")),
			client.out_len - len - 1);
	if (body != NULL) {
		*body = calloc(1, client.out_len - len);
		assert_non_null(*body);
		memcpy(*body, client.out + len + 1, client.out_len - len - 1);
	}
	json_decref(client.request);
	free(client.in);
	free(client.out);
	return answer;
}

/* The object behind the line. */
static inline json_t *desk_look(const char *line)
{
	char *body;
	json_t *answer = desk_ask(line, &body);
	json_t *object = json_loads(body, 0, NULL);

	if (object == NULL)
		fail_msg("%s: %s", line, json_dumps(answer, 0));
	json_decref(answer);
	free(body);
	return object;
}

static inline void desk_expect(const char *line, const char *error, const char *message)
{
	json_t *answer = desk_ask(line, NULL);
	const char *got = json_string_value(json_object_get(answer, "error"));
	const char *words = json_string_value(json_object_get(answer, "message"));

	if (got == NULL || strcmp(got, error) != 0 || strstr(words, message) == NULL)
		fail_msg("%s: expected %s (%s), got %s (%s)", line, error, message,
			got == NULL ? "ok" : got, words == NULL ? "" : words);
	json_decref(answer);
}

static inline int64_t number_in(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);

	if (!json_is_integer(value))
		fail_msg("no number %s", key);
	return json_integer_value(value);
}

static inline const char *text_in(const json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	if (value == NULL)
		fail_msg("no text %s", key);
	return value;
}

/* An answer "ok" that counts. */
static inline void desk_count(const char *line, int64_t count)
{
	json_t *answer = desk_ask(line, NULL);

	assert_true(json_is_true(json_object_get(answer, "ok")));
	assert_int_equal(number_in(answer, "count"), count);
	json_decref(answer);
}

static inline struct queue_row *add_queue(
	unsigned worker, const char *identity, enum queue_status status, uint64_t messages)
{
	struct queue_row *row = &workers[worker].queues[workers[worker].queue_count++];

	*row = (struct queue_row){.kind = QUEUE_DNS, .status = status, .messages = messages};
	(void)snprintf(row->identity, sizeof(row->identity), "%s", identity);
	return row;
}

static inline struct message_row *add_message(unsigned worker, uint64_t id, const char *queue)
{
	struct message_row *row = &workers[worker].messages[workers[worker].message_count++];

	*row = (struct message_row){
		.id = id, .bytes = 1000 + id, .rcpt_count = 1, .rcpt_open = 1, .worker = worker};
	(void)snprintf(row->queue, sizeof(row->queue), "%s", queue);
	return row;
}
