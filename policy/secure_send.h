/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * secure_send.h: what a delivery needs of its TLS session, and whether the next hop's
 * certificate is good enough: checks s1 to s6 of EXCHANGE 4.2, and the levels of 3.3. Pure.
 */

#include "policy/names.h"
#include "policy/route.h"
#include "policy/verdict.h"

/* One delivery, or one session that deliveries with the same needs share. */
struct send_requirement {
	bool needs_tls; /* TLS or nothing: no STARTTLS offered means QUIT without MAIL */
	bool may_clear; /* mail may go in clear text; never true together with needs_tls */
	bool is_direct; /* direct trust: one of pins, whatever the chain says */
	enum tls_auth_level level;     /* the connector's; without meaning if partner is set */
	const struct partner *partner; /* set: domain secured (s1), and this is whom to prove */
	const char *domain;     /* the recipient's; the partner's own copy if partner is set */
	const char *tls_domain; /* domain-validation: to find instead of domain, or NULL */
	const struct pin *pins; /* the key must be one of them, if there are any */
	unsigned pin_count;
};

/*
 * route: what route_send() or route_fixed() said, with ROUTE_OK. domain is the recipient's
 * (normalized); it must live as long as out, if the delivery is not secured.
 */
void send_requirement_of(const struct send_connector *connector, const struct route *route,
	const char *domain, struct send_requirement *out);

/*
 * May mail go over a TLS session with that certificate? VERDICT_VALID: yes, for that
 * requirement (which may be that nothing is asked of the certificate); else the reason why not.
 *
 * names and spki: of the certificate, not looked at without has_certificate. chain: what
 * trust_judge() says for the partner if there is one, else for the connector; it matters
 * only from certificate-validation up and not for direct trust. VERDICT_NOT_ASKED comes back as it
 * is: "not known yet", which is no yes.
 */
enum verdict send_judge(const struct send_requirement *requirement,
	const struct certificate_names *names, bool has_certificate, const uint8_t *spki,
	enum verdict chain);

/* Does it depend on the chain at all? If not, nobody need judge it. */
bool send_needs_chain(const struct send_requirement *requirement);
