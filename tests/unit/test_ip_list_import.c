/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_ip_list_import.c: lists of addresses in every form: what is taken, what is noted, and each
 * kind of mistake with its line.
 */

#include "policy/ip_list.h"
#include "tests/unit/alloc_fixture.h"
#include "tests/unit/cidr_fixture.h"
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>

/* ---- one import, with all that it says */

struct outcome {
	int rc;
	char errors[8192];
	char notes[8192];
	char set[8192]; /* one entry after the other, a blank behind each */
};

static struct outcome outcome;

static void set_print(const struct cidr *set, char *out, size_t out_bytes)
{
	struct prefix prefix = {0};
	struct door_value value = {0};
	struct cidr_walk walk;
	size_t used = 0;

	out[0] = '\0';
	cidr_walk_start(&walk, set);
	while (cidr_walk_next(&walk, &prefix, &value)) {
		char text[PREFIX_TEXT_BYTES + 1];

		assert_true(value.flags == 0 || value.flags == DOOR_EXCLUDED);
		assert_true(value.partner == 0 && value.connector == 0);
		used += (size_t)snprintf(
			out + used, out_bytes - used, "%s ", ip_list_print(&prefix, value, text));
		assert_true(used < out_bytes);
	}
}

static void import_bytes(enum ip_list_format format, const char *text, size_t len)
{
	/* An empty memory stream is none that fmemopen() knows. */
	FILE *in = len > 0 ? fmemopen((void *)(uintptr_t)text, len, "r") : fopen("/dev/null", "r");
	FILE *errors = fmemopen(outcome.errors, sizeof(outcome.errors), "w");
	FILE *notes = fmemopen(outcome.notes, sizeof(outcome.notes), "w");
	struct cidr *set = NULL;

	assert_true(in != NULL && errors != NULL && notes != NULL);
	memset(&outcome, 0, sizeof(outcome));
	outcome.rc = ip_list_import(in, "LIST", format, errors, notes, &set);
	(void)fclose(in);
	(void)fclose(errors);
	(void)fclose(notes);
	assert_int_equal(outcome.rc == 0, set != NULL);
	if (set != NULL)
		set_print(set, outcome.set, sizeof(outcome.set));
	cidr_destroy(&set);
}

static void import_text(enum ip_list_format format, const char *text)
{
	import_bytes(format, text, strlen(text));
}

struct row {
	enum ip_list_format format;
	const char *text;
	const char *set;   /* NULL: a mistake */
	const char *words; /* mistakes or notes, whole or a part of them; NULL: none */
};

static void check_rows(const struct row *rows, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const char *said = NULL;

		import_text(rows[i].format, rows[i].text);
		said = rows[i].set == NULL ? outcome.errors : outcome.notes;
		if (outcome.rc != (rows[i].set == NULL ? -EINVAL : 0))
			fail_msg("row %zu: %d: %s", i, outcome.rc, outcome.errors);
		if (rows[i].set != NULL)
			assert_string_equal(outcome.set, rows[i].set);
		if (rows[i].set != NULL)
			assert_string_equal(outcome.errors, "");
		if (rows[i].words == NULL)
			assert_string_equal(said, "");
		else if (strstr(said, rows[i].words) == NULL)
			fail_msg("row %zu: \"%s\" says \"%s\"", i, rows[i].text, said);
		/* Every mistake says what is expected. */
		if (rows[i].set == NULL)
			assert_non_null(strstr(said, "expected"));
	}
}

/* ---- lines */

