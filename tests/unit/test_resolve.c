/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_resolve.c: from a domain to the addresses of its servers, with a name server of our
 * own.
 */

#include "tests/unit/loop_fixture.h"

#include "relay/net/resolve.h"
#include "tests/unit/dns_fixture.h"

static const struct dns_record records[] = {
	{"contoso.test", DNS_MX, "20 mx2.contoso.test", 300},
	{"contoso.test", DNS_MX, "10 MX1.contoso.test", 300},
	{"mx1.contoso.test", DNS_AAAA, "::1", 200},
	{"mx1.contoso.test", DNS_A, "127.0.0.11", 200},
	{"mx2.contoso.test", DNS_A, "127.0.0.12", 100},
	{"mx2.contoso.test", DNS_A, "127.0.0.13", 100},
	{"alias.test", DNS_CNAME, "contoso.test", 10},
	{"contoso.test", DNS_A, "127.0.0.9", 300},
	{"bare.test", DNS_A, "127.0.0.14", 86400},
	{"null.test", DNS_MX, "0 .", 300},
	{"hollow.test", DNS_MX, "10 gone.hollow.test", 300},
	{"half.test", DNS_MX, "10 fail.half.test", 300},
	{"half.test", DNS_MX, "20 mx2.contoso.test", 300},
	{"broken.test", DNS_MX, "10 fail.broken.test", 300},
	{"equal.test", DNS_MX, "10 a.equal.test", 300},
	{"equal.test", DNS_MX, "10 b.equal.test", 300},
	{"equal.test", DNS_MX, "10 c.equal.test", 300},
	{"a.equal.test", DNS_A, "127.0.0.21", 300},
	{"b.equal.test", DNS_A, "127.0.0.22", 300},
	{"c.equal.test", DNS_A, "127.0.0.23", 300},
	{"ours.test", DNS_MX, "5 best.ours.test", 300},
	{"ours.test", DNS_MX, "10 mx1.ours.test", 300},
	{"ours.test", DNS_MX, "10 mx2.ours.test", 300},
	{"ours.test", DNS_MX, "30 mx3.ours.test", 300},
	{"best.ours.test", DNS_A, "127.0.0.31", 300},
	{"mx1.ours.test", DNS_A, "127.0.0.1", 300},
	{"mx2.ours.test", DNS_A, "127.0.0.32", 300},
	{"mx3.ours.test", DNS_A, "127.0.0.33", 300},
	{"loop.test", DNS_MX, "10 mx1.ours.test", 300},
	{"loop.test", DNS_MX, "20 mx3.ours.test", 300},
	{"local.home.arpa", DNS_A, "127.0.0.15", 300},
	{"odd.test", DNS_MX, "10 a b.odd.test", 300},
	{"odd.test", DNS_MX, "20 mx2.contoso.test", 300},
	{NULL, 0, NULL, 0},
};

struct question {
	struct resolve resolve;
	unsigned calls;
	enum resolve_status status;
};

static struct dns_server server;
static struct loop *loop;
static struct resolver *resolver;
static struct question question;

static void question_done(struct resolve *resolve, enum resolve_status status)
{
	struct question *it = OWNER_OF(resolve, struct question, resolve);

	it->calls++;
	it->status = status;
}

static void begin(struct address *binding)
{
	static char where[32];
	static const char *servers[1] = {where};
	struct receive_connector connector = {.bindings = binding, .binding_count = 1};
	const struct policy policy = {.dns_servers = servers,
		.dns_server_count = 1,
		.receive_connectors = &connector,
		.receive_connector_count = binding == NULL ? 0 : 1};
	char error[128] = "";

	caps = &found;
	assert_true(dns_start(&server, records));
	(void)snprintf(where, sizeof(where), "127.0.0.1:%u", server.port);
	loop = loop_begin();
	assert_int_equal(resolver_create(loop, &policy, &resolver, error, sizeof(error)), 0);
	question = (struct question){.calls = 0};
	resolve_init(&question.resolve, resolver, question_done);
}

static void end(void)
{
	resolver_close(resolver);
	for (unsigned turn = 0; !resolver_is_closed(resolver); turn++) {
		assert_true(turn < TURNS_MAX);
		assert_int_equal(loop_turn(loop), 0);
	}
	resolver_destroy(&resolver);
	assert_null(resolver);
	loop_destroy(&loop);
	dns_stop(&server);
}

