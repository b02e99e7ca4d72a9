/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * ip_list_fixture.h: lists of addresses from texts, for tests.
 */

#include "policy/ip_list.h"
#include "tests/unit/cidr_fixture.h"

/* The texts end with NULL. */
static inline struct ip_list list_of(uint64_t generation, const char *const *texts)
{
	struct ip_list list = {.generation = generation};

	assert_int_equal(cidr_create(&list.set), 0);
	for (; *texts != NULL; texts++)
		assert_int_equal(ip_list_put_text(list.set, *texts), 0);
	return list;
}
