/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/partner_ip.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/*
 * Loading and exchanging a trie of a million prefixes takes seconds; a host that has other things
 * to do, longer.
 */
#define CHANGE_PATIENCE_S 300

/* Notes about single entries, and what is fetched for them. */
#define NOTES_MAX 20
#define NOTES_LIST_MAX 200000

/* Relays may come and go meanwhile. */
#define RELAY_TRIES 3

/* An import begins anew so often when somebody else changes the list at the same time. */
#define IMPORT_TRIES 5

/* ---- asking for it */

/* The entries as lines, for free(); NULL after a message. */
static char *set_create_lines(const struct cidr *set, size_t *out_len)
{
	char text[PREFIX_TEXT_BYTES + 1];
	struct cidr_walk walk;
	struct prefix prefix;
	struct door_value value;
	char *lines = NULL;
	FILE *out = open_memstream(&lines, out_len);

	if (out == NULL) {
		ctl_error("%s", strerror(errno));
		return NULL;
	}
	cidr_walk_start(&walk, set);
	while (cidr_walk_next(&walk, &prefix, &value))
		(void)fprintf(out, "%s\n", ip_list_print(&prefix, value, text));
	if (fclose(out) == 0)
		return lines;
	ctl_error("%s", strerror(errno));
	free(lines);
	return NULL;
}

/* Of the relay. */
static enum control_outcome change_ask(
	struct partner_ip *ask, const struct partner_ip_change *change, struct control_reply *out)
{
	char command[32];
	struct control_request request = {
		.command = command,
		.partner = ask->partner,
		.has_expected = change->expected >= 0,
		.expected = change->expected < 0 ? 0 : (uint64_t)change->expected,
		.dry_run = change->dry_run,
		.end_sessions = change->end_sessions,
		.patience_s = CHANGE_PATIENCE_S,
	};
	char *lines = set_create_lines(change->set, &request.byte_count);
	enum control_outcome outcome;

	*out = (struct control_reply){0};
	if (lines == NULL)
		return CONTROL_BROKEN;
	(void)snprintf(command, sizeof(command), "partner-ip-%s", change->verb);
	request.bytes = lines;
	outcome = control_ask(&ask->place, &request, out);
	free(lines);
	ask->has_relay = outcome != CONTROL_NO_RELAY;
	if (outcome == CONTROL_BROKEN && out->was_asked && !change->dry_run)
		ctl_error("what became of it shows: posternctl partner %s ip list", ask->partner);
	return outcome;
}

/* By the relay, or on the file, unless one has started by the time that the file may be changed. */
static enum control_outcome change_do(
	struct partner_ip *ask, const struct partner_ip_change *change, struct control_reply *out)
{
	enum control_outcome outcome = CONTROL_NO_RELAY;

	for (unsigned i = 0; i < RELAY_TRIES; i++) {
		outcome = change_ask(ask, change, out);
		if (outcome != CONTROL_NO_RELAY)
			return outcome;
		control_reply_clear(out);
		outcome = partner_file_change(ask, change, out);
		if (outcome != CONTROL_REFUSED || strcmp(out->error, PARTNER_FILE_TAKEN) != 0)
			return outcome;
		if (i + 1 < RELAY_TRIES)
			control_reply_clear(out);
	}
	return outcome;
}

/* ---- saying what came of it */

static void print_when(const struct partner_ip *ask, const struct control_reply *reply)
{
	if (ask->has_relay)
		(void)printf("; in force after %" PRIu64 ".%03" PRIu64 " ms",
			reply->effect_us / 1000, reply->effect_us % 1000);
	else if (ask->place.socket != NULL)
		(void)printf("; the relay is not running: in force when it starts");
	else
		(void)printf("; there is no control-socket: a relay that runs reads it when it is "
			     "reloaded (SIGHUP)");
}

