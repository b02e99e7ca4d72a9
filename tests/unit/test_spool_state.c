/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/spool_state.h"

#include "tests/unit/spool_image.h"

static struct spool_state *known;

static int set_up(void **state)
{
	(void)state;
	image_open();
	image_begin(1);
	return spool_state_create(&known);
}

static int tear_down(void **state)
{
	(void)state;
	spool_state_destroy(&known);
	assert_null(known);
	spool_state_destroy(&known);
	image_close();
	return 0;
}

/* Applies the record at that place of the image. */
static int apply(uint32_t at)
{
	struct spool_scan_record record = {.offset = at};

	assert_int_equal(record_read(span_make(image + at, IMAGE_BYTES - at), image_segment,
				 &record.head, &record.payload),
		RECORD_GOOD);
	return spool_state_apply(known, &record);
}

static void expect_facts(unsigned messages, unsigned done, unsigned open)
{
	struct spool_state_facts facts;

	spool_state_facts(known, &facts);
	assert_int_equal(facts.messages, messages);
	assert_int_equal(facts.done, done);
	assert_int_equal(facts.open_rcpts, open);
}

static void test_life(void **state)
{
	const struct spool_state_message *message;
	const uint32_t at = image_message(7, NULL, 0, span_of("x\r\n"));
	(void)state;

	expect_facts(0, 0, 0);
	assert_null(spool_state_find(known, 7));
	assert_int_equal(apply(at), 0);
	expect_facts(1, 0, 2);
	message = spool_state_find(known, 7);
	assert_non_null(message);
	assert_int_equal(message->segment, 1);
	assert_int_equal(message->offset, at);
	assert_int_equal(message->body_bytes, 3);
	assert_int_equal(message->arrived_ms, 1795967999123);
	assert_int_equal(apply(image_change(7, 1, RCPT_FAILED)), 0);
	expect_facts(1, 0, 1);
	assert_int_equal(message->rcpt_states[0], RCPT_OPEN);
	assert_int_equal(message->rcpt_states[1], RCPT_FAILED);
	assert_int_equal(message->attempts, 2);
	/* Told twice it is the same; and it may be opened again. */
	assert_int_equal(apply(image_change(7, 1, RCPT_FAILED)), 0);
	expect_facts(1, 0, 1);
	assert_int_equal(apply(image_change(7, 1, RCPT_OPEN)), 0);
	expect_facts(1, 0, 2);
	assert_int_equal(apply(image_done(7)), 0);
	expect_facts(0, 1, 0);
	assert_true(message->is_done);
	/* What comes later changes nothing. */
	assert_int_equal(apply(image_change(7, 0, RCPT_FAILED)), 0);
	assert_int_equal(apply(image_done(7)), 0);
	expect_facts(0, 1, 0);
}

/* Moved: the later one counts. */
static void test_moved(void **state)
{
	uint32_t again;
	(void)state;

	assert_int_equal(apply(image_message(7, NULL, 0, span_of("x\r\n"))), 0);
	assert_int_equal(apply(image_message(8, NULL, 0, span_of("y\r\n"))), 0);
	assert_int_equal(apply(image_change(7, 0, RCPT_DELIVERED)), 0);
	again = image_message(7, NULL, 0, span_of("longer\r\n"));
	assert_int_equal(apply(again), 0);
	expect_facts(2, 0, 4);
	assert_int_equal(spool_state_find(known, 7)->offset, again);
	assert_int_equal(spool_state_find(known, 7)->body_bytes, 8);
	assert_int_equal(spool_state_at(known, 0)->id, 7);
	assert_int_equal(spool_state_at(known, 1)->id, 8);
	assert_null(spool_state_at(known, 2));
}

/* The segment of its MESSAGE was used again. */
static void test_unknown(void **state)
{
	(void)state;

	assert_int_equal(apply(image_change(7, 0, RCPT_DELIVERED)), 0);
	assert_int_equal(apply(image_done(7)), 0);
	assert_int_equal(apply(0), 0);
	assert_int_equal(apply(image_body(7, 0, span_of("x"))), 0);
	assert_int_equal(apply(image_add(RECORD_NOTE, 1, span_of("note"))), 0);
	assert_int_equal(apply(image_add(RECORD_SEAL, 0, (struct span){0})), 0);
	expect_facts(0, 0, 0);
}

/* Good checksums over what nobody should have written. */
static void test_odd(void **state)
{
	static const enum record_type types[] = {
		RECORD_BODY, RECORD_MESSAGE, RECORD_RECIPIENTS, RECORD_DONE, RECORD_SEAL};
	(void)state;

	assert_int_equal(apply(image_message(7, NULL, 0, span_of("x\r\n"))), 0);
	for (size_t i = 0; i < COUNT_OF(types); i++)
		assert_int_equal(apply(image_add(types[i], 7, span_of("odd"))), -EBADMSG);
	assert_int_equal(apply(image_change(7, 2, RCPT_FAILED)), -EBADMSG);
	expect_facts(1, 0, 2);
}

/* More than the first table has room for, with ids that are not in a row. */
static void test_many(void **state)
{
	enum { MANY = 5000 };
	struct spool_state_facts facts;
	(void)state;

	for (uint64_t i = 0; i < MANY; i++) {
		image_begin(1);
		assert_int_equal(apply(image_message(i << 32 | i, NULL, 0, span_of("x\r\n"))), 0);
	}
	spool_state_facts(known, &facts);
	assert_int_equal(facts.messages, MANY);
	assert_int_equal(facts.body_bytes, 3 * MANY);
	for (uint64_t i = 0; i < MANY; i++)
		assert_non_null(spool_state_find(known, i << 32 | i));
	assert_null(spool_state_find(known, MANY));
}

#define WITH_STATE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_STATE(test_life),
		WITH_STATE(test_moved),
		WITH_STATE(test_unknown),
		WITH_STATE(test_odd),
		WITH_STATE(test_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
