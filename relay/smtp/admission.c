/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/session.h"

#include "policy/admit.h"
#include "relay/base/log.h"
#include "relay/base/stats.h"
#include "relay/smtp/tls_log.h"
#include <time.h>

/*
 * admission.c: what the session knows of its peer, put to policy/admit.h; and what follows
 * from the answer. The snapshot that is asked is the one in force now, so that a reload is in
 * force with the next MAIL.
 */

/* For the callback: where a chain is judged, and whether a revocation list may be waited for. */
struct admission_inquiry {
	const struct session *session;
	time_t now;
	bool may_wait;
};

/* Is it a connector of the snapshot of now, so that its index is one of that? */
static bool admission_is_current(
	const struct session *session, const struct receive_connector *connector)
{
	const struct policy *policy = session->world->policy;

	return connector->index < policy->receive_connector_count &&
	       connector == &policy->receive_connectors[connector->index];
}

/* The connector as it stands in the snapshot of now; one that is gone stays as it was. */
static const struct receive_connector *admission_connector(const struct session *session)
{
	const struct receive_connector *connector = session->connector;
	const struct receive_connector *now = NULL;

	if (!admission_is_current(session, connector))
		now = policy_receive_connector(session->world->policy, connector->name);
	return now == NULL ? connector : now;
}

static enum verdict admission_judge_by(
	const struct admission_inquiry *inquiry, const struct trust *trust)
{
	bool is_pending = false;
	enum verdict verdict;

	if (trust == NULL)
		return VERDICT_UNTRUSTED_ROOT;
	verdict = trust_judge(trust, session_certificate(inquiry->session), PEER_IS_CLIENT,
		inquiry->now, &is_pending);
	return is_pending && inquiry->may_wait ? VERDICT_NOT_ASKED : verdict;
}

static enum verdict admission_judge_for_partner(void *arg, const struct partner *partner)
{
	const struct admission_inquiry *inquiry = arg;
	const struct trust_set *trusts = inquiry->session->world->trusts;

	ASSERT(partner->index < trusts->partner_count);
	return admission_judge_by(inquiry, trusts->partners[partner->index]);
}

/* By the connector's own anchors, pins and tls-domain. */
static enum verdict admission_judge_for_connector(
	const struct admission_inquiry *inquiry, const struct receive_connector *connector)
{
	const struct session *session = inquiry->session;
	const struct trust_set *trusts = session->world->trusts;
	const struct peer *certificate = session_certificate(session);
	enum verdict verdict;

	if (connector->client_certificate == CLIENT_CERTIFICATE_NONE)
		return VERDICT_NOT_ASKED;
	if (certificate == NULL)
		return VERDICT_EMPTY;
	verdict = admission_judge_by(inquiry, admission_is_current(session, connector)
						      ? trusts->receive[connector->index]
						      : NULL);
	if (verdict == VERDICT_VALID && connector->tls_domain != NULL &&
		!names_have(&certificate->names, connector->tls_domain))
		return VERDICT_SUBJECT_MISMATCH;
	return verdict;
}

static struct admit_peer admission_peer(
	struct admission_inquiry *inquiry, const struct receive_connector *connector)
{
	const struct session *session = inquiry->session;
	const struct peer *certificate = session_certificate(session);
	struct admit_peer peer = {.is_tls = session->conn.facts.version != NULL,
		.has_certificate = certificate != NULL,
		.connector_verdict = admission_judge_for_connector(inquiry, connector),
		.judge = admission_judge_for_partner,
		.arg = inquiry};

	if (certificate != NULL) {
		peer.names = certificate->names;
		peer.spki = certificate->spki;
	}
	return peer;
}

/* Whom replies to mistakes need not wait for. */
static bool admission_is_proof(const struct receive_connector *connector,
	const struct admit_peer *peer, const struct admission *admission)
{
	return admission->role != ROLE_ANONYMOUS ||
	       (connector->client_certificate == CLIENT_CERTIFICATE_REQUIRE &&
		       peer->has_certificate && peer->connector_verdict == VERDICT_VALID);
}

