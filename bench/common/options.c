/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/common/options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define OPTIONS_MAX 60

/* getopt's own characters lie below. */
#define OPTIONS_VALUE_FIRST 256

_Noreturn void options_wrong(const char *usage, const char *reason)
{
	(void)fprintf(stderr, "%s\n%s", reason, usage);
	exit(2);
}

static _Noreturn void options_wrong_value(
	const char *option, const char *text, const char *expected)
{
	(void)fprintf(stderr, "--%s %s: expected %s\n", option, text, expected);
	exit(2);
}

const char *options_read_number(const char *text, uint64_t *out)
{
	static const char units[] = "kmg";
	const char *unit;
	char *end = NULL;
	unsigned int shift = 0;
	uint64_t value;

	if (text[0] < '0' || text[0] > '9')
		return NULL;
	errno = 0;
	value = strtoull(text, &end, 10);
	unit = *end != '\0' ? strchr(units, *end | 0x20) : NULL;
	if (unit != NULL) {
		shift = 10 * (unsigned int)(unit - units + 1);
		end++;
	}
	if (errno != 0 || value > UINT64_MAX >> shift)
		return NULL;
	*out = value << shift;
	return end;
}

static uint64_t options_number(const char *option, const char *text, uint64_t min, uint64_t max)
{
	char expected[80];
	const char *end;
	uint64_t value;

	end = options_read_number(text, &value);
	if (end != NULL && *end == '\0' && value >= min && value <= max)
		return value;
	(void)snprintf(
		expected, sizeof(expected), "a number from %" PRIu64 " to %" PRIu64, min, max);
	options_wrong_value(option, text, expected);
}

void options_read_address(const char *option, const char *text, struct sockaddr_in *out)
{
	char host[INET_ADDRSTRLEN];
	const char *colon = strrchr(text, ':');
	size_t len = colon != NULL ? (size_t)(colon - text) : sizeof(host);

	*out = (struct sockaddr_in){.sin_family = AF_INET};
	if (colon == NULL || len >= sizeof(host))
		options_wrong_value(option, text, "ADDRESS:PORT");
	memcpy(host, text, len);
	host[len] = '\0';
	if (inet_pton(AF_INET, host, &out->sin_addr) != 1)
		options_wrong_value(option, text, "ADDRESS:PORT");
	out->sin_port = htons((uint16_t)options_number(option, colon + 1, 0, UINT16_MAX));
}

static void options_take(const struct options_entry *entry, const char *text)
{
	switch (entry->kind) {
	case OPTIONS_FLAG:
		*entry->out.flag = true;
		break;
	case OPTIONS_CHOICE:
		*entry->out.choice = (unsigned int)entry->min;
		break;
	case OPTIONS_SHARE:
		*entry->out.number =
			text[0] == '\0' ? entry->max
					: options_number(entry->name, text, entry->min, entry->max);
		break;
	case OPTIONS_NUMBER:
		*entry->out.number = options_number(entry->name, text, entry->min, entry->max);
		break;
	case OPTIONS_TEXT:
		*entry->out.text = text;
		break;
	case OPTIONS_LIST:
		if (entry->out.list->count == OPTIONS_LIST_MAX)
			options_wrong_value(entry->name, text, "fewer of these");
		entry->out.list->texts[entry->out.list->count++] = text;
		break;
	case OPTIONS_ADDRESS:
		options_read_address(entry->name, text, entry->out.address);
		break;
	}
}

void options_parse(
	int argc, char **argv, const struct options_entry *entries, size_t count, const char *usage)
{
	struct option table[OPTIONS_MAX + 2] = {{0}};
	const struct options_entry *entry;
	int value;

	if (count > OPTIONS_MAX)
		options_wrong(usage, "too many options in the table");
	for (size_t i = 0; i < count; i++) {
		bool has_value =
			entries[i].kind != OPTIONS_FLAG && entries[i].kind != OPTIONS_CHOICE;

		table[i].name = entries[i].name;
		table[i].has_arg = entries[i].kind == OPTIONS_SHARE ? optional_argument
				   : has_value                      ? required_argument
								    : no_argument;
		table[i].val = OPTIONS_VALUE_FIRST + (int)i;
	}
	table[count] = (struct option){.name = "help", .val = 'h'};
	while ((value = getopt_long(argc, argv, "h", table, NULL)) != -1) {
		if (value == 'h') {
			(void)fputs(usage, stdout);
			exit(0);
		}
		if (value < OPTIONS_VALUE_FIRST)
			options_wrong(usage, "see the options:");
		entry = &entries[value - OPTIONS_VALUE_FIRST];
		/* getopt finds an optional value only behind "=". */
		if (entry->kind == OPTIONS_SHARE && optarg == NULL && optind < argc &&
			argv[optind][0] >= '0' && argv[optind][0] <= '9')
			optarg = argv[optind++];
		options_take(entry, optarg != NULL ? optarg : "");
	}
	if (optind < argc)
		options_wrong(usage, argv[optind]);
}

void options_raise_files(uint64_t count)
{
	struct rlimit more = {.rlim_cur = count, .rlim_max = count};
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= count)
		return;
	/* Only root may go above the hard limit; where that fails, the hard limit must do. */
	if (limit.rlim_max < count && setrlimit(RLIMIT_NOFILE, &more) == 0)
		return;
	limit.rlim_cur = limit.rlim_max < count ? limit.rlim_max : count;
	setrlimit(RLIMIT_NOFILE, &limit);
}
