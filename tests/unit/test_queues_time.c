/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_queues_time.c: notices of delay and of expiry, routes that change, what can go nowhere, and
 * messages that cannot be read.
 */

#include "tests/unit/queues_fixture.h"

static const char config[] =
	"receive-connector \"in\" { bindings = \"127.0.0.1:2525\" send-connector = out }\n"
	"send-connector \"out\" { address-spaces = { \"*.test\" } smart-hosts = { \"127.0.0.1:@0\" "
	"}\n"
	"  ignore-starttls = yes max-message-size = 1MB }\n"
	"send-connector \"back\" { address-spaces = { \"contoso.test\" }\n"
	"  smart-hosts = { \"127.0.0.1:@1\" } ignore-starttls = yes }\n";

static const char config_moved[] =
	"receive-connector \"in\" { bindings = \"127.0.0.1:2525\" send-connector = out }\n"
	"send-connector \"out\" { address-spaces = { \"none.example\" }\n"
	"  smart-hosts = { \"127.0.0.1:@0\" } ignore-starttls = yes }\n"
	"send-connector \"back\" { address-spaces = { \"*\" }\n"
	"  smart-hosts = { \"127.0.0.1:@1\" } ignore-starttls = yes }\n";

static const char config_partner[] =
	"receive-connector \"in\" { bindings = \"127.0.0.1:2525\" send-connector = out }\n"
	"send-connector \"out\" { address-spaces = { \"*\" }\n"
	"  smart-hosts = { \"127.0.0.1:@0\" } ignore-starttls = yes }\n"
	"partner \"p\" { domains = { \"adatum.test\" } trust-anchors = \"good.pem\" }\n";

static const char config_secured[] =
	"receive-connector \"in\" { bindings = \"127.0.0.1:2525\" send-connector = out }\n"
	"send-connector \"out\" { address-spaces = { \"*\" } domain-secure = yes\n"
	"  smart-hosts = { \"127.0.0.1:@0\" } }\n"
	"partner \"p\" { domains = { \"adatum.test\" } trust-anchors = \"good.pem\" }\n";

/* As a reload does: sessions of the old configuration end, and then it is freed. */
static void rig_reload(const char *text)
{
	struct policy *policy = rig_load(text);
	struct policy *old_policy = rig.policy;
	struct router *router = rig_router(policy);
	struct router *old_router = rig.router;

	queues_use(rig.queues, router, policy);
	rig.policy = policy;
	rig.router = router;
	router_drain(old_router);
	AWAIT(!queues_need_router(rig.queues, old_router));
	AWAIT(router_is_closed(old_router));
	router_destroy(&old_router);
	policy_destroy(&old_policy);
}

static void test_delay_and_expiry(void **state)
{
	const struct hop *back = &rig.hops[1];
	uint64_t id;

	(void)state;
	hop_down(&rig.hops[0]);
	id = mail_send("<a@adatum.test> <b@adatum.test>");
	AWAIT(rig_queue("out")->retry_count == 1);
	rig_wait(4 * HOUR_MS - 1);
	rig_idle(20);
	assert_int_equal(back->count, 0);
	rig_wait(1);
	AWAIT(back->count == 1);
	assert_non_null(strstr(back->messages[0].body, "Action: delayed"));
	assert_non_null(strstr(back->messages[0].body, "4.4.7"));
	assert_string_equal(back->messages[0].rcpts, "sender@contoso.test ");
	/* Once, also over a restart. */
	rig_idle(5);
	rig_restart();
	rig_wait(HOUR_MS);
	rig_idle(20);
	assert_int_equal(back->count, 1);
	assert_int_equal(rig_message(id)->rcpt_open, 2);
	rig_wait(43 * HOUR_MS - 1);
	rig_idle(20);
	assert_int_equal(back->count, 1);
	rig_wait(1);
	AWAIT(back->count == 2);
	assert_non_null(strstr(back->messages[1].body, "Action: failed"));
	assert_non_null(strstr(back->messages[1].body, "QUEUE.Expired; message expired"));
	assert_non_null(strstr(back->messages[1].body, "a@adatum.test"));
	assert_non_null(strstr(back->messages[1].body, "b@adatum.test"));
	AWAIT(rig_messages() == 0);
	rig_restart();
	assert_int_equal(rig_messages(), 0);
}

