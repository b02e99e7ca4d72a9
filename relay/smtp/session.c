/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/session.h"

#include "relay/base/limits.h"
#include "relay/base/log.h"
#include "relay/base/stats.h"
#include "relay/smtp/line.h"
#include "relay/smtp/reply.h"
#include <errno.h>
#include <stdarg.h>
#include <time.h>

/* Parsing stops while there is less room than this for replies. */
#define REPLY_ROOM_MIN 1024

/* The legal successors of each state; the drawing in session.h in a form that is checked. */
static const uint16_t session_next[SESSION_STATE_COUNT] = {
	[SESSION_ANNOUNCE] = BIT(SESSION_GREETING) | BIT(SESSION_CLOSE),
	[SESSION_GREETING] = BIT(SESSION_TLS) | BIT(SESSION_HELLO) | BIT(SESSION_CLOSE),
	[SESSION_HELLO] =
		BIT(SESSION_GREETING) | BIT(SESSION_READY) | BIT(SESSION_TLS) | BIT(SESSION_CLOSE),
	[SESSION_READY] = BIT(SESSION_GREETING) | BIT(SESSION_READY) | BIT(SESSION_TLS) |
			  BIT(SESSION_MAIL) | BIT(SESSION_CLOSE),
	[SESSION_TLS] = BIT(SESSION_HELLO) | BIT(SESSION_GREETING) | BIT(SESSION_CLOSE),
	[SESSION_MAIL] =
		BIT(SESSION_READY) | BIT(SESSION_BODY) | BIT(SESSION_CHUNK) | BIT(SESSION_CLOSE),
	[SESSION_BODY] = BIT(SESSION_READY) | BIT(SESSION_FINISH) | BIT(SESSION_CLOSE),
	[SESSION_CHUNK] =
		BIT(SESSION_READY) | BIT(SESSION_MAIL) | BIT(SESSION_FINISH) | BIT(SESSION_CLOSE),
	[SESSION_FINISH] = BIT(SESSION_READY) | BIT(SESSION_CLOSE),
	[SESSION_CLOSE] = BIT(SESSION_CLOSE),
};

static void session_begin_tls(struct session *session);

static struct session *session_of(struct conn *conn)
{
	return OWNER_OF(conn, struct session, conn);
}

void session_enter(struct session *session, enum session_state state)
{
	if (session->state == SESSION_CLOSE)
		return; /* there is no way back: what was under way ends here */
	ASSERT(session_next[session->state] & BIT(state));
	session->state = state;
}

/* The nearer of the two deadlines: silence, and the session's whole life. */
static void session_restart_deadline(struct session *session)
{
	const struct receive_connector *connector = session->connector;
	uint64_t now = loop_now_ms(session->conn.net->loop);
	uint64_t idle = now + connector->connection_inactivity_timeout_ms;
	uint64_t life = session->opened_ms + connector->connection_timeout_ms;

	/* While the sink is awaited the peer owes us nothing: only its life is bounded. */
	if (session->waits & (SESSION_WAIT_SINK | SESSION_WAIT_REPLIES | SESSION_WAIT_TARPIT))
		idle = life;
	if (session->waits & SESSION_WAIT_PROOF)
		idle = session->proof_due_ms;
	conn_deadline(&session->conn, idle < life ? idle : life);
}

/* Replies. */

void session_write(struct session *session, struct span wire)
{
	protolog_sent(&session->protolog, wire);
	tarpit_consider(session, wire);
	if (conn_write(&session->conn, wire) == wire.len)
		return;
	/* A peer that reads nothing and asks on: what it was owed is cut off with it. */
	conn_abort(&session->conn);
	session_close(session);
}

void session_reply(struct session *session, const char *format, ...)
{
	char line[SESSION_REPLY_BYTES];
	va_list args;
	size_t len;

	va_start(args, format);
	len = reply_vprint(line, sizeof(line), format, args);
	va_end(args);
	session_write(session, span_make(line, len));
}

