/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/log.h"
#include "relay/base/stats.h"

#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

static struct log_buffer buffer;
static struct stats counters;

static int log_setup(void **state)
{
	(void)state;
	buffer.len = 0;
	counters = (struct stats){0};
	stats_mine = &counters;
	log_level_max = LOG_LEVEL_INFO;
	log_attach(&buffer);
	return 0;
}

static int log_teardown(void **state)
{
	(void)state;
	log_attach(NULL);
	return 0;
}

/* The only line of the buffer, without its end; the time is checked for its form and cut off. */
static const char *log_line(void)
{
	static char line[LOG_LINE_BYTES_MAX];
	static const char stamp[] = "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]"
				    "{3}Z (session=[a-z0-9]+ )?event=";
	regex_t pattern;

	assert_true(buffer.len > 25 && buffer.len <= sizeof(line));
	memcpy(line, buffer.bytes, buffer.len - 1);
	line[buffer.len - 1] = '\0';
	assert_int_equal(buffer.bytes[buffer.len - 1], '\n');
	assert_null(strchr(line, '\n'));
	assert_int_equal(regcomp(&pattern, stamp, REG_EXTENDED | REG_NOSUB), 0);
	assert_int_equal(regexec(&pattern, line, 0, NULL, 0), 0);
	regfree(&pattern);
	buffer.len = 0;
	return line + 25;
}

static void test_log_form(void **state)
{
	(void)state;
	log_event(LOG_LEVEL_INFO, "0a1b", "tls", "version=%s n=%d", "TLSv1.3", 2);
	assert_string_equal(log_line(), "session=0a1b event=tls version=TLSv1.3 n=2");
	log_event(LOG_LEVEL_INFO, NULL, "ready", "%s", "");
	assert_string_equal(log_line(), "event=ready ");
	log_event(LOG_LEVEL_WARNING, NULL, "nexthop-failed", "why=%s", "x");
	assert_string_equal(log_line(), "event=nexthop-failed level=warning why=x");
	log_event(LOG_LEVEL_ERROR, "s", "lost", "why=%s", "x");
	assert_string_equal(log_line(), "session=s event=lost level=error why=x");
}

static void test_log_level(void **state)
{
	(void)state;
	log_event(LOG_LEVEL_DEBUG, NULL, "state", "a=%d", 1);
	assert_int_equal(buffer.len, 0);
	log_level_max = LOG_LEVEL_DEBUG;
	log_event(LOG_LEVEL_DEBUG, NULL, "state", "a=%d", 1);
	assert_string_equal(log_line(), "event=state level=debug a=1");
	log_level_max = LOG_LEVEL_ERROR;
	log_event(LOG_LEVEL_WARNING, NULL, "state", "a=%d", 1);
	assert_int_equal(buffer.len, 0);
}

/* However long the pairs, it is one line of at most LOG_LINE_BYTES_MAX. */
static void test_log_long(void **state)
{
	static char text[2 * LOG_LINE_BYTES_MAX];

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	for (size_t len = LOG_LINE_BYTES_MAX - 100; len < LOG_LINE_BYTES_MAX + 100; len++) {
		log_event(LOG_LEVEL_INFO, "s", "message", "to=%.*s", (int)len, text);
		assert_true(buffer.len <= LOG_LINE_BYTES_MAX);
		(void)log_line();
	}
}

/* A full buffer loses whole lines, and counts them. */
static void test_log_full(void **state)
{
	unsigned written = 0;
	size_t each;

	(void)state;
	log_event(LOG_LEVEL_INFO, NULL, "tick", "n=%04u", 0U);
	each = buffer.len;
	buffer.len = 0;
	for (unsigned i = 0; i < LOG_BUFFER_BYTES / each + 10; i++) {
		size_t before = buffer.len;

		log_event(LOG_LEVEL_INFO, NULL, "tick", "n=%04u", i % 10000);
		assert_true(buffer.len == before || buffer.len == before + each);
		written += buffer.len > before;
	}
	assert_int_equal(written, LOG_BUFFER_BYTES / each);
	assert_int_equal(counters.log_dropped, LOG_BUFFER_BYTES / each + 10 - written);
	assert_int_equal(buffer.bytes[buffer.len - 1], '\n');
	buffer.len = 0;
	log_event(LOG_LEVEL_INFO, NULL, "tick", "n=%d", 1);
	assert_string_equal(log_line(), "event=tick n=1");
}

