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
	unsigned host;          /* whose address is tried or used */
	unsigned hosts_version; /* of the list that host is an index of */
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

/* It has work, or ends: off both lists. */
void nexthop_unidle(struct nexthop_client *own);

void nexthop_log_end(const struct nexthop_client *own, const char *why);

/* If somebody waits for a client, and there is one, the first of them is served next. */
void outlet_wake(struct outlet *outlet);
