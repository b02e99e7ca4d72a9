/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/ctl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

/* Where errors go while a screen is drawn. */
static struct {
	char *text;
	size_t bytes;
} divert;

void ctl_error_divert(char *text, size_t bytes)
{
	divert.text = text;
	divert.bytes = bytes;
}

void ctl_error(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (divert.text != NULL) {
		(void)vsnprintf(divert.text, divert.bytes, format, args);
		va_end(args);
		return;
	}
	(void)fputs("posternctl: ", stderr);
	(void)vfprintf(stderr, format, args);
	(void)fputc('\n', stderr);
	va_end(args);
}

void ctl_note(const char *format, ...)
{
	va_list args;

	/* Behind what it is about, where both go to one place. */
	(void)fflush(stdout);
	va_start(args, format);
	(void)fputs("posternctl: note: ", stderr);
	(void)vfprintf(stderr, format, args);
	(void)fputc('\n', stderr);
	va_end(args);
}

static int option_set_number(const struct ctl_option *option, const char *value)
{
	char *end;
	long long number;

	errno = 0;
	number = strtoll(value, &end, 10);
	if (errno == 0 && end != value && *end == '\0' && number >= option->min &&
		number <= option->max) {
		*(int64_t *)option->out = number;
		return 0;
	}
	ctl_error("--%s %s: expected a number from %" PRId64 " to %" PRId64, option->name, value,
		option->min, option->max);
	return -EINVAL;
}

static int option_set(const struct ctl_option *option, const char *value)
{
	struct ctl_list *list;

	switch (option->kind) {
	case CTL_OPTION_FLAG:
		*(bool *)option->out = true;
		return 0;
	case CTL_OPTION_TEXT:
		*(const char **)option->out = value;
		return 0;
	case CTL_OPTION_LIST:
		list = option->out;
		if (list->count == CTL_LIST_MAX) {
			ctl_error("more than %d times %s", CTL_LIST_MAX, option->name);
			return -EINVAL;
		}
		list->texts[list->count++] = value;
		return 0;
	case CTL_OPTION_NUMBER:
		return option_set_number(option, value);
	}
	UNREACHABLE();
}

static const struct ctl_option *option_find(
	const struct ctl_option *options, const char *name, size_t len)
{
	for (const struct ctl_option *option = options; option->name != NULL; option++)
		if (strlen(option->name) == len && memcmp(option->name, name, len) == 0)
			return option;
	return NULL;
}

/* argv[0] is an option. Returns how many arguments it took, or -EINVAL. */
static int option_take(const struct ctl_command *command, const struct ctl_option *options,
	const struct ctl_option *globals, char **argv)
{
	const char *name = argv[0] + 2;
	size_t len = strcspn(name, "=");
	const char *value = name[len] == '=' ? name + len + 1 : NULL;
	const struct ctl_option *option = option_find(options, name, len);
	int taken = 1;

	if (option == NULL)
		option = option_find(globals, name, len);
	if (option == NULL) {
		ctl_error("%s: unknown option %s", command->words, argv[0]);
		return -EINVAL;
	}
	if (option->kind == CTL_OPTION_FLAG && value != NULL) {
		ctl_error("--%s takes no value", option->name);
		return -EINVAL;
	}
	if (option->kind != CTL_OPTION_FLAG && value == NULL) {
		value = argv[1];
		taken = 2;
	}
	if (option->kind != CTL_OPTION_FLAG && value == NULL) {
		ctl_error("--%s needs a value", option->name);
		return -EINVAL;
	}
	return option_set(option, value) < 0 ? -EINVAL : taken;
}

static bool option_is_given(const struct ctl_option *option)
{
	if (option->kind == CTL_OPTION_TEXT)
		return *(const char **)option->out != NULL;
	return option->kind != CTL_OPTION_LIST || ((struct ctl_list *)option->out)->count > 0;
}

static int options_check(const struct ctl_command *command, const struct ctl_option *options,
	const struct ctl_list *operands, unsigned min, unsigned max)
{
	for (const struct ctl_option *option = options; option->name != NULL; option++) {
		if (option->is_required && !option_is_given(option)) {
			ctl_error("%s: --%s is missing", command->words, option->name);
			return -EINVAL;
		}
	}
	if (operands->count < min)
		ctl_error("%s: an argument is missing", command->words);
	else if (operands->count > max)
		ctl_error("%s: unexpected argument \"%s\"", command->words, operands->texts[max]);
	else
		return 0;
	return -EINVAL;
}

int ctl_options_read(struct ctl *ctl, const struct ctl_command *command, char **argv,
	const struct ctl_option *options, struct ctl_list *operands, unsigned min, unsigned max)
{
	bool help = false;
	bool is_behind_options = false;
	const char *config = NULL;
	const struct ctl_option globals[] = {{"config", CTL_OPTION_TEXT, &config, 0, 0, false},
		{"store", CTL_OPTION_TEXT, &ctl->store, 0, 0, false},
		{"json", CTL_OPTION_FLAG, &ctl->json, 0, 0, false},
		{"help", CTL_OPTION_FLAG, &help, 0, 0, false}, {.name = NULL}};
	const struct ctl_option operand = {"argument", CTL_OPTION_LIST, operands, 0, 0, false};
	int taken = 1;

	operands->count = 0;
	for (; *argv != NULL; argv += taken) {
		taken = 1;
		if (!is_behind_options && strcmp(*argv, "--") == 0)
			is_behind_options = true;
		else if (!is_behind_options && strncmp(*argv, "--", 2) == 0)
			taken = option_take(command, options, globals, argv);
		else if (option_set(&operand, *argv) < 0)
			taken = -EINVAL;
		if (taken < 0)
			return taken;
	}
	if (help) {
		(void)ctl_usage(command, stdout);
		exit(CTL_OK);
	}
	if (config != NULL) {
		ctl->config = config;
		ctl->config_is_given = true;
	}
	if (options_check(command, options, operands, min, max) == 0)
		return 0;
	(void)ctl_usage(command, stderr);
	return -EINVAL;
}
