/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/client.h"

#include "relay/base/stats.h"
#include <stdio.h>

/*
 * client_identity.c: the next hop is told for whom the session is, before it is used.
 */

void client_write_header(struct client *client)
{
	const enum client_identity how = client->connector->client_identity;
	uint8_t header[PROXY_HEADER_BYTES_MAX];
	char text[ADDRESS_TEXT_BYTES];
	size_t len;

	if (how != CLIENT_IDENTITY_PROXY_V1 && how != CLIENT_IDENTITY_PROXY_V2)
		return;
	len = identity_write_proxy(
		&client->identity, how == CLIENT_IDENTITY_PROXY_V1 ? 1 : 2, header);
	client->is_told = true;
	/* Nothing is gathered yet: it finds room. */
	ASSERT(conn_write(&client->conn, span_make(header, len)) == len);
	protolog_note(&client->protolog, "PROXY header", "%s",
		ip_print(&client->identity.source, text, sizeof(text)));
}

const char *client_ehlo_name(const struct client *client)
{
	const char *helo = client->identity.helo;

	/* Postfix, for one, forgets HELO of XCLIENT with the EHLO that follows. */
	if (client->is_announced && helo[0] != '\0' && strchr(helo, ' ') == NULL)
		return helo;
	return client->connector->fqdn;
}

bool client_owes_xclient(const struct client *client)
{
	return client->connector->client_identity == CLIENT_IDENTITY_XCLIENT &&
	       !client->is_announced;
}

const char *client_compose_xclient(
	const struct client *client, char out[static XCLIENT_COMMAND_BYTES_MAX + 1])
{
	/* Without the address nothing is said of the client. */
	if (!(client->offer.keywords & EHLO_XCLIENT) || !(client->offer.xclient & XCLIENT_ADDR))
		return NULL;
	out[identity_write_xclient(&client->identity, client->offer.xclient, out)] = '\0';
	return out;
}

void client_turned_away(struct client *client)
{
	client->is_turned_away = client->is_told;
}

void client_lacks_xclient(struct client *client, const char *words)
{
	STAT(nexthop_identity_refused);
	client_turned_away(client);
	(void)snprintf(client->refusal, sizeof(client->refusal),
		"451 4.3.5 The next hop %.255s %s, try again later\r\n", client->host, words);
}
