/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/proxy.h"

#include "relay/smtp/compose.h"

/*
 * proxy_route.c: transactions whose first recipient says where they go.
 */

/*
 * The path is not known before a recipient is: what can be had almost everywhere, or does no harm
 * where it is refused. Not DSN and BINARYMIME: clients use them where they are offered, and
 * what the next hop lacks could only be refused then.
 */
void proxy_show_any(struct proxy *proxy)
{
	const struct send_connector *connector = proxy->options.connector;

	proxy->sink.offer = EHLO_SIZE | EHLO_PIPELINING | EHLO_8BITMIME | EHLO_SMTPUTF8 |
			    EHLO_CHUNKING | EHLO_ENHANCEDSTATUSCODES;
	proxy->sink.offer_size = connector != NULL ? connector->max_message_bytes : 0;
}

void proxy_note_mail(struct proxy *proxy, const struct command *command)
{
	const bool has_size = command->params & PARAM_SIZE && proxy->sink.offer & EHLO_SIZE;
	struct span rest;

	proxy->mail_len = proxy->commands_len;
	proxy->mail_bytes = command->params & PARAM_SIZE ? command->size : 0;
	proxy->size_at = (uint32_t)(strlen("MAIL FROM:") + command->path.len);
	rest = span_make(proxy->commands->data + proxy->size_at + 1,
		proxy->commands_len - proxy->size_at - 1);
	proxy->size_len = 0;
	if (has_size)
		proxy->size_len = 1 + (uint32_t)(span_find(rest, ' ') < span_find(rest, '\r')
							 ? span_find(rest, ' ')
							 : span_find(rest, '\r'));
}

void proxy_fit_mail(struct proxy *proxy, unsigned offer)
{
	uint8_t *at = proxy->commands->data + proxy->size_at;

	if (offer & EHLO_SIZE || proxy->size_len == 0)
		return;
	memmove(at, at + proxy->size_len, proxy->commands_len - proxy->size_at - proxy->size_len);
	proxy->commands_len -= proxy->size_len;
	proxy->mail_len -= proxy->size_len;
	proxy->size_len = 0;
}

struct span proxy_lacks(const struct proxy *proxy, unsigned offer)
{
	unsigned lacks = proxy->needs & ~offer;

	if (proxy->fixed != NULL)
		return span_of(
			"451 4.3.5 The next hop no longer offers what this message needs\r\n");
	if (lacks & EHLO_SMTPUTF8)
		return span_of("550 5.6.7 The next hop does not take internationalized mail\r\n");
	if (lacks & EHLO_8BITMIME)
		return span_of("554 5.6.3 The next hop does not take 8-bit text\r\n");
	return span_of("554 5.6.1 The next hop does not offer what this message needs\r\n");
}

enum sink_status proxy_route(struct proxy *proxy, const struct command *command)
{
	const struct router_ask ask = {.session = proxy->options.session,
		.connector = proxy->options.connector,
		.path = command->path,
		.bytes = proxy->mail_bytes,
		/* A refusal waits for the answers before it, and is asked for again then. */
		.is_final = proxy->pending == 0 && !proxy->options.has_queue};
	struct nexthop *nexthop = router_route(proxy->options.router, &ask, proxy->refusal);

	if (nexthop == NULL) {
		proxy->sink.refusal = proxy->refusal;
		return SINK_FAIL;
	}
	if (nexthop == proxy->nexthop) {
		nexthop_release(nexthop);
		return SINK_DONE;
	}
	if (proxy->state == PROXY_ENVELOPE && proxy->accepted == 0 && proxy->pending == 0)
		proxy_keep(proxy, NEXTHOP_PUT_RESET);
	if (proxy->state == PROXY_KEPT) {
		proxy->nexthop = nexthop;
		proxy->sink.is_trusted = nexthop->outlet->connector->trusted_next_hop;
		return SINK_DONE;
	}
	nexthop_release(nexthop);
	if (proxy->accepted == 0)
		return SINK_FULL; /* those before it may yet be refused */
	proxy->sink.refusal = "452 4.5.3 This recipient needs a transaction of its own";
	return SINK_FAIL;
}

enum sink_status proxy_check(struct proxy *proxy, const struct command *command)
{
	const struct router_ask ask = {.session = proxy->options.session,
		.connector = proxy->options.connector,
		.path = command->path,
		.is_final = proxy->pending == 0 && !proxy->options.has_queue};

	if (router_check(proxy->options.router, &ask, proxy->refusal))
		return SINK_DONE;
	proxy->sink.refusal = proxy->refusal;
	return SINK_FAIL;
}
