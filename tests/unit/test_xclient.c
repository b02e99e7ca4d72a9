/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/identity.h"

#include "relay/smtp/proxy_header.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* Of a copy in memory of just its size, so that a sanitizer sees a step behind it. */
static bool parse(const char *text, struct xclient *out)
{
	size_t len = strlen(text);
	char *copy = malloc(len + 1);
	bool is_right;

	assert_non_null(copy);
	memcpy(copy + 1, text, len);
	is_right = xclient_parse(span_make(copy + 1, len), out);
	free(copy);
	return is_right;
}

static void test_all_attributes(void **state)
{
	struct xclient xclient;
	char text[64];

	(void)state;
	assert_true(parse("NAME=mx.test addr=192.0.2.7 Port=65535 PROTO=esmtp HELO=h+2Bx "
			  "LOGIN=a+20b DESTADDR=IPV6:2001:db8::1 DESTPORT=0 REVERSE_NAME=r.test",
		&xclient));
	assert_int_equal(xclient.given, 511);
	assert_int_equal(xclient.known, 511);
	assert_string_equal(xclient.name, "mx.test");
	assert_string_equal(ip_print(&xclient.address, text, sizeof(text)), "192.0.2.7");
	assert_int_equal(xclient.port, 65535);
	assert_true(xclient.is_extended);
	assert_string_equal(xclient.helo, "h+x");
	assert_string_equal(xclient.login, "a b");
	assert_string_equal(ip_print(&xclient.destination, text, sizeof(text)), "2001:db8::1");
	assert_int_equal(xclient.destination_port, 0);
	assert_string_equal(xclient.reverse_name, "r.test");
}

static void test_what_is_not_available(void **state)
{
	struct xclient xclient;

	(void)state;
	assert_true(parse("NAME=[UNAVAILABLE]  ADDR=[tempunavail] HELO=[Unavailable]", &xclient));
	assert_int_equal(xclient.given, XCLIENT_NAME | XCLIENT_ADDR | XCLIENT_HELO);
	assert_int_equal(xclient.known, 0);
	assert_string_equal(xclient.name, "");
	assert_string_equal(xclient.helo, "");
}

static void test_mapped_addresses_are_ipv4(void **state)
{
	struct xclient xclient;

	(void)state;
	assert_true(parse("ADDR=ipv6:::ffff:192.0.2.7", &xclient));
	assert_false(xclient.address.is_v6);
}

static void test_wrong_forms(void **state)
{
	static const char *const wrong[] = {"", " ", "ADDR", "ADDR=", "=", "=x", "ADDR=x",
		"ADDR=1.2.3.4.5", "ADDR=2001:db8::1", "ADDR=IPV6:192.0.2.1",
		"ADDR=IPV6:", "ADDR=[192.0.2.1]", "ADDR=192.0.2.1/24", "ADDR=IPV6:fe80::1%eth0",
		"PORT=-1", "PORT=65536", "PORT=1x", "PORT=99999999999999999999", "PROTO=HTTP",
		"PROTO=", "PROTO=[UNAVAILABLE]", "HELO=a=b", "HELO=a+2", "HELO=a+2b",
		"HELO=a+0D+0A", "HELO=a+00", "HELO=a+7F", "HELO=a+FF", "NAME=a\tb", "NAME=\xc3\xa9",
		"FOO=bar", "NAME=a NAME=b", "NAME=[UNAVAILABLE] NAME=b", "NAME=a,ADDR=1.2.3.4"};
	struct xclient xclient;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(wrong); i++) {
		if (parse(wrong[i], &xclient))
			fail_msg("%s", wrong[i]);
	}
}

static void test_the_longest_text(void **state)
{
	char line[400] = "HELO=";
	struct xclient xclient;

	(void)state;
	memset(line + 5, 'x', 255);
	line[260] = '\0';
	assert_true(parse(line, &xclient));
	assert_int_equal(strlen(xclient.helo), 255);
	line[260] = 'x';
	line[261] = '\0';
	assert_false(parse(line, &xclient));
}

static void test_what_a_server_announces(void **state)
{
	(void)state;
	assert_int_equal(xclient_attributes(span_of("")), 0);
	assert_int_equal(
		xclient_attributes(span_of("NAME  addr other")), XCLIENT_NAME | XCLIENT_ADDR);
	assert_int_equal(
		xclient_attributes(span_skip(span_of(XCLIENT_KEYWORD), strlen("XCLIENT "))), 511);
}

static struct identity identity_full(void)
{
	struct identity identity = {.source_port = 4711,
		.destination_port = 25,
		.is_extended = true,
		.helo = "h+=.test",
		.session = "s1",
		.tls_version = "TLSv1.3",
		.tls_cipher = "TLS_AES_256_GCM_SHA384",
		.server_name = "mx.test",
		.has_certificate = true,
		.is_verified = true,
		.common_name = "c.test"};

	assert_int_equal(ip_parse("2001:db8::7", &identity.source), 0);
	assert_int_equal(ip_parse("198.51.100.1", &identity.destination), 0);
	return identity;
}

