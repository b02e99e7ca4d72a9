/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * doorman.h: decides who comes in: the gate of the world in force (policy/gate.h), and the kernel's
 * copy of it (bpf/loader.h) where there is one. It is the only writer of both, of the partners'
 * list files, and of the kernel's maps.
 *
 * One lock orders everything that changes: a reload (the keeper's thread) and a change of a list
 * (the control thread, relay/control.h). Workers only ask.
 *
 *   one prefix    gate_change_one() --> kernel_door_put() or _drop() --> file --> answer
 *   a whole set   stage --> fill --> file --> swap --> commit --> answer
 *
 * Whatever fails, the set before is in force, in the kernel, here and on disk; the answer says why.
 *
 * With bpf = auto the doorman says once, in the event "door", who decides and why.
 */

#include "bpf/loader.h"
#include "policy/gate.h"
#include "relay/world.h"

struct doorman;
struct kernel_door;

/*
 * Before privileges are dropped and before anything listens: makes the door as bpf says, loads it
 * with the gate of the world, attaches it. From then on the kernel refuses strangers. Mistakes are
 * lines on errors. -errno.
 */
NODISCARD int doorman_create(struct world *world, FILE *errors, struct doorman **out);

/* The pins stay, and with nobody listening everybody is refused. */
void doorman_destroy(struct doorman **doorman);

/* For world_create(), so that names keep their numbers. */
struct gate_ids *doorman_ids(struct doorman *doorman);

/* Is the kernel the one who decides? */
bool doorman_is_kernel(const struct doorman *doorman);

/*
 * A reload, by one thread: begin (takes the lock) --> prepare (all that may fail; bindings that are
 * new are guarded from here on) --> workers adopt the world --> finish (exchanges the tries, gives
 * up bindings; releases the lock). Or abandon, instead of finish, at any time: the old rules stay.
 * prepare: 0, or -errno with lines on errors.
 */
void doorman_reload_begin(struct doorman *doorman);
NODISCARD int doorman_reload_prepare(struct doorman *doorman, struct world *world, FILE *errors);
void doorman_reload_finish(struct doorman *doorman, struct world *world);
void doorman_reload_abandon(struct doorman *doorman);

/*
 * Who serves a peer that was accepted? Asks the kernel's maps if they decide, so that there is one
 * truth, and the world's gate otherwise. Any worker; false: nobody.
 */
bool doorman_ask(struct doorman *doorman, struct world *world, const struct address *local,
	const struct ip *peer, uint32_t zone, struct gate_answer *out);

/* ---- changes and questions; any thread but a worker's */

enum doorman_verb {
	DOORMAN_ADD,
	DOORMAN_REMOVE,
	DOORMAN_REPLACE,
};

struct doorman_request {
	enum doorman_verb verb;
	const char *partner;
	const struct cidr *entries; /* to add, to remove, or the whole */
	bool has_expected;
	uint64_t expected; /* generation that the list must have */
	bool dry_run;
	bool end_sessions; /* of peers that nobody serves any more, after their current reply */
	const char *who;   /* for the log: "uid=0 pid=4711 user=root" */
};

struct doorman_result {
	uint64_t generation; /* after it */
	struct ip_list_diff diff;
	uint64_t sessions_ended;
	uint64_t effect_us;              /* from the beginning until it was in force */
	char why[KERNEL_DOOR_WHY_BYTES]; /* of a failure, with what to do */
};

/*
 * Changes a list. An entry to add that is there, or one to remove that is not, is -EEXIST, -ENOENT;
 * another generation -EBUSY; an unknown partner -ESRCH; contradictions -EINVAL; or -errno.
 */
NODISCARD int doorman_change(
	struct doorman *doorman, const struct doorman_request *request, struct doorman_result *out);

/* A copy of a partner's list. -ESRCH, -ENOMEM. */
NODISCARD int doorman_list(struct doorman *doorman, const char *partner, struct ip_list *out);
