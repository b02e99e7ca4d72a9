/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_bench_message.c: what load sends is a message, and what altered it is found.
 */

#include "bench/common/crc64.h"
#include "bench/common/message.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TEST_RUN 0x0123456789abcdefULL
#define TEST_ID 987654321012ULL

static const size_t sizes[] = {512, 513, 514, 515, 589, 590, 591, 4096, 65536, 1048576};

#define SIZE_COUNT (sizeof(sizes) / sizeof(sizes[0]))

/* The whole message in memory of its own, fetched in pieces of step bytes. */
static char *message_whole(const struct message *message, size_t step)
{
	char *whole = malloc(message->bytes + 1);
	size_t at = 0;
	size_t got;

	assert_non_null(whole);
	while ((got = message_copy(message, at, whole + at,
			step < message->bytes - at ? step : message->bytes - at)) > 0)
		at += got;
	assert_int_equal(at, message->bytes);
	whole[at] = '\0';
	return whole;
}

static unsigned int next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (unsigned int)(*state >> 33);
}

/* Feeds it in pieces of up to most bytes. */
static enum check_result feed(struct check *check, const char *data, size_t bytes, size_t most)
{
	uint64_t state = most;

	check_init(check);
	while (bytes > 0) {
		size_t part = 1 + next_random(&state) % most;

		part = part < bytes ? part : bytes;
		check_feed(check, data, part);
		data += part;
		bytes -= part;
	}
	return check_finish(check);
}

static void test_crc64(void **state)
{
	uint64_t crc;

	(void)state;
	/* CRC-64/XZ of the usual check string: the same polynomial, reflected, all ones around. */
	assert_true(crc64(0, "123456789", 9) == 0x995dc9bbdf1939faULL);
	crc = crc64(0, "1234", 4);
	assert_true(crc64(crc, "56789", 5) == 0x995dc9bbdf1939faULL);
	assert_true(crc64(crc, "", 0) == crc);
}

/* Each size has just that size, and every line has its end and a length that SMTP allows. */
static void test_sizes_and_lines(void **state)
{
	(void)state;
	for (size_t i = 0; i < SIZE_COUNT; i++) {
		struct filler filler;
		struct message message;
		char *whole;
		size_t dots = 0;

		assert_int_equal(filler_create(&filler, sizes[i], i), 0);
		message_init(&message, &filler, TEST_RUN, TEST_ID, false);
		assert_int_equal(message.bytes, sizes[i]);
		whole = message_whole(&message, 1000);
		for (char *line = whole; *line != '\0';) {
			char *end = strstr(line, "\r\n");

			assert_non_null(end);
			assert_true(end - line <= 998);
			assert_null(memchr(line, '\n', (size_t)(end - line)));
			dots += *line == '.';
			line = end + 2;
		}
		if (sizes[i] >= 4096)
			assert_true(dots > 0);
		free(whole);
		message_init(&message, &filler, TEST_RUN, TEST_ID, true);
		assert_int_equal(message.bytes, sizes[i] + dots);
		filler_destroy(&filler);
	}
	assert_true(filler_create(&(struct filler){0}, MESSAGE_BYTES_MIN - 1, 1) < 0);
}

static void test_header(void **state)
{
	static const char *const fields[] = {"\r\nFrom: <", "\r\nTo: <",
		"\r\nMIME-Version: 1.0\r\n",
		"\r\nMessage-ID: <0123456789abcdef.987654321012@client.test>\r\n",
		"\r\nSubject: load 987654321012\r\n", "\r\nContent-Type: text/plain",
		"\r\nX-Load-Run: 0123456789abcdef\r\n", "\r\nX-Load-Id: 987654321012\r\n",
		"\r\nX-Load-Sum: "};
	struct filler filler;
	struct message message;
	char *whole;
	char *end;
	char day[4];
	char month[4];
	int numbers[5];

	(void)state;
	assert_int_equal(filler_create(&filler, 4096, 1), 0);
	message_init(&message, &filler, TEST_RUN, TEST_ID, false);
	whole = message_whole(&message, 4096);
	end = strstr(whole, "\r\n\r\n");
	assert_non_null(end);
	*end = '\0';
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		assert_non_null(strstr(whole, fields[i]));
	assert_int_equal(
		sscanf(whole, "Date: %3[A-Za-z], %d %3[A-Za-z] %d %d:%d:%d +0000\r", day,
			&numbers[0], month, &numbers[1], &numbers[2], &numbers[3], &numbers[4]),
		7);
	assert_true(numbers[0] >= 1 && numbers[0] <= 31 && numbers[1] >= 2026);
	free(whole);
	filler_destroy(&filler);
}

