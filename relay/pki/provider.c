/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/pki/provider.h"

#include <openssl/core_dispatch.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/provider.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>

#define PROVIDER_NAME "postern"

/* What is left of one kind of algorithm. */
struct lean_list {
	int operation;
	const char *kept;        /* a part of the properties that it must have, or NULL */
	const char *dropped[16]; /* none of these may be in its first name */
	OSSL_ALGORITHM *list;    /* NULL: all of them */
};

static struct lean_list lists[] = {
	{.operation = OSSL_OP_DECODER,
		.kept = "input=der,structure=SubjectPublicKeyInfo",
		.dropped = {"DH", "X25519", "X448"}},
	{.operation = OSSL_OP_KEYMGMT, .dropped = {"SCRYPT", "SIPHASH", "POLY1305", "CMAC"}},
	{.operation = OSSL_OP_KEYEXCH, .dropped = {"SCRYPT"}},
	{.operation = OSSL_OP_SIGNATURE, .dropped = {"SIPHASH", "POLY1305", "CMAC"}},
	{.operation = OSSL_OP_CIPHER,
		.dropped = {"-CTS", "-ECB", "-OFB", "-CFB", "-CTR", "-XTS", "-OCB", "-SIV", "-WRAP",
			"SM4-", "DES-EDE-"}},
	{.operation = OSSL_OP_DIGEST, .dropped = {"BLAKE2", "KECCAK", "SHAKE"}},
	{.operation = OSSL_OP_MAC,
		.dropped = {"BLAKE2", "KMAC", "SIPHASH", "POLY1305", "GMAC", "CMAC"}},
	{.operation = OSSL_OP_KDF,
		.dropped = {"SSKDF", "PKCS12", "SSHKDF", "X963", "X942", "KBKDF", "SCRYPT",
			"KRB5"}},
};

#define LIST_COUNT (sizeof(lists) / sizeof(lists[0]))

static struct {
	OSSL_LIB_CTX *library; /* in which the default provider lives */
	OSSL_PROVIDER *real;   /* it */
	OSSL_PROVIDER *own;    /* in front of it, where everybody looks; NULL: not used */
} lean;

static bool list_keeps(const struct lean_list *list, const OSSL_ALGORITHM *algorithm)
{
	char name[64];
	size_t len = strcspn(algorithm->algorithm_names, ":");

	if (len >= sizeof(name))
		return true;
	memcpy(name, algorithm->algorithm_names, len);
	name[len] = '\0';
	for (size_t i = 0; list->dropped[i] != NULL; i++) {
		if (strstr(name, list->dropped[i]) != NULL)
			return false;
	}
	return list->kept == NULL ||
	       (algorithm->property_definition != NULL &&
		       strstr(algorithm->property_definition, list->kept) != NULL);
}

static void list_create(struct lean_list *list)
{
	int no_cache = 0;
	const OSSL_ALGORITHM *all =
		OSSL_PROVIDER_query_operation(lean.real, list->operation, &no_cache);
	size_t count = 0;
	size_t kept = 0;

	while (all != NULL && all[count].algorithm_names != NULL)
		count++;
	list->list = calloc(count + 1, sizeof(*list->list));
	for (size_t i = 0; list->list != NULL && i < count; i++) {
		if (list_keeps(list, &all[i]))
			list->list[kept++] = all[i];
	}
}

static const OSSL_ALGORITHM *lean_query(void *context, int operation, int *no_cache)
{
	const OSSL_ALGORITHM *all = OSSL_PROVIDER_query_operation(lean.real, operation, no_cache);

	(void)context;
	for (size_t i = 0; i < LIST_COUNT; i++) {
		if (lists[i].operation == operation && lists[i].list != NULL)
			return lists[i].list;
	}
	return all;
}

static const OSSL_PARAM *lean_gettable(void *context)
{
	(void)context;
	return OSSL_PROVIDER_gettable_params(lean.real);
}

static int lean_get(void *context, OSSL_PARAM params[])
{
	(void)context;
	return OSSL_PROVIDER_get_params(lean.real, params);
}

