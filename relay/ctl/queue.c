/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/queue.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* As Get-QueueDigest. */
#define DIGEST_MESSAGES_MIN 10

/* ---- queue list */

enum {
	BY_IDENTITY,
	BY_STATUS,
	BY_DELIVERY_TYPE,
	BY_NEXT_HOP_DOMAIN,
	BY_NEXT_HOP_CONNECTOR,
	BY_TLS_DOMAIN,
	BY_MESSAGE_COUNT,
	BY_RETRY_COUNT,
	BY_LAST_ERROR,
	BY_LAST_RETRY_TIME,
	BY_NEXT_RETRY_TIME,
};

static const char *const status_words[] = {
	"Active", "Connecting", "Ready", "Retry", "Suspended", NULL};

static const char *const type_words[] = {
	"Undefined", "Unreachable", "DnsConnectorDelivery", "SmartHostConnectorDelivery", NULL};

static const struct filter_property properties[] = {
	[BY_IDENTITY] = {"Identity", FILTER_TEXT, NULL},
	[BY_STATUS] = {"Status", FILTER_WORD, status_words},
	[BY_DELIVERY_TYPE] = {"DeliveryType", FILTER_WORD, type_words},
	[BY_NEXT_HOP_DOMAIN] = {"NextHopDomain", FILTER_TEXT, NULL},
	[BY_NEXT_HOP_CONNECTOR] = {"NextHopConnector", FILTER_TEXT, NULL},
	[BY_TLS_DOMAIN] = {"TlsDomain", FILTER_TEXT, NULL},
	[BY_MESSAGE_COUNT] = {"MessageCount", FILTER_NUMBER, NULL},
	[BY_RETRY_COUNT] = {"RetryCount", FILTER_NUMBER, NULL},
	[BY_LAST_ERROR] = {"LastError", FILTER_TEXT, NULL},
	[BY_LAST_RETRY_TIME] = {"LastRetryTime", FILTER_TIME, NULL},
	[BY_NEXT_RETRY_TIME] = {"NextRetryTime", FILTER_TIME, NULL},
	{.name = NULL},
};

static void queue_get(const void *at, unsigned property, struct filter_value *out)
{
	const struct queue_line *row = at;
	const char *const texts[] = {
		[BY_IDENTITY] = row->identity,
		[BY_STATUS] = row->status,
		[BY_DELIVERY_TYPE] = row->delivery_type,
		[BY_NEXT_HOP_DOMAIN] = row->next_hop_domain,
		[BY_NEXT_HOP_CONNECTOR] = row->connector,
		[BY_TLS_DOMAIN] = row->tls_domain,
		[BY_LAST_ERROR] = row->last_error,
		[BY_NEXT_RETRY_TIME] = NULL,
	};
	const int64_t numbers[] = {
		[BY_MESSAGE_COUNT] = (int64_t)row->message_count,
		[BY_RETRY_COUNT] = (int64_t)row->retry_count,
		[BY_LAST_RETRY_TIME] = row->last_retry_ms,
		[BY_NEXT_RETRY_TIME] = row->next_retry_ms,
	};

	out->text = texts[property];
	out->number = numbers[property];
}

static void lines_filter(struct queue_lines *lines, const struct filter *filter)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < lines->count; i++)
		if (filter_matches(filter, queue_get, &lines->rows[i]))
			lines->rows[kept++] = lines->rows[i];
	lines->count = kept;
}

/* All queues, or those that a filter (may be NULL) means. False after a message. */
static bool lines_create(
	struct queue_ask_place *ask, const struct filter *filter, struct queue_lines *out)
{
	struct control_member members[2];
	struct control_request request = {
		.command = "queue-list", .members = members, .patience_s = LIST_PATIENCE_S};
	const struct filter_node *node;
	const char *object;
	size_t len;
	int rc;

