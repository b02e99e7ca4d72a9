/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/quota.h"

#include "relay/base/stats.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

/* A minute of the monotonic clock begins. */
#define MINUTE_MS ((uint64_t)60000)

static struct ip v4(uint8_t last)
{
	return (struct ip){.bytes = {192, 0, 2, last}};
}

static struct ip v6(uint8_t network, uint8_t host)
{
	return (struct ip){.is_v6 = true,
		.bytes = {0x20, 0x01, 0x0d, 0xb8, [7] = network, [8] = host, [15] = 1}};
}

static struct receive_connector connector_open(const char *name)
{
	return (struct receive_connector){.name = name,
		.max_inbound_connection = POLICY_UNLIMITED,
		.max_inbound_connection_per_source = POLICY_UNLIMITED,
		.max_inbound_connection_percentage_per_source = 100,
		.message_rate_limit = POLICY_UNLIMITED,
		.message_rate_source = RATE_SOURCE_IP_ADDRESS};
}

static struct quota *quota_of(unsigned sources)
{
	struct quota *quota;

	assert_int_equal(quota_create(sources, &quota), 0);
	return quota;
}

static uint64_t untracked(void)
{
	return atomic_load_explicit(&stats_mine->quota_untracked, memory_order_relaxed);
}

/* MaxInboundConnection. */
static void test_quota_full(void **state)
{
	struct receive_connector connector = connector_open("a");
	struct receive_connector other = connector_open("b");
	struct quota_place places[3];
	struct quota *quota = quota_of(16);
	struct ip peer = v4(1);

	(void)state;
	connector.max_inbound_connection = 2;
	assert_int_equal(quota_enter(quota, &connector, &peer, false, &places[0]), QUOTA_OPEN);
	peer = v4(2);
	assert_int_equal(quota_enter(quota, &connector, &peer, false, &places[1]), QUOTA_OPEN);
	assert_int_equal(quota_enter(quota, &connector, &peer, false, &places[2]), QUOTA_FULL);
	assert_int_equal(quota_enter(quota, &connector, NULL, false, &places[2]), QUOTA_FULL);
	assert_int_equal(quota_count(quota, &connector), 2);
	assert_int_equal(quota_count(quota, &other), 0);
	/* Another connector has its own count, and a refused place is none. */
	quota_leave(&places[2]);
	assert_int_equal(quota_enter(quota, &other, &peer, false, &places[2]), QUOTA_OPEN);
	quota_leave(&places[0]);
	quota_leave(&places[0]);
	assert_int_equal(quota_count(quota, &connector), 1);
	assert_int_equal(quota_enter(quota, &connector, &peer, false, &places[0]), QUOTA_OPEN);
	for (unsigned i = 0; i < COUNT_OF(places); i++)
		quota_leave(&places[i]);
	assert_int_equal(quota_count(quota, &connector), 0);
	quota_destroy(&quota);
	assert_null(quota);
	quota_destroy(&quota);
}

/* MaxInboundConnectionPerSource; what one source is. */
static void test_quota_per_source(void **state)
{
	static const struct {
		struct ip first, second;
		bool is_one;
	} cases[] = {
		{{.bytes = {192, 0, 2, 1}}, {.bytes = {192, 0, 2, 1}}, true},
		{{.bytes = {192, 0, 2, 1}}, {.bytes = {192, 0, 2, 2}}, false},
		{{.is_v6 = true, .bytes = {0x20, 1, [7] = 1, [15] = 1}},
			{.is_v6 = true, .bytes = {0x20, 1, [7] = 1, [8] = 7, [15] = 2}}, true},
		{{.is_v6 = true, .bytes = {0x20, 1, [7] = 1}},
			{.is_v6 = true, .bytes = {0x20, 1, [7] = 2}}, false},
		{{.bytes = {0x20, 1}}, {.is_v6 = true, .bytes = {0x20, 1}}, false},
	};
	struct receive_connector connector = connector_open("a");

	(void)state;
	connector.max_inbound_connection_per_source = 1;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct quota *quota = quota_of(16);
		struct quota_place first, second;

		assert_int_equal(
			quota_enter(quota, &connector, &cases[i].first, false, &first), QUOTA_OPEN);
		assert_int_equal(quota_enter(quota, &connector, &cases[i].second, false, &second),
			cases[i].is_one ? QUOTA_SOURCE : QUOTA_OPEN);
		assert_int_equal(quota_count(quota, &connector), cases[i].is_one ? 1 : 2);
		quota_leave(&first);
		quota_leave(&second);
		assert_int_equal(quota_enter(quota, &connector, &cases[i].second, false, &second),
			QUOTA_OPEN);
		quota_leave(&second);
		quota_destroy(&quota);
	}
}

