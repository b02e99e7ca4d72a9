/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_cidr_prefix.c: what prefixes are to each other, how they are printed, and which of them
 * make up a range: held against counting.
 */

#include "tests/unit/cidr_fixture.h"

/* ---- prefixes of a range */

/* In order, without a gap, aligned, and no two of them make one. */
static void check_range(const struct ip_range *range)
{
	struct prefix out[PREFIXES_OF_RANGE_MAX];
	const unsigned count = prefix_of_range(range, out);
	struct ip next = range->first;

	assert_true(count > 0 && count <= (range->first.is_v6 ? 254u : 62u));
	for (unsigned i = 0; i < count; i++) {
		const struct ip_range one = prefix_range(&out[i]);
		struct ip cut = out[i].ip;

		ip_cut(&cut, out[i].bits);
		assert_int_equal(ip_compare(&cut, &out[i].ip), 0);
		assert_int_equal(ip_compare(&one.first, &next), 0);
		assert_true(ip_compare(&one.last, &range->last) <= 0);
		next = one.last;
		/* Behind the last address of all it begins anew. */
		assert_true(ip_step(&next, 1) || i + 1 == count);
		if (i > 0 && out[i].bits == out[i - 1].bits) {
			struct prefix both = out[i - 1];

			both.bits--;
			ip_cut(&both.ip, both.bits);
			assert_false(ip_compare(&both.ip, &out[i - 1].ip) == 0 &&
				     prefix_has(&both, &out[i].ip));
		}
		if (i + 1 == count)
			assert_int_equal(ip_compare(&one.last, &range->last), 0);
	}
}

static void test_range_random(void **state)
{
	(void)state;
	random_state = 2;
	for (unsigned i = 0; i < 20000; i++) {
		const bool is_v6 = i % 2 == 0;
		const unsigned spread = 1 + i % 7;
		struct ip_range range = {
			.first = random_ip(is_v6, spread), .last = random_ip(is_v6, spread)};

		if (ip_compare(&range.first, &range.last) > 0) {
			const struct ip first = range.last;

			range.last = range.first;
			range.first = first;
		}
		check_range(&range);
	}
}

/* All ranges within 64 addresses: as few prefixes as there can be, found by trying all. */
static unsigned fewest(unsigned first, unsigned last)
{
	unsigned best[65];

	best[last + 1] = 0;
	for (unsigned from = last + 1; from-- > first;) {
		best[from] = UINT32_MAX;
		for (unsigned size = 1; from + size <= last + 1; size *= 2)
			if (from % size == 0 && best[from + size] + 1 < best[from])
				best[from] = best[from + size] + 1;
	}
	return best[first];
}

static void test_range_fewest(void **state)
{
	struct prefix out[PREFIXES_OF_RANGE_MAX];

	(void)state;
	for (unsigned first = 0; first < 64; first++)
		for (unsigned last = first; last < 64; last++)
			for (unsigned is_v6 = 0; is_v6 < 2; is_v6++) {
				struct ip_range range = {0};

				range.first.is_v6 = range.last.is_v6 = is_v6;
				range.first.bytes[is_v6 ? 15 : 3] = (uint8_t)first;
				range.last.bytes[is_v6 ? 15 : 3] = (uint8_t)last;
				check_range(&range);
				assert_int_equal(prefix_of_range(&range, out), fewest(first, last));
			}
}

/* The most that there can be, and all there is. */
static void test_range_ends(void **state)
{
	static const struct {
		const char *text;
		unsigned count;
	} rows[] = {
		{"0.0.0.1-255.255.255.254", 62},
		{"::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", 254},
		{"0.0.0.0-255.255.255.255", 1},
		{"::/0", 1},
		{"255.255.255.255", 1},
		{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 1},
		{"0.0.0.0", 1},
		{"::", 1},
		{"192.0.2.0-192.0.3.255", 1},
		{"192.0.1.255-192.0.2.0", 2},
		{"fe80::1%7", 1},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		struct prefix out[PREFIXES_OF_RANGE_MAX];
		struct ip_range range = {0};

		assert_int_equal(ip_range_parse(rows[i].text, &range), 0);
		assert_int_equal(prefix_of_range(&range, out), rows[i].count);
		check_range(&range);
	}
}

/* ---- what they are to each other */

static void test_print(void **state)
{
	static const char *const rows[] = {"192.0.2.1", "192.0.2.0/24", "0.0.0.0/0", "::/0",
		"2001:db8::/32", "::", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2:3:4:5:6/127"};
	char text[PREFIX_TEXT_BYTES];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		const struct prefix prefix = prefix_from(rows[i]);

		assert_ptr_equal(prefix_print(&prefix, text), text);
		assert_string_equal(text, rows[i]);
	}
}

static void test_relations(void **state)
{
	const struct prefix all4 = prefix_from("0.0.0.0/0"), all6 = prefix_from("::/0");
	const struct prefix ten = prefix_from("10.0.0.0/8"), one = prefix_from("10.0.0.0");
	const struct prefix next = prefix_from("11.0.0.0/8");

	(void)state;
	assert_true(prefix_holds(&all4, &ten) && prefix_holds(&ten, &ten));
	assert_false(prefix_holds(&ten, &all4) || prefix_holds(&all6, &ten));
	assert_true(prefix_holds(&ten, &one) && prefix_has(&ten, &one.ip));
	assert_false(prefix_holds(&ten, &next) || prefix_has(&ten, &next.ip));
	assert_true(prefix_compare(&all4, &ten) < 0 && prefix_compare(&ten, &one) < 0);
	assert_true(prefix_compare(&one, &next) < 0 && prefix_compare(&next, &all6) < 0);
	assert_int_equal(prefix_of_ip(&one.ip).bits, 32);
	assert_int_equal(prefix_of_ip(&all6.ip).bits, 128);
	assert_int_equal(prefix_compare(&(struct prefix){.ip = one.ip, .bits = 32}, &one), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_range_random),
		cmocka_unit_test(test_range_fewest),
		cmocka_unit_test(test_range_ends),
		cmocka_unit_test(test_print),
		cmocka_unit_test(test_relations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
