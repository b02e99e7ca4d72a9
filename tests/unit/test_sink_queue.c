/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_sink_queue.c: the sink of deliver = queue, and what is kept of a message until the spool has
 * it, against a spool and queues that say what each test wants.
 */

#include "tests/unit/sink_queue_fixture.h"

static void test_hello(void **state)
{
	(void)state;
	assert_int_equal(own.sink.ops->hello(&own.sink), SINK_DONE);
	assert_int_equal(own.sink.offer, EHLO_SIZE | EHLO_PIPELINING | EHLO_8BITMIME |
						 EHLO_SMTPUTF8 | EHLO_CHUNKING | EHLO_BINARYMIME |
						 EHLO_DSN | EHLO_ENHANCEDSTATUSCODES);
	assert_int_equal(own.sink.offer_size, 5000);
	assert_true(own.sink.is_trusted);
	assert_int_equal(own.sink.bytes_max, 0);
}

static void check_envelope(const struct envelope *envelope)
{
	assert_int_equal(envelope->body, BODY_8BITMIME);
	assert_int_equal(envelope->flags,
		ENVELOPE_SMTPUTF8 | ENVELOPE_EIGHT_BIT | ENVELOPE_SECURED | ENVELOPE_RELAXED);
	assert_int_equal(envelope->rcpt_count, 2);
	assert_int_equal(envelope->arrived_ms, wall_ms);
	assert_int_equal(envelope->expires_ms, wall_ms + 1000);
	assert_int_equal(envelope->header_bytes, 45);
	assert_int_equal(envelope->body_bytes, 51);
	assert_int_equal(envelope->attempts, 0);
}

static void check_texts(const struct envelope *envelope)
{
	const struct {
		struct span is;
		const char *want;
	} rows[] = {
		{envelope->sender, "<a@b.example>"},
		{envelope->ret, "HDRS"},
		{envelope->envid, "QQ314159"},
		{envelope->connector, "in"},
		{envelope->send_connector, "out"},
		{envelope->session, "SESSION"},
		{envelope->client, "192.0.2.7"},
		{envelope->server, "192.0.2.25"},
		{envelope->helo, "client.example"},
		{envelope->domain, "b.example"},
		{envelope->message_id, "<1@b.example>"},
		{envelope->subject, "hello"},
		{envelope->tls, "TLSv1.3 CIPHER"},
		{envelope->origin, ""},
	};

	for (size_t i = 0; i < COUNT_OF(rows); i++)
		if (!span_equal(rows[i].is, span_of(rows[i].want)))
			fail_msg("%s, got %.*s", rows[i].want, (int)rows[i].is.len,
				(const char *)rows[i].is.data);
}