static void test_plain(void **state)
{
	static const struct row rows[] = {
		{IP_LIST_AUTO, "", "", NULL},
		{IP_LIST_AUTO, "\n\n  \n# nothing\n", "", NULL},
		{IP_LIST_AUTO, "192.0.2.1", "192.0.2.1 ", NULL},
		{IP_LIST_AUTO, "192.0.2.0/24\r\n2001:db8::/32\r\n", "192.0.2.0/24 2001:db8::/32 ",
			NULL},
		{IP_LIST_PLAIN, "  192.0.2.1\t# one\n!192.0.2.2#two\n", "192.0.2.1 !192.0.2.2 ",
			NULL},
		{IP_LIST_AUTO, "192.0.2.1-192.0.2.4", "192.0.2.1 192.0.2.2/31 192.0.2.4 ", NULL},
		{IP_LIST_AUTO, "192.0.2.0 - 192.0.2.255\n192.0.3.0-  192.0.3.255",
			"192.0.2.0/24 192.0.3.0/24 ", NULL},
		{IP_LIST_AUTO, "! 10.0.0.0/8", "!10.0.0.0/8 ", NULL},
		{IP_LIST_AUTO,
			"\xef\xbb\xbf"
			"10.0.0.1\n",
			"10.0.0.1 ", NULL},
		{IP_LIST_AUTO, "::ffff:192.0.2.1\n::ffff:192.0.2.128/121",
			"192.0.2.1 192.0.2.128/25 ", NULL},
		{IP_LIST_AUTO, "0.0.0.0/0\n::/0\n", "0.0.0.0/0 ::/0 ", NULL},
		{IP_LIST_AUTO, "10.0.0.0/8\n!10.1.0.0/16\n10.1.2.0/24\n",
			"10.0.0.0/8 !10.1.0.0/16 10.1.2.0/24 ", NULL},
		/* A piece of IPv6 that would be read as all of IPv4 again. */
		{IP_LIST_AUTO, "::fffe:0:1-::1:0:0:0", NULL, NULL},
	};

	(void)state;
	check_rows(rows, COUNT_OF(rows) - 1);
	import_text(IP_LIST_AUTO, rows[COUNT_OF(rows) - 1].text);
	assert_int_equal(outcome.rc, 0);
	assert_null(strstr(outcome.set, "0.0.0.0"));
	assert_null(strstr(outcome.set, "::ffff:"));
	assert_non_null(strstr(outcome.set, "::1:0:0:0 "));
}

static void test_notes(void **state)
{
	static const struct row rows[] = {
		{IP_LIST_AUTO, "10.0.0.1/8", "10.0.0.0/8 ",
			"LIST:1: \"10.0.0.1/8\" has bits behind the prefix, taken as 10.0.0.0/8\n"},
		{IP_LIST_AUTO, "2001:db8::1/64", "2001:db8::/64 ", "taken as 2001:db8::/64\n"},
		{IP_LIST_AUTO, "10.0.0.1\n\n10.0.0.1", "10.0.0.1 ",
			"LIST:3: 10.0.0.1 stands in line 1 already, left out\n"},
		{IP_LIST_AUTO, "10.1.0.0/16\n10.0.0.0/8", "10.0.0.0/8 ",
			"LIST:1: 10.1.0.0/16 is covered by 10.0.0.0/8 of line 2, left out\n"},
		/* What is covered does not cover in its own name. */
		{IP_LIST_AUTO, "10.1.1.1\n10.1.0.0/16\n10.0.0.0/8", "10.0.0.0/8 ",
			"LIST:1: 10.1.1.1 is covered by 10.0.0.0/8 of line 3, left out\n"},
		/* Right above is what counts. */
		{IP_LIST_AUTO, "10.0.0.0/8\n!10.1.0.0/16\n!10.1.2.0/24\n10.1.2.3",
			"10.0.0.0/8 !10.1.0.0/16 10.1.2.3 ",
			"LIST:3: 10.1.2.0/24 is covered by 10.1.0.0/16 of line 2, left out\n"},
		{IP_LIST_AUTO, "10.0.0.0-10.0.0.5\n10.0.0.4-10.0.0.9",
			"10.0.0.0/30 10.0.0.4/30 10.0.0.8/31 ",
			"LIST:1: 10.0.0.4/31 is covered by 10.0.0.4/30 of line 2, left out\n"},
	};

	(void)state;
	check_rows(rows, COUNT_OF(rows));
}

/* What posternctl and the relay send each other is neither more nor less than was sent. */
static void test_take(void **state)
{
	char text[] = "192.0.2.0/24\n192.0.2.128/25\n192.0.2.129\n!192.0.2.7\n";
	char wrong[] = "192.0.2.0/24\nrubbish\n";
	struct cidr *set = NULL;
	char *said_of_it = NULL;
	size_t len = 0;
	FILE *errors = open_memstream(&said_of_it, &len);
	FILE *in = fmemopen(text, strlen(text), "r");

	(void)state;
	assert_non_null(errors);
	assert_non_null(in);
	assert_int_equal(ip_list_take(in, "request", errors, &set), 0);
	assert_int_equal(cidr_count(set), 4);
	cidr_destroy(&set);
	assert_int_equal(fclose(in), 0);
	in = fmemopen(wrong, strlen(wrong), "r");
	assert_non_null(in);
	assert_int_equal(ip_list_take(in, "request", errors, &set), -EINVAL);
	assert_null(set);
	assert_int_equal(fclose(in), 0);
	assert_int_equal(fclose(errors), 0);
	assert_non_null(strstr(said_of_it, "request:2: \"rubbish\" is no address"));
	free(said_of_it);
}

