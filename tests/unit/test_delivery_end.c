/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_delivery_end.c: attempts that end early: a next hop that is silent or goes, a spool that
 * cannot be read, an owner that has had enough.
 */

#include "tests/unit/delivery_fixture.h"

/* A next hop that says nothing. */
static void test_delivery_silence(void **state)
{
	static const struct {
		struct hop_script script;
		const char *verdicts;
		bool is_answered;
	} cases[] = {
		{{.keywords = "PIPELINING", .mail = "silent"}, "LL", false},
		{{.keywords = "", .mail = "silent"}, "LL", false},
		{{.keywords = "", .rcpt = {NULL, "silent"}}, "LL", true},
		{{.keywords = "", .rcpt = {"550 No", "silent"}}, "FL", true},
		{{.keywords = "PIPELINING", .data = "silent"}, "LL", true},
		{{.keywords = "PIPELINING", .end = "silent"}, "UU", true},
		{{.keywords = "CHUNKING", .last = "silent"}, "UU", true},
		{{.keywords = "CHUNKING", .rcpt = {"550 No", "451 No"}, .rset = "silent"}, "FL",
			true},
	};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(cases); i++) {
		rig_connect(&cases[i].script);
		rig.connector.connection_inactivity_timeout_ms = 20;
		put_message(2);
		assert_string_equal(rig_deliver(), cases[i].verdicts);
		assert_false(rig.is_usable);
		assert_string_equal(rig.lost, "timeout");
		assert_int_equal(rig.is_answered, cases[i].is_answered);
		assert_int_equal(rig.results[1].code, 451);
		rig.connector.connection_inactivity_timeout_ms = RIG_PATIENCE_MS;
		rig_disconnect();
	}
}

/* Has the next hop said anything? If not, its session may have been closed in the pool. */
static void test_delivery_is_answered(void **state)
{
	static const struct {
		const char *mail;
		bool is_answered;
	} cases[] = {
		{"close", false}, {"421 4.3.2 Bye", false}, {"450 4.3.2 Wait", true}, {NULL, true}};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(cases); i++) {
		rig_connect(&(struct hop_script){.keywords = "PIPELINING", .mail = cases[i].mail});
		put_message(1);
		(void)rig_deliver();
		assert_int_equal(rig.is_answered, cases[i].is_answered);
		rig_disconnect();
	}
}

/* The session goes while the envelope is read; and the next may be begun from within on_end. */
static void test_delivery_beginning(void **state)
{
	(void)state;
	rig_connect(&good);
	put_message(2);
	rig.spool.is_held = true;
	rig_start();
	hop_close(&rig.hop);
	rig_await(&rig.has_ended);
	rig.pick_count = 0; /* nobody was asked */
	assert_string_equal(rig_verdicts(), "");
	assert_false(rig.is_usable);
	assert_string_not_equal(rig.lost, "");
	assert_int_equal(rig.spool.opened, rig.spool.ended);
	rig_disconnect();

	rig_connect(&good);
	put_message(2);
	rig.again = 3;
	assert_string_equal(rig_deliver(), "SS");
	assert_int_equal(rig.hop.messages, 4);
	assert_int_equal(rig.client.message_count, 4);
	rig_disconnect();
}

/* Cut off by the owner, wherever it is: nobody is told. */
static void test_delivery_abort(void **state)
{
	static const char *const sets[] = {"PIPELINING", "CHUNKING"};

	(void)state;
	for (unsigned i = 0; i < 2 * DELIVERY_STATE_COUNT; i++) {
		enum delivery_state at = i / 2;
		const char *rcpt = at == DELIVERY_ENVELOPE ? "silent"
				   : at == DELIVERY_RESET  ? "550 5.1.1 No"
							   : NULL;
		const struct hop_script script = {.keywords = sets[i % 2],
			.rcpt = {rcpt, rcpt},
			.rset = "silent",
			.data = at == DELIVERY_DATA ? "silent" : NULL,
			.end = "silent",
			.last = "silent"};

		if (at == DELIVERY_IDLE || (at == DELIVERY_DATA && i % 2 == 1))
			continue;
		rig_connect(&script);
		put_message(2);
		rig.spool.piece_bytes = 1;
		rig_start();
		for (unsigned turn = 0; rig.delivery.state != at; turn++) {
			assert_true(turn < RIG_TURNS_MAX);
			rig_turn();
		}
		memset(rig.told, 0, sizeof(rig.told));
		delivery_abort(&rig.delivery);
		rig.client.events = &rig_client_events;
		client_abort(&rig.client);
		rig_disconnect();
		assert_false(rig.has_ended);
		rig.pick_count = 0;
		assert_string_equal(rig_verdicts(), "");
		assert_int_equal(rig.spool.opened, rig.spool.ended);
		assert_int_equal(rig.hop.messages, 0);
	}
}