/* A thread without a buffer writes to standard error at once. */
static void test_log_straight(void **state)
{
	char text[256];
	int ends[2];
	int keep = dup(STDERR_FILENO);
	ssize_t len;

	(void)state;
	assert_int_equal(pipe(ends), 0);
	assert_true(keep >= 0 && dup2(ends[1], STDERR_FILENO) >= 0);
	log_attach(NULL);
	log_event(LOG_LEVEL_INFO, NULL, "start", "version=%s", "1");
	(void)dup2(keep, STDERR_FILENO);
	(void)close(keep);
	(void)close(ends[1]);
	len = read(ends[0], text, sizeof(text) - 1);
	(void)close(ends[0]);
	assert_true(len > 0);
	text[len] = '\0';
	assert_non_null(strstr(text, "Z event=start version=1\n"));
}

static void test_log_quote(void **state)
{
	static const struct {
		const char *in;
		size_t len;
		const char *want;
	} cases[] = {
		{"plain", 5, "plain"}, {"CN:a.b/c@d<e>", 13, "CN:a.b/c@d<e>"}, {"", 0, "\"\""},
		{"a b", 3, "\"a b\""}, {"a=b", 3, "\"a=b\""}, {"a\"b", 3, "\"a\\x22b\""},
		{"a\\b", 3, "\"a\\x5cb\""}, {"a\nevent=tls", 11, "\"a\\x0aevent=tls\""},
		{"a\rb", 3, "\"a\\x0db\""}, {"a\0b", 3, "\"a\\x00b\""},
		{"\x1b[2J", 4, "\"\\x1b[2J\""}, {"\x7f\xff\x80", 3, "\"\\x7f\\xff\\x80\""},
		{"\xc3\xa9", 2, "\"\\xc3\\xa9\""},
		{"\xe2\x80\xae", 3, "\"\\xe2\\x80\\xae\""}, /* right to left */
	};
	char out[256];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct span in = span_make(cases[i].in, cases[i].len);

		assert_ptr_equal(log_quote(in, out, sizeof(out)), out);
		assert_string_equal(out, cases[i].want);
	}
	assert_string_equal(log_quote_text("a b", out, sizeof(out)), "\"a b\"");
	assert_string_equal(log_quote_text(NULL, out, sizeof(out)), "-");
}

/* Any byte, any length, any room: no control character, closed quotes, nothing beyond the room. */
static void test_log_quote_room(void **state)
{
	uint8_t in[40];
	char out[200];

	(void)state;
	for (unsigned byte = 0; byte < 256; byte++) {
		memset(in, (int)byte, sizeof(in));
		for (size_t room = 8; room < sizeof(out) - 1; room++) {
			size_t len;

			memset(out, 0x7e, sizeof(out));
			(void)log_quote(span_make(in, sizeof(in)), out, room);
			assert_int_equal(out[room], 0x7e);
			len = strnlen(out, room);
			assert_true(len < room);
			for (size_t i = 0; i < len; i++)
				assert_true(out[i] >= ' ' && out[i] < 0x7f);
			assert_int_equal(out[0] == '"', out[len - 1] == '"');
		}
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_log_form, log_setup, log_teardown),
		cmocka_unit_test_setup_teardown(test_log_level, log_setup, log_teardown),
		cmocka_unit_test_setup_teardown(test_log_long, log_setup, log_teardown),
		cmocka_unit_test_setup_teardown(test_log_full, log_setup, log_teardown),
		cmocka_unit_test_setup_teardown(test_log_straight, log_setup, log_teardown),
		cmocka_unit_test_setup_teardown(test_log_quote, log_setup, log_teardown),
		cmocka_unit_test_setup_teardown(test_log_quote_room, log_setup, log_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