static void test_plain_mistakes(void **state)
{
	static const struct row rows[] = {
		{IP_LIST_AUTO, "mail.example", NULL,
			"LIST:1: \"mail.example\" is no address, expected an address, a network"},
		{IP_LIST_AUTO, "10.0.0.1\n10.0.0\n", NULL, "LIST:2: \"10.0.0\" is no address"},
		{IP_LIST_AUTO, "10.0.0.0/33", NULL,
			"\"10.0.0.0/33\" has no length of a prefix behind \"/\", expected 0 to 32"},
		{IP_LIST_AUTO, "10.0.0.0/255.0.0.0", NULL, "has no length of a prefix"},
		{IP_LIST_AUTO, "10.0.0.0/", NULL, "has no length of a prefix"},
		{IP_LIST_AUTO, "10.0.0.9-10.0.0.1", NULL,
			"\"10.0.0.9-10.0.0.1\" is no range, expected its lower end first"},
		{IP_LIST_AUTO, "10.0.0.9 - 10.0.0.1", NULL, "is no range"},
		{IP_LIST_AUTO, "10.0.0.9-2001:db8::", NULL, "both of one family"},
		{IP_LIST_AUTO, "fe80::1%1", NULL, "has a zone"},
		{IP_LIST_PLAIN, "10.0.0.1 10.0.0.2", NULL, "more than one word"},
		{IP_LIST_PLAIN, "10.0.0.0/8 OK", NULL, "postfix-cidr"},
		{IP_LIST_AUTO, "!", NULL, "LIST:1: no address, expected"},
		{IP_LIST_AUTO, "!!10.0.0.1", NULL, "\"!10.0.0.1\" is no address"},
		{IP_LIST_AUTO, "10.0.0.1\n# and\n!10.0.0.1", NULL,
			"LIST:3: 10.0.0.1 is excluded here and let in by line 1, "
			"expected one of them\n"},
		{IP_LIST_AUTO, "!10.0.0.0/30\n10.0.0.0-10.0.0.7\n10.0.0.0-10.0.0.4", NULL,
			"LIST:3: 10.0.0.0/30 is let in here and excluded by line 1"},
		{IP_LIST_AUTO,
			"\xff\xfe"
			"1\n",
			NULL, "LIST:1: a text in UTF-16"},
		{IP_LIST_AUTO,
			"\xfe\xff"
			"x",
			NULL, "UTF-16"},
		{IP_LIST_AUTO, "10.0.0.1\n\x1b[2J\"\xc3\xa4\n", NULL, "LIST:2: \"?[2J???\" is no"},
	};

	(void)state;
	check_rows(rows, COUNT_OF(rows));
}

/* After a mistake the others are told too, twenty of them. */
static void test_many(void **state)
{
	char text[1024] = "";
	size_t used = 0, lines = 0;

	(void)state;
	for (unsigned i = 0; i < 30; i++)
		used += (size_t)snprintf(text + used, sizeof(text) - used, "x%u\n", i);
	import_text(IP_LIST_PLAIN, text);
	assert_int_equal(outcome.rc, -EINVAL);
	for (const char *at = outcome.errors; *at != '\0'; at++)
		lines += *at == '\n';
	assert_int_equal(lines, 21);
	assert_non_null(strstr(outcome.errors, "LIST:20: "));
	assert_null(strstr(outcome.errors, "LIST:21: "));
	assert_non_null(strstr(outcome.errors, "LIST: and 10 more mistakes\n"));
	/* So are notes. */
	used = 0;
	for (unsigned i = 0; i < 25; i++)
		used += (size_t)snprintf(text + used, sizeof(text) - used, "10.0.0.1\n");
	import_text(IP_LIST_PLAIN, text);
	assert_int_equal(outcome.rc, 0);
	assert_non_null(strstr(outcome.notes, "LIST: and 4 more notes\n"));
}

