/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/crc32c.h"

#include "relay/base/assert.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* Bit by bit, as RFC 3720 12.1 has it: what the fast one is held against. */
static uint32_t crc32c_plainly(struct span bytes)
{
	uint32_t state = UINT32_MAX;

	for (size_t i = 0; i < bytes.len; i++) {
		state ^= bytes.data[i];
		for (unsigned bit = 0; bit < 8; bit++)
			state = (state >> 1) ^ ((state & 1) != 0 ? 0x82f63b78 : 0);
	}
	return ~state;
}

static void test_vectors(void **state)
{
	uint8_t bytes[32];
	(void)state;

	assert_int_equal(crc32c(0, span_of("123456789")), 0xe3069283);
	/* RFC 3720 B.4. */
	memset(bytes, 0, sizeof(bytes));
	assert_int_equal(crc32c(0, span_make(bytes, sizeof(bytes))), 0x8a9136aa);
	memset(bytes, 0xff, sizeof(bytes));
	assert_int_equal(crc32c(0, span_make(bytes, sizeof(bytes))), 0x62a8ab43);
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)i;
	assert_int_equal(crc32c(0, span_make(bytes, sizeof(bytes))), 0x46dd794e);
}

static void test_nothing(void **state)
{
	(void)state;

	assert_int_equal(crc32c(0, (struct span){0}), 0);
	assert_int_equal(crc32c(0x12345678, (struct span){0}), 0x12345678);
}

/* In two pieces, cut at every byte, and from every alignment. */
static void test_pieces(void **state)
{
	static uint8_t bytes[600];
	uint32_t random = 1;
	(void)state;

	for (size_t i = 0; i < sizeof(bytes); i++) {
		random = random * 1664525u + 1013904223u;
		bytes[i] = (uint8_t)(random >> 24);
	}
	for (size_t from = 0; from < 16; from++) {
		const struct span all = span_make(bytes + from, sizeof(bytes) - from);
		const uint32_t want = crc32c_plainly(all);

		for (size_t cut = 0; cut <= all.len; cut++) {
			const uint32_t crc = crc32c(0, span_head(all, cut));

			assert_int_equal(crc32c(crc, span_skip(all, cut)), want);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_nothing),
		cmocka_unit_test(test_pieces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
