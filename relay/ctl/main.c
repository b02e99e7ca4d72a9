/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/ctl.h"

#include "policy/config.h"
#include "relay/ctl/ask.h"
#include "relay/ctl/door.h"
#include "relay/ctl/partner_ip.h"
#include "relay/ctl/queue.h"
#include "relay/ctl/spool.h"
#include "relay/ctl/track.h"
#include <errno.h>
#include <string.h>

/*
 * main.c: finds the command and runs it.
 */

#define DEFAULT_CONFIG "/etc/postern/postern.conf"

/* All families of commands, in the order of the help. */
static const struct ctl_command *const families[] = {
	ctl_cert_commands,
	ctl_config_commands,
	ctl_connector_commands,
	ctl_explain_commands,
	ctl_partner_commands,
	ctl_partner_ip_commands,
	ctl_door_commands,
	ctl_spool_commands,
	ctl_track_commands,
	ctl_queue_commands,
	ctl_msg_commands,
	ctl_pressure_commands,
};

static const char usage[] =
	"usage: posternctl [--config FILE] COMMAND ...\n"
	"  --config FILE   the configuration (" DEFAULT_CONFIG ")\n"
	"  --store FOLDER  the certificate store, instead of the configuration's\n"
	"  --json          print tables as JSON\n"
	"  --version       print the version\n"
	"  --help          print this; behind a command: how to use it\n"
	"commands:\n";

static void print_command(FILE *file, const struct ctl_command *command)
{
	(void)fprintf(file, "  %s", command->words);
	if (*command->usage != '\0')
		(void)fputc(' ', file);
	for (const char *at = command->usage; *at != '\0'; at++) {
		(void)fputc(*at, file);
		if (*at == '\n')
			(void)fputs("        ", file);
	}
	(void)fprintf(file, "\n\t%s\n", command->help);
}

int ctl_usage(const struct ctl_command *command, FILE *file)
{
	(void)fputs("usage: posternctl [--config FILE]\n", file);
	print_command(file, command);
	return CTL_USAGE;
}

static void print_help(FILE *file)
{
	(void)fputs(usage, file);
	for (unsigned i = 0; i < COUNT_OF(families); i++)
		for (const struct ctl_command *row = families[i]; row->words != NULL; row++)
			print_command(file, row);
}

struct policy *ctl_policy_create(const struct ctl *ctl)
{
	struct policy *policy = NULL;
	int rc = policy_load(ctl->config, stderr, &policy);

	if (rc < 0 && rc != -EINVAL)
		ctl_error("%s: %s", ctl->config, strerror(-rc));
	return rc < 0 ? NULL : policy;
}

const char *ctl_config_word(const struct config *config, const char *keyword)
{
	const struct config_value *value = NULL;

	for (unsigned s = 0; value == NULL && s < config->section_count; s++)
		if (config->sections[s].kind == SECTION_TRANSPORT)
			value = config_next(config, s, keyword, NULL);
	return value == NULL ? NULL : value->text;
}

/*
 * How many arguments the words of a command take, if these are it; else 0. A word NAME is any
 * argument but an option; out_name is which, or -1.
 */
static int command_match(const struct ctl_command *command, char *const *argv, int *out_name)
{
	const char *words = command->words;
	int taken = 0;

	*out_name = -1;
	while (argv[taken] != NULL) {
		size_t len = strcspn(words, " ");

		if (len == strlen("NAME") && memcmp(words, "NAME", len) == 0 &&
			strncmp(argv[taken], "--", 2) != 0)
			*out_name = taken;
		else if (strlen(argv[taken]) != len || memcmp(argv[taken], words, len) != 0)
			return 0;
		taken++;
		words += len;
		if (*words == '\0')
			return taken;
		words++;
	}
	return 0;
}

/*
 * The command of most words, so that "partner list ip add" is about a partner called "list". Moves
 * its NAME, if it has one, in front of the arguments; out_taken is how many words there are before
 * these.
 */
static const struct ctl_command *command_find(char **argv, int *out_taken)
{
	const struct ctl_command *found = NULL;
	int name = -1;

	*out_taken = 0;
	for (unsigned i = 0; i < COUNT_OF(families); i++) {
		for (const struct ctl_command *row = families[i]; row->words != NULL; row++) {
			int at = -1;
			int taken = command_match(row, argv, &at);

			if (taken <= *out_taken)
				continue;
			*out_taken = taken;
			found = row;
			name = at;
		}
	}
	if (name >= 0) {
		char *moved = argv[name];

		(*out_taken)--;
		for (; name < *out_taken; name++)
			argv[name] = argv[name + 1];
		argv[name] = moved;
	}
	return found;
}

