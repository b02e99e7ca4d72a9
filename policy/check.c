/* SPDX-License-Identifier: Apache-2.0 */

/*
 * check.c: what takes more than one keyword to see; see check.h for its parts.
 */

#include "policy/check.h"
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>

bool check_is_set(const struct config *config, unsigned section, const char *keyword)
{
	return config_next(config, section, keyword, NULL) != NULL;
}

bool check_is_sound(const struct config *config, unsigned section, const char *keyword)
{
	const struct config_value *value = NULL;

	while ((value = config_next(config, section, keyword, value)) != NULL)
		if (value->is_wrong)
			return false;
	return true;
}

unsigned check_element_line(
	const struct config *config, unsigned section, const char *keyword, unsigned index)
{
	const struct config_value *value = NULL;

	while ((value = config_next(config, section, keyword, value)) != NULL)
		if (!value->is_wrong && index-- == 0)
			return value->line;
	return config->sections[section].line;
}

static void check_certificate(
	struct config *config, unsigned s, const struct certificate *certificate)
{
	struct stat status = {0};

	if (certificate->key == NULL || stat(certificate->key, &status) < 0 ||
		!S_ISREG(status.st_mode))
		return;
	if (status.st_mode & S_IROTH)
		config_warn(config, config_line(config, s, "key"),
			"key \"%s\" can be read by everybody on this machine, expected mode 0600 "
			"or 0640",
			certificate->key);
}

static void check_transport(struct config *config, unsigned s, const struct policy *policy)
{
	check_door(config, s);
	check_queue(config, s);
	if (policy->user != NULL && getpwnam(policy->user) == NULL)
		config_mistake(config, config_line(config, s, "user"),
			"user is \"%s\", which this machine does not know, expected a user name",
			policy->user);
	if (policy->protocol_log_max_file_bytes > policy->protocol_log_max_directory_bytes &&
		check_is_sound(config, s, "protocol-log-max-file-size") &&
		check_is_sound(config, s, "protocol-log-max-directory-size"))
		config_mistake(config, config_line(config, s, "protocol-log-max-file-size"),
			"protocol-log-max-file-size (default 10MB) is above "
			"protocol-log-max-directory-size (default 250MB), expected at most that");
}

/* At least one door is open. */
static void check_receive_connectors(struct config *config, const struct policy *policy)
{
	if (policy->receive_connector_count == 0)
		config_mistake(config, 1,
			"no receive-connector, expected at least one receive-connector \"NAME\" "
			"{...}");
	for (unsigned i = 0; i < policy->receive_connector_count; i++)
		if (policy->receive_connectors[i].enabled)
			return;
	if (policy->receive_connector_count > 0)
		config_mistake(config, policy->receive_connectors[0].line,
			"no receive-connector is enabled, expected at least one");
}

void check_policy(struct config *config)
{
	struct policy *policy = &config->owner->policy;

	check_receive_connectors(config, policy);
	for (unsigned s = 0; s < config->section_count; s++) {
		const unsigned index = config->sections[s].index;

		switch (config->sections[s].kind) {
		case SECTION_TRANSPORT:
			check_transport(config, s, policy);
			break;
		case SECTION_CERTIFICATE:
			check_certificate(config, s, &policy->certificates[index]);
			break;
		case SECTION_RECEIVE:
			check_receive(config, s, &policy->receive_connectors[index]);
			break;
		case SECTION_SEND:
			check_send(config, s, &policy->send_connectors[index]);
			break;
		case SECTION_PARTNER:
		case SECTION_INTERNAL:
			break;
		case SECTION_NONE:
			UNREACHABLE();
		}
	}
	check_partners(config);
	check_bindings(config);
	check_loops(config);
}
