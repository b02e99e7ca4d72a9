/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/proxy_header.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define TEXT(literal)                                           \
	{                                                       \
		(const uint8_t *)(literal), sizeof(literal) - 1 \
	}

/* Signature, version and command, family and protocol; then the length. */
#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define V2(command, family, length) SIGNATURE command family length
#define ENDS4 "\xc0\x00\x02\x01\xc6\x33\x64\x02\x30\x39\x00\x19"
#define MAPPED "\0\0\0\0\0\0\0\0\0\0\xff\xff"
#define V6_A "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"
#define V6_B "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02"
#define UNIX_END                                                                          \
	"/run/some/socket/that/is/named/at/length/so/that/it/takes/exactly/one/hundred/a" \
	"nd/eight/bytes/of/the/address/bl"

_Static_assert(sizeof(UNIX_END) - 1 >= 100, "about as long as it has to be");

struct header_case {
	const char *name;
	struct span in;
	enum proxy_header_status want;
	size_t want_bytes;
	const char *want_source; /* "192.0.2.1 12345 198.51.100.2 25"; NULL: has_client is false */
};

static void header_print(const struct proxy_header *header, char *out, size_t out_bytes)
{
	char source[ADDRESS_TEXT_BYTES];
	char destination[ADDRESS_TEXT_BYTES];

	(void)snprintf(out, out_bytes, "%s %u %s %u",
		ip_print(&header->source, source, sizeof(source)), header->source_port,
		ip_print(&header->destination, destination, sizeof(destination)),
		header->destination_port);
}

static void header_check(const struct header_case *row, const struct proxy_header *header)
{
	char ends[120];

	header_print(header, ends, sizeof(ends));
	if (header->bytes != row->want_bytes)
		fail_msg("%s: %zu bytes", row->name, header->bytes);
	if (header->has_client != (row->want_source != NULL) ||
		(row->want_source != NULL && strcmp(ends, row->want_source) != 0))
		fail_msg("%s: %s", row->name, ends);
}

/* With each shorter input, in memory of just that size: more, or the final answer. */
static void header_check_splits(const struct header_case *row)
{
	bool is_decided = false;

	for (size_t len = 0; len <= row->in.len; len++) {
		uint8_t *copy = malloc(len + 1);
		struct proxy_header header = {0};
		enum proxy_header_status status;

		assert_non_null(copy);
		memcpy(copy + 1, row->in.data, len);
		status = proxy_header_parse(span_make(copy + 1, len), &header);
		is_decided = is_decided || status != PROXY_HEADER_MORE;
		if (is_decided || len == row->in.len) {
			if (status != row->want)
				fail_msg("%s: %s at %zu bytes", row->name,
					proxy_header_word(status), len);
			if (status == PROXY_HEADER_OK)
				header_check(row, &header);
		}
		free(copy);
	}
}

static void header_check_all(const struct header_case *rows, size_t count)
{
	for (size_t i = 0; i < count; i++)
		header_check_splits(&rows[i]);
}

