/* SPDX-License-Identifier: Apache-2.0 */

/*
 * admit_reply.c: an admission in words: replies, the log's why=, Exchange's events.
 */

#include "policy/admit.h"

struct status_words {
	const char *word;
	const char *event_id;  /* EXCHANGE 4.9; NULL: Exchange has none */
	const char *reply;     /* NULL: depends on more than the status, see admit_reply() */
	const char *permanent; /* with permanent-tls-refusals; NULL: the same */
};

static const struct status_words statuses[ADMIT_STATUS_COUNT] = {
	[ADMIT_OK] = {"ok", NULL, "250 2.1.0 Sender OK", NULL},
	[ADMIT_WAIT] = {"revocation-pending", NULL,
		"454 4.7.5 Certificate validation failure: RevocationUnknown", NULL},
	[ADMIT_TLS_REQUIRED] = {"tls-required", NULL, "451 5.7.3 STARTTLS is required to send mail",
		"530 5.7.0 Must issue a STARTTLS command first"},
	[ADMIT_CLIENT_CERTIFICATE] = {"client-certificate", NULL, NULL, NULL},
	[ADMIT_DIRECT_TRUST] = {"direct-trust", "1036",
		"454 4.7.0 Temporary authentication failure", NULL},
	[ADMIT_SECURE_NO_TLS] = {"tls-not-started", "11012", NULL, NULL},
	[ADMIT_SECURE_NO_CERT] = {"no-certificate", "11022", NULL, NULL},
	[ADMIT_SECURE_CHAIN] = {"certificate-not-valid", "11022", NULL, NULL},
	[ADMIT_SECURE_NAME] = {"subject-mismatch", "11015", NULL, NULL},
	[ADMIT_SECURE_CONNECTOR] = {"connector-not-secure", NULL, NULL, NULL},
	[ADMIT_NOT_AUTHENTICATED] = {"not-authenticated", NULL,
		"530 5.7.1 Client was not authenticated", NULL},
	[ADMIT_OWN_DOMAIN] = {"own-domain", NULL, "550 5.7.1 Sender domain is ours", NULL},
	[ADMIT_RELAY] = {"relay", NULL, "550 5.7.1 Unable to relay", NULL},
	[ADMIT_RESERVED_TOP] = {"reserved-top-level", NULL,
		"550 5.1.4 Top-level domain of the recipient is reserved", NULL},
	[ADMIT_RESERVED_SECOND] = {"reserved-second-level", NULL,
		"550 5.1.5 Second-level domain of the recipient is reserved", NULL},
	[ADMIT_SINGLE_LABEL] = {"single-label", NULL,
		"550 5.1.6 Domain of the recipient is a single label", NULL},
	[ADMIT_BAD_DOMAIN] = {"bad-domain", NULL, "550 5.1.7 Invalid address", NULL},
};

static void reply_print(const struct receive_connector *connector,
	const struct admission *admission, char out[static ADMIT_REPLY_BYTES])
{
	const bool is_permanent = connector->permanent_tls_refusals;
	const char *domain = admission->domain == NULL ? "this domain" : admission->domain;

	if (admission->status == ADMIT_SECURE_NO_TLS)
		(void)snprintf(out, ADMIT_REPLY_BYTES,
			"%s Mail from %s needs mutual TLS: STARTTLS was not used",
			is_permanent ? "550 5.7.3" : "451 4.7.3", domain);
	else if (admission->status == ADMIT_SECURE_CONNECTOR)
		(void)snprintf(out, ADMIT_REPLY_BYTES,
			"451 4.7.3 Mail from %s is taken over a domain-secured connector only",
			domain);
	else
		(void)snprintf(out, ADMIT_REPLY_BYTES, "%s Certificate validation failure: %s",
			is_permanent ? "550 5.7.5" : "454 4.7.5", verdict_word(admission->verdict));
}

const char *admit_reply(const struct receive_connector *connector,
	const struct admission *admission, char out[static ADMIT_REPLY_BYTES])
{
	const struct status_words *words = NULL;

	ASSERT(admission->status < ADMIT_STATUS_COUNT);
	words = &statuses[admission->status];
	if (words->reply == NULL)
		reply_print(connector, admission, out);
	else
		(void)snprintf(out, ADMIT_REPLY_BYTES, "%s",
			connector->permanent_tls_refusals && words->permanent != NULL
				? words->permanent
				: words->reply);
	return out;
}

const char *admit_word(enum admit_status status)
{
	ASSERT(status < ADMIT_STATUS_COUNT);
	return statuses[status].word;
}

const char *admit_event_id(enum admit_status status)
{
	ASSERT(status < ADMIT_STATUS_COUNT);
	return statuses[status].event_id;
}

const char *role_word(enum role role)
{
	static const char *const words[ROLE_COUNT] = {
		[ROLE_ANONYMOUS] = "anonymous",
		[ROLE_PARTNER] = "partner",
		[ROLE_INTERNAL] = "internal",
	};

	ASSERT(role < ROLE_COUNT);
	return words[role];
}