/* MaxInboundConnectionPercentagePerSource: of what is still free, at least one. */
static void test_quota_percentage(void **state)
{
	struct receive_connector connector = connector_open("a");
	struct quota_place places[32];
	struct quota *quota = quota_of(64);
	struct ip greedy = v4(1);
	unsigned open = 0;

	(void)state;
	connector.max_inbound_connection = 20;
	connector.max_inbound_connection_percentage_per_source = 25;
	/* 0 of 20*25% = 5; 1 of 19*25% = 4; 2 of 4; 3 of 4; 4 of 16*25% = 4: no more. */
	while (quota_enter(quota, &connector, &greedy, false, &places[open]) == QUOTA_OPEN)
		open++;
	assert_int_equal(open, 4);
	for (uint8_t i = 0; i < 14; i++) {
		struct ip other = v4((uint8_t)(100 + i));

		assert_int_equal(
			quota_enter(quota, &connector, &other, false, &places[open++]), QUOTA_OPEN);
	}
	/* Two are free, a quarter of which is none: a new source gets one, nobody two. */
	greedy = v4(50);
	assert_int_equal(
		quota_enter(quota, &connector, &greedy, false, &places[open++]), QUOTA_OPEN);
	assert_int_equal(
		quota_enter(quota, &connector, &greedy, false, &places[open]), QUOTA_SOURCE);
	while (open > 0)
		quota_leave(&places[--open]);
	/* All of it: no share to keep to. */
	connector.max_inbound_connection_percentage_per_source = 100;
	while (quota_enter(quota, &connector, &greedy, false, &places[open]) == QUOTA_OPEN)
		open++;
	assert_int_equal(open, 20);
	while (open > 0)
		quota_leave(&places[--open]);
	/* The edge's defaults: 20 each, and 2 % of 5000 is more. */
	connector.max_inbound_connection = 5000;
	connector.max_inbound_connection_percentage_per_source = 2;
	connector.max_inbound_connection_per_source = 20;
	while (quota_enter(quota, &connector, &greedy, false, &places[open]) == QUOTA_OPEN)
		open++;
	assert_int_equal(open, 20);
	while (open > 0)
		quota_leave(&places[--open]);
	quota_destroy(&quota);
}

static unsigned messages(
	struct quota_place *place, const struct receive_connector *connector, uint64_t now_ms)
{
	unsigned count = 0;

	while (count < 1000 && quota_message(place, connector, now_ms) == QUOTA_OPEN)
		count++;
	return count;
}

/* MessageRateLimit: of one source, whichever session says it. */
static void test_quota_rate(void **state)
{
	struct receive_connector connector = connector_open("a");
	struct quota *quota = quota_of(16);
	struct quota_place first, second, other;
	struct ip peer = v4(1);
	uint64_t start = 100 * MINUTE_MS;

	(void)state;
	connector.message_rate_limit = 60;
	assert_int_equal(quota_enter(quota, &connector, &peer, false, &first), QUOTA_OPEN);
	assert_int_equal(quota_enter(quota, &connector, &peer, false, &second), QUOTA_OPEN);
	peer = v4(2);
	assert_int_equal(quota_enter(quota, &connector, &peer, false, &other), QUOTA_OPEN);
	assert_int_equal(quota_message(&second, &connector, start), QUOTA_OPEN);
	assert_int_equal(messages(&first, &connector, start), 59);
	assert_int_equal(quota_message(&second, &connector, start + 59999), QUOTA_RATE);
	assert_int_equal(messages(&other, &connector, start), 60);
	/* A quarter of the next minute: a quarter of the first has gone by. */
	assert_int_equal(messages(&first, &connector, start + MINUTE_MS), 0);
	assert_int_equal(messages(&first, &connector, start + MINUTE_MS * 5 / 4), 15);
	assert_int_equal(messages(&first, &connector, start + MINUTE_MS * 5 / 2), 53);
	assert_int_equal(messages(&first, &connector, start + 10 * MINUTE_MS), 60);
	/* A clock that stands still or goes back does no harm. */
	assert_int_equal(messages(&first, &connector, start), 0);
	/* Leaving and coming back does not help. */
	quota_leave(&other);
	assert_int_equal(quota_enter(quota, &connector, &peer, false, &other), QUOTA_OPEN);
	assert_int_equal(messages(&other, &connector, start), 0);
	connector.message_rate_source = RATE_SOURCE_NONE;
	assert_int_equal(messages(&other, &connector, start), 1000);
	connector.message_rate_source = RATE_SOURCE_IP_ADDRESS;
	connector.message_rate_limit = POLICY_UNLIMITED;
	assert_int_equal(messages(&other, &connector, start), 1000);
	quota_leave(&first);
	quota_leave(&second);
	quota_leave(&other);
	quota_destroy(&quota);
}

