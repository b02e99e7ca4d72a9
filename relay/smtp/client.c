/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/client.h"

#include "relay/base/log.h"
#include "relay/base/stats.h"
#include <stdarg.h>

static const uint16_t client_next[CLIENT_STATE_COUNT] = {
	[CLIENT_CONNECT] = BIT(CLIENT_GREETING) | BIT(CLIENT_PROOF) | BIT(CLIENT_QUIT),
	[CLIENT_GREETING] = BIT(CLIENT_EHLO) | BIT(CLIENT_HELO) | BIT(CLIENT_QUIT),
	[CLIENT_EHLO] = BIT(CLIENT_HELO) | BIT(CLIENT_STARTTLS) | BIT(CLIENT_XCLIENT) |
			BIT(CLIENT_READY) | BIT(CLIENT_QUIT),
	[CLIENT_HELO] = BIT(CLIENT_READY) | BIT(CLIENT_QUIT),
	[CLIENT_STARTTLS] = BIT(CLIENT_TLS) | BIT(CLIENT_QUIT),
	[CLIENT_TLS] = BIT(CLIENT_EHLO) | BIT(CLIENT_PROOF) | BIT(CLIENT_QUIT),
	[CLIENT_PROOF] = BIT(CLIENT_EHLO) | BIT(CLIENT_GREETING) | BIT(CLIENT_QUIT),
	[CLIENT_XCLIENT] = BIT(CLIENT_EHLO) | BIT(CLIENT_QUIT),
	[CLIENT_READY] = BIT(CLIENT_QUIT),
	[CLIENT_QUIT] = BIT(CLIENT_QUIT),
};

static struct client *client_of(struct conn *conn)
{
	return OWNER_OF(conn, struct client, conn);
}

static void client_restart_deadline(struct client *client)
{
	uint64_t wait_ms = client->state == CLIENT_READY
				   ? client->connector->connection_inactivity_timeout_ms
				   : client->connector->connect_timeout_ms;

	conn_deadline(&client->conn, loop_now_ms(client->conn.net->loop) + wait_ms);
}

static void client_enter(struct client *client, enum client_state state)
{
	ASSERT(client->state < CLIENT_STATE_COUNT && client_next[client->state] & BIT(state));
	client->state = state;
	client_restart_deadline(client);
}

/* Before READY it failed, after that it was lost; either way it ends. */
static void client_fail(struct client *client, const char *why)
{
	enum client_state was = client->state;

	if (was == CLIENT_QUIT) {
		conn_close(&client->conn);
		return;
	}
	client_enter(client, CLIENT_QUIT);
	conn_close(&client->conn);
	if (was == CLIENT_READY)
		client->events->on_lost(client, why);
	else
		client->events->on_failed(client, why);
}

/* The peer has said no to the session as such. */
static void client_refused(struct client *client, const char *why)
{
	client_turned_away(client);
	client_fail(client, why);
}

/* The requirement is not met, or cannot be: kept for whoever waits for the session. */
static void client_refuse(struct client *client, const char *format, ...) PRINTF_LIKE(2, 3);
static void client_refuse(struct client *client, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)reply_vprint(client->refusal, sizeof(client->refusal), format, args);
	va_end(args);
	if (client->requirement->partner != NULL)
		STAT(secure_send_refused);
}

/* For replies: whose mail it is about. */
static const char *client_whom(const struct client *client)
{
	const char *domain = client->requirement->domain;

	return domain != NULL && domain[0] != '\0' ? domain : client->connector->name;
}

void client_command_unshown(struct client *client, struct span bytes)
{
	client->owed++;
	if (conn_write(&client->conn, bytes) < bytes.len)
		client_fail(client, "output-full");
}

void client_command(struct client *client, struct span command)
{
	protolog_sent(&client->protolog, command);
	client_command_unshown(client, command);
}

void client_owe(struct client *client, struct span shown)
{
	client->owed++;
	if (shown.len > 0)
		protolog_sent(&client->protolog, shown);
}

void client_flush(struct client *client)
{
	if (client->state == CLIENT_QUIT)
		return;
	conn_flush(&client->conn);
	client_restart_deadline(client);
}

void client_flush_now(struct client *client)
{
	if (client->state == CLIENT_QUIT)
		return;
	conn_flush_now(&client->conn);
	client_restart_deadline(client);
}

static void client_say_quit(struct client *client)
{
	protolog_sent(&client->protolog, span_of("QUIT\r\n"));
	(void)conn_write(&client->conn, span_of("QUIT\r\n"));
}

void client_quit(struct client *client)
{
	if (client->state == CLIENT_READY && client->owed == 0)
		client_say_quit(client);
	client_enter(client, CLIENT_QUIT);
	/* The answer to QUIT is not awaited as a reply: the peer's end is. */
	conn_close(&client->conn);
}

