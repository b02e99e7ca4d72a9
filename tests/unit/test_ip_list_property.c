/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_ip_list_property.c: random lists are imported, and no address has another outcome than the
 * list gave it: of ours the longest prefix, of a Postfix table the first match.
 */

#include "tests/unit/ip_list_fixture.h"
#include <errno.h>
#include <stdio.h>

#define ENTRIES_MAX 30

struct table {
	struct ip_range ranges[ENTRIES_MAX];
	bool is_excluded[ENTRIES_MAX];
	unsigned count;
	char text[8192];
	size_t used;
};

enum outcome {
	OUTCOME_NONE,
	OUTCOME_IN,
	OUTCOME_EXCLUDED,
};

static enum outcome outcome_of(const struct door_value *value)
{
	if (value == NULL)
		return OUTCOME_NONE;
	return (value->flags & DOOR_EXCLUDED) != 0 ? OUTCOME_EXCLUDED : OUTCOME_IN;
}

/* As cidr_table(5) has it. */
static enum outcome table_first(const struct table *table, const struct ip *ip)
{
	for (unsigned i = 0; i < table->count; i++)
		if (ip_range_has(&table->ranges[i], ip))
			return table->is_excluded[i] ? OUTCOME_EXCLUDED : OUTCOME_IN;
	return OUTCOME_NONE;
}

/* The narrowest; two of the same size are the same, or do not overlap. */
static enum outcome table_narrowest(const struct table *table, const struct ip *ip)
{
	unsigned best = table->count;

	for (unsigned i = 0; i < table->count; i++)
		if (ip_range_has(&table->ranges[i], ip) &&
			(best == table->count ||
				ip_range_is_narrower(&table->ranges[i], &table->ranges[best])))
			best = i;
	if (best == table->count)
		return OUTCOME_NONE;
	return table->is_excluded[best] ? OUTCOME_EXCLUDED : OUTCOME_IN;
}

/* Few bits differ, so that entries lie within one another. */
static void table_random(struct table *table, bool is_postfix)
{
	memset(table, 0, sizeof(*table));
	table->count = 1 + random_below(is_postfix ? 6 : ENTRIES_MAX);
	for (unsigned i = 0; i < table->count; i++) {
		const bool is_v6 = random_below(4) == 0;
		struct prefix prefix = {.ip = random_ip(is_v6, 12)};
		char text[PREFIX_TEXT_BYTES];

		prefix.bits = (uint8_t)(is_v6 ? random_below(129) : random_below(33));
		ip_cut(&prefix.ip, prefix.bits);
		table->ranges[i] = prefix_range(&prefix);
		table->is_excluded[i] = random_below(2) == 0;
		(void)prefix_print(&prefix, text);
		if (is_postfix)
			table->used += (size_t)snprintf(table->text + table->used,
				sizeof(table->text) - table->used, "%s %s\n", text,
				table->is_excluded[i] ? "REJECT" : "OK");
		else
			table->used += (size_t)snprintf(table->text + table->used,
				sizeof(table->text) - table->used, "%s%s\n",
				table->is_excluded[i] ? "!" : "", text);
	}
}

static void table_check(const struct table *table, const struct cidr *set,
	enum outcome (*outcome)(const struct table *table, const struct ip *ip))
{
	for (unsigned i = 0; i < table->count; i++) {
		struct ip ips[4];

		ips[0] = table->ranges[i].first;
		ips[1] = table->ranges[i].last;
		ips[2] = ips[0];
		ips[3] = ips[1];
		(void)ip_step(&ips[2], -1);
		(void)ip_step(&ips[3], 1);
		for (unsigned k = 0; k < COUNT_OF(ips); k++)
			assert_int_equal(outcome_of(cidr_lookup(set, &ips[k], NULL)),
				outcome(table, &ips[k]));
	}
	for (unsigned i = 0; i < 100; i++) {
		const struct ip ip = random_ip(random_below(4) == 0, 12);

		assert_int_equal(outcome_of(cidr_lookup(set, &ip, NULL)), outcome(table, &ip));
	}
}

/* How many of so many tables were taken. */
static unsigned run_tables(enum ip_list_format format, unsigned rounds,
	enum outcome (*outcome)(const struct table *table, const struct ip *ip))
{
	static struct table table;
	unsigned taken = 0;

	for (unsigned round = 0; round < rounds; round++) {
		struct cidr *set = NULL;
		FILE *in = NULL;
		int rc = 0;

		table_random(&table, format == IP_LIST_POSTFIX_CIDR);
		in = fmemopen(table.text, table.used, "r");
		assert_non_null(in);
		rc = ip_list_import(in, "x", format, NULL, NULL, &set);
		(void)fclose(in);
		assert_true(rc == 0 || rc == -EINVAL);
		if (rc < 0)
			continue;
		table_check(&table, set, outcome);
		cidr_destroy(&set);
		taken++;
	}
	return taken;
}

static void test_plain(void **state)
{
	(void)state;
	random_state = 31;
	assert_in_range(run_tables(IP_LIST_PLAIN, 2000, table_narrowest), 100, 1999);
}

static void test_table(void **state)
{
	(void)state;
	random_state = 32;
	assert_in_range(run_tables(IP_LIST_POSTFIX_CIDR, 3000, table_first), 500, 2999);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
