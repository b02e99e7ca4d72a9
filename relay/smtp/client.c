/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/client.h"

#include "relay/base/log.h"
#include "relay/base/stats.h"

static const uint16_t client_next[CLIENT_STATE_COUNT] = {
	[CLIENT_CONNECT] = BIT(CLIENT_GREETING) | BIT(CLIENT_QUIT),
	[CLIENT_GREETING] = BIT(CLIENT_EHLO) | BIT(CLIENT_QUIT),
	[CLIENT_EHLO] =
		BIT(CLIENT_HELO) | BIT(CLIENT_STARTTLS) | BIT(CLIENT_READY) | BIT(CLIENT_QUIT),
	[CLIENT_HELO] = BIT(CLIENT_READY) | BIT(CLIENT_QUIT),
	[CLIENT_STARTTLS] = BIT(CLIENT_TLS) | BIT(CLIENT_QUIT),
	[CLIENT_TLS] = BIT(CLIENT_EHLO) | BIT(CLIENT_QUIT),
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
	ASSERT(client_next[client->state] & BIT(state));
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

void client_command(struct client *client, struct span command)
{
	client->owed++;
	if (conn_write(&client->conn, command) < command.len)
		client_fail(client, "output-full");
}

void client_owe(struct client *client)
{
	client->owed++;
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

void client_quit(struct client *client)
{
	if (client->state == CLIENT_READY && client->owed == 0)
		(void)conn_write(&client->conn, span_of("QUIT\r\n"));
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
	client_say(client, "EHLO", client->connector->fqdn);
}

/* The host name for SNI, without its port; an address is no host name (RFC 6066 3). */
static bool client_sni(const struct client *client, char out[NAME_BYTES_MAX])
{
	size_t len = strcspn(client->host, ":");

	if (client->host[0] == '[' || len >= NAME_BYTES_MAX ||
		strspn(client->host, "0123456789.") == len)
		return false;
	memcpy(out, client->host, len);
	out[len] = '\0';
	return true;
}

static void client_begin_tls(struct client *client)
{
	const struct send_connector *connector = client->connector;
	char name[NAME_BYTES_MAX];
	bool is_name = client_sni(client, name);

	client->conn.verify_name = connector->tls_auth_level == TLS_AUTH_DOMAIN_VALIDATION
					   ? connector->tls_domain
					   : NULL;
	if (conn_start_tls(&client->conn, client->tls_context, is_name ? name : NULL,
		    client->session_slot) < 0)
		client_fail(client, "no-memory-for-tls");
}

static bool client_needs_tls(const struct client *client)
{
	return client->connector->tls_auth_level > TLS_AUTH_OPPORTUNISTIC;
}

/* EHLO was answered 250: TLS first if there is to be any, then it is usable. */
static void client_on_offer(struct client *client, const struct reply *reply)
{
	const struct send_connector *connector = client->connector;

	reply_parse_ehlo(reply, &client->offer);
	client->offer.domain = (struct span){0}; /* it points into the buffer */
	if (!client->is_secured && !connector->ignore_starttls &&
		client->offer.keywords & EHLO_STARTTLS) {
		client_enter(client, CLIENT_STARTTLS);
		client_say(client, "STARTTLS", "");
		return;
	}
	if (!client->is_secured && client_needs_tls(client)) {
		client_fail(client, "starttls-not-offered");
		return;
	}
	client_enter(client, CLIENT_READY);
	client->events->on_ready(client);
}

static void client_on_setup_reply(struct client *client, const struct reply *reply)
{
	switch (client->state) {
	case CLIENT_GREETING:
		if (reply->code == 220)
			client_say_ehlo(client);
		else
			client_fail(client, "greeting-refused");
		break;
	case CLIENT_EHLO:
		if (reply->code == 250) {
			client_on_offer(client, reply);
		} else if (reply->code >= 500 && !client->is_secured && !client_needs_tls(client)) {
			client_enter(client, CLIENT_HELO);
			client_say(client, "HELO", client->connector->fqdn);
		} else {
			client_fail(client, "ehlo-refused");
		}
		break;
	case CLIENT_HELO:
		if (reply->code != 250) {
			client_fail(client, "helo-refused");
			break;
		}
		client->offer = (struct ehlo_offer){0};
		client_enter(client, CLIENT_READY);
		client->events->on_ready(client);
		break;
	case CLIENT_STARTTLS:
		if (reply->code == 220)
			client_enter(client, CLIENT_TLS); /* begun once this reply is consumed */
		else
			client_fail(client, "starttls-refused");
		break;
	case CLIENT_CONNECT:
	case CLIENT_TLS:
	case CLIENT_READY:
	case CLIENT_QUIT:
	case CLIENT_STATE_COUNT:
		UNREACHABLE();
	}
}

static void client_take_reply(struct client *client, const struct reply *reply)
{
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
	client_restart_deadline(client);
	if (client->connector->implicit_tls) {
		client_begin_tls(client);
		return;
	}
	client_enter(client, CLIENT_GREETING);
	conn_read(conn);
}

/* What the send connector demands of the peer's certificate. */
static bool client_accepts(const struct client *client)
{
	enum verdict verdict = client->conn.facts.verdict;

	switch (client->connector->tls_auth_level) {
	case TLS_AUTH_NONE:
	case TLS_AUTH_OPPORTUNISTIC:
	case TLS_AUTH_ENCRYPTION_ONLY:
		return true;
	case TLS_AUTH_CERTIFICATE_VALIDATION:
	case TLS_AUTH_DOMAIN_VALIDATION:
	case TLS_AUTH_FINGERPRINT:
		return verdict == VERDICT_VALID;
	}
	UNREACHABLE();
}

static void client_on_tls(struct conn *conn)
{
	struct client *client = client_of(conn);
	enum ktls_mode mode = client->connector->tls_settings.ktls;
	bool is_proved = client->connector->tls_auth_level <= TLS_AUTH_ENCRYPTION_ONLY ||
			 conn->facts.verdict == VERDICT_VALID;

	STAT(nexthop_tls);
	if (conn->facts.is_resumed)
		STAT(nexthop_tls_resumed);
	conn_allow_ktls(conn, is_proved ? mode : KTLS_OFF,
		is_proved || mode == KTLS_OFF ? "configured" : "peer-not-proved");
	if (!client_accepts(client)) {
		char why[64];

		STAT(nexthop_tls_failed);
		(void)snprintf(
			why, sizeof(why), "certificate-%s", verdict_word(conn->facts.verdict));
		client_fail(client, why);
		return;
	}
	client->is_secured = true;
	if (client->state == CLIENT_CONNECT)
		client_enter(client, CLIENT_GREETING);
	else
		client_say_ehlo(client);
	conn_read(conn);
}

static void client_on_record(struct conn *conn)
{
	struct client *client = client_of(conn);
	const struct tls_facts *facts = &conn->facts;
	char record[128];
	char subject[PEER_SUBJECT_BYTES];
	char host[NAME_BYTES_MAX];

	log_event(LOG_LEVEL_INFO, client->id, "nexthop-tls",
		"connector=%s host=%s version=%s cipher=%s bits=%u resumed=%s server-cert=%s "
		"subject=%s spki=%s record=%s",
		client->connector->name, log_quote_text(client->host, host, sizeof(host)),
		facts->version, facts->cipher, facts->cipher_bits, facts->is_resumed ? "yes" : "no",
		verdict_word(facts->verdict),
		log_quote_text(facts->subject[0] == '\0' ? NULL : facts->subject, subject,
			sizeof(subject)),
		facts->spki_sha256[0] == '\0' ? "-" : facts->spki_sha256,
		conn_record_print(conn, record, sizeof(record)));
}

static void client_on_drained(struct conn *conn)
{
	struct client *client = client_of(conn);

	if (client->state == CLIENT_READY)
		client->events->on_drained(client);
}

static void client_on_end(struct conn *conn, enum conn_end why)
{
	struct client *client = client_of(conn);
	char text[192];

	if (client->state == CLIENT_TLS || why == CONN_END_TLS) {
		STAT(nexthop_tls_failed);
		(void)snprintf(text, sizeof(text), "tls: %s",
			conn->tls != NULL ? tls_error(conn->tls) : "record or alert");
		client_fail(client, text);
		return;
	}
	client_fail(client, why == CONN_END_EOF     ? "closed-by-peer"
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
	client_fail(
		client, client->owed == 0 && client->state == CLIENT_READY ? "idle" : "timeout");
}

static void client_on_closed(struct conn *conn)
{
	struct client *client = client_of(conn);

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
	client->is_secured = false;
	client->offer = (struct ehlo_offer){0};
	client->owed = 0;
	client->message_count = 0;
	client->opened_ms = loop_now_ms(net->loop);
	STAT(nexthop_connects);
	client_restart_deadline(client);
	return 0;
}