static void test_the_command(void **state)
{
	struct identity identity = identity_full();
	char line[XCLIENT_COMMAND_BYTES_MAX + 1];
	struct xclient xclient;
	size_t len;

	(void)state;
	len = identity_write_xclient(&identity, 511, line);
	assert_int_equal(len, strlen(line));
	assert_string_equal(line,
		"XCLIENT NAME=[UNAVAILABLE] ADDR=IPV6:2001:db8::7 PORT=4711 PROTO=ESMTP "
		"HELO=h+2B+3D.test LOGIN=[UNAVAILABLE] DESTADDR=198.51.100.1 DESTPORT=25 "
		"REVERSE_NAME=[UNAVAILABLE]\r\n");
	assert_true(xclient_parse(span_make(line + 8, len - 10), &xclient));
	assert_string_equal(xclient.helo, identity.helo);
	len = identity_write_xclient(&identity, XCLIENT_ADDR, line);
	assert_string_equal(line, "XCLIENT ADDR=IPV6:2001:db8::7\r\n");
	assert_int_equal(len, strlen(line));
	identity.source_port = 0;
	(void)!identity_write_xclient(&identity, XCLIENT_PORT, line);
	assert_string_equal(line, "XCLIENT PORT=[UNAVAILABLE]\r\n");
}

/* However long the name is, and whatever it is made of, the line is one that any server takes. */
static void test_no_line_is_too_long(void **state)
{
	struct identity identity = identity_full();
	char line[XCLIENT_COMMAND_BYTES_MAX + 1];

	(void)state;
	for (size_t bytes = 0; bytes < sizeof(identity.helo); bytes++) {
		struct xclient xclient;
		size_t len;

		memset(identity.helo, bytes % 2 == 0 ? '+' : 'x', bytes);
		identity.helo[bytes] = '\0';
		len = identity_write_xclient(&identity, 511, line);
		assert_true(len <= XCLIENT_COMMAND_BYTES_MAX);
		assert_true(xclient_parse(span_make(line + 8, len - 10), &xclient));
		assert_true(xclient.helo[0] == '\0' || strcmp(xclient.helo, identity.helo) == 0);
		assert_true(xclient.helo[0] != '\0' || bytes == 0 || bytes % 2 == 0);
	}
}

static void test_every_fact_makes_it_another(void **state)
{
	const struct identity one = identity_full();
	struct identity other[13];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(other); i++)
		other[i] = one;
	assert_true(identity_is_equal(&one, &other[0]));
	other[0].source.bytes[15] ^= 1;
	other[1].destination.bytes[3] ^= 1;
	other[2].source_port++;
	other[3].destination_port++;
	other[4].is_extended = false;
	other[5].helo[0] ^= 1;
	other[6].session[0] ^= 1;
	other[7].server_name[0] ^= 1;
	other[8].tls_version[0] ^= 1;
	other[9].tls_cipher[0] ^= 1;
	other[10].has_certificate = false;
	other[11].is_verified = false;
	other[12].common_name[0] ^= 1;
	for (size_t i = 0; i < COUNT_OF(other); i++) {
		if (identity_is_equal(&one, &other[i]))
			fail_msg("fact %zu", i);
	}
}

static void test_common_names(void **state)
{
	static const struct {
		const char *subject;
		const char *want;
	} cases[] = {{"CN=a.test", "a.test"}, {"O=Trey,CN=a.test,C=DE", "a.test"},
		{"cn=a.test,O=Trey", "a.test"}, {"", ""}, {"O=Trey", ""}, {"CN=", ""},
		{"O=x\\,CN=b.test", ""}, {"O=x\\\\,CN=b.test", "b.test"}, {"O=\\", ""},
		{"CN=a\\,b", ""}, {"CN=a+O=b", ""}, {"CN=#04", ""}, {"XCN=a", ""}};
	char out[XCLIENT_TEXT_BYTES];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		identity_common_name(cases[i].subject, out);
		assert_string_equal(out, cases[i].want);
	}
}

static void test_the_header(void **state)
{
	struct identity identity = identity_full();
	uint8_t wire[PROXY_HEADER_BYTES_MAX];
	struct proxy_header header = {0};

	(void)state;
	for (unsigned version = 1; version <= 2; version++) {
		size_t len = identity_write_proxy(&identity, version, wire);

		assert_int_equal(
			proxy_header_parse(span_make(wire, len), &header), PROXY_HEADER_OK);
		assert_int_equal(header.version, version);
		assert_int_equal(ip_compare(&header.source, &identity.source), 0);
		assert_int_equal(header.source_port, 4711);
	}
	assert_true(span_equal(header.unique_id, span_of("s1")));
	assert_true(span_equal(header.authority, span_of("mx.test")));
	assert_true(span_equal(header.tls.cn, span_of("c.test")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_attributes),
		cmocka_unit_test(test_what_is_not_available),
		cmocka_unit_test(test_mapped_addresses_are_ipv4),
		cmocka_unit_test(test_wrong_forms),
		cmocka_unit_test(test_the_longest_text),
		cmocka_unit_test(test_what_a_server_announces),
		cmocka_unit_test(test_the_command),
		cmocka_unit_test(test_no_line_is_too_long),
		cmocka_unit_test(test_every_fact_makes_it_another),
		cmocka_unit_test(test_common_names),
		cmocka_unit_test(test_the_header),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
