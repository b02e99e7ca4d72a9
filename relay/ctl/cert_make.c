/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/cert.h"

#include <errno.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <time.h>

#define RSA_BITS 2048
#define DAYS_DEFAULT 1825 /* five years, as New-ExchangeCertificate */
#define DAYS_MAX 36500
#define SERIAL_BITS 127

/* What request and self-signed are asked for. */
struct make {
	struct ctl_list names;
	const char *subject;
	const char *key_type;
	const char *out;
	const char *services;
	int64_t days;
	/* What comes of it. */
	EVP_PKEY *key;
	GENERAL_NAMES *alternatives;
	X509_NAME *name;
};

static const char *make_first_name(const struct make *make)
{
	const GENERAL_NAME *first = sk_GENERAL_NAME_value(make->alternatives, 0);

	/* They were made from texts without a NUL, and OpenSSL keeps one behind. */
	return (const char *)ASN1_STRING_get0_data(first->d.dNSName);
}

static int make_create(struct make *make)
{
	bool is_rsa = make->key_type != NULL && strcmp(make->key_type, "rsa") == 0;
	int rc;

	if (make->key_type != NULL && !is_rsa && strcmp(make->key_type, "ec") != 0) {
		ctl_error("--key-type %s: expected ec or rsa", make->key_type);
		return -EINVAL;
	}
	make->alternatives = GENERAL_NAMES_new();
	make->name = X509_NAME_new();
	if (make->alternatives == NULL || make->name == NULL)
		return -ENOMEM;
	rc = cert_names_create(&make->names, make->alternatives);
	if (rc == 0)
		rc = cert_subject_set(make->subject, make_first_name(make), make->name);
	if (rc < 0)
		return rc;
	make->key = is_rsa ? EVP_RSA_gen(RSA_BITS) : EVP_EC_gen("P-256");
	if (make->key != NULL)
		return 0;
	ctl_error("the key cannot be made: %s", cert_openssl_reason());
	return -ENOMEM;
}

static void make_drop(struct make *make)
{
	EVP_PKEY_free(make->key);
	GENERAL_NAMES_free(make->alternatives);
	X509_NAME_free(make->name);
}

static int extension_create(STACK_OF(X509_EXTENSION) * *list, int nid, const char *value)
{
	X509_EXTENSION *one = X509V3_EXT_conf_nid(NULL, NULL, nid, value);
	int rc = one != NULL && X509v3_add_ext(list, one, -1) != NULL ? 0 : -ENOMEM;

	X509_EXTENSION_free(one);
	return rc;
}

static int extensions_create(const struct make *make, STACK_OF(X509_EXTENSION) * *list)
{
	/* With RSA an old TLS 1.2 peer may still want to encrypt to the key. */
	const char *usage = EVP_PKEY_is_a(make->key, "RSA")
				    ? "critical,digitalSignature,keyEncipherment"
				    : "critical,digitalSignature";
	/* A subject without CN is empty of what matters, but never empty: not critical. */
	int rc = X509V3_add1_i2d(list, NID_subject_alt_name, make->alternatives, 0, 0) == 1
			 ? 0
			 : -ENOMEM;

	if (rc == 0)
		rc = extension_create(list, NID_basic_constraints, "critical,CA:FALSE");
	if (rc == 0)
		rc = extension_create(list, NID_key_usage, usage);
	if (rc == 0)
		rc = extension_create(list, NID_ext_key_usage, "serverAuth,clientAuth");
	return rc;
}

static int request_create(const struct make *make, X509_REQ **out)
{
	STACK_OF(X509_EXTENSION) *extensions = NULL;
	X509_REQ *request = X509_REQ_new();
	int rc = request == NULL ? -ENOMEM : extensions_create(make, &extensions);

	if (rc == 0 && (X509_REQ_set_version(request, X509_REQ_VERSION_1) != 1 ||
			       X509_REQ_set_subject_name(request, make->name) != 1 ||
			       X509_REQ_set_pubkey(request, make->key) != 1 ||
			       X509_REQ_add_extensions(request, extensions) != 1 ||
			       X509_REQ_sign(request, make->key, EVP_sha256()) <= 0))
		rc = -ENOMEM;
	sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
	if (rc == 0)
		*out = request;
	else
		X509_REQ_free(request);
	return rc;
}

