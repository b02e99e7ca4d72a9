/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_bench_sink.c: the SMTP of postern-sink, what it remembers, and what goes wrong on purpose.
 */

#include "bench/common/random.h"
#include "bench/common/server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct server_counters counters;
static struct server server;
static struct seen *seen;
static struct faults faults;

/* What dot_unstuff() gave. */
struct gathered {
	char text[512];
	size_t bytes;
};

static void gather(void *owner, const char *text, size_t bytes)
{
	struct gathered *out = owner;

	assert_true(out->bytes + bytes <= sizeof(out->text));
	memcpy(out->text + out->bytes, text, bytes);
	out->bytes += bytes;
}

/* The same by the letter of RFC 5321 4.5.2, for a whole body; returns its bytes with the end. */
static size_t reference(const char *data, size_t bytes, struct gathered *out)
{
	size_t at = 0;

	while (at < bytes) {
		if ((at == 0 || (at > 1 && data[at - 2] == '\r' && data[at - 1] == '\n')) &&
			data[at] == '.') {
			if (bytes - at >= 3 && data[at + 1] == '\r' && data[at + 2] == '\n')
				return at + 3;
			at++;
			if (at == bytes)
				break;
			/* What is behind the dot is text, whatever it is. */
		}
		gather(out, data + at++, 1);
	}
	return bytes;
}

static void test_dots(void **state)
{
	static const char letters[] = "..\r\n\r\nab";
	struct random random = {.state = 7};

	(void)state;
	for (unsigned round = 0; round < 200000; round++) {
		char data[40];
		size_t bytes = random_next(&random) % 32;
		struct gathered want = {.bytes = 0};
		struct gathered got = {.bytes = 0};
		enum dot_state now = DOT_LINE;
		size_t used = 0;
		size_t end;

		for (size_t i = 0; i < bytes; i++)
			data[i] = letters[random_next(&random) % 8];
		memcpy(data + bytes, "\r\n.\r\n", 5);
		bytes += 5;
		end = reference(data, bytes, &want);
		while (now != DOT_END && used < bytes) {
			size_t piece = 1 + random_next(&random) % (bytes - used);

			used += dot_unstuff(&now, data + used, piece, gather, &got);
		}
		assert_int_equal(now, DOT_END);
		assert_int_equal(used, end);
		assert_int_equal(got.bytes, want.bytes);
		assert_memory_equal(got.text, want.text, want.bytes);
	}
}

static void talk_begin(struct server_policy *policy)
{
	memset(&counters, 0, sizeof(counters));
	if (policy->is_verifying)
		policy->seen = seen;
	seen_reset(seen);
	server_init(&server, policy, &counters);
}

/* Says text in pieces of step bytes, and passes HOLD; what is answered must be replies. */
static void talk(const char *text, size_t step, const char *replies)
{
	size_t bytes = strlen(text);
	size_t at = 0;

	server.out_bytes = 0;
	while (at < bytes && server.state != SERVER_CLOSE && server.state != SERVER_TLS) {
		size_t piece = step < bytes - at ? step : bytes - at;

		at += server_feed(&server, text + at, piece);
		while (server.state == SERVER_HOLD)
			server_release(&server);
	}
	assert_int_equal(server.out_bytes, strlen(replies));
	assert_memory_equal(server.out, replies, server.out_bytes);
}

static void test_conversation_in_pieces(void **state)
{
	struct server_policy policy = {.is_verifying = true, .has_chunking = true};

	(void)state;
	for (size_t step = 1; step < 200; step += step < 12 ? 1 : 40) {
		talk_begin(&policy);
		server_greet(&server);
		talk("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: x\r\n\r\n..\r\n.\r\n"
		     "mail from:<a@b>\r\nrcpt to:<c@d>\r\nrcpt to:<e@f>\r\nBDAT 5\r\n.\r\n.\r"
		     "BDAT 0 LAST\r\nNOOP\r\nQUIT\r\n",
			step,
			"250 2.1.0 sender ok\r\n250 2.1.5 recipient ok\r\n354 go on\r\n"
			"250 2.0.0 discarded\r\n250 2.1.0 sender ok\r\n250 2.1.5 recipient ok\r\n"
			"250 2.1.5 recipient ok\r\n250 2.0.0 chunk\r\n250 2.0.0 discarded\r\n"
			"250 2.0.0 ok\r\n221 2.0.0 bye\r\n");
		assert_int_equal(server.state, SERVER_CLOSE);
		assert_int_equal(counters.messages, 2);
		assert_int_equal(counters.recipients, 3);
		assert_int_equal(counters.foreign, 2);
		assert_int_equal(counters.data + 10 * counters.bdat, 11);
		server_fini(&server);
		assert_int_equal(counters.incomplete, 0);
	}
}

