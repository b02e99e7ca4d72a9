/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/proxy.h"

#include "relay/base/limits.h"
#include "relay/base/log.h"
#include "relay/base/stats.h"
#include "relay/smtp/compose.h"

/* A transaction is begun on so many sessions at the most. */
#define ATTEMPTS_MAX 3

static const char reply_lost[] =
	"451 4.4.2 The connection to the next hop was lost, try again later\r\n";

static const struct client_events proxy_client_events;

static struct iobufs *proxy_bufs(const struct proxy *proxy)
{
	return &router_net(proxy->options.router)->bufs;
}

static void proxy_drop_commands(struct proxy *proxy)
{
	iobuf_put(proxy_bufs(proxy), &proxy->commands);
	proxy->commands_len = 0;
	proxy->commands_sent = 0;
}

/* The legal successors of each state; every state may also be forgotten (IDLE). */
static const uint16_t proxy_next[] = {
	[PROXY_IDLE] = BIT(PROXY_HELLO) | BIT(PROXY_KEPT) | BIT(PROXY_ENVELOPE),
	[PROXY_HELLO] = 0,
	[PROXY_KEPT] = BIT(PROXY_ENVELOPE),
	[PROXY_ENVELOPE] = BIT(PROXY_KEPT) | BIT(PROXY_DATA) | BIT(PROXY_BODY) | BIT(PROXY_BROKEN),
	[PROXY_DATA] = BIT(PROXY_BODY) | BIT(PROXY_ENVELOPE) | BIT(PROXY_BROKEN),
	[PROXY_BODY] = BIT(PROXY_FINISH) | BIT(PROXY_BROKEN),
	[PROXY_FINISH] = BIT(PROXY_BODY) | BIT(PROXY_BROKEN),
	[PROXY_BROKEN] = 0,
};

void proxy_enter(struct proxy *proxy, enum proxy_state state)
{
	ASSERT(state == PROXY_IDLE || proxy_next[proxy->state] & BIT(state));
	proxy->state = state;
}

/* Leaves the client, if there is one. */
static void proxy_leave(struct proxy *proxy, enum nexthop_put how)
{
	struct client *client = proxy->client;

	proxy->client = NULL;
	if (client != NULL)
		nexthop_put(client, how);
}

/* The destination is open again, if it is not the same for all mail. */
static void proxy_let_go(struct proxy *proxy)
{
	if (proxy->nexthop == NULL)
		return;
	nexthop_cancel(proxy->nexthop, &proxy->lease);
	if (proxy->nexthop == proxy->fixed)
		return;
	nexthop_release(proxy->nexthop);
	proxy->nexthop = NULL;
	proxy->sink.is_trusted = false;
}

static void proxy_forget(struct proxy *proxy)
{
	proxy_let_go(proxy);
	proxy_drop_commands(proxy);
	proxy_enter(proxy, PROXY_IDLE);
	proxy->pending = 0;
	proxy->wants_room = false;
}

void proxy_keep(struct proxy *proxy, enum nexthop_put how)
{
	proxy_leave(proxy, how);
	proxy_let_go(proxy);
	proxy_enter(proxy, PROXY_KEPT);
	proxy->commands_len = proxy->mail_len;
	proxy->commands_sent = 0;
	proxy->pending = 0;
	proxy->owes_mail = false;
}

static unsigned proxy_code(struct span reply)
{
	ASSERT(reply.len >= 3);
	return (unsigned)(reply.data[0] - '0') * 100 + (unsigned)(reply.data[1] - '0') * 10 +
	       (unsigned)(reply.data[2] - '0');
}

/* The next hop is gone, or useless: everything that is owed gets this answer. */
static void proxy_break(struct proxy *proxy, struct span reply)
{
	enum proxy_state was = proxy->state;
	unsigned pending = proxy->pending;

	if (was == PROXY_ENVELOPE && proxy->fixed == NULL && proxy->accepted == 0) {
		proxy_keep(proxy, NEXTHOP_PUT_RESET);
	} else {
		proxy_enter(proxy, PROXY_BROKEN);
		proxy->pending = 0;
		proxy->wants_room = false;
		proxy_drop_commands(proxy);
	}
	if (was == PROXY_BODY) {
		proxy->sink.events->on_broken(&proxy->sink, proxy_code(reply), reply);
		return;
	}
	while (pending-- > 0)
		proxy->sink.events->on_reply(&proxy->sink, proxy_code(reply), reply);
}

