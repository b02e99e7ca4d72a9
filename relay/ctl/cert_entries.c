/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/cert.h"

#include "relay/base/span.h"
#include "relay/pki/store.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <unistd.h>

/* A thumbprint may be shortened to so many digits. */
#define PREFIX_DIGITS_MIN 6

static char *path_create(const char *folder, const char *id, const char *file)
{
	char *path = NULL;

	return asprintf(&path, "%s/%s/%s", folder, id, file) < 0 ? NULL : path;
}

/* Reads a file of the store quietly: what is wrong with it is the status of the entry. */
static BIO *entry_file_open(const char *file)
{
	BIO *bio = file == NULL ? NULL : BIO_new_file(file, "r");

	ERR_clear_error();
	return bio;
}

static void entry_read_chain(struct cert_entry *entry)
{
	BIO *bio = entry_file_open(entry->certificate.chain);
	X509 *one;

	entry->bundle.certificates = sk_X509_new_null();
	while (bio != NULL && entry->bundle.certificates != NULL &&
		(one = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL)
		if (sk_X509_push(entry->bundle.certificates, one) <= 0)
			X509_free(one);
	BIO_free(bio);
	ERR_clear_error();
	if (sk_X509_num(entry->bundle.certificates) > 0)
		cert_facts_read(sk_X509_value(entry->bundle.certificates, 0), &entry->facts);
}

static void entry_read_key(struct cert_entry *entry)
{
	static char none[] = "";
	BIO *bio = entry_file_open(entry->certificate.key);
	EVP_PKEY *wanted;

	if (bio != NULL)
		entry->bundle.key = PEM_read_bio_PrivateKey(bio, NULL, NULL, none);
	BIO_free(bio);
	if (sk_X509_num(entry->bundle.certificates) > 0 && entry->bundle.key != NULL) {
		wanted = X509_get0_pubkey(sk_X509_value(entry->bundle.certificates, 0));
		entry->has_key = wanted != NULL && EVP_PKEY_eq(wanted, entry->bundle.key) == 1;
	} else if (entry->request_file != NULL) {
		entry->has_key = entry->bundle.key != NULL;
	}
	ERR_clear_error();
}

static void entry_read_request(struct cert_entry *entry)
{
	BIO *bio = entry_file_open(entry->request_file);
	X509_REQ *request = bio == NULL ? NULL : PEM_read_bio_X509_REQ(bio, NULL, NULL, NULL);

	if (request != NULL)
		cert_facts_read_request(request, &entry->facts);
	X509_REQ_free(request);
	BIO_free(bio);
	ERR_clear_error();
}

static int entry_read(struct cert_entry *entry, const struct cert_store *store, const char *id)
{
	char *enabled = path_create(store->folder, id, "enabled");
	char *chain = path_create(store->folder, id, "chain.pem");

	(void)snprintf(entry->id, sizeof(entry->id), "%.40s", id);
	entry->certificate = (struct certificate){.name = entry->id,
		.chain = chain,
		.key = path_create(store->folder, id, "key.pem"),
		.is_enabled = enabled != NULL && access(enabled, F_OK) == 0};
	free(enabled);
	if (chain != NULL && access(chain, F_OK) < 0 && errno == ENOENT)
		entry->request_file = path_create(store->folder, id, "request.pem");
	if (chain == NULL || entry->certificate.key == NULL)
		return -ENOMEM;
	entry_read_chain(entry);
	if (entry->request_file != NULL)
		entry_read_request(entry);
	entry_read_key(entry);
	return 0;
}

static struct cert_entry *list_create_entry(struct cert_list *list)
{
	struct cert_entry *entries =
		reallocarray(list->entries, list->count + 1, sizeof(*list->entries));

	if (entries == NULL)
		return NULL;
	list->entries = entries;
	memset(&entries[list->count], 0, sizeof(*entries));
	return &entries[list->count++];
}

static int entry_is_named(const struct dirent *found)
{
	return strlen(found->d_name) == CERT_THUMBPRINT_BYTES - 1 &&
	       strspn(found->d_name, "0123456789abcdef") == CERT_THUMBPRINT_BYTES - 1;
}

static int list_create_store(struct cert_list *list, const struct cert_store *store)
{
	struct dirent **found = NULL;
	int count = store->fd < 0 ? 0 : scandir(store->folder, &found, entry_is_named, alphasort);
	int rc = count < 0 ? -errno : 0;

	for (int i = 0; i < count; i++) {
		struct cert_entry *entry = rc < 0 ? NULL : list_create_entry(list);

		if (rc == 0)
			rc = entry == NULL ? -ENOMEM : entry_read(entry, store, found[i]->d_name);
		free(found[i]);
	}
	free(found);
	return rc;
}

/* The sections; those of the store are in the snapshot too, with line 0. */
static int list_create_sections(struct cert_list *list, const struct ctl *ctl)
{
	FILE *null = fopen("/dev/null", "we");

	if (null == NULL || policy_load(ctl->config, null, &list->policy) < 0)
		list->policy = NULL;
	if (null != NULL)
		(void)fclose(null);
	for (unsigned i = 0; list->policy != NULL && i < list->policy->certificate_count; i++) {
		const struct certificate *certificate = &list->policy->certificates[i];
		struct cert_entry *entry;

		if (certificate->line == 0)
			continue;
		entry = list_create_entry(list);
		if (entry == NULL)
			return -ENOMEM;
		entry->certificate = *certificate;
		entry->certificate.is_enabled = true;
		entry_read_chain(entry);
		entry_read_key(entry);
	}
	return 0;
}

int cert_list_create(const struct ctl *ctl, const struct cert_store *store, struct cert_list *out)
{
	int rc;

	*out = (struct cert_list){0};
	rc = list_create_store(out, store);
	if (rc == 0 && ctl->store == NULL)
		rc = list_create_sections(out, ctl);
	/* The array has moved while it grew, and names lie in its elements. */
	for (unsigned i = 0; i < out->count; i++)
		if (out->entries[i].id[0] != '\0')
			out->entries[i].certificate.name = out->entries[i].id;
	if (rc == 0)
		return 0;
	ctl_error("%s: %s", store->folder, strerror(-rc));
	cert_list_destroy(out);
	return rc;
}

void cert_list_destroy(struct cert_list *list)
{
	for (unsigned i = 0; i < list->count; i++) {
		struct cert_entry *entry = &list->entries[i];

		if (entry->id[0] != '\0') {
			free((void *)(uintptr_t)entry->certificate.chain);
			free((void *)(uintptr_t)entry->certificate.key);
		}
		free(entry->request_file);
		cert_bundle_drop(&entry->bundle);
	}
	free(list->entries);
	policy_destroy(&list->policy);
	*list = (struct cert_list){0};
}

static bool entry_has_name(const struct cert_entry *entry, const char *name)
{
	const char *at = entry->facts.names;
	size_t len = strlen(name);

	while (*at != '\0') {
		size_t have = strcspn(at, ",");

		if (have == len && strncasecmp(at, name, len) == 0)
			return true;
		at += have;
		at += strspn(at, ", ");
	}
	return false;
}

/* How well a name fits: 3 the name or thumbprint itself, 2 its beginning, 1 a name inside. */
static int entry_fits(const struct cert_entry *entry, const char *name)
{
	size_t len = strlen(name);
	size_t digits = strspn(name, "0123456789abcdefABCDEF");

	if (strcmp(entry->certificate.name, name) == 0 ||
		strcasecmp(entry->facts.thumbprint, name) == 0)
		return 3;
	if (digits == len && len >= PREFIX_DIGITS_MIN &&
		(strncasecmp(entry->facts.thumbprint, name, len) == 0 ||
			strncasecmp(entry->id, name, len) == 0))
		return 2;
	return entry_has_name(entry, name) ? 1 : 0;
}

const struct cert_entry *cert_list_find(const struct cert_list *list, const char *name)
{
	const struct cert_entry *best = NULL;
	int best_fit = 0;
	unsigned same = 0;

	for (unsigned i = 0; i < list->count; i++) {
		int fit = entry_fits(&list->entries[i], name);

		same = fit > best_fit ? 1 : same + (fit == best_fit && fit > 0);
		best = fit > best_fit ? &list->entries[i] : best;
		best_fit = fit > best_fit ? fit : best_fit;
	}
	if (same == 1)
		return best;
	if (same == 0)
		ctl_error("no certificate \"%s\", expected a thumbprint or name of posternctl cert "
			  "list",
			name);
	else
		ctl_error("\"%s\" fits %u certificates, expected the thumbprint of one: see "
			  "posternctl cert list",
			name, same);
	return NULL;
}

const char *cert_entry_services(const struct cert_entry *entry)
{
	return entry->certificate.is_enabled && entry->request_file == NULL ? "....S" : ".....";
}

/* Does each certificate of the file sign the one before? */
static bool entry_chain_holds(const struct cert_entry *entry)
{
	const STACK_OF(X509) *chain = entry->bundle.certificates;

	for (int i = 0; i + 1 < sk_X509_num(chain); i++) {
		X509 *one = sk_X509_value(chain, i);
		X509 *next = sk_X509_value(chain, i + 1);
		EVP_PKEY *key = X509_get0_pubkey(next);

		if (X509_check_issued(next, one) != X509_V_OK || key == NULL ||
			X509_verify(one, key) != 1)
			return false;
	}
	return true;
}

const char *cert_entry_status(const struct cert_entry *entry, time_t now, const char **out_why)
{
	enum certificate_status status = CERTIFICATE_VALID;
	const char *why = "";
	bool is_read = sk_X509_num(entry->bundle.certificates) > 0;

	if (entry->request_file != NULL && entry->has_key && entry->facts.pin_hex[0] != '\0') {
		status = CERTIFICATE_PENDING_REQUEST;
		why = "posternctl cert import brings the answer";
	} else if (!is_read || !entry->has_key) {
		status = CERTIFICATE_INVALID;
		why = !is_read                    ? "the certificate cannot be read"
		      : entry->bundle.key == NULL ? "the private key cannot be read"
						  : "the private key is of another certificate";
	} else if (entry->facts.not_after < now || entry->facts.not_before > now) {
		status = CERTIFICATE_DATE_INVALID;
		why = entry->facts.not_after < now ? "it has expired" : "it is not valid yet";
	} else if (!entry_chain_holds(entry)) {
		status = CERTIFICATE_UNTRUSTED;
		why = "a certificate of its chain does not sign the one before it";
	}
	ERR_clear_error();
	if (out_why != NULL)
		*out_why = why;
	return certificate_status_word(status);
}
