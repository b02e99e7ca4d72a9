/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/log.h"
#include "relay/doorman_private.h"
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * doorman_file.c: what lists were on disk when they were read or written here, so that one which
 * was changed by hand is not overwritten; and the audit line of each change.
 */

int doorman_create_files(const struct world *world, struct ip_list_file **out)
{
	const struct policy *policy = world->policy;
	struct ip_list_file *files = calloc(policy->partner_count + 1, sizeof(*files));

	if (files == NULL)
		return -ENOMEM;
	for (unsigned i = 0; i < policy->partner_count; i++)
		files[i] = *gate_partner_file(world->gate, &policy->partners[i]);
	*out = files;
	return 0;
}

bool doorman_is_behind(struct doorman *doorman)
{
	const struct policy *policy;
	bool is_behind = false;

	(void)pthread_mutex_lock(&doorman->lock);
	policy = doorman->world->policy;
	for (unsigned i = 0; policy->partner_lists != NULL && i < policy->partner_count; i++) {
		const struct partner *partner = &policy->partners[i];
		struct ip_list_file file;
		char path[PATH_MAX];
		uint64_t generation;

		if (gate_partner_set(doorman->world->gate, partner, &generation) == NULL ||
			!ip_list_path(policy->partner_lists, partner->name, path, sizeof(path)))
			continue;
		ip_list_look(path, &file);
		is_behind |= !ip_list_file_is_same(&file, &doorman->files[i]);
	}
	(void)pthread_mutex_unlock(&doorman->lock);
	return is_behind;
}

/* ---- */

/* Entries that an audit line names, and what stands for more. */
#define AUDIT_ENTRIES 5
#define AUDIT_MORE ",..."
#define AUDIT_BYTES (AUDIT_ENTRIES * (PREFIX_TEXT_BYTES + 1) + sizeof(AUDIT_MORE))

/* What was to be added or removed; "-" for a whole set, of which the list's file tells. */
static const char *audit_entries(
	const struct doorman_request *request, char out[static AUDIT_BYTES])
{
	char text[PREFIX_TEXT_BYTES + 1];
	struct cidr_walk walk;
	struct prefix prefix;
	struct door_value value;
	unsigned count = 0;
	size_t at = 0;

	if (request->verb == DOORMAN_REPLACE || request->entries == NULL ||
		cidr_count(request->entries) == 0)
		return "-";
	cidr_walk_start(&walk, request->entries);
	while (count < AUDIT_ENTRIES && cidr_walk_next(&walk, &prefix, &value))
		at += (size_t)snprintf(out + at, AUDIT_BYTES - at, "%s%s", count++ == 0 ? "" : ",",
			ip_list_print(&prefix, value, text));
	if (cidr_count(request->entries) > AUDIT_ENTRIES)
		(void)snprintf(out + at, AUDIT_BYTES - at, "%s", AUDIT_MORE);
	return out;
}

void doorman_audit(
	const struct doorman_request *request, const struct doorman_result *result, int rc)
{
	static const char *const verbs[] = {
		[DOORMAN_ADD] = "add",
		[DOORMAN_REMOVE] = "remove",
		[DOORMAN_REPLACE] = "replace",
	};
	char partner[NAME_BYTES_MAX];
	char entries[AUDIT_BYTES];
	char why[KERNEL_DOOR_WHY_BYTES];
	char plain[KERNEL_DOOR_WHY_BYTES];

	/* Lines follow one another here. */
	(void)snprintf(plain, sizeof(plain), "%s", result->why);
	for (char *byte = plain; *byte != '\0'; byte++)
		if (*byte == '\n')
			*byte = ' ';
	log_event(rc == 0 ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING, NULL, "partner-ip",
		"%s partner=%s verb=%s entries=%s%s added=%zu removed=%zu kept=%zu before=%lu "
		"generation=%lu "
		"effect-us=%lu sessions-ended=%lu result=%s why=%s",
		request->who, log_quote_text(request->partner, partner, sizeof(partner)),
		verbs[request->verb], audit_entries(request, entries),
		request->dry_run ? " dry-run=yes" : "", result->diff.added, result->diff.removed,
		result->diff.kept, (unsigned long)result->generation_before,
		(unsigned long)result->generation, (unsigned long)result->effect_us,
		(unsigned long)result->sessions_ended, rc == 0 ? "ok" : "failed",
		log_quote_text(rc == 0 ? NULL : plain, why, sizeof(why)));
}