static void print_done(const struct partner_ip *ask, const struct partner_ip_change *change,
	const struct control_reply *reply)
{
	bool is_same = reply->added == 0 && reply->removed == 0;

	if (ask->ctl->json) {
		if (control_print_json(reply->line, strlen(reply->line), stdout) < 0)
			ctl_error("the answer is no JSON");
		return;
	}
	ctl_print_safe(ask->partner);
	if (is_same)
		(void)printf(": nothing to change, %" PRIu64 " kept", reply->kept);
	else if (change->dry_run)
		(void)printf(": %" PRIu64 " to add, %" PRIu64 " to remove, %" PRIu64 " kept",
			reply->added, reply->removed, reply->kept);
	else
		(void)printf(": %" PRIu64 " added, %" PRIu64 " removed, %" PRIu64 " kept",
			reply->added, reply->removed, reply->kept);
	if (is_same || change->dry_run)
		(void)printf("; generation %" PRIu64, reply->generation);
	else
		(void)printf("; generation %" PRIu64 " -> %" PRIu64, reply->generation - 1,
			reply->generation);
	if (change->dry_run)
		(void)printf("; dry run: nothing is changed");
	else if (!is_same)
		print_when(ask, reply);
	if (change->end_sessions && !change->dry_run)
		(void)printf("; %" PRIu64 " session%s ended", reply->sessions_ended,
			reply->sessions_ended == 1 ? "" : "s");
	(void)putchar('\n');
}

/* Another generation than the one that was expected. */
static int print_overtaken(const struct partner_ip *ask, const struct partner_ip_change *change,
	const struct control_reply *reply)
{
	ctl_error("%s: the list is of generation %" PRIu64 ", and %" PRId64
		  " was expected; somebody has changed it meanwhile, and nothing was applied",
		ask->partner, reply->generation, change->expected);
	ctl_error("look at it with \"posternctl partner %s ip diff FILE\", then go on with "
		  "--expect-generation %" PRIu64,
		ask->partner, reply->generation);
	return CTL_FAILED;
}

static int change_report(struct partner_ip *ask, const struct partner_ip_change *change,
	enum control_outcome outcome, const struct control_reply *reply)
{
	if (outcome == CONTROL_DONE) {
		print_done(ask, change, reply);
		return CTL_OK;
	}
	if (outcome != CONTROL_REFUSED)
		return CTL_FAILED;
	if (ask->ctl->json && control_print_json(reply->line, strlen(reply->line), stdout) < 0)
		ctl_error("the answer is no JSON");
	if (strcmp(reply->error, "expected-generation") == 0 && change->expected >= 0)
		return print_overtaken(ask, change, reply);
	return partner_ip_refused(ask, reply);
}

/* ---- notes: what a change does not do */

static void note_entry(const struct partner_ip *ask, const struct prefix *prefix,
	struct door_value value, const struct cidr *list, bool is_added)
{
	char text[PREFIX_TEXT_BYTES + 1], wider_text[PREFIX_TEXT_BYTES];
	struct prefix wider;
	const struct door_value *cover = cidr_above(list, prefix, &wider);
	bool is_excluded;

	if (cover == NULL)
		return;
	is_excluded = (cover->flags & DOOR_EXCLUDED) != 0;
	(void)prefix_print(&wider, wider_text);
	(void)prefix_print(prefix, text);
	if (is_added && is_excluded == ((value.flags & DOOR_EXCLUDED) != 0))
		ctl_note("%s was %s already by %s%s", text, is_excluded ? "excluded" : "let in",
			is_excluded ? "!" : "", wider_text);
	if (!is_added && is_excluded)
		ctl_note("%s is still excluded by !%s", text, wider_text);
	if (!is_added && !is_excluded)
		ctl_note("%s is still let in by %s; to keep it out: posternctl partner %s ip add "
			 "'!%s'",
			text, wider_text, ask->partner, text);
}

/* Of the first few entries that are, or are not, in the list. What cannot be had is left unsaid. */
static void note_covers(struct partner_ip *ask, const struct cidr *entries, bool is_added)
{
	struct ip_list list = {0};
	struct cidr_walk walk;
	struct prefix prefix;
	struct door_value value;

	if (cidr_count(entries) > NOTES_MAX || ask->ctl->json ||
		partner_ip_list(ask, &list) != CTL_OK)
		return;
	cidr_walk_start(&walk, entries);
	while (cidr_walk_next(&walk, &prefix, &value))
		if (is_added || cidr_get(list.set, &prefix) == NULL)
			note_entry(ask, &prefix, value, list.set, is_added);
	ip_list_clear(&list);
}

/* ---- the commands */

/* Reads the operands behind the name as entries. */
static int entries_create(const struct partner_ip *ask, struct cidr **out)
{
	int rc = cidr_create(out);

	for (unsigned i = 1; rc == 0 && i < ask->operands.count; i++) {
		const char *text = ask->operands.texts[i];

		rc = ip_list_put_text(*out, text);
		if (rc == -EINVAL)
			ctl_error("\"%s\" is no entry of a list, expected an address, "
				  "192.0.2.0/24, or 192.0.2.1-192.0.2.9; with \"!\" in front it "
				  "is excluded",
				text);
	}
	if (rc == -ENOMEM)
		ctl_error("out of memory");
	if (rc == 0)
		return CTL_OK;
	cidr_destroy(out);
	return CTL_USAGE;
}

