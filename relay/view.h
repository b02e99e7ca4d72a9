/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * view.h: what one worker makes of one world: TLS contexts and the ways out. The
 * sessions that began under it use it to their end, so after a reload a worker has the new view
 * and, for a while, old ones.
 *
 *   view_create() on any thread --> view_open() on the worker's --> view_retire() after a reload
 *   --> sessions end, next hops close --> view_is_done() --> view_destroy()
 */

#include "relay/mail/router.h"
#include "relay/world.h"

struct view {
	struct link link;
	struct world *world;              /* held */
	struct tls_context *tls_contexts; /* by receive connector; .ctx NULL: no TLS there */
	struct router *router;
	unsigned sessions; /* that use it */
	bool is_retired;
};

/* Mistakes are lines on errors. -errno. */
NODISCARD int view_create(struct world *world, struct conn_net *net, unsigned worker_id,
	FILE *errors, struct view **out);

/* On the worker's thread, once its loop is there. */
NODISCARD int view_open(struct view *view);

/* No session begins with it any more; pooled next-hop sessions end. */
void view_retire(struct view *view);

/* Retired, unused, and all its next-hop sessions closed? */
bool view_is_done(const struct view *view);

void view_destroy(struct view **view);

/* The context for a connector of the view's policy, or NULL: no TLS there. */
const struct tls_context *view_tls(
	const struct view *view, const struct receive_connector *connector);

/* Tickets and sessions end with the lists that they were given under. */
void view_refresh_tls(struct view *view);
