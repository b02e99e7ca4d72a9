/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * hosts.h: where a destination is: the smart hosts of its connector, or what DNS says of its
 * domain; which of them failed lately; and TLS sessions to resume, by host.
 */

#include "relay/net/resolve.h"
#include "relay/net/tls.h"

/* A session with that host. A place stays where it is while somebody uses it. */
struct host_session {
	struct address address;
	uint64_t name_hash;
	unsigned users; /* clients that may write to the slot */
	struct ssl_session_st *session;
};

struct hosts {
	const struct send_connector *connector;
	struct resolve *resolve; /* NULL: the connector's smart hosts */
	uint64_t until_ms;       /* what was looked up is good until then */
	unsigned version;        /* goes up when the list changes */
	unsigned max;            /* length of down_until_ms; hosts beyond are not used */
	uint64_t *down_until_ms; /* for each host: failed lately, passed over until then */
	unsigned session_count;  /* length of sessions */
	struct host_session *sessions;
};

unsigned hosts_count(const struct hosts *hosts);
const char *hosts_name(const struct hosts *hosts, unsigned host);
const struct address *hosts_address(const struct hosts *hosts, unsigned host);

/* Is it known where to connect? */
bool hosts_are_known(const struct hosts *hosts, uint64_t now_ms);

/* Looks them up, if that is not being done. The list is in change until hosts_resolved(). */
void hosts_ask(struct hosts *hosts, const char *domain);
void hosts_resolved(struct hosts *hosts, enum resolve_status status, uint64_t now_ms);

/* The host to try: the first that is not down, or simply the first, if all are. */
unsigned hosts_pick(const struct hosts *hosts, uint64_t now_ms);

/* Is there one that is not down? */
bool hosts_have_one_up(const struct hosts *hosts, uint64_t now_ms);

/* The place where a session with that host is kept, for one more user; NULL: all are in use. */
struct host_session *hosts_session(
	struct hosts *hosts, const struct address *address, const char *name);

/* One user less; clears the pointer, which may be NULL. */
void host_session_leave(struct host_session **session);

/* Drops all sessions. */
void hosts_forget(struct hosts *hosts);
