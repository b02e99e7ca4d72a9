/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_config_queue.c: keywords of the spool, the queues and the message tracking log: their
 * defaults (EXCHANGE.md 9.3, 9.4, 11.2, 12.2), each of them set, and what contradicts itself.
 */

#include "policy/lint.h"
#include "tests/unit/config_fixture.h"

#define MINUTE_MS ((uint64_t)60 * 1000)
#define MEBI ((uint64_t)1024 * 1024)

static void test_defaults(void **state)
{
	struct policy *policy = NULL;
	const struct queue_policy *queue;

	(void)state;
	assert_int_equal(load_text("transport { fqdn = a.example }\n" SMALLEST, &policy), 0);
	assert_string_equal(said, "");
	queue = &policy->queue;
	assert_null(queue->spool_folder);
	assert_int_equal(queue->spool_segment_bytes, 64 * MEBI);
	assert_int_equal(queue->spool_max_bytes, 16 * 1024 * MEBI);
	assert_int_equal(queue->max_messages, 100000);
	assert_int_equal(queue->glitch_retry_count, 4);
	assert_int_equal(queue->glitch_retry_ms, MINUTE_MS);
	assert_int_equal(queue->transient_retry_count, 6);
	assert_int_equal(queue->transient_retry_ms, 10 * MINUTE_MS);
	assert_int_equal(queue->steady_retry_ms, 30 * MINUTE_MS);
	assert_int_equal(queue->message_retry_ms, 15 * MINUTE_MS);
	assert_int_equal(queue->delay_notification_ms, 240 * MINUTE_MS);
	assert_int_equal(queue->expiration_ms, 2 * 24 * 60 * MINUTE_MS);
	assert_int_equal(queue->idle_before_resubmit_ms, 12 * 60 * MINUTE_MS);
	assert_int_equal(queue->queue_idle_ms, 3 * MINUTE_MS);
	assert_string_equal(queue->postmaster, "postmaster@a.example");
	assert_int_equal(queue->notice_original_bytes, 10 * MEBI);
	assert_int_equal(queue->pressure_medium, 89);
	assert_int_equal(queue->pressure_high, 99);
	assert_int_equal(queue->pressure_high_end, 90);
	assert_int_equal(queue->pressure_medium_end, 80);
	assert_null(queue->tracking_log_folder);
	assert_int_equal(queue->tracking_log_max_file_bytes, 10 * MEBI);
	assert_int_equal(queue->tracking_log_max_directory_bytes, 1000 * MEBI);
	assert_int_equal(queue->tracking_log_max_age_ms, 30 * 24 * 60 * MINUTE_MS);
	assert_true(queue->tracking_log_subject);
	assert_int_equal(policy->receive_connectors[0].durability, DURABILITY_DURABLE);
	assert_false(policy->receive_connectors[0].cut_through);
	assert_int_equal(policy->send_connectors[0].max_deliveries, 20);
	policy_destroy(&policy);
}

/* The first domain of ours that is one; "*.contoso.com" is many. */
static void test_postmaster(void **state)
{
	struct policy *policy = NULL;

	(void)state;
	assert_int_equal(load_text("transport { fqdn = a.example accepted-domains = "
				   "{\"*.b.example\", c.example, d.example} }\n" SMALLEST,
				 &policy),
		0);
	assert_string_equal(policy->queue.postmaster, "postmaster@c.example");
	policy_destroy(&policy);
}

