/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * keeper.h: the thread for what takes time and may not be done on a worker: reloads, and
 * the watch over the ends of certificates.
 *
 * A reload builds a new world from the file while the old one serves. If anything in it is
 * wrong, or needs a restart, the old one stays in force and the event says so; else
 * every worker is handed it. Certificates and CRL files are read again with it.
 *
 * Each of our certificates is reported once when it comes within
 * certificate-expiry-warning of its end, and once when it has ended (EXCHANGE 4.9: 12016),
 * not once for each session.
 */

#include "relay/world.h"

struct keeper_events {
	/* Numbers of names for the next world; asked for right before it is made. */
	struct gate_ids *(*ids)(void *owner);
	/* Put the world in force; it is held for the callee. 0, or why not: the old stays. */
	const char *(*on_world)(void *owner, struct world *world);
};

struct keeper;

/* Starts the thread. world is the one in force; it is held by the keeper. */
NODISCARD int keeper_create(const char *file, struct world *world,
	const struct keeper_events *events, void *owner, struct keeper **out);

/* Asks for a reload; returns at once. Any thread. */
void keeper_reload(struct keeper *keeper);

/* Ends the thread, after the reload that is under way. */
void keeper_destroy(struct keeper **keeper);
