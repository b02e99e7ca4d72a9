/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/session.h"

#include "relay/base/limits.h"
#include "relay/base/log.h"
#include "relay/base/stats.h"
#include "relay/smtp/stamp.h"

/*
 * body.c: the part of a session between DATA or BDAT and the answer to the message.
 */

/* A body is received into bulk buffers if more than that is announced, or has come. */
#define BULK_AFTER_BYTES 16384

/* Less room than this in the sink is not worth a call. */
#define BODY_ROOM_MIN 256

/* What may go to the sink beside the text that is at hand: held text, and Exchange's stamps. */
#define BODY_ROOM_RESERVE (FIREWALL_HELD_MAX + STAMP_BYTES_MAX)

_Static_assert(BODY_ROOM_MIN + BODY_ROOM_RESERVE <= SINK_ROOM_MIN,
	"a sink that has room at all has enough");
_Static_assert(OWN_FIELDS_BYTES_MAX >= TRACE_BYTES_MAX + 2 * STAMP_BYTES_MAX,
	"what is announced leaves room for our own fields");

static const char nexthop_senseless[] =
	"451 4.3.0 The next hop's answer to DATA makes no sense\r\n";

/* A refusal that is too long to keep is kept as its last line, and that is cut if need be. */
static void body_keep_refusal(struct transaction *transaction, struct span reply)
{
	const size_t room = sizeof(transaction->refusal) - 3;
	size_t start = reply.len > 2 ? reply.len - 2 : 0;

	if (reply.len > room) {
		while (start > 0 && reply.data[start - 1] != '\n')
			start--;
		reply = span_skip(reply, start);
	}
	reply = span_head(reply, reply.len > 2 ? reply.len - 2 : 0);
	reply = span_head(reply, room);
	(void)snprintf(transaction->refusal, sizeof(transaction->refusal), "%.*s\r\n",
		(int)reply.len, (const char *)reply.data);
}

void session_discard(struct session *session, struct span reply)
{
	struct transaction *transaction = &session->transaction;

	if (transaction->is_discarding)
		return;
	/* Kept first: the reply may lie in a buffer that goes when the sink lets go of it. */
	body_keep_refusal(transaction, reply);
	transaction->is_discarding = true;
	session->waits &= ~(unsigned)SESSION_WAIT_SINK;
	session->sink->ops->abandon(session->sink);
}

/* The TLS of a front end's session is not the client's: nothing is said of that. */
static const struct tls_facts *body_facts(const struct session *session)
{
	static const struct tls_facts none;

	return session->client.origin == CLIENT_BY_XCLIENT ? &none : &session->conn.facts;
}

static struct trace body_trace(const struct session *session)
{
	const struct tls_facts *facts = body_facts(session);
	const struct session_client *client = &session->client;
	const struct peer *certificate = session_certificate(session);

	return (struct trace){.helo = span_of(session_helo(session)),
		.peer_address = session->peer,
		.fqdn = session->connector->fqdn,
		.connector = session->connector->name,
		.session_id = session->id,
		.is_extended = client->has_proto ? client->is_extended : session->is_extended,
		.is_utf8 = session->transaction.is_utf8,
		.tls_version = facts->version,
		.tls_cipher = facts->cipher,
		.tls_bits = facts->cipher_bits,
		.client_subject = certificate != NULL ? certificate->subject : NULL,
		.client_is_verified = facts->verdict == VERDICT_VALID ||
				      session->transaction.grant.role == ROLE_PARTNER,
		.client_domain = session->transaction.grant.role == ROLE_PARTNER
					 ? session->transaction.grant.domain
					 : NULL,
		.recipient = span_of(session->transaction.recipient),
		.now = time(NULL)};
}

static struct stamp body_stamp(const struct session *session)
{
	const struct grant *grant = &session->transaction.grant;

	return (struct stamp){.fqdn = session->authserv_id,
		.role = grant->role,
		.domain = grant->domain,
		.tls_version = body_facts(session)->version,
		.tls_cipher = body_facts(session)->cipher};
}