static void test_chunk_without_recipient_is_read(void **state)
{
	struct server_policy policy = {.has_chunking = true};

	(void)state;
	talk_begin(&policy);
	talk("MAIL FROM:<a@b>\r\nBDAT 6\r\nQUIT\r\nBDAT 4 LAST\r\nabcdNOOP\r\n", 7,
		"250 2.1.0 sender ok\r\n503 5.5.1 no recipients\r\n503 5.5.1 no recipients\r\n"
		"250 2.0.0 ok\r\n");
	assert_int_equal(counters.messages, 0);
	server_fini(&server);
	assert_int_equal(counters.incomplete, 0);
}

static void test_tls_first(void **state)
{
	struct server_policy policy = {.has_starttls = true, .needs_tls = true};

	(void)state;
	talk_begin(&policy);
	talk("MAIL FROM:<a@b>\r\nSTARTTLS\r\nMAIL FROM:<a@b>\r\n", 100,
		"530 5.7.0 STARTTLS first\r\n220 2.0.0 go on\r\n");
	assert_int_equal(server.state, SERVER_TLS);
	server_secured(&server);
	talk("MAIL FROM:<a@b>\r\nSTARTTLS\r\n", 100,
		"250 2.1.0 sender ok\r\n502 5.5.1 not implemented\r\n");
	server_fini(&server);
}

static void test_faults_and_delays_of_each_step(void **state)
{
	static const char text[] =
		"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx: y\r\n\r\n.\r\nNOOP\r\n";
	static const struct {
		const char *fault;
		const char *replies;
	} cases[] = {
		{"mail=5xx", "554 5.3.0 injected by the sink\r\n503 5.5.1 no MAIL\r\n"
			     "503 5.5.1 no recipients, or BDAT before\r\n"
			     "500 5.5.2 unknown command\r\n500 5.5.2 unknown command\r\n"
			     "500 5.5.2 unknown command\r\n250 2.0.0 ok\r\n"},
		{"data=452", "250 2.1.0 sender ok\r\n250 2.1.5 recipient ok\r\n"
			     "452 4.3.0 injected by the sink\r\n500 5.5.2 unknown command\r\n"
			     "500 5.5.2 unknown command\r\n500 5.5.2 unknown command\r\n"
			     "250 2.0.0 ok\r\n"},
		{"body=4xx", "250 2.1.0 sender ok\r\n250 2.1.5 recipient ok\r\n354 go on\r\n"
			     "451 4.3.0 injected by the sink\r\n250 2.0.0 ok\r\n"},
		{"body=close", "250 2.1.0 sender ok\r\n250 2.1.5 recipient ok\r\n354 go on\r\n"},
		{"rcpt=421", "250 2.1.0 sender ok\r\n421 4.3.0 injected by the sink\r\n"},
	};
	struct server_policy policy = {.faults = &faults};

	(void)state;
	for (unsigned i = 0; i < 2 * sizeof(cases) / sizeof(cases[0]); i++) {
		memset(&faults, 0, sizeof(faults));
		faults.max = UINT64_MAX;
		assert_true(faults_read(&faults, cases[i / 2].fault, 1));
		if (i % 2)
			assert_true(faults_read_delay(&faults, "mail=5", 1) &&
				    faults_read_delay(&faults, "body=5:0.5", 1));
		talk_begin(&policy);
		talk(text, 1 + i, cases[i / 2].replies);
		assert_int_equal(counters.messages, 0);
		assert_int_equal(counters.delays > 0, i % 2);
		server_fini(&server);
	}
}

