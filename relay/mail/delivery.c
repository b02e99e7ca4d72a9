/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/delivery_private.h"

#include "relay/base/log.h"
#include "relay/base/stats.h"

/*
 * delivery.c: the machine of one attempt. There are two cursors, what was written and what was
 * answered; replies come in the order of the commands. A small message's text goes out behind its
 * RCPTs, so that answers to those come in BODY and FINISH, too. In RESET everybody is settled, and
 * what is still owed is awaited, so that the session can be used for another message.
 */

static const uint16_t delivery_next[DELIVERY_STATE_COUNT] = {
	[DELIVERY_IDLE] = BIT(DELIVERY_READ),
	[DELIVERY_READ] = BIT(DELIVERY_ENVELOPE) | BIT(DELIVERY_IDLE),
	[DELIVERY_ENVELOPE] =
		BIT(DELIVERY_DATA) | BIT(DELIVERY_BODY) | BIT(DELIVERY_RESET) | BIT(DELIVERY_IDLE),
	[DELIVERY_DATA] = BIT(DELIVERY_BODY) | BIT(DELIVERY_RESET) | BIT(DELIVERY_IDLE),
	[DELIVERY_BODY] = BIT(DELIVERY_FINISH) | BIT(DELIVERY_RESET) | BIT(DELIVERY_IDLE),
	[DELIVERY_FINISH] = BIT(DELIVERY_RESET) | BIT(DELIVERY_IDLE),
	[DELIVERY_RESET] = BIT(DELIVERY_IDLE),
};

static const struct client_events delivery_client_events;
static const struct spool_reader_events delivery_reader_events;

void delivery_enter(struct delivery *delivery, enum delivery_state state)
{
	ASSERT(delivery->state < DELIVERY_STATE_COUNT &&
		delivery_next[delivery->state] & BIT(state));
	delivery->state = state;
}

void delivery_init(struct delivery *delivery)
{
	delivery->state = DELIVERY_IDLE;
	delivery->lost = NULL;
	delivery->is_answered = false;
}

/* What the attempt before has left. */
static void delivery_forget(struct delivery *delivery)
{
	delivery->lost = NULL;
	delivery->is_answered = false;
	delivery->envelope = (struct envelope){0};
	delivery->cursor = (struct delivery_cursor){0};
	delivery->count = 0;
	delivery->written = 0;
	delivery->answered = 0;
	delivery->accepted = 0;
	memset(delivery->verdicts, 0, sizeof(delivery->verdicts));
	delivery->is_mail_written = false;
	delivery->is_mail_answered = false;
	delivery->is_data_written = false;
	delivery->is_data_answered = false;
	delivery->is_reset_written = false;
	delivery->is_open = false;
	delivery->is_reading = false;
	delivery->is_last_text = false;
	memset(delivery->is_settled, 0, sizeof(delivery->is_settled));
	firewall_init(&delivery->firewall, FIREWALL_ORGANIZATION, "");
}

void delivery_start(struct delivery *delivery, struct spool *spool, struct spool_message *message)
{
	struct client *client = delivery->client;

	ASSERT(client->state == CLIENT_READY && client->owed == 0);
	delivery_enter(delivery, DELIVERY_READ);
	delivery_forget(delivery);
	delivery->id = message->id;
	client->events = &delivery_client_events;
	client->owner = delivery;
	text_out_init(&delivery->out,
		client->connector->chunking && client->offer.keywords & EHLO_CHUNKING);
	spool_reader_init(&delivery->reader, spool, &delivery_reader_events);
	spool_read(&delivery->reader, message);
}

void delivery_abort(struct delivery *delivery)
{
	ASSERT(delivery->state != DELIVERY_IDLE);
	spool_read_end(&delivery->reader);
	delivery_enter(delivery, DELIVERY_IDLE);
}

bool delivery_knows_dsn(const struct delivery *delivery)
{
	return (delivery->client->offer.keywords & EHLO_DSN) != 0;
}

