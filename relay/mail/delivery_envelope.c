/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/delivery_private.h"

#include "relay/base/limits.h"
#include "relay/smtp/compose.h"

/*
 * delivery_envelope.c: what the next hop may be asked for, and MAIL, RCPT and DATA.
 */

/* A message up to this size does not wait for the answers to its envelope: some 80 ms of 10 Mbit/s
 * are risked. */
#define EAGER_BYTES_MAX 131072

static bool delivery_offers(const struct delivery *delivery, enum ehlo_keyword keyword)
{
	return (delivery->client->offer.keywords & (unsigned)keyword) != 0;
}

/*
 * Does the message as such need SMTPUTF8? A header with bytes over 127 that was not declared so is
 * 8-bit text of the old kind.
 */
static bool delivery_needs_utf8(const struct delivery *delivery)
{
	const unsigned header = ENVELOPE_SMTPUTF8 | ENVELOPE_UTF8_HEADER;

	return (delivery->envelope.flags & header) == header ||
	       span_has_high(delivery->envelope.sender);
}

/* Finds the recipient of that index, at the cursor or behind it, and moves behind it. */
static void delivery_move_to(const struct delivery *delivery, struct delivery_cursor *cursor,
	uint32_t index, struct envelope_rcpt *out)
{
	do {
		bool is_there = envelope_next(&delivery->envelope, &cursor->at, out);

		ASSERT(is_there && cursor->index <= index);
	} while (cursor->index++ < index);
}

/* Does a recipient that is still to be asked for have a path with bytes over 127? */
static bool delivery_has_utf8_rcpt(const struct delivery *delivery)
{
	struct delivery_cursor cursor = {0};
	struct envelope_rcpt rcpt;

	for (uint32_t at = 0; at < delivery->count; at++) {
		delivery_move_to(delivery, &cursor, delivery->indexes[at], &rcpt);
		if (span_has_high(rcpt.path))
			return true;
	}
	return false;
}

static enum body_type delivery_body_type(const struct delivery *delivery)
{
	if (delivery->envelope.body == BODY_BINARYMIME)
		return BODY_BINARYMIME;
	return delivery->envelope.flags & ENVELOPE_EIGHT_BIT ? BODY_8BITMIME : BODY_7BIT;
}

/*
 * The lines, with CR LF; their length, 0: it does not fit. Only parameters that the next hop has
 * announced are in them.
 */
static size_t delivery_compose_mail(const struct delivery *delivery, uint8_t *out, size_t out_bytes)
{
	const struct envelope *envelope = &delivery->envelope;
	struct command command = {.verb = VERB_MAIL,
		.path = envelope->sender,
		.params = PARAM_SIZE,
		.size = envelope->body_bytes,
		.body = delivery_body_type(delivery),
		.ret = envelope->ret,
		.envid = envelope->envid};
	/* Parts inside the body may have such headers, too, where they were announced. */
	const bool may_be_utf8 = (envelope->flags & ENVELOPE_SMTPUTF8) != 0 &&
				 (envelope->flags & ENVELOPE_EIGHT_BIT) != 0;

	if (delivery_offers(delivery, EHLO_SMTPUTF8) &&
		(may_be_utf8 || delivery_needs_utf8(delivery) || delivery_has_utf8_rcpt(delivery)))
		command.params |= PARAM_SMTPUTF8;
	if (delivery_knows_dsn(delivery) && envelope->ret.len > 0)
		command.params |= PARAM_RET;
	if (delivery_knows_dsn(delivery) && envelope->envid.len > 0)
		command.params |= PARAM_ENVID;
	return compose_mail(&command, 0, delivery->client->offer.keywords, out, out_bytes);
}

static size_t delivery_compose_rcpt(const struct delivery *delivery,
	const struct envelope_rcpt *rcpt, uint8_t *out, size_t out_bytes)
{
	struct command command = {.verb = VERB_RCPT,
		.path = rcpt->path,
		.notify = rcpt->notify,
		.orcpt = rcpt->orcpt};

	if (delivery_knows_dsn(delivery) && rcpt->notify.len > 0)
		command.params |= PARAM_NOTIFY;
	/* RFC 6533 3: such an ORCPT is for who offers SMTPUTF8 only. */
	if (delivery_knows_dsn(delivery) && rcpt->orcpt.len > 0 &&
		(delivery_offers(delivery, EHLO_SMTPUTF8) || !span_has_high(rcpt->orcpt)))
		command.params |= PARAM_ORCPT;
	return compose_rcpt(&command, out, out_bytes);
}