	/* What the relay can leave out need not come here; the rest is looked at here. */
	node = filter == NULL ? NULL : filter_find(filter, BY_IDENTITY, FILTER_EQ);
	if (node != NULL && *node->text != '\0' && strlen(node->text) < 320)
		members[request.member_count++] =
			(struct control_member){.key = "queue", .text = node->text};
	node = filter == NULL ? NULL : filter_find(filter, BY_STATUS, FILTER_EQ);
	if (node != NULL)
		members[request.member_count++] =
			(struct control_member){.key = "status", .text = node->text};
	if (!queue_ask_relay(ask, &request))
		return false;
	object = control_reply_object(&ask->reply, &len);
	rc = queue_lines_create(object, len, out);
	if (rc < 0) {
		(void)queue_ask_complain(rc);
		return false;
	}
	if (filter != NULL)
		lines_filter(out, filter);
	return true;
}

static int64_t velocity(const struct queue_line *row)
{
	return (int64_t)row->out_minute - (int64_t)row->in_minute;
}

static int lines_print(const struct ctl *ctl, const struct queue_lines *lines)
{
	static const char *const columns[] = {"Identity", "DeliveryType", "Status", "MessageCount",
		"Velocity", "NextRetryTime", "NextHopDomain"};
	struct ctl_table table;

	ctl_table_init(&table, columns, COUNT_OF(columns));
	table.right = BIT(3) | BIT(4);
	for (unsigned i = 0; i < lines->count; i++) {
		const struct queue_line *row = &lines->rows[i];
		char count[QUEUE_CELL_BYTES], rate[QUEUE_CELL_BYTES], next[QUEUE_CELL_BYTES];
		const char *const cells[] = {row->identity, row->delivery_type, row->status,
			queue_print_number(row->message_count, count),
			queue_print_rate(velocity(row), rate),
			queue_print_time(row->next_retry_ms, next), row->next_hop_domain};

		ctl_table_create_row(&table, cells);
	}
	return ctl_table_finish(ctl, &table);
}

static int list_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	static struct queue_ask_place ask;
	static struct filter filter;
	const char *text = NULL;
	int64_t timeout_s = 0;
	const struct ctl_option options[] = {{"filter", CTL_OPTION_TEXT, &text, 0, 0, false},
		{"timeout", CTL_OPTION_NUMBER, &timeout_s, 1, 3600, false}, {.name = NULL}};
	struct queue_lines lines = {0};
	struct ctl_list operands;
	int status = CTL_FAILED;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 0, 0) < 0 ||
		(text != NULL && queue_filter_read(text, properties, &filter) < 0) ||
		queue_ask_open(ctl, timeout_s, &ask) < 0)
		return CTL_USAGE;
	if (lines_create(&ask, text == NULL ? NULL : &filter, &lines)) {
		status = CTL_OK;
		if (ctl->json)
			queue_lines_print_json(&lines);
		else
			status = lines_print(ctl, &lines);
	}
	queue_lines_destroy(&lines);
	queue_ask_close(&ask);
	return status;
}

/* ---- queue show */

static const char *const fact_columns[] = {"Name", "Value"};

static int line_print(const struct ctl *ctl, const struct queue_line *row)
{
	struct ctl_table table;
	char cell[QUEUE_CELL_BYTES];

	ctl_table_init(&table, fact_columns, COUNT_OF(fact_columns));
	queue_put(&table, "Identity", row->identity);
	queue_put(&table, "DeliveryType", row->delivery_type);
	queue_put(&table, "Status", row->status);
	queue_put(&table, "MessageCount", queue_print_number(row->message_count, cell));
	queue_put(&table, "ActiveCount", queue_print_number(row->active, cell));
	queue_put(&table, "Size", queue_print_size(row->bytes, cell));
	queue_put(&table, "NextHopDomain", row->next_hop_domain);
	queue_put(&table, "NextHopConnector", row->connector);
	queue_put(&table, "TlsDomain", row->tls_domain);
	queue_put(&table, "OldestMessage", queue_print_time(row->oldest_ms, cell));
	queue_put(&table, "IncomingRate", queue_print_rate((int64_t)row->in_minute, cell));
	queue_put(&table, "OutgoingRate", queue_print_rate((int64_t)row->out_minute, cell));
	queue_put(&table, "Velocity", queue_print_rate(velocity(row), cell));
	queue_put(&table, "RetryCount", queue_print_number(row->retry_count, cell));
	queue_put(&table, "LastRetryTime", queue_print_time(row->last_retry_ms, cell));
	queue_put(&table, "NextRetryTime", queue_print_time(row->next_retry_ms, cell));
	queue_put(&table, "LastError", row->last_error);
	return ctl_table_finish_list(ctl, &table);
}

