/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/client.h"

#include "relay/base/log.h"
#include <time.h>

/*
 * client_log.c: what the log and the protocol log are told of a session with a next hop. Where
 * the latter is not kept, that costs no more than a look at a bool.
 */

static void client_print_endpoint(const struct sockaddr_storage *storage, char *out, size_t bytes)
{
	const struct address address = {.sockaddr = *storage, .len = sizeof(*storage)};

	if (storage->ss_family == AF_INET || storage->ss_family == AF_INET6)
		address_print(&address, out, bytes);
}

void client_log_open(struct client *client)
{
	struct sockaddr_storage near = {0};
	struct sockaddr_storage far = {0};
	socklen_t near_len = sizeof(near);
	socklen_t far_len = sizeof(far);

	if (!client->keeps_protolog)
		return;
	client->protolog = (struct protolog){.is_on = true,
		.set = PROTOLOG_SEND,
		.connector = client->connector->name,
		.fqdn = client->connector->fqdn,
		.session = client->id};
	if (getsockname(client->conn.fd, (struct sockaddr *)&near, &near_len) == 0)
		client_print_endpoint(
			&near, client->protolog.local, sizeof(client->protolog.local));
	if (getpeername(client->conn.fd, (struct sockaddr *)&far, &far_len) == 0)
		client_print_endpoint(
			&far, client->protolog.remote, sizeof(client->protolog.remote));
	protolog_open(&client->protolog);
	if (client->skips_starttls)
		protolog_note(&client->protolog, NULL,
			"STARTTLS is not tried again after a failed handshake");
}

void client_log_reply(struct client *client, const struct reply *reply)
{
	struct span rest = reply->wire;

	if (!client->protolog.is_on)
		return;
	while (rest.len > 0) {
		size_t len = span_find(rest, '\r');

		protolog_received(&client->protolog, span_head(rest, len));
		rest = span_skip(rest, len + 2);
	}
}

static void client_print_date(int64_t date, char *out, size_t out_bytes)
{
	time_t seconds = (time_t)date;
	struct tm utc;

	(void)gmtime_r(&seconds, &utc);
	(void)strftime(out, out_bytes, "%Y-%m-%dT%H:%M:%SZ", &utc);
}

void client_log_tls(struct client *client)
{
	const struct tls_facts *facts = &client->conn.facts;
	const struct peer *peer = client->conn.peer;
	char from[32];
	char to[32];

	if (!client->protolog.is_on)
		return;
	protolog_note(&client->protolog, NULL,
		"TLS protocol %s negotiation succeeded using %s with strength %u bits",
		facts->version, facts->cipher, facts->cipher_bits);
	if (peer != NULL) {
		client_print_date(peer->not_before, from, sizeof(from));
		client_print_date(peer->not_after, to, sizeof(to));
		protolog_note(&client->protolog, "Received certificate",
			"subject=%s issuer=%s serial=%s not-before=%s not-after=%s names=%s",
			peer->subject, peer->issuer, peer->serial, from, to, peer->names_text);
		protolog_note(&client->protolog, "Certificate thumbprint", "%s", peer->thumbprint);
	}
	protolog_note(&client->protolog, NULL, "Server certificate validation status: '%s'",
		verdict_word(facts->verdict));
	if (client->requirement->partner != NULL)
		protolog_note(&client->protolog, NULL, "TlsDomain='%s'; Status='%s'",
			client->requirement->domain, verdict_word(facts->verdict));
}

void client_log_record(const struct client *client)
{
	const struct tls_facts *facts = &client->conn.facts;
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
		conn_record_print(&client->conn, record, sizeof(record)));
}
