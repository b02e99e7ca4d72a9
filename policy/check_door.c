/* SPDX-License-Identifier: Apache-2.0 */

/*
 * check_door.c: who decides which addresses may connect, and what that needs.
 */

#include "policy/check.h"
#include "policy/ip_list.h"
#include <grp.h>
#include <net/if.h>
#include <string.h>

/* As many as the kernel's program is loaded for. */
#define SHIELD_MAX 8

static const char door_form[] = "sk_lookup, or sk_lookup+xdp:INTERFACE,INTERFACE";

static void check_absolute(struct config *config, unsigned s, const char *keyword, const char *path)
{
	if (path != NULL && path[0] != '/' && check_is_sound(config, s, keyword))
		config_mistake(config, config_line(config, s, keyword),
			"%s is \"%s\", expected a path that starts with \"/\"", keyword, path);
}

/* One interface behind "xdp:". */
static void check_shield(struct config *config, unsigned line, const char *text, size_t len)
{
	struct policy *policy = &config->owner->policy;
	char *name = NULL;

	if (len == 0 || len >= IF_NAMESIZE || memchr(text, '/', len) != NULL) {
		config_mistake(config, line,
			"door has an interface \"%.*s\", expected a name of 1 to %d bytes",
			(int)len, text, IF_NAMESIZE - 1);
		return;
	}
	for (unsigned i = 0; i < policy->shield_interface_count; i++)
		if (strncmp(policy->shield_interfaces[i], text, len) == 0 &&
			policy->shield_interfaces[i][len] == '\0') {
			config_mistake(config, line,
				"door has the interface \"%.*s\" twice, expected each once",
				(int)len, text);
			return;
		}
	if (policy->shield_interface_count == SHIELD_MAX) {
		config_mistake(config, line, "door has more than %d interfaces, expected fewer",
			SHIELD_MAX);
		return;
	}
	name = config_alloc(config, len + 1, 1);
	if (name == NULL)
		return;
	memcpy(name, text, len);
	policy->shield_interfaces[policy->shield_interface_count++] = name;
	if (if_nametoindex(name) == 0)
		config_warn(config, line,
			"door has the interface \"%s\", which this machine does not have now, "
			"expected one of \"ip link\"",
			name);
}

static void check_door_text(struct config *config, unsigned s)
{
	static const char plain[] = "sk_lookup", shield[] = "+xdp:";
	struct policy *policy = &config->owner->policy;
	const unsigned line = config_line(config, s, "door");
	const char *text = policy->door;

	if (!check_is_sound(config, s, "door") || text == NULL || strcmp(text, plain) == 0)
		return;
	if (strncmp(text, plain, strlen(plain)) != 0 ||
		strncmp(text + strlen(plain), shield, strlen(shield)) != 0) {
		config_mistake(config, line, "door is \"%s\", expected %s", text, door_form);
		return;
	}
	if (policy->bpf == BPF_OFF && check_is_sound(config, s, "bpf"))
		config_mistake(config, line,
			"door has xdp with bpf = off, which loads no program, expected bpf = auto "
			"or required");
	policy->shield_interfaces =
		config_alloc(config, SHIELD_MAX, sizeof(*policy->shield_interfaces));
	text += strlen(plain) + strlen(shield);
	while (policy->shield_interfaces != NULL) {
		const size_t len = strcspn(text, ",");

		check_shield(config, line, text, len);
		if (text[len] == '\0')
			break;
		text += len + 1;
	}
}

void check_door(struct config *config, unsigned s)
{
	const struct policy *policy = &config->owner->policy;

	check_door_text(config, s);
	check_absolute(config, s, "bpf-pin-folder", policy->bpf_pin_folder);
	check_absolute(config, s, "control-socket", policy->control_socket);
	if (policy->control_group == NULL)
		return;
	if (policy->control_socket == NULL && !check_is_set(config, s, "control-socket"))
		config_mistake(config, config_line(config, s, "control-group"),
			"control-group without a socket to use, expected control-socket = PATH");
	if (getgrnam(policy->control_group) == NULL)
		config_mistake(config, config_line(config, s, "control-group"),
			"control-group is \"%s\", which this machine does not know, expected a "
			"group name",
			policy->control_group);
}

/* ---- partners of a connector */

/* Has transport the keyword, right or wrong? */
static bool transport_has(const struct config *config, const char *keyword)
{
	for (unsigned s = 0; s < config->section_count; s++)
		if (config->sections[s].kind == SECTION_TRANSPORT &&
			check_is_set(config, s, keyword))
			return true;
	return false;
}

static void check_list_name(struct config *config, unsigned line, const struct partner *partner)
{
	if (!ip_list_name_is_valid(partner->name))
		config_mistake(config, partner->line,
			"partner \"%s\" cannot have a list of addresses (line %u): its name would "
			"be that of a file, expected at most 127 bytes, without \"/\" and without "
			"a dot in front",
			partner->name, line);
}

static void check_partner_name(struct config *config, unsigned line, const char *name)
{
	const struct policy *policy = &config->owner->policy;
	const struct partner *partner = policy_partner(policy, name);

	if (strcmp(name, "*") == 0) {
		for (unsigned p = 0; p < policy->partner_count; p++)
			check_list_name(config, line, &policy->partners[p]);
		return;
	}
	if (partner != NULL)
		check_list_name(config, line, partner);
	else
		config_mistake(config, line,
			"remote-ip-partners has \"%s\", expected the name of a partner section, "
			"or \"*\" for all",
			name);
}

void check_remote_partners(
	struct config *config, unsigned s, const struct receive_connector *connector)
{
	static const char keyword[] = "remote-ip-partners";

	if (connector->remote_ip_partner_count == 0)
		return;
	if (!transport_has(config, "partner-lists"))
		config_mistake(config, config_line(config, s, keyword),
			"remote-ip-partners without a place for their lists, expected "
			"partner-lists = FOLDER in transport");
	for (unsigned i = 0; i < connector->remote_ip_partner_count; i++) {
		const char *name = connector->remote_ip_partners[i];
		const unsigned line = check_element_line(config, s, keyword, i);

		check_partner_name(config, line, name);
		for (unsigned j = 0; j < connector->remote_ip_partner_count; j++) {
			const char *other = connector->remote_ip_partners[j];

			if (j < i && strcmp(name, other) == 0)
				config_mistake(config, line,
					"remote-ip-partners has \"%s\" twice, expected each once",
					name);
			else if (strcmp(name, "*") != 0 && strcmp(other, "*") == 0)
				config_mistake(config, line,
					"remote-ip-partners has \"%s\" beside \"*\", which is all "
					"of them, expected one or the other",
					name);
		}
	}
}