/* hello. */

static void proxy_show_offer(struct proxy *proxy)
{
	const struct send_connector *connector = proxy->options.connector;
	uint64_t size = proxy->nexthop->offer.size_max;

	proxy->sink.offer = proxy->nexthop->offer.keywords;
	/* The session's own fields are added on the way, so the next hop's limit shrinks by that.
	 */
	size = size > OWN_FIELDS_BYTES_MAX ? size - OWN_FIELDS_BYTES_MAX : 0;
	if (size == 0 || connector->max_message_bytes < size)
		size = connector->max_message_bytes;
	proxy->sink.offer |= EHLO_SIZE;
	proxy->sink.offer_size = size;
	if (!connector->chunking)
		proxy->sink.offer &= ~(unsigned)(EHLO_CHUNKING | EHLO_BINARYMIME);
	if (!(proxy->sink.offer & EHLO_CHUNKING))
		proxy->sink.offer &= ~(unsigned)EHLO_BINARYMIME;
}

static enum sink_status proxy_hello(struct sink *sink)
{
	struct proxy *proxy = proxy_of_sink(sink);

	if (proxy->fixed == NULL) {
		proxy_show_any(proxy);
		return SINK_DONE;
	}
	if (proxy->nexthop->has_offer) {
		proxy_show_offer(proxy);
		return SINK_DONE;
	}
	proxy_enter(proxy, PROXY_HELLO);
	nexthop_ask(proxy->nexthop, &proxy->lease);
	return SINK_WAIT;
}

/* Envelope. */

/*
 * Writes the commands that have not been written: all of them, or the next one
 * when the one before is answered, if the next hop does not offer PIPELINING
 * (RFC 2920 3.1).
 */
static void proxy_send_commands(struct proxy *proxy)
{
	struct client *client = proxy->client;
	struct span rest = span_make(proxy->commands->data + proxy->commands_sent,
		proxy->commands_len - proxy->commands_sent);

	while (rest.len > 0 && (client->owed == 0 || client->offer.keywords & EHLO_PIPELINING)) {
		struct span line = span_head(rest, span_find(rest, '\n') + 1);

		client_command(client, line);
		proxy->commands_sent += (uint32_t)line.len;
		rest = span_skip(rest, line.len);
	}
}

/* The session got a client: all commands so far go out in one piece. */
static void proxy_begin_on(struct proxy *proxy, struct client *client)
{
	proxy->client = client;
	proxy->attempts++;
	client->events = &proxy_client_events;
	client->owner = proxy;
	proxy->sink.bytes_max = client->connector->max_message_bytes;
	if (proxy->needs & ~client->offer.keywords) {
		/* Announced from an earlier session; this host, or this moment, is different. */
		proxy->nexthop->offer = client->offer;
		proxy_leave(proxy, NEXTHOP_PUT_CLEAN);
		proxy_break(proxy, proxy_lacks(proxy, client->offer.keywords));
		return;
	}
	if (proxy->fixed == NULL)
		proxy_fit_mail(proxy, client->offer.keywords);
	proxy->owes_mail = proxy->fixed == NULL;
	text_out_init(&proxy->text,
		client->connector->chunking && client->offer.keywords & EHLO_CHUNKING);
	/* A copy: the client may be gone when the message is logged. */
	memcpy(proxy->via, client->id, sizeof(proxy->via));
	proxy->sink.via = proxy->via;
	proxy->commands_sent = 0;
	proxy_send_commands(proxy);
	client_flush(client);
}

