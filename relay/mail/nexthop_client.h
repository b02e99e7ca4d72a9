/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * nexthop_client.h: one client of an outlet, for nexthop.c and outlet.c only.
 */

#include "relay/mail/nexthop.h"

struct nexthop_client {
	struct client client;
	struct nexthop *nexthop;
	struct link in_all;
	struct link in_idle;    /* of the destination */
	struct link in_waiting; /* of the outlet: idle for how long */
	struct link in_principal;
	struct principal *principal; /* NULL: it speaks for us, or its principal has gone */
	unsigned host;               /* whose address is tried or used */
	unsigned hosts_version;      /* of the list that host is an index of */
	unsigned hosts_tried;
	bool is_opening;
	struct address address; /* copies: a lookup may change the list meanwhile */
	char name[NAME_BYTES_MAX];
	struct host_session *session; /* NULL: no place for resumption was free */
};

static inline struct nexthop_client *nexthop_client_of(struct client *client)
{
	return OWNER_OF(client, struct nexthop_client, client);
}

/* Does each of its sessions speak for one client only? */
static inline bool nexthop_is_personal(const struct nexthop *nexthop)
{
	return nexthop->outlet->connector->client_identity != CLIENT_IDENTITY_NONE;
}

/* Does somebody wait who may have it? */
static inline bool nexthop_is_wanted(const struct nexthop_client *own)
{
	if (!nexthop_is_personal(own->nexthop))
		return own->nexthop->waiting_count > 0;
	return own->principal != NULL && own->principal->waiting == own->nexthop;
}

/* principal.c */

/* It is opened for that principal. */
void principal_adopt(struct principal *principal, struct nexthop_client *own);

/* Is a session for it on its way to that destination? */
bool principal_is_opening(const struct principal *principal, const struct nexthop *nexthop);

/* Its idle session with the destination, or NULL. Sessions that said something else end here. */
struct nexthop_client *principal_find_idle(
	struct principal *principal, const struct nexthop *nexthop);

/* It has work, or ends: off both lists. */
void nexthop_unidle(struct nexthop_client *own);

/* May it carry another message? */
bool nexthop_is_reusable(const struct nexthop_client *own);

void nexthop_log_end(const struct nexthop_client *own, const char *why);

/* If somebody waits for a client, and there is one, the first of them is served next. */
void outlet_wake(struct outlet *outlet);