static void test_accepted(void **state)
{
	struct envelope envelope;

	(void)state;
	fake_track.is_on = true;
	fake_session.sender = (struct sink_sender){
		.grant = {.role = ROLE_PARTNER, .domain = "b.example"}, .is_proved = true};
	fake_receive.durability = DURABILITY_RELAXED;
	assert_int_equal(say_mail("MAIL FROM:<a@b.example> SIZE=9 BODY=8BITMIME SMTPUTF8 RET=HDRS "
				  "ENVID=QQ314159"),
		SINK_DONE);
	assert_int_equal(
		say_rcpt("RCPT TO:<c@d.example> NOTIFY=NEVER ORCPT=rfc822;x@y"), SINK_DONE);
	assert_int_equal(say_rcpt("RCPT TO:<e@nowhere.example>"), SINK_DONE);
	assert_int_equal(own.sink.ops->data(&own.sink), SINK_DONE);
	say_body("Subject: hello\r\nMessage-ID: ");
	say_body("<1@b.example>\r\n\r\n");
	own.sink.ops->push(&own.sink);
	say_body("\xc3\xa4\r\n");
	say_body("\r\n");
	assert_null(own.sink.via);
	assert_int_equal(own.sink.ops->finish(&own.sink), SINK_WAIT);
	assert_string_equal(own.sink.via, "queue:0000000000000abc");
	assert_string_equal(fake_spool.text,
		"Subject: hello\r\nMessage-ID: <1@b.example>\r\n\r\n\xc3\xa4\r\n\r\n");
	assert_int_equal(fake_spool.durability, DURABILITY_RELAXED);
	envelope = committed();
	check_envelope(&envelope);
	check_texts(&envelope);
	assert_int_equal(fake_session.replies, 0);
	assert_false(intake_is_idle(intake));
	commit_done(0);
	assert_true(intake_is_idle(intake));
	assert_int_equal(fake_session.replies, 1);
	assert_int_equal(fake_session.code, 250);
	assert_string_equal(fake_session.reply,
		"250 2.6.0 <1@b.example> Queued mail for delivery "
		"[InternalId=0000000000000abc, Hostname=edge.example]\r\n");
	/* The queues hear the same as the disk. */
	assert_int_equal(fake_queues.submitted, 1);
	assert_int_equal(fake_queues.submitted_id, 0xabc);
	check_envelope(&fake_queues.envelope);
	assert_string_equal(fake_queues.sender, "<a@b.example>");
	assert_string_equal(
		fake_queues.rcpts, "<c@d.example> NEVER rfc822;x@y|<e@nowhere.example>  |");
	assert_int_equal(counters.queue_accepted, 1);
	assert_int_equal(counters.queue_bytes, 51);
	assert_int_equal(fake_track.rows, 1);
	assert_int_equal(fake_track.id, 0xabc);
	assert_int_equal(fake_track.bytes, 51);
	assert_string_equal(fake_track.recipients, "c@d.example;e@nowhere.example");
	assert_string_equal(fake_track.subject, "hello");
	assert_string_equal(fake_track.message_id, "<1@b.example>");
	assert_string_equal(fake_track.connector, "in");
	assert_string_equal(fake_track.context, "SESSION");
}

/* A message without an id, or with one that no reply can have, is known by ours. */
static void test_own_id(void **state)
{
	static const char *const ids[] = {
		"X: y\r\n\r\n", "Message-ID: <\xc3\xa4@b>\r\n\r\n", "Message-ID:\r\n\r\n"};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(ids); i++) {
		fake_queues.next_id = 0x1f;
		send_message(ids[i]);
		commit_done(0);
		assert_non_null(
			strstr(fake_session.reply, " <000000000000001f@edge.example> Queued"));
	}
}

static void test_no_subject(void **state)
{
	(void)state;
	fake_track.is_on = true;
	fake_policy.queue.tracking_log_subject = false;
	send_message("Subject: secret\r\n\r\n");
	fake_policy.queue.tracking_log_subject = true;
	commit_done(0);
	assert_int_equal(fake_track.rows, 1);
	assert_string_equal(fake_track.subject, "");
	assert_true(span_equal(committed().subject, span_of("secret")));
}

static void check_flags(enum role role, unsigned want)
{
	fake_session.sender = (struct sink_sender){.grant = {.role = role, .domain = "x.example"}};
	send_message("Subject: \xc3\xa4\r\n\r\n");
	assert_int_equal(committed().flags, want);
	/* Only a partner has proved a domain. */
	assert_int_equal(committed().domain.len, role == ROLE_PARTNER ? 9 : 0);
	commit_done(0);
}

static void test_flags(void **state)
{
	const unsigned text = ENVELOPE_EIGHT_BIT | ENVELOPE_UTF8_HEADER;

	(void)state;
	check_flags(ROLE_ANONYMOUS, text);
	check_flags(ROLE_PARTNER, text | ENVELOPE_SECURED);
	check_flags(ROLE_INTERNAL, text | ENVELOPE_INTERNAL);
}

