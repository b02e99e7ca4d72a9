/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/proxy.h"

/*
 * proxy_body.c: the text of a message, from the session to the next hop.
 */

_Static_assert(TEXT_OUT_ROOM_MIN >= SINK_ROOM_MIN, "room at all is room enough for the session");

enum sink_status proxy_data(struct sink *sink)
{
	struct proxy *proxy = proxy_of_sink(sink);

	if (proxy->client == NULL) {
		sink->refusal =
			"451 4.4.2 The connection to the next hop was lost, try again later";
		return SINK_FAIL;
	}
	if (proxy->text.uses_bdat) {
		proxy_enter(proxy, PROXY_BODY);
		return SINK_DONE;
	}
	proxy_enter(proxy, PROXY_DATA);
	proxy->pending = 1;
	client_command(proxy->client, span_of("DATA\r\n"));
	client_flush(proxy->client);
	return SINK_WAIT;
}

size_t proxy_room(struct sink *sink)
{
	struct proxy *proxy = proxy_of_sink(sink);
	size_t room;

	if (proxy->client == NULL)
		return SIZE_MAX; /* broken: the session was told, or will be */
	room = text_out_room(&proxy->text, proxy->client);
	if (room == 0)
		proxy->wants_room = true;
	return room;
}

void proxy_body(struct sink *sink, struct span text)
{
	struct proxy *proxy = proxy_of_sink(sink);

	if (proxy->client != NULL)
		text_out_write(&proxy->text, proxy->client, text);
}

void proxy_push(struct sink *sink)
{
	struct proxy *proxy = proxy_of_sink(sink);

	if (proxy->client == NULL)
		return;
	if (proxy->state == PROXY_BODY)
		text_out_push(&proxy->text, proxy->client);
	else if (proxy->state == PROXY_ENVELOPE)
		client_flush(proxy->client);
}

enum sink_status proxy_finish(struct sink *sink)
{
	struct proxy *proxy = proxy_of_sink(sink);

	if (proxy->client == NULL) {
		sink->refusal = "451 4.4.2 Connection to the next hop was lost";
		return SINK_FAIL;
	}
	proxy_enter(proxy, PROXY_FINISH);
	proxy->pending = 1;
	text_out_finish(&proxy->text, proxy->client);
	return SINK_WAIT;
}

bool proxy_take_chunk_reply(struct proxy *proxy, const struct reply *reply)
{
	if (!text_out_take_reply(&proxy->text))
		return false;
	if (reply->code < 300)
		return true;
	/*
	 * The message is refused; the answers to what is already on its way say the
	 * same. The session abandons it when it hears that, and in this state the
	 * connection is then cut. Not before: the reply lies in its buffer.
	 */
	if (proxy->state == PROXY_FINISH) {
		proxy_enter(proxy, PROXY_BODY);
		proxy->pending = 0;
		proxy->sink.events->on_reply(&proxy->sink, reply->code, reply->wire);
	} else {
		proxy->sink.events->on_broken(&proxy->sink, reply->code, reply->wire);
	}
	return true;
}

void proxy_on_drained(struct client *client)
{
	struct proxy *proxy = client->owner;

	if (proxy->state == PROXY_BODY)
		text_out_push(&proxy->text, proxy->client);
	if (proxy->state != PROXY_BODY || !proxy->wants_room)
		return;
	proxy->wants_room = false;
	proxy->sink.events->on_ready(&proxy->sink);
}