/* A full table admits without counting; who is gone and said nothing lately makes room. */
static void test_quota_table(void **state)
{
	struct receive_connector connector = connector_open("a");
	struct quota *quota = quota_of(2);
	struct quota_place places[3];
	struct ip peers[3] = {v4(1), v6(1, 0), v4(3)};
	uint64_t before = untracked();
	struct timespec now;
	uint64_t now_ms;

	(void)state;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	now_ms = (uint64_t)now.tv_sec * 1000 + 1000 * MINUTE_MS;
	connector.max_inbound_connection_per_source = 1;
	connector.message_rate_limit = 5;
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(
			quota_enter(quota, &connector, &peers[i], false, &places[i]), QUOTA_OPEN);
	assert_int_equal(untracked(), before + 1);
	assert_int_equal(quota_count(quota, &connector), 3);
	assert_int_equal(messages(&places[2], &connector, now_ms), 1000);
	quota_leave(&places[2]);
	/* It goes without having said anything. */
	quota_leave(&places[0]);
	assert_int_equal(quota_enter(quota, &connector, &peers[2], false, &places[2]), QUOTA_OPEN);
	assert_int_equal(untracked(), before + 1);
	assert_int_equal(messages(&places[2], &connector, now_ms), 5);
	/* What was said long ago is forgotten. */
	assert_int_equal(quota_message(&places[1], &connector, 0), QUOTA_OPEN);
	quota_leave(&places[1]);
	assert_int_equal(quota_enter(quota, &connector, &peers[0], false, &places[0]), QUOTA_OPEN);
	assert_int_equal(untracked(), before + 1);
	assert_int_equal(messages(&places[0], &connector, now_ms), 5);
	/* What was said just now is not, though who said it is gone. */
	quota_leave(&places[2]);
	assert_int_equal(quota_enter(quota, &connector, &peers[1], false, &places[1]), QUOTA_OPEN);
	assert_int_equal(untracked(), before + 2);
	assert_int_equal(quota_enter(quota, &connector, &peers[2], false, &places[2]), QUOTA_OPEN);
	assert_int_equal(messages(&places[2], &connector, now_ms), 0);
	for (unsigned i = 0; i < 3; i++)
		quota_leave(&places[i]);
	quota_destroy(&quota);
}

/* Names come and go with reloads: what is open stays counted, and there is always room. */
static void test_quota_names(void **state)
{
	struct receive_connector kept = connector_open("kept");
	struct quota *quota = quota_of(4096);
	struct ip peer = v4(1);
	struct quota_place place, places[300];
	char name[32];

	(void)state;
	assert_int_equal(quota_enter(quota, &kept, &peer, false, &place), QUOTA_OPEN);
	for (unsigned i = 0; i < 1000; i++) {
		struct receive_connector connector = connector_open(name);

		(void)snprintf(name, sizeof(name), "connector %u", i);
		connector.max_inbound_connection = 1;
		assert_int_equal(
			quota_enter(quota, &connector, &peer, false, &places[0]), QUOTA_OPEN);
		assert_int_equal(
			quota_enter(quota, &connector, &peer, false, &places[1]), QUOTA_FULL);
		quota_leave(&places[0]);
	}
	assert_int_equal(quota_count(quota, &kept), 1);
	/* More at a time than there are places: admitted, not counted. */
	for (unsigned i = 0; i < COUNT_OF(places); i++) {
		struct receive_connector connector = connector_open(name);

		(void)snprintf(name, sizeof(name), "busy %u", i);
		assert_int_equal(
			quota_enter(quota, &connector, &peer, false, &places[i]), QUOTA_OPEN);
	}
	for (unsigned i = 0; i < COUNT_OF(places); i++)
		quota_leave(&places[i]);
	quota_leave(&place);
	assert_int_equal(quota_count(quota, &kept), 0);
	quota_destroy(&quota);
}

