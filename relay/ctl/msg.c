/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/queue.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Of one answer (relay/control_message.c). */
#define PAGE_ROWS 1000

#define LIST_ROWS_DEFAULT 1000

/* ---- filters */

enum {
	BY_IDENTITY,
	BY_FROM_ADDRESS,
	BY_STATUS,
	BY_QUEUE,
	BY_SIZE,
	BY_SUBJECT,
	BY_DATE_RECEIVED,
	BY_EXPIRATION_TIME,
	BY_RETRY_COUNT,
	BY_LAST_ERROR,
	PROPERTIES,
};

static const char *const status_words[] = {
	"Ready", "Active", "Retry", "Suspended", "PendingSuspend", "PendingRemove", NULL};

const struct filter_property msg_properties[] = {
	[BY_IDENTITY] = {"Identity", FILTER_TEXT, NULL},
	[BY_FROM_ADDRESS] = {"FromAddress", FILTER_TEXT, NULL},
	[BY_STATUS] = {"Status", FILTER_WORD, status_words},
	[BY_QUEUE] = {"Queue", FILTER_TEXT, NULL},
	[BY_SIZE] = {"Size", FILTER_SIZE, NULL},
	[BY_SUBJECT] = {"Subject", FILTER_TEXT, NULL},
	[BY_DATE_RECEIVED] = {"DateReceived", FILTER_TIME, NULL},
	[BY_EXPIRATION_TIME] = {"ExpirationTime", FILTER_TIME, NULL},
	[BY_RETRY_COUNT] = {"RetryCount", FILTER_NUMBER, NULL},
	[BY_LAST_ERROR] = {"LastError", FILTER_TEXT, NULL},
	[PROPERTIES] = {.name = NULL},
};

static void msg_get(const void *at, unsigned property, struct filter_value *out)
{
	const struct msg_line *row = at;
	const char *const texts[PROPERTIES] = {
		[BY_IDENTITY] = row->id,
		[BY_FROM_ADDRESS] = row->from_address,
		[BY_STATUS] = row->status,
		[BY_QUEUE] = row->queue,
		[BY_SUBJECT] = row->subject,
		[BY_LAST_ERROR] = row->last_error,
	};
	const int64_t numbers[PROPERTIES] = {
		[BY_SIZE] = (int64_t)row->bytes,
		[BY_DATE_RECEIVED] = row->arrived_ms,
		[BY_EXPIRATION_TIME] = row->expires_ms,
		[BY_RETRY_COUNT] = (int64_t)row->retry_count,
	};

	out->text = texts[property];
	out->number = numbers[property];
}

bool msg_filter_needs_envelopes(const struct filter *filter)
{
	return filter_asks(filter, BY_FROM_ADDRESS) || filter_asks(filter, BY_SUBJECT);
}

/* ---- asking */

/* Of a request for rows, beside limit and skip. */
struct members {
	struct control_member rows[12];
	unsigned count;
};

static void add_text(struct members *members, const char *key, const char *text)
{
	ASSERT(members->count < COUNT_OF(members->rows));
	if (text != NULL)
		members->rows[members->count++] = (struct control_member){.key = key, .text = text};
}

static void add_number(struct members *members, const char *key, uint64_t number)
{
	ASSERT(members->count < COUNT_OF(members->rows));
	members->rows[members->count++] =
		(struct control_member){.key = key, .kind = CONTROL_NUMBER, .number = number};
}

/* The text that a property must be, if it is short enough to be asked for; or NULL. */
static const char *filter_word(const struct filter *filter, unsigned property, size_t len_max)
{
	const struct filter_node *node =
		filter == NULL ? NULL : filter_find(filter, property, FILTER_EQ);

	return node != NULL && *node->text != '\0' && strlen(node->text) <= len_max ? node->text
										    : NULL;
}

/*
 * What the relay can leave out; the whole filter is looked at here once more. An option says it
 * first: one key cannot be said twice.
 */
