/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_ip_list_compare.c: single entries into a set, and what leads from one set to another.
 */

#include "tests/unit/alloc_fixture.h"
#include "tests/unit/ip_list_fixture.h"
#include <errno.h>
#include <stdio.h>

static void test_put_text(void **state)
{
	static const char *const wrong[] = {"", "!", "x", "10.0.0.1 ", "10.0.0.0/33", "fe80::1%1",
		"!!1.2.3.4", "2.2.2.2-1.1.1.1"};
	struct cidr *set = NULL;
	struct prefix prefix = {.ip.bytes = {10}, .bits = 8};

	(void)state;
	assert_int_equal(cidr_create(&set), 0);
	for (size_t i = 0; i < COUNT_OF(wrong); i++)
		assert_int_equal(ip_list_put_text(set, wrong[i]), -EINVAL);
	assert_int_equal(cidr_count(set), 0);
	assert_int_equal(ip_list_put_text(set, "10.9.9.9/8"), 0);
	assert_int_equal(cidr_get(set, &prefix)->flags, 0);
	assert_int_equal(ip_list_put_text(set, "!10.0.0.0/8"), 0);
	assert_int_equal(cidr_get(set, &prefix)->flags, DOOR_EXCLUDED);
	assert_int_equal(ip_list_put_text(set, "192.0.2.1-192.0.2.6"), 0);
	assert_int_equal(cidr_count(set), 5);
	alloc_limit(0);
	assert_int_equal(ip_list_put_text(set, "::/0"), -ENOMEM);
	alloc_free();
	assert_int_equal(cidr_count(set), 5);
	cidr_destroy(&set);
}

struct lines {
	char text[1024];
	size_t used;
};

static void on_line(void *owner, char sign, const struct prefix *prefix, struct door_value value)
{
	struct lines *lines = owner;
	char text[PREFIX_TEXT_BYTES + 1];

	lines->used +=
		(size_t)snprintf(lines->text + lines->used, sizeof(lines->text) - lines->used,
			"%c%s ", sign, ip_list_print(prefix, value, text));
}

static void check_diff(const char *const *from, const char *const *to, const char *expected,
	size_t added, size_t removed, size_t kept)
{
	struct ip_list old = list_of(1, from), new = list_of(2, to);
	struct ip_list_diff diff = {.added = 99};
	struct lines lines = {0};

	ip_list_compare(old.set, new.set, &diff, on_line, &lines);
	assert_string_equal(lines.text, expected);
	assert_true(diff.added == added && diff.removed == removed && diff.kept == kept);
	ip_list_compare(old.set, new.set, &diff, NULL, NULL);
	assert_true(diff.added == added && diff.removed == removed && diff.kept == kept);
	ip_list_clear(&old);
	ip_list_clear(&new);
}

static void test_compare(void **state)
{
	static const char *const none[] = {NULL};
	static const char *const a[] = {"10.0.0.0/8", "10.0.0.0/16", "192.0.2.1", "::/0", NULL};
	static const char *const b[] = {
		"10.0.0.0/8", "!10.0.0.0/16", "172.16.0.0/12", "2001:db8::/32", "::/0", NULL};

	(void)state;
	check_diff(none, none, "", 0, 0, 0);
	check_diff(a, a, "", 0, 0, 4);
	check_diff(none, a, "+10.0.0.0/8 +10.0.0.0/16 +192.0.2.1 +::/0 ", 4, 0, 0);
	check_diff(a, none, "-10.0.0.0/8 -10.0.0.0/16 -192.0.2.1 -::/0 ", 0, 4, 0);
	check_diff(a, b, "-10.0.0.0/16 +!10.0.0.0/16 +172.16.0.0/12 -192.0.2.1 +2001:db8::/32 ", 3,
		2, 2);
}

/* What is applied to one set makes it the other; checked on random sets. */
struct applied {
	struct cidr *set;
};

static void on_apply(void *owner, char sign, const struct prefix *prefix, struct door_value value)
{
	struct applied *applied = owner;

	if (sign == '-')
		assert_true(cidr_remove(applied->set, prefix));
	else
		assert_int_equal(cidr_put(applied->set, prefix, value), 0);
}

static struct cidr *random_set(void)
{
	struct cidr *set = NULL;

	assert_int_equal(cidr_create(&set), 0);
	for (unsigned i = random_below(60); i > 0; i--) {
		struct prefix prefix = {.ip = random_ip(random_below(2) == 0, 12)};

		prefix.bits = (uint8_t)random_below(prefix.ip.is_v6 ? 129 : 33);
		ip_cut(&prefix.ip, prefix.bits);
		assert_int_equal(cidr_put(set, &prefix,
					 (struct door_value){.flags = (uint16_t)random_below(2)}),
			0);
	}
	return set;
}

static void test_compare_random(void **state)
{
	(void)state;
	random_state = 21;
	for (unsigned i = 0; i < 500; i++) {
		struct cidr *from = random_set(), *to = random_set();
		struct applied applied = {0};
		struct ip_list_diff diff = {0};

		assert_int_equal(cidr_copy_create(from, &applied.set), 0);
		ip_list_compare(from, to, &diff, on_apply, &applied);
		assert_int_equal(diff.kept + diff.removed, cidr_count(from));
		assert_int_equal(diff.kept + diff.added, cidr_count(to));
		ip_list_compare(applied.set, to, &diff, NULL, NULL);
		assert_true(diff.added == 0 && diff.removed == 0);
		cidr_destroy(&from);
		cidr_destroy(&to);
		cidr_destroy(&applied.set);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_put_text),
		cmocka_unit_test(test_compare),
		cmocka_unit_test(test_compare_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
