/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/client.h"

#include "relay/base/log.h"
#include "relay/smtp/tls_log.h"

/*
 * client_log.c: what the log and the protocol log are told of a session with a next hop. Where
 * the latter is not kept, that costs no more than a look at a bool.
 */

void client_log_open(struct client *client)
{
	if (!client->keeps_protolog)
		return;
	client->protolog = (struct protolog){.is_on = true,
		.set = PROTOLOG_SEND,
		.connector = client->connector->name,
		.fqdn = client->connector->fqdn,
		.session = client->id};
	tls_log_ends(&client->protolog, client->conn.fd);
	protolog_open(&client->protolog);
	if (client->skips_starttls)
		tls_log_note(
			&client->protolog, "STARTTLS is not tried again after a failed handshake");
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

void client_log_tls(struct client *client)
{
	const struct tls_facts *facts = &client->conn.facts;

	if (!client->protolog.is_on)
		return;
	tls_log_handshake(&client->protolog, facts, client->conn.peer);
	tls_log_note(&client->protolog, "Server certificate validation status: '%s'",
		verdict_word(facts->verdict));
	if (client->requirement->partner != NULL)
		tls_log_note(&client->protolog, "TlsDomain='%s'; Status='%s'",
			client->requirement->domain, verdict_word(facts->verdict));
}

void client_log_record(const struct client *client)
{
	const struct tls_facts *facts = &client->conn.facts;
	char record[128];
	char subject[PEER_SUBJECT_BYTES];
	char host[NAME_BYTES_MAX];

	(void)conn_record_print(&client->conn, record, sizeof(record));
	(void)log_quote_text(client->host, host, sizeof(host));
	if (client->conn.has_moved) {
		log_event(LOG_LEVEL_INFO, client->id, "nexthop-record",
			"connector=%s host=%s record=%s", client->connector->name, host, record);
		return;
	}
	log_event(LOG_LEVEL_INFO, client->id, "nexthop-tls",
		"connector=%s host=%s version=%s cipher=%s bits=%u resumed=%s server-cert=%s "
		"subject=%s spki=%s record=%s",
		client->connector->name, host, facts->version, facts->cipher, facts->cipher_bits,
		facts->is_resumed ? "yes" : "no", verdict_word(facts->verdict),
		log_quote_text(facts->subject[0] == '\0' ? NULL : facts->subject, subject,
			sizeof(subject)),
		facts->spki_sha256[0] == '\0' ? "-" : facts->spki_sha256, record);
}
