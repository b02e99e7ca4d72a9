/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/pki/store.h"

#include "relay/pki/provider.h"
#include "relay/pki/words.h"
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>

const char *certificate_status_word(enum certificate_status status)
{
	static const char *const words[CERTIFICATE_STATUS_COUNT] = {
		[CERTIFICATE_VALID] = "Valid",
		[CERTIFICATE_DATE_INVALID] = "DateInvalid",
		[CERTIFICATE_UNTRUSTED] = "Untrusted",
		[CERTIFICATE_REVOKED] = "Revoked",
		[CERTIFICATE_REVOCATION_CHECK_FAILURE] = "RevocationCheckFailure",
		[CERTIFICATE_PENDING_REQUEST] = "PendingRequest",
		[CERTIFICATE_INVALID] = "Invalid",
	};

	ASSERT(status < CERTIFICATE_STATUS_COUNT);
	return words[status];
}

/* An encrypted key is no key: nobody is there to be asked for the password. */
static int store_on_password(char *out, int out_bytes, int for_writing, void *arg)
{
	(void)out;
	(void)out_bytes;
	(void)for_writing;
	(void)arg;
	return -1;
}

static bool store_key_fits(const char *file, X509 *leaf)
{
	EVP_PKEY *key = file == NULL ? NULL : provider_read_key(file, store_on_password);
	bool fits = key != NULL && X509_check_private_key(leaf, key) == 1;

	EVP_PKEY_free(key);
	return fits;
}

/* Leaf first, then intermediates. False: at least one certificate must be there. */
static bool store_read_chain(FILE *in, X509 **out_leaf, STACK_OF(X509) * rest)
{
	X509 *each;

	*out_leaf = PEM_read_X509(in, NULL, NULL, NULL);
	if (*out_leaf == NULL)
		return false;
	while ((each = PEM_read_X509(in, NULL, NULL, NULL)) != NULL) {
		if (sk_X509_push(rest, each) <= 0) {
			X509_free(each);
			return false;
		}
	}
	return ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
}

int own_certificate_load(const struct certificate *certificate, struct own_certificate *out,
	char *error, size_t error_bytes)
{
	FILE *in = fopen(certificate->chain, "re");
	STACK_OF(X509) *rest = sk_X509_new_null();
	X509 *leaf = NULL;

	*out = (struct own_certificate){.certificate = certificate};
	ERR_clear_error();
	if (in == NULL) {
		(void)snprintf(error, error_bytes, "%s: %s", certificate->chain, strerror(errno));
	} else if (rest == NULL || !store_read_chain(in, &leaf, rest)) {
		(void)snprintf(error, error_bytes, "%s: %s, expected certificates in PEM",
			certificate->chain, openssl_why("cannot be read"));
	} else {
		out->facts = peer_of_chain(leaf, rest);
		if (out->facts == NULL)
			(void)snprintf(error, error_bytes, "%s: its names cannot be read",
				certificate->chain);
	}
	if (out->facts != NULL) {
		out->has_key = store_key_fits(certificate->key, leaf);
		out->is_self_signed = X509_self_signed(leaf, 1) == 1;
		out->is_v3 = X509_get_version(leaf) == X509_VERSION_3;
	}
	if (in != NULL)
		(void)fclose(in);
	X509_free(leaf);
	sk_X509_pop_free(rest, X509_free);
	ERR_clear_error();
	return out->facts == NULL ? -EINVAL : 0;
}

void own_certificate_drop(struct own_certificate *own)
{
	peer_release(&own->facts);
	own->certificate = NULL;
}

/* dNSName or CN, as Exchange does: here a CN counts beside dNSNames too. */
static bool own_has_name(const struct own_certificate *own, const char *fqdn)
{
	const struct certificate_names *names = &own->facts->names;
	const struct certificate_names common = {
		.dns = names->common, .dns_count = names->common_count};

	return names_have(names, fqdn) || names_have(&common, fqdn);
}

static bool own_is_valid(const struct own_certificate *own, time_t now)
{
	return own->facts->not_before <= now && now < own->facts->not_after;
}

/* Is a to be shown rather than b? */
static bool own_is_better(
	const struct own_certificate *a, const struct own_certificate *b, time_t now)
{
	if (own_is_valid(a, now) != own_is_valid(b, now))
		return own_is_valid(a, now);
	if (a->is_self_signed != b->is_self_signed)
		return b->is_self_signed;
	if (a->facts->not_before != b->facts->not_before)
		return a->facts->not_before > b->facts->not_before;
	return strcmp(a->certificate->name, b->certificate->name) < 0;
}

const struct own_certificate *own_certificate_select(
	const struct own_certificate *list, unsigned count, const char *fqdn, time_t now)
{
	const struct own_certificate *best = NULL;

	for (unsigned i = 0; i < count; i++) {
		const struct own_certificate *own = &list[i];

		if (own->facts == NULL || !own->has_key || !own->is_v3 ||
			!own->certificate->is_enabled || !own_has_name(own, fqdn))
			continue;
		if (best == NULL || own_is_better(own, best, now))
			best = own;
	}
	return best;
}