static void delivery_log(const struct delivery *delivery, bool is_usable, int read_error)
{
	const uint32_t *verdicts = delivery->verdicts;
	char id[MESSAGE_ID_TEXT_BYTES];
	char lost[224];

	message_id_print(delivery->id, id);
	log_event(LOG_LEVEL_DEBUG, delivery->client->id, "delivery",
		"message=%s accepted=%u sent=%u failed=%u later=%u unknown=%u bytes=%lu "
		"usable=%s lost=%s error=%d",
		id, delivery->accepted, verdicts[DELIVERY_SENT], verdicts[DELIVERY_FAILED],
		verdicts[DELIVERY_LATER], verdicts[DELIVERY_LOST],
		(unsigned long)delivery->out.bytes, is_usable ? "yes" : "no",
		log_quote_text(delivery->lost, lost, sizeof(lost)), -read_error);
}

void delivery_end(struct delivery *delivery, bool is_usable, int read_error)
{
	STAT_ADD(headers_removed, delivery->firewall.removed);
	delivery_log(delivery, is_usable, read_error);
	spool_read_end(&delivery->reader);
	delivery_enter(delivery, DELIVERY_IDLE);
	delivery->events->on_end(delivery, is_usable, read_error);
}

/* The attempt and the session end at once. */
static void delivery_break(struct delivery *delivery, struct delivery_result result)
{
	delivery_settle_rest(delivery, result);
	delivery_end(delivery, false, 0);
}

/* What else the next hop says cannot be trusted to belong to what it is taken for. */
static void delivery_break_senseless(struct delivery *delivery, const char *verb)
{
	delivery_break(
		delivery, delivery_result_local(DELIVERY_LATER,
				  "451 4.3.0 The next hop's answer to %s makes no sense", verb));
}

/* RESET. */

/* All are settled: what is owed is awaited, then an open transaction is ended. */
static void delivery_rest(struct delivery *delivery)
{
	struct client *client = delivery->client;

	if (client->owed > 0)
		return;
	if (!delivery->is_open) {
		delivery_end(delivery, true, 0);
		return;
	}
	/* What was written has left, as it was answered: there is room. */
	delivery->is_reset_written = true;
	client_command(client, span_of("RSET\r\n"));
	client_flush(client);
}

static void delivery_give_up(struct delivery *delivery)
{
	/* What a next hop has made of a chunk that it refused nobody knows (RFC 3030 2). */
	delivery->is_open = delivery->is_open || delivery->out.has_begun;
	delivery_enter(delivery, DELIVERY_RESET);
	text_out_stop(&delivery->out, delivery->client);
	delivery_rest(delivery);
}

/*
 * DATA had gone out when nobody was accepted, and the next hop wants to have the text all the same:
 * it gets none, and is expected to refuse that (RFC 2920 3.1).
 */
static void delivery_send_nothing(struct delivery *delivery)
{
	text_out_finish(&delivery->out, delivery->client);
	delivery->is_open = false;
}

/* Is it what may come where everybody is settled? */
static bool delivery_take_late_reply(struct delivery *delivery, const struct reply *reply)
{
	const bool is_refusal = reply->code >= 400;

	if (delivery->answered < delivery->written) {
		/* RCPT behind a MAIL that was refused. */
		delivery->answered++;
		return is_refusal;
	}
	if (text_out_take_reply(&delivery->out))
		return true;
	if (delivery->is_data_written && !delivery->is_data_answered) {
		delivery->is_data_answered = true;
		if (reply->code == 354)
			delivery_send_nothing(delivery);
		return is_refusal || reply->code == 354;
	}
	/*
	 * Of a message for nobody any answer will do, and it was over with the end of data. But a
	 * message of which a chunk was refused must not be accepted: it is not whole.
	 */
	return is_refusal || (reply->code < 300 && !delivery->out.uses_bdat);
}

static void delivery_on_late_reply(struct delivery *delivery, const struct reply *reply)
{
	if (delivery->is_reset_written)
		delivery_end(delivery, reply->code < 300, 0);
	else if (delivery_take_late_reply(delivery, reply))
		delivery_rest(delivery);
	else
		delivery_end(delivery, false, 0);
}