static void test_keywords(void **state)
{
	struct policy *policy = NULL;
	const struct queue_policy *queue;

	(void)state;
	assert_int_equal(
		load_text("transport { spool-folder = spool spool-segment-size = 4MB\n"
			  " spool-max-size = 16MB queue-max-messages = 7 workers = 1\n"
			  " queue-glitch-retry-count = 0 queue-glitch-retry-interval = 1s\n"
			  " transient-failure-retry-count = 2\n"
			  " transient-failure-retry-interval = 2s\n"
			  " outbound-connection-failure-retry-interval = 3s\n"
			  " message-retry-interval = 4s delay-notification-timeout = 0s\n"
			  " message-expiration-timeout = 5s max-idle-time-before-resubmit = 6s\n"
			  " queue-max-idle-time = 7s postmaster-address = \"help@b.example\"\n"
			  " max-notice-original-size = 0\n"
			  " back-pressure-medium = 50 back-pressure-high = 100\n"
			  " back-pressure-high-end = 60 back-pressure-medium-end = 0\n"
			  " tracking-log-folder = track tracking-log-max-file-size = 4KB\n"
			  " tracking-log-max-directory-size = 8KB tracking-log-max-age = 1h\n"
			  " tracking-log-subject = no }\n"
			  "receive-connector in { bindings = \"127.0.0.1:2525\" deliver = queue\n"
			  " durability = relaxed cut-through = yes }\n"
			  "send-connector out { address-spaces = \"*\" max-deliveries = 3 }\n",
			&policy),
		0);
	assert_string_equal(said, "");
	queue = &policy->queue;
	assert_string_equal(strrchr(queue->spool_folder, '/'), "/spool");
	assert_int_equal(queue->spool_segment_bytes, 4 * MEBI);
	assert_int_equal(queue->spool_max_bytes, 16 * MEBI);
	assert_int_equal(queue->max_messages, 7);
	assert_int_equal(queue->glitch_retry_count, 0);
	assert_int_equal(queue->glitch_retry_ms, 1000);
	assert_int_equal(queue->transient_retry_count, 2);
	assert_int_equal(queue->transient_retry_ms, 2000);
	assert_int_equal(queue->steady_retry_ms, 3000);
	assert_int_equal(queue->message_retry_ms, 4000);
	assert_int_equal(queue->delay_notification_ms, 0);
	assert_int_equal(queue->expiration_ms, 5000);
	assert_int_equal(queue->idle_before_resubmit_ms, 6000);
	assert_int_equal(queue->queue_idle_ms, 7000);
	assert_string_equal(queue->postmaster, "help@b.example");
	assert_int_equal(queue->notice_original_bytes, 0);
	assert_int_equal(queue->pressure_medium, 50);
	assert_int_equal(queue->pressure_high, 100);
	assert_int_equal(queue->pressure_high_end, 60);
	assert_int_equal(queue->pressure_medium_end, 0);
	assert_string_equal(strrchr(queue->tracking_log_folder, '/'), "/track");
	assert_int_equal(queue->tracking_log_max_file_bytes, 4096);
	assert_int_equal(queue->tracking_log_max_directory_bytes, 8192);
	assert_int_equal(queue->tracking_log_max_age_ms, 60 * MINUTE_MS);
	assert_false(queue->tracking_log_subject);
	assert_int_equal(policy->receive_connectors[0].deliver, DELIVER_QUEUE);
	assert_int_equal(policy->receive_connectors[0].durability, DURABILITY_RELAXED);
	assert_true(policy->receive_connectors[0].cut_through);
	assert_null(policy->receive_connectors[0].send_connector);
	assert_int_equal(policy->send_connectors[0].max_deliveries, 3);
	policy_destroy(&policy);
}

