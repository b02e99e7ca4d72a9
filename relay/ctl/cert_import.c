/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/cert.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

/* Longer chains than this come from no authority. */
#define CHAIN_MAX 16

struct import {
	const char *file;
	bool replace;
	struct cert_bundle bundle;      /* what the files held */
	X509 *leaf;                     /* borrowed from bundle */
	STACK_OF(X509) * chain;         /* borrowed: leaf first, no root */
	const struct cert_entry *owner; /* whose key it is, if it is in the store already */
	struct cert_facts facts;
};

static int chain_has(const STACK_OF(X509) * chain, const X509 *one)
{
	for (int i = 0; i < sk_X509_num(chain); i++)
		if (sk_X509_value(chain, i) == one)
			return 1;
	return 0;
}

static X509 *import_leaf_of(const struct import *import, const EVP_PKEY *key)
{
	for (int i = 0; i < sk_X509_num(import->bundle.certificates); i++) {
		X509 *one = sk_X509_value(import->bundle.certificates, i);
		EVP_PKEY *have = X509_get0_pubkey(one);

		if (have != NULL && EVP_PKEY_eq(have, key) == 1)
			return one;
	}
	ERR_clear_error();
	return NULL;
}

/* The leaf is the certificate whose key we have, from the files or from the store. */
static int import_find_leaf(struct import *import, const struct cert_list *list)
{
	int count = sk_X509_num(import->bundle.certificates);

	if (count <= 0) {
		ctl_error("%s: no certificate in it", import->file);
		return -EINVAL;
	}
	if (import->bundle.key != NULL) {
		import->leaf = import_leaf_of(import, import->bundle.key);
		if (import->leaf != NULL)
			return 0;
		ctl_error("%s: the private key does not fit %s, expected the key that the request "
			  "was made with",
			import->file, count == 1 ? "the certificate" : "any of the certificates");
		return -EINVAL;
	}
	for (unsigned i = 0; import->leaf == NULL && i < list->count; i++) {
		const struct cert_entry *entry = &list->entries[i];

		if (entry->id[0] == '\0' || !entry->has_key)
			continue;
		import->leaf = import_leaf_of(import, entry->bundle.key);
		import->owner = entry;
	}
	if (import->leaf != NULL)
		return 0;
	ctl_error("%s: there is no private key for it, neither in the file nor of a pending "
		  "request, expected --key FILE, a PKCS#12 file, or posternctl cert request first",
		import->file);
	return -EINVAL;
}

static X509 *import_issuer_of(const struct import *import, X509 *one)
{
	for (int i = 0; i < sk_X509_num(import->bundle.certificates); i++) {
		X509 *next = sk_X509_value(import->bundle.certificates, i);
		EVP_PKEY *key = X509_get0_pubkey(next);

		if (!chain_has(import->chain, next) && key != NULL &&
			X509_check_issued(next, one) == X509_V_OK && X509_verify(one, key) == 1)
			return next;
	}
	return NULL;
}

/* Leaf first, each signed by the next; the root is left out, since a peer has its own. */
static int import_sort(struct import *import)
{
	X509 *one = import->leaf;
	int left_out;

	import->chain = sk_X509_new_null();
	while (one != NULL && sk_X509_num(import->chain) < CHAIN_MAX) {
		if (one != import->leaf && X509_self_signed(one, 0) == 1)
			break;
		if (sk_X509_push(import->chain, one) <= 0)
			return -ENOMEM;
		one = X509_self_signed(one, 0) == 1 ? NULL : import_issuer_of(import, one);
	}
	left_out = sk_X509_num(import->bundle.certificates) - sk_X509_num(import->chain);
	if (one != NULL && one != import->leaf)
		left_out--;
	ERR_clear_error();
	if (left_out > 0)
		ctl_error("note: %d certificates of %s do not belong to the chain and are left out",
			left_out, import->file);
	return 0;
}

static int import_check_dates(const struct import *import)
{
	char text[CERT_TIME_BYTES];
	time_t now = time(NULL);

	for (int i = 0; i < sk_X509_num(import->chain); i++) {
		X509 *one = sk_X509_value(import->chain, i);
		struct cert_facts facts;

		cert_facts_read(one, &facts);
		if (facts.not_after < now) {
			ctl_error("%s: %s has expired at %s, expected one that is valid: have it "
				  "renewed (posternctl cert request)",
				import->file, facts.subject,
				cert_time_print(facts.not_after, text));
			return -EINVAL;
		}
		if (facts.not_before > now)
			ctl_error("note: %s is not valid before %s", facts.subject,
				cert_time_print(facts.not_before, text));
	}
	return 0;
}

static int import_check(struct import *import)
{
	for (int i = 0; i < sk_X509_num(import->chain); i++) {
		const char *why = cert_why_weak(sk_X509_value(import->chain, i));

		if (why == NULL)
			continue;
		ctl_error("%s: %s: %s", import->file,
			i == 0 ? "the certificate cannot be used" : "the chain cannot be used",
			why);
		return -EINVAL;
	}
	return import_check_dates(import);
}