void session_error(struct session *session, const char *format, ...)
{
	char line[SESSION_REPLY_BYTES];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	STAT(protocol_errors);
	session_reply(session, "%s", line);
	if (++session->errors < session->connector->max_protocol_errors)
		return;
	log_event(LOG_LEVEL_INFO, session->id, "refused", "why=too-many-errors count=%lu",
		(unsigned long)session->errors);
	session_reply(session,
		"421 4.7.0 Too many errors on this connection, closing transmission channel");
	session_close(session);
}

/* The end. */

void session_reset(struct session *session)
{
	session->sink->ops->abandon(session->sink);
	session->transaction = (struct transaction){0};
	session->waits &= ~(unsigned)(SESSION_WAIT_SINK | SESSION_WAIT_REPLIES);
	session->conn.is_bulk_in = false;
}

void session_heed_code(struct session *session, unsigned code)
{
	if (code == 421)
		session_close(session);
}

void session_close(struct session *session)
{
	if (session->state == SESSION_CLOSE)
		return;
	if (session->state == SESSION_FINISH)
		body_log_unanswered(session);
	session_reset(session);
	tarpit_stop(session);
	session_enter(session, SESSION_CLOSE);
	conn_close(&session->conn);
}

void session_kick(struct session *session, const char *reply)
{
	if (session->state == SESSION_CLOSE)
		return;
	if (session->state != SESSION_TLS && session->state != SESSION_ANNOUNCE)
		session_reply(session, "%s", reply);
	session_close(session);
}

/* There is no time for patience any more. */
static void session_end_tarpit(struct session *session)
{
	tarpit_stop(session);
	session_run(session);
}

void session_drain(struct session *session)
{
	session->is_draining = true;
	if (session->state <= SESSION_READY)
		session_kick(
			session, "421 4.3.2 Service not available, closing transmission channel");
	else if (session->waits & SESSION_WAIT_TARPIT)
		session_end_tarpit(session);
}

static void session_on_closed(struct conn *conn)
{
	struct session *session = session_of(conn);

	session_log_closed(session);
	session->owner->on_closed(session);
}

static void session_on_end(struct conn *conn, enum conn_end why)
{
	struct session *session = session_of(conn);

	if (session->state == SESSION_ANNOUNCE) {
		announce_refuse_header(session, "cut-short");
		return;
	}
	session_log_end(session, why);
	/* It may have said its last word and still wait for the answer: a message may hang on that.
	 */
	if (why == CONN_END_EOF && session->waits != 0 && session->state != SESSION_TLS)
		session->is_ending = true;
	else
		session_close(session);
}

static void session_on_timeout(struct conn *conn)
{
	struct session *session = session_of(conn);
	uint64_t life = session->opened_ms + session->connector->connection_timeout_ms;
	bool is_old = loop_now_ms(conn->net->loop) >= life;

	if (session->state == SESSION_ANNOUNCE) {
		announce_refuse_header(session, "timeout");
		return;
	}
	if (session->waits & SESSION_WAIT_PROOF && !is_old) {
		session_proof_changed(session); /* it did not come in time: MAIL is told so */
		return;
	}
	session->end_word = "Local(Timeout)";
	STAT(sessions_timed_out);
	log_event(LOG_LEVEL_INFO, session->id, "timeout", "peer=%s why=%s", session->peer,
		is_old ? "connection-timeout" : "connection-inactivity-timeout");
	session_kick(
		session, is_old ? "421 4.4.2 Connection timed out, closing transmission channel"
				: "451 4.7.0 Timeout waiting for client input");
}

/* The sink's side. */