static const struct mistake transport_rows[] = {
	{"small segments", "spool-segment-size = 3MB", "from 4MB to 1GB", 0},
	{"small spool", "spool-max-size = 15MB", "from 16MB to", 0},
	{"few segments", "spool-max-size = 128MB", "below 4 times spool-segment-size", 0},
	{"few segments for each worker",
		"workers = 3 spool-segment-size = 4MB\nspool-max-size = 16MB", "for each worker",
		3},
	{"many segments", "spool-segment-size = 4MB spool-max-size = 257GB",
		"more than 65536 times spool-segment-size", 0},
	{"no messages", "queue-max-messages = 0", "from 1 to 16777216", 0},
	{"impatience", "queue-glitch-retry-interval = 999ms", "from 1s to 1d", 0},
	{"expiry", "message-expiration-timeout = 4s", "from 5s to 90d", 0},
	{"notice after the end", "message-expiration-timeout = 1h delay-notification-timeout = 1h",
		"is not below message-expiration-timeout", 0},
	{"nobody", "postmaster-address = postmaster", "expected an address like", 0},
	{"brackets", "postmaster-address = \"<a@b.example>\"", "expected an address like", 0},
	{"no domain", "postmaster-address = \"a@b..example\"", "expected an address like", 0},
	{"medium above high",
		"back-pressure-medium = 90\nback-pressure-high = 90\n"
		"back-pressure-high-end = 89",
		"back-pressure-medium is 90, expected less than back-pressure-high, which is 90",
		2},
	{"never ends", "back-pressure-high-end = 99",
		"back-pressure-high-end is 99, expected less than back-pressure-high", 0},
	{"medium never ends", "back-pressure-medium-end = 89",
		"back-pressure-medium-end is 89, expected less than back-pressure-medium", 0},
	{"ends crossed", "back-pressure-high-end = 80",
		"expected less than back-pressure-high-end, which is 80", 0},
	{"file above folder", "tracking-log-max-directory-size = 9MB",
		"is above tracking-log-max-directory-size", 0},
};

static void test_transport_mistakes(void **state)
{
	(void)state;
	check_mistakes(
		"transport {\n", "}\n" SMALLEST, 2, transport_rows, COUNT_OF(transport_rows));
}

static const struct mistake receive_rows[] = {
	{"no spool", "send-connector = out deliver = queue",
		"deliver = queue has nowhere to keep messages, expected spool-folder = FOLDER", 0},
	{"durable what", "send-connector = out durability = relaxed",
		"durability with deliver = proxy", 0},
	{"how durable", "send-connector = out durability = solid", "expected durable or relaxed",
		0},
	{"through to what", "send-connector = out cut-through = yes",
		"cut-through with deliver = proxy, which has no queue to fall back to, expected "
		"deliver = queue",
		0},
	{"how through", "send-connector = out cut-through = first", "expected yes or no", 0},
	{"how delivered", "send-connector = out deliver = soon", "expected proxy or queue", 0},
};

static void test_receive_mistakes(void **state)
{
	(void)state;
	check_mistakes("send-connector out { smart-hosts = \"127.0.0.1:9\" }\n"
		       "receive-connector in { bindings = \"127.0.0.1:2525\"\n",
		"}\n", 3, receive_rows, COUNT_OF(receive_rows));
}

static const struct mistake queue_rows[] = {
	{"to nobody", "deliver = queue", "delivers by queue to nobody", 0},
	{"to one not enabled", "deliver = queue send-connector = off",
		"send-connector \"off\" is not enabled (line 2)", 0},
};

static void test_queue_mistakes(void **state)
{
	(void)state;
	check_mistakes("transport { spool-folder = spool }\n"
		       "send-connector off { smart-hosts = \"127.0.0.1:9\" enabled = no }\n"
		       "receive-connector in { bindings = \"127.0.0.1:2525\"\n",
		"}\n", 4, queue_rows, COUNT_OF(queue_rows));
}

/* A folder that is none has its message, and the connector none beside it. */
static void test_wrong_folder(void **state)
{
	struct policy *policy = NULL;

	(void)state;
	assert_int_equal(load_text("transport { spool-folder = good.pem }\n"
				   "receive-connector in { bindings = \"127.0.0.1:2525\"\n"
				   " deliver = queue send-connector = out }\n"
				   "send-connector out { smart-hosts = \"127.0.0.1:9\" }\n",
				 &policy),
		-EINVAL);
	assert_int_equal(said_lines(), 1);
	assert_true(said_at(1, "which is not a folder"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_postmaster),
		cmocka_unit_test(test_keywords),
		cmocka_unit_test(test_transport_mistakes),
		cmocka_unit_test(test_receive_mistakes),
		cmocka_unit_test(test_queue_mistakes),
		cmocka_unit_test(test_wrong_folder),
	};

	return cmocka_run_group_tests_name("config queue", tests, fixture_setup, fixture_teardown);
}