static void test_mail_refused(void **state)
{
	static const struct {
		enum spool_level level;
		bool is_full;
		int begin;
		const char *reply;
	} rows[] = {
		{SPOOL_HIGH, false, 0, "452 4.3.1 "},
		{SPOOL_FAILED, false, 0, "451 4.3.0 "},
		{SPOOL_NORMAL, true, 0, "452 4.3.1 "},
		{SPOOL_NORMAL, false, -ENOSPC, "452 4.3.1 "},
		{SPOOL_NORMAL, false, -ENOBUFS, "452 4.3.1 "},
		{SPOOL_NORMAL, false, -EIO, "451 4.3.0 "},
	};

	(void)state;
	/* Everybody's, however well known. */
	fake_session.sender = (struct sink_sender){.grant = {.role = ROLE_INTERNAL}};
	for (unsigned i = 0; i < COUNT_OF(rows); i++) {
		fake_spool.level = rows[i].level;
		fake_queues.is_full = rows[i].is_full;
		fake_spool.begin_result = rows[i].begin;
		assert_int_equal(say_mail("MAIL FROM:<>"), SINK_FAIL);
		assert_int_equal(strncmp(own.sink.refusal, rows[i].reply, 10), 0);
		assert_int_equal(counters.queue_refused, i + 1);
		assert_true(intake_is_idle(intake));
		assert_int_equal(fake_queues.taken, fake_queues.put);
	}
}

static void test_no_arrivals(void **state)
{
	struct arrival *arrivals[2048];
	struct command command = parse("MAIL FROM:<a@b.example>");
	unsigned count = 0;

	(void)state;
	while (count < COUNT_OF(arrivals) &&
		(arrivals[count] = arrival_take(intake, &fake_policy, &command)) != NULL)
		count++;
	assert_in_range(count, 1, COUNT_OF(arrivals) - 1);
	assert_int_equal(say_mail("MAIL FROM:<a@b.example>"), SINK_FAIL);
	assert_int_equal(strncmp(own.sink.refusal, "452 4.3.1", 9), 0);
	while (count > 0)
		arrival_drop(&arrivals[--count]);
	assert_int_equal(say_mail("MAIL FROM:<a@b.example>"), SINK_DONE);
}

static void check_rcpt(const char *line, enum router_verdict want)
{
	char reply[32];

	(void)snprintf(reply, sizeof(reply), "500 verdict %d", (int)want);
	assert_int_equal(say_rcpt(line), SINK_FAIL);
	assert_string_equal(own.sink.refusal, reply);
}

static void test_rcpt_refused(void **state)
{
	(void)state;
	assert_int_equal(say_mail("MAIL FROM:<a@b.example> SIZE=1001"), SINK_DONE);
	check_rcpt("RCPT TO:<a@bad.example>", ROUTER_BAD_DOMAIN);
	check_rcpt("RCPT TO:<a@small.example>", ROUTER_TOO_LARGE);
	check_rcpt("RCPT TO:<a@partner.example>", ROUTER_UNSECURED);
	/* It waits until there is a send connector. */
	assert_int_equal(say_rcpt("RCPT TO:<a@nowhere.example>"), SINK_DONE);
	assert_int_equal(say_mail("MAIL FROM:<a@b.example>"), SINK_DONE);
	assert_int_equal(say_rcpt("RCPT TO:<a@small.example>"), SINK_DONE);
}