void client_abort(struct client *client)
{
	client_enter(client, CLIENT_QUIT);
	conn_abort(&client->conn);
}

void client_idle_until(struct client *client, uint64_t due_ms)
{
	conn_deadline(&client->conn, due_ms);
}

/* From TCP to READY. */

static void client_say(struct client *client, const char *verb, const char *argument)
{
	char line[512];
	int len = snprintf(
		line, sizeof(line), "%s%s%s\r\n", verb, argument[0] != '\0' ? " " : "", argument);

	ASSERT(len > 0 && (size_t)len < sizeof(line));
	client_command(client, span_make(line, (size_t)len));
	client_flush(client);
}

static void client_say_ehlo(struct client *client)
{
	client_enter(client, CLIENT_EHLO);
	client_say(client, "EHLO", client_ehlo_name(client));
}

static void client_say_helo(struct client *client)
{
	client_enter(client, CLIENT_HELO);
	client_say(client, "HELO", client->connector->fqdn);
}

static void client_begin_tls(struct client *client)
{
	char name[NAME_BYTES_MAX];
	bool is_name = client_sni(client, name);

	/* Said in clear, it may have been changed on the way (RFC 3207 4.2): it is said again. */
	client->is_announced = false;
	if (conn_start_tls(&client->conn, client->tls_context, is_name ? name : NULL,
		    client->session_slot) < 0)
		client_fail(client, "no-memory-for-tls");
}

/* Is TLS to be used where it is offered? */
static bool client_wants_tls(const struct client *client)
{
	const struct send_connector *connector = client->connector;

	if (client->requirement->needs_tls)
		return true;
	return !connector->ignore_starttls && !client->skips_starttls &&
	       connector->tls_auth_level != TLS_AUTH_NONE;
}

/* STARTTLS was not offered or not granted, and nothing may be sent without it. */
static void client_lacks_tls(struct client *client, const char *why, const char *words)
{
	STAT(nexthop_tls_failed);
	client->status = "TlsNotStarted";
	client_refuse(client, "451 4.7.3 STARTTLS is required by policy for %s and %.255s %s",
		client_whom(client), client->host, words);
	client_say_quit(client);
	client_fail(client, why);
}

static void client_fail_xclient(struct client *client, const char *why, const char *words)
{
	client_lacks_xclient(client, words);
	client_say_quit(client);
	client_fail(client, why);
}

static void client_say_xclient(struct client *client)
{
	char line[XCLIENT_COMMAND_BYTES_MAX + 1];

	if (client_compose_xclient(client, line) == NULL) {
		client_fail_xclient(client, "xclient-not-offered", "does not offer XCLIENT");
		return;
	}
	client_enter(client, CLIENT_XCLIENT);
	client->is_told = true;
	client_command(client, span_of(line));
	client_flush(client);
}

/* It greets again, and everything begins anew but TLS. */
static void client_on_xclient(struct client *client, const struct reply *reply)
{
	client->is_announced = reply->code == 220;
	if (client->is_announced)
		client_say_ehlo(client);
	else
		client_fail_xclient(client, "xclient-refused", "refused XCLIENT");
}

/* EHLO was answered 250: TLS first if there is to be any, then it is usable. */
static void client_on_offer(struct client *client, const struct reply *reply)
{
	reply_parse_ehlo(reply, &client->offer);
	client->offer.domain = (struct span){0}; /* it points into the buffer */
	if (!client->is_secured && client_wants_tls(client) &&
		client->offer.keywords & EHLO_STARTTLS) {
		client_enter(client, CLIENT_STARTTLS);
		client_say(client, "STARTTLS", "");
		return;
	}
	if (!client->is_secured && client->requirement->needs_tls) {
		client_lacks_tls(client, "starttls-not-offered", "did not offer it");
		return;
	}
	if (client_owes_xclient(client)) {
		client_say_xclient(client);
		return;
	}
	client_enter(client, CLIENT_READY);
	client->events->on_ready(client);
}

/* An EHLO that was not understood: HELO may do, where nothing that it lacks is needed. */
static void client_on_no_ehlo(struct client *client, const struct reply *reply)
{
	if (client->connector->client_identity == CLIENT_IDENTITY_XCLIENT)
		client_fail_xclient(
			client, "ehlo-refused", "refused EHLO, so that there is no XCLIENT");
	else if (reply->code >= 500 && !client->is_secured && !client->requirement->needs_tls)
		client_say_helo(client);
	else
		client_refused(client, "ehlo-refused");
}

/* STARTTLS was answered. */
static void client_on_starttls(struct client *client, const struct reply *reply)
{
	if (reply->code == 220) {
		client_enter(client, CLIENT_TLS); /* begun once this reply is consumed */
		return;
	}
	client->has_tls_failed = true;
	if (client->requirement->needs_tls)
		client_lacks_tls(client, "starttls-refused", "refused it");
	else
		client_fail(client, "starttls-refused");
}

