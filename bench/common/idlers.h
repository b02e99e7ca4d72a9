/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * idlers.h: many sessions that go to EHLO and then stay silent, until NOOP shows which are alive.
 *
 * All of one net; open and ask turn its loop themselves, in between its owner does.
 */

#include "bench/common/client.h"

enum idler_state {
	IDLER_UNUSED,
	IDLER_OPENING,
	IDLER_OPEN,   /* EHLO is done */
	IDLER_ASKED,  /* NOOP is sent */
	IDLER_ALIVE,  /* and answered */
	IDLER_FAILED, /* did not open, or was closed by the server */
};

struct idlers;

struct idler {
	struct client client;
	struct idlers *all;
	enum idler_state state;
	bool is_closed; /* on_closed was called */
};

struct idlers {
	struct stream_net *net;
	const struct client_plan *plan;
	struct idler *idlers;
	struct timer tick;
	uint64_t count;
	uint64_t first;   /* number of its first one among those of all nets */
	uint64_t begun;   /* that were tried */
	uint64_t opening; /* of these, on their way */
	uint64_t open;    /* EHLO is done; counted once */
	uint64_t asked;   /* NOOP is sent, the reply is not here yet */
	uint64_t alive;
	uint64_t failed;
	uint64_t held; /* streams that are not closed */
	struct stream_facts tls;
};

/* -ENOMEM, or 0. */
int idlers_create(struct idlers *idlers, struct stream_net *net, const struct client_plan *plan,
	uint64_t count, uint64_t first);

/* Opens all, some at a time; ends when each is open or failed, or at end_ms. */
void idlers_open_all(struct idlers *idlers, uint64_t end_ms);

/* NOOP and its reply on each that is open, some at a time, until end_ms; then closes all. */
void idlers_ask_all(struct idlers *idlers, uint64_t end_ms);

void idlers_destroy(struct idlers *idlers);