/* Who may send as what is kept by value: the snapshot may be gone before the message is over. */
static void admission_grant(const struct admission *admission, struct grant *out)
{
	const struct partner *partner = admission->partner;

	*out = (struct grant){.role = admission->role};
	if (admission->role != ROLE_PARTNER)
		return;
	(void)snprintf(out->partner, sizeof(out->partner), "%s", partner->name);
	(void)snprintf(out->domain, sizeof(out->domain), "%s", admission->domain);
}

/*
 * A certificate that proves a partner proves it for the null sender too, which has no domain to
 * compare with: that is how it is asked before MAIL.
 */
bool admission_prove(struct session *session, struct grant *out)
{
	const struct receive_connector *connector = admission_connector(session);
	struct admission_inquiry inquiry = {.session = session, .now = time(NULL)};
	struct admit_peer peer = admission_peer(&inquiry, connector);
	enum verdict *shown = &session->conn.facts.verdict;
	struct admission admission;

	admit_sender(session->world->policy, connector, &peer, span_of("<>"), NULL, &admission);
	admission_grant(&admission, out);
	session->is_proved = admission_is_proof(connector, &peer, &admission);
	*shown = peer.connector_verdict;
	/* Who is secured elsewhere has shown nothing by a certificate. */
	if (peer.has_certificate && admission.role != ROLE_ANONYMOUS &&
		!connector->external_authoritative)
		*shown = VERDICT_VALID;
	return *shown == VERDICT_NOT_ASKED || *shown == VERDICT_VALID;
}

bool admission_is_possible(const struct session *session)
{
	const struct receive_connector *connector = admission_connector(session);
	struct admission_inquiry inquiry = {
		.session = session, .now = time(NULL), .may_wait = true};
	struct admit_peer peer = {0};
	struct admission admission;

	if (connector->require_tls && session->conn.facts.version == NULL)
		return false;
	if (connector->client_certificate != CLIENT_CERTIFICATE_REQUIRE)
		return true;
	/* Good by the connector's rules, one of our own, or a partner's: as for the null sender.
	 * While a revocation list is on its way nothing is known against it. */
	peer = admission_peer(&inquiry, connector);
	admit_sender(session->world->policy, connector, &peer, span_of("<>"), NULL, &admission);
	return admission.status == ADMIT_OK || admission.status == ADMIT_WAIT;
}

static void admission_count(enum admit_status status)
{
	switch (status) {
	case ADMIT_TLS_REQUIRED:
		STAT(tls_required_refused);
		break;
	case ADMIT_CLIENT_CERTIFICATE:
		STAT(client_cert_refused);
		break;
	case ADMIT_DIRECT_TRUST:
		STAT(direct_trust_refused);
		break;
	case ADMIT_SECURE_NO_TLS:
		STAT(secure_refused_no_tls);
		break;
	case ADMIT_SECURE_NO_CERT:
		STAT(secure_refused_no_certificate);
		break;
	case ADMIT_WAIT:
	case ADMIT_SECURE_CHAIN:
		STAT(secure_refused_chain);
		break;
	case ADMIT_SECURE_NAME:
		STAT(secure_refused_name);
		break;
	case ADMIT_SECURE_CONNECTOR:
		STAT(secure_refused_connector);
		break;
	case ADMIT_NOT_AUTHENTICATED:
		STAT(not_authenticated);
		break;
	case ADMIT_OWN_DOMAIN:
		STAT(own_domain_refused);
		break;
	case ADMIT_RELAY:
		STAT(relay_refused);
		break;
	case ADMIT_RESERVED_TOP:
	case ADMIT_RESERVED_SECOND:
	case ADMIT_SINGLE_LABEL:
		STAT(recipient_domain_refused);
		break;
	case ADMIT_BAD_DOMAIN: /* a mistake like any other */
		break;
	case ADMIT_OK:
	case ADMIT_STATUS_COUNT:
		UNREACHABLE();
	}
}