/* Recipients in many blocks come back as they were, and there is an end to them. */
static void test_many_recipients(void **state)
{
	enum sink_status status = SINK_DONE;
	struct envelope_rcpt rcpt;
	struct envelope envelope;
	char line[512], domain[200];
	unsigned count = 0;
	size_t at = 0;

	(void)state;
	memset(domain, 'd', sizeof(domain));
	domain[63] = domain[127] = domain[191] = '.';
	domain[199] = '\0';
	assert_int_equal(say_mail("MAIL FROM:<a@b.example>"), SINK_DONE);
	while (status == SINK_DONE) {
		(void)snprintf(line, sizeof(line), "RCPT TO:<%u@%s>", count, domain);
		status = say_rcpt(line);
		count += status == SINK_DONE;
	}
	assert_int_equal(status, SINK_FAIL);
	assert_int_equal(strncmp(own.sink.refusal, "452 4.5.3", 9), 0);
	assert_in_range(count, 1000, 1300);
	assert_int_equal(own.sink.ops->data(&own.sink), SINK_DONE);
	assert_int_equal(own.sink.ops->finish(&own.sink), SINK_WAIT);
	envelope = committed();
	assert_int_equal(envelope.rcpt_count, count);
	for (unsigned i = 0; i < count; i++) {
		assert_true(envelope_next(&envelope, &at, &rcpt));
		(void)snprintf(line, sizeof(line), "<%u@%s>", i, domain);
		assert_true(span_equal(rcpt.path, span_of(line)));
	}
	assert_false(envelope_next(&envelope, &at, &rcpt));
	fake_track.is_on = true;
	commit_done(0);
	assert_int_equal(fake_queues.envelope.rcpt_count, count);
	assert_int_equal(fake_track.rows, 1);
}

/* Blocks are for all; who finds none is told to come again, and the others go on. */
static void test_no_blocks(void **state)
{
	void *taken[2048];
	char line[1024], local[340];
	unsigned count = 0;

	(void)state;
	memset(local, 'l', sizeof(local));
	local[sizeof(local) - 1] = '\0';
	(void)snprintf(line, sizeof(line), "RCPT TO:<%s@d.example>", local);
	assert_int_equal(say_mail("MAIL FROM:<a@b.example>"), SINK_DONE);
	while (count < COUNT_OF(taken) && (taken[count] = pool_take(&intake->blocks)) != NULL)
		count++;
	for (unsigned i = 0; i < 12; i++)
		assert_int_equal(say_rcpt("RCPT TO:<c@d.example>"), SINK_DONE);
	assert_int_equal(say_rcpt(line), SINK_FAIL);
	assert_int_equal(strncmp(own.sink.refusal, "452 4.3.1", 9), 0);
	/* Nor is there room for the rest of the envelope. */
	assert_int_equal(own.sink.ops->data(&own.sink), SINK_DONE);
	assert_int_equal(own.sink.ops->finish(&own.sink), SINK_FAIL);
	assert_int_equal(strncmp(own.sink.refusal, "452 4.3.1", 9), 0);
	own.sink.ops->abandon(&own.sink);
	assert_int_equal(fake_spool.abandoned, 1);
	(void)snprintf(line, sizeof(line), "MAIL FROM:<%s%s@b.example>", local, local);
	assert_int_equal(say_mail(line), SINK_FAIL);
	while (count > 0)
		pool_put(&intake->blocks, taken[--count]);
	assert_int_equal(say_mail(line), SINK_DONE);
}

static void test_room(void **state)
{
	(void)state;
	assert_int_equal(say_mail("MAIL FROM:<a@b.example>"), SINK_DONE);
	assert_int_equal(say_rcpt("RCPT TO:<c@d.example>"), SINK_DONE);
	fake_spool.room = 0;
	assert_int_equal(own.sink.ops->data(&own.sink), SINK_WAIT);
	fake_spool.room = 5000;
	fake_spool.writer->events->on_room(fake_spool.writer);
	assert_int_equal(fake_session.code, 354);
	assert_int_equal(own.sink.ops->room(&own.sink), 5000);
	/* Not asked for: nobody is told. */
	fake_spool.writer->events->on_room(fake_spool.writer);
	assert_int_equal(fake_session.ready, 0);
	fake_spool.room = 0;
	assert_int_equal(own.sink.ops->room(&own.sink), 0);
	fake_spool.room = 4096;
	fake_spool.writer->events->on_room(fake_spool.writer);
	assert_int_equal(fake_session.ready, 1);
	assert_int_equal(fake_session.replies, 1);
}