static int lean_capabilities(void *context, const char *name, OSSL_CALLBACK *each, void *arg)
{
	(void)context;
	return OSSL_PROVIDER_get_capabilities(lean.real, name, each, arg);
}

/* The algorithms are the default provider's, and so is the context that they are given. */
static int lean_start(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in,
	const OSSL_DISPATCH **out, void **context)
{
	static const OSSL_DISPATCH functions[] = {
		{OSSL_FUNC_PROVIDER_GETTABLE_PARAMS, (void (*)(void))lean_gettable},
		{OSSL_FUNC_PROVIDER_GET_PARAMS, (void (*)(void))lean_get},
		{OSSL_FUNC_PROVIDER_QUERY_OPERATION, (void (*)(void))lean_query},
		{OSSL_FUNC_PROVIDER_GET_CAPABILITIES, (void (*)(void))lean_capabilities},
		{0, NULL},
	};

	(void)handle;
	(void)in;
	*out = functions;
	*context = OSSL_PROVIDER_get0_provider_ctx(lean.real);
	return 1;
}

static int count_provider(OSSL_PROVIDER *provider, void *count)
{
	(void)provider;
	++*(unsigned *)count;
	return 1;
}

static bool library_needs_it(void)
{
	return OPENSSL_version_major() == 3 && OPENSSL_version_minor() < 2;
}

void provider_init(void)
{
	unsigned count = 0;

	if (lean.library != NULL || !library_needs_it())
		return;
	lean.library = OSSL_LIB_CTX_new();
	lean.real = OSSL_PROVIDER_load(lean.library, "default");
	if (lean.library == NULL || lean.real == NULL)
		return;
	for (size_t i = 0; i < LIST_COUNT; i++)
		list_create(&lists[i]);
	if (OSSL_PROVIDER_add_builtin(NULL, PROVIDER_NAME, lean_start) == 1)
		lean.own = OSSL_PROVIDER_load(NULL, PROVIDER_NAME);
	if (lean.own == NULL)
		return;
	/* This reads openssl.cnf. Ours is alone unless that names others: then theirs are used. */
	(void)OPENSSL_init_ssl(OPENSSL_INIT_LOAD_CONFIG, NULL);
	(void)OSSL_PROVIDER_do_all(NULL, count_provider, &count);
	if (count > 1) {
		(void)OSSL_PROVIDER_unload(lean.own);
		lean.own = NULL;
	}
}

bool provider_is_lean(void)
{
	return lean.own != NULL;
}

/* The same key where everybody looks; a key used from elsewhere is converted again and again. */
static EVP_PKEY *key_hand_over(EVP_PKEY *from)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, EVP_PKEY_get0_type_name(from), NULL);
	OSSL_PARAM *parts = NULL;
	EVP_PKEY *key = NULL;

	if (ctx == NULL || EVP_PKEY_todata(from, EVP_PKEY_KEYPAIR, &parts) != 1 ||
		EVP_PKEY_fromdata_init(ctx) != 1 ||
		EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_KEYPAIR, parts) != 1)
		key = NULL;
	OSSL_PARAM_free(parts);
	EVP_PKEY_CTX_free(ctx);
	return key;
}

EVP_PKEY *provider_read_key(
	const char *file, int (*on_password)(char *out, int bytes, int is_writing, void *arg))
{
	OSSL_LIB_CTX *library = provider_is_lean() ? lean.library : NULL;
	BIO *in = BIO_new_file(file, "re");
	EVP_PKEY *read = NULL;
	EVP_PKEY *key;

	if (in != NULL)
		read = PEM_read_bio_PrivateKey_ex(in, NULL, on_password, NULL, library, NULL);
	BIO_free(in);
	if (read == NULL || library == NULL)
		return read;
	key = key_hand_over(read);
	EVP_PKEY_free(read);
	return key;
}

bool provider_use_key(SSL_CTX *ctx, const char *file)
{
	EVP_PKEY *key = provider_read_key(file, NULL);
	bool ok = key != NULL && SSL_CTX_use_PrivateKey(ctx, key) == 1;

	EVP_PKEY_free(key);
	return ok;
}