static void test_odd_bytes(void **state)
{
	char text[3 * IP_LIST_LINE_BYTES_MAX];
	static const char with_nul[] = "10.0.0.1\n10.0\0.0.2\n10.0.0.3\n";

	(void)state;
	import_bytes(IP_LIST_AUTO, with_nul, sizeof(with_nul) - 1);
	assert_int_equal(outcome.rc, -EINVAL);
	assert_string_equal(outcome.errors, "LIST:2: a NUL byte, expected text\n");
	import_bytes(IP_LIST_AUTO, "\0\0\0\0", 4);
	assert_int_equal(outcome.rc, -EINVAL);
	/* As long as can be, and a byte longer. */
	memset(text, ' ', sizeof(text));
	memcpy(text, "10.0.0.1", 8);
	text[IP_LIST_LINE_BYTES_MAX] = '\n';
	import_bytes(IP_LIST_AUTO, text, IP_LIST_LINE_BYTES_MAX + 1);
	assert_int_equal(outcome.rc, 0);
	assert_string_equal(outcome.set, "10.0.0.1 ");
	import_bytes(IP_LIST_AUTO, text, IP_LIST_LINE_BYTES_MAX);
	assert_int_equal(outcome.rc, 0);
	text[IP_LIST_LINE_BYTES_MAX] = ' ';
	import_bytes(IP_LIST_PLAIN, text, IP_LIST_LINE_BYTES_MAX + 1);
	assert_int_equal(outcome.rc, -EINVAL);
	assert_string_equal(
		outcome.errors, "LIST:1: a line of 1025 bytes, expected at most 1024\n");
}

/* A range of this form has 190 prefixes. */
static void test_full(void **state)
{
	const unsigned lines = DOOR_PREFIXES_MAX / 190 + 1;
	char *text = malloc(lines * (size_t)64);
	size_t used = 0;

	(void)state;
	assert_non_null(text);
	for (unsigned i = 0; i < lines; i++)
		used += (size_t)snprintf(text + used, 64,
			"2001:%x::1-2001:%x:ffff:ffff:ffff:ffff:ffff:fffe\n", i, i);
	import_bytes(IP_LIST_PLAIN, text, used);
	assert_int_equal(outcome.rc, -EINVAL);
	assert_string_equal(
		outcome.errors, "LIST:11038: more than 2097152 prefixes, expected fewer\n");
	free(text);
}

/* ---- Postfix */

static void test_table(void **state)
{
	static const struct row rows[] = {
		{IP_LIST_AUTO, "10.0.0.0/8 OK\n", "10.0.0.0/8 ", NULL},
		{IP_LIST_AUTO, "# a table\n\n10.0.0.1\tREJECT go away\n", "!10.0.0.1 ", NULL},
		{IP_LIST_POSTFIX_CIDR, "10.0.0.1 permit\n10.0.0.2 relay\n10.0.0.3 1234567\n",
			"10.0.0.1 10.0.0.2 10.0.0.3 ", NULL},
		{IP_LIST_POSTFIX_CIDR,
			"10.0.0.1 550 no\n10.0.0.2 421 4.3.2 later\n10.0.0.3 defer\n"
			"10.0.0.4 DISCARD\n10.0.0.5 defer_if_permit wait\n",
			"!10.0.0.1 !10.0.0.2 !10.0.0.3 !10.0.0.4 !10.0.0.5 ", NULL},
		{IP_LIST_POSTFIX_CIDR, "10.0.0.1 # who\n\n  # that is\n  \n\tOK\n10.0.0.2\n OK",
			"10.0.0.1 10.0.0.2 ", NULL},
		{IP_LIST_POSTFIX_CIDR, "[2001:db8::]/32 OK\n[2001:db9::/32] OK\n[::1] REJECT",
			"!::1 2001:db8::/32 2001:db9::/32 ", NULL},
		{IP_LIST_AUTO, "[2001:db8::]/32 OK\r\n", "2001:db8::/32 ", NULL},
		/* The narrower one first: the same in both. */
		{IP_LIST_POSTFIX_CIDR, "10.1.0.0/16 REJECT\n10.0.0.0/8 OK",
			"10.0.0.0/8 !10.1.0.0/16 ", NULL},
		/* Hidden, but it makes no difference. */
		{IP_LIST_POSTFIX_CIDR, "10.0.0.0/8 OK\n10.1.0.0/16 OK", "10.0.0.0/8 ",
			"LIST:2: 10.1.0.0/16 is covered by 10.0.0.0/8 of line 1"},
		{IP_LIST_POSTFIX_CIDR, "10.0.0.0/8 OK\n10.0.0.0/8 OK", "10.0.0.0/8 ",
			"LIST:2: 10.0.0.0/8 stands in line 1"},
		{IP_LIST_POSTFIX_CIDR, "10.9.9.9/8 OK", "10.0.0.0/8 ", "bits behind the prefix"},
		{IP_LIST_POSTFIX_CIDR, "", "", NULL},
	};

	(void)state;
	check_rows(rows, COUNT_OF(rows));
}