static void add_filter(struct members *members, const struct msg_query *query)
{
	const struct filter *filter = query->filter;
	const struct filter_node *node;
	const int64_t now_ms = (int64_t)time(NULL) * 1000;

	add_text(members, "queue",
		query->queue != NULL ? query->queue : filter_word(filter, BY_QUEUE, 300));
	add_text(members, "sender",
		query->sender != NULL ? query->sender : filter_word(filter, BY_FROM_ADDRESS, 500));
	add_text(members, "recipient", query->recipient);
	if (filter == NULL)
		return;
	add_text(members, "status", filter_word(filter, BY_STATUS, 100));
	node = filter_find(filter, BY_SIZE, FILTER_GT);
	if (node != NULL)
		add_number(members, "larger_than", (uint64_t)node->number);
	node = filter_find(filter, BY_DATE_RECEIVED, FILTER_LT);
	if (node != NULL && node->number < now_ms)
		add_number(members, "older_than_ms", (uint64_t)(now_ms - node->number));
}

/* One page; how many rows came. False after a message. */
static bool query_page(struct queue_ask_place *ask, const struct msg_query *query, uint64_t skip,
	uint64_t limit, struct msg_lines *lines)
{
	struct members members = {.count = 0};
	struct control_request request = {
		.command = "msg-list", .members = members.rows, .patience_s = LIST_PATIENCE_S};
	const char *object;
	size_t len;
	int rc;

	add_filter(&members, query);
	add_number(&members, "limit", limit);
	add_number(&members, "skip", skip);
	if (query->has_envelopes)
		members.rows[members.count++] =
			(struct control_member){.key = "envelopes", .kind = CONTROL_FLAG};
	request.member_count = members.count;
	if (!queue_ask_relay(ask, &request))
		return false;
	object = control_reply_object(&ask->reply, &len);
	rc = msg_lines_create(object, len, lines);
	if (rc < 0)
		(void)queue_ask_complain(rc);
	return rc == 0;
}

/*
 * Of the rows from first on those that the filter means stay; passed: how many of them are still to
 * be passed over.
 */
static void lines_filter(
	struct msg_lines *lines, unsigned first, const struct filter *filter, uint64_t *passed)
{
	unsigned kept = first;

	for (unsigned i = first; i < lines->count; i++) {
		if (!filter_matches(filter, msg_get, &lines->rows[i]))
			continue;
		if (*passed > 0)
			(*passed)--;
		else
			lines->rows[kept++] = lines->rows[i];
	}
	lines->count = kept;
}

bool msg_query_create_lines(
	struct queue_ask_place *ask, const struct msg_query *query, struct msg_lines *out)
{
	uint64_t skip = query->filter == NULL ? query->skip : 0;
	uint64_t passed = query->filter == NULL ? 0 : query->skip;

	*out = (struct msg_lines){.has_more = true};
	while (out->has_more && out->count < query->limit) {
		const unsigned before = out->count;
		const uint64_t left = query->limit - out->count;

		if (!query_page(ask, query, skip,
			    query->filter != NULL || left > PAGE_ROWS ? PAGE_ROWS : left, out))
			return false;
		/* A relay that says "more" and has none would be asked for ever. */
		if (out->count == before)
			out->has_more = false;
		skip += out->count - before;
		if (query->filter != NULL)
			lines_filter(out, before, query->filter, &passed);
		if (out->count > query->limit) {
			out->count = (unsigned)query->limit;
			out->has_more = true;
		}
	}
	return true;
}

/* ---- msg list */

int msg_lines_print(const struct ctl *ctl, const struct msg_lines *lines)
{
	static const char *const columns[] = {
		"Identity", "FromAddress", "Status", "Queue", "Size", "Subject"};
	struct ctl_table table;

	if (ctl->json) {
		msg_lines_print_json(lines);
		return CTL_OK;
	}
	ctl_table_init(&table, columns, COUNT_OF(columns));
	table.right = BIT(4);
	for (unsigned i = 0; i < lines->count; i++) {
		const struct msg_line *row = &lines->rows[i];
		char size[QUEUE_CELL_BYTES];
		const char *const cells[] = {row->id,
			row->gone                      ? "-"
			: row->from_address[0] == '\0' ? "<>"
						       : row->from_address,
			row->status, row->queue, queue_print_size(row->bytes, size), row->subject};

		ctl_table_create_row(&table, cells);
	}
	return ctl_table_finish(ctl, &table);
}

