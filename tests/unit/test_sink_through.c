/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_sink_through.c: straight through, or into the queue: every combination of what a next hop
 * can say at MAIL, to two recipients, to DATA, in the body and at the end, against a model.
 */

#include "tests/unit/sink_through_fixture.h"

/*
 * What the next hop does: 2, 4, 5 and 3 (354) are its answers, L: it is lost, or we refuse for it;
 * F: the call itself fails; D: the call is done at once; X: it lacks a keyword; S: it is silent.
 * Of the queue: 2, 4: the answer to the commit; F: it cannot begin one.
 */
struct script {
	char mail, rcpt[2], data, body, end, spare;
};

/* What has to come of it. */
struct outcome {
	bool is_over;     /* the client was refused, and the transaction has ended */
	bool is_with_hop; /* still */
	bool is_split;
	unsigned accepted; /* recipients, as the client knows */
	unsigned by_hop;
	unsigned end_code;
	bool is_through, is_kept, is_doubtful;
};

static char step_name[96];

static void step(const struct script *script)
{
	(void)snprintf(step_name, sizeof(step_name), "mail %c rcpt %c%c data %c body %c end %c %c",
		script->mail, script->rcpt[0], script->rcpt[1], script->data, script->body,
		script->end, script->spare);
}

#define EXPECT(what)                                                                               \
	do {                                                                                       \
		if (!(what))                                                                       \
			fail_msg("%s: line %d: " #what ", the client has %s", step_name, __LINE__, \
				client.reply);                                                     \
	} while (0)

/* What the call to hop shall say. */
static void arrange(char how)
{
	hop.next = how == 'F' ? SINK_FAIL : how == 'D' ? SINK_DONE : SINK_WAIT;
	hop.lacks = how == 'X';
}

static bool is_called_back(char how)
{
	return how != 'F' && how != 'D' && how != 'X';
}

static void answer(char how)
{
	static const char *const lines[] = {
		['2'] = "250 hop\r\n",
		['3'] = "354 hop\r\n",
		['4'] = "450 hop\r\n",
		['5'] = "550 hop\r\n",
	};

	if (how == 'L')
		hop_is_lost();
	else
		hop_says(lines[(unsigned char)how]);
}

static void run_mail(const struct script *script, struct outcome *outcome)
{
	const char how = script->mail;

	arrange(how);
	spare.next = SINK_DONE;
	EXPECT(say_mail() == (is_called_back(how) ? SINK_WAIT : SINK_DONE));
	if (is_called_back(how)) {
		EXPECT(say_rcpt() == SINK_FULL);
		answer(how);
		EXPECT(client.replies == 1 && client.code == (how == '5' ? 550 : 250));
	}
	outcome->is_over = how == '5';
	outcome->is_with_hop = how == '2' || how == 'D';
}

static void run_rcpt(char how, struct outcome *outcome)
{
	const bool is_asked = outcome->is_with_hop && is_called_back(how);
	const unsigned before = client.replies;

	arrange(how);
	EXPECT(say_rcpt() == (is_asked ? SINK_WAIT : SINK_DONE));
	if (is_asked) {
		EXPECT(say_rcpt() == SINK_FULL);
		answer(how);
		EXPECT(client.replies == before + 1);
		EXPECT(client.code == (how == '5' ? 550 : 250));
	}
	if (is_asked && how == '5')
		return;
	outcome->accepted++;
	if (is_asked && how == '2')
		outcome->by_hop++;
	else if (is_asked && how == 'L')
		outcome->is_with_hop = false;
	else
		outcome->is_split = true;
}

static void run_data(const struct script *script, struct outcome *outcome)
{
	const bool is_asked = outcome->is_with_hop && !outcome->is_split && outcome->by_hop > 0;
	const char how = script->data;

	arrange(how);
	if (!is_asked || !is_called_back(how)) {
		EXPECT(say_data() == SINK_DONE);
		outcome->is_with_hop = is_asked && how == 'D';
		EXPECT(hop.is_open == outcome->is_with_hop);
		return;
	}
	EXPECT(say_data() == SINK_WAIT);
	answer(how);
	EXPECT(client.code == (how == '5' ? 550 : 354));
	outcome->is_over = how == '5';
	outcome->is_with_hop = how == '3';
}