/* Counters begin, and our fields go in front of the message. */
static void body_begin(struct session *session, enum session_state state)
{
	struct transaction *transaction = &session->transaction;
	struct trace trace = body_trace(session);
	struct stamp stamp = body_stamp(session);
	uint8_t received[TRACE_BYTES_MAX];
	char results[STAMP_BYTES_MAX];
	size_t received_len = trace_received(&trace, received);
	size_t results_len = stamp_results(&stamp, results);
	unsigned classes = FIREWALL_STAMP | FIREWALL_ORGANIZATION;

	session_enter(session, state);
	if (transaction->announced_bytes > BULK_AFTER_BYTES)
		session->conn.is_bulk_in = true;
	/* What one of our own servers says to another stands. */
	if (transaction->grant.role == ROLE_INTERNAL && session->sink->is_trusted)
		classes = FIREWALL_STAMP;
	dot_reader_init(&transaction->dot);
	header_scan_init(&transaction->header, session->connector->fqdn);
	firewall_init(&transaction->firewall, classes, session->authserv_id);
	/* Every command was answered, so nothing is gathered in the sink: the fields find room. */
	ASSERT(session->sink->ops->room(session->sink) >= received_len + results_len);
	session->sink->ops->body(session->sink, span_make(received, received_len));
	session->sink->ops->body(session->sink, span_make(results, results_len));
}

/*
 * The header is over. A trusted next hop is told what we think of the sender, unless it is one of
 * our own that has passed on what was found out before.
 */
static void body_end_header(struct session *session)
{
	struct stamp stamp = body_stamp(session);
	char text[STAMP_BYTES_MAX];

	if (session->sink->is_trusted && !session->transaction.firewall.has_auth_as)
		session->sink->ops->body(
			session->sink, span_make(text, stamp_exchange(&stamp, text)));
}

/* Limits and rules that the body may have broken by now. */
static void body_judge(struct session *session)
{
	const struct receive_connector *connector = session->connector;
	const struct transaction *transaction = &session->transaction;
	unsigned flaws = transaction->is_binary ? 0 : transaction->dot.flaws;
	const char *refusal = NULL;

	if (transaction->body_bytes > connector->max_message_bytes ||
		(session->sink->bytes_max > 0 &&
			transaction->body_bytes > session->sink->bytes_max))
		refusal = "552 5.3.4 Message size exceeds fixed maximum message size\r\n";
	else if (transaction->header.bytes > connector->max_header_bytes)
		refusal = "552 5.3.4 Header size exceeds fixed maximum size\r\n";
	else if (transaction->header.received_count > connector->max_hop_count ||
		 (connector->max_local_hop_count > 0 &&
			 transaction->header.local_count > connector->max_local_hop_count))
		refusal = "554 5.4.6 Hop count exceeded - possible mail loop\r\n";
	else if (flaws & (BODY_BARE_CR | BODY_BARE_LF) && connector->bare_newline == NEWLINE_REJECT)
		refusal = "550 5.6.11 Bare CR or LF in a message is not allowed\r\n";
	/* BINARYMIME frees the body of the rule, not the header (RFC 3030 3). */
	else if ((flaws & BODY_NUL || transaction->header.has_nul) &&
		 connector->nul == NEWLINE_REJECT)
		refusal = "550 5.6.0 NUL in a message is not allowed\r\n";
	if (refusal != NULL)
		session_discard(session, span_of(refusal));
}

/* One piece of body goes to the sink, which has room for it, or nowhere. */
static void body_pass(struct session *session, struct span text)
{
	struct transaction *transaction = &session->transaction;

	transaction->body_bytes += text.len;
	/* More was at hand than a small buffer took. */
	if (transaction->body_bytes > BULK_AFTER_BYTES || session->conn.has_more)
		session->conn.is_bulk_in = true;
	if (transaction->is_discarding)
		return;
	header_scan(&transaction->header, text);
	body_judge(session);
	while (!transaction->is_discarding && text.len > 0) {
		bool was_header = !transaction->firewall.is_done;
		struct span piece = firewall_next(&transaction->firewall, &text);

		if (was_header && transaction->firewall.is_done)
			body_end_header(session);
		if (piece.len > 0)
			session->sink->ops->body(session->sink, piece);
	}
}

