/* SPDX-License-Identifier: Apache-2.0 */

/*
 * store.c: the folder certificate-store, as relay/pki/store.h describes it, into
 * certificates of the snapshot. What is in the files is not looked at here.
 */

#include "policy/config.h"
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* FOLDER/NAME/FILE in memory of the snapshot; NULL: no memory. */
static const char *store_path(
	struct config *config, const char *folder, const char *name, const char *file)
{
	const size_t bytes = strlen(folder) + strlen(name) + strlen(file) + 3;
	char *path = config_alloc(config, bytes, 1);

	if (path != NULL)
		(void)snprintf(path, bytes, "%s/%s/%s", folder, name, file);
	return path;
}

static int store_is_name(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

/* One folder of the store; false: it has no certificate, as a request that is not answered. */
static bool store_read(
	struct config *config, const char *folder, const char *name, struct certificate *out)
{
	const char *enabled = store_path(config, folder, name, "enabled");

	out->chain = store_path(config, folder, name, "chain.pem");
	out->key = store_path(config, folder, name, "key.pem");
	out->name = config_strdup(config, name);
	if (config->out_of_memory || access(out->chain, F_OK) < 0 || access(out->key, F_OK) < 0)
		return false;
	out->is_enabled = access(enabled, F_OK) == 0;
	return true;
}

/* What is worth a word at the line of certificate-store. */
static void store_check(struct config *config, unsigned line, const struct certificate *found)
{
	struct stat status = {0};

	if (stat(found->key, &status) == 0 && (status.st_mode & S_IROTH) != 0)
		config_warn(config, line,
			"key \"%s\" can be read by everybody on this machine, expected mode 0600",
			found->key);
	for (unsigned s = 0; s < config->section_count; s++)
		if (config->sections[s].kind == SECTION_CERTIFICATE &&
			strcmp(config->sections[s].name, found->name) == 0)
			config_warn(config, line,
				"certificate \"%s\" is in the store and a section (line %u), "
				"which is the one that the name means",
				found->name, config->sections[s].line);
}

void store_load(struct config *config, unsigned line)
{
	struct policy *policy = &config->owner->policy;
	const char *folder = policy->certificate_store;
	const unsigned sections = policy->certificate_count;
	struct dirent **entries = NULL;
	const int count = folder == NULL ? 0 : scandir(folder, &entries, store_is_name, alphasort);

	if (count < 0 && errno != ENOMEM)
		config_mistake(config, line,
			"certificate-store is \"%s\", which cannot be read (%s), expected a folder",
			folder, strerror(errno));
	else if (count < 0)
		config->out_of_memory = true;
	policy->certificates = config_alloc(
		config, sections + (count < 0 ? 0 : (size_t)count), sizeof(*policy->certificates));
	for (int i = 0; i < count; i++) {
		struct certificate found = {0};

		if (!config->out_of_memory &&
			store_read(config, folder, entries[i]->d_name, &found)) {
			store_check(config, line, &found);
			policy->certificates[policy->certificate_count++] = found;
		}
		free(entries[i]);
	}
	free(entries);
}
