/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/session.h"

#include "policy/admit.h"
#include "relay/base/log.h"
#include "relay/base/stats.h"
#include "relay/smtp/tls_log.h"

/*
 * session_log.c: what the log and the protocol log are told of a session (EXCHANGE 12.1). Where
 * the latter is not kept, that costs no more than a look at a bool.
 */

/* Exchange's names for what a role may do here; of ours, those that have an equal (EXCHANGE 2.4).
 */
static const char *session_permissions(const struct session *session, enum role role)
{
	switch (role) {
	case ROLE_ANONYMOUS:
		return session->connector->permission_groups & PERMISSION_ANONYMOUS
			       ? "SMTPSubmit SMTPAcceptAnySender "
				 "SMTPAcceptAuthoritativeDomainSender AcceptRoutingHeaders"
			       : "None";
	case ROLE_PARTNER:
		return "SMTPSubmit AcceptRoutingHeaders";
	case ROLE_INTERNAL:
		return "SMTPSubmit SMTPAcceptAnyRecipient SMTPAcceptAnySender "
		       "SMTPAcceptAuthoritativeDomainSender AcceptRoutingHeaders "
		       "AcceptOrganizationHeaders AcceptForestHeaders";
	case ROLE_COUNT:
		break;
	}
	UNREACHABLE();
}

static void session_note_role(struct session *session, enum role role)
{
	session->logged_role = role;
	protolog_note(&session->protolog, "Set Session Permissions", "%s",
		session_permissions(session, role));
}

void session_log_role(struct session *session, enum role role)
{
	if (session->protolog.is_on && role != session->logged_role)
		session_note_role(session, role);
}

/* The other end of the protocol log's rows, where it is not that of the socket. */
static void session_log_remote(struct session *session)
{
	const struct session_client *client = &session->client;

	if (client->origin == CLIENT_SEEN)
		return;
	(void)snprintf(session->protolog.remote, sizeof(session->protolog.remote),
		client->ip.is_v6 ? "[%s]:%u" : "%s:%u", session->peer, client->port);
}

void session_log_reopen(struct session *session)
{
	protolog_close(&session->protolog, "Local(XCLIENT)");
	session_log_open(session);
}

void session_log_open(struct session *session)
{
	session->protolog.is_on =
		session->connector->protocol_logging == PROTOCOL_LOGGING_VERBOSE &&
		session->world->policy->protocol_log_folder != NULL;
	session->end_word = "Local";
	if (!session->protolog.is_on)
		return;
	session->protolog = (struct protolog){.is_on = true,
		.set = PROTOLOG_RECEIVE,
		.connector = session->connector->name,
		.fqdn = session->connector->fqdn,
		.session = session->id};
	tls_log_ends(&session->protolog, session->conn.fd);
	session_log_remote(session);
	protolog_open(&session->protolog);
	session_note_role(session,
		session->connector->external_authoritative ? ROLE_INTERNAL : ROLE_ANONYMOUS);
}

void session_log_line(struct session *session, struct span line)
{
	if (session->is_line_logged)
		return;
	session->is_line_logged = true;
	protolog_received(&session->protolog, line);
}

void session_log_tls(struct session *session, const struct grant *grant)
{
	const struct tls_facts *facts = &session->conn.facts;
	const char *word = verdict_word(facts->verdict);

	if (!session->protolog.is_on)
		return;
	tls_log_handshake(&session->protolog, facts, session->conn.peer);
	if (session->connector->client_certificate == CLIENT_CERTIFICATE_NONE)
		return;
	tls_log_note(&session->protolog, "Client certificate chain validation status: '%s'", word);
	if (grant->role == ROLE_PARTNER)
		tls_log_note(
			&session->protolog, "TlsDomain='%s'; Status='%s'", grant->domain, word);
	else
		tls_log_note(&session->protolog, "TlsDomainCapabilities='None'; Status='%s'",
			session->conn.peer == NULL ? "NoRemoteCertificate" : word);
}

void session_log_record(const struct session *session)
{
	const struct tls_facts *facts = &session->conn.facts;
	const struct peer *peer = session->conn.peer;
	/* Where XCLIENT came before the kernel had the records: the TLS is the front end's. */
	const char *end =
		session->client.origin == CLIENT_BY_XCLIENT ? session->announcer : session->peer;
	char record[128];
	char subject[PEER_SUBJECT_BYTES];

	(void)conn_record_print(&session->conn, record, sizeof(record));
	if (session->conn.has_moved) {
		log_event(LOG_LEVEL_INFO, session->id, "record", "peer=%s record=%s", end, record);
		return;
	}
	log_event(LOG_LEVEL_INFO, session->id, "tls",
		"peer=%s version=%s cipher=%s bits=%u resumed=%s client-cert=%s subject=%s spki=%s "
		"record=%s",
		end, facts->version, facts->cipher, facts->cipher_bits,
		facts->is_resumed ? "yes" : "no", verdict_word(facts->verdict),
		log_quote_text(peer == NULL ? NULL : peer->subject, subject, sizeof(subject)),
		peer == NULL ? "-" : peer->spki_sha256, record);
}

static const char *session_end_word(enum conn_end why)
{
	switch (why) {
	case CONN_END_EOF:
		return "eof";
	case CONN_END_RESET:
		return "reset";
	case CONN_END_TLS:
		return "tls";
	case CONN_END_KEY_UPDATE:
		return "key-update";
	}
	UNREACHABLE();
}

/* For the protocol log, in Exchange's form. */
static const char *session_end_reason(enum conn_end why)
{
	switch (why) {
	case CONN_END_EOF:
		return "Remote";
	case CONN_END_RESET:
		return "Remote(SocketError)";
	case CONN_END_TLS:
	case CONN_END_KEY_UPDATE:
		return "Remote(TlsError)";
	}
	UNREACHABLE();
}

void session_log_end(struct session *session, enum conn_end why)
{
	const struct tls *tls = session->conn.tls;
	char text[128];

	session->end_word = session_end_reason(why);
	if (session->state == SESSION_TLS || why == CONN_END_TLS) {
		STAT(tls_failed);
		log_event(LOG_LEVEL_WARNING, session->id, "tls-failed", "peer=%s why=%s",
			session->peer,
			log_quote_text(tls != NULL ? tls_error(tls) : session_end_word(why), text,
				sizeof(text)));
		tls_log_note(&session->protolog, "TLS negotiation failed with error %s",
			tls != NULL ? tls_error(tls) : session_end_word(why));
	} else if ((session->state >= SESSION_MAIL && session->waits == 0) || why != CONN_END_EOF) {
		log_event(LOG_LEVEL_INFO, session->id, "lost", "peer=%s why=%s", session->peer,
			session_end_word(why));
	}
}

void session_log_closed(struct session *session)
{
	char helo[SESSION_HELO_BYTES];

	if (!session->has_begun)
		return; /* why is in the log already */
	protolog_close(&session->protolog, session->end_word);
	log_event(LOG_LEVEL_INFO, session->id, "session-end",
		"peer=%s helo=%s messages=%lu errors=%lu seconds=%lu", session->peer,
		log_quote_text(session_helo(session), helo, sizeof(helo)),
		(unsigned long)session->message_count, (unsigned long)session->errors,
		(unsigned long)((loop_now_ms(session->conn.net->loop) - session->opened_ms) /
				1000));
}
