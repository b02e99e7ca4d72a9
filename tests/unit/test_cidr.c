/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_cidr.c: the trie of prefixes, each answer held against a plain array that is
 * searched from end to end; and what happens when memory runs out.
 */

#include "tests/unit/alloc_fixture.h"
#include "tests/unit/cidr_fixture.h"
#include <errno.h>

/* ---- what the trie is held against */

#define PLAIN_MAX 512

struct plain {
	struct prefix prefixes[PLAIN_MAX];
	struct door_value values[PLAIN_MAX];
	unsigned count;
};

static bool value_is_equal(struct door_value a, struct door_value b)
{
	return a.connector == b.connector && a.flags == b.flags && a.partner == b.partner;
}

static unsigned plain_find(const struct plain *plain, const struct prefix *prefix)
{
	unsigned i = 0;

	while (i < plain->count && prefix_compare(&plain->prefixes[i], prefix) != 0)
		i++;
	return i;
}

static void plain_put(struct plain *plain, const struct prefix *prefix, struct door_value value)
{
	const unsigned at = plain_find(plain, prefix);

	assert_true(at < PLAIN_MAX);
	if (at == plain->count)
		plain->count++;
	plain->prefixes[at] = *prefix;
	plain->values[at] = value;
}

static bool plain_remove(struct plain *plain, const struct prefix *prefix)
{
	const unsigned at = plain_find(plain, prefix);

	if (at == plain->count)
		return false;
	plain->count--;
	plain->prefixes[at] = plain->prefixes[plain->count];
	plain->values[at] = plain->values[plain->count];
	return true;
}

/* Bit by bit, so that nothing is shared with what is tested. */
static bool plain_has(const struct prefix *prefix, const struct ip *ip)
{
	if (prefix->ip.is_v6 != ip->is_v6)
		return false;
	for (unsigned bit = 0; bit < prefix->bits; bit++)
		if (((prefix->ip.bytes[bit / 8] ^ ip->bytes[bit / 8]) >> (7 - bit % 8)) & 1)
			return false;
	return true;
}

/* Of those of less than so many bits; plain->count: none has it. */
static unsigned plain_lookup(const struct plain *plain, const struct ip *ip, unsigned bits)
{
	unsigned best = plain->count;

	for (unsigned i = 0; i < plain->count; i++)
		if (plain->prefixes[i].bits < bits && plain_has(&plain->prefixes[i], ip) &&
			(best == plain->count ||
				plain->prefixes[i].bits > plain->prefixes[best].bits))
			best = i;
	return best;
}

static struct prefix random_prefix(unsigned spread)
{
	const bool is_v6 = random_below(2) == 0;
	struct prefix prefix = {.ip = random_ip(is_v6, spread)};

	prefix.bits = (uint8_t)random_below(is_v6 ? 129 : 33);
	ip_cut(&prefix.ip, prefix.bits);
	return prefix;
}

static struct door_value random_value(void)
{
	return (struct door_value){.connector = (uint16_t)random_next(),
		.flags = (uint16_t)random_next(),
		.partner = random_next()};
}

static void check_ip(const struct cidr *trie, const struct plain *plain, const struct ip *ip)
{
	const unsigned at = plain_lookup(plain, ip, 129);
	struct prefix prefix = {0};
	const struct door_value *value = cidr_lookup(trie, ip, &prefix);

	if (at == plain->count) {
		assert_null(value);
		return;
	}
	assert_non_null(value);
	assert_true(value_is_equal(*value, plain->values[at]));
	assert_int_equal(prefix_compare(&prefix, &plain->prefixes[at]), 0);
	assert_ptr_equal(cidr_lookup(trie, ip, NULL), value);
	assert_ptr_equal(cidr_get(trie, &prefix), value);
}

/* What holds the prefix, and is not it. */
static void check_above(
	const struct cidr *trie, const struct plain *plain, const struct prefix *prefix)
{
	const unsigned at = plain_lookup(plain, &prefix->ip, prefix->bits);
	struct prefix above = {0};
	const struct door_value *value = cidr_above(trie, prefix, &above);

	if (at == plain->count) {
		assert_null(value);
		return;
	}
	assert_non_null(value);
	assert_true(value_is_equal(*value, plain->values[at]));
	assert_int_equal(prefix_compare(&above, &plain->prefixes[at]), 0);
	assert_ptr_equal(cidr_above(trie, prefix, NULL), value);
}