static int list_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	static struct queue_ask_place ask;
	static struct filter filter;
	const char *text = NULL;
	struct msg_query query = {.has_envelopes = true};
	int64_t timeout_s = 0, limit = LIST_ROWS_DEFAULT, skip = 0;
	const struct ctl_option options[] = {{"queue", CTL_OPTION_TEXT, &query.queue, 0, 0, false},
		{"sender", CTL_OPTION_TEXT, &query.sender, 0, 0, false},
		{"recipient", CTL_OPTION_TEXT, &query.recipient, 0, 0, false},
		{"filter", CTL_OPTION_TEXT, &text, 0, 0, false},
		{"limit", CTL_OPTION_NUMBER, &limit, 1, 1000000, false},
		{"skip", CTL_OPTION_NUMBER, &skip, 0, INT32_MAX, false},
		{"timeout", CTL_OPTION_NUMBER, &timeout_s, 1, 3600, false}, {.name = NULL}};
	struct msg_lines lines = {0};
	struct ctl_list operands;
	int status = CTL_FAILED;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 0, 0) < 0 ||
		(text != NULL && queue_filter_read(text, msg_properties, &filter) < 0) ||
		queue_ask_open(ctl, timeout_s, &ask) < 0)
		return CTL_USAGE;
	query.filter = text == NULL ? NULL : &filter;
	query.limit = (uint64_t)limit;
	query.skip = (uint64_t)skip;
	if (msg_query_create_lines(&ask, &query, &lines))
		status = msg_lines_print(ctl, &lines);
	if (status == CTL_OK && lines.has_more)
		ctl_note("there may be more: --skip %" PRId64 " goes on behind these",
			skip + lines.count);
	msg_lines_destroy(&lines);
	queue_ask_close(&ask);
	return status;
}

/* ---- msg show */

static int whole_print_facts(const struct ctl *ctl, const struct msg_whole *whole)
{
	static const char *const columns[] = {"Name", "Value"};
	const struct msg_line *line = &whole->line;
	struct ctl_table table;
	char cell[QUEUE_CELL_BYTES], counts[128];

	ctl_table_init(&table, columns, COUNT_OF(columns));
	queue_put(&table, "Identity", line->id);
	if (whole->rcpt_count > 0) {
		queue_put(&table, "FromAddress",
			line->from_address[0] == '\0' ? "<>" : line->from_address);
		queue_put(&table, "Subject", line->subject);
		queue_put(&table, "InternetMessageId", whole->message_id);
	}
	queue_put(&table, "Size", queue_print_size(line->bytes, cell));
	queue_put(&table, "DateReceived", queue_print_time(line->arrived_ms, cell));
	queue_put(&table, "ExpirationTime", queue_print_time(line->expires_ms, cell));
	(void)snprintf(counts, sizeof(counts), "%" PRIu64 ", of these %" PRIu64 " still open",
		whole->recipient_count, whole->recipients_open);
	queue_put(&table, "Recipients", counts);
	if (whole->rcpt_count > 0) {
		queue_put(&table, "ReceiveConnector", whole->connector);
		queue_put(&table, "SourceIP", whole->client);
		queue_put(&table, "Helo", whole->helo);
		queue_put(&table, "ProvedDomain", whole->domain);
		queue_put(&table, "Tls", whole->tls);
		queue_put(&table, "Session", whole->session);
		if (whole->origin[0] != '\0')
			queue_put(&table, "NoticeAbout", whole->origin);
	}
	return ctl_table_finish_list(ctl, &table);
}

