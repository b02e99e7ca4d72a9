/* SPDX-License-Identifier: Apache-2.0 */

/*
 * fuzz_filter.c: filter_parse() on any text. What is taken gives the same answers in parentheses,
 * and finds no comparison that a row which matches does not fulfil; what is not has a mistake that
 * says where, and what was expected.
 */

#include "relay/ctl/filter.h"

#include <stdio.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const statuses[] = {"Active", "Ready", "Retry", NULL};

static const struct filter_property properties[] = {
	{"Status", FILTER_WORD, statuses},
	{"MessageCount", FILTER_NUMBER, NULL},
	{"LastError", FILTER_TEXT, NULL},
	{"Size", FILTER_SIZE, NULL},
	{"DateReceived", FILTER_TIME, NULL},
	{.name = NULL},
};

struct row {
	struct filter_value values[COUNT_OF(properties)];
};

static const struct row rows[] = {
	{{{"Retry", 0}, {"", 12}, {"451 late", 0}, {"", 1024}, {"", 1795301165000}}},
	{{{"Ready", 0}, {"", 0}, {"", 0}, {"", 0}, {"", 0}}},
	{{{"Active", 0}, {"", 1}, {"*?'", 0}, {"", INT64_MAX}, {"", 1}}},
};

static void fuzz_get(const void *row, unsigned property, struct filter_value *out)
{
	ASSERT(property + 1 < COUNT_OF(properties));
	*out = ((const struct row *)row)->values[property];
}

static void fuzz_taken(const struct filter *filter, const char *text)
{
	static struct filter again;
	static char longer[FILTER_BYTES_MAX + 32];
	char why[FILTER_WHY_BYTES];
	const struct filter_node *found;

	(void)snprintf(longer, sizeof(longer), "(%s)", text);
	if (filter_parse(longer, properties, &again, why) < 0) {
		ASSERT(strstr(why, "no more than") != NULL || strstr(why, "at most") != NULL);
		return;
	}
	for (unsigned i = 0; i < COUNT_OF(rows); i++) {
		bool is_it = filter_matches(filter, fuzz_get, &rows[i]);

		ASSERT(is_it == filter_matches(&again, fuzz_get, &rows[i]));
		found = filter_find(filter, 1, FILTER_GT);
		ASSERT(!is_it || found == NULL || rows[i].values[1].number > found->number);
		ASSERT(found == NULL || filter_asks(filter, 1));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct filter filter;
	static char text[FILTER_BYTES_MAX + 16];
	char why[FILTER_WHY_BYTES] = "";

	if (size >= sizeof(text))
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	if (filter_parse(text, properties, &filter, why) == 0) {
		fuzz_taken(&filter, text);
		return 0;
	}
	ASSERT(strncmp(why, "at ", 3) == 0 && strstr(why, ", expected ") != NULL);
	for (const char *at = why; *at != '\0'; at++)
		ASSERT(*at >= ' ' && *at < 0x7f);
	return 0;
}
