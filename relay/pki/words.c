/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/pki/words.h"

#include <openssl/err.h>
#include <openssl/x509.h>

const char *openssl_why(const char *otherwise)
{
	unsigned long error = ERR_peek_last_error();
	const char *reason = error == 0 ? NULL : ERR_reason_error_string(error);

	return reason == NULL ? otherwise : reason;
}

void openssl_print_name(const X509_NAME *name, char *out, size_t out_bytes)
{
	BIO *bio = BIO_new(BIO_s_mem());
	int len = 0;

	if (bio != NULL && X509_NAME_print_ex(bio, name, 0,
				   XN_FLAG_RFC2253 & ~(unsigned long)ASN1_STRFLGS_ESC_MSB) >= 0)
		len = BIO_read(bio, out, (int)out_bytes - 1);
	out[len > 0 ? len : 0] = '\0';
	BIO_free(bio);
}