static void check_broken(int error, unsigned code, const char *reply)
{
	const unsigned abandoned = fake_spool.abandoned;

	assert_int_equal(say_mail("MAIL FROM:<a@b.example>"), SINK_DONE);
	assert_int_equal(say_rcpt("RCPT TO:<c@d.example>"), SINK_DONE);
	assert_int_equal(own.sink.ops->data(&own.sink), SINK_DONE);
	say_body("text");
	fake_spool.writer->events->on_broken(fake_spool.writer, error);
	assert_int_equal(fake_session.code, code);
	assert_string_equal(fake_session.reply, reply);
	assert_int_equal(fake_spool.abandoned, abandoned + 1);
	assert_true(own.sink.ops->room(&own.sink) == SIZE_MAX);
	say_body("nobody wants it");
	assert_int_equal(fake_spool.text_len, 4);
}

static void test_broken(void **state)
{
	(void)state;
	check_broken(-EIO, 451, "451 4.3.0 Messages cannot be stored now, try again later\r\n");
	check_broken(-ENOSPC, 452, "452 4.3.1 Insufficient system resources\r\n");
	assert_int_equal(fake_session.broken, 2);
	assert_int_equal(counters.queue_refused, 2);
	/* While DATA waits for room, it is its answer. */
	assert_int_equal(say_mail("MAIL FROM:<a@b.example>"), SINK_DONE);
	assert_int_equal(say_rcpt("RCPT TO:<c@d.example>"), SINK_DONE);
	fake_spool.room = 0;
	assert_int_equal(own.sink.ops->data(&own.sink), SINK_WAIT);
	fake_spool.writer->events->on_broken(fake_spool.writer, -EIO);
	assert_int_equal(fake_session.broken, 2);
	assert_int_equal(fake_session.replies, 1);
	assert_int_equal(fake_session.code, 451);
	/* A session that had not heard would be refused at the end. */
	assert_int_equal(own.sink.ops->finish(&own.sink), SINK_FAIL);
	assert_int_equal(strncmp(own.sink.refusal, "451 4.3.0", 9), 0);
}

/* Between MAIL and DATA: the session lets go, and what its client has sent already is refused. */
static void test_broken_early(void **state)
{
	(void)state;
	assert_int_equal(say_mail("MAIL FROM:<a@b.example>"), SINK_DONE);
	fake_spool.writer->events->on_broken(fake_spool.writer, -EIO);
	assert_int_equal(fake_session.broken, 1);
	own.sink.ops->abandon(&own.sink);
	own.sink.refusal = "";
	assert_int_equal(say_rcpt("RCPT TO:<c@d.example>"), SINK_FAIL);
	assert_int_equal(strncmp(own.sink.refusal, "451 4.3.0", 9), 0);
	own.sink.refusal = "";
	assert_int_equal(own.sink.ops->data(&own.sink), SINK_FAIL);
	assert_int_equal(strncmp(own.sink.refusal, "451 4.3.0", 9), 0);
	assert_true(own.sink.ops->room(&own.sink) > 0);
	own.sink.ops->body(&own.sink, span_of("text"));
}

static void test_commit_failed(void **state)
{
	static const struct {
		int result;
		const char *reply;
	} rows[] = {
		{-EIO, "451 4.3.0 The message could not be stored\r\n"},
		{-ENOSPC, "452 4.3.1 Insufficient system resources\r\n"},
		{-ENOBUFS, "452 4.3.1 Insufficient system resources\r\n"},
	};

	(void)state;
	fake_track.is_on = true;
	for (unsigned i = 0; i < COUNT_OF(rows); i++) {
		send_message("X: y\r\n\r\n");
		commit_done(rows[i].result);
		assert_string_equal(fake_session.reply, rows[i].reply);
		assert_int_equal(fake_session.code, strtoul(rows[i].reply, NULL, 10));
		assert_int_equal(fake_queues.put, i + 1);
		assert_true(intake_is_idle(intake));
	}
	assert_int_equal(fake_queues.submitted, 0);
	assert_int_equal(fake_track.rows, 0);
	assert_int_equal(counters.queue_refused, COUNT_OF(rows));
	assert_int_equal(counters.queue_accepted, 0);
}

