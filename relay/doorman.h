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
#include "relay/base/stats.h"
#include "relay/refusals.h"
#include "relay/world.h"

struct doorman;

/*
 * Before privileges are dropped and before anything listens: makes the door as bpf says, loads it
 * with the gate of the world, attaches it. From then on the kernel refuses strangers. Mistakes are
 * lines on errors. -errno.
 */
NODISCARD int doorman_create(struct world *world, FILE *errors, struct doorman **out);

/* The pins stay, and with nobody listening everybody is refused. */
void doorman_destroy(struct doorman **doorman);

/*
 * Instead, where the start comes to nothing: a door that it has made goes again, since whoever has
 * the ports now is not to be filtered by it. One that was there before stays. NULL is harmless.
 */
void doorman_abandon(struct doorman **doorman);

/* What the doorman asks of the relay; any of its own callers' threads. */
struct doorman_hooks {
	/* Ends the sessions of those whom lists do not let in any more; how many that were. */
	uint64_t (*end_sessions)(void *owner);
	/* Adds up the counters of all workers. */
	void (*sum_stats)(void *owner, struct stats *out);
	void *owner;
};

/* Before other threads use it; NULL calls are left out. */
void doorman_set_hooks(struct doorman *doorman, const struct doorman_hooks *hooks);

/*
 * For world_create(), so that names keep their numbers. To be called right before it: a change of
 * a list that comes from then on is made good by doorman_reload_prepare().
 */
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

/* A connection that was asked about; the kernel has not counted it. */
struct doorman_knock {
	const struct address *local;
	const struct ip *peer;
	const struct gate_answer *answer;
};

/*
 * What became of it, for door-status and door-refusals. Let in: only where the kernel does not
 * decide, as it counts itself. Any worker.
 */
void doorman_passed(
	struct doorman *doorman, const struct world *world, const struct doorman_knock *knock);
void doorman_refused(struct doorman *doorman, const struct world *world,
	const struct doorman_knock *knock, enum door_reason reason);

/* Why gate_ask() or doorman_ask() said no. */
enum door_reason doorman_reason(const struct gate_answer *answer);

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
	bool end_sessions; /* of those whom lists do not let in any more, after their reply */
	const char *who;   /* for the log: "uid=0 pid=4711 user=root" */
};

/* Where a request failed; what the -errno means depends on it. */
enum doorman_fault {
	DOORMAN_FAULT_REQUEST,
	DOORMAN_FAULT_MEMORY,
	DOORMAN_FAULT_DISK,
	DOORMAN_FAULT_KERNEL,
};

struct doorman_result {
	uint64_t generation;        /* after it */
	uint64_t generation_before; /* both are 0 for an unknown partner */
	enum doorman_fault fault;
	struct ip_list_diff diff;
	uint64_t sessions_ended;
	uint64_t effect_us;              /* from the beginning until it was in force */
	char why[KERNEL_DOOR_WHY_BYTES]; /* of a failure, with what to do */
};

/*
 * Changes a list. An entry to add that is there, or one to remove that is not, is -EEXIST, -ENOENT;
 * another generation -EBUSY; an unknown partner -ESRCH; contradictions -EINVAL; a file that was
 * changed by hand and not read again -ESTALE; or -errno. All of it goes to the log ("partner-ip").
 */
NODISCARD int doorman_change(
	struct doorman *doorman, const struct doorman_request *request, struct doorman_result *out);

/* A copy of a partner's list. -ESRCH, -ENOMEM. */
NODISCARD int doorman_list(struct doorman *doorman, const char *partner, struct ip_list *out);

/* The audit line of a request that did not come so far. rc: -errno; 0: it succeeded. */
void doorman_audit(
	const struct doorman_request *request, const struct doorman_result *result, int rc);

/*
 * Was a list in force changed on disk since it was read? Who changes one while no relay listens on
 * control-socket looks for the socket behind that: a relay that asks this once it listens sees
 * what nobody else would tell.
 */
bool doorman_is_behind(struct doorman *doorman);

/* What each binding says to an address; partner NULL, or only those where its list counts. */
struct doorman_verdict {
	const struct address *binding;
	bool is_served;
	const struct gate_answer *answer;
};

/* -ESRCH: no such partner. */
NODISCARD int doorman_test(struct doorman *doorman, const char *partner, const struct ip *ip,
	void (*on_binding)(void *owner, const struct doorman_verdict *verdict), void *owner);

enum doorman_table {
	DOORMAN_BINDINGS,
	DOORMAN_CONNECTORS,
	DOORMAN_PARTNERS,
};

struct doorman_row {
	const char *name;    /* of a binding its address */
	unsigned slot;       /* bindings */
	uint64_t prefixes;   /* bindings and partners */
	uint64_t generation; /* partners */
	struct door_counts counts;
};

struct doorman_facts {
	enum bpf_mode bpf;
	bool is_kernel;
	const char *why;                     /* userspace decides */
	const struct kernel_door_info *info; /* the kernel does; else NULL */
	struct door_totals totals;
	uint64_t own_netns;
	uint64_t uptime_ms;
	uint64_t gate_bytes; /* memory of the tries and lists here */
	struct stats stats;  /* of all workers */
};

struct doorman_viewer {
	void (*on_facts)(void *owner, const struct doorman_facts *facts);
	void (*on_row)(void *owner, enum doorman_table table, const struct doorman_row *row);
	void *owner;
};

/* All of it, while nothing changes. */
void doorman_look(struct doorman *doorman, const struct doorman_viewer *viewer);

/* Readable when the kernel tells of refusals; -1: it never will. */
int doorman_event_fd(const struct doorman *doorman);

/* Logs what it tells. */
void doorman_read_events(struct doorman *doorman);

/* The most refused sources first; how many. */
unsigned doorman_refusals(struct doorman *doorman, struct refusal *out, unsigned max);

/* The names behind the numbers of a value; "" for none. */
struct doorman_names {
	char connector[DOOR_NAME_BYTES];
	char partner[DOOR_NAME_BYTES];
};
void doorman_read_names(
	struct doorman *doorman, struct door_value value, struct doorman_names *out);
