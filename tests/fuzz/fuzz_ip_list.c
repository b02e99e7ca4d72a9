/* SPDX-License-Identifier: Apache-2.0 */

/*
 * fuzz_ip_list.c: ip_list_import() on any bytes; the first of them picks the form. What is taken is
 * the same when it is printed and read again, and leads to the same answers; what is not has
 * a mistake that says what was expected.
 */

#include "policy/ip_list.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_BYTES_MAX 4096

/* errors and notes (may be NULL) get what was said, to be freed. */
static int fuzz_import(enum ip_list_format format, const void *data, size_t size, char **errors,
	char **notes, struct cidr **out)
{
	size_t errors_len = 0, notes_len = 0;
	FILE *in = fmemopen((void *)(uintptr_t)data, size, "r");
	FILE *errors_file = open_memstream(errors, &errors_len);
	FILE *notes_file = notes != NULL ? open_memstream(notes, &notes_len) : NULL;
	int rc = 0;

	ASSERT(in != NULL && errors_file != NULL && (notes == NULL || notes_file != NULL));
	rc = ip_list_import(in, "x", format, errors_file, notes_file, out);
	(void)fclose(in);
	(void)fclose(errors_file);
	if (notes_file != NULL)
		(void)fclose(notes_file);
	return rc;
}

/* Every line of what is said stands by a place, and has no byte that a terminal would obey. */
static void fuzz_said(const char *text)
{
	for (const char *line = text; *line != '\0'; line = strchr(line, '\n') + 1) {
		ASSERT(strncmp(line, "x:", 2) == 0 && strchr(line, '\n') != NULL);
		for (const char *at = line; *at != '\n'; at++)
			ASSERT(*at >= ' ' && *at < 0x7f);
	}
}

/* A set, printed and imported, is itself, and nothing of it is left out. */
static void fuzz_again(const struct cidr *set)
{
	struct cidr *again = NULL, *put = NULL;
	struct ip_list_diff diff = {0};
	struct prefix prefix = {0};
	struct door_value value = {0};
	char *text = NULL, *errors = NULL, *notes = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	struct cidr_walk walk;

	ASSERT(out != NULL && cidr_create(&put) == 0);
	cidr_walk_start(&walk, set);
	while (cidr_walk_next(&walk, &prefix, &value)) {
		char entry[PREFIX_TEXT_BYTES + 1];

		ASSERT(value.connector == 0 && value.partner == 0);
		ASSERT(value.flags == 0 || value.flags == DOOR_EXCLUDED);
		(void)fprintf(out, "%s\n", ip_list_print(&prefix, value, entry));
		ASSERT(ip_list_put_text(put, entry) == 0);
	}
	(void)fprintf(out, "# end\n");
	(void)fclose(out);
	ASSERT(fuzz_import(IP_LIST_AUTO, text, len, &errors, &notes, &again) == 0);
	ASSERT(errors[0] == '\0' && notes[0] == '\0');
	ip_list_compare(set, again, &diff, NULL, NULL);
	ASSERT(diff.added == 0 && diff.removed == 0 && diff.kept == cidr_count(set));
	ip_list_compare(set, put, &diff, NULL, NULL);
	ASSERT(diff.added == 0 && diff.removed == 0);
	cidr_destroy(&again);
	cidr_destroy(&put);
	free(text);
	free(errors);
	free(notes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const enum ip_list_format formats[] = {
		IP_LIST_AUTO, IP_LIST_PLAIN, IP_LIST_POSTFIX_CIDR, IP_LIST_JSON};
	char *errors = NULL, *notes = NULL;
	struct cidr *set = NULL;
	int rc = 0;

	if (size < 2 || size > FUZZ_BYTES_MAX)
		return 0;
	rc = fuzz_import(
		formats[data[0] % COUNT_OF(formats)], data + 1, size - 1, &errors, &notes, &set);
	fuzz_said(errors);
	fuzz_said(notes);
	if (rc == 0) {
		ASSERT(errors[0] == '\0');
		fuzz_again(set);
	} else {
		ASSERT(rc == -EINVAL && set == NULL && strstr(errors, "expected") != NULL);
	}
	cidr_destroy(&set);
	free(errors);
	free(notes);
	return 0;
}
