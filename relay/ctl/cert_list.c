/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/cert.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <string.h>
#include <time.h>

/* OWASP's advice for PBKDF2 with SHA-256, and what openssl pkcs12 can still read quickly. */
#define PKCS12_ITERATIONS 600000

/* A command on one entry of the store. */
struct list_job {
	struct cert_store store;
	struct cert_list list;
	const struct cert_entry *entry;
};

static int job_open(struct list_job *job, struct ctl *ctl, enum cert_store_use use)
{
	int status = cert_store_open(ctl, use, &job->store);

	job->entry = NULL;
	if (status != CTL_OK || cert_list_create(ctl, &job->store, &job->list) == 0)
		return status;
	cert_store_close(&job->store);
	return CTL_FAILED;
}

static void job_close(struct list_job *job)
{
	cert_list_destroy(&job->list);
	cert_store_close(&job->store);
}

static int job_open_entry(
	struct list_job *job, struct ctl *ctl, enum cert_store_use use, const char *name)
{
	int status = job_open(job, ctl, use);

	if (status != CTL_OK)
		return status;
	job->entry = cert_list_find(&job->list, name);
	if (job->entry != NULL)
		return CTL_OK;
	job_close(job);
	return CTL_FAILED;
}

/* Only the store's own entries can be changed here. */
static bool job_is_ours(const struct list_job *job, const struct ctl *ctl)
{
	if (job->entry->id[0] != '\0')
		return true;
	ctl_error("%s is a certificate section of %s: change it there",
		job->entry->certificate.name, ctl->config);
	return false;
}

int cert_list_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	const struct ctl_option options[] = {{.name = NULL}};
	struct ctl_list operands = {.count = 0};
	struct ctl_table table;
	struct list_job job;
	int status;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 0, 0) < 0)
		return CTL_USAGE;
	status = job_open(&job, ctl, CERT_STORE_READ);
	if (status != CTL_OK)
		return status;
	cert_table_init(&table);
	for (unsigned i = 0; i < job.list.count; i++) {
		const struct cert_entry *entry = &job.list.entries[i];
		struct cert_facts facts = entry->facts;

		if (facts.thumbprint[0] == '\0')
			(void)snprintf(facts.thumbprint, sizeof(facts.thumbprint), "%s", entry->id);
		cert_table_create_row(&table, &facts, cert_entry_services(entry));
	}
	job_close(&job);
	return ctl_table_finish(ctl, &table);
}

static void show_row(struct ctl_table *table, const char *name, const char *value)
{
	ctl_table_create_row(table, (const char *const[]){name, value});
}

static void show_dates(struct ctl_table *table, const struct cert_entry *entry)
{
	char text[CERT_TIME_BYTES];

	if (sk_X509_num(entry->bundle.certificates) <= 0)
		return;
	show_row(table, "NotAfter", cert_time_print(entry->facts.not_after, text));
	show_row(table, "NotBefore", cert_time_print(entry->facts.not_before, text));
}

static void show_fill(struct ctl_table *table, const struct cert_entry *entry)
{
	const struct cert_facts *facts = &entry->facts;
	const char *why = "";
	const char *status = cert_entry_status(entry, time(NULL), &why);
	char domains[sizeof(facts->names) + 3];
	char text[160];

	if (entry->id[0] == '\0')
		show_row(table, "Name", entry->certificate.name);
	(void)snprintf(domains, sizeof(domains), "{%s}", facts->names);
	show_row(table, "CertificateDomains", domains);
	show_row(table, "HasPrivateKey", entry->has_key ? "True" : "False");
	show_row(table, "IsSelfSigned", facts->is_self_signed ? "True" : "False");
	show_row(table, "Issuer", facts->issuer);
	show_dates(table, entry);
	(void)snprintf(text, sizeof(text), "%d (%s)", facts->key_bits, facts->key_type);
	show_row(table, "PublicKeySize", text);
	show_row(table, "SerialNumber", facts->serial);
	(void)snprintf(text, sizeof(text), "%s%s%s%s", status, *why != '\0' ? " (" : "", why,
		*why != '\0' ? ")" : "");
	show_row(table, "Status", text);
	show_row(table, "Services", entry->certificate.is_enabled ? "SMTP" : "None");
	show_row(table, "Subject", facts->subject);
	show_row(table, "Thumbprint", facts->thumbprint[0] != '\0' ? facts->thumbprint : entry->id);
	show_row(table, "PublicKeySHA256", facts->pin_hex);
	show_row(table, "Pin", facts->pin_base64);
}

