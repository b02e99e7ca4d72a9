/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/session.h"

#include "relay/base/format.h"
#include "relay/base/limits.h"
#include "relay/base/log.h"
#include "relay/base/stats.h"
#include "relay/smtp/proxy_header.h"
#include "relay/smtp/xclient.h"

/*
 * announce.c: the client is not the peer of the connection. A balancer says so once, in a PROXY
 * header in front of everything; a front end with XCLIENT, as often as it likes. Who may is
 * settled when the session begins; who serves the client, by the owner.
 *
 * What follows a PROXY header is the client's own, TLS included. What follows XCLIENT is still said
 * by the front end: its certificate proves nothing for the client.
 */

static const char reply_crowded[] =
	"421 4.3.2 The maximum number of concurrent connections has exceeded a limit, closing "
	"transmission channel";

/* ---- the PROXY header */

void announce_await(struct session *session)
{
	(void)snprintf(session->announcer, sizeof(session->announcer), "%s", session->peer);
	/* Not renewed: a byte now and then does not lengthen the wait. */
	conn_deadline(&session->conn, session->opened_ms + PROXY_HEADER_TIMEOUT_MS);
	conn_read(&session->conn);
}

/* No banner, and no orderly end: it may be anybody's bytes. */
static void announce_abort(struct session *session)
{
	conn_abort(&session->conn);
	session_close(session);
}

void announce_refuse_header(struct session *session, const char *why)
{
	const size_t bytes = conn_input(&session->conn).len;

	/* Who connects and goes, without a word, wants to know whether somebody is at home. */
	if (bytes == 0 && strcmp(why, "cut-short") == 0) {
		log_event(LOG_LEVEL_DEBUG, session->id, "refused",
			"peer=%s why=proxy-header reason=nothing-came", session->peer);
	} else {
		STAT(proxy_headers_bad);
		log_event(LOG_LEVEL_WARNING, session->id, "refused",
			"peer=%s why=proxy-header reason=%s bytes=%zu", session->peer, why, bytes);
	}
	announce_abort(session);
}

/* What the balancer tells beside the addresses: nothing follows from it but this line. */
static void announce_log_header(const struct session *session, const struct proxy_header *header)
{
	char unique_id[2 * PROXY_HEADER_UNIQUE_ID_BYTES_MAX];
	char authority[NAME_BYTES_MAX];
	char version[32];

	if (log_level_max < LOG_LEVEL_DEBUG)
		return;
	log_event(LOG_LEVEL_DEBUG, session->id, "proxy-header",
		"balancer=%s version=%u client=%s unique-id=%s authority=%s tls=%s",
		session->announcer, header->version, header->has_client ? "yes" : "no",
		log_quote(header->unique_id, unique_id, sizeof(unique_id)),
		log_quote(header->authority, authority, sizeof(authority)),
		header->tls.is_tls ? log_quote(header->tls.version, version, sizeof(version))
				   : "no");
}

/* The client, or the balancer itself if it speaks for nobody. */
static void announce_client(struct session *session, const struct proxy_header *header)
{
	struct session_client client = session->client;

	if (header->has_client)
		client = (struct session_client){.origin = CLIENT_BY_PROXY,
			.ip = header->source,
			.port = header->source_port,
			.destination = header->destination,
			.destination_port = header->destination_port};
	switch (session->owner->on_announced(session, &client)) {
	case SESSION_WELCOME:
		STAT(proxy_headers);
		if (session->connector->tls == TLS_MODE_IMPLICIT)
			conn_keep_for_tls(&session->conn);
		session_begin(session);
		break;
	case SESSION_STRANGER:
	case SESSION_OUTDATED:
		announce_abort(session);
		break;
	case SESSION_CROWDED:
		if (session->connector->tls != TLS_MODE_IMPLICIT)
			session_reply(session, "%s", reply_crowded);
		session_close(session);
		break;
	}
}

void announce_take_header(struct session *session)
{
	struct proxy_header header;
	enum proxy_header_status status = proxy_header_parse(conn_input(&session->conn), &header);

	if (status == PROXY_HEADER_MORE) {
		conn_read(&session->conn);
		return;
	}
	if (status != PROXY_HEADER_OK) {
		announce_refuse_header(session, proxy_header_word(status));
		return;
	}
	/* Its parts lie in the buffer: they are used before it is consumed. */
	announce_log_header(session, &header);
	conn_consume(&session->conn, header.bytes);
	announce_client(session, &header);
}

/* ---- XCLIENT */

/*
 * What is said of another address is all that is known of it; without one, it is said of the
 * client that was announced before.
 */
static void announce_merge(struct session_client *client, const struct session_front_end *front_end,
	const struct xclient *from)
{
	if (from->given & XCLIENT_ADDR)
		*client = (struct session_client){.ip = from->address,
			.destination = front_end->destination,
			.destination_port = front_end->destination_port};
	client->origin = CLIENT_BY_XCLIENT;
	if (from->given & XCLIENT_PORT)
		client->port = from->port;
	if (from->known & XCLIENT_DESTADDR)
		client->destination = from->destination;
	if (from->known & XCLIENT_DESTPORT)
		client->destination_port = from->destination_port;
	if (from->given & XCLIENT_PROTO) {
		client->has_proto = true;
		client->is_extended = from->is_extended;
	}
	if (from->given & XCLIENT_HELO)
		memcpy(client->helo, from->helo, sizeof(client->helo));
}