static const struct header_case version_1_cases[] = {
	{"nothing", TEXT(""), PROXY_HEADER_MORE, 0, NULL},
	{"IPv4", TEXT("PROXY TCP4 192.0.2.1 198.51.100.2 12345 25\r\n"), PROXY_HEADER_OK, 44,
		"192.0.2.1 12345 198.51.100.2 25"},
	{"IPv6", TEXT("PROXY TCP6 2001:db8::1 2001:db8::2 65535 0\r\n"), PROXY_HEADER_OK, 44,
		"2001:db8::1 65535 2001:db8::2 0"},
	{"IPv4 in IPv6", TEXT("PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n"), PROXY_HEADER_OK,
		45, "192.0.2.1 1 2001:db8::2 2"},
	{"something behind it", TEXT("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nEHLO x\r\n"),
		PROXY_HEADER_OK, 32, "1.2.3.4 1 5.6.7.8 2"},
	{"the longest IPv6",
		TEXT("PROXY TCP6 2001:0db8:ffff:ffff:ffff:ffff:ffff:ffff "
		     "2001:0db8:ffff:ffff:ffff:ffff:ffff:fffe 65535 65535\r\n"),
		PROXY_HEADER_OK, 104,
		"2001:db8:ffff:ffff:ffff:ffff:ffff:ffff 65535 "
		"2001:db8:ffff:ffff:ffff:ffff:ffff:fffe 65535"},
	{"unknown", TEXT("PROXY UNKNOWN\r\n"), PROXY_HEADER_OK, 15, NULL},
	{"unknown with words", TEXT("PROXY UNKNOWN whatever  1.2.3.4\r\n"), PROXY_HEADER_OK, 33,
		NULL},
	{"the longest of all",
		TEXT("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
		     "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"),
		PROXY_HEADER_OK, 107, NULL},
	{"one byte more",
		TEXT("PROXY UNKNOWN  ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
		     "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"),
		PROXY_HEADER_LONG, 0, NULL},
	{"half", TEXT("PROXY TCP4 192.0.2.1 198.51.100.2 123"), PROXY_HEADER_MORE, 0, NULL},
	{"half a line end", TEXT("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r"), PROXY_HEADER_MORE, 0, NULL},
	{"a bare LF", TEXT("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n"), PROXY_HEADER_BAD, 0, NULL},
	{"a bare CR", TEXT("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rx"), PROXY_HEADER_BAD, 0, NULL},
	{"a bare CR inside", TEXT("PROXY UNKNOWN \rx\r\n"), PROXY_HEADER_BAD, 0, NULL},
	{"a NUL", TEXT("PROXY UNKNOWN \0\r\n"), PROXY_HEADER_BAD, 0, NULL},
	{"lower case", TEXT("proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n"), PROXY_HEADER_NONE, 0, NULL},
	{"lower case inside", TEXT("PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n"), PROXY_HEADER_BAD, 0,
		NULL},
	{"SMTP", TEXT("EHLO there\r\n"), PROXY_HEADER_NONE, 0, NULL},
	{"a ClientHello", TEXT("\x16\x03\x01\x02"), PROXY_HEADER_NONE, 0, NULL},
	{"no kind", TEXT("PROXY \r\n"), PROXY_HEADER_BAD, 0, NULL},
	{"another kind", TEXT("PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n"), PROXY_HEADER_BAD, 0, NULL},
	{"two spaces", TEXT("PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n"), PROXY_HEADER_BAD, 0, NULL},
	{"two spaces inside", TEXT("PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n"), PROXY_HEADER_BAD, 0,
		NULL},
	{"a space behind", TEXT("PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n"), PROXY_HEADER_BAD, 0, NULL},
	{"a tab", TEXT("PROXY TCP4\t1.2.3.4 5.6.7.8 1 2\r\n"), PROXY_HEADER_BAD, 0, NULL},
	{"no address", TEXT("PROXY TCP4\r\n"), PROXY_HEADER_BAD, 0, NULL},
	{"one port", TEXT("PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n"), PROXY_HEADER_BAD, 0, NULL},
	{"three ports", TEXT("PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n"), PROXY_HEADER_BAD, 0, NULL},
	{"a port too large", TEXT("PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n"), PROXY_HEADER_BAD, 0,
		NULL},
	{"a zero in front", TEXT("PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n"), PROXY_HEADER_BAD, 0, NULL},
	{"a sign", TEXT("PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n"), PROXY_HEADER_BAD, 0, NULL},
	{"IPv6 as IPv4", TEXT("PROXY TCP4 ::1 ::2 1 2\r\n"), PROXY_HEADER_BAD, 0, NULL},
	{"IPv4 as IPv6", TEXT("PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n"), PROXY_HEADER_BAD, 0, NULL},
	{"mixed families", TEXT("PROXY TCP4 1.2.3.4 ::2 1 2\r\n"), PROXY_HEADER_BAD, 0, NULL},
	{"a short address", TEXT("PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n"), PROXY_HEADER_BAD, 0, NULL},
	{"an octal address", TEXT("PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n"), PROXY_HEADER_BAD, 0,
		NULL},
	{"a zone", TEXT("PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n"), PROXY_HEADER_BAD, 0, NULL},
	{"a prefix", TEXT("PROXY TCP4 1.2.3.4/8 5.6.7.8 1 2\r\n"), PROXY_HEADER_BAD, 0, NULL},
};

static void test_version_1(void **state)
{
	(void)state;
	header_check_all(version_1_cases, COUNT_OF(version_1_cases));
}