#define THREADS 4
#define ROUNDS 3000

struct visitor {
	pthread_t thread;
	struct quota *quota;
	unsigned index;
	_Atomic uint64_t *inside;
	unsigned too_many;
	struct stats stats;
};

static void *visitor_run(void *arg)
{
	struct visitor *visitor = arg;
	struct receive_connector connector = connector_open("a");

	stats_mine = &visitor->stats;
	connector.max_inbound_connection = 3;
	connector.max_inbound_connection_per_source = 2;
	connector.message_rate_limit = 100;
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct ip peer = v4((uint8_t)((visitor->index + i) % 7));
		struct quota_place place;

		if (quota_enter(visitor->quota, &connector, &peer, false, &place) != QUOTA_OPEN)
			continue;
		if (atomic_fetch_add(visitor->inside, 1) >= 3)
			visitor->too_many++;
		(void)(quota_message(&place, &connector, (uint64_t)i * 100) == QUOTA_RATE);
		atomic_fetch_sub(visitor->inside, 1);
		quota_leave(&place);
	}
	return NULL;
}

static void test_quota_threads(void **state)
{
	struct receive_connector connector = connector_open("a");
	struct visitor visitors[THREADS];
	_Atomic uint64_t inside = 0;
	struct quota *quota = quota_of(4);

	(void)state;
	for (unsigned i = 0; i < THREADS; i++) {
		visitors[i] = (struct visitor){.quota = quota, .index = i, .inside = &inside};
		assert_int_equal(
			pthread_create(&visitors[i].thread, NULL, visitor_run, &visitors[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_join(visitors[i].thread, NULL), 0);
		assert_int_equal(visitors[i].too_many, 0);
	}
	assert_int_equal(quota_count(quota, &connector), 0);
	quota_destroy(&quota);
}

/* connection-rate-limit: a minute's worth at once, and then no more than it. */
static void test_quota_speed(void **state)
{
	struct receive_connector connector = connector_open("a");
	struct quota *quota = quota_of(16);
	struct ip peer = v6(1, 1);
	struct quota_place place;
	struct door_limit limit;

	(void)state;
	connector.connection_rate_limit = 6;
	limit = quota_connection_limit(&connector);
	assert_int_equal(limit.interval_ns, UINT64_C(10000000000));
	assert_int_equal(limit.burst, 6);
	for (unsigned i = 0; i < 6; i++) {
		assert_int_equal(quota_enter(quota, &connector, &peer, true, &place), QUOTA_OPEN);
		/* Who leaves is remembered. */
		quota_leave(&place);
	}
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(quota_enter(quota, &connector, &peer, true, &place), QUOTA_SPEED);
	/* Another host of the network is the same source, another network is not. */
	peer = v6(1, 2);
	assert_int_equal(quota_enter(quota, &connector, &peer, true, &place), QUOTA_SPEED);
	peer = v6(2, 1);
	assert_int_equal(quota_enter(quota, &connector, &peer, true, &place), QUOTA_OPEN);
	quota_leave(&place);
	/* Where the kernel keeps to it, we do not. */
	peer = v6(1, 1);
	assert_int_equal(quota_enter(quota, &connector, &peer, false, &place), QUOTA_OPEN);
	quota_leave(&place);
	assert_int_equal(quota_count(quota, &connector), 0);
	connector.connection_rate_limit = POLICY_UNLIMITED;
	limit = quota_connection_limit(&connector);
	assert_int_equal(limit.interval_ns, 0);
	assert_int_equal(quota_enter(quota, &connector, &peer, true, &place), QUOTA_OPEN);
	quota_leave(&place);
	quota_destroy(&quota);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_quota_full),
		cmocka_unit_test(test_quota_per_source),
		cmocka_unit_test(test_quota_percentage),
		cmocka_unit_test(test_quota_rate),
		cmocka_unit_test(test_quota_table),
		cmocka_unit_test(test_quota_names),
		cmocka_unit_test(test_quota_threads),
		cmocka_unit_test(test_quota_speed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
