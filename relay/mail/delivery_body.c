/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/delivery_private.h"

/*
 * delivery_body.c: the text of a message, from the spool to the next hop. A piece is read when the
 * client has room and the one before has gone, so at most one lies in memory.
 */

_Static_assert(TEXT_OUT_ROOM_MIN > 2 * FIREWALL_HELD_MAX,
	"where there is room at all, there is room for text that was held back, and more");

/* Gives the client as much of the text at hand as there is room for. */
static void delivery_pass(struct delivery *delivery, size_t room)
{
	struct firewall *firewall = &delivery->firewall;
	struct span *text = &delivery->reader.text;
	struct span piece;
	struct span in;

	if (delivery->is_trusted) {
		piece = span_head(*text, room);
		*text = span_skip(*text, piece.len);
	} else {
		in = span_head(*text, firewall->is_done ? room : room - FIREWALL_HELD_MAX);
		*text = span_skip(*text, in.len);
		piece = firewall_next(firewall, &in);
		/* What it has not looked at goes back. */
		*text = span_make(text->data - in.len, text->len + in.len);
	}
	if (piece.len > 0)
		text_out_write(&delivery->out, delivery->client, piece);
}

/* All text was given: the end of data. */
static void delivery_finish(struct delivery *delivery)
{
	struct span rest = {0};

	/* A message that is all header. */
	if (!delivery->is_trusted && !delivery->firewall.is_done)
		rest = firewall_end(&delivery->firewall);
	if (rest.len > 0)
		text_out_write(&delivery->out, delivery->client, rest);
	delivery_enter(delivery, DELIVERY_FINISH);
	text_out_finish(&delivery->out, delivery->client);
}

void delivery_begin_body(struct delivery *delivery)
{
	delivery_enter(delivery, DELIVERY_BODY);
	delivery_pump(delivery);
}

void delivery_pump(struct delivery *delivery)
{
	while (!delivery->is_reading) {
		size_t room = text_out_room(&delivery->out, delivery->client);

		if (room == 0)
			return; /* on_drained comes */
		if (delivery->reader.text.len > 0) {
			delivery_pass(delivery, room);
		} else if (delivery->is_last_text) {
			delivery_finish(delivery);
			return;
		} else {
			delivery->is_reading = true;
			spool_read_more(&delivery->reader);
		}
	}
}

void delivery_on_text(struct spool_reader *reader, struct span text, bool is_last)
{
	struct delivery *delivery = OWNER_OF(reader, struct delivery, reader);

	delivery->is_reading = false;
	/* Refused meanwhile: the text is of no use any more. */
	if (delivery->state != DELIVERY_BODY)
		return;
	(void)text;
	delivery->is_last_text = is_last;
	delivery_pump(delivery);
}