static enum resolve_status ask(const char *domain, unsigned port)
{
	question.calls = 0;
	resolve_mx(&question.resolve, domain, port);
	assert_int_equal(question.calls, 0);
	for (unsigned turn = 0; question.calls == 0; turn++) {
		assert_true(turn < TURNS_MAX);
		assert_int_equal(loop_turn(loop), 0);
	}
	loop_turn_now(loop);
	assert_int_equal(question.calls, 1);
	return question.status;
}

/* "host=address host=address", as the list has them. */
static const char *found_list(void)
{
	static char out[8192];
	const struct resolve_list *list = &question.resolve.list;

	out[0] = '\0';
	for (unsigned i = 0; i < list->count; i++) {
		char text[64];

		address_print(&list->addresses[i], text, sizeof(text));
		(void)snprintf(out + strlen(out), sizeof(out) - strlen(out), "%s%s=%s",
			i == 0 ? "" : " ", list->hosts[list->host_of[i]], text);
	}
	return out;
}

static void test_resolve_orders_by_preference(void **state)
{
	(void)state;
	begin(NULL);
	assert_int_equal(ask("contoso.test", 25), RESOLVE_OK);
	assert_memory_equal(found_list(),
		"mx1.contoso.test=127.0.0.11:25 "
		"mx1.contoso.test=[::1]:25 mx2.contoso.test=127.0.0.1",
		strlen("mx1.contoso.test=127.0.0.11:25 mx1.contoso.test=[::1]:25 "
		       "mx2.contoso.test=127.0.0.1"));
	assert_int_equal(question.resolve.list.count, 4);
	assert_int_equal(question.resolve.list.ttl_s, 100);
	/* Again, out of the cache. */
	assert_int_equal(ask("contoso.test", 2525), RESOLVE_OK);
	assert_non_null(strstr(found_list(), "mx1.contoso.test=127.0.0.11:2525"));
	assert_int_equal(ask("alias.test", 25), RESOLVE_OK);
	assert_int_equal(question.resolve.list.count, 4);
	end();
}

static void test_resolve_without_mx_is_the_domain_itself(void **state)
{
	(void)state;
	begin(NULL);
	assert_int_equal(ask("bare.test", 25), RESOLVE_OK);
	assert_string_equal(found_list(), "bare.test=127.0.0.14:25");
	assert_int_equal(question.resolve.list.ttl_s, RESOLVE_TTL_MAX_S);
	/* Names that libunbound would deny by itself are the server's to know, too. */
	assert_int_equal(ask("local.home.arpa", 25), RESOLVE_OK);
	end();
}

static void test_resolve_says_why_not(void **state)
{
	(void)state;
	begin(NULL);
	assert_int_equal(ask("null.test", 25), RESOLVE_NULL_MX);
	assert_int_equal(ask("nowhere.test", 25), RESOLVE_NO_DOMAIN);
	assert_int_equal(ask("hollow.test", 25), RESOLVE_NO_ADDRESS);
	assert_int_equal(ask("fail.test", 25), RESOLVE_FAILED);
	assert_int_equal(ask("broken.test", 25), RESOLVE_FAILED);
	/* One exchanger that cannot be looked up does not spoil the others. */
	assert_int_equal(ask("half.test", 25), RESOLVE_OK);
	assert_int_equal(question.resolve.list.count, 2);
	/* A name that is no host name is passed over. */
	assert_int_equal(ask("odd.test", 25), RESOLVE_OK);
	assert_int_equal(question.resolve.list.host_count, 1);
	end();
}

static void test_resolve_spreads_over_equals(void **state)
{
	unsigned first[3] = {0};

	(void)state;
	begin(NULL);
	for (unsigned i = 0; i < 200 && (first[0] == 0 || first[1] == 0 || first[2] == 0); i++) {
		assert_int_equal(ask("equal.test", 25), RESOLVE_OK);
		assert_int_equal(question.resolve.list.count, 3);
		first[found_list()[0] - 'a']++;
	}
	assert_true(first[0] > 0 && first[1] > 0 && first[2] > 0);
	end();
}