static void run_body(const struct script *script, struct outcome *outcome)
{
	const char how = script->body;

	say_body("Subject: x\r\n");
	if (outcome->is_with_hop && (how == '5' || how == '4' || how == 'L')) {
		hop.is_answer = how != 'L';
		hop.sink.events->on_broken(&hop.sink, how == '5' ? 550 : 451,
			span_of(how == '5' ? "550 hop\r\n" : "451 hop\r\n"));
		EXPECT(client.broken == (how == '5'));
		EXPECT(client.ready == 0);
		outcome->is_over = how == '5';
		outcome->is_with_hop = false;
	}
	if (outcome->is_with_hop && how == 'S') {
		hop.room = 0;
		EXPECT(own.sink.ops->room(&own.sink) == 0);
		pass_ms(THROUGH_ANSWER_MS + 200);
		EXPECT(client.ready == 1);
		outcome->is_with_hop = false;
	}
	if (outcome->is_over)
		return;
	EXPECT(own.sink.ops->room(&own.sink) >= SINK_ROOM_MIN);
	say_body("\r\ntext\r\n");
}

static void run_end(const struct script *script, struct outcome *outcome)
{
	const char how = script->end;
	bool is_for_spare = !outcome->is_with_hop;
	enum sink_status status;

	arrange(how);
	spare.next = script->spare == 'F' ? SINK_FAIL : SINK_WAIT;
	status = say_end();
	if (outcome->is_with_hop && how != 'F') {
		EXPECT(status == SINK_WAIT);
		EXPECT(!spare.is_finished);
		answer(how);
		is_for_spare = how == '4' || how == 'L';
		outcome->is_through = how == '2';
		outcome->is_doubtful = how == 'L';
		outcome->end_code = how == '2' ? 250 : 550;
	} else if (outcome->is_with_hop) {
		is_for_spare = true;
	}
	EXPECT(spare.is_finished == is_for_spare);
	if (!is_for_spare)
		return;
	if (script->spare == 'F') {
		/* By the call, or, where that is over, by an answer. */
		EXPECT(status == SINK_FAIL ? strcmp(own.sink.refusal, spare.sink.refusal) == 0
					   : client.code == 451);
		outcome->end_code = 451;
		return;
	}
	EXPECT(!hop.is_open);
	spare_says(script->spare == '2' ? "250 queued\r\n" : "451 disk\r\n");
	outcome->is_kept = script->spare == '2';
	outcome->end_code = script->spare == '2' ? 250 : 451;
}

/* Where the message is, and what the client believes. */
static void check_end(const struct script *script, const struct outcome *outcome)
{
	if (script->spare != 'F')
		EXPECT(client.code == outcome->end_code);
	EXPECT(counters.queue_through == outcome->is_through);
	EXPECT(counters.queue_through_kept == outcome->is_kept);
	EXPECT(counters.queue_through_doubtful == outcome->is_doubtful);
	EXPECT(spare.passed == outcome->is_through);
	/* Whom the queue has are those whom the client believes accepted, and nobody else. */
	EXPECT(spare.rcpts == outcome->accepted);
	if (outcome->is_through)
		EXPECT(outcome->by_hop == outcome->accepted && !spare.is_finished);
	if (spare.is_finished)
		EXPECT(strcmp(spare.text, "Subject: x\r\n\r\ntext\r\n") == 0);
	if (hop.is_finished)
		EXPECT(strcmp(hop.text, "Subject: x\r\n\r\ntext\r\n") == 0);
}

/* From DATA on. */
static void run_text(const struct script *script, struct outcome *outcome)
{
	run_data(script, outcome);
	if (!outcome->is_over)
		run_body(script, outcome);
	if (!outcome->is_over) {
		run_end(script, outcome);
		check_end(script, outcome);
		return;
	}
	EXPECT(!spare.is_finished && !hop.is_finished);
}

static void run_script(const struct script *script)
{
	struct outcome outcome = {0};

	step(script);
	through_restart();
	run_mail(script, &outcome);
	for (int i = 0; i < 2 && !outcome.is_over; i++)
		run_rcpt(script->rcpt[i], &outcome);
	if (!outcome.is_over && outcome.accepted > 0)
		run_text(script, &outcome);
	sink_through_fini(&own);
	EXPECT(!hop.is_open && !spare.is_open && wheel.count == 0);
}

static void test_every_combination(void **state)
{
	static const char *const choice[] = {
		"2D45LF", "245LFX", "245LFX", "D345LF2", "-45LS", "245LF", "24F"};
	size_t at[COUNT_OF(choice)] = {0};
	unsigned count = 0;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(choice);) {
		run_script(&(struct script){.mail = choice[0][at[0]],
			.rcpt = {choice[1][at[1]], choice[2][at[2]]},
			.data = choice[3][at[3]],
			.body = choice[4][at[4]],
			.end = choice[5][at[5]],
			.spare = choice[6][at[6]]});
		count++;
		for (i = 0; i < COUNT_OF(choice) && choice[i][++at[i]] == '\0'; i++)
			at[i] = 0;
	}
	assert_int_equal(count, 6 * 6 * 6 * 7 * 5 * 5 * 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			test_every_combination, through_setup, through_teardown),
	};

	return cmocka_run_group_tests_name("sink through", tests, NULL, NULL);
}