/* The transaction begins on an idle session, or waits for one. */
static void proxy_start(struct proxy *proxy)
{
	struct client *client = nexthop_take(proxy->nexthop, &proxy->principal);

	proxy->attempts = 0;
	proxy->is_answered = false;
	proxy->sink.via = NULL;
	/* A refusal for lack of a keyword would come back from within this call: let the loop do
	 * it. */
	if (client != NULL && (proxy->needs & ~client->offer.keywords) == 0) {
		proxy_begin_on(proxy, client);
		return;
	}
	if (client != NULL)
		nexthop_put(client, NEXTHOP_PUT_CLEAN);
	nexthop_ask(proxy->nexthop, &proxy->lease);
}

static enum sink_status proxy_mail(
	struct sink *sink, const struct command *command, uint64_t size_extra)
{
	struct proxy *proxy = proxy_of_sink(sink);

	ASSERT(proxy->client == NULL);
	proxy_forget(proxy);
	proxy->commands = iobuf_take_small(proxy_bufs(proxy));
	proxy->commands_len = (uint32_t)compose_mail(
		command, size_extra, sink->offer, proxy->commands->data, IOBUF_SMALL_BYTES);
	if (proxy->commands_len == 0) {
		proxy_forget(proxy);
		sink->refusal = "501 5.5.4 Invalid arguments";
		return SINK_FAIL;
	}
	proxy->needs = compose_needs(command);
	proxy->accepted = 0;
	proxy->owes_mail = false;
	if (proxy->fixed == NULL) {
		proxy_note_mail(proxy, command);
		proxy_enter(proxy, PROXY_KEPT);
		return SINK_DONE;
	}
	proxy_enter(proxy, PROXY_ENVELOPE);
	proxy->pending = 1;
	proxy_start(proxy);
	return SINK_WAIT;
}

/* Once something was answered no other session is tried, and what was written need not be kept;
 * but MAIL is, while it may have to go elsewhere. */
static void proxy_drop_answered(struct proxy *proxy)
{
	if (!proxy->is_answered || proxy->commands_sent != proxy->commands_len)
		return;
	if (proxy->fixed == NULL && proxy->accepted == 0) {
		proxy->commands_len = proxy->mail_len;
		proxy->commands_sent = proxy->mail_len;
		return;
	}
	proxy_drop_commands(proxy);
}

static enum sink_status proxy_rcpt(struct sink *sink, const struct command *command)
{
	struct proxy *proxy = proxy_of_sink(sink);
	enum sink_status status = SINK_DONE;
	uint8_t *at;
	size_t len;

	if (proxy->state == PROXY_BROKEN) {
		sink->refusal =
			"451 4.4.2 The connection to the next hop was lost, try again later";
		return SINK_FAIL;
	}
	if (proxy->fixed == NULL)
		status = proxy_route(proxy, command);
	else if (proxy->checks_recipients)
		status = proxy_check(proxy, command);
	if (status != SINK_DONE)
		return status;
	if (proxy->commands == NULL)
		proxy->commands = iobuf_take_small(proxy_bufs(proxy));
	at = proxy->commands->data + proxy->commands_len;
	len = compose_rcpt(command, at, IOBUF_SMALL_BYTES - proxy->commands_len);
	/* Room comes back with the first answer, when the commands so far need not be kept. */
	if (len == 0 || (proxy->client != NULL && conn_room(&proxy->client->conn) < len))
		return SINK_FULL;
	proxy->commands_len += (uint32_t)len;
	proxy->needs |= compose_needs(command);
	proxy->pending++;
	if (proxy->state == PROXY_KEPT) {
		proxy_enter(proxy, PROXY_ENVELOPE);
		proxy_start(proxy);
	} else if (proxy->client != NULL) {
		proxy_send_commands(proxy);
		proxy_drop_answered(proxy);
	}
	return SINK_WAIT;
}