static const struct header_case version_2_cases[] = {
	{"half a signature", TEXT("\r\n\r\n\0\r\nQU"), PROXY_HEADER_MORE, 0, NULL},
	{"another signature", TEXT("\r\n\r\n\0\r\nQUIS\n"), PROXY_HEADER_NONE, 0, NULL},
	{"IPv4", TEXT(V2("\x21", "\x11", "\x00\x0c") ENDS4), PROXY_HEADER_OK, 28,
		"192.0.2.1 12345 198.51.100.2 25"},
	{"IPv4 with TLS behind it", TEXT(V2("\x21", "\x11", "\x00\x0c") ENDS4 "\x16\x03\x01"),
		PROXY_HEADER_OK, 28, "192.0.2.1 12345 198.51.100.2 25"},
	{"IPv6", TEXT(V2("\x21", "\x21", "\x00\x24") V6_A V6_B "\0\x01\0\x02"), PROXY_HEADER_OK, 52,
		"2001:db8::1 1 2001:db8::2 2"},
	{"IPv4 in IPv6",
		TEXT(V2("\x21", "\x21", "\x00\x24") MAPPED "\xc0\0\x02\x01" V6_B "\0\x01\0\x02"),
		PROXY_HEADER_OK, 52, "192.0.2.1 1 2001:db8::2 2"},
	{"local", TEXT(V2("\x20", "\x00", "\x00\x00")), PROXY_HEADER_OK, 16, NULL},
	{"local with a block", TEXT(V2("\x20", "\x11", "\x00\x0c") ENDS4), PROXY_HEADER_OK, 28,
		NULL},
	{"local with rubbish", TEXT(V2("\x20", "\x11", "\x00\x02") "xy"), PROXY_HEADER_OK, 18,
		NULL},
	{"of an unknown kind", TEXT(V2("\x21", "\x00", "\x00\x03") "abc"), PROXY_HEADER_OK, 19,
		NULL},
	{"datagrams", TEXT(V2("\x21", "\x12", "\x00\x0c") ENDS4), PROXY_HEADER_OK, 28, NULL},
	{"version 1", TEXT(V2("\x11", "\x11", "\x00\x0c")), PROXY_HEADER_BAD, 0, NULL},
	{"version 3", TEXT(V2("\x31", "\x11", "\x00\x0c")), PROXY_HEADER_BAD, 0, NULL},
	{"another command", TEXT(V2("\x22", "\x11", "\x00\x0c")), PROXY_HEADER_BAD, 0, NULL},
	{"another family", TEXT(V2("\x21", "\x41", "\x00\x0c")), PROXY_HEADER_BAD, 0, NULL},
	{"another protocol", TEXT(V2("\x21", "\x13", "\x00\x0c")), PROXY_HEADER_BAD, 0, NULL},
	{"too short for IPv4", TEXT(V2("\x21", "\x11", "\x00\x0b") "12345678901"), PROXY_HEADER_BAD,
		0, NULL},
	{"too short for IPv6", TEXT(V2("\x21", "\x21", "\x00\x0c") ENDS4), PROXY_HEADER_BAD, 0,
		NULL},
	{"too short for a socket's path", TEXT(V2("\x21", "\x31", "\x00\x0c") ENDS4),
		PROXY_HEADER_BAD, 0, NULL},
	{"too long", TEXT(V2("\x21", "\x11", "\x07\xf1") ENDS4), PROXY_HEADER_LONG, 0, NULL},
	{"endless", TEXT(V2("\x21", "\x11", "\xff\xff")), PROXY_HEADER_LONG, 0, NULL},
	{"as long as may be", TEXT(V2("\x21", "\x11", "\x07\xf0") ENDS4), PROXY_HEADER_MORE, 0,
		NULL},
	{"a TLV", TEXT(V2("\x21", "\x11", "\x00\x11") ENDS4 "\x04\x00\x02xx"), PROXY_HEADER_OK, 33,
		"192.0.2.1 12345 198.51.100.2 25"},
	{"an empty TLV", TEXT(V2("\x21", "\x11", "\x00\x0f") ENDS4 "\xe0\x00\x00"), PROXY_HEADER_OK,
		31, "192.0.2.1 12345 198.51.100.2 25"},
	{"half a TLV", TEXT(V2("\x21", "\x11", "\x00\x0e") ENDS4 "\x04\x00"), PROXY_HEADER_BAD, 0,
		NULL},
	{"a TLV past the end", TEXT(V2("\x21", "\x11", "\x00\x10") ENDS4 "\x04\x00\x02x"),
		PROXY_HEADER_BAD, 0, NULL},
	{"a TLV of TLS past its end",
		TEXT(V2("\x21", "\x11", "\x00\x17") ENDS4 "\x20\x00\x08\x01\0\0\0\0\x21\0\x01"),
		PROXY_HEADER_BAD, 0, NULL},
	{"a TLV of TLS too short",
		TEXT(V2("\x21", "\x11", "\x00\x13") ENDS4 "\x20\x00\x04\x01\0\0\0"),
		PROXY_HEADER_BAD, 0, NULL},
	{"a checksum of three bytes",
		TEXT(V2("\x21", "\x11", "\x00\x12") ENDS4 "\x03\x00\x03\0\0\0"), PROXY_HEADER_BAD,
		0, NULL},
	{"a wrong checksum", TEXT(V2("\x21", "\x11", "\x00\x13") ENDS4 "\x03\x00\x04\0\0\0\0"),
		PROXY_HEADER_CHECKSUM, 0, NULL},
};