static int certificate_set_serial(X509 *certificate)
{
	BIGNUM *number = BN_new();
	int rc = number != NULL && BN_rand(number, SERIAL_BITS, BN_RAND_TOP_ONE, 0) == 1 &&
				 BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate)) !=
					 NULL
			 ? 0
			 : -ENOMEM;

	BN_free(number);
	return rc;
}

static int certificate_set_extensions(const struct make *make, X509 *certificate)
{
	STACK_OF(X509_EXTENSION) *extensions = NULL;
	X509V3_CTX context;
	X509_EXTENSION *id;
	int rc = extensions_create(make, &extensions);

	X509V3_set_ctx(&context, certificate, certificate, NULL, NULL, 0);
	id = X509V3_EXT_conf_nid(NULL, &context, NID_subject_key_identifier, "hash");
	if (rc == 0 && (id == NULL || X509_add_ext(certificate, id, -1) != 1))
		rc = -ENOMEM;
	for (int i = 0; rc == 0 && i < sk_X509_EXTENSION_num(extensions); i++)
		if (X509_add_ext(certificate, sk_X509_EXTENSION_value(extensions, i), -1) != 1)
			rc = -ENOMEM;
	X509_EXTENSION_free(id);
	sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
	return rc;
}

static int certificate_create(const struct make *make, X509 **out)
{
	X509 *certificate = X509_new();
	int rc = certificate == NULL ? -ENOMEM : certificate_set_serial(certificate);

	if (rc == 0 && (X509_set_version(certificate, X509_VERSION_3) != 1 ||
			       X509_set_subject_name(certificate, make->name) != 1 ||
			       X509_set_issuer_name(certificate, make->name) != 1 ||
			       X509_set_pubkey(certificate, make->key) != 1 ||
			       X509_gmtime_adj(X509_getm_notBefore(certificate), 0) == NULL ||
			       X509_time_adj_ex(X509_getm_notAfter(certificate), (int)make->days, 0,
				       NULL) == NULL))
		rc = -ENOMEM;
	if (rc == 0)
		rc = certificate_set_extensions(make, certificate);
	if (rc == 0 && X509_sign(certificate, make->key, EVP_sha256()) <= 0)
		rc = -ENOMEM;
	if (rc == 0)
		*out = certificate;
	else
		X509_free(certificate);
	return rc;
}

/* The key and the other file as an entry of the store. */
static int make_store(
	const struct make *make, struct ctl *ctl, const char *id, const char *file, BIO *content)
{
	BIO *key = BIO_new(BIO_s_secmem());
	BIO *enabled = BIO_new(BIO_s_mem());
	struct cert_file files[CERT_FILES_MAX] = {{"key.pem", key}, {file, content}};
	struct cert_store store;
	int status = CTL_FAILED;

	if (make->services != NULL)
		files[2] = (struct cert_file){"enabled", enabled};
	if (key == NULL || enabled == NULL ||
		PEM_write_bio_PKCS8PrivateKey(key, make->key, NULL, NULL, 0, NULL, NULL) != 1) {
		ctl_error("the key cannot be written: %s", cert_openssl_reason());
	} else {
		status = cert_store_open(ctl, CERT_STORE_WRITE, &store);
		if (status == CTL_OK && cert_store_put(&store, id, files) < 0)
			status = CTL_FAILED;
		cert_store_close(&store);
	}
	BIO_free(key);
	BIO_free(enabled);
	return status;
}

