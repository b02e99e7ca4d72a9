/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/partner_ip.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* A list of a million entries is 20 MB. */
#define LOOK_PATIENCE_S 60

/* diff(1): 0 the same, 1 not, 2 trouble. */
enum { DIFF_SAME = CTL_OK, DIFF_OTHER = CTL_FAILED, DIFF_TROUBLE = CTL_USAGE };

int partner_ip_refused(const struct partner_ip *ask, const struct control_reply *reply)
{
	const char *at = *reply->message != '\0' ? reply->message : reply->error;

	while (*at != '\0') {
		size_t len = strcspn(at, "\n");
		char line[CONTROL_MESSAGE_BYTES];

		(void)snprintf(line, sizeof(line), "%.*s", (int)len, at);
		for (char *byte = line; *byte != '\0'; byte++)
			if ((unsigned char)*byte < ' ' || *byte == 0x7f)
				*byte = '?';
		ctl_error("%s: %s", ask->partner, line);
		at += len + (at[len] == '\n');
	}
	return CTL_FAILED;
}

int partner_ip_open(struct partner_ip *ask, char **argv, const struct ctl_option *options,
	unsigned min, unsigned max)
{
	enum ip_list_format format;

	if (ctl_options_read(ask->ctl, ask->command, argv, options, &ask->operands, min, max) < 0)
		return CTL_USAGE;
	if (ask->format != NULL && !ip_list_format_parse(ask->format, &format)) {
		ctl_error("--format %s: expected plain, postfix-cidr or json", ask->format);
		return CTL_USAGE;
	}
	ask->partner = ask->operands.texts[0];
	return control_place_read(ask->ctl, ask->timeout_s, &ask->place) < 0 ? CTL_USAGE : CTL_OK;
}

int partner_ip_import(const struct partner_ip *ask, const char *file, struct cidr **out)
{
	enum ip_list_format format = IP_LIST_AUTO;
	bool is_stdin = strcmp(file, "-") == 0;
	FILE *in = is_stdin ? stdin : fopen(file, "re");
	int rc;

	if (in == NULL) {
		ctl_error("%s: %s", file, strerror(errno));
		return CTL_USAGE;
	}
	if (ask->format != NULL)
		(void)ip_list_format_parse(ask->format, &format);
	rc = ip_list_import(in, is_stdin ? "standard input" : file, format, stderr,
		ask->ctl->json ? NULL : stderr, out);
	if (!is_stdin)
		(void)fclose(in);
	if (rc == -EINVAL)
		ctl_error("%s: nothing is applied", file);
	else if (rc < 0)
		ctl_error("%s: %s", file, strerror(-rc));
	return rc < 0 ? CTL_USAGE : CTL_OK;
}

/* The lines that the relay has sent. */
static int reply_create_list(
	const struct partner_ip *ask, const struct control_reply *reply, struct ip_list *out)
{
	FILE *in;
	int rc;

	*out = (struct ip_list){.generation = reply->generation};
	if (reply->byte_count == 0) {
		rc = cidr_create(&out->set);
	} else {
		in = fmemopen(reply->bytes, reply->byte_count, "r");
		rc = in == NULL ? -errno
				: ip_list_take(in, "answer of the relay", stderr, &out->set);
		if (in != NULL)
			(void)fclose(in);
	}
	if (rc < 0)
		ctl_error("%s: the list cannot be read: %s", ask->partner, strerror(-rc));
	return rc < 0 ? CTL_FAILED : CTL_OK;
}

int partner_ip_list(struct partner_ip *ask, struct ip_list *out)
{
	const struct control_request request = {
		.command = "partner-ip-list",
		.partner = ask->partner,
		.patience_s = LOOK_PATIENCE_S,
	};
	struct control_reply reply;
	int status = CTL_FAILED;

	switch (control_ask(&ask->place, &request, &reply)) {
	case CONTROL_DONE:
		ask->has_relay = true;
		status = reply_create_list(ask, &reply, out);
		break;
	case CONTROL_REFUSED:
		status = partner_ip_refused(ask, &reply);
		break;
	case CONTROL_NO_RELAY:
		ask->has_relay = false;
		status = partner_file_list(ask, out);
		break;
	case CONTROL_BROKEN:
		break;
	}
	control_reply_clear(&reply);
	return status;
}

/* ---- list and export */