/* MAIL's or RCPT's answer: it is the client's answer, and it decides what may follow. */
static void session_take_envelope_reply(struct session *session, unsigned code, struct span wire)
{
	struct transaction *transaction = &session->transaction;
	bool accepted = code >= 200 && code < 300;

	ASSERT(transaction->pending > 0);
	transaction->pending--;
	if (transaction->is_mail_pending) {
		transaction->is_mail_pending = false;
		transaction->is_refused = !accepted;
	} else if (accepted) {
		transaction->rcpt_accepted++;
	} else {
		char reply[256];

		log_event(LOG_LEVEL_INFO, session->id, "rcpt-refused", "code=%u reply=%s", code,
			log_quote(span_head(wire, wire.len - 2), reply, sizeof(reply)));
	}
	session_write(session, wire);
	session_heed_code(session, code);
	if (transaction->pending > 0)
		return;
	session->waits &= ~(unsigned)SESSION_WAIT_REPLIES;
	if (transaction->is_refused) {
		session_reset(session);
		session_enter(session, SESSION_READY);
	}
}

static void session_on_reply(struct sink *sink, unsigned code, struct span wire)
{
	struct session *session = sink->owner;

	if (session->state == SESSION_CLOSE)
		return;
	if (session->transaction.pending > 0) {
		session_take_envelope_reply(session, code, wire);
	} else {
		session->waits &= ~(unsigned)SESSION_WAIT_SINK;
		body_answered(session, code, wire);
	}
	session_run(session);
}

static void session_on_ready(struct sink *sink)
{
	struct session *session = sink->owner;

	if (session->state == SESSION_CLOSE)
		return;
	session->waits &= ~(unsigned)SESSION_WAIT_SINK;
	if (session->is_ehlo_waiting)
		session_answer_ehlo(session);
	session_run(session);
}

static void session_on_broken(struct sink *sink, unsigned code, struct span wire)
{
	struct session *session = sink->owner;

	(void)code;
	if (session->state == SESSION_CLOSE)
		return;
	session_discard(session, wire);
	session_run(session);
}

static const struct sink_events session_sink_events = {
	.on_reply = session_on_reply,
	.on_ready = session_on_ready,
	.on_broken = session_on_broken,
	.identify = announce_identify,
	.admitted = admission_tell,
};

/* A refused chunk is read to its end, so that none of it is taken for a command. */
static bool session_run_drop(struct session *session)
{
	struct span in = span_head(conn_input(&session->conn), session->drop_left);

	conn_consume(&session->conn, in.len);
	session->drop_left -= in.len;
	if (session->drop_left == 0)
		session_error(session, "%s", session->drop_reply);
	return session->drop_left == 0;
}

/* One line, if there is a whole one and it may be carried out now. False: wait or read. */
static bool session_run_line(struct session *session)
{
	struct span in = conn_input(&session->conn);
	struct span line;
	size_t consumed;

	if (session->is_skipping) {
		session->is_skipping = !line_skip(in, &consumed);
		conn_consume(&session->conn, consumed);
		return !session->is_skipping;
	}
	switch (line_next(in,
		session->connector->long_addresses ? LONG_COMMAND_LINE_BYTES_MAX
						   : COMMAND_LINE_BYTES_MAX,
		&line)) {
	case LINE_MORE:
		return false;
	case LINE_OK:
		session_log_line(session, line);
		if (!verb_run(session, line))
			return false;
		break;
	case LINE_BARE:
	case LINE_NUL:
		if (!session_may_reply(session))
			return false;
		session_log_line(session, line);
		session_error(session, "500 5.5.2 Bare CR, LF or NUL in a command line");
		break;
	case LINE_LONG:
		if (!session_may_reply(session))
			return false;
		session_error(session, "500 5.5.2 Line too long");
		session->is_skipping = true;
		return true;
	}
	session->is_line_logged = false;
	if (session->state != SESSION_CLOSE)
		conn_consume(&session->conn, line.len + 2);
	return true;
}

bool session_may_reply(struct session *session)
{
	if (session->transaction.pending == 0)
		return true;
	session->waits |= SESSION_WAIT_REPLIES;
	return false;
}