static int show_print(const struct ctl *ctl, const struct queue_question *question,
	const struct control_reply *reply)
{
	struct queue_lines lines;
	size_t len;
	const char *object = control_reply_object(reply, &len);
	int rc = queue_lines_create_one(object, len, &lines);
	int status;

	(void)question;
	if (rc < 0)
		return queue_ask_complain(rc);
	status = ctl->json ? queue_print_json(reply) : line_print(ctl, &lines.rows[0]);
	queue_lines_destroy(&lines);
	return status;
}

static int show_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	static const struct queue_question question = {
		.command = "queue-show", .key = "queue", .print = show_print};

	(void)argc;
	return queue_ask_question(ctl, command, argv, &question);
}

/* ---- queue digest */

static int by_next_hop(const void *a, const void *b)
{
	const struct queue_line *one = a;
	const struct queue_line *other = b;
	int order = strcasecmp(one->next_hop_domain, other->next_hop_domain);

	return order != 0 ? order : strcasecmp(one->identity, other->identity);
}

struct digest {
	const struct queue_line *first;
	uint64_t messages, deferred, queues;
	char details[QUEUE_LONG_BYTES];
};

static void digest_add(struct digest *digest, const struct queue_line *row)
{
	const size_t len = strlen(digest->details);

	digest->messages += row->message_count;
	if (strcmp(row->status, "Retry") == 0)
		digest->deferred += row->message_count;
	digest->queues++;
	(void)snprintf(digest->details + len, sizeof(digest->details) - len, "%s%s (%s)",
		len == 0 ? "" : ", ", row->identity, row->status);
}

static void digest_print(struct ctl_table *table, const struct digest *digest)
{
	char messages[QUEUE_CELL_BYTES], deferred[QUEUE_CELL_BYTES], queues[QUEUE_CELL_BYTES];
	const char *const cells[] = {digest->first->next_hop_domain,
		queue_print_number(digest->messages, messages),
		queue_print_number(digest->deferred, deferred),
		queue_print_number(digest->queues, queues), digest->details};

	ctl_table_create_row(table, cells);
}

/* The queues that are large enough, grouped by where they go. */
static int digest_lines(const struct ctl *ctl, struct queue_lines *lines, uint64_t min)
{
	static const char *const columns[] = {
		"NextHopDomain", "MessageCount", "DeferredMessageCount", "Queues", "Details"};
	struct digest digest = {0};
	struct ctl_table table;

	ctl_table_init(&table, columns, COUNT_OF(columns));
	table.right = BIT(1) | BIT(2) | BIT(3);
	qsort(lines->rows, lines->count, sizeof(*lines->rows), by_next_hop);
	for (unsigned i = 0; i < lines->count; i++) {
		const struct queue_line *row = &lines->rows[i];

		if (row->message_count < min)
			continue;
		if (digest.first != NULL &&
			strcasecmp(digest.first->next_hop_domain, row->next_hop_domain) != 0) {
			digest_print(&table, &digest);
			digest = (struct digest){0};
		}
		if (digest.first == NULL)
			digest.first = row;
		digest_add(&digest, row);
	}
	if (digest.first != NULL)
		digest_print(&table, &digest);
	return ctl_table_finish(ctl, &table);
}