static const char *admission_or_dash(const char *text)
{
	return text == NULL ? "-" : text;
}

static void admission_log_refusal(
	const struct session *session, const struct admission *admission, struct span path)
{
	const char *event_id = admit_event_id(admission->status);
	const struct partner *partner = admission->partner;
	char path_text[SESSION_SENDER_BYTES];
	char partner_text[NAME_BYTES_MAX];

	log_event(event_id == NULL ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING, session->id, "refused",
		"peer=%s why=%s path=%s partner=%s domain=%s status=%s event-id=%s", session->peer,
		admit_word(admission->status), log_quote(path, path_text, sizeof(path_text)),
		log_quote_text(
			partner == NULL ? NULL : partner->name, partner_text, sizeof(partner_text)),
		admission_or_dash(admission->domain), verdict_word(admission->verdict),
		admission_or_dash(event_id));
}

/*
 * For the protocol log. What it says at the handshake is judged by the connector's anchors, as
 * nobody knows yet which partner's domain will be claimed.
 */
static void admission_log_proof(struct session *session, const struct admission *admission)
{
	if (session->conn.facts.version == NULL || admission->partner == NULL ||
		admission->domain == NULL)
		return;
	tls_log_note(&session->protolog, "TlsDomain='%s'; Status='%s'", admission->domain,
		verdict_word(admission->verdict));
}

enum admission_step admission_sender(struct session *session, struct span sender, struct grant *out)
{
	const struct policy *policy = session->world->policy;
	const struct receive_connector *connector = admission_connector(session);
	const uint64_t now_ms = loop_now_ms(session->conn.net->loop);
	struct admission_inquiry inquiry = {.session = session,
		.now = time(NULL),
		.may_wait = session->proof_due_ms == 0 || now_ms < session->proof_due_ms};
	struct admit_peer peer = admission_peer(&inquiry, connector);
	struct admission admission;
	char reply[ADMIT_REPLY_BYTES];

	admit_sender(policy, connector, &peer, sender, NULL, &admission);
	if (admission.status == ADMIT_WAIT && inquiry.may_wait) {
		if (session->proof_due_ms == 0)
			session->proof_due_ms = now_ms + policy->crl_fetch_timeout_ms;
		session->waits |= SESSION_WAIT_PROOF;
		return ADMISSION_AWAITED;
	}
	session->proof_due_ms = 0;
	if (admission.status != ADMIT_OK) {
		admission_count(admission.status);
		admission_log_refusal(session, &admission, sender);
		admission_log_proof(session, &admission);
		session_error(session, "%s", admit_reply(connector, &admission, reply));
		return ADMISSION_REFUSED;
	}
	session->is_proved = admission_is_proof(connector, &peer, &admission);
	session_log_role(session, admission.role);
	admission_grant(&admission, out);
	return ADMISSION_PASSED;
}

enum admission_step admission_recipient(struct session *session, struct span recipient)
{
	const struct receive_connector *connector = admission_connector(session);
	struct admission admission = {.role = session->transaction.grant.role};
	char reply[ADMIT_REPLY_BYTES];

	admission.status =
		admit_recipient(session->world->policy, connector, &admission, recipient, NULL);
	if (admission.status == ADMIT_OK)
		return ADMISSION_PASSED;
	/* Of the answers that are under way none may be overtaken. */
	if (!session_may_reply(session))
		return ADMISSION_AWAITED;
	admission_count(admission.status);
	admission_log_refusal(session, &admission, recipient);
	session_reply(session, "%s", admit_reply(connector, &admission, reply));
	return ADMISSION_REFUSED;
}

void admission_tell(struct sink *sink, struct sink_sender *out)
{
	const struct session *session = sink->owner;

	*out = (struct sink_sender){
		.grant = session->transaction.grant, .is_proved = session->is_proved};
}