int cert_show_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	static const char *const columns[] = {"Name", "Value"};
	const struct ctl_option options[] = {{.name = NULL}};
	struct ctl_list operands = {.count = 0};
	struct ctl_table table;
	struct list_job job;
	int status;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 1, 1) < 0)
		return CTL_USAGE;
	status = job_open_entry(&job, ctl, CERT_STORE_READ, operands.texts[0]);
	if (status != CTL_OK)
		return status;
	ctl_table_init(&table, columns, COUNT_OF(columns));
	show_fill(&table, job.entry);
	job_close(&job);
	return ctl_table_finish_list(ctl, &table);
}

/* Why it should not be shown to anybody, or NULL. */
static const char *entry_why_not(const struct cert_entry *entry)
{
	const char *why;
	const char *word = cert_entry_status(entry, time(NULL), &why);

	if (entry->request_file != NULL)
		return "it is a request that is not answered: posternctl cert import";
	if (strcmp(word, "Valid") == 0)
		return NULL;
	return why;
}

int cert_enable_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	const char *services = NULL;
	const struct ctl_option options[] = {
		{"services", CTL_OPTION_TEXT, &services, 0, 0, true}, {.name = NULL}};
	struct ctl_list operands = {.count = 0};
	struct list_job job;
	const char *why;
	int status;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 1, 1) < 0 ||
		cert_services_check(services) != CTL_OK)
		return CTL_USAGE;
	status = job_open_entry(&job, ctl, CERT_STORE_WRITE, operands.texts[0]);
	if (status != CTL_OK)
		return status;
	why = entry_why_not(job.entry);
	if (!job_is_ours(&job, ctl)) {
		status = CTL_FAILED;
	} else if (why != NULL) {
		ctl_error("%s: it cannot be enabled: %s", job.entry->id, why);
		status = CTL_FAILED;
	} else if (cert_store_enable(&job.store, job.entry->id, true) < 0) {
		status = CTL_FAILED;
	}
	job_close(&job);
	return status;
}

int cert_disable_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	const struct ctl_option options[] = {{.name = NULL}};
	struct ctl_list operands = {.count = 0};
	struct list_job job;
	int status;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 1, 1) < 0)
		return CTL_USAGE;
	status = job_open_entry(&job, ctl, CERT_STORE_WRITE, operands.texts[0]);
	if (status != CTL_OK)
		return status;
	if (!job_is_ours(&job, ctl) || cert_store_enable(&job.store, job.entry->id, false) < 0)
		status = CTL_FAILED;
	job_close(&job);
	return status;
}

/* Which section of the configuration names it; NULL: none. */
static const char *entry_user(const struct list_job *job)
{
	const struct policy *policy = job->list.policy;

	for (unsigned i = 0; policy != NULL && i < policy->receive_connector_count; i++) {
		const struct receive_connector *connector = &policy->receive_connectors[i];

		if (connector->tls_settings.certificate != NULL &&
			strcmp(connector->tls_settings.certificate->name, job->entry->id) == 0)
			return connector->name;
	}
	for (unsigned i = 0; policy != NULL && i < policy->send_connector_count; i++) {
		const struct send_connector *connector = &policy->send_connectors[i];

		if (connector->tls_settings.certificate != NULL &&
			strcmp(connector->tls_settings.certificate->name, job->entry->id) == 0)
			return connector->name;
	}
	return NULL;
}

