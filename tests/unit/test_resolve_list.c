/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_resolve_list.c: names off the wire, exchangers in order, and ourselves among them.
 */

#include "relay/net/resolve_list.h"
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void test_names(void **state)
{
	static const struct {
		const char *wire;
		size_t len;
		const char *name; /* NULL: it is none */
	} rows[] = {
		{"\0", 1, ""}, {"\2MX\7Contoso\4test", 18, "mx.contoso.test"},
		{"\5_smtp\1a", 9, "_smtp.a"}, {"\2mx", 3, NULL}, /* no end */
		{"\4mx", 4, NULL},                               /* label beyond the end */
		{"", 0, NULL},                                   /* nothing */
		{"\2m ", 4, NULL},                               /* blank */
		{"\3m\0x", 5, NULL},                             /* NUL */
		{"\3m.x", 5, NULL},                              /* a dot within a label */
		{"\2m\n", 4, NULL},                              /* control */
		{"\2m\xc3", 4, NULL},                            /* not ASCII */
		{"\300\14\0", 3, NULL},                          /* a pointer: unbound gives none */
	};
	char name[NAME_BYTES_MAX];
	uint8_t longest[264];
	size_t at = 0;

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(rows); i++) {
		bool is_name = resolve_name(span_make(rows[i].wire, rows[i].len), name);

		assert_int_equal(is_name, rows[i].name != NULL);
		if (is_name)
			assert_string_equal(name, rows[i].name);
	}
	/* 127 labels of one letter are the longest name that DNS has; one more fits, two do not. */
	for (unsigned i = 0; i < 130; i++) {
		longest[at++] = 1;
		longest[at++] = 'a';
	}
	longest[254] = 0;
	assert_true(resolve_name(span_make(longest, 255), name));
	assert_int_equal(strlen(name), 253);
	longest[254] = 1;
	longest[256] = 0;
	assert_true(resolve_name(span_make(longest, 257), name));
	assert_int_equal(strlen(name), 255);
	memset(longest + 255, 1, 4);
	longest[259] = 0;
	assert_false(resolve_name(span_make(longest, 260), name));
}

static void test_the_best_are_kept(void **state)
{
	static struct resolve_list list;
	char name[32];

	(void)state;
	list = (struct resolve_list){.count = 0};
	for (unsigned i = 0; i < 100; i++) {
		unsigned preference = i * 37 % 100;

		(void)snprintf(name, sizeof(name), "mx%u", preference);
		resolve_list_add(&list, preference, name, i);
	}
	assert_int_equal(list.host_count, RESOLVE_HOSTS_MAX);
	for (unsigned i = 0; i < list.host_count; i++) {
		(void)snprintf(name, sizeof(name), "mx%u", i);
		assert_string_equal(list.hosts[i], name);
		assert_int_equal(list.preferences[i], i);
	}
}

static void add_address(struct resolve_list *list, uint8_t host, const char *text)
{
	uint8_t bytes[16];
	int family = strchr(text, ':') != NULL ? AF_INET6 : AF_INET;

	assert_int_equal(inet_pton(family, text, bytes), 1);
	list->addresses[list->count] = address_make(family, bytes, 25);
	list->host_of[list->count++] = host;
}

static void assert_list(const struct resolve_list *list, const char *want)
{
	char found[512] = "";

	for (unsigned i = 0; i < list->count; i++) {
		char text[64];

		address_print(&list->addresses[i], text, sizeof(text));
		(void)snprintf(found + strlen(found), sizeof(found) - strlen(found), "%s ", text);
	}
	assert_string_equal(found, want);
}

static void test_order_and_ourselves(void **state)
{
	static struct resolve_list list;
	static struct own_addresses own;

	(void)state;
	list = (struct resolve_list){.host_count = 3, .preferences = {10, 20, 20}};
	own = (struct own_addresses){.count = 0};
	add_address(&list, 2, "192.0.2.3");
	add_address(&list, 0, "2001:db8::1");
	add_address(&list, 1, "192.0.2.2");
	add_address(&list, 0, "192.0.2.1");
	add_address(&list, 0, "192.0.2.9");
	resolve_list_sort(&list);
	assert_list(&list, "192.0.2.1:25 192.0.2.9:25 [2001:db8::1]:25 192.0.2.2:25 "
			   "192.0.2.3:25 ");
	assert_int_equal(resolve_list_drop_own(&list, &own), 0);
	/* Ours at 20: both of 20 go. */
	own.addresses[own.count++] = list.addresses[3];
	assert_int_equal(resolve_list_drop_own(&list, &own), 2);
	assert_list(&list, "192.0.2.1:25 192.0.2.9:25 [2001:db8::1]:25 ");
	own.addresses[own.count++] = list.addresses[1];
	assert_int_equal(resolve_list_drop_own(&list, &own), 3);
	assert_int_equal(list.count, 0);
}

static void test_own_addresses(void **state)
{
	static const uint8_t loopback[4] = {127, 0, 0, 1};
	static const uint8_t any[16];
	static const uint8_t elsewhere[4] = {192, 0, 2, 77};
	struct address bindings[2] = {
		address_make(AF_INET6, any, 2525), address_make(AF_INET, elsewhere, 26)};
	struct receive_connector connector = {.bindings = bindings, .binding_count = 2};
	const struct policy policy = {
		.receive_connectors = &connector, .receive_connector_count = 1};
	static struct own_addresses own;
	struct address address = address_make(AF_INET, loopback, 2525);

	(void)state;
	assert_int_equal(own_learn(&own, &policy), 0);
	assert_false(own_has(&own, &address)); /* "[::]" is for IPv6 only */
	address = address_make(AF_INET, loopback, 26);
	assert_false(own_has(&own, &address));
	assert_true(own_has(&own, &bindings[1]));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_the_best_are_kept),
		cmocka_unit_test(test_order_and_ourselves),
		cmocka_unit_test(test_own_addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