/* '"192.0.2.0/24"' for each, in JSON. */
static void print_json_entries(const struct cidr *set)
{
	char text[PREFIX_TEXT_BYTES + 1];
	struct cidr_walk walk;
	struct prefix prefix;
	struct door_value value;
	bool is_first = true;

	(void)putchar('[');
	cidr_walk_start(&walk, set);
	while (cidr_walk_next(&walk, &prefix, &value)) {
		(void)printf(
			"%s\n    \"%s\"", is_first ? "" : ",", ip_list_print(&prefix, value, text));
		is_first = false;
	}
	(void)fputs(is_first ? "]" : "\n  ]", stdout);
}

static void print_json_list(const struct partner_ip *ask, const struct ip_list *list)
{
	(void)fputs("{\n  \"partner\": ", stdout);
	ctl_print_json(ask->partner);
	(void)printf(",\n  \"generation\": %" PRIu64 ",\n  \"count\": %zu,\n  \"ranges\": ",
		list->generation, cidr_count(list->set));
	print_json_entries(list->set);
	(void)fputs("\n}\n", stdout);
}

/*
 * A Postfix table takes the first match, so what lies within another stands before it:
 * prefix_compare() has it the other way round.
 */
static int print_postfix(const struct cidr *set)
{
	char text[PREFIX_TEXT_BYTES];
	struct cidr_walk walk;
	struct prefix prefix;
	struct door_value value;
	char *lines = NULL, *end;
	size_t len = 0;
	FILE *out = open_memstream(&lines, &len);

	if (out == NULL) {
		ctl_error("%s", strerror(errno));
		return CTL_FAILED;
	}
	cidr_walk_start(&walk, set);
	while (cidr_walk_next(&walk, &prefix, &value))
		(void)fprintf(out, "\n%s %s", prefix_print(&prefix, text),
			(value.flags & DOOR_EXCLUDED) != 0 ? "REJECT" : "OK");
	if (fclose(out) != 0) {
		ctl_error("%s", strerror(errno));
		free(lines);
		return CTL_FAILED;
	}
	for (end = lines + len; len > 0 && (end = memrchr(lines, '\n', (size_t)(end - lines)));) {
		(void)puts(end + 1);
		*end = '\0';
	}
	free(lines);
	return CTL_OK;
}

static void print_plain(const struct cidr *set)
{
	char text[PREFIX_TEXT_BYTES + 1];
	struct cidr_walk walk;
	struct prefix prefix;
	struct door_value value;

	cidr_walk_start(&walk, set);
	while (cidr_walk_next(&walk, &prefix, &value))
		(void)puts(ip_list_print(&prefix, value, text));
}

/* Prints a list in one of the formats. */
static int print_list(const struct partner_ip *ask, const struct ip_list *list)
{
	enum ip_list_format format = ask->ctl->json ? IP_LIST_JSON : IP_LIST_PLAIN;

	if (ask->format != NULL)
		(void)ip_list_format_parse(ask->format, &format);
	switch (format) {
	case IP_LIST_POSTFIX_CIDR:
		return print_postfix(list->set);
	case IP_LIST_JSON:
		print_json_list(ask, list);
		return CTL_OK;
	case IP_LIST_AUTO:
	case IP_LIST_PLAIN:
		print_plain(list->set);
		return CTL_OK;
	}
	UNREACHABLE();
}

static int list_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	static struct partner_ip ask;
	const struct ctl_option options[] = {
		{"timeout", CTL_OPTION_NUMBER, &ask.timeout_s, 1, 3600, false}, {.name = NULL}};
	struct ip_list list;
	int status;

	(void)argc;
	ask = (struct partner_ip){.ctl = ctl, .command = command};
	status = partner_ip_open(&ask, argv, options, 1, 1);
	if (status == CTL_OK)
		status = partner_ip_list(&ask, &list);
	if (status != CTL_OK)
		return status;
	if (!ctl->json) {
		ctl_print_safe(ask.partner);
		(void)printf(": %zu entr%s, generation %" PRIu64 "%s\n", cidr_count(list.set),
			cidr_count(list.set) == 1 ? "y" : "ies", list.generation,
			ask.has_relay ? ""
			: ask.place.socket != NULL
				? "; the relay is not running"
				: "; there is no control-socket to ask the relay");
	}
	status = print_list(&ask, &list);
	ip_list_clear(&list);
	return status;
}

static int export_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	static struct partner_ip ask;
	const struct ctl_option options[] = {{"format", CTL_OPTION_TEXT, &ask.format, 0, 0, false},
		{"timeout", CTL_OPTION_NUMBER, &ask.timeout_s, 1, 3600, false}, {.name = NULL}};
	struct ip_list list;
	int status;

	(void)argc;
	ask = (struct partner_ip){.ctl = ctl, .command = command};
	status = partner_ip_open(&ask, argv, options, 1, 1);
	if (status == CTL_OK)
		status = partner_ip_list(&ask, &list);
	if (status != CTL_OK)
		return status;
	status = print_list(&ask, &list);
	ip_list_clear(&list);
	return status;
}