static void proxy_abandon(struct sink *sink)
{
	struct proxy *proxy = proxy_of_sink(sink);

	switch (proxy->state) {
	case PROXY_IDLE:
	case PROXY_HELLO:
	case PROXY_KEPT:
	case PROXY_BROKEN:
		proxy_leave(proxy, NEXTHOP_PUT_CLEAN);
		break;
	case PROXY_ENVELOPE:
		proxy_leave(proxy, NEXTHOP_PUT_RESET);
		break;
	case PROXY_DATA:
	case PROXY_BODY:
		proxy_leave(proxy, NEXTHOP_PUT_ABORT);
		break;
	case PROXY_FINISH:
		proxy_leave(proxy, NEXTHOP_PUT_FINISH);
		break;
	}
	proxy_forget(proxy);
}

/* The next hop's side. */

static void proxy_on_leased(struct lease *lease, struct client *client)
{
	struct proxy *proxy = OWNER_OF(lease, struct proxy, lease);

	if (proxy->state != PROXY_HELLO) {
		proxy_begin_on(proxy, client);
		return;
	}
	proxy_enter(proxy, PROXY_IDLE);
	nexthop_put(client, NEXTHOP_PUT_CLEAN);
	proxy_show_offer(proxy);
	proxy->sink.events->on_ready(&proxy->sink);
}

static void proxy_on_refused(struct lease *lease, struct span reply)
{
	struct proxy *proxy = OWNER_OF(lease, struct proxy, lease);

	if (proxy->state == PROXY_HELLO) {
		/* Nothing is known, so nothing beyond the base is announced; MAIL will tell why. */
		proxy_enter(proxy, PROXY_IDLE);
		proxy->sink.events->on_ready(&proxy->sink);
		return;
	}
	proxy_break(proxy, reply);
}

/* A pooled session may have been closed just as it was used: another can be tried while nothing was
 * said. */
static bool proxy_may_retry(const struct proxy *proxy)
{
	return proxy->state == PROXY_ENVELOPE && !proxy->is_answered && proxy->commands != NULL &&
	       proxy->attempts < ATTEMPTS_MAX;
}

static void proxy_retry(struct proxy *proxy)
{
	STAT(nexthop_replayed);
	nexthop_ask(proxy->nexthop, &proxy->lease);
}

/*
 * The answer to a MAIL that the client believes accepted. Refused, it is the answer to every
 * recipient that waits; the reply lies in the buffer of the client, which is left first.
 */
static void proxy_take_mail_reply(struct proxy *proxy, const struct reply *reply)
{
	char copy[2048];
	struct span wire = reply->wire;

	proxy->owes_mail = false;
	if (reply->code < 300)
		return;
	if (wire.len > sizeof(copy)) {
		(void)snprintf(copy, sizeof(copy), "%u %u.0.0 The next hop refused the sender\r\n",
			reply->code, reply->code / 100);
		proxy_break(proxy, span_of(copy));
		return;
	}
	memcpy(copy, wire.data, wire.len);
	proxy_break(proxy, span_make(copy, wire.len));
}

static void proxy_on_reply(struct client *client, const struct reply *reply)
{
	struct proxy *proxy = client->owner;

	if ((proxy->state == PROXY_BODY || proxy->state == PROXY_FINISH) &&
		proxy_take_chunk_reply(proxy, reply))
		return;
	if (reply->code == 421 && client->message_count > 0 && proxy_may_retry(proxy)) {
		/* It was about to close the pooled session anyway. */
		proxy_leave(proxy, NEXTHOP_PUT_ABORT);
		proxy_retry(proxy);
		return;
	}
	if (reply->code == 421 && proxy->state == PROXY_ENVELOPE && proxy->fixed == NULL) {
		/* One destination goes; the client, who has others, need not. */
		proxy_leave(proxy, NEXTHOP_PUT_ABORT);
		proxy_break(proxy, span_of(reply_lost));
		return;
	}
	proxy->is_answered = true;
	if (proxy->owes_mail) {
		proxy_take_mail_reply(proxy, reply);
		if (proxy->client != NULL) {
			proxy_send_commands(proxy);
			client_flush(client);
		}
		return;
	}
	if (proxy->state == PROXY_ENVELOPE && proxy->fixed == NULL && reply->code < 300)
		proxy->accepted++;
	if (proxy->commands != NULL) {
		proxy_send_commands(proxy);
		proxy_drop_answered(proxy);
		client_flush(client);
	}
	ASSERT(proxy->pending > 0);
	proxy->pending--;
	if (proxy->state == PROXY_DATA)
		proxy_enter(proxy, reply->code == 354 ? PROXY_BODY : PROXY_ENVELOPE);
	if (proxy->state == PROXY_FINISH) {
		client->message_count++;
		if (reply->code < 300 && client->requirement->partner != NULL)
			STAT(messages_sent_secured);
		proxy_enter(proxy, PROXY_IDLE);
	}
	/* The session abandons what is over, and that gives the client back. */
	proxy->sink.events->on_reply(&proxy->sink, reply->code, reply->wire);
}

