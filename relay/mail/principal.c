/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/nexthop_client.h"

/*
 * principal.c: sessions that speak for one client of ours, and for nobody else.
 */

void principal_init(struct principal *principal,
	void (*identify)(struct principal *principal, struct identity *out))
{
	*principal = (struct principal){.identify = identify};
	link_init(&principal->clients);
}

void principal_adopt(struct principal *principal, struct nexthop_client *own)
{
	own->principal = principal;
	list_append(&principal->clients, &own->in_principal);
	principal->identify(principal, &own->client.identity);
}

/* Nobody will ask for it any more: idle or on its way it ends now, else when it is put back. */
static void principal_let_go(struct nexthop_client *own, const char *why)
{
	link_remove(&own->in_principal);
	own->principal = NULL;
	if (!own->is_opening && !link_is_queued(&own->in_idle))
		return;
	nexthop_unidle(own);
	nexthop_log_end(own, why);
	if (own->client.state != CLIENT_QUIT)
		client_quit(&own->client);
}

void principal_end(struct principal *principal)
{
	struct link *link;
	struct link *after;

	ASSERT(principal->waiting == NULL);
	LIST_FOR_EACH (link, after, &principal->clients)
		principal_let_go(
			OWNER_OF(link, struct nexthop_client, in_principal), "client-gone");
}

bool principal_is_opening(const struct principal *principal, const struct nexthop *nexthop)
{
	struct link *link;
	struct link *after;

	LIST_FOR_EACH (link, after, &principal->clients) {
		const struct nexthop_client *own =
			OWNER_OF(link, struct nexthop_client, in_principal);

		if (own->nexthop == nexthop && own->is_opening)
			return true;
	}
	return false;
}

struct nexthop_client *principal_find_idle(
	struct principal *principal, const struct nexthop *nexthop)
{
	struct identity now;
	struct link *link;
	struct link *after;

	if (list_is_empty(&principal->clients))
		return NULL;
	principal->identify(principal, &now);
	LIST_FOR_EACH (link, after, &principal->clients) {
		struct nexthop_client *own = OWNER_OF(link, struct nexthop_client, in_principal);

		if (!identity_is_equal(&own->client.identity, &now))
			principal_let_go(own, "client-changed");
		else if (own->nexthop == nexthop && link_is_queued(&own->in_idle))
			return own;
	}
	return NULL;
}