static int whole_print(const struct ctl *ctl, const struct msg_whole *whole)
{
	static const char *const queue_columns[] = {"Queue", "Status", "RetryCount", "LastError"};
	static const char *const rcpt_columns[] = {"Recipient", "State"};
	struct ctl_table queues, rcpts;
	int status = whole_print_facts(ctl, whole);

	ctl_table_init(&queues, queue_columns, COUNT_OF(queue_columns));
	queues.right = BIT(2);
	for (unsigned i = 0; i < whole->entry_count; i++) {
		const struct msg_line *entry = &whole->entries[i];
		char count[QUEUE_CELL_BYTES];
		const char *const cells[] = {entry->queue, entry->status,
			queue_print_number(entry->retry_count, count), entry->last_error};

		ctl_table_create_row(&queues, cells);
	}
	(void)putchar('\n');
	if (ctl_table_finish(ctl, &queues) != CTL_OK)
		status = CTL_FAILED;
	if (whole->rcpt_count == 0) {
		ctl_note("it was delivered, or moved in the spool, meanwhile: what it is cannot be "
			 "told");
		return status;
	}
	ctl_table_init(&rcpts, rcpt_columns, COUNT_OF(rcpt_columns));
	for (unsigned i = 0; i < whole->rcpt_count; i++) {
		const char *const cells[] = {whole->rcpts[i].address, whole->rcpts[i].state};

		ctl_table_create_row(&rcpts, cells);
	}
	(void)putchar('\n');
	return ctl_table_finish(ctl, &rcpts) == CTL_OK ? status : CTL_FAILED;
}

static int show_print(const struct ctl *ctl, const struct queue_question *question,
	const struct control_reply *reply)
{
	struct msg_whole whole;
	size_t len;
	const char *object = control_reply_object(reply, &len);
	int rc = msg_whole_create(object, len, &whole);
	int status;

	(void)question;
	if (rc < 0)
		return queue_ask_complain(rc);
	status = ctl->json ? queue_print_json(reply) : whole_print(ctl, &whole);
	msg_whole_destroy(&whole);
	return status;
}

static int show_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	static const struct queue_question question = {
		.command = "msg-show", .key = "id", .print = show_print};

	(void)argc;
	return queue_ask_question(ctl, command, argv, &question);
}

/* ---- msg export */

/* Nobody else is to read other people's mail. */
static int export_write(const char *file, const char *bytes, size_t len)
{
	int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, S_IRUSR | S_IWUSR);
	FILE *out = fd < 0 ? NULL : fdopen(fd, "w");
	bool is_whole;

	if (out == NULL) {
		ctl_error("%s: %s", file, strerror(errno));
		if (fd >= 0)
			(void)close(fd);
		return CTL_USAGE;
	}
	is_whole = fwrite(bytes, 1, len, out) == len;
	if (fclose(out) == 0 && is_whole)
		return CTL_OK;
	ctl_error("%s: %s", file, strerror(errno));
	return CTL_FAILED;
}

static int export_print(const struct ctl *ctl, const struct queue_question *question,
	const struct control_reply *reply)
{
	const char *bytes = reply->bytes == NULL ? "" : reply->bytes;

	(void)ctl;
	if (*question->out != NULL)
		return export_write(*question->out, bytes, reply->byte_count);
	(void)fwrite(bytes, 1, reply->byte_count, stdout);
	return CTL_OK;
}

static int export_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	const char *file = NULL;
	const struct queue_question question = {
		.command = "msg-export", .key = "id", .out = &file, .print = export_print};

	(void)argc;
	return queue_ask_question(ctl, command, argv, &question);
}

const struct ctl_command ctl_msg_commands[] = {
	{"msg list",
		"[--queue QUEUE] [--sender ADDRESS] [--recipient ADDRESS]\n"
		"[--filter FILTER] [--limit N] [--skip N] [--timeout S]",
		"messages that wait, as Get-Message shows them", list_run},
	{"msg show", "ID [--timeout S]", "one, with its envelope, recipients and their states",
		show_run},
	{"msg suspend", "[ID ...] [--filter FILTER] [--dry-run] [--timeout S]",
		"keep messages from being delivered", msg_suspend_run},
	{"msg resume", "[ID ...] [--filter FILTER] [--dry-run] [--timeout S]",
		"let them be delivered again", msg_resume_run},
	{"msg remove", "[ID ...] [--filter FILTER] [--ndr] [--dry-run] [--yes] [--timeout S]",
		"give messages up, with or without a notice to their senders", msg_remove_run},
	{"msg export", "ID [--out FILE] [--timeout S]", "the message, byte by byte", export_run},
	{NULL, NULL, NULL, NULL},
};