static void test_table_mistakes(void **state)
{
	static const struct row rows[] = {
		{IP_LIST_POSTFIX_CIDR, "10.0.0.0/8 OK\n\n10.1.0.0/16 REJECT", NULL,
			"LIST:3: 10.1.0.0/16 is excluded here, but hidden by line 1 "
			"(10.0.0.0/8, let in): Postfix takes the first match"},
		{IP_LIST_POSTFIX_CIDR, "10.0.0.0/8 OK\n10.0.0.0/8 REJECT", NULL,
			"LIST:2: 10.0.0.0/8 is excluded here and let in by line 1"},
		{IP_LIST_POSTFIX_CIDR, "10.1.0.0/16 REJECT\n10.0.0.0/8 OK\n10.1.2.0/24 OK", NULL,
			"LIST:3: 10.1.2.0/24 is let in here, but hidden by line 1 "
			"(10.1.0.0/16, excluded)"},
		{IP_LIST_AUTO, "if 10.0.0.0/8\n10.0.0.1 OK\nendif", NULL,
			"LIST:1: \"if\", a condition, expected none"},
		{IP_LIST_AUTO, "if 10.0.0.0/8\n10.0.0.1 OK\nendif", NULL, "LIST:3: \"endif\""},
		{IP_LIST_POSTFIX_CIDR, "!10.0.0.0/8 REJECT", NULL,
			"\"!10.0.0.0/8\" means all addresses but these"},
		{IP_LIST_POSTFIX_CIDR, "10.0.0.0/8", NULL, "\"10.0.0.0/8\" has no result"},
		{IP_LIST_POSTFIX_CIDR, "10.0.0.0/8 DUNNO", NULL,
			"result \"DUNNO\" neither lets in nor refuses"},
		{IP_LIST_POSTFIX_CIDR, "10.0.0.0/8 permit_mynetworks", NULL,
			"result \"permit_mynetworks\" neither"},
		{IP_LIST_POSTFIX_CIDR, "10.0.0.0/8 FILTER smtp:x", NULL, "result \"FILTER\""},
		{IP_LIST_POSTFIX_CIDR, "10.0.0.0/8 250 yes", NULL, "result \"250\""},
		{IP_LIST_POSTFIX_CIDR, "10.0.0.0/8 550", NULL,
			"result \"550\" looks like a refusal"},
		{IP_LIST_POSTFIX_CIDR, "10.0.0.0/8 5xx", NULL, "result \"5xx\""},
		{IP_LIST_POSTFIX_CIDR, " 10.0.0.0/8 OK", NULL, "LIST:1: blanks in front"},
		{IP_LIST_POSTFIX_CIDR, "10.0.0.0/8 OK\nhost.example OK\n", NULL,
			"LIST:2: \"host.example\" is no address"},
		{IP_LIST_POSTFIX_CIDR, "10.0.0.1\n10.0.0.2 OK\n", NULL,
			"LIST:1: \"10.0.0.1\" has no result"},
	};

	(void)state;
	check_rows(rows, COUNT_OF(rows));
}

/* ---- JSON */