static void test_check_in_pieces(void **state)
{
	static const size_t mosts[] = {1, 2, 7, 80, 1000, 70000};

	(void)state;
	for (size_t i = 0; i < SIZE_COUNT; i++) {
		struct filler filler;
		struct message message;
		char *whole;

		assert_int_equal(filler_create(&filler, sizes[i], i), 0);
		message_init(&message, &filler, TEST_RUN + i, i, false);
		whole = message_whole(&message, 1 + i * 37);
		for (size_t j = 0; j < sizeof(mosts) / sizeof(mosts[0]); j++) {
			struct check check;

			assert_int_equal(feed(&check, whole, message.bytes, mosts[j]), CHECK_GOOD);
			assert_true(check.run == TEST_RUN + i);
			assert_true(check.id == i);
		}
		free(whole);
		filler_destroy(&filler);
	}
}

/* What a relay puts in front, and a header that is folded or long, does not matter. */
static void test_check_trace(void **state)
{
	char trace[3000] = "Received: from a\r\n\tby b\r\nX-Load-Ido: 5\r\nX-Long: ";
	struct filler filler;
	struct message message;
	struct check check;
	char *whole;
	size_t bytes = strlen(trace);

	(void)state;
	memset(trace + bytes, 'x', sizeof(trace) - bytes - 2);
	memcpy(trace + sizeof(trace) - 2, "\r\n", 2);
	assert_int_equal(filler_create(&filler, 4096, 1), 0);
	message_init(&message, &filler, 1, 2, false);
	whole = message_whole(&message, 4096);
	check_init(&check);
	check_feed(&check, trace, sizeof(trace));
	check_feed(&check, whole, message.bytes);
	assert_int_equal(check_finish(&check), CHECK_GOOD);
	assert_true(check.run == 1 && check.id == 2);
	free(whole);
	filler_destroy(&filler);
}

/* Any byte of the body that changes, is lost or comes twice is found. */
static void test_check_altered(void **state)
{
	struct filler filler;
	struct message message;
	struct check check;
	char *whole;
	char *more;

	(void)state;
	assert_int_equal(filler_create(&filler, 600, 1), 0);
	message_init(&message, &filler, TEST_RUN, TEST_ID, false);
	whole = message_whole(&message, 4096);
	more = malloc(message.bytes + 1);
	assert_non_null(more);
	for (size_t at = message.header_bytes; at < message.bytes; at++) {
		whole[at] ^= 1;
		assert_int_equal(feed(&check, whole, message.bytes, 50), CHECK_CORRUPT);
		whole[at] ^= 1;
		memcpy(more, whole, at);
		memcpy(more + at, whole + at + 1, message.bytes - at - 1);
		assert_int_equal(feed(&check, more, message.bytes - 1, 50), CHECK_CORRUPT);
		memcpy(more + at, whole + at, 1);
		memcpy(more + at + 1, whole + at, message.bytes - at);
		assert_int_equal(feed(&check, more, message.bytes + 1, 50), CHECK_CORRUPT);
	}
	assert_int_equal(feed(&check, whole, message.bytes, 50), CHECK_GOOD);
	free(more);
	free(whole);
	filler_destroy(&filler);
}

static void test_check_foreign(void **state)
{
	static const char *const fields[] = {"X-Load-Run:", "X-Load-Id:", "X-Load-Sum:"};
	struct filler filler;
	struct message message;
	struct check check;

	(void)state;
	assert_int_equal(filler_create(&filler, 600, 1), 0);
	message_init(&message, &filler, TEST_RUN, TEST_ID, false);
	for (size_t i = 0; i < 3; i++) {
		char *whole = message_whole(&message, 4096);

		strstr(whole, fields[i])[0] = 'Y';
		assert_int_equal(feed(&check, whole, message.bytes, 50), CHECK_FOREIGN);
		free(whole);
	}
	assert_int_equal(feed(&check, "\r\nX-Load-Id: 1\r\n", 16, 50), CHECK_FOREIGN);
	filler_destroy(&filler);
}

/* In the form for DATA each line that begins with a dot has one more, and no other has. */
static void test_dots(void **state)
{
	struct filler filler;
	struct message plain;
	struct message dotted;
	char *left;
	char *right;
	size_t j = 0;

	(void)state;
	assert_int_equal(filler_create(&filler, 65536, 3), 0);
	message_init(&plain, &filler, TEST_RUN, TEST_ID, false);
	message_init(&dotted, &filler, TEST_RUN, TEST_ID, true);
	left = message_whole(&plain, 1500);
	right = message_whole(&dotted, 777);
	for (size_t i = 0; i < plain.bytes; i++) {
		if (left[i] == '.' && i > 0 && left[i - 1] == '\n')
			assert_int_equal(right[j++], '.');
		assert_int_equal(right[j++], left[i]);
	}
	assert_int_equal(j, dotted.bytes);
	free(left);
	free(right);
	filler_destroy(&filler);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crc64),
		cmocka_unit_test(test_sizes_and_lines),
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_check_in_pieces),
		cmocka_unit_test(test_check_trace),
		cmocka_unit_test(test_check_altered),
		cmocka_unit_test(test_check_foreign),
		cmocka_unit_test(test_dots),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
