/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * quota.h: how many connections and messages there are, for each receive connector and for
 * each source: the limits max-inbound-connection, -per-source, -percentage-per-source,
 * message-rate-limit, and connection-rate-limit where the kernel does not keep to it. Shared by all
 * workers and by all snapshots: connectors are known by name, so that a reload keeps the counts.
 * All calls may come from any thread.
 *
 * The percentage is one of what the connector has still free; 100 means that a source has no
 * share of its own to keep to. A refused message is not counted.
 *
 * A source is an IPv4 address or an IPv6 /64. The table has a fixed size; a source with
 * nothing open and no messages of the last minute makes room. When it is full of busy
 * sources a new one is admitted without being counted, and quota_untracked counts that.
 */

#include "bpf/shared.h"
#include "policy/policy.h"
#include <stdatomic.h>

struct quota;

/* sources: size of the table. -ENOMEM. */
NODISCARD int quota_create(unsigned sources, struct quota **out);
void quota_destroy(struct quota **quota);

enum quota_answer {
	QUOTA_OPEN,
	QUOTA_FULL,   /* max-inbound-connection: 421 4.3.2 */
	QUOTA_SOURCE, /* per source or percentage: 421 4.3.2 */
	QUOTA_RATE,   /* message-rate-limit: 421 4.4.2 */
	QUOTA_SPEED,  /* connection-rate-limit: 421 4.7.0 */
};

/* connection-rate-limit as the kernel's program and quota_enter() count it: a minute's worth may
 * come at once, and then the rate holds. */
struct door_limit quota_connection_limit(const struct receive_connector *connector);

/* What one session holds; given back by quota_leave(). */
struct quota_place {
	struct quota *quota;
	unsigned connector;
	unsigned source; /* UINT_MAX: not tracked */
};

/*
 * A connection from peer to the connector. keeps_speed: connection-rate-limit is ours to keep to;
 * one that another limit refuses counts for it. QUOTA_OPEN: place is taken.
 */
NODISCARD enum quota_answer quota_enter(struct quota *quota,
	const struct receive_connector *connector, const struct ip *peer, bool keeps_speed,
	struct quota_place *place);
void quota_leave(struct quota_place *place);

/* One message more from this source; now_ms is monotonic. QUOTA_OPEN or QUOTA_RATE. */
NODISCARD enum quota_answer quota_message(
	struct quota_place *place, const struct receive_connector *connector, uint64_t now_ms);

/* Connections open now. */
uint64_t quota_count(struct quota *quota, const struct receive_connector *connector);
