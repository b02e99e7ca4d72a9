/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/proxy.h"

#include "relay/base/limits.h"
#include "relay/base/log.h"
#include "relay/base/stats.h"
#include <stdarg.h>

/* Room in front of a chunk for "BDAT 65536 LAST" and CR LF. */
#define CHUNK_HEADER_BYTES 24

/* Bodies larger than this are sent in large pieces. */
#define BULK_AFTER_BYTES 16384

/* Less room than this is not worth a call of the session. */
#define PROXY_ROOM_MIN 512

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
	proxy->state = PROXY_IDLE;
	proxy->pending = 0;
	proxy->wants_room = false;
}

/* The next hop is gone, or useless: everything that is owed gets this answer. */
static void proxy_break(struct proxy *proxy, struct span reply)
{
	enum proxy_state was = proxy->state;
	unsigned pending = proxy->pending;

	proxy->state = PROXY_BROKEN;
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
	proxy->state = PROXY_HELLO;
	nexthop_ask(proxy->nexthop, &proxy->lease);
	return SINK_WAIT;
}

/* Envelope. */

PRINTF_LIKE(2, 3)
static bool proxy_append(struct proxy *proxy, const char *format, ...)
{
	size_t room = IOBUF_SMALL_BYTES - proxy->commands_len;
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf((char *)proxy->commands->data + proxy->commands_len, room, format, args);
	va_end(args);
	if (len < 0 || (size_t)len >= room)
		return false;
	proxy->commands_len += (uint32_t)len;
	return true;
}

#define SPAN_ARGS(s) (int)(s).len, (const char *)(s).data

static const char *body_word(enum body_type body)
{
	switch (body) {
	case BODY_8BITMIME:
		return " BODY=8BITMIME";
	case BODY_BINARYMIME:
		return " BODY=BINARYMIME";
	case BODY_7BIT:
	case BODY_UNSAID:
		break;
	}
	return "";
}

static bool proxy_append_mail(
	struct proxy *proxy, const struct command *command, uint64_t size_extra)
{
	uint64_t size = command->size + size_extra;
	bool done = proxy_append(proxy, "MAIL FROM:%.*s", SPAN_ARGS(command->path));

	if (command->params & PARAM_SIZE && proxy->sink.offer & EHLO_SIZE)
		done = done && proxy_append(proxy, " SIZE=%lu", (unsigned long)size);
	done = done && proxy_append(proxy, "%s", body_word(command->body));
	if (command->params & PARAM_SMTPUTF8)
		done = done && proxy_append(proxy, " SMTPUTF8");
	if (command->params & PARAM_RET)
		done = done && proxy_append(proxy, " RET=%.*s", SPAN_ARGS(command->ret));
	if (command->params & PARAM_ENVID)
		done = done && proxy_append(proxy, " ENVID=%.*s", SPAN_ARGS(command->envid));
	return done && proxy_append(proxy, "\r\n");
}

static unsigned proxy_needs(const struct command *command)
{
	unsigned needs = 0;

	if (command->body == BODY_8BITMIME)
		needs |= EHLO_8BITMIME;
	if (command->body == BODY_BINARYMIME)
		needs |= EHLO_BINARYMIME | EHLO_CHUNKING;
	if (command->params & PARAM_SMTPUTF8)
		needs |= EHLO_SMTPUTF8;
	if (command->params & (PARAM_RET | PARAM_ENVID))
		needs |= EHLO_DSN;
	return needs;
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
	client->owed += proxy->pending - 1;
	client_command(client, span_make(proxy->commands->data, proxy->commands_len));
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
	if (!proxy_append_mail(proxy, command, size_extra)) {
		proxy_forget(proxy);
		sink->refusal = "501 5.5.4 Invalid arguments";
		return SINK_FAIL;
	}
	proxy->state = PROXY_ENVELOPE;
	proxy->pending = 1;
	proxy->attempts = 0;
	proxy->is_answered = false;
	proxy->needs = proxy_needs(command);
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

static bool proxy_append_rcpt(struct proxy *proxy, const struct command *command)
{
	bool done = proxy_append(proxy, "RCPT TO:%.*s", SPAN_ARGS(command->path));

	if (command->params & PARAM_NOTIFY)
		done = done && proxy_append(proxy, " NOTIFY=%.*s", SPAN_ARGS(command->notify));
	if (command->params & PARAM_ORCPT)
		done = done && proxy_append(proxy, " ORCPT=%.*s", SPAN_ARGS(command->orcpt));
	return done && proxy_append(proxy, "\r\n");
}

static enum sink_status proxy_rcpt(struct sink *sink, const struct command *command)
{
	struct proxy *proxy = proxy_of_sink(sink);
	uint32_t before;

	if (proxy->state == PROXY_BROKEN) {
		sink->refusal =
			"451 4.4.2 The connection to the next hop was lost, try again later";
		return SINK_FAIL;
	}
	if (proxy->commands == NULL)
		proxy->commands = iobuf_take_small(&proxy->nexthop->net->bufs);
	before = proxy->commands_len;
	if (!proxy_append_rcpt(proxy, command)) {
		proxy->commands_len = before;
		return proxy->pending > 0 ? SINK_FULL : SINK_FAIL;
	}
	if (proxy->client != NULL) {
		struct span line =
			span_make(proxy->commands->data + before, proxy->commands_len - before);

		if (conn_room(&proxy->client->conn) < line.len) {
			proxy->commands_len = before;
			return SINK_FULL;
		}
		client_command(proxy->client, line);
		if (proxy->is_answered)
			proxy_drop_commands(proxy);
	}
	if (command->params & (PARAM_NOTIFY | PARAM_ORCPT))
		proxy->needs |= EHLO_DSN;
	proxy->pending++;
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
		proxy->state = PROXY_BODY;
		return SINK_DONE;
	}
	proxy->state = PROXY_DATA;
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
	client_flush(proxy->client);
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
		client_flush(proxy->client);
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
	proxy->state = PROXY_FINISH;
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
	proxy->state = PROXY_IDLE;
	nexthop_put(proxy->nexthop, client, NEXTHOP_PUT_CLEAN);
	proxy_show_offer(proxy);
	proxy->sink.events->on_ready(&proxy->sink);
}

static void proxy_on_refused(struct lease *lease, struct span reply)
{
	struct proxy *proxy = OWNER_OF(lease, struct proxy, lease);

	if (proxy->state == PROXY_HELLO) {
		/* Nothing is known, so nothing beyond the base is announced; MAIL will tell why. */
		proxy->state = PROXY_IDLE;
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
		proxy->state = PROXY_BODY;
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
	if (!proxy->is_answered) {
		proxy->is_answered = true;
		proxy_drop_commands(proxy);
	}
	ASSERT(proxy->pending > 0);
	proxy->pending--;
	if (proxy->state == PROXY_DATA)
		proxy->state = reply->code == 354 ? PROXY_BODY : PROXY_ENVELOPE;
	if (proxy->state == PROXY_FINISH) {
		client->message_count++;
		proxy->state = PROXY_IDLE;
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
