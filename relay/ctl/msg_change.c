/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/queue.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/*
 * msg_change.c: what is done to messages. Those of a filter are looked up first, and then named:
 * what comes in between is not touched, and --dry-run shows what is. A message is one, in however
 * many queues it waits.
 */

#define CHANGE_PATIENCE_S 300

/* Of one request (relay/control_message.c). */
#define IDS_MAX 1000

struct change {
	const char *command;
	const char *done; /* "suspended" */
	bool needs_yes;   /* for more than one */
	bool with_notice;
	/* Options. */
	const char *filter;
	bool dry_run, yes;
	int64_t timeout_s;
};

/* Names messages. Adds how many it was done to. False after a message. */
static bool change_ask(struct queue_ask_place *ask, const struct change *change,
	const char *const *ids, unsigned count, uint64_t *done)
{
	const struct control_member members[] = {
		{.key = "ids", .kind = CONTROL_TEXTS, .texts = ids, .text_count = count},
		{.key = "ndr", .kind = CONTROL_FLAG},
	};
	const struct control_request request = {.command = change->command,
		.members = members,
		.member_count = change->with_notice ? 2 : 1,
		.patience_s = CHANGE_PATIENCE_S};

	if (!queue_ask_relay(ask, &request))
		return false;
	*done += ask->reply.count;
	return true;
}

static int change_report(
	const struct ctl *ctl, const struct change *change, uint64_t wanted, uint64_t done)
{
	if (ctl->json)
		(void)printf("{\n  \"count\": %" PRIu64 "\n}\n", done);
	else
		(void)printf(
			"%" PRIu64 " message%s %s\n", done, done == 1 ? "" : "s", change->done);
	if (done >= wanted)
		return CTL_OK;
	ctl_error("%" PRIu64 " of %" PRIu64 " were not there any more, or in no state for it",
		wanted - done, wanted);
	return CTL_FAILED;
}

/* More than one is given up by whoever says so only. */
static bool change_is_sure(const struct change *change, unsigned count)
{
	if (!change->needs_yes || change->yes || count <= 1)
		return true;
	ctl_error("%u messages would be %s: --yes does that, --dry-run shows them", count,
		change->done);
	return false;
}

/* ---- those that are named */

static int change_ids(
	const struct ctl *ctl, const struct change *change, const struct ctl_list *ids)
{
	static struct queue_ask_place ask;
	uint64_t done = 0;
	bool is_asked;

	if (change->dry_run) {
		(void)printf("%u message%s would be %s\n", ids->count, ids->count == 1 ? "" : "s",
			change->done);
		return CTL_OK;
	}
	if (!change_is_sure(change, ids->count))
		return CTL_FAILED;
	if (queue_ask_open(ctl, change->timeout_s, &ask) < 0)
		return CTL_USAGE;
	is_asked = change_ask(&ask, change, ids->texts, ids->count, &done);
	queue_ask_close(&ask);
	return is_asked ? change_report(ctl, change, ids->count, done) : CTL_FAILED;
}

/* ---- those of a filter */

static int by_id(const void *a, const void *b)
{
	const struct msg_line *one = a;
	const struct msg_line *other = b;

	return strcmp(one->id, other->id);
}

/* Each message once, in the order of their ids. */
static void lines_unite(struct msg_lines *lines)
{
	unsigned kept = 0;

	qsort(lines->rows, lines->count, sizeof(*lines->rows), by_id);
	for (unsigned i = 0; i < lines->count; i++)
		if (kept == 0 || by_id(&lines->rows[kept - 1], &lines->rows[i]) != 0)
			lines->rows[kept++] = lines->rows[i];
	lines->count = kept;
}

/* A request's worth at a time. False after a message. */
static bool change_rows(struct queue_ask_place *ask, const struct change *change,
	const struct msg_lines *lines, uint64_t *done)
{
	static const char *ids[IDS_MAX];
	unsigned count = 0;

	for (unsigned i = 0; i < lines->count; i++) {
		ids[count++] = lines->rows[i].id;
		if (count < IDS_MAX && i + 1 < lines->count)
			continue;
		if (!change_ask(ask, change, ids, count, done))
			return false;
		count = 0;
	}
	return true;
}