/*
 * out_entries: how many the list has then. *out_is_absent: nothing was done, as entries to remove
 * are not there.
 */
static int change_run(struct partner_ip *ask, struct partner_ip_change *change,
	uint64_t *out_entries, bool *out_is_absent)
{
	struct control_reply reply;
	int status = change_report(ask, change, change_do(ask, change, &reply), &reply);

	*out_entries = reply.added + reply.kept;
	*out_is_absent = status == CTL_FAILED && strcmp(reply.error, "absent") == 0;
	control_reply_clear(&reply);
	return status;
}

static int entries_run(
	struct ctl *ctl, const struct ctl_command *command, char **argv, const char *verb)
{
	static struct partner_ip ask;
	struct partner_ip_change change = {.verb = verb, .expected = -1};
	const struct ctl_option options[] = {
		{"dry-run", CTL_OPTION_FLAG, &change.dry_run, 0, 0, false},
		{"end-sessions", CTL_OPTION_FLAG, &change.end_sessions, 0, 0, false},
		{"expect-generation", CTL_OPTION_NUMBER, &change.expected, 0, INT64_MAX, false},
		{"timeout", CTL_OPTION_NUMBER, &ask.timeout_s, 1, 3600, false}, {.name = NULL}};
	struct cidr *set = NULL;
	uint64_t entries = 0;
	bool is_absent = false;
	int status;

	ask = (struct partner_ip){.ctl = ctl, .command = command};
	status = partner_ip_open(&ask, argv, options, 2, CTL_LIST_MAX);
	if (status == CTL_OK)
		status = entries_create(&ask, &set);
	if (status != CTL_OK)
		return status;
	change.set = set;
	status = change_run(&ask, &change, &entries, &is_absent);
	/* Of an absent one an operator in a hurry wants to know what lets it in. */
	if ((status == CTL_OK && entries <= NOTES_LIST_MAX) || is_absent)
		note_covers(&ask, set, strcmp(verb, "add") == 0);
	cidr_destroy(&set);
	return status;
}

int partner_ip_add_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	(void)argc;
	return entries_run(ctl, command, argv, "add");
}

int partner_ip_remove_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	(void)argc;
	return entries_run(ctl, command, argv, "remove");
}

/* What of the entries the list has not, as it has it. */
static int entries_create_new(
	const struct cidr *set, const struct cidr *list, struct cidr **out, uint64_t *out_same)
{
	char text[PREFIX_TEXT_BYTES];
	struct cidr_walk walk;
	struct prefix prefix;
	struct door_value value;
	unsigned notes = 0;
	int rc = cidr_create(out);

	*out_same = 0;
	cidr_walk_start(&walk, set);
	while (rc == 0 && cidr_walk_next(&walk, &prefix, &value)) {
		const struct door_value *old = cidr_get(list, &prefix);

		if (old != NULL && old->flags == value.flags) {
			(*out_same)++;
			continue;
		}
		if (old != NULL && notes++ < NOTES_MAX)
			ctl_note("%s was %s until now", prefix_print(&prefix, text),
				(old->flags & DOOR_EXCLUDED) != 0 ? "excluded" : "let in");
		rc = cidr_put(*out, &prefix, value);
	}
	if (rc == 0)
		return CTL_OK;
	ctl_error("%s", strerror(-rc));
	cidr_destroy(out);
	return CTL_FAILED;
}

/* All are there: as a relay would answer. */
static enum control_outcome import_nothing(const struct partner_ip *ask,
	const struct partner_ip_change *change, const struct ip_list *list,
	struct control_reply *out)
{
	bool is_expected = change->expected < 0 || (uint64_t)change->expected == list->generation;

	*out = (struct control_reply){.generation = list->generation,
		.has_generation = true,
		.kept = cidr_count(list->set)};
	if (!is_expected)
		(void)snprintf(out->error, sizeof(out->error), "expected-generation");
	return control_reply_create_line(
		out, is_expected ? CONTROL_DONE : CONTROL_REFUSED, ask->has_relay);
}

/*
 * Adds what is new of the entries. The list may be changed by somebody else between reading and
 * adding; *out_again: that is so, and nobody said which generation it must have.
 */
