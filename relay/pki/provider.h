/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * provider.h: OpenSSL's default provider, without what a relay never meets.
 *
 * OpenSSL 3.0 and 3.1 read a public key by trial: for every certificate each decoder that there
 * is, and each algorithm of any kind that was ever looked for, is gone through by name, which
 * costs several times as much as checking a signature. So a provider of our own
 * stands in front of the default one and hands on all that it has but for
 *
 *   - decoders of anything but the public key in a certificate, and of keys that no certificate of
 *     a TLS peer can have (Diffie-Hellman, X25519, X448),
 *   - ciphers in modes that TLS does not use, and types of "key" that only name a MAC or KDF.
 *
 * What is left is the default provider's own code; nothing is implemented here. Private keys are
 * read with the default provider itself, and then handed over: provider_read_key().
 *
 * It is used only where it helps: not with a library that remembers its decoders (from 3.2),
 * and not where the administrator's openssl.cnf names providers.
 */

#include <stdbool.h>

struct evp_pkey_st;
struct ssl_ctx_st;

/* Once, before any other use of OpenSSL. When it cannot be done, all stays as it was. */
void provider_init(void);

/* Does it stand in front? */
bool provider_is_lean(void);

/*
 * The private key in a file in PEM, or NULL and OpenSSL's errors, as PEM_read_bio_PrivateKey().
 * In a process that has called provider_init() there is no other way to read one.
 */
struct evp_pkey_st *provider_read_key(
	const char *file, int (*on_password)(char *out, int bytes, int is_writing, void *arg));

/* Gives it to a context, beside its certificate. False: OpenSSL's errors say why. */
bool provider_use_key(struct ssl_ctx_st *ctx, const char *file);