/* Do the arguments, up to --help, begin the command, with more words to come? */
static bool command_begins(const struct ctl_command *command, char *const *argv)
{
	const char *words = command->words;

	if (argv[0] == NULL)
		return false;
	for (unsigned i = 0; argv[i] != NULL && strcmp(argv[i], "--help") != 0; i++) {
		const size_t len = strcspn(words, " ");
		const bool is_name = len == strlen("NAME") && memcmp(words, "NAME", len) == 0;

		if (words[len] == '\0' ||
			(!is_name && (strlen(argv[i]) != len || memcmp(argv[i], words, len) != 0)))
			return false;
		words += len + 1;
	}
	return true;
}

/* "door --help", or "partner fabrikam ip": the commands that begin so. How many. */
static unsigned print_begun(char *const *argv, FILE *file)
{
	unsigned count = 0;

	for (unsigned i = 0; i < COUNT_OF(families); i++) {
		for (const struct ctl_command *row = families[i]; row->words != NULL; row++) {
			if (!command_begins(row, argv))
				continue;
			if (count++ == 0)
				(void)fputs("usage: posternctl [--config FILE]\n", file);
			print_command(file, row);
		}
	}
	return count;
}

static bool asks_for_help(char *const *argv)
{
	unsigned last = 0;

	while (argv[last + 1] != NULL)
		last++;
	return strcmp(argv[last], "--help") == 0;
}

/* No command has more words than four. */
static int unknown_command(char *const *argv)
{
	char words[256] = "";
	size_t len = 0;

	for (unsigned i = 0; i < 4 && argv[i] != NULL && len < sizeof(words); i++)
		len += (size_t)snprintf(
			words + len, sizeof(words) - len, "%s%s", i == 0 ? "" : " ", argv[i]);
	ctl_error("unknown command \"%s\"; see posternctl --help", words);
	return CTL_USAGE;
}

/* The options before the command, up to the first word. */
static int read_globals(struct ctl *ctl, char **argv, int *out_at)
{
	int at = 1;

	while (argv[at] != NULL && strncmp(argv[at], "--", 2) == 0) {
		const char *value = argv[at + 1];

		if (strcmp(argv[at], "--json") == 0) {
			ctl->json = true;
			at++;
			continue;
		}
		if (strcmp(argv[at], "--config") != 0 && strcmp(argv[at], "--store") != 0) {
			ctl_error("unknown option %s, expected a command; see posternctl --help",
				argv[at]);
			return -EINVAL;
		}
		if (value == NULL) {
			ctl_error("%s needs a value", argv[at]);
			return -EINVAL;
		}
		if (strcmp(argv[at], "--store") == 0) {
			ctl->store = value;
		} else {
			ctl->config = value;
			ctl->config_is_given = true;
		}
		at += 2;
	}
	*out_at = at;
	return 0;
}

static int finish(int status)
{
	/* A full disk behind standard output must not look like success. */
	if ((fflush(stdout) == EOF || ferror(stdout)) && status == CTL_OK) {
		ctl_error("standard output: %s", strerror(errno));
		return CTL_FAILED;
	}
	return status;
}

int main(int argc, char **argv)
{
	struct ctl ctl = {.config = DEFAULT_CONFIG};
	const struct ctl_command *command;
	int at = 0;
	int taken = 0;

	if (argc == 2 && strcmp(argv[1], "--help") == 0) {
		print_help(stdout);
		return finish(CTL_OK);
	}
	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		(void)printf("posternctl %s\n", POSTERN_VERSION);
		return finish(CTL_OK);
	}
	if (argc < 1 || read_globals(&ctl, argv, &at) < 0)
		return CTL_USAGE;
	if (argv[at] == NULL) {
		print_help(stderr);
		return CTL_USAGE;
	}
	command = command_find(argv + at, &taken);
	if (command == NULL && asks_for_help(argv + at) && print_begun(argv + at, stdout) > 0)
		return finish(CTL_OK);
	if (command == NULL && !asks_for_help(argv + at) && print_begun(argv + at, stderr) > 0)
		return CTL_USAGE;
	if (command == NULL)
		return unknown_command(argv + at);
	at += taken;
	return finish(command->run(&ctl, command, argc - at, argv + at));
}
