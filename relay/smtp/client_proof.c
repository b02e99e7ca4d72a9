/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/client.h"

#include <time.h>

/*
 * client_proof.c: is the next hop who it must be? Asked when TLS begins, and again before a session
 * that was kept carries the next message.
 */

bool client_judge(struct client *client, enum verdict *out, enum verdict *out_shown)
{
	static const struct certificate_names none;
	const struct send_requirement *requirement = client->requirement;
	struct conn *conn = &client->conn;
	const struct peer *peer = conn->peer;
	bool is_pending;
	enum verdict chain;

	conn->facts.trust = client->trust;
	chain = conn_judge(conn, time(NULL), &is_pending);
	if (is_pending && send_needs_chain(requirement))
		return false;
	*out = send_judge(requirement, peer != NULL ? &peer->names : &none, peer != NULL,
		peer != NULL ? peer->spki : NULL, chain);
	/* Where nothing is asked of the certificate, the log still tells what it is. */
	*out_shown =
		requirement->partner == NULL && requirement->level < TLS_AUTH_CERTIFICATE_VALIDATION
			? chain
			: *out;
	return true;
}

/* Does it matter at all who the next hop is? */
static bool client_needs_proof(const struct client *client)
{
	return client->requirement->partner != NULL ||
	       client->requirement->level >= TLS_AUTH_CERTIFICATE_VALIDATION;
}

bool client_is_still_proved(struct client *client)
{
	enum verdict verdict = VERDICT_REVOCATION_UNKNOWN;
	enum verdict shown;

	ASSERT(client->state == CLIENT_READY);
	if (!client_needs_proof(client))
		return true;
	if (client_judge(client, &verdict, &shown) && verdict == VERDICT_VALID)
		return true;
	client->status = verdict_word(verdict);
	return false;
}

bool client_sni(const struct client *client, char out[NAME_BYTES_MAX])
{
	size_t len = strcspn(client->host, ":");

	if (client->host[0] == '[' || len >= NAME_BYTES_MAX ||
		strspn(client->host, "0123456789.") == len)
		return false;
	memcpy(out, client->host, len);
	out[len] = '\0';
	return true;
}

bool client_may_downgrade(const struct client *client)
{
	return client->has_tls_failed && client->requirement->may_clear &&
	       !client->skips_starttls && !client->connector->implicit_tls;
}