static struct address binding_of(const char *ip, uint16_t port)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct address out = {.len = sizeof(v4)};

	assert_int_equal(inet_pton(AF_INET, ip, &v4.sin_addr), 1);
	memcpy(&out.sockaddr, &v4, sizeof(v4));
	return out;
}

static void test_resolve_leaves_ourselves_out(void **state)
{
	struct address binding = binding_of("127.0.0.1", 2526);

	(void)state;
	begin(&binding);
	assert_int_equal(ask("ours.test", 2526), RESOLVE_OK);
	assert_string_equal(found_list(), "best.ours.test=127.0.0.31:2526");
	assert_int_equal(ask("loop.test", 2526), RESOLVE_LOOP);
	/* Another port is another server. */
	assert_int_equal(ask("loop.test", 25), RESOLVE_OK);
	assert_int_equal(question.resolve.list.count, 2);
	end();
	/* A binding to all addresses is one to 127.0.0.1, too. */
	binding = binding_of("0.0.0.0", 2526);
	begin(&binding);
	assert_int_equal(ask("loop.test", 2526), RESOLVE_LOOP);
	end();
}

static void test_resolve_can_be_cancelled(void **state)
{
	static struct question many[40];
	unsigned answered = 0;

	(void)state;
	begin(NULL);
	for (unsigned i = 0; i < COUNT_OF(many); i++) {
		many[i].calls = 0;
		resolve_init(&many[i].resolve, resolver, question_done);
		resolve_mx(&many[i].resolve, i % 2 == 0 ? "mute.test" : "contoso.test", 25);
	}
	for (unsigned turn = 0; server.questions == 0 && turn < TURNS_MAX; turn++)
		loop_turn_now(loop);
	for (unsigned i = 0; i < COUNT_OF(many); i += 3)
		resolve_cancel(&many[i].resolve);
	for (unsigned i = 0; i < COUNT_OF(many); i++) {
		for (unsigned turn = 0; i % 2 == 1 && i % 3 != 0 && many[i].calls == 0; turn++) {
			assert_true(turn < TURNS_MAX);
			assert_int_equal(loop_turn(loop), 0);
		}
	}
	for (unsigned i = 0; i < COUNT_OF(many); i++) {
		answered += many[i].calls;
		assert_int_equal(many[i].calls, i % 2 == 1 && i % 3 != 0);
		resolve_cancel(&many[i].resolve);
		resolve_cancel(&many[i].resolve);
	}
	assert_true(answered > 0);
	assert_int_equal(ask("contoso.test", 25), RESOLVE_OK);
	end();
}

static void test_resolve_words(void **state)
{
	static const struct {
		enum resolve_status status;
		const char *reply;
	} rows[] = {
		{RESOLVE_FAILED, "451 4.4.3 The mail servers of a.test could not be looked up\r\n"},
		{RESOLVE_NO_DOMAIN, "550 5.1.2 Domain a.test has no mail server\r\n"},
		{RESOLVE_NO_ADDRESS, "550 5.4.4 The mail servers of a.test have no address\r\n"},
		{RESOLVE_NULL_MX, "556 5.1.10 Domain a.test takes no mail\r\n"},
		{RESOLVE_LOOP, "554 5.4.6 Mail for a.test would come back to this server\r\n"},
	};
	char reply[400];

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(rows); i++) {
		resolve_reply(rows[i].status, "a.test", reply, sizeof(reply));
		assert_string_equal(reply, rows[i].reply);
		assert_true(strlen(resolve_word(rows[i].status)) > 0);
	}
	assert_string_equal(resolve_word(RESOLVE_OK), "ok");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_resolve_orders_by_preference),
		cmocka_unit_test(test_resolve_without_mx_is_the_domain_itself),
		cmocka_unit_test(test_resolve_says_why_not),
		cmocka_unit_test(test_resolve_spreads_over_equals),
		cmocka_unit_test(test_resolve_leaves_ourselves_out),
		cmocka_unit_test(test_resolve_can_be_cancelled),
		cmocka_unit_test(test_resolve_words),
	};
	int rc = loop_probe(&found);

	if (rc < 0) {
		(void)printf("no io_uring: %s\n", loop_why_not(-rc));
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