/* ENVELOPE and DATA. */

/* An answer to MAIL or RCPT has come: what is next? */
static void delivery_go_on(struct delivery *delivery)
{
	if (delivery->answered < delivery->count) {
		if (delivery->state == DELIVERY_ENVELOPE)
			delivery_send_commands(delivery);
	} else if (delivery->accepted == 0) {
		delivery_give_up(delivery);
	} else if (delivery->state != DELIVERY_ENVELOPE) {
		return; /* the text has not waited for the answers */
	} else if (delivery->out.uses_bdat) {
		delivery_begin_body(delivery);
	} else {
		delivery_enter(delivery, DELIVERY_DATA);
		delivery_send_commands(delivery);
	}
}

static void delivery_on_mail_reply(struct delivery *delivery, const struct reply *reply)
{
	delivery->is_mail_answered = true;
	if (reply->code < 300) {
		delivery->is_open = true;
		delivery_go_on(delivery);
	} else if (reply->code < 400) {
		delivery_break_senseless(delivery, "MAIL");
	} else {
		delivery_settle_rest(delivery, delivery_result_of(reply));
		delivery_give_up(delivery);
	}
}

static void delivery_on_rcpt_reply(struct delivery *delivery, const struct reply *reply)
{
	const uint32_t at = delivery->answered;
	struct delivery_result result;

	ASSERT(at < delivery->written);
	if (reply->code >= 300 && reply->code < 400) {
		delivery_break_senseless(delivery, "RCPT");
		return;
	}
	delivery->answered++;
	if (reply->code < 300) {
		delivery->accepted++;
	} else {
		result = delivery_result_of(reply);
		delivery_settle(delivery, at, &result);
	}
	delivery_go_on(delivery);
}

static void delivery_on_data_reply(struct delivery *delivery, const struct reply *reply)
{
	delivery->is_data_answered = true;
	if (reply->code == 354) {
		delivery_begin_body(delivery);
	} else if (reply->code < 400) {
		delivery_break_senseless(delivery, "DATA");
	} else {
		delivery_settle_rest(delivery, delivery_result_of(reply));
		delivery_give_up(delivery);
	}
}

/* BODY and FINISH. */

/*
 * To a chunk that is not the last: only bad news matters. What is on its way already is answered
 * the same.
 */
static void delivery_on_chunk_reply(struct delivery *delivery, const struct reply *reply)
{
	if (reply->code < 300)
		return;
	if (reply->code < 400) {
		delivery_break_senseless(delivery, "BDAT");
		return;
	}
	delivery_settle_rest(delivery, delivery_result_of(reply));
	delivery_give_up(delivery);
}

/* To the message. */
static void delivery_on_final_reply(struct delivery *delivery, const struct reply *reply)
{
	const bool is_sent = reply->code < 300;

	delivery->client->message_count++;
	if (reply->code >= 300 && reply->code < 400) {
		delivery_break_senseless(delivery, "the end of the message");
		return;
	}
	if (is_sent && delivery->client->requirement->partner != NULL)
		STAT(messages_sent_secured);
	/* A refused chunk leaves the transaction to be ended by RSET (RFC 3030 2). */
	delivery->is_open = delivery->out.uses_bdat && !is_sent;
	delivery_settle_rest(delivery, delivery_result_of(reply));
	if (delivery->is_open)
		delivery_give_up(delivery);
	else
		delivery_end(delivery, true, 0);
}

/* The client's events. */

/* Of MAIL, or else of RCPT. */
static void delivery_on_envelope_reply(struct delivery *delivery, const struct reply *reply)
{
	if (delivery->is_mail_answered)
		delivery_on_rcpt_reply(delivery, reply);
	else
		delivery_on_mail_reply(delivery, reply);
}