static void test_version_2(void **state)
{
	(void)state;
	header_check_all(version_2_cases, COUNT_OF(version_2_cases));
}

/* AF_UNIX: accepted, and nobody's address. */
static void test_unix_sockets(void **state)
{
	uint8_t in[16 + 216] = V2("\x21", "\x31", "\x00\xd8");
	struct proxy_header header = {0};

	(void)state;
	memcpy(in + 16, UNIX_END, sizeof(UNIX_END) - 1);
	assert_int_equal(proxy_header_parse(span_make(in, sizeof(in)), &header), PROXY_HEADER_OK);
	assert_false(header.has_client);
	assert_int_equal(header.bytes, sizeof(in));
	assert_int_equal(
		proxy_header_parse(span_make(in, sizeof(in) - 1), &header), PROXY_HEADER_MORE);
}

static struct proxy_header header_full(void)
{
	struct proxy_header header = {.version = 2,
		.has_client = true,
		.source_port = 12345,
		.destination_port = 25,
		.alpn = span_of("smtp"),
		.authority = span_of("mx.adatum.test"),
		.unique_id = span_of("0123456789abcdef"),
		.netns = span_of("blue"),
		.tls = {.is_tls = true,
			.has_certificate = true,
			.is_verified = true,
			.version = span_of("TLSv1.3"),
			.cipher = span_of("TLS_AES_256_GCM_SHA384"),
			.cn = span_of("mx.treyresearch.test"),
			.signature = span_of("ecdsa-with-SHA256"),
			.key = span_of("EC256")}};

	assert_int_equal(ip_parse("192.0.2.1", &header.source), 0);
	assert_int_equal(ip_parse("198.51.100.2", &header.destination), 0);
	return header;
}

static void assert_span(struct span span, const char *text)
{
	if (!span_equal(span, span_of(text)))
		fail_msg("%.*s instead of %s", (int)span.len, (const char *)span.data, text);
}

static void test_what_is_written_can_be_read(void **state)
{
	struct proxy_header from = header_full();
	uint8_t wire[PROXY_HEADER_BYTES_MAX];
	struct proxy_header to = {0};
	size_t len = proxy_header_write(&from, wire);

	(void)state;
	assert_int_equal(proxy_header_parse(span_make(wire, len), &to), PROXY_HEADER_OK);
	assert_int_equal(to.bytes, len);
	assert_int_equal(ip_compare(&from.source, &to.source), 0);
	assert_int_equal(ip_compare(&from.destination, &to.destination), 0);
	assert_int_equal(to.source_port, 12345);
	assert_int_equal(to.destination_port, 25);
	assert_span(to.alpn, "smtp");
	assert_span(to.authority, "mx.adatum.test");
	assert_span(to.unique_id, "0123456789abcdef");
	assert_span(to.netns, "blue");
	assert_true(to.tls.is_tls && to.tls.has_certificate && to.tls.is_verified);
	assert_span(to.tls.version, "TLSv1.3");
	assert_span(to.tls.cipher, "TLS_AES_256_GCM_SHA384");
	assert_span(to.tls.cn, "mx.treyresearch.test");
	assert_span(to.tls.signature, "ecdsa-with-SHA256");
	assert_span(to.tls.key, "EC256");
}

/* Whatever byte is changed on the way, the checksum tells; none is taken for another's address. */
static void test_the_checksum_tells(void **state)
{
	struct proxy_header from = header_full();
	uint8_t wire[PROXY_HEADER_BYTES_MAX];
	size_t len = proxy_header_write(&from, wire);
	unsigned told = 0;

	(void)state;
	for (size_t at = 16; at < len; at++) {
		struct proxy_header to = {0};
		enum proxy_header_status status;

		wire[at] ^= 0x10;
		status = proxy_header_parse(span_make(wire, len), &to);
		wire[at] ^= 0x10;
		told += status == PROXY_HEADER_CHECKSUM;
		/* The checksum's own type, changed, makes it a field that nobody knows. */
		if (status == PROXY_HEADER_OK && at != len - 7)
			fail_msg("byte %zu", at);
	}
	assert_true(told > 40);
}