/* The walk brings all of them, in order. */
static void check_walk(const struct cidr *trie, const struct plain *plain)
{
	struct prefix prefix = {0}, before = {0};
	struct door_value value = {0};
	struct cidr_walk walk;
	unsigned count = 0;

	cidr_walk_start(&walk, trie);
	for (; cidr_walk_next(&walk, &prefix, &value); count++) {
		const unsigned at = plain_find(plain, &prefix);

		assert_true(at < plain->count);
		assert_true(value_is_equal(value, plain->values[at]));
		if (count > 0)
			assert_true(prefix_compare(&before, &prefix) < 0);
		before = prefix;
	}
	assert_int_equal(count, plain->count);
	assert_int_equal(cidr_count(trie), plain->count);
	/* It stays at the end. */
	assert_false(cidr_walk_next(&walk, &prefix, &value));
}

static void check_all(const struct cidr *trie, const struct plain *plain, unsigned spread)
{
	check_walk(trie, plain);
	for (unsigned i = 0; i < plain->count; i++) {
		const struct ip_range range = prefix_range(&plain->prefixes[i]);
		struct ip ip = range.first;

		check_above(trie, plain, &plain->prefixes[i]);
		check_ip(trie, plain, &range.first);
		check_ip(trie, plain, &range.last);
		if (ip_step(&ip, -1))
			check_ip(trie, plain, &ip);
		ip = range.last;
		if (ip_step(&ip, 1))
			check_ip(trie, plain, &ip);
	}
	for (unsigned i = 0; i < 64; i++) {
		const struct ip ip = random_ip(i % 2 == 0, spread);
		const struct prefix prefix = random_prefix(spread);
		const unsigned at = plain_find(plain, &prefix);
		const struct door_value *value = cidr_get(trie, &prefix);

		check_ip(trie, plain, &ip);
		check_above(trie, plain, &prefix);
		assert_int_equal(value != NULL, at < plain->count);
	}
}

static struct cidr *trie_new(void)
{
	struct cidr *trie = NULL;

	assert_int_equal(cidr_create(&trie), 0);
	return trie;
}

/* Puts and removes at random; each state is compared whole now and then, and copied. */
static void run_mix(unsigned spread, unsigned steps, unsigned puts_of_eight)
{
	static struct plain plain;
	struct cidr *trie = trie_new(), *copy = NULL;

	plain.count = 0;
	for (unsigned i = 0; i < steps; i++) {
		struct prefix prefix = random_prefix(spread);
		const struct door_value value = random_value();

		if (random_below(8) < puts_of_eight && plain.count < PLAIN_MAX) {
			assert_int_equal(cidr_put(trie, &prefix, value), 0);
			plain_put(&plain, &prefix, value);
		} else {
			if (plain.count > 0 && random_below(4) != 0)
				prefix = plain.prefixes[random_below(plain.count)];
			assert_int_equal(cidr_remove(trie, &prefix), plain_remove(&plain, &prefix));
			assert_null(cidr_get(trie, &prefix));
		}
		if (i % 61 == 0)
			check_all(trie, &plain, spread);
	}
	assert_int_equal(cidr_copy_create(trie, &copy), 0);
	check_all(copy, &plain, spread);
	assert_true(cidr_bytes(copy) <= cidr_bytes(trie));
	/* A copy is one of its own. */
	while (plain.count > 0)
		assert_true(cidr_remove(trie, &plain.prefixes[0]) &&
			    plain_remove(&plain, &plain.prefixes[0]));
	check_all(trie, &plain, spread);
	cidr_destroy(&trie);
	assert_null(trie);
	cidr_destroy(&copy);
	cidr_destroy(&copy);
}

static void test_mix(void **state)
{
	(void)state;
	random_state = 1;
	for (unsigned spread = 2; spread <= 64; spread *= 2) {
		run_mix(spread, 1500, 6);
		run_mix(spread, 1500, 4);
	}
}

/* ---- small things */