static int import_once(
	struct partner_ip *ask, const struct partner_ip_change *asked, bool *out_again)
{
	struct partner_ip_change change = *asked;
	struct control_reply reply = {0};
	struct ip_list list = {0};
	struct cidr *left = NULL;
	enum control_outcome outcome;
	uint64_t same = 0;
	int status = partner_ip_list(ask, &list);

	*out_again = false;
	if (status == CTL_OK)
		status = entries_create_new(asked->set, list.set, &left, &same);
	if (status != CTL_OK) {
		ip_list_clear(&list);
		return status;
	}
	change.set = left;
	if (cidr_count(left) == 0) {
		outcome = import_nothing(ask, &change, &list, &reply);
	} else {
		if (asked->expected < 0)
			change.expected = (int64_t)list.generation;
		outcome = change_do(ask, &change, &reply);
	}
	*out_again = outcome == CONTROL_REFUSED && asked->expected < 0 &&
		     strcmp(reply.error, "expected-generation") == 0;
	if (!*out_again)
		status = change_report(ask, &change, outcome, &reply);
	if (!*out_again && status == CTL_OK && same > 0 && !ask->ctl->json)
		ctl_note(
			"%" PRIu64 " entr%s there already", same, same == 1 ? "y was" : "ies were");
	control_reply_clear(&reply);
	ip_list_clear(&list);
	cidr_destroy(&left);
	return status;
}

int partner_ip_import_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	static struct partner_ip ask;
	struct partner_ip_change change = {.verb = "add", .expected = -1};
	const struct ctl_option options[] = {{"format", CTL_OPTION_TEXT, &ask.format, 0, 0, false},
		{"dry-run", CTL_OPTION_FLAG, &change.dry_run, 0, 0, false},
		{"end-sessions", CTL_OPTION_FLAG, &change.end_sessions, 0, 0, false},
		{"expect-generation", CTL_OPTION_NUMBER, &change.expected, 0, INT64_MAX, false},
		{"timeout", CTL_OPTION_NUMBER, &ask.timeout_s, 1, 3600, false}, {.name = NULL}};
	struct cidr *set = NULL;
	bool is_again = true;
	int status;

	(void)argc;
	ask = (struct partner_ip){.ctl = ctl, .command = command};
	status = partner_ip_open(&ask, argv, options, 2, 2);
	if (status == CTL_OK)
		status = partner_ip_import(&ask, ask.operands.texts[1], &set);
	if (status != CTL_OK)
		return status;
	change.set = set;
	for (unsigned i = 0; i < IMPORT_TRIES && is_again; i++)
		status = import_once(&ask, &change, &is_again);
	if (is_again) {
		ctl_error("%s: the list is being changed by somebody else all the time; nothing "
			  "was applied",
			ask.partner);
		status = CTL_FAILED;
	}
	cidr_destroy(&set);
	return status;
}

int partner_ip_replace_run(
	struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	static struct partner_ip ask;
	struct partner_ip_change change = {.verb = "replace", .expected = -1};
	bool may_be_empty = false;
	bool is_absent;
	uint64_t entries = 0;
	const struct ctl_option options[] = {{"format", CTL_OPTION_TEXT, &ask.format, 0, 0, false},
		{"dry-run", CTL_OPTION_FLAG, &change.dry_run, 0, 0, false},
		{"end-sessions", CTL_OPTION_FLAG, &change.end_sessions, 0, 0, false},
		{"allow-empty", CTL_OPTION_FLAG, &may_be_empty, 0, 0, false},
		{"expect-generation", CTL_OPTION_NUMBER, &change.expected, 0, INT64_MAX, false},
		{"timeout", CTL_OPTION_NUMBER, &ask.timeout_s, 1, 3600, false}, {.name = NULL}};
	struct cidr *set = NULL;
	int status;

	(void)argc;
	ask = (struct partner_ip){.ctl = ctl, .command = command};
	status = partner_ip_open(&ask, argv, options, 2, 2);
	if (status == CTL_OK)
		status = partner_ip_import(&ask, ask.operands.texts[1], &set);
	if (status != CTL_OK)
		return status;
	change.set = set;
	if (cidr_count(set) == 0 && !may_be_empty) {
		/* What a download that has failed leaves behind. */
		ctl_error("%s has no entries, and an empty list lets nobody in; if that is meant: "
			  "--allow-empty",
			ask.operands.texts[1]);
		status = CTL_FAILED;
	} else {
		status = change_run(&ask, &change, &entries, &is_absent);
	}
	cidr_destroy(&set);
	return status;
}