static void session_parse(struct session *session)
{
	bool goes_on = true;

	while (goes_on && session->waits == 0) {
		if (conn_room(&session->conn) < REPLY_ROOM_MIN) {
			session->waits |= SESSION_WAIT_DRAIN;
			break;
		}
		switch (session->state) {
		case SESSION_BODY:
			goes_on = body_run_data(session);
			break;
		case SESSION_CHUNK:
			goes_on = body_run_chunk(session);
			break;
		case SESSION_HELLO:
		case SESSION_READY:
		case SESSION_MAIL:
			goes_on = conn_input(&session->conn).len > 0 && !session->starts_tls &&
				  (session->drop_left > 0 ? session_run_drop(session)
							  : session_run_line(session));
			break;
		case SESSION_ANNOUNCE:
		case SESSION_GREETING:
		case SESSION_TLS:
		case SESSION_FINISH:
		case SESSION_CLOSE:
		case SESSION_STATE_COUNT:
			goes_on = false;
			break;
		}
	}
}

/* Commands go at once; text is worth a send when no more of it is about to join. */
static bool session_should_push(const struct session *session)
{
	if (session->state != SESSION_BODY && session->state != SESSION_CHUNK)
		return true;
	return session->transaction.body_bytes > 0 &&
	       (!session->conn.has_more || session->waits != 0);
}

/*
 * Goes as far as input, output and sink allow, then sends all replies at once
 * and says what it waits for. Every event ends here.
 */
void session_run(struct session *session)
{
	if (session->is_running)
		return;
	if (session->state == SESSION_CLOSE)
		return;
	session->is_running = true;
	session_parse(session);
	session->is_running = false;
	if (session->state == SESSION_CLOSE)
		return;
	if (conn_is_worn(&session->conn))
		session->is_draining = true;
	if (session->is_draining && session->state <= SESSION_READY) {
		session_drain(session);
		return;
	}
	if (session_should_push(session))
		session->sink->ops->push(session->sink);
	if (!tarpit_holds(session))
		conn_flush(&session->conn);
	session_restart_deadline(session);
	if (session->starts_tls && conn_is_drained(&session->conn))
		session_begin_tls(session);
	else if (session->is_ending && session->waits == 0)
		session_close(session);
	else if (session->waits == 0 && !session->starts_tls && session->state != SESSION_TLS)
		conn_read(&session->conn);
}

void session_proof_changed(struct session *session)
{
	if (!(session->waits & SESSION_WAIT_PROOF) || session->state == SESSION_CLOSE)
		return;
	session->waits &= ~(unsigned)SESSION_WAIT_PROOF;
	session_run(session);
}

static void session_on_input(struct conn *conn)
{
	struct session *session = session_of(conn);

	if (session->state == SESSION_ANNOUNCE)
		announce_take_header(session);
	else
		session_run(session);
}

static void session_on_drained(struct conn *conn)
{
	struct session *session = session_of(conn);

	if (session->state == SESSION_CLOSE)
		return;
	if (session->starts_tls) {
		session_begin_tls(session);
	} else if (session->waits & SESSION_WAIT_DRAIN) {
		session->waits &= ~(unsigned)SESSION_WAIT_DRAIN;
		session_run(session);
	}
}

void session_greet(struct session *session)
{
	const struct receive_connector *connector = session->connector;
	char date[64];
	struct tm utc;
	time_t now = time(NULL);

	(void)gmtime_r(&now, &utc);
	(void)strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S +0000", &utc);
	if (connector->banner != NULL)
		session_reply(session, "%s", connector->banner);
	else
		session_reply(
			session, "220 %s Postern ESMTP service ready at %s", connector->fqdn, date);
	session_enter(session, SESSION_HELLO);
}

/* TLS. */