static void client_on_setup_reply(struct client *client, const struct reply *reply)
{
	switch (client->state) {
	case CLIENT_GREETING:
		if (reply->code != 220)
			client_refused(client, "greeting-refused");
		else if (client->connector->force_helo && !client->requirement->needs_tls &&
			 !client_owes_xclient(client))
			client_say_helo(client);
		else
			client_say_ehlo(client);
		break;
	case CLIENT_EHLO:
		if (reply->code == 250)
			client_on_offer(client, reply);
		else
			client_on_no_ehlo(client, reply);
		break;
	case CLIENT_HELO:
		if (reply->code != 250) {
			client_refused(client, "helo-refused");
			break;
		}
		client->offer = (struct ehlo_offer){0};
		client_enter(client, CLIENT_READY);
		client->events->on_ready(client);
		break;
	case CLIENT_STARTTLS:
		client_on_starttls(client, reply);
		break;
	case CLIENT_XCLIENT:
		client_on_xclient(client, reply);
		break;
	case CLIENT_CONNECT:
	case CLIENT_TLS:
	case CLIENT_PROOF:
	case CLIENT_READY:
	case CLIENT_QUIT:
	case CLIENT_STATE_COUNT:
		UNREACHABLE();
	}
}

static void client_take_reply(struct client *client, const struct reply *reply)
{
	client_log_reply(client, reply);
	if (client->state == CLIENT_GREETING) {
		client_on_setup_reply(client, reply);
		return;
	}
	if (client->owed == 0) {
		/* "421 timeout" to an idle session, most likely; or a body that is refused
		 * half-way. */
		client_fail(client, "unsolicited-reply");
		return;
	}
	client->owed--;
	client_restart_deadline(client);
	if (client->state == CLIENT_READY)
		client->events->on_reply(client, reply);
	else
		client_on_setup_reply(client, reply);
}

static bool client_is_open(const struct client *client)
{
	return client->state != CLIENT_QUIT && client->conn.state == CONN_OPEN;
}

static void client_on_input(struct conn *conn)
{
	struct client *client = client_of(conn);
	struct reply reply;
	enum reply_status status = REPLY_MORE;

	while (client_is_open(client) && conn_input(conn).len > 0) {
		status = reply_parse(conn_input(conn), &reply);
		if (status != REPLY_OK)
			break;
		client_take_reply(client, &reply);
		if (client_is_open(client))
			conn_consume(conn, reply.wire.len);
		if (client->state != CLIENT_TLS)
			continue;
		/* RFC 3207 4.2: what came behind the 220 is not the peer's under TLS. */
		if (conn_input(conn).len > 0)
			client_fail(client, "plaintext-behind-starttls");
		else
			client_begin_tls(client);
		return;
	}
	if (!client_is_open(client))
		return;
	if (status == REPLY_BAD)
		client_fail(client, "not-smtp");
	else
		conn_read(conn);
}

static void client_on_connected(struct conn *conn, int result)
{
	struct client *client = client_of(conn);

	if (result < 0) {
		client_enter(client, CLIENT_QUIT);
		conn_abort(conn);
		client->events->on_failed(client, strerror(-result));
		return;
	}
	client_log_open(client);
	client_restart_deadline(client);
	client_write_header(client);
	conn_flush(conn);
	if (!client->connector->implicit_tls) {
		client_enter(client, CLIENT_GREETING);
		conn_read(conn);
	} else if (conn_is_drained(conn)) {
		client_begin_tls(client);
	}
}

/* The peer is not who it must be: no MAIL, and goodbye. */
static void client_disprove(struct client *client, enum verdict verdict)
{
	char why[64];

	STAT(nexthop_tls_failed);
	client->status = verdict_word(verdict);
	(void)snprintf(why, sizeof(why), "certificate-%s", client->status);
	client_refuse(client, "454 4.7.5 Certificate validation failure: %s", client->status);
	client_say_quit(client);
	client_fail(client, why);
}

/* Under TLS: is it who it must be? Then the conversation goes on. */
static void client_prove(struct client *client)
{
	const struct send_requirement *requirement = client->requirement;
	enum ktls_mode mode = client->connector->tls_settings.ktls;
	enum verdict verdict;
	enum verdict shown;
	bool is_proved;

	if (!client_judge(client, &verdict, &shown)) {
		if (client->state != CLIENT_PROOF)
			client_enter(client, CLIENT_PROOF);
		return;
	}
	client->conn.facts.verdict = shown;
	client_log_tls(client);
	/* Nobody asked who it is, or it is who it should be. */
	is_proved = verdict == VERDICT_VALID;
	conn_allow_ktls(&client->conn, is_proved ? mode : KTLS_OFF,
		is_proved || mode == KTLS_OFF ? "configured" : "peer-not-proved");
	if (!is_proved) {
		client_disprove(client, verdict);
		return;
	}
	if (requirement->partner != NULL)
		STAT(nexthop_secured);
	client->is_secured = true;
	if (client->connector->implicit_tls)
		client_enter(client, CLIENT_GREETING);
	else
		client_say_ehlo(client);
	conn_read(&client->conn);
}

