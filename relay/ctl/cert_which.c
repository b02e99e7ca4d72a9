/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/cert.h"

#include "relay/pki/store.h"
#include <errno.h>
#include <string.h>
#include <time.h>

/* The same list twice: as the store has it, and as the relay's own selection wants it. */
struct which {
	char fqdn[DOMAIN_BYTES_MAX];
	time_t now;
	struct cert_list list;
	struct own_certificate *own; /* one for each entry; facts NULL: it cannot be read */
	bool *is_told;
	const struct own_certificate *choice;
	struct ctl_table table;
};

static int which_create(struct which *which)
{
	char error[512];

	which->own = calloc(which->list.count + 1, sizeof(*which->own));
	which->is_told = calloc(which->list.count + 1, sizeof(*which->is_told));
	if (which->own == NULL || which->is_told == NULL)
		return -ENOMEM;
	for (unsigned i = 0; i < which->list.count; i++) {
		const struct cert_entry *entry = &which->list.entries[i];

		if (entry->request_file != NULL ||
			own_certificate_load(
				&entry->certificate, &which->own[i], error, sizeof(error)) < 0)
			which->own[i] = (struct own_certificate){0};
	}
	return 0;
}

static void which_drop(struct which *which)
{
	for (unsigned i = 0; which->own != NULL && i < which->list.count; i++)
		if (which->own[i].facts != NULL)
			own_certificate_drop(&which->own[i]);
	free(which->own);
	free(which->is_told);
	cert_list_destroy(&which->list);
}

static bool own_has_name(const struct own_certificate *own, const char *fqdn)
{
	const struct certificate_names *names = &own->facts->names;
	const struct certificate_names common = {
		.dns = names->common, .dns_count = names->common_count};

	return names_have(names, fqdn) || names_have(&common, fqdn);
}

/* What keeps it from being chosen at all, or NULL. */
static const char *which_why_never(const struct which *which, unsigned i)
{
	const struct cert_entry *entry = &which->list.entries[i];
	const struct own_certificate *own = &which->own[i];

	if (entry->request_file != NULL)
		return "a request that is not answered yet";
	if (own->facts == NULL)
		return "the certificate cannot be read";
	if (!own_has_name(own, which->fqdn))
		return "the name is not in it";
	if (!own->has_key)
		return "its private key is missing, or of another certificate";
	if (!own->certificate->is_enabled)
		return "not enabled for smtp";
	return own->is_v3 ? NULL : "no X.509 version 3";
}

static const char *why_not_now(const struct own_certificate *own, time_t now)
{
	if (own->facts->not_after <= now)
		return "expired";
	return own->facts->not_before > now ? "not valid yet" : NULL;
}

/* Why the choice is before it: the first rule in which they differ. */
static const char *which_why_behind(const struct which *which, const struct own_certificate *own)
{
	const struct own_certificate *choice = which->choice;
	const char *why = why_not_now(own, which->now);

	if (why != NULL && why_not_now(choice, which->now) == NULL)
		return why;
	if (own->is_self_signed && !choice->is_self_signed)
		return "self-signed, and the choice is of an authority";
	if (own->facts->not_before != choice->facts->not_before)
		return "older than the choice";
	return "as new as the choice, whose name is lower";
}

static void which_row(struct which *which, unsigned i, const char *result, const char *why)
{
	const struct cert_entry *entry = &which->list.entries[i];
	char from[CERT_TIME_BYTES] = "";

	if (which->own[i].facts != NULL)
		(void)cert_time_print(entry->facts.not_before, from);
	ctl_table_create_row(&which->table,
		(const char *const[]){result,
			entry->id[0] != '\0' ? entry->id : entry->certificate.name,
			cert_entry_services(entry), from, entry->facts.subject, why});
	which->is_told[i] = true;
}

/* The order of choice: the relay's selection again and again, without those that it chose. */
static int which_create_ranks(struct which *which)
{
	struct own_certificate *left = calloc(which->list.count + 1, sizeof(*left));
	const struct own_certificate *next;

	if (left == NULL)
		return -ENOMEM;
	memcpy(left, which->own, which->list.count * sizeof(*left));
	while ((next = own_certificate_select(left, which->list.count, which->fqdn, which->now)) !=
		NULL) {
		unsigned i = (unsigned)(next - left);

		if (which->choice == NULL) {
			which->choice = &which->own[i];
			which_row(which, i, "shown",
				why_not_now(next, which->now) != NULL ? "the best, although it is "
									"not valid now"
								      : "the best");
		} else {
			which_row(which, i, "-", which_why_behind(which, &which->own[i]));
		}
		left[i].facts = NULL;
	}
	free(left);
	for (unsigned i = 0; i < which->list.count; i++) {
		const char *why = which->is_told[i] ? NULL : which_why_never(which, i);

		if (!which->is_told[i])
			which_row(which, i, "-", why != NULL ? why : "not chosen");
	}
	return 0;
}

/* Connectors of that fqdn which name their certificate do not choose. */
static void which_note(const struct which *which)
{
	const struct policy *policy = which->list.policy;

	for (unsigned i = 0; policy != NULL && i < policy->receive_connector_count; i++) {
		const struct receive_connector *connector = &policy->receive_connectors[i];

		if (connector->tls_settings.certificate != NULL &&
			strcasecmp(connector->fqdn, which->fqdn) == 0)
			ctl_error("note: receive-connector \"%s\" has this fqdn and a certificate "
				  "of its own, %s",
				connector->name, connector->tls_settings.certificate->name);
	}
	if (which->choice == NULL)
		ctl_error("no certificate for %s: a connector with this fqdn offers no TLS",
			which->fqdn);
	else if (why_not_now(which->choice, which->now) != NULL)
		ctl_error("note: the certificate for %s is not valid now: %s", which->fqdn,
			why_not_now(which->choice, which->now));
}

static int which_run(struct which *which, const struct ctl *ctl)
{
	static const char *const columns[] = {
		"Choice", "Thumbprint", "Services", "NotBefore", "Subject", "Reason"};
	int status = CTL_FAILED;

	ctl_table_init(&which->table, columns, COUNT_OF(columns));
	if (which_create(which) < 0 || which_create_ranks(which) < 0)
		which->table.out_of_memory = true;
	if (ctl_table_finish(ctl, &which->table) == CTL_OK) {
		which_note(which);
		status = which->choice != NULL ? CTL_OK : CTL_FAILED;
	}
	return status;
}

int cert_which_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	const struct ctl_option options[] = {{.name = NULL}};
	struct which which = {.now = time(NULL)};
	struct ctl_list operands = {.count = 0};
	struct cert_store store;
	int status;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 1, 1) < 0)
		return CTL_USAGE;
	if (domain_normalize(span_of(operands.texts[0]), which.fqdn) < 0) {
		ctl_error("%s: expected a host name", operands.texts[0]);
		return CTL_USAGE;
	}
	status = cert_store_open(ctl, CERT_STORE_READ, &store);
	if (status != CTL_OK)
		return status;
	status = CTL_FAILED;
	if (peer_cache_create(0) == 0 && cert_list_create(ctl, &store, &which.list) == 0) {
		status = which_run(&which, ctl);
		which_drop(&which);
	}
	peer_cache_destroy();
	cert_store_close(&store);
	return status;
}
