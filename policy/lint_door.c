/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/ip_list.h"
#include "policy/lint_private.h"
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * lint_door.c: addresses that may connect, and those that may speak for others.
 */

static bool is_open(const struct receive_connector *connector)
{
	return connector->remote_ip_range_count == 0 && connector->remote_ip_partner_count == 0;
}

static bool names_all(const struct receive_connector *connector)
{
	return connector->remote_ip_partner_count > 0 &&
	       strcmp(connector->remote_ip_partners[0], "*") == 0;
}

/* Whoever connects could say that it is anybody. */
static void lint_announcers(struct lint *lint, const struct receive_connector *connector,
	const char *keyword, const struct ip_range *ranges, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		const struct prefix all = {.ip.is_v6 = ranges[i].first.is_v6};
		const struct ip_range whole = prefix_range(&all);

		if (ranges[i].zone == 0 && ip_range_holds(&ranges[i], &whole))
			lint_find(lint, connector->line,
				"receive-connector \"%s\": by its %s everybody may announce any "
				"address, so nothing is known of clients; set it to the addresses "
				"of those in front of us",
				connector->name, keyword);
	}
}

/* A front end is a peer like others, and has to come in before it can announce anybody. */
static void lint_front_ends(struct lint *lint, const struct receive_connector *connector)
{
	char text[IP_RANGE_TEXT_BYTES];

	if (is_open(connector) || connector->remote_ip_partner_count > 0)
		return;
	for (unsigned i = 0; i < connector->xclient_host_count; i++) {
		const struct ip_range *host = &connector->xclient_hosts[i];
		bool is_served = false;

		for (unsigned j = 0; j < connector->remote_ip_range_count; j++)
			is_served = is_served ||
				    ip_range_overlaps(&connector->remote_ip_ranges[j], host);
		if (!is_served)
			lint_find(lint, connector->line,
				"receive-connector \"%s\": %s is one of xclient-hosts, and none of "
				"its remote-ip-ranges has it, so it is not served here; add it to "
				"them, or remove it",
				connector->name, ip_range_print(host, text));
	}
}

void lint_receive_door(struct lint *lint, const struct receive_connector *connector)
{
	const struct policy *policy = lint->policy;

	if (is_open(connector) && (connector->type == CONNECTOR_PARTNER ||
					  connector->permission_groups == PERMISSION_PARTNERS))
		lint_find(lint, connector->line,
			"receive-connector \"%s\": for a partner, but open to all addresses; set "
			"remote-ip-ranges to those that the partner sends from, or "
			"remote-ip-partners to its name",
			connector->name);
	if (names_all(connector) && policy->partner_count == 0)
		lint_find(lint, connector->line,
			"receive-connector \"%s\": remote-ip-partners is all partners, and there "
			"is "
			"none; add partner \"NAME\" {...}, or remove it",
			connector->name);
	if (connector->remote_ip_partner_count > 0 && policy->control_socket == NULL)
		lint_find(lint, connector->line,
			"receive-connector \"%s\": the lists of its remote-ip-partners cannot be "
			"changed while the relay runs; set control-socket = PATH in transport",
			connector->name);
	lint_announcers(lint, connector, "proxy-balancers", connector->proxy_balancers,
		connector->proxy_balancer_count);
	lint_announcers(lint, connector, "xclient-hosts", connector->xclient_hosts,
		connector->xclient_host_count);
	lint_front_ends(lint, connector);
}

/* The first enabled connector that asks for the list of the partner. */
static const struct receive_connector *find_asker(
	const struct policy *policy, const struct partner *partner)
{
	for (unsigned i = 0; i < policy->receive_connector_count; i++) {
		const struct receive_connector *connector = &policy->receive_connectors[i];

		for (unsigned j = 0; connector->enabled && j < connector->remote_ip_partner_count;
			j++)
			if (names_all(connector) ||
				strcmp(connector->remote_ip_partners[j], partner->name) == 0)
				return connector;
	}
	return NULL;
}

void lint_partner_list(struct lint *lint, const struct partner *partner)
{
	const struct policy *policy = lint->policy;
	const struct receive_connector *asker = find_asker(policy, partner);
	char path[PATH_MAX];
	bool is_there = false;

	if (policy->partner_lists == NULL || !ip_list_name_is_valid(partner->name) ||
		!ip_list_path(policy->partner_lists, partner->name, path, sizeof(path)))
		return;
	is_there = access(path, F_OK) == 0;
	if (is_there && asker == NULL)
		lint_find(lint, partner->line,
			"partner \"%s\": it has a list of addresses, %s, and no receive-connector "
			"asks for it; add its name to remote-ip-partners of one, or remove the "
			"file",
			partner->name, path);
	if (!is_there && asker != NULL)
		lint_find(lint, partner->line,
			"partner \"%s\": its list of addresses, which receive-connector \"%s\" "
			"(line "
			"%u) asks for, is empty; fill it with \"posternctl partner %s ip add\"",
			partner->name, asker->name, asker->line, partner->name);
}

/* What no user was named for, or cannot be found out, is not complained of. */
static bool may_write(const char *user, const char *path)
{
	const struct passwd *entry = user == NULL ? NULL : getpwnam(user);
	gid_t groups[64];
	int count = sizeof(groups) / sizeof(groups[0]);
	bool is_member = false;
	struct stat facts;
	unsigned bits = 0003;

	if (entry == NULL || entry->pw_uid == 0 || stat(path, &facts) < 0 ||
		getgrouplist(user, entry->pw_gid, groups, &count) < 0)
		return true;
	for (int i = 0; i < count; i++)
		is_member = is_member || groups[i] == facts.st_gid;
	if (entry->pw_uid == facts.st_uid)
		bits = 0300;
	else if (is_member)
		bits = 0030;
	return (facts.st_mode & bits) == bits;
}

void lint_list_folder(struct lint *lint)
{
	const struct policy *policy = lint->policy;

	for (unsigned i = 0; i < policy->receive_connector_count; i++) {
		const struct receive_connector *connector = &policy->receive_connectors[i];

		if (!connector->enabled || connector->remote_ip_partner_count == 0 ||
			policy->partner_lists == NULL ||
			may_write(policy->user, policy->partner_lists))
			continue;
		lint_find(lint, connector->line,
			"receive-connector \"%s\": the lists of its remote-ip-partners lie in %s, "
			"where user \"%s\" may not write, so posternctl cannot change them while "
			"the "
			"relay runs; let that folder be the user's",
			connector->name, policy->partner_lists, policy->user);
		return;
	}
}
