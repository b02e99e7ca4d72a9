/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/proxy.h"

#include "relay/base/limits.h"
#include "relay/base/log.h"
#include "relay/base/stats.h"
#include "relay/smtp/compose.h"

/* Room in front of a chunk for "BDAT 65536 LAST" and CR LF. */
#define CHUNK_HEADER_BYTES 24

/* Bodies larger than this are sent in large pieces. */
#define BULK_AFTER_BYTES 16384

/* Less room than this is not worth a call of the session. */
#define PROXY_ROOM_MIN SINK_ROOM_MIN

/* A transaction is begun on so many sessions at the most. */
#define ATTEMPTS_MAX 3

static const char reply_lost[] =
	"451 4.4.2 The connection to the next hop was lost, try again later\r\n";
static const char reply_lacks[] =
	"451 4.3.5 The next hop no longer offers what this message needs\r\n";

static const struct client_events proxy_client_events;

static struct proxy *proxy_of_sink(struct sink *sink)
{
	return OWNER_OF(sink, struct proxy, sink);
}

static void proxy_drop_commands(struct proxy *proxy)
{
	iobuf_put(&proxy->nexthop->net->bufs, &proxy->commands);
	proxy->commands_len = 0;
	proxy->commands_sent = 0;
}

/* The legal successors of each state; every state may also be forgotten (IDLE). */
static const uint16_t proxy_next[] = {
	[PROXY_IDLE] = BIT(PROXY_HELLO) | BIT(PROXY_ENVELOPE),
	[PROXY_HELLO] = 0,
	[PROXY_ENVELOPE] = BIT(PROXY_DATA) | BIT(PROXY_BODY) | BIT(PROXY_BROKEN),
	[PROXY_DATA] = BIT(PROXY_BODY) | BIT(PROXY_ENVELOPE) | BIT(PROXY_BROKEN),
	[PROXY_BODY] = BIT(PROXY_FINISH) | BIT(PROXY_BROKEN),
	[PROXY_FINISH] = BIT(PROXY_BODY) | BIT(PROXY_BROKEN),
	[PROXY_BROKEN] = 0,
};

static void proxy_enter(struct proxy *proxy, enum proxy_state state)
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
		nexthop_put(proxy->nexthop, client, how);
}

static void proxy_forget(struct proxy *proxy)
{
	nexthop_cancel(proxy->nexthop, &proxy->lease);
	proxy_drop_commands(proxy);
	proxy_enter(proxy, PROXY_IDLE);
	proxy->pending = 0;
	proxy->wants_room = false;
}

/* The next hop is gone, or useless: everything that is owed gets this answer. */
static void proxy_break(struct proxy *proxy, struct span reply)
{
	enum proxy_state was = proxy->state;
	unsigned pending = proxy->pending;

	proxy_enter(proxy, PROXY_BROKEN);
	proxy->pending = 0;
	proxy->wants_room = false;
	proxy_drop_commands(proxy);
	if (was == PROXY_BODY) {
		proxy->sink.events->on_broken(&proxy->sink, 451, reply);
		return;
	}
	while (pending-- > 0)
		proxy->sink.events->on_reply(&proxy->sink, 451, reply);
}

/* hello. */

static void proxy_show_offer(struct proxy *proxy)
{
	proxy->sink.offer = proxy->nexthop->offer.keywords;
	proxy->sink.offer_size = proxy->nexthop->offer.size_max;
	if (!proxy->nexthop->connector->chunking)
		proxy->sink.offer &= ~(unsigned)(EHLO_CHUNKING | EHLO_BINARYMIME);
	if (!(proxy->sink.offer & EHLO_CHUNKING))
		proxy->sink.offer &= ~(unsigned)EHLO_BINARYMIME;
}

static enum sink_status proxy_hello(struct sink *sink)
{
	struct proxy *proxy = proxy_of_sink(sink);

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
	if (proxy->needs & ~client->offer.keywords) {
		/* Announced from an earlier session; this host, or this moment, is different. */
		proxy->nexthop->offer = client->offer;
		proxy_leave(proxy, NEXTHOP_PUT_CLEAN);
		proxy_break(proxy, span_of(reply_lacks));
		return;
	}
	proxy->uses_bdat =
		proxy->nexthop->connector->chunking && client->offer.keywords & EHLO_CHUNKING;
	/* A copy: the client may be gone when the message is logged. */
	memcpy(proxy->via, client->id, sizeof(proxy->via));
	proxy->sink.via = proxy->via;
	proxy->commands_sent = 0;
	proxy_send_commands(proxy);
	client_flush(client);
}

static enum sink_status proxy_mail(
	struct sink *sink, const struct command *command, uint64_t size_extra)
{
	struct proxy *proxy = proxy_of_sink(sink);
	struct client *client;

