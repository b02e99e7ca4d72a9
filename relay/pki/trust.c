/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/pki/trust.h"

#include "policy/partner.h"
#include "relay/pki/chain.h"
#include "relay/pki/crl.h"
#include "relay/pki/words.h"
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdatomic.h>
#include <string.h>

static _Atomic uint64_t trust_ids;
static _Atomic uint64_t trust_generations;

/* Reads every certificate of the file; one that cannot be read spoils it. */
static int trust_read_anchors(struct trust *trust, const char *file, STACK_OF(X509) * certificates)
{
	FILE *in = fopen(file, "re");
	X509 *certificate;

	if (in == NULL)
		return errno;
	ERR_clear_error();
	while ((certificate = PEM_read_X509(in, NULL, NULL, NULL)) != NULL) {
		if (sk_X509_push(certificates, certificate) <= 0) {
			X509_free(certificate);
			break;
		}
		/* Decoded now, before threads share it. */
		(void)X509_check_purpose(certificate, -1, 0);
		if (X509_STORE_add_cert(trust->anchors, certificate) != 1)
			break;
		trust->anchor_count++;
	}
	(void)fclose(in);
	if (trust->anchor_count > 0 &&
		ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE) {
		ERR_clear_error();
		return 0;
	}
	return -1;
}

static int trust_create_dates(struct trust *trust, STACK_OF(X509) * certificates)
{
	trust->dates = calloc(2 * trust->anchor_count + 1, sizeof(*trust->dates));
	if (trust->dates == NULL)
		return -ENOMEM;
	for (int i = 0; i < sk_X509_num(certificates); i++) {
		const X509 *certificate = sk_X509_value(certificates, i);

		trust->dates[trust->date_count++] = chain_date(X509_get0_notBefore(certificate));
		trust->dates[trust->date_count++] = chain_date(X509_get0_notAfter(certificate));
	}
	return 0;
}

static int trust_create_anchors(
	struct trust *trust, const char *file, char *error, size_t error_bytes)
{
	STACK_OF(X509) *certificates = sk_X509_new_null();
	int why;
	int rc = -ENOMEM;

	trust->anchors = X509_STORE_new();
	if (trust->anchors != NULL && certificates != NULL) {
		rc = 0;
		why = file == NULL ? 0 : trust_read_anchors(trust, file, certificates);
		if (why != 0) {
			(void)snprintf(error, error_bytes, "%s: %s, expected certificates in PEM",
				file, why > 0 ? strerror(why) : openssl_why("nothing found in it"));
			rc = -EINVAL;
		}
		if (rc == 0)
			rc = trust_create_dates(trust, certificates);
	}
	sk_X509_pop_free(certificates, X509_free);
	ERR_clear_error();
	return rc;
}

/* The lists are read now, so that a file that is none is a mistake found at the start. */
static int trust_create_lists(
	struct trust *trust, const struct trust_options *options, char *error, size_t error_bytes)
{
	STACK_OF(X509_CRL) *lists = sk_X509_CRL_new_null();
	int rc = 0;

	trust->crl_files = calloc(options->crl_file_count + 1, sizeof(char *));
	if (trust->crl_files == NULL || lists == NULL)
		rc = -ENOMEM;
	for (unsigned i = 0; rc == 0 && i < options->crl_file_count; i++) {
		trust->crl_files[i] = strdup(options->crl_files[i]);
		trust->crl_file_count++;
		if (trust->crl_files[i] == NULL) {
			rc = -ENOMEM;
		} else if (crl_for_file(trust->crl_files[i], lists) != CRL_HERE) {
			(void)snprintf(error, error_bytes,
				"%s: unreadable, expected a revocation list in PEM or DER",
				trust->crl_files[i]);
			rc = -EINVAL;
		}
	}
	sk_X509_CRL_pop_free(lists, X509_CRL_free);
	return rc;
}

static int trust_create_pins(struct trust *trust, const struct trust_options *options)
{
	if (options->pin_count == 0)
		return 0;
	trust->pins = calloc(options->pin_count, sizeof(*trust->pins));
	if (trust->pins == NULL)
		return -ENOMEM;
	memcpy(trust->pins, options->pins, options->pin_count * sizeof(*trust->pins));
	trust->pin_count = options->pin_count;
	return 0;
}

int trust_create(
	const struct trust_options *options, struct trust **out, char *error, size_t error_bytes)
{
	struct trust *trust = calloc(1, sizeof(*trust));
	int rc;

	if (error_bytes > 0)
		(void)snprintf(error, error_bytes, "no memory");
	if (trust == NULL)
		return -ENOMEM;
	trust->id = atomic_fetch_add(&trust_ids, 1) + 1;
	trust->revocation = options->revocation;
	trust->depth = options->depth;
	rc = trust_create_anchors(trust, options->anchors, error, error_bytes);
	if (rc == 0)
		rc = trust_create_lists(trust, options, error, error_bytes);
	if (rc == 0)
		rc = trust_create_pins(trust, options);
	if (rc < 0)
		trust_destroy(&trust);
	else
		*out = trust;
	return rc;
}

void trust_destroy(struct trust **out)
{
	struct trust *trust = *out;

	if (trust == NULL)
		return;
	*out = NULL;
	X509_STORE_free(trust->anchors);
	for (unsigned i = 0; i < trust->crl_file_count; i++)
		free(trust->crl_files[i]);
	free(trust->crl_files);
	free(trust->dates);
	free(trust->pins);
	free(trust);
}