/* What the firewall still holds of a message that is all header. */
static void body_pass_rest(struct session *session)
{
	struct firewall *firewall = &session->transaction.firewall;
	struct span rest;

	if (firewall->is_done)
		return;
	rest = firewall_end(firewall);
	if (rest.len > 0)
		session->sink->ops->body(session->sink, rest);
	if (firewall_is_at_line(firewall))
		body_end_header(session);
}

/* How much input may be taken now; 0: the sink says when. */
static size_t body_room(struct session *session)
{
	size_t room;

	if (session->transaction.is_discarding)
		return SIZE_MAX;
	room = session->sink->ops->room(session->sink);
	if (room == 0) {
		session->waits |= SESSION_WAIT_SINK;
		return 0;
	}
	ASSERT(room >= SINK_ROOM_MIN);
	return session->transaction.firewall.is_done ? room : room - BODY_ROOM_RESERVE;
}

static void body_log(
	const struct session *session, const char *result, unsigned code, struct span text)
{
	const struct transaction *transaction = &session->transaction;
	char sender[SESSION_SENDER_BYTES];
	char recipient[SESSION_SENDER_BYTES];
	char reply[256];

	log_event(LOG_LEVEL_INFO, session->id, "message",
		"result=%s code=%u from=%s to=%s recipients=%lu bytes=%lu role=%s domain=%s "
		"nexthop=%s reply=%s",
		result, code, log_quote_text(transaction->sender, sender, sizeof(sender)),
		transaction->recipient[0] == '\0'
			? "-"
			: log_quote_text(transaction->recipient, recipient, sizeof(recipient)),
		(unsigned long)transaction->rcpt_accepted, (unsigned long)transaction->body_bytes,
		role_word(transaction->grant.role),
		transaction->grant.role == ROLE_PARTNER ? transaction->grant.domain : "-",
		session->sink->via == NULL ? "-" : session->sink->via,
		log_quote(text, reply, sizeof(reply)));
}

/* The answer to the message, ours or the next hop's. */
static void body_end_message(struct session *session, unsigned code, struct span wire)
{
	const struct transaction *transaction = &session->transaction;
	const bool is_accepted = code >= 200 && code < 300;

	if (transaction->dot.flaws & (BODY_BARE_CR | BODY_BARE_LF))
		STAT(body_bare_newline);
	if (transaction->dot.flaws & BODY_NUL)
		STAT(body_nul);
	STAT_ADD(headers_removed, transaction->firewall.removed);
	body_log(session, is_accepted ? "accepted" : "refused", code,
		span_head(wire, wire.len > 2 ? wire.len - 2 : 0));
	if (is_accepted) {
		STAT(messages);
		if (transaction->grant.role == ROLE_PARTNER)
			STAT(messages_secured);
		STAT_ADD(message_bytes, transaction->body_bytes);
		session->message_count++;
	} else {
		STAT(messages_refused);
	}
	session_write(session, wire);
	session_reset(session);
	session_enter(session, SESSION_READY);
	session_heed_code(session, code);
}

void body_log_unanswered(const struct session *session)
{
	body_log(session, "unanswered", 0, span_of("the client left before the next hop answered"));
}

/* The refusal that a discarded body ends with. */
static void body_end_refused(struct session *session)
{
	char refusal[SESSION_REPLY_BYTES];

	/* A copy, since ending the message forgets the transaction. */
	memcpy(refusal, session->transaction.refusal, sizeof(refusal));
	body_end_message(session, (unsigned)strtoul(refusal, NULL, 10), span_of(refusal));
}