/* The check value of CRC32C that every catalogue has, by way of a header made for it. */
static void test_the_checksum_is_castagnolis(void **state)
{
	/* Computed bit by bit from the polynomial 0x1edc6f41, apart from the code that is tested.
	 */
	static const uint8_t wire[] = V2("\x21", "\x11", "\x00\x13") ENDS4 "\x03\x00\x04"
									   "\x97\x8b\x0b\x4c";
	struct proxy_header header = {0};

	(void)state;
	assert_int_equal(
		proxy_header_parse(span_make(wire, sizeof(wire) - 1), &header), PROXY_HEADER_OK);
}

static void test_a_certificate_that_is_not_verified_names_nobody(void **state)
{
	struct proxy_header from = header_full();
	uint8_t wire[PROXY_HEADER_BYTES_MAX];
	struct proxy_header to = {0};
	size_t len;

	(void)state;
	from.tls.is_verified = false;
	len = proxy_header_write(&from, wire);
	assert_int_equal(proxy_header_parse(span_make(wire, len), &to), PROXY_HEADER_OK);
	assert_true(to.tls.has_certificate);
	assert_false(to.tls.is_verified);
	assert_int_equal(to.tls.cn.len, 0);
}

static void test_both_versions_and_families(void **state)
{
	static const char *const addresses[] = {"192.0.2.1", "2001:db8::1"};
	char want[120];
	char got[120];

	(void)state;
	for (unsigned i = 0; i < 8; i++) {
		struct proxy_header from = {.version = 1 + (i & 1),
			.has_client = true,
			.source_port = 65535,
			.destination_port = 465};
		uint8_t wire[PROXY_HEADER_BYTES_MAX];
		struct proxy_header to = {0};
		size_t len;

		assert_int_equal(ip_parse(addresses[i >> 1 & 1], &from.source), 0);
		assert_int_equal(ip_parse(addresses[i >> 2], &from.destination), 0);
		len = proxy_header_write(&from, wire);
		assert_int_equal(proxy_header_parse(span_make(wire, len), &to), PROXY_HEADER_OK);
		assert_int_equal(to.version, from.version);
		header_print(&from, want, sizeof(want));
		header_print(&to, got, sizeof(got));
		assert_string_equal(got, want);
	}
}

static void test_without_a_client(void **state)
{
	(void)state;
	for (unsigned version = 1; version <= 2; version++) {
		struct proxy_header from = {.version = version};
		uint8_t wire[PROXY_HEADER_BYTES_MAX];
		struct proxy_header to = {0};
		size_t len = proxy_header_write(&from, wire);

		assert_int_equal(proxy_header_parse(span_make(wire, len), &to), PROXY_HEADER_OK);
		assert_false(to.has_client);
		assert_int_equal(to.bytes, len);
	}
}

/* Fields that have no room are left out, and what is written is still whole. */
static void test_there_is_an_end_to_what_is_said(void **state)
{
	static uint8_t much[PROXY_HEADER_BYTES_MAX];

	(void)state;
	for (size_t bytes = 1; bytes < sizeof(much); bytes++) {
		struct proxy_header from = header_full();
		uint8_t wire[PROXY_HEADER_BYTES_MAX];
		struct proxy_header to = {0};
		size_t len;

		from.authority = span_make(much, bytes);
		len = proxy_header_write(&from, wire);
		assert_int_equal(proxy_header_parse(span_make(wire, len), &to), PROXY_HEADER_OK);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_version_1),
		cmocka_unit_test(test_version_2),
		cmocka_unit_test(test_unix_sockets),
		cmocka_unit_test(test_what_is_written_can_be_read),
		cmocka_unit_test(test_the_checksum_tells),
		cmocka_unit_test(test_the_checksum_is_castagnolis),
		cmocka_unit_test(test_a_certificate_that_is_not_verified_names_nobody),
		cmocka_unit_test(test_both_versions_and_families),
		cmocka_unit_test(test_without_a_client),
		cmocka_unit_test(test_there_is_an_end_to_what_is_said),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