enum verdict trust_judge(const struct trust *trust, struct peer *peer, enum peer_purpose purpose,
	time_t now, bool *out_is_pending)
{
	if (out_is_pending != NULL)
		*out_is_pending = false;
	if (peer == NULL)
		return VERDICT_EMPTY;
	_Static_assert(sizeof(peer->spki) == PIN_BYTES, "a pin is the digest of a key");
	if (trust->pin_count > 0 && !pins_have(trust->pins, trust->pin_count, peer->spki))
		return VERDICT_PIN_MISMATCH;
	if (trust->pin_count > 0 && trust->anchor_count == 0)
		return VERDICT_VALID;
	return peer_judge(peer, trust, purpose, now, out_is_pending);
}

/* Sets. */

/* One of a set; a mistake is told with its file and line. */
static int set_create_one(const struct trust_options *options, const char *place, FILE *errors,
	struct trust **out, int rc_before)
{
	char error[512];
	int rc = trust_create(options, out, error, sizeof(error));

	if (rc < 0)
		(void)fprintf(errors, "%s: %s\n", place, error);
	return rc_before < 0 ? rc_before : rc;
}

static int set_create_partners(const struct policy *policy, FILE *errors, struct trust_set *set)
{
	char place[NAME_BYTES_MAX + 512];
	int rc = 0;

	for (unsigned i = 0; i < policy->partner_count; i++) {
		const struct partner *partner = &policy->partners[i];
		const struct trust_options options = {.anchors = partner->trust_anchors,
			.crl_files = partner->crl_files,
			.crl_file_count = partner->crl_file_count,
			.revocation = partner->revocation,
			.pins = partner->spki_pins,
			.pin_count = partner->spki_pin_count,
			.depth = -1};

		(void)snprintf(place, sizeof(place), "%s:%u: partner \"%s\"", policy->file,
			partner->line, partner->name);
		rc = set_create_one(&options, place, errors, &set->partners[i], rc);
	}
	return rc;
}

static int set_create_connector(const struct tls_settings *settings, const char *place,
	FILE *errors, struct trust **out, int rc_before)
{
	const struct trust_options options = {.anchors = settings->trust_anchors,
		.crl_files = settings->crl_files,
		.crl_file_count = settings->crl_file_count,
		.revocation = settings->revocation,
		.pins = settings->spki_pins,
		.pin_count = settings->spki_pin_count,
		.depth = -1};

	if (settings->trust_anchors == NULL && settings->spki_pin_count == 0)
		return rc_before;
	return set_create_one(&options, place, errors, out, rc_before);
}

static int set_create_connectors(const struct policy *policy, FILE *errors, struct trust_set *set)
{
	char place[NAME_BYTES_MAX + 512];
	int rc = 0;

	for (unsigned i = 0; i < policy->receive_connector_count; i++) {
		const struct receive_connector *connector = &policy->receive_connectors[i];

		(void)snprintf(place, sizeof(place), "%s:%u: receive-connector \"%s\"",
			policy->file, connector->line, connector->name);
		rc = set_create_connector(
			&connector->tls_settings, place, errors, &set->receive[i], rc);
	}
	for (unsigned i = 0; i < policy->send_connector_count; i++) {
		const struct send_connector *connector = &policy->send_connectors[i];

		(void)snprintf(place, sizeof(place), "%s:%u: send-connector \"%s\"", policy->file,
			connector->line, connector->name);
		rc = set_create_connector(
			&connector->tls_settings, place, errors, &set->send[i], rc);
	}
	return rc;
}

int trust_set_create(const struct policy *policy, FILE *errors, struct trust_set **out)
{
	struct trust_set *set = calloc(1, sizeof(*set));
	int rc;
	int rc_connectors;

	if (set == NULL)
		return -ENOMEM;
	crl_look();
	set->partner_count = policy->partner_count;
	set->receive_count = policy->receive_connector_count;
	set->send_count = policy->send_connector_count;
	set->partners = calloc(set->partner_count + 1, sizeof(struct trust *));
	set->receive = calloc(set->receive_count + 1, sizeof(struct trust *));
	set->send = calloc(set->send_count + 1, sizeof(struct trust *));
	set->generation = atomic_fetch_add(&trust_generations, 1) + 1;
	if (set->partners == NULL || set->receive == NULL || set->send == NULL) {
		trust_set_destroy(&set);
		return -ENOMEM;
	}
	rc = set_create_partners(policy, errors, set);
	rc_connectors = set_create_connectors(policy, errors, set);
	rc = rc < 0 ? rc : rc_connectors;
	if (rc < 0)
		trust_set_destroy(&set);
	else
		*out = set;
	return rc;
}

static void set_free_list(struct trust **list, unsigned count)
{
	for (unsigned i = 0; list != NULL && i < count; i++)
		trust_destroy(&list[i]);
	free(list);
}

void trust_set_destroy(struct trust_set **out)
{
	struct trust_set *set = *out;

	if (set == NULL)
		return;
	*out = NULL;
	set_free_list(set->partners, set->partner_count);
	set_free_list(set->receive, set->receive_count);
	set_free_list(set->send, set->send_count);
	free(set);
}