static int change_lines(const struct ctl *ctl, struct queue_ask_place *ask,
	const struct change *change, struct msg_lines *lines)
{
	uint64_t done = 0;
	int status = CTL_OK;

	if (change->dry_run)
		status = msg_lines_print(ctl, lines);
	lines_unite(lines);
	if (change->dry_run) {
		if (!ctl->json)
			(void)printf("%u message%s would be %s\n", lines->count,
				lines->count == 1 ? "" : "s", change->done);
		return status;
	}
	if (!change_is_sure(change, lines->count))
		return CTL_FAILED;
	if (change_rows(ask, change, lines, &done))
		return change_report(ctl, change, lines->count, done);
	if (done > 0)
		ctl_error("%" PRIu64 " of %u messages were %s before that", done, lines->count,
			change->done);
	return CTL_FAILED;
}

static int change_filter(const struct ctl *ctl, const struct change *change)
{
	static struct queue_ask_place ask;
	static struct filter filter;
	struct msg_query query = {.filter = &filter, .limit = UINT32_MAX};
	struct msg_lines lines = {0};
	int status = CTL_FAILED;

	if (queue_filter_read(change->filter, msg_properties, &filter) < 0 ||
		queue_ask_open(ctl, change->timeout_s, &ask) < 0)
		return CTL_USAGE;
	/* What is shown has FromAddress and Subject. */
	query.has_envelopes = change->dry_run || msg_filter_needs_envelopes(&filter);
	if (msg_query_create_lines(&ask, &query, &lines))
		status = change_lines(ctl, &ask, change, &lines);
	msg_lines_destroy(&lines);
	queue_ask_close(&ask);
	return status;
}

/* ---- */

static int change_run(const struct ctl *ctl, const struct ctl_command *command,
	const struct change *change, const struct ctl_list *ids)
{
	if ((change->filter == NULL) == (ids->count == 0)) {
		ctl_error("%s: expected the IDs of messages, or --filter", command->words);
		return ctl_usage(command, stderr);
	}
	return change->filter != NULL ? change_filter(ctl, change) : change_ids(ctl, change, ids);
}

/* suspend and resume have the same options. */
static int hold_run(
	struct ctl *ctl, const struct ctl_command *command, char **argv, struct change *change)
{
	const struct ctl_option options[] = {
		{"filter", CTL_OPTION_TEXT, &change->filter, 0, 0, false},
		{"dry-run", CTL_OPTION_FLAG, &change->dry_run, 0, 0, false},
		{"timeout", CTL_OPTION_NUMBER, &change->timeout_s, 1, 3600, false}, {.name = NULL}};
	struct ctl_list ids;

	if (ctl_options_read(ctl, command, argv, options, &ids, 0, CTL_LIST_MAX) < 0)
		return CTL_USAGE;
	return change_run(ctl, command, change, &ids);
}

int msg_suspend_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	struct change change = {.command = "msg-suspend", .done = "suspended"};

	(void)argc;
	return hold_run(ctl, command, argv, &change);
}

int msg_resume_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	struct change change = {.command = "msg-resume", .done = "resumed"};

	(void)argc;
	return hold_run(ctl, command, argv, &change);
}

int msg_remove_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	struct change change = {.command = "msg-remove", .done = "removed", .needs_yes = true};
	const struct ctl_option options[] = {
		{"filter", CTL_OPTION_TEXT, &change.filter, 0, 0, false},
		{"ndr", CTL_OPTION_FLAG, &change.with_notice, 0, 0, false},
		{"dry-run", CTL_OPTION_FLAG, &change.dry_run, 0, 0, false},
		{"yes", CTL_OPTION_FLAG, &change.yes, 0, 0, false},
		{"timeout", CTL_OPTION_NUMBER, &change.timeout_s, 1, 3600, false}, {.name = NULL}};
	struct ctl_list ids;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &ids, 0, CTL_LIST_MAX) < 0)
		return CTL_USAGE;
	return change_run(ctl, command, &change, &ids);
}