static void delivery_on_reply(struct client *client, const struct reply *reply)
{
	struct delivery *delivery = client->owner;

	if (reply->code == 421) {
		delivery_break(delivery, delivery_result_of(reply));
		return;
	}
	delivery->is_answered = true;
	switch (delivery->state) {
	case DELIVERY_ENVELOPE:
		delivery_on_envelope_reply(delivery, reply);
		break;
	case DELIVERY_DATA:
		delivery_on_data_reply(delivery, reply);
		break;
	case DELIVERY_BODY:
	case DELIVERY_FINISH:
		if (delivery->answered < delivery->count)
			delivery_on_envelope_reply(delivery, reply);
		else if (text_out_take_reply(&delivery->out))
			delivery_on_chunk_reply(delivery, reply);
		else
			delivery_on_final_reply(delivery, reply);
		break;
	case DELIVERY_RESET:
		delivery_on_late_reply(delivery, reply);
		break;
	case DELIVERY_IDLE:
	case DELIVERY_READ: /* nothing is owed: the client takes a reply for a failure */
	case DELIVERY_STATE_COUNT:
		UNREACHABLE();
	}
}

static void delivery_on_drained(struct client *client)
{
	struct delivery *delivery = client->owner;

	switch (delivery->state) {
	case DELIVERY_ENVELOPE:
	case DELIVERY_DATA:
		delivery_send_commands(delivery);
		break;
	case DELIVERY_BODY:
		text_out_push(&delivery->out, client);
		delivery_pump(delivery);
		break;
	case DELIVERY_IDLE:
	case DELIVERY_READ:
	case DELIVERY_FINISH:
	case DELIVERY_RESET:
	case DELIVERY_STATE_COUNT:
		break;
	}
}

static void delivery_on_lost(struct client *client, const char *why)
{
	struct delivery *delivery = client->owner;

	delivery->lost = why;
	if (delivery->state != DELIVERY_READ)
		STAT(nexthop_lost);
	if (delivery->state == DELIVERY_FINISH)
		delivery_break(delivery,
			delivery_result_local(DELIVERY_LOST,
				"451 4.4.2 The connection to the next hop was lost before it "
				"answered to the whole message: %s",
				why));
	else
		delivery_break(delivery,
			delivery_result_local(DELIVERY_LATER,
				"451 4.4.2 The connection to the next hop was lost: %s", why));
}

static void delivery_unexpected(struct client *client)
{
	(void)client;
	UNREACHABLE();
}

static void delivery_unexpected_failure(struct client *client, const char *why)
{
	(void)client;
	(void)why;
	UNREACHABLE();
}

static const struct client_events delivery_client_events = {
	.on_ready = delivery_unexpected,
	.on_failed = delivery_unexpected_failure,
	.on_reply = delivery_on_reply,
	.on_drained = delivery_on_drained,
	.on_lost = delivery_on_lost,
	.on_closed = delivery_unexpected,
};

/* The reader's events. */

static void delivery_on_envelope(struct spool_reader *reader, const struct envelope *envelope)
{
	struct delivery *delivery = OWNER_OF(reader, struct delivery, reader);

	delivery->envelope = *envelope;
	text_out_expect(&delivery->out, envelope->body_bytes);
	delivery->count = delivery->events->pick(
		delivery, &delivery->envelope, delivery->indexes, DELIVERY_RCPTS_MAX);
	ASSERT(delivery->count <= DELIVERY_RCPTS_MAX);
	if (!delivery_admit(delivery)) {
		delivery_end(delivery, true, 0);
		return;
	}
	delivery_enter(delivery, DELIVERY_ENVELOPE);
	delivery_send_commands(delivery);
}

static void delivery_on_read_failed(struct spool_reader *reader, int error)
{
	struct delivery *delivery = OWNER_OF(reader, struct delivery, reader);

	delivery->is_reading = false;
	if (delivery->state == DELIVERY_RESET)
		return; /* refused meanwhile: the text is of no use any more */
	delivery_settle_rest(
		delivery, delivery_result_local(DELIVERY_LATER,
				  "451 4.3.0 The message cannot be read at the moment"));
	delivery_end(delivery, delivery->state == DELIVERY_READ, error);
}

static const struct spool_reader_events delivery_reader_events = {
	.on_envelope = delivery_on_envelope,
	.on_text = delivery_on_text,
	.on_failed = delivery_on_read_failed,
};