static void test_json(void **state)
{
	static const struct row rows[] = {
		{IP_LIST_AUTO, "[]", "", NULL},
		{IP_LIST_AUTO, " \n [ \"10.0.0.1\" , \"!10.0.0.2\"\n] \n", "10.0.0.1 !10.0.0.2 ",
			NULL},
		{IP_LIST_JSON, "\xef\xbb\xbf[\"10.0.0.0-10.0.0.3\"]", "10.0.0.0/30 ", NULL},
		{IP_LIST_AUTO,
			"[{\"cidr\":\"10.0.0.0/8\"},{\"range\":\"11.0.0.0-11.0.0.1\"},"
			"{\"ip\":\"12.0.0.1\",\"exclude\":true},{\"ip\":\"12.0.0.2\",\"exclude\":"
			"false}]",
			"10.0.0.0/8 11.0.0.0/31 !12.0.0.1 12.0.0.2 ", NULL},
		{IP_LIST_AUTO, "{\"ranges\":[\"10.0.0.1\"]}", "10.0.0.1 ", NULL},
		{IP_LIST_AUTO,
			"{\"syncToken\": 1, \"x\": {\"y\": [1, 2, {}]}, \"prefixes\": [\n"
			"{\"ip_prefix\": \"10.0.0.0/8\", \"region\": \"eu\"}], \"ipv6_prefixes\": "
			"[\n"
			"{\"ipv6_prefix\": \"2001:db8::/32\"}]}",
			"10.0.0.0/8 2001:db8::/32 ", NULL},
		{IP_LIST_AUTO,
			"{\"prefixes\": [{\"ipv4Prefix\": \"10.0.0.0/8\"}, "
			"{\"ipv6Prefix\": \"2001:db8::/32\"}]}",
			"10.0.0.0/8 2001:db8::/32 ", NULL},
		{IP_LIST_AUTO, "[\"10.0.0.1/8\",\n\"10.0.0.1\"]", "10.0.0.0/8 ",
			"LIST:2: 10.0.0.1 is covered by 10.0.0.0/8 of line 1"},
		{IP_LIST_AUTO, "[\"10.0.0.1/8\"]", "10.0.0.0/8 ",
			"LIST:1: \"10.0.0.1/8\" has bits"},
	};

	(void)state;
	check_rows(rows, COUNT_OF(rows));
}

static void test_json_mistakes(void **state)
{
	static const struct row rows[] = {
		{IP_LIST_JSON, "", NULL, "LIST:1: the end of the text, expected an array"},
		{IP_LIST_JSON, "10.0.0.1", NULL, "LIST:1: \"1\", expected an array"},
		{IP_LIST_JSON, "\"10.0.0.1\"", NULL, "expected an array"},
		{IP_LIST_AUTO, "[\n\"10.0.0.1\",\n\"x\"\n]", NULL, "LIST:3: \"x\" is no address"},
		{IP_LIST_AUTO, "[\n\"10.0.0.1\"\n\"10.0.0.2\"]", NULL,
			"LIST:3: \"?\", expected \",\" or \"]\" behind an element"},
		{IP_LIST_AUTO, "[\n\"10.0.0.1\",\n\n", NULL, "LIST:4: no JSON ("},
		{IP_LIST_AUTO, "[\"10.0.0.1\"", NULL,
			"LIST:1: the end of the text, expected \",\""},
		{IP_LIST_AUTO, "[\"10.0.0.1\",]", NULL, "LIST:1: no JSON ("},
		{IP_LIST_AUTO, "[\n{\n\"ip\": \"10.0.0.1\",\n\"x\" 1}]", NULL, "LIST:4: no JSON ("},
		{IP_LIST_AUTO, "[{\"ip\":\"10.0.0.1\",\"ip\":\"10.0.0.2\"}]", NULL, "no JSON (dup"},
		{IP_LIST_AUTO, "[\"10.0.0.1\"] x", NULL, "LIST:1: \"x\", expected nothing behind"},
		{IP_LIST_JSON, "[12]", NULL, "an element of another kind, expected an address"},
		{IP_LIST_AUTO, "[\"10.0.0.1\", null, [], true]", NULL, "of another kind"},
		{IP_LIST_AUTO, "[{\"addr\":\"10.0.0.1\"}]", NULL,
			"an object with no \"cidr\", \"range\" or \"ip\", expected one, as text"},
		{IP_LIST_AUTO, "[{\"ip\":\"10.0.0.1\",\"cidr\":\"10.0.0.0/8\"}]", NULL,
			"more than one of"},
		{IP_LIST_AUTO, "[{\"ip\":[\"10.0.0.1\"]}]", NULL, "an address that is no text"},
		{IP_LIST_AUTO, "[{\"ip\":\"10.0.0.1\",\"exclude\":\"yes\"}]", NULL,
			"\"exclude\" of another kind, expected true or false"},
		{IP_LIST_AUTO, "[{\"ip\":\"!10.0.0.1\"}]", NULL, "\"!10.0.0.1\" is no address"},
		{IP_LIST_AUTO, "[\"10.0.0.1\",\n{\"ip\":\"10.0.0.1\",\"exclude\":true}]", NULL,
			"LIST:2: 10.0.0.1 is excluded here and let in by line 1"},
		{IP_LIST_AUTO, "{}", NULL, "an object without a list"},
		{IP_LIST_AUTO, "{\"a\": [\"10.0.0.1\"]}", NULL, "\"ranges\" or \"prefixes\""},
		{IP_LIST_AUTO, "{\"ranges\": \"10.0.0.1\"}", NULL,
			"expected an array of addresses"},
		{IP_LIST_AUTO, "{\"ranges\" [\"10.0.0.1\"]}", NULL, "expected \":\" behind a key"},
		{IP_LIST_AUTO, "{ranges: [\"10.0.0.1\"]}", NULL, "expected a key in quotes"},
		{IP_LIST_AUTO, "{\"ranges\": [\"10.0.0.1\"]", NULL, "expected \",\" or \"}\""},
		{IP_LIST_AUTO, "{\"ranges\": [\"10.0.0.1\"],", NULL, "expected a key"},
		{IP_LIST_AUTO, "{\"ranges\": [\"10.0.0.1\"], \"x\":\n tru}", NULL,
			"LIST:2: no JSON"},
		{IP_LIST_AUTO, "[\"10.0.0.1\xff\"]", NULL, "no JSON ("},
		{IP_LIST_AUTO, "[\"10.0.0.1\\u0000x\"]", NULL, "no JSON ("},
		{IP_LIST_AUTO, "[\"fe80::1%1\"]", NULL, "has a zone"},
	};

	(void)state;
	check_rows(rows, COUNT_OF(rows));
	import_bytes(IP_LIST_JSON, "[\"10.0.0.1\"\0]", 13);
	assert_int_equal(outcome.rc, -EINVAL);
}