/* What is no reason to refuse it, but will be noticed. */
static void import_note(const struct import *import)
{
	uint32_t usage = X509_get_extended_key_usage(import->leaf);

	if (X509_get_version(import->leaf) != X509_VERSION_3)
		ctl_error("note: it is no X.509 version 3, so it is never chosen by name");
	if ((usage & XKU_SSL_CLIENT) == 0)
		ctl_error("note: its extended key usage has no clientAuth: partners will not take "
			  "it as proof when we send");
	if ((usage & XKU_SSL_SERVER) == 0)
		ctl_error("note: its extended key usage has no serverAuth: partners will not take "
			  "it as proof when we receive");
	if (import->facts.names[0] == '\0')
		ctl_error("note: it has no dNSName: partners look for their names there");
}

static int import_write(const struct import *import, const struct cert_store *store)
{
	EVP_PKEY *own = import->bundle.key != NULL ? import->bundle.key : import->owner->bundle.key;
	BIO *chain = BIO_new(BIO_s_mem());
	BIO *key = BIO_new(BIO_s_secmem());
	const struct cert_file files[] = {{"key.pem", key}, {"chain.pem", chain}, {NULL, NULL}};
	int rc = chain == NULL || key == NULL ? -ENOMEM : 0;

	for (int i = 0; rc == 0 && i < sk_X509_num(import->chain); i++)
		if (PEM_write_bio_X509(chain, sk_X509_value(import->chain, i)) != 1)
			rc = -ENOMEM;
	if (rc == 0 && PEM_write_bio_PKCS8PrivateKey(key, own, NULL, NULL, 0, NULL, NULL) != 1)
		rc = -ENOMEM;
	if (rc < 0)
		ctl_error("the certificate cannot be written: %s", cert_openssl_reason());
	else
		rc = cert_store_put(store, import->facts.thumbprint, files);
	BIO_free(chain);
	BIO_free(key);
	return rc;
}

static const struct cert_entry *import_find_same(
	const struct import *import, const struct cert_list *list)
{
	for (unsigned i = 0; i < list->count; i++)
		if (strcmp(list->entries[i].id, import->facts.thumbprint) == 0)
			return &list->entries[i];
	return NULL;
}

/* The request is answered, whoever brought the key. */
static int import_end_request(
	const struct import *import, const struct cert_store *store, const struct cert_list *list)
{
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < list->count; i++) {
		const struct cert_entry *entry = &list->entries[i];

		if (entry->request_file != NULL && entry->bundle.key != NULL &&
			EVP_PKEY_eq(entry->bundle.key, X509_get0_pubkey(import->leaf)) == 1)
			rc = cert_store_remove(store, entry->id);
	}
	return rc;
}

static int import_print(
	const struct ctl *ctl, const struct import *import, const struct cert_entry *same)
{
	struct ctl_table table;
	const char *services = same != NULL ? cert_entry_services(same) : ".....";

	cert_table_init(&table);
	cert_table_create_row(&table, &import->facts, services);
	if (services[4] != 'S')
		ctl_error(
			"note: it is not in use before: posternctl cert enable %s --services smtp",
			import->facts.thumbprint);
	return ctl_table_finish(ctl, &table);
}

static int import_into(struct import *import, const struct ctl *ctl, const struct cert_store *store,
	const struct cert_list *list)
{
	const struct cert_entry *same;

	if (import_find_leaf(import, list) < 0 || import_sort(import) < 0 ||
		import_check(import) < 0)
		return CTL_FAILED;
	cert_facts_read(import->leaf, &import->facts);
	same = import_find_same(import, list);
	if (same != NULL && !import->replace) {
		ctl_error("%s: the store has certificate %s already, expected --replace to write "
			  "its chain and key anew",
			import->file, import->facts.thumbprint);
		return CTL_FAILED;
	}
	import_note(import);
	if (import_write(import, store) < 0 || import_end_request(import, store, list) < 0)
		return CTL_FAILED;
	return import_print(ctl, import, same);
}

int cert_import_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	struct import import = {0};
	const char *key_file = NULL;
	const char *password_file = NULL;
	const char *password = NULL;
	struct ctl_list operands = {.count = 0};
	struct cert_store store;
	struct cert_list list;
	const struct ctl_option options[] = {{"key", CTL_OPTION_TEXT, &key_file, 0, 0, false},
		{"password-file", CTL_OPTION_TEXT, &password_file, 0, 0, false},
		{"replace", CTL_OPTION_FLAG, &import.replace, 0, 0, false}, {.name = NULL}};
	int status = CTL_USAGE;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 1, 1) < 0)
		return CTL_USAGE;
	import.file = operands.texts[0];
	if ((password_file == NULL || cert_password_read(password_file, &password) == 0) &&
		cert_bundle_read(import.file, password, &import.bundle) == 0 &&
		(key_file == NULL || cert_bundle_read(key_file, password, &import.bundle) == 0))
		status = cert_store_open(ctl, CERT_STORE_WRITE, &store);
	if (status == CTL_OK) {
		status = CTL_FAILED;
		if (cert_list_create(ctl, &store, &list) == 0) {
			status = import_into(&import, ctl, &store, &list);
			cert_list_destroy(&list);
		}
		cert_store_close(&store);
	}
	sk_X509_free(import.chain);
	cert_bundle_drop(&import.bundle);
	return status;
}