/* What expires without a sender goes without a word. */
static void test_expiry_of_a_notice(void **state)
{
	(void)state;
	hop_down(&rig.hops[0]);
	(void)mail_send_with("<a@adatum.test>", (struct mail_options){.sender = "<>"});
	AWAIT(rig_queue("out")->retry_count == 1);
	rig_wait(48 * HOUR_MS);
	AWAIT(rig_messages() == 0);
	rig_idle(20);
	assert_int_equal(rig.hops[1].count, 0);
}

/* More than one notice can tell of. */
static void test_expiry_of_many(void **state)
{
	static char rcpts[32768];
	size_t len = 0;

	(void)state;
	for (unsigned i = 0; i < 250; i++)
		len += (size_t)snprintf(rcpts + len, sizeof(rcpts) - len, "<r%u@a.test> ", i);
	hop_down(&rig.hops[0]);
	(void)mail_send(rcpts);
	AWAIT(rig_queue("out")->retry_count == 1);
	rig_wait(48 * HOUR_MS);
	AWAIT(rig.hops[1].count == 3);
	AWAIT(rig_messages() == 0);
}

static void test_reload_moves_a_route(void **state)
{
	(void)state;
	hop_down(&rig.hops[0]);
	(void)mail_send("<a@adatum.test>");
	AWAIT(rig_queue("out")->retry_count == 1);
	rig_reload(config_moved);
	AWAIT(rig_messages() == 0);
	assert_int_equal(rig.hops[1].count, 1);
	/* The empty queue goes after a while. */
	assert_string_equal(rig_queue("out")->identity, "out");
	rig_wait(3 * MINUTE_MS);
	AWAIT(rig_queue("out")->identity[0] == '\0');
}

/* The same routes: nothing is read, and Retry stays what it is. */
static void test_reload_of_the_same(void **state)
{
	(void)state;
	hop_down(&rig.hops[0]);
	(void)mail_send("<a@adatum.test>");
	AWAIT(rig_queue("out")->retry_count == 1);
	rig_reload(config);
	rig_idle(10);
	assert_int_equal(rig_queue("out")->messages, 1);
	assert_int_equal(rig_queue("out")->status, QUEUE_RETRY);
	hop_listen(&rig.hops[0]);
	rig_wait(MINUTE_MS);
	AWAIT(rig_messages() == 0);
}

/* A delivery that is under way when the route moves ends where it began. */
static void test_reload_in_a_transfer(void **state)
{
	struct policy *policy = rig_load(config_moved);
	struct policy *old_policy = rig.policy;
	struct router *router = rig_router(policy);
	struct router *old_router = rig.router;

	(void)state;
	rig.hops[0].holds_end = true;
	(void)mail_send("<a@adatum.test>");
	AWAIT(rig.hops[0].count == 1);
	queues_use(rig.queues, router, policy);
	rig.policy = policy;
	rig.router = router;
	router_drain(old_router);
	rig_idle(20);
	assert_true(queues_need_router(rig.queues, old_router));
	assert_int_equal(rig.hops[1].count, 0);
	hop_release(&rig.hops[0]);
	AWAIT(rig_messages() == 0);
	AWAIT(!queues_need_router(rig.queues, old_router) && router_is_closed(old_router));
	router_destroy(&old_router);
	policy_destroy(&old_policy);
	assert_int_equal(rig.hops[0].count + rig.hops[1].count, 1);
}

static void test_unreachable_and_reachable(void **state)
{
	uint64_t id;

	(void)state;
	id = mail_send("<a@far.example> <b@adatum.test>");
	AWAIT(rig.hops[0].count == 1);
	AWAIT(rig_queue("Unreachable")->messages == 1);
	assert_int_equal(rig_queue("Unreachable")->kind, QUEUE_UNREACHABLE);
	assert_non_null(strstr(rig_message(id)->last_error, "451 4.4.4"));
	AWAIT(rig_message(id)->rcpt_open == 1);
	rig_restart();
	AWAIT(rig_queue("Unreachable")->messages == 1);
	assert_int_equal(rig_message(id)->rcpt_open, 1);
	rig_reload(config_moved);
	AWAIT(rig_messages() == 0);
	assert_string_equal(rig.hops[1].messages[0].rcpts, "a@far.example ");
}

static void test_unreachable_expires(void **state)
{
	(void)state;
	(void)mail_send("<a@far.example>");
	AWAIT(rig_queue("Unreachable")->messages == 1);
	rig_wait(48 * HOUR_MS);
	AWAIT(rig.hops[1].count == 1);
	AWAIT(rig_messages() == 0);
}