/* ---- diff */

static void print_line(void *owner, char sign, const struct prefix *prefix, struct door_value value)
{
	char text[PREFIX_TEXT_BYTES + 1];

	(void)owner;
	(void)printf("%c%s\n", sign, ip_list_print(prefix, value, text));
}

/* One half of the differences, for JSON. */
struct half {
	char sign;
	bool is_first;
};

static void print_json_line(
	void *owner, char sign, const struct prefix *prefix, struct door_value value)
{
	char text[PREFIX_TEXT_BYTES + 1];
	struct half *half = owner;

	if (sign != half->sign)
		return;
	(void)printf(
		"%s\n    \"%s\"", half->is_first ? "" : ",", ip_list_print(prefix, value, text));
	half->is_first = false;
}

static void print_json_half(char sign, const struct ip_list *list, const struct cidr *set)
{
	struct half half = {sign, true};
	struct ip_list_diff diff;

	(void)printf(",\n  \"%s\": [", sign == '+' ? "added" : "removed");
	ip_list_compare(list->set, set, &diff, print_json_line, &half);
	(void)fputs(half.is_first ? "]" : "\n  ]", stdout);
}

static int print_diff(
	const struct partner_ip *ask, const struct ip_list *list, const struct cidr *set)
{
	struct ip_list_diff diff;

	ip_list_compare(list->set, set, &diff, ask->ctl->json ? NULL : print_line, NULL);
	if (ask->ctl->json) {
		(void)printf("{\n  \"generation\": %" PRIu64 ",\n  \"kept\": %zu", list->generation,
			diff.kept);
		print_json_half('+', list, set);
		print_json_half('-', list, set);
		(void)fputs("\n}\n", stdout);
	} else {
		ctl_print_safe(ask->partner);
		if (diff.added + diff.removed == 0)
			(void)printf(": the same, %zu kept; generation %" PRIu64 "\n", diff.kept,
				list->generation);
		else
			(void)printf(": %zu to add, %zu to remove, %zu kept; generation %" PRIu64
				     "\n",
				diff.added, diff.removed, diff.kept, list->generation);
	}
	return diff.added + diff.removed == 0 ? DIFF_SAME : DIFF_OTHER;
}

static int diff_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	static struct partner_ip ask;
	const struct ctl_option options[] = {{"format", CTL_OPTION_TEXT, &ask.format, 0, 0, false},
		{"timeout", CTL_OPTION_NUMBER, &ask.timeout_s, 1, 3600, false}, {.name = NULL}};
	struct ip_list list;
	struct cidr *set = NULL;
	int status;

	(void)argc;
	ask = (struct partner_ip){.ctl = ctl, .command = command};
	if (partner_ip_open(&ask, argv, options, 2, 2) != CTL_OK ||
		partner_ip_import(&ask, ask.operands.texts[1], &set) != CTL_OK)
		return DIFF_TROUBLE;
	status = DIFF_TROUBLE;
	if (partner_ip_list(&ask, &list) == CTL_OK) {
		status = print_diff(&ask, &list, set);
		ip_list_clear(&list);
	}
	cidr_destroy(&set);
	return status;
}

/* ---- test */

static const char *const test_columns[] = {"Binding", "Result", "Connector", "Partner", "Prefix"};

static bool answer_matters(const struct door_answer *answer, const struct ip *peer)
{
	return answer->is_served || answer->is_excluded ||
	       (answer->binding[0] == '[') == peer->is_v6;
}

static int print_answers(
	const struct partner_ip *ask, const struct ip *peer, const struct door_answers *answers)
{
	struct ctl_table table;
	bool is_served = false, is_by_partner = false;
	int status;

	ctl_table_init(&table, test_columns, COUNT_OF(test_columns));
	for (unsigned i = 0; i < answers->count; i++) {
		const struct door_answer *row = &answers->rows[i];
		const char *cells[COUNT_OF(test_columns)] = {row->binding,
			row->is_excluded   ? "refused, excluded"
			: !row->is_served  ? "refused, a stranger"
			: row->is_balancer ? "balancer, must announce its client"
					   : "served",
			row->connector[0] != '\0' ? row->connector : "-",
			row->partner[0] != '\0' ? row->partner : "-",
			row->prefix[0] != '\0' ? row->prefix : "-"};

		if (!answer_matters(row, peer))
			continue;
		ctl_table_create_row(&table, cells);
		is_served |= row->is_served && !row->is_excluded;
		is_by_partner |= strcmp(row->partner, ask->partner) == 0;
	}
	if (table.row_count == 0 && !ask->ctl->json)
		(void)puts("no binding takes connections of this family");
	status = ctl_table_finish(ask->ctl, &table);
	if (is_served && !is_by_partner)
		ctl_note("it is not the list of %s that decides", ask->partner);
	return status == CTL_OK && !is_served ? CTL_FAILED : status;
}