static void proxy_on_lost(struct client *client, const char *why)
{
	struct proxy *proxy = client->owner;
	bool was_used = client->message_count > 0;

	proxy->client = NULL;
	nexthop_lost(client, why);
	if (was_used && proxy_may_retry(proxy)) {
		proxy_retry(proxy);
		return;
	}
	if (proxy->state != PROXY_IDLE)
		STAT(nexthop_lost);
	proxy_break(proxy, span_of(reply_lost));
}

static void proxy_unexpected(struct client *client)
{
	(void)client;
	UNREACHABLE();
}

static void proxy_unexpected_failure(struct client *client, const char *why)
{
	(void)client;
	(void)why;
	UNREACHABLE();
}

static const struct client_events proxy_client_events = {
	.on_ready = proxy_unexpected,
	.on_failed = proxy_unexpected_failure,
	.on_reply = proxy_on_reply,
	.on_drained = proxy_on_drained,
	.on_lost = proxy_on_lost,
	.on_closed = proxy_unexpected,
};

static const struct lease_events proxy_lease_events = {
	.on_leased = proxy_on_leased,
	.on_refused = proxy_on_refused,
};

static const struct sink_ops proxy_ops = {
	.hello = proxy_hello,
	.mail = proxy_mail,
	.rcpt = proxy_rcpt,
	.data = proxy_data,
	.room = proxy_room,
	.body = proxy_body,
	.push = proxy_push,
	.finish = proxy_finish,
	.abandon = proxy_abandon,
};

static void proxy_identify(struct principal *principal, struct identity *out)
{
	struct proxy *proxy = OWNER_OF(principal, struct proxy, principal);

	proxy->sink.events->identify(&proxy->sink, out);
}

/* The destination of all mail, if there is one. */
static void proxy_fix(struct proxy *proxy)
{
	const struct send_connector *connector = proxy->options.connector;

	proxy->fixed = NULL;
	proxy->checks_recipients = false;
	if (connector != NULL)
		proxy->fixed =
			router_fixed(proxy->options.router, connector, &proxy->checks_recipients);
	proxy->nexthop = proxy->fixed;
	proxy->sink.is_trusted = proxy->fixed != NULL && connector->trusted_next_hop;
	if (proxy->fixed != NULL)
		nexthop_hold(proxy->fixed);
}

void proxy_init(struct proxy *proxy, const struct proxy_options *options)
{
	*proxy = (struct proxy){.sink.ops = &proxy_ops, .options = *options, .state = PROXY_IDLE};
	principal_init(&proxy->principal, proxy_identify);
	lease_init(&proxy->lease, &proxy_lease_events, &proxy->principal);
	proxy_fix(proxy);
}

void proxy_move(struct proxy *proxy, const struct proxy_options *options)
{
	ASSERT(proxy->state == PROXY_IDLE && proxy->client == NULL);
	principal_end(&proxy->principal);
	if (proxy->fixed != NULL)
		nexthop_release(proxy->fixed);
	proxy->options = *options;
	proxy_fix(proxy);
}

void proxy_fini(struct proxy *proxy)
{
	proxy_abandon(&proxy->sink);
	principal_end(&proxy->principal);
	if (proxy->fixed != NULL)
		nexthop_release(proxy->fixed);
}
