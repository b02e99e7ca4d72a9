/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * cert.h: what the files of "posternctl cert" share.
 *
 *   cert.c          the table, and the words that all commands use
 *   cert_read.c     files of any format into certificates and keys
 *   cert_facts.c    what a certificate says, as text
 *   cert_store.c    the folder: lock, write, remove (relay/pki/store.h has the layout)
 *   cert_entries.c  what is in it
 *   cert_subject.c  names and subjects for new certificates
 *   cert_make.c     request, self-signed
 *   cert_import.c   import
 *   cert_list.c     list, show, enable, disable, remove, export
 *   cert_which.c    which
 *   cert_verify.c   verify
 *
 * Nothing here runs in the relay. A message that was printed is the end of the error path:
 * functions that return -EINVAL have said why.
 */

#include "policy/names.h"
#include "policy/policy.h"
#include "relay/ctl/ctl.h"
#include <limits.h>
#include <sys/types.h>
#include <time.h>

struct bio_st;
struct evp_pkey_st;
struct stack_st_GENERAL_NAME;
struct stack_st_X509;
struct x509_st;
struct X509_name_st;
struct X509_req_st;

/* ---- files */

/* What a file, or a folder of the store, holds. */
struct cert_bundle {
	struct stack_st_X509 *certificates;
	struct evp_pkey_st *key; /* NULL: none */
};

/*
 * Adds what is in file: PEM, DER, PKCS#7, PKCS#12, told apart by content. password: of its key
 * or of the PKCS#12, may be NULL. -EINVAL after a message that names the file.
 */
NODISCARD int cert_bundle_read(const char *file, const char *password, struct cert_bundle *bundle);
void cert_bundle_drop(struct cert_bundle *bundle);

/* The first line of a file, which posternctl keeps until it ends. -EINVAL after a message. */
NODISCARD int cert_password_read(const char *file, const char **out);

/* The whole file, in memory that BIO_free() gives back; NULL after a message. */
struct bio_st *cert_file_read(const char *file);

enum cert_chain_state {
	CERT_CHAIN_OK,
	CERT_CHAIN_DAMAGED,     /* not PEM, or no certificate in it; said so */
	CERT_CHAIN_UNDECODABLE, /* a peer could show it, and no peer with it is accepted */
};

/* All certificates of a PEM file, or the one of a DER file, in order. */
enum cert_chain_state cert_chain_read(const char *file, struct stack_st_X509 *out);

/* What OpenSSL said last, for a message; clears its queue. */
const char *cert_openssl_reason(void);

/* ---- facts */

#define CERT_THUMBPRINT_BYTES 41 /* SHA-1 in lower-case hex */
#define CERT_TEXT_BYTES 512

struct cert_facts {
	char thumbprint[CERT_THUMBPRINT_BYTES];
	char subject[CERT_TEXT_BYTES]; /* RFC 2253 */
	char issuer[CERT_TEXT_BYTES];
	char serial[64];
	char names[4096]; /* dNSNames with ", " between */
	char key_type[32];
	char pin_hex[65];
	char pin_base64[60]; /* "sha256//..." */
	int key_bits;
	int64_t not_before, not_after;
	bool is_self_signed;
};

void cert_facts_read(struct x509_st *certificate, struct cert_facts *out);
void cert_facts_read_request(struct X509_req_st *request, struct cert_facts *out);

/* SHA-1 of a key's SubjectPublicKeyInfo: the name of a request. */
void cert_key_thumbprint(struct evp_pkey_st *key, char out[static CERT_THUMBPRINT_BYTES]);

/* "2026-11-21T10:00:00Z"; of 0 too. */
#define CERT_TIME_BYTES 32
const char *cert_time_print(int64_t seconds, char out[static CERT_TIME_BYTES]);

/* Why a key or a signature is below what the relay takes (security level 2), or NULL. */
const char *cert_why_weak(struct x509_st *certificate);
const char *cert_why_weak_key(struct evp_pkey_st *key);

/* ---- the store */