/* A listed domain, and no connector that could prove it: it waits, and never goes in clear. */
static void test_unsecured(void **state)
{
	uint64_t id;

	(void)state;
	rig_reload(config_partner);
	id = mail_send("<a@adatum.test>");
	AWAIT(rig_queue("Unreachable")->messages == 1);
	assert_non_null(strstr(rig_message(id)->last_error, "451 4.7.3"));
	rig_wait(HOUR_MS);
	rig_idle(20);
	assert_int_equal(rig.hops[0].connections, 0);
}

/*
 * A listed domain has a queue of its own. Its next hop offers no TLS: it gets no MAIL, and what is
 * not secured goes on by the same connector.
 */
static void test_secured(void **state)
{
	(void)state;
	rig_reload(config_secured);
	(void)mail_send("<a@adatum.test> <b@fabrikam.test>");
	AWAIT(rig.hops[0].count == 1);
	assert_string_equal(rig.hops[0].messages[0].rcpts, "b@fabrikam.test ");
	AWAIT(rig_queue("adatum.test (secured)")->retry_count == 1);
	assert_string_equal(queue_rows[0].tls_domain, "adatum.test");
	assert_int_equal(queue_rows[0].status, QUEUE_RETRY);
	assert_non_null(strstr(queue_rows[0].last_error, "{LED=451 4.4.0"));
	rig_wait(MINUTE_MS);
	AWAIT(rig_queue("adatum.test (secured)")->retry_count == 2);
	assert_int_equal(rig.hops[0].mails, 1);
	/* The list no longer has it: it goes as any other (EXCHANGE 4.8, escape hatch). */
	rig_reload(config);
	AWAIT(rig.hops[0].count == 2);
	AWAIT(rig_messages() == 0);
}

/* By name, as the receive connector wants it. */
static void test_fixed_connector(void **state)
{
	uint64_t id;

	(void)state;
	(void)mail_send_with("<a@adatum.test>", (struct mail_options){.send_connector = "back"});
	AWAIT(rig.hops[1].count == 1);
	id = mail_send_with("<a@adatum.test>", (struct mail_options){.send_connector = "gone"});
	AWAIT(rig_queue("Unreachable")->messages == 1);
	assert_non_null(strstr(rig_message(id)->last_error, "no send connector gone"));
}

static void test_refused_by_policy(void **state)
{
	(void)state;
	(void)mail_send("<a@[192.0.2.1]> <b@adatum.test>");
	AWAIT(rig.hops[1].count == 1);
	assert_non_null(strstr(rig.hops[1].messages[0].body, "550 5.1.2"));
	AWAIT(rig.hops[0].count == 1);
	AWAIT(rig_messages() == 0);
	(void)mail_send_with("<b@adatum.test>", (struct mail_options){.says_bytes = 2 << 20});
	AWAIT(rig.hops[1].count == 2);
	assert_non_null(strstr(rig.hops[1].messages[1].body, "552 5.3.4"));
	AWAIT(rig_messages() == 0);
}

/* A domain that takes no mail: all that waits for it fails, with what name servers said. */
static void test_doomed(void **state)
{
	struct queue *queue;

	(void)state;
	hop_down(&rig.hops[0]);
	for (unsigned i = 0; i < 40; i++)
		(void)mail_send("<a@adatum.test>");
	AWAIT(rig_queue("out")->retry_count == 1);
	queue = queue_find(rig.queues, "out", "", false);
	queue_doom(rig.queues, queue, span_of("556 5.1.10 adatum.test takes no mail\r\n"));
	AWAIT(rig.hops[1].count == 40);
	AWAIT(rig_messages() == 0);
	assert_non_null(strstr(rig.hops[1].messages[39].body, "556 5.1.10"));
}

/* In Retry for long, without success: routed again. */
static void test_idle_before_resubmit(void **state)
{
	(void)state;
	rig.policy->queue.idle_before_resubmit_ms = 0;
	hop_down(&rig.hops[0]);
	(void)mail_send("<a@adatum.test>");
	AWAIT(rig_queue("out")->retry_count == 1);
	AWAIT(rig_queue("out")->messages == 1);
	assert_int_equal(rig_queue("out")->status, QUEUE_RETRY);
	hop_listen(&rig.hops[0]);
	rig_wait(MINUTE_MS);
	AWAIT(rig_messages() == 0);
}