	ASSERT(proxy->client == NULL);
	proxy_forget(proxy);
	proxy->commands = iobuf_take_small(&proxy->nexthop->net->bufs);
	proxy->commands_len = (uint32_t)compose_mail(
		command, size_extra, sink->offer, proxy->commands->data, IOBUF_SMALL_BYTES);
	if (proxy->commands_len == 0) {
		proxy_forget(proxy);
		sink->refusal = "501 5.5.4 Invalid arguments";
		return SINK_FAIL;
	}
	proxy_enter(proxy, PROXY_ENVELOPE);
	proxy->pending = 1;
	proxy->attempts = 0;
	proxy->is_answered = false;
	sink->via = NULL;
	proxy->needs = compose_needs(command);
	proxy->chunks_owed = 0;
	proxy->body_bytes = 0;
	client = nexthop_take(proxy->nexthop);
	/* A refusal for lack of a keyword would come back from within this call: let the loop do
	 * it. */
	if (client != NULL && (proxy->needs & ~client->offer.keywords) == 0) {
		proxy_begin_on(proxy, client);
		return SINK_WAIT;
	}
	if (client != NULL)
		nexthop_put(proxy->nexthop, client, NEXTHOP_PUT_CLEAN);
	nexthop_ask(proxy->nexthop, &proxy->lease);
	return SINK_WAIT;
}

/* Once something was answered no other session is tried, and what was written need not be kept. */
static void proxy_drop_answered(struct proxy *proxy)
{
	if (proxy->is_answered && proxy->commands_sent == proxy->commands_len)
		proxy_drop_commands(proxy);
}

static enum sink_status proxy_rcpt(struct sink *sink, const struct command *command)
{
	struct proxy *proxy = proxy_of_sink(sink);
	uint8_t *at;
	size_t len;

	if (proxy->state == PROXY_BROKEN) {
		sink->refusal =
			"451 4.4.2 The connection to the next hop was lost, try again later";
		return SINK_FAIL;
	}
	if (proxy->commands == NULL)
		proxy->commands = iobuf_take_small(&proxy->nexthop->net->bufs);
	at = proxy->commands->data + proxy->commands_len;
	len = compose_rcpt(command, at, IOBUF_SMALL_BYTES - proxy->commands_len);
	/* Room comes back with the first answer, when the commands so far need not be kept. */
	if (len == 0 || (proxy->client != NULL && conn_room(&proxy->client->conn) < len))
		return SINK_FULL;
	proxy->commands_len += (uint32_t)len;
	proxy->needs |= compose_needs(command);
	proxy->pending++;
	if (proxy->client != NULL) {
		proxy_send_commands(proxy);
		proxy_drop_answered(proxy);
	}
	return SINK_WAIT;
}

/* Body. */

static enum sink_status proxy_data(struct sink *sink)
{
	struct proxy *proxy = proxy_of_sink(sink);

	if (proxy->client == NULL) {
		sink->refusal =
			"451 4.4.2 The connection to the next hop was lost, try again later";
		return SINK_FAIL;
	}
	if (proxy->uses_bdat) {
		proxy_enter(proxy, PROXY_BODY);
		return SINK_DONE;
	}
	proxy_enter(proxy, PROXY_DATA);
	proxy->pending = 1;
	dot_writer_init(&proxy->dot);
	client_command(proxy->client, span_of("DATA\r\n"));
	client_flush(proxy->client);
	return SINK_WAIT;
}

/* Completes the gathered chunk and sends it as soon as the wire is free. */
static void proxy_seal(struct proxy *proxy, const char *last)
{
	struct conn *conn = &proxy->client->conn;
	char header[CHUNK_HEADER_BYTES + 8];
	int len;

	if (proxy->uses_bdat) {
		len = snprintf(header, sizeof(header), "BDAT %zu%s\r\n",
			conn->is_corked ? conn_gathered(conn) : 0, last);
		if (conn->is_corked && conn_gathered(conn) > 0)
			conn_out_prepend(conn, span_make(header, (size_t)len));
		else
			(void)conn_write(conn, span_make(header, (size_t)len));
		client_owe(proxy->client);
		if (last[0] == '\0')
			proxy->chunks_owed++;
	}
	conn->is_corked = false;
	client_flush_now(proxy->client);
}

/* Sends what is gathered, unless something is still on its way: then more may join it. */
static void proxy_push_text(struct proxy *proxy)
{
	struct conn *conn = &proxy->client->conn;

	if (conn->wire != NULL || conn_gathered(conn) == 0)
		return;
	if (proxy->uses_bdat && conn->is_corked)
		proxy_seal(proxy, "");
	else
		client_flush_now(proxy->client);
}