static void body_finish(struct session *session)
{
	if (!session->transaction.is_discarding)
		body_judge(session);
	if (session->transaction.is_discarding) {
		body_end_refused(session);
		return;
	}
	body_pass_rest(session);
	session_enter(session, SESSION_FINISH);
	session->waits |= SESSION_WAIT_SINK;
	if (session->sink->ops->finish(session->sink) == SINK_FAIL) {
		char refusal[SESSION_REPLY_BYTES];

		(void)snprintf(refusal, sizeof(refusal), "%s\r\n", session->sink->refusal);
		session_discard(session, span_of(refusal));
		body_end_refused(session);
	}
}

bool body_run_data(struct session *session)
{
	struct transaction *transaction = &session->transaction;
	struct span in = conn_input(&session->conn);
	struct span text;
	size_t consumed;
	size_t room;
	enum dot_status status;

	if (in.len == 0)
		return false;
	room = body_room(session);
	if (room == 0)
		return false;
	/* A byte that the reader held back may come on top of what it is given. */
	status = dot_take(&transaction->dot, conn_input_bytes(&session->conn),
		span_head(in, room - 2).len, &consumed, &text);
	if (text.len > 0)
		body_pass(session, text);
	conn_consume(&session->conn, consumed);
	if (status == DOT_END)
		body_finish(session);
	return true;
}

/* A chunk is complete: what follows is a command, or the message is whole. */
static void body_end_chunk(struct session *session)
{
	struct transaction *transaction = &session->transaction;

	if (transaction->chunk_is_last) {
		body_check_end(&transaction->dot);
		body_finish(session);
		return;
	}
	if (transaction->is_discarding)
		session_write(session, span_of(transaction->refusal));
	else
		session_reply(session, "250 2.6.0 Chunk received");
	session_enter(session, SESSION_MAIL);
}

bool body_run_chunk(struct session *session)
{
	struct transaction *transaction = &session->transaction;
	struct span in = span_head(conn_input(&session->conn), transaction->chunk_left);
	size_t room;

	if (in.len == 0 && transaction->chunk_left > 0)
		return false;
	if (in.len > 0) {
		room = body_room(session);
		if (room == 0)
			return false;
		in = span_head(in, room);
		if (!transaction->is_binary)
			body_check(&transaction->dot, in);
		body_pass(session, in);
		transaction->chunk_left -= in.len;
		conn_consume(&session->conn, in.len);
	}
	if (transaction->chunk_left == 0)
		body_end_chunk(session);
	return true;
}

void body_start_data(struct session *session)
{
	session_reply(session, "354 Start mail input; end with <CRLF>.<CRLF>");
	body_begin(session, SESSION_BODY);
}

void body_start_chunk(struct session *session)
{
	if (session->transaction.has_begun)
		session_enter(session, SESSION_CHUNK);
	else
		body_begin(session, SESSION_CHUNK);
	session->transaction.has_begun = true;
	if (session->transaction.chunk_left > BULK_AFTER_BYTES)
		session->conn.is_bulk_in = true;
}

void body_refuse(struct session *session, unsigned code, struct span wire)
{
	if (session->transaction.has_bdat) {
		session_discard(session, wire);
		session_enter(session, SESSION_CHUNK);
		return;
	}
	session_write(session, wire);
	session_reset(session);
	session_enter(session, SESSION_READY);
	session_heed_code(session, code);
}

/* The next hop answered DATA, which stands for the client's DATA or first BDAT. */
static void body_data_answered(struct session *session, unsigned code, struct span wire)
{
	session->transaction.is_data_pending = false;
	if (code < 400 && code != 354) {
		/* Passed on, it could be taken for "go on", and the text for commands. */
		body_refuse(session, 451, span_of(nexthop_senseless));
	} else if (code != 354) {
		body_refuse(session, code, wire);
	} else if (session->transaction.has_bdat) {
		body_start_chunk(session);
	} else {
		session_write(session, wire);
		body_begin(session, SESSION_BODY);
	}
}

void body_answered(struct session *session, unsigned code, struct span wire)
{
	if (session->transaction.is_data_pending)
		body_data_answered(session, code, wire);
	else if (session->state == SESSION_FINISH)
		body_end_message(session, code, wire);
}
