/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/net/verify.h"

#include "relay/net/tls.h"
#include "relay/pki/trust.h"
#include <openssl/ssl.h>

enum verdict tls_facts_judge(
	struct tls_facts *facts, struct peer *peer, const char *name, time_t now)
{
	facts->is_pending = false;
	if (!facts->is_asked)
		facts->verdict = VERDICT_NOT_ASKED;
	else if (facts->is_unreadable)
		facts->verdict = VERDICT_INVALID;
	else if (peer == NULL)
		facts->verdict = VERDICT_EMPTY;
	else if (facts->trust == NULL)
		facts->verdict = VERDICT_UNTRUSTED_ROOT;
	else
		facts->verdict =
			trust_judge(facts->trust, peer, facts->purpose, now, &facts->is_pending);
	if (facts->verdict == VERDICT_VALID && name != NULL && !names_have(&peer->names, name))
		facts->verdict = VERDICT_SUBJECT_MISMATCH;
	return facts->verdict;
}

/*
 * A server's ticket holds the leaf only: what came with it in the full handshake was
 * found when the ticket was opened. Everybody else has the chain at hand.
 */
static struct peer *facts_find_peer(struct tls *tls, X509 *leaf)
{
	struct peer *peer = tls->ticket_peer;

	if (SSL_session_reused(tls->ssl) == 1 && peer != NULL) {
		tls->ticket_peer = NULL;
		return peer;
	}
	return peer_of_chain(leaf, SSL_get_peer_cert_chain(tls->ssl));
}

struct peer *tls_facts_read(struct tls *tls, const char *name, time_t now, struct tls_facts *out)
{
	const SSL_CIPHER *cipher = SSL_get_current_cipher(tls->ssl);
	X509 *leaf = SSL_get0_peer_certificate(tls->ssl);
	struct peer *peer = leaf == NULL ? NULL : facts_find_peer(tls, leaf);

	*out = (struct tls_facts){
		.version = SSL_get_version(tls->ssl),
		.cipher = SSL_CIPHER_standard_name(cipher),
		.cipher_bits = (unsigned)SSL_CIPHER_get_bits(cipher, NULL),
		.is_resumed = SSL_session_reused(tls->ssl) == 1,
		.subject = peer == NULL ? "" : peer->subject,
		.spki_sha256 = peer == NULL ? "" : peer->spki_sha256,
		.shown = tls->has_shown ? tls->context->shown : NULL,
		.is_asked = tls->context->asks_certificate,
		.is_unreadable = leaf != NULL && peer == NULL,
		.purpose = tls->context->is_server ? PEER_IS_CLIENT : PEER_IS_SERVER,
		.trust = tls->context->trust,
	};
	(void)tls_facts_judge(out, peer, name, now);
	return peer;
}

void tls_server_name(const struct tls *tls, char *out, size_t out_bytes)
{
	const char *name = SSL_get_servername(tls->ssl, TLSEXT_NAMETYPE_host_name);

	out[0] = '\0';
	if (name != NULL && strlen(name) < out_bytes)
		(void)snprintf(out, out_bytes, "%s", name);
}
