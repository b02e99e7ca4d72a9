/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * world.h: one configuration in force, with what was made from it and is shared by all
 * workers: the policy, who may connect, what each partner is believed by, our own certificates.
 *
 * A world is built whole, by the main thread at the start and by the keeper
 * (keeper.h) on a reload, and read-only from then on, but for the lists in its gate. Whoever uses
 * it holds it; the last to let go frees it. So a session keeps what it began with, while the next
 * MAIL is judged by the newest.
 */

#include "policy/gate.h"
#include "relay/pki/store.h"
#include "relay/pki/trust.h"
#include <stdatomic.h>
#include <stdio.h>

/* An address that is listened on, for one connector or several. */
struct world_binding {
	const struct address *address;
	const char *connector; /* the first that has it, for messages */
	bool is_open;          /* workers listen on it */
	bool is_new;           /* and the world before did not */
};

struct world {
	struct policy *policy;
	struct gate *gate; /* NULL once another world is in force */
	struct trust_set *trusts;
	struct own_certificate *certificates; /* all that could be read, enabled or not */
	unsigned certificate_count;
	struct world_binding *bindings; /* of enabled receive connectors, each once */
	unsigned binding_count;
	uint64_t connections_max; /* that workers have room for: those of the first world */
	_Atomic unsigned holders;
};

/*
 * Loads a configuration and everything it names, and chooses the certificates of the
 * connectors that name none (EXCHANGE 5.1). ids: numbers of names for the gate, which last longer
 * than a world; NULL: it has its own. Mistakes are lines on errors, with file, line
 * and remedy; warnings too. It waits (names, files), so never on a worker. The
 * caller holds it. -EINVAL, or another -errno.
 */
NODISCARD int world_create(
	const char *file, struct gate_ids *ids, FILE *errors, struct world **out);

/* Reads the lists again, with these numbers; the gate in place stays if that fails. -errno. */
NODISCARD int world_renew_gate(struct world *world, struct gate_ids *ids, FILE *errors);

struct world *world_hold(struct world *world);
void world_release(struct world **world); /* clears the pointer; NULL is harmless */

/* A line on errors: why the binding cannot be had (-errno). */
void world_complain_binding(const struct world_binding *binding, int rc, FILE *errors);

/* May a relay that runs with old go on with this one? Else says what needs a restart. */
const char *world_needs_restart(const struct world *old, const struct world *world);

/*
 * Which bindings are new, and can be had? An address that is not of this machine is reported
 * and passed over, so that the other connectors are served (EXCHANGE 14 row 3). It may wait for an
 * address that old (or NULL) had given up. -errno: none is left, or one is in use.
 */
NODISCARD int world_probe_bindings(const struct world *old, struct world *world, FILE *errors);
