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

void doorman_look_at_file(const char *path, struct doorman_file *out)
{
	struct stat stat_now;

	*out = (struct doorman_file){0};
	if (stat(path, &stat_now) < 0)
		return;
	*out = (struct doorman_file){.exists = true,
		.device = stat_now.st_dev,
		.inode = stat_now.st_ino,
		.size = stat_now.st_size,
		.modified = stat_now.st_mtim};
}

bool doorman_file_is_same(const struct doorman_file *a, const struct doorman_file *b)
{
	return a->exists == b->exists && a->device == b->device && a->inode == b->inode &&
	       a->size == b->size && a->modified.tv_sec == b->modified.tv_sec &&
	       a->modified.tv_nsec == b->modified.tv_nsec;
}

int doorman_create_files(const struct world *world, struct doorman_file **out)
{
	const struct policy *policy = world->policy;
	struct doorman_file *files = calloc(policy->partner_count + 1, sizeof(*files));
	char path[PATH_MAX];

	if (files == NULL)
		return -ENOMEM;
	for (unsigned i = 0; policy->partner_lists != NULL && i < policy->partner_count; i++)
		if (ip_list_path(
			    policy->partner_lists, policy->partners[i].name, path, sizeof(path)))
			doorman_look_at_file(path, &files[i]);
	*out = files;
	return 0;
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