/* Everybody of both families at once, each with an answer of its own. */
static void test_everybody(void **state)
{
	const struct prefix all4 = prefix_from("0.0.0.0/0"), all6 = prefix_from("::/0");
	const struct ip ip4 = {.bytes = {255, 255, 255, 255}}, ip6 = {.is_v6 = true};
	struct cidr *trie = trie_new();
	struct prefix found = {0};

	(void)state;
	assert_null(cidr_lookup(trie, &ip4, &found));
	assert_int_equal(cidr_put(trie, &all4, (struct door_value){.connector = 4}), 0);
	assert_null(cidr_lookup(trie, &ip6, &found));
	assert_int_equal(cidr_put(trie, &all6, (struct door_value){.connector = 6}), 0);
	assert_int_equal(cidr_lookup(trie, &ip4, &found)->connector, 4);
	assert_int_equal(prefix_compare(&found, &all4), 0);
	assert_int_equal(cidr_lookup(trie, &ip6, &found)->connector, 6);
	assert_int_equal(prefix_compare(&found, &all6), 0);
	assert_int_equal(cidr_count(trie), 2);
	assert_true(cidr_remove(trie, &all4));
	assert_false(cidr_remove(trie, &all4));
	assert_null(cidr_lookup(trie, &ip4, &found));
	assert_int_equal(cidr_lookup(trie, &ip6, &found)->connector, 6);
	cidr_destroy(&trie);
}

/* What is removed makes room: the same again and again takes no more memory. */
static void test_bytes(void **state)
{
	struct cidr *trie = trie_new();
	const size_t empty = cidr_bytes(trie);
	size_t full = 0;

	(void)state;
	for (unsigned round = 0; round < 10; round++) {
		for (uint32_t i = 0; i < 3000; i++) {
			struct prefix prefix = {.bits = 32};

			prefix.ip.bytes[1] = (uint8_t)round;
			prefix.ip.bytes[2] = (uint8_t)(i >> 8);
			prefix.ip.bytes[3] = (uint8_t)i;
			assert_int_equal(cidr_put(trie, &prefix, (struct door_value){0}), 0);
			if (round == 0)
				continue;
			prefix.ip.bytes[1]--;
			assert_true(cidr_remove(trie, &prefix));
		}
		if (round == 1)
			full = cidr_bytes(trie);
		if (round > 1)
			assert_int_equal(cidr_bytes(trie), full);
	}
	for (uint32_t i = 0; i < 3000; i++) {
		struct prefix prefix = {.bits = 32};

		prefix.ip.bytes[1] = 9;
		prefix.ip.bytes[2] = (uint8_t)(i >> 8);
		prefix.ip.bytes[3] = (uint8_t)i;
		assert_true(cidr_remove(trie, &prefix));
	}
	assert_int_equal(cidr_count(trie), 0);
	assert_int_equal(cidr_bytes(trie), empty);
	cidr_destroy(&trie);
}

/* ---- no memory: an error, and nothing has changed */

static void test_no_memory(void **state)
{
	static struct plain plain;
	struct cidr *trie = NULL, *copy = NULL;
	unsigned failures = 0;

	(void)state;
	alloc_limit(0);
	assert_int_equal(cidr_create(&trie), -ENOMEM);
	alloc_free();
	assert_null(trie);
	trie = trie_new();
	random_state = 3;
	plain.count = 0;
	for (unsigned i = 0; i < 400; i++) {
		const struct prefix prefix = random_prefix(8);
		const struct door_value value = random_value();
		unsigned left = 0;
		int rc = 0;

		do {
			alloc_limit(left++);
			rc = cidr_put(trie, &prefix, value);
			alloc_free();
			if (rc < 0) {
				assert_int_equal(rc, -ENOMEM);
				check_all(trie, &plain, 8);
				failures++;
			}
		} while (rc < 0 && left < 4);
		assert_int_equal(rc, 0);
		plain_put(&plain, &prefix, value);
	}
	assert_true(failures > 10);
	for (unsigned left = 0; left < 5; left++) {
		alloc_limit(left);
		assert_int_equal(cidr_copy_create(trie, &copy), -ENOMEM);
		alloc_free();
		assert_null(copy);
	}
	alloc_limit(5);
	assert_int_equal(cidr_copy_create(trie, &copy), 0);
	alloc_free();
	check_all(copy, &plain, 8);
	cidr_destroy(&copy);
	cidr_destroy(&trie);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mix),
		cmocka_unit_test(test_everybody),
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
