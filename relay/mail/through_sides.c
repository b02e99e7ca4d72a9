/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/proxy.h"
#include "relay/mail/sink_queue.h"
#include "relay/mail/sink_through.h"

/*
 * through_sides.c: what sink_through.c has to know of a proxy and of the queue's sink.
 */

_Static_assert(TEXT_OUT_ROOM_MIN >= SINK_ROOM_MIN + FIREWALL_HELD_MAX,
	"a proxy that has room has enough for a session, and for what the firewall held back");

static bool side_offers(struct sink *hop, unsigned needs)
{
	const struct proxy *proxy = proxy_of_sink(hop);

	return proxy->client == NULL || (needs & ~proxy->client->offer.keywords) == 0;
}

static bool side_is_answer(struct sink *hop)
{
	const struct proxy *proxy = proxy_of_sink(hop);

	return proxy->is_answered && proxy->state != PROXY_BROKEN;
}

/* Without its CR LF; of several lines the last. */
static struct span side_last_line(struct span reply)
{
	size_t start;

	reply = span_head(reply, reply.len > 2 ? reply.len - 2 : 0);
	for (start = reply.len; start > 0 && reply.data[start - 1] != '\n';)
		start--;
	return span_skip(reply, start);
}

/* Of "192.0.2.1:25" or "[2001:db8::1]:25". */
static struct span side_ip(const char *text)
{
	const struct span ip = span_make(text, (size_t)(strrchr(text, ':') - text));

	return text[0] == '[' ? span_head(span_skip(ip, 1), ip.len - 2) : ip;
}

static void side_passed(struct sink *spare, struct sink *hop, struct span reply)
{
	const struct proxy *proxy = proxy_of_sink(hop);
	char text[ADDRESS_TEXT_BYTES + 16];

	address_print(nexthop_address(proxy->client), text, sizeof(text));
	sink_queue_passed(
		spare, &(struct arrival_passed){.connector = proxy->client->connector->name,
			       .context = proxy->via,
			       .server_ip = side_ip(text),
			       .server_host = span_of(proxy->client->host),
			       .reply = side_last_line(reply)});
}

const struct through_sides through_proxy_and_queue = {
	.offers = side_offers,
	.is_answer = side_is_answer,
	.forget_rcpt = sink_queue_forget_rcpt,
	.passed = side_passed,
};