/* Why the message cannot go this way, whoever it is for; NULL: it can. */
static const char *delivery_find_obstacle(const struct delivery *delivery)
{
	const struct client *client = delivery->client;
	const uint64_t bytes = delivery->envelope.body_bytes;
	uint8_t line[LONG_COMMAND_LINE_BYTES_MAX];

	if (client->connector->max_message_bytes > 0 &&
		bytes > client->connector->max_message_bytes)
		return "552 5.3.4 Message size exceeds fixed maximum message size";
	if (client->offer.size_max > 0 && bytes > client->offer.size_max)
		return "552 5.3.4 The message is larger than the next hop takes";
	if (delivery->envelope.body == BODY_BINARYMIME &&
		!(delivery->out.uses_bdat && delivery_offers(delivery, EHLO_BINARYMIME)))
		return "554 5.6.3 The next hop does not take binary text";
	if (delivery_body_type(delivery) == BODY_8BITMIME &&
		!delivery_offers(delivery, EHLO_8BITMIME))
		return "554 5.6.3 The next hop does not take 8-bit text";
	if (delivery_needs_utf8(delivery) && !delivery_offers(delivery, EHLO_SMTPUTF8))
		return "550 5.6.7 The next hop does not take internationalized mail";
	if (delivery_compose_mail(delivery, line, sizeof(line)) == 0)
		return "554 5.5.4 The sender and its parameters are too long for a command";
	return NULL;
}

/* Why one recipient cannot be asked for; NULL: it can. */
static const char *delivery_find_rcpt_obstacle(
	const struct delivery *delivery, const struct envelope_rcpt *rcpt)
{
	uint8_t line[LONG_COMMAND_LINE_BYTES_MAX];

	if (span_has_high(rcpt->path) && !delivery_offers(delivery, EHLO_SMTPUTF8))
		return "550 5.6.7 The next hop does not take internationalized addresses";
	if (delivery_compose_rcpt(delivery, rcpt, line, sizeof(line)) == 0)
		return "554 5.5.4 The recipient and its parameters are too long for a command";
	return NULL;
}

bool delivery_admit(struct delivery *delivery)
{
	const char *of_all = delivery_find_obstacle(delivery);
	struct delivery_cursor cursor = {0};
	struct envelope_rcpt rcpt;
	struct delivery_result result;
	uint32_t left = 0;

	for (uint32_t at = 0; at < delivery->count; at++) {
		const uint32_t index = delivery->indexes[at];
		const char *words;

		delivery_move_to(delivery, &cursor, index, &rcpt);
		words = of_all != NULL ? of_all : delivery_find_rcpt_obstacle(delivery, &rcpt);
		if (words != NULL) {
			result = delivery_result_local(DELIVERY_FAILED, "%s", words);
			delivery_settle(delivery, at, &result);
			continue;
		}
		/* Those who are left move together. */
		delivery->indexes[left++] = index;
	}
	memset(delivery->is_settled, 0, sizeof(delivery->is_settled));
	delivery->count = left;
	return left > 0;
}

/* The next command, if it may be said now; 0: none. *cursor is where the one after it is found. */
static size_t delivery_next_command(const struct delivery *delivery, struct delivery_cursor *cursor,
	uint8_t *out, size_t out_bytes)
{
	static const char data[] = "DATA\r\n";
	struct envelope_rcpt rcpt;
	size_t len = 0;

	if (delivery->client->owed > 0 && !delivery_offers(delivery, EHLO_PIPELINING))
		return 0;
	if (!delivery->is_mail_written) {
		len = delivery_compose_mail(delivery, out, out_bytes);
		ASSERT(len > 0);
	} else if (delivery->written < delivery->count) {
		delivery_move_to(delivery, cursor, delivery->indexes[delivery->written], &rcpt);
		len = delivery_compose_rcpt(delivery, &rcpt, out, out_bytes);
		ASSERT(len > 0);
	} else if (!delivery->is_data_written && !delivery->out.uses_bdat) {
		len = sizeof(data) - 1;
		memcpy(out, data, len);
	}
	return len;
}

/*
 * May the text go out behind the commands, before anybody was accepted? Then a small message takes
 * one round trip, and one send. PIPELINING and CHUNKING together allow it (RFC 3030 2: who refuses
 * a chunk takes it and throws it away); what is lost where all are refused is a small message's
 * way.
 */
static bool delivery_is_eager(const struct delivery *delivery)
{
	return delivery->out.uses_bdat && delivery_offers(delivery, EHLO_PIPELINING) &&
	       delivery->envelope.body_bytes <= EAGER_BYTES_MAX;
}

void delivery_send_commands(struct delivery *delivery)
{
	const bool is_eager = delivery_is_eager(delivery);
	struct client *client = delivery->client;
	uint8_t line[LONG_COMMAND_LINE_BYTES_MAX];

	if (is_eager && (!delivery->is_mail_written || delivery->written < delivery->count))
		text_out_reserve(&delivery->out, client);
	for (;;) {
		struct delivery_cursor cursor = delivery->cursor;
		size_t len = delivery_next_command(delivery, &cursor, line, sizeof(line));

		/* Where there is no room now, the answers and on_drained bring it back. */
		if (len == 0 || conn_room(&client->conn) < len)
			break;
		client_command(client, span_make(line, len));
		if (!delivery->is_mail_written)
			delivery->is_mail_written = true;
		else if (delivery->written < delivery->count)
			delivery->written++;
		else
			delivery->is_data_written = true;
		delivery->cursor = cursor;
	}
	if (is_eager && delivery->written == delivery->count &&
		text_out_join(&delivery->out, client))
		delivery_begin_body(delivery);
	else
		client_flush(client);
}
