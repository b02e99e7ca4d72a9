/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/cert.h"

#include <string.h>

/*
 * cert.c: the table of "posternctl cert".
 */

static const char *const columns[] = {"Thumbprint", "Services", "Subject"};

const struct ctl_command ctl_cert_commands[] = {
	{"cert request",
		"--name FQDN[,FQDN...] [--subject \"C=..,O=..,CN=..\"]\n"
		"[--key-type ec|rsa] [--out FILE]",
		"make a key and a request for a certificate (PKCS#10)", cert_request_run},
	{"cert self-signed",
		"--name FQDN[,FQDN...] [--subject DN] [--key-type ec|rsa]\n"
		"[--days N] [--services smtp]",
		"make a key and a certificate that is signed by itself", cert_self_signed_run},
	{"cert import", "FILE [--key FILE] [--password-file FILE] [--replace]",
		"take a certificate, its chain and key (PEM, DER, PKCS#7, PKCS#12)",
		cert_import_run},
	{"cert list", "", "list the certificates and pending requests", cert_list_run},
	{"cert show", "NAME", "print all that is known of one", cert_show_run},
	{"cert which", "FQDN", "which one a connector with this fqdn shows, and why",
		cert_which_run},
	{"cert enable", "NAME --services smtp", "let connectors choose it by their fqdn",
		cert_enable_run},
	{"cert disable", "NAME", "undo that", cert_disable_run},
	{"cert remove", "NAME", "delete it and its key", cert_remove_run},
	{"cert export", "NAME [--out FILE] [--with-key --password-file FILE]",
		"write it as PEM, or with its key as PKCS#12", cert_export_run},
	{"cert verify",
		"--chain FILE --anchors FILE --purpose client|server [--name N]\n"
		"[--time T] [--crl FILE]... [--depth N]\n"
		"[--revocation off|soft|hard|strict] [--pin P]...",
		"judge the certificate of a peer as the relay does", cert_verify_run},
	{NULL, NULL, NULL, NULL},
};

int cert_services_check(const char *text)
{
	if (text == NULL || strcasecmp(text, "smtp") == 0)
		return CTL_OK;
	ctl_error("--services %s: expected smtp", text);
	return CTL_USAGE;
}

void cert_table_init(struct ctl_table *table)
{
	ctl_table_init(table, columns, COUNT_OF(columns));
}

void cert_table_create_row(
	struct ctl_table *table, const struct cert_facts *facts, const char *services)
{
	ctl_table_create_row(
		table, (const char *const[]){facts->thumbprint, services, facts->subject});
}