_Static_assert(sizeof(((struct session_client *)NULL)->helo) == XCLIENT_TEXT_BYTES,
	"a HELO name is copied as it is");

static void announce_log_xclient(const struct session *session, const struct xclient *from)
{
	char helo[XCLIENT_TEXT_BYTES];
	char name[XCLIENT_TEXT_BYTES];
	char login[XCLIENT_TEXT_BYTES];

	log_event(LOG_LEVEL_INFO, session->id, "xclient",
		"connector=%s peer=%s port=%u front-end=%s helo=%s name=%s login=%s",
		session->connector->name, session->peer, session->client.port, session->announcer,
		log_quote_text(from->helo[0] == '\0' ? NULL : from->helo, helo, sizeof(helo)),
		log_quote_text(from->name[0] == '\0' ? NULL : from->name, name, sizeof(name)),
		log_quote_text(from->login[0] == '\0' ? NULL : from->login, login, sizeof(login)));
}

/* It is served: everything is as before the first word, but for TLS, which is the front end's. */
static void announce_restart(struct session *session, const struct xclient *from)
{
	STAT(xclients);
	announce_log_xclient(session, from);
	session_log_reopen(session);
	session->is_proved = session->connector->external_authoritative;
	session->helo[0] = '\0';
	session->is_extended = false;
	session->announced = 0;
	session->announced_size = 0;
	/*
	 * Whoever sits between the front end and us could have said XCLIENT in clear; under TLS it
	 * would still be in force (RFC 3207 4.2). So TLS comes first or not at all.
	 */
	session->tls_context = NULL;
	session_enter(session, SESSION_GREETING);
	session_greet(session);
}

static void announce_xclient_client(struct session *session, const struct xclient *from)
{
	struct session_client client = session->client;

	if (session->client.origin != CLIENT_BY_XCLIENT) {
		(void)snprintf(session->announcer, sizeof(session->announcer), "%s", session->peer);
		session->front_end = (struct session_front_end){.origin = session->client.origin,
			.ip = session->client.ip,
			.destination = session->client.destination,
			.destination_port = session->client.destination_port};
	}
	announce_merge(&client, &session->front_end, from);
	session_reset(session);
	switch (session->owner->on_announced(session, &client)) {
	case SESSION_WELCOME:
		announce_restart(session, from);
		break;
	case SESSION_STRANGER:
		/* Mail that came now would be taken for the front end's own: so nothing comes. */
		session_kick(session, "550 5.7.1 This client is not served here");
		break;
	case SESSION_CROWDED:
		session_kick(session, reply_crowded);
		break;
	case SESSION_OUTDATED:
		session_kick(
			session, "421 4.3.2 Service not available, closing transmission channel");
		break;
	}
}

void announce_xclient(struct session *session, const struct command *command)
{
	struct xclient from;

	if (!session->is_front_end) {
		STAT(xclient_refused);
		log_event(LOG_LEVEL_WARNING, session->id, "refused", "peer=%s why=xclient",
			session->peer);
		session_error(session, "550 5.7.0 XCLIENT is not for you");
	} else if (session->state == SESSION_MAIL) {
		session_error(session, "503 5.5.1 XCLIENT may not follow MAIL");
	} else if (!xclient_parse(command->argument, &from)) {
		session_error(session, "501 5.5.4 Invalid arguments");
	} else if (from.given & ~from.known & XCLIENT_ADDR) {
		/* Nothing can be decided for somebody of whom nothing is known. */
		log_event(LOG_LEVEL_INFO, session->id, "refused", "peer=%s why=xclient-no-address",
			session->peer);
		session_kick(session, "550 5.7.1 A client without an address is not served here");
	} else {
		announce_xclient_client(session, &from);
	}
}

/* ---- who it is */

struct peer *session_certificate(const struct session *session)
{
	return session->client.origin == CLIENT_BY_XCLIENT ? NULL : session->conn.peer;
}

const char *session_helo(const struct session *session)
{
	return session->client.helo[0] != '\0' ? session->client.helo : session->helo;
}

void announce_identify(struct sink *sink, struct identity *out)
{
	const struct session *session = sink->owner;
	const struct session_client *client = &session->client;
	const struct tls_facts *facts = &session->conn.facts;
	const struct peer *certificate = session_certificate(session);

	memset(out, 0, sizeof(*out));
	out->source = client->ip;
	out->source_port = client->port;
	out->destination = client->destination;
	out->destination_port = client->destination_port;
	out->is_extended = client->has_proto ? client->is_extended : session->is_extended;
	(void)format_print(out->helo, sizeof(out->helo), "%s", session_helo(session));
	(void)format_print(out->session, sizeof(out->session), "%s", session->id);
	if (facts->version == NULL || client->origin == CLIENT_BY_XCLIENT)
		return;
	(void)format_print(out->tls_version, sizeof(out->tls_version), "%s", facts->version);
	(void)format_print(out->tls_cipher, sizeof(out->tls_cipher), "%s",
		facts->cipher == NULL ? "" : facts->cipher);
	(void)format_print(out->server_name, sizeof(out->server_name), "%s", session->server_name);
	out->has_certificate = certificate != NULL;
	out->is_verified = certificate != NULL && facts->verdict == VERDICT_VALID;
	if (out->is_verified)
		identity_common_name(certificate->subject, out->common_name);
}
