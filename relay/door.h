/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * door.h: how many connections and messages there are, for each receive connector and for
 * each source: the limits max-inbound-connection, -per-source, -percentage-per-source and
 * message-rate-limit. Shared by all workers and by all snapshots: connectors are
 * known by name, so that a reload keeps the counts. All calls may come from any thread.
 *
 * The percentage is one of what the connector has still free; 100 means that a source has no
 * share of its own to keep to. A refused message is not counted.
 *
 * A source is an IPv4 address or an IPv6 /64. The table has a fixed size; a source with
 * nothing open and no messages of the last minute makes room. When it is full of busy
 * sources a new one is admitted without being counted, and door_untracked counts that.
 */

#include "policy/policy.h"
#include <stdatomic.h>

struct door;

/* sources: size of the table. -ENOMEM. */
NODISCARD int door_create(unsigned sources, struct door **out);
void door_destroy(struct door **door);

enum door_answer {
	DOOR_OPEN,
	DOOR_FULL,   /* max-inbound-connection: 421 4.3.2 */
	DOOR_SOURCE, /* per source or percentage: 421 4.3.2 */
	DOOR_RATE,   /* message-rate-limit: 421 4.4.2 */
};

/* What one session holds; given back by door_leave(). */
struct door_place {
	struct door *door;
	unsigned connector;
	unsigned source; /* UINT_MAX: not tracked */
};

/* A connection from peer to the connector. DOOR_OPEN: place is taken. */
NODISCARD enum door_answer door_enter(struct door *door, const struct receive_connector *connector,
	const struct ip *peer, struct door_place *place);
void door_leave(struct door_place *place);

/* One message more from this source; now_ms is monotonic. DOOR_OPEN or DOOR_RATE. */
NODISCARD enum door_answer door_message(
	struct door_place *place, const struct receive_connector *connector, uint64_t now_ms);

/* Connections open now. */
uint64_t door_count(struct door *door, const struct receive_connector *connector);