int cert_remove_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	const struct ctl_option options[] = {{.name = NULL}};
	struct ctl_list operands = {.count = 0};
	struct list_job job;
	const char *user;
	int status;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 1, 1) < 0)
		return CTL_USAGE;
	status = job_open_entry(&job, ctl, CERT_STORE_WRITE, operands.texts[0]);
	if (status != CTL_OK)
		return status;
	user = entry_user(&job);
	if (!job_is_ours(&job, ctl)) {
		status = CTL_FAILED;
	} else if (user != NULL) {
		ctl_error("%s: connector \"%s\" of %s names it: change that first", job.entry->id,
			user, ctl->config);
		status = CTL_FAILED;
	} else if (cert_store_remove(&job.store, job.entry->id) < 0) {
		status = CTL_FAILED;
	}
	job_close(&job);
	return status;
}

static BIO *export_pem(const struct cert_entry *entry)
{
	BIO *bio = BIO_new(BIO_s_mem());

	for (int i = 0; bio != NULL && i < sk_X509_num(entry->bundle.certificates); i++)
		(void)PEM_write_bio_X509(bio, sk_X509_value(entry->bundle.certificates, i));
	if (entry->request_file != NULL) {
		BIO_free(bio);
		return cert_file_read(entry->request_file);
	}
	return bio;
}

static BIO *export_pkcs12(const struct cert_entry *entry, const char *password)
{
	STACK_OF(X509) *others = sk_X509_dup(entry->bundle.certificates);
	X509 *leaf = others != NULL ? sk_X509_shift(others) : NULL;
	BIO *bio = BIO_new(BIO_s_secmem());
	PKCS12 *pkcs12 = NULL;

	if (bio != NULL && leaf != NULL)
		pkcs12 = PKCS12_create(password, entry->certificate.name, entry->bundle.key, leaf,
			others, NID_undef, NID_undef, PKCS12_ITERATIONS, PKCS12_ITERATIONS, 0);
	if (pkcs12 == NULL || i2d_PKCS12_bio(bio, pkcs12) != 1) {
		BIO_free(bio);
		bio = NULL;
	}
	PKCS12_free(pkcs12);
	sk_X509_free(others);
	return bio;
}

static int export_finish(const struct cert_entry *entry, const char *out, const char *password)
{
	bool is_empty = sk_X509_num(entry->bundle.certificates) <= 0;
	BIO *bio = NULL;
	int status = CTL_FAILED;

	if ((is_empty && (entry->request_file == NULL || password != NULL)) ||
		(password != NULL && !entry->has_key))
		ctl_error("%s: there is no %s to export", entry->certificate.name,
			is_empty ? "certificate" : "private key of it");
	else
		bio = password != NULL ? export_pkcs12(entry, password) : export_pem(entry);
	if (bio != NULL && cert_file_write(out, bio, password != NULL ? 0600 : 0644) == 0)
		status = CTL_OK;
	BIO_free(bio);
	return status;
}

int cert_export_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	const char *out = NULL;
	const char *password_file = NULL;
	const char *password = NULL;
	bool with_key = false;
	const struct ctl_option options[] = {{"out", CTL_OPTION_TEXT, &out, 0, 0, false},
		{"with-key", CTL_OPTION_FLAG, &with_key, 0, 0, false},
		{"password-file", CTL_OPTION_TEXT, &password_file, 0, 0, false}, {.name = NULL}};
	struct ctl_list operands = {.count = 0};
	struct list_job job;
	int status;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 1, 1) < 0)
		return CTL_USAGE;
	if (with_key != (password_file != NULL)) {
		ctl_error("cert export: --with-key and --password-file belong together");
		return CTL_USAGE;
	}
	if (with_key && cert_password_read(password_file, &password) < 0)
		return CTL_USAGE;
	if (with_key && *password == '\0') {
		ctl_error("%s: the password is empty", password_file);
		return CTL_USAGE;
	}
	status = job_open_entry(&job, ctl, CERT_STORE_READ, operands.texts[0]);
	if (status != CTL_OK)
		return status;
	status = export_finish(job.entry, out, password);
	job_close(&job);
	return status;
}