static int make_print(
	const struct ctl *ctl, const struct cert_facts *facts, const char *services, FILE *file)
{
	struct ctl_table table;

	/* Where standard output carries the request itself, only its name is told. */
	if (file == stderr) {
		(void)fprintf(file, "posternctl: pending request %s\n", facts->thumbprint);
		return CTL_OK;
	}
	cert_table_init(&table);
	cert_table_create_row(&table, facts, services);
	return ctl_table_finish(ctl, &table);
}

static int request_finish(const struct make *make, struct ctl *ctl)
{
	BIO *pem = BIO_new(BIO_s_mem());
	X509_REQ *request = NULL;
	struct cert_facts facts;
	int status = CTL_FAILED;

	if (pem == NULL || request_create(make, &request) < 0 ||
		PEM_write_bio_X509_REQ(pem, request) != 1) {
		ctl_error("the request cannot be made: %s", cert_openssl_reason());
	} else {
		cert_facts_read_request(request, &facts);
		status = make_store(make, ctl, facts.thumbprint, "request.pem", pem);
	}
	if (status == CTL_OK && cert_file_write(make->out, pem, 0644) < 0) {
		ctl_error("the request is kept in the store: posternctl cert export %s",
			facts.thumbprint);
		status = CTL_FAILED;
	}
	if (status == CTL_OK)
		status = make_print(ctl, &facts, ".....", make->out == NULL ? stderr : stdout);
	X509_REQ_free(request);
	BIO_free(pem);
	return status;
}

int cert_request_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	struct make make = {0};
	struct ctl_list operands = {.count = 0};
	const struct ctl_option options[] = {{"name", CTL_OPTION_LIST, &make.names, 0, 0, true},
		{"subject", CTL_OPTION_TEXT, &make.subject, 0, 0, false},
		{"key-type", CTL_OPTION_TEXT, &make.key_type, 0, 0, false},
		{"out", CTL_OPTION_TEXT, &make.out, 0, 0, false}, {.name = NULL}};
	int status = CTL_USAGE;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 0, 0) < 0)
		return CTL_USAGE;
	if (make_create(&make) == 0)
		status = request_finish(&make, ctl);
	make_drop(&make);
	return status;
}

static int self_signed_finish(const struct make *make, struct ctl *ctl)
{
	BIO *pem = BIO_new(BIO_s_mem());
	X509 *certificate = NULL;
	struct cert_facts facts;
	int status = CTL_FAILED;

	if (pem == NULL || certificate_create(make, &certificate) < 0 ||
		PEM_write_bio_X509(pem, certificate) != 1) {
		ctl_error("the certificate cannot be made: %s", cert_openssl_reason());
	} else {
		cert_facts_read(certificate, &facts);
		status = make_store(make, ctl, facts.thumbprint, "chain.pem", pem);
	}
	if (status == CTL_OK)
		status =
			make_print(ctl, &facts, make->services != NULL ? "....S" : ".....", stdout);
	X509_free(certificate);
	BIO_free(pem);
	return status;
}

int cert_self_signed_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	struct make make = {.days = DAYS_DEFAULT};
	struct ctl_list operands = {.count = 0};
	const struct ctl_option options[] = {{"name", CTL_OPTION_LIST, &make.names, 0, 0, true},
		{"subject", CTL_OPTION_TEXT, &make.subject, 0, 0, false},
		{"key-type", CTL_OPTION_TEXT, &make.key_type, 0, 0, false},
		{"days", CTL_OPTION_NUMBER, &make.days, 1, DAYS_MAX, false},
		{"services", CTL_OPTION_TEXT, &make.services, 0, 0, false}, {.name = NULL}};
	int status = CTL_USAGE;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 0, 0) < 0 ||
		cert_services_check(make.services) != CTL_OK)
		return CTL_USAGE;
	if (make_create(&make) == 0)
		status = self_signed_finish(&make, ctl);
	make_drop(&make);
	return status;
}