void client_proof_changed(struct client *client)
{
	if (client->state == CLIENT_PROOF)
		client_prove(client);
}

static void client_on_tls(struct conn *conn)
{
	struct client *client = client_of(conn);

	STAT(nexthop_tls);
	if (conn->facts.is_resumed)
		STAT(nexthop_tls_resumed);
	client_prove(client);
}

static void client_on_record(struct conn *conn)
{
	client_log_record(client_of(conn));
}

static void client_on_drained(struct conn *conn)
{
	struct client *client = client_of(conn);

	if (client->state == CLIENT_READY)
		client->events->on_drained(client);
	else if (client->state == CLIENT_CONNECT)
		client_begin_tls(client); /* the header has left */
}

/* In state TLS, or later by a broken record. */
static void client_handshake_failed(struct client *client, const char *why)
{
	protolog_note(&client->protolog, NULL, "TLS negotiation failed with error %s", why);
	if (client->has_tls_failed && client->requirement->needs_tls) {
		client->status = "TlsNotStarted";
		client_refuse(client,
			"451 4.7.3 TLS is required by policy for %s and the handshake with %.255s "
			"failed",
			client_whom(client), client->host);
	}
	client_fail(client, why);
}

static void client_on_end(struct conn *conn, enum conn_end why)
{
	struct client *client = client_of(conn);
	char text[192];

	client->end_word = "Remote";
	if (client->state == CLIENT_TLS || why == CONN_END_TLS) {
		STAT(nexthop_tls_failed);
		client->has_tls_failed = client->state == CLIENT_TLS;
		(void)snprintf(text, sizeof(text), "tls: %s",
			conn->tls != NULL ? tls_error(conn->tls) : "record or alert");
		client_handshake_failed(client, text);
		return;
	}
	client_refused(client, why == CONN_END_EOF     ? "closed-by-peer"
			       : why == CONN_END_RESET ? "reset"
						       : "key-update");
}

static void client_on_timeout(struct conn *conn)
{
	struct client *client = client_of(conn);

	if (client->state == CLIENT_CONNECT) {
		client_enter(client, CLIENT_QUIT);
		conn_abort(conn);
		client->events->on_failed(client, "connect-timeout");
		return;
	}
	switch (client->state) {
	case CLIENT_PROOF:
		/* The list did not come in time. */
		client_disprove(client, VERDICT_REVOCATION_UNKNOWN);
		break;
	case CLIENT_TLS:
		STAT(nexthop_tls_failed);
		client->has_tls_failed = true;
		client_handshake_failed(client, "tls: timeout");
		break;
	case CLIENT_READY:
		client_fail(client, client->owed == 0 ? "idle" : "timeout");
		break;
	case CLIENT_CONNECT:
	case CLIENT_GREETING:
	case CLIENT_EHLO:
	case CLIENT_HELO:
	case CLIENT_STARTTLS:
	case CLIENT_XCLIENT:
	case CLIENT_QUIT:
	case CLIENT_STATE_COUNT:
		client_fail(client, "timeout");
		break;
	}
}

static void client_on_closed(struct conn *conn)
{
	struct client *client = client_of(conn);

	protolog_close(&client->protolog, client->end_word);
	client->events->on_closed(client);
}

static const struct conn_events client_conn_events = {
	.on_connected = client_on_connected,
	.on_input = client_on_input,
	.on_drained = client_on_drained,
	.on_tls = client_on_tls,
	.on_record = client_on_record,
	.on_end = client_on_end,
	.on_timeout = client_on_timeout,
	.on_closed = client_on_closed,
};

int client_open(struct client *client, struct conn_net *net, const struct address *address)
{
	int rc = conn_connect(&client->conn, net, &client_conn_events, address,
		&client->connector->source_address);

	if (rc < 0)
		return rc;
	client->state = CLIENT_CONNECT;
	client->is_told = false;
	client->is_announced = false;
	client->is_turned_away = false;
	client->is_secured = false;
	client->has_tls_failed = false;
	client->status = NULL;
	client->refusal[0] = '\0';
	client->end_word = "Local";
	client->protolog = (struct protolog){.is_on = false}; /* until there is a connection */
	client->offer = (struct ehlo_offer){0};
	client->owed = 0;
	client->message_count = 0;
	client->opened_ms = loop_now_ms(net->loop);
	STAT(nexthop_connects);
	client_restart_deadline(client);
	return 0;
}