static int digest_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	static struct queue_ask_place ask;
	int64_t min = DIGEST_MESSAGES_MIN;
	int64_t timeout_s = 0;
	const struct ctl_option options[] = {{"min", CTL_OPTION_NUMBER, &min, 0, INT32_MAX, false},
		{"timeout", CTL_OPTION_NUMBER, &timeout_s, 1, 3600, false}, {.name = NULL}};
	struct queue_lines lines = {0};
	struct ctl_list operands;
	int status = CTL_FAILED;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 0, 0) < 0 ||
		queue_ask_open(ctl, timeout_s, &ask) < 0)
		return CTL_USAGE;
	if (lines_create(&ask, NULL, &lines))
		status = digest_lines(ctl, &lines, (uint64_t)min);
	queue_lines_destroy(&lines);
	queue_ask_close(&ask);
	return status;
}

/* ---- queue retry, suspend, resume, redirect */

struct change {
	const char *command;
	const char *queue;
	const char *target; /* of redirect */
	const char *done;   /* what is said of it: "is tried now" */
	const char *undone; /* why nothing was done */
	int64_t timeout_s;
};

static int change_print(
	const struct ctl *ctl, const struct change *change, const struct control_reply *reply)
{
	if (ctl->json && queue_print_json(reply) != CTL_OK)
		return CTL_FAILED;
	if (reply->count == 0) {
		ctl_error("%s: nothing was done: %s; its status is %s", change->queue,
			change->undone, reply->status[0] != '\0' ? reply->status : "unknown");
		return CTL_FAILED;
	}
	if (ctl->json)
		return CTL_OK;
	ctl_print_safe(change->queue);
	(void)printf(": %s\n", change->done);
	return CTL_OK;
}

static int change_queue(const struct ctl *ctl, const struct change *change)
{
	static struct queue_ask_place ask;
	const struct control_member members[] = {
		{.key = "queue", .text = change->queue},
		{.key = "to", .text = change->target},
	};
	const struct control_request request = {.command = change->command,
		.members = members,
		.member_count = change->target == NULL ? 1 : 2,
		.patience_s = LIST_PATIENCE_S};
	int status = CTL_FAILED;

	if (queue_ask_open(ctl, change->timeout_s, &ask) < 0)
		return CTL_USAGE;
	if (queue_ask_relay(&ask, &request))
		status = change_print(ctl, change, &ask.reply);
	queue_ask_close(&ask);
	return status;
}

static int retry_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	struct change change = {.command = "queue-retry",
		.done = "tried again now",
		.undone = "only a queue in Retry is tried again"};
	bool resubmit = false;
	const struct ctl_option options[] = {{"resubmit", CTL_OPTION_FLAG, &resubmit, 0, 0, false},
		{"timeout", CTL_OPTION_NUMBER, &change.timeout_s, 1, 3600, false}, {.name = NULL}};
	struct ctl_list operands;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 1, 1) < 0)
		return CTL_USAGE;
	change.queue = operands.texts[0];
	if (resubmit) {
		change.command = "queue-resubmit";
		change.done = "its messages are routed anew";
		change.undone = "what is in it is being routed already";
	}
	return change_queue(ctl, &change);
}

/* A change whose only option beside --timeout is more; its name may be NULL. */
static int change_run(struct ctl *ctl, const struct ctl_command *command, char **argv,
	struct change *change, struct ctl_option more)
{
	const struct ctl_option options[] = {
		{"timeout", CTL_OPTION_NUMBER, &change->timeout_s, 1, 3600, false}, more,
		{.name = NULL}};
	struct ctl_list operands;

	if (ctl_options_read(ctl, command, argv, options, &operands, 1, 1) < 0)
		return CTL_USAGE;
	change->queue = operands.texts[0];
	return change_queue(ctl, change);
}

static int suspend_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	struct change change = {.command = "queue-suspend",
		.done = "suspended: nothing departs until queue resume",
		.undone = "only a queue that is not suspended can be"};

	(void)argc;
	return change_run(ctl, command, argv, &change, (struct ctl_option){.name = NULL});
}

static int resume_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	struct change change = {.command = "queue-resume",
		.done = "resumed",
		.undone = "only a queue that is suspended can be resumed"};

	(void)argc;
	return change_run(ctl, command, argv, &change, (struct ctl_option){.name = NULL});
}