struct cert_store {
	char folder[PATH_MAX];
	int fd;         /* the folder; locked as long as it is open, -1: there is no folder */
	bool has_owner; /* what is written is given to the user that the relay runs as */
	uid_t uid;
	gid_t gid;
};

enum cert_store_use { CERT_STORE_READ, CERT_STORE_WRITE };

/*
 * The folder of --store or of the configuration. WRITE makes it if it is missing, and waits for
 * its lock; READ waits for writers. CTL_OK, or CTL_FAILED or CTL_USAGE after a message.
 */
NODISCARD int cert_store_open(struct ctl *ctl, enum cert_store_use use, struct cert_store *store);
void cert_store_close(struct cert_store *store);

/* A certificate of ours, or a request for one. */
struct cert_entry {
	char id[CERT_THUMBPRINT_BYTES]; /* of the folder; "" for a section of the configuration */
	struct certificate certificate; /* name, files; strings belong to the entry */
	char *request_file;             /* NULL: it is no request */
	struct cert_bundle bundle;      /* leaf first; no certificates: it cannot be read */
	struct cert_facts facts;
	bool has_key;
};

struct cert_list {
	struct cert_entry *entries;
	unsigned count;
	struct policy *policy; /* owns the sections' strings; may be NULL */
};

/*
 * Everything in the store, by name, then the certificate sections of the configuration, if there
 * is one without mistakes and no --store. Broken entries are listed too. -ENOMEM.
 */
NODISCARD int cert_list_create(
	const struct ctl *ctl, const struct cert_store *store, struct cert_list *out);
void cert_list_destroy(struct cert_list *list);

/* By section name, thumbprint or its beginning (6 digits), or a name in it; NULL after a message.
 */
const struct cert_entry *cert_list_find(const struct cert_list *list, const char *name);

/* The status, in the words of relay/pki/store.h; out_why may be NULL. */
const char *cert_entry_status(const struct cert_entry *entry, time_t now, const char **out_why);

/* "....S" or ".....", as Exchange prints services. */
const char *cert_entry_services(const struct cert_entry *entry);

#define CERT_FILES_MAX 4

struct cert_file {
	const char *name;       /* "key.pem" */
	struct bio_st *content; /* memory; NULL ends the list */
};

/*
 * Writes an entry: all of it or nothing. One that is there keeps its other files, and each of
 * the new ones replaces the old at once. -errno after a message.
 */
NODISCARD int cert_store_put(
	const struct cert_store *store, const char *id, const struct cert_file *files);
NODISCARD int cert_store_remove(const struct cert_store *store, const char *id);

/* Is it enabled for SMTP? -errno after a message. */
NODISCARD int cert_store_enable(const struct cert_store *store, const char *id, bool is_enabled);

/* Writes content beside file and renames it; "-" or NULL is standard output. -errno, said. */
NODISCARD int cert_file_write(const char *file, struct bio_st *content, unsigned mode);

/* "smtp" is the only service there is. CTL_OK, or CTL_USAGE after a message. */
NODISCARD int cert_services_check(const char *text);

/* One line of the table that list, import, request and self-signed print. */
void cert_table_init(struct ctl_table *table);
void cert_table_create_row(
	struct ctl_table *table, const struct cert_facts *facts, const char *services);

/* ---- names */

/* A domain name, "*." allowed in front, as domain_normalize() does it; -EINVAL, said. */
NODISCARD int cert_name_normalize(
	const char *text, size_t len, char out[static DOMAIN_BYTES_MAX + 2]);

/* dNSNames of texts with commas between; each once. -EINVAL, said; -ENOMEM. */
NODISCARD int cert_names_create(const struct ctl_list *list, struct stack_st_GENERAL_NAME *names);

/* "C=..,O=..,CN=.." within the limits of EXCHANGE 5.3; CN is name if there is none. */
NODISCARD int cert_subject_set(const char *text, const char *name, struct X509_name_st *out);

/* ---- commands */

int cert_request_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv);
int cert_self_signed_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv);
int cert_import_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv);
int cert_list_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv);
int cert_show_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv);
int cert_which_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv);
int cert_enable_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv);
int cert_disable_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv);
int cert_remove_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv);
int cert_export_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv);
int cert_verify_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv);
