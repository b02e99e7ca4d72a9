/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/hosts.h"

#include <string.h>

unsigned hosts_count(const struct hosts *hosts)
{
	unsigned count = hosts->resolve != NULL ? hosts->resolve->list.count
						: hosts->connector->smart_host_count;

	return count < hosts->max ? count : hosts->max;
}

const char *hosts_name(const struct hosts *hosts, unsigned host)
{
	const struct resolve_list *list;

	if (hosts->resolve == NULL)
		return hosts->connector->smart_host_names[host];
	list = &hosts->resolve->list;
	return list->hosts[list->host_of[host]];
}

const struct address *hosts_address(const struct hosts *hosts, unsigned host)
{
	return hosts->resolve == NULL ? &hosts->connector->smart_hosts[host]
				      : &hosts->resolve->list.addresses[host];
}

bool hosts_are_known(const struct hosts *hosts, uint64_t now_ms)
{
	return hosts->resolve == NULL ||
	       (!hosts->resolve->is_running && hosts_count(hosts) > 0 && now_ms < hosts->until_ms);
}

void hosts_ask(struct hosts *hosts, const char *domain)
{
	if (hosts->resolve->is_running)
		return;
	hosts->version++;
	resolve_mx(hosts->resolve, domain, (unsigned)hosts->connector->port);
}

void hosts_resolved(struct hosts *hosts, enum resolve_status status, uint64_t now_ms)
{
	hosts->until_ms = now_ms + (uint64_t)hosts->resolve->list.ttl_s * 1000;
	/* Nor is a list good that the next lookup fills in part, before nobody waits for it. */
	if (status != RESOLVE_OK) {
		hosts->resolve->list.count = 0;
		hosts->until_ms = 0;
	}
	memset(hosts->down_until_ms, 0, hosts->max * sizeof(hosts->down_until_ms[0]));
}

unsigned hosts_pick(const struct hosts *hosts, uint64_t now_ms)
{
	unsigned count = hosts_count(hosts);

	for (unsigned i = 0; i < count; i++) {
		if (hosts->down_until_ms[i] <= now_ms)
			return i;
	}
	return 0;
}

bool hosts_have_one_up(const struct hosts *hosts, uint64_t now_ms)
{
	const unsigned host = hosts_pick(hosts, now_ms);

	return host < hosts_count(hosts) && hosts->down_until_ms[host] <= now_ms;
}

struct host_session *hosts_session(
	struct hosts *hosts, const struct address *address, const char *name)
{
	uint64_t hash = text_hash(name);
	struct host_session *free_one = NULL;

	for (unsigned i = 0; i < hosts->session_count; i++) {
		struct host_session *at = &hosts->sessions[i];

		if (at->name_hash == hash && at->address.len == address->len &&
			memcmp(&at->address.sockaddr, &address->sockaddr, address->len) == 0) {
			at->users++;
			return at;
		}
		if (at->users == 0 && (free_one == NULL || at->session == NULL))
			free_one = at;
	}
	if (free_one == NULL)
		return NULL;
	tls_session_drop(&free_one->session);
	free_one->address = *address;
	free_one->name_hash = hash;
	free_one->users = 1;
	return free_one;
}

void host_session_leave(struct host_session **session)
{
	if (*session != NULL)
		(*session)->users--;
	*session = NULL;
}

void hosts_forget(struct hosts *hosts)
{
	for (unsigned i = 0; hosts->sessions != NULL && i < hosts->session_count; i++)
		tls_session_drop(&hosts->sessions[i].session);
}
