/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/assert.h"
#include "relay/base/list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

struct item {
	char name;
	struct link link;
};

/* The names of a list's members in order, read forward and checked backward. */
static const char *list_names(struct link *head)
{
	static char out[16];
	struct link *link;
	struct link *after;
	size_t len = 0;

	LIST_FOR_EACH (link, after, head)
		out[len++] = OWNER_OF(link, struct item, link)->name;
	out[len] = '\0';
	for (link = head->prev; link != head; link = link->prev)
		assert_int_equal(out[--len], OWNER_OF(link, struct item, link)->name);
	assert_int_equal(len, 0);
	return out;
}

static void test_list_order(void **state)
{
	struct link head;
	struct item a = {.name = 'a'};
	struct item b = {.name = 'b'};
	struct item c = {.name = 'c'};

	(void)state;
	link_init(&head);
	assert_true(list_is_empty(&head));
	assert_null(list_take(&head));
	list_append(&head, &a.link);
	list_append(&head, &b.link);
	list_append(&head, &c.link);
	assert_string_equal(list_names(&head), "abc");
	assert_ptr_equal(list_take(&head), &a.link);
	assert_string_equal(list_names(&head), "bc");
	list_append(&head, &a.link);
	assert_string_equal(list_names(&head), "bca");
	assert_ptr_equal(list_take(&head), &b.link);
	assert_ptr_equal(list_take(&head), &c.link);
	assert_ptr_equal(list_take(&head), &a.link);
	assert_true(list_is_empty(&head));
}

static void test_list_remove(void **state)
{
	static const char *const want[] = {"bcd", "acd", "abd", "abc"};

	(void)state;
	for (unsigned gone = 0; gone < 4; gone++) {
		struct item items[4];
		struct link head;

		link_init(&head);
		for (unsigned i = 0; i < 4; i++) {
			items[i].name = (char)('a' + i);
			link_init(&items[i].link);
			assert_false(link_is_queued(&items[i].link));
			list_append(&head, &items[i].link);
			assert_true(link_is_queued(&items[i].link));
		}
		/* Twice is harmless. */
		link_remove(&items[gone].link);
		link_remove(&items[gone].link);
		assert_false(link_is_queued(&items[gone].link));
		assert_string_equal(list_names(&head), want[gone]);
	}
}

static void test_list_remove_while_visiting(void **state)
{
	struct item items[4];
	struct link head;
	struct link *link;
	struct link *after;
	unsigned visited = 0;

	(void)state;
	link_init(&head);
	for (unsigned i = 0; i < 4; i++) {
		items[i].name = (char)('a' + i);
		list_append(&head, &items[i].link);
	}
	LIST_FOR_EACH (link, after, &head) {
		visited++;
		link_remove(link);
	}
	assert_int_equal(visited, 4);
	assert_true(list_is_empty(&head));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_list_order),
		cmocka_unit_test(test_list_remove),
		cmocka_unit_test(test_list_remove_while_visiting),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