static int redirect_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	struct change change = {.command = "queue-redirect",
		.done = "its messages are redirected",
		.undone = "there is no send connector of that name that is enabled"};

	(void)argc;
	return change_run(ctl, command, argv, &change,
		(struct ctl_option){"to", CTL_OPTION_TEXT, &change.target, 0, 0, true});
}

/* ---- pressure show */

static void put_pressure(struct ctl_table *table, const struct spool_status *spool)
{
	char used[QUEUE_CELL_BYTES], max[QUEUE_CELL_BYTES], text[256];

	queue_put(table, "SpoolFolder", spool->folder);
	queue_put(table, "Level", spool->level);
	(void)snprintf(text, sizeof(text), "%s of %s (%" PRIu64 " %%)",
		queue_print_size(spool->bytes_used, used), queue_print_size(spool->bytes_max, max),
		spool->bytes_max == 0 ? 0 : spool->bytes_used / (spool->bytes_max / 100 + 1));
	queue_put(table, "Used", text);
	(void)snprintf(text, sizeof(text), "%" PRIu64 " %%, back to normal below %" PRIu64 " %%",
		spool->medium, spool->medium_end);
	queue_put(table, "MediumAt", text);
	(void)snprintf(text, sizeof(text), "%" PRIu64 " %%, back to medium below %" PRIu64 " %%",
		spool->high, spool->high_end);
	queue_put(table, "HighAt", text);
	(void)snprintf(text, sizeof(text), "%" PRIu64 " used, %" PRIu64 " free, %" PRIu64 " failed",
		spool->segments_used, spool->segments_free, spool->segments_failed);
	queue_put(table, "Segments", text);
	(void)snprintf(text, sizeof(text), "%" PRIu64 " of %" PRIu64, spool->messages,
		spool->messages_max * spool->workers);
	queue_put(table, "Messages", text);
	queue_put(table, "Queues", queue_print_number(spool->queues, text));
	queue_put(table, "Deliveries", queue_print_number(spool->active, text));
}

static int pressure_print(const struct ctl *ctl, const struct queue_question *question,
	const struct control_reply *reply)
{
	struct spool_status spool;
	struct ctl_table table;
	size_t len;
	const char *object = control_reply_object(reply, &len);
	int rc = spool_status_read(object, len, &spool);

	(void)question;
	if (rc < 0)
		return queue_ask_complain(rc);
	if (ctl->json)
		return queue_print_json(reply);
	ctl_table_init(&table, fact_columns, COUNT_OF(fact_columns));
	put_pressure(&table, &spool);
	return ctl_table_finish_list(ctl, &table);
}

static int pressure_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	static const struct queue_question question = {
		.command = "spool-status", .print = pressure_print};

	(void)argc;
	return queue_ask_question(ctl, command, argv, &question);
}

const struct ctl_command ctl_queue_commands[] = {
	{"queue list", "[--filter FILTER] [--timeout S]",
		"the queues of the relay, as Get-Queue shows them", list_run},
	{"queue show", "QUEUE [--timeout S]", "all that is known of one, its last error too",
		show_run},
	{"queue digest", "[--min N] [--timeout S]",
		"queues with N messages or more (10), by where they go", digest_run},
	{"queue retry", "QUEUE [--resubmit] [--timeout S]",
		"try its next hop now, or route its messages anew", retry_run},
	{"queue suspend", "QUEUE [--timeout S]", "let nothing depart", suspend_run},
	{"queue resume", "QUEUE [--timeout S]", "let it depart again", resume_run},
	{"queue redirect", "QUEUE --to CONNECTOR [--timeout S]",
		"send its messages by that send connector", redirect_run},
	{NULL, NULL, NULL, NULL},
};

const struct ctl_command ctl_pressure_commands[] = {
	{"pressure show", "[--timeout S]", "how full the spool is, and when mail is refused",
		pressure_run},
	{NULL, NULL, NULL, NULL},
};
