/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/log.h"
#include "relay/doorman_private.h"
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

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

void doorman_audit(
	const struct doorman_request *request, const struct doorman_result *result, int rc)
{
	static const char *const verbs[] = {
		[DOORMAN_ADD] = "add",
		[DOORMAN_REMOVE] = "remove",
		[DOORMAN_REPLACE] = "replace",
	};
	char partner[NAME_BYTES_MAX];
	char why[KERNEL_DOOR_WHY_BYTES];

	log_event(rc == 0 ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING, NULL, "partner-ip",
		"%s partner=%s verb=%s%s added=%zu removed=%zu kept=%zu before=%lu generation=%lu "
		"effect-us=%lu sessions-ended=%lu result=%s why=%s",
		request->who, log_quote_text(request->partner, partner, sizeof(partner)),
		verbs[request->verb], request->dry_run ? " dry-run=yes" : "", result->diff.added,
		result->diff.removed, result->diff.kept, (unsigned long)result->generation_before,
		(unsigned long)result->generation, (unsigned long)result->effect_us,
		(unsigned long)result->sessions_ended, rc == 0 ? "ok" : "failed",
		log_quote_text(rc == 0 ? NULL : result->why, why, sizeof(why)));
}