static void test_proof_changed(void **state)
{
	(void)state;
	rig.hops[0].greeting = "454 4.7.5 Certificate validation failure: RevocationUnknown";
	(void)mail_send("<a@adatum.test>");
	AWAIT(rig_queue("out")->retry_count == 1);
	(void)snprintf(queue_find(rig.queues, "out", "", false)->error, 64,
		"454 4.7.5 Certificate validation failure");
	rig.hops[0].greeting = NULL;
	queues_proof_changed(rig.queues);
	AWAIT(rig_messages() == 0);
}

/* Whichever of the files has that text at that place gets it damaged. */
static void damage(const char *path, off_t at, const char *text)
{
	DIR *dir = opendir(path);
	uint8_t bytes[4096];
	char name[1024];
	unsigned found_count = 0;

	assert_non_null(dir);
	for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
		const uint8_t *there;
		int fd;

		(void)snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		fd = open(name, O_RDWR | O_CLOEXEC);
		if (fd < 0 || pread(fd, bytes, sizeof(bytes), at) != (ssize_t)sizeof(bytes))
			continue;
		there = memmem(bytes, sizeof(bytes), text, strlen(text));
		if (there != NULL) {
			assert_int_equal(pwrite(fd, "X", 1, at + (there - bytes)), 1);
			assert_int_equal(fsync(fd), 0);
			found_count++;
		}
		assert_int_equal(close(fd), 0);
	}
	(void)closedir(dir);
	assert_int_equal(found_count, 1);
}

/* Damage on the disk: that message is suspended, and others go on. */
static void test_poisonous(void **state)
{
	char path[200];
	uint64_t id;

	(void)state;
	hop_down(&rig.hops[0]);
	id = mail_send("<a@adatum.test>");
	(void)mail_send("<b@adatum.test>");
	AWAIT(rig_queue("out")->retry_count == 1);
	/* What was written just now would be read from memory. */
	rig_restart();
	AWAIT(rig_queue("out")->messages == 2);
	(void)snprintf(path, sizeof(path), "%s/00", rig.path);
	damage(path, rig_message(id)->offset, "<a@adatum.test>");
	hop_listen(&rig.hops[0]);
	rig_wait(MINUTE_MS);
	AWAIT(rig.hops[0].count == 1);
	AWAIT(rig_message(id)->status == MESSAGE_SUSPENDED);
	assert_non_null(strstr(rig_message(id)->last_error, "cannot be read"));
	assert_int_equal(rig_do_message(QUEUE_ASK_MESSAGE_REMOVE, id), 1);
	AWAIT(rig_messages() == 0);
}

/* Cut off between the next hop's 550 and the notice: it fails again, and the notice comes. */
static void test_notice_is_not_lost(void **state)
{
	(void)state;
	for (unsigned turns = 1; turns < 25; turns++) {
		const unsigned before = rig.hops[1].count;

		(void)mail_send("<nobody@adatum.test>");
		rig_idle(turns);
		rig_restart();
		AWAIT(rig.hops[1].count > before);
		AWAIT(rig_messages() == 0);
		assert_true(rig.hops[1].count <= before + 2);
		assert_non_null(
			strstr(rig.hops[1].messages[rig.hops[1].count - 1].body, "550 5.1.1"));
	}
}

int main(void)
{
#define RIG(test) cmocka_unit_test_setup_teardown(test, rig_setup, rig_teardown)
	static const struct CMUnitTest tests[] = {
		RIG(test_delay_and_expiry),
		RIG(test_expiry_of_a_notice),
		RIG(test_expiry_of_many),
		RIG(test_reload_moves_a_route),
		RIG(test_reload_of_the_same),
		RIG(test_reload_in_a_transfer),
		RIG(test_unreachable_and_reachable),
		RIG(test_unreachable_expires),
		RIG(test_unsecured),
		RIG(test_secured),
		RIG(test_fixed_connector),
		RIG(test_refused_by_policy),
		RIG(test_doomed),
		RIG(test_idle_before_resubmit),
		RIG(test_proof_changed),
		RIG(test_poisonous),
		RIG(test_notice_is_not_lost),
	};

	rig.config = config;
	if (loop_probe(&found) < 0) {
		(void)printf("no io_uring here\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