static void test_rates_are_repeated(void **state)
{
	unsigned hits[2] = {0};

	(void)state;
	for (unsigned round = 0; round < 2; round++) {
		memset(&faults, 0, sizeof(faults));
		faults.max = 1000;
		assert_true(faults_read(&faults, "body=4xx:0.25", 9));
		assert_true(faults_read(&faults, "body=554:1", 9));
		for (unsigned i = 0; i < 2000; i++) {
			unsigned what = faults_draw(&faults, FAULTS_BODY);

			assert_true(i < 1000 ? what == 451 || what == 554 : what == FAULTS_NONE);
			hits[round] += what == 451;
		}
		assert_int_equal(faults_draw(&faults, FAULTS_RCPT), FAULTS_NONE);
	}
	assert_int_equal(hits[0], hits[1]);
	assert_in_range(hits[0], 200, 300);
}

static void test_words_of_faults(void **state)
{
	static const char *const wrong[] = {"", "body", "body=", "body=200", "body=600",
		"body=4xx:", "body=4xx:2", "body=4xx:0.5x", "bodies=4xx", "body=closed", "body=-1"};

	(void)state;
	memset(&faults, 0, sizeof(faults));
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_false(faults_read(&faults, wrong[i], 1));
	assert_false(faults_read_delay(&faults, "body=close", 1));
	for (unsigned i = 0; i < FAULTS_MAX; i++)
		assert_true(faults_read(&faults, "accept=close:0.5", 1));
	assert_false(faults_read(&faults, "accept=close", 1));
}

static void test_seen_and_promised(void **state)
{
	struct seen_totals totals;

	(void)state;
	seen_reset(seen);
	for (uint64_t run = 1; run < 4; run++)
		for (uint64_t id = 0; id < 100000; id += 7)
			assert_true(seen_add(seen, run, id * run));
	assert_false(seen_add(seen, 2, 14));
	assert_true(seen_add(seen, 4, 14));
	for (uint64_t id = 0; id < 100000; id += 7)
		seen_promise(seen, 1, id);
	seen_promise(seen, 1, 999999999999);
	seen_promise(seen, UINT64_MAX, UINT64_MAX);
	seen_total(seen, &totals);
	assert_int_equal(totals.lost, 2);
	assert_int_equal(totals.unacknowledged, 2 * 14286 + 1);
	assert_int_equal(totals.unwatched, 0);
	assert_true(seen_add(seen, 1, 999999999999));
	seen_total(seen, &totals);
	assert_int_equal(totals.lost, 1);
	seen_reset(seen);
	seen_total(seen, &totals);
	assert_int_equal(totals.lost + totals.unacknowledged, 0);
}

/* Memory is bounded, and what did not fit is said. */
static void test_too_many_numbers(void **state)
{
	struct seen_totals totals;

	(void)state;
	seen_reset(seen);
	for (uint64_t i = 0; i < SEEN_PAGES_MAX; i++)
		assert_true(seen_add(seen, i % 3, i * SEEN_PAGE_IDS));
	assert_true(seen_add(seen, 5, 0) && seen_add(seen, 5, 0));
	assert_false(seen_add(seen, 2, 2 * SEEN_PAGE_IDS));
	seen_total(seen, &totals);
	assert_int_equal(totals.unwatched, 2);
	assert_int_equal(totals.unacknowledged, SEEN_PAGES_MAX);
	seen_reset(seen);
}

static int setup(void **state)
{
	(void)state;
	seen = seen_create();
	return seen == NULL;
}

static int teardown(void **state)
{
	(void)state;
	seen_destroy(&seen);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dots),
		cmocka_unit_test(test_conversation_in_pieces),
		cmocka_unit_test(test_chunk_without_recipient_is_read),
		cmocka_unit_test(test_tls_first),
		cmocka_unit_test(test_faults_and_delays_of_each_step),
		cmocka_unit_test(test_rates_are_repeated),
		cmocka_unit_test(test_words_of_faults),
		cmocka_unit_test(test_seen_and_promised),
		cmocka_unit_test(test_too_many_numbers),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