/* With a partner only those bindings answer where its list counts; without one, all. */
static int test_ask(struct partner_ip *ask, const char *partner, struct door_answers *out)
{
	const struct control_request request = {
		.command = "partner-ip-test",
		.partner = partner,
		.ip = ask->operands.texts[1],
		.patience_s = LOOK_PATIENCE_S,
	};
	struct control_reply reply;
	enum control_outcome outcome = control_ask(&ask->place, &request, &reply);
	const char *object;
	size_t len;
	int status = CTL_FAILED;

	ask->has_relay = outcome != CONTROL_NO_RELAY;
	if (outcome == CONTROL_REFUSED)
		status = partner_ip_refused(ask, &reply);
	object = control_reply_object(&reply, &len);
	if (outcome == CONTROL_DONE)
		status = door_answers_create(object, len, out) < 0 ? CTL_FAILED : CTL_OK;
	if (outcome == CONTROL_DONE && status != CTL_OK)
		ctl_error("the relay's answer has no bindings that can be read");
	control_reply_clear(&reply);
	return status;
}

/* The first question is whether there is such a partner. */
static int test_by_relay(struct partner_ip *ask, struct door_answers *out)
{
	int status = test_ask(ask, ask->partner, out);

	if (status != CTL_OK)
		return status;
	door_answers_destroy(out);
	return test_ask(ask, NULL, out);
}

static int test_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	static struct partner_ip ask;
	const struct ctl_option options[] = {
		{"timeout", CTL_OPTION_NUMBER, &ask.timeout_s, 1, 3600, false}, {.name = NULL}};
	struct door_answers answers = {0};
	struct ip peer;
	int status;

	(void)argc;
	ask = (struct partner_ip){.ctl = ctl, .command = command};
	if (partner_ip_open(&ask, argv, options, 2, 2) != CTL_OK)
		return CTL_USAGE;
	if (ip_parse(ask.operands.texts[1], &peer) < 0) {
		ctl_error("\"%s\" is no IP address", ask.operands.texts[1]);
		return CTL_USAGE;
	}
	status = test_by_relay(&ask, &answers);
	if (!ask.has_relay)
		status = partner_file_test(&ask, &peer, &answers);
	if (status == CTL_OK)
		status = print_answers(&ask, &peer, &answers);
	door_answers_destroy(&answers);
	return status;
}

const struct ctl_command ctl_partner_ip_commands[] = {
	{"partner NAME ip list", "[--timeout S]", "the addresses that a partner connects from",
		list_run},
	{"partner NAME ip add",
		"ENTRY ... [--dry-run] [--expect-generation N]\n"
		"[--end-sessions] [--timeout S]",
		"let addresses in (or \"!\" in front: keep them out)", partner_ip_add_run},
	{"partner NAME ip remove",
		"ENTRY ... [--dry-run] [--expect-generation N]\n"
		"[--end-sessions] [--timeout S]",
		"take entries off the list", partner_ip_remove_run},
	{"partner NAME ip import",
		"FILE [--format auto|plain|postfix-cidr|json] [--dry-run]\n"
		"[--expect-generation N] [--end-sessions] [--timeout S]",
		"add all entries of a file that are new", partner_ip_import_run},
	{"partner NAME ip replace",
		"FILE [--format auto|plain|postfix-cidr|json] [--dry-run]\n"
		"[--expect-generation N] [--end-sessions] [--allow-empty] [--timeout S]",
		"make the list what a file says", partner_ip_replace_run},
	{"partner NAME ip export", "[--format plain|postfix-cidr|json] [--timeout S]",
		"print the entries", export_run},
	{"partner NAME ip diff", "FILE [--format auto|plain|postfix-cidr|json] [--timeout S]",
		"what replacing would change; exit status as diff(1)", diff_run},
	{"partner NAME ip test", "IP [--timeout S]", "is that address served, and by which entry?",
		test_run},
	{NULL, NULL, NULL, NULL},
};