static size_t proxy_conn_room(struct proxy *proxy)
{
	struct conn *conn = &proxy->client->conn;
	size_t room;

	conn->is_bulk_out = proxy->body_bytes > BULK_AFTER_BYTES;
	/* A sealed chunk that has not left entirely must not be added to. */
	if (proxy->uses_bdat && conn->out != NULL && !conn->is_corked)
		return 0;
	(void)conn_out_space(conn, proxy->uses_bdat ? CHUNK_HEADER_BYTES : 0, &room);
	conn_out_commit(conn, 0);
	/* Each byte may be a dot at the start of a line, and the end of data must fit too. */
	return proxy->uses_bdat ? room : (room - DOT_END_BYTES_MAX) / 2;
}

static size_t proxy_room(struct sink *sink)
{
	struct proxy *proxy = proxy_of_sink(sink);
	size_t room;

	if (proxy->client == NULL)
		return SIZE_MAX; /* broken: the session was told, or will be */
	room = proxy_conn_room(proxy);
	if (room < PROXY_ROOM_MIN && proxy->client->conn.wire == NULL) {
		proxy_push_text(proxy);
		if (proxy->client != NULL)
			room = proxy_conn_room(proxy);
	}
	if (room >= PROXY_ROOM_MIN)
		return room;
	proxy->wants_room = true;
	return 0;
}

static void proxy_body(struct sink *sink, struct span text)
{
	struct proxy *proxy = proxy_of_sink(sink);
	struct conn *conn;
	uint8_t *to;
	size_t room;
	size_t len;

	if (proxy->client == NULL)
		return;
	conn = &proxy->client->conn;
	proxy->body_bytes += text.len;
	STAT_ADD(copied_bytes, text.len);
	to = conn_out_space(conn, proxy->uses_bdat ? CHUNK_HEADER_BYTES : 0, &room);
	if (proxy->uses_bdat) {
		ASSERT(text.len <= room);
		memcpy(to, text.data, text.len);
		conn->is_corked = true;
		conn_out_commit(conn, text.len);
		return;
	}
	len = dot_write(&proxy->dot, text, to, room, &room);
	ASSERT(len == text.len);
	conn_out_commit(conn, room);
}

static void proxy_push(struct sink *sink)
{
	struct proxy *proxy = proxy_of_sink(sink);

	if (proxy->client == NULL)
		return;
	if (proxy->state == PROXY_BODY)
		proxy_push_text(proxy);
	else if (proxy->state == PROXY_ENVELOPE)
		client_flush(proxy->client);
}

static enum sink_status proxy_finish(struct sink *sink)
{
	struct proxy *proxy = proxy_of_sink(sink);
	uint8_t end[DOT_END_BYTES_MAX];
	size_t len;

	if (proxy->client == NULL)
		return SINK_FAIL;
	proxy_enter(proxy, PROXY_FINISH);
	proxy->pending = 1;
	if (proxy->uses_bdat) {
		proxy_seal(proxy, " LAST");
		return SINK_WAIT;
	}
	len = dot_write_end(&proxy->dot, end);
	client_command(proxy->client, span_make(end, len));
	client_flush(proxy->client);
	return SINK_WAIT;
}

static void proxy_abandon(struct sink *sink)
{
	struct proxy *proxy = proxy_of_sink(sink);

	switch (proxy->state) {
	case PROXY_IDLE:
	case PROXY_HELLO:
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
	nexthop_put(proxy->nexthop, client, NEXTHOP_PUT_CLEAN);
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

/* An answer to a chunk that is not the last: only bad news matters. */
static bool proxy_take_chunk_reply(struct proxy *proxy, const struct reply *reply)
{
	if (proxy->chunks_owed == 0)
		return false;
	proxy->chunks_owed--;
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
	proxy->is_answered = true;
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
		proxy_enter(proxy, PROXY_IDLE);
	}
	/* The session abandons what is over, and that gives the client back. */
	proxy->sink.events->on_reply(&proxy->sink, reply->code, reply->wire);
}

static void proxy_on_drained(struct client *client)
{
	struct proxy *proxy = client->owner;

	if (proxy->state == PROXY_BODY)
		proxy_push_text(proxy);
	if (proxy->state != PROXY_BODY || !proxy->wants_room)
		return;
	proxy->wants_room = false;
	proxy->sink.events->on_ready(&proxy->sink);
}

static void proxy_on_lost(struct client *client, const char *why)
{
	struct proxy *proxy = client->owner;
	bool was_used = client->message_count > 0;

	proxy->client = NULL;
	nexthop_lost(proxy->nexthop, client, why);
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

void proxy_init(struct proxy *proxy, struct nexthop *nexthop)
{
	*proxy = (struct proxy){.sink.ops = &proxy_ops, .nexthop = nexthop, .state = PROXY_IDLE};
	lease_init(&proxy->lease, &proxy_lease_events);
}

void proxy_fini(struct proxy *proxy)
{
	proxy_abandon(&proxy->sink);
}