/* A listed domain's mail is counted when it was taken, and only then. */
static void test_delivery_counts(void **state)
{
	static const struct partner partner;
	static struct stats stats;
	struct stats *before = stats_mine;

	(void)state;
	stats_mine = &stats;
	rig_connect(&good);
	rig.requirement.partner = &partner;
	put_message(1);
	assert_string_equal(rig_deliver(), "S");
	hop_begin(&rig.hop, &(struct hop_script){.keywords = good.keywords, .last = "550 No"});
	put_message(1);
	assert_string_equal(rig_deliver(), "F");
	assert_int_equal(stats.messages_sent_secured, 1);
	assert_int_equal(stats.nexthop_lost, 0);
	hop_begin(&rig.hop, &(struct hop_script){.keywords = good.keywords, .last = "close"});
	put_message(1);
	assert_string_equal(rig_deliver(), "U");
	assert_int_equal(stats.nexthop_lost, 1);
	rig_disconnect();
	rig.requirement.partner = NULL;
	stats_mine = before;
}

/* The envelope cannot be read: nobody was asked for, and the session is as it was. */
static void test_delivery_no_envelope(void **state)
{
	(void)state;
	rig_connect(&good);
	put_message(2);
	rig.spool.envelope_error = -EBADMSG;
	rig.pick_count = 0;
	assert_string_equal(rig_deliver(), "");
	assert_true(rig.is_usable);
	assert_int_equal(rig.read_error, -EBADMSG);
	assert_string_equal(rig.hop.verbs, "");
	assert_in_step();
	rig_disconnect();
}

/* The text cannot be read to its end: it must not look as if it had one. */
static void test_delivery_no_text(void **state)
{
	static const size_t places[] = {0, 1, 10, 20000, 70000, 199999};
	static const char *const sets[] = {"PIPELINING", "", "PIPELINING CHUNKING"};
	static uint8_t text[200000];

	(void)state;
	memset(text, 'x', sizeof(text));
	for (unsigned i = 0; i < COUNT_OF(sets) * COUNT_OF(places); i++) {
		/* Commands that wait for their text have not left, or were not answered. */
		const bool is_eager = i / COUNT_OF(places) == 2;
		const char *verdicts;

		rig_connect(&(struct hop_script){
			.keywords = sets[i / COUNT_OF(places)], .rcpt = {"550 5.1.1 No"}});
		put_message(3);
		rig.spool.body = span_make(text, sizeof(text));
		rig.spool.error = -EIO;
		rig.spool.error_at = places[i % COUNT_OF(places)];
		rig.spool.piece_bytes = rig.spool.error_at > 0 ? rig.spool.error_at : 1;
		verdicts = rig_deliver();
		assert_true(verdicts[0] == 'F' || (is_eager && verdicts[0] == 'L'));
		assert_string_equal(verdicts + 1, "LL");
		assert_false(rig.is_usable);
		assert_true(rig.results[1].is_local);
		assert_int_equal(rig.read_error, -EIO);
		assert_string_equal(rig.lost, "");
		rig_disconnect();
		assert_int_equal(rig.hop.ends, 0);
		assert_int_equal(rig.hop.messages, 0);
		assert_int_equal(rig.spool.opened, rig.spool.ended);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_delivery_silence),
		cmocka_unit_test(test_delivery_is_answered),
		cmocka_unit_test(test_delivery_beginning),
		cmocka_unit_test(test_delivery_abort),
		cmocka_unit_test(test_delivery_counts),
		cmocka_unit_test(test_delivery_no_envelope),
		cmocka_unit_test(test_delivery_no_text),
	};

	return RIG_RUN(tests);
}