/* RFC 5321 6.1: what was complete is ours, though nobody is left to hear it. */
static void test_client_gone(void **state)
{
	(void)state;
	send_message("X: y\r\n\r\n");
	own.sink.ops->abandon(&own.sink);
	assert_int_equal(fake_spool.abandoned, 0);
	assert_false(intake_is_idle(intake));
	commit_done(0);
	assert_int_equal(fake_session.replies, 0);
	assert_int_equal(fake_queues.submitted, 1);
	assert_true(intake_is_idle(intake));
	send_message("X: y\r\n\r\n");
	sink_queue_fini(&own);
	commit_done(-EIO);
	assert_int_equal(fake_session.replies, 0);
	assert_int_equal(fake_queues.submitted, 1);
	assert_int_equal(fake_queues.put, 1);
}

/* The next transaction of a session need not wait for the one that it has left. */
static void test_next_while_committing(void **state)
{
	struct spool_writer *first;

	(void)state;
	send_message("X: 1\r\n\r\n");
	first = fake_spool.writer;
	own.sink.ops->abandon(&own.sink);
	send_message("X: 2\r\n\r\n");
	assert_ptr_not_equal(first, fake_spool.writer);
	first->events->on_committed(first, 0);
	assert_int_equal(fake_queues.submitted_id, 0xabc);
	assert_int_equal(fake_session.replies, 0);
	commit_done(0);
	assert_int_equal(fake_queues.submitted_id, 0xabd);
	assert_int_equal(fake_session.replies, 1);
}

/* A session forgets a transaction from within the answer to it. */
static void test_reset_by_answer(void **state)
{
	(void)state;
	fake_session.leaves = true;
	send_message("X: y\r\n\r\n");
	commit_done(0);
	assert_int_equal(fake_session.code, 250);
	assert_int_equal(fake_spool.abandoned, 0);
}

static void test_abandoned(void **state)
{
	(void)state;
	own.sink.ops->abandon(&own.sink);
	assert_int_equal(say_mail("MAIL FROM:<a@b.example>"), SINK_DONE);
	assert_int_equal(say_rcpt("RCPT TO:<c@d.example>"), SINK_DONE);
	own.sink.ops->abandon(&own.sink);
	assert_int_equal(fake_spool.abandoned, 1);
	assert_int_equal(fake_queues.put, 1);
	assert_true(intake_is_idle(intake));
}

static void test_move(void **state)
{
	static const struct receive_connector other = {.name = "other", .max_message_bytes = 7};
	struct sink_queue_options options = own.options;

	(void)state;
	options.receive = &other;
	options.connector = NULL;
	sink_queue_move(&own, &options);
	assert_int_equal(own.sink.ops->hello(&own.sink), SINK_DONE);
	assert_int_equal(own.sink.offer_size, 7);
	send_message("X: y\r\n\r\n");
	assert_true(span_equal(committed().connector, span_of("other")));
	assert_int_equal(committed().send_connector.len, 0);
	commit_done(0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SINK_TEST(test_hello),
		SINK_TEST(test_accepted),
		SINK_TEST(test_own_id),
		SINK_TEST(test_no_subject),
		SINK_TEST(test_flags),
		SINK_TEST(test_mail_refused),
		SINK_TEST(test_no_arrivals),
		SINK_TEST(test_rcpt_refused),
		SINK_TEST(test_many_recipients),
		SINK_TEST(test_no_blocks),
		SINK_TEST(test_room),
		SINK_TEST(test_broken),
		SINK_TEST(test_broken_early),
		SINK_TEST(test_commit_failed),
		SINK_TEST(test_client_gone),
		SINK_TEST(test_next_while_committing),
		SINK_TEST(test_reset_by_answer),
		SINK_TEST(test_abandoned),
		SINK_TEST(test_move),
	};

	return cmocka_run_group_tests_name("sink queue", tests, NULL, NULL);
}
