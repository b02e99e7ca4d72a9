/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * words.h: what OpenSSL has to say, as text.
 */

#include <stddef.h>

struct X509_name_st;

/* Why the last call failed; otherwise, if the library does not say. Leaves the errors where they
 * are. */
const char *openssl_why(const char *otherwise);

/* A subject or issuer in the form of RFC 2253, UTF-8 as it is; cut to fit, "" if unreadable. */
void openssl_print_name(const struct X509_name_st *name, char *out, size_t out_bytes);