/* ---- words */

static void test_format(void **state)
{
	enum ip_list_format format = IP_LIST_JSON;

	(void)state;
	assert_true(ip_list_format_parse("auto", &format) && format == IP_LIST_AUTO);
	assert_true(ip_list_format_parse("plain", &format) && format == IP_LIST_PLAIN);
	assert_true(
		ip_list_format_parse("postfix-cidr", &format) && format == IP_LIST_POSTFIX_CIDR);
	assert_true(ip_list_format_parse("json", &format) && format == IP_LIST_JSON);
	assert_false(ip_list_format_parse("", &format));
	assert_false(ip_list_format_parse("JSON", &format));
	assert_int_equal(format, IP_LIST_JSON);
}

/* ---- no memory, at each place where there may be none */

static void *json_alloc(size_t bytes)
{
	return __wrap_malloc(bytes);
}

static void test_no_memory(void **state)
{
	static const char *const texts[] = {"10.0.0.1\n10.0.0.2\n10.0.0.0/8\n2001:db8::/32\n",
		"[\"10.0.0.1\", {\"ip\": \"10.0.0.2\"}]", "{\"x\": [1], \"ranges\": [\"::1\"]}"};

	(void)state;
	json_set_alloc_funcs(json_alloc, free);
	for (unsigned i = 0; i < COUNT_OF(texts); i++) {
		unsigned left = 0;
		int rc = 0;

		do {
			FILE *in = fmemopen((void *)(uintptr_t)texts[i], strlen(texts[i]), "r");
			char errors[512] = "";
			FILE *said = fmemopen(errors, sizeof(errors), "w");
			struct cidr *set = NULL;

			assert_true(in != NULL && said != NULL);
			alloc_limit(left++);
			rc = ip_list_import(in, "x", IP_LIST_AUTO, said, NULL, &set);
			alloc_free();
			(void)fclose(in);
			(void)fclose(said);
			assert_int_equal(rc == 0, set != NULL);
			/* jansson takes what it has no memory for to be wrong. */
			assert_true(rc == 0 || rc == -ENOMEM || (rc == -EINVAL && i > 0));
			if (rc == 0)
				assert_string_equal(errors, "");
			if (rc == -EINVAL)
				assert_string_not_equal(errors, "");
			cidr_destroy(&set);
		} while (rc < 0 && left < 200);
		assert_int_equal(rc, 0);
		assert_true(left > 4);
	}
	json_set_alloc_funcs(malloc, free);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_notes),
		cmocka_unit_test(test_take),
		cmocka_unit_test(test_plain_mistakes),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_odd_bytes),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_table_mistakes),
		cmocka_unit_test(test_json),
		cmocka_unit_test(test_json_mistakes),
		cmocka_unit_test(test_format),
		cmocka_unit_test(test_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
