/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * route.h: which send connector? By address space (EXCHANGE 3.1). Pure functions on the snapshot.
 * Receive connectors are the gate's, policy/gate.h.
 */

#include "policy/policy.h"

enum route_status {
	ROUTE_OK,
	ROUTE_TOO_LARGE,   /* every match has a smaller max-message-size: refuse (5.3.4) */
	ROUTE_UNREACHABLE, /* no address space matches: 4.4.4 here, Exchange's Unreachable queue */
};

struct route {
	enum route_status status;
	const struct send_connector *connector;
	const struct address_space *space; /* that matched */
	const struct partner *partner;     /* whose listed domain this is (send-secure), or NULL */
	bool is_secured;                   /* s1: partner and the connector's domain-secure */
};

/* For mail of so many bytes (0: not known) to domain (normalized). */
void route_send(const struct policy *policy, const char *domain, uint64_t bytes, struct route *out);

/* The same with the connector given (send-connector of a receive connector). */
void route_fixed(const struct policy *policy, const struct send_connector *connector,
	const char *domain, uint64_t bytes, struct route *out);