static void session_begin_tls(struct session *session)
{
	int rc;

	session->starts_tls = false;
	session_enter(session, SESSION_TLS);
	/* RFC 3207 4.2: what was said before TLS is forgotten. */
	session->helo[0] = '\0';
	session->is_extended = false;
	session->announced = 0;
	session_restart_deadline(session);
	/* An implicit one can lack its certificate: then there is nothing to say, and no words. */
	rc = session->tls_context == NULL
		     ? -ENOENT
		     : conn_start_tls(&session->conn, session->tls_context, NULL, NULL);
	if (rc == 0)
		return;
	log_event(LOG_LEVEL_ERROR, session->id, "tls-failed", "peer=%s why=%s", session->peer,
		rc == -ENOENT ? "no-certificate-of-ours" : "no-memory");
	session_close(session);
}

static void session_on_tls(struct conn *conn)
{
	struct session *session = session_of(conn);
	const struct receive_connector *connector = session->connector;
	struct grant grant;
	bool may_kernel = admission_prove(session, &grant);

	STAT(tls_handshakes);
	if (conn->facts.is_resumed)
		STAT(tls_resumed);
	tls_server_name(conn->tls, session->server_name, sizeof(session->server_name));
	session_log_tls(session, &grant);
	session_enter(
		session, connector->tls == TLS_MODE_IMPLICIT ? SESSION_GREETING : SESSION_HELLO);
	if (connector->tls == TLS_MODE_IMPLICIT)
		session_greet(session);
	if (connector->tls_settings.ktls == KTLS_OFF)
		conn_allow_ktls(conn, KTLS_OFF, "configured");
	else if (may_kernel)
		conn_allow_ktls(conn, connector->tls_settings.ktls, "configured");
	else
		conn_allow_ktls(conn, KTLS_OFF, "peer-not-proved");
	session_run(session);
}

static void session_on_record(struct conn *conn)
{
	session_log_record(session_of(conn));
}

static void session_on_connected(struct conn *conn, int result)
{
	(void)conn;
	(void)result;
	UNREACHABLE();
}

static const struct conn_events session_conn_events = {
	.on_connected = session_on_connected,
	.on_input = session_on_input,
	.on_drained = session_on_drained,
	.on_tls = session_on_tls,
	.on_record = session_on_record,
	.on_end = session_on_end,
	.on_timeout = session_on_timeout,
	.on_closed = session_on_closed,
};

void session_begin(struct session *session)
{
	session->has_begun = true;
	session->is_proved = session->connector->external_authoritative;
	session->authserv_id = session->world->policy->fqdn;
	session_log_open(session);
	STAT(sessions);
	session_enter(session, SESSION_GREETING);
	if (session->connector->tls == TLS_MODE_IMPLICIT) {
		session_begin_tls(session);
		return;
	}
	session_greet(session);
	session_run(session);
}

void session_open(struct session *session, struct conn_net *net, int fd)
{
	conn_open(&session->conn, net, &session_conn_events, fd);
	session->state = SESSION_ANNOUNCE;
	session->waits = 0;
	session->announced = 0;
	session->announced_size = 0;
	session->is_extended = false;
	session->is_ehlo_waiting = false;
	session->is_skipping = false;
	session->is_running = false;
	session->is_draining = false;
	session->is_ending = false;
	session->drop_left = 0;
	session->starts_tls = false;
	session->is_proved = false;
	session->has_begun = false;
	session->server_name[0] = '\0';
	session->protolog = (struct protolog){.is_on = false};
	session->is_line_logged = false;
	session->proof_due_ms = 0;
	session->errors = 0;
	session->opened_ms = loop_now_ms(net->loop);
	session->message_count = 0;
	session->transaction = (struct transaction){0};
	session->helo[0] = '\0';
	session->sink->events = &session_sink_events;
	session->sink->owner = session;
	tarpit_open(session);
	if (session->awaits_header)
		announce_await(session);
	else
		session_begin(session);
}
