/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/queue.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

/*
 * queue_ask.c: asking the relay about what waits in it, and words for what it says.
 */

int queue_ask_open(const struct ctl *ctl, int64_t timeout_s, struct queue_ask_place *out)
{
	out->reply = (struct control_reply){0};
	return control_place_read(ctl, timeout_s, &out->place);
}

void queue_ask_close(struct queue_ask_place *ask)
{
	control_reply_clear(&ask->reply);
}

bool queue_ask_relay(struct queue_ask_place *ask, const struct control_request *request)
{
	control_reply_clear(&ask->reply);
	switch (control_ask(&ask->place, request, &ask->reply)) {
	case CONTROL_DONE:
		return true;
	case CONTROL_REFUSED:
		ctl_error("%s", ask->reply.message);
		return false;
	case CONTROL_NO_RELAY:
		if (ask->place.socket == NULL)
			ctl_error("there is no control-socket to ask a relay; set one in the "
				  "transport section of %s",
				ask->place.config.file);
		else
			ctl_error("the relay is not running: nobody listens on %s",
				ask->place.socket);
		return false;
	case CONTROL_BROKEN:
		return false;
	}
	UNREACHABLE();
}

int queue_ask_question(struct ctl *ctl, const struct ctl_command *command, char **argv,
	const struct queue_question *question)
{
	static struct queue_ask_place ask;
	int64_t timeout_s = 0;
	const struct ctl_option timeout = {
		"timeout", CTL_OPTION_NUMBER, &timeout_s, 1, 3600, false};
	const struct ctl_option out = {"out", CTL_OPTION_TEXT, question->out, 0, 0, false};
	const struct ctl_option none = {.name = NULL};
	const struct ctl_option options[] = {timeout, question->out != NULL ? out : none, none};
	struct ctl_list operands;
	struct control_member member = {.key = question->key};
	const unsigned count = question->key != NULL;
	const struct control_request request = {.command = question->command,
		.members = &member,
		.member_count = count,
		.patience_s = LIST_PATIENCE_S};
	int status = CTL_FAILED;

	if (ctl_options_read(ctl, command, argv, options, &operands, count, count) < 0 ||
		queue_ask_open(ctl, timeout_s, &ask) < 0)
		return CTL_USAGE;
	if (count > 0)
		member.text = operands.texts[0];
	if (queue_ask_relay(&ask, &request))
		status = question->print(ctl, question, &ask.reply);
	queue_ask_close(&ask);
	return status;
}

int queue_print_json(const struct control_reply *reply)
{
	size_t len;
	const char *object = control_reply_object(reply, &len);

	return control_print_json(object, len, stdout) < 0 ? CTL_FAILED : CTL_OK;
}

int queue_ask_complain(int rc)
{
	if (rc == -ENOMEM)
		ctl_error("out of memory");
	else
		ctl_error("the relay's answer is not what was asked for; is the relay of another "
			  "version than posternctl %s?",
			POSTERN_VERSION);
	return CTL_FAILED;
}

int queue_filter_read(
	const char *text, const struct filter_property *properties, struct filter *out)
{
	char why[FILTER_WHY_BYTES];
	int rc = filter_parse(text, properties, out, why);

	if (rc < 0)
		ctl_error("--filter: %s", why);
	return rc;
}

/* ---- words */

const char *queue_print_time(int64_t ms, char out[static QUEUE_CELL_BYTES])
{
	const time_t seconds = (time_t)(ms / 1000);
	struct tm tm;

	out[0] = '\0';
	if (ms > 0 && gmtime_r(&seconds, &tm) != NULL)
		(void)strftime(out, QUEUE_CELL_BYTES, "%Y-%m-%dT%H:%M:%SZ", &tm);
	return out;
}

const char *queue_print_size(uint64_t bytes, char out[static QUEUE_CELL_BYTES])
{
	static const char *const units[] = {"KB", "MB", "GB", "TB"};
	double value = (double)bytes / 1024;
	unsigned unit = 0;

	if (bytes < 1024) {
		(void)snprintf(out, QUEUE_CELL_BYTES, "%" PRIu64 " B", bytes);
		return out;
	}
	while (value >= 1024 && unit + 1 < COUNT_OF(units)) {
		value /= 1024;
		unit++;
	}
	(void)snprintf(out, QUEUE_CELL_BYTES, "%.1f %s", value, units[unit]);
	return out;
}

const char *queue_print_number(uint64_t number, char out[static QUEUE_CELL_BYTES])
{
	(void)snprintf(out, QUEUE_CELL_BYTES, "%" PRIu64, number);
	return out;
}

const char *queue_print_rate(int64_t of_minute, char out[static QUEUE_CELL_BYTES])
{
	if (of_minute == 0)
		(void)snprintf(out, QUEUE_CELL_BYTES, "0");
	else
		(void)snprintf(out, QUEUE_CELL_BYTES, "%.2f", (double)of_minute / 60);
	return out;
}

void queue_put(struct ctl_table *table, const char *name, const char *value)
{
	const char *const cells[] = {name, value};

	ASSERT(table->column_count == COUNT_OF(cells));
	ctl_table_create_row(table, cells);
}
